"""Bounds on the log-likelihood, from what a model's `score` returns (paper, Eq. 14)."""

from typing import NamedTuple

import tensorflow as tf

from stcn_tf.models.base import ScoreTerms, SequenceModel


class SequenceTerms(NamedTuple):
    """`ScoreTerms` summed over the steps of each sequence; nats."""

    log_likelihood: tf.Tensor  # [batch]
    kl: tf.Tensor  # [batch, layers]

    def objective(self, kl_weight: tf.Tensor | float = 1.0) -> tf.Tensor:
        """[batch]: log-likelihood minus the weighted KL, each layer counted once.

        What training maximises; with weight 1 the number the authors' program reports. It is a
        lower bound where `SequenceModel.is_released_objective_a_bound`.
        """
        return self.log_likelihood - kl_weight * tf.reduce_sum(self.kl, axis=-1)

    def elbo(self, model: SequenceModel) -> tf.Tensor:
        """[batch]: a valid lower bound on log p(x), whatever the model's posterior draws."""
        return self.log_likelihood - tf.linalg.matvec(self.kl, tf.constant(model.elbo_kl_weights))


def sum_over_time(terms: ScoreTerms) -> SequenceTerms:
    """Sums the masked terms of each step over time."""
    return SequenceTerms(
        tf.reduce_sum(terms.log_likelihood, axis=1), tf.reduce_sum(terms.kl, axis=1)
    )
