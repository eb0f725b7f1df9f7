import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers.recurrent import Recurrent, backwards
from tests.contract import check_layer, outputs_of, randomize

BATCH, TIME, CHANNELS, UNITS = 3, 8, 4, 5
LENGTHS = np.array([8, 3, 0], np.int32)


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((BATCH, TIME, CHANNELS)).astype(np.float32)


def _built(kind):
    layer = Recurrent(UNITS, kind, name="layer")
    layer.build((None, None, CHANNELS))
    return randomize(layer)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_they_are_layers(kind):
    check_layer(Recurrent(UNITS, kind, name="layer"), CHANNELS)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _lstm(layer, x):
    kernel, recurrent, bias = (v.numpy().astype(np.float64) for v in layer.weights)
    h = c = np.zeros((len(x), UNITS))
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=-1)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def _gru(layer, x):
    """Cho et al., 2014, with the reset gate on the recurrent product."""
    kernel, recurrent, biases = (v.numpy().astype(np.float64) for v in layer.weights)
    h = np.zeros((len(x), UNITS))
    outputs = []
    for t in range(x.shape[1]):
        of_x = np.split(x[:, t] @ kernel + biases[0], 3, axis=-1)
        of_h = np.split(h @ recurrent + biases[1], 3, axis=-1)
        keep, reset = (_sigmoid(a + b) for a, b in zip(of_x[:2], of_h[:2], strict=True))
        h = keep * h + (1 - keep) * np.tanh(of_x[2] + reset * of_h[2])
        outputs.append(h)
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize(("kind", "expected"), [("lstm", _lstm), ("gru", _gru)])
def test_their_equations(kind, expected, x):
    layer = _built(kind)
    np.testing.assert_allclose(outputs_of(layer, x), expected(layer, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_gradients_are_those_of_kerass_cell_step_by_step(kind, is_compiled, x):
    layer = _built(kind)
    generator = np.random.default_rng(2)
    state = tuple(
        generator.standard_normal(s.shape).astype(np.float32) for s in layer.initial_state(BATCH)
    )
    # How much each output, and each part of the state after a row's last step, counts.
    of_outputs = generator.standard_normal((BATCH, TIME, UNITS)).astype(np.float32)
    of_outputs *= (np.arange(TIME) < LENGTHS[:, None])[..., None]
    of_state = [generator.standard_normal(s.shape).astype(np.float32) for s in state]

    def step_by_step(x, state):
        outputs = []
        for t in range(TIME):
            output, new = layer.cell(x[:, t], list(state))
            outputs.append(output)
            reads = (t < LENGTHS)[:, None]
            state = [tf.where(reads, a, b) for a, b in zip(new, state, strict=True)]
        return tf.stack(outputs, axis=1), state

    def gradients(function):
        sources = [x, *state]
        with tf.GradientTape() as tape:
            sources = [tf.constant(source) for source in sources]
            tape.watch(sources)
            outputs, last = function(sources[0], tuple(sources[1:]))
            total = tf.reduce_sum(outputs * of_outputs)
            total += sum(tf.reduce_sum(a * b) for a, b in zip(last, of_state, strict=True))
        return tape.gradient(total, [*sources, *(w.value for w in layer.weights)])

    ours = tf.function(
        lambda: gradients(lambda x, state: layer(x, state, LENGTHS)), jit_compile=is_compiled
    )
    for found, expected in zip(ours(), gradients(step_by_step), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_constant_is_read_at_every_step(kind, x):
    layer = _built(kind)
    state = layer.initial_state(BATCH)
    whole = np.concatenate([x[..., :1], np.tile(x[:, :1, 1:], (1, TIME, 1))], axis=-1)
    expected, _ = layer(whole, state)
    outputs, _ = layer(x[..., :1], state, constant=x[:, 0, 1:])
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_backwards_from_the_end_of_each_row(kind, x):
    layer = _built(kind)
    outputs = backwards(layer, x, LENGTHS).numpy()
    for row, length in enumerate(LENGTHS):
        expected = outputs_of(layer, x[row : row + 1, :length][:, ::-1])[:, ::-1]
        np.testing.assert_allclose(outputs[row : row + 1, :length], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("begins_at", [True, False])
def test_the_bias_of_the_forget_gates(begins_at):
    layer = Recurrent(UNITS, "lstm", unit_forget_bias=begins_at)
    layer.build((None, None, CHANNELS))
    bias = layer.weights[2].numpy()
    np.testing.assert_array_equal(bias[UNITS : 2 * UNITS], float(begins_at))
    assert not np.any(np.delete(bias, np.s_[UNITS : 2 * UNITS]))


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be 'lstm' or 'gru', got 'rnn'"):
        Recurrent(UNITS, "rnn")
