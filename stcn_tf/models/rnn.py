"""The recurrent baseline without latents.

    h_t = LSTM(phi(x_t), h_{t-1}),  p(x_t | x_<t) = heads(theta(h_{t-1}))

(Chung et al., "A recurrent latent variable model for sequential data", 2015). The state is shifted,
not the input: x_1 is predicted from the zero state and scored. The authors of STCN give x_1 in
their own RNN (`first_frame`). Weights begin as Keras draws them, not uniform in +-0.08.
"""

import keras
import tensorflow as tf

from stcn_tf.layers.mlp import MLP
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.recurrent import Recurrent
from stcn_tf.models.base import Encoded, ExactModel, State


class RNN(ExactModel):
    """One LSTM between two networks.

    Args:
        observation: the observation heads, not built.
        recurrent_units: of the LSTM.
        unit_forget_bias: whether the bias of its forget gates begins at 1; else 0, as Chung's.
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
        self.recurrence = Recurrent(
            recurrent_units, "lstm", unit_forget_bias, name="lstm", dtype=policy
        )
        self.output_network = MLP(output_units, hidden_layers, name="theta", dtype=policy)
        self.observation = observation

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        features, units = self.num_features, self.recurrence.units
        self.input_network.build((None, None, features))
        self.recurrence.build((None, None, self.input_network.num_outputs(features)))
        self.output_network.build((None, None, units))
        self.observation.build((None, None, self.output_network.num_outputs(units)))
        self.built = True

    def start(self, batch_size: tf.Tensor | int) -> State:
        """See `SequenceModel.start`: the zero state."""
        recurrent = self.recurrence.initial_state(batch_size)
        return State(tf.range(batch_size), tf.zeros([batch_size], tf.int32), recurrent, ())

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """See `SequenceModel.encode`: what the heads read to predict each frame."""
        h, recurrent = self.recurrence(self.input_network(x)[0], state.encoder, lengths)
        before = tf.concat([state.encoder[0][:, tf.newaxis], h], axis=1)[:, :-1]
        return Encoded(self.output_network(before)[0], recurrent)

    def predict_next(self, state, seed=(0, 0), temperature=1.0):
        """See `SequenceModel.predict_next`; nothing is drawn."""
        del seed, temperature
        read, _ = self.output_network(state.encoder[0][:, tf.newaxis])
        return self.observation(read)[0], state

    def advance(self, pending: State, x: tf.Tensor) -> State:
        """See `SequenceModel.advance`."""
        _, recurrent = self.recurrence(self.input_network(x)[0], pending.encoder)
        return pending._replace(step=pending.step + 1, encoder=recurrent)
