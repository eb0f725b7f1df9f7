"""Lines of handwriting: drawn below each other.

Strokes are `[time, 3]` arrays of dx, dy (raw units, y upwards) and pen. Step t moves from point t
to point t + 1; its pen bit is 1 where that later point is the last of its stroke. Point 0, which
the differences leave out, is the origin.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stcn_tf.media.figures import (
    DPI,
    INK,
    LABEL_COLOR,
    LABEL_SIZE,
    PREFIX_INK,
    RECONSTRUCTION_INK,
    legible,
    require_one_per_row,
    value_colors,
)
from stcn_tf.media.medium import Medium
from stcn_tf.media.reconstructions import Reconstructions

_LINE_WIDTH = 0.9  # points
_COLORED_WIDTH = 1.6  # points, of what is told by its colour
_MARGIN = 0.1  # inches, around the figure and between rows
_LABEL_HEIGHT = 0.16  # inches
_MAX_ROW_HEIGHT = 1.2  # inches, of a row of ordinary height


class Handwriting(Medium):
    """Lines of handwriting: a step is dx, dy, pen."""

    array = "strokes"
    num_shown = 8
    most_pictured = 40  # a PNG has a largest height

    def draw_samples(
        self,
        sequences: Sequence[np.ndarray],
        given: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
        width_inches: float = 10.0,
    ) -> Figure:
        """See `Medium.draw_samples`: one line below the other."""
        return draw_handwriting(sequences, labels, width_inches, given)

    def draw_reconstructions(self, rebuilt: Reconstructions) -> Figure:
        """See `Medium.draw_reconstructions`: each line below its original."""
        return draw_reconstruction(
            rebuilt.originals, rebuilt.reconstructions, labels=self.log_likelihoods(rebuilt)
        )

    def draw_values(
        self,
        sequence: np.ndarray,
        values: Sequence[np.ndarray],
        scale: tuple[float, float],
        labels: Sequence[str],
    ) -> Figure:
        """See `Medium.draw_values`: the line once for each kind of numbers, in their colours."""
        return draw_colored_handwriting(sequence, values, scale, labels)


def draw_handwriting(
    sequences: Sequence[np.ndarray],
    labels: Sequence[str] | None = None,
    width_inches: float = 10.0,
    prefix_lengths: Sequence[int] | None = None,
) -> Figure:
    """Draws one line of handwriting per row, all to one scale.

    A row whose strokes run far away, as those of an untrained model do, is cut off, so that the
    others stay legible; its label says so.

    Args:
        sequences: `[time, 3]` arrays of dx, dy, pen in raw units.
        labels: a text above each row.
        width_inches: width of the figure; its height follows from the rows.
        prefix_lengths: for each row, how many steps were given to the model; they are drawn in
            another colour.

    Returns:
        The figure, for `save_png`, `save_svg` or `figure_to_rgb`.

    Raises:
        ValueError: no sequences, a wrong shape, or labels or prefixes that are not one per row.
    """
    if prefix_lengths is None:
        prefix_lengths = [0] * len(sequences)
    require_one_per_row("prefix_lengths", prefix_lengths, sequences)
    return _draw_rows(sequences, labels, width_inches, prefix_lengths, [INK] * len(sequences))


def draw_reconstruction(
    originals: Sequence[np.ndarray],
    reconstructions: Sequence[np.ndarray],
    width_inches: float = 10.0,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Draws each original line with its reconstruction below it, all to one scale.

    Args:
        originals: `[time, 3]` arrays of dx, dy, pen in raw units.
        reconstructions: as many arrays of the same kind.
        width_inches: width of the figure.
        labels: for each reconstruction, what to say about it.

    Raises:
        ValueError: no sequences, a wrong shape, or unequal numbers.
    """
    require_one_per_row("reconstructions", reconstructions, originals)
    rows = [row for pair in zip(originals, reconstructions, strict=True) for row in pair]
    captions = ["original", "reconstruction"] * len(originals)
    if labels is not None:
        require_one_per_row("labels", labels, originals)
        captions[1::2] = [f"reconstruction, {label}" for label in labels]
    inks = [INK, RECONSTRUCTION_INK] * len(originals)
    return _draw_rows(rows, captions, width_inches, [0] * len(rows), inks)


def draw_colored_handwriting(
    strokes: np.ndarray,
    values: Sequence[np.ndarray],
    scale: tuple[float, float],
    labels: Sequence[str],
    width_inches: float = 10.0,
) -> Figure:
    """Draws one line of handwriting once for each kind of numbers, each step in its colour.

    The movement between two strokes leaves no ink, so its number is not seen.

    Args:
        strokes: `[time, 3]` dx, dy, pen in raw units.
        values: `[time]` each, a number for each step.
        scale: the numbers that the lowest and the highest colour stand for.
        labels: a text above each row.
        width_inches: width of the figure.

    Raises:
        ValueError: no numbers, a wrong shape, or labels that are not one per row.
    """
    for row in values:
        require_one_per_row("values", row, strokes)
    colors = [value_colors(row, scale) for row in values]
    num = len(values)
    return _draw_rows([strokes] * num, labels, width_inches, [0] * num, colors)


def _points(strokes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All points `[time + 1, 2]` and whether each ends its stroke `[time + 1]`."""
    strokes = np.asarray(strokes, dtype=np.float64)
    if strokes.ndim != 2 or strokes.shape[1] != 3:
        raise ValueError(f"strokes must be [time, 3] (dx, dy, pen), not {list(strokes.shape)}")
    with np.errstate(over="ignore", invalid="ignore"):
        points = np.cumsum(np.vstack([np.zeros((1, 2)), strokes[:, :2]]), axis=0)
    ends = np.concatenate([[False], strokes[:, 2] > 0.5])
    finite = np.isfinite(points).all(axis=1)
    return points[finite], ends[finite]


def _split(points: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """Cuts `[n, 2]` points after each that ends its stroke."""
    pieces = np.split(points, np.flatnonzero(ends) + 1)
    return [piece for piece in pieces if len(piece)]


def _draw_rows(
    sequences: Sequence[np.ndarray],
    labels: Sequence[str] | None,
    width_inches: float,
    prefix_lengths: Sequence[int],
    inks: Sequence[str | np.ndarray],
) -> Figure:
    """`inks`: of each row the colour, or `[time, 4]` the colours of its steps."""
    if not len(sequences):
        raise ValueError("there are no sequences to draw")
    if labels is not None:
        require_one_per_row("labels", labels, sequences)
    rows = [_points(strokes) for strokes in sequences]
    lows, highs = _views([points for points, _ in rows])
    sizes = highs - lows
    ordinary_height = np.median(sizes[:, 1])
    # Inches per raw unit: the longest row fills the width, unless letters would be gigantic.
    scale = min(
        (width_inches - 2 * _MARGIN) / max(sizes[:, 0].max(), 1e-6),
        _MAX_ROW_HEIGHT / max(ordinary_height, 1e-6),
    )
    above = _MARGIN + (0.0 if labels is None else _LABEL_HEIGHT)
    height_inches = float((above + sizes[:, 1] * scale).sum() + _MARGIN)

    figure = Figure(figsize=(width_inches, height_inches), dpi=DPI)
    # Axes over the whole figure whose units are inches, y downwards from the top as negatives.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width_inches), ylim=(-height_inches, 0))
    axes.set_axis_off()
    top = 0.0
    for i, (points, ends) in enumerate(rows):
        if labels is not None:
            is_cut = (points < lows[i]).any() or (points > highs[i]).any()
            label, fonts = legible(f"{labels[i]}, cut off" if is_cut else labels[i])
            style = fonts | {"fontsize": LABEL_SIZE, "color": LABEL_COLOR, "va": "top"}
            axes.text(_MARGIN, top - _MARGIN, label, **style)
        bottom = top - above - sizes[i, 1] * scale
        placed = (points - lows[i]) * scale + [_MARGIN, bottom]
        # Ink far outside of the figure would only strain the renderer.
        placed = np.clip(placed, -1e3, 1e3)
        window = Rectangle(
            (0, bottom - _MARGIN / 2), width_inches, sizes[i, 1] * scale + _MARGIN, visible=False
        )
        axes.add_patch(window)
        given = min(prefix_lengths[i], len(points) - 1)
        if given > 0:
            _draw_ink(axes, placed[: given + 1], ends[: given + 1], PREFIX_INK, window)
        if given < len(points) - 1 or given == 0:
            # The stroke that the prefix leaves open goes on from the prefix's last point.
            start = given + 1 if ends[given] else given
            ink = inks[i]
            if not isinstance(ink, str):  # point t + 1 is where step t leads; point 0 draws nothing
                ink = np.concatenate([ink[:1], ink])[start : len(points)]
            _draw_ink(axes, placed[start:], ends[start:], ink, window)
        top = bottom
    return figure


def _views(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The part of each row to show: lower left and upper right corners, each `[rows, 2]`.

    All of an ordinary row. Few points that lie far from the others are left out, and so is what
    lies farther from the row's beginning than three times the usual extent of the rows, or the
    usual extent per step times the row's steps: long lines are wider than short ones.
    """
    core_lows, core_highs = (
        np.stack([np.percentile(points, q, axis=0) for points in rows]) for q in (2, 98)
    )
    reach = core_highs - core_lows
    lows = np.maximum(np.stack([points.min(axis=0) for points in rows]), core_lows - reach)
    highs = np.minimum(np.stack([points.max(axis=0) for points in rows]), core_highs + reach)
    lengths = np.array([[len(points)] for points in rows])
    extents = np.where(highs > lows, highs - lows, np.nan)  # [rows, 2]
    # A row without extent says nothing. Of an even number of rows the lower one is the median: of
    # two, the smaller is taken for the usual one.
    limit = np.full((len(rows), 2), np.inf)
    for axis in np.flatnonzero(np.isfinite(extents).any(axis=0)):
        told = np.isfinite(extents[:, axis])
        usual, rate = (
            np.percentile(values[told], 50, method="lower")
            for values in (extents[:, axis], extents[:, axis] / lengths[:, 0])
        )
        limit[:, axis] = 3 * np.maximum(usual, rate * lengths[:, 0])
    return np.clip(lows, -limit, limit), np.clip(highs, -limit, limit)


def _draw_ink(
    axes: Axes,
    points: np.ndarray,
    ends: np.ndarray,
    color: str | np.ndarray,
    window: Rectangle,
) -> None:
    """`color`: of all, or `[points, 4]` that of what leads to each point."""
    is_start = np.concatenate([[True], ends[:-1]])
    is_dot = is_start & np.concatenate([ends[:-1], [True]])
    width = _LINE_WIDTH if isinstance(color, str) else _COLORED_WIDTH
    if isinstance(color, str):
        lines = [line for line in _split(points, ends) if len(line) > 1]
        of_lines = of_dots = color
    else:
        inked = np.flatnonzero(~is_start)
        lines = np.stack([points[inked - 1], points[inked]], axis=1)
        of_lines, of_dots = color[inked], color[is_dot]
    ink = LineCollection(
        lines, linewidths=width, colors=of_lines, capstyle="round", joinstyle="round"
    )
    axes.add_collection(ink, autolim=False)
    ink.set_clip_path(window)
    spots = axes.scatter(*points[is_dot].T, s=(2 * width) ** 2, color=of_dots, linewidths=0)
    spots.set_clip_path(window)
