import numpy as np
import pytest

torch = pytest.importorskip("torch")

FakeQuantize = pytest.importorskip("tensorflow_quantization.quantizers.torch_kernel").FakeQuantize

RNG = np.random.default_rng(0)


def expected(x, scale, lowest, highest, upstream):
    """The output and the gradients, in float64."""
    x, scale, upstream = (np.float64(a) for a in (x, scale, upstream))
    ratio = x / scale
    inside = (ratio >= lowest) & (ratio <= highest)
    error = np.where(inside, np.round(ratio) - ratio, np.clip(ratio, lowest, highest))
    axes = tuple(axis for axis in range(x.ndim) if scale.ndim and scale.shape[axis] == 1)
    of_scale = (upstream * error).sum(axes, keepdims=True) if scale.ndim else (upstream * error).sum()
    return np.clip(np.round(ratio), lowest, highest) * scale, upstream * inside, of_scale


@pytest.mark.parametrize("layout", ["as it is", "moved axes"])
@pytest.mark.parametrize("limits", ["numbers", "tensors"])
@pytest.mark.parametrize("scale", [np.float32(0.25), np.float32([[[0.25, 0.5, 0.125]]])], ids=["tensor", "channel"])
def test_output_and_gradients_are_of_the_formula(scale, limits, layout):
    x = RNG.integers(-160, 160, (4, 50, 3)).astype("float32") / 8  # many values lie at the limits
    upstream = RNG.normal(size=x.shape).astype("float32")
    lowest, highest = -8.0, 7.0
    assert (np.abs(x / scale) == 8).any()
    given = (
        torch.from_numpy(x.transpose(2, 0, 1).copy()).permute(1, 2, 0) if layout == "moved axes" else torch.tensor(x)
    )
    given.requires_grad_()
    step = torch.tensor(scale, requires_grad=True)
    ends = [torch.full(scale.shape, end) if limits == "tensors" else end for end in (lowest, highest)]
    y = FakeQuantize.apply(given, step, *ends, 0.5)
    y.backward(torch.tensor(upstream))
    values, to_x, to_scale = expected(x, scale, lowest, highest, upstream)
    np.testing.assert_array_equal(y.detach().numpy(), values)
    np.testing.assert_array_equal(given.grad.numpy(), to_x)
    np.testing.assert_allclose(step.grad.numpy(), 0.5 * to_scale, rtol=1e-4, atol=1e-4)


def test_scale_has_no_gradient_without_a_gradient_scale():
    x, scale = torch.ones(3, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    FakeQuantize.apply(x, scale, -8, 7, None).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]
    assert scale.grad is None
