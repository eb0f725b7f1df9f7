"""All commands by their names: listed without importing them, run as `python -m` runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import stcn_tf
from stcn_tf.support import commands

ROOT = Path(__file__).parents[2]


def run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "stcn_tf", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def called(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        commands.run(arguments)
    return ended.value.code, *capsys.readouterr()


def test_every_command_is_listed_with_its_line(capsys):
    code, listed, errors = called(capsys)
    assert (code, errors) == (0, "")
    for other in ("--help", "-h", "help"):
        assert called(capsys, other)[1] == called(capsys, "prepare", other)[1] == listed
    lines = [line.split(None, 1) for line in listed.splitlines() if line.startswith("  ")]
    assert ["train", "Trains a model on records, or continues a run."] in lines
    assert ["ink", "Anyone's own handwriting -> records of dx, dy and pen."] in lines
    # Whatever calls `cli.run` is one, and has a line.
    programs = [*ROOT.glob("stcn_tf/*.py"), *ROOT.glob("data_prep/*.py")]
    names = {path.stem for path in programs if "    cli.run(main," in path.read_text()}
    names |= {path.stem for path in programs if "    command.run(" in path.read_text()}
    assert names | {"synthetic"} == {name for name, _ in lines}
    assert len(lines) == len(names) + 1 and all(text.endswith(".") for _, text in lines)
    # As `make help` of each would say.
    assert not any(len(text) > 100 for _, text in lines)


def test_the_listing_is_there_at_once():
    """Nothing is imported that takes long."""
    code = (
        "import runpy, sys\n"
        "try: runpy.run_module('stcn_tf', run_name='__main__', alter_sys=True)\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib', 'h5py', 'av'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.startswith("usage: stcn-tf COMMAND")


def test_who_stops_reading_is_told_nothing():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "stcn_tf"],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_version(capsys):
    assert called(capsys, "--version") == (0, f"stcn_tf {stcn_tf.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said", "accepted"),
    [
        (["trian"], "trian: no such command (is train meant?)", "evaluate, export"),
        (["train.py"], "train.py: no such command; ", "train, prepare"),
        (["__main__"], "__main__: no such command;", "train"),
        (["flags"], "flags: no such command", "train"),
        (["--run_dir=x"], "--run_dir=x: no such command;", "train"),
        (["prepare", "iamon"], "prepare iamon: no such command (is prepare iamondb meant?)", ""),
        (["prepare", "train"], "prepare train: no such command", "prepare ink, prepare mnist"),
        (["iamondb"], "iamondb: no such command", "prepare"),
    ],
)
def test_an_unknown_one_is_told_in_a_line(arguments, said, accepted, capsys):
    code, out, told = called(capsys, *arguments)
    assert (code, out) == (2, "")
    assert told.startswith(f"error: {said}") and told.count("\n") == 1
    assert accepted in told.partition("; accepted: ")[2]


def test_a_command_is_run_as_by_its_module(tmp_path):
    done = run("train", "--run_dir=r", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: flag --data is required: ")
    help_of = run("runs", "--help", folder=tmp_path)
    assert help_of.stdout.startswith("usage: python -m stcn_tf.runs DIR --flag=value ...\n\nLists ")
    nothing = run("runs", str(tmp_path))
    assert (nothing.returncode, nothing.stdout) == (0, f"no run directories in {tmp_path}\n")
    made = run("prepare", "synthetic", f"--out={tmp_path}/raw", "--num_forms=2")
    assert made.returncode == 0 and (tmp_path / "raw" / "synthetic.json").is_file()
