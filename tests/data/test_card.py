"""The dataset card: what is written is read back, and what does not fit together is told."""

import dataclasses
import json

import numpy as np
import pytest

from stcn_tf.data.card import (
    DatasetCard,
    Feature,
    Modality,
    Normalization,
    Shard,
    Split,
    group_alike,
    read_card,
)
from stcn_tf.support.errors import UserError

FEATURES = (
    Feature("dx", "real", "points", "step to the right"),
    Feature("dy", "real", "points", "step upwards"),
    Feature("pen", "binary", "", "1 on the last point of a stroke"),
)
NORMALIZATION = Normalization("channel", (8.0, -0.5, 0.0), (40.0, 37.0, 1.0))


def make_split(name, sizes, length=15):
    quantiles = dict.fromkeys(("0", "0.05", "0.25", "0.5", "0.75", "0.95", "1"), length)
    shards = tuple(
        Shard(f"{name}-{index:05d}-of-{len(sizes):05d}.tfrecord", size, 100 + size, f"{index:064x}")
        for index, size in enumerate(sizes)
    )
    return Split(sum(sizes), sum(sizes) * length, quantiles, shards)


def make_card(**changes):
    arguments = dict(
        format_version=1,
        name="ink",
        features=FEATURES,
        splits={"train": make_split("train", (3, 3, 1)), "valid": make_split("valid", (2,))},
        normalization=NORMALIZATION,
        source_sha256="5e1f",
        command="python -m prep --out=ink",
        extra={"writers": 3, "clip": None},
    )
    return DatasetCard(**arguments | changes)


@pytest.fixture
def dataset(tmp_path):
    """A folder with a card alone."""
    folder = tmp_path / "ink"
    folder.mkdir()
    (folder / "dataset.json").write_text(make_card().to_json(), encoding="utf-8")
    return folder


def edit_card(dataset, change):
    path = dataset / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_card_round_trip_and_layout(dataset):
    card = make_card(extra={"b": (1, 2), "a": {"z": 0.1, "y": 1}})
    text = card.to_json()
    assert DatasetCard.from_json(text) == card
    assert card.extra == {"b": [1, 2], "a": {"z": 0.1, "y": 1}}
    assert text.startswith('{\n "format_version": 1,\n') and text.endswith("}\n")
    assert text.index('"a"') < text.index('"b"') and text.index('"y"') < text.index('"z"')
    assert read_card(dataset) == read_card(dataset / "dataset.json") == make_card()
    assert (card.num_features, card.num_real, card.num_binary) == (3, 2, 1)


def test_neighbours_of_one_value_are_named_as_one():
    names = ["dx", "dy", "a", "b", "c", "d", "e"]
    assert list(group_alike(names, ["mm", "mm", "V", "V", "V", "V", "mm"])) == [
        ("dx, dy", "mm"),
        ("a to d", "V"),
        ("e", "mm"),
    ]


def test_normalization_inverts_and_has_known_values():
    raw = np.array([[[48.0, -0.5, 1.0], [8.0, 36.5, 0.0]]])
    x = NORMALIZATION.normalize(raw)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, [[[1, 0, 1], [0, 1, 0]]])
    np.testing.assert_array_equal(NORMALIZATION.denormalize(x), raw)
    for function in (NORMALIZATION.normalize, NORMALIZATION.denormalize):
        with pytest.raises(UserError, match=r"shape \(4, 1\) do not end in 3 features"):
            function(np.zeros((4, 1)))


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
        Normalization("channel", mean, std)


def test_bad_feature_kind_is_refused():
    with pytest.raises(UserError, match="'pen': kind 'bool' is not one of real, binary"):
        dataclasses.replace(FEATURES[2], kind="bool")


# Faults of the file


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
        read_card(dataset)
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
        read_card(path)


def test_folders_without_a_card(tmp_path):
    with pytest.raises(UserError, match="none: does not exist; a dataset folder"):
        read_card(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: is empty: there is no dataset.json in it"):
        read_card(tmp_path / "empty")
    with pytest.raises(UserError, match="is not a dataset folder: there is no dataset.json in it"):
        read_card(tmp_path)


# What the sequences are

PIXEL = (Feature("pixel", "binary", "", "1 where there is ink"),)
FRAME = tuple(Feature(f"sample{i}", "real", "", "") for i in range(5))


@pytest.mark.parametrize(
    ("features", "modality", "expected"),
    [
        (FEATURES, None, Modality("handwriting")),
        (FEATURES, Modality("handwriting"), Modality("handwriting")),
        (FEATURES, Modality("other"), Modality("other")),
        (FEATURES[::2], None, Modality("other")),
        (PIXEL, None, Modality("other")),
        (PIXEL, *[Modality("image", height=5, width=3)] * 2),
        (FRAME, *[Modality("audio", sample_rate_hz=16_000)] * 2),
    ],
)
def test_modality_is_kept(features, modality, expected):
    size = len(features)
    card = make_card(
        features=features,
        normalization=Normalization("none", np.zeros(size), np.ones(size)),
        modality=modality,
    )
    assert card.modality == expected
    assert json.loads(card.to_json())["modality"] == dataclasses.asdict(expected)
    assert DatasetCard.from_json(card.to_json()) == card


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
        Modality(**arguments)


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        (Modality("audio", 16_000), "audio has real features only, the samples of a fra"),
        (Modality("image", height=5, width=3), "an image has one feature, a pixel; got 3"),
    ],
)
def test_modality_must_fit_the_features(dataset, modality, message):
    with pytest.raises(UserError, match=message):
        make_card(modality=modality)
    edit_card(dataset, lambda content: content.update(modality=dataclasses.asdict(modality)))
    with pytest.raises(UserError, match=f"dataset.json: not a usable dataset card: {message}"):
        read_card(dataset)


def test_handwriting_has_its_three_features():
    features = (FEATURES[1], FEATURES[0], FEATURES[2])
    with pytest.raises(UserError, match="handwriting has the features dx, dy, pen; got dy, dx, pe"):
        make_card(features=features, modality=Modality("handwriting"))


def test_cards_of_earlier_versions_are_read(dataset):
    before = read_card(dataset)

    def strip(content):
        del content["modality"]
        for split in content["splits"].values():
            del split["holds_probabilities"]

    edit_card(dataset, strip)
    assert read_card(dataset) == before
    assert before.modality == Modality("handwriting")
    assert not before.splits["train"].holds_probabilities
    edit_card(dataset, lambda content: content["features"][0].update(name="x"))
    assert read_card(dataset).modality == Modality("other")


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
        read_card(dataset)
