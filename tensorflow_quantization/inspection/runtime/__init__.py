"""What a runtime makes of a file, read from the graph that it really executes."""

from tensorflow_quantization.inspection.runtime.runtime_report import NodeReport, RuntimeReport, runtime_report

__all__ = ["NodeReport", "RuntimeReport", "runtime_report"]
