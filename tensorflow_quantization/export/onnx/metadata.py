"""Keys of what we note on values of a graph while it is written, and of what a file says of itself."""

from __future__ import annotations

import keras

from tensorflow_quantization._version import __version__

# On the integers of a QuantizeLinear, `value.meta`: for passes and for verification, not written to the file.

#: True: the quantizer is for all that read the tensor, not for one reader.
SHARED = "shared_quantizer"
#: The pads, in ONNX' form, that went into a later node: Keras' tensor has them, the file's tensor does not.
FOLDED_PADS = "folded_pads"
#: The strides at which the file has the points of the tensor; also on other tensors.
READ_POINTS = "read_points"
#: What was added to the integers to make them unsigned.
OFFSET = "offset"
#: True: the quantizer is a hint to OpenVINO and rounds only elsewhere. Also a part of the node's name.
HINT = "openvino_hint"

# In the file.

#: The name of the program that wrote the file.
PRODUCER = "tensorflow_quantization"
#: The runtime that the file is for.
TARGET = "target"
LIBRARY_VERSION = "tensorflow_quantization_version"
KERAS_VERSION = "keras_version"


def properties(target: str | None) -> dict[str, str]:
    """What a file says of itself: the versions that wrote it, and the runtime that it is for, if it is for one."""
    versions = {LIBRARY_VERSION: __version__, KERAS_VERSION: keras.__version__}
    return versions if target is None else {**versions, TARGET: target}
