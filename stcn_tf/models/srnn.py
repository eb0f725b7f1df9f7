"""SRNN (Fraccaro et al., "Sequential neural models with stochastic layers", 2016).

    d_t = GRU(e(x_{t-1}), d_{t-1}),  z_t ~ N(prior([d_t, z_{t-1}])),  x_t ~ heads(g([d_t, z_t])),
    a_t = GRU([d_t, e(x_t)], a_{t+1}), backwards,
    q(z_t | x, z_{t-1}) = N(mu, v): mu, log v of networks of [a_t, z_{t-1}], mu residual: + mu_prior

e is one network for both uses. Hidden layers are leaky ReLUs of slope 1/3, clipped to [-3, 3]; mean
and variance have a network each; variance = exp(.) + 1e-6. Filtering, a_t is a network of [d_t,
e(x_t)].

As everywhere here a zero frame comes before x_1, which is scored (theirs gives x_1), and the heads
are the observation's (theirs: a Gaussian with a log variance, for speech). The GRU has the second
bias of Keras; weights begin as Keras draws them.
"""

import keras
import tensorflow as tf

from stcn_tf.layers.base import at_ends
from stcn_tf.layers.mlp import MLP, GaussianForm, GaussianMLP, clipped_leaky_relu
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.recurrent import Recurrent, backwards
from stcn_tf.models.base import Encoded, State
from stcn_tf.models.recurrent import EncoderState, RecurrentLatentModel, Steps, joined

_FORM = GaussianForm(clipped_leaky_relu, is_separate=True, spread="variance", floor=1e-6)


class SRNN(RecurrentLatentModel):
    """SRNN, smoothing or filtering.

    Args:
        observation: the observation heads, not built.
        recurrent_units: of both GRUs.
        input_units: of each layer of e.
        latent_size: units of z_t.
        latent_units: of the hidden layer of the prior's and the posterior's networks.
        output_units: of each layer of g.
        hidden_layers: of e and g each.
        smoothing: whether the posterior sees the frames after x_t.
        residual_posterior: add the prior's mean to that of the posterior (their Res_q).
        compute_dtype: policy of all but the Gaussians and the heads, "float32" or "mixed_bfloat16".
        **kwargs: `name` of `keras.Model`.
    """

    def __init__(
        self,
        *,
        observation: Observation,
        recurrent_units: int,
        input_units: int,
        latent_size: int,
        latent_units: int,
        output_units: int,
        hidden_layers: int = 2,
        smoothing: bool = True,
        residual_posterior: bool = True,
        compute_dtype: str = "float32",
        **kwargs,
    ):
        super().__init__(**{"name": "srnn", **kwargs, "dtype": "float32"})
        policy = keras.DTypePolicy(compute_dtype)
        self.latent_sizes = (latent_size,)
        self.does_smooth = smoothing
        self.residual_posterior = residual_posterior

        def network(units, name):
            return MLP(units, hidden_layers, clipped_leaky_relu, name=name, dtype=policy)

        def gaussian(name):
            return GaussianMLP(latent_size, latent_units, 1, _FORM, name=name, dtype=policy)

        self.input_network = network(input_units, "e")
        self.recurrence = Recurrent(recurrent_units, "gru", name="d", dtype=policy)
        self.seeing = (
            Recurrent(recurrent_units, "gru", name="a", dtype=policy)
            if smoothing
            else network(recurrent_units, "a")
        )
        self.prior_network = gaussian("prior")
        self.posterior_network = gaussian("posterior")
        self.output_network = network(output_units, "g")
        self.observation = observation

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        (latent,), units = self.latent_sizes, self.recurrence.units
        of_x = self.input_network.num_outputs(self.num_features)
        seeing = self.seeing
        of_a = units if self.does_smooth else seeing.num_outputs(units + of_x)
        for layer, channels in (
            (self.input_network, self.num_features),
            (self.recurrence, of_x),
            (seeing, units + of_x),
            (self.prior_network, units + latent),
            (self.posterior_network, of_a + latent),
            (self.output_network, units + latent),
            (self.observation, self.output_network.num_outputs(units + latent)),
        ):
            layer.build((None, None, channels))
        self.built = True

    def start(self, batch_size: tf.Tensor | int) -> State:
        """See `SequenceModel.start`: a zero frame comes before the first one; z_0 = 0."""
        (latent,) = self.latent_sizes
        encoder = EncoderState(
            tf.zeros([batch_size, 1, self.num_features]), self.recurrence.initial_state(batch_size)
        )
        return self.started(batch_size, encoder, tf.zeros([batch_size, 1, latent]))

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """See `SequenceModel.encode`: d_t, and a_t of the frames of this block."""
        frames = tf.concat([state.encoder.previous, x], axis=1)
        features, _ = self.input_network(frames)
        d, recurrent = self.recurrence(features[:, :-1], state.encoder.recurrent, lengths)
        read = joined(d, features[:, 1:])
        if self.does_smooth:
            a = backwards(self.seeing, read, lengths)
        else:
            a, _ = self.seeing(read)
        steps = Steps(before=d, own=(), seen=a)
        return Encoded(steps, EncoderState(at_ends(frames, lengths), recurrent))

    def past(self, encoder):
        """See `RecurrentLatentModel.past`: d_t."""
        features, _ = self.input_network(encoder.previous)
        d, recurrent = self.recurrence(features, encoder.recurrent)
        return d, EncoderState(encoder.previous, recurrent)

    def known(self, encoder, x):
        """See `RecurrentLatentModel.known`: read with the next step."""
        return (), encoder._replace(previous=x)

    def prior(self, before, latent):
        """See `RecurrentLatentModel.prior`: of d_t and z_{t-1}."""
        return self.prior_network(joined(before, latent))[0]

    def posterior(self, steps, latent, prior):
        """See `RecurrentLatentModel.posterior`: of a_t and z_{t-1}."""
        mean, sigma = self.posterior_network(joined(steps.seen, latent))[0]
        return (mean + prior[0] if self.residual_posterior else mean), sigma

    def drawn(self, before, z, latent, standard):
        """See `RecurrentLatentModel.drawn`: d_t and z_t are read, z_t is kept."""
        del latent, standard
        return joined(before, z), z

    def predicted(self, read):
        """See `RecurrentLatentModel.predicted`."""
        return self.observation(self.output_network(read)[0])[0]
