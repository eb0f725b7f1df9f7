"""Arrays of pen steps, as `.npz` and `.npy` files hold them -> lines.

A sequence is [T, 3] of dx, dy and pen (1 on the last point of a stroke), of which the pen may come
first (Graves), or [T, 5] of dx, dy and three states of the pen (sketch-rnn). An array is one
sequence, [N, T, ...] numbers, or a row of sequences.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from data_prep.common import handwriting
from data_prep.common.handwriting import Line
from data_prep.common.raw_files import FileFault

PENS = ("first", "last")
_SKETCH_SPLITS = {"train", "valid", "test"}  # arrays of sketch-rnn's and quickdraw's files


class Options(NamedTuple):
    """What files may leave open, as the flags of these names say it; None: told by the file."""

    y_axis: str | None = None
    pen: str | None = None
    layout: str | None = None
    offsets: bool = True


class Sequences(dict[str, Line | str]):
    """Lines, or what is wrong with them, by name."""

    note = ""  # what has been assumed


def parse_arrays(
    arrays: Mapping[str, np.ndarray], options: Options, has_names: bool = True
) -> Sequences:
    """Makes the lines of the arrays of a file.

    Args:
        arrays: by name.
        options: what the flags say.
        has_names: whether the file names its arrays (`.npz`): dy grows upwards in it.

    Returns:
        For each sequence, by name (of the third of an array: NAME/000002), its line or what is
        wrong with it.

    Raises:
        FileFault: it has no or too many sequences, two of one name, or leaves open which way y
            grows or where the pen is.
    """
    sequences: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        named = {name: array}
        if (array.ndim == 1 and array.dtype.hasobject) or (
            array.ndim == 3 and array.shape[2] in (3, 5) and len(array)
        ):
            if len(array) + len(sequences) > handwriting.MAX_SEQUENCES:
                raise FileFault(f"holds more than {handwriting.MAX_SEQUENCES} sequences")
            prefix = f"{name}/" if name else ""
            named = {f"{prefix}{index:06d}": steps for index, steps in enumerate(array)}
        both = sequences.keys() & named.keys()
        if both:
            raise FileFault(f"holds two sequences of the name {min(both)!r}")
        sequences |= named
    if not sequences:
        raise FileFault("holds no arrays")
    steps = [
        x
        for x in sequences.values()
        if x.ndim == 2 and x.shape[1] in (3, 5) and x.dtype.kind in "fiub" and len(x)
    ]
    # Sketch-rnn's dy grows downwards, and the first row is where the first stroke begins.
    is_sketch = any(x.shape[1] == 5 for x in steps) or (
        has_names
        and {"train"} <= arrays.keys() <= _SKETCH_SPLITS
        and {x.dtype.kind for x in steps} <= {"i"}
    )
    y_axis = options.y_axis or ("down" if is_sketch else "up" if has_names else None)
    if y_axis is None and steps:
        raise FileFault("does not say which way y grows; tell by --y_axis=up or --y_axis=down")
    pen_first = (options.pen or _find_pen(steps)) == "first"
    lines = Sequences()
    if is_sketch and steps:
        move = "a move at the beginning" if options.offsets else "coordinates"
        lines.note = f"read like sketch-rnn's files: y {y_axis}wards, {move}"
    for name, array in sequences.items():
        try:
            array = _stroke_3(array) if array.ndim == 2 and array.shape[1] == 5 else array
            if pen_first and array.ndim == 2 and array.shape[1] == 3:
                array = array[:, [1, 2, 0]]
            lines[name] = handwriting.line_of_steps(array, y_axis == "up")
            if not options.offsets:  # but coordinates, which have been checked now
                moves = np.diff(array[:, :2].astype(np.float64), axis=0)
                array = np.concatenate([moves, array[1:, 2:]], axis=1)
                lines[name] = handwriting.line_of_steps(array, y_axis == "up")
            elif is_sketch:
                lines[name].offsets[0, :2] = 0.0
        except FileFault as fault:
            lines[name] = str(fault)
    return lines


def _find_pen(sequences: list[np.ndarray]) -> str:
    """Where the pen is: in the column of 0 and 1 only."""
    votes = {"first": 0, "last": 0}
    is_open = False
    for steps in sequences:
        if steps.shape[1] == 3:
            first, last = (bool(np.isin(steps[:, column], (0, 1)).all()) for column in (0, 2))
            is_open |= first and last
            votes["first"] += first and not last
            votes["last"] += last and not first
    if is_open and not any(votes.values()):
        raise FileFault(
            "has 0 and 1 in the first and the last column; tell by --pen=first or --pen=last "
            "which is the pen"
        )
    # What fits the lesser part only is a fault of these sequences.
    return "first" if votes["first"] > votes["last"] else "last"


def _stroke_3(steps: np.ndarray) -> np.ndarray:
    """Of dx, dy and the states down, up (a stroke ends here) and end (no more points)."""
    if steps.dtype.kind not in "fiub" or not (
        np.isin(steps[:, 2:], (0, 1)).all() and (steps[:, 2:].sum(axis=1) == 1).all()
    ):
        raise FileFault("has 5 columns, of which the last 3 are not one 1 and 0 else")
    length = int(np.argmax(steps[:, 4])) if steps[:, 4].any() else len(steps)
    return steps[:length, [0, 1, 3]]
