"""Handwriting in HDF5 files, in raw units: what `stcn_tf.sample` writes and continues.

The root of a file holds::

    strokes             float32 [num, time, 3]: dx, dy (upwards), pen (1 on a stroke's last point)
    lengths             int32 [num]: steps of each sequence; `strokes` is 0 beyond them
    beginning_lengths   int32 [num]: how many of its first steps were given, not generated
    attributes          format_version 1, features (dx, dy, pen), units (one for each feature),
                        and whatever the writer adds

To be read, a file needs `strokes` alone, as numbers of any type; `lengths` are all `time` where
they are left out. Strokes of one's own are written with::

    with h5py.File("mine.h5", "w") as file:
        file["strokes"] = strokes
        file["lengths"] = lengths
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from stcn_tf.errors import UserError
from stcn_tf.files import replacing_file

FORMAT_VERSION = 1
FEATURES = ("dx", "dy", "pen")


def write_strokes(
    path: str | os.PathLike,
    sequences: Sequence[np.ndarray],
    units: Sequence[str],
    beginning_lengths: Sequence[int],
    attributes: Mapping[str, str | int | float | bool] | None = None,
) -> None:
    """Writes a file, whole or not at all; the same arguments give the same bytes.

    Args:
        path: the file; an existing one is replaced.
        sequences: [time, 3] each, raw units.
        units: of dx, dy and pen.
        beginning_lengths: for each sequence the number of given steps.
        attributes: how the strokes were made.

    Raises:
        UserError: the file cannot be written.
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    strokes = np.zeros((len(sequences), lengths.max(), len(FEATURES)), np.float32)
    for row, sequence in zip(strokes, sequences, strict=True):
        row[: len(sequence)] = sequence
    try:
        with replacing_file(path) as partial, h5py.File(partial, "w") as file:
            file.create_dataset("strokes", data=strokes, compression="gzip", shuffle=True)
            file["lengths"] = lengths
            file["beginning_lengths"] = np.array(beginning_lengths, np.int32)
            file.attrs["format_version"] = FORMAT_VERSION
            file.attrs["features"] = list(FEATURES)
            file.attrs["units"] = list(units)
            file.attrs.update(attributes or {})
    except OSError as error:  # that of h5py tells no file name
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be written ({reason})") from error


def read_strokes(path: str | os.PathLike, units: Sequence[str]) -> list[np.ndarray]:
    """Reads the sequences of a file.

    Args:
        path: the file.
        units: the units that are wanted; a file that names its units must name these.

    Returns:
        [time, 3] float32 each, raw units.

    Raises:
        UserError: there is no such file, or it does not hold what is described above.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; an HDF5 file with strokes is accepted")
    try:
        with h5py.File(path, "r") as file:
            _check_attributes(path, file, units)
            strokes = _numbers(path, file, "strokes")
            lengths = _numbers(path, file, "lengths") if "lengths" in file else None
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises on damaged files
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable HDF5 file ({reason})") from error
    if strokes.ndim != 3 or strokes.shape[2] != len(FEATURES) or 0 in strokes.shape:
        raise UserError(
            f"{path}: strokes has the shape {list(strokes.shape)}; accepted: [num, time, 3] "
            f"({', '.join(FEATURES)})"
        )
    with np.errstate(over="ignore"):  # becomes infinite, which is told below
        strokes = strokes.astype(np.float32)
    if lengths is None:
        lengths = np.full(len(strokes), strokes.shape[1])
    _check_lengths(path, lengths, strokes)
    sequences = [row[:length] for row, length in zip(strokes, lengths.astype(int), strict=True)]
    for index, sequence in enumerate(sequences):
        _check_sequence(f"{path}: sequence {index}", sequence)
    return sequences


def _check_attributes(path: Path, file: h5py.File, units: Sequence[str]) -> None:
    accepted = {"format_version": [FORMAT_VERSION], "features": FEATURES, "units": units}
    for name, wanted in accepted.items():
        found = np.ravel(file.attrs.get(name, wanted)).tolist()
        if found != list(wanted):
            raise UserError(
                f"{path}: its {name} is {', '.join(map(str, found))}; accepted: "
                f"{', '.join(map(str, wanted))}"
            )


def _numbers(path: Path, file: h5py.File, name: str) -> np.ndarray:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{path}: has no dataset {name!r}, only {', '.join(file) or 'nothing'}")
    if dataset.dtype.kind not in "fiub" or dataset.shape is None:
        raise UserError(f"{path}: {name} holds {dataset.dtype}; accepted: numbers")
    return dataset[()]


def _check_lengths(path: Path, lengths: np.ndarray, strokes: np.ndarray) -> None:
    if lengths.shape != strokes.shape[:1]:
        raise UserError(
            f"{path}: lengths has the shape {list(lengths.shape)}; accepted: "
            f"{list(strokes.shape[:1])}, one for each sequence of strokes"
        )
    good = (lengths >= 1) & (lengths <= strokes.shape[1]) & (lengths == np.floor(lengths))
    if not good.all():
        wrong = lengths[np.argmin(good)]
        raise UserError(
            f"{path}: lengths holds {wrong}; accepted: whole numbers from 1 to {strokes.shape[1]}"
        )


def _check_sequence(where: str, sequence: np.ndarray) -> None:
    finite = np.isfinite(sequence).all(axis=1)
    if not finite.all():
        raise UserError(f"{where}: step {np.argmin(finite)} holds a value that is not finite")
    pen = sequence[:, FEATURES.index("pen")]
    binary = (pen == 0) | (pen == 1)
    if not binary.all():
        step = np.argmin(binary)
        raise UserError(f"{where}: pen is {pen[step]:g} at step {step}; accepted: 0 and 1")
