"""Scores a whole split: one number per sequence first, averages and standard errors last."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from stcn_tf import bounds, noise
from stcn_tf.distribution import Distribution, Share
from stcn_tf.inference.grouping import Grouping, per_step
from stcn_tf.models.base import SequenceModel
from stcn_tf.seeds import Stream

# A latent unit counts as active where its KL, averaged over the steps, exceeds this many nats.
# (Burda et al., 2015, threshold the variance of the posterior mean instead; with a prior that
# moves from step to step that would also count units whose posterior equals their prior.)
ACTIVE_UNIT_NATS = 0.01
# From what share on sigmas at their floor are told of.
TOLD_AT_FLOOR = 0.01


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Terms of every sequence of a split, in nats of the normalised values."""

    ids: tuple[str, ...]  # the names of the sequences
    groups: tuple[str, ...]  # what each shares with others (`records.Sequence`); empty: nothing
    log_likelihood: np.ndarray  # [sequences]
    kl: np.ndarray  # [sequences, layers], layer 0 = lowest
    elbo: np.ndarray  # [sequences], a valid lower bound
    objective: np.ndarray  # [sequences], each layer's KL counted once, as released
    importance_weighted: np.ndarray | None  # [sequences]; None where it was not asked for
    fivo: np.ndarray | None  # [sequences]; None where it was not asked for
    at_floor: np.ndarray  # [sequences, 1 + layers], steps of which sigmas sit at their floor
    num_steps: np.ndarray  # [sequences], scored steps
    num_samples: int  # draws of the latents, or particles
    active_units: tuple[int, ...]  # for each layer

    def decisive(self, objective: str, select: str) -> np.ndarray:
        """[sequences]: what decides early stopping and the best weights.

        Args:
            objective: that is trained, "elbo", "iwae" or "fivo"; as asked of the `Evaluator`.
            select: "bound": a valid lower bound; "objective": what is trained, with KL weight 1.
        """
        if objective == "elbo":
            return self.objective if select == "objective" else self.elbo
        return self.fivo if objective == "fivo" else self.importance_weighted

    @property
    def share_at_floor(self) -> dict[str, float]:
        """Of the sigmas of the observation, and of each layer's prior, how many sit at their floor.

        They are at most 1e-3 there, in normalised units. A likelihood that improves while their
        share grows improves because densities are narrow, which is no better prediction.
        """
        shares = np.sum(self.at_floor, axis=0) / max(np.sum(self.num_steps), 1)
        names = ["observation", *(f"layer_{n}" for n in range(1, len(shares)))]
        return dict(zip(names, map(float, shares), strict=True))

    def per_sequence(self, values: np.ndarray) -> float:
        """Mean over sequences."""
        return float(np.mean(values))

    def per_step(self, values: np.ndarray) -> float:
        """Sum over all sequences divided by all their steps; nan without any."""
        return per_step(values, self.num_steps)

    @functools.cached_property
    def grouping(self) -> Grouping:
        """What the sequences share, over which standard errors are."""
        return Grouping(self.ids, self.groups)

    def standard_error(self, values: np.ndarray) -> float:
        """Of the mean over sequences; nan for a single group."""
        return self.grouping.standard_error(values)

    def per_step_standard_error(self, values: np.ndarray) -> float:
        """Of `per_step`; nan as above."""
        return self.grouping.per_step_standard_error(values, self.num_steps)


class Evaluator:
    """Scores batches with a model; made once, so that it is traced once.

    Args:
        model: built.
        jit_compile: compile the scoring with XLA (once for each batch shape).
        bound: what to give beside the ELBO: "elbo" (nothing), "iwae" (the importance-weighted
            bound) or "fivo". Where the objective is no bound the importance-weighted one
            is always given.
        num_samples: draws of the latents for each sequence, over which the ELBO is averaged and of
            which the importance-weighted bound is made; and the number of particles.
        given_frames: see `bounds.score_samples`; that of models that are told x_1 is 1.
        piece: score pieces of so many frames by themselves, each from the state before any frame,
            and add them; 0: whole sequences. Frames that are given are the last of the piece
            before.
        distribution: on which devices; None: on one.

    Raises:
        UserError: `bound` is "fivo" for a model that it makes no sense for.
    """

    def __init__(
        self,
        model: SequenceModel,
        jit_compile: bool = False,
        bound: str = "elbo",
        num_samples: int = 1,
        given_frames: int = 0,
        piece: int = 0,
        distribution: Distribution | None = None,
    ):
        bounds.check(bound, model, "--bound")
        self._model = model
        self._num_samples = num_samples if model.latent_sizes else 1

        @tf.function(
            input_signature=[
                Share.spec(model.num_features),
                tf.TensorSpec([2], tf.int32),
            ],
            jit_compile=jit_compile,
            autograph=False,
        )
        def score(share, seed):
            batch = tf.shape(share.x)[0]
            if piece:
                share = _in_pieces(share, piece, given_frames)
            x, lengths = share.x, share.lengths
            options = {"given_frames": given_frames, "rows": share.rows}
            scored = bounds.score("iwae", model, x, lengths, seed, num_samples, **options)
            first = max(given_frames, model.num_given_frames)
            rows = {
                "log_likelihood": scored.mean.log_likelihood,
                "kl": scored.mean.kl,
                "elbo": scored.mean.elbo(model),
                "objective": scored.mean.objective(),
                "at_floor": scored.mean.at_floor,
                "num_steps": tf.maximum(lengths - first, 0),
            }
            if bound == "iwae" or not model.is_objective_a_bound:
                rows["importance_weighted"] = scored.bound
            if bound == "fivo":
                filtered = bounds.score("fivo", model, x, lengths, seed, num_samples, **options)
                rows["fivo"] = filtered.bound
            if piece:
                rows = {name: _of_sequences(values, batch) for name, values in rows.items()}
            return rows, scored.kl_of_units

        self._score = (distribution or Distribution()).over_rows(score)

    def __call__(
        self,
        batches: tf.data.Dataset,
        seed: int = 0,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int], Any] = lambda sequences: None,
    ) -> Evaluation | None:
        """Scores every sequence of `batches` once.

        Args:
            batches: of `eval_batches`.
            seed: of the latent noise.
            stop: asked before each batch; when it says True the evaluation is given up.
            progress: told the number of sequences scored so far.

        Returns:
            The Evaluation; None if it was given up.
        """
        # Nothing waits for a value before all batches are on their way.
        scored, units, ids, groups = [], [], [], []
        seed = noise.stream_of(seed, Stream.VALIDATION)
        for index, batch in enumerate(batches):
            if stop():
                return None
            rows, kl_of_units = self._score(batch, noise.fold_in(seed, index))
            scored.append(rows)
            units.append(kl_of_units)
            ids += batch.names
            groups += batch.group_names
            progress(len(ids))
        scored = [{name: values.numpy() for name, values in rows.items()} for rows in scored]
        units = [
            sum(kl.numpy().astype(np.float64) for kl in layer) for layer in zip(*units, strict=True)
        ]
        columns = {name: np.concatenate([rows[name] for rows in scored]) for name in scored[0]}
        num_steps = columns.pop("num_steps")
        total_steps = num_steps.sum()
        return Evaluation(
            **dict.fromkeys(("importance_weighted", "fivo"))
            | {name: values.astype(np.float64) for name, values in columns.items()},
            ids=tuple(ids),
            groups=tuple(groups),
            num_steps=num_steps,
            num_samples=self._num_samples,
            active_units=tuple(int(np.sum(kl / total_steps > ACTIVE_UNIT_NATS)) for kl in units),
        )


def _in_pieces(share: Share, piece: int, given_frames: int) -> Share:
    """[batch, time, features] -> [batch * pieces, given frames + piece, features]."""
    x, lengths, rows = share
    time, features = tf.shape(x)[1], x.shape[-1]
    count = tf.maximum((time - given_frames + piece - 1) // piece, 1)
    starts = tf.range(count) * piece
    index = starts[:, tf.newaxis] + tf.range(given_frames + piece)
    x = tf.pad(x, [[0, 0], [0, given_frames + piece], [0, 0]])
    pieces = tf.reshape(tf.gather(x, index, axis=1), [-1, given_frames + piece, features])
    lengths = tf.clip_by_value(lengths[:, tf.newaxis] - starts, 0, given_frames + piece)
    # What has no frame but those that are given is no piece.
    lengths = tf.where(lengths > given_frames, lengths, 0)
    rows = rows[:, tf.newaxis] * count + tf.range(count)
    return Share(pieces, tf.reshape(lengths, [-1]), tf.reshape(rows, [-1]))


def _of_sequences(values: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
    """[batch * pieces, ...] -> [batch, ...], their sums."""
    shape = tf.concat([[batch, tf.shape(values)[0] // batch], tf.shape(values)[1:]], axis=0)
    return tf.reduce_sum(tf.reshape(values, shape), axis=1)
