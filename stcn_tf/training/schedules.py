"""Learning rate and KL weight as functions of the number of the update, counted from 1."""

import math

import tensorflow as tf

from stcn_tf.config import TrainingSettings


def learning_rate(config: TrainingSettings, update: tf.Tensor) -> tf.Tensor:
    """Rate * decay^(n / 1000) for update n (Appendix 7.2), continuous, as released."""
    n = tf.cast(update, tf.float32)
    # By its logarithm, because float32 has no number for the decay of a run of 20 updates to a
    # tenth.
    return config.learning_rate * tf.exp(math.log(config.learning_rate_decay) / 1000.0 * n)


def kl_weight(config: TrainingSettings, update: tf.Tensor) -> tf.Tensor:
    """min(1, start + increment * n) for update n (Appendix 7.2)."""
    n = tf.cast(update, tf.float32)
    return tf.minimum(1.0, config.kl_weight_start + config.kl_weight_increment * n)


def is_kl_weight_rising(config: TrainingSettings, update: int) -> bool:
    """Whether later updates than this one have a larger KL weight."""
    weight = config.kl_weight_start + config.kl_weight_increment * update
    return config.kl_weight_increment > 0 and weight < 1
