"""The command that writes synthetic data: all of it or nothing, the same for the same flags."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.synthetic import formats
from data_prep.synthetic import handwriting as synthetic_handwriting
from data_prep.synthetic.handwriting import HandwritingSettings
from stcn_tf.support.errors import UserError

PROJECT = Path(__file__).parents[2]
HANDWRITING = {"num_forms": 3, "lines_per_form": 2, "max_chars": 12}
RECORDINGS = {"num_recordings": 5}
IMAGES = {"num_images": 11, "image_size": 9}
SMALL = {
    "iamondb": HANDWRITING,
    "deepwriting": HANDWRITING,
    "ink_json": HANDWRITING,
    "inkml": HANDWRITING,
    "ink_npz": HANDWRITING,
    "timit": RECORDINGS,
    "blizzard": {"num_chapters": 1},
    "wav": RECORDINGS,
    "mnist_amat": IMAGES,
    "mnist_idx": IMAGES,
}
LISTS = ("splits", "lists", formats.SETTINGS_NAME)  # the seed changes none of the names in them


def write(out, name, **values):
    settings = formats.FORMATS[name].settings(**{**SMALL[name], **values})
    return formats.write(out, name, settings)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(*arguments, code=0):
    result = subprocess.run(
        [sys.executable, "-m", "data_prep.synthetic", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == code, result
    return result.stdout, result.stderr


@pytest.mark.parametrize("name", formats.FORMATS)
def test_the_same_seed_gives_the_same_bytes_another_seed_others(name, tmp_path):
    for out, seed in (("one", 5), ("again", 5), ("other", 6)):
        write(tmp_path / out, name, seed=seed)
    one, other = files_of(tmp_path / "one"), files_of(tmp_path / "other")
    assert files_of(tmp_path / "again") == one
    assert list(other) == list(one)
    data = [path for path in one if not path.startswith(LISTS)]
    assert data
    assert all(one[path] != other[path] for path in data)
    assert sorted(os.listdir(tmp_path / "one")) == sorted(
        [formats.SETTINGS_NAME, *formats.FORMATS[name].parts]
    )


def test_settings_are_kept(tmp_path):
    write(tmp_path / "lines", "iamondb", seed=5)
    # The default format has no name in the file.
    assert json.loads((tmp_path / "lines" / "synthetic.json").read_text()) == {
        "num_forms": 3,
        "lines_per_form": 2,
        "max_chars": 12,
        "seed": 5,
    }
    write(tmp_path / "images", "mnist_idx")
    assert json.loads((tmp_path / "images" / "synthetic.json").read_text()) == {
        "format": "mnist_idx",
        "num_images": 11,
        "image_size": 9,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("iamondb", {"num_forms": 1}, "num_forms: 1; accepted: 2 to 99000"),
        ("inkml", {"num_forms": 99_001}, "num_forms: 99001"),
        ("iamondb", {"lines_per_form": 0}, "lines_per_form: 0; accepted: 1 to 99"),
        ("iamondb", {"max_chars": 5}, "max_chars: 5; accepted: 12 to 100"),
        ("iamondb", {"seed": -1}, "seed: -1; accepted: 0 or more"),
        ("timit", {"num_recordings": 2}, "num_recordings: 2; accepted: 3 to 10000"),
        ("blizzard", {"num_chapters": 100}, "num_chapters: 100; accepted: 1 to 99"),
        ("mnist_idx", {"num_images": 0}, "num_images: 0; accepted: 1 to 60000"),
        ("mnist_amat", {"image_size": 3}, "image_size: 3; accepted: 4 to 256"),
    ],
)
def test_settings_out_of_range(name, values, message):
    with pytest.raises(UserError) as error:
        formats.FORMATS[name].settings(**values)
    assert message in str(error.value)


def test_flags_reach_the_settings(tmp_path):
    out, err = run(
        f"--out={tmp_path}/raw", "--num_forms=2", "--lines_per_form=1", "--max_chars=12", "--seed=8"
    )
    assert (out, err) == (f"wrote 2 lines to {tmp_path}/raw\n", "")
    formats.write(tmp_path / "same", "iamondb", HandwritingSettings(2, 1, 12, 8))
    assert files_of(tmp_path / "raw") == files_of(tmp_path / "same")
    out, err = run(
        f"--out={tmp_path}/raw", "--format=mnist_idx", "--num_images=12", "--image_size=6"
    )
    assert (out, err) == (f"wrote 14 images to {tmp_path}/raw\n", "")
    write(tmp_path / "same", "mnist_idx", num_images=12, image_size=6)
    assert files_of(tmp_path / "raw") == files_of(tmp_path / "same")


def test_flags_of_other_formats_are_refused(tmp_path):
    _, err = run(f"--out={tmp_path}/raw", "--format=timit", "--num_forms=60", code=2)
    assert err == (
        "error: --num_forms means nothing with --format=timit, which takes --num_recordings, "
        "--seed\n"
    )
    _, err = run(f"--out={tmp_path}/raw", "--image_size=28", code=2)
    assert err == (
        "error: --image_size means nothing with --format=iamondb, which takes --num_forms, "
        "--lines_per_form, --max_chars, --seed\n"
    )
    assert os.listdir(tmp_path) == []


def test_earlier_output_is_replaced_anything_else_is_not(tmp_path):
    raw = tmp_path / "raw"
    write(raw, "iamondb", num_forms=5)
    write(raw, "iamondb", num_forms=2)
    assert len(list(raw.rglob("*.xml"))) == 4
    write(raw, "wav")
    write(raw, "iamondb")
    assert sorted(os.listdir(raw)) == ["lineStrokes", "splits", "synthetic.json"]
    assert os.listdir(tmp_path) == ["raw"]

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty and was not written by this command"):
        write(tmp_path / "mine", "iamondb")
    # A name that another format would have written is as foreign as any.
    for foreign in ("notes.txt", "audio"):
        (raw / foreign).write_text("precious")
        before = files_of(raw)
        with pytest.raises(UserError, match=f"raw holds '{foreign}', which this command did not"):
            write(raw, "wav")
        assert files_of(raw) == before
        (raw / foreign).unlink()
    with pytest.raises(UserError, match="is a file"):
        write(tmp_path / "mine" / "thesis.tex", "iamondb")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "magnet tape"}', '{"format": []}', "é"])
def test_a_folder_with_another_synthetic_json_is_not_replaced(content, tmp_path):
    (tmp_path / "synthetic.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="is not empty and was not written by this command"):
        write(tmp_path, "iamondb")
    assert (tmp_path / "synthetic.json").read_text(encoding="utf-8") == content


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    write(tmp_path / "kept", "iamondb")
    kept = files_of(tmp_path / "kept")
    written = 0

    def interrupt(strokes, rng):
        nonlocal written
        written += 1
        if written % 4 == 0:
            raise KeyboardInterrupt
        return "<xml/>"

    monkeypatch.setattr(synthetic_handwriting, "to_xml", interrupt)
    for name in ("kept", "new"):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / name, "iamondb")
    assert written == 8
    assert os.listdir(tmp_path) == ["kept"]
    assert files_of(tmp_path / "kept") == kept
