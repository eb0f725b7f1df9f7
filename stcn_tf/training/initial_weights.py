"""Weights that a run begins with: of another run, or of a file that Keras wrote."""

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stcn_tf import checkpoint_files
from stcn_tf.data.card import DatasetCard
from stcn_tf.models.base import SequenceModel
from stcn_tf.runs import RunDirectory, weights_by_path
from stcn_tf.support.errors import UserError, reason_of

SUFFIX = ".weights.h5"

_Shapes = dict[str, tuple[int, ...]]


def load(source: str, model: SequenceModel, card: DatasetCard) -> dict[str, Any]:
    """Gives a model the weights of another.

    Where a run's weights were trained on other units, stderr is told.

    Args:
        source: a run directory, whose best weights are read, or the latest where it was never
            evaluated; or a file that `model.save_weights` wrote.
        model: built; its weights are replaced.
        card: of the records that it is to be trained on.

    Returns:
        What was read, for the run's history: where, and the SHA-256 of the weights; of a run also
        the checkpoint and its update.

    Raises:
        UserError: there is nothing of that kind, it is damaged, or not of this model.
    """
    path = Path(source)
    about: dict[str, Any] = {"path": source}
    if path.is_file() and path.name.endswith(SUFFIX):
        _load_file(path, model)
    elif path.is_dir():
        about |= _load_run(path, model, card)
    else:
        is_there = "no such file or folder" if not path.exists() else "something else"
        raise UserError(
            f"--init_from={source}: {is_there}; accepted: a run directory, or a file whose name "
            f"ends in {SUFFIX}"
        )
    digest = hashlib.sha256()
    for name, variable in sorted(weights_by_path(model).items()):
        value = variable.numpy()
        if not np.isfinite(value).all():
            raise UserError(f"--init_from={source}: {name} has values that are not finite")
        digest.update(value.tobytes())
    return about | {"sha256": digest.hexdigest()}


def _load_run(path: Path, model: SequenceModel, card: DatasetCard) -> dict[str, Any]:
    try:
        run = RunDirectory.open(path)
        which = "best" if checkpoint_files.in_folder(run.best) else "latest"
        trained = run.load(which)
    except UserError as error:
        raise UserError(f"--init_from: {error}") from error
    theirs, mine = weights_by_path(trained.model), weights_by_path(model)
    _check_same_shapes(path, *({k: tuple(v.shape) for k, v in w.items()} for w in (theirs, mine)))
    for name, variable in mine.items():
        variable.assign(theirs[name])
    _tell_other_units(run, card)
    return {"checkpoint": which, "update": trained.update}


def _tell_other_units(run: RunDirectory, card: DatasetCard) -> None:
    told = ""
    if run.card.is_placeholder:
        told = "how the data that it was trained on were normalised is not known"
    elif difference := run.difference_of_units(card):
        what, theirs, its = difference
        told = f"it was trained on records of other {what} ({its}) than {card.name} has ({theirs})"
    if told:
        print(f"--init_from={run.path}: {told}: its weights have to learn that", file=sys.stderr)


def _load_file(path: Path, model: SequenceModel) -> None:
    # Keras' own messages are of many lines, and name no weights: so the file is compared with one
    # of the model as it is, of which every part has the same place.
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, f"own{SUFFIX}")
        model.save_weights(own)
        mine = _shapes(own)
    try:
        _check_same_shapes(path, _shapes(path), mine)
        model.load_weights(path)
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"--init_from={path}: damaged, or no file of Keras ({reason_of(error)})"
        ) from error


def _shapes(path: Path) -> _Shapes:
    """The shapes of a file's weights by their places."""
    found = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
            found[name] = item.shape or ()  # None: an empty one

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return found


def _check_same_shapes(source: Path, theirs: _Shapes, mine: _Shapes) -> None:
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        if theirs.get(name) != mine.get(name):
            raise UserError(
                f"--init_from={source}: weights of another model: {name}: "
                f"{_shape(theirs, name)} there, {_shape(mine, name)} here"
            )


def _shape(shapes: _Shapes, name: str) -> str:
    return str(list(shapes[name])) if name in shapes else "none"
