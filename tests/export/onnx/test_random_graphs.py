"""Random small graphs, float and quantized for each runtime."""

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import ops
from onnx_models import assert_agrees
from processor import EXACT_WEIGHT_BITS
from random_graphs import GRAPHS, build, quantized

from tensorflow_quantization import calibrate
from tensorflow_quantization.export import export_onnx
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer


@settings(max_examples=15)
@given(**GRAPHS)
def test_float(tmp_path_factory, data_format, steps, head):
    keras.utils.clear_session(free_memory=False)
    model = build(data_format, steps, head)
    assert_agrees(model, tmp_path_factory.mktemp("float") / "m.onnx")


@settings(max_examples=12)
@given(**GRAPHS, target=st.sampled_from([None, "tensorrt", "onnxruntime", "openvino"]))
def test_quantized(tmp_path_factory, data_format, steps, head, target):
    keras.utils.clear_session(free_memory=False)
    model = quantized(build(data_format, steps, head), target=target)
    data = np.random.default_rng(0).normal(size=(4, *model.inputs[0].shape[1:])).astype("float32")
    model(data, training=True)
    export_onnx(model, tmp_path_factory.mktemp("quantized") / "m.onnx", verify_with=data)


def in_its_runtime(path, data, target):
    """The output of a stock runtime, with all of its optimizations: the one that the target is, else ONNX Runtime."""
    if target == "openvino":
        import openvino

        return openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(data)[0]
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: data})[0]


@pytest.mark.slow
@settings(max_examples=20)
@given(**GRAPHS, target=st.sampled_from([None, "tensorrt", "onnxruntime", "openvino"]))
def test_integer_kernels_of_a_stock_runtime(tmp_path_factory, data_format, steps, head, target):
    # OpenVINO 2026.4 crashes where the quantized parts of a tensor are joined again.
    assume(target != "openvino" or "shift" not in dict.fromkeys(name for name, _, _ in steps))
    keras.utils.clear_session(free_memory=False)
    model = quantized(build(data_format, steps, head), target=target, weight_bits=EXACT_WEIGHT_BITS)
    quantizers = [layer for layer in sublayers(model) if isinstance(layer, ActivationQuantizer)]
    assume(quantizers)
    data = np.random.default_rng(0).normal(size=(16, *model.inputs[0].shape[1:])).astype("float32")
    calibrate(model, data, verbose=0)
    for quantizer in quantizers:
        if quantizer.scheme.fixed is None:
            # Ranges of integers are in simple ratios to each other, and many values then lie between two integers.
            quantizer.set_range(*(1.0371 * ops.convert_to_numpy(quantizer.range)))
    path = export_onnx(model, tmp_path_factory.mktemp("stock") / "m.onnx")
    expected = ops.convert_to_numpy(model(data))
    deviations = np.abs(in_its_runtime(path, data, target) - expected) / np.abs(expected).max()
    # A kernel that computes something else deviates nearly everywhere, a value between two integers at one place.
    assert (deviations > 1e-4).mean() < 0.01
