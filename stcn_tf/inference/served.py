"""What is served of a trained model, in raw units: sequences, single steps, scores.

The same functions are those of a SavedModel (`stcn_tf.inference.saved_model`), where TensorFlow is
all they need, and of a live model. Their states are flat: named tensors, each with an axis of
sequences first, which a client keeps, sends and gives back. Rows do not depend on one another, so
that those of several clients can be joined along that axis, computed together and cut apart again.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from stcn_tf import noise
from stcn_tf.bounds import sum_over_time
from stcn_tf.data.card import DatasetCard
from stcn_tf.inference.generation import Generator, Temperatures, assertions, of_each
from stcn_tf.models.base import SequenceModel, State

_SEED = "seed"  # of each sequence, beside what the model's own state holds
ServedState = dict[str, tf.Tensor]


class ServedModel(tf.Module):
    """Functions of a trained model, each with a signature of its own; all arguments are given.

    x: float32 [num, steps, features], raw units, as the card says; binary features are 0 or 1.
    num: int32, number of sequences, 1 or more. length: int32, steps, 0 or more; count: 1 or more.
    lengths: int32 [num], how many steps of each row of x are its own; the others are padding.
    seed: int32 [2]; the same seed gives the same numbers, each row its own.
    temperature: float32, of the real-valued features: divides the logits of the mixture and
        multiplies the sigmas; 0: the mean of the heaviest component.
    latent_temperature: float32, multiplies the noise of the latents; 0: their means.
    binary_temperature: float32, divides the logits of binary features; 0: the likelier value.
    state: a flat dict of tensors [num, ...]; `state_spec` has their names, shapes and types.

    Functions:

        sample(num, length, seed, temperature, latent_temperature, binary_temperature)
            -> float32 [num, length, features], from the first step on.
        continue_from(x, lengths, length, seed, temperatures as above)
            -> float32 [num, steps + length, features], each from its own end on; zeros behind.
        start(num, seed) -> the state before the first step that the model predicts: of one that is
            given its first frame, after that, the mean of the records. (Where another is known,
            `begin` with it.)
        begin(x, lengths, seed, latent_temperature) -> the state after beginnings.
        step(state, temperatures as above, but [num] each)
            -> the state after the next step, and in it "x", float32 [num, features].
        steps(state, count, temperatures as above, but [num] each)
            -> the same after `count` steps, "x" float32 [num, count, features].
        observe(state, x, latent_temperature), x float32 [num, features], latent_temperature [num]
            -> the state after a step that is given in the place of a drawn one. Of a posterior that
            sees the future the same as a beginning of one step; else as `begin`, to rounding.
        reconstruct(x, lengths, seed, latent_temperature)
            -> "x", what stands for p(x_t | z_t) with latents from the posterior, and
            "probabilities": the same with the probability of 1 for binary features.
        score(x, lengths, seed, latent_temperature)
            -> in nats, with one draw of the latents from the posterior: "log_likelihood"
            [num, steps], of normalised values; "log_likelihood_raw", of raw ones; "kl" [num, steps,
            layers], lowest first; "elbo" and "elbo_raw" [num], lower bounds on log p(x), without
            latents log p(x) itself.
        card() -> the dataset card as JSON text: the features, their units and more.

    Images end with their last pixel: of a sequence no more steps are accepted, given and drawn.

    What is not accepted fails with `tf.errors.InvalidArgumentError`, or with `TypeError` where its
    type, number of axes or name is not that of the signature.

    Args:
        model: built.
        card: of the records that it was trained on.
        jit_compile: compile the steps of `sample` and `continue_from` with XLA, once for each
            number of sequences; None: where it pays, see `Generator`.
        portable: made of operations that LiteRT has, which leaves out float64: values are those of
            others to rounding.

    Attributes:
        state_spec: name -> `tf.TensorSpec` of the parts of a state.
    """

    def __init__(
        self,
        model: SequenceModel,
        card: DatasetCard,
        jit_compile: bool | None = None,
        portable: bool = False,
    ):
        super().__init__(name="served_model")
        # Variables that no attribute of the module reaches would not be saved.
        self._vars = [variable.value for variable in model.weights]
        self._card = card
        self._wide = tf.float32 if portable else tf.float64
        modality = card.modality
        self._most_steps = modality.height * modality.width or None
        self._generator = Generator(model, jit_compile)
        whole = _named(self._generator.state_spec)
        whole[_SEED] = tf.TensorSpec([None, 2], tf.int32)
        self.state_spec = {n: tf.TensorSpec(s.shape, s.dtype, n) for n, s in whole.items()}

        def scalar(name, dtype=tf.int32):
            return tf.TensorSpec([], dtype, name)

        seed = tf.TensorSpec([2], tf.int32, "seed")
        # Whatever the width, so that another one is refused in words.
        x = tf.TensorSpec([None, None, None], tf.float32, "x")
        given = [x, tf.TensorSpec([None], tf.int32, "lengths")]
        of_all = [scalar(name, tf.float32) for name in _TEMPERATURES]
        of_each = [tf.TensorSpec([None], tf.float32, name) for name in _TEMPERATURES]
        once = [*given, seed, of_all[1]]

        def served(function: Callable, signature: list[Any]) -> Any:
            @functools.wraps(function)
            def traced(*args, **kwargs):
                with noise.portable(portable):
                    return function(*args, **kwargs)

            return ServedFunction(traced, signature)

        text = card.to_json()
        self.sample = served(self._sample, [scalar("num"), scalar("length"), seed, *of_all])
        self.continue_from = served(self._continue_from, [*given, scalar("length"), seed, *of_all])
        self.start = served(self._start, [scalar("num"), seed])
        self.begin = served(self._begin, once)
        self.step = served(self._step, [self.state_spec, *of_each])
        self.steps = served(self._steps, [self.state_spec, scalar("count"), *of_each])
        frame = tf.TensorSpec([None, None], tf.float32, "x")
        self.observe = served(self._observe, [self.state_spec, frame, of_each[1]])
        self.reconstruct = served(self._reconstruct, once)
        self.score = served(self._score, once)
        self.card = served(lambda: tf.constant(text), [])

    def _sample(
        self,
        num,
        length,
        seed,
        temperature,
        latent_temperature,
        binary_temperature,
    ):
        with tf.control_dependencies(assertions(num=num)):
            num = tf.identity(num)
        nothing, lengths = tf.zeros([num, 0, self._card.num_features]), tf.zeros([num], tf.int32)
        temperatures = (temperature, latent_temperature, binary_temperature)
        return self._continue_from(nothing, lengths, length, seed, *temperatures)

    def _continue_from(
        self,
        x,
        lengths,
        length,
        seed,
        temperature,
        latent_temperature,
        binary_temperature,
    ):
        temperatures = (temperature, latent_temperature, binary_temperature)
        named = dict(zip(_TEMPERATURES, temperatures, strict=True))
        x, lengths, normalized = self._given(x, lengths, length=length, **named)
        with tf.control_dependencies([self._is_within(lengths, length)]):
            length = tf.identity(length)
        drawn = self._generator.in_graph(
            normalized, length, seed, Temperatures(*temperatures), lengths
        )
        # Back from normalised values, what was given could be off by rounding.
        is_given = tf.sequence_mask(lengths, tf.shape(drawn)[1])[..., tf.newaxis]
        is_within = tf.sequence_mask(lengths + length, tf.shape(drawn)[1])[..., tf.newaxis]
        x = tf.pad(x, [[0, 0], [0, length], [0, 0]])
        return tf.where(is_given, x, tf.where(is_within, self._raw(drawn), 0.0))

    def _start(self, num, seed):
        with tf.control_dependencies(assertions(num=num)):
            num = tf.identity(num)
        features = self._card.num_features
        return self._state_after(tf.zeros([num, 0, features]), tf.zeros([num], tf.int32), seed, 1.0)

    def _begin(self, x, lengths, seed, latent_temperature):
        _, lengths, x = self._given(x, lengths, latent_temperature=latent_temperature)
        return self._state_after(x, lengths, seed, latent_temperature)

    def _state_after(self, x, lengths, seed, latent_temperature):
        num = tf.shape(x)[0]
        draws = of_each(num, seed, Temperatures(latent=latent_temperature))
        state = self._generator.begin(x, lengths, tf.range(num), *draws)
        return {**_named(state), _SEED: draws[0]}

    def _step(self, state, temperature, latent_temperature, binary_temperature):
        temperatures = Temperatures(temperature, latent_temperature, binary_temperature)
        own, seeds = self._own(state, temperatures, 1)
        frame, after = self._generator.step(own, seeds, temperatures)
        return {**_named(after), _SEED: seeds, "x": self._raw(frame)}

    def _steps(self, state, count, temperature, latent_temperature, binary_temperature):
        temperatures = Temperatures(temperature, latent_temperature, binary_temperature)
        with tf.control_dependencies(assertions(count=count)):
            count = tf.identity(count)
        own, seeds = self._own(state, temperatures, count)
        frames, after = self._generator.steps(own, seeds, temperatures, count)
        return {**_named(after), _SEED: seeds, "x": self._raw(frames)}

    def _observe(self, state, x, latent_temperature):
        num = tf.shape(state[_SEED])[0]
        ones = tf.ones_like(latent_temperature)
        own, seeds = self._own(state, Temperatures(ones, latent_temperature, ones), 1)
        with tf.control_dependencies(
            [_require(tf.shape(x)[0] == num, "x: accepted: one frame for each row of the state")]
        ):
            x, lengths, normalized = self._given(x[:, tf.newaxis], tf.ones([num], tf.int32))
        model = self._generator.model
        encoded = model.encode(normalized, lengths, own)
        latent = latent_temperature[:, tf.newaxis, tf.newaxis]
        _, after = model.observe(encoded, normalized, lengths, own, seeds, latent)
        return {**_named(after), _SEED: seeds}

    def _own(
        self, state: ServedState, temperatures: Temperatures, count: int | tf.Tensor
    ) -> tuple[State, tf.Tensor]:
        """Checks what steps go on from; gives the model's own state, and the seeds."""
        num = tf.shape(state[_SEED])[0]
        # A part of one row would be taken for one of every row in silence.
        sizes = [tf.shape(part)[0] for part in (*state.values(), *temperatures)]
        operations = [
            *assertions(num=num),
            _require(tf.stack(sizes) == num, "state, temperatures: accepted: all of as many rows"),
        ]
        for name, values in zip(_TEMPERATURES, temperatures, strict=True):
            is_accepted = tf.math.is_finite(values) & (values >= 0.0)
            operations.append(_require(is_accepted, f"{name}: accepted: finite, 0 or more"))
        # Not each by itself, which would take longer; layers may make numbers of what is none.
        total = tf.add_n([tf.reduce_sum(p) for p in state.values() if p.dtype.is_floating])
        operations.append(_require(tf.math.is_finite(total), "state: accepted: finite numbers"))
        with tf.control_dependencies(operations):
            state = {name: tf.identity(part) for name, part in state.items()}
        own = _restored(self._generator.state_spec, state)
        with tf.control_dependencies([self._is_within(own.step, count)]):
            return own._replace(step=tf.identity(own.step)), state[_SEED]

    def _reconstruct(self, x, lengths, seed, latent_temperature):
        _, lengths, x = self._given(x, lengths, latent_temperature=latent_temperature)
        model = self._generator.model
        terms = model.score(x, lengths, seed, latent_temperature)
        is_own = tf.sequence_mask(lengths, tf.shape(x)[1])[..., tf.newaxis]
        rebuilt = {}
        for name, binarize in (("x", True), ("probabilities", False)):
            values = self._raw(model.reconstruction(terms, x, binarize))
            rebuilt[name] = tf.where(is_own, values, 0.0)
        return rebuilt

    def _score(self, x, lengths, seed, latent_temperature):
        _, lengths, x = self._given(x, lengths, latent_temperature=latent_temperature)
        model = self._generator.model
        terms = model.score(x, lengths, seed, latent_temperature)
        # log p of raw values: of each scored step less the logs of the standard deviations.
        logs = sum(math.log(std) for std in self._card.normalization.std)
        steps = tf.range(tf.shape(x)[1])[tf.newaxis]
        is_scored = (steps >= model.num_given_frames) & (steps < lengths[:, tf.newaxis])
        elbo = sum_over_time(terms).elbo(model)
        num_scored = tf.cast(model.num_scored(lengths), tf.float32)
        return {
            "log_likelihood": terms.log_likelihood,
            "log_likelihood_raw": tf.where(is_scored, terms.log_likelihood - logs, 0.0),
            "kl": terms.kl,
            "elbo": elbo,
            "elbo_raw": elbo - logs * num_scored,
        }

    def _given(self, x, lengths, **numbers):
        """Checks given sequences; gives them, zero where padded, their lengths, and normalised."""
        card = self._card
        num, steps, width = tf.unstack(tf.shape(x))
        names = ", ".join(feature.name for feature in card.features[:4])
        names += ", ..." if card.num_features > 4 else ""
        shape = f"[num, steps, {card.num_features}]: {names}"
        # Of which the first that fails is told, and then the values are looked at.
        with tf.control_dependencies(
            [
                _require(width == card.num_features, f"x: accepted: {shape}"),
                *assertions(num=num, **numbers),
                _require(tf.shape(lengths)[0] == num, "lengths: accepted: one for each row of x"),
            ]
        ):
            x, lengths = tf.identity(x), tf.identity(lengths)
        x.set_shape([None, None, card.num_features])
        is_own = tf.expand_dims(tf.sequence_mask(lengths, steps), axis=-1)
        x = tf.where(is_own, x, 0.0)
        binary = x[..., card.num_real :]
        with tf.control_dependencies(
            [
                _require(
                    (lengths >= 0) & (lengths <= steps), "lengths: accepted: 0 to the steps of x"
                ),
                self._is_within(lengths, 0),
                _require(tf.math.is_finite(x), "x: accepted: finite numbers"),
                _require((binary == 0.0) | (binary == 1.0), "x: accepted: 0 or 1 where binary"),
            ]
        ):
            x, lengths = tf.identity(x), tf.identity(lengths)
        # As `Normalization.normalize` computes it.
        normalized = tf.cast((tf.cast(x, self._wide) - self._mean) / self._std, tf.float32)
        return x, lengths, tf.where(is_own, normalized, 0.0)

    def _is_within(self, before: tf.Tensor, more: int | tf.Tensor) -> tf.Operation:
        """Checks that sequences with so many more steps are none that no record can have."""
        if self._most_steps is None:
            return tf.no_op()
        # Not their sum, which has no place in int32.
        return _require(
            before <= self._most_steps - more,
            f"steps of a sequence: accepted: {self._most_steps}, those of an image",
        )

    def _raw(self, x: tf.Tensor) -> tf.Tensor:
        # As `Normalization.denormalize` computes it.
        return tf.cast(tf.cast(x, self._wide) * self._std + self._mean, tf.float32)

    @property
    def _mean(self) -> tf.Tensor:
        return tf.constant(self._card.normalization.mean, self._wide)

    @property
    def _std(self) -> tf.Tensor:
        return tf.constant(self._card.normalization.std, self._wide)


class ServedFunction:
    """A function that is traced once, when it is first needed.

    Not called as a `tf.function`, of which TensorFlow 2.21 lets no other thread call one that has
    refused its arguments with a `TypeError`: the lock that it takes before is not given back.

    Args:
        function: of tensors.
        input_signature: of its arguments.
    """

    def __init__(self, function: Callable, input_signature: list[Any]):
        self.input_signature = input_signature
        self._function = tf.function(function, input_signature=input_signature, autograph=False)

    @functools.cached_property
    def concrete(self) -> Any:
        """What has been traced, which a SavedModel holds."""
        return self._function.get_concrete_function()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it, with numbers, arrays or tensors."""
        return self.concrete(*args, **kwargs)


_TEMPERATURES = ("temperature", "latent_temperature", "binary_temperature")


def _require(holds: tf.Tensor, message: str) -> tf.Operation:
    return tf.debugging.Assert(tf.reduce_all(holds), [message])


def _named(structure: Any, name: str = "") -> ServedState:
    """The tensors of nested tuples and dicts by their places, such as encoder_stack_0."""
    if hasattr(structure, "_asdict"):
        structure = structure._asdict()
    if isinstance(structure, (tuple, list)):
        structure = {str(index): part for index, part in enumerate(structure)}
    if not isinstance(structure, dict):
        return {name: structure}
    flat = {}
    for key, part in structure.items():
        flat |= _named(part, f"{name}_{key}" if name else key)
    return flat


def _restored(structure: State, state: ServedState) -> State:
    """What `_named` has made flat, in the form of `structure`."""
    names = _named(tf.nest.pack_sequence_as(structure, range(len(tf.nest.flatten(structure)))))
    flat = [state[name] for name, _ in sorted(names.items(), key=lambda item: item[1])]
    return tf.nest.pack_sequence_as(structure, flat)
