"""What a run takes over from another, what it says of itself, and that it can be had again."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import checkpoint_files
from stcn_tf.data.card import Normalization, read_card
from stcn_tf.data.records import write_dataset
from stcn_tf.models.registry import build_model
from stcn_tf.runs import RunDirectory, weights_by_path
from stcn_tf.support.errors import UserError
from stcn_tf.training import history, initial_weights
from stcn_tf.training.trainer import Trainer
from tests.conftest import FEATURES, eagerly, handwriting_like

pytestmark = [
    pytest.mark.usefixtures("eager"),
    # Of Keras, when it saves weights.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def _silent(line):
    pass


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny_records, tiny_config) -> Path:
    """A run of 8 updates, not to be changed; its best weights are none of its latest."""
    folder = tmp_path_factory.mktemp("runs") / "source"
    with eagerly():
        trainer = Trainer(tiny_config, tiny_records, folder, report=_silent)
        assert trainer.train()
        for variable in trainer.model.weights:
            variable.assign(variable + 1)
        trainer.checkpoints.save_best(np.inf)
    return folder


@pytest.fixture
def begin(tiny_records, tiny_config_with, tmp_path):
    """Function (init_from, data=..., restart=..., **settings of the model) -> a trainer."""

    def begin(init_from="", data=tiny_records, restart=False, run_dir=tmp_path / "run", **model):
        training = {"init_from": str(init_from)}
        config = tiny_config_with(model=model, training=training, run={"max_steps": 2})
        return Trainer(config, data, run_dir, report=_silent, restart=restart)

    return begin


def _weights(model):
    return {name: v.numpy() for name, v in weights_by_path(model).items()}


def _assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def _starts(run_dir: Path):
    return json.loads((run_dir / "history.json").read_text())["starts"]


# Initial weights


def test_a_run_begins_with_the_best_weights_of_another_and_nothing_else(begin, source):
    best = _weights(RunDirectory.open(source).load("best").model)
    trainer = begin(source)
    _assert_equal(_weights(trainer.model), best)
    assert trainer.step == 0
    assert trainer.early_stopping.best == -np.inf
    # They are its state from the beginning, whatever ends it, with an optimizer that begins anew.
    state = tf.train.load_checkpoint(checkpoint_files.in_folder(trainer.run.latest)[0])
    moments = [n for n in state.get_variable_to_shape_map() if "momentum" in n or "velocity" in n]
    assert moments
    for name in moments:
        assert not state.get_tensor(name).any()
    _assert_equal(_weights(trainer.run.load("latest").model), best)
    assert trainer.train()
    assert trainer.step == 2


def test_the_history_says_what_a_run_began_with(begin, source, monkeypatch):
    monkeypatch.chdir(source.parent)
    trainer = begin("source")
    assert trainer.run.config.training.init_from == str(source)
    assert trainer.train()
    (start,) = _starts(trainer.run.path)
    about = start["init_from"]
    assert (about["path"], about["checkpoint"], about["update"]) == (str(source), "best", 8)
    assert len(about["sha256"]) == 64
    assert begin("source", run_dir=source.parent / "again")._initial["sha256"] == about["sha256"]
    assert "init_from" not in _starts(source)[0]


def test_the_latest_weights_of_a_run_that_was_not_evaluated(begin, tmp_path):
    other = begin(run_dir=tmp_path / "begun")
    for variable in other.model.weights:
        variable.assign(variable + 1)
    other.checkpoints.save()
    _assert_equal(_weights(begin(tmp_path / "begun").model), _weights(other.model))


def test_a_file_of_keras(begin, source, files):
    trainer = begin(files / "good.weights.h5")
    _assert_equal(_weights(trainer.model), _weights(RunDirectory.open(source).load("best").model))
    assert trainer._initial.keys() == {"path", "sha256"}


def test_the_same_command_continues_whatever_became_of_the_source(begin, source, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(source)
    assert begin(link).train()
    link.unlink()
    trained = _weights(RunDirectory.open(tmp_path / "run").load("latest").model)
    for given in (link, ""):
        continued = begin(given)
        assert continued.step == 2
        assert continued.run.config.training.init_from == str(link)
        _assert_equal(_weights(continued.model), trained)


def test_a_run_that_was_killed_before_its_first_state_begins_with_them(begin, source):
    trainer = begin(source)
    for made in ("checkpoints", "events"):
        shutil.rmtree(trainer.run.path / made)
    best = _weights(RunDirectory.open(source).load("best").model)
    _assert_equal(_weights(begin().model), best)


@pytest.mark.parametrize("first", ["", "source"])
def test_a_run_does_not_change_what_it_began_with(first, begin, source, tmp_path):
    assert begin(source if first else "").train()
    before = (tmp_path / "run/config.json").read_text()
    with pytest.raises(UserError) as error:
        begin(tmp_path / "other")
    was = repr(str(source) if first else "")
    assert f"training.init_from: '{tmp_path}/other', not {was}" in str(error.value)
    assert "another --run_dir" in str(error.value)
    assert (tmp_path / "run/config.json").read_text() == before


def test_begun_anew_with_them(begin, source, tmp_path):
    assert begin().train()
    with pytest.raises(UserError, match="is the run that --restart removes"):
        begin(tmp_path / "run", restart=True)
    assert begin().step == 2
    # What the run had before it began anew is not kept.
    assert begin(source, restart=True).step == 0
    assert begin(restart=True).run.config.training.init_from == ""


def test_a_broken_configuration_can_be_begun_anew(begin, tmp_path):
    begin()
    (tmp_path / "run/config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        begin()
    assert begin(restart=True).step == 0


@pytest.fixture(scope="module")
def files(tmp_path_factory, source) -> Path:
    """A folder of files of Keras with the source's weights, whole and damaged, and of others."""
    folder = tmp_path_factory.mktemp("files")
    model = RunDirectory.open(source).load("best").model
    good = folder / "good.weights.h5"
    model.save_weights(good)
    content = good.read_bytes()
    (folder / "cut.weights.h5").write_bytes(content[: len(content) // 2])
    (folder / "text.weights.h5").write_text("no weights")
    (folder / "photo.png").write_bytes(b"")
    (folder / "empty").mkdir()
    model.weights[3].assign(model.weights[3] * np.nan)
    model.save_weights(folder / "nan.weights.h5")
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "missing: no such file or folder; accepted: a run directory, or a file whose"),
        ("missing.weights.h5", "no such file or folder; accepted"),
        ("photo.png", r"something else; accepted: a run directory, or .* ends in \.weights\.h5"),
        ("empty", r"--init_from: \S+empty: no run directory"),
        ("cut.weights.h5", r"cut\.weights\.h5: damaged, or no file of Keras \("),
        ("text.weights.h5", r"text\.weights\.h5: damaged, or no file of Keras \("),
        ("nan.weights.h5", r"stcn_dense/\S+ has values that are not finite"),
    ],
)
def test_what_is_no_weights_is_told_in_a_line(name, message, files, built, tiny_records):
    with pytest.raises(UserError, match=message) as error:
        initial_weights.load(str(files / name), built(), read_card(tiny_records))
    assert "\n" not in str(error.value)


@pytest.fixture
def built(tiny_config_with, tiny_records):
    """Function (**settings) -> the model of the source, but for these."""
    return lambda **model: build_model(tiny_config_with(model=model).model, read_card(tiny_records))


def test_a_beginning_that_fails_leaves_everything_as_it_was(begin, files, tmp_path):
    with pytest.raises(UserError, match="damaged, or no file"):
        begin(files / "cut.weights.h5")
    assert not (tmp_path / "run").exists()
    begin()
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="damaged, or no file"):
        begin(files / "cut.weights.h5", restart=True)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_weights_of_another_shape_are_named(source, files, built, tiny_records):
    card = read_card(tiny_records)

    def refused(path, **settings):
        model = built(**settings)
        before = _weights(model)
        with pytest.raises(UserError) as error:
            initial_weights.load(str(path), model, card)
        _assert_equal(_weights(model), before)
        assert str(error.value).startswith(f"--init_from={path}: weights of another model: ")
        return str(error.value).split(": ", 2)[2]

    name = "stcn_dense/stack/block_00/filter/kernel"
    assert refused(source, num_filters=8) == f"{name}: [2, 3, 6] there, [2, 3, 8] here"
    # Files of Keras name weights otherwise, by their place in the model.
    name = "latent_layers/latent_layer/posterior_network/mean_layers/causal_conv/vars/0"
    told = refused(files / "good.weights.h5", num_filters=8)
    assert told == f"{name}: [1, 9, 5] there, [1, 11, 5] here"
    # Weights that one of them lacks.
    told = refused(source, latent_sizes=(5, 3, 2))
    assert told == "stcn_dense/stack/block_02/filter/kernel: none there, [2, 6, 6] here"
    assert re.search(r"wavenet/.*: none there, .* here$", refused(source, model="wavenet"))


def test_weights_that_the_model_lacks_are_named(begin, built, source, tmp_path, tiny_records):
    more = built(output_layers=2)
    more.save_weights(tmp_path / "more.weights.h5")
    with pytest.raises(UserError, match=r": \S+: \[.*\] there, none here$"):
        initial_weights.load(str(tmp_path / "more.weights.h5"), built(), read_card(tiny_records))


def test_weights_trained_on_other_units_are_told(begin, source, tmp_path, capfd):
    rng = np.random.default_rng(1)
    write_dataset(
        tmp_path / "other",
        name="other",
        features=FEATURES,
        splits={
            split: [(f"{split}-{i}", handwriting_like(rng, 9)) for i in range(4)]
            for split in ("train", "valid")
        },
        normalization=Normalization("channel", (3.0, -1.0, 0.0), (40.0, 5.0, 1.0)),
        source_sha256="3" * 64,
        command="a test",
    )
    begin(source)
    assert capfd.readouterr().err == ""
    begin(source, data=tmp_path / "other", run_dir=tmp_path / "tuned")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"--init_from={source}: it was trained on records of other normaliz")
    assert "(dy: mean -1.0, std 30.0) than other has (dy: mean -1.0, std 5.0)" in line


def test_weights_trained_on_unknown_units_are_told(source, tiny_records, capfd):
    card = read_card(tiny_records)
    unknown = dataclasses.replace(card, name="unknown", splits={})
    initial_weights._tell_other_units(RunDirectory(source, None, unknown), card)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"--init_from={source}: how the data that it was trained on were norm")


def test_weights_of_replicas(source, files, built, tiny_records, two_replicas):
    best = _weights(RunDirectory.open(source).load("best").model)
    for path in (source, files / "good.weights.h5"):
        with two_replicas.scope():
            model = built()
        initial_weights.load(str(path), model, read_card(tiny_records))
        _assert_equal(_weights(model), best)
        for variable in model.weights:
            first, second = variable.value.values
            np.testing.assert_array_equal(first, second)


# The same twice


DETERMINISTIC = """
import sys
import numpy as np
from stcn_tf.support import cli
cli.import_tensorflow()
from stcn_tf.config import Config
from stcn_tf.training.trainer import Trainer
from tensorflow.python.framework import config as context
data, folder, config = sys.argv[1:]
trainer = Trainer(Config.from_json(config, "config"), data, folder, report=lambda line: None)
assert context.is_op_determinism_enabled()
assert trainer.train()
weights = [variable.numpy() for variable in trainer.model.weights]
np.savez(f"{folder}/weights.npz", trainer.early_stopping.best, *weights)
"""


@pytest.mark.slow
def test_a_deterministic_run_twice_is_equal_to_the_last_bit(
    tmp_path, tiny_records, tiny_config_with
):
    # In processes of their own, because it holds for all of a process from then on.
    config = tiny_config_with(run={"deterministic": True, "max_steps": 4})
    made = []
    for name in ("a", "b"):
        arguments = (tiny_records, str(tmp_path / name), config.to_json())
        command = [sys.executable, "-c", DETERMINISTIC, *arguments]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
        made.append(dict(np.load(tmp_path / name / "weights.npz")))
    _assert_equal(*made)


def test_determinism_is_asked_for_before_anything_is_computed(
    tmp_path, tiny_records, tiny_config_with, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        tf.config.experimental, "enable_op_determinism", lambda: asked.append("determinism")
    )
    monkeypatch.setattr("keras.utils.set_random_seed", lambda seed: asked.append("seed"))
    for deterministic in (False, True):
        config = tiny_config_with(run={"deterministic": deterministic})
        Trainer(config, tiny_records, tmp_path / str(deterministic), report=_silent)
    assert asked == ["seed", "determinism", "seed"]


# How many checkpoints stay


def test_so_many_checkpoints_stay(tmp_path, tiny_records, tiny_config_with):
    def kept(keep, max_steps):
        run = {"keep_checkpoints": keep, "max_steps": max_steps, "checkpoint_every": 1}
        trainer = Trainer(tiny_config_with(run=run), tiny_records, tmp_path / "run", report=_silent)
        assert trainer.train()
        prefixes = checkpoint_files.in_folder(trainer.run.latest)
        return list(map(checkpoint_files.update_of, prefixes))

    assert kept(3, 3) == [3, 2, 1]
    assert kept(0, 5) == [5, 4, 3, 2, 1]
    assert kept(2, 6) == [6, 5]


# What a run says of itself


def test_each_start_is_in_the_history(tmp_path, tiny_records, tiny_config_with):
    def train(max_steps):
        config = tiny_config_with(run={"max_steps": max_steps})
        assert Trainer(config, tiny_records, tmp_path / "run", report=_silent).train()
        return _starts(tmp_path / "run")

    (first,) = train(1)
    assert first["update"] == 0
    assert first["versions"]["tensorflow"] == tf.__version__
    assert first["versions"]["numpy"] == np.__version__
    assert first["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert first["versions"].keys() >= {"stcn_tf", "keras", "system"}
    assert first["command"].endswith(shlex.join(sys.argv[1:]))
    assert "python" in first["command"]
    assert first["records"] == tiny_records
    assert "--max_steps=1" in first["settings"]
    assert {"--model=stcn_dense", "--num_filters=6", "--learning_rate=0.01"} <= {*first["settings"]}
    assert first["host"] and first["processor"] and first["devices"] == "the CPU"
    # Nothing to do is no start.
    assert train(1) == [first]
    again = train(2)
    assert again[0] == first
    assert (again[1]["update"], len(again)) == (1, 2)
    assert "--max_steps=2" in again[1]["settings"]


def test_a_run_that_is_stopped_over_and_over_keeps_a_short_history(tmp_path):
    for i in range(history.KEPT + 30):
        history.add_start(tmp_path, {"update": i}, pytest.fail)
    content = json.loads((tmp_path / "history.json").read_text())
    assert content["left_out"] == 30
    updates = [start["update"] for start in content["starts"]]
    assert updates == [0, *range(31, history.KEPT + 30)]
    assert len(updates) == history.KEPT


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"starts": 3, "left_out": 0}', '{"starts": [], "left_out": null}']
)
def test_a_history_that_cannot_be_read_begins_anew(tmp_path, text):
    (tmp_path / "history.json").write_text(text)
    told = []
    history.add_start(tmp_path, {"update": 7}, told.append)
    assert told == [f"{tmp_path / 'history.json'}: cannot be read; it begins anew"]
    assert _starts(tmp_path) == [{"update": 7}]


def test_a_history_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    history.add_start(tmp_path, {"update": 0}, pytest.fail)

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stcn_tf.support.files._fsync", full)
    with pytest.raises(UserError, match=r"history\.json: cannot be written \(No space left"):
        history.add_start(tmp_path, {"update": 7}, pytest.fail)
    assert _starts(tmp_path) == [{"update": 0}]


def test_the_commit_of_the_source(tmp_path, monkeypatch):
    package = tmp_path / "repository" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    about = history._source.__wrapped__
    assert about(str(package)) is None

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", package, *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "..")
    # Installed below somebody's repository, of which it is no part.
    assert about(str(package)) is None
    git("add", ".")
    git("commit", "-q", "-m", "one")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    clean = about(str(package))
    monkeypatch.delenv("GIT_DIR")
    assert clean == {"commit": git("rev-parse", "HEAD"), "is_changed": False}
    (package / "__init__.py").write_text("1")
    assert about(str(package))["is_changed"]
    monkeypatch.setenv("PATH", os.devnull)
    assert about(str(package)) is None


def test_begun_anew_it_forgets(tmp_path, tiny_records, tiny_config_with):
    config = tiny_config_with(run={"max_steps": 1})
    assert Trainer(config, tiny_records, tmp_path / "run", report=_silent).train()
    Trainer(config, tiny_records, tmp_path / "run", report=_silent, restart=True)
    assert not {"history.json", "status.json"} & {p.name for p in (tmp_path / "run").iterdir()}
