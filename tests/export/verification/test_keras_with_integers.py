import numpy as np
import pytest
import small_models
from keras import ops

from tensorflow_quantization import calibrate, quantize_model
from tensorflow_quantization.export.verification.keras_with_integers import run_with_integers
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.quantizers import numerics
from tensorflow_quantization.wrappers import activation_quantizers


@pytest.fixture
def quantized(residual, images):
    return calibrate(quantize_model(residual, target="onnxruntime"), images[0], verbose=0)


def own(call, quantizer, exact):
    """The integers that Keras itself has."""
    return numerics.quantize(exact, *quantizer.parameters(), quantizer.scheme, np)


def test_with_the_integers_of_keras_it_is_the_model(quantized, images):
    graph = LayerGraph.trace(quantized)
    asked = []

    def integers(call, quantizer, exact):
        asked.append((call.path, quantizer.name))
        return own(call, quantizer, exact)

    (found,) = run_with_integers(graph, [images[0]], integers)
    np.testing.assert_allclose(found, ops.convert_to_numpy(quantized(images[0])), rtol=1e-5, atol=1e-5)
    assert asked == [(c.path, q.name) for c in graph.calls for q in activation_quantizers(c.operation)]


def test_later_layers_read_the_integers(quantized, images):
    graph = LayerGraph.trace(quantized)

    def zeros(call, quantizer, exact):
        _, zero_point = quantizer.parameters()
        return np.full(exact.shape, zero_point)

    (found,) = run_with_integers(graph, [images[0]], zeros)
    np.testing.assert_array_equal(found, np.broadcast_to(found[0], found.shape))


def test_quantizers_work_again_after_an_error(quantized, images):
    before = ops.convert_to_numpy(quantized(images[0]))

    def fail(call, quantizer, exact):
        raise RuntimeError("the file has none")

    with pytest.raises(RuntimeError, match="the file has none"):
        run_with_integers(LayerGraph.trace(quantized), [images[0]], fail)
    small_models.assert_same_arrays(quantized(images[0]), before)
