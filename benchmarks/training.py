"""Accuracy after quantization-aware training, on the networks that are trained on Fashion-MNIST.

    python benchmarks/training.py [--quick] [--networks NAME ...] [--seeds COUNT] [--folder FOLDER] [--processes COUNT]

Each network is quantized with 256 images and trained for as long in four ways: with `fine_tune` after
`post_training_quantize`, without and with labels, and with other statistics of BatchNormalization; and with `fit` on
labels after `calibrate`, as in LSQ (arXiv:1902.08153). Accuracy is measured on 10,000 test images.
Weights stay in FOLDER, and what is trained there is not trained again; the backend of Keras may have an accelerator.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import datetime
import itertools
import json
import pathlib
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

    from pretrained.network import TrainedNetwork

BATCH = 64
#: Training images of an epoch: a minute on two cores.
IMAGES = 200 * BATCH
QUICK = "resnet"
#: The way that starts from `calibrate`.
LSQ = "LSQ"

#: Network, seed, setting, way.
Job = tuple[str, int, str, str]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Bits, and how long they are trained.

    Args:
        weights, activations: in bits.
        epochs: of all ways.
        edges: the first and the last layer have 8 bits, as in the LSQ paper.
    """

    weights: int
    activations: int
    epochs: int
    edges: bool = False


SETTINGS = {
    "W8A8": Setting(8, 8, 1),
    "W4A8": Setting(4, 8, 1),
    "W4A4": Setting(4, 4, 2, edges=True),
    "W2A8": Setting(2, 8, 2, edges=True),
}


def fine_tuned(model, network, images, labels, setting) -> None:
    """`fine_tune`; the float model teaches, without labels."""
    tune(model, network, setting, images)


def fine_tuned_with_labels(model, network, images, labels, setting) -> None:
    """`fine_tune`; the float model teaches, and labels do."""
    tune(model, network, setting, images, labels, loss=cross_entropy())


def fine_tuned_with_other_statistics(model, network, images, labels, setting) -> None:
    """`fine_tune`, with the statistics of BatchNormalization that it does not choose: they follow, or they do not."""
    tune(model, network, setting, images, reestimate=setting.weights >= 4)


def tune(model, network, setting, *data, **arguments) -> None:
    from tensorflow_quantization import fine_tune

    arguments |= {"teacher": network.model, "epochs": setting.epochs, "batch_size": BATCH}
    fine_tune(model, *data, **arguments, verbose=0)


def fitted(model, network, images, labels, setting) -> None:
    """`fit` on labels, with the optimizer and the rates of `fine_tune`."""
    import keras

    first = 1e-4 if (setting.weights, setting.activations) == (8, 8) else 1e-3
    rate = keras.optimizers.schedules.CosineDecay(first, setting.epochs * -(-len(images) // BATCH))
    model.compile(keras.optimizers.Adam(rate), cross_entropy())
    model.fit(images, labels, BATCH, setting.epochs, verbose=0)


def cross_entropy() -> keras.losses.Loss:
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


WAYS = {
    "fine_tune": fine_tuned,
    "fine_tune, labels": fine_tuned_with_labels,
    "fine_tune, other statistics": fine_tuned_with_other_statistics,
    LSQ: fitted,
}


def loaded(name: str, seed: int, quick: bool) -> TrainedNetwork:
    """The network, its weights trained; as it is at random, with a few inputs, if `quick`."""
    from fashion_mnist import load_fashion_mnist
    from pretrained.fashion import NETWORKS
    from pretrained.network import TrainedNetwork
    from trained import trained_network

    if not quick:
        return trained_network(name, seed)
    _, (images, labels) = load_fashion_mnist()
    measured = slice(BATCH, 4 * BATCH)
    return TrainedNetwork(name, NETWORKS[name][0](), images[:BATCH], images[measured], labels[measured])


def quantized(network: TrainedNetwork, setting: Setting, way: str) -> keras.Model:
    """The network with learned ranges, as this way starts."""
    from tensorflow_quantization import QuantizationSpec, calibrate, post_training_quantize, quantize_model

    spec = QuantizationSpec()
    kernels = [layer.name for layer in network.model.layers if hasattr(layer, "kernel")]
    if setting.edges:
        spec.add([kernels[0], kernels[-1]], weight_bits=8, activation_bits=8)
    arguments = {
        "target": "onnxruntime",
        "quantization_spec": spec,
        "weight_bits": setting.weights,
        "activation_bits": setting.activations,
        "ranges": "learned",
        "weight_ranges": "learned",
    }
    if way != LSQ:
        return post_training_quantize(network.model, network.calibration, **arguments, verbose=0)
    return calibrate(quantize_model(network.model, **arguments), network.calibration, method="mse", verbose=0)


def train(name: str, seed: int, setting: str, way: str, quick: bool, weights: pathlib.Path) -> dict[str, Any]:
    """Trains a quantized network and writes its weights; returns accuracies and seconds."""
    from fashion_mnist import load_fashion_mnist
    from pretrained.network import written_whole

    network = loaded(name, seed, quick)
    images, labels = (array[: 10 * BATCH if quick else IMAGES] for array in load_fashion_mnist()[0])
    model = quantized(network, SETTINGS[setting], way)
    own = dataclasses.replace(network, model=model)
    before = {"before": own.accuracy(), "before dB": decibels(own, network)}
    start = time.perf_counter()
    WAYS[way](model, network, images, labels, SETTINGS[setting])
    seconds = time.perf_counter() - start
    with written_whole(weights) as partial:
        model.save_weights(partial)
    after = {"trained": own.accuracy(), "trained dB": decibels(own, network)}
    return {"float": network.accuracy(), **before, **after, "seconds": seconds, "trainer": trainer()}


def decibels(quantized: TrainedNetwork, network: TrainedNetwork) -> float:
    """The signal-to-noise ratio of the outputs for the test images."""
    from tensorflow_quantization.noise.signal_to_noise import SignalToNoise

    ratio = SignalToNoise()
    ratio.update(*(one.model.predict(network.evaluation, verbose=0) for one in (network, quantized)))
    return ratio.decibels


def trainer() -> str:
    """The backend and the device that trained."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return f"JAX {jax.__version__} on {jax.devices()[0].device_kind}"
    if backend == "torch":
        import torch

        return f"PyTorch {torch.__version__} on {torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}"
    import tensorflow

    devices = [device.name for device in tensorflow.config.list_physical_devices("GPU")]
    return f"TensorFlow {tensorflow.__version__} on {devices[0] if devices else 'CPU'}"


def measure(name: str, seed: int, setting: str, way: str, quick: bool, weights: pathlib.Path) -> float:
    """The accuracy of the file in ONNX Runtime."""
    from accuracy import WAYS as RUNS
    from accuracy import outputs_of
    from runtimes import Contender
    from tensorflow_quantization import export_onnx

    network = loaded(name, seed, quick)
    model = quantized(network, SETTINGS[setting], way)
    model.load_weights(weights)
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(model, pathlib.Path(folder, "model.onnx"))
        outputs = outputs_of("onnxruntime", Contender("ours", path, RUNS["onnxruntime"][0]), network.evaluation)
    return float(np.mean(outputs.argmax(-1) == network.labels))


def do_step(step: str, name: str, seed: str, setting: str, way: str, quick: str, folder: str) -> None:
    weights = pathlib.Path(folder, f"{stem(name, int(seed), setting, way)}.weights.h5")
    if step == "train":
        found = train(name, int(seed), setting, way, quick == "True", weights)
    else:
        found = {"file": measure(name, int(seed), setting, way, quick == "True", weights)}
    print()
    print(json.dumps(found))


def stem(name: str, seed: int, setting: str, way: str) -> str:
    """The name of the files of a training."""
    return f"{name}-{seed}-{setting}-{way.replace(', ', '-')}"


def measured(job: Job, quick: bool, folder: pathlib.Path, in_runtime: bool) -> dict[str, Any]:
    """The figures of one training; kept in a file of the folder."""
    from steps import run_step

    kept = folder / f"{stem(*job)}.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for step, key in (("train", "trained dB"), ("measure", "file")):
        if key not in found and (step == "train" or in_runtime):
            found.update(run_step(__file__, step, *job, quick, folder))
            kept.write_text(json.dumps(found))
    print(f"{stem(*job)}: {found}", file=sys.stderr)
    return found


def page(found: dict[Job, dict[str, Any]], date: datetime.date) -> str:
    """The Markdown page."""
    from machine import machine
    from tensorflow_quantization.text.tables import markdown_table

    rows = []
    for setting, name in dict.fromkeys((setting, name) for name, _, setting, _ in found):
        ways = [[v for (n, _, s, w), v in found.items() if (n, s, w) == (name, setting, way)] for way in WAYS]
        first = next(figures for figures in ways if figures)
        accuracies = [mean(first, "float"), mean(first, "before"), *(mean(each, "trained") for each in ways)]
        noises = [mean(first, "before dB"), *(mean(each, "trained dB") for each in ways)]
        rows.append((setting, name, str(len(first)), accuracies, noises))
    rows.sort(key=lambda row: list(SETTINGS).index(row[0]))
    head = _HEAD.format(
        trainers="; ".join(sorted({figures["trainer"] for figures in found.values()})),
        machine=machine(("keras", "tensorflow", "tensorflow-cpu", "onnxruntime")),
        date=date.isoformat(),
    )
    start = ("bits", "network", "seeds")
    accuracy = markdown_table((*start, "float", "before", *WAYS), [(*row[:3], *row[3]) for row in rows])
    noise = markdown_table((*start, "before", *WAYS), [(*row[:3], *row[4]) for row in rows])
    ran = [abs(figures["file"] - figures["trained"]) for figures in found.values() if "file" in figures]
    parts = [head, accuracy]
    if ran:
        parts.append(f"{len(ran)} of the files ran in ONNX Runtime: at most {100 * max(ran):.2f} points from Keras.")
    parts += [_NOISE_HEAD, noise]
    return "\n\n".join(parts) + "\n"


def mean(figures: list[dict[str, Any]], key: str) -> str:
    """The mean over the seeds, of a share in percent; "" without any."""
    if not figures:
        return ""
    value = float(np.mean([one[key] for one in figures]))
    return f"{value:.1f}" if key.endswith(" dB") else f"{100 * value:.2f}"


_HEAD = """# Accuracy after training

`benchmarks/training.py` trains six small quantized networks, whose float weights are trained on Fashion-MNIST, with
12,800 of its training images in batches of 64: for one epoch in W8A8 and W4A8, for two in W4A4 and W2A8. That takes
half a minute to three minutes on two cores. Figures are percent of the 10,000 test images in Keras, means over the
seeds.

- "before": `post_training_quantize` with 256 images, learned ranges and steps.
- "fine_tune" goes on from there and learns from the float model alone.
- "fine_tune, labels" learns from labels as well.
- "fine_tune, other statistics": by default, the statistics of BatchNormalization follow the training where weights have
  fewer than 4 bits, and stay as they are elsewhere. Here it is the other way round.
- "LSQ" is `fit` on labels after `calibrate` (arXiv:1902.08153), for as long and with the same rates.

The float networks are trained for three epochs, vit for four: with labels, their training goes on. In W4A4 and W2A8 the
first and the last layer have 8 bits, as in that paper.

Trained with {trainers}; {machine}, {date}."""

_NOISE_HEAD = """## Signal-to-noise

In dB, of the outputs for the test images beside the float model's: it tells more than the accuracy, in which 0.1 points
are ten images."""


def main() -> None:
    from pretrained.fashion import NETWORKS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK}, untrained, a few batches: does it run")
    parser.add_argument("--networks", nargs="+", metavar="NAME", default=list(NETWORKS), help=", ".join(NETWORKS))
    parser.add_argument("--settings", nargs="+", metavar="BITS", default=list(SETTINGS), help=", ".join(SETTINGS))
    parser.add_argument("--ways", nargs="+", metavar="WAY", default=list(WAYS), help="; ".join(WAYS))
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network; default: 3")
    parser.add_argument("--folder", type=pathlib.Path, help="where results are kept; default: a temporary one")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time; default: 1")
    parser.add_argument("--no-runtime", action="store_true", help="accuracy of Keras only, on a machine for training")
    parser.add_argument("--kept", action="store_true", help="only what is in FOLDER: nothing is trained")
    parser.add_argument("--docs", type=pathlib.Path, help="a folder for training.md")
    parser.add_argument("--step", nargs=7, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        do_step(*arguments.step)
        return

    networks, seeds = ([QUICK], 1) if arguments.quick else (arguments.networks, arguments.seeds)
    products = itertools.product(range(seeds), networks, arguments.settings, arguments.ways)
    jobs = [(name, seed, setting, way) for seed, name, setting, way in products]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.kept:
            jobs = [job for job in jobs if (folder / f"{stem(*job)}.json").exists()]
        with concurrent.futures.ThreadPoolExecutor(arguments.processes) as pool:
            rest = (arguments.quick, folder, not arguments.no_runtime)
            found = dict(zip(jobs, pool.map(lambda job: measured(job, *rest), jobs), strict=True))
    result = page(found, datetime.date.today())
    print(result)
    if arguments.docs:
        arguments.docs.mkdir(parents=True, exist_ok=True)
        (arguments.docs / "training.md").write_text(result)


if __name__ == "__main__":
    main()
