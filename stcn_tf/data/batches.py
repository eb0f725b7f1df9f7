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
from stcn_tf.data.card import DatasetCard, read_card
from stcn_tf.seeds import DataStream
from stcn_tf.support.errors import UserError

# Shards that are read alternately in training, so that neighbours in a file do not stay neighbours.
_SHARDS_AT_ONCE = 8


class Batch(NamedTuple):
    """Sequences, padded to one length.

    Attributes:
        x: [batch, time, features] float32, normalised values, zero from each sequence's end on.
        lengths: [batch] int32, number of steps of each sequence, at least 1.
        ids: [batch] strings, the names of the sequences.
        groups: [batch] strings, see `records.Sequence`.
    """

    x: tf.Tensor
    lengths: tf.Tensor
    ids: tf.Tensor
    groups: tf.Tensor

    @property
    def names(self) -> list[str]:
        """The ids as text that may be printed."""
        return _printable(self.ids)

    @property
    def group_names(self) -> list[str]:
        """The groups as text that may be printed."""
        return _printable(self.groups)


def _printable(strings: tf.Tensor) -> list[str]:
    texts = (text.decode(errors="backslashreplace") for text in strings.numpy())
    return [text if text.isprintable() else repr(text)[1:-1] for text in texts]


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
    batch. Windows do not reach over the end of an epoch, so no window and no batch holds a sequence
    twice; what does not fill a batch at the end of an epoch, each time other sequences, is left out
    of that epoch (`batches_per_epoch`).
    The same arguments give the same batches. Two caveats of `tf.data.Dataset.shuffle`: a second
    iterator over one and the same dataset object goes on with the order of later epochs, and a
    checkpoint is to be restored into an iterator that gave no batch yet.

    Args:
        directory: a dataset folder.
        split: the split to read.
        batch_size: number of sequences in each batch.
        max_length: steps; of longer sequences a random piece of this length is taken. 0: whole,
            which is all that is accepted of images.
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
    card = read_card(directory)
    _check_max_length(max_length, card, directory)
    paths = records.verify(directory, split)
    if not batches_per_epoch(card, batch_size, split):
        raise UserError(
            f"--batch_size={batch_size}: the split {split} of {directory} has "
            f"{card.splits[split].num_sequences} sequences; accepted: as many at most"
        )
    holds_probabilities = card.splits[split].holds_probabilities
    # Windows of whole batches.
    window = min(window, card.splits[split].num_sequences)
    window = max(window // batch_size, 1) * batch_size

    def cut(number: tf.Tensor, serialized: tf.Tensor) -> tf.data.Dataset:
        # The last window of an epoch is smaller. Its surplus is cut off before it is sorted, so
        # that it is not always the longest.
        num_batches = tf.shape(serialized)[0] // batch_size
        serialized = serialized[: num_batches * batch_size]
        # Within equal lengths the sort keeps the shuffled order.
        lengths = _cropped(records.parse_lengths(serialized), max_length)
        serialized = tf.gather(serialized, tf.argsort(lengths, stable=True))
        batches = tf.reshape(serialized, [-1, batch_size])  # [window / batch, batch]
        noise = tf.random.stateless_uniform(
            [num_batches], _fold_in(seed, DataStream.BATCH_ORDER, number)
        )
        return tf.data.Dataset.from_tensor_slices(tf.gather(batches, tf.argsort(noise)))

    def decode(number: tf.Tensor, serialized: tf.Tensor) -> Batch:
        values, lengths, ids, groups = records.parse_records(serialized, card.num_features)
        cropped = _cropped(lengths, max_length)
        # Between 0 and length - cropped, both included: 0 for sequences that stay whole. float64
        # keeps the product below length - cropped + 1.
        uniform = tf.random.stateless_uniform(
            [batch_size],
            _fold_in(seed, DataStream.CROP, number),
            dtype=tf.float64,
        )
        offsets = tf.cast(uniform * tf.cast(lengths - cropped + 1, tf.float64), tf.int32)
        x = _padded(values, offsets, cropped, pad_to_multiple, card.num_features)
        batch = Batch(x, cropped, ids, groups)
        if not holds_probabilities:
            return batch
        return _binarized(batch, _fold_in(seed, DataStream.BINARIZATION, number), card)

    dataset = tf.data.Dataset.from_tensor_slices(paths)
    dataset = dataset.shuffle(len(paths), seed=int(_stream(seed, DataStream.SHARD_ORDER)[0]))
    dataset = dataset.interleave(tf.data.TFRecordDataset, cycle_length=_SHARDS_AT_ONCE)
    dataset = dataset.shuffle(window, seed=int(_stream(seed, DataStream.RECORD_ORDER)[0])).repeat()
    dataset = _windows(dataset, card.splits[split].num_sequences, window)
    dataset = dataset.enumerate().flat_map(cut)
    return _finish(dataset.enumerate(), decode)


def batches_per_epoch(card: DatasetCard, batch_size: int, split: str = "train") -> int:
    """Batches that `train_batches` makes of one pass over a split."""
    return card.splits[split].num_sequences // batch_size


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
    card = read_card(directory)
    holds_probabilities = card.splits[split].holds_probabilities
    window = max(window // batch_size, 1) * batch_size

    def cut(serialized: tf.Tensor) -> tf.data.Dataset:
        order = tf.argsort(records.parse_lengths(serialized), stable=True)
        return tf.data.Dataset.from_tensor_slices(tf.gather(serialized, order)).batch(batch_size)

    def decode(number: tf.Tensor, serialized: tf.Tensor) -> Batch:
        values, lengths, ids, groups = records.parse_records(serialized, card.num_features)
        starts = tf.zeros_like(lengths)
        x = _padded(values, starts, lengths, pad_to_multiple, card.num_features)
        batch = Batch(x, lengths, ids, groups)
        if not holds_probabilities:
            return batch
        return _binarized(batch, _fold_in(0, DataStream.BINARIZATION, number), card)

    dataset = tf.data.TFRecordDataset(paths)
    if limit:
        dataset = dataset.take(limit)
    return _finish(dataset.batch(window).flat_map(cut).enumerate(), decode)


def _windows(dataset: tf.data.Dataset, num_sequences: int, window: int) -> tf.data.Dataset:
    """An endless stream of epochs, cut into windows of which none reaches into the next epoch.

    By the numbers of its elements, not by the end of a dataset within `repeat`: only a shuffle that
    `repeat` follows at once is resumed exactly by a checkpoint.
    """
    per_epoch = -(-num_sequences // window)
    last = num_sequences - (per_epoch - 1) * window

    def number(index: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        epoch, position = index // num_sequences, index % num_sequences
        return epoch * per_epoch + position // window

    def size(number: tf.Tensor) -> tf.Tensor:
        is_last = number % per_epoch == per_epoch - 1
        return tf.where(is_last, tf.constant(last, tf.int64), tf.constant(window, tf.int64))

    def gathered(_: tf.Tensor, elements: tf.data.Dataset) -> tf.data.Dataset:
        return elements.map(lambda _, element: element).batch(window)

    return dataset.enumerate().group_by_window(number, gathered, window_size_func=size)


def _padded(
    values: tf.Tensor,
    offsets: tf.Tensor,
    lengths: tf.Tensor,
    pad_to_multiple: int,
    num_features: int,
) -> tf.Tensor:
    multiples = tf.math.floordiv(tf.reduce_max(lengths) + pad_to_multiple - 1, pad_to_multiple)
    num_steps = multiples * pad_to_multiple
    return records.decode_values(values, offsets, lengths, num_steps, num_features)


def _binarized(batch: Batch, seed: tf.Tensor, card: DatasetCard) -> Batch:
    """Draws 0 or 1 by the probabilities that binary features hold; the padding's are 0."""
    real, probabilities = batch.x[..., : card.num_real], batch.x[..., card.num_real :]
    uniform = tf.random.stateless_uniform(tf.shape(probabilities), seed)  # [0, 1)
    drawn = tf.cast(uniform < probabilities, tf.float32)
    return batch._replace(x=tf.concat([real, drawn], axis=-1))


def _cropped(lengths: tf.Tensor, max_length: int) -> tf.Tensor:
    return tf.minimum(lengths, tf.cast(max_length, lengths.dtype)) if max_length else lengths


def _stream(seed: int, purpose: DataStream) -> np.ndarray:
    """Returns the stateless seed, [2] int64, of the random numbers for one purpose."""
    return np.random.SeedSequence([seed % 2**64, purpose]).generate_state(2).astype(np.int64)


def _fold_in(seed: int, purpose: DataStream, number: tf.Tensor) -> tf.Tensor:
    """The stateless seed for one of the elements that a purpose has."""
    return tf.random.fold_in(_stream(seed, purpose), number)


def _finish(dataset: tf.data.Dataset, decode: Callable[..., Batch]) -> tf.data.Dataset:
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _check_max_length(max_length: int, card: DatasetCard, directory: str | os.PathLike) -> None:
    if max_length < 0:
        raise UserError(f"max_length must be 0 (whole sequences) or more, got {max_length}")
    if max_length and card.modality.kind == "image":
        raise UserError(
            f"--max_length={max_length}: {directory} holds images, of which a piece is none; "
            "accepted: 0, whole images"
        )


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
