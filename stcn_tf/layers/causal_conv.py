"""Causal dilated convolution: the one place where causality is made (paper, Eq. 2).

It is written as a product of matrices, the taps of a step side by side. TensorFlow's own kernels
have no gradient of a dilated convolution on many processors; a product runs everywhere, in every
precision, compiled or not, and for any number of steps.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from stcn_tf.layers.base import SequenceLayer, State, at_ends, by_step, flat_steps


@keras.saving.register_keras_serializable("stcn_tf")
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
        (outputs,), state = convolve([self], inputs, state, lengths)
        return outputs, state

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            "activation": keras.activations.serialize(self.activation),
        }


def convolve(
    convs: Sequence[CausalConv],
    inputs: tf.Tensor,
    state: State,
    lengths: tf.Tensor | None = None,
) -> tuple[list[tf.Tensor], State]:
    """Convolutions that read the same inputs at the same steps, from one state.

    Args:
        convs: of one `kernel_size`, `dilation` and precision.
        inputs: [batch, steps, channels].
        state: of any of them, see `SequenceLayer.call`, like `lengths`.
        lengths: [batch] int32 or None.

    Returns:
        Of each [batch, steps, filters]; and the new state.
    """
    first = convs[0]
    inputs = tf.cast(inputs, first.compute_dtype)
    # The casts are written out, because a layer may be asked from outside of its autocast scope.
    kernels = [tf.cast(conv.kernel, first.compute_dtype) for conv in convs]
    biases = [tf.cast(conv.bias, first.compute_dtype) for conv in convs]
    if not first.memory:
        flat = flat_steps(inputs)
        products = [_affine(flat, k[0], b) for k, b in zip(kernels, biases, strict=True)]
    else:
        products = _products_of_taps(state, inputs, kernels, biases, first.dilation)
        state = _state_after(state, inputs, lengths, first.memory)
    outputs = [
        by_step(conv.activation(product), inputs)
        for conv, product in zip(convs, products, strict=True)
    ]
    return outputs, state


def product_of_channels(conv: CausalConv, inputs: tf.Tensor, first: int) -> tf.Tensor:
    """What some input channels of a 1x1 convolution add to its output, before the activation.

    Args:
        conv: built, of `kernel_size` 1.
        inputs: [batch, steps, some channels].
        first: the number of the first of them.

    Returns:
        [batch, steps, filters]; the first channel brings the bias with it.
    """
    matrix = tf.cast(conv.kernel, conv.compute_dtype)[0, first : first + inputs.shape[-1]]
    bias = None if first else tf.cast(conv.bias, conv.compute_dtype)
    flat = flat_steps(tf.cast(inputs, conv.compute_dtype))
    return by_step(_affine(flat, matrix, bias), inputs)


def _affine(flat: tf.Tensor, matrix: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
    """Written so that TensorFlow fuses product, bias and the activation that follows."""
    product = tf.matmul(flat, matrix)
    return product if bias is None else tf.nn.bias_add(product, bias)


def _state_after(
    state: tf.Tensor, inputs: tf.Tensor, lengths: tf.Tensor | None, memory: int
) -> tf.Tensor:
    """The last `memory` inputs of each row after a block of them."""
    if lengths is None and inputs.shape[1] == 1:  # generation: the state is moved only once
        return tf.concat([state[:, 1:], inputs], axis=1)
    return at_ends(tf.concat([state, inputs], axis=1), lengths, memory)


def _products_of_taps(
    state: tf.Tensor,
    inputs: tf.Tensor,
    kernels: Sequence[tf.Tensor],
    biases: Sequence[tf.Tensor],
    dilation: int,
) -> Sequence[tf.Tensor]:
    """Each step's taps, side by side, times each kernel, plus its bias.

    Args:
        state: [batch, memory, channels], what comes before `inputs`.
        inputs: [batch, steps, channels].
        kernels: [taps, channels, filters] each.
        biases: [filters] each.
        dilation: steps between taps.

    Returns:
        For each kernel [batch * steps, filters].
    """
    num_taps, channels, _ = kernels[0].shape
    memory = (num_taps - 1) * dilation

    def side_by_side(state, inputs):
        if inputs.shape[1] == 1:
            taps = [state[:, i * dilation : i * dilation + 1] for i in range(num_taps - 1)]
        else:
            window = tf.concat([state, inputs], axis=1)
            taps = [window[:, i * dilation : i * dilation - memory] for i in range(num_taps - 1)]
        return flat_steps(tf.concat([*taps, inputs], axis=-1))  # [batch * steps, taps * channels]

    # The gradient is the ordinary one. It is written out for two reasons: the taps, twice the size
    # of their inputs, are laid out anew instead of being kept for it; and each part of it is moved
    # only once. So products take the time and the memory of TensorFlow's convolution.
    @tf.custom_gradient
    def multiply(state, inputs, *weights):
        matrices, biases = weights[: len(kernels)], weights[len(kernels) :]
        taps = side_by_side(state, inputs)

        def gradient(*upstream):  # [batch * steps, filters] each
            # Else the optimiser of graphs would find that they have been laid out before.
            with tf.control_dependencies(upstream):
                again = side_by_side(state, inputs)
            to_matrices = [tf.matmul(again, part, transpose_a=True) for part in upstream]
            to_biases = [tf.reduce_sum(part, axis=0) for part in upstream]
            to_taps = tf.add_n(
                [
                    tf.matmul(part, matrix, transpose_b=True)
                    for part, matrix in zip(upstream, matrices, strict=True)
                ]
            )
            to_taps = by_step(to_taps, inputs)
            return *_to_sources(to_taps, num_taps, dilation), *to_matrices, *to_biases

        return [_affine(taps, m, b) for m, b in zip(matrices, biases, strict=True)], gradient

    return multiply(state, inputs, *map(flat_steps, kernels), *biases)


def _to_sources(to_taps: tf.Tensor, num_taps: int, dilation: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The gradient of taps [batch, steps, taps * channels], for the state and for the inputs."""
    channels, memory = to_taps.shape[-1] // num_taps, (num_taps - 1) * dilation
    *older, newest = (to_taps[..., i * channels : (i + 1) * channels] for i in range(num_taps))
    # Of state and inputs together, as `side_by_side` reads them.
    to_window = tf.add_n(
        [
            tf.pad(to_tap, [[0, 0], [i * dilation, memory - i * dilation], [0, 0]])
            for i, to_tap in enumerate(older)
        ]
    )
    return to_window[:, :memory], newest + to_window[:, memory:]
