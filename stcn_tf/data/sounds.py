"""Sound files: WAV, which samples of audio are written to; and others that they may go on from."""

import io
import os
from pathlib import Path

import numpy as np
import soundfile

from stcn_tf.data.sequences import MOST_VALUES
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home, replacing_file

_ACCEPTED = "a sound file (WAV, FLAC, MP3, OGG), or HDF5 as stcn_tf.sample writes it"
_FULL_SCALE = 2**15  # of 16-bit PCM


def write_wav(path: str | os.PathLike, waveform: np.ndarray, sample_rate_hz: int) -> int:
    """Writes 16-bit PCM, whole or not at all; the same arguments give the same bytes.

    Args:
        path: the file; an existing one is replaced.
        waveform: [samples], full scale is 1.
        sample_rate_hz: of it.

    Returns:
        How many samples lay beyond full scale and were cut to it.

    Raises:
        UserError: the file cannot be written.
    """
    values = np.round(np.asarray(waveform, np.float64) * _FULL_SCALE)
    largest = _FULL_SCALE - 1
    pcm = np.nan_to_num(np.clip(values, -_FULL_SCALE, largest)).astype(np.int16)
    content = io.BytesIO()  # on a full disk soundfile says nothing of use
    soundfile.write(content, pcm, sample_rate_hz, format="WAV", subtype="PCM_16")
    with replacing_file(path) as partial:
        partial.write_bytes(content.getbuffer())
    # 1 itself is not cut by an audible amount: 16 bits have no value for it.
    return int(np.sum(~(np.abs(values) <= _FULL_SCALE)))


def read_sound(path: str | os.PathLike, sample_rate_hz: int) -> np.ndarray:
    """Reads a WAV, FLAC, MP3 or OGG file of one channel.

    Args:
        path: the file.
        sample_rate_hz: what its sample rate must be.

    Returns:
        [samples] float32, full scale is 1.

    Raises:
        UserError: there is no such file, or it is none of this kind.
    """
    path = Path(expand_home(path))
    if not path.is_file():
        raise UserError(f"{path}: no such file; accepted: {_ACCEPTED}")
    try:
        # By number: of a name soundfile would believe the ending.
        with path.open("rb") as opened, soundfile.SoundFile(opened.fileno(), closefd=False) as file:
            _check_header(path, file, sample_rate_hz)
            waveform = file.read(dtype="float32")
    except soundfile.LibsndfileError as error:
        raise UserError(
            f"{path}: not a readable sound file ({error.error_string}); accepted: {_ACCEPTED}"
        ) from error
    if not np.isfinite(waveform).all():
        raise UserError(f"{path}: holds a value that is not finite")
    return waveform


def _check_header(path: Path, file: soundfile.SoundFile, sample_rate_hz: int) -> None:
    """Before anything is read: a header can claim what it likes, and silence compresses well."""
    if (file.samplerate, file.channels) != (sample_rate_hz, 1):
        raise UserError(
            f"{path}: {file.samplerate} Hz, channels: {file.channels}; accepted: "
            f"{sample_rate_hz} Hz, one channel"
        )
    if file.frames > MOST_VALUES:
        raise UserError(f"{path}: {file.frames:,} samples; accepted: {MOST_VALUES:,} at most")
