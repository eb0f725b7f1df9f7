"""Arrays of pen steps, as `.npz` and `.npy` files hold them -> lines.

A sequence is [T, 3] of dx, dy and pen (1 on the last point of a stroke), of which the pen may come
first (Graves), or [T, 5] of dx, dy and three states of the pen (sketch-rnn). An array is one
sequence, [N, T, ...] numbers, of which rows of zeros at the end are padding, or a row of sequences.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from data_prep.common import handwriting
from data_prep.common.handwriting import Line
from data_prep.common.raw_files import FileFault

PENS = ("first", "last")
_SKETCH_SPLITS = {"train", "valid", "test"}  # arrays of sketch-rnn's and quickdraw's files
_MIN_STEPS = 50  # below which nothing is said of how handwriting looks
_MAX_LOOKED_AT = 1000  # sequences, for that


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
    """Makes the lines of the arrays of a file, by name (of the third of an array: NAME/000002).

    In a file that names its arrays (`.npz`) dy grows upwards.

    Raises:
        FileFault: it has no or too many sequences, two of one name, or leaves open which way y
            grows or where the pen is.
    """
    sequences: dict[str, np.ndarray] = {}
    owners: dict[str, str] = {}  # the array that a sequence is of
    padding = 0
    for name, array in arrays.items():
        named = {name: array}
        is_stack = array.ndim == 3 and _is_table(array)
        if is_stack or (array.ndim == 1 and (array.dtype.hasobject or not len(array))):
            if len(array) + len(sequences) > handwriting.MAX_SEQUENCES:
                raise FileFault(f"holds more than {handwriting.MAX_SEQUENCES} sequences")
            if is_stack:
                padded, array = array, [_unpadded(steps) for steps in array]
                padding += padded.shape[1] * len(array) - sum(map(len, array))
            prefix = f"{name}/" if name else ""
            named = {f"{prefix}{index:06d}": steps for index, steps in enumerate(array)}
        both = sequences.keys() & named.keys()
        if both:
            raise FileFault(f"holds two sequences of the name {min(both)!r}")
        sequences |= named
        owners |= dict.fromkeys(named, name)
    if not sequences:
        raise FileFault("holds no arrays")
    proper = {n: x for n, x in sequences.items() if x.ndim == 2 and _is_table(x) and len(x)}
    steps = list(proper.values())
    is_split = has_names and "train" in arrays and _SKETCH_SPLITS >= {owners[n] for n in proper}
    # Sketch-rnn's dy grows downwards, and the first row is where the first stroke begins.
    is_sketch = any(x.shape[1] == 5 for x in steps) or (
        is_split and all(x.dtype.kind in "iu" for x in steps)
    )
    y_axis = options.y_axis or ("down" if is_sketch else "up" if has_names else None)
    if y_axis is None and steps:
        raise FileFault("does not say which way y grows; tell by --y_axis=up or --y_axis=down")
    pen_first = (options.pen or _find_pen(steps)) == "first"
    lines = Sequences()
    notes = []
    if is_sketch and steps:
        move = "a move at the beginning" if options.offsets else "coordinates"
        notes.append(f"read like sketch-rnn's files: y {y_axis}wards, {move}")
    elif is_split and steps and not options.y_axis:
        notes.append("read with y upwards; sketch-rnn's grows downwards: --y_axis=down")
    if padding:
        notes.append(f"{padding} rows of zeros at the ends of sequences are left out")
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
    notes.extend(_doubts([line.offsets for line in lines.values() if not isinstance(line, str)]))
    lines.note = "; ".join(notes)
    return lines


def _is_table(array: np.ndarray) -> bool:
    return array.shape[-1] in (3, 5) and array.dtype.kind in "fiub"


def _unpadded(steps: np.ndarray) -> np.ndarray:
    """Without the rows of zeros at its end."""
    used = np.flatnonzero((steps != 0).any(axis=1))
    return steps[: used[-1] + 1 if len(used) else 0]


def _doubts(offsets: list[np.ndarray]) -> Iterator[str]:
    """What is unlike handwriting in offsets [T, 3], of the first of them together."""
    offsets = offsets[:_MAX_LOOKED_AT]
    if sum(map(len, offsets)) < _MIN_STEPS:
        return
    moves = np.concatenate([x[:, :2] for x in offsets]).astype(np.float64)
    if np.mean([x[:, 2].mean() for x in offsets]) > 0.5:
        yield "most steps end a stroke, as if 1 meant that the pen is down"
    # Coordinates are far larger than the differences of neighbours.
    changes = np.concatenate([np.diff(x[:, :2].astype(np.float64), axis=0) for x in offsets])
    if np.median(np.abs(moves).max(axis=1)) > 8 * np.median(np.abs(changes).max(axis=1)):
        yield "steps are long and alike, as if they were coordinates (--offsets=false)"


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
