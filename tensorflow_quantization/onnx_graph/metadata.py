"""The metadata in a file that export writes and inspection reads."""

from __future__ import annotations

import onnx_ir as ir

#: The key of the runtime that a file is for.
TARGET = "target"


def target_of(model: ir.Model) -> str | None:
    """The name of the runtime that a file is for, as its metadata says; `None` if its metadata does not say it."""
    return model.metadata_props.get(TARGET)
