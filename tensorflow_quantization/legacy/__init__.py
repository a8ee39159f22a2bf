"""The module paths, cases and helpers of NVIDIA's toolkit for TensorFlow, for scripts written for it.

The modules here are also importable from the package itself, as in that toolkit: `legacy.utils` is also
`tensorflow_quantization.utils`. No other subpackage depends on this one.
"""

import sys
from importlib import import_module

#: Modules of NVIDIA's toolkit, importable from the package itself.
MODULES = (
    "custom_qdq_case_base",
    "custom_qdq_cases",
    "quantize_config",
    "quantize_wrapper_base",
    "quantize_wrappers",
    "utils",
)

_PACKAGE = __name__.rpartition(".")[0]

for _name in MODULES:
    _module = import_module(f"{__name__}.{_name}")
    sys.modules[f"{_PACKAGE}.{_name}"] = _module
    setattr(sys.modules[_PACKAGE], _name, _module)
