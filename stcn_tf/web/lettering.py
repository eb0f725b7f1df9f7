"""A text as strokes of Hershey's cursive script: a beginning for those without a pen."""

import functools

from HersheyFonts import HersheyFonts

MOST_CHARACTERS = 60
ACCEPTED = "".join(chr(code) for code in range(0x20, 0x7F))


@functools.cache
def _font() -> tuple[HersheyFonts, float]:
    """The font, and the height of its small letters."""
    font = HersheyFonts()
    font.load_default_font("scripts")
    heights = [y for stroke in font.strokes_for_text("x") for _, y in stroke]
    return font, max(heights) - min(heights)


def strokes_of(text: str) -> list[list[tuple[float, float]]]:
    """The strokes of a text, x to the right and y downwards, small letters 1 high."""
    font, height = _font()
    return [[(x / height, y / height) for x, y in stroke] for stroke in font.strokes_for_text(text)]
