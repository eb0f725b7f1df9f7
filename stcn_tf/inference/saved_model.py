"""A served model as a SavedModel, which needs TensorFlow and nothing of this project."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from stcn_tf.inference.served import ServedFunction, ServedModel
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home, replacing_folder

_FILE = "saved_model.pb"
FUNCTIONS = (
    *("sample", "continue_from", "start", "begin", "step", "steps", "observe"),
    *("reconstruct", "score", "card"),
)
_PARTS = {_FILE, "fingerprint.pb", "assets", "variables"}


def check_replaceable(out: str | os.PathLike) -> None:
    """Checks that a SavedModel may be written to `out`.

    Raises:
        UserError: `out` holds anything but a SavedModel.
    """
    out = Path(expand_home(out))
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if names and (_FILE not in names or not names <= _PARTS):
        raise UserError(f"{out}: holds no SavedModel; accepted: a new, an empty or its own folder")


def write(served: ServedModel, out: str | os.PathLike, files: Mapping[str, bytes]) -> None:
    """Writes the SavedModel, all of it or nothing, in the place of an earlier one.

    Args:
        served: what to write.
        out: the folder.
        files: what lies beside it for people and programs, by name, in `assets/`.

    Raises:
        UserError: `out` holds anything but a SavedModel, or cannot be made.
    """
    check_replaceable(out)
    module = tf.Module()
    module.served = served  # whose variables are saved
    for name in FUNCTIONS:
        setattr(module, name, getattr(served, name).concrete)
    with replacing_folder(out) as partial, tempfile.TemporaryDirectory() as folder:
        module.assets = []
        for name, content in files.items():
            file = Path(folder, name)
            file.write_bytes(content)
            module.assets.append(tf.saved_model.Asset(str(file)))
        named = signatures(served, FUNCTIONS)
        named["serving_default"] = named["sample"]
        save(module, str(partial), named)
        check_replaceable(out)


def save(module: tf.Module, folder: str, named: Mapping[str, Any]) -> None:
    """Writes a module and its signatures, by name."""
    # Gradients of its own would be traced anew from tensors of unknown shapes, which those of
    # recurrences do not survive; nobody trains what is served.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, folder, signatures=named, options=options)


def signatures(served: ServedModel, names: Sequence[str]) -> dict[str, Any]:
    """Of some functions, with inputs and outputs by name.

    What is a dict among the inputs, a state, is its parts.
    """
    return {name: _flat(getattr(served, name)) for name in names}


def _flat(function: ServedFunction) -> Any:
    """A function of named tensors whose results have names."""
    signature, concrete = function.input_signature, function.concrete
    specs = {spec.name: spec for spec in tf.nest.flatten(signature)}

    def flat(**inputs):
        # A signature lets any shape pass.
        checked = {n: tf.ensure_shape(part, specs[n].shape) for n, part in inputs.items()}
        given = tf.nest.map_structure(lambda spec: checked[spec.name], signature)
        result = concrete(*given)
        if isinstance(result, dict):
            return result
        return {"json" if result.dtype == tf.string else "x": result}

    return tf.function(flat, autograph=False).get_concrete_function(**specs)
