"""The training loop: updates, evaluation, early stopping, checkpoints; hooks are told the rest."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from stcn_tf.config import RunSettings
from stcn_tf.inference.evaluation import Evaluation
from stcn_tf.support.errors import UserError
from stcn_tf.training.checkpoints import Checkpoints
from stcn_tf.training.early_stopping import EarlyStopping
from stcn_tf.training.hooks import Hook, Updates
from stcn_tf.training.step import StepResult


class TrainingLoop:
    """Trains until the last step, early stopping, Ctrl-C (SIGINT), SIGTERM or SIGHUP.

    Args:
        settings: how long, and what when.
        next_batch: gives the next batch.
        update: makes an update from it.
        evaluate: evaluates the validation split; given a function that says whether to give up, in
            which case it returns None.
        value_of: of an evaluation the number that decides, nats per sequence.
        early_stopping: the judge of evaluations.
        checkpoints: restored, if there was something to restore.
        last_step: the number of the last update.
        hooks: who is told.

    Attributes:
        step: the number of updates made.
        last_step: the number of the last update.
    """

    def __init__(
        self,
        settings: RunSettings,
        next_batch: Callable[[], Any],
        update: Callable[[Any], StepResult],
        evaluate: Callable[[Callable[[], bool]], Evaluation | None],
        value_of: Callable[[Evaluation], float],
        early_stopping: EarlyStopping,
        checkpoints: Checkpoints,
        last_step: int,
        hooks: Sequence[Hook],
    ):
        self._settings = settings
        self._next_batch = next_batch
        self._update = update
        self._evaluate_split = evaluate
        self._value_of = value_of
        self._early_stopping = early_stopping
        self._checkpoints = checkpoints
        self._hooks = hooks
        self.step = checkpoints.step
        # An imported run may have made more updates than that: it is evaluated and ends.
        self.last_step = max(last_step, self.step)
        self._stop_requested = False

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end, which it has not for good: it may be extended."""
        is_evaluated = self._early_stopping.evaluated_step == self.step
        return self._early_stopping.stops or (self.step >= self.last_step and is_evaluated)

    def run(self) -> bool:
        """Trains.

        Returns:
            True when the run has come to its end; False when it was interrupted and can be
            continued.

        Raises:
            UserError: training diverged.
        """
        self._tell("started", self.step, self.last_step)
        with self._signals_stop():
            finished = self._updates()
            self._checkpoints.save()
        self._tell("ended", self.step, finished)
        return finished

    @contextlib.contextmanager
    def _signals_stop(self) -> Iterator[None]:
        """Inside, signals end training after the update that is being made."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python handles signals in its main thread alone
            return
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            numbers.remove(signal.SIGHUP)  # started by nohup
        handlers = {number: signal.signal(number, self._request_stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _updates(self) -> bool:
        window = _Window()
        while not self.is_finished:
            if self._stop_requested:
                self._report(window)
                return False
            if self._is_evaluation_due():
                with window.paused():
                    self._evaluate()
                continue
            with window.waiting():
                batch = self._next_batch()
            window.add(self._update(batch))
            self.step = step = self.step + 1
            is_checkpoint_due = step % self._settings.checkpoint_every == 0
            is_report_due = step % self._settings.log_every == 0 or step == self.last_step
            if is_report_due or is_checkpoint_due:
                self._report(window)
                window = _Window()
            with window.paused():
                self._tell("updated", step)
                if is_checkpoint_due:
                    self._checkpoints.save()
        return True

    def _is_evaluation_due(self) -> bool:
        # The step of the last evaluation is part of the checkpoint, so that a run which was stopped
        # in the middle of one makes it up.
        step = self.step
        # What was imported is the best so far, but how good it is nobody knows yet.
        if self._checkpoints.imported and math.isinf(self._early_stopping.best):
            return True
        due = step > 0 and (step % self._settings.evaluate_every == 0 or step == self.last_step)
        return due and self._early_stopping.evaluated_step != step

    def _report(self, window: "_Window") -> None:
        """Tells of the updates of a window. Comes before every checkpoint, so none is of NaN."""
        if not window.count:
            return
        updates = window.summed(self.step)
        self._tell("reported", updates)
        per_step = updates.totals["objective"] / updates.totals["num_steps"]
        norm = updates.totals["gradient_norm"] / updates.count
        if not (np.isfinite(per_step) and np.isfinite(norm)):
            raise UserError(
                f"training diverged by update {self.step} (objective {per_step} nats/step, "
                f"gradient norm {norm}): start in another --run_dir with a smaller "
                "--learning_rate or --clip_norm"
            )

    def _evaluate(self) -> None:
        evaluation = self._evaluate_split(lambda: self._stop_requested)
        if evaluation is None:
            return
        verdict = self._early_stopping.judge(self.step, self._value_of(evaluation))
        if verdict.is_best:
            self._checkpoints.save_best(verdict.value)
        self._tell("evaluated", self.step, evaluation, verdict)

    def _request_stop(self, number, frame) -> None:
        if self._stop_requested:  # asked twice: at once, from the last checkpoint
            raise KeyboardInterrupt
        self._stop_requested = True
        self._tell("stopping")

    def _tell(self, what: str, *args: Any) -> None:
        for hook in self._hooks:
            getattr(hook, what)(*args)


class _Window:
    """Sums over the updates since the last report, and the time they took."""

    def __init__(self):
        self._sums = None
        self.count = 0
        self._start = time.monotonic()
        self._waiting = 0.0

    def add(self, result: StepResult) -> None:
        """Adds an update's result, on the device: nothing waits for its value."""
        self.count += 1
        if self._sums is None:
            self._sums = result
        else:
            self._sums = tf.nest.map_structure(tf.add, self._sums, result)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Notes the time that is spent inside."""
        start = time.monotonic()
        yield
        self._waiting += time.monotonic() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out of the clock what is done inside."""
        start = time.monotonic()
        yield
        self._start += time.monotonic() - start

    def summed(self, last: int) -> Updates:
        """The updates, the last of them by its number; waits for their results."""
        totals = {name: value.numpy() for name, value in self._sums._asdict().items()}
        return Updates(last, self.count, totals, time.monotonic() - self._start, self._waiting)
