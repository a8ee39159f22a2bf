import numpy as np
import run_time_sizes
import user_models
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


def test_the_size_of_the_batch_is_read_wherever_a_convolution_has_a_bias(tmp_path):
    case = {"kind": "images", "dynamic": True, "steps": [("gate", 0, 0), ("points", 0, 0)]}
    model, x = user_models.build(**case, outputs="one", policy="float32"), user_models.data_for("images", 4)
    quantized = calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), x, verbose=0)
    # Without the MaxPool after the convolution, it loses its bias: verification fails.
    proto = export(quantized, tmp_path / "m.onnx", verify_with=x, verify_runtime="openvino")
    (convolution,) = (node for node in proto.graph.node if node.op_type == "Conv")
    readers = [node.op_type for node in proto.graph.node if convolution.output[0] in node.input]
    assert readers == ["MaxPool"]
