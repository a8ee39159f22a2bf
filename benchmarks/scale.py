"""What quantization costs in training and by the size of a network: steps, memory, and the seconds of each function.

    python benchmarks/scale.py [--quick] [--backends NAME ...] [--precisions POLICY ...] [--rounds N]
                               [--peer-python PYTHON] [--folder FOLDER] [--docs DOCS]

The step is of ResNet-20 on 32 x 32 images, in batches of 64. The float model and the quantized ones take turns in one
process of each backend. Peers are measured in the same way, each against the float step of its own framework: PyTorch's
quantization-aware training, and TFMOT on tf-keras, if the interpreter PYTHON has it (by default this one). What is
measured is kept in FOLDER, if given, and is not measured again. DOCS gets the page, scale.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from memory import measure_call
from scale_networks import BATCH, INPUT, bytes_of, decoder, resnet20, resnet20_of_torch
from scale_page import page
from steps import run_step
from tensorflow_quantization.export.verification.timing import interleaved, summary

BACKENDS = ("tensorflow", "jax", "torch")
#: By backend: the arguments `jit_compile` of `compile`. By "auto", TensorFlow uses XLA on GPUs and TPUs alone.
JITS = {"tensorflow": ("auto", "yes"), "jax": ("auto",), "torch": ("auto",)}
#: Images of a step whose memory is measured: tensors are then most of it.
LARGE_BATCH = 512
MODES = ("ema", "learned", "frozen")
DEPTHS = (10, 100, 1000, 5000)
_JIT: dict[str, Any] = {"auto": "auto", "yes": True}


def batch(size: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, the same each time."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, *INPUT)).astype("float32"), rng.integers(10, size=size)


def training_step(keras: Any, model: Any, size: int = BATCH, **options: Any) -> Callable[[], object]:
    """A function that trains one batch; of Keras 3 or tf-keras."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss=loss, **options)
    x, y = batch(size)
    return lambda: model.train_on_batch(x, y)


def quantized(model: Any, mode: str) -> Any:
    """The quantized model with ranges as `mode` says: "frozen" is what `calibrate` leaves."""
    from tensorflow_quantization import calibrate, quantize_model

    result = quantize_model(model, target="onnxruntime", ranges="learned" if mode == "learned" else "ema")
    return calibrate(result, batch()[0], verbose=0) if mode == "frozen" else result


def measure_steps(jit: str, precision: str, rounds: str) -> dict[str, dict[str, float]]:
    """By mode: milliseconds, their ratio to the float step, and the seconds of the first step."""
    import keras

    keras.mixed_precision.set_global_policy(precision)
    model = resnet20(keras)
    models = {"float": model, **{mode: quantized(model, mode) for mode in MODES}}
    steps = {name: training_step(keras, m, jit_compile=_JIT[jit]) for name, m in models.items()}
    return _timed(steps, int(rounds))


def _timed(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    first = {}
    for name, step in steps.items():
        start = time.perf_counter()
        step()
        first[name] = time.perf_counter() - start
    # Training takes one step after another: what the step of another model left in memory is not in the way.
    rows = summary(interleaved(steps, rounds, lead=2))
    return {name: {"ms": ms, "ratio": ratio, "first": first[name]} for name, ms, ratio in rows}


def measure_kernels(rounds: str) -> dict[str, dict[str, float]]:
    """By kernel: milliseconds for one tensor with its gradient, and their ratio to a ReLU's."""
    import scale_kernels

    rows = summary(interleaved(scale_kernels.calls(), 20 * int(rounds), lead=2))
    return {name: {"ms": ms, "ratio": ratio} for name, ms, ratio in rows}


def measure_memory(jit: str, mode: str) -> dict[str, float]:
    """The most bytes that two steps take, with their compilation; bytes of the weights and of the quantizers."""
    import keras

    float_model = resnet20(keras)
    model = float_model if mode == "float" else quantized(float_model, mode)
    step = training_step(keras, model, LARGE_BATCH, jit_compile=_JIT[jit])
    peak = measure_call(lambda: [step() for _ in range(2)])["peak"]
    weights = bytes_of(float_model)
    return {"peak": peak, "weights": weights, "quantizers": bytes_of(model) - weights}


def measure_torch(rounds: str) -> dict[str, dict[str, float]]:
    """PyTorch's own quantization-aware training of the same network."""
    import warnings

    import torch
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    x, y = (torch.from_numpy(array) for array in batch())
    x = x.permute(0, 3, 1, 2)

    def step_of(network: Any) -> Callable[[], object]:
        optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)

        def step() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()

        return step

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it moves to another package
        prepared = prepare_qat_fx(resnet20_of_torch().train(), get_default_qat_qconfig_mapping("x86"), (x,))
    return _timed({"float": step_of(resnet20_of_torch().train()), "ema": step_of(prepared)}, int(rounds))


def measure_tfmot(rounds: str) -> dict[str, dict[str, float]]:
    """TFMOT, on tf-keras; the process needs TF_USE_LEGACY_KERAS."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    model = resnet20(tf_keras)
    contenders = {"float": model, "ema": tfmot.quantization.keras.quantize_model(model)}
    return _timed({name: training_step(tf_keras, m) for name, m in contenders.items()}, int(rounds))


def measure_size(network: str, size: str) -> dict[str, float]:
    """Weights of a network, and the seconds and sizes of the weights that each function takes."""
    import keras

    from quantize_time import chain
    from tensorflow_quantization import calibrate, export_onnx, quantize_model

    sys.setrecursionlimit(100_000)  # Keras walks a model by recursion, which the default ends at some 980 layers
    keras.utils.set_random_seed(0)
    model = chain(int(size)) if network == "chain" else decoder(keras, int(size))
    shape, dtype = model.inputs[0].shape[1:], model.inputs[0].dtype
    x = np.random.default_rng(0).uniform(0, 9, (2, *shape)).astype(dtype)
    weights, made = bytes_of(model), {}
    with tempfile.TemporaryDirectory() as folder:
        calls = {
            "quantize_model": lambda: made.setdefault("model", quantize_model(model, target="onnxruntime")),
            "calibrate": lambda: calibrate(made["model"], x, batch_size=2, verbose=0),
            "export_onnx": lambda: export_onnx(made["model"], pathlib.Path(folder, "m.onnx")),
        }
        figures = {name: measure_call(call) for name, call in calls.items()}
        written = sum(path.stat().st_size for path in pathlib.Path(folder).iterdir())
    found = {"layers": len(model.layers), "weights": weights, "file": written}
    return found | {f"{name} {what}": value for name, f in figures.items() for what, value in f.items()}


STEPS: dict[str, Callable[..., dict]] = {
    "steps": measure_steps,
    "kernels": measure_kernels,
    "memory": measure_memory,
    "torch": measure_torch,
    "tfmot": measure_tfmot,
    "size": measure_size,
}


class Figures:
    """What was measured, by step and arguments; kept in a file of a folder, if there is one."""

    def __init__(self, folder: pathlib.Path | None):
        self._path = folder / "scale.json" if folder is not None else None
        self.found: dict[str, Any] = {}
        if self._path is not None and self._path.exists():
            self.found = json.loads(self._path.read_text())

    def measure(self, backend: str, step: str, *arguments: object, python: str = sys.executable) -> None:
        """Measure in a process of its own, unless that was done."""
        name = " ".join(map(str, (backend, step, *arguments)))
        if name not in self.found:
            print(name, file=sys.stderr)
            variables = {"KERAS_BACKEND": backend, **({"TF_USE_LEGACY_KERAS": "1"} if step == "tfmot" else {})}
            self.found[name] = run_step(__file__, step, *arguments, python=python, variables=variables)
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text(json.dumps(self.found, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, small models: does it run, not how fast")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--precisions", nargs="+", default=["float32"], metavar="POLICY", help="of the layers")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="how often each step is timed")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PYTHON", help="an interpreter with TFMOT")
    parser.add_argument("--folder", type=pathlib.Path, help="where figures are kept; default: nowhere")
    parser.add_argument("--docs", type=pathlib.Path, help="a folder for scale.md")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, *rest = arguments.step
        print(json.dumps(STEPS[step](*rest)))
        return
    figures = Figures(arguments.folder)
    if arguments.quick:
        arguments.rounds = 2
    for backend in (name for name in arguments.backends if importlib.util.find_spec(name)):
        for jit, precision in itertools.product(JITS[backend][: 1 if arguments.quick else None], arguments.precisions):
            figures.measure(backend, "steps", jit, precision, arguments.rounds)
        figures.measure(backend, "kernels", arguments.rounds)
        for jit, mode in () if arguments.quick else itertools.product(JITS[backend], ("float", *MODES)):
            figures.measure(backend, "memory", jit, mode)
        if backend == "torch":
            figures.measure(backend, "torch", arguments.rounds)
    if "tensorflow" in arguments.backends and _has_tfmot(arguments.peer_python):
        figures.measure("tensorflow", "tfmot", arguments.rounds, python=arguments.peer_python)
    for depth in DEPTHS[:1] if arguments.quick else DEPTHS:
        figures.measure(arguments.backends[0], "size", "chain", depth)
    if not arguments.quick:
        figures.measure(arguments.backends[0], "size", "decoder", 500)
    text = page(figures.found, arguments.rounds, LARGE_BATCH)
    if arguments.docs is not None:
        arguments.docs.mkdir(parents=True, exist_ok=True)
        (arguments.docs / "scale.md").write_text(text)
    print(text)


def _has_tfmot(python: str) -> bool:
    modules = "import tensorflow_model_optimization, tf_keras"
    variables = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([python, "-c", modules], env=os.environ | variables, capture_output=True, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    main()
