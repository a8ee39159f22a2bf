"""The page and the plot of `tensorrt.py`, from its figures by network and file."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from machine import machine
from tensorflow_quantization.text.tables import markdown_table

_PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "keras-hub", "onnxruntime", "tensorrt-rtx")

#: By name, the figures of each file.
Figures = dict[str, dict]
#: Like beside like: ours and ModelOpt's with the same precision of what is not quantized.
PAIRS = {"float32": ("ours", "ModelOpt"), "float16": ("ours, float16", "ModelOpt, float16")}
#: Two ways to calibrate in float32, ours and ModelOpt's; and our one call, for trained networks.
OURS, PEERS = ("ours", "ours, max"), ("ModelOpt", "ModelOpt, max")
ONE_CALL = "ours, post_training_quantize"
#: The last digit of a table: a smaller difference is none.
_DECIBELS, _BYTES = 0.1, 1e5


def page(results: dict[str, Figures], known: Sequence[str]) -> str:
    """The Markdown page.

    Args:
        results: by network and file.
        known: the names of all networks.
    """
    parts = [_HEAD.format(machine=f"{machine(_PACKAGES)}; {_modelopt()}", dates=_dates(results))]
    parts.append(_extent(results, known))
    for precision, pair in PAIRS.items():
        parts.append(f"## What is not quantized in {precision}\n\n{markdown_table(_SUMMARY, _summary(results, pair))}")
    parts.append(f"{_NOISE}\n\n{markdown_table(_NOISE_TITLES, list(_noise(results)))}")
    parts.append(f"{_WORSE}\n\n{_lines(list(worse(results))) or 'Nowhere.'}")
    parts.append(f"## Not in Int8, not built, not run\n\n{_lines(list(_failures(results))) or 'Nothing.'}")
    parts.append(_ALL)
    parts += [f"### {name}\n\n{markdown_table(_DETAILS, list(_details(files)))}" for name, files in results.items()]
    return "\n\n".join(parts) + "\n"


_HEAD = """# TensorRT

`make tensorrt` measures the files that this library writes for TensorRT beside the files that NVIDIA's
[ModelOpt](https://github.com/NVIDIA/Model-Optimizer) (`modelopt.onnx.quantization.quantize`, int8) makes of the same
float model with the same 16 calibration inputs. TensorRT for RTX parses and builds all files for a batch of one,
without a GPU; [`runtime_report`](../reports.md#tensorrt-without-a-gpu) reads its list of kernels. Weights are random,
with the batch normalization statistics of photographs (224 × 224; BERT: 128 random tokens), but for the networks
called trained, from the [accuracy page](accuracy.md): 64 inputs calibrate them, and up to 256 others measure.

- Int8: the share of the multiply-accumulates of convolutions and matrix products.
- Float kernels read, write and compute in float only. Float MB: tensors in float, as often as kernels read and write
  them. Constants do not count.
- dB: signal-to-noise ratio of the outputs on other inputs, 16 where weights are random, in ONNX Runtime, which computes
  each node by itself here. The signal is the float output less its mean over the inputs. Of several outputs, the
  lowest.
- No engine ran, and no latency was measured: no GPU was at hand. Kernels are finally chosen on the device. In the
  builder's list a convolution in Int8 writes float32 and the next kernel rounds, also where the rest is float16.

{machine}; {dates}.

![Float tensors and signal-to-noise of our files and ModelOpt's](tensorrt.svg)"""

_NOISE = """## Signal-to-noise

Ours: `calibrate` with its default, mse, and with minmax; for trained networks, `post_training_quantize` too, which also
rounds weights and corrects biases. ModelOpt's defaults are entropy, and float16 for what is not quantized. Best − best:
the better of our two calibrations less the better of ModelOpt's. Networks with random weights and ratios near 0 dB
amplify any noise: their differences are chance."""

_WORSE = """## Where ours is worse

More kernels, float kernels or bytes of float tensors than ModelOpt, in the same precision; or less signal-to-noise in
float32, the better of two calibrations each; by 0.1 MB or 0.1 dB at least. ModelOpt leaves matrix products of a single
row in float, such as the last layer of a classifier for a batch of one. So less is in Int8, and a float kernel more;
but it is a single kernel, while after an Int8 product another one scales its sums and adds the bias."""

_ALL = """## All files

Seconds: what quantizing, calibrating and writing took (the float16 file of ours: writing alone), and what parsing and
building took, with the start of a process; other work ran on the machine."""

_SUMMARY = (
    "network",
    "Int8: ours",
    "ModelOpt",
    "kernels",
    "ModelOpt",
    "float kernels",
    "ModelOpt",
    "float MB",
    "ModelOpt",
)
_NOISE_TITLES = (
    "network",
    "ours, mse",
    "max",
    "post_training_quantize",
    "ModelOpt, entropy",
    "max",
    "best − best",
    "ours, float16",
    "ModelOpt, float16",
    "default placement",
)
_DETAILS = ("file", "Int8", "kernels", "float kernels", "float MB", "dB", "seconds", "build s")


def _modelopt() -> str:
    import peers

    try:
        return peers.modelopt_versions(peers.modelopt_environment(install=False))
    except RuntimeError:
        return "ModelOpt is not installed"


def _dates(results: dict[str, Figures]) -> str:
    """When our files were measured, and ModelOpt's, each with the number of networks."""
    parts = []
    for whose in ("ours", "ModelOpt"):
        dates = Counter(files[whose]["date"] for files in results.values() if whose in files)
        counted = ", ".join(f"{date} ({networks} networks)" for date, networks in sorted(dates.items()))
        parts.append(f"{whose}: {counted or 'never'}")
    return "; ".join(parts)


def _extent(results: dict[str, Figures], known: Sequence[str]) -> str:
    left = [name for name in known if name not in results]
    return f"Measured: {len(results)} of {len(known)} networks." + (f" Not yet: {', '.join(left)}." if left else "")


def _lines(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _summary(results: dict[str, Figures], pair: tuple[str, str]) -> list[list[str]]:
    rows = []
    for name, files in results.items():
        cells = [_cells(files.get(contender, {})) for contender in pair]
        rows.append([name, *(cell for both in zip(*cells, strict=True) for cell in both)])
    return rows


def _cells(file: dict) -> list[str]:
    """Int8, kernels, float kernels, float MB."""
    if "kernels" not in file:
        return ["–"] * 4
    share = f"{100 * file['integer_share']:.2f} %"
    return [share, str(file["kernels"]), str(file["float_kernels"]), f"{file['float_bytes'] / 1e6:.1f}"]


def _noise(results: dict[str, Figures]) -> Iterator[list[str]]:
    for name, files in results.items():
        ours, theirs = best_of(files, OURS), best_of(files, PEERS)
        difference = f"{ours - theirs:+.1f}" if ours is not None and theirs is not None else "–"
        names = ("ours, float16", "ModelOpt, float16", "ours, default placement")
        shown = [_decibels(files.get(contender, {})) for contender in (*OURS, ONE_CALL, *PEERS)]
        yield [name, *shown, difference, *(_decibels(files.get(contender, {})) for contender in names)]


def best_of(files: Figures, contenders: Sequence[str]) -> float | None:
    """The best signal-to-noise ratio of some files; `None` if none ran."""
    return max((files[c]["snr"] for c in contenders if "snr" in files.get(c, {})), default=None)


def _decibels(file: dict) -> str:
    return f"{file['snr']:.1f}" if "snr" in file else "–"


def worse(results: dict[str, Figures]) -> Iterator[str]:
    """A line for each figure in which our file is worse than ModelOpt's."""
    measures = {
        "kernels": ("kernels", 1, 1),
        "float_kernels": ("float kernels", 1, 1),
        "float_bytes": ("MB in float", 1e6, _BYTES),
    }
    for name, files in results.items():
        for pair in PAIRS.values():
            for key, (title, unit, least) in measures.items():
                mine, peer = (files.get(contender, {}).get(key) for contender in pair)
                if mine is not None and peer is not None and round((mine - peer) / least) > 0:
                    digits = 0 if unit == 1 else 1
                    yield f"{name}, {pair[0]}: {mine / unit:.{digits}f} {title}, ModelOpt {peer / unit:.{digits}f}"
        ours, theirs = best_of(files, OURS), best_of(files, PEERS)
        if ours is not None and theirs is not None and round((theirs - ours) / _DECIBELS) > 0:
            yield f"{name}: {ours:.1f} dB, ModelOpt {theirs:.1f}"


def _failures(results: dict[str, Figures]) -> Iterator[str]:
    for name, files in results.items():
        for contender, file in files.items():
            for key in ("failed", "not built", "not run"):
                if key in file:
                    yield f"{name}, {contender}: {key}: `{' '.join(file[key].split())[:300]}`"
            # Of the default placement and of float16, it is what the table says.
            if contender in PAIRS["float32"] and file.get("fallbacks"):
                found = file["fallbacks"]
                shown = ", ".join(f"{node} ({kind}, {macs:,} MACs)" for node, kind, macs, _ in found[:4])
                yield f"{name}, {contender}: {len(found)} products not in Int8: {shown}"


def _details(files: Figures) -> Iterator[list[str]]:
    for contender, file in files.items():
        seconds = [f"{file[key]:.1f}" if key in file else "–" for key in ("seconds", "build_seconds")]
        yield [contender, *_cells(file), _decibels(file), *seconds]


def plot(results: dict[str, Figures], path: pathlib.Path) -> None:
    """Bars of the bytes of float tensors, in files with the rest in float16, and of the signal-to-noise, by network."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tensorrt"
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, 1, figsize=(max(9, 0.3 * len(results)), 6), sharex=True, layout="constrained")
    places, width = np.arange(len(results)), 0.38
    ours, theirs = PAIRS["float16"]
    for row, key, title in ((rows[0], "float_bytes", "float tensors, MB (rest float16)"), (rows[1], "snr", "dB")):
        unit = 1e6 if key == "float_bytes" else 1
        for i, (contender, label, color) in enumerate(((ours, "ours", "#3f51b5"), (theirs, "ModelOpt", "#b0bec5"))):
            values = [files.get(contender, {}).get(key, 0) / unit for files in results.values()]
            row.bar(places + (i - 0.5) * width, values, width, label=label, color=color)
        row.set_ylabel(title)
        row.spines[["top", "right"]].set_visible(False)
    rows[0].legend(frameon=False, ncols=2)
    rows[-1].set_xticks(places, list(results), rotation=90)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
