"""Files and folders that appear whole or not at all.

What is written goes into a hidden sibling, which is moved into place once it is complete and on
disk. After an error or Ctrl-C the sibling is removed and what was there before is as it was.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from stcn_tf.support.errors import UserError


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

    Raises:
        UserError: it cannot.
    """
    path = Path(expand_home(path))
    _make_parent(path)
    partial = _sibling(path, "partial")
    try:
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise _cannot_be_written(path, error) from error


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike) -> Iterator[Path]:
    """Writes a file, all of it or nothing, in the place of an earlier one.

    Args:
        path: the file; missing parents are made.

    Yields:
        The path to write to. If the block raises, `path` stays as it was.

    Raises:
        UserError: the folder of the file cannot be made.
    """
    path = Path(expand_home(path))
    _make_parent(path)
    partial = _sibling(path, "partial")
    try:
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
        UserError: the folder cannot be made.
    """
    path = Path(expand_home(path)).resolve()
    _make_parent(path)
    partial, old = _sibling(path, "partial"), _sibling(path, "replaced")
    try:
        try:
            partial.mkdir()
        except OSError as error:
            raise _cannot_be_written(path, error) from error
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


def _sibling(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}-{secrets.token_hex(4)}")


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def _cannot_be_written(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written ({error.strerror})")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
