"""Draws a residual block before and after quantization, as it is in the exported ONNX files.

    python docs/draw_block.py

Writes docs/images/block.svg. Nothing in the picture is drawn by hand: its boxes are the nodes of the files.
"""

import pathlib
import tempfile

import keras
import matplotlib
import numpy as np
import onnx
from matplotlib import pyplot as plt
from tensorflow_quantization.custom_qdq_cases import ResNetV1QDQCase

from tensorflow_quantization import calibrate, export_onnx, quantize_model

LEFT, MIDDLE, RIGHT = -1.2, 0.0, 1.2
GREY, PLAIN = "#555555", "#f2f2f2"
COLORS = {"QuantizeLinear": "#f6c177", "DequantizeLinear": "#9ccfd8"}
#: What nodes are called in the picture.
LABELS = {"QuantizeLinear": "Quantize", "DequantizeLinear": "Dequantize"}


def residual_block() -> keras.Model:
    """Two convolutions with batch normalization, and the connection around them."""
    layers = keras.layers
    options = {"padding": "same", "use_bias": False, "data_format": "channels_first"}
    inputs = keras.Input((8, 16, 16))
    start = layers.ReLU(name="relu_0")(inputs)
    x = layers.BatchNormalization(axis=1)(layers.Conv2D(8, 3, **options, name="conv_1")(start))
    x = layers.ReLU(name="relu_1")(x)
    x = layers.BatchNormalization(axis=1)(layers.Conv2D(8, 3, **options, name="conv_2")(x))
    x = layers.Add(name="add")([start, x])
    return keras.Model(inputs, layers.ReLU(name="relu_2")(x))


def exported(model: keras.Model) -> onnx.GraphProto:
    """The graph of the model's ONNX file."""
    with tempfile.TemporaryDirectory() as folder:
        return onnx.load(export_onnx(model, pathlib.Path(folder, "model.onnx"))).graph


def places(graph: onnx.GraphProto) -> dict[str, tuple[float, int]]:
    """(column, row) of each tensor's node: what is computed in the middle, kernels right, the shortcut left."""
    initializers = {i.name for i in graph.initializer}
    place = {i.name: (MIDDLE, 0) for i in graph.input}
    beside: dict[str, float] = {}
    for node in graph.node:
        inputs = [name for name in node.input if name not in initializers]
        if not inputs:
            beside[node.output[0]] = RIGHT
        elif node.op_type in LABELS and "add/" in node.name:
            beside[node.output[0]] = LEFT
        else:
            row = max(place[name][1] for name in inputs if name in place)
            place[node.output[0]] = (MIDDLE, row + 1)
    for node in reversed(graph.node):  # from the consumer back
        for name in node.input:
            if name in beside:
                place[name] = (beside[name], place[node.output[0]][1] - 1)
    return place


def draw(axes, graph: onnx.GraphProto, title: str, rows: int) -> None:
    """A box a node, an arrow a tensor, from top to bottom."""
    place = places(graph)
    nodes = {node.output[0]: node for node in graph.node}
    for name, (x, y) in place.items():
        label, color = "input", PLAIN
        if name in nodes:
            kind = nodes[name].op_type
            label, color = LABELS.get(kind, kind), COLORS.get(kind, PLAIN)
            if kind == "Conv":
                label = nodes[name].name.split("/")[0].removeprefix("quant_")
            if x == RIGHT:
                label += "\nkernel"
        box = {"boxstyle": "round,pad=0.35", "edgecolor": GREY, "linewidth": 0.8, "facecolor": color}
        axes.text(x, -y, label, ha="center", va="center", fontsize=8, bbox=box)
    for node in graph.node:
        for name in node.input:
            if name in place:
                arrow(axes, place[name], place[node.output[0]])
    axes.set_title(title, fontsize=10)
    axes.set_xlim(-1.8, 1.8)
    axes.set_ylim(-rows - 0.3, 0.6)
    axes.axis("off")


def arrow(axes, start: tuple[float, int], end: tuple[float, int]) -> None:
    """Straight down, round a corner to or from another column, or in a bow around what lies between."""
    (x0, y0), (x1, y1) = start, end
    path = "arc3"
    if x1 != x0 == MIDDLE:
        path = "angle,angleA=0,angleB=90,rad=5"
    elif x0 != x1:
        path = "angle,angleA=90,angleB=0,rad=5"
    elif y1 - y0 > 1:
        path = "arc3,rad=0.4"
    style = {"arrowstyle": "-|>", "color": GREY, "linewidth": 0.8, "shrinkA": 11, "shrinkB": 11}
    axes.annotate("", (x1, -y1), (x0, -y0), arrowprops={**style, "connectionstyle": path}, zorder=0)


def main() -> None:
    keras.utils.set_random_seed(0)
    model = residual_block()
    quantized = quantize_model(model, custom_qdq_cases=[ResNetV1QDQCase()])
    calibrate(quantized, np.random.default_rng(0).normal(size=(8, 8, 16, 16)), verbose=0)
    matplotlib.rcParams["svg.hashsalt"] = "block"  # the same picture gives the same file
    graphs = {"float": exported(model), "quantized, with ResNetV1QDQCase": exported(quantized)}
    rows = max(y for graph in graphs.values() for _, y in places(graph).values())
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 6), width_ratios=[2, 3])
    for each, (title, graph) in zip(axes, graphs.items(), strict=True):
        draw(each, graph, title, rows)
    figure.tight_layout()
    path = pathlib.Path(__file__).parent / "images" / "block.svg"
    figure.savefig(path, metadata={"Date": None})
    print(path)


if __name__ == "__main__":
    main()
