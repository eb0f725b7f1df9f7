import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.bounds import sum_over_time
from stcn_tf.layers.observation import Observation
from stcn_tf.models import Wavenet

BATCH, TIME, REAL, BINARY, COMPONENTS = 3, 11, 2, 1, 4
FEATURES = REAL + BINARY
FILTERS = 6
LENGTHS = np.array([TIME, 7, 1], np.int32)
SIZES = {
    "num_real": REAL,
    "num_binary": BINARY,
    "num_components": COMPONENTS,
    "num_filters": FILTERS,
    "kernel_size": 2,
    "dilations": (1, 2, 1, 4, 1),
    "output_layers": 2,
    "output_filters": 7,
}
OBSERVATIONS = {
    "gmm-binary": {},
    "normal": {"num_real": 5, "num_binary": 0, "num_components": 1},
    "gmm": {"num_real": 3, "num_binary": 0},
    "binary": {"num_real": 0, "num_binary": 2, "num_components": 1},
}


def _wavenet(**settings):
    sizes = [settings.pop(name) for name in ("num_real", "num_binary", "num_components")]
    floors = settings.pop("released_floors", False)
    settings["wavenet_dense_blocks"] = settings.pop("dense_blocks", ())
    return Wavenet(
        observation=Observation(*sizes, floors, name="observation"),
        wavenet_blocks=len(settings["dilations"]),
        **settings,
    )


@pytest.fixture(scope="module")
def make(randomize):
    def make(seed=0, **changes):
        model = _wavenet(**(SIZES | changes))
        model.build()
        return randomize(model, seed)

    return make


@pytest.fixture(scope="module", params=["scored", "given"])
def first_frame(request):
    return request.param


@pytest.fixture(scope="module", params=[(), (2, 1, 5)], ids=["sum", "dense"])
def dense_blocks(request):
    return request.param


@pytest.fixture(scope="module")
def model(make, first_frame, dense_blocks):
    return make(first_frame=first_frame, dense_blocks=dense_blocks)


def _frames(model, time=TIME, seed=1):
    rng = np.random.default_rng(seed)
    real = rng.standard_normal((BATCH, time, model.observation.num_real))
    binary = rng.integers(0, 2, (BATCH, time, model.observation.num_binary))
    return np.concatenate([real, binary], axis=-1).astype(np.float32)


@pytest.fixture
def x(model):
    return _frames(model)


def _arrays(structure):
    return [np.asarray(part) for part in tf.nest.flatten(structure)]


def _assert_close(first, second, rtol=1e-5, atol=1e-5):
    first, second = _arrays(first), _arrays(second)
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def _changed_steps(before, after):
    """Steps at which two [batch, time, ...] structures differ anywhere."""
    changed = [
        np.any(a != b, axis=tuple(i for i in range(a.ndim) if i != 1))
        for a, b in zip(_arrays(before), _arrays(after), strict=True)
    ]
    return np.flatnonzero(np.any(changed, axis=0))


def _by_numpy(model, x):
    """What the output layers' last one gives, [batch, scored steps, channels], in float64."""

    def conv(inputs, layer):
        kernel, bias = layer.kernel.numpy().astype(np.float64), layer.bias.numpy()
        y = np.tile(bias.astype(np.float64), (*inputs.shape[:2], 1))
        for tap, weights in enumerate(kernel):
            shift = (len(kernel) - 1 - tap) * layer.dilation
            if shift < inputs.shape[1]:
                y[:, shift:] += inputs[:, : inputs.shape[1] - shift] @ weights
        return y

    x = x.astype(np.float64)
    if not model.num_given_frames:
        x = np.concatenate([np.zeros_like(x[:, :1]), x], axis=1)
    hidden = conv(x, model.causal)
    skips, residuals = [], []
    for block in model.stack.blocks:
        gate = 1 / (1 + np.exp(-conv(hidden, block.gate_conv)))
        skips.append(conv(np.tanh(conv(hidden, block.filter_conv)) * gate, block.output_conv))
        hidden = hidden + skips[-1]
        residuals.append(hidden)
    if model.dense_blocks:
        read = np.concatenate([residuals[number - 1] for number in model.dense_blocks], axis=-1)
    else:
        read = sum(skips)
    read = np.maximum(read, 0)
    for layer in model.output_layers:
        read = np.maximum(conv(read, layer), 0)
    return read[:, :-1]


# What is computed


def test_the_model_is_the_formula(model, x):
    """First convolution, blocks, sum or concatenation in the order of the list, ReLU, heads."""
    parameters = model.call(x)
    hidden = _by_numpy(model, x)
    for name, output in (
        ("component", parameters.component_logits),
        ("binary", parameters.binary_logits),
    ):
        head = model.observation.heads[name]
        expected = hidden @ head.kernel.numpy()[0] + head.bias.numpy()
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)
    head = model.observation.heads["mean"]
    flat = hidden @ head.kernel.numpy()[0] + head.bias.numpy()
    expected = np.swapaxes(flat.reshape(*flat.shape[:2], REAL, COMPONENTS), -1, -2)
    np.testing.assert_allclose(parameters.mean, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("blocks", "order"), [((), None), ((5, 2), (5, 2)), ((2, 5), (2, 5))])
def test_the_heads_read_the_relu_of_sum_or_concatenation(make, blocks, order):
    channels = FILTERS * (len(blocks) or 1)
    model = make(
        num_real=channels, num_binary=0, num_components=1, output_layers=0, dense_blocks=blocks
    )
    head = model.observation.heads["mean"]
    head.kernel.assign(np.eye(channels)[np.newaxis])
    head.bias.assign(np.zeros(channels))
    x = _frames(model)
    outputs = model.stack(model.causal(np.pad(x, [(0, 0), (1, 0), (0, 0)])))
    if order:
        read = np.concatenate([outputs[number - 1].residual for number in order], axis=-1)
    else:
        read = sum(output.skip.numpy() for output in outputs)
    assert np.any(read[:, :-1] < -0.1)
    mean = model.call(x).mean[:, :, 0]
    np.testing.assert_allclose(mean, np.maximum(read[:, :-1], 0), rtol=1e-5, atol=1e-5)


def test_parameters_of_the_released_handwriting_models():
    filters, components = 256, 20
    conv = filters * filters + filters
    block = 2 * (2 * filters * filters + filters) + conv
    heads = (2 * 2 * components + components + 1) * (filters + 1)
    shared = 2 * 3 * filters + filters + 25 * block + conv + heads
    for blocks, first in (((), conv), ((5, 15, 25), 3 * filters * filters + filters)):
        model = _wavenet(
            num_real=2,
            num_binary=1,
            num_components=components,
            num_filters=filters,
            kernel_size=2,
            dilations=(1, 2, 4, 8, 16) * 5,
            output_layers=2,
            output_filters=filters,
            dense_blocks=blocks,
        )
        # Only shapes are of interest here.
        with keras.StatelessScope():
            model.build()
            count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        assert count == shared + first
        assert model.receptive_field == 157  # STCN's of these dilations and one more


def test_variable_paths_are_what_checkpoints_hold(make):
    names = ["causal", "output_0", "output_1"]
    names += [
        f"stack/block_{block:02d}/{conv}"
        for block, conv in itertools.product(range(5), ("filter", "gate", "output"))
    ]
    names += [f"observation/{head}" for head in ("mean", "sigma", "component", "binary")]
    expected = [f"wavenet/{name}/{part}" for name in names for part in ("kernel", "bias")]
    # A second model of the same process has them too.
    for model in (make(), make()):
        paths = [v.path for v in model.variables]
        assert sorted(paths) == sorted(expected)
        assert len(model.trainable_variables) == len(paths)


# What sees what


def test_a_frame_changes_the_predictions_after_it_only(model, x):
    given = model.num_given_frames
    before = model.call(x)
    for step in (0, 6, TIME - 1):
        changed = x.copy()
        changed[:, step] += 1.0
        # Position t of the predictions is frame t + given.
        steps = _changed_steps(before, model.call(changed)) + given
        np.testing.assert_array_equal(steps, range(step + 1, TIME))


@pytest.mark.parametrize(("output_type", "kernel_size"), [("conv1x1", 2), ("wavenet", 3)])
def test_gradient_reaches_exactly_the_receptive_field(
    make, first_frame, dense_blocks, kernel_size, output_type
):
    model = make(
        num_filters=3,
        kernel_size=kernel_size,
        dilations=(1, 2, 1, 2, 1),
        dense_blocks=dense_blocks,
        first_frame=first_frame,
        output_layers=2 if output_type == "wavenet" else 0,
        output_type=output_type,
        output_kernel_size=4,
    )
    for variable in model.variables:
        # Of one sign, so that no two paths cancel, and a ReLU that is open.
        is_bias = variable.name == "bias"
        variable.assign(tf.fill(variable.shape, 0.1 if is_bias else 0.05))
    expected = 1 + (kernel_size - 1) * (1 + 7) + (2 * 3 if output_type == "wavenet" else 0)
    assert model.receptive_field == expected
    time = expected + 5
    x = tf.zeros([1, time, FEATURES])
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = tf.reduce_sum(model.call(x).binary_logits[:, -1])
    reached = np.flatnonzero(np.any(tape.gradient(output, x)[0], axis=-1))
    np.testing.assert_array_equal(reached, range(time - 1 - expected, time - 1))


def test_the_first_frame_is_predicted_from_a_zero_frame(make, dense_blocks):
    model = make(dense_blocks=dense_blocks)
    assert model.num_given_frames == 0
    x = _frames(model)
    parameters = model.call(x)
    assert parameters.mean.shape[1] == TIME
    alone = model.call(np.zeros((BATCH, 1, FEATURES), np.float32))
    _assert_close([p[:, :1] for p in parameters], alone)
    expected = model.observation.log_prob(alone, x[:, :1])[:, 0]
    log_likelihood = model.score(x, LENGTHS).log_likelihood
    np.testing.assert_allclose(log_likelihood[:, 0], expected, rtol=1e-5)
    # The same as a model whose first frame is given, of a zero frame and the sequence.
    given = make(dense_blocks=dense_blocks, first_frame="given")
    padded = np.pad(x, [(0, 0), (1, 0), (0, 0)])
    _assert_close(given.call(padded), parameters)
    again = given.score(padded, LENGTHS + 1).log_likelihood
    np.testing.assert_allclose(again[:, 1:], log_likelihood, rtol=1e-5, atol=1e-5)


def test_a_given_first_frame_is_an_input_and_not_scored(make, dense_blocks):
    model = make(dense_blocks=dense_blocks, first_frame="given")
    x = _frames(model)
    assert model.call(x).mean.shape[1] == TIME - 1
    before = model.score(x, LENGTHS).log_likelihood
    assert before.shape == (BATCH, TIME)
    np.testing.assert_array_equal(before[:, 0], np.zeros(BATCH))
    np.testing.assert_array_equal(before[2], np.zeros(TIME))  # the sequence of length one
    changed = x.copy()
    changed[:, 0] += 100.0  # would be most improbable
    after = model.score(changed, LENGTHS).log_likelihood
    np.testing.assert_array_equal(after[:, 0], np.zeros(BATCH))
    assert np.all(after[:2, 1] != before[:2, 1])


def test_scored_steps(make):
    lengths = np.array([0, 1, 2, 9], np.int32)
    scored, given = (make(first_frame=kind).num_scored(lengths) for kind in ("scored", "given"))
    np.testing.assert_array_equal(scored, lengths)
    np.testing.assert_array_equal(given, [0, 0, 1, 8])
    assert scored.dtype == given.dtype == tf.int32


def test_sequences_of_one_frame(model):
    x = _frames(model, time=1)
    terms = model.score(x, np.ones(BATCH, np.int32))
    assert terms.log_likelihood.shape == (BATCH, 1)
    assert np.all(np.isfinite(terms.log_likelihood))
    assert np.any(terms.log_likelihood) == (not model.num_given_frames)
    assert model.reconstruct(x).shape == x.shape
    assert model.call(x).mean.shape == (BATCH, 1 - model.num_given_frames, COMPONENTS, REAL)


# The terms


def test_terms_are_of_a_model_without_latents(model, x):
    terms = model.score(x, LENGTHS, (1, 2))
    given = model.num_given_frames
    assert model.latent_sizes == ()
    assert model.elbo_kl_weights == ()
    assert model.is_released_objective_a_bound
    assert not model.do_latents_reach_across_steps
    assert terms.kl.shape == (BATCH, TIME, 0)
    assert terms.kl.dtype == tf.float32
    assert terms.kl_per_unit == ()
    mask = (np.arange(TIME) < LENGTHS[:, np.newaxis]) & (np.arange(TIME) >= given)
    np.testing.assert_array_equal(terms.log_likelihood.numpy() != 0, mask)
    log_prob = model.observation.log_prob(model.call(x), x[:, given:])
    expected = np.where(mask, np.pad(log_prob, [(0, 0), (given, 0)]), 0)
    np.testing.assert_allclose(terms.log_likelihood, expected, rtol=1e-5)
    np.testing.assert_array_equal(terms.log_weight, terms.log_likelihood)
    # Neither seed nor noise is anything to it.
    for again in (
        model.score(x, LENGTHS, (3, 4)),
        model.score(x, LENGTHS, noise="zero"),
        model.score_encoded(model.encode(x), x, LENGTHS),
    ):
        np.testing.assert_array_equal(again.log_likelihood, terms.log_likelihood)


def test_every_bound_is_the_log_likelihood_itself(model, x):
    terms = model.score(x, LENGTHS)
    sums = sum_over_time(terms)
    expected = np.sum(terms.log_likelihood, axis=1)
    assert sums.kl.shape == (BATCH, 0)
    np.testing.assert_array_equal(sums.elbo(model), sums.log_likelihood)
    np.testing.assert_array_equal(sums.objective(0.3), sums.log_likelihood)
    np.testing.assert_allclose(sums.log_likelihood, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_zero_weights_have_their_known_likelihood(make, first_frame, kind):
    model = make(first_frame=first_frame, **OBSERVATIONS[kind])
    for variable in model.variables:
        variable.assign(tf.zeros_like(variable))
    x = _frames(model)
    real = x[..., : model.observation.num_real].astype(np.float64)
    sigma = np.log(2)  # softplus of 0; the components are all alike
    expected = np.sum(-0.5 * (real / sigma) ** 2 - np.log(sigma * np.sqrt(2 * np.pi)), axis=-1)
    expected -= model.observation.num_binary * np.log(2)
    expected[np.arange(TIME) >= LENGTHS[:, np.newaxis]] = 0
    expected[:, : model.num_given_frames] = 0
    terms = model.score(x, LENGTHS)
    np.testing.assert_allclose(terms.log_likelihood, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_any_kind_of_observation(make, first_frame, dense_blocks, kind):
    model = make(first_frame=first_frame, dense_blocks=dense_blocks, **OBSERVATIONS[kind])
    assert model.num_features == model.observation.num_real + model.observation.num_binary
    x = _frames(model)
    terms = model.score(x, LENGTHS)
    mask = (np.arange(TIME) < LENGTHS[:, np.newaxis]) & (np.arange(TIME) >= model.num_given_frames)
    np.testing.assert_array_equal(terms.log_likelihood.numpy() != 0, mask)
    rebuilt = model.reconstruct(x).numpy()
    assert rebuilt.shape == x.shape
    assert np.all(np.isfinite(rebuilt))


def test_more_padding_and_what_it_holds_change_no_term(model, x):
    terms = model.score(x, LENGTHS)
    padded = np.pad(x, [(0, 0), (0, 5), (0, 0)])
    for filling in (0.0, 3.0):
        for row, length in zip(padded, LENGTHS, strict=True):
            row[length:] = filling
        more = model.score(padded, LENGTHS)
        _assert_close(more.log_likelihood[:, :TIME], terms.log_likelihood)
        assert not np.any(more.log_likelihood[:, TIME:])


def test_a_reconstruction_is_the_prediction_one_step_ahead(model, x):
    given = model.num_given_frames
    rebuilt = model.reconstruct(x, (5, 5)).numpy()
    assert rebuilt.shape == x.shape
    assert rebuilt.dtype == np.float32
    np.testing.assert_array_equal(rebuilt[:, :given], x[:, :given])
    parameters = model.call(x)
    best = np.argmax(parameters.component_logits, axis=-1)
    rows, columns = np.indices(best.shape)
    mean = parameters.mean.numpy()[rows, columns, best]
    np.testing.assert_array_equal(rebuilt[:, given:, :REAL], mean)
    np.testing.assert_array_equal(rebuilt[:, given:, REAL:], parameters.binary_logits.numpy() > 0)
    soft = model.reconstruct(x, binarize=False).numpy()
    np.testing.assert_array_equal(soft[:, :given], x[:, :given])
    np.testing.assert_array_equal(soft[..., :REAL], rebuilt[..., :REAL])
    probabilities = 1 / (1 + np.exp(-parameters.binary_logits.numpy()))
    np.testing.assert_allclose(soft[:, given:, REAL:], probabilities, rtol=1e-5)
    changed = x.copy()
    changed[:, 6] += 1.0
    steps = _changed_steps(rebuilt, model.reconstruct(changed).numpy())
    assert np.all(steps > 6)
    assert 7 in steps


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_graphs_give_the_same(make, jit_compile):
    model = make(first_frame="given", dense_blocks=(2, 5))
    x = _frames(model)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, FEATURES], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ],
        jit_compile=jit_compile,
    )
    def score(x, lengths):
        terms = model.score(x, lengths)
        return terms.log_likelihood, terms.kl, sum_over_time(terms).elbo(model)

    log_likelihood, kl, elbo = score(x, LENGTHS)
    expected = model.score(x, LENGTHS).log_likelihood
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-4, atol=1e-4)
    assert kl.shape == (BATCH, TIME, 0)
    np.testing.assert_allclose(elbo, np.sum(expected, axis=1), rtol=1e-4, atol=1e-4)


# Step by step


def _stepped(model, x):
    """The predictions of every frame, step by step; the first one's are of a zero frame."""
    state, steps = model.initial_state(BATCH), []
    previous = tf.zeros([BATCH, model.num_features])
    for t in range(x.shape[1]):
        parameters, state = model.predict_step(previous, state, (t, 0))
        steps.append(parameters)
        previous = x[:, t]
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts, axis=1), *steps)


@pytest.mark.parametrize(("output_type", "kernel_size"), [("conv1x1", 3), ("wavenet", 2)])
def test_predict_step_gives_what_the_whole_pass_gives(
    make, first_frame, dense_blocks, output_type, kernel_size
):
    model = make(
        first_frame=first_frame,
        dense_blocks=dense_blocks,
        output_type=output_type,
        kernel_size=kernel_size,
        output_kernel_size=5 - kernel_size,
    )
    x = _frames(model)
    given = model.num_given_frames
    stepped = [part[:, given:] for part in _stepped(model, x)]
    _assert_close(stepped, list(model.call(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_predict_step_of_any_kind_of_observation(make, first_frame, kind):
    model = make(first_frame=first_frame, **OBSERVATIONS[kind])
    x = _frames(model)
    stepped = tf.nest.map_structure(lambda p: p[:, model.num_given_frames :], _stepped(model, x))
    _assert_close(stepped, model.call(x), rtol=1e-4, atol=1e-5)


def test_rows_of_a_state_do_not_know_of_each_other(model, x):
    together = _stepped(model, x)
    # Another order of the rows, in the middle of the sequence too.
    order = np.array([2, 0, 1])
    state, previous = model.initial_state(BATCH), tf.zeros([BATCH, FEATURES])
    for t in range(6):
        parameters, state = model.predict_step(previous, state, (0, 0))
        previous = x[:, t]
    state = tf.nest.map_structure(lambda s: tf.gather(s, order), state)
    parameters, _ = model.predict_step(previous[order], state, (0, 0))
    _assert_close(list(parameters), [part[order, 6:7] for part in together])


def test_rows_of_a_given_model_may_be_at_different_steps(make):
    # One row has been fed nothing but the zero frame, another its first frames.
    model = make(first_frame="given")
    x = _frames(model)
    state, previous = model.initial_state(BATCH), tf.zeros([BATCH, FEATURES])
    for t in range(4):
        _, state = model.predict_step(previous, state, (0, 0))
        previous = x[:, t]
    fresh = model.initial_state(BATCH)
    mixed = tf.nest.map_structure(lambda a, b: tf.concat([a[:1], b[1:]], axis=0), fresh, state)
    parameters, mixed = model.predict_step(previous, mixed, (0, 0))
    expected, _ = model.predict_step(previous, state, (0, 0))
    _assert_close([p[1:] for p in parameters], [p[1:] for p in expected])
    # The zero frame in front left no trace in the first row.
    parameters, _ = model.predict_step(x[:, 0], mixed, (0, 0))
    _assert_close([p[:1] for p in parameters], [p[:1, :1] for p in model.call(x)])


# Arithmetic


@pytest.mark.parametrize(
    "settings", [{"dense_blocks": (2, 1, 5)}, {"first_frame": "given"}], ids=["dense", "given"]
)
def test_bfloat16_changes_little_and_leaves_weights_and_distributions_in_float32(make, settings):
    exact, rounded = make(**settings), make(compute_dtype="mixed_bfloat16", **settings)
    x = _frames(exact)
    assert {v.dtype for v in rounded.variables} == {"float32"}
    assert rounded.stack.blocks[0].filter_conv.compute_dtype == "bfloat16"
    parameters, terms = rounded.call(x), rounded.score(x, LENGTHS)
    assert {a.dtype for a in _arrays((parameters, terms))} == {np.dtype(np.float32)}
    reference = exact.score(x, LENGTHS)
    # A bfloat16 number is good to 2^-9; some 10 layers in a row come to a few percent at worst.
    _assert_close(terms.log_likelihood, reference.log_likelihood, rtol=0.15, atol=0.15)
    assert np.any(terms.log_likelihood[0] != reference.log_likelihood[0])
    stepped = [part[:, rounded.num_given_frames :] for part in _stepped(rounded, x)]
    _assert_close(stepped, list(parameters), rtol=0.05, atol=0.05)


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_frame": "zero"}, "first_frame must be 'scored' or 'given', got 'zero'"),
        ({"dense_blocks": (0, 5)}, r"wavenet_dense_blocks must be from 1 to 5, got \(0, 5\)"),
        ({"dense_blocks": (5, 6)}, r"wavenet_dense_blocks must be from 1 to 5, got \(5, 6\)"),
        ({"output_type": "lstm"}, "kind must be 'conv1x1' or 'wavenet', got 'lstm'"),
        ({"num_real": 0, "num_binary": 0}, "need a feature; got 0 real and 0 binary ones"),
    ],
)
def test_unknown_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        _wavenet(**(SIZES | changes))
