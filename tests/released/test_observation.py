import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers import Observation, ObservationParameters
from stcn_tf.released.observation import ReleasedObservation
from tests.contract import check_layer, outputs_of, randomize

BATCH, TIME, CHANNELS, REAL, BINARY, COMPONENTS = 2, 11, 7, 3, 4, 5
KINDS = pytest.mark.parametrize(
    ("real", "binary", "components"),
    [(REAL, BINARY, COMPONENTS), (REAL, 0, 1), (0, BINARY, 1)],
    ids=["gmm-binary", "normal", "binary"],
)


def _one_step(mean=(), sigma=(), component=(), binary=()):
    """Parameters of one step of one sequence, from values by component and feature."""

    def batched(values):
        return tf.constant(values, tf.float32)[tf.newaxis, tf.newaxis] if values != () else ()

    return ObservationParameters(*map(batched, (mean, sigma, component, binary)))


def _both(num_real, num_binary, num_components, parameters, x):
    """The log-likelihood of one step as it is, and with the released floors."""
    x = np.reshape(x, (1, 1, -1)).astype(np.float32)
    return [
        float(kind(num_real, num_binary, num_components).log_prob(parameters, x)[0, 0])
        for kind in (Observation, ReleasedObservation)
    ]


def _log_normal(x, mean, sigma):
    return -0.5 * ((x - mean) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)


def test_it_is_a_layer_and_no_density():
    layer = ReleasedObservation(REAL, BINARY, COMPONENTS, name="o")
    assert not layer.is_density and Observation(REAL, BINARY).is_density
    check_layer(layer, CHANNELS, receptive_field=1, output_dtype="float32")


@KINDS
def test_the_floors_change_nothing_above_them(real, binary, components):
    rng = np.random.default_rng(2)
    values = rng.standard_normal((BATCH, TIME, real))
    bits = rng.integers(0, 2, (BATCH, TIME, binary))
    x = np.concatenate([values, bits], axis=-1).astype(np.float32)
    inputs = rng.standard_normal((BATCH, TIME, CHANNELS)).astype(np.float32)
    exact, floored = (kind(real, binary, components) for kind in (Observation, ReleasedObservation))
    exact.build((None, None, CHANNELS))
    parameters = outputs_of(randomize(exact), inputs)
    np.testing.assert_allclose(
        floored.log_prob(parameters, x), exact.log_prob(parameters, x), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("logit", "bit", "expected"),
    [(-60.0, 1, -60.0), (60.0, 0, -60.0), (-60.0, 0, 0.0), (60.0, 1, 0.0), (-11.0, 1, -11.0)],
)
def test_the_floor_under_a_probability(logit, bit, expected):
    exact, floored = _both(0, 1, 1, _one_step(binary=[logit]), [bit])
    assert exact == pytest.approx(expected, abs=1e-4)
    assert floored == pytest.approx(max(expected, np.log(1e-5)), abs=1e-4)


def test_the_floor_under_a_variance():
    # A sigma of 1e-4 is none that the heads give; with the floor it counts as 1e-3.
    parameters = _one_step(mean=[[0.5, -1.0]], sigma=[[1e-4, 0.2]])
    x = np.array([0.5002, -0.7])
    exact, floored = _both(2, 0, 1, parameters, x)
    mean = np.array([0.5, -1.0])
    deviation = np.float32(x).astype(np.float64) - mean
    for value, sigma in ((exact, [1e-4, 0.2]), (floored, [1e-3, 0.2])):
        expected = _log_normal(deviation, 0.0, np.array(sigma)).sum()
        assert value == pytest.approx(expected, abs=1e-3)


def test_the_floor_under_a_weight():
    # The second component has next to no weight, and x lies where it alone has density.
    parameters = _one_step(mean=[[0.0], [9.0]], sigma=[[0.1], [0.5]], component=[0.0, -30.0])
    exact, floored = _both(1, 0, 2, parameters, [9.2])
    density = _log_normal(9.2, 9.0, 0.5)
    assert exact == pytest.approx(-30 + density, abs=1e-3)
    assert floored == pytest.approx(np.log(1e-6) + density, abs=1e-3)


@pytest.mark.parametrize(("kind", "gradient"), [(Observation, 1.0), (ReleasedObservation, 0.0)])
def test_sure_and_wrong_bits_have_no_gradient_below_the_floor_only(kind, gradient):
    logits = tf.constant([[[-60.0], [-3.0]]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        parameters = ObservationParameters((), (), (), logits)
        log_prob = kind(0, 1).log_prob(parameters, tf.ones([1, 2, 1]))
    found = tape.gradient(log_prob, logits)[0, :, 0]
    np.testing.assert_allclose(found, [gradient, 1 / (1 + np.exp(-3.0))], rtol=1e-5)
