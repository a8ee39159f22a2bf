"""Equations of EinsumDense, and which are a product with a matrix."""

import pytest
from keras import layers

from tensorflow_quantization.model.equation import Equation, as_matrix


def built(equation, shape, output_shape, **kwargs):
    layer = layers.EinsumDense(equation, output_shape, **kwargs)
    layer.build((None, *shape))
    return layer


def test_the_axes_of_an_equation():
    equation = Equation.parse("...x, xyz -> ...zy", 3)
    assert (equation.inputs, equation.kernel, equation.output) == ("abx", "xyz", "abzy")
    assert (equation.free, equation.summed, equation.made) == ("ab", "x", "yz")
    assert equation.is_product and equation.channel_axis is None


@pytest.mark.parametrize(
    "layer",
    [
        lambda: built("abc,cd->abd", (3, 4), (None, 5), bias_axes="d"),
        lambda: built("abc,cde->abde", (3, 4), (None, 5, 2), bias_axes="de"),
        lambda: built("abc,cde->abde", (3, 4), (None, 5, 2), bias_axes="e"),
        lambda: built("abcd,dce->aeb", (3, 4, 2), (6, 3)),
        lambda: built("ab,bc->ac", (4,), 5),
    ],
)
def test_products_with_a_matrix(layer):
    assert as_matrix(layer()) is not None


@pytest.mark.parametrize(
    "layer",
    [
        lambda: built("abc,bcd->abd", (3, 4), (3, 5)),  # another matrix for each step
        lambda: built("abc,cd->abd", (3, 4), (3, 5), bias_axes="bd"),  # another bias for each step
        lambda: built("abc,bd->acd", (3, 4), (4, 5), bias_axes="c"),  # the bias of a free axis
        lambda: built("abc,cd->adb", (3, 4), (5, 3), bias_axes="d"),  # Keras may add it along the last axis
    ],
)
def test_other_equations_are_none(layer):
    assert as_matrix(layer()) is None
