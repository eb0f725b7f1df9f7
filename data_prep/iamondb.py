"""IAM-OnDB: `lineStrokes` XML -> records of dx, dy and pen, normalised, with a dataset card.

    python -m data_prep.iamondb --source=RAW --out=RECORDS --split=vrnn --normalization=vrnn

Splits (the bundled lists of form ids in `splits/iamondb/` are facts from the task definition that
comes with the IAM On-Line Handwriting Database):

* `vrnn`, the split of Chung et al. (2015), on which the published likelihoods are given: `train`
  is trainset + testset_t + testset_f, `valid` is testset_v. It has no test set; the literature
  stops early on `valid` and reports on the same lines.
* `official`, the four lists as they are: `train` (trainset), `valid` (testset_v), `test_t`
  (testset_t, in the task definition a second validation set) and `test_f` (testset_f, its final
  test set). Recommended for a real test: report on `test_f`, and leave `test_t` for choices that
  `valid` was already used up for.
* a folder: one `NAME.txt` of form ids per split, `train.txt` among them.

A file holds one line: `Stroke` elements (pen down .. pen up) of `Point` elements with integer
whiteboard coordinates x (to the right) and y (downwards). Features and normalisation:
`data_prep.common.handwriting`. The records do not depend on `--workers`.
"""

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.common import command, handwriting, raw_files, splitting
from data_prep.common.handwriting import MAX_COORDINATE, Line, RawSplit, line_of_points
from data_prep.common.raw_files import FileFault
from data_prep.common.xml_files import parse_xml
from stcn_tf.support.errors import UserError
from stcn_tf.support.path_flag import define_path

BUNDLED_LISTS = Path(__file__).parent / "splits" / "iamondb"
# Split name -> the bundled lists whose forms it unites.
BUNDLED_SPLITS: dict[str, dict[str, tuple[str, ...]]] = {
    "vrnn": {
        "train": ("trainset", "testset_t", "testset_f"),
        "valid": ("testset_v",),
    },
    "official": {
        "train": ("trainset",),
        "valid": ("testset_v",),
        "test_t": ("testset_t",),
        "test_f": ("testset_f",),
    },
}

# Lines and steps of each split, of the complete data set.
SIZES = {
    "vrnn": {"train": (10_741, 6_750_028), "valid": (1_438, 884_526)},
    "official": {
        "train": (5_364, 3_293_060),
        "valid": (1_438, 884_526),
        "test_t": (1_518, 1_035_285),
        "test_f": (3_859, 2_421_683),
    },
}

_FORM = re.compile(r"([a-z0-9]+-[0-9]+)[a-z]?")  # a01-000u lies in the folder a01-000
_NAMES_IN_CARD = 20


def define_flags() -> None:
    """Defines this command's flags."""
    command.define_flags(
        "Folder that holds lineStrokes or data/lineStrokes, or lineStrokes itself."
    )
    define_path(
        "split",
        "vrnn",
        "vrnn, official, or a folder with one NAME.txt of form ids per split.",
        names=BUNDLED_SPLITS,
    )
    handwriting.define_normalization_flag("vrnn")


# ------------------------------------------------------------------------------- which files


def find_line_strokes(source: Path) -> Path:
    """Finds the folder `lineStrokes` in or at `source`.

    Raises:
        UserError: there is none.
    """
    if source.is_file():
        raise UserError(f"--source: {source} is a file; unpack it and name the folder")
    if not source.is_dir():
        raise UserError(f"--source: {source} does not exist")
    for root in (source / "data" / "lineStrokes", source / "lineStrokes"):
        if root.is_dir():
            return root
    if source.name == "lineStrokes" or next(source.glob("*/*/*.xml"), None):
        return source
    raise UserError(
        f"--source: {source} has neither lineStrokes, nor data/lineStrokes, nor files such as "
        "a01/a01-000/a01-000u-01.xml"
    )


def read_splits(split: str | Path) -> dict[str, list[str]]:
    """Reads the form lists of a bundled split, or of a folder of NAME.txt files.

    Args:
        split: a key of `BUNDLED_SPLITS`, or a folder.

    Returns:
        The form ids of each split, sorted.

    Raises:
        UserError: there is no such split, it has no `train`, or as `splitting.read_lists`.
    """
    if split in BUNDLED_SPLITS:
        lists = {
            name: [BUNDLED_LISTS / f"{part}.txt" for part in parts]
            for name, parts in BUNDLED_SPLITS[split].items()
        }
    else:
        folder = Path(split)
        if not folder.is_dir():
            raise UserError(
                f"--split={split}: neither {' nor '.join(BUNDLED_SPLITS)}, nor a folder of "
                "NAME.txt files with form ids"
            )
        lists = {path.stem: [path] for path in sorted(folder.glob("*.txt"))}
        if "train" not in lists:
            raise UserError(f"--split={split}: the folder has no train.txt")
    forms = splitting.read_lists(lists, pattern=_FORM, what="form id (such as a01-000u)")
    return {name: sorted(members) for name, members in forms.items()}


def index_files(root: Path) -> dict[str, str]:
    """Lists the XML files under `root`.

    Args:
        root: the folder `lineStrokes`.

    Returns:
        Form id of each XML file by its path relative to `root` (with slashes), sorted; "" for a
        file that does not lie where its name says.

    Raises:
        UserError: a folder cannot be read.
    """
    forms = {}
    for path in raw_files.find_files(root, (".xml",)):
        form = Path(path).stem.rpartition("-")[0]
        match = _FORM.fullmatch(form)
        folder = f"{form.split('-')[0]}/{match[1]}/" if match else None
        forms[path] = form if folder and path == folder + path.rsplit("/", 1)[-1] else ""
    return forms


# ----------------------------------------------------------------------------------- reading


class _Points:
    """XMLParser target: collects coordinates and stroke ends, checks each as it arrives."""

    def __init__(self) -> None:
        self._coordinates: list[float] = []  # x, y, x, y, ...
        self._stroke_ends: list[int] = []  # number of points up to and including each stroke
        self._in_stroke = False

    def _where(self) -> str:
        num_before = self._stroke_ends[-1] if self._stroke_ends else 0
        point = len(self._coordinates) // 2 - num_before + 1
        return f"stroke {len(self._stroke_ends) + 1}, point {point}"

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "Point":
            if not self._in_stroke:
                raise FileFault("a Point outside any Stroke")
            for axis in ("x", "y"):
                text = attributes.get(axis)
                if text is None:
                    raise FileFault(f"{self._where()} has no {axis}")
                try:
                    value = float(text)
                except ValueError:
                    value = math.nan
                if not abs(value) <= MAX_COORDINATE:  # nor NaN
                    raise FileFault(
                        f"{self._where()} has {axis}={text[:20]!r}, which is no coordinate"
                    )
                self._coordinates.append(value)
        elif tag == "Stroke":
            if self._in_stroke:
                raise FileFault(f"stroke {len(self._stroke_ends) + 1} contains another Stroke")
            self._in_stroke = True

    def end(self, tag: str) -> None:
        if tag == "Stroke":
            num_points = len(self._coordinates) // 2
            if num_points == (self._stroke_ends[-1] if self._stroke_ends else 0):
                raise FileFault(f"stroke {len(self._stroke_ends) + 1} is empty")
            self._stroke_ends.append(num_points)
            self._in_stroke = False

    def close(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns points, float64 [num_points, 2], and stroke ends, int64 [num_strokes]."""
        points = np.asarray(self._coordinates, np.float64).reshape(-1, 2)
        return points, np.asarray(self._stroke_ends, np.int64)


def parse_line(xml: bytes) -> Line:
    """Parses the content of one `lineStrokes` file.

    Args:
        xml: the file's bytes.

    Returns:
        The line's offsets, float32 [time, 3], in whiteboard units; `time` is one less than the
        number of points.

    Raises:
        FileFault: the XML is malformed or declares a document type, has no strokes, an empty
            stroke, a point without finite numeric x and y, or fewer than 2 points.
    """
    points, stroke_ends = parse_xml(xml, _Points())
    return line_of_points(points, stroke_ends, y_points_up=False)


class RawData(NamedTuple):
    """All that was read, before normalisation."""

    splits: dict[str, RawSplit]
    source_sha256: str  # over the sorted relative paths and content hashes of the files used
    skipped: dict[str, str]  # file or form -> reason
    unlisted: list[str]  # files that belong to no listed form


def read_raw(
    source: Path, form_lists: Mapping[str, Sequence[str]], *, skip_bad: bool, workers: int
) -> RawData:
    """Reads and parses the files of all listed forms.

    Args:
        source: as `--source`.
        form_lists: form ids of each split.
        skip_bad: leave out bad files and forms without files, and say which.
        workers: number of parsing processes.

    Returns:
        The lines of each split, sorted by id, and what was left out.

    Raises:
        UserError: without `skip_bad` a file is bad or a form has no files.
    """
    root = find_line_strokes(source)
    form_by_path = index_files(root)
    split_by_form = {form: name for name, forms in form_lists.items() for form in forms}
    faults = {
        form: f"is listed in {split_by_form[form]} but has no files"
        for form in sorted(set(split_by_form) - set(form_by_path.values()))
    }
    used = [path for path, form in form_by_path.items() if form in split_by_form]
    splits = {name: RawSplit() for name in form_lists}
    digest = raw_files.Digest()
    parsed = raw_files.parse_files(
        [str(root / path) for path in used], parse_line, workers, raw_files.MAX_TEXT_BYTES
    )
    with contextlib.closing(parsed):
        for path, result in zip(used, raw_files.with_progress(parsed, len(used)), strict=True):
            if result.fault:
                faults[path] = result.fault
                continue
            digest.add(path, result.sha256)
            splits[split_by_form[form_by_path[path]]].add(Path(path).stem, result.content)
    if faults and not skip_bad:
        raw_files.refuse(faults, root)
    unlisted = [path for path, form in form_by_path.items() if form not in split_by_form]
    return RawData(splits, digest.hexdigest(), faults, unlisted)


# ---------------------------------------------------------------------------------- command


@command.preparation()
def prepare(
    source: Path,
    out: Path,
    *,
    split: str | Path = "vrnn",
    normalization: str = "vrnn",
    skip_bad: bool = False,
    workers: int = 1,
    command: str,
) -> None:
    """Reads raw files, writes records and card to `out`, and prints what they hold.

    The arguments are the flags of these names.

    Raises:
        UserError: as `read_splits`, `read_raw` and `handwriting.write_records`.
    """
    form_lists = read_splits(split)
    raw = read_raw(source, form_lists, skip_bad=skip_bad, workers=workers)
    bundled = split in BUNDLED_SPLITS
    print(f"{len(raw.unlisted)} files are in no list")
    handwriting.write_records(
        out,
        raw.splits,
        name="iamondb" if bundled else "handwriting",
        unit="whiteboard unit",
        normalization=normalization,
        source_sha256=raw.source_sha256,
        command=command,
        extra={
            "split": split if bundled else "folder",
            "forms": {name: len(forms) for name, forms in form_lists.items()},
            "skipped": raw.skipped,
            "num_files_in_no_list": len(raw.unlisted),
            "files_in_no_list": raw.unlisted[:_NAMES_IN_CARD],
        },
        group_of=lambda line_id: line_id.rpartition("-")[0],  # the form, a page of one hand
        complete=SIZES[split] if bundled else {},
    )


if __name__ == "__main__":
    command.run(prepare, define_flags)
