"""`Quantization`: the parameters of a QuantizeLinear or DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from tensorflow_quantization.onnx_graph.queries import (
    attribute,
    constant,
    is_dequantize,
    is_quantize,
    moves_only,
    operand,
    producer,
)


@dataclass(frozen=True)
class Quantization:
    """The parameters of a QuantizeLinear or DequantizeLinear.

    A number is quantized to round(number / scale) + zero point, and saturates at the limits of the dtype. A step is one
    unit of these integers: it stands for `scale`. Source: ONNX, QuantizeLinear.

    Attributes:
        scale: a float array; `None` if the graph computes it.
        zero_point: an array of `dtype`; `None` if it is omitted, which means 0, or if the graph computes it.
        dtype: the dtype of the quantized values, "int8", "uint8", "float8e4m3fn", ...; "" if the file does not say.
        explicit: whether the node states the dtype: by a zero point, the attribute `output_dtype`, or the input of a
            DequantizeLinear.
        axis: the axis of per-channel scales.
        block_size: the number of values per scale in blockwise quantization, otherwise 0.
    """

    scale: np.ndarray | None
    zero_point: np.ndarray | None
    dtype: str
    explicit: bool
    axis: int
    block_size: int

    @classmethod
    def of(cls, node: ir.Node) -> Quantization:
        """The parameters of `node`, a QuantizeLinear or DequantizeLinear."""
        zero_point = operand(node, 2)
        output_dtype = attribute(node, "output_dtype", 0)
        if zero_point is not None:
            dtype = _dtype(zero_point)
        elif is_quantize(node):
            dtype = ir.DataType(output_dtype).name.lower() if output_dtype else "uint8"
        else:
            dtype = _dtype(operand(node, 0))
            quantize = producer(operand(node, 0))
            if not dtype and quantize is not None and is_quantize(quantize):
                dtype = cls.of(quantize).dtype
        explicit = zero_point is not None or bool(output_dtype) or is_dequantize(node)
        axis, block_size = attribute(node, "axis", 1), attribute(node, "block_size", 0)
        return cls(constant(operand(node, 1)), constant(zero_point), dtype, explicit, axis, block_size)

    @property
    def per_channel(self) -> bool:
        """Whether there is more than one scale."""
        return self.scale is not None and self.scale.size > 1

    @property
    def zero(self) -> int | None:
        """The zero point as one number: 0 if it is omitted, `None` if channels differ."""
        if self.zero_point is None:
            return 0
        values = np.unique(self.zero_point.astype(np.int64))
        return int(values[0]) if len(values) == 1 else None

    @property
    def limits(self) -> tuple[int, int] | None:
        """The least and the greatest integer of the dtype; `None` if the dtype is not an integer dtype."""
        signed, _, digits = self.dtype.partition("int")
        if not digits.isdigit() or signed not in ("", "u"):
            return None
        bits = int(digits)
        return (0, 2**bits - 1) if signed == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    @property
    def range(self) -> tuple[float, float] | None:
        """The float numbers at which it saturates; `None` unless it is an integer quantizer per tensor."""
        if self.limits is None or self.zero is None or self.scale is None or self.scale.size != 1:
            return None
        step = float(np.ravel(self.scale)[0])
        low, high = (step * (limit - self.zero) for limit in self.limits)
        return low, high


def _dtype(value: ir.Value | None) -> str:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    dtype = tensor.dtype if tensor is not None else (None if value is None else value.dtype)
    return "" if dtype is None else dtype.name.lower()


def same_parameters(a: ir.Node, b: ir.Node) -> bool:
    """Whether two quantizers have the same constant scale and the same constant zero point."""
    return all(
        (x := constant(operand(a, index))) is not None
        and (y := constant(operand(b, index))) is not None
        and x.dtype == y.dtype
        and np.array_equal(x, y)
        for index in (1, 2)
    )


def source_of(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that `value` comes from, directly or through operators that only move values."""
    while moves_only(moving := producer(value)):
        value = operand(moving, 0)
    return producer(value, "DequantizeLinear")
