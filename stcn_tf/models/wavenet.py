"""Wavenet and Wavenet-dense, the paper's deterministic baselines (Tables 1, 2 and 4).

A causal convolution, a stack of Wavenet blocks, hidden 1x1 convolutions and the heads. Wavenet
reads the sum of the skip outputs of all blocks, as in van den Oord et al. (2016); Wavenet-dense the
concatenated residual outputs of some of them, the deterministic counterpart of STCN-dense. The
likelihood of these models is exact: they have no latent variables.
"""

import itertools
from collections.abc import Sequence

import keras
import tensorflow as tf

from stcn_tf.layers import output
from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.layers.observation import Observation, ObservationParameters
from stcn_tf.layers.wavenet import WavenetOutput, WavenetStack
from stcn_tf.models.base import ScoreTerms, Seed, SequenceModel, sequence_mask


class Wavenet(SequenceModel):
    """Wavenet, and with `wavenet_dense_blocks` Wavenet-dense.

    Args:
        observation: p(x_t | .), not built.
        num_filters: filters of the first convolution and of the stack.
        kernel_size: taps of the causal convolutions.
        dilations: of the Wavenet blocks, lowest first, over and over.
        wavenet_blocks: their number.
        output_layers: output layers between the stack and the heads.
        output_filters: their filters.
        output_type: "conv1x1" or "wavenet", see `make_output_layers`.
        output_kernel_size: taps of Wavenet output layers.
        wavenet_dense_blocks: numbers of the blocks, 1 the lowest, whose residual outputs are
            concatenated (Wavenet-dense); empty: the skip outputs of all blocks are summed
            (Wavenet).
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
        dilations: Sequence[int],
        wavenet_blocks: int,
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
        dilations = tuple(itertools.islice(itertools.cycle(dilations), wavenet_blocks))
        self.num_given_frames = 1 if first_frame == "given" else 0
        self.dense_blocks = tuple(wavenet_dense_blocks)
        policy = keras.DTypePolicy(compute_dtype)
        self.causal = CausalConv(num_filters, kernel_size, name="causal", dtype=policy)
        self.stack = WavenetStack(num_filters, kernel_size, dilations, name="stack", dtype=policy)
        self.output_layers = output.make_output_layers(
            output_type, output_layers, output_filters, output_kernel_size, policy
        )
        self.observation = observation

    @property
    def receptive_field(self) -> int:
        """Past frames that the prediction of x_t can see."""
        layers = [self.causal, *self.output_layers]
        return self.stack.receptive_field + sum(layer.memory for layer in layers)

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        filters = self.stack.filters
        self.causal.build((None, None, self.num_features))
        self.stack.build((None, None, filters))
        channels = filters * (len(self.dense_blocks) or 1)
        channels = output.build(self.output_layers, channels)
        self.observation.build((None, None, channels))
        self.built = True

    def call(self, x: tf.Tensor) -> ObservationParameters:
        """Predicts each scored frame from those before it.

        Args:
            x: [batch, time, features] float32, normalised.

        Returns:
            p(x_t | x_1, ..., x_{t-1}) for every scored t: the time axis is that of x, or one
            shorter where the first frame is given.
        """
        # Where the first frame is given there is no zero frame in front, only the zero padding of
        # each layer, as released.
        inputs = x if self.num_given_frames else tf.pad(x, [[0, 0], [1, 0], [0, 0]])
        # The prediction of the frame after the last one is computed in vain, heads too: TensorFlow
        # has no convolution over the no frames that a given frame alone would leave.
        outputs = output.apply(self.output_layers, self._read(self.stack(self.causal(inputs))))
        return tf.nest.map_structure(lambda p: p[:, :-1], self.observation(outputs))

    def encode(self, x: tf.Tensor) -> ObservationParameters:
        """See `SequenceModel.encode`."""
        return self.call(tf.convert_to_tensor(x, tf.float32))

    def score_encoded(
        self,
        encoded: ObservationParameters,
        x: tf.Tensor,
        lengths: tf.Tensor,
        seed: Seed = (0, 0),
        noise: str = "sample",
    ) -> ScoreTerms:
        """See `SequenceModel.score_encoded`; nothing is drawn, there is no layer of latents."""
        del seed, noise
        x = tf.convert_to_tensor(x, tf.float32)
        given = self.num_given_frames
        log_likelihood = self.observation.log_prob(encoded, x[:, given:])
        log_likelihood = tf.pad(log_likelihood, [[0, 0], [given, 0]])
        log_likelihood = tf.where(sequence_mask(lengths, x), log_likelihood, 0.0)
        return ScoreTerms(
            log_likelihood=log_likelihood,
            kl=tf.zeros([*tf.unstack(tf.shape(x)[:2]), 0]),
            kl_per_unit=(),
            log_weight=log_likelihood,
        )

    def reconstruction_parameters(self, x: tf.Tensor, seed: Seed = (0, 0)) -> ObservationParameters:
        """See `SequenceModel.reconstruction_parameters`: the predictions, one step ahead."""
        del seed
        return self.call(x)

    def initial_state(self, batch_size: tf.Tensor | int):
        """See `SequenceModel.initial_state`."""
        return {
            "frames_left_out": tf.fill([batch_size], self.num_given_frames),
            "layers": (
                self.causal.initial_state(batch_size),
                self.stack.initial_state(batch_size),
                output.initial_state(self.output_layers, batch_size),
            ),
        }

    def predict_step(self, previous, state, seed, temperature=1.0):
        """See `SequenceModel.predict_step`; nothing is drawn."""
        del seed, temperature
        causal_state, stack_state, output_state = state["layers"]
        frame, causal_state = self.causal.step(previous, causal_state)
        outputs, stack_state = self.stack.step(frame, stack_state)
        outputs = [WavenetOutput(*(t[:, tf.newaxis] for t in o)) for o in outputs]
        read, output_state = output.step(
            self.output_layers, self._read(outputs)[:, 0], output_state
        )
        new_layers = (causal_state, stack_state, output_state)
        left_out = state["frames_left_out"]
        if self.num_given_frames:
            # The zero frame that generation begins with is none that this model has been fed.
            new_layers = tf.nest.map_structure(
                lambda old, new: tf.where(
                    tf.reshape(left_out > 0, [-1] + [1] * (len(new.shape) - 1)), old, new
                ),
                state["layers"],
                new_layers,
            )
            left_out = tf.maximum(left_out - 1, 0)
        parameters = self.observation(read[:, tf.newaxis])
        return parameters, {"frames_left_out": left_out, "layers": new_layers}

    def _read(self, outputs: list[WavenetOutput]) -> tf.Tensor:
        if self.dense_blocks:
            read = tf.concat([outputs[block - 1].residual for block in self.dense_blocks], axis=-1)
        else:
            read = tf.add_n([o.skip for o in outputs])
        return tf.nn.relu(read)
