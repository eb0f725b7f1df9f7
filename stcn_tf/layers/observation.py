"""Observation models: Normal or GMM for real values, Bernoulli for binary ones (Eq. 9).

Gaussians are diagonal, as in the paper. Two real values may be correlated instead, as those of
strokes are in Chung et al. (2015) and Lai et al. (2018), after Graves (2013).
"""

from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf import noise
from stcn_tf.layers.base import SequenceLayer, State
from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.noise import Seed
from stcn_tf.seeds import Stream

tfd = tfp.distributions

# As released; the paper does not say.
MIN_SIGMA = 1e-3
MAX_SIGMA = 50.0
# Of the number whose tanh is the correlation: so that what is left of sigma has a floor, too.
_MAX_CORRELATION_LOGIT = 5.0


class ObservationParameters(NamedTuple):
    """Parameters of p(x_t | z_t), float32; () for the parts that a model does not have."""

    mean: tf.Tensor  # [batch, time, components, real features]
    sigma: tf.Tensor  # [batch, time, components, real features]
    component_logits: tf.Tensor  # [batch, time, components]; () for one component
    binary_logits: tf.Tensor  # [batch, time, binary features]
    # [batch, time, components], of which the tanh is the correlation of the two real features.
    correlation_logits: tf.Tensor = ()


@keras.saving.register_keras_serializable("stcn_tf")
class Observation(SequenceLayer):
    """Linear heads and the distribution that they parametrise.

    Real features come first in x, binary ones after them; the two are independent given the
    latents. sigma is clipped to [1e-3, 50].

    Args:
        num_real: number of real-valued features, modelled by a Gaussian or a mixture.
        num_binary: number of binary features, each a Bernoulli.
        num_components: components of the mixture; 1: a Normal.
        is_correlated: whether each Gaussian has a correlation, of two real features; else it is
            diagonal.
        sigma_form: what the head of sigma gives. "softplus": sigma = softplus(.), as released;
            "log_variance": its log variance, as in SRNN and Z-forcing.
        **kwargs: `name` of `keras.layers.Layer`; everything here is float32.

    Attributes:
        is_density: whether `log_prob` is of densities that integrate to 1.

    Raises:
        ValueError: there is no feature at all, or no component, or a correlation of other than two,
            or `sigma_form` is neither.
    """

    is_density = True

    def __init__(
        self,
        num_real: int,
        num_binary: int,
        num_components: int = 1,
        is_correlated: bool = False,
        sigma_form: str = "softplus",
        **kwargs,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if num_real < 0 or num_binary < 0 or num_real + num_binary < 1:
            raise ValueError(f"need a feature; got {num_real} real and {num_binary} binary ones")
        if num_components < 1:
            raise ValueError(f"num_components must be 1 or more, got {num_components}")
        if is_correlated and num_real != 2:
            raise ValueError(f"a correlation is of two real features, got {num_real}")
        if sigma_form not in ("softplus", "log_variance"):
            raise ValueError(f"sigma_form must be 'softplus' or 'log_variance', got {sigma_form!r}")
        self.is_correlated = is_correlated
        self.sigma_form = sigma_form
        self.num_real = num_real
        self.num_binary = num_binary
        self.num_components = num_components
        sizes = {}
        if num_real:
            sizes |= {"mean": num_real * num_components, "sigma": num_real * num_components}
            if num_components > 1:
                sizes["component"] = num_components
            if is_correlated:
                sizes["correlation"] = num_components
        if num_binary:
            sizes["binary"] = num_binary
        self.heads = {
            name: CausalConv(size, name=name, dtype="float32") for name, size in sizes.items()
        }

    def build(self, input_shape):
        for head in self.heads.values():
            head.build(input_shape)

    @property
    def num_features(self) -> int:
        """Features of one step of x."""
        return self.num_real + self.num_binary

    def call(
        self, inputs: tf.Tensor, state: State = (), lengths: tf.Tensor | None = None
    ) -> tuple[ObservationParameters, State]:
        """[batch, steps, channels] -> the parameters of every step."""
        del lengths
        inputs = tf.cast(inputs, tf.float32)
        outputs = {name: head(inputs, ())[0] for name, head in self.heads.items()}
        mean = sigma = ()
        if self.num_real:
            mean = self._by_component(outputs["mean"])
            sigma = self._by_component(outputs["sigma"])
            is_softplus = self.sigma_form == "softplus"
            sigma = tf.nn.softplus(sigma) if is_softplus else tf.exp(0.5 * sigma)
            sigma = tf.clip_by_value(sigma, MIN_SIGMA, MAX_SIGMA)
        correlation = ()
        if self.is_correlated:
            bound = _MAX_CORRELATION_LOGIT
            correlation = tf.clip_by_value(outputs["correlation"], -bound, bound)
        parameters = ObservationParameters(
            mean, sigma, outputs.get("component", ()), outputs.get("binary", ()), correlation
        )
        return parameters, state

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

    def share_at_floor(self, parameters: ObservationParameters) -> tf.Tensor:
        """The share of sigmas at their floor, components counted by their weights.

        Args:
            parameters: of every step.

        Returns:
            [batch, time]; 0 where there are no real features.
        """
        if not self.num_real:
            return tf.zeros(tf.shape(parameters.binary_logits)[:-1])
        is_at_floor = tf.cast(parameters.sigma <= MIN_SIGMA, tf.float32)
        by_component = tf.reduce_mean(is_at_floor, axis=-1)
        if self.num_components == 1:
            return by_component[..., 0]
        return tf.reduce_sum(tf.nn.softmax(parameters.component_logits) * by_component, axis=-1)

    def sample(
        self,
        parameters: ObservationParameters,
        seed: Seed,
        places: noise.Places,
        temperature: tf.Tensor | float = 1.0,
        binary_temperature: tf.Tensor | float = 1.0,
    ) -> tf.Tensor:
        """Draws x.

        Args:
            parameters: of every step.
            seed: [2] int32, or [batch, 2], stateless.
            places: of the steps, see `noise`.
            temperature: a scalar, or [batch, 1, 1]; divides the component's logits and multiplies
                the Gaussian's sigma; 0: the mean of the heaviest component.
            binary_temperature: as above; divides the logits of the binary features; 0: 1 where the
                probability exceeds 0.5, as the authors' program generates.

        Returns:
            [batch, time, real + binary features] float32.
        """
        real_seed, discrete_seed = (
            noise.fold_in(seed, stream) for stream in (Stream.REAL_VALUES, Stream.DISCRETE_VALUES)
        )
        num_logits = self.num_binary + (self.num_components if self.num_real else 0)
        uniform = noise.uniform(discrete_seed, places, num_logits)
        parts = []
        if self.num_real:
            of_components = uniform[..., self.num_binary :]
            chosen = self._choose_component(parameters, of_components, temperature)
            normal = temperature * noise.standard_normal(real_seed, places, self.num_real)
            parts.append(self._scaled(chosen, normal))
        if self.num_binary:
            of_binary = uniform[..., : self.num_binary]
            logistic = tf.math.log(of_binary) - tf.math.log1p(-of_binary)
            logits = parameters.binary_logits + binary_temperature * logistic
            parts.append(tf.cast(logits > 0, tf.float32))
        return tf.concat(parts, axis=-1)

    def point_estimate(self, parameters: ObservationParameters, binarize: bool = True) -> tf.Tensor:
        """One x that stands for the distribution; of a mixture not its mode.

        Args:
            parameters: of every step.
            binarize: give binary features as 0 or 1; False: as the probability of 1.

        Returns:
            [batch, time, real + binary features] float32: the mean of the heaviest component, and 1
            for binary features whose probability exceeds 0.5.
        """
        parts = []
        if self.num_real:
            parts.append(self._choose_component(parameters, None, 0.0).mean)
        if self.num_binary:
            logits = parameters.binary_logits
            parts.append(tf.cast(logits > 0, tf.float32) if binarize else tf.sigmoid(logits))
        return tf.concat(parts, axis=-1)

    def _by_component(self, flat: tf.Tensor) -> tf.Tensor:
        # The heads are laid out [feature, component], component fastest, as released.
        shape = tf.concat([tf.shape(flat)[:-1], [self.num_real, self.num_components]], axis=0)
        return tf.linalg.matrix_transpose(tf.reshape(flat, shape))

    def _log_prob_of_real(self, parameters: ObservationParameters, real: tf.Tensor) -> tf.Tensor:
        mean, sigma, real = parameters.mean, self._sigma(parameters), real[..., tf.newaxis, :]
        if self.is_correlated:
            # The second value given the first.
            correlation, rest = _correlation(parameters.correlation_logits)
            first = (real[..., 0] - mean[..., 0]) / sigma[..., 0]
            second = (real[..., 1] - mean[..., 1]) / sigma[..., 1]
            unit = tfd.Normal(0.0, 1.0)
            log_probs = unit.log_prob(first) + unit.log_prob((second - correlation * first) / rest)
            log_probs -= tf.reduce_sum(tf.math.log(sigma), axis=-1) + tf.math.log(rest)
        else:
            log_probs = tfd.MultivariateNormalDiag(mean, sigma).log_prob(real)
        if self.num_components == 1:
            return log_probs[..., 0]
        return tf.reduce_logsumexp(self._log_weights(parameters) + log_probs, axis=-1)

    def _sigma(self, parameters: ObservationParameters) -> tf.Tensor:
        return parameters.sigma

    def _log_weights(self, parameters: ObservationParameters) -> tf.Tensor:
        return tf.nn.log_softmax(parameters.component_logits)

    def _log_prob_of_binary(self, logits: tf.Tensor, binary: tf.Tensor) -> tf.Tensor:
        return tfd.Bernoulli(logits=logits, dtype=tf.float32).log_prob(binary)

    def _choose_component(
        self,
        parameters: ObservationParameters,
        uniform: tf.Tensor | None,
        temperature: tf.Tensor | float,
    ) -> ObservationParameters:
        """A component drawn by its weight; without `uniform` the heaviest.

        Returns:
            Its parameters, without an axis for components.
        """
        of_components = parameters.mean, parameters.sigma, parameters.correlation_logits
        if self.num_components == 1:
            pick = tf.zeros(tf.shape(parameters.mean)[:2], tf.int32)
        else:
            logits = parameters.component_logits
            if uniform is not None:
                # Gumbel's argmax, with the temperature on the noise so that 0 is allowed.
                logits -= temperature * tf.math.log(-tf.math.log(uniform))
            pick = tf.argmax(logits, axis=-1, output_type=tf.int32)
        mean, sigma, correlation = tf.nest.map_structure(
            lambda values: tf.gather(values, pick, axis=2, batch_dims=2), of_components
        )
        return ObservationParameters(mean, sigma, (), parameters.binary_logits, correlation)

    def _scaled(self, component: ObservationParameters, normal: tf.Tensor) -> tf.Tensor:
        """Standard normal numbers, [batch, time, real features] -> draws of a component."""
        if self.is_correlated:
            correlation, rest = _correlation(component.correlation_logits)
            second = correlation * normal[..., 0] + rest * normal[..., 1]
            normal = tf.stack([normal[..., 0], second], axis=-1)
        return component.mean + component.sigma * normal

    def get_config(self):
        return {
            **super().get_config(),
            "num_real": self.num_real,
            "num_binary": self.num_binary,
            "num_components": self.num_components,
            "is_correlated": self.is_correlated,
            "sigma_form": self.sigma_form,
        }


def _correlation(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The correlation, and the share of its sigma that a value has once the other is known.

    The latter is sqrt(1 - tanh^2) = 1 / cosh, without the digits that the difference would lose.
    """
    return tf.tanh(logits), 1.0 / tf.cosh(logits)
