"""Networks without memory, of the same width in all hidden layers; with or without a Gaussian."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers.base import SequenceLayer, State
from stcn_tf.layers.causal_conv import CausalConv

tfd = tfp.distributions


@keras.saving.register_keras_serializable("stcn_tf")
def clipped_leaky_relu(x: tf.Tensor) -> tf.Tensor:
    """A leaky ReLU of slope 1/3, clipped to [-3, 3] (Fraccaro et al., 2016, as released)."""
    return tf.clip_by_value(tf.nn.leaky_relu(x, 1.0 / 3.0), -3.0, 3.0)


@keras.saving.register_keras_serializable("stcn_tf")
class MLP(SequenceLayer):
    """Hidden layers, one on the other.

    Args:
        filters: units of each layer.
        num_layers: their number; 0: what is read is given back.
        activation: of each layer, a Keras activation or its name.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.
    """

    def __init__(self, filters: int, num_layers: int, activation: str = "relu", **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.num_layers = num_layers
        self.activation = keras.activations.get(activation)
        self.hidden = [
            CausalConv(
                filters, activation=self.activation, name=f"hidden_{i}", dtype=self.dtype_policy
            )
            for i in range(num_layers)
        ]

    def build(self, input_shape):
        for layer in self.hidden:
            layer.build(input_shape)
            input_shape = (*input_shape[:-1], layer.filters)

    def num_outputs(self, channels: int) -> int:
        """Channels of the outputs, where the inputs have `channels`."""
        return self.filters if self.hidden else channels

    def call(
        self, inputs: tf.Tensor, state: State = (), lengths: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, State]:
        """[batch, steps, channels] -> [batch, steps, filters]."""
        del lengths
        for layer in self.hidden:
            inputs, _ = layer(inputs, ())
        return inputs, state

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "num_layers": self.num_layers,
            "activation": keras.activations.serialize(self.activation),
        }


class GaussianForm(NamedTuple):
    """How the numbers that a network computes are read as a Gaussian.

    Attributes:
        activation: of the hidden layers, a Keras activation or its name.
        is_separate: whether mean and spread have hidden layers of their own.
        spread: "softplus": sigma = softplus(.) + floor; "variance": sigma^2 = exp(.) + floor.
        floor: see `spread`.
        bound: mean and the numbers of the spread are clipped to [-bound, bound]; 0: they are not.
        spread_bias: what the bias of the spread begins with.
    """

    activation: str | Callable[[tf.Tensor], tf.Tensor]
    is_separate: bool
    spread: str
    floor: float = 0.0
    bound: float = 0.0
    spread_bias: float = 0.0


@keras.saving.register_keras_serializable("stcn_tf")
class GaussianMLP(SequenceLayer):
    """A network with a diagonal Gaussian.

    Args:
        units: of the Gaussian.
        filters: of the hidden layers.
        num_layers: hidden layers.
        form: how it is read.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`; the Gaussian is always float32.
    """

    def __init__(self, units: int, filters: int, num_layers: int, form: GaussianForm, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.filters = filters
        self.num_layers = num_layers
        form = GaussianForm(*form)
        self.form = form._replace(activation=keras.activations.get(form.activation))
        names = ("mean", "spread")
        self.networks = [
            MLP(
                filters,
                num_layers,
                self.form.activation,
                name=f"{name}_network" if self.form.is_separate else "network",
                dtype=self.dtype_policy,
            )
            for name in (names if self.form.is_separate else names[:1])
        ]
        self.heads = [CausalConv(units, name=name, dtype="float32") for name in names]

    def build(self, input_shape):
        for network in self.networks:
            network.build(input_shape)
        channels = self.networks[0].num_outputs(input_shape[-1])
        for head in self.heads:
            head.build((*input_shape[:-1], channels))
        self.heads[1].bias.assign(tf.fill([self.units], self.form.spread_bias))

    def call(
        self, inputs: tf.Tensor, state: State = (), lengths: tf.Tensor | None = None
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], State]:
        """[batch, steps, channels] -> mean and sigma, each [batch, steps, units] float32."""
        del lengths
        hidden = [network(inputs, ())[0] for network in self.networks]
        mean, spread = (
            head(h, ())[0] for head, h in zip(self.heads, (hidden[0], hidden[-1]), strict=True)
        )
        if bound := self.form.bound:
            mean, spread = (tf.clip_by_value(v, -bound, bound) for v in (mean, spread))
        if self.form.spread == "softplus":
            return (mean, tf.nn.softplus(spread) + self.form.floor), state
        if not self.form.floor:
            return (mean, tf.exp(0.5 * spread)), state
        return (mean, tf.sqrt(tf.exp(spread) + self.form.floor)), state

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "filters": self.filters,
            "num_layers": self.num_layers,
            "form": [keras.activations.serialize(self.form.activation), *self.form[1:]],
        }
