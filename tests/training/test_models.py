"""Every model of the registry trained: the same compiled or not, and resumed bit for bit."""

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.distribution import Share
from stcn_tf.models.registry import MODELS
from stcn_tf.training.trainer import Trainer


# STCN is in test_loop, in graphs.
@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("stcn")])
def test_a_run_that_is_resumed_ends_as_one_that_was_not(
    name, tmp_path, tiny_records, tiny_config_with, eager
):
    def trained(folder, *ends):
        for end in ends:
            config = tiny_config_with(
                model={"model": name},
                training={"evaluate_sequences": 2},
                run={"max_steps": end, "checkpoint_every": 9, "evaluate_every": 9},
            )
            trainer = Trainer(config, tiny_records, tmp_path / folder, report=lambda line: None)
            assert trainer.train()
        return [v.numpy() for v in trainer.model.weights]

    for one, other in zip(trained("whole", 2), trained("resumed", 1, 2), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_update_is_that_of_the_graph(name, make_step, tiny_config_with):
    x = tf.constant(np.random.default_rng(0).integers(0, 2, (4, 7, 3)), tf.float32)
    results = []
    for jit_compile in (False, True):
        run = {"jit_compile": jit_compile}
        step = make_step(tiny_config_with(model={"model": name}, run=run))
        result = step(Share.whole(x, tf.constant([7, 4, 1, 7])))
        results.append([float(result.elbo), float(result.gradient_norm)])
    np.testing.assert_allclose(*results, rtol=1e-3)
