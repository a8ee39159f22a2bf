import doctest

import numpy as np
import pytest
import small_models

from tensorflow_quantization.model import inputs
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import model_inputs


def test_example():
    assert not doctest.testmod(inputs).failed


def test_one_array_for_each_input_in_the_dtype_of_the_input(cnn):
    (found,) = model_inputs(LayerGraph.trace(cnn), np.ones((2, 8, 8, 3), "int64"))
    assert found.dtype == np.float32
    assert found.shape == (2, 8, 8, 3)


def test_dict_of_the_model_is_read_by_its_keys():
    graph = LayerGraph.trace(small_models.dict_in_and_out())
    found = model_inputs(graph, {"right": np.zeros((2, 4)), "left": np.ones((2, 4)), "unused": np.ones(3)})
    assert dict(zip([t.name for t in graph.inputs], [a.mean() for a in found], strict=True)) == {"left": 1, "right": 0}


def test_dict_for_a_model_of_a_list_is_read_by_the_names_of_the_inputs():
    graph = LayerGraph.trace(small_models.siamese())
    found = model_inputs(graph, {"right": np.zeros((2, 8, 8, 3)), "left": np.ones((2, 8, 8, 3))})
    assert [a.mean() for a in found] == [1, 0]


def test_an_empty_batch_is_no_data(cnn):
    with pytest.raises(ValueError, match="data holds no data"):
        model_inputs(LayerGraph.trace(cnn), np.zeros((0, 8, 8, 3)), "data")


@pytest.mark.parametrize("x", [[np.zeros((2, 8, 8, 3))] * 2, np.zeros((2, 8)), {"other": np.zeros((2, 8, 8, 3))}])
def test_data_that_does_not_fit(cnn, x):
    with pytest.raises(ValueError, match=r"data must hold one array for each input \(image \(None, 8, 8, 3\)\), got"):
        model_inputs(LayerGraph.trace(cnn), x, "data")
