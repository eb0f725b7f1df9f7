"""Sampling and continuation, in the normalised units of the records; reconstruction.

`generate_raw` takes and gives raw units, `reconstruct_raw` gives them.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from stcn_tf.bounds import sum_over_time
from stcn_tf.data.batches import Batch
from stcn_tf.data.records import Normalization
from stcn_tf.media.reconstructions import Reconstructions
from stcn_tf.models.base import Seed, SequenceModel


def generate(
    model: SequenceModel,
    beginning: tf.Tensor,
    length: tf.Tensor | int,
    seed: Seed,
    temperature: tf.Tensor | float = 1.0,
    latent_temperature: tf.Tensor | float = 1.0,
    binary_temperature: tf.Tensor | float = 1.0,
    given_lengths: tf.Tensor | None = None,
) -> tf.Tensor:
    """Generates sequences step by step, latents from the prior (Eq. 7) and x_t from Eq. 9.

    The given beginning runs through the same steps; its frames replace what would be drawn there.
    Cost for each step does not depend on `length`. May be called inside tf.function, with or
    without XLA; the two draw different random numbers from one seed.

    Args:
        model: built.
        beginning: [num, steps, features] float32, what every sequence starts with; `steps` may be
            0, and `num` is the number of sequences. A model that does not predict the first frame
            then begins with a zero one.
        length: steps to generate after the (longest) beginning.
        seed: stateless; the same seed gives the same samples.
        temperature: of the real-valued features, see `Observation.sample`.
        latent_temperature: multiplies the noise of the latents; 0: prior means.
        binary_temperature: of the binary features, see `Observation.sample`.
        given_lengths: [num] int32, how many steps of `beginning` each sequence starts with, the
            others being padding; None: all.

    Returns:
        [num, steps + length, features] float32, the beginnings included. A sequence with a shorter
        beginning goes on from its own end and so has more generated steps.
    """
    beginning = tf.convert_to_tensor(beginning, tf.float32)
    seed = tf.convert_to_tensor(seed, tf.int32)
    num, steps = tf.shape(beginning)[0], tf.shape(beginning)[1]
    total = steps + tf.convert_to_tensor(length, tf.int32)
    if given_lengths is None:
        given_lengths = tf.fill([num], steps)
    # A model that does not predict the first frame is given a zero one, the mean of the records,
    # where there is no beginning; not padding, whatever that may hold.
    within = tf.sequence_mask(given_lengths, steps)[..., tf.newaxis]  # [num, steps, 1]
    beginning = tf.where(within, beginning, 0.0)
    given_lengths = tf.maximum(given_lengths, model.num_given_frames)
    # One frame more than given, so that indexing below is valid where nothing is given.
    padded = tf.pad(beginning, [[0, 0], [0, 1], [0, 0]])

    def body(t, previous, state, frames):
        latent_seed, observation_seed = tf.unstack(tf.random.split(tf.random.fold_in(seed, t), 2))
        parameters, state = model.predict_step(previous, state, latent_seed, latent_temperature)
        drawn = model.observation.sample(
            parameters, observation_seed, temperature, binary_temperature
        )
        is_given = (t < given_lengths)[:, tf.newaxis]  # [num, 1]
        frame = tf.where(is_given, padded[:, tf.minimum(t, steps)], drawn[:, 0])
        return t + 1, frame, state, frames.write(t, frame)

    _, _, _, frames = tf.while_loop(
        lambda t, *_: t < total,
        body,
        (
            tf.constant(0),
            tf.zeros([num, model.num_features]),
            model.initial_state(num),
            tf.TensorArray(tf.float32, size=total, element_shape=[None, model.num_features]),
        ),
    )
    return tf.transpose(frames.stack(), [1, 0, 2])


def compile_generate(model: SequenceModel, jit_compile: bool = False) -> Callable[..., tf.Tensor]:
    """`generate` with this model as a tf.function, all its arguments by position.

    Args:
        model: built.
        jit_compile: compile with XLA, anew for each number and length of sequences.
    """
    temperature = tf.TensorSpec([], tf.float32)
    # Sizes are left open, as in an exported model: TensorFlow optimises graphs of known sizes into
    # ones that round otherwise.
    return tf.function(
        functools.partial(generate, model),
        input_signature=[
            tf.TensorSpec([None, None, model.num_features], tf.float32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([2], tf.int32),
            *[temperature] * 3,
            tf.TensorSpec([None], tf.int32),
        ],
        jit_compile=jit_compile,
        autograph=False,
    )


def generate_raw(
    model: SequenceModel,
    normalization: Normalization,
    beginnings: Sequence[np.ndarray],
    length: int,
    seed: Seed,
    temperature: float = 1.0,
    latent_temperature: float = 1.0,
    binary_temperature: float = 1.0,
    jit_compile: bool = False,
) -> list[np.ndarray]:
    """Continues sequences of raw units, each from its own end.

    Args:
        model: built.
        normalization: of the records that the model was trained on.
        beginnings: [steps, features] each, not necessarily of one length; of no steps at all: the
            sequence is generated from its first step on.
        length: steps to generate after each beginning.
        seed: stateless; the same seed gives the same samples.
        temperature: see `generate`.
        latent_temperature: see `generate`.
        binary_temperature: see `generate`.
        jit_compile: compile with XLA; other random numbers for one seed.

    Returns:
        [steps + length, features] float32 each; its first `steps` are those of its beginning.
    """
    given_lengths = np.array([len(beginning) for beginning in beginnings], np.int32)
    padded = np.zeros((len(beginnings), given_lengths.max(), model.num_features), np.float32)
    for row, beginning in zip(padded, beginnings, strict=True):
        row[: len(beginning)] = normalization.normalize(beginning)
    generated = compile_generate(model, jit_compile)(
        padded,
        length,
        seed,
        temperature,
        latent_temperature,
        binary_temperature,
        given_lengths,
    )
    raw = normalization.denormalize(generated.numpy())
    sequences = []
    for row, beginning in zip(raw, beginnings, strict=True):
        sequence = row[: len(beginning) + length]
        # Back from normalised values they could be off by rounding.
        sequence[: len(beginning)] = beginning
        sequences.append(sequence)
    return sequences


def reconstruct_raw(
    model: SequenceModel, normalization: Normalization, batches: Iterable[Batch], seed: Seed
) -> Reconstructions:
    """Reconstructs and scores sequences with one draw of the latents from the posterior.

    Args:
        model: built.
        normalization: of the records.
        batches: of `eval_batches`, normalised.
        seed: of the latent noise, each batch's number being folded in.
    """
    rows, elbos = [], []
    for index, (x, lengths) in enumerate(batches):
        batch_seed = tf.random.fold_in(seed, index)
        elbos.append(sum_over_time(model.score(x, lengths, batch_seed)).elbo(model).numpy())
        rebuilt = [model.reconstruct(x, batch_seed, binarize) for binarize in (True, False)]
        padded = [normalization.denormalize(values.numpy()) for values in (x, *rebuilt)]
        rows += [
            [values[:length] for values in row]
            for *row, length in zip(*padded, lengths.numpy(), strict=True)
        ]
    originals, reconstructions, probabilities = zip(*rows, strict=True)
    return Reconstructions(
        list(originals),
        list(reconstructions),
        list(probabilities),
        np.concatenate(elbos),
        is_exact=not model.latent_sizes,
    )
