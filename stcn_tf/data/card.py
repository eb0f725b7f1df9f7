"""What a dataset is: the card beside its records.

The card, `dataset.json`, tells the features, what the sequences are, how they were normalised, and
the splits with the checksums of their shards. Nothing here needs TensorFlow.
"""

import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stcn_tf.support import strict_json
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home

FORMAT_VERSION = 1
CARD_NAME = "dataset.json"
SHARD_NAME = re.compile(r"[A-Za-z0-9_]+-\d{5}-of-\d{5}\.tfrecord")
SPLIT_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
FEATURE_KINDS = ("real", "binary")
MODALITIES = ("handwriting", "audio", "image", "other")
HANDWRITING_FEATURES = ("dx", "dy", "pen")
# More is no rate of sound, no count, and no image, whose pixels are to fit into a record.
_MOST_HZ, _MOST_COUNTED, _MOST_PIXELS = 10**6, 2**53, 2**29
QUANTILES = ("0", "0.05", "0.25", "0.5", "0.75", "0.95", "1")  # of lengths, on the card


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
        for name in ("name", "unit", "meaning"):
            _check_text(f"feature: {name}", getattr(self, name))


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
        if self.sample_rate_hz > _MOST_HZ:
            raise UserError(
                f"modality audio: sample_rate_hz {self.sample_rate_hz}; accepted: up to {_MOST_HZ}"
            )
        if self.height * self.width > _MOST_PIXELS:
            raise UserError(
                f"modality image: {self.height} x {self.width} pixels; accepted: {_MOST_PIXELS} at "
                "most"
            )

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
        _check_text("normalization: kind", self.kind)
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

    def __post_init__(self):
        if not SHARD_NAME.fullmatch(self.file):
            raise UserError(f"{self.file!r} is not the name of a shard")
        _check_counts(self, "num_sequences", "num_bytes")
        _check_hexadecimal("sha256", self.sha256)


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

    def __post_init__(self):
        _check_counts(self, "num_sequences", "num_steps")
        lengths = self.length_quantiles
        if not all(share in QUANTILES and _is_count(n) for share, n in lengths.items()):
            raise UserError(
                f"length_quantiles: {lengths!r}; accepted: numbers of steps for "
                f"{', '.join(QUANTILES)}"
            )


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
        extra: more facts, anything that JSON can hold; kept as JSON gives it back, keys sorted.
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
        _check_text("name", self.name)
        _check_hexadecimal("source_sha256", self.source_sha256)
        _check_features(self.features, self.normalization)
        object.__setattr__(self, "extra", _plain_json(self.extra))
        if self.modality is None:
            object.__setattr__(self, "modality", Modality.of_features(self.features))
        _check_modality(self.modality, self.features)
        for name, split in self.splits.items():
            if not SPLIT_NAME.fullmatch(name):
                raise UserError(
                    f"split name {name!r} may hold letters, digits and underscores only"
                )
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
        content = strict_json.parse(text, f"{where}: not a dataset card")
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
        except (OverflowError, UserError, TypeError, ValueError) as error:
            raise UserError(f"{where}: not a usable dataset card: {error}") from error


def read_card(path_or_dir: str | os.PathLike) -> DatasetCard:
    """Reads a dataset card.

    Args:
        path_or_dir: a dataset folder, or a card file anywhere (such as the copy that a run
            directory keeps).

    Raises:
        UserError: there is none, or it cannot be used; the message names the file.
    """
    path = Path(expand_home(path_or_dir))
    if path.is_dir():
        if not (path / CARD_NAME).is_file():
            kind = "is empty" if not any(path.iterdir()) else "is not a dataset folder"
            raise UserError(f"{path}: {kind}: there is no {CARD_NAME} in it")
        path = path / CARD_NAME
    try:
        text = strict_json.read_text(path, f"{path}: not a dataset card")
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: does not exist; a dataset folder (it has a {CARD_NAME}) is needed"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return DatasetCard.from_json(text, where=str(path))


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


def _check_text(what: str, text: str) -> None:
    """What commands print must not command the terminal."""
    if not text.isprintable():
        raise UserError(f"{what} {text!r} has characters that cannot be printed")


def _check_hexadecimal(what: str, text: str) -> None:
    if not re.fullmatch(r"[0-9a-f]*", text):
        raise UserError(f"{what}: {text!r}; accepted: hexadecimal digits")


def _check_counts(counted: Shard | Split, *names: str) -> None:
    for name in names:
        if not _is_count(getattr(counted, name)):
            raise UserError(f"{name}: {getattr(counted, name)!r}; accepted: 1 to {_MOST_COUNTED}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MOST_COUNTED


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
