"""STCN and STCN-dense (Aksan & Hilliges, ICLR 2019): Figures 1, 2 and 5, Eq. 7 to 17.

The deterministic stack summarises the past at several time-scales; one latent variable for each
scale is drawn from the top of the hierarchy down; the lowest (STCN) or all of them (STCN-dense)
predict the next frame.

Where paper and released program differ, both are here, each a named option of the constructor:
`posterior_draws` (the paper's text: shared; released: independent) and `posterior_precision` (Eq.
11 as printed: std; the ladder VAE's: variance).
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.layers.latent import LatentLayer
from stcn_tf.layers.observation import Observation, ObservationParameters
from stcn_tf.layers.wavenet import WavenetStack
from stcn_tf.models.base import ScoreTerms, Seed, SequenceModel, sequence_mask

tfd = tfp.distributions

# Streams of the latent noise, folded into the seed. With shared draws only the first is used.
_FOR_OUTPUT, _FOR_PRIOR_BELOW, _FOR_POSTERIOR_BELOW = range(3)


class STCNOutput(NamedTuple):
    """What one pass over a sequence gives; lists go from layer 1 (lowest) to L."""

    parameters: ObservationParameters  # of p(x_t | z_t)
    priors: list[tfd.Normal]  # [batch, time, units of layer l]
    posteriors: list[tfd.Normal] | None  # the same; None where latents came from the prior


class STCN(SequenceModel):
    """STCN, and with `dense` STCN-dense.

    Args:
        num_real: real-valued features of x, which come first.
        num_binary: binary features of x.
        num_components: components of the observation's GMM; 1: a Normal.
        num_filters: filters of the stack and of the latent networks.
        kernel_size: taps of the dilated convolutions.
        blocks_per_layer: K, Wavenet blocks for each latent layer, dilations 1, 2, ..., 2^(K-1).
        latent_sizes: units of z^1, ..., z^L.
        latent_hidden_layers: hidden layers of each latent network.
        output_layers: 1x1 convolutions with ReLU between latents and heads.
        output_filters: their filters.
        dense: all latents reach the output (STCN-dense) or z^1 alone (STCN).
        posterior_draws: "shared": one draw of each z^l for every use; "independent": one for each
            use, as released.
        posterior_precision: "std" or "variance", see `LatentLayer`.
        compute_dtype: policy of the convolutions, "float32" or "mixed_bfloat16".
        **kwargs: `name` of `keras.Model`.

    Raises:
        ValueError: an option has another value than those named here.
    """

    def __init__(
        self,
        *,
        num_real: int,
        num_binary: int,
        num_components: int,
        num_filters: int,
        kernel_size: int,
        blocks_per_layer: int,
        latent_sizes: Sequence[int],
        latent_hidden_layers: int,
        output_layers: int,
        output_filters: int,
        dense: bool,
        posterior_draws: str = "shared",
        posterior_precision: str = "std",
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
        num_layers = len(latent_sizes)
        self.stack = WavenetStack(
            num_filters,
            kernel_size,
            [2**k for k in range(blocks_per_layer)] * num_layers,
            name="stack",
            dtype=policy,
        )
        self.latent_layers = [
            LatentLayer(
                units,
                num_filters,
                latent_hidden_layers,
                posterior_precision,
                name=f"latent_{layer}",
                dtype=policy,
            )
            for layer, units in enumerate(latent_sizes, start=1)
        ]
        self.output_layers = [
            CausalConv(output_filters, activation="relu", name=f"output_{i}", dtype=policy)
            for i in range(output_layers)
        ]
        self.observation = Observation(num_real, num_binary, num_components, name="observation")
        # With independent draws the dense model has two latents per layer above the lowest, one
        # read by the output and one by the prior below; a bound must pay for both.
        above = 2.0 if dense and posterior_draws == "independent" else 1.0
        self.elbo_kl_weights = (1.0,) + (above,) * (num_layers - 1)

    @property
    def receptive_field(self) -> int:
        """Past frames that the prediction of x_t can see."""
        return self.stack.receptive_field

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        self.stack.build((None, None, self.num_features))
        units_above = 0
        for layer in reversed(self.latent_layers):
            layer.build((None, None, self.stack.filters + units_above))
            units_above = layer.units
        read = self.latent_layers if self.dense else self.latent_layers[:1]
        channels = sum(layer.units for layer in read)
        for layer in self.output_layers:
            layer.build((None, None, channels))
            channels = layer.filters
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
        # The one-step shift: a zero frame in front, so that d[:, t] has seen x_1, ..., x_t and
        # d[:, t - 1], which has not seen x_t, feeds the prior of z_t.
        d = self._layers_of(self.stack(tf.pad(x, [[0, 0], [1, 0], [0, 0]])))
        d_prior = [d_l[:, :-1] for d_l in d]
        d_posterior = [d_l[:, 1:] for d_l in d] if latents == "posterior" else None
        return self._top_down(d_prior, d_posterior, seed, temperature)

    def score(
        self, x: tf.Tensor, lengths: tf.Tensor, seed: Seed = (0, 0), noise: str = "sample"
    ) -> ScoreTerms:
        """See `SequenceModel.score`. The bound is Eq. 14, its terms Eq. 15 and Eq. 16 or 17.

        Raises:
            ValueError: `noise` is neither "sample" nor "zero".
        """
        if noise not in ("sample", "zero"):
            raise ValueError(f"noise must be 'sample' or 'zero', got {noise!r}")
        x = tf.convert_to_tensor(x, tf.float32)
        output = self.call(x, seed, temperature=1.0 if noise == "sample" else 0.0)
        mask = sequence_mask(lengths, x)
        log_likelihood = self.observation.log_prob(output.parameters, x)
        kl_per_unit = tuple(
            tf.where(mask[..., tf.newaxis], tfd.kl_divergence(q, p), 0.0)
            for q, p in zip(output.posteriors, output.priors, strict=True)
        )
        return ScoreTerms(
            log_likelihood=tf.where(mask, log_likelihood, 0.0),
            kl=tf.stack([tf.reduce_sum(kl, axis=-1) for kl in kl_per_unit], axis=-1),
            kl_per_unit=kl_per_unit,
        )

    def reconstruct(self, x: tf.Tensor, seed: Seed = (0, 0)) -> ObservationParameters:
        """See `SequenceModel.reconstruct`."""
        return self.call(x, seed).parameters

    def initial_state(self, batch_size: tf.Tensor | int):
        """See `SequenceModel.initial_state`."""
        return self.stack.initial_state(batch_size)

    def predict_step(self, previous, state, seed, temperature=1.0):
        """See `SequenceModel.predict_step`."""
        outputs, state = self.stack.step(previous, state)
        d = [d_l[:, tf.newaxis] for d_l in self._layers_of(outputs)]
        return self._top_down(d, None, seed, temperature).parameters, state

    def _layers_of(self, outputs) -> list[tf.Tensor]:
        """d^1, ..., d^L: the residual output of the last block of each group of K blocks."""
        return [
            output.residual
            for output in outputs[self.blocks_per_layer - 1 :: self.blocks_per_layer]
        ]

    def _top_down(
        self,
        d_prior: list[tf.Tensor],
        d_posterior: list[tf.Tensor] | None,
        seed: Seed,
        temperature: tf.Tensor | float,
    ) -> STCNOutput:
        """Draws z^L, ..., z^1 and predicts x (Figure 2). Lists go from layer 1 to L.

        `d_posterior` None: the latents are drawn from the prior (Eq. 7), else from the approximate
        posterior (Eq. 12), into whose layers the same code feeds what that draw's use asks for.
        """
        num_layers = len(self.latent_layers)
        priors, posteriors, drawn = [], [], []  # topmost first
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
                noise = tf.transpose(noise, [1, 0, 2])
                return source.loc + temperature * source.scale * noise

            z = above_prior = above_posterior = draw(_FOR_OUTPUT)
            if self.posterior_draws == "independent" and index > 0:
                above_prior = draw(_FOR_PRIOR_BELOW)
                above_posterior = draw(_FOR_POSTERIOR_BELOW)
            drawn.append(z)
        # Concatenated from the topmost down, as released.
        outputs = tf.concat(drawn, axis=-1) if self.dense else drawn[-1]
        for layer in self.output_layers:
            outputs = layer(outputs)
        return STCNOutput(
            parameters=self.observation(outputs),
            priors=priors[::-1],
            posteriors=posteriors[::-1] if d_posterior is not None else None,
        )


def _as_seed(seed: Seed) -> tf.Tensor:
    return tf.convert_to_tensor(seed, tf.int32)
