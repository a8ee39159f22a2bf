"""Checks a file whose target is not the target that the model was quantized for."""

from __future__ import annotations

from pathlib import Path

from tensorflow_quantization.export.errors import ExportError
from tensorflow_quantization.inspection.checks import check_onnx
from tensorflow_quantization.text.warn import warn_user


def check_retargeted(path: Path, target: str) -> None:
    """Check a written file with the rules of `target`; warn about operators that will run in float.

    Raises:
        ExportError: the runtime would reject the file.
    """
    report = check_onnx(path, target)
    advice = f"Quantize the float model with quantize_model(model, target={target!r})."
    if report.errors:
        raise ExportError(f"This model has no exact form for {target}: {report.errors[0]}\n{advice}")
    floats = [finding for finding in report.warnings if finding.keeps_float]
    if floats:
        lines = "\n".join(f"  {finding.nodes[0]}: {finding.what}" for finding in floats[:10])
        more = f"\n  and {len(floats) - 10} more" if len(floats) > 10 else ""
        warn_user(
            f"{target} will run {len(floats)} operators of this file in float, because the model has no "
            f"quantizers for them:\n{lines}{more}\n{advice}"
        )
