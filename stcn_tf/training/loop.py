"""The training loop: updates, evaluation, early stopping, checkpoints; hooks are told the rest."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from stcn_tf.config import RunSettings
from stcn_tf.data.batches import Batch
from stcn_tf.inference.evaluation import Evaluation
from stcn_tf.training.checkpoints import Checkpoints
from stcn_tf.training.early_stopping import EarlyStopping
from stcn_tf.training.faults import Faults
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
        faults: told of each update.
        last_step: the number of the last update.
        hooks: who is told.
        agree: whether any worker was asked to stop, given whether this one was.

    Attributes:
        step: the number of updates made.
        last_step: the number of the last update.
    """

    def __init__(
        self,
        settings: RunSettings,
        next_batch: Callable[[], Batch],
        update: Callable[[Batch], StepResult],
        evaluate: Callable[[Callable[[], bool]], Evaluation | None],
        value_of: Callable[[Evaluation], float],
        early_stopping: EarlyStopping,
        checkpoints: Checkpoints,
        faults: Faults,
        last_step: int,
        hooks: Sequence[Hook],
        agree: Callable[[bool], bool] = bool,
    ):
        self._settings = settings
        self._next_batch = next_batch
        self._update = update
        self._evaluate_split = evaluate
        self._value_of = value_of
        self._early_stopping = early_stopping
        self._checkpoints = checkpoints
        self._faults = faults
        self._hooks = hooks
        self._agree = agree
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
            UserError: training diverged, or its state cannot be written.
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
            if self._stops():
                self._report(window)
                self._faults.settle()
                return False
            if self._is_evaluation_due():
                self._faults.settle()
                with window.paused():
                    self._evaluate()
                continue
            with window.waiting():
                batch = self._next_batch()
            result = self._update(batch)
            self.step = step = self.step + 1
            self._faults.watch(step, batch, result)
            window.add(result)
            is_checkpoint_due = step % self._settings.checkpoint_every == 0
            is_report_due = step % self._settings.log_every == 0 or step == self.last_step
            if is_report_due or is_checkpoint_due:
                self._report(window)
                window = _Window()
            with window.paused():
                self._tell("updated", step)
                if is_checkpoint_due:
                    self._save()
        self._faults.settle()
        return True

    def _save(self) -> None:
        """Saves the state, unless updates are being skipped: then it may be what is wrong.

        Should it be, too many will be skipped, and training ends with the checkpoint before them.
        Where it ends otherwise its state is saved in any case.
        """
        self._faults.settle()
        if not self._faults.in_a_row:
            self._checkpoints.save()

    def _stops(self) -> bool:
        return self._agree(self._stop_requested)

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
        """Tells of the updates of a window, unless all were skipped."""
        if not window.count:
            return
        updates = window.summed(self.step)
        if updates.num_made:
            self._tell("reported", updates)

    def _evaluate(self) -> None:
        evaluation = self._evaluate_split(self._stops)
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
        self._start, self._processor_start = time.monotonic(), time.process_time()
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
        """Leaves out of the clocks what is done inside."""
        start, processor_start = time.monotonic(), time.process_time()
        yield
        self._start += time.monotonic() - start
        self._processor_start += time.process_time() - processor_start

    def summed(self, last: int) -> Updates:
        """The updates, the last of them by its number; waits for their results."""
        totals = {name: value.numpy() for name, value in self._sums._asdict().items()}
        seconds = time.monotonic() - self._start
        processor_seconds = time.process_time() - self._processor_start
        return Updates(last, self.count, totals, seconds, self._waiting, processor_seconds)
