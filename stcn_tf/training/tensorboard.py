"""What TensorBoard shows of a run. Each likelihood is described by its unit and normalisation."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import event_pb2

from stcn_tf import media, noise
from stcn_tf.data.batches import eval_batches
from stcn_tf.data.units import likelihood_unit
from stcn_tf.inference.evaluation import Evaluation
from stcn_tf.inference.generation import Generator, Reconstructor
from stcn_tf.media.page import medium_of
from stcn_tf.media.reconstructions import Reconstructions
from stcn_tf.models.base import SequenceModel
from stcn_tf.runs import RunDirectory
from stcn_tf.seeds import Stream
from stcn_tf.support.errors import UserError, reason_of
from stcn_tf.training.early_stopping import Verdict
from stcn_tf.training.hooks import Hook, Updates


class TensorBoard(Hook):
    """Writes scalars, pictures and sounds to the run's two event folders, train and valid.

    Both folders use the same tags, so that TensorBoard draws the two splits in one chart. Where
    training crops its sequences, `per_sequence` is per piece in train and per whole sequence in
    valid: then only `per_step` compares. So that they share charts with other models, those without
    latents have their exact log-likelihood under the tags of the ELBO.

    Args:
        run: the run directory.
        model: of the run.
        names: what is under the tags of the ELBO, in train and in valid.
        decisive_name: what decides on the validation split.
        step: after which the run goes on: what was shown of later ones is taken back.

    Raises:
        UserError: also of the methods: the events cannot be written.
    """

    def __init__(
        self,
        run: RunDirectory,
        model: SequenceModel,
        names: tuple[str, str],
        decisive_name: str,
        step: int = 0,
    ):
        self._run = run
        self._card = run.card
        self._medium = medium_of(run.card)
        self._names = names
        self._decisive_name = decisive_name
        with self._writing():
            self._train, self._valid = (_writer(run.events(s), step) for s in ("train", "valid"))

    def reported(self, updates: Updates) -> None:
        """See `Hook.reported`: means over the updates since the last point."""
        totals = updates.totals
        with self._writing(), self._train.as_default(updates.last):
            self._terms(
                self._names[0],
                totals["elbo"],
                totals["log_likelihood"],
                totals["kl"],
                totals["num_sequences"],
                totals["num_steps"],
            )
            for name in ("gradient_norm", "kl_weight", "learning_rate"):
                tf.summary.scalar(f"training/{name}", totals[name] / updates.num_made)
            tf.summary.scalar(
                "training/skipped",
                updates.num_skipped,
                description="updates whose objective or gradient was not finite",
            )
            tf.summary.scalar("training/updates_per_second", updates.per_second)
            tf.summary.scalar(
                "training/steps_per_second",
                updates.steps_per_second,
                description="steps of the sequences, without padding",
            )
            tf.summary.scalar("training/padding", updates.padding)
            tf.summary.scalar(
                "training/waiting",
                updates.waiting / updates.seconds,
                description="share of the time in which updates waited for their batches",
            )
            names = ["observation", *(f"layer_{n}" for n in range(1, len(totals["at_floor"])))]
            for name, steps in zip(names, totals["at_floor"], strict=True):
                tf.summary.scalar(f"sigma_at_floor/{name}", steps / totals["num_steps"])
            tf.summary.scalar(
                "training/objective_per_step",
                totals["objective"] / totals["num_steps"],
                description=f"what is maximised, {likelihood_unit(self._card)}",
            )

    def evaluated(self, step: int, evaluation: Evaluation, verdict: Verdict) -> None:
        """See `Hook.evaluated`."""
        with self._writing(), self._valid.as_default(step):
            self._terms(
                self._names[1],
                np.sum(evaluation.elbo),
                np.sum(evaluation.log_likelihood),
                np.sum(evaluation.kl, axis=0),
                len(evaluation.elbo),
                np.sum(evaluation.num_steps),
            )
            tf.summary.scalar(
                "selected/per_sequence",
                verdict.value,
                description=f"{self._decisive_name}, {likelihood_unit(self._card)}: decides early "
                "stopping and the best weights",
            )
            for name, share in evaluation.share_at_floor.items():
                tf.summary.scalar(
                    f"sigma_at_floor/{name}",
                    share,
                    description="share of sigmas of at most 0.001; of layers the prior's",
                )
            for layer, active in enumerate(evaluation.active_units, start=1):
                tf.summary.scalar(f"active_units/layer_{layer}", active)
            self._valid.flush()

    def pictures(self, step: int, samples: Sequence[np.ndarray], rebuilt: Reconstructions) -> None:
        """Generated sequences, and others beside their reconstructions; audio to be heard, too.

        Args:
            step: the number of the last update.
            samples: [time, features] each, raw units.
            rebuilt: the others.
        """
        medium = self._medium
        pages = {
            "samples": medium.draw_samples(samples, [0] * len(samples)),
            "reconstructions": medium.draw_reconstructions(rebuilt),
        }
        sounds = {
            "samples": medium.sounds(samples),
            "originals": medium.sounds(rebuilt.originals),
            "reconstructions": medium.sounds(rebuilt.reconstructions),
        }
        with self._writing(), self._valid.as_default(step):
            for name, page in pages.items():
                tf.summary.image(name, media.figure_to_rgb(page)[np.newaxis])
            for name, waveforms in sounds.items():
                for index, waveform in enumerate(waveforms):
                    tf.summary.audio(
                        f"{name}/{index}",
                        np.clip(waveform, -1.0, 1.0)[np.newaxis, :, np.newaxis],
                        self._card.modality.sample_rate_hz,
                    )
            self._valid.flush()

    def ended(self, step: int, finished: bool) -> None:
        """See `Hook.ended`."""
        del step, finished
        self.flush()

    def flush(self) -> None:
        """Writes out what is buffered."""
        with self._writing():
            self._train.flush()
            self._valid.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Events that cannot be written end the run, as a checkpoint does that cannot."""
        try:
            yield
        except tf.errors.OpError as error:
            raise UserError(
                f"{self._run.path / 'events'}: cannot be written ({reason_of(error)}); what was "
                "saved before is as it was, and the same command goes on from there"
            ) from error

    def _terms(self, name, elbo, log_likelihood, kl, num_sequences, num_steps) -> None:
        unit = likelihood_unit(self._card)
        for per, count in (("per_sequence", num_sequences), ("per_step", num_steps)):
            tf.summary.scalar(f"elbo/{per}", elbo / count, description=f"{name}, {unit}")
            tf.summary.scalar(f"reconstruction/{per}", log_likelihood / count, description=unit)
            if not len(kl):
                continue
            tf.summary.scalar(f"kl_{per}/total", np.sum(kl) / count, description="nats")
            for layer, kl_of_layer in enumerate(kl, start=1):
                tf.summary.scalar(
                    f"kl_{per}/layer_{layer}", kl_of_layer / count, description="nats"
                )


def _writer(folder: Path, step: int) -> tf.summary.SummaryWriter:
    """Appends to a folder of events, of which TensorBoard drops those after a step.

    A run that was killed has shown more than its last checkpoint knows. The first such mark in a
    folder means nothing to TensorBoard, so every start has one.
    """
    writer = tf.summary.create_file_writer(str(folder))
    start = event_pb2.Event(
        wall_time=time.time(),
        step=step + 1,
        session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
    )
    with writer.as_default(step):
        tf.raw_ops.ImportEvent(writer=writer._resource, event=start.SerializeToString())
    writer.flush()
    return writer


class Pictures(Hook):
    """Draws samples and reconstructions from time to time.

    Args:
        tensorboard: shows them.
        run: the run directory.
        model: of the run.
        data_dir: folder of the records.
        every: updates between pictures; 0: none.
    """

    def __init__(
        self,
        tensorboard: TensorBoard,
        run: RunDirectory,
        model: SequenceModel,
        data_dir: str,
        every: int,
    ):
        self._tensorboard = tensorboard
        self._run = run
        self._model = model
        self._medium = medium_of(run.card)
        self._every = every if self._medium.most_pictured else 0
        if self._every:
            # The first sequences of the split, not of the batches, which begin with the shortest.
            num = self._medium.num_in_training
            self._batches = eval_batches(data_dir, split="valid", batch_size=num, limit=num)
            self._generate = Generator(model)
            self._reconstruct = Reconstructor(model, run.card.normalization)

    def updated(self, step: int) -> None:
        """See `Hook.updated`."""
        if self._every and step % self._every == 0:
            self.draw(step)

    def draw(self, step: int) -> None:
        """Draws what the model makes after update `step`."""
        normalization = self._run.card.normalization
        num, seed = self._medium.num_in_training, self._run.config.training.seed
        samples = self._generate(
            tf.zeros([num, 0, self._model.num_features]),
            self._medium.length,
            noise.stream_of(seed, Stream.TRAINING_SAMPLES),
        )
        seed = noise.stream_of(seed, Stream.TRAINING_RECONSTRUCTIONS)
        self._tensorboard.pictures(
            step,
            list(normalization.denormalize(samples.numpy())),
            self._reconstruct(self._batches, seed),
        )
