"""What every kind of sequences needs to be sampled, stored, drawn and played."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from stcn_tf.data.sounds import wav_of
from stcn_tf.data.units import likelihood_unit
from stcn_tf.media.lines import draw_lines, draw_values
from stcn_tf.media.reconstructions import Reconstructions

if TYPE_CHECKING:
    from stcn_tf.data.card import DatasetCard


class Medium:
    """Sequences of which nothing is known but their numbers; base of those that can be shown.

    Args:
        card: of the records.

    Attributes:
        card: as given.
        array: name of the sequences in HDF5 files.
        num_samples: how many sequences to generate, unless someone says.
        num_shown: how many examples `data_prep.show` draws, unless someone says.
        num_in_training: how many TensorBoard shows.
        most_pictured: how many samples fit on one page; 0: no page of them is made.
    """

    array = "sequences"
    num_samples = 8
    num_shown = 4
    num_in_training = 6
    most_pictured = 0

    def __init__(self, card: "DatasetCard"):
        self.card = card

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
        # Here, because the reader brings in TensorFlow, which those who only draw do without.
        from stcn_tf.data.sequences import read_sequences

        return read_sequences(path, self.card, self.array)

    def draw_samples(
        self,
        sequences: Sequence[np.ndarray],
        given: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
        width_inches: float = 10.0,
    ) -> Figure:
        """A page of sequences.

        Args:
            sequences: [time, features] each.
            given: for each, how many of its first steps were given to a model.
            labels: a text for each; images may go without.
            width_inches: width of the page.
        """
        del given
        return draw_lines(sequences, self.card.features, labels, width_inches)

    def draw_reconstructions(self, rebuilt: Reconstructions) -> Figure:
        """A page of sequences, their reconstructions and log-likelihoods."""
        raise NotImplementedError

    def draw_values(
        self,
        sequence: np.ndarray,
        values: Sequence[np.ndarray],
        scale: tuple[float, float],
        labels: Sequence[str],
    ) -> Figure:
        """A page of numbers along one sequence, as the KL of each layer: a row for each.

        Args:
            sequence: [time, features].
            values: [time] each, a number for each step.
            scale: the numbers that the lowest and the highest colour stand for.
            labels: a text for each of `values`.
        """
        del sequence
        return draw_values(values, scale, labels)

    def log_likelihoods(self, rebuilt: Reconstructions) -> list[str]:
        """In words, how probable the model finds each sequence."""
        name, unit = "log-likelihood" if rebuilt.is_exact else "ELBO", likelihood_unit(self.card)
        return [f"{name} {value:.1f} {unit}" for value in rebuilt.elbo]

    def sounds(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The waveforms, [samples] each, full scale 1; none of what cannot be heard."""
        del sequences
        return []

    def wav_files(self, sequences: Sequence[np.ndarray]) -> list[bytes]:
        """The content of a WAV file of each; none of what cannot be heard."""
        waveforms = self.sounds(sequences)
        return [wav_of(waveform, self.card.modality.sample_rate_hz)[0] for waveform in waveforms]

    def write_sounds(self, out: Path, name: str, sequences: Sequence[np.ndarray]) -> list[str]:
        """Writes `NAME_00.wav` and so on, of what can be heard.

        Files of such names that an earlier call wrote are removed: they are no part of the others.

        Returns:
            Lines that say what was written; none where nothing was.
        """
        del out, name, sequences
        return []
