import numpy as np
import pytest

from stcn_tf.layers import CausalConv
from tests.contract import check_layer, outputs_of

BATCH, TIME, CHANNELS, FILTERS = 2, 11, 3, 7


def _inputs(seed=1, time=TIME, channels=CHANNELS):
    return np.random.default_rng(seed).standard_normal((BATCH, time, channels)).astype(np.float32)


def _made(randomize, kernel_size, dilation=1, **kwargs):
    layer = CausalConv(FILTERS, kernel_size, dilation, **kwargs)
    layer.build((None, None, CHANNELS))
    return randomize(layer)


def _by_loop(x, kernel, bias, dilation):
    width = len(kernel)
    y = np.zeros((*x.shape[:2], kernel.shape[2]))
    for t in range(x.shape[1]):
        for tap in range(width):
            source = t - (width - 1 - tap) * dilation
            if source >= 0:
                y[:, t] += x[:, source] @ kernel[tap]
    return y + bias


SHAPES = pytest.mark.parametrize(
    ("kernel_size", "dilation"), [(1, 1), (1, 4), (2, 1), (2, 4), (3, 1), (3, 4)]
)


@SHAPES
def test_call_is_the_sum_over_taps(randomize, kernel_size, dilation):
    layer, x = _made(randomize, kernel_size, dilation), _inputs()
    expected = _by_loop(x, layer.kernel.numpy(), layer.bias.numpy(), dilation)
    result = outputs_of(layer, x)
    assert result.shape == (BATCH, TIME, FILTERS)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_the_activation_comes_after_the_bias(randomize):
    layer, x = _made(randomize, 2, 4, activation="relu"), _inputs()
    linear = _by_loop(x, layer.kernel.numpy(), layer.bias.numpy(), 4)
    np.testing.assert_allclose(outputs_of(layer, x), np.maximum(linear, 0), rtol=1e-5, atol=1e-5)


@SHAPES
def test_it_is_a_layer(kernel_size, dilation):
    layer = CausalConv(FILTERS, kernel_size, dilation, activation="tanh", name="a")
    reach = 1 + (kernel_size - 1) * dilation
    check_layer(layer, CHANNELS, receptive_field=reach, dilation=dilation)


def test_tap_0_multiplies_the_oldest_frame():
    layer = CausalConv(1, kernel_size=3, dilation=2)
    layer.build((None, None, 1))
    layer.kernel.assign(np.reshape([100.0, 10.0, 1.0], (3, 1, 1)))
    x = np.reshape(np.float32([1, 2, 3, 4, 5, 6]), (1, 6, 1))
    np.testing.assert_array_equal(outputs_of(layer, x)[0, :, 0], [1, 2, 13, 24, 135, 246])


def test_before_the_first_frame_is_zero_at_every_layer(randomize):
    lower = randomize(CausalConv(FILTERS, 2), seed=1)
    upper = CausalConv(FILTERS, 2)
    lower.build((None, None, CHANNELS))
    upper.build((None, None, FILTERS))
    randomize(lower, seed=1)
    randomize(upper, seed=2)
    x = _inputs()
    first = outputs_of(upper, outputs_of(lower, x))[:, 0]
    hidden = x[:, 0] @ lower.kernel.numpy()[1] + lower.bias.numpy()
    expected = hidden @ upper.kernel.numpy()[1] + upper.bias.numpy()
    np.testing.assert_allclose(first, expected, rtol=1e-5, atol=1e-5)
    # A zero frame in front is something else: `lower` answers it with its bias, which `upper` sees.
    padded = np.pad(x, [(0, 0), (1, 0), (0, 0)])
    behind_zeros = outputs_of(upper, outputs_of(lower, padded))[:, 1]
    seen = lower.bias.numpy() @ upper.kernel.numpy()[0]
    np.testing.assert_allclose(behind_zeros - first, [seen] * BATCH, rtol=1e-4, atol=1e-5)


def test_memory_and_state(randomize):
    layer = _made(randomize, 3, 4)
    assert layer.memory == 8
    assert layer.initial_state(5).shape == (5, 8, CHANNELS)
    assert not np.any(layer.initial_state(5))
    x = _inputs()
    _, state = layer(x[:, :3], layer.initial_state(BATCH))
    np.testing.assert_array_equal(state, np.pad(x[:, :3], [(0, 0), (5, 0), (0, 0)]))
    assert _made(randomize, 1, 4).initial_state(5) == ()


def test_its_configuration_is_what_it_was_made_of():
    layer = CausalConv(FILTERS, 3, 4, activation="relu", name="a")
    again = CausalConv.from_config(layer.get_config())
    assert (again.filters, again.kernel_size, again.dilation) == (FILTERS, 3, 4)
    assert again.activation is layer.activation
    assert again.name == "a"


@pytest.mark.parametrize("name", ["filters", "kernel_size", "dilation"])
def test_sizes_below_one_are_refused(name):
    sizes = {"filters": FILTERS, "kernel_size": 2, "dilation": 3, name: 0}
    with pytest.raises(ValueError, match=f"^{name} must be 1 or more, got 0$"):
        CausalConv(**sizes)
