"""Reports for people to look at: one HTML page, and node data for Model Explorer."""

from tensorflow_quantization.reporting.html_report import html_report
from tensorflow_quantization.reporting.node_data import model_explorer_data

__all__ = ["html_report", "model_explorer_data"]
