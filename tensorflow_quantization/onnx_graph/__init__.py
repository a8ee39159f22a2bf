"""Read ONNX graphs, from this library or any other tool: shared by the export and the inspection of files.

`operators` classifies the operators of ONNX, `queries` finds nodes and constants in a graph, `quantization` reads
quantizers, `files` reads graphs from files. Nothing here changes a graph, and nothing here knows Keras.
"""
