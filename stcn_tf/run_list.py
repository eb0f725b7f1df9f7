"""The runs in a folder, as a table. Nothing here needs TensorFlow."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stcn_tf import checkpoint_files, run_status
from stcn_tf.data.card import CARD_NAME
from stcn_tf.run_status import STATUS_NAME, RunStatus
from stcn_tf.runs import CONFIG_NAME, LOCK_NAME, RunDirectory, is_packaged, located
from stcn_tf.support import locks
from stcn_tf.support.errors import UserError

# How many folders deep runs are looked for.
DEPTH = 6

_HEADER = ("run", "state", "updates", "best nats/sequence", "after", "parameters", "disk")
_UNKNOWN = "?"


class Listed(NamedTuple):
    """A run as the table has it: a row, and lines below it."""

    path: Path
    state: str
    updates: str
    best: str
    after: str  # the update of the best
    num_parameters: str
    disk: str
    notes: tuple[str, ...]  # who trains it, what the best is of, the last line of progress


def table(folder: str | os.PathLike) -> str:
    """The runs in a folder: a row for each, and below it what its best is of and its last line.

    Args:
        folder: a run directory, or one with run directories in it, `DEPTH` folders deep at most. A
            run directory is not searched for others.

    Raises:
        UserError: it is no folder that can be read.
    """
    folder = located(folder)
    try:
        os.listdir(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; accepted: a folder of runs") from error
    found = [look_at(path) for path in run_directories(folder)]
    if not found:
        return f"no run directories in {folder}"
    rows = [_HEADER]
    for run in found:
        name = run.path.relative_to(folder) if run.path != folder else folder
        rows.append((_printable(str(name)), *run[1:-1]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_row(_HEADER, widths)]
    for run, row in zip(found, rows[1:], strict=True):
        lines += [_row(row, widths), *(f"    {_printable(note)}" for note in run.notes if note)]
    return "\n".join(lines)


def run_directories(folder: Path) -> Iterator[Path]:
    """The run directories in a folder in the order of their names, itself perhaps the only one."""
    yield from _search(folder, DEPTH, set())


def look_at(path: Path) -> Listed:
    """What can be seen of a run directory, whatever is missing in it."""
    # First of all: what a trainer that ends says last is then read after it has let go.
    try:
        holder, nobody = locks.holder(path / LOCK_NAME), "interrupted"
    except OSError:  # no locks on this file system, or not for this reader
        holder, nobody = "", "running or interrupted"
    status, damage, packaged = None, "", is_packaged(path)
    try:
        status = RunStatus.read(path)
        run = RunDirectory.open(path)
        if checkpoint_files.last_update(run.latest) is None and run.traces and not packaged:
            damage = f"{run.latest}: its state is lost"
    except UserError as error:
        damage = str(error)
    except OSError as error:
        damage = f"{error.filename}: {error.strerror}"
    # Who goes on with a run that is not at work goes on from what was saved.
    update = checkpoint_files.last_update(path / "checkpoints" / "latest")
    state = _state(status, nobody)
    if packaged:
        update = checkpoint_files.last_update(path / "checkpoints" / "best")
        state = "packaged"
    if status and (holder or update is None):
        update = status.update
    updates = _UNKNOWN if update is None else f"{update:,}"
    if status and status.last_update:
        updates += f" of {status.last_update:,}"
    is_evaluated = status is not None and status.best is not None
    return Listed(
        path,
        "running" if holder else "damaged" if damage else state,
        updates,
        f"{status.best:,.1f}" if is_evaluated else _UNKNOWN,
        f"{status.best_update:,}" if is_evaluated else _UNKNOWN,
        f"{status.num_parameters:,}" if status else _UNKNOWN,
        _size(path),
        (
            holder,
            f"best {status.best_of}" if is_evaluated else "",
            damage or (status.line if status else ""),
        ),
    )


def _state(status: RunStatus | None, nobody: str) -> str:
    """In words, of a run that no trainer holds; `nobody`: if it has not come to an end."""
    if status is None:
        return "not running"
    has_ended = status.state not in (run_status.TRAINING, run_status.STOPPED)
    return status.state if has_ended else nobody


def _search(folder: Path, depth: int, seen: set[tuple[int, int]]) -> Iterator[Path]:
    with contextlib.suppress(OSError):  # what cannot be read is no run of this reader
        about = folder.stat()
        # Links are followed, in a circle once.
        if (about.st_dev, about.st_ino) in seen:
            return
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as entries:
            kinds = {entry.name: _is_folder(entry) for entry in entries}
        others = (CARD_NAME, STATUS_NAME, "checkpoints")
        if CONFIG_NAME in kinds and any(name in kinds for name in others):
            yield folder
        elif depth:
            for name in sorted(name for name, is_folder in kinds.items() if is_folder):
                if not name.startswith("."):
                    yield from _search(folder / name, depth - 1, seen)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _size(path: Path) -> str:
    """What its files take, in words."""
    size = 0.0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):  # a trainer removes some
                size += Path(folder, name).lstat().st_size
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    """Words to the left, numbers to the right."""
    words, numbers = cells[:2], cells[2:]
    return "  ".join(
        [
            *(cell.ljust(width) for cell, width in zip(words, widths, strict=False)),
            *(cell.rjust(width) for cell, width in zip(numbers, widths[2:], strict=True)),
        ]
    )


def _printable(text: str) -> str:
    """Without what a terminal might obey."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
