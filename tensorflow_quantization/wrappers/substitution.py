"""`call_with`: calls the layer in a wrapper with other values in place of some of its variables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from tensorflow_quantization.model.keras_internals import current_stateless_scope, without_autocast


def call_with(
    wrapper: keras.layers.Wrapper,
    variables: list[keras.Variable],
    values: Iterable[tuple[keras.Variable, Any]],
    inputs: Any,
    **kwargs,
) -> Any:
    """Returns the outputs of the layer in `wrapper`, computed with `values` in place of some variables.

    Args:
        wrapper: holds the layer, and gets the losses of the call.
        variables: all variables that a call of the layer reads or assigns.
        values: pairs of a variable and its value, in the dtype of the variable.
        inputs: the inputs of the layer.
        **kwargs: other arguments of the call.
    """
    with without_autocast():  # a StatelessScope needs values in the dtype of the variables
        current = {id(v): ops.convert_to_tensor(v) for v in variables}
    current.update((id(variable), value) for variable, value in values)
    # The scope hides an outer scope, such as a training step of JAX. So it gets the values of all variables of the
    # layer, and the layer's assignments and losses are copied to the outer scope below.
    mapping = [(v, current[id(v)]) for v in variables]
    with keras.StatelessScope(mapping, collect_losses=True, initialize_variables=False) as scope:
        before = {id(v): scope.get_current_value(v) for v in variables}
        outputs = wrapper.layer(inputs, **kwargs)
    for variable in variables:
        value = scope.get_current_value(variable)
        if value is not before[id(variable)]:
            variable.assign(value)
    outer = current_stateless_scope()
    if outer is None:
        wrapper.add_loss(scope.losses)
    elif outer.collect_losses:
        # Not `add_loss`: the layers that added these losses still hold them, so they would count twice.
        outer.losses.extend(scope.losses)
    return outputs
