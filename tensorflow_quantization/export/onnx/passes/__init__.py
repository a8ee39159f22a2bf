"""Passes: functions that rewrite the exported graph after all layers are emitted, one pass per file.

A pass finds a pattern, checks that the rewrite is exact, rewrites the graph, and returns the number of changed places.
If a check fails, the pass writes the reason to the debug log:

    logging.basicConfig()
    logging.getLogger("tensorflow_quantization.export.onnx.passes").setLevel(logging.DEBUG)

`common/` holds passes for all files, and passes that several runtimes share; `onnxruntime/` and `openvino/` hold the
passes of one runtime. `pipeline` decides which passes run, and in which order.

In the diagrams, data flows from left to right; `Q` is QuantizeLinear and `DQ` is DequantizeLinear.
"""

from tensorflow_quantization.export.onnx.passes.pipeline import run_passes

__all__ = ["run_passes"]
