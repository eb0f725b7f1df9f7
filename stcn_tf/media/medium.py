"""What handwriting, audio and images each need to be sampled, stored, drawn and played.

`medium_of` gives what goes with the modality of a dataset card. Everything here is in raw units.
"""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from stcn_tf import media
from stcn_tf.data.records import DatasetCard
from stcn_tf.data.sequences import read_sequences
from stcn_tf.data.sounds import read_wav, write_wav
from stcn_tf.inference.generation import Reconstructions
from stcn_tf.inference.table import likelihood_unit
from stcn_tf.support.errors import UserError


class Medium:
    """Sequences of which nothing is known but their numbers; base of those that can be shown.

    Args:
        card: of the records.

    Attributes:
        array: name of the sequences in HDF5 files.
        num_samples: how many sequences to generate, unless someone says.
        num_in_training: how many TensorBoard shows.
        most_pictured: how many fit on one page; 0: there is no picture of such sequences.
    """

    array = "sequences"
    num_samples = 8
    num_in_training = 6
    most_pictured = 0

    def __init__(self, card: DatasetCard):
        self._card = card

    @property
    def length(self) -> int:
        """Steps to generate from the first one on, unless someone says."""
        return 600

    def steps_to_generate(self, length: int | None, given: Sequence[int]) -> int:
        """Steps to generate after beginnings.

        Args:
            length: what was asked for; None: the usual number.
            given: steps of each beginning.

        Raises:
            UserError: nothing of this kind is that long.
        """
        del given
        return self.length if length is None else length

    def read(self, path: str) -> list[np.ndarray]:
        """Reads sequences to continue, [time, features] each.

        Raises:
            UserError: the file holds no sequences of this kind.
        """
        return read_sequences(path, self._card, self.array)

    def draw_samples(self, sequences: Sequence[np.ndarray], given: Sequence[int]) -> Figure:
        """A page of generated sequences.

        Args:
            sequences: [time, features] each.
            given: for each, how many of its first steps were not generated.
        """
        raise NotImplementedError

    def draw_reconstructions(self, rebuilt: Reconstructions) -> Figure:
        """A page of sequences, their reconstructions and log-likelihoods."""
        raise NotImplementedError

    def log_likelihoods(self, rebuilt: Reconstructions) -> list[str]:
        """In words, how probable the model finds each sequence."""
        name, unit = "log-likelihood" if rebuilt.is_exact else "ELBO", likelihood_unit(self._card)
        return [f"{name} {value:.1f} {unit}" for value in rebuilt.elbo]

    def write_page(
        self,
        out: Path,
        name: str,
        num: int,
        draw: Callable[[int], Figure],
        rows_each: int = 1,
    ) -> str:
        """Writes `NAME.png` and `NAME.svg` of the first sequences, as many as fit on a page.

        Args:
            out: the folder.
            name: of the files.
            num: sequences that there are.
            draw: called with the number of sequences to draw.
            rows_each: how much room one takes.

        Returns:
            What to say about it after the names of other files.
        """
        num = min(num, self.most_pictured // rows_each)
        if not num:
            return f" (no picture: {self._card.name} is neither handwriting, audio nor images)"
        page = draw(num)
        media.save_png(page, out / f"{name}.png")
        media.save_svg(page, out / f"{name}.svg")
        return f", and the first {num} in {name}.png and {name}.svg"

    def sounds(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The waveforms, [samples] each, full scale 1; none of what cannot be heard."""
        del sequences
        return []

    def write_sounds(self, out: Path, name: str, sequences: Sequence[np.ndarray]) -> list[str]:
        """Writes `NAME_00.wav` and so on, of what can be heard.

        Files of such names that an earlier call wrote are removed: they are no part of the others.

        Returns:
            Lines that say what was written; none where nothing was.
        """
        del out, name, sequences
        return []


class Handwriting(Medium):
    """dx, dy, pen."""

    array = "strokes"
    most_pictured = 40  # a PNG has a largest height

    def draw_samples(self, sequences: Sequence[np.ndarray], given: Sequence[int]) -> Figure:
        """See `Medium.draw_samples`: one line below the other."""
        return media.draw_handwriting(sequences, prefix_lengths=given)

    def draw_reconstructions(self, rebuilt: Reconstructions) -> Figure:
        """See `Medium.draw_reconstructions`: each line below its original."""
        return media.draw_reconstruction(
            rebuilt.originals, rebuilt.reconstructions, labels=self.log_likelihoods(rebuilt)
        )


class Audio(Medium):
    """A step is a frame of consecutive samples."""

    array = "frames"
    num_in_training = 4
    most_pictured = 40  # a PNG has a largest height

    _SECONDS = 3.0

    @property
    def length(self) -> int:
        """See `Medium.length`: about three seconds."""
        return math.ceil(self._SECONDS * self._sample_rate_hz / self._card.num_features)

    @property
    def _sample_rate_hz(self) -> int:
        return self._card.modality.sample_rate_hz

    def read(self, path: str) -> list[np.ndarray]:
        """See `Medium.read`; the whole frames of a WAV file are one sequence."""
        if Path(path).suffix.lower() != ".wav":
            return super().read(path)
        waveform, frame = read_wav(path, self._sample_rate_hz), self._card.num_features
        if len(waveform) < frame:
            raise UserError(f"{path}: {len(waveform)} samples; accepted: {frame} (a frame) or more")
        return [waveform[: len(waveform) // frame * frame].reshape(-1, frame)]

    def draw_samples(self, sequences: Sequence[np.ndarray], given: Sequence[int]) -> Figure:
        """See `Medium.draw_samples`: waveforms and spectrograms."""
        return media.draw_audio(
            self.sounds(sequences),
            self._sample_rate_hz,
            given_samples=[steps * self._card.num_features for steps in given],
        )

    def draw_reconstructions(self, rebuilt: Reconstructions) -> Figure:
        """See `Medium.draw_reconstructions`: each below its original."""
        pairs = zip(rebuilt.originals, rebuilt.reconstructions, strict=True)
        labels = [("original", f"reconstruction, {t}") for t in self.log_likelihoods(rebuilt)]
        return media.draw_audio(
            self.sounds([sequence for pair in pairs for sequence in pair]),
            self._sample_rate_hz,
            labels=[label for pair in labels for label in pair],
            rows_each=2,
        )

    def sounds(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `Medium.sounds`."""
        return [sequence.reshape(-1) for sequence in sequences]

    def write_sounds(self, out: Path, name: str, sequences: Sequence[np.ndarray]) -> list[str]:
        """See `Medium.write_sounds`: WAV files of 16 bits, in the place of earlier ones."""
        for earlier in out.glob(f"{name}_*.wav"):
            if re.fullmatch(rf"{name}_\d+\.wav", earlier.name):
                earlier.unlink()
        digits = max(2, len(str(len(sequences) - 1)))
        lines = []
        for index, waveform in enumerate(self.sounds(sequences)):
            path = out / f"{name}_{index:0{digits}d}.wav"
            clipped = write_wav(path, waveform, self._sample_rate_hz)
            note = f", {clipped:,} samples beyond full scale were clipped" if clipped else ""
            seconds = len(waveform) / self._sample_rate_hz
            lines.append(f"{path}: {seconds:.2f} s{note}")
        return lines


class Images(Medium):
    """A step is a pixel."""

    array = "pixels"
    num_samples = 100
    num_in_training = 16
    most_pictured = 400

    @property
    def length(self) -> int:
        """See `Medium.length`: all pixels."""
        return self._card.modality.height * self._card.modality.width

    def steps_to_generate(self, length: int | None, given: Sequence[int]) -> int:
        """See `Medium.steps_to_generate`: what makes whole images."""
        size = f"{self._card.modality.height} x {self._card.modality.width}"
        fewest, most = min(given), max(given)
        if fewest != most or most >= self.length:
            pixels = f"{most}" if fewest == most else f"{fewest} to {most}"
            raise UserError(
                f"images of which {pixels} pixels are given; accepted: the same number of each, "
                f"below the {self.length} of an image of {size}, as --beginning cuts them"
            )
        rest = self.length - most
        if length not in (None, rest):
            raise UserError(f"--length={length}: accepted: {rest}, to make images of {size} pixels")
        return rest

    def draw_samples(self, sequences: Sequence[np.ndarray], given: Sequence[int]) -> Figure:
        """See `Medium.draw_samples`: a grid, as Figure 6 of the paper."""
        return media.draw_images(self._images(sequences), given_pixels=given)

    def draw_reconstructions(self, rebuilt: Reconstructions) -> Figure:
        """See `Medium.draw_reconstructions`: as Figure 4 of the paper."""
        return media.draw_image_reconstructions(
            self._images(rebuilt.originals),
            self._images(rebuilt.reconstructions),
            self._images(rebuilt.probabilities),
            labels=self.log_likelihoods(rebuilt),
        )

    def log_likelihoods(self, rebuilt: Reconstructions) -> list[str]:
        """See `Medium.log_likelihoods`; of images the literature gives negative ones."""
        name = "exact NLL" if rebuilt.is_exact else "-ELBO"
        return [f"{name} {-value:.1f} nats" for value in rebuilt.elbo]

    def _images(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        shape = self._card.modality.height, self._card.modality.width
        return [sequence.reshape(shape) for sequence in sequences]


_MEDIA = {"handwriting": Handwriting, "audio": Audio, "image": Images, "other": Medium}


def medium_of(card: DatasetCard) -> Medium:
    """What goes with the modality of a card.

    Args:
        card: of the records.
    """
    return _MEDIA[card.modality.kind](card)
