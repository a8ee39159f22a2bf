"""Which kernels a runtime executes for a file, read from the graph that the runtime optimized or compiled."""

from tensorflow_quantization.inspection.runtime.runtime_report import NodeReport, RuntimeReport, runtime_report

__all__ = ["NodeReport", "RuntimeReport", "runtime_report"]
