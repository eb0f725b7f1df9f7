"""Anyone's own handwriting -> records of dx, dy and pen.

    python -m data_prep.ink --source=FOLDER --out=RECORDS      # .json and .inkml files
    python -m data_prep.ink --source=FILE.npz --out=RECORDS

Each file of the folder (and of those below it) is one sequence:

* JSON: {"strokes": [[[x, y], ...], ...], "y_axis": "down"}: strokes of points in the order of
  writing; y grows "down" (the default, as on screens) or "up". What else an object or a point holds
  is ignored.
* InkML (W3C): each `trace` is a stroke, its points separated by commas. X and Y are found by the
  `traceFormat`, or come first; y grows downwards. Pen-up traces are left out. Differences and
  wildcards in place of coordinates, and continued traces, are refused.

An `.npz` file (`numpy.savez`) holds one [T, 3] array of dx, dy (upwards) and pen (1 on the last
point of a stroke, else 0) for each sequence, or arrays of such arrays.

Splits: `--split`. Features and normalisation: `data_prep.common.handwriting`. Files are not
trusted: a document type declaration in XML is refused, and so is a pickle with anything but arrays.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.common import command, handwriting, raw_files, splitting
from data_prep.common.handwriting import MAX_COORDINATE, Line, RawSplit
from data_prep.common.npz import read_npz
from data_prep.common.raw_files import FileFault
from data_prep.common.xml_files import parse_xml
from stcn_tf.support.errors import UserError

ENDINGS = (".json", ".inkml")

_MAX_DEPTH = 100  # of InkML elements


# ---------------------------------------------------------------------------------- parsing


def parse_json(data: bytes) -> Line:
    """Parses a sequence in JSON.

    Args:
        data: the file's bytes.

    Returns:
        The line.

    Raises:
        FileFault: it is not as the module docstring says.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileFault(f"not JSON ({error})") from error
    strokes = content.get("strokes") if isinstance(content, dict) else None
    if not isinstance(strokes, list):
        raise FileFault('not an object with "strokes", a list')
    y_axis = content.get("y_axis", "down")
    if y_axis not in ("down", "up"):
        raise FileFault(f"y_axis is {str(y_axis)[:20]!r}; accepted: down, up")
    points, ends = [], []
    for number, stroke in enumerate(strokes, start=1):
        if not isinstance(stroke, list):
            raise FileFault(f"stroke {number} is no list of points")
        for index, point in enumerate(stroke, start=1):
            where = f"stroke {number}, point {index}"
            if not isinstance(point, list) or len(point) < 2:
                raise FileFault(f"{where} is not [x, y]")
            points.append([_coordinate(value, where) for value in point[:2]])
        _end_stroke(points, ends)
    return _line(points, ends, y_points_up=y_axis == "up")


class _Traces:
    """XMLParser target: collects the points of the traces of an InkML document."""

    def __init__(self) -> None:
        self.points: list[list[float]] = []
        self.ends: list[int] = []
        self._channels: list[str] = []
        self._formats = 0
        self._open: list[str] = []  # elements around the current one, innermost last
        self._text: list[str] | None = None  # of the trace that is being read

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition("}")[2]
        if not self._open and name != "ink":
            raise FileFault(f"its root element is {name[:20]!r}; accepted: ink")
        if name == "traceFormat":
            self._formats += 1
            if self._formats > 1:
                raise FileFault("has more than one traceFormat")
            if self.ends:
                raise FileFault("has a traceFormat after a trace")
        elif name == "channel" and "traceFormat" in self._open:
            self._channels.append(attributes.get("name", "").upper())
        elif name == "trace" and "trace" in self._open:
            raise FileFault(f"stroke {len(self.ends) + 1} contains another trace")
        elif name == "trace" and "definitions" not in self._open:
            if "continuation" in attributes:
                raise FileFault(f"stroke {len(self.ends) + 1} is a continued trace")
            if attributes.get("type", "penDown") != "penUp":
                self._text = []
        self._open.append(name)
        if len(self._open) > _MAX_DEPTH:
            raise FileFault(f"nests more than {_MAX_DEPTH} elements")

    def data(self, text: str) -> None:
        if self._text is not None and self._open[-1] == "trace":
            self._text.append(text)

    def end(self, tag: str) -> None:
        name = self._open.pop()
        if name != "trace" or self._text is None:
            return
        channels = self._channels or ["X", "Y"]
        if "X" not in channels or "Y" not in channels:
            there = ", ".join(channels)
            raise FileFault(f"its traceFormat has no X and Y, only {there[:100]!r}")
        x, y = channels.index("X"), channels.index("Y")
        text, self._text = "".join(self._text), None
        for index, point in enumerate(text.split(",") if text.strip() else [], start=1):
            where = f"stroke {len(self.ends) + 1}, point {index}"
            values = point.split()
            if len(values) <= max(x, y):
                raise FileFault(f"{where} has {len(values)} values, too few for X and Y")
            self.points.append([_coordinate(values[i], where) for i in (x, y)])
        _end_stroke(self.points, self.ends)

    def close(self) -> "_Traces":
        return self


def parse_inkml(data: bytes) -> Line:
    """Parses a sequence in InkML.

    Args:
        data: the file's bytes.

    Returns:
        The line.

    Raises:
        FileFault: it is not as the module docstring says.
    """
    traces = parse_xml(data, _Traces())
    return _line(traces.points, traces.ends, y_points_up=False)


def parse_npz(data: bytes) -> dict[str, Line | str]:
    """Parses the sequences of an `.npz` file.

    Args:
        data: the file's bytes.

    Returns:
        For each sequence, by name, its line or what is wrong with it.

    Raises:
        FileFault: it is no `.npz` file of arrays, or an empty one.
    """
    sequences: dict[str, np.ndarray] = {}
    for name, array in read_npz(data).items():
        if array.ndim == 1 and array.dtype.hasobject:
            named = {f"{name}/{index:06d}": steps for index, steps in enumerate(array)}
        else:
            named = {name: array}
        both = sequences.keys() & named.keys()
        if both:
            raise FileFault(f"holds two sequences of the name {min(both)!r}")
        sequences |= named
    if not sequences:
        raise FileFault("holds no arrays")
    lines: dict[str, Line | str] = {}
    for name, steps in sequences.items():
        try:
            lines[name] = handwriting.line_of_steps(steps, y_points_up=True)
        except FileFault as fault:
            lines[name] = str(fault)
    return lines


def parse(data: bytes) -> Line:
    """Parses a `.json` or `.inkml` file, which its first character tells apart."""
    is_xml = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<"
    return parse_inkml(data) if is_xml else parse_json(data)


def _coordinate(value: Any, where: str) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= MAX_COORDINATE:  # nor NaN
        raise FileFault(f"{where} has {str(value)[:20]!r}, which is no coordinate")
    return number


def _end_stroke(points: list[list[float]], ends: list[int]) -> None:
    if len(points) == (ends[-1] if ends else 0):
        raise FileFault(f"stroke {len(ends) + 1} is empty")
    ends.append(len(points))


def _line(points: list[list[float]], ends: list[int], y_points_up: bool) -> Line:
    return handwriting.line_of_points(
        np.asarray(points, np.float64).reshape(-1, 2), np.asarray(ends, np.int64), y_points_up
    )


# ---------------------------------------------------------------------------------- command


def read(
    source: Path, workers: int, digest: raw_files.Digest
) -> Iterator[tuple[str, Line | None, str]]:
    """Reads all sequences.

    Args:
        source: as `--source`.
        workers: number of parsing processes.
        digest: of what was read; added to.

    Yields:
        Of each sequence its name and its line, or None and what is wrong with it.

    Raises:
        UserError: `source` is missing, or has no sequences.
    """
    if source.is_file():
        result = raw_files.parse_file(source, parse_npz)
        if result.fault:
            raise UserError(f"--source: {source}: {result.fault}")
        digest.add("", result.sha256)
        for name, line in sorted(result.content.items()):
            yield (name, None, line) if isinstance(line, str) else (name, line, "")
        return
    names = raw_files.find_files(source, ENDINGS)
    if not names:
        raise UserError(f"--source: {source} has no {' or '.join(ENDINGS)} files")
    parsed = raw_files.parse_files(
        [str(source / name) for name in names], parse, workers, raw_files.MAX_TEXT_BYTES
    )
    with contextlib.closing(parsed):
        for name, result in zip(names, raw_files.with_progress(parsed, len(names)), strict=True):
            if not result.fault:
                digest.add(name, result.sha256)
            yield name, result.content, result.fault


@command.preparation(ignored=splitting.shares_ignored)
def prepare(
    source: Path,
    out: Path,
    *,
    normalization: str = "channel",
    split: str | Path = "random",
    valid_share: float = 0.1,
    test_share: float = 0.0,
    skip_bad: bool = False,
    workers: int = 1,
    command: str,
) -> None:
    """Reads raw files, writes records and card to `out`, and prints what they hold.

    The arguments are the flags of these names.

    Raises:
        UserError: a sequence is bad, a split is wrong or empty, or as `write_dataset`.
    """
    digest = raw_files.Digest()
    lines: dict[str, Line] = {}
    faults: dict[str, str] = {}
    for name, line, fault in read(source, workers, digest):
        if line is None:
            faults[name] = fault
        else:
            lines[name] = line
    if faults and not skip_bad:
        raw_files.refuse(faults, source)
    splits: dict[str, RawSplit] = {}
    # Over all names: what is left out does not move others from one split to another.
    parts = splitting.split_names([*lines, *faults], split, valid_share, test_share)
    for part, names in parts.items():
        splits[part] = RawSplit()
        for name in names:
            if name in lines:
                splits[part].add(name, lines[name])
    handwriting.write_records(
        out,
        splits,
        name="ink",
        unit="unit of the source",
        normalization=normalization,
        source_sha256=digest.hexdigest(),
        command=command,
        extra={"skipped": faults},
    )


def define_flags() -> None:
    """Defines this command's flags."""
    command.define_flags("Folder with .json and .inkml files, or an .npz file.")
    handwriting.define_normalization_flag("channel")
    splitting.define_split_flags()


if __name__ == "__main__":
    command.run(prepare, define_flags)
