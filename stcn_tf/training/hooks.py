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
    per_second: float


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
