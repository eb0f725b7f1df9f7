"""Deepwriting (Aksan et al., CHI 2018): its `.npz` files -> records of dx, dy and pen.

    python -m data_prep.deepwriting --source=FOLDER --out=RECORDS

FOLDER holds deepwriting_training.npz and deepwriting_validation.npz as their owners distribute
them (of the second version: deepwriting_v2_training.npz, ...): `strokes`, an array of (T, 3) arrays
[dx, dy, pen] whose dx and dy are normalised by `mean` and `std`. They become the splits train and
valid. --source may also be one such file, of which --valid_share (and --test_share) of the samples,
chosen by the checksums of their names, become other splits.

The stored normalisation is undone, dy is negated (the files' y points down), and then values are
normalised as for any handwriting (`data_prep.common.handwriting`), by default per channel, as in
the authors' released program. The original statistics are in the card. The files are not trusted:
`data_prep.common.npz`.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.common import command, handwriting, raw_files, splitting
from data_prep.common.handwriting import MAX_COORDINATE, Line
from data_prep.common.npz import read_npz
from data_prep.common.raw_files import FileFault
from stcn_tf.support.errors import UserError

FILES = {"train": "deepwriting_training.npz", "valid": "deepwriting_validation.npz"}
_PATTERNS = {"train": "deepwriting*_training.npz", "valid": "deepwriting*_validation.npz"}
VALIDATION_SIZE = (705, 183_789)  # samples and steps, of the first version
_SHARES = splitting.share_flags("where --source is one file")


class Samples(NamedTuple):
    """What one file holds: of each sample, in order, the line or what is wrong with it."""

    lines: list[Line | str]
    mean: list[float]  # as stored, of dx (right), dy (down), pen
    std: list[float]


def parse(data: bytes) -> Samples:
    """Parses a file.

    Raises:
        FileFault: it is no `.npz` file, or lacks strokes or usable statistics.
    """
    arrays = read_npz(data, ["strokes", "mean", "std"])
    strokes, mean, std = arrays["strokes"], _statistic(arrays, "mean"), _statistic(arrays, "std")
    if not (std > 0).all():
        raise FileFault(f"std is {std.tolist()}; accepted: positive numbers")
    # Samples of one length make an array of numbers, others one of arrays.
    is_row = strokes.dtype.hasobject
    if strokes.ndim != (1 if is_row else 3) or not (is_row or strokes.shape[2] == 3):
        raise FileFault(f"strokes has the shape {list(strokes.shape)}; accepted: (T, 3) arrays")
    if not len(strokes):
        raise FileFault("strokes is empty")
    if len(strokes) > handwriting.MAX_SEQUENCES:
        raise FileFault(f"strokes has more than {handwriting.MAX_SEQUENCES} samples")
    # The pen is stored as it is, whatever its statistics.
    scale, shift = np.append(std[:2], 1.0), np.append(mean[:2], 0.0)

    def line_of(steps: np.ndarray) -> Line | str:
        try:
            checked = handwriting.line_of_steps(np.asarray(steps), y_points_up=True).offsets
            return handwriting.line_of_steps(checked * scale + shift, y_points_up=False)
        except FileFault as fault:
            return str(fault)

    return Samples([line_of(steps) for steps in strokes], mean.tolist(), std.tolist())


def _statistic(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """One of the two arrays of dx, dy and pen, [3] float64."""
    values = arrays[name]
    if values.shape == (3,) and values.dtype.kind == "f":
        with np.errstate(all="ignore"):  # of what is wider than float64
            values = values.astype(np.float64)
        # What is far larger would make steps infinite; NaN is refused too.
        if (np.abs(values) <= MAX_COORDINATE).all():
            return values
    raise FileFault(f"{name} is not 3 finite numbers (dx, dy, pen)")


def find_sources(source: Path) -> dict[str, Path]:
    """Finds the file of each split, or of "" where `--source` is one file, to be split.

    Raises:
        UserError: a file is missing, or there are two for one split.
    """
    if source.is_file():
        return {"": source}
    if not source.is_dir():
        raise UserError(f"--source: {source} does not exist")
    found = {split: sorted(source.glob(pattern)) for split, pattern in _PATTERNS.items()}
    missing = [FILES[split] for split, paths in found.items() if not paths]
    if missing:
        raise UserError(
            f"--source: {source} has no {' and no '.join(missing)}; accepted: a folder with both "
            "files, or one .npz file, of which a share is held out"
        )
    for paths in found.values():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise UserError(f"--source: {source} has more than one version: {names}")
    return {split: paths[0] for split, paths in found.items()}


def _ignored(arguments: Mapping[str, Any]) -> dict[str, str]:
    if not arguments["source"].is_dir():
        return {}
    return dict.fromkeys(_SHARES, "with a folder, whose files are the splits")


@command.preparation(
    f"Folder with {' and '.join(FILES.values())}, or one such file.",
    _ignored,
    normalization=handwriting.NORMALIZATION,
    **_SHARES,
)
def prepare(
    source: Path,
    out: Path,
    *,
    normalization: str = "channel",
    valid_share: float = 0.1,
    test_share: float = 0.0,
    skip_bad: bool = False,
    workers: int = 1,
    command: str,
) -> None:
    """Prepares `source`; the arguments are the flags of these names."""
    paths = find_sources(source)
    parse_path = functools.partial(raw_files.parse_file, parse=parse)
    raw = raw_files.read_files(
        parse_path, paths, workers, digest_name=lambda split: paths[split].name
    )
    for split, fault in raw.faults.items():
        raise UserError(f"{paths[split]}: {fault}")
    samples: dict[str, Samples] = raw.by_name
    faults: dict[str, str] = {}
    lines: dict[str, Line] = {}
    parts: dict[str, list[str]] = {}
    for split, path in paths.items():
        parts[split] = [f"{path.stem}-{n:05d}" for n in range(len(samples[split].lines))]
        for number, (name, line) in enumerate(zip(parts[split], samples[split].lines, strict=True)):
            if isinstance(line, str):
                faults[f"{path.name}, sample {number}"] = line
            else:
                lines[name] = line
    if faults and not skip_bad:
        raw_files.refuse(faults, source)
    if "" in paths:
        # Over all samples: what is left out does not move others from one split to another.
        parts = splitting.split_names(parts[""], "random", valid_share, test_share)
    is_known = "valid" in paths and paths["valid"].name == FILES["valid"]
    handwriting.write_records(
        out,
        handwriting.lines_of(lines, parts),
        name="deepwriting",
        unit="deepwriting unit",
        normalization=normalization,
        source_sha256=raw.source_sha256,
        command=command,
        extra={
            "split": "random" if "" in paths else "distributed",
            "original_statistics": {
                paths[split].name: {
                    "features": ["dx", "dy (downwards)", "pen"],
                    "mean": content.mean,
                    "std": content.std,
                }
                for split, content in samples.items()
            },
            "skipped": faults,
        },
        complete={"valid": VALIDATION_SIZE} if is_known else {},
    )


if __name__ == "__main__":
    command.run(prepare)
