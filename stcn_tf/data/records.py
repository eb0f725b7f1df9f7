"""The record format, both directions, and the dataset card beside the records.

A dataset is one folder::

    dataset.json                    the card: features, normalisation, splits, checksums
    train-00000-of-00011.tfrecord   the shards of a split, in order
    ...

A record is a `tf.train.Example` with three features: `id` (bytes, the name of the sequence),
`length` (int64, its number of steps T) and `x` (bytes, the normalised values [T, D] as
little-endian float32, row-major). The same input gives the same bytes, so that the checksums in
the card also tell whether two preparations agree.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from stcn_tf.data.verified import sha256_of
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import replacing_folder

FORMAT_VERSION = 1
CARD_NAME = "dataset.json"
FEATURE_KINDS = ("real", "binary")
MODALITIES = ("handwriting", "audio", "image", "other")
HANDWRITING_FEATURES = ("dx", "dy", "pen")
QUANTILES = ("0", "0.05", "0.25", "0.5", "0.75", "0.95", "1")

_SPLIT_NAME = re.compile(r"[A-Za-z0-9_]+")
_SHARD_NAME = re.compile(r"[A-Za-z0-9_]+-\d{5}-of-\d{5}\.tfrecord")
_VALUE_BYTES = 4  # one little-endian float32
_MAX_SEQUENCE_BYTES = 2**31 - 2**20  # a serialized record has less than 2 GiB
_ID_BYTES = 16  # of the digests by which ids are compared


@dataclass(frozen=True)
class Feature:
    """One channel of a sequence.

    Attributes:
        name: short name, unique within the dataset, such as "dx".
        kind: "real" or "binary" (values 0 and 1).
        unit: the unit of the value before normalisation.
        meaning: one sentence for the reader of the card.
    """

    name: str
    kind: str
    unit: str
    meaning: str

    def __post_init__(self):
        if self.kind not in FEATURE_KINDS:
            raise UserError(
                f"feature {self.name!r}: kind {self.kind!r} is not one of "
                f"{', '.join(FEATURE_KINDS)}"
            )


@dataclass(frozen=True)
class Modality:
    """What the sequences are, for whoever draws or plays them.

    Attributes:
        kind: "handwriting" (a step is dx, dy, pen), "audio" (a step is a frame of consecutive
            samples, one feature each), "image" (a step is one pixel, row by row from the top left)
            or "other".
        sample_rate_hz: of audio; else 0.
        height: rows of an image; else 0.
        width: pixels of a row; else 0.
    """

    kind: str
    sample_rate_hz: int = 0
    height: int = 0
    width: int = 0

    def __post_init__(self):
        if self.kind not in MODALITIES:
            raise UserError(f"modality: {self.kind!r} is not one of {', '.join(MODALITIES)}")
        for kind, name in (
            ("audio", "sample_rate_hz"),
            ("image", "height"),
            ("image", "width"),
        ):
            value = getattr(self, name)
            if (value > 0) != (self.kind == kind) or value < 0:
                accepted = "1 or more" if self.kind == kind else "0"
                raise UserError(f"modality {self.kind}: {name} {value}; accepted: {accepted}")

    @classmethod
    def of_features(cls, features: Iterable[Feature]) -> "Modality":
        """What features tell by their names alone: handwriting, or other."""
        is_handwriting = tuple(feature.name for feature in features) == HANDWRITING_FEATURES
        return cls("handwriting" if is_handwriting else "other")


@dataclass(frozen=True)
class Normalization:
    """The affine map between raw and normalised values: raw = x * std + mean.

    Attributes:
        kind: how mean and std came about, such as "vrnn", "channel" or "none"; "unknown" on the
            card of an imported model whose records are not known.
        mean: one value per feature, 0 for binary features.
        std: one value per feature, positive, 1 for binary features.
    """

    kind: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if len(self.mean) != len(self.std):
            raise UserError(
                f"normalization: {len(self.mean)} means but {len(self.std)} standard deviations; "
                "one of each per feature is needed"
            )
        if not all(math.isfinite(value) for value in self.mean + self.std):
            raise UserError("normalization: mean and std must be finite")
        if not all(value > 0 for value in self.std):
            raise UserError(f"normalization: std must be positive, got {list(self.std)}")

    def normalize(self, raw: np.ndarray) -> np.ndarray:
        """Maps raw values [..., features] to normalised ones, float32 (computed in float64)."""
        raw = np.asarray(raw, np.float64)
        return ((raw - self._checked(raw, self.mean)) / np.asarray(self.std)).astype(np.float32)

    def denormalize(self, x: np.ndarray) -> np.ndarray:
        """Maps normalised values [..., features] to raw ones, float32 (computed in float64)."""
        x = np.asarray(x, np.float64)
        return (x * np.asarray(self.std) + self._checked(x, self.mean)).astype(np.float32)

    @staticmethod
    def _checked(values: np.ndarray, per_feature: tuple[float, ...]) -> np.ndarray:
        # A last axis of 1 would broadcast in silence.
        if values.ndim == 0 or values.shape[-1] != len(per_feature):
            raise UserError(
                f"normalization: values of shape {values.shape} do not end in "
                f"{len(per_feature)} features"
            )
        return np.asarray(per_feature)


@dataclass(frozen=True)
class Shard:
    """One file of records. `num_bytes` is its size, `sha256` its checksum in hexadecimal digits."""

    file: str
    num_sequences: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Attributes:
        num_sequences: number of sequences.
        num_steps: number of time steps of all sequences together.
        length_quantiles: for each share, the shortest length that at least this share of the
            sequences does not exceed ("0" is the shortest sequence, "1" the longest).
        shards: the files, in order.
        holds_probabilities: whether the stored values of binary features are probabilities of 1,
            from which `batches` draws 0 or 1 anew each time a sequence is read for training
            (dynamic binarization), instead of 0 and 1.
    """

    num_sequences: int
    num_steps: int
    length_quantiles: dict[str, int]
    shards: tuple[Shard, ...]
    holds_probabilities: bool = False


@dataclass(frozen=True)
class DatasetCard:
    """What a folder of records holds.

    Attributes:
        format_version: version of this format.
        name: name of the dataset.
        features: the channels, real ones first, then binary ones.
        splits: the parts by name.
        normalization: how the stored values relate to raw ones.
        source_sha256: checksum of what the dataset was made from.
        command: the command that made it.
        extra: more facts, anything that JSON can hold.
        modality: what the sequences are. Where it is left out, as in cards of earlier versions,
            the names of the features tell.
    """

    format_version: int
    name: str
    features: tuple[Feature, ...]
    splits: dict[str, Split]
    normalization: Normalization
    source_sha256: str
    command: str
    extra: dict[str, Any]
    modality: Modality | None = None

    def __post_init__(self):
        _check_features(self.features, self.normalization)
        if self.modality is None:
            object.__setattr__(self, "modality", Modality.of_features(self.features))
        _check_modality(self.modality, self.features)
        for name, split in self.splits.items():
            _check_image_lengths(name, split, self.modality)

    @property
    def is_placeholder(self) -> bool:
        """Whether the card is that of no records: an imported model's whose records are not known.

        Only the number and the kinds of its features mean anything.
        """
        return not self.splits

    @property
    def num_features(self) -> int:
        """Number of channels."""
        return len(self.features)

    @property
    def num_real(self) -> int:
        """Number of real-valued channels; they come first."""
        return sum(feature.kind == "real" for feature in self.features)

    @property
    def num_binary(self) -> int:
        """Number of binary channels; they come last."""
        return self.num_features - self.num_real

    def to_json(self) -> str:
        """Returns the text of the card file."""
        content = dataclasses.asdict(self)
        content["extra"] = _plain_json(self.extra)
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = CARD_NAME) -> "DatasetCard":
        """Reads the text of a card file.

        Args:
            text: what `to_json` wrote.
            where: the file to name in errors.

        Raises:
            UserError: not JSON, another format version, something missing or of the wrong kind.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not a dataset card: not JSON ({error})") from error
        if not isinstance(content, dict) or "format_version" not in content:
            raise UserError(f"{where}: not a dataset card: it has no format_version")
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"{where}: format_version {version!r} is not readable, only {FORMAT_VERSION} is; "
                "prepare the dataset again"
            )
        try:
            return cls(
                format_version=version,
                name=_typed(content, "name", str),
                features=tuple(_build(Feature, item) for item in _typed(content, "features", list)),
                splits={
                    name: _split_from_json(item)
                    for name, item in _typed(content, "splits", dict).items()
                },
                normalization=_build(Normalization, _typed(content, "normalization", dict)),
                source_sha256=_typed(content, "source_sha256", str),
                command=_typed(content, "command", str),
                extra=_typed(content, "extra", dict),
                modality=_build(Modality, content["modality"]) if "modality" in content else None,
            )
        except (UserError, TypeError, ValueError) as error:
            raise UserError(f"{where}: not a usable dataset card: {error}") from error


def write_dataset(
    out_dir: str | os.PathLike,
    *,
    name: str,
    features: Iterable[Feature],
    splits: Mapping[str, Iterable[tuple[str, np.ndarray]]],
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
        splits: for each split, in order, its sequences: (id, normalised values [time, features]).
            Read once, one sequence at a time; 16 bytes of each are kept in memory.
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
    features = tuple(features)
    extra = _plain_json(dict(extra or {}))
    _check_features(features, normalization)
    modality = modality or Modality.of_features(features)
    _check_modality(modality, features)
    if sequences_per_shard < 1:
        raise UserError(f"sequences_per_shard must be at least 1, got {sequences_per_shard}")
    if not splits:
        raise UserError(f"dataset {name!r}: at least one split is needed")
    for split in splits:
        if not _SPLIT_NAME.fullmatch(split):
            raise UserError(f"split name {split!r} may hold letters, digits and underscores only")
    check_replaceable(out_dir)
    with replacing_folder(out_dir) as partial:
        card = DatasetCard(
            format_version=FORMAT_VERSION,
            name=name,
            features=features,
            splits={
                split: _write_split(
                    partial, split, sequences, features, sequences_per_shard, split in probabilities
                )
                for split, sequences in splits.items()
            },
            normalization=normalization,
            source_sha256=source_sha256,
            command=command,
            extra=extra,
            modality=modality,
        )
        (partial / CARD_NAME).write_text(card.to_json(), encoding="utf-8")
        check_replaceable(out_dir)
    return card


def check_replaceable(out_dir: str | os.PathLike) -> None:
    """Checks that a dataset may be written to `out_dir`.

    Raises:
        UserError: `out_dir` holds anything but a dataset.
    """
    out_dir = Path(out_dir)
    if not out_dir.exists():
        return
    if not out_dir.is_dir():
        raise UserError(f"{out_dir}: is a file; a new, an empty or a dataset folder is needed")
    names = sorted(path.name for path in out_dir.iterdir())
    # A run directory, too, may keep a card: a card alone does not make a folder replaceable.
    foreign = [name for name in names if name != CARD_NAME and not _SHARD_NAME.fullmatch(name)]
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


def read_card(path_or_dir: str | os.PathLike) -> DatasetCard:
    """Reads a dataset card.

    Args:
        path_or_dir: a dataset folder, or a card file anywhere (such as the copy that a run
            directory keeps).

    Raises:
        UserError: there is none, or it cannot be used; the message names the file.
    """
    path = Path(path_or_dir)
    if path.is_dir():
        if not (path / CARD_NAME).is_file():
            kind = "is empty" if not any(path.iterdir()) else "is not a dataset folder"
            raise UserError(f"{path}: {kind}: there is no {CARD_NAME} in it")
        path = path / CARD_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: does not exist; a dataset folder (it has a {CARD_NAME}) is needed"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a dataset card: not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return DatasetCard.from_json(text, where=str(path))


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
    directory = Path(directory)
    card = read_card(directory)
    if split not in card.splits:
        raise UserError(
            f"{directory / CARD_NAME}: there is no split {split!r}, only {', '.join(card.splits)}"
        )
    shards = card.splits[split].shards
    paths = [directory / shard.file for shard in shards]
    for path, shard in zip(paths, shards, strict=True):
        check_size(path, shard)
    for path, shard, sha256 in zip(paths, shards, sha256_of(paths, again), strict=True):
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


def parse_lengths(serialized: tf.Tensor) -> tf.Tensor:
    """Reads only the lengths of serialized records.

    Args:
        serialized: [batch] strings, the records.

    Returns:
        [batch] int64.
    """
    schema = {"length": tf.io.FixedLenFeature((), tf.int64)}
    return tf.io.parse_example(serialized, schema)["length"]


def parse_records(serialized: tf.Tensor, num_features: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads serialized records, still without decoding their values, and checks their size.

    Args:
        serialized: [batch] strings, the records.
        num_features: number of features the card promises.

    Returns:
        Values [batch] as strings (see `decode_values`) and lengths [batch] int32, in steps.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, if a record does not hold
            length x num_features values.
    """
    schema = {
        "id": tf.io.FixedLenFeature((), tf.string),
        "length": tf.io.FixedLenFeature((), tf.int64),
        "x": tf.io.FixedLenFeature((), tf.string),
    }
    records = tf.io.parse_example(serialized, schema)
    lengths = tf.cast(records["length"], tf.int32)
    num_bytes = tf.strings.length(records["x"])
    wrong = (lengths < 1) | (num_bytes != lengths * (num_features * _VALUE_BYTES))
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
        return tf.identity(records["x"]), tf.identity(lengths)


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


def group_alike(names: Iterable[str], values: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names neighbours of one value as one: a frame of speech has hundreds of features.

    Args:
        names: of the features, in order.
        values: what to say about each.

    Yields:
        The names of each group, such as "dx, dy" or "sample_0 to sample_199", and its value.
    """
    pairs = zip(names, values, strict=True)
    for value, group in itertools.groupby(pairs, key=lambda pair: pair[1]):
        members = [name for name, _ in group]
        yield ", ".join(members) if len(members) < 4 else f"{members[0]} to {members[-1]}", value


def _check_features(features: tuple[Feature, ...], normalization: Normalization) -> None:
    names = [feature.name for feature in features]
    if not features:
        raise UserError("features: at least one is needed")
    if len(set(names)) != len(names):
        raise UserError(f"features: names must differ, got {', '.join(names)}")
    kinds = [feature.kind for feature in features]
    if kinds != sorted(kinds, key=FEATURE_KINDS.index):
        raise UserError(f"features: real ones come first, then binary ones; got {', '.join(kinds)}")
    if len(normalization.mean) != len(features):
        raise UserError(
            f"normalization: {len(normalization.mean)} means for {len(features)} features; "
            "one per feature is needed"
        )
    for feature, mean, std in zip(features, normalization.mean, normalization.std, strict=True):
        if feature.kind == "binary" and (mean, std) != (0.0, 1.0):
            raise UserError(
                f"normalization: binary feature {feature.name!r} must have mean 0 and std 1, "
                f"got {mean:g} and {std:g}"
            )


def _check_modality(modality: Modality, features: tuple[Feature, ...]) -> None:
    names = tuple(feature.name for feature in features)
    if modality.kind == "handwriting" and names != HANDWRITING_FEATURES:
        raise UserError(f"handwriting has the features dx, dy, pen; got {', '.join(names)}")
    if modality.kind == "audio" and any(feature.kind != "real" for feature in features):
        raise UserError("audio has real features only, the samples of a frame")
    if modality.kind == "image" and len(features) != 1:
        raise UserError(f"an image has one feature, a pixel; got {len(features)}")


def _check_image_lengths(name: str, split: Split, modality: Modality) -> None:
    size = modality.height * modality.width
    lengths = {split.length_quantiles.get(share) for share in ("0", "1")}
    if modality.kind == "image" and lengths != {size}:
        found = " to ".join(str(split.length_quantiles.get(share)) for share in ("0", "1"))
        raise UserError(
            f"split {name!r}: sequences of {found} steps are no images of {modality.height} x "
            f"{modality.width}, which have {size}"
        )


def _plain_json(value: Any) -> Any:
    """Returns the value as JSON will give it back, keys sorted."""
    return json.loads(json.dumps(value, sort_keys=True, allow_nan=False))


def _typed(content: Mapping[str, Any], key: str, kind: type) -> Any:
    if key not in content:
        raise UserError(f"{key!r} is missing")
    if not isinstance(content[key], kind) or (kind is int and isinstance(content[key], bool)):
        raise UserError(f"{key!r} is not of type {kind.__name__}")
    return content[key]


def _build(cls: type, content: Any) -> Any:
    """Makes one of the flat dataclasses above of a JSON object, every field by name."""
    if not isinstance(content, dict):
        raise UserError(f"{cls.__name__.lower()} is not of type dict")
    kinds = {field.name: field.type for field in dataclasses.fields(cls)}
    return cls(
        **{
            key: _typed(content, key, kind if kind in (str, int) else list)
            for key, kind in kinds.items()
        }
    )


def _split_from_json(content: Any) -> Split:
    if not isinstance(content, dict):
        raise UserError("split is not of type dict")
    num_sequences = _typed(content, "num_sequences", int)
    shards = tuple(_build(Shard, item) for item in _typed(content, "shards", list))
    if not shards:
        raise UserError("'shards' is empty")
    for shard in shards:
        if not _SHARD_NAME.fullmatch(shard.file):
            raise UserError(f"{shard.file!r} is not the name of a shard")
    in_shards = sum(shard.num_sequences for shard in shards)
    if num_sequences != in_shards:
        raise UserError(f"'num_sequences' is {num_sequences}, but the shards hold {in_shards}")
    return Split(
        num_sequences=num_sequences,
        num_steps=_typed(content, "num_steps", int),
        length_quantiles=_typed(content, "length_quantiles", dict),
        shards=shards,
        # Left out by earlier versions, which had no such splits.
        holds_probabilities=_typed(
            {"holds_probabilities": False, **content}, "holds_probabilities", bool
        ),
    )


def _write_split(
    folder: Path,
    split: str,
    sequences: Iterable[tuple[str, np.ndarray]],
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
        try:
            with tf.io.TFRecordWriter(str(path)) as writer:
                writer.write(record)
                size = 1
                while size < sequences_per_shard and (record := next(records, None)) is not None:
                    writer.write(record)
                    size += 1
        except tf.errors.OpError as error:  # "PATH; No space left on device"
            reason = error.message.rpartition("; ")[2]
            raise UserError(f"{folder.parent}: cannot be written to ({reason})") from error
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
    sequences: Iterable[tuple[str, np.ndarray]],
    features: tuple[Feature, ...],
    holds_probabilities: bool,
    lengths: Counter[int],
    ids: bytearray,
) -> Iterator[bytes]:
    """Yields the checked sequences as serialized records, counts lengths, notes digests of ids."""
    for sequence_id, values in sequences:
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
