import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from absl import flags

import stcn_tf
from stcn_tf import flags as stcn_flags
from stcn_tf.config import Config, ModelConfig, TrainingConfig
from stcn_tf.support.errors import UserError

FLAGS = flags.FLAGS
SETTINGS = [(kind, f) for kind in (ModelConfig, TrainingConfig) for f in dataclasses.fields(kind)]
REQUIRED = ("--data=records", "--run_dir=run")
DEFINERS = {
    stcn_flags.define_train: {"data": "d", "run_dir": "r"},
    stcn_flags.define_evaluate: {"data": "d", "run_dir": "r"},
    stcn_flags.define_sample: {"run_dir": "r", "out": "o"},
    stcn_flags.define_reconstruct: {"data": "d", "run_dir": "r", "out": "o"},
    stcn_flags.define_export: {"run_dir": "r", "out": "o"},
    stcn_flags.define_import_tf1: {"checkpoint": "p", "config": "c", "run_dir": "r"},
}


@pytest.fixture
def parse_train(parse_flags):
    return lambda *arguments: parse_flags(stcn_flags.define_train, *REQUIRED, *arguments)


def test_every_setting_is_a_flag_with_its_default_text_and_type(parse_train):
    parse_train()
    for _, field in SETTINGS:
        flag = FLAGS[field.name]
        text, choices = field.metadata["help"], field.metadata["choices"]
        assert text
        assert flag.help == (f"<{'|'.join(choices)}>: {text}" if choices else text)
        if choices:
            assert flag.parser.enum_values == list(choices)
        expected = {bool: "bool", int: "int", float: "float", tuple: "comma separated list"}
        if type(field.default) in expected:
            assert flag.flag_type().startswith(expected[type(field.default)])


def test_without_flags_the_settings_are_the_defaults(parse_train):
    parse_train()
    assert stcn_flags.config() == Config()
    assert (FLAGS.data, FLAGS.run_dir) == ("records", "run")


def _other_value(field):
    choices = field.metadata["choices"]
    if choices:
        return next(choice for choice in choices if choice != field.default)
    if isinstance(field.default, bool):
        return not field.default
    if isinstance(field.default, tuple):
        return (9, 4, 1)
    if isinstance(field.default, float):
        return 0.125
    return field.default + 3


@pytest.mark.parametrize("field", [f for _, f in SETTINGS], ids=lambda field: field.name)
def test_each_flag_changes_its_setting_and_no_other(parse_train, field):
    value = _other_value(field)
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    parse_train(f"--{field.name}={text}")
    config = stcn_flags.config()
    part = "model" if field in dataclasses.fields(ModelConfig) else "training"
    changed = f"{part}.{field.name}: {value!r}, not {field.default!r}"
    assert config.differences(Config()) == [changed]
    assert Config.from_json(config.to_json(), "config.json") == config


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--latent_sizes=32,x", "--latent_sizes=32,x: whole numbers are accepted, as in 32,16,8"),
        ("--latent_sizes=8,2.5", "--latent_sizes=8,2.5: whole numbers are accepted"),
        ("--latent_sizes=", "--latent_sizes: (); accepted: one or more sizes"),
        ("--latent_sizes=8,0", "--latent_sizes: (8, 0); accepted: one or more sizes"),
        ("--kernel_size=1", "--kernel_size: 1; accepted: 2 or more"),
        ("--learning_rate=-1", "--learning_rate: -1.0; accepted: more than 0"),
        ("--seed=-3", "--seed: -3; accepted: 0 or more"),
    ],
)
def test_unacceptable_values_are_refused_by_the_flags_name(parse_train, argument, message):
    parse_train(argument)
    with pytest.raises(UserError) as error:
        stcn_flags.config()
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--model=vrnn", r"--model=vrnn.*<stcn\|stcn_dense\|wavenet\|wavenet_dense>"),
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
        ModelConfig(num_filters=16, latent_sizes=(4, 2)), TrainingConfig(seed=5)
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
        ModelConfig(num_filters=32, latent_sizes=(4, 2), released_floors=True),
        TrainingConfig(seed=7),
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
    assert stcn_flags.config() == Config(training=TrainingConfig(seed=11))


def test_as_released_may_be_given_again(parse_train):
    parse_train("--released=seed=3", "--as_released", "--released=seed=5", "--as_released")
    assert stcn_flags.config() == Config(training=TrainingConfig(seed=5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--as_released"], "--as_released: no released values before it"),
        (["--as_released", "--released=seed=3"], "--as_released: no released values before it"),
        (["--released=seed"], "flag --released=seed: no value"),
        (["--released=data=d"], "flag --released=data=d: 'data' is no setting"),
        (["--released=seed=x"], "flag --released=seed=x: seed: invalid literal for int"),
        (["--released=model=rnn"], r"model: value should be one of <stcn\|stcn_dense\|"),
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
    @dataclasses.dataclass
    class Odd:
        when: bytes = dataclasses.field(default=b"", metadata={"help": "some text", "choices": ()})

    with pytest.raises(TypeError, match="no kind of flag for the setting when"):
        stcn_flags.define_settings(Odd)


def test_every_setting_is_read_somewhere():
    folder = Path(stcn_tf.__file__).parent
    sources = [p.read_text() for p in folder.rglob("*.py") if p.name != "config.py"]
    # What other settings are put together to; checks alone are no use of a setting.
    sources.append(inspect.getsource(ModelConfig.stack_dilations.fget))
    unread = [
        field.name
        for _, field in SETTINGS
        if not any(re.search(rf"\.{field.name}\b", source) for source in sources)
    ]
    assert unread == []
