"""Runs less one of them, on the same sequences."""

import math

import numpy as np
import pytest

from stcn_tf.config import Config, RunSettings, TrainingSettings
from stcn_tf.models.registry import make_settings
from stcn_tf.reporting import differences, evaluated
from stcn_tf.reporting.comparison import compare
from stcn_tf.support.errors import UserError
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
        *("iamondb, valid", "independent", "z_stcn", "0 / 0", "ELBO", "-4.00", "0.00"),
        *("nats of vrnn-normalised values per sequence", "sequences", "5", "scored", ""),
    )
    wanted = ("rnn", "z_stcn", "0 / 0", "log-likelihood (exact) - ELBO", "≤ +5.00")
    assert exact[1:6] == wanted
    # Of all sequences where there are all, else of those that there are.
    assert exact[9] == "5"
    assert limit[4] == "log-likelihood (exact) - importance-weighted bound (K = 8, per step)"
    assert (limit[5], *limit[8:10]) == ("≤ +2.00", "sequences", "3")


def test_each_less_that_of_its_seed(tmp_path):
    for seed, name in ((0, "a"), (3, "b")):
        for offset, model in enumerate(("stcn_dense", "vrnn")):
            run = make_run(tmp_path / f"{name}_{model}", card_of(), model)
            training = TrainingSettings(seed=seed)
            config = Config(make_settings(model), training, RunSettings())
            (run / "config.json").write_text(config.to_json())
            evaluate(run, VALUES - 10 * seed - offset * (1 + seed), kl=KL)
    found = [row[1:6] for row in rows(tmp_path)]
    assert found == [
        ("a_vrnn", "a_stcn_dense", "0 / 0", "ELBO", "-1.00"),
        ("b_stcn_dense", "a_stcn_dense", "3 / 0", "ELBO", "-30.00"),
        ("b_vrnn", "b_stcn_dense", "3 / 3", "ELBO", "-4.00"),
    ]


def test_bounds_of_the_draws_that_both_have(tmp_path):
    """Those of more draws, which one alone has, hide nothing."""
    for name, draws in {"a": (4, 16), "b": (4,), "c": (4, 16)}.items():
        run = make_run(tmp_path / name, card_of(), "vrnn")
        for number in draws:
            about = {"tight": VALUES + number + ord(name), "num_samples": number}
            evaluate(run, VALUES, kl=KL, file=f"k{number}", **about)
    found = {(row[1], row[4]): row[5] for row in rows(tmp_path)}
    name = "importance-weighted bound (K = {}, per step)"
    assert found == {
        ("b", "ELBO"): "+0.00",
        ("b", name.format(4)): "+1.00",
        ("c", "ELBO"): "+0.00",
        ("c", name.format(16)): "+2.00",
        ("c", name.format(4)): "+2.00",
    }


def test_bounds_of_independent_draws_are_kept_beside_tighter_ones(tmp_path):
    for name, draws in {"a": (4, 16), "b": (4,)}.items():
        run = make_run(tmp_path / name, card_of(), "stcn", posterior_draws="independent")
        for number in draws:
            about = {"tight": VALUES + number, "num_samples": number, "objective": VALUES + 99}
            bound = "elbo" if number == 4 else "iwae"
            evaluate(run, VALUES, kl=KL, file=f"k{number}", bound=bound, **about)
    assert [row[5] for row in rows(tmp_path) if "K = 4" in row[4]] == ["+0.00"]


def test_what_is_scored_otherwise_has_a_row_of_its_own(tmp_path):
    ways = (
        ({}, "+1.00", "scored", ""),
        ({"given_frames": 1, "num_samples": 40}, "+2.00", "given", ""),
        (
            {"trained_with": {"posterior_scale": "std"}, "posterior_scale": "variance"},
            *("+3.00", "scored", "scored with posterior_scale variance, trained with std"),
        ),
        ({"checkpoint": "latest", "update": 900}, "+4.00", "scored", "checkpoint latest"),
    )
    for sign, name in enumerate("ab"):
        run = make_run(tmp_path / name, card_of(), "vrnn")
        for number, (about, *_) in enumerate(ways, 1):
            evaluate(run, VALUES + sign * number, kl=KL, file=f"way{number}", **about)
    found = [(row[5], *row[10:]) for row in rows(tmp_path)]
    assert set(found) >= {way[1:] for way in ways}
    # With nothing said the usual one is compared, however many draws or updates others have.
    usual = compare(str(tmp_path / "b"), str(tmp_path / "a"))
    assert usual.differences[0].per_sequence == 1


def test_measured_against_what_can_be(tmp_path):
    """The STCN-dense of the same seed was scored on other sequences alone."""
    for name, model, seed in (("a", "stcn_dense", 0), ("b", "stcn_dense", 3), ("c", "rnn", 3)):
        run = make_run(tmp_path / name, card_of(), model)
        config = Config(make_settings(model), TrainingSettings(seed=seed), RunSettings())
        (run / "config.json").write_text(config.to_json())
        about = {"kl": KL} if model != "rnn" else {}
        evaluate(run, VALUES, **about, **({"given_frames": 1} if name == "b" else {}))
    assert [row[1:4] for row in rows(tmp_path)] == [("c", "a", "3 / 0")]


def test_runs_without_numbers_or_files_of_sequences_are_no_fault(tmp_path):
    for name in "abc":
        values = VALUES.copy()
        values[2] -= np.inf if name == "b" else 0
        file = evaluate(make_run(tmp_path / name, card_of(), "vrnn"), values, kl=KL)
    file.with_suffix(".csv").unlink()  # as where --per_sequence names another place
    assert [row[1:3] + row[5:7] for row in rows(tmp_path)] == [("b", "a", "not finite", "–")]
    itself = compare(*[str(tmp_path / "b")] * 2).differences[0]
    assert math.isnan(itself.per_sequence) and math.isnan(itself.per_step_error)


def test_a_damaged_evaluation_is_told_and_no_other_takes_its_place(tmp_path):
    for name in ("a", "b"):
        run = make_run(tmp_path / name, card_of(), "vrnn")
        evaluate(run, VALUES, kl=KL, file="all")
        evaluate(run, VALUES[:3], kl=KL[:3], file="first")
    each = tmp_path / "b" / "evaluations" / "all.csv"
    each.write_text("")
    with pytest.raises(UserError, match=r"b/evaluations/all\.csv: accepted: columns"):
        rows(tmp_path)
    with pytest.raises(UserError, match=r"b/evaluations/all\.csv: accepted: columns"):
        compare(str(tmp_path / "a"), str(tmp_path / "b"))


def test_the_error_is_over_groups(tmp_path):
    groups = tuple("aabbb")
    less = VALUES - [1.0, 2.0, 3.0, 4.0, 5.0]
    evaluate(make_run(tmp_path / "a", card_of(), "stcn"), VALUES, kl=KL, groups=groups)
    evaluate(make_run(tmp_path / "b", card_of(), "vrnn"), less, kl=KL, groups=groups)
    ((*_, difference, error, _, over, number, _, _),) = rows(tmp_path)
    # Residuals of group a -2 - 1, of b 0 + 1 + 2; the first run is the one to measure against.
    assert (difference, over, number) == ("-3.00", "2 groups", "5")
    assert error == f"{math.sqrt(2 * (9 + 9)) / 5:.2f}"


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


def test_the_folder_in_which_one_is_has_a_name(tmp_path, monkeypatch):
    evaluate(make_run(tmp_path / "mine", card_of(), "rnn"), VALUES)
    monkeypatch.chdir(tmp_path / "mine")
    assert [run.name for run in evaluated.find(["."])] == ["mine"]
    with pytest.raises(UserError, match="--runs=x,: accepted: folders, none of them empty"):
        evaluated.find(["x", ""])
