"""Pieces of HTML, for notebooks."""

import base64
import dataclasses
import html
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Picture:
    """An SVG that a notebook shows."""

    svg: str

    def __repr__(self) -> str:
        return f"<picture of {len(self.svg):,} characters>"

    def _repr_svg_(self) -> str:
        return self.svg


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table.

    Args:
        head: names of the columns.
        rows: their cells, text; the first names the row.
        caption: above it.
    """
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    lines = [f"<table>{above}", f"<tr>{cells}</tr>"]
    for first, *others in rows:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in others)
        lines.append(f'<tr><th style="text-align: left">{html.escape(first)}</th>{cells}</tr>')
    return "\n".join([*lines, "</table>"])


def image(svg: str, alternative: str) -> str:
    """A picture.

    Args:
        svg: the picture.
        alternative: what it shows, for those who do not see it.
    """
    # Not part of the page itself: ids in it may be those of other pictures.
    source = data_uri("image/svg+xml", svg.encode())
    return f'<img alt="{html.escape(alternative)}" src="{source}"/>'


def player(wav: bytes, name: str) -> str:
    """A player of a WAV file.

    Args:
        wav: the file.
        name: of the sound.
    """
    source, name = data_uri("audio/wav", wav), html.escape(name)
    return f'<audio controls title="{name}" src="{source}"></audio>'


def data_uri(kind: str, content: bytes) -> str:
    """The content of a file in the place of its address.

    Args:
        kind: its media type, as image/png.
        content: of the file.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
