"""`BaseQuantizeWrapper`: what all wrappers share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops, tree

from tensorflow_quantization.model.activations import only_rectifies
from tensorflow_quantization.model.keras_classes import is_of_package, resolve_alias
from tensorflow_quantization.model.keras_internals import without_autocast
from tensorflow_quantization.model.weights import merged, mode_of_keras, owner_of, substitutes, variable_of
from tensorflow_quantization.quantizers import ActivationQuantizer, QuantizationScheme, WeightQuantizer
from tensorflow_quantization.quantizers.activation import check_ranges
from tensorflow_quantization.quantizers.weight import check_weight_ranges
from tensorflow_quantization.text.messages import did_you_mean
from tensorflow_quantization.wrappers.bias import add_to_channels, integer_bias
from tensorflow_quantization.wrappers.channels import is_depthwise, output_channel_axis
from tensorflow_quantization.wrappers.keras2 import Keras2Attribute
from tensorflow_quantization.wrappers.products import check_has_blocks
from tensorflow_quantization.wrappers.refusing import refuse_keras_quantize
from tensorflow_quantization.wrappers.substitution import call_with

#: A wrapper is named after the class of layers that it wraps, and this.
SUFFIX = "QuantizeWrapper"
#: The package under which Keras registers the wrappers.
PACKAGE = "tensorflow_quantization"

_PREFIX = "quant_"


def quantized_name(name: str) -> str:
    """Returns the name, in a quantized model, of what wraps the layer of this name or quantizes its output."""
    return f"{_PREFIX}{name}"


def float_name(name: str) -> str:
    """Returns the name, in the float model, of the layer of this name in a quantized one."""
    return name.removeprefix(_PREFIX)


def float_path(path: str) -> str:
    """Returns the path, in the float model, of the layer of this path in a quantized one."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{float_name(name)}"


#: The wrappers of this package by name, also where a user's wrapper of the same name hides one in `CHILD_WRAPPERS`.
WRAPPERS_OF_PACKAGE: dict[str, type[BaseQuantizeWrapper]] = {}


class BaseQuantizeWrapper(keras.layers.Wrapper):
    """Base class of all wrappers: fake-quantizes the inputs, the kernels and the output of a layer.

    To add a wrapper, define a subclass named `<LayerClass>QuantizeWrapper`; it needs no other registration.
    `quantize_model` then uses it for each `<LayerClass>`, and Keras loads saved models with it. `<LayerClass>` is the
    name of a Keras layer, an alias (`MaxPool2D`), or the name of a custom layer. If a custom layer has the name of a
    Keras layer, set `layer_class = <LayerClass>` in the wrapper: Keras' layer then keeps the wrapper of this package.
    Extend `WeightedBaseQuantizeWrapper` for a layer with a kernel, and `NonWeightedBaseQuantizeWrapper` for a layer
    without.

    Examples:
        >>> wrapper_class = BaseQuantizeWrapper.CHILD_WRAPPERS["DenseQuantizeWrapper"]
        >>> wrapper = wrapper_class(keras.layers.Dense(2, name="dense"), ranges="last")
        >>> wrapper(np.ones((1, 3), "float32")).shape == (1, 2)
        True
        >>> wrapper.name, len(wrapper.activation_quantizers), list(wrapper.weight_quantizers)
        ('quant_dense', 1, ['kernel'])

    Args:
        layer: the `keras.layers.Layer` to wrap, built or not.
        quantize_inputs: bool; quantize the inputs. Default `True`.
        quantize_weights: bool; quantize the kernels. Default `True`.
        quantize_specific_input_indices: list of ints, the inputs to quantize, counted from 0, whatever
            `quantize_inputs` says. `None` (default): `quantize_inputs` decides for all inputs.
        input_scheme: `QuantizationScheme` of the inputs, or its config. Default: signed, symmetric, narrow-range 8-bit
            integers.
        weight_scheme: `QuantizationScheme` of the kernels, or its config; the channel axis of each kernel replaces
            `axis`. Default: as `input_scheme`.
        output_scheme: `QuantizationScheme` of the output, or its config. `None` (default): the output stays float.
        one_scale: bool; quantize the output with the range of the only input, for runtimes whose kernel cannot
            requantize. It overrides `output_scheme`. Default `False`.
        ranges: how activation ranges follow training batches: "ema" (default), "last", "learned" or "learned_offset",
            see `ActivationQuantizer`.
        weight_ranges: how the ranges of the kernels follow training: "minmax" (default) or "learned", see
            `WeightQuantizer`.
        frozen: bool; training does not update activation ranges. Default `False`.
        target: the name of the runtime that the model is quantized for; the export reads it. `None` (default): any.
        bias_input: the name of the layer whose quantizer quantizes the only input, or its path through nested models,
            if this wrapper does not quantize the input itself. The bias is rounded to steps of the input scale times
            the weight scale. Default `None`.
        normalization: the name of the BatchNormalization that is folded into this layer. The rounded bias then
            includes its shift. Default `None`.
        reasons: the decisions of `quantize_model`, which `describe` reads: {path: {"code": ..., "text": ...}}. They are
            about this layer and may be about layers that stayed float. Default `None`: no decisions.
        **kwargs: arguments of `keras.layers.Layer`; `name` is `quant_<layer name>` by default, and `dtype` and
            `trainable` are taken from the layer.

    Raises:
        ValueError: `ranges` or `weight_ranges` is unknown, or Keras' own `quantize` changed the layer; or, in `build`,
            `one_scale` for a layer without exactly one quantized input.
    """

    #: All wrapper classes by name. A wrapper named after an alias has two names.
    CHILD_WRAPPERS: ClassVar[dict[str, type[BaseQuantizeWrapper]]] = {}

    #: The attribute, or attributes, of the layer that hold its kernels; a subclass with a kernel sets it.
    kernel_type: str | tuple[str, ...] = ()
    channel_axis: int | tuple[int, ...] | None = None
    #: The class of layers that a wrapper is for, if its name alone fits several; a subclass may set it.
    layer_class: ClassVar[type[keras.layers.Layer] | None] = None

    # Wrappers for Keras 2 assign `_weight_vars` in `build`, and call `_last_value_quantizer` in `call`.
    _weight_vars = Keras2Attribute()
    _last_value_quantizer = Keras2Attribute()

    def __init_subclass__(cls, registers: bool = True, **kwargs):
        super().__init_subclass__(**kwargs)
        if not registers:
            return
        if is_of_package(cls):
            keras.saving.register_keras_serializable(package=PACKAGE)(cls)
        else:
            keras.saving.register_keras_serializable()(cls)
        if not cls.__name__.endswith(f"Base{SUFFIX}"):
            BaseQuantizeWrapper.CHILD_WRAPPERS[cls.__name__] = cls
            # A wrapper named after an alias, MaxPool2D, is also found under the name of the class, MaxPooling2D.
            wrapped = resolve_alias(cls.__name__.removesuffix(SUFFIX))
            BaseQuantizeWrapper.CHILD_WRAPPERS[f"{wrapped}{SUFFIX}"] = cls
            if is_of_package(cls):
                WRAPPERS_OF_PACKAGE[f"{wrapped}{SUFFIX}"] = cls

    @classmethod
    def suits(cls, layer: keras.layers.Layer) -> bool:
        """Returns whether this class can wrap `layer`, whose class, or a base of it, this wrapper is named after."""
        return cls.layer_class is None or isinstance(layer, cls.layer_class)

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
        weight_ranges: str = "minmax",
        frozen: bool = False,
        target: str | None = None,
        bias_input: str | None = None,
        normalization: str | None = None,
        reasons: dict[str, dict[str, str]] | None = None,
        **kwargs,
    ):
        mode = mode_of_keras(layer)
        if mode is not None:
            raise ValueError(
                f"Layer {layer.name!r} is quantized already, by Keras' own quantize({mode!r}). Wrap the float layer."
            )
        kwargs.setdefault("name", quantized_name(layer.name))
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
        self.weight_ranges = check_weight_ranges(weight_ranges)
        self._frozen = frozen
        self.target = target
        self.bias_input = bias_input
        self.normalization = normalization
        self.reasons = dict(reasons or {})
        self.supports_masking = layer.supports_masking
        # `build` adds an entry for each input of the layer: None for an input that is not quantized.
        self.input_quantizers: list[ActivationQuantizer | None] = []
        self.weight_quantizers: dict[str, WeightQuantizer] = {}
        self.output_quantizer: ActivationQuantizer | None = None
        # Wrappers of the layers within the layer, by name; `build` of a subclass adds them.
        self.parts: dict[str, BaseQuantizeWrapper] = {}
        # Gets this wrapper, the name of a kernel and the tensor that the kernel multiplies, if set.
        self.product_observer: Callable[[BaseQuantizeWrapper, str, Any], None] | None = None
        # Returns the quantizer of what the layer reads, if set: of a part of another wrapper, which quantizes for it.
        self.reads: Callable[[], ActivationQuantizer | None] | None = None
        # Whether the variables of the layer hold quantized weights for a time, see `quantized_once`.
        self.is_quantized = False

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of the layer's attributes that hold the kernels, a tuple of str."""
        names = (self.kernel_type,) if isinstance(self.kernel_type, str) else tuple(self.kernel_type)
        # Keras 3 renamed the kernel of a depthwise convolution; wrappers for Keras 2 pass the old name.
        renamed = {"depthwise_kernel": "kernel"} if is_depthwise(self.layer) else {}
        return tuple(renamed.get(name, name) for name in names)

    @property
    def activation_quantizers(self) -> list[ActivationQuantizer]:
        """The activation quantizers, a list: of the inputs, within the layer, and of the output."""
        of_parts = [quantizer for part in self.parts.values() for quantizer in part.activation_quantizers]
        quantizers = [*self.input_quantizers, *of_parts, *self._inner_quantizers(), self.output_quantizer]
        return [quantizer for quantizer in quantizers if quantizer is not None]

    @property
    def frozen(self) -> bool:
        """Whether training leaves all activation ranges of this wrapper unchanged. Can be set."""
        quantizers = self.activation_quantizers
        return all(q.frozen for q in quantizers) if quantizers else self._frozen

    @frozen.setter
    def frozen(self, value: bool) -> None:
        self._frozen = value
        for quantizer in self.activation_quantizers:
            quantizer.frozen = value

    @property
    def why_not_exported(self) -> str | None:
        """A clause that says why no file can have the quantizers; `None`: a file can have them."""
        return None

    @property
    def enable_lora(self) -> Callable[..., None]:
        """The method `enable_lora` of the layer, whose kernel is then quantized with its low-rank factors.

        Examples:
            >>> quantized = quantize_model(model)
            >>> quantized.get_layer("quant_scores").enable_lora(2)
            >>> quantized.get_layer("quant_scores").layer.lora_rank
            2

        Raises:
            AttributeError: the layer has no such method.
        """
        return self.layer.enable_lora

    def build(self, input_shape=None):
        """Builds the layer and its quantizers.

        Args:
            input_shape: the shape of the input, a tuple with the batch axis; a list of shapes for several inputs.

        Raises:
            ValueError: `one_scale` for a layer without exactly one quantized input, the layer has no kernel of the
                name `kernel_type`, or it cannot have the blocks of `weight_scheme`.
        """
        # Keras builds a layer without a `build` by calling it, and warns if others build it.
        if self.kernels or type(self.layer).build is not keras.layers.Layer.build:
            super().build(input_shape)
        refuse_keras_quantize(self)
        self._build_input_quantizers(len(tree.flatten(tree.map_shape_structure(lambda shape: 0, input_shape))))
        if self.quantize_weights:
            self._check_kernels()
            check_has_blocks(self.layer, self.weight_scheme)
            for kernel in self.kernels:
                axis = self._kernel_axis(kernel)
                scheme = QuantizationScheme(**{**self.weight_scheme.get_config(), "axis": axis})
                name = f"{kernel.replace('.', '_')}_quantizer"  # PyTorch allows no dot in the name of a parameter
                quantizer = WeightQuantizer(scheme, self.weight_ranges, name=name, trainable=self.trainable)
                quantizer.build(tuple(variable_of(self.layer, kernel).shape))
                self.weight_quantizers[kernel] = quantizer
        if self.one_scale:
            if len(self.input_quantizers) != 1 or self.input_quantizers[0] is None:
                inputs, quantized = len(self.input_quantizers), sum(q is not None for q in self.input_quantizers)
                raise ValueError(
                    f"one_scale is for layers with one input, and this input must be quantized; {self.name!r} has "
                    f"{inputs} inputs, {quantized} quantized."
                )
            (same,) = self.input_quantizers
            self.output_quantizer = self._activation_quantizer(self.input_scheme, "output_quantizer", same_as=same)
        elif self.output_scheme is not None:
            self.output_quantizer = self._activation_quantizer(self.output_scheme, "output_quantizer")
        self.built = True

    def _check_kernels(self) -> None:
        for kernel in self.kernels:
            value = getattr(*owner_of(self.layer, kernel), None)
            if not isinstance(value, keras.Variable) and not ops.is_tensor(value):
                held = [name for name, x in vars(self.layer).items() if isinstance(x, keras.Variable)]
                raise ValueError(
                    f"{type(self).__name__} has kernel_type {kernel!r}, but {type(self.layer).__name__} "
                    f"{self.layer.name!r} has no weight of this name; it has {', '.join(map(repr, held)) or 'none'}. "
                    f"Pass the attribute that holds the kernel.{did_you_mean(kernel, held)} If the wrapper is for "
                    "another class of the same name, set layer_class in it."
                )

    def _inner_quantizers(self) -> list[ActivationQuantizer]:
        """Returns the quantizers between the parts of the layer; a subclass with such quantizers overrides this."""
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

    def __call__(self, *args, **kwargs):
        """Calls the wrapper with the arguments of the layer: by name, where `call` of the wrapper has `training`."""
        if len(args) < 2:  # nearly always, and signatures take time
            return super().__call__(*args, **kwargs)
        own, of_layer = (list(inspect.signature(one.call).parameters) for one in (self, self.layer))
        split = own.index("training") if "training" in own else len(args)
        by_name = dict(zip(of_layer[split:], args[split:], strict=False))
        # Softmax takes a mask there. Arguments that the layer does not take raise what Python raises.
        if "training" not in list(by_name)[:1] and len(args) <= len(of_layer) and not by_name.keys() & kwargs.keys():
            args, kwargs = args[:split], {**kwargs, **by_name}
        return super().__call__(*args, **kwargs)

    def call(self, inputs, training=None, **kwargs):
        """Fake-quantizes the inputs and the kernels, calls the layer, and fake-quantizes the output.

        Args:
            inputs: the inputs of the layer: a tensor, or a structure of tensors.
            training: bool or `None`; in training, the ranges follow the batches and the bias is not rounded.
            **kwargs: other arguments of the layer's `call`.

        Returns:
            The outputs of the layer, in their shape and dtype.
        """
        inputs = self.quantized_inputs(inputs, training)
        if self.output_quantizer is not None and only_rectifies(self.layer):
            return self.output_quantizer(inputs, training=training, rectify=True)
        outputs = self._call_layer(inputs, training, **kwargs)
        if self.output_quantizer is not None:
            outputs = self.output_quantizer(outputs, training=training)
        return outputs

    def quantized_inputs(self, inputs, training=None):
        """Returns the inputs of a call as the layer reads them, in their structure: fake-quantized, or as they are."""
        flat = tree.flatten(inputs)
        quantized = [
            x if quantizer is None else quantizer(x, training=training)
            for x, quantizer in zip(flat, self.input_quantizers, strict=True)
        ]
        return tree.pack_sequence_as(inputs, quantized)

    def _call_layer(self, inputs, training, **kwargs):
        """Calls the layer with its kernels and its bias rounded as in an integer kernel.

        `training` is not passed on: Keras sets it for all layers within a call.
        """
        if not self.weight_quantizers or self.is_quantized:
            return self.layer(inputs, **kwargs)
        if len(self.kernels) == 1:
            self._show_product(self.kernels[0], inputs)
        with without_autocast():  # a StatelessScope needs values in the dtype of the variables
            bias = None if training else integer_bias(self)
            values = [
                pair
                for kernel, quantizer in self.weight_quantizers.items()
                for pair in substitutes(self.layer, kernel, quantizer(merged(self.layer, kernel)))
            ]
        own_bias = getattr(self.layer, "bias", None)
        if bias is not None and own_bias is not None:
            values.append((own_bias, bias))
        outputs = call_with(self, self._variables(), values, inputs, **kwargs)
        return outputs if bias is None or own_bias is not None else add_to_channels(self, outputs, bias)

    def _variables(self) -> list[keras.Variable]:
        """Returns all variables that a call of the layer reads or assigns."""
        return list(self.layer.variables)

    def _show_product(self, kernel: str, inputs) -> None:
        """Shows the observer, if any, what a kernel multiplies."""
        if self.product_observer is not None:
            self.product_observer(self, kernel, inputs)

    def compute_output_spec(self, inputs, training=None, **kwargs):
        """Returns the layer's output spec: quantization changes neither shape nor dtype."""
        return self.layer.compute_output_spec(inputs, **kwargs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs, previous_mask):
        """Returns the masks of the outputs from the masks of the inputs, as the layer does; `None` for no mask."""
        return self.layer.compute_mask(inputs, previous_mask)

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
            weight_ranges=self.weight_ranges,
            frozen=self.frozen,
            target=self.target,
            bias_input=self.bias_input,
            normalization=self.normalization,
            reasons={path: dict(reason) for path, reason in self.reasons.items()},
        )
        return config
