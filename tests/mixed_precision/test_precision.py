import keras
import pytest
import small_models

from tensorflow_quantization import QuantizationSpec, describe, quantize_model
from tensorflow_quantization.mixed_precision.precision import FLOAT, Precision, bytes_of_weights, precisions, spec_of


def test_bytes_are_rounded_up():
    assert [Precision(bits, 8).bytes(3) for bits in (2, 3, 4, 8)] == [1, 2, 2, 3]
    assert FLOAT.bytes(3) == 12


def test_each_combination_once_most_bits_first():
    assert list(map(str, precisions((4, 8, 4), (8, 6)))) == ["W8A8", "W8A6", "W4A8", "W4A6"]
    assert precisions(4, 8) == [Precision(4, 8)]


@pytest.mark.parametrize("bits", [(), (9,), (True,), ("4",), 1])
def test_wrong_bits_are_refused(bits):
    with pytest.raises(ValueError, match="weight_bits"):
        precisions(bits, 8)


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "onnxruntime", "openvino"])
@pytest.mark.parametrize("build", [small_models.cnn, small_models.residual, small_models.nested])
def test_a_spec_of_the_default_bits_changes_nothing(build, target):
    model = build()
    keras.utils.clear_session()
    layers = [x.name for x in describe(model) if x.class_name in ("Conv2D", "Dense")]
    named = quantize_model(build(), quantization_spec=spec_of(dict.fromkeys(layers, Precision(8, 8))), target=target)
    plain = quantize_model(build(), target=target)
    assert [(x.name, x.quantizers) for x in describe(named)] == [(x.name, x.quantizers) for x in describe(plain)]


def test_a_layer_in_float_and_the_entries_of_a_base(cnn):
    base = QuantizationSpec()
    base.add("gap", quantize_input=False)
    spec = spec_of({"conv": FLOAT, "dense": Precision(4, 6)}, base)
    assert [entry.name for entry in spec.layers] == ["gap", "conv", "dense"]
    assert len(base.layers) == 1
    described = describe(quantize_model(cnn, quantization_spec=spec))
    assert not described["conv"].quantized
    assert [q.bits for q in described["dense"].quantizers] == [6, 4]


def test_bytes_count_each_weight_in_its_bits(cnn):
    """conv 3x3x3x4 and bias 4; normalization 4x4; dense 4x5 and bias 5."""
    spec = spec_of({"conv": Precision(4, 8), "dense": FLOAT})
    assert bytes_of_weights(cnn, quantize_model(cnn, quantization_spec=spec)) == 108 // 2 + 4 * (4 + 16 + 20 + 5)
    assert bytes_of_weights(cnn, quantize_model(cnn)) == 108 + 20 + 4 * (4 + 16 + 5)
    assert bytes_of_weights(cnn, cnn) == 4 * cnn.count_params()
