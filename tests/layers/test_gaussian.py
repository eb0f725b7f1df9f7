import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers import GaussianNetwork, LatentLayer
from tests.contract import check_layer, outputs_of

tfd = tfp.distributions

BATCH, TIME, FILTERS, ABOVE, UNITS, HIDDEN = 2, 11, 7, 3, 5, 6


def _normal(channels, seed):
    return np.random.default_rng(seed).standard_normal((BATCH, TIME, channels)).astype(np.float32)


D, Z_ABOVE = _normal(FILTERS, 1), _normal(ABOVE, 2)


def _inverse_softplus(y):
    return np.log(np.expm1(y))


def _answer(network, mean, sigma):
    """Lets a network answer every input with these numbers."""
    for variable in network.weights:
        variable.assign(tf.zeros_like(variable))
    network.mean_layers[-1].bias.assign(np.broadcast_to(mean, network.units))
    bias = _inverse_softplus(np.asarray(sigma, np.float64))
    network.sigma_layers[-1].bias.assign(np.broadcast_to(bias, network.units))


def _layer(randomize, scale="std", **kwargs):
    layer = LatentLayer(UNITS, HIDDEN, 2, scale, **{"units_above": ABOVE, **kwargs})
    layer.build((None, None, FILTERS))
    return randomize(layer)


def _prior(layer, d=D, above=Z_ABOVE):
    like = tf.zeros([*d.shape[:2], UNITS])
    return layer.prior(layer.begin_prior(tf.constant(d)), above, like)


def _posterior(layer, prior, d=D, above=Z_ABOVE):
    return layer.posterior(layer.begin_posterior(tf.constant(d)), above, prior)


def _kl(q, p):
    mean_q, sigma_q, mean_p, sigma_p = (
        t.numpy().astype(np.float64) for t in (q.loc, q.scale, p.loc, p.scale)
    )
    squared = (sigma_q**2 + (mean_q - mean_p) ** 2) / (2 * sigma_p**2)
    return np.log(sigma_p / sigma_q) + squared - 0.5


@pytest.mark.parametrize("hidden_layers", [0, 2])
def test_network_is_relu_layers_and_a_linear_one(randomize, hidden_layers):
    network = GaussianNetwork(UNITS, HIDDEN, hidden_layers)
    network.build((None, None, FILTERS))
    randomize(network)
    mean, sigma = outputs_of(network, D)
    expected = []
    for layers in (network.mean_layers, network.sigma_layers):
        assert len(layers) == hidden_layers + 1
        hidden = D
        for layer in layers:
            hidden = hidden @ layer.kernel.numpy()[0] + layer.bias.numpy()
            if layer is not layers[-1]:
                hidden = np.maximum(hidden, 0)
        expected.append(hidden)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-5, atol=1e-5)
    softplus = np.clip(np.logaddexp(0, expected[1]), 1e-3, 5)
    np.testing.assert_allclose(sigma, softplus, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hidden_layers", [0, 2])
def test_a_network_is_a_layer(hidden_layers):
    network = GaussianNetwork(UNITS, HIDDEN, hidden_layers, name="g")
    assert network.initial_state(BATCH) == ()
    check_layer(network, FILTERS, receptive_field=1, output_dtype="float32")


@pytest.mark.parametrize(("scale", "expected"), [(-1e4, 1e-3), (1e4, 5.0)])
def test_sigma_stays_in_its_range_at_extreme_inputs(scale, expected):
    network = GaussianNetwork(UNITS, HIDDEN, 1)
    network.build((None, None, FILTERS))
    for variable in network.weights:
        variable.assign(tf.ones_like(variable))
    network.sigma_layers[-1].kernel.assign(tf.fill([1, HIDDEN, UNITS], scale))
    _, sigma = outputs_of(network, np.abs(D))
    np.testing.assert_array_equal(sigma, np.full((BATCH, TIME, UNITS), expected, np.float32))


def test_prior_and_posterior_networks_share_nothing(randomize):
    layer = _layer(randomize)
    prior = {id(v) for v in layer.prior_network.variables}
    posterior = {id(v) for v in layer.posterior_network.variables}
    assert len(prior) == len(posterior) == 2 * 2 * 3  # mean and sigma, kernel and bias, 3 layers
    assert not prior & posterior
    assert prior | posterior == {id(v) for v in layer.weights}
    hidden = (FILTERS + ABOVE) * HIDDEN + HIDDEN + HIDDEN * HIDDEN + HIDDEN
    assert layer.count_params() == 4 * (hidden + HIDDEN * UNITS + UNITS)


def test_networks_read_d_first_and_the_latent_above_after_it(randomize):
    layer = _layer(randomize)
    both = np.concatenate([D, Z_ABOVE], axis=-1)
    prior = _prior(layer)
    mean, sigma = outputs_of(layer.prior_network, both)
    # In two sums, of d and of the latent above, which round differently from one.
    np.testing.assert_allclose(prior.loc, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prior.scale, sigma, rtol=1e-5, atol=1e-6)
    estimate, estimate_sigma = outputs_of(layer.posterior_network, both)
    posterior = _posterior(layer, prior)
    weight = estimate_sigma**-2 / (estimate_sigma**-2 + sigma**-2)
    expected = weight * estimate + (1 - weight) * mean
    np.testing.assert_allclose(posterior.loc, expected, rtol=1e-4, atol=1e-5)


def test_the_topmost_layer_reads_d_alone(randomize):
    layer = LatentLayer(UNITS, HIDDEN)
    layer.build((None, None, FILTERS))
    randomize(layer)
    prior = _prior(layer, D, None)
    np.testing.assert_array_equal(prior.loc, outputs_of(layer.prior_network, D)[0])
    assert _posterior(layer, prior, D, None).loc.shape == (BATCH, TIME, UNITS)


@pytest.mark.parametrize(("reading", "expected"), [("std", 1 / 5), ("variance", np.sqrt(1 / 5))])
def test_equation_11_by_hand(randomize, reading, expected):
    layer = _layer(randomize, reading)
    _answer(layer.prior_network, mean=1.0, sigma=0.5)  # precision 4
    _answer(layer.posterior_network, mean=3.0, sigma=1.0)  # precision 1
    posterior = _posterior(layer, _prior(layer))
    shape = (BATCH, TIME, UNITS)
    np.testing.assert_allclose(posterior.loc, np.full(shape, (3 * 1 + 1 * 4) / 5), rtol=1e-6)
    np.testing.assert_allclose(posterior.scale, np.full(shape, expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("reading", "sigma", "expected"),
    [
        ("std", 1e-3, 5e-7),
        ("std", 5.0, 12.5),
        ("variance", 1e-3, 1e-3 / np.sqrt(2)),
        ("variance", 5.0, 5 / np.sqrt(2)),
    ],
)
def test_the_combined_sigma_is_not_clipped(randomize, reading, sigma, expected):
    layer = _layer(randomize, reading)
    _answer(layer.prior_network, 0.0, sigma)
    _answer(layer.posterior_network, 0.0, sigma)
    posterior = _posterior(layer, _prior(layer))
    np.testing.assert_allclose(posterior.scale, np.full((BATCH, TIME, UNITS), expected), rtol=1e-5)


@pytest.mark.parametrize("reading", ["std", "variance"])
def test_posterior_lies_between_its_estimate_and_the_prior(randomize, reading):
    layer = _layer(randomize, reading)
    prior = _prior(layer)
    both = np.concatenate([D, Z_ABOVE], axis=-1)
    estimate, sigma = outputs_of(layer.posterior_network, both)
    posterior = _posterior(layer, prior)
    low, high = np.minimum(estimate, prior.loc), np.maximum(estimate, prior.loc)
    assert np.all(posterior.loc >= low - 1e-5)
    assert np.all(posterior.loc <= high + 1e-5)
    if reading == "variance":  # two sources know more than either
        assert np.all(posterior.scale < np.minimum(sigma, prior.scale))


def test_kl_is_zero_where_the_posterior_is_the_prior(randomize):
    layer = _layer(randomize)
    _answer(layer.prior_network, 0.7, 2.0)
    _answer(layer.posterior_network, 0.7, 2.0)  # 1 / (1/4 + 1/4) = 2
    prior = _prior(layer)
    posterior = _posterior(layer, prior)
    np.testing.assert_allclose(posterior.scale, prior.scale, rtol=1e-6)
    np.testing.assert_allclose(tfd.kl_divergence(posterior, prior), 0.0, atol=1e-6)


@pytest.mark.parametrize("reading", ["std", "variance"])
def test_kl_is_the_closed_form(randomize, reading):
    layer = _layer(randomize, reading)
    prior = _prior(layer)
    posterior = _posterior(layer, prior)
    kl = tfd.kl_divergence(posterior, prior)
    expected = _kl(posterior, prior)
    assert np.all(expected > 0)
    np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-5)


def test_distributions_are_float32_under_bfloat16(randomize):
    layer = _layer(randomize, dtype="mixed_bfloat16")
    assert layer.prior_network.mean_layers[0].compute_dtype == "bfloat16"
    prior = _prior(layer, tf.cast(D, tf.bfloat16))
    posterior = _posterior(layer, prior, tf.cast(D, tf.bfloat16))
    parameters = (prior.loc, prior.scale, posterior.loc, posterior.scale)
    assert {p.dtype for p in parameters} == {tf.float32}
    assert {v.dtype for v in layer.weights} == {"float32"}
    # Only rounding, relative 2^-9 at each of a few places, tells it from float32.
    exact = _layer(randomize)
    np.testing.assert_allclose(prior.loc, _prior(exact).loc, atol=0.1)


def test_config_round_trip():
    layer = LatentLayer(UNITS, HIDDEN, 3, "variance", name="l", dtype="mixed_bfloat16")
    again = LatentLayer.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.name == "l"
    assert (again.units, again.hidden_units, again.hidden_layers) == (UNITS, HIDDEN, 3)
    assert again.posterior_scale == "variance"
    assert again.compute_dtype == "bfloat16"


def test_another_reading_of_equation_11_is_refused():
    message = "^posterior_scale must be 'std' or 'variance', got 'sigma'$"
    with pytest.raises(ValueError, match=message):
        LatentLayer(UNITS, HIDDEN, posterior_scale="sigma")


def test_a_static_prior_reads_the_latent_above_alone(randomize):
    layer = _layer(randomize, prior_kind="static")
    prior = _prior(layer)
    mean, sigma = outputs_of(layer.prior_network, Z_ABOVE)
    np.testing.assert_allclose(prior.loc, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prior.scale, sigma, rtol=1e-5, atol=1e-6)
    assert layer.begin_prior(tf.constant(D)) == ()
    # The posterior combines it with its own estimate, as ever.
    both = np.concatenate([D, Z_ABOVE], axis=-1)
    estimate, estimate_sigma = outputs_of(layer.posterior_network, both)
    total = 1 / np.square(estimate_sigma) + 1 / np.square(sigma)
    posterior = _posterior(layer, prior)
    np.testing.assert_allclose(posterior.scale, 1 / total, rtol=1e-4)
    expected = (estimate / np.square(estimate_sigma) + mean / np.square(sigma)) / total
    np.testing.assert_allclose(posterior.loc, expected, rtol=1e-4, atol=1e-5)


def test_a_unit_prior_is_not_combined_with_the_posterior(randomize):
    layer = _layer(randomize, prior_kind="unit", units_above=0)
    assert layer.prior_network is None
    prior = _prior(layer, above=None)
    assert not np.any(prior.loc) and np.all(prior.scale.numpy() == 1.0)
    assert prior.loc.shape == (*D.shape[:2], UNITS)
    posterior = _posterior(layer, prior, above=None)
    mean, sigma = outputs_of(layer.posterior_network, D)
    np.testing.assert_allclose(posterior.loc, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(posterior.scale, sigma, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_kind": "fixed"}, "prior_kind must be 'dynamic', 'static' or 'unit', got 'fixed'"),
        ({"prior_kind": "static"}, "a static prior reads the latent above, of which there is none"),
    ],
)
def test_priors_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LatentLayer(UNITS, HIDDEN, **options)
