"""Commands of this project as processes, some at once, each on a processor of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from stcn_tf.support import cli
from stcn_tf.support.files import make_folder

_SECONDS = 0.2  # between two looks
# Of a process that has one processor.
_ONE_THREAD = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


class Command(NamedTuple):
    """`python -m MODULE ARGUMENTS`."""

    about: str  # what it does, as in "training, 12,000 updates"
    module: str
    arguments: list[str]
    log: Path  # where what it prints goes


# Gives commands of which each begins when the one before has succeeded.
Job = Iterator[Command]


class _Running(NamedTuple):
    name: str
    job: Job
    log: Path
    process: subprocess.Popen


class Pool:
    """Runs jobs, some at once.

    Args:
        at_once: how many; None: as many as this process may use processors, on accelerators one.
        has_accelerator: whether the processes compute on accelerators.
        report: told what begins and what fails, a line for each.

    Attributes:
        at_once: how many.
    """

    def __init__(self, at_once: int | None, has_accelerator: bool, report: Callable[[str], None]):
        processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        default = 1 if has_accelerator else len(processors) or os.cpu_count() or 1
        self.at_once = at_once or default
        # More processes than processors, or accelerators: the operating system distributes them.
        share = not has_accelerator and self.at_once <= len(processors)
        self._places = [{processors[n]} if share else None for n in range(self.at_once)]
        self._report = report

    def run(self, jobs: dict[str, Job]) -> int:
        """Runs jobs to their ends, in the order in which they are given.

        A job of which a command fails ends with it; the others go on. Ctrl-C (SIGINT), SIGTERM and
        SIGHUP are passed on to what runs, which is waited for; another one ends it at once.

        Returns:
            The exit code: 0, 1 where a job has failed, or `cli.INTERRUPTED`.
        """
        waiting, failed = list(jobs.items()), False
        running: dict[int, _Running] = {}
        signals, passed_on = [], 0
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = {n: signal.signal(n, lambda number, _: signals.append(number)) for n in numbers}
        try:
            while running or (waiting and not signals):
                for place in range(self.at_once):
                    while place not in running and waiting and not signals:
                        self._next(running, place, *waiting.pop(0))
                time.sleep(_SECONDS)
                for number in signals[passed_on:]:
                    if not passed_on:
                        self._report("stopping what runs; the same command goes on")
                    passed_on += 1
                    for each in running.values():
                        each.process.send_signal(number)
                for place, (name, job, log, process) in list(running.items()):
                    if (code := process.poll()) is None:
                        continue
                    del running[place]
                    if code and not signals:
                        failed = True
                        self._report(f"{name}: failed: {_last_line(log)} ({log})")
                    elif not signals:
                        self._next(running, place, name, job)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for each in running.values():  # where this process has failed
                each.process.kill()
                each.process.wait()
        return cli.INTERRUPTED if signals else int(failed)

    def _next(self, running: dict[int, _Running], place: int, name: str, job: Job) -> None:
        """Starts the next command of a job, if there is one."""
        if (command := next(job, None)) is None:
            return
        self._report(f"{name}: {command.about}")
        environment = dict(os.environ)
        if self._places[place]:
            environment |= dict.fromkeys(_ONE_THREAD, "1")
        make_folder(command.log.parent)
        with command.log.open("a", encoding="utf-8") as log:
            # In a session of its own, because a terminal sends Ctrl-C to all processes of its own.
            process = subprocess.Popen(
                [sys.executable, "-m", command.module, *command.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        if self._places[place]:
            os.sched_setaffinity(process.pid, self._places[place])
        running[place] = _Running(name, job, command.log, process)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing")
