"""Adding a layer: a wrapper for Conv2DTranspose, and an autoencoder that uses it.

    python examples/new_layer.py

The package knows Conv2DTranspose, but leaves it alone unless a spec names it. A wrapper of your own is used unasked.
"""

import keras

from fashion_mnist import load_fashion_mnist
from tensorflow_quantization import WeightedBaseQuantizeWrapper, describe, export_onnx, quantize_model


class Conv2DTransposeQuantizeWrapper(WeightedBaseQuantizeWrapper):
    """Registers itself for `Conv2DTranspose`, by its name."""

    def __init__(self, layer, **kwargs):
        super().__init__(layer, kernel_type="kernel", **kwargs)

    def build(self, input_shape):
        super().build(input_shape)

    def call(self, inputs, training=None):
        return super().call(inputs, training=training)


(x_train, _), (x_test, _) = load_fashion_mnist()
autoencoder = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
        keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
        keras.layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu"),
        keras.layers.Conv2DTranspose(1, 3, strides=2, padding="same"),
    ]
)
autoencoder.compile("adam", "mse")
autoencoder.fit(x_train[:20000], x_train[:20000], batch_size=128, epochs=2)

quantized = quantize_model(autoencoder)
quantized.fit(x_train[:20000], x_train[:20000], batch_size=128, epochs=1)
print(describe(quantized))
export_onnx(quantized, "autoencoder.onnx", verify_with=x_test[:100])
