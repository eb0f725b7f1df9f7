"""F-SRNN, the stochastic recurrent model of Dai et al.

    d_t = LSTM(e(x_{t-1}), d_{t-1}),  z_t ~ N(prior(d_t)),  h_t = LSTM([d_t, z_t], h_{t-1}),
    x_t ~ heads(h_t),  b_t = LSTM(e(x_t), b_{t+1}), backwards,
    q(z_t | x) = N(posterior([b_t, d_t]))

("Re-examination of the role of latent variables in sequence modeling", 2019). No latent reaches
another prior or posterior, only the output's LSTM. e is linear; networks of Gaussians have one
hidden layer of leaky ReLUs (slope 1/3, clipped to [-3, 3]), what they say of mean and log variance
is clipped to [-8, 8].

"F" is for features that are independent given h_t: `--observation=featurewise_gmm`. With
`hierarchical_gmm` it is their SRNN-hier. As everywhere here a zero frame comes before x_1, which is
scored (theirs gives x_1), and the backward LSTM reads no padding.
"""

import keras
import tensorflow as tf

from stcn_tf.layers.base import at_ends
from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.layers.mlp import GaussianForm, GaussianMLP, clipped_leaky_relu
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.recurrent import Recurrent, backwards
from stcn_tf.models.base import Encoded, State
from stcn_tf.models.recurrent import EncoderState, RecurrentLatentModel, Steps, joined

_FORM = GaussianForm(clipped_leaky_relu, is_separate=False, spread="variance", bound=8.0)


class FSRNN(RecurrentLatentModel):
    """F-SRNN.

    Args:
        observation: the observation heads, not built.
        recurrent_units: of the three LSTMs.
        input_units: of e.
        latent_size: units of z_t.
        latent_units: of the hidden layer of the prior's and the posterior's network.
        unit_forget_bias: whether the bias of the forget gates begins at 1; else 0.
        compute_dtype: policy of all but the Gaussians and the heads, "float32" or "mixed_bfloat16".
        **kwargs: `name` of `keras.Model`.
    """

    does_smooth = True

    def __init__(
        self,
        *,
        observation: Observation,
        recurrent_units: int,
        input_units: int,
        latent_size: int,
        latent_units: int,
        unit_forget_bias: bool = True,
        compute_dtype: str = "float32",
        **kwargs,
    ):
        super().__init__(**{"name": "f_srnn", **kwargs, "dtype": "float32"})
        policy = keras.DTypePolicy(compute_dtype)
        self.latent_sizes = (latent_size,)

        def recurrent(name):
            return Recurrent(recurrent_units, "lstm", unit_forget_bias, name=name, dtype=policy)

        def gaussian(name):
            return GaussianMLP(latent_size, latent_units, 1, _FORM, name=name, dtype=policy)

        self.input_network = CausalConv(input_units, name="e", dtype=policy)
        self.recurrence = recurrent("d")
        self.seeing = recurrent("b")
        self.output_recurrence = recurrent("h")
        self.prior_network = gaussian("prior")
        self.posterior_network = gaussian("posterior")
        self.observation = observation

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        (latent,), units = self.latent_sizes, self.recurrence.units
        of_x = self.input_network.filters
        for layer, channels in (
            (self.input_network, self.num_features),
            (self.recurrence, of_x),
            (self.seeing, of_x),
            (self.prior_network, units),
            (self.posterior_network, 2 * units),
            (self.output_recurrence, units + latent),
            (self.observation, units),
        ):
            layer.build((None, None, channels))
        self.built = True

    def start(self, batch_size: tf.Tensor | int) -> State:
        """See `SequenceModel.start`: a zero frame comes before the first one."""
        encoder = EncoderState(
            tf.zeros([batch_size, 1, self.num_features]), self.recurrence.initial_state(batch_size)
        )
        return self.started(batch_size, encoder, self.output_recurrence.initial_state(batch_size))

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """See `SequenceModel.encode`: d_t, and b_t of the frames of this block."""
        frames = tf.concat([state.encoder.previous, x], axis=1)
        features, _ = self.input_network(frames, ())
        d, recurrent = self.recurrence(features[:, :-1], state.encoder.recurrent, lengths)
        seen = backwards(self.seeing, features[:, 1:], lengths)
        steps = Steps(before=d, own=(), seen=seen)
        return Encoded(steps, EncoderState(at_ends(frames, lengths), recurrent))

    def past(self, encoder):
        """See `RecurrentLatentModel.past`: d_t."""
        features, _ = self.input_network(encoder.previous, ())
        d, recurrent = self.recurrence(features, encoder.recurrent)
        return d, EncoderState(encoder.previous, recurrent)

    def known(self, encoder, x):
        """See `RecurrentLatentModel.known`: read with the next step."""
        return (), encoder._replace(previous=x)

    def prior(self, before, latent):
        """See `RecurrentLatentModel.prior`: of d_t."""
        del latent
        return self.prior_network(before)[0]

    def posterior(self, steps, latent, prior):
        """See `RecurrentLatentModel.posterior`: of b_t and d_t."""
        del latent, prior
        return self.posterior_network(joined(steps.seen, steps.before))[0]

    def drawn(self, before, z, latent, standard):
        """See `RecurrentLatentModel.drawn`: the output's LSTM reads d_t and z_t."""
        del standard
        return self.output_recurrence(joined(before, z), latent)

    def predicted(self, read):
        """See `RecurrentLatentModel.predicted`: of h_t."""
        return self.observation(read)[0]
