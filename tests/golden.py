"""A record of files and descriptions, as text that one can read and compare.

    python tests/golden.py          # write tests/golden/ anew; read the difference before you commit it

Scales and weights are in the record by the digest of their bytes, so that a change of one bit shows. Files are recorded
as text and not by a digest of their own: a new version of a library may write the same graph in other bytes, and a
difference between two texts says what changed.
"""

import hashlib
import pathlib
import sys
import tempfile

import keras
import numpy as np
import onnx
import onnx_ir as ir
import small_models
from keras import layers, ops

from tensorflow_quantization import calibrate, describe, export_litert, export_onnx, quantize_model
from tensorflow_quantization.model.keras_internals import sublayers
from tensorflow_quantization.quantizers import ActivationQuantizer

FOLDER = pathlib.Path(__file__).parent / "golden"
#: By the name of the record; `None` is the default table.
TARGETS = {"default": None, "tensorrt": "tensorrt", "onnxruntime": "onnxruntime", "openvino": "openvino"}


def _image_model(make, shape=(16, 16, 3), name="model"):
    inputs = keras.Input(shape, name="image")
    return small_models.randomize(keras.Model(inputs, make(inputs), name=name))


def _conv_bn(x, filters, name, kernel=3, strides=1, activation="relu", padding="same"):
    x = layers.Conv2D(filters, kernel, strides, padding, use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.Activation(activation, name=f"{name}_{activation}")(x) if activation else x


def preprocessing():
    """Preprocessing by number and by channel, explicit padding, ReLU6, maximum pooling."""

    def make(x):
        x = layers.Rescaling(1 / 127.5, -1.0, name="rescaling")(x)
        x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 1.0, 2.0], name="normalization")(x)
        x = layers.ZeroPadding2D(1, name="padding")(x)
        x = _conv_bn(x, 4, "stem", strides=2, padding="valid")
        x = layers.ZeroPadding2D(((0, 1), (0, 1)), name="pool_padding")(x)
        x = layers.MaxPooling2D(3, 2, name="pool")(x)
        x = layers.ReLU(6.0, name="relu6")(layers.Conv2D(4, 3, name="conv")(x))
        return layers.Dense(5, name="dense")(layers.Flatten(name="flatten")(x))

    return _image_model(make, name="preprocessing")


def factor():
    """One factor for all of the input."""

    def make(x):
        x = _conv_bn(layers.Rescaling(1 / 255, name="rescaling")(x), 4, "stem")
        return layers.Dense(5, name="dense")(layers.GlobalAveragePooling2D(name="gap")(x))

    return _image_model(make, name="factor")


def residual_v1():
    """Identity and projected shortcuts, the latter with strides."""

    def make(x):
        stem = x = layers.Conv2D(4, 1, 2, name="stem")(x)
        x = _conv_bn(_conv_bn(x, 4, "a1"), 4, "a2", activation=None)
        shortcut = x = layers.ReLU(name="a_out")(layers.Add(name="a_add")([stem, x]))
        shortcut = _conv_bn(shortcut, 6, "b0", 1, 2, activation=None)
        x = _conv_bn(_conv_bn(x, 6, "b1", 1, 2), 6, "b2", activation=None)
        x = layers.ReLU(name="b_out")(layers.Add(name="b_add")([shortcut, x]))
        return layers.Dense(5, name="dense")(layers.GlobalAveragePooling2D(name="gap")(x))

    return _image_model(make, name="residual_v1")


def residual_v2():
    """Normalization and ReLU before convolutions, a pooled shortcut."""

    def make(x):
        x = layers.Conv2D(4, 3, 1, "same", name="stem")(x)
        for block in ("a", "b"):
            y = layers.BatchNormalization(name=f"{block}_bn")(x)
            y = layers.ReLU(name=f"{block}_relu")(y)
            x = layers.ZeroPadding2D(1, name=f"{block}_padding")(x)
            shortcut = layers.MaxPooling2D(3, 2, name=f"{block}_pool")(x)
            y = _conv_bn(y, 4, f"{block}1")
            y = layers.Conv2D(4, 3, 2, name=f"{block}2_conv")(layers.ZeroPadding2D(1, name=f"{block}2_padding")(y))
            x = layers.Add(name=f"{block}_add")([shortcut, y])
        x = layers.ReLU(name="post_relu")(layers.BatchNormalization(name="post_bn")(x))
        return layers.Dense(5, name="dense")(layers.GlobalAveragePooling2D(name="gap")(x))

    return _image_model(make, name="residual_v2")


def mobile():
    """Depthwise and separable convolutions, ReLU6, a linear bottleneck."""

    def make(x):
        x = layers.ReLU(6.0, name="stem_relu")(_conv_bn(x, 4, "stem", strides=2, activation=None))
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
        y = layers.ReLU(6.0, name="depthwise_relu")(layers.BatchNormalization(name="depthwise_bn")(y))
        x = layers.Add(name="add")([x, _conv_bn(y, 4, "project", 1, activation=None)])
        x = layers.SeparableConv2D(6, 3, activation="relu", name="separable")(x)
        return layers.Dense(5, name="dense")(layers.GlobalAveragePooling2D(name="gap")(x))

    return _image_model(make, name="mobile")


def squeeze_excite():
    """Swish, and a gate made of a global average."""

    def make(x):
        x = _conv_bn(x, 4, "stem", activation="swish")
        gate = layers.Reshape((1, 1, 4), name="squeeze")(layers.GlobalAveragePooling2D(name="average")(x))
        gate = layers.Conv2D(2, 1, activation="swish", name="reduce")(gate)
        gate = layers.Conv2D(4, 1, activation="sigmoid", name="expand")(gate)
        x = layers.Multiply(name="excite")([x, gate])
        x = _conv_bn(x, 4, "project", 1, activation=None)
        return layers.Dense(5, activation="softmax", name="dense")(layers.GlobalAveragePooling2D(name="gap")(x))

    return _image_model(make, name="squeeze_excite")


def inception():
    """Branches that are joined, and joined again, average pooling with padding and without."""

    def make(x):
        x = _conv_bn(x, 4, "stem")
        a = _conv_bn(x, 3, "a", 1)
        b = layers.Concatenate(name="inner")([_conv_bn(x, 2, "b1"), _conv_bn(x, 2, "b2", (1, 3))])
        c = _conv_bn(layers.AveragePooling2D(3, 1, "same", name="average")(x), 2, "c", 1)
        x = layers.Concatenate(name="outer")([a, b, c])
        x = layers.AveragePooling2D(2, name="pool")(x)
        x = layers.ZeroPadding2D(1, name="counted_padding")(_conv_bn(x, 4, "e", 1, activation=None))
        x = layers.AveragePooling2D(3, 1, name="counted")(x)
        x = layers.UpSampling2D(2, name="up")(_conv_bn(x, 4, "d", 1))
        return layers.Dense(5, name="dense")(layers.GlobalMaxPooling2D(name="max")(x))

    return _image_model(make, name="inception")


def transformer():
    """Attention, layer normalization, GELU, residual sums in floats."""
    inputs = keras.Input((6, 8), name="tokens")
    x = layers.LayerNormalization(name="norm1")(inputs)
    x = layers.Add(name="add1")([inputs, layers.MultiHeadAttention(2, 4, name="attention")(x, x)])
    y = layers.Dense(16, activation="gelu", name="mlp1")(layers.LayerNormalization(name="norm2")(x))
    x = layers.Add(name="add2")([x, layers.Dense(8, name="mlp2")(y)])
    x = layers.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d", name="einsum")(x)
    model = keras.Model(inputs, ops.max(x, axis=-1), name="transformer")
    return small_models.randomize(model)


def dense_normalized():
    """Batch normalization after matrix products."""
    inputs = keras.Input((8,), name="features")
    x = layers.Dense(6, use_bias=False, name="dense1")(inputs)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
    x = layers.BatchNormalization(name="bn2")(layers.Dense(6, name="dense2")(x))
    x = layers.Dropout(0.1, name="dropout")(x)
    return small_models.randomize(
        keras.Model(inputs, layers.Dense(3, activation="tanh", name="out")(x), name="dense_normalized")
    )


@keras.saving.register_keras_serializable("golden")
class Block(layers.Layer):
    """A residual block as people write them."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 3, padding="same", name="conv")
        self.bn = layers.BatchNormalization(name="bn")
        self.add = layers.Add(name="add")

    def build(self, shape):
        self.conv.build(shape)
        self.bn.build(shape)

    def call(self, x):
        return ops.relu(self.add([x, self.bn(self.conv(x))]))

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


def blocks():
    """A layer that is made of layers, twice."""

    def make(x):
        x = Block(4, name="block2")(Block(4, name="block1")(layers.Conv2D(4, 1, name="stem")(x)))
        return layers.Dense(5, name="dense")(layers.GlobalAveragePooling2D(name="gap")(x))

    return _image_model(make, name="blocks")


def one_dimension():
    """Convolutions over time, transposed ones over images, products of activations."""
    inputs = keras.Input((12, 4), name="series")
    x = layers.Conv1D(4, 3, padding="same", activation="relu", name="conv1d")(inputs)
    x = layers.DepthwiseConv1D(3, padding="same", name="depthwise1d")(x)
    y = layers.Conv1D(4, 1, name="keys")(inputs)
    z = ops.matmul(x, ops.transpose(y, (0, 2, 1)))
    x = layers.Reshape((12, 12, 1), name="image")(z)
    x = layers.Conv2DTranspose(2, 2, 2, name="transposed")(x)
    x = layers.LeakyReLU(0.1, name="leaky")(layers.AveragePooling2D(2, name="average")(x))
    return small_models.randomize(keras.Model(inputs, layers.Conv2D(1, 3, name="out")(x), name="one_dimension"))


#: Together they use every pass.
MODELS = {
    "cnn": small_models.cnn,
    "residual": small_models.residual,
    "nested": small_models.nested,
    "siamese": small_models.siamese,
    "operations": small_models.operations,
    "subclassed": small_models.subclassed,
    "preprocessing": preprocessing,
    "factor": factor,
    "residual_v1": residual_v1,
    "residual_v2": residual_v2,
    "mobile": mobile,
    "squeeze_excite": squeeze_excite,
    "inception": inception,
    "transformer": transformer,
    "dense_normalized": dense_normalized,
    "blocks": blocks,
    "one_dimension": one_dimension,
}
#: Those that are recorded for LiteRT too, whose converter takes its time.
LITERT = ("cnn", "residual_v2", "squeeze_excite", "inception", "dense_normalized")
#: Further files: the target of the model, and the arguments of `export_onnx`.
VARIANTS = {
    "float": (..., {"opset": 18}),
    "float16": ("tensorrt", {"precision": "float16"}),
    "retargeted": (None, {"target": "onnxruntime"}),
}
VARIED = ("operations", "preprocessing", "residual_v1", "transformer")


def quantized(name, target):
    """A quantized model with ranges that do not depend on the last bits of a processor."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    float_model = MODELS[name]()
    if target is ...:
        return float_model
    model = quantize_model(float_model, target=target)
    calibrate(model, small_models.data_for(float_model), verbose=0)
    for layer in sublayers(model):
        if isinstance(layer, ActivationQuantizer) and layer.has_own_range:
            low, high = (float(v) for v in keras.ops.convert_to_numpy(layer.range))
            layer.set_range(round(low, 1), round(high, 1) + 0.25)
    return model


def record(name, target, folder):
    """The description of a model and the file for a target, as text."""
    of_model, options = VARIANTS.get(target, (TARGETS.get(target, target), {}))
    model = quantized(name, of_model)
    if target == "litert":
        path = pathlib.Path(export_litert(model, folder / "model.tflite", verify_with=None))
        return f"{describe(model)}\n\n{litert_text(path.read_bytes())}\n"
    return f"{describe(model)}\n\n{onnx_text(export_onnx(model, folder / 'model.onnx', **options))}\n"


def onnx_text(path):
    """A valid ONNX file: its inputs, constants, nodes in order, outputs, metadata."""
    onnx.checker.check_model(path)
    model = ir.load(path)
    graph = model.graph
    rows = [f"opset {graph.opset_imports['']}, metadata {sorted(k for k in model.metadata_props)}"]
    rows += [f"input {_typed(value)}" for value in graph.inputs]
    rows += [f"constant {value.name} {digest(value.const_value.numpy())}" for value in graph.initializers.values()]
    for node in graph:
        attributes = ", ".join(f"{a.name}={_attribute(a)}" for a in node.attributes.values())
        inputs = ", ".join("-" if x is None else x.name for x in node.inputs)
        outputs = ", ".join(_typed(x) for x in node.outputs)
        rows.append(f"{node.name}: {node.op_type}({inputs}) {{{attributes}}} -> {outputs}")
    rows += [f"output {_typed(value)}" for value in graph.outputs]
    return "\n".join(rows)


def _attribute(attribute):
    return digest(attribute.value.numpy()) if attribute.type == ir.AttributeType.TENSOR else attribute.value


def _typed(value):
    return f"{value.name} {value.dtype} {value.shape}"


def litert_text(data):
    """A LiteRT file: its operators, with the integers and constants of what they read and write."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    codes = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    types = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    (graph,) = model.subgraphs

    def tensor(index):
        if index < 0:
            return "-"
        t = graph.tensors[index]
        q = t.quantization
        scale = "" if q is None or q.scale is None else f" scale {digest(np.asarray(q.scale))}, zero {set(q.zeroPoint)}"
        held = model.buffers[t.buffer].data
        constant = "" if held is None else f" = {digest(np.asarray(held))}"
        return f"{types[t.type]} {list(t.shape)}{scale}{constant}"

    rows = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = codes[max(code.builtinCode, code.deprecatedBuiltinCode)]
        inputs = "; ".join(map(tensor, operator.inputs))
        rows.append(f"{kind}({inputs}) -> {'; '.join(map(tensor, operator.outputs))}")
    return "\n".join(rows)


def digest(array):
    """Type, shape and the first characters of a hash of an array."""
    array = np.ascontiguousarray(array)
    return f"{array.dtype}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()[:12]}"


def records():
    """The names of what is recorded: (model, target)."""
    every = [(name, target) for name in MODELS for target in TARGETS] + [(name, "litert") for name in LITERT]
    return [*every, *((name, variant) for name in VARIED for variant in VARIANTS)]


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, target in records():
        with tempfile.TemporaryDirectory() as folder:
            (FOLDER / f"{name}.{target}.txt").write_text(record(name, target, pathlib.Path(folder)))
        print(name, target, file=sys.stderr)


if __name__ == "__main__":
    main()
