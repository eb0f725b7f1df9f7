import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.bounds import sum_over_time
from stcn_tf.layers import Observation
from stcn_tf.models import Wavenet
from tests.contract import assert_close, at_rows, changed_steps, check_model, outputs_of, randomize

BATCH, TIME, REAL, BINARY, COMPONENTS = 3, 11, 2, 1, 4
FEATURES = REAL + BINARY
FILTERS = 6
LENGTHS = np.array([TIME, 7, 1], np.int32)
SIZES = {
    "num_filters": FILTERS,
    "kernel_size": 2,
    "wavenet_blocks": 5,
    "dilations": (1, 2, 1, 4),
    "output_layers": 2,
    "output_filters": 7,
}
OBSERVATIONS = {
    "gmm-binary": (REAL, BINARY, COMPONENTS),
    "normal": (5, 0, 1),
    "gmm": (3, 0, COMPONENTS),
    "binary": (0, 2, 1),
}


def make(features=(REAL, BINARY, COMPONENTS), dense_blocks=(), **changes):
    settings = SIZES | {"wavenet_dense_blocks": dense_blocks} | changes
    model = Wavenet(observation=Observation(*features, name="observation"), **settings)
    model.build()
    return randomize(model)


@pytest.fixture(scope="module", params=["scored", "given"])
def first_frame(request):
    return request.param


@pytest.fixture(scope="module", params=[(), (2, 1, 5)], ids=["sum", "dense"])
def dense_blocks(request):
    return request.param


@pytest.fixture(scope="module")
def model(first_frame, dense_blocks):
    return make(first_frame=first_frame, dense_blocks=dense_blocks)


def _frames(model, time=TIME, seed=1):
    rng = np.random.default_rng(seed)
    real = rng.standard_normal((BATCH, time, model.observation.num_real))
    binary = rng.integers(0, 2, (BATCH, time, model.observation.num_binary))
    return np.concatenate([real, binary], axis=-1).astype(np.float32)


@pytest.fixture
def x(model):
    return _frames(model)


def _parameters(model, x):
    """Of all frames that are predicted."""
    x = tf.convert_to_tensor(x)
    parameters = model.score(x, tf.fill([x.shape[0]], x.shape[1])).parameters
    return tf.nest.map_structure(lambda p: p[:, model.num_given_frames :], parameters)


@pytest.mark.parametrize(
    "settings",
    [
        {"features": (2, 1, 1), "wavenet_blocks": 3},
        {
            "first_frame": "given",
            "dense_blocks": (2, 1),
            "output_type": "wavenet",
            "output_kernel_size": 3,
        },
    ],
    ids=["sum", "dense-given-wavenet"],
)
def test_it_is_a_model(settings):
    settings = {"wavenet_blocks": 2, "output_layers": 1, **settings}
    check_model(lambda **changes: make(**settings | changes))


@pytest.mark.parametrize("is_variant", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_so_is_its_variant(is_variant):
    settings = {"features": (0, 2, 1), "first_frame": "given", "kernel_size": 3}
    settings |= {"wavenet_blocks": 2, "output_layers": 0}
    check_model(lambda **changes: make(**settings | changes), is_variant=is_variant)


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
    parameters = _parameters(model, x)
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
def test_the_heads_read_the_relu_of_sum_or_concatenation(blocks, order):
    channels = FILTERS * (len(blocks) or 1)
    model = make((channels, 0, 1), blocks, output_layers=0)
    head = model.observation.heads["mean"]
    head.kernel.assign(np.eye(channels)[np.newaxis])
    head.bias.assign(np.zeros(channels))
    x = _frames(model)
    hidden = outputs_of(model.causal, np.pad(x, [(0, 0), (1, 0), (0, 0)]))
    outputs = outputs_of(model.stack, hidden)
    if order:
        read = np.concatenate([outputs[number - 1].residual for number in order], axis=-1)
    else:
        read = sum(output.skip.numpy() for output in outputs)
    assert np.any(read[:, :-1] < -0.1)
    mean = _parameters(model, x).mean[:, :, 0]
    np.testing.assert_allclose(mean, np.maximum(read[:, :-1], 0), rtol=1e-5, atol=1e-5)


def test_parameters_of_the_released_handwriting_models():
    filters, components = 256, 20
    conv = filters * filters + filters
    block = 2 * (2 * filters * filters + filters) + conv
    heads = (2 * 2 * components + components + 1) * (filters + 1)
    shared = 2 * 3 * filters + filters + 25 * block + conv + heads
    for blocks, first in (((), conv), ((5, 15, 25), 3 * filters * filters + filters)):
        model = Wavenet(
            observation=Observation(2, 1, components, name="observation"),
            num_filters=filters,
            kernel_size=2,
            wavenet_blocks=25,
            dilations=(1, 2, 4, 8, 16),
            output_layers=2,
            output_filters=filters,
            wavenet_dense_blocks=blocks,
        )
        # Only shapes are of interest here.
        with keras.StatelessScope():
            model.build()
            count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        assert count == shared + first
        assert model.receptive_field == 157  # STCN's of these dilations and one more


def test_variable_paths_are_what_checkpoints_hold():
    names = ["causal", "output_0", "output_1"]
    names += [
        f"stack/block_{block:02d}/{conv}"
        for block, conv in itertools.product(range(5), ("filter", "gate", "output"))
    ]
    names += [f"observation/{head}" for head in ("mean", "sigma", "component", "binary")]
    expected = [f"wavenet/{name}/{part}" for name in names for part in ("kernel", "bias")]
    # A second model of the same process has them too.
    for model in (make(), make()):
        paths = [v.path for v in model.weights]
        assert sorted(paths) == sorted(expected)
        assert len(model.trainable_variables) == len(paths)


# What sees what


def test_a_frame_changes_the_predictions_after_it_only(model, x):
    before = _parameters(model, x)
    x[:, 6] += 1.0
    steps = changed_steps(before, _parameters(model, x)) + model.num_given_frames
    np.testing.assert_array_equal(steps, range(7, TIME))


@pytest.mark.parametrize(("output_type", "kernel_size"), [("conv1x1", 2), ("wavenet", 3)])
def test_gradient_reaches_exactly_the_receptive_field(
    first_frame, dense_blocks, kernel_size, output_type
):
    model = make(
        num_filters=3,
        kernel_size=kernel_size,
        dilations=(1, 2),
        dense_blocks=dense_blocks,
        first_frame=first_frame,
        output_layers=2 if output_type == "wavenet" else 0,
        output_type=output_type,
        output_kernel_size=4,
    )
    for variable in model.weights:
        # Of one sign, so that no two paths cancel, and a ReLU that is open.
        is_bias = variable.name == "bias"
        variable.assign(tf.fill(variable.shape, 0.1 if is_bias else 0.05))
    expected = 1 + (kernel_size - 1) * (1 + 7) + (2 * 3 if output_type == "wavenet" else 0)
    assert model.receptive_field == expected
    time = expected + 5
    x = tf.zeros([1, time, FEATURES])
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = tf.reduce_sum(_parameters(model, x).binary_logits[:, -1])
    reached = np.flatnonzero(np.any(tape.gradient(output, x)[0], axis=-1))
    np.testing.assert_array_equal(reached, range(time - 1 - expected, time - 1))


def test_the_first_frame_is_predicted_from_a_zero_frame(dense_blocks):
    model = make(dense_blocks=dense_blocks)
    assert model.num_given_frames == 0
    x = _frames(model)
    parameters = _parameters(model, x)
    assert parameters.mean.shape[1] == TIME
    alone = _parameters(model, np.zeros((BATCH, 1, FEATURES), np.float32))
    assert_close(tf.nest.map_structure(lambda p: p[:, :1], parameters), alone)
    expected = model.observation.log_prob(alone, x[:, :1])[:, 0]
    log_likelihood = model.score(x, LENGTHS).log_likelihood
    np.testing.assert_allclose(log_likelihood[:, 0], expected, rtol=1e-5)
    # The same as a model whose first frame is given, of a zero frame and the sequence.
    given = make(dense_blocks=dense_blocks, first_frame="given")
    padded = np.pad(x, [(0, 0), (1, 0), (0, 0)])
    assert_close(_parameters(given, padded), parameters)
    again = given.score(padded, LENGTHS + 1).log_likelihood
    np.testing.assert_allclose(again[:, 1:], log_likelihood, rtol=1e-5, atol=1e-5)


def test_a_given_first_frame_is_an_input_and_not_scored(dense_blocks):
    model = make(dense_blocks=dense_blocks, first_frame="given")
    x = _frames(model)
    assert _parameters(model, x).mean.shape[1] == TIME - 1
    before = model.score(x, LENGTHS).log_likelihood
    assert before.shape == (BATCH, TIME)
    np.testing.assert_array_equal(before[:, 0], np.zeros(BATCH))
    np.testing.assert_array_equal(before[2], np.zeros(TIME))  # the sequence of length one
    changed = x.copy()
    changed[:, 0] += 100.0  # would be most improbable
    after = model.score(changed, LENGTHS).log_likelihood
    np.testing.assert_array_equal(after[:, 0], np.zeros(BATCH))
    assert np.all(after[:2, 1] != before[:2, 1])


def test_scored_steps():
    lengths = np.array([0, 1, 2, 9], np.int32)
    scored, given = (make(first_frame=kind).num_scored(lengths) for kind in ("scored", "given"))
    np.testing.assert_array_equal(scored, lengths)
    np.testing.assert_array_equal(given, [0, 0, 1, 8])
    assert scored.dtype == given.dtype == tf.int32


# The terms


def test_the_model_has_no_latents(model, x):
    assert model.latent_sizes == ()
    assert model.elbo_kl_weights == ()
    assert model.is_objective_a_bound
    assert model.bound_name == "log-likelihood"
    assert not model.do_latents_reach_across_steps


def test_every_bound_is_the_log_likelihood_itself(model, x):
    terms = model.score(x, LENGTHS)
    sums = sum_over_time(terms)
    expected = np.sum(terms.log_likelihood, axis=1)
    assert sums.kl.shape == (BATCH, 0)
    np.testing.assert_array_equal(sums.elbo(model), sums.log_likelihood)
    np.testing.assert_array_equal(sums.objective(0.3), sums.log_likelihood)
    np.testing.assert_allclose(sums.log_likelihood, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_zero_weights_have_their_known_likelihood(first_frame, kind):
    model = make(OBSERVATIONS[kind], first_frame=first_frame)
    for variable in model.weights:
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


def test_a_reconstruction_is_the_prediction_one_step_ahead(model, x):
    given = model.num_given_frames
    full = np.full(BATCH, TIME, np.int32)
    rebuilt = model.reconstruction(model.score(x, full), x).numpy()
    np.testing.assert_array_equal(rebuilt[:, :given], x[:, :given])
    changed = x.copy()
    changed[:, 6] += 1.0
    steps = changed_steps(rebuilt, model.reconstruction(model.score(changed, full), changed))
    assert steps[0] == 7


# Step by step


def test_rows_of_a_given_model_may_be_at_different_steps():
    # One row has seen nothing, not even a zero frame; another its first frames.
    model = make(first_frame="given")
    x = _frames(model)
    fours = np.full(BATCH, 4, np.int32)
    fresh = model.start(BATCH)
    _, state = model.observe(model.encode(x[:, :4], fours, fresh), x[:, :4], fours, fresh)
    mixed = tf.nest.map_structure(lambda a, b: tf.concat([a[:1], b[1:]], axis=0), fresh, state)
    expected, _ = model.predict_next(state)
    parameters, pending = model.predict_next(mixed)
    assert_close(at_rows(parameters, [1, 2]), at_rows(expected, [1, 2]))
    # What stands for the frame before the first left no trace in the first row.
    mixed = model.advance(pending, x[:, :1])
    np.testing.assert_array_equal(mixed.step, [1, 5, 5])
    parameters, _ = model.predict_next(mixed)
    first = tf.nest.map_structure(lambda p: p[:1, :1], _parameters(model, x))
    assert_close(at_rows(parameters, [0]), first)


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_frame": "zero"}, "first_frame must be 'scored' or 'given', got 'zero'"),
        ({"dense_blocks": (0, 5)}, r"wavenet_dense_blocks must be from 1 to 5, got \(0, 5\)"),
        ({"dense_blocks": (5, 6)}, r"wavenet_dense_blocks must be from 1 to 5, got \(5, 6\)"),
        ({"output_type": "lstm"}, "kind must be 'conv1x1' or 'wavenet', got 'lstm'"),
    ],
)
def test_unknown_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(**changes)
