import pytest
from keras import layers

from tensorflow_quantization.wrappers.channels import is_depthwise, output_channel_axis

KERNELS = [
    (layers.Dense(3), "kernel", (-1,)),
    (layers.Conv2D(3, 2), "kernel", (-1,)),
    (layers.DepthwiseConv2D(2), "kernel", (-2, -1)),
    (layers.SeparableConv2D(3, 2), "depthwise_kernel", (-2, -1)),
    (layers.SeparableConv2D(3, 2), "pointwise_kernel", (-1,)),
    (layers.Conv2DTranspose(3, 2), "kernel", (-2,)),
    (layers.EinsumDense("abc,cde->abde", (None, 2, 3)), "kernel", (-2, -1)),
    (layers.EinsumDense("...x,yx->...y", (None, 3)), "kernel", (-2,)),
]


@pytest.mark.parametrize(
    ("layer", "kernel", "axes"), KERNELS, ids=[f"{type(layer).__name__} {kernel}" for layer, kernel, _ in KERNELS]
)
def test_axes_of_the_output_channels(layer, kernel, axes):
    assert output_channel_axis(layer, kernel) == axes


def test_a_layer_that_extends_a_depthwise_convolution_is_depthwise():
    class Own(layers.DepthwiseConv1D):
        pass

    assert is_depthwise(Own(2))
    assert not is_depthwise(layers.Conv1D(2, 2))
