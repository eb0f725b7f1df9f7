"""One run, put together: records, model, optimizer, checkpoints, and the loop with its hooks."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from stcn_tf import bounds, checkpoint_files, runs
from stcn_tf.config import Config
from stcn_tf.data.batches import batches_per_epoch, eval_batches, train_batches
from stcn_tf.data.card import DatasetCard, read_card
from stcn_tf.data.units import normalized
from stcn_tf.distribution import Distribution
from stcn_tf.inference.evaluation import Evaluation, Evaluator
from stcn_tf.models.base import SequenceModel
from stcn_tf.models.registry import build_model
from stcn_tf.runs import CONFIG_NAME, RunDirectory
from stcn_tf.support import devices
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home
from stcn_tf.training import history, initial_weights
from stcn_tf.training.checkpoints import Checkpoints
from stcn_tf.training.early_stopping import EarlyStopping
from stcn_tf.training.faults import Faults
from stcn_tf.training.loop import TrainingLoop
from stcn_tf.training.progress import Progress
from stcn_tf.training.status import Status
from stcn_tf.training.step import TrainStep, make_optimizer
from stcn_tf.training.tensorboard import Pictures, TensorBoard

# Flushed, so that a log file or a pipe shows progress, too.
_print_now = functools.partial(print, flush=True)
# Steps to which batches are padded where XLA compiles each shape anew.
_COMPILED_MULTIPLE = 64


class Trainer:
    """One run: made from its settings, continued from its latest checkpoint.

    Args:
        config: all settings.
        data_dir: folder of records with the splits train and valid.
        run_dir: a new folder, or one that holds this run.
        report: told every line of progress.
        restart: begin anew: what a run in `run_dir` has made so far is removed.

    Attributes:
        run: the run directory.
        model: with its latest weights.
        early_stopping: the judge of evaluations.
        checkpoints: of the run.
        loop: what `train` runs.

    Raises:
        UserError: the records, the run directory, the objective or the initial weights do not fit;
            another trainer is at work there; or the run's state is lost.
    """

    def __init__(
        self,
        config: Config,
        data_dir: str | os.PathLike,
        run_dir: str | os.PathLike,
        report: Callable[[str], None] = _print_now,
        restart: bool = False,
    ):
        if config.run.deterministic:
            tf.config.experimental.enable_op_determinism()
        # First of all, because the workers of a cluster must meet before TensorFlow computes.
        self._distribution = distribution = Distribution(config.run.strategy)
        self._data_dir, self._report = data_dir, report
        if not distribution.is_chief:
            who = f"worker {distribution.worker} of {distribution.num_workers}"
            report(f"{who} (0 is the chief, and tells and writes for all)")
            self._report = lambda line: None
        config = _as_begun(config, run_dir, restart)
        training = config.training
        distribution.check_batch_size(training.batch_size)
        compiled = devices.compiles(config.run.jit_compile) and _may_compile(config)
        multiple = training.pad_to_multiple or (_COMPILED_MULTIPLE if compiled else 1)
        # Of the initial weights. Before the batches, because TensorFlow mixes its global seed into
        # the seeds of tf.data.
        keras.utils.set_random_seed(training.seed)
        card = read_card(data_dir)
        _check_splits(card, data_dir)
        batches = train_batches(
            data_dir,
            batch_size=training.batch_size,
            max_length=training.max_length,
            window=training.shuffle_window,
            seed=training.seed,
            pad_to_multiple=multiple,
        )
        self._valid_batches = eval_batches(
            data_dir,
            split="valid",
            batch_size=training.batch_size,
            limit=training.evaluate_sequences,
            pad_to_multiple=multiple,
        )
        with distribution.peers(), distribution.strategy.scope():
            self.model = build_model(config.model, card, training.precision)
            optimizer = make_optimizer(training)
            optimizer.build(self.model.trainable_variables)
        _check_objective(config, self.model)
        # Before anything of the run is written, or removed.
        self._initial = _begin_with(config, self.model, card, run_dir, restart)
        # Held while the run is read and begun here, and then by `train`.
        self._lock, self._check = contextlib.nullcontext(), lambda: None
        if distribution.is_chief:
            self._lock = runs.lock(run_dir)
            self._check = self._lock.check
        with distribution.peers(), self._lock:
            self.run = self._prepared(run_dir, config, card, restart)
            self._batches = iter(batches)
            self._step = TrainStep(
                training, self.model, optimizer, distribution, compiled, config.run.recompute
            )
            self._evaluator = Evaluator(
                self.model,
                compiled,
                training.objective,
                training.num_samples,
                distribution=distribution,
            )
            self.early_stopping = EarlyStopping(training, bool(self.model.latent_sizes))
            self.checkpoints = Checkpoints(
                self.run,
                self.model,
                optimizer,
                self.early_stopping,
                self._batches,
                self._step.state,
                distribution.is_chief,
                self._check,
            )
            self._restore()
            self.loop = self._make_loop()
            self._known = self.checkpoints.names
        if distribution.is_chief:
            _warn_of_slow_bfloat16(training.precision, compiled, report)

    @property
    def step(self) -> int:
        """The number of updates made."""
        return self.loop.step

    @property
    def last_step(self) -> int:
        """The number of the last update."""
        return self.loop.last_step

    def train(self) -> bool:
        """Trains until the last step, early stopping, Ctrl-C (SIGINT), SIGTERM or SIGHUP.

        Returns:
            True when the run has come to its end; False when it was interrupted and can be
            continued.

        Raises:
            UserError: training diverged; it cannot be written; the run directory is gone; the run
                has been continued elsewhere since; or another worker has ended.
        """
        with self._lock:
            if self.checkpoints.names != self._known:
                raise UserError(
                    f"{self.run.path}: another trainer has gone on with it since this one read it, "
                    f"at update {self.step}: make another Trainer"
                )
            try:
                with self._distribution.peers():
                    return self._trained()
            except Exception as error:
                self._status.failed(error)
                raise
            finally:
                self._known = self.checkpoints.names
                with contextlib.suppress(UserError):  # what ended the run is what is told
                    if self._tensorboard:
                        self._tensorboard.flush()

    def _trained(self) -> bool:
        """See `train`."""
        finished = True
        if self.loop.is_finished:
            self._progress.finished_already(self.step)
            self._status.finished_already(self.step, self.last_step)
        else:
            self._note_start()
            finished = self.loop.run()
        self._distribution.wait()  # the others may be at their last update still
        return finished

    def _prepared(
        self, run_dir: str | os.PathLike, config: Config, card: DatasetCard, restart: bool
    ) -> RunDirectory:
        """The run directory: of the chief, then of those who read what it has written."""
        if self._distribution.is_chief:
            run = RunDirectory.prepare(run_dir, config, card, restart)
            self._distribution.wait()
            return run
        self._distribution.wait()
        return RunDirectory.joined(run_dir, config, card, self._distribution.worker)

    def _restore(self) -> None:
        """Restores what the chief restores, or has saved at the beginning."""
        distribution = self._distribution
        if distribution.is_chief:
            self.checkpoints.restore(self._report)
            distribution.wait()
        else:
            distribution.wait()
            self.checkpoints.restore(self._report)
        if distribution.any(not distribution.agrees(self.checkpoints.step)):
            raise UserError(
                f"{self.run.path}: worker {distribution.worker} has read the state after update "
                f"{self.checkpoints.step}, and another worker another one; accepted: a run "
                "directory that all workers share"
            )

    def _make_loop(self) -> TrainingLoop:
        config, card, model = self.run.config, self.run.card, self.model
        last_step = config.run.max_epochs * batches_per_epoch(card, config.training.batch_size)
        if config.run.max_steps:
            last_step = min(last_step, config.run.max_steps)
        trained, decisive = _names(config, model)
        # Every number of a progress line says what it is of: "ELBO (vrnn-normalised)".
        scale = f" ({normalized(card)})" if card.num_real else ""
        scaled = f"{trained}{scale}", f"{decisive}{scale}"
        self._status = Status(
            self.run.path if self._distribution.is_chief else None,
            self._report,
            self.early_stopping,
            model.count_params(),
            scaled[1],
            self._check,
        )
        self._progress = Progress(
            self._status.tell,
            self.run,
            model,
            self.early_stopping,
            scaled,
            self._distribution.devices,
        )
        self._tensorboard = None
        hooks = [self._progress, self._status]
        if self._distribution.is_chief:
            names = trained, model.bound_name
            self._tensorboard = TensorBoard(self.run, model, names, decisive, self.checkpoints.step)
            every = config.run.sample_every
            self._pictures = Pictures(self._tensorboard, self.run, model, self._data_dir, every)
            hooks = [self._tensorboard, *hooks, self._pictures]
        return TrainingLoop(
            config.run,
            self._batches.__next__,
            lambda batch: self._step(self._distribution.split(batch)),
            self._evaluate,
            self._value_of,
            self.early_stopping,
            self.checkpoints,
            Faults(
                self.run,
                self._step,
                config.run.max_skipped,
                self._report,
                self._distribution.is_chief,
                self._check,
            ),
            last_step,
            hooks,
            self._distribution.any,
        )

    def _note_start(self) -> None:
        if not self._distribution.is_chief:
            return
        start = history.about_start(
            self.run.config, self._data_dir, self.step, self._distribution.devices
        )
        if self._initial:
            start["init_from"] = self._initial
        history.add_start(self.run.path, start, self._report)

    def _evaluate(self, stop: Callable[[], bool]) -> Evaluation | None:
        return self._evaluator(self._valid_batches, self.run.config.training.seed, stop)

    def _value_of(self, evaluation: Evaluation) -> float:
        training = self.run.config.training
        return evaluation.per_sequence(evaluation.decisive(training.objective, training.select))


def _check_splits(card: DatasetCard, data_dir: str | os.PathLike) -> None:
    for split in ("train", "valid"):
        if split not in card.splits:
            raise UserError(f"{data_dir}: has no split {split!r}, only {', '.join(card.splits)}")


def _check_objective(config: Config, model: SequenceModel) -> None:
    objective = config.training.objective
    bounds.check(objective, model, "--objective")
    if objective != "elbo" and not model.latent_sizes:
        raise UserError(
            f"--objective={objective}: {config.model.model} has no latents; accepted: elbo"
        )
    if config.run.jit_compile and not _may_compile(config):
        raise UserError(
            "--jit_compile: XLA does not differentiate the loop of --objective=fivo; accepted: "
            "without, or --objective=elbo, iwae"
        )
    if objective == "fivo" and model.uses_batch_statistics:
        raise UserError(
            f"--objective=fivo: {config.model.model} is trained with statistics of whole batches; "
            "accepted: elbo, iwae"
        )
    if objective == "fivo" and config.run.recompute:
        raise UserError(
            f"--recompute={config.run.recompute}: a particle filter takes single steps; accepted "
            "with --objective=fivo: 0"
        )
    if model.does_smooth and config.run.recompute:
        raise UserError(
            f"--recompute={config.run.recompute}: the posterior of {config.model.model} sees the "
            "whole sequence, not blocks of it; accepted: 0"
        )


def _may_compile(config: Config) -> bool:
    return config.training.objective != "fivo"


def _as_begun(config: Config, run_dir: str | os.PathLike, restart: bool) -> Config:
    """The settings with the arithmetic and the weights that the run began with, or begins with."""
    begun = None
    if (Path(expand_home(run_dir)) / CONFIG_NAME).exists() and not restart:
        begun = RunDirectory.open(run_dir).config.training
    precision, init_from = config.training.precision, config.training.init_from
    if precision == "auto":
        precision = begun.precision if begun else devices.precision_of("auto")
    if init_from:
        # The same from wherever the command is given.
        init_from = os.path.abspath(runs.located(init_from))
    elif begun:
        init_from = begun.init_from
    training = dataclasses.replace(config.training, precision=precision, init_from=init_from)
    return dataclasses.replace(config, training=training)


def _begin_with(
    config: Config,
    model: SequenceModel,
    card: DatasetCard,
    run_dir: str | os.PathLike,
    restart: bool,
) -> dict[str, Any] | None:
    """Gives the model of a run that begins here its initial weights, if they are not random.

    Returns:
        What they are, for the run's history; None: they are random, or the run has a state.
    """
    source = config.training.init_from
    run_dir = Path(expand_home(run_dir))
    latest = RunDirectory(run_dir, config, card).latest
    if not source or (checkpoint_files.in_folder(latest) and not restart):
        return None
    if restart and os.path.realpath(source) == os.path.realpath(run_dir):
        raise UserError(
            f"--init_from={source}: is the run that --restart removes: give another --run_dir"
        )
    return initial_weights.load(source, model, card)


def _warn_of_slow_bfloat16(precision: str, compiled: bool, report: Callable[[str], None]) -> None:
    """One line where bfloat16 is no gain: processors without units for it convert every number."""
    if precision != "mixed_bfloat16" or devices.has_gpu():
        return
    rates = [devices.product_rate(dtype, compiled) for dtype in ("bfloat16", "float32")]
    if rates[0] < rates[1]:
        how = "compiled with XLA on this processor" if compiled else "on this processor"
        report(
            f"--precision={precision}: products of matrices are {rates[1] / rates[0]:.1f} times "
            f"slower than in float32 {how}"
        )


def _names(config: Config, model: SequenceModel) -> tuple[str, str]:
    """What the ELBO of training is, and what decides on the validation split."""
    training = config.training
    if training.objective == "fivo":
        names = "ELBO of the filter's particles (no bound)", "FIVO bound"
    elif training.objective == "iwae":
        names = model.bound_name, "importance-weighted bound"
    elif training.select == "objective" and not model.is_objective_a_bound:
        return model.bound_name, "objective (no lower bound)"
    else:
        return model.bound_name, model.bound_name
    return names[0], f"{names[1]} of {training.num_samples}"
