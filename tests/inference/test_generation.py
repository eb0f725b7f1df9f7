import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import noise
from stcn_tf.data.batches import Batch
from stcn_tf.data.card import Normalization
from stcn_tf.inference import generation
from stcn_tf.inference.generation import Generator, Temperatures, chunked, generate_raw
from stcn_tf.layers.observation import Observation
from stcn_tf.models import Wavenet
from stcn_tf.noise import Places
from stcn_tf.released.stcn import ReleasedSTCN
from stcn_tf.seeds import Stream
from stcn_tf.support.errors import UserError

NUM, GIVEN, LENGTH, FEATURES = 3, 4, 7, 3
CERTAIN = {"real": 0.0, "latent": 0.0, "binary": 0.0}
NORMALIZATION = Normalization("channel", (3.0, -1.0, 0.0), (40.0, 30.0, 1.0))


# One model for each case, that is also traced once only.
@functools.cache
def _model(dense=True, draws="shared", **changes):
    model = ReleasedSTCN(
        observation=Observation(2, 1, 5, name="observation"),
        **{
            "num_filters": 6,
            "kernel_size": 2,
            "blocks_per_layer": 2,
            "latent_sizes": (4, 2),
            "latent_hidden_layers": 1,
            "output_layers": 2,
            "output_filters": 8,
        }
        | changes,
        dense=dense,
        posterior_draws=draws,
    )
    model.build()
    rng = np.random.default_rng(5)
    for variable in model.weights:
        variable.assign(0.5 * rng.standard_normal(variable.shape))
    return model


@functools.cache
def _generator(model, jit_compile=False):
    return Generator(model, jit_compile)


def generate(model, beginning, length, seed, *, given_lengths=None, **temperatures):
    temperatures = Temperatures(**temperatures)
    return _generator(model)(beginning, length, seed, temperatures, given_lengths)


@functools.cache
def _wavenet(first_frame="given", dense_blocks=(3, 1), **changes):
    settings = {
        "observation": Observation(2, 1, 5, name="observation"),
        "num_filters": 6,
        "kernel_size": 2,
        "dilations": (1, 2, 4),
        "wavenet_blocks": 3,
        "output_layers": 2,
        "output_filters": 8,
    }
    settings |= {"first_frame": first_frame, "wavenet_dense_blocks": dense_blocks}
    model = Wavenet(**settings | changes)
    model.build()
    rng = np.random.default_rng(6)
    for variable in model.weights:
        variable.assign(0.5 * rng.standard_normal(variable.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return _model(True, "shared")


@pytest.fixture(scope="module")
def given():
    """A Wavenet-dense whose first frame is given."""
    return _wavenet("given")


@pytest.fixture(scope="module")
def beginning():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((NUM, GIVEN, FEATURES))
    x[..., 2] = rng.integers(0, 2, (NUM, GIVEN))
    return x.astype(np.float32)


def test_the_seed_decides(model, beginning):
    first, again, other = (
        generate(model, beginning, LENGTH, seed).numpy() for seed in [(1, 2), (1, 2), (1, 3)]
    )
    assert first.shape == (NUM, GIVEN + LENGTH, FEATURES)
    np.testing.assert_array_equal(first, again)
    assert (first[:, GIVEN:, :2] != other[:, GIVEN:, :2]).all()
    # Sequences and steps draw independently.
    assert len(np.unique(first[:, GIVEN:, 0])) == NUM * LENGTH
    assert set(np.unique(first[..., 2])) == {0.0, 1.0}


def test_the_beginning_is_kept_bit_for_bit_and_conditions_what_follows(model, beginning):
    x = generate(model, beginning, LENGTH, (0, 0), **CERTAIN).numpy()
    np.testing.assert_array_equal(x[:, :GIVEN], beginning)
    for step in range(GIVEN):
        changed = beginning.copy()
        changed[:, step, 0] += 1.0
        other = generate(model, changed, 1, (0, 0), **CERTAIN).numpy()
        assert (x[:, GIVEN, :2] != other[:, GIVEN, :2]).any(axis=-1).all()


def test_a_longer_sample_begins_with_the_shorter_one(model, beginning):
    short, long = (generate(model, beginning, length, (0, 4)).numpy() for length in (2, LENGTH))
    np.testing.assert_array_equal(short, long[:, : GIVEN + 2])


def test_a_sample_goes_on_in_the_same_way_from_a_part_of_it(model):
    nothing = np.zeros((NUM, 0, FEATURES), np.float32)
    x = generate(model, nothing, GIVEN + LENGTH, (2, 6)).numpy()
    again = generate(model, x[:, :GIVEN], LENGTH, (2, 6)).numpy()
    np.testing.assert_allclose(again, x, rtol=1e-3, atol=1e-3)


def _chain(model, x, given, seed, latent_temperature=1.0):
    """What is predicted after a given beginning, step by step: [num, steps - given, features]."""
    state = model.start(len(x))
    lengths = tf.fill([len(x)], given)
    encoded = model.encode(x[:, :given], lengths, state)
    _, state = model.observe(encoded, x[:, :given], lengths, state, seed, latent_temperature)
    predicted = []
    for t in range(given, x.shape[1]):
        parameters, pending = model.predict_next(state, seed, latent_temperature)
        places = Places(state.row, tf.fill([len(x), 1], t))
        observation_seed = noise.fold_in(seed, Stream.OBSERVATION)
        predicted.append(model.observation.sample(parameters, observation_seed, places))
        state = model.advance(pending, x[:, t : t + 1])
    return tf.concat(predicted, axis=1).numpy()


@pytest.mark.parametrize("output_type", ["conv1x1", "wavenet"])
def test_the_latents_of_a_beginning_come_from_the_posterior(output_type, beginning):
    model = _model(output_type=output_type)
    x = generate(model, beginning, 3, (2, 6)).numpy()
    expected = _chain(model, tf.constant(x), GIVEN, (2, 6))
    np.testing.assert_allclose(x[:, GIVEN:], expected, rtol=1e-3, atol=1e-3)
    # Latents of the beginning from the prior: the same, unless later steps read them.
    state = model.start(NUM)
    for t in range(GIVEN):
        _, pending = model.predict_next(state, (2, 6))
        state = model.advance(pending, tf.constant(beginning[:, t : t + 1]))
    parameters, _ = model.predict_next(state, (2, 6))
    places = Places(state.row, tf.fill([NUM, 1], GIVEN))
    seed = noise.fold_in((2, 6), Stream.OBSERVATION)
    other = model.observation.sample(parameters, seed, places)[:, 0]
    is_close = np.isclose(x[:, GIVEN, :2], other[:, :2], rtol=1e-3, atol=1e-3)
    assert not is_close.all(axis=-1).any() if output_type == "wavenet" else is_close.all()


def test_rows_of_a_larger_batch_are_those_of_a_smaller_one(model):
    nothing = np.zeros((5, 0, FEATURES), np.float32)
    five, two = (generate(model, nothing[:num], LENGTH, (3, 1)).numpy() for num in (5, 2))
    np.testing.assert_allclose(five[:2], two, rtol=1e-4, atol=1e-4)


# Wavenets


@pytest.mark.parametrize("steps", [0, 1, GIVEN])
@pytest.mark.parametrize(
    ("first_frame", "settings"),
    [("scored", {"dense_blocks": ()}), ("given", {}), ("given", {"output_type": "wavenet"})],
    ids=["scored", "given-dense", "given-wavenet-output"],
)
def test_wavenet_step_by_step_equals_teacher_forcing(first_frame, settings, steps, beginning):
    model = _wavenet(first_frame, **settings)
    x = generate(model, beginning[:, :steps], 20, (0, 0), **CERTAIN).numpy()
    assert x.shape == (NUM, steps + 20, FEATURES)
    predicted = model.reconstruction(model(x), x)
    first = max(steps, model.num_given_frames)
    np.testing.assert_allclose(x[:, first:], predicted[:, first:], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(x[:, :steps], beginning[:, :steps])
    if model.num_given_frames and not steps:
        # From nothing: from the mean of the records.
        np.testing.assert_array_equal(x[:, 0], np.zeros((NUM, FEATURES)))


def test_generation_is_a_chain_of_predictions(given, beginning):
    x = generate(given, beginning, LENGTH, (3, 4))
    np.testing.assert_allclose(x[:, GIVEN:], _chain(given, x, GIVEN, (3, 4)), rtol=1e-3, atol=1e-3)


def test_a_sample_of_a_wavenet_goes_on_in_the_same_way_from_a_part_of_it(given):
    nothing = np.zeros((NUM, 0, FEATURES), np.float32)
    x = generate(given, nothing, GIVEN + LENGTH, (2, 6)).numpy()
    for steps in (1, GIVEN):
        again = generate(given, x[:, :steps], GIVEN + LENGTH - steps, (2, 6)).numpy()
        np.testing.assert_allclose(again, x, rtol=1e-3, atol=1e-3)
    assert len(np.unique(x[:, 1:, 0])) == NUM * (GIVEN + LENGTH - 1)


def test_beginnings_of_different_lengths_for_a_model_that_must_be_given_one(given, beginning):
    lengths = np.array([GIVEN, 0, 2], np.int32)
    x = generate(given, beginning, LENGTH, (0, 0), **CERTAIN, given_lengths=lengths).numpy()
    for i, n in enumerate(lengths):
        np.testing.assert_array_equal(x[i, :n], beginning[i, :n])
        alone = generate(given, beginning[i : i + 1, :n], LENGTH, (0, 0), **CERTAIN)
        np.testing.assert_allclose(x[i, : n + LENGTH], alone[0], rtol=1e-5, atol=1e-5)
    # What lies beyond a beginning's length is padding, where nothing is given, too.
    padded = beginning.copy()
    padded[1], padded[2, 2:] = 9.0, np.nan
    again = generate(given, padded, LENGTH, (0, 0), **CERTAIN, given_lengths=lengths)
    np.testing.assert_array_equal(again, x)


def test_raw_units_of_a_model_that_must_be_given_a_frame(given, beginning):
    raw = [NORMALIZATION.denormalize(x[:n]) for x, n in zip(beginning, (4, 0, 2), strict=True)]
    continued = generate_raw(_generator(given), NORMALIZATION, raw, LENGTH, (5, 6))
    assert [x.shape for x in continued] == [(11, 3), (7, 3), (9, 3)]
    for before, after in zip(raw, continued, strict=True):
        np.testing.assert_array_equal(after[: len(before)], before)
    np.testing.assert_array_equal(continued[1][0], [3.0, -1.0, 0.0])  # the mean of the records


# Chunks and blocks


def test_chunks_give_the_samples_of_one_piece(model, beginning, monkeypatch):
    raw = [NORMALIZATION.denormalize(x[:n]) for x, n in zip(beginning, (4, 0, 2), strict=True)]
    raw = [*raw, *raw[:2]]
    settings = (_generator(model), NORMALIZATION, raw, LENGTH, (5, 6))
    assert chunked(model, raw, LENGTH) == [range(5)]
    whole = generate_raw(*settings)
    monkeypatch.setattr(generation, "_CHUNK_STEPS", 2 * GIVEN)
    told = []
    assert chunked(model, raw, LENGTH) == [range(2), range(2, 4), range(4, 6)]
    in_chunks = generate_raw(*settings, progress=told.append)
    assert told == [LENGTH] * 3
    assert len(in_chunks) == 5
    for one, other in zip(whole, in_chunks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-2)
    # All of them draw for themselves.
    assert len(np.unique(np.concatenate([x[-LENGTH:, 0] for x in in_chunks]))) == 5 * LENGTH


def test_the_states_of_a_chunk_are_bounded(monkeypatch):
    small, large = _model(), _model(blocks_per_layer=3)
    monkeypatch.setattr(generation, "_CHUNK_BYTES", 4000)
    nothing = [np.zeros((0, FEATURES), np.float32)] * 100
    few, more = (len(chunked(model, nothing, LENGTH)[0]) for model in (large, small))
    assert 1 < few < more < 100
    assert all(len(chunk) == more for chunk in chunked(small, nothing, LENGTH))
    monkeypatch.setattr(generation, "_CHUNK_BYTES", 1)
    assert chunked(small, nothing, LENGTH) == [range(i, i + 1) for i in range(100)]


def test_what_a_chunk_generates_is_bounded(monkeypatch):
    nothing = [np.zeros((0, FEATURES), np.float32)] * 100
    monkeypatch.setattr(generation, "_CHUNK_VALUES", 30 * FEATURES * (LENGTH + 1))
    model = _model()
    assert [len(chunk) for chunk in chunked(model, nothing, LENGTH)] == [25] * 4
    assert chunked(model, nothing, 10**9) == [range(i, i + 1) for i in range(100)]


def test_blocks_of_steps_change_nothing(model, beginning, monkeypatch):
    whole = generate(model, beginning, LENGTH, (1, 2))
    monkeypatch.setattr(generation, "BLOCK", 3)
    told = []
    in_blocks = _generator(model)(beginning, LENGTH, (1, 2), progress=told.append)
    np.testing.assert_array_equal(in_blocks, whole)
    assert told == [3, 3, 1]


def test_many_steps_of_few_sequences_are_compiled(model):
    how = Generator(model)
    assert how.compiles(32, 3000) and how.compiles(1, 10**6)
    assert not how.compiles(33, 3000) and not how.compiles(1, 2999)
    assert Generator(model, True).compiles(100, 1)
    assert not Generator(model, False).compiles(1, 10**6)


@pytest.mark.parametrize("jit_compile", [None, pytest.param(True, marks=pytest.mark.slow)])
def test_in_a_graph_it_is_the_same(model, beginning, monkeypatch, jit_compile):
    monkeypatch.setattr(generation, "BLOCK", 5)
    monkeypatch.setattr(generation, "COMPILED_FROM", LENGTH)
    generator = Generator(model, jit_compile)
    given_lengths = np.array([GIVEN, 0, 2], np.int32)
    inputs = beginning, tf.constant((1, 2)), given_lengths

    @tf.function(autograph=False)
    def graph(length, beginning, seed, given_lengths):
        return generator.in_graph(
            beginning, length, seed, Temperatures(0.7, 0.8, 0.9), given_lengths
        )

    for length in (0, 2, LENGTH):  # the last one compiled, where it is not all of them
        x = graph(tf.constant(length), *inputs)
        how = {"real": 0.7, "latent": 0.8, "binary": 0.9}
        expected = generate(model, beginning, length, (1, 2), given_lengths=given_lengths, **how)
        np.testing.assert_allclose(x, expected, rtol=1e-3, atol=1e-3)
        same = generator(beginning, length, (1, 2), Temperatures(0.7, 0.8, 0.9), given_lengths)
        np.testing.assert_array_equal(x, same)


@pytest.mark.slow
def test_wavenets_with_xla_draw_the_same(given, beginning):
    raw = [NORMALIZATION.denormalize(x[:n]) for x, n in zip(beginning, (4, 0, 2), strict=True)]
    plain, compiled = (
        generate_raw(_generator(given, jit), NORMALIZATION, raw, 5, (0, 0)) for jit in (False, True)
    )
    for a, b in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2)


# Draws


def test_draws_have_the_moments_of_the_predicted_distribution(model):
    num = 20_000
    nothing = np.zeros((num, 0, FEATURES), np.float32)
    x = generate(model, nothing, 1, (0, 1), latent=0.0)[:, 0]
    parameters, _ = model.predict_next(model.start(1), (0, 0), 0.0)
    weights = tf.nn.softmax(parameters.component_logits)[0, 0].numpy()[:, np.newaxis]
    means, sigmas = parameters.mean[0, 0].numpy(), parameters.sigma[0, 0].numpy()
    mean = (weights * means).sum(axis=0)
    variance = (weights * (sigmas**2 + means**2)).sum(axis=0) - mean**2
    pen = tf.sigmoid(parameters.binary_logits)[0, 0, 0].numpy()
    assert 0.05 < pen < 0.95
    expected = np.array([*mean, pen])
    error = np.sqrt(np.array([*variance, pen * (1 - pen)]) / num)
    np.testing.assert_array_less(np.abs(np.mean(x, axis=0) - expected), 5 * error)
    np.testing.assert_allclose(np.var(x[:, :2], axis=0), variance, rtol=0.1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"length": -1}, "length: -1; accepted: 0 or more"),
        ({"beginning": np.zeros((0, GIVEN, FEATURES))}, "num: 0; accepted: 1 or more"),
        ({"real": -0.5}, "temperatures.real: -0.5; accepted: a finite number, 0 or more"),
        ({"latent": np.nan}, "temperatures.latent: nan; accepted: a finite number, 0 or more"),
        ({"binary": np.inf}, "temperatures.binary: inf; accepted: a finite number, 0 or more"),
        (
            {"given_lengths": [0, GIVEN + 1, 2]},
            "given_lengths: [0, 5, 2]; accepted: 0 to the 4 steps of the beginnings",
        ),
        (
            {"given_lengths": [0, -1, 2]},
            "given_lengths: [0, -1, 2]; accepted: 0 to the 4 steps of the beginnings",
        ),
    ],
    ids=str,
)
def test_numbers_that_are_not_accepted_are_refused(model, beginning, asked, message):
    asked = {"beginning": beginning, "length": LENGTH} | asked
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        generate(model, seed=(1, 2), **asked)
    if message.startswith("length"):
        raw = (_generator(model), NORMALIZATION, list(beginning), asked["length"], (1, 2))
        with pytest.raises(UserError, match=f"^{message}$"):
            generate_raw(*raw)


def test_no_beginning_at_all_is_refused(model):
    with pytest.raises(UserError, match="^num: 0; accepted: 1 or more$"):
        generate_raw(_generator(model), NORMALIZATION, [], LENGTH, (1, 2))


def test_temperature_zero_leaves_nothing_to_chance(model, beginning):
    one, other = (generate(model, beginning, LENGTH, (0, i), **CERTAIN) for i in range(2))
    np.testing.assert_array_equal(one, other)
    for name in CERTAIN:
        warm = generate(model, beginning, LENGTH, (0, 0), **CERTAIN | {name: 1.0})
        assert np.any(warm != one), name


def test_beginnings_of_different_lengths(model, beginning):
    given = np.array([GIVEN, 0, 2], np.int32)
    x = generate(model, beginning, LENGTH, (0, 0), **CERTAIN, given_lengths=given).numpy()
    for i, n in enumerate(given):
        np.testing.assert_array_equal(x[i, :n], beginning[i, :n])
        alone = generate(model, beginning[i : i + 1, :n], LENGTH, (0, 0), **CERTAIN)
        np.testing.assert_allclose(x[i, : n + LENGTH], alone[0], rtol=1e-5, atol=1e-5)
    # What lies beyond a beginning's length is padding: nothing reads it.
    padded = beginning.copy()
    padded[1], padded[2, 2:] = 9.0, -9.0
    again = generate(model, padded, LENGTH, (0, 0), **CERTAIN, given_lengths=given)
    np.testing.assert_array_equal(again, x)


def test_raw_units(model, beginning):
    raw = [NORMALIZATION.denormalize(x[:n]) for x, n in zip(beginning, (4, 0, 2), strict=True)]
    continued = generate_raw(
        _generator(model), NORMALIZATION, raw, LENGTH, (5, 6), Temperatures(0.7, 0.8, 0.9)
    )
    assert [x.shape for x in continued] == [(11, 3), (7, 3), (9, 3)]
    assert all(x.dtype == np.float32 for x in continued)
    for before, after in zip(raw, continued, strict=True):
        np.testing.assert_array_equal(after[: len(before)], before)
    # Pen exactly 0 or 1, dx and dy as generated in normalised units.
    assert set(np.unique(np.concatenate(continued)[:, 2])) == {0.0, 1.0}
    given_lengths = np.array([4, 0, 2], np.int32)
    how = {"real": 0.7, "latent": 0.8, "binary": 0.9}
    x = generate(model, beginning, LENGTH, (5, 6), given_lengths=given_lengths, **how)
    for after, normalised in zip(continued, NORMALIZATION.denormalize(x.numpy()), strict=True):
        np.testing.assert_allclose(after, normalised[: len(after)], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_with_xla_the_draws_are_the_same(model, beginning):
    raw = [NORMALIZATION.denormalize(x) for x in beginning]
    plain, compiled = (
        generate_raw(_generator(model, jit), NORMALIZATION, raw, LENGTH, (0, 0))
        for jit in (False, True)
    )
    np.testing.assert_allclose(plain, compiled, rtol=1e-3, atol=1e-2)


def test_a_reconstruction_sees_its_own_step_and_nothing_later(model, beginning):
    rebuilt = model.reconstruction(model(beginning), beginning).numpy()
    assert rebuilt.shape == beginning.shape
    assert set(np.unique(rebuilt[..., 2])) <= {0.0, 1.0}
    changed = beginning.copy()
    changed[:, 2, :2] += 1.0
    other = model.reconstruction(model(changed), changed).numpy()
    np.testing.assert_array_equal(rebuilt[:, :2], other[:, :2])
    assert (rebuilt[:, 2, :2] != other[:, 2, :2]).any(axis=-1).all()


def test_one_pass_scores_and_reconstructs(model, beginning, monkeypatch):
    calls = []
    original = type(model).observe
    monkeypatch.setattr(
        type(model), "observe", lambda *args, **how: calls.append(1) or original(*args, **how)
    )
    ids = tf.fill([len(beginning)], "")
    lengths = tf.fill([len(beginning)], beginning.shape[1])
    batch = Batch(tf.constant(beginning), lengths, ids, ids)
    normalization = Normalization("none", (0.0,) * 3, (1.0,) * 3)
    rebuilt = generation.Reconstructor(model, normalization)([batch, batch], (1, 2))
    assert len(rebuilt.elbo) == 2 * len(beginning)
    assert calls == [1]  # traced once, for both batches
