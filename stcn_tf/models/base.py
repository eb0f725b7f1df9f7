"""The contract of every sequence model: five operations, and what is made of them.

    start(batch)                               before the first frame
    encode(x, lengths, state)                  what no latent touches, once for any number of draws
    observe(encoded, x, lengths, state, seed)  latents from the posterior: scoring, reconstruction,
                                               a step of a particle filter, a given beginning
    predict_next(state, seed)                  latents from the prior, one step
    advance(pending, x)                        the frame that was drawn or given

x is [batch, steps, features]. `encode` and `observe` take a block of any number of steps; cutting a
sequence into blocks changes nothing (a posterior that sees the future smooths within its block).
Sequences in a batch may have different lengths: each row of a state is at its own sequence's end.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers.gaussian import MIN_SIGMA
from stcn_tf.layers.observation import Observation, ObservationParameters
from stcn_tf.models import structure
from stcn_tf.noise import Places, Seed

tfd = tfp.distributions


class State(NamedTuple):
    """Where a model is in each sequence."""

    # [batch] int32, a number for each sequence, which its noise belongs to; at the start 0, 1, ...
    row: tf.Tensor
    step: tf.Tensor  # [batch] int32, frames observed so far
    encoder: Any  # what no latent touches; nested tensors [batch, ...]
    latent: Any  # what latents reach; nested tensors [batch, ...], () where none do


class Encoded(NamedTuple):
    """A block of frames, before any latent is drawn."""

    steps: Any  # nested tensors [batch, steps, ...], which may be cut along time
    state: Any  # `State.encoder` after the block


class Terms(NamedTuple):
    """The terms of the bound for each step, in nats, 0 beyond a sequence's length.

    `log_likelihood` is of the normalised values that the records hold.
    """

    log_likelihood: tf.Tensor  # [batch, steps], log p(x_t | z_t)
    kl: tf.Tensor  # [batch, steps, layers], KL of q(z_t^l) from p(z_t^l), layer 0 = lowest
    kl_per_unit: tuple[tf.Tensor, ...]  # for each layer [batch, steps, units]; sums to `kl`
    # [batch, steps], log p(x_t, z_t) - log q(z_t): with z_t from q its mean is a bound on
    # log p(x_t), and its exponential has the mean p(x_t). See `bounds`. (At another temperature
    # than 1 it is no such weight.)
    log_weight: tf.Tensor
    # [batch, steps], costs that are trained and are no part of any reported number.
    auxiliary: tf.Tensor
    # [batch, steps, 1 + layers], the share of sigmas at their floor, of p(x_t | z_t) and of each
    # prior: densities that grow by narrow sigmas are no better predictions.
    at_floor: tf.Tensor
    # Of p(x_t | z_t), not masked. First frames that the model must be given have none that means
    # anything.
    parameters: ObservationParameters


def _refused(name: str, instead: str) -> Callable[..., NoReturn]:
    """A method in the place of one of Keras' that a sequence model has no use for."""

    def method(self, *args, **kwargs):
        raise NotImplementedError(f"{type(self).__name__} has no {name} of Keras: {instead}")

    method.__doc__ = f"Refused: {instead}."
    return method


_TRAIN = (
    "train with `python -m stcn_tf.train` or stcn_tf.training.trainer.Trainer, whose loss is the "
    "bound"
)
_EVALUATE = "score with `python -m stcn_tf.evaluate`, stcn_tf.inference.evaluation or `score`"
_SAVE = (
    "a run saves it, which stcn_tf.load_run reads; a copy is made with stcn_tf.build_model and "
    "save_weights, load_weights or get_weights, set_weights"
)


class SequenceModel(keras.Model):
    """Base of the models. A subclass defines the five operations.

    Of Keras' own methods `predict`, `summary`, `save_weights`, `load_weights` and what else needs
    neither a loss nor a configuration work. Models are made from a run's config.json
    (`stcn_tf.models.registry`), not from a Keras config, so they have no `get_config`, and what
    needs it (`pickle`, `copy`, `keras.models.clone_model`) says so, as do `save`, `compile`, `fit`
    and `evaluate`.

    Attributes:
        observation: the observation model, whose `sample` and `log_prob` read what the model
            predicts.
        latent_sizes: units of z^1, ..., z^L; empty: the model has no latents and its likelihood is
            exact.
        elbo_kl_weights: one number for each layer: how often its KL counts in a valid lower bound.
        num_given_frames: first frames of a sequence that are not scored (their log-likelihood is 0)
            and that generation must be given.
        receptive_field: how many past frames the prediction of x_t can see, the latents that come
            from them included; None: all. After as many a state holds nothing of earlier ones.
        latent_receptive_fields: for each layer, how many past frames its own prior sees; empty: it
            is not that in which layers differ.
        does_smooth: whether the posterior of z_t sees frames later than x_t, those of its block.
        uses_batch_statistics: whether layers normalise over whole batches in training.
        do_latents_reach_across_steps: whether the prediction of x_t reads latents of earlier steps;
            if not, importance weights may be taken for each step by itself.
    """

    compile = _refused("compile", _TRAIN)
    fit = _refused("fit", _TRAIN)
    train_on_batch = _refused("train_on_batch", _TRAIN)
    evaluate = _refused("evaluate", _EVALUATE)
    test_on_batch = _refused("test_on_batch", _EVALUATE)
    export = _refused(
        "export", "export with `python -m stcn_tf.export` or stcn_tf.inference.saved_model"
    )
    save = _refused("save", _SAVE)
    get_config = _refused("get_config", _SAVE)

    observation: Observation
    latent_sizes: tuple[int, ...] = ()
    elbo_kl_weights: tuple[float, ...] = ()
    num_given_frames: int = 0
    receptive_field: int | None = None
    latent_receptive_fields: tuple[int, ...] = ()
    does_smooth: bool = False
    uses_batch_statistics: bool = False
    do_latents_reach_across_steps: bool = False

    @property
    def num_features(self) -> int:
        """Features of one step of x."""
        return self.observation.num_features

    @property
    def bound_name(self) -> str:
        """What `bounds.SequenceTerms.elbo` is: without latents, the log-likelihood itself."""
        return "ELBO" if self.latent_sizes else "log-likelihood"

    @property
    def is_objective_a_bound(self) -> bool:
        """Whether counting each layer's KL once, as training does, gives a lower bound."""
        return all(weight == 1.0 for weight in self.elbo_kl_weights)

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        return structure.table(self)

    def num_scored(self, lengths: tf.Tensor) -> tf.Tensor:
        """How many steps of sequences of these lengths are scored; of the same type and shape."""
        return tf.maximum(lengths - self.num_given_frames, 0)

    # The five operations

    def start(self, batch_size: tf.Tensor | int) -> State:
        """The state before the first frame.

        Args:
            batch_size: number of sequences.
        """
        raise NotImplementedError

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """What does not depend on the latents of the block: computed once for any number of draws.

        Args:
            x: [batch, steps, features] float32, normalised; zero beyond each row's length.
            lengths: [batch] int32, steps of the block that belong to each row, 0 to `steps`.
            state: before the block.
        """
        raise NotImplementedError

    def observe(
        self,
        encoded: Encoded,
        x: tf.Tensor,
        lengths: tf.Tensor,
        state: State,
        seed: Seed = (0, 0),
        temperature: tf.Tensor | float = 1.0,
    ) -> tuple[Terms, State]:
        """Draws the latents of a block from the posterior and scores its frames.

        Args:
            encoded: of these frames, from `encode`.
            x: as in `encode`, like `lengths`.
            lengths: [batch] int32.
            state: before the block. Its `encoder` part is not read.
            seed: of the latent noise; the same seed gives the same draws for the same step of the
                same row, however the sequence is cut or padded.
            temperature: a scalar, or [batch, 1, 1]; multiplies the latent noise; 0: the posterior's
                means.

        Returns:
            Terms, masked by `lengths`; and the state of each row after its own last frame.
        """
        raise NotImplementedError

    def predict_next(
        self, state: State, seed: Seed = (0, 0), temperature: tf.Tensor | float = 1.0
    ) -> tuple[ObservationParameters, Any]:
        """Predicts the next frame from those before it, with latents drawn from the prior.

        Args:
            state: after those frames.
            seed: of the latent noise.
            temperature: as in `observe`; 0: prior means.

        Returns:
            p(x_t | z_t) with a time axis of length one, and what `advance` goes on from.
        """
        raise NotImplementedError

    def advance(self, pending: Any, x: tf.Tensor) -> State:
        """Takes the frame that was drawn or given, with the latents that predicted it.

        Args:
            pending: from `predict_next`.
            x: [batch, 1, features] float32.

        Returns:
            The state after that frame.
        """
        raise NotImplementedError

    # What is made of them

    def score(
        self,
        x: tf.Tensor,
        lengths: tf.Tensor,
        seed: Seed = (0, 0),
        temperature: tf.Tensor | float = 1.0,
    ) -> Terms:
        """Scores whole sequences: one block from the start.

        Args:
            x: [batch, time, features] float32, normalised, zero-padded.
            lengths: [batch] int32, steps of each sequence.
            seed: of the latent noise, see `observe`.
            temperature: see `observe`.
        """
        x, lengths = tf.convert_to_tensor(x, tf.float32), tf.convert_to_tensor(lengths, tf.int32)
        state = self.start(tf.shape(x)[0])
        return self.observe(self.encode(x, lengths, state), x, lengths, state, seed, temperature)[0]

    def call(self, x: tf.Tensor, seed: Seed = (0, 0)) -> Terms:
        """`score` of sequences without padding: what `model(x)` and `model.predict(x)` give."""
        return self.score(x, tf.fill([tf.shape(x)[0]], tf.shape(x)[1]), seed)

    def reconstruction(self, terms: Terms, x: tf.Tensor, binarize: bool = True) -> tf.Tensor:
        """One x_t that stands for p(x_t | z_t), given latents from the posterior, which saw x_t.

        Args:
            terms: of x, from `score`.
            x: [batch, time, features] float32, normalised.
            binarize: give binary features as 0 or 1; False: as the probability of 1.

        Returns:
            [batch, time, features] float32, see `Observation.point_estimate`. Without latents, of
            the prediction of x_t from the past. First frames that the model must be given are
            those of x.
        """
        given = self.num_given_frames
        rebuilt = self.observation.point_estimate(terms.parameters, binarize)
        return tf.concat([x[:, :given], rebuilt[:, given:]], axis=1)

    def places_of(self, state: State, x: tf.Tensor) -> Places:
        """Where in which sequences the steps of a block are, `state` being that before it."""
        return Places(state.row, state.step[:, tf.newaxis] + tf.range(tf.shape(x)[1]))


class DrawnLayer(NamedTuple):
    """A latent layer of a block, drawn from the posterior."""

    posterior: tfd.Normal  # [batch, steps, units]
    prior: tfd.Normal
    # All that was drawn of it, with the standard normal noise of each, [batch, steps, units].
    draws: tuple[tuple[tf.Tensor, tf.Tensor], ...]


def terms_of(
    observation: Observation,
    parameters: ObservationParameters,
    x: tf.Tensor,
    mask: tf.Tensor,
    layers: Sequence[DrawnLayer],
    auxiliary: tf.Tensor | None = None,
    kl_divergence: Callable[[tfd.Normal, tfd.Normal], tf.Tensor] = tfd.kl_divergence,
) -> Terms:
    """The terms of the bound from what the posterior drew and the output layers made of it.

    Args:
        observation: of the model.
        parameters: of p(x_t | .).
        x: [batch, steps, features] float32.
        mask: [batch, steps] bool, the steps that are scored.
        layers: lowest first; none where the likelihood is exact.
        auxiliary: [batch, steps], costs that are trained alone; None: there are none.
        kl_divergence: of a posterior from its prior, for each unit.
    """
    log_likelihood = observation.log_prob(parameters, x)  # Eq. 15
    log_weight = log_likelihood
    kl_per_unit = []  # Eq. 16 and 17
    unit = tfd.Normal(0.0, 1.0)
    for q, p, draws in layers:
        kl_per_unit.append(tf.where(mask[..., tf.newaxis], kl_divergence(q, p), 0.0))
        for z, standard in draws:
            # log q from the noise: a narrow q (Eq. 11 goes down to sigma 5e-7) around a mean of
            # 1 or more is told from z only as far as float32 resolves it.
            log_q = unit.log_prob(standard) - tf.math.log(q.scale)
            log_weight += tf.reduce_sum(p.log_prob(z) - log_q, axis=-1)
    kl = [tf.reduce_sum(of_units, axis=-1) for of_units in kl_per_unit]
    at_floor = [observation.share_at_floor(parameters)]
    at_floor += [_mean_of(layer.prior.scale <= MIN_SIGMA) for layer in layers]
    nothing = tf.zeros_like(log_likelihood)
    return Terms(
        log_likelihood=tf.where(mask, log_likelihood, 0.0),
        kl=tf.stack(kl, axis=-1) if kl else nothing[..., tf.newaxis][..., :0],
        kl_per_unit=tuple(kl_per_unit),
        log_weight=tf.where(mask, log_weight, 0.0),
        auxiliary=nothing if auxiliary is None else tf.where(mask, auxiliary, 0.0),
        at_floor=tf.where(mask[..., tf.newaxis], tf.stack(at_floor, axis=-1), 0.0),
        parameters=parameters,
    )


def _mean_of(holds: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(holds, tf.float32), axis=-1)


class ExactModel(SequenceModel):
    """Base of models without latents: `Encoded.steps` is what the heads read of each step."""

    def observe(self, encoded, x, lengths, state, seed=(0, 0), temperature=1.0):
        """See `SequenceModel.observe`; nothing is drawn."""
        del seed, temperature
        parameters, _ = self.observation(encoded.steps)
        is_scored = self.places_of(state, x).steps >= self.num_given_frames
        mask = sequence_mask(lengths, x) & is_scored
        terms = terms_of(self.observation, parameters, x, mask, layers=())
        return terms, state._replace(step=state.step + lengths, encoder=encoded.state)


def repeated(values: Any, count: tf.Tensor | int) -> Any:
    """[batch, ...] -> [batch * count, ...], the copies of a row adjacent."""
    if isinstance(count, int) and count == 1:
        return values
    return tf.nest.map_structure(lambda v: tf.repeat(v, count, axis=0), values)


def sequence_mask(lengths: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """[batch, steps] bool: True on the steps that belong to a sequence."""
    return tf.sequence_mask(lengths, tf.shape(x)[1])
