"""What TensorBoard shows of a run. Each likelihood is described by its unit and normalisation."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from stcn_tf import media
from stcn_tf.data.units import likelihood_unit
from stcn_tf.inference.evaluation import Evaluation
from stcn_tf.media.page import medium_of
from stcn_tf.media.reconstructions import Reconstructions
from stcn_tf.models.base import SequenceModel
from stcn_tf.runs import RunDirectory


class Summaries:
    """Writes scalars, pictures and sounds to the run's two event folders, train and valid.

    Both folders use the same tags, so that TensorBoard draws the two splits in one chart. Where
    training crops its sequences, `per_sequence` is per piece in train and per whole sequence in
    valid: then only `per_step` compares. So that they share charts with other models, those without
    latents have their exact log-likelihood under the tags of the ELBO.

    Args:
        run: the run directory.
        model: of the run.
    """

    def __init__(self, run: RunDirectory, model: SequenceModel):
        self._card = run.card
        self._medium = medium_of(run.card)
        self._bound_name = model.bound_name
        self._train = tf.summary.create_file_writer(run.events("train"))
        self._valid = tf.summary.create_file_writer(run.events("valid"))

    def train(self, step: int, totals: dict[str, np.ndarray], steps_per_second: float) -> None:
        """Means over the updates since the last point.

        Args:
            step: the number of the last update.
            totals: sums of the `StepResult` fields over those updates, `updates` their number.
            steps_per_second: updates per second.
        """
        with self._train.as_default(step):
            self._terms(
                totals["elbo"],
                totals["log_likelihood"],
                totals["kl"],
                totals["num_sequences"],
                totals["num_steps"],
            )
            for name in ("gradient_norm", "kl_weight", "learning_rate"):
                tf.summary.scalar(f"training/{name}", totals[name] / totals["updates"])
            tf.summary.scalar("training/steps_per_second", steps_per_second)

    def valid(self, step: int, evaluation: Evaluation) -> None:
        """An evaluation of the validation split after update `step`."""
        with self._valid.as_default(step):
            self._terms(
                np.sum(evaluation.elbo),
                np.sum(evaluation.log_likelihood),
                np.sum(evaluation.kl, axis=0),
                len(evaluation.elbo),
                np.sum(evaluation.num_steps),
            )
            for layer, active in enumerate(evaluation.active_units, start=1):
                tf.summary.scalar(f"active_units/layer_{layer}", active)
        self._valid.flush()

    def pictures(self, step: int, samples: Sequence[np.ndarray], rebuilt: Reconstructions) -> None:
        """Generated sequences, and others beside their reconstructions; audio to be heard, too.

        Args:
            step: the number of the last update.
            samples: [time, features] each, raw units.
            rebuilt: the others.
        """
        medium = self._medium
        pages = {
            "samples": medium.draw_samples(samples, [0] * len(samples)),
            "reconstructions": medium.draw_reconstructions(rebuilt),
        }
        sounds = {
            "samples": medium.sounds(samples),
            "originals": medium.sounds(rebuilt.originals),
            "reconstructions": medium.sounds(rebuilt.reconstructions),
        }
        with self._valid.as_default(step):
            for name, page in pages.items():
                tf.summary.image(name, media.figure_to_rgb(page)[np.newaxis])
            for name, waveforms in sounds.items():
                for index, waveform in enumerate(waveforms):
                    tf.summary.audio(
                        f"{name}/{index}",
                        np.clip(waveform, -1.0, 1.0)[np.newaxis, :, np.newaxis],
                        self._card.modality.sample_rate_hz,
                    )
        self._valid.flush()

    def flush(self) -> None:
        """Writes out what is buffered."""
        self._train.flush()
        self._valid.flush()

    def _terms(self, elbo, log_likelihood, kl, num_sequences, num_steps) -> None:
        unit = likelihood_unit(self._card)
        for per, count in (("per_sequence", num_sequences), ("per_step", num_steps)):
            tf.summary.scalar(
                f"elbo/{per}", elbo / count, description=f"{self._bound_name}, {unit}"
            )
            tf.summary.scalar(f"reconstruction/{per}", log_likelihood / count, description=unit)
            if not len(kl):
                continue
            tf.summary.scalar(f"kl_{per}/total", np.sum(kl) / count, description="nats")
            for layer, kl_of_layer in enumerate(kl, start=1):
                tf.summary.scalar(
                    f"kl_{per}/layer_{layer}", kl_of_layer / count, description="nats"
                )
