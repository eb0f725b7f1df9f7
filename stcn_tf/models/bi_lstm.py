"""Variational Bi-LSTM (Shabanian et al., "Variational Bi-LSTMs", 2017).

    z_t ~ N(prior(h_{t-1})),  c_t ~ N(f(z_t)),  h_t = LSTM([x_{t-1}, z_t, c_t], h_{t-1}),
    x_t ~ heads(g(h_t)),  b_t = LSTM(x_{t-1}, b_{t+1}), backwards,
    q(z_t | x, z_<t) = N(posterior([h_{t-1}, b_t]))

c_t stands for the backward state b_t, which is not there in generation. It is drawn from the same
distribution in training, too, so it costs nothing and the bound is one. Trained besides the bound,
and no part of any reported number: z_t must predict b_t (through f) and h_{t-1} (through a network
of its own). In each step, for one half of them, no gradient of what is random flows into the
recurrent layers ("skip gradient").

No program was released. Ours are: b_t and h_{t-1} as constants of those costs, the probability of
one half, leaky ReLUs of slope 1/3 clipped to [-3, 3], mean and log variance clipped to [-8, 8] as
in Z-forcing, and g with the hidden layer that their networks have. As everywhere here a zero frame
comes before x_1, which is scored, the backward LSTM reads no padding, and the heads are the
observation's.
"""

from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers.base import at_ends
from stcn_tf.layers.mlp import MLP, GaussianForm, GaussianMLP, clipped_leaky_relu
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.recurrent import Recurrent, backwards
from stcn_tf.models.base import Encoded, State
from stcn_tf.models.recurrent import RecurrentLatentModel, Steps, h_of, joined

tfd = tfp.distributions

_FORM = GaussianForm(clipped_leaky_relu, is_separate=False, spread="variance", bound=8.0)


class Read(NamedTuple):
    """What is read of a step."""

    h: tf.Tensor  # [batch, steps, recurrent units], h_t
    h_before: tf.Tensor  # h_{t-1}
    mean: tf.Tensor  # [batch, steps, recurrent units], of c_t
    sigma: tf.Tensor


class VariationalBiLSTM(RecurrentLatentModel):
    """Variational Bi-LSTM.

    Args:
        observation: the observation heads, not built.
        recurrent_units: of both LSTMs.
        latent_size: units of z_t.
        latent_units: of the hidden layer of each Gaussian's network.
        output_units: of the hidden layer of g.
        auxiliary_weight: alpha, of -log p(b_t | z_t) in what is trained.
        forward_weight: beta, of -log p(h_{t-1} | z_t).
        skip_gradient: whether the gradient of what is random flows in half of the steps only.
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
        latent_size: int,
        latent_units: int,
        output_units: int,
        auxiliary_weight: float = 1.0,
        forward_weight: float = 0.0,
        skip_gradient: bool = True,
        unit_forget_bias: bool = True,
        compute_dtype: str = "float32",
        **kwargs,
    ):
        super().__init__(**{"name": "variational_bi_lstm", **kwargs, "dtype": "float32"})
        policy = keras.DTypePolicy(compute_dtype)
        self.latent_sizes = (latent_size,)
        # Of c_t, and one that says whether the gradient flows.
        self.num_other_noise = recurrent_units + 1
        self.auxiliary_weight = auxiliary_weight
        self.forward_weight = forward_weight
        self.skip_gradient = skip_gradient

        def recurrent(name):
            return Recurrent(recurrent_units, "lstm", unit_forget_bias, name=name, dtype=policy)

        def gaussian(units, name):
            return GaussianMLP(units, latent_units, 1, _FORM, name=name, dtype=policy)

        self.recurrence = recurrent("h")
        self.seeing = recurrent("b")
        self.prior_network = gaussian(latent_size, "prior")
        self.posterior_network = gaussian(latent_size, "posterior")
        self.backward_network = gaussian(recurrent_units, "backward")
        self.forward_network = gaussian(recurrent_units, "forward")
        self.output_network = MLP(output_units, 1, clipped_leaky_relu, name="g", dtype=policy)
        self.observation = observation

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        (latent,), units = self.latent_sizes, self.recurrence.units
        for layer, channels in (
            (self.recurrence, self.num_features + latent + units),
            (self.seeing, self.num_features),
            (self.prior_network, units),
            (self.posterior_network, 2 * units),
            (self.backward_network, latent),
            (self.forward_network, latent),
            (self.output_network, units),
            (self.observation, self.output_network.filters),
        ):
            layer.build((None, None, channels))
        self.built = True

    def start(self, batch_size: tf.Tensor | int) -> State:
        """See `SequenceModel.start`: a zero frame comes before the first one."""
        previous = tf.zeros([batch_size, 1, self.num_features])
        return self.started(batch_size, previous, self.recurrence.initial_state(batch_size))

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """See `SequenceModel.encode`: b_t of x_{t-1} and the frames of this block from x_t on."""
        frames = tf.concat([state.encoder, x], axis=1)
        seen = backwards(self.seeing, frames, lengths + 1)[:, :-1]
        return Encoded(Steps(frames[:, :-1], own=(), seen=seen), at_ends(frames, lengths))

    def past(self, encoder):
        """See `RecurrentLatentModel.past`: x_{t-1}."""
        return encoder, encoder

    def known(self, encoder, x):
        """See `RecurrentLatentModel.known`: read with the next step."""
        del encoder
        return (), x

    def prior(self, before, latent):
        """See `RecurrentLatentModel.prior`: of h_{t-1}."""
        del before
        return self.prior_network(h_of(latent))[0]

    def posterior(self, steps, latent, prior):
        """See `RecurrentLatentModel.posterior`: of h_{t-1} and b_t."""
        del prior
        return self.posterior_network(joined(h_of(latent), steps.seen))[0]

    def read_by_gaussians(self, steps, latent, standard):
        """See `RecurrentLatentModel.read_by_gaussians`: without a gradient in half of the steps."""
        if not self.skip_gradient:
            return steps, latent
        flows = standard[..., -1:] > 0.0

        def gated(values):
            return tf.where(flows, values, tf.stop_gradient(values))

        h, cell = latent
        h = gated(h[:, tf.newaxis])[:, 0]
        return steps._replace(seen=gated(steps.seen)), (h, cell)

    def drawn(self, before, z, latent, standard):
        """See `RecurrentLatentModel.drawn`: the LSTM reads x_{t-1}, z_t and c_t."""
        mean, sigma = self.backward_network(z)[0]
        replaced = mean + sigma * standard[..., :-1]
        h, new = self.recurrence(joined(before, z, replaced), latent)
        return Read(h, h_of(latent), mean, sigma), new

    def predicted(self, read):
        """See `RecurrentLatentModel.predicted`: of h_t."""
        return self.observation(self.output_network(read.h)[0])[0]

    def costs(self, steps, z, read, state):
        """See `RecurrentLatentModel.costs`: what z_t says of b_t and of h_{t-1}."""
        del state
        backward = -_log_prob((read.mean, read.sigma), steps.seen)
        forward = -_log_prob(self.forward_network(z)[0], read.h_before)
        return self.auxiliary_weight * backward + self.forward_weight * forward


def _log_prob(gaussian, values: tf.Tensor) -> tf.Tensor:
    """[batch, steps], of values that are constants."""
    values = tf.stop_gradient(tf.cast(values, tf.float32))
    return tf.reduce_sum(tfd.Normal(*gaussian).log_prob(values), axis=-1)
