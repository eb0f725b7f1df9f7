"""What all pictures share: colours, and figures to PNG, SVG and arrays."""

import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stcn_tf.support.files import replacing_file

INK = "#1b1f3b"
PREFIX_INK = "#c2452d"
RECONSTRUCTION_INK = "#1f6f8b"
LABEL_COLOR = "gray"
LABEL_SIZE = 7  # points
DPI = 150


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a PNG, whole or not at all; the same figure gives the same bytes."""
    with replacing_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def save_svg(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes an SVG, whole or not at all; the same figure gives the same bytes."""
    # Without a salt of their own the ids of clip paths are random.
    with replacing_file(path) as partial, matplotlib.rc_context({"svg.hashsalt": "stcn_tf"}):
        figure.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})


def figure_to_rgb(figure: Figure) -> np.ndarray:
    """The figure as uint8 `[height, width, 3]`, for TensorBoard."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def require_one_per_row(name: str, values: Sequence, rows: Sequence) -> None:
    """Checks that there is one value for each row.

    Raises:
        ValueError: there is not.
    """
    if len(values) != len(rows):
        raise ValueError(f"{name} has {len(values)} entries for {len(rows)} sequences")
