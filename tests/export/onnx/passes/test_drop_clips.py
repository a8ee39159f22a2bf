import numpy as np
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes.common.drop_clips import drop_clips


@pytest.mark.parametrize(
    ("ops", "clips"),
    [
        (["Relu"], 0),
        (["Sigmoid", "MaxPool"], 0),
        (["Relu", "Transpose", "Reshape"], 0),
        (["Tanh"], 1),
        (["Relu", "Neg"], 1),
    ],
)
def test_a_clip_without_effect_is_removed(tmp_path, ops, clips):
    attributes = {"MaxPool": {"kernel_shape": [2, 2]}, "Transpose": {"perm": [0, 1, 3, 2]}}
    g = Graph(3, 4, 4)
    x = g.x
    for op_type in ops:
        more = [np.asarray([0, -1])] if op_type == "Reshape" else []
        x = g.op(op_type, x, *more, **attributes.get(op_type, {}))
    y = g.quantized(g.op("Clip", x, -2.54))
    assert g.check(tmp_path, y, drop_clips)["Clip"] == clips
    assert ("its input may be negative" in g.log) == (clips == 1)


def test_a_clip_that_also_limits_above_stays(tmp_path):
    g = Graph(4)
    y = g.quantized(g.op("Clip", g.op("Relu", g.x), -0.1, 0.1))
    assert g.check(tmp_path, y, drop_clips)["Clip"] == 1
    assert "it has an upper limit, too" in g.log
