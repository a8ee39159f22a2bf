import keras
import numpy as np
import pytest
import small_models
from keras import layers, ops
from small_models import BUILDERS, assert_same_arrays, data_for, randomize, values

from tensorflow_quantization import quantize_model
from tensorflow_quantization.model.clone import rewrite
from tensorflow_quantization.model.graph import LayerGraph


def copy_of(model):
    """The model rewritten with nothing replaced."""
    return rewrite(LayerGraph.trace(model), lambda call, layer: [layer])


def replacing(model, name, make):
    return rewrite(LayerGraph.trace(model), lambda call, layer: [make(layer) if call.name == name else layer])


@pytest.mark.parametrize("name", BUILDERS)
def test_copy_computes_the_same_and_shares_nothing(name):
    model = BUILDERS[name]()
    x = data_for(model)
    expected = model(x)
    copy = copy_of(model)
    assert_same_arrays(copy(x), expected)
    assert keras.tree.map_structure(lambda y: 0, copy(x)) == keras.tree.map_structure(lambda y: 0, expected)
    assert [w.path.split("/")[-2:] for w in copy.weights] == [w.path.split("/")[-2:] for w in model.weights]
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}
    for weight in copy.weights:
        weight.assign(np.zeros(weight.shape))
    assert_same_arrays(model(x), expected)


@pytest.mark.parametrize("name", ["functional", "sequential", "nested", "nested_sequential", "siamese"])
def test_nesting_names_and_classes_are_kept(name):
    model = BUILDERS[name]()
    copy = copy_of(model)
    assert type(copy) is type(model)
    assert copy.name == model.name
    assert [(type(a), a.name) for a in copy.layers] == [(type(b), b.name) for b in model.layers]
    assert [x.name for x in LayerGraph.trace(copy).inputs] == [x.name for x in LayerGraph.trace(model).inputs]


def test_model_called_twice_is_copied_once():
    copy = copy_of(small_models.siamese())
    assert len(copy.get_layer("encoder").get_layer("conv").weights) == 2
    assert len(copy.weights) == 4


def test_layer_is_replaced_in_a_nested_model_and_the_rest_kept():
    def replacement(layer):
        return layers.ReLU(max_value=0.5, name="clipped")

    model = small_models.nested()
    changed = replacing(model, "relu", replacement)
    assert [layer.name for layer in changed.get_layer("backbone").layers][-1] == "clipped"
    x = data_for(model)
    pooled = keras.Model(model.inputs, model.get_layer("backbone")(model.inputs[0], training=False))(x)
    expected = model.get_layer("head")(ops.mean(ops.clip(pooled, 0, 0.5), axis=(1, 2)))
    np.testing.assert_allclose(ops.convert_to_numpy(changed(x)), ops.convert_to_numpy(expected), rtol=1e-5, atol=1e-6)


def test_several_layers_may_stand_in_for_one():
    model = small_models.sequential()
    changed = rewrite(
        LayerGraph.trace(model),
        lambda call, layer: [layer, layers.ReLU(name="after")] if call.name == "dense" else [layer],
    )
    assert [layer.name for layer in changed.layers] == ["conv", "flatten", "dense", "after"]
    x = data_for(model)
    assert_same_arrays(changed(x), ops.relu(model(x)))


def test_layers_may_follow_an_input():
    model = small_models.residual()
    changed = rewrite(
        LayerGraph.trace(model), lambda call, layer: [layer], lambda tensor: [layers.ReLU(name=f"{tensor.name}_relu")]
    )
    x = data_for(model)
    assert changed.get_layer("image_relu")
    assert_same_arrays(changed(x), model(np.maximum(x, 0)))


def test_an_input_that_the_model_returns_is_returned_unchanged():
    feat = keras.Input((4,), name="feat")
    model = keras.Model(feat, [feat, layers.Dense(2, name="dense")(feat)])
    changed = rewrite(LayerGraph.trace(model), lambda call, layer: [layer], lambda tensor: [layers.ReLU(name="relu")])
    x = np.float32([[-1.0, 2.0, -3.0, 4.0]])
    returned, computed = changed(x)
    assert list(changed.output_names) == ["feat", "dense"]
    assert_same_arrays(returned, x)
    assert_same_arrays(computed, model(np.maximum(x, 0))[1])


def test_an_input_that_a_nested_model_returns_is_returned_unchanged():
    x = np.float32([[-1.0, 2.0, -3.0, 4.0]])
    model = None
    for depth in range(3):  # each model returns the inputs of the model in it
        feat = keras.Input((4,), name=f"feat{depth}")
        inner = model([feat]) if model else [feat, layers.Dense(2, name="dense")(feat)]
        model = keras.Model([feat], inner, name=f"model{depth}")
    changed = rewrite(LayerGraph.trace(model), lambda call, layer: [layer], lambda tensor: [layers.ReLU(name="relu")])
    returned, computed = changed([x])
    assert_same_arrays(returned, x)
    assert_same_arrays(computed, model([np.maximum(x, 0)])[1])


@pytest.mark.parametrize("outputs", [1, 2])
def test_outputs_have_the_names_of_the_model(outputs):
    x = keras.Input((4,), name="x")
    y = layers.Dense(2, name="dense")(x) + layers.Dense(2, name="other")(x)
    model = keras.Model(x, [y, layers.ReLU(name="relu")(y)][:outputs])

    def followed(call, layer):
        return [layer, layers.Identity(name=f"after_{layer.name}")]

    changed = rewrite(LayerGraph.trace(model), followed)
    assert list(changed.output_names) == list(model.output_names)
    changed.compile("sgd", loss=dict.fromkeys(model.output_names, "mse"))
    changed.fit(np.ones((2, 4)), [np.ones((2, 2))] * outputs, verbose=0)


def test_a_layer_has_the_name_of_an_output_unless_an_operation_still_has_it(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, [layers.Dense(2, name="dense")(x), layers.ReLU(name="act")(x)])

    def followed(call, layer):
        if call.name == "dense":  # replaced by a layer of another name
            layer.name = "other"
            return [layer]
        return [layer, layers.Identity(name="after")]

    changed = rewrite(LayerGraph.trace(model), followed)
    assert list(changed.output_names) == ["dense", "act"]
    changed.save(tmp_path / "m.keras")
    assert list(keras.saving.load_model(tmp_path / "m.keras").output_names) == ["dense", "after"]


def test_trainable_flags_are_kept():
    model = small_models.nested()
    model.get_layer("backbone").trainable = False
    model.get_layer("head").bias.trainable = True
    copy = copy_of(model)
    assert [w.path for w in copy.trainable_weights] == [w.path for w in model.trainable_weights]
    assert not copy.get_layer("backbone").trainable
    assert not copy.get_layer("backbone").get_layer("conv").trainable


def test_partly_frozen_backbone_stays_partly_frozen():
    model = small_models.nested()
    model.get_layer("backbone").get_layer("conv").trainable = False
    assert [w.path for w in copy_of(model).trainable_weights] == [w.path for w in model.trainable_weights]


def test_arguments_of_calls_are_kept():
    inputs = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    model = randomize(keras.Model(inputs, attention(inputs, value=inputs, use_causal_mask=True)))
    x = data_for(model)
    changed = x.copy()
    changed[:, -1] += 1
    copy = copy_of(model)
    assert_same_arrays(copy(x), model(x))
    assert_same_arrays(copy(changed)[:, :-1], copy(x)[:, :-1])


def test_backbone_called_for_inference_trains_as_the_model_would():
    model = small_models.nested()
    copy = copy_of(model)
    x = data_for(model)
    assert_same_arrays(copy(x, training=True), model(x, training=True))
    assert_same_arrays(values(copy), values(model))


def test_an_adapted_normalization_computes_the_same():
    inputs = keras.Input((3,))
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(5, 3, (100, 3)))
    inner = keras.Sequential([inputs, normalization, layers.Dense(2)])
    model = keras.Model(inputs, inner(inputs))
    copy = copy_of(model)
    x = data_for(model)
    np.testing.assert_array_equal(copy.predict(x, verbose=0), model.predict(x, verbose=0))


def test_random_seeds_continue_where_the_model_is():
    inputs = keras.Input((50,))
    model = keras.Model(inputs, layers.Dropout(0.5, seed=3, name="dropout")(inputs))
    x = np.ones((2, 50), "float32")
    model(x, training=True)
    copy = copy_of(model)
    expected = ops.convert_to_numpy(model(x, training=True))
    assert 0 < np.count_nonzero(expected) < expected.size
    np.testing.assert_array_equal(ops.convert_to_numpy(copy(x, training=True)), expected)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_dtype_policies_are_kept(policy):
    inputs = keras.Input((4,))
    x = layers.Dense(4, dtype=policy, name="half")(inputs)
    copy = copy_of(keras.Model(inputs, layers.Dense(2, dtype="float32", name="full")(x)))
    assert copy.get_layer("half").dtype_policy.name == policy
    assert copy.get_layer("full").dtype_policy.name == "float32"


class Scale(layers.Layer):
    """A custom layer that tells its arguments."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Mute(layers.Layer):
    """A custom layer that does not tell them."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self._factor = factor

    def call(self, x):
        return x * self._factor

    def get_config(self):
        return {"name": self.name}


class Talkative(Scale):
    """A custom layer that tells what is none, as those of KerasHub's ViT do."""

    def __init__(self, factor, units=2, **kwargs):
        super().__init__(factor, **kwargs)
        self.units = units

    def get_config(self):
        return {"name": self.name, "factor": self.factor, "doubled": 2 * self.units}


class Nameless(layers.Layer):
    """A custom layer that leaves its config to Keras, which then leaves out the name."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def call(self, x):
        return x


class Forgetful(layers.Layer):
    """A custom layer whose config makes other variables."""

    def __init__(self, units=2, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units))

    def call(self, x):
        return ops.matmul(x, self.w)

    def get_config(self):
        return {"name": self.name}


def test_custom_layers_and_lambdas_are_copied_by_their_config():
    inputs = keras.Input((4,))
    x = Scale(3.0, name="scale")(inputs)
    model = keras.Model(inputs, layers.Lambda(lambda x: x + 1.0, output_shape=(4,), name="plus")(x))
    copy = copy_of(model)
    assert copy.get_layer("scale") is not model.get_layer("scale")
    assert ops.convert_to_numpy(copy(np.ones((1, 4), "float32"))).tolist() == [[4.0] * 4]


def test_layer_whose_config_does_not_fit_is_copied_by_its_attributes():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Talkative(3.0, units=7, name="talkative", trainable=False)(inputs))
    with pytest.warns(UserWarning, match=r"'talkative' \(Talkative\) is not what its __init__ takes"):
        copy = copy_of(model).get_layer("talkative")
    assert (copy.factor, copy.units, copy.trainable) == (3.0, 7, False)
    assert copy is not model.get_layer("talkative")


class Patches(layers.Layer):
    """As examples write it: the constructor takes no name or dtype."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, inputs):
        return keras.ops.reshape(inputs, (-1, inputs.shape[1] // self.size, self.size))

    def get_config(self):
        return {**super().get_config(), "size": self.size}


class Gated(layers.Layer):
    """The same, without a config and an attribute for its argument."""

    def __init__(self, units):
        super().__init__()
        self.linear, self.gate = layers.Dense(units), layers.Dense(units, activation="sigmoid")

    def call(self, inputs):
        return self.linear(inputs) * self.gate(inputs)


@pytest.mark.parametrize("layer", [lambda: Patches(2), lambda: Gated(3)], ids=["Patches", "Gated"])
def test_layer_whose_constructor_takes_its_own_arguments_only_is_copied(layer):
    inputs = keras.Input((4,))
    layer = layer()
    layer.trainable = False
    model = keras.Model(inputs, layer(inputs))
    with pytest.warns(UserWarning, match=r"\*\*kwargs and pass them to super"):
        copy = copy_of(model)
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(m(x)) for m in (model, copy)))
    assert copy.layers[1].name == layer.name and not copy.layers[1].trainable


class Rate(layers.Layer):
    """Its argument can be changed, and its constructor wants a name."""

    def __init__(self, rate, name):
        super().__init__(name=name)
        self.rate = rate

    def call(self, inputs):
        return self.rate * inputs

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


def test_an_argument_that_was_changed_is_copied_as_it_is():
    inputs = keras.Input((4,))
    layer = Rate(2.0, "rate")
    layer.rate = 0.5
    with pytest.warns(UserWarning, match="is not what its __init__ takes"):
        copy = copy_of(keras.Model(inputs, layer(inputs))).get_layer("rate")
    assert copy.rate == 0.5


def test_name_is_kept_without_a_config_that_has_it():
    inputs = keras.Input((4,))
    assert copy_of(keras.Model(inputs, Nameless(name="mine")(inputs))).layers[-1].name == "mine"


def test_name_of_an_operation_is_kept_without_a_config_that_has_it():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, ops.image.extract_patches(inputs, 2))
    assert copy_of(model).operations[-1].name == model.operations[-1].name


def test_layer_that_cannot_be_copied_is_named_with_what_to_do():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Mute(np.float32(3), name="mute")(inputs))  # Keras notes no arrays
    with pytest.raises(ValueError, match=r"Layer 'mute' \(Mute\) cannot be copied(.|\n)*get_config\(\)"):
        copy_of(model)


def test_layer_whose_copy_has_other_variables_is_named():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Forgetful(5, name="forgetful")(inputs))
    with pytest.raises(ValueError, match=r"'forgetful' \(Forgetful\).*or other shapes. Complete its get_config"):
        copy_of(model)


class OwnStep(keras.Model):
    """Built like `keras.Model`, with a training step of its own."""

    def train_step(self, data):
        return {"own": 1.0}


class OwnStepAndConstructor(keras.Model):
    def __init__(self, units):
        inputs = keras.Input((4,))
        super().__init__(inputs, layers.Dense(units)(inputs))

    def train_step(self, data):
        return {"own": 1.0}


def test_class_with_the_constructor_of_a_model_is_kept():
    inputs = keras.Input((4,))
    assert type(copy_of(OwnStep(inputs, layers.Dense(2)(inputs)))) is OwnStep


def test_lost_training_step_is_warned_of():
    with pytest.warns(UserWarning, match=r"OwnStepAndConstructor .* is a plain .* without its train_step"):
        copy = copy_of(OwnStepAndConstructor(3))
    assert copy.output_shape == (None, 3)


def test_compile_configuration_is_copied_with_an_optimizer_of_its_own(cnn):
    cnn.compile(
        optimizer=keras.optimizers.SGD(0.125, momentum=0.5),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
    )
    copy = copy_of(cnn)
    assert copy.compiled
    assert copy.optimizer is not cnn.optimizer
    assert copy.optimizer.get_config() == cnn.optimizer.get_config()
    x, y = small_models.images()
    assert_same_arrays(copy.evaluate(x, y, verbose=0), cnn.evaluate(x, y, verbose=0))
    assert sorted(copy.evaluate(x, y, verbose=0, return_dict=True)) == ["accuracy", "loss", "top2"]


def test_the_loss_of_a_copy_is_scaled_like_the_models():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small_models.cnn()
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(keras.optimizers.SGD(0.125))
    copy = copy_of(model)
    for optimizer in (model.optimizer, copy.optimizer):
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        assert optimizer.inner_optimizer.learning_rate == 0.125


def test_dict_of_losses_is_copied():
    model = small_models.dict_in_and_out()
    model.compile("sgd", loss={"class": "mse", "box": "mae"}, loss_weights={"class": 1.0, "box": 0.5})
    copy = copy_of(model)
    x = data_for(model)
    y = {"class": np.ones((8, 3), "float32"), "box": np.ones((8, 2), "float32")}
    assert copy.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def test_model_that_is_not_compiled_stays_so(cnn):
    assert not copy_of(cnn).compiled


def test_deep_models_do_not_recurse():
    inputs = x = keras.Input((4,))
    for _ in range(300):
        x = layers.ReLU()(x)
    assert len(copy_of(keras.Model(inputs, x)).layers) == 301


def test_integer_and_float_inputs_keep_their_dtypes():
    ids, numbers = keras.Input((3,), dtype="int32", name="ids"), keras.Input((2,), dtype="float16", name="values")
    x = layers.Flatten()(layers.Embedding(10, 2, name="embedding")(ids))
    copy = copy_of(randomize(keras.Model([ids, numbers], [x, layers.Dense(2)(numbers)])))
    assert [x.dtype for x in copy.inputs] == ["int32", "float16"]


def test_the_class_is_kept_where_its_constructor_is_called_like_that_of_a_model():
    class Plain(keras.Model):
        pass

    class Named(keras.Model):
        def __init__(self, inputs, outputs, **kwargs):
            super().__init__(inputs, outputs, **kwargs)

    for cls in (Plain, Named):
        inputs = keras.Input((3,))
        assert type(copy_of(cls(inputs, keras.layers.Dense(2)(inputs)))) is cls
    assert type(copy_of(BUILDERS["subclassed"]())) is not type(BUILDERS["subclassed"]())


class OwnArguments(keras.Model):
    def __init__(self, units, activation, name_of_head, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.head = layers.Dense(units, activation, name=name_of_head)

    def call(self, inputs):
        return self.head(inputs)


class OwnCall(keras.Model):
    """The constructor of `keras.Model`, and a `call` of its own."""

    def build(self, shape):
        self.head = layers.Dense(2, name="head")
        self.head.build(shape)
        super().build(shape)

    def call(self, inputs):
        return self.head(inputs)


class NeedsMore(keras.Model):
    """Called like `keras.Model`, but with an argument more."""

    def __init__(self, *args, rate, **kwargs):
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize("make", [lambda: OwnArguments(2, "relu", "head"), OwnCall], ids=["arguments", "call"])
def test_the_copy_of_a_subclassed_model_calls_the_layers_of_the_copy(make):
    model, x = make(), np.ones((2, 3), "float32")
    expected = model(x)
    copy = copy_of(model)
    assert [layer.name for layer in copy.layers] == ["input_layer", "head"]
    assert_same_arrays(copy(x), expected)


def test_a_class_that_needs_more_arguments_than_a_model_is_not_kept():
    inputs = keras.Input((3,))
    copy = copy_of(NeedsMore(inputs, layers.Dense(2)(inputs), rate=0.1))
    assert type(copy) is not NeedsMore


def test_low_rank_factors_are_copied_with_their_alpha():
    inputs = keras.Input((4,))
    dense = layers.Dense(3, name="dense")
    model = keras.Model(inputs, dense(inputs))
    dense.enable_lora(2, lora_alpha=8)
    randomize(model)
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    assert_same_arrays(copy_of(model)(x), model(x))


class UnregisteredCell(layers.Layer):
    """A cell whose class Keras does not find from the config of the layer around it."""

    state_size = 4

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4))

    def call(self, inputs, states):
        return ops.matmul(inputs, self.kernel), states


def test_an_unregistered_class_within_a_layer_is_named():
    model = keras.Sequential([keras.Input((5, 3)), layers.RNN(UnregisteredCell()), layers.Dense(2)])
    message = r"\(RNN\) holds a UnregisteredCell, which Keras does not find.*register_keras_serializable"
    with pytest.raises(ValueError, match=message):
        quantize_model(model)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_layer_that_keras_cannot_store_with_a_policy_object_can_be_stored_as_a_copy(tmp_path, dtype):
    """`Identity` has no get_config, and Keras notes the arguments of __init__ only if all are numbers and strings."""
    identity = layers.Identity(dtype=keras.DTypePolicy(dtype))
    with pytest.raises(NotImplementedError):
        identity.get_config()
    copy = copy_of(keras.Sequential([keras.Input((4,)), layers.Dense(3), identity]))
    copy.save(tmp_path / "m.keras")
    assert keras.saving.load_model(tmp_path / "m.keras").layers[-1].dtype_policy == keras.DTypePolicy(dtype)


class BrokenConfig(layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.gain = factor

    def call(self, inputs):
        return inputs * self.gain

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def test_layer_whose_get_config_raises_is_copied_by_the_arguments_that_keras_noted():
    model = keras.Sequential([keras.Input((4,)), BrokenConfig(3.0, name="broken")])
    with pytest.warns(UserWarning, match=r"'broken' \(BrokenConfig\) is not what its __init__ takes"):
        copy = copy_of(model)
    x = data_for(model)
    assert_same_arrays(copy(x), model(x))


def test_layer_whose_get_config_raises_is_named_if_no_arguments_are_known():
    model = keras.Sequential([keras.Input((4,)), BrokenConfig(np.float32(3), name="broken")])
    with pytest.raises(ValueError, match=r"'broken' \(BrokenConfig\) cannot be copied from its config: .*factor"):
        copy_of(model)


class VariableForArgument(layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape):
        self.factor = self.add_weight(name="factor", shape=(1,), initializer=keras.initializers.Constant(self.factor))

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def test_variable_that_took_the_place_of_an_argument_is_not_shared_with_the_copy():
    model = keras.Sequential([keras.Input((4,)), VariableForArgument(3.0)])
    copy = copy_of(model)
    assert len(copy.weights) == 1
    assert copy.weights[0] is not model.weights[0]
    assert values(copy)[0] == [3.0]


class Inner(layers.Layer):
    """Its config is not known, since an argument is an object, and has another name as an attribute."""

    def __init__(self, unit_count, initializer, **kwargs):
        super().__init__(**kwargs)
        self.units, self.start = unit_count, initializer

    def build(self, shape):
        self.dense = layers.Dense(self.units, kernel_initializer=self.start)
        self.dense.build(shape)

    def call(self, inputs):
        if ops.shape(inputs)[-1] == 0:
            return inputs
        return ops.cast(ops.convert_to_tensor(self.dense.kernel), inputs.dtype)[0] + inputs


@keras.saving.register_keras_serializable("test_clone")
class Outer(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, name="first")
        self.inner = Inner(units, keras.initializers.HeNormal(), name="inner")

    def build(self, shape):
        self.first.build(shape)
        self.inner.build((*shape[:-1], self.units))

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)

    def call(self, inputs):
        return self.inner(self.first(inputs))


def test_layer_in_an_opened_block_is_a_part_of_a_copy_of_the_block_if_its_own_config_is_not_known():
    model = randomize(keras.Sequential([keras.Input((4,)), Outer(3, name="outer")]))
    with pytest.warns(UserWarning, match=r"'outer/inner' \(Inner\) is not what its __init__ takes"):
        quantized = quantize_model(model, target="onnxruntime")
    inner = quantized.get_layer("outer").get_layer("inner")
    assert_same_arrays(inner.dense.kernel, model.layers[-1].inner.dense.kernel)
    assert inner is not model.layers[-1].inner
