"""The table of runs, whatever is in them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stcn_tf import run_list, run_status, runs
from stcn_tf.data.card import read_card
from stcn_tf.run_status import RunStatus
from stcn_tf.runs import RunDirectory
from stcn_tf.support import locks
from stcn_tf.support.errors import UserError

DONE = RunStatus("finished", 70, 9000, -1234.56, 50, "ELBO (raw)", 4321, "finished after 70")


@pytest.fixture
def make(tmp_path, tiny_records, tiny_config):
    """Function (name, status, update of the checkpoint) -> a run directory without weights."""

    def make(name: str, status: RunStatus | None = None, saved: int | None = None) -> Path:
        run = RunDirectory.prepare(tmp_path / name, tiny_config, read_card(tiny_records))
        if saved is not None:
            run.latest.mkdir(parents=True)
            for update in (3, saved):
                (run.latest / f"ckpt-{update}.index").write_bytes(b"x" * 10)
        if status is not None:
            status.write(run.path)
        return run.path

    return make


def test_a_finished_run(make, tmp_path):
    make("a", DONE, 70)
    seen = run_list.look_at(tmp_path / "a")
    assert seen[1:-2] == ("finished", "70 of 9,000", "-1,234.6", "50", "4,321")
    assert re.fullmatch(r"\d+ k?B", seen.disk)
    assert seen.notes == ("", "best ELBO (raw)", "finished after 70")
    header, row, *notes = run_list.table(tmp_path).splitlines()
    assert header.split()[:3] == ["run", "state", "updates"]
    assert "best nats/sequence" in header
    assert row.split()[:5] == ["a", "finished", "70", "of", "9,000"]
    assert notes == ["    best ELBO (raw)", "    finished after 70"]
    # Numbers end where their heads do.
    for head, cell in (("updates", "9,000"), ("best nats/sequence", "-1,234.6"), ("after", " 50")):
        assert header.index(head) + len(head) == row.index(cell) + len(cell)
    # Itself, too.
    assert run_list.table(tmp_path / "a").splitlines()[1].startswith(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("training", "interrupted"),  # killed: nobody holds the lock
        ("stopped", "interrupted"),
        ("stopped early", "stopped early"),
        ("failed", "failed"),
    ],
)
def test_states(state, seen, make):
    path = make("run", RunStatus(state, 70, 90), 60)
    assert run_list.look_at(path).state == seen
    # It would go on from there.
    assert run_list.look_at(path).updates == "60 of 90"
    assert run_list.look_at(path).best == "?"


def test_a_run_at_work(make):
    path = make("run", RunStatus("training", 70, 90, line="update 70"), 60)
    with runs.lock(path):
        seen = run_list.look_at(path)
        assert (seen.state, seen.updates) == ("running", "70 of 90")
        assert seen.notes[0].startswith(f"process {os.getpid()} on ")
        assert seen.notes[2] == "update 70"
        # To look takes nothing from who trains, nor leaves anything.
        with pytest.raises(UserError, match="in use by"):
            runs.lock(path)
    assert run_list.look_at(path).state == "interrupted"


def test_who_looks_keeps_no_trainer_out(make, monkeypatch):
    path = make("run", RunStatus("training"))
    runs.lock(path).release()
    looking = os.open(path / ".lock", os.O_RDONLY)
    locks.fcntl.flock(looking, locks.fcntl.LOCK_SH)
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: os.close(looking))
    with runs.lock(path) as lock:
        assert lock.is_held


def test_a_file_system_without_locks(make, monkeypatch):
    path = make("run", RunStatus("training"), 5)

    def flock(*arguments):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    runs.lock(path).release()
    monkeypatch.setattr(locks.fcntl, "flock", flock)
    assert run_list.look_at(path).state == "running or interrupted"


def test_a_run_of_an_earlier_version(make):
    seen = run_list.look_at(make("run", None, 400))
    assert seen[1:-2] == ("not running", "400", "?", "?", "?")


def _no_config(path):
    (path / "config.json").write_text("{")


def _no_card(path):
    (path / "dataset.json").unlink()


def _no_status(path):
    (path / "status.json").write_bytes(b"\xff")


def _no_state(path):
    for file in (path / "checkpoints/latest").iterdir():
        file.unlink()
    (path / "events/train").mkdir(parents=True)
    (path / "events/train/events.1").write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_config, r"config\.json: not JSON"),
        (_no_card, "dataset.json"),
        (_no_status, r"status\.json: not UTF-8 text"),
        (_no_state, "checkpoints/latest: its state is lost"),
    ],
)
def test_a_damaged_run_is_a_line(damage, message, make, tmp_path):
    make("a", DONE, 70)
    damage(make("b", DONE, 70))
    make("c", DONE, 70)
    assert [run_list.look_at(tmp_path / n).state for n in "abc"] == [
        "finished",
        "damaged",
        "finished",
    ]
    seen = run_list.look_at(tmp_path / "b")
    assert re.search(message, seen.notes[-1])
    assert run_list.table(tmp_path).count("70 of 9,000") == (2 if damage is _no_status else 3)


def test_what_is_printed_is_of_one_line_and_harmless(make, tmp_path):
    make("run", RunStatus("failed", line="one\n two \x1b[2J"), 3)
    assert run_list.table(tmp_path).splitlines()[-1] == "    one two ?[2J"


def test_where_runs_are_found(make, tmp_path):
    for name in ("b/inner", "a", "b/other/deep", ".hidden/run"):
        make(name)
    shutil.copytree(tmp_path / "a", tmp_path / "a/checkpoints/run")  # a run is not searched
    (tmp_path / "of_others").mkdir()
    (tmp_path / "of_others/config.json").write_text("{}")
    (tmp_path / "b/circle").symlink_to(tmp_path)
    (tmp_path / "b/lost").symlink_to(tmp_path / "nowhere")
    elsewhere = tmp_path.with_name(f"{tmp_path.name}_elsewhere")
    shutil.copytree(tmp_path / "a", elsewhere)
    (tmp_path / "link").symlink_to(elsewhere)
    found = [str(p.relative_to(tmp_path)) for p in run_list.run_directories(tmp_path)]
    assert found == ["a", "b/inner", "b/other/deep", "link"]
    deep = "/".join("x" * (run_list.DEPTH + 1))
    make(deep)
    assert tmp_path / deep not in run_list.run_directories(tmp_path)
    assert tmp_path / deep in run_list.run_directories(tmp_path / "x")


def test_no_runs(tmp_path):
    assert run_list.table(tmp_path) == f"no run directories in {tmp_path}"
    for path in (tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(UserError, match="accepted: a folder of runs"):
            run_list.table(path)


def test_the_command_needs_no_tensorflow(make, tmp_path):
    make("a", DONE, 70)
    script = (
        "import runpy, sys; sys.argv = ['runs', sys.argv[1]]\n"
        "try:\n runpy.run_module('stcn_tf.runs', run_name='__main__')\n"
        "except SystemExit as end: print('code', end.code)\n"
        "print({'tensorflow', 'keras', 'h5py'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script]
    root = Path(run_list.__file__).parents[1]

    def run(folder):
        return subprocess.run(
            [*command, str(folder)], cwd=root, capture_output=True, text=True, check=True
        )

    result = run(tmp_path)
    *table, code, modules = result.stdout.splitlines()
    assert "\n".join(table) == run_list.table(tmp_path)
    assert (code, modules, result.stderr) == ("code None", "set()", "")
    missing = run(tmp_path / "b")
    assert missing.stdout.splitlines()[0] == "code 2"
    assert missing.stderr == (
        f"error: {tmp_path}/b: No such file or directory; accepted: a folder of runs\n"
    )


def test_a_real_run(tiny_run):
    seen = run_list.look_at(Path(tiny_run))
    assert (seen.state, seen.updates) == ("not running", "0")
    assert json.loads((Path(tiny_run) / "config.json").read_text())
    assert not (Path(tiny_run) / run_status.STATUS_NAME).exists()
