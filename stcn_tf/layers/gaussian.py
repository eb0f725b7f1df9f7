"""One stochastic layer of the hierarchy: prior, approximate posterior, Eq. 11 (paper, 3.1, 3.2)."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers.base import SequenceLayer, State
from stcn_tf.layers.causal_conv import CausalConv

tfd = tfp.distributions

# "We clamped the latent sigma predictions between 0.001 and 5" (Appendix 7.1). What Eq. 11 makes of
# two clamped sigmas is not clamped again.
MIN_SIGMA = 1e-3
MAX_SIGMA = 5.0


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

    def call(
        self, inputs: tf.Tensor, state: State = (), lengths: tf.Tensor | None = None
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], State]:
        """[batch, steps, channels] -> mean and sigma, each [batch, steps, units] float32."""
        del lengths
        mean = sigma = inputs
        for layer in self.mean_layers:
            mean, _ = layer(mean, ())
        for layer in self.sigma_layers:
            sigma, _ = layer(sigma, ())
        return (mean, tf.clip_by_value(tf.nn.softplus(sigma), MIN_SIGMA, MAX_SIGMA)), state

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
            "hidden_layers": self.hidden_layers,
        }


class LatentLayer(keras.layers.Layer):
    """The latent variable z^l: p(z^l | z^{l+1}, d_{t-1}) and q(z^l | z^{l+1}, d_t).

    It has no memory: `prior` and `posterior` take blocks of any number of steps.

    Args:
        units: size of z^l.
        hidden_units: filters of the latent networks.
        hidden_layers: their number of hidden layers.
        posterior_scale: "std": 1/(sum of precisions) is the posterior's standard deviation, as
            Eq. 11 is printed and released; "variance": its variance, the product of the two
            Gaussians, as in the ladder VAE (Sonderby et al., 2016).
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Raises:
        ValueError: `posterior_scale` is neither.
    """

    def __init__(
        self,
        units: int,
        hidden_units: int,
        hidden_layers: int = 2,
        posterior_scale: str = "std",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if posterior_scale not in ("std", "variance"):
            raise ValueError(
                f"posterior_scale must be 'std' or 'variance', got {posterior_scale!r}"
            )
        self.units = units
        self.hidden_units = hidden_units
        self.hidden_layers = hidden_layers
        self.posterior_scale = posterior_scale
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
            d: [batch, steps, filters], d_{t-1}^l at position t.
            above: [batch, steps, units above], a draw of z^{l+1}; None for the topmost layer.

        Returns:
            The prior of z^l, [batch, steps, units].
        """
        (mean, sigma), _ = self.prior_network(_joined(d, above))
        return tfd.Normal(mean, sigma)

    def posterior(self, d: tf.Tensor, above: tf.Tensor | None, prior: tfd.Normal) -> tfd.Normal:
        """Eq. 10 and 11: the network's own estimate, combined with the prior by precision.

        Args:
            d: [batch, steps, filters], d_t^l at position t.
            above: [batch, steps, units above], a draw of z^{l+1}; None for the topmost layer.
            prior: what `prior` returned for the same step.

        Returns:
            The approximate posterior of z^l, [batch, steps, units].
        """
        (mean, sigma), _ = self.posterior_network(_joined(d, above))
        precision = sigma**-2
        prior_precision = prior.scale**-2
        inverse = 1.0 / (precision + prior_precision)
        combined_mean = inverse * (mean * precision + prior.loc * prior_precision)
        is_std = self.posterior_scale == "std"
        return tfd.Normal(combined_mean, inverse if is_std else tf.math.sqrt(inverse))

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
            "hidden_layers": self.hidden_layers,
            "posterior_scale": self.posterior_scale,
        }


def _joined(d: tf.Tensor, above: tf.Tensor | None) -> tf.Tensor:
    """[d, z above], the input of Eq. 8 and Eq. 10."""
    if above is None:
        return d
    return tf.concat([d, tf.cast(above, d.dtype)], axis=-1)
