"""The checkpoints in a folder: which there are, and the newest that is whole.

A folder may be read while a trainer writes to it, and may have lost files, or parts of them.
TensorFlow keeps a checksum of every tensor and compares it when it reads. It is imported when it is
needed, which to see what files there are it is not.
"""

import contextlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from stcn_tf.support.errors import UserError


def in_folder(folder: Path) -> list[str]:
    """The prefixes of the files of each checkpoint, the newest first.

    They come in the order of the list that their writer keeps; those that it lacks, or all where it
    is lost, follow by the numbers in their names.
    """
    numbers = _numbers(folder)
    listed = [name for name in _listed(folder) if name in numbers]
    others = sorted(numbers.keys() - set(listed), key=numbers.get, reverse=True)
    return [str(folder / name) for name in (*listed, *others)]


def last_update(folder: Path) -> int | None:
    """The highest number among the checkpoints, or None: there are none. Needs no TensorFlow."""
    return max(_numbers(folder).values(), default=None)


def update_of(prefix: str) -> int:
    """The update after which a checkpoint was written."""
    return int(prefix.rpartition("-")[2])


def read_newest(
    folder: Path, read: Callable[[str], None], tell: Callable[[str], None]
) -> str | None:
    """Reads the newest checkpoint that is whole.

    Args:
        folder: of the checkpoints.
        read: reads one, given its prefix; a UserError says that it is damaged.
        tell: told in one line of damaged ones that are newer.

    Returns:
        The prefix of the one that was read, or None: there are none.

    Raises:
        UserError: there are some, and all are damaged: that of the newest.
    """
    damaged = {}
    while True:
        left = [prefix for prefix in in_folder(folder) if prefix not in damaged]
        if not left:
            if damaged:
                raise next(iter(damaged.values()))
            return None
        try:
            read(left[0])
        except UserError as error:
            # Its writer may have removed it meanwhile, having written a newer one.
            if Path(f"{left[0]}.index").exists():
                damaged[left[0]] = error
            continue
        if damaged:
            tell(f"{next(iter(damaged.values()))}; what is read is {left[0]}")
        return left[0]


def sweep(folder: Path) -> None:
    """Removes what unfinished writing has left behind, and a list that is not of this folder.

    For the one who alone writes there, and removes what the list says is too old.
    """
    import tensorflow as tf

    for left in folder.glob("ckpt-*_temp*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except (UnicodeDecodeError, ValueError):
        is_ours = False
    else:
        names = re.compile(re.escape(str(folder / "ckpt-")) + r"\d+")
        is_ours = all(map(names.fullmatch, state.all_model_checkpoint_paths if state else ()))
    if not is_ours:
        (folder / "checkpoint").unlink(missing_ok=True)


def _numbers(folder: Path) -> dict[str, int]:
    """The updates of the checkpoints by their names."""
    numbers = {}
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            if match := re.fullmatch(r"ckpt-(\d{1,18})\.index", file.name):
                numbers[file.name.removesuffix(".index")] = int(match[1])
    return numbers


def _listed(folder: Path) -> list[str]:
    """The names in the writer's list, the newest first. Where they lie is not taken from there."""
    import tensorflow as tf

    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except (UnicodeDecodeError, ValueError):
        return []
    paths = state.all_model_checkpoint_paths if state else ()
    return [Path(path).name for path in reversed(paths)]
