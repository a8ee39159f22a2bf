"""A model that does not fit into one protobuf message, for real: 2.2 GB of weights."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx_models import run

from tensorflow_quantization import export_onnx

WORDS, FEATURES = 270_000, 2048


@pytest.mark.exhaustive  # 7 GB of memory, and two files of 2.2 GB
def test_weights_of_more_than_2_gb_lie_beside_the_file(tmp_path):
    inputs = keras.Input((3,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(5)(layers.Embedding(WORDS, FEATURES)(inputs)))
    tokens = np.random.default_rng(0).integers(0, WORDS, (4, 3)).astype("int32")
    path = export_onnx(model, tmp_path / "m.onnx", verify_with=tokens)
    onnx.checker.check_model(path)
    assert path.stat().st_size < 2**20
    assert (tmp_path / "m.onnx.data").stat().st_size > 4 * WORDS * FEATURES
    expected = model.predict(tokens, verbose=0)
    np.testing.assert_allclose(run(path, [tokens])[0], expected, atol=1e-4 * np.abs(expected).max())
    # A second time, over the first.
    export_onnx(model, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
