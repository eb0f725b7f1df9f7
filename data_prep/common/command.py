"""How every preparation runs: its flags are the arguments of its `prepare`.

A command is a module with a function that `preparation` decorates, with help for each parameter;
`run` makes the one from the other.
"""

import functools
import inspect
import os
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from absl import flags

from stcn_tf.support import cli
from stcn_tf.support.errors import UserError
from stcn_tf.support.path_flag import define_path, path_of

# Of the arguments by name, those that mean nothing beside the others, and why.
Ignored = Callable[[Mapping[str, Any]], Mapping[str, str]]


class Flag(NamedTuple):
    """What a flag has beside the name, the type and the default of its argument."""

    help: str
    accepted: Collection[str] = ()  # texts; of a path, those that stand in the place of one
    low: int | None = None
    high: int | None = None


_COMMON = {
    "out": Flag("Folder of the records; a dataset there is replaced."),
    "skip_bad": Flag("Leave out what has faults, and count it."),
    "workers": Flag(
        "Processes that read raw files; by default as many as this process may use CPUs, at most "
        "8.",
        low=1,
    ),
}


def _define(parameter: inspect.Parameter, flag: Flag) -> None:
    """Defines the flag of an argument."""
    types = typing.get_args(parameter.annotation) or (parameter.annotation,)
    needed = parameter.default is parameter.empty
    # Of workers, None is as many as there are processors.
    default = None if needed or parameter.name == "workers" else parameter.default
    name, text, accepted, low, high = parameter.name, *flag
    if Path in types:
        required = needed and type(None) not in types
        define_path(name, default, text, required=required, names=accepted)
    elif accepted:
        flags.DEFINE_enum(name, default, list(accepted), text)
    elif int in types:
        flags.DEFINE_integer(name, default, text, lower_bound=low, upper_bound=high)
    else:
        kinds = {bool: flags.DEFINE_bool, float: flags.DEFINE_float, str: flags.DEFINE_string}
        kinds[types[0]](name, default, text)


def num_workers() -> int:
    """What --workers says, or its default."""
    if hasattr(os, "sched_getaffinity"):
        # A container or batch system may grant fewer CPUs than the machine has; only Linux tells.
        num_cpus = len(os.sched_getaffinity(0))
    else:
        num_cpus = os.cpu_count() or 1
    return flags.FLAGS.workers or min(8, num_cpus)


def preparation(
    source: str, ignored: Ignored = lambda arguments: {}, **own: Flag
) -> Callable[[Callable], Callable]:
    """Decorates the function that prepares a data set.

    The function takes `source` and `out` (paths), the flags by their names, and `command`, for the
    card of the records, which is made here of all others: without paths, so that the same data
    prepared elsewhere give the same bytes. Before it is called, `out` is checked: a mistake should
    not cost a parse.

    Args:
        source: help of --source.
        ignored: see `Ignored`; those are left out of the command, and are a mistake where they
            are given.
        **own: the flags other than --source, --out, --skip_bad and --workers.
    """

    def decorate(prepare: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(prepare)
        parameters = [item for name, item in signature.parameters.items() if name != "command"]
        signature = signature.replace(parameters=parameters)

        @functools.wraps(prepare)
        def checked(*args: Any, **kwargs: Any) -> None:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            # A new folder needs no check, and then mistakes in the raw data answer before
            # TensorFlow.
            if bound.arguments["out"].exists():
                import_records().check_replaceable(bound.arguments["out"])
            left_out = {"workers", *ignored(bound.arguments)}
            # A switch is shown where it is not as by default.
            left_out |= {
                item.name
                for item in parameters
                if isinstance(item.default, bool) and bound.arguments[item.name] is item.default
            }
            shown = {name: x for name, x in bound.arguments.items() if name not in left_out}
            prepare(**bound.arguments, command=_command_line(prepare, shown))

        def define_flags() -> None:
            known = {"source": Flag(source), **_COMMON, **own}
            for item in parameters:
                _define(item, known[item.name])

        checked.__signature__ = signature
        checked.ignored, checked.define_flags = ignored, define_flags
        return checked

    return decorate


def import_records() -> ModuleType:
    """Not at the top of modules: the processes that parse import those too, without TensorFlow."""
    cli.import_tensorflow()
    from stcn_tf.data import records

    return records


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


def run(prepare: Callable[..., None]) -> NoReturn:
    """Runs a decorated function as a command."""
    cli.run(lambda: call(prepare), prepare.define_flags, needs_tensorflow=False)
