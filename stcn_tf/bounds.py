"""Bounds on log p(x): the ELBO, importance weighting (IWAE) and particle filtering (FIVO).

All of them are made of what a model's `observe` returns, for evaluation and for training. With K
draws of the latents and the weights w_k = p(x, z_k) / q(z_k):

- ELBO (paper, Eq. 14): the mean of log w, with the KL in closed form.
- importance-weighted bound (Burda et al., 2015): log of the mean of w; it rises with K. Where the
  prediction of x_t reads the latents of step t alone, given x the latents of different steps are
  independent in the model and in q, so p(x) is a product over the steps, and so is the bound: the
  weights of each step are averaged by themselves. Else a weight is that of a whole sequence.
- FIVO (Maddison et al., 2017): log of a particle filter's estimate of p(x), which resamples along
  time and so keeps the weights of long sequences from degenerating.

The expectation of each is at most log p(x); a printed value is one random draw of it. With
independent posterior draws the weights run over every latent of the generative model
(`released.stcn`); the noise of the draws that only the posterior reads is common to both sides.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from stcn_tf import noise, recompute
from stcn_tf.models.base import Encoded, SequenceModel, State, Terms, repeated
from stcn_tf.noise import Places, Seed
from stcn_tf.seeds import Stream
from stcn_tf.support.errors import UserError

# Steps of all sequences and draws that are scored together where memory need not hold them for a
# gradient. Of fewer the overhead is felt; with more, what a layer makes falls out of the caches.
STEPS_AT_ONCE = 2**14


class SequenceTerms(NamedTuple):
    """`Terms` summed over the steps of each sequence; nats."""

    log_likelihood: tf.Tensor  # [batch]
    kl: tf.Tensor  # [batch, layers]
    auxiliary: tf.Tensor  # [batch], trained, never reported
    at_floor: tf.Tensor  # [batch, 1 + layers], steps of which sigmas sit at their floor

    def objective(self, kl_weight: tf.Tensor | float = 1.0) -> tf.Tensor:
        """[batch]: log-likelihood minus the weighted KL, each layer counted once.

        With weight 1 the number the authors' program reports. It is a lower bound where
        `SequenceModel.is_objective_a_bound`.
        """
        return self.log_likelihood - kl_weight * tf.reduce_sum(self.kl, axis=-1)

    def elbo(self, model: SequenceModel) -> tf.Tensor:
        """[batch]: a valid lower bound on log p(x), whatever the model's posterior draws."""
        return self.log_likelihood - tf.linalg.matvec(self.kl, tf.constant(model.elbo_kl_weights))


class Scored(NamedTuple):
    """Sequences scored with several draws of the latents; nats."""

    mean: SequenceTerms  # over the draws, or the particles
    kl_of_units: tuple[tf.Tensor, ...]  # for each layer [units], sums over sequences of that mean
    bound: tf.Tensor  # [batch], the importance-weighted or the filter's


def sum_over_time(terms: Terms) -> SequenceTerms:
    """Sums the masked terms of each step over time."""
    parts = (terms.log_likelihood, terms.kl, terms.auxiliary, terms.at_floor)
    return SequenceTerms(*(tf.reduce_sum(part, axis=1) for part in parts))


def score_samples(
    model: SequenceModel,
    x: tf.Tensor,
    lengths: tf.Tensor,
    seed: Seed,
    num_samples: int,
    kl_weight: tf.Tensor | float = 1.0,
    at_once: int | None = None,
    recompute_every: int = 0,
    given_frames: int = 0,
    rows: tf.Tensor | None = None,
) -> Scored:
    """Scores sequences with several draws of the latents.

    What does not depend on the latents is computed once. The draws are the same however many of
    them are made together: that of number k of the sequence in row r is that of the row r * K + k.

    Args:
        model: built.
        x: [batch, time, features] float32, normalised, zero-padded.
        lengths: [batch] int32.
        seed: of the latent noise.
        num_samples: K, the number of draws; without latents one pass is all there is to do.
        kl_weight: of the latents' part of the log weights, for training; 1: those of a bound.
        at_once: draws that are made together, a divisor of K. All of them, to differentiate; None:
            as many as `STEPS_AT_ONCE` allows, so that memory does not grow with their number.
        recompute_every: see `recompute.observe`; with all draws together only.
        given_frames: frames at the beginning of each sequence that are given: their log-likelihood
            does not count, the KL of their steps does: a bound on log p(rest | given).
        rows: [batch] int32, what the noise of each sequence belongs to, a number that no other has;
            None: its row.

    Returns:
        Scored; its `bound` is the importance-weighted one.
    """
    x, lengths = tf.convert_to_tensor(x, tf.float32), tf.convert_to_tensor(lengths, tf.int32)
    start = _start(model, x, rows)
    if not model.latent_sizes:
        num_samples = at_once = 1
    if at_once is None and num_samples == 1:
        at_once = 1
    if at_once is None:
        divisors = tf.constant([n for n in range(1, num_samples + 1) if num_samples % n == 0])
        fits = divisors * tf.size(x[..., 0]) <= STEPS_AT_ONCE
        at_once = tf.reduce_max(tf.where(fits, divisors, 1))
    if recompute_every:
        copies = _drawn_anew(repeated(start, at_once), at_once, num_samples, 0)

        def observe(_) -> Terms:
            return recompute.observe(
                model, x, lengths, start, copies, at_once, seed, recompute_every
            )

    else:
        inputs = repeated((model.encode(x, lengths, start), x, lengths, start), at_once)

        def observe(index) -> Terms:
            copies = _drawn_anew(inputs[-1], at_once, num_samples, index * at_once)
            return model.observe(*inputs[:-1], copies, seed)[0]

    def score(index) -> tuple[tuple, tf.Tensor]:
        """Sums of `at_once` draws, and of their weights the logarithm: [batch, steps or 1]."""
        terms = _of_the_rest(observe(index), tf.range(tf.shape(x)[1]), given_frames)
        log_weight = _tempered(terms, kl_weight)
        if model.do_latents_reach_across_steps:
            log_weight = tf.reduce_sum(log_weight, axis=1, keepdims=True)
        sums = tf.nest.map_structure(
            lambda v: tf.reduce_sum(_by_draw(v, at_once), axis=1), sum_over_time(terms)
        )
        log_sum = tf.reduce_logsumexp(_by_draw(log_weight, at_once), axis=1)
        return (sums, _kl_of_units(terms)), log_sum

    def body(index, sums, log_sum):
        more, log_weight = score(index)
        log_sum = tf.reduce_logsumexp(tf.stack([log_sum, log_weight]), axis=0)
        return index + 1, tf.nest.map_structure(tf.add, sums, more), log_sum

    sums, log_sum = score(tf.constant(0))
    if isinstance(at_once, tf.Tensor) or at_once < num_samples:
        passes = num_samples // at_once
        _, sums, log_sum = tf.while_loop(
            lambda index, *_: index < passes,
            body,
            (tf.constant(1), sums, log_sum),
            parallel_iterations=1,
        )
    count = float(num_samples)
    mean, kl_of_units = tf.nest.map_structure(lambda total: total / count, sums)
    # Beyond a sequence's end every weight is 1.
    bound = tf.reduce_sum(log_sum - tf.math.log(count), axis=1)
    return Scored(mean, kl_of_units, bound)


def filter_particles(
    model: SequenceModel,
    x: tf.Tensor,
    lengths: tf.Tensor,
    seed: Seed,
    num_particles: int,
    kl_weight: tf.Tensor | float = 1.0,
    given_frames: int = 0,
    rows: tf.Tensor | None = None,
) -> Scored:
    """FIVO: a particle filter with the approximate posterior as its proposal.

    The particles of a sequence are resampled (systematically) after each step at which the
    effective number of them, 1 / sum of squared weights, is below half of their number. A
    particle's past is the latent part of its state, so memory grows with the number of particles,
    but not with time. No gradient passes through the choice of ancestors, as in the paper's
    experiments.

    Args:
        model: built.
        x: [batch, time, features] float32, normalised, zero-padded.
        lengths: [batch] int32.
        seed: of the latent noise and of the resampling.
        num_particles: K.
        kl_weight: see `score_samples`.
        given_frames: see `score_samples`.
        rows: see `score_samples`.

    Returns:
        Scored; its `bound` is the log of an unbiased estimate of p(x). Its `mean` is over the
        particles as they were proposed, to look at: made of resampled pasts, it is no bound.
    """
    x, lengths = tf.convert_to_tensor(x, tf.float32), tf.convert_to_tensor(lengths, tf.int32)
    batch, time = tf.unstack(tf.shape(x)[:2])
    begun = _start(model, x, rows)
    encoded = model.encode(x, lengths, begun)
    count = float(num_particles)
    first = tf.range(batch)[:, tf.newaxis] * num_particles  # the first particle of each sequence
    start = _drawn_anew(repeated(begun, num_particles), num_particles, num_particles, 0)
    uniform = noise.uniform(
        noise.fold_in(seed, Stream.RESAMPLING),
        Places(begun.row, tf.tile(tf.range(time)[tf.newaxis], [batch, 1])),
        1,
    )[..., 0]

    def body(t, state, log_weights, total, sums):
        steps, frame = tf.nest.map_structure(lambda v: _at(v, t), (encoded.steps, x))
        ones = tf.clip_by_value(lengths - t, 0, 1)
        inputs = repeated((Encoded(steps, encoded.state), frame, ones), num_particles)
        terms, state = model.observe(*inputs, state, seed)
        terms = _of_the_rest(terms, t, given_frames)
        log_weights += tf.reshape(_tempered(terms, kl_weight), [-1, num_particles])
        log_sum, log_weights, ancestors = _weighed(log_weights, _at(uniform, t))
        chosen = tf.reshape(first + ancestors, [-1])
        # A particle takes over its ancestor's past, but not its noise.
        state = tf.nest.map_structure(lambda s: tf.gather(s, chosen), state)
        state = state._replace(row=start.row)
        mean = tf.nest.map_structure(
            lambda v: tf.reduce_mean(_by_draw(v, num_particles), axis=1), sum_over_time(terms)
        )
        more = (mean, _kl_of_units(terms))
        sums = tf.nest.map_structure(tf.add, sums, more)
        return t + 1, state, log_weights, total + log_sum, sums

    layers = len(model.latent_sizes)
    begin = (
        tf.constant(0),
        start,
        tf.fill([batch, num_particles], -tf.math.log(count)),
        tf.zeros([batch]),
        (
            SequenceTerms(
                tf.zeros([batch]),
                tf.zeros([batch, layers]),
                tf.zeros([batch]),
                tf.zeros([batch, 1 + layers]),
            ),
            tuple(tf.zeros([units]) for units in model.latent_sizes),
        ),
    )
    _, _, _, bound, (mean, kl_of_units) = tf.while_loop(
        lambda t, *_: t < time,
        body,
        begin,
        # Where sizes are known when this is traced, not all operations of the body keep them. What
        # layers make weights for stays known: channels and units.
        shape_invariants=tf.nest.map_structure(
            lambda v: tf.TensorShape([None, *v.shape[1:]] if v.shape.rank else []), begin
        ),
        maximum_iterations=time,
        parallel_iterations=1,
    )
    return Scored(mean, tuple(kl / count for kl in kl_of_units), bound)


def _start(model: SequenceModel, x: tf.Tensor, rows: tf.Tensor | None) -> State:
    start = model.start(tf.shape(x)[0])
    return start if rows is None else start._replace(row=rows)


def _of_the_rest(terms: Terms, steps: tf.Tensor, given_frames: int) -> Terms:
    """Without the log-likelihood of frames that are given; `steps` are the numbers of the steps."""
    if not given_frames:
        return terms
    is_given = steps < given_frames
    given = tf.where(is_given, terms.log_likelihood, 0.0)
    return terms._replace(
        log_likelihood=terms.log_likelihood - given,
        log_weight=terms.log_weight - given,
        at_floor=tf.where(is_given[..., tf.newaxis], 0.0, terms.at_floor),
    )


def check(bound: str, model: SequenceModel, where: str) -> None:
    """Checks that a bound makes sense for a model.

    Args:
        bound: "elbo", "iwae" or "fivo".
        model: whose.
        where: the flag that asked for it, for the message.

    Raises:
        UserError: it does not; the message says what is accepted.
    """
    if bound == "fivo" and not model.do_latents_reach_across_steps:
        raise UserError(
            f"{where}=fivo: for a model without latents, or whose prediction of x_t reads the "
            "latents of step t alone, elbo and iwae are accepted (iwae weights each step)"
        )


def score(
    bound: str,
    model: SequenceModel,
    x: tf.Tensor,
    lengths: tf.Tensor,
    seed: Seed,
    num_samples: int,
    **options,
) -> Scored:
    """Scores sequences for one of the bounds: what training and evaluation share.

    Args:
        bound: "elbo", "iwae" or "fivo".
        model: see `score_samples`, like all else.
        x: [batch, time, features].
        lengths: [batch].
        seed: of the latent noise.
        num_samples: draws, or particles.
        **options: `kl_weight`, `given_frames`, `rows`, and not of "fivo" `at_once` and
            `recompute_every`.
    """
    scorer = filter_particles if bound == "fivo" else score_samples
    return scorer(model, x, lengths, seed, num_samples, **options)


def _tempered(terms: Terms, kl_weight: tf.Tensor | float) -> tf.Tensor:
    """Log weights whose latents' part counts `kl_weight` times."""
    return terms.log_likelihood + kl_weight * (terms.log_weight - terms.log_likelihood)


def _drawn_anew(copies: State, at_once: tf.Tensor | int, num_samples: int, first: Any) -> State:
    """Gives the copies of each sequence noise of their own.

    Args:
        copies: [batch * at_once, ...], of `repeated`.
        at_once: of each sequence.
        num_samples: draws of each sequence in all.
        first: the number of the first copy among them.
    """
    if num_samples == 1:
        return copies
    number = first + tf.range(tf.size(copies.row)) % at_once
    return copies._replace(row=copies.row * num_samples + number)


def _at(values: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """[batch, steps, ...] -> [batch, 1, ...] at step t; a slice has no size that XLA knows."""
    return tf.expand_dims(tf.gather(values, t, axis=1), 1)


def _by_draw(values: tf.Tensor, count: int) -> tf.Tensor:
    """[batch * count, ...] -> [batch, count, ...]."""
    return tf.reshape(values, tf.concat([[-1, count], tf.shape(values)[1:]], axis=0))


def _kl_of_units(terms: Terms) -> tuple[tf.Tensor, ...]:
    return tuple(tf.reduce_sum(kl, axis=(0, 1)) for kl in terms.kl_per_unit)


def _weighed(log_weights: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sums the weights of particles, and resamples where they have degenerated.

    Args:
        log_weights: [batch, particles]; the weights came into the step with the sum 1.
        offset: [batch, 1], see `_resample`.

    Returns:
        [batch], log of the estimate of p(x_t | past), which they sum to now; the log weights with
        which the particles go on, and their ancestors, both [batch, particles].
    """
    num_particles = tf.shape(log_weights)[1]
    count = tf.cast(num_particles, tf.float32)
    log_sum = tf.reduce_logsumexp(log_weights, axis=1, keepdims=True)
    log_weights -= log_sum
    weights = tf.exp(log_weights)
    is_degenerate = 1.0 / tf.reduce_sum(weights**2, axis=1, keepdims=True) < count / 2.0
    ancestors = _resample(tf.stop_gradient(weights), offset)
    ancestors = tf.where(is_degenerate, ancestors, tf.range(num_particles))
    return log_sum[:, 0], tf.where(is_degenerate, -tf.math.log(count), log_weights), ancestors


def _resample(weights: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Systematic resampling.

    Args:
        weights: [batch, particles], of sum 1.
        offset: [batch, 1], uniform in (0, 1).

    Returns:
        [batch, particles] int32, the ancestors.
    """
    num_particles = tf.shape(weights)[1]
    count = tf.cast(num_particles, tf.float32)
    positions = (tf.range(count) + offset) / count
    ancestors = tf.searchsorted(tf.cumsum(weights, axis=1), positions, side="right")
    # The weights may sum to a little less than 1.
    return tf.minimum(ancestors, num_particles - 1)
