import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

from stcn_tf import media
from stcn_tf.media import handwriting

# A stroke (0,0) (2,1) (5,1), a dot at (9,-3), and a stroke (9,2) (10,4) that no pen bit ends.
STROKES = np.array(
    [[2, 1, 0], [3, 0, 1], [4, -4, 1], [0, 5, 0], [1, 2, 0]],
    dtype=np.float32,
)


def _line(length: int, seed: int = 0) -> np.ndarray:
    """Something like a line of handwriting: to the right, up and down, pen lifted now and then."""
    rng = np.random.default_rng(seed)
    steps = np.stack([rng.uniform(4, 12, length), 30 * np.cos(np.arange(length))], axis=1)
    return np.column_stack([steps, np.arange(length) % 11 == 10])


def _segments(figure, color):
    """All polylines drawn in a colour, in inches."""
    return [
        segment
        for collection in figure.axes[0].collections
        if isinstance(collection, LineCollection) and to_hex(collection.get_color()[0]) == color
        for segment in collection.get_segments()
    ]


def _dots(figure):
    return [
        np.asarray(offset)
        for collection in figure.axes[0].collections
        if isinstance(collection, PathCollection)
        for offset in collection.get_offsets()
    ]


def _polylines(strokes):
    return handwriting._split(*handwriting._points(strokes))


def test_polylines_are_cut_after_the_point_with_the_pen_bit():
    polylines = _polylines(STROKES)
    expected = [[[0, 0], [2, 1], [5, 1]], [[9, -3]], [[9, 2], [10, 4]]]
    assert len(polylines) == len(expected)
    for polyline, points in zip(polylines, expected, strict=True):
        np.testing.assert_array_equal(polyline, points)


def test_polylines_hold_every_point_once():
    strokes = _line(57)
    points = np.concatenate(_polylines(strokes))
    np.testing.assert_allclose(np.diff(points, axis=0), strokes[:, :2], atol=1e-9)
    assert len(_polylines(strokes)) == 1 + strokes[:-1, 2].sum()


def test_no_steps_leave_the_first_point():
    (polyline,) = _polylines(np.zeros((0, 3)))
    np.testing.assert_array_equal(polyline, [[0, 0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_follows_a_value_that_is_not_finite_is_left_out(bad):
    strokes = STROKES.copy()
    strokes[2, 1] = bad
    (polyline,) = _polylines(strokes)
    np.testing.assert_array_equal(polyline, [[0, 0], [2, 1], [5, 1]])


@pytest.mark.parametrize("shape", [(5,), (5, 2), (2, 5, 3)])
def test_a_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"\[time, 3\].*not \[" + str(shape[0])):
        _polylines(np.zeros(shape))


def test_drawing_keeps_shapes_equal_in_aspect_and_scale():
    figure = media.draw_handwriting([STROKES, 2 * STROKES], width_inches=7.0)
    axes = figure.axes[0]
    width, height = figure.get_size_inches()
    # Axes units are inches, so shapes are not distorted.
    assert width == 7.0
    assert axes.get_xlim() == pytest.approx((0, width))
    assert axes.get_ylim() == pytest.approx((-height, 0))
    segments = _segments(figure, media.INK)
    scale = (7.0 - 2 * 0.1) / 20  # the longer row spans 20 units
    scale = min(scale, 1.2 / 10.5)  # unless its rows, 7 and 14 units high, would get too high
    for segment, factor in zip(segments, [1, 1, 2, 2], strict=True):
        drawn = (segment - segment[0]) / scale / factor
        shape = [[0, 0], [2, 1], [5, 1]] if len(segment) == 3 else [[0, 0], [1, 2]]
        np.testing.assert_allclose(drawn, shape, atol=1e-6)


def test_rows_lie_below_each_other_inside_the_figure():
    rows = [_line(40, seed) for seed in range(3)]
    figure = media.draw_handwriting(rows, labels=["a", "b_$1$ $", "c"])
    counts = [sum(len(p) > 1 for p in _polylines(row)) for row in rows]
    segments = _segments(figure, media.INK)
    assert len(segments) == sum(counts)
    starts = np.cumsum([0, *counts])
    spans = [np.concatenate(segments[a:b]) for a, b in zip(starts, starts[1:], strict=False)]
    width, height = figure.get_size_inches()
    for upper, lower in zip(spans, spans[1:], strict=False):
        assert upper[:, 1].min() > lower[:, 1].max()
    assert 0 < min(s[:, 0].min() for s in spans) and max(s[:, 0].max() for s in spans) < width
    assert -height < spans[-1][:, 1].min() and spans[0][:, 1].max() < 0
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b_$1$ $", "c"]
    media.figure_to_rgb(figure)  # the label is no formula


def test_a_stroke_of_one_point_is_a_visible_dot():
    alone = np.array([[0, 0, 1], [300, 0, 1]])
    figure = media.draw_handwriting([alone])
    assert len(_dots(figure)) == 1
    ink = (media.figure_to_rgb(figure) < 128).any(axis=-1)
    assert ink[:, -40:].sum() >= 4


def test_a_runaway_row_leaves_the_others_legible():
    ordinary = [_line(200, seed) for seed in range(3)]
    runaway = _line(200, 3)
    runaway[100:, :2] *= 1e5
    before = media.draw_handwriting(ordinary)
    after = media.draw_handwriting([*ordinary, runaway])
    shrunk = np.ptp(np.concatenate(_segments(after, media.INK)[:5])[:, 0]) / np.ptp(
        np.concatenate(_segments(before, media.INK)[:5])[:, 0]
    )
    assert 0.3 < shrunk <= 1
    assert after.get_size_inches()[1] < 4 * before.get_size_inches()[1]
    media.figure_to_rgb(after)


def test_one_jump_does_not_shrink_its_own_row():
    strokes = _line(200)
    jump = strokes.copy()
    jump[-2, :2] = 1e6
    usual, cut = media.draw_handwriting([strokes]), media.draw_handwriting([jump])
    width, other = (np.ptp(_segments(f, media.INK)[0][:, 0]) for f in (usual, cut))
    assert 0.3 * width < other
    ink = (media.figure_to_rgb(cut) < 128).any(axis=-1)
    assert ink.any()


def test_ordinary_rows_are_shown_whole():
    figure = media.draw_handwriting([_line(300), _line(40), _line(1)])
    points = np.concatenate(_segments(figure, media.INK))
    width, height = figure.get_size_inches()
    assert points.min(axis=0) == pytest.approx([0.1, points[:, 1].min()])
    assert points[:, 0].max() < width and points[:, 1].min() > -height


@pytest.mark.parametrize(
    ("given", "prefix_points", "rest_points"),
    [(0, 0, 5), (1, 2, 4), (2, 3, 2), (4, 3, 2), (5, 5, 0), (9, 5, 0)],
)
def test_the_given_beginning_has_its_own_colour(given, prefix_points, rest_points):
    figure = media.draw_handwriting([STROKES], prefix_lengths=[given])
    count = {
        color: sum(len(segment) for segment in _segments(figure, color))
        for color in (media.PREFIX_INK, media.INK)
    }
    assert count == {media.PREFIX_INK: prefix_points, media.INK: rest_points}


def test_reconstructions_lie_below_their_originals():
    originals, reconstructions = [_line(30), _line(45)], [_line(33, 1), _line(41, 2)]
    figure = media.draw_reconstruction(originals, reconstructions)
    for color, rows in [
        (media.INK, originals),
        (media.RECONSTRUCTION_INK, reconstructions),
    ]:
        expected = [len(p) for row in rows for p in _polylines(row)]
        assert [len(s) for s in _segments(figure, color)] == [n for n in expected if n > 1]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["original", "reconstruction"] * 2
    figure = media.draw_reconstruction(originals, reconstructions, labels=["ELBO 5", "ELBO 7"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[1::2] == ["reconstruction, ELBO 5", "reconstruction, ELBO 7"]


def test_counts_must_agree():
    with pytest.raises(ValueError, match="labels has 1 entries for 2 sequences"):
        media.draw_handwriting([STROKES, STROKES], labels=["one"])
    with pytest.raises(ValueError, match="prefix_lengths has 3 entries for 1 sequences"):
        media.draw_handwriting([STROKES], prefix_lengths=[1, 2, 3])
    with pytest.raises(ValueError, match="reconstructions has 1 entries for 2"):
        media.draw_reconstruction([STROKES, STROKES], [STROKES])
    with pytest.raises(ValueError, match="labels has 2 entries for 1 sequences"):
        media.draw_reconstruction([STROKES], [STROKES], labels=["a", "b"])
    with pytest.raises(ValueError, match="no sequences"):
        media.draw_handwriting([])


def test_rgb_has_the_figures_size_and_shows_ink():
    figure = media.draw_handwriting([_line(50)], width_inches=6.0)
    rgb = media.figure_to_rgb(figure)
    width, height = figure.get_size_inches()
    assert rgb.dtype == np.uint8
    assert rgb.shape == (int(height * 150), 900, 3)
    assert (rgb == 255).all(axis=-1).mean() > 0.5
    assert (rgb < 128).any()


@pytest.mark.parametrize(
    ("save", "name", "magic"),
    [(media.save_png, "a.png", b"\x89PNG"), (media.save_svg, "a.svg", b"<?xml")],
)
def test_files_are_whole_and_reproducible(tmp_path, save, name, magic):
    first, second = tmp_path / "one" / name, tmp_path / "two" / name
    for path in (first, second):
        save(media.draw_handwriting([_line(50)], labels=["x"], prefix_lengths=[20]), path)
        assert [entry.name for entry in path.parent.iterdir()] == [name]
    assert first.read_bytes().startswith(magic)
    assert first.read_bytes() == second.read_bytes()


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = media.draw_handwriting([STROKES])

    def interrupted(partial, **_):
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        media.save_png(figure, path)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.png", b"old")]


def test_each_step_has_the_colour_of_its_number():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    figure = handwriting.draw_colored_handwriting(
        STROKES, [values, values[::-1]], (0.0, 4.0), ["first", "second"]
    )
    colors = media.value_colors(values, (0.0, 4.0))
    assert len({tuple(color) for color in colors}) == 5
    lines = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    # Steps 0 and 1 are a stroke; 2 leads to the dot; 3 to the last stroke without ink, which is 4.
    for row, expected in zip(lines, (colors, colors[::-1]), strict=True):
        np.testing.assert_allclose(row.get_colors(), expected[[0, 1, 4]])
        lengths = [np.hypot(*(end - start)) for start, end in row.get_segments()]
        scale = lengths[0] / np.hypot(2, 1)
        np.testing.assert_allclose(lengths, scale * np.hypot([2, 3, 1], [1, 0, 2]), rtol=1e-6)
    spots = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    np.testing.assert_allclose(spots[0].get_facecolor(), colors[[2]])
    np.testing.assert_allclose(spots[1].get_facecolor(), colors[[2]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["first", "second"]
    # The strokes lie where those in one colour do.
    plain = media.draw_handwriting([STROKES, STROKES], ["first", "second"])
    for one, other in zip(_dots(figure), _dots(plain), strict=True):
        np.testing.assert_allclose(one, other)
    with pytest.raises(ValueError, match="values has 4 entries for 5"):
        handwriting.draw_colored_handwriting(STROKES, [values[1:]], (0.0, 4.0), ["first"])
