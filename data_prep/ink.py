"""Anyone's own handwriting -> records of dx, dy and pen.

    python -m data_prep.ink --source=FOLDER_OR_FILE --out=RECORDS

Read are, from a folder and those below it or from a single file:

* .json, .ndjson, .jsonl: strokes of points as canvas and signature programs and quickdraw write
  them (`data_prep.common.ink_json`); y grows downwards unless the file's "y_axis" is "up".
* .inkml, .xml: InkML, with what Word, PowerPoint, OneNote and Journal write of it
  (`data_prep.common.inkml`); .pptx, .docx, .xlsx: the InkML in them, each part a sequence.
* .npz, .npy: arrays [T, 3] of dx, dy and pen (1 on the last point of a stroke, else 0), or arrays
  of such arrays (`data_prep.common.ink_arrays`); dy grows upwards, but downwards in sketch-rnn's
  and quickdraw's .npz (whole numbers in train, valid, test), whose first row is a move.

What a file leaves open is asked for: `--y_axis`, `--pen`, `--layout`, `--offsets`. Where files have
other units, `--scale=stroke_height` divides each by the median height (greatest less least y) of
those of its strokes that have a height. A sequence is called FILE, or FILE/000012 (in an .npz that
is the source: ARRAY, ARRAY/000012).

Features and normalisation: `data_prep.common.handwriting`. Files are not trusted: a document type
declaration in XML is refused, and so is a pickle with anything but arrays.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.common import command, handwriting, ink_json, raw_files, splitting
from data_prep.common.command import Flag
from data_prep.common.handwriting import Line
from data_prep.common.ink_arrays import PENS, Options, parse_arrays
from data_prep.common.inkml import parse_inkml
from data_prep.common.npz import read_npy, read_npz
from data_prep.common.raw_files import MAX_TEXT_BYTES, FileFault
from data_prep.common.zips import read_zip
from stcn_tf.support.errors import UserError

_OFFICE = (".pptx", ".docx", ".xlsx")
ENDINGS = (".json", ".ndjson", ".jsonl", ".inkml", ".xml", ".npz", ".npy", *_OFFICE)
_INK_PART = re.compile(r"(?:.*/)?ink/[^/]+\.xml")
_BLANK = b"\xef\xbb\xbf\xfe\xff\0 \t\r\n"  # with marks of the byte order
_DEFAULT = Options()
_MAX_SPREAD = 10  # of the sizes of files, beyond which they are thought to have other units


def parse(data: bytes, options: Options = _DEFAULT, ending: str = "") -> dict[str, Line | str]:
    """Parses a file.

    Args:
        data: its bytes.
        options: what the flags say.
        ending: of its name, in lower case; without one of `ENDINGS`, its content tells the format.

    Returns:
        For each sequence, by name ("" if it is the only one that the format can hold), its line or
        what is wrong with it.

    Raises:
        FileFault: it is not as the module docstring says.
    """
    start = data.lstrip(_BLANK)[:1]
    if not start:
        raise FileFault("is empty")
    if ending in _OFFICE:
        return _parse_office(data, options)
    is_zip = data[:2] == b"PK"
    if data[:6] == b"\x93NUMPY" or (ending == ".npy" and not is_zip):
        return parse_arrays({"": read_npy(data)}, options, has_names=False)
    if is_zip or ending == ".npz":
        return parse_arrays(read_npz(data), options)
    if start == b"<" or ending == ".inkml":
        return {"": parse_inkml(data, options.y_axis)}
    return ink_json.parse_json(data, options.y_axis, options.layout)


def _parse_office(data: bytes, options: Options) -> dict[str, Line | str]:
    def choose(members: list[str]) -> list[str]:
        parts = [name for name in members if _INK_PART.fullmatch(name)]
        if not parts:
            raise FileFault("has no ink (parts like ppt/ink/ink1.xml or word/ink/ink1.xml)")
        return sorted(parts, key=lambda name: (len(name), name))

    lines: dict[str, Line | str] = {}
    for name, content in read_zip(data, choose, "part", "Office", MAX_TEXT_BYTES):
        try:
            lines[name] = parse_inkml(content, options.y_axis)
        except FileFault as fault:
            lines[name] = str(fault)
    return lines


def _parse_path(path: Path, options: Options) -> raw_files.ParsedFile:
    read = functools.partial(parse, options=options, ending=path.suffix.lower())
    return raw_files.parse_file(path, read)


def read(
    source: Path, workers: int, options: Options, scale: str | None
) -> tuple[dict[str, Line], dict[str, str], str]:
    """Reads all sequences, and warns where the files' sizes differ much.

    Returns:
        Lines by name; what is wrong with other sequences or files; a checksum of the files.

    Raises:
        UserError: `source` is missing, has no sequences, or is one file, which is bad.
    """
    is_file = source.is_file()
    names = [source.name] if is_file else raw_files.find_files(source, ENDINGS)
    if not names:
        raise UserError(f"--source: {source} has no files that end in {', '.join(ENDINGS)}")
    paths = {name: source if is_file else source / name for name in names}
    parse_path = functools.partial(_parse_path, options=options)
    raw = raw_files.read_files(
        parse_path, paths, workers, digest_name=lambda name: "" if is_file else name
    )
    for fault in raw.faults.values() if is_file else ():
        raise UserError(f"--source: {source}: {fault}")
    lines: dict[str, Line] = {}
    faults: dict[str, str] = {}
    heights: dict[str, float] = {}
    for name in names:
        if name in raw.faults:
            faults[name] = raw.faults[name]
            continue
        content = raw.by_name.pop(name)
        if getattr(content, "note", ""):
            print(f"{name}: {content.note}")
        good = [line.offsets for line in content.values() if isinstance(line, Line)]
        height = handwriting.median_stroke_height(good)
        if height:
            heights[name] = height
        prefix = "" if is_file and name.lower().endswith(".npz") else name
        for part, line in content.items():
            if scale == "stroke_height" and isinstance(line, Line):
                line = _scaled(line, height)
            kind = faults if isinstance(line, str) else lines
            kind["/".join(filter(None, (prefix, part)))] = line
    if scale != "stroke_height" and heights:
        _warn_of_spread(heights)
    return lines, faults, raw.source_sha256


def _scaled(line: Line, height: float) -> Line | str:
    if not height:
        return "has no stroke with a height, by which --scale=stroke_height could divide"
    offsets = line.offsets / np.array((height, height, 1.0))
    # The other of two axes may be far longer.
    if not np.abs(offsets).max() <= handwriting.MAX_COORDINATE:
        return f"is far too large beside its strokes' median height, {height:g}"
    return line._replace(offsets=offsets.astype(np.float32))


def _warn_of_spread(heights: Mapping[str, float]) -> None:
    least, greatest = min(heights, key=heights.get), max(heights, key=heights.get)
    spread = heights[greatest] / heights[least]
    if spread > _MAX_SPREAD:
        print(
            f"warning: the median stroke heights of the files span a factor of {spread:.3g} "
            f"({least}: {heights[least]:.3g}, {greatest}: {heights[greatest]:.3g}); if their units "
            "differ, --scale=stroke_height puts each file to one size"
        )


def _own_parts(names: Iterable[str], source: Path) -> dict[str, str]:
    """What --split=own means: by name the splits of sequences of .npz files, if these have any."""
    top = re.compile(r"([^/]+)/." if source.is_file() else r".*?\.npz/([^/]+)/.", re.I | re.S)
    found = {name: match[1] if (match := top.match(name)) else "" for name in names}
    tops = sorted(set(found.values()))
    folders = sorted({name.partition("/")[0] for name in names})
    if "train" in tops and "valid" in tops and "" not in tops:
        print(f"splits: {', '.join(tops)}, as {source.name} has them (--split=random mixes them)")
        return found
    if "train" in tops and len(tops) > 1:
        tops = ", ".join(filter(None, tops))
        print(f"splits: random, since {source.name} has no train and valid alone: {tops}")
    elif {"train", "valid"} <= set(folders):
        print(f"splits: random (--split=folders keeps {', '.join(folders)})")
    return {}


def _ignored(arguments: Mapping[str, Any]) -> Mapping[str, str]:
    return {} if arguments["split"] == "own" else splitting.shares_ignored(arguments)


@command.preparation(
    f"Folder with files that end in {', '.join(ENDINGS)}, or such a file.",
    _ignored,
    normalization=handwriting.NORMALIZATION,
    split=Flag(
        "own: by the arrays train, valid and what else there is of .npz files, else random; "
        + splitting.SPLIT_HELP,
        (*splitting.NAMES, "own"),
    ),
    **splitting.share_flags(),
    y_axis=Flag(
        "Which way y grows, where a file does not say it; by default down in JSON, InkML and "
        "sketch-rnn's .npz, up in another .npz; in .npy it must be given.",
        ("up", "down"),
    ),
    pen=Flag("Column of arrays that is the pen; by default, that of 0 and 1.", PENS),
    layout=Flag(
        "Lists of numbers in JSON are points or columns; by default told by the drawing.",
        ink_json.LAYOUTS,
    ),
    offsets=Flag("Arrays hold differences; false: coordinates."),
    scale=Flag(
        "stroke_height: divide each file by the median height of its strokes.",
        ("none", "stroke_height"),
    ),
    group=splitting.GROUP,
)
def prepare(
    source: Path,
    out: Path,
    *,
    normalization: str = "channel",
    split: str | Path = "own",
    valid_share: float = 0.1,
    test_share: float = 0.0,
    y_axis: str | None = None,
    pen: str | None = None,
    layout: str | None = None,
    offsets: bool = True,
    scale: str | None = None,
    group: str = "",
    skip_bad: bool = False,
    workers: int = 1,
    command: str,
) -> None:
    """Prepares `source`; the arguments are the flags of these names."""
    splitting.grouping(group)  # a mistake in it should not cost a parse
    lines, faults, sha256 = read(source, workers, Options(y_axis, pen, layout, offsets), scale)
    if faults and not skip_bad:
        raw_files.refuse(faults, source)
    own = _own_parts(lines, source) if split == "own" else {}
    split = "folders" if own else "random" if split == "own" else split
    # Over all names: what is left out does not move others from one split to another.
    names = [*lines, *(name for name in faults if split != "folders" or "/" in name)]
    placed = {f"{own[name]}/{name}": name for name in own} or {name: name for name in names}
    parts = splitting.split_names(list(placed), split, valid_share, test_share)
    parts = {part: [placed[name] for name in members] for part, members in parts.items()}
    unit = "median stroke height of the file" if scale == "stroke_height" else "unit of the source"
    handwriting.write_records(
        out,
        handwriting.lines_of(lines, parts),
        name="ink",
        unit=unit,
        normalization=normalization,
        source_sha256=sha256,
        command=command,
        extra={"skipped": faults},
        group_of=splitting.grouping(group, names),
    )


if __name__ == "__main__":
    command.run(prepare)
