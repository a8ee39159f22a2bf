"""Passes for OpenVINO: rewrite the graph into forms with integer kernels, and work around wrong results."""
