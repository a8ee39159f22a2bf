"""Keras models to ONNX files: lowering layer by layer, then passes over the graph."""
