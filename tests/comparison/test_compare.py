import json

import accuracy_networks
import keras
import numpy as np
import pytest
import small_models
from faulty_models import FAULTS, NETWORKS, change_weight, flip_channel
from keras import layers

from tensorflow_quantization import (
    QuantizationSpec,
    calibrate,
    compare,
    export_onnx,
    post_training_quantize,
    quantize_model,
)
from tensorflow_quantization.comparison.findings import Kind


def quantized(model, data, target="onnxruntime", **options):
    return calibrate(quantize_model(model, target=target, **options), data, verbose=0)


def first(report):
    return (report.worst[0].layer, report.worst[0].kind) if report.worst else None


@pytest.fixture(scope="module")
def healthy():
    """The first finding in each network and target without a fault."""
    found = {}
    for network, target in {(fault.network, fault.target) for fault in FAULTS.values()}:
        keras.utils.set_random_seed(0)
        build, samples = NETWORKS[network]
        model = build()
        found[network, target] = first(compare(model, quantized(model, samples(), target), samples()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_first(name, healthy):
    fault = FAULTS[name]
    case = fault.plant()
    report = compare(case.model, case.quantized, case.data)
    assert first(report) == (fault.layer, fault.kind), str(report)
    assert healthy[fault.network, fault.target] != (fault.layer, fault.kind)


def test_twenty_faults_of_all_kinds_are_planted():
    assert len(FAULTS) == 20
    assert {fault.kind for fault in FAULTS.values()} == set(Kind) - {Kind.RUNTIME}


def test_scaled_channels_are_named_by_channel_where_the_tensor_looks_well():
    case = FAULTS["scaled_channels"].plant()
    report = compare(case.model, case.quantized, case.data)
    assert report.worst[0].channels == (1, 5, 6)
    assert "equalize" in report.worst[0].remedy
    # Of the whole tensor, the guilty layer has one of the best ratios; its worst channel has lost all.
    conv2 = report["conv2"]
    assert conv2.own_snr > 35
    assert min(conv2.channel_snr) < 3


@pytest.mark.slow
def test_weights_that_post_training_quantize_rescaled_are_no_fault():
    model, data = accuracy_networks.depthwise(), accuracy_networks.images()
    quantized = post_training_quantize(model, data, target="onnxruntime", verbose=0)
    report = compare(model, quantized, data)
    assert Kind.WEIGHTS not in {finding.kind for finding in report.worst}
    assert all(layer.own_snr > 20 for layer in report.layers), str(report)


def test_the_statistics_of_a_layer_are_those_of_the_definitions():
    inputs = keras.Input((2,), name="x")
    model = keras.Model(inputs, layers.Dense(2, use_bias=False, name="dense")(inputs))
    model.layers[-1].kernel.assign([[1.0, 0.0], [0.0, 1.0]])
    q_model = quantize_model(model)
    wrapper = q_model.layers[-1]
    wrapper.input_quantizers[0].set_range(-1.27, 1.27)  # steps of 0.01
    data = np.array([[1.0, 0.5], [1.28, -0.5], [-1.004, 0.0], [0.5, 0.504]], "float32")
    layer = compare(model, q_model, data)["dense"]
    exact = np.float32(data)
    got = np.clip(np.round(exact / 0.01), -127, 127) * 0.01
    ratio = np.sum(exact**2, axis=0) / np.sum((got - exact) ** 2, axis=0)
    np.testing.assert_allclose(layer.channel_snr, 10 * np.log10(ratio), atol=0.1)
    assert layer.own_snr == pytest.approx(10 * np.log10(np.sum(exact**2) / np.sum((got - exact) ** 2)), abs=0.1)
    assert layer.cosine == pytest.approx(np.sum(got * exact) / np.sqrt(np.sum(got**2) * np.sum(exact**2)), abs=1e-6)
    assert layer.saturation == 1 / 8
    assert layer.dead_range == pytest.approx(1 - (127 + 100 + 1) / 255)
    shift = np.mean(got - exact, axis=0)
    assert layer.bias == pytest.approx(np.sum(shift**2) / np.mean(np.sum((got - exact) ** 2, axis=1)), abs=0.02)


def test_the_own_error_of_a_layer_is_not_the_error_of_layers_before():
    case = FAULTS["two_bits"].plant()
    report = compare(case.model, case.quantized, case.data)
    assert report["conv3"].own_snr < 20
    assert report["gap"].snr < 25 < report["gap"].own_snr


def signal_to_noise(exact, found):
    exact, found = (np.asarray(y, np.float64) for y in (exact, found))
    return 10 * np.log10(np.sum(exact**2) / np.sum((exact - found) ** 2))


def test_the_outputs_are_those_that_the_models_return_for_all_samples(images):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = small_models.randomize(keras.Model(inputs, layers.Dense(5, activation="softmax")(x)))
    q_model = quantized(model, images[0])
    # The second half is sorted apart, as a folder of images by class, and clipped.
    data = np.concatenate([small_models.images(40, seed=1)[0], 5 * small_models.images(40, seed=2)[0]])
    report = compare(model, q_model, data)
    first, all_ = (
        signal_to_noise(model.predict(x, verbose=0), q_model.predict(x, verbose=0)) for x in (data[:32], data)
    )
    assert first - all_ > 5
    assert report.output_snr == pytest.approx(all_, abs=0.05)
    assert (report.samples, report.effect_samples) == (80, 32)
    assert "on 80 samples" in str(report) and "gains on 32 of these samples" in str(report)
    assert report.to_dict()["samples"] == 80
    # Half of the samples that rank the layers are clipped, too.
    assert report["image"].effect < compare(model, q_model, data[:40])["image"].effect - 5


def test_a_float_output_that_is_infinite_is_named(images):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    x = layers.Dense(3, activation="relu", kernel_initializer="zeros")(x)
    model = keras.Model(inputs, keras.ops.log(x))
    q_model = quantize_model(model)
    with pytest.raises(ValueError, match="returns values that are NaN or infinite for this data, in output 'log'"):
        compare(model, q_model, images[0])


def test_batches_add_up(residual, images):
    q_model = quantized(residual, images[0])
    whole = compare(residual, q_model, images[0])
    parts = compare(residual, q_model, [images[0][:7], images[0][7:]])
    for a, b in zip(whole, parts, strict=True):
        for name in ("snr", "own_snr", "cosine", "bias"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-3)
        assert (a.saturation, a.dead_range) == (b.saturation, b.dead_range)


def test_neither_model_is_changed(residual, images):
    q_model = quantized(residual, images[0])
    before = [np.array(w.numpy()) for model in (residual, q_model) for w in model.weights]
    expected = q_model.predict(images[0], verbose=0)
    compare(residual, q_model, images[0])
    after = [np.array(w.numpy()) for model in (residual, q_model) for w in model.weights]
    small_models.assert_same_arrays(before, after)
    np.testing.assert_array_equal(q_model.predict(images[0], verbose=0), expected)


@pytest.mark.parametrize("build", [small_models.nested, small_models.shared_layer, small_models.operations])
def test_models_of_any_form(build):
    model = build()
    rng = np.random.default_rng(0)
    data = rng.normal(size=(8, *model.inputs[0].shape[1:])).astype("float32")
    report = compare(model, quantized(model, data, None), data)
    assert all(np.isfinite(layer.effect) and layer.own_snr > 20 for layer in report)


def test_several_inputs_and_a_dict_of_outputs():
    model = small_models.dict_in_and_out()
    rng = np.random.default_rng(0)
    data = {name: rng.normal(size=(8, 4)).astype("float32") for name in ("left", "right")}
    assert compare(model, quantized(model, data), data).output_snr > 25


@pytest.mark.parametrize("target", [None, "onnxruntime"])
def test_a_layer_whose_calls_have_other_channels(target):
    relu = layers.ReLU(name="relu")
    inputs = keras.Input((4,))
    x = relu(layers.Dense(5, name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="last")(relu(layers.Dense(7, name="second")(x))))
    data = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    report = compare(model, quantized(model, data, target), data)
    assert {"first", "second", "last"} <= {layer.layer for layer in report.layers}
    shared = [layer for layer in report.layers if layer.layer == "relu"]
    assert [len(layer.channel_snr) for layer in shared] == ([] if target is None else [1])


def test_of_classes_the_scores_that_they_were_found_in_are_compared(cnn, images, tmp_path):
    classes = keras.Model(cnn.inputs, keras.ops.argmax(cnn.outputs[0], axis=-1))
    found, expected = (
        compare(m, calibrate(quantize_model(m, target="onnxruntime"), images[0], verbose=0), images[0])
        for m in (classes, cnn)
    )
    assert found.output_snr == pytest.approx(expected.output_snr)
    assert [x.layer for x in found.worst] == [x.layer for x in expected.worst]
    quantized = calibrate(quantize_model(classes, target="onnxruntime"), images[0], verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx")
    assert compare(classes, quantized, images[0], file=path).output_snr == pytest.approx(expected.output_snr)


def test_attention():
    inputs = keras.Input((6, 8), name="tokens")
    x = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    data = np.random.default_rng(0).normal(size=(8, 6, 8)).astype("float32")
    spec = QuantizationSpec()
    spec.add("attention", weight_bits=2)
    report = compare(model, quantized(model, data, quantization_spec=spec), data)
    assert first(report) == ("attention", "bits")


def test_a_dead_channel_of_the_float_model_is_mentioned_without_a_gain(cnn, images):
    conv = cnn.get_layer("conv")
    kernel = np.array(conv.kernel.numpy())
    kernel[..., 2] = 0
    conv.kernel.assign(kernel)
    report = compare(cnn, quantized(cnn, images[0]), images[0])
    (found,) = [f for f in report.worst if f.kind is Kind.DEAD_CHANNEL]
    assert (found.layer, found.channels, found.gain) == ("conv", (2,), 0.0)


def test_what_training_changed_is_a_finding_about_weights(cnn, images):
    q_model = quantized(cnn, images[0])
    change_weight("conv", "kernel", flip_channel)(q_model)
    finding = compare(cnn, q_model, images[0]).worst[0]
    assert (finding.layer, finding.kind, finding.channels) == ("conv", "weights", (3,))
    assert "fine_tune(quantized, data, teacher=float_model), which keeps the training" in finding.remedy


def test_advice_for_a_trained_model_keeps_the_training(cnn, images):
    spec = QuantizationSpec()
    spec.add("conv", weight_bits=2)
    quantized = calibrate(quantize_model(cnn, quantization_spec=spec), images[0], verbose=0)
    assert "set_weights" not in compare(cnn, quantized, images[0]).worst[0].remedy
    for wrapper in ("quant_conv", "quant_dense"):
        kernel = quantized.get_layer(wrapper).layer.kernel
        kernel.assign(1.05 * kernel)
    findings = {finding.kind: finding for finding in compare(cnn, quantized, images[0]).worst}
    assert "keeps the training with new.set_weights(quantized.get_weights())" in findings[Kind.BITS].remedy
    new = quantize_model(cnn)
    new.set_weights(quantized.get_weights())
    kernels = [q_model.get_layer("quant_conv").layer.kernel.numpy() for q_model in (new, quantized)]
    np.testing.assert_array_equal(*kernels)


def test_a_choice_of_rounding_is_no_change_of_weights(cnn, images):
    q_model = quantized(cnn, images[0])
    wrapper = q_model.get_layer("quant_conv")
    kernel = np.array(wrapper.layer.kernel.numpy())
    scale, _ = wrapper.weight_quantizers["kernel"].parameters(kernel)
    inner = np.abs(kernel) < 0.9 * np.abs(kernel).max(axis=(0, 1, 2))
    wrapper.layer.kernel.assign(np.where(inner, np.ceil(kernel / scale) * scale, kernel))
    assert not [f for f in compare(cnn, q_model, images[0]).worst if f.kind is Kind.WEIGHTS]


def test_a_model_in_half_precision_compares_in_float32(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_models.cnn()
    finally:
        keras.config.set_dtype_policy("float32")
    assert compare(model, quantized(model, images[0]), images[0])["conv"].own_snr > 30


def test_nan_names_the_layer(cnn, images):
    q_model = quantized(cnn, images[0])
    q_model.get_layer("quant_dense").layer.bias.assign([np.nan] * 5)
    with pytest.raises(ValueError, match=r"The quantized model has values that are NaN or infinite after 'dense'"):
        compare(cnn, q_model, images[0])


def test_another_float_model_is_refused(cnn, residual, images):
    with pytest.raises(ValueError, match="was not made from"):
        compare(residual, quantized(cnn, images[0]), images[0])
    inputs = keras.Input((4, 4, 1))
    gray = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(inputs)), name="gray")
    shapes = r"'cnn' was not made from 'gray': its inputs have the shapes \(None, 8, 8, 3\), the float model's"
    with pytest.raises(ValueError, match=shapes):
        compare(gray, quantized(cnn, images[0]), np.zeros((2, 4, 4, 1)))


def test_wrong_arguments(cnn, images):
    q_model = quantized(cnn, images[0])
    with pytest.raises(ValueError, match="has no quantizers"):
        compare(cnn, cnn, images[0])
    with pytest.raises(TypeError, match=r"quantized must be a keras\.Model, got str"):
        compare(cnn, "model.keras", images[0])
    with pytest.raises(ValueError, match="data holds no batch"):
        compare(cnn, q_model, iter([]))
    with pytest.raises(ValueError, match="runs nothing without file"):
        compare(cnn, q_model, images[0], runtime="openvino")


def test_a_report_prints_and_exports_itself():
    case = FAULTS["three_bits"].plant()
    report = compare(case.model, case.quantized, case.data)
    text = str(report)
    assert "Guilty: depthwise" in text.splitlines()[0]
    assert "1. depthwise [bits] +" in text
    assert text.splitlines()[4].startswith("depthwise ")
    as_dict = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (
        as_dict["worst"][0]["remedy"]
        == "spec.add('depthwise', weight_bits=8), with a QuantizationSpec for quantize_model."
    )
    assert [row["layer"] for row in as_dict["layers"]] == [layer.layer for layer in report]
    markdown = report.to_markdown()
    assert markdown.splitlines()[2].startswith("| depthwise |")
    assert "1. **depthwise** (bits)" in markdown
    assert report._repr_html_().count("<tr>") == 1 + len(report)
    assert report["quant_depthwise"] is report["depthwise"]
    with pytest.raises(KeyError, match="Did you mean 'depthwise'"):
        report["deptwise"]


def test_plot_has_a_line_for_each_ratio(cnn, images):
    pytest.importorskip("matplotlib").use("Agg")
    report = compare(cnn, quantized(cnn, images[0]), images[0])
    ax = report.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == [layer.layer for layer in report]
    assert len(ax.lines) == 3
