"""Synthetic speech, in the formats of TIMIT, Blizzard 2013 and of one's own recordings.

Syllables of random consonants and vowels, in words with pauses between. The voice is a train of
glottal pulses, each of which rings at four formants (damped sinusoids, added where the pulse is).
Formants move between the vowels' (Peterson & Barney, 1952), the pitch falls along a phrase and
rises on some syllables. Consonants are closures, nasal murmurs, bursts and hisses of filtered
noise. A speaker has a pitch, a length of the vocal tract, a pace and a breath. It sounds like
speech in no language.

Written are:

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

import numpy as np
import soundfile
from tqdm import tqdm

from data_prep.synthetic.settings import Settings, integer, seed
from stcn_tf.support.errors import UserError

PEAK = 0.3  # of full scale
_PARTS_PER_CHAPTER = 2
_RECORDINGS_PER_SPEAKER = 4

# The first three formants of vowels, Hz, men's.
_VOWELS = np.array(
    [
        (270, 2290, 3010),  # heed
        (390, 1990, 2550),  # hid
        (530, 1840, 2480),  # head
        (660, 1720, 2410),  # had
        (730, 1090, 2440),  # hod
        (570, 840, 2410),  # hawed
        (440, 1020, 2240),  # hood
        (300, 870, 2240),  # who'd
        (640, 1190, 2390),  # hud
        (490, 1350, 1690),  # heard
    ],
    np.float64,
)
_FOURTH_FORMANT = 3500.0
_BANDWIDTHS = np.array([60.0, 90.0, 130.0, 200.0])  # Hz
# Of formants; alternating signs leave no zeros between them.
_LOUDNESS = np.array([1.0, -0.2, 0.07, -0.025])
_RINGING = 0.025  # seconds until a pulse is over


class Consonant(NamedTuple):
    """A closure or murmur, then noise in a band."""

    closed: float  # seconds
    noisy: float  # seconds
    centre: float  # of the noise, Hz
    width: float  # of the noise, Hz
    noise: float  # its loudness
    voice: float  # loudness of the voice meanwhile, relative to a vowel's


_CONSONANTS = (
    Consonant(0.00, 0.10, 5500.0, 2500.0, 0.30, 0.0),  # s
    Consonant(0.00, 0.10, 2900.0, 1500.0, 0.35, 0.0),  # sh
    Consonant(0.00, 0.08, 4000.0, 6000.0, 0.08, 0.0),  # f
    Consonant(0.00, 0.07, 5200.0, 2500.0, 0.15, 0.2),  # z
    Consonant(0.06, 0.015, 900.0, 1500.0, 0.30, 0.0),  # p
    Consonant(0.05, 0.02, 4000.0, 3000.0, 0.45, 0.0),  # t
    Consonant(0.05, 0.03, 1900.0, 900.0, 0.35, 0.0),  # k
    Consonant(0.05, 0.01, 900.0, 1500.0, 0.15, 0.08),  # b
    Consonant(0.05, 0.01, 3500.0, 3000.0, 0.20, 0.08),  # d
    Consonant(0.07, 0.0, 1000.0, 1000.0, 0.0, 0.35),  # m, n
    Consonant(0.05, 0.0, 1000.0, 1000.0, 0.0, 0.55),  # l
)


@dataclasses.dataclass(frozen=True)
class SpeechSettings(Settings):
    """How much is to be recorded.

    Attributes:
        num_recordings: number of recordings, of 0.8 to 2 seconds each; at least 3.
        seed: everything follows from it.
    """

    num_recordings: int = integer(24, 3, 10_000, "Number of recordings, 0.8 to 2 seconds each.")
    seed: int = seed()


@dataclasses.dataclass(frozen=True)
class BookSettings(Settings):
    """How much is to be read aloud.

    Attributes:
        num_chapters: number of chapters; each is two recordings of 5 to 8 seconds.
        seed: everything follows from it.
    """

    num_chapters: int = integer(6, 1, 99, "Chapters, each two recordings of 5 to 8 seconds.")
    seed: int = seed()


class Speaker(NamedTuple):
    """A voice."""

    pitch: float  # Hz
    formant_scale: float  # relative to men's formants
    pace: float  # seconds of a vowel
    breath: float  # loudness of the noise in the voice
    tilt: float  # what each formant loses in loudness, in nepers


def draw_speaker(rng: np.random.Generator, female: bool) -> Speaker:
    """Draws a voice."""
    return Speaker(
        pitch=rng.uniform(165.0, 235.0) if female else rng.uniform(85.0, 140.0),
        formant_scale=rng.uniform(1.08, 1.2) if female else rng.uniform(0.94, 1.05),
        pace=rng.uniform(0.09, 0.15),
        breath=rng.uniform(0.01, 0.05),
        tilt=rng.uniform(-0.2, 0.4),
    )


def speak(
    seconds: float, sample_rate_hz: int, speaker: Speaker, rng: np.random.Generator
) -> np.ndarray:
    """Speaks.

    Args:
        seconds: for how long.
        sample_rate_hz: samples per second.
        speaker: the voice.
        rng: what is said, and how.

    Returns:
        int16 [seconds * sample_rate_hz], with a peak of `PEAK` of full scale.
    """
    score = _Score(speaker, rng)
    while score.end < seconds:
        score.add_word()
    num_samples = round(seconds * sample_rate_hz)
    time = np.arange(num_samples) / sample_rate_hz
    loudness = np.interp(time, *np.transpose(score.loudness))
    voice = _voice(score, loudness, sample_rate_hz, speaker, rng)
    noise = rng.normal(size=num_samples) * speaker.breath * loudness
    for start, consonant in score.noises:
        burst = _noise(consonant, sample_rate_hz, rng)
        begin = round(start * sample_rate_hz)
        noise[begin : begin + len(burst)] += burst[: max(0, num_samples - begin)]
    speech = voice / np.abs(voice).max() + noise
    speech *= PEAK / np.abs(speech).max()
    speech += rng.normal(scale=1e-4, size=num_samples)  # the room
    return np.rint(32767.0 * speech).astype(np.int16)


class _Score:
    """What is to be said: knots of curves over time, and bursts of noise.

    Attributes:
        end: where the next word begins, seconds.
        loudness: (time, loudness of the voice).
        formants: (time, F1, F2, F3, F4), Hz.
        pitch: (time, pitch relative to the speaker's).
        noises: (start, consonant).
    """

    def __init__(self, speaker: Speaker, rng: np.random.Generator):
        self._speaker, self._rng = speaker, rng
        self._phrase_start = 0.0
        self.end = rng.uniform(0.03, 0.1)
        self.loudness = [(0.0, 0.0), (self.end, 0.0)]
        self.formants: list[tuple[float, ...]] = []
        self.pitch: list[tuple[float, float]] = []
        self.noises: list[tuple[float, Consonant]] = []

    def add_word(self) -> None:
        """Adds one to three syllables, and at times a pause, after which the pitch starts anew."""
        for _ in range(self._rng.integers(1, 4)):
            self._add_consonant(_CONSONANTS[self._rng.integers(len(_CONSONANTS))])
            self._add_vowel(_VOWELS[self._rng.integers(len(_VOWELS))])
        if self._rng.random() < 0.4:
            pause = self._rng.uniform(0.08, 0.3)
            self.loudness += [(self.end + 0.03, 0.0), (self.end + pause, 0.0)]
            self.end += pause
            self._phrase_start = self.end

    def _add_consonant(self, consonant: Consonant) -> None:
        middle = self.end + consonant.closed
        if consonant.noisy:
            self.noises.append((middle, consonant))
        after = middle + consonant.noisy
        edge = min(0.015, 0.3 * (after - self.end))
        self.loudness += [(self.end + edge, consonant.voice), (after, consonant.voice)]
        self.end = after

    def _add_vowel(self, formants: np.ndarray) -> None:
        length = self._speaker.pace * self._rng.uniform(0.7, 1.5)
        scaled = self._speaker.formant_scale * np.append(formants, _FOURTH_FORMANT)
        scaled = scaled * np.exp(self._rng.normal(0.0, 0.03, 4))
        self.formants += [(self.end + share * length, *scaled) for share in (0.3, 0.7)]
        strength = self._rng.uniform(0.6, 1.0)
        self.loudness += [
            (self.end + 0.02, strength),
            (self.end + 0.8 * length, 0.8 * strength),
        ]
        fall = 1.12 - 0.12 * (self.end - self._phrase_start)
        accent = self._rng.choice([0.0, 0.0, 0.15, -0.05])
        pitch = max(0.7, fall) + accent + self._rng.normal(0.0, 0.02)
        self.pitch.append((self.end + 0.5 * length, pitch))
        self.end += length


def _voice(
    score: _Score,
    loudness: np.ndarray,
    sample_rate_hz: int,
    speaker: Speaker,
    rng: np.random.Generator,
) -> np.ndarray:
    """The voiced part, [samples]: at each pulse of the glottis a sum of damped sinusoids begins."""
    time = np.arange(len(loudness)) / sample_rate_hz
    pitch = speaker.pitch * np.interp(time, *np.transpose(score.pitch))
    cycles = np.cumsum(pitch) / sample_rate_hz
    pulses = np.searchsorted(cycles, np.arange(1.0, cycles[-1]))
    pulses = pulses[loudness[pulses] > 0.0]
    strength = loudness[pulses] * np.exp(rng.normal(0.0, 0.05, len(pulses)))
    knots, *tracks = np.transpose(score.formants)
    formants = np.stack([np.interp(time[pulses], knots, track) for track in tracks])
    # A formant that this sample rate cannot hold would be heard at another frequency.
    strengths = np.where(formants < 0.45 * sample_rate_hz, strength, 0.0)
    since = np.arange(round(_RINGING * sample_rate_hz)) / sample_rate_hz
    weights = _LOUDNESS * np.exp(-speaker.tilt * np.arange(len(_LOUDNESS)))
    decay = weights[:, None] * np.exp(-np.pi * _BANDWIDTHS[:, None] * since)
    decay *= np.cos(0.5 * np.pi * since / _RINGING) ** 2
    ring = np.sin(2.0 * np.pi * formants[:, :, None] * since)  # [formants, pulses, ringing]
    ring = np.einsum("fpt,ft,fp->pt", ring, decay, strengths)
    ring = np.diff(ring, prepend=0.0)  # the lips radiate the change of the flow of air
    result = np.zeros(len(time) + len(since))
    np.add.at(result, pulses[:, None] + np.arange(len(since)), ring)
    return result[: len(time)]


def _noise(consonant: Consonant, sample_rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Noise in the consonant's band, which rises and falls, [samples]."""
    centre = min(consonant.centre, 0.4 * sample_rate_hz)
    response_time = np.arange(1, 0.003 * sample_rate_hz) / sample_rate_hz
    response = np.exp(-np.pi * consonant.width * response_time)
    response *= np.cos(2.0 * np.pi * centre * response_time)
    num_samples = round(consonant.noisy * sample_rate_hz)
    white = rng.normal(size=num_samples + len(response) - 1)
    noise = np.convolve(white, response, "valid")
    envelope = np.sin(np.pi * (np.arange(num_samples) + 0.5) / num_samples) ** 0.7
    return noise * envelope * consonant.noise / (3.0 * np.linalg.norm(response))


# ------------------------------------------------------------------------------------ formats


class Recording(NamedTuple):
    """What a speaker said."""

    split: str  # train, valid or test
    speaker: int  # no one is in two splits
    female: bool
    number: int  # of the speaker's recordings, from 0
    samples: np.ndarray  # int16


def recordings(settings: SpeechSettings, sample_rate_hz: int) -> Iterator[Recording]:
    """Records speakers, up to four times each, with a progress bar on a terminal.

    Args:
        settings: how many recordings; a sixth of them is valid, another sixth test.
        sample_rate_hz: samples per second.

    Yields:
        The recordings: train's, valid's, test's.
    """
    share = max(1, settings.num_recordings // 6)
    sizes = {"train": settings.num_recordings - 2 * share, "valid": share, "test": share}
    speaker = -1
    with tqdm(total=settings.num_recordings, desc="speaking", disable=None) as progress:
        for split, size in sizes.items():
            for index in range(size):
                number = index % _RECORDINGS_PER_SPEAKER
                if number == 0:
                    speaker += 1
                    female = speaker % 2 == 0
                    voice = draw_speaker(np.random.default_rng([settings.seed, speaker]), female)
                # From 1: numpy takes [seed, speaker, 0] and [seed, speaker] for the same seed.
                rng = np.random.default_rng([settings.seed, speaker, 1 + number])
                samples = speak(rng.uniform(0.8, 2.0), sample_rate_hz, voice, rng)
                yield Recording(split, speaker, female, number, samples)
                progress.update()


def write_timit(folder: Path, settings: SpeechSettings) -> str:
    """Writes TIMIT's tree of SPHERE files, and lists, into an empty folder.

    Returns:
        What was written, in words (as all functions of this section).
    """
    names: dict[str, list[str]] = {}
    for recording in recordings(settings, 16_000):
        name = _timit_name(recording)
        path = folder / "TIMIT" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, recording.samples, 16_000, format="NIST", subtype="PCM_16")
        names.setdefault(recording.split, []).append(name)
    (folder / "lists").mkdir()
    for split, members in names.items():
        text = "\n".join(members) + "\n"
        (folder / "lists" / f"{split}.txt").write_text(text, encoding="ascii")
    return f"{settings.num_recordings} utterances"


def _timit_name(recording: Recording) -> str:
    """TRAIN/DR1/FAAA0/SA1.WAV: dialect region, speaker (sex, initials, 0), sentence."""
    part = "TEST" if recording.split == "test" else "TRAIN"
    speaker = recording.speaker
    initials = "".join(chr(ord("A") + speaker // 26**power % 26) for power in (2, 1, 0))
    sentences = ("SA1", f"SX{3 + speaker % 450}", f"SI{453 + speaker}", "SA2")
    sex = "F" if recording.female else "M"
    return f"{part}/DR{1 + speaker % 8}/{sex}{initials}0/{sentences[recording.number]}.WAV"


def write_blizzard(folder: Path, settings: BookSettings) -> str:
    """Writes folders of MP3 files, chapters read by one speaker, into an empty folder.

    Raises:
        UserError: MP3 cannot be written here.
    """
    if "MP3" not in soundfile.available_formats():
        raise UserError(
            "--format=blizzard: the libsndfile of this machine writes no MP3; --format=wav needs "
            "none"
        )
    voice = draw_speaker(np.random.default_rng(settings.seed), female=True)
    for chapter in tqdm(range(1, settings.num_chapters + 1), desc="speaking", disable=None):
        path = folder / "audio" / f"chapter_{chapter:02d}"
        path.mkdir(parents=True)
        for part in range(1, _PARTS_PER_CHAPTER + 1):
            rng = np.random.default_rng([settings.seed, chapter, part])
            samples = speak(rng.uniform(5.0, 8.0), 44_100, voice, rng)
            soundfile.write(path / f"part_{part:02d}.mp3", samples, 44_100, format="MP3")
    return f"{_PARTS_PER_CHAPTER * settings.num_chapters} MP3 files"


def write_wav(folder: Path, settings: SpeechSettings) -> str:
    """Writes WAV files, and FLAC files of each speaker's last words, into an empty folder."""
    for split, speaker, _, number, samples in recordings(settings, 8_000):
        ending = "flac" if number == _RECORDINGS_PER_SPEAKER - 1 else "wav"
        path = folder / "audio" / split / f"speaker_{speaker:03d}" / f"{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, 8_000, format=ending.upper(), subtype="PCM_16")
    return f"{settings.num_recordings} recordings"
