"""What the preparations of handwriting share: points to steps, statistics, records and card.

A step is [dx, dy, pen] as in Chung et al. (2015): points become differences to the point before,
strokes in order, y upwards; the pen bit is that of the later point, 1 on the last point of each
stroke; the first point, which has no difference, is dropped. (Their column order is pen, dx, dy.)

Normalisation subtracts a mean and divides by a standard deviation taken from the `train` split;
the pen stays 0 or 1. A log-likelihood depends on it, so numbers compare only under the same:

* `vrnn`: one mean and std for dx and dy, with sums over both divided by the number of steps N:
  mean = (sum dx + sum dy) / N, std = sqrt((sum dx^2 + sum dy^2) / N - mean^2).
* `channel`: mean and standard deviation of dx and of dy.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.common import raw_files
from data_prep.common.command import Flag, import_records
from data_prep.common.moments import std_of
from data_prep.common.raw_files import FileFault
from stcn_tf.data.card import DatasetCard, Feature, Normalization
from stcn_tf.support.errors import UserError

# Whose mean and std dx and dy are normalised by.
NORMALIZATIONS = {"vrnn": ("scalar", "scalar"), "channel": ("dx", "dy")}
NORMALIZATION = Flag(
    "vrnn: one mean and std for dx and dy, sums over both divided by the number of steps; "
    "channel: a mean and std for each.",
    NORMALIZATIONS,
)

# Far beyond any tablet, and differences stay finite in float32.
MAX_COORDINATE = 1e9
# Far beyond any hand; a compressed byte can stand for hundreds of steps.
MAX_STEPS = 2**24
MAX_SEQUENCES = 2**20  # of one file


# ------------------------------------------------------------------------------------- lines


class Line(NamedTuple):
    """One sequence of handwriting."""

    offsets: np.ndarray  # float32 [time, 3]: dx (right), dy (up), pen (1 on a stroke's last point)
    one_point_strokes: int  # strokes of a single point: dots, or a pen that hardly touched


def line_of_strokes(strokes: Sequence[np.ndarray], y_points_up: bool) -> Line:
    """Makes a line of strokes, float64 [points, 2] of x (to the right) and y each.

    Raises:
        FileFault: there are no strokes or fewer than 2 points, a stroke is empty, or a point is far
            away.
    """
    if not strokes:
        raise FileFault("has no strokes")
    for number, stroke in enumerate(strokes, start=1):
        if not len(stroke):
            raise FileFault(f"stroke {number} is empty")
        if not (np.abs(stroke) <= MAX_COORDINATE).all():
            raise FileFault(f"stroke {number} goes beyond {MAX_COORDINATE:g}")
    points = np.concatenate(strokes)
    if len(points) < 2:
        raise FileFault("has 1 point, at least 2 are needed")
    lengths = np.array([len(stroke) for stroke in strokes])
    pen = np.zeros(len(points))
    pen[np.cumsum(lengths) - 1] = 1.0
    deltas = np.diff(points * (1.0, 1.0 if y_points_up else -1.0), axis=0)  # float64 [time, 2]
    offsets = np.concatenate([deltas, pen[1:, None]], axis=1).astype(np.float32)
    return Line(offsets, int(np.sum(lengths == 1)))


def line_of_steps(steps: np.ndarray, y_points_up: bool) -> Line:
    """Makes a line of steps that are differences already, numbers [time, 3]: dx, dy, pen.

    Of the first stroke nobody knows whether a point came before its first step: it counts as one
    that did.

    Raises:
        FileFault: another shape, no steps or too many, values that are not finite or far too
            large, or a pen that is neither 0 nor 1.
    """
    if steps.ndim != 2 or steps.shape[1] != 3 or steps.dtype.kind not in "fiub":
        raise FileFault(
            f"has {steps.dtype} of shape {list(steps.shape)}; accepted: numbers, [T, 3]"
        )
    if not len(steps):
        raise FileFault("has no steps")
    if len(steps) > MAX_STEPS:
        raise FileFault(f"has {len(steps)} steps, at most {MAX_STEPS} are accepted")
    # Whatever NumPy warns of is found below: of signalling NaN, and of what is wider than float64.
    with np.errstate(all="ignore"):
        steps = steps.astype(np.float64)
    good = np.abs(steps[:, :2]) <= MAX_COORDINATE  # False for NaN, too
    if not good.all():
        step = int(np.argmin(good.all(axis=1)))
        raise FileFault(f"step {step} has dx, dy = {steps[step, 0]:g}, {steps[step, 1]:g}")
    good = np.isin(steps[:, 2], (0.0, 1.0))
    if not good.all():
        step = int(np.argmin(good))
        raise FileFault(f"step {step} has the pen {steps[step, 2]:g}; accepted: 0, 1")
    offsets = (steps * (1.0, 1.0 if y_points_up else -1.0, 1.0)).astype(np.float32)
    # A stroke after the first is one point where two steps in a row end strokes.
    return Line(offsets, int(np.sum((offsets[1:, 2] == 1) & (offsets[:-1, 2] == 1))))


def lines_of(
    lines: Mapping[str, Line], parts: Mapping[str, Iterable[str]]
) -> dict[str, list[tuple[str, Line]]]:
    """Names and lines of each part, of those names that have one."""
    return {part: [(n, lines[n]) for n in names if n in lines] for part, names in parts.items()}


# -------------------------------------------------------------------------------- statistics


def median_stroke_height(lines: Iterable[np.ndarray]) -> float:
    """Median of the heights, greatest less least y, of those strokes that have one; 0: of none.

    Args:
        lines: float32 [time, 3] each, of which the first stroke begins with the point before.
    """
    heights = [np.zeros(0)]
    for offsets in lines:
        y = np.concatenate([[0.0], np.cumsum(offsets[:, 1], dtype=np.float64)])
        starts = np.flatnonzero(offsets[:-1, 2]) + 2
        starts = np.concatenate([[0], starts])
        heights.append(np.maximum.reduceat(y, starts) - np.minimum.reduceat(y, starts))
    tall = np.concatenate(heights)
    tall = tall[tall > 0]
    return float(np.median(tall)) if len(tall) else 0.0


Statistics = dict[str, dict[str, float | None]]


def offset_statistics(lines: Iterable[np.ndarray]) -> Statistics:
    """Mean and std of dx, dy and both ("scalar") of lines, float32 [time, 3] each, in any order.

    The std of both is None where its square is not positive, which its definition does not rule
    out.

    Raises:
        UserError: dx or dy do not vary.
    """
    count, sums = 0, []
    for line in lines:
        values = line[:, :2].astype(np.float64)
        count += len(values)
        sums.append([*values.sum(axis=0), *np.square(values).sum(axis=0)])
    # Each line is summed in float64 and the sums of lines exactly, whatever their order.
    dx, dy, dx2, dy2 = (math.fsum(column) / count for column in zip(*sums, strict=True))
    variance, what = dx2 + dy2 - (dx + dy) ** 2, "dx or dy"
    return {
        "dx": {"mean": dx, "std": std_of(dx2, dx, what)},
        "dy": {"mean": dy, "std": std_of(dy2, dy, what)},
        "scalar": {"mean": dx + dy, "std": math.sqrt(variance) if variance > 0 else None},
    }


def normalization_of(statistics: Statistics, kind: str) -> Normalization:
    """Chooses mean and std of (dx, dy, pen), of which the pen's are 0 and 1.

    Raises:
        UserError: `kind` is unknown, or the lines have none of it.
    """
    if kind not in NORMALIZATIONS:
        raise UserError(f"--normalization={kind}: accepted are {', '.join(NORMALIZATIONS)}")
    chosen = [statistics[name] for name in NORMALIZATIONS[kind]]
    if chosen[0]["std"] is None:
        raise UserError(
            "--normalization=vrnn: undefined, since the means of dx and dy, "
            f"{statistics['dx']['mean']:g} and {statistics['dy']['mean']:g}, are too large beside "
            "their variation; accepted here: channel"
        )
    mean, std = ([values[name] for values in chosen] for name in ("mean", "std"))
    return Normalization(kind, (*mean, 0.0), (*std, 1.0))


# ----------------------------------------------------------------------------------- records


def write_records(
    out: Path,
    splits: Mapping[str, Sequence[tuple[str, Line]]],
    *,
    name: str,
    unit: str,
    normalization: str,
    source_sha256: str,
    command: str,
    extra: Mapping[str, Any],
    group_of: Callable[[str], str] = lambda line_id: "",
    complete: Mapping[str, tuple[int, int]] | None = None,
) -> DatasetCard:
    """Normalises lines with their ids, writes records and card, and prints what they hold.

    `unit` is that of dx and dy, `group_of` gives the group of a line of that name, `complete` is as
    for `raw_files.print_sizes_check`; the others are as for `records.write_dataset`.

    Raises:
        UserError: a split is empty, the lines cannot be normalised, or as `write_dataset`.
    """
    for split, lines in splits.items():
        if not lines:
            raise UserError(f"no line is left for the split {split!r}")
    statistics = offset_statistics(line.offsets for _, line in splits["train"])
    normalizer = normalization_of(statistics, normalization)

    def sequences(lines: Sequence[tuple[str, Line]]) -> Iterator[tuple[str, np.ndarray, str]]:
        for line_id, line in lines:
            yield line_id, normalizer.normalize(line.offsets), group_of(line_id)

    extra = {
        "pen_rate": {split: _pen_rate(lines) for split, lines in splits.items()},
        "one_point_strokes": {
            split: sum(line.one_point_strokes for _, line in lines)
            for split, lines in splits.items()
        },
        "train_statistics": statistics,
        **extra,
    }
    card = import_records().write_dataset(
        out,
        name=name,
        features=(
            Feature("dx", "real", unit, "difference to the point before, to the right"),
            Feature("dy", "real", unit, "difference to the point before, upwards"),
            Feature("pen", "binary", "none", "1 on the last point of a stroke"),
        ),
        splits={split: sequences(lines) for split, lines in splits.items()},
        normalization=normalizer,
        source_sha256=source_sha256,
        command=command,
        extra=extra,
    )
    for split, facts in card.splits.items():
        lengths = facts.length_quantiles
        print(
            f"{split}: {facts.num_sequences} lines, {facts.num_steps} steps, "
            f"T {lengths['0']}..{lengths['1']}, pen rate {extra['pen_rate'][split]:.4f}, "
            f"one-point strokes {extra['one_point_strokes'][split]}"
        )
    for channel, values in statistics.items():
        std = "undefined" if values["std"] is None else f"{values['std']:.6g}"
        print(f"train {channel}: mean {values['mean']:.6g}, std {std}")
    raw_files.print_skipped(extra["skipped"])
    raw_files.print_sizes_check(card.splits, complete or {})
    print(f"wrote {out} ({normalization} normalisation)")
    return card


def _pen_rate(lines: Sequence[tuple[str, Line]]) -> float:
    """Share of steps that end a stroke."""
    pens = [line.offsets[:, 2] for _, line in lines]
    return math.fsum(float(pen.sum()) for pen in pens) / sum(map(len, pens))
