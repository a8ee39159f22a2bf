import keras
import numpy as np
import onnx
import pytest
import small_models
from keras import layers, ops
from onnx_models import data, export, op_counts, run

import tensorflow_quantization
from tensorflow_quantization import BaseQuantizeWrapper, quantize_model
from tensorflow_quantization.export import ExportError, OpsetError, UnsupportedLayerError, emitter, export_onnx
from tensorflow_quantization.export.onnx import exporter, fallback, registry

pytestmark = pytest.mark.filterwarnings("ignore:.*never saw data")

OLD = b"what was there before"


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(OLD)
    return path


def assert_untouched(path):
    assert path.read_bytes() == OLD
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_returns_the_path_and_replaces_an_old_file(old_file, cnn):
    assert export_onnx(cnn, str(old_file)) == old_file
    assert [p.name for p in old_file.parent.iterdir()] == ["m.onnx"]
    onnx.checker.check_model(onnx.load(old_file), full_check=True)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".tflite"])
def test_a_file_of_another_kind_is_not_written_over(tmp_path, cnn, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(OLD)
    with pytest.raises(ExportError, match=rf"writes \{suffix} files.*pass .*m\.onnx"):
        export_onnx(cnn, path)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("name", ["m", "m_1.2", "m.bin", ".onnx"])
def test_a_name_without_the_ending_is_an_error(tmp_path, cnn, name):
    with pytest.raises(ExportError, match=rf"does not end in \.onnx.*pass .*{name}\.onnx\."):
        export_onnx(cnn, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "right"), [("m.ONNX", "m"), ("m.Onnx", "m"), ("m.Keras", "m"), ("m.v2.ONNX", "m.v2")])
def test_an_ending_in_capitals_is_not_kept(tmp_path, cnn, name, right):
    with pytest.raises(ExportError, match=rf"does not end in \.onnx.*pass .*/{right}\.onnx\."):
        export_onnx(cnn, tmp_path / name)


def test_verification_on_no_data_is_an_error(old_file, cnn, images):
    with pytest.raises(ExportError, match="holds no data"):
        export_onnx(cnn, old_file, verify_with=images[0][:0])
    assert_untouched(old_file)


def test_a_relative_path(tmp_path, cnn, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_onnx(cnn, "m.onnx")
    assert (tmp_path / "m.onnx").exists()


def test_file_says_what_made_it(tmp_path, cnn):
    proto = export(cnn, tmp_path / "m.onnx")
    assert proto.producer_name == "tensorflow_quantization"
    assert proto.producer_version == tensorflow_quantization.__version__
    assert {p.key: p.value for p in proto.metadata_props} == {
        "tensorflow_quantization_version": tensorflow_quantization.__version__,
        "keras_version": keras.__version__,
    }
    assert proto.opset_import[0].version == 13


def test_target_of_a_model_without_wrappers_is_recorded(tmp_path):
    inputs = keras.Input((4, 4, 3))
    gate = ops.sigmoid(ops.mean(inputs, axis=(1, 2), keepdims=True))
    model = keras.Model(inputs, inputs * gate + inputs)
    quantized = quantize_model(model, target="onnxruntime")
    assert not any(isinstance(layer, BaseQuantizeWrapper) for layer in quantized.layers)
    quantized(np.ones((1, 4, 4, 3), "float32"), training=True)
    proto = export(quantized, tmp_path / "m.onnx")
    assert {p.key: p.value for p in proto.metadata_props}["target"] == "onnxruntime"


@pytest.mark.parametrize("name", small_models.BUILDERS)
def test_onnx_runtime_has_nothing_to_warn_of(tmp_path, name, capfd):
    model = small_models.BUILDERS[name]()
    export(model, tmp_path / "float.onnx")
    export(quantize_model(model), tmp_path / "int8.onnx")
    x = keras.tree.flatten(small_models.data_for(model))
    capfd.readouterr()
    for file in ("float.onnx", "int8.onnx"):
        run(tmp_path / file, x)
    assert capfd.readouterr().err == ""


def test_names_are_those_of_the_keras_model(tmp_path, residual):
    proto = export(quantize_model(residual), tmp_path / "m.onnx")
    assert [x.name for x in proto.graph.input] == ["image"]
    assert [x.name for x in proto.graph.output] == ["dense"]
    layer_names = {layer.name for layer in quantize_model(residual).layers} | {"image"}
    assert {node.name.split("/")[0] for node in proto.graph.node} <= layer_names
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)


def test_batch_axis_is_dynamic_and_named(tmp_path, cnn):
    proto = export(cnn, tmp_path / "m.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    for count in (1, 5):
        assert run(tmp_path / "m.onnx", data(cnn, count))[0].shape == (count, 5)


def test_a_fixed_batch_stays_fixed(tmp_path):
    inputs = keras.Input(batch_shape=(4, 6))
    proto = export(keras.Model(inputs, layers.Dense(3)(inputs)), tmp_path / "m.onnx")
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


def test_channels_first_input_needs_no_transpose(tmp_path, cnn, images):
    proto = export(cnn, tmp_path / "m.onnx", input_layout="channels_first")
    assert op_counts(proto)["Transpose"] == 0
    assert [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim][1:] == [3, 8, 8]
    actual = run(tmp_path / "m.onnx", [images[0].transpose(0, 3, 1, 2)])[0]
    np.testing.assert_allclose(actual, cnn.predict(images[0], verbose=0), atol=1e-5)


def test_an_image_output_is_as_keras_has_it(tmp_path, images):
    inputs = keras.Input((8, 8, 3))
    model = small_models.randomize(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)))
    export(model, tmp_path / "m.onnx", input_layout="channels_first", verify_with=images[0])


def test_outputs_that_are_inputs_or_the_same_twice(tmp_path):
    x = keras.Input((4,), name="x")
    y = layers.ReLU(name="y")(x)
    proto = export(keras.Model(x, [y, x, y]), tmp_path / "m.onnx", verify_with=np.ones((2, 4)))
    assert len({o.name for o in proto.graph.output} | {"x"}) == 4


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_other_precisions_are_computed_in_float32(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = small_models.cnn()
    finally:
        keras.config.set_dtype_policy("float32")
    proto = export(model, tmp_path / "m.onnx")
    reference = small_models.cnn()
    reference.set_weights(model.get_weights())
    x = small_models.images()[0]
    np.testing.assert_allclose(run(tmp_path / "m.onnx", [x])[0], reference.predict(x, verbose=0), atol=1e-5)
    assert {i.data_type for i in proto.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


@pytest.mark.parametrize("name", small_models.BUILDERS)
def test_same_model_same_bytes(tmp_path, name):
    model = small_models.BUILDERS[name]()
    export(model, tmp_path / "a.onnx")
    export(model, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("name", small_models.BUILDERS)
def test_the_model_is_left_as_it_was(tmp_path, name):
    model = small_models.BUILDERS[name]()
    before = small_models.values(model)
    export(model, tmp_path / "m.onnx", verify_with=small_models.data_for(model))
    small_models.assert_same_arrays(small_models.values(model), before)


@pytest.mark.parametrize("opset", [13, 14, 15, 17, 18, 20, 21])
def test_opset_on_request(tmp_path, residual, images, opset):
    proto = export(residual, tmp_path / "m.onnx", opset=opset, verify_with=images[0])
    assert proto.opset_import[0].version == opset


def test_opset_by_need(tmp_path):
    inputs = keras.Input((4,))
    proto = export(keras.Model(inputs, layers.LayerNormalization()(inputs)), tmp_path / "m.onnx")
    assert proto.opset_import[0].version == 17


@pytest.mark.parametrize("opset", [12, 0, -1, 999, 13.0, "13", True])
def test_unknown_opset(old_file, cnn, opset):
    with pytest.raises(OpsetError, match=r"opset must be an integer from 13 to \d+"):
        export_onnx(cnn, old_file, opset=opset)
    assert_untouched(old_file)


def test_opset_that_is_too_old_for_a_layer(old_file):
    @emitter(NeedsMish)
    def emit(e, layer, x):
        return e.op("Mish", x, since=18)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, NeedsMish(name="fishy")(inputs))
    try:
        with pytest.raises(
            OpsetError, match="Mish, an operator of 'fishy', needs ONNX opset 18 or newer, got opset=17"
        ):
            export_onnx(model, old_file, opset=17)
        assert_untouched(old_file)
        assert export(model, old_file).opset_import[0].version == 18
    finally:
        del registry._REGISTRY[NeedsMish]


class NeedsMish(layers.Layer):
    def call(self, x):
        return keras.activations.mish(x)


@pytest.mark.parametrize("input_layout", ["channel_first", "NCHW", None])
def test_unknown_input_layout(old_file, cnn, input_layout):
    with pytest.raises(ExportError, match=r"input_layout must be one of 'channels_last', 'channels_first', got"):
        export_onnx(cnn, old_file, input_layout=input_layout)
    assert_untouched(old_file)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [(".", IsADirectoryError, "is a directory"), ("none/m.onnx", FileNotFoundError, "does not exist; create it")],
)
def test_path_that_cannot_be_written(tmp_path, cnn, path, error, message):
    with pytest.raises(error, match=message):
        export_onnx(cnn, tmp_path / path)
    assert not list(tmp_path.iterdir())


def test_path_without_permission(tmp_path, cnn, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="no permission"):
        export_onnx(cnn, tmp_path / "m.onnx")


@pytest.mark.parametrize("model", [None, "model.keras", layers.Dense(3)])
def test_what_is_no_model(old_file, model):
    with pytest.raises(TypeError, match=r"keras\.Model"):
        export_onnx(model, old_file)
    assert_untouched(old_file)


def test_a_model_that_is_not_built(old_file):
    with pytest.raises(ValueError, match="not built"):
        export_onnx(keras.Sequential([layers.Dense(3)]), old_file)
    assert_untouched(old_file)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(old_file, cnn, value):
    kernel = cnn.get_layer("conv").kernel
    array = np.array(keras.ops.convert_to_numpy(kernel))
    array[0, 0, 0, :2] = value
    kernel.assign(array)
    with pytest.raises(ExportError, match=rf"conv \(Conv2D\): .*conv/kernel, 2 of {array.size} values"):
        export_onnx(cnn, old_file)
    assert_untouched(old_file)


def test_ranges_that_are_not_finite_are_named(old_file, cnn):
    quantized = quantize_model(cnn)
    quantized.get_layer("quant_conv").input_quantizers[0].range.assign([-1.0, np.nan])
    with pytest.raises(ExportError, match=r"quant_conv \(Conv2DQuantizeWrapper\): .*range, 1 of 2 values"):
        export_onnx(quantized, old_file)
    assert_untouched(old_file)


class Unknown(layers.Layer):
    """Keras cannot trace it."""

    def call(self, x):
        return keras.ops.convert_to_tensor(np.asarray(x) * 2)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape)


class OtherDense(layers.Dense):
    def call(self, inputs):
        return keras.ops.convert_to_tensor(np.asarray(super().call(inputs)) * 2)


class RenamedDense(layers.Dense):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)


def test_all_layers_that_cannot_be_written_are_named_at_once(old_file, monkeypatch):
    monkeypatch.setattr(fallback, "PACKAGE", "a_package_that_is_not_installed")
    inputs = keras.Input((4,))
    x = Unknown(name="first")(inputs)
    x = layers.Lambda(lambda x: x * 2, name="second")(x)
    x = OtherDense(3, name="third")(x)
    model = keras.Model(inputs, RenamedDense(3, name="fine")(x))
    with pytest.raises(UnsupportedLayerError) as caught:
        export_onnx(model, old_file)
    assert [(x.path, x.class_name) for x in caught.value.layers] == [
        ("first", "Unknown"),
        ("second", "Lambda"),
        ("third", "OtherDense"),
    ]
    for part in ("first (Unknown)", "third (OtherDense)", "@emitter(Unknown)", "return e.op("):
        assert part in str(caught.value)
    assert "fine" not in str(caught.value)
    assert_untouched(old_file)


def test_arguments_that_cannot_be_written_are_all_named(old_file):
    inputs = keras.Input((None, None, 3))
    x = layers.UpSampling2D(interpolation="bicubic", name="up")(inputs)
    x = layers.Resizing(4, 4, interpolation="lanczos3", name="size")(x)
    with pytest.raises(UnsupportedLayerError) as caught:
        export_onnx(keras.Model(inputs, x), old_file)
    assert [x.path for x in caught.value.layers] == ["up", "size"]
    assert "bicubic" in str(caught.value)
    assert_untouched(old_file)


def test_what_no_output_depends_on_is_not_written(tmp_path):
    image = keras.Input((8, 8, 3))
    first = layers.Conv2D(4, 3, name="first")(image)
    backbone = keras.Model(image, [first, layers.Conv2D(4, 3, name="second")(first)], name="backbone")
    inputs = keras.Input((8, 8, 3))
    outputs = layers.Conv2D(2, 3, name="head")(backbone(inputs)[0])
    model = quantize_model(small_models.randomize(keras.Model(inputs, outputs)))
    x = small_models.images()[0]
    model(x, training=True)
    proto = export(model, tmp_path / "m.onnx", verify_with=x)
    assert op_counts(proto)["Conv"] == 2
    assert not any("second" in node.name for node in proto.graph.node)


def test_an_unknown_layer_in_a_nested_model_has_its_path(tmp_path):
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), Unknown(name="odd")], name="body")
    with pytest.raises(UnsupportedLayerError, match=r"body/odd \(Unknown\)"):
        export_onnx(keras.Model(inputs, inner(inputs)), tmp_path / "m.onnx")


def test_string_input(tmp_path):
    inputs = keras.Input((1,), dtype="string", name="text")
    with pytest.raises(ExportError, match="text"):
        export_onnx(keras.Model(inputs, layers.Identity()(inputs)), tmp_path / "m.onnx")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(old_file, cnn, monkeypatch, error):
    def save(model, path):
        path.write_bytes(b"half a file")
        raise error

    monkeypatch.setattr(exporter, "save", save)
    with pytest.raises(error):
        export_onnx(cnn, old_file)
    assert_untouched(old_file)


def test_large_models_have_their_weights_beside_them(tmp_path, cnn, images, monkeypatch):
    monkeypatch.setattr("tensorflow_quantization.export.onnx.writing._LARGEST_FILE", 100)
    export_onnx(cnn, tmp_path / "m.onnx", verify_with=images[0])
    export_onnx(quantize_model(cnn), tmp_path / "q.onnx", verify_with=images[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data", "q.onnx", "q.onnx.data"]
    actual = run(tmp_path / "m.onnx", [images[0]])[0]
    np.testing.assert_allclose(actual, cnn.predict(images[0], verbose=0), atol=1e-5)
