"""What a run is made of: model, training and data settings, validated when they are made.

Every field is at once a flag of the commands (`stcn_tf.flags` makes them from the fields here), an
entry of a run's config.json and an argument of the code that reads it. Defaults are the paper's for
handwriting (Aksan & Hilliges, ICLR 2019, Appendix 7.1 and 7.2); where the authors' released
configurations differ, the field's text says so.
"""

import dataclasses
import itertools
import json
import math
from typing import Any

from stcn_tf.support.errors import UserError


def _setting(default: Any, text: str, *, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field with its help text and, for strings, the values it accepts."""
    return dataclasses.field(default=default, metadata={"help": text, "choices": choices})


class _Validated:
    """Types and choices of the fields, checked the same way for every settings class."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, tuple) and isinstance(value, (list, tuple)):
                value = tuple(value)
            elif isinstance(field.default, float) and type(value) is int:
                value = float(value)
            if type(value) is not type(field.default):
                raise UserError(
                    f"{field.name}: {value!r} of type {type(value).__name__}; "
                    f"accepted: {type(field.default).__name__}"
                )
            if type(value) is float and not math.isfinite(value):
                raise UserError(f"{field.name}: {value!r}; accepted: finite numbers")
            choices = field.metadata["choices"]
            if choices and value not in choices:
                raise UserError(f"{field.name}: {value!r}; accepted: {', '.join(choices)}")
            object.__setattr__(self, field.name, value)
        self._check()

    def _check(self) -> None:
        """Raises UserError for values that the types and choices alone do not exclude."""

    def _require(self, name: str, holds: bool, accepted: str) -> None:
        if not holds:
            raise UserError(f"{name}: {getattr(self, name)!r}; accepted: {accepted}")


@dataclasses.dataclass(frozen=True)
class ModelConfig(_Validated):
    """The model. Layer 1 is the lowest (the paper's z^1); lists go from layer 1 to layer L."""

    model: str = _setting(
        "stcn_dense",
        "stcn: only z^1 reaches the output; stcn_dense: all latents do (paper, Eq. 9); wavenet, "
        "wavenet_dense: the baselines without latents, which read the sum of all skip outputs or "
        "the residual outputs of some blocks",
        choices=("stcn", "stcn_dense", "wavenet", "wavenet_dense"),
    )
    observation: str = _setting(
        "gmm",
        "distribution of the real-valued features; binary ones are always Bernoulli",
        choices=("normal", "gmm"),
    )
    num_components: int = _setting(20, "components of the GMM")
    num_filters: int = _setting(256, "filters of the Wavenet blocks")
    kernel_size: int = _setting(2, "width of the dilated causal convolutions")
    blocks_per_layer: int = _setting(
        6, "K: Wavenet blocks below each latent layer, with dilations 1, 2, ..., 2^(K-1)"
    )
    dilations: tuple[int, ...] = _setting(
        (), "dilations of the Wavenet blocks, over and over; empty: 1,2,...,2^(K-1)"
    )
    wavenet_blocks: int = _setting(25, "Wavenet blocks of wavenet and wavenet_dense")
    wavenet_dense_blocks: tuple[int, ...] = _setting(
        (5, 15, 25), "blocks whose residual outputs wavenet_dense reads; 1 is the lowest"
    )
    first_frame: str = _setting(
        "scored",
        "of wavenet and wavenet_dense: scored: x_1 is predicted from a zero frame, as in stcn; "
        "given: x_1 is not scored, as released",
        choices=("scored", "given"),
    )
    latent_sizes: tuple[int, ...] = _setting(
        (32, 16, 8, 5, 2),
        "units of z^1,...,z^L; their number is L (released for handwriting: 32,16,8,4,2)",
    )
    latent_hidden_layers: int = _setting(2, "hidden layers of each latent network")
    latent_filters: int = _setting(
        0, "filters of the hidden layers of the latent networks; 0: as many as --num_filters"
    )
    output_type: str = _setting(
        "conv1x1",
        "conv1x1: the output layers are 1x1 convolutions with ReLU; wavenet: Wavenet blocks of "
        "dilation 1, through which latents reach later steps (speech)",
        choices=("conv1x1", "wavenet"),
    )
    output_layers: int = _setting(5, "layers between the latents (or the stack) and the heads")
    output_filters: int = _setting(256, "filters of the output layers")
    output_kernel_size: int = _setting(2, "width of the convolutions of Wavenet output layers")
    posterior_draws: str = _setting(
        "shared",
        "shared: one draw of each z^l serves every use, a valid bound (paper); independent: a "
        "fresh draw for every use, as released: for stcn_dense the objective is no lower bound",
        choices=("shared", "independent"),
    )
    posterior_precision: str = _setting(
        "std",
        "what 1/(sum of precisions) is in Eq. 11: std, as printed and released, or variance, as "
        "in the ladder VAE",
        choices=("std", "variance"),
    )
    released_floors: bool = _setting(
        False,
        "put the floors of the authors' program under variances, weights and probabilities before "
        "their logarithms are taken: its numbers, but not quite densities",
    )

    @property
    def stack_dilations(self) -> tuple[int, ...]:
        """The dilation of each Wavenet block, lowest first."""
        pattern = self.dilations or [2**k for k in range(self.blocks_per_layer)]
        is_wavenet = self.model.startswith("wavenet")
        layers = len(self.latent_sizes)
        blocks = self.wavenet_blocks if is_wavenet else self.blocks_per_layer * layers
        return tuple(itertools.islice(itertools.cycle(pattern), blocks))

    def _check(self) -> None:
        for name in ("num_components", "num_filters", "output_filters", "wavenet_blocks"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("latent_hidden_layers", "latent_filters", "output_layers"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("kernel_size", "output_kernel_size"):
            self._require(name, getattr(self, name) >= 2, "2 or more")
        positive = all(type(n) is int and n >= 1 for n in self.dilations)
        self._require("dilations", positive, "dilations of 1 or more, or none")
        if self.model == "wavenet_dense":
            blocks, top = self.wavenet_dense_blocks, self.wavenet_blocks
            known = all(type(n) is int and 1 <= n <= top for n in blocks)
            accepted = f"one or more numbers from 1 to {top} (--wavenet_blocks)"
            self._require("wavenet_dense_blocks", bool(blocks) and known, accepted)
        self._require("blocks_per_layer", 1 <= self.blocks_per_layer <= 20, "1 to 20")
        sizes = self.latent_sizes
        positive = bool(sizes) and all(type(n) is int and n >= 1 for n in sizes)
        self._require("latent_sizes", positive, "one or more sizes of 1 or more units")


@dataclasses.dataclass(frozen=True)
class TrainingConfig(_Validated):
    """Optimisation, evaluation during training, and how batches are made."""

    batch_size: int = _setting(20, "sequences in a batch")
    max_length: int = _setting(
        0, "crop training sequences to a random piece of this many steps; 0: whole sequences"
    )
    shuffle_window: int = _setting(
        2000, "sequences shuffled together, then batched with others of similar length"
    )
    pad_to_multiple: int = _setting(
        1, "pad batches to a multiple of this many steps (fewer shapes to compile with jit_compile)"
    )
    learning_rate: float = _setting(5e-4, "initial learning rate of Adam")
    learning_rate_decay: float = _setting(
        0.94, "factor per 1000 updates, applied continuously (released for handwriting: 0.92)"
    )
    kl_weight_start: float = _setting(0.0, "weight of the KL term before the first update")
    kl_weight_increment: float = _setting(1e-4, "increase of the KL weight per update, up to 1")
    clip_norm: float = _setting(
        1.0, "gradients are clipped to this global norm; 0: not (paper: not said; released: 1)"
    )
    loss_reduction: str = _setting(
        "mean_step",
        "mean_step: each sequence's sum divided by its length (released for handwriting); "
        "sum_step: the sum itself (released for speech); both averaged over the batch",
        choices=("mean_step", "sum_step"),
    )
    objective: str = _setting("elbo", "tmp", choices=("elbo", "iwae", "fivo"))
    num_samples: int = _setting(1, "tmp")
    select: str = _setting("bound", "tmp", choices=("bound", "objective"))
    max_epochs: int = _setting(80, "stop after this many passes over the training split")
    max_steps: int = _setting(0, "stop after this many updates; 0: max_epochs alone decides")
    evaluate_every: int = _setting(500, "updates between evaluations on the validation split")
    evaluate_sequences: int = _setting(
        0, "evaluate on the first N validation sequences only; 0: on all of them"
    )
    patience: int = _setting(
        10, "stop after this many evaluations in a row without improvement; 0: never"
    )
    min_improvement: float = _setting(
        0.0025, "relative improvement of the best validation ELBO that counts as one"
    )
    checkpoint_every: int = _setting(500, "updates between checkpoints")
    log_every: int = _setting(50, "updates between TensorBoard points and progress lines")
    sample_every: int = _setting(
        2000, "updates between pictures of samples and reconstructions in TensorBoard; 0: none"
    )
    seed: int = _setting(0, "seed of the weights, the batches and the latent noise")
    precision: str = _setting(
        "float32",
        "arithmetic of the convolutions; distributions and losses are always float32 (GPUs compute "
        "float32 convolutions in TF32 by TensorFlow's default)",
        choices=("float32", "mixed_bfloat16"),
    )
    jit_compile: bool = _setting(False, "compile the train step with XLA")
    mirrored: bool = _setting(
        False, "split each batch over all GPUs of this machine (tf.distribute.MirroredStrategy)"
    )

    def _check(self) -> None:
        for name in (
            "batch_size",
            "shuffle_window",
            "pad_to_multiple",
            "max_epochs",
            "evaluate_every",
            "checkpoint_every",
            "log_every",
        ):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("max_steps", "evaluate_sequences", "patience", "sample_every", "seed"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        self._require("max_length", self.max_length == 0 or self.max_length >= 2, "0, or 2 or more")
        self._require("seed", self.seed < 2**31, "0 to 2^31 - 1")
        self._require("learning_rate", self.learning_rate > 0, "more than 0")
        self._require("learning_rate_decay", 0 < self.learning_rate_decay <= 1, "0 < value <= 1")
        self._require("kl_weight_start", 0 <= self.kl_weight_start <= 1, "0 to 1")
        self._require("kl_weight_increment", self.kl_weight_increment >= 0, "0 or more")
        self._require("clip_norm", self.clip_norm >= 0, "0 or more")
        self._require("min_improvement", self.min_improvement >= 0, "0 or more")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything a run directory's config.json holds."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    def to_json(self) -> str:
        """The settings as the text of a config.json."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Config":
        """Reads what `to_json` wrote.

        Settings that it lacks are taken to be their defaults: a setting that a later version adds
        has as its default what earlier versions did.

        Args:
            text: the JSON text.
            where: the file's name, for messages.

        Raises:
            UserError: the text is no JSON, or has an unknown or unacceptable setting.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON ({error})") from error
        parts = {"model": ModelConfig, "training": TrainingConfig}
        if not isinstance(raw, dict) or set(raw) != set(parts):
            raise UserError(f"{where}: accepted: an object with {' and '.join(parts)}")
        made = {}
        for part, kind in parts.items():
            if not isinstance(raw[part], dict):
                raise UserError(f"{where}: {part}: an object is accepted")
            names = {field.name for field in dataclasses.fields(kind)}
            unknown = sorted(set(raw[part]) - names)
            if unknown:
                raise UserError(f"{where}: {part}: unknown settings: {', '.join(unknown)}")
            try:
                made[part] = kind(**raw[part])
            except UserError as error:
                raise UserError(f"{where}: {part}.{error}") from error
        return cls(**made)

    def differences(self, other: "Config") -> list[str]:
        """Lines `part.name: mine, not theirs` for each setting in which `other` differs."""
        lines = []
        for part in ("model", "training"):
            mine, theirs = getattr(self, part), getattr(other, part)
            for field in dataclasses.fields(mine):
                a, b = getattr(mine, field.name), getattr(theirs, field.name)
                if a != b:
                    lines.append(f"{part}.{field.name}: {a!r}, not {b!r}")
        return lines
