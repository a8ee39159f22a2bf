import keras
import pytest
from keras import layers
from onnx_models import export, layer_model

from tensorflow_quantization.export import UnsupportedLayerError
from tensorflow_quantization.export.onnx.refusals import REFUSALS
from tensorflow_quantization.export.onnx.registry import find_emitter


@pytest.mark.parametrize("name", [n for n in REFUSALS if hasattr(layers, n)])
def test_a_refused_layer_has_no_emitter(name):
    layer = object.__new__(getattr(layers, name))
    assert find_emitter(layer) is None


def test_the_error_gives_the_reason(tmp_path):
    model = layer_model(layers.ContrastLimitedAdaptiveHistogramEqualization((0, 255)), (8, 8, 3))
    with pytest.raises(UnsupportedLayerError, match="by its own histogram") as error:
        export(model, tmp_path / "m.onnx")
    assert "Register an emitter" not in str(error.value)


def test_every_layer_has_an_emitter_or_a_reason():
    abstract = {"InputLayer", "InputSpec", "Lambda", "Layer", "Wrapper"}
    classes = {n: c for n, c in vars(layers).items() if isinstance(c, type) and n not in abstract}
    made_of_others = {"GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells"}
    reasons = REFUSALS.keys() | made_of_others
    silent = [n for n, c in classes.items() if c.__name__ not in reasons and find_emitter(object.__new__(c)) is None]
    assert not silent, keras.__version__
