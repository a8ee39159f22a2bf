import subprocess
import sys

import keras
import pytest
from keras import layers

from tensorflow_quantization import (
    NonWeightedBaseQuantizeWrapper,
)
from tensorflow_quantization.wrappers import find_wrapper

pytestmark = pytest.mark.usefixtures("own_wrappers")


def test_wrapper_of_a_class_without_one_is_named_after_it(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, NonWeightedBaseQuantizeWrapper(layers.ReLU(name="relu"))(inputs))
    lines = []
    model.summary(print_fn=lines.append, line_length=100)
    assert "quant_relu (ReLUQuantizeWrapper)" in "".join(lines)
    assert find_wrapper(layers.ReLU()) is None
    model.save(tmp_path / "model.keras")
    for copy in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        assert type(copy.layers[-1]) is type(model.layers[-1])


@pytest.mark.slow
def test_wrapper_named_after_its_layer_loads_in_a_new_process(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, NonWeightedBaseQuantizeWrapper(layers.ReLU(name="relu"))(inputs)).save(tmp_path / "m.keras")
    code = (
        "import sys, keras, tensorflow_quantization\n"
        "print(type(keras.models.load_model(sys.argv[1]).layers[-1]).__name__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.keras"], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["ReLUQuantizeWrapper"]
