"""Recurrent layers with the contract of `SequenceLayer`.

Their weights are those of Keras' cells. The cells themselves, called at each step, would multiply
the inputs of one step at a time, and TensorFlow would add up the gradient of the weights at every
step; here both are one product over all steps. Compiled, an update of an LSTM takes half as long
for it on a CPU; not compiled, 0.9 to 1.15 times as long (experiments/RESULTS.md).
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from stcn_tf.layers.base import SequenceLayer, State, by_step, flat_steps
from stcn_tf.layers.scan import scan

KINDS = ("lstm", "gru")


@keras.saving.register_keras_serializable("stcn_tf")
class Recurrent(SequenceLayer):
    """An LSTM or a GRU.

    The state is that of the cell, zero at first: (h, c) of an LSTM, (h,) of a GRU. The reset gate
    of the GRU multiplies the recurrent product.

    Args:
        units: of the cell.
        kind: "lstm" or "gru".
        unit_forget_bias: whether the bias of an LSTM's forget gates begins at 1; else 0.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Raises:
        ValueError: `kind` is neither.
    """

    def __init__(self, units: int, kind: str = "lstm", unit_forget_bias: bool = True, **kwargs):
        super().__init__(**kwargs)
        if kind not in KINDS:
            raise ValueError(f"kind must be 'lstm' or 'gru', got {kind!r}")
        self.units = units
        self.kind = kind
        self.unit_forget_bias = unit_forget_bias
        options = {"name": "cell", "dtype": self.dtype_policy}
        self.cell = (
            keras.layers.LSTMCell(units, unit_forget_bias=unit_forget_bias, **options)
            if kind == "lstm"
            else keras.layers.GRUCell(units, reset_after=True, **options)
        )

    def build(self, input_shape):
        self.cell.build((None, input_shape[-1]))

    def initial_state(self, batch_size: tf.Tensor | int) -> State:
        """Zeros, [batch, units] each."""
        zeros = tf.zeros([batch_size, self.units], self.compute_dtype)
        return (zeros, zeros) if self.kind == "lstm" else (zeros,)

    def call(
        self,
        inputs: tf.Tensor,
        state: State,
        lengths: tf.Tensor | None = None,
        constant: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, State]:
        """[batch, steps, channels] -> [batch, steps, units], h after each step.

        With `constant`, [batch, others], every step reads it behind its own channels.
        """
        kernel, recurrent_kernel, bias = (
            tf.convert_to_tensor(weights.value)
            for weights in (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)
        )
        inputs = tf.cast(inputs, self.compute_dtype)
        state = tuple(state)  # that of a Keras model which was saved comes as a list
        if constant is not None:
            kernel, of_others = tf.split(kernel, [inputs.shape[-1], constant.shape[-1]])
        of_inputs = by_step(tf.matmul(flat_steps(inputs), kernel), inputs)
        if constant is not None:
            constant = tf.cast(constant, self.compute_dtype)
            of_inputs += tf.matmul(constant, of_others)[:, tf.newaxis]
        if self.kind == "lstm":
            outputs, state = _along(_lstm, of_inputs + bias, (), recurrent_kernel, state, lengths)
        else:
            of_state = tf.broadcast_to(bias[1], tf.shape(of_inputs))
            of_state = tf.ensure_shape(of_state, of_inputs.shape)
            of_inputs += bias[0]
            outputs, state = _along(_gru, of_state, of_inputs, recurrent_kernel, state, lengths)
        return outputs, state

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kind": self.kind,
            "unit_forget_bias": self.unit_forget_bias,
        }


def _lstm(read: tf.Tensor, state: State, _: tuple) -> State:
    """The gates i, f, g, o have read the inputs and h."""
    i, f, g, o = tf.split(read, 4, axis=-1)
    c = tf.sigmoid(f) * state[1] + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def _gru(read: tf.Tensor, state: State, of_inputs: tf.Tensor) -> State:
    """What is read of h and of the inputs, for z, r and the candidate."""
    units = state[0].shape[-1]
    z, r = tf.split(tf.sigmoid((read + of_inputs)[..., : 2 * units]), 2, axis=-1)
    candidate = tf.tanh(of_inputs[..., 2 * units :] + r * read[..., 2 * units :])
    return (z * state[0] + (1 - z) * candidate,)


def _along(
    cell: Callable[[tf.Tensor, State, Any], State],
    added: tf.Tensor,
    others: Any,
    kernel: tf.Tensor,
    state: State,
    lengths: tf.Tensor | None,
) -> tuple[tf.Tensor, State]:
    """Runs a cell along time.

    Args:
        cell: (what is read of h, the state, `others` of the step) -> the next state; h is first.
        added: [batch, steps, gates] to the product of h and `kernel`.
        others: what else a step reads, [batch, steps, channels], or ().
        kernel: [units, gates].
        state: before the first step.
        lengths: see `Recurrent.call`.

    Returns:
        H after each step; the state after the last one of each row.
    """

    def run(kernel, added, others, state):
        def step(state, inputs):
            read = inputs[0][:, 0] + tf.matmul(state[0], kernel)
            state = cell(read, state, tf.nest.map_structure(lambda v: v[:, 0], inputs[1]))
            return state[0][:, tf.newaxis], state

        return scan(step, state, (added, others), lengths)

    if added.shape[1] == 1:
        return run(kernel, added, others, state)

    @tf.custom_gradient
    def with_gradient(kernel, *read):
        with tf.GradientTape() as tape:
            tape.watch(read)
            made = run(kernel, *tf.nest.pack_sequence_as((added, others, state), read))

        def gradient(*upstream):
            of_read = tape.gradient(
                tf.nest.flatten(made), read, upstream, unconnected_gradients="zero"
            )
            # Upstream of outputs beyond a row's length is zero: they mean nothing.
            h = tf.concat([state[0][:, tf.newaxis], made[0]], axis=1)[:, :-1]
            of_kernel = tf.matmul(flat_steps(h), flat_steps(of_read[0]), transpose_a=True)
            return of_kernel, *of_read

        return tf.nest.flatten(made), gradient

    made = with_gradient(kernel, *tf.nest.flatten((added, others, state)))
    return made[0], tuple(made[1:])


def backwards(layer: Recurrent, inputs: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Runs a layer from the end of each sequence to its beginning, from its initial state.

    Args:
        layer: built.
        inputs: [batch, steps, channels].
        lengths: [batch] int32, steps that belong to each row: padding is not read.

    Returns:
        [batch, steps, units]: what is at t has seen the inputs at t, t + 1, ... of its row.
    """
    reverse = tf.reverse_sequence(inputs, lengths, seq_axis=1)
    outputs, _ = layer(reverse, layer.initial_state(tf.shape(inputs)[0]), lengths)
    return tf.reverse_sequence(outputs, lengths, seq_axis=1)
