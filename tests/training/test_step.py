import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import noise
from stcn_tf.bounds import sum_over_time
from stcn_tf.data.batches import train_batches
from stcn_tf.data.card import read_card
from stcn_tf.distribution import Distribution, Share
from stcn_tf.models import build_model
from stcn_tf.seeds import Stream
from stcn_tf.training import schedules
from stcn_tf.training.step import TrainStep, make_optimizer
from tests.conftest import eagerly


@pytest.fixture
def batch(tiny_records):
    found = next(iter(train_batches(tiny_records, batch_size=5, seed=3)))
    return Share.whole(found.x, found.lengths)


@pytest.fixture
def make(tiny_records):
    """Function (config, optimizer, distribution) -> a TrainStep whose latent noise is zero."""

    def made(config, optimizer=None, distribution=None):
        distribution = distribution or Distribution()
        with distribution.strategy.scope():
            keras.utils.set_random_seed(11)
            card = read_card(tiny_records)
            model = build_model(config.model, card, config.training.precision)
            optimizer = optimizer() if optimizer else make_optimizer(config.training)
            optimizer.build(model.trainable_variables)
        model.observe = functools.partial(model.observe, temperature=0.0)
        return TrainStep(config.training, model, optimizer, distribution, config.run.jit_compile)

    return made


def weights(step: TrainStep) -> np.ndarray:
    return np.concatenate([v.numpy().ravel() for v in step.model.trainable_variables])


def gradient(step: TrainStep, batch, kl_weight: float) -> np.ndarray:
    """Of the mean over sequences of (objective / steps), by another route than the step's."""
    scored = np.maximum(batch.lengths - step.model.num_given_frames, 1)
    with tf.GradientTape() as tape:
        state = step.model.start(len(batch.x))
        frames = batch.x, batch.lengths
        encoded = step.model.encode(*frames, state)
        terms = sum_over_time(step.model.observe(encoded, *frames, state)[0])
        objective = terms.objective(kl_weight) / tf.cast(scored, tf.float32)
        loss = -tf.reduce_mean(objective)
    variables = [v.value for v in step.model.trainable_variables]
    return np.concatenate([g.numpy().ravel() for g in tape.gradient(loss, variables)])


def sgd():
    return keras.optimizers.SGD()


def test_adam_as_in_tensorflow_1(make, batch, tiny_config_with, eager):
    config = tiny_config_with(training={"clip_norm": 0.0})
    step = make(config)
    w, m, v = weights(step).astype(np.float64), 0.0, 0.0
    for n in (1, 2, 3):
        update = tf.constant(n, tf.int64)
        g = gradient(step, batch, schedules.kl_weight(config.training, update))
        step(batch)
        rate = 1e-2 * 0.94 ** (n / 1000)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        scaled = rate * np.sqrt(1 - 0.999**n) / (1 - 0.9**n)
        w -= scaled * m / (np.sqrt(v) + 1e-8)
        # A float32 gradient near zero may take either sign in Adam's first updates.
        clear = np.abs(g) > 1e-5
        np.testing.assert_allclose(weights(step)[clear], w[clear], atol=2e-5)
        w = weights(step).astype(np.float64)


def test_clips_by_the_global_norm_and_reports_the_norm_before(make, batch, tiny_config_with, eager):
    config = tiny_config_with(training={"clip_norm": 0.25})
    step = make(config, sgd)
    before = weights(step)
    norm = np.linalg.norm(gradient(step, batch, 0.1))
    result = step(batch)
    assert norm > 0.25
    assert float(result.gradient_norm) == pytest.approx(norm, rel=1e-4)
    moved = np.linalg.norm(weights(step) - before)
    assert moved == pytest.approx(0.25 * float(result.learning_rate), rel=1e-4)


def test_loss_reductions(make, batch, tiny_config_with, eager):
    longest = tf.reduce_max(batch.lengths)
    one = tf.nest.map_structure(lambda t: t[-1:], batch)
    one = Share.whole(one.x[:, : one.lengths[0]], one.lengths)
    moved = {}
    for reduction in ("mean_step", "sum_step"):
        step = make(tiny_config_with(training={"clip_norm": 0.0, "loss_reduction": reduction}), sgd)
        before = weights(step).astype(np.float64)
        step(one)
        moved[reduction] = weights(step) - before
    length = float(one.lengths[0])
    assert 1 < length <= float(longest)
    np.testing.assert_allclose(
        moved["sum_step"], length * moved["mean_step"], rtol=1e-3, atol=2e-6 * length
    )


WAVENETS = [
    {"model": "wavenet", "wavenet_blocks": 3, "first_frame": "given"},
    # Of which nothing reads the topmost block: it is left as it is.
    {"model": "wavenet_dense", "wavenet_blocks": 3, "wavenet_dense_blocks": (1, 2)},
]


@pytest.mark.parametrize("settings", WAVENETS, ids=["wavenet", "wavenet_dense"])
def test_wavenets_learn(make, batch, tiny_config_with, settings):
    step = make(tiny_config_with(model=settings, training={"clip_norm": 0.0}))
    results = [step(batch) for _ in range(30)]
    first, last = results[0], results[-1]
    scored = np.sum(batch.lengths - step.model.num_given_frames)
    assert {float(result.num_steps) for result in results} == {scored}
    assert all(result.kl.shape == (0,) for result in results)
    for result in results:
        assert float(result.elbo) == float(result.log_likelihood)
    assert float(last.elbo) / scored > float(first.elbo) / scored + 0.3


def test_a_given_frame_is_not_among_the_steps_that_are_averaged_over(
    make, batch, tiny_config_with, eager
):
    one_step = batch.lengths.numpy()
    one_step[2] = 1  # nothing of this sequence is scored
    batch = Share.whole(batch.x, tf.constant(one_step))
    config = tiny_config_with(model=WAVENETS[0], training={"clip_norm": 0.0})
    step = make(config, sgd)
    before = weights(step).astype(np.float64)
    expected = gradient(step, batch, 1.0)
    result = step(batch)
    assert np.isfinite(weights(step)).all()
    moved = (weights(step) - before) / float(result.learning_rate)
    np.testing.assert_allclose(moved, -expected, rtol=1e-3, atol=2e-5)
    assert float(result.num_steps) == one_step.sum() - len(one_step)


@pytest.mark.parametrize("how", ["jit_compile", "mirrored"])
def test_wavenets_compiled_or_mirrored_make_the_same_update(
    make, batch, tiny_config_with, two_devices, how
):
    plain = make(tiny_config_with(model=WAVENETS[0]), sgd)
    if how == "mirrored":
        other = make(tiny_config_with(model=WAVENETS[0]), sgd, two_devices)
        given = two_devices.split(batch)
    else:
        config = tiny_config_with(model=WAVENETS[0], run={"jit_compile": True})
        other, given = make(config, sgd), batch
    result = other(given)
    with eagerly():
        expected = plain(batch)
    assert float(result.elbo) == pytest.approx(float(expected.elbo), rel=1e-4)
    assert result.kl.shape == (0,)
    np.testing.assert_allclose(weights(other), weights(plain), atol=1e-5)


def test_stcn_with_every_released_option_makes_an_update(make, batch, tiny_config_with, eager):
    settings = {"output_type": "wavenet", "released_floors": True, "dilations": (2, 1)}
    settings |= {"posterior_draws": "independent", "latent_filters": 4}
    step = make(tiny_config_with(model=settings, training={"clip_norm": 0.0}), sgd)
    before = weights(step).astype(np.float64)
    expected = gradient(step, batch, 0.1)
    result = step(batch)
    moved = (weights(step) - before) / float(result.learning_rate)
    np.testing.assert_allclose(moved, -expected, rtol=1e-2, atol=1e-4)


def test_two_devices_make_the_same_update(make, batch, tiny_config_with, two_devices):
    config = tiny_config_with(training={"clip_norm": 0.25})
    single = make(config, sgd)
    mirrored = make(config, sgd, two_devices)
    np.testing.assert_array_equal(weights(single), weights(mirrored))
    shared = two_devices.split(batch)
    for _ in range(2):
        result = mirrored(shared)
    with eagerly():
        for _ in range(2):
            expected = single(batch)
    assert float(result.num_sequences) == 5
    for name in ("elbo", "log_likelihood", "num_steps", "gradient_norm", "kl_weight"):
        assert float(getattr(result, name)) == pytest.approx(
            float(getattr(expected, name)), rel=1e-4
        )
    np.testing.assert_allclose(weights(mirrored), weights(single), atol=1e-6)


def test_compiled_with_xla(make, batch, tiny_config_with):
    plain = make(tiny_config_with(), sgd)
    compiled = make(tiny_config_with(run={"jit_compile": True}), sgd)
    result = compiled(batch)
    with eagerly():
        expected = plain(batch)
    assert float(result.elbo) == pytest.approx(float(expected.elbo), rel=1e-4)
    np.testing.assert_allclose(weights(compiled), weights(plain), atol=1e-5)


def test_mixed_precision_keeps_weights_and_scores_in_float32(make, batch, tiny_config_with, eager):
    plain = make(tiny_config_with(), sgd)
    mixed = make(tiny_config_with(training={"precision": "mixed_bfloat16"}), sgd)
    before = weights(mixed)
    expected, result = plain(batch), mixed(batch)
    assert {v.dtype for v in mixed.model.trainable_variables} == {"float32"}
    assert result.elbo.dtype == tf.float32
    # bfloat16 has 8 bits of mantissa.
    assert float(result.elbo) == pytest.approx(float(expected.elbo), rel=2**-6)
    assert float(result.elbo) != float(expected.elbo)
    assert np.isfinite(weights(mixed)).all() and (weights(mixed) != before).any()


def log_mean_exp(values, axis):
    return np.log(np.mean(np.exp(values), axis=axis))


@pytest.mark.parametrize("output_type", ["conv1x1", "wavenet"])
def test_iwae_averages_the_gradients_of_the_draws_by_their_weights(
    make, batch, tiny_config_with, output_type, eager
):
    """The gradient of log mean w_k is that of log w_k, weighted by w_k / sum of w."""
    training = {"objective": "iwae", "num_samples": 3, "clip_norm": 0.0}
    config = tiny_config_with(model={"output_type": output_type}, training=training)
    step = make(config, sgd)
    model, kl_weight = step.model, 0.1
    del model.observe
    batch = Share.whole(batch.x[:2, :6], tf.constant([6, 4]))
    seed = noise.fold_in((config.training.seed, 0), Stream.TRAINING)
    seed = noise.fold_in(noise.fold_in(seed, 1), 0)
    repeated = [tf.repeat(part, 3, axis=0) for part in (batch.x, batch.lengths)]
    with tf.GradientTape(persistent=True) as tape:
        terms = model.score(*repeated, seed)
        log_weight = terms.log_likelihood + kl_weight * (terms.log_weight - terms.log_likelihood)
        if output_type == "wavenet":
            log_weight = tf.reduce_sum(log_weight, axis=1, keepdims=True)
        by_draw = tf.reshape(log_weight, [2, 3, -1])
        shares = tf.stop_gradient(tf.nn.softmax(by_draw, axis=1))
        steps = tf.constant([[[6.0]], [[4.0]]])
        loss = -tf.reduce_sum(shares * by_draw / steps) / 2.0
    variables = [v.value for v in model.trainable_variables]
    expected = np.concatenate([g.numpy().ravel() for g in tape.gradient(loss, variables)])
    bound = log_mean_exp(by_draw.numpy(), axis=1).sum()
    before = weights(step).astype(np.float64)
    result = step(batch)
    assert float(result.objective) == pytest.approx(bound, rel=1e-4)
    assert float(result.gradient_norm) == pytest.approx(np.linalg.norm(expected), rel=1e-3)
    moved = (weights(step) - before) / float(result.learning_rate)
    np.testing.assert_allclose(moved, -expected, rtol=1e-2, atol=1e-4)


def test_fivo_of_equal_particles_is_the_bound_of_one(make, batch, tiny_config_with, eager):
    """Without noise their weights are equal, and none is resampled."""
    training = {"objective": "fivo", "num_samples": 2, "clip_norm": 0.0}
    config = tiny_config_with(model={"output_type": "wavenet"}, training=training)
    step = make(config, sgd)
    batch = Share.whole(batch.x[:2, :6], tf.constant([6, 4]))
    with tf.GradientTape() as tape:
        state = step.model.start(2)
        frames = batch.x, batch.lengths
        encoded = step.model.encode(*frames, state)
        terms, _ = step.model.observe(encoded, *frames, state)
        log_weight = terms.log_likelihood + 0.1 * (terms.log_weight - terms.log_likelihood)
        bound = tf.reduce_sum(log_weight, axis=1)
        loss = -tf.reduce_mean(bound / tf.cast(batch.lengths, tf.float32))
    variables = [v.value for v in step.model.trainable_variables]
    expected = np.concatenate([g.numpy().ravel() for g in tape.gradient(loss, variables)])
    before = weights(step).astype(np.float64)
    result = step(batch)
    assert float(result.objective) == pytest.approx(float(tf.reduce_sum(bound)), rel=1e-4)
    moved = (weights(step) - before) / float(result.learning_rate)
    np.testing.assert_allclose(moved, -expected, rtol=1e-2, atol=1e-4)


def test_noise_follows_the_number_of_the_update(make, batch, tiny_config_with, eager):
    config = tiny_config_with(training={"learning_rate": 1e-30, "kl_weight_increment": 0.0})

    def elbos(seed_free_step):
        del seed_free_step.model.observe  # the real one, with noise
        step = TrainStep(
            config.training,
            seed_free_step.model,
            seed_free_step.optimizer,
        )
        return [float(step(batch).elbo) for _ in range(3)]

    first, second = elbos(make(config)), elbos(make(config))
    assert first == second
    assert len(set(first)) == 3
