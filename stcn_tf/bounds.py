"""Bounds on log p(x): the ELBO, importance weighting (IWAE) and particle filtering (FIVO).

All of them are made of what a model's `score` returns. With K draws of the latents and the weights
w_k = p(x, z_k) / q(z_k):

- ELBO (paper, Eq. 14): the mean of log w, with the KL in closed form.
- importance-weighted bound (Burda et al., 2015): log of the mean of w; it rises with K. Where the
  prediction of x_t reads the latents of step t alone, given x the latents of different steps are
  independent in the model and in q, so p(x) is a product over the steps, and so is the bound: the
  weights of each step are averaged by themselves. Else a weight is that of a whole sequence.
- FIVO (Maddison et al., 2017): log of a particle filter's estimate of p(x), which resamples along
  time and so keeps the weights of long sequences from degenerating.

The expectation of each is at most log p(x); a printed value is one random draw of it. With
independent posterior draws the weights run over every latent of the generative model
(`models.stcn.Latents`); the noise of the draws that only the posterior reads is common to both
sides.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from stcn_tf.models.base import ScoreTerms, Seed, SequenceModel, sequence_mask


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


class SampledTerms(NamedTuple):
    """Terms from several draws of the latents; nats."""

    mean: SequenceTerms  # over the draws
    kl_of_units: tuple[tf.Tensor, ...]  # for each layer [units], mean over the draws
    importance_weighted: tf.Tensor  # [batch], the importance-weighted bound


def sum_over_time(terms: ScoreTerms) -> SequenceTerms:
    """Sums the masked terms of each step over time."""
    return SequenceTerms(
        tf.reduce_sum(terms.log_likelihood, axis=1), tf.reduce_sum(terms.kl, axis=1)
    )


def score_samples(
    model: SequenceModel, x: tf.Tensor, lengths: tf.Tensor, seed: Seed, num_samples: tf.Tensor | int
) -> SampledTerms:
    """Scores sequences with several draws of the latents.

    What does not depend on the latents is computed once; the draws come one after the other, so
    that memory does not grow with their number.

    Args:
        model: built.
        x: [batch, time, features] float32, normalised, zero-padded.
        lengths: [batch] int32.
        seed: of the latent noise.
        num_samples: K, the number of draws; without latents one pass is all there is to do.
    """
    x = tf.convert_to_tensor(x, tf.float32)
    encoded = model.encode(x)
    batch, time = tf.unstack(tf.shape(x)[:2])
    if not model.latent_sizes:
        num_samples = 1
    num_samples = tf.convert_to_tensor(num_samples, tf.int32)

    def body(index, sums, log_sum):
        terms = model.score_encoded(encoded, x, lengths, tf.random.fold_in(seed, index))
        log_weight = terms.log_weight
        if model.do_latents_reach_across_steps:
            log_weight = tf.reduce_sum(log_weight, axis=1, keepdims=True)
        kl_of_units = tuple(tf.reduce_sum(kl, axis=(0, 1)) for kl in terms.kl_per_unit)
        sums = tf.nest.map_structure(tf.add, sums, (sum_over_time(terms), kl_of_units))
        return index + 1, sums, tf.reduce_logsumexp(tf.stack([log_sum, log_weight]), axis=0)

    zeros = (
        SequenceTerms(tf.zeros([batch]), tf.zeros([batch, len(model.latent_sizes)])),
        tuple(tf.zeros([units]) for units in model.latent_sizes),
    )
    weighted_steps = 1 if model.do_latents_reach_across_steps else time
    _, sums, log_sum = tf.while_loop(
        lambda index, *_: index < num_samples,
        body,
        (tf.constant(0), zeros, tf.fill([batch, weighted_steps], -float("inf"))),
        parallel_iterations=1,
    )
    count = tf.cast(num_samples, tf.float32)
    mean, kl_of_units = tf.nest.map_structure(lambda total: total / count, sums)
    # Beyond a sequence's end every weight is 1.
    importance_weighted = tf.reduce_sum(log_sum - tf.math.log(count), axis=1)
    return SampledTerms(mean, kl_of_units, importance_weighted)


def filter_particles(
    model: SequenceModel,
    x: tf.Tensor,
    lengths: tf.Tensor,
    seed: Seed,
    num_particles: tf.Tensor | int,
) -> tf.Tensor:
    """FIVO: a particle filter with the approximate posterior as its proposal.

    The particles of a sequence are resampled (systematically) after each step at which the
    effective number of them, 1 / sum of squared weights, is below half of their number. A
    particle's past is the state of the output layers, so memory grows with the number of
    particles, but not with time.

    Args:
        model: built, one whose latents reach across steps.
        x: [batch, time, features] float32, normalised, zero-padded.
        lengths: [batch] int32.
        seed: of the latent noise and of the resampling.
        num_particles: K.

    Returns:
        [batch], log of an unbiased estimate of p(x); nats.
    """
    x = tf.convert_to_tensor(x, tf.float32)
    encoded = model.encode(x)
    batch, time = tf.unstack(tf.shape(x)[:2])
    num_particles = tf.convert_to_tensor(num_particles, tf.int32)
    count = tf.cast(num_particles, tf.float32)
    mask = sequence_mask(lengths, x)

    def particles(values):
        """[batch, time, ...] at step t -> [batch * particles, 1, ...], those of one adjacent."""
        return tf.repeat(values, num_particles, axis=0)

    def body(t, state, log_weights, total):
        proposal_seed, resampling_seed = tf.unstack(tf.random.split(tf.random.fold_in(seed, t), 2))
        inputs = tf.nest.map_structure(lambda v: particles(v[:, t : t + 1]), (encoded, x, mask))
        terms, state = model.score_step(*inputs, state, proposal_seed)
        log_weights += tf.reshape(terms.log_weight, [batch, num_particles])
        # The weights came in with the sum 1: what they sum to now is the estimate of p(x_t | past).
        log_sum = tf.reduce_logsumexp(log_weights, axis=1, keepdims=True)
        log_weights -= log_sum
        weights = tf.exp(log_weights)
        is_degenerate = 1.0 / tf.reduce_sum(weights**2, axis=1, keepdims=True) < count / 2.0
        ancestors = _resample(weights, resampling_seed)
        ancestors = tf.where(is_degenerate, ancestors, tf.range(num_particles))
        rows = tf.reshape(ancestors + tf.range(batch)[:, tf.newaxis] * num_particles, [-1])
        state = tf.nest.map_structure(lambda s: tf.gather(s, rows), state)
        log_weights = tf.where(is_degenerate, -tf.math.log(count), log_weights)
        return t + 1, state, log_weights, total + log_sum[:, 0]

    start = (
        tf.constant(0),
        model.initial_output_state(batch * num_particles),
        tf.fill([batch, num_particles], -tf.math.log(count)),
        tf.zeros([batch]),
    )
    _, _, _, total = tf.while_loop(
        lambda t, *_: t < time,
        body,
        start,
        # Where sizes are known when this is traced, not all operations of the body keep them.
        shape_invariants=tf.nest.map_structure(
            lambda v: tf.TensorShape([None] * len(v.shape[:2])).concatenate(v.shape[2:]), start
        ),
        parallel_iterations=1,
    )
    return total


def _resample(weights: tf.Tensor, seed: Any) -> tf.Tensor:
    """Systematic resampling: [batch, particles] weights of sum 1 -> int32 ancestors."""
    batch, num_particles = tf.unstack(tf.shape(weights))
    offset = tf.random.stateless_uniform([batch, 1], seed)
    positions = (tf.range(tf.cast(num_particles, tf.float32)) + offset) / tf.cast(
        num_particles, tf.float32
    )
    ancestors = tf.searchsorted(tf.cumsum(weights, axis=1), positions, side="right")
    # The weights may sum to a little less than 1.
    return tf.minimum(ancestors, num_particles - 1)
