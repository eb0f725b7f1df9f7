"""Every flagfile of experiments/: what it gives, how large its model is, and that it can train.

The rows of the paper are checked against experiments/paper/tables.json (test_published.py holds it
equal to the paper) and what is known of the authors' released configurations, their sizes against
arithmetic.
"""

import dataclasses
import functools
import importlib.util
import operator
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import flags
from stcn_tf.config import Config
from stcn_tf.data.card import DatasetCard, Feature, Normalization
from stcn_tf.distribution import Share
from stcn_tf.models import SequenceModel
from stcn_tf.models.registry import build_model, make_settings
from stcn_tf.reporting import published
from stcn_tf.support.devices import precision_of
from stcn_tf.training.step import TrainStep, make_optimizer
from tests.smoke_records import SMOKE_RECORDS

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
BASE = EXPERIMENTS / "paper" / "base"
AS_RELEASED = "--flagfile=experiments/paper/as_released.flags"
# Those that are an experiment by themselves.
FLAGFILES = [
    path
    for path in sorted(EXPERIMENTS.rglob("*.flags"))
    if path.parent.name != "base" and path.stem != "as_released"
]

# Real-valued and binary features of a step.
FEATURES = {
    "iamondb": (2, 1),
    "deepwriting": (2, 1),
    "timit": (200, 0),
    "blizzard": (200, 0),
    "mnist": (0, 1),
    "fsdd": (200, 0),
    "ink": (2, 1),
    "wav": (200, 0),
    # Of the small tables.
    "handwriting": (2, 1),
    "audio": (200, 0),
    "image": (0, 1),
}
HANDWRITING = ("iamondb", "deepwriting")
SPEECH = ("timit", "blizzard")
TABLES = published.tables()
# What experiments/paper/tables.json says of each flagfile of paper/ and baselines/.
NUMBERS = {number.flagfile: number for number in TABLES.numbers + TABLES.peers if number.flagfile}

NUM_PARAMETERS = {
    "iamondb": 12_626_781,
    "iamondb_cpu": 1_585_021,
    "quickstart": 414_243,
    "pretrained_handwriting": 712_220,
    "deepwriting_cpu": 711_137,
    "mnist_cpu": 400_449,
    "mnist_cpu_wavenet": 334_097,
    "fsdd_cpu": 5_523_860,
    "smoke/iamondb": 2_952,
    "smoke/deepwriting": 2_952,
    "smoke/ink": 2_952,
    "smoke/timit": 22_067,
    "smoke/blizzard": 22_067,
    "smoke/wav": 22_067,
    "smoke/mnist": 2_737,
    "smoke/f_srnn": 32_712,
    "smoke/rnn": 1_996,
    "smoke/srnn": 9_600,
    "smoke/swavenet": 4_026,
    "smoke/variational_bi_lstm": 4_929,
    "smoke/vrnn": 3_035,
    "smoke/z_forcing": 19_960,
    "small/audio/rnn": 1_444_740,
    "small/audio/rnn_hierarchical": 1_754_816,
    "small/audio/srnn": 1_599_604,
    "small/audio/stcn": 1_597_660,
    "small/audio/stcn_dense": 1_618_780,
    "small/audio/stcn_dense_independent": 1_618_780,
    "small/audio/swavenet": 1_543_892,
    "small/audio/variational_bi_lstm": 1_731_940,
    "small/audio/vrnn": 1_717_636,
    "small/audio/wavenet": 1_558_348,
    "small/audio/wavenet_dense": 1_579_980,
    "small/audio/z_forcing": 1_564_388,
    "small/handwriting/rnn": 1_391_973,
    "small/handwriting/rnn_ordered": 1_394_916,
    "small/handwriting/srnn": 1_460_197,
    "small/handwriting/stcn": 1_582_913,
    "small/handwriting/stcn_dense": 1_585_889,
    "small/handwriting/stcn_dense_independent": 1_585_889,
    "small/handwriting/stcn_dense_iwae": 1_585_889,
    "small/handwriting/swavenet": 1_503_269,
    "small/handwriting/variational_bi_lstm": 1_647_333,
    "small/handwriting/vrnn": 1_502_821,
    "small/handwriting/wavenet": 1_501_409,
    "small/handwriting/wavenet_dense": 1_524_737,
    "small/handwriting/z_forcing": 1_619_755,
    "small/image/rnn": 384_321,
    "small/image/stcn": 400_065,
    "small/image/stcn_dense": 400_449,
    "small/image/stcn_dense_independent": 400_449,
    "small/image/vrnn": 334_145,
    "small/image/wavenet": 390_701,
    "small/image/wavenet_dense": 400_685,
} | {name: number.parameters for name, number in NUMBERS.items()}
BASELINES = [n for n, number in NUMBERS.items() if "baselines/" in n and not number.source]
# The models of the critique (Dai et al., 2019), which are in no table of the paper.
CRITIQUE = [n for n, number in NUMBERS.items() if number.source]
# Where the released latent sizes make another number.
NUM_PARAMETERS_AS_RELEASED = {
    name: number.parameters_as_released
    for name, number in NUMBERS.items()
    if number.parameters_as_released
}


def _comment(name: str) -> str:
    """What the flagfile of a number begins with."""
    number = NUMBERS[name]
    model, dataset = TABLES.models[number.model], TABLES.datasets[number.dataset].name
    if not number.number:
        return f"# {TABLES.title(number)} on {dataset}: not in the paper, which has GMM."
    if number.tables == (2,):
        return (
            f"# Table 2, {model}, {dataset}: {number.number} nats per image, negative "
            "log-likelihood."
        )
    where = "Tables 1 and 4" if number.tables == (1, 4) else "Table 4"
    how = " (importance-weighted)" if number.kind == "~" else ""
    return f"# {where}, {TABLES.title(number)}, {dataset}: {number.number} nats per sequence{how}."


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the paper for one data set. The observation of binary data is "": Bernoulli."""

    dataset: str
    model: str
    observation: str

    @property
    def key(self) -> str:
        """Its flagfile without the ending, below experiments/."""
        return "paper/" + "_".join(filter(None, dataclasses.astuple(self)))

    @property
    def family(self) -> str:
        return self.model.split("_")[0]

    @property
    def kind(self) -> str:
        if self.dataset in HANDWRITING:
            return "handwriting"
        return "speech" if self.dataset in SPEECH else "mnist"

    @property
    def readme_line(self) -> str:
        """Its line in the table of experiments/README.md."""
        released, number = NUM_PARAMETERS_AS_RELEASED.get(self.key), NUMBERS[self.key]
        cells = (
            self.key.removeprefix("paper/"),
            TABLES.models[number.model],
            TABLES.observations[number.observation],
            f"{NUM_PARAMETERS[self.key]:,}",
            f"{released:,}" if released else "",
            number.number or "none",
        )
        return "| " + " | ".join(cells).replace("  ", " ") + " |"


ROWS = [
    Row(dataset, model, observation)
    for dataset in ("timit", "blizzard", "iamondb", "deepwriting", "mnist")
    for model in ("wavenet", "wavenet_dense", "stcn", "stcn_dense", "stcn_dense_large")
    for observation in (("",) if dataset == "mnist" else ("normal", "gmm"))
    if model != "stcn_dense_large" or dataset in SPEECH
]
OTHERS = [key for key in NUM_PARAMETERS if not key.startswith("paper/")]
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)


def paper_settings(row: Row) -> dict[str, object]:
    """What Appendix 7.1 and 7.2 say of a row, and what is chosen where they say nothing."""
    filters = 512 if row.model == "stcn_dense_large" else 128 if row.kind == "mnist" else 256
    settings = {
        "model": row.model.removesuffix("_large"),
        "num_components": 20,
        "num_filters": filters,
        "output_filters": filters,
        "kernel_size": 2,
        "output_kernel_size": 2,
        "released_floors": False,
        "objective": "elbo",
        "batch_size": 128 if row.dataset == "blizzard" else 20,
        "max_length": 0,
        "learning_rate": 1e-3 if row.kind == "speech" else 5e-4,
        "learning_rate_decay": 0.98 if row.kind == "speech" else 0.94,
        "kl_weight_start": 0.0,
        "kl_weight_increment": 1e-4,
        # As released.
        "clip_norm": 1.0,
        "loss_reduction": "mean_step" if row.kind == "handwriting" else "sum_step",
        "max_epochs": 80 if row.dataset in ("iamondb", "mnist") else 100,
        "max_steps": 0,
        "evaluate_every": {"timit": 1000, "blizzard": 2000, "mnist": 2500}.get(row.dataset, 500),
        "evaluate_sequences": 0,
        "patience": 10,
        "min_improvement": 0.0025,
    }
    if row.observation:
        settings["observation"] = row.observation
    if row.family == "wavenet":
        settings |= {
            "first_frame": "scored",
            "output_type": "conv1x1",
            "output_layers": 2,
            "dilations": (1, 2, 4, 8, 16, 32, 64) if row.kind == "mnist" else (1, 2, 4, 8, 16),
            "wavenet_blocks": 42 if row.kind == "mnist" else 25,
        }
        if row.model == "wavenet_dense":
            blocks = (7, 28, 42) if row.kind == "mnist" else (5, 15, 25)
            settings["wavenet_dense_blocks"] = blocks
        if row.dataset == "timit":
            settings["evaluate_every"] = 500
    else:
        settings |= {
            "posterior_draws": "shared",
            "posterior_scale": "std",
            "dilations": (),  # 1, 2, ... for each layer
            "output_type": "wavenet" if row.kind == "speech" else "conv1x1",
            "output_layers": 2 if row.kind == "mnist" else 5,
            "latent_hidden_layers": 2,
            "latent_filters": 0,  # as many as the blocks
            "latent_sizes": {
                "handwriting": (32, 16, 8, 5, 2),
                "speech": (256, 128, 64, 32, 16),
                "mnist": (2, 2, 2, 2, 2, 2),
            }[row.kind],
            "blocks_per_layer": {"handwriting": 6, "speech": 5, "mnist": 7}[row.kind],
        }
    return settings


def released_settings(row: Row) -> dict[str, object]:
    """What the released configurations have instead."""
    if row.family == "wavenet":
        settings = {"first_frame": "given"}
        if row.kind == "handwriting":
            settings |= {"learning_rate_decay": 0.95, "batch_size": 32}
        elif row.kind == "speech":
            settings |= {"learning_rate_decay": 0.92}
    else:
        settings = {"posterior_draws": "independent", "select": "objective"}
        if row.kind == "handwriting":
            settings |= {"learning_rate_decay": 0.92, "latent_sizes": (32, 16, 8, 4, 2)}
    return settings | {"released_floors": True}


def count_parameters(row: Row, latent_sizes: tuple[int, ...]) -> int:
    """The number of parameters, from the description of the architecture alone."""
    real, binary = FEATURES[row.dataset]
    components = 20 if row.observation == "gmm" else 1
    filters = {"stcn_dense_large": 512}.get(row.model, 128 if row.kind == "mnist" else 256)
    output_layers = 5 if row.family == "stcn" and row.kind != "mnist" else 2

    def conv(inputs: int, outputs: int, width: int = 1) -> int:
        return width * inputs * outputs + outputs

    def block(inputs: int) -> int:
        projection = conv(inputs, filters) if inputs != filters else 0
        return 2 * conv(inputs, filters, width=2) + conv(filters, filters) + projection

    if row.family == "wavenet":
        blocks = 42 if row.kind == "mnist" else 25
        total = conv(real + binary, filters, width=2) + blocks * block(filters)
        read = 3 * filters if row.model == "wavenet_dense" else filters
    else:
        blocks = {"handwriting": 30, "speech": 25, "mnist": 42}[row.kind]
        total = block(real + binary) + (blocks - 1) * block(filters)
        above = 0
        for units in reversed(latent_sizes):
            # Mean and sigma of prior and posterior: four networks with two hidden layers.
            hidden = conv(filters + above, filters) + conv(filters, filters)
            total += 4 * (hidden + conv(filters, units))
            above = units
        read = latent_sizes[0] if row.model == "stcn" else sum(latent_sizes)
    layer = block if row.family == "stcn" and row.kind == "speech" else lambda n: conv(n, filters)
    total += layer(read) + (output_layers - 1) * layer(filters)
    if real:
        total += 2 * conv(filters, real * components)
        total += conv(filters, components) if components > 1 else 0
    return total + (conv(filters, binary) if binary else 0)


def card_of(key: str) -> DatasetCard:
    """A card of records with the features that an experiment is for."""
    folder, _, name = key.rpartition("/")
    dataset = SMOKE_RECORDS.get(name, name.split("_")[0])
    if folder.startswith("small/"):
        dataset = folder.removeprefix("small/")
    real, binary = (1, 0) if "_flat_" in name else FEATURES.get(dataset, (2, 1))
    kinds = ["real"] * real + ["binary"] * binary
    return DatasetCard(
        format_version=1,
        name=dataset,
        features=tuple(Feature(f"x{i}", kind, "none", "A.") for i, kind in enumerate(kinds)),
        splits={},
        normalization=Normalization("none", (0.0,) * len(kinds), (1.0,) * len(kinds)),
        source_sha256="0" * 64,
        command="a test",
        extra={},
    )


@pytest.fixture
def settings_of(parse_flags, monkeypatch, tmp_path):
    """Function (key, *more flags) -> the Config that an experiment's flagfile gives."""
    monkeypatch.chdir(tmp_path)  # they are found from anywhere

    def settings(key: str, *arguments: str) -> Config:
        flagfile = f"--flagfile=experiments/{key}.flags"
        parse_flags(flags.define_train, flagfile, "--data=d", "--run_dir=r", *arguments)
        return flags.config()

    return settings


@pytest.fixture(scope="module")
def make_model():
    """Function (config, key) -> the model, whose weights have shapes but no values."""
    made = {}  # several data sets have the same models

    def make(config: Config, key: str) -> SequenceModel:
        card = card_of(key)
        same = (config.model, card.num_real, card.num_binary)
        if same not in made:
            with keras.StatelessScope(initialize_variables=False):
                made[same] = build_model(config.model, card)
        return made[same]

    yield make
    keras.backend.clear_session()  # forgets the variables that wait to be initialised


def as_dict(config: Config) -> dict[str, object]:
    parts = (config.model, config.training, config.run)
    return functools.reduce(operator.or_, map(dataclasses.asdict, parts))


def defaults_of(row: Row) -> dict[str, object]:
    """Those of its model, of training and of runs."""
    return as_dict(Config(make_settings(row.model.removesuffix("_large"))))


def settings_in(flagfile: Path) -> list[tuple[str, str]]:
    """The lines of a flagfile and of those that it includes: (flag, value), in their order."""
    pairs = []
    for line in flagfile.read_text().splitlines():
        if line.startswith("#"):
            continue
        name, value = line.removeprefix("--").split("=", 1)
        pairs += settings_in(ROOT / value) if name == "flagfile" else [(name, value)]
    return pairs


def test_every_row_of_the_paper_is_there_and_nothing_else():
    assert len(ROWS) == 40
    found = {p.relative_to(EXPERIMENTS).with_suffix("").as_posix() for p in FLAGFILES}
    assert found == {row.key for row in ROWS} | set(OTHERS)
    assert {row.key for row in ROWS} == {name for name in NUMBERS if name.startswith("paper/")}


@pytest.mark.parametrize("name", SMOKE_RECORDS)
def test_the_makefile_tries_each_model_on_the_records_of_its_flagfile(name):
    makefile = (ROOT / "Makefile").read_text()
    assert f"\nRECORDS_{name} := {SMOKE_RECORDS[name]}\n" in makefile
    assert name in re.search(r"\nMODELS := (.*)\n", makefile)[1].split()
    pairs = dict(settings_in(EXPERIMENTS / f"smoke/{name}.flags"))
    assert pairs["data"] == f"smoke/records/{SMOKE_RECORDS[name]}"


def test_every_base_file_is_used():
    included = {
        line.removeprefix("--flagfile=")
        for path in EXPERIMENTS.rglob("*.flags")
        for line in path.read_text().splitlines()
    }
    base = {path.relative_to(ROOT).as_posix() for path in EXPERIMENTS.rglob("base/*.flags")}
    assert base
    assert base <= included


@pytest.mark.parametrize("kind", ["audio", "handwriting", "image"])
def test_the_rows_of_a_small_table_are_of_one_size(kind):
    sizes = [n for name, n in NUM_PARAMETERS.items() if name.startswith(f"small/{kind}/")]
    assert len(sizes) >= 7
    assert max(sizes) < 1.25 * min(sizes)


@pytest.mark.parametrize("key", NUM_PARAMETERS)
def test_the_number_of_parameters(key, settings_of, make_model):
    assert make_model(settings_of(key), key).count_params() == NUM_PARAMETERS[key]


@rows
def test_the_number_of_parameters_is_that_of_the_description(row):
    sizes = paper_settings(row).get("latent_sizes", ())
    assert count_parameters(row, sizes) == NUM_PARAMETERS[row.key]
    released = released_settings(row).get("latent_sizes", sizes)
    expected = NUM_PARAMETERS_AS_RELEASED.get(row.key, NUM_PARAMETERS[row.key])
    assert count_parameters(row, released) == expected


@pytest.mark.parametrize("key", NUM_PARAMETERS_AS_RELEASED)
def test_the_number_of_parameters_as_released(key, settings_of, make_model):
    model = make_model(settings_of(key, AS_RELEASED), key)
    assert model.count_params() == NUM_PARAMETERS_AS_RELEASED[key]


@pytest.mark.parametrize(
    ("key", "frames"),
    [
        ("iamondb_stcn_normal", 316),
        ("deepwriting_wavenet_dense_gmm", 157),
        ("blizzard_stcn_dense_large_gmm", 161),
        ("timit_wavenet_gmm", 157),
        ("mnist_stcn_dense", 763),
        ("mnist_wavenet", 764),
    ],
)
def test_the_receptive_field(key, frames, settings_of, make_model):
    key = f"paper/{key}"
    assert make_model(settings_of(key), key).receptive_field == frames


@rows
def test_a_row_has_the_papers_settings(row, settings_of):
    assert as_dict(settings_of(row.key)) == defaults_of(row) | paper_settings(row)


@rows
def test_a_row_reads_the_records_of_its_data_set(row):
    assert dict(settings_in(EXPERIMENTS / f"{row.key}.flags"))["data"] == f"records/{row.dataset}"
    assert importlib.util.find_spec(f"data_prep.{row.dataset}")
    command = f"`python -m data_prep.{row.dataset} --source=FOLDER --out=records/{row.dataset}`"
    assert command in (EXPERIMENTS / "README.md").read_text()


@rows
def test_as_released_changes_what_the_release_has_otherwise(row, settings_of):
    expected = defaults_of(row) | paper_settings(row) | released_settings(row)
    assert as_dict(settings_of(row.key, AS_RELEASED)) == expected


def test_flags_after_as_released_win(settings_of):
    row = ROWS[-1]
    released = settings_of(row.key, AS_RELEASED, "--posterior_draws=shared")
    assert released.model.posterior_draws == "shared"
    assert released.model.released_floors


@rows
def test_a_row_sets_nothing_twice(row):
    pairs = settings_in(EXPERIMENTS / f"{row.key}.flags")
    names = [name if name != "released" else value.split("=")[0] + "!" for name, value in pairs]
    repeated = {name for name in names if names.count(name) > 1}
    # The release evaluates its Wavenets on TIMIT twice as often as its STCNs.
    is_timit_wavenet = row.dataset == "timit" and row.family == "wavenet"
    assert repeated == ({"evaluate_every"} if is_timit_wavenet else set())


@pytest.mark.parametrize("path", sorted(BASE.glob("*.flags")), ids=lambda path: path.stem)
def test_base_files_repeat_a_default_only_beside_the_released_value(path, settings_of):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    key = path.relative_to(EXPERIMENTS).with_suffix("")
    family = "wavenet_dense" if "wavenet" in path.stem else "stcn"
    own = as_dict(settings_of(key, f"--model={family}"))
    defaults = as_dict(Config(make_settings(family)))
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        name = line.removeprefix("--").split("=")[0]
        # Which model and which observation is what their files are there to say.
        if name in own and name not in ("model", "observation") and own[name] == defaults[name]:
            assert following.startswith(f"--released={name}=")


@rows
def test_a_row_begins_with_its_place_in_the_paper_and_consists_of_base_files(row):
    title, *lines = (EXPERIMENTS / f"{row.key}.flags").read_text().splitlines()
    assert title == _comment(row.key)
    number = NUMBERS[row.key]
    assert (number.dataset, number.model, number.observation) == dataclasses.astuple(row)
    included = [line for line in lines if line.startswith("--flagfile=experiments/paper/base/")]
    own = [line for line in lines if line not in included and not line.startswith("#")]
    assert len(included) >= 3
    assert len(own) <= 1


def test_the_table_of_the_readme():
    _, table = (EXPERIMENTS / "README.md").read_text().split("|---|---|---|---|---|---|\n")
    assert table.split("\n\n")[0].splitlines() == [row.readme_line for row in ROWS]


@pytest.mark.parametrize("name", [n for n in BASELINES if NUMBERS[n].parameters_of_authors])
def test_baselines_are_of_the_size_that_their_authors_released(name, settings_of):
    model = settings_of(name).model
    ours, theirs = NUMBERS[name].parameters, NUMBERS[name].parameters_of_authors
    if model.model == "swavenet":
        # Running statistics are not counted by theirs, which has a mixer that it does not use.
        filters, latent = model.num_filters, model.latent_sizes[-1]
        blocks = model.deterministic_blocks + 2 * len(model.latent_sizes)
        hidden = model.mixer_units
        unused = (filters + latent + 1) * (hidden or filters)
        unused += (hidden + 1) * filters if hidden else 0
        assert ours - theirs == 6 * filters * blocks - unused
        return
    biases = {"srnn": 2 * 3, "z_forcing": -2 * 4}.get(model.model, 0)
    assert ours - theirs == biases * model.recurrent_units


@pytest.mark.parametrize("name", [n for n in CRITIQUE if NUMBERS[n].parameters_of_authors])
def test_models_of_the_critique_are_of_the_size_that_their_authors_state(name, settings_of):
    model = settings_of(name).model
    ours, theirs = NUMBERS[name].parameters, NUMBERS[name].parameters_of_authors
    units = model.recurrent_units
    is_hierarchical = model.observation == "hierarchical_gmm"
    # An LSTM of PyTorch has a second bias.
    lstms = (model.recurrent_layers if model.model == "rnn" else 3) + is_hierarchical
    expected = lstms * 4 * units
    if is_hierarchical:
        # A state of their own for the first sample, which here depends on the past.
        expected += 2 * units
    if model.model == "rnn":
        # A linear embedding of 512 units below the LSTM, which is a part of its weights here.
        features = card_of(name).num_real
        expected += (features + 1) * 512 + (512 - features) * 4 * units
    assert theirs - ours == expected


def test_the_table_of_the_critique():
    head = (
        "| flagfile | theirs | parameters | stated | nats per sequence |\n|---|---|---|---|---|\n"
    )
    _, table = (EXPERIMENTS / "README.md").read_text().split(head)
    assert table.split("\n\n")[0].splitlines() == [_line(name) for name in CRITIQUE]


def _line(name: str) -> str:
    """The line of a baseline in a table of experiments/README.md."""
    number = NUMBERS[name]
    ours, theirs = number.parameters, number.parameters_of_authors
    cells = (
        name.removeprefix("baselines/"),
        number.name or " and ".join(map(str, number.tables)),
        f"{ours:,}",
        f"{theirs:,}" if theirs else "",
        number.number,
    )
    return "| " + " | ".join(cells).replace("  ", " ") + " |"


def test_the_table_of_the_baselines():
    head = "| flagfile | tables | parameters | released | paper |\n|---|---|---|---|---|\n"
    _, table = (EXPERIMENTS / "README.md").read_text().split(head)
    assert table.split("\n\n")[0].splitlines() == [_line(name) for name in BASELINES]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_begins_with_its_place_in_the_paper(name):
    assert (EXPERIMENTS / f"{name}.flags").read_text().splitlines()[0] == _comment(name)


@pytest.mark.parametrize("name", CRITIQUE)
def test_a_model_of_the_critique_begins_with_its_name(name):
    number = NUMBERS[name]
    start = f"# {number.name} of {number.source}, {TABLES.datasets[number.dataset].name}: "
    assert (EXPERIMENTS / f"{name}.flags").read_text().startswith(start)


@pytest.mark.parametrize("name", BASELINES + CRITIQUE)
def test_a_baseline_reads_its_records_and_repeats_no_default(name, settings_of):
    config = settings_of(name)
    pairs = dict(settings_in(EXPERIMENTS / f"{name}.flags"))
    dataset = NUMBERS[name].dataset
    assert pairs["data"] == f"records/{dataset}{'_flat' if 'flat' in name else ''}"
    own, defaults = as_dict(config), as_dict(Config(make_settings(config.model.model)))
    for setting in pairs.keys() & own.keys() - {"model", "observation"}:
        assert own[setting] != defaults[setting], setting


# Of every kind one, with few filters, blocks and latents.
SMALL_WAVENET = ("--num_filters=18", "--output_filters=24", "--num_components=3")
SMALL = (*SMALL_WAVENET, "--latent_sizes=4,2")
SMALL_RECURRENT = ("--recurrent_units=9", "--input_units=7", "--output_units=6")
SMALL_VRNN = (*SMALL_RECURRENT, "--latent_size=3", "--latent_units=5")
SMALL_LATENT = ("--recurrent_units=9", "--latent_size=3", "--latent_units=5")
STEPS = [
    ("quickstart", *SMALL, "--blocks_per_layer=1"),
    ("iamondb", *SMALL, "--blocks_per_layer=2"),
    ("iamondb_cpu", *SMALL, "--blocks_per_layer=1"),
    ("small/handwriting/stcn", *SMALL, "--blocks_per_layer=1"),
    ("paper/deepwriting_stcn_gmm", AS_RELEASED, *SMALL, "--blocks_per_layer=1"),
    ("paper/timit_stcn_dense_large_normal", *SMALL, "--blocks_per_layer=1"),
    ("paper/blizzard_wavenet_gmm", AS_RELEASED, *SMALL_WAVENET, "--wavenet_blocks=3"),
    ("baselines/iamondb_rnn_gmm", *SMALL_RECURRENT),
    ("baselines/deepwriting_vrnn_gmm", AS_RELEASED, *SMALL_VRNN, "--latent_input_units=4"),
    ("baselines/timit_srnn_normal", *SMALL_VRNN),
    ("baselines/mnist_z_forcing", *SMALL_LATENT),
    ("baselines/timit_swavenet_normal", "--num_filters=6", "--latent_sizes=3,4", "--mixer_units=5"),
    ("baselines/blizzard_variational_bi_lstm_normal", *SMALL_LATENT, "--output_units=6"),
    (
        "paper/mnist_wavenet_dense",
        *SMALL_WAVENET,
        "--wavenet_blocks=3",
        "--wavenet_dense_blocks=1,3",
    ),
]


@pytest.mark.parametrize("experiment", STEPS, ids=lambda experiment: experiment[0])
def test_builds_and_steps(experiment, settings_of):
    key, *arguments = experiment
    config = settings_of(key, *arguments)
    card = card_of(key)
    keras.utils.set_random_seed(0)  # in so small a layer all ReLUs might be dead
    model = build_model(config.model, card, precision_of(config.training.precision))
    optimizer = make_optimizer(config.training)
    optimizer.build(model.trainable_variables)
    # Eager: tracing thirty blocks takes longer than one small step.
    tf.config.run_functions_eagerly(True)
    try:
        step = TrainStep(config.training, model, optimizer)
        x = tf.random.stateless_normal([2, 5, card.num_features], (1, 2))
        real, binary = x[..., : card.num_real], x[..., card.num_real :]
        x = tf.concat([real, tf.cast(binary > 0, tf.float32)], axis=-1)
        before = [v.numpy() for v in model.trainable_variables]
        result = step(Share.whole(x, tf.constant([5, 3])))
    finally:
        tf.config.run_functions_eagerly(False)
    assert np.isfinite(float(result.elbo))
    changed = [
        (a != b.numpy()).any() for a, b in zip(before, model.trainable_variables, strict=True)
    ]
    assert all(changed)
    keras.backend.clear_session()
