"""How one's own data are split, and lists of what each split consists of."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.common.raw_files import MAX_TEXT_BYTES, FileFault, read_regular
from stcn_tf.support.errors import UserError
from stcn_tf.support.path_flag import define_path

NAMES = ("random", "folders")  # that --split takes in the place of a folder
SHARES = ("valid_share", "test_share")

_NAME = re.compile(r".+")
_NAME_SHOWN = 100  # characters
_SPLIT_NAME = re.compile(r"[A-Za-z0-9_]+")  # as records have it


def define_split_flags(own: str = "") -> None:
    """Defines how one's own data are split: --split, --valid_share, --test_share.

    Args:
        own: what splits a source may have itself, for the help of --split=own, then the default.
    """
    text = (
        "random: by --valid_share and --test_share; folders: by the topmost folder of each file "
        "(train, valid, and what else there is); or a folder with one NAME.txt per split, which "
        "lists files, one a line, relative to --source."
    )
    if own:
        define_path("split", "own", f"own: {own}, else random; {text}", names=(*NAMES, "own"))
    else:
        define_path("split", "random", text, names=NAMES)
    define_share_flags("with --split=random")


def shares_ignored(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Shares mean nothing with another --split than random (as `command.Ignored`)."""
    if arguments["split"] == "random":
        return {}
    return dict.fromkeys(SHARES, f"with --split={arguments['split']}")


def define_share_flags(where: str) -> None:
    """Defines --valid_share and --test_share; `where` says when they are used."""
    what = "Share of the files, or of the sequences of one file, in"
    flags.DEFINE_float("valid_share", 0.1, f"{what} valid, {where}.")
    flags.DEFINE_float("test_share", 0.0, f"{what} test, {where}; 0: no test.")


def define_group_flag() -> None:
    """Defines --group."""
    flags.DEFINE_string(
        "group",
        "",
        "Regular expression that is looked for in the names of sequences: what its first "
        "parentheses match is the group, such as a writer or a speaker, over which standard errors "
        "are taken. '_([a-z]+)_' finds theo in 3_theo_0.wav. Default: none.",
    )


def grouping(pattern: str, names: Sequence[str] = ()) -> Callable[[str], str]:
    """Reads --group.

    Args:
        pattern: as --group.
        names: of the sequences; it must be found in one of them, if there are any.

    Returns:
        Gives the group of a sequence by its name; empty where the pattern is not found.

    Raises:
        UserError: it is no regular expression with parentheses, or is found nowhere.
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


def _listed_names(names: Sequence[str], split: str | Path) -> dict[str, list[str]]:
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
        lines = read_regular(path, MAX_TEXT_BYTES).decode("utf-8-sig").splitlines()
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
