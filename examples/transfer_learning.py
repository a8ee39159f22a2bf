"""Transfer learning: a classifier on top of a frozen backbone, which is a model inside the model.

    python examples/transfer_learning.py

The backbone learns from five kinds of clothes; then, frozen, it serves to tell the other five apart. It could as well
be one of `keras.applications`.
"""

import keras

from fashion_mnist import load_fashion_mnist
from tensorflow_quantization import calibrate, describe, export_onnx, quantize_model


def classifier(backbone: keras.Model) -> keras.Model:
    """Five classes, by the features of the backbone."""
    inputs = keras.Input((28, 28, 1))
    features = backbone(inputs, training=False if not backbone.trainable else None)
    model = keras.Model(inputs, keras.layers.Dense(5)(features))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    return model


(x_train, y_train), (x_test, y_test) = load_fashion_mnist()
known, new, new_test = y_train < 5, y_train >= 5, y_test >= 5

backbone = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(16, 3, strides=2, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Conv2D(32, 3, strides=2, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.GlobalAveragePooling2D(),
    ],
    name="backbone",
)
classifier(backbone).fit(x_train[known], y_train[known], batch_size=128, epochs=2)

backbone.trainable = False
model = classifier(backbone)
model.fit(x_train[new], y_train[new] - 5, batch_size=128, epochs=2)

# The backbone stays a model inside the model, and frozen. As it is called with training=False, training does not set
# the ranges of its quantizers: calibrate does.
quantized = quantize_model(model)
calibrate(quantized, x_train[new][:1000], method="mse")
quantized.fit(x_train[new], y_train[new] - 5, batch_size=128, epochs=1)

print(describe(quantized))
export_onnx(quantized, "transfer_learning.onnx", verify_with=x_test[:32])
for name, each in [("float", model), ("INT8", quantized)]:
    accuracy = each.evaluate(x_test[new_test], y_test[new_test] - 5, verbose=0, return_dict=True)["accuracy"]
    print(f"{name:7}{accuracy:.2%}")
