"""A model to go on with, in NumPy's arrays: of a run directory, or of a SavedModel."""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stcn_tf.data.card import DatasetCard
from stcn_tf.support.errors import UserError, reason_of

State = dict[str, np.ndarray]  # by name; the first axis of each is the rows

# Steps of what is given are padded to multiples of this: few shapes, to which TensorFlow adapts.
_PAD = 64
# Products of few rows round in another way than those of more: with fewer rows than this, what a
# session gets would depend, in its last bits, on how many others are served. Eight take no longer.
_LEAST_ROWS = 8
# Farther from the mean no sum of squares can be trusted.
MOST_DEVIATIONS = 1e4
_METHODS = ("card", "start", "begin", "steps", "score", "reconstruct")


class Temperatures(NamedTuple):
    """How far draws stray from the likeliest, see `stcn_tf.inference.generation.Temperatures`."""

    real: float = 1.0
    latent: float = 1.0
    binary: float = 1.0


class Score(NamedTuple):
    """What a model says of one sequence, in nats; likelihoods are of normalised values."""

    log_likelihood: np.ndarray  # [steps]
    kl: np.ndarray  # [steps, layers], layer 0 = lowest
    elbo: float


def load_saved_model(path: str) -> Any:
    """The SavedModel in a folder, as `python -m stcn_tf.export` writes it.

    Raises:
        UserError: there is none, or one that only draws samples.
    """
    import tensorflow as tf

    if not os.path.isfile(os.path.join(path, "saved_model.pb")):
        raise UserError(f"{path}: no SavedModel; accepted: a folder of stcn_tf.export")
    try:
        model = tf.saved_model.load(path)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"{path}: a damaged SavedModel ({reason_of(error)})") from error
    missing = [name for name in _METHODS if not hasattr(model, name)]
    if missing:
        raise UserError(
            f"{path}: a SavedModel without {', '.join(missing)}; export the run anew with "
            "`python -m stcn_tf.export`"
        )
    return model


class Engine:
    """Begins, steps, scores and reconstructs; raw units of the records throughout.

    None of its methods may be called by two threads at once: they would share the processors.

    Everything is called once when it is made, which takes some seconds.

    Args:
        model: a `stcn_tf.inference.served.ServedModel`, or one that was exported and loaded.

    Attributes:
        card: of the records that the model was trained on.
        num_layers: of latents; 0 where the likelihood is exact.
    """

    def __init__(self, model: Any):
        self._model = model
        self.card = DatasetCard.from_json(model.card().numpy().decode(), "the model")
        # Functions are traced when they are first called: the first client shall not wait for that.
        nothing = np.zeros((1, self.card.num_features), np.float32)
        self.num_layers = self.score(nothing, 0, 1.0).kl.shape[-1]
        self.reconstruct(nothing, 0, 1.0)
        for beginning in (nothing[:0], nothing):
            self.steps([self.begin([beginning], 0, 1.0)], 1, [Temperatures()])

    def begin(self, beginnings: Sequence[np.ndarray], seed: int, latent: float) -> State:
        """The state of as many rows as there are beginnings, [steps, features] each.

        Args:
            beginnings: float32, of any length.
            seed: of all that is drawn.
            latent: temperature of the latents of what is given.
        """
        if not any(map(len, beginnings)):
            state = self._model.start(np.int32(len(beginnings)), _seed(seed))
        else:
            x, lengths = self._padded(beginnings)
            state = self._model.begin(x, lengths, _seed(seed), np.float32(latent))
        return {name: np.asarray(part) for name, part in state.items()}

    def steps(
        self, states: Sequence[State], count: int, temperatures: Sequence[Temperatures]
    ) -> tuple[list[np.ndarray], list[State]]:
        """The next `count` steps of several states at once.

        Rows are padded to a power of two: few shapes. What comes is that of each state alone, to
        the last bit where TensorFlow computes rows alike.

        Args:
            states: of any number of rows each.
            count: steps.
            temperatures: of each state.

        Returns:
            For each state x [rows, count, features], and the state after it.
        """
        rows = [len(next(iter(state.values()))) for state in states]
        total = sum(rows)
        padding = max(_LEAST_ROWS, 1 << (total - 1).bit_length()) - total
        state = {
            name: np.concatenate(
                [part[name] for part in states] + [states[0][name][:1]] * padding, axis=0
            )
            for name in states[0]
        }
        each = np.repeat(np.array(temperatures, np.float32), rows, axis=0)
        each = np.pad(each, ((0, padding), (0, 0)), constant_values=1.0)
        made = self._model.steps(state, np.int32(count), each[:, 0], each[:, 1], each[:, 2])
        made = {name: np.asarray(part) for name, part in made.items()}
        x = made.pop("x")
        ends = np.cumsum(rows)
        # Copies: a view would keep the rows of all other sessions in memory.
        cut = [slice(end - num, end) for num, end in zip(rows, ends, strict=True)]
        return (
            [x[part].copy() for part in cut],
            [{name: values[part].copy() for name, values in made.items()} for part in cut],
        )

    def score(self, x: np.ndarray, seed: int, latent: float) -> Score:
        """Scores one sequence [steps, features]; its latents are drawn from the posterior."""
        padded, lengths = self._padded([x])
        terms = self._model.score(padded, lengths, _seed(seed), np.float32(latent))
        return Score(
            np.asarray(terms["log_likelihood"])[0, : len(x)],
            np.asarray(terms["kl"])[0, : len(x)],
            float(np.asarray(terms["elbo"])[0]),
        )

    def reconstruct(self, x: np.ndarray, seed: int, latent: float) -> np.ndarray:
        """What the model makes of one sequence [steps, features] that it has seen."""
        padded, lengths = self._padded([x])
        rebuilt = self._model.reconstruct(padded, lengths, _seed(seed), np.float32(latent))
        return np.asarray(rebuilt["x"])[0, : len(x)]

    def deviations(self, x: np.ndarray) -> np.ndarray:
        """How many standard deviations raw values are from the mean of the records."""
        norm = self.card.normalization
        return np.abs(x.astype(np.float64) - np.array(norm.mean)) / np.array(norm.std)

    def _padded(self, sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        lengths = np.array([len(sequence) for sequence in sequences], np.int32)
        steps = max(1, math.ceil(lengths.max() / _PAD)) * _PAD
        x = np.zeros((len(sequences), steps, self.card.num_features), np.float32)
        for row, sequence in zip(x, sequences, strict=True):
            row[: len(sequence)] = sequence
        return x, lengths


def _seed(seed: int) -> np.ndarray:
    return np.array([seed, 0], np.int32)
