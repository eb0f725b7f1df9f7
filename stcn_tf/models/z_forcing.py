"""Z-forcing (Goyal et al., "Z-forcing: training stochastic recurrent networks", 2017).

    z_t ~ N(prior(h_{t-1})),  h_t = LSTM([W z_t, e(x_{t-1})], h_{t-1}),  x_t ~ heads(h_t),
    b_t = LSTM(e(x_t), b_{t+1}), backwards,  q(z_t | x, z_<t) = N(posterior([h_{t-1}, b_t]))

Trained besides the bound, and no part of any reported number: z_t with h_{t-1} must predict b_t
(which is a constant there, though z_t brings a gradient to it), and b_t the frame x_{t-1} before
it. h_{t-1} has read x_{t-2} last, so the prior has not seen x_{t-1}: so it is in the paper and in
the authors' PyTorch program; their Theano program lets prior and posterior read e(x_{t-1}), too
(`prior_sees_last_frame`).

e and W are linear. Networks of Gaussians have one hidden layer of leaky ReLUs (slope 1/3, clipped
to [-3, 3]); what they say of mean and log variance is clipped to [-8, 8]. As everywhere here a zero
frame comes before x_1, which is scored (theirs gives x_1), the backward LSTM reads no padding, and
the heads are the observation's. Weights begin as Keras draws them; the forget gates' bias at 0.
"""

from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf.layers.base import at_ends
from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.layers.mlp import GaussianForm, GaussianMLP, clipped_leaky_relu
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.recurrent import Recurrent, backwards
from stcn_tf.models.base import Encoded, State
from stcn_tf.models.recurrent import RecurrentLatentModel, Steps, h_of, joined

tfd = tfp.distributions

_FORM = GaussianForm(clipped_leaky_relu, is_separate=False, spread="variance", bound=8.0)
_LINEAR_FORM = GaussianForm("linear", is_separate=False, spread="variance")


class Before(NamedTuple):
    """What is known before x_t."""

    frame: tf.Tensor  # [batch, steps, features], x_{t-1}
    features: tf.Tensor  # [batch, steps, input units], e(x_{t-1})


class Read(NamedTuple):
    """What is read of a step."""

    h: tf.Tensor  # [batch, steps, recurrent units], h_t
    h_before: tf.Tensor  # h_{t-1}


class ZForcing(RecurrentLatentModel):
    """Z-forcing.

    Args:
        observation: the observation heads, not built.
        recurrent_units: of both LSTMs.
        input_units: of e.
        latent_size: units of z_t.
        latent_units: of the hidden layer of each Gaussian's network, and of W.
        auxiliary_weight: of -log p(b_t | z_t, h_{t-1}) in what is trained.
        backward_weight: of -log p(x_{t-1} | b_t).
        prior_sees_last_frame: whether prior and posterior read e(x_{t-1}).
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
        auxiliary_weight: float = 0.015,
        backward_weight: float = 0.015,
        prior_sees_last_frame: bool = False,
        compute_dtype: str = "float32",
        **kwargs,
    ):
        super().__init__(**{"name": "z_forcing", **kwargs, "dtype": "float32"})
        policy = keras.DTypePolicy(compute_dtype)
        self.latent_sizes = (latent_size,)
        self.auxiliary_weight = auxiliary_weight
        self.backward_weight = backward_weight
        self.prior_sees_last_frame = prior_sees_last_frame

        def recurrent(name):
            return Recurrent(
                recurrent_units, "lstm", unit_forget_bias=False, name=name, dtype=policy
            )

        def gaussian(units, name):
            return GaussianMLP(units, latent_units, 1, _FORM, name=name, dtype=policy)

        self.input_network = CausalConv(input_units, name="e", dtype=policy)
        self.latent_network = CausalConv(latent_units, name="w", dtype=policy)
        self.recurrence = recurrent("h")
        self.seeing = recurrent("b")
        self.prior_network = gaussian(latent_size, "prior")
        self.posterior_network = gaussian(latent_size, "posterior")
        self.auxiliary_network = gaussian(recurrent_units, "auxiliary")
        # Speech, ink or pixels: a Gaussian of all features, as it is only trained.
        self.backward_head = GaussianMLP(
            observation.num_features, 1, 0, _LINEAR_FORM, name="backward", dtype="float32"
        )
        self.observation = observation

    def build(self, input_shape=None):
        """Makes the weights. The shape is known from the constructor and may be left out."""
        (latent,), units = self.latent_sizes, self.recurrence.units
        of_x = self.input_network.filters
        last = of_x if self.prior_sees_last_frame else 0
        for layer, channels in (
            (self.input_network, self.num_features),
            (self.latent_network, latent),
            (self.recurrence, self.latent_network.filters + of_x),
            (self.seeing, of_x),
            (self.prior_network, units + last),
            (self.posterior_network, 2 * units + last),
            (self.auxiliary_network, units + latent),
            (self.backward_head, units),
            (self.observation, units),
        ):
            layer.build((None, None, channels))
        self.built = True

    def start(self, batch_size: tf.Tensor | int) -> State:
        """See `SequenceModel.start`: a zero frame comes before the first one."""
        previous = tf.zeros([batch_size, 1, self.num_features])
        return self.started(batch_size, previous, self.recurrence.initial_state(batch_size))

    def encode(self, x: tf.Tensor, lengths: tf.Tensor, state: State) -> Encoded:
        """See `SequenceModel.encode`: e, and b_t of the frames of this block."""
        frames = tf.concat([state.encoder, x], axis=1)
        features, _ = self.input_network(frames, ())
        seen = backwards(self.seeing, features[:, 1:], lengths)
        before = Before(frames[:, :-1], features[:, :-1])
        return Encoded(Steps(before, own=(), seen=seen), at_ends(frames, lengths))

    def past(self, encoder):
        """See `RecurrentLatentModel.past`: x_{t-1} and e of it."""
        return Before(encoder, self.input_network(encoder, ())[0]), encoder

    def known(self, encoder, x):
        """See `RecurrentLatentModel.known`: read with the next step."""
        del encoder
        return (), x

    def prior(self, before, latent):
        """See `RecurrentLatentModel.prior`: of h_{t-1}."""
        return self.prior_network(joined(h_of(latent), *self._last(before)))[0]

    def posterior(self, steps, latent, prior):
        """See `RecurrentLatentModel.posterior`: of h_{t-1} and b_t."""
        del prior
        read = joined(h_of(latent), steps.seen, *self._last(steps.before))
        return self.posterior_network(read)[0]

    def drawn(self, before, z, latent, standard):
        """See `RecurrentLatentModel.drawn`: the LSTM reads z_t and x_{t-1}."""
        del standard
        inputs = joined(self.latent_network(z, ())[0], before.features)
        h, new = self.recurrence(inputs, latent)
        return Read(h, h_of(latent)), new

    def predicted(self, read):
        """See `RecurrentLatentModel.predicted`: of h_t."""
        return self.observation(read.h)[0]

    def costs(self, steps, z, read, state):
        """See `RecurrentLatentModel.costs`: what z_t says of b_t, and b_t of x_{t-1}."""
        mean, sigma = self.auxiliary_network(joined(read.h_before, z))[0]
        seen = tf.stop_gradient(tf.cast(steps.seen, tf.float32))
        of_latent = tfd.Normal(tf.tanh(mean), sigma).log_prob(seen)
        of_frame = tfd.Normal(*self.backward_head(steps.seen)[0]).log_prob(steps.before.frame)
        # No frame is before the first one.
        has_frame = self.places_of(state, z).steps > 0
        of_frame = tf.where(has_frame, tf.reduce_sum(of_frame, axis=-1), 0.0)
        of_latent = tf.reduce_sum(of_latent, axis=-1)
        return -self.auxiliary_weight * of_latent - self.backward_weight * of_frame

    def _last(self, before: Before) -> tuple[tf.Tensor, ...]:
        return (before.features,) if self.prior_sees_last_frame else ()
