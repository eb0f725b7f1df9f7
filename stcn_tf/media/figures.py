"""What all pictures share: colours, texts in any script, and figures to PNG, SVG and arrays."""

import functools
import io
import os
import unicodedata
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font

from stcn_tf.support.files import replacing_file

INK = "#1b1f3b"
PREFIX_INK = "#c2452d"
RECONSTRUCTION_INK = "#1f6f8b"
LABEL_COLOR = "gray"
LABEL_SIZE = 7  # points
DPI = 150
# What a number of a step looks like, from the lowest to the highest of a scale.
VALUE_COLORS = LinearSegmentedColormap.from_list("values", ["#bcc2d8", "#e07b39", "#7d0d0d"])


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a PNG, whole or not at all; the same figure gives the same bytes."""
    with replacing_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def save_svg(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes an SVG, whole or not at all; the same figure gives the same bytes."""
    with replacing_file(path) as partial:
        partial.write_text(figure_to_svg(figure), encoding="utf-8")


def figure_to_svg(figure: Figure) -> str:
    """The figure as SVG, the same for the same figure."""
    content = io.BytesIO()
    # Without a salt of their own the ids of clip paths are random.
    with matplotlib.rc_context({"svg.hashsalt": "stcn_tf"}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue().decode()


def figure_to_rgb(figure: Figure) -> np.ndarray:
    """The figure as uint8 `[height, width, 3]`, for TensorBoard."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def legible(text: str, family: str = "sans-serif") -> tuple[str, dict[str, Any]]:
    """How a text in any script, no formula, is drawn without warnings.

    What the usual font lacks is drawn with others that are installed; what none has is escaped as
    in Python, so that names can still be told apart.

    Args:
        text: to be drawn; what joins or directs its characters is left out.
        family: of the usual font.

    Returns:
        The text, and the keywords that matplotlib needs with it.
    """
    usual = _characters(findfont(FontProperties(family=[family])))
    drawn, families = [], [family]
    for character in text:
        if unicodedata.category(character) == "Cf":
            continue
        if ord(character) in usual:
            drawn.append(character)
        elif other := _family_with(character):
            drawn.append(character)
            families.append(other)
        else:
            drawn.append(character.encode("unicode_escape").decode())
    return "".join(drawn), {"family": list(dict.fromkeys(families)), "parse_math": False}


@functools.cache
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # gone, or of a kind that cannot be drawn
        return frozenset()


@functools.cache
def _family_with(character: str) -> str | None:
    for font in fontManager.ttflist:
        # A last resort has a box for everything.
        if "last" not in font.name.lower() and ord(character) in _characters(font.fname):
            return font.name
    return None


def value_colors(values: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """[steps, 4]: the colours of numbers [steps] on a scale from its low to its high end.

    What lies beyond an end has its colour; what is no number the lowest.
    """
    low, high = scale
    with np.errstate(invalid="ignore", over="ignore"):
        relative = (np.asarray(values, np.float64) - low) / max(high - low, 1e-12)
    return VALUE_COLORS(np.clip(np.nan_to_num(relative, nan=0.0), 0.0, 1.0))


def require_one_per_row(name: str, values: Sequence, rows: Sequence) -> None:
    """Checks that there is one value for each row.

    Raises:
        ValueError: there is not.
    """
    if len(values) != len(rows):
        raise ValueError(f"{name} has {len(values)} entries for {len(rows)} sequences")
