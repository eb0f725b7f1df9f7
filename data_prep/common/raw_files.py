"""Reading raw files in parallel, and their faults.

Raw files come from elsewhere and are not trusted. A parser raises `FileFault` for what is wrong
with a file's content; nothing else may escape it. What was read does not depend on `--workers`.
Needs no TensorFlow, so that worker processes start fast and mistakes answer at once.
"""

import concurrent.futures
import concurrent.futures.process
import contextlib
import hashlib
import math
import multiprocessing
import os
import re
import signal
import stat
import sys
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tqdm import tqdm

from stcn_tf.data.card import Split
from stcn_tf.support.errors import UserError

# A file is read in one piece; what is larger is none of handwriting.
MAX_FILE_BYTES = 2**30
# Of text (XML, JSON, a list), which takes twenty times its size while it is parsed.
MAX_TEXT_BYTES = 2**26

_FAULTS_SHOWN = 5
_OTHERS_SHOWN = 6  # endings of files that are not read
# Controls, line and paragraph separators, and surrogates: how Python reads what is not UTF-8.
_NOT_IN_NAMES = ("Cc", "Zl", "Zp", "Cs")
_PLAIN_PROGRESS_SECONDS = 10.0


class FileFault(ValueError):
    """What is wrong with the content of one file, without its name."""


class ParsedFile(NamedTuple):
    """What a worker hands back for one file: its `content`, or the `fault` that forbids it."""

    content: Any
    sha256: str  # of the file's bytes; empty if it could not be read
    fault: str


class Contents(NamedTuple):
    """What files hold, or what is wrong with them, by name."""

    by_name: dict[str, Any]
    faults: dict[str, str]
    source_sha256: str  # over names and checksums of the files without a fault


def find_files(root: Path, endings: Sequence[str], pattern: re.Pattern | None = None) -> list[str]:
    """Lists the files under `root` whose names end in one of `endings`, in whatever case.

    Linked folders are followed, but none into itself, nor from one such back into `root`. How many
    files have other endings is printed. With a `pattern`, names in lower case are searched for it,
    and `endings` only say what it finds.

    Returns:
        Paths relative to `root`, with slashes, sorted. Hidden files and folders are left out.

    Raises:
        UserError: `root` is no folder, one below it cannot be read, or a file's name is not UTF-8
            or has control characters.
    """
    if root.is_file():
        raise UserError(f"--source: {root} is a file; accepted: a folder")
    if not root.is_dir():
        raise UserError(f"--source: {root} does not exist")

    def refuse(error: OSError) -> None:
        raise UserError(f"--source: {error.filename} cannot be read: {error.strerror}") from error

    pattern = pattern or re.compile(f"(?:{'|'.join(map(re.escape, endings))})$")
    paths = []
    others: Counter[str] = Counter()
    real_root = os.path.realpath(root)
    around = {str(root): {real_root}}  # of each folder, itself and those it lies in
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        inside = around.pop(folder)
        is_linked = os.path.realpath(folder) != os.path.normpath(
            os.path.join(real_root, os.path.relpath(folder, root))
        )
        within = {}
        for name in folders:
            path = os.path.join(folder, name)
            real = os.path.realpath(path)
            # A folder may be linked to twice, but not from within itself; and folders that all link
            # to each other would have more paths than anyone can read.
            is_back = is_linked and f"{real}/".startswith(f"{real_root}/") and os.path.islink(path)
            if not name.startswith(".") and real not in inside and not is_back:
                within[name] = around[path] = inside | {real}
        folders[:] = within
        relative = Path(folder).relative_to(root)
        for name in names:
            if name.startswith("."):
                continue
            if pattern.search(name.lower()):
                paths.append((relative / name).as_posix())
            else:
                others[Path(name).suffix.lower()] += 1
    for path in paths:
        # As the records, their card and messages will have it.
        if any(unicodedata.category(character) in _NOT_IN_NAMES for character in path):
            raise UserError(
                f"--source: {root} holds {os.fsencode(path)!r}, whose name is not UTF-8 without "
                "control characters; rename it"
            )
    ordered = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    shown = [
        f"{count} {ending.encode('unicode_escape').decode() or 'without an ending'}"
        for ending, count in ordered[:_OTHERS_SHOWN]
    ]
    if len(ordered) > len(shown):
        shown.append(f"{sum(count for _, count in ordered[len(shown) :])} with others")
    if shown:
        print(f"not read: {', '.join(shown)} (read are {', '.join(endings)})")
    return sorted(paths)


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a file to read its bytes, without a buffer, or raises `FileFault`."""
    try:
        # Opening a named pipe would wait for a writer; a device may never end.
        if stat.S_ISREG(os.stat(path).st_mode):
            return open(path, "rb", buffering=0)
    except (OSError, ValueError) as error:
        raise FileFault(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    raise FileFault("is no regular file")


def check_size(size: int, max_bytes: int) -> None:
    """Raises `FileFault` for more than `max_bytes`."""
    if size > max_bytes:
        raise FileFault(f"has {size} bytes, at most {max_bytes} are accepted")


def read_regular(path: str | Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Reads a regular file of at most `max_bytes`, or raises `FileFault`."""
    with open_regular(path) as file:
        check_size(os.fstat(file.fileno()).st_size, max_bytes)
        try:
            return file.read()
        except OSError as error:
            raise FileFault(f"cannot be read: {error.strerror or error}") from error


def parse_file(
    path: str | Path, parse: Callable[[bytes], Any], max_bytes: int = MAX_FILE_BYTES
) -> ParsedFile:
    """Reads and parses one file of at most `max_bytes`; `parse` raises `FileFault`, this nothing.

    (A value rather than an exception, so that workers hand back every fault, not only the first.)
    """
    sha256 = ""
    try:
        data = read_regular(path, max_bytes)
        sha256 = hashlib.sha256(data).hexdigest()
        return ParsedFile(parse(data), sha256, "")
    except FileFault as fault:
        return ParsedFile(None, sha256, str(fault))


def read_files(
    parse_path: Callable[[Path], ParsedFile],
    paths: Mapping[str, Path],
    workers: int,
    *,
    digest_name: Callable[[str], str | None] = str,
    what: str = "parsing",
    chunk: int = 32,
) -> Contents:
    """Parses files (by name) in order, by `map_in_order`, and shows `what` is being done.

    `digest_name` gives a file's name in the checksum; None: it is not in it.
    """
    contents, faults, checksums = {}, {}, []
    results = map_in_order(parse_path, list(paths.values()), workers, chunk)
    with contextlib.closing(results):
        for name, result in zip(paths, with_progress(results, len(paths), what), strict=True):
            if result.fault:
                faults[name] = result.fault
            else:
                contents[name] = result.content
                if (label := digest_name(name)) is not None:
                    checksums.append((label, result.sha256))
    return Contents(contents, faults, checksum_of(checksums))


def map_in_order(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int, chunk: int = 1
) -> Iterator[Any]:
    """`map` in `workers` processes (in this one if one is enough), each given `chunk` at once.

    Only so many items are under way at once as keep the workers busy: neither what waits nor
    what is finished grows with `items`. `function` is one of a module, or a partial of one.

    Raises:
        UserError: a process ended before its time.
    """
    workers = min(workers, math.ceil(len(items) / chunk))
    if workers <= 1:
        yield from map(function, items)
        return
    # "spawn" works alike on every platform, and is safe whatever threads this process runs.
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn")
    )
    chunks = iter([items[start : start + chunk] for start in range(0, len(items), chunk)])
    pending: list[concurrent.futures.Future] = []
    try:
        with _children_ignore_interrupts():
            for _, part in zip(range(2 * workers), chunks, strict=False):
                pending.append(executor.submit(_map_chunk, function, part))
        while pending:
            yield from pending.pop(0).result()
            for part in chunks:
                pending.append(executor.submit(_map_chunk, function, part))
                break
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError(
            "a process that reads raw files was ended, perhaps by lack of memory: try fewer "
            "--workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _map_chunk(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]


@contextlib.contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    """Processes started meanwhile inherit that Ctrl-C is ignored: only the parent reports it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def with_progress(
    results: Iterable[Any], total: int, what: str = "parsing", unit: str = "files"
) -> Iterator[Any]:
    """Passes on `total` results; a bar on a terminal, else a plain line now and then, on stderr."""
    if sys.stderr.isatty():
        yield from tqdm(results, total=total, desc=what, unit=f" {unit}", file=sys.stderr)
        return
    last = time.monotonic()
    for count, result in enumerate(results, start=1):
        yield result
        if time.monotonic() - last > _PLAIN_PROGRESS_SECONDS or count == total:
            print(f"{what}: {count} of {total} {unit}", file=sys.stderr, flush=True)
            last = time.monotonic()


def checksum_of(files: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over names and checksums, in their order: of what a dataset was made from."""
    text = "".join(f"{name} {sha256}\n" for name, sha256 in files)
    return hashlib.sha256(text.encode()).hexdigest()


def refuse(faults: Mapping[str, str], source: Path) -> None:
    """Ends, by a `UserError`, a preparation whose files (or forms, utterances, ...) have faults."""
    shown = [f"{name}: {reason}" for name, reason in list(faults.items())[:_FAULTS_SHOWN]]
    if len(faults) > len(shown):
        shown.append(f"and {len(faults) - len(shown)} more")
    raise UserError(
        f"{len(faults)} bad {'entry' if len(faults) == 1 else 'entries'} in {source}: "
        f"{'; '.join(shown)} (mend, or pass --skip_bad to leave out)"
    )


def print_skipped(skipped: Mapping[str, str]) -> None:
    """Prints what --skip_bad left out, and how much that was."""
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")
    print(f"skipped {len(skipped)} {'entry' if len(skipped) == 1 else 'entries'}")


def print_sizes_check(splits: Mapping[str, Split], complete: Mapping[str, tuple[int, int]]) -> None:
    """Compares splits with those of the owners' complete files, where their sizes are known.

    A file may be missing, or end between two sequences, without a fault of what is there.
    `complete` is the number of sequences and of steps of each split whose sizes are known.
    """
    for name, sizes in complete.items():
        same = sizes == (splits[name].num_sequences, splits[name].num_steps)
        print(
            f"check: {name} {'has' if same else 'does not have'} the {sizes[0]} sequences and "
            f"{sizes[1]} steps of the complete data set"
        )
