"""One stochastic layer of the hierarchy: prior, approximate posterior, Eq. 11 (paper, 3.1, 3.2)."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers.base import SequenceLayer
from stcn_tf.layers.causal_conv import CausalConv

tfd = tfp.distributions

# "We clamped the latent sigma predictions between 0.001 and 5" (Appendix 7.1). What Eq. 11 makes of
# two clamped sigmas is not clamped again.
MIN_SIGMA = 1e-3
MAX_SIGMA = 5.0

# What the authors' program puts under the standard deviations of the KL before it takes their
# logarithms, and under the variance that it divides by.
_KL_FLOOR = 1e-6


class GaussianNetwork(SequenceLayer):
    """The network f of Eq. 8 and Eq. 10: [d, z above] -> a diagonal Gaussian.

    Mean and sigma each have a network of their own: `hidden_layers` 1x1 convolutions with ReLU and
    a linear one; sigma = clip(softplus(.), 1e-3, 5).

    Args:
        units: size of the latent variable.
        hidden_units: filters of the hidden convolutions.
        hidden_layers: their number, for each of the two networks.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`; the distribution is always float32.
    """

    def __init__(self, units: int, hidden_units: int, hidden_layers: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden_units = hidden_units
        self.hidden_layers = hidden_layers
        self.mean_layers = self._network("mean")
        self.sigma_layers = self._network("sigma")

    def _network(self, name: str) -> list[CausalConv]:
        hidden = [
            CausalConv(
                self.hidden_units,
                activation="relu",
                name=f"{name}_hidden_{i}",
                dtype=self.dtype_policy,
            )
            for i in range(self.hidden_layers)
        ]
        return [*hidden, CausalConv(self.units, name=name, dtype="float32")]

    def build(self, input_shape):
        for network in (self.mean_layers, self.sigma_layers):
            shape = input_shape
            for layer in network:
                layer.build(shape)
                shape = (*shape[:-1], layer.filters)

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """[batch, time, channels] -> mean and sigma, each [batch, time, units] float32."""
        mean = sigma = inputs
        for layer in self.mean_layers:
            mean = layer(mean)
        for layer in self.sigma_layers:
            sigma = layer(sigma)
        return mean, tf.clip_by_value(tf.nn.softplus(sigma), MIN_SIGMA, MAX_SIGMA)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
            "hidden_layers": self.hidden_layers,
        }


class LatentLayer(keras.layers.Layer):
    """The latent variable z^l: p(z^l | z^{l+1}, d_{t-1}) and q(z^l | z^{l+1}, d_t).

    It has no memory of its own: `prior` and `posterior` take whole sequences and, for one step of
    generation, sequences of length one.

    Args:
        units: size of z^l.
        hidden_units: filters of the latent networks.
        hidden_layers: their number of hidden layers.
        precision: "std": 1/(sum of precisions) is the posterior's standard deviation, as Eq. 11 is
            printed and released; "variance": its variance, the product of the two Gaussians, as
            in the ladder VAE (Sonderby et al., 2016).
        released_floors: compute the KL with the floors of the authors' program, which makes it too
            small where a posterior's sigma is below 1e-6.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Raises:
        ValueError: `precision` is neither.
    """

    def __init__(
        self,
        units: int,
        hidden_units: int,
        hidden_layers: int = 2,
        precision: str = "std",
        released_floors: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if precision not in ("std", "variance"):
            raise ValueError(f"precision must be 'std' or 'variance', got {precision!r}")
        self.units = units
        self.hidden_units = hidden_units
        self.hidden_layers = hidden_layers
        self.precision = precision
        self.released_floors = released_floors
        sizes = (units, hidden_units, hidden_layers)
        self.prior_network = GaussianNetwork(*sizes, name="prior", dtype=self.dtype_policy)
        self.posterior_network = GaussianNetwork(*sizes, name="posterior", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Takes the shape of [d, z above], concatenated."""
        self.prior_network.build(input_shape)
        self.posterior_network.build(input_shape)

    def prior(self, d: tf.Tensor, above: tf.Tensor | None) -> tfd.Normal:
        """Eq. 8.

        Args:
            d: [batch, time, filters], d_{t-1}^l at position t.
            above: [batch, time, units above], a draw of z^{l+1}; None for the topmost layer.

        Returns:
            The prior of z^l, [batch, time, units].
        """
        return tfd.Normal(*self.prior_network(self._inputs(d, above)))

    def posterior(self, d: tf.Tensor, above: tf.Tensor | None, prior: tfd.Normal) -> tfd.Normal:
        """Eq. 10 and 11: the network's own estimate, combined with the prior by precision.

        Args:
            d: [batch, time, filters], d_t^l at position t.
            above: [batch, time, units above], a draw of z^{l+1}; None for the topmost layer.
            prior: what `prior` returned for the same step.

        Returns:
            The approximate posterior of z^l, [batch, time, units].
        """
        mean, sigma = self.posterior_network(self._inputs(d, above))
        precision = sigma**-2
        prior_precision = prior.scale**-2
        inverse = 1.0 / (precision + prior_precision)
        combined_mean = inverse * (mean * precision + prior.loc * prior_precision)
        return tfd.Normal(
            combined_mean, inverse if self.precision == "std" else tf.math.sqrt(inverse)
        )

    def kl_divergence(self, posterior: tfd.Normal, prior: tfd.Normal) -> tf.Tensor:
        """KL of the posterior from the prior, for each unit: [batch, time, units], nats."""
        if not self.released_floors:
            return tfd.kl_divergence(posterior, prior)
        log_ratio = tf.math.log(tf.maximum(prior.scale, _KL_FLOOR)) - tf.math.log(
            tf.maximum(posterior.scale, _KL_FLOOR)
        )
        squares = posterior.scale**2 + (posterior.loc - prior.loc) ** 2
        return log_ratio + squares / (2.0 * tf.maximum(prior.scale**2, _KL_FLOOR)) - 0.5

    def _inputs(self, d: tf.Tensor, above: tf.Tensor | None) -> tf.Tensor:
        if above is None:
            return d
        return tf.concat([d, tf.cast(above, d.dtype)], axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
            "hidden_layers": self.hidden_layers,
            "precision": self.precision,
            "released_floors": self.released_floors,
        }
