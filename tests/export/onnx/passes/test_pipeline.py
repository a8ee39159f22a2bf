"""Which passes run for which runtime, and what `run_passes` returns."""

import numpy as np
import pytest
from onnx_graphs import Graph

from tensorflow_quantization.export.onnx.passes import run_passes


@pytest.mark.parametrize(("target", "pairs"), [(None, 2), ("tensorrt", 2), ("onnxruntime", 1), ("openvino", 1)])
def test_each_reader_has_a_quantizer_of_its_own_but_where_the_runtime_wants_one(tmp_path, target, pairs):
    g = Graph(2, 4, 4)
    outputs = [g.conv(g.quantized(g.x), 2, 3), g.conv(g.quantized(g.x), 2, 3)]
    counts = g.check(tmp_path, outputs, lambda builder: run_passes(builder, target))
    assert counts["QuantizeLinear"] == pairs
    assert counts["DequantizeLinear"] == pairs


def test_counts_are_those_of_the_passes_that_changed_something(tmp_path):
    g = Graph(3, 5, 5)
    y = g.batch_norm(g.op("Conv", g.op("Pad", g.x, np.asarray([0, 0, 1, 1, 0, 0, 1, 1])), g.weight(4, 3, 3, 3)), 4)
    g.builder.graph.outputs.append(y)
    assert run_passes(g.builder, None) == {
        "fold_padding": 1,
        "fold_batch_norm": 1,
        "remove_dead_code": 6,  # pads, weight, and the four arrays of the normalization
    }


@pytest.mark.parametrize(
    ("target", "limit"), [("default", "Max"), ("tensorrt", "Clip"), ("onnxruntime", "Clip"), ("openvino", "Max")]
)
def test_the_limit_in_front_of_a_matrix_product_is_a_max_where_openvino_may_run_the_file(tmp_path, target, limit):
    g = Graph(4)
    y = g.op("MatMul", g.quantized(g.op("Clip", g.x, -0.1)), g.int8_weight(4, 3, axis=1))
    counts = g.check(tmp_path, y, lambda builder: run_passes(builder, target))
    assert (counts["Clip"], counts["Max"]) == ((1, 0) if limit == "Clip" else (0, 1))
