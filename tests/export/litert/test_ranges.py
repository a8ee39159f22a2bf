import keras
import numpy as np
import pytest
from keras import layers
from litert_files import functional, quantized

from tensorflow_quantization.export import ExportError
from tensorflow_quantization.export.litert import export_litert


@pytest.mark.parametrize("factor", [1e-8, 1e-9])
def test_range_that_the_converter_would_widen_is_refused(tmp_path, factor):
    model = functional(layers.Conv2D(4, 3, name="conv"))
    x = factor * np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    with pytest.raises(ExportError, match=r"quant_image: a range of width .*less than 1e-06"):
        export_litert(quantized(model, x), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def _sum_of(first, second):
    """The sum of two tensors with these ranges, with its own range."""
    inputs = keras.Input((4, 4, 3), name="image")
    parts = [layers.Conv2D(3, 1, name=name)(inputs) for name in ("a", "b")]
    model = quantized(keras.Model(inputs, layers.Add(name="sum")(parts)))
    model.get_layer("quant_a").output_quantizer.set_range(-first, first)
    model.get_layer("quant_b").output_quantizer.set_range(-first, first)
    model.get_layer("quant_sum").output_quantizer.set_range(-second, second)
    return model


def test_sum_with_a_step_too_small_for_its_inputs_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"quant_sum: a sum with steps of .* of tensors with steps of up to"):
        export_litert(_sum_of(6.0, 6.0 / 2**9), tmp_path / "m.tflite")


def test_sum_with_a_small_step_is_computed(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 3)).astype("float32")
    export_litert(_sum_of(6.0, 6.0 / 2**7), tmp_path / "m.tflite", verify_with=x)


def test_large_values_are_computed(tmp_path):
    model = functional(layers.Conv2D(4, 3), layers.ReLU(), layers.Conv2D(2, 3))
    x = 1e6 * np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    export_litert(quantized(model, x), tmp_path / "m.tflite", verify_with=x)
