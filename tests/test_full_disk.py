"""A disk that is full, read-only or gone: one line, and what was there before is as it was."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from stcn_tf import evaluate, export, flags, reconstruct, sample
from stcn_tf.data.card import read_card
from stcn_tf.data.sequences import write_sequences
from stcn_tf.data.sounds import write_wav
from stcn_tf.media.figures import save_png, save_svg
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import check_writable, replacing_file, replacing_folder
from tests.conftest import disk_with, eagerly

NO_ROOM = os.strerror(27)  # what a limit on the size of files says: "File too large"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def text_file(path, records):
    with replacing_file(path) as partial:
        partial.write_text("x" * 100_000)


def folder_of_tensorflow(path, records):
    with replacing_folder(path) as partial:
        tf.saved_model.save(tf.train.Checkpoint(v=tf.Variable(noise(10_000))), str(partial))


def strokes(path, records):
    write_sequences(path, read_card(records), {"strokes": [noise(4000, 3)] * 3}, {})


def sound(path, records):
    write_wav(path, noise(10_000), 16_000)


def drawing() -> Figure:
    figure = Figure()
    figure.add_axes((0, 0, 1, 1)).imshow(noise(90, 90))
    return figure


def png(path, records):
    save_png(drawing(), path)


def svg(path, records):
    save_svg(drawing(), path)


WRITERS = [text_file, folder_of_tensorflow, strokes, sound, png, svg]


@pytest.mark.parametrize("room", [0, 10_000])
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_what_does_not_fit_is_told_by_the_name_of_what_was_to_be(
    write, room, tmp_path, tiny_records
):
    path = tmp_path / "out"
    if write is folder_of_tensorflow:
        path.mkdir()
        (path / "saved_model.pb").write_text("mine")
    else:
        path.write_text("mine")
    before = contents(tmp_path)
    with disk_with(room), pytest.raises(UserError) as error:
        write(path, tiny_records)
    assert str(error.value) == f"{path}: cannot be written ({NO_ROOM})"
    assert contents(tmp_path) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [text_file, folder_of_tensorflow], ids=lambda w: w.__name__)
def test_a_folder_that_vanishes_meanwhile_is_told(write, tmp_path, tiny_records, monkeypatch):
    path = tmp_path / "sub" / "out"
    monkeypatch.setattr(os, "fsync", lambda descriptor: path.parent.rename(tmp_path / "moved"))
    with pytest.raises(UserError, match=f"{path}: cannot be written \\(No such file or directory"):
        write(path, tiny_records)


def test_other_errors_are_not_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError), replacing_file(tmp_path / "a"):
        (tmp_path / "raw data").read_bytes()


def test_room_is_checked_before(tmp_path):
    with disk_with(0), pytest.raises(UserError, match=NO_ROOM):
        check_writable(tmp_path / "a")
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be written \\(Is a directory"):
        check_writable(tmp_path)
    check_writable(tmp_path / "sub" / "a")
    assert contents(tmp_path) == {}


# name -> its module, its flags, what it writes first
COMMANDS = {
    "sample": (sample, flags.define_sample, ("--num=40", "--length=15"), "samples.h5"),
    "reconstruct": (
        reconstruct,
        flags.define_reconstruct,
        ("--data=RECORDS", "--split=valid"),
        "reconstructions.h5",
    ),
    "evaluate": (evaluate, flags.define_evaluate, ("--data=RECORDS", "--split=valid"), ""),
    "export": (export, flags.define_export, (), ""),
}


@pytest.fixture
def run_command(tiny_run, tiny_records, parse_flags, tmp_path):
    """Function (command) -> the path that it complains about; it writes to `tmp_path` / "out"."""

    def run(name):
        module, define, arguments, first = COMMANDS[name]
        arguments = [a.replace("RECORDS", tiny_records) for a in arguments]
        out = tmp_path / "out"
        if "define" not in parsed:
            parse_flags(define, f"--run_dir={tiny_run}", f"--out={out}", *arguments)
            parsed.add("define")
        with eagerly(name != "export"):
            module.main()

    parsed = set()
    return run


@pytest.mark.parametrize("name", ["sample", "reconstruct", "evaluate"])
def test_commands_check_before_they_compute(name, run_command, tmp_path, monkeypatch):
    def computed(*args, **kwargs):
        raise AssertionError("computed")

    for where in ("Generator.__call__", "Reconstructor.__call__"):
        monkeypatch.setattr(f"stcn_tf.inference.generation.{where}", computed)
    monkeypatch.setattr("stcn_tf.inference.evaluation.Evaluator.__call__", computed)
    path = tmp_path / "out" / COMMANDS[name][-1]
    with disk_with(60_000), pytest.raises(UserError) as error:
        run_command(name)
    assert str(error.value) == f"{path}: cannot be written ({NO_ROOM})"


@pytest.mark.parametrize("name", ["sample", "reconstruct", "export"])
def test_commands_tell_of_a_disk_that_fills_up(name, run_command, tmp_path):
    with disk_with(66_000), pytest.raises(UserError) as error:
        run_command(name)
    assert str(error.value).startswith(f"{tmp_path}/out")
    assert str(error.value).endswith(f": cannot be written ({NO_ROOM})")
    assert not [found for found in contents(tmp_path) if ".partial-" in found]


def test_an_evaluation_that_cannot_be_written_is_shown(run_command, monkeypatch, capsys):
    monkeypatch.setattr("stcn_tf.support.files.check_writable", lambda path: None)
    with disk_with(100), pytest.raises(UserError, match="cannot be written"):
        run_command("evaluate")
    shown = capsys.readouterr().out
    assert "ELBO" in shown
    assert "written" not in shown
