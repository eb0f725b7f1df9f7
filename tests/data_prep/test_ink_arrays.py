"""Arrays of steps: where the pen is, which way y grows, and what is one sequence."""

import numpy as np
import pytest

from data_prep.common import handwriting
from data_prep.common.ink_arrays import Options, parse_arrays
from data_prep.common.raw_files import FileFault

STEPS = np.array([[3, 2, 0], [0, -7, 1], [27.5, 5, 1], [0.5, 1, 0], [-3, -4, 1]], np.float32)
WHOLE = np.array([[9, 8, 0], [0, 40, 0], [20, 0, 1]], np.int16)
SKETCH = [[0, 0, 0], [0, -40, 0], [20, 0, 1]]  # dy upwards, without the move
PEN_FIRST = [2, 0, 1]


def row_of(*items):
    row = np.empty(len(items), object)
    row[:] = items
    return row


def parse(has_names=True, options=None, **arrays):
    lines = parse_arrays(arrays, Options(**options or {}), has_names)
    return {name: getattr(line, "offsets", line) for name, line in lines.items()}


def assert_same(lines, expected):
    assert list(lines) == list(expected)
    for name, steps in expected.items():
        if isinstance(steps, str):
            assert lines[name] == steps
        else:
            np.testing.assert_array_equal(lines[name], steps)


UP = STEPS * (1, -1, 1)
STACK = np.stack([STEPS, 2 * STEPS * (1, 1, 0.5)])
ONE = {"a/000000": STEPS}
SKETCHES = {"train/000000": SKETCH, "train/000001": SKETCH, "valid/000000": SKETCH}
EACH = [
    ({"a": STEPS}, {}, {"a": STEPS}),
    ({"a": STEPS}, {"y_axis": "down"}, {"a": UP}),
    ({"a": row_of(STEPS)}, {}, ONE),
    ({"a": STACK}, {}, {"a/000000": STACK[0], "a/000001": STACK[1]}),
    ({"a": STEPS[:, PEN_FIRST]}, {}, {"a": STEPS}),
    ({"a": row_of(STEPS[:, PEN_FIRST])}, {"y_axis": "down"}, {"a/000000": UP}),
    ({"a": STEPS[:, PEN_FIRST]}, {"pen": "first"}, {"a": STEPS}),
    # What fits the lesser part only is a fault.
    (
        {"a": row_of(STEPS, STEPS, STEPS[:, PEN_FIRST])},
        {},
        ONE | {"a/000001": STEPS, "a/000002": "step 0 has the pen 2; accepted: 0, 1"},
    ),
    # Sketch-rnn's: dy downwards, and the first row moves to where the first stroke begins.
    ({"train": row_of(WHOLE, WHOLE), "valid": row_of(WHOLE)}, {}, SKETCHES),
    ({"train": np.stack([WHOLE, WHOLE]), "valid": WHOLE[None]}, {}, SKETCHES),
    ({"train": row_of(WHOLE)}, {"y_axis": "up"}, {"train/000000": np.abs(SKETCH)}),
    (
        {"train": row_of(STEPS), "test": row_of(STEPS)},
        {},
        {"train/000000": STEPS, "test/000000": STEPS},
    ),
    ({"mine": WHOLE}, {}, {"mine": WHOLE}),
    # What holds no steps does not change it.
    (
        {"train": row_of(WHOLE), "std": np.ones(2)},
        {},
        {"train/000000": SKETCH, "std": "has float64 of shape [2]; accepted: numbers, [T, 3]"},
    ),
    ({"train": row_of(WHOLE), "valid": np.zeros(0)}, {}, {"train/000000": SKETCH}),
    ({"train": row_of(WHOLE), "valid": np.zeros((0, 4, 3))}, {}, {"train/000000": SKETCH}),
    ({"train": row_of(np.abs(WHOLE).astype("u1"))}, {}, {"train/000000": SKETCH}),
    # Zeros at the end of a sequence, but not at that of one that stands alone.
    (
        {"a": np.stack([np.pad(STEPS, ((0, 2), (0, 0))), np.pad(STEPS[:4], ((0, 3), (0, 0)))])},
        {},
        {"a/000000": STEPS, "a/000001": STEPS[:4]},
    ),
    ({"a": np.zeros((1, 4, 3))}, {}, {"a/000000": "has no steps"}),
    ({"a": np.pad(STEPS, ((0, 1), (0, 0)))}, {}, {"a": [*STEPS, [0, 0, 0]]}),
    # Coordinates.
    (
        {"a": np.cumsum(STEPS, axis=0) * (1, 1, 0) + STEPS * (0, 0, 1)},
        {"offsets": False},
        {"a": STEPS[1:]},
    ),
    (
        {"a": np.array([[200, 250, 0], [190, 255, 1]], np.uint8)},
        {"offsets": False, "y_axis": "down"},
        {"a": [[-10, -5, 1]]},
    ),
    ({"a": np.array([[1.5, 2, 0]])}, {"offsets": False}, {"a": "has no steps"}),
    # Sketch-rnn's states of the pen: down, up, end.
    (
        {"a": np.array([[7, 7, 1, 0, 0], [1, 2, 0, 1, 0], [3, 4, 0, 1, 0], [0, 0, 0, 0, 1.0]])},
        {},
        {"a": [[0, 0, 0], [1, -2, 1], [3, -4, 1]]},
    ),
    (
        {"a": np.ones((3, 5))},
        {},
        {"a": "has 5 columns, of which the last 3 are not one 1 and 0 else"},
    ),
]


@pytest.mark.parametrize(("arrays", "options", "expected"), EACH, ids=range(len(EACH)))
def test_arrays(arrays, options, expected):
    assert_same(parse(options=options, **arrays), expected)


RNG = np.random.default_rng(0)
WRITING = np.column_stack([RNG.normal(size=(60, 2)), np.arange(60) % 10 == 9])


@pytest.mark.parametrize(
    ("arrays", "options", "note"),
    [
        ({"a": WRITING}, {}, ""),
        ({"a": 1 - WRITING}, {}, "most steps end a stroke, as if 1 meant that the pen is down"),
        (
            {"a": np.cumsum(WRITING, axis=0) * (1, 1, 0) + (500, 300, 0)},
            {},
            "steps are long and alike, as if they were coordinates (--offsets=false)",
        ),
        (
            {"a": np.cumsum(WRITING, axis=0) * (1, 1, 0) + (500, 300, 0)},
            {"offsets": False},
            "",
        ),
        (
            {"train": row_of(WRITING), "test": row_of(WRITING)},
            {},
            "read with y upwards; sketch-rnn's grows downwards: --y_axis=down",
        ),
        ({"train": row_of(WRITING)}, {"y_axis": "down"}, ""),
        ({"mine": row_of(WRITING)}, {}, ""),
        (
            {"a": np.pad(WRITING, ((0, 7), (0, 0)))[None]},
            {},
            "7 rows of zeros at the ends of sequences are left out",
        ),
        (
            {"train": row_of(WHOLE)},
            {},
            "read like sketch-rnn's files: y downwards, a move at the beginning",
        ),
    ],
)
def test_what_is_assumed_or_strange_is_said(arrays, options, note):
    assert parse_arrays(arrays, Options(**options)).note == note


def test_a_file_of_one_array_is_asked_which_way_y_grows():
    with pytest.raises(
        FileFault, match="^does not say which way y grows; tell by --y_axis=up or -"
    ):
        parse(has_names=False, **{"": row_of(STEPS)})
    lines = parse(False, {"y_axis": "up"}, **{"": row_of(STEPS[:, PEN_FIRST])})
    assert_same(lines, {"000000": STEPS})
    assert_same(parse(False, {"y_axis": "down"}, **{"": STEPS}), {"": UP})
    # There is nothing to ask of pictures.
    fault = "has uint8 of shape [2, 784]; accepted: numbers, [T, 3]"
    assert_same(parse(False, **{"": np.zeros((2, 784), np.uint8)}), {"": fault})


def test_where_the_pen_may_be_in_both_columns_it_is_asked_for():
    both = np.array([[1, 5, 0], [0, 5, 1]])
    with pytest.raises(FileFault, match="tell by --pen=first or --pen=last which is the pen$"):
        parse(a=both)
    assert_same(parse(options={"pen": "last"}, a=both), {"a": both})
    assert_same(parse(options={"pen": "first"}, a=both), {"a": [[5, 0, 1], [5, 1, 0]]})
    assert_same(parse(a=both, b=STEPS), {"a": both, "b": STEPS})  # the file as a whole


def test_faults_of_a_file(monkeypatch):
    with pytest.raises(FileFault, match="^holds no arrays$"):
        parse(a=np.empty(0, object))
    with pytest.raises(FileFault, match="^holds two sequences of the name 'a/000000'$"):
        parse(a=row_of(STEPS), **{"a/000000": STEPS})
    monkeypatch.setattr(handwriting, "MAX_SEQUENCES", 2)
    with pytest.raises(FileFault, match="^holds more than 2 sequences$"):
        parse(a=row_of(STEPS, STEPS, STEPS))
    with pytest.raises(FileFault, match="^holds more than 2 sequences$"):
        parse(a=np.zeros((2**39, 0, 3)))  # of no bytes
