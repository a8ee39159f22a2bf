"""Reports for people to look at: one HTML page, and node data for Model Explorer."""

from tensorflow_quantization.reporting.html_report import html_report

__all__ = ["html_report"]
