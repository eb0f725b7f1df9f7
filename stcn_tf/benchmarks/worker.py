"""A process of its own for what is timed: with its own environment, and its own peak of memory."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Self


class Worker:
    """Prepares functions of `work.WORK` in a new process and calls them there, in any order.

    Used in a `with` statement, after which the process has ended.

    Args:
        names: of the functions.
        arguments: of each.
        environment: variables that TensorFlow reads when it is imported there; None: not set.
    """

    def __init__(
        self,
        names: Sequence[str],
        arguments: Sequence[Any],
        environment: Mapping[str, str | None] | None = None,
    ):
        self._pool = ProcessPoolExecutor(
            1,
            multiprocessing.get_context("spawn"),  # a fork of TensorFlow's threads hangs
            _prepare,
            (tuple(names), tuple(arguments), dict(environment or {})),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, name: str) -> None:
        """Calls one of the functions and waits for it."""
        self._pool.submit(_call, name).result()

    def peak_memory(self) -> int:
        """Of the process so far, in MiB."""
        return self._pool.submit(_peak_memory).result()

    def operations(self, name: str) -> float:
        """Floating-point operations of the products of one call."""
        return self._pool.submit(_operations, name).result()


# In the process: what was prepared, by name.
_work: dict[str, Any] = {}


def _prepare(names: Sequence[str], arguments: Sequence[Any], environment: Mapping[str, str | None]):
    # Ctrl-C reaches this process, too; the one that waits for it says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "tensorflow" in sys.modules:
        raise RuntimeError("TensorFlow was imported before its environment was set")
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    from stcn_tf.support import cli

    cli.import_tensorflow(as_chosen=not environment)
    from stcn_tf.benchmarks.work import WORK

    _work.update({name: WORK[name](*arguments) for name in names})


def _call(name: str) -> None:
    from stcn_tf.benchmarks.measure import wait

    wait(_work[name].run())


def _operations(name: str) -> float:
    return _work[name].operations


def _peak_memory() -> int:
    from stcn_tf.benchmarks.measure import peak_memory

    return peak_memory()
