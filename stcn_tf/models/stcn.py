"""STCN and STCN-dense (Aksan & Hilliges, ICLR 2019): Figures 1, 2 and 5, Eq. 7 to 17.

The deterministic stack summarises the past at several time-scales; one latent variable for each
scale is drawn from the top of the hierarchy down; the lowest (STCN) or all of them (STCN-dense)
predict the next frame.

One draw of each latent serves every use, as the paper says. What the authors' program does
otherwise is in `stcn_tf.released`. Eq. 11 as printed and as in the ladder VAE are both here
(`posterior_scale`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf import noise
from stcn_tf.layers import serial
from stcn_tf.layers.base import State as LayerState
from stcn_tf.layers.base import at_ends
from stcn_tf.layers.gaussian import LatentLayer
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.wavenet import WavenetOutput, WavenetStack
from stcn_tf.models.base import (
    DrawnLayer,
    Encoded,
    SequenceModel,
    State,
    sequence_mask,
    terms_of,
)
from stcn_tf.noise import Seed
from stcn_tf.seeds import Stream

tfd = tfp.distributions


class Draw(NamedTuple):
    """One layer's latent variable: who reads what."""

    output: tf.Tensor  # [batch, steps, units], for the output layers
    prior_below: tf.Tensor  # the same, for the prior of the layer below
    posterior_below: tf.Tensor  # the same, for its posterior
    # The latents of the generative model among them, each with the standard normal noise that it
    # was made from.
    latents: tuple[tuple[tf.Tensor, tf.Tensor], ...]


class Latents(NamedTuple):
    """The latent variables of a block; lists go from layer 1 (lowest) to L."""

    priors: list[tfd.Normal]  # [batch, steps, units of layer l]
    posteriors: list[tfd.Normal] | None  # the same; None where latents came from the prior
    draws: list[Draw]
    read: tf.Tensor  # [batch, steps, units], what the output layers read


class EncodedSteps(NamedTuple):
    """What the latent networks have made of the stack (`GaussianNetwork.begin`), from 1 to L."""

    prior: list[tuple[tf.Tensor, tf.Tensor]]  # of d_{t-1}^l at position t
    posterior: list[tuple[tf.Tensor, tf.Tensor]]  # of d_t^l at position t


class EncoderState(NamedTuple):
    """The deterministic past of each sequence."""

    previous: tf.Tensor  # [batch, 1, features], the last frame; zeros before the first one
    stack: LayerState  # before it has read that frame


class STCN(SequenceModel):
    """STCN, and with `dense` STCN-dense.

    Args:
        observation: the observation heads, not built.
        num_filters: filters of the stack and of the latent networks.
        kernel_size: taps of the dilated convolutions.
        blocks_per_layer: K, Wavenet blocks for each latent layer.
        dilations: of the Wavenet blocks, lowest first, over and over; empty: 1, 2, ..., 2^(K-1).
        latent_sizes: units of z^1, ..., z^L.
        latent_hidden_layers: hidden layers of each latent network.
        latent_filters: filters of the hidden layers; 0: as many as `num_filters`.
        output_layers: output layers between latents and heads.
        output_filters: their filters.
        output_type: "conv1x1" or "wavenet", see `serial.make_output_layers`. With Wavenet output
            layers the prediction of x_t reads latents of earlier steps, too.
        output_kernel_size: taps of Wavenet output layers.
        dense: all latents reach the output (STCN-dense) or z^1 alone (STCN).
        posterior_scale: "std" or "variance", see `LatentLayer`.
        latent_prior: "dynamic": every prior reads the past (Eq. 8); "unit_top": that of z^L is
            N(0, I); "static": that, and the others read z^{l+1} alone (as in the ladder VAE): then
            only the posterior knows of the past, and what is generated does not.
        latent_recursion: whether z^l reads z^{l+1}; without, layers are independent given the past
            (with static priors: N(0, I) all), and it is only the output that joins them.
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
        posterior_scale: str = "std",
        latent_prior: str = "dynamic",
        latent_recursion: bool = True,
        compute_dtype: str = "float32",
        **kwargs,
    ):
        # x itself must stay float32: only the convolutions compute in `compute_dtype`.
        super().__init__(**{"name": "stcn", **kwargs, "dtype": "float32"})
        self.blocks_per_layer = blocks_per_layer
        self.dense = dense
        self.latent_sizes = tuple(latent_sizes)
        self.elbo_kl_weights = (1.0,) * len(self.latent_sizes)
        policy = keras.DTypePolicy(compute_dtype)
        pattern = tuple(dilations) or tuple(2**k for k in range(blocks_per_layer))
        num_blocks = blocks_per_layer * len(self.latent_sizes)
        self.stack = WavenetStack(
            num_filters,
            kernel_size,
            [pattern[block % len(pattern)] for block in range(num_blocks)],
            name="stack",
            dtype=policy,
        )
        if latent_prior not in ("dynamic", "unit_top", "static"):
            raise ValueError(
                f"latent_prior must be 'dynamic', 'unit_top' or 'static', got {latent_prior!r}"
            )
        self.latent_layers = []
        for layer, units in enumerate(self.latent_sizes, start=1):
            is_top = layer == len(self.latent_sizes)
            units_above = 0 if is_top or not latent_recursion else self.latent_sizes[layer]
            prior_kind = "dynamic"
            if latent_prior == "static":
                prior_kind = "static" if units_above else "unit"
            elif latent_prior == "unit_top" and is_top:
                prior_kind = "unit"
            self.latent_layers.append(
                LatentLayer(
                    units,
                    latent_filters or num_filters,
                    latent_hidden_layers,
                    posterior_scale,
                    prior_kind,
                    units_above,
                    name=f"latent_{layer}",
                    dtype=policy,
                )
            )
        self.output_layers = serial.make_output_layers(
            output_type, output_layers, output_filters, output_kernel_size, policy
        )
        self.do_latents_reach_across_steps = any(layer.memory for layer in self.output_layers)
        self.observation = observation

    @property
    def receptive_field(self) -> int:
        """See `SequenceModel`."""
        return self.stack.receptive_field + sum(layer.memory for layer in self.output_layers)

    @property
    def latent_receptive_fields(self) -> tuple[int, ...]:
        """See `SequenceModel`: what d_{t-1}^l has seen (Eq. 8)."""
        memories = [block.memory for block in self.stack.blocks]
        ends = range(self.blocks_per_layer, len(memories) + 1, self.blocks_per_layer)
        return tuple(1 + sum(memories[:end]) for end in ends)

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        self.stack.build((None, None, self.num_features))
        for layer in reversed(self.latent_layers):
            layer.build((None, None, self.stack.filters))
        read = self.latent_layers if self.dense else self.latent_layers[:1]
        channels = serial.build(self.output_layers, sum(layer.units for layer in read))
        self.observation.build((None, None, channels))
        self.built = True

    def start(self, batch_size: tf.Tensor | int) -> State:
        """See `SequenceModel.start`: a zero frame comes before the first one."""
        return State(
            row=tf.range(batch_size),
            step=tf.zeros([batch_size], tf.int32),
            encoder=EncoderState(
                previous=tf.zeros([batch_size, 1, self.num_features]),
                stack=self.stack.initial_state(batch_size),
            ),
            latent=serial.initial_state(self.output_layers, batch_size),
        )

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """See `SequenceModel.encode`: the deterministic stack, and what networks make of it."""
        # The one-step shift: with the last frame in front, d[:, t + 1] has seen x_t and d[:, t],
        # which has not, feeds the prior of z_t.
        frames = tf.concat([state.encoder.previous, x], axis=1)
        outputs, stack_state = self.stack(frames, state.encoder.stack, lengths)
        layers = list(zip(self.latent_layers, self._layers_of(outputs), strict=True))
        return Encoded(
            EncodedSteps(
                [layer.begin_prior(d[:, :-1]) for layer, d in layers],
                [layer.begin_posterior(d[:, 1:]) for layer, d in layers],
            ),
            EncoderState(at_ends(frames, lengths), stack_state),
        )

    def observe(self, encoded, x, lengths, state, seed=(0, 0), temperature=1.0):
        """See `SequenceModel.observe`. The bound is Eq. 14, its terms Eq. 15 and Eq. 16 or 17."""
        places = self.places_of(state, x)
        latents = self.draw_latents(*encoded.steps, places, seed, temperature)
        outputs, latent_state = serial.run(self.output_layers, latents.read, state.latent, lengths)
        parameters, _ = self.observation(outputs)
        terms = terms_of(
            self.observation,
            parameters,
            x,
            sequence_mask(lengths, x),
            [
                DrawnLayer(q, p, draw.latents)
                for q, p, draw in zip(
                    latents.posteriors, latents.priors, latents.draws, strict=True
                )
            ],
            kl_divergence=self._kl_divergence,
        )
        return terms, state._replace(
            step=state.step + lengths, encoder=encoded.state, latent=latent_state
        )

    def predict_next(self, state, seed=(0, 0), temperature=1.0):
        """See `SequenceModel.predict_next`."""
        previous, stack_state = state.encoder
        outputs, stack_state = self.stack(previous, stack_state)
        places = self.places_of(state, previous)
        begun = [
            layer.begin_prior(d)
            for layer, d in zip(self.latent_layers, self._layers_of(outputs), strict=True)
        ]
        latents = self.draw_latents(begun, None, places, seed, temperature)
        outputs, latent_state = serial.run(self.output_layers, latents.read, state.latent)
        parameters, _ = self.observation(outputs)
        return parameters, state._replace(
            encoder=EncoderState(previous, stack_state), latent=latent_state
        )

    def advance(self, pending: State, x: tf.Tensor) -> State:
        """See `SequenceModel.advance`."""
        return pending._replace(step=pending.step + 1, encoder=pending.encoder._replace(previous=x))

    def _layers_of(self, outputs: list[WavenetOutput]) -> list[tf.Tensor]:
        """d^1, ..., d^L: the residual output of the last block of each group of K blocks."""
        return [
            block.residual for block in outputs[self.blocks_per_layer - 1 :: self.blocks_per_layer]
        ]

    def draw_latents(
        self,
        of_prior: list[tuple[tf.Tensor, tf.Tensor]],
        of_posterior: list[tuple[tf.Tensor, tf.Tensor]] | None,
        places: noise.Places,
        seed: Seed,
        temperature: tf.Tensor | float,
    ) -> Latents:
        """Draws z^L, ..., z^1 (Figure 2).

        Args:
            of_prior: `EncodedSteps.prior`.
            of_posterior: `EncodedSteps.posterior`: the latents are drawn from the approximate
                posterior (Eq. 12); None: from the prior (Eq. 7).
            places: of the steps, see `places_of`.
            seed: of the noise.
            temperature: multiplies the noise.
        """
        noise_of_layers = self._latent_noise(seed, places, temperature)
        priors, posteriors, draws = [], [], []  # topmost first
        above = None
        for index in reversed(range(len(self.latent_layers))):
            layer = self.latent_layers[index]
            if not layer.units_above:
                above = None
            # Eq. 8: p(z^l | z^{l+1}, d_{t-1}^l).
            like = noise_of_layers[index][..., : layer.units]
            source = layer.prior(of_prior[index], above and above.prior_below, like)
            priors.append(source)
            if of_posterior is not None:
                # Eq. 10 and 11: q(z^l | z^{l+1}, d_t^l).
                source = layer.posterior(
                    of_posterior[index], above and above.posterior_below, priors[-1]
                )
                posteriors.append(source)
            above = self._draw(source, noise_of_layers[index], is_lowest=index == 0)
            draws.append(above)
        # Eq. 9: p(x_t | z_t) reads z^1 or, dense, all of them, from the topmost down as released.
        read = [draw.output for draw in (draws if self.dense else draws[-1:])]
        return Latents(
            priors=priors[::-1],
            posteriors=posteriors[::-1] if of_posterior is not None else None,
            draws=draws[::-1],
            read=tf.concat(read, axis=-1),
        )

    @property
    def _noise_sizes(self) -> list[int]:
        """Standard normal numbers for each layer and step."""
        return list(self.latent_sizes)

    def _latent_noise(
        self, seed: Seed, places: noise.Places, temperature: tf.Tensor | float
    ) -> list[tf.Tensor]:
        """For each layer [batch, steps, numbers of the layer]."""
        sizes = self._noise_sizes
        drawn = noise.standard_normal(noise.fold_in(seed, Stream.LATENTS), places, sum(sizes))
        return tf.split(temperature * drawn, sizes, axis=-1)

    def _draw(self, source: tfd.Normal, standard: tf.Tensor, is_lowest: bool) -> Draw:
        """Draws a layer's latent variable: one draw for every use.

        Args:
            source: prior or posterior, [batch, steps, units].
            standard: [batch, steps, numbers of the layer], its standard normal noise.
            is_lowest: whether there is no layer below.
        """
        del is_lowest
        z = source.loc + source.scale * standard
        return Draw(z, z, z, ((z, standard),))

    def _kl_divergence(self, posterior: tfd.Normal, prior: tfd.Normal) -> tf.Tensor:
        """KL of the posterior from the prior, for each unit: [batch, steps, units], nats."""
        return tfd.kl_divergence(posterior, prior)
