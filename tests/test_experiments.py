from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import flags
from stcn_tf.data.pipeline import Batch
from stcn_tf.data.records import read_card
from stcn_tf.models import build_model
from stcn_tf.training.train_step import TrainStep, make_optimizer

FLAGFILES = sorted(Path(__file__).parents[1].glob("experiments/**/*.flags"))
NUM_PARAMETERS = {
    "iamondb": 12_626_781,
    "iamondb_compare": 1_585_021,
    "iamondb_cpu": 1_585_021,
    "quickstart": 414_243,
}


@pytest.mark.parametrize("flagfile", FLAGFILES, ids=lambda path: path.stem)
def test_parses_builds_and_steps(flagfile, parse_flags, tiny_records, monkeypatch):
    # Flagfiles name those that they include from the top of the project.
    monkeypatch.chdir(Path(__file__).parents[1])
    parse_flags(flags.define_train, f"--flagfile={flagfile}", "--data=d", "--run_dir=r")
    config = flags.config()
    model = build_model(config.model, read_card(tiny_records), config.training.precision)
    assert model.count_params() == NUM_PARAMETERS[flagfile.stem]
    optimizer = make_optimizer(config.training)
    optimizer.build(model.trainable_variables)
    # Eager: tracing thirty blocks takes longer than one small step.
    tf.config.run_functions_eagerly(True)
    try:
        step = TrainStep(config.training, model, optimizer, tf.distribute.get_strategy())
        x = tf.random.stateless_normal([2, 5, 3], (1, 2))
        x = tf.concat([x[..., :2], tf.cast(x[..., 2:] > 0, tf.float32)], axis=-1)
        before = [v.numpy() for v in model.trainable_variables]
        result = step(Batch(x, tf.constant([5, 3])))
    finally:
        tf.config.run_functions_eagerly(False)
    assert np.isfinite(float(result.elbo))
    changed = [
        (a != b.numpy()).any() for a, b in zip(before, model.trainable_variables, strict=True)
    ]
    assert all(changed)
    keras.backend.clear_session()
