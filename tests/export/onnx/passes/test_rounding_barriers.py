import pytest
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS
from user_models import build, data_for

from tensorflow_quantization import calibrate, quantize_model


@pytest.mark.parametrize(
    "case",
    [
        {"kind": "images", "steps": [("conv", 0, 0), ("relu6", 0, 0), ("dense", 1, 0)], "head": "mean"},
        {"kind": "sequences", "steps": [("dense", 0, 0), ("relu6", 1, 0)], "head": "max"},
    ],
    ids=["images", "sequences"],
)
def test_limits_of_what_several_layers_read(case, tmp_path):
    """Models that `test_user_models.py` drew. Without the pass, OpenVINO rounds the limit 6 to integers."""
    model = build(dynamic=False, outputs="dict", policy="float32", **case)
    x = data_for(case["kind"], 4)
    quantized = calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), x, verbose=0)
    proto = export(quantized, tmp_path / "m.onnx", verify_with=x, verify_runtime="openvino")
    assert op_counts(proto)["Max"] >= 1
