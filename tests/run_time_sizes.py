"""Custom layers whose code reads sizes that are known only at run time, and networks made of them."""

import keras
from keras import Input, Model, layers, ops
from small_models import randomize


@keras.saving.register_keras_serializable("tests")
class Like(layers.Layer):
    """Resizes a map to the size of another."""

    def __init__(self, interpolation="nearest", **kwargs):
        super().__init__(**kwargs)
        self.interpolation = interpolation

    def call(self, x, other):
        return ops.image.resize(x, ops.shape(other)[1:3], self.interpolation)

    def compute_output_shape(self, x_shape, other_shape):
        return (*other_shape[:3], x_shape[3])


@keras.saving.register_keras_serializable("tests")
class Merge(layers.Layer):
    """A block: a lateral convolution, and the sum with a map of another size."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.lateral = layers.Conv2D(filters, 1, name="lateral")
        self.smooth = layers.Conv2D(filters, 3, padding="same", name="smooth")

    def call(self, coarse, fine):
        fine = self.lateral(fine)
        return self.smooth(fine + ops.image.resize(coarse, ops.shape(fine)[1:3], "nearest"))

    def compute_output_shape(self, coarse_shape, fine_shape):
        return (*fine_shape[:3], self.filters)


@keras.saving.register_keras_serializable("tests")
class ClassToken(layers.Layer):
    """Puts a learned token before the tokens of each sample."""

    def build(self, input_shape):
        self.token = self.add_weight(shape=(1, 1, input_shape[-1]), initializer="random_normal", name="token")

    def call(self, x):
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, ops.shape(x)[-1]))
        return ops.concatenate([ops.cast(token, x.dtype), x], axis=1)

    def compute_output_shape(self, input_shape):
        batch, steps, channels = input_shape
        return (batch, None if steps is None else steps + 1, channels)


@keras.saving.register_keras_serializable("tests")
class Tokens(layers.Layer):
    """An image as a sequence of tokens."""

    def call(self, x):
        batch, height, width, channels = ops.shape(x)
        return ops.reshape(x, (batch, height * width, channels))


@keras.saving.register_keras_serializable("tests")
class Heads(layers.Layer):
    """A block: self-attention written with Dense layers and reshapes."""

    def __init__(self, heads, size, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.size = heads, size
        self.qkv = layers.Dense(3 * heads * size, name="qkv")
        self.out = layers.Dense(heads * size, name="out")

    def call(self, x):
        batch, steps = ops.shape(x)[0], ops.shape(x)[1]
        qkv = ops.reshape(self.qkv(x), (batch, steps, 3, self.heads, self.size))
        q, k, v = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), axis=0)
        scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / self.size**0.5)
        mixed = ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3))
        return self.out(ops.reshape(mixed, (batch, steps, self.heads * self.size)))


def fpn():
    """A feature pyramid for images of any size."""
    x = inputs = Input((None, None, 3), name="image")
    maps = []
    for i, filters in enumerate((8, 12, 16)):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", name=f"conv_{i}")(x)
        x = layers.ReLU(name=f"relu_{i}")(layers.BatchNormalization(name=f"norm_{i}")(x))
        maps.append(x)
    y = layers.Conv2D(8, 1, name="top")(maps[-1])
    pyramid = [y]
    for i, fine in enumerate(maps[-2::-1]):
        y = Merge(8, name=f"merge_{i}")(y, fine)
        pyramid.append(y)
    return randomize(Model(inputs, pyramid))


def fpn_of_layers():
    """A feature pyramid whose custom layer resizes only."""
    inputs = Input((None, None, 3), name="image")
    fine = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv_0")(inputs)
    coarse = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv_1")(fine)
    top = Like(name="like")(layers.Conv2D(8, 1, name="top")(coarse), fine)
    y = layers.Add(name="sum")([layers.Conv2D(8, 1, name="lateral")(fine), top])
    return randomize(Model(inputs, layers.Conv2D(4, 3, padding="same", name="smooth")(y)))


def vit():
    """A vision transformer for images of any size, with a class token."""
    inputs = Input((None, None, 3), name="image")
    x = Tokens(name="tokens")(layers.Conv2D(8, 4, strides=4, name="patches")(inputs))
    x = ClassToken(name="token")(x)
    y = layers.LayerNormalization(name="norm_0")(x)
    x = layers.Add(name="sum_0")([x, Heads(2, 4, name="heads")(y)])
    y = layers.LayerNormalization(name="norm_1")(x)
    y = layers.Dense(8, name="project")(layers.Dense(16, activation="gelu", name="expand")(y))
    x = layers.Add(name="sum_1")([x, y])
    return randomize(Model(inputs, layers.Dense(5, name="scores")(x[:, 0])))
