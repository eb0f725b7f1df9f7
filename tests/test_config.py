import dataclasses
import json
import subprocess
import sys

import pytest

from stcn_tf.config import Config, RunSettings, TrainingSettings
from stcn_tf.models import registry
from stcn_tf.models.registry import make_settings
from stcn_tf.models.settings import (
    RNNSettings,
    SRNNSettings,
    STCNSettings,
    SWaveNetSettings,
    VariationalBiLSTMSettings,
    VRNNSettings,
    WavenetDenseSettings,
    WavenetSettings,
    ZForcingSettings,
)
from stcn_tf.support.errors import UserError

OTHER = Config(
    make_settings("stcn", latent_sizes=(7, 3), num_filters=8, dilations=(1, 3)),
    TrainingSettings(learning_rate=1e-3, seed=5),
    RunSettings(jit_compile=True),
)
WAVENET = Config(make_settings("wavenet_dense", wavenet_dense_blocks=(1, 3)))
# A config.json that `stcn_tf.train` wrote when all models shared one list of settings.
VERSION_1 = """\
{
 "model": {
  "model": "wavenet_dense",
  "observation": "gmm",
  "num_components": 20,
  "num_filters": 96,
  "kernel_size": 2,
  "blocks_per_layer": 5,
  "dilations": [],
  "wavenet_blocks": 25,
  "wavenet_dense_blocks": [5, 15, 25],
  "first_frame": "scored",
  "latent_sizes": [32, 16, 8, 4, 2],
  "latent_hidden_layers": 2,
  "latent_filters": 0,
  "output_type": "conv1x1",
  "output_layers": 2,
  "output_filters": 96,
  "output_kernel_size": 2,
  "posterior_draws": "shared",
  "posterior_precision": "std",
  "released_floors": false
 },
 "training": {
  "batch_size": 12,
  "max_length": 256,
  "shuffle_window": 2000,
  "pad_to_multiple": 1,
  "learning_rate": 0.001,
  "learning_rate_decay": 0.5,
  "kl_weight_start": 0.0,
  "kl_weight_increment": 0.0005,
  "clip_norm": 1.0,
  "loss_reduction": "mean_step",
  "max_epochs": 80,
  "max_steps": 3000,
  "evaluate_every": 500,
  "evaluate_sequences": 240,
  "patience": 0,
  "min_improvement": 0.0025,
  "checkpoint_every": 250,
  "log_every": 50,
  "sample_every": 0,
  "seed": 0,
  "precision": "float32",
  "jit_compile": true,
  "mirrored": false
 }
}
"""


def test_defaults_are_the_papers_for_handwriting():
    config = Config()
    model, training, run = config.model, config.training, config.run
    assert (model.model, model.observation, model.num_components) == ("stcn_dense", "gmm", 20)
    assert (model.num_filters, model.kernel_size, model.blocks_per_layer) == (256, 2, 6)
    assert model.latent_sizes == (32, 16, 8, 5, 2)
    assert (model.latent_hidden_layers, model.output_layers, model.output_filters) == (2, 5, 256)
    assert (model.posterior_draws, model.posterior_scale) == ("shared", "std")
    # One model and one likelihood for all, where the release has others.
    assert not model.released_floors
    assert (model.output_type, model.dilations, model.latent_filters) == ("conv1x1", (), 0)
    wavenet = make_settings("wavenet_dense")
    assert (wavenet.wavenet_blocks, wavenet.wavenet_dense_blocks) == (25, (5, 15, 25))
    assert wavenet.first_frame == "scored"
    assert (training.objective, training.num_samples, training.select) == ("elbo", 1, "bound")
    assert (training.batch_size, training.clip_norm, run.max_epochs) == (20, 1.0, 80)
    assert (training.learning_rate, training.learning_rate_decay) == (5e-4, 0.94)
    assert (training.kl_weight_start, training.kl_weight_increment) == (0.0, 1e-4)
    assert (run.evaluate_every, training.patience) == (500, 10)
    assert training.min_improvement == 0.0025


@pytest.mark.parametrize(
    "config", [Config(), OTHER, WAVENET], ids=["defaults", "other", "wavenet_dense"]
)
def test_json_round_trip(config):
    again = Config.from_json(config.to_json(), "config.json")
    assert again == config
    assert again.to_json() == config.to_json()
    assert isinstance(again.model.dilations, tuple)


@pytest.mark.parametrize("config", [OTHER, WAVENET], ids=["stcn", "wavenet_dense"])
def test_json_holds_the_settings_that_the_model_has_by_their_names(config):
    raw = json.loads(config.to_json())
    assert list(raw) == ["format_version", "model", "training", "run"]
    assert raw["format_version"] == 2
    for part in ("model", "training", "run"):
        assert tuple(raw[part]) == getattr(config, part).names()
    assert ("wavenet_blocks" in raw["model"]) == (config is WAVENET)
    assert ("latent_sizes" in raw["model"]) == (config is OTHER)


def test_settings_are_hashable_and_told_apart():
    assert hash(Config()) == hash(Config())
    assert Config() != OTHER


def test_what_is_no_part_of_a_runs_numbers():
    assert RunSettings.names() == (
        "max_epochs",
        "max_steps",
        "evaluate_every",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "sample_every",
        "jit_compile",
        "recompute",
        "strategy",
        "max_skipped",
        "deterministic",
    )


@pytest.mark.parametrize(("mirrored", "strategy"), [(False, "default"), (True, "mirrored")])
def test_mirrored_of_earlier_versions_is_a_strategy(mirrored, strategy):
    raw = json.loads(OTHER.to_json())
    del raw["run"]["strategy"]
    raw["run"]["mirrored"] = mirrored
    run = Config.from_json(json.dumps(raw), "config.json").run
    assert run == dataclasses.replace(OTHER.run, strategy=strategy)


REFUSED = [
    (STCNSettings, "observation", "laplace", "'laplace'; accepted: normal, gmm"),
    (STCNSettings, "posterior_draws", "", "''; accepted: shared, independent"),
    (STCNSettings, "posterior_scale", "sd", "'sd'; accepted: std, variance"),
    (STCNSettings, "num_components", 0, "0; accepted: 1 or more"),
    (STCNSettings, "num_filters", 0, "0; accepted: 1 or more"),
    (STCNSettings, "kernel_size", 1, "1; accepted: 2 or more"),
    (STCNSettings, "blocks_per_layer", 0, "0; accepted: 1 to 20"),
    (STCNSettings, "blocks_per_layer", 21, "21; accepted: 1 to 20"),
    (
        STCNSettings,
        "dilations",
        (1, 0),
        "(1, 0); accepted: whole numbers, each 1 to 1048576, or none",
    ),
    (
        WavenetSettings,
        "dilations",
        (),
        "(); accepted: one or more whole numbers, each 1 to 1048576",
    ),
    (WavenetSettings, "wavenet_blocks", 0, "0; accepted: 1 to 1000"),
    (WavenetSettings, "first_frame", "zero", "'zero'; accepted: scored, given"),
    (WavenetDenseSettings, "wavenet_dense_blocks", (), "(); accepted: one or more whole numbers"),
    (STCNSettings, "latent_sizes", (), "(); accepted: one or more whole numbers, each 1 or more"),
    (STCNSettings, "latent_hidden_layers", -1, "-1; accepted: 0 to 1000"),
    (STCNSettings, "latent_filters", -1, "-1; accepted: 0 or more"),
    (STCNSettings, "output_type", "conv", "'conv'; accepted: conv1x1, wavenet"),
    (STCNSettings, "output_kernel_size", 1, "1; accepted: 2 or more"),
    (STCNSettings, "released_floors", "yes", "'yes' of type str; accepted: bool"),
    (STCNSettings, "output_layers", -1, "-1; accepted: 0 to 1000"),
    (STCNSettings, "output_filters", 0, "0; accepted: 1 or more"),
    (STCNSettings, "sigma_form", "exp", "'exp'; accepted: softplus, log_variance"),
    (STCNSettings, "frame_units", 0, "0; accepted: 1 or more"),
    (STCNSettings, "frame_embedding", 0, "0; accepted: 1 or more"),
    (STCNSettings, "frame_start", "zero", "'zero'; accepted: context, initial"),
    (STCNSettings, "latent_prior", "unit", "'unit'; accepted: dynamic, unit_top, static"),
    (STCNSettings, "latent_recursion", 1, "1 of type int; accepted: bool"),
    (RNNSettings, "recurrent_units", 0, "0; accepted: 1 or more"),
    (RNNSettings, "recurrent_layers", 0, "0; accepted: 1 to 1000"),
    (RNNSettings, "input_units", 0, "0; accepted: 1 or more"),
    (RNNSettings, "output_units", 0, "0; accepted: 1 or more"),
    (RNNSettings, "hidden_layers", -1, "-1; accepted: 0 to 1000"),
    (RNNSettings, "unit_forget_bias", 1, "1 of type int; accepted: bool"),
    (RNNSettings, "first_frame", "zero", "'zero'; accepted: scored, given"),
    (VRNNSettings, "latent_size", 0, "0; accepted: 1 or more"),
    (VRNNSettings, "latent_units", 0, "0; accepted: 1 or more"),
    (VRNNSettings, "latent_input_units", 0, "0; accepted: 1 or more"),
    (VRNNSettings, "residual_posterior", "no", "'no' of type str; accepted: bool"),
    (SRNNSettings, "smoothing", "no", "'no' of type str; accepted: bool"),
    (ZForcingSettings, "auxiliary_weight", -0.1, "-0.1; accepted: 0 or more"),
    (ZForcingSettings, "backward_weight", -0.1, "-0.1; accepted: 0 or more"),
    (ZForcingSettings, "prior_sees_last_frame", "no", "'no' of type str; accepted: bool"),
    (VariationalBiLSTMSettings, "forward_weight", -0.1, "-0.1; accepted: 0 or more"),
    (VariationalBiLSTMSettings, "skip_gradient", "no", "'no' of type str; accepted: bool"),
    (SWaveNetSettings, "deterministic_blocks", 21, "21; accepted: 0 to 20"),
    (SWaveNetSettings, "mixer_units", -1, "-1; accepted: 0 or more"),
    (SWaveNetSettings, "gate", "tanh", "'tanh'; accepted: sigmoid, linear"),
    (TrainingSettings, "objective", "vlb", "'vlb'; accepted: elbo, iwae, fivo"),
    (TrainingSettings, "num_samples", 0, "0; accepted: 1 or more"),
    (TrainingSettings, "select", "best", "'best'; accepted: bound, objective"),
    (TrainingSettings, "batch_size", 0, "0; accepted: 1 or more"),
    (TrainingSettings, "max_length", 1, "1; accepted: 0, or 2 or more"),
    (TrainingSettings, "max_length", -5, "-5; accepted: 0, or 2 or more"),
    (TrainingSettings, "shuffle_window", 0, "0; accepted: 1 or more"),
    (TrainingSettings, "pad_to_multiple", -1, "-1; accepted: 0 or more"),
    (TrainingSettings, "learning_rate", 0.0, "0.0; accepted: more than 0"),
    (TrainingSettings, "learning_rate", float("inf"), "inf; accepted: finite numbers"),
    (TrainingSettings, "clip_norm", float("nan"), "nan; accepted: finite numbers"),
    (TrainingSettings, "learning_rate", "1e-3", "'1e-3' of type str; accepted: float"),
    (TrainingSettings, "learning_rate_decay", 0.0, "0.0; accepted: more than 0, 1 at most"),
    (TrainingSettings, "learning_rate_decay", 1.1, "1.1; accepted: more than 0, 1 at most"),
    (TrainingSettings, "kl_weight_start", 1.5, "1.5; accepted: 0 to 1"),
    (TrainingSettings, "kl_weight_increment", -1e-4, "-0.0001; accepted: 0 or more"),
    (TrainingSettings, "clip_norm", -1, "-1.0; accepted: 0 or more"),
    (TrainingSettings, "loss_reduction", "mean", "'mean'; accepted: mean_step, sum_step"),
    (RunSettings, "max_epochs", 0, "0; accepted: 1 or more"),
    (RunSettings, "max_steps", -1, "-1; accepted: 0 or more"),
    (RunSettings, "evaluate_every", 0, "0; accepted: 1 or more"),
    (TrainingSettings, "evaluate_sequences", -1, "-1; accepted: 0 or more"),
    (TrainingSettings, "patience", -1, "-1; accepted: 0 or more"),
    (TrainingSettings, "min_improvement", -0.1, "-0.1; accepted: 0 or more"),
    (RunSettings, "checkpoint_every", 0, "0; accepted: 1 or more"),
    (RunSettings, "log_every", 0, "0; accepted: 1 or more"),
    (RunSettings, "sample_every", -1, "-1; accepted: 0 or more"),
    (TrainingSettings, "seed", -1, "-1; accepted: 0 to 2147483647"),
    (TrainingSettings, "seed", 2**31, "2147483648; accepted: 0 to 2147483647"),
    (
        TrainingSettings,
        "precision",
        "float16",
        "'float16'; accepted: auto, float32, mixed_bfloat16",
    ),
    (RunSettings, "recompute", -1, "-1; accepted: 0 or more"),
    (RunSettings, "jit_compile", 1, "1 of type int; accepted: bool or null"),
    (RunSettings, "strategy", "all", "'all'; accepted: default, mirrored, multi_worker"),
    (RunSettings, "max_skipped", 0, "0; accepted: 1 or more"),
    (TrainingSettings, "init_from", None, "None of type NoneType; accepted: str"),
    (RunSettings, "keep_checkpoints", -1, "-1; accepted: 0 or more"),
    (RunSettings, "deterministic", "yes", "'yes' of type str; accepted: bool"),
]


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"), REFUSED, ids=[f"{r[1]}={r[2]}" for r in REFUSED]
)
def test_the_message_names_setting_value_and_what_is_accepted(kind, name, value, message):
    given = {"model": "m"} if "model" in kind.names() else {}
    with pytest.raises(UserError) as error:
        kind(**given, **{name: value})
    assert str(error.value).startswith(f"{name}: {message}")
    assert "\n" not in str(error.value)


def test_every_setting_refuses_something():
    kinds = (*(e.settings for e in registry.MODELS.values()), TrainingSettings, RunSettings)
    names = {name for kind in kinds for name in kind.names()} - {"model"}
    assert names == {name for _, name, _, _ in REFUSED}


@pytest.mark.parametrize("objective", ["iwae", "fivo"])
def test_bounds_of_several_draws_need_them(objective):
    assert TrainingSettings(objective=objective, num_samples=2).num_samples == 2
    with pytest.raises(UserError) as error:
        TrainingSettings(objective=objective)
    message = f"num_samples: 1; accepted: 2 or more (--objective={objective})"
    assert str(error.value) == message


def _json_with(part, **changes):
    raw = json.loads(Config().to_json())
    raw[part] |= changes
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON (Expecting property name"),
        ("[]", "accepted: an object with format_version, model, training, run"),
        ('{"model": {}}', "accepted: an object with model, training"),
        ('{"model": {}, "training": {}, "data": {}}', "accepted: an object with model, training"),
        ('{"model": [], "training": {}}', "model: an object is accepted"),
        (
            '{"format_version": 2, "model": {}, "training": {}}',
            "accepted: an object with format_version, model, training, run",
        ),
        (
            '{"format_version": 3, "model": {}, "training": {}, "run": {}}',
            "format_version: 3; accepted: 1 to 2",
        ),
        (
            '{"format_version": 2, "model": {}, "training": {}, "run": {}}',
            "model.model: missing; accepted: stcn, stcn_dense, wavenet, wavenet_dense",
        ),
        (
            _json_with("model", model=["stcn"]),
            "model.model: ['stcn']; accepted: stcn, stcn_dense, wavenet, wavenet_dense",
        ),
        (
            _json_with("model", num_filter=3, zzz="red", wavenet_blocks=3),
            "model: unknown settings: num_filter (nearest: num_filters), "
            "wavenet_blocks (nearest: blocks_per_layer), zzz",
        ),
        (
            _json_with("training", max_steps=3),
            "training: unknown settings: max_steps (nearest: max_length)",
        ),
        (_json_with("training", batch_size=0), "training.batch_size: 0; accepted: 1 or more"),
        (_json_with("run", log_every="3"), "run.log_every: '3' of type str; accepted: int"),
        (
            _json_with("model", latent_sizes="32"),
            "model.latent_sizes: '32' of type str; accepted: tuple",
        ),
        (
            _json_with("training", learning_rate=None),
            "training.learning_rate: None of type NoneType; accepted: float",
        ),
        ('{"model": {"hue": 3}, "training": {}}', "model: unknown settings: hue"),
        (
            '{"model": {"model": "wavenet", "blocks_per_layer": "a"}, "training": {}}',
            "model.blocks_per_layer: 'a' of type str; accepted: int",
        ),
    ],
)
def test_an_unacceptable_file_is_refused_by_name(text, message):
    with pytest.raises(UserError) as error:
        Config.from_json(text, "run/config.json")
    assert str(error.value).startswith(f"run/config.json: {message}")


def test_missing_settings_take_their_defaults():
    # As in runs of a version that did not know them yet.
    raw = json.loads(OTHER.to_json())
    del raw["training"]["seed"], raw["model"]["dilations"], raw["run"]["log_every"]
    again = Config.from_json(json.dumps(raw), "config.json")
    assert again.differences(OTHER) == [
        "model.dilations: (), not (1, 3)",
        "training.seed: 0, not 5",
    ]


def test_files_without_a_version_are_converted():
    assert Config.from_json(VERSION_1, "config.json") == Config(
        make_settings(
            "wavenet_dense",
            num_filters=96,
            output_layers=2,
            output_filters=96,
            dilations=(1, 2, 4, 8, 16),  # where there were none, those of one of STCN's layers
        ),
        TrainingSettings(
            batch_size=12,
            max_length=256,
            learning_rate=1e-3,
            learning_rate_decay=0.5,
            kl_weight_increment=5e-4,
            evaluate_sequences=240,
            patience=0,
            pad_to_multiple=1,
            precision="float32",
        ),
        RunSettings(max_steps=3000, checkpoint_every=250, sample_every=0, jit_compile=True),
    )
    stcn = json.loads(VERSION_1)
    stcn["model"] |= {"model": "stcn", "posterior_precision": "variance"}
    converted = Config.from_json(json.dumps(stcn), "config.json")
    assert converted.model == make_settings(
        "stcn",
        num_filters=96,
        output_layers=2,
        output_filters=96,
        blocks_per_layer=5,
        latent_sizes=(32, 16, 8, 4, 2),
        posterior_scale="variance",
    )
    assert Config.from_json('{"model": {}, "training": {}}', "config.json") == Config()


@pytest.mark.parametrize("blocks", [(3, 5), (8,), (8, 1, 3)])  # whatever blocks 6 to 8 are for
def test_blocks_that_wavenet_dense_reads(blocks):
    settings = make_settings("wavenet_dense", wavenet_blocks=8, wavenet_dense_blocks=blocks)
    assert settings.wavenet_dense_blocks == blocks


def test_blocks_that_are_not_there():
    with pytest.raises(UserError) as error:
        make_settings("wavenet_dense", wavenet_blocks=8, wavenet_dense_blocks=(3, 9))
    assert str(error.value) == (
        "wavenet_dense_blocks: (3, 9); accepted: one or more numbers from 1 to 8 (--wavenet_blocks)"
    )


def test_differences_are_told_line_by_line():
    assert Config().differences(Config()) == []
    assert OTHER.differences(Config()) == [
        "model.model: 'stcn', not 'stcn_dense'",
        "model.num_filters: 8, not 256",
        "model.dilations: (1, 3), not ()",
        "model.latent_sizes: (7, 3), not (32, 16, 8, 5, 2)",
        "training.learning_rate: 0.001, not 0.0005",
        "training.seed: 5, not 0",
        "run.jit_compile: True, not None",
    ]
    assert len(Config().differences(OTHER)) == 7
    assert OTHER.differences(Config(), ["training"]) == [
        "training.learning_rate: 0.001, not 0.0005",
        "training.seed: 5, not 0",
    ]
    assert WAVENET.differences(Config(), ["model"]) == [
        "model.model: 'wavenet_dense', not 'stcn_dense'",
        "model.dilations: (1, 2, 4, 8, 16, 32), not ()",
    ]


def test_settings_and_flags_do_without_tensorflow():
    code = "import sys, stcn_tf.flags, stcn_tf.models; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
