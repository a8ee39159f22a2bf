"""`Equation`: the axes that an EinsumDense sums over, keeps and adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Equation:
    """The einsum of a tensor and a kernel; each letter is an axis.

    Attributes:
        inputs, kernel, output: the axes of the tensor, of the kernel and of the output.
        free: the axes of the tensor that the kernel does not have, in the order of the tensor.
        summed: the axes that the tensor and the kernel share, in the order of the kernel.
        made: the axes that only the kernel has, in its order.
    """

    inputs: str
    kernel: str
    output: str

    @property
    def free(self) -> str:
        return "".join(a for a in self.inputs if a not in self.kernel)

    @property
    def summed(self) -> str:
        return "".join(a for a in self.kernel if a in self.inputs)

    @property
    def made(self) -> str:
        return "".join(a for a in self.kernel if a not in self.inputs)

    @property
    def is_product(self) -> bool:
        """Whether transposing and reshaping turn it into one matmul."""
        distinct = all(len(set(term)) == len(term) for term in (self.inputs, self.kernel, self.output))
        return distinct and bool(self.summed) and set(self.output) == set(self.free + self.made)

    @property
    def channel_axis(self) -> int | None:
        """The output axis that the kernel adds; `None` if it does not add exactly one, or the equation is no matmul."""
        return self.output.index(self.made) if self.is_product and len(self.made) == 1 else None

    @classmethod
    def parse(cls, text: str, rank: int) -> Equation:
        """Returns the parsed equation.

        Args:
            text: such as "...x,xy->...y".
            rank: the number of axes of the tensor; the dots become unused letters.
        """
        text = text.replace(" ", "")
        operands, output = text.split("->")
        inputs, kernel = operands.split(",")
        unused = [a for a in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if a not in text]
        hidden = "".join(unused[: rank - len(inputs.replace("...", ""))])
        return cls(inputs.replace("...", hidden), kernel.replace("...", ""), output.replace("...", hidden))


def as_matrix(layer: Any) -> Equation | None:
    """Returns the equation of a built EinsumDense if it is a product with a matrix whose bias belongs to the channels.

    Returns:
        The equation; `None` for other layers, and if the bias is a vector along an axis before the last: Keras 3.15 on
        TensorFlow adds it along the last axis if that has the same size.
    """
    equation = Equation.parse(layer.equation, layer.input_spec.ndim)
    if not (equation.is_product and equation.free):
        return None
    bias = () if layer.bias is None else tuple(layer.bias.shape)
    axes = equation.output[len(equation.output) - len(bias) :]
    varying = [axis for axis, size in zip(axes, bias, strict=True) if size > 1]
    moved = len(varying) == 1 and varying[0] != equation.output[-1]
    return None if moved or any(axis not in equation.made for axis in varying) else equation
