"""One stochastic layer of the hierarchy: prior, approximate posterior, Eq. 11 (paper, 3.1, 3.2)."""

from collections.abc import Iterable

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers.base import SequenceLayer, State
from stcn_tf.layers.causal_conv import CausalConv, product_of_channels

tfd = tfp.distributions

# "We clamped the latent sigma predictions between 0.001 and 5" (Appendix 7.1). What Eq. 11 makes of
# two clamped sigmas is not clamped again.
MIN_SIGMA = 1e-3
MAX_SIGMA = 5.0


@keras.saving.register_keras_serializable("stcn_tf")
class GaussianNetwork(SequenceLayer):
    """The network f of Eq. 8 and Eq. 10: [d, z above] -> a diagonal Gaussian.

    Mean and sigma each have a network of their own: `hidden_layers` 1x1 convolutions with ReLU and
    a linear one; sigma = clip(softplus(.), 1e-3, 5). What d adds to the first layer does not depend
    on the latent above, so it is computed apart (`begin`), once for any number of draws.

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
        return self.finish(self.begin(inputs), None), state

    def begin(self, d: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As far as the network goes without the latent above.

        Args:
            d: [batch, steps, channels], the first channels of the input.

        Returns:
            For mean and sigma each [batch, steps, first layer's filters], before its activation;
            where d is all of the input mean and sigma themselves.
        """
        networks = (self.mean_layers, self.sigma_layers)
        begun = tuple(product_of_channels(layers[0], d, 0) for layers in networks)
        is_all = d.shape[-1] == self.mean_layers[0].kernel.shape[1]
        return self._after_the_first(begun) if is_all else begun

    def finish(
        self, begun: tuple[tf.Tensor, tf.Tensor], above: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The rest.

        Args:
            begun: of `begin`.
            above: [batch, steps, units above], the last channels of the input; None: there are no
                others than d.

        Returns:
            Mean and sigma, each [batch, steps, units] float32.
        """
        if above is None:
            return begun
        networks = (self.mean_layers, self.sigma_layers)
        first = self.mean_layers[0].kernel.shape[1] - above.shape[-1]
        return self._after_the_first(
            part + product_of_channels(layers[0], above, first)
            for part, layers in zip(begun, networks, strict=True)
        )

    def _after_the_first(self, sums: Iterable[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """From the first layers' sums, before their activation."""
        mean, sigma = (
            layers[0].activation(part)
            for part, layers in zip(sums, (self.mean_layers, self.sigma_layers), strict=True)
        )
        for layer in self.mean_layers[1:]:
            mean, _ = layer(mean, ())
        for layer in self.sigma_layers[1:]:
            sigma, _ = layer(sigma, ())
        return mean, tf.clip_by_value(tf.nn.softplus(sigma), MIN_SIGMA, MAX_SIGMA)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
            "hidden_layers": self.hidden_layers,
        }


@keras.saving.register_keras_serializable("stcn_tf")
class LatentLayer(keras.layers.Layer):
    """The latent variable z^l: p(z^l | z^{l+1}, d_{t-1}) and q(z^l | z^{l+1}, d_t).

    It has no memory: `prior` and `posterior` take blocks of any number of steps, of which their
    networks have begun with d (`begin_prior`, `begin_posterior`).

    Args:
        units: size of z^l.
        hidden_units: filters of the latent networks.
        hidden_layers: their number of hidden layers.
        posterior_scale: "std": 1/(sum of precisions) is the posterior's standard deviation, as
            Eq. 11 is printed and released; "variance": its variance, the product of the two
            Gaussians, as in the ladder VAE (Sonderby et al., 2016).
        prior_kind: "dynamic": of d_{t-1} and z^{l+1} (Eq. 8); "static": of z^{l+1} alone, as in the
            ladder VAE; "unit": N(0, I), which the posterior is not combined with.
        units_above: units of z^{l+1} that the networks read; 0: they read none.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Raises:
        ValueError: `posterior_scale` or `prior_kind` is none of these, or a static prior reads
            nothing.
    """

    def __init__(
        self,
        units: int,
        hidden_units: int,
        hidden_layers: int = 2,
        posterior_scale: str = "std",
        prior_kind: str = "dynamic",
        units_above: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if posterior_scale not in ("std", "variance"):
            raise ValueError(
                f"posterior_scale must be 'std' or 'variance', got {posterior_scale!r}"
            )
        if prior_kind not in ("dynamic", "static", "unit"):
            raise ValueError(
                f"prior_kind must be 'dynamic', 'static' or 'unit', got {prior_kind!r}"
            )
        if prior_kind == "static" and not units_above:
            raise ValueError("a static prior reads the latent above, of which there is none")
        self.units = units
        self.hidden_units = hidden_units
        self.hidden_layers = hidden_layers
        self.posterior_scale = posterior_scale
        self.prior_kind = prior_kind
        self.units_above = units_above
        sizes = (units, hidden_units, hidden_layers)
        self.prior_network = None
        if prior_kind != "unit":
            self.prior_network = GaussianNetwork(*sizes, name="prior", dtype=self.dtype_policy)
        self.posterior_network = GaussianNetwork(*sizes, name="posterior", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Takes the shape of d."""
        channels = input_shape[-1] + self.units_above
        if self.prior_kind == "dynamic":
            self.prior_network.build((*input_shape[:-1], channels))
        elif self.prior_kind == "static":
            self.prior_network.build((*input_shape[:-1], self.units_above))
        self.posterior_network.build((*input_shape[:-1], channels))

    def begin_prior(self, d: tf.Tensor) -> tuple:
        """What the prior makes of d_{t-1}^l at position t; () where it does not read it."""
        return self.prior_network.begin(d) if self.prior_kind == "dynamic" else ()

    def begin_posterior(self, d: tf.Tensor) -> tuple:
        """What the posterior's network makes of d_t^l at position t."""
        return self.posterior_network.begin(d)

    def prior(
        self, begun: tuple, above: tf.Tensor | None, like: tf.Tensor | None = None
    ) -> tfd.Normal:
        """Eq. 8.

        Args:
            begun: of `begin_prior`.
            above: [batch, steps, units above], a draw of z^{l+1}; None where none is read.
            like: [batch, steps, units], any tensor of that shape; needed by a unit prior alone.

        Returns:
            The prior of z^l, [batch, steps, units].
        """
        if self.prior_kind == "unit":
            return tfd.Normal(tf.zeros_like(like), tf.ones_like(like))
        if self.prior_kind == "static":
            begun, above = self.prior_network.begin(above), None
        return tfd.Normal(*self.prior_network.finish(begun, above))

    def posterior(
        self, begun: tuple[tf.Tensor, tf.Tensor], above: tf.Tensor | None, prior: tfd.Normal
    ) -> tfd.Normal:
        """Eq. 10 and 11: the network's own estimate, combined with the prior by precision.

        Args:
            begun: of `begin_posterior`.
            above: [batch, steps, units above], a draw of z^{l+1}; None where none is read.
            prior: what `prior` returned for the same step.

        Returns:
            The approximate posterior of z^l, [batch, steps, units].
        """
        mean, sigma = self.posterior_network.finish(begun, above)
        if self.prior_kind == "unit":
            return tfd.Normal(mean, sigma)
        # Not ** -2, which on CPUs takes ten times as long.
        precision, prior_precision = 1.0 / (sigma * sigma), 1.0 / (prior.scale * prior.scale)
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
            "prior_kind": self.prior_kind,
            "units_above": self.units_above,
        }
