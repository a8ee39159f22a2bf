"""The page and the plot of `accuracy.py`, from its figures by network, seed, runtime and contender."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Iterator

import numpy as np

from machine import machine
from peers import missing
from tensorflow_quantization.text.tables import markdown_table
from trained import DESCRIPTIONS

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}
OURS = "ours, post_training_quantize"
_PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "onnxruntime", "openvino", "ai-edge-litert", "nncf")

#: By runtime and contender; of one network and one seed.
Figures = dict[str, dict[str, dict]]


def page(results: dict[str, list[Figures]], date: datetime.date) -> str:
    """The Markdown page.

    Args:
        results: by network, the figures of each seed.
        date: of the measurement.
    """
    networks = "\n".join(f"- `{name}`: {DESCRIPTIONS[name]}" for name in results)
    parts = [_HEAD.format(networks=networks, machine=machine(_PACKAGES), date=date.isoformat())]
    rest = [f"`{name}`" for name in DESCRIPTIONS if name not in results]
    parts += [f"Not measured in this run: {', '.join(rest)}."] if rest else []
    parts += [f"Not measured, because not installed: {name} (`pip install {name}`)." for name in missing()]
    for runtime, title in TITLES.items():
        parts.append(f"## {title}\n\n{markdown_table(_SUMMARY, list(_summary(results, runtime)))}")
    low = list(_low_bits(results))  # a quick run has none
    parts += [f"{_LOW}\n\n{markdown_table(_LOW_SUMMARY, low)}"] if low else []
    parts.append(_ALL)
    for name, seeds in results.items():
        count = f", {len(seeds)} trainings" if len(seeds) > 1 else ""
        parts.append(f"### {name}{count}\n\n{markdown_table(_DETAILS, list(_details(seeds)))}")
        parts += sorted(set(_failures(seeds)))
    return "\n\n".join(parts) + "\n"


_HEAD = """# Accuracy

`make accuracy` measures the files that this library writes without training beside those that a user would make instead
from the same weights and the same 256 samples: with ONNX Runtime's `quantize_static` (Q/DQ, weights per channel), NNCF
for OpenVINO, and TensorFlow's post-training int8 for LiteRT. The files run in their runtime. Signal-to-noise is that
of the outputs, against the float model in Keras: 6 dB more are half the error. Where nothing else is said, the network
comes trained:

{networks}

All inputs are real, and no input that is measured is in the calibration set. Processors without VNNI saturate 8-bit
products: so ONNX Runtime is told to add in 32 bits (`session.x64quantprecision`), and OpenVINO runs each file as it
comes and, after the same rounding, in floats; the better result counts. Of LSTMs, our files have the weights as
integers, and compute in floats.

{machine}, {date}.

![Signal-to-noise of the outputs by network: ours and the best peer](accuracy.svg)"""

_LOW = """## 4-bit weights

Of our files with weights of 4 bits and activations of 8, in ONNX Runtime: signal-to-noise in dB, then accuracy. No peer
was measured with such weights. `post_training_quantize` leaves the smallest kernels
[at 7 bits](../accuracy.md#3-round-better)."""

_ALL = """## All files

"minmax", "mse": `quantize_model` and `calibrate` with this method. W4: 4-bit weights. A16: activations of 16 bits.
"best effort": `post_training_quantize(effort="best")`. Seconds: what making the file took, on a machine that may have
been busy. Agreement: the share of samples with the same greatest output as in float. Accuracy of `silero`: the share of
steps where the package's own ONNX file hears speech or none, too; AUC: the area under the ROC curve, with these answers
as the truth. PSNR: to the images that the upscaler should have made. Where a network is trained several times, figures
are means."""

_SUMMARY = (
    "network",
    "calibrate, mse",
    "post_training_quantize",
    "best peer",
    "its dB",
    "ours − peer",
    "agreement",
    "peer's",
)
_LOW_FILES = {
    "calibrate, mse": "ours W4, mse",
    "post_training_quantize": "ours W4, post_training_quantize",
    "best effort": "ours W4, best effort",
}
_LOW_SUMMARY = ("network", *_LOW_FILES, "float", *_LOW_FILES)
_DETAILS = ("runtime", "file", "dB", "agreement", "accuracy", "AUC", "PSNR", "kB", "seconds")


def _summary(results: dict[str, list[Figures]], runtime: str) -> Iterator[tuple]:
    for name, seeds in results.items():
        files = means(seeds, runtime)
        ours, calibrated, peer = files.get(OURS, {}), files.get("ours, mse", {}), best_peer(files)
        theirs = files.get(peer, {})
        difference = f"{ours['snr'] - theirs['snr']:+.1f}" if "snr" in ours and "snr" in theirs else ""
        yield (
            name,
            _decibels(calibrated),
            _decibels(ours),
            peer,
            _decibels(theirs),
            difference,
            _percent(ours, "agreement"),
            _percent(theirs, "agreement"),
        )


def _low_bits(results: dict[str, list[Figures]]) -> Iterator[tuple]:
    for name, seeds in results.items():
        files = means(seeds, "onnxruntime")
        ours = [files[file] for file in _LOW_FILES.values() if file in files]
        if ours:
            yield (name, *map(_decibels, ours), *(_percent(file, "accuracy") for file in [files["float"], *ours]))


def means(seeds: list[Figures], runtime: str) -> dict[str, dict[str, float]]:
    """The figures of each contender that ran, averaged over the seeds."""
    found: dict[str, dict[str, float]] = {}
    for contender in seeds[0][runtime]:
        figures = [seed[runtime].get(contender, {}) for seed in seeds]
        if not any("failed" in one for one in figures):
            found[contender] = {key: float(np.mean([one[key] for one in figures])) for key in figures[0]}
    return found


def best_peer(files: dict[str, dict[str, float]]) -> str:
    """The name of the contender with the most signal-to-noise that is neither ours nor float; "" if none ran."""
    peers = [name for name in files if not name.startswith(("float", "ours"))]
    return max(peers, key=lambda name: files[name]["snr"], default="")


def _details(seeds: list[Figures]) -> Iterator[tuple]:
    for runtime, title in TITLES.items():
        for contender, file in means(seeds, runtime).items():
            yield (
                title,
                contender,
                _decibels(file) if contender != "float" else "",
                _percent(file, "agreement") if contender != "float" else "",
                _percent(file, "accuracy"),
                f"{file['auc']:.4f}" if "auc" in file else "",
                f"{file['psnr']:.2f}" if "psnr" in file else "",
                f"{file['bytes'] / 1e3:.0f}",
                f"{file['seconds']:.1f}" if "seconds" in file else "",
            )


def _failures(seeds: list[Figures]) -> Iterator[str]:
    for figures in seeds:
        for runtime, title in TITLES.items():
            for contender, file in figures[runtime].items():
                if "failed" in file:
                    yield f"{title}, {contender}: failed, `{file['failed'][:200]}`"


def _decibels(file: dict) -> str:
    return f"{file['snr']:.1f}" if "snr" in file else "failed"


def _percent(file: dict, key: str) -> str:
    return f"{100 * file[key]:.2f} %" if key in file else ""


def plot(results: dict[str, list[Figures]], path: pathlib.Path) -> None:
    """Bars of the signal-to-noise of ours and of the best peer, by runtime and network."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "accuracy"
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(len(TITLES), 1, figsize=(9, 7), sharex=True, layout="constrained")
    places, width = np.arange(len(results)), 0.28
    for row, (runtime, title) in zip(rows, TITLES.items(), strict=True):
        networks = [means(seeds, runtime) for seeds in results.values()]
        bars = {
            "calibrate, mse": [files.get("ours, mse", {}) for files in networks],
            "post_training_quantize": [files.get(OURS, {}) for files in networks],
            "best peer": [files.get(best_peer(files), {}) for files in networks],
        }
        for i, (label, files) in enumerate(bars.items()):
            color = ("#9fa8da", "#3f51b5", "#b0bec5")[i]
            row.bar(places + (i - 1) * width, [f.get("snr", 0.0) for f in files], width, label=label, color=color)
        row.set_title(title, loc="left", fontsize=10)
        row.set_ylabel("dB")
        row.spines[["top", "right"]].set_visible(False)
    rows[0].legend(frameon=False, ncols=3)
    rows[-1].set_xticks(places, list(results))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
