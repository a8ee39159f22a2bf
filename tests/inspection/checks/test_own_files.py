"""Placement and rules agree: `check_onnx` has nothing to say about files of this library for their own target."""

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import layers
from random_graphs import GRAPHS, build, quantized
from small_models import randomize

from tensorflow_quantization import check_onnx, export_onnx

TARGETS = ["tensorrt", "onnxruntime", "openvino"]


def findings(model, target, path):
    """The errors and warnings of the file of a model, for the target that the file records."""
    copy = quantized(model, target=target)
    data = np.random.default_rng(0).normal(size=(4, *model.inputs[0].shape[1:])).astype("float32")
    copy(data, training=True)
    report = check_onnx(export_onnx(copy, path))
    assert report.target == target
    return [str(finding) for finding in report if finding.severity != "info"]


@settings(max_examples=30)
@given(**GRAPHS, target=st.sampled_from(TARGETS))
def test_files_of_random_graphs_have_no_findings(tmp_path_factory, data_format, steps, head, target):
    keras.utils.clear_session(free_memory=False)
    model = build(data_format, steps, head)
    found = findings(model, target, tmp_path_factory.mktemp("own") / "m.onnx")
    assume(not any("no-quantizers" in text for text in found))  # nothing in the graph has an integer kernel
    # No layer holds a quantizer for a constant factor: ONNX Runtime multiplies in float there, and the rule is right.
    assert not [text for text in found if "it is a constant" not in text]


def temporal(branch_first, norm, final):
    """Two residual blocks of a temporal convolutional network; the first shortcut is a 1x1 convolution."""
    inputs = x = keras.Input((16, 4))
    for block in range(2):
        y = x
        for _ in range(2):
            y = layers.Conv1D(8, 3, padding="causal", dilation_rate=2**block)(y)
            y = layers.BatchNormalization()(y) if norm else y
            y = layers.SpatialDropout1D(0.1)(layers.ReLU()(y))
        shortcut = layers.Conv1D(8, 1)(x) if block == 0 else x
        x = layers.Add()([y, shortcut] if branch_first else [shortcut, y])
        x = layers.ReLU()(x) if final else x
    return randomize(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x))))


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("branch_first", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_temporal_convolutional_network(tmp_path, target, branch_first, norm):
    assert not findings(temporal(branch_first, norm, final=norm), target, tmp_path / "m.onnx")
