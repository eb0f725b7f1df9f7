"""The baselines against what their authors' released programs compute on tiny models.

STCN_REFERENCE names a folder whose `peers/NAME/reference.npz` hold weights, noise and results.
"""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import noise
from stcn_tf.layers import observation as observation_module
from stcn_tf.layers import phase
from stcn_tf.layers.autoregressive import FeaturewiseObservation, HierarchicalObservation
from stcn_tf.layers.observation import Observation
from stcn_tf.models.f_srnn import FSRNN
from stcn_tf.models.rnn import RNN
from stcn_tf.models.swavenet import SWaveNet
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


# Dai et al.: an LSTM over frames, and what is autoregressive within them


def _dai_lstm(reference, layers, order):
    """The LSTMs, the linear embedding below the lowest being part of its input weights."""
    values = {}
    embedding = reference["weights/inp_emb.0.weight"].T[order], reference["weights/inp_emb.0.bias"]
    for i in range(layers):
        kernel = reference[f"weights/rnn.weight_ih_l{i}"].T
        bias = sum(reference[f"weights/rnn.bias_{name}_l{i}"] for name in ("ih", "hh"))
        if i == 0:
            kernel, bias = embedding[0] @ kernel, bias + embedding[1] @ kernel
        values[f"lstm_{i}/cell/kernel"] = kernel
        values[f"lstm_{i}/cell/recurrent_kernel"] = reference[f"weights/rnn.weight_hh_l{i}"].T
        values[f"lstm_{i}/cell/bias"] = bias
    return values


def _frnn(reference):
    values = {}
    for ours, theirs in (("mean", "mean"), ("log_sigma", "std"), ("component", "prior")):
        weight = reference[f"weights/crit.{theirs}_weight"]
        values[f"observation/{ours}/kernel"] = weight.reshape(1, 11, -1)
        values[f"observation/{ours}/bias"] = reference[f"weights/crit.{theirs}_bias"].ravel()
    return FeaturewiseObservation(7, 0, weight.shape[-1], name="observation"), values


def _hier_ink(reference):
    """Theirs has the pen first; ours reads it first, too, and has it last in x."""
    values = {
        "observation/binary/kernel": _linear(reference, "classifier")[0],
        "observation/binary/bias": _linear(reference, "classifier")[1],
        "observation/earlier_binary": np.zeros((3, 1)),
    }
    for ours, theirs in (("mean", "mean"), ("log_sigma", "var"), ("component", "prior")):
        dx, dy = (reference[f"weights/crit{i}.{theirs}.weight"].T for i in (1, 2))
        values[f"observation/{ours}/kernel"] = np.hstack([dx[:11], dy[:11]])[np.newaxis]
        values[f"observation/{ours}/bias"] = (
            np.zeros(10)
            if theirs == "var"
            else np.concatenate([reference[f"weights/crit{i}.{theirs}.bias"] for i in (1, 2)])
        )
        earlier = np.zeros((3, 10))
        earlier[:1, :5], earlier[:2, 5:] = dx[11:], dy[11:]
        values[f"observation/earlier_{ours}"] = earlier
    observation = FeaturewiseObservation(2, 1, 5, is_ordered=True, name="observation")
    return observation, values


def _hier_speech(reference):
    values = {
        "observation/e/kernel": _linear(reference, "inp_emb_low.0")[0],
        "observation/e/bias": _linear(reference, "inp_emb_low.0")[1],
        "observation/lstm/cell/kernel": reference["weights/rnn_low.weight_ih_l0"].T,
        "observation/lstm/cell/recurrent_kernel": reference["weights/rnn_low.weight_hh_l0"].T,
        "observation/lstm/cell/bias": sum(
            reference[f"weights/rnn_low.bias_{name}_l0"] for name in ("ih", "hh")
        ),
        "observation/initial_h": reference["weights/init_h"][0],
        "observation/initial_c": reference["weights/init_c"][0],
    }
    for ours, theirs in (("mean", "mean"), ("log_sigma", "std"), ("component", "prior")):
        weight = reference[f"weights/crit.{theirs}_weight"]
        values[f"observation/{ours}_kernel"] = weight.transpose(1, 0, 2)
        values[f"observation/{ours}_bias"] = reference[f"weights/crit.{theirs}_bias"]
    observation = HierarchicalObservation(
        7, 0, weight.shape[-1], units=11, embedding=9, frame_start="initial", name="observation"
    )
    return observation, values


@pytest.mark.parametrize(
    ("name", "layers", "make", "order"),
    [
        ("dai_frnn_speech", 2, _frnn, range(7)),
        ("dai_rnn_hier_iam", 2, _hier_ink, (1, 2, 0)),
        ("dai_rnn_hier_speech", 1, _hier_speech, range(7)),
    ],
)
def test_autoregression_within_a_frame(name, layers, make, order):
    reference, order = _reference(name), list(order)
    observation, values = make(reference)
    model = RNN(
        observation=observation,
        recurrent_units=11,
        recurrent_layers=layers,
        input_units=1,
        output_units=1,
        hidden_layers=0,
        first_frame="given",
    )
    model.build()
    _assign(model, values | _dai_lstm(reference, layers, order))
    x = reference["x"][..., order].astype(np.float32)
    weights = {w.path.split("/", 1)[1]: w.value for w in model.trainable_variables}
    with tf.GradientTape() as tape:
        terms = model.score(x, np.full(len(x), 13, np.int32))
        log_likelihood = terms.log_likelihood[:, 1:]
        # The step that an evaluation counts: theirs, of the steps of each sequence.
        mask = tf.constant(reference["mask"], tf.float32)
        if name.endswith("iam"):
            loss = -tf.reduce_sum(mask * log_likelihood) / tf.reduce_sum(mask)
        else:
            loss = -tf.reduce_mean(log_likelihood) / 7.0
    _assert_close(log_likelihood, reference["output/log_likelihood"])
    reported = tf.reduce_sum(mask * log_likelihood) / len(x)
    _assert_close(reported, reference["output/reported_log_likelihood"])
    _assert_close(loss, reference["output/training_loss"])
    gradients = tape.gradient(loss, weights)
    top = layers - 1
    expected = reference[f"gradient/rnn.weight_hh_l{top}"].T
    _assert_close(gradients[f"lstm_{top}/cell/recurrent_kernel"], expected, 1e-4)
    _assert_close(gradients["lstm_0/cell/bias"], reference["gradient/rnn.bias_ih_l0"], 1e-4)
    # Of the embedding, which is a factor of the lowest input weights and of its bias.
    of_lowest = reference["weights/rnn.weight_ih_l0"]
    of_embedding = np.asarray(gradients["lstm_0/cell/kernel"]) @ of_lowest
    expected = reference["gradient/inp_emb.0.weight"].T[order]
    _assert_close(of_embedding, expected, 1e-4)
    if name == "dai_rnn_hier_speech":
        for part in "hc":
            expected = reference[f"gradient/init_{part}"][0]
            _assert_close(gradients[f"observation/initial_{part}"], expected, 1e-4)


@pytest.mark.parametrize(
    ("name", "make"), [("dai_fsrnn_speech", _frnn), ("dai_srnn_hier_speech", _hier_speech)]
)
def test_f_srnn(name, make, monkeypatch):
    reference = _reference(name)
    observation, values = make(reference)
    model = FSRNN(
        observation=observation, recurrent_units=11, input_units=9, latent_size=4, latent_units=6
    )
    model.build()
    values |= {
        f"e/{part}": v
        for part, v in zip(("kernel", "bias"), _linear(reference, "inp_emb.0"), strict=True)
    }
    for ours, theirs in (("d", "fwd"), ("b", "bwd"), ("h", "lat")):
        values[f"{ours}/cell/kernel"] = reference[f"weights/{theirs}_rnn.weight_ih_l0"].T
        values[f"{ours}/cell/recurrent_kernel"] = reference[f"weights/{theirs}_rnn.weight_hh_l0"].T
        values[f"{ours}/cell/bias"] = sum(
            reference[f"weights/{theirs}_rnn.bias_{part}_l0"] for part in ("ih", "hh")
        )
    for ours, theirs in (("prior", "prior"), ("posterior", "post")):
        hidden, (kernel, bias) = (_linear(reference, f"{theirs}.{i}") for i in (1, 4))
        values[f"{ours}/network/hidden_0/kernel"], values[f"{ours}/network/hidden_0/bias"] = hidden
        for part, units in (("mean", slice(0, 4)), ("spread", slice(4, 8))):
            values[f"{ours}/{part}/kernel"] = kernel[..., units]
            values[f"{ours}/{part}/bias"] = bias[units]
    _assign(model, values)
    standard = tf.constant(reference["noise/0_all_steps"], tf.float32)
    monkeypatch.setattr(FSRNN, "_standard", lambda self, *_: standard)
    x = tf.constant(reference["x"], tf.float32)
    # x_1 is given: the state before x_2 has it as its last frame.
    state = model.start(3)
    state = state._replace(encoder=state.encoder._replace(previous=x[:, :1]))
    lengths, weights = (
        tf.fill([3], 12),
        {w.path.split("/", 1)[1]: w.value for w in model.trainable_variables},
    )
    with tf.GradientTape() as tape:
        encoded = model.encode(x[:, 1:], lengths, state)
        terms, _ = model.observe(encoded, x[:, 1:], lengths, state)
        cost = float(reference["kl_weight"]) * terms.kl[..., 0] - terms.log_likelihood
        loss = tf.reduce_mean(cost) / 7.0
    _assert_close(encoded.steps.before, reference["output/d"])
    _assert_close(encoded.steps.seen, reference["output/b"])
    _assert_close(terms.kl[..., 0], reference["output/kl"])
    _assert_close(terms.log_likelihood, reference["output/log_likelihood"])
    mask = tf.constant(reference["mask"], tf.float32)
    reported = tf.reduce_sum(mask * (terms.log_likelihood - terms.kl[..., 0])) / 3.0
    _assert_close(reported, reference["output/reported_log_likelihood"])
    _assert_close(loss, reference["output/training_loss"])
    paths = {
        "e/kernel": reference["gradient/inp_emb.0.weight"].T[np.newaxis],
        "d/cell/recurrent_kernel": reference["gradient/fwd_rnn.weight_hh_l0"].T,
        "b/cell/kernel": reference["gradient/bwd_rnn.weight_ih_l0"].T,
        "h/cell/kernel": reference["gradient/lat_rnn.weight_ih_l0"].T,
        "posterior/network/hidden_0/kernel": reference["gradient/post.1.weight"].T[np.newaxis],
    }
    gradients = tape.gradient(loss, {path: weights[path] for path in paths})
    for path, expected in paths.items():
        _assert_close(gradients[path], expected, 1e-4)


# SWaveNet


def _conv(reference, name):
    """A convolution of PyTorch: (kernel, bias)."""
    kernel, bias = (reference[f"weights/{name}.{part}"] for part in ("weight", "bias"))
    return kernel.transpose(2, 1, 0) if kernel.ndim == 3 else kernel.T[np.newaxis], bias


def _swavenet(reference, gate, observation, order):
    layers = sum(f"weights/pri_gates.{i}.fc2.weight" in reference for i in range(9))
    deterministic = sum(f"weights/fwds_first.{i}.residual.weight" in reference for i in range(9))
    units = reference["eval/z"].shape[-1]
    hidden = units if "weights/skip0.fc1.weight" in reference else 0
    model = SWaveNet(
        observation=observation,
        num_filters=9,
        deterministic_blocks=deterministic,
        latent_sizes=(units,) * layers,
        mixer_units=hidden,
        gate=gate,
    )
    model.build()
    values = {}

    def put(path, name):
        values[f"{path}/kernel"], values[f"{path}/bias"] = _conv(reference, name)

    def put_mixer(path, name):
        if hidden:
            put(f"{path}/hidden", f"{name}.fc1")
        put(f"{path}/linear", f"{name}.fc2")

    def put_block(path, name):
        for ours, theirs in (("filter", "filter_conv"), ("gate", "gate_conv"), ("residual",) * 2):
            put(f"{path}/{ours}", f"{name}.{theirs}")
            norm = f"{name}.{theirs}_bn"
            values[f"{path}/{ours}_norm/gamma"] = reference[f"weights/{norm}.weight"]
            values[f"{path}/{ours}_norm/beta"] = reference[f"weights/{norm}.bias"]
            for part, running in (("mean", "running_mean"), ("variance", "running_var")):
                value = reference[f"buffers/{norm}.{running}"]
                values[f"{path}/{ours}_norm/moving_{part}"] = value

    put("e", "embedding")
    values["e/kernel"] = values["e/kernel"][:, order]
    put_mixer("skip_00", "skip0")
    for i in range(deterministic):
        put_block(f"block_{i:02d}", f"fwds_first.{i}")
        put_mixer(f"skip_{i + 1:02d}", f"skip_first.{i}")
    for i in range(layers):
        put_block(f"block_{deterministic + i:02d}", f"fwds.{i}")
        put_block(f"ahead_{i + 1}", f"backward.{i}")
        for conv in ("filter", "gate"):  # ours runs in reversed time
            path = f"ahead_{i + 1}/{conv}/kernel"
            values[path] = values[path][::-1]
        put_mixer(f"beta_{i + 1}", f"bwd_gates.{layers - 1 - i}")  # numbered from the top
        put_mixer(f"prior_{i + 1}", f"pri_gates.{i}")
        put_mixer(f"posterior_{i + 1}", f"inference_gates.{i}")
        put_mixer(f"skip_{deterministic + i + 1:02d}", f"skip_gates.{i}")
        if i < layers - 1:  # theirs computes one more, unused
            put_mixer(f"next_{i + 1}", f"forward_gates.{i}")
    for i in range(2):
        put(f"output_{i}", f"final{i + 1}")
    prefix = "regressor." if "weights/regressor.mean.weight" in reference else ""
    put("observation/mean", f"{prefix}mean")
    put("observation/sigma", f"{prefix}var")
    for part in ("kernel", "bias"):  # theirs is a log sigma, ours a log variance
        values[f"observation/sigma/{part}"] = 2.0 * values[f"observation/sigma/{part}"]
    if not prefix:
        put("observation/correlation", "corr")
        put("observation/binary", "binary")
    weights = {w.path.split("/", 1)[1]: w for w in model.weights if "seed" not in w.path}
    assert set(weights) == set(values)
    for path, value in values.items():
        weights[path].assign(value)
    return model


@pytest.mark.parametrize("name", ["swavenet_speech", "swavenet_iam"])
@pytest.mark.parametrize("mode", ["eval", "train", "sigmoid_gate_eval", "sigmoid_gate_train"])
def test_swavenet(name, mode, monkeypatch):
    reference = _reference(name)
    is_ink = name.endswith("iam")
    order = [1, 2, 0] if is_ink else list(range(7))
    # Their log sigma is clipped to [-12, 12] or not at all, and no correlation is.
    for bound, value in (("MIN_SIGMA", -12.0), ("MAX_SIGMA", 12.0)):
        monkeypatch.setattr(observation_module, bound, float(np.exp(value)))
    monkeypatch.setattr(observation_module, "_MAX_CORRELATION_LOGIT", 100.0)
    observation = Observation(
        2 if is_ink else 7,
        int(is_ink),
        is_correlated=is_ink,
        sigma_form="log_variance",
        name="observation",
    )
    gate = "sigmoid" if mode.startswith("sigmoid") else "linear"
    model = _swavenet(reference, gate, observation, order)
    draws = [reference[k] for k in sorted(reference.files) if k.startswith("noise/")]
    standard = tf.constant(np.concatenate(draws, axis=-1), tf.float32)
    monkeypatch.setattr(noise, "standard_normal", lambda *_: standard)
    x = tf.constant(reference["x"][..., order], tf.float32)
    state = model.start(len(x))
    state = state._replace(encoder=state.encoder._replace(previous=x[:, :1]))
    lengths = tf.fill([len(x)], x.shape[1] - 1)  # theirs reads the padding
    mask = tf.constant(reference["mask"], tf.float32)
    weights = {w.path.split("/", 1)[1]: w.value for w in model.trainable_variables}
    is_training = phase.training() if mode.endswith("train") else contextlib.nullcontext()
    with is_training, tf.GradientTape() as tape:
        encoded = model.encode(x[:, 1:], lengths, state)
        terms, _ = model.observe(encoded, x[:, 1:], lengths, state)
        kl = tf.reduce_sum(terms.kl, axis=-1)
        loss = tf.reduce_sum(mask * (0.7 * kl - terms.log_likelihood)) / len(x)
    _assert_close(tf.transpose(terms.kl, [2, 0, 1]), reference[f"{mode}/kl"], 3e-5)
    _assert_close(terms.log_likelihood, reference[f"{mode}/log_likelihood"], 3e-5)
    _assert_close(loss, reference[f"{mode}/training_loss_at_kl_weight"], 3e-5)
    gradients = tape.gradient(
        loss, {path: weights[path] for path in ("e/kernel", "ahead_1/filter_norm/gamma")}
    )
    expected = reference[f"{mode}/gradient/embedding.weight"].transpose(2, 1, 0)[:, order]
    _assert_close(gradients["e/kernel"], expected, 3e-4)
    if mode == "train":
        after = {w.path.split("/", 1)[1]: w.numpy() for w in model.weights}
        deterministic = model.deterministic_blocks
        for path, theirs in (
            (f"block_{deterministic:02d}", "fwds.0"),
            ("ahead_1", "backward.0"),
        ):
            for branch, conv in (("filter", "filter_conv"), ("gate", "gate_conv")):
                expected = reference[f"train/buffers_after/{theirs}.{conv}_bn.running_mean"]
                _assert_close(after[f"{path}/{branch}_norm/moving_mean"], expected)
                # Theirs keeps the unbiased variance of all steps of the batch.
                old = reference[f"buffers/{theirs}.{conv}_bn.running_var"]
                new = reference[f"train/buffers_after/{theirs}.{conv}_bn.running_var"]
                count = len(x) * (x.shape[1] - 1)
                expected = 0.9 * old + (new - 0.9 * old) * (count - 1) / count
                _assert_close(after[f"{path}/{branch}_norm/moving_variance"], expected)
