"""On which devices a batch is computed, who gets which of its sequences, and who writes.

Every worker reads the same batches and computes its own sequences of each. So a run's position in
the data does not depend on the number of devices, with which it may go on; and since the noise of a
sequence belongs to its number in the batch, neither do its results, but for rounding.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from stcn_tf.config import STRATEGIES
from stcn_tf.data.batches import Batch
from stcn_tf.support.errors import UserError, reason_of

_VARIABLE = "TF_CONFIG"
# What the end of another worker is to this one.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
_ACCEPTED = (
    'accepted: as in {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": '
    '"worker", "index": 0}}'
)


class Share(NamedTuple):
    """The sequences of a batch that one replica computes."""

    x: tf.Tensor  # [sequences, time, features] float32
    lengths: tf.Tensor  # [sequences] int32; 0: there is no sequence, the row is padding
    rows: tf.Tensor  # [sequences] int32, of each the number in the batch; its noise belongs to it

    @classmethod
    def whole(cls, x: tf.Tensor, lengths: tf.Tensor) -> "Share":
        """All sequences of a batch."""
        return cls(x, lengths, tf.range(tf.shape(x)[0]))

    @classmethod
    def spec(cls, num_features: int) -> "Share":
        """Of any number of sequences of any length."""
        return cls(
            tf.TensorSpec([None, None, num_features], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        )


class Distribution:
    """One device, all GPUs of this machine, or those of several machines.

    Must be made before TensorFlow computes anything, if there are several machines: this process
    then waits for the others.

    Args:
        name: "default", "mirrored" or "multi_worker". Which workers there are and which of them
            this process is, the environment variable TF_CONFIG says, as TensorFlow documents it; or
            SLURM, in a step of which this process runs.

    Attributes:
        strategy: in whose scope model and optimizer are made.
        num_workers: processes that compute.
        worker: the number of this one; number 0 is the chief, which alone writes.

    Raises:
        UserError: there is no such strategy, TF_CONFIG is missing or makes no sense, or the other
            workers do not appear.
    """

    def __init__(self, name: str = "default"):
        if name not in STRATEGIES:
            raise UserError(f"strategy: {name!r}; accepted: {', '.join(STRATEGIES)}")
        self.num_workers, self.worker, self._workers = 1, 0, {}
        if name == "default":
            self.strategy = tf.distribute.get_strategy()
        elif name == "mirrored":
            self.strategy = tf.distribute.MirroredStrategy()
        else:
            resolver, self._workers, self.worker = _resolved()
            self.num_workers = len(self._workers)
            with self.peers():
                self.strategy = _multi_worker_strategy(resolver)
        self._replicas = self.strategy.num_replicas_in_sync

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints, events, pictures and lines of progress."""
        return self.worker == 0

    @property
    def num_replicas(self) -> int:
        """Devices that compute, of all workers."""
        return self._replicas

    @property
    def devices(self) -> str:
        """In words."""
        if self.num_workers > 1:
            return f"{self._replicas} devices of {self.num_workers} workers"
        if self._replicas > 1:
            return ", ".join(self.strategy.extended.worker_devices)
        gpus = tf.config.list_logical_devices("GPU")
        return gpus[0].name if gpus else "the CPU"

    def check_batch_size(self, batch_size: int) -> None:
        """Checks that there is something to do for every device.

        Raises:
            UserError: there are more devices than sequences in a batch.
        """
        if batch_size < self._replicas:
            raise UserError(
                f"--batch_size={batch_size}: at least one sequence for each of the "
                f"{self._replicas} devices is accepted"
            )

    def split(self, batch: Batch) -> Any:
        """Gives each replica every n-th sequence, so that their lengths are alike.

        Returns:
            A `Share`; where there are several replicas, one for each of this worker's.
        """
        share = Share.whole(batch.x, batch.lengths)
        if self._replicas == 1:
            return share
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.nest.map_structure(
                lambda t: t[context.replica_id_in_sync_group :: self._replicas], share
            )
        )

    def over_rows(self, compute: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
        """Makes of a function of a `Share` one of a `Batch`, that all replicas work at.

        Args:
            compute: of a share and other tensors two nested structures of tensors: of results for
                each row, [sequences, ...], and of sums over rows.

        Returns:
            A function of a batch and the other tensors; every worker gets all of both.
        """
        if self._replicas == 1:
            return lambda batch, *args: compute(self.split(batch), *args)

        def on_replica(share, *args):
            rows, sums = compute(share, *args)
            replica = tf.distribute.get_replica_context()
            rows = tf.nest.map_structure(lambda v: replica.all_gather(v, axis=0), rows)
            return rows, tf.nest.map_structure(lambda v: replica.all_reduce("sum", v), sums)

        @tf.function(autograph=False, reduce_retracing=True)
        def on_replicas(shares, *args):
            results = self.strategy.run(on_replica, args=(shares, *args))
            return tf.nest.map_structure(self._local, results)

        def in_order(values: tf.Tensor, count: int) -> tf.Tensor:
            """Row i of replica r is row i * replicas + r of the batch."""
            by_replica = tf.reshape(values, [self._replicas, -1, *values.shape[1:]])
            order = [1, 0, *range(2, by_replica.shape.rank)]
            return tf.reshape(tf.transpose(by_replica, order), values.shape)[:count]

        def on_batch(batch, *args):
            count = batch.x.shape[0]
            missing = -count % self._replicas  # all replicas gather as many rows
            batch = batch._replace(
                x=tf.pad(batch.x, [[0, missing], [0, 0], [0, 0]]),
                lengths=tf.pad(batch.lengths, [[0, missing]]),
            )
            rows, sums = on_replicas(self.split(batch), *args)
            return tf.nest.map_structure(lambda values: in_order(values, count), rows), sums

        return on_batch

    def reduced(self, update: Any) -> Any:
        """Of what every replica returned, and which was reduced in it, one."""
        return tf.nest.map_structure(self._local, update)

    def any(self, value: bool) -> bool:
        """Whether it holds for any worker; each must ask."""
        return self._sum(value) > 0

    def agrees(self, value: float) -> bool:
        """Whether every worker has this number; each must ask."""
        return self._sum(value) == self.num_workers * value

    def wait(self) -> None:
        """Waits until every worker has come here."""
        self._sum(0.0)

    @contextlib.contextmanager
    def peers(self) -> Iterator[None]:
        """Inside, what the end of another worker breaks is told in one line.

        Raises:
            UserError: another worker has ended.
        """
        try:
            yield
        except _LOST as error:
            if self.num_workers == 1:
                raise
            raise UserError(_told(error, self._workers, self.worker)) from error

    def _sum(self, value: float) -> float:
        if self.num_workers == 1:
            return float(value)
        # Of each worker one device says it.
        local = self._replicas // self.num_workers
        values = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                0.0 if context.replica_id_in_sync_group % local else float(value), tf.float64
            )
        )
        return float(self.strategy.reduce("SUM", values, axis=None))

    def _local(self, value: Any) -> Any:
        return self.strategy.experimental_local_results(value)[0]


def _multi_worker_strategy(resolver) -> tf.distribute.Strategy:
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise UserError(
            "--strategy=multi_worker: TensorFlow has computed in this process already; accepted: "
            "a Trainer that is the first to use it"
        ) from error


def _told(error: tf.errors.OpError, workers: dict[tuple[str, int], str], mine: int) -> str:
    """That a worker has lost others, in a line."""
    # Of those who are lost; who reports them is named in another form.
    found = re.findall(r"/job:(\w+)/replica:\d+/task:(\d+)", error.message)
    lost = {(job, int(task)) for job, task in found}
    named = [
        f"worker {number} ({address})"
        for number, (task, address) in enumerate(workers.items())
        if task in lost and number != mine
    ]
    return (
        f"worker {mine} has lost {' and '.join(named) or 'another worker'} ({reason_of(error)}): "
        "start all workers again, to go on from the last checkpoint"
    )


def _resolved() -> tuple[
    tf.distribute.cluster_resolver.ClusterResolver, dict[tuple[str, int], str], int
]:
    """Who the workers are.

    Returns:
        The same for TensorFlow; the address of each by its job and its number in that; and the
        number of this one among all.
    """
    if _VARIABLE not in os.environ and "SLURM_STEP_ID" in os.environ:
        # One task on each node, which has all of its GPUs.
        try:
            resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
                gpus_per_node=1, gpus_per_task=1, auto_set_gpu=False
            )
            addresses = resolver.cluster_spec().as_dict()["worker"]
            workers = {("worker", n): address for n, address in enumerate(addresses)}
            return resolver, workers, resolver.get_task_info()[1]
        except (RuntimeError, ValueError, OSError, AssertionError) as error:
            raise UserError(
                f"--strategy=multi_worker: SLURM does not say who the workers are "
                f"({reason_of(error)}); accepted: srun with one task on each node, or {_VARIABLE}"
            ) from error
    text = os.environ.get(_VARIABLE)
    if text is None:
        raise UserError(f"--strategy=multi_worker: {_VARIABLE} is not set; {_ACCEPTED}")
    try:
        raw = json.loads(text)
        cluster, task = raw["cluster"], raw["task"]
        kind, index = task["type"], task["index"]
        workers = {
            (job, n): address
            for job in ("chief", "worker")
            for n, address in enumerate(cluster.get(job, ()))
        }
        is_good = (
            set(cluster) <= {"chief", "worker"}
            and len(cluster.get("chief", ())) <= 1
            and all(isinstance(address, str) for address in workers.values())
        )
        mine = list(workers).index((kind, int(index)))
    except (ValueError, KeyError, TypeError, AttributeError):
        is_good = False
    if not is_good:
        raise UserError(
            f"{_VARIABLE}={text[:200]}: no workers with this one among them; {_ACCEPTED}"
        )
    return tf.distribute.cluster_resolver.TFConfigClusterResolver(), workers, mine
