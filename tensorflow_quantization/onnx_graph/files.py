"""Read an ONNX file from any tool, with errors that say what is wrong with the file.

A file may be damaged or hostile. So it is validated before rules read it and before a runtime loads it: the native code
of a runtime may crash or never return. No data is read from outside of the file's folder.
"""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Iterator

import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx import inliner

from tensorflow_quantization.text.messages import is_path, must_be_path, what_is_wrong
from tensorflow_quantization.text.warn import muted

#: Protobuf reads messages up to this size in bytes.
_LARGEST_MESSAGE = 2**31 - 1

#: Far above the newest.
_HIGHEST_OPSET = 1000

#: Dtypes with several elements in a byte.
_PACKED = frozenset({ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.FLOAT4E2M1})

_DAMAGED = "The file is damaged, or the tool that wrote it has a fault: write it again."


def read_onnx(path: str | os.PathLike) -> onnx.ModelProto:
    """The model in a file, with local functions inlined and external tensors not loaded.

    Args:
        path: the path of an `.onnx` file.

    Raises:
        TypeError: `path` is no path.
        FileNotFoundError: there is no such file, or no file with its external data.
        ValueError: the path is a directory, the file is not an ONNX model, it is not valid, a constant in it cannot be
            read, or its external data is outside of its folder.
    """
    check_is_path(path)
    path = pathlib.Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a directory; pass the path of an .onnx file.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    _check_kind(path)
    size = path.stat().st_size
    if size > _LARGEST_MESSAGE:
        raise ValueError(
            f"{path} has {size / 2**30:.1f} GiB, but an .onnx file holds less than 2 GiB. Write its weights to a "
            "second file, for example with onnx.save(model, path, save_as_external_data=True)."
        )
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError; its class depends on protobuf's implementation
        raise ValueError(f"{path} is not an ONNX model: {error}") from error
    # Protobuf reads many other files without an error, as an empty message.
    if not model.ir_version or not model.opset_import:
        raise ValueError(f"{path} is not an ONNX model: it has no IR version or no opset.")
    try:
        _check_opset(model)
        inlined = inliner.inline_local_functions(model) if model.functions else model
        _check_nodes(inlined)
    except Exception as error:  # errors of the inliner have no common base
        raise ValueError(f"{path} is not a valid ONNX model: {_reason(error)}\n{_DAMAGED}") from error
    _check_constants(to_ir(inlined, path), path)
    return inlined


def _check_kind(path: pathlib.Path) -> None:
    """Raises: ValueError: the file is of another kind, as its first bytes or its suffix say."""
    with path.open("rb") as file:
        start = file.read(8)
    if start[4:] == b"TFL3" or path.suffix == ".tflite":
        raise ValueError(f"{path} is a LiteRT file; pass the path of an .onnx file.")
    # A .keras file is a zip archive, an .h5 file is in HDF5.
    if start.startswith((b"PK\x03\x04", b"\x89HDF")) or path.suffix in (".keras", ".h5", ".hdf5"):
        raise ValueError(
            f"{path} is a file of Keras. Write its model as an .onnx file first, with export_onnx(model, path) or "
            "`tensorflow-quantization export model.keras model.onnx`."
        )


def check_is_path(path: object) -> None:
    """Raises: TypeError: `path` is no path of a file."""
    if not is_path(path):
        raise TypeError(must_be_path("path", path, " A model is written to a file first: export_onnx(model, path)."))


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes that ONNX infers; `model` itself if ONNX finds a contradiction."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        return model


def to_ir(model: onnx.ModelProto, path: str | os.PathLike) -> ir.Model:
    """The model as an `onnx_ir.Model` that loads external tensors from the folder of `path` when they are needed.

    Raises:
        ValueError: the model is not valid.
    """
    try:
        with muted("onnx_ir", logging.ERROR):  # it warns of names that nothing computes
            converted = ir.from_proto(model)
        ir.external_data.set_base_dir(converted.graph, pathlib.Path(path).resolve().parent)
    except Exception as error:  # SerdeError and what is raised in its code
        raise ValueError(f"{path} is not a valid ONNX model: {_reason(error)}\n{_DAMAGED}") from error
    return converted


def _check_opset(model: onnx.ModelProto) -> None:
    """OpenVINO counts up to the opset, which may be any number in a damaged file."""
    for opset in model.opset_import:
        if not 1 <= opset.version <= _HIGHEST_OPSET:
            raise ValueError(f"the opset {opset.version} of the domain {opset.domain!r} does not exist.")


def _check_nodes(model: onnx.ModelProto) -> None:
    """Check what rules take for granted: known names, and the inputs, outputs and attributes of operators.

    ONNX's checker is stricter: it refuses files that runtimes load, and those for which `check_onnx` has a finding.
    """
    opsets = {opset.domain.replace("ai.onnx", ""): opset.version for opset in model.opset_import}
    known = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    known.update(tensor.values.name for tensor in model.graph.sparse_initializer)
    _check_graph(model.graph, known, opsets)


def _check_graph(graph: onnx.GraphProto, known: set[str], opsets: dict[str, int]) -> None:
    for node in graph.node:
        what = f"node {node.name!r} ({node.op_type})"
        for name in (node.name, node.op_type, node.domain, *node.input, *node.output):
            if isinstance(name, bytes):  # so protobuf returns text that is not UTF-8
                raise ValueError(f"the name {name!r} is not UTF-8.")
        missing = [name for name in node.input if name and name not in known]
        if missing:
            raise ValueError(f"{what} reads {missing[0]!r}, which no earlier node computes.")
        schema = _schema(node, opsets)
        if schema is not None:
            _check_against(node, schema, what)
        if not node.output:
            raise ValueError(f"{what} has no output.")
        known.update(node.output)
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                names = {value.name for value in (*inner.input, *inner.initializer)}
                _check_graph(inner, known | names, opsets)
    missing = [value.name for value in graph.output if value.name not in known]
    if missing:
        raise ValueError(f"its output {missing[0]!r} is not computed by any node.")


def _schema(node: onnx.NodeProto, opsets: dict[str, int]) -> onnx.defs.OpSchema | None:
    """The definition of an operator in the opset of the file, else in the newest; `None`: ONNX has none."""
    domain = node.domain.replace("ai.onnx", "")
    for version in (opsets.get(domain, 0), onnx.defs.onnx_opset_version()):
        try:
            return onnx.defs.get_schema(node.op_type, version, domain)
        except onnx.defs.SchemaError:
            continue
    return None


def _check_against(node: onnx.NodeProto, schema: onnx.defs.OpSchema, what: str) -> None:
    for kind, names, least, most in (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, schema.min_output, schema.max_output),
    ):
        if not least <= len(names) <= most or not all(names[:least]):
            raise ValueError(f"{what} has {len(names)} {kind} {list(names)}; the operator demands {least} to {most}.")
    for attribute in node.attribute:
        declared = schema.attributes.get(attribute.name)
        if declared is not None and int(declared.type) != attribute.type and not attribute.ref_attr_name:
            raise ValueError(f"{what} has the attribute {attribute.name!r} in a wrong type.")


def _check_constants(model: ir.Model, path: pathlib.Path) -> None:
    """Read all constants once, without a copy of their data."""
    folder = path.resolve().parent
    for name, tensor in _constants(model):
        if isinstance(tensor, ir.ExternalTensor):
            _check_location(name, tensor, path, folder)
        try:
            _check_bytes(tensor)
            values = tensor.numpy()
            fits = values.shape == tuple(tensor.shape)
        except Exception as error:
            raise ValueError(
                f"{path} holds the constant {name!r}, which cannot be read: {_reason(error)}\n{_DAMAGED}"
            ) from error
        if not fits:
            raise ValueError(
                f"{path} holds the constant {name!r} with the shape {list(tensor.shape)}, but values of the shape "
                f"{list(values.shape)}.\n{_DAMAGED}"
            )


def _check_bytes(tensor: ir.TensorProtocol) -> None:
    """Raises: ValueError: a tensor of less than 8 bits has too few or too many bytes, which onnx_ir repeats or cuts."""
    found = len(tensor.tobytes()) if tensor.dtype in _PACKED else tensor.nbytes
    if found != tensor.nbytes:
        raise ValueError(f"it has {found} bytes, but its shape needs {tensor.nbytes}.")


def _constants(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """The names and values of all initializers and of all tensors in attributes, subgraphs included."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.name or "", value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR:
                    yield node.outputs[0].name or node.name or "", attribute.as_tensor()
                elif attribute.type == ir.AttributeType.TENSORS:
                    yield from ((attribute.name, tensor) for tensor in attribute.as_tensors())


def _check_location(name: str, tensor: ir.ExternalTensor, path: pathlib.Path, folder: pathlib.Path) -> None:
    location = os.fspath(tensor.location)
    try:
        found = (folder / location).resolve()
    except (OSError, ValueError) as error:  # a loop of links, a null byte
        raise ValueError(f"{path} has its constant {name!r} in {location!r}, which is not a path: {error}") from error
    if not location or folder not in found.parents:
        raise ValueError(
            f"{path} has its constant {name!r} in {location!r}, outside of the folder of the file. It was not read. "
            "Move the data into the folder, and name it in the file without its folder."
        )
    if not found.is_file():
        raise FileNotFoundError(f"{path} has its constant {name!r} in {location!r}, and there is no such file.")


def _reason(error: Exception) -> str:
    """The reason of an error of the ONNX libraries, without the dump of the model that may follow."""
    while isinstance(error.__cause__, Exception):  # onnx_ir wraps an error once for each level of the model
        error = error.__cause__
    return what_is_wrong(error)
