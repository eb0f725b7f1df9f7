"""JSON that canvas, signature and drawing programs write: the strokes of each drawing.

A drawing is {"strokes": [...]} (or "drawing", "ink", "lines"), {"points": [...]}, which is one
stroke, {"strokeGroups": [{"strokes": [...]}, ...]}, or a list without a wrapper; what else an
object holds is ignored, but "y_axis". A file has one drawing, a list of such objects, or one on
each line. A stroke is

* points: [[x, y, ...], ...] or [{"x": x, "y": y, ...}, ...];
* columns: [[x, ...], [y, ...], ...], as quickdraw and Google have it, or {"x": [...], "y": [...]};
* an object that holds its points, {"points": [...]} (or "path", "paths"). One of an eraser is
  refused, and so is one that says elsewhere where its points lie ("x", "left", "transform").

Lists of points and of columns are told apart by the drawing as a whole: a stroke has any number of
points, which have the same number of values each; it has the same number of columns as the others.
Points that seem to hold a pen, or the number of their stroke, are refused.
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
_GROUPS = "strokeGroups"  # of strokes
# Names of what tells the strokes of a list of points apart (lower case, without _).
_MARKS = (
    *("stroke", "strokeid", "strokeindex", "strokeno", "strokenum", "strokenumber", "newstroke"),
    *("pen", "pendown", "penup", "penstate", "down", "up", "end", "eos", "endofstroke"),
)
# Names of what points of an object are relative to: numbers, and lists or the like.
_SHIFTS = ("x", "y", "left", "top", "offsetx", "offsety", "translatex", "translatey")
_PLACES = ("point", "offset", "position", "origin", "transform", "translate", "translation")
_NO_PLACES = ([0, 0], {"x": 0, "y": 0}, [1, 0, 0, 1, 0, 0])
_ERASERS = ("eraser", "erase", "iseraser", "iserasing")
_TOOLS = ("tool", "tooltype", "type", "mode", "brush", "pointertype", "pentype", "kind")
_MAX_COLUMNS = 8  # a stroke may have
# Of strokes of one shape: up to so many columns and values of a point leave it open what they are.
_OPEN_COLUMNS = 4
_MAX_VALUES = 6
_BREAKS = ((-1, -1), (-1, 0))  # points that end strokes where coordinates are not negative
LAYOUTS = ("points", "columns")
ACCEPTED = 'accepted: {"strokes": [[[x, y], ...], ...]}, {"points": [...]}, and the like'


def parse_json(
    data: bytes, y_axis: str | None = None, layout: str | None = None
) -> dict[str, Line | str]:
    """Parses a file: by number (of the only one "") the line of each drawing, or what is wrong.

    Args:
        data: its bytes.
        y_axis: "up" or "down", where the file says nothing of it; None: down.
        layout: one of `LAYOUTS`; None: told apart.

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
        found = _key(strokes, (*_DRAWINGS, *_POINTS, _GROUPS))
        if found is None:  # perhaps an object of columns
            strokes = [strokes] if _key(strokes, ("x", "X")) else None
            continue
        key, strokes = found, strokes[found]
        if key == _GROUPS:
            groups = [group.get("strokes") if isinstance(group, dict) else 0 for group in strokes]
            is_good = all(isinstance(group, list) for group in groups)
            strokes = [stroke for group in groups for stroke in group] if is_good else None
    if y_axis not in (None, "down", "up"):
        raise FileFault(f"y_axis is {str(y_axis)[:20]!r}; accepted: down, up")
    if not isinstance(strokes, list):
        raise FileFault(f"has no list of strokes; {ACCEPTED}")
    # One stroke without a list around it.
    if strokes and (_is_point(strokes[0]) or _is_numbers(strokes[0])):
        strokes = [strokes]
    may_mark = layout is None
    strokes = [_stroke(s, f"stroke {n}", may_mark) for n, s in enumerate(strokes, start=1)]
    if key in _OF_COLUMNS:
        strokes = [_without_empty_columns(stroke) for stroke in strokes]
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
    if may_mark:
        _check_breaks(np.concatenate([np.zeros((0, 2)), *result]))
    return line_of_strokes(result, y_axis == "up")


def _check_breaks(points: np.ndarray) -> None:
    is_break = np.any([(points == point).all(axis=1) for point in _BREAKS], axis=0)
    if is_break.any() and (points[~is_break] >= 0).all():
        x, y = points[is_break][0]
        raise FileFault(
            f"the point [{x:g}, {y:g}] ends a stroke, perhaps; accepted: a list of points for each "
            "stroke (if it is a point, pass --layout=points)"
        )


def _stroke(stroke: Any, where: str, may_mark: bool) -> list | dict[str, list]:
    """The points or columns in a list, or the columns by their names.

    `may_mark`: points may hold marks of several strokes, which is refused.
    """
    if isinstance(stroke, dict):
        _check_object(stroke, where)
        stroke = {key.lower(): value for key, value in stroke.items()}
        key = _key(stroke, _POINTS)
        axes = [stroke.get(axis) for axis in "xy"]
        if all(isinstance(axis, list) for axis in axes):
            for name, column in stroke.items() if may_mark else ():
                if isinstance(column, list):
                    _check_marks([{name: value} for value in column], where)
            return dict(zip("xy", axes, strict=True))
        if key is None:
            raise FileFault(f"{where} is an object with no points; {ACCEPTED}")
        stroke = stroke[key]
    if not isinstance(stroke, list):
        raise FileFault(f"{where} is no list of points; {ACCEPTED}")
    if may_mark:
        _check_marks(stroke, where)
    return stroke


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _check_object(stroke: dict[str, Any], where: str) -> None:
    """Refuses what was erased, and points that are relative to something."""
    for key, value in stroke.items():
        name = _plain(key)
        if (
            (name == "drawmode" and value is False)
            or (name in _ERASERS and value is True)
            or (name in _TOOLS and "erase" in str(value)[:100].lower())
            or (name.endswith("compositeoperation") and value == "destination-out")
        ):
            raise FileFault(f"{where} is one of an eraser")
        is_moved = name in _SHIFTS and value and not isinstance(value, list | dict)
        is_placed = name in _PLACES and isinstance(value, list | dict | str)
        if is_moved or (is_placed and value and value not in _NO_PLACES):
            raise FileFault(
                f"{where} is an object with points and {key[:20]!r}, to which they may be "
                f"relative; {ACCEPTED}"
            )


def _check_marks(points: list, where: str) -> None:
    """Refuses a list of points that marks of theirs may divide into strokes.

    These have a name that tells it, or are texts or booleans that come back to their first value.
    """
    first: dict[str, Any] = {}
    changed: set[str] = set()
    for point in points:
        for name, value in point.items() if isinstance(point, dict) else ():
            is_mark = _plain(name) in _MARKS
            if _plain(name) in ("x", "y") or not (is_mark or isinstance(value, bool | str)):
                continue
            is_first = first.setdefault(name, value) == value
            if not is_first:
                changed.add(name)
            if name in changed and (is_first or is_mark):
                raise FileFault(
                    f"{where} has points with other values of {name[:20]!r}; accepted: a list of "
                    "points for each stroke (if it is one stroke, pass --layout=points)"
                )


def _without_empty_columns(stroke: list | dict) -> list | dict:
    """As Google's input tools write times that nobody measured."""
    if isinstance(stroke, list) and len(stroke) > 2 and all(row == [] for row in stroke[2:]):
        return stroke[:2]
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
    each = [{len(row) for row in stroke if _is_numbers(row)} for stroke in strokes]
    widths = set().union(*each)
    may_be_columns = len(counts) == 1 and max(counts) <= _MAX_COLUMNS
    for ragged in each:
        # Some points may have a pressure or the like, but not a list of coordinates.
        is_fault = may_be_columns or max(ragged, default=0) > _MAX_VALUES
        if is_fault and len(ragged) > 1 and min(ragged) > 1:
            raise FileFault(
                f"a stroke has lists of {min(ragged)} and of {max(ragged)} numbers; accepted: as "
                "many in each (if they are points, pass --layout=points)"
            )
    if not (may_be_columns and all(map(_is_rows, strokes))):
        layout = "points"
    elif prefers_columns:
        layout = "columns" if all(map(_has_times, strokes)) else ""
    elif widths == {1} or len(widths) > 1:
        layout = "columns"
    elif max(widths) > _MAX_VALUES:
        layout = "columns" if max(counts) <= _OPEN_COLUMNS else ""
    else:
        is_open = max(counts) <= _OPEN_COLUMNS and (widths != {2} or counts == {2})
        layout = "" if is_open else "points"
    if not layout:
        raise FileFault(
            f"each stroke is {max(counts)} lists of {max(widths)} numbers, which may be points or "
            "columns; tell by --layout=points or --layout=columns"
        )
    rows = [row for stroke in strokes for row in stroke if _is_numbers(row)]
    width = min(widths, default=0)
    for column in (0, *range(2, width)) if layout == "points" and width > 2 else ():
        if _is_pen(row[column] for row in rows):
            raise FileFault(
                f"value {column + 1} of its points is 0 or 1, a pen perhaps; if not, pass "
                "--layout=points"
            )
    return layout


def _has_times(columns: list[list]) -> bool:
    """Whether the third column, if there is one, may be of times."""
    times = columns[2] if len(columns) > 2 else []
    with contextlib.suppress(TypeError):
        return all(a <= b for a, b in zip(times, times[1:], strict=False))
    return False


def _is_pen(values: Iterable[Any]) -> bool:
    """Whether they are 0 and 1 and nothing else."""
    seen = set()
    for value in values:
        if not isinstance(value, int | float) or value not in (0, 1):
            return False
        seen.add(value)
    return len(seen) == 2


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
