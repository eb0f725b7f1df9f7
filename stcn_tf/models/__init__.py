"""The sequence models, their settings and their registry.

The classes are imported on first use, because settings and registry must do without TensorFlow.
"""

import importlib

_HOMES = {
    "STCN": "stcn_tf.models.stcn",
    "SequenceModel": "stcn_tf.models.base",
    "State": "stcn_tf.models.base",
    "Terms": "stcn_tf.models.base",
    "Wavenet": "stcn_tf.models.wavenet",
    "build_model": "stcn_tf.models.registry",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
