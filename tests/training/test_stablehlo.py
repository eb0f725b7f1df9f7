"""An update as a program for machines that have an accelerator and no TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.distribution import Share
from stcn_tf.models.registry import MODELS

# Of convolutions and of a loop over steps; what the others are made of, and slow to trace.
FAST = ("stcn_dense", "vrnn")


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS if n not in FAST)]
)
def test_an_update_captures_variables_alone_and_is_a_program(name, tiny_config_with, make_step):
    step = make_step(tiny_config_with(model={"model": name}))

    @tf.function(jit_compile=True, autograph=False)
    def update(x, lengths):
        return step(Share.whole(x, lengths))

    x = tf.constant(np.random.default_rng(0).integers(0, 2, (2, 5, 3)), tf.float32)
    inputs = x, tf.constant([5, 3])
    concrete = update.get_concrete_function(*inputs)
    handles = {id(variable.handle) for variable in concrete.variables}
    assert {id(captured) for captured in concrete.captured_inputs} <= handles
    program = update.experimental_get_compiler_ir(*inputs)(stage="stablehlo")
    assert "stablehlo.dot_general" in program
    assert "custom_call" not in program
