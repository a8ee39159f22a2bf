"""The kernels that ONNX Runtime executes for a file, read from its optimized graph."""

from __future__ import annotations

import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

from tensorflow_quantization.inspection.runtime.kernels import Kernel, tags
from tensorflow_quantization.onnx_graph.operators import MOVING

#: Integer kernels: QLinearConv, QGemm, QAttention, ConvInteger, MatMulIntegerToFloat, DynamicQuantizeMatMul, ...
_INTEGER = re.compile(r"^(QLinear|QGemm|QAttention|QOrdered|DynamicQuantize(?!Linear))|Integer")

#: Rules of `check_onnx` whose violation crashes the process: none.
REFUSED = ()

#: A kernel may carry the tag of the last node fused into it only.
NAMES_ALL_NODES = False

_MULTIPLIES = re.compile(r"Conv|Gemm|MatMul|Attention|LSTM|GRU|Einsum")

_LAYOUT = {"ReorderInput", "ReorderOutput", "Transpose"}

#: Operators that compute in the dtype of their input.
_FOLLOWING = MOVING | {"Concat", "DepthToSpace", "Gather", "MaxPool", "NhwcMaxPool", "Pad", "Resize", "Split", "Where"}


def installed_version() -> str:
    """The runtime's name and version.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "runtime_report(runtime='onnxruntime') needs ONNX Runtime: pip install onnxruntime"
        ) from error
    return f"ONNX Runtime {onnxruntime.__version__}"


def executed(path: pathlib.Path, shapes: Mapping[str, Sequence[int]]) -> list[Kernel]:
    """The kernels of a session on the CPU with all optimizations, in no particular order.

    Args:
        path: a file written by `write_tagged`.
        shapes: not needed: the file is loaded with its dynamic shapes.

    Raises:
        RuntimeError: ONNX Runtime does not load the file.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        optimized = pathlib.Path(folder, "optimized.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(optimized)
        # Nothing: errors are raised, too, and a warning says that the optimized graph fits this CPU only, as intended.
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        # Weights go to a second file: with them the graph may exceed protobuf's 2 GB.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "optimized.data")
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base
            raise RuntimeError(str(error)) from error
        model = ir.from_proto(onnx.load(optimized, load_external_data=False))
    integers: set[int] = set()
    return [_kernel(node, integers) for node in ir.traversal.RecursiveGraphIterator(model.graph)]


def _kernel(node: ir.Node, integers: set[int]) -> Kernel:
    """The kernel that a node of the optimized graph stands for; `integers` collects the ids of 8-bit values."""
    reads_integers = any(id(value) in integers for value in node.inputs if value is not None)
    integer = bool(_INTEGER.search(node.op_type)) or (node.op_type in _FOLLOWING and reads_integers)
    # Integer kernels write integers, except kernels whose names say otherwise and a QGemm without an output scale.
    writes = node.op_type == "QuantizeLinear" or (
        integer
        and not node.op_type.endswith(("ToFloat", "Integer"))
        and not node.op_type.startswith("DynamicQuantize")
        and not (node.op_type == "QGemm" and len(node.inputs) < 8)
    )
    if writes:
        integers.update(id(value) for value in node.outputs)
    names = [node.name or "", *(value.name or "" for value in node.outputs)]
    multiplies = bool(_MULTIPLIES.search(node.op_type))
    precision = "8-bit" if integer else "float"
    return Kernel(node.op_type, precision, integer, multiplies, node.op_type in _LAYOUT, tags(names))
