"""Records to batches of similar length: shuffled and endless for training, complete for evaluation.

Sequences differ in length by a factor of 60 (IAM-OnDB), and a batch is as long as its longest
sequence. So sequences are sorted by length, not over the whole dataset, which would fix the company
that each one keeps, but within windows of some thousand shuffled ones. Records stay serialized
until their batch is complete: buffers hold what the file holds, and sequences that are cropped or
padded are decoded once, in one piece.

No Python runs in the loop, and a `tf.train.Checkpoint` of the iterator resumes with the very
batches that would have come next. It holds the buffers of serialized records (15 to 23 MB for
IAM-OnDB). TensorFlow's symbolic checkpoints are not used: a batch took more than twice the
processor time with them, and writing one for IAM-OnDB did not end within a minute.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from stcn_tf.data import records
from stcn_tf.support.errors import UserError

# Shards that are read alternately in training, so that neighbours in a file do not stay neighbours.
_SHARDS_AT_ONCE = 8

# What random numbers are for: each purpose has a stream of its own.
_SHARD_ORDER, _RECORD_ORDER, _BATCH_ORDER, _CROP, _BINARIZATION = range(5)


class Batch(NamedTuple):
    """Sequences, padded to one length.

    Attributes:
        x: [batch, time, features] float32, normalised values, zero from each sequence's end on.
        lengths: [batch] int32, number of steps of each sequence, at least 1.
    """

    x: tf.Tensor
    lengths: tf.Tensor


def train_batches(
    directory: str | os.PathLike,
    *,
    split: str = "train",
    batch_size: int,
    max_length: int = 0,
    window: int = 2000,
    seed: int,
    pad_to_multiple: int = 1,
) -> tf.data.Dataset:
    """Endless stream of full batches, in an order that differs from epoch to epoch.

    Where the split holds probabilities in place of binary values, these are drawn anew for every
    batch. What does not fill a window at the end of an epoch goes into the next epoch's first one.
    The same arguments give the same batches. Two caveats of `tf.data.Dataset.shuffle`: a second
    iterator over one and the same dataset object goes on with the order of later epochs, and a
    checkpoint is to be restored into an iterator that gave no batch yet.

    Args:
        directory: a dataset folder.
        split: the split to read.
        batch_size: number of sequences in each batch.
        max_length: steps; of longer sequences a random piece of this length is taken. 0: whole.
        window: number of sequences that are shuffled and sorted by length together. More mix
            better and pad less, and take memory: twice the window, as stored.
        seed: any integer; another one gives another order and other pieces.
        pad_to_multiple: the time axis is padded to a multiple of this number of steps (fewer
            different shapes: fewer compilations).

    Returns:
        A dataset of `Batch`.

    Raises:
        UserError: an argument out of range, or files that are not as the card says.
    """
    _check_positive(batch_size=batch_size, window=window, pad_to_multiple=pad_to_multiple)
    if max_length < 0:
        raise UserError(f"max_length must be 0 (whole sequences) or more, got {max_length}")
    paths = records.verify(directory, split)
    card = records.read_card(directory)
    holds_probabilities = card.splits[split].holds_probabilities
    # In a window of more than an epoch, sequences would meet themselves. Whole batches only.
    window = min(window, card.splits[split].num_sequences)
    window = max(window // batch_size, 1) * batch_size

    def cut(number: tf.Tensor, serialized: tf.Tensor) -> tf.data.Dataset:
        # Within equal lengths the sort keeps the shuffled order.
        lengths = _cropped(records.parse_lengths(serialized), max_length)
        serialized = tf.gather(serialized, tf.argsort(lengths, stable=True))
        batches = tf.reshape(serialized, [-1, batch_size])  # [window / batch, batch]
        noise = tf.random.stateless_uniform(
            [window // batch_size], tf.random.fold_in(_stream(seed, _BATCH_ORDER), number)
        )
        return tf.data.Dataset.from_tensor_slices(tf.gather(batches, tf.argsort(noise)))

    def decode(number: tf.Tensor, serialized: tf.Tensor) -> Batch:
        values, lengths = records.parse_records(serialized, card.num_features)
        cropped = _cropped(lengths, max_length)
        # Between 0 and length - cropped, both included: 0 for sequences that stay whole. float64
        # keeps the product below length - cropped + 1.
        uniform = tf.random.stateless_uniform(
            [batch_size], tf.random.fold_in(_stream(seed, _CROP), number), dtype=tf.float64
        )
        offsets = tf.cast(uniform * tf.cast(lengths - cropped + 1, tf.float64), tf.int32)
        batch = _batch(values, offsets, cropped, pad_to_multiple, card.num_features)
        if not holds_probabilities:
            return batch
        return _binarized(batch, tf.random.fold_in(_stream(seed, _BINARIZATION), number), card)

    dataset = tf.data.Dataset.from_tensor_slices(paths)
    dataset = dataset.shuffle(len(paths), seed=int(_stream(seed, _SHARD_ORDER)[0]))
    dataset = dataset.interleave(tf.data.TFRecordDataset, cycle_length=_SHARDS_AT_ONCE)
    dataset = dataset.shuffle(window, seed=int(_stream(seed, _RECORD_ORDER)[0])).repeat()
    dataset = dataset.batch(window, drop_remainder=True).enumerate().flat_map(cut)
    return _finish(dataset.enumerate(), decode)


def eval_batches(
    directory: str | os.PathLike,
    *,
    split: str,
    batch_size: int,
    window: int = 2000,
    limit: int = 0,
    pad_to_multiple: int = 1,
) -> tf.data.Dataset:
    """Every sequence of a split exactly once, whole, in an order that never changes.

    Where the split holds probabilities in place of binary values, these are drawn, for the same
    arguments always alike.

    Args:
        directory: a dataset folder.
        split: the split to read.
        batch_size: number of sequences in each batch; the last one may hold fewer.
        window: number of sequences that are sorted by length together.
        limit: only the first so many sequences of the split. 0: all.
        pad_to_multiple: the time axis is padded to a multiple of this number of steps.

    Returns:
        A dataset of `Batch`.

    Raises:
        UserError: an argument out of range, or files that are not as the card says.
    """
    _check_positive(batch_size=batch_size, window=window, pad_to_multiple=pad_to_multiple)
    if limit < 0:
        raise UserError(f"limit must be 0 (all sequences) or more, got {limit}")
    paths = records.verify(directory, split)
    card = records.read_card(directory)
    holds_probabilities = card.splits[split].holds_probabilities
    window = max(window // batch_size, 1) * batch_size

    def cut(serialized: tf.Tensor) -> tf.data.Dataset:
        order = tf.argsort(records.parse_lengths(serialized), stable=True)
        return tf.data.Dataset.from_tensor_slices(tf.gather(serialized, order)).batch(batch_size)

    def decode(number: tf.Tensor, serialized: tf.Tensor) -> Batch:
        values, lengths = records.parse_records(serialized, card.num_features)
        starts = tf.zeros_like(lengths)
        batch = _batch(values, starts, lengths, pad_to_multiple, card.num_features)
        if not holds_probabilities:
            return batch
        return _binarized(batch, tf.random.fold_in(_stream(0, _BINARIZATION), number), card)

    dataset = tf.data.TFRecordDataset(paths)
    if limit:
        dataset = dataset.take(limit)
    return _finish(dataset.batch(window).flat_map(cut).enumerate(), decode)


def _batch(
    values: tf.Tensor,
    offsets: tf.Tensor,
    lengths: tf.Tensor,
    pad_to_multiple: int,
    num_features: int,
) -> Batch:
    multiples = tf.math.floordiv(tf.reduce_max(lengths) + pad_to_multiple - 1, pad_to_multiple)
    num_steps = multiples * pad_to_multiple
    return Batch(records.decode_values(values, offsets, lengths, num_steps, num_features), lengths)


def _binarized(batch: Batch, seed: tf.Tensor, card: records.DatasetCard) -> Batch:
    """Draws 0 or 1 by the probabilities that binary features hold; the padding's are 0."""
    real, probabilities = batch.x[..., : card.num_real], batch.x[..., card.num_real :]
    uniform = tf.random.stateless_uniform(tf.shape(probabilities), seed)  # [0, 1)
    drawn = tf.cast(uniform < probabilities, tf.float32)
    return batch._replace(x=tf.concat([real, drawn], axis=-1))


def _cropped(lengths: tf.Tensor, max_length: int) -> tf.Tensor:
    return tf.minimum(lengths, tf.cast(max_length, lengths.dtype)) if max_length else lengths


def _stream(seed: int, purpose: int) -> np.ndarray:
    """Returns the stateless seed, [2] int64, of the random numbers for one purpose."""
    return np.random.SeedSequence([seed % 2**64, purpose]).generate_state(2).astype(np.int64)


def _finish(dataset: tf.data.Dataset, decode: Callable[..., Batch]) -> tf.data.Dataset:
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    options = tf.data.Options()
    options.deterministic = True
    # Several workers share the stream batch by batch; by file would change what a window holds.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
