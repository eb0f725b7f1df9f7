"""Updates whose objective or gradient is not finite: skipped, told, counted; never learned from."""

import dataclasses
import functools
import itertools
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.data.batches import train_batches
from stcn_tf.distribution import Share
from stcn_tf.inference import table
from stcn_tf.models.registry import MODELS
from stcn_tf.support.errors import UserError
from stcn_tf.training.trainer import Trainer
from tests.conftest import eagerly

ABOUT = {"run": "", "model": "", "posterior_draws": None, "posterior_scale": None}
ABOUT |= {"released_floors": False, "trained_with": {}, "checkpoint": "best", "update": 2}
ABOUT |= {"split": "valid", "seed": 0, "bound": "elbo", "given_frames": 0, "piece": 0}
pytestmark = pytest.mark.usefixtures("eager")


def _weights(trainer):
    return [v.numpy() for v in (*trainer.model.weights, *trainer._step.optimizer.variables)]


@pytest.fixture
def trainer(tmp_path, tiny_records, tiny_config_with):
    """Function (lines, **settings of the run) -> a trainer."""

    def make(lines, **settings):
        config = tiny_config_with(run={"max_steps": 6, "evaluate_every": 6, **settings})
        return Trainer(config, tiny_records, tmp_path / "run", report=lines.append)

    return make


def _break(trainer, updates, rows=(1, 3)):
    """Makes the batches of some updates hold what no records hold."""
    batches, made = trainer.loop._next_batch, [0]

    def next_batch():
        batch = batches()
        made[0] += 1
        if made[0] in updates:
            x = batch.x.numpy()
            x[list(rows), 0, 0] = np.inf
            batch = batch._replace(x=tf.constant(x))
        return batch

    trainer.loop._next_batch = next_batch


def test_a_batch_that_is_not_finite_is_skipped_told_and_kept(trainer, tmp_path):
    lines, kept = [], []
    run = trainer(lines, log_every=2)
    _break(run, {3})
    update = run.loop._update

    def watched(batch):
        before = _weights(run)
        result = update(batch)
        kept.append([np.array_equal(*pair) for pair in zip(before, _weights(run), strict=True)])
        if float(result.skipped):
            values = np.concatenate([np.ravel(value) for value in result])
            assert set(values) == {0.0, 1.0} and values.sum() == 1.0
        return result

    run.loop._update = watched
    assert run.train()
    assert run.step == 6
    # Of the skipped one the counter of updates alone has changed, of the others the weights have.
    assert [sum(not same for same in update) for update in kept][2] == 1
    assert all(sum(not same for same in update) > 9 for n, update in enumerate(kept) if n != 2)
    assert all(np.isfinite(values).all() for values in _weights(run))
    (line,) = (line for line in lines if line.startswith("update 3 skipped"))
    with np.load(tmp_path / "run/faults/update_000000003.npz") as saved:
        ids = saved["ids"]
        assert saved["x"].shape[:1] == saved["lengths"].shape == ids.shape == (4,)
        assert np.argwhere(np.isinf(saved["x"])).tolist() == [[1, 0, 0], [3, 0, 0]]
        about = json.loads(str(saved["about"]))
    assert about["update"] == 3 and line.startswith(about["line"])
    assert f"the objective of {ids[1]}, {ids[3]} is not finite, first in stcn_dense/" in line
    assert "1 skipped" in "".join(line for line in lines if line.startswith("update       4/"))


def test_too_many_in_a_row_end_a_run_at_its_last_good_checkpoint(trainer, tiny_records):
    lines = []
    run = trainer(lines, max_steps=30, checkpoint_every=2, max_skipped=4)
    _break(run, {2, 3, *range(5, 30)})
    with pytest.raises(UserError, match="4 updates in a row were skipped .update 8 skipped: the"):
        run.train()
    assert run.run.load("latest").update == 4
    again = trainer([], max_steps=8, checkpoint_every=2, max_skipped=4)
    assert again.step == 4
    assert again.train()


def test_weights_that_have_run_away_are_not_saved(trainer):
    run = trainer([], checkpoint_every=2, max_skipped=5)
    object.__setattr__(run._step.config, "learning_rate", 1e30)
    with pytest.raises(UserError, match="5 updates in a row were skipped"):
        run.train()
    assert run.run.load("latest").update == 0


def test_running_means_are_not_learned_from_either(tmp_path, tiny_records, tiny_config_with):
    lines = []
    config = tiny_config_with(
        model={"model": "swavenet", "deterministic_blocks": 1}, run={"max_steps": 4}
    )
    run = Trainer(config, tiny_records, tmp_path / "run", report=lines.append)
    _break(run, {2, 4})
    update, moved = run.loop._update, []

    def watched(batch):
        before = [v.numpy() for v in run.model.non_trainable_variables]
        update_of = update(batch)
        after = [v.numpy() for v in run.model.non_trainable_variables]
        moved.append(any((a != b).any() for a, b in zip(before, after, strict=True)))
        return update_of

    run.loop._update = watched
    assert run.train()
    assert moved == [True, False, True, False]
    # What ends with a skipped update is saved, too.
    weights = run.run.load("latest").model.weights
    assert all(np.isfinite(v.numpy()).all() for v in weights)
    assert run.run.load("latest").update == 4


@pytest.mark.parametrize("strategy", ["default", "mirrored"])
def test_a_gradient_that_is_not_finite_names_its_weights(trainer, two_devices, strategy):
    lines = []
    run = trainer(lines, max_steps=2, strategy=strategy)
    objective = run._step._scored

    @tf.custom_gradient
    def poisoned(x):
        return tf.identity(x), lambda upstream: upstream * np.nan

    def scored(*args):
        scored, value = objective(*args)
        return scored, poisoned(value)

    run._step._scored = scored
    with eagerly(strategy == "default"):  # devices gather in graphs alone
        assert run.train()
    line = next(line for line in lines if "skipped" in line)
    told = r"update 1 skipped: the gradient for stcn_dense/\S+ and \d+ more of train-\d+, .*finite;"
    assert re.match(told, line), line


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_amiss_with_what_every_model_computes(name, make_step, tiny_config_with):
    """So the first layer that computes something infinite is a fault indeed."""
    step = make_step(tiny_config_with(model={"model": name}))
    x = np.random.default_rng(0).integers(0, 2, (2, 5, 3)).astype(np.float32)
    x[1, 3:] = 0.0
    tf.debugging.enable_check_numerics()
    try:
        objective = step.rewards(Share.whole(tf.constant(x), tf.constant([5, 3])), 1)
    finally:
        tf.debugging.disable_check_numerics()
    assert np.isfinite(objective).all()


def test_sigmas_at_their_floor_are_told(trainer, tiny_records):
    lines = []
    run = trainer(lines, max_steps=2, evaluate_every=2)
    heads, layer = run.model.observation.heads, run.model.latent_layers[1]
    heads["sigma"].bias.assign(tf.fill(heads["sigma"].bias.shape, -100.0))
    last = layer.prior_network.sigma_layers[-1]
    last.kernel.assign(tf.zeros(last.kernel.shape))
    bias = np.zeros(last.bias.shape, np.float32)
    bias[0] = -100.0  # of 3 units
    last.bias.assign(bias)
    assert run.train()
    (line,) = (line for line in lines if "sigmas of 0.001 or less" in line)
    assert "100% of observation, 33% of layer 2; likelihoods that grow" in line
    evaluation = run._evaluate(lambda: False)
    assert evaluation.share_at_floor["layer_1"] == 0.0
    content = table.summary(evaluation, run.model, run.run.card, ABOUT)
    assert content["sigma_at_floor"]["observation"] == 1.0
    assert "100% of the observation's sigmas are 0.001 or less" in table.table(content)


def _shares(records, count):
    batches = iter(train_batches(records, batch_size=5, seed=3))
    return [Share.whole(b.x, b.lengths) for b in itertools.islice(batches, count)]


@pytest.fixture(scope="module")
def elbos_in(make_step, tiny_records, tiny_config):
    """Function (precision) -> the ELBO per step of 60 updates."""

    @functools.cache
    def elbos(precision):
        training = dataclasses.replace(tiny_config.training, precision=precision)
        step = make_step(dataclasses.replace(tiny_config, training=training))
        shares = _shares(tiny_records, 60)
        if step.state:
            step.state["loss_scale"].assign(2.0**8)  # as after the first few updates
        with eagerly(False):  # so many updates are worth a graph
            results = [step(share) for share in shares]
        assert not sum(float(result.skipped) for result in results)
        return np.array([float(r.elbo) / float(r.num_steps) for r in results])

    return elbos


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_halves_of_a_float_track_the_whole(precision, elbos_in):
    """Distributions and losses are float32: what is left is the rounding of convolutions."""
    plain, mixed = elbos_in("float32"), elbos_in(precision)
    gained = plain[-10:].mean() - plain[:10].mean()
    assert gained > 0.3
    assert (plain != mixed).any()
    assert np.abs(mixed - plain).max() < 0.1 * gained
    assert np.abs(mixed[:10] - plain[:10]).max() < 0.02 * gained


def test_gradients_that_overflow_in_float16_are_scaled_less(
    make_step, tiny_records, tiny_config_with
):
    config = tiny_config_with(training={"precision": "mixed_float16", "clip_norm": 0.0})
    step, shares = make_step(config), _shares(tiny_records, 3)
    scale = step.state["loss_scale"]
    assert float(scale) == 2.0**15
    scale.assign(2.0**8)
    norm = float(step(shares[0]).gradient_norm)
    scale.assign(2.0**60)
    before = [v.numpy() for v in step.model.weights]
    result = step(shares[1])
    assert (float(result.skipped), float(result.overflowed)) == (1.0, 1.0)
    assert float(scale) == 2.0**59
    for old, variable in zip(before, step.model.weights, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    # The scale does not show in what comes out; after a while it grows.
    scale.assign(2.0**10)
    step.state["updates_with_scale"].assign(1999)
    result = step(shares[2])
    assert not float(result.skipped)
    assert 0.1 * norm < float(result.gradient_norm) < 10 * norm
    assert float(scale) == 2.0**11
    assert int(step.state["updates_with_scale"]) == 0


def test_a_run_in_float16_keeps_its_scale(tmp_path, tiny_records, tiny_config_with):
    config = tiny_config_with(training={"precision": "mixed_float16"}, run={"max_steps": 3})
    run = Trainer(config, tiny_records, tmp_path / "run", report=lambda line: None)
    run._step.state["loss_scale"].assign(2.0**7)
    assert run.train()
    again = Trainer(config, tiny_records, tmp_path / "run", report=lambda line: None)
    assert float(again._step.state["loss_scale"]) == 2.0**7
    assert int(again._step.state["updates_with_scale"]) == 3
    assert again.run.load("latest").update == 3
