"""Recurrent layers with the contract of `SequenceLayer`, made of Keras' cells."""

import keras
import tensorflow as tf

from stcn_tf.layers.base import SequenceLayer, State
from stcn_tf.layers.scan import scan

KINDS = ("lstm", "gru")


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
        self, inputs: tf.Tensor, state: State, lengths: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, State]:
        """[batch, steps, channels] -> [batch, steps, units], h after each step."""

        def step(state, x):
            output, state = self.cell(x[:, 0], list(state))
            return output[:, tf.newaxis], tuple(state)

        return scan(step, state, tf.cast(inputs, self.compute_dtype), lengths)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kind": self.kind,
            "unit_forget_bias": self.unit_forget_bias,
        }


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
