"""One update of every model, by the kernels of oneDNN and without them, in a process for each.

Which kernels TensorFlow takes depends on the processor; what a model computes must not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
SCRIPT = """
import json, types
import keras, numpy as np, tensorflow as tf
from stcn_tf.config import TrainingSettings
from stcn_tf.data.batches import Batch
from stcn_tf.models.registry import MODELS, build_model, make_settings, settings_of
from stcn_tf.training.step import TrainStep, make_optimizer

OBSERVATIONS = {
    "normal": ("normal", 2, 0),
    "gmm": ("gmm", 2, 0),
    "gmm and binary": ("gmm", 2, 1),
    "binary": ("normal", 0, 3),
}
SIZES = dict(num_filters=6, num_components=4, output_layers=2, output_filters=7,
             latent_sizes=(5, 3), latent_hidden_layers=1, blocks_per_layer=2, dilations=(1, 2, 4),
             wavenet_blocks=3, wavenet_dense_blocks=(1, 3))


def update(name, observation, output_type, precision):
    keras.utils.set_random_seed(1)
    kind, real, binary = OBSERVATIONS[observation]
    sizes = {k: v for k, v in SIZES.items() if k in settings_of(name).names()}
    settings = make_settings(name, observation=kind, output_type=output_type, **sizes)
    card = types.SimpleNamespace(num_real=real, num_binary=binary)
    model = build_model(settings, card, precision)
    config = TrainingSettings(precision=precision)
    optimizer = make_optimizer(config)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(2)
    x = np.concatenate(
        [rng.standard_normal((2, 9, real)), rng.integers(0, 2, (2, 9, binary))], axis=-1
    ).astype(np.float32)
    x[1, 7:] = 0.0
    step = TrainStep(config, model, optimizer, tf.distribute.get_strategy())
    result = step(Batch(tf.constant(x), tf.constant([9, 7])))
    return [float(result.elbo), float(result.gradient_norm)]


found = {}
for name in MODELS:
    for output_type in ("conv1x1", "wavenet"):
        for observation in OBSERVATIONS:
            found[f"{name}, {observation}, {output_type}"] = update(
                name, observation, output_type, "float32")
    found[f"{name}, mixed"] = update(name, "gmm and binary", "conv1x1", "mixed_bfloat16")
print(json.dumps(found, allow_nan=False))
"""


def _start(onednn: str) -> subprocess.Popen:
    environment = {"TF_ENABLE_ONEDNN_OPTS": onednn, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=PROJECT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow  # some minutes on two cores
def test_every_model_makes_the_same_update_with_and_without_onednn():
    processes = [_start(onednn) for onednn in "01"]
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    plain, onednn = (json.loads(out.splitlines()[-1]) for out, _ in outputs)
    assert plain.keys() == onednn.keys()
    for case, expected in plain.items():
        # bfloat16 has 8 bits of mantissa.
        tolerance = 2**-5 if case.endswith("mixed") else 1e-4
        assert onednn[case] == pytest.approx(expected, rel=tolerance), case
