"""Flagfiles, which may name others: found wherever a command is started.

absl reads flagfiles, too, but finds those that a flagfile names from the current folder alone.
stcn_tf:NAME is experiments/NAME.flags of the package, whatever lies in the current folder.
"""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from stcn_tf.support.errors import UserError, reason_of
from stcn_tf.support.files import expand_home

_FLAGS = ("--flagfile", "-flagfile")
_FOLDER = "experiments"
_OWN = "stcn_tf:"  # before the names of the package's own
_SHOWN = 8  # names in a message


def expand(arguments: Sequence[str]) -> list[str]:
    """Puts the lines of flagfiles in the place of the arguments that name them.

    Args:
        arguments: of a command, without its name.

    Raises:
        UserError: a flagfile is missing, cannot be read or names itself.
    """
    expanded, rest = [], iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*expanded, argument, *rest]
        name, separator, value = argument.partition("=")
        if name in _FLAGS:
            expanded += _lines(value if separator else next(rest, ""), ())
        else:
            expanded.append(argument)
    return expanded


def installed() -> Path | None:
    """The folder that holds `experiments/`: the package, in a checkout the project's folder."""
    package = Path(__file__).parents[1]
    return next((f for f in (package, package.parent) if (f / _FOLDER).is_dir()), None)


def _lines(name: str, reading: tuple[Path, ...]) -> list[str]:
    """The flags of a file, `reading` being those that led to it, outermost first."""
    path = _find(name, reading[-1] if reading else None)
    if path in reading:
        raise UserError(f"flagfile {path}: names itself, by way of {reading[-1]}")
    try:
        # Editors of Windows put a byte order mark before the text.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"flagfile {path}: not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"flagfile {path}: {reason_of(error)}") from error
    lines = []
    for line in map(str.strip, text.splitlines()):
        flag, separator, value = line.partition("=")
        if flag in _FLAGS and separator:
            lines += _lines(value.strip(), (*reading, path))
        elif line and not line.startswith(("#", "//")):
            lines.append(line)
    return lines


def _find(name: str, named_in: Path | None) -> Path:
    if not name:
        raise UserError("--flagfile: names no file")
    if name.startswith(_OWN):
        return _own(name.removeprefix(_OWN), named_in)
    wanted = Path(expand_home(name))
    for folder in _folders(named_in):
        path = folder / wanted
        if path.exists():
            return path.resolve() if path.is_file() else path  # a pipe has no other name
    places = [] if named_in is None else ["next to it", "in the folders above it"]
    places.append("in the current folder")
    if (own := installed()) is not None:
        places.append(f"in {own}")
    raise UserError(
        f"flagfile {name}{_where(named_in)}: no such file"
        + ("" if wanted.is_absolute() else f"; looked for {', '.join(places)}")
    )


def _where(named_in: Path | None) -> str:
    return "" if named_in is None else f" (named in {named_in})"


def own_names() -> list[str]:
    """The names of the package's own flagfiles: NAME of stcn_tf:NAME."""
    folder = (installed() or Path()) / _FOLDER
    return sorted(f.relative_to(folder).with_suffix("").as_posix() for f in folder.rglob("*.flags"))


def _own(name: str, named_in: Path | None) -> Path:
    names = own_names()
    if name in names:
        return (installed() / _FOLDER / f"{name}.flags").resolve()
    last = name.rpartition("/")[2]
    # What a folder holds; the same in another folder; what is written alike; else what is on top.
    near = [other for other in names if other.startswith(f"{name.rstrip('/')}/")]
    near += [other for other in names if other.rpartition("/")[2] == last]
    near += difflib.get_close_matches(name, names, n=_SHOWN)
    near = list(dict.fromkeys(near)) or [other for other in names if "/" not in other]
    more = ", ..." if len(near) > _SHOWN else ""
    raise UserError(
        f"flagfile {_OWN}{name}{_where(named_in)}: stcn_tf has none of this name; near it: "
        f"{', '.join(f'{_OWN}{other}' for other in near[:_SHOWN])}{more}"
    )


def _folders(named_in: Path | None) -> Iterator[Path]:
    """Where a flagfile is looked for, in this order.

    What a flagfile names belongs to it: a copy of `experiments/` is read as a whole.
    """
    if named_in is not None:
        yield from named_in.parents
    yield Path()
    if (own := installed()) is not None:
        yield own
