import sys

import keras
import numpy as np
import onnx
import pytest
import small_models
from keras import layers, ops
from onnx import numpy_helper
from onnx_models import export
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.export import ExportError, VerificationError
from tensorflow_quantization.export.onnx import exporter
from tensorflow_quantization.export.verification import onnx as verification


@pytest.fixture
def spoil(monkeypatch):
    """Lets a test change the file between its writing and its verification."""

    def spoil(change):
        def save(model, path):
            original(model, path)
            proto = onnx.load(path)
            change(proto)
            onnx.save(proto, path)

        original = exporter.save
        monkeypatch.setattr(exporter, "save", save)

    return spoil


def scale_initializer(name, factor):
    def change(proto):
        (tensor,) = (i for i in proto.graph.initializer if i.name == name)
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), name))

    return change


@pytest.mark.parametrize("input_layout", ["channels_last", "channels_first"])
def test_float_models_agree(tmp_path, cnn, images, input_layout):
    export(cnn, tmp_path / "m.onnx", verify_with=images[0], input_layout=input_layout)


def test_a_wrong_float_file_is_not_written(tmp_path, cnn, images, spoil):
    spoil(scale_initializer("dense/kernel", 1.001))
    message = r"output 'dense' by 0\.000\d+ of its largest value \(allowed: 0\.0001\)"
    with pytest.raises(VerificationError, match=message):
        export(cnn, tmp_path / "m.onnx", verify_with=images[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quantizes", [False, True])
def test_data_of_nan_is_named(tmp_path, cnn, images, quantizes):
    model = calibrate(quantize_model(cnn), images[0], verbose=0) if quantizes else cnn
    data = np.where(np.arange(8)[:, None] == 3, np.float32(np.nan), images[0])
    with pytest.raises(VerificationError, match="values for the input 'image' that are NaN or infinite: pass finite"):
        export(model, tmp_path / "m.onnx", verify_with=data)


@pytest.mark.parametrize("quantizes", [False, True])
def test_an_output_that_is_infinite_is_named(tmp_path, images, quantizes):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Dense(3, activation="relu", kernel_initializer="zeros")(layers.GlobalAveragePooling2D()(inputs))
    model = keras.Model(inputs, {"scores": x, "log": keras.ops.log(x)})
    if quantizes:
        with pytest.raises(ValueError, match="returns values that are NaN or infinite for this data, in output 'log'"):
            calibrate(quantize_model(model, target="onnxruntime"), images[0], verbose=0)
        model = quantize_model(model, target="onnxruntime")
    with pytest.raises(VerificationError, match="Keras returns values that are NaN or infinite in output 'log'"):
        export(model, tmp_path / "m.onnx", verify_with=images[0])
    assert not list(tmp_path.iterdir())


def test_a_file_of_nan_is_not_written(tmp_path, cnn, images, spoil):
    spoil(scale_initializer("dense/kernel", np.nan))
    with pytest.raises(VerificationError, match="output 'dense'"):
        export(cnn, tmp_path / "m.onnx", verify_with=images[0])


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("quant_conv/input_scale", "input_quantizer of 'quant_conv'"),
        ("quant_stem/kernel_scale", "input_quantizer of 'quant_conv'"),
        ("quant_dense/bias", "output 'dense'"),
    ],
)
def test_a_wrong_quantized_file_names_where_it_deviates(tmp_path, residual, images, spoil, name, where):
    quantized = quantize_model(residual)
    calibrate(quantized, images[0], method="minmax")
    before = small_models.values(quantized)
    spoil(scale_initializer(name, 1.05))
    with pytest.raises(VerificationError, match=where):
        export(quantized, tmp_path / "m.onnx", verify_with=images[0])
    small_models.assert_same_arrays(small_models.values(quantized), before)


@pytest.mark.parametrize("target", [None, "tensorrt", "onnxruntime", "openvino"])
def test_openvino_agrees(tmp_path, residual, images, target):
    pytest.importorskip("openvino")
    if EXACT_WEIGHT_BITS and target in (None, "tensorrt"):
        pytest.skip("without VNNI, OpenVINO halves the weights where activations are int8, and rounds them")
    quantized = quantize_model(residual, target=target, weight_bits=EXACT_WEIGHT_BITS)
    calibrate(quantized, images[0])
    export(quantized, tmp_path / "m.onnx", verify_with=images[0], verify_runtime="openvino")


def test_a_file_that_openvino_gets_wrong_is_not_written(tmp_path, residual, images, spoil):
    pytest.importorskip("openvino")
    quantized = quantize_model(residual, target="openvino", weight_bits=EXACT_WEIGHT_BITS)
    calibrate(quantized, images[0])
    spoil(scale_initializer("quant_stem/kernel_scale", 1.05))
    with pytest.raises(VerificationError, match=r"OpenVINO and Keras disagree, most in .*'quant_"):
        export(quantized, tmp_path / "m.onnx", verify_with=images[0], verify_runtime="openvino")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", [None, "onnxruntime"])
def test_quantizers_work_again_after_verification(tmp_path, residual, images, target):
    quantized = quantize_model(residual, target=target)
    calibrate(quantized, images[0])
    before = quantized.predict(images[0], verbose=0)
    export(quantized, tmp_path / "m.onnx", verify_with=images[0])
    np.testing.assert_array_equal(quantized.predict(images[0], verbose=0), before)


@pytest.mark.parametrize("form", ["dict by input name", "dict of the model", "list"])
def test_inputs_come_as_predict_takes_them(tmp_path, form):
    builder = small_models.dict_in_and_out if form == "dict of the model" else small_models.siamese
    model = builder()
    x = small_models.data_for(model)
    if form == "dict by input name":
        x = dict(zip(["right", "left"], x[::-1], strict=True))
    export(model, tmp_path / "m.onnx", verify_with=x)


@pytest.mark.parametrize(
    "x", [[np.zeros((2, 8, 8, 3)), np.zeros(2)], np.zeros((2, 8)), {"other": np.zeros((2, 8, 8, 3))}]
)
def test_input_that_does_not_fit(tmp_path, cnn, x):
    with pytest.raises(ExportError, match=r"one array for each input \(image \(None, 8, 8, 3\)\), got "):
        export(cnn, tmp_path / "m.onnx", verify_with=x)


@pytest.mark.parametrize(
    "form",
    [
        lambda x, y: (x, y),
        lambda x, y: [x[:4], x[4:]],
        lambda x, y: (x[i : i + 4] for i in range(0, 16, 4)),
        lambda x, y: iter(lambda: (x[:4], y[:4]), None),  # endless
        lambda x, y: pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices((x, y)).batch(4),
    ],
    ids=["pair", "list of batches", "generator of arrays", "endless generator", "tf.data"],
)
def test_data_that_yields_batches(tmp_path, cnn, images, form, spoil):
    quantized = calibrate(quantize_model(cnn), images[0], verbose=0)
    export(quantized, tmp_path / "m.onnx", verify_with=form(*images))
    spoil(scale_initializer("quant_dense/bias", 1.05))
    with pytest.raises(VerificationError, match="disagree, most in output 'dense'"):
        export(quantized, tmp_path / "m.onnx", verify_with=form(*images))


def test_the_last_of_several_batches_is_compared_too(tmp_path, cnn, images, spoil):
    spoil(scale_initializer("dense/bias", 1.05))
    x = np.concatenate([images[0], images[0] * 1e4])  # the bias is small beside these
    with pytest.raises(VerificationError):
        export(cnn, tmp_path / "m.onnx", verify_with=[x[16:], x[:16]])


@pytest.mark.parametrize("target", [None, "onnxruntime"])
def test_four_images_for_a_model_whose_batch_is_one(tmp_path, target):
    inputs = keras.Input(batch_shape=(1, 8, 8, 3))
    model = small_models.randomize(keras.Model(inputs, layers.Conv2D(4, 3, activation="relu")(inputs)))
    x, _ = small_models.images(4)
    if target is not None:
        model = calibrate(quantize_model(model, target=target), x, verbose=0)
    export(model, tmp_path / "m.onnx", verify_with=x)


@pytest.mark.parametrize("x", [iter(()), np.zeros((8, 8, 3)), []])
def test_verify_with_that_is_empty_or_not_a_batch(tmp_path, cnn, x):
    with pytest.raises(ExportError, match=r"no batch|forget \.batch\(\)|got shapes \[\]"):
        export(cnn, tmp_path / "m.onnx", verify_with=x)
    assert not list(tmp_path.iterdir())


# Models that compute in 16 bits


def model_of_16_bits(policy, input_dtype=None):
    inputs = keras.Input((8, 8, 3), dtype=input_dtype)
    stem = layers.Conv2D(8, 3, padding="same", use_bias=False, dtype=policy)(inputs)
    stem = layers.ReLU(dtype=policy)(layers.BatchNormalization(dtype=policy)(stem))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", dtype=policy)(stem)
    x = layers.GlobalAveragePooling2D(dtype=policy)(layers.Add(dtype=policy)([stem, x]))
    x = layers.Dense(8, activation="gelu", dtype=policy)(x)
    return small_models.randomize(keras.Model(inputs, layers.Dense(5, activation="softmax", dtype=policy)(x)))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
@pytest.mark.parametrize("target", ["float", None, "tensorrt", "onnxruntime", "openvino"])
def test_models_of_16_bits_are_compared_in_float32(tmp_path, images, policy, target):
    model = model_of_16_bits(policy)
    if target != "float":
        model = calibrate(quantize_model(model, target=target, weight_bits=EXACT_WEIGHT_BITS), images[0], verbose=0)
    policies = [layer.dtype_policy.name for layer in model.layers]
    before = model.predict(images[0], verbose=0)
    export(model, tmp_path / "m.onnx", verify_with=images[0])
    assert [layer.dtype_policy.name for layer in model.layers] == policies
    np.testing.assert_array_equal(model.predict(images[0], verbose=0), before)


@pytest.mark.parametrize("target", ["float", "onnxruntime"])
def test_a_model_with_an_input_of_16_bits(tmp_path, images, target):
    model = model_of_16_bits("mixed_float16", "float16")
    if target != "float":
        model = calibrate(quantize_model(model, target=target), images[0], verbose=0)
    export(model, tmp_path / "m.onnx", verify_with=images[0])


def test_a_wrong_file_of_a_model_of_16_bits_is_found(tmp_path, images, spoil):
    model = model_of_16_bits("mixed_bfloat16")
    spoil(scale_initializer(f"{model.layers[-1].name}/kernel", 1.001))
    with pytest.raises(VerificationError, match=r"\(allowed: 0\.0001\)"):
        export(model, tmp_path / "m.onnx", verify_with=images[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_that_casts_to_16_bits_may_differ_by_more(tmp_path, images, spoil, dtype):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3)(ops.cast(layers.Conv2D(8, 3, activation="relu")(inputs), dtype))
    model = small_models.randomize(keras.Model(inputs, layers.Dense(5, name="scores")(layers.Flatten()(x))))
    export(model, tmp_path / "m.onnx", verify_with=images[0])
    spoil(scale_initializer("scores/kernel", 1.5))
    with pytest.raises(VerificationError, match=rf"allowed: 0\.\d+, because the model casts to {dtype}"):
        export(model, tmp_path / "m.onnx", verify_with=images[0])


# The runtime


@pytest.fixture
def runtimes(monkeypatch):
    """The runtimes in which files are verified, in order."""
    used = []
    original = verification.verify_onnx

    def verify(path, graph, lowered, x, tolerance, runtime):
        used.append(runtime)
        original(path, graph, lowered, x, tolerance, runtime)

    monkeypatch.setattr(verification, "verify_onnx", verify)
    monkeypatch.setattr(exporter, "verify_onnx", verify)
    return used


@pytest.mark.parametrize(
    ("target", "runtime"),
    [("openvino", "openvino"), ("onnxruntime", "onnxruntime"), ("tensorrt", "onnxruntime"), (None, "onnxruntime")],
)
def test_a_file_is_verified_in_the_runtime_that_it_is_for(tmp_path, cnn, images, runtimes, target, runtime):
    pytest.importorskip("openvino")
    export(cnn, tmp_path / "float.onnx", target=target, verify_with=images[0])
    quantized = quantize_model(cnn, target=target, weight_bits=EXACT_WEIGHT_BITS)
    export(calibrate(quantized, images[0], verbose=0), tmp_path / "m.onnx", verify_with=images[0])
    assert runtimes == [runtime, runtime]


def test_verify_runtime_decides(tmp_path, cnn, images, runtimes):
    export(cnn, tmp_path / "m.onnx", target="openvino", verify_with=images[0], verify_runtime="onnxruntime")
    assert runtimes == ["onnxruntime"]


def test_onnxruntime_verifies_what_a_runtime_that_is_not_installed_would(tmp_path, cnn, images, runtimes, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.warns(
        UserWarning, match=r"OpenVINO, the target of this file, is not installed.*verified in ONNX Runtime"
    ):
        export(cnn, tmp_path / "m.onnx", target="openvino", verify_with=images[0])
    assert runtimes == ["onnxruntime"]


@pytest.mark.parametrize("wrong", [False, True])
def test_where_openvino_saturates_onnxruntime_decides(tmp_path, cnn, images, runtimes, monkeypatch, spoil, wrong):
    pytest.importorskip("openvino")
    quantized = quantize_model(cnn, target="openvino", weight_bits=EXACT_WEIGHT_BITS)
    calibrate(quantized, images[0], verbose=0)
    monkeypatch.setattr(verification, "saturates", lambda runtime: True)
    original = verification.RUNTIMES["openvino"]
    double = verification.RUNTIMES | {"openvino": type(original)("OpenVINO", doubled(original.load))}
    monkeypatch.setattr(verification, "RUNTIMES", double)
    if wrong:
        spoil(scale_initializer("quant_dense/bias", 1.05))
        with pytest.raises(VerificationError, match="ONNX Runtime and Keras"):
            export(quantized, tmp_path / "m.onnx", verify_with=images[0])
    else:
        with pytest.warns(UserWarning, match=r"verified in ONNX Runtime: this processor has no VNNI"):
            export(quantized, tmp_path / "m.onnx", verify_with=images[0])
        with pytest.raises(VerificationError, match=r"OpenVINO and Keras.*no VNNI"):
            export(quantized, tmp_path / "m.onnx", verify_with=images[0], verify_runtime="openvino")
    assert runtimes[:2] == ["openvino", "onnxruntime"]


def doubled(load):
    """A runtime that returns twice the values."""
    return lambda *args: lambda feeds: [2 * y for y in load(*args)(feeds)]


def test_a_file_that_the_runtime_cannot_run_is_not_written(tmp_path, cnn, images, spoil):
    def change(proto):
        proto.graph.node[-1].domain = "unknown"

    spoil(change)
    with pytest.raises(VerificationError, match="ONNX Runtime cannot run the file: "):
        export(cnn, tmp_path / "m.onnx", verify_with=images[0])
    assert not list(tmp_path.iterdir())


def test_a_runtime_without_input_verifies_nothing(tmp_path, cnn):
    with pytest.raises(ExportError, match="verify_runtime='openvino' verifies nothing without verify_with: pass"):
        export(cnn, tmp_path / "m.onnx", verify_runtime="openvino")
    assert not list(tmp_path.iterdir())
