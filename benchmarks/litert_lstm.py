"""What LiteRT's own LSTM would give: the time of a sequence and the signal-to-noise, beside the file that we write.

    python benchmarks/litert_lstm.py

TensorFlow's converter writes this operator for a function that is marked as Keras 2 marked its LSTM: in floats, or in
integers with its own calibration. The operator keeps its states from one run to the next: so they are reset before
each sequence that is compared. Weights are random, and each file runs on one thread, in turns.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from machine import machine
from tensorflow_quantization import calibrate, export_litert, quantize_model
from tensorflow_quantization.noise.signal_to_noise import SignalToNoise

#: Units, features and steps.
SIZES = ((32, 12, 26), (128, 128, 31), (256, 64, 100))
COUNT, ROUNDS, RUNS = 16, 25, 5


def files(model: keras.Model, data: np.ndarray, folder: pathlib.Path) -> dict[str, bytes]:
    quantized = calibrate(quantize_model(model, target="litert"), data, verbose=0)
    return {
        "ours, int8 weights": export_litert(quantized, folder / "m.tflite", verify_with=data).read_bytes(),
        "LiteRT's operator, float": own_operator(model, None),
        "LiteRT's operator, int8": own_operator(model, data),
    }


def own_operator(model: keras.Model, data: np.ndarray | None) -> bytes:
    """The file with LiteRT's operator: in integers calibrated with `data`, or in floats."""
    kernels = [tf.constant(weight) for weight in model.layers[0].get_weights()]
    marks = {"api_implements": "lstm_of_this_benchmark", "time_major": False, "go_backwards": False}

    def lstm(x, hidden, carried, kernel, recurrent, bias):
        # Only shapes count here: the converter puts the operator in the place of this code.
        read = tf.add_n([tf.reduce_sum(y) for y in (kernel, recurrent, bias)])
        sequences = read * x[..., :1] * hidden[:, tf.newaxis]
        return sequences[:, -1], sequences, hidden + 0, carried + 0, tf.constant(0.0)

    marked = tf.function(lstm, autograph=False, experimental_attributes=marks)
    owner = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)])
    def run(x):
        zeros = tf.zeros((1, kernels[1].shape[0]))
        return marked(x, zeros, zeros, *kernels)[1]

    owner.run = run
    converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()], owner)
    if data is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[np.newaxis]] for x in data)
    return converter.convert()


def measure(found: dict[str, bytes], model: keras.Model, data: np.ndarray) -> dict[str, tuple[float, float]]:
    """Milliseconds for a sequence, and decibels, of each file."""
    interpreters, decibels = {}, {}
    for name, content in found.items():
        interpreter = interpreters[name] = Interpreter(model_content=content, num_threads=1)
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (1, *data.shape[1:]))
        interpreter.allocate_tensors()
        outputs = np.concatenate([_run(interpreter, x[np.newaxis]) for x in data])
        noise = SignalToNoise()
        noise.update(model.predict(data, verbose=0), outputs)
        decibels[name] = noise.decibels
    times: dict[str, list[float]] = {name: [] for name in interpreters}
    for _ in range(ROUNDS):
        for name, interpreter in interpreters.items():
            start = time.perf_counter()
            for _ in range(RUNS):
                interpreter.invoke()
            times[name].append((time.perf_counter() - start) / RUNS * 1e3)
    return {name: (statistics.median(times[name]), decibels[name]) for name in interpreters}


def _run(interpreter: Any, x: np.ndarray) -> np.ndarray:
    interpreter.reset_all_variables()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy()


def main() -> None:
    warnings.simplefilter("ignore")  # of operators in floats
    print("units, features, steps | file | ms | ratio to ours | dB | kB")
    for units, features, steps in SIZES:
        keras.utils.set_random_seed(0)
        data = np.random.default_rng(0).normal(size=(COUNT, steps, features)).astype("float32")
        model = keras.Sequential([keras.Input((steps, features)), keras.layers.LSTM(units, return_sequences=True)])
        with tempfile.TemporaryDirectory() as folder:
            found = files(model, data, pathlib.Path(folder))
        rows = measure(found, model, data)
        ours = next(iter(rows.values()))[0]
        for name, (milliseconds, decibels) in rows.items():
            size = len(found[name]) / 1000
            print(
                f"{units}, {features}, {steps} | {name} | {milliseconds:.3f} | {milliseconds / ours:.2f} | "
                f"{decibels:.1f} | {size:,.0f}",
                flush=True,
            )
    print(machine(("keras", "tensorflow", "ai_edge_litert")))


if __name__ == "__main__":
    main()
