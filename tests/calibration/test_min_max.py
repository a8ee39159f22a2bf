import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorflow_quantization.calibration import Max, MinMax
from tensorflow_quantization.quantizers import QuantizationScheme

batches = st.lists(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(-1e6, 1e6, width=32)),
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


def test_the_older_name_is_the_same_class():
    assert Max is MinMax
