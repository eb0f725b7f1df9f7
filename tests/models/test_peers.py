"""The baselines against what their authors' released programs compute on tiny models.

STCN_REFERENCE names a folder whose `peers/NAME/reference.npz` hold weights, noise and results.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.layers.observation import Observation
from stcn_tf.models.z_forcing import ZForcing

pytestmark = pytest.mark.reference


def _reference(name):
    if not os.environ.get("STCN_REFERENCE"):
        pytest.skip("STCN_REFERENCE is not set")
    return np.load(Path(os.environ["STCN_REFERENCE"], "peers", name, "reference.npz"))


def _assign(model, values):
    """Weights by their path without the model's name; all of them."""
    weights = {w.path.split("/", 1)[1]: w for w in model.weights if w.trainable}
    assert set(weights) == set(values)
    for path, value in values.items():
        weights[path].assign(value)


def _linear(reference, name):
    """A linear map of PyTorch as a 1x1 convolution: (kernel, bias)."""
    weight, bias = reference[f"weights/{name}.weight"], reference[f"weights/{name}.bias"]
    return weight.T[np.newaxis], bias


def _assert_close(found, expected, tolerance=1e-5):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= tolerance * (1.0 + np.abs(expected)))


def _z_forcing(reference):
    observation = Observation(7, 0, sigma_form="log_variance", name="observation")
    model = ZForcing(
        observation=observation,
        recurrent_units=11,
        input_units=9,
        latent_size=4,
        latent_units=6,
        auxiliary_weight=float(reference["aux_weight"]),
        backward_weight=float(reference["bwd_weight"]),
    )
    model.build()
    values = {}

    def put(path, weight):
        values[f"{path}/kernel"], values[f"{path}/bias"] = weight

    def put_gaussian(path, name, layer="2"):
        kernel, bias = _linear(reference, f"{name}.{layer}" if layer else name)
        units = len(bias) // 2
        put(f"{path}/mean", (kernel[..., :units], bias[:units]))
        put(f"{path}/spread", (kernel[..., units:], bias[units:]))

    put("e", _linear(reference, "emb_mod.0"))
    put("w", _linear(reference, "gen_mod"))
    for path, name in (("prior", "pri_mod"), ("posterior", "inf_mod"), ("auxiliary", "aux_mod")):
        put(f"{path}/network/hidden_0", _linear(reference, f"{name}.0"))
        put_gaussian(path, name)
    put_gaussian("backward", "bwd_out_mod", "")
    kernel, bias = _linear(reference, "fwd_out_mod")
    put("observation/mean", (kernel[..., :7], bias[:7]))
    put("observation/sigma", (kernel[..., 7:], bias[7:]))
    parts = {name: reference[f"weights/fwd_mod.{name}"] for name in ("weight_ih", "weight_hh")}
    values["h/cell/kernel"], values["h/cell/recurrent_kernel"] = parts.values()
    values["h/cell/bias"] = sum(reference[f"weights/fwd_mod.bias_{n}"] for n in ("ih", "hh"))
    values["b/cell/kernel"] = reference["weights/bwd_mod.weight_ih_l0"].T
    values["b/cell/recurrent_kernel"] = reference["weights/bwd_mod.weight_hh_l0"].T
    values["b/cell/bias"] = sum(reference[f"weights/bwd_mod.bias_{n}_l0"] for n in ("ih", "hh"))
    _assign(model, values)
    return model


@pytest.fixture
def z_forcing(monkeypatch):
    """Their values, our model with their weights and their noise, and the function that scores.

    They read the padding, and x_1 is given: the state before x_2 has it as its last frame.
    """
    reference = _reference("zforcing")
    model = _z_forcing(reference)
    standard = tf.constant(reference["noise/0_all_steps"], tf.float32)
    monkeypatch.setattr(ZForcing, "_standard", lambda self, *_: standard)
    x = tf.constant(reference["x"], tf.float32)
    # Steps have numbers, so that the backward state of the first has a frame to predict.
    state = model.start(3)._replace(encoder=x[:, :1], step=tf.ones([3], tf.int32))
    lengths = tf.fill([3], 12)

    def score():
        encoded = model.encode(x[:, 1:], lengths, state)
        return encoded, model.observe(encoded, x[:, 1:], lengths, state)

    return reference, model, score


def test_z_forcing_step_by_step(z_forcing):
    reference, model, score = z_forcing
    encoded, (terms, state) = score()
    expected = {name.removeprefix("release/"): reference[name] for name in reference.files}
    _assert_close(encoded.steps.seen, expected["backward_state"])
    (mean, sigma), _ = model.backward_head(encoded.steps.seen)
    _assert_close(mean, expected["backward_head/mean"])
    _assert_close(2.0 * np.log(sigma), expected["backward_head/logvar"])
    _assert_close(terms.parameters.mean[:, :, 0], expected["head/mean"])
    _assert_close(2.0 * np.log(terms.parameters.sigma[:, :, 0]), expected["head/logvar"])
    _assert_close(terms.kl[..., 0], expected["kl"])
    _assert_close(terms.log_likelihood, expected["log_likelihood"])
    weight = expected["log_pz"] - expected["log_qz"] + expected["log_likelihood"]
    _assert_close(terms.log_weight, weight, 3e-5)
    costs = reference["aux_weight"] * expected["aux_nll"]
    costs = costs - reference["bwd_weight"] * expected["backward_log_likelihood"]
    _assert_close(terms.auxiliary, costs)
    for found, name in zip(state.latent, "hc", strict=True):
        _assert_close(found, expected[name][:, -1])


def test_z_forcing_gradients(z_forcing):
    reference, model, score = z_forcing
    weights = {w.path.split("/", 1)[1]: w.value for w in model.trainable_variables}
    mask, kl_weight = reference["mask"], float(reference["kl_weight"])
    with tf.GradientTape() as tape:
        _, (terms, _) = score()
        cost = terms.auxiliary - terms.log_likelihood + kl_weight * terms.kl[..., 0]
        loss = tf.reduce_sum(tf.constant(mask, tf.float32) * cost) / 3.0
    _assert_close(loss, reference["release/training_loss"])
    paths = {
        "e/kernel": ("emb_mod.0.weight", lambda g: g.T[np.newaxis]),
        "h/cell/recurrent_kernel": ("fwd_mod.weight_hh", np.asarray),
        "b/cell/kernel": ("bwd_mod.weight_ih_l0", np.transpose),
        "posterior/network/hidden_0/kernel": ("inf_mod.0.weight", lambda g: g.T[np.newaxis]),
        "w/kernel": ("gen_mod.weight", lambda g: g.T[np.newaxis]),
    }
    gradients = tape.gradient(loss, {path: weights[path] for path in paths})
    for path, (name, laid_out) in paths.items():
        expected = laid_out(reference[f"release/gradient/{name}"])
        _assert_close(gradients[path], expected, 1e-4)
