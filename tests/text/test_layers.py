from dataclasses import dataclass

import pytest

from tensorflow_quantization.text.layers import ByLayer, plot_by_layer


@dataclass
class Entry:
    layer: str


class Result(ByLayer[Entry]):
    def __init__(self, *names):
        self.layers = [Entry(name) for name in names]


def test_layers_come_in_order_and_by_path():
    result = Result("block/conv", "dense")
    assert [entry.layer for entry in result] == ["block/conv", "dense"]
    assert result["dense"] is result.layers[1]


def test_an_unknown_layer_is_an_error_with_the_closest_name():
    with pytest.raises(KeyError, match=r"The result has no layer 'dens'\. Did you mean 'dense'"):
        Result("conv", "dense")["dens"]
    with pytest.raises(TypeError, match=r"pass one, or index the list \.layers"):
        Result("conv")[0]


def test_values_that_are_not_finite_are_not_drawn():
    pytest.importorskip("matplotlib").use("agg")
    ax = plot_by_layer(None, ["a", "b"], {"snr": ("o", [1.0, float("inf")])}, "dB")
    (line,) = ax.get_lines()
    assert line.get_xdata()[0] == 1.0
    assert line.get_xdata()[1] != line.get_xdata()[1]  # NaN
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
