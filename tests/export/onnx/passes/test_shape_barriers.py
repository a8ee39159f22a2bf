import numpy as np
import run_time_sizes
from onnx_models import export, op_counts
from processor import EXACT_WEIGHT_BITS

from tensorflow_quantization import calibrate, quantize_model


def test_shapes_of_convolutions_are_read_after_a_pooling(tmp_path):
    model = quantize_model(run_time_sizes.fpn(), target="openvino", weight_bits=EXACT_WEIGHT_BITS)
    x = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype("float32")
    calibrate(model, x, verbose=0)
    # Without the pass, OpenVINO loses a bias: verification fails.
    proto = export(model, tmp_path / "m.onnx", verify_with=x, verify_runtime="openvino")
    producers = {output: node.op_type for node in proto.graph.node for output in node.output}
    assert {producers[node.input[0]] for node in proto.graph.node if node.op_type == "Shape"} == {"MaxPool"}


def test_float_files_have_no_pooling(tmp_path):
    proto = export(run_time_sizes.fpn(), tmp_path / "m.onnx", target="openvino")
    counts = op_counts(proto)
    assert counts["Shape"] > 0 and "MaxPool" not in counts
