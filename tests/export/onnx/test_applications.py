"""Every network of `keras.applications` on the smallest images that it takes: float, and quantized for each runtime."""

import gc
import inspect

import keras
import numpy as np
import onnx
import pytest
from onnx_models import assert_agrees, export, op_counts, run
from processor import EXACT_WEIGHT_BITS
from settling import settle

pytest.importorskip("openvino")

from tensorflow_quantization import calibrate, check_onnx, export_litert, export_onnx, quantize_model

NETWORKS = [name for name, _ in inspect.getmembers(keras.applications, inspect.isfunction)]
#: The smallest of each family, which is a module of `keras.applications`; together, the others take hours.
SMALLEST = frozenset(
    {"ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2", "InceptionV3"}
    | {"MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50", "ResNet50V2"}
    | {"VGG16", "VGG19", "Xception"}
)
#: In each run of the tests; the others of the smallest are slow.
QUICK = "MobileNetV2"
#: The deepest. tests/targets/test_tensorrt_golden.py quantizes them, too.
DEEPEST = frozenset({"DenseNet121", "NASNetMobile"})
TARGETS = (None, "tensorrt", "onnxruntime", "openvino", "litert")


def marks(name, target):
    """The smallest networks take turns in the targets: each is written for one of them, the rest takes hours."""
    if name == QUICK:
        return [] if target == "onnxruntime" else [pytest.mark.slow]
    turn = (sorted(SMALLEST).index(name) + 3) % len(TARGETS) if name in SMALLEST - DEEPEST else None
    return [pytest.mark.exhaustive if turn is None or target != TARGETS[turn] else pytest.mark.slow]


def each_network(*targets):
    return [pytest.param(name, target, marks=marks(name, target)) for name in NETWORKS for target in targets]


def images(model, count=2):
    return np.random.default_rng(1).uniform(0, 255, (count, *model.inputs[0].shape[1:])).astype("float32")


def build(name):
    """The network for the smallest images that it takes."""
    constructor = getattr(keras.applications, name)
    for size in range(32, 224):
        try:
            return constructor(weights=None, input_shape=(size, size, 3), classes=10)
        except ValueError:  # the images are too small
            continue
    raise AssertionError(f"{name} takes no image smaller than 224")


@pytest.fixture(scope="module")
def network(request):
    """One network after the other: the largest takes gigabytes."""
    gc.collect()
    keras.utils.clear_session()
    model = build(request.param)
    return settle(model, images(model))


def test_each_family_is_in_each_run():
    modules = {name: getattr(keras.applications, name).__module__ for name in NETWORKS}
    assert sorted(modules[name] for name in SMALLEST) == sorted(set(modules.values()))
    assert QUICK in SMALLEST


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(
            name, marks=[] if name == QUICK else pytest.mark.slow if name in SMALLEST else pytest.mark.exhaustive
        )
        for name in NETWORKS
    ],
    indirect=True,
)
def test_float_file_agrees(network, tmp_path):
    counts = op_counts(assert_agrees(network, tmp_path / "m.onnx", [images(network)]))
    if not counts["LayerNormalization"]:  # which wants channels last
        assert counts["Transpose"] == 1


@pytest.mark.parametrize(("network", "target"), each_network(*TARGETS[:-1]), indirect=["network"])
def test_quantized_file_agrees(network, target, tmp_path):
    x = images(network)
    weight_bits = EXACT_WEIGHT_BITS if target == "openvino" else None
    quantized = calibrate(quantize_model(network, target=target, weight_bits=weight_bits), x, verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx", verify_with=x)
    onnx.checker.check_model(path, full_check=True)
    run(path, [x])  # it loads and runs as optimized by ONNX Runtime too
    report = check_onnx(path, target or "tensorrt")
    assert not report.errors, str(report)
    if target == "openvino":
        export_onnx(quantized, path, verify_with=x, verify_runtime="openvino")


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="export_litert needs the TensorFlow backend")
@pytest.mark.parametrize(("network", "target"), each_network("litert"), indirect=["network"])
def test_litert_file_agrees(network, target, tmp_path):
    pytest.importorskip("ai_edge_litert")
    x = images(network)
    quantized = calibrate(quantize_model(network, target=target), x, verbose=0)
    export_litert(quantized, tmp_path / "m.tflite", verify_with=x)


@pytest.mark.parametrize("network", [QUICK, pytest.param("EfficientNetB0", marks=pytest.mark.slow)], indirect=True)
def test_all_is_folded_and_quantized(network, tmp_path):
    float_path, path, x = tmp_path / "float.onnx", tmp_path / "int8.onnx", images(network)
    export_onnx(network, float_path, verify_with=x, verify_runtime="openvino")
    proto = export(calibrate(quantize_model(network), x, verbose=0), path)
    counts = op_counts(proto)
    assert counts["BatchNormalization"] == counts["Pad"] == 0
    assert counts["Transpose"] == 1
    producers = {output: node.op_type for node in proto.graph.node for output in node.output}
    for node in proto.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            assert [producers[i] for i in node.input[:2]] == ["DequantizeLinear"] * 2
    assert path.stat().st_size < 0.3 * float_path.stat().st_size
