import itertools
import json
import math

import keras
import numpy as np
import pytest

from tensorflow_quantization import QuantizationSpec, calibrate, describe, quantize_model, search
from tensorflow_quantization.mixed_precision import BudgetError
from tensorflow_quantization.mixed_precision.precision import FLOAT, Precision

QUIET = {"target": "onnxruntime", "verbose": 0}


@pytest.fixture
def snr(cnn, images):
    """A function of a quantized model: its signal-to-noise ratio in dB, at most 100."""
    expected = cnn.predict(images[0], verbose=0)

    def evaluate(model):
        error = keras.ops.convert_to_numpy(model(images[0], training=False)) - expected
        return min(100.0, float(10 * np.log10((expected**2).sum() / max((error**2).sum(), 1e-30))))

    return evaluate


def test_bytes_are_spent_on_the_best_metric(cnn, images, snr):
    """conv has 108 weights, dense 20; all other weights take 100 bytes."""
    found = search(cnn, images[0], snr, budget={"bytes": 100 + 108 // 2 + 20}, evaluations=8, **QUIET)
    made = {(str(one.precisions["conv"]), str(one.precisions["dense"])): one for one in found.evaluations}
    assert set(made) == {("W4A8", "W4A8"), ("W4A8", "W8A8")}  # the only ones that are cheap enough
    assert found.best.precisions == {"conv": Precision(4, 8), "dense": Precision(8, 8)}
    assert (found.best.cost, found.reference) == (174, 100)
    again = quantize_model(cnn, quantization_spec=found.spec, target="onnxruntime")
    assert snr(calibrate(again, images[0], verbose=0)) == pytest.approx(found.best.metric)


def test_with_enough_evaluations_a_drop_finds_what_all_evaluations_find(cnn, images, snr):
    found = search(cnn, images[0], snr, budget={"drop": 60}, evaluations=8, **QUIET)
    assert len(found.evaluations) == 8  # 3 x 3 ways, without float
    costs = [one.cost for one in found.evaluations if one.metric >= 40]
    assert found.best.cost == min(costs)
    for one, other in itertools.product(found.front, found.evaluations):
        assert not (other.cost <= one.cost and other.metric > one.metric)


@pytest.mark.slow
def test_the_same_each_time(cnn, images, snr):
    runs = [search(cnn, images[0], snr, budget={"bytes": 250}, evaluations=4, **QUIET).to_dict() for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_latency_is_measured(cnn, images, snr):
    def seconds(model):
        """Float layers take 3, quantized ones 1."""
        return sum(1.0 if describe(model)[name].quantized else 3.0 for name in ("conv", "dense"))

    found = search(cnn, images[0], snr, budget={"latency": 4}, measure=seconds, evaluations=8, **QUIET)
    assert found.best.cost == 4
    # The latency of 4 bits is that of 8, so 4 bits are never worth it.
    assert {p for one in found.evaluations for p in one.precisions.values()} == {FLOAT, Precision(8, 8)}
    assert max(one.cost for one in found.evaluations) == 4


def test_a_runtime_measures(cnn, images, snr):
    pytest.importorskip("onnxruntime")
    found = search(
        cnn, images[0], snr, budget={"latency": 60}, weight_bits=8, evaluations=2, float_layers=False, **QUIET
    )
    assert all(0 < one.cost < 60 for one in found.evaluations)
    assert "ms" in str(found.front)


def test_layers_of_the_spec_stay_as_they_are(cnn, images, snr):
    spec = QuantizationSpec()
    spec.add("dense", weight_bits=6)
    found = search(cnn, images[0], snr, budget={"bytes": 10_000}, quantization_spec=spec, evaluations=3, **QUIET)
    assert set(found.best.precisions) == {"conv"}
    assert (found.spec.layers[0].name, found.spec.layers[0].weight_bits) == ("dense", 6)
    # conv in W8A8: 100 bytes in any case, 20 weights of 6 bits
    assert {one.cost for one in found.evaluations} <= {100 + 15 + 54, 100 + 15 + 108}
    spec.add("conv")
    with pytest.raises(ValueError, match="no layer to decide on"):
        search(cnn, images[0], snr, budget={"drop": 1}, quantization_spec=spec, **QUIET)


def test_another_way_to_quantize(cnn, images, snr):
    asked = []

    def quantize(model, spec):
        asked.append(spec)
        return calibrate(quantize_model(model, quantization_spec=spec, target="onnxruntime"), images[0], verbose=0)

    found = search(cnn, images[0], snr, budget={"drop": 99}, quantize=quantize, evaluations=2, **QUIET)
    assert [str(spec) for spec in asked] == [str(one.spec) for one in found.evaluations]


@pytest.mark.parametrize(
    ("quantize", "error", "message"),
    [
        (lambda model, spec: None, TypeError, "quantize must return a keras.Model, got None"),
        (lambda model, spec: model, ValueError, "has no quantizers"),
        (lambda model, spec: quantize_model(model, quantization_spec=spec), ValueError, "is not set yet"),
        ("without the spec", ValueError, "quantize returned a model with 'conv' in weights of 8 bits, not in W4A8"),
    ],
)
def test_what_quantize_returns_is_checked(cnn, images, snr, quantize, error, message):
    def without_spec(model, spec):
        return calibrate(quantize_model(model, target="onnxruntime"), images[0], verbose=0)

    quantize = quantize if callable(quantize) else without_spec
    with pytest.raises(error, match=message):
        search(
            cnn, images[0], snr, budget={"bytes": 10_000}, weight_bits=4, float_layers=False, quantize=quantize, **QUIET
        )


def test_where_float_is_as_fast_it_is_said(cnn, images, snr):
    with pytest.raises(ValueError, match="the float model is the best within the budget"):
        search(cnn, images[0], snr, budget={"latency": 1.0}, measure=lambda model: 1e-3, evaluations=2, **QUIET)


def test_reports(cnn, images, snr, capsys):
    found = search(cnn, images[0], snr, budget={"bytes": 10_000}, target="onnxruntime", evaluations=3)
    assert capsys.readouterr().out.count("bytes") == 3
    assert json.loads(json.dumps(found.to_dict()))["budget"] == {"bytes": 10_000}
    assert str(found).startswith("Model 'cnn', for at most 10,000 bytes: metric ")
    assert "| conv | " in found.to_markdown()
    assert "<td>conv</td>" in found._repr_html_()
    axes = found.front.plot(pytest.importorskip("matplotlib.pyplot").figure().subplots())
    assert axes.get_xlabel() == "bytes of the weights"


@pytest.mark.parametrize(
    "budget, error, message",
    [
        (3, TypeError, "budget must be a dict, got 3"),
        ({}, ValueError, "one entry"),
        ({"drop": 1, "bytes": 9}, ValueError, "one entry"),
        ({"byte": 9}, ValueError, "Did you mean 'bytes'"),
        ({"drop": "1"}, TypeError, "must be a number, got '1'"),
        ({"drop": math.nan}, ValueError, "finite"),
        ({"bytes": 0}, ValueError, "above 0"),
        ({"bytes": 100}, ValueError, "at most 100 bytes cannot be reached: the least is 164 bytes"),
    ],
)
def test_a_wrong_budget_is_refused_before_any_evaluation(cnn, images, budget, error, message):
    with pytest.raises(error, match=message):
        search(cnn, images[0], lambda model: pytest.fail("evaluated"), budget=budget, **QUIET)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"evaluate": 5}, TypeError, "evaluate must be a function"),
        ({"quantize": 5}, TypeError, "quantize must be a function"),
        ({"evaluations": 0}, ValueError, "evaluations must be at least 1"),
        ({"measure": "onnxruntime", "budget": {"bytes": 999}}, ValueError, "measures no latency"),
        ({"measure": "onnxruntim", "budget": {"latency": 1}}, ValueError, "Did you mean 'onnxruntime'"),
        ({"target": None, "budget": {"latency": 1}}, ValueError, "needs measure"),
        ({"budgets": 1}, TypeError, "Did you mean 'budget'"),
    ],
)
def test_wrong_arguments_are_refused_before_any_evaluation(cnn, images, arguments, error, message):
    given = {"budget": {"drop": 1}, "evaluate": lambda model: pytest.fail("evaluated"), **QUIET, **arguments}
    with pytest.raises(error, match=message):
        search(cnn, images[0], **given)


@pytest.mark.slow
@pytest.mark.parametrize("value, error", [(math.nan, ValueError), (math.inf, ValueError), ("good", TypeError)])
def test_what_evaluate_returns_is_checked_and_the_layers_are_named(cnn, images, value, error):
    with pytest.raises(error, match="for the float model"):
        search(cnn, images[0], lambda model: value, budget={"drop": 1}, **QUIET)
    with pytest.raises(error, match=r"for the model with 'conv' in \w+, 'dense' in \w+"):
        search(cnn, images[0], lambda model: 1 if model is cnn else value, budget={"drop": 1}, **QUIET)


def test_a_drop_that_is_not_reached_tells_the_best_and_keeps_the_evaluations(cnn, images):
    message = r"was not reached: the best metric found was 0, .* \(float: 1\)"
    with pytest.raises(BudgetError, match=message) as caught:
        search(cnn, images[0], lambda model: float(model is cnn), budget={"drop": 0.5}, evaluations=2, **QUIET)
    assert [evaluation.metric for evaluation in caught.value.evaluations] == [0, 0]
