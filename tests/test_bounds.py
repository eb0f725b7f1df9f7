import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import bounds, noise
from stcn_tf.bounds import (
    SequenceTerms,
    _resample,
    filter_particles,
    score_samples,
    sum_over_time,
)
from stcn_tf.config import TrainingSettings
from stcn_tf.distribution import Share
from stcn_tf.layers import serial
from stcn_tf.layers.observation import Observation
from stcn_tf.models import Wavenet
from stcn_tf.models.base import Terms, repeated
from stcn_tf.noise import Places
from stcn_tf.released.stcn import ReleasedSTCN
from stcn_tf.training.step import TrainStep, make_optimizer
from tests.contract import assert_close

FLIPS = 8


def _model(dense, draws, latent_sizes):
    return ReleasedSTCN(
        observation=Observation(0, 1, name="observation"),
        num_filters=16,
        kernel_size=2,
        blocks_per_layer=1,
        latent_sizes=latent_sizes,
        latent_hidden_layers=0,
        output_layers=1,
        output_filters=14,
        dense=dense,
        posterior_draws=draws,
    )


def test_terms_are_summed_over_time():
    kl_per_unit = tf.reshape(tf.range(2.0 * 4 * 3), [2, 4, 3])
    terms = Terms(
        log_likelihood=tf.constant([[-1.0, -2.0, -4.0, 0.0], [-8.0, -16.0, 0.0, 0.0]]),
        kl=kl_per_unit,
        kl_per_unit=(kl_per_unit,),
        log_weight=tf.zeros([2, 4]),
        auxiliary=tf.constant([[0.5, 0.25, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]]),
        at_floor=kl_per_unit[..., :2],
        parameters=(),
    )
    summed = sum_over_time(terms)
    np.testing.assert_array_equal(summed.log_likelihood, [-7.0, -24.0])
    np.testing.assert_array_equal(summed.kl, [[18.0, 22.0, 26.0], [66.0, 70.0, 74.0]])
    np.testing.assert_array_equal(summed.auxiliary, [0.75, 3.0])
    np.testing.assert_array_equal(summed.at_floor, [[18.0, 22.0], [66.0, 70.0]])


SUMS = SequenceTerms(
    tf.constant([-7.0, -24.0]),
    tf.constant([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]]),
    tf.constant([100.0, 200.0]),
    tf.zeros([2, 4]),
)


@pytest.mark.parametrize(
    ("weight", "expected"), [(0.0, [-7, -24]), (0.5, [-10.5, -32.5]), (1.0, [-14, -41])]
)
def test_objective_counts_the_weighted_kl_of_each_layer_once(weight, expected):
    np.testing.assert_array_equal(SUMS.objective(weight), expected)
    if weight == 1.0:
        np.testing.assert_array_equal(SUMS.objective(), expected)


@pytest.mark.parametrize(
    ("dense", "draws", "expected"),
    [
        (True, "shared", [-14, -41]),
        (True, "independent", [-7 - 1 - 2 * (2 + 4), -24 - 3 - 2 * (5 + 9)]),
        (False, "shared", [-14, -41]),
        (False, "independent", [-14, -41]),
    ],
)
def test_elbo_counts_each_kl_as_often_as_the_model_has_latents(dense, draws, expected):
    model = _model(dense, draws, latent_sizes=(4, 2, 3))
    np.testing.assert_array_equal(SUMS.elbo(model), expected)
    same = np.array_equal(SUMS.elbo(model), SUMS.objective())
    assert same == model.is_objective_a_bound


def tiny_model(randomize, dense=True, draws="shared", output_type="conv1x1", **changes):
    """Few enough latents to integrate over, and posteriors that are not the true ones.

    Nor are they much narrower than the prior, as Eq. 11 makes them in its printed form: importance
    weights from those have a variance too large to test against.
    """
    settings = {
        "posterior_scale": "variance",
        "observation": Observation(1, 1, 2, name="observation"),
        "num_filters": 5,
        "kernel_size": 2,
        "blocks_per_layer": 1,
        "latent_sizes": (1, 1),
        "latent_hidden_layers": 1,
        "output_layers": 1,
        "output_filters": 4,
    }
    model = ReleasedSTCN(
        **{**settings, **changes}, dense=dense, posterior_draws=draws, output_type=output_type
    )
    model.build()
    randomize(model, scale=0.4)
    for layer in model.latent_layers:
        layer.posterior_network.sigma_layers[-1].bias.assign_add([2.0] * layer.units)
    return model


@pytest.fixture
def x():
    rng = np.random.default_rng(3)
    x = np.stack([rng.normal(size=(2, 3)), rng.integers(0, 2, (2, 3))], axis=-1)
    x[1, 2] = 0.0  # beyond the second sequence's end
    return x.astype(np.float32)


LENGTHS = np.array([3, 2], np.int32)


# Traced, because the loops over draws and particles are slow step by step; and once for each model
# and shape, where seed and number are tensors.
_score_samples = tf.function(score_samples, autograph=False)
_filter_particles = tf.function(filter_particles, autograph=False)


def standard_normal_grid(num, dimensions):
    """Nodes [points, dimensions] and log weights [points] of an integral against N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num)
    grid = np.stack(np.meshgrid(*[nodes] * dimensions, indexing="ij"), axis=-1)
    log_weights = sum(np.meshgrid(*[np.log(weights / np.sqrt(2 * np.pi))] * dimensions))
    return grid.reshape(-1, dimensions).astype(np.float32), log_weights.reshape(-1)


def _encoded(model, x):
    lengths = tf.fill([len(x)], x.shape[1])
    return model.encode(tf.convert_to_tensor(x), lengths, model.start(len(x))).steps


def _predicted(model, read):
    state = serial.initial_state(model.output_layers, tf.shape(read)[0])
    outputs, _ = serial.run(model.output_layers, read, state, None)
    return model.observation(outputs)[0]


def exact_of_steps(model, x, num):
    """log p(x_t | x_1, ..., x_{t-1}) of a model of two layers of one unit, by quadrature.

    From the definition of the generative model: B_2 ~ p(z^2), z^1 ~ p(. | B_2), and the output
    reads z^1, and where `dense` B_2 as well or, with independent draws, its twin A_2.
    """
    grid, log_weights = standard_normal_grid(num, 3 if model.dense else 2)
    if model.dense and model.posterior_draws == "shared":
        grid, log_weights = standard_normal_grid(num, 2)
    begun = repeated(_encoded(model, x).prior, len(grid))
    nodes = np.tile(grid, (len(x), 1))[:, np.newaxis, np.newaxis]  # [rows, 1, 1, dimensions]
    lower, upper = model.latent_layers
    top = upper.prior(begun[1], None)
    b2, twin = (top.loc + top.scale * nodes[..., i] for i in (0, -1 if grid.shape[1] == 3 else 0))
    prior = lower.prior(begun[0], b2)
    z1 = prior.loc + prior.scale * nodes[..., 1]
    read = tf.concat([twin, z1], axis=-1) if model.dense else z1
    parameters = _predicted(model, read)
    log_probs = model.observation.log_prob(parameters, tf.repeat(x, len(grid), axis=0))
    log_probs = tf.reshape(log_probs, [len(x), len(grid), -1]).numpy().astype(np.float64)
    return np.logaddexp.reduce(log_probs + log_weights[:, np.newaxis], axis=1)


def exact_of_sequence(model, x, num):
    """log p(x) of one sequence and one layer of one unit: every step is integrated over."""
    grid, log_weights = standard_normal_grid(num, x.shape[1])
    prior = model.latent_layers[0].prior(_encoded(model, x).prior[0], None)
    z = prior.loc + prior.scale * grid[..., np.newaxis]
    parameters = _predicted(model, z)
    log_probs = model.observation.log_prob(parameters, tf.repeat(x, len(z), axis=0))
    total = tf.reduce_sum(log_probs, axis=1).numpy().astype(np.float64)
    return np.logaddexp.reduce(total + log_weights)


@pytest.mark.parametrize(
    ("dense", "draws"),
    [(True, "shared"), (False, "shared"), (True, "independent"), (False, "independent")],
)
def test_importance_weighting_agrees_with_numerical_integration(randomize, x, dense, draws):
    model = tiny_model(randomize, dense, draws)
    nodes = (32, 28) if dense and draws == "independent" else (100, 90)
    mask = np.arange(3) < LENGTHS[:, np.newaxis]
    exact, rough = (np.sum(exact_of_steps(model, x, num) * mask, axis=1) for num in nodes)
    np.testing.assert_allclose(exact, rough, atol=2e-3)
    repeats = 200  # each an estimate of its own
    inputs = model, np.tile(x, (repeats, 1, 1)), np.tile(LENGTHS, repeats)
    estimates = _score_samples(*inputs, tf.constant((1, 2)), 500)
    estimates = estimates.bound.numpy()
    estimates = estimates.reshape(repeats, 2)
    stderr = estimates.std(axis=0, ddof=1) / np.sqrt(repeats)
    assert np.all(stderr < 0.005)
    # The bias, -variance / 2 of one estimate to first order, is far below the tolerance.
    difference = np.abs(estimates.mean(axis=0) - exact)
    tolerance = 4 * stderr + estimates.var(axis=0) + np.abs(exact - rough)
    assert np.all(difference < tolerance)
    # While the ELBO is a bound that does not reach it.
    sampled = _score_samples(*inputs, tf.constant((3, 4)), 9)
    elbo = sampled.mean.elbo(model).numpy().reshape(repeats, 2).mean(axis=0)
    assert elbo.sum() < exact.sum() - 0.02


@pytest.mark.parametrize("estimator", ["per sequence", "fivo"])
def test_latents_that_reach_across_steps_agree_with_numerical_integration(randomize, x, estimator):
    model = tiny_model(randomize, latent_sizes=(1,), output_type="wavenet", output_layers=2)
    assert model.do_latents_reach_across_steps
    exact = [exact_of_sequence(model, x[i : i + 1, :n], num=20) for i, n in enumerate(LENGTHS)]
    rough = exact_of_sequence(model, x[:1], num=16)
    np.testing.assert_allclose(exact[0], rough, atol=1e-4)
    repeats = 150
    inputs = model, np.tile(x, (repeats, 1, 1)), np.tile(LENGTHS, repeats), (1, 2)
    if estimator == "fivo":
        estimates = _filter_particles(*inputs, 1000).bound.numpy()
    else:
        estimates = _score_samples(*inputs, 1000).bound.numpy()
    estimates = estimates.reshape(repeats, 2)
    stderr = estimates.std(axis=0, ddof=1) / np.sqrt(repeats)
    assert np.all(stderr < 0.03)
    difference = np.abs(estimates.mean(axis=0) - exact)
    assert np.all(difference < 4 * stderr + estimates.var(axis=0))


@pytest.mark.parametrize("kind", ["per step", "over both draws", "per sequence", "fivo"])
def test_the_expected_bound_does_not_fall_as_k_grows(randomize, x, kind):
    changes = {"draws": "independent"} if kind == "over both draws" else {}
    if kind in ("per sequence", "fivo"):
        changes["output_type"] = "wavenet"
    model = tiny_model(randomize, **changes)
    repeats = 1500
    means, errors = [], []
    for k in (1, 2, 4, 16):
        repeated = tf.repeat(x, repeats, axis=0), tf.repeat(LENGTHS, repeats)
        inputs = model, *repeated, tf.constant((k, 5)), k
        if kind == "fivo":
            estimates = _filter_particles(*inputs).bound.numpy()
        else:
            sampled = _score_samples(*inputs)
            estimates = sampled.bound.numpy()
        if k == 1:  # where it is the ELBO, its KL sampled instead of in closed form
            elbo = _score_samples(*inputs).mean.elbo(model).numpy()
            stderr = np.std(estimates - elbo) / np.sqrt(len(elbo))
            assert abs(np.mean(estimates - elbo)) < 4 * stderr
        means.append(estimates.mean())
        errors.append(estimates.reshape(2, repeats).mean(axis=0).std() / np.sqrt(repeats))
    rises, tolerances = np.diff(means), np.hypot(errors[1:], errors[:-1])
    assert np.all(rises > -3 * tolerances)
    assert means[-1] - means[0] > 10 * np.hypot(errors[0], errors[-1])


def test_terms_are_means_over_the_draws(randomize, x):
    model = tiny_model(randomize)
    sampled = score_samples(model, x, LENGTHS, (6, 7), 3)
    rows = [model.start(len(x))._replace(row=3 * tf.range(len(x)) + k) for k in range(3)]
    encoded = model.encode(x, LENGTHS, rows[0])
    draws = [model.observe(encoded, x, LENGTHS, state, (6, 7))[0] for state in rows]
    summed = [sum_over_time(terms) for terms in draws]
    for name in ("log_likelihood", "kl"):
        expected = np.mean([getattr(terms, name) for terms in summed], axis=0)
        np.testing.assert_allclose(getattr(sampled.mean, name), expected, rtol=1e-5)
    for layer, of_units in enumerate(sampled.kl_of_units):
        expected = np.mean([terms.kl_per_unit[layer] for terms in draws], axis=0).sum(axis=(0, 1))
        np.testing.assert_allclose(of_units, expected, rtol=1e-5)
    weights = np.exp([terms.log_weight for terms in draws])
    np.testing.assert_allclose(sampled.bound, np.log(weights.mean(axis=0)).sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize(("limit", "together"), [(6, 1), (12, 2), (35, 4), (10**6, 12)])
def test_as_many_draws_come_together_as_are_allowed(randomize, x, monkeypatch, limit, together):
    """So that memory does not grow with their number; the stack is passed once for all of them."""
    model = tiny_model(randomize)
    encode, observe = model.encode, model.observe
    encoded, shapes = [], []

    def counted_encode(*args):
        encoded.append(encode(*args))
        return encoded[-1]

    def counted_observe(*args):
        terms, state = observe(*args)
        shapes.append(tuple(terms.log_weight.shape))
        return terms, state

    monkeypatch.setattr(model, "encode", counted_encode)
    monkeypatch.setattr(model, "observe", counted_observe)
    monkeypatch.setattr(bounds, "STEPS_AT_ONCE", limit)
    score_samples(model, x, LENGTHS, (1, 2), 12)  # eager: each turn of the loop calls Python
    assert len(encoded) == 1
    batch, time = x.shape[:2]
    assert shapes == [(batch * together, time)] * (12 // together)


def test_a_model_without_latents_is_scored_exactly(randomize, x):
    model = Wavenet(
        observation=Observation(1, 1, 2, name="observation"),
        num_filters=5,
        kernel_size=2,
        dilations=(1, 2),
        wavenet_blocks=2,
        output_layers=1,
        output_filters=4,
    )
    model.build()
    randomize(model)
    sampled = score_samples(model, x, LENGTHS, (1, 2), 7)
    log_likelihood = sum_over_time(model.score(x, LENGTHS)).log_likelihood
    for values in (
        sampled.mean.log_likelihood,
        sampled.bound,
        sampled.mean.elbo(model),
        sampled.mean.objective(),
    ):
        np.testing.assert_allclose(values, log_likelihood, rtol=1e-6)


def test_resampling_keeps_long_sequences_from_degenerating(randomize):
    model = tiny_model(randomize, latent_sizes=(3, 2), output_type="wavenet")
    rng = np.random.default_rng(8)
    x = np.stack([rng.normal(size=(40, 60)), rng.integers(0, 2, (40, 60))], axis=-1)
    inputs = model, x.astype(np.float32), tf.fill([40], 60), (1, 2), 16
    difference = _filter_particles(*inputs).bound - _score_samples(*inputs).bound
    assert np.mean(difference) > 5 * np.std(difference) / np.sqrt(40)


def test_resampling_is_unbiased():
    """Each particle has, on average, as many descendants as its weight says."""
    weights = tf.constant([[0.05, 0.0, 0.5, 0.25, 0.2]])
    offset = noise.uniform((1, 2), Places(tf.range(4000), tf.zeros([4000, 1], tf.int32)), 1)[..., 0]
    ancestors = _resample(tf.repeat(weights, 4000, axis=0), offset).numpy()
    descendants = (ancestors[..., np.newaxis] == np.arange(5)).sum(axis=1)
    np.testing.assert_allclose(descendants.mean(axis=0), 5 * weights[0], atol=0.03)
    assert np.all(np.abs(descendants - 5 * weights[0]) < 1 + 1e-5)  # systematic: none strays far


def _flips(rng, num):
    return tf.constant(rng.integers(0, 2, (num, FLIPS, 1)).astype(np.float32))


def _trained_on_flips(dense, draws):
    """What the model makes of fresh flips: bounds in nats per flip and their standard errors."""
    keras.utils.set_random_seed(0)
    model = _model(dense, draws, latent_sizes=(3, 2))
    model.build()
    config = TrainingSettings(
        learning_rate=2e-2, learning_rate_decay=1.0, kl_weight_increment=2e-2, batch_size=128
    )
    optimizer = make_optimizer(config)
    optimizer.build(model.trainable_variables)  # else each update would be traced twice
    step = TrainStep(config, model, optimizer)
    rng = np.random.default_rng(0)
    for _ in range(120):
        step(Share.whole(_flips(rng, config.batch_size), tf.fill([config.batch_size], FLIPS)))
    num = 2560
    inputs = _flips(rng, num), tf.fill([num], FLIPS), tf.constant((1, 2)), 4
    sampled = _score_samples(model, *inputs)
    found = {
        "elbo": sampled.mean.elbo(model),
        "released objective": sampled.mean.objective(),
        "importance-weighted": sampled.bound,
    }
    return {
        name: (np.mean(values) / FLIPS, np.std(values) / FLIPS / np.sqrt(num))
        for name, values in found.items()
    }


def test_on_coin_flips_no_bound_beats_log_2_but_the_released_objective_does():
    """What cannot be predicted cannot be: a bound above -log 2 a flip is no bound.

    With independent draws, the released objective of STCN-dense counts the KL of latents that are
    drawn twice once only, and training soon finds out.
    """
    shared = _trained_on_flips(dense=True, draws="shared")
    independent = _trained_on_flips(dense=True, draws="independent")
    for found in (shared, independent):
        for name in ("elbo", "importance-weighted"):
            mean, stderr = found[name]
            assert mean < -np.log(2) + 3 * stderr, name
            assert stderr < 0.003
    assert shared["elbo"][0] > -0.72  # it did learn that the flips are fair
    assert shared["released objective"] == shared["elbo"]
    mean, stderr = independent["released objective"]
    assert mean > -0.6 > -np.log(2) + 10 * stderr
    # Importance weighting tightens the valid bound, with weights over both draws.
    assert independent["elbo"][0] + 0.05 < independent["importance-weighted"][0]


# Gradients and training


def _score_at_once(model, x, num, **options):
    return score_samples(model, x, LENGTHS, (1, 2), num, at_once=num, **options)


@pytest.mark.parametrize("output_type", ["conv1x1", "wavenet"])
def test_draws_are_the_same_however_many_are_made_together(randomize, x, output_type):
    model = tiny_model(randomize, output_type=output_type)
    inputs = model, x, LENGTHS, tf.constant((1, 2)), 6
    one, *others = (_score_samples(*inputs, at_once=n) for n in (1, 2, 6, None))
    for other in others:
        assert_close(other, one, rtol=1e-5, atol=1e-5)
    # And no two of one sequence, or of two, are the same.
    terms, _ = model.observe(
        *repeated((model.encode(x, LENGTHS, model.start(2)), x, LENGTHS), 3),
        bounds._drawn_anew(repeated(model.start(2), 3), 3, 3, 0),
    )
    assert len(np.unique(terms.kl[:, 0, 0])) == 6


@pytest.mark.parametrize("output_type", ["conv1x1", "wavenet"])
def test_gradients_of_importance_weighting_are_finite_differences(randomize, x, output_type):
    model = tiny_model(randomize, output_type=output_type)
    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        bound = tf.reduce_sum(_score_at_once(model, x, 3, kl_weight=0.7).bound)
    gradients = tape.gradient(bound, variables)
    rng = np.random.default_rng(4)
    for _ in range(3):
        direction = [rng.standard_normal(v.shape).astype(np.float32) for v in variables]
        size = 1e-2 / np.sqrt(sum(np.sum(d**2) for d in direction))
        values = []
        for sign in (1, -2, 1):  # to one side, to the other, back
            for variable, d in zip(variables, direction, strict=True):
                variable.assign_add(sign * size * d)
            scored = _score_at_once(model, x, 3, kl_weight=0.7)
            values.append(float(tf.reduce_sum(scored.bound)))
        expected = (values[0] - values[1]) / (2 * size)
        along = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, direction, strict=True))
        assert along == pytest.approx(expected, rel=2e-2, abs=0.05)


@pytest.mark.parametrize("output_type", ["conv1x1", "wavenet"])
def test_the_kl_weight_tempers_the_weights(randomize, x, output_type):
    model = tiny_model(randomize, output_type=output_type)
    terms = model.score(np.repeat(x, 3, axis=0), np.repeat(LENGTHS, 3), (1, 2))
    likelihood, weight = (
        v.numpy().reshape(2, 3, 3) for v in (terms.log_likelihood, terms.log_weight)
    )
    for kl_weight, expected in ((0.0, likelihood), (1.0, weight)):
        if output_type == "wavenet":
            expected = expected.sum(axis=2, keepdims=True)
        expected = np.log(np.exp(expected).mean(axis=1)).sum(axis=1)
        scored = _score_at_once(model, x, 3, kl_weight=kl_weight)
        np.testing.assert_allclose(scored.bound, expected, rtol=1e-4)
    np.testing.assert_array_equal(_score_at_once(model, x, 3).bound, scored.bound)


def test_the_gradient_of_the_filter_is_finite(randomize, x):
    model = tiny_model(randomize, output_type="wavenet")
    with tf.GradientTape() as tape:
        bound = tf.reduce_sum(_filter_particles(model, x, LENGTHS, (1, 2), 4).bound)
    gradients = tape.gradient(bound, [v.value for v in model.trainable_variables])
    assert all(np.all(np.isfinite(g)) and np.any(g != 0.0) for g in gradients)


@pytest.mark.parametrize("objective", ["iwae", "fivo"])
def test_training_raises_the_bound(randomize, objective):
    model = tiny_model(randomize, output_type="wavenet")
    step = _train_step(model, objective=objective, num_samples=3)
    x = np.random.default_rng(2).normal(0.3, 0.1, (16, 5, 2)).astype(np.float32)
    x[..., 1] = np.arange(5) % 2
    results = [step(Share.whole(x, tf.fill([16], 5))) for _ in range(40)]
    assert float(results[-1].objective) > float(results[0].objective) + 16 * 5 * 0.3


def _train_step(model, **settings):
    config = TrainingSettings(
        learning_rate=2e-2, kl_weight_increment=0.0, clip_norm=0.0, **settings
    )
    optimizer = make_optimizer(config)
    optimizer.build(model.trainable_variables)
    return TrainStep(config, model, optimizer)


def test_auxiliary_costs_are_trained_and_part_of_no_bound(randomize, x):
    """Of the same weights and noise, with and without a cost on a bias."""
    plain = tiny_model(randomize, draws="shared")
    costly = tiny_model(randomize, draws="shared")
    observe, bias = costly.observe, costly.observation.heads["mean"].bias

    def observe_at_cost(encoded, x, lengths, *args):
        terms, state = observe(encoded, x, lengths, *args)
        mask = tf.cast(tf.sequence_mask(lengths, tf.shape(x)[1]), tf.float32)
        cost = mask * 50.0 * tf.reduce_sum(bias.value)
        return terms._replace(auxiliary=terms.auxiliary + cost), state

    costly.observe = observe_at_cost
    cost = 50.0 * float(tf.reduce_sum(bias.value)) * LENGTHS
    for scorer in (score_samples, _filter_particles):
        without, scored = (scorer(m, x, LENGTHS, (1, 2), 2) for m in (plain, costly))
        np.testing.assert_allclose(scored.mean.auxiliary, cost, rtol=1e-4)
        np.testing.assert_allclose(scored.bound, without.bound, rtol=1e-6)
        np.testing.assert_allclose(scored.mean.elbo(costly), without.mean.elbo(plain), rtol=1e-6)
        np.testing.assert_allclose(scored.mean.objective(), without.mean.objective(), rtol=1e-6)
    for objective, num in (("elbo", 1), ("iwae", 2)):
        steps = [_train_step(m, objective=objective, num_samples=num) for m in (plain, costly)]
        results, gradients = [], []
        for step in steps:
            batch = Share.whole(tf.constant(x), tf.constant(LENGTHS))
            sums, found = step._gradients(batch, *map(tf.constant, (1.0, (1, 2), 1.0)))
            results.append(sums)
            index = [v.path for v in step.model.trainable_variables].index(
                step.model.observation.heads["mean"].bias.path
            )
            gradients.append(found)
        for name in ("elbo", "objective", "log_likelihood"):
            np.testing.assert_allclose(results[1][name], results[0][name], rtol=1e-6)
        for i, (a, b) in enumerate(zip(*gradients, strict=True)):
            # Each sequence's mean over its steps is 50 for each component's bias.
            extra = 2 * 50.0 if i == index else 0.0
            np.testing.assert_allclose(b, a + extra, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_on_coin_flips_the_released_objective_of_stcn_is_a_bound():
    found = _trained_on_flips(dense=False, draws="independent")
    for mean, stderr in found.values():
        assert -0.72 < mean < -np.log(2) + 3 * stderr
