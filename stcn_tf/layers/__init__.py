"""Keras layers over `[batch, time, channels]`, each for whole sequences and for single steps."""

from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.layers.latent import GaussianNetwork, LatentLayer
from stcn_tf.layers.observation import Observation, ObservationParameters
from stcn_tf.layers.wavenet import WavenetBlock, WavenetOutput, WavenetStack

__all__ = [
    "CausalConv",
    "GaussianNetwork",
    "LatentLayer",
    "Observation",
    "ObservationParameters",
    "WavenetBlock",
    "WavenetOutput",
    "WavenetStack",
]
