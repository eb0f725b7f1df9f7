"""What every preparation shares: its flags, reading raw files in parallel, faults, splits.

Raw files come from elsewhere and are not trusted. A parser raises `FileFault` for what is wrong
with a file's content; nothing else may escape it. What was read does not depend on `--workers`.
Needs no TensorFlow, so that worker processes start fast and mistakes answer at once.
"""

import concurrent.futures
import concurrent.futures.process
import contextlib
import functools
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

from absl import flags
from tqdm import tqdm

from stcn_tf.data.card import Split
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError
from stcn_tf.support.path_flag import define_path

# A file is read in one piece; what is larger is none of handwriting.
MAX_FILE_BYTES = 2**30
# Of text (XML, JSON, a list), which takes twenty times its size while it is parsed.
MAX_TEXT_BYTES = 2**26

SHARE_FLAGS = ("valid_share", "test_share")

_NAME = re.compile(r".+")
_NAME_SHOWN = 100  # characters
_SPLIT_NAME = re.compile(r"[A-Za-z0-9_]+")  # as records have it
_FAULTS_SHOWN = 5
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


# ------------------------------------------------------------------------------------ flags


def define_flags(source: str, required: bool = True, can_skip: bool = True) -> None:
    """Defines the flags of every preparation: --source, --out, --skip_bad, --workers.

    Args:
        source: help of --source.
        required: whether --source must be given.
        can_skip: whether there is --skip_bad: one of many sequences may be left out.
    """
    define_path("source", None, source, required=required)
    define_path("out", None, "Folder of the records; a dataset there is replaced.", required=True)
    if can_skip:
        flags.DEFINE_bool("skip_bad", False, "Leave out what has faults, and count it.")
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes that read raw files; by default as many as this process may use CPUs, at most "
        "8.",
        lower_bound=1,
    )


def refuse_given(names: Sequence[str], where: str) -> None:
    """Refuses flags that would be ignored.

    Args:
        names: of the flags.
        where: why they would be.

    Raises:
        UserError: one of them was given.
    """
    for name in names:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} means nothing {where}")


def num_workers() -> int:
    """What --workers says, or its default."""
    return flags.FLAGS.workers or min(8, _num_cpus())


def _num_cpus() -> int:
    # A container or batch system may grant fewer CPUs than the machine has; only Linux tells.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_out(out: Path) -> None:
    """Checks early that records may be written to `out`: a mistake should not cost a parse.

    Raises:
        UserError: `out` holds something else.
    """
    # A new folder needs no check, and then mistakes in the raw data answer before TensorFlow.
    if out.exists():
        import_records().check_replaceable(out)


def import_records() -> ModuleType:
    """Not at the top of modules: the processes that parse import those too, without TensorFlow."""
    cli.import_tensorflow()
    from stcn_tf.data import records

    return records


# ---------------------------------------------------------------------------------- reading


def find_files(root: Path, endings: Sequence[str]) -> list[str]:
    """Lists the files under `root` whose names end in one of `endings`, in whatever case.

    Args:
        root: a folder.
        endings: with their dots, in lower case.

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

    paths = []
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(folder).relative_to(root)
        paths += [
            (relative / name).as_posix()
            for name in names
            if name.lower().endswith(tuple(endings)) and not name.startswith(".")
        ]
    for path in paths:
        # As the records, their card and messages will have it.
        if any(unicodedata.category(character) in _NOT_IN_NAMES for character in path):
            raise UserError(
                f"--source: {root} holds {os.fsencode(path)!r}, whose name is not UTF-8 without "
                "control characters; rename it"
            )
    return sorted(paths)


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a file to read its bytes, without a buffer.

    Raises:
        FileFault: it is no regular file, or cannot be read.
    """
    try:
        # Opening a named pipe would wait for a writer; a device may never end.
        if stat.S_ISREG(os.stat(path).st_mode):
            return open(path, "rb", buffering=0)
    except (OSError, ValueError) as error:
        raise FileFault(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    raise FileFault("is no regular file")


def _read_regular(path: str | Path, max_bytes: int) -> bytes:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise FileFault(f"has {size} bytes, at most {max_bytes} are accepted")
        try:
            return file.read()
        except OSError as error:
            raise FileFault(f"cannot be read: {error.strerror or error}") from error


def parse_file(
    path: str | Path, parse: Callable[[bytes], Any], max_bytes: int = MAX_FILE_BYTES
) -> ParsedFile:
    """Reads and parses one file; never raises for what is wrong with it.

    Args:
        path: a file.
        parse: turns its bytes into what is wanted, or raises `FileFault`.
        max_bytes: the size beyond which it is not read.

    Returns:
        The content and the file's SHA-256, or the fault in words. (A value rather than an
        exception, so that worker processes hand back every fault, not only the first.)
    """
    sha256 = ""
    try:
        data = _read_regular(path, max_bytes)
        sha256 = hashlib.sha256(data).hexdigest()
        return ParsedFile(parse(data), sha256, "")
    except FileFault as fault:
        return ParsedFile(None, sha256, str(fault))


def parse_files(
    paths: Sequence[str],
    parse: Callable[[bytes], Any],
    workers: int,
    max_bytes: int = MAX_FILE_BYTES,
) -> Iterator[ParsedFile]:
    """Parses files in order, in `workers` processes.

    Args:
        paths: the files.
        parse: a function of a module, as for `parse_file`.
        workers: number of processes.
        max_bytes: as for `parse_file`.

    Yields:
        One `ParsedFile` for each path, in the order of `paths`.
    """
    parse_one = functools.partial(parse_file, parse=parse, max_bytes=max_bytes)
    return map_in_order(parse_one, paths, workers, chunk=32)


def map_in_order(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int, chunk: int = 1
) -> Iterator[Any]:
    """`map` in `workers` processes (in this one if one is enough).

    Only so many items are under way at once as keep the workers busy: neither what waits nor
    what is finished grows with `items`.

    Args:
        function: of a module, or a `functools.partial` of one.
        items: its arguments.
        workers: number of processes.
        chunk: how many items a process is given at once.

    Yields:
        The results, in the order of `items`.

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
    """A bar on a terminal, else a plain line now and then; both on stderr.

    Args:
        results: what to pass on.
        total: how many there will be.
        what: what is being done.
        unit: what is counted.
    """
    if sys.stderr.isatty():
        yield from tqdm(results, total=total, desc=what, unit=f" {unit}", file=sys.stderr)
        return
    last = time.monotonic()
    for count, result in enumerate(results, start=1):
        yield result
        if time.monotonic() - last > _PLAIN_PROGRESS_SECONDS or count == total:
            print(f"{what}: {count} of {total} {unit}", file=sys.stderr, flush=True)
            last = time.monotonic()


class Digest:
    """SHA-256 over names and checksums: of what a dataset was made from."""

    def __init__(self):
        self._sha256 = hashlib.sha256()

    def add(self, name: str, sha256: str) -> None:
        """Adds a file, in the order of the files."""
        self._sha256.update(f"{name} {sha256}\n".encode())

    def hexdigest(self) -> str:
        """Of all files added so far."""
        return self._sha256.hexdigest()


def refuse(faults: Mapping[str, str], source: Path) -> None:
    """Ends a preparation whose files have faults.

    Args:
        faults: what is wrong, by file (or form, utterance, ...).
        source: where they are.

    Raises:
        UserError: always, naming the first of them.
    """
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

    Args:
        splits: as on the card.
        complete: number of sequences and of steps of each split whose sizes are known.
    """
    for name, sizes in complete.items():
        same = sizes == (splits[name].num_sequences, splits[name].num_steps)
        print(
            f"check: {name} {'has' if same else 'does not have'} the {sizes[0]} sequences and "
            f"{sizes[1]} steps of the complete data set"
        )


# ----------------------------------------------------------------------------------- splits


def define_split_flags() -> None:
    """Defines how one's own data are split: --split, --valid_share, --test_share."""
    define_path(
        "split",
        "random",
        "random: by --valid_share and --test_share; folders: by the topmost folder of each file "
        "(train, valid, and what else there is); or a folder with one NAME.txt per split, which "
        "lists files, one a line, relative to --source.",
    )
    define_share_flags("with --split=random")


def refuse_shares_unless_random() -> None:
    """Refuses --valid_share and --test_share with another --split than random.

    Raises:
        UserError: one of them was given.
    """
    split = flags.FLAGS.split
    if split != "random":
        refuse_given(SHARE_FLAGS, f"with --split={split}")


def define_share_flags(where: str) -> None:
    """Defines --valid_share and --test_share; `where` says when they are used."""
    what = "Share of the files, or of the sequences of one file, in"
    flags.DEFINE_float("valid_share", 0.1, f"{what} valid, {where}.")
    flags.DEFINE_float("test_share", 0.0, f"{what} test, {where}; 0: no test.")


def split_names(
    names: Sequence[str], split: str, valid_share: float, test_share: float
) -> dict[str, list[str]]:
    """Splits one's own data.

    Args:
        names: of the files (or sequences), with slashes, each once.
        split: as --split.
        valid_share: as --valid_share.
        test_share: as --test_share.

    Returns:
        The names of each split, sorted; of `random` those with the smallest checksums are in
        test, the next ones in valid: no seed, and the same for the same names everywhere.

    Raises:
        UserError: a share is out of range, train or valid would be empty, a split's name cannot
            be one, or a list is wrong.
    """
    if split == "random":
        if not (valid_share > 0 and test_share >= 0 and valid_share + test_share < 1):
            raise UserError(
                f"--valid_share={valid_share:g} --test_share={test_share:g}: accepted: more than 0 "
                "and 0 or more, with a sum of less than 1"
            )
        order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        num_test = math.ceil(round(test_share * len(order), 6))
        num_valid = math.ceil(round(valid_share * len(order), 6))
        if len(order) - num_test - num_valid < 1:
            raise UserError(
                f"{len(order)} sequences are too few for "
                f"{'train, valid and test' if num_test else 'train and valid'}"
            )
        parts = {
            "train": order[num_test + num_valid :],
            "valid": order[num_test : num_test + num_valid],
        }
        if num_test:
            parts["test"] = order[:num_test]
        return {name: sorted(members) for name, members in parts.items()}
    if split == "folders":
        parts = {}
        for name in names:
            top, slash, _ = name.partition("/")
            if not slash:
                raise UserError(f"--split=folders: {name} lies in no folder")
            parts.setdefault(top, []).append(name)
        for needed in ("train", "valid"):
            if needed not in parts:
                raise UserError(
                    f"--split=folders: there is no folder {needed}, only "
                    f"{', '.join(sorted(parts)) or 'nothing'}"
                )
        _check_split_names(parts)
        order = ("train", "valid")
        rest = sorted(set(parts) - set(order))
        return {name: sorted(parts[name]) for name in (*order, *rest)}
    return _listed_names(names, split)


def split_arguments(split: str, valid_share: float, test_share: float) -> str:
    """The flags of `define_split_flags` as the card's command has them, without paths."""
    if split == "random":
        return f"--split=random --valid_share={valid_share:g} --test_share={test_share:g}"
    return f"--split={'folders' if split == 'folders' else 'DIR'}"


def _listed_names(names: Sequence[str], split: str) -> dict[str, list[str]]:
    folder = Path(split)
    if not folder.is_dir():
        raise UserError(
            f"--split={split}: neither random nor folders, nor a folder of NAME.txt files"
        )
    lists = {path.stem: [path] for path in sorted(folder.glob("*.txt"))}
    for needed in ("train", "valid"):
        if needed not in lists:
            raise UserError(f"--split={split}: the folder has no {needed}.txt")
    known = set(names)
    parts = {part: sorted(members) for part, members in read_lists(lists).items()}
    for part, members in parts.items():
        for name in members:
            if name not in known:
                raise UserError(
                    f"--split={split}: {_shown(name)}, listed in {part}.txt, does not exist"
                )
    return parts


def read_lists(
    lists: Mapping[str, Sequence[Path]],
    *,
    pattern: re.Pattern = _NAME,
    what: str = "name",
    key: Callable[[str], str] = str,
) -> dict[str, list[str]]:
    """Reads what each split consists of.

    Args:
        lists: the lists that each split unites.
        pattern: as for `read_list`.
        what: as for `read_list`.
        key: names are the same if this makes the same of them.

    Returns:
        The names of each split, in the order of its lists.

    Raises:
        UserError: as `read_list`, a name is in two lists, or a split's name cannot be one.
    """
    _check_split_names(lists)
    parts: dict[str, list[str]] = {}
    owner: dict[str, Path] = {}
    for part, paths in lists.items():
        parts[part] = []
        for path in paths:
            for name in read_list(path, pattern, what, key):
                if owner.setdefault(key(name), path) != path:
                    raise UserError(
                        f"--split: {_shown(name)} is in {owner[key(name)]} and in {path}"
                    )
                parts[part].append(name)
    return parts


def read_list(
    path: Path,
    pattern: re.Pattern = _NAME,
    what: str = "name",
    key: Callable[[str], str] = str,
) -> list[str]:
    """Reads names, one per line; blank lines and lines that begin with # are skipped.

    Args:
        path: the list.
        pattern: what a name must match as a whole.
        what: a name is, for the message.
        key: names are the same if this makes the same of them.

    Raises:
        UserError: the file cannot be read, lists nothing, something else, or a name twice.
    """
    try:
        # Some editors write a mark of the byte order.
        lines = _read_regular(path, MAX_TEXT_BYTES).decode("utf-8-sig").splitlines()
    except FileFault as fault:
        raise UserError(f"--split: {path} {fault}") from fault
    except UnicodeDecodeError as error:
        raise UserError(f"--split: {path} cannot be read: {error}") from error
    names: dict[str, str] = {}
    for number, text in enumerate(lines, start=1):
        name = text.strip()
        if not name or name.startswith("#"):
            continue
        if not pattern.fullmatch(name):
            raise UserError(f"--split: {path}, line {number}: {_shown(name)} is no {what}")
        if key(name) in names:
            raise UserError(f"--split: {path}, line {number}: {_shown(name)} is listed twice")
        names[key(name)] = name
    if not names:
        raise UserError(f"--split: {path} lists nothing")
    return list(names.values())


def _check_split_names(splits: Iterable[str]) -> None:
    for name in splits:
        if not _SPLIT_NAME.fullmatch(name):
            raise UserError(
                f"--split: no split can have the name {_shown(name)}; accepted: letters (a to z), "
                "digits and underscores"
            )


def _shown(name: str) -> str:
    return repr(name[:_NAME_SHOWN])
