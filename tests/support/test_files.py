import os
import subprocess
import sys
from pathlib import Path

import pytest

from stcn_tf.support.errors import UserError
from stcn_tf.support.files import replacing_file, replacing_folder

ERRORS = [RuntimeError("disk on fire"), KeyboardInterrupt()]


def tree(folder):
    """Content of each file, None of each folder, by path relative to `folder`."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def write_folder(path, text):
    with replacing_folder(path) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "a.txt").write_text(text)


def test_a_file_is_made_and_replaced(tmp_path):
    path = tmp_path / "sub" / "a.txt"
    for text in ("one", "two"):
        with replacing_file(path) as partial:
            assert partial.parent == path.parent and partial.name.startswith(".a.txt.")
            partial.write_text(text)
            assert not path.exists() or path.read_text() == "one"
        assert tree(tmp_path) == {"sub": None, "sub/a.txt": text}


def test_a_folder_is_made_and_replaced(tmp_path):
    for text in ("one", "two"):
        write_folder(tmp_path / "sub" / "out", text)
        assert tree(tmp_path) == {
            "sub": None,
            "sub/out": None,
            "sub/out/inner": None,
            "sub/out/inner/a.txt": text,
        }
    with replacing_folder(tmp_path / "sub" / "out") as partial:
        assert partial.name.startswith(".out.") and not any(partial.iterdir())
    assert tree(tmp_path) == {"sub": None, "sub/out": None}


def test_two_writers_do_not_meet(tmp_path):
    for replacing in (replacing_file, replacing_folder):
        with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
            assert one != other
            if replacing is replacing_file:
                one.write_text("")
                other.write_text("")
        (tmp_path / "a").unlink() if replacing is replacing_file else (tmp_path / "a").rmdir()
        assert tree(tmp_path) == {}


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    write_folder(tmp_path / "real", "one")
    (tmp_path / "link").symlink_to("real")
    write_folder(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "inner" / "a.txt").read_text() == "two"


@pytest.mark.parametrize("error", ERRORS)
def test_a_failure_inside_leaves_what_was_there(tmp_path, error):
    (tmp_path / "a.txt").write_text("one")
    write_folder(tmp_path / "out", "one")
    before = tree(tmp_path)
    for name in ("a.txt", "new.txt"):
        with pytest.raises(type(error)), replacing_file(tmp_path / name) as partial:
            partial.write_text("half")
            raise error
        with pytest.raises(type(error)), replacing_file(tmp_path / name):
            raise error
    for name in ("out", "new"):
        with pytest.raises(type(error)), replacing_folder(tmp_path / name) as partial:
            (partial / "half.txt").write_text("half")
            raise error
    assert tree(tmp_path) == before


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_move_is_rolled_back(tmp_path, monkeypatch, error, failing):
    write_folder(tmp_path / "out", "one")
    before = tree(tmp_path)
    rename, calls = Path.rename, []

    def fail_once(path, target):
        calls.append(path)
        if len(calls) == failing:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(type(error)):
        write_folder(tmp_path / "out", "two")
    assert tree(tmp_path) == before


def test_the_old_folder_outlives_a_failed_roll_back(tmp_path, monkeypatch):
    write_folder(tmp_path / "out", "one")
    rename, calls = Path.rename, []

    def fail_later(path, target):
        calls.append(path)
        if len(calls) > 1:
            raise OSError("disk on fire")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_later)
    with pytest.raises(OSError, match="disk on fire"):
        write_folder(tmp_path / "out", "two")
    (left,) = tmp_path.iterdir()
    assert (left / "inner" / "a.txt").read_text() == "one"


def test_everything_is_on_disk_before_it_is_moved(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def watched(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_folder(tmp_path / "out", "one")
    inodes = [path.stat().st_ino for path in (tmp_path / "out").rglob("*")]
    assert {*inodes, (tmp_path / "out").stat().st_ino, tmp_path.stat().st_ino} == set(synced)
    synced.clear()
    with replacing_file(tmp_path / "a.txt") as partial:
        partial.write_text("one")
    assert synced == [(tmp_path / "a.txt").stat().st_ino, tmp_path.stat().st_ino]


def test_a_place_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    for replacing in (replacing_file, replacing_folder):
        path = tmp_path / "file" / "a"
        with pytest.raises(UserError, match=f"{path}: cannot be written \\(") as caught:
            with replacing(path):
                raise AssertionError("not reached")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r": cannot be written \(File name too long\)"):
        with replacing_folder(tmp_path / ("a" * 250)):
            raise AssertionError("not reached")
    assert tree(tmp_path) == {"file": "mine"}


def test_it_needs_no_tensorflow():
    code = "import sys, stcn_tf.support.files; sys.exit('tensorflow' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
