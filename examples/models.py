"""The small network that several examples quantize."""

import keras


def small_cnn() -> keras.Model:
    """Three convolutions and two Dense layers for Fashion-MNIST, compiled; the layers have Keras' usual names."""
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(16, 3, activation="relu", name="conv2d")(inputs)
    x = keras.layers.MaxPooling2D(name="max_pooling2d")(x)
    x = keras.layers.Conv2D(32, 3, activation="relu", name="conv2d_1")(x)
    x = keras.layers.Conv2D(32, 3, activation="relu", name="conv2d_2")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(64, activation="relu", name="dense")(x)
    x = keras.layers.Dense(10, name="dense_1")(x)
    model = keras.Model(inputs, x, name="small_cnn")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model
