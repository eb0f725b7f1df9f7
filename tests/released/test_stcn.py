import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tests.contract import assert_close, assert_same, check_model
from tests.stcn_models import (
    BATCH,
    LATENTS,
    LENGTHS,
    MASK,
    REAL,
    TIME,
    answer,
    make_stcn,
    moments,
    networks_of,
    passed,
    stcn_frames,
)

tfd = tfp.distributions


@pytest.fixture(scope="module", params=[True, False], ids=["dense", "stcn"])
def dense(request):
    return request.param


@pytest.fixture(scope="module", params=["shared", "independent"])
def draws(request):
    return request.param


@pytest.fixture
def x():
    return stcn_frames()


def test_it_is_a_model():
    settings = {"blocks_per_layer": 1, "latent_sizes": (4, 3), "draws": "independent"}
    check_model(lambda **changes: make_stcn(output_type="wavenet", **settings | changes))


# Draws


def _widen(model, sigmas=2.0):
    """Posteriors wide enough that the noise can be told from what it was added to."""
    for network in networks_of(model):
        last = network.sigma_layers[-1]
        last.kernel.assign(tf.zeros_like(last.kernel))
        last.bias.assign(np.broadcast_to(sigmas, network.units))
    return model


def _record_draws(model, x, monkeypatch):
    """The noise that each use of each latent got: {(layer from 1, use): [batch, time, units]}."""
    drawn = {}

    def spy(kind, index):
        layer = model.latent_layers[index]
        original = getattr(layer, kind)

        def call(d, above, *rest):
            if above is not None:
                drawn[index + 2, kind] = np.asarray(above)
            return original(d, above, *rest)

        monkeypatch.setattr(layer, kind, call)

    for index, kind in itertools.product(range(len(model.latent_layers)), ("prior", "posterior")):
        spy(kind, index)
    latents, parameters = passed(model, x, (5, 6))
    read = np.split(parameters.mean[:, :, 0].numpy(), len(model.latent_layers), axis=-1)
    for layer, z in zip((3, 2, 1), read, strict=True):
        drawn[layer, "output"] = z
    noise = {}
    for (layer, use), z in drawn.items():
        q = latents.posteriors[layer - 1]
        noise[layer, use] = (z - q.loc.numpy()) / q.scale.numpy()
    return drawn, noise


def _transparent(draws):
    """A model of nine features, whose predicted mean is the latents that the output reads.

    Its layers have one size: noise that two of them shared would be of one shape, and show.
    """
    model = make_stcn(features=(9, 0, 1), latent_sizes=(3, 3, 3), output_layers=0, draws=draws)
    model.observation.heads["mean"].kernel.assign(np.eye(9)[np.newaxis])
    model.observation.heads["mean"].bias.assign(np.zeros(9))
    return _widen(model)


def test_each_use_of_a_latent_gets_the_draw_that_the_option_says(draws, monkeypatch):
    model = _transparent(draws)
    x = np.random.default_rng(8).standard_normal((40, 50, 9)).astype(np.float32)
    drawn, noise = _record_draws(model, x, monkeypatch)
    uses = {(layer, use) for layer in (2, 3) for use in ("prior", "posterior", "output")}
    assert set(drawn) == uses | {(1, "output")}
    for layer in (2, 3):
        for a, b in itertools.combinations(("prior", "posterior", "output"), 2):
            assert np.array_equal(drawn[layer, a], drawn[layer, b]) == (draws == "shared")
    if draws == "shared":
        noise = {key: value for key, value in noise.items() if key[1] == "output"}
    # Every draw is standard normal noise on the posterior and knows of no other: not of another
    # use, layer, unit, step or sequence.
    units = {
        f"{key}, unit {i}": value[..., i]
        for key, value in noise.items()
        for i in range(value.shape[-1])
    }
    assert len(units) == (9 if draws == "shared" else 21)
    n = 40 * 50
    for name, value in units.items():
        assert abs(value.mean()) < 5 / np.sqrt(n), name
        assert abs(value.var() - 1) < 5 * np.sqrt(2 / n), name
        assert abs((value[:, 1:] * value[:, :-1]).mean()) < 5 / np.sqrt(n), name
        assert abs((value[1:] * value[:-1]).mean()) < 5 / np.sqrt(n), name
    for (name_a, a), (name_b, b) in itertools.combinations(units.items(), 2):
        assert abs((a * b).mean()) < 5 / np.sqrt(n), (name_a, name_b)


def test_shared_and_independent_draws_differ_by_their_noise_alone(dense, x):
    shared, independent = (make_stcn(dense=dense, draws=d) for d in ("shared", "independent"))
    a, b = (m.score(x, LENGTHS, temperature=0.0) for m in (shared, independent))
    # With independent draws a dense model has more latents, and so more terms of its weight.
    assert np.array_equal(a.log_weight, b.log_weight) == (not dense)
    assert_same(a._replace(log_weight=()), b._replace(log_weight=()))
    a, b = shared.score(x, LENGTHS, (1, 2)), independent.score(x, LENGTHS, (1, 2))
    np.testing.assert_array_equal(a.kl[..., -1], b.kl[..., -1])  # nothing is drawn above the top
    assert np.all(a.kl[0, :, 0] != b.kl[0, :, 0])
    assert np.all(a.log_likelihood[0] != b.log_likelihood[0])


def test_log_weight_is_log_p_of_all_over_log_q_of_the_latents(dense, draws, x):
    model = make_stcn(dense=dense, draws=draws, output_type="wavenet")
    for network in networks_of(model):
        # Sigmas large enough that z tells how far from the mean it was drawn.
        last = network.sigma_layers[-1]
        last.kernel.assign(tf.zeros_like(last.kernel))
        last.bias.assign(np.linspace(0.5, 2.0, network.units))
    terms = model.score(x, LENGTHS, (1, 2))
    drawn, parameters = passed(model, x)
    # As many draws of a layer are latents of the generative model as its KL counts in a bound.
    assert [len(draw.latents) for draw in drawn.draws] == list(model.elbo_kl_weights)
    expected = model.observation.log_prob(parameters, x).numpy().astype(np.float64)
    for draw, q, p in zip(drawn.draws, drawn.posteriors, drawn.priors, strict=True):
        zs = [z for z, _ in draw.latents]
        for i, z in enumerate(zs):
            assert not any(np.array_equal(z, other) for other in zs[:i])
            log_p, log_q = (_log_normal(z, distribution) for distribution in (p, q))
            expected += np.sum(log_p - log_q, axis=-1)
    np.testing.assert_allclose(terms.log_weight, np.where(MASK, expected, 0), rtol=1e-4, atol=2e-3)


def _log_normal(z, normal):
    z, mean, sigma = (np.asarray(t, np.float64) for t in (z, normal.loc, normal.scale))
    return -0.5 * ((z - mean) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)


def test_log_weight_is_the_log_likelihood_where_q_is_p(dense, x):
    model = make_stcn(dense=dense, draws="independent")
    for network in networks_of(model):
        answer(network, 0.0, 2.0)  # 1 / (1/4 + 1/4) = 2
    terms = model.score(x, LENGTHS, (1, 2))
    np.testing.assert_allclose(terms.log_weight, terms.log_likelihood, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("dense", "draws", "expected"),
    [
        (True, "shared", (1, 1, 1)),
        (True, "independent", (1, 2, 2)),
        (False, "shared", (1, 1, 1)),
        (False, "independent", (1, 1, 1)),
    ],
)
def test_kl_weights_of_a_valid_bound(dense, draws, expected):
    model = make_stcn(dense=dense, draws=draws)
    assert model.elbo_kl_weights == expected
    assert model.is_objective_a_bound == (sum(expected) == 3)


def test_generation_draws_for_each_use(draws, x):
    model = make_stcn(draws=draws)
    state = model.start(BATCH)
    _, whole = passed(model, x, (5, 6), latents="prior")
    for t in range(TIME):
        parameters, pending = model.predict_next(state, (5, 6))
        assert_close(parameters, tf.nest.map_structure(lambda p, t=t: p[:, t : t + 1], whole))
        state = model.advance(pending, x[:, t : t + 1])


# Floors


@pytest.mark.parametrize(
    ("sigma_q", "sigma_p", "mean_q", "floored"),
    [
        # log of the posterior's sigma is taken of 1e-6 at least, its square as it is
        (5e-7, 1e-3, 0.002, np.log(1e-3 / 1e-6) + (5e-7**2 + 0.002**2) / (2 * 1e-6) - 0.5),
        (5e-7, 2.0, 0.3, np.log(2.0 / 1e-6) + (5e-7**2 + 0.3**2) / (2 * 4.0) - 0.5),
        # and 1e-6 is the least variance of the prior that is divided by
        (2e-4, 5e-4, 0.001, np.log(5e-4 / 2e-4) + (2e-4**2 + 0.001**2) / (2 * 1e-6) - 0.5),
        (5e-7, 5e-7, 0.0, (5e-7**2) / (2 * 1e-6) - 0.5),
    ],
)
def test_the_floors_of_the_released_kl(sigma_q, sigma_p, mean_q, floored):
    values = tf.reshape(tf.constant([mean_q, sigma_q, 0.0, sigma_p]), [4, 1, 1, 1])
    q, p = tfd.Normal(values[0], values[1]), tfd.Normal(values[2], values[3])
    exact, released = (make_stcn(floors=floors)._kl_divergence(q, p) for floors in (False, True))
    squared = (sigma_q**2 + mean_q**2) / (2 * sigma_p**2)
    expected = np.log(sigma_p / sigma_q) + squared - 0.5
    np.testing.assert_allclose(exact, np.full((1, 1, 1), expected), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(released, np.full((1, 1, 1), floored), rtol=1e-5, atol=1e-5)
    assert np.abs(released - exact)[0, 0, 0] > 0.1


def test_the_floors_change_nothing_above_them(draws, x):
    exact, floored = (make_stcn(draws=draws, floors=f, scale=0.3) for f in (False, True))
    latents, _ = passed(exact, x)
    assert min(np.min(scale) for _, scale in moments(latents.posteriors)) > 1e-6
    a, b = (m.score(x, LENGTHS, (1, 2)) for m in (exact, floored))
    assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_the_floors_reach_kl_and_likelihood(x):
    exact, floored = (make_stcn(floors=floors) for floors in (False, True))
    for m in (exact, floored):
        head = m.observation.heads["binary"]
        head.kernel.assign(tf.zeros_like(head.kernel))
        head.bias.assign([-60.0])
        top = m.latent_layers[-1]
        for network in (top.prior_network, top.posterior_network):
            answer(network, 0.0, 1e-9)  # clipped to 1e-3
    x[..., REAL:] = 1.0
    a, b = (m.score(x, LENGTHS, (1, 2)) for m in (exact, floored))
    np.testing.assert_allclose(
        (b.log_likelihood - a.log_likelihood)[0], np.full(TIME, 60 + np.log(1e-5)), atol=1e-3
    )
    # The posterior's sigma is 5e-7, and counts as 1e-6.
    np.testing.assert_allclose(
        (a.kl - b.kl)[0, :, -1], np.full(TIME, LATENTS[-1] * np.log(2)), rtol=1e-4
    )


def test_other_draws_are_refused():
    message = "^posterior_draws must be 'shared' or 'independent', got 'same'$"
    with pytest.raises(ValueError, match=message):
        make_stcn(draws="same")
