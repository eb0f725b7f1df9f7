"""Keeps a run's status.json up to date."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

from stcn_tf import run_status
from stcn_tf.inference.evaluation import Evaluation
from stcn_tf.run_status import RunStatus
from stcn_tf.support.errors import UserError, reason_of
from stcn_tf.training.early_stopping import EarlyStopping, Verdict
from stcn_tf.training.hooks import Hook, Updates

# Between two writings, but for what changes more than the count of updates.
_SECONDS = 10.0


class Status(Hook):
    """Writes how far a run is, for those who look at it from elsewhere.

    Args:
        folder: the run directory; None: another worker writes.
        report: told every line of progress, of which the last is noted.
        early_stopping: of the run.
        num_parameters: of the model.
        best_of: what decides on the validation split, with its scale.
        check: raises a UserError where nothing may be written any more.
    """

    def __init__(
        self,
        folder: Path | None,
        report: Callable[[str], None],
        early_stopping: EarlyStopping,
        num_parameters: int,
        best_of: str,
        check: Callable[[], None] = lambda: None,
    ):
        self._folder = folder
        self._check = check
        self._report = report
        self._early_stopping = early_stopping
        self._status = RunStatus(
            run_status.TRAINING, num_parameters=num_parameters, best_of=best_of
        )
        self._line = ""
        self._written_at = -math.inf
        self._hours_before: float | None = None
        self._began_at = time.process_time()

    def tell(self, line: str) -> None:
        """Passes on a line of progress; it comes before the `Hook` is told of the same."""
        self._line = line
        self._report(line)

    def finished_already(self, step: int, last_step: int) -> None:
        """There is nothing to do."""
        self.started(step, last_step)
        self.ended(step, finished=True)

    def started(self, step: int, last_step: int) -> None:
        """See `Hook.started`."""
        self._hours_before = self._hours_of_earlier_trainers(step)
        self._write(run_status.TRAINING, update=step, last_update=last_step)

    def reported(self, updates: Updates) -> None:
        """See `Hook.reported`."""
        # The fastest: whatever else a machine does, it only adds to them.
        least = {
            "seconds_per_update": updates.seconds / updates.count,
            "processor_seconds_per_update": updates.processor_seconds / updates.count,
        }
        for name, seconds in least.items():
            before = getattr(self._status, name)
            least[name] = seconds if before is None else min(before, seconds)
        self._status = dataclasses.replace(self._status, **least)
        if time.monotonic() - self._written_at >= _SECONDS:
            self._write(run_status.TRAINING, update=updates.last)

    def evaluated(self, step: int, evaluation: Evaluation, verdict: Verdict) -> None:
        """See `Hook.evaluated`."""
        self._write(run_status.TRAINING, update=step)

    def ended(self, step: int, finished: bool) -> None:
        """See `Hook.ended`."""
        state = run_status.FINISHED if finished else run_status.STOPPED
        if finished and self._early_stopping.stops:
            state = run_status.EARLY
        self._write(state, update=step)

    def failed(self, error: Exception) -> None:
        """Training has ended by an error."""
        self._line = reason_of(error)
        self._write(run_status.FAILED)

    def _hours_of_earlier_trainers(self, step: int) -> float | None:
        """What they have noted; None: not known."""
        if self._status.written:  # by this one, which goes on
            return self._hours_before
        try:
            before = RunStatus.read(self._folder) if self._folder else None
        except UserError:
            return None
        return before.processor_hours if before else None if step else 0.0

    def _write(self, state: str, **changes: int) -> None:
        best, hours = self._early_stopping.best, self._hours_before
        if hours is not None:
            hours += (time.process_time() - self._began_at) / 3600
        self._status = dataclasses.replace(
            self._status,
            state=state,
            best=best if math.isfinite(best) else None,
            best_update=self._early_stopping.best_step,
            processor_hours=hours,
            line=self._line,
            written=time.strftime("%Y-%m-%d %H:%M:%S"),
            **changes,
        )
        # A full disk is told by what cannot do without.
        with contextlib.suppress(OSError, UserError):
            if self._folder:
                self._check()
                self._status.write(self._folder)
        self._written_at = time.monotonic()
