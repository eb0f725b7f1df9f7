"""Files and folders that appear whole or not at all.

What is written goes into a hidden sibling, which is moved into place once it is complete and on
disk. After an error or Ctrl-C the sibling is removed and what was there before is as it was. That
the disk is full, read-only or gone, whoever found it out while writing (Python, HDF5, TensorFlow),
is told in one line.
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from stcn_tf.support.errors import UserError, reason_of

# What the system says, to who writes, without naming the file.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_LEAST_ROOM = 2**16  # bytes


def expand_home(path: str | os.PathLike) -> str:
    """A path that begins with ~ with the home folder in its place; any other as it is.

    Whatever takes a path from a person, as a flag or in Python, takes it through this function.
    """
    return os.path.expanduser(path)


def make_folder(path: str | os.PathLike) -> Path:
    """Makes a folder to write to, unless it is there; missing parents too.

    Raises:
        UserError: it cannot be made.
    """
    path = Path(expand_home(path))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be a folder ({error.strerror})") from error
    return path


def check_writable(path: str | os.PathLike) -> None:
    """Checks, before work that takes long, that a file can be written; missing parents are made.

    There must be room for 64 KiB: a full disk still takes empty files.

    Raises:
        UserError: it cannot.
    """
    path = Path(expand_home(path))
    if path.is_dir():
        raise UserError(f"{path}: cannot be written ({os.strerror(errno.EISDIR)})")
    _make_parent(path)
    partial, _ = _siblings(path)
    with _writing(path, partial):
        try:
            partial.write_bytes(bytes(_LEAST_ROOM))
            _fsync(partial)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike) -> Iterator[Path]:
    """Writes a file, all of it or nothing, in the place of an earlier one.

    Args:
        path: the file; missing parents are made.

    Yields:
        The path to write to. If the block raises, `path` stays as it was.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(expand_home(path))
    _make_parent(path)
    partial, _ = _siblings(path)
    try:
        with _writing(path, partial):
            yield partial
            _fsync(partial)
            partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Writes a folder, all of it or nothing, in the place of an earlier one.

    Everything in the earlier folder goes: check before, and at the end of the block, that it may.

    Args:
        path: the folder, or a link to it; missing parents are made.

    Yields:
        A new, empty folder to write to. If the block raises, `path` stays as it was.

    Raises:
        UserError: the folder, or something in it, cannot be written.
    """
    path = Path(expand_home(path)).resolve()
    _make_parent(path)
    partial, old = _siblings(path)
    try:
        with _writing(path, partial):
            partial.mkdir()
            yield partial
            for folder, _, names in os.walk(partial):
                for name in names:
                    _fsync(Path(folder, name))
                _fsync(Path(folder))
            if os.path.exists(path):
                path.rename(old)
            partial.rename(path)
    except BaseException:
        if os.path.exists(old) and not os.path.exists(path):
            old.rename(path)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        # Should even moving it back have failed, the old folder is the only one there is.
        if os.path.exists(path):
            shutil.rmtree(old, ignore_errors=True)
    _fsync(path.parent)


def _siblings(path: Path) -> tuple[Path, Path]:
    """What is written to, and what an earlier folder is called meanwhile."""
    token = secrets.token_hex(4)
    return tuple(path.with_name(f".{path.name}.{k}-{token}") for k in ("partial", "replaced"))


@contextlib.contextmanager
def _writing(path: Path, partial: Path) -> Iterator[None]:
    """Of what is raised inside, that `path` cannot be written is told as a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        is_of_system = isinstance(error, OSError) and error.errno in _NO_ROOM
        # The token in the siblings' names is in nobody else's.
        if not is_of_system and partial.name.rpartition("-")[2] not in str(error):
            raise
        raise _cannot_be_written(path, error) from error


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def _cannot_be_written(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be written ({reason_of(error)})")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
