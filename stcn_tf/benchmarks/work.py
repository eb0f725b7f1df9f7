"""What is timed: an update, some steps of generation, an evaluation; with random weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from stcn_tf import bounds
from stcn_tf.benchmarks.sizes import Sizes
from stcn_tf.config import TrainingSettings
from stcn_tf.distribution import Share
from stcn_tf.inference.generation import Generator
from stcn_tf.models.base import SequenceModel
from stcn_tf.models.registry import build_model
from stcn_tf.models.settings import ModelSettings
from stcn_tf.training.step import TrainStep, make_optimizer

SEED = (1, 2)
GENERATED_STEPS = 200


class _Pen(NamedTuple):
    """All that a model must know of handwriting."""

    num_real: int = 2
    num_binary: int = 1


class Work(NamedTuple):
    """Something to be timed."""

    run: Callable[[], Any]  # returns tensors, to be waited for
    operations: float  # floating-point operations of its products


def update(
    settings: ModelSettings,
    sizes: Sizes,
    precision: str = "float32",
    jit_compile: bool = False,
) -> Work:
    """An update from one batch, as training does it."""
    training = TrainingSettings(precision=precision)
    model = make_model(settings, precision)
    optimizer = make_optimizer(training)
    optimizer.build(model.trainable_variables)
    step = TrainStep(training, model, optimizer, jit_compile=jit_compile)
    batch = Share.whole(*make_batch(sizes))
    # Forwards, and twice as many backwards.
    return Work(lambda: step(batch).elbo, 3.0 * operations_of(model, sizes))


def generation(settings: ModelSettings, sizes: Sizes) -> Work:
    """Steps of one sequence, as called."""
    del sizes
    model = make_model(settings)
    generator, nothing = Generator(model, jit_compile=False), tf.zeros([1, 0, model.num_features])
    return Work(lambda: generator(nothing, GENERATED_STEPS, SEED), 0.0)


def evaluation(settings: ModelSettings, sizes: Sizes, precision: str = "float32") -> Work:
    """A batch scored with several draws."""
    model, batch = make_model(settings, precision), make_batch(sizes)
    score = tf.function(bounds.score_samples, autograph=False)
    return Work(lambda: score(model, *batch, tf.constant(SEED), sizes.num_samples).bound, 0.0)


WORK: dict[str, Callable[..., Work]] = {
    "update": update,
    "generation": generation,
    "evaluation": evaluation,
}


def make_model(settings: ModelSettings, precision: str = "float32") -> SequenceModel:
    """A model of handwriting, with the same weights each time."""
    keras.utils.set_random_seed(0)
    return build_model(settings, _Pen(), precision)


def make_batch(sizes: Sizes) -> tuple[tf.Tensor, tf.Tensor]:
    """Random frames of handwriting, without padding, and the lengths."""
    shape = (sizes.batch_size, sizes.length, 3)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x[..., 2] = x[..., 2] > 1.5
    return tf.constant(x), tf.fill([sizes.batch_size], sizes.length)


def operations_of(layer: keras.Layer, sizes: Sizes) -> float:
    """Of the products of a layer or a model, once forwards: each weight meets each step."""
    weights = sum(int(np.prod(v.shape)) for v in layer.trainable_variables if len(v.shape) > 1)
    return 2.0 * weights * sizes.batch_size * sizes.length
