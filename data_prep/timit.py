"""TIMIT: NIST SPHERE files -> records of frames of samples, normalised, with a dataset card.

    python -m data_prep.timit --source=TIMIT --out=RECORDS

The split is that of SRNN (Fraccaro et al., 2016), which Z-forcing and STCN's release use too: the
bundled lists name 4389 utterances of train, 231 of valid and 1680 of test, by their paths on the
disc of the Linguistic Data Consortium. --split=FOLDER names other lists.

* train, valid: the utterances one after the other, in the order of the list, cut into sequences of
  8000 samples (40 frames of 200, half a second); the number of sequences is rounded down to a
  multiple of --sequences_multiple.
* test: an utterance is a sequence. What fills no frame is left out. Of a sequence of T frames the
  release scores frames 1 to T-1, SRNN and Z-forcing 2 to T; here all T are kept.

A step is a frame of 200 samples; --frame_size=1 makes each sample a step (the flat models of Dai et
al., 2019), with the same samples in each sequence.

Normalisation: the mean and standard deviation of all samples of the training utterances, before
they are cut. Numbers compare with FIVO's check values (Maddison et al., 2017; mean 0.006060, std
548.136 in 16-bit units) only roughly, since its split is another one.

Files are 16 kHz, mono, SPHERE (also compressed by shorten) or others. Where a file lies there twice
(SX187.WAV and SX187.wav, SX187.WAV.wav or SX187.flac beside it, as converters leave them), both
must have the same samples. How they are decoded: `data_prep.common.audio`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep.common import audio, command, raw_files, splitting
from data_prep.common.command import Flag
from stcn_tf.data.decoding import ENDINGS
from stcn_tf.support.errors import UserError

BUNDLED_LISTS = Path(__file__).parent / "splits" / "timit"
BUNDLED_SPLIT = "srnn"
SPLITS = ("train", "valid", "test")
SAMPLE_RATE_HZ = 16_000
FRAME_SIZE = 200
SEQUENCE_SAMPLES = 8000
SEQUENCES_MULTIPLE = 64


def read_splits(split: str | Path) -> dict[str, list[str]]:
    """Reads the files of each split, in the order of the lists.

    Raises:
        UserError: there is no such split, or as `splitting.read_lists`.
    """
    accepted = f"{BUNDLED_SPLIT}, nor a folder of {', '.join(f'{name}.txt' for name in SPLITS)}"
    folder = BUNDLED_LISTS if split == BUNDLED_SPLIT else split
    lists = splitting.find_lists(folder, accepted, SPLITS)
    # In whatever case, as `find_listed` finds them.
    return splitting.read_lists({name: lists[name] for name in SPLITS}, key=str.lower)


def find_listed(found: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Finds listed files in a folder tree, and their copies.

    A file's path may differ from the list's in case, have more folders in front, and other endings
    (SX187.WAV.wav, SX187.flac).

    Returns:
        The files of each name.
    """
    depths = {name.count("/") + 1 for name in names}
    by_end: dict[str, list[str]] = {}
    for path in found:
        parts = _without_endings(path).split("/")
        for depth in depths:
            by_end.setdefault("/".join(parts[-depth:]), []).append(path)
    # The very path that is listed goes first.
    return {
        name: sorted(by_end.get(_without_endings(name), []), key=lambda x: (x != name, len(x)))
        for name in names
    }


def _without_endings(path: str) -> str:
    stem, dot, ending = path.lower().rpartition(".")
    return _without_endings(stem) if dot + ending in ENDINGS else path.lower()


def plan_stream(
    split: str, files: Mapping[str, audio.DecodedFile], multiple: int, frame_size: int
) -> tuple[audio.SplitPlan, int]:
    """Cuts files, one after the other, into sequences of `SEQUENCE_SAMPLES`.

    Returns:
        The sequences, named after the place where they begin, and how many were rounded off.

    Raises:
        UserError: there are less than `multiple`.
    """
    samples = audio.Samples(files)
    num_whole = len(samples) // SEQUENCE_SAMPLES
    num_kept = num_whole - num_whole % multiple
    if not num_kept:
        raise UserError(
            f"{split}: {num_whole} sequences of {SEQUENCE_SAMPLES} samples are fewer than "
            f"--sequences_multiple={multiple}"
        )

    def pieces() -> Iterator[tuple[str, np.ndarray]]:
        for start in range(0, num_kept * SEQUENCE_SAMPLES, SEQUENCE_SAMPLES):
            yield samples.place(start), samples.read(start, start + SEQUENCE_SAMPLES)

    num_steps = num_kept * SEQUENCE_SAMPLES // frame_size
    plan = audio.SplitPlan(f"{len(files)} files", num_kept, num_steps, pieces)
    return plan, num_whole - num_kept


@command.preparation(
    "Folder that holds TRAIN and TEST, in whatever case, however deep.",
    split=Flag(
        f"{BUNDLED_SPLIT}, or a folder of train.txt, valid.txt and test.txt, which list files such "
        "as TRAIN/DR2/FMMH0/SX187.WAV, one a line.",
        (BUNDLED_SPLIT,),
    ),
    sequences_multiple=Flag(
        "What the number of sequences of train and of valid is rounded down to a multiple of.",
        low=1,
    ),
    frame_size=Flag(f"Number of samples of a frame, a divisor of {SEQUENCE_SAMPLES}.", low=1),
)
def prepare(
    source: Path,
    out: Path,
    *,
    split: str | Path = BUNDLED_SPLIT,
    sequences_multiple: int = SEQUENCES_MULTIPLE,
    frame_size: int = FRAME_SIZE,
    skip_bad: bool = False,
    workers: int = 1,
    command: str,
) -> None:
    """Prepares `source`; the arguments are the flags of these names."""
    if SEQUENCE_SAMPLES % frame_size:
        raise UserError(
            f"--frame_size={frame_size}: accepted: a divisor of {SEQUENCE_SAMPLES}, the samples of "
            "a sequence"
        )
    names = read_splits(split)
    listed = [name for part in SPLITS for name in names[part]]
    found = find_listed(raw_files.find_files(source, ENDINGS), listed)
    missing = {name: "is listed but does not exist" for name, paths in found.items() if not paths}
    if len(missing) == len(found):
        raise UserError(
            f"--source: {source} holds none of the {len(listed)} listed files, such as {listed[0]}"
        )
    if missing and not skip_bad:
        raw_files.refuse(missing, source)
    decoding = audio.Decoding(sample_rate_hz=SAMPLE_RATE_HZ, min_samples=frame_size)
    with audio.cache_beside(out) as cache:
        decoded = audio.decode_files(
            {name: paths for name, paths in found.items() if paths},
            cache,
            decoding,
            source=source,
            skip_bad=skip_bad,
            workers=workers,
        )
        files = {
            part: {name: decoded.files[name] for name in names[part] if name in decoded.files}
            for part in SPLITS
        }
        plans, rounded_off = {}, {}
        for part in ("train", "valid"):
            plans[part], count = plan_stream(part, files[part], sequences_multiple, frame_size)
            rounded_off[part] = count
            print(f"{part}: {count} sequences rounded off to a multiple of {sequences_multiple}")
        audio.print_shared(files)
        plans["test"] = audio.plan_files(files["test"], frame_size)
        is_bundled = split == BUNDLED_SPLIT
        audio.write_records(
            out,
            plans,
            lambda: audio.sums_of_files(files["train"].values()),
            decoded._replace(faults=missing | decoded.faults),
            name="timit" if is_bundled else "speech",
            frame_size=frame_size,
            command=command,
            extra={
                "split": split if is_bundled else "folder",
                "files": {part: len(members) for part, members in files.items()},
                "sequences_rounded_off": rounded_off,
            },
            group_of=splitting.grouping("([^/]+)/[^/]+$"),  # the speaker's folder
        )


if __name__ == "__main__":
    command.run(prepare)
