"""Updates that were skipped because they would have made the weights useless, and why they were."""

import json
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from stcn_tf.data.batches import Batch
from stcn_tf.distribution import Share
from stcn_tf.runs import RunDirectory
from stcn_tf.support.errors import UserError, reason_of
from stcn_tf.support.files import replacing_file
from stcn_tf.training.step import StepResult, TrainStep

_MOST_FILES = 100  # of a run
_MOST_NAMES = 5  # of sequences, in a line


class _Pending(NamedTuple):
    update: int
    batch: Batch
    result: StepResult


class Faults:
    """Looks at each update's result while the next one is computed.

    A skipped update is told in a line: its number, the sequences that the objective is not finite
    of, and the first layer to compute something that is not. Its batch goes into faults/ of the run
    directory: x, lengths, ids, and the update's number and line.

    Args:
        run: the run directory.
        step: makes the updates.
        most_in_a_row: updates that may be skipped one after the other.
        tell: told every line.
        writes: whether to write batches, and find out about them; False where another worker does.
        check: raises a UserError where nothing may be written any more.
    """

    def __init__(
        self,
        run: RunDirectory,
        step: TrainStep,
        most_in_a_row: int,
        tell: Callable[[str], None],
        writes: bool = True,
        check: Callable[[], None] = lambda: None,
    ):
        self._folder = run.path / "faults"
        self._step = step
        self._most_in_a_row = most_in_a_row
        self._tell = tell
        self._writes = writes
        self._check = check
        self._pending: _Pending | None = None
        self.in_a_row = 0

    def watch(self, update: int, batch: Batch, result: StepResult) -> None:
        """Takes an update, and waits for the result of the one before.

        Args:
            update: its number.
            batch: that it was made of, the whole of it.
            result: of it.

        Raises:
            UserError: too many in a row were skipped.
        """
        self.settle()
        self._pending = _Pending(update, batch, result)

    def settle(self) -> None:
        """Waits for the result of the last update; `in_a_row` then counts it.

        Raises:
            UserError: too many in a row were skipped.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        if not float(pending.result.skipped):
            self.in_a_row = 0
            return
        if float(pending.result.overflowed):
            return  # the next one has a smaller scale
        self.in_a_row += 1
        line = self._line(pending)
        self._tell(line)
        if self.in_a_row >= self._most_in_a_row:
            raise UserError(
                f"training diverged: {self.in_a_row} updates in a row were skipped ({line}); "
                f"the last checkpoint is one of before them; see {self._folder}, and begin anew "
                "with a smaller --learning_rate or --clip_norm"
            )

    def _line(self, pending: _Pending) -> str:
        told = f"update {pending.update:,} skipped"
        if not self._writes:
            return told
        try:
            told = f"{told}: {self._reason(pending)}"
        except tf.errors.ResourceExhaustedError:
            told = f"{told}: objective or gradient is not finite"
        file = self._folder / f"update_{pending.update:09d}.npz"
        if self._folder.is_dir() and len(list(self._folder.iterdir())) >= _MOST_FILES:
            return told
        try:
            self._check()
            with replacing_file(file) as partial, partial.open("wb") as out:
                np.savez(
                    out,
                    x=pending.batch.x.numpy(),
                    lengths=pending.batch.lengths.numpy(),
                    ids=np.array(pending.batch.names),
                    about=json.dumps({"update": pending.update, "line": told}),
                )
        except (OSError, UserError) as error:
            return f"{told}; its batch cannot be saved ({reason_of(error)})"
        return f"{told}; its batch: {file}"

    def _reason(self, pending: _Pending) -> str:
        """By scoring the batch once more, uncompiled, with the weights of after the next update."""
        share = Share.whole(pending.batch.x, pending.batch.lengths)
        ids = pending.batch.names
        layer, bad = None, []
        moving = [variable.value for variable in self._step.model.non_trainable_variables]
        before = [variable.numpy() for variable in moving]
        tf.debugging.enable_check_numerics()
        try:
            self._step.rewards(share, pending.update)
        except tf.errors.InvalidArgumentError as error:
            layer = _innermost_layer(error) or "the model"
        finally:
            tf.debugging.disable_check_numerics()
        variables = self._step.model.trainable_variables
        with tf.GradientTape() as tape:
            rewards = self._step.rewards(share, pending.update)
        for variable, value in zip(moving, before, strict=True):
            variable.assign(value)
        finite = np.isfinite(rewards)
        if finite.all():
            gradients = tape.gradient(
                rewards,
                [v.value for v in variables],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            bad = [
                v.path
                for v, g in zip(variables, gradients, strict=True)
                if not np.isfinite(g).all()
            ]
        else:
            ids = [name for name, good in zip(ids, finite, strict=True) if not good]
        of = ", ".join(ids[:_MOST_NAMES])
        of += f" and {len(ids) - _MOST_NAMES} more" if len(ids) > _MOST_NAMES else ""
        if not finite.all():
            what = f"the objective of {of} is not finite"
        elif bad:
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            what = f"the gradient for {bad[-1]}{more} of {of} is not finite"
        else:
            what = f"of {of}; with the weights of the next one it is finite"
        return f"{what}, first in {layer}" if layer else what


def _innermost_layer(error: BaseException) -> str | None:
    """The path of the layer in whose code an error was raised."""
    found, trace = None, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, keras.Layer) and not isinstance(owner, keras.Model):
            found = owner.path or owner.name
        trace = trace.tb_next
    return found
