"""Sounds: drawn as waveforms with spectrograms, read from sound files, played as WAV files."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stcn_tf.data.sounds import read_sound, write_wav
from stcn_tf.media.figures import (
    DPI,
    INK,
    LABEL_COLOR,
    LABEL_SIZE,
    PREFIX_INK,
    RECONSTRUCTION_INK,
    legible,
    require_one_per_row,
)
from stcn_tf.media.medium import Medium
from stcn_tf.media.reconstructions import Reconstructions
from stcn_tf.support.errors import UserError

_MARGIN = 0.15  # inches, around the figure
_LEFT = 0.45  # inches, for the numbers beside the axes
_BETWEEN = 0.12  # inches, from a waveform to its spectrogram
_ROW_HEIGHT = 0.85  # inches
_ABOVE_ROW = 0.2  # inches, with the label
_BELOW_ROWS = 0.35  # inches, for the time axis
_LINE_WIDTH = 0.5  # points

_WINDOW_SECONDS = 0.032
_DYNAMIC_RANGE_DB = 80.0
# More columns than a picture has pixels would only make it large.
_MOST_COLUMNS = 800


class Audio(Medium):
    """Sounds: a step is a frame of consecutive samples."""

    array = "frames"
    num_shown = num_in_training = 4
    most_pictured = 40  # a PNG has a largest height

    _SECONDS = 3.0

    @property
    def length(self) -> int:
        """See `Medium.length`: about three seconds."""
        return math.ceil(self._SECONDS * self._sample_rate_hz / self.card.num_features)

    @property
    def _sample_rate_hz(self) -> int:
        return self.card.modality.sample_rate_hz

    def read(self, path: str) -> list[np.ndarray]:
        """See `Medium.read`; the whole frames of a sound file are one sequence."""
        if h5py.is_hdf5(path):
            return super().read(path)
        waveform, frame = read_sound(path, self._sample_rate_hz), self.card.num_features
        if len(waveform) < frame:
            raise UserError(f"{path}: {len(waveform)} samples; accepted: {frame} (a frame) or more")
        return [waveform[: len(waveform) // frame * frame].reshape(-1, frame)]

    def draw_samples(
        self,
        sequences: Sequence[np.ndarray],
        given: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
        width_inches: float = 10.0,
    ) -> Figure:
        """See `Medium.draw_samples`: waveforms and spectrograms."""
        return draw_audio(
            self.sounds(sequences),
            self._sample_rate_hz,
            labels,
            width_inches,
            [steps * self.card.num_features for steps in given] if given is not None else None,
        )

    def draw_reconstructions(self, rebuilt: Reconstructions) -> Figure:
        """See `Medium.draw_reconstructions`: each below its original."""
        pairs = zip(rebuilt.originals, rebuilt.reconstructions, strict=True)
        labels = [("original", f"reconstruction, {t}") for t in self.log_likelihoods(rebuilt)]
        return draw_audio(
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
        # 00, 01, ... without a gap: what has another number is somebody else's.
        for width in range(2, 10):
            numbers = (out / f"{name}_{index:0{width}d}.wav" for index in itertools.count())
            for earlier in itertools.takewhile(Path.is_file, numbers):
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


def draw_audio(
    waveforms: Sequence[np.ndarray],
    sample_rate_hz: int,
    labels: Sequence[str] | None = None,
    width_inches: float = 10.0,
    given_samples: Sequence[int] | None = None,
    rows_each: int = 1,
) -> Figure:
    """Draws one waveform per row and its spectrogram beside it, all to one time-scale.

    The largest magnitude stands beside each row, which a waveform of that magnitude fills.
    Spectrograms show the 80 dB below the loudest bin.

    Args:
        waveforms: [samples] each, full scale is 1.
        sample_rate_hz: of all.
        labels: a text above each row.
        width_inches: width of the figure; its height follows from the rows.
        given_samples: for each row, how many samples were given to the model; their waveform is
            drawn in another colour.
        rows_each: so many rows after each other are drawn to one scale of loudness (largest
            magnitude and loudest bin of any of them), the first in ink and the others in the
            colour of reconstructions.

    Returns:
        The figure, for `save_png`, `save_svg` or `figure_to_rgb`.

    Raises:
        ValueError: no waveforms, one that is not [samples] or of no samples, or labels or counts
            that are not one per row.
    """
    if not len(waveforms):
        raise ValueError("there are no waveforms to draw")
    if labels is not None:
        require_one_per_row("labels", labels, waveforms)
    if given_samples is None:
        given_samples = [0] * len(waveforms)
    require_one_per_row("given_samples", given_samples, waveforms)
    waveforms = [_checked(waveform) for waveform in waveforms]
    limits = _largest_of_group([float(np.abs(w).max()) for w in waveforms], rows_each)
    limits = [limit or 1.0 for limit in limits]
    # Scaled first, so that no power leaves the range of float64.
    powers = [_power(w / limit, sample_rate_hz) for w, limit in zip(waveforms, limits, strict=True)]
    loudest = _largest_of_group([power.max() for power in powers], rows_each)
    figure, rows = _panels(len(waveforms), width_inches)
    seconds = max(map(len, waveforms)) / sample_rate_hz
    for row, (left, right) in enumerate(rows):
        waveform = waveforms[row]
        ink = INK if row % rows_each == 0 else RECONSTRUCTION_INK
        _draw_waveform(left, waveform, sample_rate_hz, given_samples[row], limits[row], ink)
        decibels = _decibels(powers[row], loudest[row])
        _draw_spectrogram(right, decibels, len(waveform), sample_rate_hz)
        for axes in (left, right):
            axes.set_xlim(0, seconds)
        if labels is not None:
            label, fonts = legible(labels[row])
            style = fonts | {"fontsize": LABEL_SIZE, "color": LABEL_COLOR}
            left.set_title(label, loc="left", pad=2, **style)
    return figure


def _checked(waveform: np.ndarray) -> np.ndarray:
    """[samples] float64; what is not finite is 0."""
    waveform = np.asarray(waveform, np.float64)
    if waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"waveforms must be [samples], one or more, not {list(waveform.shape)}")
    return np.where(np.isfinite(waveform), waveform, 0.0)


def _largest_of_group(values: Sequence[float], rows_each: int) -> list[float]:
    """For each row, the largest value of the rows that are drawn to one scale with it."""
    starts = [row - row % rows_each for row in range(len(values))]
    return [max(values[start : start + rows_each]) for start in starts]


def _panels(num_rows: int, width_inches: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure and the two axes of each row: for the waveform and for its spectrogram."""
    height_inches = _MARGIN + num_rows * (_ABOVE_ROW + _ROW_HEIGHT) + _BELOW_ROWS
    panel_width = (width_inches - 2 * _LEFT - _BETWEEN - _MARGIN) / 2
    figure = Figure(figsize=(width_inches, height_inches), dpi=DPI)
    # matplotlib places axes in fractions of the figure.
    width, height = panel_width / width_inches, _ROW_HEIGHT / height_inches
    rows = []
    for row in range(num_rows):
        bottom = (height_inches - _MARGIN - (row + 1) * (_ABOVE_ROW + _ROW_HEIGHT)) / height_inches
        is_last = row == num_rows - 1
        panels = []
        for left in (_LEFT, 2 * _LEFT + panel_width + _BETWEEN):
            axes = figure.add_axes((left / width_inches, bottom, width, height))
            axes.tick_params(
                labelsize=LABEL_SIZE, colors=LABEL_COLOR, labelbottom=is_last, length=2
            )
            for spine in axes.spines.values():
                spine.set_color(LABEL_COLOR)
            if is_last:
                axes.set_xlabel("seconds", fontsize=LABEL_SIZE, color=LABEL_COLOR, labelpad=1)
            panels.append(axes)
        rows.append(panels)
    return figure, rows


def _draw_waveform(
    axes: Axes, waveform: np.ndarray, sample_rate_hz: int, given: int, limit: float, ink: str
) -> None:
    samples_each = math.ceil(len(waveform) / _MOST_COLUMNS)
    starts = np.arange(0, len(waveform), samples_each)
    lows, highs = (reduce.reduceat(waveform, starts) for reduce in (np.minimum, np.maximum))
    # Down and up within each column, and on to the next one.
    times = np.repeat((starts + 0.5) / sample_rate_hz, 2)
    values = np.stack([lows, highs], axis=1).reshape(-1)
    num_given = 2 * np.searchsorted(starts, given)
    for part, color in ((slice(num_given), PREFIX_INK), (slice(num_given, None), ink)):
        axes.plot(times[part], values[part], color=color, linewidth=_LINE_WIDTH)
    axes.set_ylim(-1.05 * limit, 1.05 * limit)
    axes.set_yticks([-limit, 0, limit], [f"{-limit:.2g}", "0", f"{limit:.2g}"])


def _draw_spectrogram(
    axes: Axes, decibels: np.ndarray, num_samples: int, sample_rate_hz: int
) -> None:
    axes.imshow(
        decibels,
        cmap="magma",
        vmin=-_DYNAMIC_RANGE_DB,
        vmax=0.0,
        origin="lower",
        aspect="auto",
        interpolation="none",
        extent=(0, num_samples / sample_rate_hz, 0, sample_rate_hz / 2000),
    )
    axes.set_yticks([0, sample_rate_hz / 2000], ["0", f"{sample_rate_hz / 2000:g} kHz"])


def _power(waveform: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Power over time and frequency.

    A Hann window of about 32 ms, moved by a quarter of itself, or farther over long waveforms.

    Args:
        waveform: [samples].
        sample_rate_hz: of it.

    Returns:
        [frequencies, windows], lowest frequency first.
    """
    size = 2 ** max(round(math.log2(_WINDOW_SECONDS * sample_rate_hz)), 2)
    hop = max(size // 4, math.ceil(len(waveform) / _MOST_COLUMNS))
    # The window of column c is centred on sample c * hop.
    num = math.ceil(len(waveform) / hop)
    padded = np.pad(waveform, (size // 2, size // 2 + hop))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:num]
    return (np.abs(np.fft.rfft(windows * np.hanning(size), axis=1)) ** 2).T


def _decibels(power: np.ndarray, loudest: float) -> np.ndarray:
    """Power in dB below `loudest`, from -80 to 0; -80 everywhere for silence."""
    floor = 10 ** (-_DYNAMIC_RANGE_DB / 10)
    relative = power / loudest if loudest > 0 else np.zeros_like(power)
    return 10 * np.log10(np.maximum(relative, floor))
