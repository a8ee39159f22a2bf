"""One file a runtime: where it wants quantizers, and in which integers."""

from tensorflow_quantization.targets.default import DEFAULT
from tensorflow_quantization.targets.litert import LITERT
from tensorflow_quantization.targets.onnxruntime import ONNXRUNTIME
from tensorflow_quantization.targets.openvino import OPENVINO
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.targets.target import MatmulOperand, Placement, Target
from tensorflow_quantization.targets.tensorrt import TENSORRT
from tensorflow_quantization.text.messages import must_be_one_of

__all__ = ["DEFAULT", "TARGETS", "MatmulOperand", "Placement", "Reason", "ReasonCode", "Target", "find_target"]

#: By the name that a user writes.
TARGETS = {target.name: target for target in (TENSORRT, ONNXRUNTIME, OPENVINO, LITERT)}


def find_target(target: str | Target | None) -> Target:
    """The target of that name; `None` is the documented default, a `Target` itself passes through.

    Raises:
        ValueError: there is none of that name; the message holds the closest.
    """
    if target is None:
        return DEFAULT
    if isinstance(target, Target):
        return target
    if target not in TARGETS:
        raise ValueError(must_be_one_of("target", TARGETS, target, besides="a Target"))
    return TARGETS[target]
