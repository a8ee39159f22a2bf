"""Files of a network in the runtimes that read them: to call, and to ask what they compute in integers."""

from __future__ import annotations

import math
import pathlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

#: The files that each runtime reads.
SUFFIXES = {"onnxruntime": (".onnx",), "openvino": (".onnx", ".xml"), "litert": (".tflite",)}
#: The float file, which OpenVINO is told to compute in float32; its default is bfloat16 where the processor has it.
FLOAT32 = "float, in float32"


@dataclass(frozen=True)
class Contender:
    """A file as a runtime runs it.

    Attributes:
        name: "float", "ours, <target>", or the name of a peer.
        path: of the file.
        options: of OpenVINO, or the session entries of ONNX Runtime.
    """

    name: str
    path: pathlib.Path
    options: dict[str, str] = field(default_factory=dict)


def contenders(runtime: str, folder: pathlib.Path) -> list[Contender]:
    """The files in a folder that a runtime reads, the float one first."""
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES[runtime]]
    found = [Contender(path.stem, path) for path in sorted(files, key=lambda path: (path.stem != "float", path.stem))]
    if runtime == "openvino":
        found.insert(1, Contender(FLOAT32, found[0].path, {"INFERENCE_PRECISION_HINT": "f32"}))
    return found


Run = Callable[[np.ndarray], np.ndarray]


def load(runtime: str, contender: Contender, shape: tuple[int, ...], threads: int) -> Run:
    """A function that runs a file on batches of one shape.

    Args:
        shape: of a batch, (batch, height, width, channels).
        threads: how many the runtime uses.
    """
    return _LOADERS[runtime](contender, shape, threads)


def _load_onnxruntime(contender: Contender, shape: tuple[int, ...], threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads of a session that went on spinning after its call would keep a core from the next contender.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for entry in contender.options.items():
        options.add_session_config_entry(*entry)
    session = onnxruntime.InferenceSession(contender.path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _load_openvino(contender: Contender, shape: tuple[int, ...], threads: int) -> Run:
    import openvino

    model = openvino.Core().read_model(contender.path)
    model.reshape(shape)
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **contender.options}
    request = openvino.compile_model(model, "CPU", options).create_infer_request()
    return lambda batch: request.infer([batch])[0]


def _load_litert(contender: Contender, shape: tuple[int, ...], threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(contender.path), num_threads=threads)
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(entry["index"], shape)
    interpreter.allocate_tensors()

    def run(batch: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(entry["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return run


_LOADERS = {"onnxruntime": _load_onnxruntime, "openvino": _load_openvino, "litert": _load_litert}


def size(contender: Contender) -> int:
    """Bytes of a file; OpenVINO's own format has two."""
    path = contender.path
    return path.stat().st_size + (path.with_suffix(".bin").stat().st_size if path.suffix == ".xml" else 0)


def integer_share(runtime: str, contender: Contender) -> float:
    """The part of the multiply-accumulates, 0 to 1, that a runtime computes in integers."""
    if contender.path.suffix == ".tflite":
        return _share_of_tflite(contender.path)
    if contender.path.suffix == ".xml":
        return _share_of_openvino_model(contender.path)
    from tensorflow_quantization import runtime_report

    return runtime_report(contender.path, runtime=runtime).integer_share


def _share_of_tflite(path: pathlib.Path) -> float:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # With no delegate, whose operators say nothing of what they took in.
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    macs = {"int8": 0, "float32": 0}
    for operator in interpreter._get_ops_details():
        data, weight = ([tensors.get(index) for index in operator["inputs"]] + [None, None])[:2]
        output = math.prod(tensors[operator["outputs"][0]]["shape"])
        if operator["op_name"] == "CONV_2D":
            count = output * math.prod(weight["shape"][1:])
        elif operator["op_name"] == "DEPTHWISE_CONV_2D":
            count = output * math.prod(weight["shape"][1:3])
        elif operator["op_name"] in ("FULLY_CONNECTED", "BATCH_MATMUL"):
            count = output * int(data["shape"][-1])
        else:
            continue
        # Float data times integer weights is computed in floats.
        macs[np.dtype(data["dtype"]).name] += count
    return macs["int8"] / sum(macs.values())


def _share_of_openvino_model(path: pathlib.Path) -> float:
    import openvino

    from tensorflow_quantization.inspection.runtime.openvino_graph import executed

    model = openvino.Core().read_model(path)
    products = {}
    for index, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"tq_{index}_qt")  # the form of names that `executed` looks for
        if (count := _macs_of_openvino(node)) is not None:
            products[index] = count
    with tempfile.TemporaryDirectory() as folder:
        tagged = pathlib.Path(folder, "tagged.xml")
        openvino.save_model(model, tagged, compress_to_fp16=False)
        kernels = [kernel for kernel in executed(tagged) if kernel.multiplies]
    integer = {index for kernel in kernels if kernel.integer for index in kernel.nodes}
    return sum(count for index, count in products.items() if index in integer) / sum(products.values())


def _macs_of_openvino(node) -> int | None:
    """Multiply-accumulates of a convolution or a matrix product; `None` for other operators."""
    kind = node.get_type_name()
    if kind not in ("Convolution", "GroupConvolution", "MatMul"):
        return None
    output = math.prod(node.get_output_shape(0))
    if kind == "MatMul":
        left = node.get_input_shape(0)
        return output * left[-2 if node.get_attributes()["transpose_a"] else -1]
    # (out, in, ...), and before them the groups.
    return output * math.prod(node.get_input_shape(1)[2 if kind == "GroupConvolution" else 1 :])
