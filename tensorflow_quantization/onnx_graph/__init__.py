"""Questions about ONNX graphs, ours and others', that both the export and the inspection of files ask.

`operators` says what an operator of ONNX is, `queries` what stands where in a graph, `quantization` what a quantizer
says, `files` reads graphs from files. Nothing here changes a graph, and nothing here knows Keras.
"""
