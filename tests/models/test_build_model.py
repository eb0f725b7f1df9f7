import dataclasses

import keras
import pytest

from stcn_tf.config import ModelConfig
from stcn_tf.data.records import read_card
from stcn_tf.models import STCN, build_model


@pytest.fixture
def card(tiny_records):
    return read_card(tiny_records)  # two real features and a binary one


def test_each_setting_reaches_the_model(card, tiny_config):
    settings = dataclasses.replace(
        tiny_config.model, blocks_per_layer=2, latent_hidden_layers=1, output_layers=2
    )
    model = build_model(settings, card)
    assert isinstance(model, STCN)
    assert model.built
    assert model.name == "stcn_dense"
    assert model.dense
    assert model.stack.filters == settings.num_filters
    assert model.stack.dilations == (1, 2) * 3
    assert model.stack.blocks[0].kernel_size == settings.kernel_size
    assert [layer.units for layer in model.latent_layers] == [5, 3, 2]
    assert {layer.hidden_layers for layer in model.latent_layers} == {1}
    assert {layer.hidden_units for layer in model.latent_layers} == {6}
    assert {layer.precision for layer in model.latent_layers} == {"std"}
    assert [layer.filters for layer in model.output_layers] == [7, 7]
    assert (model.observation.num_real, model.observation.num_binary) == (2, 1)
    assert model.observation.num_components == 4
    assert model.posterior_draws == "shared"


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("model", "stcn", lambda model: "stcn_dense" if model.dense else model.name),
        ("kernel_size", 3, lambda model: model.stack.blocks[0].kernel_size),
        ("observation", "normal", lambda m: {1: "normal"}.get(m.observation.num_components)),
        ("posterior_draws", "independent", lambda model: model.posterior_draws),
        ("posterior_precision", "variance", lambda model: model.latent_layers[1].precision),
    ],
)
def test_other_choices_reach_the_model(card, tiny_config, name, value, read):
    model = build_model(dataclasses.replace(tiny_config.model, **{name: value}), card)
    assert read(model) == value


def test_every_setting_is_one_of_those_tested_here():
    tested = {"num_components", "num_filters", "blocks_per_layer", "latent_sizes"}
    tested |= {"latent_hidden_layers", "output_layers", "output_filters"}
    tested |= {"model", "kernel_size", "observation", "posterior_draws", "posterior_precision"}
    assert tested == {field.name for field in dataclasses.fields(ModelConfig)}


def test_weights_come_from_the_global_seed(card, tiny_config):
    made = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = build_model(tiny_config.model, card)
        made.append({v.path: v.numpy() for v in model.variables})
    first, again, other = made
    assert all((first[path] == again[path]).all() for path in first)
    kernels = [path for path in first if path.endswith("/kernel")]
    assert all((first[path] != other[path]).any() for path in kernels)
    # Glorot's kernels, zero biases, as released.
    assert not any(first[path].any() for path in first if path.endswith("/bias"))


def test_compute_dtype_reaches_the_convolutions(card, tiny_config):
    model = build_model(tiny_config.model, card, "mixed_bfloat16")
    assert model.stack.blocks[0].output_conv.compute_dtype == "bfloat16"
    assert model.output_layers[0].compute_dtype == "bfloat16"
    assert {v.dtype for v in model.variables} == {"float32"}
