"""A library case: ResNet50, with Q/DQ on the shortcut of each residual connection.

    python examples/residual_network.py

The weights are random and the images noise: this is about where quantizers go. Use weights="imagenet" and your images.
"""

import keras
import numpy as np
from tensorflow_quantization.custom_qdq_cases import ResNetV1QDQCase

from tensorflow_quantization import calibrate, describe, export_onnx, quantize_model

model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)
images = np.random.default_rng(0).normal(size=(16, 64, 64, 3)).astype("float32")

quantized = quantize_model(model, custom_qdq_cases=[ResNetV1QDQCase()])
calibrate(quantized, images, batch_size=8)

# The branch that ends in a convolution stays unquantized: the runtime computes convolution and addition in one step.
for layer in describe(quantized):
    if layer.class_name == "Add":
        print(f"{layer.name:25}{', '.join(map(str, layer.quantizers))}")

export_onnx(quantized, "resnet50_int8.onnx", input_layout="channels_first")
