"""The layers of SWaveNet (Lai et al., "Stochastic WaveNet", 2018)."""

import keras
import tensorflow as tf

from stcn_tf.layers.base import SequenceLayer, State
from stcn_tf.layers.causal_conv import CausalConv, convolve
from stcn_tf.layers.phase import is_training

# As PyTorch's: running = 0.9 running + 0.1 new.
_MOMENTUM, _EPSILON = 0.9, 1e-5


@keras.saving.register_keras_serializable("stcn_tf")
class NormedBlock(SequenceLayer):
    """A gated block whose three branches are normalised over batches.

        BN(1x1 v) + tanh(BN(conv v)) * gate(BN(conv v)),  convolutions of width 2

    While a model is trained, the statistics are those of all steps of the batch that belong to a
    sequence, and running means of them are kept; scoring and generation use these. (The authors'
    include padding, and their running variance is the unbiased one.) On several devices each has
    the statistics of its own part of the batch; those of the first are kept.

    Args:
        filters: of each branch.
        dilation: of the convolutions.
        gate: "sigmoid", or "linear" as released, where the result of the sigmoid goes astray.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Raises:
        ValueError: `gate` is neither.
    """

    def __init__(self, filters: int, dilation: int, gate: str = "sigmoid", **kwargs):
        super().__init__(**kwargs)
        if gate not in ("sigmoid", "linear"):
            raise ValueError(f"gate must be 'sigmoid' or 'linear', got {gate!r}")
        self.filters = filters
        self.dilation = dilation
        self.gate = keras.activations.get(gate)
        options = {"dtype": self.dtype_policy}
        self.filter_conv = CausalConv(filters, 2, dilation, name="filter", **options)
        self.gate_conv = CausalConv(filters, 2, dilation, name="gate", **options)
        self.residual_conv = CausalConv(filters, name="residual", **options)
        # Statistics are sums over thousands of steps: not in bfloat16.
        self.norms = [
            keras.layers.BatchNormalization(
                momentum=_MOMENTUM, epsilon=_EPSILON, name=f"{name}_norm", dtype="float32"
            )
            for name in ("filter", "gate", "residual")
        ]

    @property
    def memory(self) -> int:
        """Time steps before t that the output at t can see."""
        return self.dilation

    def build(self, input_shape):
        for conv in (self.filter_conv, self.gate_conv, self.residual_conv):
            conv.build(input_shape)
        for norm in self.norms:
            norm.build((None, None, self.filters))

    def initial_state(self, batch_size: tf.Tensor | int) -> State:
        """Both convolutions read the same inputs, so they share one memory."""
        return self.filter_conv.initial_state(batch_size)

    def call(
        self, inputs: tf.Tensor, state: State, lengths: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, State]:
        """[batch, steps, channels] -> [batch, steps, filters]."""
        gated, state = convolve([self.filter_conv, self.gate_conv], inputs, state, lengths)
        branches = [*gated, self.residual_conv(inputs, ())[0]]
        mask = None
        if lengths is not None:
            mask = tf.sequence_mask(lengths, tf.shape(inputs)[1])
        filtered, gate, residual = (
            norm(branch, training=is_training(), mask=mask)
            for norm, branch in zip(self.norms, branches, strict=True)
        )
        return residual + tf.tanh(filtered) * self.gate(gate), state

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "dilation": self.dilation,
            "gate": keras.activations.serialize(self.gate),
        }


@keras.saving.register_keras_serializable("stcn_tf")
class Mixer(SequenceLayer):
    """M of the paper: a hidden layer with ReLU and a linear one; or a ReLU and a linear layer.

    Args:
        filters: of the output.
        hidden_units: of the hidden layer; 0: there is none, the input goes through the ReLU.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.
    """

    def __init__(self, filters: int, hidden_units: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.hidden_units = hidden_units
        self.hidden = None
        if hidden_units:
            self.hidden = CausalConv(hidden_units, name="hidden", dtype=self.dtype_policy)
        self.linear = CausalConv(filters, name="linear", dtype=self.dtype_policy)

    def build(self, input_shape):
        if self.hidden:
            self.hidden.build(input_shape)
            input_shape = (*input_shape[:-1], self.hidden_units)
        self.linear.build(input_shape)

    def call(
        self, inputs: tf.Tensor, state: State = (), lengths: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, State]:
        """[batch, steps, channels] -> [batch, steps, filters]."""
        del lengths
        if self.hidden:
            inputs, _ = self.hidden(inputs, ())
        return self.linear(tf.nn.relu(inputs), ())[0], state

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "hidden_units": self.hidden_units,
        }
