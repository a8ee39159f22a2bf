"""`runtime_report`: which nodes a runtime executes in integers, and why the others run in float."""

from __future__ import annotations

import collections
import inspect
import os
import pathlib
import tempfile
from collections.abc import Sequence
from types import ModuleType

import onnx_ir as ir

from tensorflow_quantization.inspection.checks.check import check_graph
from tensorflow_quantization.inspection.checks.qdq_graph import QdqGraph, WeightedNode
from tensorflow_quantization.inspection.checks.report import Finding
from tensorflow_quantization.inspection.runtime import onnxruntime_graph, openvino_graph, tensorrt_engine
from tensorflow_quantization.inspection.runtime.kernels import Kernel, nodes_of, untagged, write_tagged
from tensorflow_quantization.inspection.runtime.macs import InputShapes, macs, static_shapes, with_input_shapes
from tensorflow_quantization.inspection.runtime.report import KernelReport, NodeReport, Ran, RuntimeReport
from tensorflow_quantization.onnx_graph.files import read_onnx, to_ir, with_shapes
from tensorflow_quantization.onnx_graph.operators import FACTORS, MULTIPLYING, RECURRENT
from tensorflow_quantization.onnx_graph.queries import (
    is_constant,
    is_dequantize,
    is_quantize,
    name_of,
    operand,
)
from tensorflow_quantization.text.arguments import suggests_arguments
from tensorflow_quantization.text.messages import must_be_one_of

#: A runtime is a module with `installed_version`, `executed`, `REFUSED` and `NAMES_ALL_NODES`. `check_onnx` knows its
#: rules by this name.
RUNTIMES: dict[str, ModuleType] = {
    "onnxruntime": onnxruntime_graph,
    "openvino": openvino_graph,
    "tensorrt": tensorrt_engine,
}

_UNEXPLAINED = {
    "float": "no rule of check_onnx explains it",
    "unknown": "the runtime does not say: the node is part of a larger kernel",
}
_RECURRENT = "recurrent layers compute in float; only their weights can be integers"
_UNNAMED = "no kernel names it: the runtime removed it, or joined it with an equal node"


@suggests_arguments
def runtime_report(
    path: str | os.PathLike,
    runtime: str = "onnxruntime",
    input_shapes: InputShapes | None = None,
    compute_capability: str | float | None = None,
) -> RuntimeReport:
    """Load a file in a runtime, and return which of its nodes run in integers.

    ONNX Runtime and OpenVINO load the file on the CPU, with the shapes in the file: a dynamic batch size stays dynamic.
    TensorRT for RTX parses the file and builds an engine for `input_shapes`, in a process of its own and without a GPU.
    On the GPU it may choose other kernels, but of the same dtypes.

    Multiply-accumulates are counted for Conv, ConvTranspose, Gemm, MatMul and their integer forms, for GRU, LSTM and
    RNN, and for Einsum; the body of a Loop counts once. Those of Attention are unknown, as are those of a node without
    known shapes: `.integer_share` is `None` if they matter.

    Examples:
        >>> report = runtime_report("model.onnx", runtime="onnxruntime")
        >>> report.integer_share
        1.0
        >>> report["quant_conv/Conv"].kernel
        'QLinearConv (8-bit)'

    Args:
        path: the path of an `.onnx` file, a string or path-like.
        runtime: "onnxruntime" (default), "openvino" or "tensorrt". It has to be installed.
        input_shapes: the shapes for which to count multiply-accumulates, and to build an engine: a dict from input
            names to shapes, or the shape of the only input. Default: the shapes in the file, where a dynamic first
            dimension counts as 1.
        compute_capability: for TensorRT, the compute capability of the GPU to build for, for example "8.6". Default:
            `None`, every GPU from 8.0 on that has the dtypes of the file.

    Returns:
        A `RuntimeReport`: print it, iterate over its nodes, or ask for `.integer_share`, `.fallbacks` or `.to_dict()`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the runtime is not installed.
        ValueError: there is no such runtime or compute capability, this compute capability has no kernels for a dtype
            of the file (FP8 needs 8.9, INT4 8.0), the file is not an ONNX model, the runtime does not load the file, an
            input has a dynamic dimension besides the first and `input_shapes` does not say its size, or `input_shapes`
            does not fit the inputs.
    """
    if not isinstance(runtime, str) or runtime not in RUNTIMES:
        raise ValueError(must_be_one_of("runtime", RUNTIMES, runtime))
    module = RUNTIMES[runtime]
    options = {} if compute_capability is None else {"compute_capability": compute_capability}
    for name in options:
        if name not in inspect.signature(module.executed).parameters:
            raise ValueError(f"The runtime {runtime!r} has no {name}; it is an argument for runtime='tensorrt'.")
    proto = read_onnx(path)
    counted = to_ir(with_input_shapes(proto, input_shapes), path)
    # Read the file first: its errors do not depend on the runtime, which may not be installed.
    version = module.installed_version()
    graph = QdqGraph(to_ir(with_shapes(proto), path))
    findings = check_graph(graph, runtime)
    for finding in findings:
        if finding.rule in module.REFUSED:
            raise ValueError(f"{version} would crash on {os.fspath(path)}, so it is not loaded: {finding}")
    shapes, names = static_shapes(counted), [name_of(node) for node in graph.nodes]
    try:
        with tempfile.TemporaryDirectory() as folder:
            kernels = module.executed(write_tagged(to_ir(proto, path), pathlib.Path(folder)), shapes, **options)
    except ValueError as error:
        raise ValueError(untagged(str(error), names)) from error
    except RuntimeError as error:
        reason = untagged(str(error), names)
        raise ValueError(
            f"{version} does not load {os.fspath(path)}: {reason}\ncheck_onnx(path, {runtime!r}) may tell why."
        ) from error
    nodes = _match(graph, findings, kernels, [macs(node) for node in nodes_of(counted)], module.NAMES_ALL_NODES)
    return RuntimeReport(os.fspath(path), version, nodes, [_report(kernel, graph.nodes) for kernel in kernels])


def _report(kernel: Kernel, nodes: Sequence[ir.Node]) -> KernelReport:
    fused = [nodes[index] for index in kernel.nodes]
    names = tuple(name_of(node) for node in fused if not (is_quantize(node) or is_dequantize(node)))
    return KernelReport(kernel.type, kernel.precision, kernel.integer, names, dict(kernel.bytes))


def _match(
    graph: QdqGraph, findings: list[Finding], kernels: list[Kernel], counts: list[int | None], complete: bool
) -> list[NodeReport]:
    """The nodes of the graph with their kernels; `complete`: each kernel names all of its nodes."""
    by_node: dict[int, list[Kernel]] = collections.defaultdict(list)
    for named in kernels:
        for index in named.nodes:
            by_node[index].append(named)
    index_of = {id(node): index for index, node in enumerate(graph.nodes)}
    explaining: dict[str, list[Finding]] = collections.defaultdict(list)
    for finding in findings:
        if finding.keeps_float and finding.nodes:
            explaining[finding.nodes[0]].append(finding)
    weighted = {id(w.node): w for w in graph.weighted}
    reports = []
    for index, node in enumerate(graph.nodes):
        if is_quantize(node) or is_dequantize(node) or node.op_type == "Constant":
            continue
        kernel = _kernel_of(node, by_node, index_of, complete)
        ran = _ran(node, kernel)
        reason = fix = ""
        if ran in ("float", "unknown"):
            known = [finding for concerned in _concerned(node, weighted) for finding in explaining[name_of(concerned)]]
            whats = [f"{finding.what} [{finding.rule}]" for finding in known]
            # Only an operator that multiplies needs an explanation: others are not expected to run in integers.
            fixes = [finding.fix for finding in known if node.op_type in FACTORS]
            if kernel is None and complete:
                whats, fixes = [_UNNAMED], []
            elif kernel is not None and kernel.reason:
                whats, fixes = [kernel.reason], [kernel.fix]
            unexplained = _RECURRENT if node.op_type in RECURRENT else _UNEXPLAINED[ran]
            reason = "; ".join(dict.fromkeys(whats)) or (unexplained if node.op_type in MULTIPLYING else "")
            fix = " ".join(dict.fromkeys(fixes))
        precision = kernel.precision if kernel is not None else ""
        reports.append(
            NodeReport(name_of(node), node.op_type, counts[index], ran, str(kernel or ""), reason, precision, fix)
        )
    return reports


def _concerned(node: ir.Node, weighted: dict[int, WeightedNode]) -> list[ir.Node]:
    """The node, and the quantizers of its factors."""
    nodes = [node]
    if id(node) in weighted:
        for source in weighted[id(node)].sources:
            nodes += [found for found in (source.dequantize, source.quantize) if found is not None]
    return nodes


def _kernel_of(
    node: ir.Node, by_node: dict[int, list[Kernel]], index_of: dict[int, int], complete: bool
) -> Kernel | None:
    """The kernel that executes the node, found by the tag in its name.

    Unless the kernels are `complete`, a kernel that multiplies may carry only the tag of the last node fused into it,
    so the search follows the readers.
    """
    # Prefer a kernel of its own to a generated one, which may hold the rest of it.
    own = sorted((k for k in by_node[index_of[id(node)]] if not k.is_layout), key=lambda k: k.is_generated)
    if node.op_type not in MULTIPLYING:
        return own[0] if own else None
    while True:
        products = [kernel for kernel in by_node[index_of[id(node)]] if kernel.multiplies]
        if products:
            return min(products, key=lambda product: (product.is_generated, product.integer is True))
        readers = node.outputs[0].consumers()
        if complete or len(readers) != 1 or readers[0].op_type in MULTIPLYING:
            return own[0] if own else None
        node = readers[0]


def _ran(node: ir.Node, kernel: Kernel | None) -> Ran:
    if node.inputs and all(value is None or is_constant(value) for value in node.inputs):
        return "folded"
    if node.op_type not in FACTORS:
        if kernel is None or kernel.is_rest:
            return "unknown" if node.op_type in MULTIPLYING else "fused"
        return "integer" if kernel.integer else "float"
    if all(is_constant(operand(node, index)) for index in FACTORS[node.op_type]):
        return "folded"
    if kernel is None or not kernel.multiplies or kernel.integer is None:
        return "unknown"
    return "integer" if kernel.integer else "float"
