"""`fix_input_output_range` and `remove_input_range`: the quantizers at the ends of a quantized model."""

from __future__ import annotations

import keras

from tensorflow_quantization.model.clone import rewrite
from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.tfmot.quantization.keras.annotate import check_model
from tensorflow_quantization.tfmot.quantization.keras.quantizers import FixedQuantizer
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, float_name


def fix_input_output_range(
    model: keras.Model,
    num_bits: int = 8,
    input_min: float = 0.0,
    input_max: float = 1.0,
    output_min: float = 0.0,
    output_max: float = 1.0,
    narrow_range: bool = False,
) -> keras.Model:
    """Return a copy of a quantized model whose inputs and outputs have fixed ranges, in training, too.

    Examples:
        >>> from tensorflow_quantization.tfmot.quantization.keras import fix_input_output_range
        >>> fixed = fix_input_output_range(quantize_model(model, target="litert"), input_max=255.0)
        >>> f"{describe(fixed)['image'].quantizers[0].scale:.1f}"
        '1.0'

    Args:
        model: a model that `quantize_model` or `quantize_apply` returned.
        num_bits: 2 to 8; default 8. `export_litert` writes 8 bits only.
        input_min, input_max: float, the range of each input; default 0 and 1.
        output_min, output_max: float, the range of each output; default 0 and 1.
        narrow_range: bool, leave out the lowest integer; default `False`.

    Returns:
        A `keras.Model`, which is not compiled.

    Raises:
        ValueError: `model` is not quantized, at its inputs in particular, or the bits are out of range.
    """
    graph = _quantized_graph(model)
    inputs = FixedQuantizer(num_bits, input_min, input_max, narrow_range).scheme()
    outputs = FixedQuantizer(num_bits, output_min, output_max, narrow_range).scheme()
    fixed = rewrite(graph, lambda call, copy: [copy], compiled=False)
    graph = LayerGraph.trace(fixed)
    for call in _input_quantizers(graph):
        call.operation.scheme = inputs
    for tensor in graph.outputs:
        operation = tensor.producer.operation if tensor.producer is not None else None
        if isinstance(operation, ActivationQuantizer):
            operation.scheme = outputs
        elif isinstance(operation, BaseQuantizeWrapper) and operation.output_quantizer is not None:
            operation.output_quantizer.scheme = operation.output_scheme = outputs
    return fixed


def remove_input_range(model: keras.Model) -> keras.Model:
    """Return a copy of a quantized model without the quantizers of its inputs.

    Examples:
        >>> from tensorflow_quantization.tfmot.quantization.keras import remove_input_range
        >>> [x.name for x in describe(remove_input_range(quantize_model(model, target="litert")))][0]
        'quant_conv'

    Args:
        model: a model that `quantize_model` or `quantize_apply` returned.

    Returns:
        A `keras.Model`, which is not compiled.

    Raises:
        ValueError: `model` is not quantized at its inputs.
    """
    graph = _quantized_graph(model)
    removed = {id(call.operation) for call in _input_quantizers(graph)}

    def replace(call: Call, copy: keras.Operation) -> list[keras.Operation]:
        if id(call.operation) not in removed:
            return [copy]
        # With another name: a wrapper would take it for the quantizer whose scale rounds its bias.
        return [keras.layers.Identity(name=f"float_{float_name(copy.name)}", dtype=copy.dtype_policy)]

    return rewrite(graph, replace, compiled=False)


def _quantized_graph(model: keras.Model) -> LayerGraph:
    """The graph of a model. Raises: ValueError: its inputs have no quantizers."""
    check_model("model", model)
    graph = LayerGraph.trace(model)
    if not _input_quantizers(graph):
        raise ValueError(f"Model {model.name!r} has no quantizers at its inputs. Pass what quantize_model returned.")
    return graph


def _input_quantizers(graph: LayerGraph) -> list[Call]:
    readers = [call for tensor in graph.inputs for call in graph.consumers(tensor)]
    return [call for call in readers if isinstance(call.operation, ActivationQuantizer)]
