"""The training loop: updates, progress, evaluation, early stopping, checkpoints."""

import contextlib
import functools
import math
import os
import signal
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from stcn_tf.config import Config
from stcn_tf.data.batches import Batch, eval_batches, train_batches
from stcn_tf.data.records import read_card
from stcn_tf.data.units import normalized
from stcn_tf.inference.evaluation import Evaluator
from stcn_tf.inference.generation import compile_generate, reconstruct_raw
from stcn_tf.media.page import medium_of
from stcn_tf.models import build_model
from stcn_tf.runs import RunDirectory
from stcn_tf.support.errors import UserError
from stcn_tf.training.checkpoints import Checkpoints
from stcn_tf.training.step import StepResult, TrainStep, make_optimizer
from stcn_tf.training.tensorboard import Summaries

# Flushed, so that a log file or a pipe shows progress, too.
_print_now = functools.partial(print, flush=True)


class Trainer:
    """One run: made from its settings, continued from its latest checkpoint, or extended.

    Args:
        config: all settings.
        data_dir: folder of records with the splits train and valid.
        run_dir: a new folder, or one that holds this run.
        report: told every line of progress.

    Attributes:
        step: the number of updates made.

    Raises:
        UserError: the records or the run directory do not fit.
    """

    def __init__(
        self,
        config: Config,
        data_dir: str | os.PathLike,
        run_dir: str | os.PathLike,
        report: Callable[[str], None] = _print_now,
    ):
        self.config, self._run_settings = config.training, config.run
        self._report = report
        # Of the initial weights. Before the batches, because TensorFlow mixes its global seed into
        # the seeds of tf.data.
        keras.utils.set_random_seed(self.config.seed)
        card = read_card(data_dir)
        for split in ("train", "valid"):
            if split not in card.splits:
                raise UserError(
                    f"{data_dir}: has no split {split!r}, only {', '.join(card.splits)}"
                )
        strategy = tf.distribute.get_strategy()
        if self._run_settings.mirrored:
            strategy = tf.distribute.MirroredStrategy()
        self._strategy = strategy
        if self.config.batch_size < strategy.num_replicas_in_sync:
            raise UserError(
                f"--batch_size={self.config.batch_size}: at least one sequence for each of the "
                f"{strategy.num_replicas_in_sync} devices is accepted"
            )
        batches = train_batches(
            data_dir,
            batch_size=self.config.batch_size,
            max_length=self.config.max_length,
            window=self.config.shuffle_window,
            seed=self.config.seed,
            pad_to_multiple=self.config.pad_to_multiple,
        )
        self._valid_batches = eval_batches(
            data_dir,
            split="valid",
            batch_size=self.config.batch_size,
            limit=self.config.evaluate_sequences,
            pad_to_multiple=self.config.pad_to_multiple,
        )
        self._medium = medium_of(card)
        self._pictured = None
        if self._run_settings.sample_every and self._medium.most_pictured:
            # The first sequences of the split, not of the batches, which begin with the shortest.
            num_pictured = self._medium.num_in_training
            self._pictured = eval_batches(
                data_dir, split="valid", batch_size=num_pictured, limit=num_pictured
            )
        self.run = RunDirectory.prepare(run_dir, config, card)
        with strategy.scope():
            self.model = build_model(config.model, card, self.config.precision)
            self._optimizer = make_optimizer(self.config)
            self._optimizer.build(self.model.trainable_variables)
        self._batches = iter(batches)
        self._train_step = TrainStep(
            self.config, self.model, self._optimizer, strategy, self._run_settings.jit_compile
        )
        self._evaluator = Evaluator(self.model, self._run_settings.jit_compile)
        self.checkpoints = Checkpoints(self.run, self.model, self._optimizer, self._batches)
        self.checkpoints.restore()
        self.step = self.checkpoints.step
        self._summaries = Summaries(self.run, self.model)
        # Every number of a progress line says what it is of: "ELBO (vrnn-normalised)".
        scale = f" ({normalized(card)})" if card.num_real else ""
        self._bound_name = f"{self.model.bound_name}{scale}"
        self._generate = compile_generate(self.model)
        num_train = card.splits["train"].num_sequences
        self.last_step = max(1, self._run_settings.max_epochs * num_train // self.config.batch_size)
        if self._run_settings.max_steps:
            self.last_step = min(self.last_step, self._run_settings.max_steps)
        # An imported run may have made more updates than that: it is evaluated and ends.
        self.last_step = max(self.last_step, self.step)
        self._stop_requested = False

    def train(self) -> bool:
        """Trains until the last step, early stopping, or Ctrl-C (SIGINT or SIGTERM).

        Returns:
            True when the run has come to its end; False when it was interrupted and can be
            continued.
        """
        if self._is_finished():
            self._report(
                f"{self.run.path}: finished already, after {self.step:,} updates; {self._best()}"
            )
            return True
        model = self.run.config.model
        observation = model.observation if self.run.card.num_real else "bernoulli"
        started = f"continuing after update {self.step:,}" if self.step else "starting"
        self._report(
            f"{started}: {model.model} with {observation} outputs on {self.run.card.name}, "
            f"{self.model.count_params():,} parameters, at most {self.last_step:,} updates on "
            f"{self._devices()}; {self.run.path}"
        )
        handlers = {
            number: signal.signal(number, self._request_stop)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            finished = self._updates()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._summaries.flush()
        if finished:
            self._report(f"finished after {self.step:,} updates: {self._best()}")
        else:
            self._report(
                f"stopped after {self.step:,} updates, checkpoint written; the same command "
                "continues"
            )
        return finished

    def _best(self) -> str:
        elbo, step = float(self.checkpoints.best_elbo), int(self.checkpoints.best_step)
        return f"best validation {self._bound_name} {elbo:.1f} nats/sequence after {step:,}"

    def _devices(self) -> str:
        if self._strategy.num_replicas_in_sync > 1:
            return ", ".join(self._strategy.extended.worker_devices)
        gpus = tf.config.list_logical_devices("GPU")
        return gpus[0].name if gpus else "the CPU"

    def _request_stop(self, number, frame) -> None:
        if self._stop_requested:  # asked twice: at once, from the last checkpoint
            raise KeyboardInterrupt
        self._stop_requested = True
        self._report("stopping after this update; once more: at once")

    def _updates(self) -> bool:
        window = _Window()
        while not self._is_finished():
            if self._stop_requested:
                self._log(window)
                self.checkpoints.save()
                return False
            if self._is_evaluation_due():
                with window.paused():
                    self._evaluate()
                continue
            window.add(self._train_step(self._distribute(next(self._batches))))
            self.step = step = self.step + 1
            is_checkpoint_due = step % self._run_settings.checkpoint_every == 0
            if (
                step % self._run_settings.log_every == 0
                or is_checkpoint_due
                or step == self.last_step
            ):
                self._log(window)
                window = _Window()
            with window.paused():
                if self._run_settings.sample_every and step % self._run_settings.sample_every == 0:
                    self._draw_pictures()
                if is_checkpoint_due:
                    self.checkpoints.save()
        self.checkpoints.save()
        return True

    def _is_finished(self) -> bool:
        """Whether the run has come to its end, which it has not for good: it may be extended."""
        is_evaluated = int(self.checkpoints.evaluated_step) == self.step
        return self._is_stopped_early() or (self.step >= self.last_step and is_evaluated)

    def _is_stopped_early(self) -> bool:
        return 0 < self.config.patience <= int(self.checkpoints.stale_evaluations)

    def _is_evaluation_due(self) -> bool:
        # The step of the last evaluation is part of the checkpoint, so that a run which was stopped
        # in the middle of one makes it up.
        step = self.step
        # What was imported is the best so far, but how good it is nobody knows yet.
        if self.checkpoints.imported and math.isinf(float(self.checkpoints.best_elbo)):
            return True
        due = step > 0 and (step % self._run_settings.evaluate_every == 0 or step == self.last_step)
        return due and int(self.checkpoints.evaluated_step) != step

    def _distribute(self, batch: Batch):
        """Gives each replica every n-th sequence, so that their lengths are alike."""
        replicas = self._strategy.num_replicas_in_sync
        if replicas == 1:
            return batch
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.nest.map_structure(
                lambda t: t[context.replica_id_in_sync_group :: replicas], batch
            )
        )

    def _log(self, window: "_Window") -> None:
        """Reports the updates of a window. Comes before every checkpoint, so none is of NaN."""
        if not window.updates:
            return
        totals, rate = window.totals(), window.updates_per_second()
        self._summaries.train(self.step, totals, rate)
        per_step = totals["elbo"] / totals["num_steps"]
        norm = totals["gradient_norm"] / window.updates
        if not (np.isfinite(per_step) and np.isfinite(norm)):
            raise UserError(
                f"training diverged by update {self.step} ({self._bound_name} {per_step} "
                f"nats/step, gradient norm {norm}): start in another --run_dir with a smaller "
                "--learning_rate or --clip_norm"
            )
        left = (self.last_step - self.step) / rate
        kl_weight = ""
        if self.model.latent_sizes:
            kl_weight = f"  KL weight {totals['kl_weight'] / window.updates:.2f}"
        self._report(
            f"update {self.step:>7,}/{self.last_step:,}  {self._bound_name} {per_step:8.4f} "
            f"nats/step{kl_weight}  {rate:.2f} updates/s  at most {_duration(left)} left"
        )

    def _evaluate(self) -> None:
        """Evaluates on the validation split and decides whether the run has come to its end."""
        evaluation = self._evaluator(
            self._valid_batches, self.config.seed, stop=lambda: self._stop_requested
        )
        if evaluation is None:
            return
        step, state = self.step, self.checkpoints
        elbo = evaluation.per_sequence(evaluation.elbo)
        best = float(state.best_elbo)
        improved = elbo - best > self.config.min_improvement * abs(best) or math.isinf(best)
        stale = 0 if improved else int(state.stale_evaluations) + 1
        if elbo > best:
            state.best_elbo.assign(elbo)
            state.best_step.assign(step)
            state.save_best()
        state.stale_evaluations.assign(stale)
        state.evaluated_step.assign(step)
        self._summaries.valid(step, evaluation)
        kl = ", ".join(f"{value:.1f}" for value in np.mean(evaluation.kl, axis=0))
        kl = f", KL of layer 1, 2, ...: {kl}" if kl else ""
        self._report(
            f"update {step:>7,}  validation: {self._bound_name} {elbo:.1f} nats/sequence "
            f"({evaluation.per_step(evaluation.elbo):.4f}/step){kl}"
            + ("  best so far" if elbo > best else f"  best {best:.1f}")
        )
        if self._is_stopped_early():
            self._report(
                f"stopping early: {stale} evaluations in a row improved by less than "
                f"{self.config.min_improvement:.2%}"
            )

    def _draw_pictures(self) -> None:
        if self._pictured is None:
            return
        medium, normalization = self._medium, self.run.card.normalization
        num = medium.num_in_training
        samples = self._generate(
            tf.zeros([num, 0, self.model.num_features]),
            medium.length,
            (self.config.seed, 3),
            1.0,
            1.0,
            1.0,
            tf.zeros([num], tf.int32),
        )
        self._summaries.pictures(
            self.step,
            list(normalization.denormalize(samples.numpy())),
            reconstruct_raw(self.model, normalization, self._pictured, (self.config.seed, 2)),
        )


class _Window:
    """Sums over the updates since the last progress line, and the time they took."""

    def __init__(self):
        self._sums = None
        self.updates = 0
        self._start = time.monotonic()

    def add(self, result: StepResult) -> None:
        """Adds an update's result, on the device: nothing waits for its value."""
        self.updates += 1
        if self._sums is None:
            self._sums = result
        else:
            self._sums = tf.nest.map_structure(tf.add, self._sums, result)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out of the clock what is done inside."""
        start = time.monotonic()
        yield
        self._start += time.monotonic() - start

    def totals(self) -> dict[str, np.ndarray]:
        """Sums of the StepResult fields by name, and `updates`, their number."""
        return {
            **{name: value.numpy() for name, value in self._sums._asdict().items()},
            "updates": self.updates,
        }

    def updates_per_second(self) -> float:
        """Over the time that was not paused."""
        return self.updates / (time.monotonic() - self._start)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s"
