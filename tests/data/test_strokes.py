import h5py
import numpy as np
import pytest

from stcn_tf.data.strokes import read_strokes, write_strokes
from stcn_tf.errors import UserError

UNITS = ("mm", "mm", "none")


def _sequences(*lengths):
    rng = np.random.default_rng(0)
    sequences = [rng.normal(scale=50.0, size=(n, 3)).astype(np.float32) for n in lengths]
    for sequence in sequences:
        sequence[:, 2] = rng.integers(0, 2, len(sequence))
    return sequences


def _write(path, **content):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value
    return path


def test_round_trip_and_layout(tmp_path):
    sequences = _sequences(5, 2, 7)
    path = tmp_path / "strokes.h5"
    write_strokes(path, sequences, UNITS, [1, 0, 7], {"seed": 4, "run": "some/run"})
    read = read_strokes(path, UNITS)
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
        "seed": [4],
        "run": ["some/run"],
    }


def test_equal_strokes_give_equal_bytes_and_nothing_else(tmp_path):
    for name in ("a.h5", "b.h5", "a.h5"):
        write_strokes(tmp_path / name, _sequences(5, 2), UNITS, [0, 0])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "strokes.h5"
    path.write_bytes(b"earlier")
    with pytest.raises(TypeError):
        write_strokes(path, _sequences(5, 2), UNITS, [0, 0], {"seed": object()})
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    # Permissions would not stop an administrator, a name that is too long does.
    for path in (tmp_path / "file" / "a.h5", tmp_path / "folder", tmp_path / ("a" * 250)):
        with pytest.raises(UserError, match=r": cannot be written \(\w+") as caught:
            write_strokes(path, _sequences(5, 2), UNITS, [0, 0])
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_strokes_alone_are_enough(tmp_path, kind):
    strokes = np.array([[[3, -4, 0], [1, 2, 1]]], kind)
    (read,) = read_strokes(_write(tmp_path / "mine.h5", strokes=strokes), UNITS)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, strokes[0])


def test_what_lies_beyond_a_length_is_not_read(tmp_path):
    strokes = np.stack(_sequences(4, 4))
    strokes[1, 3] = np.nan
    path = _write(tmp_path / "mine.h5", strokes=strokes, lengths=[4.0, 3.0])
    assert [len(sequence) for sequence in read_strokes(path, UNITS)] == [4, 3]


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
        read_strokes(path, UNITS)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format_version", 2, "its format_version is 2; accepted: 1"),
        ("features", ["pen", "dx", "dy"], "its features is pen, dx, dy; accepted: dx, dy, pen"),
        ("units", ["inch", "inch", "none"], "its units is inch, inch, none; accepted: mm, mm"),
    ],
)
def test_a_wrong_attribute_is_told(tmp_path, name, value, message):
    path = tmp_path / "strokes.h5"
    write_strokes(path, _sequences(3), UNITS, [0], {name: value})
    with pytest.raises(UserError, match=message):
        read_strokes(path, UNITS)


def test_a_wrong_file_is_told(tmp_path):
    with pytest.raises(UserError, match="absent.h5: no such file"):
        read_strokes(tmp_path / "absent.h5", UNITS)
    with pytest.raises(UserError, match="no such file"):
        read_strokes(tmp_path, UNITS)
    text = tmp_path / "text.h5"
    text.write_text("dx dy pen\n")
    with pytest.raises(UserError, match="text.h5: not a readable HDF5 file"):
        read_strokes(text, UNITS)
    whole = _write(tmp_path / "whole.h5", strokes=STROKES).read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="half.h5: not a readable HDF5 file"):
        read_strokes(tmp_path / "half.h5", UNITS)


@pytest.mark.parametrize("damaged", range(0, 6000, 250))
def test_damage_never_ends_in_a_traceback(tmp_path, damaged):
    path = tmp_path / "strokes.h5"
    write_strokes(path, _sequences(300), UNITS, [0])
    content = bytearray(path.read_bytes())
    content[damaged : damaged + 8] = b"\xff" * len(content[damaged : damaged + 8])
    path.write_bytes(content)
    try:
        read_strokes(path, UNITS)
    except UserError as error:
        assert "\n" not in str(error)
