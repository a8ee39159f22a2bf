"""Draws a small network on its way: float in Keras, quantized in Keras, integers in ONNX Runtime.

    python docs/draw_overview.py

Writes docs/images/overview.svg. The boxes are the layers, quantizers and kernels that a real run has.
"""

from __future__ import annotations

import pathlib
import tempfile

import keras
import numpy as np
import svg

from tensorflow_quantization import calibrate, describe, export_onnx, quantize_model, runtime_report

WIDTH = 960
ROW, BOX = 38, 26
COLUMN = 220
#: Left edges of the columns.
LEFT = (20, 370, 720)


def network() -> keras.Model:
    """A convolution with batch normalization, and a classifier."""
    layers = keras.layers
    inputs = keras.Input((28, 28, 3), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, layers.Dense(10, name="dense")(x))


def columns() -> list[list[tuple[str, str]]]:
    """(text, colour) of each box, for the float model, the quantized model and the file in ONNX Runtime."""
    model = network()
    quantized = quantize_model(model, target="onnxruntime")
    images = np.random.default_rng(0).random((16, 28, 28, 3), "float32")
    calibrate(quantized, images, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        report = runtime_report(export_onnx(quantized, pathlib.Path(folder, "model.onnx")))
    ran = [node.kernel.split(" ")[0] for node in report if node.ran == "integer"]
    floats = [(type(layer).__name__, svg.FLOAT) for layer in model.layers[1:]]
    layers = []
    for layer in describe(quantized):
        kernels = [q for q in layer.quantizers if q.range is None]
        if layer.class_name != "ActivationQuantizer":
            label = f"{layer.class_name}, {kernels[0].dtype} {kernels[0].what}" if kernels else layer.class_name
            layers.append((label, svg.INTEGER if kernels else svg.FLOAT))
        layers += [(f"quantizer, {q.dtype}", svg.QUANTIZER) for q in layer.quantizers if q.range is not None]
    kernels = [(name, svg.INTEGER) for name in ran]
    if report.kernels["QuantizeLinear"]:
        kernels.insert(0, ("QuantizeLinear", svg.QUANTIZER))
    return [floats, layers, kernels]


def draw() -> str:
    """The picture, as SVG."""
    shapes = []
    titles = ("Keras model, float32", "quantized Keras model", "model.onnx in ONNX Runtime")
    boxes = columns()
    tallest = max(len(column) for column in boxes)
    for left, title, column in zip(LEFT, titles, boxes, strict=True):
        middle = left + COLUMN / 2
        shapes.append(svg.text(middle, 24, title, 14, color=svg.GREY, bold=True))
        top = 44 + (tallest - len(column)) * ROW / 2
        for i, (label, color) in enumerate(column):
            y = top + i * ROW
            shapes.append(svg.box(left, y, COLUMN, BOX, color))
            shapes.append(svg.text(middle, y + 17.5, label))
            if i:
                shapes.append(svg.arrow([(middle, y - ROW + BOX), (middle, y)]))
    level = 44 + tallest * ROW / 2
    for start, end, words in zip(
        LEFT, LEFT[1:], (["quantize_model", "calibrate or fit"], ["export_onnx"]), strict=False
    ):
        x0, x1 = start + COLUMN + 12, end - 12
        shapes.append(svg.arrow([(x0, level), (x1, level)]))
        for i, line in enumerate(reversed(words)):
            shapes.append(svg.text((x0 + x1) / 2, level - 10 - 17 * i, line, 12, color=svg.GREY))
    height = 44 + tallest * ROW + 10
    return svg.picture(WIDTH, height, "A network from float layers in Keras to integer kernels in ONNX Runtime", shapes)


if __name__ == "__main__":
    path = pathlib.Path(__file__).parent / "images" / "overview.svg"
    path.write_text(draw())
    print(path)
