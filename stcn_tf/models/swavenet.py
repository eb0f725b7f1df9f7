"""SWaveNet (Lai et al., "Stochastic WaveNet", 2018).

    v = ReLU(e(x_{t-1})), s = M(v); deterministic blocks: v = G(v), s += M(v);
    layer l = 1, ..., L: n = G(v), z^l ~ N(M(n)), s += M([n, z^l]), v = M([n, z^l]);
    x_t ~ heads(1x1(ReLU(1x1(ReLU(s)))))

G is a gated block of dilation 1, 2, 4, ... over all blocks, so z^l reaches later steps of the
layers above. The approximate posterior of z^l reads n and what blocks that look ahead, the largest
dilation first, have made of e(x_t): it sees the future, the lowest layer farthest.

Means and log variances of priors are clipped to [-8, 8], those of posteriors from above alone, as
released. What the authors' program computes and does not use (the last v) is left out. As
everywhere here a zero frame comes before x_1, which is scored (theirs gives x_1), nothing reads
padding, and the heads are the observation's.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf import noise
from stcn_tf.layers.base import at_ends
from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.swavenet import Mixer, NormedBlock
from stcn_tf.models.base import DrawnLayer, Encoded, SequenceModel, State, sequence_mask, terms_of
from stcn_tf.models.recurrent import joined
from stcn_tf.seeds import Stream

tfd = tfp.distributions

_BOUND = 8.0  # of means and log variances


class EncoderState(NamedTuple):
    """The past that no latent touches."""

    previous: tf.Tensor  # [batch, 1, features], the last frame; zeros before the first one
    blocks: tuple[Any, ...]  # of the deterministic blocks and of the first stochastic layer


class EncodedSteps(NamedTuple):
    """What no latent touches, [batch, steps, channels] each."""

    skips: tf.Tensor  # s before the first stochastic layer
    first: tf.Tensor  # n of that layer
    ahead: tuple[tf.Tensor, ...]  # what the posterior of each layer reads of the future


class SWaveNet(SequenceModel):
    """SWaveNet.

    Args:
        observation: the observation heads, not built.
        num_filters: channels of all blocks.
        deterministic_blocks: blocks below the stochastic layers.
        latent_sizes: units of z^1, ..., z^L.
        mixer_units: of the hidden layer of M; 0: none, M is a ReLU and a linear map.
        gate: "sigmoid", or "linear" as released.
        compute_dtype: policy of the convolutions, "float32" or "mixed_bfloat16".
        **kwargs: `name` of `keras.Model`.

    Raises:
        ValueError: `gate` is neither.
    """

    does_smooth = True
    uses_batch_statistics = True

    def __init__(
        self,
        *,
        observation: Observation,
        num_filters: int,
        deterministic_blocks: int,
        latent_sizes: tuple[int, ...],
        mixer_units: int,
        gate: str = "sigmoid",
        compute_dtype: str = "float32",
        **kwargs,
    ):
        super().__init__(**{"name": "swavenet", **kwargs, "dtype": "float32"})
        policy = keras.DTypePolicy(compute_dtype)
        self.latent_sizes = tuple(latent_sizes)
        self.elbo_kl_weights = (1.0,) * len(self.latent_sizes)
        self.do_latents_reach_across_steps = len(self.latent_sizes) > 1
        self.deterministic_blocks = deterministic_blocks
        layers = range(1, len(self.latent_sizes) + 1)

        def mixer(filters, name, dtype=policy):
            return Mixer(filters, mixer_units, name=name, dtype=dtype)

        def block(index, name):
            return NormedBlock(num_filters, 2**index, gate, name=name, dtype=policy)

        self.embedding = CausalConv(num_filters, name="e", dtype=policy)
        blocks = deterministic_blocks + len(self.latent_sizes)
        self.blocks = [block(i, f"block_{i:02d}") for i in range(blocks)]
        self.skip_mixers = [
            mixer(num_filters, f"skip_{i:02d}") for i in range(blocks + 1)
        ]  # of v, then of every block
        self.next_mixers = [mixer(num_filters, f"next_{i}") for i in layers[:-1]]
        self.prior_mixers, self.posterior_mixers = (
            [
                mixer(2 * units, f"{name}_{i}", "float32")
                for i, units in zip(layers, self.latent_sizes, strict=True)
            ]
            for name in ("prior", "posterior")
        )
        self.ahead_blocks = [block(deterministic_blocks + i - 1, f"ahead_{i}") for i in layers]
        self.ahead_mixers = [mixer(num_filters, f"beta_{i}") for i in layers]
        self.output_layers = [
            CausalConv(num_filters, name=f"output_{i}", dtype=policy) for i in (0, 1)
        ]
        self.observation = observation

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        filters, below = self.embedding.filters, self.deterministic_blocks
        self.embedding.build((None, None, self.num_features))
        latents = (0,) * (below + 1) + self.latent_sizes
        shapes = [(layer, filters) for layer in (*self.blocks, *self.ahead_blocks)]
        shapes += [(m, filters + z) for m, z in zip(self.skip_mixers, latents, strict=True)]
        shapes += zip(self.next_mixers, [filters + z for z in self.latent_sizes], strict=False)
        shapes += [(mixer, filters) for mixer in self.prior_mixers]
        shapes += [(mixer, 2 * filters) for mixer in (*self.posterior_mixers, *self.ahead_mixers)]
        shapes += [(layer, filters) for layer in (*self.output_layers, self.observation)]
        for layer, channels in shapes:
            layer.build((None, None, channels))
        self.built = True

    def start(self, batch_size: tf.Tensor | int) -> State:
        """See `SequenceModel.start`: a zero frame comes before the first one."""
        states = [block.initial_state(batch_size) for block in self.blocks]
        with_latents = self.deterministic_blocks + 1
        return State(
            row=tf.range(batch_size),
            step=tf.zeros([batch_size], tf.int32),
            encoder=EncoderState(
                tf.zeros([batch_size, 1, self.num_features]), tuple(states[:with_latents])
            ),
            latent=tuple(states[with_latents:]),
        )

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """See `SequenceModel.encode`: up to the first latent, and what posteriors see ahead."""
        frames = tf.concat([state.encoder.previous, x], axis=1)
        features, _ = self.embedding(frames, ())
        skips, first, blocks = self._below(features[:, :-1], state.encoder.blocks, lengths)
        ahead = self._ahead(features[:, 1:], lengths)
        steps = EncodedSteps(skips, first, ahead)
        return Encoded(steps, EncoderState(at_ends(frames, lengths), blocks))

    def observe(self, encoded, x, lengths, state, seed=(0, 0), temperature=1.0):
        """See `SequenceModel.observe`."""
        steps: EncodedSteps = encoded.steps
        read, layers, latent = self._latents(
            steps.skips, steps.first, steps.ahead, state, lengths, x, seed, temperature
        )
        terms = terms_of(
            self.observation, self._predicted(read), x, sequence_mask(lengths, x), layers
        )
        return terms, state._replace(
            step=state.step + lengths, encoder=encoded.state, latent=latent
        )

    def predict_next(self, state, seed=(0, 0), temperature=1.0):
        """See `SequenceModel.predict_next`."""
        previous = state.encoder.previous
        features, _ = self.embedding(previous, ())
        skips, first, blocks = self._below(features, state.encoder.blocks, None)
        read, _, latent = self._latents(
            skips, first, None, state, None, previous, seed, temperature
        )
        encoder = EncoderState(previous, blocks)
        return self._predicted(read), state._replace(encoder=encoder, latent=latent)

    def advance(self, pending: State, x: tf.Tensor) -> State:
        """See `SequenceModel.advance`."""
        return pending._replace(step=pending.step + 1, encoder=pending.encoder._replace(previous=x))

    def _below(self, features: tf.Tensor, states, lengths):
        """S before the first stochastic layer, n of that layer, and the blocks' states."""
        v = tf.nn.relu(features)
        skips, _ = self.skip_mixers[0](v)
        after = []
        for index, state in enumerate(states):
            v, state = self.blocks[index](v, state, lengths)
            after.append(state)
            if index < self.deterministic_blocks:
                skips += self.skip_mixers[index + 1](v)[0]
        return skips, v, tuple(after)

    def _ahead(self, features: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """For each layer, lowest first, what is seen from its step on; in reversed time inside."""
        features = tf.reverse_sequence(features, lengths, seq_axis=1)
        v, ahead = features, []
        for block, mixer in zip(self.ahead_blocks[::-1], self.ahead_mixers[::-1], strict=True):
            v, _ = block(v, block.initial_state(tf.shape(v)[0]), lengths)
            beta, _ = mixer(joined(v, features))
            ahead.append(tf.reverse_sequence(beta, lengths, seq_axis=1))
        return tuple(ahead[::-1])

    def _latents(self, skips, n, ahead, state, lengths, x, seed, temperature):
        """What the output reads, the latents from the posterior (`ahead`) or the prior, states."""
        places, seed = self.places_of(state, x), noise.fold_in(seed, Stream.LATENTS)
        standard = noise.standard_normal(seed, places, sum(self.latent_sizes))
        standard = tf.split(temperature * standard, self.latent_sizes, axis=-1)
        layers, after = [], []
        for index, normal in enumerate(standard):
            below = self.deterministic_blocks + index
            if index:
                n, block_state = self.blocks[below](n, state.latent[index - 1], lengths)
                after.append(block_state)
            prior = _gaussian(self.prior_mixers[index](n)[0], -_BOUND)
            source = prior
            if ahead is not None:
                read = joined(n, ahead[index])
                source = _gaussian(self.posterior_mixers[index](read)[0], None)
            z = source.loc + source.scale * normal
            if ahead is not None:
                layers.append(DrawnLayer(source, prior, ((z, normal),)))
            read = joined(n, z)
            skips += self.skip_mixers[below + 1](read)[0]
            if index < len(self.next_mixers):
                n, _ = self.next_mixers[index](read)
        return skips, layers, tuple(after)

    def _predicted(self, read: tf.Tensor):
        for layer in self.output_layers:
            read, _ = layer(tf.nn.relu(read), ())
        return self.observation(read)[0]


def _gaussian(numbers: tf.Tensor, low: float | None) -> tfd.Normal:
    """Mean and log variance side by side, clipped."""
    numbers = tf.minimum(tf.cast(numbers, tf.float32), _BOUND)
    if low is not None:
        numbers = tf.maximum(numbers, low)
    mean, log_variance = tf.split(numbers, 2, axis=-1)
    return tfd.Normal(mean, tf.exp(0.5 * log_variance))
