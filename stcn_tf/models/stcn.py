"""STCN and STCN-dense (Aksan & Hilliges, ICLR 2019): Figures 1, 2 and 5, Eq. 7 to 17.

The deterministic stack summarises the past at several time-scales; one latent variable for each
scale is drawn from the top of the hierarchy down; the lowest (STCN) or all of them (STCN-dense)
predict the next frame.

Where paper and released program differ, both are here, each a named option of the constructor:
`posterior_draws` (the paper's text: shared; released: independent), `posterior_scale` (Eq. 11
as printed: std; the ladder VAE's: variance) and `released_floors`.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers import output
from stcn_tf.layers.latent import LatentLayer
from stcn_tf.layers.observation import Observation, ObservationParameters
from stcn_tf.layers.wavenet import WavenetStack
from stcn_tf.models.base import ScoreTerms, Seed, SequenceModel, sequence_mask

tfd = tfp.distributions

# Streams of the latent noise, folded into the seed. With shared draws only the first is used.
_FOR_OUTPUT, _FOR_PRIOR_BELOW, _FOR_POSTERIOR_BELOW = range(3)


class Latents(NamedTuple):
    """The latent variables of some steps; lists go from layer 1 (lowest) to L."""

    priors: list[tfd.Normal]  # [batch, time, units of layer l]
    posteriors: list[tfd.Normal] | None  # the same; None where latents came from the prior
    # The draws of each layer that are latents of the generative model: one, or with independent
    # draws and `dense` two (above layer 1), of which the prior below reads one and the output one.
    draws: list[tuple[tf.Tensor, ...]]
    noise: list[tuple[tf.Tensor, ...]]  # the standard normal noise that each draw was made from
    read: tf.Tensor  # [batch, time, units], what the output layers read


class STCNOutput(NamedTuple):
    """What one pass over a sequence gives; lists go from layer 1 (lowest) to L."""

    parameters: ObservationParameters  # of p(x_t | z_t)
    priors: list[tfd.Normal]  # [batch, time, units of layer l]
    posteriors: list[tfd.Normal] | None  # the same; None where latents came from the prior
    draws: list[tuple[tf.Tensor, ...]]  # see `Latents`


class Encoded(NamedTuple):
    """What the deterministic stack says about each step; lists go from layer 1 to L."""

    prior: list[tf.Tensor]  # [batch, time, filters], d_{t-1}^l at position t
    posterior: list[tf.Tensor]  # the same, d_t^l at position t


class STCN(SequenceModel):
    """STCN, and with `dense` STCN-dense.

    Args:
        observation: p(x_t | .), not built.
        num_filters: filters of the stack and of the latent networks.
        kernel_size: taps of the dilated convolutions.
        blocks_per_layer: K, Wavenet blocks for each latent layer.
        dilations: of the Wavenet blocks, lowest first, over and over; empty: 1, 2, ..., 2^(K-1).
        latent_sizes: units of z^1, ..., z^L.
        latent_hidden_layers: hidden layers of each latent network.
        latent_filters: filters of the hidden layers; 0: as many as `num_filters`.
        output_layers: output layers between latents and heads.
        output_filters: their filters.
        output_type: "conv1x1" or "wavenet", see `make_output_layers`. With Wavenet output layers
            the prediction of x_t reads latents of earlier steps, too.
        output_kernel_size: taps of Wavenet output layers.
        dense: all latents reach the output (STCN-dense) or z^1 alone (STCN).
        posterior_draws: "shared": one draw of each z^l for every use; "independent": one for each
            use, as released.
        posterior_scale: "std" or "variance", see `LatentLayer`.
        released_floors: see `Observation` and `LatentLayer`.
        compute_dtype: policy of the convolutions, "float32" or "mixed_bfloat16".
        **kwargs: `name` of `keras.Model`.

    Raises:
        ValueError: an option has another value than those named here.
    """

    def __init__(
        self,
        *,
        observation: Observation,
        num_filters: int,
        kernel_size: int,
        blocks_per_layer: int,
        latent_sizes: Sequence[int],
        latent_hidden_layers: int,
        output_layers: int,
        output_filters: int,
        dense: bool,
        dilations: Sequence[int] = (),
        latent_filters: int = 0,
        output_type: str = "conv1x1",
        output_kernel_size: int = 2,
        posterior_draws: str = "shared",
        posterior_scale: str = "std",
        released_floors: bool = False,
        compute_dtype: str = "float32",
        **kwargs,
    ):
        # x itself must stay float32: only the convolutions compute in `compute_dtype`.
        super().__init__(**{"name": "stcn", **kwargs, "dtype": "float32"})
        if posterior_draws not in ("shared", "independent"):
            raise ValueError(
                f"posterior_draws must be 'shared' or 'independent', got {posterior_draws!r}"
            )
        self.blocks_per_layer = blocks_per_layer
        self.dense = dense
        self.posterior_draws = posterior_draws
        policy = keras.DTypePolicy(compute_dtype)
        self.latent_sizes = tuple(latent_sizes)
        num_layers = len(latent_sizes)
        pattern = dilations or [2**k for k in range(blocks_per_layer)]
        num_blocks = blocks_per_layer * num_layers
        dilations = tuple(itertools.islice(itertools.cycle(pattern), num_blocks))
        self.stack = WavenetStack(num_filters, kernel_size, dilations, name="stack", dtype=policy)
        self.latent_layers = [
            LatentLayer(
                units,
                latent_filters or num_filters,
                latent_hidden_layers,
                posterior_scale,
                released_floors,
                name=f"latent_{layer}",
                dtype=policy,
            )
            for layer, units in enumerate(latent_sizes, start=1)
        ]
        self.output_layers = output.make_output_layers(
            output_type, output_layers, output_filters, output_kernel_size, policy
        )
        self.do_latents_reach_across_steps = output_type == "wavenet" and output_layers > 0
        self.observation = observation
        # With independent draws the dense model has two latents per layer above the lowest, one
        # read by the output and one by the prior below; a bound must pay for both.
        above = 2.0 if dense and posterior_draws == "independent" else 1.0
        self.elbo_kl_weights = (1.0,) + (above,) * (num_layers - 1)

    @property
    def receptive_field(self) -> int:
        """Past frames that the prediction of x_t can see."""
        return self.stack.receptive_field + sum(layer.memory for layer in self.output_layers)

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        self.stack.build((None, None, self.num_features))
        units_above = 0
        for layer in reversed(self.latent_layers):
            layer.build((None, None, self.stack.filters + units_above))
            units_above = layer.units
        read = self.latent_layers if self.dense else self.latent_layers[:1]
        channels = output.build(self.output_layers, sum(layer.units for layer in read))
        self.observation.build((None, None, channels))
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        seed: Seed = (0, 0),
        latents: str = "posterior",
        temperature: tf.Tensor | float = 1.0,
    ) -> STCNOutput:
        """One pass over whole sequences.

        Args:
            x: [batch, time, features] float32, normalised.
            seed: of the latent noise.
            latents: "posterior" (z_t has seen x_t) or "prior" (only x_1, ..., x_{t-1}).
            temperature: multiplies the latent noise; 0: means instead of draws.

        Returns:
            STCNOutput over the time axis of x.

        Raises:
            ValueError: `latents` is neither.
        """
        if latents not in ("posterior", "prior"):
            raise ValueError(f"latents must be 'posterior' or 'prior', got {latents!r}")
        encoded = self.encode(x)
        d_posterior = encoded.posterior if latents == "posterior" else None
        drawn = self._top_down(encoded.prior, d_posterior, seed, temperature)
        return STCNOutput(
            parameters=self.observation(output.apply(self.output_layers, drawn.read)),
            priors=drawn.priors,
            posteriors=drawn.posteriors,
            draws=drawn.draws,
        )

    def encode(self, x: tf.Tensor) -> Encoded:
        """See `SequenceModel.encode`: one pass of the deterministic stack."""
        # The one-step shift: a zero frame in front, so that d[:, t] has seen x_1, ..., x_t and
        # d[:, t - 1], which has not seen x_t, feeds the prior of z_t.
        x = tf.convert_to_tensor(x, tf.float32)
        d = self._layers_of(self.stack(tf.pad(x, [[0, 0], [1, 0], [0, 0]])))
        return Encoded([d_l[:, :-1] for d_l in d], [d_l[:, 1:] for d_l in d])

    def score_encoded(
        self,
        encoded: Encoded,
        x: tf.Tensor,
        lengths: tf.Tensor,
        seed: Seed = (0, 0),
        noise: str = "sample",
    ) -> ScoreTerms:
        """See `SequenceModel.score`. The bound is Eq. 14, its terms Eq. 15 and Eq. 16 or 17.

        Raises:
            ValueError: `noise` is neither "sample" nor "zero".
        """
        if noise not in ("sample", "zero"):
            raise ValueError(f"noise must be 'sample' or 'zero', got {noise!r}")
        temperature = 1.0 if noise == "sample" else 0.0
        drawn = self._top_down(encoded.prior, encoded.posterior, seed, temperature)
        outputs = output.apply(self.output_layers, drawn.read)
        return self._terms(drawn, outputs, x, sequence_mask(lengths, x))

    def score_step(
        self, encoded: Encoded, x: tf.Tensor, mask: tf.Tensor, state: Any, seed: Seed
    ) -> tuple[ScoreTerms, Any]:
        """See `SequenceModel.score_step`; the state is that of the output layers."""
        drawn = self._top_down(encoded.prior, encoded.posterior, seed, 1.0)
        outputs, state = output.step(self.output_layers, drawn.read[:, 0], state)
        return self._terms(drawn, outputs[:, tf.newaxis], x, mask), state

    def reconstruction_parameters(self, x: tf.Tensor, seed: Seed = (0, 0)) -> ObservationParameters:
        """See `SequenceModel.reconstruction_parameters`."""
        return self.call(x, seed).parameters

    def initial_output_state(self, batch_size: tf.Tensor | int):
        """See `SequenceModel.initial_output_state`: that of the output layers."""
        return output.initial_state(self.output_layers, batch_size)

    def initial_state(self, batch_size: tf.Tensor | int):
        """See `SequenceModel.initial_state`."""
        return self.stack.initial_state(batch_size), self.initial_output_state(batch_size)

    def predict_step(self, previous, state, seed, temperature=1.0):
        """See `SequenceModel.predict_step`."""
        stack_state, output_state = state
        outputs, stack_state = self.stack.step(previous, stack_state)
        d = [d_l[:, tf.newaxis] for d_l in self._layers_of(outputs)]
        read = self._top_down(d, None, seed, temperature).read
        outputs, output_state = output.step(self.output_layers, read[:, 0], output_state)
        return self.observation(outputs[:, tf.newaxis]), (stack_state, output_state)

    def _layers_of(self, outputs) -> list[tf.Tensor]:
        """d^1, ..., d^L: the residual output of the last block of each group of K blocks."""
        return [
            block.residual for block in outputs[self.blocks_per_layer - 1 :: self.blocks_per_layer]
        ]

    def _top_down(
        self,
        d_prior: list[tf.Tensor],
        d_posterior: list[tf.Tensor] | None,
        seed: Seed,
        temperature: tf.Tensor | float,
    ) -> Latents:
        """Draws z^L, ..., z^1 (Figure 2). Lists go from layer 1 to L.

        `d_posterior` None: the latents are drawn from the prior (Eq. 7), else from the approximate
        posterior (Eq. 12), into whose layers the same code feeds what that draw's use asks for.
        """
        num_layers = len(self.latent_layers)
        priors, posteriors, draws, noises, read = [], [], [], [], []  # topmost first
        above_prior = above_posterior = None
        for index in reversed(range(num_layers)):
            layer = self.latent_layers[index]
            prior = layer.prior(d_prior[index], above_prior)
            priors.append(prior)
            source = prior
            if d_posterior is not None:
                source = layer.posterior(d_posterior[index], above_posterior, prior)
                posteriors.append(source)

            def draw(use, source=source, index=index):
                stream = tf.random.fold_in(tf.random.fold_in(_as_seed(seed), index), use)
                # Time first, so that more padding leaves the draws of earlier steps as they are.
                batch, time, units = tf.unstack(tf.shape(source.loc))
                noise = tf.random.stateless_normal([time, batch, units], stream)
                noise = temperature * tf.transpose(noise, [1, 0, 2])
                return source.loc + source.scale * noise, noise

            z, noise = draw(_FOR_OUTPUT)
            above_prior = above_posterior = z
            is_read = self.dense or index == 0
            if is_read:
                read.append(z)
            used = [(z, noise)]
            if self.posterior_draws == "independent" and index > 0:
                above_prior, noise = draw(_FOR_PRIOR_BELOW)
                used = [*used, (above_prior, noise)] if is_read else [(above_prior, noise)]
                # What the posterior below reads is no latent of the generative model, only noise
                # that the approximate posterior is made with.
                above_posterior, _ = draw(_FOR_POSTERIOR_BELOW)
            draws.append(tuple(z for z, _ in used))
            noises.append(tuple(noise for _, noise in used))
        return Latents(
            priors=priors[::-1],
            posteriors=posteriors[::-1] if d_posterior is not None else None,
            draws=draws[::-1],
            noise=noises[::-1],
            # Concatenated from the topmost down, as released.
            read=tf.concat(read, axis=-1),
        )

    def _terms(
        self, drawn: Latents, outputs: tf.Tensor, x: tf.Tensor, mask: tf.Tensor
    ) -> ScoreTerms:
        """The terms of the bound from what the posterior drew and the output layers made of it."""
        log_likelihood = self.observation.log_prob(self.observation(outputs), x)
        log_weight = log_likelihood
        kl_per_unit = []
        unit = tfd.Normal(0.0, 1.0)
        for layer, q, p, draws, noises in zip(
            self.latent_layers,
            drawn.posteriors,
            drawn.priors,
            drawn.draws,
            drawn.noise,
            strict=True,
        ):
            kl = layer.kl_divergence(q, p)
            kl_per_unit.append(tf.where(mask[..., tf.newaxis], kl, 0.0))
            for z, noise in zip(draws, noises, strict=True):
                # log q from the noise: a narrow q (Eq. 11 goes down to sigma 5e-7) around a mean of
                # 1 or more is told from z only as far as float32 resolves it.
                log_q = unit.log_prob(noise) - tf.math.log(q.scale)
                log_weight += tf.reduce_sum(p.log_prob(z) - log_q, axis=-1)
        return ScoreTerms(
            log_likelihood=tf.where(mask, log_likelihood, 0.0),
            kl=tf.stack([tf.reduce_sum(kl, axis=-1) for kl in kl_per_unit], axis=-1),
            kl_per_unit=tuple(kl_per_unit),
            log_weight=tf.where(mask, log_weight, 0.0),
        )


def _as_seed(seed: Seed) -> tf.Tensor:
    return tf.convert_to_tensor(seed, tf.int32)
