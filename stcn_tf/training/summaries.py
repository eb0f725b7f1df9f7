"""What TensorBoard shows of a run. Likelihoods are nats of the normalised values."""

import numpy as np
import tensorflow as tf

from stcn_tf import plotting
from stcn_tf.evaluation import Evaluation
from stcn_tf.runs import RunDirectory


class Summaries:
    """Writes scalars and pictures to the run's two event folders, train and valid.

    Both folders use the same tags, so that TensorBoard draws the two splits in one chart. Where
    training crops its sequences, `per_sequence` is per piece in train and per whole sequence in
    valid: then only `per_step` compares.
    """

    def __init__(self, run: RunDirectory):
        self._card = run.card
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
                np.sum(evaluation.lengths),
            )
            for layer, active in enumerate(evaluation.active_units, start=1):
                tf.summary.scalar(f"active_units/layer_{layer}", active)
        self._valid.flush()

    def pictures(
        self, step: int, originals: list[np.ndarray], rebuilt: list[np.ndarray], samples: np.ndarray
    ) -> None:
        """Handwriting: generated, and beside its reconstruction; all in normalised values.

        Args:
            step: the number of the last update.
            originals: [time, features] each.
            rebuilt: the same shapes.
            samples: [num, time, features].
        """
        raw = self._card.normalization.denormalize
        with self._valid.as_default(step):
            pages = {
                "samples": plotting.draw_handwriting([raw(x) for x in samples]),
                "reconstructions": plotting.draw_reconstruction(
                    [raw(x) for x in originals], [raw(x) for x in rebuilt]
                ),
            }
            for name, page in pages.items():
                tf.summary.image(name, plotting.figure_to_rgb(page)[np.newaxis])
        self._valid.flush()

    def flush(self) -> None:
        """Writes out what is buffered."""
        self._train.flush()
        self._valid.flush()

    @staticmethod
    def _terms(elbo, log_likelihood, kl, num_sequences, num_steps) -> None:
        for unit, count in (("per_sequence", num_sequences), ("per_step", num_steps)):
            tf.summary.scalar(f"elbo/{unit}", elbo / count)
            tf.summary.scalar(f"reconstruction/{unit}", log_likelihood / count)
            tf.summary.scalar(f"kl_{unit}/total", np.sum(kl) / count)
            for layer, kl_of_layer in enumerate(kl, start=1):
                tf.summary.scalar(f"kl_{unit}/layer_{layer}", kl_of_layer / count)
