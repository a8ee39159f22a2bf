import doctest

import keras
import numpy as np
import pytest
import small_models
from keras import layers

from tensorflow_quantization.model import inputs
from tensorflow_quantization.model.graph import LayerGraph
from tensorflow_quantization.model.inputs import input_batches, model_inputs


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


@pytest.mark.parametrize(
    "x", [[np.zeros((2, 8, 8, 3))] * 2, np.zeros((2, 8)), np.zeros((2, 9, 8, 3)), {"other": np.zeros((2, 8, 8, 3))}]
)
def test_data_that_does_not_fit(cnn, x):
    with pytest.raises(ValueError, match=r"data must hold one array for each input \(image \(None, 8, 8, 3\)\), got"):
        model_inputs(LayerGraph.trace(cnn), x, "data")


@pytest.mark.parametrize(("shape", "sample"), [((8, 8, 3), (8, 8, 3)), ((28, 28, 1), (28, 28, 1)), ((None, 4), (7, 4))])
def test_samples_without_a_batch_are_told_from_batches(shape, sample):
    inputs = keras.Input(shape)
    graph = LayerGraph.trace(keras.Model(inputs, layers.ReLU()(inputs)))
    with pytest.raises(ValueError, match=r"did you forget \.batch\(\)"):
        model_inputs(graph, np.zeros(sample))


@pytest.mark.parametrize(("shape", "given"), [((1,), (5,)), ((8, 8, 1), (5, 8, 8))])
def test_a_last_axis_of_size_1_may_be_left_out_as_in_predict(shape, given):
    inputs = keras.Input(shape)
    (found,) = model_inputs(LayerGraph.trace(keras.Model(inputs, layers.ReLU()(inputs))), np.zeros(given))
    assert found.shape == (5, *shape)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            {"rigth": np.zeros((2, 8, 8, 3)), "left": 0},
            r"without \['right'\]\. There is no input 'rigth'\. .*'right'\?$",
        ),
        ({"left": np.zeros((2, 8, 8, 3))}, r"got the keys \['left'\], without \['right'\]\.$"),
        ("images", r"got str\. Pass arrays of numbers\.$"),
        (True, r"got bool\. Pass"),
        (object(), r"got object\. Pass"),
        ([np.zeros((2, 8, 8, 3)), "images"], r"got str\. Pass"),
        (np.array(["a", "b"]), r"got an array of <U1\. Pass"),
        ([(np.zeros((8, 8, 3)), np.zeros((8, 8, 3)))] * 3, r"3 samples without a batch axis.*, for each input\.$"),
    ],
)
def test_what_was_passed_instead_of_arrays_is_said(x, message):
    with pytest.raises(ValueError, match=message):
        model_inputs(LayerGraph.trace(small_models.siamese()), x)


@pytest.mark.parametrize("read", [model_inputs, lambda *x: list(input_batches(*x))])
def test_a_list_of_samples_is_to_be_stacked(cnn, read):
    with pytest.raises(ValueError, match=r"2 samples without a batch axis: pass one array, np\.stack\(samples\)\.$"):
        read(LayerGraph.trace(cnn), [np.zeros((8, 8, 3))] * 2)


def test_different_numbers_of_samples():
    graph = LayerGraph.trace(small_models.siamese())
    with pytest.raises(ValueError, match="different numbers of samples"):
        model_inputs(graph, [np.zeros((2, 8, 8, 3)), np.zeros((3, 8, 8, 3))])


class Sequence(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


class Loader:
    """Yields batches as lists, like a `DataLoader` of PyTorch."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter([list(batch) for batch in self.batches])


def as_tf_data(batches):
    tf = pytest.importorskip("tensorflow")
    x, y = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(2)


def as_torch(batches):
    torch = pytest.importorskip("torch")
    arrays = (torch.tensor(np.concatenate(a), requires_grad=i == 0) for i, a in enumerate(zip(*batches, strict=True)))
    dataset = torch.utils.data.TensorDataset(*arrays)
    return torch.utils.data.DataLoader(dataset, batch_size=2)


#: Forms of two batches (x, y) of two samples.
FORMS = {
    "generator of pairs": iter,
    "generator of arrays": lambda batches: (x for x, _ in batches),
    "generator of x in a tuple": lambda batches: ((x,) for x, _ in batches),
    "generator of dicts": lambda batches: ({"image": x} for x, _ in batches),
    "list of pairs": list,
    "list of arrays": lambda batches: [x for x, _ in batches],
    "PyDataset": Sequence,
    "PyDataset of arrays": lambda batches: Sequence([x for x, _ in batches]),
    "tf.data": as_tf_data,
    "torch DataLoader": as_torch,
    "like a DataLoader": Loader,
}


@pytest.mark.parametrize("form", FORMS)
def test_data_that_yields_batches(cnn, form):
    x, y = small_models.images(4)
    found = list(input_batches(LayerGraph.trace(cnn), FORMS[form]([(x[:2], y[:2]), (x[2:], y[2:])]), batch_size=3))
    np.testing.assert_array_equal(found, x.reshape(2, 1, 2, 8, 8, 3))


@pytest.mark.parametrize(
    "form", [lambda x, y: x, lambda x, y: [x], lambda x, y: (x, y), lambda x, y: {"image": x}, lambda x, y: x.tolist()]
)
def test_arrays_are_cut_into_batches(cnn, form):
    x, y = small_models.images(4)
    batches = input_batches(LayerGraph.trace(cnn), form(x, y), batch_size=3)
    assert batches.count == 2
    assert [[a.shape[0] for a in batch] for batch in batches] == [[3], [1]]


@pytest.mark.parametrize("form", [lambda x: x, lambda x: [x[:2], x[2:]], lambda x: iter([x])])
def test_batches_of_a_model_with_a_fixed_batch_size_have_this_size(form):
    inputs = keras.Input(batch_shape=(1, 8, 8, 3))
    graph = LayerGraph.trace(keras.Model(inputs, layers.ReLU()(inputs)))
    x, _ = small_models.images(4)
    np.testing.assert_array_equal(list(input_batches(graph, form(x))), x.reshape(4, 1, 1, 8, 8, 3))


def test_samples_that_do_not_fill_fixed_batches():
    inputs = keras.Input(batch_shape=(2, 4))
    graph = LayerGraph.trace(keras.Model(inputs, layers.ReLU()(inputs)))
    with pytest.raises(ValueError, match="5 samples, and the model has a fixed batch size of 2"):
        input_batches(graph, np.zeros((5, 4)))


def test_several_inputs_are_not_taken_for_batches_or_for_x_and_y():
    graph = LayerGraph.trace(small_models.siamese())
    left, right = np.zeros((2, 8, 8, 3)), np.ones((2, 8, 8, 3))
    for data in ((left, right), [left, right], ([left, right], np.zeros(2)), iter([(left, right)]), [[left, right]]):
        (found,) = input_batches(graph, data)
        assert [a.mean() for a in found] == [0, 1]


@pytest.mark.parametrize(
    ("values", "dtype"), [([0.5, 1.0], "int32"), ([np.nan, 1.0], "int32"), ([300, 1], "uint8"), ([-1, 1], "uint8")]
)
def test_numbers_that_an_input_of_integers_would_change_are_refused(values, dtype):
    inputs = keras.Input((2,), dtype=dtype, name="tokens")
    graph = LayerGraph.trace(keras.Model(inputs, keras.ops.cast(inputs, "float32")))
    assert model_inputs(graph, np.array([[1.0, 2.0]]))[0].dtype == dtype
    with pytest.raises(ValueError, match=rf"^x holds {values[0]:g} for input 'tokens', first in sample 1, .*{dtype}"):
        model_inputs(graph, np.array([[1, 1], values]))
