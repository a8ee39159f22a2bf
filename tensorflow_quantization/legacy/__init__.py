"""The module paths and helpers of NVIDIA's toolkit for TensorFlow, over what the other rooms hold.

Importing the package makes the modules here importable under their documented paths too, `legacy.utils` for example as
`tensorflow_quantization.utils`. Nothing in the other rooms depends on this one.
"""

import sys
from importlib import import_module

#: Modules of the old toolkit, importable from the package itself.
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
