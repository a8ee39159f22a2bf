"""Transfer learning: a classifier on top of a frozen backbone, which is a model inside the model.

    python examples/transfer_learning.py

The backbone's weights are random, to need no download: take weights="imagenet", and 224 x 224 colour images.
"""

import keras

from fashion_mnist import load_fashion_mnist
from tensorflow_quantization import calibrate, describe, export_onnx, quantize_model
from tensorflow_quantization.custom_qdq_cases import MobileNetQDQCase

(x_train, y_train), (x_test, y_test) = load_fashion_mnist()
x_train, y_train, x_test, y_test = x_train[:6000], y_train[:6000], x_test[:2000], y_test[:2000]

backbone = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, pooling="avg", weights=None)
backbone.trainable = False

inputs = keras.Input((28, 28, 1))
x = keras.layers.ZeroPadding2D(2)(inputs)
x = keras.layers.Concatenate()([x, x, x])
x = backbone(x, training=False)  # BatchNormalization keeps its statistics
model = keras.Model(inputs, keras.layers.Dense(10)(x))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=128, epochs=2)

# The backbone stays a model inside the model, and frozen. As it is called with training=False, no training sets the
# ranges of its quantizers: calibrate does.
quantized = quantize_model(model, custom_qdq_cases=[MobileNetQDQCase()])
calibrate(quantized, x_train[:512], method="mse")
quantized.fit(x_train, y_train, batch_size=128, epochs=1)

print(str(describe(quantized)).splitlines()[0])
export_onnx(quantized, "transfer_learning.onnx", verify_with=x_test[:32])
for name, each in [("float", model), ("INT8", quantized)]:
    print(f"{name:7}{each.evaluate(x_test, y_test, verbose=0, return_dict=True)['accuracy']:.2%}")
