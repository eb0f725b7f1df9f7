import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers import CausalConv, WavenetBlock, output

BATCH, TIME, CHANNELS, FILTERS, LAYERS = 2, 11, 3, 7, 4
FLOAT32 = keras.DTypePolicy("float32")
KINDS = pytest.mark.parametrize(
    ("kind", "kernel_size"), [("conv1x1", 2), ("wavenet", 2), ("wavenet", 3)]
)


@pytest.fixture
def make(randomize):
    def make(kind, kernel_size=2, dtype=FLOAT32, num_layers=LAYERS):
        layers = output.make_output_layers(kind, num_layers, FILTERS, kernel_size, dtype)
        assert output.build(layers, CHANNELS) == (FILTERS if num_layers else CHANNELS)
        for seed, layer in enumerate(layers):
            randomize(layer, seed)
        return layers

    return make


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((BATCH, TIME, CHANNELS)).astype(np.float32)


def _stepped(layers, x):
    state, frames = output.initial_state(layers, BATCH), []
    for t in range(x.shape[1]):
        frame, state = output.step(layers, tf.constant(x[:, t]), state)
        frames.append(frame)
    return np.stack(frames, axis=1)


def test_1x1_layers_are_products_with_relu(make, x):
    layers = make("conv1x1")
    assert [type(layer) for layer in layers] == [CausalConv] * LAYERS
    assert [layer.memory for layer in layers] == [0] * LAYERS
    expected = x
    for layer in layers:
        expected = np.maximum(expected @ layer.kernel.numpy()[0] + layer.bias.numpy(), 0)
    assert np.any(expected == 0) and np.any(expected > 0)
    np.testing.assert_allclose(output.apply(layers, x), expected, rtol=1e-4, atol=1e-5)


def test_wavenet_layers_hand_on_their_residual_outputs_without_activation(make, x):
    layers = make("wavenet", 3)
    assert [type(layer) for layer in layers] == [WavenetBlock] * LAYERS
    assert [(layer.filters, layer.kernel_size, layer.dilation) for layer in layers] == [
        (FILTERS, 3, 1)
    ] * LAYERS
    assert [layer.memory for layer in layers] == [2] * LAYERS
    # Only the first has another number of channels than filters to project.
    assert [layer.residual_conv is None for layer in layers] == [False, True, True, True]
    expected = x
    for layer in layers:
        expected = layer(expected).residual
    assert np.any(expected < 0)
    np.testing.assert_array_equal(output.apply(layers, x), expected)


@KINDS
def test_step_by_step_gives_what_apply_gives(make, x, kind, kernel_size):
    layers = make(kind, kernel_size)
    np.testing.assert_allclose(_stepped(layers, x), output.apply(layers, x), rtol=1e-4, atol=1e-5)


@KINDS
def test_a_frame_reaches_as_many_later_ones_as_the_layers_remember(make, x, kind, kernel_size):
    layers = make(kind, kernel_size, num_layers=2)
    before = output.apply(layers, x).numpy()
    x[:, 4] += 1.0
    after = output.apply(layers, x).numpy()
    memory = sum(layer.memory for layer in layers)
    assert memory == (2 * (kernel_size - 1) if kind == "wavenet" else 0)
    changed = np.flatnonzero(np.any(before != after, axis=(0, 2)))
    np.testing.assert_array_equal(changed, range(4, 5 + memory))


def test_rows_of_a_state_do_not_know_of_each_other(make, x):
    layers = make("wavenet")
    state = output.initial_state(layers, BATCH)
    for t in range(5):
        _, state = output.step(layers, x[:, t], state)
    swapped = tf.nest.map_structure(lambda s: s[::-1], state)
    frame, _ = output.step(layers, x[::-1, 5], swapped)
    np.testing.assert_allclose(frame[::-1], output.apply(layers, x)[:, 5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["conv1x1", "wavenet"])
def test_no_layers_hand_on_their_input(make, x, kind):
    layers = make(kind, num_layers=0)
    assert layers == []
    np.testing.assert_array_equal(output.apply(layers, x), x)
    np.testing.assert_array_equal(_stepped(layers, x), x)


@pytest.mark.parametrize("kind", ["conv1x1", "wavenet"])
def test_bfloat16(make, x, kind):
    layers = make(kind, dtype=keras.DTypePolicy("mixed_bfloat16"), num_layers=2)
    result = output.apply(layers, x)
    assert result.dtype == tf.bfloat16
    assert {v.dtype for layer in layers for v in layer.variables} == {"float32"}
    exact = output.apply(make(kind, num_layers=2), x)
    np.testing.assert_allclose(tf.cast(result, tf.float32), exact, atol=0.1)
    stepped = _stepped(layers, x).astype(np.float32)
    np.testing.assert_allclose(stepped, tf.cast(result, tf.float32), atol=0.05)


def test_names_are_those_of_checkpoints(make):
    for kind in ("conv1x1", "wavenet"):
        assert [layer.name for layer in make(kind)] == [f"output_{i}" for i in range(LAYERS)]


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="^kind must be 'conv1x1' or 'wavenet', got 'lstm'$"):
        output.make_output_layers("lstm", 1, FILTERS, 2, FLOAT32)
