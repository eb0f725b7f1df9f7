"""What every sequence model offers: score a batch of sequences, and generate step by step."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from stcn_tf.layers.observation import Observation, ObservationParameters

# Any two integers; a tensor [2] int32 inside tf.function.
Seed = tuple[int, int] | tf.Tensor


class ScoreTerms(NamedTuple):
    """The terms of the bound for each step, in nats, 0 beyond a sequence's length.

    `log_likelihood` is of the normalised values that the records hold.
    """

    log_likelihood: tf.Tensor  # [batch, time], log p(x_t | z_t)
    kl: tf.Tensor  # [batch, time, layers], KL of q(z_t^l) from p(z_t^l), layer 0 = lowest
    kl_per_unit: tuple[tf.Tensor, ...]  # for each layer [batch, time, units]; sums to `kl`
    # [batch, time], log p(x_t, z_t) - log q(z_t): with z_t from q its mean is a bound on
    # log p(x_t), and its exponential has the mean p(x_t). See `bounds`. (Without noise, z being the
    # mean of q, it is no such weight.)
    log_weight: tf.Tensor


class SequenceModel(keras.Model):
    """Base of the models. A subclass defines `encode`, `score_encoded` and the step-wise methods.

    Models are made from a run's config.json (`stcn_tf.models.registry`), not from a Keras config,
    so they have no `get_config`.

    Attributes:
        observation: the observation model, whose `sample` and `log_prob` read what the model
            predicts.
        latent_sizes: units of z^1, ..., z^L; empty: the model has no latents and its likelihood is
            exact.
        elbo_kl_weights: one number for each layer: how often its KL counts in a valid lower bound.
        num_given_frames: first frames of a sequence that are not scored (their log-likelihood is 0)
            and that generation must be given.
        do_latents_reach_across_steps: whether the prediction of x_t reads latents of earlier steps;
            if not, importance weights may be taken for each step by itself.
    """

    observation: Observation
    latent_sizes: tuple[int, ...] = ()
    elbo_kl_weights: tuple[float, ...] = ()
    num_given_frames: int = 0
    do_latents_reach_across_steps: bool = False

    @property
    def num_features(self) -> int:
        """Features of one step of x."""
        return self.observation.num_real + self.observation.num_binary

    @property
    def bound_name(self) -> str:
        """What `bounds.SequenceTerms.elbo` is: without latents, the log-likelihood itself."""
        return "ELBO" if self.latent_sizes else "log-likelihood"

    @property
    def is_released_objective_a_bound(self) -> bool:
        """Whether counting each layer's KL once, as the authors' program does, gives a bound."""
        return all(weight == 1.0 for weight in self.elbo_kl_weights)

    def num_scored(self, lengths: tf.Tensor) -> tf.Tensor:
        """How many steps of sequences of these lengths are scored; of the same type and shape."""
        return tf.maximum(lengths - self.num_given_frames, 0)

    def score(
        self, x: tf.Tensor, lengths: tf.Tensor, seed: Seed = (0, 0), noise: str = "sample"
    ) -> ScoreTerms:
        """Scores sequences: the one function that training and evaluation share.

        Args:
            x: [batch, time, features] float32, normalised, zero-padded.
            lengths: [batch] int32, steps of each sequence.
            seed: of the latent noise; the same seed gives the same terms for the same batch,
                however much it is padded.
            noise: "sample": latents are drawn from the posterior; "zero": they are its means.

        Returns:
            ScoreTerms, masked by `lengths`.
        """
        return self.score_encoded(self.encode(x), x, lengths, seed, noise)

    def encode(self, x: tf.Tensor) -> Any:
        """What does not depend on the latents: computed once for any number of draws.

        Args:
            x: [batch, time, features] float32, normalised.
        """
        raise NotImplementedError

    def score_encoded(
        self,
        encoded: Any,
        x: tf.Tensor,
        lengths: tf.Tensor,
        seed: Seed = (0, 0),
        noise: str = "sample",
    ) -> ScoreTerms:
        """`score` of sequences that `encode` has been given.

        Args:
            encoded: from `encode`.
            x: as in `score`, like the others.
            lengths: [batch] int32.
            seed: of the latent noise.
            noise: "sample" or "zero".
        """
        raise NotImplementedError

    def initial_output_state(self, batch_size: tf.Tensor | int) -> Any:
        """The state before the first `score_step`; where `do_latents_reach_across_steps`."""
        raise NotImplementedError

    def score_step(
        self, encoded: Any, x: tf.Tensor, mask: tf.Tensor, state: Any, seed: Seed
    ) -> tuple[ScoreTerms, Any]:
        """Scores one step, with latents from the posterior: what a particle filter repeats.

        Args:
            encoded: of this step, with a time axis of length one.
            x: [batch, 1, features] float32.
            mask: [batch, 1] bool, whether the step belongs to its sequence.
            state: from `initial_output_state` or the previous call.
            seed: of this step's latent noise.

        Returns:
            ScoreTerms with a time axis of length one, and the new state.
        """
        raise NotImplementedError

    def reconstruct(self, x: tf.Tensor, seed: Seed = (0, 0), binarize: bool = True) -> tf.Tensor:
        """The most probable x_t, given latents from the posterior, which has seen x_t.

        Args:
            x: [batch, time, features] float32, normalised.
            seed: of the latent noise; the latents are those that `score` draws with it.
            binarize: give binary features as 0 or 1; False: as the probability of 1.

        Returns:
            [batch, time, features] float32: the mean of the most probable component, and 1 for
            binary features whose probability exceeds 0.5. Without latents, the prediction of x_t
            from the past. First frames that the model must be given are those of x.
        """
        x = tf.convert_to_tensor(x, tf.float32)
        parameters = self.reconstruction_parameters(x, seed)
        rebuilt = self.observation.most_probable(parameters, binarize)
        return tf.concat([x[:, : self.num_given_frames], rebuilt], axis=1)

    def reconstruction_parameters(self, x: tf.Tensor, seed: Seed = (0, 0)) -> ObservationParameters:
        """p(x_t | z_t) of every scored step, with latents from the posterior.

        Args:
            x: [batch, time, features] float32, normalised.
            seed: of the latent noise, as in `score`.

        Returns:
            The parameters; their time axis is `num_given_frames` shorter than that of x.
        """
        raise NotImplementedError

    def initial_state(self, batch_size: tf.Tensor | int) -> Any:
        """The state before the first step of `predict_step`."""
        raise NotImplementedError

    def predict_step(
        self, previous: tf.Tensor, state: Any, seed: Seed, temperature: tf.Tensor | float = 1.0
    ) -> tuple[ObservationParameters, Any]:
        """Predicts x_t from the past, with latents drawn from the prior.

        Args:
            previous: [batch, features], x_{t-1}; zeros for the first step.
            state: from `initial_state` or the previous call.
            seed: of this step's latent noise.
            temperature: multiplies the latent noise; 0: prior means.

        Returns:
            p(x_t | z_t) with a time axis of length one, and the new state.
        """
        raise NotImplementedError


def sequence_mask(lengths: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """[batch, time] bool: True on the steps that belong to a sequence."""
    return tf.sequence_mask(lengths, tf.shape(x)[1])
