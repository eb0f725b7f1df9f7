"""A trained run in Python and in notebooks: what it samples, continues and scores draws itself.

    run = stcn_tf.open_run("pretrained/handwriting")
    run.sample(num=4, length=300, temperature=0.8)

The same code as that of the commands, so the same seed gives the same samples.
"""

import functools
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from stcn_tf import noise
from stcn_tf.bounds import sum_over_time
from stcn_tf.data.batches import eval_batches
from stcn_tf.data.card import DatasetCard, read_card
from stcn_tf.inference import table
from stcn_tf.inference.evaluation import ACTIVE_UNIT_NATS, Evaluation
from stcn_tf.inference.generation import Generator, Temperatures, generate_raw
from stcn_tf.inference.samples import Samples
from stcn_tf.inference.scores import Scores
from stcn_tf.media.page import medium_of
from stcn_tf.models import structure
from stcn_tf.runs import RunDirectory
from stcn_tf.seeds import Stream
from stcn_tf.support import markup
from stcn_tf.support.errors import UserError, reason_of

_AT_ONCE = 20  # sequences scored together, as `stcn_tf.evaluate` does


def open_run(run_dir: str | os.PathLike, checkpoint: str = "best") -> "TrainedRun":
    """A trained run, which samples, continues and scores.

    Args:
        run_dir: a run directory of `stcn_tf.train`; or pretrained/NAME, one of the package.
        checkpoint: "best" (by validation ELBO) or "latest".

    Raises:
        UserError: it is no run directory, or has no such checkpoint.
    """
    return TrainedRun(RunDirectory.open(run_dir), checkpoint)


class TrainedRun:
    """A run and its model, with raw units on either side.

    Args:
        directory: of the run.
        checkpoint: "best" or "latest".

    Attributes:
        directory: as given.
        checkpoint: as given.
        model: with the trained weights; it reads and gives normalised values.
        update: after which they were written.
        medium: what draws and plays the run's sequences.

    Raises:
        UserError: there is no such checkpoint.
    """

    def __init__(self, directory: RunDirectory, checkpoint: str = "best"):
        self.directory, self.checkpoint = directory, checkpoint
        self.medium = medium_of(directory.card)
        self.model, self.update = directory.load(checkpoint)

    @property
    def card(self) -> DatasetCard:
        """Of the records that it was trained on."""
        return self.directory.card

    def sample(
        self,
        num: int | None = None,
        length: int | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        latent_temperature: float = 1.0,
        binary_threshold: bool = False,
    ) -> Samples:
        """Generates sequences from their first step on.

        Args:
            num: how many; None: as many as `stcn_tf.sample` does.
            length: steps of each; None: as long as its are. Images are always whole.
            seed: the same seed gives the same samples.
            temperature: of real-valued features: below 1 is neater, above is wilder.
            latent_temperature: multiplies the latent noise; 0: prior means.
            binary_threshold: make binary features 1 where their probability exceeds 0.5, instead of
                drawing them.

        Raises:
            UserError: a number is out of range.
        """
        num = self.medium.num_samples if num is None else num
        nothing = np.zeros((0, self.card.num_features), np.float32)
        temperatures = _temperatures(temperature, latent_temperature, binary_threshold)
        return self._generated([nothing] * num, length, seed, temperatures)

    def continue_from(
        self,
        beginnings: Samples | Sequence[np.ndarray] | str | os.PathLike,
        length: int | None = None,
        beginning: int = 0,
        seed: int = 0,
        temperature: float = 1.0,
        latent_temperature: float = 1.0,
        binary_threshold: bool = False,
    ) -> Samples:
        """Goes on with given sequences: observes them, then generates.

        Args:
            beginnings: [time, features] each, raw units; or a file as `stcn_tf.sample` writes or
                takes them.
            length: steps to generate after each; None: the usual number; of images what completes
                them.
            beginning: steps of each to keep; 0: all.
            seed: as in `sample`, like what follows.
            temperature: of real-valued features.
            latent_temperature: multiplies the latent noise, that of what is given included.
            binary_threshold: see `sample`.

        Raises:
            UserError: a number is out of range, or a beginning has too few steps or features.
        """
        if isinstance(beginnings, str | os.PathLike):
            beginnings = self.medium.read(os.fspath(beginnings))
        beginnings = self._checked(beginnings)
        shortest = min(map(len, beginnings))
        if not 0 <= beginning <= shortest:
            raise UserError(f"beginning: {beginning}; accepted: 0 (all) to {shortest}")
        temperatures = _temperatures(temperature, latent_temperature, binary_threshold)
        kept = [sequence[: beginning or None] for sequence in beginnings]
        return self._generated(kept, length, seed, temperatures)

    def read(self, data: str | os.PathLike, split: str = "valid", num: int = 8) -> Samples:
        """The first sequences of a split, shortest first, in raw units.

        Args:
            data: folder of records of the run's units.
            split: of these.
            num: how many; 0: all.

        Raises:
            UserError: there are no such records, or they are of other units.
        """
        card = read_card(data)
        self.directory.check_same_units(card)
        sequences = [
            card.normalization.denormalize(x[:length])
            for batch in eval_batches(data, split=split, batch_size=_AT_ONCE, limit=num)
            for x, length in zip(batch.x.numpy(), batch.lengths.numpy(), strict=True)
        ]
        return Samples(medium_of(card), tuple(sequences), tuple(map(len, sequences)))

    def score(self, sequences: Samples | Sequence[np.ndarray], seed: int = 0) -> Scores:
        """Scores each step of sequences, with one draw of the latents from the posterior.

        Those of a split, read in whole, get the numbers of `stcn_tf.evaluate`.

        Args:
            sequences: [time, features] each, raw units.
            seed: of the draws.

        Raises:
            UserError: a sequence has no step, or another number of features.
        """
        sequences = self._checked(sequences)
        seed = noise.stream_of(seed, Stream.VALIDATION)
        each, units = [], []
        for number, first in enumerate(range(0, len(sequences), _AT_ONCE)):
            some = sequences[first : first + _AT_ONCE]
            lengths = np.array([len(sequence) for sequence in some], np.int32)
            x = np.zeros((len(some), lengths.max(), self.card.num_features), np.float32)
            for row, sequence in zip(x, some, strict=True):
                row[: len(sequence)] = self.card.normalization.normalize(sequence)
            steps, sums, of_units = self._score(x, lengths, noise.fold_in(seed, number))
            rows = zip(*(part.numpy() for part in (*steps, *sums)), lengths, strict=True)
            each += [(ll[:n], kl[:n], *numbers) for ll, kl, *numbers, n in rows]
            units.append([kl.numpy().astype(np.float64) for kl in of_units])
        return self._scores(sequences, each, [sum(layer) for layer in zip(*units, strict=True)])

    def _scores(
        self, sequences: Sequence[np.ndarray], each: list[tuple], units: list[np.ndarray]
    ) -> Scores:
        """Of `each` sequence what `_score` gives, and of each layer the KL [units] of all."""
        columns = zip(*each, strict=True)
        log_likelihood, kl = next(columns), next(columns)
        totals = [np.stack(column).astype(np.float64) for column in columns]
        lengths = np.array([len(sequence) for sequence in sequences])
        num_steps = np.maximum(lengths - self.model.num_given_frames, 0)
        evaluation = Evaluation(
            tuple(map(str, range(len(sequences)))),
            ("",) * len(sequences),
            *totals[:4],
            importance_weighted=None,
            fivo=None,
            at_floor=totals[4],
            num_steps=num_steps,
            num_samples=1,
            active_units=tuple(
                int(np.sum(layer / max(num_steps.sum(), 1) > ACTIVE_UNIT_NATS)) for layer in units
            ),
        )
        about = {"run": str(self.directory.path), "model": self.directory.config.model.model}
        summary = table.summary(evaluation, self.model, self.card, about)
        return Scores(self.medium, sequences, log_likelihood, kl, evaluation.elbo, summary)

    @functools.cached_property
    def _score(self) -> Callable:
        """Traced once: the terms of each step, of each sequence, and the KL of each unit."""
        model = self.model

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, model.num_features], tf.float32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([2], tf.int32),
            ],
            autograph=False,
        )
        def score(x, lengths, seed):
            terms = model.score(x, lengths, seed)
            total = sum_over_time(terms)
            sums = total.log_likelihood, total.kl, total.elbo(model), total.objective()
            units = [tf.reduce_sum(kl, axis=[0, 1]) for kl in terms.kl_per_unit]
            return (terms.log_likelihood, terms.kl), (*sums, total.at_floor), units

        return score

    @functools.cached_property
    def _generator(self) -> Generator:
        return Generator(self.model)

    def _generated(
        self,
        beginnings: Sequence[np.ndarray],
        length: int | None,
        seed: int,
        temperatures: Temperatures,
    ) -> Samples:
        given = tuple(map(len, beginnings))
        if given:  # none at all is told of below
            length = self.medium.steps_to_generate(length, given)
        sequences = generate_raw(
            self._generator, self.card.normalization, beginnings, length, (seed, 0), temperatures
        )
        made_by = {
            "run": str(self.directory.path),
            "dataset": self.card.name,
            "checkpoint": self.checkpoint,
            "seed": seed,
            "temperature": temperatures.real,
            "latent_temperature": temperatures.latent,
            "binary_threshold": temperatures.binary == 0.0,
        }
        return Samples(self.medium, tuple(sequences), given, made_by)

    def _checked(self, sequences: Samples | Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """One array or several, as they are to be."""
        if isinstance(sequences, np.ndarray) and sequences.ndim == 2:
            sequences = [sequences]
        features = self.card.num_features
        accepted = f"arrays [time, {features}] in raw units, of one step or more"
        try:
            arrays = tuple(np.asarray(sequence, np.float32) for sequence in sequences)
        except (TypeError, ValueError) as error:  # text, or steps of several widths
            raise UserError(f"sequences: {reason_of(error)}; accepted: {accepted}") from error
        if not arrays:
            raise UserError(f"no sequences; accepted: {accepted}")
        for number, array in enumerate(arrays):
            if array.ndim != 2 or array.shape[1] != features or not len(array):
                shape = list(array.shape)
                raise UserError(f"sequence {number} has the shape {shape}; accepted: {accepted}")
            if not np.isfinite(array).all():
                raise UserError(f"sequence {number} holds a value that is not finite")
            if not np.isin(array[:, self.card.num_real :], (0.0, 1.0)).all():
                raise UserError(f"sequence {number} has a binary feature that is neither 0 nor 1")
        return arrays

    def __repr__(self) -> str:
        facts = "; ".join(structure.facts(self.model))
        return f"<run {self.directory.path} after {self.update:,} updates: {facts}>"

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        card = self.card
        rows = [
            ("weights", f"{self.checkpoint}, after {self.update:,} updates"),
            ("trained on", f"{card.name} ({card.modality.kind})"),
        ]
        return markup.table(("run", str(self.directory.path)), rows) + structure.table(self.model)


def _temperatures(real: float, latent: float, binary_threshold: bool) -> Temperatures:
    return Temperatures(real, latent, 0.0 if binary_threshold else 1.0)
