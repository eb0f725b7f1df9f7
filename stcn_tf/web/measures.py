"""How large a model writes, seen from what it writes by itself: no records are needed."""

from collections.abc import Callable

import numpy as np

from stcn_tf.web.engine import Engine, Temperatures

_ROWS, _STEPS = 8, 192


def of_writing(engine: Engine) -> dict[str, float]:
    """The median height of strokes and the mean length of steps within them, raw units.

    The records' standard deviation stands in for what strokes without any extent do not tell.
    """
    state = engine.begin([np.zeros((0, 3), np.float32)] * _ROWS, 0, 1.0)
    (x,), _ = engine.steps([state], _STEPS, [Temperatures()])
    std = engine.card.normalization.std[1]
    heights, lengths = [], []
    for row in x:
        y = np.concatenate([[0.0], np.cumsum(row[:, 1], dtype=np.float64)])
        starts = np.flatnonzero(row[:-1, 2] > 0.5) + 2  # of strokes, among the points
        pieces = np.split(y, starts)
        heights += [piece.max() - piece.min() for piece in pieces if len(piece) > 1]
        within = np.concatenate([[True], row[:-1, 2] < 0.5])
        lengths += list(np.hypot(row[within, 0], row[within, 1]))
    return {
        "stroke_height": _middle(heights, 5.0 * std),
        "step_length": _middle(lengths, std, np.mean),
    }


def _middle(values: list[float], otherwise: float, of: Callable = np.median) -> float:
    """That of the values without the few that are far away."""
    found = np.array([value for value in values if np.isfinite(value) and value > 0])
    if not len(found):
        return float(otherwise)
    return float(of(found[found <= np.percentile(found, 98)]))
