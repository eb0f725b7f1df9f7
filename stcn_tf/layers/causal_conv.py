"""Causal dilated convolution: the one place where causality is made (paper, Eq. 2).

It is written as a product of matrices, the taps of a step side by side. TensorFlow's own kernels
have no gradient of a dilated convolution on many processors; a product runs everywhere, in every
precision, compiled or not, and for any number of steps.
"""

import keras
import tensorflow as tf

from stcn_tf.layers.base import SequenceLayer, State, at_ends


class CausalConv(SequenceLayer):
    """1-D convolution whose output at t reads inputs at t, t - dilation, ... and nothing later.

    The state is what was read before, `(kernel_size - 1) * dilation` inputs; at first they are
    zero: what lies before the first step is zero at every layer, not the response of the layers
    below to zero frames (as in the authors' program). Kernel tap 0 multiplies the oldest input.
    `kernel_size` 1 is a 1x1 convolution.

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

    def initial_state(self, batch_size: tf.Tensor | int) -> State:
        """The last `memory` inputs, oldest first: zeros [batch, memory, channels]."""
        if not self.memory:
            return ()
        return tf.zeros([batch_size, self.memory, self.kernel.shape[1]], self.compute_dtype)

    def call(
        self, inputs: tf.Tensor, state: State, lengths: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, State]:
        """[batch, steps, channels] -> [batch, steps, filters]; see `SequenceLayer.call`."""
        taps, state = self.read_taps(inputs, state, lengths)
        return self.multiply(taps), state

    def read_taps(
        self, inputs: tf.Tensor, state: State, lengths: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, State]:
        """What each step reads. Convolutions that read alike can share it.

        Args:
            inputs: [batch, steps, channels].
            state: see `SequenceLayer.call`, like `lengths`.
            lengths: [batch] int32 or None.

        Returns:
            [batch, steps, kernel_size * channels], the oldest tap first; and the new state.
        """
        inputs = tf.cast(inputs, self.compute_dtype)
        if not self.memory:
            return inputs, ()
        window = tf.concat([state, inputs], axis=1)  # [batch, memory + steps, channels]
        taps = _side_by_side(state, inputs, self.kernel_size, self.dilation)
        return taps, at_ends(window, lengths, self.memory)

    def multiply(self, taps: tf.Tensor) -> tf.Tensor:
        """What `read_taps` gave, times the kernel: [batch, steps, filters]."""
        # Written out, because the layer may be asked from outside of its autocast scope.
        kernel = tf.cast(self.kernel, self.compute_dtype)
        bias = tf.cast(self.bias, self.compute_dtype)
        # As one matrix: products of batches of matrices have slower gradients.
        read = self.kernel_size * kernel.shape[1]
        flat = tf.matmul(tf.reshape(taps, [-1, read]), tf.reshape(kernel, [read, self.filters]))
        outputs = tf.reshape(flat, tf.concat([tf.shape(taps)[:2], [self.filters]], axis=0))
        return self.activation(outputs + bias)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "activation": keras.activations.serialize(self.activation),
        }


def _side_by_side(state: tf.Tensor, inputs: tf.Tensor, num_taps: int, dilation: int) -> tf.Tensor:
    """For each step its inputs `dilation` apart, the oldest first, along the channels.

    The gradient is TensorFlow's own, written so that each part is moved once: that is what keeps
    products as fast as TensorFlow's convolution.
    """
    channels = inputs.shape[-1]
    memory = (num_taps - 1) * dilation

    @tf.custom_gradient
    def read(state, inputs):
        steps = tf.shape(inputs)[1]
        window = tf.concat([state, inputs], axis=1)
        taps = [window[:, i * dilation : i * dilation + steps] for i in range(num_taps - 1)]

        def gradient(upstream):  # [batch, steps, num_taps * channels]
            to_inputs = upstream[..., (num_taps - 1) * channels :]
            to_state = tf.zeros_like(state)
            for i in range(num_taps - 1):
                of_tap = upstream[..., i * channels : (i + 1) * channels]
                # Of tap i, the first `age` steps read the state, the others the inputs.
                age = memory - i * dilation
                from_state = tf.minimum(age, steps)
                to_inputs += tf.pad(of_tap[:, age:], [[0, 0], [0, from_state], [0, 0]])
                padding = [[0, 0], [i * dilation, age - from_state], [0, 0]]
                to_state += tf.pad(of_tap[:, :age], padding)
            return to_state, to_inputs

        return tf.concat([*taps, inputs], axis=-1), gradient

    return read(state, inputs)
