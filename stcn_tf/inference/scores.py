"""What a model makes of each step of some sequences: a table, and a line in its colours."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stcn_tf.inference.grouping import error_text
from stcn_tf.media.figures import figure_to_svg
from stcn_tf.media.medium import Medium
from stcn_tf.support import markup

# The highest colour stands for what so many percent of the steps do not exceed.
_MOST_PERCENT = 98


@dataclasses.dataclass(frozen=True)
class Scores:
    """Terms of the bound of some sequences, one draw of the latents from the posterior each.

    A notebook shows the table of `stcn_tf.evaluate`, and below it the first sequence in the colours
    of `figure`.

    Attributes:
        medium: what draws the sequences.
        sequences: [time, features] float32 each, raw units.
        log_likelihood: [time] each, log p(x_t | z_t) in nats of the normalised values; without
            latents, log p(x_t) given the past.
        kl: [time, layers] each, KL of q(z_t^l) from p(z_t^l) in nats, layer 0 = lowest.
        elbo: [sequences] nats, a valid lower bound on log p(x); without latents, that itself.
        summary: what a file of `stcn_tf.evaluate` holds of them, see `table.summary`.
    """

    medium: Medium
    sequences: tuple[np.ndarray, ...]
    log_likelihood: tuple[np.ndarray, ...]
    kl: tuple[np.ndarray, ...]
    elbo: np.ndarray
    summary: dict[str, Any]

    def __len__(self) -> int:
        return len(self.sequences)

    def __repr__(self) -> str:
        term = next(iter(self.summary["terms"].values()))
        return f"<{term['name']} {term['per_sequence']:.1f} {term['unit']} per sequence>"

    def figure(self, index: int = 0) -> Figure:
        """The KL of each layer along a sequence, on one scale; without latents, its surprise.

        Surprise is -log p(x_t) given the past. Of KL the palest colour stands for 0; the strongest
        for what 98 of 100 steps do not exceed.

        Args:
            index: of the sequence.
        """
        values, names = self._values(index)
        everywhere = np.concatenate(values)
        low = 0.0 if self.kl[index].shape[1] else np.percentile(everywhere, 100 - _MOST_PERCENT)
        high = max(float(np.percentile(everywhere, _MOST_PERCENT)), low)
        labels = [
            f"{name}: {row.sum():.1f} nats, {row.mean():.3f} per step"
            for name, row in zip(names, values, strict=True)
        ]
        labels[0] += f"; palest {low:.2f}, strongest {high:.2f} nats or more in a step"
        return self.medium.draw_values(self.sequences[index], values, (float(low), high), labels)

    def along(self, index: int = 0) -> markup.Picture:
        """`figure`, which a notebook shows."""
        return markup.Picture(figure_to_svg(self.figure(index)))

    def _values(self, index: int) -> tuple[list[np.ndarray], list[str]]:
        """Rows [time] to draw, highest layer first, and what each is."""
        kl = self.kl[index]
        if not kl.shape[1]:
            return [-self.log_likelihood[index]], ["surprise"]
        layers = range(kl.shape[1], 0, -1)
        return [kl[:, layer - 1] for layer in layers], [f"KL of layer {n}" for n in layers]

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        said = "KL of each layer" if self.kl[0].shape[1] else "surprise"
        picture = markup.image(self.along().svg, f"{said} along the first sequence")
        return f"{self._table()}\n{picture}"

    def _table(self) -> str:
        bits_of = f"bits/dimension{' (raw units)' if self.summary['raw_unit'] else ''}"
        head = ("", "per sequence", "+-", "per step", "unit", bits_of)
        rows = []
        for term in self.summary["terms"].values():
            raw = term.get("raw_units", term)
            bits = raw.get("bits_per_dimension")
            rows.append(
                (
                    term["name"],
                    f"{term['per_sequence']:.2f}",
                    error_text(term["per_sequence_standard_error"], 2),
                    f"{term['per_step']:.4f}",
                    term["unit"],
                    "" if bits is None else f"{bits:.3f}",
                )
            )
        num, steps = self.summary["num_sequences"], self.summary["num_steps"]
        return markup.table(head, rows, f"{num:,} sequences, {steps:,} scored steps")
