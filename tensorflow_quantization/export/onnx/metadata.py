"""Keys of the notes on values of a graph during an export, and of the metadata of a file."""

from __future__ import annotations

import keras

from tensorflow_quantization._version import __version__
from tensorflow_quantization.onnx_graph.metadata import TARGET

# Keys of `value.meta` on the output of a QuantizeLinear, for passes and verification. They are not written to the file.

#: True: the quantizer is for all readers of the tensor, not for one.
SHARED = "shared_quantizer"
#: Padding, as ONNX `pads`, that a pass moved into a later node: only the Keras tensor still has it.
FOLDED_PADS = "folded_pads"
#: The permutation of a Transpose that a pass moved after the quantizer: the integers are in the order before it.
TRANSPOSED_LATER = "transposed_later"
#: The strides of the points that the file computes of the tensor. Other tensors have this key too.
READ_POINTS = "read_points"
#: The number added to the integers to make them unsigned.
OFFSET = "offset"
#: The equal quantizer of the same tensor, as its output, that a pass kept instead of this one.
MERGED_INTO = "merged_into"
#: True: the quantizer is a hint to OpenVINO, which does not round there; other runtimes do. Part of the node's name.
HINT = "openvino_hint"

# Keys and values of the metadata in the file.

#: The producer of the file.
PRODUCER = "tensorflow_quantization"
LIBRARY_VERSION = "tensorflow_quantization_version"
KERAS_VERSION = "keras_version"


def properties(target: str | None) -> dict[str, str]:
    """The metadata of a file: the versions of this library and of Keras, and the target if there is one."""
    versions = {LIBRARY_VERSION: __version__, KERAS_VERSION: keras.__version__}
    return versions if target is None else {**versions, TARGET: target}
