"""Synthetic images of digits, in the formats of MNIST.

The digits are strokes of Hershey's vector fonts, bent a little, slanted, stretched, turned and
moved at random, and drawn with a pen of random thickness. A pixel's grey value says how far the
pen's edge lies from its centre. The same settings draw the same digits in both formats.
"""

import dataclasses
import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.synthetic.handwriting import PRINTED_FACES, load_glyphs
from stcn_tf.settings import Settings, setting

AMAT_NAMES = {split: f"binarized_mnist_{split}.amat" for split in ("train", "valid", "test")}
IDX_NAMES = {  # images, labels
    split: (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz")
    for split, prefix in (("train", "train"), ("test", "t10k"))
}
_SPLIT_NUMBERS = {"train": 0, "valid": 1, "test": 2}
_IDX_UINT8 = 0x08  # type code of the IDX format


@dataclasses.dataclass(frozen=True)
class ImageSettings(Settings):
    """How many images are to be drawn, and how large; everything follows from `seed`."""

    num_images: int = setting(
        200, "Images of train; other splits have a fifth.", least=1, most=60_000
    )
    image_size: int = setting(28, "Height and width of the images in pixels.", least=4, most=256)
    seed: int = setting(0, "Random seed.", least=0)


def draw_digit(digit: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a digit, 0 to 9, in white on black: uint8 [size, size]."""
    strokes = load_glyphs(PRINTED_FACES[rng.integers(len(PRINTED_FACES))])[str(digit)].strokes
    ends = np.cumsum([len(stroke) for stroke in strokes])[:-1]
    points = np.concatenate(strokes)
    # Lengths are in heights of the letter here, y downwards.
    points = (points - points.mean(axis=0)) / np.ptp(points[:, 1])
    phase, bend = rng.uniform(0.0, 2.0 * np.pi, 2), rng.uniform(0.0, 0.05, 2)
    points = points + bend * np.sin(4.0 * points[:, ::-1] + phase)
    turn, slant = rng.normal(0.0, 0.12), rng.normal(-0.15, 0.2)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = points @ (turned @ np.array([[rng.uniform(0.8, 1.3), slant], [0.0, 1.0]])).T
    # And in pixels here. The digit fits into a box, as MNIST's do, and ends within the image.
    low, high = points.min(axis=0), points.max(axis=0)
    scale = size * rng.uniform(0.55, 0.7) / (high - low).max()
    middle = size * (0.5 + rng.uniform(-0.04, 0.04, 2))
    points = (points - 0.5 * (low + high)) * scale + middle
    radius = size * rng.uniform(0.028, 0.055)

    segments = np.concatenate(
        [np.stack([part[:-1], part[1:]], axis=1) for part in np.split(points, ends)]
    )
    centres = np.stack(np.meshgrid(*2 * [np.arange(size) + 0.5]), axis=-1)  # x, y
    distance = _distances(centres.reshape(-1, 2), segments).min(axis=1)
    grey = np.clip(radius + 0.5 - distance, 0.0, 1.0)
    return np.rint(255.0 * grey).astype(np.uint8).reshape(size, size)


def _distances(points: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """From each of `points` [points, 2] to each of `segments` [segments, 2 ends, 2]."""
    start, along = segments[:, 0], segments[:, 1] - segments[:, 0]
    away = points[:, None] - start  # [points, segments, 2]
    length = np.maximum(np.square(along).sum(axis=1), 1e-12)
    share = np.clip((away * along).sum(axis=2) / length, 0.0, 1.0)
    return np.linalg.norm(away - share[:, :, None] * along, axis=2)


def digits(
    split: str, settings: ImageSettings
) -> Iterator[tuple[int, np.ndarray, np.random.Generator]]:
    """Yields a split's digits, their images, and the source of what else is random about them."""
    count = settings.num_images if split == "train" else max(1, settings.num_images // 5)
    for index in tqdm(range(count), desc=f"drawing {split}", disable=None):
        rng = np.random.default_rng([settings.seed, _SPLIT_NUMBERS[split], index])
        digit = int(rng.integers(10))
        yield digit, draw_digit(digit, settings.image_size, rng), rng


def write_amat(folder: Path, settings: ImageSettings) -> str:
    """Writes Larochelle's text, each pixel drawn once by its grey; says how much, in words."""
    count = 0
    for split, name in AMAT_NAMES.items():
        with open(folder / name, "w", encoding="ascii") as file:
            for _, image, rng in digits(split, settings):
                pixels = rng.random(image.size) < image.ravel() / 255.0
                file.write(" ".join(map(str, pixels.astype(int))) + "\n")
                count += 1
    return f"{count} images"


def write_idx(folder: Path, settings: ImageSettings) -> str:
    """Writes grey images and their labels as gzipped IDX; says how much, in words."""
    count = 0
    for split, names in IDX_NAMES.items():
        labels, images, _ = zip(*digits(split, settings), strict=True)
        for name, values in zip(names, (np.stack(images), np.array(labels)), strict=True):
            header = struct.pack(f">HBB{values.ndim}I", 0, _IDX_UINT8, values.ndim, *values.shape)
            # No time in gzip's header: equal images, equal bytes.
            data = gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0)
            (folder / name).write_bytes(data)
        count += len(labels)
    return f"{count} images"
