"""A step, one after the other along time: what recurrent layers and models are made of."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

State = Any
Step = Callable[[State, Any], tuple[Any, State]]


def scan(
    step: Step, state: State, inputs: Any, lengths: tf.Tensor | None = None
) -> tuple[Any, State]:
    """Runs a step along time.

    Args:
        step: (state, inputs of one step) -> (outputs of that step, state). Inputs and outputs are
            nested tensors [batch, 1, ...], the state nested tensors [batch, ...].
        state: before the first step.
        inputs: nested tensors [batch, steps, ...], at least one; `steps` may be 0.
        lengths: [batch] int32, how many steps belong to each row; None: all.

    Returns:
        The outputs of all steps, [batch, steps, ...]; those beyond a row's length mean nothing. And
        the state of each row after its own last step.
    """

    def masked(step, t, state, inputs):
        outputs, new_state = step(state, inputs)
        if lengths is None:
            return outputs, new_state
        return outputs, tf.nest.map_structure(
            lambda new, old: tf.where(_like(t < lengths, new), new, old), new_state, state
        )

    first = tf.nest.flatten(inputs)[0]
    if first.shape[1] == 1:
        return masked(step, 0, state, inputs)
    batch, steps = tf.unstack(tf.shape(first)[:2])
    nothing = tf.nest.map_structure(lambda v: tf.zeros([batch, 1, *v.shape[2:]], v.dtype), inputs)
    outputs, _ = step(state, nothing)  # for its shapes alone, and not computed
    # One row more than there are steps: an empty array could not be stacked.
    arrays = [
        tf.TensorArray(v.dtype, steps + 1, element_shape=[None, *v.shape[2:]]).write(
            steps, tf.zeros([batch, *v.shape[2:]], v.dtype)
        )
        for v in tf.nest.flatten(outputs)
    ]
    # Arrays: the gradient of a gather would be added to one of all steps at every step.
    by_time = [
        tf.TensorArray(v.dtype, steps, element_shape=[None, *v.shape[2:]]).unstack(_swapped(v))
        for v in tf.nest.flatten(inputs)
    ]

    def body(t, state, arrays):
        read = [values.read(t)[:, tf.newaxis] for values in by_time]
        of_step = tf.nest.pack_sequence_as(inputs, read)
        outputs, state = masked(step, t, state, of_step)
        outputs = tf.nest.flatten(outputs)
        return t + 1, state, [a.write(t, v[:, 0]) for a, v in zip(arrays, outputs, strict=True)]

    open_state = tf.nest.map_structure(lambda v: tf.TensorShape([None, *v.shape[1:]]), state)
    _, state, arrays = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (tf.constant(0), state, arrays),
        shape_invariants=(tf.TensorShape([]), open_state, [tf.TensorShape(None)] * len(arrays)),
        maximum_iterations=steps,  # XLA differentiates loops whose length it knows
    )
    stacked = [_swapped(array.stack()[:-1]) for array in arrays]
    return tf.nest.pack_sequence_as(outputs, stacked), state


def _swapped(values: tf.Tensor) -> tf.Tensor:
    """[batch, steps, ...] <-> [steps, batch, ...]."""
    return tf.transpose(values, [1, 0, *range(2, len(values.shape))])


def _like(rows: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """[batch] -> [batch, 1, ...], of the rank of `values`."""
    return tf.reshape(rows, [-1] + [1] * (len(values.shape) - 1))
