"""What a call reads in a quantized model: tensors that the layers before it quantize."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from keras import tree

from tensorflow_quantization.model.graph import Call, Tensor
from tensorflow_quantization.model.interpreter import Arguments, infer
from tensorflow_quantization.model.op_traits import origin
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers.queries import output_quantizer


def source_quantizer(tensor: Tensor) -> ActivationQuantizer | None:
    """Returns the quantizer of the output that `tensor` is, also if data movement alone lies between them."""
    source = origin(tensor)
    if source.producer is None or source.index != 0:  # further outputs, such as states, are float
        return None
    return output_quantizer(source.producer.operation)


def quantized_inputs(
    call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], chosen: Container[ActivationQuantizer] | None = None
) -> Arguments:
    """Returns float arguments of a call, quantized where the layers before it quantize them.

    Moving data and quantizing can change places: every scheme keeps the zeros of padding, and the order of values.

    Args:
        call: the call, of the graph of a quantized model.
        args, kwargs: its arguments.
        chosen: the quantizers that quantize; `None` (default) is all.
    """

    def read(tensor: Any, value: Any) -> Any:
        quantizer = source_quantizer(tensor) if isinstance(tensor, Tensor) else None
        return (
            value if quantizer is None or (chosen is not None and quantizer not in chosen) else infer(quantizer, value)
        )

    written = (call.args, {name: call.kwargs[name] for name in kwargs})
    return tree.map_structure(read, written, (args, kwargs))
