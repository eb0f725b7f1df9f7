"""The record format: writes a dataset, verifies its files, parses its records.

A dataset is one folder::

    dataset.json                    the card, see `stcn_tf.data.card`
    train-00000-of-00011.tfrecord   the shards of a split, in order
    ...

A record is a `tf.train.Example` with the features `id` (bytes, the name of the sequence), `length`
(int64, its number of steps T), `x` (bytes, the normalised values [T, D] as little-endian float32,
row-major) and, where it is known, `group` (bytes, such as the form or the speaker that it shares
with others). The same input gives the same bytes, so that the checksums in
the card also tell whether two preparations agree.
"""

import dataclasses
import hashlib
import itertools
import math
import mmap
import os
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from stcn_tf.data.card import (
    CARD_NAME,
    FORMAT_VERSION,
    QUANTILES,
    SHARD_NAME,
    SPLIT_NAME,
    DatasetCard,
    Feature,
    Modality,
    Normalization,
    Shard,
    Split,
    read_card,
)
from stcn_tf.data.verified import sha256_of
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home, replacing_folder

# Of a record in its file: its number of bytes and a checksum of that before it, one of it behind.
_FRAME, _CHECKSUM_BYTES = struct.Struct("<Q4x"), 4
_VALUE_BYTES = 4  # one little-endian float32
_MAX_SEQUENCE_BYTES = 2**31 - 2**20  # a serialized record has less than 2 GiB
_ID_BYTES = 16  # of the digests by which ids are compared


class Sequence(NamedTuple):
    """What `write_dataset` takes; a pair will do, too.

    Attributes:
        id: the name, of which a split has no other.
        values: [time, features], normalised.
        group: what the sequence shares with others that are alike for it: its form or speaker, say.
            Standard errors are taken over groups. Empty: it is not known.
    """

    id: str
    values: np.ndarray
    group: str = ""


class Parsed(NamedTuple):
    """What `parse_records` gives, [batch] each."""

    values: tf.Tensor  # strings, see `decode_values`
    lengths: tf.Tensor  # int32, steps
    ids: tf.Tensor  # strings
    groups: tf.Tensor  # strings, empty where none is known


def write_dataset(
    out_dir: str | os.PathLike,
    *,
    name: str,
    features: Iterable[Feature],
    splits: Mapping[str, Iterable[Sequence | tuple[str, np.ndarray]]],
    normalization: Normalization,
    source_sha256: str,
    command: str,
    extra: Mapping[str, Any] | None = None,
    modality: Modality | None = None,
    probabilities: Collection[str] = (),
    sequences_per_shard: int = 1000,
) -> DatasetCard:
    """Writes a dataset, all of it or nothing.

    Until everything is on disk, and after an error or Ctrl-C, `out_dir` is as it was.

    Args:
        out_dir: the folder to make. If it exists, it must be empty or hold a dataset and nothing
            else, which is then replaced.
        name: name of the dataset.
        features: the channels, real ones first, then binary ones.
        splits: for each split, in order, its sequences. Read once, one sequence at a time; 16 bytes
            of each are kept in memory.
        normalization: how the values were normalised.
        source_sha256: checksum of what the dataset was made from.
        command: the command that makes it.
        extra: more facts for the card, anything that JSON can hold.
        modality: what the sequences are; None: what the names of the features tell. All sequences
            of images are as long as an image has pixels.
        probabilities: the splits that hold probabilities in place of binary values.
        sequences_per_shard: number of sequences in each file (fewer in the last).

    Returns:
        The card, as written to `out_dir`.

    Raises:
        UserError: `out_dir` holds something else or cannot be written to, or a sequence is not what
            the features say.
    """
    # Made before the first sequence is read, because it refuses what does not fit together.
    card = DatasetCard(
        format_version=FORMAT_VERSION,
        name=name,
        features=tuple(features),
        splits={},
        normalization=normalization,
        source_sha256=source_sha256,
        command=command,
        extra=dict(extra or {}),
        modality=modality,
    )
    if sequences_per_shard < 1:
        raise UserError(f"sequences_per_shard must be at least 1, got {sequences_per_shard}")
    if not splits:
        raise UserError(f"dataset {name!r}: at least one split is needed")
    for split in splits:
        if not SPLIT_NAME.fullmatch(split):
            raise UserError(f"split name {split!r} may hold letters, digits and underscores only")
    check_replaceable(out_dir)
    with replacing_folder(out_dir) as partial:
        written = {
            split: _write_split(
                partial,
                split,
                sequences,
                card.features,
                sequences_per_shard,
                split in probabilities,
            )
            for split, sequences in splits.items()
        }
        card = dataclasses.replace(card, splits=written)
        (partial / CARD_NAME).write_text(card.to_json(), encoding="utf-8")
        check_replaceable(out_dir)
    return card


def check_replaceable(out_dir: str | os.PathLike) -> None:
    """Checks that a dataset may be written to `out_dir`.

    Raises:
        UserError: `out_dir` holds anything but a dataset.
    """
    out_dir = Path(expand_home(out_dir))
    if not out_dir.exists():
        return
    if not out_dir.is_dir():
        raise UserError(f"{out_dir}: is a file; a new, an empty or a dataset folder is needed")
    names = sorted(path.name for path in out_dir.iterdir())
    # A run directory, too, may keep a card: a card alone does not make a folder replaceable.
    foreign = [name for name in names if name != CARD_NAME and not SHARD_NAME.fullmatch(name)]
    if foreign:
        raise UserError(
            f"{out_dir}: holds {foreign[0]!r}, which is no part of a dataset; "
            "only a new, an empty or a dataset folder is written to"
        )
    if names and CARD_NAME not in names:
        raise UserError(
            f"{out_dir}: is not empty and has no {CARD_NAME}; "
            "only a new, an empty or a dataset folder is written to"
        )


def verify(directory: str | os.PathLike, split: str, again: bool = False) -> list[str]:
    """Checks the files of one split against the card: existence, size, checksum, dimension.

    Checksums of files that have not changed since they were last computed are remembered
    (`stcn_tf.data.verified`).

    Args:
        directory: a dataset folder.
        split: the name of a split.
        again: compute all checksums anew.

    Returns:
        The paths of the shards, in order.

    Raises:
        UserError: naming the first file that is missing, truncated, corrupted or of another
            number of features, or, where there is no such split, those there are.
    """
    directory = Path(expand_home(directory))
    card = read_card(directory)
    if split not in card.splits:
        raise UserError(
            f"{directory / CARD_NAME}: there is no split {split!r}, only {', '.join(card.splits)}"
        )
    shards = card.splits[split].shards
    paths = [directory / shard.file for shard in shards]
    for path, shard in zip(paths, shards, strict=True):
        check_size(path, shard)
    by_path = dict(zip(paths, shards, strict=True))

    def check(path: Path, sha256: str) -> None:
        if sha256 == by_path[path].sha256:
            _check_frames(path, by_path[path])

    for path, shard, sha256 in zip(paths, shards, sha256_of(paths, again, check), strict=True):
        if sha256 != shard.sha256:
            raise UserError(
                f"{path}: shard is corrupted: its sha256 is {sha256[:12]}... instead of "
                f"{shard.sha256[:12]}...; prepare the dataset again"
            )
    for path in paths:
        # Shards that are as they were written have records of one kind: the first tells.
        first = tf.data.TFRecordDataset(str(path)).batch(1).take(1)
        try:
            parse_records(next(iter(first)), card.num_features)
        except tf.errors.InvalidArgumentError as error:
            raise UserError(
                f"{path}: its records do not have the {card.num_features} features that "
                f"{CARD_NAME} says; prepare the dataset again"
            ) from error
    return [str(path) for path in paths]


def check_size(path: Path, shard: Shard) -> None:
    """Checks that a shard is there, and as long as the card says: what `verify` does first.

    Raises:
        UserError: naming the file.
    """
    if not path.is_file():
        raise UserError(f"{path}: shard is missing; prepare the dataset again")
    num_bytes = path.stat().st_size
    if num_bytes != shard.num_bytes:
        what = "truncated" if num_bytes < shard.num_bytes else "too long"
        raise UserError(
            f"{path}: shard is {what}: {num_bytes} bytes instead of {shard.num_bytes}; "
            "prepare the dataset again"
        )


def _check_frames(path: Path, shard: Shard) -> None:
    """Checks where records say that they end.

    TensorFlow takes as much memory as a record says that it has bytes, before it reads them.
    """
    position = count = 0
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while position + _FRAME.size <= shard.num_bytes and count < shard.num_sequences:
            (num_bytes,) = _FRAME.unpack_from(content, position)
            position += _FRAME.size + num_bytes + _CHECKSUM_BYTES
            count += 1
    if (position, count) != (shard.num_bytes, shard.num_sequences):
        raise UserError(
            f"{path}: its bytes are not the {shard.num_sequences} records that {CARD_NAME} says; "
            "prepare the dataset again"
        )


def parse_lengths(serialized: tf.Tensor) -> tf.Tensor:
    """Reads only the lengths of serialized records.

    Args:
        serialized: [batch] strings, the records.

    Returns:
        [batch] int64.
    """
    schema = {"length": tf.io.FixedLenFeature((), tf.int64)}
    return tf.io.parse_example(serialized, schema)["length"]


def parse_records(serialized: tf.Tensor, num_features: int) -> Parsed:
    """Reads serialized records, still without decoding their values, and checks their size.

    Args:
        serialized: [batch] strings, the records.
        num_features: number of features the card promises.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, if a record does not hold
            length x num_features values.
    """
    schema = {
        "id": tf.io.FixedLenFeature((), tf.string),
        "length": tf.io.FixedLenFeature((), tf.int64),
        "x": tf.io.FixedLenFeature((), tf.string),
        "group": tf.io.FixedLenFeature((), tf.string, default_value=""),
    }
    records = tf.io.parse_example(serialized, schema)
    lengths, num_bytes = records["length"], tf.strings.length(records["x"])
    # Not by a product, which may overflow to what is there.
    step_bytes = num_features * _VALUE_BYTES
    whole, rest = tf.cast(num_bytes // step_bytes, tf.int64), num_bytes % step_bytes
    wrong = (lengths < 1) | (lengths != whole) | (rest != 0)
    check = tf.debugging.Assert(
        tf.logical_not(tf.reduce_any(wrong)),
        [
            f"records do not hold length x {num_features} float32 values, as the card says; "
            "their ids, lengths, bytes:",
            tf.boolean_mask(records["id"], wrong),
            tf.boolean_mask(lengths, wrong),
            tf.boolean_mask(num_bytes, wrong),
        ],
    )
    with tf.control_dependencies([check] if check is not None else []):
        values, lengths = tf.identity(records["x"]), tf.cast(lengths, tf.int32)
    return Parsed(values, lengths, records["id"], records["group"])


def decode_values(
    values: tf.Tensor,
    offsets: tf.Tensor,
    lengths: tf.Tensor,
    num_steps: tf.Tensor,
    num_features: int,
) -> tf.Tensor:
    """Decodes a contiguous piece of each sequence and pads it with zeros.

    Args:
        values: [batch] strings, as `parse_records` returns them.
        offsets: [batch] int32, first step of the piece.
        lengths: [batch] int32, number of steps of the piece.
        num_steps: scalar int32, number of steps to pad to, at least the largest of `lengths`.
        num_features: number of features.

    Returns:
        [batch, num_steps, num_features] float32.
    """
    step_bytes = num_features * _VALUE_BYTES
    pieces = tf.strings.substr(values, offsets * step_bytes, lengths * step_bytes)
    # Decoding to a fixed length fills the rest with zero bytes, and those are the float32 0.
    flat = tf.io.decode_raw(
        pieces, tf.float32, little_endian=True, fixed_length=num_steps * step_bytes
    )
    x = tf.reshape(flat, [-1, num_steps, num_features])
    x.set_shape([values.shape[0], None, num_features])
    return x


def _write_split(
    folder: Path,
    split: str,
    sequences: Iterable[Sequence | tuple[str, np.ndarray]],
    features: tuple[Feature, ...],
    sequences_per_shard: int,
    holds_probabilities: bool,
) -> Split:
    lengths: Counter[int] = Counter()
    ids = bytearray()
    shard_sizes: list[int] = []
    records = _records(split, sequences, features, holds_probabilities, lengths, ids)
    for record in records:
        # The number of shards belongs in their names and is known only at the end.
        path = folder / f"{split}-{len(shard_sizes):05d}.partial"
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(record)
            size = 1
            while size < sequences_per_shard and (record := next(records, None)) is not None:
                writer.write(record)
                size += 1
        shard_sizes.append(size)
    if not shard_sizes:
        raise UserError(f"split {split!r}: there are no sequences")
    _check_ids(folder, split, ids)

    shards = []
    for index, size in enumerate(shard_sizes):
        path = folder / f"{split}-{index:05d}-of-{len(shard_sizes):05d}.tfrecord"
        (folder / f"{split}-{index:05d}.partial").rename(path)
        shards.append(Shard(path.name, size, path.stat().st_size, _sha256(path)))
    return Split(
        num_sequences=sum(shard_sizes),
        num_steps=sum(length * count for length, count in lengths.items()),
        length_quantiles=_quantiles(lengths),
        shards=tuple(shards),
        holds_probabilities=holds_probabilities,
    )


def _records(
    split: str,
    sequences: Iterable[Sequence | tuple[str, np.ndarray]],
    features: tuple[Feature, ...],
    holds_probabilities: bool,
    lengths: Counter[int],
    ids: bytearray,
) -> Iterator[bytes]:
    """Yields the checked sequences as serialized records, counts lengths, notes digests of ids."""
    for sequence_id, values, group in itertools.starmap(Sequence, sequences):
        if not isinstance(sequence_id, str) or not sequence_id:
            raise UserError(f"split {split!r}: sequence id {sequence_id!r} is not a text")
        where = f"split {split!r}: sequence {sequence_id!r}"
        # Digests of one size: millions of ids as Python strings would take as many hundred bytes.
        ids += hashlib.blake2b(sequence_id.encode(), digest_size=_ID_BYTES).digest()
        x = _checked_values(where, values, features, holds_probabilities)
        lengths[len(x)] += 1
        example = tf.train.Example()
        example.features.feature["id"].bytes_list.value.append(sequence_id.encode())
        example.features.feature["length"].int64_list.value.append(len(x))
        example.features.feature["x"].bytes_list.value.append(x.tobytes())
        if group:
            example.features.feature["group"].bytes_list.value.append(group.encode())
        # The order of a protobuf map is otherwise left open.
        yield example.SerializeToString(deterministic=True)


def _check_ids(folder: Path, split: str, ids: bytearray) -> None:
    """Checks that no two of the sequences just written have one id."""
    digests = np.frombuffer(bytes(ids), f"V{_ID_BYTES}")
    order = np.argsort(digests, kind="stable")
    twice = np.flatnonzero(digests[order[1:]] == digests[order[:-1]])
    if len(twice):
        paths = [str(path) for path in sorted(folder.glob(f"{split}-*.partial"))]
        # The second of the pair that the file has first.
        index = int(order[1:][twice].min())
        (record,) = tf.data.TFRecordDataset(paths).skip(index).take(1).as_numpy_iterator()
        sequence_id = tf.train.Example.FromString(record).features.feature["id"].bytes_list.value[0]
        raise UserError(
            f"split {split!r}: sequence {sequence_id.decode()!r}: there are two of this id"
        )


def _checked_values(
    where: str, values: np.ndarray, features: tuple[Feature, ...], holds_probabilities: bool
) -> np.ndarray:
    """Returns the values as contiguous little-endian float32 [time, features]."""
    try:
        with np.errstate(over="ignore"):  # becomes infinite, which is told below
            x = np.ascontiguousarray(values, dtype="<f4")
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: values are not an array of numbers ({error})") from error
    shape = np.shape(values)  # ascontiguousarray makes scalars 1-D
    if len(shape) != 2 or shape[1] != len(features):
        raise UserError(f"{where}: shape {shape} is not [time, {len(features)} features]")
    if not len(x):
        raise UserError(f"{where}: there are no time steps")
    if x.nbytes > _MAX_SEQUENCE_BYTES:
        raise UserError(
            f"{where}: {len(x)} steps are too long for a record, which holds "
            f"{_MAX_SEQUENCE_BYTES // (_VALUE_BYTES * len(features))}; cut the sequence"
        )
    for index, feature in enumerate(features):
        channel = x[:, index]
        finite = np.isfinite(channel)
        if not finite.all():
            step = int(np.argmin(finite))
            raise UserError(
                f"{where}: {feature.name} is {channel[step]} at step {step}, not finite"
            )
        if feature.kind == "binary":
            if holds_probabilities:
                allowed, accepted = (channel >= 0) & (channel <= 1), "a probability"
            else:
                allowed, accepted = (channel == 0) | (channel == 1), "0 or 1"
            if not allowed.all():
                step = int(np.argmin(allowed))
                raise UserError(
                    f"{where}: binary {feature.name} is {channel[step]:g} at step {step}, "
                    f"not {accepted}"
                )
    return x


def _quantiles(lengths: Counter[int]) -> dict[str, int]:
    ordered = sorted(lengths)
    cumulative = np.cumsum([lengths[length] for length in ordered])
    # The rounding takes back the binary error of, say, 0.95 * 20, which must be 19.
    ranks = [math.ceil(round(float(share) * int(cumulative[-1]), 6)) for share in QUANTILES]
    return {
        share: ordered[int(np.searchsorted(cumulative, rank))]
        for share, rank in zip(QUANTILES, ranks, strict=True)
    }


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
