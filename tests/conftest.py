"""What several test files share: tiny records and settings, and parsing of flags."""

import contextlib
import ctypes
import dataclasses
import gc
import os
import resource
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What is remembered of one test's files is nothing to another, nor to whoever runs them.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="stcn_tf_cache_")

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from tensorflow.python.framework import ops

from stcn_tf.config import Config, RunSettings, TrainingSettings
from stcn_tf.data.card import Feature, Modality, Normalization
from stcn_tf.data.records import write_dataset
from stcn_tf.distribution import Distribution
from stcn_tf.models.registry import make_settings, settings_of
from stcn_tf.support import flagfiles

pytest.register_assert_rewrite("tests.contract")

# Two logical devices, for tests of tf.distribute; must be set before TensorFlow first computes.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

_C = ctypes.CDLL(None)

# Half of the time is theirs. (The first makes many data pipelines, which takes ten times as long in
# a process that has done much else.)
LONG_FILES = (
    "test_batches.py",
    "test_processors.py",
    "test_smoke_data.py",
    "test_loop.py",
    "test_tour.py",
    "test_recurrent.py",
    "test_faults.py",
    "test_stcn.py",
    "test_step.py",
    "test_numerical_faults.py",
    "test_smoke.py",
    "test_workers.py",
    "test_bounds.py",
    "test_benchmark.py",
    "test_handing_over.py",
    "test_report.py",
    "test_evaluation.py",
    "test_generation.py",
    "test_wavenet.py",
    "test_models.py",
    "test_stablehlo.py",
    "test_experiments.py",
)

FEATURES = (
    Feature("dx", "real", "device units", "step to the right"),
    Feature("dy", "real", "device units", "step upwards"),
    Feature("pen", "binary", "0 or 1", "1 on the last point of a stroke"),
)


def handwriting_like(rng: np.random.Generator, length: int) -> np.ndarray:
    """[length, 3] float32 with the statistics that matter: small steps, rare pen lifts."""
    steps = rng.normal(scale=[0.7, 0.5], size=(length, 2)).cumsum(axis=0) * 0.1
    pen = rng.random((length, 1)) < 0.1
    return np.concatenate([steps, pen], axis=1).astype(np.float32)


def pytest_configure(config) -> None:
    """Of pytest-xdist: files keep the order of `pytest_collection_modifyitems`."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that several workers end at the same time."""
    places = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """What has been imported stays: the search for garbage need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def forget_graphs() -> Iterator[None]:
    """What a file has traced goes with it.

    TensorFlow keeps the gradient functions of `tf.custom_gradient` by name for ever, and with each
    of them the graph that it is part of, of tens of MiB.
    """
    registry = ops.gradient_registry._registry
    before = set(registry)
    yield
    known = {name for name in set(registry) - before if name.startswith("CustomGradient-")}
    for name in known:
        del registry[name]
    if known:
        gc.collect()
        if hasattr(_C, "malloc_trim"):
            _C.malloc_trim(0)


@pytest.fixture(scope="session")
def tiny_records(tmp_path_factory) -> str:
    """A folder of records: 23 training and 7 validation sequences of 5 to 29 steps."""
    rng = np.random.default_rng(7)
    folder = tmp_path_factory.mktemp("records") / "tiny"
    write_dataset(
        folder,
        name="tiny",
        features=FEATURES,
        splits={
            split: [
                (f"{split}-{i}", handwriting_like(rng, int(rng.integers(5, 30))))
                for i in range(count)
            ]
            for split, count in (("train", 23), ("valid", 7))
        },
        normalization=Normalization("channel", (3.0, -1.0, 0.0), (40.0, 30.0, 1.0)),
        source_sha256="0" * 64,
        command="a test",
    )
    return str(folder)


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory) -> str:
    """A folder of records: 13 training and 5 validation images, 5 pixels high and 4 wide."""
    rng = np.random.default_rng(8)
    folder = tmp_path_factory.mktemp("records") / "images"
    write_dataset(
        folder,
        name="images",
        features=[Feature("pixel", "binary", "none", "1 where there is ink")],
        splits={
            split: [
                (f"{split}-{i}", rng.integers(0, 2, (20, 1)).astype(np.float32))
                for i in range(count)
            ]
            for split, count in (("train", 13), ("valid", 5))
        },
        normalization=Normalization("none", (0.0,), (1.0,)),
        source_sha256="1" * 64,
        command="a test",
        modality=Modality("image", height=5, width=4),
    )
    return str(folder)


@pytest.fixture(scope="session")
def tiny_audio(tmp_path_factory) -> str:
    """A folder of records: 11 training and 6 validation sequences of frames of 7 samples."""
    rng = np.random.default_rng(9)
    folder = tmp_path_factory.mktemp("records") / "audio"
    write_dataset(
        folder,
        name="audio",
        features=[
            Feature(f"sample_{i}", "real", "full scale", "a sample of the frame") for i in range(7)
        ],
        splits={
            split: [
                (f"{split}-{i}", rng.standard_normal((3 + (5 * i) % 8, 7)).astype(np.float32))
                for i in range(count)
            ]
            for split, count in (("train", 11), ("valid", 6))
        },
        normalization=Normalization("scalar", (0.01,) * 7, (0.3,) * 7),
        source_sha256="2" * 64,
        command="a test",
        modality=Modality("audio", sample_rate_hz=210),
    )
    return str(folder)


# Sizes of recurrent models; every one differs.
TINY_RECURRENT = {
    "recurrent_units": 8,
    "input_units": 6,
    "latent_size": 3,
    "latent_input_units": 4,
    "latent_units": 5,
    "output_units": 7,
    "deterministic_blocks": 1,
}


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """Settings of a model that trains in no time; every size differs."""
    return Config(
        make_settings(
            "stcn_dense",
            num_components=4,
            num_filters=6,
            blocks_per_layer=1,
            latent_sizes=(5, 3),
            latent_hidden_layers=0,
            output_layers=1,
            output_filters=7,
        ),
        TrainingSettings(
            batch_size=4,
            shuffle_window=8,
            learning_rate=1e-2,
            kl_weight_increment=0.1,
            precision="float32",
        ),
        RunSettings(max_steps=8, evaluate_every=4, checkpoint_every=5, log_every=1, sample_every=0),
    )


@pytest.fixture
def tiny_config_with(tiny_config):
    """Function (model=..., training=..., run=...) -> `tiny_config` with some settings replaced.

    Another model ({"model": "wavenet"}) takes over the settings that it has, too.
    """

    def replaced(
        model: dict | None = None, training: dict | None = None, run: dict | None = None
    ) -> Config:
        return Config(
            _switched(tiny_config.model, model or {}),
            dataclasses.replace(tiny_config.training, **(training or {})),
            dataclasses.replace(tiny_config.run, **(run or {})),
        )

    return replaced


def _switched(settings, changes: dict):
    values = dataclasses.asdict(settings) | changes
    name = values.pop("model")
    if name != settings.model:
        kept = {*settings_of(name).names(), *changes}
        values = {key: value for key, value in values.items() if key in kept}
        if "wavenet_blocks" in kept:
            values = {"wavenet_blocks": 3, "wavenet_dense_blocks": (1, 3)} | values
            values = {key: value for key, value in values.items() if key in kept}
        # Of STCN: no dilations of its own, a pattern for each layer.
        if "dilations" in values:
            values["dilations"] = values["dilations"] or (1,)
        values = {key: TINY_RECURRENT[key] for key in kept & TINY_RECURRENT.keys()} | values
    return make_settings(name, **values)


@contextlib.contextmanager
def eagerly(are_eager: bool = True) -> Iterator[None]:
    """Without graphs, which take longer to trace than tiny runs take."""
    before = tf.config.functions_run_eagerly()
    with warnings.catch_warnings():
        # Those of tf.data stay, of which it warns.
        warnings.filterwarnings("ignore", message="Even though")
        tf.config.run_functions_eagerly(are_eager)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def disk_with(num_bytes: int) -> Iterator[None]:
    """No file can grow beyond so many bytes inside, as if the disk were full then."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def eager():
    """See `eagerly`."""
    with eagerly():
        yield


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """One for all tests: two strategies of a process would number their all-reduces alike."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def two_devices(two_replicas, monkeypatch) -> Distribution:
    """All that this machine has, as `--strategy=mirrored` finds them."""
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: two_replicas)
    return Distribution("mirrored")


@pytest.fixture(scope="session")
def make_step(tiny_records):
    """Function (config) -> a TrainStep on one device, of a new model for `tiny_records`."""
    from stcn_tf.data.card import read_card
    from stcn_tf.models.registry import build_model
    from stcn_tf.training.step import TrainStep, make_optimizer

    def made(config: Config) -> TrainStep:
        keras.utils.set_random_seed(3)
        model = build_model(config.model, read_card(tiny_records), config.training.precision)
        optimizer = make_optimizer(config.training)
        optimizer.build(model.trainable_variables)
        return TrainStep(
            config.training, model, optimizer, jit_compile=bool(config.run.jit_compile)
        )

    return made


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, tiny_records, tiny_config) -> Path:
    """A run of 8 updates, saved after 0, 5 and 8, evaluated after 4 and 8; not to be changed."""
    from stcn_tf.training.trainer import Trainer

    folder = tmp_path_factory.mktemp("runs") / "trained"
    with eagerly():
        assert Trainer(tiny_config, tiny_records, folder, report=lambda line: None).train()
    return folder


@pytest.fixture
def parse_flags():
    """Function (define, *arguments): defines and parses flags, which are gone after the test."""
    known = set(flags.FLAGS)

    def parse(define, *arguments: str) -> None:
        define()
        flags.FLAGS(["test", *flagfiles.expand(arguments)])

    yield parse
    for name in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()


@pytest.fixture(scope="session")
def tiny_run(tiny_records, tiny_config, tmp_path_factory) -> str:
    """A run directory of an untrained model, random biases included, with both checkpoints."""
    return _write_run(tmp_path_factory.mktemp("runs") / "tiny", tiny_records, tiny_config)


@pytest.fixture(scope="session", params=["wavenet", "wavenet_dense"])
def tiny_wavenet_run(request, tiny_records, tiny_config, tmp_path_factory) -> str:
    """`tiny_run` of a Wavenet whose first frame is given, and of a Wavenet-dense without one."""
    changes = {
        "wavenet": {"first_frame": "given"},
        "wavenet_dense": {"wavenet_dense_blocks": (1, 3)},
    }[request.param]
    model = _switched(tiny_config.model, {"model": request.param, "wavenet_blocks": 3, **changes})
    config = dataclasses.replace(tiny_config, model=model)
    return _write_run(tmp_path_factory.mktemp("runs") / request.param, tiny_records, config)


@pytest.fixture(scope="session")
def tiny_image_run(tiny_images, tiny_config, tmp_path_factory) -> str:
    """`tiny_run` of images."""
    return _write_run(tmp_path_factory.mktemp("runs") / "images", tiny_images, tiny_config)


@pytest.fixture(scope="session")
def tiny_audio_run(tiny_audio, tiny_config, tmp_path_factory) -> str:
    """`tiny_run` of audio."""
    return _write_run(tmp_path_factory.mktemp("runs") / "audio", tiny_audio, tiny_config)


def _write_run(folder, records: str, config: Config) -> str:
    from stcn_tf.data.batches import train_batches
    from stcn_tf.data.card import read_card
    from stcn_tf.models.registry import build_model
    from stcn_tf.runs import RunDirectory
    from stcn_tf.training.checkpoints import Checkpoints
    from stcn_tf.training.early_stopping import EarlyStopping
    from stcn_tf.training.step import make_optimizer

    card = read_card(records)
    run = RunDirectory.prepare(folder, config, card)
    model = build_model(config.model, card)
    rng = np.random.default_rng(3)
    for variable in model.weights:
        variable.assign(0.5 * rng.standard_normal(variable.shape))
    optimizer = make_optimizer(config.training)
    optimizer.build(model.trainable_variables)
    batches = iter(train_batches(records, batch_size=4, window=8, seed=0))
    early_stopping = EarlyStopping(config.training, bool(model.latent_sizes))
    checkpoints = Checkpoints(run, model, optimizer, early_stopping, batches)
    checkpoints.save_best(0.0)
    checkpoints.save()
    return str(run.path)


@pytest.fixture(scope="session")
def randomize():
    """Gives every weight, biases too, a value that depends on the seed alone."""

    def randomize(layer, seed=0, scale=0.5):
        rng = np.random.default_rng(seed)
        for variable in layer.weights:
            variable.assign(scale * rng.standard_normal(variable.shape))
        return layer

    return randomize
