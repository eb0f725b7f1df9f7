import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import bounds
from stcn_tf.layers.observation import Observation
from stcn_tf.models import Wavenet
from stcn_tf.released.stcn import ReleasedSTCN
from tests.contract import assert_close, randomize

LENGTHS = np.array([11, 7, 0], np.int32)


def _observation():
    return Observation(2, 1, 4, name="observation")


def _stcn(output_type, **changes):
    return ReleasedSTCN(
        observation=_observation(),
        num_filters=6,
        kernel_size=3,
        blocks_per_layer=2,
        latent_sizes=(4, 3),
        latent_hidden_layers=1,
        output_layers=2,
        output_filters=5,
        dense=True,
        output_type=output_type,
        **changes,
    )


def _wavenet(first_frame):
    return Wavenet(
        observation=_observation(),
        num_filters=6,
        kernel_size=2,
        dilations=(1, 2, 4),
        wavenet_blocks=3,
        output_layers=1,
        output_filters=5,
        first_frame=first_frame,
    )


MODELS = {
    "stcn": lambda: _stcn("conv1x1", posterior_draws="independent"),
    "stcn-wavenet-output": lambda: _stcn("wavenet", posterior_draws="shared"),
    "wavenet": lambda: _wavenet("scored"),
    "wavenet-given": lambda: _wavenet("given"),
}


@pytest.fixture(scope="module")
def x():
    x = np.random.default_rng(0).standard_normal((3, 11, 3)).astype(np.float32)
    x[..., 2] = x[..., 2] > 0
    return x * (np.arange(11) < LENGTHS[:, np.newaxis])[..., np.newaxis]


def _scored(model, x, every, kl_weight=0.7):
    with tf.GradientTape() as tape:
        scored = bounds.score_samples(
            model, x, LENGTHS, (1, 2), 3, kl_weight=kl_weight, at_once=3, recompute_every=every
        )
        loss = tf.reduce_sum(scored.bound) + tf.reduce_sum(scored.mean.objective(0.5))
    weights = [v.value for v in model.trainable_variables]
    return scored, tape.gradient(loss, weights)


def _assert_same_gradients(found, expected, share=1e-4):
    """To a share of the largest of each variable."""
    for mine, theirs in zip(found, expected, strict=True):
        size = max(np.max(np.abs(theirs)), 1.0)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=share * size)


@pytest.mark.parametrize("name", MODELS)
def test_terms_and_gradients_are_those_of_whole_sequences(name, x):
    model = MODELS[name]()
    model.build()
    randomize(model)
    scored, gradients = _scored(model, x, 0)
    for every in (1, 4, 20):
        found, its_gradients = _scored(model, x, every)
        assert_close(found, scored, 1e-4, 1e-3)
        _assert_same_gradients(its_gradients, gradients)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_in_graphs_of_open_sizes(jit_compile, x):
    model = MODELS["stcn-wavenet-output"]()
    model.build()
    randomize(model)
    scored, gradients = _scored(model, x, 0)
    graph = tf.function(
        lambda x: _scored(model, x, 4),
        input_signature=[tf.TensorSpec([None, None, 3])],
        jit_compile=jit_compile,
        autograph=False,
    )
    found, its_gradients = graph(x)
    assert_close(found, scored, 1e-3, 1e-3)
    _assert_same_gradients(its_gradients, gradients, 1e-3)


def test_under_bfloat16_states_are_handed_on_as_they_are(x):
    keras.utils.set_random_seed(0)
    model = _stcn("wavenet", compute_dtype="mixed_bfloat16")
    model.build()
    (scored, gradients), (found, its_gradients) = (_scored(model, x, every) for every in (0, 4))
    assert_close(found, scored, 1e-2, 1e-2)
    _assert_same_gradients(its_gradients, gradients, 0.05)
