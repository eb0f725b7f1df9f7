import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers import WavenetBlock, WavenetStack
from tests.contract import check_layer, outputs_of

BATCH, TIME, CHANNELS, FILTERS = 2, 11, 3, 7


def _inputs(channels=CHANNELS, time=TIME, seed=1):
    return np.random.default_rng(seed).standard_normal((BATCH, time, channels)).astype(np.float32)


def _weights(conv):
    return conv.kernel.numpy().astype(np.float64), conv.bias.numpy().astype(np.float64)


def _conv(x, conv):
    kernel, bias = _weights(conv)
    y = np.tile(bias, (*x.shape[:2], 1))
    for tap, weights in enumerate(kernel):
        shift = (len(kernel) - 1 - tap) * conv.dilation
        if shift < x.shape[1]:
            y[:, shift:] += x[:, : x.shape[1] - shift] @ weights
    return y


def _block_by_numpy(x, block):
    hidden = np.tanh(_conv(x, block.filter_conv)) / (1 + np.exp(-_conv(x, block.gate_conv)))
    skip = _conv(hidden, block.output_conv)
    return skip + (_conv(x, block.residual_conv) if block.residual_conv else x), skip


@pytest.mark.parametrize("channels", [CHANNELS, FILTERS])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(2, 1), (2, 4), (3, 2)])
def test_block_is_the_gated_residual_formula(randomize, channels, kernel_size, dilation):
    block, x = WavenetBlock(FILTERS, kernel_size, dilation), _inputs(channels)
    block.build(x.shape)
    randomize(block)
    residual, skip = _block_by_numpy(x, block)
    output = outputs_of(block, x)
    np.testing.assert_allclose(output.residual, residual, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(output.skip, skip, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [CHANNELS, FILTERS])
def test_block_projects_the_residual_only_where_channels_differ(channels):
    block = WavenetBlock(FILTERS, kernel_size=2)
    block.build((None, None, channels))
    assert (block.residual_conv is None) == (channels == FILTERS)
    gated = 2 * (2 * channels * FILTERS + FILTERS)
    projection = 0 if channels == FILTERS else channels * FILTERS + FILTERS
    assert block.count_params() == gated + FILTERS * FILTERS + FILTERS + projection


@pytest.mark.parametrize(
    ("channels", "kernel_size", "dilation"), [(FILTERS, 3, 1), (CHANNELS, 2, 3)]
)
def test_a_block_is_a_layer(channels, kernel_size, dilation):
    block = WavenetBlock(FILTERS, kernel_size, dilation, name="b")
    reach = 1 + (kernel_size - 1) * dilation
    assert block.memory == reach - 1
    check_layer(block, channels, receptive_field=reach, dilation=dilation)


def test_a_stack_is_a_layer():
    stack = WavenetStack(FILTERS, 2, (2, 1), name="s")
    check_layer(stack, CHANNELS, receptive_field=stack.receptive_field)


@pytest.fixture(scope="module")
def stack(randomize):
    stack = WavenetStack(FILTERS, 2, (1, 2, 4, 1, 2))
    stack.build((None, None, CHANNELS))
    return randomize(stack)


def test_stack_is_block_on_block(stack):
    x = hidden = _inputs()
    outputs = outputs_of(stack, x)
    assert len(outputs) == 5
    for block, output in zip(stack.blocks, outputs, strict=True):
        hidden, skip = _block_by_numpy(hidden, block)
        np.testing.assert_allclose(output.residual, hidden, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(output.skip, skip, rtol=1e-4, atol=1e-4)


def test_stack_pads_each_layer_with_zeros_not_with_responses_to_zero_frames(stack):
    x = _inputs()
    behind_zeros = outputs_of(stack, np.pad(x, [(0, 0), (20, 0), (0, 0)]))
    assert (
        np.max(np.abs(behind_zeros[-1].residual[:, 20:] - outputs_of(stack, x)[-1].residual)) > 0.1
    )


@pytest.mark.parametrize(
    ("kernel_size", "dilations", "expected"),
    [
        (2, [1, 2, 4, 8, 16, 32] * 5, 316),  # handwriting (K = 6, L = 5)
        (3, [1, 2, 4, 1], 17),
        (2, [1], 2),
    ],
)
def test_gradient_reaches_exactly_the_receptive_field(kernel_size, dilations, expected):
    stack = WavenetStack(2, kernel_size, dilations)
    assert stack.receptive_field == expected
    stack.build((None, None, 1))
    for variable in stack.weights:
        # All of one sign, so that no two paths cancel. Around zero nothing saturates, and a block
        # passes on as much as it gets, so that nothing vanishes on the longest path.
        is_bias = variable.name == "bias"
        variable.assign(tf.fill(variable.shape, 0.0 if is_bias else 1 / np.sqrt(2)))
    time = expected + 7
    x = tf.zeros([1, time, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = tf.reduce_sum(outputs_of(stack, x)[-1].residual[:, -1])
    reached = np.flatnonzero(tape.gradient(output, x)[0, :, 0])
    np.testing.assert_array_equal(reached, np.arange(7, time))


def test_receptive_field_of_the_speech_models():
    assert WavenetStack(FILTERS, 2, [1, 2, 4, 8, 16] * 5).receptive_field == 156
