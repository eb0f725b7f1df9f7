"""WAV files: what samples of audio are written to, and what they may begin with."""

import os
from pathlib import Path

import numpy as np
import soundfile

from stcn_tf.support.errors import UserError
from stcn_tf.support.files import replacing_file

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
        UserError: the folder of the file cannot be made.
    """
    values = np.round(np.asarray(waveform, np.float64) * _FULL_SCALE)
    largest = _FULL_SCALE - 1
    pcm = np.nan_to_num(np.clip(values, -_FULL_SCALE, largest)).astype(np.int16)
    with replacing_file(path) as partial:
        soundfile.write(partial, pcm, sample_rate_hz, format="WAV", subtype="PCM_16")
    # 1 itself is not cut by an audible amount: 16 bits have no value for it.
    return int(np.sum(~(np.abs(values) <= _FULL_SCALE)))


def read_wav(path: str | os.PathLike, sample_rate_hz: int) -> np.ndarray:
    """Reads a file of one channel.

    Args:
        path: the file.
        sample_rate_hz: what its sample rate must be.

    Returns:
        [samples] float32, full scale is 1.

    Raises:
        UserError: there is no such file, or it is none of this kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path}: not a readable sound file ({error.error_string})") from error
    num_channels = waveform.shape[1]
    if (rate, num_channels) != (sample_rate_hz, 1):
        raise UserError(
            f"{path}: {rate} Hz, channels: {num_channels}; accepted: {sample_rate_hz} Hz, one "
            "channel"
        )
    if not np.isfinite(waveform).all():
        raise UserError(f"{path}: holds a value that is not finite")
    return waveform[:, 0]
