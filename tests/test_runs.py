import dataclasses
import json
import os
import subprocess
import sys

import pytest

import stcn_tf
from stcn_tf.data.card import Feature, Normalization, read_card
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
    raw = json.loads(run.config.to_json())
    file.write_text(json.dumps(raw | {"model": {"model": "stcn", "hue": 3}}))
    with pytest.raises(UserError, match=r"config\.json: model: unknown settings: hue"):
        RunDirectory.open(run.path)


def test_how_a_run_goes_on_may_change(run, tiny_config_with):
    other = tiny_config_with(run={"max_steps": 20, "log_every": 7, "jit_compile": True})
    continued = RunDirectory.prepare(run.path, other, run.card)
    assert continued == RunDirectory(run.path, other, run.card)
    assert RunDirectory.open(run.path) == continued
    # Nothing else is left, and what is as it was is not written again.
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "dataset.json"]
    before = (run.path / "config.json").stat()
    RunDirectory.prepare(run.path, other, run.card)
    assert (run.path / "config.json").stat() == before


def test_a_run_of_another_model_or_training_is_left_as_it_is(run, tiny_config_with):
    text = (run.path / "config.json").read_text()
    for changes in ({"model": {"num_filters": 8}}, {"training": {"seed": 5}}):
        other = tiny_config_with(**changes, run={"max_steps": 20})
        with pytest.raises(UserError, match="run of another configuration"):
            RunDirectory.prepare(run.path, other, run.card)
    card = dataclasses.replace(run.card, normalization=Normalization("x", (0,) * 3, (2, 2, 1)))
    with pytest.raises(UserError, match="run on other records"):
        RunDirectory.prepare(run.path, tiny_config_with(run={"max_steps": 20}), card)
    assert (run.path / "config.json").read_text() == text


def test_a_run_of_an_earlier_version_is_continued(run, tiny_config):
    model, training, how = map(
        dataclasses.asdict, (tiny_config.model, tiny_config.training, tiny_config.run)
    )
    for name in ("objective", "num_samples", "select"):
        del training[name]
    model["posterior_precision"] = model.pop("posterior_scale")
    model["wavenet_blocks"] = 25
    file = run.path / "config.json"
    file.write_text(json.dumps({"model": model, "training": training | how}))
    assert RunDirectory.open(run.path) == run
    assert RunDirectory.prepare(run.path, tiny_config, run.card) == run


def test_no_checkpoint_yet(run):
    with pytest.raises(UserError, match="no checkpoint"):
        load_run(run.path)
    with pytest.raises(UserError, match="accepted: best, latest"):
        run.load("newest")


def test_what_is_read_says_its_update(tiny_run):
    run = RunDirectory.open(tiny_run)
    assert run.load("best").update == run.load("latest").update == 0


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


@pytest.mark.parametrize("setting", ["KERAS_BACKEND", "KERAS_HOME"])
def test_keras_is_tensorflows_whatever_else_it_is_set_up_for(setting, tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "numpy", "floatx": "float64"}')
    value = {"KERAS_BACKEND": "numpy", "KERAS_HOME": str(tmp_path)}[setting]

    def run(code):
        command = [sys.executable, "-c", code]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KERAS")}
        environment[setting] = value
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert run("import stcn_tf, keras; print(keras.backend.backend())").stdout == "tensorflow\n"
    # Imported before, on what is not installed here.
    standing_in = (
        "import sys, types; config = types.SimpleNamespace(backend=lambda: 'jax');"
        "sys.modules['keras'] = types.SimpleNamespace(config=config); import stcn_tf"
    )
    told = "ImportError: stcn_tf needs Keras on TensorFlow, but it was imported on jax before"
    assert run(standing_in).stderr.splitlines()[-1].startswith(told)


def test_public_names():
    for name in stcn_tf.__all__:
        assert getattr(stcn_tf, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'stcn'"):
        stcn_tf.stcn  # noqa: B018
