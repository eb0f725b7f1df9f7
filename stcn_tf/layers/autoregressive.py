"""Observations whose features have a mixture each, and may depend on each other within a step.

Dai et al. ("Re-examination of the role of latent variables in sequence modeling", 2019): features
that are independent given what is read of the past are a handicap, which latents make up for. These
observations order the features of a step instead: binary ones first, then the real ones, as the
pen, dx and dy of strokes, or the samples of a frame of sound.

They take the place of `observation.Observation` in every model: `call` gives what does not depend
on the features of the same step, `log_prob` and `sample` do the rest.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf import noise
from stcn_tf.layers.base import SequenceLayer, State
from stcn_tf.layers.causal_conv import CausalConv
from stcn_tf.layers.observation import MAX_SIGMA, MIN_SIGMA
from stcn_tf.layers.recurrent import Recurrent
from stcn_tf.layers.scan import scan
from stcn_tf.noise import Seed
from stcn_tf.seeds import Stream

tfd = tfp.distributions

_HEADS = ("mean", "log_sigma", "component")


class Mixture(NamedTuple):
    """Of single values, [..., components] float32."""

    mean: tf.Tensor
    log_sigma: tf.Tensor
    logits: tf.Tensor

    @property
    def sigma(self) -> tf.Tensor:
        """exp(.), between the bounds that sigma has everywhere here."""
        low, high = np.log([MIN_SIGMA, MAX_SIGMA]).astype(np.float32)
        return tf.exp(tf.clip_by_value(self.log_sigma, low, high))

    def log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """[...] of values [...]."""
        of_components = tfd.Normal(self.mean, self.sigma).log_prob(x[..., tf.newaxis])
        return tf.reduce_logsumexp(tf.nn.log_softmax(self.logits) + of_components, axis=-1)

    def draw(self, gumbel: tf.Tensor, normal: tf.Tensor) -> tf.Tensor:
        """Draws values; where all noise is 0 the means of the heaviest components.

        Args:
            gumbel: [..., components], noise of the logits.
            normal: [...], noise of the value in its sigmas.
        """
        pick = tf.argmax(self.logits + gumbel, axis=-1)
        of_pick = tf.one_hot(pick, self.logits.shape[-1], on_value=True, off_value=False)
        mean, sigma = (
            tf.reduce_sum(tf.where(of_pick, values, 0.0), axis=-1)
            for values in (self.mean, self.sigma)
        )
        return mean + sigma * normal


class Noise(NamedTuple):
    """What the features of some steps are drawn with, times the temperatures."""

    gumbel: tf.Tensor  # [batch, steps, real features, components]
    normal: tf.Tensor  # [batch, steps, real features]
    logistic: tf.Tensor  # [batch, steps, binary features]


class _Base(SequenceLayer):
    """What the observations of this module share.

    Args:
        num_real: number of real-valued features.
        num_binary: number of binary features.
        num_components: of the mixture of each real feature.
        **kwargs: `name` of `keras.layers.Layer`; everything here is float32.

    Raises:
        ValueError: there is no feature, or no component.
    """

    is_density = True

    def __init__(self, num_real: int, num_binary: int, num_components: int = 1, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if num_real < 0 or num_binary < 0 or num_real + num_binary < 1:
            raise ValueError(f"need a feature; got {num_real} real and {num_binary} binary ones")
        if num_components < 1:
            raise ValueError(f"num_components must be 1 or more, got {num_components}")
        self.num_real = num_real
        self.num_binary = num_binary
        self.num_components = num_components

    @property
    def num_features(self) -> int:
        """Features of one step of x."""
        return self.num_real + self.num_binary

    def sample(
        self,
        parameters: Any,
        seed: Seed,
        places: noise.Places,
        temperature: tf.Tensor | float = 1.0,
        binary_temperature: tf.Tensor | float = 1.0,
    ) -> tf.Tensor:
        """Draws x, feature after feature; see `Observation.sample`."""
        real_seed, discrete_seed = (
            noise.fold_in(seed, stream) for stream in (Stream.REAL_VALUES, Stream.DISCRETE_VALUES)
        )
        of_components = self.num_real * self.num_components
        uniform = noise.uniform(discrete_seed, places, self.num_binary + of_components)
        of_binary, uniform = tf.split(uniform, [self.num_binary, of_components], axis=-1)
        shape = [*tf.unstack(tf.shape(uniform)[:2]), self.num_real, self.num_components]
        drawn = Noise(
            tf.reshape(-temperature * tf.math.log(-tf.math.log(uniform)), shape),
            temperature * noise.standard_normal(real_seed, places, self.num_real),
            binary_temperature * (tf.math.log(of_binary) - tf.math.log1p(-of_binary)),
        )
        return self._drawn(parameters, drawn)[0]

    def share_at_floor(self, parameters: Any) -> tf.Tensor:
        """[batch, steps] of 0: sigmas that are made while a frame is scored are not told of."""
        return tf.zeros(tf.shape(tf.nest.flatten(parameters)[0])[:2])

    def point_estimate(self, parameters: Any, binarize: bool = True) -> tf.Tensor:
        """See `Observation.point_estimate`; features that others depend on stand at theirs."""
        steps = tf.unstack(tf.shape(tf.nest.flatten(parameters)[0])[:2])
        nothing = Noise(
            tf.zeros([*steps, self.num_real, self.num_components]),
            tf.zeros([*steps, self.num_real]),
            tf.zeros([*steps, self.num_binary]),
        )
        x, probability = self._drawn(parameters, nothing)
        if binarize or not self.num_binary:
            return x
        return tf.concat([x[..., : self.num_real], probability], axis=-1)

    def _drawn(self, parameters: Any, drawn: Noise) -> tuple[tf.Tensor, tf.Tensor]:
        """x, [batch, steps, features]; and the probability of 1 of its binary features."""
        raise NotImplementedError

    def get_config(self):
        return {
            **super().get_config(),
            "num_real": self.num_real,
            "num_binary": self.num_binary,
            "num_components": self.num_components,
        }


class FeaturewiseParameters(NamedTuple):
    """Of every step, without what other features of the step add; () where there are none."""

    mixture: Mixture  # [batch, steps, real features, components] each
    binary_logits: tf.Tensor  # [batch, steps, binary features]


@keras.saving.register_keras_serializable("stcn_tf")
class FeaturewiseObservation(_Base):
    """A mixture for each real feature, with weights of its own; a Bernoulli for each binary one.

    Ordered, the heads of a feature read the values of those before it, too (pen -> dx -> dy); else
    features are independent.

    Args:
        num_real: see `_Base`, like the others.
        num_binary: number of binary features.
        num_components: of each mixture.
        is_ordered: whether features depend on those before them.
        **kwargs: `name` of `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_real: int,
        num_binary: int,
        num_components: int = 1,
        is_ordered: bool = False,
        **kwargs,
    ):
        super().__init__(num_real, num_binary, num_components, **kwargs)
        self.is_ordered = is_ordered
        sizes = dict.fromkeys(_HEADS, num_real * num_components) if num_real else {}
        if num_binary:
            sizes["binary"] = num_binary
        self.heads = {
            name: CausalConv(size, name=name, dtype="float32") for name, size in sizes.items()
        }

    def build(self, input_shape):
        for head in self.heads.values():
            head.build(input_shape)
        self.earlier = {}
        if self.is_ordered:
            for name, head in self.heads.items():
                self.earlier[name] = self.add_weight(
                    name=f"earlier_{name}",
                    shape=(self.num_features, head.filters),
                    initializer="zeros",
                )

    def call(
        self, inputs: tf.Tensor, state: State = (), lengths: tf.Tensor | None = None
    ) -> tuple[FeaturewiseParameters, State]:
        """[batch, steps, channels] -> the parameters of every step."""
        del lengths
        inputs = tf.cast(inputs, tf.float32)
        return self._parameters({n: head(inputs, ())[0] for n, head in self.heads.items()}), state

    def log_prob(self, parameters: FeaturewiseParameters, x: tf.Tensor) -> tf.Tensor:
        """See `Observation.log_prob`."""
        if self.is_ordered:
            ordered = self._ordered(x)
            added = {
                name: tf.matmul(ordered, weights * self._mask(name))
                for name, weights in self.earlier.items()
            }
            parameters = tf.nest.map_structure(tf.add, parameters, self._parameters(added))
        real, binary = x[..., : self.num_real], x[..., self.num_real :]
        total = tf.zeros(tf.shape(x)[:-1])
        if self.num_real:
            total += tf.reduce_sum(parameters.mixture.log_prob(real), axis=-1)
        if self.num_binary:
            bernoulli = tfd.Bernoulli(logits=parameters.binary_logits, dtype=tf.float32)
            total += tf.reduce_sum(bernoulli.log_prob(binary), axis=-1)
        return total

    def share_at_floor(self, parameters: FeaturewiseParameters) -> tf.Tensor:
        """See `Observation.share_at_floor`; without what values before a feature add."""
        if not self.num_real:
            return super().share_at_floor(parameters.binary_logits)
        mixture = parameters.mixture
        is_at_floor = tf.cast(mixture.log_sigma <= np.log(MIN_SIGMA), tf.float32)
        share = tf.reduce_sum(tf.nn.softmax(mixture.logits) * is_at_floor, axis=-1)
        return tf.reduce_mean(share, axis=-1)

    def _drawn(self, parameters, drawn):
        values, logits = [], []  # in order: binary ones first
        for index in range(self.num_binary):
            logits.append(
                parameters.binary_logits[..., index] + self._added("binary", index, values)[..., 0]
            )
            noisy = logits[-1] + drawn.logistic[..., index]
            values.append(tf.cast(noisy > 0, tf.float32))
        for index in range(self.num_real):
            mixture = Mixture(
                *(
                    part[..., index, :] + self._added(name, index, values)
                    for name, part in zip(_HEADS, parameters.mixture, strict=True)
                )
            )
            values.append(mixture.draw(drawn.gumbel[..., index, :], drawn.normal[..., index]))
        binary, real = values[: self.num_binary], values[self.num_binary :]
        probability = tf.sigmoid(tf.stack(logits, axis=-1)) if logits else ()
        return tf.stack([*real, *binary], axis=-1), probability

    def _parameters(self, heads: dict[str, tf.Tensor]) -> FeaturewiseParameters:
        """From the outputs of the heads, laid out [feature, component]."""

        def by_feature(flat):
            steps = tf.unstack(tf.shape(flat)[:2])
            return tf.reshape(flat, [*steps, self.num_real, self.num_components])

        mixture = Mixture(*(by_feature(heads[n]) for n in _HEADS)) if self.num_real else ()
        return FeaturewiseParameters(mixture, heads.get("binary", ()))

    def _ordered(self, x: tf.Tensor) -> tf.Tensor:
        return tf.concat([x[..., self.num_real :], x[..., : self.num_real]], axis=-1)

    def _mask(self, name: str) -> np.ndarray:
        """[features in order, outputs of a head]: 1 where an output may read a feature."""
        order = np.arange(self.num_features)
        if name == "binary":
            own = order[: self.num_binary]
        else:
            own = np.repeat(order[self.num_binary :], self.num_components)
        return (order[:, np.newaxis] < own).astype(np.float32)

    def _added(self, name: str, index: int, values: list[tf.Tensor]) -> tf.Tensor | float:
        """What the values before a feature add to the outputs of its head."""
        if not self.is_ordered or not values:
            return tf.zeros([1])
        size = 1 if name == "binary" else self.num_components
        columns = slice(index * size, (index + 1) * size)
        return tf.matmul(tf.stack(values, axis=-1), self.earlier[name][: len(values), columns])

    def get_config(self):
        return {**super().get_config(), "is_ordered": self.is_ordered}


@keras.saving.register_keras_serializable("stcn_tf")
class HierarchicalObservation(_Base):
    """A recurrent layer along the features of a step (their "RNN-hier").

        s_i = LSTM([e(x_{i-1}), context], s_{i-1}),  x_i ~ mixture_i(s_i), with weights of its own

    The context is what is read of the past. x_0 = 0 and s_0 = 0, so that all features know the
    context; in the authors' program the first one depends on nothing but a learned s_0, an
    oversight, which `frame_start` repeats.

    Args:
        num_real: number of real features, one or more.
        num_binary: must be 0.
        num_components: of each mixture.
        units: of the LSTM.
        embedding: units of e, which is linear.
        frame_start: "context", or as released "initial".
        **kwargs: `name` of `keras.layers.Layer`.

    Raises:
        ValueError: there are binary features or no real one, or `frame_start` is neither.
    """

    def __init__(
        self,
        num_real: int,
        num_binary: int,
        num_components: int = 1,
        units: int = 256,
        embedding: int = 64,
        frame_start: str = "context",
        **kwargs,
    ):
        super().__init__(num_real, num_binary, num_components, **kwargs)
        if num_binary or not num_real:
            raise ValueError(f"need real features alone; got {num_real}, {num_binary} binary ones")
        if frame_start not in ("context", "initial"):
            raise ValueError(f"frame_start must be 'context' or 'initial', got {frame_start!r}")
        self.units = units
        self.embedding = embedding
        self.frame_start = frame_start
        self.input_network = CausalConv(embedding, name="e", dtype="float32")
        self.recurrence = Recurrent(units, "lstm", name="lstm", dtype="float32")

    def build(self, input_shape):
        self.input_network.build((None, None, 1))
        self.recurrence.build((None, None, self.embedding + input_shape[-1]))
        shape = (self.num_real, self.num_components)
        self.kernels, self.biases = {}, {}
        for name in _HEADS:
            self.kernels[name] = self.add_weight(
                name=f"{name}_kernel",
                shape=(self.num_real, self.units, self.num_components),
                initializer="glorot_uniform",
            )
            self.biases[name] = self.add_weight(
                name=f"{name}_bias", shape=shape, initializer="zeros"
            )
        self.initial = ()
        if self.frame_start == "initial":
            self.initial = tuple(
                self.add_weight(name=f"initial_{part}", shape=(self.units,), initializer="zeros")
                for part in ("h", "c")
            )

    def call(
        self, inputs: tf.Tensor, state: State = (), lengths: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, State]:
        """[batch, steps, channels], the context, as it is in float32."""
        del lengths
        return tf.cast(inputs, tf.float32), state

    def log_prob(self, parameters: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """See `Observation.log_prob`."""
        steps, context = tf.shape(x)[:2], _rows(parameters)
        values = _rows(x)[..., tf.newaxis]  # [rows, features, 1]
        before = tf.pad(values, [[0, 0], [1, 0], [0, 0]])[:, :-1]
        state = self._start(tf.shape(context)[0])
        if self.frame_start == "context":
            h, _ = self._advance(before, context, state)
        else:
            later, _ = self._advance(before[:, 1:], context, state)
            h = tf.concat([state[0][:, tf.newaxis], later], axis=1)
        mixture = Mixture(
            *(
                tf.einsum("rfu,fuk->rfk", h, self.kernels[name]) + self.biases[name]
                for name in _HEADS
            )
        )
        log_prob = tf.reduce_sum(mixture.log_prob(values[..., 0]), axis=-1)
        return tf.reshape(log_prob, steps)

    def _drawn(self, parameters, drawn):
        context = _rows(parameters)
        rows = tf.shape(context)[0]
        index = tf.tile(tf.range(self.num_real)[tf.newaxis], [rows, 1])
        inputs = {"index": index, "gumbel": _rows(drawn.gumbel), "normal": _rows(drawn.normal)}

        def step(state, inputs):
            recurrent, x = state
            i = inputs["index"][0, 0]
            h, read = self._advance(x[:, tf.newaxis], context, recurrent)
            if self.frame_start == "initial":
                is_first = tf.equal(i, 0)
                h = tf.where(is_first, recurrent[0][:, tf.newaxis], h)
                read = tf.nest.map_structure(
                    lambda new, old: tf.where(is_first, old, new), read, recurrent
                )
            mixture = Mixture(
                *(
                    tf.matmul(h[:, 0], tf.gather(self.kernels[name], i))
                    + tf.gather(self.biases[name], i)
                    for name in _HEADS
                )
            )
            x = mixture.draw(inputs["gumbel"][:, 0], inputs["normal"][:, 0])[:, tf.newaxis]
            return x, (read, x)

        state = (self._start(rows), tf.zeros([rows, 1]))
        x, _ = scan(step, state, inputs)
        return tf.reshape(x, tf.shape(drawn.normal)), ()

    def _start(self, rows: tf.Tensor) -> State:
        if self.frame_start == "initial":
            return tuple(tf.tile(part[tf.newaxis], [rows, 1]) for part in self.initial)
        return self.recurrence.initial_state(rows)

    def _advance(self, before: tf.Tensor, context: tf.Tensor, state: State):
        """[rows, features, 1] and [rows, channels] -> h of each and the state after them."""
        features, _ = self.input_network(before, ())
        return self.recurrence(features, state, constant=context)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "embedding": self.embedding,
            "frame_start": self.frame_start,
        }


def _rows(values: tf.Tensor) -> tf.Tensor:
    """[batch, steps, ...] -> [batch * steps, ...]."""
    shape = tf.concat([[-1], tf.shape(values)[2:]], axis=0)
    rows = tf.reshape(values, shape)
    return tf.ensure_shape(rows, [None, *values.shape[2:]])
