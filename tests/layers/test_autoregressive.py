import itertools

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers.autoregressive import FeaturewiseObservation, HierarchicalObservation
from stcn_tf.noise import Places
from tests.contract import assert_same, check_layer, outputs_of, randomize

BATCH, TIME, CHANNELS, COMPONENTS = 2, 5, 6, 3
PLACES = Places(np.arange(BATCH), np.tile(np.arange(TIME, dtype=np.int32), (BATCH, 1)))

MAKERS = {
    "featurewise": lambda **more: FeaturewiseObservation(2, 2, COMPONENTS, name="o", **more),
    "ordered": lambda **more: FeaturewiseObservation(
        2, 2, COMPONENTS, is_ordered=True, name="o", **more
    ),
    "hierarchical": lambda **more: HierarchicalObservation(
        4, 0, COMPONENTS, units=5, embedding=2, name="o", **more
    ),
    "initial": lambda **more: HierarchicalObservation(
        4, 0, COMPONENTS, units=5, embedding=2, frame_start="initial", name="o", **more
    ),
}
KINDS = pytest.mark.parametrize("kind", MAKERS)
ORDERED = {"featurewise": False, "ordered": True, "hierarchical": True, "initial": True}


def _made(kind, scale=0.5):
    layer = MAKERS[kind]()
    layer.build((None, None, CHANNELS))
    return randomize(layer, scale=scale)


def _inputs():
    rng = np.random.default_rng(1)
    return rng.standard_normal((BATCH, TIME, CHANNELS)).astype(np.float32)


def _observed(layer):
    rng = np.random.default_rng(2)
    real = rng.standard_normal((BATCH, TIME, layer.num_real))
    bits = rng.integers(0, 2, (BATCH, TIME, layer.num_binary))
    return np.concatenate([real, bits], axis=-1).astype(np.float32)


@KINDS
def test_they_are_layers(kind):
    check_layer(MAKERS[kind](), CHANNELS, receptive_field=1, output_dtype="float32")


def _logsumexp(a):
    return np.logaddexp.reduce(a, axis=-1)


def _log_mixture(x, mean, log_sigma, logits):
    sigma = np.exp(np.clip(log_sigma, np.log(1e-3), np.log(50.0)))
    log_probs = -0.5 * ((x - mean) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    return _logsumexp(logits - _logsumexp(logits) + log_probs)


def _weights(layer):
    return {w.path.split("/", 1)[1]: w.numpy().astype(np.float64) for w in layer.weights}


def _featurewise(layer, context, x):
    """One step, written from the equations: binary features first, each before the next."""
    w = _weights(layer)
    real, bits = x[: layer.num_real], x[layer.num_real :]
    ordered = np.r_[bits, real]

    def outputs(name, position, index, size):
        part = slice(index * size, (index + 1) * size)
        value = (context @ w[f"{name}/kernel"][0] + w[f"{name}/bias"])[part]
        if layer.is_ordered:
            value = value + ordered[:position] @ w[f"earlier_{name}"][:position, part]
        return value

    total = 0.0
    for i, bit in enumerate(bits):
        (logit,) = outputs("binary", i, i, 1)
        total += bit * logit - np.logaddexp(0, logit)
    for i, value in enumerate(real):
        parts = (
            outputs(name, len(bits) + i, i, COMPONENTS)
            for name in ("mean", "log_sigma", "component")
        )
        total += _log_mixture(value, *parts)
    return total


def _sigmoid(v):
    return 1 / (1 + np.exp(-v))


def _hierarchical(layer, context, x):
    """One step, sample after sample."""
    w = _weights(layer)
    h = c = np.zeros(layer.units)
    if layer.frame_start == "initial":
        h, c = w["initial_h"], w["initial_c"]
    before, total = 0.0, 0.0
    for i, value in enumerate(x):
        if i or layer.frame_start == "context":
            read = np.r_[before * w["e/kernel"][0, 0] + w["e/bias"], context]
            gates = read @ w["lstm/cell/kernel"] + h @ w["lstm/cell/recurrent_kernel"]
            a, f, g, o = np.split(gates + w["lstm/cell/bias"], 4)
            c = _sigmoid(f) * c + _sigmoid(a) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
        parts = (
            h @ w[f"{name}_kernel"][i] + w[f"{name}_bias"][i]
            for name in ("mean", "log_sigma", "component")
        )
        total += _log_mixture(value, *parts)
        before = value
    return total


@KINDS
def test_the_density_is_that_of_the_equations(kind):
    layer = _made(kind)
    x, inputs = _observed(layer), _inputs()
    log_prob = layer.log_prob(outputs_of(layer, inputs), x)
    of_step = _featurewise if isinstance(layer, FeaturewiseObservation) else _hierarchical
    expected = [
        [of_step(layer, inputs[b, t].astype(np.float64), x[b, t]) for t in range(TIME)]
        for b in range(BATCH)
    ]
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-5)


@KINDS
def test_it_integrates_to_one(kind):
    """Over a grid of two real features, and over bits."""
    if kind in ("hierarchical", "initial"):
        layer = HierarchicalObservation(
            2,
            0,
            2,
            units=4,
            embedding=2,
            name="o",
            frame_start="initial" if kind == "initial" else "context",
        )
    else:
        layer = FeaturewiseObservation(2, 1, 2, is_ordered=ORDERED[kind], name="o")
    layer.build((None, None, CHANNELS))
    randomize(layer, scale=0.3)
    grid, step = np.linspace(-12, 12, 601, retstep=True)
    pairs = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    total = 0.0
    for bits in itertools.product((0, 1), repeat=layer.num_binary):
        x = np.concatenate([pairs, np.tile(bits, (len(pairs), 1))], axis=-1) if bits else pairs
        inputs = tf.tile(_inputs()[:1, :1], [1, len(x), 1])
        log_prob = layer.log_prob(outputs_of(layer, inputs), x[np.newaxis].astype(np.float32))
        total += np.exp(log_prob.numpy().astype(np.float64)).sum() * step**2
    np.testing.assert_allclose(total, 1.0, rtol=1e-3)


@KINDS
def test_who_depends_on_whom_within_a_step(kind):
    """What a feature adds to the log-likelihood changes with those before it, and no others."""
    layer = _made(kind)
    parameters = outputs_of(layer, _inputs())
    x = _observed(layer)
    # Binary features come first.
    order = [*range(layer.num_real, layer.num_features), *range(layer.num_real)]
    draws = layer.sample(parameters, (1, 2), PLACES).numpy()
    estimates = layer.point_estimate(parameters).numpy()
    assert draws.shape == estimates.shape == x.shape
    parts = []
    for position, feature in enumerate(order):
        other = x.copy()
        other[..., feature] = 1.0 - other[..., feature]
        difference = (layer.log_prob(parameters, other) - layer.log_prob(parameters, x)).numpy()
        third = x.copy()
        later = order[position + 1 :]
        third[..., later] = 1.0 - third[..., later]
        fourth = third.copy()
        fourth[..., feature] = other[..., feature]
        again = (layer.log_prob(parameters, fourth) - layer.log_prob(parameters, third)).numpy()
        parts.append(np.allclose(difference, again, rtol=1e-3, atol=1e-3))
    # The last feature changes nothing for others; the others do where features are ordered.
    assert parts[-1]
    assert all(not part for part in parts[:-1]) == ORDERED[kind]


@KINDS
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_draws_have_the_moments_of_the_density(kind, temperature):
    """By importance: the mean of f under the draws is that under the density, of any f."""
    layer = _made(kind, scale=0.3)
    count = 20_000
    parameters = outputs_of(layer, tf.tile(_inputs()[:1, :1], [count, 1, 1]))
    places = Places(np.arange(count), np.zeros((count, 1), np.int32))
    drawn = layer.sample(parameters, (3, 4), places, temperature, temperature)
    x = drawn.numpy()[:, 0].astype(np.float64)
    assert np.all(np.isfinite(x))
    assert set(np.unique(x[:, layer.num_real :])) <= {0.0, 1.0}
    if temperature == 1.0:
        # E[q(x) / p(x)] = 1 for any density q: here one with other bits and a shifted normal.
        wide = -0.5 * np.sum((x[:, : layer.num_real] / 0.5) ** 2, axis=1)
        wide -= layer.num_real * np.log(0.5 * np.sqrt(2 * np.pi))
        wide -= layer.num_binary * np.log(2.0)
        ratio = np.exp(wide - layer.log_prob(parameters, drawn).numpy()[:, 0])
        error = ratio.std() / np.sqrt(count)
        assert abs(ratio.mean() - 1.0) < 4 * error and error < 0.05
    else:
        whole = layer.sample(parameters, (3, 4), places).numpy()[:, 0]
        assert np.all(x[:, : layer.num_real].std(axis=0) < whole[:, : layer.num_real].std(axis=0))


@KINDS
def test_draws_belong_to_seed_and_step(kind):
    layer = _made(kind)
    parameters = outputs_of(layer, _inputs())
    first, again, other = (layer.sample(parameters, s, PLACES) for s in ((1, 2), (1, 2), (1, 3)))
    assert_same(first, again)
    assert np.all(np.any(first[..., : layer.num_real] != other[..., : layer.num_real], axis=-1))
    later = tf.nest.map_structure(lambda v: v[:, 2:4], parameters)
    part = layer.sample(later, (1, 2), PLACES._replace(steps=PLACES.steps[:, 2:4]))
    np.testing.assert_allclose(part, first[:, 2:4], rtol=1e-4, atol=1e-5)
    sure = [layer.sample(parameters, s, PLACES, 0.0, 0.0) for s in ((1, 2), (1, 3))]
    assert_same(*sure)
    np.testing.assert_allclose(sure[0], layer.point_estimate(parameters), rtol=1e-5, atol=1e-5)


@KINDS
def test_without_bits_there_is_one_point_estimate(kind):
    layer = _made(kind)
    if layer.num_binary:
        layer = FeaturewiseObservation(2, 0, COMPONENTS, is_ordered=ORDERED[kind], name="o")
        layer.build((None, None, CHANNELS))
        randomize(layer)
    parameters = outputs_of(layer, _inputs())
    assert_same(layer.point_estimate(parameters, False), layer.point_estimate(parameters))


def test_bits_as_probabilities():
    layer = _made("ordered")
    parameters = outputs_of(layer, _inputs())
    bits, probabilities = (
        layer.point_estimate(parameters, binarize).numpy()[..., 2:] for binarize in (True, False)
    )
    np.testing.assert_array_equal(bits, probabilities > 0.5)
    assert len(np.unique(probabilities)) > 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeaturewiseObservation(0, 0), "need a feature; got 0 real and 0 binary ones"),
        (lambda: FeaturewiseObservation(1, 0, 0), "num_components must be 1 or more, got 0"),
        (lambda: HierarchicalObservation(2, 1), "need real features alone; got 2, 1 binary ones"),
        (
            lambda: HierarchicalObservation(2, 0, frame_start="last"),
            "frame_start must be 'context' or 'initial', got 'last'",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
