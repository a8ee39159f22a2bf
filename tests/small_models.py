"""The smallest models that show a point, with the same weights each time, and helpers that every backend has."""

import keras
import numpy as np
from keras import layers, ops


def randomize(model, seed=0):
    """Random weights, with BatchNormalization statistics that matter; returns the model."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "seed" in weight.path:
            continue
        if any(name in weight.path.rsplit("/", 1)[-1] for name in ("variance", "gamma")):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return model


def images(count=16, seed=0):
    """Random images of shape (8, 8, 3) and labels 0 to 4."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 8, 8, 3)).astype("float32"), rng.integers(0, 5, count)


def cnn():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return randomize(keras.Model(inputs, layers.Dense(5, name="dense")(x), name="cnn"))


def residual(as_tuple=False):
    inputs = keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = layers.Conv2D(4, 3, padding="same", name="conv")(stem)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Add(name="add")((stem, x) if as_tuple else [stem, x])
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return randomize(keras.Model(inputs, layers.Dense(5, name="dense")(x), name="residual"))


def sequential():
    return randomize(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3, activation="relu", name="conv"),
                layers.Flatten(name="flatten"),
                layers.Dense(5, name="dense"),
            ],
            name="sequential",
        )
    )


def backbone(name="backbone"):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    return keras.Model(inputs, layers.ReLU(name="relu")(x), name=name)


def nested():
    """A backbone in a classifier, called with `training=False` as transfer learning does it."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = backbone()(inputs, training=False)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return randomize(keras.Model(inputs, layers.Dense(5, name="head")(x), name="nested"))


def nested_sequential():
    body = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv")], name="body")
    return randomize(
        keras.Sequential(
            [keras.Input((8, 8, 3)), body, layers.Flatten(name="flatten"), layers.Dense(5, name="dense")], name="outer"
        )
    )


def siamese():
    """One encoder called on two inputs."""
    encoder = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.GlobalAveragePooling2D(name="gap")],
        name="encoder",
    )
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    x = layers.Concatenate(name="concat")([encoder(left), encoder(right)])
    return randomize(keras.Model([left, right], layers.Dense(5, name="dense")(x), name="siamese"))


def shared_layer():
    """One Dense called three times in a row."""
    inputs = keras.Input((6,))
    dense = layers.Dense(6, activation="tanh", name="shared")
    return randomize(keras.Model(inputs, dense(dense(dense(inputs))), name="shared_layer"))


def dict_in_and_out():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    total = layers.Add(name="add")([left, right])
    outputs = {"class": layers.Dense(3, name="class")(total), "box": layers.Dense(2, name="box")(total)}
    return randomize(keras.Model({"left": left, "right": right}, outputs, name="dict_in_and_out"))


def operations():
    """Arithmetic and `keras.ops` between layers."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs * 2.0 - 1.0)
    x = ops.relu(x) + ops.mean(x, axis=(1, 2), keepdims=True)
    return randomize(keras.Model(inputs, layers.Dense(5, name="dense")(ops.reshape(x, (-1, 144))), name="operations"))


class Subclassed(keras.Model):
    """Layers as attributes, a residual connection in `call`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(3, 3, padding="same", name="conv")
        self.add = layers.Add(name="add")
        self.gap = layers.GlobalAveragePooling2D(name="gap")
        self.dense = layers.Dense(5, name="dense")

    def call(self, inputs):
        x = self.add([inputs, ops.relu(self.conv(inputs))])
        return self.dense(self.gap(x))


def subclassed():
    model = Subclassed(name="subclassed")
    model(np.zeros((1, 8, 8, 3), "float32"))
    return randomize(model)


#: Builders by what is special about them; each takes no argument.
BUILDERS = {
    "functional": cnn,
    "residual": residual,
    "residual_tuple": lambda: residual(as_tuple=True),
    "sequential": sequential,
    "nested": nested,
    "nested_sequential": nested_sequential,
    "siamese": siamese,
    "shared_layer": shared_layer,
    "dict": dict_in_and_out,
    "operations": operations,
    "subclassed": subclassed,
}


def data_for(model, count=8, seed=1):
    """Random input in the structure that a model takes."""
    rng = np.random.default_rng(seed)

    def data(shape):
        return rng.normal(size=(count, *shape[1:])).astype("float32")

    if isinstance(model, Subclassed):
        return data((None, 8, 8, 3))
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(lambda x: data(x.shape), structure)


def values(model):
    """Copies of all variables, in order."""
    return [np.array(v) for v in map(ops.convert_to_numpy, model.variables)]


def assert_same_arrays(actual, expected):
    """Two structures of arrays are equal to the bit."""
    actual, expected = keras.tree.flatten(actual), keras.tree.flatten(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))


def gradients(function, *arrays):
    """The gradients of a scalar function to each of its arguments, on any backend."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(a) for a in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = function(*tensors)
        found = tape.gradient(y, tensors, unconnected_gradients="zero")
    elif backend == "jax":
        import jax

        found = jax.grad(function, argnums=tuple(range(len(arrays))))(*map(jax.numpy.asarray, arrays))
    else:
        import torch

        tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
        grads = torch.autograd.grad(function(*tensors), tensors, allow_unused=True)
        found = [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, grads, strict=True)]
    return [np.array(ops.convert_to_numpy(g)) for g in found]
