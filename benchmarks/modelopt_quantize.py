"""NVIDIA ModelOpt's post-training quantization of an ONNX file: a script for an environment that has ModelOpt.

    python modelopt_quantize.py FLOAT.onnx CALIBRATION.npz QUANTIZED.onnx METHOD PRECISION

ModelOpt needs versions of onnx and ONNX Runtime that are older than ours, so `peers.modelopt_quantize` starts this file
in an environment of its own, and it imports nothing else of the project. METHOD is "entropy", ModelOpt's default, or
"max"; PRECISION, of all that is not quantized, is "fp16", its default, or "fp32". All else is ModelOpt's default.
"""

from __future__ import annotations

import sys

import numpy as np


def main(float_onnx: str, calibration: str, quantized: str, method: str, precision: str) -> None:
    from modelopt.onnx.quantization import quantize

    with np.load(calibration) as data:
        inputs = dict(data)
    # Unknown sizes would become 1.
    shapes = ",".join(f"{name}:{'x'.join(map(str, (1, *x.shape[1:])))}" for name, x in inputs.items())
    quantize(
        float_onnx,
        quantize_mode="int8",
        calibration_data=inputs,
        calibration_method=method,
        calibration_shapes=shapes,
        calibration_eps=["cpu"],
        high_precision_dtype=precision,
        output_path=quantized,
        log_level="ERROR",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
