"""Runs less one of them, on the same sequences."""

import math

import numpy as np
import pytest

from stcn_tf.config import Config, RunSettings, TrainingSettings
from stcn_tf.models.registry import make_settings
from stcn_tf.reporting import differences, evaluated
from tests.runs_by_hand import card_of, evaluate, make_run

VALUES = np.array([10.0, 30.0, 20.0, 60.0, 40.0])
KL = np.ones([5, 2])


def rows(folder) -> list[tuple[str, ...]]:
    tables = differences.tables(evaluated.find([str(folder)]))
    assert len(tables) < 2
    assert all(len(row.cells) == len(table.head) for table in tables for row in table.rows)
    return [row.cells for table in tables for row in table.rows]


def test_each_less_stcn_dense(tmp_path):
    card = card_of()
    bound = make_run(tmp_path / "z_stcn", card, "stcn_dense")
    tight = {"kl": KL[:3], "tight": VALUES[:3] - 2, "num_samples": 8}
    evaluate(bound, VALUES - 5, kl=KL, file="elbo")
    evaluate(bound, VALUES[:3] - 5, **tight, file="iwae")
    make = {"posterior_draws": "independent"}
    evaluate(make_run(tmp_path / "independent", card, "stcn_dense", **make), VALUES - 9, kl=KL)
    evaluate(make_run(tmp_path / "rnn", card, "rnn"), VALUES)
    independent, exact, limit = rows(tmp_path)
    assert independent == (
        *("iamondb", "independent", "z_stcn", "ELBO", "-4.0", "0.0", "sequences", "5"),
    )
    assert exact[1:5] == ("rnn", "z_stcn", "log-likelihood (exact) - ELBO", "≤ +5.0")
    # Of all sequences where there are all, else of those that there are.
    assert exact[-1] == "5"
    assert limit[3] == "log-likelihood (exact) - importance-weighted bound (K = 8, per step)"
    assert limit[4:] == ("≤ +2.0", "0.0", "sequences", "3")


def test_the_error_is_over_groups(tmp_path):
    groups = tuple("aabbb")
    less = VALUES - [1.0, 2.0, 3.0, 4.0, 5.0]
    evaluate(make_run(tmp_path / "a", card_of(), "stcn"), VALUES, kl=KL, groups=groups)
    evaluate(make_run(tmp_path / "b", card_of(), "vrnn"), less, kl=KL, groups=groups)
    ((*_, difference, error, over, number),) = rows(tmp_path)
    # Residuals of group a -2 - 1, of b 0 + 1 + 2; the first run is the one to measure against.
    assert (difference, over, number) == ("-3.0", "2 groups", "5")
    assert error == f"{math.sqrt(2 * (9 + 9)) / 5:.1f}"


def test_other_data_splits_and_units_do_not_meet(tmp_path):
    evaluate(make_run(tmp_path / "a", card_of(), "stcn"), VALUES, kl=KL)
    for name, changes in {"b": {"source": "cd" * 32}, "c": {"split": "test"}}.items():
        evaluate(make_run(tmp_path / name, card_of(**changes), "stcn"), VALUES, kl=KL)
    evaluate(make_run(tmp_path / "d", card_of(normalization="channel"), "stcn"), VALUES, kl=KL)
    assert rows(tmp_path) == []


@pytest.mark.parametrize("objective", ["iwae", "elbo"])
def test_what_was_trained_otherwise_is_not_measured_against(tmp_path, objective):
    for name in ("a", "b"):
        evaluate(make_run(tmp_path / name, card_of(), "stcn_dense"), VALUES, kl=KL)
    training = TrainingSettings(objective=objective, num_samples=8)
    config = Config(make_settings("stcn_dense"), training, RunSettings())
    (tmp_path / "a" / "config.json").write_text(config.to_json())
    ((_, run, other, *_),) = rows(tmp_path)
    assert (run, other) == (("a", "b") if objective == "iwae" else ("b", "a"))


def test_runs_of_one_name_in_two_folders_are_told_apart(tmp_path):
    for folder in ("x", "y"):
        evaluate(make_run(tmp_path / folder / "rnn", card_of(), "rnn"), VALUES)
    evaluate(make_run(tmp_path / "y" / "vrnn", card_of(), "rnn"), VALUES)
    found = evaluated.find([str(tmp_path / "x"), str(tmp_path / "y")])
    assert [run.name for run in found] == ["x/rnn", "y/rnn", "vrnn"]
