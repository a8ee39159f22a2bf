"""The page and the plot of `latency.py`, from its figures by network, runtime, batch size and contender."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Iterator

import numpy as np

from machine import machine
from peers import missing
from tensorflow_quantization.text.tables import markdown_table

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}
_PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "onnxruntime", "openvino", "ai-edge-litert", "nncf")

Figures = dict[str, dict]


def page(results: dict[str, Figures], rounds: dict[int, int], threads: int, date: datetime.date) -> str:
    """The Markdown page.

    Args:
        results: by network, runtime, batch size and contender.
        rounds: how often each contender was called, by batch size.
        threads: of each runtime.
        date: of the measurement.
    """
    parts = [_HEAD.format(rounds=_sentence(rounds), threads=threads, machine=machine(_PACKAGES), date=date.isoformat())]
    parts += [f"Not measured, because not installed: {name} (`pip install {name}`)." for name in missing()]
    for runtime, title in TITLES.items():
        rows = list(_summary(results, runtime))
        ratios = np.array([row[-1] for row in rows])
        cells = [[*row[:-1], f"{row[-1]:.2f}"] for row in rows]
        parts.append(f"## {title}\n\n{markdown_table(_SUMMARY, cells)}")
        parts.append(f"Ours against the fastest peer, geometric mean: {np.exp(np.log(ratios).mean()):.3f}.")
    parts.append(_ALL)
    parts += [f"### {name}\n\n{markdown_table(_DETAILS, list(_details(figures)))}" for name, figures in results.items()]
    return "\n\n".join(parts) + "\n"


_HEAD = """# Latency

`make latency` measures the files that this library writes beside those that a user would make instead from the same
float model: with ONNX Runtime's `quantize_static` (Q/DQ, weights per channel; activations uint8 and int8), NNCF's
post-training quantization (both presets) for OpenVINO, and TensorFlow's post-training int8 for LiteRT. Weights are
random, with the batch normalization statistics of photographs; all calibrate on the same images.

The files of a network take turns in a process of their runtime, in random order, {rounds},
{threads} threads; a call that is not timed goes before each that is. A time is the median, a ratio the median of the
ratios of each round. OpenVINO's default float is bfloat16 where the processor has it. Shapes are fixed where a runtime
can fix them. Threads of ONNX Runtime stop spinning when a call ends: they would hold up the file whose turn is next.

{machine}, {date}.

![Latency of float files, ours and the fastest peer's](latency.svg)"""

_ALL = """## All files

Integer share: of the multiply-accumulates, as the runtime itself tells. Cosine and top-1: how the logits of 32 images
agree with the logits of the float model in Keras; for the cosine, logits are taken less their mean over the images,
which is most of them where weights are random. A file that a runtime does not load is not in its rows."""


def _sentence(rounds: dict[int, int]) -> str:
    return " and ".join(f"{count} rounds of batch {batch}" for batch, count in rounds.items())


_SUMMARY = ("network", "batch", "float ms", "ours ms", "float / ours", "fastest peer", "its ms", "ours / peer")
_DETAILS = ("runtime", "batch", "file", "ms", "against float", "MB", "integer share", "cosine", "top-1")


def _summary(results: dict[str, Figures], runtime: str) -> Iterator[tuple]:
    for name, figures in results.items():
        for batch, files in figures[runtime].items():
            ours, peer = f"ours, {runtime}", fastest_peer(files)
            yield (
                name,
                batch,
                f"{_ms(files['float']):.2f}",
                f"{_ms(files[ours]):.2f}",
                f"{_ratio(files['float'], files[ours]):.2f}",
                peer,
                f"{_ms(files[peer]):.2f}",
                _ratio(files[ours], files[peer]),
            )


def fastest_peer(files: dict[str, dict]) -> str:
    """The name of the contender with the least median that is neither ours nor float."""
    peers = [name for name in files if not name.startswith(("float", "ours"))]
    return min(peers, key=lambda name: _ms(files[name]))


def _details(figures: Figures) -> Iterator[tuple]:
    for runtime, batches in figures.items():
        for batch, files in batches.items():
            for name, file in files.items():
                yield (
                    TITLES[runtime],
                    batch,
                    name,
                    f"{_ms(file):.2f}",
                    f"{_ratio(file, files['float']):.2f}",
                    f"{file['bytes'] / 1e6:.1f}",
                    f"{100 * file['integer_share']:.1f} %",
                    f"{file['cosine']:.3f}",
                    f"{100 * file['top1']:.0f} %",
                )


def _ms(file: dict) -> float:
    return 1e3 * float(np.median(file["seconds"]))


def _ratio(file: dict, other: dict) -> float:
    return float(np.median(np.array(file["seconds"]) / np.array(other["seconds"])))


def plot(results: dict[str, Figures], path: pathlib.Path) -> None:
    """Bars of ours and the fastest peer, as a part of the float file's latency, by runtime and network; batch 1."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "latency"
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(len(TITLES), 1, figsize=(9, 7), sharex=True, layout="constrained")
    places, width = np.arange(len(results)), 0.38
    for row, (runtime, title) in zip(rows, TITLES.items(), strict=True):
        batches = [figures[runtime]["1"] for figures in results.values()]
        ours = [_ratio(files[f"ours, {runtime}"], files["float"]) for files in batches]
        peers = [_ratio(files[fastest_peer(files)], files["float"]) for files in batches]
        row.bar(places - width / 2, ours, width, label="ours", color="#3f51b5")
        row.bar(places + width / 2, peers, width, label="fastest peer", color="#b0bec5")
        row.axhline(1, color="black", linewidth=0.8)
        row.set_title(title, loc="left", fontsize=10)
        row.set_ylabel("of float's latency")
        row.spines[["top", "right"]].set_visible(False)
    rows[0].legend(frameon=False, ncols=2)
    rows[-1].set_xticks(places, list(results))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
