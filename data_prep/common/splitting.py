"""How one's own data are split, and lists of what each split consists of."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.common.command import Flag
from data_prep.common.raw_files import MAX_TEXT_BYTES, FileFault, read_regular
from stcn_tf.support.errors import UserError

NAMES = ("random", "folders")  # that --split takes in the place of a folder
SPLIT_HELP = (
    "random: by --valid_share and --test_share; folders: by the topmost folder of each file "
    "(train, valid, and what else there is); or a folder with one NAME.txt per split, which "
    "lists files, one a line, relative to --source."
)
GROUP = Flag(
    "Regular expression that is looked for in the names of sequences: what its first parentheses "
    "match is the group, such as a writer or a speaker, over which standard errors are taken. "
    "'_([a-z]+)_' finds theo in 3_theo_0.wav. Default: none."
)

_NAME = re.compile(r".+")
_NAME_SHOWN = 100  # characters
_SPLIT_NAME = re.compile(r"[A-Za-z0-9_]+")  # as records have it


def share_flags(where: str = "with --split=random") -> dict[str, Flag]:
    """--valid_share and --test_share; `where` says when they are used."""
    what = "Share of the files, or of the sequences of one file, in"
    return {
        "valid_share": Flag(f"{what} valid, {where}."),
        "test_share": Flag(f"{what} test, {where}; 0: no test."),
    }


def shares_ignored(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Shares mean nothing with another --split than random (as `command.Ignored`)."""
    split = arguments["split"]
    return {} if split == "random" else dict.fromkeys(share_flags(), f"with --split={split}")


def grouping(pattern: str, names: Sequence[str] = ()) -> Callable[[str], str]:
    """Reads --group: gives the group of a sequence by its name, "" where `pattern` is not found.

    Raises:
        UserError: it is no regular expression with parentheses, or there are `names` of sequences,
            and it is found in none.
    """
    try:
        expression = re.compile(pattern or "()")
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"--group={pattern}: no regular expression ({error})") from error
    if not expression.groups:
        raise UserError(f"--group={pattern}: has no parentheses around the group")

    def group_of(name: str) -> str:
        found = expression.search(name)
        return found[1] or "" if found else ""

    if pattern and names and not any(map(group_of, names)):
        raise UserError(f"--group={pattern}: finds nothing in any name, such as {names[0]}")
    return group_of


def split_names(
    names: Sequence[str], split: str | Path, valid_share: float, test_share: float
) -> dict[str, list[str]]:
    """Splits one's own data: `names` of files or sequences, with slashes, each once.

    Returns:
        The names of each split, sorted; of `random` those with the smallest checksums are in
        test, the next ones in valid: no seed, and the same for the same names everywhere.

    Raises:
        UserError: a share is out of range, train or valid would be empty, a split's name cannot
            be one, or a list is wrong.
    """
    if split == "random":
        parts = _random_parts(names, valid_share, test_share)
    elif split == "folders":
        parts = _folder_parts(names)
    else:
        parts = read_lists(find_lists(split, "random nor folders, nor a folder of NAME.txt files"))
        known = set(names)
        for part, members in parts.items():
            for name in sorted(members):
                if name not in known:
                    raise UserError(
                        f"--split={split}: {_shown(name)}, listed in {part}.txt, does not exist"
                    )
    return {name: sorted(members) for name, members in parts.items()}


def _random_parts(
    names: Sequence[str], valid_share: float, test_share: float
) -> dict[str, list[str]]:
    if not (valid_share > 0 and test_share >= 0 and valid_share + test_share < 1):
        raise UserError(
            f"--valid_share={valid_share:g} --test_share={test_share:g}: accepted: more than 0 "
            "and 0 or more, with a sum of less than 1"
        )
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    num_test = math.ceil(round(test_share * len(order), 6))
    num_held = num_test + math.ceil(round(valid_share * len(order), 6))
    if len(order) <= num_held:
        into = "train, valid and test" if num_test else "train and valid"
        raise UserError(f"{len(order)} sequences are too few for {into}")
    parts = {"train": order[num_held:], "valid": order[num_test:num_held]}
    return parts | ({"test": order[:num_test]} if num_test else {})


def _folder_parts(names: Sequence[str]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for name in names:
        top, slash, _ = name.partition("/")
        if not slash:
            raise UserError(f"--split=folders: {name} lies in no folder")
        parts.setdefault(top, []).append(name)
    order = dict.fromkeys(["train", "valid", *sorted(parts)])
    for needed in ("train", "valid"):
        if needed not in parts:
            there = ", ".join(sorted(parts)) or "nothing"
            raise UserError(f"--split=folders: there is no folder {needed}, only {there}")
    _check_split_names(parts)
    return {name: parts[name] for name in order}


def find_lists(
    split: str | Path, accepted: str, needed: Sequence[str] = ("train", "valid")
) -> dict[str, list[Path]]:
    """Finds the NAME.txt of each split in a folder.

    Raises:
        UserError: there is no such folder, but what is `accepted`, or it lacks one that is needed.
    """
    folder = Path(split)
    if not folder.is_dir():
        raise UserError(f"--split={split}: neither {accepted}")
    lists = {path.stem: [path] for path in sorted(folder.glob("*.txt"))}
    for name in needed:
        if name not in lists:
            raise UserError(f"--split={split}: the folder has no {name}.txt")
    return lists


def read_lists(
    lists: Mapping[str, Sequence[Path]],
    *,
    pattern: re.Pattern = _NAME,
    what: str = "name",
    key: Callable[[str], str] = str,
) -> dict[str, list[str]]:
    """Reads what each split consists of, in the order of the lists that it unites.

    A list has a name on each line; blank lines and lines that begin with # are skipped. A name,
    which is a `what`, matches `pattern`; those of which `key` makes the same are the same.

    Raises:
        UserError: a list cannot be read, has nothing or something else, a name comes twice, or a
            split's name cannot be one.
    """
    _check_split_names(lists)
    parts: dict[str, list[str]] = {part: [] for part in lists}
    owner: dict[str, Path] = {}
    for part, path in ((part, path) for part, paths in lists.items() for path in paths):
        before = len(owner)
        for number, line in enumerate(_lines(path), start=1):
            name = line.strip()
            if not name or name.startswith("#"):
                continue
            shown, where = _shown(name), f"--split: {path}, line {number}"
            if not pattern.fullmatch(name):
                raise UserError(f"{where}: {shown} is no {what}")
            first = owner.get(key(name))
            if first == path:
                raise UserError(f"{where}: {shown} is listed twice")
            if first is not None:
                raise UserError(f"--split: {shown} is in {first} and in {path}")
            owner[key(name)] = path
            parts[part].append(name)
        if len(owner) == before:
            raise UserError(f"--split: {path} lists nothing")
    return parts


def _lines(path: Path) -> list[str]:
    try:
        # Some editors write a mark of the byte order.
        return read_regular(path, MAX_TEXT_BYTES).decode("utf-8-sig").splitlines()
    except FileFault as fault:
        raise UserError(f"--split: {path} {fault}") from fault
    except UnicodeDecodeError as error:
        raise UserError(f"--split: {path} cannot be read: {error}") from error


def _check_split_names(splits: Iterable[str]) -> None:
    for name in splits:
        if not _SPLIT_NAME.fullmatch(name):
            raise UserError(
                f"--split: no split can have the name {_shown(name)}; accepted: letters (a to z), "
                "digits and underscores"
            )


def _shown(name: str) -> str:
    return repr(name[:_NAME_SHOWN])
