"""Sequences in raw units that draw and play themselves in a notebook, and that write themselves."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stcn_tf.data.sequences import write_sequences
from stcn_tf.media.figures import figure_to_svg
from stcn_tf.media.medium import Medium
from stcn_tf.media.page import write_page
from stcn_tf.support import markup


@dataclasses.dataclass(frozen=True)
class Samples(Sequence):
    """Sequences that were generated, continued or read.

    A notebook shows lines of handwriting and grids of images as SVG, sounds as players above their
    waveforms. An index gives an array, a slice fewer Samples.

    Attributes:
        medium: what draws and plays them.
        sequences: [time, features] float32 each, raw units.
        given: of each, how many of its first steps were given, not generated; drawn in another
            colour.
        made_by: how they were made, for `write`.
    """

    medium: Medium
    sequences: tuple[np.ndarray, ...]
    given: tuple[int, ...]
    made_by: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int | slice) -> "np.ndarray | Samples":
        if isinstance(index, slice):
            return dataclasses.replace(
                self, sequences=self.sequences[index], given=self.given[index]
            )
        return self.sequences[index]

    def __repr__(self) -> str:
        lengths = [len(sequence) for sequence in self.sequences]
        steps = f"{min(lengths)} to {max(lengths)}" if len(set(lengths)) > 1 else f"{lengths[:1]}"
        return f"<{len(self)} {self.medium.array} of {steps.strip('[]')} steps>"

    def figure(self) -> Figure:
        """A page of them, as many as fit."""
        num = self.medium.most_pictured or self.medium.num_samples
        return self.medium.draw_samples(self.sequences[:num], self.given[:num])

    def write(self, out: Path, name: str, sound: str) -> list[str]:
        """Writes NAME.h5, a page as NAME.png and NAME.svg, and of audio SOUND_00.wav and so on.

        Args:
            out: the folder.
            name: of the files.
            sound: of the sounds.

        Returns:
            Lines that say what was written.

        Raises:
            UserError: it cannot be written.
        """
        medium, file = self.medium, out / f"{name}.h5"
        given = np.array(self.given, np.int32)
        arrays = {medium.array: self.sequences}
        write_sequences(file, medium.card, arrays, {"beginning_lengths": given}, self.made_by)
        pictures = write_page(
            medium,
            out,
            name,
            len(self),
            lambda n: medium.draw_samples(self.sequences[:n], self.given[:n]),
        )
        return [f"{file}{pictures}", *medium.write_sounds(out, sound, self.sequences)]

    def _repr_svg_(self) -> str | None:
        """How a notebook shows what cannot be heard."""
        return None if self._wav_files() else figure_to_svg(self.figure())

    def _repr_html_(self) -> str | None:
        """How a notebook shows sounds: players, one after the other, above the page."""
        if not (files := self._wav_files()):
            return None
        names = [f"{self.medium.array} {number}" for number in range(len(files))]
        players = map(markup.player, files, names)
        picture = markup.image(figure_to_svg(self.figure()), "waveforms and spectrograms")
        return "\n".join([*players, f"<br/>{picture}"])

    def _wav_files(self) -> list[bytes]:
        return self.medium.wav_files(self.sequences[: self.medium.most_pictured])
