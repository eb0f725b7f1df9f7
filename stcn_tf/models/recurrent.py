"""Recurrent models with one latent variable a step: what they share.

    before x_t is known          z_t is drawn                    x_t is known
    prior(before, latent)   ->   drawn(before, z_t, latent)  ->  given(own, latent)

`before` is what the deterministic layers have made of x_<t, `own` what they make of x_t, `seen`
what the approximate posterior of z_t reads of x_t and, where it smooths, of later frames. The
loop along time holds no more than the recurrence; heads and divergences come after it, for all
steps at once.
"""

from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf import noise
from stcn_tf.layers.base import State as LayerState
from stcn_tf.layers.observation import ObservationParameters
from stcn_tf.layers.scan import scan
from stcn_tf.models.base import DrawnLayer, Encoded, SequenceModel, State, sequence_mask, terms_of
from stcn_tf.seeds import Stream

tfd = tfp.distributions

Gaussian = tuple[tf.Tensor, tf.Tensor]  # mean and sigma, [batch, steps, units] float32


class Steps(NamedTuple):
    """What `encode` makes of a block: nested tensors [batch, steps, ...] or ()."""

    before: Any  # of x_<t, at position t
    own: Any  # of x_t
    seen: Any  # what the posterior of z_t reads besides


class EncoderState(NamedTuple):
    """The deterministic past of each sequence, where a recurrent layer reads x_{t-1} at step t."""

    previous: tf.Tensor  # [batch, 1, features], the last frame; zeros before the first one
    recurrent: LayerState  # before it has read that frame


class RecurrentLatentModel(SequenceModel):
    """Base of recurrent models with latents. A subclass defines `start`, `encode` and what follows.

    Tensors of the hooks are [batch, steps, channels]; in the loop there is one step.
    """

    elbo_kl_weights = (1.0,)
    # Standard normal numbers that a step needs besides those of z_t: of what is drawn alike with
    # prior and posterior, which costs nothing.
    num_other_noise = 0
    do_latents_reach_across_steps = True

    def past(self, encoder: Any) -> tuple[Any, Any]:
        """Before the next frame: `Steps.before` of it, and the state of the encoder after that."""
        return (), encoder

    def known(self, encoder: Any, x: tf.Tensor) -> tuple[Any, Any]:
        """The next frame, [batch, 1, features]: `Steps.own` of it, the state after it."""
        raise NotImplementedError

    def prior(self, before: Any, latent: Any) -> Gaussian:
        """p(z_t | .)."""
        raise NotImplementedError

    def posterior(self, steps: Steps, latent: Any, prior: Gaussian) -> Gaussian:
        """q(z_t | .)."""
        raise NotImplementedError

    def read_by_gaussians(
        self, steps: Steps, latent: Any, standard: tf.Tensor
    ) -> tuple[Steps, Any]:
        """What prior and posterior read, of the same values; for other gradients."""
        del standard
        return steps, latent

    def drawn(self, before: Any, z: tf.Tensor, latent: Any, standard: tf.Tensor) -> tuple[Any, Any]:
        """What is read of a step once z_t is there, and the state between z_t and x_t.

        `standard` are the other standard normal numbers, see `num_other_noise`.
        """
        raise NotImplementedError

    def given(self, own: Any, latent: Any) -> Any:
        """The state after x_t."""
        del own
        return latent

    def predicted(self, read: Any) -> ObservationParameters:
        """p(x_t | .) of what is read of each step."""
        raise NotImplementedError

    def costs(self, steps: Steps, z: tf.Tensor, read: Any, state: State) -> tf.Tensor | None:
        """[batch, steps], what is trained besides the bound; None: nothing."""
        del steps, z, read, state
        return None

    def observe(self, encoded: Encoded, x, lengths, state, seed=(0, 0), temperature=1.0):
        """See `SequenceModel.observe`."""
        standard = self._standard(state, x, seed, temperature)

        def step(latent, inputs):
            steps, standard = inputs
            its_steps, its_latent = self.read_by_gaussians(steps, latent, standard)
            prior = self.prior(its_steps.before, its_latent)
            posterior = self.posterior(its_steps, its_latent, prior)
            z, rest = _draw(posterior, standard)
            read, latent = self.drawn(steps.before, z, latent, rest)
            return (prior, posterior, z, read), self.given(steps.own, latent)

        outputs, latent = scan(step, state.latent, (encoded.steps, standard), lengths)
        prior, posterior, z, read = outputs
        drawn = DrawnLayer(
            tfd.Normal(*posterior), tfd.Normal(*prior), ((z, standard[..., : z.shape[-1]]),)
        )
        terms = terms_of(
            self.observation,
            self.predicted(read),
            x,
            sequence_mask(lengths, x),
            [drawn],
            self.costs(encoded.steps, z, read, state),
        )
        return terms, state._replace(
            step=state.step + lengths, encoder=encoded.state, latent=latent
        )

    def predict_next(self, state, seed=(0, 0), temperature=1.0):
        """See `SequenceModel.predict_next`."""
        before, encoder = self.past(state.encoder)
        one_step = state.step[:, tf.newaxis, tf.newaxis]
        standard = self._standard(state, one_step, seed, temperature)
        z, rest = _draw(self.prior(before, state.latent), standard)
        read, latent = self.drawn(before, z, state.latent, rest)
        return self.predicted(read), state._replace(encoder=encoder, latent=latent)

    def advance(self, pending: State, x: tf.Tensor) -> State:
        """See `SequenceModel.advance`."""
        own, encoder = self.known(pending.encoder, x)
        latent = self.given(own, pending.latent)
        return pending._replace(step=pending.step + 1, encoder=encoder, latent=latent)

    def started(self, batch_size: tf.Tensor | int, encoder: Any, latent: Any) -> State:
        """The state before the first frame, of its two parts."""
        return State(tf.range(batch_size), tf.zeros([batch_size], tf.int32), encoder, latent)

    def _standard(self, state: State, x: tf.Tensor, seed, temperature) -> tf.Tensor:
        seed = noise.fold_in(seed, Stream.LATENTS)
        units = self.latent_sizes[0] + self.num_other_noise
        return temperature * noise.standard_normal(seed, self.places_of(state, x), units)


def _draw(source: Gaussian, standard: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A draw, and the numbers that it did not need."""
    mean, sigma = source
    units = mean.shape[-1]
    return mean + sigma * standard[..., :units], standard[..., units:]


def joined(*parts: tf.Tensor) -> tf.Tensor:
    """Side by side, in the precision of the first."""
    return tf.concat([tf.cast(part, parts[0].dtype) for part in parts], axis=-1)


def h_of(lstm: LayerState) -> tf.Tensor:
    """The output in the state of an LSTM, as that of one step: [batch, 1, units]."""
    return lstm[0][:, tf.newaxis]
