"""Which kernels a runtime executes for a file, read from the graph or the engine that the runtime built."""

from tensorflow_quantization.inspection.runtime.report import KernelReport, NodeReport, RuntimeReport
from tensorflow_quantization.inspection.runtime.runtime_report import runtime_report

__all__ = ["KernelReport", "NodeReport", "RuntimeReport", "runtime_report"]
