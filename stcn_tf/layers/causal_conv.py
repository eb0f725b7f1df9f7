"""Causal dilated convolution: the one place where causality is made (paper, Eq. 2)."""

import keras
import tensorflow as tf

from stcn_tf.layers.base import SequenceLayer, State


class CausalConv(SequenceLayer):
    """1-D convolution whose output at t reads inputs at t, t - dilation, ... and nothing later.

    The input is left-padded with `(kernel_size - 1) * dilation` zeros: what lies before the first
    frame is zero at every layer, not the response of the layers below to zero frames (as in the
    authors' program). Kernel tap 0 multiplies the oldest frame. `kernel_size` 1 is a 1x1
    convolution.

    Args:
        filters: number of output channels.
        kernel_size: number of taps.
        dilation: time steps between taps.
        activation: a Keras activation or its name; None: linear.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Raises:
        ValueError: a size is below 1.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 1,
        dilation: int = 1,
        activation: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value in (
            ("filters", filters),
            ("kernel_size", kernel_size),
            ("dilation", dilation),
        ):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.activation = keras.activations.get(activation)

    @property
    def memory(self) -> int:
        """Time steps before t that the output at t can see."""
        return (self.kernel_size - 1) * self.dilation

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, input_shape[-1], self.filters),
            initializer="glorot_uniform",
        )
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[batch, time, channels] -> [batch, time, filters]."""
        inputs = tf.cast(inputs, self.compute_dtype)
        padded = tf.pad(inputs, [[0, 0], [self.memory, 0], [0, 0]]) if self.memory else inputs
        return self._convolve(padded, self.dilation)

    def initial_state(self, batch_size: tf.Tensor | int) -> State:
        """The last `memory` inputs, oldest first: zeros [batch, memory, channels]."""
        if not self.memory:
            return ()
        return tf.zeros([batch_size, self.memory, self.kernel.shape[1]], self.compute_dtype)

    def step(self, frame: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """[batch, channels] -> [batch, filters] and the inputs that later steps still need."""
        frame = tf.cast(frame, self.compute_dtype)[:, tf.newaxis, :]
        if not self.memory:
            return self._convolve(frame, 1)[:, 0], state
        window = tf.concat([state, frame], axis=1)  # [batch, memory + 1, channels]
        taps = window[:, :: self.dilation]  # [batch, kernel_size, channels]
        return self._convolve(taps, 1)[:, 0], window[:, 1:]

    def _convolve(self, padded: tf.Tensor, dilation: int) -> tf.Tensor:
        # `step` is called outside the layer's autocast scope, so the cast is written out.
        kernel = tf.cast(self.kernel, self.compute_dtype)
        bias = tf.cast(self.bias, self.compute_dtype)
        outputs = tf.nn.conv1d(padded, kernel, stride=1, padding="VALID", dilations=dilation)
        return self.activation(outputs + bias)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "activation": keras.activations.serialize(self.activation),
        }
