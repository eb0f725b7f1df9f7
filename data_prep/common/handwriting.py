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

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from data_prep.common import raw_files
from data_prep.common.command import import_records
from data_prep.common.moments import std_of
from data_prep.common.raw_files import FileFault
from stcn_tf.data.card import DatasetCard, Feature, Normalization
from stcn_tf.support.errors import UserError

NORMALIZATIONS = ("vrnn", "channel")

# Far beyond any tablet, and differences stay finite in float32.
MAX_COORDINATE = 1e9
# Far beyond any hand; a compressed byte can stand for hundreds of steps.
MAX_STEPS = 2**24
MAX_SEQUENCES = 2**20  # of one file


def define_normalization_flag(default: str) -> None:
    """Defines --normalization."""
    flags.DEFINE_enum(
        "normalization",
        default,
        list(NORMALIZATIONS),
        "vrnn: one mean and std for dx and dy, sums over both divided by the number of steps; "
        "channel: a mean and std for each.",
    )


# ------------------------------------------------------------------------------------- lines


class Line(NamedTuple):
    """One sequence of handwriting."""

    offsets: np.ndarray  # float32 [time, 3]: dx (right), dy (up), pen (1 on a stroke's last point)
    one_point_strokes: int  # strokes of a single point: dots, or a pen that hardly touched


def line_of_points(points: np.ndarray, stroke_ends: np.ndarray, y_points_up: bool) -> Line:
    """Makes a line of the points of its strokes; `time` is one less than their number.

    Args:
        points: float64 [num_points, 2], x (to the right) and y.
        stroke_ends: int64 [num_strokes], number of points up to and including each stroke.
        y_points_up: whether y grows upwards; else it is negated.

    Raises:
        FileFault: there are no strokes, or fewer than 2 points.
    """
    if not len(stroke_ends):
        raise FileFault("has no strokes")
    if len(points) < 2:
        raise FileFault("has 1 point, at least 2 are needed")
    pen = np.zeros(len(points))
    pen[stroke_ends - 1] = 1.0
    deltas = np.diff(points * (1.0, 1.0 if y_points_up else -1.0), axis=0)  # float64 [time, 2]
    offsets = np.concatenate([deltas, pen[1:, None]], axis=1).astype(np.float32)
    num_points_per_stroke = np.diff(stroke_ends, prepend=0)
    return Line(offsets, int(np.sum(num_points_per_stroke == 1)))


def line_of_strokes(strokes: Sequence[np.ndarray], y_points_up: bool) -> Line:
    """As `line_of_points`, of strokes [points, 2] each.

    Raises:
        FileFault: a stroke is empty, a point is far away, or as `line_of_points`.
    """
    for number, stroke in enumerate(strokes, start=1):
        if not len(stroke):
            raise FileFault(f"stroke {number} is empty")
        if not (np.abs(stroke) <= MAX_COORDINATE).all():
            raise FileFault(f"stroke {number} goes beyond {MAX_COORDINATE:g}")
    ends = np.cumsum([len(stroke) for stroke in strokes], dtype=np.int64)
    points = np.concatenate([np.zeros((0, 2)), *strokes])
    return line_of_points(points, ends, y_points_up)


def line_of_steps(steps: np.ndarray, y_points_up: bool) -> Line:
    """Makes a line of steps that are differences already.

    Of the first stroke nobody knows whether a point came before its first step: it counts as one
    that did.

    Args:
        steps: numbers, [time, 3]: dx, dy, pen.
        y_points_up: whether y grows upwards; else dy is negated.

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


@dataclasses.dataclass
class RawSplit:
    """The lines of one split, in order."""

    ids: list[str] = dataclasses.field(default_factory=list)
    # float32 [time, 3] each, raw units
    offsets: list[np.ndarray] = dataclasses.field(default_factory=list)
    one_point_strokes: int = 0

    @classmethod
    def of(cls, lines: Mapping[str, Line], names: Iterable[str]) -> "RawSplit":
        """Those of `names` that there are."""
        split = cls()
        for name in names:
            if name in lines:
                split.add(name, lines[name])
        return split

    def add(self, line_id: str, line: Line) -> None:
        """Adds a line."""
        self.ids.append(line_id)
        self.offsets.append(line.offsets)
        self.one_point_strokes += line.one_point_strokes

    @property
    def num_steps(self) -> int:
        """Steps of all lines together."""
        return sum(len(offsets) for offsets in self.offsets)

    @property
    def pen_rate(self) -> float:
        """Share of steps that end a stroke."""
        return math.fsum(float(offsets[:, 2].sum()) for offsets in self.offsets) / self.num_steps


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


class OffsetStatistics(NamedTuple):
    """Means and standard deviations of (dx, dy), and the scalar pair; raw units."""

    mean: tuple[float, float]
    std: tuple[float, float]
    scalar_mean: float
    # None where its square is not positive, which the definition does not rule out.
    scalar_std: float | None


def offset_statistics(offsets: Iterable[np.ndarray]) -> OffsetStatistics:
    """Statistics of dx and dy of lines, float32 [time, 3] each, in whatever order.

    Raises:
        UserError: dx or dy do not vary.
    """
    count, sums = 0, []
    for line in offsets:
        values = line[:, :2].astype(np.float64)
        count += len(values)
        sums.append([*values.sum(axis=0), *np.square(values).sum(axis=0)])
    # Each line is summed in float64 and the sums of lines exactly, whatever their order.
    means = [math.fsum(column) / count for column in zip(*sums, strict=True)]
    first, second = means[:2], means[2:]
    scalar_variance = sum(second) - sum(first) ** 2
    what = "dx or dy"
    return OffsetStatistics(
        mean=(first[0], first[1]),
        std=(std_of(second[0], first[0], what), std_of(second[1], first[1], what)),
        scalar_mean=sum(first),
        scalar_std=math.sqrt(scalar_variance) if scalar_variance > 0 else None,
    )


def mean_and_std(
    statistics: OffsetStatistics, kind: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Chooses mean and std of (dx, dy, pen), of which the pen's are 0 and 1.

    Raises:
        UserError: `kind` is unknown, or the lines have none of it.
    """
    if kind == "vrnn":
        mean, std = statistics.scalar_mean, statistics.scalar_std
        if std is None:
            raise UserError(
                "--normalization=vrnn: undefined, since the means of dx and dy, "
                f"{statistics.mean[0]:g} and {statistics.mean[1]:g}, are too large beside their "
                "variation; accepted here: channel"
            )
        return (mean, mean, 0.0), (std, std, 1.0)
    if kind == "channel":
        return (*statistics.mean, 0.0), (*statistics.std, 1.0)
    raise UserError(f"--normalization={kind}: accepted are {', '.join(NORMALIZATIONS)}")


# ----------------------------------------------------------------------------------- records


def write_records(
    out: Path,
    splits: Mapping[str, RawSplit],
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
    """Normalises lines, writes them with their card, and prints what they hold.

    Args:
        out: folder of the records.
        splits: the lines of each split, `train` among them.
        name: of the dataset.
        unit: of dx and dy.
        normalization: one of `NORMALIZATIONS`.
        source_sha256: checksum of what the lines were made from.
        command: that makes the records, without the paths, so that the same data prepared elsewhere
            give the same bytes.
        extra: more facts for the card; the pen rates, one-point strokes and statistics are added.
        group_of: gives the group of a line of that name (`records.Sequence`).
        complete: as for `raw_files.print_sizes_check`.

    Returns:
        The card.

    Raises:
        UserError: a split is empty, the lines cannot be normalised, or as `write_dataset`.
    """
    for split, raw in splits.items():
        if not raw.ids:
            raise UserError(f"no line is left for the split {split!r}")
    statistics = offset_statistics(splits["train"].offsets)
    mean, std = mean_and_std(statistics, normalization)
    records = import_records()
    normalizer = Normalization(kind=normalization, mean=mean, std=std)

    def sequences(raw: RawSplit) -> Iterator[tuple[str, np.ndarray, str]]:
        for line_id, offsets in zip(raw.ids, raw.offsets, strict=True):
            yield line_id, normalizer.normalize(offsets), group_of(line_id)

    card = records.write_dataset(
        out,
        name=name,
        features=(
            Feature("dx", "real", unit, "difference to the point before, to the right"),
            Feature("dy", "real", unit, "difference to the point before, upwards"),
            Feature("pen", "binary", "none", "1 on the last point of a stroke"),
        ),
        splits={split: sequences(raw) for split, raw in splits.items()},
        normalization=normalizer,
        source_sha256=source_sha256,
        command=command,
        extra={
            "pen_rate": {split: raw.pen_rate for split, raw in splits.items()},
            "one_point_strokes": {split: raw.one_point_strokes for split, raw in splits.items()},
            "train_statistics": {
                "dx": {"mean": statistics.mean[0], "std": statistics.std[0]},
                "dy": {"mean": statistics.mean[1], "std": statistics.std[1]},
                "scalar": {"mean": statistics.scalar_mean, "std": statistics.scalar_std},
            },
            **extra,
        },
    )
    _print_summary(card)
    raw_files.print_sizes_check(card.splits, complete or {})
    print(f"wrote {out} ({card.normalization.kind} normalisation)")
    return card


def _print_summary(card: DatasetCard) -> None:
    extra = card.extra
    for name, split in card.splits.items():
        lengths = split.length_quantiles
        print(
            f"{name}: {split.num_sequences} lines, {split.num_steps} steps, "
            f"T {lengths['0']}..{lengths['1']}, pen rate {extra['pen_rate'][name]:.4f}, "
            f"one-point strokes {extra['one_point_strokes'][name]}"
        )
    for channel, values in extra["train_statistics"].items():
        std = "undefined" if values["std"] is None else f"{values['std']:.6g}"
        print(f"train {channel}: mean {values['mean']:.6g}, std {std}")
    raw_files.print_skipped(extra["skipped"])
