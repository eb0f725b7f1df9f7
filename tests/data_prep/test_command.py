"""How flags become the arguments of a preparation, and those the command on its card."""

import inspect
import os
from pathlib import Path

import pytest
from absl import flags

from data_prep import blizzard, deepwriting, iamondb, ink, mnist, timit, wav
from data_prep.common import command, splitting
from data_prep.common.command import Flag, preparation
from stcn_tf.support.errors import UserError

COMMANDS = [blizzard, deepwriting, iamondb, ink, mnist, timit, wav]


def test_the_number_of_workers(parse_flags, monkeypatch):
    parse_flags(prepare.define_flags, "--source=a", "--out=b")
    for num_cpus, expected in ((3, 3), (20, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=num_cpus: range(n), raising=False)
        assert command.num_workers() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert command.num_workers() == 1
    flags.FLAGS.workers = 5
    assert command.num_workers() == 5


@pytest.mark.parametrize("module", COMMANDS)
def test_the_flags_of_every_command_are_the_arguments_of_its_preparation(parse_flags, module):
    before = set(flags.FLAGS)
    parse_flags(module.prepare.define_flags, "--source=a", "--out=b")
    parameters = inspect.signature(module.prepare).parameters
    assert set(flags.FLAGS) - before == set(parameters)
    for name, parameter in parameters.items():
        if name not in ("source", "out", "workers"):
            assert parameter.default == flags.FLAGS[name].default, name


CALLS = []


@preparation(
    "from",
    splitting.shares_ignored,
    split=Flag(splitting.SPLIT_HELP, splitting.NAMES),
    **splitting.share_flags(),
)
def prepare(
    source: Path | None,
    out: Path,
    *,
    split: str | Path = "random",
    valid_share: float = 0.1,
    test_share: float = 0.0,
    skip_bad: bool = False,
    workers: int = 1,
    command: str,
) -> None:
    CALLS.append(locals())


@pytest.mark.parametrize(
    ("words", "changes", "shown"),
    [
        ([], {}, "--source=DIR --out=DIR --split=random --valid_share=0.1 --test_share=0"),
        (["--split=folders"], {"split": "folders"}, "--source=DIR --out=DIR --split=folders"),
        (["--split=./no/lists"], {"split": Path("no/lists")}, "--source=DIR --out=DIR --split=DIR"),
        (
            [f"--source={__file__}", "--workers=3", "--skip_bad", "--test_share=0.25"],
            {"source": Path(__file__), "skip_bad": True, "workers": 3, "test_share": 0.25},
            "--source=FILE --out=DIR --split=random --valid_share=0.1 --test_share=0.25 --skip_bad",
        ),
    ],
)
def test_flags_become_arguments_and_the_card_s_command(parse_flags, words, changes, shown):
    parse_flags(prepare.define_flags, "--source=from", "--out=to", "--workers=1", *words)
    CALLS.clear()
    command.call(prepare)
    expected = {
        "source": Path("from"),
        "out": Path("to"),
        "split": "random",
        "valid_share": 0.1,
        "test_share": 0.0,
        "skip_bad": False,
        "workers": 1,
        "command": f"python -m data_prep.test_command {shown}",
    }
    assert CALLS == [expected | changes]


def test_what_is_not_given_is_not_in_the_command():
    CALLS.clear()
    prepare(None, Path("to"), split="folders")
    assert CALLS[0]["command"] == "python -m data_prep.test_command --out=DIR --split=folders"


def test_flags_that_would_be_ignored_are_refused(parse_flags):
    words = ["--source=a", "--out=b", "--split=folders", "--test_share=0.2"]
    parse_flags(prepare.define_flags, *words)
    with pytest.raises(UserError, match="^--test_share means nothing with --split=folders$"):
        command.call(prepare)


@pytest.mark.parametrize("name", ["source", "out"])
def test_paths_that_are_empty_are_refused(parse_flags, name):
    parse_flags(prepare.define_flags, "--source=a", "--out=b", f"--{name}=")
    with pytest.raises(UserError, match=f"^--{name} is empty; accepted: a path$"):
        command.call(prepare)


def test_places_that_hold_something_else_are_refused_early(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("")
    CALLS.clear()
    with pytest.raises(UserError, match="thesis: holds 'thesis.tex', which is no part of a datase"):
        prepare(None, tmp_path / "thesis")
    prepare(None, tmp_path / "new")
    assert len(CALLS) == 1
