"""The contract of every layer here: a block of any number of steps, with a state.

A whole sequence is one block from the initial state, a step of generation a block of length one.
Cutting a sequence into blocks changes nothing. `LatentLayer` alone is outside of the contract: it
joins two sequences and a draw from above.
"""

from typing import Any

import keras
import tensorflow as tf

State = Any  # a nested structure of tensors [batch, ...]; () where a layer has no memory


class SequenceLayer(keras.layers.Layer):
    """A layer over `[batch, steps, channels]` that can be continued.

    `initial_state` here is that of layers without memory; layers with one override it.
    """

    def initial_state(self, batch_size: tf.Tensor | int) -> State:
        """The state before the first step, for `batch_size` sequences."""
        del batch_size
        return ()

    def call(
        self, inputs: tf.Tensor, state: State, lengths: tf.Tensor | None = None
    ) -> tuple[Any, State]:
        """A block of steps.

        Args:
            inputs: [batch, steps, channels]; `steps` may be 1, or a whole sequence.
            state: from `initial_state` or the previous block.
            lengths: [batch] int32, steps of the block that belong to each sequence, the others
                being padding; None: all.

        Returns:
            The outputs, [batch, steps, ...]; those of padding mean nothing. And the state of each
            row after its own last step: a row of length 0 keeps its state.
        """
        raise NotImplementedError


def flat_steps(values: tf.Tensor) -> tf.Tensor:
    """[batch, steps, channels] -> [batch * steps, channels]: all steps meet the same matrix.

    TensorFlow would multiply them by one copy of it for each row, and add those up in its gradient.
    """
    return tf.reshape(values, [-1, values.shape[-1]])


def by_step(flat: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """[batch * steps, channels] -> [batch, steps, channels], `like` having those steps."""
    steps = like.shape[1]
    steps = tf.shape(like)[1] if steps is None else steps
    # A block may have no step: then the number of rows must be said.
    rows = -1 if isinstance(steps, int) and steps else tf.shape(like)[0]
    return tf.reshape(flat, [rows, steps, flat.shape[-1]])


def at_ends(values: tf.Tensor, lengths: tf.Tensor | None, count: int = 1) -> tf.Tensor:
    """What each row has at its own end.

    Args:
        values: [batch, count + steps, channels]: `count` earlier ones, then those of a block.
        lengths: [batch] int32, steps of the block that belong to each row; None: all.
        count: how many to take.

    Returns:
        [batch, count, channels], the last `count` values up to each row's last step.
    """
    if lengths is None:
        return values[:, -count:]
    index = lengths[:, tf.newaxis] + tf.range(count)
    return tf.gather(values, index, axis=1, batch_dims=1)
