"""Sampling, continuation and reconstruction; everything in the normalised units of the records."""

import tensorflow as tf

from stcn_tf.models.base import Seed, SequenceModel


def generate(
    model: SequenceModel,
    beginning: tf.Tensor,
    length: tf.Tensor | int,
    seed: Seed,
    temperature: tf.Tensor | float = 1.0,
    latent_temperature: tf.Tensor | float = 1.0,
    binary_temperature: tf.Tensor | float = 1.0,
) -> tf.Tensor:
    """Generates sequences step by step, latents from the prior (Eq. 7) and x_t from Eq. 9.

    The given beginning runs through the same steps; its frames replace what would be drawn there.
    Cost for each step does not depend on `length`. May be called inside tf.function, with or
    without XLA; the two draw different random numbers from one seed.

    Args:
        model: built.
        beginning: [num, steps, features] float32, what every sequence starts with; `steps` may be
            0, and `num` is the number of sequences.
        length: steps to generate after the beginning.
        seed: stateless; the same seed gives the same samples.
        temperature: of the real-valued features, see `Observation.sample`.
        latent_temperature: multiplies the noise of the latents; 0: prior means.
        binary_temperature: of the binary features, see `Observation.sample`.

    Returns:
        [num, steps + length, features] float32, the beginning included.
    """
    beginning = tf.convert_to_tensor(beginning, tf.float32)
    seed = tf.convert_to_tensor(seed, tf.int32)
    num, given = tf.shape(beginning)[0], tf.shape(beginning)[1]
    total = given + tf.convert_to_tensor(length, tf.int32)
    # One frame more than given, so that indexing below is valid where nothing is given.
    padded = tf.pad(beginning, [[0, 0], [0, 1], [0, 0]])

    def body(t, previous, state, frames):
        latent_seed, observation_seed = tf.unstack(tf.random.split(tf.random.fold_in(seed, t), 2))
        parameters, state = model.predict_step(previous, state, latent_seed, latent_temperature)
        drawn = model.observation.sample(
            parameters, observation_seed, temperature, binary_temperature
        )
        frame = tf.where(t < given, padded[:, tf.minimum(t, given)], drawn[:, 0])
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


def reconstruct(model: SequenceModel, x: tf.Tensor, seed: Seed = (0, 0)) -> tf.Tensor:
    """Reconstructs sequences: latents from the posterior, then the most probable x_t.

    Args:
        model: built.
        x: [batch, time, features] float32.
        seed: of the latent noise.

    Returns:
        [batch, time, features] float32: the mean of the most probable component, and 1 for binary
        features whose probability exceeds 0.5.
    """
    return model.observation.sample(model.reconstruct(x, seed), (0, 0), 0.0, 0.0)
