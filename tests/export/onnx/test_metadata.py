"""What a file says of itself."""

import onnx
import pytest
import small_models

from tensorflow_quantization import export_onnx
from tensorflow_quantization.export.onnx.metadata import KERAS_VERSION, LIBRARY_VERSION, PRODUCER, TARGET, properties


def test_a_file_says_what_wrote_it_and_for_which_runtime(tmp_path):
    path = export_onnx(small_models.cnn(), tmp_path / "m.onnx", target="openvino")
    model = onnx.load(path)
    assert {p.key: p.value for p in model.metadata_props} == properties("openvino")
    assert model.producer_name == PRODUCER


@pytest.mark.parametrize(("target", "more"), [(None, set()), ("tensorrt", {TARGET})])
def test_only_a_file_for_one_runtime_names_it(target, more):
    assert set(properties(target)) == {KERAS_VERSION, LIBRARY_VERSION} | more
