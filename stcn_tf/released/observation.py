"""The observation with the floors of the authors' program.

Checkpoints of that program agree with its numbers only with them. What is improbable then counts
for more, so that the densities do not quite integrate to 1: numbers that compare, but no bounds.
"""

import keras
import tensorflow as tf

from stcn_tf.layers.observation import Observation, ObservationParameters

# What the program puts under a variance, a component's weight and a probability before it takes
# their logarithms.
_VARIANCE_FLOOR = 1e-6
_WEIGHT_FLOOR = 1e-6
_PROBABILITY_FLOOR = 1e-5


@keras.saving.register_keras_serializable("stcn_tf")
class ReleasedObservation(Observation):
    """`Observation`, scored as the authors' program scores it."""

    is_density = False

    def _sigma(self, parameters: ObservationParameters) -> tf.Tensor:
        return tf.sqrt(tf.maximum(parameters.sigma**2, _VARIANCE_FLOOR))

    def _log_weights(self, parameters: ObservationParameters) -> tf.Tensor:
        weights = tf.nn.softmax(parameters.component_logits)
        return tf.math.log(tf.maximum(weights, _WEIGHT_FLOOR))

    def _log_prob_of_binary(self, logits: tf.Tensor, binary: tf.Tensor) -> tf.Tensor:
        one, zero = (
            tf.math.log(tf.maximum(tf.sigmoid(signed), _PROBABILITY_FLOOR))
            for signed in (logits, -logits)
        )
        return binary * one + (1.0 - binary) * zero
