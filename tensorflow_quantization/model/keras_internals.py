"""All that this package needs of Keras and that has no public name.

No other module imports `keras.src` or reads an attribute of Keras that begins with `_`, so a new version of Keras can
only break this one. Each entry says why it is needed and which public API would replace it.
`tests/model/test_keras_internals.py` checks each entry on the installed Keras, and the rule on the package's source.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend import (
    AutocastScope,
    get_keras_mask,
    get_stateless_scope,
    in_stateless_scope,
    set_keras_mask,
)
from keras.src.backend.common import global_state
from keras.src.layers.layer import CallContext
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.ops.numpy import Reshape
from keras.src.random.seed_generator import global_seed_generator
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.trainers.data_adapters import get_data_adapter

# The graph of a model.

_CALL_CONTEXT = "current_call_ctx"
_NAME_COUNTERS = "object_name_uids"


def is_functional(model: keras.Model) -> bool:
    """Whether a model is made of inputs and outputs, and calls nothing but the layers between them.

    Why: such a model has its graph already, another one is traced. `keras.Functional` as a public class would do.
    """
    return isinstance(model, Functional) and type(model).call is Functional.call


def functional_of(model: keras.Sequential) -> keras.Model | None:
    """The functional model in a Sequential one; `None` if the input shape is not known yet.

    Why: it holds the graph. A public `Sequential.functional` would do.
    """
    return getattr(model, "_functional", None)


def nodes_in_order(functional: keras.Model) -> Iterator[Any]:
    """The calls that a functional model makes, each after those whose outputs it reads.

    A node has `operation`, `arguments`, `input_tensors`, `outputs` and `is_input`, all of them public.
    Why: they are the model's graph. Public is only `operations`, without the arguments of each call; a public `nodes`
    would do.
    """
    by_depth = functional._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from by_depth[depth]


def nodes_of(operation: keras.Operation) -> list[Any]:
    """The calls of an operation on symbolic tensors, see `nodes_in_order`, the first call first.

    Why: `Operation.input` and `output` show the first call only. A public `Operation.nodes` would do.
    """
    return list(operation._inbound_nodes)


def reading_nodes(operation: keras.Operation) -> list[Any]:
    """The calls of other operations that read an output of this one, see `nodes_in_order`.

    Why: a layer's neighbours decide how it is rounded. Public is no way from a layer to its readers.
    """
    return list(operation._outbound_nodes)


def origin(tensor: keras.KerasTensor) -> Any:
    """Where a symbolic tensor comes from: a named tuple of `operation`, `node_index` and `tensor_index`.

    The tensor is output `tensor_index` of `nodes_of(operation)[node_index]`.

    Why: a tensor's neighbours decide how it is rounded. A public `KerasTensor.history` would do.
    """
    return tensor._keras_history


@contextlib.contextmanager
def removing_nodes(layer: keras.layers.Layer) -> Iterator[None]:
    """Removes the nodes that calls within the context add to the layers in a layer or model.

    Why: tracing calls the user's layers, which must stay as they were. Calls that leave no nodes would do.
    """
    counts = [(x, len(x._inbound_nodes), len(x._outbound_nodes)) for x in sublayers(layer)]
    try:
        yield
    finally:
        for inner, inbound, outbound in counts:
            del inner._inbound_nodes[inbound:], inner._outbound_nodes[outbound:]


def takes_inputs_and_outputs(cls: type) -> bool:
    """Whether the constructor of a model class can be called as `keras.Model(inputs, outputs, **kwargs)`.

    Why: only then can a copy of a model have the class of the original. `keras.models.clone_model` asks the same
    question, but not in public.
    """
    return functional_like_constructor(cls)


# Tracing.


@contextlib.contextmanager
def calling(layer: keras.layers.Layer, training: bool | None) -> Iterator[None]:
    """Runs as if within a call of `layer`: layers called without `training` take the value given here.

    Why: `layer.call` is traced rather than `layer`, whose `__call__` would add nodes. A public scope for `training`
    would do.
    """
    before = global_state.get_global_attribute(_CALL_CONTEXT)
    context = CallContext(entry_layer=layer)
    context.training = training
    global_state.set_global_attribute(_CALL_CONTEXT, context)
    try:
        yield
    finally:
        global_state.set_global_attribute(_CALL_CONTEXT, before)


def name_counters() -> collections.defaultdict[str, int]:
    """How many layers and operations of each name Keras has made so far: the next name's number. Can be changed.

    Why: what is traced twice must get the same names. Public is only `clear_session`, which forgets more than the
    counters; a public name scope would do.
    """
    return global_state.get_global_attribute(_NAME_COUNTERS, collections.defaultdict(int), set_to_default=True)


def global_random_state() -> keras.Variable:
    """The state of the random numbers of layers and operations without a seed generator of their own.

    Why: what changes it while it is traced cannot be written to a file. Public is only `set_random_seed`.
    """
    return global_seed_generator().state


#: The operation of `keras.ops.reshape`. Why: the shape in it is corrected after tracing. Public is only the function;
#: classes of operations in `keras.ops` would do.
ReshapeOperation = Reshape


# Layers.


def sublayers(layer: keras.layers.Layer, recursive: bool = True) -> list[Any]:
    """The layers that a layer or model holds, without itself, each once.

    Args:
        layer: any layer.
        recursive: also the layers within these layers, each after the layer that holds it.

    Why: only a model has a public list (`Model.layers`), and not of all depths. `Layer.layers` would do.
    """
    return layer._flatten_layers(include_self=False, recursive=recursive)


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights of a layer that none of the layers in it made; no states of metrics and random seeds.

    Why: a layer that only calls others can be replaced by them. Public is only `Layer.weights`, with all weights below.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def built_shapes(layer: keras.layers.Layer) -> dict[str, Any] | None:
    """The shapes that a layer or model was built with, by the names of `build`'s parameters; `None` if it is not built.

    Why: a subclassed model is traced on inputs of these shapes. The public `get_build_config` leaves out the keys of a
    dict of shapes, and turns a list of shapes into a tuple.
    """
    return getattr(layer, "_build_shapes_dict", None)


def is_of_backend(cls: type) -> bool:
    """Whether a class is a base that a backend adds to all layers, as `JaxLayer` is.

    Why: it must not be taken for `keras.layers.JaxLayer`, a layer of the same name. Different names would do.
    """
    return cls.__module__.startswith("keras.src.backend.")


# Attention layers: their parts, for a wrapper or an emitter that computes step by step what they compute at once.
# `MultiHeadAttention` has public properties for some parts, `GroupedQueryAttention` for none; public properties for all
# parts of both, and a method a step, would do.


def projection(layer: keras.layers.Layer, name: str) -> keras.layers.EinsumDense | None:
    """A projection of a built attention layer; `None` if it has none of this name.

    Args:
        layer: a `MultiHeadAttention` or `GroupedQueryAttention`.
        name: "query", "key", "value", "gate" or "output".

    Why: its kernel is quantized, and written to the file. Public are `MultiHeadAttention.query_dense` and so on, but no
    "gate".
    """
    return getattr(layer, f"_{name}_dense", None)


def score_scale(layer: keras.layers.Layer) -> float:
    """What an attention layer multiplies the products of queries and keys by: one over the root of the head's size.

    Why: read, and not computed from `key_dim`, since a subclass may choose another one.
    """
    grouped = isinstance(layer, keras.layers.GroupQueryAttention)
    return layer._inverse_sqrt_head_dim if grouped else layer._inverse_sqrt_key_dim


def score_equation(layer: keras.layers.Layer) -> str:
    """The einsum of keys and queries (grouped: queries and keys) of a built attention layer.

    Why: it depends on the attended axes.
    """
    return layer._dot_product_equation


def value_equation(layer: keras.layers.Layer) -> str:
    """The einsum of probabilities and values of a built attention layer.

    Why: as `score_equation`.
    """
    return layer._combine_equation


def sliding_window(layer: keras.layers.Layer) -> int | None:
    """How many neighbours a query of an attention layer sees; `None` for all, also in a Keras without this option.

    Why: the exported mask heeds it. Public is only its entry in `get_config()`, which a subclass may leave out.
    """
    return getattr(layer, "_sliding_window", getattr(layer, "sliding_window", None))


def merged_mask(layer: keras.layers.Layer, query: Any, value: Any, **masks: Any) -> Any:
    """The one mask that an attention layer merges all its masks into: which query sees which value; `None` for all.

    Args:
        layer: a `MultiHeadAttention` or `GroupedQueryAttention`.
        query, value: the inputs of the layer.
        **masks: `query_mask`, `value_mask`, `key_mask`, `attention_mask`, `use_causal_mask`, as in the layer's `call`.

    Why: the quantized layer heeds the same masks.
    """
    return layer._compute_attention_mask(query, value, **masks)


def masked_softmax(layer: keras.layers.Layer, scores: Any, mask: Any) -> Any:
    """The probabilities of the scores in a built attention layer, zero where `mask` is false.

    Why: the axes of the softmax and the layout of the mask depend on the attended axes.
    """
    return layer._masked_softmax(scores, mask)


def softmax_layer(layer: keras.layers.Layer) -> keras.layers.Softmax:
    """The softmax of a built attention layer.

    Why: it knows the axes.
    """
    return layer._softmax


def dropout_layer(layer: keras.layers.Layer) -> keras.layers.Dropout:
    """The dropout of the probabilities in a built attention layer.

    Why: it holds the random state.
    """
    return layer._dropout_layer


def dot_scores(layer: keras.layers.Attention, query: Any, key: Any) -> Any:
    """The scores of queries and keys in `keras.layers.Attention`, before mask and softmax.

    Why: the quantized layer rounds what follows them.
    """
    return layer._calculate_scores(query, key)


def score_mask(layer: keras.layers.Attention, scores: Any, value_mask: Any, use_causal_mask: bool) -> Any:
    """The mask that `keras.layers.Attention` applies to its scores; `None` if all count.

    Why: the quantized layer heeds the same masks.
    """
    return layer._calculate_score_mask(scores, value_mask, use_causal_mask)


# The backend.


def without_autocast() -> contextlib.AbstractContextManager[Any]:
    """A context in which variables have the dtype that they are stored in, also under a mixed-precision policy.

    Why: weights are rounded as they are stored, not as a layer computes. A public form of this scope would do.
    """
    return AutocastScope(None)


def current_stateless_scope() -> keras.StatelessScope | None:
    """The innermost `keras.StatelessScope`; `None` outside of all.

    Why: a scope hides the outer one, which must get the losses. The class is public, but not what is entered.
    """
    return get_stateless_scope() if in_stateless_scope() else None


def keras_mask(tensor: Any) -> Any:
    """The mask that Keras has attached to a tensor; `None` if it has none.

    Why: `MultiHeadAttention` heeds it, and not its argument. Public is only the `mask` argument of `call`.
    """
    return get_keras_mask(tensor)


def remove_keras_mask(tensor: Any) -> None:
    """Takes the mask off a tensor.

    Why: `MultiHeadAttention` does, and layers that read the tensor later notice.
    """
    set_keras_mask(tensor, None)


# Training, data and saving.


def compile_arguments(model: keras.Model) -> dict[str, Any] | None:
    """What `compile` was called with, as objects; `None` if nobody called it, or if Keras does not know.

    Why: a copy of the model is compiled alike. The public `get_compile_config` serializes, which loses functions of the
    user's own.
    """
    config = getattr(model, "_compile_config", None)
    return None if config is None else dict(config.config)


def data_adapter(data: Any, batch_size: int | None) -> Any:
    """Batches of anything that `Model.predict` takes, with `num_batches` (maybe `None`) and `get_numpy_iterator()`.

    Why: `calibrate` takes what `predict` takes, and sees the batches one by one. A public function for this would do.
    """
    return get_data_adapter(data, batch_size=batch_size)


def trusting_configs() -> contextlib.AbstractContextManager[Any]:
    """A context in which `from_config` may make functions of code in a config, as `Lambda` layers have it.

    Why: the code is the user's, from this very process. Public is only `keras.config.enable_unsafe_deserialization`,
    which lasts as long as the process.
    """
    return SafeModeScope(False)
