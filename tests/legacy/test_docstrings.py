"""The examples in the docstrings of the cases and helpers run; the reference shows them as members of their module."""

import doctest

import keras
import pytest
from keras import layers

import tensorflow_quantization
from tensorflow_quantization.legacy import custom_qdq_cases, utils

EXAMPLES = [
    test
    for module in (custom_qdq_cases, utils)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={"keras": keras})
    if test.examples
]


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.rpartition(".")[2])
def test_the_example_in_the_docstring_runs(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(5, name="scores")(layers.GlobalAveragePooling2D(name="pool")(x)))
    public = {name: getattr(tensorflow_quantization, name) for name in ("describe", "quantize_model")}
    example.globs.update(public, model=model)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted and not result.failed
