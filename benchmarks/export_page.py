"""The page of `export.py`, from its figures by network."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from machine import machine
from tensorflow_quantization.text.tables import markdown_table

_PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "tf2onnx", "onnx-ir", "onnxruntime", "openvino")
_EXPORTS = ("network", "weights MB", "Keras s", "ours s", "times faster", "Keras peak", "ours peak")
_FILES = ("network", "Keras MB", "ours MB", "Keras nodes", "ours nodes")
_LATENCY = ("network", "runtime", "Keras ms", "ours ms", "ours / Keras")


def page(results: Mapping[str, dict], chains: Mapping[str, float], exports: int, rounds: int, threads: int) -> str:
    """The Markdown page.

    Args:
        results: by network, as `export.figures_of` gives them.
        chains: seconds by depth.
        exports: how often each network was exported by each.
        rounds: how often each file was run.
        threads: of each runtime.
    """
    date = datetime.date.today().isoformat()
    loading = [f"- {name}, {runtime}: {error}" for name, runtime, error in _errors(results)]
    parts = [
        _HEAD.format(exports=exports, machine=machine(_PACKAGES), date=date),
        markdown_table(_EXPORTS, [_export_row(name, r["exports"]) for name, r in results.items()]),
        "## Files",
        markdown_table(_FILES, [_file_row(name, r["files"]) for name, r in results.items()]),
        _LATENCY_HEAD.format(rounds=rounds, threads=threads),
        markdown_table(_LATENCY, [row for name, r in results.items() for row in _latency_rows(name, r["latency"])]),
        *([_NOT_LOADED, "\n".join(loading)] if loading else []),
        _CHAINS,
        markdown_table(["layers", "s", "ms a layer"], [_chain_row(int(d), s) for d, s in chains.items()]),
    ]
    return "\n\n".join(parts) + "\n"


_HEAD = """# Export

`make benchmark-export` measures what it costs to write a float model with `export_onnx`, and what the file is worth,
beside Keras' own `model.export(path, format="onnx")` of the same model, which goes through tf2onnx. Weights are random.

{machine}; {date}.

## Cost

Median of {exports} exports, each the first one in a process of its own. Peak: memory beyond the process with
the loaded model, in sizes of the weights."""

_NOT_LOADED = "What the runtimes say of the files of Keras that they do not load or run:"

_LATENCY_HEAD = """## Latency of the files

One image; both files take turns, {rounds} rounds, {threads} threads. A time is the median, a ratio the median of the
ratios of each round. Runtimes have their default settings; OpenVINO's is bfloat16 where the processor has it, and its
models are loaded for a batch of one."""

_CHAINS = """## Cost by depth

Chains of convolutions, medians of three exports."""


def _export_row(name: str, exports: Mapping[str, dict]) -> tuple:
    keras, ours = exports["Keras"], exports["ours"]
    weights = ours["weights"]
    return (
        name,
        f"{weights / 1e6:.1f}",
        f"{keras['seconds']:.1f}",
        f"{ours['seconds']:.2f}",
        f"{keras['seconds'] / ours['seconds']:.0f}",
        f"{keras['peak'] / weights:.1f}",
        f"{ours['peak'] / weights:.1f}",
    )


def _file_row(name: str, files: Mapping[str, dict]) -> tuple:
    sizes = [f"{files[e]['bytes'] / 1e6:.1f}" for e in ("Keras", "ours")]
    return (name, *sizes, files["Keras"]["nodes"], files["ours"]["nodes"])


def _latency_rows(name: str, latency: Mapping[str, dict]) -> Iterator[tuple]:
    for runtime, files in latency.items():
        keras, ours = files["Keras"], files["ours"]
        if "error" in keras:
            yield name, runtime, "does not run", f"{ours['ms']:.2f}", ""
        else:
            yield name, runtime, f"{keras['ms']:.2f}", f"{ours['ms']:.2f}", f"{ours['ratio']:.3f}"


def _errors(results: Mapping[str, dict]) -> Iterator[tuple[str, str, str]]:
    for name, figures in results.items():
        for runtime, files in figures["latency"].items():
            if "error" in files["Keras"]:
                yield name, runtime, files["Keras"]["error"]


def _chain_row(depth: int, seconds: float) -> tuple:
    return depth, f"{seconds:.3f}", f"{1e3 * seconds / depth:.2f}"
