"""The commands: which there are, what each does in a line, how one is run by its name.

A command is a module that runs as a program, `python -m stcn_tf.NAME` or `python -m
data_prep.NAME`; its line is the first of its docstring. They are found by their text, so that to
list them imports none.
"""

import ast
import difflib
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import stcn_tf
from stcn_tf.support import cli

PREPARE = "prepare"  # the word before the names of data_prep's

_PACKAGES = ("stcn_tf", "data_prep")
_RUNS = '\nif __name__ == "__main__":\n'
_HELP = ("--help", "-h", "help")
_USAGE = """\
usage: stcn-tf COMMAND --flag=value ...    (python -m stcn_tf COMMAND, python -m stcn_tf.COMMAND)
"""
_PREPARING = """
Raw files to records, stcn-tf prepare NAME (python -m data_prep.NAME):
"""
_END = """
stcn-tf COMMAND --help says more, stcn-tf --version which version this is."""


def find(package: str) -> dict[str, str]:
    """The commands of a package, each with its line, in the order of their names.

    Args:
        package: stcn_tf or data_prep. Nothing of it is imported but itself.
    """
    folder = Path(importlib.util.find_spec(package).origin).parent
    files = {path.stem: path for path in folder.glob("*.py") if path.stem != "__main__"}
    files |= {path.parent.name: path for path in folder.glob("*/__main__.py")}
    texts = {name: path.read_text(encoding="utf-8") for name, path in sorted(files.items())}
    return {
        name: ast.get_docstring(ast.parse(text)).partition("\n")[0]
        for name, text in texts.items()
        if _RUNS in text
    }


def listing() -> str:
    """All commands, a line each."""
    own, preparing = map(find, _PACKAGES)
    width = max(map(len, [*own, *preparing]))

    def lines(commands: dict[str, str]) -> list[str]:
        return [f"  {name:{width}}  {text}" for name, text in commands.items()]

    return "\n".join([_USAGE, *lines(own), _PREPARING, *lines(preparing), _END])


def run(arguments: Sequence[str]) -> NoReturn:
    """Runs a command by its name, or lists all; exits as the command does.

    Args:
        arguments: the command's name, for data_prep's with `prepare` before it, and its own.
    """
    words, package = list(arguments), "stcn_tf"
    if words == ["--version"]:
        cli.show(f"stcn_tf {stcn_tf.__version__}")
    if words[:1] == [PREPARE]:
        words, package = words[1:], "data_prep"
    if not words or words[0] in _HELP:
        cli.show(listing())
    known, (name, *rest) = find(package), words
    if name not in known:
        before, others = (f"{PREPARE} ", ()) if package == "data_prep" else ("", (PREPARE,))
        accepted = [f"{before}{other}" for other in (*known, *others)]
        near = difflib.get_close_matches(f"{before}{name}", accepted, n=1, cutoff=0.8)
        cli.fail(
            f"{before}{name}: no such command{f' (is {near[0]} meant?)' if near else ''}; "
            f"accepted: {', '.join(accepted)}"
        )
    module = f"{package}.{name}"
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)
