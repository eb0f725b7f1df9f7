import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers.observation import Observation
from stcn_tf.models import STCN

tfd = tfp.distributions

BATCH, TIME, REAL, BINARY, COMPONENTS = 2, 11, 2, 1, 4
FILTERS, LATENTS = 6, (5, 3, 2)
LENGTHS = np.array([TIME, 7], np.int32)
SIZES = {
    "num_real": REAL,
    "num_binary": BINARY,
    "num_components": COMPONENTS,
    "num_filters": FILTERS,
    "kernel_size": 2,
    "blocks_per_layer": 2,
    "latent_sizes": LATENTS,
    "latent_hidden_layers": 1,
    "output_layers": 2,
    "output_filters": 7,
    "dense": True,
}
# The paper's model for handwriting, with the latent sizes left open.
HANDWRITING = SIZES | {
    "num_components": 20,
    "num_filters": 256,
    "blocks_per_layer": 6,
    "latent_hidden_layers": 2,
    "output_layers": 5,
    "output_filters": 256,
}


def _stcn(**settings):
    sizes = [settings.pop(name) for name in ("num_real", "num_binary", "num_components")]
    floors = settings.get("released_floors", False)
    return STCN(observation=Observation(*sizes, floors, name="observation"), **settings)


@pytest.fixture(scope="module")
def make(randomize):
    def make(seed=0, **changes):
        model = _stcn(**(SIZES | changes))
        model.build()
        return randomize(model, seed)

    return make


@pytest.fixture(scope="module", params=[True, False], ids=["dense", "stcn"])
def dense(request):
    return request.param


@pytest.fixture(scope="module", params=["shared", "independent"])
def draws(request):
    return request.param


@pytest.fixture(
    scope="module",
    params=[(True, "independent"), (False, "shared")],
    ids=["dense-independent", "stcn-shared"],
)
def model(request, make):
    dense, draws = request.param
    return make(dense=dense, posterior_draws=draws)


@pytest.fixture
def x():
    rng = np.random.default_rng(1)
    strokes = rng.standard_normal((BATCH, TIME, REAL))
    pen = rng.integers(0, 2, (BATCH, TIME, BINARY))
    return np.concatenate([strokes, pen], axis=-1).astype(np.float32)


def _arrays(structure):
    """The tensors of a structure, the parameters of its Normals among them."""
    parts = []
    for part in tf.nest.flatten(structure):
        parts += [part.loc, part.scale] if isinstance(part, tfd.Normal) else [part]
    return [np.asarray(part) for part in parts if part is not None]


def _assert_equal(first, second):
    first, second = _arrays(first), _arrays(second)
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def _changed_steps(before, after):
    """Steps at which two [batch, time, ...] structures differ anywhere."""
    changed = [
        np.any(a != b, axis=tuple(i for i in range(a.ndim) if i != 1))
        for a, b in zip(_arrays(before), _arrays(after), strict=True)
    ]
    return np.flatnonzero(np.any(changed, axis=0))


def _kl(q, p):
    mean_q, sigma_q, mean_p, sigma_p = (
        t.numpy().astype(np.float64) for t in (q.loc, q.scale, p.loc, p.scale)
    )
    squared = (sigma_q**2 + (mean_q - mean_p) ** 2) / (2 * sigma_p**2)
    return np.log(sigma_p / sigma_q) + squared - 0.5


# Size and names


@pytest.mark.parametrize(
    ("latent_sizes", "expected"),
    [((32, 16, 8, 4, 2), 12_626_781), ((32, 16, 8, 5, 2), 12_629_089)],
)
def test_parameters_of_the_handwriting_models(latent_sizes, expected):
    model = _stcn(**(HANDWRITING | {"latent_sizes": latent_sizes}))
    # Only shapes are of interest here; without values, 12 million weights cost nothing.
    with keras.StatelessScope():
        model.build()
        assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == expected
    assert model.receptive_field == 316


def test_variable_paths_are_what_checkpoints_hold(make):
    def both(layer):
        return [f"{layer}/kernel", f"{layer}/bias"]

    expected = []
    for block in range(6):
        names = ["filter", "gate", "output"] + ["residual"] * (block == 0)
        expected += [f"stack/block_{block:02d}/{name}" for name in names]
    for layer, network, part in itertools.product(
        range(1, 4), ("prior", "posterior"), ("mean", "sigma")
    ):
        expected += [f"latent_{layer}/{network}/{part}{end}" for end in ("_hidden_0", "")]
    expected += ["output_0", "output_1"]
    expected += [f"observation/{head}" for head in ("mean", "sigma", "component", "binary")]
    expected = [f"stcn/{path}" for name in expected for path in both(name)]
    # A second model of the same process has them too.
    for model in (make(), make()):
        paths = [v.path for v in model.variables]
        assert len(set(paths)) == len(paths)
        assert sorted(paths) == sorted(expected)
        assert len(model.trainable_variables) == len(paths)


@pytest.mark.parametrize("output_type", ["conv1x1", "wavenet"])
def test_receptive_field_of_a_prediction_from_the_posterior_means(make, output_type):
    # Through latents of earlier steps, which have seen frames still earlier.
    model = make(
        latent_sizes=(4,), latent_hidden_layers=0, output_type=output_type, output_kernel_size=3
    )
    for variable in model.variables:
        is_bias = variable.name == "bias"
        variable.assign(tf.fill(variable.shape, 0.1 if is_bias else 0.05))
    memory = 4 if output_type == "wavenet" else 0
    assert model.receptive_field == 1 + 3 + memory
    x = tf.zeros([1, 20, 3])
    for latents, last in (("prior", 18), ("posterior", 19)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            parameters = model.call(x, latents=latents, temperature=0.0).parameters
            output = tf.reduce_sum(parameters.binary_logits[:, -1])
        reached = np.flatnonzero(np.any(tape.gradient(output, x)[0], axis=-1))
        np.testing.assert_array_equal(reached, range(19 - model.receptive_field, last + 1))


def test_receptive_field_of_a_prediction(make):
    # Without ReLUs, which let nothing through where they are shut.
    model = make(kernel_size=3, latent_sizes=(4, 3), latent_hidden_layers=0, output_layers=0)
    assert model.receptive_field == 13  # 1 + 2 * (1 + 2) * 2
    x = tf.constant(np.random.default_rng(3).standard_normal((1, 20, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        parameters = model.call(x, latents="prior", temperature=0.0).parameters
        output = tf.reduce_sum(parameters.mean[:, -1] ** 2)
    reached = np.flatnonzero(np.any(tape.gradient(output, x)[0], axis=-1))
    np.testing.assert_array_equal(reached, np.arange(19 - 13, 19))  # not x_t itself, at 19


# What sees what


def test_predictions_from_the_prior_ignore_the_frame_itself(model, x):
    before = model.call(x, (1, 2), latents="prior")
    assert before.posteriors is None
    x[:, 6] += 1.0
    after = model.call(x, (1, 2), latents="prior")
    for part in ("priors", "parameters"):
        changed = _changed_steps(getattr(before, part), getattr(after, part))
        np.testing.assert_array_equal(changed, range(7, TIME), err_msg=part)


def test_predictions_from_the_prior_ignore_the_frame_with_wavenet_output_layers(make, dense, x):
    model = make(dense=dense, output_type="wavenet")
    before = model.call(x, (1, 2), latents="prior")
    x[:, 6] += 1.0
    after = model.call(x, (1, 2), latents="prior")
    for part in ("priors", "parameters"):
        changed = _changed_steps(getattr(before, part), getattr(after, part))
        np.testing.assert_array_equal(changed, range(7, TIME), err_msg=part)


@pytest.mark.parametrize(
    ("output_type", "output_layers", "memory"),
    [("conv1x1", 2, 0), ("wavenet", 0, 0), ("wavenet", 1, 1), ("wavenet", 3, 3)],
)
def test_latents_reach_later_steps_through_wavenet_output_layers(
    make, x, monkeypatch, output_type, output_layers, memory
):
    model = make(output_type=output_type, output_layers=output_layers)
    assert model.do_latents_reach_across_steps == (memory > 0)
    before = model.call(x, (1, 2))
    original = tf.random.stateless_normal

    def perturbed(shape, seed, **kwargs):
        noise = original(shape, seed, **kwargs)  # [time, batch, units]
        return noise + tf.reshape(tf.one_hot(4, shape[0]), [-1, 1, 1])

    monkeypatch.setattr(tf.random, "stateless_normal", perturbed)
    after = model.call(x, (1, 2))
    np.testing.assert_array_equal(_changed_steps(before.draws, after.draws), [4])
    np.testing.assert_array_equal(_changed_steps(before.posteriors, after.posteriors), [4])
    changed = _changed_steps(before.parameters, after.parameters)
    np.testing.assert_array_equal(changed, range(4, 5 + memory))


def test_the_topmost_prior_ignores_the_frame_and_the_posterior_sees_it(model, x):
    before = model.call(x, (1, 2))
    x[:, 6] += 1.0
    after = model.call(x, (1, 2))
    np.testing.assert_array_equal(
        _changed_steps(before.priors[-1], after.priors[-1]), range(7, TIME)
    )
    for old, new in zip(before.posteriors, after.posteriors, strict=True):
        np.testing.assert_array_equal(_changed_steps(old, new), range(6, TIME))
    # The priors below read a draw of a posterior, and so does the output.
    for old, new in zip(before.priors[:-1], after.priors[:-1], strict=True):
        np.testing.assert_array_equal(_changed_steps(old, new), range(6, TIME))
    changed = _changed_steps(before.parameters, after.parameters)
    np.testing.assert_array_equal(changed, range(6, TIME))


def test_the_first_prior_is_the_answer_to_one_zero_frame(model, x):
    top = model.latent_layers[-1]
    d = model.stack(tf.zeros([BATCH, 1, REAL + BINARY]))[-1].residual
    expected = top.prior(d, None)
    prior = model.call(x).priors[-1]
    np.testing.assert_allclose(prior.loc[:, :1], expected.loc, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prior.scale[:, :1], expected.scale, rtol=1e-5, atol=1e-6)


def test_each_latent_reads_the_last_block_of_its_group(model, x, monkeypatch):
    blocks = model.stack(np.pad(x, [(0, 0), (1, 0), (0, 0)]))
    for index, layer in enumerate(model.latent_layers):
        d = blocks[2 * index + 1].residual
        seen = {}

        def spy(d, above, *rest, layer=layer, kind=None, seen=seen):
            seen[kind] = d
            return getattr(type(layer), kind)(layer, d, above, *rest)

        for kind in ("prior", "posterior"):
            monkeypatch.setattr(layer, kind, lambda *a, kind=kind, spy=spy: spy(*a, kind=kind))
        model.call(x)
        np.testing.assert_array_equal(seen["prior"], d[:, :-1])
        np.testing.assert_array_equal(seen["posterior"], d[:, 1:])


@pytest.mark.parametrize("latents", ["posterior", "prior"])
def test_only_the_dense_output_reads_the_latents_above_the_lowest(make, dense, latents, x):
    model = make(dense=dense)
    lowest = model.latent_layers[0]
    for variable in lowest.variables:  # z^1 becomes 0, whatever is above and below it
        variable.assign(tf.zeros_like(variable))
    output = model.call(x, latents=latents, temperature=0.0)
    np.testing.assert_array_equal(output.priors[0].loc, np.zeros((BATCH, TIME, LATENTS[0])))
    changed = _changed_steps(
        [part[:, :1] for part in output.parameters] * TIME,
        [part[:, t : t + 1] for t in range(TIME) for part in output.parameters],
    )
    np.testing.assert_array_equal(changed, [0] if dense else [])


def test_the_output_reads_the_latents_from_the_topmost_down(make, dense, x):
    channels = sum(LATENTS) if dense else LATENTS[0]
    model = make(num_real=channels, num_binary=0, num_components=1, output_layers=0, dense=dense)
    head = model.observation.heads["mean"]
    head.kernel.assign(np.eye(channels)[np.newaxis])
    head.bias.assign(np.zeros(channels))
    x = np.random.default_rng(4).standard_normal((BATCH, TIME, channels)).astype(np.float32)
    output = model.call(x, temperature=0.0)
    read = output.posteriors[::-1] if dense else output.posteriors[:1]
    expected = np.concatenate([q.loc for q in read], axis=-1)
    np.testing.assert_allclose(output.parameters.mean[:, :, 0], expected, rtol=1e-6)


# Draws


def _record_draws(model, x, monkeypatch):
    """What each use of each latent got: {(layer from 1, use): [batch, time, units]}."""
    drawn = {}

    def spy(kind, index):
        layer = model.latent_layers[index]
        original = getattr(layer, kind)

        def call(d, above, *rest):
            if above is not None:
                drawn[index + 2, kind] = np.asarray(above)
            return original(d, above, *rest)

        monkeypatch.setattr(layer, kind, call)

    for index in range(len(model.latent_layers)):
        spy("prior", index)
        spy("posterior", index)
    output = model.call(x, (5, 6))
    read = np.split(output.parameters.mean[:, :, 0].numpy(), len(model.latent_layers), axis=-1)
    for layer, z in zip((3, 2, 1), read, strict=True):
        drawn[layer, "output"] = z
    noise = {}
    for (layer, use), z in drawn.items():
        q = output.posteriors[layer - 1]
        noise[layer, use] = (z - q.loc.numpy()) / q.scale.numpy()
    return drawn, noise


def _transparent(make, draws):
    """A model of nine features, whose predicted mean is the latents that the output reads.

    Its layers have one size: noise that two of them shared would be of one shape, and show.
    """
    model = make(
        num_real=9,
        num_binary=0,
        num_components=1,
        latent_sizes=(3, 3, 3),
        output_layers=0,
        posterior_draws=draws,
    )
    model.observation.heads["mean"].kernel.assign(np.eye(9)[np.newaxis])
    model.observation.heads["mean"].bias.assign(np.zeros(9))
    # Wide posteriors, so that the noise can be told from what it was added to.
    for layer in model.latent_layers:
        for network in (layer.prior_network, layer.posterior_network):
            last = network.sigma_layers[-1]
            last.kernel.assign(tf.zeros_like(last.kernel))
            last.bias.assign(np.full(layer.units, 2.0))
    return model


def test_each_use_of_a_latent_gets_the_draw_that_the_option_says(make, draws, monkeypatch):
    model = _transparent(make, draws)
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


def test_shared_and_independent_draws_differ_by_their_noise_alone(make, dense, x):
    shared, independent = (
        make(dense=dense, posterior_draws=draws) for draws in ("shared", "independent")
    )
    a, b = (m.score(x, LENGTHS, noise="zero") for m in (shared, independent))
    _assert_equal(a[:-1], b[:-1])
    # With independent draws a dense model has more latents, and so more terms of its weight.
    assert np.array_equal(a.log_weight, b.log_weight) == (not dense)
    a, b = shared.score(x, LENGTHS, (1, 2)), independent.score(x, LENGTHS, (1, 2))
    np.testing.assert_array_equal(a.kl[..., -1], b.kl[..., -1])  # nothing is drawn above the top
    assert np.all(a.kl[0, :, 0] != b.kl[0, :, 0])
    assert np.all(a.log_likelihood[0] != b.log_likelihood[0])


def test_the_same_seed_gives_the_same_terms_and_another_one_others(model, x):
    first, again, other = (model.score(x, LENGTHS, seed) for seed in ((1, 2), (1, 2), (2, 2)))
    _assert_equal(first, again)
    assert np.all(first.log_likelihood[0] != other.log_likelihood[0])
    assert np.all(first.kl[0, :, 0] != other.kl[0, :, 0])


def test_zero_noise_ignores_the_seed(model, x):
    first, other = (model.score(x, LENGTHS, seed, noise="zero") for seed in ((1, 2), (3, 4)))
    _assert_equal(first, other)


def test_reconstruction_is_what_posterior_draws_make_most_probable(model, x):
    rebuilt = model.reconstruct(x, (1, 2)).numpy()
    assert rebuilt.shape == x.shape
    parameters = model.call(x, (1, 2)).parameters
    best = np.argmax(parameters.component_logits, axis=-1)
    rows, columns = np.indices(best.shape)
    np.testing.assert_array_equal(rebuilt[..., :REAL], parameters.mean.numpy()[rows, columns, best])
    np.testing.assert_array_equal(rebuilt[..., REAL:], parameters.binary_logits.numpy() > 0)
    assert np.any(rebuilt != model.reconstruct(x, (3, 2)))
    soft = model.reconstruct(x, (1, 2), binarize=False).numpy()
    np.testing.assert_array_equal(soft[..., :REAL], rebuilt[..., :REAL])
    probabilities = 1 / (1 + np.exp(-parameters.binary_logits.numpy()))
    np.testing.assert_allclose(soft[..., REAL:], probabilities, rtol=1e-5)


def test_a_reconstruction_has_the_latents_that_are_scored(model, x):
    parameters = model.reconstruction_parameters(x, (1, 2))
    log_likelihood = model.observation.log_prob(parameters, x)
    lengths = np.full(len(x), x.shape[1], np.int32)
    expected = model.score(x, lengths, (1, 2)).log_likelihood
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-5)


# The terms of the bound


def test_terms_are_those_of_the_distributions_masked(model, x):
    terms, output = model.score(x, LENGTHS, (1, 2)), model.call(x, (1, 2))
    mask = np.arange(TIME) < LENGTHS[:, np.newaxis]
    expected = np.where(mask, model.observation.log_prob(output.parameters, x), 0)
    np.testing.assert_allclose(terms.log_likelihood, expected, rtol=1e-5, atol=1e-5)
    assert terms.log_likelihood.shape == (BATCH, TIME)
    assert terms.kl.shape == (BATCH, TIME, len(LATENTS))
    for index, (units, q, p) in enumerate(
        zip(LATENTS, output.posteriors, output.priors, strict=True)
    ):
        expected = np.where(mask[..., np.newaxis], _kl(q, p), 0)
        assert terms.kl_per_unit[index].shape == (BATCH, TIME, units)
        np.testing.assert_allclose(terms.kl_per_unit[index], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            terms.kl[..., index], np.sum(terms.kl_per_unit[index], axis=-1), rtol=1e-6
        )
    for term in (terms.log_likelihood, terms.kl[..., 0], terms.kl[..., -1]):
        np.testing.assert_array_equal(term.numpy() != 0, mask)
    assert np.all(np.stack(terms.kl)[mask] > 0)


def test_log_weight_is_log_p_of_all_over_log_q_of_the_latents(make, dense, draws, x):
    model = make(dense=dense, posterior_draws=draws, output_type="wavenet")
    for layer in model.latent_layers:
        for network in (layer.prior_network, layer.posterior_network):
            # Sigmas large enough that z tells how far from the mean it was drawn.
            last = network.sigma_layers[-1]
            last.kernel.assign(tf.zeros_like(last.kernel))
            last.bias.assign(np.linspace(0.5, 2.0, layer.units))
    terms, output = model.score(x, LENGTHS, (1, 2)), model.call(x, (1, 2))
    # As many draws of a layer are latents of the generative model as its KL counts in a bound.
    assert [len(zs) for zs in output.draws] == list(model.elbo_kl_weights)
    expected = model.observation.log_prob(output.parameters, x).numpy().astype(np.float64)
    for zs, q, p in zip(output.draws, output.posteriors, output.priors, strict=True):
        for i, z in enumerate(zs):
            assert not any(np.array_equal(z, other) for other in zs[:i])
            log_p, log_q = (_log_normal(z, distribution) for distribution in (p, q))
            expected += np.sum(log_p - log_q, axis=-1)
    expected[np.arange(TIME) >= LENGTHS[:, np.newaxis]] = 0
    assert terms.log_weight.shape == (BATCH, TIME)
    np.testing.assert_allclose(terms.log_weight, expected, rtol=1e-4, atol=2e-3)


def _log_normal(z, normal):
    z, mean, sigma = (np.asarray(t, np.float64) for t in (z, normal.loc, normal.scale))
    return -0.5 * ((z - mean) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)


def test_the_mean_of_log_weight_is_the_elbo(make, dense, draws, x):
    model = make(dense=dense, posterior_draws=draws, output_type="wavenet")
    # Many copies of two sequences are as many draws.
    copies, num_draws = 500, 4
    many = np.repeat(x, copies, axis=0)
    lengths = np.repeat(LENGTHS, copies)
    # Under "shared" draws of this network KL and log-likelihood depend on the draws, too: the two
    # means are of the same draws, and what is tested is their difference.
    differences = []
    for seed in range(num_draws):
        sums = [
            tf.reduce_sum(term, axis=1)
            for term in model.score(many, lengths, (seed, 9))
            if not isinstance(term, tuple)
        ]
        log_likelihood, kl, log_weight = sums
        elbo = log_likelihood - tf.linalg.matvec(kl, tf.constant(model.elbo_kl_weights))
        differences.append(np.reshape(log_weight - elbo, (BATCH, copies)))
    differences = np.concatenate(differences, axis=1).astype(np.float64)
    error = differences.std(axis=1) / np.sqrt(copies * num_draws)
    assert np.all(error > 0)
    assert np.all(np.abs(differences.mean(axis=1)) < 4 * error)


def test_log_weight_is_the_log_likelihood_where_q_is_p(make, dense, draws, x):
    model = make(dense=dense, posterior_draws=draws)
    for layer in model.latent_layers:
        for network in (layer.prior_network, layer.posterior_network):
            for variable in network.variables:
                variable.assign(tf.zeros_like(variable))
            bias = np.log(np.expm1(2.0))  # sigma 2: 1 / (1/4 + 1/4) = 2
            network.sigma_layers[-1].bias.assign(np.full(layer.units, bias))
    terms = model.score(x, LENGTHS, (1, 2))
    np.testing.assert_allclose(terms.log_weight, terms.log_likelihood, rtol=1e-5, atol=1e-4)


def test_log_weight_of_a_posterior_narrower_than_float32_resolves(make, x):
    # Sigma 5e-7 around 10, where neighbouring numbers are 1e-6 apart: what is drawn is 10 or one of
    # few others, from which log q could not be told.
    model = make(latent_sizes=(400,), latent_hidden_layers=0)
    (layer,) = model.latent_layers
    for network in (layer.prior_network, layer.posterior_network):
        for variable in network.variables:
            variable.assign(tf.zeros_like(variable))
        network.mean_layers[-1].bias.assign(np.full(400, 10.0))
        network.sigma_layers[-1].bias.assign(np.full(400, -20.0))  # clipped to 1e-3
    terms = model.score(x, LENGTHS, (1, 2))
    mask = np.arange(TIME) < LENGTHS[:, np.newaxis]
    elbo = terms.log_likelihood - tf.reduce_sum(terms.kl, axis=-1)
    excess = (terms.log_weight - elbo).numpy()[mask] / 400  # nats per unit
    # The mean of (noise^2 - 1) / 2 over 400 units.
    assert abs(excess.mean()) < 4 * np.sqrt(0.5 / 400 / mask.sum())


# Encoding once, scoring often and step by step


def test_encoding_and_scoring_are_score(model, x):
    encoded = model.encode(x)
    assert len(encoded.prior) == len(encoded.posterior) == len(LATENTS)
    for d in (*encoded.prior, *encoded.posterior):
        assert d.shape == (BATCH, TIME, FILTERS)
    for d_prior, d_posterior in zip(*encoded, strict=True):
        np.testing.assert_array_equal(d_prior[:, 1:], d_posterior[:, :-1])
    for seed, noise in (((1, 2), "sample"), ((3, 4), "sample"), ((1, 2), "zero")):
        _assert_equal(
            model.score_encoded(encoded, x, LENGTHS, seed, noise),
            model.score(x, LENGTHS, seed, noise),
        )


@pytest.mark.parametrize(
    ("dense", "draws", "output_type"),
    [(True, "independent", "wavenet"), (True, "shared", "conv1x1"), (False, "shared", "wavenet")],
)
def test_scoring_step_by_step_is_scoring_at_once(make, dense, draws, output_type, x, monkeypatch):
    model = make(dense=dense, posterior_draws=draws, output_type=output_type)
    start = 0  # of the noise of the steps that are asked for

    def table(shape, seed, **kwargs):
        time, batch, units = (np.asarray(n) for n in shape)
        rng = np.random.default_rng(np.abs(np.asarray(seed)))
        noise = rng.standard_normal((TIME, batch, units))
        return tf.constant(noise[start : start + time], tf.float32)

    monkeypatch.setattr(tf.random, "stateless_normal", table)
    encoded = model.encode(x)
    whole = model.score_encoded(encoded, x, LENGTHS, (1, 2))
    mask = np.arange(TIME) < LENGTHS[:, np.newaxis]
    state, steps = model.initial_output_state(BATCH), []
    for start in range(TIME):
        step = tf.nest.map_structure(lambda v, t=start: v[:, t : t + 1], (encoded, x, mask))
        terms, state = model.score_step(*step, state, (1, 2))
        steps.append(terms)
    stepped = tf.nest.map_structure(lambda *parts: np.concatenate(parts, axis=1), *steps)
    for a, b in zip(_arrays(stepped), _arrays(whole), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(a != 0, b != 0)


def test_rows_of_an_output_state_do_not_know_of_each_other(make, x):
    model = make(output_type="wavenet", output_layers=3)
    encoded, mask = model.encode(x), np.ones((BATCH, TIME), bool)

    def at(t, rows):
        return tf.nest.map_structure(lambda v: tf.gather(v[:, t : t + 1], rows), (encoded, x, mask))

    state = model.initial_output_state(BATCH)
    for t in range(4):
        _, state = model.score_step(*at(t, [0, 1]), state, (t, 2))
    same, _ = model.score_step(
        *at(4, [0, 0]), tf.nest.map_structure(lambda s: tf.gather(s, [0, 0]), state), (4, 2)
    )
    mixed, _ = model.score_step(*at(4, [0, 0]), state, (4, 2))
    # The second row reads the past of its own latents.
    np.testing.assert_array_equal(same.log_likelihood[0], mixed.log_likelihood[0])
    assert same.log_likelihood[1] != mixed.log_likelihood[1]


# Released floors


def test_released_floors_reach_kl_and_likelihood(make, x):
    exact, floored = (make(released_floors=floors) for floors in (False, True))
    a, b = (m.score(x, LENGTHS, (1, 2)) for m in (exact, floored))
    for one, other in zip(_arrays(a), _arrays(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
    for m in (exact, floored):
        head = m.observation.heads["binary"]
        head.kernel.assign(tf.zeros_like(head.kernel))
        head.bias.assign([-60.0])
        top = m.latent_layers[-1]
        for network in (top.prior_network, top.posterior_network):
            for variable in network.variables:
                variable.assign(tf.zeros_like(variable))
            network.sigma_layers[-1].bias.assign(np.full(LATENTS[-1], -20.0))  # clipped to 1e-3
    x[..., REAL:] = 1.0
    a, b = (m.score(x, LENGTHS, (1, 2)) for m in (exact, floored))
    np.testing.assert_allclose(
        (b.log_likelihood - a.log_likelihood)[0], np.full(TIME, 60 + np.log(1e-5)), atol=1e-3
    )
    # The posterior's sigma is 5e-7, and counts as 1e-6.
    np.testing.assert_allclose(
        (a.kl - b.kl)[0, :, -1], np.full(TIME, LATENTS[-1] * np.log(2)), rtol=1e-4
    )


@pytest.mark.parametrize("noise", ["zero", "sample"])
def test_more_padding_and_what_it_holds_change_no_term(model, x, noise):
    terms = model.score(x, LENGTHS, noise=noise)
    padded = np.pad(x, [(0, 0), (0, 5), (0, 0)])
    for filling in (0.0, 3.0):
        padded[0, LENGTHS[0] :] = padded[1, LENGTHS[1] :] = filling
        more = model.score(padded, LENGTHS, noise=noise)
        for old, new in zip(_arrays(terms), _arrays(more), strict=True):
            np.testing.assert_allclose(new[:, :TIME], old, rtol=1e-5, atol=1e-5)
            assert not np.any(new[:, TIME:])


@pytest.mark.parametrize("precision", ["std", "variance"])
def test_kl_is_zero_where_the_networks_agree_on_the_prior(make, precision, x):
    model = make(posterior_scale=precision)
    for layer in model.latent_layers:
        for network in (layer.prior_network, layer.posterior_network):
            for variable in network.variables:
                variable.assign(tf.zeros_like(variable))
            bias = np.log(np.expm1(2.0))  # sigma 2: 1 / (1/4 + 1/4) = 2
            network.sigma_layers[-1].bias.assign(np.full(layer.units, bias))
    terms = model.score(x, LENGTHS, (1, 2))
    if precision == "std":
        np.testing.assert_allclose(terms.kl, np.zeros_like(terms.kl), atol=1e-5)
    else:  # the posterior's variance is half the prior's
        expected = (np.log(2) / 2 + 1 / 4 - 1 / 2) * np.asarray(LATENTS)
        np.testing.assert_allclose(terms.kl[0], np.tile(expected, (TIME, 1)), rtol=1e-5)


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
    model = _stcn(**(SIZES | {"dense": dense, "posterior_draws": draws}))
    assert model.elbo_kl_weights == expected
    assert model.is_released_objective_a_bound == (sum(expected) == 3)


def test_score_is_the_same_inside_a_graph(make, x):
    model = make(posterior_draws="independent")

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, REAL + BINARY], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([2], tf.int32),
        ]
    )
    def score(x, lengths, seed):
        return model.score(x, lengths, seed)

    graph, eager = score(x, LENGTHS, (1, 2)), model.score(x, LENGTHS, (1, 2))
    for a, b in zip(_arrays(graph), _arrays(eager), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_dilations_and_filters_of_the_latent_networks(make, x):
    model = make(dilations=(1, 3, 5, 7, 1, 3), latent_filters=9)
    assert model.stack.dilations == (1, 3, 5, 7, 1, 3)
    assert model.receptive_field == 1 + 20
    for layer in model.latent_layers:
        for network in (layer.prior_network, layer.posterior_network):
            assert [conv.filters for conv in network.mean_layers] == [9, layer.units]
    default = make(latent_filters=0)
    assert default.stack.dilations == (1, 2) * 3
    assert default.latent_layers[0].prior_network.mean_layers[0].filters == FILTERS
    # Another reach: the first frame reaches the last prediction of the one model alone.
    changed = x.copy()
    changed[:, 0] += 1.0
    for m, reaches in ((model, True), (make(dilations=(1,) * 6), False)):
        last = [
            m.call(v, latents="prior", temperature=0.0).parameters.mean[:, -1] for v in (x, changed)
        ]
        assert np.any(last[0] != last[1]) == reaches


@pytest.mark.parametrize(("real", "binary"), [(3, 0), (0, 2)])
def test_only_real_and_only_binary_features(make, real, binary):
    model = make(num_real=real, num_binary=binary, num_components=1)
    assert model.num_features == real + binary
    rng = np.random.default_rng(9)
    x = rng.integers(0, 2, (BATCH, TIME, real + binary)).astype(np.float32)
    terms = model.score(x, LENGTHS)
    assert np.all(np.isfinite(terms.log_likelihood))
    if binary:
        assert np.all(terms.log_likelihood <= 0)
        assert np.all(terms.log_likelihood[0] < 0)


# Step by step


def test_predict_step_gives_what_the_whole_pass_gives(model, x):
    whole = model.call(x, latents="prior", temperature=0.0).parameters
    state, previous, steps = model.initial_state(BATCH), tf.zeros([BATCH, REAL + BINARY]), []
    for t in range(TIME):
        parameters, state = model.predict_step(previous, state, (t, 0), temperature=0.0)
        steps.append(parameters)
        previous = x[:, t]
    stepped = tf.nest.map_structure(lambda *parts: np.concatenate(parts, axis=1), *steps)
    for a, b in zip(stepped, whole, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_predict_step_with_wavenet_output_layers(make, dense, draws, x):
    model = make(
        dense=dense,
        posterior_draws=draws,
        output_type="wavenet",
        output_layers=3,
        output_kernel_size=3,
    )
    whole = model.call(x, latents="prior", temperature=0.0).parameters
    state, previous, steps = model.initial_state(BATCH), tf.zeros([BATCH, REAL + BINARY]), []
    for t in range(TIME):
        parameters, state = model.predict_step(previous, state, (t, 0), temperature=0.0)
        steps.append(parameters)
        previous = x[:, t]
    for a, b in zip(zip(*steps, strict=True), whole, strict=True):
        np.testing.assert_allclose(np.concatenate(a, axis=1), b, rtol=1e-4, atol=1e-5)


def test_predict_step_draws_by_its_seed(model, x):
    def mean(seed):
        state = model.initial_state(BATCH)
        return model.predict_step(x[:, 0], state, seed)[0].mean.numpy()

    np.testing.assert_array_equal(mean((1, 2)), mean((1, 2)))
    assert np.any(mean((1, 2)) != mean((1, 3)))


# Arithmetic


def test_bfloat16_changes_little_and_leaves_weights_and_distributions_in_float32(make, x):
    exact, rounded = make(), make(compute_dtype="mixed_bfloat16")
    assert {v.dtype for v in rounded.variables} == {"float32"}
    assert rounded.stack.blocks[0].filter_conv.compute_dtype == "bfloat16"
    output = rounded.call(x, temperature=0.0)
    terms = rounded.score(x, LENGTHS, noise="zero")
    assert {a.dtype for a in _arrays((output, terms))} == {np.dtype(np.float32)}
    # A bfloat16 number is good to 2^-9; some 15 layers in a row, of sums of a few terms each, come
    # to a few percent at worst.
    reference = exact.score(x, LENGTHS, noise="zero")
    for a, b in zip(_arrays(terms), _arrays(reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.15, atol=0.15)
    assert np.all(terms.log_likelihood[0] != reference.log_likelihood[0])
    # x itself is not rounded: 1.001 and 1 are one number in bfloat16.
    x[:, -1, 0] = 1.0
    nearly = x.copy()
    nearly[:, -1, 0] = 1.001
    first, second = (rounded.observation.log_prob(output.parameters, v) for v in (x, nearly))
    assert np.all(first[:, -1] != second[:, -1])


def test_bfloat16_steps_as_it_scores(make, x):
    model = make(compute_dtype="mixed_bfloat16")
    whole = model.call(x, latents="prior", temperature=0.0).parameters
    state, previous = model.initial_state(BATCH), tf.zeros([BATCH, REAL + BINARY])
    for t in range(TIME):
        parameters, state = model.predict_step(previous, state, (0, 0), temperature=0.0)
        previous = x[:, t]
        for a, b in zip(parameters, whole, strict=True):
            # Equal up to the last bit of bfloat16 here and there.
            np.testing.assert_allclose(a[:, 0], b[:, t], rtol=0.05, atol=0.05)


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"posterior_draws": "same"},
            "posterior_draws must be 'shared' or 'independent', got 'same'",
        ),
        ({"posterior_scale": "sigma"}, "precision must be 'std' or 'variance', got 'sigma'"),
        ({"output_type": "lstm"}, "kind must be 'conv1x1' or 'wavenet', got 'lstm'"),
        ({"num_real": 0, "num_binary": 0}, "need a feature; got 0 real and 0 binary ones"),
    ],
)
def test_unknown_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        _stcn(**(SIZES | changes))


def test_unknown_noise_is_refused(model, x):
    with pytest.raises(ValueError, match="^noise must be 'sample' or 'zero', got 'none'$"):
        model.score(x, LENGTHS, noise="none")


def test_unknown_latents_are_refused(model, x):
    with pytest.raises(ValueError, match="^latents must be 'posterior' or 'prior', got 'both'$"):
        model.call(x, latents="both")
