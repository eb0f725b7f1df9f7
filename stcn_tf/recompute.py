"""Training on long sequences: memory for one block of steps instead of for all of them.

Backpropagation keeps what every layer makes of every step. The contract of models allows a sequence
to be cut into blocks, so the states between blocks are all that must be kept: a block is observed
once more when its gradient is due (Chen et al., "Training deep nets with sublinear memory cost",
2016, with time in the place of depth). The gradient is the same, that through the states included.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from stcn_tf.models.base import SequenceModel, State, Terms, repeated
from stcn_tf.noise import Seed

_Tensors = list[tf.Tensor]
# Of the number of a block, the weights and the parts of the state before it: its results,
# [batch, steps, ...] each, and the parts of the state after it.
_Block = Callable[[tf.Tensor, _Tensors, _Tensors], tuple[_Tensors, _Tensors]]


def observe(
    model: SequenceModel,
    x: tf.Tensor,
    lengths: tf.Tensor,
    start: State,
    copies: State,
    count: int,
    seed: Seed,
    every: int,
) -> Terms:
    """`encode` and `observe` of a model, block by block, each computed again for its gradient.

    Args:
        model: built; its posterior sees no future.
        x: [batch, time, features] float32, normalised, zero-padded.
        lengths: [batch] int32.
        start: [batch, ...], the state before the first step.
        copies: [batch * count, ...], the same of each draw, see `repeated`.
        count: draws of each sequence.
        seed: of the latent noise.
        every: steps in a block.

    Returns:
        Terms, [batch * count, time, ...], without `parameters`. They have no gradient for x.
    """
    time = tf.shape(x)[1]
    num_blocks = tf.maximum((time + every - 1) // every, 1)
    x = tf.pad(x, [[0, 0], [0, num_blocks * every - time], [0, 0]])

    def block(index: tf.Tensor, weights: _Tensors, parts: _Tensors) -> tuple[_Tensors, _Tensors]:
        """The terms of a block and the parts of the states after it."""
        state, its_copies = tf.nest.pack_sequence_as((start, copies), parts)
        frames = _block_of(x, index, every)
        within = tf.clip_by_value(lengths - index * every, 0, every)
        with keras.StatelessScope(list(zip(model.trainable_variables, weights, strict=True))):
            encoded = model.encode(frames, within, state)
            inputs = repeated((encoded, frames, within), count)
            terms, its_copies = model.observe(*inputs, its_copies, seed)
        state = state._replace(step=state.step + within, encoder=encoded.state)
        results = tf.nest.flatten(terms._replace(parameters=()))
        return results, tf.nest.flatten((state, its_copies))

    specs = _specs(model, every)
    weights = [variable.value for variable in model.trainable_variables]
    parts = tf.nest.flatten((start, copies))
    made = _in_blocks(block, num_blocks, weights, parts, tf.nest.flatten(specs))
    return tf.nest.pack_sequence_as(specs, [values[:, :time] for values in made])


def _specs(model: SequenceModel, steps: int) -> Terms:
    """What `observe` gives for a block, without `parameters`."""

    def of(*sizes: int) -> tf.TensorSpec:
        return tf.TensorSpec([None, steps, *sizes], tf.float32)

    return Terms(
        log_likelihood=of(),
        kl=of(len(model.latent_sizes)),
        kl_per_unit=tuple(of(units) for units in model.latent_sizes),
        log_weight=of(),
        auxiliary=of(),
        at_floor=of(1 + len(model.latent_sizes)),
        parameters=(),
    )


def _in_blocks(
    block: _Block,
    num_blocks: tf.Tensor,
    weights: _Tensors,
    parts: _Tensors,
    specs: list[tf.TensorSpec],
) -> _Tensors:
    """Runs blocks one after the other, and for the gradient once more from the last to the first.

    Args:
        block: what to run.
        num_blocks: scalar int32.
        weights: what is differentiated for, as are those parts that are no whole numbers.
        parts: of the state before the first block, [batch, ...] each.
        specs: of the results of a block.

    Returns:
        The results of all blocks, joined along time.
    """
    num_weights = len(weights)
    floats = [i for i, part in enumerate(parts) if part.dtype.is_floating]

    @tf.custom_gradient
    def run(*sources):
        weights, parts = list(sources[:num_weights]), list(sources[num_weights:])
        made, kept = _forward(block, num_blocks, weights, parts, specs)

        def gradient(*upstream):
            return _backward(block, num_blocks, weights, kept, floats, upstream)

        return made, gradient

    return run(*weights, *parts)


def _forward(block, num_blocks, weights, parts, specs) -> tuple[_Tensors, _Tensors]:
    """The joined results, and of all blocks the states before them, [blocks, batch, ...]."""

    def body(index, parts, kept, made):
        results, after = block(index, weights, parts)
        kept = [array.write(index, part) for array, part in zip(kept, parts, strict=True)]
        made = [array.write(index, result) for array, result in zip(made, results, strict=True)]
        return index + 1, after, kept, made

    arrays = [
        [tf.TensorArray(v.dtype, num_blocks, element_shape=_open(v.shape)) for v in values]
        for values in (parts, specs)
    ]
    _, _, kept, made = tf.while_loop(
        lambda index, *_: index < num_blocks,
        body,
        (tf.constant(0), parts, *arrays),
        shape_invariants=(
            tf.TensorShape([]),
            [_open(part.shape) for part in parts],
            *([tf.TensorShape(None) for _ in values] for values in arrays),
        ),
        parallel_iterations=1,
    )
    return [_joined(array.stack()) for array in made], [array.stack() for array in kept]


def _backward(block, num_blocks, weights, kept, floats, upstream) -> tuple[Any, ...]:
    """The gradients for the weights and for the parts of the state before the first block."""

    def body(index, of_weights, of_parts):
        parts = [tf.gather(values, index) for values in kept]
        with tf.GradientTape() as tape:
            sources = [*weights, *(parts[i] for i in floats)]
            tape.watch(sources)
            results, after = block(index, weights, parts)
        every = [result.shape[1] for result in results]
        targets = [*results, *(after[i] for i in floats)]
        of_targets = [_block_of(u, index, n) for u, n in zip(upstream, every, strict=True)]
        found = tape.gradient(
            targets,
            sources,
            [*of_targets, *of_parts],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        found, of_parts = found[: len(weights)], found[len(weights) :]
        return index - 1, [a + b for a, b in zip(of_weights, found, strict=True)], of_parts

    of_parts = [tf.zeros_like(kept[i][0]) for i in floats]
    _, of_weights, of_parts = tf.while_loop(
        lambda index, *_: index >= 0,
        body,
        (num_blocks - 1, [tf.zeros_like(weight) for weight in weights], of_parts),
        shape_invariants=(
            tf.TensorShape([]),
            [weight.shape for weight in weights],
            [_open(part.shape) for part in of_parts],
        ),
        parallel_iterations=1,
    )
    every_part = dict(zip(floats, of_parts, strict=True))
    return *of_weights, *(every_part.get(i) for i in range(len(kept)))


def _block_of(values: tf.Tensor, index: tf.Tensor, every: int) -> tf.Tensor:
    """[batch, time, ...] -> [batch, every, ...], block number `index`."""
    shape = tf.shape(values)
    begin = tf.concat([[0, index * every], tf.zeros_like(shape[2:])], axis=0)
    block = tf.slice(values, begin, tf.concat([shape[:1], [every], shape[2:]], axis=0))
    return tf.ensure_shape(block, [None, every, *values.shape[2:]])


def _joined(blocks: tf.Tensor) -> tf.Tensor:
    """[blocks, batch, every, ...] -> [batch, blocks * every, ...]."""
    order = [1, 0, 2, *range(3, blocks.shape.rank)]
    shape = tf.shape(blocks)
    joined = tf.reshape(
        tf.transpose(blocks, order),
        tf.concat([shape[1:2], [shape[0] * shape[2]], shape[3:]], axis=0),
    )
    return tf.ensure_shape(joined, [None, None, *blocks.shape[3:]])


def _open(shape: tf.TensorShape) -> tf.TensorShape:
    """The number of rows is left open: not all operations of a loop's body keep it."""
    return tf.TensorShape([None, *shape[1:]])
