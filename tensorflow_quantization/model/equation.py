"""`Equation`: which axes an EinsumDense sums over, keeps and adds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Equation:
    """An equation of a tensor and a kernel, a letter an axis.

    Attributes:
        inputs, kernel, output: the letters of each.
        free: those that the tensor hands on to the output.
        summed: those that tensor and kernel share, in the kernel's order.
        made: those that the kernel adds to the output.
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
        """Whether it is a product of two matrices, once axes are moved and joined."""
        distinct = all(len(set(term)) == len(term) for term in (self.inputs, self.kernel, self.output))
        return distinct and bool(self.summed) and set(self.output) == set(self.free + self.made)

    @property
    def channel_axis(self) -> int | None:
        """The output axis that the kernel adds; `None` if it adds several or none, or the equation is no product."""
        return self.output.index(self.made) if self.is_product and len(self.made) == 1 else None

    @classmethod
    def parse(cls, text: str, rank: int) -> Equation:
        """Read "...x,xy->...y" for a tensor of `rank` axes; the dots get letters of their own."""
        text = text.replace(" ", "")
        operands, output = text.split("->")
        inputs, kernel = operands.split(",")
        unused = [a for a in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if a not in text]
        hidden = "".join(unused[: rank - len(inputs.replace("...", ""))])
        return cls(inputs.replace("...", hidden), kernel.replace("...", ""), output.replace("...", hidden))
