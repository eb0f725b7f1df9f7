"""A model as a SavedModel that draws samples wherever TensorFlow is, without this project."""

import os
from pathlib import Path

import tensorflow as tf

from stcn_tf.data.card import DatasetCard
from stcn_tf.inference.generation import Generator, Temperatures, assertions
from stcn_tf.models.base import SequenceModel
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home, replacing_folder

_FILE = "saved_model.pb"
_PARTS = {_FILE, "fingerprint.pb", "assets", "variables"}


class Sampler(tf.Module):
    """What the SavedModel offers.

    `sample(num, length, seed, temperature)` generates sequences from their first step on:

        num: int32 scalar, number of sequences, 1 or more.
        length: int32 scalar, steps of each, 0 or more.
        seed: int32 [2]; the same seed gives the same samples.
        temperature: float32 scalar, of the real-valued features: divides the logits of the mixture
            and multiplies the sigmas; 0: the mean of the heaviest component. Latents and
            binary features are drawn from the model's own probabilities.
        Returns float32 [num, length, features], raw units; fails with InvalidArgumentError where a
        number is not accepted.

    `card()` returns the dataset card as JSON text: the features, their units and more.

    Args:
        model: built.
        card: of the records that it was trained on.
        jit_compile: compile the steps of `sample` with XLA, once for each number of sequences;
            None: where it pays, see `Generator`.
    """

    def __init__(self, model: SequenceModel, card: DatasetCard, jit_compile: bool | None = None):
        super().__init__(name="sampler")
        # Variables that no attribute of the module reaches would not be saved.
        self._vars = [variable.value for variable in model.weights]
        generator = Generator(model, jit_compile)
        mean = tf.constant(card.normalization.mean, tf.float64)
        std = tf.constant(card.normalization.std, tf.float64)

        @tf.function(
            input_signature=[
                tf.TensorSpec([], tf.int32, "num"),
                tf.TensorSpec([], tf.int32, "length"),
                tf.TensorSpec([2], tf.int32, "seed"),
                tf.TensorSpec([], tf.float32, "temperature"),
            ],
            autograph=False,
        )
        def sample(num, length, seed, temperature):
            # Of which the first that fails is told.
            with tf.control_dependencies(
                assertions(num=num, length=length, temperature=temperature)
            ):
                num, length, temperature = map(tf.identity, (num, length, temperature))
            nothing = tf.zeros([num, 0, card.num_features])
            x = generator.in_graph(nothing, length, seed, Temperatures(real=temperature))
            # As `Normalization.denormalize` computes it.
            return tf.cast(tf.cast(x, tf.float64) * std + mean, tf.float32)

        text = card.to_json()

        @tf.function(input_signature=[], autograph=False)
        def card_text():
            return tf.constant(text)

        self.sample = sample
        self.card = card_text


def check_replaceable(out: str | os.PathLike) -> None:
    """Checks that a SavedModel may be written to `out`.

    Raises:
        UserError: `out` holds anything but a SavedModel.
    """
    out = Path(expand_home(out))
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if names and (_FILE not in names or not names <= _PARTS):
        raise UserError(f"{out}: holds no SavedModel; accepted: a new, an empty or its own folder")


def write(sampler: Sampler, out: str | os.PathLike) -> None:
    """Writes the SavedModel, all of it or nothing, in the place of an earlier one.

    Args:
        sampler: what to write.
        out: the folder.

    Raises:
        UserError: `out` holds anything but a SavedModel, or cannot be made.
    """
    check_replaceable(out)
    with replacing_folder(out) as partial:
        tf.saved_model.save(sampler, str(partial), signatures=sampler.sample)
        check_replaceable(out)
