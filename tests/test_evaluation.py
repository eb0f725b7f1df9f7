import json
import math

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import report
from stcn_tf.data import pipeline
from stcn_tf.data.records import read_card
from stcn_tf.evaluation import ACTIVE_UNIT_NATS, Evaluation, Evaluator
from stcn_tf.models import build_model

ABOUT = {"run": "r", "model": "m", "checkpoint": "best", "update": 1234, "split": "valid"}


def evaluation_of(lengths, **values) -> Evaluation:
    lengths = np.array(lengths)
    rows = {name: np.zeros(len(lengths)) for name in ("log_likelihood", "elbo")}
    return Evaluation(
        **{
            **rows,
            "released_objective": np.zeros(len(lengths)),
            "kl": np.zeros((len(lengths), 2)),
            "active_units": (1, 0),
            **{name: np.array(value, float) for name, value in values.items()},
        },
        lengths=lengths,
    )


@pytest.fixture
def model(tiny_records, tiny_config):
    return build_model(tiny_config.model, read_card(tiny_records))


def test_every_sequence_once_by_hand(model, tiny_records):
    batches = pipeline.eval_batches(tiny_records, split="valid", batch_size=3)
    told = []
    evaluation = Evaluator(model)(batches, seed=4, progress=told.append)
    assert told == [3, 6, 7]
    elbos, reconstructions, kls, units, lengths = [], [], [], 0.0, []
    for index, (x, n) in enumerate(batches):
        terms = model.score(x, n, tf.random.fold_in((4, 1), index))
        for i, steps in enumerate(n.numpy()):
            reconstructions.append(terms.log_likelihood[i, :steps].numpy().sum())
            kls.append(terms.kl[i, :steps].numpy().sum(axis=0))
            elbos.append(reconstructions[-1] - kls[-1].sum())
            lengths.append(steps)
        units += terms.kl_per_unit[0].numpy().sum(axis=(0, 1))
    np.testing.assert_allclose(evaluation.elbo, elbos, rtol=1e-4)
    np.testing.assert_allclose(evaluation.released_objective, elbos, rtol=1e-4)
    np.testing.assert_allclose(evaluation.log_likelihood, reconstructions, rtol=1e-4)
    np.testing.assert_allclose(evaluation.kl, kls, rtol=1e-4)
    np.testing.assert_array_equal(evaluation.lengths, lengths)
    assert evaluation.active_units[0] == np.sum(units / sum(lengths) > ACTIVE_UNIT_NATS)
    assert len(evaluation.active_units) == 3


def test_given_up(model, tiny_records):
    batches = pipeline.eval_batches(tiny_records, split="valid", batch_size=3)
    assert Evaluator(model)(batches, stop=lambda: True) is None


def test_averages_and_standard_errors():
    evaluation = evaluation_of([10, 30], elbo=[5.0, 9.0])
    assert evaluation.per_sequence(evaluation.elbo) == 7.0
    assert evaluation.per_step(evaluation.elbo) == pytest.approx(14.0 / 40)
    assert evaluation.standard_error(evaluation.elbo) == pytest.approx(2.0)
    # Residuals from the ratio: 5 - 3.5 and 9 - 10.5, over the mean length 20.
    assert evaluation.per_step_standard_error(evaluation.elbo) == pytest.approx(1.5 / 20)
    alone = evaluation_of([10], elbo=[5.0])
    assert math.isnan(alone.standard_error(alone.elbo))


def test_standard_error_covers_the_mean():
    rng = np.random.default_rng(1)
    lengths = rng.integers(20, 200, size=(400, 50))
    values = 1.5 * lengths + rng.normal(scale=20, size=lengths.shape)
    inside = 0
    for n, v in zip(lengths, values, strict=True):
        evaluation = evaluation_of(n, elbo=v)
        error = evaluation.per_step_standard_error(v)
        inside += abs(evaluation.per_step(v) - 1.5) < 1.96 * error
    # 95 % of 400, with four binomial standard errors below for the small samples.
    assert 0.90 < inside / 400 < 0.99


@pytest.mark.parametrize("draws", ["shared", "independent"])
def test_report(tmp_path, tiny_records, tiny_config_with, draws):
    card = read_card(tiny_records)
    model = build_model(tiny_config_with(model={"posterior_draws": draws}).model, card)
    evaluation = evaluation_of(
        [4, 6], elbo=[1.0, 2.0], released_objective=[3.0, 5.0], kl=[[1.0, 0.5], [2.0, 1.5]]
    )
    content = report.summary(evaluation, model, card, ABOUT)
    assert content["terms"]["KL"]["per_sequence"] == pytest.approx(2.5)
    assert content["terms"]["KL of layer 2"]["per_step"] == pytest.approx(0.2)
    text = report.table(content)
    assert "nats of the normalised values" in text
    assert "r: m, checkpoint best, after 1,234 updates" in text
    assert "normalisation channel, (mean, std) of dx (3, 40), dy (-1, 30), pen (0, 1)" in text
    released = "released objective (not a lower bound)"
    assert (released in text) == (released in content["terms"]) == (draws == "independent")
    report.write(content, tmp_path / "evaluation.json")
    assert json.loads((tmp_path / "evaluation.json").read_text()) == content


def test_report_of_one_sequence_is_json(tmp_path, tiny_records, model):
    content = report.summary(
        evaluation_of([4], elbo=[1.0]),
        model,
        read_card(tiny_records),
        ABOUT,
    )
    report.write(content, tmp_path / "evaluation.json")
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored["terms"]["ELBO"]["per_sequence_standard_error"] is None
