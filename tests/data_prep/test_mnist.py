"""MNIST's files to records: exact pixels of every distribution, the binarizations, faults."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_prep import mnist
from data_prep.common import command
from data_prep.common.raw_files import FileFault
from data_prep.synthetic import images as synthetic
from stcn_tf.support.errors import UserError

RNG = np.random.default_rng(0)
# Squares of 3 x 3; rectangles of 5 rows of 3 pixels.
BINARY = {s: RNG.integers(0, 2, (n, 3, 3)) for s, n in (("train", 7), ("valid", 3), ("test", 4))}
GREY = {s: RNG.integers(0, 256, (n, 5, 3)) for s, n in (("train", 11), ("test", 4))}
AMAT = "binarized_mnist_{}.amat"
IDX = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
PACKINGS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
CASE = Path(__file__).parent / "cases" / "mnist" / "mnist.npz"


def idx_of(pixels):
    return struct.pack(">4I", 0x803, *pixels.shape) + pixels.astype(np.uint8).tobytes()


def amat_of(pixels):
    """Text as Larochelle has it: a space after each pixel, one image a line."""
    return "".join("".join(f"{pixel} " for pixel in row) + "\n" for row in flat(pixels)).encode()


def flat(pixels):
    return pixels.reshape(len(pixels), -1)


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_amat(folder, ending="", **changes):
    parts = BINARY | changes
    return write(
        folder,
        {AMAT.format(s) + ending: PACKINGS[ending](amat_of(x)) for s, x in parts.items()},
    )


def write_idx(folder, ending="", **changes):
    parts = GREY | changes
    return write(folder, {IDX[s] + ending: PACKINGS[ending](idx_of(x)) for s, x in parts.items()})


def prepare(source, out, **options):
    mnist.prepare(source, out, **{"num_valid": 3} | options)
    return out


@pytest.fixture
def pixels_of(read_back):
    """Function (records, split) -> pixels [num, time] of all images, whose ids are in order."""

    def read(out, split):
        images = read_back(out, split)
        assert list(images) == [f"{split}-{number:05d}" for number in range(len(images))]
        return np.stack(list(images.values()))[:, :, 0]

    return read


# ------------------------------------------------------------------------- distributions


def idx_files(folder, parts, train, test, pack=bytes):
    write(folder, {train: pack(idx_of(parts["train"])), test: pack(idx_of(parts["test"]))})


def torchvision(folder, parts):
    raw = folder / "MNIST" / "raw"
    idx_files(raw, parts, *IDX.values())
    idx_files(raw, parts, *(f"{name}.gz" for name in IDX.values()), gzip.compress)
    write(raw, {"train-labels-idx1-ubyte": b"labels"})


def named(pattern):
    return [pattern.format(split) for split in ("train", "t10k")]


def kaggle(folder, parts):
    idx_files(folder, parts, "train-images.idx3-ubyte", "t10k-images.idx3-ubyte")
    idx_files(folder, parts, *(f"{name}/{name}" for name in IDX.values()))


def keras(folder, parts, change=lambda pixels: pixels, save=np.savez):
    save(folder / "mnist.npz", **{f"x_{s}": change(x) for s, x in parts.items()}, y_test=np.ones(3))


def kmnist(folder, parts):
    for split, pixels in parts.items():
        np.savez_compressed(folder / f"kmnist-{split}-imgs.npz", pixels)
        np.savez(folder / f"kmnist-{split}-labels.npz", np.ones(3))


def hdf5(folder, parts, name="mnist.h5", key="{}", change=lambda pixels: pixels, **options):
    with h5py.File(folder / name, "w") as file:
        for split, pixels in parts.items():
            file.create_dataset(key.format(split), data=change(pixels), **options)
            file[f"{key.format(split)}_labels"] = np.ones((len(pixels), 1))


def hdf5_each(folder, parts):
    for split, pixels in parts.items():
        hdf5(folder, {"data": flat(pixels).astype(float)}, f"binarized_mnist-{split}.h5")


def fuel(folder, parts):
    """As `fuel.datasets.hdf5.H5PYDataset` has it."""
    with h5py.File(folder / "binarized_mnist.hdf5", "w") as file:
        file["features"] = np.concatenate(list(parts.values()))[:, np.newaxis]
        kind = [("split", "S5"), ("source", "S8"), ("start", "i8"), ("stop", "i8")]
        kind += [("indices", h5py.ref_dtype), ("available", "?"), ("comment", "S1")]
        table, start = np.zeros(2 * len(parts), kind), 0
        for row, (split, pixels) in enumerate(parts.items()):
            for index, source in ((row, "features"), (len(parts) + row, "targets")):
                given = split, source, start, start + len(pixels), h5py.Reference(), True, "."
                table[index] = given
            start += len(pixels)
        file.attrs["split"] = table


def savetxt(folder, parts, name="mnist_{}.amat", format="%.18e"):
    for split, pixels in parts.items():
        np.savetxt(folder / name.format(split), flat(pixels), format)


GREY_FILES = {
    "its authors'": ("mnist", lambda *a: idx_files(*a, *IDX.values())),
    "7-Zip's": (
        "mnist",
        lambda *a: idx_files(*a, "train-images.idx3-ubyte", "t10k-images.idx3-ubyte"),
    ),
    "torchvision's": ("mnist", torchvision),
    "Kaggle's": ("mnist", kaggle),
    "gzip without its ending": ("mnist", lambda *a: idx_files(*a, *IDX.values(), gzip.compress)),
    "xz with the ending of gzip": (
        "mnist",
        lambda *a: idx_files(*a, *(f"{n}.gz" for n in IDX.values()), lzma.compress),
    ),
    "plain with the ending of gzip": (
        "mnist",
        lambda *a: idx_files(*a, *(f"{n}.gz" for n in IDX.values())),
    ),
    "Fashion-MNIST": (
        "fashion-mnist",
        lambda *a: idx_files(*a, *(f"FashionMNIST/raw/{n}" for n in IDX.values())),
    ),
    "QMNIST": (
        "qmnist",
        lambda *a: idx_files(*a, *(f"qmnist-{s}-images-idx3-ubyte.gz" for s in IDX), gzip.compress),
    ),
    "KMNIST": ("kmnist", kmnist),
    "Kuzushiji-49": (
        "k49",
        lambda folder, parts: [np.savez(folder / f"k49-{s}-imgs.npz", x) for s, x in parts.items()],
    ),
    "QMNIST's NIST digits beside it": (
        "qmnist",
        lambda *a: (
            idx_files(*a, *(f"qmnist-{s}-images-idx3-ubyte" for s in IDX))
            or write(a[0], {"xnist-images-idx3-ubyte": b"none of them", "qmnist-train.labels": b""})
        ),
    ),
    "EMNIST, upright": (
        "emnist-digits",
        lambda *a: idx_files(*a, *(f"emnist-digits-{s}-images-idx3-ubyte" for s in IDX)),
    ),
    **{
        name: ("mnist", lambda *a, name=name, pack=pack: idx_files(*a, *named(name), pack))
        for name, pack in (
            ("{}_images_idx3_ubyte", bytes),
            ("{}-IMAGES-IDX3-UBYTE", bytes),
            ("{}-images-idx3-ubyte (1).gz", gzip.compress),
            ("{}-images-idx3-ubyte.gz (2)", gzip.compress),
            ("{}-images-idx3-ubyte.gz", lambda data: gzip.compress(gzip.compress(data))),
            ("{}-images-idx3-ubyte.bz2", bz2.compress),
            ("{}-images.idx3.xz", lzma.compress),
            ("{}-images-ubyte", bytes),
            ("{}-images.idx", bytes),
            ("{}-images-idx3-ubyte.bin", bytes),
            ("{}-images-idx3-ubyte.txt", bytes),
            ("{}-images.gz", gzip.compress),
        )
    },
    "Keras', of 0 to 1 in 16 bits": ("mnist", lambda *a: keras(*a, lambda x: np.half(x / 255))),
    "of others": (
        "mnist",
        lambda folder, parts: np.savez(
            folder / "mnist.npz",
            **{f"{s}_images": x for s, x in parts.items()},
            train_class=np.ones((50, 1)),
            means=np.ones((2, 3)),
        ),
    ),
    "Keras'": ("mnist", keras),
    "Keras', compressed, of 0 to 1": (
        "mnist",
        lambda *a: keras(*a, lambda x: np.float32(x) / 255, np.savez_compressed),
    ),
    "HDF5": ("mnist", lambda *a: hdf5(*a, key="{}_images", compression="gzip")),
    "HDF5 with a group each": ("mnist", lambda *a: hdf5(*a, key="{}/images")),
    "HDF5 with channels": ("mnist", lambda *a: hdf5(*a, change=lambda x: x[..., np.newaxis])),
    "HDF5 of 0 to 1": ("mnist", lambda *a: hdf5(*a, change=lambda x: flat(x) / 255)),
    "Fuel's": ("mnist", fuel),
}
BINARY_FILES = {
    "Larochelle's": lambda folder, parts: write_amat(folder, **parts),
    "short names": lambda *a: savetxt(*a, "{}.amat", "%d"),
    "savetxt": savetxt,
    "text": lambda *a: savetxt(*a, "binarized_mnist_{}.txt", "%d"),
    "npy": lambda folder, parts: [
        np.save(folder / f"binarized_mnist_{s}.npy", x) for s, x in parts.items()
    ],
    "savetxt in short": lambda *a: savetxt(*a, AMAT, "%.1f"),
    "npz": lambda folder, parts: np.savez(folder / "mnist.npz", **parts),
    "npz of floats": lambda folder, parts: np.savez_compressed(
        folder / "binarized_mnist.npz", **{f"{s}_data": flat(x) / 1.0 for s, x in parts.items()}
    ),
    "HDF5": lambda *a: hdf5(*a, "binarized_mnist.hdf5"),
    "HDF5 of booleans": lambda *a: hdf5(*a, change=lambda x: flat(x) == 1, chunks=(2, 9)),
    "HDF5, a file each": hdf5_each,
    "Fuel's": fuel,
}


@pytest.fixture(scope="module")
def case():
    with np.load(CASE) as file:
        return {split: file[f"x_{split}"] for split in IDX}


@pytest.mark.parametrize("kind", GREY_FILES)
def test_every_distribution_of_grey_images_has_the_same_pixels(tmp_path, kind, case, capsys):
    name, make = GREY_FILES[kind]
    make(tmp_path, case)
    found, images, _ = mnist.read(tmp_path, None, False, 1)
    assert found == name and list(images) == list(case)
    for split, pixels in case.items():
        assert images[split].dtype == np.uint8
        np.testing.assert_array_equal(images[split], pixels)
    printed = capsys.readouterr().out
    assert "turned" not in printed and "not read" not in printed


@pytest.mark.parametrize("kind", BINARY_FILES)
def test_every_distribution_of_binary_images_has_the_same_pixels(tmp_path, kind):
    BINARY_FILES[kind](tmp_path, BINARY)
    name, images, _ = mnist.read(tmp_path, None, False, 1)
    assert name == "mnist" and list(images) == list(BINARY)
    for split, pixels in BINARY.items():
        np.testing.assert_array_equal(images[split], pixels)


def test_the_given_case(tmp_path, case, pixels_of):
    from stcn_tf.data.card import read_card

    for source in (CASE, CASE.parent):  # a file of arrays is a source, too
        out = prepare(source, tmp_path / "out", binarization="threshold", num_valid=10)
        grey = {"train": case["train"][:40], "valid": case["train"][40:], "test": case["test"]}
        for split, pixels in grey.items():
            np.testing.assert_array_equal(pixels_of(out, split), flat(pixels) > 127)
        assert read_card(out).name == "mnist"


def test_emnist_is_turned_upright(tmp_path, capsys):
    settings = synthetic.ImageSettings(num_images=20)
    parts = {s: np.stack([x for _, x, _ in synthetic.digits(s, settings)]) for s in IDX}
    names = [f"emnist-letters-{s}-images-idx3-ubyte.gz" for s in IDX]
    for turn in (lambda x: x, lambda x: x.swapaxes(1, 2)):
        idx_files(tmp_path, {s: turn(x) for s, x in parts.items()}, *names, gzip.compress)
        name, images, _ = mnist.read(tmp_path, None, False, 1)
        assert name == "emnist-letters"
        for split, pixels in parts.items():
            np.testing.assert_array_equal(images[split], pixels)
    printed = capsys.readouterr().out
    assert printed.count("emnist-letters: images lie on their sides, and are turned upright") == 1


def test_means_tell_what_has_the_names_of_mnist(tmp_path, monkeypatch):
    monkeypatch.setitem(mnist.COMPLETE, "mnist", (11, 4))
    for mean, name in ((73, "fashion-mnist"), (49, "mnist"), (48.9, "kmnist")):
        train = np.full((11, 10, 10), int(mean))
        train[:, 0, 0] += round((mean - int(mean)) * 100)
        monkeypatch.setitem(mnist._MEANS, "fashion-mnist", 73 / 255)
        write_idx(tmp_path, train=train, test=train[:4])
        assert mnist.read(tmp_path, None, False, 1)[0] == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("train-images-idx3-ubyte", "mnist"),
        ("MNIST/raw/emnist-byclass-train-images-idx3-ubyte", "emnist-byclass"),
        ("EMNIST Letters/raw/train-images-idx3-ubyte", "emnist-letters"),
        ("emnist/train.npz", "emnist"),
        ("emnist-mnist-train-images-idx3-ubyte.gz", "emnist-mnist"),
        ("mnist/fashion/train-images-idx3-ubyte", "fashion-mnist"),
        ("notMNIST/train-images-idx3-ubyte", "notmnist"),
        ("KMNIST/raw/t10k-images-idx3-ubyte", "kmnist"),
    ],
)
def test_names_tell_the_data_set(path, name):
    assert mnist._dataset_in(Path(path)) == name


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train.amat x_train X_train trainX xtrain training_images train_x data-train"),
        ("valid", "valid.amat x_valid validation val_images mnist-val.h5 dev"),
        ("test", "test.amat t10k-images-idx3-ubyte x_test testing emnist-test-images"),
        ("", "value latest arr_0 features ytest development images"),
    ],
)
def test_names_tell_the_split(split, names):
    assert {mnist._split_in(name) for name in names.split()} == {split}


def test_of_several_data_sets_one_is_chosen(tmp_path):
    idx_files(tmp_path, GREY, *(f"emnist-digits-{s}-images-idx3-ubyte" for s in IDX))
    other = {split: 255 - pixels for split, pixels in GREY.items()}
    idx_files(tmp_path, other, *(f"qmnist-{s}-images-idx3-ubyte" for s in IDX))
    with pytest.raises(UserError) as error:
        mnist.read(tmp_path, None, False, 1)
    assert str(error.value) == (
        f"--source: {tmp_path} holds emnist-digits, qmnist; accepted: one, as --dataset"
    )
    name, images, _ = mnist.read(tmp_path, "qmnist", False, 1)
    assert name == "qmnist"
    np.testing.assert_array_equal(images["train"], other["train"])
    with pytest.raises(UserError, match="has no images of kmnist; accepted: IDX files, .amat"):
        mnist.read(tmp_path, "kmnist", False, 1)


def test_grey_and_binary_images_do_not_mix(tmp_path):
    source = write_idx(tmp_path, test=GREY["test"] // 128)
    with pytest.raises(UserError) as error:
        mnist.read(source, None, False, 1)
    assert str(error.value) == (
        f"--source: {source}: images of train have grey values, others only 0 and 1; accepted: one "
        "kind"
    )


def test_files_that_contradict_each_other_are_refused(tmp_path):
    torchvision(tmp_path, GREY)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(idx_of(255 - GREY["train"]))
    with pytest.raises(UserError) as error:
        mnist.read(tmp_path, None, False, 1)
    assert str(error.value) == f"{path}: its images of train differ from others of mnist"


# ------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize("ending", PACKINGS)
@pytest.mark.parametrize(
    "text",
    [
        b"0 1 1 0\n1 1 0 0",
        b"\xef\xbb\xbf0 1 1 0\r\n1 1 0 0\r\n",
        b"\n 0\t1 1  0 \r\n\r\n1 1 0 0 \n\n",
        b"0,1,1,0\n1.0,1., 0,0.0",
        b"0.0 1. 1.00 0.\n1.e+00 1.0e00 0.0e+00 0.0e-00\n",
    ],
)
def test_text_is_parsed(text, ending):
    (pixels,) = mnist.parse(PACKINGS[ending](text)).values()
    np.testing.assert_array_equal(pixels, [[[0, 1], [1, 0]], [[1, 1], [0, 0]]])


GOOD_IDX = idx_of(GREY["test"])
SHAPE = (
    "; accepted: one or more images of height x width or side * side pixels, at most 1024 x 1024"
)
VALUES = "holds pixels that are neither 0, ..., 255 nor these divided by 255"
OTHER = "holds something other than 0 and 1 (nor is it IDX)"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no images"),
        (b" \n\n", "holds no images"),
        (b"0 1 1 0\n0 1 2 0\n", f"line 2 {OTHER}"),
        (b"0 1 1 0\n\n0 1 -1 0\n", f"line 3 {OTHER}"),
        (b"01 1 0\n", f"line 1 {OTHER}"),
        (b"0 1 1 0\n0.0 1.0 1.5 0.0\n", f"line 2 {OTHER}"),
        (b"0.0 1.0 1.0 1.0e+01\n", f"line 1 {OTHER}"),
        (b"<!DOCTYPE html>", f"line 1 {OTHER}"),
        (b"0 1 1 0\n0 1 1\n", "line 2 has 3 pixels instead of 4"),
        (b"0 1 1 0\n0 1 1 0 1\n", "line 2 has 5 pixels instead of 4"),
        (b"0 1 1\n", f"holds uint8 of shape [1, 3]{SHAPE}"),
        (GOOD_IDX[:3], "begins with 0x00000800 instead of 0x00000803 (images)"),
        (GOOD_IDX[:15], "has -1 bytes of pixels instead of 0 (4 of 5 x 0)"),
        (
            b"\0\0\x08\x01" + GOOD_IDX[4:],
            "begins with 0x00000801 instead of 0x00000803 (images)",
        ),
        (GOOD_IDX[:-1], "has 59 bytes of pixels instead of 60 (4 of 5 x 3)"),
        (GOOD_IDX + b"\0", "has 61 bytes of pixels instead of 60 (4 of 5 x 3)"),
        (struct.pack(">4I", 0x803, 0, 5, 3), f"holds uint8 of shape [0, 5, 3]{SHAPE}"),
        (
            struct.pack(">4I", 0x803, 2, 1025, 3) + bytes(6150),
            f"holds uint8 of shape [2, 1025, 3]{SHAPE}",
        ),
        (
            struct.pack(">4I", 0x803, 2**32 - 1, 1024, 1024) + bytes(100),
            f"has 100 bytes of pixels instead of {(2**32 - 1) * 2**20} (4294967295 of 1024 x 1024)",
        ),
    ],
)
@pytest.mark.parametrize("ending", PACKINGS)
def test_faults_of_content(data, ending, message):
    with pytest.raises(FileFault) as error:
        mnist.parse(PACKINGS[ending](data))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 2, 2), 256), VALUES),
        (np.full((2, 2, 2), -1.0), VALUES),
        (np.full((2, 2, 2), np.nan), VALUES),
        (np.full((2, 2, 2), 1e300), VALUES),
        (np.full((2, 2, 2), 0.3), VALUES),
        (np.full((2, 2, 2), "a"), f"holds <U1 of shape [2, 2, 2]{SHAPE}"),
        (np.zeros((2, 3)), f"holds float64 of shape [2, 3]{SHAPE}"),
        (np.zeros((2, 3, 3, 3)), f"holds float64 of shape [2, 3, 3, 3]{SHAPE}"),
        (np.zeros((0, 3, 3)), f"holds float64 of shape [0, 3, 3]{SHAPE}"),
        (np.zeros((3, 0)), f"holds float64 of shape [3, 0]{SHAPE}"),
    ],
)
def test_faults_of_arrays(tmp_path, array, message):
    np.savez(tmp_path / "a.npz", x_train=array)
    with pytest.raises(FileFault) as error:
        mnist.parse((tmp_path / "a.npz").read_bytes())
    assert str(error.value) == message


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_damaged_compression_is_a_fault(ending):
    data = PACKINGS[ending](idx_of(RNG.integers(0, 256, (4, 50, 50))))
    for bad in (data[: len(data) // 2], data[:-8] + bytes(8), data[:10] + data[20:]):
        with pytest.raises(FileFault, match="^cannot be unpacked: "):
            mnist.parse(bad)


@pytest.fixture
def hdf5_of(tmp_path):
    """Function (fill) -> the bytes of a file that `fill` made."""

    def make(fill):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            fill(file)
        return (tmp_path / "a.h5").read_bytes()

    return make


def put_chunk(file, chunk, **options):
    dataset = file.create_dataset("train", (9, 28, 28), "u1", chunks=(9, 28, 28), **options)
    dataset.id.write_direct_chunk((0, 0, 0), chunk)


def virtual(file):
    layout = h5py.VirtualLayout((2, 3, 3), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "train", (2, 3, 3))
    file.create_virtual_dataset("train", layout)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (
            lambda file: file.update(train=h5py.ExternalLink("other.h5", "train")),
            "HDF5: train is a link to another file, which is not followed",
        ),
        (
            lambda file: file.create_group("a").update(train=h5py.ExternalLink("other.h5", "/")),
            "HDF5: a/train is a link to another file, which is not followed",
        ),
        (virtual, "HDF5: train lies in other files, which are not read"),
        (
            lambda file: file.create_dataset("train", (2**20, 2**20), "u1", chunks=(1, 9)),
            "HDF5: train has the shape 1048576, 1048576; accepted: 268,435,456 values at most",
        ),
        (lambda file: file.update({"a\x1b\n": [1]}) or file.create_group("x\x08"), "only a"),
        (lambda file: put_chunk(file, b"a", fletcher32=True), "the HDF5 library crashes"),
    ],
    ids=["link", "link in a group", "virtual", "large", "names", "crash"],
)
def test_hostile_hdf5_is_refused(hdf5_of, fill, message):
    data = hdf5_of(fill)
    with pytest.raises(FileFault, match="^not a readable HDF5 file ") as error:
        mnist.parse(data)
    assert message in str(error.value) and str(error.value).isprintable()


def test_hdf5_that_unpacks_to_more_than_memory_is_a_fault(hdf5_of, monkeypatch):
    monkeypatch.setattr(mnist, "MAX_FILE_BYTES", 2**26)  # eight times this much memory
    bomb = zlib.compress(bytes(2**29), 1)
    with pytest.raises(FileFault, match="^not a readable HDF5 file "):
        mnist.parse(hdf5_of(lambda file: put_chunk(file, bomb, compression="gzip")))


def test_damaged_hdf5_is_a_fault(hdf5_of):
    data = hdf5_of(lambda file: file.update(train=BINARY["train"]))
    with pytest.raises(FileFault, match="^not a readable HDF5 file "):
        mnist.parse(data[:-100])


# --------------------------------------------------------------------------- binarization


def test_threshold_is_above_127():
    grey = np.array([[[0, 1, 127], [128, 129, 255]]], np.uint8)
    for split in ("train", "valid", "test"):
        pixels = mnist.binarize(grey, "threshold", 0, split)
        np.testing.assert_array_equal(pixels, [[[0, 0, 0], [1, 1, 1]]])


def test_draws_have_the_probability_of_the_grey_value():
    num_draws = 4000
    grey = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (num_draws, 1, 1))
    pixels = mnist.binarize(grey, "fixed", 5, "train")
    assert set(np.unique(pixels)) == {0, 1}
    counts = pixels.sum(axis=0).reshape(-1)
    assert counts[0] == 0 and counts[255] == num_draws  # always, not just nearly
    p = np.arange(256) / 255
    deviation = (counts - num_draws * p) / np.sqrt(num_draws * np.maximum(p * (1 - p), 1e-9))
    assert np.abs(deviation).max() < 5  # standard deviations
    # Together: 256 squares of standard normals, whose mean has the standard deviation 0.09.
    assert abs(np.square(deviation[1:-1]).mean() - 1) < 0.45


def test_draws_are_those_of_seed_and_split():
    grey = np.full((20, 5, 3), 128, np.uint8)
    draws = {
        (seed, split): mnist.binarize(grey, "fixed", seed, split).tobytes()
        for seed in (0, 1, 2**40)
        for split in ("train", "valid", "test")
    }
    assert len(set(draws.values())) == 9
    assert mnist.binarize(grey, "fixed", 1, "valid").tobytes() == draws[1, "valid"]
    # Of dynamic binarization only train is not drawn once and for all.
    for split in ("valid", "test"):
        assert mnist.binarize(grey, "dynamic", 1, split).tobytes() == draws[1, split]


def test_dynamic_training_images_are_probabilities():
    grey = np.array([[[0, 51, 255]]], np.uint8)
    pixels = mnist.binarize(grey, "dynamic", 0, "train")
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, np.float32([[[0, 0.2, 1]]]))


# ----------------------------------------------------------------------- the whole command


@pytest.mark.parametrize("ending", PACKINGS)
def test_binary_records_hold_the_pixels(tmp_path, ending, pixels_of, capsys):
    from stcn_tf.data.card import Modality, Normalization, read_card

    out = prepare(write_amat(tmp_path / "raw", ending), tmp_path / "out")
    for split, pixels in BINARY.items():
        np.testing.assert_array_equal(pixels_of(out, split), flat(pixels))
    card = read_card(out)
    assert list(card.splits) == ["train", "valid", "test"]
    assert card.modality == Modality("image", height=3, width=3)
    assert [(f.name, f.kind) for f in card.features] == [("pixel", "binary")]
    assert card.normalization == Normalization("none", (0,), (1,))
    assert card.extra == {
        "binarization": "given",
        "mean_pixel": {split: pixels.mean() for split, pixels in BINARY.items()},
    }
    assert card.command == "python -m data_prep.mnist --source=DIR --out=DIR --num_valid=3"
    assert not any(split.holds_probabilities for split in card.splits.values())
    files = {split: tmp_path / "raw" / f"{AMAT.format(split)}{ending}" for split in BINARY}
    text = "".join(
        f"{split} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for split, path in files.items()
    )
    assert card.source_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert capsys.readouterr().out.splitlines() == [
        *(
            f"{split}: {len(pixels)} images of 3 x 3, mean pixel {pixels.mean():.5f}"
            for split, pixels in BINARY.items()
        ),
        *(
            f"check: {split} does not have the {count} sequences and {784 * count} steps of the "
            "complete data set"
            for split, count in (("train", 50_000), ("valid", 10_000), ("test", 10_000))
        ),
        f"wrote {out} (mnist, binarization: given)",
    ]


@pytest.mark.parametrize("ending", PACKINGS)
def test_the_last_training_images_are_valid(tmp_path, ending, pixels_of):
    from stcn_tf.data.card import Modality, read_card

    source = write_idx(tmp_path / "raw", ending)
    out = prepare(source, tmp_path / "out", binarization="threshold", num_valid=4)
    ink = {split: flat(pixels > 127) for split, pixels in GREY.items()}
    np.testing.assert_array_equal(pixels_of(out, "train"), ink["train"][:7])
    np.testing.assert_array_equal(pixels_of(out, "valid"), ink["train"][7:])
    np.testing.assert_array_equal(pixels_of(out, "test"), ink["test"])
    card = read_card(out)
    assert card.modality == Modality("image", height=5, width=3)
    assert card.extra == {
        "binarization": "threshold",
        "mean_pixel": {
            "train": ink["train"][:7].mean(),
            "valid": ink["train"][7:].mean(),
            "test": ink["test"].mean(),
        },
    }
    assert card.command == (
        "python -m data_prep.mnist --source=DIR --out=DIR --binarization=threshold --num_valid=4"
    )


@pytest.mark.parametrize("binarization", [None, "fixed"])
def test_fixed_binarization_is_drawn_once(tmp_path, binarization, pixels_of, files_of):
    from stcn_tf.data.card import read_card

    source = write_idx(tmp_path / "raw")
    out = prepare(source, tmp_path / "out", binarization=binarization, seed=5)
    grey = {"train": GREY["train"][:-3], "valid": GREY["train"][-3:], "test": GREY["test"]}
    for split, values in grey.items():
        expected = mnist.binarize(values.astype(np.uint8), "fixed", 5, split)
        np.testing.assert_array_equal(pixels_of(out, split), flat(expected))
    card = read_card(out)
    assert card.extra["binarization"] == "fixed"
    assert not any(split.holds_probabilities for split in card.splits.values())
    chosen = f" --binarization={binarization}" if binarization else ""
    assert card.command.endswith(f" --out=DIR{chosen} --num_valid=3 --seed=5")
    again = prepare(source, tmp_path / "again", binarization=binarization, seed=5)
    assert files_of(again) == files_of(out)
    other = prepare(source, tmp_path / "other", seed=6)
    assert (pixels_of(other, "train") != pixels_of(out, "train")).any()


def test_dynamic_binarization_stores_probabilities_of_train_only(tmp_path, pixels_of, capsys):
    from stcn_tf.data.card import read_card

    source = write_idx(tmp_path / "raw")
    out = prepare(source, tmp_path / "out", binarization="dynamic", seed=5)
    train = flat(GREY["train"][:-3])
    np.testing.assert_array_equal(pixels_of(out, "train"), train.astype(np.float32) / 255)
    fixed = prepare(source, tmp_path / "fixed", binarization="fixed", seed=5)
    for split in ("valid", "test"):
        np.testing.assert_array_equal(pixels_of(out, split), pixels_of(fixed, split))
    card = read_card(out)
    assert {name: split.holds_probabilities for name, split in card.splits.items()} == {
        "train": True,
        "valid": False,
        "test": False,
    }
    assert card.extra["mean_pixel"]["train"] == pytest.approx(train.mean() / 255, rel=1e-6)
    assert card.command.endswith(" --binarization=dynamic --num_valid=3 --seed=5")
    printed = capsys.readouterr().out
    assert printed.count("(probabilities, drawn anew in training)") == 1


def test_same_bytes_again_elsewhere_and_with_any_number_of_workers(tmp_path, files_of):
    first = files_of(prepare(write_idx(tmp_path / "raw", ".gz"), tmp_path / "first"))
    moved = (tmp_path / "raw").rename(tmp_path / "elsewhere")
    assert files_of(prepare(moved, tmp_path / "again", workers=2)) == first
    assert str(tmp_path) not in json.dumps(first["dataset.json"].decode())


# ----------------------------------------------------------------------------------- sources


def test_text_goes_before_idx_unless_grey_values_are_wanted(tmp_path):
    write_idx(tmp_path, ".gz")
    idx = "mnist", "IDX", [tmp_path / f"{name}.gz" for name in IDX.values()]
    assert mnist.find_sources(tmp_path, None, grey=False) == idx
    hdf5(tmp_path, BINARY, "binarized_mnist.h5")
    binarized = "mnist", "binarized", [tmp_path / "binarized_mnist.h5"]
    assert mnist.find_sources(tmp_path, "mnist", grey=False) == binarized
    write_amat(tmp_path, ".xz")
    text = "mnist", "text", [tmp_path / f"{AMAT.format(split)}.xz" for split in BINARY]
    assert mnist.find_sources(tmp_path, None, grey=False) == text
    assert mnist.find_sources(tmp_path, None, grey=True) == idx


def test_missing_files_are_named(tmp_path):
    source = write_amat(tmp_path / "raw", ".gz")
    (source / "binarized_mnist_valid.amat.gz").unlink()
    with pytest.raises(UserError) as error:
        prepare(source, tmp_path / "out")
    assert str(error.value) == f"--source: {source}: mnist (text) has no images for valid"
    path = source / "binarized_mnist_test.amat.gz"
    with pytest.raises(UserError) as error:
        prepare(path, tmp_path / "out")
    assert str(error.value) == f"--source: {path}: mnist (text) has no images for train and valid"
    with pytest.raises(UserError, match=f"^--source: {tmp_path}/none does not exist$"):
        prepare(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    accepted = "accepted: IDX files, .amat, .npz, .npy, .hdf5, .h5"
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "empty", tmp_path / "out")
    assert str(error.value) == (f"--source: {tmp_path}/empty has no images; {accepted}")
    with pytest.raises(UserError) as error:
        prepare(source, tmp_path / "out", binarization="fixed")
    assert str(error.value) == (
        f"--source: {source} has no images of grey values, which --binarization is for; {accepted}"
    )
    assert sorted(os.listdir(tmp_path)) == ["empty", "raw"]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (write_idx, {"num_valid": 0}, "--num_valid=0: accepted: 1 to 10"),
        (write_idx, {"num_valid": 11}, "--num_valid=11: accepted: 1 to 10"),
        (write_idx, {"num_valid": None}, "--num_valid=10000: accepted: 1 to 10"),
        (write_amat, {"num_valid": 2}, "--num_valid=2: {} has 3 valid images"),
        (write_amat, {"seed": 3}, "--seed means nothing with {}: it is binarized already"),
    ],
)
def test_what_does_not_fit_the_files_is_refused(tmp_path, make, options, message):
    source = make(tmp_path / "raw")
    with pytest.raises(UserError) as error:
        prepare(source, tmp_path / "out", **options)
    assert str(error.value) == message.format(source)
    assert os.listdir(tmp_path) == ["raw"]


def test_binarized_files_are_not_binarized_again(tmp_path):
    np.savez(tmp_path / "mnist.npz", **BINARY)
    with pytest.raises(UserError) as error:
        prepare(tmp_path, tmp_path / "out", binarization="dynamic")
    assert str(error.value) == (
        f"--binarization means nothing with {tmp_path}: it is binarized already"
    )
    assert os.listdir(tmp_path) == ["mnist.npz"]


def test_bad_files_are_named(tmp_path):
    source = write_amat(tmp_path / "raw")
    path = source / "binarized_mnist_valid.amat"
    path.write_bytes(b"0 1 1 0\n0 1\n")
    with pytest.raises(UserError) as error:
        prepare(source, tmp_path / "out")
    assert str(error.value) == f"{path}: line 2 has 2 pixels instead of 4"
    path.write_bytes(b"0 1 1 0\n")
    with pytest.raises(UserError) as error:
        prepare(source, tmp_path / "out")
    assert str(error.value) == (
        f"--source: {source}: images differ in size: train 3 x 3, valid 2 x 2, test 3 x 3"
    )
    assert os.listdir(tmp_path) == ["raw"]


def test_sizes_of_idx_must_agree(tmp_path):
    source = write_idx(tmp_path / "raw", test=RNG.integers(0, 256, (4, 3, 5)))
    with pytest.raises(UserError, match="images differ in size: train 5 x 3, test 3 x 5$"):
        prepare(source, tmp_path / "out")


def test_without_a_source_mnist_is_downloaded(tmp_path, monkeypatch, pixels_of):
    import keras

    from stcn_tf.data.card import read_card

    labels = np.zeros(11), np.zeros(4)
    grey = {split: pixels.astype(np.uint8) for split, pixels in GREY.items()}
    monkeypatch.setattr(
        keras.datasets.mnist,
        "load_data",
        lambda: ((grey["train"], labels[0]), (grey["test"], labels[1])),
    )
    out = prepare(None, tmp_path / "out", binarization="dynamic", seed=2)
    local = prepare(write_idx(tmp_path / "raw"), tmp_path / "local", binarization="dynamic", seed=2)
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(pixels_of(out, split), pixels_of(local, split))
    commands = [read_card(folder).command for folder in (out, local)]
    assert commands == [
        f"python -m data_prep.mnist{source} --out=DIR --binarization=dynamic --num_valid=3 --seed=2"
        for source in ("", " --source=DIR")
    ]


def test_a_failing_download_says_what_to_do(tmp_path, monkeypatch):
    import keras

    def fail():
        raise OSError("URL fetch failure:\n  no route to host")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(UserError) as error:
        prepare(None, tmp_path / "out")
    assert str(error.value) == (
        "MNIST cannot be downloaded (URL fetch failure: no route to host); accepted: "
        "--source=FOLDER with its files"
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--source=a", "--binarization=threshold", "--seed=3"],
            "--seed means nothing with --binarization=threshold, which draws nothing",
        ),
        (
            ["--dataset=mnist"],
            "--dataset means nothing without --source: MNIST is downloaded",
        ),
    ],
)
def test_flags_that_would_be_ignored_are_refused(parse_flags, tmp_path, words, message):
    parse_flags(mnist.prepare.define_flags, f"--out={tmp_path / 'out'}", *words)
    with pytest.raises(UserError) as error:
        command.call(mnist.prepare)
    assert str(error.value) == message


# --------------------------------------------------------------------------------- real data


@pytest.fixture
def real_files():
    if not os.environ.get("STCN_DATA"):
        pytest.skip("STCN_DATA is not set")
    return Path(os.environ["STCN_DATA"], "mnist")


@pytest.mark.data
def test_check_values_of_larochelles_files(real_files, tmp_path, capsys):
    from stcn_tf.data.card import Modality, read_card

    card = read_card(prepare(real_files, tmp_path / "out", num_valid=None))
    counts = {}
    for split in mnist.SPLITS:
        # Another reading: the file's characters, counted.
        text = lzma.decompress((real_files / f"{AMAT.format(split)}.xz").read_bytes())
        zeros, ones = text.count(b"0"), text.count(b"1")
        counts[split] = (zeros + ones) / 784
        assert card.extra["mean_pixel"][split] == pytest.approx(ones / (zeros + ones), rel=1e-12)
        assert card.splits[split].num_sequences == text.count(b"\n") == counts[split]
        assert set(card.splits[split].length_quantiles.values()) == {784}
    assert counts == {"train": 50_000, "valid": 10_000, "test": 10_000}
    checks = [line for line in capsys.readouterr().out.splitlines() if line.startswith("check: ")]
    assert checks == [
        f"check: {split} has the {count} sequences and {784 * count} steps of the complete data set"
        for split, count in (("train", 50_000), ("valid", 10_000), ("test", 10_000))
    ]
    assert card.extra["mean_pixel"]["train"] == pytest.approx(0.13056, abs=5e-6)
    assert card.extra["binarization"] == "larochelle"
    assert card.modality == Modality("image", height=28, width=28)


@pytest.mark.data
def test_check_values_of_idx_files(real_files):
    for split, count, mean in (("train", 60_000, 33.3184), ("test", 10_000, 33.7912)):
        path = real_files / f"{IDX[split]}.gz"
        (pixels,) = mnist.parse(path.read_bytes()).values()
        assert pixels.shape == (count, 28, 28)
        assert pixels.mean() == pytest.approx(mean, abs=5e-5)
        data = gzip.decompress(path.read_bytes())[16:]
        np.testing.assert_array_equal(pixels.reshape(-1), np.frombuffer(data, np.uint8))
        # One draw of all pixels: as many ones as the grey values say.
        num_ones = np.count_nonzero(mnist.binarize(pixels, "fixed", 0, split))
        num, p = np.bincount(pixels.reshape(-1), minlength=256), np.arange(256) / 255
        assert abs(num_ones - num @ p) < 5 * np.sqrt(num @ (p * (1 - p)))
