"""`Target`: what a runtime wants, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerRule:
    """What is quantized, unasked, of the layers of one class.

    Attributes:
        inputs: all of its inputs.
        weights: its kernels.
        why_not: where both are off: the reason, and what turns it on.
    """

    inputs: bool = True
    weights: bool = True
    why_not: str = ""


@dataclass(frozen=True)
class Target:
    """A runtime's wishes.

    Attributes:
        name: as the user writes it.
        layers: rules by layer class name; a class without one is left alone.
    """

    name: str
    layers: Mapping[str, LayerRule]

    def rule(self, class_names: list[str]) -> LayerRule | None:
        """The rule of the first of these classes (a layer's own, then its bases) that has one."""
        return next((self.layers[name] for name in class_names if name in self.layers), None)
