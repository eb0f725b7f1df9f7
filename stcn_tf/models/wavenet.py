"""Wavenet and Wavenet-dense, the paper's deterministic baselines (Tables 1, 2 and 4).

A causal convolution, a stack of Wavenet blocks, hidden 1x1 convolutions and the heads. Wavenet
reads the sum of the skip outputs of all blocks, as in van den Oord et al. (2016); Wavenet-dense the
concatenated residual outputs of some of them, the deterministic counterpart of STCN-dense. The
likelihood of these models is exact: they have no latent variables.
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from stcn_tf.layers import serial
from stcn_tf.layers.base import State as LayerState
from stcn_tf.layers.base import at_ends
from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.wavenet import WavenetOutput, WavenetStack
from stcn_tf.models.base import Encoded, ExactModel, State


class EncoderState(NamedTuple):
    """The past of each sequence."""

    previous: tf.Tensor  # [batch, 1, features], the last frame; zeros before the first one
    layers: tuple[LayerState, ...]  # causal, stack, output layers; before they have read that frame


class Wavenet(ExactModel):
    """Wavenet, and with `wavenet_dense_blocks` Wavenet-dense.

    Args:
        observation: the observation heads, not built.
        num_filters: filters of the first convolution and of the stack.
        kernel_size: taps of the causal convolutions.
        wavenet_blocks: number of Wavenet blocks.
        dilations: of the blocks, lowest first, over and over.
        output_layers: output layers between the stack and the heads.
        output_filters: their filters.
        output_type: "conv1x1" or "wavenet", see `serial.make_output_layers`.
        output_kernel_size: taps of Wavenet output layers.
        wavenet_dense_blocks: numbers of the blocks, 1 the lowest, whose residual outputs are
            concatenated (Wavenet-dense); empty: the skip outputs of all blocks are summed.
        first_frame: "scored": x_1 is predicted from a zero frame, so that this model and STCN score
            the same steps; "given": as released, x_1 is only an input.
        compute_dtype: policy of the convolutions, "float32" or "mixed_bfloat16".
        **kwargs: `name` of `keras.Model`.

    Raises:
        ValueError: an option has another value than those named here.
    """

    def __init__(
        self,
        *,
        observation: Observation,
        num_filters: int,
        kernel_size: int,
        wavenet_blocks: int,
        dilations: Sequence[int],
        output_layers: int,
        output_filters: int,
        output_type: str = "conv1x1",
        output_kernel_size: int = 2,
        wavenet_dense_blocks: Sequence[int] = (),
        first_frame: str = "scored",
        compute_dtype: str = "float32",
        **kwargs,
    ):
        # x itself must stay float32: only the convolutions compute in `compute_dtype`.
        super().__init__(**{"name": "wavenet", **kwargs, "dtype": "float32"})
        if first_frame not in ("scored", "given"):
            raise ValueError(f"first_frame must be 'scored' or 'given', got {first_frame!r}")
        if not all(1 <= block <= wavenet_blocks for block in wavenet_dense_blocks):
            raise ValueError(
                f"wavenet_dense_blocks must be from 1 to {wavenet_blocks}, got "
                f"{wavenet_dense_blocks}"
            )
        self.num_given_frames = 1 if first_frame == "given" else 0
        self.dense_blocks = tuple(wavenet_dense_blocks)
        policy = keras.DTypePolicy(compute_dtype)
        self.causal = CausalConv(num_filters, kernel_size, name="causal", dtype=policy)
        self.stack = WavenetStack(
            num_filters,
            kernel_size,
            [dilations[block % len(dilations)] for block in range(wavenet_blocks)],
            name="stack",
            dtype=policy,
        )
        self.output_layers = serial.make_output_layers(
            output_type, output_layers, output_filters, output_kernel_size, policy
        )
        self.observation = observation

    @property
    def receptive_field(self) -> int:
        """See `SequenceModel`."""
        layers = [self.causal, *self.output_layers]
        return self.stack.receptive_field + sum(layer.memory for layer in layers)

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        filters = self.stack.filters
        self.causal.build((None, None, self.num_features))
        self.stack.build((None, None, filters))
        channels = serial.build(self.output_layers, filters * (len(self.dense_blocks) or 1))
        self.observation.build((None, None, channels))
        self.built = True

    def start(self, batch_size: tf.Tensor | int) -> State:
        """See `SequenceModel.start`.

        Where x_1 is scored a zero frame comes before it. Where it is given nothing does, only the
        zero padding of each layer, as released.
        """
        return State(
            row=tf.range(batch_size),
            step=tf.zeros([batch_size], tf.int32),
            encoder=EncoderState(
                previous=tf.zeros([batch_size, 1, self.num_features]),
                layers=(
                    self.causal.initial_state(batch_size),
                    self.stack.initial_state(batch_size),
                    serial.initial_state(self.output_layers, batch_size),
                ),
            ),
            latent=(),
        )

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """See `SequenceModel.encode`: what the heads read to predict each frame."""
        # The one-step shift: each frame is predicted from those before it.
        frames = tf.concat([state.encoder.previous, x], axis=1)
        if not self.num_given_frames:
            read, layers = self._read(frames[:, :-1], state.encoder.layers, lengths)
        else:
            # Of a row without a frame before the block the layers read x alone, and what they say
            # of x_t predicts the next frame: one position later.
            is_first = state.step == 0
            rows = is_first[:, tf.newaxis, tf.newaxis]
            consumed = tf.maximum(lengths - tf.cast(is_first, tf.int32), 0)
            inputs = tf.where(rows, x, frames[:, :-1])
            read, layers = self._read(inputs, state.encoder.layers, consumed)
            later = tf.pad(read, [[0, 0], [1, 0], [0, 0]])[:, :-1]
            read = tf.where(rows, later, read)
        return Encoded(read, EncoderState(at_ends(frames, lengths), layers))

    def predict_next(self, state, seed=(0, 0), temperature=1.0):
        """See `SequenceModel.predict_next`; nothing is drawn."""
        del seed, temperature
        # Rows without a frame before have nothing to read yet, where the first one is given.
        lengths = None
        if self.num_given_frames:
            lengths = tf.minimum(state.step, 1)
        read, layers = self._read(state.encoder.previous, state.encoder.layers, lengths)
        parameters, _ = self.observation(read)
        return parameters, state._replace(encoder=state.encoder._replace(layers=layers))

    def advance(self, pending: State, x: tf.Tensor) -> State:
        """See `SequenceModel.advance`."""
        return pending._replace(step=pending.step + 1, encoder=pending.encoder._replace(previous=x))

    def _read(
        self, frames: tf.Tensor, state: tuple[LayerState, ...], lengths: tf.Tensor | None
    ) -> tuple[tf.Tensor, tuple[LayerState, ...]]:
        """All layers below the heads."""
        causal, stack, output = state
        hidden, causal = self.causal(frames, causal, lengths)
        outputs, stack = self.stack(hidden, stack, lengths)
        read, output = serial.run(self.output_layers, self._gathered(outputs), output, lengths)
        return read, (causal, stack, output)

    def _gathered(self, outputs: list[WavenetOutput]) -> tf.Tensor:
        """What the output layers read of the blocks."""
        if self.dense_blocks:
            read = tf.concat([outputs[block - 1].residual for block in self.dense_blocks], axis=-1)
        else:
            read = tf.add_n([output.skip for output in outputs])
        return tf.nn.relu(read)
