"""The recurrent baseline without latents.

    h_t = LSTM(phi(x_t), h_{t-1}),  p(x_t | x_<t) = heads(theta(h_{t-1}))

(Chung et al., "A recurrent latent variable model for sequential data", 2015). The state is shifted,
not the input: x_1 is predicted from the zero state and scored. The authors of STCN give x_1 in
their own RNN (`first_frame`). Weights begin as Keras draws them, not uniform in +-0.08.
"""

import keras
import tensorflow as tf

from stcn_tf.layers.base import State as LayerState
from stcn_tf.layers.mlp import MLP
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.recurrent import Recurrent
from stcn_tf.models.base import Encoded, ExactModel, State


class RNN(ExactModel):
    """LSTMs between two networks.

    Args:
        observation: the observation heads, not built.
        recurrent_units: of each LSTM.
        recurrent_layers: LSTMs, one on the other (Chung et al.: one).
        unit_forget_bias: whether the bias of their forget gates begins at 1; else 0, as Chung's.
        input_units: of each layer of phi, which reads x.
        output_units: of each layer of theta, which the heads read.
        hidden_layers: of phi and theta each.
        first_frame: "scored": x_1 is predicted from the zero state; "given": it is not scored.
        compute_dtype: policy of all but the heads, "float32" or "mixed_bfloat16".
        **kwargs: `name` of `keras.Model`.

    Raises:
        ValueError: `first_frame` is neither.
    """

    def __init__(
        self,
        *,
        observation: Observation,
        recurrent_units: int,
        input_units: int,
        output_units: int,
        hidden_layers: int = 1,
        recurrent_layers: int = 1,
        unit_forget_bias: bool = True,
        first_frame: str = "scored",
        compute_dtype: str = "float32",
        **kwargs,
    ):
        super().__init__(**{"name": "rnn", **kwargs, "dtype": "float32"})
        if first_frame not in ("scored", "given"):
            raise ValueError(f"first_frame must be 'scored' or 'given', got {first_frame!r}")
        self.num_given_frames = 1 if first_frame == "given" else 0
        policy = keras.DTypePolicy(compute_dtype)
        self.input_network = MLP(input_units, hidden_layers, name="phi", dtype=policy)
        self.recurrences = [
            Recurrent(recurrent_units, "lstm", unit_forget_bias, name=f"lstm_{i}", dtype=policy)
            for i in range(recurrent_layers)
        ]
        self.output_network = MLP(output_units, hidden_layers, name="theta", dtype=policy)
        self.observation = observation

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        features, units = self.num_features, self.recurrences[0].units
        self.input_network.build((None, None, features))
        channels = self.input_network.num_outputs(features)
        for layer in self.recurrences:
            layer.build((None, None, channels))
            channels = layer.units
        self.output_network.build((None, None, units))
        self.observation.build((None, None, self.output_network.num_outputs(units)))
        self.built = True

    def start(self, batch_size: tf.Tensor | int) -> State:
        """See `SequenceModel.start`: the zero state."""
        recurrent = tuple(layer.initial_state(batch_size) for layer in self.recurrences)
        return State(tf.range(batch_size), tf.zeros([batch_size], tf.int32), recurrent, ())

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """See `SequenceModel.encode`: what the heads read to predict each frame."""
        h, recurrent = self._recur(x, state.encoder, lengths)
        before = tf.concat([_h(state.encoder), h], axis=1)[:, :-1]
        return Encoded(self.output_network(before)[0], recurrent)

    def predict_next(self, state, seed=(0, 0), temperature=1.0):
        """See `SequenceModel.predict_next`; nothing is drawn."""
        del seed, temperature
        read, _ = self.output_network(_h(state.encoder))
        return self.observation(read)[0], state

    def advance(self, pending: State, x: tf.Tensor) -> State:
        """See `SequenceModel.advance`."""
        _, recurrent = self._recur(x, pending.encoder, None)
        return pending._replace(step=pending.step + 1, encoder=recurrent)

    def _recur(
        self, x: tf.Tensor, state: LayerState, lengths: tf.Tensor | None
    ) -> tuple[tf.Tensor, LayerState]:
        """H of the topmost LSTM after each step, and the state of all."""
        outputs, _ = self.input_network(x)
        states = []
        for layer, its_state in zip(self.recurrences, state, strict=True):
            outputs, its_state = layer(outputs, its_state, lengths)
            states.append(its_state)
        return outputs, tuple(states)


def _h(recurrent: LayerState) -> tf.Tensor:
    return recurrent[-1][0][:, tf.newaxis]
