"""Sequences as histograms: of their lengths, and of the values of their features, in raw units."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from stcn_tf.media.figures import LABEL_COLOR, LABEL_SIZE, legible
from stcn_tf.media.lines import MOST_FEATURES

if TYPE_CHECKING:
    from stcn_tf.data.card import DatasetCard

_LENGTH_BINS = 30
_BARS = {"histtype": "stepfilled", "color": "#7f93b8"}


class Panel(NamedTuple):
    """One histogram (or the mean image)."""

    title: str
    note: str  # below the title
    draw: Callable[[Axes], None]

    def draw_into(self, axes: Axes) -> None:
        """Draws it, with its title and note above the axes."""
        self.draw(axes)
        title, fonts = legible(self.title)
        axes.set_title(title, loc="left", pad=14, fontsize=9, **fonts)
        style = {"xycoords": "axes fraction", "textcoords": "offset points", "color": LABEL_COLOR}
        axes.annotate(self.note, (0, 1), xytext=(0, 4), fontsize=LABEL_SIZE, **style)
        axes.spines[["top", "right"]].set_visible(False)
        for each in (axes, *axes.child_axes):
            each.tick_params(labelsize=LABEL_SIZE)
            each.xaxis.label.set_size(LABEL_SIZE)
            each.xaxis.offsetText.set_size(LABEL_SIZE)
            each.yaxis.label.set_size(LABEL_SIZE)


def panels_of(
    card: "DatasetCard", raw: Sequence[np.ndarray], lengths: Mapping[str, Sequence[int]]
) -> list[Panel]:
    """What there is to draw of some sequences.

    Args:
        card: of their records.
        raw: [time, features] each, raw units.
        lengths: by split, those of some sequences, in steps.
    """
    norm, modality, panels = card.normalization, card.modality, []
    if len(set(itertools.chain(*lengths.values()))) > 1:
        note = "of what was read of each split"
        panels.append(Panel("length", note, lambda axes: _draw_lengths(axes, card, lengths)))
    if modality.kind == "image":
        image = np.mean(raw, axis=0).reshape(modality.height, modality.width)
        note = "black is 0, white is 1"
        panels.append(Panel("mean image", note, lambda axes: _draw_image(axes, image)))
    names = [feature.name for feature in card.features[:MOST_FEATURES]]
    scales = list(zip(norm.mean, norm.std, strict=True))
    if modality.kind == "audio":  # of all samples together
        raw, names = [x.reshape(-1, 1) for x in raw], ["samples"]
        scales = scales[:1] if len(set(scales)) == 1 else [(0.0, 1.0)]
    for index, name in enumerate(names):
        columns = [x[:, index] for x in raw]
        values = np.concatenate(columns).astype(np.float64)  # narrow ranges divide into bins, too
        if card.features[index].kind == "binary":
            rates = [x.mean(dtype=np.float64) for x in columns]
            note = f"mean over all steps {values.mean():.4g}"
            panels.append(Panel(name, note, lambda axes, x=rates: _draw_rates(axes, x)))
        else:
            told = values, card.features[index].unit, scales[index], f"{norm.kind}-normalised"
            note = f"mean {values.mean():.4g}, std {values.std():.4g}"
            panels.append(Panel(name, note, lambda axes, told=told: _draw_values(axes, *told)))
    return panels


def _draw_lengths(axes: Axes, card: "DatasetCard", lengths: Mapping[str, Sequence[int]]) -> None:
    low, high = (extreme(map(extreme, lengths.values())) for extreme in (min, max))
    width = math.ceil((high + 1 - low) / _LENGTH_BINS)  # steps: whole ones, or bins would differ
    rate = card.modality.sample_rate_hz
    per_step = card.num_features / rate if rate else 1
    edges = (np.arange(low, high + width + 1, width) - 0.5) * per_step
    for name, values in lengths.items():
        x, weights = np.multiply(values, per_step), np.full(len(values), 1 / len(values))
        axes.hist(x, edges, weights=weights, histtype="step", label=name)
    axes.set(xlabel="seconds" if rate else "steps", ylabel="share of the sequences")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="best", handlelength=1, frameon=False, fontsize=LABEL_SIZE)


def _draw_values(
    axes: Axes, values: np.ndarray, unit: str, scale: tuple[float, float], normalised: str
) -> None:
    """Histogram of raw values [num], with the normalised ones on a second axis.

    Counts are on a logarithmic axis: steps of a pen are mostly short and sometimes very long.
    """
    axes.hist(values, bins=100, **_BARS)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("count")
    unit, fonts = legible(unit)
    axes.set_xlabel(unit, **fonts)
    if scale != (0.0, 1.0):
        mean, std = scale
        functions = (lambda raw: (raw - mean) / std, lambda x: x * std + mean)
        below = axes.secondary_xaxis(-0.4, functions=functions)
        normalised, fonts = legible(normalised)
        below.set_xlabel(normalised, color=LABEL_COLOR, **fonts)
        below.tick_params(colors=LABEL_COLOR)


def _draw_rates(axes: Axes, rates: Sequence[float]) -> None:
    axes.hist(rates, bins=40, **_BARS)
    axes.set(xlabel="mean over a sequence", ylabel="sequences")


def _draw_image(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="none")
    axes.set_anchor("W")
    axes.set_axis_off()
