import pytest
from absl import flags

from data_prep import blizzard, deepwriting, iamondb, ink, mnist, show, timit, wav
from data_prep.synthetic import __main__ as synthetic
from stcn_tf import flags as stcn_flags
from stcn_tf.data.card import read_card
from stcn_tf.runs import RunDirectory, load_run
from stcn_tf.support import files
from stcn_tf.support.errors import UserError

FLAGS = flags.FLAGS
DEFINERS = [getattr(stcn_flags, name) for name in dir(stcn_flags) if name.startswith("define_")]
COMMANDS = [
    define for define in DEFINERS if define.__name__ not in ("define_settings", "define_path")
]
PREPARATIONS = [blizzard, deepwriting, iamondb, ink, mnist, timit, wav]
PREPARATIONS = [module.prepare.define_flags for module in PREPARATIONS]


@pytest.fixture
def defined():
    """Function (define) -> the flags that it defines, which are gone after the test."""
    known = set(FLAGS)

    def defined(define) -> list[flags.Flag]:
        define()
        return [FLAGS[name] for name in sorted(set(FLAGS) - known)]

    yield defined
    for name in set(FLAGS) - known:
        delattr(FLAGS, name)


@pytest.mark.parametrize(
    "define",
    [*COMMANDS, *PREPARATIONS, show.define_flags, synthetic.define_flags],
    ids=lambda define: f"{define.__module__}.{define.__name__}",
)
def test_every_flag_that_takes_any_text_is_a_path(defined, define, monkeypatch):
    """But names and regular expressions, and a licence: no flag is a path that leaves ~ alone."""
    monkeypatch.setenv("HOME", "/home/somebody")
    for flag in defined(define):
        if flag.flag_type() != "string" or getattr(flag.parser, "enum_values", None):
            continue
        flag.parse("~/a b")
        if flag.name in ("group", "licence", "host") or (
            flag.name == "split" and not hasattr(flag.parser, "names")
        ):
            assert flag.value == "~/a b"
        else:
            assert flag.value == "/home/somebody/a b"
            flag.parse("records/~/x")
            assert flag.value == "records/~/x"
    if define.__module__.startswith("data_prep"):
        assert {"out"} <= set(FLAGS)


def test_in_python_too(tiny_records, tiny_run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").symlink_to(tiny_run)
    (tmp_path / "records").symlink_to(tiny_records)
    assert read_card("~/records") == read_card(tiny_records)
    assert RunDirectory.open("~/run").path == tmp_path / "run"
    assert load_run("~/run").built
    with pytest.raises(UserError, match=f"^{tmp_path}/none: no run directory"):
        load_run("~/none")
    with files.replacing_file("~/file") as partial:
        partial.write_text("here")
    assert (tmp_path / "file").read_text() == "here"
