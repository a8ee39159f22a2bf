import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from tensorflow_quantization.calibration import Max, MinMax
from tensorflow_quantization.quantizers import QuantizationScheme

#: Backends may flush subnormal numbers to zero.
elements = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
batches = st.lists(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=elements),
    min_size=1,
    max_size=5,
)


@given(batches)
def test_range_is_from_the_least_to_the_greatest_value(batches):
    estimator = MinMax()
    for batch in batches:
        estimator.update(batch)
    values = np.concatenate([batch.ravel() for batch in batches])
    assert estimator.range(QuantizationScheme()) == (values.min(), values.max())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5, 5, 8), (2, 64, 64)])
@pytest.mark.parametrize("position", [0, 0.5, 1])
def test_statistics_on_the_backend_show_nan_and_infinity_anywhere(value, shape, position):
    x = np.zeros(shape, "float32")
    x.ravel()[int(position * (x.size - 1))] = value
    found = [ops.convert_to_numpy(array) for array in MinMax.statistics(ops.convert_to_tensor(x)).values()]
    assert not np.isfinite(found).all()


@given(batches)
def test_statistics_of_batches_on_the_backend_merge(batches):
    found = MinMax()
    for batch in batches:
        statistics = MinMax.statistics(ops.convert_to_tensor(batch))
        found.merge(**{name: ops.convert_to_numpy(array) for name, array in statistics.items()})
    values = np.concatenate([batch.ravel() for batch in batches])
    assert found.range(QuantizationScheme()) == (values.min(), values.max())
    assert {name: array.tolist() for name, array in found.merged().items()} == {
        "low": [values.min()],
        "high": [values.max()],
    }


def test_the_older_name_is_the_same_class():
    assert Max is MinMax
