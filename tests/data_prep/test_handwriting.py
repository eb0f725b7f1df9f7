"""Points to steps, statistics of steps, and the records and card made of them."""

import json

import numpy as np
import pytest

from data_prep.common import handwriting
from data_prep.common.handwriting import Line, line_of_steps, line_of_strokes
from data_prep.common.raw_files import FileFault
from stcn_tf.support.errors import UserError

# --------------------------------------------------------------------------------- lines


def line_of(*strokes, y_points_up=True):
    """The line of strokes, each a list of (x, y)."""
    return line_of_strokes([np.array(stroke, np.float64) for stroke in strokes], y_points_up)


STROKES = ([(10, 20), (13, 18), (13, 25)], [(40, 20)], [(41, 19), (38, 23)])


def test_steps_of_points_by_hand():
    up = line_of(*STROKES)
    expected = np.array([[3, -2, 0], [0, 7, 1], [27, -5, 1], [1, -1, 0], [-3, 4, 1]], np.float32)
    np.testing.assert_array_equal(up.offsets, expected)
    assert up.offsets.dtype == np.float32
    assert up.one_point_strokes == 1
    down = line_of(*STROKES, y_points_up=False)
    np.testing.assert_array_equal(down.offsets, expected * (1, -1, 1))
    assert down.one_point_strokes == 1


def test_the_first_point_takes_its_pen_bit_along():
    line = line_of([(7, 7)], [(9, 4), (9, 6)], [(0, 0)])
    np.testing.assert_array_equal(line.offsets, [[2, -3, 0], [0, 2, 1], [-9, -6, 1]])
    assert line.one_point_strokes == 2


def test_differences_are_taken_before_they_become_float32():
    line = line_of([(1e9, 0), (1e9 - 0.25, -0.5)])
    np.testing.assert_array_equal(line.offsets, [[-0.25, -0.5, 1]])


def test_lines_need_two_points():
    with pytest.raises(FileFault, match="^has no strokes$"):
        line_of()
    with pytest.raises(FileFault, match="^has 1 point, at least 2 are needed$"):
        line_of([(1, 1)])


@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "i1", "i8"])
def test_steps_are_taken_as_they_are(dtype):
    steps = np.array([[3, 2, 0], [0, -7, 1], [27, 5, 1], [-3, -4, 0]])
    up = line_of_steps(steps.astype(dtype), y_points_up=True)
    np.testing.assert_array_equal(up.offsets, steps)
    assert up.offsets.dtype == np.dtype("f4")
    np.testing.assert_array_equal(
        line_of_steps(steps.astype(dtype), y_points_up=False).offsets, steps * (1, -1, 1)
    )


@pytest.mark.parametrize(
    ("pen", "one_point_strokes"),
    # A step that ends a stroke right after another one did is a stroke of one point. Before the
    # first step there was a point of the same stroke.
    [([0, 0, 1], 0), ([1, 0, 1], 0), ([1, 1, 0], 1), ([1, 1, 1, 0, 1, 1], 3), ([1], 0), ([0], 0)],
)
def test_one_point_strokes_of_steps(pen, one_point_strokes):
    steps = np.stack([np.arange(len(pen)), np.ones(len(pen)), pen], axis=1)
    assert line_of_steps(steps, y_points_up=True).one_point_strokes == one_point_strokes


@pytest.mark.parametrize("first_stroke", [[(0, 0), (1, 2)], [(0, 0), (1, 2), (3, 5)]])
def test_points_and_their_steps_make_the_same_line(first_stroke):
    line = line_of(first_stroke, *STROKES)
    again = line_of_steps(line.offsets, y_points_up=True)
    np.testing.assert_array_equal(again.offsets, line.offsets)
    assert again.one_point_strokes == line.one_point_strokes == 1


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (np.zeros((5, 2)), "has float64 of shape [5, 2]; accepted: numbers, [T, 3]"),
        (np.zeros((1, 5, 3), "f4"), "has float32 of shape [1, 5, 3]; accepted: numbers, [T, 3]"),
        (np.zeros(3), "has float64 of shape [3]; accepted: numbers, [T, 3]"),
        (np.zeros((5, 3), "U1"), "has <U1 of shape [5, 3]; accepted: numbers, [T, 3]"),
        (np.zeros((0, 3)), "has no steps"),
        (np.array([[1, 2, 0], [0, np.nan, 0]]), "step 1 has dx, dy = 0, nan"),
        (np.array([[-np.inf, 2, 0], [0, 1, 0]]), "step 0 has dx, dy = -inf, 2"),
        (np.array([[1e9, -1e9, 0], [0, 0, 0], [0, -1.1e9, 0]]), "step 2 has dx, dy = 0, -1.1e+09"),
        (np.array([[1, 2, 1], [1, 2, 0.5]]), "step 1 has the pen 0.5; accepted: 0, 1"),
        (np.array([[1, 2, np.nan]]), "step 0 has the pen nan; accepted: 0, 1"),
    ],
)
def test_faults_of_steps(steps, message):
    with pytest.raises(FileFault) as error:
        line_of_steps(steps, y_points_up=True)
    assert str(error.value) == message


# ---------------------------------------------------------------------------- statistics

STEPS = [
    np.array([[1, 2, 0], [3, -4, 1]], np.float32),
    np.array([[5, 0, 0], [0, 0, 0], [1, 7, 1]], np.float32),
]


def test_statistics_by_hand():
    statistics = handwriting.offset_statistics(STEPS)
    # N = 5, sum dx = 10, sum dy = 5, sum dx^2 = 36, sum dy^2 = 69.
    by_hand = {
        "dx": {"mean": 2.0, "std": np.sqrt(36 / 5 - 4)},
        "dy": {"mean": 1.0, "std": np.sqrt(69 / 5 - 1)},
        "scalar": {"mean": 3.0, "std": np.sqrt(105 / 5 - 9)},
    }
    assert list(statistics) == list(by_hand)
    for name, values in by_hand.items():
        assert statistics[name] == pytest.approx(values, rel=1e-15)
    assert handwriting.offset_statistics(STEPS[::-1]) == statistics


def test_statistics_are_those_of_each_normalization():
    pairs = {"dx": (2.0, 5.0), "dy": (3.0, 7.0), "scalar": (11.0, 13.0)}
    statistics = {name: {"mean": mean, "std": std} for name, (mean, std) in pairs.items()}
    for kind, mean, std in (
        ("vrnn", (11.0, 11.0, 0.0), (13.0, 13.0, 1.0)),
        ("channel", (2.0, 3.0, 0.0), (5.0, 7.0, 1.0)),
    ):
        chosen = handwriting.normalization_of(statistics, kind)
        assert (chosen.kind, chosen.mean, chosen.std) == (kind, mean, std)
    with pytest.raises(UserError, match="^--normalization=none: accepted are vrnn, channel$"):
        handwriting.normalization_of(statistics, "none")


def test_channel_statistics_are_numpys_and_the_scalar_ones_vrnns():
    rng = np.random.default_rng(0)
    lines = [
        (rng.normal(size=(length, 3)) * (40, 30, 1) + (8, -0.5, 0)).astype(np.float32)
        for length in rng.integers(1, 300, 40)
    ]
    statistics = handwriting.offset_statistics(lines)
    dx, dy = np.concatenate(lines).astype(np.float64)[:, :2].T
    for name, x in (("dx", dx), ("dy", dy)):
        assert statistics[name] == pytest.approx({"mean": x.mean(), "std": x.std()}, rel=1e-12)
    # The sums of Chung et al. (2015), over both, divided by the number of steps.
    variance = (dx**2 + dy**2).mean() - (dx + dy).mean() ** 2
    expected = {"mean": (dx + dy).mean(), "std": np.sqrt(variance)}
    assert statistics["scalar"] == pytest.approx(expected, rel=1e-12)


def test_lines_that_drift_may_have_no_scalar_statistics(tmp_path, capsys):
    steps = np.array([[5, 3, 0], [6, 4, 1]], np.float32)
    statistics = handwriting.offset_statistics([steps])
    # Means 5.5 and 3.5; mean squares 30.5 and 12.5, together less than 9 squared.
    assert list(statistics.values()) == [
        {"mean": 5.5, "std": 0.5},
        {"mean": 3.5, "std": 0.5},
        {"mean": 9.0, "std": None},
    ]
    with pytest.raises(UserError) as error:
        handwriting.normalization_of(statistics, "vrnn")
    assert str(error.value) == (
        "--normalization=vrnn: undefined, since the means of dx and dy, 5.5 and 3.5, are too large "
        "beside their variation; accepted here: channel"
    )
    splits = {"train": split_of(a=(steps, 0))}
    card = write(tmp_path / "records", splits, normalization="channel")
    assert card.normalization.mean == (5.5, 3.5, 0.0) and card.normalization.std == (0.5, 0.5, 1.0)
    assert card.extra["train_statistics"]["scalar"] == {"mean": 9.0, "std": None}
    assert "train scalar: mean 9, std undefined\n" in capsys.readouterr().out


def test_statistics_of_a_straight_line_are_refused():
    with pytest.raises(UserError, match="dx or dy do not vary"):
        handwriting.offset_statistics([np.array([[0.1, 2, 0]] * 7, np.float32)])


# ------------------------------------------------------------------------------- records


def split_of(**lines):
    return [(name, Line(*content)) for name, content in lines.items()]


def write(out, splits=None, **changes):
    arguments = {
        "name": "ours",
        "unit": "mm",
        "normalization": "channel",
        "source_sha256": "5e1f",
        "command": "python -m ours",
        "extra": {"skipped": {"b.json": "is bad"}, "writers": 2},
    }
    if splits is None:
        # Not in the order of their names: this order stays.
        train = split_of(s2=(STEPS[0], 1), s1=(STEPS[1], 2))
        valid = split_of(v=(np.array([[100, -50, 1]] * 4, np.float32), 3))
        splits = {"train": train, "valid": valid}
    return handwriting.write_records(out, splits, **arguments | changes)


def test_records_hold_the_lines_in_their_order(tmp_path, read_back):
    out = tmp_path / "records"
    card = write(out)
    train, valid = read_back(out, "train"), read_back(out, "valid")
    assert list(train) == ["s2", "s1"] and list(valid) == ["v"]
    for name, steps in (("s2", STEPS[0]), ("s1", STEPS[1])):
        np.testing.assert_allclose(train[name], steps, atol=1e-6)
    # Normalised by the statistics of train.
    np.testing.assert_allclose(valid["v"], [[100, -50, 1]] * 4, rtol=1e-6)
    std = (np.sqrt(36 / 5 - 4), np.sqrt(69 / 5 - 1))
    assert card.normalization.kind == "channel"
    assert card.normalization.mean == pytest.approx((2, 1, 0), rel=1e-15)
    assert card.normalization.std == pytest.approx((*std, 1), rel=1e-15)


def test_the_scalar_normalization_is_one_for_both(tmp_path, read_back):
    card = write(tmp_path / "records", normalization="vrnn")
    assert card.normalization.kind == "vrnn"
    assert card.normalization.mean == pytest.approx((3, 3, 0), rel=1e-15)
    assert card.normalization.std == pytest.approx((np.sqrt(12), np.sqrt(12), 1), rel=1e-15)
    train = read_back(tmp_path / "records", "train")
    np.testing.assert_allclose(train["s1"], STEPS[1], atol=1e-6)


def test_card_tells_what_the_records_hold(tmp_path, capsys):
    from stcn_tf.data.card import Modality, read_card

    card = write(tmp_path / "records")
    assert card == read_card(tmp_path / "records")
    assert (card.name, card.source_sha256, card.command) == ("ours", "5e1f", "python -m ours")
    assert card.modality == Modality("handwriting")
    assert [(f.name, f.kind, f.unit) for f in card.features] == [
        ("dx", "real", "mm"),
        ("dy", "real", "mm"),
        ("pen", "binary", "none"),
    ]
    assert not any(split.holds_probabilities for split in card.splits.values())
    statistics = card.extra.pop("train_statistics")
    assert card.extra == {
        "pen_rate": {"train": 2 / 5, "valid": 1.0},
        "one_point_strokes": {"train": 3, "valid": 3},
        "skipped": {"b.json": "is bad"},
        "writers": 2,
    }
    assert list(statistics) == ["dx", "dy", "scalar"]
    assert statistics["dx"] == pytest.approx({"mean": 2.0, "std": np.sqrt(16 / 5)}, rel=1e-15)
    assert statistics["dy"] == pytest.approx({"mean": 1.0, "std": np.sqrt(64 / 5)}, rel=1e-15)
    assert statistics["scalar"] == pytest.approx({"mean": 3.0, "std": np.sqrt(12)}, rel=1e-15)
    assert capsys.readouterr().out.splitlines() == [
        "train: 2 lines, 5 steps, T 2..3, pen rate 0.4000, one-point strokes 3",
        "valid: 1 lines, 4 steps, T 4..4, pen rate 1.0000, one-point strokes 3",
        "train dx: mean 2, std 1.78885",
        "train dy: mean 1, std 3.57771",
        "train scalar: mean 3, std 3.4641",
        "skipped b.json: is bad",
        "skipped 1 entry",
        f"wrote {tmp_path / 'records'} (channel normalisation)",
    ]


def test_nothing_in_the_card_depends_on_the_place(tmp_path, files_of):
    write(tmp_path / "one")
    write(tmp_path / "other")
    files = files_of(tmp_path / "one")
    assert files == files_of(tmp_path / "other")
    assert str(tmp_path) not in json.dumps(files["dataset.json"].decode())


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": {"a": (STEPS[0], 0)}, "test": {}}, "no line is left for the split 'test'"),
        ({"train": {}, "valid": {"a": (STEPS[0], 0)}}, "no line is left for the split 'train'"),
        ({"train": {"a": (STEPS[0][:1], 0)}}, "its dx or dy do not vary"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, splits, message):
    splits = {name: split_of(**lines) for name, lines in splits.items()}
    with pytest.raises(UserError, match=message):
        write(tmp_path / "records", splits)
    assert not list(tmp_path.iterdir())
