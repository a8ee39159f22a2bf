"""What 4-bit weights are worth in the runtimes: the size of the file, the share in integers, the signal-to-noise ratio.

    python benchmarks/low_bits.py [NETWORK ...]

Each network is quantized by `post_training_quantize` with 8-bit weights, 7-bit where the processor saturates with 8,
and with 4-bit weights. Each file runs in the runtime that it is for. The 4-bit file is also written with int8
weights: its outputs have to be the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import tempfile

import keras
import numpy as np

from machine import machine
from tensorflow_quantization import export_onnx, post_training_quantize, runtime_report
from tensorflow_quantization.export.verification.onnx_runtimes import RUNTIMES
from tensorflow_quantization.export.verification.processor import SAFE_WEIGHT_BITS, saturates
from tensorflow_quantization.noise.signal_to_noise import SignalToNoise
from trained import TrainedNetwork, trained_network

NETWORKS = ("MobileNetV2", "resnet", "fer", "upscaler")
#: The newest opset without INT4.
INT8_OPSET = 20
#: Inputs to calibrate with, and to measure on.
COUNT = 64
TITLES = ("network", "runtime", "int8, kB", "INT4, kB", "ratio", "in integers", "signal, int8", "signal, INT4")


def network(name: str) -> TrainedNetwork:
    """A trained network, or MobileNetV2 with random weights, of which only the size of the file says something."""
    if name != "MobileNetV2":
        return trained_network(name)
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).uniform(-1, 1, (16, 96, 96, 3)).astype("float32")
    model = keras.applications.MobileNetV2((96, 96, 3), weights=None, classifier_activation=None)
    return TrainedNetwork(name, model, images, images)


def measure(net: TrainedNetwork, runtime: str, folder: pathlib.Path) -> list[str]:
    """One row of the table."""
    inputs = net.evaluation[:COUNT]
    expected = net.model.predict(inputs, verbose=0)
    signals, files = [], []
    data = net.calibration[:COUNT]
    for bits in (SAFE_WEIGHT_BITS if saturates(runtime) else 8, 4):
        quantized = post_training_quantize(net.model, data, target=runtime, weight_bits=bits, verbose=0)
        files.append(export_onnx(quantized, folder / f"{bits}.onnx"))
        outputs = run(files[-1], runtime, inputs)
        ratio = SignalToNoise()
        ratio.update(expected, outputs)
        signals.append(f"{ratio.decibels:.1f} dB")
    same = export_onnx(quantized, folder / "4_as_int8.onnx", opset=INT8_OPSET)
    np.testing.assert_array_equal(outputs, run(same, runtime, inputs))
    sizes = [path.stat().st_size for path in files]
    shares = {f"{runtime_report(path, runtime).integer_share:.1%}" for path in (*files, same)}
    kilobytes = [f"{size / 1000:,.0f}" for size in sizes]
    return [net.name, RUNTIMES[runtime].title, *kilobytes, f"{sizes[1] / sizes[0]:.2f}", ", ".join(shares), *signals]


def run(path: pathlib.Path, runtime: str, inputs: np.ndarray) -> np.ndarray:
    """The first output of a file with one input."""
    import onnx

    (name,) = (value.name for value in onnx.load(path, load_external_data=False).graph.input)
    return RUNTIMES[runtime].load(path, ())({name: inputs})[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NETWORKS, metavar="NETWORK")
    print(" | ".join(TITLES))
    for name in parser.parse_args().names:
        net = network(name)
        for runtime in filter(importlib.util.find_spec, RUNTIMES):
            with tempfile.TemporaryDirectory() as folder:
                print(" | ".join(measure(net, runtime, pathlib.Path(folder))), flush=True)
    print(machine(("keras", "onnxruntime", "openvino")))


if __name__ == "__main__":
    main()
