"""What tests have to know of the processor that they run on."""

import importlib.util

from tensorflow_quantization.export.verification.processor import SAFE_WEIGHT_BITS, saturates

_INSTALLED = [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)]

#: The bits of weights for tests that run integer kernels: without VNNI, 8 bits saturate there; `None`: 8 bits.
EXACT_WEIGHT_BITS = SAFE_WEIGHT_BITS if any(map(saturates, _INSTALLED)) else None
