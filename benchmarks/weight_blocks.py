"""What weights in blocks are worth in the runtimes: the kernels, the size of the file, the signal-to-noise ratio.

    python benchmarks/weight_blocks.py

A transformer encoder of two layers with random weights: the ratios say what rounding does, and nothing of accuracy on
a task. Its weights are uniform, as Keras starts them, or have outliers (Student's t with 4 degrees of freedom). Beside
it the same network with int8 weights and activations, and with INT4 weights of one scale per channel.
"""

from __future__ import annotations

import collections
import importlib.util
import pathlib
import tempfile

import keras
import numpy as np
from keras import layers

from machine import machine
from tensorflow_quantization import calibrate, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES
from tensorflow_quantization.export.verification.processor import SAFE_WEIGHT_BITS, saturates
from tensorflow_quantization.noise.signal_to_noise import SignalToNoise

WIDTH, STEPS, LAYERS, COUNT = 256, 16, 2, 32
TITLES = ("runtime", "weights", "kernels", "file", "ratio", "signal, uniform weights", "signal, outliers")
#: The ends of the names of products of two activations, in attention.
_OF_ACTIVATIONS = tuple(f"attention_{i}/{name}" for i in range(LAYERS) for name in ("MatMul", "MatMul_1"))
#: The arguments of `quantize_model` by the name of a row.
BLOCKS = {f"INT4, blocks of {size}": {"weight_bits": 4, "block_size": size} for size in (32, 64, 128)}
BLOCKS["int8, blocks of 64"] = {"weight_bits": 8, "block_size": 64}


def encoder(outliers: bool) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((STEPS, WIDTH), name="tokens")
    for index in range(LAYERS):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, WIDTH // 4, name=f"attention_{index}")(y, y)])
        y = layers.Dense(4 * WIDTH, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(WIDTH)(y)])
    model, random = keras.Model(inputs, layers.LayerNormalization()(x)), np.random.default_rng(0)
    for weight in model.weights:
        if outliers and len(weight.shape) > 1:
            kernel = keras.ops.convert_to_numpy(weight)
            weight.assign(kernel.std() / 2**0.5 * random.standard_t(4, kernel.shape))  # of the same variance
    return model


def main() -> None:
    data = np.random.default_rng(0).normal(size=(2 * COUNT, STEPS, WIDTH)).astype("float32")
    print(" | ".join(TITLES))
    for runtime in ("onnxruntime", "openvino", "tensorrt"):
        if importlib.util.find_spec({"tensorrt": "tensorrt_rtx"}.get(runtime, runtime)) is None:
            continue
        bits = SAFE_WEIGHT_BITS if runtime in RUNTIMES and saturates(runtime) else 8
        rows: dict[str, dict[str, int]] = {"int8": {"weight_bits": bits}, "INT4, one per channel": {"weight_bits": 4}}
        int8 = 0.0
        for name, arguments in {**rows, **BLOCKS}.items():
            if runtime == "tensorrt" and name.startswith("int8, blocks"):
                continue
            plain, size, kernels = measure(encoder(False), runtime, arguments, data)
            heavy, *_ = measure(encoder(True), runtime, arguments, data) if runtime in RUNTIMES else ("",)
            int8 = int8 or size
            found = ", ".join(f"{count} {kernel}" for kernel, count in kernels.items())
            row = (runtime, name, found, f"{size / 1000:,.0f} kB", f"{size / int8:.2f}", plain, heavy)
            print(" | ".join(row), flush=True)
    print(machine(("keras", "onnxruntime", "openvino", "tensorrt_rtx")))


def measure(
    model: keras.Model, runtime: str, arguments: dict[str, int], data: np.ndarray
) -> tuple[str, int, collections.Counter[str]]:
    """The signal-to-noise ratio, the bytes of the file, and the kernels of its products with weights."""
    seen, unseen = data[:COUNT], data[COUNT:]
    quantized = calibrate(quantize_model(model, target=runtime, **arguments), seen, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(quantized, pathlib.Path(folder, "m.onnx"))
        shapes = {"input_shapes": (COUNT, STEPS, WIDTH)} if runtime == "tensorrt" else {}
        products = [node for node in runtime_report(path, runtime, **shapes).multiplying if node.macs]
        kernels = collections.Counter(node.kernel for node in products if not node.name.endswith(_OF_ACTIVATIONS))
        if runtime not in RUNTIMES:
            return "", path.stat().st_size, kernels
        ratio = SignalToNoise()
        ratio.update(model.predict(unseen, verbose=0), RUNTIMES[runtime].load(path, ())({"tokens": unseen})[0])
        return f"{ratio.decibels:.1f} dB", path.stat().st_size, kernels


if __name__ == "__main__":
    main()
