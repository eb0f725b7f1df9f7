"""Synthetic speech: files of the right formats, and what speech has: pitch, pauses, hisses."""

import os
import re
import wave

import av
import numpy as np
import pytest
import soundfile

from data_prep.synthetic import formats, speech
from data_prep.synthetic.speech import BookSettings, SpeechSettings
from stcn_tf.support.errors import UserError

SETTINGS = SpeechSettings(num_recordings=14, seed=3)  # 10 of train, 2 of valid, 2 of test


def relative_files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def read_sphere(path):
    """Header fields and samples, as NIST describes the format."""
    data = path.read_bytes()
    magic, size, *fields = data[:1024].decode("ascii").splitlines()
    assert (magic, size) == ("NIST_1A", "   1024")
    header = {}
    for line in fields[: fields.index("end_head")]:
        name, kind, value = line.split(" ", 2)
        header[name] = int(value) if kind == "-i" else value
    order = {"01": "<i2", "10": ">i2"}[header["sample_byte_format"]]
    return header, np.frombuffer(data[1024:], order)


def test_timit_tree_and_lists(tmp_path):
    assert speech.write_timit(tmp_path, SETTINGS) == "14 utterances"
    lists = {
        split: (tmp_path / "lists" / f"{split}.txt").read_text().splitlines()
        for split in ("train", "valid", "test")
    }
    assert {split: len(names) for split, names in lists.items()} == {
        "train": 10,
        "valid": 2,
        "test": 2,
    }
    assert sorted(sum(lists.values(), [])) == relative_files(tmp_path / "TIMIT")
    form = re.compile(r"(TRAIN|TEST)/DR[1-8]/([FM][A-Z]{3}0)/S[AXI][0-9]+\.WAV")
    speakers = {}
    for split, names in lists.items():
        matches = [form.fullmatch(name) for name in names]
        assert {match[1] for match in matches} == {"TEST" if split == "test" else "TRAIN"}
        speakers[split] = {match[2] for match in matches}
    assert [len(speakers[split]) for split in lists] == [3, 1, 1]
    assert len(set.union(*speakers.values())) == 5  # no one is in two splits


def test_timit_files_are_sphere(tmp_path):
    speech.write_timit(tmp_path, SETTINGS)
    for path in (tmp_path / "TIMIT").rglob("*.WAV"):
        header, samples = read_sphere(path)
        assert header["sample_rate"] == 16_000 and header["channel_count"] == 1
        assert header["sample_n_bytes"] == 2 and header["sample_coding"] == "pcm"
        assert header["sample_count"] == len(samples)
        assert 0.8 * 16_000 <= len(samples) <= 2.0 * 16_000
        decoded, rate = soundfile.read(path, dtype="int16")
        assert rate == 16_000
        np.testing.assert_array_equal(decoded, samples)
        assert abs(np.abs(samples).max() / 32767.0 - speech.PEAK) < 0.001


def test_the_default_timit_has_some_sequences_of_half_a_second(tmp_path):
    speech.write_timit(tmp_path, SpeechSettings())
    for split, least in (("train", 30), ("valid", 6), ("test", 6)):
        names = (tmp_path / "lists" / f"{split}.txt").read_text().splitlines()
        samples = sum(soundfile.info(tmp_path / "TIMIT" / name).frames for name in names)
        assert samples // 8000 >= least


def test_wav_and_flac_files(tmp_path):
    assert speech.write_wav(tmp_path, SETTINGS) == "14 recordings"
    assert relative_files(tmp_path / "audio") == [
        "test/speaker_004/0.wav",
        "test/speaker_004/1.wav",
        *(
            f"train/speaker_{speaker:03d}/{name}"
            for speaker in (0, 1)
            for name in ("0.wav", "1.wav", "2.wav", "3.flac")
        ),
        "train/speaker_002/0.wav",
        "train/speaker_002/1.wav",
        "valid/speaker_003/0.wav",
        "valid/speaker_003/1.wav",
    ]
    for path in tmp_path.rglob("*.wav"):
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8_000, 1, 2)
            assert 0.8 * 8_000 <= file.getnframes() <= 2.0 * 8_000
    for path in tmp_path.rglob("*.flac"):
        data = path.read_bytes()
        assert data[:4] == b"fLaC"
        # STREAMINFO: 20 bits of sample rate, 3 of channels - 1, 5 of bits - 1, from byte 18 on.
        packed = int.from_bytes(data[18:22], "big")
        assert (packed >> 12, packed >> 9 & 7, packed >> 4 & 31) == (8_000, 0, 15)


def test_blizzard_files_are_mp3(tmp_path):
    assert speech.write_blizzard(tmp_path, BookSettings(num_chapters=2)) == "4 MP3 files"
    assert relative_files(tmp_path / "audio") == [
        f"chapter_{chapter:02d}/part_{part:02d}.mp3" for chapter in (1, 2) for part in (1, 2)
    ]
    for path in tmp_path.rglob("*.mp3"):
        data = path.read_bytes()
        # The first frame: 11 bits of sync, version 1 (11), layer III (01); 44.1 kHz is rate 00.
        start = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] & 0xFE == 0xFA)
        assert data[start + 2] >> 2 & 3 == 0
        assert data[start + 3] >> 6 == 3  # mono
        decoded, rate = soundfile.read(path)
        assert rate == 44_100 and decoded.ndim == 1
        assert 4.9 < len(decoded) / rate < 8.1
        assert 0.25 < np.abs(decoded).max() < 0.35


def test_without_an_mp3_encoder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(av.codec, "codecs_available", {"pcm_s16le"})
    with pytest.raises(UserError, match="writes no MP3; --format=wav needs none") as error:
        formats.write(tmp_path / "raw", "blizzard", BookSettings())
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def frames_of(samples, size, step):
    starts = np.arange(0, len(samples) - size, step)
    return samples[starts[:, None] + np.arange(size)]


def pitches(samples, rate):
    """Hz of the voiced frames, by the peak of the autocorrelation from 60 to 350 Hz."""
    frames = frames_of(samples, rate // 20, rate // 100)
    frames = frames * np.hanning(frames.shape[1])
    spectrum = np.square(np.abs(np.fft.rfft(frames, 2 * frames.shape[1])))
    correlation = np.fft.irfft(spectrum)
    correlation = correlation / correlation[:, :1]
    low, high = rate // 350, rate // 60
    found = correlation[:, low:high]
    # Of lags that are multiples of a period, the first.
    best = np.argmax(found > 0.9 * found.max(axis=1, keepdims=True), axis=1)
    return rate / (low + best[found.max(axis=1) > 0.4])


def say(seconds, rate, female, seed):
    rng = np.random.default_rng(seed)
    speaker = speech.draw_speaker(rng, female)
    return speaker, speech.speak(seconds, rate, speaker, rng) / 32767.0


@pytest.mark.parametrize("rate", [8_000, 16_000])
@pytest.mark.parametrize("female", [False, True])
def test_the_voice_has_the_speakers_pitch(rate, female):
    speaker, samples = say(6.0, rate, female, seed=rate + female)
    assert len(samples) == 6 * rate
    found = pitches(samples, rate)
    assert len(found) > 100
    assert np.median(found) == pytest.approx(speaker.pitch, rel=0.15)
    assert np.std(found) > 0.02 * speaker.pitch  # it moves


def test_there_are_pauses_voice_and_hisses_in_a_quiet_room():
    _, samples = say(10.0, 16_000, True, seed=4)
    frames = frames_of(samples, 320, 320)
    loudness = 20.0 * np.log10(np.sqrt(np.square(frames).mean(axis=1)))
    pauses = loudness < loudness.max() - 45.0
    assert 0.03 < pauses.mean() < 0.5
    assert loudness.min() > -90.0
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(320))))
    centre = power @ np.fft.rfftfreq(320, 1.0 / 16_000) / power.sum(axis=1)
    assert np.mean(centre[~pauses] < 1500.0) > 0.3
    assert 0.02 < np.mean(centre[~pauses] > 3500.0) < 0.4
    assert abs(samples.mean()) < 1e-3
