"""A lock on a folder that ends with the process that holds it, however that ends."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
import weakref
from pathlib import Path

from stcn_tf.support.errors import UserError

# Those who look who holds a lock hold it for an instant: a few times of trying pass it.
_TRIES, _SECONDS = 5, 0.02
# What file systems say that know no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class FolderLock:
    """Held from the beginning until `release`, the end of a `with`, or until it is forgotten.

    The lock is the operating system's (flock), on an open file: it holds between processes, between
    two locks of one process, and on network file systems between machines. The file stays and says
    who held it last.

    Args:
        file: the file to lock; it is made. Its folder exists.

    Raises:
        UserError: another holds it; or the file cannot be written.
    """

    def __init__(self, file: Path):
        self._file = file
        self._release = None
        self.acquire()

    @property
    def is_held(self) -> bool:
        """Whether it is held by this object."""
        return self._release is not None and self._release.alive

    def acquire(self) -> None:
        """Takes it again after `release`.

        Raises:
            UserError: as of the constructor.
        """
        if self.is_held:
            return
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(f"{self._file}: cannot be written ({error.strerror})") from error
        try:
            _lock(descriptor, self._file)
        except BaseException:
            os.close(descriptor)
            raise
        self._locked = os.fstat(descriptor)
        self._release = weakref.finalize(self, os.close, descriptor)

    def check(self) -> None:
        """Checks that the folder is still the one that was locked.

        Raises:
            UserError: it has been removed, moved or replaced, or its disk is gone.
        """
        try:
            found = os.stat(self._file)
        except OSError as error:
            reason = error.strerror
        else:
            if os.path.samestat(self._locked, found):
                return
            reason = "another is in its place"
        raise UserError(
            f"{self._file.parent}: has been removed or moved ({reason}): nothing more is written "
            "there"
        )

    def __enter__(self) -> "FolderLock":
        self.acquire()
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def release(self) -> None:
        """Gives it up, if it is held."""
        if self._release is not None:
            self._release()


def holder(file: Path) -> str:
    """Who holds the lock, in words; empty: nobody does.

    Raises:
        OSError: it cannot be known.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return ""


def _lock(descriptor: int, file: Path) -> None:
    try:
        _flock(descriptor)
    except BlockingIOError as error:
        raise UserError(
            f"{file.parent}: in use by {_holder(descriptor)}: wait for its end, stop it, or give "
            "another folder"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise UserError(f"{file}: cannot be locked ({error.strerror})") from error
    about = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode(), 0)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from error


def _flock(descriptor: int) -> None:
    for _ in range(_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(_SECONDS)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(descriptor: int) -> str:
    """Who holds the lock, in words."""
    try:
        about = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {about['process']} on {about['host']} since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is just being written
        return "another process"
