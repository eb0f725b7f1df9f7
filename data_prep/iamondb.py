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

import functools
import math
import re
from pathlib import Path

import numpy as np

from data_prep.common import command, handwriting, raw_files, splitting
from data_prep.common.command import Flag
from data_prep.common.handwriting import MAX_COORDINATE, Line, line_of_strokes
from data_prep.common.raw_files import FileFault
from data_prep.common.xml_files import parse_xml
from stcn_tf.support.errors import UserError

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
    """Reads the form ids of each split, sorted: of a bundled one, or of a folder of NAME.txt files.

    Raises:
        UserError: there is no such split, it has no `train`, or as `splitting.read_lists`.
    """
    if split in BUNDLED_SPLITS:
        lists = {
            name: [BUNDLED_LISTS / f"{part}.txt" for part in parts]
            for name, parts in BUNDLED_SPLITS[split].items()
        }
    else:
        bundled = " nor ".join(BUNDLED_SPLITS)
        accepted = f"{bundled}, nor a folder of NAME.txt files with form ids"
        lists = splitting.find_lists(split, accepted, ("train",))
    forms = splitting.read_lists(lists, pattern=_FORM, what="form id (such as a01-000u)")
    return {name: sorted(members) for name, members in forms.items()}


def index_files(root: Path) -> dict[str, str]:
    """Gives the form id of each XML file under `root`, the folder `lineStrokes`, by its path there.

    Sorted by path; "" for a file that does not lie where its name says.
    """
    forms = {}
    for path in raw_files.find_files(root, (".xml",)):
        form = Path(path).stem.rpartition("-")[0]
        match = _FORM.fullmatch(form)
        folder = f"{form.split('-')[0]}/{match[1]}/" if match else None
        forms[path] = form if folder and path == folder + path.rsplit("/", 1)[-1] else ""
    return forms


# ----------------------------------------------------------------------------------- reading


def parse_line(xml: bytes) -> Line:
    """Parses the content of one `lineStrokes` file: a line in whiteboard units.

    Raises:
        FileFault: the XML is malformed or declares a document type, has no strokes, an empty
            stroke, a point without finite numeric x and y, or fewer than 2 points.
    """
    root, strokes = parse_xml(xml), []
    for number, stroke in enumerate(root.iter("Stroke"), start=1):
        if stroke.find(".//Stroke") is not None:
            raise FileFault(f"stroke {number} contains another Stroke")
        texts = [(point.get("x"), point.get("y")) for point in stroke.iter("Point")]
        points = np.array([(_number(x), _number(y)) for x, y in texts]).reshape(-1, 2)
        for index, axis in np.argwhere(~(np.abs(points) <= MAX_COORDINATE)):  # NaN too
            where, text = f"stroke {number}, point {index + 1} has", texts[index][axis]
            if text is None:
                raise FileFault(f"{where} no {'xy'[axis]}")
            raise FileFault(f"{where} {'xy'[axis]}={text[:20]!r}, which is no coordinate")
        strokes.append(points)
    if sum(map(len, strokes)) < sum(1 for _ in root.iter("Point")):
        raise FileFault("a Point outside any Stroke")
    return line_of_strokes(strokes, y_points_up=False)


def _number(text: str | None) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


# ---------------------------------------------------------------------------------- command


@command.preparation(
    "Folder that holds lineStrokes or data/lineStrokes, or lineStrokes itself.",
    split=Flag(
        "vrnn, official, or a folder with one NAME.txt of form ids per split.",
        BUNDLED_SPLITS,
    ),
    normalization=handwriting.NORMALIZATION,
)
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
    """Prepares `source`; the arguments are the flags of these names."""
    forms = read_splits(split)
    root = find_line_strokes(source)
    form_by_path = index_files(root)
    split_by_form = {form: name for name, members in forms.items() for form in members}
    without = {
        form: f"is listed in {split_by_form[form]} but has no files"
        for form in sorted(set(split_by_form) - set(form_by_path.values()))
    }
    used = {path: root / path for path, form in form_by_path.items() if form in split_by_form}
    parse = functools.partial(
        raw_files.parse_file, parse=parse_line, max_bytes=raw_files.MAX_TEXT_BYTES
    )
    raw = raw_files.read_files(parse, used, workers)
    faults = without | raw.faults
    if faults and not skip_bad:
        raw_files.refuse(faults, root)
    splits: dict[str, list[tuple[str, Line]]] = {name: [] for name in forms}
    for path, line in raw.by_name.items():
        splits[split_by_form[form_by_path[path]]].append((Path(path).stem, line))
    unlisted = [path for path in form_by_path if path not in used]
    print(f"{len(unlisted)} files are in no list")
    bundled = split in BUNDLED_SPLITS
    handwriting.write_records(
        out,
        splits,
        name="iamondb" if bundled else "handwriting",
        unit="whiteboard unit",
        normalization=normalization,
        source_sha256=raw.source_sha256,
        command=command,
        extra={
            "split": split if bundled else "folder",
            "forms": {name: len(members) for name, members in forms.items()},
            "skipped": faults,
            "num_files_in_no_list": len(unlisted),
            "files_in_no_list": unlisted[:_NAMES_IN_CARD],
        },
        group_of=lambda line_id: line_id.rpartition("-")[0],  # the form, a page of one hand
        complete=SIZES[split] if bundled else {},
    )


if __name__ == "__main__":
    command.run(prepare)
