import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers import phase
from stcn_tf.layers.observation import Observation
from stcn_tf.layers.swavenet import Mixer, NormedBlock
from stcn_tf.models.swavenet import SWaveNet
from tests.contract import (
    SEED,
    assert_close,
    assert_same,
    check_layer,
    check_model,
    frames,
    randomize,
)

LENGTHS = np.array([9, 5, 1], np.int32)


def make(features=(2, 1, 2), **settings):
    sizes = {
        "num_filters": 6,
        "deterministic_blocks": 1,
        "latent_sizes": (3, 4),
        "mixer_units": 5,
    }
    model = SWaveNet(observation=Observation(*features, name="observation"), **sizes | settings)
    model.build()
    return variances_positive(randomize(model, scale=0.4))


def variances_positive(model):
    """Running variances are."""
    for weight in model.weights:
        if weight.path.endswith("moving_variance"):
            weight.assign(tf.abs(weight) + 0.5)
    return model


def test_it_is_a_model():
    check_model(make)


@pytest.mark.parametrize("is_variant", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_so_is_its_variant(is_variant):
    settings = {"latent_sizes": (3,), "mixer_units": 0, "gate": "linear", "features": (0, 2, 1)}
    check_model(lambda **changes: make(**settings | changes), is_variant=is_variant)


def test_m_is_a_layer():
    for hidden_units in (0, 5):
        check_layer(Mixer(4, hidden_units, name="m"), 3, receptive_field=1)


def _block(gate="sigmoid"):
    block = NormedBlock(4, 2, gate, name="block")
    block.build((None, None, 3))
    return variances_positive(randomize(block))


def _sigmoid(v):
    return 1.0 / (1.0 + np.exp(-v))


@pytest.mark.parametrize("gate", ["sigmoid", "linear"])
@pytest.mark.parametrize("is_training", [False, True])
def test_the_equation_of_a_block(gate, is_training):
    """Statistics of a batch are those of its steps without padding; running ones move a tenth."""
    block = _block(gate)
    x = np.random.default_rng(1).standard_normal((3, 9, 3)).astype(np.float32)
    w = {v.path.split("/", 1)[1]: v.numpy().astype(np.float64) for v in block.weights}
    earlier = np.pad(x, [(0, 0), (2, 0), (0, 0)])[:, :9]
    mask = np.arange(9) < LENGTHS[:, np.newaxis]
    branches, moved = {}, {}
    for name in ("filter", "gate", "residual"):
        value = x @ w[f"{name}/kernel"][-1] + w[f"{name}/bias"]
        if name != "residual":
            value += earlier @ w[f"{name}/kernel"][0]
        mean, variance = (w[f"{name}_norm/moving_{part}"] for part in ("mean", "variance"))
        if is_training:
            own = value[mask].mean(axis=0), value[mask].var(axis=0)
            moved[name] = tuple(
                0.9 * old + 0.1 * new for old, new in zip((mean, variance), own, strict=True)
            )
            mean, variance = own
        value = (value - mean) / np.sqrt(variance + 1e-5)
        branches[name] = value * w[f"{name}_norm/gamma"] + w[f"{name}_norm/beta"]
    opened = branches["gate"] if gate == "linear" else _sigmoid(branches["gate"])
    expected = branches["residual"] + np.tanh(branches["filter"]) * opened
    if is_training:
        with phase.training():
            found, _ = block(x, block.initial_state(3), LENGTHS)
    else:
        found, _ = block(x, block.initial_state(3), LENGTHS)
    np.testing.assert_allclose(found.numpy()[mask], expected[mask], rtol=1e-4, atol=1e-5)
    for name in ("filter", "gate", "residual") if is_training else ():
        norm = dict(zip(("filter", "gate", "residual"), block.norms, strict=True))[name]
        for variable, value in zip(
            (norm.moving_mean, norm.moving_variance), moved[name], strict=True
        ):
            np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-5)


def test_scoring_moves_no_running_statistics_and_training_does():
    model = make()
    x = frames(model, 3, 9)
    kept = [w.numpy() for w in model.weights]
    first = model.score(x, LENGTHS, SEED)
    assert_same(model.score(x, LENGTHS, SEED), first)
    for weight, value in zip(model.weights, kept, strict=True):
        np.testing.assert_array_equal(weight, value)
    with phase.training():
        model.score(x, LENGTHS, SEED)
    for weight, value in zip(model.weights, kept, strict=True):
        assert np.all(weight.numpy() != value) == ("moving_" in weight.path)
    assert not phase.is_training()


def test_padding_is_nothing_to_the_statistics_of_a_batch():
    results = []
    for extra in (0, 4):
        model = make()
        x = np.pad(frames(model, 3, 9), [(0, 0), (0, extra), (0, 0)])
        x[np.arange(9 + extra) >= LENGTHS[:, np.newaxis]] = 7.0 if extra else 0.0
        with phase.training():
            terms = model.score(x, LENGTHS, SEED)
        results.append(
            ([w.numpy() for w in model.weights], terms.log_likelihood[:, :9], terms.kl[:, :9])
        )
    assert_close(*results)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [(lambda: NormedBlock(3, 1, "tanh"), "gate must be 'sigmoid' or 'linear', got 'tanh'")],
)
def test_what_cannot_be_is_refused(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()
