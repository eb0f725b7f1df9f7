"""What Keras makes of every layer: a functional model is saved and loaded with it."""

import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import stcn_tf.layers
from stcn_tf.layers import (
    CausalConv,
    GaussianNetwork,
    LatentLayer,
    Observation,
    SequenceLayer,
    WavenetBlock,
    WavenetStack,
)
from stcn_tf.layers.autoregressive import FeaturewiseObservation, HierarchicalObservation
from stcn_tf.layers.mlp import MLP, GaussianForm, GaussianMLP, clipped_leaky_relu
from stcn_tf.layers.recurrent import Recurrent
from stcn_tf.layers.swavenet import Mixer, NormedBlock
from stcn_tf.released import observation as released
from tests.contract import assert_same, randomize

BATCH, TIME, CHANNELS = 3, 7, 4
FORM = GaussianForm(clipped_leaky_relu, is_separate=True, spread="variance", bound=8.0)
LAYERS = [
    CausalConv(5, 3, 2, "tanh", name="layer"),
    FeaturewiseObservation(2, 1, 3, is_ordered=True, name="layer"),
    GaussianMLP(2, 5, 1, FORM, name="layer"),
    GaussianNetwork(2, 5, 1, name="layer"),
    HierarchicalObservation(3, 0, 2, units=5, embedding=2, frame_start="initial", name="layer"),
    MLP(5, 2, clipped_leaky_relu, name="layer"),
    Mixer(5, 3, name="layer"),
    NormedBlock(5, 2, "linear", name="layer"),
    Observation(2, 1, 3, is_correlated=True, sigma_form="log_variance", name="layer"),
    Recurrent(5, "gru", name="layer"),
    Recurrent(5, "lstm", unit_forget_bias=False, name="layer"),
    WavenetBlock(5, 2, 3, name="layer"),
    WavenetStack(5, 2, (1, 2), name="layer"),
    WavenetStack(5, 2, (1,), name="layer", dtype="mixed_bfloat16"),
    released.ReleasedObservation(2, 1, 3, name="layer"),
]
ALL = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)


def test_these_are_all_layers():
    found = set()
    names = [m.name for m in pkgutil.iter_modules(stcn_tf.layers.__path__, "stcn_tf.layers.")]
    for module in [*map(importlib.import_module, names), released]:
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, keras.layers.Layer) and not name.startswith("_"):
                found.add(kind)
    assert found == {type(layer) for layer in LAYERS} | {SequenceLayer, LatentLayer}
    for kind in found - {SequenceLayer}:
        assert keras.saving.get_registered_name(kind) == f"stcn_tf>{kind.__name__}"


@ALL
def test_a_functional_model_is_loaded_as_it_was_saved(layer, tmp_path):
    layer.build((None, None, CHANNELS))
    randomize(layer)
    inputs = keras.Input((None, CHANNELS))
    state = tf.nest.map_structure(
        lambda part: keras.Input(part.shape[1:], dtype=part.dtype.name), layer.initial_state(1)
    )
    model = keras.Model([inputs, *tf.nest.flatten(state)], tf.nest.flatten(layer(inputs, state)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.get_layer("layer")
    assert type(again) is type(layer) and again is not layer
    assert again.get_config() == layer.get_config()
    assert_same([v.value for v in again.weights], [v.value for v in layer.weights])

    rng = np.random.default_rng(1)
    x = tf.constant(rng.standard_normal((BATCH, TIME, CHANNELS)), tf.float32)
    given = [x, *tf.nest.flatten(layer.initial_state(BATCH))]
    expected = tf.nest.flatten(layer(x, layer.initial_state(BATCH)))
    for found in (model(given), loaded(given)):
        assert_same(tf.nest.flatten(found), expected)


def test_a_latent_layer_comes_back_from_its_configuration():
    layer = LatentLayer(3, 5, 1, "variance", "static", 2, name="layer")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is LatentLayer
    assert again.get_config() == layer.get_config()
