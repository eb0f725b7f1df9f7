"""What the training loop tells, to whom it may concern: progress lines, TensorBoard, pictures."""

from typing import NamedTuple

import numpy as np

from stcn_tf.inference.evaluation import Evaluation
from stcn_tf.training.early_stopping import Verdict


class Updates(NamedTuple):
    """Some updates in a row."""

    last: int  # the number of the last one
    count: int
    totals: dict[str, np.ndarray]  # sums of the `StepResult` fields over them
    seconds: float  # that they took, evaluation, pictures and checkpoints left out
    waiting: float  # seconds of these in which they waited for their batches
    processor_seconds: float  # of all threads of this process

    @property
    def num_skipped(self) -> int:
        """Those that were skipped."""
        return int(self.totals["skipped"])

    @property
    def num_made(self) -> int:
        """The others, of which the sums are."""
        return self.count - self.num_skipped

    @property
    def per_second(self) -> float:
        """Updates a second."""
        return self.count / self.seconds

    @property
    def steps_per_second(self) -> float:
        """Steps of sequences a second, without padding: what a user waits for."""
        return float(self.totals["num_valid"]) / self.seconds

    @property
    def padding(self) -> float:
        """The share of the steps that were padding."""
        return 1.0 - float(self.totals["num_valid"] / self.totals["num_padded"])


class Hook:
    """Is told what happens; what a subclass does not care about does nothing."""

    def started(self, step: int, last_step: int) -> None:
        """Training begins, or goes on after update `step`, until `last_step` at most."""

    def updated(self, step: int) -> None:
        """Update `step` has been made; nothing waits for its results."""

    def reported(self, updates: Updates) -> None:
        """The updates since the last report; comes before every checkpoint."""

    def evaluated(self, step: int, evaluation: Evaluation, verdict: Verdict) -> None:
        """The validation split has been evaluated after update `step`."""

    def stopping(self) -> None:
        """Someone asked training to stop."""

    def ended(self, step: int, finished: bool) -> None:
        """Training has ended after update `step`, or been interrupted with a checkpoint."""
