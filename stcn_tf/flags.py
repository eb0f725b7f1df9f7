"""Every absl flag of the commands, once, and the way from flags to settings.

The flags of models, training and run are made from the fields of the settings classes, so that a
setting has one name, one text and one type. A flag that is not given stands for the default of the
settings class that is chosen. Each command defines only the groups that it reads.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from stcn_tf.config import Config, RunSettings, TrainingSettings
from stcn_tf.models import registry
from stcn_tf.settings import Settings
from stcn_tf.support.errors import UserError
from stcn_tf.support.path_flag import define_path
from stcn_tf.web.settings import ServeSettings

FLAGS = flags.FLAGS

_SETTINGS = frozenset(
    name
    for kind in (*(e.settings for e in registry.MODELS.values()), TrainingSettings, RunSettings)
    for name in kind.names()
)


def model_fields() -> dict[str, dict[str, dataclasses.Field]]:
    """The settings that models have, by name, and of each its field by the model's name."""
    fields = {}
    for model, entry in registry.MODELS.items():
        for field in dataclasses.fields(entry.settings):
            if field.name != "model":
                fields.setdefault(field.name, {})[model] = field
    return fields


def define_settings(kind: type[Settings], but: Iterable[str] = ()) -> None:
    """Defines one flag for each field of a settings class, but for some."""
    for field in dataclasses.fields(kind):
        if field.name in but:
            continue
        _define_setting(field.name, [field], f"{field.metadata['help']}; {_default(field)}")


def define_model() -> None:
    """Defines `--model` and one flag for each setting that any model has."""
    about = "; ".join(f"{name}: {entry.about}" for name, entry in registry.MODELS.items())
    text = f"{about}; default: {registry.DEFAULT_MODEL}"
    flags.DEFINE_enum("model", None, list(registry.MODELS), text)
    for name, fields in model_fields().items():
        _define_setting(name, list(fields.values()), _text_of_models(fields))


def _define_setting(name: str, fields: list[dataclasses.Field], text: str) -> None:
    """A flag without a default of its own; `fields` are of one type."""
    kind = fields[0].metadata["kind"]
    choices = list(dict.fromkeys(c for field in fields for c in field.metadata["choices"]))
    if choices:
        flags.DEFINE_enum(name, None, choices, text)
    elif kind is bool:
        flags.DEFINE_bool(name, None, text)
    elif kind is int:
        flags.DEFINE_integer(name, None, text)
    elif kind is float:
        flags.DEFINE_float(name, None, text)
    elif kind is str:
        define_path(name, None, text)
    elif kind is tuple:
        flags.DEFINE_list(name, None, text)
    else:
        raise TypeError(f"no kind of flag for the setting {name}")


def _text_of_models(fields: Mapping[str, dataclasses.Field]) -> str:
    """The text of a setting, which models have it unless all do, and its default for each."""
    models: dict[tuple[str, str], list[str]] = {}
    for model, field in fields.items():
        models.setdefault((field.metadata["help"], _default(field)), []).append(model)
    if len(models) == 1 and len(fields) == len(registry.MODELS):
        ((text, default),) = models
        return f"{text}; {default}"
    return "; ".join(
        f"of {', '.join(names)}: {text}; {default}" for (text, default), names in models.items()
    )


def _default(field: dataclasses.Field) -> str:
    if field.default is None:
        return "default: chosen"
    text = _as_flag(field.default)
    return f"default: {text if text != '' else 'empty'}"


def _as_flag(value: Any) -> str:
    """A setting's value as a flag gives it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def flag_lines(config: Config) -> list[str]:
    """The lines of a flagfile that give these settings; the model, and what is no default."""
    lines = []
    for part in (config.model, config.training, config.run):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if value != field.default:
                lines.append(f"--{field.name}={_as_flag(value)}")
    return lines


def config() -> Config:
    """The settings that the parsed flags give.

    Raises:
        UserError: a value is not accepted, or a flag is given that the model has no setting for.
    """
    model = FLAGS.model or registry.DEFAULT_MODEL
    given = _given(model_fields())
    for name in given:
        registry.check_has(model, name, "--")
    for name in dict(FLAGS.released or ()):
        if name in model_fields():
            registry.check_has(model, name, "--released=")
    try:
        return Config(
            registry.make_settings(model, **given),
            TrainingSettings(**_given(TrainingSettings.names())),
            RunSettings(**_given(RunSettings.names())),
        )
    except UserError as error:
        raise UserError(f"--{error}") from error


def _given(names: Iterable[str]) -> dict[str, Any]:
    """The values of the flags that have one."""
    values = {name: FLAGS[name].value for name in names if FLAGS[name].value is not None}
    for name, value in values.items():
        if isinstance(value, list):
            try:
                values[name] = tuple(int(item) for item in value)
            except ValueError as error:
                text = ",".join(value)
                raise UserError(
                    f"--{name}={text}: whole numbers are accepted, as in 32,16,8"
                ) from error
    return values


def define_train() -> None:
    """Flags of `python -m stcn_tf.train`."""
    _define_data()
    define_path(
        "run_dir", None, "folder for the run; one that holds this run is continued", required=True
    )
    flags.DEFINE_bool(
        "restart",
        False,
        "begin anew in --run_dir: the checkpoints, events, evaluations, status and history there "
        "are removed",
    )
    define_model()
    define_settings(TrainingSettings)
    define_settings(RunSettings)
    _define_released()


def define_evaluate() -> None:
    """Flags of `python -m stcn_tf.evaluate`."""
    _define_data()
    _define_run()
    flags.DEFINE_string("split", "valid", "split of the records to evaluate on")
    flags.DEFINE_enum(
        "bound",
        "elbo",
        ["elbo", "iwae", "fivo"],
        "what to give beside the ELBO: iwae: the importance-weighted bound, for each step where "
        "the model allows it, else for each sequence (where the released objective is no lower "
        "bound it is given in any case); fivo: that of a particle filter, for models whose latents "
        "reach later steps (Wavenet output layers, recurrent models, SWaveNet)",
    )
    flags.DEFINE_integer(
        "num_samples",
        None,
        "K: draws of the latents, over which the ELBO is averaged and of which iwae is made (memory"
        " does not grow with them), and particles; default: 1 for elbo alone, else 16",
        lower_bound=1,
    )
    flags.DEFINE_enum(
        "posterior_draws",
        None,
        ["shared", "independent"],
        "score the weights with these draws (of stcn_dense another generative model than the one "
        "that was trained, of stcn another approximate posterior); default: as trained",
    )
    flags.DEFINE_enum(
        "posterior_scale",
        None,
        ["std", "variance"],
        "score the weights with this reading of Eq. 11, another approximate posterior for the same "
        "generative model; default: as trained",
    )
    flags.DEFINE_bool(
        "released_floors", None, "score with or without the released floors; default: as trained"
    )
    flags.DEFINE_integer(
        "given_frames",
        0,
        "frames at the beginning of each sequence that are given instead of scored; 1 is the "
        "figure of programs that are told x_1 (SRNN, Z-forcing, SWaveNet, Dai et al.)",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "piece",
        0,
        "score pieces of so many frames, each by itself, and add them up; 0: whole sequences; 40 "
        "is the figure of some programs on TIMIT",
        lower_bound=0,
    )
    flags.DEFINE_integer("batch_size", 20, "sequences scored at once", lower_bound=1)
    flags.DEFINE_integer(
        "limit", 0, "evaluate on the first N sequences only; 0: on all", lower_bound=0
    )
    flags.DEFINE_integer(
        "seed", 0, "seed of the posterior draws", lower_bound=0, upper_bound=2**31 - 1
    )
    define_path("out", None, "file to write; default: one in RUN_DIR/evaluations")
    define_path(
        "per_sequence",
        None,
        "CSV file to write, with the name, group, steps and terms of each sequence; default: "
        "beside the other one, with the ending .csv",
    )


def define_sample() -> None:
    """Flags of `python -m stcn_tf.sample`."""
    _define_run()
    define_path("out", "samples", "folder for samples.png, samples.svg, samples.h5, sounds")
    flags.DEFINE_integer(
        "num",
        None,
        "number of sequences; default: 8, of images 100, or with --continue_from all that are in "
        "the file",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "length",
        None,
        "steps to generate (frames of audio, pixels of images); default: 600, of audio about 3 "
        "seconds, of images what completes them, which is all that is accepted there",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "seed", 0, "the same seed gives the same samples", lower_bound=0, upper_bound=2**31 - 1
    )
    flags.DEFINE_float(
        "temperature",
        1.0,
        "of real-valued features (dx, dy, samples of audio): divides the mixture's logits and "
        "multiplies its sigmas, so that below 1 is neater and above is wilder; 0: the mean of the "
        "heaviest component",
        lower_bound=0.0,
    )
    flags.DEFINE_float(
        "latent_temperature", 1.0, "multiplies the latent noise; 0: prior means", lower_bound=0.0
    )
    for name in ("temperature", "latent_temperature"):
        flags.register_validator(name, math.isfinite, "not finite")
    flags.DEFINE_bool(
        "binary_threshold",
        False,
        "make binary features (pen, pixels) 1 where their probability exceeds 0.5, as released, "
        "instead of drawing them",
    )
    define_path(
        "continue_from",
        None,
        "an HDF5 file, as this command or stcn_tf.reconstruct writes, each sequence of which is "
        "continued; for audio also a sound file (WAV, FLAC, MP3, OGG, ...) of one channel and the "
        "sample rate of the records",
    )
    flags.DEFINE_integer(
        "beginning",
        0,
        "steps of each sequence of --continue_from to keep; 0: all",
        lower_bound=0,
    )
    _define_jit_compile()


def define_reconstruct() -> None:
    """Flags of `python -m stcn_tf.reconstruct`."""
    _define_data()
    _define_run()
    define_path(
        "out",
        None,
        "folder for reconstructions.png, reconstructions.svg, reconstructions.h5, sounds",
        required=True,
    )
    flags.DEFINE_string("split", "valid", "split of the records")
    flags.DEFINE_integer(
        "num", 8, "reconstruct the first N sequences, shortest first", lower_bound=1
    )
    flags.DEFINE_integer(
        "seed", 0, "seed of the posterior draws", lower_bound=0, upper_bound=2**31 - 1
    )


def define_export() -> None:
    """Flags of `python -m stcn_tf.export`."""
    _define_run()
    define_path("out", None, "folder for the SavedModel", required=True)
    flags.DEFINE_string(
        "licence",
        "",
        "licence of the weights and of the data they were trained on, as the model's card says it",
    )
    flags.DEFINE_bool(
        "litert", False, "also make assets/model.tflite, single steps for phones, where possible"
    )
    _define_jit_compile()


def define_serve() -> None:
    """Flags of `python -m stcn_tf.serve`."""
    _define_run(required=False)
    define_path("model", None, "in its place, a SavedModel of stcn_tf.export")
    flags.DEFINE_string("host", "127.0.0.1", "address to listen on; 0.0.0.0: all of this machine")
    flags.DEFINE_integer("port", 8000, "0: any", lower_bound=0, upper_bound=2**16 - 1)
    flags.DEFINE_list(
        "names",
        [],
        "names, separated by commas, that the service may be asked for by, beside --host: what "
        "browsers of other machines have in their address line",
    )
    flags.DEFINE_bool("open", False, "open the page in a browser")
    define_settings(ServeSettings)


def serve_settings() -> ServeSettings:
    """The limits that the parsed flags give.

    Raises:
        UserError: a value is not accepted.
    """
    try:
        return ServeSettings(**_given(ServeSettings.names()))
    except UserError as error:
        raise UserError(f"--{error}") from error


def define_benchmark() -> None:
    """Flags of `python -m stcn_tf.benchmark`."""
    define_model()
    # So that any flagfile of a run may be given.
    define_settings(TrainingSettings, but=("batch_size",))
    define_settings(RunSettings)
    _define_released()
    define_path("run_dir", None, "not used; flagfiles may give it")
    define_path("data", None, "folder of records, of which the input is timed")
    kinds = ("generate", "train", "evaluate", "scaling", "environment")
    accepted = f"{', '.join(kinds)}, separated by commas"
    flags.DEFINE_list("what", ["generate", "train", "evaluate"], f"what is timed: {accepted}")
    flags.register_validator(
        "what", lambda names: bool(names) and set(names) <= set(kinds), f"accepted: {accepted}"
    )
    flags.DEFINE_integer("batch_size", 20, "sequences in a batch", lower_bound=1)
    flags.DEFINE_integer("length", 200, "steps of a batch", lower_bound=1)
    flags.DEFINE_integer("num_draws", 16, "draws of an evaluation", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "how often each is timed", lower_bound=1)
    define_path("out", None, "file to write, a picture comes beside it")


def define_report() -> None:
    """Flags of `python -m stcn_tf.report`."""
    flags.DEFINE_list("runs", [], "run directories, or folders of them, separated by commas")
    _define_numbers("table", ("1", "2", "3", "4"), ["1", "2", "3", "4"], "tables of the paper")
    _define_numbers("figure", ("3", "4", "6"), [], "figures of the paper, drawn with the models")
    flags.DEFINE_list(
        "data",
        [],
        "folders of records, for what Figures 3 and 4 show of them; default: where the runs had "
        "theirs",
    )
    define_path(
        "text",
        None,
        "text file whose paragraphs stand at the head of the report, those that begin with # as "
        "headings, as experiments/verdict.md",
    )
    define_path("out", None, "folder for report.html, report.md, report.tex and the pictures")
    flags.DEFINE_list(
        "compare", [], "two run directories, or files of evaluations, A,B: prints A - B alone"
    )


def define_reproduce() -> None:
    """Flags of `python -m stcn_tf.reproduce`."""
    _define_data()
    define_path("out", None, "folder for the plan, runs, logs and samples", required=True)
    flags.DEFINE_float(
        "minutes",
        None,
        "of training for each row: of processor time; on GPUs of the clock",
        lower_bound=1e-3,
        required=True,
    )
    flags.DEFINE_list("rows", [], "rows, separated by commas, in this order; default: all")
    flags.DEFINE_list("seeds", ["0"], "each row is trained with each of these, commas between them")
    flags.register_validator(
        "seeds",
        lambda seeds: bool(seeds) and all(s.isdecimal() and int(s) < 2**31 for s in seeds),
        "accepted: numbers from 0, separated by commas",
    )
    define_path(
        "flagfiles",
        None,
        "folder of flagfiles of your own, one for each row; default: those of experiments/small "
        "for the kind of the records",
    )
    flags.DEFINE_string(
        "split",
        None,
        "split that is evaluated; default: the one that the paper scores, or else test, or valid",
    )
    flags.DEFINE_integer("num_samples", 64, "K of the importance-weighted bound", lower_bound=2)
    flags.DEFINE_integer(
        "limit", 240, "sequences for that bound, the first of the split; 0: all", lower_bound=0
    )
    flags.DEFINE_integer("num", 8, "samples to draw; 0: none", lower_bound=0)
    flags.DEFINE_integer(
        "at_once", None, "rows at once; default: as many as processors, on GPUs one", lower_bound=1
    )


def _define_numbers(name: str, accepted: Sequence[str], default: list[str], text: str) -> None:
    """A flag that lists some of a few numbers."""
    said = f"accepted: {', '.join(accepted)}, separated by commas"
    flags.DEFINE_list(name, default, f"{text}; {said}")
    flags.register_validator(name, lambda numbers: set(numbers) <= set(accepted), said)


def define_runs() -> None:
    """Flags of `python -m stcn_tf.runs`."""
    define_path("dir", None, "a run directory, or a folder with run directories in it")


class _ReleasedParser(flags.ArgumentParser):
    """Reads `NAME=VALUE`, a setting and a value of its type, as a pair of strings."""

    syntactic_help = "NAME=VALUE, a setting and its value, as in learning_rate_decay=0.92"

    def parse(self, argument: str) -> tuple[str, str]:
        name, separator, value = argument.partition("=")
        if not separator:
            raise ValueError("no value")
        if name not in _SETTINGS:
            raise ValueError(f"{name!r} is no setting")
        try:  # here already, so that a mistake shows without --as_released too
            FLAGS[name].parser.parse(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error.args[0]}") from error
        return name, value


class _AsReleasedFlag(flags.BooleanFlag):
    """Sets what `--released` has collected, as if it stood at this flag's place."""

    def parse(self, argument: str | bool) -> None:
        super().parse(argument)
        if not self.value:
            return
        released = FLAGS["released"].value
        if not released:
            raise flags.Error(
                "--as_released: no released values before it (flagfiles of experiments/paper give "
                "them)"
            )
        for name, value in dict(released).items():
            flag = FLAGS[name]
            flag.parse(value)
            flag.using_default_value = False


def _define_released() -> None:
    flags.DEFINE_multi(
        _ReleasedParser(),
        None,
        "released",
        None,
        "what the authors' released configuration has for a setting; used by --as_released",
    )
    flags.DEFINE_flag(
        _AsReleasedFlag(
            "as_released",
            False,
            "set what --released has given so far; flags that come later still win",
        )
    )


def define_import_tf1() -> None:
    """Flags of `python -m stcn_tf.import_tf1`."""
    define_path(
        "checkpoint",
        None,
        "prefix of the checkpoint's files, as in DIR/model.ckpt-1",
        required=True,
    )
    define_path("config", None, "the model's JSON configuration", required=True)
    define_path("run_dir", None, "folder for the run, new or empty", required=True)
    define_path(
        "data", None, "folder of the records that the model was trained on; default: not known"
    )
    flags.DEFINE_integer(
        "max_steps",
        0,
        "the run's setting of this name, which the configuration does not have: stop training after"
        " this many updates, those before the import included; 0: num_epochs alone decides",
        lower_bound=0,
    )


def _define_jit_compile() -> None:
    flags.DEFINE_bool(
        "jit_compile",
        None,
        "compile the generation with XLA, once for each number of sequences: each step is faster, "
        "after 4 to 20 s; the same random numbers; default: from 3000 steps on, of 32 sequences at "
        "most",
    )


def _define_data() -> None:
    define_path("data", None, "folder of records, as data_prep makes them", required=True)


def _define_run(required: bool = True) -> None:
    define_path(
        "run_dir",
        None,
        "run directory of stcn_tf.train; or pretrained/NAME, one that comes with the package",
        required=required,
    )
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "latest"], "weights: best by validation ELBO, or latest"
    )
