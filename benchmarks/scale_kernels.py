"""The fake quantization of one tensor with its gradient, for `scale.py`: ours, the backend's own kernel, and a ReLU.

Ours rounds as ONNX' QuantizeLinear does, to the last integer. TensorFlow's kernel rounds halves up, and PyTorch's
multiplies by the reciprocal of the scale, so neither can replace ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

#: The output of the first convolution of ResNet-20 for 64 images.
SHAPE = (64, 32, 32, 16)
SCALE = 0.02

Function = Callable[[Any], Any]


def calls() -> dict[str, Callable[[], object]]:
    """By kernel: computes the output for a random tensor, and its gradient."""
    rng = np.random.default_rng(0)
    x, upstream = (rng.normal(size=SHAPE).astype("float32") for _ in range(2))
    return {name: _differentiated(function, x, upstream) for name, function in _functions().items()}


def _functions() -> dict[str, Function]:
    from tensorflow_quantization.quantizers import QuantizationScheme
    from tensorflow_quantization.quantizers.fake_quantize import fake_quantize

    scheme = QuantizationScheme()
    in_torch = keras.backend.backend() == "torch"  # where quantizers pass a number
    scale = SCALE if in_torch else keras.ops.convert_to_tensor(np.float32(SCALE))
    functions: dict[str, Function] = {
        "relu": keras.ops.relu,
        "ours": lambda x: fake_quantize(x, scale, scheme.zero_point, scheme),
    }
    low, high = (SCALE * limit for limit in (scheme.qmin, scheme.qmax))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        functions["own"] = lambda x: tf.quantization.fake_quant_with_min_max_args(x, low, high, narrow_range=True)
    if in_torch:
        import torch

        functions["own"] = lambda x: torch.fake_quantize_per_tensor_affine(x, SCALE, 0, scheme.qmin, scheme.qmax)
    return functions


def _differentiated(function: Function, x: np.ndarray, upstream: np.ndarray) -> Callable[[], object]:
    """A function that returns the gradient of sum(function(x) * upstream), once it is computed."""
    return {"tensorflow": _in_tensorflow, "jax": _in_jax, "torch": _in_torch}[keras.backend.backend()](
        function, x, upstream
    )


def _in_tensorflow(function: Function, x: np.ndarray, upstream: np.ndarray) -> Callable[[], object]:
    import tensorflow as tf

    @tf.function
    def gradient(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x, upstream)

    inputs = tf.constant(x), tf.constant(upstream)
    return lambda: gradient(*inputs)[1][0, 0, 0, 0].numpy()


def _in_jax(function: Function, x: np.ndarray, upstream: np.ndarray) -> Callable[[], object]:
    import jax

    @jax.jit
    def gradient(x, upstream):
        y, pullback = jax.vjp(function, x)
        return y, pullback(upstream)[0]

    inputs = jax.numpy.asarray(x), jax.numpy.asarray(upstream)
    return lambda: jax.block_until_ready(gradient(*inputs))


def _in_torch(function: Function, x: np.ndarray, upstream: np.ndarray) -> Callable[[], object]:
    import torch

    given, to_output = (keras.ops.convert_to_tensor(array) for array in (x, upstream))
    given.requires_grad_()
    return lambda: torch.autograd.grad(function(given), given, to_output)
