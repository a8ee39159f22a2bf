"""The page of `scale.py`, from its figures by backend, step and arguments."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from machine import machine
from tensorflow_quantization.text.tables import markdown_table

_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "tensorflow-model-optimization", "onnx-ir")
_STEPS = ("backend", "jit_compile", "precision", "float ms", "ema", "learned", "frozen", "first step: ema", "learned")
_KERNELS = ("backend", "ReLU ms", "ours", "the backend's own")
_MEMORY = ("backend", "jit_compile", "float MB", "ema", "learned", "frozen", "quantizers / weights")
_SIZES = ("network", "layers", "weights M", "quantize_model s", "calibrate s", "export s", "export peak MB")
#: What runs a peer, by the step that measures it.
_PEERS = {"torch": "PyTorch, `prepare_qat_fx`", "tfmot": "TFMOT, tf-keras"}

#: What is said of the networks of `measure_size`.
_NETWORKS = {
    "chain": "A chain of small convolutions.",
    "decoder": "A decoder: causal attention and MLPs of 1,536 features.",
}


def page(figures: Mapping[str, Any], rounds: int, batch: int) -> str:
    """The Markdown page.

    Args:
        figures: by backend, step and arguments, as `scale.Figures` holds them.
        rounds: how often each step was timed.
        batch: images of a step whose memory was measured.
    """
    found = {tuple(name.split()): values for name, values in figures.items()}
    memory, sizes, kernels = list(_memory_rows(found)), list(_size_rows(found)), list(_kernel_rows(found))
    parts = [
        _HEAD.format(machine=machine(_PACKAGES), date=datetime.date.today().isoformat()),
        _STEPS_HEAD.format(rounds=rounds),
        markdown_table(_STEPS, list(_step_rows(found))),
        *([_KERNELS_HEAD, markdown_table(_KERNELS, kernels)] if kernels else []),
        *([_MEMORY_HEAD.format(batch=batch), markdown_table(_MEMORY, memory)] if memory else []),
        _SIZES_HEAD.format(networks=" ".join(_NETWORKS[name] for name in dict.fromkeys(row[0] for row in sizes))),
        markdown_table(_SIZES, sizes),
    ]
    return "\n\n".join(parts) + "\n"


_HEAD = """# Scale

`make scale` measures what quantization adds to training, and what each function takes by the size of a network.

{machine}; {date}."""

_STEPS_HEAD = """## A training step

ResNet-20 on 32 × 32 images, batches of 64, `target="onnxruntime"`. The float model and the quantized ones take turns,
{rounds} rounds of three steps each, of which the last counts; a figure of a mode is the median ratio to the float step
of the same round. "frozen" is what `calibrate` leaves. The first step, with tracing and compilation, is a ratio, too.
A peer is compared with the float step of its own framework. With `jit_compile="auto"`, TensorFlow uses XLA on GPUs and
TPUs, not on processors; "yes" is `jit_compile=True`."""

_KERNELS_HEAD = """### One tensor

The fake quantization of the first convolution's output for 64 images, 1 M numbers, with its gradient: ratios to the
same of a ReLU. The backend's own kernels are `tf.quantization.fake_quant_with_min_max_args` and
`torch.fake_quantize_per_tensor_affine`, which round some values to other integers than the runtimes do. On JAX, and on
TensorFlow with XLA, the compiler joins ours with what is before and after it."""

_MEMORY_HEAD = """## Memory of training

The most memory that two steps with {batch} images take beyond the process before them, with compilation; modes are
ratios to float. Last: bytes of what quantizers hold in bytes of the weights."""

_SIZES_HEAD = """## By size

{networks} Two samples calibrate. The peak of the export is memory beyond the process before it."""


def _step_rows(found: Mapping[tuple[str, ...], Any]) -> Iterator[tuple]:
    for (backend, step, *arguments), values in found.items():
        if step == "steps":
            jit, precision = arguments[:2]
            modes = [f"{values[mode]['ratio']:.2f}" for mode in ("ema", "learned", "frozen")]
            first = [f"{values[mode]['first'] / values['float']['first']:.2f}" for mode in ("ema", "learned")]
            yield backend, jit, precision, f"{values['float']['ms']:.0f}", *modes, *first
        elif step in _PEERS:
            first = values["ema"]["first"] / values["float"]["first"]
            ms, ratio = values["float"]["ms"], values["ema"]["ratio"]
            yield _PEERS[step], "", "float32", f"{ms:.0f}", f"{ratio:.2f}", "", "", f"{first:.2f}", ""


def _kernel_rows(found: Mapping[tuple[str, ...], Any]) -> Iterator[tuple]:
    for (backend, step, *_), values in found.items():
        if step == "kernels":
            ratios = [f"{values[name]['ratio']:.2f}" if name in values else "" for name in ("ours", "own")]
            yield backend, f"{values['relu']['ms']:.2f}", *ratios


def _memory_rows(found: Mapping[tuple[str, ...], Any]) -> Iterator[tuple]:
    for backend, _, jit in dict.fromkeys(name[:3] for name in found if name[1] == "memory"):
        modes = {name[3]: values for name, values in found.items() if name[:3] == (backend, "memory", jit)}
        base = modes["float"]["peak"]
        ratios = [f"{modes[mode]['peak'] / base:.2f}" for mode in ("ema", "learned", "frozen")]
        state = max(values["quantizers"] / values["weights"] for values in modes.values())
        yield backend, jit, f"{base / 1e6:.0f}", *ratios, f"{state:.2%}"


def _size_rows(found: Mapping[tuple[str, ...], Any]) -> Iterator[tuple]:
    for (_, step, *arguments), values in found.items():
        if step == "size":
            seconds = [f"{values[f'{name} seconds']:.1f}" for name in ("quantize_model", "calibrate", "export_onnx")]
            peak = values["export_onnx peak"] / 1e6
            yield arguments[0], values["layers"], f"{values['weights'] / 4e6:.2f}", *seconds, f"{peak:.0f}"
