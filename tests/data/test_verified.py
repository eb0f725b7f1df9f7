import json
import os

import numpy as np
import pytest
import tensorflow as tf

from data_prep import show
from stcn_tf.data import records, verified
from stcn_tf.data.card import Feature, Normalization, read_card
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError


@pytest.fixture
def dataset(tmp_path):
    """Two shards in train, one in valid."""
    rng = np.random.default_rng(1)
    records.write_dataset(
        tmp_path / "data",
        name="two",
        features=[Feature("x", "real", "", "")],
        splits={
            split: [(f"{split}{i}", rng.standard_normal((3, 1)).astype("f")) for i in range(num)]
            for split, num in (("train", 6), ("valid", 2))
        },
        normalization=Normalization("none", (0.0,), (1.0,)),
        source_sha256="0" * 64,
        command="a test",
        sequences_per_shard=3,
    )
    return tmp_path / "data"


@pytest.fixture
def hashed(monkeypatch, tmp_path):
    """A user that nothing is remembered of; the names of the files that are hashed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(verified, "_hashed", {})
    names, original = [], verified._sha256
    monkeypatch.setattr(verified, "_sha256", lambda path: names.append(path.name) or original(path))
    return names


def _forget():
    """As a new process begins."""
    verified._hashed.clear()


def test_a_file_is_hashed_once_until_it_changes(dataset, hashed):
    first, second = (
        dataset / name for name in read_card(dataset).splits["train"].shards for name in [name.file]
    )
    for _ in range(2):
        records.verify(dataset, "train")
    _forget()
    records.verify(dataset, "train")
    assert sorted(hashed) == sorted([first.name, second.name])
    os.utime(second, ns=(1, 1))
    records.verify(dataset, "train")
    assert hashed[2:] == [second.name]
    records.verify(dataset, "train", again=True)
    assert sorted(hashed[3:]) == sorted([first.name, second.name])


def test_a_changed_byte_is_found_where_the_file_changed(dataset, hashed):
    records.verify(dataset, "train")
    _forget()
    path = dataset / read_card(dataset).splits["train"].shards[0].file
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: shard is corrupted"):
        records.verify(dataset, "train")


def test_nothing_is_written_beside_the_records(dataset, hashed, tmp_path):
    before = sorted(dataset.iterdir())
    records.verify(dataset, "train")
    assert sorted(dataset.iterdir()) == before
    content = json.loads((tmp_path / "cache" / "stcn_tf" / "verified.json").read_text())
    assert {os.path.dirname(path) for path in content} == {str(dataset)}


@pytest.mark.parametrize("content", [None, "{", "[1, 2]", '{"a": 3}'])
def test_what_cannot_be_remembered_is_hashed_again(dataset, hashed, tmp_path, content):
    file = tmp_path / "cache" / "stcn_tf" / "verified.json"
    if content is None:
        (tmp_path / "cache").write_text("a file where a folder should be")
    else:
        file.parent.mkdir(parents=True)
        file.write_text(content)
    records.verify(dataset, "valid")
    _forget()
    records.verify(dataset, "valid")
    assert len(hashed) == (2 if content is None else 1)


def test_show_hashes_when_asked_and_names_the_file(dataset, hashed, capsys):
    records.verify(dataset, "train")
    path = dataset / read_card(dataset).splits["train"].shards[1].file
    status = path.stat()
    show.verify(dataset)
    assert "all 3 files are as they were written" in capsys.readouterr().out
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a failing disk leaves it
    records.verify(dataset, "train")
    with pytest.raises(UserError, match=f"{path}: shard is corrupted"):
        show.verify(dataset)


def test_a_damaged_record_is_told_in_one_line(monkeypatch, capsys, parse_flags):
    def main():
        raise tf.errors.DataLossError(
            None, None, "{{node a}} corrupted record at 12 [Op:b]\nand more"
        )

    monkeypatch.setattr("sys.argv", ["test"])
    with pytest.raises(SystemExit) as caught:
        cli.run(main, lambda: None, needs_tensorflow=False)
    assert caught.value.code == cli.USAGE_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: damaged data (corrupted record at 12); `python -m data_prep.show"
    )
