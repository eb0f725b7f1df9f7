import json

import pytest

import stcn_tf
from stcn_tf.data.records import read_card
from stcn_tf.errors import UserError
from stcn_tf.runs import RunDirectory, load_run


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
    import dataclasses

    from stcn_tf.data.records import Normalization

    run.check_same_units(run.card)
    other = dataclasses.replace(
        run.card, normalization=Normalization("vrnn", (1.0, 1.0, 0.0), (5.0, 5.0, 1.0))
    )
    with pytest.raises(UserError, match="other normalization"):
        run.check_same_units(other)


def test_public_names():
    for name in stcn_tf.__all__:
        assert getattr(stcn_tf, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'stcn'"):
        stcn_tf.stcn  # noqa: B018
