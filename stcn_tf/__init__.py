"""STCN: Stochastic Temporal Convolutional Networks in TensorFlow 2 and Keras.

The names below are imported on first use, because importing TensorFlow takes seconds and
commands parse their flags before.
"""

import importlib
import importlib.metadata
import os
import sys

# Whatever else Keras is set up for on this machine: it reads this when it is first imported.
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"
elif (_backend := sys.modules["keras"].config.backend()) != "tensorflow":
    raise ImportError(
        f"stcn_tf needs Keras on TensorFlow, but it was imported on {_backend} before: set "
        "KERAS_BACKEND=tensorflow"
    )

_HOMES = {
    "Config": "stcn_tf.config",
    "Generator": "stcn_tf.inference.generation",
    "RunDirectory": "stcn_tf.runs",
    "RunSettings": "stcn_tf.config",
    "STCN": "stcn_tf.models",
    "Terms": "stcn_tf.models",
    "SequenceModel": "stcn_tf.models",
    "TrainingSettings": "stcn_tf.config",
    "UserError": "stcn_tf.support.errors",
    "build_model": "stcn_tf.models.registry",
    "Trainer": "stcn_tf.training.trainer",
    "load_run": "stcn_tf.runs",
    "make_settings": "stcn_tf.models.registry",
    "open_run": "stcn_tf.inference.trained_run",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name == "__version__":
        try:
            return importlib.metadata.version(__name__)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
