"""Everything a continued run needs, saved and restored exactly; and the best weights."""

import keras
import tensorflow as tf

from stcn_tf.models.base import SequenceModel
from stcn_tf.runs import RunDirectory, restore, weights_by_path
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
    """

    def __init__(
        self,
        run: RunDirectory,
        model: SequenceModel,
        optimizer: keras.optimizers.Optimizer,
        early_stopping: EarlyStopping,
        batches: tf.data.Iterator | None,
    ):
        self._optimizer = optimizer
        self.imported = False
        weights = weights_by_path(model)
        state = {
            "weights": weights,
            "optimizer": {variable.path: variable for variable in optimizer.variables},
            **early_stopping.state,
        }
        # In the place of the position: a checkpoint that has lost its own is damaged.
        mark = tf.Variable(True, trainable=False)
        self._state_imported = {**state, _IMPORTED: mark}
        self._state = self._state_imported if batches is None else {**state, "batches": batches}
        self._latest = tf.train.CheckpointManager(
            tf.train.Checkpoint(**self._state), str(run.latest), max_to_keep=2
        )
        self._best = tf.train.CheckpointManager(
            tf.train.Checkpoint(weights=weights), str(run.best), max_to_keep=1
        )

    @property
    def step(self) -> int:
        """The number of updates made; to ask is to wait for the last one."""
        return int(tf.convert_to_tensor(self._optimizer.iterations))

    def restore(self) -> bool:
        """Restores the latest state, if there is one; of an imported one all but the batches.

        Returns:
            Whether there was one.

        Raises:
            UserError: it is damaged or of another model.
        """
        prefix = self._latest.latest_checkpoint
        if prefix is None:
            return False
        parts = _parts(prefix)
        self.imported = _IMPORTED in parts
        state = self._state_imported if self.imported else self._state
        if _FINISHED in parts:
            state = {**state, _FINISHED: tf.Variable(False, trainable=False)}
        restore(tf.train.Checkpoint(**state), prefix, whole=True)
        return True

    def save(self) -> None:
        """Saves the state after the current update."""
        self._latest.save(checkpoint_number=self.step)

    def save_best(self) -> None:
        """Saves the weights as the best so far."""
        self._best.save(checkpoint_number=self.step)


def _parts(prefix: str) -> set[str]:
    """What the checkpoint has by the names of its parts."""
    try:
        names = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError):
        return set()  # damaged: restoring it tells
    return {name.split("/")[0] for name in names}
