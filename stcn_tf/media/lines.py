"""Sequences of which nothing is known but their numbers: each feature as a line over the steps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from stcn_tf.media.figures import (
    DPI,
    INK,
    LABEL_COLOR,
    LABEL_SIZE,
    VALUE_COLORS,
    legible,
    require_one_per_row,
)

if TYPE_CHECKING:
    from stcn_tf.data.card import Feature

MOST_FEATURES = 6  # with a line (or a histogram, on the page of `data_prep.show`) each


def draw_lines(
    sequences: Sequence[np.ndarray],
    features: Sequence["Feature"],
    labels: Sequence[str] | None = None,
    width_inches: float = 10.0,
) -> Figure:
    """Draws a row of plots for each sequence, one for each of the first features.

    Args:
        sequences: [time, features] each, raw units.
        features: what they are.
        labels: a text above each row.
        width_inches: width of the figure; its height follows from the rows.
    """
    if labels is not None:
        require_one_per_row("labels", labels, sequences)
    shown = features[:MOST_FEATURES]
    figure = Figure((width_inches, 0.6 + 1.1 * len(sequences)), dpi=DPI, layout="constrained")
    shape = len(sequences), len(shown)
    grid = figure.subplots(*shape, sharex=True, sharey="col", squeeze=False)
    style = {"fontsize": LABEL_SIZE, "color": LABEL_COLOR, "loc": "left"}
    for row, (axes_of_row, x) in enumerate(zip(grid, sequences, strict=True)):
        for axes, values in zip(axes_of_row, x.T, strict=False):
            axes.plot(values, color=INK, linewidth=0.7)
            axes.tick_params(labelsize=LABEL_SIZE)
            axes.spines[["top", "right"]].set_visible(False)
        if labels is not None:
            label, fonts = legible(labels[row])
            axes_of_row[0].set_title(label, pad=3, **style, **fonts)
    for top, bottom, feature in zip(grid[0], grid[-1], shown, strict=True):
        unit = "" if feature.unit in ("", "none") else f" ({feature.unit})"
        name, fonts = legible(f"{feature.name}{unit}")
        place = {"xycoords": "axes fraction", "xytext": (0, 16), "textcoords": "offset points"}
        top.annotate(name, xy=(0, 1), fontsize=LABEL_SIZE, **place, **fonts)
        bottom.set_xlabel("step", fontsize=LABEL_SIZE)
    return figure


def draw_values(
    values: Sequence[np.ndarray],
    scale: tuple[float, float],
    labels: Sequence[str],
    width_inches: float = 10.0,
) -> Figure:
    """Draws a row of bars for each kind of numbers, one for each step.

    Args:
        values: [time] each, numbers of the steps of one sequence.
        scale: the lowest and the highest that is shown, of all rows.
        labels: a text above each row.
        width_inches: width of the figure; its height follows from the rows.
    """
    require_one_per_row("labels", labels, values)
    figure = Figure((width_inches, 0.4 + 0.7 * len(values)), dpi=DPI, layout="constrained")
    grid = figure.subplots(len(values), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    style = {"fontsize": LABEL_SIZE, "color": LABEL_COLOR, "loc": "left"}
    bars = {"baseline": scale[0], "fill": True, "color": VALUE_COLORS(1.0)}
    for axes, row, text in zip(grid, values, labels, strict=True):
        edges = np.arange(len(row) + 1) - 0.5
        heights = np.clip(np.nan_to_num(row, nan=scale[0]), *scale)
        axes.stairs(heights, edges, **bars)
        axes.set_xlim(edges[0], edges[-1])
        axes.tick_params(labelsize=LABEL_SIZE)
        axes.spines[["top", "right"]].set_visible(False)
        label, fonts = legible(text)
        axes.set_title(label, pad=3, **style, **fonts)
    grid[0].set_ylim(scale[0], max(scale[1], scale[0] + 1e-12))
    grid[-1].set_xlabel("step", fontsize=LABEL_SIZE)
    return figure
