"""The contract of every layer here: a whole sequence at once, or one frame after the other.

`LatentLayer` alone is outside of it: it joins two sequences and a draw from above, has no memory,
and computes a step as a sequence of length one.
"""

from typing import Any

import keras
import tensorflow as tf

State = Any  # a nested structure of tensors [batch, ...]; () where a layer has no memory


class SequenceLayer(keras.layers.Layer):
    """A layer over `[batch, time, channels]` that can also be stepped through time.

    `call(sequence)` and repeated `step(frame, state)` from `initial_state` give the same values
    from the same weights. The methods here are those of layers without memory (1x1 convolutions);
    layers with memory override `initial_state` and `step`.
    """

    def initial_state(self, batch_size: tf.Tensor | int) -> State:
        """The state before the first frame, for `batch_size` sequences."""
        del batch_size
        return ()

    def step(self, frame: tf.Tensor, state: State) -> tuple[Any, State]:
        """One time step.

        Args:
            frame: [batch, channels], the input of this step.
            state: from `initial_state` or the previous `step`.

        Returns:
            The output of this step, [batch, channels], and the new state.
        """
        outputs = self.call(frame[:, tf.newaxis, :])
        return tf.nest.map_structure(lambda output: output[:, 0], outputs), state
