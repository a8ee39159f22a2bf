"""Targets, one file for each runtime: where the quantizers go, and which integers they use."""

from tensorflow_quantization.targets.default import DEFAULT
from tensorflow_quantization.targets.litert import LITERT
from tensorflow_quantization.targets.onnxruntime import ONNXRUNTIME
from tensorflow_quantization.targets.openvino import OPENVINO
from tensorflow_quantization.targets.reason import Reason, ReasonCode
from tensorflow_quantization.targets.target import MatmulOperand, Placement, Target
from tensorflow_quantization.targets.tensorrt import TENSORRT
from tensorflow_quantization.text.messages import must_be_one_of

__all__ = ["DEFAULT", "TARGETS", "MatmulOperand", "Placement", "Reason", "ReasonCode", "Target", "find_target"]

#: The targets of the library, by name.
TARGETS = {target.name: target for target in (TENSORRT, ONNXRUNTIME, OPENVINO, LITERT)}


def find_target(target: str | Target | None) -> Target:
    """Return the target with a name.

    Examples:
        >>> find_target("onnxruntime").activations.dtype
        'uint8'
        >>> find_target(None).name
        'default'

    Args:
        target: "tensorrt", "onnxruntime", "openvino" or "litert"; a `Target`, which is returned unchanged; or `None`
            for `DEFAULT`, the table of NVIDIA's toolkit.

    Returns:
        The `Target`.

    Raises:
        ValueError: no target has this name; the message lists the names.
    """
    if target is None:
        return DEFAULT
    if isinstance(target, Target):
        return target
    if not isinstance(target, str) or target not in TARGETS:
        raise ValueError(must_be_one_of("target", TARGETS, target, besides="a Target"))
    return TARGETS[target]
