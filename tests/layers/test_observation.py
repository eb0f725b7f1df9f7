import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers import Observation, ObservationParameters
from stcn_tf.noise import Places
from tests.contract import check_layer, outputs_of

BATCH, TIME, CHANNELS, REAL, BINARY, COMPONENTS = 2, 11, 7, 3, 4, 5
DRAWS = 20_000
PLACES = Places(np.arange(BATCH), np.tile(np.arange(TIME, dtype=np.int32), (BATCH, 1)))

KINDS = pytest.mark.parametrize(
    ("real", "binary", "components"),
    [
        (REAL, BINARY, COMPONENTS),
        (REAL, BINARY, 1),
        (REAL, 0, COMPONENTS),
        (REAL, 0, 1),
        (0, BINARY, 1),
    ],
    ids=["gmm-binary", "normal-binary", "gmm", "normal", "binary"],
)


def _made(randomize, real=REAL, binary=BINARY, components=COMPONENTS):
    layer = Observation(real, binary, components)
    layer.build((None, None, CHANNELS))
    return randomize(layer)


def _inputs():
    rng = np.random.default_rng(1)
    return rng.standard_normal((BATCH, TIME, CHANNELS)).astype(np.float32)


def _observed(real, binary):
    rng = np.random.default_rng(2)
    values = rng.standard_normal((BATCH, TIME, real))
    bits = rng.integers(0, 2, (BATCH, TIME, binary))
    return np.concatenate([values, bits], axis=-1).astype(np.float32)


def _logsumexp(a, axis):
    top = a.max(axis=axis, keepdims=True)
    return (top + np.log(np.exp(a - top).sum(axis=axis, keepdims=True))).squeeze(axis)


def _log_normal(x, mean, sigma):
    return -0.5 * ((x - mean) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)


def _head(layer, name):
    """The head's output before any reshape, and thus in its memory layout."""
    conv = layer.heads[name]
    return _inputs() @ conv.kernel.numpy()[0].astype(np.float64) + conv.bias.numpy()


def _expected_log_prob(layer, x):
    real, components = layer.num_real, layer.num_components
    total = np.zeros(x.shape[:2])
    if real:
        # [feature, component], component fastest.
        shape = (BATCH, TIME, real, components)
        mean = _head(layer, "mean").reshape(shape)
        sigma = np.clip(np.logaddexp(0, _head(layer, "sigma")), 1e-3, 50).reshape(shape)
        log_prob = _log_normal(x[..., :real, np.newaxis], mean, sigma).sum(axis=2)
        if components > 1:
            logits = _head(layer, "component")
            log_weights = logits - _logsumexp(logits, -1)[..., np.newaxis]
            total += _logsumexp(log_weights + log_prob, -1)
        else:
            total += log_prob[..., 0]
    if layer.num_binary:
        p = 1 / (1 + np.exp(-_head(layer, "binary")))
        total += np.log(np.where(x[..., real:] == 1, p, 1 - p)).sum(axis=-1)
    return total


@KINDS
def test_log_prob_is_the_formula(randomize, real, binary, components):
    layer, x = _made(randomize, real, binary, components), _observed(real, binary)
    log_prob = layer.log_prob(outputs_of(layer, _inputs()), x)
    assert log_prob.shape == (BATCH, TIME)
    expected = _expected_log_prob(layer, x.astype(np.float64))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)


@KINDS
def test_parameters_have_the_shapes_they_promise(randomize, real, binary, components):
    parameters = outputs_of(_made(randomize, real, binary, components), _inputs())
    by_component = (BATCH, TIME, components, real)
    assert [() if part == () else part.shape for part in parameters] == [
        by_component if real else (),
        by_component if real else (),
        (BATCH, TIME, components) if components > 1 else (),
        (BATCH, TIME, binary) if binary else (),
        (),
    ]


def test_the_heads_are_laid_out_feature_by_component(randomize):
    layer = _made(randomize)
    mean = outputs_of(layer, _inputs()).mean
    flat = _head(layer, "mean")
    for feature in range(REAL):
        for component in range(COMPONENTS):
            np.testing.assert_allclose(
                mean[..., component, feature],
                flat[..., feature * COMPONENTS + component],
                rtol=1e-4,
                atol=1e-5,
            )


def test_a_mixture_and_the_binary_feature_integrate_to_one():
    layer = Observation(1, 1, 3)
    grid = np.arange(-30, 30, 2e-3)
    parameters = ObservationParameters(
        mean=tf.reshape([-2.0, 0.5, 4.0], [1, 1, 3, 1]),
        sigma=tf.reshape([0.05, 1.0, 3.0], [1, 1, 3, 1]),
        component_logits=tf.reshape([1.0, -1.0, 0.3], [1, 1, 3]),
        binary_logits=tf.reshape([0.7], [1, 1, 1]),
    )
    total = 0.0
    for bit in (0, 1):
        x = np.stack([grid, np.full_like(grid, bit)], axis=-1)[np.newaxis].astype(np.float32)
        density = np.exp(layer.log_prob(parameters, x)[0].numpy().astype(np.float64))
        total += density.sum() * 2e-3
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)


def test_far_values_and_sure_bits_keep_a_finite_log_prob(randomize):
    layer = _made(randomize)
    parameters = outputs_of(layer, _inputs())._replace(
        binary_logits=tf.fill([BATCH, TIME, BINARY], 200.0)
    )
    x = np.zeros((BATCH, TIME, REAL + BINARY), np.float32)
    x[..., :REAL] = 1e5
    log_prob = layer.log_prob(parameters, x).numpy()
    assert np.all(np.isfinite(log_prob))
    assert np.all(log_prob < -BINARY * 200)


@pytest.mark.parametrize(("bias", "expected"), [(-200.0, 1e-3), (200.0, 50.0)])
def test_sigma_stays_in_its_range(randomize, bias, expected):
    layer = _made(randomize)
    layer.heads["sigma"].bias.assign(tf.fill([REAL * COMPONENTS], bias))
    sigma = outputs_of(layer, _inputs()).sigma
    np.testing.assert_array_equal(
        sigma, np.full((BATCH, TIME, COMPONENTS, REAL), expected, np.float32)
    )


@KINDS
def test_temperature_0_is_the_mean_of_the_most_probable_component(
    randomize, real, binary, components
):
    layer = _made(randomize, real, binary, components)
    parameters = outputs_of(layer, _inputs())
    sample = layer.sample(parameters, (3, 4), PLACES, 0.0, 0.0).numpy()
    assert sample.shape == (BATCH, TIME, real + binary)
    assert sample.dtype == np.float32
    if real:
        best = np.zeros((BATCH, TIME), int)
        if components > 1:
            best = np.argmax(parameters.component_logits, axis=-1)
            assert len(np.unique(best)) > 1
        rows, columns = np.indices(best.shape)
        np.testing.assert_array_equal(
            sample[..., :real], parameters.mean.numpy()[rows, columns, best]
        )
    if binary:
        np.testing.assert_array_equal(sample[..., real:], parameters.binary_logits.numpy() > 0)
    np.testing.assert_array_equal(layer.point_estimate(parameters), sample)
    soft = layer.point_estimate(parameters, binarize=False).numpy()
    np.testing.assert_array_equal(soft[..., :real], sample[..., :real])
    if binary:
        probabilities = 1 / (1 + np.exp(-parameters.binary_logits.numpy()))
        np.testing.assert_allclose(soft[..., real:], probabilities, rtol=1e-5)


def test_a_probability_of_exactly_one_half_gives_0():
    layer = Observation(0, 2)
    parameters = ObservationParameters((), (), (), tf.zeros([1, 3, 2]))
    np.testing.assert_array_equal(
        layer.sample(parameters, (0, 0), Places([0], PLACES.steps[:1, :3]), 1.0, 0.0),
        np.zeros((1, 3, 2)),
    )


@pytest.mark.parametrize(("temperature", "binary_temperature"), [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("components", [1, COMPONENTS])
def test_draws_have_the_moments_of_the_distribution(components, temperature, binary_temperature):
    rng = np.random.default_rng(5)
    mean = rng.standard_normal((components, REAL))
    sigma = rng.uniform(0.2, 1.5, (components, REAL))
    logits = rng.standard_normal(components)
    # As many binary features as real ones: noise that both shared would be of one shape, and show.
    binary_logits = rng.standard_normal(REAL)

    def repeated(values):
        repeats = (DRAWS // 2, 2) + (1,) * values.ndim
        return tf.constant(np.tile(values, repeats), tf.float32)

    parameters = ObservationParameters(
        repeated(mean),
        repeated(sigma),
        repeated(logits) if components > 1 else (),
        repeated(binary_logits),
    )
    layer = Observation(REAL, REAL, components)
    places = Places(np.arange(DRAWS // 2), np.tile(np.arange(2), (DRAWS // 2, 1)))
    sample = layer.sample(parameters, (6, 7), places, temperature, binary_temperature)
    sample = sample.numpy().reshape(DRAWS, 2 * REAL).astype(np.float64)
    real, binary = sample[:, :REAL], sample[:, REAL:]

    weights = np.exp(logits / temperature)
    weights = (weights / weights.sum())[:, np.newaxis]
    expected = (weights * mean).sum(axis=0)
    second = weights * (mean**2 + (temperature * sigma) ** 2)
    # Three means and as many squares: 4 standard errors are passed by chance once in 1000 runs,
    # and the seed is fixed.
    for power, moment in ((1, expected), (2, second.sum(axis=0))):
        error = np.abs((real**power).mean(axis=0) - moment)
        assert np.all(error < 4 * (real**power).std(axis=0) / np.sqrt(DRAWS)), power
    p = 1 / (1 + np.exp(-binary_logits / binary_temperature))
    assert set(np.unique(binary)) == {0.0, 1.0}
    assert np.all(np.abs(binary.mean(axis=0) - p) < 4 * np.sqrt(p * (1 - p) / DRAWS))
    if components > 1:
        # One component serves all features of a step, so features are correlated as its means are.
        together = np.einsum("ki,kj->ij", weights * mean, mean) - np.outer(expected, expected)
        products = (real[:, 0] - expected[0]) * (real[:, 1] - expected[1])
        error = abs(products.mean() - together[0, 1])
        assert abs(together[0, 1]) > 0.1
        assert error < 4 * products.std() / np.sqrt(DRAWS)
    # Real and binary parts, and the two steps of a sequence, do not know of each other.
    pairs = [
        ((real[:, i] - expected[i]) ** power, binary[:, i]) for i in range(REAL) for power in (1, 2)
    ]
    pairs += [(sample[::2, i], sample[1::2, i]) for i in range(2 * REAL)]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))


@KINDS
def test_the_same_seed_gives_the_same_sample(randomize, real, binary, components):
    layer = _made(randomize, real, binary, components)
    parameters = outputs_of(layer, _inputs())
    first, again, other = (
        layer.sample(parameters, seed, PLACES) for seed in ((1, 2), (1, 2), (1, 3))
    )
    np.testing.assert_array_equal(first, again)
    if real:
        assert np.all(np.any(first[..., :real] != other[..., :real], axis=-1))
    if binary:
        assert np.any(first[..., real:] != other[..., real:])


@KINDS
def test_a_draw_belongs_to_its_step_however_the_sequence_is_cut(
    randomize, real, binary, components
):
    layer = _made(randomize, real, binary, components)
    parameters = outputs_of(layer, _inputs())
    whole = layer.sample(parameters, (1, 2), PLACES)
    later = tf.nest.map_structure(lambda v: v[:, 4:7], parameters)
    part = layer.sample(later, (1, 2), PLACES._replace(steps=PLACES.steps[:, 4:7]))
    np.testing.assert_allclose(part, whole[:, 4:7], rtol=1e-4, atol=1e-5)
    # The same parameters at other steps: other draws.
    other = layer.sample(later, (1, 2), PLACES._replace(steps=PLACES.steps[:, 5:8]))
    assert np.any(other != part)


@KINDS
def test_the_heads_are_a_layer(real, binary, components):
    layer = Observation(real, binary, components, name="o")
    assert layer.initial_state(BATCH) == ()
    check_layer(layer, CHANNELS, receptive_field=1, output_dtype="float32")


def test_heads_are_float32_whatever_comes_in(randomize):
    layer = _made(randomize)
    parameters = outputs_of(layer, tf.cast(_inputs(), tf.bfloat16))
    assert {part.dtype for part in tf.nest.flatten(parameters)} == {tf.float32}
    assert Observation(1, 0, dtype="mixed_bfloat16").compute_dtype == "float32"


def test_parameter_count(randomize):
    outputs = 2 * REAL * COMPONENTS + COMPONENTS + BINARY
    assert _made(randomize).count_params() == outputs * (CHANNELS + 1)


def test_its_configuration_is_what_it_was_made_of():
    again = Observation.from_config(Observation(REAL, BINARY, COMPONENTS, name="o").get_config())
    assert again.name == "o"
    assert (again.num_real, again.num_binary, again.num_components) == (REAL, BINARY, COMPONENTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 1), "need a feature; got 0 real and 0 binary ones"),
        ((-1, 2, 1), "need a feature; got -1 real and 2 binary ones"),
        ((2, 1, 0), "num_components must be 1 or more, got 0"),
    ],
)
def test_no_feature_or_no_component_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Observation(*arguments)


# Two real features with a correlation


@pytest.fixture(params=[1, 3], ids=["bivariate", "bivariate-gmm"])
def correlated(request, randomize):
    layer = Observation(2, 1, request.param, is_correlated=True, name="o")
    layer.build((None, None, CHANNELS))
    return randomize(layer)


def _covariances(parameters):
    """[batch, time, components, 2, 2], float64."""
    sigma = parameters.sigma.numpy().astype(np.float64)
    correlation = np.tanh(parameters.correlation_logits.numpy().astype(np.float64))
    ones = np.ones_like(correlation)
    matrix = np.stack([ones, correlation, correlation, ones], axis=-1)
    matrix = matrix.reshape(*correlation.shape, 2, 2)
    return matrix * sigma[..., :, np.newaxis] * sigma[..., np.newaxis, :]


def test_the_density_of_correlated_features(correlated):
    parameters, x = outputs_of(correlated, _inputs()), _observed(2, 1)
    covariances = _covariances(parameters)
    error = x[..., np.newaxis, :2] - parameters.mean.numpy().astype(np.float64)
    mahalanobis = np.einsum("btci,btcij,btcj->btc", error, np.linalg.inv(covariances), error)
    of_components = -0.5 * (mahalanobis + np.log(np.linalg.det(2 * np.pi * covariances)))
    if correlated.num_components > 1:
        logits = parameters.component_logits.numpy().astype(np.float64)
        of_components += logits - _logsumexp(logits, -1)[..., np.newaxis]
    bit = parameters.binary_logits.numpy()[..., 0].astype(np.float64)
    expected = _logsumexp(of_components, -1) + x[..., 2] * bit - np.logaddexp(0, bit)
    np.testing.assert_allclose(correlated.log_prob(parameters, x), expected, rtol=1e-4, atol=1e-4)


def test_without_correlation_it_is_the_diagonal_density(randomize, correlated):
    parameters = outputs_of(correlated, _inputs())
    parameters = parameters._replace(
        correlation_logits=tf.zeros_like(parameters.correlation_logits)
    )
    diagonal = Observation(2, 1, correlated.num_components)
    x = _observed(2, 1)
    np.testing.assert_allclose(
        correlated.log_prob(parameters, x), diagonal.log_prob(parameters, x), rtol=1e-5, atol=1e-5
    )
    draws = (o.sample(parameters, (1, 2), PLACES) for o in (correlated, diagonal))
    np.testing.assert_allclose(*draws, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("logit", [-40.0, -0.8, 0.3, 40.0])
def test_draws_of_correlated_features_have_their_moments(logit):
    def repeated(values):
        values = tf.constant(values, tf.float32)
        return tf.tile(tf.reshape(values, [1, 1, 1, -1]), [DRAWS, 1, 1, 1])

    layer = Observation(2, 0, is_correlated=True)
    limited = np.clip(logit, -5.0, 5.0)
    parameters = ObservationParameters(
        repeated([0.5, -1.0]), repeated([2.0, 0.3]), (), (), repeated([limited])[..., 0]
    )
    places = Places(np.arange(DRAWS), np.zeros((DRAWS, 1), np.int32))
    drawn = layer.sample(parameters, (3, 4), places).numpy()[:, 0].astype(np.float64)
    expected = np.tanh(limited)
    assert (
        abs(np.corrcoef(drawn.T)[0, 1] - expected) < 4 * (1 - expected**2) / np.sqrt(DRAWS) + 1e-6
    )
    np.testing.assert_allclose(drawn.mean(axis=0), [0.5, -1.0], atol=0.06)
    np.testing.assert_allclose(drawn.std(axis=0), [2.0, 0.3], rtol=0.03)
    assert np.all(np.isfinite(layer.log_prob(parameters, drawn[:, np.newaxis].astype(np.float32))))


def test_the_correlation_is_bounded_so_that_no_density_is_infinite(randomize):
    layer = Observation(2, 0, is_correlated=True)
    layer.build((None, None, CHANNELS))
    randomize(layer)
    for sign in (-1, 1):
        layer.heads["correlation"].bias.assign([sign * 1e4])
        parameters = outputs_of(layer, _inputs())
        np.testing.assert_array_equal(parameters.correlation_logits, sign * 5.0)
        mean = parameters.mean[..., 0, :]
        assert np.all(np.isfinite(layer.log_prob(parameters, mean)))


def test_correlated_heads_are_a_layer(correlated):
    check_layer(
        Observation(2, 1, correlated.num_components, is_correlated=True, name="o"),
        CHANNELS,
        receptive_field=1,
        output_dtype="float32",
    )
    outputs = (2 * 2 + 1) * correlated.num_components + 1
    outputs += correlated.num_components if correlated.num_components > 1 else 0
    assert correlated.count_params() == outputs * (CHANNELS + 1)


@pytest.mark.parametrize("real", [1, 3])
def test_a_correlation_of_other_than_two_features_is_refused(real):
    with pytest.raises(ValueError, match=f"a correlation is of two real features, got {real}"):
        Observation(real, 0, is_correlated=True)


def test_sigma_from_its_log_variance(randomize):
    layers = [Observation(REAL, 0, 2, sigma_form=form) for form in ("softplus", "log_variance")]
    for layer in layers:
        layer.build((None, None, CHANNELS))
        randomize(layer)
    plain, other = (outputs_of(layer, _inputs()) for layer in layers)
    np.testing.assert_array_equal(plain.mean, other.mean)
    of_head = np.log(np.expm1(plain.sigma.numpy().astype(np.float64)))  # softplus undone
    expected = np.clip(np.exp(0.5 * of_head), 1e-3, 50.0)
    np.testing.assert_allclose(other.sigma, expected, rtol=1e-3)
    with pytest.raises(ValueError, match="sigma_form must be 'softplus' or 'log_variance', got 's"):
        Observation(1, 0, sigma_form="sigma")
