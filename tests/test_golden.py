"""Files and descriptions are what they were: a change that means to keep them shows here if it does not."""

import golden
import keras
import pytest

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the records were made on the TensorFlow backend"
)


@pytest.mark.filterwarnings("ignore:onnxruntime will run:UserWarning")  # what another target left in float
@pytest.mark.parametrize(("name", "target"), golden.records())
def test_file_and_description_are_as_recorded(name, target, tmp_path):
    recorded = (golden.FOLDER / f"{name}.{target}.txt").read_text()
    assert golden.record(name, target, tmp_path) == recorded
