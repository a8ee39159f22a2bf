"""Networks of KerasHub, small and with random weights: a classifier of images and of texts, segmentation, detection."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from settling import settle

from tensorflow_quantization import calibrate, check_onnx, describe, export_onnx, quantize_model

hub = pytest.importorskip("keras_hub").models


def images(size=32):
    return np.random.default_rng(1).uniform(0, 1, (2, size, size, 3)).astype("float32")


def texts(length=8, vocabulary=50):
    rng = np.random.default_rng(1)
    return {
        "token_ids": rng.integers(0, vocabulary, (2, length)).astype("int32"),
        "segment_ids": rng.integers(0, 2, (2, length)).astype("int32"),
        "padding_mask": np.array([[1] * length, [1] * (length - 3) + [0] * 3], "int32"),
    }


def vit():
    backbone = hub.ViTBackbone((32, 32, 3), patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    return hub.ViTImageClassifier(backbone=backbone, num_classes=5, activation="softmax"), images()


def bert():
    backbone = hub.BertBackbone(
        vocabulary_size=50, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32, max_sequence_length=16
    )
    return hub.BertTextClassifier(backbone=backbone, num_classes=3), texts()


def resnet():
    """ResNet18 with narrow stages."""
    return hub.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 32, 32, 32],
        stackwise_num_blocks=[2, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(64, 64, 3),
    )


def deeplab():
    backbone = hub.DeepLabV3Backbone(
        image_encoder=resnet(),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[2, 3],
        upsampling_size=4,
        projection_filters=8,
        image_shape=(64, 64, 3),
    )
    return hub.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=4, activation="softmax"), images(64)


def segformer():
    encoder = hub.MiTBackbone(
        layerwise_depths=[1, 1, 1, 1],
        num_layers=4,
        layerwise_num_heads=[1, 2, 2, 2],
        layerwise_sr_ratios=[8, 4, 2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        image_shape=(64, 64, 3),
        hidden_dims=[4, 8, 16, 32],
    )
    backbone = hub.SegFormerBackbone(image_encoder=encoder, projection_filters=16)
    return hub.SegFormerImageSegmenter(backbone=backbone, num_classes=4), images(64)


def retinanet():
    backbone = hub.RetinaNetBackbone(
        image_encoder=resnet(), min_level=3, max_level=5, use_p5=False, image_shape=(64, 64, 3)
    )
    return hub.RetinaNetObjectDetector(backbone=backbone, num_classes=4), images(64)


#: With a token, or positions, repeated by the batch size, which Keras cannot trace: these layers go through tf2onnx.
THROUGH_TENSORFLOW = [
    pytest.param(
        builder, marks=pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf2onnx needs TensorFlow")
    )
    for builder in (vit, bert)
]


@pytest.fixture(scope="module")
def network(request):
    """A model and input for it."""
    keras.utils.clear_session()
    model, x = request.param()
    return settle(model, x), x


def assert_loads(path, x):
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    session.run(None, x if isinstance(x, dict) else {names[0]: x})


LARGE = [pytest.param(build, marks=pytest.mark.slow) for build in (deeplab, segformer, retinanet)]


@pytest.mark.parametrize("network", [*THROUGH_TENSORFLOW, *LARGE], indirect=True)
def test_float_file_agrees(network, tmp_path):
    model, x = network
    assert_loads(export_onnx(model, tmp_path / "m.onnx", verify_with=x), x)


@pytest.mark.filterwarnings("ignore:The quantized form of RetinaNet", "ignore:The config of layer .*ViTPatching")
@pytest.mark.parametrize("target", [None, "onnxruntime"], ids=str)
@pytest.mark.parametrize("network", [*THROUGH_TENSORFLOW, *LARGE], indirect=True)
def test_quantized_file_agrees(network, target, tmp_path):
    model, x = network
    quantized = calibrate(quantize_model(model, target=target), x, verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx", verify_with=x)
    assert_loads(path, x)
    report = check_onnx(path, target or "tensorrt")
    assert not report.errors, str(report)


def llama():
    return hub.LlamaBackbone(
        vocabulary_size=50, num_layers=2, num_query_heads=4, num_key_value_heads=2, hidden_dim=16, intermediate_dim=32
    )


def gpt2():
    return hub.GPT2Backbone(
        vocabulary_size=50, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32, max_sequence_length=16
    )


def qwen3():
    return hub.Qwen3Backbone(
        vocabulary_size=50,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        hidden_dim=16,
        intermediate_dim=32,
        sliding_window_size=3,
        use_sliding_window=True,
    )


@pytest.mark.filterwarnings("ignore:The config of layer", "ignore:The quantized form of")
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere, Keras cannot trace GPT2's layers")
@pytest.mark.parametrize(
    "build", [gpt2, pytest.param(llama, marks=pytest.mark.slow), pytest.param(qwen3, marks=pytest.mark.slow)]
)
def test_decoders_of_any_length_are_quantized_inside(build, tmp_path):
    """Their causal masks and rotary positions are computed from the length, as Keras traces them."""
    keras.utils.clear_session()
    x = {name: texts()[name] for name in ("token_ids", "padding_mask")}
    model = settle(build(), x)
    quantized = calibrate(quantize_model(model, target="onnxruntime"), x, verbose=0)
    rows = describe(quantized)
    for i in range(2):
        inside = [row for row in rows if row.name.startswith(f"transformer_layer_{i}/")]
        assert sum(row.quantized for row in inside) > 5
    longer = {name: texts(length=13)[name] for name in x}
    assert_loads(export_onnx(quantized, tmp_path / "m.onnx", verify_with=longer), longer)
