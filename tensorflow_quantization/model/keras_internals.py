"""All uses of Keras' private API.

No other module imports `keras.src` or reads an attribute of Keras that begins with `_`. So a new version of Keras can
break this module only. Each entry says why it is needed, and which public API would replace it.
`tests/model/test_keras_internals.py` checks each entry on the installed Keras, and this rule on the source code.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.backend.common import AutocastScope, global_state
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.layers.layer import CallContext
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell
from keras.src.models.functional import Functional
from keras.src.ops.numpy import BroadcastTo, Reshape
from keras.src.random.seed_generator import global_seed_generator
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.trainers.data_adapters import get_data_adapter

# The graph of a model.

_CALL_CONTEXT = "current_call_ctx"
_NAME_COUNTERS = "object_name_uids"


def is_functional(model: keras.Model) -> bool:
    """Returns whether a model is functional, and does not override `call`.

    Why: such a model has a graph; any other model must be traced. A public class `keras.Functional` would do.
    """
    return isinstance(model, Functional) and type(model).call is Functional.call


def functional_of(model: keras.Sequential) -> keras.Model | None:
    """Returns the functional model within a Sequential model; `None` if the input shape is not known yet.

    Why: it holds the graph. A public `Sequential.functional` would do.
    """
    return getattr(model, "_functional", None)


def nodes_in_order(functional: keras.Model) -> Iterator[Any]:
    """Yields the nodes of a functional model, its calls, in topological order.

    A node has the public attributes `operation`, `arguments`, `input_tensors`, `outputs` and `is_input`.

    Why: the nodes are the graph. The public `operations` lack the arguments of each call; a public `nodes` would do.
    """
    by_depth = functional._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from by_depth[depth]


def nodes_of(operation: keras.Operation) -> list[Any]:
    """Returns the nodes of an operation, its calls on symbolic tensors, in the order of the calls.

    Why: the public `Operation.input` and `output` show the first call only. A public `Operation.nodes` would do.
    """
    return list(operation._inbound_nodes)


def reading_nodes(operation: keras.Operation) -> list[Any]:
    """Returns the nodes that read an output of an operation.

    Why: the layers after a layer decide how it is rounded. No public API leads from a layer to its readers.
    """
    return list(operation._outbound_nodes)


def origin(tensor: keras.KerasTensor) -> Any:
    """Returns the origin of a symbolic tensor: a named tuple (operation, node_index, tensor_index).

    The tensor is output `tensor_index` of `nodes_of(operation)[node_index]`.

    Why: the layers before a layer decide how it is rounded. A public `KerasTensor.history` would do.
    """
    return tensor._keras_history


@contextlib.contextmanager
def removing_nodes(layer: keras.layers.Layer) -> Iterator[None]:
    """Removes, at its end, the nodes that calls in the context added to the layers within a layer or model.

    Why: tracing calls the user's layers, which must stay unchanged. A public way to call without nodes would do.
    """
    counts = [(x, len(x._inbound_nodes), len(x._outbound_nodes)) for x in sublayers(layer)]
    try:
        yield
    finally:
        for inner, inbound, outbound in counts:
            del inner._inbound_nodes[inbound:], inner._outbound_nodes[outbound:]


# Tracing.


@contextlib.contextmanager
def calling(layer: keras.layers.Layer, training: bool | None) -> Iterator[None]:
    """Makes the context part of a call of `layer`: layers that are called without `training` get the value from here.

    Why: tracing runs `layer.call`, since `layer.__call__` would add nodes. A public scope for `training` would do.
    """
    before = global_state.get_global_attribute(_CALL_CONTEXT)
    context = CallContext(entry_layer=layer)
    context.training = training
    global_state.set_global_attribute(_CALL_CONTEXT, context)
    try:
        yield
    finally:
        global_state.set_global_attribute(_CALL_CONTEXT, before)


def computes_spec() -> bool:
    """Returns whether Keras is computing the shapes and dtypes of what some code returns.

    Why: code that runs for its shapes adds nothing to a graph. A public form would do.
    """
    return in_symbolic_scope()


def name_counters() -> collections.defaultdict[str, int]:
    """Returns Keras' counters of automatic names: {name: number of the next layer or operation}. Can be changed.

    Why: two traces of a model must create the same names. The public `clear_session` clears more than the counters; a
    public name scope would do.
    """
    return global_state.get_global_attribute(_NAME_COUNTERS, collections.defaultdict(int), set_to_default=True)


def global_random_state() -> keras.Variable:
    """Returns the state of the global seed generator, which operations without their own seed generator use.

    Why: an operation that changes it cannot be exported. The public `set_random_seed` only sets it; a public
    `keras.random.global_seed_generator` would do.
    """
    return global_seed_generator().state


#: The operation classes of `keras.ops.broadcast_to` and `keras.ops.reshape`.
#:
#: Why: tracing sets the shapes in them. Only the functions are public; public operation classes would do.
BroadcastToOperation, ReshapeOperation = BroadcastTo, Reshape


# Layers.


def sublayers(layer: keras.layers.Layer, recursive: bool = True) -> list[Any]:
    """Returns the layers within a layer or model, without itself, each once.

    Args:
        layer: any layer.
        recursive: bool; include the layers at all depths, each after the layer that holds it. Default `True`.

    Why: the public `Model.layers` is for models only, and for the first depth. A public `Layer.layers` would do.
    """
    return layer._flatten_layers(include_self=False, recursive=recursive)


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Returns the weights of a layer without the weights of its sublayers, metrics and seed generators.

    Why: a layer without its own weights can be replaced by its sublayers. The public `Layer.weights` includes theirs; a
    public `Layer.own_weights` would do.
    """
    return [*own_parameters(layer), *layer._non_trainable_variables]


def own_parameters(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Returns the `own_variables` that were made to be trained, frozen or not.

    Why: the public `Layer.trainable_variables` lacks frozen ones.
    """
    return list(layer._trainable_variables)


def is_autocast(variable: keras.Variable) -> bool:
    """Returns whether code that reads a variable gets it in the compute dtype of the layer.

    Why: a layer that stands for the variable returns what the code got. A public `Variable.autocast` would do.
    """
    return variable._autocast


def built_shapes(layer: keras.layers.Layer) -> dict[str, Any] | None:
    """Returns the shapes that a layer or model was built with, by parameter of `build`; `None` if it is not built.

    Why: a subclassed model is traced on inputs of these shapes. The public `get_build_config` loses the keys of a dict
    of shapes, and turns a list of shapes into a tuple.
    """
    return getattr(layer, "_build_shapes_dict", None)


def argument_of(layer: Any, name: str) -> Any:
    """Returns the argument of `__init__` that a layer keeps under its name; `None` if it does not keep it.

    Why: a copy gets the same functions. `Lambda` keeps `output_shape` under a private name; a public one would do.
    """
    return getattr(layer, name, getattr(layer, f"_{name}", None))


def constructor_arguments(operation: keras.Operation) -> dict[str, Any]:
    """Returns the arguments that made an operation, by name, where Keras noted them: all are numbers, strings and such.

    Why: a layer without `get_config`, or with one that does not fit its `__init__`, can be made again.
    """
    noted = getattr(operation, "_auto_config", None)
    return {} if noted is None else {n: keras.saving.deserialize_keras_object(v) for n, v in noted.config.items()}


def input_shape_argument(layer: keras.layers.Layer) -> tuple[int | None, ...] | None:
    """Returns the argument `input_shape` of a layer, the shape of the input without the batch axis; `None` without.

    Why: the first layer of a Sequential sets its input shape, and so does a wrapper around that layer. A public
    attribute would do.
    """
    return getattr(layer, "_input_shape_arg", None)


def lora_variables(layer: keras.layers.Layer, weight: str) -> tuple[keras.Variable, ...]:
    """Returns the variables of a weight with low-rank factors: base and factors; empty for a weight without factors.

    Args:
        layer: any layer.
        weight: the name of the weight's public attribute, "kernel" or "embeddings".

    Why: the public attribute is not a variable then, but a tensor that is computed from these three. A public attribute
    for the base would do.
    """
    first = getattr(layer, f"lora_{weight}_a", None) if getattr(layer, "lora_enabled", False) else None
    return () if first is None else (getattr(layer, f"_{weight}"), first, getattr(layer, f"lora_{weight}_b"))


def is_of_backend(cls: type) -> bool:
    """Returns whether a class is a backend's base class of all layers, such as `JaxLayer`.

    Why: `keras.layers.JaxLayer` is another class of the same name. Different names would do.
    """
    return cls.__module__.startswith("keras.src.backend.")


# Attention layers: their parts, for a wrapper or an emitter that computes them step by step. `MultiHeadAttention` has
# public properties for some parts, `GroupedQueryAttention` for none. Public properties for all parts of both, and one
# public method for each step, would do.


def projection(layer: keras.layers.Layer, name: str) -> keras.layers.EinsumDense | None:
    """Returns a projection of a built attention layer; `None` if the layer has no projection of this name.

    Args:
        layer: a `MultiHeadAttention` or `GroupedQueryAttention`.
        name: "query", "key", "value", "gate" or "output".

    Why: its kernel is quantized and exported. `MultiHeadAttention.query_dense` and others are public; "gate" is not.
    """
    return getattr(layer, f"_{name}_dense", None)


def score_scale(layer: keras.layers.Layer) -> float:
    """Returns the factor of the products of queries and keys in an attention layer: 1 / sqrt(head size).

    Why: a subclass can set another factor, so it is not computed from `key_dim`.
    """
    grouped = isinstance(layer, keras.layers.GroupQueryAttention)
    return layer._inverse_sqrt_head_dim if grouped else layer._inverse_sqrt_key_dim


def score_equation(layer: keras.layers.Layer) -> str:
    """Returns the einsum equation of keys and queries of a built attention layer (grouped: of queries and keys).

    Why: it depends on the attended axes.
    """
    return layer._dot_product_equation


def value_equation(layer: keras.layers.Layer) -> str:
    """Returns the einsum equation of probabilities and values of a built attention layer.

    Why: it depends on the attended axes.
    """
    return layer._combine_equation


def is_convolutional(cell: Any) -> bool:
    """Returns whether a recurrent cell is the cell of ConvLSTM1D, 2D or 3D.

    Why: what it computes with its two kernels is known. Keras has no public name for its class.
    """
    return type(cell) is ConvLSTMCell


def sliding_window(layer: keras.layers.Layer) -> int | None:
    """Returns the number of neighbours that a query attends to; `None` for all, or if Keras lacks this option.

    Why: the exported mask includes it. The public `get_config()` has it, but a subclass may leave it out.
    """
    return getattr(layer, "_sliding_window", getattr(layer, "sliding_window", None))


def merged_mask(layer: keras.layers.Layer, query: Any, value: Any, **masks: Any) -> Any:
    """Returns the masks of an attention layer merged into one, which query attends to which value; `None` for none.

    Args:
        layer: a `MultiHeadAttention` or `GroupedQueryAttention`.
        query, value: the inputs of the layer.
        **masks: `query_mask`, `value_mask`, `key_mask`, `attention_mask`, `use_causal_mask`, as in the layer's `call`.

    Why: the quantized layer applies the same masks.
    """
    return layer._compute_attention_mask(query, value, **masks)


def masked_softmax(layer: keras.layers.Layer, scores: Any, mask: Any) -> Any:
    """Returns the probabilities of the scores in a built attention layer, zero where `mask` is false.

    Why: the axes of the softmax and the layout of the mask depend on the attended axes.
    """
    return layer._masked_softmax(scores, mask)


def softmax_layer(layer: keras.layers.Layer) -> keras.layers.Softmax:
    """Returns the softmax layer of a built attention layer.

    Why: its axes depend on the attended axes.
    """
    return layer._softmax


def dropout_layer(layer: keras.layers.Layer) -> keras.layers.Dropout:
    """Returns the layer that drops probabilities in a built attention layer.

    Why: it holds the random state.
    """
    return layer._dropout_layer


def attention_scores(layer: keras.layers.Attention, query: Any, key: Any) -> Any:
    """Returns the scores of queries and keys in `Attention` and `AdditiveAttention`, before mask and softmax.

    Why: the quantized layer quantizes the probabilities, so it computes the steps before them.
    """
    return layer._calculate_scores(query, key)


@contextlib.contextmanager
def with_changed_values(layer: keras.layers.Attention, change: Callable[[Any], Any]) -> Iterator[None]:
    """Within this context, the layer multiplies `change` of its values, and returns `change` of its scores.

    Why: the converter to LiteRT rounds these tensors where it knows them for what they are.
    """

    def apply(scores: Any, value: Any, **kwargs: Any) -> Any:
        outputs, weights = type(layer)._apply_scores(layer, scores, change(value), **kwargs)
        return outputs, change(weights)

    layer._apply_scores = apply
    try:
        yield
    finally:
        vars(layer).pop("_apply_scores", None)


def score_mask(layer: keras.layers.Attention, scores: Any, value_mask: Any, use_causal_mask: bool) -> Any:
    """Returns the mask that `keras.layers.Attention` applies to its scores; `None` without masks.

    Why: the quantized layer applies the same masks.
    """
    return layer._calculate_score_mask(scores, value_mask, use_causal_mask)


# The backend.


def without_autocast() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which variables keep their stored dtype, also under a mixed-precision policy.

    Why: weights are rounded in their stored dtype, not in the compute dtype. A public form of this scope would do.
    """
    return AutocastScope(None)


def autocasting(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which layers read their float variables as `dtype`, unless their policy has another one.

    Why: a layer whose variables have 16 bits is computed in float32 for a comparison. Its policy alone does not cast
    the variables: a layer casts them only if its policy is mixed. A public context of this kind would do.
    """
    return AutocastScope(dtype)


def current_stateless_scope() -> keras.StatelessScope | None:
    """Returns the innermost `keras.StatelessScope` that is entered; `None` if there is none.

    Why: an inner scope hides the outer scope, which must get the losses. The class is public, the current scope is not.
    """
    return get_stateless_scope() if in_stateless_scope() else None


def keras_mask(tensor: Any) -> Any:
    """Returns the mask that Keras has attached to a tensor; `None` if there is none.

    Why: `MultiHeadAttention` uses this mask, and ignores `query_mask`. A public getter would do.
    """
    return get_keras_mask(tensor)


def remove_keras_mask(tensor: Any) -> None:
    """Removes the mask from a tensor.

    Why: `MultiHeadAttention` does so, which changes the layers that read the tensor later. A public setter would do.
    """
    set_keras_mask(tensor, None)


def set_mask(tensor: Any, mask: Any) -> Any:
    """Returns a tensor with a mask attached; without one, if `mask` is `None`.

    Why: a layer that stands for another attaches the other's mask.
    """
    if mask is not None:
        set_keras_mask(tensor, mask)
    else:
        remove_keras_mask(tensor)
    return tensor


# Training, data and saving.


def keeping_mask(before: Any, after: Any) -> Any:
    """Returns `after`, with the mask of `before` if that tensor has one.

    Why: an operation between two layers hides the mask that Keras attached to a tensor.
    """
    if (mask := get_keras_mask(before)) is not None:
        set_keras_mask(after, mask)
    return after


def hand_on_masks(layer: keras.layers.Layer, inputs: Any, outputs: Any) -> None:
    """Attaches the masks that `layer` computes from the masks of its inputs to its outputs, as calling it does.

    Why: a function that computes a layer in its place has to do the same.
    """
    masks = keras.tree.map_structure(get_keras_mask, inputs)
    if layer.supports_masking and any(mask is not None for mask in keras.tree.flatten(masks)):
        layer._set_mask_metadata(inputs, outputs, masks)


def compile_arguments(model: keras.Model) -> dict[str, Any] | None:
    """Returns the arguments of `compile` as objects; `None` if the model is not compiled, or Keras did not keep them.

    Why: a copy of the model is compiled with the same arguments. The public `get_compile_config` serializes them, which
    loses custom functions.
    """
    config = getattr(model, "_compile_config", None)
    return None if config is None else dict(config.config)


def data_adapter(data: Any, batch_size: int | None) -> Any:
    """Returns an adapter of any data that `Model.predict` takes, with `num_batches` and `get_numpy_iterator()`.

    `num_batches` is `None` if it is unknown.

    Why: `calibrate` takes the same data as `predict`, and runs one batch at a time. A public form would do.
    """
    return get_data_adapter(data, batch_size=batch_size)


def trusting_configs() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which `from_config` can load code from a config, which `Lambda` layers need.

    Why: the config was made in this process, so its code is trusted. The public
    `keras.config.enable_unsafe_deserialization` lasts for the rest of the process.
    """
    return SafeModeScope(False)
