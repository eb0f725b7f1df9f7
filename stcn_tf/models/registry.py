"""The models by name: one line each, and the way from a name to settings and from these to a model.

A new model is a settings class in `stcn_tf.models.settings`, a class in a file of its own, and a
line here. TensorFlow is imported when a model is built.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from stcn_tf.models.settings import (
    ModelSettings,
    STCNSettings,
    WavenetDenseSettings,
    WavenetSettings,
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
}
DEFAULT_MODEL = "stcn_dense"


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
        UserError: the settings are of another class.
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


def make_observation(settings: ModelSettings, card: "DatasetCard") -> "Observation":
    """The layer of p(x_t | .), not built.

    Args:
        settings: of the model.
        card: of the records.
    """
    has_floors = getattr(settings, "released_floors", False)
    path = (
        "stcn_tf.released.observation:ReleasedObservation"
        if has_floors
        else "stcn_tf.layers.observation:Observation"
    )
    return _class(path)(
        card.num_real,
        card.num_binary,
        settings.num_components if settings.observation == "gmm" else 1,
        name="observation",
    )


def _is_as_released(settings: ModelSettings, options: dict[str, Any]) -> bool:
    fields = {field.name: field for field in dataclasses.fields(settings)}
    return any(value != fields[name].default for name, value in options.items())


def _class(path: str) -> type:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
