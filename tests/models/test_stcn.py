import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers import Observation
from stcn_tf.models import STCN
from tests.contract import (
    arrays,
    assert_close,
    assert_same,
    changed_steps,
    check_model,
    outputs_of,
)
from tests.stcn_models import (
    BATCH,
    BINARY,
    COMPONENTS,
    FILTERS,
    LATENTS,
    LENGTHS,
    MASK,
    REAL,
    SIZES,
    TIME,
    answer,
    make_stcn,
    moments,
    networks_of,
    passed,
    stcn_frames,
)

# The paper's model for handwriting, with the latent sizes left open.
HANDWRITING = SIZES | {
    "num_filters": 256,
    "blocks_per_layer": 6,
    "latent_hidden_layers": 2,
    "output_layers": 5,
    "output_filters": 256,
}


@pytest.fixture(scope="module", params=[True, False], ids=["dense", "stcn"])
def dense(request):
    return request.param


@pytest.fixture(scope="module")
def model(dense):
    return make_stcn(dense=dense)


@pytest.fixture
def x():
    return stcn_frames()


def _kl(q, p):
    mean_q, sigma_q, mean_p, sigma_p = (
        t.numpy().astype(np.float64) for t in (q.loc, q.scale, p.loc, p.scale)
    )
    squared = (sigma_q**2 + (mean_q - mean_p) ** 2) / (2 * sigma_p**2)
    return np.log(sigma_p / sigma_q) + squared - 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"features": (REAL, BINARY, COMPONENTS)},
        {"features": (0, 2, 1), "output_type": "wavenet", "output_kernel_size": 3},
    ],
    ids=["dense", "dense-wavenet"],
)
def test_it_is_a_model(settings):
    settings = {"blocks_per_layer": 1, "latent_sizes": (4, 3), **settings}
    check_model(lambda **changes: make_stcn(**settings | changes))


@pytest.mark.parametrize(
    "settings",
    [
        {"dense": False, "features": (3, 0, 1), "posterior_scale": "variance", "kernel_size": 3},
        {"latent_prior": "unit_top", "latent_recursion": False},
        {"latent_prior": "static"},
    ],
    ids=["stcn", "unit", "static"],
)
@pytest.mark.parametrize("is_variant", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_so_are_its_variants(settings, is_variant):
    settings = {"blocks_per_layer": 1, "latent_sizes": (4, 3), **settings}
    check_model(
        lambda **changes: make_stcn(**settings | changes),
        does_remember=settings.get("latent_prior") != "static",
        is_variant=is_variant,
    )


# Size and names


@pytest.mark.parametrize(
    ("latent_sizes", "expected"),
    [((32, 16, 8, 4, 2), 12_626_781), ((32, 16, 8, 5, 2), 12_629_089)],
)
def test_parameters_of_the_handwriting_models(latent_sizes, expected):
    observation = Observation(REAL, BINARY, 20, name="observation")
    model = STCN(observation=observation, **HANDWRITING | {"latent_sizes": latent_sizes})
    # Only shapes are of interest here; without values, 12 million weights cost nothing.
    with keras.StatelessScope():
        model.build()
        assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == expected
    assert model.receptive_field == 316


def test_variable_paths_are_what_checkpoints_hold():
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
    for model in (make_stcn(), make_stcn()):
        paths = [v.path for v in model.weights]
        assert len(set(paths)) == len(paths)
        assert sorted(paths) == sorted(expected)
        assert len(model.trainable_variables) == len(paths)


@pytest.mark.parametrize("output_type", ["conv1x1", "wavenet"])
def test_receptive_field_of_a_prediction_from_the_posterior_means(output_type):
    # Through latents of earlier steps, which have seen frames still earlier.
    model = make_stcn(
        latent_sizes=(4,), latent_hidden_layers=0, output_type=output_type, output_kernel_size=3
    )
    for variable in model.weights:
        is_bias = variable.name == "bias"
        variable.assign(tf.fill(variable.shape, 0.1 if is_bias else 0.05))
    memory = 4 if output_type == "wavenet" else 0
    assert model.receptive_field == 1 + 3 + memory
    x = tf.zeros([1, 20, 3])
    for latents, last in (("prior", 18), ("posterior", 19)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            _, parameters = passed(model, x, temperature=0.0, latents=latents)
            output = tf.reduce_sum(parameters.binary_logits[:, -1])
        reached = np.flatnonzero(np.any(tape.gradient(output, x)[0], axis=-1))
        np.testing.assert_array_equal(reached, range(19 - model.receptive_field, last + 1))


def test_receptive_field_of_a_prediction():
    # Without ReLUs, which let nothing through where they are shut.
    model = make_stcn(kernel_size=3, latent_sizes=(4, 3), latent_hidden_layers=0, output_layers=0)
    assert model.receptive_field == 13  # 1 + 2 * (1 + 2) * 2
    x = tf.constant(np.random.default_rng(3).standard_normal((1, 20, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        _, parameters = passed(model, x, temperature=0.0, latents="prior")
        output = tf.reduce_sum(parameters.mean[:, -1] ** 2)
    reached = np.flatnonzero(np.any(tape.gradient(output, x)[0], axis=-1))
    np.testing.assert_array_equal(reached, np.arange(19 - 13, 19))  # not x_t itself, at 19


# What sees what


@pytest.mark.parametrize("output_type", ["conv1x1", "wavenet"])
def test_predictions_from_the_prior_ignore_the_frame_itself(dense, output_type, x):
    model = make_stcn(dense=dense, output_type=output_type)
    before, predicted = passed(model, x, latents="prior")
    assert before.posteriors is None
    x[:, 6] += 1.0
    after, again = passed(model, x, latents="prior")
    changed = changed_steps(moments(before.priors), moments(after.priors))
    np.testing.assert_array_equal(changed, range(7, TIME))
    np.testing.assert_array_equal(changed_steps(predicted, again), range(7, TIME))


@pytest.mark.parametrize(
    ("output_type", "output_layers", "memory"),
    [("conv1x1", 2, 0), ("wavenet", 0, 0), ("wavenet", 1, 1), ("wavenet", 3, 3)],
)
def test_latents_reach_later_steps_through_wavenet_output_layers(
    x, monkeypatch, output_type, output_layers, memory
):
    model = make_stcn(output_type=output_type, output_layers=output_layers)
    assert model.do_latents_reach_across_steps == (memory > 0)
    before, predicted = passed(model, x)
    original = model._latent_noise

    def perturbed(seed, places, temperature):
        return [
            layer + tf.cast(places.steps == 4, tf.float32)[..., tf.newaxis]
            for layer in original(seed, places, temperature)
        ]

    monkeypatch.setattr(model, "_latent_noise", perturbed)
    after, again = passed(model, x)
    assert_same(moments(after.priors)[-1], moments(before.priors)[-1])
    drawn = [[draw.output for draw in latents.draws] for latents in (before, after)]
    np.testing.assert_array_equal(changed_steps(*drawn), [4])
    changed = changed_steps(moments(before.posteriors), moments(after.posteriors))
    np.testing.assert_array_equal(changed, [4])
    np.testing.assert_array_equal(changed_steps(predicted, again), range(4, 5 + memory))


def test_the_topmost_prior_ignores_the_frame_and_the_posterior_sees_it(model, x):
    before, predicted = passed(model, x)
    x[:, 6] += 1.0
    after, again = passed(model, x)
    priors, posteriors = (
        [
            changed_steps(*map(moments, ([old], [new])))
            for old, new in zip(getattr(before, part), getattr(after, part), strict=True)
        ]
        for part in ("priors", "posteriors")
    )
    np.testing.assert_array_equal(priors[-1], range(7, TIME))
    # The priors below read a draw of a posterior, and so does the output.
    for steps in (*posteriors, *priors[:-1], changed_steps(predicted, again)):
        np.testing.assert_array_equal(steps, range(6, TIME))


def test_the_first_prior_is_the_answer_to_one_zero_frame(model, x):
    d = outputs_of(model.stack, tf.zeros([BATCH, 1, REAL + BINARY]))[-1].residual
    top = model.latent_layers[-1]
    prior = passed(model, x)[0].priors[-1]
    expected = top.prior(top.begin_prior(d), None, prior.loc[:, :1])
    np.testing.assert_allclose(prior.loc[:, :1], expected.loc, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prior.scale[:, :1], expected.scale, rtol=1e-5, atol=1e-6)


def test_each_latent_reads_the_last_block_of_its_group(model, x):
    blocks = outputs_of(model.stack, np.pad(x, [(0, 0), (1, 0), (0, 0)]))
    state = model.start(BATCH)
    encoded = model.encode(x, np.full(BATCH, TIME, np.int32), state).steps
    latents, _ = passed(model, x)
    assert len(encoded.prior) == len(encoded.posterior) == len(LATENTS)
    for layer in range(len(LATENTS)):
        d = blocks[2 * layer + 1].residual
        assert d.shape == (BATCH, TIME + 1, FILTERS)
        networks = model.latent_layers[layer]
        of_prior = networks.begin_prior(d[:, :-1])
        of_posterior = networks.begin_posterior(d[:, 1:])
        assert_same(encoded.prior[layer], of_prior)
        assert_same(encoded.posterior[layer], of_posterior)
        above = latents.draws[layer + 1].output if layer + 1 < len(LATENTS) else None
        prior = networks.prior(of_prior, above, latents.priors[layer].loc)
        posterior = networks.posterior(of_posterior, above, prior)
        read = (latents.priors[layer], latents.posteriors[layer])
        assert_close(moments(read), moments((prior, posterior)), 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("latent_prior", "latent_recursion", "reads_past", "reads_above"),
    [
        ("dynamic", True, [True, True, True], [True, True, False]),
        ("unit_top", True, [True, True, False], [True, True, False]),
        ("static", True, [False, False, False], [True, True, False]),
        ("dynamic", False, [True, True, True], [False, False, False]),
        ("static", False, [False, False, False], [False, False, False]),
    ],
)
def test_what_each_prior_reads(latent_prior, latent_recursion, reads_past, reads_above, x):
    """Other frames change what reads the past, other noise what reads a draw above."""
    model = make_stcn(
        latent_prior=latent_prior, latent_recursion=latent_recursion, latent_sizes=(4, 3, 2)
    )
    lengths = np.full(BATCH, TIME, np.int32)

    def priors(x, seed):
        state = model.start(BATCH)
        steps = model.encode(x, lengths, state).steps
        places = model.places_of(state, x)
        # From the prior, so that frames reach draws through priors alone.
        return model.draw_latents(steps.prior, None, places, seed, 1.0).priors

    first, other_noise = priors(x, (0, 1)), priors(x, (0, 2))
    for layer in range(3):
        has_changed = len(changed_steps(moments([first[layer]]), moments([other_noise[layer]])))
        assert bool(has_changed) == reads_above[layer]
    other_past = priors(x + 1.0, (0, 1))
    for layer in range(3):
        reads_it = reads_past[layer] or (reads_above[layer] and any(reads_past[layer + 1 :]))
        has_changed = len(changed_steps(moments([first[layer]]), moments([other_past[layer]])))
        assert bool(has_changed) == reads_it


def test_another_kind_of_prior_is_refused():
    with pytest.raises(ValueError, match="latent_prior must be 'dynamic', 'unit_top' or 'static'"):
        make_stcn(latent_prior="fixed")


@pytest.mark.parametrize("latents", ["posterior", "prior"])
def test_only_the_dense_output_reads_the_latents_above_the_lowest(dense, latents, x):
    model = make_stcn(dense=dense)
    for variable in model.latent_layers[0].variables:  # z^1 becomes 0, whatever is around it
        variable.assign(tf.zeros_like(variable))
    drawn, parameters = passed(model, x, temperature=0.0, latents=latents)
    np.testing.assert_array_equal(drawn.priors[0].loc, np.zeros((BATCH, TIME, LATENTS[0])))
    varies = any(np.ptp(part, axis=1).max() > 1e-3 for part in arrays(parameters))
    assert varies == dense


def test_the_output_reads_the_latents_from_the_topmost_down(dense):
    channels = sum(LATENTS) if dense else LATENTS[0]
    model = make_stcn(features=(channels, 0, 1), output_layers=0, dense=dense)
    head = model.observation.heads["mean"]
    head.kernel.assign(np.eye(channels)[np.newaxis])
    head.bias.assign(np.zeros(channels))
    x = np.random.default_rng(4).standard_normal((BATCH, TIME, channels)).astype(np.float32)
    drawn, parameters = passed(model, x, temperature=0.0)
    read = drawn.posteriors[::-1] if dense else drawn.posteriors[:1]
    expected = np.concatenate([q.loc for q in read], axis=-1)
    np.testing.assert_allclose(parameters.mean[:, :, 0], expected, rtol=1e-6)


# The terms of the bound


def test_terms_are_those_of_the_distributions_masked(model, x):
    terms = model.score(x, LENGTHS, (1, 2))
    latents, parameters = passed(model, x)
    assert_close(terms.parameters, parameters, 1e-5, 1e-5)
    for of_units, q, p in zip(terms.kl_per_unit, latents.posteriors, latents.priors, strict=True):
        expected = np.where(MASK[..., np.newaxis], _kl(q, p), 0)
        np.testing.assert_allclose(of_units, expected, rtol=1e-4, atol=1e-4)
    assert np.all(terms.kl.numpy()[MASK] > 0)


def test_log_weight_is_the_log_likelihood_where_q_is_p(dense, x):
    model = make_stcn(dense=dense)
    for network in networks_of(model):
        answer(network, 0.0, 2.0)  # sigma 2: 1 / (1/4 + 1/4) = 2
    terms = model.score(x, LENGTHS, (1, 2))
    np.testing.assert_allclose(terms.log_weight, terms.log_likelihood, rtol=1e-5, atol=1e-4)


def test_log_weight_of_a_posterior_narrower_than_float32_resolves(x):
    # Sigma 5e-7 around 10, where neighbouring numbers are 1e-6 apart: what is drawn is 10 or one of
    # few others, from which log q could not be told.
    model = make_stcn(latent_sizes=(400,), latent_hidden_layers=0)
    for network in networks_of(model):
        answer(network, 10.0, 1e-9)  # clipped to 1e-3
    terms = model.score(x, LENGTHS, (1, 2))
    elbo = terms.log_likelihood - tf.reduce_sum(terms.kl, axis=-1)
    excess = (terms.log_weight - elbo).numpy()[MASK] / 400  # nats per unit
    # The mean of (noise^2 - 1) / 2 over 400 units.
    assert abs(excess.mean()) < 4 * np.sqrt(0.5 / 400 / MASK.sum())


@pytest.mark.parametrize("reading", ["std", "variance"])
def test_kl_is_zero_where_the_networks_agree_on_the_prior(reading, x):
    model = make_stcn(posterior_scale=reading)
    for network in networks_of(model):
        answer(network, 0.0, 2.0)  # sigma 2: 1 / (1/4 + 1/4) = 2
    terms = model.score(x, LENGTHS, (1, 2))
    if reading == "std":
        np.testing.assert_allclose(terms.kl, np.zeros_like(terms.kl), atol=1e-5)
    else:  # the posterior's variance is half the prior's
        expected = (np.log(2) / 2 + 1 / 4 - 1 / 2) * np.asarray(LATENTS)
        np.testing.assert_allclose(terms.kl[0], np.tile(expected, (TIME, 1)), rtol=1e-5)


def test_a_step_of_generation_is_one_of_a_whole_pass_with_latents_from_the_prior(model, x):
    _, whole = passed(model, x, (5, 6), latents="prior")
    state = model.start(BATCH)
    for t in range(TIME):
        parameters, pending = model.predict_next(state, (5, 6))
        expected = tf.nest.map_structure(lambda part, t=t: part[:, t : t + 1], whole)
        assert_close(parameters, expected)
        state = model.advance(pending, x[:, t : t + 1])


# Options


def test_dilations_and_filters_of_the_latent_networks(x):
    model = make_stcn(dilations=(1, 3, 5, 7, 1, 3), latent_filters=9)
    assert model.stack.dilations == (1, 3, 5, 7, 1, 3)
    assert model.receptive_field == 1 + 20
    for network in networks_of(model):
        assert [conv.filters for conv in network.mean_layers] == [9, network.units]
    default = make_stcn(latent_filters=0)
    assert default.stack.dilations == (1, 2) * 3
    assert default.latent_layers[0].prior_network.mean_layers[0].filters == FILTERS
    # Another reach: the first frame reaches the last prediction of the one model alone.
    changed = x.copy()
    changed[:, 0] += 1.0
    for m, reaches in ((model, True), (make_stcn(dilations=(1,) * 6), False)):
        last = [passed(m, v, (0, 0), 0.0, latents="prior")[1].mean[:, -1] for v in (x, changed)]
        assert np.any(last[0] != last[1]) == reaches


def test_frames_are_not_rounded_where_convolutions_are(x):
    model = make_stcn(compute_dtype="mixed_bfloat16")
    assert model.stack.blocks[0].filter_conv.compute_dtype == "bfloat16"
    _, parameters = passed(model, x)
    # 1.001 and 1 are one number in bfloat16.
    x[:, -1, 0] = 1.0
    nearly = x.copy()
    nearly[:, -1, 0] = 1.001
    first, second = (model.observation.log_prob(parameters, v) for v in (x, nearly))
    assert np.all(first[:, -1] != second[:, -1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"posterior_scale": "sigma"},
            "posterior_scale must be 'std' or 'variance', got 'sigma'",
        ),
        ({"output_type": "lstm"}, "kind must be 'conv1x1' or 'wavenet', got 'lstm'"),
    ],
)
def test_unknown_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_stcn(**changes)
