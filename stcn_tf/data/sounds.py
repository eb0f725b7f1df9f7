"""Sound files: WAV, which samples of audio are written to; and others that they may go on from."""

import io
import os
import wave
from pathlib import Path

import numpy as np

from stcn_tf.data.decoding import Sound, SoundFault
from stcn_tf.data.sequences import MOST_VALUES
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home, replacing_file

_ACCEPTED = "a sound file (WAV, FLAC, MP3, OGG, ...), or HDF5 as stcn_tf.sample writes it"
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
    content, num_cut = wav_of(waveform, sample_rate_hz)
    with replacing_file(path) as partial:
        partial.write_bytes(content)
    return num_cut


def wav_of(waveform: np.ndarray, sample_rate_hz: int) -> tuple[bytes, int]:
    """The content of a WAV file of 16-bit PCM, and how many samples were cut to full scale.

    Args:
        waveform: [samples], full scale is 1.
        sample_rate_hz: of it.
    """
    values = np.round(np.asarray(waveform, np.float64) * _FULL_SCALE)
    largest = _FULL_SCALE - 1
    pcm = np.nan_to_num(np.clip(values, -_FULL_SCALE, largest)).astype(np.int16)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, sample_rate_hz, 0, "NONE", ""))
        file.writeframes(pcm.astype("<i2").tobytes())
    # 1 itself is not cut by an audible amount: 16 bits have no value for it.
    return content.getvalue(), int(np.sum(~(np.abs(values) <= _FULL_SCALE)))


def read_sound(path: str | os.PathLike, sample_rate_hz: int) -> np.ndarray:
    """Reads a sound file of one channel.

    Args:
        path: the file, of any format of `stcn_tf.data.decoding`.
        sample_rate_hz: what its sample rate must be.

    Returns:
        [samples] float32, full scale is 1.

    Raises:
        UserError: there is no such file, or it is none of this kind.
    """
    path = Path(expand_home(path))
    if not path.is_file():
        raise UserError(f"{path}: no such file; accepted: {_ACCEPTED}")
    blocks, count = [np.empty(0, np.float32)], 0
    try:
        with path.open("rb", buffering=0) as file, Sound(file) as sound:
            if (sound.sample_rate_hz, sound.num_channels) != (sample_rate_hz, 1):
                raise UserError(
                    f"{path}: {sound.sample_rate_hz} Hz, channels: {sound.num_channels}; accepted: "
                    f"{sample_rate_hz} Hz, one channel"
                )
            for block in sound.mono():
                blocks.append(block)
                count += len(block)
                # Silence compresses well.
                if count > MOST_VALUES:
                    raise UserError(f"{path}: more than {MOST_VALUES:,} samples are not accepted")
    except SoundFault as fault:
        raise UserError(
            f"{path}: not a readable sound file ({fault}); accepted: {_ACCEPTED}"
        ) from fault
    return np.concatenate(blocks)
