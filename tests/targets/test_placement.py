"""Each target on small networks: where the quantizers go, and that its runtime then computes in integers."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers, ops
from processor import EXACT_WEIGHT_BITS
from small_models import randomize

from tensorflow_quantization import QuantizationSpec, calibrate, check_onnx, export_onnx, quantize_model, runtime_report
from tensorflow_quantization.quantize.pipeline import plan_model
from tensorflow_quantization.targets import TARGETS, Placement, Reason, ReasonCode, Target, find_target

SHAPE = (16, 16, 8)


def convolution(x, filters, size=3, activation="relu", **kwargs):
    x = layers.Conv2D(filters, size, padding="same", use_bias=False, **kwargs)(x)
    x = layers.BatchNormalization()(x)
    return x if activation is None else layers.Activation(activation)(x)


def residual(x):
    shortcut = convolution(x, 8)
    x = layers.Add()([shortcut, convolution(convolution(shortcut, 8), 8, activation=None)])
    return layers.ReLU()(x)


def strided_residual(x):
    x = convolution(x, 8)
    y = convolution(convolution(x, 8, 1, strides=2), 16, activation=None)
    return layers.ReLU()(layers.Add()([convolution(x, 16, 1, activation=None, strides=2), y]))


def squeeze_and_excitation(x):
    x = convolution(x, 8, activation="swish")
    gate = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(4, 1, activation="swish")(gate)
    return convolution(layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(gate)]), 8)


def inception(x):
    x = convolution(x, 8)
    pooled = convolution(layers.AveragePooling2D(3, 1, padding="same")(x), 8, 1)
    return convolution(layers.Concatenate()([convolution(x, 8, 1), convolution(x, 8, 5), pooled]), 8)


def inverted_bottleneck(x):
    y = layers.ReLU(6.0)(convolution(x, 16, 1, activation=None))
    y = layers.ZeroPadding2D(1)(y)
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3)(y))
    return layers.Add()([x, convolution(layers.ReLU(6.0)(y), 8, 1, activation=None)])


def separable(x):
    y = layers.SeparableConv2D(16, 3, padding="same", use_bias=False)(convolution(x, 8))
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.SeparableConv2D(8, 3, padding="same", depth_multiplier=2, activation="relu")(y)
    return layers.Add()([x, y])


def sums_of_three(x):
    x = layers.Add()([convolution(x, 8, activation=None) for _ in range(3)])
    return layers.Average()([convolution(layers.ReLU()(x), 8) for _ in range(3)])


BLOCKS = [sums_of_three, residual, strided_residual, squeeze_and_excitation, inception, inverted_bottleneck, separable]


def network(block):
    inputs = keras.Input(SHAPE, name="image")
    x = layers.GlobalAveragePooling2D()(block(inputs))
    return randomize(keras.Model(inputs, layers.Dense(5, activation="softmax", name="dense")(x)))


def images(count=8):
    return np.random.default_rng(0).normal(size=(count, *SHAPE)).astype("float32")


@pytest.fixture(params=BLOCKS, ids=lambda block: block.__name__)
def model(request):
    return network(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_all_multiplications_run_in_integers(model, target, tmp_path):
    quantized = calibrate(quantize_model(model, target=target), images(), verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx", verify_with=images(2))
    report = runtime_report(path, runtime=target)
    assert report.integer_share == 1.0, str(report)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime", "openvino"])
def test_files_have_no_findings(model, target, tmp_path):
    quantized = calibrate(quantize_model(model, target=target), images(), verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx", verify_with=images(2))
    report = check_onnx(path, target=target)
    assert report.ok, str(report)


def states(x):
    x, *_ = layers.LSTM(8, return_sequences=True, return_state=True)(x)
    return x


class SineAndCosine(layers.Layer):
    def call(self, inputs):
        return keras.ops.sin(inputs), keras.ops.cos(inputs)


def two(x):
    x, y = SineAndCosine()(layers.Dense(8)(x))
    return layers.Dense(8)(x) + layers.Dense(8)(keras.ops.transpose(y, (0, 1, 2)))


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("several", [states, two])
def test_what_reads_one_of_several_outputs_runs_in_integers(several, target, tmp_path):
    inputs = keras.Input((20, 8))
    model = randomize(keras.Model(inputs, layers.Dense(5)(layers.Dense(16, activation="relu")(several(inputs)))))
    x = np.random.default_rng(0).normal(size=(8, 20, 8)).astype("float32")
    quantized = calibrate(quantize_model(model, target=target), x, verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx", verify_with=x)
    assert check_onnx(path, target=target).ok
    products = [node for node in runtime_report(path, runtime=target).multiplying if node.op_type != "LSTM"]
    assert {node.ran for node in products} == {"integer"}


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime", "openvino"])
def test_saved_model_of_a_target_exports_the_same_file(target, tmp_path):
    quantized = calibrate(quantize_model(network(squeeze_and_excitation), target=target), images(), verbose=0)
    quantized.save(tmp_path / "m.keras")
    export_onnx(quantized, tmp_path / "before.onnx")
    export_onnx(keras.models.load_model(tmp_path / "m.keras"), tmp_path / "after.onnx")
    assert (tmp_path / "before.onnx").read_bytes() == (tmp_path / "after.onnx").read_bytes()


@pytest.mark.slow
def test_model_of_a_target_trains():
    quantized = quantize_model(network(squeeze_and_excitation), target="onnxruntime")
    quantized.compile("adam", "sparse_categorical_crossentropy")
    labels = np.arange(32) % 5
    history = quantized.fit(images(32), labels, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_one_quantizer_serves_all_readers_for_onnxruntime():
    plan = plan_model(network(residual), target="onnxruntime")
    with_output = [layer.path for layer in plan if layer.output]
    assert with_output[0] == "image"
    assert not any(layer.inputs for layer in plan)


def test_residual_convolution_stays_unquantized_before_the_add_for_tensorrt():
    plan = plan_model(network(residual), target="tensorrt")
    (add,) = [layer for layer in plan if layer.class_name == "Add"]
    assert add.inputs == (0,)


def test_sum_is_taken_into_a_convolution_unrounded_for_openvino(tmp_path):
    """OpenVINO adds the shortcut to the products themselves, so a quantizer in between would not round there."""
    import openvino

    model = network(residual)
    plan = plan_model(model, target="openvino")
    # The last normalization, which goes straight into the sum, has no quantizer; the shortcut has.
    assert not plan["batch_normalization_2"].quantized
    assert plan["activation"].output
    quantized = calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), images(), verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx")
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ordered_ops()]
    assert not {"Eltwise", "Subgraph"} & set(kinds)
    x = images(64)
    # Rounded in between, none of them would be; some image may have a value between two integers.
    assert np.isclose(compiled(x)[0], quantized.predict(x, verbose=0), atol=1e-5).all(axis=1).mean() > 0.9


def test_average_of_integers_that_another_layer_reads_is_quantized_for_openvino(tmp_path):
    """OpenVINO rounds it to integers in any case, as in NASNet."""
    inputs = keras.Input(SHAPE)
    x = convolution(inputs, 8)
    average = layers.AveragePooling2D(3, strides=1, padding="same", name="average")(x)
    parts = [layers.Activation("gelu")(average), layers.Activation("gelu")(convolution(x, 8))]
    model = randomize(keras.Model(inputs, layers.Concatenate()(parts)))
    quantized = calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), images(), verbose=0)
    assert plan_model(model, target="openvino")["average"].output
    export_onnx(quantized, tmp_path / "m.onnx", verify_with=images(), verify_runtime="openvino")


@pytest.mark.parametrize("batch", [None, 64])
@pytest.mark.parametrize("activation", ["relu", "relu6", "swish"])
def test_sum_of_activations_is_rounded_as_openvino_does(batch, activation, tmp_path):
    import openvino

    inputs = keras.Input(batch_shape=(batch, *SHAPE))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(inputs)
    y = layers.Conv2D(8, 3, padding="same", activation=activation, name="second")(inputs)
    model = randomize(keras.Model(inputs, layers.Conv2D(8, 3, name="last")(layers.Add(name="add")([x, y]))))
    plan = plan_model(model, target="openvino")
    # A kernel adds to what it has clipped before it rounds; another activation is an operator of its own.
    expected = ["input_layer", "second" if activation == "swish" else "first", "add"]
    assert [layer.path for layer in plan if layer.output] == expected
    x = images(64)
    quantized = calibrate(quantize_model(model, target="openvino", weight_bits=EXACT_WEIGHT_BITS), x, verbose=0)
    path = export_onnx(quantized, tmp_path / "m.onnx")
    y = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    # Rounded in both, nearly all outputs would differ; a few values lie between two integers.
    assert np.isclose(y, quantized.predict(x, verbose=0, batch_size=64), atol=1e-5).mean() > 0.9


@pytest.mark.parametrize("activation", [None, "relu"])
def test_normalization_after_a_dense_is_folded_for_tensorrt(activation, tmp_path):
    inputs = keras.Input((6,))
    x = layers.Dense(4, activation=activation, name="dense")(inputs)
    model = randomize(keras.Model(inputs, layers.Dense(3, name="head")(layers.BatchNormalization(name="bn")(x))))
    data = np.random.default_rng(0).normal(size=(8, 6))
    quantized = calibrate(quantize_model(model, target="tensorrt"), data, verbose=0)
    assert plan_model(model, target="tensorrt")["bn"].quantized == (activation is not None)
    export_onnx(quantized, tmp_path / "m.onnx")
    operators = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert ("BatchNormalization" in operators) == (activation is not None)


def pooled(after):
    """A convolution, a pooling that overlaps, and what comes after."""
    inputs = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    return randomize(keras.Model(inputs, after(layers.AveragePooling2D(3, 1, name="pool")(x))))


@pytest.mark.parametrize(
    ("after", "quantized"),
    [
        (lambda x: layers.Conv2D(4, 1)(x), True),
        (lambda x: layers.Conv2D(4, 1)(layers.Concatenate()([x, x])), True),
        (lambda x: layers.AveragePooling2D(2)(layers.Conv2D(4, 1)(layers.MaxPooling2D()(x))), True),
        (lambda x: layers.ReLU()(layers.BatchNormalization()(x)), False),
        (lambda x: layers.Conv2D(4, 1)(layers.BatchNormalization()(layers.Concatenate()([x, x]))), False),
        (lambda x: layers.Conv2D(4, 1)(layers.Concatenate()([layers.BatchNormalization()(x), x])), True),
    ],
    ids=["conv", "concat, conv", "max pool, conv", "norm", "concat, norm, conv", "concat with norm, conv"],
)
def test_openvino_averages_integers_only_where_a_quantizer_reads_them(tmp_path, after, quantized):
    assert plan_model(pooled(after), target="openvino")["conv"].output is quantized
    model = calibrate(
        quantize_model(pooled(after), target="openvino", weight_bits=EXACT_WEIGHT_BITS), images(), verbose=0
    )
    export_onnx(model, tmp_path / "m.onnx", verify_with=images(2), verify_runtime="openvino")


def test_entry_of_the_user_wins_over_the_target():
    spec = QuantizationSpec()
    spec.add("dense", quantize_input=False, quantize_weight=False)
    plan = plan_model(network(residual), quantization_spec=spec, target="onnxruntime")
    assert not plan["dense"].quantized
    assert "switched off" in plan["dense"].reason.text


MINE = Reason(ReasonCode.DEFAULT, "mine")


def test_target_of_ones_own():
    def place(graph, switched_off):
        return {call.path: Placement(weights=True, reason=MINE) for call in graph.calls if call.class_name == "Dense"}

    plan = plan_model(network(residual), target=Target("mine", place))
    assert [layer.path for layer in plan if layer.quantized] == ["dense"]
    assert plan["dense"].reason.text == "mine"


def test_targets_are_found_by_name():
    assert set(TARGETS) == {"tensorrt", "onnxruntime", "openvino", "litert"}
    assert all(find_target(name) is target for name, target in TARGETS.items())


def test_unknown_target_names_the_closest():
    with pytest.raises(ValueError, match="Did you mean 'onnxruntime'"):
        quantize_model(network(residual), target="onnx-runtime")


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime", "openvino"])
def test_nothing_is_logged_by_an_export(target, tmp_path, caplog):
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    quantized = quantize_model(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x))), target=target)
    calibrate(quantized, np.random.default_rng(0).normal(size=(8, 6, 8)), verbose=0)
    export_onnx(quantized, tmp_path / "m.onnx")
    assert not caplog.records


@pytest.mark.parametrize("add", [lambda a, b: layers.Add()([a, b]), lambda a, b: a + b], ids=["layer", "operation"])
def test_tensorrt_quantizes_the_shortcut_however_the_sum_is_written(tmp_path, add):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(add(y, x)))
    data = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    quantized = calibrate(quantize_model(keras.Model(inputs, layers.Dense(5)(x)), target="tensorrt"), data, verbose=0)
    assert check_onnx(export_onnx(quantized, tmp_path / "m.onnx", verify_with=data), target="tensorrt").ok


@pytest.mark.parametrize("pooling", [layers.AveragePooling2D, layers.MaxPooling2D])
@pytest.mark.parametrize(
    ("read_by", "expected"),
    [(lambda x: layers.Conv2D(4, 1)(layers.Dropout(0.1)(x)), False), (lambda x: layers.Activation("gelu")(x), True)],
    ids=["integers", "floats"],
)
def test_output_of_a_pool_is_quantized_for_tensorrt_where_a_layer_reads_it_in_floats(pooling, read_by, expected):
    inputs = keras.Input((8, 8, 3))
    x = pooling(2, name="pool")(layers.Conv2D(4, 3, activation="relu")(inputs))
    plan = plan_model(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(read_by(x)))), target="tensorrt")
    assert plan["pool"].placement.inputs == (0,)
    assert plan["pool"].placement.output is expected


def convolved_normalization(inputs):
    x = layers.DepthwiseConv2D(7, padding="same", name="depthwise")(inputs)
    x = layers.LayerNormalization(name="read")(x)
    return layers.Add()([inputs, layers.Dense(96)(layers.Activation("gelu")(layers.Dense(192)(x)))])


def normalization_of_a_normalization(inputs):
    def block(x, read):
        return layers.Add()([layers.Dense(x.shape[-1])(read), x])

    x = layers.LayerNormalization()(block(inputs, layers.LayerNormalization()(inputs)))
    x = layers.LayerNormalization()(layers.Reshape((49, 64))(layers.Conv2D(64, 3, 2, padding="same")(x)))
    x = block(x, layers.Dense(128)(layers.LayerNormalization(name="read")(x)))
    return layers.Dense(5)(block(x, layers.LayerNormalization()(x)))


def post_normalized_sum(inputs):
    x = layers.LayerNormalization(name="normalization")(layers.Dense(8)(inputs))
    y = layers.Dense(8)(layers.Dense(32, activation="gelu")(x))
    return layers.LayerNormalization()(layers.Add(name="read")([y, x]))


def concatenated_skip(inputs):
    skip = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D()(skip))
    x = layers.Concatenate(name="read")([layers.UpSampling2D()(x), skip])
    return layers.Conv2D(4, 3, padding="same")(x)


@pytest.mark.parametrize(
    ("network", "shape", "inputs", "reason"),
    [
        (convolved_normalization, (56, 56, 96), (0,), "runs in INT8"),  # smaller ones fuse in any case
        (post_normalized_sum, SHAPE, (1,), "stays in float; reads the integers that another layer reads"),
        (concatenated_skip, SHAPE, (1,), "stays in float; reads the integers that another layer reads"),
        (normalization_of_a_normalization, (14, 14, 32), (0,), "runs in INT8"),
    ],
)
def test_tensorrt_writes_fewer_floats_where_a_float_layer_reads_integers(tmp_path, network, shape, inputs, reason):
    pytest.importorskip("tensorrt_rtx")
    image = keras.Input(shape, name="image")
    model = randomize(keras.Model(image, network(image)))
    placement = plan_model(model, target="tensorrt")["read"].placement
    assert (placement.inputs, placement.output, str(placement.reason)) == (inputs, False, reason)
    in_floats = QuantizationSpec()
    in_floats.add("read", quantize_input=False)
    data = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    floats = []
    for spec in (None, in_floats):
        quantized = quantize_model(model, target="tensorrt", quantization_spec=spec)
        path = export_onnx(calibrate(quantized, data, verbose=0), tmp_path / "m.onnx", verify_with=data)
        floats.append(runtime_report(path, "tensorrt", input_shapes={"image": (1, *shape)}).bytes["Float"])
    assert floats[0] < floats[1]


def test_a_chain_of_concatenations_is_rounded_once_for_tensorrt():
    x = inputs = keras.Input((8, 8, 4))
    for name in ("first", "second"):
        y = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
        x = layers.Concatenate(name=name)([x, y])
    outputs = layers.Conv2D(4, 1)(layers.ReLU()(layers.BatchNormalization()(x)))
    plan = plan_model(keras.Model(inputs, outputs), target="tensorrt")
    assert plan["first"].placement.inputs == (0, 1)
    assert plan["second"].placement.inputs == (1,)
    normalizations = [layer for layer in plan if layer.class_name == "BatchNormalization"]
    # The first one reads no concatenation.
    assert [layer.quantized for layer in normalizations] == [True, False, False]


def test_scaled_scores_are_no_squeeze_and_excitation_for_tensorrt():
    inputs = keras.Input((6, 8))
    scores = keras.ops.multiply(keras.ops.matmul(inputs, keras.ops.swapaxes(inputs, 1, 2)), 0.25)
    plan = plan_model(keras.Model(inputs, layers.Softmax()(scores)), target="tensorrt")
    assert not plan["multiply"].placement


#: Scores masked by huge numbers, as layers of attention in libraries do. A sink joins them, as in GPT-OSS.
MASKED = {
    "where": lambda x, seen: ops.where(seen > 0, x, -1e9),
    "sum": lambda x, seen: x + (1 - seen) * -1e9,
    "concatenation": lambda x, seen: ops.concatenate([ops.where(seen > 0, x, -1e9), x[..., :1]], -1),
}


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "default"])
@pytest.mark.parametrize("mask", MASKED)
def test_scores_masked_by_a_huge_number_stay_in_float_until_a_softmax_reads_them(target, mask):
    inputs = keras.Input(batch_shape=(2, 6, 8))
    query, value = layers.Dense(8)(inputs), layers.Dense(8)(inputs)
    scores = MASKED[mask](ops.matmul(query, ops.transpose(query, (0, 2, 1))), np.tri(6, dtype="float32"))
    model = keras.Model(inputs, ops.matmul(ops.softmax(scores)[..., :6], value))
    data = np.random.default_rng(0).normal(size=(2, 6, 8)).astype("float32")
    quantized = calibrate(quantize_model(model, target=target), data, verbose=0)
    exact, got = (ops.convert_to_numpy(m(data)) for m in (model, quantized))
    assert np.mean((exact - got) ** 2) < 1e-3 * np.mean(exact**2)
    if mask == "concatenation" and target in ("litert", "onnxruntime"):
        reasons = {layer.path: layer.reason for layer in plan_model(model, target=target)}
        assert reasons["concatenate"].code is ReasonCode.HUGE_MASK
