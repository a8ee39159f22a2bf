import keras
import numpy as np
import pytest
from tfmot_configs import dense_model, quantization, samples, train

fix_input_output_range = quantization.fix_input_output_range


def model(kind):
    if kind == "sequential":
        return keras.Sequential([keras.Input((5,), name="x"), keras.layers.Dense(10, name="y")])
    x = keras.Input((5,), name="x")
    y = keras.layers.Dense(10, name="y")(x)
    return keras.Model({"x": x}, {"y": y}) if kind == "dict" else keras.Model([x], [y])


@pytest.mark.parametrize("kind", ["sequential", "list", "dict"])
@pytest.mark.parametrize(
    ("low", "high", "out_low", "out_high", "narrow", "at_input", "at_output"),
    [
        (0, 1, 0, 1, False, (1 / 255, -128), (1 / 255, -128)),
        (-127, 127, -127, 127, True, (1.0, 0), (1.0, 0)),
        (0, 1, 0, 255, False, (1 / 255, -128), (1.0, -128)),
        (0, 255, 0, 1, False, (1.0, -128), (1 / 255, -128)),
    ],
)
def test_ranges_of_input_and_output_are_fixed(kind, low, high, out_low, out_high, narrow, at_input, at_output):
    quantized = quantization.quantize_model(model(kind))
    fixed = fix_input_output_range(quantized, 8, low, high, out_low, out_high, narrow)
    found = [
        fixed.get_layer("quant_x").parameters(),
        fixed.get_layer("quant_y").output_quantizer.parameters(),
    ]
    np.testing.assert_allclose(np.float32(found), [at_input, at_output], rtol=1e-6)


def test_fixed_ranges_stay_in_training_and_in_the_file(tmp_path):
    x, y = samples()
    fixed = fix_input_output_range(quantization.quantize_model(dense_model(None)), output_min=-1.0)
    assert fixed.built
    train(fixed, x, y, "mse")
    fixed.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.get_layer("quant_scores").output_quantizer.parameters()[0], 2 / 255, rtol=1e-6)
    np.testing.assert_allclose(loaded.layers[0].parameters()[0], 1 / 255, rtol=1e-6)


def test_input_range_is_removed():
    x, _ = samples()
    quantized = quantization.quantize_model(dense_model())
    removed = quantization.remove_input_range(quantized)
    names = [type(layer).__name__ for layer in removed.layers]
    assert names[0] == "Identity" and "ActivationQuantizer" not in names
    assert removed.predict(x, verbose=0).shape == (20, 5)


@pytest.mark.parametrize("function", [fix_input_output_range, quantization.remove_input_range])
def test_float_model_is_refused(function):
    with pytest.raises(ValueError, match="no quantizers at its inputs"):
        function(dense_model())
