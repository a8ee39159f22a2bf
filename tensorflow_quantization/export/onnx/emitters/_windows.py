"""Converts the padding of sliding windows from Keras' names to ONNX' numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorflow_quantization.export.onnx.values import Shape


def window_attributes(
    padding: str, spatial: Shape, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> dict[str, Any]:
    """The attribute `pads` of a convolution or pooling, or `auto_pad` if the padding depends on an unknown size.

    Args:
        padding: "valid", "same", or "causal": all padding is at the start, so no output depends on later inputs.
        spatial: sizes of the input; `None` if unknown.
        kernel, strides, dilations: one number for each axis of `spatial`.
    """
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if padding == "valid":
        return {}
    if padding == "causal":
        return {"pads": [s - 1 for s in spans] + [0] * len(spans)}
    total = []
    for size, span, stride in zip(spatial, spans, strides, strict=True):
        if stride == 1:
            total.append(span - 1)
        elif size is None:
            return {"auto_pad": "SAME_UPPER"}
        else:
            total.append(max((-(-size // stride) - 1) * stride + span - size, 0))
    return {"pads": [t // 2 for t in total] + [t - t // 2 for t in total]} if any(total) else {}


def transposed_attributes(
    padding: str,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int] | None,
) -> dict[str, Any]:
    """`pads` and `output_padding` of a ConvTranspose.

    For an input of size n, the output in Keras has the size (n - 1) * stride + max(span, stride) for "valid" and
    n * stride for "same", unless `output_padding` is set. The output in ONNX has the size (n - 1) * stride + span,
    minus `pads`, plus `output_padding`.
    """
    begins, ends, extra = [], [], []
    for i, (k, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        span = (k - 1) * dilation + 1
        more = None if output_padding is None else output_padding[i]
        if padding == "valid":
            begin, end = 0, -(max(stride - span, 0) if more is None else more)
        else:
            # The number of elements by which the output is longer than with full cropping, divided between both sides.
            reach = stride + span - 2 if more is None else span + span % 2 - 2 + more
            left = min(reach // 2 + reach % 2, span - 1)
            begin, end = span - 1 - left, span - 1 - (reach - left)
        begins.append(begin)
        ends.append(max(end, 0))
        extra.append(max(-end, 0))
    attributes: dict[str, Any] = {}
    if any(begins) or any(ends):
        attributes["pads"] = begins + ends
    if any(extra):
        attributes["output_padding"] = extra
    return attributes


def repeated(x: int | Sequence[int], rank: int) -> list[int]:
    """One number for each spatial axis."""
    return [x] * rank if isinstance(x, int) else list(x)


def unless_ones(x: Sequence[int]) -> list[int] | None:
    """`None` if all numbers are 1, ONNX' default."""
    return list(x) if any(v != 1 for v in x) else None
