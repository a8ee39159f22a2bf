"""No warning of other libraries reaches a user who shows all warnings."""

import warnings

from tensorflow_quantization import calibrate, check_onnx, describe, export_onnx, quantize_model


def test_the_whole_way_issues_no_deprecation_warning(cnn, images, tmp_path):
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        quantized = quantize_model(cnn, target="onnxruntime")
    calibrate(quantized, images[0], verbose=0)  # with PyTorch, Keras' own predict issues some
    with warnings.catch_warnings(record=True) as later:
        warnings.simplefilter("always")
        export_onnx(quantized, path)
        str(describe(quantized))
        str(check_onnx(path, "onnxruntime"))
    assert [str(w.message) for w in [*issued, *later] if issubclass(w.category, DeprecationWarning)] == []
