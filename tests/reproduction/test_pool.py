"""Jobs of commands: in turn, at once, failing, stopped by signals."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from stcn_tf.reproduction.pool import Command, Pool
from stcn_tf.support import cli


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Function (jobs, at_once) -> (exit code, lines told); jobs: {name: [module, ...]}.

    The modules are programs in a folder of their own: `say.py WORD` and so on.
    """
    (tmp_path / "say.py").write_text(
        "import os, sys\nprint(*sys.argv[1:], os.sched_getaffinity(0))"
    )
    (tmp_path / "fail.py").write_text(
        "import sys\nprint('no', flush=True)\nsys.exit('error: why')\n"
    )
    (tmp_path / "wait.py").write_text(
        "import signal, sys, time\n"
        "def stop(number, frame):\n    print('stopped by', number)\n    sys.exit(130)\n"
        "for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(n, stop)\n"
        "print('waiting', flush=True)\ntime.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lines = []

    def run(jobs, at_once=2):
        def job(name, modules):
            for number, module in enumerate(modules):
                log = tmp_path / "logs" / f"{name}.log"
                yield Command(f"step {number}", module, [f"{name}{number}"], log)
                (tmp_path / f"{name}{number}.done").touch()

        pool = Pool(at_once, False, lines.append)
        return pool.run({name: job(name, modules) for name, modules in jobs.items()}), lines

    run.folder, run.lines = tmp_path, lines
    return run


def test_commands_of_a_job_follow_one_another(run):
    code, lines = run({"a": ["say", "say"], "b": ["say"]}, at_once=1)
    assert code == 0
    assert lines == ["a: step 0", "a: step 1", "b: step 0"]
    logs = {name: (run.folder / f"logs/{name}.log").read_text() for name in "ab"}
    assert [line.split()[0] for line in logs["a"].splitlines()] == ["a0", "a1"]
    assert {path.stem for path in run.folder.glob("*.done")} == {"a0", "a1", "b0"}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux tells of processors")
def test_each_has_a_processor_of_its_own(run):
    processors = sorted(os.sched_getaffinity(0))
    code, _ = run({str(n): ["say"] for n in range(len(processors))}, at_once=len(processors))
    assert code == 0
    texts = [(run.folder / f"logs/{n}.log").read_text() for n in range(len(processors))]
    assert {text.split(maxsplit=1)[1].strip() for text in texts} == {
        str({processor}) for processor in processors
    }


def test_a_job_that_fails_is_told_and_ends_and_others_go_on(run):
    code, lines = run({"a": ["fail", "say"], "b": ["say", "say"]})
    assert code == 1
    log = run.folder / "logs/a.log"
    assert f"a: failed: error: why ({log})" in lines
    assert "a: step 1" not in lines and "b: step 1" in lines
    assert not (run.folder / "a0.done").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_what_runs_and_nothing_else_begins(run, number):
    before = signal.getsignal(number)
    log = run.folder / "logs/a.log"

    def ask():
        while not (log.exists() and "waiting" in log.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=ask, daemon=True).start()
    code, lines = run({"a": ["wait", "say"], "b": ["say"]}, at_once=1)
    assert code == cli.INTERRUPTED
    assert lines == ["a: step 0", "stopping what runs; the same command goes on"]
    assert f"stopped by {int(number)}" in log.read_text()
    assert not list(run.folder.glob("*.done"))
    assert signal.getsignal(number) == before


def test_processes_end_with_an_error_of_this_one(run, monkeypatch):
    def broken(seconds):
        raise RuntimeError

    monkeypatch.setattr("stcn_tf.reproduction.pool.time.sleep", broken)
    with pytest.raises(RuntimeError):
        run({"a": ["wait"]})
    monkeypatch.undo()
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert f"{sys.executable} -m wait a0" not in processes
