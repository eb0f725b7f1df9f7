"""Lists the runs in a folder. Run directories: settings, card, checkpoints, events.

python -m stcn_tf.runs DIR

lists those in a folder and the folders in it: what state each is in, its updates, the best number
on the validation split and what that is of, its parameters and what it takes on disk, and the last
line of its progress. Interrupted is what can be continued and is not at work, killed or stopped.

    run_dir/
      config.json           all settings (`stcn_tf.config`)
      imported.flags        of an imported run: the settings that it began with as flags
      dataset.json          a copy of the card of the records (of an imported run whose records are
                            not known: a placeholder, until it is trained on)
      checkpoints/latest/   weights, optimizer and position in the data: to continue training
      checkpoints/best/     weights with the best ELBO on the validation split
      events/train/ events/valid/   TensorBoard
      evaluations/          of `stcn_tf.evaluate`, a file for each question
      faults/               batches of updates whose objective or gradient was not finite
      status.json           how far the run is (`stcn_tf.run_status`)
      history.json          of each start of a trainer: when, where, and of which versions
      .lock                 locked by the process that trains; says who did last

This is all that evaluation, sampling and export need. TensorFlow is imported when weights are read.
pretrained/NAME, where there is no such folder, is a run that comes with the package: settings,
card, best weights, nothing to go on with.
"""

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stcn_tf import checkpoint_files, flags
from stcn_tf.config import Config
from stcn_tf.data.card import CARD_NAME, DatasetCard, read_card
from stcn_tf.models.registry import build_model
from stcn_tf.run_status import STATUS_NAME
from stcn_tf.support import cli, strict_json
from stcn_tf.support.errors import UserError, reason_of
from stcn_tf.support.files import expand_home, make_folder, replacing_file
from stcn_tf.support.locks import FolderLock

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from stcn_tf.models.base import SequenceModel

CONFIG_NAME = "config.json"
HISTORY_NAME = "history.json"
LOCK_NAME = ".lock"


# The folder of the runs that come with the package.
PACKAGED = Path(__file__).parent / "pretrained"


def located(path: str | os.PathLike) -> Path:
    """The path to read from: pretrained, or pretrained/NAME, is the package's if not one's own.

    Args:
        path: of a run directory, or of a folder of them.
    """
    path = Path(expand_home(path))
    if path.exists() or path.parts[:1] != (PACKAGED.name,):
        return path
    packaged = PACKAGED.joinpath(*path.parts[1:])
    is_one = packaged.parent in (PACKAGED, PACKAGED.parent) and packaged.is_dir()
    return packaged if is_one else path


def pretrained() -> list[str]:
    """The names of the runs that come with the package, as pretrained/NAME."""
    return [f"{PACKAGED.name}/{f.parent.name}" for f in sorted(PACKAGED.glob(f"*/{CONFIG_NAME}"))]


def is_packaged(path: str | os.PathLike) -> bool:
    """Whether a run is one that comes with the package, where nothing is written."""
    return located(path).resolve().parent == PACKAGED.resolve()


def check_not_packaged(flag: str, path: str | os.PathLike, instead: str) -> None:
    """Checks that a run that is to be written to does not come with the package.

    Args:
        flag: the name of the flag that gives the path.
        path: of a run directory.
        instead: what is accepted.

    Raises:
        UserError: it does.
    """
    if is_packaged(path):
        raise UserError(
            f"--{flag}={path}: comes with the package, where nothing is written; accepted: "
            f"{instead}"
        )


def lock(path: str | os.PathLike) -> FolderLock:
    """Locks a run directory, or a new folder that is to be one, for a trainer.

    Raises:
        UserError: another trainer has it; it comes with the package; or it is something else.
    """
    path = Path(expand_home(path))
    check_not_packaged(
        "run_dir", path, f"another folder (--init_from={path} begins with the weights of that run)"
    )
    _check_may_be_run(path)
    return FolderLock(make_folder(path) / LOCK_NAME)


def _check_may_be_run(path: Path) -> None:
    if not path.exists() or (path / CONFIG_NAME).exists():
        return
    # What is left where config.json could not be written any more is no obstacle.
    begun = {LOCK_NAME, CARD_NAME}
    if not path.is_dir() or any(found.name not in begun for found in path.iterdir()):
        raise UserError(f"{path}: neither empty nor a run directory: give another --run_dir")


class Trained(NamedTuple):
    """A model as a run has it."""

    model: "SequenceModel"  # computes in float32
    update: int  # after which its weights were written


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The settings and the card of a run, and where its files are."""

    path: Path
    config: Config
    card: DatasetCard

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RunDirectory":
        """Opens an existing run, or one that comes with the package (see `located`).

        Raises:
            UserError: the folder, its config.json or its card is missing or unreadable.
        """
        path = located(path)
        config_file = path / CONFIG_NAME
        if not config_file.is_file():
            packaged = PACKAGED.name in path.parts and pretrained()
            raise UserError(
                f"{path}: no run directory (no {CONFIG_NAME} in it)"
                + (f"; with the package come {', '.join(packaged)}" if packaged else "")
            )
        config = Config.from_json(
            strict_json.read_text(config_file, str(config_file)), str(config_file)
        )
        return cls(path, config, read_card(path))

    @classmethod
    def prepare(
        cls, path: str | os.PathLike, config: Config, card: DatasetCard, restart: bool = False
    ) -> "RunDirectory":
        """Opens the run to continue it, or makes a new one.

        How a run goes on (`RunSettings`) may change: then config.json is replaced. A run that was
        imported without its records takes over the card. With `restart`, what a run has made so far
        is removed, and nothing else, and another takes its place.

        Raises:
            UserError: the folder holds something else, or a run of another model, with other
                settings of training, or on other records; or what is to be removed cannot be.
        """
        path = Path(expand_home(path))
        if (path / CONFIG_NAME).exists() and not restart:
            return cls.open(path)._continued(config, card)
        _check_may_be_run(path)
        make_folder(path)
        if restart:
            made = ("checkpoints", "events", "evaluations", "faults", STATUS_NAME, HISTORY_NAME)
            for name in made:
                _remove(path / name)
        # config.json last: a folder with one is complete.
        _write(path / CARD_NAME, card.to_json())
        _write(path / CONFIG_NAME, config.to_json())
        return cls(path, config, card)

    @classmethod
    def joined(
        cls, path: str | os.PathLike, config: Config, card: DatasetCard, worker: int
    ) -> "RunDirectory":
        """Opens what the chief of several workers has prepared, in another one.

        Raises:
            UserError: it is not to be seen here, or this worker has other settings or records.
        """
        if not (Path(path) / CONFIG_NAME).is_file():
            raise UserError(
                f"{path}: worker {worker} does not see what worker 0 has written there; accepted: "
                "a folder on a file system that all workers share"
            )
        run = cls.open(path)
        if differences := config.differences(run.config):
            raise UserError(
                f"worker {worker} has other settings than worker 0 ({'; '.join(differences)}); "
                "accepted: the same command on every worker"
            )
        run._check_same_records(card)
        return run

    def _continued(self, config: Config, card: DatasetCard) -> "RunDirectory":
        differences = config.differences(self.config, ("model", "training"))
        if differences:
            raise UserError(
                f"{self.path}: holds a run of another configuration "
                f"({'; '.join(differences)}): give its settings, or another --run_dir"
            )
        if self.card.is_placeholder:
            self._check_same_kinds(card)
            _write(self.path / CARD_NAME, card.to_json())
        else:
            self._check_same_records(card)
            card = self.card
        if config.run != self.config.run:
            _write(self.path / CONFIG_NAME, config.to_json())
        return RunDirectory(self.path, config, card)

    def _check_same_records(self, card: DatasetCard) -> None:
        # The shards' checksums say what the records are, however they were made.
        if (card.features, card.splits, card.normalization) != (
            self.card.features,
            self.card.splits,
            self.card.normalization,
        ):
            raise UserError(
                f"{self.path}: holds a run on other records ({self.card.name}, source "
                f"{self.card.source_sha256[:12]}; given: {card.name}, source "
                f"{card.source_sha256[:12]}): give its --data, or another --run_dir"
            )

    def check_same_units(self, card: DatasetCard) -> None:
        """Checks that likelihoods of other records compare with the run's.

        Where the run's own are not known, records with features of the same kinds are accepted, and
        stderr is told.

        Raises:
            UserError: features or normalisation differ.
        """
        if self.card.is_placeholder:
            self._check_same_kinds(card)
            print(
                f"{self.path}: how the data that it was trained on were normalised is not known; "
                f"likelihoods are of the values that {card.name} holds (normalization: "
                f"{card.normalization.kind})",
                file=sys.stderr,
            )
            return
        if difference := self.difference_of_units(card):
            what, theirs, mine = difference
            raise UserError(
                f"the records {card.name} have other {what} than those that {self.path} "
                f"was trained on: {theirs}; accepted: {mine}"
            )

    def difference_of_units(self, card: DatasetCard) -> tuple[str, str, str] | None:
        """What of other records' values differs first from the run's: what, theirs, the run's."""
        for what, described in (("features", _features), ("normalization", _normalization)):
            # The first difference only: a frame of audio has hundreds of features.
            for theirs, mine in zip(described(card), described(self.card), strict=False):
                if theirs != mine:
                    return what, theirs, mine
        return None

    def _check_same_kinds(self, card: DatasetCard) -> None:
        theirs, mine = ((c.num_real, c.num_binary) for c in (card, self.card))
        if theirs != mine:
            raise UserError(
                f"the records {card.name} have {theirs[0]} real and {theirs[1]} binary features; "
                f"the model of {self.path} has {mine[0]} and {mine[1]}"
            )

    @property
    def latest(self) -> Path:
        """Folder of the checkpoints to continue from."""
        return self.path / "checkpoints" / "latest"

    @property
    def best(self) -> Path:
        """Folder of the checkpoint with the best validation ELBO."""
        return self.path / "checkpoints" / "best"

    def events(self, split: str) -> Path:
        """Folder of the TensorBoard events of a split."""
        return self.path / "events" / split

    @property
    def traces(self) -> list[Path]:
        """The folders that training has filled: without a state, one has been lost."""
        folders = (self.latest, self.best, *map(self.events, ("train", "valid")))
        return [path for path in folders if path.is_dir() and any(path.iterdir())]

    def load(self, checkpoint: str = "best") -> "Trained":
        """Builds the model and reads its weights, of which a trainer may be writing newer ones.

        Where the newest checkpoint is damaged, the one before it is read, and stderr is told.

        Args:
            checkpoint: "best" or "latest".

        Raises:
            UserError: there is no such checkpoint, or none is whole and of this model.
        """
        folder = {"best": self.best, "latest": self.latest}.get(checkpoint)
        if folder is None:
            raise UserError(f"checkpoint: {checkpoint!r}; accepted: best, latest")
        if not checkpoint_files.in_folder(folder):
            raise UserError(
                f"{folder}: no checkpoint (the run has not been evaluated or saved yet)"
            )
        import tensorflow as tf

        model = build_model(self.config.model, self.card)
        state = tf.train.Checkpoint(weights=weights_by_path(model))
        prefix = checkpoint_files.read_newest(
            folder,
            lambda prefix: restore(state, prefix),
            lambda line: print(line, file=sys.stderr),
        )
        if prefix is None:
            raise UserError(f"{folder}: its checkpoints are gone")
        return Trained(model, checkpoint_files.update_of(prefix))


def _remove(made: Path) -> None:
    """Removes what a run has made, unless it lies elsewhere, where other things may be, too."""
    if made.is_symlink():
        raise UserError(
            f"--restart: {made}: a symbolic link, which is not followed: remove it and what is "
            "to go of what it points at"
        )
    try:
        if made.is_dir():
            shutil.rmtree(made)
        else:
            made.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"--restart: {error.filename or made}: cannot be removed ({error.strerror})"
        ) from error


def _features(card: DatasetCard) -> list[str]:
    """Their number, then each."""
    return [f"number {card.num_features}", *map(str, card.features)]


def _normalization(card: DatasetCard) -> list[str]:
    """Its kind, then that of each feature."""
    norm = card.normalization
    each = zip(card.features, norm.mean, norm.std, strict=True)
    return [norm.kind, *(f"{feature.name}: mean {m}, std {s}" for feature, m, s in each)]


def _write(path: Path, text: str) -> None:
    with replacing_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def weights_by_path(model: "SequenceModel") -> "dict[str, keras.Variable]":
    """The model's variables by path, as checkpoints name them.

    `tf.train.Checkpoint(model=...)` would drop those of layers in Python lists.
    """
    return {variable.path: variable for variable in model.weights}


def restore(checkpoint: "tf.train.Checkpoint", prefix: str, whole: bool = False) -> None:
    """Reads a checkpoint's files into its objects.

    Args:
        checkpoint: every one of its objects must be in the files.
        prefix: of the files.
        whole: everything in the files must be in `checkpoint`, too.

    Raises:
        UserError: the files are damaged or of other objects.
    """
    import tensorflow as tf

    try:
        status = checkpoint.restore(prefix)
        status.assert_existing_objects_matched()
        if whole:
            status.assert_consumed()
        else:
            status.expect_partial()
    except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
        # IndexError is how TensorFlow tells that a file is too short.
        raise UserError(
            f"{prefix}: damaged, or not of the model in {CONFIG_NAME} ({reason_of(error)})"
        ) from error


def load_run(run_dir: str | os.PathLike, checkpoint: str = "best") -> "SequenceModel":
    """The model of a run with its trained weights.

    Args:
        run_dir: a run directory of `stcn_tf.train`; or pretrained/NAME, one of the package.
        checkpoint: "best" (by validation ELBO) or "latest".

    Returns:
        A model to `score`, `reconstruct` and generate with, computing in float32.

    Raises:
        UserError: it is no run directory, or has no such checkpoint.
    """
    return RunDirectory.open(run_dir).load(checkpoint).model


def main() -> None:
    """Prints the table of the runs in a folder."""
    args = flags.FLAGS

    from stcn_tf import run_list

    print(run_list.table(args.dir))


if __name__ == "__main__":
    cli.run(main, flags.define_runs, needs_tensorflow=False, positional=("dir",))
