import dataclasses
import json

import pytest

import stcn_tf
from stcn_tf.data.records import Feature, Normalization, read_card
from stcn_tf.runs import RunDirectory, load_run
from stcn_tf.support.errors import UserError


@pytest.fixture
def run(tmp_path, tiny_records, tiny_config) -> RunDirectory:
    return RunDirectory.prepare(tmp_path / "run", tiny_config, read_card(tiny_records))


def test_opens_what_it_prepared(run, tiny_config, tiny_records):
    opened = RunDirectory.open(run.path)
    assert opened == run
    assert opened.config == tiny_config
    assert opened.card == read_card(tiny_records)
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "dataset.json"]


def test_no_run_directory(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no run directory"):
            RunDirectory.open(path)


def test_broken_configuration(run):
    file = run.path / "config.json"
    file.write_bytes(b'{"model": "\xff"}')
    with pytest.raises(UserError, match=r"config\.json: not UTF-8 text"):
        RunDirectory.open(run.path)
    file.write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not JSON"):
        RunDirectory.open(run.path)
    file.write_text(json.dumps({"model": {"hue": 3}, "training": {}}))
    with pytest.raises(UserError, match=r"config\.json: model: unknown settings: hue"):
        RunDirectory.open(run.path)


def test_no_checkpoint_yet(run):
    with pytest.raises(UserError, match="no checkpoint"):
        load_run(run.path)
    with pytest.raises(UserError, match="accepted: best, latest"):
        run.load_model("newest")


def test_checkpoint_update(tiny_run):
    run = RunDirectory.open(tiny_run)
    assert run.checkpoint_update("best") == run.checkpoint_update("latest") == 0


def test_other_units_are_not_compared(run):
    run.check_same_units(run.card)
    norm = run.card.normalization
    for change, message in (
        ({"normalization": dataclasses.replace(norm, kind="vrnn")}, "vrnn; accepted: channel"),
        (
            {"normalization": Normalization("channel", norm.mean, (40.0, 5.0, 1.0))},
            r"other normalization .*: dy: mean -1.0, std 5.0; accepted: dy: mean -1.0, std 30.0$",
        ),
        (
            {"features": (*run.card.features[:2], Feature("pen", "binary", "volt", "up"))},
            "other features .*: Feature.*volt.*; accepted: Feature.*'0 or 1'",
        ),
    ):
        with pytest.raises(UserError, match=message):
            run.check_same_units(dataclasses.replace(run.card, **change))


def test_other_features_of_audio_are_told_in_short(run, tiny_audio):
    with pytest.raises(UserError, match="other features .*: number 7; accepted: number 3$"):
        run.check_same_units(read_card(tiny_audio))


def test_public_names():
    for name in stcn_tf.__all__:
        assert getattr(stcn_tf, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'stcn'"):
        stcn_tf.stcn  # noqa: B018
