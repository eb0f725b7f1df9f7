"""Synthetic digits: MNIST's formats byte for byte, and pictures that show what their labels say."""

import gzip
import re
import struct

import numpy as np
import pytest

from data_prep.synthetic import images
from data_prep.synthetic.images import ImageSettings

SETTINGS = ImageSettings(num_images=150, image_size=17, seed=4)


def read_idx(path):
    with gzip.open(path) as file:
        data = file.read()
    zero, kind, num_dims = struct.unpack(">HBB", data[:4])
    assert (zero, kind) == (0, 8)
    shape = struct.unpack(f">{num_dims}I", data[4 : 4 + 4 * num_dims])
    return np.frombuffer(data[4 + 4 * num_dims :], np.uint8).reshape(shape)


@pytest.fixture(scope="module")
def idx(tmp_path_factory):
    out = tmp_path_factory.mktemp("idx")
    assert images.write_idx(out, SETTINGS) == "180 images"
    return {path.name: read_idx(path) for path in sorted(out.iterdir())}


@pytest.fixture(scope="module")
def amat(tmp_path_factory):
    out = tmp_path_factory.mktemp("amat")
    assert images.write_amat(out, SETTINGS) == "210 images"
    return {path.name: path.read_text() for path in sorted(out.iterdir())}


def test_idx_files(idx):
    assert {name: values.shape for name, values in idx.items()} == {
        "t10k-images-idx3-ubyte.gz": (30, 17, 17),
        "t10k-labels-idx1-ubyte.gz": (30,),
        "train-images-idx3-ubyte.gz": (150, 17, 17),
        "train-labels-idx1-ubyte.gz": (150,),
    }
    assert set(idx["train-labels-idx1-ubyte.gz"]) == set(range(10))
    grey = idx["train-images-idx3-ubyte.gz"]
    assert (grey.min(), grey.max()) == (0, 255)


def test_gzip_headers_do_not_tell_the_time(tmp_path):
    images.write_idx(tmp_path, ImageSettings(num_images=1, image_size=5))
    for path in tmp_path.iterdir():
        assert path.read_bytes()[4:8] == bytes(4)


def test_amat_files(amat):
    assert {name: len(text.splitlines()) for name, text in amat.items()} == {
        "binarized_mnist_test.amat": 30,
        "binarized_mnist_train.amat": 150,
        "binarized_mnist_valid.amat": 30,
    }
    line = re.compile(r"[01]( [01]){288}\n")
    for text in amat.values():
        assert all(line.fullmatch(row) for row in text.splitlines(keepends=True))
    assert len(set(amat.values())) == 3


def test_pixels_are_drawn_with_their_grey_values(amat, idx):
    for split, name in (("train", "train"), ("test", "t10k")):
        rows = amat[f"binarized_mnist_{split}.amat"].splitlines()
        binary = np.array([row.split() for row in rows], np.int64)
        grey = idx[f"{name}-images-idx3-ubyte.gz"].reshape(binary.shape) / 255.0
        assert np.all(binary[grey == 0.0] == 0)
        assert np.all(binary[grey == 1.0] == 1)
        between = (grey > 0.0) & (grey < 1.0)
        surprise = (binary - grey)[between].sum() / np.sqrt((grey * (1.0 - grey))[between].sum())
        assert abs(surprise) < 4.0
        assert 0.1 < binary[between].mean() < 0.9


def test_the_default_size_is_mnists_and_so_is_the_ink():
    settings = ImageSettings()
    grey = np.stack([image for _, image, _ in images.digits("train", settings)]) / 255.0
    assert grey.shape == (200, 28, 28)
    # MNIST: mean 0.131, 19 % of the pixels not black.
    assert 0.1 < grey.mean() < 0.18
    assert 0.15 < np.mean(grey > 0.0) < 0.25
    assert grey[:, [0, -1]].max() == 0.0 and grey[:, :, [0, -1]].max() == 0.0


def test_pictures_show_what_their_labels_say(idx):
    train, test = (
        (idx[f"{name}-images-idx3-ubyte.gz"], idx[f"{name}-labels-idx1-ubyte.gz"])
        for name in ("train", "t10k")
    )
    # The label of the nearest neighbour, after a blur over 3 x 3 pixels.
    blurred = [
        sum(np.roll(values, shift, (1, 2)) for shift in np.ndindex(3, 3)).reshape(len(values), -1)
        for values in (train[0].astype(np.float64), test[0].astype(np.float64))
    ]
    distance = np.square(blurred[1][:, None] - blurred[0]).sum(axis=2)
    assert np.mean(train[1][distance.argmin(axis=1)] == test[1]) > 0.8


def test_the_size_only_changes_the_resolution():
    for digit in range(10):
        large = images.draw_digit(digit, 56, np.random.default_rng(digit)) / 255.0
        small = images.draw_digit(digit, 14, np.random.default_rng(digit)) / 255.0
        pooled = large.reshape(14, 4, 14, 4).mean(axis=(1, 3))
        assert np.corrcoef(pooled.ravel(), small.ravel())[0, 1] > 0.95
    assert images.draw_digit(8, 4, np.random.default_rng(0)).max() > 0


def test_distances_to_segments_by_hand():
    # From (2, 3) to (6, 3): distances of points beside it, beyond its end, and on it.
    points = np.array([[4.0, 5.0], [9.0, 7.0], [3.0, 3.0]])
    segments = np.array([[[2.0, 3.0], [6.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]]])
    np.testing.assert_allclose(
        images._distances(points, segments), [[2.0, 5.0], [5.0, 10.0], [0.0, np.sqrt(8.0)]]
    )
