"""`.npz` files: whatever NumPy writes of arrays is read back; anything else is refused unread."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from data_prep.common import npz
from data_prep.common.npz import read_npz
from data_prep.common.raw_files import FileFault

RNG = np.random.default_rng(0)


def npz_of(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def zip_of(**members):
    """An `.npz` of members that NumPy would not write."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def row_of(*items):
    """Array of objects; NumPy would make one array of numbers of items of one shape."""
    row = np.empty(len(items), object)
    for index, item in enumerate(items):
        row[index] = item
    return row


def npy_of_objects(content, shape=(1,)):
    """An array of objects in the `.npy` format, whatever its pickle holds."""
    header = f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def assert_same(array, expected):
    assert array.dtype == expected.dtype and array.shape == expected.shape
    if expected.dtype.hasobject:
        for one, other in zip(array, expected, strict=True):
            assert_same(one, other)
    else:
        assert array.tobytes() == expected.tobytes()  # NaN, too


# ------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "array",
    [
        *(RNG.integers(0, 100, (2, 3)).astype(code) for code in ("b1", "i1", "u2", "<i8", ">i4")),
        *(RNG.normal(size=(2, 3, 5)).astype(code) for code in ("<f2", ">f4", "<f8")),
        np.array([np.nan, -0.0, np.inf]),
        np.array([["ink", "größe"], ["", "x"]]),
        np.array([b"ink", b"x"]),
        np.asfortranarray(RNG.normal(size=(3, 5))),
        RNG.normal(size=(4, 6))[::2, 1::3],
        np.float32(2.5),
        np.zeros((0, 3)),
        np.array(["", ""]),
    ],
    ids=lambda array: f"{array.dtype.str}{list(np.shape(array))}",
)
def test_arrays_are_read_back(save, array):
    assert_same(read_npz(npz_of(save, a=array))["a"], np.asarray(array))


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "items",
    [
        [RNG.normal(size=(size, 3)).astype(np.float32) for size in (2, 5, 300)],
        [np.arange(6).reshape(2, 3), np.array(["a", "bc"]), np.array(2.5)],
        [RNG.normal(size=(3, 4)).astype(">f8"), np.asfortranarray(RNG.normal(size=(3, 4)))],
        [np.ones((2, 3)), np.ones((2, 3))],
        [np.zeros((0, 3)), np.array([True, False])],
        [],
    ],
    ids=["ragged", "types", "orders", "one shape", "empty", "none"],
)
def test_rows_of_arrays_are_read_back(protocol, items):
    pickled = pickle.dumps(row_of(*items), protocol)
    data = zip_of(a=npy_of_objects(pickled, (len(items),)))
    assert_same(read_npz(data)["a"], row_of(*items))
    with np.load(io.BytesIO(data), allow_pickle=True) as arrays:  # it is as NumPy has it
        for array, item in zip(arrays["a"], items, strict=True):
            np.testing.assert_array_equal(array, item)


def test_what_numpy_writes_of_objects_is_read_back():
    twice = RNG.normal(size=(4, 3))
    row = row_of(twice, RNG.normal(size=(7, 2)), twice)
    assert_same(read_npz(npz_of(a=row))["a"], row)


def test_what_python_2_wrote_is_read():
    # As its pickle module writes row_of(np.array([[1.5, -2.0]], "<f4"), np.array([7], "<i2")).
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    unknown = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\n(U\x02%sK\x00K\x01tR(K\x03U\x01%sNNN" + 2 * unknown + b"K%ctb"
    floats = np.array([1.5, -2.0], "<f4").tobytes()
    pickled = b"".join(
        (
            b"\x80\x02" + array + b"(K\x01(K\x02t" + dtype % (b"O8", b"|", 63) + b"I00\n](",
            array + b"(K\x01(K\x01K\x02t" + dtype % (b"f4", b"<", 0) + b"I00\n",
            b"U" + bytes([len(floats)]) + floats + b"tb",
            array + b"(K\x01(K\x01t" + dtype % (b"i2", b"<", 0) + b"I00\nU\x02\x07\x00tb",
            b"etb.",
        )
    )
    row = row_of(np.array([[1.5, -2.0]], np.float32), np.array([7], np.int16))
    assert_same(pickle.loads(pickled, encoding="latin1"), row)
    assert_same(read_npz(zip_of(a=npy_of_objects(pickled, (2,))))["a"], row)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_the_format(version):
    file, array = io.BytesIO(), np.arange(6.0).reshape(2, 3)
    np.lib.format.write_array(file, array, version)
    assert_same(read_npz(zip_of(a=file.getvalue()))["a"], array)


def test_names_and_their_order():
    arrays = {"train/b-2": np.ones(2), "a": np.zeros(3), "größe": np.ones((1, 4))}
    data = npz_of(**arrays)
    assert list(read_npz(data)) == list(arrays)
    chosen = read_npz(data, ["größe", "train/b-2"])
    assert list(chosen) == ["größe", "train/b-2"]
    assert_same(chosen["größe"], arrays["größe"])
    assert read_npz(npz_of()) == {}


def test_what_is_not_wanted_is_not_read():
    data = zip_of(good=npy_of_objects(pickle.dumps(row_of(np.ones(3)), 4)), bad=b"no array")
    assert_same(read_npz(data, ["good"])["good"], row_of(np.ones(3)))
    with pytest.raises(FileFault, match="^array 'bad': not in the .npy format$"):
        read_npz(data)


# --------------------------------------------------------------------------- what is refused


def numbers(text, content=b"\0" * 8):
    """A member with this header."""
    header = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npz_of(a=np.ones(3)), "not in the .npy format"),
        (numbers("{'descr': '<f4'}"), "its header is damaged"),
        (numbers("open('/etc/passwd')"), "its header is damaged"),
        (numbers("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}"), "holds complex64; "),
        (numbers("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}"), "holds datetime"),
        (
            numbers("{'descr': [('x', '<f4'), ('y', '<f4')], 'fortran_order': False, 'shape': ()}"),
            "accepted: numbers, texts",
        ),
        (numbers("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}"), "does not hold the"),
        (
            numbers("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}"),
            "has a shape that is not",
        ),
        (
            numbers("{'descr': '<f4', 'fortran_order': False, 'shape': 2}"),
            "has a shape that is not",
        ),
    ],
)
def test_faults_of_an_array(member, message):
    with pytest.raises(FileFault) as error:
        read_npz(zip_of(dots=member))
    assert str(error.value).startswith("array 'dots': ") and message in str(error.value)


class Payload:
    """Runs `open(path, "w")` when it is unpickled by others."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: row_of(Payload(path)), "open, which is no array: refused, nothing was"),
        (lambda path: Payload(path), "open, which is no array: refused, nothing was executed"),
        (lambda path: row_of({"x": 1}), "its pickle holds something other than arrays"),
        (lambda path: row_of("text"), "its pickle holds objects other than a row of arrays"),
        (lambda path: row_of(np.ones(2), 3), "its pickle holds objects other than a row of arrays"),
        (lambda path: row_of(row_of(np.ones(2))), "its pickle holds arrays of arrays of arrays"),
        (lambda path: np.array([[None]]), "its pickle holds objects other than a row of arrays"),
        (lambda path: np.ones(2, "c8"), "holds complex64; accepted"),
        (lambda path: row_of(np.ones(2, [("x", "f4")])), "something other than arrays"),
        (lambda path: "text", "its pickle is no array"),
        (lambda path: [1.0], "its pickle is no array"),
        (lambda path: np.array([2**70, 10**400], object), "its pickle is damaged (OverflowError"),
        (lambda path: np.array([1, None]), "objects other than a row of arrays, or numbers"),
        (lambda path: np.array([1, True], object), "objects other than a row of arrays, or num"),
    ],
)
def test_pickles_of_anything_else_are_refused_unexecuted(tmp_path, make, message):
    path = tmp_path / "executed"
    data = zip_of(a=npy_of_objects(pickle.dumps(make(path), 4)))
    with pytest.raises(FileFault) as error:
        read_npz(data)
    assert message in str(error.value)
    assert not path.exists()


def test_cut_pickles_are_faults():
    pickled = pickle.dumps(row_of(np.ones((2, 3)), np.ones((5, 3))), 4)
    for size in range(len(pickled)):
        with pytest.raises(FileFault, match="^array 'a': its pickle "):
            read_npz(zip_of(a=npy_of_objects(pickled[:size], (2,))))


def test_faults_of_a_file(monkeypatch):
    data = npz_of(a=np.ones(3), b=np.ones((2, 5)))
    for bad in (b"", b"no file of ours", data[:-30], data[:100]):
        with pytest.raises(FileFault, match="not a readable .npz file"):
            read_npz(bad)
    with pytest.raises(FileFault, match="^has no array 'strokes', only a, b$"):
        read_npz(data, ["a", "strokes", "mean"])
    with pytest.raises(FileFault, match="^has no array 'strokes', only nothing$"):
        read_npz(npz_of(), ["strokes"])
    size = 2 * 128 + 3 * 8 + 10 * 8  # two headers and their arrays
    monkeypatch.setattr(npz, "MAX_FILE_BYTES", size - 1)
    with pytest.raises(
        FileFault, match=f"^its arrays have {size} bytes, at most {size - 1} are accepted$"
    ):
        read_npz(data)
    assert list(read_npz(data, ["b"])) == ["b"]


def test_a_damaged_byte_is_noticed():
    data = npz_of(a=np.arange(100.0))
    position = data.index(np.arange(100.0)[50:].tobytes())
    with pytest.raises(FileFault, match="not a readable .npz file .*CRC"):
        read_npz(data[:position] + b"\xff" + data[position + 1 :])
