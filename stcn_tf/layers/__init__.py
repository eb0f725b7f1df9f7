"""Keras layers over `[batch, steps, channels]`: a block of any number of steps, with a state."""

from stcn_tf.layers.base import SequenceLayer, State
from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.layers.gaussian import GaussianNetwork, LatentLayer
from stcn_tf.layers.observation import Observation, ObservationParameters
from stcn_tf.layers.wavenet import WavenetBlock, WavenetOutput, WavenetStack

__all__ = [
    "CausalConv",
    "GaussianNetwork",
    "LatentLayer",
    "Observation",
    "ObservationParameters",
    "SequenceLayer",
    "State",
    "WavenetBlock",
    "WavenetOutput",
    "WavenetStack",
]
