"""STCN as its equations stand, written down plainly: what the model here is timed against.

Filter and gate are separate convolutions, mean and sigma separate networks that read [d, z], and a
generated step computes the whole window of past frames anew, as programs without a memory do. The
weights are those of a model, so the results must be the same.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf import noise
from stcn_tf.layers.gaussian import MAX_SIGMA, MIN_SIGMA, GaussianNetwork
from stcn_tf.layers.observation import Observation, ObservationParameters
from stcn_tf.models.stcn import STCN
from stcn_tf.noise import Places, Seed
from stcn_tf.seeds import Stream

tfd = tfp.distributions


class Transcription:
    """The equations of the paper with the weights of a model.

    Args:
        model: built, in float32, with 1x1 output layers and shared draws.
    """

    def __init__(self, model: STCN):
        self.model = model

    def elbo(self, x: tf.Tensor, lengths: tf.Tensor, seed: Seed) -> tf.Tensor:
        """[batch]: Eq. 14 for [batch, time, features], summed over each sequence, nats."""
        d = self._stack(tf.pad(x, [[0, 0], [1, 0], [0, 0]]), None)
        places = Places(tf.range(tf.shape(x)[0]), tf.zeros_like(x[..., 0], tf.int32) + _range(x))
        priors, posteriors, read = self._latents(
            [d_l[:, :-1] for d_l in d], [d_l[:, 1:] for d_l in d], places, seed
        )
        terms = self.model.observation.log_prob(self._heads(read), x)
        for q, p in zip(posteriors, priors, strict=True):
            terms -= tf.reduce_sum(tfd.kl_divergence(q, p), axis=-1)
        return tf.reduce_sum(tf.where(tf.sequence_mask(lengths, tf.shape(x)[1]), terms, 0.0), 1)

    def generate(self, num: int, length: int, seed: Seed) -> tf.Tensor:
        """[num, length, features]: every step from the frames that it can see."""
        model = self.model
        size = model.receptive_field
        window = tf.zeros([num, size, model.num_features])
        frames = tf.TensorArray(tf.float32, length)

        def body(t, window, frames):
            is_there = tf.cast(tf.range(size) >= size - 1 - t, tf.float32)  # the zero frame too
            d = self._stack(window, is_there[:, tf.newaxis])
            places = Places(tf.range(num), tf.fill([num, 1], t))
            _, _, read = self._latents([d_l[:, -1:] for d_l in d], None, places, seed)
            x = model.observation.sample(
                self._heads(read), noise.fold_in(seed, Stream.OBSERVATION), places
            )
            window = tf.concat([window[:, 1:], x], axis=1)
            return t + 1, window, frames.write(t, x[:, 0])

        _, _, frames = tf.while_loop(lambda t, *_: t < length, body, (0, window, frames))
        return tf.transpose(frames.stack(), [1, 0, 2])

    def _stack(self, hidden: tf.Tensor, is_there: tf.Tensor | None) -> list[tf.Tensor]:
        """d^1, ..., d^L (Eq. 1 and 2); `is_there` is 0 for positions before the first frame."""
        d = []
        for block in self.model.stack.blocks:
            if is_there is not None:
                hidden *= is_there
            filtered = tf.tanh(_convolved(block.filter_conv, hidden))
            gate = tf.sigmoid(_convolved(block.gate_conv, hidden))
            carried = hidden
            if block.residual_conv:
                carried = _convolved(block.residual_conv, hidden)
            hidden = _convolved(block.output_conv, filtered * gate) + carried
            d.append(hidden)
        every = self.model.blocks_per_layer
        return d[every - 1 :: every]

    def _latents(self, d_prior, d_posterior, places: Places, seed: Seed):
        """Priors, posteriors and what the output reads (Eq. 7 to 12), from the topmost down."""
        model = self.model
        standard = noise.standard_normal(
            noise.fold_in(seed, Stream.LATENTS), places, sum(model.latent_sizes)
        )
        standard = tf.split(standard, model.latent_sizes, axis=-1)
        priors, posteriors, draws = [], [], []
        for index in reversed(range(len(model.latent_sizes))):
            layer = model.latent_layers[index]
            above = draws[-1:]
            source = _normal(layer.prior_network, [d_prior[index], *above])
            priors.append(source)
            if d_posterior is not None:
                estimate = _normal(layer.posterior_network, [d_posterior[index], *above])
                total = estimate.scale**-2 + source.scale**-2
                mean = (estimate.loc * estimate.scale**-2 + source.loc * source.scale**-2) / total
                is_std = layer.posterior_scale == "std"
                source = tfd.Normal(mean, 1.0 / total if is_std else total**-0.5)
                posteriors.append(source)
            draws.append(source.loc + source.scale * standard[index])
        return priors, posteriors, tf.concat(draws if model.dense else draws[-1:], axis=-1)

    def _heads(self, read: tf.Tensor) -> ObservationParameters:
        for layer in self.model.output_layers:
            read = tf.nn.relu(_convolved(layer, read))
        observation: Observation = self.model.observation
        return observation(read)[0]


def _range(x: tf.Tensor) -> tf.Tensor:
    return tf.range(tf.shape(x)[1])


def _convolved(conv, inputs: tf.Tensor) -> tf.Tensor:
    """A causal convolution, one tap after the other."""
    taps = conv.kernel.shape[0]
    total = tf.convert_to_tensor(conv.bias)
    for tap in range(taps):
        shift = (taps - 1 - tap) * conv.dilation
        earlier = tf.pad(inputs, [[0, 0], [shift, 0], [0, 0]])[:, : tf.shape(inputs)[1]]
        total += tf.einsum("btc,cf->btf", earlier, conv.kernel[tap])
    return total


def _normal(network: GaussianNetwork, inputs: list[tf.Tensor]) -> tfd.Normal:
    results = []
    for layers in (network.mean_layers, network.sigma_layers):
        hidden = tf.concat(inputs, axis=-1)
        for layer in layers[:-1]:
            hidden = tf.nn.relu(_convolved(layer, hidden))
        results.append(_convolved(layers[-1], hidden))
    mean, sigma = results
    return tfd.Normal(mean, tf.clip_by_value(tf.nn.softplus(sigma), MIN_SIGMA, MAX_SIGMA))
