"""A report as Markdown, LaTeX and one HTML page that needs nothing else. No TensorFlow."""

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from stcn_tf.media.figures import save_png, save_svg
from stcn_tf.reporting.tables import Table
from stcn_tf.support import markup
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home, replacing_folder

_PAGE = "report.html"
_OWN_FILES = re.compile(r"report\.(html|md|tex)|(curves|figure)_[\w-]+\.(png|svg)")
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$"},
    **{"≥": r"$\geq$", "≤": r"$\leq$", "≈": r"$\approx$", "±": r"$\pm$", "†": r"\dag{}"},
    **{"–": r"\textendash{}", "`": r"\textasciigrave{}"},
    **{"[": "{[}", "]": "{]}", '"': "''", "|": r"\textbar{}", "*": "{*}"},
}
_STYLE = """
:root { color-scheme: light dark; --line: #c8ccd4; --soft: #f3f4f7; --apart: #8a4b00; }
@media (prefers-color-scheme: dark) { :root { --line: #454b57; --soft: #22262e;
  --apart: #f0b860; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 110rem; padding: 1rem; }
.scroll { overflow-x: auto; } .scroll:focus { outline: 2px solid; }
table { border-collapse: collapse; font-size: 13px; }
caption { text-align: left; font-weight: 600; font-size: 16px; padding: .5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left;
  vertical-align: top; font-variant-numeric: tabular-nums; overflow-wrap: break-word;
  min-width: 4rem; }
thead th { border-bottom: 2px solid; overflow-wrap: normal; } tbody th { font-weight: 500; }
tr.ours { background: var(--soft); } tr.apart td { color: var(--apart); }
tr.cited { font-style: italic; } p, h2 { max-width: 60rem; }
p.note { font-size: 13px; margin: .3rem 0; }
figure { margin: 2rem 0; } img { max-width: 100%; background: #fff; padding: 4px; }
"""


class Paragraph(NamedTuple):
    """Of the text at the head of a report."""

    text: str
    is_heading: bool


class Picture(NamedTuple):
    """A picture of a report, which has it as NAME.png and NAME.svg."""

    name: str
    figure: Figure
    caption: str  # what it shows, for those who do not see it, too


class _Content(NamedTuple):
    """What every page says."""

    title: str
    text: Sequence[Paragraph]
    tables: Sequence[Table]
    captions: dict[str, str]  # of pictures, by their names


def read_text(path: str) -> list[Paragraph]:
    """The paragraphs of a text file, between empty lines; those that begin with # are headings.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        text = Path(expand_home(path)).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"--text={path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--text={path}: not UTF-8 text") from error
    blocks = [_printable(block) for block in re.split(r"\n\s*\n", text.strip())]
    return [Paragraph(block.lstrip("# "), block.startswith("#")) for block in blocks if block]


def check_replaceable(out: str) -> None:
    """Checks that a report may be written to a folder.

    Raises:
        UserError: it holds anything but a report.
    """
    path = Path(expand_home(out))
    if not path.exists():
        return
    names = [found.name for found in path.iterdir()] if path.is_dir() else [path.name]
    if names and (_PAGE not in names or not all(map(_OWN_FILES.fullmatch, names))):
        raise UserError(
            f"--out={out}: holds other files than a report's; accepted: a new, an empty or its own "
            "folder"
        )


def write(
    out: str,
    title: str,
    text: Sequence[Paragraph],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
) -> None:
    """Writes the folder, all of it or nothing, in the place of an earlier report.

    Raises:
        UserError: it holds anything but a report, or cannot be written.
    """
    check_replaceable(out)
    captions = {picture.name: _printable(picture.caption) for picture in pictures}
    content = _Content(title, text, [_printable_table(table) for table in tables], captions)
    with replacing_folder(out) as partial:
        for picture in pictures:
            save_png(picture.figure, partial / f"{picture.name}.png")
            save_svg(picture.figure, partial / f"{picture.name}.svg")
        for name, page in ((_PAGE, _html), ("report.md", _markdown), ("report.tex", _latex)):
            partial.joinpath(name).write_text(page(content, partial), encoding="utf-8")
        check_replaceable(out)


def _printable(text: str) -> str:
    """On one line, without what XML, TeX or a terminal might obey; names come from elsewhere."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _printable_table(table: Table) -> Table:
    rows = [row._replace(cells=tuple(map(_printable, row.cells))) for row in table.rows]
    notes = tuple(map(_printable, table.notes))
    return table._replace(notes=notes, rows=tuple(rows))


def _markdown(content: _Content, folder: Path) -> str:
    def escaped(text: str) -> str:
        return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", text)

    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(escaped, cells))} |"

    del folder
    lines = [f"# {content.title}"]
    for paragraph in content.text:
        lines += ["", f"{'## ' * paragraph.is_heading}{escaped(paragraph.text)}"]
    for table in content.tables:
        lines += ["", f"## {table.title}", "", row(table.head), "|---" * len(table.head) + "|"]
        lines += [row(cells) for cells, _ in table.rows]
        lines += [line for note in table.notes for line in ("", escaped(note))]
    for name, caption in content.captions.items():
        lines += ["", f"![{escaped(caption)}]({name}.png)", "", escaped(caption)]
    return "\n".join(lines) + "\n"


def _latex(content: _Content, folder: Path) -> str:
    del folder
    lines = [
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[a3paper,landscape,margin=1.5cm]{geometry}",
        r"\usepackage{array,graphicx,longtable}",
        r"\begin{document}",
        rf"\section*{{{_tex(content.title)}}}",
    ]
    for paragraph in content.text:
        own = _tex(paragraph.text)
        lines += [rf"\subsection*{{{own}}}" if paragraph.is_heading else rf"\noindent {own}", ""]
    for table in content.tables:
        # What is left of the width between the columns, shared among them.
        width = f"{0.95 / len(table.head):.3f}"
        column = rf">{{\raggedright\arraybackslash}}p{{{width}\textwidth}}"
        lines += [
            rf"\subsection*{{{_tex(table.title)}}}",
            r"{\scriptsize\setlength{\tabcolsep}{2pt}",
            rf"\begin{{longtable}}{{*{{{len(table.head)}}}{{{column}}}}}",
            _tex_row(table.head),
            r"\hline\endhead",
            *(_tex_row(cells) for cells, _ in table.rows),
            r"\end{longtable}}",
        ]
        lines += [line for note in table.notes for line in (rf"\noindent {_tex(note)}", "")]
    for name, caption in content.captions.items():
        lines += [rf"\noindent\includegraphics[width=\textwidth]{{{name}.png}}", ""]
        lines += [rf"\noindent {_tex(caption)}", ""]
    return "\n".join([*lines, r"\end{document}"]) + "\n"


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_tex, cells)) + r" \\"


def _tex(text: str) -> str:
    """Text for LaTeX, which has no sign for what is neither Latin nor named above."""
    text = "".join(_LATEX.get(c, c if c.isprintable() and ord(c) < 384 else "?") for c in text)
    return re.sub("-(?=-)", "-{}", text)  # two hyphens, as of a flag, are no dash


def _html(content: _Content, folder: Path) -> str:
    lines = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>{html.escape(content.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>{html.escape(content.title)}</h1>",
    ]
    for paragraph in content.text:
        tag = "h2" if paragraph.is_heading else "p"
        lines.append(f"<{tag}>{html.escape(paragraph.text)}</{tag}>")
    for table in content.tables:
        label = html.escape(table.title)
        lines.append(f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">')
        lines.append(f"<table>\n<caption>{label}</caption>\n<thead>")
        cells = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.head)
        lines.append(f"<tr>{cells}</tr>\n</thead>\n<tbody>")
        for cells, kind in table.rows:
            first, *others = map(html.escape, cells)
            row = f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)
            lines.append(f'<tr class="{kind}">{row}</tr>' if kind else f"<tr>{row}</tr>")
        lines.append("</tbody>\n</table>\n</div>")
        lines += [f'<p class="note">{html.escape(note)}</p>' for note in table.notes]
    for name, caption in content.captions.items():
        files = {kind: folder / f"{name}.{kind[:3]}" for kind in ("svg+xml", "png")}
        content = {kind: file.read_bytes() for kind, file in files.items()}
        kind = min(content, key=lambda kind: len(content[kind]))
        data, caption = markup.data_uri(f"image/{kind}", content[kind]), html.escape(caption)
        lines.append(f'<figure><img alt="{caption}" src="{data}"/>')
        lines.append(f"<figcaption>{caption}</figcaption></figure>")
    return "\n".join([*lines, "</body>\n</html>"]) + "\n"
