"""Texts in any script: drawn as they are where a font has them, else so that they can be told."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont

from stcn_tf import media
from stcn_tf.media import figures
from stcn_tf.media.figures import legible
from stcn_tf.media.lines import draw_values


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


def test_colours_of_numbers_go_from_end_to_end_of_their_scale():
    values = np.array([-9.0, 1.0, 2.0, 3.0, 99.0, np.nan, -np.inf, np.inf])
    colors = media.value_colors(values, (1.0, 3.0))
    low, high = figures.VALUE_COLORS([0.0, 1.0])
    expected = [low, low, figures.VALUE_COLORS(0.5), high, high, low, low, high]
    np.testing.assert_allclose(colors, expected)
    # Darker from one to the other.
    brightness = media.value_colors(np.linspace(1, 3, 20), (1.0, 3.0))[:, :3].sum(axis=1)
    assert (np.diff(brightness) < 0).all()
    np.testing.assert_allclose(media.value_colors(np.ones(2), (1.0, 1.0)), [low, low])


def test_the_same_figure_gives_the_same_svg(tmp_path):
    figure = Figure((4, 1))
    figure.add_axes((0, 0, 1, 1)).plot([1, 2])
    text = media.figure_to_svg(figure)
    assert text == media.figure_to_svg(figure) and "<svg" in text
    media.save_svg(figure, tmp_path / "page.svg")
    assert (tmp_path / "page.svg").read_text() == text


def test_numbers_of_steps_are_bars_on_one_scale():
    values = [np.array([0.0, 2.0, 9.0]), np.array([1.0, np.nan, 0.5])]
    page = draw_values(values, (0.0, 3.0), ["z^2", "z^1"])
    bars = [axes.patches[0].get_data().values for axes in page.axes]
    np.testing.assert_array_equal(bars, [[0, 2, 3], [1, 0, 0.5]])
    assert {axes.get_ylim() for axes in page.axes} == {(0.0, 3.0)}
    assert [axes.get_title(loc="left") for axes in page.axes] == ["z^2", "z^1"]
    with pytest.raises(ValueError, match="labels has 1 entries for 2"):
        draw_values(values, (0.0, 3.0), ["z^1"])
