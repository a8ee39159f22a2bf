"""Passes for ONNX Runtime: rewrite the graph into forms that it fuses into integer kernels."""
