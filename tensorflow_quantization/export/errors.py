"""The errors of an export. `ExportError` is a `ValueError`, so `except ValueError` catches all of them."""

from __future__ import annotations

from dataclasses import dataclass


class ExportError(ValueError):
    """The model cannot be exported with these arguments. A file that exists at the path is unchanged.

    Examples:
        >>> try:
        ...     export_onnx(model, "other.onnx", precision="int4")
        ... except ExportError as error:
        ...     print(error)
        precision must be one of 'float32', 'float16', got 'int4'.
    """


@dataclass(frozen=True)
class Unsupported:
    """One layer that cannot be exported.

    Attributes:
        path: the layer's name, after the names of the models that contain it: "backbone/my_layer".
        class_name: name of the layer's class.
        reason: a clause that says why; empty if the class has no emitter.
        attempts: a clause that says what was tried instead of an emitter, and why it failed; empty if nothing was.
        converter_failed: whether tf2onnx was among the attempts. Default: `False`.
    """

    path: str
    class_name: str
    reason: str = ""
    attempts: str = ""
    converter_failed: bool = False

    def __str__(self) -> str:
        reason = self.reason or "its class has no emitter"
        return f"{self.path} ({self.class_name}): {reason}" + (f", and {self.attempts}" if self.attempts else "")


class UnsupportedLayerError(ExportError):
    """Some layers have no emitter, or have arguments that ONNX cannot express.

    Attributes:
        layers: list of `Unsupported`, one for each such layer of the model.

    Examples:
        >>> error = UnsupportedLayerError([Unsupported("backbone/my_layer", "MyLayer")])
        >>> print(error.layers[0])
        backbone/my_layer (MyLayer): its class has no emitter
    """

    def __init__(self, layers: list[Unsupported]):
        self.layers = layers
        rows = [f"  {x}" for x in layers]
        message = "These layers cannot be written as ONNX:\n" + "\n".join(rows)
        without = [x for x in layers if not x.reason]
        if without:
            name = without[0].class_name
            message += (
                "\nRegister an emitter for a custom layer, with the arguments of its `call`:\n\n"
                "    from tensorflow_quantization.export import emitter\n\n"
                f"    @emitter({name})\n"
                f"    def emit(e, layer, x):\n"
                '        return e.op("Relu", x)  # the ONNX operators that compute the layer'
            )
            if not all(x.converter_failed for x in without):
                message += "\n\nor, with the TensorFlow backend, `pip install tf2onnx`: it then converts these layers."
        super().__init__(message)


class NotExpressibleError(Exception):
    """An emitter raises this error if ONNX cannot express the layer with its arguments.

    The message is a clause without a subject, such as "uses bicubic interpolation". The export collects the errors of
    all layers, puts the name of the layer in front of each, and raises one `UnsupportedLayerError`.

    Examples:
        >>> from tensorflow_quantization.export import emitter
        >>> @emitter(MyLayer)
        ... def emit_my_layer(e, layer, x):
        ...     if x.shape[1] is None:
        ...         raise NotExpressibleError("has an axis of unknown size")
        ...     return e.op("Mul", x, 1 / x.shape[1])
    """


class RuntimeLimitError(NotExpressibleError):
    """The runtime that the file is for cannot compute the layer, so another converter would not help."""


class NoEmitterError(NotExpressibleError):
    """The layer has no emitter, and the conversion by tf2onnx failed; the message is a clause that says why."""


class OpsetError(ExportError):
    """The ONNX opset is unknown, or older than an operator of the model.

    Examples:
        >>> try:
        ...     export_onnx(model, "other.onnx", opset=11)
        ... except OpsetError as error:
        ...     print(str(error).partition(" to ")[0])
        opset must be an integer from 13
    """


class VerificationError(ExportError):
    """The outputs or integers of the file differ too much from the Keras model, or a runtime refuses the file.

    No file was written; a file that exists at the path is unchanged. The message names the tensor that differs most,
    and by how much, or the node that the runtime refuses.

    Examples:
        >>> try:
        ...     path = export_onnx(model, "other.onnx", verify_with=images)
        ... except VerificationError as error:
        ...     print(error)
        >>> path.name
        'other.onnx'
    """
