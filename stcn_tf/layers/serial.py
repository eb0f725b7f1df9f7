"""Layers one after the other, and the layers between latents and observation heads (f^(o)).

Functions over a list, not a layer of its own: the names of checkpoints have no level for it.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from stcn_tf.layers.base import SequenceLayer, State
from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.layers.wavenet import WavenetBlock, WavenetOutput


def make_output_layers(
    kind: str, num_layers: int, filters: int, kernel_size: int, dtype: keras.DTypePolicy
) -> list[SequenceLayer]:
    """Makes the output layers of a model.

    Args:
        kind: "conv1x1": 1x1 convolutions with ReLU (handwriting, MNIST); "wavenet": Wavenet blocks
            of dilation 1, of which the residual output is read (speech).
        num_layers: their number.
        filters: of each.
        kernel_size: taps of the Wavenet blocks.
        dtype: policy of the convolutions.

    Raises:
        ValueError: `kind` is neither.
    """
    names = [f"output_{i}" for i in range(num_layers)]
    if kind == "conv1x1":
        return [CausalConv(filters, activation="relu", name=name, dtype=dtype) for name in names]
    if kind == "wavenet":
        return [WavenetBlock(filters, kernel_size, name=name, dtype=dtype) for name in names]
    raise ValueError(f"kind must be 'conv1x1' or 'wavenet', got {kind!r}")


def build(layers: Sequence[SequenceLayer], channels: int) -> int:
    """Makes the weights of layers that read each other's outputs.

    Args:
        layers: lowest first.
        channels: of the input of the first.

    Returns:
        The channels of the last one's output.
    """
    for layer in layers:
        layer.build((None, None, channels))
        channels = layer.filters
    return channels


def initial_state(layers: Sequence[SequenceLayer], batch_size: tf.Tensor | int) -> State:
    """One state for each layer."""
    return tuple(layer.initial_state(batch_size) for layer in layers)


def run(
    layers: Sequence[SequenceLayer],
    inputs: tf.Tensor,
    state: State,
    lengths: tf.Tensor | None = None,
) -> tuple[tf.Tensor, State]:
    """A block of steps through all layers; see `SequenceLayer.call`."""
    new_state = []
    for layer, layer_state in zip(layers, state, strict=True):
        outputs, layer_state = layer(inputs, layer_state, lengths)
        inputs = outputs.residual if isinstance(outputs, WavenetOutput) else outputs
        new_state.append(layer_state)
    return inputs, tuple(new_state)
