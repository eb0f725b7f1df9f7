import dataclasses

import keras
import pytest

from stcn_tf.config import ModelConfig
from stcn_tf.data.records import read_card
from stcn_tf.layers import WavenetBlock
from stcn_tf.models import STCN, Wavenet, build_model


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
    assert not model.observation.released_floors


@pytest.mark.parametrize("kind", ["wavenet", "wavenet_dense"])
def test_each_setting_reaches_the_wavenets(card, tiny_config, kind):
    settings = dataclasses.replace(
        tiny_config.model,
        model=kind,
        kernel_size=3,
        blocks_per_layer=2,
        output_layers=2,
        wavenet_blocks=5,
        wavenet_dense_blocks=(2, 1, 5),
    )
    model = build_model(settings, card)
    assert isinstance(model, Wavenet)
    assert model.built
    assert model.name == kind
    assert model.dense_blocks == ((2, 1, 5) if kind == "wavenet_dense" else ())
    assert model.causal.filters == model.stack.filters == 6
    assert model.causal.kernel_size == model.stack.kernel_size == 3
    assert model.stack.dilations == (1, 2, 1, 2, 1)
    assert [layer.filters for layer in model.output_layers] == [7, 7]
    assert (model.observation.num_real, model.observation.num_binary) == (2, 1)
    assert model.observation.num_components == 4
    assert model.num_given_frames == 0


FLOORS = {
    "observation": lambda model: model.observation.released_floors,
    "latents": lambda model: model.latent_layers[1].released_floors,
}


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("model", "stcn", lambda model: "stcn_dense" if model.dense else model.name),
        ("kernel_size", 3, lambda model: model.stack.blocks[0].kernel_size),
        ("dilations", (3, 1, 4), lambda model: model.stack.dilations),
        ("latent_filters", 9, lambda model: model.latent_layers[1].hidden_units),
        ("observation", "normal", lambda m: {1: "normal"}.get(m.observation.num_components)),
        ("output_type", "wavenet", lambda m: m.do_latents_reach_across_steps and "wavenet"),
        ("posterior_draws", "independent", lambda model: model.posterior_draws),
        ("posterior_precision", "variance", lambda model: model.latent_layers[1].precision),
        ("released_floors", True, FLOORS["observation"]),
        ("released_floors", True, FLOORS["latents"]),
    ],
)
def test_other_choices_reach_the_model(card, tiny_config, name, value, read):
    model = build_model(dataclasses.replace(tiny_config.model, **{name: value}), card)
    assert read(model) == value


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("first_frame", "given", lambda model: {1: "given"}.get(model.num_given_frames)),
        ("dilations", (2, 3), lambda model: tuple(sorted(set(model.stack.dilations)))),
        ("observation", "normal", lambda m: {1: "normal"}.get(m.observation.num_components)),
        ("wavenet_blocks", 3, lambda model: len(model.stack.blocks)),
        ("released_floors", True, FLOORS["observation"]),
    ],
)
def test_other_choices_reach_the_wavenets(card, tiny_config, name, value, read):
    settings = dataclasses.replace(tiny_config.model, model="wavenet", wavenet_blocks=4)
    assert read(build_model(dataclasses.replace(settings, **{name: value}), card)) == value


@pytest.mark.parametrize("kind", ["stcn", "wavenet"])
def test_wavenet_output_layers(card, tiny_config, kind):
    settings = dataclasses.replace(
        tiny_config.model,
        model=kind,
        wavenet_blocks=2,
        output_type="wavenet",
        output_layers=3,
        output_kernel_size=4,
    )
    layers = build_model(settings, card).output_layers
    assert {type(layer) for layer in layers} == {WavenetBlock}
    assert [(layer.filters, layer.kernel_size, layer.dilation) for layer in layers] == [
        (7, 4, 1)
    ] * 3


def test_every_setting_is_one_of_those_tested_here():
    tested = {"num_components", "num_filters", "blocks_per_layer", "latent_sizes"}
    tested |= {"latent_hidden_layers", "output_layers", "output_filters"}
    tested |= {"model", "kernel_size", "observation", "posterior_draws", "posterior_precision"}
    tested |= {"dilations", "wavenet_blocks", "wavenet_dense_blocks", "first_frame"}
    tested |= {"latent_filters", "output_type", "output_kernel_size", "released_floors"}
    assert tested == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize("kind", ["stcn_dense", "wavenet_dense"])
def test_weights_come_from_the_global_seed(card, tiny_config, kind):
    settings = dataclasses.replace(
        tiny_config.model, model=kind, wavenet_blocks=3, wavenet_dense_blocks=(1, 3)
    )
    made = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = build_model(settings, card)
        made.append({v.path: v.numpy() for v in model.variables})
    first, again, other = made
    assert all((first[path] == again[path]).all() for path in first)
    kernels = [path for path in first if path.endswith("/kernel")]
    assert all((first[path] != other[path]).any() for path in kernels)
    # Glorot's kernels, zero biases, as released.
    assert not any(first[path].any() for path in first if path.endswith("/bias"))


@pytest.mark.parametrize("kind", ["stcn_dense", "wavenet"])
def test_compute_dtype_reaches_the_convolutions(card, tiny_config, kind):
    settings = dataclasses.replace(tiny_config.model, model=kind)
    model = build_model(settings, card, "mixed_bfloat16")
    assert model.stack.blocks[0].output_conv.compute_dtype == "bfloat16"
    assert model.output_layers[0].compute_dtype == "bfloat16"
    assert {v.dtype for v in model.variables} == {"float32"}
