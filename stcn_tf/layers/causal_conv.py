"""Causal dilated convolution: the one place where causality is made (paper, Eq. 2).

It is written as a product of matrices, the taps of a step side by side. TensorFlow's own kernels
have no gradient of a dilated convolution on many processors; a product runs everywhere, in every
precision, compiled or not, and for any number of steps.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from stcn_tf.layers.base import SequenceLayer, State, at_ends

# Of one matrix for all steps; tf.matmul would have slower gradients.
_PRODUCT, _PRODUCT_TRANSPOSED = "btc,cf->btf", "btf,cf->btc"


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
    if not first.memory:
        products = [tf.einsum(_PRODUCT, inputs, kernel[0]) for kernel in kernels]
    else:
        products = _products_of_taps(state, inputs, kernels, first.dilation)
        state = at_ends(tf.concat([state, inputs], axis=1), lengths, first.memory)
    outputs = [
        conv.activation(product + tf.cast(conv.bias, conv.compute_dtype))
        for conv, product in zip(convs, products, strict=True)
    ]
    return outputs, state


def _products_of_taps(
    state: tf.Tensor, inputs: tf.Tensor, kernels: Sequence[tf.Tensor], dilation: int
) -> Sequence[tf.Tensor]:
    """Each step's taps, side by side, times each kernel.

    Args:
        state: [batch, memory, channels], what comes before `inputs`.
        inputs: [batch, steps, channels].
        kernels: [taps, channels, filters] each.
        dilation: steps between taps.

    Returns:
        For each kernel [batch, steps, filters].
    """
    num_taps, channels, _ = kernels[0].shape
    memory = (num_taps - 1) * dilation

    def side_by_side(state, inputs):
        window = tf.concat([state, inputs], axis=1)
        taps = [window[:, i * dilation : i * dilation - memory] for i in range(num_taps - 1)]
        return tf.concat([*taps, inputs], axis=-1)  # [batch, steps, taps * channels]

    # The gradient is the ordinary one. It is written out for two reasons: the taps, twice the size
    # of their inputs, are laid out anew instead of being kept for it; and each part of it is moved
    # only once. So products take the time and the memory of TensorFlow's convolution.
    @tf.custom_gradient
    def multiply(state, inputs, *matrices):
        taps = side_by_side(state, inputs)

        def gradient(*upstream):  # [batch, steps, filters] each
            # Else the optimiser of graphs would find that they have been laid out before.
            with tf.control_dependencies(upstream):
                again = tf.reshape(side_by_side(state, inputs), [-1, num_taps * channels])
            flat = [tf.reshape(part, [-1, part.shape[-1]]) for part in upstream]
            to_matrices = [tf.matmul(again, part, transpose_a=True) for part in flat]
            to_taps = tf.add_n(
                [
                    tf.einsum(_PRODUCT_TRANSPOSED, part, matrix)
                    for part, matrix in zip(upstream, matrices, strict=True)
                ]
            )
            return *_to_sources(to_taps, num_taps, dilation), *to_matrices

        return [tf.einsum(_PRODUCT, taps, matrix) for matrix in matrices], gradient

    return multiply(state, inputs, *(tf.reshape(k, [-1, k.shape[-1]]) for k in kernels))


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
