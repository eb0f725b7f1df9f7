"""Synthetic handwriting: the real parser reads it, the seed fixes it, and it resembles writing."""

import json
import os
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from data_prep import iamondb, sentences, synthetic
from data_prep.linestrokes import parse_file
from stcn_tf.errors import UserError

SETTINGS = synthetic.Settings(num_forms=7, lines_per_form=3, max_chars=14, seed=5)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "raw"
    synthetic.write(out, SETTINGS)
    return out


def test_folders_and_lists_are_those_of_iam_ondb(raw):
    names = list(files_of(raw))
    assert "lineStrokes/x01/x01-000/x01-000z-01.xml" in names
    assert "lineStrokes/x01/x01-006/x01-006z-03.xml" in names
    assert len([name for name in names if name.endswith(".xml")]) == 21
    splits = iamondb.read_splits(str(raw / "splits"))
    assert splits["train"] == [synthetic.form_id(index) for index in range(6)]
    assert splits["valid"] == ["x01-006z"]
    assert json.loads((raw / "synthetic.json").read_text()) == {
        "num_forms": 7,
        "lines_per_form": 3,
        "max_chars": 14,
        "seed": 5,
    }


def test_form_ids_run_on_beyond_a_thousand():
    assert synthetic.form_id(999) == "x01-999z"
    assert synthetic.form_id(1000) == "x02-000z"
    assert synthetic.form_id(synthetic.MAX_FORMS - 1) == "x99-999z"


def test_preparation_reads_it(raw, tmp_path):
    from stcn_tf.data import records

    iamondb.prepare(
        raw,
        tmp_path / "out",
        split=str(raw / "splits"),
        normalization="vrnn",
        skip_bad=False,
        workers=1,
    )
    card = records.read_card(tmp_path / "out")
    assert card.name == "handwriting"
    assert {name: split.num_sequences for name, split in card.splits.items()} == {
        "train": 18,
        "valid": 3,
    }
    assert card.extra["num_files_in_no_list"] == 0


def test_files_have_the_original_form(raw):
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


def test_it_resembles_handwriting(tmp_path):
    synthetic.write(tmp_path / "raw", synthetic.Settings(num_forms=20, lines_per_form=2, seed=9))
    lines = [parse_file(path).line for path in sorted((tmp_path / "raw").rglob("*.xml"))]
    lengths = [len(line.offsets) for line in lines]
    assert 60 < min(lengths) and max(lengths) < 1200 and 200 < np.median(lengths) < 600
    offsets = np.concatenate([line.offsets for line in lines])
    # The complete IAM-OnDB: mean dx 8.2, std 42.0 and 37.1, pen rate 0.040.
    assert 5 < offsets[:, 0].mean() < 12 and abs(offsets[:, 1].mean()) < 1.5
    assert np.all((offsets[:, :2].std(axis=0) > 25) & (offsets[:, :2].std(axis=0) < 60))
    assert 0.02 < offsets[:, 2].mean() < 0.08
    assert sum(line.one_point_strokes for line in lines) > 0
    # Writing goes to the right: every line is much wider than high.
    for line in lines:
        width, height = np.ptp(np.cumsum(line.offsets[:, :2], axis=0), axis=0)
        assert width > 1.5 * height


def test_the_same_seed_gives_the_same_bytes_another_seed_others(raw, tmp_path):
    synthetic.write(tmp_path / "again", SETTINGS)
    assert files_of(tmp_path / "again") == files_of(raw)
    other = synthetic.Settings(num_forms=7, lines_per_form=3, max_chars=14, seed=6)
    synthetic.write(tmp_path / "other", other)
    before, after = files_of(raw), files_of(tmp_path / "other")
    assert list(before) == list(after)
    assert all(before[name] != after[name] for name in before if name.endswith(".xml"))


def test_more_forms_leave_the_first_ones_as_they_are(raw, tmp_path):
    more = synthetic.Settings(num_forms=9, lines_per_form=3, max_chars=14, seed=5)
    synthetic.write(tmp_path / "more", more)
    after = files_of(tmp_path / "more")
    assert all(data == after[name] for name, data in files_of(raw).items() if ".xml" in name)


def test_the_path_keeps_its_ends_and_slows_down_in_bends():
    rng = np.random.default_rng(2)
    writer = synthetic.draw_writer(rng)._replace(tremor=0.0, x_height=150.0, speed=24.0)
    angle = np.linspace(0.0, 1.5 * np.pi, 200)
    bend = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 50.0
    path = np.concatenate([np.linspace([50.0, -1200.0], [50.0, 0.0], 50), bend])
    samples = synthetic.write_stroke(path, writer, rng)
    np.testing.assert_allclose(samples[[0, -1]], path[[0, -1]], atol=1e-9)
    steps = np.hypot(*np.diff(samples, axis=0).T)
    straight = samples[1:, 1] < -200.0
    assert np.median(steps[~straight]) < 0.75 * np.median(steps[straight][5:])
    assert steps[0] < np.median(steps[straight])


def test_a_dot_is_one_sample():
    rng = np.random.default_rng(0)
    writer = synthetic.draw_writer(rng)
    samples = synthetic.write_stroke(np.array([[3.0, 4.0]]), writer, rng)
    np.testing.assert_array_equal(samples, [[3.0, 4.0]])


def test_lines_are_whole_words_of_printable_letters():
    lines = sentences.lines(np.random.default_rng(1), 3000, synthetic.MIN_CHARS)
    assert len(lines) == 3000
    assert max(map(len, lines)) <= synthetic.MIN_CHARS
    assert all(33 <= ord(letter) < 127 for line in lines for letter in line.replace(" ", ""))
    # Each line is as full as the next word allows.
    for line, following in zip(lines, lines[1:], strict=False):
        assert len(line) + 1 + len(following.split(" ")[0]) > synthetic.MIN_CHARS
    letters = set("".join(lines).lower())
    assert set("abcdefghijklmnopqrstuvwxyz0123456789.,?") <= letters


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_forms": 1}, "--num_forms=1: accepted are 2 to 99000"),
        ({"num_forms": 99_001}, "--num_forms=99001"),
        ({"num_forms": 2, "lines_per_form": 0}, "--lines_per_form=0: accepted are 1 to 99"),
        ({"num_forms": 2, "max_chars": 5}, "--max_chars=5: accepted are 12 to 100"),
        ({"num_forms": 2, "seed": -1}, "--seed=-1"),
    ],
)
def test_settings_out_of_range(values, message):
    with pytest.raises(UserError) as error:
        synthetic.Settings(**values)
    assert message in str(error.value)


def test_earlier_output_is_replaced_anything_else_is_not(tmp_path):
    small = synthetic.Settings(num_forms=2, lines_per_form=1)
    synthetic.write(tmp_path / "raw", synthetic.Settings(num_forms=3, lines_per_form=1))
    synthetic.write(tmp_path / "raw", small)
    assert len(list((tmp_path / "raw").rglob("*.xml"))) == 2
    assert os.listdir(tmp_path) == ["raw"]

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty and was not written by this command"):
        synthetic.write(tmp_path / "mine", small)
    (tmp_path / "raw" / "notes.txt").write_text("precious")
    before = files_of(tmp_path / "raw")
    with pytest.raises(UserError, match="raw holds 'notes.txt', which this command did not write"):
        synthetic.write(tmp_path / "raw", small)
    assert files_of(tmp_path / "raw") == before
    with pytest.raises(UserError, match="is a file"):
        synthetic.write(tmp_path / "mine" / "thesis.tex", small)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    settings = synthetic.Settings(num_forms=3, lines_per_form=1)
    synthetic.write(tmp_path / "kept", settings)
    kept = files_of(tmp_path / "kept")
    original = synthetic._write_form

    def interrupt(folder, index, settings):
        if index == 2:
            raise KeyboardInterrupt
        original(folder, index, settings)

    monkeypatch.setattr(synthetic, "_write_form", interrupt)
    for name in ("kept", "new"):
        with pytest.raises(KeyboardInterrupt):
            synthetic.write(tmp_path / name, settings)
    assert os.listdir(tmp_path) == ["kept"]
    assert files_of(tmp_path / "kept") == kept
