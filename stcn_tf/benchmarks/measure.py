"""Timing: what is compared alternates, so that a machine that changes its speed is fair to all."""

import contextlib
import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from stcn_tf.support.errors import UserError


def interleaved(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Times functions that return tensors or None, one after the other, again and again.

    Args:
        runs: by name; each is called once before, untimed.
        rounds: how often each is timed.

    Returns:
        Seconds of each call.
    """
    seconds = {name: [] for name in runs}
    for run in runs.values():
        wait(run())
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            wait(run())
            seconds[name].append(time.perf_counter() - start)
    return seconds


def compared(seconds: Mapping[str, list[float]], baseline: str) -> dict[str, dict[str, Any]]:
    """For each name its median seconds and how often faster it is than the baseline, in pairs.

    Args:
        seconds: of `interleaved`.
        baseline: the name of what the others are compared with.
    """
    rows = {}
    for name, values in seconds.items():
        pairs = [b / v for b, v in zip(seconds[baseline], values, strict=True)]
        rows[name] = {
            "seconds": statistics.median(values),
            "times_faster": statistics.median(pairs),
            "least": min(pairs),
            "most": max(pairs),
        }
    return rows


def check_same(what: str, one: Any, other: Any, rtol: float) -> None:
    """Refuses to time what does not agree.

    Raises:
        UserError: two arrays differ by more than `rtol` of the largest number.
    """
    one, other = np.asarray(one), np.asarray(other)
    difference, size = np.max(np.abs(one - other)), np.max(np.abs(other))
    if not difference <= rtol * size:
        raise UserError(f"{what}: the results differ by {difference:.2g} of {size:.2g}; not timed")


def wait(result: Any) -> None:
    """Until tensors are computed, on whatever device."""
    for part in tf.nest.flatten(result):
        np.asarray(part)


def peak_memory() -> int:
    """Of this process so far, in MiB."""
    with contextlib.suppress(OSError):
        # Linux counts what its parent took to the usage of a process.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
