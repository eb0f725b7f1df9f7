"""The laws of a layer and of a model (`stcn_tf.layers.base`, `stcn_tf.models.base`).

A new model's test file calls `check_model` and adds what is its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stcn_tf import bounds
from stcn_tf.layers.base import SequenceLayer
from stcn_tf.models.base import Encoded, SequenceModel, State, Terms

BATCH, STEPS = 3, 11
LENGTHS = np.array([STEPS, 7, 1], np.int32)
# Of a sequence of STEPS steps; some blocks are empty, some of one step.
CUTS = ((4, 4, 5, 10), tuple(range(1, STEPS)))

# What keras.Model asks subclasses to define, and what it has no use for itself.
_OVERRIDDEN = {"build", "call", "__init__", "__module__", "__doc__", "__annotations__"}
_OVERRIDDEN |= {"__qualname__", "__firstlineno__", "__static_attributes__", "__parameters__"}


def assert_close(first: Any, second: Any, rtol: float = 1e-4, atol: float = 2e-5) -> None:
    """Two structures of tensors hold the same, up to the rounding of float32."""
    first, second = tf.nest.flatten(first), tf.nest.flatten(second)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        a, b = np.asarray(tf.cast(a, tf.float64)), np.asarray(tf.cast(b, tf.float64))
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def joined(blocks: Sequence[Any]) -> Any:
    """Structures of [batch, steps, ...], put together along time."""
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=1), *blocks)


def _blocks(cuts: Sequence[int]) -> list[tuple[int, int]]:
    edges = [0, *cuts, STEPS]
    return list(zip(edges, edges[1:], strict=False))


# Layers


def check_layer(
    make: Callable[..., SequenceLayer], channels: int, memory: int | None = None
) -> None:
    """The laws of a layer.

    Args:
        make: called with `dtype`, gives the layer, built, with weights that depend on nothing else.
        channels: of its inputs.
        memory: steps before t that its outputs at t read, if all of them do; None: not checked.
    """
    layer = make(dtype="float32")
    x = np.random.default_rng(1).standard_normal((BATCH, STEPS, channels)).astype(np.float32)
    outputs, end = layer(x, layer.initial_state(BATCH))
    _check_causality(layer, x, outputs, memory)
    _check_blocks(layer, x, outputs, end)
    _check_ends(layer, x)
    _check_rows(layer, x, outputs)
    _check_gradients(layer, x)
    _check_graphs(layer, x, outputs, end)
    _check_precision(layer, make(dtype="mixed_bfloat16"), x, outputs)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def _check_causality(layer, x, outputs, memory) -> None:
    step = 5
    changed = x.copy()
    changed[:, step] += 1.0
    after, _ = layer(changed, layer.initial_state(BATCH))
    steps = set()
    for a, b in zip(tf.nest.flatten(outputs), tf.nest.flatten(after), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_array_equal(a[:, :step], b[:, :step])
        steps |= set(np.flatnonzero(np.any(a != b, axis=tuple({0, *range(2, a.ndim)}))))
    assert step in steps
    if memory is not None:
        assert max(steps) == min(step + memory, STEPS - 1)


def _check_blocks(layer, x, outputs, end) -> None:
    for cuts in CUTS:
        state, blocks = layer.initial_state(BATCH), []
        for first, last in _blocks(cuts):
            block, state = layer(x[:, first:last], state)
            blocks.append(block)
        assert_close(joined(blocks), outputs)
        assert_close(state, end)


def _check_ends(layer, x) -> None:
    """Each row's state is that after its own last step; one of no steps keeps its own."""
    _, begun = layer(x[:, :3], layer.initial_state(BATCH))
    lengths = np.array([STEPS - 3, 2, 0], np.int32)
    padded = np.where(np.arange(STEPS - 3)[:, np.newaxis] < lengths[:, None, None], x[:, 3:], 9.0)
    _, state = layer(padded.astype(np.float32), begun, lengths)
    for row, length in enumerate(lengths):
        alone = tf.nest.map_structure(lambda s, row=row: s[row : row + 1], begun)
        if length:
            _, alone = layer(x[row : row + 1, 3 : 3 + length], alone)
        assert_close(tf.nest.map_structure(lambda s, row=row: s[row : row + 1], state), alone)


def _check_rows(layer, x, outputs) -> None:
    order = np.array([2, 0, 1])
    _, state = layer(x[:, :4], layer.initial_state(BATCH))
    state = tf.nest.map_structure(lambda s: tf.gather(s, order), state)
    rest, _ = layer(x[order, 4:], state)
    expected = tf.nest.map_structure(lambda o: tf.gather(o, order)[:, 4:], outputs)
    assert_close(rest, expected)


def _check_gradients(layer, x) -> None:
    """Cutting changes no gradient, neither of the inputs nor of the weights."""
    rng = np.random.default_rng(2)
    sides = None
    gradients = []
    for cuts in ((), CUTS[0]):
        inputs = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            state, blocks = layer.initial_state(BATCH), []
            for first, last in _blocks(cuts):
                block, state = layer(inputs[:, first:last], state)
                blocks.append(block)
            outputs = tf.nest.flatten(joined(blocks))
            sides = sides or [rng.standard_normal(o.shape).astype(np.float32) for o in outputs]
            total = tf.add_n(
                [tf.reduce_sum(o * side) for o, side in zip(outputs, sides, strict=True)]
            )
        weights = [v.value for v in layer.trainable_variables]
        gradients.append(tape.gradient(total, [inputs, *weights], unconnected_gradients="zero"))
    assert np.any(gradients[0][0])
    assert_close(*gradients, rtol=1e-3, atol=1e-4)


def _check_graphs(layer, x, outputs, end) -> None:
    """Compiled or not, with no size known beforehand."""
    for jit_compile in (False, True):

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, x.shape[-1]], tf.float32),
                tf.TensorSpec([None], tf.int32),
            ],
            jit_compile=jit_compile,
            autograph=False,
        )
        def run(x, lengths):
            return layer(x, layer.initial_state(tf.shape(x)[0]), lengths)

        assert_close(run(x, [STEPS] * BATCH), (outputs, end))


def _check_precision(layer, rounded, x, outputs) -> None:
    assert {v.dtype for v in (*layer.variables, *rounded.variables)} <= {"float32"}
    result, _ = rounded(x, rounded.initial_state(BATCH))
    # A bfloat16 number is good to 2^-9.
    assert_close(result, outputs, rtol=0.1, atol=0.15)


# Models


def check_model(make: Callable[..., SequenceModel]) -> None:
    """The laws of a model.

    Args:
        make: called with `compute_dtype`, gives the model, built, with weights that depend on
            nothing else. Its noise should be of some weight, its sigmas not at their limits.
    """
    model = make(compute_dtype="float32")
    x = frames(model)
    terms = model.score(x, LENGTHS, (1, 2))
    _check_terms(model, x, terms)
    _check_names(model)
    _check_cuts(model, x, terms)
    _check_predictions(model, x)
    _check_padding_and_graphs(model, x, terms)
    _check_seeds(model, x, terms)
    _check_draws(model, x)
    _check_weights(model, x)
    _check_reconstruction(model, x, terms)
    _check_learning(make(compute_dtype="float32"), x)
    _check_model_precision(make(compute_dtype="mixed_bfloat16"), x, terms)
    _check_short(model)


def frames(model: SequenceModel, steps: int = STEPS, seed: int = 1) -> np.ndarray:
    """[BATCH, steps, features] float32, binary features 0 or 1, zero beyond LENGTHS."""
    rng = np.random.default_rng(seed)
    real = rng.standard_normal((BATCH, steps, model.observation.num_real))
    binary = rng.integers(0, 2, (BATCH, steps, model.observation.num_binary))
    x = np.concatenate([real, binary], axis=-1).astype(np.float32)
    return np.where(np.arange(steps)[:, np.newaxis] < LENGTHS[:, None, None], x, 0)


def observed(
    model: SequenceModel, x: np.ndarray, lengths: np.ndarray, cuts: Sequence[int] = (), **how
) -> tuple[Terms, State]:
    """Terms and state after sequences that are cut into blocks."""
    state, blocks = model.start(len(x)), []
    edges = [0, *cuts, x.shape[1]]
    for first, last in zip(edges, edges[1:], strict=False):
        of_block = np.clip(lengths - first, 0, last - first).astype(np.int32)
        block = tf.constant(x[:, first:last])
        encoded = model.encode(block, of_block, state)
        terms, state = model.observe(encoded, block, of_block, state, **how)
        blocks.append(terms)
    return joined(blocks), state


def _scored(terms: Terms) -> tuple:
    """What is masked."""
    return terms[:-1]


def _mask(model: SequenceModel) -> np.ndarray:
    step = np.arange(STEPS)
    return (step < LENGTHS[:, np.newaxis]) & (step >= model.num_given_frames)


def _check_terms(model, x, terms) -> None:
    within = np.arange(STEPS) < LENGTHS[:, np.newaxis]
    layers = len(model.latent_sizes)
    np.testing.assert_array_equal(terms.log_likelihood.numpy() != 0, _mask(model))
    assert terms.kl.shape == (BATCH, STEPS, layers)
    assert len(terms.kl_per_unit) == len(model.elbo_kl_weights) == layers
    for layer, (units, kl) in enumerate(zip(model.latent_sizes, terms.kl_per_unit, strict=True)):
        assert kl.shape == (BATCH, STEPS, units)
        assert np.min(kl) > -1e-5
        assert np.all(np.any(kl.numpy() != 0, axis=-1) == within)
        np.testing.assert_allclose(terms.kl[..., layer], np.sum(kl, axis=-1), rtol=1e-5, atol=1e-6)
    for part in (terms.log_weight, terms.auxiliary):
        assert part.shape == (BATCH, STEPS)
        assert not np.any(part.numpy()[~within])
    if not layers:
        np.testing.assert_array_equal(terms.log_weight, terms.log_likelihood)
    parameters = [p for p in tf.nest.flatten(terms.parameters)]
    assert {p.shape[:2] for p in parameters} == {(BATCH, STEPS)}
    log_prob = model.observation.log_prob(terms.parameters, x)
    expected = np.where(_mask(model), log_prob, 0)
    np.testing.assert_allclose(terms.log_likelihood, expected, rtol=1e-5, atol=1e-5)
    assert model.num_scored(LENGTHS).numpy().tolist() == _mask(model).sum(axis=1).tolist()


def _check_names(model) -> None:
    """Nothing of Keras is shadowed, and its own methods work."""
    for kind in type(model).__mro__:
        if kind is keras.Model:
            break
        shadowed = {name for name in vars(kind) if hasattr(keras.Model, name)} - _OVERRIDDEN
        assert not shadowed, shadowed
    x = frames(model)
    full = np.full(BATCH, STEPS, np.int32)
    predicted = model.predict(x, verbose=0)
    assert_close(predicted.log_likelihood, model.score(x, full).log_likelihood)
    assert_close(model(x).log_weight, model.score(x, full).log_weight, atol=1e-3)


def _check_cuts(model, x, terms) -> None:
    whole, end = observed(model, x, LENGTHS, seed=(1, 2))
    assert_close(_scored(whole), _scored(terms), atol=1e-4)
    np.testing.assert_array_equal(end.step, LENGTHS)
    for cuts in CUTS:
        parts, state = observed(model, x, LENGTHS, cuts, seed=(1, 2))
        assert_close(_scored(parts), _scored(terms), atol=1e-3)
        assert_close(state, end, atol=1e-4)
    # What was encoded may be cut along time, too; it knows of no draw.
    start = model.start(BATCH)
    encoded = model.encode(tf.constant(x), LENGTHS, start)
    state, blocks = start, []
    for t in range(STEPS):
        steps = tf.nest.map_structure(lambda v, t=t: v[:, t : t + 1], encoded.steps)
        ones = np.clip(LENGTHS - t, 0, 1).astype(np.int32)
        block = tf.constant(x[:, t : t + 1])
        part, state = model.observe(Encoded(steps, encoded.state), block, ones, state, (1, 2))
        blocks.append(part)
    assert_close(_scored(joined(blocks)), _scored(terms), atol=1e-3)
    # Each row by itself is what it is among others (the first: noise belongs to a row's number).
    alone = model.score(x[:1], LENGTHS[:1], (1, 2))
    assert_close(_scored(alone), tf.nest.map_structure(lambda v: v[:1], _scored(terms)), atol=1e-3)


def _check_predictions(model, x) -> None:
    """What comes next is predicted from what came before, however that was read."""
    given = np.minimum(LENGTHS, 6)
    changed = np.where(np.arange(STEPS)[:, np.newaxis] < given[:, None, None], x, 5.0)
    _, whole = observed(model, changed.astype(np.float32), given, seed=(1, 2))
    _, stepped = observed(model, x[:, :6], given, range(1, 6), seed=(1, 2))
    parameters = []
    for state in (whole, stepped):
        predicted, pending = model.predict_next(state, (3, 4))
        assert {p.shape[:2] for p in tf.nest.flatten(predicted)} == {(BATCH, 1)}
        state = model.advance(pending, tf.constant(x[:, 6:7]))
        np.testing.assert_array_equal(state.step, given + 1)
        after, _ = model.predict_next(state, (3, 4))
        parameters.append((predicted, after))
    assert_close(*parameters, atol=1e-4)
    if model.latent_sizes:
        return
    # Without latents there is one way to see the past.
    full = np.full(BATCH, STEPS, np.int32)
    everything = model.score(x, full).parameters
    state, frame_by_frame = model.start(BATCH), []
    for t in range(STEPS):
        predicted, pending = model.predict_next(state)
        frame_by_frame.append(predicted)
        state = model.advance(pending, tf.constant(x[:, t : t + 1]))
    first = model.num_given_frames
    assert_close(
        *(
            tf.nest.map_structure(lambda v: v[:, first:], p)
            for p in (joined(frame_by_frame), everything)
        ),
        atol=1e-4,
    )


def _check_padding_and_graphs(model, x, terms) -> None:
    """More padding, and what it holds, changes no term; compiled or not; no size known."""
    padded = np.pad(x, [(0, 0), (0, 5), (0, 0)])
    filled = np.where(np.arange(STEPS + 5)[:, np.newaxis] < LENGTHS[:, None, None], padded, 1.0)
    for jit_compile in (False, True):

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, model.num_features], tf.float32),
                tf.TensorSpec([None], tf.int32),
            ],
            jit_compile=jit_compile,
            autograph=False,
        )
        def score(x, lengths):
            return _scored(model.score(x, lengths, (1, 2)))

        assert_close(score(x, LENGTHS), _scored(terms), atol=1e-3)
        for more in (padded, filled):
            longer = score(more.astype(np.float32), LENGTHS)
            within = tf.nest.map_structure(lambda v: v[:, :STEPS], longer)
            assert_close(within, _scored(terms), atol=1e-3)
            beyond = tf.nest.map_structure(lambda v: np.any(v[:, STEPS:]), longer)
            assert not any(tf.nest.flatten(beyond))


def _check_seeds(model, x, terms) -> None:
    again, other = (model.score(x, LENGTHS, seed) for seed in ((1, 2), (2, 2)))
    for a, b in zip(tf.nest.flatten(again), tf.nest.flatten(terms), strict=True):
        np.testing.assert_array_equal(a, b)
    changed = np.any(np.asarray(other.log_weight) != np.asarray(terms.log_weight))
    assert changed == bool(model.latent_sizes)
    still = [model.score(x, LENGTHS, seed, temperature=0.0) for seed in ((1, 2), (2, 2))]
    for a, b in zip(*map(tf.nest.flatten, still), strict=True):
        np.testing.assert_array_equal(a, b)


def _check_draws(model, x) -> None:
    """Rows that are alike get noise of their own, and the mean of log weights is the bound."""
    if not model.latent_sizes:
        return
    copies = 1500
    many = np.repeat(x[1:2, :5], copies, axis=0)
    terms = tf.function(model.score)(many, tf.fill([copies], 5), tf.constant([5, 6]))
    weights = np.sum(terms.log_weight, axis=1, dtype=np.float64)
    assert len(np.unique(weights)) > 0.99 * copies
    sums = bounds.sum_over_time(terms)
    # Under shared draws KL and likelihood depend on the draws, too.
    differences = weights - sums.elbo(model).numpy()
    error = differences.std() / np.sqrt(copies)
    assert abs(differences.mean()) < 4 * error + 1e-4 * np.mean(np.abs(weights))


def _check_weights(model, x) -> None:
    """Every number of a model's weights is float32, under names that no two of them share."""
    paths = [v.path for v in model.variables]
    assert len(set(paths)) == len(paths)
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert all(v.path.startswith(f"{model.name}/") for v in model.trainable_variables)


def _check_reconstruction(model, x, terms) -> None:
    given = model.num_given_frames
    for binarize in (True, False):
        rebuilt = model.reconstruction(terms, tf.constant(x), binarize).numpy()
        assert rebuilt.shape == x.shape
        np.testing.assert_array_equal(rebuilt[:, :given], x[:, :given])
        binary = rebuilt[..., model.observation.num_real :]
        assert np.all((binary >= 0) & (binary <= 1))
        if binarize:
            assert np.all((binary == 0) | (binary == 1))


def _check_learning(model, x) -> None:
    variables = [v.value for v in model.trainable_variables]

    @tf.function(autograph=False)
    def loss_and_gradients():
        with tf.GradientTape() as tape:
            sums = bounds.sum_over_time(model.score(x, LENGTHS, (1, 2)))
            loss = -tf.reduce_mean(sums.objective() - sums.auxiliary)
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        return loss, tf.clip_by_global_norm(gradients, 1.0)[0]

    before, gradients = loss_and_gradients()
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        variable.assign_sub(1e-3 * gradient)
    after, _ = loss_and_gradients()
    assert after < before


def _check_model_precision(rounded, x, terms) -> None:
    _check_weights(rounded, x)
    result = rounded.score(x, LENGTHS, (1, 2))
    assert {v.dtype for v in tf.nest.flatten(result)} == {tf.float32}
    assert np.all(np.isfinite(result.log_weight))
    # Some ten layers, each good to 2^-9, come to some percent.
    scale = np.mean(np.abs(terms.log_likelihood))
    error = np.mean(np.abs(result.log_likelihood - terms.log_likelihood))
    assert 0 < error < 0.2 * scale


def _check_short(model) -> None:
    x = frames(model, steps=1)
    terms = model.score(x, np.ones(BATCH, np.int32))
    assert np.all(np.isfinite(terms.log_weight))
    assert np.all((terms.log_likelihood.numpy() != 0) == (model.num_given_frames == 0))
