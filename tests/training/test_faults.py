"""What ordinary faults do to a run: nothing that was saved is lost, and one line says what is."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import checkpoint_files
from stcn_tf.flags import flag_lines
from stcn_tf.runs import LOCK_NAME, RunDirectory
from stcn_tf.support.errors import UserError
from stcn_tf.training.trainer import Trainer
from tests.conftest import eagerly

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture
def run_dir(tmp_path, trained_run) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_records, tiny_config) -> Path:
    """A folder with the states after 0, 5 and 8 updates."""
    folder = tmp_path_factory.mktemp("runs") / "kept"
    run = dataclasses.replace(tiny_config.run, keep_checkpoints=0)
    with eagerly():
        config = dataclasses.replace(tiny_config, run=run)
        assert Trainer(config, tiny_records, folder, report=lambda line: None).train()
    return folder / "checkpoints/latest"


@pytest.fixture(scope="module")
def longer(tmp_path_factory, tiny_records, tiny_config) -> list[np.ndarray]:
    """The weights after 10 updates of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("runs") / "longer"
    run = dataclasses.replace(tiny_config.run, max_steps=10)
    with eagerly():
        config = dataclasses.replace(tiny_config, run=run)
        run = Trainer(config, tiny_records, folder, report=lambda line: None)
        assert run.train()
    return _weights(run.model)


@pytest.fixture
def trainer(tiny_records, tiny_config_with, run_dir):
    """Function (lines, **settings of the run) -> a trainer that continues the copy."""

    def make(lines=None, restart=False, **settings):
        report = (lambda line: None) if lines is None else lines.append
        config = tiny_config_with(run=settings)
        return Trainer(config, tiny_records, run_dir, report=report, restart=restart)

    return make


def _weights(model):
    return [v.numpy() for v in model.weights]


def _damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "deleted":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        file.write_bytes(b"")
    else:
        # Of the data in the weights, which come last: those who read nothing else see it, too.
        content[len(content) * 7 // 8 if ".data-" in file.name else len(content) // 2] ^= 4
        file.write_bytes(content)


# Two trainers


def test_a_second_trainer_is_refused_and_changes_nothing(trainer, run_dir):
    refused = []

    class Lines(list):
        def append(self, line):
            if line.startswith("update      10/"):
                before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}
                with pytest.raises(UserError) as error:
                    trainer(max_steps=20)
                refused.append(str(error.value))
                assert {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()} == before

    assert trainer(Lines(), max_steps=12).train()
    who = rf"{run_dir}: in use by process {os.getpid()} on \S+ since 2\d{{3}}-[\d-]+ [\d:]+: wait"
    assert len(refused) == 1
    assert re.match(who, refused[0])
    assert trainer(max_steps=12).step == 12


def test_a_killed_process_leaves_no_lock(trainer, run_dir):
    script = (
        "import sys, time; from stcn_tf.support.locks import FolderLock; from pathlib import Path;"
        f"lock = FolderLock(Path({str(run_dir)!r}, '.lock')); print('held', flush=True);"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"in use by process {process.pid} on"):
            trainer()
        process.kill()
    assert trainer().step == 8


def test_a_trainer_does_not_go_on_where_another_has(trainer):
    first, second = trainer(max_steps=12), trainer(max_steps=16)
    assert second.train()
    with pytest.raises(UserError, match="another trainer has gone on .*, at update 8: make"):
        first.train()
    assert second.train()


def test_a_folder_of_something_else_gets_no_lock(tmp_path, tiny_records, tiny_config):
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(UserError, match="neither empty nor a run directory"):
        Trainer(tiny_config, tiny_records, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


# What is lost, or damaged


def test_a_run_has_a_state_from_its_beginning(tmp_path, tiny_records, tiny_config):
    trainer = Trainer(tiny_config, tiny_records, tmp_path / "run", report=lambda line: None)
    prefixes = checkpoint_files.in_folder(trainer.run.latest)
    assert list(map(checkpoint_files.update_of, prefixes)) == [0]


@pytest.mark.parametrize(
    "left", [("checkpoints/best",), ("events/train",), ("checkpoints/latest", "events/valid")]
)
def test_a_lost_state_is_not_begun_anew(left, trainer, run_dir):
    shutil.move(run_dir, run_dir.with_name("whole"))
    for name in ("config.json", "dataset.json", *left):
        source, target = run_dir.with_name("whole") / name, run_dir / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for file in (run_dir / "checkpoints/latest").glob("*.index"):
        file.unlink()
    before = sorted(p for p in run_dir.rglob("*") if p.name != LOCK_NAME)
    accepted = f"{left[0]} is there.*put it back, give another --run_dir, or .* with --restart"
    with pytest.raises(UserError, match=accepted):
        trainer()
    assert sorted(p for p in run_dir.rglob("*") if p.name != LOCK_NAME) == before
    # Asked to, it begins anew, of other settings, too.
    anew = trainer(restart=True, max_steps=4)
    assert anew.step == 0
    assert anew.train()
    assert RunDirectory.open(run_dir).load("best").update == 4


def test_a_run_that_was_killed_before_its_first_state_begins(trainer, run_dir):
    for made in ("checkpoints", "events"):
        shutil.rmtree(run_dir / made)
    assert trainer().step == 0


@pytest.mark.parametrize("how", ["deleted", "truncated", "empty", "a bit flipped"])
@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_the_whole_checkpoint_before_a_damaged_one_is_used_and_named(
    part, how, trained_run, trainer, run_dir, capfd
):
    newest, before = checkpoint_files.in_folder(run_dir / "checkpoints/latest")
    assert [Path(p).name for p in (newest, before)] == ["ckpt-8", "ckpt-5"]
    _damage(Path(f"{newest}.{part}"), how)
    # What the index lacks is not there at all.
    is_told = (part, how) != ("index", "deleted")
    loaded = RunDirectory.open(run_dir).load("latest")
    assert loaded.update == 5
    told = capfd.readouterr().err
    assert (f"{newest}: damaged" in told and f"what is read is {before}\n" in told) == is_told
    lines = []
    continued = trainer(lines)
    assert continued.step == 5
    assert any(f"what is read is {before}" in line for line in lines) == is_told
    assert continued.train()
    for a, b in zip(
        _weights(RunDirectory.open(trained_run).load("latest").model),
        _weights(continued.model),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_where_all_are_damaged_the_newest_is_named(trainer, run_dir):
    for prefix in checkpoint_files.in_folder(run_dir / "checkpoints/latest"):
        _damage(Path(f"{prefix}.index"), "empty")
    with pytest.raises(UserError, match="ckpt-8: damaged, or not of the model in config.json"):
        trainer()
    with pytest.raises(UserError, match="ckpt-8: damaged"):
        RunDirectory.open(run_dir).load("latest")


@pytest.mark.parametrize("how", ["deleted", "truncated", "empty", "a bit flipped"])
def test_the_list_of_checkpoints_may_be_damaged(how, trainer, run_dir):
    _damage(run_dir / "checkpoints/latest/checkpoint", how)
    assert trainer().step == 8


def test_better_weights_are_not_replaced_by_those_of_an_earlier_state(trainer, run_dir):
    best = RunDirectory.open(run_dir).load("best")
    assert best.update == 8
    _damage(Path(checkpoint_files.in_folder(run_dir / "checkpoints/latest")[0] + ".index"), "empty")
    continued = trainer()
    assert continued.step == 5
    continued.checkpoints.save_best(-1e9)
    assert RunDirectory.open(run_dir).load("best").update == 8
    continued.checkpoints.save_best(1e9)
    assert RunDirectory.open(run_dir).load("best").update == 5


def test_what_unfinished_writing_left_behind_goes(trainer, run_dir):
    left = run_dir / "checkpoints/latest/ckpt-9_temp"
    left.mkdir()
    (left / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"x")
    assert trainer().step == 8
    assert not left.exists()


# A reader beside a writer


# What there is, of the states after 0, 5 and 8, at each file operation of saving the last of them.
SAVING = {
    "nothing yet": ({0: "di", 5: "di"}, [0, 5], 5),
    "parts of its data": ({0: "di", 5: "di", 8: "t"}, [0, 5], 5),
    "its data": ({0: "di", 5: "di", 8: "d"}, [0, 5], 5),
    "all of it": ({0: "di", 5: "di", 8: "di"}, [0, 5], 8),
    "all of it, on the list": ({0: "di", 5: "di", 8: "di"}, [5, 8], 8),
    "the oldest without its index": ({0: "d", 5: "di", 8: "di"}, [5, 8], 8),
    "the oldest gone": ({5: "di", 8: "di"}, [5, 8], 8),
}


@pytest.mark.parametrize("moment", SAVING)
def test_whenever_saving_is_killed_the_run_goes_on_as_if_it_had_not_been(
    moment, trainer, run_dir, saved, longer
):
    files, listed, expected = SAVING[moment]
    latest = run_dir / "checkpoints/latest"
    shutil.rmtree(latest)
    latest.mkdir()
    for update, parts in files.items():
        for part, name in (("d", "data-00000-of-00001"), ("i", "index")):
            if part in parts:
                shutil.copy(saved / f"ckpt-{update}.{name}", latest)
        if "t" in parts:
            (latest / f"ckpt-{update}_temp").mkdir()
            whole = (saved / f"ckpt-{update}.data-00000-of-00001").read_bytes()
            (latest / f"ckpt-{update}_temp/part-00000-of-00001").write_bytes(whole[:-99])
    paths = "".join(f'all_model_checkpoint_paths: "ckpt-{n}"\n' for n in listed)
    text = f'model_checkpoint_path: "ckpt-{listed[-1]}"\n{paths}'
    (latest / "checkpoint").write_text(text)
    run = trainer(max_steps=10)
    # Not on the list yet, it comes after those that are, and is made again.
    assert run.step == (5 if moment == "all of it" else expected)
    assert run.train()
    for one, other in zip(_weights(run.model), longer, strict=True):
        np.testing.assert_array_equal(one, other)
    names = {path.name.partition(".")[0] for path in latest.glob("ckpt-*")}
    assert "ckpt-10" in names and not any("_temp" in name for name in names)


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path, tiny_records, tiny_config):
    """Most of them within a checkpoint or an evaluation, of which each update has one."""
    run = dataclasses.replace(
        tiny_config.run, max_steps=400, checkpoint_every=1, evaluate_every=7, log_every=50
    )
    flagfile = tmp_path / "run.flags"
    training = dataclasses.replace(tiny_config.training, patience=0)
    lines = flag_lines(dataclasses.replace(tiny_config, run=run, training=training))
    flagfile.write_text("\n".join([*lines, f"--data={tiny_records}"]))

    def start(name):
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "stcn_tf.train", f"--flagfile={flagfile}"),
                f"--run_dir={tmp_path / name}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with start("alone") as alone:
        assert "finished after 400 updates" in alone.communicate()[0]
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(200):
        with start("killed") as process:
            if kills < 20:
                line = process.stdout.readline()  # when it begins
                assert re.match("starting|continuing", line), line
                time.sleep(rng.exponential(0.5))
                process.kill()
                kills += 1
            rest = process.communicate()[0]
            assert "Traceback" not in rest
            if process.returncode == 0:
                break
    assert "finished" in rest
    models = (RunDirectory.open(tmp_path / n).load("latest").model for n in ("alone", "killed"))
    for one, other in zip(*map(_weights, models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_that_is_removed_while_it_is_read_is_not_damaged(run_dir, capfd):
    folder = run_dir / "checkpoints/latest"
    reads = []

    def read(prefix):
        reads.append(checkpoint_files.update_of(prefix))
        if len(reads) == 1:  # its writer has gone on meanwhile
            for part in ("index", "data-00000-of-00001"):
                os.rename(f"{prefix}.{part}", f"{folder}/ckpt-13.{part}")
            raise UserError("not found")

    told = []
    assert checkpoint_files.read_newest(folder, read, told.append) == f"{folder}/ckpt-5"
    assert reads == [8, 5]
    assert not told


def test_a_list_that_points_elsewhere_is_not_followed(tmp_path, trained_run, run_dir):
    folder = run_dir / "checkpoints/latest"
    elsewhere = shutil.copytree(trained_run / "checkpoints/latest", tmp_path / "elsewhere")
    for file in folder.glob("ckpt-8*"):
        file.unlink()
    (folder / "checkpoint").write_text(f'all_model_checkpoint_paths: "{elsewhere}/ckpt-8"\n')
    assert checkpoint_files.in_folder(folder) == [f"{folder}/ckpt-5"]


# Files that cannot be written


@pytest.mark.parametrize("name", ["latest", "best"])
def test_a_state_that_cannot_be_written_is_told_and_takes_nothing_with_it(
    name, trainer, run_dir, monkeypatch
):
    before = {p: p.read_bytes() for p in (run_dir / "checkpoints").rglob("*") if p.is_file()}
    continued = trainer(max_steps=12)

    def full(manager, *args, **kwargs):
        folder = Path(manager.directory, "ckpt-9_temp")
        folder.mkdir()
        (folder / "part").write_bytes(b"x")
        raise tf.errors.ResourceExhaustedError(None, None, "ckpt-9; No space left on device")

    save = tf.train.CheckpointManager.save
    monkeypatch.setattr(
        tf.train.CheckpointManager,
        "save",
        lambda m, *a, **k: (full if m.directory.endswith(name) else save)(m, *a, **k),
    )
    if name == "latest":
        with pytest.raises(UserError, match=r"latest: .* cannot be written \(.*No space left on"):
            continued.train()
    else:
        with pytest.raises(UserError, match="best: .* cannot be written"):
            continued.checkpoints.save_best(np.inf)
    after = {p: p.read_bytes() for p in (run_dir / "checkpoints").rglob("*") if p.is_file()}
    assert after == before


def _at_update(number, act):
    """Reports lines; when that of an update comes, acts."""

    class Lines(list):
        def append(self, line):
            super().append(line)
            if line.startswith(f"update {number:>7}/"):
                act()

    return Lines()


def test_events_that_cannot_be_written_end_the_run(trainer, run_dir, monkeypatch):
    def full(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(
            None, None, f"{run_dir}/events/train/events.out.v2; No space left on device\n\tFailed"
        )

    def fill():
        monkeypatch.setattr(tf.summary, "scalar", full)

    lines = _at_update(9, fill)
    with pytest.raises(UserError) as error:
        trainer(lines, max_steps=12).train()
    assert str(error.value) == (
        f"{run_dir}/events: cannot be written (No space left on device); what was saved before is "
        "as it was, and the same command goes on from there"
    )
    assert lines[-1].startswith("update       9/")
    monkeypatch.undo()
    continued = trainer(max_steps=12)
    assert continued.step == 8
    assert continued.train()


def test_what_ended_a_run_is_told_though_events_cannot_be_written(trainer, monkeypatch):
    def full(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    def save(*args, **kwargs):
        monkeypatch.setattr(type(continued._tensorboard._train), "flush", full)
        full()

    continued = trainer(max_steps=12)
    monkeypatch.setattr(tf.train.CheckpointManager, "save", save)
    with pytest.raises(UserError, match=r"checkpoints/\w+: the state after update"):
        continued.train()


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_run_directory_that_vanishes_is_not_made_anew(how, trainer, run_dir, trained_run):
    elsewhere = run_dir.with_name("moved")

    def vanish():
        run_dir.rename(elsewhere)
        if how == "removed":
            shutil.rmtree(elsewhere)
        if how == "replaced":
            shutil.copytree(trained_run, run_dir)

    with pytest.raises(UserError, match=f"{run_dir}: has been removed or moved \\("):
        trainer(_at_update(9, vanish), max_steps=12).train()
    assert run_dir.exists() == (how == "replaced")
    if how != "removed":
        assert RunDirectory.open(elsewhere).load("latest").update == 8


def test_what_is_left_of_a_beginning_on_a_full_disk_is_no_obstacle(trainer, run_dir):
    shutil.rmtree(run_dir / "checkpoints")
    shutil.rmtree(run_dir / "events")
    for name in ("config.json", "status.json", "history.json"):
        (run_dir / name).unlink()
    assert trainer().step == 0


# What is not the run's own


def test_a_list_that_points_elsewhere_removes_nothing_there(
    trainer, run_dir, trained_run, tmp_path
):
    elsewhere = Path(shutil.copytree(trained_run / "checkpoints/latest", tmp_path / "elsewhere"))
    names = [elsewhere / "ckpt-5", f"{tmp_path}/else*/ckpt-8", "../../../elsewhere/ckpt-8"]
    names += [run_dir / "checkpoints/latest/ckpt-8"]
    times = "".join(f"all_model_checkpoint_timestamps: {i}.0\n" for i in range(2, 6))
    (run_dir / "checkpoints/latest/checkpoint").write_text(
        f'model_checkpoint_path: "{names[0]}"\n'
        + "".join(f'all_model_checkpoint_paths: "{name}"\n' for name in names)
        + f"{times}last_preserved_timestamp: 1.0\n"
    )
    before = sorted(elsewhere.iterdir())
    continued = trainer(max_steps=20)
    assert continued.step == 8
    assert continued.train()
    assert sorted(elsewhere.iterdir()) == before


@pytest.mark.parametrize("made", ["checkpoints", "events", "evaluations"])
def test_restart_does_not_follow_links(made, trainer, run_dir, tmp_path):
    (run_dir / made).mkdir(exist_ok=True)
    (run_dir / made).rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "mine.txt").write_text("mine")
    (run_dir / made).symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    with pytest.raises(UserError, match=f"--restart: {run_dir}/{made}: a symbolic link, which"):
        trainer(restart=True)
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before
    assert (run_dir / made).is_symlink()


# Signals, and threads without them


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_signals_save(number, tmp_path, tiny_records, tiny_config):
    def report(line):
        if line.startswith("update       3/"):
            os.kill(os.getpid(), number)

    stopped = Trainer(tiny_config, tiny_records, tmp_path / "run", report)
    assert not stopped.train()
    assert RunDirectory.open(tmp_path / "run").load("latest").update == 3


def test_nohup_is_respected(tmp_path, tiny_records, tiny_config):
    def report(line):
        if line.startswith("update       3/"):
            os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert Trainer(tiny_config, tiny_records, tmp_path / "run", report).train()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_training_in_a_thread(trainer):
    made = []
    thread = threading.Thread(target=lambda: made.append(trainer(max_steps=9).train()))
    thread.start()
    thread.join()
    assert made == [True]
