import h5py
import numpy as np
import pytest

from stcn_tf.data.card import DatasetCard, Feature, Modality, Normalization
from stcn_tf.data.sequences import read_sequences, write_sequences
from stcn_tf.support.errors import UserError

UNITS = ("mm", "mm", "none")


def _card(features, modality):
    size = len(features)
    return DatasetCard(
        format_version=1,
        name="some",
        features=tuple(Feature(name, kind, unit, "a meaning") for name, kind, unit in features),
        splits={},
        normalization=Normalization("none", (0.0,) * size, (1.0,) * size),
        source_sha256="0" * 64,
        command="a test",
        extra={},
        modality=modality,
    )


CARD = _card(
    [("dx", "real", "mm"), ("dy", "real", "mm"), ("pen", "binary", "none")],
    Modality("handwriting"),
)


def _sequences(*lengths):
    rng = np.random.default_rng(0)
    sequences = [rng.normal(scale=50.0, size=(n, 3)).astype(np.float32) for n in lengths]
    for sequence in sequences:
        sequence[:, 2] = rng.integers(0, 2, len(sequence))
    return sequences


def _read(path):
    return read_sequences(path, CARD, "strokes")


def _write_some(path, *lengths, **attributes):
    write_sequences(path, CARD, {"strokes": _sequences(*lengths)}, {}, attributes)


def _write(path, **content):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value
    return path


def test_round_trip_and_layout(tmp_path):
    sequences = _sequences(5, 2, 7)
    path = tmp_path / "strokes.h5"
    given = {"beginning_lengths": np.array([1, 0, 7], np.int32)}
    attributes = {"seed": 4, "run": "some/run"}
    write_sequences(path, CARD, {"strokes": sequences}, given, attributes)
    read = _read(path)
    assert len(read) == 3
    for before, after in zip(sequences, read, strict=True):
        assert after.dtype == np.float32
        np.testing.assert_array_equal(before, after)
    with h5py.File(path) as file:
        assert file["strokes"].shape == (3, 7, 3)
        assert file["strokes"].dtype == np.float32
        np.testing.assert_array_equal(file["strokes"][1, 2:], 0.0)
        assert file["lengths"][()].tolist() == [5, 2, 7]
        assert file["beginning_lengths"][()].tolist() == [1, 0, 7]
        attributes = {name: np.ravel(value).tolist() for name, value in file.attrs.items()}
    assert attributes == {
        "format_version": [1],
        "features": ["dx", "dy", "pen"],
        "units": list(UNITS),
        "modality": ["handwriting"],
        "seed": [4],
        "run": ["some/run"],
    }


def test_equal_strokes_give_equal_bytes_and_nothing_else(tmp_path):
    for name in ("a.h5", "b.h5", "a.h5"):
        _write_some(tmp_path / name, 5, 2)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "strokes.h5"
    path.write_bytes(b"earlier")
    with pytest.raises(TypeError):
        _write_some(path, 5, 2, seed=object())
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    # Permissions would not stop an administrator, a name that is too long does.
    for path in (tmp_path / "file" / "a.h5", tmp_path / "folder", tmp_path / ("a" * 250)):
        with pytest.raises(UserError, match=r": cannot be written \(\w+") as caught:
            _write_some(path, 5, 2)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_strokes_alone_are_enough(tmp_path, kind):
    strokes = np.array([[[3, -4, 0], [1, 2, 1]]], kind)
    (read,) = _read(_write(tmp_path / "mine.h5", strokes=strokes))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, strokes[0])


def test_what_lies_beyond_a_length_is_not_read(tmp_path):
    strokes = np.stack(_sequences(4, 4))
    strokes[1, 3] = np.nan
    path = _write(tmp_path / "mine.h5", strokes=strokes, lengths=[4.0, 3.0])
    assert [len(sequence) for sequence in _read(path)] == [4, 3]


STROKES = np.stack(_sequences(4, 4))


def _with(step, feature, value):
    strokes = STROKES.astype(np.float64)
    strokes[1, step, feature] = value
    return {"strokes": strokes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": STROKES}, "has no dataset 'strokes', only x"),
        ({}, "has no dataset 'strokes', only nothing"),
        ({"strokes/train": STROKES}, "has no dataset 'strokes', only strokes"),
        ({"strokes": STROKES[0]}, r"strokes has the shape \[4, 3\]; accepted: \[num, time, 3\]"),
        ({"strokes": STROKES[..., :2]}, r"strokes has the shape \[2, 4, 2\]"),
        ({"strokes": STROKES[:0]}, r"strokes has the shape \[0, 4, 3\]"),
        ({"strokes": "dx"}, "strokes holds object; accepted: numbers"),
        ({"strokes": STROKES + 1j}, "strokes holds complex"),
        ({"strokes": STROKES, "lengths": [4]}, r"lengths has the shape \[1\]; accepted: \[2\]"),
        ({"strokes": STROKES, "lengths": [4, 5]}, "lengths holds 5; accepted: .* 1 to 4"),
        ({"strokes": STROKES, "lengths": [0, 4]}, "lengths holds 0;"),
        ({"strokes": STROKES, "lengths": [1.5, 4]}, "lengths holds 1.5;"),
        ({"strokes": STROKES, "lengths": [np.nan, 4]}, "lengths holds nan;"),
        (_with(2, 0, np.nan), "sequence 1: step 2 holds a value that is not finite"),
        (_with(0, 1, 1e39), "sequence 1: step 0 holds a value that is not finite"),
        (_with(3, 2, 0.5), "sequence 1: pen is 0.5 at step 3; accepted: 0 and 1"),
    ],
)
def test_a_wrong_content_is_told(tmp_path, content, message):
    path = _write(tmp_path / "mine.h5", **content)
    with pytest.raises(UserError, match=f"mine.h5: {message}"):
        _read(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format_version", 2, "its format_version is 2; accepted: 1"),
        ("features", ["pen", "dx", "dy"], "its features is pen, dx, dy; accepted: dx, dy, pen"),
        ("units", ["inch", "inch", "none"], "its units is inch, inch, none; accepted: mm, mm"),
        ("modality", "audio", "its modality is audio; accepted: handwriting"),
    ],
)
def test_a_wrong_attribute_is_told(tmp_path, name, value, message):
    path = tmp_path / "strokes.h5"
    _write_some(path, 3, **{name: value})
    with pytest.raises(UserError, match=message):
        _read(path)


def test_a_wrong_file_is_told(tmp_path):
    with pytest.raises(UserError, match="absent.h5: no such file; accepted: an HDF5 file with str"):
        _read(tmp_path / "absent.h5")
    with pytest.raises(UserError, match="no such file"):
        _read(tmp_path)
    text = tmp_path / "text.h5"
    text.write_text("dx dy pen\n")
    with pytest.raises(UserError, match=r"text.h5: not a readable HDF5 file \(.*\); accepted: an"):
        _read(text)
    whole = _write(tmp_path / "whole.h5", strokes=STROKES).read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="half.h5: not a readable HDF5 file"):
        _read(tmp_path / "half.h5")


@pytest.mark.parametrize("damaged", range(0, 6000, 250))
def test_damage_never_ends_in_a_traceback(tmp_path, damaged):
    path = tmp_path / "strokes.h5"
    _write_some(path, 300)
    content = bytearray(path.read_bytes())
    content[damaged : damaged + 8] = b"\xff" * len(content[damaged : damaged + 8])
    path.write_bytes(content)
    try:
        _read(path)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("modality", "name", "attributes"),
    [
        (Modality("audio", sample_rate_hz=50), "frames", {"sample_rate_hz": 50}),
        (Modality("other"), "sequences", {}),
    ],
    ids=["audio", "other"],
)
def test_sequences_of_other_kinds(tmp_path, modality, name, attributes):
    card = _card([(f"sample_{i}", "real", "full scale") for i in range(7)], modality)
    rng = np.random.default_rng(2)
    frames = [rng.normal(size=(n, 7)).astype(np.float32) for n in (4, 2)]
    path = tmp_path / "some.h5"
    write_sequences(path, card, {name: frames, "twice": [2 * x for x in frames]}, {"elbo": [1, 2]})
    for before, after in zip(frames, read_sequences(path, card, name), strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(frames, read_sequences(path, card, "twice"), strict=True):
        np.testing.assert_array_equal(2 * before, after)
    with h5py.File(path) as file:
        assert set(file) == {name, "twice", "lengths", "elbo"}
        assert file["elbo"][()].tolist() == [1, 2]
        found = dict(file.attrs)
        assert found.pop("modality") == modality.kind
        assert list(found.pop("features")) == [f"sample_{i}" for i in range(7)]
        assert set(found.pop("units")) == {"full scale"}
        assert found == {"format_version": 1, **attributes}


def test_audio_of_another_rate_and_frame_is_told_in_short(tmp_path):
    def card(size, rate):
        features = [(f"sample_{i}", "real", "full scale") for i in range(size)]
        return _card(features, Modality("audio", sample_rate_hz=rate))

    path = tmp_path / "some.h5"
    write_sequences(path, card(7, 50), {"frames": [np.zeros((3, 7))]}, {})
    with pytest.raises(UserError, match="its sample_rate_hz is 50; accepted: 80"):
        read_sequences(path, card(7, 80), "frames")
    names = r"sample_0, sample_1, sample_2, \.\.\., sample_"
    with pytest.raises(UserError, match=f"its features is {names}6; accepted: {names}8$"):
        read_sequences(path, card(9, 50), "frames")


def test_images_hold_zeros_and_ones(tmp_path):
    card = _card([("pixel", "binary", "none")], Modality("image", height=2, width=3))
    pixels = np.array([[0, 1, 1, 0, 1, 0]], np.uint8)[..., np.newaxis]
    path = _write(tmp_path / "mine.h5", pixels=pixels)
    np.testing.assert_array_equal(read_sequences(path, card, "pixels"), pixels)
    grey = _write(tmp_path / "grey.h5", pixels=0.25 + pixels)
    with pytest.raises(UserError, match="grey.h5: sequence 0: pixel is 0.25 at step 0; accepted"):
        read_sequences(grey, card, "pixels")
