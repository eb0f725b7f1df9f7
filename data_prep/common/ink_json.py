"""JSON that canvas, signature and drawing programs write: the strokes of each drawing.

A drawing is {"strokes": [...]} (or "drawing", "ink", "lines"), {"points": [...]}, which is one
stroke, or a list without a wrapper; what else an object holds is ignored, but "y_axis". A file has
one drawing, a list of such objects, or one on each line. A stroke is

* points: [[x, y, ...], ...] or [{"x": x, "y": y, ...}, ...];
* columns: [[x, ...], [y, ...], ...], as quickdraw and Google have it, or {"x": [...], "y": [...]};
* an object that holds its points, {"points": [...]} (or "path", "paths").

Lists of points and of columns are told apart by the drawing as a whole: a stroke has any number of
points, which have the same number of values each; it has the same number of columns as the others.
"""

import contextlib
import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from data_prep.common import handwriting
from data_prep.common.handwriting import MAX_COORDINATE, Line, line_of_strokes
from data_prep.common.raw_files import MAX_TEXT_BYTES, FileFault, check_size

_DRAWINGS = ("strokes", "drawing", "ink", "lines")  # keys of lists of strokes
_OF_COLUMNS = ("drawing", "ink")
_POINTS = ("points", "paths", "path")  # keys of lists of points
_MARKS = ("stroke", "strokeid", "strokeindex", "pen", "pendown", "penup", "down", "up", "end")
_MAX_COLUMNS = 8  # a stroke may have
# Of strokes of one shape: up to so many columns and values of a point leave it open what they are.
_OPEN_COLUMNS = 4
_MAX_VALUES = 6
LAYOUTS = ("points", "columns")
ACCEPTED = 'accepted: {"strokes": [[[x, y], ...], ...]}, {"points": [...]}, and the like'


def parse_json(
    data: bytes, y_axis: str | None = None, layout: str | None = None
) -> dict[str, Line | str]:
    """Parses a file.

    Args:
        data: its bytes.
        y_axis: "up" or "down", where the file says nothing of it; None: down.
        layout: one of `LAYOUTS`; None: told apart.

    Returns:
        For each drawing its line, or what is wrong with it: by "" where it is the only one, else by
        its number.

    Raises:
        FileFault: it is no JSON.
    """
    drawings: dict[str, Line | str] = {}
    for number, content in enumerate(_contents(data)):
        if number == handwriting.MAX_SEQUENCES:
            raise FileFault(f"holds more than {handwriting.MAX_SEQUENCES} drawings")
        try:
            content = _load(content) if isinstance(content, bytes) else content
            drawings[f"{number:06d}"] = _parse_drawing(content, y_axis, layout)
        except FileFault as fault:
            drawings[f"{number:06d}"] = str(fault)
    if len(drawings) == 1:
        (line,) = drawings.values()
        if isinstance(line, str):
            raise FileFault(line)
        return {"": line}
    return drawings


def _contents(data: bytes) -> Iterable[Any]:
    """The drawings, or the lines that hold one each."""
    encoding = json.detect_encoding(data[:4])
    if encoding != "utf-8":
        check_size(len(data), MAX_TEXT_BYTES)
        try:
            data = data.decode(encoding).encode()
        except ValueError as error:
            raise FileFault(f"not JSON ({error})") from error
    first = data[: data.find(b"\n", 0, MAX_TEXT_BYTES) + 1]
    if first.strip() and data[len(first) :].strip():
        with contextlib.suppress(FileFault):
            _load(first)
            return (line for line in io.BytesIO(data) if line.strip())
    content = _load(data)
    is_list = isinstance(content, list) and any(_key(item, _DRAWINGS) for item in content)
    return content if is_list else [content]


def _load(data: bytes) -> Any:
    check_size(len(data), MAX_TEXT_BYTES)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileFault(f"not JSON ({error})") from error


def _key(content: Any, keys: tuple[str, ...]) -> str | None:
    """The first of `keys` that an object has, with a list or an object."""
    names = keys if isinstance(content, dict) else ()
    return next((key for key in names if isinstance(content.get(key), list | dict)), None)


def _parse_drawing(content: Any, y_axis: str | None, layout: str | None) -> Line:
    key, strokes = None, content
    while isinstance(strokes, dict):
        y_axis = strokes.get("y_axis", y_axis)
        found = _key(strokes, (*_DRAWINGS, *_POINTS))
        if found is None:  # perhaps an object of columns
            strokes = [strokes] if _key(strokes, ("x", "X")) else None
        else:
            key, strokes = found, strokes[found]
    if y_axis not in (None, "down", "up"):
        raise FileFault(f"y_axis is {str(y_axis)[:20]!r}; accepted: down, up")
    if not isinstance(strokes, list):
        raise FileFault(f"has no list of strokes; {ACCEPTED}")
    # One stroke without a list around it.
    if strokes and (_is_point(strokes[0]) or _is_numbers(strokes[0])):
        strokes = [strokes]
    strokes = [_stroke(stroke, f"stroke {n}") for n, stroke in enumerate(strokes, start=1)]
    if layout is None:
        layout = _layout([x for x in strokes if isinstance(x, list)], key in _OF_COLUMNS)
    result = []
    for number, stroke in enumerate(strokes, start=1):
        where = f"stroke {number}"
        if isinstance(stroke, list) and layout == "columns" and any(map(_is_numbers, stroke)):
            if not _is_rows(stroke):
                raise FileFault(f"{where} is not columns of as many numbers each")
            stroke = dict(zip("xy", stroke, strict=False))
        if isinstance(stroke, dict):
            if len(stroke["x"]) != len(stroke["y"]):
                lengths = f"{len(stroke['x'])} values of x and {len(stroke['y'])} of y"
                raise FileFault(f"{where} has {lengths}")
            points = zip(stroke["x"], stroke["y"], strict=True)
        else:
            points = (_point(point, where, n) for n, point in enumerate(stroke, start=1))
        flat = (_coordinate(x, where, n) for n, point in enumerate(points, start=1) for x in point)
        result.append(np.fromiter(flat, np.float64).reshape(-1, 2))
    return line_of_strokes(result, y_axis == "up")


def _stroke(stroke: Any, where: str) -> list | dict[str, list]:
    """The points or columns in a list, or the columns by their names."""
    if isinstance(stroke, dict):
        stroke = {key.lower(): value for key, value in stroke.items()}
        key = _key(stroke, _POINTS)
        axes = [stroke.get(axis) for axis in "xy"]
        if key is not None and axes == [None, None]:
            if stroke.get("drawmode", True) is False:
                raise FileFault(f"{where} is one of an eraser")
            stroke = stroke[key]
        elif key is None and all(isinstance(axis, list) for axis in axes):
            return dict(zip("xy", axes, strict=True))
        else:
            what = f"{key}, x and y" if key else "no points"
            raise FileFault(f"{where} is an object with {what}; {ACCEPTED}")
    if not isinstance(stroke, list):
        raise FileFault(f"{where} is no list of points; {ACCEPTED}")
    marks: dict[str, Any] = {}
    for point in stroke:
        for name, value in point.items() if isinstance(point, dict) else ():
            if name.lower().replace("_", "") in _MARKS and marks.setdefault(name, value) != value:
                raise FileFault(
                    f"{where} has points with other values of {name[:20]!r}; accepted: a list of "
                    "points for each stroke"
                )
    return stroke


def _is_point(item: Any) -> bool:
    """Whether it has an x that is no column, and no points of its own."""
    names = {key.lower(): value for key, value in item.items()} if isinstance(item, dict) else {}
    return not (_key(names, _POINTS) or isinstance(names.get("x", []), list))


def _is_numbers(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and isinstance(item[0], int | float)


def _is_rows(stroke: list) -> bool:
    """Whether all are lists of as many numbers, at least two of them: columns perhaps."""
    return (
        len(stroke) >= 2
        and all(_is_numbers(row) for row in stroke)
        and len({len(row) for row in stroke}) == 1
    )


def _layout(strokes: list[list], prefers_columns: bool) -> str:
    """Tells lists of points from lists of columns."""
    strokes = [stroke for stroke in strokes if stroke]
    counts = {len(stroke) for stroke in strokes}
    widths = {len(row) for stroke in strokes for row in stroke if _is_numbers(row)}
    if not (len(counts) == 1 and max(counts) <= _MAX_COLUMNS and all(map(_is_rows, strokes))):
        layout = "points"
    elif prefers_columns or widths == {1} or len(widths) > 1 or max(widths) > _MAX_VALUES:
        layout = "columns"
    elif max(counts) > _OPEN_COLUMNS or (widths == {2} and counts != {2}):
        layout = "points"
    else:
        raise FileFault(
            f"each stroke is {max(counts)} lists of {max(widths)} numbers, which may be points or "
            "columns; tell by --layout=points or --layout=columns"
        )
    if layout == "points" and widths == {3}:
        thirds = [row[2] for stroke in strokes for row in stroke if _is_numbers(row)]
        if 0 in thirds and 1 in thirds and all(value in (0, 1) for value in thirds):
            raise FileFault(
                "the third value of its points is 0 or 1, a pen perhaps; if not, pass "
                "--layout=points"
            )
    return layout


def _point(point: Any, stroke: str, number: int) -> list:
    if isinstance(point, dict):
        named = {key.lower(): value for key, value in point.items()}
        point = [named[axis] for axis in "xy" if axis in named]
    if not isinstance(point, list) or len(point) < 2:
        raise FileFault(f"{stroke}, point {number} is not [x, y]")
    return point[:2]


def _coordinate(value: Any, stroke: str, number: int) -> float:
    # JSON's numbers only: neither true nor "1"; nor NaN, nor what is too large for a float.
    if type(value) not in (int, float) or not abs(value) <= MAX_COORDINATE:
        raise FileFault(f"{stroke}, point {number} has {str(value)[:20]!r}, which is no coordinate")
    return float(value)
