"""Configurations of the authors' released TensorFlow 1 program, read as our settings.

The options, what the program takes where one is missing, and what each has an effect on are here as
they are read. An option that cannot be imported is refused by name; so is one that is not known.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stcn_tf.config import Config, RunSettings, TrainingSettings
from stcn_tf.models.registry import make_settings
from stcn_tf.support import strict_json
from stcn_tf.support.errors import UserError

# Where data and results are, how data were prepared, what is printed: no part of a model.
_WITHOUT_EFFECT = (
    "checkpoint_id",
    "create_timeline",
    "data_dir",
    "data_type",
    "dataset_cls",
    "eval_dir",
    "json_file",
    "meta_data",
    "model_dir",
    "model_id",
    "model_type",
    "print_every_step",
    "run_evaluation_after_training",
    "save_dir",
    "test_data",
    "test_model",
    "timestamp",
    "training_data",
    "use_staging_area",
    "validate_model",
    "validation_data",
)
_WITHOUT_EFFECT_PREFIXES = ("experiment_", "pp_", "tensorboard_")

_REQUIRED = object()
_LONGEST_TEXT = 200  # characters of a value in a message
_DECAY_STEPS = 1000  # updates per factor of our `learning_rate_decay`


class Configuration(NamedTuple):
    """What a configuration of the released program says."""

    config: Config  # our settings, with the program's floors
    has_real: bool  # whether the observation has real-valued features
    has_binary: bool


class _Options:
    """One object of the configuration, of which every option must be asked for.

    Args:
        values: the object, as JSON gave it.
        where: the file's name, for messages.
        path: names of the objects around it, for messages.

    Raises:
        UserError: it is no object.
    """

    def __init__(self, values: Any, where: str, path: str = ""):
        if not isinstance(values, dict):
            name = f"{path}: " if path else ""
            raise UserError(f"{where}: {name}{_text(values)}; accepted: a JSON object")
        self._values = values
        self._where = where
        self._path = path
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self):
        return iter(self._values)

    def refused(self, key: str, accepted: str) -> UserError:
        """The error for a value that is not accepted."""
        return self.error(key, f"{_text(self._values[key])} is not supported", accepted)

    def error(self, key: str, problem: str, accepted: str) -> UserError:
        """The error for an option; `key` "": for the whole object."""
        return UserError(f"{self._where}: {self._name(key)}: {problem}; accepted: {accepted}")

    def value(self, key: str, default: Any = _REQUIRED) -> Any:
        """The value as JSON gave it, or the default.

        Raises:
            UserError: the option is missing and has no default.
        """
        self._asked.add(key)
        if key not in self._values and default is _REQUIRED:
            raise UserError(f"{self._where}: {self._name(key)}: missing")
        return self._values.get(key, default)

    def whole(self, key: str, least: int, default: Any = _REQUIRED) -> int:
        """A whole number of at least `least`; the default may be any."""
        value = self.value(key, default)
        if key in self and not (_is_whole(value) and value >= least):
            raise self.refused(key, f"whole numbers of {least} or more")
        return value

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """A finite number."""
        value = self.value(key, default)
        if not _is_number(value):
            raise self.refused(key, "finite numbers")
        return float(value)

    def switch(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.value(key, default)
        if not isinstance(value, bool):
            raise self.refused(key, "true, false")
        return value

    def choice(self, key: str, accepted: Sequence[str], default: Any = _REQUIRED) -> str:
        """One of several words; the default may be another."""
        value = self.value(key, default)
        if key in self and not (isinstance(value, str) and value in accepted):
            raise self.refused(key, ", ".join(map(_text, accepted)))
        return value

    def wholes(self, key: str, least: int | None, default: Any = _REQUIRED) -> list[int]:
        """A list of whole numbers of at least `least`."""
        value = self.value(key, default)
        good = isinstance(value, list) and all(
            _is_whole(item) and (least is None or item >= least) for item in value
        )
        if not good:
            what = "whole numbers" if least is None else f"whole numbers of {least} or more"
            raise self.refused(key, f"a list of {what}")
        return value

    def only(self, accepted: Any, *keys: str, default: Any = None) -> None:
        """Refuses all values but one.

        Args:
            accepted: the value.
            *keys: the options.
            default: what the program takes where an option is missing; None: `accepted`.
        """
        for key in keys:
            value = self.value(key, accepted if default is None else default)
            if _is_number(value) == _is_number(accepted) and value == accepted:
                continue
            if key in self:
                raise self.refused(key, _text(accepted))
            raise self.error(key, f"missing, which stands for {_text(value)}", _text(accepted))

    def ignore(self, *keys: str, prefixes: tuple[str, ...] = ()) -> None:
        """Accepts any value of options that have no effect."""
        self._asked.update(keys, (key for key in self._values if key.startswith(prefixes)))

    def object(self, key: str, default: Any = _REQUIRED) -> "_Options":
        """The options of an object within."""
        return _Options(self.value(key, default), self._where, self._name(key))

    def check_all_known(self) -> None:
        """Refuses what nobody asked for."""
        unknown = ", ".join(self._name(key) for key in sorted(set(self._values) - self._asked))
        if unknown:
            raise UserError(f"{self._where}: unknown options, which cannot be imported: {unknown}")

    def _name(self, key: str) -> str:
        return ".".join(name for name in (self._path, key) if name)


def read_configuration(path: str | os.PathLike) -> Configuration:
    """Reads a configuration of the released program.

    Args:
        path: the JSON file.

    Raises:
        UserError: there is no such file, it is no JSON, or an option is missing, unknown or has a
            value that cannot be imported; the message names it.
    """
    where = str(path)
    try:
        values = strict_json.parse(strict_json.read_text(Path(path), where), where)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from error
    options = _Options(values, where)
    is_stcn = options.choice("model_cls", ("StochasticTCN", "TCN")) == "StochasticTCN"
    cnn, output, loss = (options.object(key) for key in ("cnn_layer", "output_layer", "loss"))
    sections = [options, cnn, output, loss, options.object("input_layer", {})]
    model, has_real, has_binary = _read_loss(loss)
    model |= _read_convolutions(cnn)
    training, run = _read_training(options), _read_run(options)
    if is_stcn:
        latent = options.object("latent_layer")
        sections.append(latent)
        model |= _read_stcn(cnn, latent, output)
        # The program's early stopping looks at the objective that it trains.
        training |= _read_kl_weight(latent) | {"select": "objective"}
    else:
        model |= _read_wavenet(cnn, output)
    # Of a decoder with convolutions, which the program has but no model of the paper.
    cnn.only(0, "num_decoder_layers")
    options.only(False, "decoder_use_enc_skip", "decoder_use_raw_inputs", "decoder_use_enc_last")
    # The program fills these lists itself, from the loss.
    output.only([], "out_activation_fn", "out_dims", "out_keys")
    options.ignore(*_WITHOUT_EFFECT, prefixes=_WITHOUT_EFFECT_PREFIXES)
    for section in sections:
        section.only(0, "dropout_rate")
        section.check_all_known()
    try:
        config = Config(
            make_settings(model.pop("model"), released_floors=True, **model),
            TrainingSettings(**training, precision="float32"),
            RunSettings(**run),
        )
    except UserError as error:
        raise UserError(f"{where}: as our setting {error}") from error
    return Configuration(config, has_real, has_binary)


def _read_loss(loss: _Options) -> tuple[dict[str, Any], bool, bool]:
    """The observation, and whether it has a real-valued and a binary part."""
    real = ("nll_normal", "nll_gmm")
    kinds = {key: loss.object(key).choice("type", (*real, "nll_bernoulli")) for key in loss}
    has_real, has_binary = (
        any((kind in real) == is_real for kind in kinds.values()) for is_real in (True, False)
    )
    if not kinds or len(kinds) > has_real + has_binary:
        raise loss.error(
            "",
            f"terms of type {', '.join(kinds.values()) or 'none'}",
            f"one of {' or '.join(real)}, one of nll_bernoulli, or both",
        )
    model = {}
    for key, kind in kinds.items():
        term = loss.object(key)
        term.ignore("type")
        term.only(1, "weight")
        term.only("out", "out_key")
        # Real-valued features come first in the program's data as in ours.
        term.only(1 if has_real and kind == "nll_bernoulli" else 0, "target_idx")
        if kind in real:
            model["observation"] = kind.removeprefix("nll_")
        if kind == "nll_gmm":
            model["num_components"] = term.whole("num_components", 2)
        term.ignore("num_components")  # of the others
        term.check_all_known()
    return model, has_real, has_binary


def _read_convolutions(cnn: _Options) -> dict[str, Any]:
    """What both models have: gated blocks with residual connections."""
    cnn.only(True, "use_gating", "use_residual", "zero_padding", default=False)
    cnn.only("relu", "activation_fn")
    return {
        "num_filters": cnn.whole("num_filters", 1),
        "kernel_size": cnn.whole("filter_size", 2),
    }


def _read_dilations(cnn: _Options, num_blocks: int, count: str) -> tuple[int, ...]:
    dilations = cnn.wholes("dilation_size", 1)
    if len(dilations) != num_blocks:
        raise cnn.refused("dilation_size", f"{num_blocks} numbers, as {count} says")
    return tuple(dilations)


def _read_stcn(cnn: _Options, latent: _Options, output: _Options) -> dict[str, Any]:
    num_blocks = cnn.whole("num_encoder_layers", 1)
    # Neither skip outputs nor a choice of blocks: each latent layer reads the block below it.
    cnn.ignore("use_skip", "tcn_output_layer_idx")
    latent.choice("type", ("latent_ladder_gaussian",))
    latent.only("conv1", "layer_structure")
    latent.ignore("latent_filter_size", "latent_dilation")  # of other layer structures
    latent.only(True, "dynamic_prior", default=False)
    latent.only(True, "recursive_q", "top_down_latents", "precision_weighted_update")
    latent.only(False, "use_fixed_pz1", "kld_p0_z0", "kld_q0_z0")
    latent.only(5.0, "latent_sigma_threshold", default=0)
    blocks_per_layer = latent.whole("vertical_dilation", 1, default=1)
    num_layers, rest = divmod(num_blocks, blocks_per_layer)
    if rest:
        raise cnn.refused(
            "num_encoder_layers",
            f"multiples of {blocks_per_layer}, the blocks per "
            "latent layer (latent_layer.vertical_dilation)",
        )
    if isinstance(latent.value("latent_size"), list):
        sizes = latent.wholes("latent_size", 1)
        if len(sizes) != num_layers:
            raise latent.refused("latent_size", f"{num_layers} numbers, one for each layer")
    else:
        sizes = [latent.whole("latent_size", 1)] * num_layers
    # The dilations 1, 2, 4, ... need not be written out.
    dilations = _read_dilations(cnn, num_blocks, "cnn_layer.num_encoder_layers")
    pattern = tuple(2**k for k in range(blocks_per_layer))
    return {
        "model": "stcn_dense" if latent.switch("dense_z", False) else "stcn",
        "blocks_per_layer": blocks_per_layer,
        "dilations": () if dilations == pattern * num_layers else dilations,
        "latent_sizes": tuple(sizes),
        **_read_hidden_layers(cnn, latent),
        "posterior_draws": (
            "shared" if latent.switch("use_same_q_sample", False) else "independent"
        ),
        **_read_output_layers(cnn, output),
    }


def _read_hidden_layers(cnn: _Options, latent: _Options) -> dict[str, Any]:
    """Of the latent networks."""
    num_layers = latent.whole("num_hidden_layers", 0)
    if not num_layers:
        latent.ignore("num_hidden_units", "hidden_activation_fn")
        return {"latent_hidden_layers": 0}
    latent.only("relu", "hidden_activation_fn")
    units = latent.whole("num_hidden_units", 1)
    is_as_the_stack = units == cnn.whole("num_filters", 1)
    return {
        "latent_hidden_layers": num_layers,
        "latent_filters": 0 if is_as_the_stack else units,
    }


def _read_output_layers(cnn: _Options, output: _Options) -> dict[str, Any]:
    """Of STCN."""
    output_type = output.choice("type", ("conv1", "tcn"), default="tcn")
    num_layers = output.whole("num_layers", 0, default=1)
    num_filters = cnn.whole("num_filters", 1)
    model = {
        "output_type": {"conv1": "conv1x1", "tcn": "wavenet"}[output_type],
        "output_layers": num_layers,
        "output_filters": num_filters,
    }
    output.ignore("size", "filter_size", "activation_fn")
    if not num_layers:
        return model
    output.only("relu", "activation_fn")
    model["output_filters"] = _positive(output, "size", num_filters)
    if output_type == "tcn":  # conv1: of width 1, whatever this option says
        kernel_size = _positive(output, "filter_size", cnn.whole("filter_size", 2))
        if kernel_size < 2:
            raise output.refused("filter_size", "2 or more, or less than 1")
        model["output_kernel_size"] = kernel_size
    return model


def _read_wavenet(cnn: _Options, output: _Options) -> dict[str, Any]:
    num_blocks = cnn.whole("num_layers", 1)
    output.ignore("size", "type", "filter_size")  # always 1x1, with the stack's filters
    output.only("relu", "activation_fn")
    model = {
        "model": "wavenet",
        "first_frame": "given",
        "wavenet_blocks": num_blocks,
        "dilations": _read_dilations(cnn, num_blocks, "cnn_layer.num_layers"),
        "output_layers": output.whole("num_layers", 0, default=1),
        "output_filters": cnn.whole("num_filters", 1),
    }
    if cnn.switch("use_skip", False):
        cnn.ignore("tcn_output_layer_idx")
        return model
    indices = cnn.wholes("tcn_output_layer_idx", None, default=[-1])
    if not indices or not all(-num_blocks <= index < num_blocks for index in indices):
        raise cnn.refused(
            "tcn_output_layer_idx", f"one or more numbers from {-num_blocks} to {num_blocks - 1}"
        )
    blocks = tuple(index % num_blocks + 1 for index in indices)
    return model | {"model": "wavenet_dense", "wavenet_dense_blocks": blocks}


def _positive(options: _Options, key: str, otherwise: int) -> int:
    """A whole number; `otherwise` where it is missing or less than 1."""
    value = options.value(key, otherwise)
    if not _is_whole(value):
        raise options.refused(key, "whole numbers")
    return value if value >= 1 else otherwise


def _read_training(options: _Options) -> dict[str, Any]:
    if options.choice("learning_rate_type", ("exponential", "fixed")) == "fixed":
        steps, decay = _DECAY_STEPS, 1.0
        options.ignore("learning_rate_decay_steps", "learning_rate_decay_rate")
    else:
        steps = options.whole("learning_rate_decay_steps", 1, default=_DECAY_STEPS)
        decay = options.number("learning_rate_decay_rate")
    if not 0 < decay <= 1:
        raise options.refused("learning_rate_decay_rate", "more than 0, 1 at most")
    reductions = {"mean_step_loss": "mean_step", "mean_sequence_loss": "sum_step"}
    training = {
        "batch_size": options.whole("batch_size", 1),
        "learning_rate": options.number("learning_rate"),
        "learning_rate_decay": decay if steps == _DECAY_STEPS else decay ** (_DECAY_STEPS / steps),
        "clip_norm": options.number("grad_clip_by_norm", 0),
        "loss_reduction": reductions[options.choice("reduce_loss", tuple(reductions))],
    }
    options.only(0, "grad_clip_by_value")
    if training["learning_rate"] <= 0:
        raise options.refused("learning_rate", "more than 0")
    if training["clip_norm"] < 0:
        raise options.refused("grad_clip_by_norm", "0 (none) or more")
    if "seed" in options:  # else our default serves, as below
        training["seed"] = options.whole("seed", 0)
    return training


def _read_run(options: _Options) -> dict[str, Any]:
    run = {"max_epochs": options.whole("num_epochs", 1)}
    for key, name in (
        ("evaluate_every_step", "evaluate_every"),
        ("checkpoint_every_step", "checkpoint_every"),
    ):
        if key in options:
            run[name] = options.whole(key, 1)
    return run


def _read_kl_weight(latent: _Options) -> dict[str, Any]:
    """The weight of update n is min(1, start + increment * n)."""
    accepted = (
        'a number from 0 to 1, or {"type": "linear_decay", "values": [start, 1.0, increment]} with '
        "0 <= start <= 1 and 0 <= increment"
    )
    weight = latent.value("kld_weight", 1)
    if isinstance(weight, dict) and set(weight) == {"type", "values"}:
        values = weight["values"]
        good = weight["type"] == "linear_decay" and isinstance(values, list) and len(values) == 3
        if not good or not all(map(_is_number, values)) or values[1] != 1:
            raise latent.refused("kld_weight", accepted)
        start, _, increment = values
    else:
        start, increment = weight, 0
    if not _is_number(start) or not 0 <= start <= 1 or increment < 0:
        raise latent.refused("kld_weight", accepted)
    return {"kl_weight_start": float(start), "kl_weight_increment": float(increment)}


def _is_whole(value: Any) -> bool:
    return type(value) is int  # true and false are of a type of their own


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _text(value: Any) -> str:
    """A value as it stands in the file, as far as it fits into a line."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
