"""`observing`: functions stand in for quantizers, to see their tensors or to replace them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tensorflow_quantization.quantizers.activation import ActivationQuantizer
from tensorflow_quantization.quantizers.weight import WeightQuantizer

#: Stands in for a quantizer: gets its tensor and returns the output.
Observer = Callable[[Any], Any]


def unquantized(x: Any) -> Any:
    """The observer that returns the tensor as it is."""
    return x


@contextlib.contextmanager
def observing(observers: Mapping[ActivationQuantizer | WeightQuantizer, Observer | None]) -> Iterator[None]:
    """Lets observers stand in for quantizers for the time of the context.

    Args:
        observers: the observer of each quantizer; `None`: the quantizer quantizes.
    """
    before = {quantizer: quantizer.observer for quantizer in observers}
    try:
        for quantizer, observer in observers.items():
            quantizer.observer = observer
        yield
    finally:
        for quantizer, observer in before.items():
            quantizer.observer = observer
