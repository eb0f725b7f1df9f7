"""Blizzard 2013, unsegmented: MP3 (or WAV) files -> records of half seconds, with a dataset card.

    python -m data_prep.blizzard --source=FOLDER --out=RECORDS

The preparation is that of Chung et al. (2015), which Z-forcing and STCN's release use too. Audio
becomes 16 kHz, mono, 16 bits. Files are taken in groups of 200. The files of a group, one after the
other, are cut into 100 streams of equal length, L samples each, and a stream into
floor((L - 1) / 8000) segments of 8000 samples, 40 frames of 200. Segments are interleaved: the
first of each stream, the second of each stream, and so on, group after group. They are split by
their numbers in this order:

* `released`: train is segments 0 to 2,040,063, valid goes up to 2,152,703, test up to 2,266,879.
* three shares, such as 0.9,0.05,0.05: of train, valid and test, in this order.

Two things differ from the reference, so that numbers cannot be exactly those of the literature.
There the order of files came from a directory listing; here it is that of the sorted paths. And
there one mean and standard deviation was approximated from parts of all segments; here they are
exactly those of all samples in the segments of train.

How files are decoded and resampled: `data_prep.common.audio`. Nothing grows with the hours but the
disk space: 230 MB per hour of records, and 115 MB of decoded samples until those are complete.
"""

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data_prep.common import audio, command, raw_files
from data_prep.common.command import Flag
from stcn_tf.support.errors import UserError

SPLITS = ("train", "valid", "test")
RELEASED_STOPS = (2_040_064, 2_152_704, 2_266_880)  # where each split ends, in segments
SAMPLE_RATE_HZ = 16_000
FRAME_SIZE = 200
SEGMENT_SAMPLES = 40 * FRAME_SIZE
FILES_PER_GROUP = 200
NUM_STREAMS = 100

_ENDINGS = (".mp3", ".wav")


def parse_shares(split: str) -> tuple[float, ...] | None:
    """Reads --split: the shares of `SPLITS`; None: released."""
    if split == "released":
        return None
    try:
        shares = tuple(float(share) for share in split.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not all(share > 0 for share in shares) or not sum(shares) < 1 + 1e-9:
        raise UserError(
            f"--split={split}: accepted: released, or three positive shares with a sum of at most "
            "1, such as 0.9,0.05,0.05"
        )
    return shares


class Segments:
    """The segments of some files in their interleaved order."""

    def __init__(
        self, files: Mapping[str, audio.DecodedFile], files_per_group: int, num_streams: int
    ):
        names = list(files)
        self._num_streams = num_streams
        self._groups = [
            audio.Samples({name: files[name] for name in names[first : first + files_per_group]})
            for first in range(0, len(names), files_per_group)
        ]
        counts = [
            num_streams * max(0, (self._stream_length(group) - 1) // SEGMENT_SAMPLES)
            for group in self._groups
        ]
        self._first_segments = list(itertools.accumulate(counts, initial=0))

    def __len__(self) -> int:
        return self._first_segments[-1]

    def _stream_length(self, group: audio.Samples) -> int:
        return len(group) // self._num_streams

    def read(self, number: int) -> tuple[str, np.ndarray]:
        """Reads a segment: the place of its first sample, [SEGMENT_SAMPLES] in full scale."""
        index = bisect.bisect_right(self._first_segments, number) - 1
        group = self._groups[index]
        row, stream = divmod(number - self._first_segments[index], self._num_streams)
        start = stream * self._stream_length(group) + row * SEGMENT_SAMPLES
        return group.place(start), group.read(start, start + SEGMENT_SAMPLES)


def plan_splits(
    segments: Segments, shares: tuple[float, ...] | None, source: Path
) -> dict[str, audio.SplitPlan]:
    """Splits segments by their numbers.

    Raises:
        UserError: there are too few of them.
    """
    count = len(segments)
    if shares is None:
        stops = RELEASED_STOPS
        if count < stops[-1]:
            raise UserError(
                f"{source}: has {count} segments, but --split=released needs {stops[-1]}: pass "
                "shares, such as --split=0.9,0.05,0.05"
            )
    else:
        stops = [math.floor(round(share * count, 6)) for share in itertools.accumulate(shares)]
    plans = {}
    for name, (start, stop) in zip(SPLITS, itertools.pairwise((0, *stops)), strict=True):
        if start == stop:
            raise UserError(f"{source}: {count} segments are too few: {name} would have none")

        def pieces(start: int = start, stop: int = stop) -> Iterator[tuple[str, np.ndarray]]:
            return map(segments.read, range(start, stop))

        num_steps = (stop - start) * SEGMENT_SAMPLES // FRAME_SIZE
        plans[name] = audio.SplitPlan(
            f"segments {start} to {stop - 1} of {count}", stop - start, num_steps, pieces
        )
    return plans


@command.preparation(
    "Folder of MP3 files, or of WAV files, however deep.",
    split=Flag("released, or the shares of train, valid and test, such as 0.9,0.05,0.05."),
    files_per_group=Flag("Number of files of a group.", low=1),
    num_streams=Flag("Number of streams a group is cut into.", low=1),
)
def prepare(
    source: Path,
    out: Path,
    *,
    split: str = "released",
    files_per_group: int = FILES_PER_GROUP,
    num_streams: int = NUM_STREAMS,
    skip_bad: bool = False,
    workers: int = 1,
    command: str,
) -> None:
    """Prepares `source`; the arguments are the flags of these names.

    Files that are skipped take no place in a group.
    """
    shares = parse_shares(split)
    found = raw_files.find_files(source, _ENDINGS)
    endings = {Path(name).suffix.lower() for name in found}
    if len(endings) != 1:
        there = "both .mp3 and .wav" if endings else "neither .mp3 nor .wav"
        raise UserError(f"--source: {source} holds {there} files; accepted: files of one kind")
    decoding = audio.Decoding(
        sample_rate_hz=SAMPLE_RATE_HZ, resamples=True, mixes_channels=True, always_int16=True
    )
    with audio.cache_beside(out) as cache:
        decoded = audio.decode_files(
            {name: [name] for name in found},
            cache,
            decoding,
            source=source,
            skip_bad=skip_bad,
            workers=workers,
        )
        segments = Segments(decoded.files, files_per_group, num_streams)
        plans = plan_splits(segments, shares, source)
        audio.write_records(
            out,
            plans,
            lambda: audio.sums_of_pieces(plans["train"]),
            decoded,
            name="blizzard",
            frame_size=FRAME_SIZE,
            command=command,
            extra={
                "split": "released" if shares is None else "shares",
                "num_files": len(decoded.files),
                "num_segments": len(segments),
            },
            group_of=lambda name: name.rpartition("@")[0],  # the file that it begins in
        )


if __name__ == "__main__":
    command.run(prepare)
