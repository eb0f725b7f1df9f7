"""One's own speech or music: a folder of sound files -> records of frames.

    python -m data_prep.wav --source=FOLDER --out=RECORDS

A step is a frame of --frame_size samples. By default a file is one sequence. With
--sequence_frames=N it is cut into sequences of N frames; what remains at its end is left out,
unless the file is shorter than that: then it is one shorter sequence. Left out, too, is what fills
no frame. A file of less than one frame is a fault. That two splits share a file of equal samples is
said.

Normalisation: the mean and standard deviation of all samples of the files in train, before they
are cut. How files are decoded, and which: `data_prep.common.audio`, `stcn_tf.data.decoding`.
"""

from pathlib import Path

from data_prep.common import audio, command, raw_files, splitting
from data_prep.common.command import Flag
from stcn_tf.data.decoding import ENDINGS
from stcn_tf.support.errors import UserError


@command.preparation(
    "Folder of WAV, FLAC, MP3, OGG and other sound files, however deep.",
    splitting.shares_ignored,
    split=Flag(splitting.SPLIT_HELP, splitting.NAMES),
    **splitting.share_flags(),
    sample_rate_hz=Flag(
        "Sample rate to convert to; 0: that of the files, which must have the same one.",
        low=0,
        high=audio.MAX_RATE_HZ,
    ),
    frame_size=Flag("Number of samples of a frame.", low=1, high=10_000),
    sequence_frames=Flag("Number of frames of a sequence; 0: a sequence is a whole file.", low=0),
    mix_channels=Flag("Average the channels of files that have several."),
    group=splitting.GROUP,
)
def prepare(
    source: Path,
    out: Path,
    *,
    split: str | Path = "random",
    valid_share: float = 0.1,
    test_share: float = 0.0,
    sample_rate_hz: int = 0,
    frame_size: int = 200,
    sequence_frames: int = 0,
    mix_channels: bool = False,
    group: str = "",
    skip_bad: bool = False,
    workers: int = 1,
    command: str,
) -> None:
    """Prepares `source`; the arguments are the flags of these names."""
    if 0 < sample_rate_hz < audio.MIN_RATE_HZ:
        raise UserError(
            f"--sample_rate_hz={sample_rate_hz}: accepted: 0, or {audio.MIN_RATE_HZ} to "
            f"{audio.MAX_RATE_HZ}"
        )
    found = raw_files.find_files(source, ENDINGS)
    if not found:
        raise UserError(f"--source: {source} holds no {', '.join(ENDINGS)} files")
    # Pieces of one file belong together.
    names = [f"{name}@0" if sequence_frames else name for name in found]
    group_of = splitting.grouping(group or ("(.*)@" if sequence_frames else ""), names)
    parts = splitting.split_names(found, split, valid_share, test_share)
    decoding = audio.Decoding(
        sample_rate_hz=sample_rate_hz,
        resamples=True,
        mixes_channels=mix_channels,
        mono_advice=" (--mix_channels averages them)",
        min_samples=frame_size,
    )
    with audio.cache_beside(out) as cache:
        paths = {name: [name] for names in parts.values() for name in names}
        decoded = audio.decode_files(
            paths, cache, decoding, source=source, skip_bad=skip_bad, workers=workers
        )
        files = {
            part: {name: decoded.files[name] for name in names if name in decoded.files}
            for part, names in parts.items()
        }
        audio.print_shared(files)
        audio.write_records(
            out,
            {part: audio.plan_files(files[part], frame_size, sequence_frames) for part in files},
            lambda: audio.sums_of_files(files["train"].values()),
            decoded,
            name="wav",
            frame_size=frame_size,
            command=command,
            extra={
                "split": split if split in ("random", "folders") else "folder",
                "files": {name: len(members) for name, members in files.items()},
            },
            group_of=group_of,
        )


if __name__ == "__main__":
    command.run(prepare)
