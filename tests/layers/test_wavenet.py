import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers import CausalConv, WavenetBlock, WavenetStack

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


def _stepped(layer, x):
    state, outputs = layer.initial_state(BATCH), []
    for t in range(x.shape[1]):
        output, state = layer.step(x[:, t], state)
        outputs.append(output)
    return tf.nest.map_structure(lambda *frames: np.stack(frames, axis=1), *outputs)


@pytest.mark.parametrize("channels", [CHANNELS, FILTERS])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(2, 1), (2, 4), (3, 2)])
def test_block_is_the_gated_residual_formula(randomize, channels, kernel_size, dilation):
    block, x = WavenetBlock(FILTERS, kernel_size, dilation), _inputs(channels)
    block.build(x.shape)
    randomize(block)
    residual, skip = _block_by_numpy(x, block)
    output = block(x)
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


@pytest.mark.parametrize("channels", [CHANNELS, FILTERS])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(2, 1), (2, 4), (3, 2)])
def test_block_step_by_step_gives_what_call_gives(randomize, channels, kernel_size, dilation):
    block, x = WavenetBlock(FILTERS, kernel_size, dilation), _inputs(channels)
    block.build(x.shape)
    randomize(block)
    whole, stepped = block(x), _stepped(block, x)
    np.testing.assert_allclose(stepped.residual, whole.residual, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stepped.skip, whole.skip, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def stack(randomize):
    stack = WavenetStack(FILTERS, 2, (1, 2, 4, 1, 2))
    stack.build((None, None, CHANNELS))
    return randomize(stack)


def test_stack_is_block_on_block(stack):
    x = hidden = _inputs()
    outputs = stack(x)
    assert len(outputs) == 5
    for block, output in zip(stack.blocks, outputs, strict=True):
        hidden, skip = _block_by_numpy(hidden, block)
        np.testing.assert_allclose(output.residual, hidden, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(output.skip, skip, rtol=1e-4, atol=1e-4)


def test_stack_step_by_step_gives_what_call_gives(stack):
    x = _inputs()
    for stepped, whole in zip(_stepped(stack, x), stack(x), strict=True):
        np.testing.assert_allclose(stepped.residual, whole.residual, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(stepped.skip, whole.skip, rtol=1e-5, atol=1e-5)


def test_stack_changes_nothing_before_a_changed_frame(stack):
    x = _inputs()
    before = stack(x)
    x[:, 6] += 1.0
    for old, new in zip(before, stack(x), strict=True):
        np.testing.assert_array_equal(new.residual[:, :6], old.residual[:, :6])
        assert np.all(np.any(new.residual[:, 6] != old.residual[:, 6], axis=-1))


def test_stack_pads_each_layer_with_zeros_not_with_responses_to_zero_frames(stack):
    x = _inputs()
    behind_zeros = stack(np.pad(x, [(0, 0), (20, 0), (0, 0)]))
    assert np.max(np.abs(behind_zeros[-1].residual[:, 20:] - stack(x)[-1].residual)) > 0.1


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
    for variable in stack.variables:
        # All of one sign, so that no two paths cancel. Around zero nothing saturates, and a block
        # passes on as much as it gets, so that nothing vanishes on the longest path.
        is_bias = variable.name == "bias"
        variable.assign(tf.fill(variable.shape, 0.0 if is_bias else 1 / np.sqrt(2)))
    time = expected + 7
    x = tf.zeros([1, time, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = tf.reduce_sum(stack(x)[-1].residual[:, -1])
    reached = np.flatnonzero(tape.gradient(output, x)[0, :, 0])
    np.testing.assert_array_equal(reached, np.arange(7, time))


def test_receptive_field_of_the_speech_models():
    assert WavenetStack(FILTERS, 2, [1, 2, 4, 8, 16] * 5).receptive_field == 156


def test_stack_runs_in_bfloat16(randomize):
    x, results = _inputs(), []
    for dtype in ("float32", "mixed_bfloat16"):
        stack = WavenetStack(FILTERS, 2, (1, 2), dtype=dtype)
        stack.build(x.shape)
        results.append(randomize(stack)(x)[-1].residual)
    exact, rounded = results
    assert exact.dtype == tf.float32
    assert rounded.dtype == tf.bfloat16
    assert {variable.dtype for variable in stack.variables} == {"float32"}
    # Six roundings to 8 bits, relative 2^-9 each, of values up to about 5.
    np.testing.assert_allclose(tf.cast(rounded, tf.float32), exact, atol=0.1)


@pytest.mark.parametrize(
    "layer",
    [
        WavenetBlock(FILTERS, 3, 4, name="b", dtype="mixed_bfloat16"),
        WavenetStack(FILTERS, 3, (1, 4), name="s", dtype="mixed_bfloat16"),
    ],
    ids=["block", "stack"],
)
def test_config_round_trip(layer):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.name == layer.name
    convs = [sub for sub in again._flatten_layers() if isinstance(sub, CausalConv)]
    assert {conv.compute_dtype for conv in convs} == {"bfloat16"}
