import warnings

import keras
import numpy as np
import onnx
import pytest
import small_models
from keras import layers
from onnx import numpy_helper
from onnx_models import data, export, op_counts, run

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.quantizers import QuantizationScheme
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, find_wrapper

pytestmark = pytest.mark.filterwarnings("ignore:.*never saw data")


def initializer(proto, name):
    return next(numpy_helper.to_array(i) for i in proto.graph.initializer if i.name == name)


def attribute(node, name):
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def wrap(layer, *shapes, batch_norm=False, **arguments):
    """A model of one quantized layer, with random weights and ranges of random data."""
    inputs = [keras.Input(shape) for shape in shapes]
    wrapper = find_wrapper(layer)(layer, **arguments)
    x = wrapper(inputs[0] if len(inputs) == 1 else inputs)
    if batch_norm:
        x = layers.BatchNormalization()(x)
    model = small_models.randomize(keras.Model(inputs[0] if len(inputs) == 1 else inputs, x))
    for quantizer in wrapper.activation_quantizers:
        quantizer.set_range(-1.7, 2.1)
    for variable in model.weights:
        if variable.path.endswith("gamma"):  # negative ones turn the signs of integers
            variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    return model


SCHEMES = [
    QuantizationScheme(),
    QuantizationScheme(narrow_range=False),
    QuantizationScheme(bits=4),
    QuantizationScheme(signed=False, symmetric=False, narrow_range=False),
    QuantizationScheme(bits=6, signed=False, symmetric=False, narrow_range=False),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("output", [False, True])
def test_every_scheme_of_activations_agrees_to_the_integer(tmp_path, scheme, output):
    model = wrap(
        layers.Conv2D(4, 3, activation="relu"),
        (6, 6, 3),
        input_scheme=scheme,
        output_scheme=scheme if output else None,
    )
    # Values far outside of the range show whether saturation is that of the scheme.
    x = np.random.default_rng(0).normal(0, 5, (2, 6, 6, 3)).astype("float32")
    proto = export(model, tmp_path / "m.onnx", verify_with=x)
    zero_points = {i.data_type for i in proto.graph.initializer if i.name.endswith("put_zero_point")}
    assert zero_points == {onnx.TensorProto.INT8 if scheme.signed else onnx.TensorProto.UINT8}
    np.testing.assert_allclose(run(tmp_path / "m.onnx", [x], optimize=False)[0], model.predict(x), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [
        (lambda: layers.Conv1D(4, 3), (6, 3), 0),
        (lambda: layers.Conv2D(6, 3, groups=3, padding="same", strides=2), (6, 6, 6), 0),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3), 0),
        (lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), (6, 3), 0),
        (lambda: layers.Conv2DTranspose(4, 3, strides=2), (5, 5, 3), 1),
        (lambda: layers.Dense(4), (6,), 1),
        (lambda: layers.Dense(4, use_bias=False), (6,), 1),
        (lambda: layers.Dense(4), (5, 6), 1),
    ],
)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_quantized_kernel(tmp_path, layer, shape, axis, batch_norm):
    model = wrap(layer(), shape, batch_norm=batch_norm)
    proto = export(model, tmp_path / "m.onnx", verify_with=data(model)[0])
    assert op_counts(proto)["BatchNormalization"] == 0
    dequantize = next(n for n in proto.graph.node if n.name.endswith("kernel/DequantizeLinear"))
    assert attribute(dequantize, "axis") == axis
    weight, scale, zero_point = (initializer(proto, name) for name in dequantize.input)
    assert weight.dtype == zero_point.dtype == np.int8
    assert scale.shape == zero_point.shape == (weight.shape[axis] if axis == 0 else weight.shape[1],)
    assert (scale > 0).all()
    reader = next(n for n in proto.graph.node if dequantize.output[0] in n.input)
    assert reader.op_type in ("Conv", "ConvTranspose", "MatMul")
    source = next(n for n in proto.graph.node if reader.input[0] in n.output)
    assert source.op_type == "DequantizeLinear"


def test_separable_convolution_has_two_quantized_kernels(tmp_path):
    model = wrap(layers.SeparableConv2D(4, 3), (6, 6, 3), batch_norm=True)
    proto = export(model, tmp_path / "m.onnx", verify_with=data(model)[0])
    assert op_counts(proto) == {"Transpose": 2, "Clip": 1, "QuantizeLinear": 1, "DequantizeLinear": 3, "Conv": 2}


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.SeparableConv2D(4, 3, strides=2, padding="same", depth_multiplier=2, activation="relu"), (7, 6, 3)),
        (layers.SeparableConv2D(4, 3, dilation_rate=2, data_format="channels_first"), (3, 7, 6)),
        (layers.SeparableConv1D(4, 3, padding="same", use_bias=False), (7, 3)),
    ],
)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_what_flows_within_a_separable_convolution_is_quantized(tmp_path, layer, shape, batch_norm):
    layer = type(layer).from_config(layer.get_config())
    scheme = QuantizationScheme(narrow_range=False)
    model = wrap(layer, shape, batch_norm=batch_norm, input_scheme=scheme, inner_scheme=scheme)
    proto = export(model, tmp_path / "m.onnx", verify_with=data(model)[0])
    counts = op_counts(proto)
    assert (counts["QuantizeLinear"], counts["DequantizeLinear"], counts["Conv"]) == (2, 4, 2)
    producers = {output: node.op_type for node in proto.graph.node for output in node.output}
    for node in proto.graph.node:
        if node.op_type == "Conv":
            assert [producers[i] for i in node.input[:2]] == ["DequantizeLinear"] * 2


@pytest.mark.parametrize("indices", [None, [0], [1]])
@pytest.mark.parametrize("layer", [layers.Add, layers.Multiply, layers.Concatenate])
def test_chosen_inputs_of_a_merge(tmp_path, layer, indices):
    model = wrap(layer(), (4, 4, 3), (4, 4, 3), quantize_specific_input_indices=indices)
    proto = export(model, tmp_path / "m.onnx", verify_with=data(model))
    assert op_counts(proto)["QuantizeLinear"] == (2 if indices is None else 1)


def test_the_layout_is_changed_before_quantization_and_nowhere_else(tmp_path, residual):
    quantized = quantize_model(residual)
    proto = export(quantized, tmp_path / "m.onnx", verify_with=small_models.images()[0])
    assert proto.graph.node[0].op_type == "Transpose"
    assert op_counts(proto)["Transpose"] == 1
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear":
            readers = [n.op_type for n in proto.graph.node if node.output[0] in n.input]
            assert len(readers) == 1
            assert readers[0] not in ("Transpose", "Reshape")


def test_a_clip_stands_only_where_values_may_be_below_the_narrow_range(tmp_path, residual):
    proto = export(quantize_model(residual), tmp_path / "m.onnx")
    clipped = [n.name for n in proto.graph.node if n.op_type == "Clip"]
    # The image and the sum before the ReLU may be negative, what the ReLU and its average give may not.
    assert clipped == ["quant_stem/input/Clip", "quant_conv/input/Clip"]


@pytest.mark.parametrize("name", small_models.BUILDERS)
@pytest.mark.parametrize("input_layout", ["channels_last", "channels_first"])
def test_small_models(tmp_path, name, input_layout):
    model = quantize_model(small_models.BUILDERS[name]())
    x = small_models.data_for(model if name != "subclassed" else small_models.BUILDERS[name]())
    calibrate(model, x)
    export(model, tmp_path / "m.onnx", input_layout=input_layout, verify_with=x)


@pytest.mark.parametrize("kind", ["float", "quantized"])
def test_padding_is_folded_through_the_quantizer(tmp_path, kind):
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(6.0)(layers.Conv2D(4, 3, strides=2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(inputs)))
    x = layers.DepthwiseConv2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    model = small_models.randomize(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    if kind == "quantized":
        model = quantize_model(model)
    proto = export(model, tmp_path / "m.onnx", verify_with=data(model)[0])
    assert op_counts(proto)["Pad"] == 0


def test_a_wrapper_of_ones_own(tmp_path, own_wrappers):
    class ReLUQuantizeWrapper(BaseQuantizeWrapper):
        def call(self, inputs, training=None):
            return super().call(inputs, training=training)

    model = wrap(layers.ReLU(), (4,))
    assert isinstance(model.layers[-1], ReLUQuantizeWrapper)
    export(model, tmp_path / "m.onnx", verify_with=data(model)[0])


def test_unseen_quantizers_are_named_once(tmp_path, residual):
    quantized = quantize_model(residual)
    message = r"4 quantized layers never saw data.*: quant_stem, quant_conv.*calibrate"
    with pytest.warns(UserWarning, match=message) as found:
        export(quantized, tmp_path / "m.onnx")
    assert sum(w.category is UserWarning for w in found) == 1
    calibrate(quantized, small_models.images()[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        export(quantized, tmp_path / "m.onnx")


def test_the_file_is_a_quarter_of_the_float_one(tmp_path):
    model = small_models.randomize(keras.Sequential([keras.Input((256,)), layers.Dense(512), layers.Dense(256)]))
    export(model, tmp_path / "float.onnx")
    export(quantize_model(model), tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.28 * (tmp_path / "float.onnx").stat().st_size
