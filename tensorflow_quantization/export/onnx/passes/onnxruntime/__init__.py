"""Passes for ONNX Runtime: forms that it fuses into integer kernels."""
