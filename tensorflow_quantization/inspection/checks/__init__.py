"""Check ONNX files with Q/DQ against the rules of runtimes."""

from tensorflow_quantization.inspection.checks.check import check_onnx
from tensorflow_quantization.inspection.checks.report import Finding, Report

__all__ = ["Finding", "Report", "check_onnx"]
