"""Sequences in HDF5 files, in raw units: what `stcn_tf.sample` writes and continues.

The root of a file holds::

    strokes             float32 [num, time, 3]: dx, dy (upwards), pen (1 on a stroke's last point);
                        of audio it is `frames` [num, time, samples], of images `pixels`
                        [num, time, 1], row by row, of anything else `sequences`
    lengths             int32 [num]: steps of each sequence; `strokes` is 0 beyond them
    beginning_lengths   int32 [num]: how many of its first steps were given, not generated
    attributes          format_version 1, features and units (one for each feature), modality,
                        sample_rate_hz of audio, height and width of images, and whatever the writer
                        adds

`stcn_tf.reconstruct` adds arrays of the same shape. To be read, a file needs `strokes` (or what
stands for it) alone, as numbers of any type; `lengths` are all `time` where they are left out.
Strokes of one's own are written with::

    with h5py.File("mine.h5", "w") as file:
        file["strokes"] = strokes
        file["lengths"] = lengths
"""

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stcn_tf.data.card import DatasetCard
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home, replacing_file

FORMAT_VERSION = 1
MOST_VALUES = 2**28  # of what is read: 1 GiB


def write_sequences(
    path: str | os.PathLike,
    card: DatasetCard,
    sequences: Mapping[str, Sequence[np.ndarray]],
    numbers: Mapping[str, Sequence[float]],
    attributes: Mapping[str, str | int | float | bool] | None = None,
) -> None:
    """Writes a file, whole or not at all; the same arguments give the same bytes.

    Args:
        path: the file; an existing one is replaced.
        card: of records like the sequences.
        sequences: by the name of the array, [time, features] each, raw units; those of all arrays
            have the same lengths.
        numbers: by name, one number for each sequence, with its type.
        attributes: how the sequences were made.

    Raises:
        UserError: the file cannot be written.
    """
    lengths = np.array([len(sequence) for sequence in next(iter(sequences.values()))], np.int32)
    content = io.BytesIO()  # HDF5 ends the process where a file cannot be written
    with h5py.File(content, "w") as file:
        for name, rows in sequences.items():
            padded = np.zeros((len(lengths), lengths.max(), card.num_features), np.float32)
            for target, length, row in zip(padded, lengths, rows, strict=True):
                target[:length] = row
            file.create_dataset(name, data=padded, compression="gzip", shuffle=True)
        file["lengths"] = lengths
        for name, values in numbers.items():
            file[name] = values
        file.attrs.update({**_described(card), **(attributes or {})})
    with replacing_file(path) as partial:
        partial.write_bytes(content.getbuffer())


def read_sequences(path: str | os.PathLike, card: DatasetCard, name: str) -> list[np.ndarray]:
    """Reads the sequences of a file.

    Args:
        path: the file.
        card: of records like the sequences that are wanted; what the file says about its own must
            agree.
        name: of the array.

    Returns:
        [time, features] float32 each, raw units.

    Raises:
        UserError: there is no such file, or it does not hold what is described above.
    """
    path, accepted = Path(expand_home(path)), f"an HDF5 file with {name}, as stcn_tf.sample writes"
    if not path.is_file():
        raise UserError(f"{path}: no such file; accepted: {accepted}")
    try:
        with h5py.File(path, "r") as file:
            _check_attributes(path, file, card)
            padded = read_numbers(path, file, name)
            lengths = read_numbers(path, file, "lengths") if "lengths" in file else None
    except UserError:
        raise
    # What h5py raises on damaged files, some of which are of types that numpy has not.
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: not a readable HDF5 file ({reason}); accepted: {accepted}"
        ) from error
    if padded.ndim != 3 or padded.shape[2] != card.num_features or 0 in padded.shape:
        raise UserError(
            f"{path}: {name} has the shape {list(padded.shape)}; accepted: [num, time, "
            f"{card.num_features}] ({_brief([feature.name for feature in card.features])})"
        )
    with np.errstate(over="ignore"):  # becomes infinite, which is told below
        padded = padded.astype(np.float32)
    if lengths is None:
        lengths = np.full(len(padded), padded.shape[1])
    _check_lengths(path, lengths, padded, name)
    sequences = [row[:length] for row, length in zip(padded, lengths.astype(int), strict=True)]
    for index, sequence in enumerate(sequences):
        _check_sequence(f"{path}: sequence {index}", sequence, card)
    return sequences


def _described(card: DatasetCard) -> dict[str, Any]:
    """What the attributes say about the sequences."""
    modality = card.modality
    sizes = {name: getattr(modality, name) for name in ("sample_rate_hz", "height", "width")}
    return {
        "format_version": FORMAT_VERSION,
        "features": [feature.name for feature in card.features],
        "units": [feature.unit for feature in card.features],
        "modality": modality.kind,
        **{name: value for name, value in sizes.items() if value},
    }


def _check_attributes(path: Path, file: h5py.File, card: DatasetCard) -> None:
    for name, wanted in _described(card).items():
        wanted = np.ravel(wanted).tolist()
        if name not in file.attrs:
            continue
        size = math.prod(file.attrs.get_id(name).shape)
        found = np.ravel(file.attrs[name]).tolist() if size <= len(wanted) else [f"{size} values"]
        if found != wanted:
            raise UserError(f"{path}: its {name} is {_brief(found)}; accepted: {_brief(wanted)}")


def _brief(values: Sequence[Any]) -> str:
    """In a message, the many samples of a frame of audio are not all named."""
    texts = [str(value) for value in values]
    return ", ".join(texts if len(texts) <= 6 else [*texts[:3], "...", texts[-1]])


def read_numbers(path: str | Path, file: h5py.File, name: str) -> np.ndarray:
    """Reads a dataset of an HDF5 file that is not trusted.

    Args:
        path: what messages call the file.
        file: the file.
        name: of the dataset.

    Raises:
        UserError: it is none of numbers, lies elsewhere, or is too large; or as h5py raises.
    """
    # Links to other files are not followed: who gives a file means that one.
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise UserError(f"{path}: {name} is a link to another file, which is not followed")
    dataset = file.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{path}: has no dataset {name!r}, only {_brief(file) or 'nothing'}")
    if dataset.dtype.kind not in "fiub" or dataset.shape is None:
        raise UserError(f"{path}: {name} holds {dataset.dtype}; accepted: numbers")
    if dataset.is_virtual or dataset.external:
        raise UserError(f"{path}: {name} lies in other files, which are not read")
    # A few bytes can stand for as many values as one likes, and a chunk is read as a whole.
    for what, shape in (("shape", dataset.shape), ("chunks", dataset.chunks or ())):
        if math.prod(shape) > MOST_VALUES:
            raise UserError(
                f"{path}: {name} has the {what} {_brief(shape)}; accepted: {MOST_VALUES:,} values "
                "at most"
            )
    return dataset[()]


def _check_lengths(path: Path, lengths: np.ndarray, padded: np.ndarray, name: str) -> None:
    if lengths.shape != padded.shape[:1]:
        raise UserError(
            f"{path}: lengths has the shape {list(lengths.shape)}; accepted: "
            f"{list(padded.shape[:1])}, one for each sequence of {name}"
        )
    good = (lengths >= 1) & (lengths <= padded.shape[1]) & (lengths == np.floor(lengths))
    if not good.all():
        wrong = lengths[np.argmin(good)]
        raise UserError(
            f"{path}: lengths holds {wrong}; accepted: whole numbers from 1 to {padded.shape[1]}"
        )


def _check_sequence(where: str, sequence: np.ndarray, card: DatasetCard) -> None:
    finite = np.isfinite(sequence).all(axis=1)
    if not finite.all():
        raise UserError(f"{where}: step {np.argmin(finite)} holds a value that is not finite")
    for feature, channel in zip(card.features, sequence.T, strict=True):
        binary = (channel == 0) | (channel == 1)
        if feature.kind == "binary" and not binary.all():
            step = np.argmin(binary)
            raise UserError(
                f"{where}: {feature.name} is {channel[step]:g} at step {step}; accepted: 0 and 1"
            )
