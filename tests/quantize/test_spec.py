import dataclasses

import pytest

from tensorflow_quantization import LayerConfig, QuantizationSpec
from tensorflow_quantization.quantize import LayerConfig as DocumentedLayerConfig
from tensorflow_quantization.quantize import QuantizationSpec as DocumentedQuantizationSpec


def entries(spec):
    return [dataclasses.astuple(entry)[:5] for entry in spec.layers]


def test_documented_import_paths_are_the_same_classes():
    assert DocumentedLayerConfig is LayerConfig
    assert DocumentedQuantizationSpec is QuantizationSpec


def test_one_name_with_the_documented_defaults():
    spec = QuantizationSpec()
    spec.add("conv2d_2")
    assert spec.layers == [LayerConfig("conv2d_2", False, True, True, None)]


def test_documented_arguments_are_positional():
    spec = QuantizationSpec()
    spec.add("Add", True, True, False, [1])
    assert spec.layers == [LayerConfig("Add", True, True, False, [1])]


def test_scalars_count_for_every_name_of_a_list():
    spec = QuantizationSpec()
    spec.add(["a", "b"], quantize_weight=False, input_bits=4)
    assert entries(spec) == [("a", False, True, False, None), ("b", False, True, False, None)]
    assert [entry.input_bits for entry in spec.layers] == [4, 4]


def test_lists_give_each_name_its_own():
    spec = QuantizationSpec()
    spec.add(
        name=["add", "Dense", "concat"],
        is_keras_class=[False, True, False],
        quantize_input=[True, False, True],
        quantize_weight=[False, True, False],
        quantization_index=[[1], None, [0, 2]],
        weight_bits=[None, 4, None],
    )
    assert entries(spec) == [
        ("add", False, True, False, [1]),
        ("Dense", True, False, True, None),
        ("concat", False, True, False, [0, 2]),
    ]
    assert [entry.weight_bits for entry in spec.layers] == [None, 4, None]


def test_documented_index_lists():
    spec = QuantizationSpec()
    spec.add(name=["add", "add_2", "concat"], quantization_index=[[1], [0], None])
    assert [entry.quantization_index for entry in spec.layers] == [[1], [0], None]


def test_tuples_are_lists_too():
    spec = QuantizationSpec()
    spec.add(("a", "b"), quantize_input=(True, False), quantization_index=((0,), None))
    assert entries(spec) == [("a", False, True, True, [0]), ("b", False, False, True, None)]


def test_single_index_may_be_an_integer():
    spec = QuantizationSpec()
    spec.add("add", quantization_index=1)
    assert spec.layers[0].quantization_index == [1]


@pytest.mark.parametrize(
    "argument",
    [
        "is_keras_class",
        "quantize_input",
        "quantize_weight",
        "quantization_index",
        "weight_bits",
        "activation_bits",
        "input_bits",
    ],
)
def test_lists_of_unequal_length_are_refused_and_nothing_is_added(argument):
    spec = QuantizationSpec()
    with pytest.raises(ValueError, match=f"2 names but 3 values of '{argument}'"):
        spec.add(["a", "b"], **{argument: [None] * 3})
    assert spec.layers == []


@pytest.mark.parametrize("argument", ["weight_bits", "activation_bits", "input_bits"])
@pytest.mark.parametrize("bits", [1, 9, 4.0, "8"])
def test_bits_out_of_range_are_refused_with_the_name(argument, bits):
    with pytest.raises(ValueError, match=f"{argument} of 'conv' must be an integer from 2 to 8, got {bits!r}"):
        QuantizationSpec().add("conv", **{argument: bits})


@pytest.mark.parametrize(
    ("name", "index", "message"),
    [
        (3, None, "must be a string, got 3"),
        (["a", None], None, "must be a string, got None"),
        ("add", ["0"], "quantization_index of 'add' must be integers"),
        ("add", [True], "quantization_index of 'add' must be integers"),
        ("add", [[0]], r"one list for each name: \[\[1\], \[0\], None\]"),
    ],
)
def test_values_of_wrong_types_are_refused(name, index, message):
    spec = QuantizationSpec()
    with pytest.raises(TypeError, match=message):
        spec.add(name, quantization_index=index)
    assert spec.layers == []


def test_layer_itself_is_refused_with_a_hint():
    import keras

    for name in (keras.layers.Dense(2), [keras.layers.Dense(2)]):
        with pytest.raises(TypeError, match=r"Pass layer\.name"):
            QuantizationSpec().add(name)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("conv", "conv", True),
        ("conv", "conv_1", False),
        ("conv2_block*_conv", "conv2_block3_conv", True),
        ("conv2_block*_conv", "conv3_block3_conv", False),
        ("conv_?", "conv_1", True),
        ("conv_[12]", "conv_2", True),
        ("conv_[12]", "conv_3", False),
        ("CONV*", "conv", False),
    ],
)
def test_names_may_be_patterns(pattern, name, matches):
    assert LayerConfig(pattern).matches(name) is matches


def test_path_matches_by_name_by_path_and_by_pattern():
    for entry in ("conv", "backbone/conv", "backbone/*", "*/conv"):
        assert LayerConfig(entry).matches("conv", "backbone/conv"), entry
    for entry in ("other/conv", "backbone", "conv/*"):
        assert not LayerConfig(entry).matches("conv", "backbone/conv"), entry


def test_class_entry_matches_no_name():
    assert not LayerConfig("Dense", is_keras_class=True).matches("Dense")


def test_exact_name_wins_over_pattern_over_class_whatever_the_order():
    for order in (["dense", "den*", "Dense"], ["Dense", "den*", "dense"], ["den*", "dense", "Dense"]):
        spec = QuantizationSpec()
        for name in order:
            spec.add(name, is_keras_class=name == "Dense")
        assert spec.find("dense", ["Dense", "Layer"]).name == "dense"
        assert spec.find("dense_1", ["Dense", "Layer"]).name == "den*"
        assert spec.find("head", ["Dense", "Layer"]).name == "Dense"
        assert spec.find("head", ["Conv2D"]) is None
        assert spec.find("head") is None


def test_last_of_equals_counts():
    spec = QuantizationSpec()
    spec.add("dense", weight_bits=4)
    spec.add("dense", weight_bits=2)
    assert spec.find("dense").weight_bits == 2


@pytest.mark.parametrize("alias", ["MaxPool2D", "MaxPooling2D"])
def test_class_may_be_named_by_its_alias(alias):
    spec = QuantizationSpec()
    spec.add(alias, is_keras_class=True)
    assert spec.find("pool", ["MaxPooling2D", "Layer"]).name == alias


def test_last_of_a_class_and_its_alias_counts():
    spec = QuantizationSpec()
    spec.add("Convolution2D", is_keras_class=True, weight_bits=4)
    spec.add("Conv2D", is_keras_class=True, weight_bits=2)
    assert spec.find("conv", ["Conv2D"]).weight_bits == 2


def test_nearest_base_class_counts():
    spec = QuantizationSpec()
    spec.add("Layer", is_keras_class=True, quantize_input=False)
    spec.add("Dense", is_keras_class=True)
    assert spec.find("x", ["MyDense", "Dense", "Layer"]).name == "Dense"


def test_text_is_a_table_with_a_row_an_entry():
    spec = QuantizationSpec()
    spec.add(["conv2d_2", "dense"], weight_bits=[4, None])
    head, _, first, second = str(spec).splitlines()
    assert head.split() == [field.name for field in dataclasses.fields(LayerConfig)]
    row = dict(zip(head.split(), first.split(), strict=True))
    assert row["name"] == "conv2d_2"
    assert row["quantize_input"] == "True"
    assert row["weight_bits"] == "4"
    assert row["quantization_index"] == "None"
    assert second.split()[0] == "dense"


def test_input_bits_is_another_name_of_activation_bits():
    spec = QuantizationSpec()
    spec.add("a", input_bits=4)
    spec.add(["b", "c"], activation_bits=[4, 6], input_bits=[None, 6])
    assert [entry.activation_bits for entry in spec.layers] == [4, 4, 6]
    assert [entry.input_bits for entry in spec.layers] == [4, 4, 6]
    assert LayerConfig("a", input_bits=4) == LayerConfig("a", activation_bits=4) == spec.layers[0]
    spec.layers[0].input_bits = 2
    assert spec.layers[0].activation_bits == 2


def test_activation_bits_and_input_bits_that_differ_are_refused():
    spec = QuantizationSpec()
    message = "activation_bits of 'a' is 8, but input_bits, its older name, is 4. Pass activation_bits only."
    with pytest.raises(ValueError, match=message):
        spec.add("a", activation_bits=8, input_bits=4)
    with pytest.raises(ValueError, match=message):
        spec.add(["b", "a"], activation_bits=[4, 8], input_bits=4)
    assert spec.layers == []


def test_attributes_of_an_entry_can_be_assigned():
    spec = QuantizationSpec()
    spec.add("add")
    (entry,) = spec.layers
    entry.name = "sum"
    entry.quantize_weight = False
    entry.quantization_index = (1,)
    entry.weight_bits = 4
    assert entry == LayerConfig("sum", False, True, False, [1], weight_bits=4)
    assert spec.find("sum") is entry
    entry.quantization_index = None
    assert entry.quantization_index is None


@pytest.mark.parametrize(
    ("attribute", "value", "error", "message"),
    [
        ("name", 3, TypeError, "must be a string, got 3"),
        ("is_keras_class", "yes", TypeError, "is_keras_class of 'conv' must be True or False, got 'yes'"),
        ("quantize_input", None, TypeError, "quantize_input of 'conv' must be True or False, got None"),
        ("quantize_weight", 2, TypeError, "quantize_weight of 'conv' must be True or False, got 2"),
        ("quantize_output", [True], TypeError, r"quantize_output of 'conv' must be True or False, got \[True\]"),
        ("quantization_index", ["0"], TypeError, "quantization_index of 'conv' must be integers"),
        ("weight_bits", 9, ValueError, "weight_bits of 'conv' must be an integer from 2 to 8, got 9"),
        ("activation_bits", "8", ValueError, "activation_bits of 'conv' must be an integer from 2 to 8, got '8'"),
        ("input_bits", 1, ValueError, "input_bits of 'conv' must be an integer from 2 to 8, got 1"),
        ("weight_bit", 4, AttributeError, "no attribute 'weight_bit'. Did you mean 'weight_bits'"),
    ],
)
def test_assigning_what_an_attribute_cannot_be_is_refused(attribute, value, error, message):
    entry = LayerConfig("conv", weight_bits=4)
    with pytest.raises(error, match=message):
        setattr(entry, attribute, value)
    assert entry == LayerConfig("conv", weight_bits=4)


def test_copy_has_entries_of_its_own():
    spec = QuantizationSpec()
    spec.add("add", quantization_index=[0])
    (entry,) = spec.copy().layers
    entry.quantization_index.append(1)
    entry.weight_bits = 2
    assert spec.layers == [LayerConfig("add", quantization_index=[0])]


def test_copy_grows_on_its_own():
    spec = QuantizationSpec()
    spec.add("a")
    spec.copy().add("b")
    assert [entry.name for entry in spec.layers] == ["a"]


def test_spec_without_entries_is_false():
    spec = QuantizationSpec()
    assert not spec
    spec.add("a")
    assert spec


@pytest.mark.parametrize("index", [-1, [0, -2]])
def test_negative_index_is_refused(index):
    with pytest.raises(ValueError, match=r"quantization_index of 'add' must be 0 or greater, got \[.*counted from 0"):
        QuantizationSpec().add("add", quantization_index=index)
