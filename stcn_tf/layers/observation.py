"""Observation models: diagonal Normal or GMM for real values, Bernoulli for binary ones (Eq. 9)."""

from typing import NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers.base import SequenceLayer
from stcn_tf.layers.causal_conv import CausalConv

tfd = tfp.distributions

# As released; the paper does not say.
MIN_SIGMA = 1e-3
MAX_SIGMA = 50.0

# What the authors' program puts under a variance, a component's weight and a probability before it
# takes their logarithms.
_VARIANCE_FLOOR = 1e-6
_WEIGHT_FLOOR = 1e-6
_PROBABILITY_FLOOR = 1e-5


class ObservationParameters(NamedTuple):
    """Parameters of p(x_t | z_t), float32; () for the parts that a model does not have."""

    mean: tf.Tensor  # [batch, time, components, real features]
    sigma: tf.Tensor  # [batch, time, components, real features]
    component_logits: tf.Tensor  # [batch, time, components]; () for one component
    binary_logits: tf.Tensor  # [batch, time, binary features]


class Observation(SequenceLayer):
    """Linear heads and the distribution that they parametrise.

    Real features come first in x, binary ones after them; the two are independent given the
    latents. sigma = clip(softplus(.), 1e-3, 50).

    Args:
        num_real: number of real-valued features, modelled by a Gaussian or a mixture.
        num_binary: number of binary features, each a Bernoulli.
        num_components: components of the mixture, diagonal Gaussians; 1: a diagonal Normal.
        released_floors: compute logarithms with the floors of the authors' program. What is
            improbable then counts for more, so that the densities do not quite integrate to 1.
        **kwargs: `name` of `keras.layers.Layer`; everything here is float32.

    Raises:
        ValueError: there is no feature at all, or no component.
    """

    def __init__(
        self,
        num_real: int,
        num_binary: int,
        num_components: int = 1,
        released_floors: bool = False,
        **kwargs,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if num_real < 0 or num_binary < 0 or num_real + num_binary < 1:
            raise ValueError(f"need a feature; got {num_real} real and {num_binary} binary ones")
        if num_components < 1:
            raise ValueError(f"num_components must be 1 or more, got {num_components}")
        self.num_real = num_real
        self.num_binary = num_binary
        self.num_components = num_components
        self.released_floors = released_floors
        sizes = {}
        if num_real:
            sizes |= {"mean": num_real * num_components, "sigma": num_real * num_components}
            if num_components > 1:
                sizes["component"] = num_components
        if num_binary:
            sizes["binary"] = num_binary
        self.heads = {
            name: CausalConv(size, name=name, dtype="float32") for name, size in sizes.items()
        }

    def build(self, input_shape):
        for head in self.heads.values():
            head.build(input_shape)

    def call(self, inputs: tf.Tensor) -> ObservationParameters:
        """[batch, time, channels] -> the parameters of every step."""
        inputs = tf.cast(inputs, tf.float32)
        outputs = {name: head(inputs) for name, head in self.heads.items()}
        mean = sigma = ()
        if self.num_real:
            mean = self._by_component(outputs["mean"])
            sigma = tf.nn.softplus(self._by_component(outputs["sigma"]))
            sigma = tf.clip_by_value(sigma, MIN_SIGMA, MAX_SIGMA)
        return ObservationParameters(
            mean, sigma, outputs.get("component", ()), outputs.get("binary", ())
        )

    def log_prob(self, parameters: ObservationParameters, x: tf.Tensor) -> tf.Tensor:
        """Log-likelihood of x, real and binary features added.

        Args:
            parameters: of every step.
            x: [batch, time, real + binary features] float32.

        Returns:
            [batch, time], nats in the units of x.
        """
        real, binary = x[..., : self.num_real], x[..., self.num_real :]
        total = tf.zeros(tf.shape(x)[:-1])
        if self.num_real:
            total += self._log_prob_of_real(parameters, real)
        if self.num_binary:
            pen = self._log_prob_of_binary(parameters.binary_logits, binary)
            total += tf.reduce_sum(pen, axis=-1)
        return total

    def sample(
        self,
        parameters: ObservationParameters,
        seed: tf.Tensor,
        temperature: tf.Tensor | float = 1.0,
        binary_temperature: tf.Tensor | float = 1.0,
    ) -> tf.Tensor:
        """Draws x.

        Args:
            parameters: of every step.
            seed: [2] int32, stateless.
            temperature: divides the component's logits and multiplies the Gaussian's sigma; 0: the
                mean of the most probable component.
            binary_temperature: divides the logits of the binary features; 0: 1 where the
                probability exceeds 0.5, as the authors' program generates.

        Returns:
            [batch, time, real + binary features] float32.
        """
        seeds = tf.unstack(tf.random.split(seed, 3))
        parts = []
        if self.num_real:
            mean, sigma = self._choose_component(parameters, seeds[0], temperature)
            noise = tf.random.stateless_normal(tf.shape(mean), seeds[1])
            parts.append(mean + temperature * sigma * noise)
        if self.num_binary:
            logits = parameters.binary_logits
            uniform = self._uniform(tf.shape(logits), seeds[2])
            logistic = tf.math.log(uniform) - tf.math.log1p(-uniform)
            parts.append(tf.cast(logits + binary_temperature * logistic > 0, tf.float32))
        return tf.concat(parts, axis=-1)

    def most_probable(self, parameters: ObservationParameters, binarize: bool = True) -> tf.Tensor:
        """The most probable x.

        Args:
            parameters: of every step.
            binarize: give binary features as 0 or 1; False: as the probability of 1.

        Returns:
            [batch, time, real + binary features] float32: the mean of the most probable component,
            and 1 for binary features whose probability exceeds 0.5.
        """
        x = self.sample(parameters, (0, 0), temperature=0.0, binary_temperature=0.0)
        if binarize or not self.num_binary:
            return x
        return tf.concat([x[..., : self.num_real], tf.sigmoid(parameters.binary_logits)], axis=-1)

    def _by_component(self, flat: tf.Tensor) -> tf.Tensor:
        # The heads are laid out [feature, component], component fastest, as released.
        shape = tf.concat([tf.shape(flat)[:-1], [self.num_real, self.num_components]], axis=0)
        return tf.linalg.matrix_transpose(tf.reshape(flat, shape))

    def _log_prob_of_real(self, parameters: ObservationParameters, real: tf.Tensor) -> tf.Tensor:
        sigma = parameters.sigma
        if self.released_floors:
            sigma = tf.sqrt(tf.maximum(sigma**2, _VARIANCE_FLOOR))
        components = tfd.MultivariateNormalDiag(parameters.mean, sigma)
        log_probs = components.log_prob(real[..., tf.newaxis, :])
        if self.num_components == 1:
            return log_probs[..., 0]
        if self.released_floors:
            weights = tf.nn.softmax(parameters.component_logits)
            log_weights = tf.math.log(tf.maximum(weights, _WEIGHT_FLOOR))
        else:
            log_weights = tf.nn.log_softmax(parameters.component_logits)
        return tf.reduce_logsumexp(log_weights + log_probs, axis=-1)

    def _log_prob_of_binary(self, logits: tf.Tensor, binary: tf.Tensor) -> tf.Tensor:
        if self.released_floors:
            one, zero = (
                tf.math.log(tf.maximum(tf.sigmoid(signed), _PROBABILITY_FLOOR))
                for signed in (logits, -logits)
            )
            return binary * one + (1.0 - binary) * zero
        return tfd.Bernoulli(logits=logits, dtype=tf.float32).log_prob(binary)

    def _choose_component(
        self, parameters: ObservationParameters, seed: tf.Tensor, temperature: tf.Tensor | float
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if self.num_components == 1:
            return parameters.mean[..., 0, :], parameters.sigma[..., 0, :]
        # Gumbel's argmax, with the temperature on the noise so that 0 is allowed.
        logits = parameters.component_logits
        gumbel = -tf.math.log(-tf.math.log(self._uniform(tf.shape(logits), seed)))
        chosen = tf.argmax(logits + temperature * gumbel, axis=-1, output_type=tf.int32)
        mean, sigma = (
            tf.gather(values, chosen, axis=2, batch_dims=2)
            for values in (parameters.mean, parameters.sigma)
        )
        return mean, sigma

    @staticmethod
    def _uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        # Neither 0 nor 1, whose logarithms the callers could not take.
        return tf.random.stateless_uniform(shape, seed, minval=1e-7, maxval=1.0 - 1e-7)

    def get_config(self):
        return {
            **super().get_config(),
            "num_real": self.num_real,
            "num_binary": self.num_binary,
            "num_components": self.num_components,
            "released_floors": self.released_floors,
        }
