import keras
import numpy as np
import onnx
import pytest
import small_models
from keras import layers
from onnx_models import assert_agrees, export, op_counts
from small_models import randomize

from tensorflow_quantization import quantize_model
from tensorflow_quantization.export import ExportError, OpsetError, export_onnx

FLOAT, HALF, INT32 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT32


def _calibrated(model, target=None):
    quantized = quantize_model(model, target=target)
    quantized(small_models.data_for(model), training=True)
    return quantized


def _model(layer, shape):
    inputs = keras.Input(shape)
    return randomize(keras.Model(inputs, layer(inputs)))


@pytest.mark.parametrize("name", ["functional", "residual", "shared_layer", "operations", "dict"])
def test_models_agree_to_the_precision_of_float16(tmp_path, name):
    model = small_models.BUILDERS[name]()
    proto = assert_agrees(model, tmp_path / "m.onnx", tolerance=2e-2, precision="float16")
    assert all(i.data_type != FLOAT for i in proto.graph.initializer)
    assert {v.type.tensor_type.elem_type for v in (*proto.graph.input, *proto.graph.output)} == {FLOAT}
    assert op_counts(proto)["Cast"] == len(proto.graph.input) + len(proto.graph.output)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.UpSampling2D(2), (4, 4, 3)),
        (layers.Resizing(5, 7), (4, 4, 3)),
        (layers.LayerNormalization(), (5, 8)),
        (layers.GroupNormalization(2), (4, 4, 8)),
        (layers.UnitNormalization(), (8,)),
        (layers.RMSNormalization(), (8,)),
        (layers.Softmax(), (8,)),
        (layers.LSTM(4), (5, 3)),
        (layers.Conv2DTranspose(4, 3, strides=2), (4, 4, 3)),
        (layers.Activation("gelu"), (8,)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_layers_agree_to_the_precision_of_float16(tmp_path, layer, shape):
    assert_agrees(_model(layer, shape), tmp_path / "m.onnx", tolerance=2e-2, precision="float16")


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("target", [None, "onnxruntime", "openvino"])
def test_limits_that_float16_does_not_have_are_its_own(tmp_path, target):
    """`logsumexp` limits its maximum by the range of float32; so does a barrier before a normalization in OpenVINO."""
    inputs = keras.Input((6, 4))
    x = layers.LayerNormalization()(layers.Dense(4, activation="tanh")(inputs) * 0.1)
    x = layers.Dense(3)(keras.ops.logsumexp(x, axis=1))
    model = _calibrated(keras.Model(inputs, x), target)
    export(model, tmp_path / "m.onnx", precision="float16", verify_with=small_models.data_for(model))


@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime", "openvino"])
def test_scales_are_float16_and_integers_stay(tmp_path, target):
    model = _calibrated(small_models.residual(), target)
    data = small_models.data_for(small_models.residual())
    path = export_onnx(model, tmp_path / "m.onnx", precision="float16", verify_with=data)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    kinds = {i.name: i.data_type for i in proto.graph.initializer}
    quantizers = [n for n in proto.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    biases = [n for n in quantizers if kinds.get(n.input[0]) == INT32]  # whose scales are products of two
    assert {kinds[n.input[1]] for n in quantizers if n not in biases} == {HALF}
    assert {kinds[n.input[1]] for n in biases} <= {FLOAT}
    assert proto.opset_import[0].version == 19


def test_float16_scales_need_their_opset(tmp_path):
    with pytest.raises(OpsetError, match="opset 19"):
        export_onnx(_calibrated(small_models.cnn()), tmp_path / "m.onnx", precision="float16", opset=17)


def test_an_unknown_precision(tmp_path):
    with pytest.raises(ExportError, match="float16"):
        export_onnx(small_models.cnn(), tmp_path / "m.onnx", precision="half")


def test_a_weight_beyond_float16_names_its_layer(tmp_path):
    model = small_models.cnn()
    model.get_layer("dense").bias.assign(np.full(5, 1e6))
    with pytest.raises(ExportError, match=r"(?s)dense: dense/bias .*1e\+06"):
        export_onnx(model, tmp_path / "m.onnx", precision="float16")


def test_a_scale_that_becomes_zero_names_its_layer(tmp_path):
    model = _calibrated(small_models.cnn())
    model.get_layer("quant_conv").input_quantizers[0].range.assign([-1e-7, 1e-7])
    with pytest.raises(ExportError, match=r"(?s)quant_conv.*becomes zero"):
        export_onnx(model, tmp_path / "m.onnx", precision="float16")


def test_an_epsilon_does_not_become_zero(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.UnitNormalization()(inputs))
    export(model, tmp_path / "m.onnx", precision="float16")
    assert_agrees(model, tmp_path / "m.onnx", [np.zeros((2, 4), "float32")], precision="float16")


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_onnxruntime_does_not_load_quantized_concatenations(tmp_path, target):
    inputs = keras.Input((8, 8, 3))
    branches = [layers.Conv2D(4, size, padding="same", activation="relu")(inputs) for size in (1, 3)]
    joined = layers.Concatenate(name="joined")(branches)
    model = _calibrated(randomize(keras.Model(inputs, layers.Conv2D(2, 1)(joined))), target)
    if target == "onnxruntime":
        with pytest.raises(
            ExportError, match=r'quantized concatenations: quant_joined\. Export with precision="float32"'
        ):
            export_onnx(model, tmp_path / "m.onnx", precision="float16")
    else:
        export_onnx(model, tmp_path / "m.onnx", precision="float16", verify_with=small_models.data_for(model))
