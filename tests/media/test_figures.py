"""Texts in any script: drawn as they are where a font has them, else so that they can be told."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont

from stcn_tf import media
from stcn_tf.media import figures
from stcn_tf.media.figures import legible


@pytest.fixture
def no_other_fonts(monkeypatch):
    monkeypatch.setattr(figures, "_family_with", lambda character: None)


def drawn(text, **style):
    figure = Figure((4, 1))
    figure.text(0.1, 0.5, text, **style)
    return media.figure_to_rgb(figure)  # a missing glyph would warn, which is an error here


@pytest.mark.parametrize("family", ["sans-serif", "monospace"])
@pytest.mark.parametrize("text", ["почерк, γραφή", "خط عربي", "a_$x$ 1", ""])
def test_what_the_usual_font_has_is_drawn_as_it_is(text, family):
    assert legible(text, family) == (text, {"family": [family], "parse_math": False})
    drawn(text, **legible(text, family)[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("手a", r"\u624ba"),
        ("हिन्दी", r"\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("🙂", r"\U0001f642"),
        ("a\nb\t\x1b[2J", r"a\nb\t\x1b[2J"),
        ("نامه\u200cها", "نامهها"),  # joiners direct, and are not drawn
    ],
)
def test_what_no_font_has_is_escaped(no_other_fonts, text, expected):
    shown, style = legible(text)
    assert shown == expected
    drawn(shown, **style)


def test_other_installed_fonts_are_used():
    """Of matplotlib's own fonts, STIX has what DejaVu lacks."""
    usual, stix = (
        figures._characters(findfont(FontProperties(family=[family])))
        for family in ("sans-serif", "STIXGeneral")
    )
    character = next(chr(code) for code in sorted(stix - usual) if chr(code).isalpha())
    shown, style = legible(f"a{character}")
    assert shown == f"a{character}"
    assert style["family"][0] == "sans-serif" and len(style["family"]) == 2
    with_it, without = drawn(shown, **style), drawn("a", family="sans-serif")
    assert np.any(with_it != without)
