import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stcn_tf.support import cli

ROOT = Path(__file__).parents[2]

COMMAND = '''"""Counts things.

The second paragraph says more.
"""

import signal
import sys

from absl import flags

from stcn_tf.support import cli
from stcn_tf.support.errors import UserError

# What runs in the background of a script inherits that Ctrl-C is ignored; this one never.
signal.signal(signal.SIGINT, signal.default_int_handler)


def define():
    flags.DEFINE_string("data", None, "Directory of records.", required=True)
    flags.DEFINE_integer("size", 3, "Number of units.", lower_bound=1)
    flags.DEFINE_float("rate", 0.5, "Learning rate.")
    flags.DEFINE_boolean("dense", True, "Whether all latents are read.")
    flags.DEFINE_enum("kind", "gmm", ["gmm", "normal"], "Observation model.")


def main():
    assert "tensorflow" not in sys.modules
    if flags.FLAGS.data == "missing":
        raise UserError("missing:\\n  no such directory")
    if flags.FLAGS.data == "broken":
        raise RuntimeError("a defect")
    if flags.FLAGS.data == "long":
        for i in range(100_000):
            print(i)
    if flags.FLAGS.data == "forever":
        print("ready", flush=True)
        while True:
            pass
    print(flags.FLAGS.data, flags.FLAGS.size, flags.FLAGS.dense)
    return flags.FLAGS.size - 3


if __name__ == "__main__":
    cli.run(main, define, needs_tensorflow=False)
'''


def _environment() -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return env | {"PYTHONPATH": str(ROOT)}


def _runner(folder: Path, name: str, source: str):
    """Function (*arguments) -> the result of the command with this source."""
    (folder / f"{name}.py").write_text(source)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", name, *arguments],
            cwd=folder,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def run(tmp_path):
    return _runner(tmp_path, "count", COMMAND)


def test_main_gets_the_flags_and_its_result_is_the_exit_code(run):
    done = run("--data=here", "--size", "5", "--nodense")
    assert (done.stdout, done.stderr, done.returncode) == ("here 5 False\n", "", 2)
    assert run("--data=here").returncode == 0


def test_help_lists_the_commands_own_flags(run):
    done = run("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("usage: python -m count --flag=value ...\n\nCounts things.\n\n")
    assert "\n\nThe second paragraph says more.\n\n--data\n" in done.stdout
    assert "--data\n    Directory of records. (required)\n" in done.stdout
    assert "--size\n    Number of units. (default: 3; a positive integer)\n" in done.stdout
    assert "--[no]dense\n    Whether all latents are read. (default: true)\n" in done.stdout
    assert "--kind\n    <gmm|normal>: Observation model. (default: gmm)\n" in done.stdout
    assert "--flagfile=FILE" in done.stdout
    names = [
        line.split("]")[-1].lstrip("-") for line in done.stdout.splitlines() if line[:1] == "-"
    ]
    assert names[:-1] == ["data", "size", "rate", "dense", "kind"]


def test_short_help_equals_help_and_full_help_adds_the_libraries_flags(run):
    assert run("-h").stdout == run("--help").stdout
    full = run("--helpfull")
    assert full.returncode == 0
    assert "absl.flags:" in full.stdout
    assert "--size: Number of units." in full.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "flag --data is required: Directory of records."),
        (["--data"], "Missing value for flag --data; see --help"),
        (["--data=x", "--siz=3"], "Unknown command line flag 'siz'. Did you mean: size ?"),
        (["--data=x", "--size=0"], "flag --size=0: 0 is not a positive integer"),
        (["--data=x", "--size=many"], "accepted: a positive integer"),
        (["--data=x", "--rate=fast"], "flag --rate=fast: "),
        (["--data=x", "--rate=fast"], "accepted: a number"),
        (["--data=x", "--dense=perhaps"], "flag --dense=perhaps: accepted: true, false"),
        (
            ["--data=x", "--kind=laplace"],
            "flag --kind=laplace: value should be one of <gmm|normal>",
        ),
        (["--data=x", "stray"], "unexpected argument 'stray': flags are written --name=value"),
        (["--dense", "false", "--data=x"], "unexpected argument 'false'"),
        (["--data=x", "--nodense=true"], "flag --nodense=true does not take an argument; accepted"),
        (["--data=x", "-nodense=1"], "accepted: --dense, --nodense, --dense=true, --dense=false"),
        (["--flagfile=absent.flags"], "flagfile absent.flags: no such file; looked for in the c"),
        (["--flagfile=."], "Is a directory"),
        (["--data=x", "--flagfile"], "--flagfile: names no file"),
        (["--data=missing"], "error: missing: no such directory\n"),
    ],
)
def test_a_mistake_is_told_in_one_line(run, arguments, message):
    done = run(*arguments)
    assert done.returncode == cli.USAGE_ERROR == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


COPY = '''"""Copies."""

from absl import flags

from stcn_tf.support import cli


def define():
    flags.DEFINE_string("source", None, "Where from.")
    flags.DEFINE_integer("times", None, "How often.", lower_bound=1)
    flags.DEFINE_string("mode", "fast", "How.")


def main():
    print(flags.FLAGS.source, flags.FLAGS.times, flags.FLAGS.mode)


if __name__ == "__main__":
    cli.run(main, define, needs_tensorflow=False, positional=("source", "times"))
'''


@pytest.fixture
def copy(tmp_path):
    return _runner(tmp_path, "copy_files", COPY)


@pytest.mark.parametrize(
    "arguments",
    [
        ("here", "3", "--mode=slow"),
        ("--mode=slow", "here", "3"),
        ("here", "--mode", "slow", "--times=3"),
        ("--source=here", "3", "--mode=slow"),
        ("--times=3", "--mode=slow", "--source=here"),
    ],
)
def test_words_fill_the_positional_flags_that_are_not_given_by_name(copy, arguments):
    done = copy(*arguments)
    assert (done.stdout, done.stderr, done.returncode) == ("here 3 slow\n", "", 0)


USAGE = "usage: python -m copy_files SOURCE TIMES --flag=value ..."


def test_help_shows_the_positional_arguments(copy):
    text = copy("--help").stdout
    assert text.startswith(f"{USAGE}\n\nCopies.\n\n")
    assert "\nSOURCE, --source\n    Where from. (required)\n" in text
    assert "\nTIMES, --times\n    How often. (required; a positive integer)\n" in text
    assert "\n--mode\n    How. (default: fast)\n" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), f"SOURCE is missing: {USAGE}\n"),
        (("here",), f"TIMES is missing: {USAGE}\n"),
        (("--times=3", "--mode=slow"), f"SOURCE is missing: {USAGE}\n"),
        (("here", "3", "more"), "unexpected argument 'more': flags are written --name=value"),
        (("--source=here", "3", "more"), "unexpected argument 'more'"),
        (("here", "0"), "flag --times=0: 0 is not a positive integer"),
        (("here", "often"), "accepted: a positive integer"),
    ],
)
def test_a_mistake_in_a_positional_argument_is_told_in_one_line(copy, arguments, message):
    done = copy(*arguments)
    assert (done.returncode, done.stdout) == (cli.USAGE_ERROR, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_flags_after_a_flagfile_win_over_it(run, tmp_path):
    (tmp_path / "base.flags").write_text("# a comment\n--data=base\n--size=7\n")
    (tmp_path / "row.flags").write_text("--flagfile=base.flags\n--nodense\n")
    assert run("--flagfile=row.flags", "--size=3").stdout == "base 3 False\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_nothing_else(run, tmp_path, closed):
    # Were the number of stdout free, the file would get it, and what is printed with it.
    source = COMMAND.replace(
        "    print(flags.FLAGS.data,",
        "    file = open('written', 'w')\n    print('noise', flush=True)\n"
        "    print('noise', file=sys.stderr)\n    file.write('content')\n    file.close()\n"
        "    print(flags.FLAGS.data,",
    )
    (tmp_path / "count.py").write_text(source)
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m count --data=here --size=5 {closed}"],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ("" if ">&-" in closed.split() else "noise\nhere 5 True\n")
    assert done.stderr == ("" if "2>&-" in closed else "noise\n")
    assert (tmp_path / "written").read_text() == "content"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_a_full_disk_under_stdout_is_told_in_one_line(run, tmp_path):
    environment = {k: v for k, v in _environment().items() if k != "PYTHONUNBUFFERED"}
    for data, more in (("here", {}), ("long", {}), ("here", {"PYTHONUNBUFFERED": "1"})):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "count", f"--data={data}"],
                cwd=tmp_path,
                env=environment | more,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
            )
        assert (done.stderr, done.returncode) == (
            "error: cannot write to a file or stdout: No space left on device\n",
            2,
        )


def test_a_defect_keeps_its_traceback(run):
    done = run("--data=broken")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_interrupt_exits_with_130_and_one_line(tmp_path):
    (tmp_path / "count.py").write_text(COMMAND)
    with subprocess.Popen(
        [sys.executable, "-m", "count", "--data=forever"],
        cwd=tmp_path,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (error, process.returncode) == ("interrupted\n", cli.INTERRUPTED)


def test_tensorflow_is_imported_without_its_chatter(tmp_path):
    (tmp_path / "add.py").write_text(
        "import sys\n"
        "from stcn_tf.support import cli\n"
        "def main():\n"
        "    tf = sys.modules['tensorflow']\n"
        "    print(float(tf.constant(1.0) + 2.0))\n"
        "    print('from main', file=sys.stderr)\n"
        "cli.run(main, lambda: None)\n"
    )
    done = subprocess.run(
        [sys.executable, "add.py"],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("3.0\n", "from main\n", 0)


@pytest.fixture
def no_log_level(monkeypatch):
    # Set first, so that it is undone whatever `quiet_import` leaves behind.
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")


def test_quiet_import_drops_what_a_good_import_prints(no_log_level, capfd):
    with cli.quiet_import():
        os.write(2, b"from C++\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "2"


def test_quiet_import_shows_what_a_failed_import_printed(no_log_level, capfd):
    with pytest.raises(ImportError, match="libcuda"), cli.quiet_import():
        os.write(2, b"why it failed\n")
        raise ImportError("libcuda")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "why it failed\nafterwards\n"


def test_a_log_level_that_is_set_shows_everything(monkeypatch, capfd):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with cli.quiet_import():
        os.write(2, b"from C++\n")
    assert capfd.readouterr().err == "from C++\n"


def test_output_that_nobody_reads_any_more_ends_the_command(run, tmp_path):
    command = subprocess.Popen(
        [sys.executable, "-m", "count", "--data=long"],
        cwd=tmp_path,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout.readline() == "0\n"
    command.stdout.close()
    assert command.stderr.read() == ""
    command.stderr.close()
    assert command.wait(timeout=60) == cli.BROKEN_PIPE
