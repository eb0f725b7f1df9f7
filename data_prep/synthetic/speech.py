"""Sounds like speech, in the formats of TIMIT, Blizzard 2013 and of one's own recordings.

A train of pulses of a moving pitch rings at two resonances, in syllables with bursts of noise
between them, and pauses.

* `write_timit`: `TIMIT/TRAIN/DR1/FAAA0/SA1.WAV` ..., `TIMIT/TEST/...` (NIST SPHERE, 16 bits,
  16 kHz), and `lists/{train,valid,test}.txt` of paths relative to `TIMIT`.
* `write_blizzard`: `audio/chapter_01/part_01.mp3` ... (44.1 kHz), all by one speaker.
* `write_wav`: `audio/{train,valid,test}/speaker_000/0.wav` ... (16 bits, 8 kHz); each speaker's
  fourth is FLAC.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from stcn_tf.settings import Settings, setting
from stcn_tf.support.errors import UserError

PEAK = 0.3  # of full scale
_PARTS_PER_CHAPTER = 2
_RECORDINGS_PER_SPEAKER = 4
_CODECS = {".wav": "pcm_s16le", ".flac": "flac", ".mp3": "libmp3lame"}


@dataclasses.dataclass(frozen=True)
class SpeechSettings(Settings):
    """How much is to be recorded; a sixth of it is valid, another sixth test."""

    num_recordings: int = setting(
        24, "Number of recordings, 0.8 to 2 seconds each.", least=3, most=10_000
    )
    seed: int = setting(0, "Random seed.", least=0)


@dataclasses.dataclass(frozen=True)
class BookSettings(Settings):
    """How much is to be read aloud."""

    num_chapters: int = setting(
        6, "Chapters, each two recordings of 5 to 8 seconds.", least=1, most=99
    )
    seed: int = setting(0, "Random seed.", least=0)


class Speaker(NamedTuple):
    """A voice."""

    pitch: float  # Hz
    syllables: float  # per second
    resonances: tuple[float, float]  # Hz


def draw_speaker(rng: np.random.Generator, female: bool) -> Speaker:
    """Draws a voice."""
    pitch = rng.uniform(165, 235) if female else rng.uniform(85, 140)
    return Speaker(pitch, rng.uniform(3, 5), (rng.uniform(400, 800), rng.uniform(1000, 2200)))


def speak(seconds: float, rate_hz: int, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """Speaks: int16 [seconds * rate_hz], with a peak of `PEAK` of full scale."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    swing = np.sin(2 * np.pi * (rng.uniform(0.5, 1.5) * time + rng.random()))
    pulses = np.diff(np.floor(np.cumsum(speaker.pitch * (1 + 0.1 * swing)) / rate_hz), prepend=0)
    syllables = np.sin(2 * np.pi * (speaker.syllables * (time + 0.05 * swing) + rng.random()))
    is_speech = np.sin(2 * np.pi * (0.7 * time + rng.uniform(0.05, 0.3))) > -0.7  # else a pause
    since = np.arange(round(0.02 * rate_hz)) / rate_hz
    ring = sum(
        strength * np.sin(2 * np.pi * hz * since) * np.exp(-since * 400)
        for strength, hz in zip((1, 0.4), speaker.resonances, strict=True)
    )
    voice = np.convolve(pulses * is_speech * syllables.clip(0), np.diff(ring))[: len(time)]
    hiss = np.diff(rng.normal(size=len(time)), prepend=0) * is_speech * (-syllables).clip(0) ** 8
    sound = voice / np.abs(voice).max() + 0.1 * hiss
    sound *= PEAK / np.abs(sound).max()
    sound += rng.normal(scale=1e-4, size=len(time))  # the room
    return np.rint(32767 * sound).astype(np.int16)


def recordings(settings: SpeechSettings, rate_hz: int) -> Iterator[tuple]:
    """Yields split, speaker (even ones are female), number (of up to four) and int16 [samples]."""
    share = max(1, settings.num_recordings // 6)
    speaker = -1
    for split in ("train", "valid", "test"):
        for index in range(settings.num_recordings - 2 * share if split == "train" else share):
            number = index % _RECORDINGS_PER_SPEAKER
            speaker += number == 0
            voice = draw_speaker(np.random.default_rng([settings.seed, speaker]), speaker % 2 == 0)
            # From 1: numpy takes [seed, speaker, 0] and [seed, speaker] for the same seed.
            rng = np.random.default_rng([settings.seed, speaker, 1 + number])
            yield split, speaker, number, speak(rng.uniform(0.8, 2.0), rate_hz, voice, rng)


def write_timit(folder: Path, settings: SpeechSettings) -> str:
    """Writes TIMIT's tree of SPHERE files, and lists; says how much, in words, as those below."""
    (folder / "lists").mkdir()
    for split, speaker, number, samples in recordings(settings, 16_000):
        # Dialect region, speaker (sex, initials, 0), sentence.
        initials = "".join(chr(ord("A") + speaker // 26**power % 26) for power in (2, 1, 0))
        sentence = ("SA1", f"SX{3 + speaker % 450}", f"SI{453 + speaker}", "SA2")[number]
        part, sex = "TEST" if split == "test" else "TRAIN", "FM"[speaker % 2]
        name = f"{part}/DR{1 + speaker % 8}/{sex}{initials}0/{sentence}.WAV"
        path = folder / "TIMIT" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        header = (
            "NIST_1A\n   1024\nchannel_count -i 1\nsample_rate -i 16000\nsample_n_bytes -i 2\n"
            "sample_coding -s3 pcm\nsample_byte_format -s2 01\n"
            f"sample_count -i {len(samples)}\nend_head\n"
        )
        path.write_bytes(header.encode().ljust(1024) + samples.astype("<i2").tobytes())
        with open(folder / "lists" / f"{split}.txt", "a", encoding="ascii") as file:
            file.write(f"{name}\n")
    return f"{settings.num_recordings} utterances"


def write_blizzard(folder: Path, settings: BookSettings) -> str:
    """Writes folders of MP3 files, chapters read by one speaker, if MP3 can be written here."""
    if "libmp3lame" not in av.codec.codecs_available:
        raise UserError(
            "--format=blizzard: the FFmpeg of this machine writes no MP3; --format=wav needs none"
        )
    voice = draw_speaker(np.random.default_rng(settings.seed), female=True)
    for chapter in range(1, settings.num_chapters + 1):
        for part in range(1, _PARTS_PER_CHAPTER + 1):
            rng = np.random.default_rng([settings.seed, chapter, part])
            samples = speak(rng.uniform(5.0, 8.0), 44_100, voice, rng)
            path = folder / "audio" / f"chapter_{chapter:02d}" / f"part_{part:02d}.mp3"
            _encode(path, samples, 44_100)
    return f"{_PARTS_PER_CHAPTER * settings.num_chapters} MP3 files"


def write_wav(folder: Path, settings: SpeechSettings) -> str:
    """Writes WAV files, and FLAC files of each speaker's last words."""
    for split, speaker, number, samples in recordings(settings, 8_000):
        ending = "flac" if number == _RECORDINGS_PER_SPEAKER - 1 else "wav"
        path = folder / "audio" / split / f"speaker_{speaker:03d}" / f"{number}.{ending}"
        _encode(path, samples, 8_000)
    return f"{settings.num_recordings} recordings"


def _encode(path: Path, samples: np.ndarray, rate_hz: int) -> None:
    """Writes a file of the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=path.suffix[1:]) as container:
        stream = container.add_stream(_CODECS[path.suffix], rate=rate_hz, layout="mono")
        kind = "s16p" if path.suffix == ".mp3" else "s16"
        stream.format = kind
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], kind, "mono")
        frame.sample_rate = rate_hz
        container.mux([*stream.encode(frame), *stream.encode()])
