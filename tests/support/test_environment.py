import json
import subprocess
import sys

import pytest

from stcn_tf.support import environment
from stcn_tf.support.environment import ONEDNN, THREADS


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in environment.NAMES:
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)


def test_what_was_chosen_is_set_unless_a_person_set_it(monkeypatch):
    environment.apply()
    assert not environment.set_here()
    assert environment.choose({ONEDNN: "0", THREADS: "1"})
    monkeypatch.setenv(THREADS, "3")
    environment.apply()
    assert environment.set_here() == {ONEDNN: "0", THREADS: "3"}


def test_it_is_of_this_processor_and_this_tensorflow_alone(monkeypatch):
    environment.choose({ONEDNN: "0"})
    with monkeypatch.context() as other:
        other.setattr(environment, "processor", lambda: "another")
        assert environment.chosen() == {}
        environment.choose({ONEDNN: "1"})
        assert environment.chosen() == {ONEDNN: "1"}
        other.setattr(environment.importlib.metadata, "version", lambda name: "0.1")
        assert environment.chosen() == {}
    assert environment.chosen() == {ONEDNN: "0"}


@pytest.mark.parametrize("content", ["", "[]", "{}", None, [], {"PATH": "1", ONEDNN: "; ls"}, 3])
def test_a_file_that_makes_no_sense_is_none(tmp_path, content):
    environment.choose({ONEDNN: "0"})
    file = tmp_path / "stcn_tf" / "environment.json"
    (key,) = json.loads(file.read_text())
    file.write_text(content if isinstance(content, str) else json.dumps({key: content}))
    assert environment.chosen() == {}


def test_where_nothing_can_be_remembered(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert not environment.choose({ONEDNN: "0"})
    assert environment.chosen() == {}


def test_commands_start_with_it(monkeypatch):
    environment.choose({ONEDNN: "0", THREADS: "1"})
    monkeypatch.setenv(THREADS, "3")
    code = (
        "from stcn_tf.support import cli, environment; cli.import_tensorflow()\n"
        "print(*environment.set_here().values())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "3"]
