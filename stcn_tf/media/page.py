"""Any kind of sequences on pages: which kind those of a card are, and a page as PNG and SVG."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from stcn_tf.media.audio import Audio
from stcn_tf.media.figures import save_png, save_svg
from stcn_tf.media.handwriting import Handwriting
from stcn_tf.media.images import Images
from stcn_tf.media.medium import Medium

if TYPE_CHECKING:
    from stcn_tf.data.card import DatasetCard

_MEDIA = {"handwriting": Handwriting, "audio": Audio, "image": Images, "other": Medium}


def medium_of(card: "DatasetCard") -> Medium:
    """What goes with the modality of a card.

    Args:
        card: of the records.
    """
    return _MEDIA[card.modality.kind](card)


def write_page(
    medium: Medium,
    out: Path,
    name: str,
    num: int,
    draw: Callable[[int], Figure],
    rows_each: int = 1,
) -> str:
    """Writes `NAME.png` and `NAME.svg` of the first sequences, as many as fit on a page.

    Args:
        medium: of the sequences.
        out: the folder.
        name: of the files.
        num: sequences that there are.
        draw: called with the number of sequences to draw.
        rows_each: how many rows of the page one sequence takes.

    Returns:
        What to say about it after the names of other files.
    """
    num = min(num, medium.most_pictured // rows_each)
    if not num:
        return f" (no picture: {medium.card.name} is neither handwriting, audio nor images)"
    page = draw(num)
    save_png(page, out / f"{name}.png")
    save_svg(page, out / f"{name}.svg")
    return f", and the first {num} in {name}.png and {name}.svg"
