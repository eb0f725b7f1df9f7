"""Which evaluation was the best, and when training has stopped getting better."""

import math
from typing import NamedTuple

import tensorflow as tf

from stcn_tf.config import TrainingSettings
from stcn_tf.training import schedules


class Verdict(NamedTuple):
    """What an evaluation means."""

    value: float  # nats per sequence, of what `TrainingSettings.select` names
    best: float  # the best so far, this one included
    is_best: bool
    stale: int  # evaluations in a row, this one included, that improved too little
    stops: bool  # whether training has stopped getting better


class EarlyStopping:
    """Compares evaluations on the validation split.

    None is stale while the weight of the KL still rises: until then the objective itself changes,
    and a first evaluation that is good by accident would be hard to beat.

    Args:
        config: the training settings.
        has_latents: whether there is a KL to weight.
    """

    def __init__(self, config: TrainingSettings, has_latents: bool):
        self._config = config
        self._has_latents = has_latents
        self._best = tf.Variable(-float("inf"), dtype=tf.float64, trainable=False)
        self._best_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._evaluated_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._stale = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def state(self) -> dict[str, tf.Variable]:
        """Variables by the names that checkpoints have for them."""
        return {
            "best_elbo": self._best,
            "best_step": self._best_step,
            "evaluated_step": self._evaluated_step,
            "stale_evaluations": self._stale,
        }

    @property
    def best(self) -> float:
        """Nats per sequence; -inf before the first evaluation."""
        return float(self._best)

    @property
    def best_step(self) -> int:
        """The update after which the best was reached."""
        return int(self._best_step)

    @property
    def evaluated_step(self) -> int:
        """The update after which the last evaluation was made."""
        return int(self._evaluated_step)

    @property
    def stops(self) -> bool:
        """Whether training has stopped getting better."""
        return 0 < self._config.patience <= int(self._stale)

    def judge(self, step: int, value: float) -> Verdict:
        """Takes an evaluation.

        Args:
            step: the number of the last update.
            value: nats per sequence.
        """
        before = self.best
        enough = self._config.min_improvement * abs(before)
        improved = math.isinf(before) or value - before > enough
        is_rising = self._has_latents and schedules.is_kl_weight_rising(self._config, step)
        self._stale.assign(0 if improved or is_rising else self._stale + 1)
        if value > before:
            self._best.assign(value)
            self._best_step.assign(step)
        self._evaluated_step.assign(step)
        return Verdict(value, self.best, value > before, int(self._stale), self.stops)
