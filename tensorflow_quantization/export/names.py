"""The names of the outputs in a file. A float and a quantized file have the same, so they are interchangeable."""

from __future__ import annotations

import re

from keras import tree

from tensorflow_quantization.export.onnx.emission import plain_name
from tensorflow_quantization.model.graph import LayerGraph, Tensor
from tensorflow_quantization.quantizers import ActivationQuantizer
from tensorflow_quantization.wrappers import BaseQuantizeWrapper, float_name, inner_layer


def names_of_outputs(graph: LayerGraph) -> list[str]:
    """The name of each output, without characters that some ONNX tools reject. Two outputs may have the same name.

    An output in a dict has its key, after the keys and indices of the structures that hold the dict: "boxes",
    "heads_0_boxes". Any other output has the name of the layer of the float model that computes it.

    Args:
        graph: the graph of the model, not flattened: a nested model has one name, whatever it holds.
    """
    keys = keys_of_outputs(graph)
    return [plain_name(_layer_name(t)) if key is None else key for key, t in zip(keys, graph.outputs, strict=True)]


def keys_of_outputs(graph: LayerGraph) -> list[str | None]:
    """The keys of the outputs as one name each, as in `names_of_outputs`; `None` for outputs that no dict holds."""
    paths = [path for path, _ in tree.flatten_with_path(graph.output_structure)]
    return [plain_name("_".join(map(str, p))) if any(isinstance(k, str) for k in p) else None for p in paths]


def names_in_signature(graph: LayerGraph) -> list[str]:
    """The name of each output in the signature of a LiteRT file, each once: its key, else `output_<index>`.

    TensorFlow names the outputs of a SavedModel in the same way.
    """
    names: list[str] = []
    for index, key in enumerate(keys_of_outputs(graph)):
        name = f"output_{index}" if key is None else key
        # The verification has outputs of the name `quantized_<index>`.
        while name in names or re.fullmatch(r"quantized_\d+", name):
            name = f"{name}_{index}"
        names.append(name)
    return names


def _layer_name(tensor: Tensor) -> str:
    """The name of the layer of the float model that computes a tensor."""
    call = tensor.producer
    if call is None:
        return tensor.name
    name = call.name
    if isinstance(call.operation, BaseQuantizeWrapper | ActivationQuantizer):
        name = float_name(name)
    # Where the sum is quantized before the activation, the activation is a layer after the wrapper.
    source = call.inputs[0].producer if len(call.inputs) == 1 else None
    if source is not None and isinstance(source.operation, BaseQuantizeWrapper):
        layer = inner_layer(source.operation)
        if source.operation.output_quantizer is not None and name == f"{layer.name}_activation":
            return layer.name
    return name
