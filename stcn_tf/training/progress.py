"""Progress of training as lines of text. Every number says what it is of."""

from collections.abc import Callable

import numpy as np

from stcn_tf.inference.evaluation import TOLD_AT_FLOOR, Evaluation
from stcn_tf.models.base import SequenceModel
from stcn_tf.runs import RunDirectory
from stcn_tf.training.early_stopping import EarlyStopping, Verdict
from stcn_tf.training.hooks import Hook, Updates


class Progress(Hook):
    """Reports what happens, a line for each.

    Args:
        report: told every line.
        run: the run directory.
        model: of the run.
        early_stopping: of the run.
        names: of the number that training reports per step, and of the one that decides on the
            validation split, each with its scale, such as "ELBO (vrnn-normalised)".
        devices: in words.
    """

    def __init__(
        self,
        report: Callable[[str], None],
        run: RunDirectory,
        model: SequenceModel,
        early_stopping: EarlyStopping,
        names: tuple[str, str],
        devices: str,
    ):
        self._report = report
        self._run = run
        self._model = model
        self._early_stopping = early_stopping
        self._trained_name, self._decisive_name = names
        self._devices = devices
        self._last_step = 0

    @property
    def _best(self) -> str:
        best, step = self._early_stopping.best, self._early_stopping.best_step
        return f"best validation {self._decisive_name} {best:.1f} nats/sequence after {step:,}"

    def finished_already(self, step: int) -> None:
        """There is nothing to do."""
        line = f"{self._run.path}: finished already, after {step:,} updates; {self._best}"
        if not self._early_stopping.stops:
            line += "; a larger --max_steps or --max_epochs extends it"
        self._report(line)

    def started(self, step: int, last_step: int) -> None:
        """See `Hook.started`."""
        self._last_step = last_step
        settings, card = self._run.config.model, self._run.card
        observation = settings.observation if card.num_real else "bernoulli"
        started = f"continuing after update {step:,}" if step else "starting"
        self._report(
            f"{started}: {settings.model} with {observation} outputs on {card.name}, "
            f"{self._model.count_params():,} parameters, at most {last_step:,} updates on "
            f"{self._devices}; {self._run.path}"
        )

    def reported(self, updates: Updates) -> None:
        """See `Hook.reported`."""
        totals = updates.totals
        per_step = totals["elbo"] / totals["num_steps"]
        kl_weight = ""
        if self._model.latent_sizes:
            kl_weight = f"  KL weight {totals['kl_weight'] / updates.num_made:.2f}"
        left = (self._last_step - updates.last) / updates.per_second
        self._report(
            f"update {updates.last:>7,}/{self._last_step:,}  {self._trained_name} {per_step:8.4f} "
            f"nats/step{kl_weight}  {updates.per_second:.2f} updates/s, "
            f"{updates.steps_per_second:,.0f} steps/s ({updates.padding:.0%} padding, "
            f"{updates.waiting / updates.seconds:.0%} waiting)  at most {_duration(left)} left"
            + (f"  {updates.num_skipped} skipped" if updates.num_skipped else "")
        )

    def evaluated(self, step: int, evaluation: Evaluation, verdict: Verdict) -> None:
        """See `Hook.evaluated`."""
        kl = ", ".join(f"{value:.1f}" for value in np.mean(evaluation.kl, axis=0))
        kl = f", KL of layer 1, 2, ...: {kl}" if kl else ""
        per_step = verdict.value * len(evaluation.num_steps) / np.sum(evaluation.num_steps)
        self._report(
            f"update {step:>7,}  validation: {self._decisive_name} {verdict.value:.1f} "
            f"nats/sequence ({per_step:.4f}/step){kl}"
            + ("  best so far" if verdict.is_best else f"  best {verdict.best:.1f}")
        )
        floors = [
            f"{share:.0%} of {name.replace('_', ' ')}"
            for name, share in evaluation.share_at_floor.items()
            if share > TOLD_AT_FLOOR
        ]
        if floors:
            self._report(
                f"update {step:>7,}  sigmas of 0.001 or less: {', '.join(floors)}; "
                "likelihoods that grow by narrow densities are no better predictions"
            )
        if verdict.stops:
            self._report(
                f"stopping early: {verdict.stale} evaluations in a row improved by less than "
                f"{self._run.config.training.min_improvement:.2%}"
            )

    def stopping(self) -> None:
        """See `Hook.stopping`."""
        self._report("stopping after this update; once more: at once")

    def ended(self, step: int, finished: bool) -> None:
        """See `Hook.ended`."""
        if finished:
            self._report(f"finished after {step:,} updates: {self._best}")
        else:
            self._report(
                f"stopped after {step:,} updates, checkpoint written; the same command continues"
            )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s"
