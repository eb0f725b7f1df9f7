import dataclasses
import inspect
import types

import keras
import numpy as np
import pytest

from stcn_tf.data.card import read_card
from stcn_tf.layers import Observation, WavenetBlock
from stcn_tf.layers.autoregressive import FeaturewiseObservation, HierarchicalObservation
from stcn_tf.models import STCN, Wavenet
from stcn_tf.models.registry import (
    MODELS,
    _class,
    build_model,
    check_has,
    make_observation,
    make_settings,
    settings_of,
)
from stcn_tf.models.settings import ModelSettings, STCNSettings, WavenetDenseSettings
from stcn_tf.released.observation import ReleasedObservation
from stcn_tf.released.stcn import ReleasedSTCN
from stcn_tf.support.errors import UserError


@pytest.fixture
def card(tiny_records):
    return read_card(tiny_records)  # two real features and a binary one


def test_settings_by_the_name_of_a_model():
    assert settings_of("stcn") is settings_of("stcn_dense") is STCNSettings
    made = make_settings("wavenet_dense", num_filters=7)
    assert made == WavenetDenseSettings(model="wavenet_dense", num_filters=7)
    assert make_settings().model == "stcn_dense"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: settings_of("pixelrnn"),
            f"model: 'pixelrnn'; accepted: {', '.join(MODELS)}",
        ),
        (
            lambda: make_settings("stcn", wavenet_blocks=3),
            "wavenet_blocks: stcn has no such setting; nearest: blocks_per_layer",
        ),
        (
            lambda: check_has("stcn", "smoothing", "--"),
            "--smoothing: stcn has no such setting",
        ),
    ],
)
def test_what_is_not_there_is_refused_by_name(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value) == message


def test_a_name_of_another_settings_class_is_refused(card):
    for name in ("wavenet", "pixelrnn"):
        with pytest.raises(UserError, match=f"'{name}'; accepted with STCNSettings: stcn, stcn_d"):
            build_model(STCNSettings(model=name), card)


def _arguments(path):
    """Of the constructors of a class and of those that it extends."""
    made = [kind for kind in _class(path).__mro__ if "__init__" in vars(kind)]
    return {name for kind in made for name in inspect.signature(kind.__init__).parameters}


@pytest.mark.parametrize("name", MODELS)
def test_every_setting_is_an_argument_of_its_class(name):
    """Of the observation and of the authors' program some are, which only these classes have."""
    entry = MODELS[name]
    own = set(entry.settings.names()) - set(ModelSettings.names())
    released = set(entry.settings.released_options)
    accepted = _arguments(entry.model)
    assert own - released <= accepted
    assert {"observation", "compute_dtype", *entry.fixed} <= accepted
    if entry.released:
        assert issubclass(_class(entry.released), _class(entry.model))
        assert own <= _arguments(entry.released)


@pytest.mark.parametrize(
    "name", [name for name, entry in MODELS.items() if "released_floors" in entry.settings.names()]
)
def test_the_authors_program_is_asked_for(card, tiny_config_with, name):
    settings = tiny_config_with(model={"model": name}).model
    plain = build_model(settings, card)
    assert type(plain.observation) is Observation
    assert not isinstance(plain, ReleasedSTCN)
    floors = build_model(dataclasses.replace(settings, released_floors=True), card)
    assert type(floors.observation) is ReleasedObservation
    assert isinstance(floors, ReleasedSTCN) == isinstance(plain, STCN)
    if isinstance(plain, STCN):
        draws = build_model(dataclasses.replace(settings, posterior_draws="independent"), card)
        assert isinstance(draws, ReleasedSTCN)
        assert type(draws.observation) is Observation


INK = types.SimpleNamespace(num_real=2, num_binary=1)
SPEECH = types.SimpleNamespace(num_real=3, num_binary=0)
PIXELS = types.SimpleNamespace(num_real=0, num_binary=1)


@pytest.mark.parametrize(
    ("kind", "features", "layer", "expected"),
    [
        ("normal", INK, Observation, {"num_components": 1, "is_correlated": False}),
        ("gmm", SPEECH, Observation, {"num_components": 7, "is_correlated": False}),
        ("bivariate", INK, Observation, {"num_components": 1, "is_correlated": True}),
        ("normal", INK, Observation, {"sigma_form": "log_variance"}),
        ("bivariate_gmm", INK, Observation, {"num_components": 7, "is_correlated": True}),
        (
            "featurewise_gmm",
            INK,
            FeaturewiseObservation,
            {"num_components": 7, "is_ordered": False},
        ),
        ("ordered_gmm", INK, FeaturewiseObservation, {"num_components": 7, "is_ordered": True}),
        (
            "hierarchical_gmm",
            SPEECH,
            HierarchicalObservation,
            {"num_components": 7, "units": 5, "embedding": 4, "frame_start": "initial"},
        ),
    ],
)
def test_the_observation_of_each_kind(kind, features, layer, expected):
    settings = make_settings(
        observation=kind,
        num_components=7,
        frame_units=5,
        frame_embedding=4,
        frame_start="initial",
        sigma_form="log_variance",
    )
    made = make_observation(settings, features)
    assert type(made) is layer
    assert (made.num_real, made.num_binary) == (features.num_real, features.num_binary)
    assert {name: getattr(made, name) for name in expected} == expected
    assert made.name == "observation"


@pytest.mark.parametrize(
    ("kind", "features", "more", "message"),
    [
        ("bivariate", SPEECH, {}, "'bivariate' of 3 real and 0 binary features; accepted: normal"),
        ("bivariate_gmm", PIXELS, {}, "'bivariate_gmm' of 0 real and 1 binary features; acc"),
        ("hierarchical_gmm", INK, {}, "accepted: normal, gmm, bivariate, .*ordered_gmm$"),
        ("hierarchical_gmm", PIXELS, {}, "accepted: normal, gmm, featurewise_gmm, ordered_gmm$"),
        (
            "ordered_gmm",
            INK,
            {"released_floors": True},
            "binary features with released_floors; accepted: normal, gmm$",
        ),
    ],
)
def test_observations_that_do_not_fit_the_features_are_refused(kind, features, more, message):
    with pytest.raises(UserError, match=message):
        make_observation(make_settings(observation=kind, **more), features)


def test_each_setting_reaches_the_model(card, tiny_config):
    settings = dataclasses.replace(
        tiny_config.model,
        blocks_per_layer=2,
        latent_sizes=(5, 3, 2),
        latent_hidden_layers=1,
        output_layers=2,
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
    assert {layer.posterior_scale for layer in model.latent_layers} == {"std"}
    assert [layer.filters for layer in model.output_layers] == [7, 7]
    assert (model.observation.num_real, model.observation.num_binary) == (2, 1)
    assert model.observation.num_components == 4
    # Nothing of the authors' program.
    assert type(model) is STCN
    assert type(model.observation) is Observation


@pytest.mark.parametrize("kind", ["wavenet", "wavenet_dense"])
def test_each_setting_reaches_the_wavenets(card, tiny_config_with, kind):
    dense = {"wavenet_dense_blocks": (2, 1, 5)} if kind == "wavenet_dense" else {}
    changes = {"kernel_size": 3, "dilations": (1, 2), "output_layers": 2, "wavenet_blocks": 5}
    settings = tiny_config_with(model={"model": kind, **changes, **dense}).model
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
    "observation": lambda model: type(model.observation) is ReleasedObservation,
    "latents": lambda model: model.released_floors,
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
        ("posterior_scale", "variance", lambda model: model.latent_layers[1].posterior_scale),
        ("latent_prior", "unit_top", lambda m: m.latent_layers[2].prior_kind + "_top"),
        ("latent_prior", "static", lambda model: model.latent_layers[1].prior_kind),
        ("latent_recursion", False, lambda model: model.latent_layers[0].units_above > 0),
        ("released_floors", True, FLOORS["observation"]),
        ("released_floors", True, FLOORS["latents"]),
    ],
)
def test_other_choices_reach_the_model(card, tiny_config, name, value, read):
    settings = dataclasses.replace(tiny_config.model, latent_sizes=(5, 3, 2), **{name: value})
    assert read(build_model(settings, card)) == value


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
def test_other_choices_reach_the_wavenets(card, tiny_config_with, name, value, read):
    changes = {"model": "wavenet", "wavenet_blocks": 4, name: value}
    assert read(build_model(tiny_config_with(model=changes).model, card)) == value


@pytest.mark.parametrize("kind", ["stcn", "wavenet"])
def test_wavenet_output_layers(card, tiny_config_with, kind):
    changes = {"output_type": "wavenet", "output_layers": 3, "output_kernel_size": 4}
    settings = tiny_config_with(model={"model": kind, **changes}).model
    layers = build_model(settings, card).output_layers
    assert {type(layer) for layer in layers} == {WavenetBlock}
    assert [(layer.filters, layer.kernel_size, layer.dilation) for layer in layers] == [
        (7, 4, 1)
    ] * 3


@pytest.mark.parametrize(
    ("name", "setting", "value", "read"),
    [
        ("rnn", "recurrent_units", 9, lambda m: m.recurrences[0].units),
        ("rnn", "recurrent_layers", 3, lambda m: len(m.recurrences)),
        ("rnn", "input_units", 9, lambda m: m.input_network.filters),
        ("rnn", "output_units", 9, lambda m: m.output_network.filters),
        ("rnn", "hidden_layers", 2, lambda m: len(m.output_network.hidden)),
        ("rnn", "unit_forget_bias", False, lambda m: m.recurrences[0].unit_forget_bias),
        ("rnn", "first_frame", "given", lambda m: {1: "given"}.get(m.num_given_frames)),
        ("vrnn", "latent_size", 9, lambda m: m.latent_sizes[0]),
        ("vrnn", "latent_units", 9, lambda m: m.prior_network.filters),
        ("vrnn", "latent_input_units", 9, lambda m: m.latent_network.filters),
        ("vrnn", "residual_posterior", True, lambda m: m.residual_posterior),
        ("srnn", "recurrent_units", 9, lambda m: m.seeing.units),
        ("srnn", "latent_units", 9, lambda m: m.posterior_network.filters),
        ("srnn", "hidden_layers", 1, lambda m: len(m.output_network.hidden)),
        ("srnn", "smoothing", False, lambda m: m.does_smooth),
        ("srnn", "residual_posterior", False, lambda m: m.residual_posterior),
        ("z_forcing", "recurrent_units", 9, lambda m: m.seeing.units),
        ("z_forcing", "latent_units", 9, lambda m: m.auxiliary_network.filters),
        ("z_forcing", "auxiliary_weight", 0.25, lambda m: m.auxiliary_weight),
        ("z_forcing", "backward_weight", 0.25, lambda m: m.backward_weight),
        ("z_forcing", "prior_sees_last_frame", True, lambda m: m.prior_sees_last_frame),
        ("swavenet", "num_filters", 9, lambda m: m.embedding.filters),
        ("swavenet", "deterministic_blocks", 2, lambda m: m.deterministic_blocks),
        ("swavenet", "latent_sizes", (4, 3), lambda m: m.latent_sizes),
        ("swavenet", "mixer_units", 9, lambda m: m.prior_mixers[0].hidden_units),
        ("swavenet", "gate", "linear", lambda m: m.blocks[0].gate.__name__),
        ("f_srnn", "recurrent_units", 9, lambda m: m.output_recurrence.units),
        ("f_srnn", "latent_units", 9, lambda m: m.posterior_network.filters),
        ("f_srnn", "unit_forget_bias", False, lambda m: m.seeing.unit_forget_bias),
        ("variational_bi_lstm", "recurrent_units", 9, lambda m: m.seeing.units),
        ("variational_bi_lstm", "forward_weight", 0.25, lambda m: m.forward_weight),
        ("variational_bi_lstm", "skip_gradient", False, lambda m: m.skip_gradient),
    ],
)
def test_choices_reach_the_recurrent_models(card, tiny_config_with, name, setting, value, read):
    plain, changed = (
        build_model(tiny_config_with(model={"model": name, **changes}).model, card)
        for changes in ({}, {setting: value})
    )
    assert read(plain) != value
    assert read(changed) == value


def test_every_setting_is_one_of_those_tested_here():
    tested = {"num_components", "num_filters", "blocks_per_layer", "latent_sizes"}
    tested |= {"latent_hidden_layers", "output_layers", "output_filters"}
    tested |= {"model", "kernel_size", "observation", "posterior_draws", "posterior_scale"}
    tested |= {"dilations", "wavenet_blocks", "wavenet_dense_blocks", "first_frame"}
    tested |= {"latent_filters", "output_type", "output_kernel_size", "released_floors"}
    tested |= {
        "recurrent_layers",
        "recurrent_units",
        "input_units",
        "output_units",
        "hidden_layers",
    }
    tested |= {"unit_forget_bias", "latent_size", "latent_units", "latent_input_units"}
    tested |= {"residual_posterior", "smoothing", "auxiliary_weight", "backward_weight"}
    tested |= {"frame_units", "frame_embedding", "frame_start", "sigma_form"}
    tested |= {"latent_prior", "latent_recursion", "deterministic_blocks", "mixer_units", "gate"}
    tested |= {"prior_sees_last_frame", "forward_weight", "skip_gradient"}
    assert tested == {name for entry in MODELS.values() for name in entry.settings.names()}


@pytest.mark.parametrize("kind", ["stcn_dense", "wavenet_dense"])
def test_weights_come_from_the_global_seed(card, tiny_config_with, kind):
    dense = {"wavenet_blocks": 3, "wavenet_dense_blocks": (1, 3)} if "wavenet" in kind else {}
    settings = tiny_config_with(model={"model": kind, **dense}).model
    made = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = build_model(settings, card)
        made.append({v.path: v.numpy() for v in model.weights})
    first, again, other = made
    assert all((first[path] == again[path]).all() for path in first)
    kernels = [path for path in first if path.endswith("/kernel")]
    assert all((first[path] != other[path]).any() for path in kernels)
    # Glorot's kernels, zero biases, as released.
    assert not any(first[path].any() for path in first if path.endswith("/bias"))


@pytest.mark.parametrize("kind", ["stcn_dense", "wavenet"])
def test_compute_dtype_reaches_the_convolutions(card, tiny_config_with, kind):
    settings = tiny_config_with(model={"model": kind}).model
    model = build_model(settings, card, "mixed_bfloat16")
    assert model.stack.blocks[0].output_conv.compute_dtype == "bfloat16"
    assert model.output_layers[0].compute_dtype == "bfloat16"
    assert {v.dtype for v in model.weights} == {"float32"}


def test_weights_are_saved_without_a_configuration(card, tiny_config, tmp_path):
    keras.utils.set_random_seed(5)
    first, second = (build_model(tiny_config.model, card) for _ in range(2))
    first.save_weights(tmp_path / "first.weights.h5")
    second.load_weights(tmp_path / "first.weights.h5")
    for mine, theirs in zip(second.weights, first.weights, strict=True):
        np.testing.assert_array_equal(mine.value, theirs.value)
    with pytest.raises(NotImplementedError, match="^STCN has no save of Keras: a run saves it"):
        first.save(tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["first.weights.h5"]
