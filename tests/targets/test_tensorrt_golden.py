"""Where the quantizers of the networks of the model zoo are for TensorRT, held against what its documentation asks for.

Each test states a rule and walks the whole file by it, in another way than `check_onnx`; and NVIDIA's builder says what
runs in integers.
What is quoted are recommendations of NVIDIA's TensorRT documentation, "Explicit Quantization", "Q/DQ Layer-Placement
Recommendations"; other rules are in our words, with their section. The names at the end also show a change that keeps
to the rules.
"""

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import applications

from tensorflow_quantization import calibrate, check_onnx, export_onnx, quantize_model, runtime_report

pytestmark = pytest.mark.slow

#: By name, with the size of their images.
NETWORKS = {
    "ResNet50": 32,
    "ResNet101": 32,
    "ResNet50V2": 32,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "EfficientNetB0": 32,
    "InceptionV3": 75,
}
#: One network of each other family, for the builder alone.
OTHERS = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetV2B0": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "VGG16": 32,
    "Xception": 71,
}
WEIGHTED = ("Conv", "Gemm", "MatMul")
#: What a runtime computes along with the weighted operator before it.
FUSED = ("BatchNormalization", "Clip", "Relu")


def exported(name, size, folder):
    """The name of a network, and the path of its file."""
    keras.utils.clear_session()  # for the names of layers that have none of their own
    keras.utils.set_random_seed(0)
    build = getattr(applications, name)
    model = build(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    quantized = calibrate(quantize_model(model, target="tensorrt"), images, verbose=0)
    return name, export_onnx(quantized, folder / "model.onnx")


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    return exported(request.param, NETWORKS[request.param], tmp_path_factory.mktemp(request.param))


@pytest.fixture
def nodes(network):
    return list(ir.load(network[1]).graph)


def of_type(nodes, *op_types):
    return [node for node in nodes if node.op_type in op_types]


def maker(value, *through):
    """The node that makes a value, before operators of these types."""
    node = value.producer()
    while node is not None and node.op_type in through:
        node = node.inputs[0].producer()
    return node


def is_dequantized(value):
    """Whether a value comes straight from a DequantizeLinear; the input of the model may be transposed between."""
    node = maker(value, "Transpose")
    return node is not None and node.op_type == "DequantizeLinear"


def is_constant(value):
    return value.const_value is not None or (
        is_dequantized(value) and value.producer().inputs[0].const_value is not None
    )


def activations(node):
    return [value for value in node.inputs if not is_constant(value)]


def quantizers(nodes):
    """The QuantizeLinear nodes: all are of activations, for weights are stored as integers."""
    return of_type(nodes, "QuantizeLinear")


def readers(quantize):
    """What reads a QuantizeLinear, dequantized."""
    return [node for dequantize in quantize.outputs[0].consumers() for node in dequantize.outputs[0].consumers()]


def test_check_finds_nothing(network):
    report = check_onnx(network[1], target="tensorrt")
    assert not list(report), str(report)


def assert_built_in_integers(path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, NVIDIA's parser and builder, is not installed")
    report = runtime_report(path, "tensorrt")
    assert report.integer_share > 0.999, str(report)
    assert not [node.name for node in report if node.op_type in ("AveragePool", "MaxPool") and node.ran == "float"]


def test_the_builder_runs_products_and_pools_in_integers(network):
    assert_built_in_integers(network[1])


@pytest.mark.parametrize("name", OTHERS)
def test_the_builder_runs_other_networks_in_integers(name, tmp_path):
    _, path = exported(name, OTHERS[name], tmp_path)
    assert_built_in_integers(path)
    assert {finding.severity for finding in check_onnx(path, target="tensorrt")} <= {"info"}


def test_inputs_of_weighted_operations_are_quantized(nodes):
    """ "Quantize all inputs of weighted-operations (Convolution, Transposed Convolution and GEMM)." """
    weighted = of_type(nodes, *WEIGHTED)
    assert len(weighted) > 25
    for node in weighted:
        assert all(is_dequantized(value) for value in node.inputs[:2]), node.name


def test_first_and_last_layer_are_quantized(nodes):
    """The same rule makes no exception for the first and the last layer."""
    weighted = of_type(nodes, *WEIGHTED)
    source = maker(weighted[0].inputs[0], "DequantizeLinear", "QuantizeLinear", "Transpose", "Pad", "Mul", "Sub", "Div")
    assert source is None  # the input of the graph
    assert maker(weighted[0].inputs[0], "Transpose", "DequantizeLinear").op_type == "QuantizeLinear"
    assert is_dequantized(weighted[-1].inputs[0])
    behind = [node.op_type for node in nodes[nodes.index(weighted[-1]) + 1 :]]
    assert set(behind) <= {"Add", "Reshape"}  # the bias, and the shape of MobileNet's logits


def test_outputs_of_weighted_operations_are_not_quantized_before_what_fuses(nodes):
    """ "By default, do not quantize the outputs of weighted-operations." One there is that of the next one's input,
    where nothing fuses in between."""
    for quantize in quantizers(nodes):
        if maker(quantize.inputs[0]) is not None and maker(quantize.inputs[0]).op_type in WEIGHTED:
            assert not [node.name for node in readers(quantize) if node.op_type in FUSED], quantize.name
        assert not any(reader.is_graph_output() for node in readers(quantize) for reader in node.inputs)


def test_activations_have_one_scale_and_weights_one_a_channel(nodes):
    """ "Use per-tensor quantization for activations; and per-channel quantization for weights." """
    for quantize in quantizers(nodes):
        scale, zero_point = (quantize.inputs[i].const_value.numpy() for i in (1, 2))
        assert scale.shape == () and scale > 0
        assert zero_point.dtype == np.int8 and zero_point == 0  # "Working with Quantized Types": symmetric, signed
    for node in of_type(nodes, *WEIGHTED):
        dequantize = node.inputs[1].producer()
        integers, scale, zero_point = (value.const_value.numpy() for value in dequantize.inputs)
        axis = dequantize.attributes["axis"].as_int()
        assert integers.dtype == np.int8 and not zero_point.any()
        assert axis == (0 if node.op_type == "Conv" else 1) and scale.shape == (integers.shape[axis],)
        if len(node.inputs) > 2:
            assert node.inputs[2].const_value.dtype == ir.DataType.FLOAT  # the bias


def test_residual_input_of_a_sum_is_quantized_and_the_other_comes_from_its_convolution(nodes, network):
    """ "Quantize the residual input in skip-connections", and only that: Q/DQ between Conv and Add part them."""
    sums = [node for node in of_type(nodes, "Add") if len(activations(node)) == 2]
    expected = {"ResNet50": 16, "ResNet101": 33, "ResNet50V2": 16, "MobileNetV2": 10, "EfficientNetB0": 9}
    assert len(sums) == expected.get(network[0], 0)
    for node in sums:
        floats = [value for value in node.inputs if not is_dequantized(value)]
        assert [value.producer().op_type for value in floats] == ["Conv"], node.name
        assert len(floats[0].consumers()) == 1, node.name


def test_batch_normalization_is_folded_or_reads_integers(nodes, network):
    """ "Do not simulate batch-normalization and ReLU fusions in the training framework": exporting folds, exactly. What
    cannot be folded is a layer without weights of its own."""
    left = of_type(nodes, "BatchNormalization")
    # Pre-activation: what a ResNet v2 adds up is normalized before the next convolution, and at the end.
    assert len(left) == (17 if network[0] == "ResNet50V2" else 0)
    for node in left:
        assert is_dequantized(node.inputs[0]), node.name
        assert maker(node.inputs[0], "DequantizeLinear", "QuantizeLinear").op_type in ("Add", "MaxPool"), node.name


def test_both_inputs_of_squeeze_and_excitation_are_quantized(nodes, network):
    """ "Try quantizing layers that do not commute with Q/DQ": their inputs and their output. The product is one."""
    products = [node for node in of_type(nodes, "Mul") if len(activations(node)) == 2 and not is_swish(node)]
    assert len(products) == (16 if network[0] == "EfficientNetB0" else 0)
    for node in products:
        assert all(is_dequantized(value) for value in node.inputs), node.name
        assert quantized_behind(node), node.name


def is_swish(product):
    first, second = product.inputs
    gate = second.producer()
    return gate is not None and gate.op_type == "Sigmoid" and gate.inputs[0] is first


def quantized_behind(node):
    """Whether all that reads a node, behind a Reshape maybe, is a QuantizeLinear."""
    (output,) = node.outputs
    if [reader.op_type for reader in output.consumers()] == ["Reshape"]:
        (output,) = output.consumers()[0].outputs
    return {reader.op_type for reader in output.consumers()} == {"QuantizeLinear"}


def test_poolings_that_compute_have_quantizers_on_both_sides(nodes, network):
    """The same recommendation: an average does not commute, and a layer without weights that reads INT8 writes INT8."""
    pools = of_type(nodes, "AveragePool", "GlobalAveragePool")
    assert len(pools) == {"EfficientNetB0": 17, "InceptionV3": 10}.get(network[0], 1)
    for node in pools:
        assert is_dequantized(node.inputs[0]), node.name
        assert quantized_behind(node), node.name


def test_max_pooling_reads_integers(nodes, network):
    """ "TensorRT Processing of Q/DQ Networks": MaxPool commutes with Q/DQ, so that one on its input is enough."""
    pools = of_type(nodes, "MaxPool")
    # Of ResNet v1, three thin out the residual of a stage's last block.
    assert len(pools) == {"ResNet50": 4, "ResNet101": 4, "ResNet50V2": 4, "InceptionV3": 4}.get(network[0], 0)
    for node in pools:
        assert is_dequantized(node.inputs[0]), node.name


def test_what_is_joined_has_one_scale(nodes, network):
    """ "Q/DQ Limitations": several Q move back through the layer that they follow only if their scales are the same."""
    concats = of_type(nodes, "Concat")
    assert len(concats) == (11 if network[0] == "InceptionV3" else 0)
    for node in concats:
        behind = [reader for reader in node.outputs[0].consumers() if reader.op_type == "QuantizeLinear"]
        assert behind and len({float(quantize.inputs[1].const_value.numpy()) for quantize in behind}) == 1, node.name
        before = [value.producer() for value in node.inputs if is_dequantized(value)]
        assert len({float(dequantize.inputs[1].const_value.numpy()) for dequantize in before}) <= 1, node.name


def test_each_reader_has_a_pair_of_its_own(nodes):
    """ "TensorRT Processing of Q/DQ Networks": a pair is expected on each input, and becomes part of what reads it."""
    for quantize in quantizers(nodes):
        assert len(quantize.outputs[0].consumers()) == 1, quantize.name
        assert len(readers(quantize)) == 1, quantize.name


#: Of a block of each network: how the names of its layers begin, and what each of its quantizers reads.
BLOCKS = {
    "ResNet50": (
        ("pool1_pool", "conv3_block1_"),
        {
            "pool1_pool/input": "conv1_relu/Relu",
            "conv3_block1_1_conv/input": "conv2_block3_out/Relu",
            "conv3_block1_2_conv/input": "conv3_block1_1_relu/Relu",
            "conv3_block1_3_conv/input": "conv3_block1_2_relu/Relu",
            "conv3_block1_0_conv/input": "conv2_block3_out/Relu",
            "conv3_block1_add/input_0": "quant_conv3_block1_0_conv/Conv",
        },
    ),
    "ResNet101": (
        ("conv4_block23_",),
        {
            "conv4_block23_1_conv/input": "conv4_block22_out/Relu",
            "conv4_block23_2_conv/input": "conv4_block23_1_relu/Relu",
            "conv4_block23_3_conv/input": "conv4_block23_2_relu/Relu",
            "conv4_block23_add/input_0": "conv4_block22_out/Relu",
            "conv4_block23_add": "quant_conv4_block23_add/MaxPool",
        },
    ),
    "ResNet50V2": (
        ("conv2_block3_", "max_pooling2d/"),
        {
            "conv2_block3_preact_bn/input": "quant_conv2_block2_out/Add",
            "conv2_block3_1_conv/input": "conv2_block3_preact_relu/Relu",
            "conv2_block3_2_conv/input": "conv2_block3_1_relu/Relu",
            "conv2_block3_3_conv/input": "conv2_block3_2_relu/Relu",
            "max_pooling2d/input": "quant_conv2_block2_out/Add",
            "conv2_block3_out/input_0": "quant_max_pooling2d/MaxPool",
        },
    ),
    "MobileNet": (
        ("conv_dw_2", "conv_pw_2", "global"),
        {
            "conv_dw_2/input": "conv_pw_1_relu/Clip",
            "conv_pw_2/input": "conv_dw_2_relu/Clip",
            "global_average_pooling2d/input": "conv_pw_13_relu/Clip",
        },
    ),
    "MobileNetV2": (
        ("block_2_",),
        {
            "block_2_expand/input": "quant_block_1_project/Conv",
            "block_2_depthwise/input": "block_2_expand_relu/Clip",
            "block_2_project/input": "block_2_depthwise_relu/Clip",
            "block_2_add/input_0": "quant_block_1_project/Conv",
        },
    ),
    "EfficientNetB0": (
        ("block2b_",),
        {
            "block2b_expand_conv/input": "quant_block2a_project_conv/Conv",
            "block2b_dwconv/input": "block2b_expand_activation/Mul",
            "block2b_se_squeeze/input": "block2b_activation/Mul",
            "block2b_se_reduce/input": "quant_block2b_se_squeeze/GlobalAveragePool",
            "block2b_se_expand/input": "quant_block2b_se_reduce/Mul",
            "block2b_se_excite/input_0": "block2b_activation/Mul",
            "block2b_se_excite/input_1": "quant_block2b_se_expand/Sigmoid",
            "block2b_project_conv/input": "quant_block2b_se_excite/Mul",
            "block2b_add/input_1": "quant_block2a_project_conv/Conv",
        },
    ),
    "InceptionV3": (
        ("max_pooling2d_1/", "average_pooling2d/", *(f"conv2d_{i}/" for i in range(5, 13))),
        {
            "max_pooling2d_1/input": "activation_4/Relu",
            "conv2d_5/input": "quant_max_pooling2d_1/MaxPool",
            "conv2d_6/input": "quant_max_pooling2d_1/MaxPool",
            "conv2d_7/input": "activation_6/Relu",
            "conv2d_8/input": "quant_max_pooling2d_1/MaxPool",
            "conv2d_9/input": "activation_8/Relu",
            "conv2d_10/input": "activation_9/Relu",
            "average_pooling2d/input": "quant_max_pooling2d_1/MaxPool",
            "conv2d_11/input": "quant_average_pooling2d/AveragePool",
            "conv2d_12/input": "mixed0/Concat",
        },
    ),
}


def test_quantizers_of_a_block(network, nodes):
    starts, expected = BLOCKS[network[0]]
    names = {quantize.name.removeprefix("quant_"): quantize for quantize in quantizers(nodes)}
    found = {
        name.removesuffix("/QuantizeLinear"): maker(quantize.inputs[0]).name
        for name, quantize in names.items()
        if name.startswith(starts)
    }
    assert found == expected
