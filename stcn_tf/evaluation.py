"""Scores a whole split: one number per sequence first, averages and standard errors last."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from stcn_tf.bounds import sum_over_time
from stcn_tf.models.base import SequenceModel

# A latent unit counts as active where its KL, averaged over the steps, exceeds this many nats.
# (Burda et al., 2015, threshold the variance of the posterior mean instead; with a prior that
# moves from step to step that would also count units whose posterior equals their prior.)
ACTIVE_UNIT_NATS = 0.01


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Terms of every sequence of a split, in nats of the normalised values."""

    log_likelihood: np.ndarray  # [sequences]
    kl: np.ndarray  # [sequences, layers], layer 0 = lowest
    elbo: np.ndarray  # [sequences], a valid lower bound
    released_objective: np.ndarray  # [sequences], each layer's KL counted once
    lengths: np.ndarray  # [sequences]
    active_units: tuple[int, ...]  # for each layer

    def per_sequence(self, values: np.ndarray) -> float:
        """Mean over sequences."""
        return float(np.mean(values))

    def per_step(self, values: np.ndarray) -> float:
        """Sum over all sequences divided by all their steps."""
        return float(np.sum(values) / np.sum(self.lengths))

    def standard_error(self, values: np.ndarray) -> float:
        """Of the mean over sequences; nan for a single one."""
        if len(values) < 2:
            return math.nan
        return float(np.std(values, ddof=1) / math.sqrt(len(values)))

    def per_step_standard_error(self, values: np.ndarray) -> float:
        """Of `per_step`, a ratio of two sums over sequences (delta method)."""
        residuals = values - self.per_step(values) * self.lengths
        return self.standard_error(residuals) / float(np.mean(self.lengths))


class Evaluator:
    """Scores batches with a model; made once, so that it is traced once.

    Args:
        model: built.
        jit_compile: compile the scoring with XLA (once for each batch shape).
    """

    def __init__(self, model: SequenceModel, jit_compile: bool = False):
        self._model = model

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, model.num_features], tf.float32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([2], tf.int32),
            ],
            jit_compile=jit_compile,
            autograph=False,
        )
        def score(x, lengths, seed):
            terms = model.score(x, lengths, seed)
            sums = sum_over_time(terms)
            kl_of_units = [tf.reduce_sum(kl, axis=(0, 1)) for kl in terms.kl_per_unit]
            return sums, sums.elbo(model), sums.objective(), kl_of_units

        self._score = score

    def __call__(
        self,
        batches: tf.data.Dataset,
        seed: int = 0,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int], Any] = lambda sequences: None,
    ) -> Evaluation | None:
        """Scores every sequence of `batches` once, with one posterior draw.

        Args:
            batches: of `pipeline.eval_batches`.
            seed: of the latent noise.
            stop: asked before each batch; when it says True the evaluation is given up.
            progress: told the number of sequences scored so far.

        Returns:
            The Evaluation; None if it was given up.
        """
        scored, lengths, units = [], [], None
        done = 0
        for index, batch in enumerate(batches):
            if stop():
                return None
            batch_seed = tf.random.fold_in((seed, 1), index)
            sums, elbo, objective, kl_of_units = self._score(batch.x, batch.lengths, batch_seed)
            scored.append([t.numpy() for t in (sums.log_likelihood, sums.kl, elbo, objective)])
            lengths.append(batch.lengths.numpy())
            kl_of_units = [kl.numpy().astype(np.float64) for kl in kl_of_units]
            units = (
                kl_of_units
                if units is None
                else [a + b for a, b in zip(units, kl_of_units, strict=True)]
            )
            done += len(lengths[-1])
            progress(done)
        log_likelihood, kl, elbo, objective = (
            np.concatenate(column).astype(np.float64) for column in zip(*scored, strict=True)
        )
        all_lengths = np.concatenate(lengths)
        num_steps = all_lengths.sum()
        return Evaluation(
            log_likelihood=log_likelihood,
            kl=kl,
            elbo=elbo,
            released_objective=objective,
            lengths=all_lengths,
            active_units=tuple(int(np.sum(kl / num_steps > ACTIVE_UNIT_NATS)) for kl in units),
        )
