"""The engine with models of this project: live ones, and those of SavedModels."""

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.inference import saved_model
from stcn_tf.inference.generation import Generator, generate_raw
from stcn_tf.inference.generation import Temperatures as OfGenerator
from stcn_tf.inference.served import ServedModel
from stcn_tf.runs import RunDirectory
from stcn_tf.support.errors import UserError
from stcn_tf.web.engine import Engine, Temperatures, load_saved_model

TEMPERATURES = Temperatures(0.7, 0.9, 1.0)


@pytest.fixture(scope="module")
def run(tiny_run):
    return RunDirectory.open(tiny_run)


@pytest.fixture(scope="module")
def served(run):
    return ServedModel(run.load("best").model, run.card)


@pytest.fixture(scope="module")
def engine(served):
    return Engine(served)


def beginning(steps: int, seed: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.concatenate([30 * rng.standard_normal((steps, 2)), rng.random((steps, 1)) < 0.1], axis=1)
    return x.astype(np.float32)


def made(engine, beginnings, seed, counts=(7, 5)):
    state = engine.begin(beginnings, seed, TEMPERATURES.latent)
    blocks = []
    for count in counts:
        (x,), (state,) = engine.steps([state], count, [TEMPERATURES])
        blocks.append(x)
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize("steps", [(0, 0), (9, 9), (9, 4)])
def test_goes_on_as_the_command_that_samples(engine, run, served, steps):
    beginnings = [beginning(n) for n in steps]
    samples = generate_raw(
        Generator(run.load("best").model, jit_compile=False),
        run.card.normalization,
        beginnings,
        12,
        (4, 0),
        OfGenerator(*TEMPERATURES),
    )
    for row, n, x in zip(samples, steps, made(engine, beginnings, 4), strict=True):
        np.testing.assert_allclose(row[n:], x, rtol=1e-4, atol=1e-3)


def test_whoever_else_is_served_changes_nothing(engine):
    """Sessions of other lengths, seeds and temperatures; any number of rows."""
    mine = [beginning(6), beginning(3)]
    alone = made(engine, mine, 4, counts=(12,))
    for others in (1, 3, 6, 7):
        states = [engine.begin(mine, 4, TEMPERATURES.latent)]
        states += [engine.begin([beginning(2 + k, seed=k)], 10 + k, 1.0) for k in range(others)]
        x, after = engine.steps(
            states, 12, [TEMPERATURES] + [Temperatures(real=0.1 * k) for k in range(others)]
        )
        np.testing.assert_array_equal(x[0], alone)
        assert [part.shape[0] for part in x] == [2] + [1] * others
        assert {len(values) for values in after[0].values()} == {2}


def test_scores_and_reconstructs_without_padding(engine, served):
    x = beginning(9)
    score = engine.score(x, 4, 1.0)
    assert engine.num_layers == 2
    assert score.log_likelihood.shape == (9,) and score.kl.shape == (9, 2)
    terms = served.score(x[np.newaxis], np.array([9], np.int32), np.array([4, 0], np.int32), 1.0)
    np.testing.assert_allclose(score.kl, terms["kl"][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(score.elbo, terms["elbo"][0], rtol=1e-4)
    assert engine.reconstruct(x, 4, 1.0).shape == (9, 3)


def test_an_exported_model_goes_on_alike(engine, served, tmp_path):
    saved_model.write(served, tmp_path / "exported", {})
    exported = Engine(load_saved_model(str(tmp_path / "exported")))
    assert exported.card == engine.card
    given = [beginning(5)]
    np.testing.assert_allclose(
        made(exported, given, 4), made(engine, given, 4), rtol=1e-4, atol=1e-3
    )


def test_what_is_no_model_is_told(tmp_path):
    with pytest.raises(UserError, match="no SavedModel; accepted: a folder of stcn_tf.export"):
        load_saved_model(str(tmp_path))
    other = tf.Module()
    other.card = tf.function(lambda: tf.constant(""), input_signature=[])
    tf.saved_model.save(other, str(tmp_path / "other"))
    with pytest.raises(UserError, match="a SavedModel without start, begin, steps"):
        load_saved_model(str(tmp_path / "other"))
    (tmp_path / "other/saved_model.pb").write_bytes(b"no protocol buffer")
    with pytest.raises(UserError, match="a damaged SavedModel"):
        load_saved_model(str(tmp_path / "other"))
