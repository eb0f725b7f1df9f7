"""MNIST's files to records: exact pixels of every format, the three binarizations, faults."""

import gzip
import hashlib
import json
import lzma
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from data_prep import mnist
from data_prep.common import command
from data_prep.common.raw_files import FileFault
from stcn_tf.support.errors import UserError

RNG = np.random.default_rng(0)
# Squares of 3 x 3; rectangles of 5 rows of 3 pixels.
BINARY = {s: RNG.integers(0, 2, (n, 3, 3)) for s, n in (("train", 7), ("valid", 2), ("test", 4))}
GREY = {s: RNG.integers(0, 256, (n, 5, 3)) for s, n in (("train", 11), ("test", 4))}
COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


def idx_of(pixels):
    return struct.pack(">4I", 0x803, *pixels.shape) + pixels.astype(np.uint8).tobytes()


def amat_of(pixels):
    """Text as Larochelle has it: a space after each pixel, one image a line."""
    rows = pixels.reshape(len(pixels), -1)
    return "".join("".join(f"{pixel} " for pixel in row) + "\n" for row in rows).encode()


def write(folder, files, ending=""):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}{ending}").write_bytes(COMPRESSIONS[ending](data))
    return folder


def write_amat(folder, ending="", **changes):
    parts = BINARY | changes
    files = {mnist.LAROCHELLE_FILES[split]: amat_of(pixels) for split, pixels in parts.items()}
    return write(folder, files, ending)


def write_idx(folder, ending="", **changes):
    parts = GREY | changes
    files = {mnist.IDX_FILES[split]: idx_of(pixels) for split, pixels in parts.items()}
    return write(folder, files, ending)


def prepare(source, out, **options):
    options = {"binarization": None, "num_valid": 3, "seed": 0, "workers": 1} | options
    mnist.prepare(source, out, **options)
    return out


@pytest.fixture
def pixels_of(read_back):
    """Function (records, split) -> pixels [num, time] of all images, whose ids are in order."""

    def read(out, split):
        images = read_back(out, split)
        assert list(images) == [f"{split}-{number:05d}" for number in range(len(images))]
        return np.stack(list(images.values()))[:, :, 0]

    return read


def flat(pixels):
    return pixels.reshape(len(pixels), -1)


# ------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_text_is_parsed(tmp_path, ending):
    write(tmp_path, {"a.amat": amat_of(BINARY["train"])}, ending)
    pixels = mnist.parse_amat(tmp_path / f"a.amat{ending}")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, BINARY["train"])


@pytest.mark.parametrize(
    "text", [b"0 1 1 0\n1 1 0 0", b"\n 0\t1 1  0 \r\n\r\n1 1 0 0 \n\n", b"0 1 1 0 \n1 1 0 0 \n"]
)
def test_white_space_of_text_does_not_matter(tmp_path, text):
    (tmp_path / "a.amat").write_bytes(text)
    pixels = mnist.parse_amat(tmp_path / "a.amat")
    np.testing.assert_array_equal(pixels, [[[0, 1], [1, 0]], [[1, 1], [0, 0]]])


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_idx_is_parsed(tmp_path, ending):
    write(tmp_path, {"a": idx_of(GREY["train"])}, ending)
    pixels = mnist.parse_idx(tmp_path / f"a{ending}")
    assert pixels.dtype == np.uint8 and pixels.shape == (11, 5, 3)
    np.testing.assert_array_equal(pixels, GREY["train"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "holds no images"),
        (b" \n\n", "holds no images"),
        (b"0 1 1 0\n0 1 2 0\n", "line 2 holds something other than 0 and 1"),
        (b"0 1 1 0\n\n0 1 -1 0\n", "line 3 holds something other than 0 and 1"),
        (b"01 1 0\n", "line 1 holds something other than 0 and 1"),
        (b"0110\n", "line 1 holds something other than 0 and 1"),
        (b"0 1 1 0\n0.0 1.0 1.0 0.0\n", "line 2 holds something other than 0 and 1"),
        (b"0 1 1 0\n0 1 1\n", "line 2 has 3 pixels instead of 4"),
        (b"0 1 1 0\n0 1 1 0 1\n", "line 2 has 5 pixels instead of 4"),
        (b"0 1 1\n", "line 1 has 3 pixels, which make no square"),
    ],
)
def test_faults_of_text(tmp_path, text, message):
    (tmp_path / "a.amat").write_bytes(text)
    with pytest.raises(FileFault) as error:
        mnist.parse_amat(tmp_path / "a.amat")
    assert str(error.value) == message


GOOD_IDX = idx_of(GREY["test"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is too short for an IDX file"),
        (GOOD_IDX[:15], "is too short for an IDX file"),
        (
            b"\0\0\x08\x01" + GOOD_IDX[4:],
            "begins with 0x00000801 instead of 0x00000803 (images)",
        ),
        (GOOD_IDX[:-1], "has 59 bytes of pixels instead of 60 (4 of 5 x 3)"),
        (GOOD_IDX + b"\0", "has more bytes of pixels instead of 60 (4 of 5 x 3)"),
        (
            struct.pack(">4I", 0x803, 0, 5, 3),
            "says it has 0 images of 5 x 3; accepted: 1 or more, of at most 1024 x 1024",
        ),
        (
            struct.pack(">4I", 0x803, 2, 1025, 3),
            "says it has 2 images of 1025 x 3; accepted: 1 or more, of at most 1024 x 1024",
        ),
        (
            struct.pack(">4I", 0x803, 2**32 - 1, 1024, 1024) + bytes(100),
            f"has 100 bytes of pixels instead of {(2**32 - 1) * 2**20} (4294967295 of 1024 x 1024)",
        ),
    ],
)
def test_faults_of_idx(tmp_path, data, message):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(FileFault) as error:
        mnist.parse_idx(tmp_path / "a")
    assert str(error.value) == message


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_damaged_compression_is_a_fault(tmp_path, ending):
    data = COMPRESSIONS[ending](idx_of(RNG.integers(0, 256, (4, 50, 50))))
    path = tmp_path / f"a{ending}"
    for bad in (data[: len(data) // 2], b"plain text", data[:-8] + bytes(8)):
        path.write_bytes(bad)
        with pytest.raises(FileFault, match="^cannot be read: "):
            mnist.parse_idx(path)
    with pytest.raises(FileFault, match="^cannot be read: No such file or directory$"):
        mnist.parse_idx(tmp_path / f"none{ending}")


# --------------------------------------------------------------------------- binarization


def test_threshold_is_above_127():
    grey = np.array([[[0, 1, 127], [128, 129, 255]]], np.uint8)
    for split in ("train", "valid", "test"):
        pixels = mnist.binarize(grey, "threshold", 0, split)
        assert pixels.dtype == np.float32
        np.testing.assert_array_equal(pixels, [[[0, 0, 0], [1, 1, 1]]])


def test_draws_have_the_probability_of_the_grey_value():
    num_draws = 4000
    grey = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (num_draws, 1, 1))
    pixels = mnist.binarize(grey, "fixed", 5, "train")
    assert pixels.dtype == np.float32 and set(np.unique(pixels)) == {0, 1}
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


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_larochelle_records_hold_the_pixels(tmp_path, ending, pixels_of, capsys):
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
        "binarization": "larochelle",
        "mean_pixel": {split: pixels.mean() for split, pixels in BINARY.items()},
    }
    assert card.command == "python -m data_prep.mnist --source=DIR --out=DIR"
    assert not any(split.holds_probabilities for split in card.splits.values())
    files = {
        split: tmp_path / "raw" / f"{mnist.LAROCHELLE_FILES[split]}{ending}" for split in BINARY
    }
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
        f"wrote {out} (binarization: larochelle)",
    ]


@pytest.mark.parametrize("ending", COMPRESSIONS)
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
    idx = (
        "idx",
        {split: tmp_path / f"{name}.gz" for split, name in mnist.IDX_FILES.items()},
    )
    assert mnist.find_sources(tmp_path, grey=False) == idx
    write_amat(tmp_path, ".xz")
    assert mnist.find_sources(tmp_path, grey=False) == (
        "larochelle",
        {split: tmp_path / f"{name}.xz" for split, name in mnist.LAROCHELLE_FILES.items()},
    )
    assert mnist.find_sources(tmp_path, grey=True) == idx


def test_missing_files_are_named(tmp_path):
    write_amat(tmp_path / "raw", ".gz")
    (tmp_path / "raw" / "binarized_mnist_valid.amat.gz").unlink()
    (tmp_path / "raw" / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "raw", tmp_path / "out")
    assert str(error.value) == (
        f"--source: {tmp_path}/raw lacks binarized_mnist_valid.amat (text), and "
        "t10k-images-idx3-ubyte (IDX); accepted: a folder with all of one kind, each perhaps with "
        ".gz or .xz"
    )
    with pytest.raises(UserError, match=f"^--source: {tmp_path}/none does not exist$"):
        prepare(tmp_path / "none", tmp_path / "out")
    path = tmp_path / "raw" / "binarized_mnist_test.amat.gz"
    with pytest.raises(UserError, match=f"^--source: {path} is a file; accepted: a folder$"):
        prepare(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_valid": 0}, "--num_valid=0: accepted: 1 to 10"),
        ({"num_valid": 11}, "--num_valid=11: accepted: 1 to 10"),
        ({"num_valid": -1}, "--num_valid=-1: accepted: 1 to 10"),
    ],
)
def test_train_and_valid_must_keep_an_image(tmp_path, options, message):
    with pytest.raises(UserError) as error:
        prepare(write_idx(tmp_path / "raw"), tmp_path / "out", **options)
    assert str(error.value) == message
    assert os.listdir(tmp_path) == ["raw"]


def test_binarized_files_are_not_binarized_again(tmp_path):
    source = write_amat(tmp_path / "raw")
    with pytest.raises(UserError) as error:
        prepare(source, tmp_path / "out", binarization="fixed")
    assert str(error.value) == (
        f"--source: {source} lacks train-images-idx3-ubyte and t10k-images-idx3-ubyte (IDX), whose "
        "grey values --binarization is for; images in .amat files are binarized already"
    )
    assert os.listdir(tmp_path) == ["raw"]


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
    ("make", "words", "message"),
    [
        ("amat", ["--seed=3"], "--seed means nothing with .amat files: they are ready"),
        ("amat", ["--num_valid=3"], "--num_valid means nothing with .amat files: they are ready"),
        (
            "idx",
            ["--binarization=threshold", "--seed=3"],
            "--seed means nothing with --binarization=threshold, which draws nothing",
        ),
    ],
)
def test_flags_that_would_be_ignored_are_refused(parse_flags, tmp_path, make, words, message):
    source = (write_amat if make == "amat" else write_idx)(tmp_path / "raw")
    parse_flags(mnist.define_flags, f"--source={source}", f"--out={tmp_path / 'out'}", *words)
    with pytest.raises(UserError) as error:
        command.call(mnist.prepare)
    assert str(error.value) == message
    assert os.listdir(tmp_path) == ["raw"]


# --------------------------------------------------------------------------------- real data


@pytest.fixture
def real_files():
    if not os.environ.get("STCN_DATA"):
        pytest.skip("STCN_DATA is not set")
    return Path(os.environ["STCN_DATA"], "mnist")


@pytest.mark.data
def test_check_values_of_larochelles_files(real_files, tmp_path, capsys):
    from stcn_tf.data.card import Modality, read_card

    card = read_card(prepare(real_files, tmp_path / "out"))
    counts = {}
    for split, name in mnist.LAROCHELLE_FILES.items():
        # Another reading: the file's characters, counted.
        text = lzma.decompress((real_files / f"{name}.xz").read_bytes())
        zeros, ones = text.count(b"0"), text.count(b"1")
        counts[split] = (zeros + ones) / 784
        assert card.extra["mean_pixel"][split] == pytest.approx(ones / (zeros + ones), rel=1e-12)
        assert card.splits[split].num_sequences == text.count(b"\n") == counts[split]
        assert set(card.splits[split].length_quantiles.values()) == {784}
    assert counts == mnist.LAROCHELLE_COUNTS == {"train": 50_000, "valid": 10_000, "test": 10_000}
    checks = [line for line in capsys.readouterr().out.splitlines() if line.startswith("check: ")]
    assert checks == [
        f"check: {split} has the {count} sequences and {784 * count} steps of the complete data set"
        for split, count in mnist.LAROCHELLE_COUNTS.items()
    ]
    assert card.extra["mean_pixel"]["train"] == pytest.approx(0.13056, abs=5e-6)
    assert card.extra["binarization"] == "larochelle"
    assert card.modality == Modality("image", height=28, width=28)


@pytest.mark.data
def test_check_values_of_idx_files(real_files):
    for split, count, mean in (("train", 60_000, 33.3184), ("test", 10_000, 33.7912)):
        path = real_files / f"{mnist.IDX_FILES[split]}.gz"
        pixels = mnist.parse_idx(path)
        assert pixels.shape == (count, 28, 28)
        assert pixels.mean() == pytest.approx(mean, abs=5e-5)
        data = gzip.decompress(path.read_bytes())[16:]
        np.testing.assert_array_equal(pixels.reshape(-1), np.frombuffer(data, np.uint8))
        # One draw of all pixels: as many ones as the grey values say.
        num_ones = np.count_nonzero(mnist.binarize(pixels, "fixed", 0, split))
        num, p = np.bincount(pixels.reshape(-1), minlength=256), np.arange(256) / 255
        assert abs(num_ones - num @ p) < 5 * np.sqrt(num @ (p * (1 - p)))
