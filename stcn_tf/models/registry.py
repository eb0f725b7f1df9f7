"""The models by name: one line each, and the way from a name to settings and from these to a model.

A new model is a settings class in `stcn_tf.models.settings`, a class in a file of its own, and a
line here. TensorFlow is imported when a model is built.
"""

import dataclasses
import importlib
import math
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from stcn_tf.models.settings import (
    FSRNNSettings,
    ModelSettings,
    RNNSettings,
    SRNNSettings,
    STCNSettings,
    SWaveNetSettings,
    VariationalBiLSTMSettings,
    VRNNSettings,
    WavenetDenseSettings,
    WavenetSettings,
    ZForcingSettings,
)
from stcn_tf.settings import nearest
from stcn_tf.support.errors import UserError

if TYPE_CHECKING:
    from stcn_tf.data.card import DatasetCard
    from stcn_tf.layers.observation import Observation
    from stcn_tf.models.base import SequenceModel


class Entry(NamedTuple):
    """What the registry knows of a model."""

    settings: type[ModelSettings]
    model: str  # "module:Class"
    about: str  # for --help
    fixed: Mapping[str, Any] = MappingProxyType({})  # arguments of the class that are no settings
    # The class for settings with an option of the authors' released program, where that is another
    # one; it has their `released_options` as arguments besides.
    released: str = ""


_STCN, _RELEASED_STCN = "stcn_tf.models.stcn:STCN", "stcn_tf.released.stcn:ReleasedSTCN"
_WAVENET = "stcn_tf.models.wavenet:Wavenet"

MODELS: dict[str, Entry] = {
    "stcn": Entry(
        STCNSettings, _STCN, "only z^1 reaches the output", {"dense": False}, _RELEASED_STCN
    ),
    "stcn_dense": Entry(
        STCNSettings, _STCN, "all latents reach it (paper, Eq. 9)", {"dense": True}, _RELEASED_STCN
    ),
    "wavenet": Entry(WavenetSettings, _WAVENET, "without latents, on the sum of all skip outputs"),
    "wavenet_dense": Entry(
        WavenetDenseSettings, _WAVENET, "without latents, on residual outputs of some blocks"
    ),
    "rnn": Entry(RNNSettings, "stcn_tf.models.rnn:RNN", "an LSTM without latents"),
    "vrnn": Entry(VRNNSettings, "stcn_tf.models.vrnn:VRNN", "an LSTM with a latent each step"),
    "srnn": Entry(
        SRNNSettings, "stcn_tf.models.srnn:SRNN", "a chain of latents over a GRU; smoothing"
    ),
    "z_forcing": Entry(
        ZForcingSettings,
        "stcn_tf.models.z_forcing:ZForcing",
        "a latent each step that must predict the backward state; smoothing",
    ),
    "f_srnn": Entry(
        FSRNNSettings,
        "stcn_tf.models.f_srnn:FSRNN",
        "latents that only an LSTM before the output reads; smoothing",
    ),
    "variational_bi_lstm": Entry(
        VariationalBiLSTMSettings,
        "stcn_tf.models.bi_lstm:VariationalBiLSTM",
        "a latent each step that stands for the backward state; smoothing",
    ),
    "swavenet": Entry(
        SWaveNetSettings,
        "stcn_tf.models.swavenet:SWaveNet",
        "latents between the blocks of a Wavenet; smoothing",
    ),
}
DEFAULT_MODEL = "stcn_dense"

# What is needed besides weights and states has the other half.
_NUMBER_BYTES, _MOST_OF_MEMORY = 4, 0.5
_fitting: set[tuple[ModelSettings, int, int]] = set()  # those that were checked


class _Observation(NamedTuple):
    """Which class an observation is, and its arguments: fixed ones, and those that are settings."""

    path: str  # "module:Class"
    options: Mapping[str, Any] = MappingProxyType({})
    settings: Mapping[str, str] = MappingProxyType({})


_GAUSSIAN = "stcn_tf.layers.observation:Observation"
_RELEASED_OBSERVATION = "stcn_tf.released.observation:ReleasedObservation"
_FEATUREWISE = "stcn_tf.layers.autoregressive:FeaturewiseObservation"
_COMPONENTS, _SIGMA = {"num_components": "num_components"}, {"sigma_form": "sigma_form"}
_OBSERVATIONS: dict[str, _Observation] = {
    "normal": _Observation(_GAUSSIAN, settings=_SIGMA),
    "gmm": _Observation(_GAUSSIAN, settings=_COMPONENTS | _SIGMA),
    "bivariate": _Observation(_GAUSSIAN, {"is_correlated": True}, _SIGMA),
    "bivariate_gmm": _Observation(_GAUSSIAN, {"is_correlated": True}, _COMPONENTS | _SIGMA),
    "featurewise_gmm": _Observation(_FEATUREWISE, settings=_COMPONENTS),
    "ordered_gmm": _Observation(_FEATUREWISE, {"is_ordered": True}, _COMPONENTS),
    "hierarchical_gmm": _Observation(
        "stcn_tf.layers.autoregressive:HierarchicalObservation",
        settings=_COMPONENTS
        | {
            "frame_units": "units",
            "frame_embedding": "embedding",
            "frame_start": "frame_start",
        },
    ),
}


def settings_of(name: str) -> type[ModelSettings]:
    """The settings class of a model.

    Raises:
        UserError: there is no model of that name.
    """
    if name not in tuple(MODELS):  # what a file gives might not be hashable
        raise UserError(f"model: {name!r}; accepted: {', '.join(MODELS)}")
    return MODELS[name].settings


def make_settings(name: str = DEFAULT_MODEL, /, **values: Any) -> ModelSettings:
    """Settings of a model.

    Args:
        name: of the model.
        **values: settings; the others are its defaults.

    Raises:
        UserError: there is no such model, it has no such setting, or a value is not accepted.
    """
    kind = settings_of(name)
    for setting in values:
        check_has(name, setting)
    return kind(model=name, **values)


def check_has(name: str, setting: str, prefix: str = "") -> None:
    """Checks that a model has a setting.

    Args:
        name: of the model.
        setting: the setting's name.
        prefix: what stands before the names of settings in the message: "--" for flags.

    Raises:
        UserError: it has not; the message names the nearest that it has, if there is one.
    """
    names = settings_of(name).names()
    if setting not in names:
        near = nearest(setting, names)
        near = f"; nearest: {prefix}{near}" if near else ""
        raise UserError(f"{prefix}{setting}: {name} has no such setting{near}")


def build_model(
    settings: ModelSettings, card: "DatasetCard", compute_dtype: str = "float32"
) -> "SequenceModel":
    """Makes a model with its weights.

    Args:
        settings: of the model, of the class that the registry has for its name.
        card: of the records, which say how many features of which kind a step has.
        compute_dtype: policy of the convolutions, "float32" or "mixed_bfloat16".

    Returns:
        The built model, its weights drawn from Keras' global seed.

    Raises:
        UserError: the settings are of another class, or of a model that fills this machine's
            memory.
    """
    entry, kind = MODELS.get(settings.model), type(settings)
    if entry is None or kind is not entry.settings:
        names = ", ".join(name for name, entry in MODELS.items() if entry.settings is kind)
        raise UserError(f"model: {settings.model!r}; accepted with {kind.__name__}: {names}")
    arguments = {
        name: getattr(settings, name)
        for name in settings.names()
        if name not in ModelSettings.names()
    }
    options = {name: arguments.pop(name) for name in settings.released_options}
    is_released = bool(entry.released) and _is_as_released(settings, options)

    def build() -> "SequenceModel":
        model = _class(entry.released if is_released else entry.model)(
            observation=make_observation(settings, card),
            compute_dtype=compute_dtype,
            name=settings.model,
            **arguments,
            **(options if is_released else {}),
            **entry.fixed,
        )
        model.build()
        return model

    # Building it once more to count takes a while: not each time.
    counted = (settings, card.num_real, card.num_binary)
    if counted not in _fitting:
        _check_weights(build)
    model = build()
    if counted not in _fitting:
        _check_state(model)
    _fitting.add(counted)
    return model


def make_observation(settings: ModelSettings, card: "DatasetCard") -> "Observation":
    """The layer of p(x_t | .), not built.

    Args:
        settings: of the model.
        card: of the records.

    Raises:
        UserError: the observation is of other features than the records have.
    """
    kind = settings.observation
    has_floors = getattr(settings, "released_floors", False)
    accepted = [name for name in _OBSERVATIONS if _fits(name, card, has_floors)]
    if kind not in accepted:
        floors = " with released_floors" if has_floors else ""
        raise UserError(
            f"observation: {kind!r} of {card.num_real} real and {card.num_binary} binary "
            f"features{floors}; accepted: {', '.join(accepted)}"
        )
    options: dict[str, Any] = dict(_OBSERVATIONS[kind].options)
    for name, argument in _OBSERVATIONS[kind].settings.items():
        options[argument] = getattr(settings, name)
    path = _RELEASED_OBSERVATION if has_floors else _OBSERVATIONS[kind].path
    return _class(path)(card.num_real, card.num_binary, name="observation", **options)


def _fits(kind: str, card: "DatasetCard", has_floors: bool) -> bool:
    """Whether an observation is of such features."""
    if has_floors:
        return kind in ("normal", "gmm")
    if kind.startswith("bivariate"):
        return card.num_real == 2
    return kind != "hierarchical_gmm" or (card.num_real > 0 and not card.num_binary)


def _check_weights(build: Callable[[], "SequenceModel"]) -> None:
    """Checks that weights fit into memory, before they take any."""
    import tensorflow as tf

    # Initialisers draw their seeds from it, which are to be those of the real weights.
    state = random.getstate()
    with tf.Graph().as_default():  # in which nothing is computed
        shapes = [weight.shape for weight in build().weights]
    random.setstate(state)
    _check_fits(sum(map(math.prod, shapes)), "weights")


def _check_state(model: "SequenceModel") -> None:
    """The same of what generation keeps of one sequence: dilations make it large, not weights."""
    import tensorflow as tf

    state = tf.function(lambda: model.start(1)).get_concrete_function().structured_outputs
    _check_fits(sum(math.prod(part.shape) for part in tf.nest.flatten(state)), "numbers of a state")


def _check_fits(num: int, what: str) -> None:
    from stcn_tf.support import devices

    memory = devices.memory_bytes()
    if num * _NUMBER_BYTES > memory * _MOST_OF_MEMORY:
        raise UserError(
            f"the model has {num:,} {what}, which take {num * _NUMBER_BYTES / 2**30:,.0f} GiB; "
            f"accepted: half of the memory here at most ({memory * _MOST_OF_MEMORY / 2**30:,.0f} "
            "GiB): give smaller sizes"
        )


def _is_as_released(settings: ModelSettings, options: dict[str, Any]) -> bool:
    fields = {field.name: field for field in dataclasses.fields(settings)}
    return any(value != fields[name].default for name, value in options.items())


def _class(path: str) -> type:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
