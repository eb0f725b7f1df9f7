"""What is timed: generation, updates, evaluation and input."""

import dataclasses
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from stcn_tf import bounds
from stcn_tf.benchmarks.measure import check_same, compared, interleaved
from stcn_tf.benchmarks.transcription import Transcription
from stcn_tf.config import TrainingSettings
from stcn_tf.data.batches import Batch, train_batches
from stcn_tf.data.card import read_card
from stcn_tf.inference.generation import Generator
from stcn_tf.models.base import SequenceModel
from stcn_tf.models.registry import build_model
from stcn_tf.models.settings import ModelSettings, STCNSettings
from stcn_tf.support.devices import product_rate
from stcn_tf.support.errors import UserError
from stcn_tf.training.step import TrainStep, make_optimizer

BASELINE = "transcription"


class _Pen(NamedTuple):
    """All that a model must know of handwriting."""

    num_real: int = 2
    num_binary: int = 1


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of it."""

    batch_size: int = 20
    length: int = 200
    num_samples: int = 16
    rounds: int = 3


def check(settings: ModelSettings) -> None:
    """Checks that there is a transcription of the model.

    Raises:
        UserError: there is none.
    """
    if not isinstance(settings, STCNSettings) or settings.output_type != "conv1x1":
        raise UserError(
            f"--model={settings.model}: accepted: stcn, stcn_dense with --output_type=conv1x1, of "
            "which there is a transcription"
        )
    if settings.posterior_draws != "shared" or settings.released_floors:
        raise UserError("--posterior_draws, --released_floors: accepted: shared draws, no floors")


def generate(settings: ModelSettings, sizes: Sizes) -> dict[str, Any]:
    """Seconds a step, as called, compiled, and of the transcription."""
    model = _model(settings)
    plain, compiled = (Generator(model, jit_compile) for jit_compile in (False, True))
    graph = tf.function(Transcription(model).generate, autograph=False)
    tables = {}
    for num, steps, slow in ((1, 200, 6), (20, 200, 2)):
        nothing = tf.zeros([num, 0, model.num_features])
        first = graph(num, slow, (1, 2))
        check_same("generation", plain(nothing, slow, (1, 2)), first, 1e-3)
        runs = {
            name: lambda g=generator, x=nothing, n=steps: g(x, n, (1, 2))
            for name, generator in (("as called", plain), ("compiled", compiled))
        }
        runs[BASELINE] = lambda n=num, s=slow: graph(n, s, (1, 2))
        seconds = interleaved(runs, sizes.rounds)
        made = dict.fromkeys(runs, steps) | {BASELINE: slow}
        per_step = {name: [v / made[name] for v in values] for name, values in seconds.items()}
        tables[f"generate, {num} at once, a step"] = compared(per_step, BASELINE)
    return tables


def train(settings: ModelSettings, sizes: Sizes) -> dict[str, Any]:
    """Seconds an update, with the rate of its products beside that of the machine."""
    batch = _batch(sizes.batch_size, sizes.length)
    steps = {
        name: _train_step(settings, precision, jit_compile)
        for name, precision, jit_compile in (
            ("float32", "float32", False),
            ("mixed_bfloat16", "mixed_bfloat16", False),
            ("float32, compiled", "float32", True),
        )
    }
    other = _train_step(settings, "float32", False)
    transcription = Transcription(other.model)
    one = other.model.score(*batch, (1, 2))
    expected = tf.reduce_sum(bounds.sum_over_time(one).elbo(other.model))
    found = tf.reduce_sum(transcription.elbo(*batch, (1, 2)))
    check_same("the ELBO", expected, found, 1e-4)

    @tf.function(autograph=False)
    def update(x, lengths):
        weights = [v.value for v in other.model.trainable_variables]
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(transcription.elbo(x, lengths, (1, 2)) / sizes.length)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, weights), 1.0)
        other.optimizer.apply(gradients, other.model.trainable_variables)
        return loss

    runs = {name: lambda s=step: s(batch).elbo for name, step in steps.items()}
    runs[BASELINE] = lambda: update(*batch)
    rows = compared(interleaved(runs, sizes.rounds), BASELINE)
    operations = _operations_of_update(other.model, sizes)
    rates = {dtype: product_rate(dtype) for dtype in ("float32", "bfloat16")}
    for name, row in rows.items():
        dtype = "bfloat16" if "bfloat16" in name else "float32"
        row["gflop_per_second"] = operations / row["seconds"] / 1e9
        row["of_product_rate"] = operations / row["seconds"] / rates[dtype]
    return {f"update, {sizes.batch_size} sequences of {sizes.length} steps": rows}


def evaluate(settings: ModelSettings, sizes: Sizes) -> dict[str, Any]:
    """Seconds of a batch with several draws, and of as many passes of the transcription."""
    model = _model(settings)
    x, lengths = _batch(sizes.batch_size, sizes.length)
    scored = tf.function(bounds.score_samples, autograph=False)
    passed = tf.function(Transcription(model).elbo, autograph=False)
    draws = sizes.num_samples
    runs = {
        "as called": lambda: scored(model, x, lengths, tf.constant((1, 2)), draws).bound,
        BASELINE: lambda: [passed(x, lengths, tf.constant((1, k))) for k in range(draws)],
    }
    return {f"evaluate, {draws} draws": compared(interleaved(runs, sizes.rounds), BASELINE)}


def scaling(settings: ModelSettings, sizes: Sizes) -> dict[str, Any]:
    """Seconds an update over length, batch, filters and depth, each by itself."""
    variants: dict[str, tuple[ModelSettings, Sizes]] = {"as it is": (settings, sizes)}
    for factor in (0.5, 2.0):
        for name in ("length", "batch_size"):
            changed = dataclasses.replace(sizes, **{name: int(factor * getattr(sizes, name))})
            variants[f"{name} x {factor:g}"] = (settings, changed)
    half = settings.num_filters // 2
    variants["num_filters x 0.5"] = (dataclasses.replace(settings, num_filters=half), sizes)
    blocks = max(settings.blocks_per_layer // 2, 1)
    variants["blocks_per_layer x 0.5"] = (
        dataclasses.replace(settings, blocks_per_layer=blocks),
        sizes,
    )
    runs = {}
    for name, (its_settings, its_sizes) in variants.items():
        step = _train_step(its_settings, "float32", False)
        batch = _batch(its_sizes.batch_size, its_sizes.length)
        runs[name] = lambda s=step, b=batch: s(b).elbo
    return {"scaling, an update": compared(interleaved(runs, sizes.rounds), "as it is")}


def read(data: str, sizes: Sizes, num_batches: int = 200) -> dict[str, Any]:
    """Batches from records: milliseconds each, padding, and that of batches without buckets."""
    card, tables = read_card(data), {}
    for name, window in (("buckets", 2000), ("without buckets", sizes.batch_size)):
        batches = iter(train_batches(data, batch_size=sizes.batch_size, window=window, seed=0))
        next(batches)
        valid = padded = 0
        start, processor = time.perf_counter(), time.process_time()
        for _ in range(num_batches):
            x, lengths = next(batches)
            valid, padded = valid + int(tf.reduce_sum(lengths)), padded + int(tf.size(x[..., 0]))
        seconds = time.perf_counter() - start
        tables[name] = {
            "seconds": seconds / num_batches,
            "processor_seconds": (time.process_time() - processor) / num_batches,
            "padding": 1.0 - valid / padded,
            "steps_per_second": valid / seconds,
        }
    return {f"input, {card.name}, a batch": tables}


CASES: dict[str, Callable[[ModelSettings, Sizes], dict[str, Any]]] = {
    "generate": generate,
    "train": train,
    "evaluate": evaluate,
    "scaling": scaling,
}


def peak_memory() -> int:
    """Of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _model(settings: ModelSettings, precision: str = "float32") -> SequenceModel:
    keras.utils.set_random_seed(0)
    return build_model(settings, _Pen(), precision)


def _train_step(settings: ModelSettings, precision: str, jit_compile: bool) -> TrainStep:
    training = TrainingSettings(precision=precision)
    model = _model(settings, precision)
    optimizer = make_optimizer(training)
    optimizer.build(model.trainable_variables)
    return TrainStep(training, model, optimizer, tf.distribute.get_strategy(), jit_compile)


def _batch(batch_size: int, length: int) -> Batch:
    x = np.random.default_rng(0).standard_normal((batch_size, length, 3)).astype(np.float32)
    x[..., 2] = x[..., 2] > 1.5
    return Batch(tf.constant(x), tf.fill([batch_size], length))


def _operations_of_update(model: SequenceModel, sizes: Sizes) -> float:
    """Of all products, forwards and twice as many backwards."""
    weights = sum(int(np.prod(v.shape)) for v in model.trainable_variables if len(v.shape) > 1)
    return 3.0 * 2.0 * weights * sizes.batch_size * sizes.length
