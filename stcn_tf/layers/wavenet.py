"""The gated residual block of Wavenet and the stack of them (paper, section 2.1 and Figure 5)."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from stcn_tf.layers.base import SequenceLayer, State
from stcn_tf.layers.causal_conv import CausalConv, convolve


class WavenetOutput(NamedTuple):
    """The two outputs of a Wavenet block."""

    residual: tf.Tensor  # [batch, time, filters], block output + input
    skip: tf.Tensor  # [batch, time, filters], block output before the input is added


@keras.saving.register_keras_serializable("stcn_tf")
class WavenetBlock(SequenceLayer):
    """tanh(filter) * sigmoid(gate), a 1x1 convolution, and a residual connection.

    Where the input has another number of channels than `filters`, the residual path is a 1x1
    convolution.

    Args:
        filters: channels of every convolution in the block.
        kernel_size: taps of the filter and of the gate convolution.
        dilation: their dilation.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.
    """

    def __init__(self, filters: int, kernel_size: int = 2, dilation: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.dilation = dilation
        shared = {"dtype": self.dtype_policy}
        self.filter_conv = CausalConv(
            filters, kernel_size, dilation, "tanh", name="filter", **shared
        )
        self.gate_conv = CausalConv(
            filters, kernel_size, dilation, "sigmoid", name="gate", **shared
        )
        self.output_conv = CausalConv(filters, name="output", **shared)
        self.residual_conv = None

    @property
    def memory(self) -> int:
        """Time steps before t that the output at t can see."""
        return self.filter_conv.memory

    def build(self, input_shape):
        hidden_shape = (*input_shape[:-1], self.filters)
        self.filter_conv.build(input_shape)
        self.gate_conv.build(input_shape)
        self.output_conv.build(hidden_shape)
        if input_shape[-1] != self.filters:
            self.residual_conv = CausalConv(self.filters, name="residual", dtype=self.dtype_policy)
            self.residual_conv.build(input_shape)

    def initial_state(self, batch_size: tf.Tensor | int) -> State:
        """Filter and gate read the same inputs, so they share one memory."""
        return self.filter_conv.initial_state(batch_size)

    def call(
        self, inputs: tf.Tensor, state: State, lengths: tf.Tensor | None = None
    ) -> tuple[WavenetOutput, State]:
        """[batch, steps, channels] -> both outputs, [batch, steps, filters] each."""
        convs = [self.filter_conv, self.gate_conv]
        (filtered, gate), state = convolve(convs, inputs, state, lengths)
        skip, _ = self.output_conv(filtered * gate, ())
        carried = self.residual_conv(inputs, ())[0] if self.residual_conv else inputs
        return WavenetOutput(skip + tf.cast(carried, skip.dtype), skip), state

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
        }


@keras.saving.register_keras_serializable("stcn_tf")
class WavenetStack(SequenceLayer):
    """Wavenet blocks one on the other: the deterministic half of the model.

    Args:
        filters: channels of every block.
        kernel_size: taps of the dilated convolutions.
        dilations: one for each block, lowest first.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.
    """

    def __init__(self, filters: int, kernel_size: int, dilations: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.dilations = tuple(dilations)
        self.blocks = [
            WavenetBlock(
                filters, kernel_size, dilation, name=f"block_{i:02d}", dtype=self.dtype_policy
            )
            for i, dilation in enumerate(self.dilations)
        ]

    @property
    def receptive_field(self) -> int:
        """Input frames that the top block's output at t can see, the one at t included."""
        return 1 + sum(block.memory for block in self.blocks)

    def build(self, input_shape):
        for block in self.blocks:
            block.build(input_shape)
            input_shape = (*input_shape[:-1], self.filters)

    def initial_state(self, batch_size: tf.Tensor | int) -> State:
        """One state for each block, lowest first."""
        return tuple(block.initial_state(batch_size) for block in self.blocks)

    def call(
        self, inputs: tf.Tensor, state: State, lengths: tf.Tensor | None = None
    ) -> tuple[list[WavenetOutput], State]:
        """[batch, steps, channels] -> the outputs of every block, lowest first."""
        outputs, new_state = [], []
        for block, block_state in zip(self.blocks, state, strict=True):
            output, block_state = block(inputs, block_state, lengths)
            outputs.append(output)
            new_state.append(block_state)
            inputs = output.residual
        return outputs, tuple(new_state)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilations": list(self.dilations),  # Keras makes no tuple of what it saved
        }
