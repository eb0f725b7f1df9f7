import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.bounds import sum_over_time
from stcn_tf.data.card import read_card
from stcn_tf.inference import litert, saved_model
from stcn_tf.inference.generation import Generator, Temperatures, generate_raw
from stcn_tf.inference.served import ServedModel
from stcn_tf.models.registry import build_model
from stcn_tf.runs import RunDirectory
from stcn_tf.support.errors import UserError

NUM, LENGTH, SEED = 2, 11, (6, 0)
WARM = {"temperature": [0.5] * NUM, "latent_temperature": [1.0] * NUM}
WARM = {**WARM, "binary_temperature": [1.0] * NUM}
GIVEN_LENGTHS = [4, 7]


@pytest.fixture(scope="module")
def run(tiny_run):
    return RunDirectory.open(tiny_run)


@pytest.fixture(scope="module")
def model(run):
    return run.load().model


@pytest.fixture(scope="module")
def served(run, model):
    return ServedModel(model, run.card, jit_compile=False)


@pytest.fixture(scope="module")
def samples(served):
    return served.sample(NUM, LENGTH, SEED, 0.5, 1.0, 1.0).numpy()


@pytest.fixture(scope="module")
def given(samples):
    """[2, 7, 3], of which the first row has 4 steps; what is behind is no number."""
    x = samples[:, : max(GIVEN_LENGTHS)].copy()
    x[0, GIVEN_LENGTHS[0] :] = np.nan
    return x


def drawn(step, state, temperatures, times):
    """What `times` calls of `step` give, [times, ...], and the state after them."""
    frames = []
    for _ in range(times):
        state = dict(step(state, **temperatures))
        frames.append(state.pop("x").numpy())
    return np.array(frames), state


def test_steps_one_by_one_are_those_of_samples(served, samples):
    one_by_one, state = drawn(served.step, served.start(NUM, SEED), WARM, LENGTH)
    np.testing.assert_array_equal(np.swapaxes(one_by_one, 0, 1), samples)
    assert {name: part.dtype for name, part in state.items()} == {
        name: spec.dtype for name, spec in served.state_spec.items()
    }
    together = served.steps(served.start(NUM, SEED), LENGTH, **WARM)
    np.testing.assert_array_equal(together["x"], samples)
    for name, part in state.items():
        np.testing.assert_array_equal(part, together[name])


def test_rows_of_several_clients_are_what_each_gets_alone(served):
    """Of other seeds, temperatures and numbers of steps so far, joined and cut apart."""
    clients = [
        (served.start(1, (6, 0)), 1, [0.5], [1.0], [1.0]),
        (served.start(3, (7, 1)), 5, [0.9] * 3, [0.3] * 3, [0.0] * 3),
        (served.start(2, (6, 0)), 2, [1.0] * 2, [0.0] * 2, [1.0] * 2),
    ]
    states, alone = [], []
    for state, before, *temperatures in clients:
        state = dict(served.steps(state, before, *temperatures))
        del state["x"]
        states.append(state)
        alone.append(served.steps(state, 4, *temperatures)["x"].numpy())
    assert not np.array_equal(alone[0], alone[2][:1])
    joined = {name: tf.concat([state[name] for state in states], 0) for name in states[0]}
    temperatures = [np.concatenate(values) for values in list(zip(*clients, strict=True))[2:]]
    together = served.steps(joined, 4, *temperatures)["x"]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-4)


def test_beginnings_are_continued_each_from_its_end(run, model, served, given):
    continued = served.continue_from(given, GIVEN_LENGTHS, 5, SEED, 0.5, 1.0, 1.0).numpy()
    its = [row[:length] for row, length in zip(given, GIVEN_LENGTHS, strict=True)]
    expected = generate_raw(
        Generator(model), run.card.normalization, its, 5, SEED, Temperatures(real=0.5)
    )
    after, _ = drawn(served.step, served.begin(given, GIVEN_LENGTHS, SEED, 1.0), WARM, 5)
    for row, length in enumerate(GIVEN_LENGTHS):
        np.testing.assert_array_equal(continued[row, : length + 5], expected[row])
        np.testing.assert_array_equal(continued[row, :length], given[row, :length])
        np.testing.assert_array_equal(continued[row, length + 5 :], 0.0)
        np.testing.assert_array_equal(after[:, row], expected[row][length:])


def test_scores_are_the_terms_of_the_model(run, model, served, given):
    scores = served.score(given, GIVEN_LENGTHS, SEED, 1.0)
    scores = {name: values.numpy() for name, values in scores.items()}
    x = run.card.normalization.normalize(np.nan_to_num(given))
    x[0, GIVEN_LENGTHS[0] :] = 0.0
    terms = model.score(x, GIVEN_LENGTHS, SEED)
    np.testing.assert_allclose(scores["log_likelihood"], terms.log_likelihood, rtol=1e-4)
    np.testing.assert_allclose(scores["kl"], terms.kl, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores["elbo"], sum_over_time(terms).elbo(model), rtol=1e-4)
    assert np.all(scores["log_likelihood"][0, GIVEN_LENGTHS[0] :] == 0.0)
    # A density of raw values: of each step less by the logs of the standard deviations.
    logs = np.sum(np.log(run.card.normalization.std))
    difference = scores["log_likelihood"] - scores["log_likelihood_raw"]
    own = np.arange(given.shape[1]) < np.array(GIVEN_LENGTHS)[:, None]
    np.testing.assert_allclose(difference, np.where(own, logs, 0.0), rtol=1e-3)
    elbo_raw = scores["elbo"] - logs * np.array(GIVEN_LENGTHS)
    np.testing.assert_allclose(scores["elbo_raw"], elbo_raw, rtol=1e-6)


def test_reconstructions_stand_for_the_posterior(run, model, served, given):
    rebuilt = served.reconstruct(given, GIVEN_LENGTHS, SEED, 1.0)
    x = run.card.normalization.normalize(np.nan_to_num(given))
    x[0, GIVEN_LENGTHS[0] :] = 0.0
    terms = model.score(x, GIVEN_LENGTHS, SEED)
    for name, binarize in (("x", True), ("probabilities", False)):
        expected = run.card.normalization.denormalize(
            model.reconstruction(terms, x, binarize).numpy()
        )
        expected[0, GIVEN_LENGTHS[0] :] = 0.0
        np.testing.assert_allclose(rebuilt[name], expected, rtol=1e-4, atol=1e-3)
    assert set(np.unique(rebuilt["x"][..., 2])) <= {0.0, 1.0}
    assert np.any(rebuilt["probabilities"][..., 2] % 1.0 != 0.0)


def test_observed_steps_are_a_beginning(served, given):
    state = served.start(1, SEED)
    row, length = given[1:], GIVEN_LENGTHS[1]
    for step in range(length):
        state = served.observe(state, row[:, step], [1.0])
    begun = served.begin(row, [length], SEED, 1.0)
    assert set(state) == set(begun)
    for name, part in begun.items():
        np.testing.assert_allclose(state[name], part, rtol=1e-4, atol=1e-4 * np.max(np.abs(part)))


def test_models_that_are_given_their_first_step(tiny_wavenet_run):
    run = RunDirectory.open(tiny_wavenet_run)
    served = ServedModel(run.load().model, run.card, jit_compile=False)
    samples = served.sample(NUM, LENGTH, SEED, 0.5, 1.0, 1.0).numpy()
    one_by_one, _ = drawn(served.step, served.start(NUM, SEED), WARM, LENGTH)
    steps = np.swapaxes(one_by_one, 0, 1)
    if first := run.load().model.num_given_frames:
        # A zero one, the mean of the records, which samples begin with and steps go on from.
        np.testing.assert_allclose(samples[:, 0, :2], [run.card.normalization.mean[:2]] * NUM)
    np.testing.assert_array_equal(steps[:, : LENGTH - first], samples[:, first:])
    scores = served.score(samples, [LENGTH, 3], SEED, 1.0)
    assert scores["kl"].shape == (NUM, LENGTH, 0)
    assert np.all(scores["log_likelihood"][:, :first] == 0.0)
    np.testing.assert_allclose(
        scores["elbo_raw"], np.sum(scores["log_likelihood_raw"], axis=1), rtol=1e-4
    )


NOT_ACCEPTED = {
    "width": ({"x": np.zeros((2, 5, 4))}, "x: accepted: [num, steps, 3]: dx, dy, pen"),
    "no row": ({"x": np.zeros((0, 5, 3)), "lengths": []}, "num: 0; accepted: 1 or more"),
    "NaN": ({"x": np.full((2, 5, 3), np.nan)}, "x: accepted: finite numbers"),
    "half a pen": ({"x": np.full((2, 5, 3), 0.5)}, "x: accepted: 0 or 1 where binary"),
    "a length too many": ({"lengths": [1, 2, 3]}, "lengths: accepted: one for each row of x"),
    "beyond": ({"lengths": [1, 6]}, "lengths: accepted: 0 to the steps of x"),
    "negative": ({"lengths": [-1, 1]}, "lengths: accepted: 0 to the steps of x"),
    "length": ({"length": -1}, "length: -1; accepted: 0 or more"),
    "latents": (
        {"latent_temperature": np.inf},
        "latent_temperature: inf; accepted: a finite number, 0 or more",
    ),
}


@pytest.mark.parametrize(("asked", "message"), NOT_ACCEPTED.values(), ids=NOT_ACCEPTED)
def test_sequences_that_are_not_accepted_are_refused(served, asked, message):
    x = np.zeros((2, 5, 3), np.float32)
    accepted = {"x": x, "lengths": [5, 5], "length": 2, "seed": SEED}
    asked = accepted | dict.fromkeys(WARM, 1.0) | asked
    asked["x"] = asked["x"].astype(np.float32)
    asked["lengths"] = np.array(asked["lengths"], np.int32)
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(f"[{message}]")):
        served.continue_from(**asked)
    if "length" not in message.split(":")[0]:
        given = ("x", "lengths", "seed", "latent_temperature")
        asked = {name: asked[name] for name in given}
        for function in (served.begin, served.score, served.reconstruct):
            with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(f"[{message}]")):
                function(**asked)


def test_states_that_are_not_accepted_are_refused(served):
    state = served.start(NUM, SEED)
    for count in (-1, 0):
        message = f"count: {count}; accepted: 1 or more"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            served.steps(state, count, **WARM)
    with pytest.raises(tf.errors.InvalidArgumentError, match="all of as many rows"):
        served.step({**state, "row": state["row"][:1]}, **WARM)
    with pytest.raises(tf.errors.InvalidArgumentError, match="all of as many rows"):
        served.step(state, **{**WARM, "temperature": [0.5]})
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[temperature: accepted"):
        served.step(state, **{**WARM, "temperature": [0.5, np.nan]})
    broken = {
        name: tf.fill(tf.shape(part), np.nan) if part.dtype.is_floating else part
        for name, part in state.items()
    }
    with pytest.raises(tf.errors.InvalidArgumentError, match="state: accepted: finite numbers"):
        served.step(broken, **WARM)
    with pytest.raises(tf.errors.InvalidArgumentError, match="num: 0; accepted: 1 or more"):
        served.start(0, SEED)


def test_images_end_with_their_last_pixel(tiny_image_run):
    run = RunDirectory.open(tiny_image_run)
    modality = run.card.modality
    most = modality.height * modality.width
    served = ServedModel(run.load().model, run.card, jit_compile=False)
    message = f"steps of a sequence: accepted: {most}, those of an image"
    warm = dict.fromkeys(WARM, 1.0)
    whole = served.sample(1, most, SEED, **warm)
    # What is behind a sequence is none of it.
    padded = tf.pad(whole, [[0, 0], [0, 3], [0, 0]])
    state = dict(served.begin(padded, [most - 2], SEED, 1.0))
    each = dict.fromkeys(WARM, [1.0])
    end = dict(served.steps(state, 2, **each))
    assert end.pop("x").shape == (1, 2, 1)
    np.testing.assert_array_equal(served.score(padded, [most], SEED, 1.0)["kl"][:, most:], 0.0)
    once = (SEED, 1.0)
    for refused in (
        lambda: served.sample(1, most + 1, SEED, **warm),
        lambda: served.continue_from(padded, [most - 2], 3, SEED, **warm),
        lambda: served.begin(padded, [most + 1], *once),
        lambda: served.score(padded, [most + 1], *once),
        lambda: served.reconstruct(padded, [most + 1], *once),
        lambda: served.steps(state, 3, **each),
        lambda: served.step(end, **each),
        lambda: served.observe(end, [[1.0]], [1.0]),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            refused()


@pytest.fixture(scope="module")
def loaded(served, tmp_path_factory):
    """Of a SavedModel on disk."""
    out = str(tmp_path_factory.mktemp("served") / "1")
    saved_model.write(served, out, {"model_card.md": b"# A model\n"})
    return tf.saved_model.load(out)


def test_a_saved_model_streams_as_the_live_one(loaded, served, samples, given):
    one_by_one, _ = drawn(loaded.step, loaded.start(NUM, SEED), WARM, LENGTH)
    np.testing.assert_array_equal(np.swapaxes(one_by_one, 0, 1), samples)
    signatures = loaded.signatures
    assert set(signatures) == {"serving_default", *saved_model.FUNCTIONS}
    temperatures = {name: tf.constant(values) for name, values in WARM.items()}
    state = signatures["start"](num=tf.constant(NUM), seed=tf.constant(SEED))
    assert set(state) == set(served.state_spec)
    after = signatures["steps"](**state, count=tf.constant(LENGTH), **temperatures)
    np.testing.assert_array_equal(after["x"], samples)
    asked = {"x": given, "lengths": GIVEN_LENGTHS, "seed": SEED, "latent_temperature": 1.0}
    asked = {name: tf.constant(value) for name, value in asked.items()}
    for name in ("score", "reconstruct"):
        expected = getattr(served, name)(**asked)
        assert set(signatures[name](**asked)) == set(expected)
        for key, values in signatures[name](**asked).items():
            np.testing.assert_array_equal(values, expected[key])
    assert signatures["card"]()["json"] == served.card()
    assert [tf.io.read_file(asset.asset_path) for asset in loaded.assets] == [b"# A model\n"]


def test_threads_get_what_each_gets_alone(loaded):
    seeds = [(seed, 0) for seed in range(6)]

    def sequence(seed):
        state, frames = loaded.start(1, seed), []
        for _ in range(5):
            state = dict(loaded.step(state, [0.8], [1.0], [1.0]))
            frames.append(state.pop("x").numpy())
        return np.concatenate(frames)

    alone = list(map(sequence, seeds))
    with ThreadPoolExecutor(6) as pool:
        np.testing.assert_array_equal(list(pool.map(sequence, seeds)), alone)
    assert len(np.unique(np.array(alone)[..., 0])) == 6 * 5


@pytest.mark.parametrize("name", ["served", "loaded"])
def test_other_threads_go_on_after_a_call_that_is_refused(name, request):
    model = request.getfixturevalue(name)
    state = model.start(NUM, SEED)
    of_a_third = [*SEED, 0]
    for wrong in (
        lambda: model.start(NUM, of_a_third),
        lambda: model.start(2.5, SEED),
        lambda: model.start(seed=SEED),
        lambda: model.start(0, SEED),
        lambda: model.step({**state, "more": state["row"]}, **WARM),
        lambda: model.step({**state, "seed": [of_a_third] * NUM}, **WARM),
    ):
        with pytest.raises((TypeError, tf.errors.InvalidArgumentError)):
            wrong()
    answers = []
    other = threading.Thread(
        target=lambda: answers.append(model.step(model.start(NUM, SEED), **WARM)), daemon=True
    )
    other.start()
    other.join(60)
    assert answers


def test_shapes_that_a_signature_does_not_have_are_refused(loaded):
    start = loaded.signatures["start"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"seed.* expected shape \[2\]"):
        start(num=tf.constant(NUM), seed=tf.constant([*SEED, 0]))


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_steps_of_litert_are_those_of_the_model(run, model, served, samples, given):
    content = litert.convert(model, run.card)
    interpreter = tf.lite.Interpreter(model_content=content)
    start, step, observe = map(interpreter.get_signature_runner, litert.FUNCTIONS)
    state, frames = start(num=np.int32(NUM), seed=np.array(SEED, np.int32)), []
    temperatures = {name: np.array(values, np.float32) for name, values in WARM.items()}
    for _ in range(LENGTH):
        state = step(**state, **temperatures)
        frames.append(state.pop("x"))
    np.testing.assert_allclose(np.stack(frames, 1), samples, rtol=1e-3, atol=1e-2)
    latent = temperatures["latent_temperature"]
    state = start(num=np.int32(NUM), seed=np.array(SEED, np.int32))
    state = observe(**state, x=given[:, 0], latent_temperature=latent)
    for name, part in served.observe(served.start(NUM, SEED), given[:, 0], latent).items():
        np.testing.assert_allclose(state[name], part, rtol=1e-3, atol=1e-3)


def test_recurrent_models_are_exported_but_not_to_litert(tiny_records, tiny_config_with, tmp_path):
    card = read_card(tiny_records)
    # Has all kinds of recurrences: within latents, and of what is given, forwards and backwards.
    model = build_model(tiny_config_with({"model": "srnn"}).model, card)
    served = ServedModel(model, card, jit_compile=False)
    saved_model.write(served, tmp_path / "1", {})
    asked = (NUM, LENGTH, SEED, 0.5, 1.0, 1.0)
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    np.testing.assert_array_equal(loaded.sample(*asked), served.sample(*asked))
    with pytest.raises(UserError, match="--litert: .* has operations that LiteRT lacks"):
        litert.convert(model, card)
