import dataclasses
import json
import subprocess
import sys

import pytest

from stcn_tf.config import Config, ModelConfig, TrainingConfig
from stcn_tf.support.errors import UserError

OTHER = Config(
    ModelConfig(model="stcn", latent_sizes=(7, 3), num_filters=8, dilations=(1, 3)),
    TrainingConfig(learning_rate=1e-3, jit_compile=True, seed=5),
)


def test_defaults_are_the_papers_for_handwriting():
    model, training = ModelConfig(), TrainingConfig()
    assert (model.model, model.observation, model.num_components) == ("stcn_dense", "gmm", 20)
    assert (model.num_filters, model.kernel_size, model.blocks_per_layer) == (256, 2, 6)
    assert model.latent_sizes == (32, 16, 8, 5, 2)
    assert (model.latent_hidden_layers, model.output_layers, model.output_filters) == (2, 5, 256)
    assert (model.posterior_draws, model.posterior_precision) == ("shared", "std")
    assert (model.wavenet_blocks, model.wavenet_dense_blocks) == (25, (5, 15, 25))
    # One model and one likelihood for all, where the release has others.
    assert (model.first_frame, model.released_floors) == ("scored", False)
    assert (model.output_type, model.dilations, model.latent_filters) == ("conv1x1", (), 0)
    assert (training.batch_size, training.clip_norm, training.max_epochs) == (20, 1.0, 80)
    assert (training.learning_rate, training.learning_rate_decay) == (5e-4, 0.94)
    assert (training.kl_weight_start, training.kl_weight_increment) == (0.0, 1e-4)
    assert (training.evaluate_every, training.patience) == (500, 10)
    assert training.min_improvement == 0.0025


@pytest.mark.parametrize("config", [Config(), OTHER], ids=["defaults", "other"])
def test_json_round_trip(config):
    again = Config.from_json(config.to_json(), "config.json")
    assert again == config
    assert again.to_json() == config.to_json()
    for name in ("latent_sizes", "dilations", "wavenet_dense_blocks"):
        assert isinstance(getattr(again.model, name), tuple)


def test_json_holds_every_setting_by_its_name():
    raw = json.loads(Config().to_json())
    assert list(raw) == ["model", "training"]
    for part, kind in (("model", ModelConfig), ("training", TrainingConfig)):
        assert list(raw[part]) == [field.name for field in dataclasses.fields(kind)]


def test_settings_are_frozen_hashable_and_told_apart():
    assert hash(Config()) == hash(Config())
    assert Config() != OTHER
    with pytest.raises(dataclasses.FrozenInstanceError):
        OTHER.model.num_filters = 9


def test_whole_numbers_and_lists_are_taken_for_floats_and_tuples():
    assert type(TrainingConfig(learning_rate=1).learning_rate) is float
    assert ModelConfig(latent_sizes=[4, 2]).latent_sizes == (4, 2)


REFUSED = [
    (ModelConfig, "model", "vrnn", "'vrnn'; accepted: stcn, stcn_dense, wavenet, wavenet_dense"),
    (ModelConfig, "observation", "laplace", "'laplace'; accepted: normal, gmm"),
    (ModelConfig, "posterior_draws", "", "''; accepted: shared, independent"),
    (ModelConfig, "posterior_precision", "sd", "'sd'; accepted: std, variance"),
    (ModelConfig, "num_components", 0, "0; accepted: 1 or more"),
    (ModelConfig, "num_filters", 0, "0; accepted: 1 or more"),
    (ModelConfig, "num_filters", 8.0, "8.0 of type float; accepted: int"),
    (ModelConfig, "num_filters", True, "True of type bool; accepted: int"),
    (ModelConfig, "kernel_size", 1, "1; accepted: 2 or more"),
    (ModelConfig, "blocks_per_layer", 0, "0; accepted: 1 to 20"),
    (ModelConfig, "blocks_per_layer", 21, "21; accepted: 1 to 20"),
    (ModelConfig, "dilations", (1, 0), "(1, 0); accepted: dilations of 1 or more, or none"),
    (ModelConfig, "dilations", (1, 2.0), "(1, 2.0); accepted: dilations of 1 or more"),
    (ModelConfig, "dilations", (1, True), "(1, True); accepted: dilations of 1 or more"),
    (ModelConfig, "dilations", 2, "2 of type int; accepted: tuple"),
    (ModelConfig, "wavenet_blocks", 0, "0; accepted: 1 or more"),
    (ModelConfig, "wavenet_dense_blocks", "5,15", "'5,15' of type str; accepted: tuple"),
    (ModelConfig, "first_frame", "zero", "'zero'; accepted: scored, given"),
    (ModelConfig, "latent_sizes", (), "(); accepted: one or more sizes of 1 or more units"),
    (ModelConfig, "latent_sizes", (4, 0), "(4, 0); accepted: one or more sizes"),
    (ModelConfig, "latent_sizes", (4, 2.0), "(4, 2.0); accepted: one or more sizes"),
    (ModelConfig, "latent_sizes", "32,16", "'32,16' of type str; accepted: tuple"),
    (ModelConfig, "latent_hidden_layers", -1, "-1; accepted: 0 or more"),
    (ModelConfig, "latent_filters", -1, "-1; accepted: 0 or more"),
    (ModelConfig, "output_type", "conv", "'conv'; accepted: conv1x1, wavenet"),
    (ModelConfig, "output_kernel_size", 1, "1; accepted: 2 or more"),
    (ModelConfig, "released_floors", "yes", "'yes' of type str; accepted: bool"),
    (ModelConfig, "output_layers", -1, "-1; accepted: 0 or more"),
    (ModelConfig, "output_filters", 0, "0; accepted: 1 or more"),
    (TrainingConfig, "batch_size", 0, "0; accepted: 1 or more"),
    (TrainingConfig, "max_length", 1, "1; accepted: 0, or 2 or more"),
    (TrainingConfig, "max_length", -5, "-5; accepted: 0, or 2 or more"),
    (TrainingConfig, "shuffle_window", 0, "0; accepted: 1 or more"),
    (TrainingConfig, "pad_to_multiple", 0, "0; accepted: 1 or more"),
    (TrainingConfig, "learning_rate", 0.0, "0.0; accepted: more than 0"),
    (TrainingConfig, "learning_rate", float("inf"), "inf; accepted: finite numbers"),
    (TrainingConfig, "clip_norm", float("nan"), "nan; accepted: finite numbers"),
    (TrainingConfig, "learning_rate", "1e-3", "'1e-3' of type str; accepted: float"),
    (TrainingConfig, "learning_rate_decay", 0.0, "0.0; accepted: 0 < value <= 1"),
    (TrainingConfig, "learning_rate_decay", 1.1, "1.1; accepted: 0 < value <= 1"),
    (TrainingConfig, "kl_weight_start", 1.5, "1.5; accepted: 0 to 1"),
    (TrainingConfig, "kl_weight_increment", -1e-4, "-0.0001; accepted: 0 or more"),
    (TrainingConfig, "clip_norm", -1, "-1.0; accepted: 0 or more"),
    (TrainingConfig, "loss_reduction", "mean", "'mean'; accepted: mean_step, sum_step"),
    (TrainingConfig, "max_epochs", 0, "0; accepted: 1 or more"),
    (TrainingConfig, "max_steps", -1, "-1; accepted: 0 or more"),
    (TrainingConfig, "evaluate_every", 0, "0; accepted: 1 or more"),
    (TrainingConfig, "evaluate_sequences", -1, "-1; accepted: 0 or more"),
    (TrainingConfig, "patience", -1, "-1; accepted: 0 or more"),
    (TrainingConfig, "min_improvement", -0.1, "-0.1; accepted: 0 or more"),
    (TrainingConfig, "checkpoint_every", 0, "0; accepted: 1 or more"),
    (TrainingConfig, "log_every", 0, "0; accepted: 1 or more"),
    (TrainingConfig, "sample_every", -1, "-1; accepted: 0 or more"),
    (TrainingConfig, "seed", -1, "-1; accepted: 0 or more"),
    (TrainingConfig, "seed", 2**31, "2147483648; accepted: 0 to 2^31 - 1"),
    (TrainingConfig, "precision", "float16", "'float16'; accepted: float32, mixed_bfloat16"),
    (TrainingConfig, "jit_compile", 1, "1 of type int; accepted: bool"),
    (TrainingConfig, "mirrored", "no", "'no' of type str; accepted: bool"),
]


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"), REFUSED, ids=[f"{r[1]}={r[2]}" for r in REFUSED]
)
def test_the_message_names_setting_value_and_what_is_accepted(kind, name, value, message):
    with pytest.raises(UserError) as error:
        kind(**{name: value})
    assert str(error.value).startswith(f"{name}: {message}")
    assert "\n" not in str(error.value)


def test_every_setting_refuses_something():
    fields = [field for kind in (ModelConfig, TrainingConfig) for field in dataclasses.fields(kind)]
    assert {field.name for field in fields} == {name for _, name, _, _ in REFUSED}


def _json_with(part, **changes):
    raw = json.loads(Config().to_json())
    raw[part] |= changes
    return json.dumps({k: v for k, v in raw.items() if v is not None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "run/config.json: not JSON (Expecting property name"),
        ("[]", "run/config.json: accepted: an object with model and training"),
        ('{"model": {}}', "run/config.json: accepted: an object with model and training"),
        ('{"model": {}, "training": {}, "data": {}}', "run/config.json: accepted: an object"),
        ('{"model": [], "training": {}}', "run/config.json: model: an object is accepted"),
        (
            _json_with("model", speed=3, colour="red"),
            "run/config.json: model: unknown settings: colour, speed",
        ),
        (
            _json_with("training", batch_size=0),
            "run/config.json: training.batch_size: 0; accepted: 1 or more",
        ),
        (
            _json_with("model", latent_sizes="32"),
            "run/config.json: model.latent_sizes: '32' of type str; accepted: tuple",
        ),
        (
            _json_with("training", learning_rate=None),
            "run/config.json: training.learning_rate: None of type NoneType; accepted: float",
        ),
    ],
)
def test_an_unacceptable_file_is_refused_by_name(text, message):
    with pytest.raises(UserError) as error:
        Config.from_json(text, "run/config.json")
    assert str(error.value).startswith(message)


def test_missing_settings_take_their_defaults():
    # As in runs of a version that did not know them yet.
    raw = json.loads(OTHER.to_json())
    del raw["training"]["seed"], raw["model"]["dilations"], raw["model"]["first_frame"]
    again = Config.from_json(json.dumps(raw), "config.json")
    assert again.differences(OTHER) == [
        "model.dilations: (), not (1, 3)",
        "training.seed: 0, not 5",
    ]
    empty = Config.from_json('{"model": {}, "training": {}}', "config.json")
    assert empty == Config()


@pytest.mark.parametrize(
    ("blocks", "accepted"),
    [
        ((), False),
        ((0, 3, 8), False),
        ((3, 9), False),
        ((3, 8.0), False),
        ((True, 8), False),
        ((3, 5), True),  # whatever blocks 6 to 8 are for
        ((8,), True),
        ((8, 1, 3), True),
    ],
)
def test_blocks_that_wavenet_dense_reads(blocks, accepted):
    settings = {"wavenet_blocks": 8, "wavenet_dense_blocks": blocks}
    for model in ("stcn", "stcn_dense", "wavenet"):
        ModelConfig(model=model, **settings)  # which do not read the setting
    if accepted:
        assert ModelConfig(model="wavenet_dense", **settings).wavenet_dense_blocks == blocks
        return
    with pytest.raises(UserError) as error:
        ModelConfig(model="wavenet_dense", **settings)
    assert str(error.value) == (
        f"wavenet_dense_blocks: {blocks}; accepted: one or more numbers from 1 to 8 "
        "(--wavenet_blocks)"
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"blocks_per_layer": 3, "latent_sizes": (4, 2)}, (1, 2, 4) * 2),
        (
            {"blocks_per_layer": 2, "latent_sizes": (4, 3, 2), "dilations": (1, 3, 5, 7)},
            (1, 3, 5, 7, 1, 3),
        ),
        ({"blocks_per_layer": 3, "latent_sizes": (4,), "dilations": (2,)}, (2, 2, 2)),
        ({"model": "wavenet", "blocks_per_layer": 3, "wavenet_blocks": 5}, (1, 2, 4, 1, 2)),
        ({"model": "wavenet", "wavenet_blocks": 2, "dilations": (5, 4, 3)}, (5, 4)),
        (
            {"model": "wavenet_dense", "blocks_per_layer": 5},
            (1, 2, 4, 8, 16) * 5,
        ),
    ],
)
def test_dilation_of_each_block(settings, expected):
    assert ModelConfig(**settings).stack_dilations == expected


def test_differences_are_told_line_by_line():
    assert Config().differences(Config()) == []
    assert OTHER.differences(Config()) == [
        "model.model: 'stcn', not 'stcn_dense'",
        "model.num_filters: 8, not 256",
        "model.dilations: (1, 3), not ()",
        "model.latent_sizes: (7, 3), not (32, 16, 8, 5, 2)",
        "training.learning_rate: 0.001, not 0.0005",
        "training.seed: 5, not 0",
        "training.jit_compile: True, not False",
    ]
    assert len(Config().differences(OTHER)) == 7


def test_settings_and_flags_do_without_tensorflow():
    code = "import sys, stcn_tf.flags; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
