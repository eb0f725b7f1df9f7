"""Speech files to records of frames: what the commands timit, blizzard and wav share.

Two passes, neither of which holds more than a sequence in memory, however many hours there are:

1. Every file is decoded block by block, mixed to mono and resampled where that is asked for, and
   written to a cache folder beside the output (`cache_beside`). An entry is named after the
   checksum of its source and all settings, so that after an interruption the same command goes on
   with what is there. The folder goes when the records are complete.
2. Sequences are read from the cache, piece by piece, straight into the records.

Samples are fractions of full scale, -1 up to 1 (a 16-bit sample divided by 32768). What has at
most 16 bits, or was compressed with losses, is cached as 16-bit integers, where mixing, resampling
and such decoders leave fractions rounded to the nearest and clipped; the rest as float32.
Resampling is soxr's "HQ". One scalar mean and standard deviation normalise all samples; they are
computed from sums that depend on neither the order of files nor the number of workers.

Step t of a sequence is a frame: D consecutive samples, one feature each.
"""

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from data_prep.common import raw_files
from data_prep.common.command import import_records
from data_prep.common.moments import Moments, std_of
from data_prep.common.raw_files import FileFault
from stcn_tf.data.card import Feature, Modality, Normalization
from stcn_tf.support.errors import UserError

ENDINGS = (".wav", ".flac", ".mp3", ".ogg")
FULL_SCALE = 32768  # of 16-bit samples
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000

_BLOCK_VALUES = 2**16  # decoded at once, over all channels
_WIDE_SUBTYPES = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")  # more than 16 bits
_MAX_VALUE = 2.0**20  # times full scale: what is larger is a mistake, and squares stay harmless
_MAX_WAV_CHUNKS = 1000
_SPHERE_HEADER_BYTES = 1024
_MAX_OGG_PAGE_BYTES = 65_307
_MP3_SLACK = 2 * 1152  # samples of two MPEG frames: encoders do not agree on what they count
_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX
_SHARD_BYTES = 2**27
_CACHE_FILE = re.compile(r"[0-9a-f]{32}\.(samples|json)(\.\d+)?")


# --------------------------------------------------------------------------------- decoding


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What is made of the samples of each file.

    Attributes:
        sample_rate_hz: of the result; 0: as the file has it.
        resamples: whether another rate is converted; else it is a fault.
        mixes_channels: whether channels are averaged; else more than one is a fault.
        mono_advice: what to say about that fault.
        always_int16: whether samples of more than 16 bits are rounded too.
        min_samples: fewer samples are a fault.
    """

    sample_rate_hz: int = 0
    resamples: bool = False
    mixes_channels: bool = False
    mono_advice: str = ""
    always_int16: bool = False
    min_samples: int = 1


class Sound(NamedTuple):
    """What came out of a file."""

    sample_rate_hz: int
    dtype: str  # int16 or float32
    num_samples: int


class _ForwardFile(soundfile.SoundFile):
    """After each read `SoundFile` seeks to where it is, which MP3 decoders do only roughly."""

    def seekable(self) -> bool:
        return False


def decode(path: str | Path, decoding: Decoding, write: Callable[[np.ndarray], Any]) -> Sound:
    """Decodes a WAV, FLAC, MP3, OGG or NIST SPHERE file block by block.

    Args:
        path: a file. Its content tells its format, not its name.
        decoding: what to make of it.
        write: takes each block, [samples] int16 or float32 (see the module's docstring). Blocks may
            have been passed on before a fault is found.

    Returns:
        The facts.

    Raises:
        FileFault: what is wrong with the file.
    """
    with contextlib.ExitStack() as stack:
        # Decoders print warnings, which belong in the fault, if anywhere.
        stack.enter_context(_quiet_stderr())
        file = stack.enter_context(raw_files.open_regular(path))
        try:
            kind, start, declared = _inspect(file)
            file.seek(0)
        except OSError as error:
            raise FileFault(f"cannot be read: {error.strerror or error}") from error
        try:
            sound = stack.enter_context(_ForwardFile(file.fileno(), closefd=False))
            if kind == "MP3" and declared == 0:
                file.seek(start)
                pipe = stack.enter_context(_piped(file))
                sound = stack.enter_context(_ForwardFile(pipe, closefd=False))
        except soundfile.SoundFileError as error:
            raise FileFault(f"is damaged: it cannot be opened as {kind}") from error
        if not sound.format.startswith(kind):
            raise FileFault(f"is damaged: it begins as {kind}, but is {sound.format}")
        rate_hz = _checked_rate(sound, decoding)
        is_int16 = decoding.always_int16 or sound.subtype not in _WIDE_SUBTYPES
        resample = _resampler(sound.samplerate, rate_hz)
        count = num_samples = 0
        for mono in _mono_blocks(sound):
            count += len(mono)
            block = resample(mono, last=not len(mono))
            num_samples += len(block)
            write(_to_int16(block) if is_int16 else block)
        declared = sound.frames if declared is None else declared
        is_whole = count >= declared - _MP3_SLACK if kind == "MP3" else count == declared
        # A FLAC file that was written to a pipe declares no length.
        is_whole |= declared == _UNKNOWN_FRAMES
        if not is_whole:
            raise FileFault(f"is damaged: its header declares {declared} samples, it has {count}")
        if num_samples < decoding.min_samples:
            raise FileFault(
                f"has {num_samples} samples, at least {decoding.min_samples} are needed"
            )
    return Sound(rate_hz, "int16" if is_int16 else "float32", num_samples)


def _inspect(file: BinaryIO) -> tuple[str, int, int | None]:
    """Checks what libsndfile does not: whether the file holds what its header declares.

    Args:
        file: at its beginning.

    Returns:
        The format as libsndfile names it; where its first frame begins (of MP3, else 0); and the
        number of samples per channel that the header declares (None: as libsndfile finds it there;
        0 of MP3: none).
    """
    size = os.fstat(file.fileno()).st_size
    head = file.read(12)
    if not head:
        raise FileFault("is empty")
    start, declared = 0, None
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        kind = "WAV"
        _check_wav(file, size)
    elif head[:4] == b"fLaC":
        kind = "FLAC"
    elif head[:4] == b"OggS":
        kind = "OGG"
        _check_ogg(file, size)
    elif head[:7] == b"NIST_1A":
        kind, declared = "NIST", _sphere_samples(file)
    elif head[:3] == b"ID3" or (head[0] == 0xFF and head[1:2] >= b"\xe0"):
        kind, start = "MP3", _mp3_start(head)
        file.seek(start)
        # A Xing (or Info) header, after the frame's header, a checksum, and side information.
        if not re.search(b"Xing|Info", file.read(64)):
            declared = 0
    else:
        raise FileFault("is neither WAV, FLAC, MP3, OGG nor NIST SPHERE")
    return kind, start, declared


def _check_wav(file: BinaryIO, size: int) -> None:
    """Looks for the samples; libsndfile reads what is there, however much is declared."""
    position = 12
    for _ in range(_MAX_WAV_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            raise FileFault("is truncated: it ends before its samples")
        length = int.from_bytes(head[4:], "little")
        position += 8
        if head[:4] == b"data":
            if length > size - position:
                raise FileFault(
                    f"is truncated: its header declares {length} bytes of samples, but "
                    f"{size - position} are there"
                )
            return
        position += length + length % 2
    raise FileFault(f"has no samples in its first {_MAX_WAV_CHUNKS} chunks")


def _check_ogg(file: BinaryIO, size: int) -> None:
    """The last page is marked as such; libsndfile reads up to whatever page is last."""
    file.seek(max(0, size - _MAX_OGG_PAGE_BYTES))
    page = file.read()
    page = page[page.rfind(b"OggS") :]
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if not lengths or not page[5] & 4 or len(page) != 27 + len(lengths) + sum(lengths):
        raise FileFault("is truncated: it does not end with a last page")


def _sphere_samples(file: BinaryIO) -> int:
    file.seek(0)
    head = file.read(_SPHERE_HEADER_BYTES).split(b"end_head")[0].decode("latin-1")
    # Values may be part of a message: no control characters, no endless ones.
    fields = dict(re.findall(r"^(\w+) -\w+ ([ -~]{,100})\r?$", head, re.MULTILINE))
    coding = fields.get("sample_coding", "pcm").strip()
    if "," in coding:
        raise FileFault(f"is compressed ({coding}): unpack it first, with sph2pipe, say")
    count = fields.get("sample_count", "").strip()
    if not re.fullmatch(r"[0-9]{1,15}", count):
        raise FileFault(f"has no usable sample_count in its NIST header, but {count!r}")
    return int(count)


def _mp3_start(head: bytes) -> int:
    """Where the first frame begins: after the tags of titles and pictures, if there are any."""
    if head[:3] != b"ID3":
        return 0
    return 10 + functools.reduce(lambda size, byte: size << 7 | byte & 127, head[6:10], 0)


@contextlib.contextmanager
def _piped(file: BinaryIO) -> Iterator[int]:
    """Gives a pipe to read a file's rest from.

    Of an MP3 file that declares no length libsndfile guesses one from the size, and stops there
    even if the guess is too short. Of a pipe it cannot guess.
    """
    reader, writer = os.pipe()

    def feed() -> None:
        # The reader may end early.
        with contextlib.suppress(BrokenPipeError), open(writer, "wb") as pipe:
            shutil.copyfileobj(file, pipe)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield reader
    finally:
        os.close(reader)
        thread.join()


def _checked_rate(sound: soundfile.SoundFile, decoding: Decoding) -> int:
    """The sample rate of the result."""
    rate_hz = sound.samplerate
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise FileFault(
            f"has a sample rate of {rate_hz} Hz; accepted: {MIN_RATE_HZ} to {MAX_RATE_HZ}"
        )
    if sound.channels > 1 and not decoding.mixes_channels:
        raise FileFault(f"has {sound.channels} channels; accepted: 1{decoding.mono_advice}")
    wanted_hz = decoding.sample_rate_hz or rate_hz
    if rate_hz != wanted_hz and not decoding.resamples:
        raise FileFault(f"has a sample rate of {rate_hz} Hz; accepted: {wanted_hz}")
    return wanted_hz


def _mono_blocks(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Yields blocks [samples] float32 in full scale, one empty block at the end."""
    buffer = np.empty((max(1, _BLOCK_VALUES // sound.channels), sound.channels), np.float32)
    count = 0
    while True:
        try:
            block = sound.read(out=buffer)
        except soundfile.SoundFileError as error:
            raise FileFault(f"is damaged after {count} samples") from error
        # Written so that NaN is refused too.
        if not (np.abs(block) <= _MAX_VALUE).all():
            raise FileFault("has samples that are no numbers, or far beyond full scale")
        count += len(block)
        yield block[:, 0] if sound.channels == 1 else block.mean(axis=1)
        if not len(block):
            return


def _resampler(from_hz: int, to_hz: int) -> Callable[..., np.ndarray]:
    """Takes blocks [samples] float32, the last one with `last=True`, and gives such blocks."""
    if from_hz == to_hz:
        return lambda block, last: block
    return soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ").resample_chunk


def _to_int16(block: np.ndarray) -> np.ndarray:
    rounded = np.rint(block * np.float32(FULL_SCALE))
    return np.clip(rounded, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drops what C libraries print to stderr inside the block."""
    sys.stderr.flush()
    with contextlib.ExitStack() as undo:
        stderr = os.dup(2)
        undo.callback(os.close, stderr)
        null = os.open(os.devnull, os.O_WRONLY)
        undo.callback(os.close, null)
        os.dup2(null, 2)
        undo.callback(os.dup2, stderr, 2)
        yield


# ------------------------------------------------------------------------------------ cache


class DecodedFile(NamedTuple):
    """A file in the cache."""

    samples: str  # the path of its samples
    dtype: str  # of the samples
    sample_rate_hz: int
    num_samples: int
    total: float  # sum of the samples, in full scale
    square_total: float  # sum of their squares
    is_reused: bool


@contextlib.contextmanager
def cache_beside(out: Path) -> Iterator[Path]:
    """Gives the folder of what is decoded for the dataset `out`.

    It is removed when the block ends well, and when it is empty. Else it stays, and a line on
    stderr says where, so that the same command goes on from there.

    Args:
        out: as --out.

    Yields:
        A hidden sibling of `out`, which may hold entries of an interrupted run.

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
    """Decodes a file into the cache unless it is there; never raises for what is wrong with it.

    Args:
        path: a file.
        cache: folder of the cache.
        decoding: what to make of the file.

    Returns:
        A `DecodedFile` as content, or the fault.

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
        settings = [sha256, dataclasses.asdict(decoding), decoder_versions()]
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
        entry = Path(cache, key)
        decoded = _cached(entry) or _decode_entry(path, entry, decoding)
    except FileFault as fault:
        return raw_files.ParsedFile(None, sha256, str(fault))
    except OSError as error:
        raise UserError(f"{cache}: cannot be written ({error.strerror or error})") from error
    return raw_files.ParsedFile(decoded, sha256, "")


def decoder_versions() -> dict[str, str]:
    """Versions of the libraries on which the samples depend."""
    return {"libsndfile": soundfile.__libsndfile_version__, "soxr": soxr.__libsoxr_version__}


def _samples_path(entry: Path) -> Path:
    return entry.with_suffix(".samples")


def _cached(entry: Path) -> DecodedFile | None:
    """The entry of an interrupted run, if it is there and as it was written."""
    try:
        facts = json.loads(entry.with_suffix(".json").read_bytes())
        with open(_samples_path(entry), "rb") as file:
            if facts.pop("sha256") != hashlib.file_digest(file, "sha256").hexdigest():
                return None
        return DecodedFile(samples=str(_samples_path(entry)), is_reused=True, **facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _decode_entry(path: str, entry: Path, decoding: Decoding) -> DecodedFile:
    moments = Moments(1)
    sha256 = hashlib.sha256()

    with _written_whole(_samples_path(entry)) as partial, open(partial, "wb") as file:

        def write(block: np.ndarray) -> None:
            content = block.astype(block.dtype.newbyteorder("<")).tobytes()
            file.write(content)
            sha256.update(content)
            moments.add(_full_scale(block).astype(np.float64)[:, np.newaxis])

        sound = decode(path, decoding, write)
    facts = {
        "dtype": sound.dtype,
        "sample_rate_hz": sound.sample_rate_hz,
        "num_samples": sound.num_samples,
        "total": moments.sums[0],
        "square_total": moments.square_sums[0],
    }
    # Last: an entry without it is none.
    with _written_whole(entry.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(facts | {"sha256": sha256.hexdigest()}), encoding="ascii")
    return DecodedFile(samples=str(_samples_path(entry)), is_reused=False, **facts)


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
    paths: Mapping[str, Path],
    cache: Path,
    decoding: Decoding,
    *,
    source: Path,
    skip_bad: bool,
    workers: int,
) -> Decoded:
    """Decodes files into the cache, in parallel, and says how many were there already.

    Args:
        paths: the files by the names they shall have.
        cache: folder of the cache.
        decoding: what to make of them.
        source: as --source, for messages.
        skip_bad: leave out files with faults.
        workers: number of processes.

    Returns:
        What the second pass needs.

    Raises:
        UserError: without `skip_bad` a file has a fault; nothing is left; sample rates differ.
    """
    function = functools.partial(decode_to_cache, cache=str(cache), decoding=decoding)
    results = raw_files.map_in_order(function, [str(path) for path in paths.values()], workers)
    files: dict[str, DecodedFile] = {}
    faults: dict[str, str] = {}
    digest = raw_files.Digest()
    with contextlib.closing(results):
        shown = raw_files.with_progress(results, len(paths), "decoding")
        for name, result in zip(paths, shown, strict=True):
            if result.content is None:
                faults[name] = result.fault
                continue
            files[name] = result.content
            first, rate_hz = next(iter(files.items())), result.content.sample_rate_hz
            if rate_hz != first[1].sample_rate_hz:
                raise UserError(
                    f"{source}: sample rates differ: {first[0]} has {first[1].sample_rate_hz} Hz, "
                    f"{name} has {rate_hz} Hz; --sample_rate_hz=RATE resamples"
                )
            digest.add(name, result.sha256)
    if faults and not skip_bad:
        raw_files.refuse(faults, source)
    if not files:
        raise UserError(f"{source}: no file is left")
    num_reused = sum(file.is_reused for file in files.values())
    # Files of equal content are decoded once.
    reused = f", reused {num_reused} that were there" if num_reused else ""
    print(f"decoded {len(files) - num_reused} files{reused}")
    sample_rate_hz = next(iter(files.values())).sample_rate_hz
    return Decoded(files, faults, digest.hexdigest(), sample_rate_hz)


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


def _full_scale(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / FULL_SCALE
    return samples.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """The sequences of one split, to be read as often as needed.

    Attributes:
        origin: what they come from, to be printed.
        num_sequences: number of sequences.
        num_steps: number of frames of all of them together.
        pieces: gives them one by one: id and samples, [frames * D] in full scale.
    """

    origin: str
    num_sequences: int
    num_steps: int
    pieces: Callable[[], Iterator[tuple[str, np.ndarray]]]


def plan_files(
    files: Mapping[str, DecodedFile], frame_size: int, sequence_frames: int = 0
) -> SplitPlan:
    """Makes sequences of single files.

    Args:
        files: of at least one frame each.
        frame_size: number of samples of a frame.
        sequence_frames: number of frames of a sequence. What remains at the end of a file is left
            out, but a file of fewer frames is one sequence. 0: each file is one.

    Returns:
        The sequences, named after the file, and, where files are cut, the place they begin at.
    """

    def cuts(file: DecodedFile) -> Iterator[tuple[int, int]]:
        """First frame and number of frames of each sequence."""
        num_frames = file.num_samples // frame_size
        length = min(sequence_frames or num_frames, num_frames)
        for number in range(num_frames // length):
            yield number * length, length

    def pieces() -> Iterator[tuple[str, np.ndarray]]:
        for name, file in files.items():
            samples = Samples({name: file})
            for first, length in cuts(file):
                start, stop = first * frame_size, (first + length) * frame_size
                yield samples.place(start) if sequence_frames else name, samples.read(start, stop)

    num_sequences = sum(1 for file in files.values() for _ in cuts(file))
    num_steps = sum(length for file in files.values() for _, length in cuts(file))
    return SplitPlan(f"{len(files)} files", num_sequences, num_steps, pieces)


def moments_of_files(files: Sequence[DecodedFile]) -> Moments:
    """Moments of all samples of some files."""
    moments = Moments(1)
    for file in files:
        moments.add_sums(file.num_samples, [file.total], [file.square_total])
    return moments


def moments_of_pieces(plan: SplitPlan) -> Moments:
    """Moments of all samples of the sequences of a split."""
    moments = Moments(1)
    pieces = raw_files.with_progress(plan.pieces(), plan.num_sequences, "summing", "sequences")
    for _, samples in pieces:
        moments.add(samples[:, np.newaxis])
    return moments


def write_records(
    out: Path,
    splits: Mapping[str, SplitPlan],
    moments: Moments,
    decoded: Decoded,
    *,
    name: str,
    frame_size: int,
    command: str,
    extra: Mapping[str, Any],
) -> None:
    """Normalises sequences, writes records and card to `out`, and prints what they hold.

    Args:
        out: as --out.
        splits: the sequences of each split.
        moments: of the training samples, in full scale.
        decoded: where they come from.
        name: name of the dataset.
        frame_size: number of samples of a frame, D.
        command: for the card.
        extra: more facts for the card.

    Raises:
        UserError: a split has no sequence, the training samples do not vary, or as
            `records.write_dataset`.
    """
    for split, plan in splits.items():
        if not plan.num_sequences:
            raise UserError(f"no file is left for the split {split!r}")
    mean = moments.sums[0] / moments.count
    std = std_of(moments.square_sums[0] / moments.count, mean, "samples")
    statistics = {
        "full_scale": {"mean": mean, "std": std},
        "16_bit": {"mean": mean * FULL_SCALE, "std": std * FULL_SCALE},
    }
    rate_hz = decoded.sample_rate_hz
    hours = {n: plan.num_steps * frame_size / rate_hz / 3600 for n, plan in splits.items()}

    records = import_records()
    normalizer = Normalization("scalar", (mean,) * frame_size, (std,) * frame_size)

    def sequences(split: str) -> Iterator[tuple[str, np.ndarray]]:
        plan = splits[split]
        what = f"writing {split}"
        for sequence_id, samples in raw_files.with_progress(
            plan.pieces(), plan.num_sequences, what, "sequences"
        ):
            yield sequence_id, normalizer.normalize(samples.reshape(-1, frame_size))

    num_sequences = sum(plan.num_sequences for plan in splits.values())
    num_bytes = sum(plan.num_steps for plan in splits.values()) * frame_size * 4
    records.write_dataset(
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
            "train_statistics": statistics,
            "decoded_with": decoder_versions(),
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
