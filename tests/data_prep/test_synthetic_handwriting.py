"""Synthetic handwriting: it resembles writing, and is the same writing in every format."""

import json
import os
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_prep import iamondb
from data_prep.synthetic import handwriting, sentences
from data_prep.synthetic.handwriting import HandwritingSettings

SETTINGS = HandwritingSettings(num_forms=7, lines_per_form=3, max_chars=14, seed=5)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_xml(folder):
    """The strokes of each line, int [points, 2] each, by id."""
    return {
        path.stem: [
            np.array([[int(point.get("x")), int(point.get("y"))] for point in stroke])
            for stroke in ElementTree.parse(path).iter("Stroke")
        ]
        for path in sorted(folder.rglob("*.xml"))
    }


def differences(strokes):
    """From point to point, [points - 1, 2]."""
    return np.diff(np.concatenate(strokes), axis=0)


def last_points(strokes):
    """Indices of steps that end a stroke, when the first point is no step."""
    ends = np.cumsum([len(stroke) for stroke in strokes]) - 2
    return ends[ends >= 0]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("iamondb")
    assert handwriting.write_iamondb(out, SETTINGS) == "21 lines"
    return out


@pytest.fixture(scope="module")
def lines(raw):
    return read_xml(raw)


def test_folders_and_lists_are_those_of_iam_ondb(raw):
    names = list(files_of(raw))
    assert "lineStrokes/x01/x01-000/x01-000z-01.xml" in names
    assert "lineStrokes/x01/x01-006/x01-006z-03.xml" in names
    assert len([name for name in names if name.endswith(".xml")]) == 21
    splits = iamondb.read_splits(str(raw / "splits"))
    assert splits["train"] == [handwriting.form_id(index) for index in range(6)]
    assert splits["valid"] == ["x01-006z"]


def test_form_ids_run_on_beyond_a_thousand():
    assert handwriting.form_id(999) == "x01-999z"
    assert handwriting.form_id(1000) == "x02-000z"
    assert handwriting.form_id(handwriting.MAX_FORMS - 1) == "x99-999z"


def test_preparation_reads_it(raw, tmp_path):
    from stcn_tf.data.card import read_card

    iamondb.prepare(
        raw,
        tmp_path / "out",
        split=str(raw / "splits"),
        normalization="vrnn",
        skip_bad=False,
        workers=1,
    )
    card = read_card(tmp_path / "out")
    assert card.name == "handwriting"
    assert {name: split.num_sequences for name, split in card.splits.items()} == {
        "train": 18,
        "valid": 3,
    }
    assert card.extra["num_files_in_no_list"] == 0


def test_xml_files_have_the_original_form(raw):
    for path in sorted(raw.rglob("*.xml")):
        root = ElementTree.parse(path).getroot()
        assert root.tag == "WhiteboardCaptureSession"
        assert [child.tag for child in root] == ["WhiteboardDescription", "StrokeSet"]
        points = root.findall("StrokeSet/Stroke/Point")
        x, y = (np.array([int(point.get(axis)) for point in points]) for axis in "xy")
        times = [float(point.get("time")) for point in points]
        assert min(x) >= 1 and min(y) >= 1
        assert times == sorted(times)
        corner = root.find("WhiteboardDescription/DiagonallyOppositeCoords")
        assert (int(corner.get("x")), int(corner.get("y"))) == (max(x), max(y))
        for stroke in root.iter("Stroke"):
            assert stroke.get("start_time") == stroke[0].get("time")
            assert stroke.get("end_time") == stroke[-1].get("time")


def test_deepwriting_holds_the_same_lines_normalised(lines, tmp_path):
    assert handwriting.write_deepwriting(tmp_path, SETTINGS) == "21 lines"
    assert len(os.listdir(tmp_path)) == 2
    files = {
        split: np.load(tmp_path / f"deepwriting_{split}.npz", allow_pickle=True)
        for split in ("training", "validation")
    }
    ids = {"training": list(lines)[:18], "validation": list(lines)[18:]}
    raw_steps = {name: differences(strokes)[:400] / 8000.0 for name, strokes in lines.items()}
    train = np.concatenate([raw_steps[name] for name in ids["training"]])
    texts = list(np.concatenate([files[split]["texts"] for split in files]))
    assert texts == [line.text for line in handwriting.lines(SETTINGS)]
    everything = [np.concatenate(strokes) - strokes[0][0] for strokes in lines.values()]
    for split, data in files.items():
        strokes, mean, std = data["strokes"], data["mean"], data["std"]
        assert strokes.shape == (len(ids[split]),)
        pens = [step[:, 2] for step in files["training"]["strokes"]]
        np.testing.assert_allclose(mean[:2], train.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(std[:2], train.std(axis=0), rtol=1e-6)
        assert mean[2] == pytest.approx(np.concatenate(pens).mean(), rel=1e-6)
        assert std[2] == pytest.approx(np.concatenate(pens).std(), rel=1e-6)
        for name, steps in zip(ids[split], strokes, strict=True):
            assert steps.dtype == np.float32 and steps.shape == (len(raw_steps[name]), 3)
            # y downwards, as in the original: nothing is negated.
            undone = steps[:, :2] * std[:2] + mean[:2]
            np.testing.assert_allclose(undone, raw_steps[name], atol=1e-8)
            ends = last_points(lines[name])
            np.testing.assert_array_equal(np.flatnonzero(steps[:, 2]), ends[ends < 400])
            assert set(steps[:, 2]) <= {0.0, 1.0}
        np.testing.assert_array_equal(data["min"][:2], np.concatenate(everything).min(axis=0))
        np.testing.assert_array_equal(data["max"][:2], np.concatenate(everything).max(axis=0))
        assert (data["min"][2], data["max"][2]) == (0.0, 1.0)
        forms = [int(name[4:7]) for name in ids[split]]
        np.testing.assert_array_equal(data["subject_labels"], np.array(forms) + 10_000)
    assert max(map(len, raw_steps.values())) == 400  # one at least is cut off


def test_deepwriting_letters_lie_where_they_are_written(lines, tmp_path):
    handwriting.write_deepwriting(tmp_path, SETTINGS)
    data = np.load(tmp_path / "deepwriting_training.npz", allow_pickle=True)
    alphabet = data["alphabet"]
    for strokes, text, labels in zip(
        lines.values(), data["texts"], data["char_labels"], strict=False
    ):
        x = np.concatenate(strokes)[1:401, 0]
        assert labels.dtype == np.int32 and labels.shape == x.shape
        # From left to right the letters come in the order of the text.
        found = iter(letter if letter in alphabet else "" for letter in text.replace(" ", "?"))
        written = alphabet[labels[np.argsort(x, kind="stable")]]
        changes = written[np.append(True, written[1:] != written[:-1])]
        assert all(letter in found for letter in changes)
        assert written[0] == text[0]


def test_deepwriting_steps_are_as_long_as_the_original_ones(tmp_path):
    handwriting.write_deepwriting(tmp_path, HandwritingSettings(num_forms=20, lines_per_form=2))
    data = np.load(tmp_path / "deepwriting_training.npz", allow_pickle=True)
    # The original's: mean 0.00106, 0.00003, 0.0425; std 0.0056, 0.0079, 0.20.
    mean, std = data["mean"], data["std"]
    assert 0.0005 < mean[0] < 0.002 and abs(mean[1]) < 0.0003 and 0.02 < mean[2] < 0.08
    assert np.all((std[:2] > 0.003) & (std[:2] < 0.012))


@pytest.mark.data
def test_deepwriting_arrays_are_of_the_original_types(tmp_path):
    if not os.environ.get("STCN_DATA"):
        pytest.skip("STCN_DATA is not set")
    path = Path(os.environ["STCN_DATA"], "deepwriting", "deepwriting_validation.npz")
    original = np.load(path, allow_pickle=True)
    handwriting.write_deepwriting(tmp_path, SETTINGS)
    data = np.load(tmp_path / "deepwriting_validation.npz", allow_pickle=True)
    assert set(data.files) <= set(original.files)
    for name in data.files:
        ours, theirs = data[name], original[name]
        assert (ours.dtype.kind, ours.ndim) == (theirs.dtype.kind, theirs.ndim), name
        if ours.dtype == object:
            assert (ours[0].dtype, ours[0].ndim) == (theirs[0].dtype, theirs[0].ndim), name
        elif ours.dtype.kind != "U":
            assert ours.dtype == theirs.dtype, name
    for name in ("alphabet", "preprocessing"):
        np.testing.assert_array_equal(data[name], original[name])
        assert data[name].dtype == original[name].dtype


def test_ink_json_holds_the_same_strokes(lines, tmp_path):
    assert handwriting.write_ink_json(tmp_path, SETTINGS) == "21 lines"
    paths = sorted((tmp_path / "ink").rglob("*.json"))
    assert [path.parent.name for path in paths] == ["train"] * 18 + ["valid"] * 3
    assert [path.stem for path in paths] == list(lines)
    for path in paths:
        content = json.loads(path.read_text())
        assert content["y_axis"] == "down"
        assert content["strokes"] == [stroke.tolist() for stroke in lines[path.stem]]


def test_inkml_holds_the_same_strokes(lines, tmp_path):
    assert handwriting.write_inkml(tmp_path, SETTINGS) == "21 lines"
    namespace = "{http://www.w3.org/2003/InkML}"
    paths = sorted((tmp_path / "ink").rglob("*.inkml"))
    assert [path.parent.name for path in paths] == ["train"] * 18 + ["valid"] * 3
    assert [path.stem for path in paths] == list(lines)
    for path in paths:
        root = ElementTree.parse(path).getroot()
        assert root.tag == f"{namespace}ink"
        channels = root.findall(f"{namespace}traceFormat/{namespace}channel")
        assert [channel.get("name") for channel in channels] == ["X", "Y", "T"]
        times = []
        traces = root.findall(f"{namespace}trace")
        for trace, stroke in zip(traces, lines[path.stem], strict=True):
            points = np.array([point.split() for point in trace.text.split(",")], np.int64)
            np.testing.assert_array_equal(points[:, :2], stroke)
            times += points[:, 2].tolist()
        assert np.all(np.diff(times) > 0)


def test_ink_npz_holds_the_same_lines_upwards(lines, tmp_path):
    assert handwriting.write_ink_npz(tmp_path, SETTINGS) == "21 lines"
    data = np.load(tmp_path / "ink.npz")  # no pickles
    splits = ["train"] * 18 + ["valid"] * 3
    assert data.files == [f"{split}/{name}" for split, name in zip(splits, lines, strict=True)]
    for name in data.files:
        strokes = lines[name.split("/")[1]]
        assert data[name].dtype == np.float32
        np.testing.assert_array_equal(data[name][:, :2], differences(strokes) * [1, -1])
        np.testing.assert_array_equal(np.flatnonzero(data[name][:, 2]), last_points(strokes))
        assert data[name][-1, 2] == 1.0


def test_npz_files_do_not_tell_the_time(tmp_path):
    # The same seed gives the same bytes a minute later, too.
    handwriting.write_ink_npz(tmp_path, SETTINGS)
    handwriting.write_deepwriting(tmp_path, SETTINGS)
    for path in tmp_path.glob("*.npz"):
        times = {info.date_time for info in zipfile.ZipFile(path).infolist()}
        assert times == {(1980, 1, 1, 0, 0, 0)}


def test_offsets_by_hand():
    strokes = [np.array([[3, 4]]), np.array([[5, 1], [6, 1], [6, 9]]), np.array([[0, 2]])]
    np.testing.assert_array_equal(
        handwriting.to_offsets(strokes), [[2, -3, 0], [1, 0, 0], [0, 8, 1], [-6, -7, 1]]
    )


def test_it_resembles_handwriting(tmp_path):
    settings = HandwritingSettings(num_forms=20, lines_per_form=2, seed=9)
    handwriting.write_iamondb(tmp_path, settings)
    lines = list(read_xml(tmp_path).values())
    offsets = [differences(strokes) for strokes in lines]
    lengths = [len(line) for line in offsets]
    assert 60 < min(lengths) and max(lengths) < 1200 and 200 < np.median(lengths) < 600
    # The complete IAM-OnDB: mean dx 8.2, std 42.0 and 37.1, pen rate 0.040.
    everything = np.concatenate(offsets)
    assert 5 < everything[:, 0].mean() < 12 and abs(everything[:, 1].mean()) < 1.5
    assert np.all((everything.std(axis=0) > 25) & (everything.std(axis=0) < 60))
    assert 0.02 < sum(map(len, lines)) / len(everything) < 0.08
    assert any(len(stroke) == 1 for strokes in lines for stroke in strokes)
    # Writing goes to the right: every line is much wider than high.
    for strokes in lines:
        width, height = np.ptp(np.concatenate(strokes), axis=0)
        assert width > 1.5 * height


def test_more_forms_leave_the_first_ones_as_they_are(raw, tmp_path):
    more = HandwritingSettings(num_forms=9, lines_per_form=3, max_chars=14, seed=5)
    handwriting.write_iamondb(tmp_path, more)
    after = files_of(tmp_path)
    assert all(data == after[name] for name, data in files_of(raw).items() if ".xml" in name)


def test_the_path_keeps_its_ends_and_slows_down_in_bends():
    rng = np.random.default_rng(2)
    writer = handwriting.draw_writer(rng)._replace(tremor=0.0, x_height=150.0, speed=24.0)
    angle = np.linspace(0.0, 1.5 * np.pi, 200)
    bend = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 50.0
    path = np.concatenate([np.linspace([50.0, -1200.0], [50.0, 0.0], 50), bend])
    samples = handwriting.write_stroke(path, writer, rng)
    np.testing.assert_allclose(samples[[0, -1]], path[[0, -1]], atol=1e-9)
    steps = np.hypot(*np.diff(samples, axis=0).T)
    straight = samples[1:, 1] < -200.0
    assert np.median(steps[~straight]) < 0.75 * np.median(steps[straight][5:])
    assert steps[0] < np.median(steps[straight])


def test_a_dot_is_one_sample():
    rng = np.random.default_rng(0)
    writer = handwriting.draw_writer(rng)
    samples = handwriting.write_stroke(np.array([[3.0, 4.0]]), writer, rng)
    np.testing.assert_array_equal(samples, [[3.0, 4.0]])


def test_lines_are_whole_words_of_printable_letters():
    lines = sentences.lines(np.random.default_rng(1), 3000, handwriting.MIN_CHARS)
    assert len(lines) == 3000
    assert max(map(len, lines)) <= handwriting.MIN_CHARS
    assert all(33 <= ord(letter) < 127 for line in lines for letter in line.replace(" ", ""))
    # Each line is as full as the next word allows.
    for line, following in zip(lines, lines[1:], strict=False):
        assert len(line) + 1 + len(following.split(" ")[0]) > handwriting.MIN_CHARS
    letters = set("".join(lines).lower())
    assert set("abcdefghijklmnopqrstuvwxyz0123456789.,?") <= letters
