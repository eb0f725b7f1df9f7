"""On which devices an update is computed, and who gets which sequences."""

from typing import Any

import tensorflow as tf

from stcn_tf.data.batches import Batch
from stcn_tf.support.errors import UserError


class Distribution:
    """One device, or all GPUs of this machine.

    Args:
        mirrored: split each batch over all GPUs.
        batch_size: sequences in a batch.

    Attributes:
        strategy: in whose scope model and optimizer are made.

    Raises:
        UserError: there are more devices than sequences in a batch.
    """

    def __init__(self, mirrored: bool, batch_size: int):
        strategy = tf.distribute.get_strategy()
        if mirrored:
            strategy = tf.distribute.MirroredStrategy()
        self.strategy = strategy
        self._replicas = strategy.num_replicas_in_sync
        if batch_size < self._replicas:
            raise UserError(
                f"--batch_size={batch_size}: at least one sequence for each of the "
                f"{self._replicas} devices is accepted"
            )

    @property
    def devices(self) -> str:
        """In words."""
        if self._replicas > 1:
            return ", ".join(self.strategy.extended.worker_devices)
        gpus = tf.config.list_logical_devices("GPU")
        return gpus[0].name if gpus else "the CPU"

    def split(self, batch: Batch) -> Any:
        """Gives each replica every n-th sequence, so that their lengths are alike."""
        if self._replicas == 1:
            return batch
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.nest.map_structure(
                lambda t: t[context.replica_id_in_sync_group :: self._replicas], batch
            )
        )
