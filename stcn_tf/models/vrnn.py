"""VRNN (Chung et al., "A recurrent latent variable model for sequential data", 2015).

    z_t ~ N(prior(h_{t-1})),  x_t ~ heads(theta([phi_z(z_t), h_{t-1}])),
    h_t = LSTM([phi_x(x_t), phi_z(z_t)], h_{t-1}),
    q(z_t | x_<=t, z_<t) = N(posterior([phi_x(x_t), h_{t-1}]))

All networks have ReLUs; sigma = softplus(.) + 1e-4, the bias of . beginning at 0.6. The state is
shifted, not the input: x_1 is predicted from the zero state. The other weights begin as Keras draws
them, not uniform in +-0.08. The authors of STCN have no 1e-4 in their own VRNN.
"""

import keras
import tensorflow as tf

from stcn_tf.layers.mlp import MLP, GaussianForm, GaussianMLP
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.recurrent import Recurrent
from stcn_tf.models.base import Encoded, State
from stcn_tf.models.recurrent import RecurrentLatentModel, Steps, h_of, joined

_FORM = GaussianForm("relu", is_separate=False, spread="softplus", floor=1e-4, spread_bias=0.6)


class VRNN(RecurrentLatentModel):
    """VRNN.

    Args:
        observation: the observation heads, not built.
        recurrent_units: of the LSTM.
        unit_forget_bias: whether the bias of its forget gates begins at 1; else 0, as Chung's.
        input_units: of each layer of phi_x.
        latent_size: units of z_t.
        latent_input_units: of each layer of phi_z.
        latent_units: of each layer of prior and posterior.
        output_units: of each layer of theta.
        hidden_layers: of each of these networks.
        residual_posterior: add the prior's mean to that of the posterior.
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
        latent_input_units: int,
        latent_units: int,
        output_units: int,
        hidden_layers: int = 1,
        unit_forget_bias: bool = True,
        residual_posterior: bool = False,
        compute_dtype: str = "float32",
        **kwargs,
    ):
        super().__init__(**{"name": "vrnn", **kwargs, "dtype": "float32"})
        policy = keras.DTypePolicy(compute_dtype)
        self.latent_sizes = (latent_size,)
        self.residual_posterior = residual_posterior

        def network(units, name):
            return MLP(units, hidden_layers, name=name, dtype=policy)

        def gaussian(name):
            return GaussianMLP(
                latent_size, latent_units, hidden_layers, _FORM, name=name, dtype=policy
            )

        self.input_network = network(input_units, "phi_x")
        self.latent_network = network(latent_input_units, "phi_z")
        self.output_network = network(output_units, "theta")
        self.prior_network = gaussian("prior")
        self.posterior_network = gaussian("posterior")
        self.recurrence = Recurrent(
            recurrent_units, "lstm", unit_forget_bias, name="lstm", dtype=policy
        )
        self.observation = observation

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        (latent,), units = self.latent_sizes, self.recurrence.units
        of_x = self.input_network.num_outputs(self.num_features)
        of_z = self.latent_network.num_outputs(latent)
        for layer, channels in (
            (self.input_network, self.num_features),
            (self.latent_network, latent),
            (self.recurrence, of_x + of_z),
            (self.prior_network, units),
            (self.posterior_network, of_x + units),
            (self.output_network, of_z + units),
            (self.observation, self.output_network.num_outputs(of_z + units)),
        ):
            layer.build((None, None, channels))
        self.built = True

    def start(self, batch_size: tf.Tensor | int) -> State:
        """See `SequenceModel.start`: the zero state."""
        return self.started(batch_size, (), self.recurrence.initial_state(batch_size))

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """See `SequenceModel.encode`: phi_x."""
        del lengths
        features, encoder = self.known(state.encoder, x)
        return Encoded(Steps(before=(), own=features, seen=()), encoder)

    def known(self, encoder, x):
        """See `RecurrentLatentModel.known`: phi_x."""
        return self.input_network(x)[0], encoder

    def prior(self, before, latent):
        """See `RecurrentLatentModel.prior`: of h_{t-1}."""
        del before
        return self.prior_network(h_of(latent))[0]

    def posterior(self, steps, latent, prior):
        """See `RecurrentLatentModel.posterior`: of x_t and h_{t-1}."""
        mean, sigma = self.posterior_network(joined(steps.own, h_of(latent)))[0]
        return (mean + prior[0] if self.residual_posterior else mean), sigma

    def drawn(self, before, z, latent, standard):
        """See `RecurrentLatentModel.drawn`: phi_z(z_t) and h_{t-1} are read."""
        del before, standard
        features, _ = self.latent_network(z)
        return joined(features, h_of(latent)), (latent, features)

    def given(self, own, latent):
        """See `RecurrentLatentModel.given`: the LSTM reads x_t and z_t."""
        recurrent, features = latent
        return self.recurrence(joined(own, features), recurrent)[1]

    def predicted(self, read):
        """See `RecurrentLatentModel.predicted`."""
        return self.observation(self.output_network(read)[0])[0]
