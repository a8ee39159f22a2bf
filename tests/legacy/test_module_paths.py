"""The module paths of the old toolkit."""

from importlib import import_module

import pytest

import tensorflow_quantization
from tensorflow_quantization import BaseQuantizeWrapper, legacy
from tensorflow_quantization.model.keras_classes import is_of_package


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("custom_qdq_case_base", {"CustomQDQInsertionCase"}),
        ("quantize", {"quantize_model", "QuantizationSpec", "LayerConfig"}),
        ("quantize_config", {"QuantizationSpec", "LayerConfig"}),
        (
            "quantize_wrapper_base",
            {"BaseQuantizeWrapper", "WeightedBaseQuantizeWrapper", "NonWeightedBaseQuantizeWrapper"},
        ),
    ],
)
def test_module_has_the_names_of_the_package(module, names):
    found = import_module(f"tensorflow_quantization.{module}")
    assert set(found.__all__) == names
    for name in names:
        assert getattr(found, name) is getattr(tensorflow_quantization, name)


@pytest.mark.parametrize("module", legacy.MODULES)
def test_module_is_an_attribute_of_the_package_too(module):
    found = import_module(f"tensorflow_quantization.{module}")
    assert found is getattr(tensorflow_quantization, module)
    assert found is import_module(f"tensorflow_quantization.legacy.{module}")


def test_quantize_wrappers_has_every_wrapper_of_the_package():
    module = import_module("tensorflow_quantization.quantize_wrappers")
    wrappers = {name: cls for name, cls in BaseQuantizeWrapper.CHILD_WRAPPERS.items() if is_of_package(cls)}
    assert {name: getattr(module, name) for name in module.__all__} == wrappers
