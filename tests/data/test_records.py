"""The record format: what is written is read back, all of it or nothing, and faults are told."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.data import records
from stcn_tf.data.card import QUANTILES, Feature, Modality, Normalization, read_card
from stcn_tf.support.errors import UserError

FEATURES = (
    Feature("dx", "real", "points", "step to the right"),
    Feature("dy", "real", "points", "step upwards"),
    Feature("pen", "binary", "", "1 on the last point of a stroke"),
)
NORMALIZATION = Normalization("channel", (8.0, -0.5, 0.0), (40.0, 37.0, 1.0))
LENGTHS = {"train": (5, 1, 9, 4, 7, 2, 30), "valid": (3, 8)}


def make_sequence(rng, length):
    steps = rng.normal(size=(length, 2))
    return np.concatenate([steps, rng.random((length, 1)) < 0.3], axis=1).astype(np.float32)


def make_splits():
    rng = np.random.default_rng(0)
    return {
        split: [(f"{split}/é{index}", make_sequence(rng, n)) for index, n in enumerate(lengths)]
        for split, lengths in LENGTHS.items()
    }


def write(out_dir, **changes):
    arguments = dict(
        name="ink",
        features=FEATURES,
        splits=make_splits(),
        normalization=NORMALIZATION,
        source_sha256="5e1f",
        command="python -m prep --out=ink",
        extra={"writers": 3, "clip": None},
        sequences_per_shard=3,
    )
    return records.write_dataset(out_dir, **arguments | changes)


def write_one(out_dir, values, **changes):
    return write(out_dir, splits={"train": [("line-7", values)]}, **changes)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def dataset(tmp_path):
    write(tmp_path / "ink")
    return tmp_path / "ink"


# Round trip


def test_records_hold_ids_and_values_in_order(dataset):
    for split, sequences in make_splits().items():
        paths = records.verify(dataset, split)
        serialized = [record.numpy() for record in tf.data.TFRecordDataset(paths)]
        assert len(serialized) == len(sequences)
        for record, (sequence_id, x) in zip(serialized, sequences, strict=True):
            feature = tf.train.Example.FromString(record).features.feature
            assert set(feature) == {"id", "length", "x"}
            assert feature["id"].bytes_list.value[0].decode() == sequence_id
            assert feature["length"].int64_list.value[0] == len(x)
            assert feature["x"].bytes_list.value[0] == x.astype("<f4").tobytes()


def test_card_tells_what_the_folder_holds(dataset):
    card = read_card(dataset)
    assert card == read_card(dataset / "dataset.json")
    assert card.features == FEATURES
    assert card.normalization == NORMALIZATION
    assert (card.num_features, card.num_real, card.num_binary) == (3, 2, 1)
    assert (card.name, card.source_sha256, card.format_version) == ("ink", "5e1f", 1)
    assert card.command == "python -m prep --out=ink"
    assert card.extra == {"clip": None, "writers": 3}
    assert card.modality == Modality("handwriting")
    assert list(card.splits) == ["train", "valid"]
    for split, lengths in LENGTHS.items():
        assert card.splits[split].num_sequences == len(lengths)
        assert card.splits[split].num_steps == sum(lengths)
    train = card.splits["train"]
    assert [shard.num_sequences for shard in train.shards] == [3, 3, 1]
    assert [shard.file for shard in train.shards] == [
        f"train-{index:05d}-of-00003.tfrecord" for index in range(3)
    ]
    for shard in train.shards:
        data = (dataset / shard.file).read_bytes()
        assert shard.num_bytes == len(data)
        assert shard.sha256 == hashlib.sha256(data).hexdigest()
    names = {shard.file for split in card.splits.values() for shard in split.shards}
    assert {path.name for path in dataset.iterdir()} == names | {"dataset.json"}


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (range(1, 21), (1, 1, 5, 10, 15, 19, 20)),
        (range(100, 0, -1), (1, 5, 25, 50, 75, 95, 100)),
        ([4], (4, 4, 4, 4, 4, 4, 4)),
        ([9, 2, 2, 2], (2, 2, 2, 2, 2, 9, 9)),
    ],
)
def test_length_quantiles(tmp_path, lengths, expected):
    sequences = ((str(index), np.zeros((n, 3))) for index, n in enumerate(lengths))
    card = write(tmp_path / "ink", splits={"all": sequences})
    assert tuple(card.splits["all"].length_quantiles.values()) == expected
    assert tuple(card.splits["all"].length_quantiles) == QUANTILES


def test_second_run_is_identical_byte_by_byte(tmp_path, dataset):
    write(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(dataset)


@pytest.mark.slow
def test_other_process_writes_the_same_bytes(tmp_path, dataset):
    # It has another hash seed, and the order of protobuf maps may differ.
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_records; test_records.write(sys.argv[2])"
    )
    folder = str(tmp_path / "again")
    here = str(__file__).rpartition("/")[0]
    subprocess.run([sys.executable, "-c", script, here, folder], check=True, capture_output=True)
    assert contents(tmp_path / "again") == contents(dataset)


def test_sequences_are_streamed(tmp_path):
    alive = []

    class Watched(np.ndarray):
        def __del__(self):
            alive.pop()

    def sequences():
        for index in range(50):
            alive.append(index)
            assert len(alive) <= 3
            yield f"{index}", np.zeros((2, 3), np.float32).view(Watched)

    write(tmp_path / "ink", splits={"train": sequences()})
    assert not alive


# All or nothing


def failing_after(count, error):
    yield from make_splits()["train"][:count]
    raise error


@pytest.mark.parametrize("error", [RuntimeError("disk on fire"), KeyboardInterrupt()])
@pytest.mark.parametrize("count", [0, 4])
def test_failure_leaves_nothing(tmp_path, error, count):
    with pytest.raises(type(error)):
        write(tmp_path / "ink", splits={"train": failing_after(count, error)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("disk on fire"), KeyboardInterrupt()])
def test_failed_rewrite_leaves_the_old_dataset(tmp_path, dataset, error):
    before = contents(dataset)
    with pytest.raises(type(error)):
        write(dataset, splits={"train": failing_after(4, error)})
    assert contents(dataset) == before
    assert list(tmp_path.iterdir()) == [dataset]


def test_a_full_disk_is_told_in_one_line(tmp_path, dataset):
    from tests.conftest import disk_with  # not of the process that the test above starts

    before = contents(dataset)
    with disk_with(100_000), pytest.raises(UserError) as error:
        write_one(dataset, np.zeros((20_000, 3)))
    assert str(error.value) == f"{dataset}: cannot be written (File too large)"
    assert contents(dataset) == before
    assert list(tmp_path.iterdir()) == [dataset]


@pytest.mark.parametrize("failing", [1, 2])
def test_interrupted_replacement_leaves_the_old_dataset(tmp_path, dataset, monkeypatch, failing):
    before = contents(dataset)
    rename = type(dataset).rename
    calls = []

    def interrupted(path, target):
        if path.is_dir():
            calls.append(path)
            if len(calls) == failing:
                raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(type(dataset), "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(dataset, name="other")
    assert contents(dataset) == before
    assert list(tmp_path.iterdir()) == [dataset]


def test_dataset_and_empty_folder_are_replaced(tmp_path, dataset):
    write(dataset, name="other", sequences_per_shard=100)
    assert read_card(dataset).name == "other"
    assert len(list(dataset.iterdir())) == 3
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert records.verify(tmp_path / "empty", "valid")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "ink"]


def test_parents_are_made(tmp_path):
    write(tmp_path / "a" / "b")
    assert records.verify(tmp_path / "a" / "b", "train")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["thesis.txt"], "holds 'thesis.txt', which is no part of a dataset"),
        (["dataset.json", "model.h5"], "holds 'model.h5', which is no part of a dataset"),
        (["train-00000-of-00001.tfrecord"], "is not empty and has no dataset.json"),
    ],
)
def test_other_folders_are_not_touched(tmp_path, names, message):
    folder = tmp_path / "precious"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("years of work")
    with pytest.raises(UserError, match=message) as caught:
        write(folder)
    assert str(folder) in str(caught.value)
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        names, "years of work"
    )
    assert list(tmp_path.iterdir()) == [folder]


def test_file_is_not_replaced(tmp_path):
    (tmp_path / "ink").write_text("a file")
    with pytest.raises(UserError, match="ink: is a file; a new, an empty or a dataset folder"):
        write(tmp_path / "ink")


# What is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3), r"shape \(3,\) is not \[time, 3 features\]"),
        (np.zeros((5, 2)), r"shape \(5, 2\) is not \[time, 3 features\]"),
        (np.zeros((1, 5, 3)), r"shape \(1, 5, 3\) is not \[time, 3 features\]"),
        (np.float32(1), r"shape \(\) is not \[time, 3 features\]"),
        (np.zeros((0, 3)), "there are no time steps"),
        (np.array([[0, 0, 0], [0, np.nan, 0]]), "dy is nan at step 1, not finite"),
        (np.array([[0, np.inf, 0]]), "dy is inf at step 0, not finite"),
        (np.array([[1e39, 0, 0]]), "dx is inf at step 0, not finite"),
        (np.array([[0, 0, 1], [0, 0, 0.5]]), "binary pen is 0.5 at step 1, not 0 or 1"),
        ([["a", "b", "c"]], "values are not an array of numbers"),
        ([[1, 2, 0], [3]], "values are not an array of numbers"),
    ],
)
def test_bad_sequences_are_named(tmp_path, values, message):
    with pytest.raises(UserError, match=message) as caught:
        write_one(tmp_path / "ink", values)
    assert "split 'train': sequence 'line-7': " in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_sequences_that_fit_no_record_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_MAX_SEQUENCE_BYTES", 5 * 3 * 4)
    write_one(tmp_path / "ink", np.zeros((5, 3)))
    with pytest.raises(UserError) as error:
        write_one(tmp_path / "ink", np.zeros((6, 3)))
    assert str(error.value) == (
        "split 'train': sequence 'line-7': 6 steps are too long for a record, which holds 5; cut "
        "the sequence"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {}}, "at least one split is needed"),
        ({"splits": {"train": []}}, "split 'train': there are no sequences"),
        ({"splits": {"../train": []}}, "split name '../train' may hold letters"),
        (
            {"splits": {"t": [("a", np.zeros((1, 3)))] * 2}},
            "sequence 'a': there are two of this id",
        ),
        ({"splits": {"t": [("", np.zeros((1, 3)))]}}, "sequence id '' is not a text"),
        ({"sequences_per_shard": 0}, "sequences_per_shard must be at least 1, got 0"),
        ({"features": ()}, "at least one is needed"),
        ({"features": FEATURES[::-1]}, "real ones come first, then binary ones; got binary, real"),
        ({"features": (FEATURES[0], *FEATURES[::2])}, "names must differ, got dx, dx, pen"),
        ({"features": FEATURES[:2]}, "3 means for 2 features"),
        (
            {"normalization": Normalization("vrnn", (1, 1, 1), (2, 2, 2))},
            "binary feature 'pen' must have mean 0 and std 1, got 1 and 2",
        ),
        ({"modality": Modality("audio", 16_000)}, "audio has real features only, the samples of"),
    ],
)
def test_bad_descriptions_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path / "ink", **changes)
    assert not list(tmp_path.iterdir())


# Faults of the files


def test_verify_returns_paths_in_order(dataset):
    assert records.verify(str(dataset), "train") == [
        str(dataset / f"train-{index:05d}-of-00003.tfrecord") for index in range(3)
    ]


def test_verify_names_the_splits_there_are(dataset):
    with pytest.raises(UserError, match="there is no split 'test', only train, valid"):
        records.verify(dataset, "test")


def test_verify_finds_faulty_shards(dataset):
    path = dataset / "train-00001-of-00003.tfrecord"
    good = path.read_bytes()

    path.unlink()
    with pytest.raises(UserError, match=f"{path}: shard is missing"):
        records.verify(dataset, "train")
    path.write_bytes(good[:-1])
    with pytest.raises(
        UserError, match=f"{path}: shard is truncated: {len(good) - 1} bytes instead of {len(good)}"
    ):
        records.verify(dataset, "train")
    path.write_bytes(good + b"\0")
    with pytest.raises(UserError, match=f"{path}: shard is too long"):
        records.verify(dataset, "train")
    path.write_bytes(good[:50] + bytes([good[50] ^ 1]) + good[51:])
    with pytest.raises(UserError, match=f"{path}: shard is corrupted: its sha256 is"):
        records.verify(dataset, "train")
    records.verify(dataset, "valid")  # the other split is not affected

    path.write_bytes(good)
    assert len(records.verify(dataset, "train")) == 3


# Probabilities in place of binary values


def test_probabilities_are_stored_as_they_are(tmp_path):
    x = np.array([[-3, 2, 0], [0, 7, 0.3], [5, 0, 1]], np.float32)
    whole = np.round(x)
    splits = {"train": [("a", x)], "valid": [("a", whole)]}
    card = write(tmp_path / "ink", splits=splits, probabilities=["train"])
    assert card.splits["train"].holds_probabilities and not card.splits["valid"].holds_probabilities
    assert read_card(tmp_path / "ink") == card
    for split, values in (("train", x), ("valid", whole)):
        (record,) = tf.data.TFRecordDataset(records.verify(tmp_path / "ink", split))
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        assert feature["x"].bytes_list.value[0] == values.tobytes()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "binary pen is 1.5 at step 1, not a probability"),
        (-1e-6, "binary pen is -1e-06 at step 1, not a probability"),
        (np.nan, "pen is nan at step 1, not finite"),
    ],
)
def test_bad_probabilities_are_named(tmp_path, value, message):
    values = np.array([[0, 0, 0.5], [0, 0, value]])
    with pytest.raises(UserError, match=f"split 'train': sequence 'line-7': {message}"):
        write_one(tmp_path / "ink", values, probabilities=["train"])
    assert not list(tmp_path.iterdir())


# Ids, of which only digests are kept


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        (["a", "b", "é", "d", "e", "f", "g", "é"], "é"),  # in different shards
        (["a", "b", "c", "c", "e", "f", "a", "b"], "c"),  # the first that comes again
        (["a", "b", "b", "d", "e", "b", "b", "d"], "b"),
    ],
)
def test_ids_that_come_again_are_named(tmp_path, ids, named):
    splits = {"train": [(name, np.zeros((1, 3))) for name in ids]}
    with pytest.raises(UserError) as caught:
        write(tmp_path / "ink", splits=splits)
    assert str(caught.value) == f"split 'train': sequence {named!r}: there are two of this id"
    assert not list(tmp_path.iterdir())


def test_splits_may_have_the_same_ids(tmp_path):
    sequences = [(name, np.zeros((1, 3))) for name in "abc"]
    card = write(tmp_path / "ink", splits={"train": sequences, "valid": sequences})
    assert [split.num_sequences for split in card.splits.values()] == [3, 3]


@pytest.mark.parametrize("lengths", [(6, 5), (7, 6), (1, 1)])
def test_images_of_another_size_are_refused(tmp_path, lengths):
    with pytest.raises(UserError) as caught:
        write(
            tmp_path / "images",
            features=[Feature("pixel", "binary", "none", "ink")],
            normalization=Normalization("none", [0], [1]),
            modality=Modality("image", height=2, width=3),
            splits={"train": [(f"{i}", np.ones((n, 1))) for i, n in enumerate(lengths)]},
        )
    assert str(caught.value) == (
        f"split 'train': sequences of {min(lengths)} to {max(lengths)} steps are no images of 2 x "
        "3, which have 6"
    )
    assert not list(tmp_path.iterdir())
