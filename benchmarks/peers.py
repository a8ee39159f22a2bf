"""What a user would do instead: the post-training quantization that comes with each runtime, of the same model."""

from __future__ import annotations

import importlib.util
import logging
import pathlib
import tempfile

import keras
import numpy as np

#: A peer that needs a package of its own: its name here, and in the package index.
OPTIONAL = {"nncf": "nncf"}


def missing() -> list[str]:
    """The packages of peers that are not installed."""
    return [package for module, package in OPTIONAL.items() if importlib.util.find_spec(module) is None]


def quantize_static(float_onnx: pathlib.Path, data: np.ndarray, folder: pathlib.Path) -> None:
    """ONNX Runtime's own quantizer, in Q/DQ format with weights per channel, with each dtype of activations."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(data[i : i + 1] for i in range(len(data)))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {input_name(float_onnx): batch}

    with tempfile.TemporaryDirectory() as temporary:
        prepared = pathlib.Path(temporary, "prepared.onnx")
        quant_pre_process(str(float_onnx), str(prepared))
        for name, activations in (("uint8", QuantType.QUInt8), ("int8", QuantType.QInt8)):
            quantize_static(
                str(prepared),
                str(folder / f"quantize_static {name}.onnx"),
                Reader(),
                quant_format=QuantFormat.QDQ,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                per_channel=True,
            )


def input_name(path: pathlib.Path) -> str:
    """The name of the only input of an `.onnx` file."""
    import onnx

    return onnx.load(path, load_external_data=False).graph.input[0].name


def nncf_quantize(float_onnx: pathlib.Path, data: np.ndarray, folder: pathlib.Path, transformer: bool) -> None:
    """NNCF's post-training quantization for OpenVINO, with each of its presets.

    Args:
        transformer: tell NNCF that the model is one, as its documentation asks for.
    """
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model_type = nncf.ModelType.TRANSFORMER if transformer else None
    for preset in (nncf.QuantizationPreset.PERFORMANCE, nncf.QuantizationPreset.MIXED):
        model = openvino.Core().read_model(float_onnx)
        model.reshape([1, *data.shape[1:]])
        dataset = nncf.Dataset([data[i : i + 1] for i in range(len(data))])
        quantized = nncf.quantize(model, dataset, preset=preset, subset_size=len(data), model_type=model_type)
        openvino.save_model(quantized, folder / f"NNCF {preset.value}.xml", compress_to_fp16=False)


def litert_post_training(model: keras.Model, data: np.ndarray, folder: pathlib.Path) -> None:
    """TensorFlow's converter, without quantization and with that of a representative data set."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as saved:
        model.export(saved, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        (folder / "float.tflite").write_bytes(converter.convert())
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([data[i : i + 1]] for i in range(len(data)))
        (folder / "post-training int8.tflite").write_bytes(converter.convert())
