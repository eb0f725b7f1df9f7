import dataclasses
import re
from pathlib import Path

import pytest
from absl import flags

import stcn_tf
from stcn_tf import flags as stcn_flags
from stcn_tf.config import Config, RunSettings, TrainingSettings
from stcn_tf.models.registry import MODELS, make_settings
from stcn_tf.settings import Settings, setting
from stcn_tf.support.errors import UserError

FLAGS = flags.FLAGS
# By model or part, each with a field of its settings.
SETTINGS = [
    (name, field)
    for name, kind in [
        *((name, entry.settings) for name, entry in MODELS.items()),
        ("training", TrainingSettings),
        ("run", RunSettings),
    ]
    for field in dataclasses.fields(kind)
    if field.name != "model"
]
REQUIRED = ("--data=records", "--run_dir=run")
DEFINERS = {
    stcn_flags.define_train: {"data": "d", "run_dir": "r"},
    stcn_flags.define_evaluate: {"data": "d", "run_dir": "r"},
    stcn_flags.define_sample: {"run_dir": "r"},
    stcn_flags.define_reconstruct: {"data": "d", "run_dir": "r", "out": "o"},
    stcn_flags.define_export: {"run_dir": "r", "out": "o"},
    stcn_flags.define_serve: {},
    stcn_flags.define_runs: {},
    stcn_flags.define_report: {},
    stcn_flags.define_import_tf1: {"checkpoint": "p", "config": "c", "run_dir": "r"},
}


@pytest.fixture
def parse_train(parse_flags):
    return lambda *arguments: parse_flags(stcn_flags.define_train, *REQUIRED, *arguments)


def test_every_setting_is_a_flag_with_its_text_default_and_type(parse_train):
    parse_train()
    for _, field in SETTINGS:
        flag = FLAGS[field.name]
        text, choices = field.metadata["help"], field.metadata["choices"]
        assert text and text in flag.help
        assert flag.default is None
        default = stcn_flags._default(field)
        assert default in flag.help
        if choices:
            assert flag.parser.enum_values == list(choices)
        expected = {bool: "bool", int: "int", float: "float", tuple: "comma separated list"}
        if type(field.default) in expected:
            assert flag.flag_type().startswith(expected[type(field.default)])


def test_settings_of_one_name_are_of_one_type():
    for fields in stcn_flags.model_fields().values():
        assert len({type(field.default) for field in fields.values()}) == 1
    # Nor may a model's setting have the name of another part's.
    others = {*TrainingSettings.names(), *RunSettings.names()}
    assert others.isdisjoint(stcn_flags.model_fields())
    assert set(TrainingSettings.names()).isdisjoint(RunSettings.names())


def test_the_help_says_which_models_have_a_setting_and_its_default_for_each(parse_train):
    parse_train()
    assert FLAGS["num_components"].help == "components of a mixture; default: 20"
    assert FLAGS["num_filters"].help == (
        "of stcn, stcn_dense, wavenet, wavenet_dense: filters of the Wavenet blocks; default: 256; "
        "of swavenet: channels of all blocks; default: 200"
    )
    assert FLAGS["wavenet_dense_blocks"].help == (
        "of wavenet_dense: blocks whose residual outputs are read; 1 is the lowest; "
        "default: 5,15,25"
    )
    assert FLAGS["dilations"].help == (
        "of stcn, stcn_dense: dilations of the Wavenet blocks, over and over; empty: "
        "1,2,...,2^(K-1); default: empty; of wavenet, wavenet_dense: dilations of the Wavenet "
        "blocks, over and over (released: 1,2,4,8,16); default: 1,2,4,8,16,32"
    )
    assert FLAGS["strategy"].help.endswith("; default: default")
    assert FLAGS["jit_compile"].help.endswith("; default: chosen")
    for name, entry in MODELS.items():
        assert f"{name}: {entry.about}" in FLAGS["model"].help
    assert FLAGS["model"].help.endswith("; default: stcn_dense")


def test_without_flags_the_settings_are_the_defaults(parse_train):
    parse_train()
    assert stcn_flags.config() == Config()
    assert (FLAGS.data, FLAGS.run_dir) == ("records", "run")


def _other_value(field):
    choices = field.metadata["choices"]
    if choices:
        return next(choice for choice in choices if choice != field.default)
    if field.metadata["kind"] is bool:
        return not field.default
    if isinstance(field.default, tuple):
        return (9, 4, 1)
    if isinstance(field.default, float):
        return 0.125
    if isinstance(field.default, str):
        return "some/path"
    return field.default + 3


@pytest.mark.parametrize(("part", "field"), SETTINGS, ids=lambda part: getattr(part, "name", part))
def test_each_flag_changes_its_setting_and_no_other(parse_train, part, field):
    value = _other_value(field)
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    model = part if part in MODELS else "stcn"
    # An objective of several draws needs them.
    more = ["--num_samples=2"] if field.name == "objective" else []
    parse_train(f"--model={model}", f"--{field.name}={text}", *more)
    config = stcn_flags.config()
    default = Config(make_settings(model))
    changed = (
        f"{'model' if part in MODELS else part}.{field.name}: {value!r}, not {field.default!r}"
    )
    assert [line for line in config.differences(default) if "num_samples: 2," not in line] == [
        changed
    ]
    assert Config.from_json(config.to_json(), "config.json") == config


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--latent_sizes=32,x", "--latent_sizes=32,x: whole numbers are accepted, as in 32,16,8"),
        ("--latent_sizes=8,2.5", "--latent_sizes=8,2.5: whole numbers are accepted"),
        ("--latent_sizes=", "--latent_sizes: (); accepted: one or more whole"),
        ("--latent_sizes=8,0", "--latent_sizes: (8, 0); accepted: one or more whole"),
        ("--kernel_size=1", "--kernel_size: 1; accepted: 2 or more"),
        ("--learning_rate=-1", "--learning_rate: -1.0; accepted: more than 0"),
        ("--seed=-3", "--seed: -3; accepted: 0 to 2147483647"),
    ],
)
def test_unacceptable_values_are_refused_by_the_flags_name(parse_train, argument, message):
    parse_train(argument)
    with pytest.raises(UserError) as error:
        stcn_flags.config()
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--wavenet_blocks=3"],
            "--wavenet_blocks: stcn_dense has no such setting; nearest: --blocks_per_layer",
        ),
        (["--wavenet_blocks=25"], "--wavenet_blocks: stcn_dense has no such setting; nearest: --"),
        (
            ["--latent_filters=3", "--model=wavenet"],
            "--latent_filters: wavenet has no such setting; nearest: --num_filters",
        ),
        (
            ["--model=wavenet", "--wavenet_dense_blocks=1"],
            "--wavenet_dense_blocks: wavenet has no such setting; nearest: --wavenet_blocks",
        ),
        (
            ["--released=first_frame=given", "--as_released"],
            "--first_frame: stcn_dense has no such setting",
        ),
        (
            ["--released=wavenet_blocks=3"],
            "--released=wavenet_blocks: stcn_dense has no such setting; nearest: --released=blocks",
        ),
    ],
)
def test_a_setting_of_another_model_is_refused(parse_train, arguments, message):
    parse_train(*arguments)
    with pytest.raises(UserError) as error:
        stcn_flags.config()
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--model=pixelrnn", r"--model=pixelrnn.*<stcn\|stcn_dense\|wavenet\|wavenet_dense\|rnn"),
        ("--num_filters=many", "--num_filters=many"),
        ("--learning_rate=fast", "--learning_rate=fast"),
        ("--filters=3", "Unknown command line flag 'filters'"),
    ],
)
def test_values_of_another_type_and_unknown_flags_are_refused(parse_train, argument, named):
    with pytest.raises(flags.Error, match=named):
        parse_train(argument)


def test_later_flags_win_also_over_a_flagfile(parse_train, tmp_path):
    base, own = tmp_path / "base.flags", tmp_path / "own.flags"
    base.write_text("# A comment.\n--num_filters=8\n--latent_sizes=4,2\n--seed=3\n")
    own.write_text(f"--flagfile={base}\n--num_filters=16\n")
    parse_train(f"--flagfile={own}", "--seed=5")
    assert stcn_flags.config() == Config(
        make_settings(num_filters=16, latent_sizes=(4, 2)), TrainingSettings(seed=5)
    )


@pytest.mark.parametrize("define", DEFINERS, ids=lambda define: define.__name__)
def test_each_command_requires_its_paths_and_nothing_else(parse_flags, define):
    required = DEFINERS[define]
    parse_flags(define, *(f"--{name}={value}" for name, value in required.items()))
    assert {name: FLAGS[name].value for name in required} == required


@pytest.mark.parametrize(
    ("define", "missing"),
    [(define, name) for define in DEFINERS for name in DEFINERS[define]],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_a_missing_path_is_named(parse_flags, define, missing):
    given = [f"--{name}={v}" for name, v in DEFINERS[define].items() if name != missing]
    with pytest.raises(flags.IllegalFlagValueError, match=f"--{missing}"):
        parse_flags(define, *given)


@pytest.mark.parametrize(
    ("define", "argument"),
    [
        (stcn_flags.define_evaluate, "--batch_size=0"),
        (stcn_flags.define_evaluate, "--limit=-1"),
        (stcn_flags.define_evaluate, "--checkpoint=newest"),
        (stcn_flags.define_sample, "--num=0"),
        (stcn_flags.define_sample, "--length=0"),
        (stcn_flags.define_sample, "--temperature=-0.5"),
        (stcn_flags.define_sample, "--latent_temperature=-0.5"),
        (stcn_flags.define_sample, "--beginning=-1"),
        (stcn_flags.define_reconstruct, "--num=0"),
        (stcn_flags.define_reconstruct, "--seed=-1"),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_values_out_of_range_are_refused(parse_flags, define, argument):
    required = [f"--{name}={value}" for name, value in DEFINERS[define].items()]
    with pytest.raises(flags.IllegalFlagValueError, match=re.escape(argument)):
        parse_flags(define, *required, argument)


def test_as_released_sets_what_was_released_at_its_place(parse_train, tmp_path):
    base, released = tmp_path / "base.flags", tmp_path / "released.flags"
    base.write_text(
        "--num_filters=24\n--released=num_filters=32\n--released=latent_sizes=4,2\n"
        "--released=released_floors=true\n--released=posterior_draws=independent\n"
    )
    released.write_text("# A comment.\n--as_released\n")
    files = (f"--flagfile={base}", f"--flagfile={released}")
    parse_train("--num_filters=5", "--seed=7", *files, "--posterior_draws=shared")
    assert stcn_flags.config() == Config(
        make_settings(num_filters=32, latent_sizes=(4, 2), released_floors=True),
        TrainingSettings(seed=7),
    )
    assert FLAGS["num_filters"].present
    assert not FLAGS["latent_sizes"].using_default_value
    assert FLAGS["num_components"].using_default_value


def test_released_values_alone_change_nothing(parse_train):
    parse_train("--released=seed=3", "--released=clip_norm=0.5")
    assert stcn_flags.config() == Config()


@pytest.mark.parametrize("argument", ["--noas_released", "--as_released=false"])
def test_noas_released_does_nothing(parse_train, argument):
    parse_train(argument, "--released=seed=3", argument)
    assert stcn_flags.config() == Config()


def test_the_last_released_value_wins_and_one_after_as_released_is_not_used(parse_train):
    given = [f"--released=seed={seed}" for seed in (3, 11)]
    parse_train(*given, "--as_released", "--released=seed=5", "--released=batch_size=4")
    assert stcn_flags.config() == Config(training=TrainingSettings(seed=11))


def test_as_released_may_be_given_again(parse_train):
    parse_train("--released=seed=3", "--as_released", "--released=seed=5", "--as_released")
    assert stcn_flags.config() == Config(training=TrainingSettings(seed=5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--as_released"], "--as_released: no released values before it"),
        (["--as_released", "--released=seed=3"], "--as_released: no released values before it"),
        (["--released=seed"], "flag --released=seed: no value"),
        (["--released=data=d"], "flag --released=data=d: 'data' is no setting"),
        (["--released=seed=x"], "flag --released=seed=x: seed: invalid literal for int"),
        (["--released=model=pixelrnn"], r"model: value should be one of <stcn\|stcn_dense\|"),
        (["--released=released_floors=maybe"], "released_floors: Non-boolean argument"),
    ],
)
def test_released_values_that_cannot_be_are_refused(parse_train, arguments, message):
    with pytest.raises(flags.Error, match=message):
        parse_train(*arguments)


def test_only_training_knows_released_values(parse_flags):
    parse_flags(stcn_flags.define_evaluate, "--data=d", "--run_dir=r")
    assert {"released", "as_released"}.isdisjoint(FLAGS)


def test_a_setting_without_a_kind_of_flag_is_a_defect():
    @dataclasses.dataclass(frozen=True)
    class Odd(Settings):
        when: bytes = setting(b"", "some text")

    with pytest.raises(TypeError, match="no kind of flag for the setting when"):
        stcn_flags.define_settings(Odd)


def test_the_lines_of_a_flagfile_give_the_settings(parse_train, tmp_path):
    config = Config(
        make_settings("wavenet", dilations=(1, 3), released_floors=True, first_frame="given"),
        TrainingSettings(learning_rate=1e-3, objective="iwae", num_samples=5),
        RunSettings(jit_compile=True, max_steps=7),
    )
    (tmp_path / "own.flags").write_text("\n".join(stcn_flags.flag_lines(config)))
    parse_train(f"--flagfile={tmp_path}/own.flags")
    assert stcn_flags.config() == config
    assert stcn_flags.flag_lines(Config()) == ["--model=stcn_dense"]


def test_every_setting_of_training_and_runs_is_read_somewhere():
    folder = Path(stcn_tf.__file__).parent
    sources = [p.read_text() for p in folder.rglob("*.py") if p.name != "config.py"]
    unread = [
        name
        for name in (*TrainingSettings.names(), *RunSettings.names())
        if not any(re.search(rf"\.{name}\b", source) for source in sources)
    ]
    assert unread == []
