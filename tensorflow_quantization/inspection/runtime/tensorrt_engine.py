"""The kernels of the engine that TensorRT for RTX builds for a file, read from the builder's log.

Parser and builder need no GPU. No function of TensorRT lists the kernels of an engine without a GPU, but the builder's
log has one message with a line for each kernel. Its format is no contract, so each line has to match `_LINE`:
any other line is an error, never a wrong share.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import onnx
import onnx_ir as ir

from tensorflow_quantization.inspection.runtime import tensorrt_build
from tensorflow_quantization.inspection.runtime.kernels import Kernel, nodes_of, tags
from tensorflow_quantization.onnx_graph.operators import FACTORS
from tensorflow_quantization.onnx_graph.quantization import Quantization
from tensorflow_quantization.onnx_graph.queries import is_dequantize, name_of
from tensorflow_quantization.text.messages import must_be_one_of

#: Rules of `check_onnx` whose violation crashes the process: none, for another process builds.
REFUSED = ()

#: A kernel lists all nodes that it computes.
NAMES_ALL_NODES = True

#: Seconds for a build: far above what a large network needs.
_MOST_SECONDS = 600

#: Kernels of a convolution or a matrix product. The first tensor is a factor; the other factor is a constant in few
#: bits, or the second tensor.
_PRODUCTS = {"correlation", "deconv", "gemm"}
#: A product with what its factors come from and what follows, compiled on the device.
_FUSED_PRODUCT = "runtime_fusion"
_GENERATED, _ELEMENTWISE = "kgen", "__myl_"
#: Both products of an attention and the softmax between them: generated, too, but not elementwise. It is fused only if
#: all factors have the dtype of the queries, keys and values.
_ATTENTION, _ATTENTION_NAME = "mha", "_gemm_mha"

#: Parts of the name of a generated kernel that only changes the layout or the dtype: "__myl_MoveConc_myl0_1".
_MOVES = {"Cast", "Conc", "Move", "Resh", "Slic", "Tran"}

_FLOATS = ("Float", "BFloat16", "Half")
_FEW_BITS = ("Int8", "FP8", "Int4", "FP4")
#: The bits of an element by the name of its dtype.
_BITS = {"Int64": 64, "Float": 32, "Int32": 32, "BFloat16": 16, "Half": 16, "Bool": 8, "E8M0": 8, "FP8": 8, "Int8": 8}
_BITS |= {"UInt8": 8, "FP4": 4, "Int4": 4}

_TENSOR = (
    r"\{ Name: [^{}]*, Dimensions: \[([\d,]*)\], Strides: \[[\d,]*\], StrideOrder: \[[\d,]*\], "
    r"Datatype: (\w+), Format: [^{}]* \}"
)
_PLAIN = re.sub(r"(?<!\\)\((?!\?)", "(?:", _TENSOR)
_TENSORS = rf"\[(?: {_PLAIN}(?:, {_PLAIN})*)?\]"
_LINE = re.compile(
    rf"Name: (?P<name>[^,{{}}]*), LayerType: (?P<type>\w+), Inputs: (?P<inputs>{_TENSORS})"
    rf", Constants: (?P<constants>{_TENSORS}), Outputs: (?P<outputs>{_TENSORS})"
    r"(?:, (?!Metadata)\w+: [^,{}]*)*, Metadata: (?P<metadata>[^{}]*)"
)

#: Why kernels of a type are in float, and what to do.
_REASONS = {
    "deconv": (
        "TensorRT has no integer kernel for transposed convolutions",
        "Export for target='tensorrt', which writes it as a convolution, or leave it without quantizers.",
    ),
    "avgpool": (
        "an average pool runs in Int8 only between quantizers of one scale",
        "Quantize its input and its output with the same scale, and set count_include_pad to 1 if it pads nothing.",
    ),
    "maxpool": (
        "a max pool runs in Int8 only between quantizers of one scale",
        "Quantize its input and its output with the same scale.",
    ),
}
#: By the dtype in a file: its name, and the oldest compute capability that builds it.
_OLDEST = {"float8e4m3fn": ("FP8", 8.9), "int4": ("INT4", 8.0)}
_TURING = ("convolutions have no Int8 kernel for compute capability 7.5", "Build for compute capability 8.0 or newer.")
_NEEDS_HALF = "Compute capability 7.5 multiplies no float32: export_onnx(model, path, precision='float16')."
_FP8 = ("it is quantized to FP8", "To run it in Int8, quantize it to int8.")
_INT4 = ("only its weights are quantized, to Int4", "To run it in Int8, quantize its input and its weights to int8.")


class _Tensor(NamedTuple):
    dtype: str
    bytes: int


def installed_version() -> str:
    """The runtime's name and version.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise ImportError(
            "runtime_report(runtime='tensorrt') needs TensorRT for RTX: pip install tensorrt-rtx. It builds without a "
            "GPU; NVIDIA publishes it for Windows, and for Linux on x86-64."
        ) from error
    return f"TensorRT for RTX {tensorrt_rtx.__version__}"


def executed(
    path: pathlib.Path, shapes: Mapping[str, Sequence[int]], compute_capability: str | float | None = None
) -> list[Kernel]:
    """The kernels of the engine, in the order of their execution.

    Args:
        path: a file written by `write_tagged`.
        shapes: see `build`.
        compute_capability: see `build`.

    Raises:
        ValueError: there is no such compute capability, or it has no kernels for a dtype of the file.
        RuntimeError: TensorRT does not parse or build the file, or its log is not in the format that is known here.
    """
    model = ir.from_proto(onnx.load(path, load_external_data=False))
    _check_dtypes(model, compute_capability)
    newest, opset = onnx.defs.onnx_opset_version(), model.opset_imports.get("", 1)
    if opset > newest:
        raise RuntimeError(
            f"its opset {opset} is newer than {newest}, the newest that the installed onnx knows, so its "
            "multiply-accumulates cannot be counted: install a newer onnx, or write the file with an older opset"
        )
    kernels = [_kernel(line) for line in build(path, shapes, compute_capability)]
    if str(compute_capability) == "7.5":
        kernels = [_explained(kernel, _TURING) if kernel.type == "correlation" else kernel for kernel in kernels]
    products = {index for index, node in enumerate(nodes_of(model)) if node.op_type in FACTORS}
    return _with_generated_products(kernels, products)


def build(
    path: str | os.PathLike, shapes: Mapping[str, Sequence[int]], compute_capability: str | float | None = None
) -> list[str]:
    """Parse and build a file, and return the line that the builder's log has for each kernel.

    Args:
        path: the path of an `.onnx` file.
        shapes: the shape of each input by name; the engine is built for these shapes.
        compute_capability: that of the GPU to build for, "8.6". Default: `None`, all from 8.0 on.

    Raises:
        ValueError: there is no such compute capability.
        RuntimeError: TensorRT does not parse or build the file, or its log has no list of kernels.
    """
    name = _member(compute_capability)
    request = {"path": os.fspath(path), "shapes": {k: list(v) for k, v in shapes.items()}, "compute_capability": name}
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = pathlib.Path(folder, "request.json"), pathlib.Path(folder, "answer.json")
        asked.write_text(json.dumps(request))
        # -P: the folder of the script is no place to import from.
        command = [sys.executable, "-P", tensorrt_build.__file__, str(asked), str(answer)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_MOST_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(
                f"it did not build the file in {_MOST_SECONDS} s, and was stopped. Without enough memory it may wait "
                "forever"
            ) from error
        if done.returncode < 0:
            raise RuntimeError(
                f"it ended the process that built the file, with signal {-done.returncode}. Signal 9 means that memory "
                "did not suffice"
            )
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
            raise RuntimeError(f"its builder failed: {lines[-1]}")
        said = json.loads(answer.read_text())
    if said["unparsed"]:
        reasons = "\n".join(_unparsed(*error) for error in said["unparsed"])
        raise RuntimeError(f"it does not parse the file: {reasons}")
    if said["errors"]:
        reasons = "\n".join(said["errors"] + ([_NEEDS_HALF] if "Turing" in str(said) and "FP32" in str(said) else []))
        raise RuntimeError(f"it parses the file, but does not build it: {reasons}")
    if len(said["layers"]) != 1:
        raise RuntimeError(f"its log has {len(said['layers'])} lists of kernels instead of one: {_UNKNOWN_FORMAT}")
    lines = said["layers"][0].split("\n\n")[0].splitlines()
    return lines[1:]


_UNKNOWN_FORMAT = "this version writes its log in another format. Versions 1.7 of tensorrt-rtx are known"


def _check_dtypes(model: ir.Model, compute_capability: str | float | None) -> None:
    """Check that GPUs of a compute capability have kernels for the dtypes of all quantizers, before the build.

    Raises:
        ValueError: there is no such compute capability, or they have none.
    """
    if _member(compute_capability) is None:
        return
    for dtype, (title, oldest) in _OLDEST.items():
        nodes = [name_of(n) for n in nodes_of(model) if is_dequantize(n) and Quantization.of(n).dtype == dtype]
        if nodes and float(str(compute_capability)) < oldest:
            more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
            raise ValueError(
                f"GPUs of compute capability {compute_capability} have no kernels for {title}, which needs {oldest} or "
                f"newer; {nodes[0]!r}{more} dequantize {title}. Quantize to int8 for these GPUs."
            )


def _member(compute_capability: str | float | None) -> str | None:
    """The name of a compute capability in TensorRT: "SM86" for "8.6"."""
    if compute_capability is None:
        return None
    import tensorrt_rtx

    names = [name for name in tensorrt_rtx.ComputeCapability.__members__ if name.startswith("SM")]
    known = {f"{name[2:-1]}.{name[-1]}": name for name in names}
    if str(compute_capability) not in known:
        raise ValueError(must_be_one_of("compute_capability", known, compute_capability, "None"))
    return known[str(compute_capability)]


def _unparsed(node: str, operator: str, reason: str) -> str:
    """One error of the parser in words, without what it says of the missing GPU."""
    if "std::bad_alloc" in reason:
        return "memory did not suffice (std::bad_alloc)"
    lines = [line for line in reason.splitlines() if "catchCudaError" not in line]
    if lines and lines[0] == f"Invalid Node - {node}":
        del lines[0]
    where = f"node {node!r} ({operator}): " if node else ""
    return f"{where}{' '.join(lines)}"


def _kernel(line: str) -> Kernel:
    match = _LINE.fullmatch(line)
    if match is None:
        raise RuntimeError(f"its log has a line for a kernel that cannot be read: {_UNKNOWN_FORMAT}. The line: {line}")
    inputs, constants, outputs = (_tensors(match[part]) for part in ("inputs", "constants", "outputs"))
    size: collections.Counter[str] = collections.Counter()
    for tensor in (*inputs, *outputs):
        size[tensor.dtype] += tensor.bytes
    kind, name, nodes = match["type"], match["name"], tags([match["name"], match["metadata"]])
    operations = name.removeprefix(_ELEMENTWISE).partition("_")[0] if name.startswith(_ELEMENTWISE) else ""
    parts = set(re.findall(r"[A-Z][a-z]+", operations))
    if kind == _GENERATED and name.startswith(_ATTENTION_NAME):
        kind = _ATTENTION
    if kind in (*_PRODUCTS, _FUSED_PRODUCT, _ATTENTION):
        product = _product(kind, [x.dtype for x in inputs], [x.dtype for x in constants], rounds="Roun" in parts)
        return dataclasses.replace(product, nodes=nodes, bytes=dict(size))
    read, written = (list(dict.fromkeys(tensor.dtype for tensor in group)) for group in (inputs, outputs))
    precision = ", ".join(read) if read == written else f"{', '.join(read or ['constants'])} to {', '.join(written)}"
    integer: bool | None = bool(read) and set(read + written) == {"Int8"}
    generated = kind == _GENERATED and name.startswith(_ELEMENTWISE)
    moves = generated and bool(parts) and parts <= _MOVES
    if moves:
        kind = "Transpose" if "Tran" in parts else "Reorder"
    # It computes in float, between tensors of which one is in integers: it rounds for another kernel, or scales.
    rest = generated and not integer and "Int8" in read + written
    sums = generated and {"Mul", "Sum"} <= parts
    kernel = Kernel(kind, precision, None if rest else integer, sums, moves, nodes, generated, rest, dict(size))
    return _explained(kernel, _REASONS.get(kind, ("", "")))


def _tensors(text: str) -> list[_Tensor]:
    found = []
    for dimensions, dtype in re.findall(_TENSOR, text):
        if dtype not in _BITS:
            raise RuntimeError(f"its log has a tensor of the unknown dtype {dtype!r}: {_UNKNOWN_FORMAT}")
        count = math.prod(int(size) for size in dimensions.split(",") if size)
        found.append(_Tensor(dtype, -(-count * _BITS[dtype] // 8)))
    return found


def _product(kind: str, inputs: list[str], constants: list[str], rounds: bool) -> Kernel:
    """The kernel of a product, without its nodes: what is surely in integers or in float, else unknown.

    Args:
        kind: the type of the kernel.
        inputs, constants: the dtypes of its tensors.
        rounds: whether it quantizes one of them first.
    """
    # The state of a recurrent layer is a constant at first.
    first, *others = inputs or constants or ["no tensor"]
    weights = next((dtype for dtype in (constants if inputs else constants[1:]) if dtype in _FEW_BITS), None)
    read = {dtype for dtype in inputs if dtype in _FEW_BITS}
    floats = [dtype for dtype in inputs + constants if dtype in _FLOATS]
    dtype, integer = first, None
    if not read and weights is None and not rounds:
        integer = False
    elif kind == _ATTENTION:
        # A mask is an input, too.
        integer = None if inputs.count(first) < 3 else first == "Int8"
    elif kind in _PRODUCTS:
        both = (first, weights or (others[0] if others else ""))
        integer = True if both == ("Int8", "Int8") else False if both == ("FP8", "FP8") else None
    elif not read and not rounds:
        integer = False
    elif floats and weights is None and (len(inputs) == 1 or len(inputs + constants) == 2):
        # The other factor is the constant, or there are no other tensors than the factors.
        dtype, integer = floats[0], False
    precision = f"{dtype}, weights {weights}" if weights not in (None, dtype) else dtype
    kernel = Kernel(kind, precision, integer, True, False, ())
    weight_only = weights == "Int4" and not read
    why = _FP8 if dtype == "FP8" else _INT4 if weight_only else _REASONS.get(kind, ("", ""))
    return _explained(kernel, why)


def _explained(kernel: Kernel, why: tuple[str, str]) -> Kernel:
    """The kernel with a reason and what to do, unless it computes in integers."""
    return kernel if kernel.integer else dataclasses.replace(kernel, reason=why[0], fix=why[1])


def _with_generated_products(kernels: list[Kernel], products: set[int]) -> list[Kernel]:
    """The kernels, with the part of generated kernels in products.

    A small product becomes a generated kernel of multiplications and a sum. But a generated kernel that names a product
    of another kernel computes the rest of it.

    Args:
        kernels: what `_kernel` returns.
        products: the indices of the nodes that multiply.
    """
    multiplying = [kernel for kernel in kernels if kernel.multiplies and not kernel.is_generated]
    elsewhere = {index for kernel in multiplying for index in kernel.nodes}
    # A product without a name, as in a recurrent layer, may be that of any node.
    unnamed = any(not kernel.nodes for kernel in multiplying)

    def changed(kernel: Kernel) -> Kernel:
        own = products.intersection(kernel.nodes)
        if not kernel.is_generated:
            return kernel
        if own and (unnamed or own <= elsewhere):
            return dataclasses.replace(kernel, multiplies=False, is_rest=True, integer=None)
        if not own or not kernel.multiplies:
            return dataclasses.replace(kernel, multiplies=False)
        in_float = any(dtype in _FLOATS for dtype in kernel.bytes)
        return dataclasses.replace(kernel, is_rest=False, integer=False if in_float else None)

    return [changed(kernel) for kernel in kernels]
