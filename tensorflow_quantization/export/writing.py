"""Writes the file beside its place and moves it there when it is complete."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import onnx
import onnx_ir as ir

from tensorflow_quantization._version import __version__

#: A protobuf message holds less than 2 GB; above this, weights go to a second file.
_LARGEST_FILE = 2**31 - 2**20
PRODUCER = "tensorflow_quantization"


def to_model(graph: ir.Graph, target: str | None = None) -> ir.Model:
    """The graph with what a file says of itself: who wrote it, from which Keras, and for which runtime."""
    metadata = {"tensorflow_quantization_version": __version__, "keras_version": keras.__version__}
    if target is not None:
        metadata["target"] = target
    opset = graph.opset_imports[""]
    return ir.Model(
        graph,
        ir_version=onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]),
        producer_name=PRODUCER,
        producer_version=__version__,
        metadata_props=metadata,
    )


def save(model: ir.Model, path: Path) -> None:
    """Write `model`; what is too large for one file has its weights in `<path>.data`."""
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    ir.save(model, path, external_data=f"{path.name}.data" if size > _LARGEST_FILE else None)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path of the same name in a temporary directory beside `path`; what is there in the end moves to it.

    After an error or an interrupt the old file is as it was, and nothing else is left.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as directory:
        temporary = Path(directory) / path.name
        yield temporary
        # The file of weights first: the model that names it must not be there without it.
        for written in sorted(Path(directory).iterdir(), key=lambda p: p == temporary):
            os.replace(written, path.parent / written.name)
