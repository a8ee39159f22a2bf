"""An error for wrappers written for Keras 2, which shows how to write them now.

The documentation of NVIDIA's toolkit has a long example, a wrapper of Conv2DTranspose. It creates variables for the
ranges, calls quantizing methods of the base class, and replaces the kernel. The base class does all of this now.
"""

from __future__ import annotations

from typing import Any, NoReturn

import keras


class Keras2Attribute:
    """An attribute of the old base class. Reading or assigning it raises an error that shows how to write the wrapper.

    Raises:
        AttributeError: always, on an instance. Reading on PyTorch: RuntimeError, because the `__getattr__` of PyTorch's
            modules replaces the message of an AttributeError.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, wrapper: Any, owner: type) -> Keras2Attribute:
        if wrapper is None:
            return self
        if keras.backend.backend() == "torch":
            raise RuntimeError(self._message(wrapper))
        raise AttributeError(self._message(wrapper))

    def __set__(self, wrapper: Any, value: object) -> NoReturn:
        raise AttributeError(self._message(wrapper))

    def _message(self, wrapper: Any) -> str:
        kind = type(wrapper).__name__
        kernel = wrapper.kernel_type
        base = "WeightedBaseQuantizeWrapper" if kernel else "NonWeightedBaseQuantizeWrapper"
        argument = f"kernel_type={kernel!r}, " if kernel else ""
        return (
            f"{kind} of layer {wrapper.layer.name!r} uses {self.name!r}, which wrappers had in Keras 2. "
            "The base class now creates the range variables and replaces the kernel. Write only:\n\n"
            f"class {kind}({base}):\n"
            "    def __init__(self, layer, **kwargs):\n"
            f"        super().__init__(layer, {argument}**kwargs)\n"
        )
