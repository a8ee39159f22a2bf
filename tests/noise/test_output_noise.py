import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.comparison.remedies import variant
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.interpreter import Interpreter, compute
from tensorflow_quantization.noise.output_noise import OutputNoise, Variant, before_saturation, with_float_outputs
from tensorflow_quantization.noise.parts import FloatTwin, parts_of


def graphs(model, data, target="onnxruntime"):
    q_model = calibrate(quantize_model(model, target=target), data, verbose=0)
    return LayerGraph.trace(q_model).flatten(), LayerGraph.trace(model).flatten()


@pytest.mark.parametrize("build", [small_models.cnn, small_models.residual, small_models.nested])
def test_the_twin_is_the_float_model(build):
    model, (data, _) = build(), small_models.images()
    graph, reference = graphs(model, data)
    twin = FloatTwin(graph, reference)
    outputs = Interpreter(graph).run([ops.convert_to_tensor(data)], twin.compute)
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), model.predict(data, verbose=0), rtol=1e-5, atol=1e-5)


def test_a_variant_is_the_only_error(residual, images):
    graph, reference = graphs(residual, images[0])
    twin = FloatTwin(graph, reference)
    x = [ops.convert_to_tensor(images[0])]
    noise = OutputNoise(graph, twin, x)
    parts = [part for call in graph.calls for part in parts_of(call, twin)]
    alone = noise.of({part: variant(part, twin) for part in parts})
    assert len(alone) == len(parts) and all(0 < value < 0.1 for value in alone.values())
    # The errors of parts are nearly independent, so the noise of the whole is about their sum.
    exact, found = (ops.convert_to_numpy(Interpreter(graph).run(x, function)) for function in (twin.compute, compute))
    assert np.sum((found - exact) ** 2) / np.sum(exact**2) == pytest.approx(sum(alone.values()), rel=1.0)
    shifted = Variant(graph.calls[-1].operation, lambda call, args, kwargs: 1.1 * twin.compute(call, args, kwargs))
    assert noise.of({"shifted": shifted})["shifted"] == pytest.approx(0.01, rel=1e-4)
    same = Variant(graph.calls[0].operation, twin.compute)
    assert noise.of({"same": same})["same"] == 0


@pytest.mark.parametrize("own", [True, False])
def test_outputs_are_taken_before_a_softmax(own, images):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.GlobalAveragePooling2D()(inputs)
    logits = layers.Dense(5, activation="softmax" if own else None, name="scores")(x)
    model = keras.Model(inputs, logits if own else layers.Softmax(name="softmax")(logits))
    graph, reference = graphs(model, images[0])
    twin = FloatTwin(graph, reference)
    with before_saturation(graph):
        noise = OutputNoise(graph, twin, [ops.convert_to_tensor(images[0])])
        (call,) = [call for call in graph.calls if "scores" in call.path and parts_of(call, twin)]
        ten_times = Variant(call.operation, lambda call, args, kwargs: 10 * twin.compute(call, args, kwargs))
        assert noise.of({"scaled": ten_times})["scaled"] == pytest.approx(81, rel=1e-4)
    assert not own or call.operation.layer.activation is keras.activations.softmax


def test_a_layer_that_also_computes_something_else_keeps_its_activation():
    """The last of three calls of one layer computes the output."""
    graph, _ = graphs(small_models.shared_layer(), np.zeros((4, 6), "float32"))
    (layer,) = {call.operation.layer for call in graph.calls if "shared" in call.path}
    with before_saturation(graph):
        assert layer.activation is keras.activations.tanh


def test_floats_stand_in_for_the_integers_that_were_found_in_them():
    inputs = keras.Input((4,), name="x")
    scores = layers.Dense(3, name="scores")(inputs)
    ids = keras.Input((2,), dtype="int32", name="ids")
    model = keras.Model([inputs, ids], [ops.argmax(ops.softmax(scores), axis=-1) + 1, scores, ids + 1])
    graph = with_float_outputs(LayerGraph.trace(model).flatten())
    found = Interpreter(graph).run([ops.ones((2, 4)), ops.ones((2, 2), "int32")])
    probabilities, same, numbers = map(ops.convert_to_numpy, found)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)
    assert same.shape == (2, 3) and numbers.tolist() == [[2, 2], [2, 2]]
    best, places = ops.top_k(scores, 2)
    best, same = with_float_outputs(LayerGraph.trace(keras.Model(inputs, [best, places])).flatten()).outputs
    assert best.shape == (None, 2) and same.shape == (None, 3)
    plain = LayerGraph.trace(keras.Model(inputs, scores)).flatten()
    assert with_float_outputs(plain) is plain
