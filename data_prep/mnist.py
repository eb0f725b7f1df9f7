"""MNIST and its kin -> records of binary pixels, one a step, row by row (784 steps for 28 x 28).

    python -m data_prep.mnist --source=FOLDER --out=RECORDS [--binarization=fixed]
    python -m data_prep.mnist --out=RECORDS --binarization=dynamic     # downloads MNIST

Read are, wherever they lie in FOLDER and however (.gz, .xz, .bz2) they are packed:

* text (.amat, .txt) of train, valid and test: one image a line, a 0 or 1 for each pixel;
* IDX files of MNIST, Fashion-MNIST, KMNIST, QMNIST and EMNIST (whose characters lie on their sides,
  and are turned upright), as their authors, torchvision, Kaggle, 7-Zip and browsers name them;
* arrays (.npz, .npy, .hdf5, .h5): Keras' mnist.npz, KMNIST's own, binarized MNIST as Fuel or anyone
  else has it. Names of arrays, or of files, tell the splits.

Names of files and folders tell the data set; of several, --dataset chooses. Where there is no valid
split, the last --num_valid training images are it. Images may have any size.

Likelihoods under different binarizations are those of different tasks; the card says which it is:

* `larochelle`: pixels are 0 or 1 already, by the one draw of Larochelle & Murray (2011), the
  literature's "binarized MNIST"; `given`: by another one. Text goes before other files.
* `fixed`: each pixel is 1 with the probability of its grey value, drawn once by --seed.
* `dynamic`: the same, but drawn anew each time a training sequence is read; valid and test are
  drawn once.
* `threshold`: a pixel is 1 where its grey value exceeds 127.
"""

import bz2
import codecs
import contextlib
import functools
import gzip
import hashlib
import io
import lzma
import math
import multiprocessing
import re
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path, PurePath
from typing import Any

import h5py
import numpy as np

from data_prep.common import command, raw_files
from data_prep.common.command import Flag, import_records
from data_prep.common.npz import read_npy, read_npz
from data_prep.common.raw_files import MAX_FILE_BYTES, FileFault
from stcn_tf.data.card import Feature, Modality, Normalization
from stcn_tf.data.sequences import read_numbers
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError

BINARIZATIONS = ("fixed", "dynamic", "threshold")
SPLITS = ("train", "valid", "test")  # a split's place is part of the seed of its draws
NUM_VALID = 10_000  # by default

# Images of the complete files: of train (with valid), and of test.
COMPLETE = dict.fromkeys(("mnist", "fashion-mnist", "kmnist", "emnist-mnist"), (60_000, 10_000)) | {
    "qmnist": (60_000, 60_000),
    "k49": (232_365, 38_547),
    "emnist-byclass": (697_932, 116_323),
    "emnist-bymerge": (697_932, 116_323),
    "emnist-balanced": (112_800, 18_800),
    "emnist-letters": (124_800, 20_800),
    "emnist-digits": (240_000, 40_000),
}
# Whose files have MNIST's names: the mean grey value of train, of 1, tells them.
_MEANS = {"fashion-mnist": 0.2860, "kmnist": 0.1918}
_LAROCHELLES_TEST = "9fcd8da6f0fdf09b2ba30fe63a0bb784042a0de82563172530229b983e294ff2"  # SHA-256

_DATASET = re.compile(
    r"(emnist)(?:[-_ ]?(byclass|bymerge|balanced|letters|digits|mnist))?"
    r"|(fashion)|(kmnist|k49|qmnist|notmnist|mnist)"
)
_SPLIT = re.compile(r"(?<![a-wyz])(?:(train)|(valid|val(?![a-z])|dev(?![a-z]))|(test|t10k))")
_NO_IMAGES = re.compile(r"label|target|class(?!ic)|(?<![a-z])y(?![a-z])")
_ARRAYS = r"\.(npz|npy|hdf5|h5)$"
# Kinds of files, by their names; the first goes first.
_KINDS = {
    "text": r"\.amat",
    "binarized": f"binar.*{_ARRAYS}",
    "plain text": r"^(?!.*idx).*\.(txt|dat)$",
    "IDX": f"^(?!.*{_ARRAYS})",
    "arrays": "",
}
_GREY = ("IDX", "arrays")
# Files of labels are known, but not read.
_COPY = r"( ?\(\d+\))?"  # as browsers add
_FILES = re.compile(
    rf"(\.amat|idx\d?([-_.]?(ubyte|int))?|ubyte|images?|labels?)(\.(bin|txt|dat))?{_COPY}"
    rf"(\.(gz|xz|bz2))*{_COPY}$|((mnist|binar).*|^(train|valid|test))\.(txt|dat)$|{_ARRAYS}"
)
_SHOWN = ("IDX files", ".amat", ".npz", ".npy", ".hdf5", ".h5")
_UNPACK = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open, b"BZh": bz2.open}

_IDX_MAGIC = 0x00000803  # unsigned bytes, three dimensions
_MAX_SIDE = 1024  # pixels
_MAX_IMAGES = 2**20
_GREY_LEVELS = 255
_MAX_PACKINGS = 2  # one around the other
_ROUNDING = 0.1  # grey levels, of fractions of 16 bits
_DOWNLOAD_SECONDS = 60.0  # without a byte
_CHUNK_BYTES = 2**20
_ZEROS = re.compile(rb"\.0*(?:e[+-]?0+)?(?=\s|$)")  # as in 1.000e+00


# ---------------------------------------------------------------------------------- parsing


def parse(data: bytes) -> dict[str, np.ndarray]:
    """Reads a file whose content tells what it is: IDX or text (perhaps packed), .npz, .npy, HDF5.

    Returns:
        By name (of single arrays ""), uint8 [num, height, width]: grey values, or 0 and 1.

    Raises:
        FileFault: it is neither, damaged, or too large.
    """
    for _ in range(_MAX_PACKINGS):
        data = _unpacked(data)
    if data.startswith(b"PK"):
        arrays = read_npz(data)
    elif data.startswith(b"\x93NUMPY"):
        arrays = {"": read_npy(data)}
    elif data.startswith(b"\x89HDF"):
        arrays = _parse_hdf5(data)
    else:
        return {"": _as_pixels(_parse_idx(data) if data[:2] == bytes(2) else _parse_text(data))}
    images = {
        name: array
        for name, array in arrays.items()
        if array.ndim > 1 and not _NO_IMAGES.search(name.lower())
    }
    named = {name: array for name, array in images.items() if _split_in(name)}
    return {name: _as_pixels(array) for name, array in (named or images).items()}


def _unpacked(data: bytes) -> bytes:
    unpack = next((unpack for magic, unpack in _UNPACK.items() if data.startswith(magic)), None)
    if not unpack:
        return data
    unpacked = bytearray()
    try:
        with unpack(io.BytesIO(data)) as file:
            while piece := file.read(_CHUNK_BYTES):
                unpacked += piece
                if len(unpacked) > MAX_FILE_BYTES:
                    raise FileFault(f"unpacks to more than {MAX_FILE_BYTES} bytes")
    except (OSError, EOFError, lzma.LZMAError, zlib.error, MemoryError) as error:
        raise FileFault(f"cannot be unpacked: {error}") from error
    return bytes(unpacked)


def _parse_text(data: bytes) -> np.ndarray:
    rows = []
    data = data.removeprefix(codecs.BOM_UTF8)
    for number, line in enumerate(io.BytesIO(data), start=1):
        if number > _MAX_IMAGES:
            raise FileFault(f"has more than {_MAX_IMAGES} lines")
        line = _ZEROS.sub(b"", line.replace(b",", b" "))
        digits = line.translate(None, b" \t\r\n")
        if not digits:
            continue
        row = np.frombuffer(digits, np.uint8) - ord("0")
        if row.max() > 1 or re.search(rb"\S\S", line):
            raise FileFault(f"line {number} holds something other than 0 and 1 (nor is it IDX)")
        rows.append(row)
        if len(row) != len(rows[0]):
            raise FileFault(f"line {number} has {len(row)} pixels instead of {len(rows[0])}")
    if not rows:
        raise FileFault("holds no images")
    return np.stack(rows)


def _parse_idx(data: bytes) -> np.ndarray:
    magic, *shape = struct.unpack(">4I", data[:16].ljust(16, b"\0"))
    if magic != _IDX_MAGIC:
        raise FileFault(f"begins with {magic:#010x} instead of {_IDX_MAGIC:#010x} (images)")
    if (size := math.prod(shape)) != len(data) - 16:
        said = "{} of {} x {}".format(*shape)
        raise FileFault(f"has {len(data) - 16} bytes of pixels instead of {size} ({said})")
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def _parse_hdf5(data: bytes) -> dict[str, np.ndarray]:
    # In a process of its own, which what is damaged can end, with a limit to what can be unpacked.
    context, limit = multiprocessing.get_context("spawn"), (8 * MAX_FILE_BYTES,)
    try:
        with ProcessPoolExecutor(1, context, _limit_memory, limit) as executor:
            return executor.submit(_read_hdf5, data).result()
    except BrokenProcessPool as error:
        raise FileFault("not a readable HDF5 file (the HDF5 library crashes)") from error


def _limit_memory(num_bytes: int) -> None:
    with contextlib.suppress(ImportError, ValueError):  # where there is no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


def _read_hdf5(data: bytes) -> dict[str, np.ndarray]:
    try:
        with h5py.File(io.BytesIO(data)) as file:
            names = [name for name in _datasets(file) if not _NO_IMAGES.search(name.lower())]
            arrays = {name: read_numbers("HDF5", file, name) for name in names}
            if "features" not in arrays or "split" not in file.attrs:
                return arrays
            # As Fuel has it: one array, and a table of which rows are which split's.
            return {
                row["split"].decode(): arrays["features"][row["start"] : row["stop"]]
                for row in file.attrs["split"]
                if row["source"] == b"features"
            }
    except Exception as error:  # whatever h5py and NumPy make of a damaged file
        reason = str(error).encode("unicode_escape").decode()[:200]
        raise FileFault(f"not a readable HDF5 file ({reason})") from error


def _datasets(file: h5py.File) -> Iterator[str]:
    """Names of datasets, perhaps in a group for each split."""
    for name in file:
        is_here = isinstance(file.get(name, getlink=True), h5py.HardLink)
        group = file.get(name) if is_here else None
        inside = list(group) if isinstance(group, h5py.Group) else []
        yield from [f"{name}/{each}" for each in inside] or [name]


def _as_pixels(array: np.ndarray) -> np.ndarray:
    """Images of any of the usual shapes and types as uint8 [num, height, width]."""
    num, *sizes = array.shape
    if len(sizes) == 3:  # with an axis of channels
        sizes = [*sizes[:2]] if sizes[2] == 1 else sizes[sizes[0] == 1 :]
    if len(sizes) == 1 and math.isqrt(sizes[0]) ** 2 == sizes[0]:
        sizes = 2 * [math.isqrt(sizes[0])]
    good = len(sizes) == 2 and num and 1 <= min(sizes) <= max(sizes) <= _MAX_SIDE
    if not good or array.dtype.kind not in "fiub":
        raise FileFault(
            f"holds {array.dtype} of shape {list(array.shape)}; accepted: one or more images of "
            f"height x width or side * side pixels, at most {_MAX_SIDE} x {_MAX_SIDE}"
        )
    if array.dtype.kind == "f" and np.modf(array)[0].any():
        grey = array * float(_GREY_LEVELS)
        array = np.rint(grey)
        array[~(np.abs(grey - array) < _ROUNDING)] = -1
    with np.errstate(invalid="ignore"):
        pixels = array.astype(np.uint8)
    if (pixels != array).any():
        raise FileFault("holds pixels that are neither 0, ..., 255 nor these divided by 255")
    return pixels.reshape(num, *sizes)


# ---------------------------------------------------------------------------------- sources


def _split_in(name: str) -> str:
    """The split that the name of a file or array tells; else an empty text."""
    found = _SPLIT.search(name.lower())
    return SPLITS[found.lastindex - 1] if found else ""


def _dataset_in(path: Path) -> str:
    """The data set that the names of a file and the folders around it tell, nearest first."""
    for name in reversed(path.parts):
        if found := _DATASET.search(name.lower()):
            emnist, part, fashion, other = found.groups()
            return "fashion-mnist" if fashion else other or "-".join(filter(None, (emnist, part)))
    return "mnist"


def find_sources(source: Path, dataset: str | None, grey: bool) -> tuple[str, str, list[Path]]:
    """Finds the files of one data set, all of one kind: if `grey`, of one of grey values.

    Returns:
        The name of the data set, the kind, and the files, those of train first.

    Raises:
        UserError: there are none, or several data sets.
    """
    root = source.parent if source.is_file() else source
    names = [source.name] if source.is_file() else raw_files.find_files(source, _SHOWN, _FILES)
    found: dict[tuple[str, str], list[Path]] = {}
    for path in map(PurePath, names):
        lower = path.name.lower()
        kind = next(kind for kind, regex in _KINDS.items() if re.search(regex, lower))
        # Outside of the folder, at most two names of folders tell something.
        around = PurePath(*root.resolve().parts[-2:], path)
        is_split = kind != "IDX" or _split_in(lower)
        if is_split and not _NO_IMAGES.search(lower) and not (grey and kind not in _GREY):
            found.setdefault((_dataset_in(around), kind), []).append(root / path)
    there = sorted({name for name, _ in found})
    if not there or dataset not in (None, *there):
        wanted = f" of {dataset}" if dataset else ""
        wanted += " of grey values, which --binarization is for" if grey else ""
        accepted = ", ".join(_SHOWN)
        raise UserError(f"--source: {source} has no images{wanted}; accepted: {accepted}")
    if not dataset and len(there) > 1:
        raise UserError(f"--source: {source} holds {', '.join(there)}; accepted: one, as --dataset")
    name = dataset or there[0]
    kind = next(kind for kind in _KINDS if (name, kind) in found)
    order = (*SPLITS, "")
    paths = sorted(found[name, kind], key=lambda path: order.index(_split_in(path.name)))
    return name, kind, paths


def read(
    source: Path, dataset: str | None, grey: bool, workers: int
) -> tuple[str, dict[str, np.ndarray], str]:
    """Reads the files that `find_sources` finds.

    Returns:
        The name of the data set; by split, uint8 [num, height, width]; a checksum of the files.

    Raises:
        UserError: a file is missing or bad, files disagree, or images differ in size.
    """
    name, kind, paths = find_sources(source, dataset, grey)
    raw = raw_files.read_files(
        functools.partial(raw_files.parse_file, parse=parse),
        {str(path): path for path in paths},
        workers,
        digest_name=lambda path: _split_in(Path(path).name) or "images",
    )
    for path, fault in raw.faults.items():
        raise UserError(f"{path}: {fault}")
    images: dict[str, np.ndarray] = {}
    for path, content in raw.by_name.items():
        for array, pixels in content.items():
            split = _split_in(array) or _split_in(Path(path).name)
            # The same file may lie there twice, packed and not.
            if split and not np.array_equal(images.setdefault(split, pixels), pixels):
                raise UserError(f"{path}: its images of {split} differ from others of {name}")
    needed = SPLITS if "text" in kind else ("train", "test")
    if lacks := " and ".join(split for split in needed if split not in images):
        raise UserError(f"--source: {source}: {name} ({kind}) has no images for {lacks}")
    images = {split: images[split] for split in SPLITS if split in images}
    sizes = {split: "{} x {}".format(*part.shape[1:]) for split, part in images.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{split} {size}" for split, size in sizes.items())
        raise UserError(f"--source: {source}: images differ in size: {shown}")
    grey = [split for split, part in images.items() if part.max() > 1]
    if 0 < len(grey) < len(images):
        raise UserError(
            f"--source: {source}: images of {' and '.join(grey)} have grey values, others only 0 "
            "and 1; accepted: one kind"
        )
    if name.startswith("emnist") and _lie(images["train"]):
        print(f"{name}: images lie on their sides, and are turned upright")
        images = {split: part.swapaxes(1, 2) for split, part in images.items()}
    if name == "mnist" and len(images["train"]) == COMPLETE[name][0]:
        mean = images["train"].mean() / _GREY_LEVELS
        name = next((other for other, x in _MEANS.items() if abs(mean - x) < 1e-4), name)
    return name, images, raw.source_sha256


def _lie(images: np.ndarray) -> bool:
    """Whether characters lie on their sides, as in EMNIST's files: they are wider than high."""
    ink = images.mean(axis=0) + 1e-9  # [height, width]
    high, wide = (np.cov(np.arange(len(x)), aweights=x) for x in (ink.sum(axis=1), ink.sum(axis=0)))
    return high < 0.95 * wide


def download() -> tuple[str, dict[str, np.ndarray], str]:
    """As `read`, of MNIST as `keras.datasets` downloads it (checked by its checksum there)."""
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
    images = {"train": train, "test": test}
    sums = {split: hashlib.sha256(pixels.tobytes()).hexdigest() for split, pixels in images.items()}
    return "mnist", images, raw_files.checksum_of(sums.items())


# ------------------------------------------------------------------------------ binarization


def binarize(grey: np.ndarray, binarization: str, seed: int, split: str) -> np.ndarray:
    """Makes grey values [num, height, width] what the records hold.

    Returns:
        0 and 1, by draws of `seed` and `split`; of train with "dynamic" the probabilities of 1.
    """
    if binarization == "threshold":
        return grey > _GREY_LEVELS // 2
    if binarization == "dynamic" and split == "train":
        return grey.astype(np.float32) / _GREY_LEVELS
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    # 1 with the probability grey / 255, exactly: of 0, ..., 254 as many are below as it says.
    return rng.integers(0, _GREY_LEVELS, grey.shape, dtype=np.uint8) < grey


def _ignored(arguments: Mapping[str, Any]) -> dict[str, str]:
    if arguments["binarization"] == "threshold":
        return {"seed": "with --binarization=threshold, which draws nothing"}
    return {} if arguments["source"] else {"dataset": "without --source: MNIST is downloaded"}


@command.preparation(
    "Folder (or file of arrays) with MNIST, Fashion-MNIST, KMNIST, QMNIST, EMNIST or binarized "
    "MNIST; without it MNIST is downloaded (keras.datasets).",
    _ignored,
    dataset=Flag("Of several in --source, the one to read.", COMPLETE),
    binarization=Flag(
        "Of grey values: fixed: pixels are drawn once; dynamic: in training anew each time; "
        "threshold: 1 above 127. Default: fixed; some files are binarized already.",
        BINARIZATIONS,
    ),
    num_valid=Flag(
        f"How many of the last training images are valid, where no others are; else {NUM_VALID}."
    ),
    seed=Flag("Seed of the draws; else 0.", low=0),
)
def prepare(
    source: Path | None,
    out: Path,
    *,
    dataset: str | None = None,
    binarization: str | None = None,
    num_valid: int | None = None,
    seed: int | None = None,
    workers: int = 1,
    command: str,
) -> None:
    """Prepares `source`; the arguments are the flags of these names."""
    is_grey = binarization is not None
    name, parts, sha256 = read(source, dataset, is_grey, workers) if source else download()
    train, valid = parts["train"], parts.get("valid")
    if valid is None:
        num_valid = NUM_VALID if num_valid is None else num_valid
        if not 1 <= num_valid < len(train):
            raise UserError(f"--num_valid={num_valid}: accepted: 1 to {len(train) - 1}")
        parts = {"train": train[:-num_valid], "valid": train[-num_valid:], "test": parts["test"]}
    elif num_valid in (None, len(valid)):
        num_valid = NUM_VALID  # of the complete files
    else:
        raise UserError(f"--num_valid={num_valid}: {source} has {len(valid)} valid images")
    if max(part.max() for part in parts.values()) > 1:
        binarization = binarization or "fixed"
        parts = {split: binarize(x, binarization, seed or 0, split) for split, x in parts.items()}
    else:
        for flag, value in (("binarization", binarization), ("seed", seed)):
            if value is not None:
                raise UserError(f"--{flag} means nothing with {source}: it is binarized already")
        test = hashlib.sha256(np.packbits(parts["test"])).hexdigest()
        binarization = "larochelle" if test == _LAROCHELLES_TEST else "given"
    height, width = train.shape[1:]
    records = import_records()

    def sequences(split: str) -> Iterator[tuple[str, np.ndarray]]:
        images, what = parts[split], f"writing {split}"
        shown = raw_files.with_progress(images, len(images), what, "images")
        for number, image in enumerate(shown):
            yield f"{split}-{number:05d}", image.reshape(-1, 1)

    card = records.write_dataset(
        out,
        name=name,
        features=(Feature("pixel", "binary", "none", "1 where there is ink"),),
        splits={split: sequences(split) for split in parts},
        normalization=Normalization("none", (0.0,), (1.0,)),
        source_sha256=sha256,
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
    if name in COMPLETE:
        num_train, num_test = COMPLETE[name]
        counts = (num_train - num_valid, num_valid, num_test)
        sizes = {split: (n, n * 28 * 28) for split, n in zip(SPLITS, counts, strict=True)}
        raw_files.print_sizes_check(card.splits, sizes)
    print(f"wrote {out} ({name}, binarization: {binarization})")


if __name__ == "__main__":
    command.run(prepare)
