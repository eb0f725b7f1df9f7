import wave

import numpy as np
import pytest
import soundfile

from stcn_tf.data.sounds import read_sound, write_wav
from stcn_tf.support.errors import UserError

RATE = 1400


def _pcm(path):
    """What an independent reader finds: rate, channels, bytes of a sample, samples."""
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return (file.getframerate(), file.getnchannels(), file.getsampwidth()), samples


def test_writes_pcm_of_16_bits_and_counts_what_is_clipped(tmp_path):
    waveform = np.array([0, 0.5, -0.25, 1 / 2**15, 1, -1, 1.5, -7, np.inf, np.nan], np.float32)
    assert write_wav(tmp_path / "a.wav", waveform, RATE) == 4
    facts, samples = _pcm(tmp_path / "a.wav")
    assert facts == (RATE, 1, 2)
    top = 2**15 - 1
    assert samples.tolist() == [0, 2**14, -(2**13), 1, top, -(2**15), top, -(2**15), top, 0]


def test_every_sample_of_16_bits_comes_back(tmp_path):
    waveform = np.arange(-(2**15), 2**15, dtype=np.float32) / 2**15
    assert write_wav(tmp_path / "a.wav", waveform, RATE) == 0
    again = read_sound(tmp_path / "a.wav", RATE)
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, waveform)


def test_the_same_waveform_gives_the_same_bytes_and_no_other_file(tmp_path):
    waveform = np.sin(np.arange(99))
    for name in ("a.wav", "b.wav", "a.wav"):
        write_wav(tmp_path / name, waveform, RATE)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.wav", "flac.raw"])
def test_reads_other_sounds_by_their_content(tmp_path, name):
    # Of enough samples at a rate that they all have.
    rate, waveform = 16000, 0.5 * np.sin(np.arange(16000) / 20)
    kind = {"ogg": "OGG", "mp3": "MP3", "wav": "WAV"}.get(name[2:], "FLAC")
    soundfile.write(tmp_path / name, waveform, rate, format=kind)
    again = read_sound(tmp_path / name, rate)
    if kind in ("WAV", "FLAC"):
        np.testing.assert_allclose(again, waveform, atol=2**-15)
    else:  # lossy, and MP3 is late
        assert np.std(again[2000:14000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_faults_are_told(tmp_path):
    with pytest.raises(UserError, match="absent.wav: no such file; accepted: a sound file"):
        read_sound(tmp_path / "absent.wav", RATE)
    (tmp_path / "text.wav").write_text("la la la")
    with pytest.raises(UserError, match=r"text.wav: not a readable sound file \(.+\); a") as caught:
        read_sound(tmp_path / "text.wav", RATE)
    assert "\n" not in str(caught.value)
    soundfile.write(tmp_path / "two.wav", np.zeros((9, 2)), RATE)
    soundfile.write(tmp_path / "fast.wav", np.zeros(9), RATE + 1)
    for name, found in (("two", "1400 Hz, channels: 2"), ("fast", "1401 Hz, channels: 1")):
        with pytest.raises(UserError, match=f"{found}; accepted: 1400 Hz, one channel"):
            read_sound(tmp_path / f"{name}.wav", RATE)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan]), RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"nan.wav: not a reada.* \(has samples that are no numb"):
        read_sound(tmp_path / "nan.wav", RATE)
