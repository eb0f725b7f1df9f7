import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.bounds import SequenceTerms, sum_over_time
from stcn_tf.config import TrainingConfig
from stcn_tf.data.pipeline import Batch
from stcn_tf.models import STCN, ScoreTerms
from stcn_tf.training.train_step import TrainStep, make_optimizer

FLIPS = 16


def _model(dense, draws, num_layers=3):
    return STCN(
        num_real=0,
        num_binary=1,
        num_components=1,
        num_filters=32,
        kernel_size=2,
        blocks_per_layer=1,
        latent_sizes=(2,) * num_layers,
        latent_hidden_layers=2,
        output_layers=5,
        output_filters=32,
        dense=dense,
        posterior_draws=draws,
    )


def test_terms_are_summed_over_time():
    kl_per_unit = tf.reshape(tf.range(2.0 * 4 * 3), [2, 4, 3])
    terms = ScoreTerms(
        log_likelihood=tf.constant([[-1.0, -2.0, -4.0, 0.0], [-8.0, -16.0, 0.0, 0.0]]),
        kl=kl_per_unit,
        kl_per_unit=(kl_per_unit,),
    )
    summed = sum_over_time(terms)
    np.testing.assert_array_equal(summed.log_likelihood, [-7.0, -24.0])
    np.testing.assert_array_equal(summed.kl, [[18.0, 22.0, 26.0], [66.0, 70.0, 74.0]])


SUMS = SequenceTerms(tf.constant([-7.0, -24.0]), tf.constant([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]]))


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
    model = _model(dense, draws)
    np.testing.assert_array_equal(SUMS.elbo(model), expected)
    same = np.array_equal(SUMS.elbo(model), SUMS.objective())
    assert same == model.is_released_objective_a_bound


def _flips(rng, num):
    return rng.integers(0, 2, (num, FLIPS, 1)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dense", "draws"), [(True, "shared"), (False, "independent"), (True, "independent")]
)
def test_on_coin_flips_no_bound_beats_log_2(dense, draws):
    """What cannot be predicted cannot be: a bound above -log 2 a flip is no bound.

    With independent draws, the released objective of STCN-dense counts the KL of latents that are
    drawn twice once only, and training soon finds out.
    """
    keras.utils.set_random_seed(0)
    model = _model(dense, draws, num_layers=5)
    model.build()
    config = TrainingConfig(
        learning_rate=1e-3, learning_rate_decay=1.0, kl_weight_increment=2e-3, batch_size=64
    )
    step = TrainStep(config, model, make_optimizer(config), tf.distribute.get_strategy())
    rng = np.random.default_rng(0)
    for _ in range(450):
        step(Batch(tf.constant(_flips(rng, 64)), tf.fill([64], FLIPS)))

    num = 2560
    terms = sum_over_time(model.score(_flips(rng, num), tf.fill([num], FLIPS), (1, 2)))
    elbo, objective = terms.elbo(model).numpy() / FLIPS, terms.objective().numpy() / FLIPS
    stderr = elbo.std() / np.sqrt(num)
    assert elbo.mean() < -np.log(2) + 3 * stderr
    if model.is_released_objective_a_bound:
        np.testing.assert_allclose(objective, elbo, rtol=1e-6)
        assert elbo.mean() > -0.75  # it did learn that the flips are fair
    else:
        assert objective.mean() > -0.6  # "better" than the entropy, 0.693, by tens of stderr
