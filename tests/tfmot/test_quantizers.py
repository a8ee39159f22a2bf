import keras
import numpy as np
import pytest
from keras import ops
from tfmot_configs import quantization

quantizers = quantization.quantizers
RANGED = {"num_bits": 8, "per_axis": False, "symmetric": False, "narrow_range": False}
ARGUMENTS = {
    quantizers.LastValueQuantizer: RANGED,
    quantizers.MovingAverageQuantizer: RANGED,
    quantizers.AllValuesQuantizer: RANGED,
    quantizers.FixedQuantizer: {"num_bits": 8, "init_min": 0.0, "init_max": 1.0, "narrow_range": False},
}
X = np.float32([[-1.0, 0.5], [0.0, 1.0]])


def variables(low=0.0, high=0.0):
    return {"min_var": keras.Variable(low), "max_var": keras.Variable(high)}


def range_of(weights):
    return [float(ops.convert_to_numpy(weights[name])) for name in ("min_var", "max_var")]


@pytest.mark.parametrize(
    ("cls", "low", "high"),
    [
        (quantizers.LastValueQuantizer, -1.0, 1.0),
        (quantizers.MovingAverageQuantizer, -0.001, 0.001),
        (quantizers.AllValuesQuantizer, -2.0, 1.0),
        (quantizers.FixedQuantizer, None, None),
    ],
)
def test_quantizer_follows_its_range_and_rounds_to_it(cls, low, high):
    start = (-2.0, 0.0) if cls is quantizers.AllValuesQuantizer else (0.0, 0.0)
    weights = variables(*start)
    y = ops.convert_to_numpy(cls(**ARGUMENTS[cls])(ops.convert_to_tensor(X), training=True, weights=weights))
    if low is None:
        low, high = 0.0, 1.0
    else:
        np.testing.assert_allclose(range_of(weights), [low, high], atol=1e-6)
    step = (high - low) / 255
    np.testing.assert_allclose(y, np.clip(X, low, high), atol=0.51 * step + 1e-6)
    assert len(np.unique(y)) > 1


@pytest.mark.parametrize("cls", ARGUMENTS)
def test_range_stays_outside_training(cls):
    weights = variables(-3.0, 3.0)
    cls(**ARGUMENTS[cls])(ops.convert_to_tensor(X), training=False, weights=weights)
    assert range_of(weights) == [-3.0, 3.0]


@pytest.mark.parametrize("cls", ARGUMENTS)
def test_quantizer_is_restored_from_its_config(cls):
    quantizer = cls(**ARGUMENTS[cls])
    config = keras.saving.serialize_keras_object(quantizer)
    assert (config["class_name"], config["config"]) == (cls.__name__, ARGUMENTS[cls])
    with quantization.quantize_scope():
        assert keras.saving.deserialize_keras_object(config) == quantizer
    assert quantizer != cls(**{**ARGUMENTS[cls], "num_bits": 4})


def test_quantizer_makes_its_variables_in_a_layer():
    layer = keras.layers.Layer()
    made = quantizers.LastValueQuantizer(8, per_axis=True, symmetric=True, narrow_range=True).build((3, 4), "w", layer)
    assert [tuple(v.shape) for v in made.values()] == [(4,), (4,)]
    assert [v.name for v in layer.non_trainable_variables] == ["w_min", "w_max"]


def test_per_axis_range_has_a_value_for_each_channel():
    layer = keras.layers.Layer()
    quantizer = quantizers.LastValueQuantizer(8, per_axis=True, symmetric=True, narrow_range=True)
    weights = quantizer.build(X.shape, "w", layer)
    quantizer(ops.convert_to_tensor(X), training=True, weights=weights)
    np.testing.assert_array_equal(ops.convert_to_numpy(weights["max_var"]), [0.0, 1.0])
