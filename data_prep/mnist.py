"""MNIST -> records of binary pixels, one a step, row by row (784 steps for 28 x 28).

    python -m data_prep.mnist --source=FOLDER --out=RECORDS [--binarization=fixed]
    python -m data_prep.mnist --out=RECORDS --binarization=dynamic     # downloads MNIST

Likelihoods under different binarizations are those of different tasks, and the card says which one
it is:

* `larochelle`: the text files binarized_mnist_{train,valid,test}.amat (Larochelle & Murray, 2011;
  50,000, 10,000 and 10,000 images), one image a line, a 0 or 1 for each pixel: one draw of each
  pixel, made once. The literature's "binarized MNIST", and the default where these files are there.
  They may be compressed (.gz, .xz).
* `fixed`: of MNIST's grey values (IDX files), each pixel is 1 with the probability of its grey
  value, drawn once by --seed.
* `dynamic`: the same, but drawn anew each time a training sequence is read; valid and test are
  drawn once.
* `threshold`: a pixel is 1 where its grey value exceeds 127.

IDX files: train-images-idx3-ubyte and t10k-images-idx3-ubyte, as they are or with .gz. The last
--num_valid images of the first are valid. Where no --source is given, the files are those that
`keras.datasets.mnist` downloads. Images may have any size.
"""

import contextlib
import gzip
import hashlib
import lzma
import math
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from absl import flags

from data_prep.common import command, raw_files
from data_prep.common.command import import_records
from data_prep.common.raw_files import MAX_FILE_BYTES, FileFault
from stcn_tf.data.card import Feature, Modality, Normalization
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError

LAROCHELLE_FILES = {
    "train": "binarized_mnist_train.amat",
    "valid": "binarized_mnist_valid.amat",
    "test": "binarized_mnist_test.amat",
}
LAROCHELLE_COUNTS = {"train": 50_000, "valid": 10_000, "test": 10_000}  # images
NUM_TRAIN_IDX = 60_000  # train and valid together; test is as large as Larochelle's
IDX_FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
BINARIZATIONS = ("fixed", "dynamic", "threshold")
LAROCHELLE = "larochelle"

_ENDINGS = ("", ".gz", ".xz")
_MNIST_PIXELS = 28 * 28
_IDX_MAGIC = 0x00000803  # unsigned bytes, three dimensions
_MAX_SIDE = 1024  # pixels
_MAX_IMAGES = 10_000_000  # a compressed byte can stand for thousands
_GREY_LEVELS = 255
_DOWNLOAD_SECONDS = 60.0  # without a byte
_SPLIT_NUMBERS = {"train": 0, "valid": 1, "test": 2}  # part of the seed of each split's draws
_CHUNK_BYTES = 2**20


class Images(NamedTuple):
    """The images of one file or split."""

    pixels: np.ndarray  # uint8 [num, height, width]; 0 and 1, or grey values to 255
    sha256: str


# ---------------------------------------------------------------------------------- parsing


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    return open(path, "rb")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what reading a damaged file raises into a fault."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zlib.error, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FileFault(f"cannot be read: {reason}") from error


def parse_amat(path: Path) -> np.ndarray:
    """Reads images as lines of 0 and 1, separated by white space.

    Args:
        path: a text file, perhaps compressed.

    Returns:
        uint8 [num, side, side], 0 and 1.

    Raises:
        FileFault: there is anything else in it, lines differ in length or are no squares, or there
            is too much of it.
    """
    data = bytearray()
    num_pixels = 0
    with _readable(path), _open(path) as file:
        # Longer lines are cut, so that a file without line ends does not fill the memory.
        longest = 4 * _MAX_SIDE**2
        for number, line in enumerate(iter(lambda: file.readline(longest), b""), start=1):
            if number > _MAX_IMAGES:
                raise FileFault(f"has more than {_MAX_IMAGES} lines")
            digits = line.translate(None, b" \t\r\n")
            if not digits:
                continue
            pixels = np.frombuffer(digits, np.uint8) - ord("0")
            # As many words as digits: each word is one digit.
            if pixels.max() > 1 or len(line.split()) != len(digits):
                raise FileFault(f"line {number} holds something other than 0 and 1")
            if num_pixels == 0:
                num_pixels = len(pixels)
                if math.isqrt(num_pixels) ** 2 != num_pixels:
                    raise FileFault(f"line {number} has {num_pixels} pixels, which make no square")
            if len(pixels) != num_pixels:
                raise FileFault(f"line {number} has {len(pixels)} pixels instead of {num_pixels}")
            data += pixels.tobytes()
            if len(data) > MAX_FILE_BYTES:
                raise FileFault(f"has more than {MAX_FILE_BYTES} pixels")
    if not data:
        raise FileFault("holds no images")
    side = math.isqrt(num_pixels)
    return np.frombuffer(data, np.uint8).reshape(-1, side, side)


def parse_idx(path: Path) -> np.ndarray:
    """Reads images in the IDX format.

    Args:
        path: the file, perhaps compressed.

    Returns:
        uint8 [num, height, width], grey values.

    Raises:
        FileFault: it is not of images, too large, or not as long as it says.
    """
    with _readable(path), _open(path) as file:
        header = file.read(16)
        if len(header) < 16:
            raise FileFault("is too short for an IDX file")
        magic, num, height, width = struct.unpack(">4I", header)
        if magic != _IDX_MAGIC:
            raise FileFault(f"begins with {magic:#010x} instead of {_IDX_MAGIC:#010x} (images)")
        if not num or not (1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE):
            raise FileFault(
                f"says it has {num} images of {height} x {width}; accepted: 1 or more, of at most "
                f"{_MAX_SIDE} x {_MAX_SIDE}"
            )
        size = num * height * width
        # In pieces: what is said to be there need not be.
        data = bytearray()
        while len(data) <= size and (piece := file.read(min(_CHUNK_BYTES, size + 1 - len(data)))):
            data += piece
            if len(data) > MAX_FILE_BYTES:
                raise FileFault(f"has more than {MAX_FILE_BYTES} pixels")
    if len(data) != size:
        have = f"{len(data)} bytes" if len(data) < size else "more bytes"
        raise FileFault(f"has {have} of pixels instead of {size} ({num} of {height} x {width})")
    return np.frombuffer(data, np.uint8).reshape(num, height, width)


def _parse(path: Path) -> raw_files.ParsedFile:
    parse = parse_amat if ".amat" in path.name else parse_idx
    try:
        with _readable(path), open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return raw_files.ParsedFile(parse(path), sha256, "")
    except FileFault as fault:
        return raw_files.ParsedFile(None, "", str(fault))


# ---------------------------------------------------------------------------------- sources


def find_sources(source: Path, grey: bool) -> tuple[str, dict[str, Path]]:
    """Finds the files.

    Args:
        source: as `--source`.
        grey: whether it must be IDX files, though there may be the others besides.

    Returns:
        "larochelle" or "idx", and the file of each split.

    Raises:
        UserError: neither is complete.
    """
    if not source.is_dir():
        what = "is a file; accepted: a folder" if source.exists() else "does not exist"
        raise UserError(f"--source: {source} {what}")
    missing = []
    for kind, names in ((LAROCHELLE, LAROCHELLE_FILES), ("idx", IDX_FILES)):
        found = {
            split: next(filter(Path.is_file, (source / (name + e) for e in _ENDINGS)), None)
            for split, name in names.items()
        }
        if all(found.values()) and not (grey and kind == LAROCHELLE):
            return kind, found
        missing.append(" and ".join(names[split] for split, path in found.items() if not path))
    if grey:
        raise UserError(
            f"--source: {source} lacks {missing[1]} (IDX), whose grey values --binarization is "
            "for; images in .amat files are binarized already"
        )
    raise UserError(
        f"--source: {source} lacks {missing[0]} (text), and {missing[1]} (IDX); accepted: a folder "
        "with all of one kind, each perhaps with .gz or .xz"
    )


def read(source: Path, grey: bool, workers: int) -> tuple[str, dict[str, Images]]:
    """Reads the files in `source`.

    Args:
        source: as `--source`.
        grey: see `find_sources`.
        workers: number of processes.

    Returns:
        "larochelle" or "idx", and the images of each file.

    Raises:
        UserError: a file is missing or bad, or their images differ in size.
    """
    kind, paths = find_sources(source, grey)
    results = raw_files.map_in_order(_parse, list(paths.values()), workers)
    images: dict[str, Images] = {}
    with contextlib.closing(results):
        shown = raw_files.with_progress(results, len(paths))
        for (split, path), result in zip(paths.items(), shown, strict=True):
            if result.fault:
                raise UserError(f"{path}: {result.fault}")
            images[split] = Images(result.content, result.sha256)
    sizes = {split: part.pixels.shape[1:] for split, part in images.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{split} {h} x {w}" for split, (h, w) in sizes.items())
        raise UserError(f"--source: {source}: images differ in size: {shown}")
    return kind, images


def download() -> dict[str, Images]:
    """Downloads MNIST as `keras.datasets` has it (checked by its checksum there).

    Raises:
        UserError: it cannot be downloaded.
    """
    cli.import_tensorflow()
    import keras

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_SECONDS)  # Keras' download has none
    try:
        (train, _), (test, _) = keras.datasets.mnist.load_data()
    except Exception as error:  # of urllib, of Keras' check, of reading the file
        reason = " ".join(str(error).split())
        raise UserError(
            f"MNIST cannot be downloaded ({reason}); accepted: --source=FOLDER with its files"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    parts = {"train": train, "test": test}
    return {
        split: Images(pixels, hashlib.sha256(pixels.tobytes()).hexdigest())
        for split, pixels in parts.items()
    }


# ------------------------------------------------------------------------------ binarization


def binarize(grey: np.ndarray, binarization: str, seed: int, split: str) -> np.ndarray:
    """Makes grey values what the records hold.

    Args:
        grey: uint8 [num, height, width].
        binarization: one of `BINARIZATIONS`.
        seed: of the draws.
        split: "train", "valid" or "test", each of which has draws of its own.

    Returns:
        float32 [num, height, width]: 0 and 1; of train with "dynamic" the probabilities of 1.
    """
    if binarization == "threshold":
        return (grey > _GREY_LEVELS // 2).astype(np.float32)
    if binarization == "dynamic" and split == "train":
        return grey.astype(np.float32) / _GREY_LEVELS
    rng = np.random.default_rng([seed, _SPLIT_NUMBERS[split]])
    # 1 with the probability grey / 255, exactly: of 0, ..., 254 as many are below as it says.
    return (rng.integers(0, _GREY_LEVELS, grey.shape, dtype=np.uint8) < grey).astype(np.float32)


def _ignored(arguments: Mapping[str, Any]) -> dict[str, str]:
    source, binarization = arguments["source"], arguments["binarization"]
    if source and not binarization and find_sources(source, grey=False)[0] == LAROCHELLE:
        return dict.fromkeys(("num_valid", "seed"), "with .amat files: they are ready")
    if binarization == "threshold":
        return {"seed": "with --binarization=threshold, which draws nothing"}
    return {}


@command.preparation(_ignored)
def prepare(
    source: Path | None,
    out: Path,
    *,
    binarization: str | None = None,
    num_valid: int = 10_000,
    seed: int = 0,
    workers: int = 1,
    command: str,
) -> None:
    """Reads raw files, writes records and card to `out`, and prints what they hold.

    The arguments are the flags of these names.

    Raises:
        UserError: files are missing or bad, flags do not fit them, or as `write_dataset`.
    """
    if source is None:
        kind, files = "idx", download()
    else:
        kind, files = read(source, binarization is not None, workers)
    if kind == LAROCHELLE:
        binarization = LAROCHELLE
        parts = {split: images.pixels.astype(np.float32) for split, images in files.items()}
    else:
        binarization = binarization or "fixed"
        grey, test = files["train"].pixels, files["test"].pixels
        if not 1 <= num_valid < len(grey):
            raise UserError(f"--num_valid={num_valid}: accepted: 1 to {len(grey) - 1}")
        parts = {
            split: binarize(pixels, binarization, seed, split)
            for split, pixels in (
                ("train", grey[:-num_valid]),
                ("valid", grey[-num_valid:]),
                ("test", test),
            )
        }
    digest = raw_files.Digest()
    for split, images in files.items():
        digest.add(split, images.sha256)
    height, width = parts["train"].shape[1:]
    records = import_records()

    def sequences(split: str) -> Iterator[tuple[str, np.ndarray]]:
        images, what = parts[split], f"writing {split}"
        shown = raw_files.with_progress(images, len(images), what, "images")
        for number, image in enumerate(shown):
            yield f"{split}-{number:05d}", image.reshape(-1, 1)

    card = records.write_dataset(
        out,
        name="mnist",
        features=(Feature("pixel", "binary", "none", "1 where there is ink"),),
        splits={split: sequences(split) for split in parts},
        normalization=Normalization("none", (0.0,), (1.0,)),
        source_sha256=digest.hexdigest(),
        command=command,
        extra={
            "binarization": binarization,
            "mean_pixel": {split: float(np.mean(x, dtype=float)) for split, x in parts.items()},
        },
        modality=Modality("image", height=height, width=width),
        probabilities=("train",) if binarization == "dynamic" else (),
        sequences_per_shard=5000,
    )
    for split, content in card.splits.items():
        print(
            f"{split}: {content.num_sequences} images of {height} x {width}, "
            f"mean pixel {card.extra['mean_pixel'][split]:.5f}"
            + (" (probabilities, drawn anew in training)" if content.holds_probabilities else "")
        )
    counts = LAROCHELLE_COUNTS
    if kind == "idx":
        counts = counts | {"train": NUM_TRAIN_IDX - num_valid, "valid": num_valid}
    sizes = {split: (count, count * _MNIST_PIXELS) for split, count in counts.items()}
    raw_files.print_sizes_check(card.splits, sizes)
    print(f"wrote {out} (binarization: {binarization})")


def define_flags() -> None:
    """Defines this command's flags."""
    command.define_flags(
        "Folder with binarized_mnist_{train,valid,test}.amat, or with MNIST's IDX files; without "
        "it MNIST is downloaded (keras.datasets).",
        required=False,
        can_skip=False,
    )
    flags.DEFINE_enum(
        "binarization",
        None,
        list(BINARIZATIONS),
        "Of grey values: fixed: pixels are drawn once; dynamic: in training anew each time; "
        "threshold: 1 above 127. Default: fixed; .amat files are binarized already.",
    )
    flags.DEFINE_integer(
        "num_valid", 10_000, "Number of the last training images (IDX) that are valid."
    )
    flags.DEFINE_integer("seed", 0, "Seed of the draws.", lower_bound=0)


if __name__ == "__main__":
    command.run(prepare, define_flags)
