import pytest
from keras import layers
from onnx_models import assert_agrees, layer_model, op_counts, skip_on_torch


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides"), [(2, None), (3, 1), (3, 2), (2, 3)])
def test_pooling(tmp_path, rank, kind, padding, size, strides):
    if kind == "Average" and padding == "same":
        skip_on_torch("padding on one side only counts as zeros")
    layer = getattr(layers, f"{kind}Pooling{rank}D")(size, strides=strides, padding=padding)
    assert_agrees(layer_model(layer, (*range(7, 7 + rank), 3)), tmp_path / "m.onnx")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_global_pooling(tmp_path, rank, kind, keepdims, data_format):
    layer = getattr(layers, f"Global{kind}Pooling{rank}D")(keepdims=keepdims, data_format=data_format)
    counts = op_counts(assert_agrees(layer_model(layer, (*range(3, 3 + rank), 4)), tmp_path / "m.onnx"))
    assert counts[f"Global{kind}Pool"] == 1


def test_average_of_images_of_any_size(tmp_path):
    assert_agrees(layer_model(layers.GlobalAveragePooling2D(), (None, None, 3)), tmp_path / "m.onnx")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("size", [2, 3, 4])  # at 1, TensorFlow aborts the process
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_adaptive_pooling(tmp_path, rank, kind, size, data_format):
    spatial = (6, 8, 9)[:rank]
    shape = (*spatial, 3) if data_format == "channels_last" else (3, *spatial)
    layer = getattr(layers, f"Adaptive{kind}Pooling{rank}D")(size, data_format=data_format)
    assert_agrees(layer_model(layer, shape), tmp_path / "m.onnx")
