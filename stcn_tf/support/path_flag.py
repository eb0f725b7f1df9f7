"""A kind of flag: the path of a file or folder."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from absl import flags

from stcn_tf.support.files import expand_home

flags.disclaim_key_flags()  # the flags belong to the modules that define them with this one


class _PathParser(flags.ArgumentParser):
    """Reads a path; shells leave the ~ of --flag=~/x alone."""

    def __init__(self, names: Collection[str]):
        self.names = names

    def parse(self, argument: str) -> str:
        return expand_home(argument)


def define_path(
    name: str,
    default: str | None,
    text: str,
    required: bool = False,
    names: Collection[str] = (),
) -> None:
    """Defines a flag whose value is a path, or a name that stands in the place of one.

    Args:
        name: of the flag.
        default: its value where it is not given.
        text: for `--help`.
        required: whether it must be given.
        names: that stand in the place of paths.
    """
    flags.DEFINE(_PathParser(names), name, default, text, required=required)


def path_of(flag: flags.Flag) -> Any:
    """The value of a flag; if it is a path, as `Path`."""
    value = flag.value
    is_path = isinstance(flag.parser, _PathParser) and value and value not in flag.parser.names
    return Path(value) if is_path else value
