"""A kernel of a layer as a matrix, and what it multiplies as rows: the form that all roundings work on.

A product of a layer is G x (rows (N, K) @ matrix (K, M)): M output channels sum K products each, and N positions of all
samples are the rows. A convolution has one group, or `groups`; a depthwise convolution has a group for each input
channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from tensorflow_quantization.model.equation import Equation
from tensorflow_quantization.model.keras_classes import keras_class_names
from tensorflow_quantization.wrappers.channels import is_depthwise

Array = np.ndarray


@dataclass(frozen=True)
class ProductForm:
    """How one kernel of a layer multiplies.

    Attributes:
        matrix: returns an array in the shape of the kernel as (G, K, M).
        kernel: the inverse of `matrix`.
        rows: returns the rows (G, N, K) of an input, an array of the layer's input shape. `choose`, which gets the
            number of samples and of positions in each, returns the positions that it wants, an array (N, 2) of (sample,
            position).
    """

    matrix: Callable[[Array], Array]
    kernel: Callable[[Array], Array]
    rows: Callable[[Array, Callable[[int, int], Array]], Array]


def product_form(layer: keras.layers.Layer, name: str, shape: tuple[int, ...]) -> ProductForm | None:
    """Returns how the kernel `name` of `layer`, of this shape, multiplies; `None` if it is not known.

    Examples:
        >>> layer = keras.layers.Conv2D(8, 3)
        >>> layer.build((None, 9, 9, 4))
        >>> form = product_form(layer, "kernel", (3, 3, 4, 8))
        >>> form.matrix(np.zeros((3, 3, 4, 8))).shape
        (1, 36, 8)
        >>> form.rows(np.zeros((2, 9, 9, 4)), every_position).shape
        (1, 98, 36)
    """
    names = keras_class_names(type(layer))
    if isinstance(layer, keras.layers.EinsumDense):
        return _einsum(layer, shape)
    if "Dense" in names:
        return _matrix_product(shape)
    if name == "pointwise_kernel":
        return _pointwise(layer, shape)
    if name == "depthwise_kernel" or is_depthwise(layer):
        return _depthwise(layer, shape)
    if any("Transpose" in n for n in names):
        return _transposed(layer, shape)
    if any(n.startswith("Conv") and n.endswith("D") for n in names) and not isinstance(layer, keras.layers.RNN):
        return _convolution(layer, shape)
    return None


def every_position(samples: int, positions: int) -> Array:
    """Returns all (sample, position) pairs, an integer array (samples * positions, 2)."""
    return np.stack(np.meshgrid(np.arange(samples), np.arange(positions), indexing="ij"), -1).reshape(-1, 2)


def _matrix_product(shape) -> ProductForm:
    def rows(x, choose):
        x = x.reshape(len(x), -1, shape[0])
        chosen = choose(*x.shape[:2])
        return x[chosen[:, 0], chosen[:, 1]][None]

    return ProductForm(lambda k: k[None], lambda m: m[0], rows)


def _einsum(layer, shape) -> ProductForm | None:
    equation = Equation.parse(layer.equation, layer.input_spec.ndim)
    if not equation.is_product:
        return None
    order = equation.summed + equation.made
    axes = [equation.kernel.index(a) for a in order]
    permuted = tuple(shape[a] for a in axes)
    summed = int(np.prod([shape[equation.kernel.index(a)] for a in equation.summed]))
    inputs = [equation.inputs.index(a) for a in equation.free + equation.summed]

    def rows(x, choose):
        x = x.transpose(inputs)  # the batch axis stays first
        x = x.reshape(len(x), -1, summed)
        chosen = choose(*x.shape[:2])
        return x[chosen[:, 0], chosen[:, 1]][None]

    return ProductForm(
        lambda k: k.transpose(axes).reshape(1, summed, -1),
        lambda m: m.reshape(permuted).transpose(np.argsort(axes)),
        rows,
    )


def _convolution(layer, shape) -> ProductForm:
    groups, taps, channels, outputs = layer.groups, int(np.prod(shape[:-2])), shape[-2], shape[-1]

    def rows(x, choose):
        windows = _windows(layer, x, shape[:-2], choose)  # (N, taps, input channels)
        grouped = windows.reshape(len(windows), taps, groups, channels)
        return np.moveaxis(grouped, 2, 0).reshape(groups, len(windows), taps * channels)

    return ProductForm(
        lambda k: np.moveaxis(k.reshape(taps * channels, groups, outputs // groups), 1, 0),
        lambda m: np.moveaxis(m, 0, 1).reshape(shape),
        rows,
    )


def _depthwise(layer, shape) -> ProductForm:
    *size, channels, multiplier = shape
    taps = int(np.prod(size))
    return ProductForm(
        lambda k: np.moveaxis(k.reshape(taps, channels, multiplier), 1, 0),
        lambda m: np.moveaxis(m, 0, 1).reshape(shape),
        lambda x, choose: np.moveaxis(_windows(layer, x, tuple(size), choose), 2, 0),
    )


def _pointwise(layer, shape) -> ProductForm:
    """The second convolution of a separable one: a matrix product of channels."""
    form = _matrix_product(shape[-2:])

    def rows(x, choose):
        return form.rows(np.moveaxis(x, 1, -1) if layer.data_format == "channels_first" else x, choose)

    return ProductForm(lambda k: k.reshape(1, *shape[-2:]), lambda m: m.reshape(shape), rows)


def _transposed(layer, shape) -> ProductForm:
    """A transposed convolution: a convolution of the input with zeros between its values, and the kernel reversed."""
    *size, outputs, channels = shape
    rank, taps = len(size), int(np.prod(size))
    reverse = (slice(None, None, -1),) * rank

    def rows(x, choose):
        x = _channels_last(layer, x)
        strides = _tuple(layer.strides, rank)
        stuffed = np.zeros(
            (len(x), *((n - 1) * s + 1 for n, s in zip(x.shape[1:-1], strides, strict=True)), channels), x.dtype
        )
        stuffed[(slice(None), *(slice(None, None, s) for s in strides))] = x
        dilation = _tuple(layer.dilation_rate, rank)
        margins = [(d * (k - 1),) * 2 for k, d in zip(size, dilation, strict=True)]
        windows = _strided_windows(np.pad(stuffed, [(0, 0), *margins, (0, 0)]), size, (1,) * rank, dilation, choose)
        return windows.reshape(1, len(windows), taps * channels)

    return ProductForm(
        lambda k: np.swapaxes(k[reverse], -1, -2).reshape(1, taps * channels, outputs),
        lambda m: np.swapaxes(m.reshape(*size, channels, outputs), -1, -2)[reverse],
        rows,
    )


def _windows(layer, x: Array, size: tuple[int, ...], choose) -> Array:
    """Returns what the taps of a convolution see at the chosen positions: (N, taps, channels)."""
    x = _channels_last(layer, x)
    rank = len(size)
    strides, dilation = _tuple(layer.strides, rank), _tuple(layer.dilation_rate, rank)
    margins = []
    for n, k, s, d in zip(x.shape[1:-1], size, strides, dilation, strict=True):
        reach = (k - 1) * d
        if layer.padding == "causal":
            margins.append((reach, 0))
        elif layer.padding == "same":
            total = max((-(-n // s) - 1) * s + reach + 1 - n, 0)
            margins.append((total // 2, total - total // 2))
        else:
            margins.append((0, 0))
    return _strided_windows(np.pad(x, [(0, 0), *margins, (0, 0)]), size, strides, dilation, choose)


def _strided_windows(x: Array, size, strides, dilation, choose) -> Array:
    rank = len(size)
    spans = tuple((k - 1) * d + 1 for k, d in zip(size, dilation, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, tuple(range(1, rank + 1)))
    windows = windows[
        (slice(None), *(slice(None, None, s) for s in strides))
    ]  # (samples, *positions, channels, *spans)
    positions = windows.shape[1 : rank + 1]
    chosen = choose(len(x), int(np.prod(positions)))
    at = np.unravel_index(chosen[:, 1], positions)
    taken = windows[(chosen[:, 0], *at, slice(None), *(slice(None, None, d) for d in dilation))]
    return np.moveaxis(taken, 1, -1).reshape(len(chosen), -1, x.shape[-1])


def _channels_last(layer, x: Array) -> Array:
    return np.moveaxis(x, 1, -1) if layer.data_format == "channels_first" else x


def _tuple(value, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
