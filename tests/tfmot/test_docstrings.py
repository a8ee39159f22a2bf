"""The examples in the docstrings of TFMOT's names run."""

import doctest
import importlib

import keras
import numpy as np
import pytest
from tfmot_configs import DenseOfMine

import tensorflow_quantization

ROOM = "tensorflow_quantization.tfmot.quantization.keras"
MODULES = ("annotate", "quantize", "quantize_config", "quantizers", "ranges", "scheme")
EXAMPLES = [
    test
    for module in MODULES
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(f"{ROOM}.{module}"))
    if test.examples
]


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.rpartition(".")[2])
def test_the_example_in_the_docstring_runs(example):
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    model = keras.Model(
        inputs, keras.layers.Dense(5, name="scores")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    )
    names = {name: getattr(tensorflow_quantization, name) for name in ("describe", "quantize_model")}
    if example.name.endswith(("keras.quantize.quantize_model", "keras.quantize.quantize_apply")):
        del names["quantize_model"]
    example.globs.update(names, model=model, np=np, keras=keras, MyLayer=DenseOfMine)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted and not result.failed
