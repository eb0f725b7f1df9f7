"""The record format: what is written is read back, all of it or nothing, and faults are told."""

import dataclasses
import hashlib
import json
import resource
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.data import records
from stcn_tf.support.errors import UserError

FEATURES = (
    records.Feature("dx", "real", "points", "step to the right"),
    records.Feature("dy", "real", "points", "step upwards"),
    records.Feature("pen", "binary", "", "1 on the last point of a stroke"),
)
NORMALIZATION = records.Normalization("channel", (8.0, -0.5, 0.0), (40.0, 37.0, 1.0))
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


def edit_card(dataset, change):
    path = dataset / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


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
    card = records.read_card(dataset)
    assert card == records.read_card(dataset / "dataset.json")
    assert card.features == FEATURES
    assert card.normalization == NORMALIZATION
    assert (card.num_features, card.num_real, card.num_binary) == (3, 2, 1)
    assert (card.name, card.source_sha256, card.format_version) == ("ink", "5e1f", 1)
    assert card.command == "python -m prep --out=ink"
    assert card.extra == {"clip": None, "writers": 3}
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


def test_card_round_trip_and_layout(tmp_path):
    card = write(tmp_path / "ink", extra={"b": (1, 2), "a": {"z": 0.1, "y": 1}})
    text = (tmp_path / "ink" / "dataset.json").read_text(encoding="utf-8")
    assert card == records.read_card(tmp_path / "ink") == records.DatasetCard.from_json(text)
    assert card.extra == {"b": [1, 2], "a": {"z": 0.1, "y": 1}}
    assert text == card.to_json()
    assert text.startswith('{\n "format_version": 1,\n') and text.endswith("}\n")
    assert text.index('"a"') < text.index('"b"') and text.index('"y"') < text.index('"z"')


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
    assert tuple(card.splits["all"].length_quantiles) == records.QUANTILES


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


def test_normalization_inverts_and_has_known_values():
    raw = np.array([[[48.0, -0.5, 1.0], [8.0, 36.5, 0.0]]])
    x = NORMALIZATION.normalize(raw)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, [[[1, 0, 1], [0, 1, 0]]])
    np.testing.assert_array_equal(NORMALIZATION.denormalize(x), raw)
    for function in (NORMALIZATION.normalize, NORMALIZATION.denormalize):
        with pytest.raises(UserError, match=r"shape \(4, 1\) do not end in 3 features"):
            function(np.zeros((4, 1)))


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
    before = contents(dataset)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError) as error:
            write_one(dataset, np.zeros((20_000, 3)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value) == f"{tmp_path}: cannot be written to (File too large)"
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
    assert records.read_card(dataset).name == "other"
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
            {"normalization": records.Normalization("vrnn", (1, 1, 1), (2, 2, 2))},
            "binary feature 'pen' must have mean 0 and std 1, got 1 and 2",
        ),
    ],
)
def test_bad_descriptions_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path / "ink", **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0, 0), (1, 1, 1), "2 means but 3 standard deviations"),
        ((0, np.nan), (1, 1), "mean and std must be finite"),
        ((0, 0), (1, 0), r"std must be positive, got \[1.0, 0.0\]"),
    ],
)
def test_bad_normalization_is_refused(mean, std, message):
    with pytest.raises(UserError, match=message):
        records.Normalization("channel", mean, std)


def test_bad_feature_kind_is_refused():
    with pytest.raises(UserError, match="'pen': kind 'bool' is not one of real, binary"):
        dataclasses.replace(FEATURES[2], kind="bool")


# Faults of the files


def drop(key):
    return lambda content: content.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((drop(key), f"'{key}' is missing") for key in ("name", "features", "splits", "extra")),
        (drop("format_version"), "not a dataset card: it has no format_version"),
        (lambda c: c.update(format_version=2), "format_version 2 is not readable, only 1 is"),
        (lambda c: c.update(features={}), "'features' is not of type list"),
        (lambda c: c.update(features=["dx"]), "feature is not of type dict"),
        (lambda c: c["features"][1].pop("unit"), "'unit' is missing"),
        (lambda c: c["features"][1].update(kind="odd"), "kind 'odd' is not one of real, binary"),
        (lambda c: c["features"].pop(), "3 means for 2 features"),
        (lambda c: c["normalization"].update(std=[1, "x", 1]), "could not convert string"),
        (lambda c: c["splits"].update(train=3), "split is not of type dict"),
        (lambda c: c["splits"]["train"].pop("num_steps"), "'num_steps' is missing"),
        (lambda c: c["splits"]["train"].update(num_steps="9"), "'num_steps' is not of type int"),
        (lambda c: c["splits"]["train"].update(shards=[]), "'shards' is empty"),
        (
            lambda c: c["splits"]["train"].update(num_sequences=8),
            "'num_sequences' is 8, but the shards hold 7",
        ),
        (lambda c: c["splits"]["train"]["shards"][0].pop("sha256"), "'sha256' is missing"),
        (
            lambda c: c["splits"]["train"]["shards"][0].update(file="../../etc/passwd"),
            "'../../etc/passwd' is not the name of a shard",
        ),
    ],
)
def test_faulty_cards_are_told_in_one_line(dataset, change, message):
    edit_card(dataset, change)
    with pytest.raises(UserError, match=message) as caught:
        records.read_card(dataset)
    assert str(caught.value).startswith(f"{dataset / 'dataset.json'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b'{"format_version": 1,', "not JSON"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"[1]", "it has no format_version"),
    ],
)
def test_cards_that_are_none(tmp_path, data, message):
    path = tmp_path / "card.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{path}: not a dataset card: .*{message}"):
        records.read_card(path)


def test_folders_without_a_card(tmp_path):
    with pytest.raises(UserError, match="none: does not exist; a dataset folder"):
        records.read_card(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: is empty: there is no dataset.json in it"):
        records.read_card(tmp_path / "empty")
    with pytest.raises(UserError, match="is not a dataset folder: there is no dataset.json in it"):
        records.read_card(tmp_path)


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


# What the sequences are

PIXEL = (records.Feature("pixel", "binary", "", "1 where there is ink"),)
FRAME = tuple(records.Feature(f"sample{i}", "real", "", "") for i in range(5))


@pytest.mark.parametrize(
    ("features", "modality", "expected"),
    [
        (FEATURES, None, records.Modality("handwriting")),
        (FEATURES, records.Modality("handwriting"), records.Modality("handwriting")),
        (FEATURES, records.Modality("other"), records.Modality("other")),
        (FEATURES[::2], None, records.Modality("other")),
        (PIXEL, None, records.Modality("other")),
        (PIXEL, *[records.Modality("image", height=5, width=3)] * 2),
        (FRAME, *[records.Modality("audio", sample_rate_hz=16_000)] * 2),
    ],
)
def test_modality_is_kept(tmp_path, features, modality, expected):
    size = len(features)
    card = write(
        tmp_path / "data",
        features=features,
        normalization=records.Normalization("none", np.zeros(size), np.ones(size)),
        splits={"train": [("a", np.zeros((15, size)))]},
        modality=modality,
    )
    assert card.modality == expected
    content = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert content["modality"] == dataclasses.asdict(card.modality)
    assert records.read_card(tmp_path / "data") == card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "video"}, "modality: 'video' is not one of handwriting, audio, image, other"),
        ({"kind": "audio"}, "modality audio: sample_rate_hz 0; accepted: 1 or more"),
        ({"kind": "audio", "sample_rate_hz": -8000}, "sample_rate_hz -8000; accepted: 1 or more"),
        ({"kind": "image", "height": 5}, "modality image: width 0; accepted: 1 or more"),
        ({"kind": "image", "height": -5, "width": 3}, "height -5; accepted: 1 or more"),
        ({"kind": "other", "width": 3}, "modality other: width 3; accepted: 0"),
        ({"kind": "handwriting", "height": -1}, "modality handwriting: height -1; accepted: 0"),
        (
            {"kind": "image", "height": 5, "width": 3, "sample_rate_hz": 1},
            "modality image: sample_rate_hz 1; accepted: 0",
        ),
    ],
)
def test_bad_modality_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        records.Modality(**arguments)


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        (records.Modality("audio", 16_000), "audio has real features only, the samples of a fra"),
        (records.Modality("image", height=5, width=3), "an image has one feature, a pixel; got 3"),
    ],
)
def test_modality_must_fit_the_features(tmp_path, dataset, modality, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path / "data", modality=modality)
    edit_card(dataset, lambda content: content.update(modality=dataclasses.asdict(modality)))
    with pytest.raises(UserError, match=f"dataset.json: not a usable dataset card: {message}"):
        records.read_card(dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["ink"]


def test_handwriting_has_its_three_features(tmp_path):
    features = (FEATURES[1], FEATURES[0], FEATURES[2])
    with pytest.raises(UserError, match="handwriting has the features dx, dy, pen; got dy, dx, pe"):
        write(tmp_path / "data", features=features, modality=records.Modality("handwriting"))


def test_cards_of_earlier_versions_are_read(dataset):
    before = records.read_card(dataset)

    def strip(content):
        del content["modality"]
        for split in content["splits"].values():
            del split["holds_probabilities"]

    edit_card(dataset, strip)
    assert records.read_card(dataset) == before
    assert before.modality == records.Modality("handwriting")
    assert not before.splits["train"].holds_probabilities
    edit_card(dataset, lambda content: content["features"][0].update(name="x"))
    assert records.read_card(dataset).modality == records.Modality("other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(modality=None), "modality is not of type dict"),
        (lambda c: c.update(modality="audio"), "modality is not of type dict"),
        (lambda c: c["modality"].pop("width"), "'width' is missing"),
        (lambda c: c["modality"].update(width=0.0), "'width' is not of type int"),
        (lambda c: c["modality"].update(kind=1), "'kind' is not of type str"),
        (lambda c: c["modality"].update(kind="odd"), "modality: 'odd' is not one of handwriting,"),
        (
            lambda c: c["splits"]["train"].update(holds_probabilities=1),
            "'holds_probabilities' is not of type bool",
        ),
    ],
)
def test_faulty_modalities_of_cards_are_told(dataset, change, message):
    edit_card(dataset, change)
    with pytest.raises(UserError, match=f"dataset.json: not a usable dataset card: {message}"):
        records.read_card(dataset)


# Probabilities in place of binary values


def test_probabilities_are_stored_as_they_are(tmp_path):
    x = np.array([[-3, 2, 0], [0, 7, 0.3], [5, 0, 1]], np.float32)
    whole = np.round(x)
    splits = {"train": [("a", x)], "valid": [("a", whole)]}
    card = write(tmp_path / "ink", splits=splits, probabilities=["train"])
    assert card.splits["train"].holds_probabilities and not card.splits["valid"].holds_probabilities
    assert records.read_card(tmp_path / "ink") == card
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
            features=[records.Feature("pixel", "binary", "none", "ink")],
            normalization=records.Normalization("none", [0], [1]),
            modality=records.Modality("image", height=2, width=3),
            splits={"train": [(f"{i}", np.ones((n, 1))) for i, n in enumerate(lengths)]},
        )
    assert str(caught.value) == (
        f"split 'train': sequences of {min(lengths)} to {max(lengths)} steps are no images of 2 x "
        "3, which have 6"
    )
    assert not list(tmp_path.iterdir())
