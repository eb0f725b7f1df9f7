"""Speech files to records of frames: what the commands timit, blizzard and wav share.

Two passes, neither of which holds more than a sequence in memory, however many hours there are:

1. Every file is decoded block by block (`stcn_tf.data.decoding`) and written to a cache folder
   beside the output (`cache_beside`). An entry is named after the checksum of its source and all
   settings, so that after an interruption the same command goes on with what is there. The folder
   goes when the records are complete.
2. Sequences are read from the cache, piece by piece, straight into the records.

Samples are fractions of full scale, -1 up to 1 (a 16-bit sample divided by 32768). What has at
most 16 bits, or was compressed with losses, is cached as 16-bit integers, where mixing, resampling
and such decoders leave fractions rounded to the nearest and clipped; the rest as float32.
Resampling is soxr's "HQ". One scalar mean and standard deviation normalise all samples; they
depend on neither the order of files nor the number of workers.

Step t of a sequence is a frame: D consecutive samples, one feature each.
"""

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.common import raw_files
from data_prep.common.command import import_records
from data_prep.common.moments import std_of
from data_prep.common.raw_files import FileFault
from stcn_tf.data import decoding as decoder
from stcn_tf.data.card import Feature, Modality, Normalization
from stcn_tf.support.errors import UserError

FULL_SCALE = 32768  # of 16-bit samples
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000
_SHARD_BYTES = 2**27
_CACHE_FILE = re.compile(r"[0-9a-f]{32}\.(samples|json)(\.\d+)?")

# ------------------------------------------------------------------------- decoding to the cache


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What is made of the samples of each file."""

    sample_rate_hz: int = 0  # of the result; 0: as the file has it
    resamples: bool = False  # another rate is converted; else it is a fault
    mixes_channels: bool = False  # channels are averaged; else more than one is a fault
    mono_advice: str = ""  # what to say about that fault
    always_int16: bool = False  # samples of more than 16 bits are rounded, too
    min_samples: int = 1  # fewer are a fault


class Sound(NamedTuple):
    """What came out of a file."""

    sample_rate_hz: int
    dtype: str  # int16 or float32
    num_samples: int


class DecodedFile(NamedTuple):
    """A file in the cache."""

    samples: str  # the path of its samples
    dtype: str  # of the samples
    sample_rate_hz: int
    num_samples: int
    total: float  # sum of the samples, in full scale
    square_total: float  # sum of their squares
    sha256: str = ""  # of the samples' bytes
    content_sha256: str = ""  # of the samples, whatever their type
    is_reused: bool = False


def decode(path: str | Path, decoding: Decoding, write: Callable[[np.ndarray], Any]) -> Sound:
    """Decodes a sound file; `write` takes blocks [samples], int16 or float32, as they come.

    Raises:
        FileFault: what is wrong with the file. Blocks may have been written before.
    """
    count = 0
    try:
        with raw_files.open_regular(path) as file, decoder.Sound(file) as sound:
            rate_hz = sound.sample_rate_hz
            if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
                accepted = f"{MIN_RATE_HZ} to {MAX_RATE_HZ}"
                raise FileFault(f"has a sample rate of {rate_hz} Hz; accepted: {accepted}")
            if sound.num_channels > 1 and not decoding.mixes_channels:
                accepted = f"1{decoding.mono_advice}"
                raise FileFault(f"has {sound.num_channels} channels; accepted: {accepted}")
            wanted_hz = decoding.sample_rate_hz or rate_hz
            if rate_hz != wanted_hz and not decoding.resamples:
                raise FileFault(f"has a sample rate of {rate_hz} Hz; accepted: {wanted_hz}")
            dtype = "float32" if sound.is_wide and not decoding.always_int16 else "int16"
            for block in sound.mono(wanted_hz):
                count += len(block)
                write(_to_int16(block) if dtype == "int16" else block)
    except decoder.SoundFault as fault:
        raise FileFault(str(fault)) from fault
    if count < decoding.min_samples:
        raise FileFault(f"has {count} samples, at least {decoding.min_samples} are needed")
    return Sound(wanted_hz, dtype, count)


def _to_int16(block: np.ndarray) -> np.ndarray:
    rounded = np.rint(block * np.float32(FULL_SCALE))
    return np.clip(rounded, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _full_scale(samples: np.ndarray) -> np.ndarray:
    values = samples.astype(np.float32)
    return values / FULL_SCALE if samples.dtype.kind == "i" else values


@contextlib.contextmanager
def cache_beside(out: Path) -> Iterator[Path]:
    """Gives the folder of what is decoded for the dataset `out`: a hidden sibling.

    It is removed when the block ends well, and when it is empty. Else it stays, and a line on
    stderr says where, so that the same command goes on from there.

    Raises:
        UserError: it cannot be made, or holds something else.
    """
    out = out.resolve()
    folder = out.with_name(f".{out.name}.decoded")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [path.name for path in folder.iterdir() if not _CACHE_FILE.fullmatch(path.name)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be used ({error.strerror})") from error
    if foreign:
        raise UserError(f"{folder}: holds {foreign[0]!r}, which was not decoded; move it away")
    try:
        yield folder
    except BaseException:
        if any(folder.glob("*.json")):
            print(
                f"what was decoded stays in {folder}: the same command goes on from there",
                file=sys.stderr,
            )
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder)


def decode_to_cache(path: str, cache: str, decoding: Decoding) -> raw_files.ParsedFile:
    """Decodes a file into the cache unless it is there: to a `DecodedFile`, or a fault.

    Raises:
        UserError: the cache cannot be written.
    """
    sha256 = ""
    try:
        with raw_files.open_regular(path) as file:
            try:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise FileFault(f"cannot be read: {error.strerror or error}") from error
        settings = [sha256, dataclasses.asdict(decoding), decoder.versions()]
        entry = Path(cache, _checksum(json.dumps(settings, sort_keys=True))[:32])
        decoded = _cached(entry) or _decode_entry(path, entry, decoding)
    except FileFault as fault:
        return raw_files.ParsedFile(None, sha256, str(fault))
    except OSError as error:
        raise UserError(f"{cache}: cannot be written ({error.strerror or error})") from error
    return raw_files.ParsedFile(decoded, sha256, "")


def _cached(entry: Path) -> DecodedFile | None:
    """The entry of an interrupted run, if it is there and as it was written."""
    samples = entry.with_suffix(".samples")
    try:
        checksum, facts = entry.with_suffix(".json").read_text(encoding="ascii").splitlines()
        decoded = DecodedFile(str(samples), **json.loads(facts))
        with open(samples, "rb") as file:
            is_whole = decoded.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, TypeError):
        return None
    is_whole = is_whole and checksum == _checksum(facts) and bool(decoded.content_sha256)
    return decoded._replace(is_reused=True) if is_whole else None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _decode_entry(path: str, entry: Path, decoding: Decoding) -> DecodedFile:
    totals: list[float] = []
    square_totals: list[float] = []
    sha256, content_sha256 = hashlib.sha256(), hashlib.sha256()
    samples = entry.with_suffix(".samples")
    with _written_whole(samples) as partial, open(partial, "wb") as file:

        def write(block: np.ndarray) -> None:
            content = block.astype(block.dtype.newbyteorder("<")).tobytes()
            file.write(content)
            sha256.update(content)
            values = _full_scale(block)
            content_sha256.update((values + np.float32(0)).astype("<f4").tobytes())  # -0 is 0
            values = values.astype(np.float64)
            totals.append(values.sum())
            square_totals.append(np.square(values).sum())

        sound = decode(path, decoding, write)
    sums = {"total": math.fsum(totals), "square_total": math.fsum(square_totals)}
    checksums = {"sha256": sha256.hexdigest(), "content_sha256": content_sha256.hexdigest()}
    facts = sound._asdict() | sums | checksums
    # Last: an entry without it is none.
    with _written_whole(entry.with_suffix(".json")) as partial:
        text = json.dumps(facts)
        partial.write_text(f"{_checksum(text)}\n{text}", encoding="ascii")
    return DecodedFile(str(samples), **facts)


@contextlib.contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """As `files.replacing_file`, but need not survive a power cut: entries have checksums."""
    # Files of equal content share an entry, which two processes may be writing.
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class Decoded(NamedTuple):
    """What the first pass leaves."""

    files: dict[str, DecodedFile]  # by name, in the order they were asked for
    faults: dict[str, str]  # what was left out, and why
    source_sha256: str  # over names and checksums of the files used
    sample_rate_hz: int  # of all of them


def decode_files(
    names: Mapping[str, Sequence[str]],
    cache: Path,
    decoding: Decoding,
    *,
    source: Path,
    skip_bad: bool,
    workers: int,
) -> Decoded:
    """Decodes files into the cache, in parallel, and says how many were there already.

    `names` are paths below `source` by the names they shall have. Several are copies: the first is
    used where all have the same samples.

    Raises:
        UserError: without `skip_bad` a file has a fault; nothing is left; sample rates differ.
    """
    owners = [(path, name) for name, copies in names.items() for path in copies]
    raw = raw_files.read_files(
        functools.partial(decode_to_cache, cache=str(cache), decoding=decoding),
        {owner: source / owner[0] for owner in owners},
        workers,
        digest_name=lambda owner: owner[1] if owner[0] == names[owner[1]][0] else None,
        what="decoding",
        chunk=1,
    )
    files: dict[str, DecodedFile] = {}
    faults: dict[str, str] = {}
    for path, name in owners:
        first, file = names[name][0], raw.by_name.get((path, name))
        if file is None:
            copy = "" if path == first else f"has a copy, {path}, that "
            faults.setdefault(name, f"{copy}{raw.faults[path, name]}")
        elif path == first:
            files[name] = file
        elif name in files and file.content_sha256 != files[name].content_sha256:
            faults[name] = f"may be {first} or {path}, whose samples differ"
    if faults and not skip_bad:
        raw_files.refuse(faults, source)
    files = {name: file for name, file in files.items() if name not in faults}
    if not files:
        raise UserError(f"{source}: no file is left")
    (first, file), *others = files.items()
    for name, other in others:
        if other.sample_rate_hz != file.sample_rate_hz:
            raise UserError(
                f"{source}: sample rates differ: {first} has {file.sample_rate_hz} Hz, {name} has "
                f"{other.sample_rate_hz} Hz; --sample_rate_hz=RATE resamples"
            )
    num_reused = sum(file.is_reused for file in files.values())
    # By an interrupted run, or of a file of equal content.
    reused = f"; the samples of {num_reused} more were there" if num_reused else ""
    print(f"decoded {len(files) - num_reused} files{reused}")
    return Decoded(files, faults, raw.source_sha256, file.sample_rate_hz)


def print_shared(splits: Mapping[str, Mapping[str, DecodedFile]]) -> None:
    """Warns of files with the same samples, above all in two splits."""
    names: dict[str, dict[str, str]] = {}  # by samples: in each split the first
    shared: dict[tuple[str, str], list[str]] = {}
    for split, files in splits.items():
        for name, file in files.items():
            for other, its in names.setdefault(file.content_sha256, {}).items():
                shared.setdefault((other, split), []).append(f"{its} and {name}")
            names[file.content_sha256].setdefault(split, name)
    for (a, b), pairs in shared.items():
        what = f"the samples of {len(pairs)} {'file' if len(pairs) == 1 else 'files'}"
        where = f"{a} has {what} twice" if a == b else f"{a} and {b} share {what}"
        print(f"warning: {where}, such as {pairs[0]}")


# -------------------------------------------------------------------------------- sequences


class Samples:
    """Decoded files one after the other, of which any piece can be read."""

    def __init__(self, files: Mapping[str, DecodedFile]):
        self._names = list(files)
        self._files = list(files.values())
        lengths = [file.num_samples for file in self._files]
        self._starts = list(itertools.accumulate(lengths, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def place(self, index: int) -> str:
        """NAME@OFFSET of the sample at `index`."""
        number = bisect.bisect_right(self._starts, index) - 1
        return f"{self._names[number]}@{index - self._starts[number]}"

    def read(self, start: int, stop: int) -> np.ndarray:
        """Reads the samples `start` up to `stop`, [samples] float32, in full scale.

        Raises:
            UserError: the cache was changed meanwhile.
        """
        pieces = []
        number = bisect.bisect_right(self._starts, start) - 1
        while start < stop:
            end = min(stop, self._starts[number + 1])
            pieces.append(self._read_file(number, start - self._starts[number], end - start))
            start, number = end, number + 1
        return np.concatenate(pieces)

    def _read_file(self, number: int, offset: int, count: int) -> np.ndarray:
        file = self._files[number]
        dtype = np.dtype(file.dtype).newbyteorder("<")
        # Not memory-mapped: mapped pages would count as this process's memory as they are touched,
        # and thousands of files cannot be open at once.
        piece = np.fromfile(file.samples, dtype, count, offset=offset * dtype.itemsize)
        if len(piece) != count:
            raise UserError(f"{file.samples}: was changed while it was read; begin anew")
        return _full_scale(piece)


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """The sequences of one split, to be read as often as needed."""

    origin: str  # what they come from, to be printed
    num_sequences: int
    num_steps: int  # of all of them together
    pieces: Callable[[], Iterator[tuple[str, np.ndarray]]]  # id, [frames * D] in full scale

    def read(self, what: str) -> Iterator[tuple[str, np.ndarray]]:
        """The pieces, with progress in doing `what`."""
        return raw_files.with_progress(self.pieces(), self.num_sequences, what, "sequences")


def plan_files(
    files: Mapping[str, DecodedFile], frame_size: int, sequence_frames: int = 0
) -> SplitPlan:
    """Makes sequences of single files, named after the file and, where it is cut, the place.

    What remains at the end of a file is left out, but a file of fewer than `sequence_frames` is one
    sequence; 0: each file is one.
    """
    cuts = []  # file, first sample, number of samples
    for name, file in files.items():
        num_frames = file.num_samples // frame_size
        length = min(sequence_frames or num_frames, num_frames)
        cuts += [
            (name, number * length * frame_size, length * frame_size)
            for number in range(num_frames // length)
        ]

    def pieces() -> Iterator[tuple[str, np.ndarray]]:
        for name, start, length in cuts:
            samples = Samples({name: files[name]}).read(start, start + length)
            yield f"{name}@{start}" if sequence_frames else name, samples

    num_steps = sum(length for _, _, length in cuts) // frame_size
    return SplitPlan(f"{len(files)} files", len(cuts), num_steps, pieces)


class Sums(NamedTuple):
    """Of samples, in full scale."""

    count: int
    total: float
    square_total: float


def sums_of_files(files: Collection[DecodedFile]) -> Sums:
    """Sums over all samples of some files, whatever their order."""
    return Sums(
        sum(file.num_samples for file in files),
        math.fsum(file.total for file in files),
        math.fsum(file.square_total for file in files),
    )


def sums_of_pieces(plan: SplitPlan) -> Sums:
    """Sums over all samples of the sequences of a split."""
    count, total, square_total = 0, 0.0, 0.0
    for _, samples in plan.read("summing"):
        values = samples.astype(np.float64)
        count += len(values)
        total += values.sum()
        square_total += np.square(values).sum()
    return Sums(count, total, square_total)


def write_records(
    out: Path,
    splits: Mapping[str, SplitPlan],
    sums: Callable[[], Sums],
    decoded: Decoded,
    *,
    name: str,
    frame_size: int,
    command: str,
    extra: Mapping[str, Any],
    group_of: Callable[[str], str],
) -> None:
    """Normalises sequences, writes records and card to `out`, and prints what they hold.

    `sums` gives those of the training samples; `command` and `extra` are for the card; `group_of`
    gives the group of a sequence of that name (`records.Sequence`).

    Raises:
        UserError: a split has no sequence, the training samples do not vary, or as
            `records.write_dataset`.
    """
    for split, plan in splits.items():
        if not plan.num_sequences:
            raise UserError(f"no file is left for the split {split!r}")
    count, total, square_total = sums()
    mean = total / count
    std = std_of(square_total / count, mean, "samples")
    rate_hz = decoded.sample_rate_hz
    hours = {n: plan.num_steps * frame_size / rate_hz / 3600 for n, plan in splits.items()}

    normalizer = Normalization("scalar", (mean,) * frame_size, (std,) * frame_size)

    def sequences(split: str) -> Iterator[tuple[str, np.ndarray, str]]:
        for sequence_id, samples in splits[split].read(f"writing {split}"):
            x = normalizer.normalize(samples.reshape(-1, frame_size))
            yield sequence_id, x, group_of(sequence_id)

    num_sequences = sum(plan.num_sequences for plan in splits.values())
    num_bytes = sum(plan.num_steps for plan in splits.values()) * frame_size * 4
    import_records().write_dataset(
        out,
        name=name,
        features=[
            Feature(f"sample_{i}", "real", "full scale", f"sample {i} of the frame")
            for i in range(frame_size)
        ],
        splits={split: sequences(split) for split in splits},
        normalization=normalizer,
        source_sha256=decoded.source_sha256,
        command=command,
        extra={
            "hours": hours,
            "train_statistics": {
                "full_scale": {"mean": mean, "std": std},
                "16_bit": {"mean": mean * FULL_SCALE, "std": std * FULL_SCALE},
            },
            "decoded_with": decoder.versions(),
            "skipped": decoded.faults,
            **extra,
        },
        modality=Modality("audio", sample_rate_hz=rate_hz),
        sequences_per_shard=max(1, _SHARD_BYTES * num_sequences // num_bytes),
    )
    for split, plan in splits.items():
        print(
            f"{split}: {plan.origin}, {plan.num_sequences} sequences, {plan.num_steps} steps of "
            f"{frame_size} samples, {hours[split]:.3f} hours at {rate_hz} Hz"
        )
    print(
        f"train samples: mean {mean:.9f}, std {std:.9f} in full scale; mean "
        f"{mean * FULL_SCALE:.6f}, std {std * FULL_SCALE:.3f} in 16-bit units"
    )
    raw_files.print_skipped(decoded.faults)
    print(f"wrote {out} (scalar normalisation)")
