"""What is compared: generation, updates and their parts, evaluation, input."""

import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from stcn_tf import bounds
from stcn_tf.benchmarks import processes
from stcn_tf.benchmarks.measure import check_same, compared, interleaved
from stcn_tf.benchmarks.sizes import Sizes
from stcn_tf.benchmarks.transcription import Transcription
from stcn_tf.benchmarks.work import (
    GENERATED_STEPS,
    SEED,
    Work,
    evaluation,
    make_batch,
    make_model,
    operations_of,
    update,
)
from stcn_tf.config import TrainingSettings
from stcn_tf.data.batches import train_batches
from stcn_tf.data.card import read_card
from stcn_tf.inference.generation import Generator
from stcn_tf.layers import serial
from stcn_tf.models.registry import make_settings
from stcn_tf.models.settings import ModelSettings, STCNSettings
from stcn_tf.models.stcn import STCN
from stcn_tf.support.devices import product_rate
from stcn_tf.support.errors import UserError
from stcn_tf.training.step import make_optimizer

BASELINE = "transcription"


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
    plain = make_settings(settings.model)
    for name in ("posterior_draws", "released_floors", "latent_prior", "latent_recursion"):
        if getattr(settings, name) != getattr(plain, name):
            raise UserError(f"--{name}: accepted with a transcription: {getattr(plain, name)}")
    if settings.observation not in ("normal", "gmm"):
        raise UserError(f"--observation={settings.observation}: accepted: normal, gmm")


def generate(settings: ModelSettings, sizes: Sizes) -> dict[str, Any]:
    """Seconds a step, as called, compiled, in bfloat16, and of the transcription."""
    model = make_model(settings)
    generators = {
        "as called": Generator(model, jit_compile=False),
        "compiled": Generator(model, jit_compile=True),
        "mixed_bfloat16": Generator(make_model(settings, "mixed_bfloat16"), jit_compile=False),
    }
    graph = tf.function(Transcription(model).generate, autograph=False)
    tables = {}
    for num, slow in ((1, 6), (20, 2)):
        nothing = tf.zeros([num, 0, model.num_features])
        first = graph(num, slow, SEED)
        for name in ("as called", "compiled"):
            check_same(f"generation, {name}", generators[name](nothing, slow, SEED), first, 1e-3)
        runs = {
            name: lambda g=generator, x=nothing: g(x, GENERATED_STEPS, SEED)
            for name, generator in generators.items()
        }
        runs[BASELINE] = lambda n=num, s=slow: graph(n, s, SEED)
        seconds = interleaved(runs, sizes.rounds)
        made = dict.fromkeys(runs, GENERATED_STEPS) | {BASELINE: slow}
        per_step = {name: [v / made[name] for v in values] for name, values in seconds.items()}
        tables[f"generate, {num} at once, a step"] = compared(per_step, BASELINE)
    return tables


def train(settings: ModelSettings, sizes: Sizes) -> dict[str, Any]:
    """Seconds an update and of its parts; their products' rate beside that of the machine."""
    works = {
        "float32": update(settings, sizes),
        "mixed_bfloat16": update(settings, sizes, "mixed_bfloat16"),
        "float32, compiled": update(settings, sizes, jit_compile=True),
        BASELINE: _transcribed_update(settings, sizes),
    }
    runs = {name: work.run for name, work in works.items()}
    rows = compared(interleaved(runs, sizes.rounds), BASELINE)
    parts = {}
    for precision in ("float32", "mixed_bfloat16"):
        of_precision = _parts(settings, sizes, precision)
        seconds = interleaved({name: work.run for name, work in of_precision.items()}, sizes.rounds)
        for name, values in seconds.items():
            parts[f"{name}, {precision}"] = {"seconds": min(values)}
            works[f"{name}, {precision}"] = of_precision[name]
    rates = {dtype: product_rate(dtype) for dtype in ("float32", "bfloat16")}
    for name, row in (rows | parts).items():
        if operations := works[name].operations:
            rate = operations / row["seconds"]
            row["gflop_per_second"] = rate / 1e9
            row["of_product_rate"] = rate / rates["bfloat16" if "bfloat16" in name else "float32"]
    title = f"update, {sizes.batch_size} sequences of {sizes.length} steps"
    return {title: rows, "parts of an update, each by itself, forwards and backwards": parts}


def evaluate(settings: ModelSettings, sizes: Sizes) -> dict[str, Any]:
    """Seconds of a batch with several draws, and of as many passes of the transcription."""
    model, batch = make_model(settings), make_batch(sizes)
    transcription = Transcription(model)
    _check_elbo(transcription, sizes)
    passed = tf.function(transcription.elbo, autograph=False)
    draws = sizes.num_samples
    runs = {
        "as called": evaluation(settings, sizes).run,
        "mixed_bfloat16": evaluation(settings, sizes, "mixed_bfloat16").run,
        BASELINE: lambda: [passed(*batch, tf.constant((1, k))) for k in range(draws)],
    }
    return {f"evaluate, {draws} draws": compared(interleaved(runs, sizes.rounds), BASELINE)}


def read(data: str, sizes: Sizes, num_batches: int = 200) -> dict[str, Any]:
    """Batches from records: milliseconds each, padding, and that of batches without buckets."""
    card, tables = read_card(data), {}
    for name, window in (("buckets", 2000), ("without buckets", sizes.batch_size)):
        batches = iter(train_batches(data, batch_size=sizes.batch_size, window=window, seed=0))
        next(batches)
        valid = padded = 0
        start, processor = time.perf_counter(), time.process_time()
        for _ in range(num_batches):
            x, lengths, *_ = next(batches)
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
    "scaling": processes.scaling,
    "environment": processes.environment,
}


def _check_elbo(transcription: Transcription, sizes: Sizes) -> None:
    model, batch = transcription.model, make_batch(sizes)
    expected = bounds.sum_over_time(model.score(*batch, SEED)).elbo(model)
    check_same("the ELBO", expected, transcription.elbo(*batch, SEED), 1e-4)


def _transcribed_update(settings: ModelSettings, sizes: Sizes) -> Work:
    model, batch = make_model(settings), make_batch(sizes)
    optimizer = make_optimizer(TrainingSettings())
    optimizer.build(model.trainable_variables)
    transcription = Transcription(model)
    _check_elbo(transcription, sizes)

    @tf.function(autograph=False)
    def run(x, lengths):
        weights = [v.value for v in model.trainable_variables]
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(transcription.elbo(x, lengths, SEED) / sizes.length)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, weights), 1.0)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return Work(lambda: run(*batch), 3.0 * operations_of(model, sizes))


def _parts(settings: ModelSettings, sizes: Sizes, precision: str) -> dict[str, Work]:
    """The parts of an update: what each makes of its inputs, and the gradients of that."""
    model: STCN = make_model(settings, precision)
    x, lengths = make_batch(sizes)
    state = model.start(sizes.batch_size)
    encoded = tf.function(model.encode, autograph=False)(x, lengths, state)
    read = sum(model.latent_sizes if model.dense else model.latent_sizes[:1])
    frames = tf.concat([state.encoder.previous, x], axis=1)
    deterministic = tf.random.stateless_normal(
        [len(model.latent_sizes), *frames.shape[:2], model.stack.filters], SEED
    )
    deterministic = tf.cast(deterministic, encoded.steps.prior[0][0].dtype)
    places = model.places_of(state, x)

    def stack(frames):
        outputs, _ = model.stack(frames, state.encoder.stack, lengths)
        every = model.blocks_per_layer
        return [block.residual for block in outputs[every - 1 :: every]]

    def latents(*deterministic):
        layers = list(zip(model.latent_layers, deterministic, strict=True))
        latents = model.draw_latents(
            [layer.begin_prior(d[:, :-1]) for layer, d in layers],
            [layer.begin_posterior(d[:, 1:]) for layer, d in layers],
            places,
            SEED,
            1.0,
        )
        pairs = zip(latents.posteriors, latents.priors, strict=True)
        return [latents.read, *(tfp.distributions.kl_divergence(q, p) for q, p in pairs)]

    def output(latents):
        outputs, _ = serial.run(model.output_layers, latents, state.latent, lengths)
        return [model.observation.log_prob(model.observation(outputs)[0], x)]

    drawn = tf.random.stateless_normal([*x.shape[:2], read], SEED)
    return {
        "stack": _both_ways(stack, [frames], [model.stack], sizes),
        "latents": _both_ways(latents, tf.unstack(deterministic), model.latent_layers, sizes),
        "output layers, heads": _both_ways(
            output, [drawn], [*model.output_layers, model.observation], sizes
        ),
        "optimizer": _apply(model),
    }


def _both_ways(function, inputs: list[tf.Tensor], layers: list, sizes: Sizes) -> Work:
    """What layers make of inputs, and the gradients of its sum for inputs and weights."""
    variables = [v for layer in layers for v in layer.trainable_variables]

    @tf.function(autograph=False)
    def run(*inputs):
        weights = [v.value for v in variables]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.add_n([tf.reduce_sum(tf.cast(o, tf.float32)) for o in function(*inputs)])
        gradients = tape.gradient(total, [*inputs, *weights], unconnected_gradients="zero")
        # A number of each, which waits for all of it.
        return tf.stack([tf.cast(tf.reshape(g, [-1])[0], tf.float32) for g in gradients])

    # TensorFlow takes the functions of several parts for one that is traced anew each time.
    run = run.get_concrete_function(*inputs)
    return Work(lambda: run(*inputs), 3.0 * sum(operations_of(layer, sizes) for layer in layers))


def _apply(model: STCN) -> Work:
    """Clipping and the update of the weights, with gradients that are there."""
    optimizer = make_optimizer(TrainingSettings())
    optimizer.build(model.trainable_variables)
    gradients = [tf.fill(v.shape, 1e-3) for v in model.trainable_variables]

    @tf.function(autograph=False)
    def run(gradients):
        clipped, norm = tf.clip_by_global_norm(gradients, 1.0)
        optimizer.apply(clipped, model.trainable_variables)
        return norm

    return Work(lambda: run(gradients), 0.0)
