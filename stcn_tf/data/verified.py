"""Which shards have been hashed already: not to be hashed again until they change.

Hashing all shards at every start takes minutes for a large data set. TFRecords carry checksums of
their own, which tell of a byte that flips later. What was verified is remembered for each user
(`$XDG_CACHE_HOME/stcn_tf/verified.json`, ~/.cache by default), by path, size and time of
modification. Where that cannot be read or written, shards are hashed once in each process.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stcn_tf.support.remembered import recall, remember

_FILE = "verified"
_MOST_REMEMBERED = 10_000  # shards

_hashed: dict[str, list] = {}  # in this process: path -> [size, time of modification, sha256]


def sha256_of(
    paths: Sequence[Path],
    again: bool = False,
    check: Callable[[Path, str], None] = lambda path, sha256: None,
) -> list[str]:
    """Checksums of files, in hexadecimal digits.

    Args:
        paths: of the files.
        again: hash them even if they have not changed since they were hashed.
        check: called with each file that was hashed, and its checksum, before that is remembered.
    """
    known = {} if again else {**_remembered(), **_hashed}
    stamps = {path: _stamp(path) for path in paths}
    keys = {path: str(path.absolute()) for path in paths}
    changed = [path for path in paths if known.get(keys[path], [])[:2] != stamps[path]]
    # Hashing releases the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sums = dict(zip(changed, pool.map(_sha256, changed), strict=True))
    for path, sha256 in sums.items():
        check(path, sha256)
    new = {keys[path]: [*stamps[path], sums[path]] for path in changed}
    _hashed.update(new)
    if new:
        _remember(new)
    return [sums.get(path) or known[keys[path]][2] for path in paths]


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remembered() -> dict[str, list]:
    return {k: v for k, v in recall(_FILE).items() if isinstance(v, list) and len(v) == 3}


def _remember(new: dict[str, list]) -> None:
    entries = list({**_remembered(), **new}.items())[-_MOST_REMEMBERED:]
    remember(_FILE, dict(entries))
