"""Passes for TensorRT: rewrite the graph into forms with integer kernels."""
