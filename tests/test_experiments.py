"""Every flagfile of experiments/: what it gives, how large its model is, and that it can train.

The rows of the paper are checked against tables that are written out here from the paper and from
what is known of the authors' released configurations, and their sizes against arithmetic.
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
}
HANDWRITING = ("iamondb", "deepwriting")
SPEECH = ("timit", "blizzard")
MODEL_NAMES = {
    "wavenet": "Wavenet",
    "wavenet_dense": "Wavenet-dense",
    "stcn": "STCN",
    "stcn_dense": "STCN-dense",
    "stcn_dense_large": "STCN-dense-large",
}
DATASET_NAMES = {
    "timit": "TIMIT",
    "blizzard": "Blizzard",
    "iamondb": "IAM-OnDB",
    "deepwriting": "Deepwriting",
    "mnist": "MNIST",
}
OBSERVATION_NAMES = {"normal": "Normal", "gmm": "GMM", "": "Bernoulli"}

# Table 4 of the paper, nats per sequence; its GMM rows are those of Table 1.
PAPER_NUMBERS = {
    ("wavenet", "normal"): (-7443, 3784, 1053, 337),
    ("wavenet", "gmm"): (30188, 8190, 1381, 612),
    ("wavenet_dense", "normal"): (-8579, 3712, 1030, 323),
    ("wavenet_dense", "gmm"): (30636, 8212, 1380, 642),
    ("stcn", "normal"): (64913, 13273, 1327, 575),
    ("stcn", "gmm"): (69195, 15800, 1338, 605),
    ("stcn_dense", "normal"): (70294, 15950, 1729, 740),
    ("stcn_dense", "gmm"): (71386, 16288, 1796, 797),
    ("stcn_dense_large", "gmm"): (77438, 17128),
}
# Table 2 of the paper, nats per image, negative log-likelihood.
PAPER_MNIST = {"wavenet": 80.42, "wavenet_dense": 80.35, "stcn": 82.96, "stcn_dense": 60.75}

_NUM_PARAMETERS = {
    HANDWRITING: {
        "wavenet_normal": 8_345_861,
        "wavenet_gmm": 8_370_533,
        "wavenet_dense_normal": 8_476_933,
        "wavenet_dense_gmm": 8_501_605,
        "stcn_normal": 12_596_481,
        "stcn_gmm": 12_621_153,
        "stcn_dense_normal": 12_604_417,
        "stcn_dense_gmm": 12_629_089,
    },
    SPEECH: {
        "wavenet_normal": 8_548_240,
        "wavenet_gmm": 10_506_580,
        "wavenet_dense_normal": 8_679_312,
        "wavenet_dense_gmm": 10_637_652,
        "stcn_normal": 13_337_680,
        "stcn_gmm": 15_296_020,
        "stcn_dense_normal": 13_710_672,
        "stcn_dense_gmm": 15_669_012,
        "stcn_dense_large_normal": 51_274_064,
        "stcn_dense_large_gmm": 55_183_124,
    },
    ("mnist",): {
        "wavenet": 3_490_305,
        "wavenet_dense": 3_523_073,
        "stcn": 4_212_913,
        "stcn_dense": 4_214_193,
    },
}
NUM_PARAMETERS = {
    "iamondb": 12_626_781,
    "iamondb_compare_rnn": 1_391_973,
    "iamondb_compare_vrnn": 1_502_821,
    "iamondb_compare_srnn": 1_460_197,
    "iamondb_compare_z_forcing": 1_619_755,
    "iamondb_compare_variational_bi_lstm": 1_647_333,
    "iamondb_compare_swavenet": 1_503_269,
    "iamondb_compare": 1_585_021,
    "iamondb_compare_wavenet": 1_188_293,
    "iamondb_cpu": 1_585_021,
    "quickstart": 414_243,
    "deepwriting_cpu": 711_137,
    "mnist_cpu": 400_449,
    "mnist_cpu_wavenet": 334_097,
    "fsdd_cpu": 5_523_860,
    "fsdd_compare": 5_523_860,
    "fsdd_compare_rnn": 3_818_836,
    "fsdd_compare_srnn": 4_219_732,
    "fsdd_compare_hierarchical": 3_519_264,
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
} | {
    f"paper/{dataset}_{model}": number
    for datasets, numbers in _NUM_PARAMETERS.items()
    for dataset in datasets
    for model, number in numbers.items()
}
# The baselines: parameters here, and counted from the sizes that their authors released.
# A GRU of Keras has a second bias; an LSTM of PyTorch has one, which is not here.
BASELINES = {
    "timit_rnn_normal": (24_490_000, None),
    "timit_rnn_gmm": (28_771_420, None),
    "timit_vrnn_normal": (29_471_900, None),
    "timit_vrnn_gmm": (32_129_320, None),
    "timit_srnn_normal": (17_233_296, 17_227_152),
    "timit_z_forcing_normal": (19_548_448, 19_556_640),
    "timit_variational_bi_lstm_normal": (72_660_880, None),
    "timit_swavenet_normal": (71_812_496, 73_075_600),
    "blizzard_rnn_normal": (84_342_800, 84_342_800),
    "blizzard_rnn_gmm": (86_723_620, 86_723_620),
    "blizzard_vrnn_normal": (93_898_000, 93_898_000),
    "blizzard_vrnn_gmm": (94_894_820, 94_894_820),
    "blizzard_srnn_normal": (65_922_448, 65_910_160),
    "blizzard_z_forcing_normal": (74_746_656, 74_763_040),
    "blizzard_variational_bi_lstm_normal": (28_282_256, None),
    "blizzard_swavenet_normal": (71_812_496, 73_075_600),
    "iamondb_rnn_normal": (7_808_546, 7_808_546),
    "iamondb_rnn_gmm": (7_602_721, 7_602_721),
    "iamondb_vrnn_normal": (8_460_706, 8_460_706),
    "iamondb_vrnn_gmm": (8_489_571, 8_489_571),
    "iamondb_swavenet_normal": (2_145_806, 2_217_606),
    "deepwriting_rnn_normal": (7_303_365, None),
    "deepwriting_rnn_gmm": (7_328_037, None),
    "deepwriting_vrnn_normal": (9_442_757, 9_442_757),
    "deepwriting_vrnn_gmm": (9_467_429, 9_467_429),
    "mnist_rnn": (7_301_825, None),
    "mnist_vrnn": (9_441_217, None),
    "mnist_z_forcing": (18_629_635, None),
    "mnist_variational_bi_lstm": (23_620_609, None),
}
# The models of the critique (Dai et al., 2019), which are in no table of the paper: parameters
# here, as they stated theirs, and nats per sequence.
CRITIQUE = {
    "timit_rnn_featurewise_gmm": ("F-RNN", 16_368_000, 17_412_912, "32745"),
    "timit_f_srnn_featurewise_normal": ("F-SRNN", 17_515_948, 17_525_848, ">= 69223"),
    "timit_rnn_hierarchical_gmm": ("RNN-hier", 16_292_224, 17_275_736, "109641"),
    "timit_f_srnn_hierarchical_normal": ("SRNN-hier", 17_236_472, 17_248_352, ">= 107912"),
    "timit_rnn_flat_gmm": ("RNN-flat", 14_599_260, 16_857_484, "117721"),
    "iamondb_rnn_ordered_gmm": ("RNN-hier", 799_612, None, "1440"),
}
_BASELINES = BASELINES | {name: row[1:3] for name, row in CRITIQUE.items()}
NUM_PARAMETERS |= {f"baselines/{name}": number for name, (number, _) in _BASELINES.items()}
# Where the released latent sizes make another number.
NUM_PARAMETERS_AS_RELEASED = {
    f"paper/{dataset}_{model}": number
    for dataset in HANDWRITING
    for model, number in {
        "stcn_normal": 12_594_429,
        "stcn_gmm": 12_619_101,
        "stcn_dense_normal": 12_602_109,
        "stcn_dense_gmm": 12_626_781,
    }.items()
}


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
    def paper_number(self) -> str:
        """The paper's, "" where it has none. Bounds are marked."""
        if self.dataset == "mnist":
            return ("<= " if self.family == "stcn" else "") + str(PAPER_MNIST[self.model])
        numbers = PAPER_NUMBERS.get((self.model, self.observation))
        if numbers is None:
            return ""
        number = numbers[("timit", "blizzard", "iamondb", "deepwriting").index(self.dataset)]
        return (">= " if self.family == "stcn" else "") + str(number)

    @property
    def title(self) -> str:
        """The comment that its flagfile begins with."""
        model, dataset = MODEL_NAMES[self.model], DATASET_NAMES[self.dataset]
        number = self.paper_number
        if self.dataset == "mnist":
            return f"# Table 2, {model}, MNIST: {number} nats per image, negative log-likelihood."
        observation = OBSERVATION_NAMES[self.observation]
        if not number:
            return f"# {model} ({observation}) on {dataset}: not in the paper, which has GMM."
        tables = "Tables 1 and 4" if self.observation == "gmm" else "Table 4"
        return f"# {tables}, {model} ({observation}), {dataset}: {number} nats per sequence."

    @property
    def readme_line(self) -> str:
        """Its line in the table of experiments/README.md."""
        released = NUM_PARAMETERS_AS_RELEASED.get(self.key)
        cells = (
            self.key.removeprefix("paper/"),
            MODEL_NAMES[self.model],
            OBSERVATION_NAMES[self.observation],
            f"{NUM_PARAMETERS[self.key]:,}",
            f"{released:,}" if released else "",
            self.paper_number or "none",
        )
        return "| " + " | ".join(cells).replace("  ", " ") + " |"


ROWS = [
    Row(dataset, model, observation)
    for dataset in DATASET_NAMES
    for model in MODEL_NAMES
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
    name = key.rpartition("/")[2]
    dataset = SMOKE_RECORDS.get(name, name.split("_")[0])
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
    assert title == row.title
    included = [line for line in lines if line.startswith("--flagfile=experiments/paper/base/")]
    own = [line for line in lines if line not in included and not line.startswith("#")]
    assert len(included) >= 3
    assert len(own) <= 1


def test_the_table_of_the_readme():
    _, table = (EXPERIMENTS / "README.md").read_text().split("|---|---|---|---|---|---|\n")
    assert table.split("\n\n")[0].splitlines() == [row.readme_line for row in ROWS]


@pytest.mark.parametrize("name", [n for n, (_, theirs) in BASELINES.items() if theirs])
def test_baselines_are_of_the_size_that_their_authors_released(name, settings_of):
    model = settings_of(f"baselines/{name}").model
    ours, theirs = BASELINES[name]
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


@pytest.mark.parametrize("name", [n for n, row in CRITIQUE.items() if row[2]])
def test_models_of_the_critique_are_of_the_size_that_their_authors_state(name, settings_of):
    model = settings_of(f"baselines/{name}").model
    _, ours, theirs, _ = CRITIQUE[name]
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
        features = card_of(f"baselines/{name}").num_real
        expected += (features + 1) * 512 + (512 - features) * 4 * units
    assert theirs - ours == expected


def test_the_table_of_the_critique():
    head = (
        "| flagfile | theirs | parameters | stated | nats per sequence |\n|---|---|---|---|---|\n"
    )
    _, table = (EXPERIMENTS / "README.md").read_text().split(head)
    lines = [
        f"| {name} | {model} | {ours:,} | {f'{theirs:,} ' if theirs else ''}| {number} |"
        for name, (model, ours, theirs, number) in CRITIQUE.items()
    ]
    assert table.split("\n\n")[0].splitlines() == lines


def _baseline_line(name: str) -> str:
    """Its line in the table of experiments/README.md."""
    title = (EXPERIMENTS / f"baselines/{name}.flags").read_text().splitlines()[0]
    tables, number = re.fullmatch(r"# (Tables? [\w ]+), .*: ([^:]*?) nats per .*", title).groups()
    ours, theirs = BASELINES[name]
    theirs = f"{theirs:,}" if theirs else ""
    cells = (name, tables.split(" ", 1)[1], f"{ours:,}", theirs, number)
    return "| " + " | ".join(cells).replace("  ", " ") + " |"


def test_the_table_of_the_baselines():
    head = "| flagfile | tables | parameters | released | paper |\n|---|---|---|---|---|\n"
    _, table = (EXPERIMENTS / "README.md").read_text().split(head)
    assert table.split("\n\n")[0].splitlines() == [_baseline_line(name) for name in BASELINES]


@pytest.mark.parametrize("name", _BASELINES)
def test_a_baseline_reads_its_records_and_repeats_no_default(name, settings_of):
    config = settings_of(f"baselines/{name}")
    pairs = dict(settings_in(EXPERIMENTS / f"baselines/{name}.flags"))
    assert pairs["data"] == f"records/{name.split('_')[0]}{'_flat' if 'flat' in name else ''}"
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
    ("iamondb_compare", *SMALL, "--blocks_per_layer=1", "--model=stcn"),
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
