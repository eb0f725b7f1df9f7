"""Checkpoints of the authors' released TensorFlow 1 program, read into run directories.

`import_run` is what `python -m stcn_tf.import_tf1` does. Every variable of the checkpoint is used
and every weight of the model is set, or nothing is written.
"""

import dataclasses
import hashlib
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from stcn_tf.data.card import (
    FORMAT_VERSION,
    HANDWRITING_FEATURES,
    DatasetCard,
    Feature,
    Normalization,
    read_card,
)
from stcn_tf.flags import flag_lines
from stcn_tf.models.base import SequenceModel
from stcn_tf.models.registry import build_model
from stcn_tf.models.settings import (
    ModelSettings,
    STCNSettings,
    WavenetDenseSettings,
    WavenetSettings,
)
from stcn_tf.released.configuration import Configuration, read_configuration
from stcn_tf.runs import RunDirectory, check_not_packaged
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import replacing_folder
from stcn_tf.training.checkpoints import Checkpoints
from stcn_tf.training.early_stopping import EarlyStopping
from stcn_tf.training.step import make_optimizer

FLAGS_NAME = "imported.flags"

_GLOBAL_STEP = "global_step"
# The powers of Adam's betas follow from the number of updates.
_NO_WEIGHTS = {_GLOBAL_STEP, "beta1_power", "beta2_power"}
# Slots of TensorFlow 1's Adam -> what Keras' Adam calls them.
_SLOTS = {"Adam": "momentum", "Adam_1": "velocity"}


class _Scopes(NamedTuple):
    """Where a kind of model has its variables in the released program; {} is a number."""

    block: str
    output: str  # of 1x1 output layers
    head: str


_SCOPES = {
    STCNSettings: _Scopes(
        block="encoder/temporal_block_{}",
        output="output_layer/out_conv1d_{}/conv1d",
        head="output_layer/out_out",
    ),
    WavenetSettings: _Scopes(
        block="temporal_block_{}",
        output="output_layer_hidden/conv1d_{}/conv1d",
        head="output_layer_out",
    ),
}
_BLOCK_CONVS = {"filter": 0, "gate": 1, "output": 2, "residual": 3}
_HEADS = {"mean": "mu", "sigma": "sigma", "component": "coefficient", "binary": "binary"}
_MOST_NAMED = 30  # variables of one kind in an error


def import_run(
    checkpoint: str | os.PathLike,
    config_file: str | os.PathLike,
    run_dir: str | os.PathLike,
    data: str | os.PathLike | None = None,
    max_steps: int = 0,
    report: Callable[[str], None] = print,
) -> RunDirectory:
    """Makes a run directory of a checkpoint of the released program.

    Args:
        checkpoint: prefix of the checkpoint's files, as in "model.ckpt-1".
        config_file: its JSON configuration.
        run_dir: the folder to make; it must not exist or be empty.
        data: folder of the records that the model was trained on; None: they are not known, and the
            run's card is made up from the shapes of the weights.
        max_steps: the run's setting of this name; the rest of the settings is the configuration's.
        report: told what was imported.

    Returns:
        The run, whose checkpoints "best" and "latest" are of the checkpoint's update.

    Raises:
        UserError: the configuration or the checkpoint cannot be imported, they do not fit each
            other or the records, or `run_dir` is not empty. Then nothing is written.
    """
    run_dir = Path(run_dir)
    _check_empty(run_dir)
    configuration = read_configuration(config_file)
    read = configuration.config
    config = dataclasses.replace(read, run=dataclasses.replace(read.run, max_steps=max_steps))
    reader = _Reader(checkpoint)
    card = _card(reader, configuration, data)
    model = build_model(config.model, card)
    optimizer = make_optimizer(config.training)
    optimizer.build(model.trainable_variables)
    has_slots = _check_variables(reader, model, config.model, str(config_file))
    # The released program counts from 1, before its first update.
    update = max(0, int(reader.read(_GLOBAL_STEP)) - 1) if _GLOBAL_STEP in reader.shapes else 0
    if 0 < max_steps <= update:
        raise UserError(
            f"--max_steps={max_steps}: {checkpoint} is of update {update}; accepted: more, or 0"
        )
    optimizer.iterations.assign(update)
    slots = {variable.path: variable for variable in optimizer.variables}
    for variable in model.weights:
        name = released_name(variable.path, config.model)
        variable.assign(reader.read(name))
        for suffix, slot in _SLOTS.items():
            path = f"{optimizer.name}/{variable.path.replace('/', '_')}_{slot}"
            if f"{name}/{suffix}" in reader.shapes:
                slots[path].assign(reader.read(f"{name}/{suffix}"))
    with replacing_folder(run_dir) as partial:
        run = RunDirectory.prepare(partial, config, card)
        early_stopping = EarlyStopping(config.training, bool(model.latent_sizes))
        checkpoints = Checkpoints(run, model, optimizer, early_stopping, batches=None)
        checkpoints.save_best(-math.inf)  # how good it is nobody knows
        checkpoints.save()
        about = f"# The settings of {checkpoint}, imported from the released program."
        flagfile = "\n".join([about, *flag_lines(config)]) + "\n"
        (partial / FLAGS_NAME).write_text(flagfile, encoding="utf-8")
        _check_empty(run_dir)
    run = RunDirectory.open(run_dir)
    _describe(run, model, update, has_slots, report)
    return run


def released_name(path: str, config: ModelSettings) -> str:
    """The released program's name of a variable of a model.

    Args:
        path: of our variable, as in "stcn/stack/block_00/filter/kernel".
        config: of the model.
    """
    scopes = _scopes(config)
    _, layer, *rest, leaf = path.split("/")
    if layer == "causal":
        scope = "causal_conv_layer_0/conv1d"
    elif layer == "stack":
        block, conv = rest
        scope = scopes.block.format(int(block.removeprefix("block_")) + 1)
        scope = f"{scope}/{_numbered(_BLOCK_CONVS[conv])}"
    elif layer.startswith("latent_"):
        network, conv = rest
        part, hidden = re.fullmatch(r"(mean|sigma)(?:_hidden_(\d+))?", conv).groups()
        number = config.latent_hidden_layers if hidden is None else int(hidden)
        kind = "p" if network == "prior" else "q"
        scope = f"latent/{kind}_{layer.removeprefix('latent_')}_{_HEADS[part]}/{_numbered(number)}"
    elif layer.startswith("output_"):
        number = int(layer.removeprefix("output_")) + 1
        if config.output_type == "wavenet":
            (conv,) = rest
            scope = f"output_layer/out_convCCN_{number}/{_numbered(_BLOCK_CONVS[conv])}"
        else:
            scope = scopes.output.format(number)
    else:
        (head,) = rest
        scope = _head(head, config)
    return f"{scope}/{leaf}"


class _Reader:
    """The files of a checkpoint.

    Attributes:
        prefix: of the files.
        shapes: the shape of each variable by its name.
        types: their types.

    Raises:
        UserError: there are none, or they are damaged.
    """

    def __init__(self, prefix: str | os.PathLike):
        self.prefix = str(prefix)
        if not Path(f"{self.prefix}.index").is_file():
            raise UserError(
                f"{self.prefix}: no checkpoint (there is no {self.prefix}.index); accepted: what "
                "the names of its .index and .data files begin with"
            )
        self._reader = self._tried(lambda: tf.train.load_checkpoint(self.prefix))
        self.shapes: Mapping[str, list[int]] = self._reader.get_variable_to_shape_map()
        self.types: Mapping[str, tf.DType] = self._reader.get_variable_to_dtype_map()

    def read(self, name: str) -> np.ndarray:
        """The value of a variable."""
        return self._tried(lambda: self._reader.get_tensor(name))

    @property
    def sha256(self) -> str:
        """Checksum of the index, which has one of each variable."""
        with open(f"{self.prefix}.index", "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _tried(self, read: Callable):
        # Which error a damaged file gives depends on where it is damaged.
        try:
            return read()
        except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:
            message = " ".join(str(error).split())
            raise UserError(f"{self.prefix}: damaged, or no checkpoint ({message})") from error


def _check_empty(run_dir: Path) -> None:
    check_not_packaged("run_dir", run_dir, "another folder")
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UserError(f"{run_dir}: exists and is not empty: give another --run_dir")


def _numbered(number: int) -> str:
    """How TensorFlow 1 names the layers of a scope."""
    return f"conv1d_{number}" if number else "conv1d"


def _scopes(config: ModelSettings) -> _Scopes:
    return next(scopes for kind, scopes in _SCOPES.items() if isinstance(config, kind))


def _head(head: str, config: ModelSettings) -> str:
    return f"{_scopes(config).head}_{_HEADS[head]}/conv1d"


def _card(
    reader: _Reader, configuration: Configuration, data: str | os.PathLike | None
) -> DatasetCard:
    """The card of the records, or one made up from the sizes of the heads."""
    model = configuration.config.model

    def size(head: str) -> int:
        # A head that is missing, or none at all, is told with all else that is.
        shape = reader.shapes.get(f"{_head(head, model)}/bias", [])
        return max(1, shape[0] if len(shape) == 1 else 1)

    num_real = num_binary = 0
    if configuration.has_real:
        components = model.num_components if model.observation == "gmm" else 1
        num_real = max(1, size("mean") // components)
    if configuration.has_binary:
        num_binary = size("binary")
    if data is not None:
        card = read_card(data)
        if (card.num_real, card.num_binary) != (num_real, num_binary):
            raise UserError(
                f"{data}: {card.num_real} real and {card.num_binary} binary features; the model "
                f"in {reader.prefix} has {num_real} and {num_binary}"
            )
        return card
    kinds = ["real"] * num_real + ["binary"] * num_binary
    names = [f"{kind}_{i}" for i, kind in enumerate(kinds)]
    if kinds == ["real", "real", "binary"]:  # what the release has with these is handwriting
        names = list(HANDWRITING_FEATURES)
    return DatasetCard(
        format_version=FORMAT_VERSION,
        name="unknown records",
        features=tuple(
            Feature(name, kind, "unknown" if kind == "real" else "0 or 1", "of an imported model")
            for name, kind in zip(names, kinds, strict=True)
        ),
        splits={},
        normalization=Normalization("unknown", [0.0] * len(kinds), [1.0] * len(kinds)),
        source_sha256=reader.sha256,
        command=f"python -m stcn_tf.import_tf1 --checkpoint={reader.prefix}",
        extra={},
    )


def _check_variables(
    reader: _Reader, model: SequenceModel, config: ModelSettings, config_file: str
) -> bool:
    """Compares what the checkpoint holds with what the model needs.

    Returns:
        Whether the checkpoint has the state of Adam.

    Raises:
        UserError: naming all that is unused, missing or of another shape.
    """
    needed = {released_name(v.path, config): list(v.shape) for v in model.weights}
    slots = {f"{name}/{slot}": shape for name, shape in needed.items() for slot in _SLOTS}
    # All or none: a part of the moments would be no state to continue from. But TensorFlow 1 makes
    # none for what has no gradient.
    unread = {f"{name}/{slot}" for name in _unread(model, config) for slot in _SLOTS}
    has_slots = any(name in reader.shapes for name in slots)
    if has_slots:
        needed |= {n: s for n, s in slots.items() if n in reader.shapes or n not in unread}
    missing = [name for name in needed if name not in reader.shapes]
    unused = sorted(set(reader.shapes) - set(needed) - _NO_WEIGHTS)
    wrong = [
        f"{name} {_shape(reader, name)} instead of {shape}"
        for name, shape in needed.items()
        if name in reader.shapes
        and (reader.shapes[name] != shape or reader.types[name] != tf.float32)
    ]
    step = reader.types.get(_GLOBAL_STEP)
    if step is not None and (reader.shapes[_GLOBAL_STEP] or not step.is_integer):
        wrong.append(f"{_GLOBAL_STEP} {_shape(reader, _GLOBAL_STEP)} instead of a whole number")
    problems = [
        f"{len(names)} {what}: {_listed(names)}"
        for what, names in (
            ("missing variables", missing),
            ("unused variables", unused),
            ("variables of another shape", wrong),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{reader.prefix}: not of the model that {config_file} describes: {'; '.join(problems)}"
        )
    return has_slots


def _unread(model: SequenceModel, config: ModelSettings) -> set[str]:
    """Released names of the variables that the output does not depend on."""
    if not isinstance(config, WavenetDenseSettings):
        return set()
    blocks = model.stack.blocks[max(config.wavenet_dense_blocks) :]
    return {released_name(v.path, config) for block in blocks for v in block.weights}


def _shape(reader: _Reader, name: str) -> str:
    kind = reader.types[name]
    return f"{list(reader.shapes[name])}{'' if kind == tf.float32 else f' {kind.name}'}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _describe(
    run: RunDirectory,
    model: SequenceModel,
    update: int,
    has_slots: bool,
    report: Callable[[str], None],
) -> None:
    settings = run.config.model
    report(
        f"{run.path}: {settings.model} with {settings.observation} outputs, "
        f"{model.count_params():,} parameters, of update {update:,}"
    )
    if not has_slots:
        report("the checkpoint has no state of Adam: training on starts with moments of zero")
    if run.card.is_placeholder:
        report(
            "the records that it was trained on are not known: sampling and export give normalised "
            "values; with --data their card is copied"
        )
    flagfile, folder = (shlex.quote(str(path)) for path in (run.path / FLAGS_NAME, run.path))
    report(
        f"to train on: python -m stcn_tf.train --flagfile={flagfile} --data=RECORDS "
        f"--run_dir={folder}"
    )
