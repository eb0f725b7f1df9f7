"""The laws of every layer and of every model: what the tests of each one start with.

`check_layer` and `check_model` hold an instance against them all. What a layer or a model computes,
its known values and what it refuses, is for its own tests. The numbers of two computations that are
the same but for the shapes of their tensors agree to rounding, which depends on the processor;
where the shapes are the same, too, they agree bit for bit.
"""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers import SequenceLayer
from stcn_tf.models.base import Encoded, SequenceModel, State, Terms

BATCH, TIME = 3, 9
LENGTHS = np.array([TIME, 4, 0], np.int32)
# Blocks that a sequence is cut into: single steps; uneven ones, an empty one among them.
CUTS = ([1] * TIME, [3, 0, 1, TIME - 4])
SEED, OTHER_SEED = (1, 2), (1, 3)
# Methods of Keras that no model has.
REFUSED = ("compile", "fit", "train_on_batch", "evaluate", "test_on_batch")
REFUSED += ("save", "get_config", "export")


def randomize(layer: keras.layers.Layer, seed: int = 0, scale: float = 0.5) -> keras.layers.Layer:
    """Gives every weight, biases too, a value that depends on the seed alone."""
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        variable.assign(scale * rng.standard_normal(variable.shape))
    return layer


def arrays(structure: Any) -> list[np.ndarray]:
    """The tensors of a structure, in float32 what is in less."""
    parts = [tf.convert_to_tensor(part) for part in tf.nest.flatten(structure)]
    return [(tf.cast(p, tf.float32) if p.dtype == tf.bfloat16 else p).numpy() for p in parts]


def assert_same(first: Any, second: Any) -> None:
    """Two structures hold the same numbers, bit for bit."""
    tf.nest.assert_same_structure(first, second)
    for a, b in zip(arrays(first), arrays(second), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(first: Any, second: Any, rtol: float = 1e-4, atol: float = 1e-4) -> None:
    """Two structures hold the same numbers, to rounding, of the same shapes."""
    tf.nest.assert_same_structure(first, second)
    for a, b in zip(arrays(first), arrays(second), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def changed_steps(before: Any, after: Any) -> np.ndarray:
    """Steps at which two structures of tensors [batch, time, ...] differ anywhere."""
    changed = [
        np.any(a != b, axis=tuple(i for i in range(a.ndim) if i != 1))
        for a, b in zip(arrays(before), arrays(after), strict=True)
    ]
    return np.flatnonzero(np.any(changed, axis=0))


def at_steps(structure: Any, start: int, stop: int | None) -> Any:
    """The steps from `start` to `stop` of tensors [batch, time, ...]."""
    return tf.nest.map_structure(lambda v: v[:, start:stop], structure)


def at_rows(structure: Any, rows: Any) -> Any:
    """Some rows of tensors [batch, ...]."""
    return tf.nest.map_structure(lambda v: tf.gather(v, rows), structure)


def joined(blocks: list[Any]) -> Any:
    """Blocks of tensors [batch, steps, ...], one after the other."""
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=1), *blocks)


def bounds_of(cut: list[int]) -> list[tuple[int, int]]:
    """First step of each block, and of the next."""
    ends = np.cumsum(cut)
    return list(zip(ends - cut, ends, strict=True))


def of_block(lengths: np.ndarray | None, start: int, stop: int) -> np.ndarray | None:
    """How many steps of a block belong to sequences of these lengths."""
    if lengths is None:
        return None
    return np.clip(lengths - start, 0, stop - start).astype(np.int32)


def spec_of(structure: Any, num_open: int) -> Any:
    """A signature, with the first sizes left open."""
    return tf.nest.map_structure(
        lambda v: tf.TensorSpec([None] * num_open + list(v.shape[num_open:]), v.dtype), structure
    )


def outputs_of(layer: SequenceLayer, x: Any) -> Any:
    """What a layer makes of whole sequences, [batch, time, channels]."""
    x = tf.convert_to_tensor(x)
    return layer(x, layer.initial_state(x.shape[0]))[0]


# Layers


def check_layer(
    layer: SequenceLayer,
    channels: int,
    *,
    receptive_field: int | None = None,
    dilation: int = 1,
    output_dtype: str | None = None,
) -> None:
    """Holds a layer against its contract (`stcn_tf.layers.base`).

    Args:
        layer: in float32; if it is not built yet it is, with random weights.
        channels: of its input.
        receptive_field: steps of the input that its output sees, its own one included; None: all
            that were before.
        output_dtype: of what it gives under any policy; None: that of the policy.
    """
    if not layer.built:
        layer.build((None, None, channels))
        randomize(layer)
    x = np.random.default_rng(1).standard_normal((BATCH, TIME, channels)).astype(np.float32)
    check_layer_causality(layer, x)
    check_layer_blocks(layer, x)
    check_layer_lengths(layer, x)
    check_layer_rows(layer, x)
    check_layer_gradients(layer, x)
    check_layer_graphs(layer, x)
    check_layer_dtypes(layer, x, output_dtype)
    check_layer_reach(layer, channels, receptive_field, dilation)


def _whole(layer, x, lengths=None):
    return layer(tf.constant(x), layer.initial_state(len(x)), lengths)


def _in_blocks(layer, x, cut, lengths=None):
    state, outputs = layer.initial_state(len(x)), []
    for start, stop in bounds_of(cut):
        of_these = of_block(lengths, start, stop)
        output, state = layer(x[:, start:stop], state, of_these)
        outputs.append(output)
    return joined(outputs), state


def check_layer_causality(layer, x):
    """Perturb a step: nothing before it changes, bit for bit; its own output does."""
    before, _ = _whole(layer, x)
    for step in (0, 5, TIME - 1):
        changed = x.copy()
        changed[:, step] += 1.0
        steps = changed_steps(before, _whole(layer, changed)[0])
        assert len(steps) and steps[0] == step


def check_layer_blocks(layer, x):
    """Cutting into blocks changes neither outputs nor the final state."""
    whole = _whole(layer, x)
    for cut in CUTS:
        assert_close(_in_blocks(layer, x, cut), whole)


def check_layer_lengths(layer, x):
    """The state of each row is at its own end; a row of length 0 keeps its state."""
    outputs, state = _whole(layer, x, LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone, its_state = _whole(layer, x[row : row + 1, :length])
        assert_close(at_rows(state, [row]), its_state)
        assert_close(at_steps(at_rows(outputs, [row]), 0, length), alone)
    for cut in CUTS:
        _, in_blocks = _in_blocks(layer, x, cut, LENGTHS)
        assert_close(in_blocks, state)
    # What padding holds is nothing to the state.
    padded = np.where(np.arange(TIME)[:, np.newaxis] < LENGTHS[:, np.newaxis, np.newaxis], x, 3.0)
    assert_same(_whole(layer, padded.astype(np.float32), LENGTHS)[1], state)
    _, kept = layer(x, state, np.zeros(BATCH, np.int32))
    assert_same(kept, state)
    tf.nest.assert_same_structure(state, layer.initial_state(BATCH))
    for before, after in zip(
        tf.nest.flatten(layer.initial_state(BATCH)), tf.nest.flatten(state), strict=True
    ):
        assert (before.dtype, before.shape) == (after.dtype, after.shape)


def check_layer_rows(layer, x):
    """No row knows of another."""
    changed = x.copy()
    changed[1] += 1.0
    first, second = (_whole(layer, values, LENGTHS) for values in (x, changed))
    assert_same(at_rows(first, [0, 2]), at_rows(second, [0, 2]))
    order = [2, 0, 1]
    assert_close(_whole(layer, x[order]), at_rows(_whole(layer, x), order))


def _gradients(layer, x, cut, lengths=None):
    """Of some function of outputs and final state, for inputs and weights; and its value."""
    rng = np.random.default_rng(5)
    x = tf.convert_to_tensor(x)
    weights = [v.value for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        results = _in_blocks(layer, x, cut, lengths) if cut else _whole(layer, x, lengths)
        value = tf.add_n(
            [
                tf.reduce_sum(tf.cast(part, tf.float32) * rng.standard_normal(part.shape))
                for part in tf.nest.flatten(results)
                if part.dtype.is_floating
            ]
        )
    zero = tf.UnconnectedGradients.ZERO
    return value, tape.gradient(value, [x, *weights], unconnected_gradients=zero)


def check_layer_gradients(layer, x):
    """They are those of numerical differentiation, however the sequence is cut."""
    _, whole = _gradients(layer, x, None)
    for cut in CUTS:
        assert_close(_gradients(layer, x, cut)[1], whole, rtol=1e-3, atol=1e-3)
    rng = np.random.default_rng(6)
    weights = layer.trainable_variables
    kept = [v.numpy() for v in weights]
    for _ in range(3):
        directions = [rng.standard_normal(g.shape).astype(np.float32) for g in whole]
        values = []
        for distance in (1e-3, -1e-3):
            for variable, value, direction in zip(weights, kept, directions[1:], strict=True):
                variable.assign(value + distance * direction)
            values.append(float(_gradients(layer, x + distance * directions[0], None)[0]))
        for variable, value in zip(weights, kept, strict=True):
            variable.assign(value)
        expected = (values[0] - values[1]) / 2e-3
        found = sum(float(np.sum(g * d)) for g, d in zip(whole, directions, strict=True))
        size = np.sqrt(sum(float(np.sum(np.square(g))) for g in whole))
        assert abs(found - expected) < 5e-2 * size, (found, expected, size)


def check_layer_graphs(layer, x):
    """Graphs of sizes that are not known when they are traced give the same, XLA or not."""

    def run(x, lengths):
        with tf.GradientTape() as tape:
            tape.watch(x)
            results = layer(x, layer.initial_state(tf.shape(x)[0]), lengths)
            value = tf.add_n([tf.reduce_sum(r**2) for r in tf.nest.flatten(results)])
        return results, tape.gradient(value, x)

    signature = [tf.TensorSpec([None, None, x.shape[-1]]), tf.TensorSpec([None], tf.int32)]
    expected = run(tf.constant(x), tf.constant(LENGTHS))
    for jit_compile in (False, True):
        graph = tf.function(
            run, input_signature=signature, jit_compile=jit_compile, autograph=False
        )
        (outputs, state), gradient = graph(x, LENGTHS)
        assert_close((outputs, state), expected[0])
        assert_close(gradient, expected[1], rtol=1e-3, atol=1e-3)


def check_layer_dtypes(layer, x, output_dtype=None):
    """Its configuration makes it again, in every precision; weights stay in float32."""
    expected = _whole(layer, x)
    for policy in ("float32", "mixed_bfloat16"):
        again = type(layer).from_config({**layer.get_config(), "dtype": policy})
        assert again.get_config() | {"dtype": None} == layer.get_config() | {"dtype": None}
        again.build((None, None, x.shape[-1]))
        assert [v.path for v in again.weights] == [v.path for v in layer.weights]
        for mine, theirs in zip(again.weights, layer.weights, strict=True):
            assert mine.dtype == "float32"
            mine.assign(theirs)
        result = _whole(again, x)
        wanted = output_dtype or keras.DTypePolicy(policy).compute_dtype
        assert {part.dtype.name for part in tf.nest.flatten(result[0])} == {wanted}
        if policy == "float32":
            assert_same(result, expected)
        else:
            assert_near(result, expected, 2**-4)
            assert_near(_in_blocks(again, x, CUTS[1]), result, 2**-5)


def assert_near(first: Any, second: Any, share: float) -> None:
    """Two structures agree up to a share of the largest number of each tensor."""
    for a, b in zip(arrays(first), arrays(second), strict=True):
        if a.size:
            np.testing.assert_allclose(a, b, rtol=0, atol=share * np.max(np.abs(b)))


def check_layer_reach(layer, channels, receptive_field=None, dilation=1):
    """The gradient of an output reaches the steps that it may see, and each of them."""
    layer = type(layer).from_config(layer.get_config())
    layer.build((None, None, channels))
    for variable in layer.weights:
        # All of one sign, so that no two paths cancel; small, so that nothing saturates; in the
        # open part of every ReLU.
        share = 0.5 / np.prod(variable.shape[:-1][-1:], initial=1)
        variable.assign(tf.fill(variable.shape, 0.1 if len(variable.shape) == 1 else share))
    time = 3 + (receptive_field or TIME)
    x = tf.fill([1, time, channels], 0.1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs, _ = layer(x, layer.initial_state(1))
        last = tf.add_n([tf.reduce_sum(part[:, -1]) for part in tf.nest.flatten(outputs)])
    reached = np.flatnonzero(np.any(tape.gradient(last, x)[0], axis=-1))
    first = time - (receptive_field or time)
    np.testing.assert_array_equal(reached, range(first, time, dilation))


# Models


def check_model(
    make: Callable[..., SequenceModel], *, does_remember: bool = True, is_variant: bool = False
) -> None:
    """Holds a model against its contract (`stcn_tf.models.base`).

    Args:
        make: makes it, built, with the same random weights at each call; takes `compute_dtype`.
        does_remember: whether what it generates depends on the past.
        is_variant: whether it is of a class of which other settings are checked as a whole: then
            without Keras' own methods, without XLA, and without graphs of gradients, which take
            most of the time.
    """
    case = Case(make(), is_variant)
    if not is_variant:
        check_shadowing(case)
    check_terms(case)
    check_padding(case)
    check_lengths(case)
    check_rows(case)
    check_observe_in_blocks(case)
    if case.model.does_smooth:
        check_smoothing(case)
    else:
        check_causality(case)
        check_encode_in_blocks(case)
    check_steps(case, does_remember)
    check_receptive_field(case)
    check_seeds(case)
    if case.model.latent_sizes:
        check_log_weight(case)
    check_one_frame(case)
    check_update(case)
    check_dtypes(case, make(compute_dtype="mixed_bfloat16"))


class Case:
    """A model, frames for it, and its operations as graphs of open sizes, each traced once.

    Attributes:
        model: the model.
        x: [BATCH, TIME, features] float32, zero beyond `LENGTHS`.
        full: [BATCH] int32, as many steps as there are.
        compiled_score: by XLA; None: that is not checked.
    """

    def __init__(self, model: SequenceModel, is_variant: bool = False):
        self.model = model
        self.full = np.full(BATCH, TIME, np.int32)
        self.x = frames(model, BATCH, TIME)
        x, lengths = tf.constant(self.x), tf.constant(self.full)
        state = model.start(BATCH)
        encoded = model.encode(x, lengths, state)
        x, lengths, state, steps, seed, temperature = (
            spec_of(x, 2),
            spec_of(lengths, 1),
            spec_of(state, 1),
            spec_of(encoded.steps, 2),
            tf.TensorSpec([2], tf.int32),
            tf.TensorSpec([], tf.float32),
        )
        encoded = Encoded(steps, state.encoder)
        draw = [seed, temperature]
        self.encode = _graph(model.encode, [x, lengths, state])
        self.observe = _graph(model.observe, [encoded, x, lengths, state, *draw])
        self.step = _graph(self._step, [x, state, *draw])
        self.compiled_score, self.loss_and_gradients = None, self._loss_and_gradients
        if not is_variant:
            self.compiled_score = _graph(model.score, [x, lengths, *draw], jit_compile=True)
            self.loss_and_gradients = _graph(self._loss_and_gradients, [x, lengths, seed])

    def block(self, x, lengths=None, state=None, seed=SEED, temperature=1.0) -> tuple[Terms, State]:
        """A block of steps, encoded and observed."""
        lengths = np.full(len(x), x.shape[1], np.int32) if lengths is None else lengths
        state = self.model.start(len(x)) if state is None else state
        encoded = self.encode(x, lengths, state)
        return self.observe(encoded, x, lengths, state, seed, temperature)

    def predicted(self, x, state=None, seed=SEED, temperature=1.0):
        """Given frames, each predicted before it is given: parameters of each, final state."""
        state = self.model.start(len(x)) if state is None else state
        parameters = []
        for t in range(x.shape[1]):
            one, state = self.step(x[:, t : t + 1], state, seed, temperature)
            parameters.append(one)
        return joined(parameters), state

    def _step(self, x, state, seed, temperature):
        parameters, pending = self.model.predict_next(state, seed, temperature)
        return parameters, self.model.advance(pending, x)

    def _loss_and_gradients(self, x, lengths, seed):
        with tf.GradientTape() as tape:
            terms = self.model.score(tf.convert_to_tensor(x), tf.convert_to_tensor(lengths), seed)
            loss = tf.reduce_sum(terms.auxiliary - terms.log_likelihood) + tf.reduce_sum(terms.kl)
        weights = [v.value for v in self.model.trainable_variables]
        zero = tf.UnconnectedGradients.ZERO
        return loss, tape.gradient(loss, weights, unconnected_gradients=zero)


def _graph(function, signature, jit_compile=False):
    return tf.function(
        function, input_signature=signature, jit_compile=jit_compile, autograph=False
    )


def frames(model: SequenceModel, batch: int, time: int, seed: int = 1) -> np.ndarray:
    """[batch, time, features] float32: normal numbers, bits where a feature is binary."""
    rng = np.random.default_rng(seed)
    real = rng.standard_normal((batch, time, model.observation.num_real))
    bits = rng.integers(0, 2, (batch, time, model.observation.num_binary))
    return np.concatenate([real, bits], axis=-1).astype(np.float32)


def _masked(terms: Terms) -> tuple:
    """All of the terms but the parameters, which are not masked."""
    return terms[:-1]


def check_shadowing(case):
    """Nothing that Keras has is something else here: it works, or says what to use."""
    model = case.model
    allowed = {"build", "call", *REFUSED}
    theirs, plain = set(dir(keras.Model)), keras.Model()
    for kind in type(model).__mro__:
        if kind is keras.Model:
            break
        names = {name for name in vars(kind) if not name.startswith("__")}
        assert not names & theirs - allowed, kind
    names = set(vars(model)) - set(vars(plain))
    assert not names & theirs
    predicted = model.predict(case.x, batch_size=BATCH, verbose=0)
    assert_close(predicted, tf.nest.map_structure(np.asarray, case.block(case.x, seed=(0, 0))[0]))
    # A notebook shows all of its layers.
    page = model._repr_html_()
    assert f"{model.count_params():,} parameters" in page
    assert sum(layer.count_params() for layer in model.layers) == model.count_params()
    assert all(f">{layer.name}</th>" in page for layer in model.layers)
    fields, layers = model.latent_receptive_fields, len(model.latent_sizes)
    assert len(fields) in (0, layers) and sorted(fields) == list(fields)
    assert all(f"z^{layer}" in page for layer in range(1, layers + 1))
    for method in REFUSED:
        with pytest.raises(NotImplementedError, match=f"^{type(model).__name__} has no {method} "):
            getattr(model, method)()
    for copied in (keras.models.clone_model, pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(NotImplementedError, match=" has no get_config of Keras: .*load_run"):
            copied(model)


def check_terms(case):
    """Shapes, dtypes and masks; the divergences are sums of what is not negative."""
    model, given = case.model, case.model.num_given_frames
    terms, state = case.block(case.x, LENGTHS)
    layers = len(model.latent_sizes)
    assert len(model.elbo_kl_weights) == layers
    assert terms.log_likelihood.shape == terms.log_weight.shape == (BATCH, TIME)
    assert terms.auxiliary.shape == (BATCH, TIME)
    assert terms.kl.shape == (BATCH, TIME, layers)
    assert [kl.shape for kl in terms.kl_per_unit] == [
        (BATCH, TIME, units) for units in model.latent_sizes
    ]
    assert {part.dtype for part in tf.nest.flatten(terms)} == {tf.float32}
    mask = np.arange(TIME) < LENGTHS[:, np.newaxis]
    for part in arrays(_masked(terms)):
        assert np.all(np.isfinite(part))
        assert not np.any(part[~mask])
    scored = mask & (np.arange(TIME) >= given)
    np.testing.assert_array_equal(terms.log_likelihood.numpy() != 0, scored)
    np.testing.assert_array_equal(model.num_scored(LENGTHS), scored.sum(axis=1))
    for layer, of_units in enumerate(terms.kl_per_unit):
        assert np.all(of_units > -1e-5)
        np.testing.assert_allclose(
            terms.kl[..., layer], np.sum(of_units, axis=-1), rtol=1e-5, atol=1e-5
        )
    if not layers:
        assert_same(terms.log_weight, terms.log_likelihood)
    log_prob = model.observation.log_prob(terms.parameters, case.x).numpy()
    assert_close(terms.log_likelihood, np.where(scored, log_prob, 0.0).astype(np.float32))
    np.testing.assert_array_equal(state.step, LENGTHS)
    # What is made of them.
    full, _ = case.block(case.x)
    for binarize in (True, False):
        rebuilt = model.reconstruction(full, case.x, binarize)
        expected = model.observation.point_estimate(full.parameters, binarize).numpy()
        expected[:, :given] = case.x[:, :given]
        assert_same(rebuilt, tf.constant(expected))


def check_padding(case):
    """More of it, and what it holds, changes no term and no gradient, XLA or not."""
    terms, state = case.block(case.x, LENGTHS)
    padded = np.pad(case.x, [(0, 0), (0, 2), (0, 0)])
    beyond = np.arange(TIME + 2) >= LENGTHS[:, np.newaxis]
    for filling in (3.0, 0.0):
        padded[beyond] = filling
        more, same_state = case.block(padded, LENGTHS)
        assert_close(same_state, state)
        scored = [(more, 1e-4)]
        if case.compiled_score:
            scored.append((case.compiled_score(padded, LENGTHS, SEED, 1.0), 1e-3))
        for found, tolerance in scored:
            within, rest = (at_steps(_masked(found), *part) for part in ((0, TIME), (TIME, None)))
            assert_close(within, _masked(terms), tolerance, tolerance)
            assert not any(np.any(part) for part in arrays(rest))
    assert_close(
        case.loss_and_gradients(padded, LENGTHS, SEED),
        case.loss_and_gradients(padded[:, :TIME], LENGTHS, SEED),
        rtol=1e-3,
        atol=1e-3,
    )


def check_lengths(case):
    """The state of each row is at its own end; a row without a step keeps its state."""
    terms, state = case.block(case.x, LENGTHS)
    for row, length in enumerate(LENGTHS):
        start = case.model.start(1)._replace(row=tf.constant([row]))
        alone, its_state = case.block(case.x[row : row + 1, :length], None, start)
        assert_close(at_steps(at_rows(_masked(terms), [row]), 0, length), _masked(alone))
        assert_close(at_rows(state, [row]), its_state)
    none = np.zeros(BATCH, np.int32)
    assert_same(case.block(case.x, none, state)[1], state)
    if case.model.does_smooth:
        return
    # Rows that go on from their own ends, with frames of their own.
    again, _ = case.block(case.x, None, state)
    whole, _ = case.block(np.concatenate([case.x[:2, :4], case.x[:2]], axis=1))
    assert_close(at_rows(_masked(again), [1]), at_rows(at_steps(_masked(whole), 4, None), [1]))


def check_rows(case):
    """No row knows of another, and each draws for itself."""
    changed = case.x.copy()
    changed[1] = 1.0 - changed[1]
    before, after = case.block(case.x), case.block(changed)
    assert_same(at_rows(before, [0, 2]), at_rows(after, [0, 2]))
    order = [2, 0, 1]
    start = case.model.start(BATCH)
    again = case.block(case.x[order], None, start._replace(row=tf.constant(order)))
    assert_close(again, at_rows(before, order))
    copies, _ = case.block(np.repeat(case.x[:1], BATCH, axis=0))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        differ = np.all(copies.log_weight[one] != copies.log_weight[other])
        assert differ == bool(case.model.latent_sizes)


def _cut(case, cut, lengths, encoded=None):
    """Terms and state of a sequence in blocks; `encoded` as a whole, or block by block."""
    state, blocks = case.model.start(BATCH), []
    for start, stop in bounds_of(cut):
        x, of_these = case.x[:, start:stop], of_block(lengths, start, stop)
        block = case.encode(x, of_these, state) if encoded is None else None
        if encoded is not None:
            block = Encoded(at_steps(encoded.steps, start, stop), encoded.state)
        terms, state = case.observe(block, x, of_these, state, SEED, 1.0)
        blocks.append(terms)
    return joined(blocks), state


def check_observe_in_blocks(case):
    """What is encoded once can be cut along time."""
    for lengths in (case.full, LENGTHS):
        encoded = case.encode(case.x, lengths, case.model.start(BATCH))
        terms, state = case.observe(encoded, case.x, lengths, case.model.start(BATCH), SEED, 1.0)
        for cut in CUTS:
            in_blocks, its_state = _cut(case, cut, lengths, encoded)
            assert_close(_masked(in_blocks), _masked(terms))
            assert_close(its_state._replace(encoder=()), state._replace(encoder=()))


def check_encode_in_blocks(case):
    """Cutting a sequence into blocks changes no term and not the final state."""
    for lengths in (case.full, LENGTHS):
        terms, state = case.block(case.x, lengths)
        for cut in CUTS:
            in_blocks, its_state = _cut(case, cut, lengths)
            assert_close(_masked(in_blocks), _masked(terms))
            assert_close(its_state, state)


def check_causality(case):
    """Perturb a frame: nothing before it changes, bit for bit.

    Without latents nothing of the prediction of the frame itself does, either.
    """
    before, _ = case.block(case.x)
    for step in (0, 5, TIME - 1):
        changed = case.x.copy()
        changed[:, step:] = 1.0 - changed[:, step:]
        after, state = case.block(changed)
        steps = changed_steps(_masked(before), _masked(after))
        assert steps[0] == max(step, case.model.num_given_frames)
        steps = changed_steps(before.parameters, after.parameters)
        assert np.all(steps >= step + (not case.model.latent_sizes))
        # Nor does the prediction of the frame, of sequences that end before it.
        ends = np.full(BATCH, step, np.int32)
        states = [case.block(x, ends)[1] for x in (case.x, changed)]
        assert_same(*states)


def check_smoothing(case):
    """The posterior sees what comes later in its block, as far as a row's own end, and no more."""
    assert case.model.latent_sizes
    changed = case.x.copy()
    changed[:, TIME - 1] = 1.0 - changed[:, TIME - 1]
    before, after = case.block(case.x)[0], case.block(changed)[0]
    steps = changed_steps(before.kl, after.kl)
    assert len(steps) > 1 and steps[-1] == TIME - 1
    ends = np.full(BATCH, TIME - 1, np.int32)
    assert_same(case.block(case.x, ends)[1], case.block(changed, ends)[1])
    assert_same(*(_masked(case.block(x, ends)[0]) for x in (case.x, changed)))


def check_receptive_field(case):
    """A state holds the frames that later predictions can see, and nothing of earlier ones."""
    reach, before = case.model.receptive_field, 3
    if reach is None:
        return
    x = frames(case.model, BATCH, before + reach)
    _, state = case.block(x)
    start = case.model.start(BATCH)._replace(step=tf.fill([BATCH], before))
    assert_close(case.block(x[:, before:], None, start)[1], state)
    for step, is_seen in ((before - 1, False), (before, True)):
        changed = x.copy()
        changed[:, step] = 1.0 - changed[:, step]
        found = arrays(case.block(changed)[1])
        assert is_seen == any(map(np.any, map(np.not_equal, found, arrays(state))))


def check_steps(case, does_remember=True):
    """Predict and advance: the same states and, without latents, the same predictions."""
    model, given = case.model, case.model.num_given_frames
    terms, state = case.block(case.x)
    parameters, stepped = case.predicted(case.x)
    assert_close(stepped._replace(latent=()), state._replace(latent=()))
    if not model.latent_sizes:
        assert_close(at_steps(parameters, given, None), at_steps(terms.parameters, given, None))
        assert_close(stepped, state)
    # What is not yet known is not read.
    changed = case.x.copy()
    changed[:, 5:] = 1.0 - changed[:, 5:]
    other, _ = case.predicted(changed)
    assert_same(at_steps(other, 0, 6), at_steps(parameters, 0, 6))
    has_changed = len(changed_steps(at_steps(other, 6, 7), at_steps(parameters, 6, 7)))
    assert bool(has_changed) == does_remember
    # A beginning that is observed, at once or step by step, and then gone on from.
    for start in (0, 4):
        if start < given:
            continue
        _, at_once = case.block(case.x[:, :start])
        state = model.start(BATCH)
        for t in range(start):
            _, state = case.block(case.x[:, t : t + 1], None, state)
        rest = [case.predicted(case.x[:, start:], s) for s in (at_once, state)]
        if not model.does_smooth:
            assert_close(*rest)
        if not model.latent_sizes:
            assert_close(rest[0][0], at_steps(terms.parameters, start, None))
    # The state keeps its structure, shapes and dtypes, as loops need it.
    for before, after in zip(
        tf.nest.flatten(model.start(BATCH)), tf.nest.flatten(stepped), strict=True
    ):
        assert (before.dtype, before.shape) == (after.dtype, after.shape)


def check_seeds(case):
    """The same seed, the same draws; another, others; at temperature 0 the seed is nothing."""
    has_latents = bool(case.model.latent_sizes)
    results = [
        (case.block(case.x, seed=seed)[0], case.predicted(case.x, seed=seed)[0])
        for seed in (SEED, SEED, OTHER_SEED)
    ]
    assert_same(results[0], results[1])
    for first, other in zip(results[0], results[2], strict=True):
        assert len(changed_steps(arrays(first), arrays(other))) == (TIME if has_latents else 0)
    certain = [
        (
            case.block(case.x, seed=seed, temperature=0.0),
            case.predicted(case.x, seed=seed, temperature=0.0),
        )
        for seed in (SEED, OTHER_SEED)
    ]
    assert_same(*certain)
    if not case.compiled_score:
        return
    x = np.pad(case.x, [(0, 0), (0, 2), (0, 0)])  # of a shape that is compiled already
    compiled = [case.compiled_score(x, case.full, s, 1.0) for s in (SEED, SEED, OTHER_SEED)]
    assert_same(compiled[0], compiled[1])
    assert_close(_masked(at_steps(compiled[0], 0, TIME)), _masked(results[0][0]), 1e-3, 1e-3)
    assert np.any(compiled[0].log_weight != compiled[2].log_weight) == has_latents


def check_log_weight(case):
    """In the mean over draws it is the log-likelihood minus what the latents cost."""
    copies, lengths = 1000, np.array([TIME, 4], np.int32)
    x, repeated = np.repeat(case.x[:2], copies, axis=0), np.repeat(lengths, copies)
    terms, _ = case.block(x, repeated)
    weights = np.array(case.model.elbo_kl_weights)
    elbo = terms.log_likelihood.numpy() - terms.kl.numpy() @ weights
    excess = np.sum(terms.log_weight.numpy().astype(np.float64) - elbo, axis=1)
    excess = excess.reshape(2, copies)
    error = excess.std(axis=1, ddof=1) / np.sqrt(copies)
    assert np.all(error > 0)
    assert np.all(np.abs(excess.mean(axis=1)) < 4 * error), (excess.mean(axis=1), error)


def check_one_frame(case):
    """Sequences of one frame, and of none."""
    for time in (1, 0):
        terms, state = case.block(case.x[:, :time])
        assert terms.log_likelihood.shape == (BATCH, time)
        assert all(np.all(np.isfinite(part)) for part in arrays(_masked(terms)))
        np.testing.assert_array_equal(state.step, [time] * BATCH)
        rebuilt = case.model.reconstruction(terms, case.x[:, :time])
        assert rebuilt.shape == (BATCH, time, case.model.num_features)
    is_scored = not case.model.num_given_frames
    assert np.any(case.block(case.x[:, :1])[0].log_likelihood) == is_scored


def check_update(case):
    """A small step against the gradient lowers the loss, by as much as the gradient says."""
    weights = case.model.trainable_variables
    kept = [v.numpy() for v in weights]
    loss, gradients = case.loss_and_gradients(case.x, case.full, SEED)
    norm = float(tf.linalg.global_norm(gradients))
    assert np.isfinite(norm) and norm > 0
    expected = 1e-3 * abs(float(loss))  # far more than rounding
    for variable, value, gradient in zip(weights, kept, gradients, strict=True):
        variable.assign(value - expected / norm**2 * gradient.numpy())
    lower, _ = case.loss_and_gradients(case.x, case.full, SEED)
    for variable, value in zip(weights, kept, strict=True):
        variable.assign(value)
    assert 0.5 * expected < float(loss - lower) < 1.5 * expected


def check_dtypes(case, rounded):
    """Weights, distributions and terms are in float32, whatever convolutions compute in."""
    weights = (*case.model.trainable_variables, *rounded.trainable_variables)
    assert {v.dtype for v in weights} == {"float32"}
    exact, _ = case.block(case.x, LENGTHS, temperature=0.0)
    start = rounded.start(BATCH)
    encoded = rounded.encode(tf.constant(case.x), tf.constant(LENGTHS), start)
    terms, state = rounded.observe(
        encoded, tf.constant(case.x), tf.constant(LENGTHS), start, SEED, 0.0
    )
    assert {part.dtype for part in tf.nest.flatten(terms)} == {tf.float32}
    assert [s.dtype for s in tf.nest.flatten(start)] == [s.dtype for s in tf.nest.flatten(state)]
    # Some 15 layers in a row, each good to 2^-9, come to a few percent.
    # Which numbers it meets worst depends on the kernels, and a mixture makes much of a little.
    for a, b in zip(arrays(_masked(terms)), arrays(_masked(exact)), strict=True):
        assert np.sum(np.abs(a - b)) <= 0.1 * np.sum(np.abs(b))
    assert np.any(terms.log_likelihood != exact.log_likelihood)
    stepped, state = rounded.predict_next(state, SEED, 0.0)
    assert {part.dtype for part in tf.nest.flatten(stepped)} == {tf.float32}
