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

Normalisation subtracts a mean and divides by a standard deviation taken from the `train` split;
the pen stays 0 or 1. A log-likelihood depends on it, so numbers compare only under the same:

* `vrnn`: one mean and std for dx and dy, with sums over both divided by the number of steps N:
  mean = (sum dx + sum dy) / N, std = sqrt((sum dx^2 + sum dy^2) / N - mean^2).
* `channel`: mean and standard deviation of dx and of dy.

Parsing and features: `data_prep.linestrokes`. The records do not depend on `--workers`.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import math
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from data_prep.linestrokes import ParsedFile, parse_file
from stcn_tf import cli
from stcn_tf.errors import UserError

if TYPE_CHECKING:
    from stcn_tf.data.records import DatasetCard

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
NORMALIZATIONS = ("vrnn", "channel")

_FORM = re.compile(r"([a-z0-9]+-[0-9]+)[a-z]?")  # a01-000u lies in the folder a01-000
_FAULTS_SHOWN = 5
_NAMES_IN_CARD = 20
_FILES_PER_JOB = 32
_PLAIN_PROGRESS_EVERY = 2000


def define_flags() -> None:
    """Defines this command's flags."""
    flags.DEFINE_string(
        "source", None, "Folder that holds lineStrokes or data/lineStrokes, or lineStrokes itself."
    )
    flags.DEFINE_string("out", None, "Folder of the records; a dataset there is replaced.")
    flags.DEFINE_string(
        "split", "vrnn", "vrnn, official, or a folder with one NAME.txt of form ids per split."
    )
    flags.DEFINE_enum(
        "normalization",
        "vrnn",
        list(NORMALIZATIONS),
        "vrnn: one mean and std for dx and dy, sums over both divided by the number of steps; "
        "channel: a mean and std for each.",
    )
    flags.DEFINE_bool(
        "skip_bad", False, "Skip files with faults and forms without files, and count them."
    )
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes that parse; by default as many as this process may use CPUs, at most 8.",
        lower_bound=1,
    )
    flags.mark_flags_as_required(["source", "out"])


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


def read_form_list(path: Path) -> list[str]:
    """Reads form ids, one per line; blank lines and lines that begin with # are skipped.

    Raises:
        UserError: the file cannot be read, holds no or a malformed form id, or one twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--split: {path} cannot be read: {error}") from error
    forms: dict[str, None] = {}
    for number, text in enumerate(lines, start=1):
        form = text.strip()
        if not form or form.startswith("#"):
            continue
        if not _FORM.fullmatch(form):
            raise UserError(
                f"--split: {path}, line {number}: {form!r} is no form id (such as a01-000u)"
            )
        if form in forms:
            raise UserError(f"--split: {path}, line {number}: {form} is listed twice")
        forms[form] = None
    if not forms:
        raise UserError(f"--split: {path} lists no form")
    return list(forms)


def read_splits(split: str) -> dict[str, list[str]]:
    """Reads the form lists of a bundled split, or of a folder of NAME.txt files.

    Args:
        split: a key of `BUNDLED_SPLITS`, or a folder.

    Returns:
        The form ids of each split, sorted.

    Raises:
        UserError: there is no such split, it has no `train`, or a form is in two splits.
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
    forms = {name: sorted(sum(map(read_form_list, paths), [])) for name, paths in lists.items()}
    owner: dict[str, str] = {}
    for name, members in forms.items():
        for form in members:
            if owner.setdefault(form, name) != name:
                raise UserError(f"--split={split}: {form} is in {owner[form]} and in {name}")
    return forms


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

    def refuse(error: OSError) -> None:
        raise UserError(f"--source: {error.filename} cannot be read: {error.strerror}") from error

    paths = []
    for folder, _, names in os.walk(root, onerror=refuse):
        relative = Path(folder).relative_to(root)
        paths += [(relative / name).as_posix() for name in names if name.endswith(".xml")]
    forms = {}
    for path in sorted(paths):
        form = path.rsplit("/", 1)[-1].removesuffix(".xml").rpartition("-")[0]
        match = _FORM.fullmatch(form)
        folder = f"{form.split('-')[0]}/{match[1]}/" if match else None
        forms[path] = form if folder and path == folder + path.rsplit("/", 1)[-1] else ""
    return forms


# ----------------------------------------------------------------------------------- parsing


@contextlib.contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    """Processes started meanwhile inherit that Ctrl-C is ignored: only the parent reports it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def parse_files(paths: Sequence[str], workers: int) -> Iterator[ParsedFile]:
    """Parses files in order, in `workers` processes (in this one if `workers` is 1).

    Args:
        paths: `lineStrokes` XML files.
        workers: number of processes.

    Yields:
        One `ParsedFile` for each path, in the order of `paths`.
    """
    workers = min(workers, math.ceil(len(paths) / _FILES_PER_JOB))
    if workers <= 1:
        yield from map(parse_file, paths)
        return
    # "spawn" works alike on every platform, and is safe whatever threads this process runs.
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn")
    )
    try:
        with _children_ignore_interrupts():
            results = executor.map(parse_file, paths, chunksize=_FILES_PER_JOB)
        yield from results
    finally:
        executor.shutdown(cancel_futures=True)


def _with_progress(parsed: Iterable[ParsedFile], total: int) -> Iterator[ParsedFile]:
    """A bar on a terminal, else a plain line now and then; both on stderr."""
    if sys.stderr.isatty():
        yield from tqdm(parsed, total=total, desc="parsing", unit=" files", file=sys.stderr)
        return
    for count, result in enumerate(parsed, start=1):
        yield result
        if count % _PLAIN_PROGRESS_EVERY == 0 or count == total:
            print(f"parsed {count} of {total} files", file=sys.stderr, flush=True)


@dataclasses.dataclass
class RawSplit:
    """The parsed lines of one split."""

    ids: list[str] = dataclasses.field(default_factory=list)  # a01-000u-01, sorted
    # float32 [time, 3] each, whiteboard units
    offsets: list[np.ndarray] = dataclasses.field(default_factory=list)
    one_point_strokes: int = 0

    @property
    def num_steps(self) -> int:
        """Steps of all lines together."""
        return sum(len(offsets) for offsets in self.offsets)


class RawData(NamedTuple):
    """All that was read, before normalisation."""

    splits: dict[str, RawSplit]
    source_sha256: str  # over the sorted relative paths and content hashes of the files used
    skipped: dict[str, str]  # file or form -> reason
    unlisted: list[str]  # files that belong to no listed form


def _refuse(faults: Mapping[str, str], root: Path) -> None:
    shown = [f"{name}: {reason}" for name, reason in list(faults.items())[:_FAULTS_SHOWN]]
    if len(faults) > len(shown):
        shown.append(f"and {len(faults) - len(shown)} more")
    raise UserError(
        f"{len(faults)} bad {'entry' if len(faults) == 1 else 'entries'} in {root}: "
        f"{'; '.join(shown)} (mend, or pass --skip_bad to leave out)"
    )


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
        UserError: without `skip_bad` a file is bad or a form has no files; or a split is empty.
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
    digest = hashlib.sha256()
    parsed = parse_files([str(root / path) for path in used], workers)
    with contextlib.closing(parsed):
        for path, result in zip(used, _with_progress(parsed, len(used)), strict=True):
            if result.line is None:
                faults[path] = result.fault
                continue
            digest.update(f"{path} {result.sha256}\n".encode())
            raw = splits[split_by_form[form_by_path[path]]]
            raw.ids.append(Path(path).stem)
            raw.offsets.append(result.line.offsets)
            raw.one_point_strokes += result.line.one_point_strokes
    if faults and not skip_bad:
        _refuse(faults, root)
    for name, raw in splits.items():
        if not raw.ids:
            raise UserError(f"{root}: no line is left for the split {name!r}")
    unlisted = [path for path, form in form_by_path.items() if form not in split_by_form]
    return RawData(splits, digest.hexdigest(), faults, unlisted)


# ------------------------------------------------------------------------------- statistics


class OffsetStatistics(NamedTuple):
    """Means and standard deviations of (dx, dy), and the scalar pair; whiteboard units."""

    mean: tuple[float, float]
    std: tuple[float, float]
    scalar_mean: float
    scalar_std: float


def offset_statistics(offsets: Iterable[np.ndarray]) -> OffsetStatistics:
    """Computes both kinds of statistics of dx and dy, exactly as the module docstring says.

    Args:
        offsets: the lines, float32 [time, 3] each.

    Returns:
        Statistics in float64. Sums over lines are exact (`math.fsum`), so that they depend on
        neither the order of lines nor the number of workers.

    Raises:
        UserError: a standard deviation is 0 or undefined.
    """
    sums, square_sums, num_steps = [], [], 0
    for line in offsets:
        deltas = line[:, :2].astype(np.float64)
        sums.append(deltas.sum(axis=0))
        square_sums.append(np.square(deltas).sum(axis=0))
        num_steps += len(deltas)
    first = [math.fsum(column) / num_steps for column in np.transpose(sums)]
    second = [math.fsum(column) / num_steps for column in np.transpose(square_sums)]

    def std(mean_square: float, mean: float) -> float:
        variance = mean_square - mean**2
        if variance <= 1e-12 * mean_square:
            raise UserError(
                "the train split cannot be normalised: its dx or dy do not vary "
                f"(mean {mean:g}, variance {variance:g})"
            )
        return math.sqrt(variance)

    return OffsetStatistics(
        mean=(first[0], first[1]),
        std=(std(second[0], first[0]), std(second[1], first[1])),
        scalar_mean=sum(first),
        scalar_std=std(sum(second), sum(first)),
    )


def mean_and_std(
    statistics: OffsetStatistics, kind: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Chooses mean and std of (dx, dy, pen); the pen's are 0 and 1.

    Args:
        statistics: of the train split.
        kind: one of `NORMALIZATIONS`.

    Returns:
        Means and standard deviations.

    Raises:
        UserError: an unknown kind.
    """
    if kind == "vrnn":
        mean, std = statistics.scalar_mean, statistics.scalar_std
        return (mean, mean, 0.0), (std, std, 1.0)
    if kind == "channel":
        return (*statistics.mean, 0.0), (*statistics.std, 1.0)
    raise UserError(f"--normalization={kind}: accepted are {', '.join(NORMALIZATIONS)}")


def pen_rate(raw: RawSplit) -> float:
    """Share of steps that end a stroke."""
    return math.fsum(float(offsets[:, 2].sum()) for offsets in raw.offsets) / raw.num_steps


# ---------------------------------------------------------------------------------- command


def prepare(
    source: Path, out: Path, *, split: str, normalization: str, skip_bad: bool, workers: int
) -> None:
    """Reads raw files, writes records and card to `out`, and prints what they hold.

    Args:
        source: as `--source`.
        out: as `--out`.
        split: as `--split`.
        normalization: one of `NORMALIZATIONS`.
        skip_bad: leave out bad files.
        workers: number of parsing processes.

    Raises:
        UserError: as `read_splits`, `read_raw`, `offset_statistics` and `write_dataset`.
    """
    if out.exists():
        # write_dataset checks it too; a mistake in --out should not cost a parse first. A new
        # folder needs no check, and then mistakes in the raw data answer before TensorFlow.
        _import_records().check_replaceable(out)
    form_lists = read_splits(split)
    raw = read_raw(source, form_lists, skip_bad=skip_bad, workers=workers)
    statistics = offset_statistics(raw.splits["train"].offsets)

    records = _import_records()
    mean, std = mean_and_std(statistics, normalization)
    normalizer = records.Normalization(kind=normalization, mean=mean, std=std)

    def sequences(lines: RawSplit) -> Iterator[tuple[str, np.ndarray]]:
        for sequence_id, offsets in zip(lines.ids, lines.offsets, strict=True):
            yield sequence_id, normalizer.normalize(offsets)

    bundled = split in BUNDLED_SPLITS
    # Without the paths: the same data prepared elsewhere gives the same bytes.
    command = (
        "python -m data_prep.iamondb --source=DIR --out=DIR "
        f"--split={split if bundled else 'DIR'} --normalization={normalization}"
        f"{' --skip_bad' if skip_bad else ''}"
    )
    extra = {
        "split": split if bundled else "folder",
        "forms": {name: len(forms) for name, forms in form_lists.items()},
        "pen_rate": {name: pen_rate(lines) for name, lines in raw.splits.items()},
        "one_point_strokes": {n: lines.one_point_strokes for n, lines in raw.splits.items()},
        "train_statistics": {
            "dx": {"mean": statistics.mean[0], "std": statistics.std[0]},
            "dy": {"mean": statistics.mean[1], "std": statistics.std[1]},
            "scalar": {"mean": statistics.scalar_mean, "std": statistics.scalar_std},
        },
        "skipped": raw.skipped,
        "num_files_in_no_list": len(raw.unlisted),
        "files_in_no_list": raw.unlisted[:_NAMES_IN_CARD],
    }
    unit = "whiteboard unit"
    card = records.write_dataset(
        out,
        name="iamondb" if bundled else "handwriting",
        features=(
            records.Feature("dx", "real", unit, "difference to the point before, to the right"),
            records.Feature("dy", "real", unit, "difference to the point before, upwards"),
            records.Feature("pen", "binary", "none", "1 on the last point of a stroke"),
        ),
        splits={name: sequences(lines) for name, lines in raw.splits.items()},
        normalization=normalizer,
        source_sha256=raw.source_sha256,
        command=command,
        extra=extra,
    )
    _print_summary(card, out)


def _import_records() -> ModuleType:
    """Not at the top: the processes that parse import this module too, without TensorFlow."""
    cli.import_tensorflow()
    from stcn_tf.data import records

    return records


def _print_summary(card: "DatasetCard", out: Path) -> None:
    extra = card.extra
    for name, split in card.splits.items():
        quantiles = split.length_quantiles
        print(
            f"{name}: {extra['forms'][name]} forms, {split.num_sequences} lines, "
            f"{split.num_steps} steps, T {quantiles['0']}..{quantiles['1']}, "
            f"pen rate {extra['pen_rate'][name]:.4f}, "
            f"one-point strokes {extra['one_point_strokes'][name]}"
        )
    for channel, values in extra["train_statistics"].items():
        print(f"train {channel}: mean {values['mean']:.4f}, std {values['std']:.4f}")
    for name, reason in extra["skipped"].items():
        print(f"skipped {name}: {reason}")
    print(
        f"skipped {len(extra['skipped'])} entries; {extra['num_files_in_no_list']} files are in "
        f"no list\nwrote {out} ({card.normalization.kind} normalisation)"
    )


def _num_cpus() -> int:
    # A container or batch system may grant fewer CPUs than the machine has; only Linux tells.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main() -> None:
    """Prepares the records that the flags ask for."""
    values = flags.FLAGS
    workers = values.workers or min(8, _num_cpus())
    prepare(
        Path(values.source),
        Path(values.out),
        split=values.split,
        normalization=values.normalization,
        skip_bad=values.skip_bad,
        workers=workers,
    )


if __name__ == "__main__":
    cli.run(main, define_flags, needs_tensorflow=False)
