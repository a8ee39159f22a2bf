import small_models
from qdq_files import QdqFile

from tensorflow_quantization import describe, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.onnx_graph.files import read_onnx, to_ir, with_shapes
from tensorflow_quantization.reporting.network import FLOAT, INTEGER, OTHER, network_of_file, network_of_model


def half(f):
    """A Conv with a Relu that runs in integers, and a Dense that does not: nothing quantizes its input."""
    y = f.pair(f.op("Relu", f.conv(f.pair(f.input()), name="first"), name="relu"))
    y = f.op("Sin", f.op("Flatten", f.op("GlobalAveragePool", y, name="pool"), name="flatten"), name="sin")
    return [f.op("Gemm", y, f.weights(12, 8), name="last", transB=1)]


def network(path, runtime="onnxruntime"):
    file = QdqFile()
    file.save(path, *half(file))
    return network_of(path, runtime)


def network_of(path, runtime):
    report = runtime_report(path, runtime) if runtime else None
    return network_of_file(to_ir(with_shapes(read_onnx(path)), path), report)


def tensors(network):
    """How each tensor is stored, by the names of the nodes that it joins."""
    return {(network.nodes[e.source].name, network.nodes[e.target].name): e.ran for e in network.edges}


def test_nodes_have_the_colour_of_the_kernel_that_ran(tmp_path):
    found = {node.name: node.ran for node in network(tmp_path / "m.onnx").nodes}
    assert found["first"] == found["relu"] == INTEGER, "the Relu is part of the kernel of the Conv"
    assert found["sin"] == found["last"] == FLOAT
    assert found["x"] == OTHER


def test_quantizers_and_weights_are_no_nodes_but_the_dtype_of_a_tensor(tmp_path):
    drawn = network(tmp_path / "m.onnx")
    assert [node.kind for node in drawn.nodes] == [
        "Input",
        "Conv",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
        "Sin",
        "Gemm",
    ]
    assert [edge.label for edge in drawn.edges][:3] == [
        "uint8 1 × 8 × 8 × 8",
        "float 1 × 8 × 8 × 8",
        "uint8 1 × 8 × 8 × 8",
    ]


def test_tensors_are_integers_where_a_quantizer_feeds_an_integer_kernel(tmp_path):
    found = tensors(network(tmp_path / "m.onnx"))
    assert found["x", "first"] == found["first", "relu"] == found["relu", "pool"] == INTEGER
    assert found["flatten", "sin"] == found["sin", "last"] == FLOAT


def test_without_a_runtime_only_tensors_have_a_colour(tmp_path):
    drawn = network(tmp_path / "m.onnx", runtime=None)
    assert {node.ran for node in drawn.nodes} == {OTHER}
    assert tensors(drawn)["x", "first"] == INTEGER and tensors(drawn)["sin", "last"] == OTHER
    assert "No runtime" in drawn.says


def test_float_model_is_float(tmp_path, cnn):
    drawn = network_of(export_onnx(cnn, tmp_path / "float.onnx"), "onnxruntime")
    assert {node.ran for node in drawn.nodes if node.kind != "Input"} == {FLOAT}
    assert set(tensors(drawn).values()) == {FLOAT}


def test_keras_model_is_drawn_without_its_quantizers(residual):
    quantized = quantize_model(residual, target="onnxruntime")
    drawn = network_of_model(LayerGraph.trace(quantized).flatten(), describe(quantized))
    assert [node.layer for node in drawn.nodes] == ["image", "stem", "conv", "bn", "add", "relu", "gap", "dense"]
    found = {(a.removeprefix("quant_"), b.removeprefix("quant_")): ran for (a, b), ran in tensors(drawn).items()}
    assert found["image", "stem"] == found["stem", "add"] == INTEGER
    assert {node.ran for node in drawn.nodes if node.kind != "Input"} == {INTEGER}


def test_layer_that_is_folded_away_is_drawn_as_the_layer_that_it_reads(tmp_path):
    quantized = quantize_model(small_models.cnn(), target="onnxruntime")
    drawn = network_of(export_onnx(quantized, tmp_path / "m.onnx"), "onnxruntime")
    drawn.find_layers(LayerGraph.trace(quantized).flatten())
    assert drawn.drawn_as["bn"] == "conv"
