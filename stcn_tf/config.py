"""What a run is made of: its model, its training, and how it is run.

Model and training make a run's numbers, initial weights included; how it is run (its length, its
intervals, its devices) may change whenever it is continued. Every field is at once a flag of the
commands (`stcn_tf.flags`) and an entry of a run's config.json. Defaults are the paper's for
handwriting (Aksan & Hilliges, ICLR 2019, Appendix 7.1 and 7.2); where the authors' released
configurations differ, the field's text says so.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from stcn_tf.models import registry
from stcn_tf.models.settings import ModelSettings
from stcn_tf.settings import Settings, nearest, setting
from stcn_tf.support import strict_json
from stcn_tf.support.errors import UserError

FORMAT_VERSION = 2
PARTS = ("model", "training", "run")
STRATEGIES = ("default", "mirrored", "multi_worker")


@dataclasses.dataclass(frozen=True)
class TrainingSettings(Settings):
    """Optimisation, evaluation during training, and how batches are made."""

    objective: str = setting(
        "elbo",
        "what training maximises: elbo (Eq. 14); iwae: the importance-weighted bound of K draws; "
        "fivo: that of a particle filter with K particles",
        ("elbo", "iwae", "fivo"),
    )
    num_samples: int = setting(
        1, "K of the objective; of elbo: draws that it is averaged over", least=1
    )
    select: str = setting(
        "bound",
        "which validation number decides early stopping and the best weights: bound: the valid "
        "lower bound; objective: the objective that is trained, with KL weight 1, as the authors' "
        "program does (with independent draws no bound)",
        ("bound", "objective"),
    )
    batch_size: int = setting(20, "sequences in a batch", least=1)
    max_length: int = setting(
        0, "crop training sequences to a random piece of this many steps; 0: whole sequences"
    )
    shuffle_window: int = setting(
        2000, "sequences shuffled together, then batched with others of similar length", least=1
    )
    pad_to_multiple: int = setting(
        0,
        "pad batches to a multiple of this many steps: fewer shapes, each of which XLA compiles "
        "anew; 0: 64 where the update is compiled, else 1",
        least=0,
    )
    learning_rate: float = setting(5e-4, "initial learning rate of Adam", above=0)
    learning_rate_decay: float = setting(
        0.94,
        "factor per 1000 updates, applied continuously (released for handwriting: 0.92)",
        above=0,
        most=1,
    )
    kl_weight_start: float = setting(
        0.0, "weight of the KL term before the first update", least=0, most=1
    )
    kl_weight_increment: float = setting(
        1e-4, "increase of the KL weight per update, up to 1", least=0
    )
    clip_norm: float = setting(
        1.0,
        "gradients are clipped to this global norm; 0: not (paper: not said; released: 1)",
        least=0,
    )
    loss_reduction: str = setting(
        "mean_step",
        "mean_step: each sequence's sum divided by its length (released for handwriting); "
        "sum_step: the sum itself (released for speech); both averaged over the batch",
        ("mean_step", "sum_step"),
    )
    evaluate_sequences: int = setting(
        0, "evaluate on the first N validation sequences only; 0: on all of them", least=0
    )
    patience: int = setting(
        10, "stop after this many evaluations in a row without improvement; 0: never", least=0
    )
    min_improvement: float = setting(
        0.0025, "relative improvement of the best validation ELBO that counts as one", least=0
    )
    seed: int = setting(
        0, "seed of the weights, the batches and the latent noise", least=0, most=2**31 - 1
    )
    precision: str = setting(
        "auto",
        "arithmetic of the convolutions; distributions and losses are always float32 (GPUs compute "
        "float32 convolutions in TF32 by TensorFlow's default); mixed_float16, for GPUs without "
        "bfloat16, scales the loss; auto: mixed_bfloat16 on GPUs with units for it, else float32; "
        "a run keeps what it began with",
        ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    init_from: str = setting(
        "",
        "begin with trained weights instead of random ones: a run directory (its best weights, or "
        "the latest of a run that was not evaluated), or a file .weights.h5 of Keras; the "
        "optimizer, the schedules and the KL weight begin anew; empty: what the run began with, "
        "which for a new run is random",
    )

    def _check(self) -> None:
        self._require("max_length", self.max_length == 0 or self.max_length >= 2, "0, or 2 or more")
        is_enough = self.objective == "elbo" or self.num_samples >= 2
        self._require("num_samples", is_enough, f"2 or more (--objective={self.objective})")


@dataclasses.dataclass(frozen=True)
class RunSettings(Settings):
    """How long a run is, what it reports and when, and where it computes."""

    max_epochs: int = setting(80, "stop after this many passes over the training split", least=1)
    max_steps: int = setting(
        0, "stop after this many updates; 0: max_epochs alone decides", least=0
    )
    evaluate_every: int = setting(
        500, "updates between evaluations on the validation split", least=1
    )
    checkpoint_every: int = setting(500, "updates between checkpoints", least=1)
    keep_checkpoints: int = setting(
        2,
        "how many of the newest checkpoints to continue from are kept; 1: none stands in for one "
        "that is damaged; 0: all",
        least=0,
    )
    log_every: int = setting(50, "updates between TensorBoard points and progress lines", least=1)
    sample_every: int = setting(
        2000,
        "updates between pictures of samples and reconstructions in TensorBoard; 0: none",
        least=0,
    )
    jit_compile: bool | None = setting(
        None, "compile the update with XLA, for each shape of a batch; chosen: on GPUs", kind=bool
    )
    recompute: int = setting(
        0,
        "for long sequences: keep the states between blocks of this many steps, and compute each "
        "block once more for its gradient; the same gradient, memory for one block, about a third "
        "more time; 0: keep everything",
        least=0,
    )
    strategy: str = setting(
        "default",
        "default: one device; mirrored: each batch is split over all GPUs of this machine "
        "(tf.distribute.MirroredStrategy); multi_worker: over those of several machines, each of "
        "which runs the same command (MultiWorkerMirroredStrategy; which they are TF_CONFIG says, "
        "or SLURM)",
        STRATEGIES,
    )
    max_skipped: int = setting(
        20,
        "an update whose objective or gradient is not finite is skipped; training stops after so "
        "many in a row, with the checkpoint before the first of them",
        least=1,
    )
    deterministic: bool = setting(
        False,
        "compute with TensorFlow's deterministic operations alone, in all of the process: the same "
        "run twice in the same environment is equal to the last bit, on GPUs, too, where it costs "
        "speed; on CPUs it costs none that can be measured",
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything a run directory's config.json holds."""

    model: ModelSettings = registry.make_settings()
    training: TrainingSettings = TrainingSettings()
    run: RunSettings = RunSettings()

    def to_json(self) -> str:
        """The settings as the text of a config.json."""
        raw = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(raw, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Config":
        """Reads what `to_json` wrote, in this version or an earlier one.

        Settings that it lacks are taken to be their defaults: a setting that a later version adds
        has as its default what earlier versions did.

        Args:
            text: the JSON text.
            where: the file's name, for messages.

        Raises:
            UserError: the text is no JSON, is of a later version, or has an unknown or unacceptable
                setting.
        """
        raw = strict_json.parse(text, where)
        if isinstance(raw, dict) and "format_version" not in raw:
            raw = _from_version_1(raw, where)
        _check_parts(raw, ("format_version", *PARTS), PARTS, where)
        _rename_mirrored(raw["run"])
        if raw["format_version"] != FORMAT_VERSION:
            raise UserError(
                f"{where}: format_version: {raw['format_version']!r}; accepted: 1 to "
                f"{FORMAT_VERSION}"
            )
        if "model" not in raw["model"]:
            raise UserError(
                f"{where}: model.model: missing; accepted: {', '.join(registry.MODELS)}"
            )
        with _named(f"{where}: model."):
            kind = registry.settings_of(raw["model"]["model"])
        kinds = {"model": kind, "training": TrainingSettings, "run": RunSettings}
        made = {}
        for part in PARTS:
            _check_known(raw[part], kinds[part].names(), f"{where}: {part}")
            with _named(f"{where}: {part}."):
                made[part] = kinds[part](**raw[part])
        return cls(**made)

    def differences(self, other: "Config", parts: Sequence[str] = PARTS) -> list[str]:
        """Lines `part.name: mine, not theirs` for each setting in which `other` differs.

        Of two models with other settings, those that both have are compared.

        Args:
            other: what to compare with.
            parts: which to compare.
        """
        lines = []
        for part in parts:
            mine, theirs = getattr(self, part), getattr(other, part)
            for name in mine.names():
                a, b = getattr(mine, name), getattr(theirs, name, None)
                if name in theirs.names() and a != b:
                    lines.append(f"{part}.{name}: {a!r}, not {b!r}")
        return lines


@contextlib.contextmanager
def _named(prefix: str) -> Iterator[None]:
    """Puts where it was into the message of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{prefix}{error}") from error


def _check_parts(raw: Any, keys: Sequence[str], objects: Sequence[str], where: str) -> None:
    if not isinstance(raw, dict) or set(raw) != set(keys):
        raise UserError(f"{where}: accepted: an object with {', '.join(keys)}")
    for part in objects:
        if not isinstance(raw[part], dict):
            raise UserError(f"{where}: {part}: an object is accepted")


def _check_known(values: dict[str, Any], names: Sequence[str], where: str) -> None:
    unknown = [
        f"{name} (nearest: {near})" if (near := nearest(name, names)) else name
        for name in sorted(set(values) - set(names))
    ]
    if unknown:
        raise UserError(f"{where}: unknown settings: {', '.join(unknown)}")


def _rename_mirrored(run: dict[str, Any]) -> None:
    """What `strategy` was before there were three."""
    if isinstance(mirrored := run.get("mirrored"), bool):
        del run["mirrored"]
        run["strategy"] = "mirrored" if mirrored else "default"


def _from_version_1(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """A config.json of the time when all models shared one list of settings, as today's."""
    _check_parts(raw, ("model", "training"), ("model", "training"), where)
    model = {"model": registry.DEFAULT_MODEL, **raw["model"]}
    if "posterior_precision" in model:
        model["posterior_scale"] = model.pop("posterior_precision")
    with _named(f"{where}: model."):
        names = registry.settings_of(model["model"]).names()
    if "wavenet_blocks" in names and not model.get("dilations"):
        # The pattern of Wavenets without one was that of a group of STCN's blocks.
        group = {k: v for k, v in model.items() if k == "blocks_per_layer"}
        with _named(f"{where}: model."):
            blocks = registry.make_settings("stcn", **group).blocks_per_layer
        model["dilations"] = [2**k for k in range(blocks)]
    of_others = set().union(*(entry.settings.names() for entry in registry.MODELS.values()))
    of_run = {*RunSettings.names(), "mirrored"}
    return {
        "format_version": FORMAT_VERSION,
        "model": {k: v for k, v in model.items() if k in names or k not in of_others},
        "training": {k: v for k, v in raw["training"].items() if k not in of_run},
        "run": {k: v for k, v in raw["training"].items() if k in of_run},
    }
