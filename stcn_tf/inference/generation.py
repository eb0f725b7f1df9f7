"""Sampling and continuation, in the normalised units of the records; reconstruction.

`generate_raw` takes and gives raw units, `reconstruct_raw` gives them.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from stcn_tf import noise
from stcn_tf.bounds import sum_over_time
from stcn_tf.data.batches import Batch
from stcn_tf.data.card import Normalization
from stcn_tf.media.reconstructions import Reconstructions
from stcn_tf.models.base import SequenceModel
from stcn_tf.noise import Seed
from stcn_tf.seeds import Stream


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

    The given beginning is observed in one pass, its latents drawn from the posterior; then each
    step is predicted, drawn and advanced. Cost for each step does not depend on `length`. May be
    called inside tf.function, with or without XLA, which draw the same random numbers.

    Args:
        model: built.
        beginning: [num, steps, features] float32, what every sequence starts with; `steps` may be
            0, and `num` is the number of sequences. A model that does not predict the first frame
            then begins with a zero one.
        length: steps to generate after each beginning.
        seed: stateless; the same seed gives the same samples.
        temperature: of the real-valued features, see `Observation.sample`.
        latent_temperature: multiplies the noise of the latents, those of the beginning included;
            0: means.
        binary_temperature: of the binary features, see `Observation.sample`.
        given_lengths: [num] int32, how many steps of `beginning` each sequence starts with, the
            others being padding; None: all.

    Returns:
        [num, steps + length, features] float32, the beginnings included. A sequence with a shorter
        beginning goes on from its own end and is followed by zeros.
    """
    beginning = tf.convert_to_tensor(beginning, tf.float32)
    length = tf.convert_to_tensor(length, tf.int32)
    num, steps = tf.unstack(tf.shape(beginning)[:2])
    if given_lengths is None:
        given_lengths = tf.fill([num], steps)
    # 1. What is given: not padding, whatever that may hold. A model that does not predict the first
    # frame is given a zero one, the mean of the records, where there is none.
    within = tf.sequence_mask(given_lengths, steps)[..., tf.newaxis]  # [num, steps, 1]
    extra = model.num_given_frames
    given = tf.pad(tf.where(within, beginning, 0.0), [[0, 0], [0, extra], [0, 0]])
    observed_lengths = tf.maximum(given_lengths, extra)
    state = _observed(model, given, observed_lengths, seed, latent_temperature)
    # 2. What is drawn.
    observation_seed = noise.fold_in(seed, Stream.OBSERVATION)

    def body(index, state, frames):
        parameters, pending = model.predict_next(state, seed, latent_temperature)
        drawn = model.observation.sample(
            parameters,
            observation_seed,
            state.step[:, tf.newaxis],
            temperature,
            binary_temperature,
        )
        return index + 1, model.advance(pending, drawn), frames.write(index, drawn[:, 0])

    _, _, frames = tf.while_loop(
        lambda index, *_: index < length,
        body,
        (
            tf.constant(0),
            state,
            tf.TensorArray(tf.float32, size=length, element_shape=[None, model.num_features]),
        ),
        # Where sizes are known when this is traced, not all operations of the body keep them.
        shape_invariants=(
            tf.TensorShape([]),
            tf.nest.map_structure(lambda s: tf.TensorShape([None, *s.shape[1:]]), state),
            tf.TensorShape(None),
        ),
    )
    # 3. Each row: what was given, what was drawn, zeros.
    drawn = tf.transpose(frames.stack(), [1, 0, 2])
    both = tf.concat([given, drawn, tf.zeros_like(given)], axis=1)
    position = tf.range(steps + length)[tf.newaxis]  # [1, time]
    behind = position - observed_lengths[:, tf.newaxis] + tf.shape(given)[1]
    is_given = position < observed_lengths[:, tf.newaxis]
    sequences = tf.gather(both, tf.where(is_given, position, behind), axis=1, batch_dims=1)
    is_within = position < given_lengths[:, tf.newaxis] + length
    return tf.where(is_within[..., tf.newaxis], sequences, 0.0)


def _observed(
    model: SequenceModel,
    given: tf.Tensor,
    lengths: tf.Tensor,
    seed: Seed,
    temperature: tf.Tensor | float,
):
    """The state after the given frames."""
    start = model.start(tf.shape(given)[0])
    encoded = model.encode(given, lengths, start)
    return model.observe(encoded, given, lengths, start, seed, temperature)[1]


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
        jit_compile: compile with XLA.

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
        batches: of `batches.eval_batches`, normalised.
        seed: of the latent noise, each batch's number being folded in.
    """

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, model.num_features], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([2], tf.int32),
        ],
        autograph=False,
    )
    def rebuild(x, lengths, seed):
        terms = model.score(x, lengths, seed)
        rebuilt = [model.reconstruction(terms, x, binarize) for binarize in (True, False)]
        return (x, *rebuilt), sum_over_time(terms).elbo(model)

    rows, elbos = [], []
    for index, (x, lengths) in enumerate(batches):
        padded, elbo = rebuild(x, lengths, noise.fold_in(seed, index))
        elbos.append(elbo.numpy())
        padded = [normalization.denormalize(values.numpy()) for values in padded]
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
