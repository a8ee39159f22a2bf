"""`BaseQuantizeWrapper` and its two kinds: the extension point for layers."""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any, ClassVar

import keras
from keras import ops, tree

from tensorflow_quantization.model.keras_classes import is_of_package, keras_class_names, resolve_alias, stands_for
from tensorflow_quantization.model.keras_internals import current_stateless_scope, sublayers, without_autocast
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme, WeightQuantizer
from tensorflow_quantization.quantizers.activation import check_ranges
from tensorflow_quantization.wrappers.bias import add_to_channels, integer_bias
from tensorflow_quantization.wrappers.keras2 import Keras2Attribute

_SUFFIX = "QuantizeWrapper"
_PACKAGE = "tensorflow_quantization"


class BaseQuantizeWrapper(keras.layers.Wrapper):
    """Wraps a layer so that its inputs, weights or output are fake-quantized.

    A subclass named `<LayerClass>QuantizeWrapper` registers itself by existing: in `CHILD_WRAPPERS`, from where
    `quantize_model` takes the wrapper of a `<LayerClass>`, and with Keras, so that saved models load. `<LayerClass>` is
    the name of a class of Keras, an alias of it (`MaxPool2D`), or the name of a class of yours.

    Args:
        layer: the Keras layer to wrap, built or not.
        quantize_inputs: fake-quantize the inputs.
        quantize_weights: fake-quantize the kernels.
        quantize_specific_input_indices: which inputs of a layer with several; `None` means all. Setting it quantizes
            these inputs even with `quantize_inputs=False`.
        input_scheme, weight_scheme: `QuantizationScheme` of activations and weights (the axis of the latter is
            replaced by the kernel's own); 8 bits, signed, symmetric, narrow range by default.
        output_scheme: `QuantizationScheme` of the output, which is fake-quantized only if one is given.
        one_scale: fake-quantize the output too, with the range of the only input, for runtimes whose kernel leaves the
            scale as it is.
        ranges: how activation ranges follow training: "ema", "last" or "learned".
        frozen: activation ranges stay as they are.
        target: the name of the runtime that the model is quantized for, which its export then suits.
        bias_input: the layer whose quantizer scales the only input, where the wrapper itself does not quantize it: its
            name, or its path through nested models. The bias is rounded to steps of this scale times the weights'.
        normalization: the name of the BatchNormalization that an integer kernel computes along with this layer, and
            whose shift is then part of the rounded bias.
        reasons: what `quantize_model` decided, for `describe`: {path: {"code": ..., "text": ...}}, of this layer and
            maybe of layers that it left alone.
        **kwargs: those of `keras.layers.Layer`; the name is `quant_<layer name>` by default.
    """

    #: Wrapper class name to wrapper class.
    CHILD_WRAPPERS: ClassVar[dict[str, type[BaseQuantizeWrapper]]] = {}

    #: Weight attributes of the inner layer that are fake-quantized; a subclass with a kernel sets it.
    kernel_type: str | tuple[str, ...] = ()
    channel_axis: int | tuple[int, ...] | None = None

    # Wrappers for Keras 2 assign the first in `build` and call the second in `call`.
    _weight_vars = Keras2Attribute()
    _last_value_quantizer = Keras2Attribute()

    def __init_subclass__(cls, registers: bool = True, **kwargs):
        super().__init_subclass__(**kwargs)
        if not registers:
            return
        if is_of_package(cls):
            keras.saving.register_keras_serializable(package=_PACKAGE)(cls)
        else:
            keras.saving.register_keras_serializable()(cls)
        if not cls.__name__.endswith(f"Base{_SUFFIX}"):
            BaseQuantizeWrapper.CHILD_WRAPPERS[cls.__name__] = cls
            # Named after an alias of Keras, MaxPool2D for example, it is for the class that Keras has under it.
            wrapped = resolve_alias(cls.__name__.removesuffix(_SUFFIX))
            BaseQuantizeWrapper.CHILD_WRAPPERS[f"{wrapped}{_SUFFIX}"] = cls

    @classmethod
    def suits(cls, layer: keras.layers.Layer) -> bool:
        """Whether it can wrap a layer of the class that it is named after, or of a subclass."""
        return True

    def __init__(
        self,
        layer: keras.layers.Layer,
        quantize_inputs: bool = True,
        quantize_weights: bool = True,
        quantize_specific_input_indices: list[int] | None = None,
        *,
        input_scheme: QuantizationScheme | dict | None = None,
        weight_scheme: QuantizationScheme | dict | None = None,
        output_scheme: QuantizationScheme | dict | None = None,
        one_scale: bool = False,
        ranges: str = "ema",
        frozen: bool = False,
        target: str | None = None,
        bias_input: str | None = None,
        normalization: str | None = None,
        reasons: dict[str, dict[str, str]] | None = None,
        **kwargs,
    ):
        kwargs.setdefault("name", f"quant_{layer.name}")
        kwargs.setdefault("dtype", layer.dtype_policy)
        kwargs.setdefault("trainable", layer.trainable)
        super().__init__(layer, **kwargs)
        self.quantize_inputs = quantize_inputs
        self.quantize_weights = quantize_weights
        self.quantize_specific_input_indices = quantize_specific_input_indices
        self.input_scheme = QuantizationScheme.from_config(input_scheme or QuantizationScheme())
        self.weight_scheme = QuantizationScheme.from_config(weight_scheme or QuantizationScheme())
        self.output_scheme = QuantizationScheme.from_config(output_scheme) if output_scheme else None
        self.one_scale = one_scale
        self.ranges = check_ranges(ranges)
        self._frozen = frozen
        self.target = target
        self.bias_input = bias_input
        self.normalization = normalization
        self.reasons = dict(reasons or {})
        self.supports_masking = layer.supports_masking
        # One an input of the layer, None where it is not quantized; known once the number of inputs is.
        self.input_quantizers: list[ActivationQuantizer | None] = []
        self.weight_quantizers: dict[str, WeightQuantizer] = {}
        self.output_quantizer: ActivationQuantizer | None = None
        # Wrappers of layers within the layer, by name; a subclass that has some fills it when it is built.
        self.parts: dict[str, BaseQuantizeWrapper] = {}

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of the inner layer's weight attributes that this wrapper can quantize."""
        names = (self.kernel_type,) if isinstance(self.kernel_type, str) else tuple(self.kernel_type)
        # Keras 3 calls a depthwise convolution's only kernel "kernel"; the documented name is the one of Keras 2.
        renamed = {"depthwise_kernel": "kernel"} if "DepthwiseConv" in _classes(self.layer) else {}
        return tuple(renamed.get(name, name) for name in names)

    @property
    def activation_quantizers(self) -> list[ActivationQuantizer]:
        """The quantizers that hold a range: those of the inputs, those within the layer, that of the output."""
        of_parts = [quantizer for part in self.parts.values() for quantizer in part.activation_quantizers]
        quantizers = [*self.input_quantizers, *of_parts, *self._inner_quantizers(), self.output_quantizer]
        return [quantizer for quantizer in quantizers if quantizer is not None]

    @property
    def frozen(self) -> bool:
        """Whether the activation ranges stay as they are while training; settable."""
        quantizers = self.activation_quantizers
        return all(q.frozen for q in quantizers) if quantizers else self._frozen

    @frozen.setter
    def frozen(self, value: bool) -> None:
        self._frozen = value
        for quantizer in self.activation_quantizers:
            quantizer.frozen = value

    def build(self, input_shape=None):
        """Builds the layer and its quantizers. `input_shape` is a shape, or a list of them for several inputs."""
        super().build(input_shape)
        self._build_input_quantizers(len(tree.flatten(tree.map_shape_structure(lambda shape: 0, input_shape))))
        if self.quantize_weights:
            for kernel in self.kernels:
                axis = self._kernel_axis(kernel)
                scheme = QuantizationScheme(**{**self.weight_scheme.get_config(), "axis": axis})
                self.weight_quantizers[kernel] = WeightQuantizer(scheme, name=f"{kernel}_quantizer")
        if self.one_scale:
            if len(self.input_quantizers) != 1 or self.input_quantizers[0] is None:
                raise ValueError(f"one_scale is for layers with one input, which is quantized; {self.name!r} is none.")
            (same,) = self.input_quantizers
            self.output_quantizer = self._activation_quantizer(self.input_scheme, "output_quantizer", same_as=same)
        elif self.output_scheme is not None:
            self.output_quantizer = self._activation_quantizer(self.output_scheme, "output_quantizer")
        self.built = True

    def _inner_quantizers(self) -> list[ActivationQuantizer]:
        """The quantizers of what flows between the parts of the layer; a subclass that has some overrides this."""
        return []

    def _build_input_quantizers(self, inputs: int) -> None:
        if self.quantize_specific_input_indices is not None:
            chosen = list(self.quantize_specific_input_indices)
        else:
            chosen = list(range(inputs)) if self.quantize_inputs else []
        for index in range(inputs):
            name = "input_quantizer" if inputs == 1 else f"input_{index}_quantizer"
            self.input_quantizers.append(
                self._activation_quantizer(self.input_scheme, name) if index in chosen else None
            )

    def _activation_quantizer(self, scheme: QuantizationScheme, name: str, **kwargs) -> ActivationQuantizer:
        return ActivationQuantizer(scheme, self.ranges, self._frozen, name=name, trainable=self.trainable, **kwargs)

    def _kernel_axis(self, kernel: str) -> tuple[int, ...]:
        if self.channel_axis is None or isinstance(self.kernel_type, tuple):
            return output_channel_axis(self.layer, kernel)
        return (self.channel_axis,) if isinstance(self.channel_axis, int) else tuple(self.channel_axis)

    def call(self, inputs, training=None, **kwargs):
        """Fake-quantizes inputs and kernels, calls the layer, fake-quantizes its output."""
        outputs = self._call_layer(self._quantize_inputs(inputs, training), training, **kwargs)
        if self.output_quantizer is not None:
            outputs = self.output_quantizer(outputs, training=training)
        return outputs

    def _quantize_inputs(self, inputs, training):
        flat = tree.flatten(inputs)
        quantized = [
            x if quantizer is None else quantizer(x, training=training)
            for x, quantizer in zip(flat, self.input_quantizers, strict=True)
        ]
        return tree.pack_sequence_as(inputs, quantized)

    def _call_layer(self, inputs, training, **kwargs):
        """Calls the layer with its kernels and bias replaced by what an integer kernel holds.

        The layer itself has `training` from the call around it, if it takes it.
        """
        if not self.weight_quantizers:
            return self.layer(inputs, **kwargs)
        with without_autocast():  # the scope takes values in the dtype of the variables
            values = {id(v): ops.convert_to_tensor(v) for v in self.layer.variables}
            bias = None if training else integer_bias(self)
            for kernel, quantizer in self.weight_quantizers.items():
                key = id(getattr(self.layer, kernel))
                values[key] = quantizer(values[key])
        own_bias = getattr(self.layer, "bias", None)
        if bias is not None and own_bias is not None:
            values[id(own_bias)] = bias
        # A scope hides the one around it (a training step of JAX is one), so it gets all variables of the layer, and
        # what the layer assigned or lost within is handed on afterwards.
        mapping = [(v, values[id(v)]) for v in self.layer.variables]
        with keras.StatelessScope(mapping, collect_losses=True, initialize_variables=False) as scope:
            before = {id(v): scope.get_current_value(v) for v in self.layer.variables}
            outputs = self.layer(inputs, **kwargs)
        for variable in self.layer.variables:
            value = scope.get_current_value(variable)
            if value is not before[id(variable)]:
                variable.assign(value)
        outer = current_stateless_scope()
        if outer is None:
            self.add_loss(scope.losses)
        elif outer.collect_losses:
            # The layers that added them know them by identity: added here too, they would count twice.
            outer.losses.extend(scope.losses)
        return outputs if bias is None or own_bias is not None else add_to_channels(self, outputs, bias)

    def compute_output_spec(self, inputs, training=None, **kwargs):
        """That of the layer: quantization changes neither shape nor dtype."""
        return self.layer.compute_output_spec(inputs, **kwargs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def get_config(self):
        config = super().get_config()
        config.update(
            quantize_inputs=self.quantize_inputs,
            quantize_weights=self.quantize_weights,
            quantize_specific_input_indices=self.quantize_specific_input_indices,
            input_scheme=self.input_scheme.get_config(),
            weight_scheme=self.weight_scheme.get_config(),
            output_scheme=self.output_scheme.get_config() if self.output_scheme else None,
            one_scale=self.one_scale,
            ranges=self.ranges,
            frozen=self.frozen,
            target=self.target,
            bias_input=self.bias_input,
            normalization=self.normalization,
            reasons={path: dict(reason) for path, reason in self.reasons.items()},
        )
        return config


class WeightedBaseQuantizeWrapper(BaseQuantizeWrapper):
    """Base class for layers with a kernel.

    Args:
        layer: the layer to wrap.
        kernel_type: the name of the layer's kernel attribute, or a tuple of names.
        **kwargs: those of `BaseQuantizeWrapper`.

    Attributes:
        channel_axis: the kernel axis (or axes) of the output channels, one scale an index of it. A subclass may set it
            before or after `super().__init__`; by default it is known for every convolution, and -1 elsewhere.
    """

    def __init__(self, layer: keras.layers.Layer, kernel_type: str | tuple[str, ...] = "kernel", **kwargs):
        super().__init__(layer, **kwargs)
        self.kernel_type = kernel_type
        if self.channel_axis is None:
            axis = output_channel_axis(layer, self.kernels[0])
            self.channel_axis = axis[0] if len(axis) == 1 else axis

    def get_config(self):
        config = super().get_config()
        # A subclass that fixes the kernel in its own __init__ does not take it as an argument.
        if "kernel_type" in inspect.signature(type(self).__init__).parameters:
            config["kernel_type"] = self.kernel_type
        return config


class NonWeightedBaseQuantizeWrapper(BaseQuantizeWrapper):
    """Base class for layers without a kernel: only inputs (and the output) are quantized.

    It also wraps a layer whose class has no wrapper of its own. The class of the wrapper is then named after the class
    of the layer, as `model.summary()` prints it, but is saved and loaded as this class.
    """

    def __new__(cls, layer, *args, **kwargs):
        if cls is NonWeightedBaseQuantizeWrapper:
            cls = _named_after(type(layer).__name__)
        return super().__new__(cls, layer, *args, **kwargs)

    def __init__(self, layer: keras.layers.Layer, **kwargs):
        kwargs["quantize_weights"] = False
        super().__init__(layer, **kwargs)


@functools.cache
def _named_after(layer_class: str) -> type[NonWeightedBaseQuantizeWrapper]:
    """The same class as `NonWeightedBaseQuantizeWrapper`, under another name."""
    base = NonWeightedBaseQuantizeWrapper
    named = types.new_class(f"{layer_class}{_SUFFIX}", (base,), {"registers": False})
    named.__module__ = base.__module__
    # A new process does not know the new class. Both have the registered name of the base class, under which Keras
    # saves either, and which stands for the base class, registered last, when a file is loaded.
    for cls in (named, base):
        keras.saving.register_keras_serializable(package=_PACKAGE, name=base.__name__)(cls)
    return named


def find_wrapper(layer: Any) -> type[BaseQuantizeWrapper] | None:
    """The registered wrapper of a layer's class, or of the nearest base class that has one.

    A wrapper of the package is for Keras' own class of the name only, one of the user's for every class of the name.
    """
    for base in type(layer).__mro__:
        wrapper = BaseQuantizeWrapper.CHILD_WRAPPERS.get(f"{base.__name__}{_SUFFIX}")
        if wrapper is not None and stands_for(wrapper, base) and wrapper.suits(layer):
            return wrapper
    return None


def activation_quantizers(operation: Any) -> list[ActivationQuantizer]:
    """The quantizers with a range that a layer holds, or is: of a wrapper, of a quantizer itself, else none."""
    if isinstance(operation, ActivationQuantizer):
        return [operation]
    return operation.activation_quantizers if isinstance(operation, BaseQuantizeWrapper) else []


def inner_layer(operation: Any) -> Any:
    """The layer in a wrapper; every other operation is it itself."""
    return operation.layer if isinstance(operation, BaseQuantizeWrapper) else operation


def wrappers_in(operation: Any) -> list[BaseQuantizeWrapper]:
    """The wrapper that an operation is, and those that it holds."""
    layers = (operation, *sublayers(operation)) if isinstance(operation, keras.layers.Layer) else ()
    return [layer for layer in layers if isinstance(layer, BaseQuantizeWrapper)]


def output_channel_axis(layer: keras.layers.Layer, kernel: str) -> tuple[int, ...]:
    """The axes of a kernel that belong to output channels, counted from its end.

    Depthwise kernels are (…, input channels, multiplier) and have input channels x multiplier outputs; transposed ones
    are (…, output channels, input channels); EinsumDense names its axes; every other kernel ends in the outputs.
    """
    classes = _classes(layer)
    if kernel == "depthwise_kernel" or "DepthwiseConv" in classes:
        return (-2, -1)
    if "Transpose" in classes:
        return (-2,)
    if isinstance(layer, keras.layers.EinsumDense):
        operands, output = layer.equation.replace(" ", "").replace("...", "").split("->")
        inputs, weights = operands.split(",")
        return tuple(i - len(weights) for i, axis in enumerate(weights) if axis in output and axis not in inputs)
    return (-1,)


def _classes(layer: keras.layers.Layer) -> str:
    return " ".join(keras_class_names(type(layer)))
