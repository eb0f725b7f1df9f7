"""Everything a continued run needs, saved and restored exactly; and the best weights."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from stcn_tf import checkpoint_files
from stcn_tf.models.base import SequenceModel
from stcn_tf.runs import RunDirectory, restore, weights_by_path
from stcn_tf.support.errors import UserError, reason_of
from stcn_tf.training.early_stopping import EarlyStopping

_IMPORTED = "imported"
_FINISHED = "finished"  # of earlier versions; whether a run has ended follows from the rest


class Checkpoints:
    """The latest state of a run and the weights that evaluated best.

    Attributes:
        imported: whether what was restored had been imported.

    Args:
        run: the run directory.
        model: built.
        optimizer: built; its counter of updates is the step.
        early_stopping: whose state is saved, too.
        batches: the iterator of the training batches; None: the run is being imported and has no
            position in any data, so that who restores what is saved begins with the first batch.
        of_step: more variables by name, of `TrainStep`.
        writes: whether to write; False where another worker does.
        check: called before anything is written; raises a UserError where nothing may be.
    """

    def __init__(
        self,
        run: RunDirectory,
        model: SequenceModel,
        optimizer: keras.optimizers.Optimizer,
        early_stopping: EarlyStopping,
        batches: tf.data.Iterator | None,
        of_step: dict[str, tf.Variable] | None = None,
        writes: bool = True,
        check: Callable[[], None] = lambda: None,
    ):
        self._check = check
        self._optimizer = optimizer
        self._writes = writes
        self._run = run
        self.imported = False
        weights = weights_by_path(model)
        self._best_value = tf.Variable(-float("inf"), dtype=tf.float64, trainable=False)
        state = {
            "weights": weights,
            "optimizer": {variable.path: variable for variable in optimizer.variables},
            **early_stopping.state,
            **(of_step or {}),
        }
        # In the place of the position: a checkpoint that has lost its own is damaged.
        mark = tf.Variable(True, trainable=False)
        self._state_imported = {**state, _IMPORTED: mark}
        self._state = self._state_imported if batches is None else {**state, "batches": batches}
        for folder in (run.latest, run.best) if writes else ():
            checkpoint_files.sweep(folder)
        self._latest = tf.train.CheckpointManager(
            tf.train.Checkpoint(**self._state),
            str(run.latest),
            max_to_keep=run.config.run.keep_checkpoints or None,
        )
        # The one before stands in, should the best be damaged.
        self._best = tf.train.CheckpointManager(
            tf.train.Checkpoint(weights=weights, value=self._best_value),
            str(run.best),
            max_to_keep=2,
        )

    @property
    def step(self) -> int:
        """The number of updates made; to ask is to wait for the last one."""
        return int(tf.convert_to_tensor(self._optimizer.iterations))

    @property
    def names(self) -> list[str]:
        """What there is to go on from, the newest first."""
        return checkpoint_files.in_folder(self._run.latest)

    def restore(self, tell: Callable[[str], None]) -> None:
        """Restores the latest state, of an imported one all but the batches; or saves the first.

        So whatever ends a run from here on, its state is there.

        Args:
            tell: told in one line where the newest state is damaged and an earlier one is restored.

        Raises:
            UserError: all are damaged or of another model; or there is none although the run has
                been trained.
        """
        if checkpoint_files.read_newest(self._run.latest, self._read, tell) is not None:
            return
        if traces := self._run.traces:
            raise UserError(
                f"{self._run.path}: was trained ({traces[0].relative_to(self._run.path)} is "
                "there), but its state in checkpoints/latest is lost: put it back, give another "
                "--run_dir, or begin anew in this one with --restart"
            )
        self.save()

    def save(self) -> None:
        """Saves the state after the current update."""
        self._save(self._latest)

    def save_best(self, value: float) -> None:
        """Saves the weights as the best so far, unless better ones are there.

        They are where a run goes on from an earlier state than its last one.

        Args:
            value: that decided, nats per sequence.
        """
        if self._writes and value >= self._stored_best():
            self._best_value.assign(value)
            self._save(self._best)

    def _read(self, prefix: str) -> None:
        parts = _parts(prefix)
        self.imported = _IMPORTED in parts
        state = self._state_imported if self.imported else self._state
        if _FINISHED in parts:
            state = {**state, _FINISHED: tf.Variable(False, trainable=False)}
        restore(tf.train.Checkpoint(**state), prefix, whole=True)

    def _stored_best(self) -> float:
        """The value of the best weights that there are; -inf: there are none, or it is unknown."""
        stored = tf.Variable(-float("inf"), dtype=tf.float64, trainable=False)
        state = tf.train.Checkpoint(value=stored)
        for prefix in checkpoint_files.in_folder(self._run.best):
            if "value" in _parts(prefix):
                with contextlib.suppress(UserError):
                    restore(state, prefix)
                    break
        return float(stored)

    def _save(self, manager: tf.train.CheckpointManager) -> None:
        if not self._writes:
            return
        self._check()
        try:
            manager.save(checkpoint_number=self.step)
        except (tf.errors.OpError, OSError) as error:
            checkpoint_files.sweep(Path(manager.directory))
            raise UserError(
                f"{manager.directory}: the state after update {self.step} cannot be written "
                f"({reason_of(error)}); what was saved before is as it was"
            ) from error


def _parts(prefix: str) -> set[str]:
    """What the checkpoint has by the names of its parts."""
    try:
        names = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError):
        return set()  # damaged: restoring it tells
    return {name.split("/")[0] for name in names}
