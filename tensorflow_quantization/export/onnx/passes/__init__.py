"""What is done to a graph once all layers are in it: one pass a file, each a function of the `Builder`.

A pass looks for a pattern, checks that the change is exact, and changes the graph. It returns how many places it
changed. Where the pattern is there but a check fails, it says why in a debug log:

    logging.basicConfig()
    logging.getLogger("tensorflow_quantization.export.onnx.passes").setLevel(logging.DEBUG)

`common/` holds passes for any file, and passes that several runtimes share; `onnxruntime/` and `openvino/` hold passes
for one runtime. `pipeline` says which run, and in which order.

In the pictures, data flows from left to right, and `Q` and `DQ` are QuantizeLinear and DequantizeLinear.
"""

from tensorflow_quantization.export.onnx.passes.pipeline import run_passes

__all__ = ["run_passes"]
