"""JSON in the shapes that programs write: exact steps of each, and what is left open is refused."""

import json

import numpy as np
import pytest

from data_prep.common import handwriting, ink_json
from data_prep.common.ink_json import parse_json
from data_prep.common.raw_files import FileFault

# Two strokes of points, y downwards, and their columns, with times.
STROKES = [[[0, 0], [10, 40], [20, 0], [30, 40]], [[50, 5], [60, 5], [70, 5]]]
COLUMNS = [[[0, 10, 20, 30], [0, 40, 0, 40]], [[50, 60, 70], [5, 5, 5]]]
TIMED = [[*columns, list(range(len(columns[0])))] for columns in COLUMNS]
STEPS = [[10, -40, 0], [10, 40, 0], [10, -40, 1], [20, 35, 0], [10, 0, 0], [10, 0, 1]]
OBJECTS = [[{"x": x, "y": y, "time": 7, "pressure": 0.5} for x, y in s] for s in STROKES]
CAPITALS = [[{"X": x, "Y": y} for x, y in s] for s in STROKES]
ONE = STROKES[0] + STROKES[1]  # as one stroke
ONE_STEPS = [[*step[:2], int(n == 5)] for n, step in enumerate(STEPS)]
LONG = [list(range(12)), [3 * x % 7 for x in range(12)]]


def parse(content, **options):
    return parse_json(json.dumps(content).encode(), **options)[""].offsets


def of_points(points):
    pen = [*[0] * (len(points) - 2), 1]
    return np.column_stack([np.diff(points, axis=0) * (1, -1), pen])


SHAPES = {
    "strokes": ({"strokes": STROKES}, STEPS),
    "more values of some": (
        {"strokes": [[STROKES[0][0] + [7], *STROKES[0][1:]], STROKES[1]]},
        STEPS,
    ),
    "more values": ({"strokes": [[[*p, 0.5, 3, 1] for p in s] for s in STROKES]}, STEPS),
    "columns": ({"strokes": COLUMNS}, STEPS),
    "columns and times": ({"strokes": TIMED}, STEPS),
    "columns of one length": (
        {"strokes": [LONG, [LONG[1], LONG[0]]]},
        [*of_points(np.transpose(LONG)), [-11, 5, 0], *of_points(np.transpose(LONG[::-1]))],
    ),
    "one stroke of columns": ({"strokes": [LONG]}, of_points(np.transpose(LONG))),
    "columns of one point": ({"strokes": [[[1], [2]], [[3], [5]]]}, [[2, -3, 1]]),
    "one stroke of points": ({"strokes": [[[0, 0], [10, 40], [20, 0]]]}, STEPS[:1] + [[10, 40, 1]]),
    "a dot": ({"strokes": [[[0, 0]], [[1, 2], [3, 4]]]}, [[1, -2, 0], [2, -2, 1]]),
    "quickdraw": ({"word": "x", "drawing": COLUMNS, "recognized": True}, STEPS),
    "raw quickdraw": ({"drawing": TIMED}, STEPS),
    "short quickdraw": ({"drawing": [[[0, 10], [0, 40]]]}, [[10, -40, 1]]),
    "google": ({"ink": TIMED, "language": "en"}, STEPS),
    "drawing of points": ({"drawing": STROKES}, STEPS),
    "no wrapper": (STROKES, STEPS),
    "columns without a wrapper": (TIMED, STEPS),
    "objects": ({"strokes": OBJECTS}, STEPS),
    "objects without a wrapper": (OBJECTS, STEPS),
    "capitals": (CAPITALS, STEPS),
    "strokes of objects": ({"strokes": [{"color": 1, "points": s} for s in STROKES]}, STEPS),
    "signature": ([{"penColor": "black", "points": s} for s in OBJECTS], STEPS),
    "other meanings": ([{"ink": "blue", "lines": 3, "points": s} for s in OBJECTS], STEPS),
    "canvas": ({"lines": [{"points": s, "brushRadius": 3} for s in OBJECTS], "width": 9}, STEPS),
    "sketch canvas": ([{"drawMode": True, "paths": s} for s in OBJECTS], STEPS),
    "columns by name": ([{"x": x, "y": y, "t": x} for x, y in COLUMNS], STEPS),
    "columns by name in strokes": ({"strokes": [{"X": x, "Y": y} for x, y in COLUMNS]}, STEPS),
    "points": ({"points": ONE}, ONE_STEPS),
    "points of objects": ({"points": OBJECTS[0] + OBJECTS[1]}, ONE_STEPS),
    "points of strokes": ({"points": OBJECTS}, STEPS),
    "one list of points": (ONE, ONE_STEPS),
    "one list of objects": (OBJECTS[0] + OBJECTS[1], ONE_STEPS),
    "one object of columns": ({"x": [p[0] for p in ONE], "y": [p[1] for p in ONE]}, ONE_STEPS),
    "one in another": ({"id": 7, "ink": {"strokes": STROKES}}, STEPS),
    "canvas that erases not": (
        [{"penColor": "#000", "compositeOperation": "source-over", "points": s} for s in OBJECTS],
        STEPS,
    ),
    "events": (
        [[p | {"type": "up" if p is s[-1] else "move"} for p in s] for s in OBJECTS],
        STEPS,
    ),
    "google without times": ({"ink": [[*columns, []] for columns in COLUMNS]}, STEPS),
    "groups": (
        {"type": "Raw", "strokeGroups": [{"strokes": [{"x": x, "y": y}]} for x, y in COLUMNS]},
        STEPS,
    ),
    "nowhere else": (
        {"strokes": [{"points": s, "transform": [1, 0, 0, 1, 0, 0], "left": 0} for s in STROKES]},
        STEPS,
    ),
    "one stroke elsewhere": ({"type": "freedraw", "x": 5, "y": 7, "points": ONE}, ONE_STEPS),
    "a negative point": ({"strokes": [[[x - 10, y - 40] for x, y in s] for s in STROKES]}, STEPS),
    "columns by name with a pen": ({"x": [0, 9], "y": [0, 5], "pen": [1, 1]}, [[9, -5, 1]]),
    "same pen": ({"points": [{"x": x, "y": y, "pen": 1} for x, y in ONE]}, ONE_STEPS),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    content, expected = SHAPES[name]
    np.testing.assert_array_equal(parse(content), expected)
    if isinstance(content, dict):
        upwards = np.multiply(expected, (1, -1, 1))
        np.testing.assert_array_equal(parse(content | {"y_axis": "up"}), upwards)
        np.testing.assert_array_equal(parse(content, y_axis="up"), upwards)
        np.testing.assert_array_equal(parse(content | {"y_axis": "down"}, y_axis="up"), expected)


OPEN = [
    [[[0, 0], [10, 40]]],
    [[[0, 0], [10, 40]], [[5, 5], [6, 6]]],
    [[[0, 10, 20], [0, 40, 0]]],
    [[[0, 0, 1], [10, 40, 2], [20, 0, 3]]],
    [[[n, n * n, n, 0.5, 0.1, 0.2, 0.3] for n in range(5)]],
]


@pytest.mark.parametrize("strokes", OPEN, ids=str)
def test_what_may_be_points_or_columns_is_asked_for(strokes):
    with pytest.raises(
        FileFault, match="may be points or columns; tell by --layout=points or --lay"
    ):
        parse({"strokes": strokes})
    points = [[point[:2] for point in stroke] for stroke in strokes]
    columns = [np.transpose(stroke[:2]).tolist() for stroke in strokes]
    for layout, meant in (("points", points), ("columns", columns)):
        expected = parse({"strokes": meant}, layout="points")
        np.testing.assert_array_equal(parse({"strokes": strokes}, layout=layout), expected)


PEN = [0, 0, 1, 0, 1, 1]


@pytest.mark.parametrize("column", [0, 2, 3, 4])
def test_what_may_be_a_pen_is_asked_for(column):
    points = [[7 + n, 5 + n * n, 3, 4] for n in range(len(PEN))]
    points = [[*p[:column], pen, *p[column:]] for p, pen in zip(points, PEN, strict=True)]
    with pytest.raises(
        FileFault, match=f"^value {column + 1} of its points is 0 or 1, a pen perhaps; if not, pass"
    ):
        parse(points)
    np.testing.assert_array_equal(
        parse(points, layout="points"), of_points([point[:2] for point in points])
    )


@pytest.mark.parametrize("name", ["isDown", "type", "color"])
@pytest.mark.parametrize("values", [(True, False), ("a", "b")])
def test_points_that_marks_divide_are_refused(name, values):
    points = [p | {name: values[n in (2, 5)]} for n, p in enumerate(OBJECTS[0] + OBJECTS[1])]
    with pytest.raises(FileFault, match=f"stroke 1 has points with other values of '{name}'; "):
        parse(points)
    np.testing.assert_array_equal(parse(points, layout="points"), ONE_STEPS)


@pytest.mark.parametrize(
    "mark",
    [
        *({"tool": "eraser"}, {"pointerType": "ERASER"}, {"isEraser": True}, {"type": "erase"}),
        *({"compositeOperation": "destination-out"}, {"drawMode": False}),
    ],
    ids=str,
)
def test_erasers_are_refused(mark):
    with pytest.raises(FileFault, match="^stroke 2 is one of an eraser$"):
        parse([{"points": OBJECTS[0]}, {"points": OBJECTS[1]} | mark])


@pytest.mark.parametrize(
    "place",
    [
        *({"x": 5}, {"Y": 0.5}, {"left": 9}, {"point": [1, 2]}, {"offset": {"x": 1, "y": 2}}),
        *({"transform": [2, 0, 0, 2, 0, 0]}, {"translate": "(1, 2)"}),
    ],
    ids=str,
)
def test_points_relative_to_something_are_refused(place):
    with pytest.raises(FileFault) as error:
        parse([{"points": OBJECTS[0]}, {"points": OBJECTS[1]} | place])
    (name,) = place
    assert str(error.value).startswith(f"stroke 2 is an object with points and '{name}', to which")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"strokes": [[[0, 0, 0], [1, 2, 0], [3, 4, 1], [1, 1, 0], [0, 1, 1]]]},
            "value 3 of its",
        ),
        (
            [[0, 0, 0], [1, 2, 0], [3, 4, 1], [1, 1, 0], [0, 1, 1]],
            "value 3 of its points is 0 or",
        ),
        (
            {"points": [{"x": 0, "y": 0, "penDown": 1}, {"x": 1, "y": 0, "penDown": 0}]},
            "stroke 1 has points with other values of 'penDown'",
        ),
        (
            [{"x": 0, "y": 0, "stroke_id": 1}, {"x": 1, "y": 0, "stroke_id": 2}],
            "stroke 1 has points with other values of 'stroke_id'",
        ),
        (
            [{"type": "freedraw", "x": 5, "y": 7, "points": ONE}],
            "stroke 1 is an object with points and 'x', to which they may be relative; accepted: ",
        ),
        ([{"drawMode": False, "paths": OBJECTS[0]}], "stroke 1 is one of an eraser"),
        ({"strokes": [{"x": [1, 2], "y": [1]}]}, "stroke 1 has 2 values of x and 1 of y"),
        (
            {"strokes": [{"x": [1, 2], "y": ["1", 2]}]},
            "stroke 1, point 1 has '1', which is no coord",
        ),
        ({"lines": [{"points": [1, 2, 3, 4]}]}, "stroke 1, point 1 is not [x, y]"),
        ({"strokes": [OBJECTS[0], {"a": 1}]}, "stroke 2 is an object with no points"),
        ([[{"x": 1, "y": 1}, [2, 2]], 7], "stroke 2 is no list of points"),
        ({"drawing": [[[0, 0], [10, 40], [20, 0]]]}, "each stroke is 3 lists of 2 numbers, which"),
        ({"drawing": [[[1, 2, 3], [4, 5]]]}, "a stroke has lists of 2 and of 3 numbers; accepted"),
        ({"ink": [[[1, 2, 3], [4, 5, 6], [0, 1]]]}, "a stroke has lists of 2 and of 3 numbers; a"),
        (
            {"points": [{"x": 0, "y": 0, "strokeNumber": 1}, {"x": 1, "y": 0, "strokeNumber": 2}]},
            "stroke 1 has points with other values of 'strokeNumber'",
        ),
        (
            [list(range(2 * n)) for n in range(2, 12)],
            "a stroke has lists of 4 and of 22 numbers; a",
        ),
        (
            {"x": [1, 2, 3], "y": [1, 2, 3], "pen": [0, 1, 0]},
            "stroke 1 has points with other values of 'pen'",
        ),
        (
            {"strokes": [{"X": [1, 2, 3], "Y": [1, 2, 3], "isDown": [True, False, True]}]},
            "stroke 1 has points with other values of 'isdown'",
        ),
        ([*ONE, [-1, -1], *ONE], "the point [-1, -1] ends a stroke, perhaps; accepted: a list of"),
        ({"points": [*ONE, [-1, 0], *ONE]}, "the point [-1, 0] ends a stroke, perhaps; accepted: "),
        ({"strokeGroups": [{"strokes": 7}]}, "has no list of strokes; accepted: "),
        ({"strokes": [[[1, 2, 3], [4, 5]]]}, "stroke 1 is not columns of as many numbers each"),
    ],
)
def test_faults(content, message):
    with pytest.raises(FileFault) as error:
        parse(content, layout="columns" if "columns" in message else None)
    assert str(error.value).startswith(message)


LINES = [json.dumps({"drawing": [[[0, n, 20], [0, 40, 0]]]}) for n in range(4)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    "text", ["\n".join(LINES), "\r\n".join([*LINES, "", ""]), f"[{', '.join(LINES)}]"]
)
def test_many_drawings(text, encoding):
    drawings = parse_json(text.encode(encoding))
    assert list(drawings) == [f"{n:06d}" for n in range(4)]
    for n, line in enumerate(drawings.values()):
        np.testing.assert_array_equal(line.offsets, [[n, -40, 0], [20 - n, 40, 1]])


def test_a_bad_line_is_no_fault_of_the_others(monkeypatch):
    drawings = parse_json("\n".join([*LINES[:2], LINES[0][:9], "{}"]).encode())
    assert drawings["000002"].startswith("not JSON (") and drawings["000003"].startswith("has no l")
    assert len(drawings["000001"].offsets) == 2
    monkeypatch.setattr(handwriting, "MAX_SEQUENCES", 3)
    with pytest.raises(FileFault, match="^holds more than 3 drawings$"):
        parse_json("\n".join(LINES).encode())


def test_lines_may_be_more_than_a_text_may(monkeypatch):
    monkeypatch.setattr(ink_json, "MAX_TEXT_BYTES", len(LINES[0]) + 1)
    assert len(parse_json("\n".join(LINES).encode())) == 4
    with pytest.raises(FileFault, match="^has .* bytes, at most .* are accepted$"):
        parse_json(f"[{', '.join(LINES)}]".encode())
