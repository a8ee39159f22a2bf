"""What `export_onnx` raises; each is also the built-in error that fits, so that plain `except ValueError` works."""

from __future__ import annotations

from dataclasses import dataclass


class ExportError(ValueError):
    """The model cannot be written as asked; nothing was written."""


@dataclass(frozen=True)
class Unsupported:
    """One layer that cannot be exported.

    Attributes:
        path: the layer's name with the models around it, "backbone/my_layer".
        class_name: of the layer.
        reason: what about it, a clause; empty where the class has no emitter at all.
        attempts: of a layer without an emitter, what else was tried and why it failed, a clause.
    """

    path: str
    class_name: str
    reason: str = ""
    attempts: str = ""

    def __str__(self) -> str:
        reason = self.reason or "its class has no emitter"
        return f"{self.path} ({self.class_name}): {reason}" + (f", and {self.attempts}" if self.attempts else "")


class UnsupportedLayerError(ExportError):
    """Layers without an emitter, or with arguments that ONNX cannot express.

    Attributes:
        layers: list of `Unsupported`, all there are.
    """

    def __init__(self, layers: list[Unsupported]):
        self.layers = layers
        rows = [f"  {x}" for x in layers]
        message = "These layers cannot be written as ONNX:\n" + "\n".join(rows)
        without = [x for x in layers if not x.reason]
        if without:
            name = without[0].class_name
            message += (
                "\nRegister an emitter for a layer of your own, with the signature of its `call`:\n\n"
                "    from tensorflow_quantization.export import emitter\n\n"
                f"    @emitter({name})\n"
                f"    def emit(e, layer, x):\n"
                '        return e.op("Relu", x)  # the ONNX operators that compute it\n\n'
                "or, with the TensorFlow backend, `pip install tf2onnx`, which converts such a layer alone."
            )
        super().__init__(message)


class NotExpressibleError(Exception):
    """Raised by an emitter: this layer with these arguments has no ONNX form; the driver adds the layer's name.

    The message is a clause that follows the layer's name, "uses bicubic interpolation, which ...".
    """


class NoEmitterError(NotExpressibleError):
    """The layer has no emitter, and what else was tried failed: a clause that says what and why."""


class OpsetError(ExportError):
    """The opset is unknown, or too old for what the model needs."""


class VerificationError(ExportError):
    """The written file and the Keras model disagree. The old file, if any, is untouched."""
