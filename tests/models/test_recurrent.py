"""The recurrent models against their equations, written once more in NumPy, and their contract."""

import os

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import bounds
from stcn_tf.layers.observation import Observation
from stcn_tf.models.bi_lstm import VariationalBiLSTM
from stcn_tf.models.f_srnn import FSRNN
from stcn_tf.models.rnn import RNN
from stcn_tf.models.srnn import SRNN
from stcn_tf.models.vrnn import VRNN
from stcn_tf.models.z_forcing import ZForcing
from tests.contract import SEED, assert_same, check_model, frames, randomize
from tests.recurrent_models import FORWARD, GOLDEN, weights_of, write_golden

SIZES = {
    RNN: {"recurrent_units": 5, "input_units": 4, "output_units": 6},
    VRNN: {
        "recurrent_units": 5,
        "input_units": 4,
        "latent_size": 3,
        "latent_input_units": 6,
        "latent_units": 7,
        "output_units": 8,
    },
    SRNN: {
        "recurrent_units": 5,
        "input_units": 4,
        "latent_size": 3,
        "latent_units": 7,
        "output_units": 8,
    },
    ZForcing: {"recurrent_units": 5, "input_units": 4, "latent_size": 3, "latent_units": 7},
    FSRNN: {"recurrent_units": 5, "input_units": 4, "latent_size": 3, "latent_units": 7},
    VariationalBiLSTM: {
        "recurrent_units": 5,
        "latent_size": 3,
        "latent_units": 7,
        "output_units": 4,
    },
}


def make(kind, features=(2, 1, 2), **settings):
    observation = Observation(*features, name="observation")
    model = kind(observation=observation, **SIZES[kind] | settings)
    model.build()
    return randomize(model, scale=0.3)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (RNN, {}),
        (VRNN, {"features": (0, 2, 1)}),
        (SRNN, {}),
        (ZForcing, {"prior_sees_last_frame": True, "features": (3, 0, 1)}),
        (FSRNN, {}),
        (VariationalBiLSTM, {}),
    ],
    ids=["rnn", "vrnn", "srnn", "z", "f", "bi-lstm"],
)
def test_they_are_models(kind, settings):
    check_model(lambda **changes: make(kind, **settings | changes))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (RNN, {"first_frame": "given", "recurrent_layers": 2, "output_units": 9}),
        (SRNN, {"smoothing": False, "residual_posterior": False, "hidden_layers": 1}),
    ],
    ids=["given", "filtering"],
)
@pytest.mark.parametrize("is_variant", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_so_are_their_variants(kind, settings, is_variant):
    check_model(lambda **changes: make(kind, **settings | changes), is_variant=is_variant)


LENGTHS = np.array([9, 4, 1], np.int32)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (RNN, {"hidden_layers": 2, "recurrent_layers": 3}),
        (VRNN, {}),
        (VRNN, {"residual_posterior": True, "hidden_layers": 2}),
        (SRNN, {}),
        (SRNN, {"smoothing": False, "residual_posterior": False}),
        (ZForcing, {"auxiliary_weight": 0.5, "backward_weight": 0.25}),
        (ZForcing, {"prior_sees_last_frame": True}),
        (FSRNN, {}),
        (VariationalBiLSTM, {"auxiliary_weight": 0.5, "forward_weight": 0.25}),
    ],
    ids=["rnn", "vrnn", "residual", "srnn", "filtering", "z", "z-last", "f", "bi-lstm"],
)
def test_their_equations(kind, settings):
    model = make(kind, **settings)
    x = frames(model, len(LENGTHS), 9)
    x[np.arange(9) >= LENGTHS[:, np.newaxis]] = 0.0
    terms = model.score(x, LENGTHS, SEED)
    for row, length in enumerate(LENGTHS):
        noise = _noise_of(model, row, length)
        expected = FORWARD[kind.__name__](weights_of(model), x[row, :length], noise, settings)
        for name, values in expected.items():
            found = getattr(terms, name)[row, :length].numpy()
            np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", SIZES)
def test_golden_values(kind):
    """What the NumPy models computed once; with STCN_WRITE_GOLDEN set the files are made anew."""
    if os.environ.get("STCN_WRITE_GOLDEN"):
        model, name = make(kind), kind.__name__
        write_golden(name, model, frames(model, 1, 7)[0], _noise_of(model, 0, 7))
    golden = np.load(GOLDEN / f"{kind.__name__}.npz")
    model = make(kind)
    weights = weights_of(model)
    assert {f"weights/{path}" for path in weights} <= set(golden.files)
    for weight in model.weights:
        weight.assign(golden[f"weights/{weight.path.split('/', 1)[1]}"])
    x = golden["x"].astype(np.float32)
    terms = model.score(x[np.newaxis], [len(x)], SEED)
    expected = [name for name in golden.files if name.startswith("expected/")]
    assert expected
    for name in expected:
        found = getattr(terms, name.removeprefix("expected/"))[0].numpy()
        bound = 1e-5 * (1.0 + np.abs(golden[name]))
        assert np.all(np.abs(found - golden[name]) <= bound), name


def _noise_of(model, row, length):
    """The standard normal numbers of a row, [length, units]."""
    state = model.start(row + 1)
    x = np.zeros((row + 1, length, model.num_features), np.float32)
    if not model.latent_sizes:
        return None
    return model._standard(state, x, SEED, 1.0)[row].numpy().astype(np.float64)


def test_no_cost_is_part_of_a_reported_number():
    plain, costly = (
        make(ZForcing, auxiliary_weight=weight, backward_weight=weight) for weight in (0.0, 2.0)
    )
    x = frames(plain, 2, 7)
    lengths = np.array([7, 3], np.int32)
    one, other = (model.score(x, lengths, SEED) for model in (plain, costly))
    for name in ("log_likelihood", "kl", "log_weight"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert not np.any(one.auxiliary)
    assert np.all(other.auxiliary.numpy()[0] != 0)
    assert not np.any(other.auxiliary.numpy()[1, 3:])


def test_the_backward_state_is_a_constant_of_the_cost_that_predicts_it():
    """Its LSTM has a gradient of it all the same: z_t, which predicts it, was drawn with it."""
    model = make(ZForcing, auxiliary_weight=1.0, backward_weight=0.0)
    x = tf.constant(frames(model, 2, 6))
    kernel = model.seeing.cell.kernel.value
    with tf.GradientTape() as tape:
        cost = tf.reduce_sum(model.score(x, tf.constant([6, 6]), SEED).auxiliary)
    through_z = tape.gradient(cost, kernel)
    assert np.any(through_z)
    # The posterior's mean and sigma without b_t: nothing is left.
    units = model.recurrence.units
    hidden = model.posterior_network.networks[0].hidden[0].kernel
    hidden.assign(tf.concat([hidden[:, :units], tf.zeros_like(hidden[:, units:])], axis=1))
    with tf.GradientTape() as tape:
        cost = tf.reduce_sum(model.score(x, tf.constant([6, 6]), SEED).auxiliary)
    assert not np.any(tape.gradient(cost, kernel))


@pytest.mark.parametrize("skip_gradient", [True, False])
def test_the_gradient_of_what_is_random_flows_in_half_of_the_steps(skip_gradient):
    model = make(VariationalBiLSTM, skip_gradient=skip_gradient, auxiliary_weight=0.0)
    x = frames(model, 40, 5)
    # Of b_t alone: what reaches it comes through the posterior.
    lengths = np.full(40, 5, np.int32)
    state = model.start(40)
    encoded = model.encode(x, lengths, state)
    seen = tf.constant(encoded.steps.seen)
    with tf.GradientTape() as tape:
        tape.watch(seen)
        steps = encoded._replace(steps=encoded.steps._replace(seen=seen))
        terms, _ = model.observe(steps, x, lengths, state, SEED)
        loss = tf.reduce_sum(terms.log_likelihood) - tf.reduce_sum(terms.kl)
    flows = np.any(tape.gradient(loss, seen) != 0, axis=-1)
    if not skip_gradient:
        assert np.all(flows)
    else:
        assert abs(flows.mean() - 0.5) < 4 * 0.5 / np.sqrt(flows.size)
    # What is computed does not depend on it.
    other = make(VariationalBiLSTM, skip_gradient=not skip_gradient, auxiliary_weight=0.0)
    assert_same(other.score(x, lengths, SEED), model.score(x, lengths, SEED))


@pytest.mark.parametrize("name", ["iwae", "fivo"])
def test_every_bound(name):
    """In graphs of open sizes; with several draws they are no looser than the mean."""
    with_latents = [kind for kind, sizes in SIZES.items() if "latent_size" in sizes]
    for kind in with_latents:
        model = make(kind)
        x, lengths = frames(model, 200, 6), np.tile([6, 3], 100).astype(np.int32)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, model.num_features]),
                tf.TensorSpec([None], tf.int32),
            ],
            autograph=False,
        )
        def score(x, lengths, model=model):
            scored = bounds.score(name, model, x, lengths, SEED, 4)
            return tf.reduce_mean(scored.bound - scored.mean.elbo(model))

        assert score(x, lengths) > -0.02, kind


def test_the_gradient_of_a_filter_of_recurrent_models():
    model = make(VRNN)
    x, lengths = frames(model, 4, 5), np.array([5, 3, 1, 5], np.int32)
    weights = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = -tf.reduce_sum(bounds.score("fivo", model, x, lengths, SEED, 3).bound)
    norm = tf.linalg.global_norm(tape.gradient(loss, weights))
    assert np.isfinite(norm) and norm > 0
