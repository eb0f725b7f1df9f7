"""A kind of flag: the path of a file or folder."""

from absl import flags

from stcn_tf.support.files import expand_home

flags.disclaim_key_flags()  # the flags belong to the modules that define them with this one


class _PathParser(flags.ArgumentParser):
    """Reads a path; shells leave the ~ of --flag=~/x alone."""

    def parse(self, argument: str) -> str:
        return expand_home(argument)


def define_path(name: str, default: str | None, text: str, required: bool = False) -> None:
    """Defines a flag whose value is a path, or a name that stands in the place of one.

    Args:
        name: of the flag.
        default: its value where it is not given.
        text: for `--help`.
        required: whether it must be given.
    """
    flags.DEFINE(_PathParser(), name, default, text, required=required)
