"""How every preparation runs: its flags are the arguments of its `prepare`.

A command is a module with `define_flags`, and a function that `preparation` decorates, whose
parameters have the names of the flags. `run` makes the one from the other.
"""

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from absl import flags

from stcn_tf.support import cli
from stcn_tf.support.errors import UserError
from stcn_tf.support.path_flag import define_path, path_of

# Of the arguments by name, those that mean nothing beside the others, and why.
Ignored = Callable[[Mapping[str, Any]], Mapping[str, str]]


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


def num_workers() -> int:
    """What --workers says, or its default."""
    return flags.FLAGS.workers or min(8, _num_cpus())


def _num_cpus() -> int:
    # A container or batch system may grant fewer CPUs than the machine has; only Linux tells.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def preparation(ignored: Ignored = lambda arguments: {}) -> Callable[[Callable], Callable]:
    """Decorates the function that prepares a data set.

    The function takes `source` and `out` (paths), the flags by their names, and `command`, for the
    card of the records, which is made here of all others: without paths, so that the same data
    prepared elsewhere give the same bytes. Before it is called, `out` is checked: a mistake should
    not cost a parse.

    Args:
        ignored: see `Ignored`; those are left out of the command, and are a mistake where they
            are given.
    """

    def decorate(prepare: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(prepare)
        parameters = [item for name, item in signature.parameters.items() if name != "command"]
        signature = signature.replace(parameters=parameters)

        @functools.wraps(prepare)
        def checked(*args: Any, **kwargs: Any) -> None:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            _check_out(bound.arguments["out"])
            left_out = {"workers", *ignored(bound.arguments)}
            # A switch is shown where it is not as by default.
            left_out |= {
                item.name
                for item in parameters
                if isinstance(item.default, bool) and bound.arguments[item.name] is item.default
            }
            shown = {name: x for name, x in bound.arguments.items() if name not in left_out}
            prepare(**bound.arguments, command=_command_line(prepare, shown))

        checked.__signature__ = signature
        checked.ignored = ignored
        return checked

    return decorate


def import_records() -> ModuleType:
    """Not at the top of modules: the processes that parse import those too, without TensorFlow."""
    cli.import_tensorflow()
    from stcn_tf.data import records

    return records


def _check_out(out: Path) -> None:
    # A new folder needs no check, and then mistakes in the raw data answer before TensorFlow.
    if out.exists():
        import_records().check_replaceable(out)


def _command_line(prepare: Callable, arguments: Mapping[str, Any]) -> str:
    # Of the file: the module's name is another one where it runs as a program.
    words = [f"python -m data_prep.{inspect.getmodulename(inspect.getfile(prepare))}"]
    for name, value in arguments.items():
        if isinstance(value, Path) or (isinstance(value, str) and os.sep in value):
            words.append(f"--{name}={'FILE' if Path(value).is_file() else 'DIR'}")
        elif isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no{name}")
        elif value not in (None, ""):
            words.append(f"--{name}={f'{value:g}' if isinstance(value, float) else value}")
    return " ".join(words)


def call(prepare: Callable[..., None]) -> None:
    """Calls a decorated function with the values of the flags.

    Raises:
        UserError: a flag is given that means nothing beside the others, --source or --out is empty,
            or as the function.
    """
    values = flags.FLAGS
    names = list(inspect.signature(prepare).parameters)
    for name in ("source", "out"):
        if values[name].value == "":  # as a variable of the shell that is not set makes it
            raise UserError(f"--{name} is empty; accepted: a path")
    arguments = {name: path_of(values[name]) for name in names} | {"workers": num_workers()}
    for name, reason in prepare.ignored(arguments).items():
        if values[name].present:
            raise UserError(f"--{name} means nothing {reason}")
    prepare(**arguments)


def run(prepare: Callable[..., None], define: Callable[[], None]) -> NoReturn:
    """Runs a preparation as a command.

    Args:
        prepare: decorated with `preparation`.
        define: defines its flags.
    """
    cli.run(lambda: call(prepare), define, needs_tensorflow=False)
