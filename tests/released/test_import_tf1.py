"""The import of the released program's checkpoints, on checkpoints that the tests write.

Names, shapes and the forward pass in NumPy are written down here once more, from the description of
the released program, so that they are checked and not repeated.
"""

import copy
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import flags as stcn_flags
from stcn_tf import import_tf1
from stcn_tf.config import Config, RunSettings, TrainingSettings
from stcn_tf.data.batches import train_batches
from stcn_tf.data.card import Feature, Modality, Normalization, read_card
from stcn_tf.released.configuration import read_configuration
from stcn_tf.released.importing import import_run, released_name
from stcn_tf.runs import RunDirectory, load_run
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError
from stcn_tf.training import checkpoints as checkpoints_module
from stcn_tf.training.checkpoints import Checkpoints
from stcn_tf.training.early_stopping import EarlyStopping
from stcn_tf.training.step import make_optimizer
from stcn_tf.training.trainer import Trainer

GMM = {"type": "nll_gmm", "num_components": 3, "weight": 1, "out_key": "out", "target_idx": 0}
NORMAL = {"type": "nll_normal", "weight": 1}
PEN = {"type": "nll_bernoulli", "weight": 1, "out_key": "out", "target_idx": 1}
ONLY_BINARY = {"type": "nll_bernoulli", "weight": 1, "out_key": "out", "target_idx": 0}

STCN = {
    "model_cls": "StochasticTCN",
    "cnn_layer": {
        "num_encoder_layers": 4,
        "num_filters": 6,
        "filter_size": 2,
        "dilation_size": [1, 2, 1, 2],
        "use_gating": True,
        "use_residual": True,
        "zero_padding": True,
    },
    "latent_layer": {
        "type": "latent_ladder_gaussian",
        "vertical_dilation": 2,
        "latent_size": [4, 3],
        "num_hidden_layers": 2,
        "num_hidden_units": 6,
        "latent_sigma_threshold": 5.0,
        "dynamic_prior": True,
        "kld_weight": 1,
    },
    "output_layer": {"type": "conv1", "num_layers": 2},
    "loss": {"stroke": GMM, "pen": PEN},
    "reduce_loss": "mean_step_loss",
    "batch_size": 4,
    "num_epochs": 2,
    "learning_rate": 0.01,
    "learning_rate_type": "exponential",
    "learning_rate_decay_rate": 0.5,
}
TCN = {
    **{key: value for key, value in STCN.items() if key != "latent_layer"},
    "model_cls": "TCN",
    "cnn_layer": {
        "num_layers": 3,
        "num_filters": 6,
        "filter_size": 2,
        "dilation_size": [1, 3, 2],
        "use_gating": True,
        "use_residual": True,
        "zero_padding": True,
        "use_skip": True,
    },
    "output_layer": {"num_layers": 2},
}
_MISSING = object()


def changed(options, **changes):
    """A configuration with some options replaced, `a__b` for b within a; _MISSING: left out."""
    options = copy.deepcopy(options)
    for path, value in changes.items():
        *around, key = path.split("__")
        within = options
        for name in around:
            within = within[name]
        within[key] = value
        if value is _MISSING:
            del within[key]
    return options


class Names(dict):
    """Shapes of the variables by the released program's names."""

    def conv(self, scope, width, channels, filters):
        self[f"{scope}/kernel"] = (width, channels, filters)
        self[f"{scope}/bias"] = (filters,)
        return filters

    def block(self, scope, width, channels, filters):
        self.conv(f"{scope}/conv1d", width, channels, filters)
        self.conv(f"{scope}/conv1d_1", width, channels, filters)
        self.conv(f"{scope}/conv1d_2", 1, filters, filters)
        if channels != filters:
            self.conv(f"{scope}/conv1d_3", 1, channels, filters)
        return filters

    def heads(self, prefix, channels, real, components, binary):
        if real:
            self.conv(f"{prefix}_mu/conv1d", 1, channels, real * components)
            self.conv(f"{prefix}_sigma/conv1d", 1, channels, real * components)
            if components > 1:
                self.conv(f"{prefix}_coefficient/conv1d", 1, channels, components)
        if binary:
            self.conv(f"{prefix}_binary/conv1d", 1, channels, binary)


def names_of_stcn(
    *,
    features,
    filters=6,
    width=2,
    num_blocks=4,
    sizes=(4, 3),
    hidden=(6, 6),
    dense=False,
    output=("conv1d", 1),
    output_sizes=(6, 6),
):
    """Sizes as numbers; `features` are real ones, components, binary ones."""
    real, components, binary = features
    names = Names()
    channels = real + binary
    for block in range(1, num_blocks + 1):
        channels = names.block(f"encoder/temporal_block_{block}", width, channels, filters)
    for layer, size in enumerate(sizes, start=1):
        for network in ("p", "q"):
            for part in ("mu", "sigma"):
                channels = filters + sum(sizes[layer : layer + 1])
                for i, units in enumerate((*hidden, size)):
                    conv = f"conv1d_{i}" if i else "conv1d"
                    scope = f"latent/{network}_{layer}_{part}/{conv}"
                    channels = names.conv(scope, 1, channels, units)
    channels = sum(sizes) if dense else sizes[0]
    kind, width = output
    for i, size in enumerate(output_sizes, start=1):
        if kind == "conv1d":
            channels = names.conv(f"output_layer/out_conv1d_{i}/conv1d", width, channels, size)
        else:
            channels = names.block(f"output_layer/out_convCCN_{i}", width, channels, size)
    names.heads("output_layer/out_out", channels, real, components, binary)
    return names


def names_of_wavenet(*, features, filters=6, width=2, num_blocks=3, read=1, output_layers=2):
    real, components, binary = features
    names = Names()
    names.conv("causal_conv_layer_0/conv1d", width, real + binary, filters)
    for block in range(1, num_blocks + 1):
        names.block(f"temporal_block_{block}", width, filters, filters)
    channels = filters * read
    for i in range(1, output_layers + 1):
        channels = names.conv(f"output_layer_hidden/conv1d_{i}/conv1d", 1, channels, filters)
    names.heads("output_layer_out", channels, real, components, binary)
    return names


def weights_of(names, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]) + 3)).astype(np.float32)
        for name, shape in names.items()
    }


def with_slots(weights, seed=1):
    rng = np.random.default_rng(seed)
    slots = {f"{k}/Adam": rng.normal(size=v.shape).astype("f4") for k, v in weights.items()}
    slots |= {f"{k}/Adam_1": rng.random(v.shape).astype("f4") for k, v in weights.items()}
    powers = {"beta1_power": np.float32(0.5), "beta2_power": np.float32(0.9)}
    return {**weights, **slots, **powers}


def write(folder, weights, options, step=7):
    """A checkpoint as `tf.train.Saver` writes it, and its configuration; -> their paths.

    `step` is the released program's: the number of the next update.
    """
    folder.mkdir(exist_ok=True)
    variables = dict(weights)
    if step is not None:
        variables["global_step"] = np.int32(step)
    prefix = str(folder / "model.ckpt-7")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=[tf.constant(value) for value in variables.values()],
    )
    config = folder / "config.json"
    config.write_text(json.dumps(options))
    return prefix, config


@pytest.fixture
def imported(tmp_path):
    """Function (weights, options, ...) -> the run that is imported."""

    def imported(weights, options, step=7, **how):
        prefix, config = write(tmp_path / "tf1", weights, options, step)
        return import_run(prefix, config, tmp_path / "run", **how)

    return imported


# The forward pass in NumPy, float64, all noise zero.


def softplus(x):
    return np.logaddexp(0.0, x)


def logistic(x):
    return 1 / (1 + np.exp(-x))


class Numpy:
    """x: [batch, time, features]."""

    def __init__(self, weights):
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}

    def conv(self, scope, x, dilation=1):
        kernel = self.weights[f"{scope}/kernel"]
        width = len(kernel)
        outputs = self.weights[f"{scope}/bias"] + np.zeros((*x.shape[:2], kernel.shape[-1]))
        for tap in range(width):
            back = (width - 1 - tap) * dilation
            past = np.pad(x, [(0, 0), (back, 0), (0, 0)])[:, : x.shape[1]]
            outputs = outputs + past @ kernel[tap]
        return outputs

    def block(self, scope, x, dilation):
        """Residual and skip output."""
        gate = logistic(self.conv(f"{scope}/conv1d_1", x, dilation))
        hidden = np.tanh(self.conv(f"{scope}/conv1d", x, dilation)) * gate
        skip = self.conv(f"{scope}/conv1d_2", hidden)
        has_projection = f"{scope}/conv1d_3/kernel" in self.weights
        return skip + (self.conv(f"{scope}/conv1d_3", x) if has_projection else x), skip

    def network(self, scope, x):
        num = sum(name.startswith(f"{scope}/") and name.endswith("/bias") for name in self.weights)
        for i in range(num):
            x = self.conv(f"{scope}/conv1d_{i}" if i else f"{scope}/conv1d", x)
            x = np.maximum(x, 0) if i < num - 1 else x
        return x

    def gaussian(self, scope, x):
        sigma = softplus(self.network(f"{scope}_sigma", x))
        return self.network(f"{scope}_mu", x), np.clip(sigma, 1e-3, 5)

    def log_prob(self, prefix, hidden, x, components):
        total = np.zeros(x.shape[:2])
        real = 0
        if f"{prefix}_mu/conv1d/bias" in self.weights:
            shape = (*hidden.shape[:2], -1, components)  # component fastest
            mean = self.conv(f"{prefix}_mu/conv1d", hidden).reshape(shape)
            sigma = softplus(self.conv(f"{prefix}_sigma/conv1d", hidden)).reshape(shape)
            sigma = np.clip(sigma, 1e-3, 50)
            real = mean.shape[2]
            error = (x[..., :real, None] - mean) / sigma
            logs = np.sum(-0.5 * error**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi), axis=2)
            if components > 1:
                logits = self.conv(f"{prefix}_coefficient/conv1d", hidden)
                logits = logits - logits.max(axis=-1, keepdims=True)
                weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
                logs = logs + np.log(np.maximum(weights, 1e-6))
            total = total + np.logaddexp.reduce(logs, axis=-1)
        if f"{prefix}_binary/conv1d/bias" in self.weights:
            p = logistic(self.conv(f"{prefix}_binary/conv1d", hidden))
            bits = x[..., real:]
            logs = bits * np.log(np.maximum(p, 1e-5)) + (1 - bits) * np.log(np.maximum(1 - p, 1e-5))
            total = total + logs.sum(axis=-1)
        return total

    def stcn(self, x, dilations, blocks_per_layer, num_layers, dense, output, components):
        d, hidden = [], np.pad(x, [(0, 0), (1, 0), (0, 0)])
        for number, dilation in enumerate(dilations, start=1):
            hidden, _ = self.block(f"encoder/temporal_block_{number}", hidden, dilation)
            if number % blocks_per_layer == 0:
                d.append(hidden)
        read, above = [], np.zeros((*x.shape[:2], 0))
        for layer in range(num_layers, 0, -1):
            past, seen = d[layer - 1][:, :-1], d[layer - 1][:, 1:]
            mean_p, sigma_p = self.gaussian(
                f"latent/p_{layer}", np.concatenate([past, above], axis=-1)
            )
            mean_q, sigma_q = self.gaussian(
                f"latent/q_{layer}", np.concatenate([seen, above], axis=-1)
            )
            precisions = sigma_p**-2, sigma_q**-2
            above = (mean_p * precisions[0] + mean_q * precisions[1]) / sum(precisions)
            read.append(above)
        hidden = np.concatenate(read, axis=-1) if dense else above
        number = 1
        while f"output_layer/out_{output}_{number}/conv1d/bias" in self.weights:
            scope = f"output_layer/out_{output}_{number}"
            if output == "conv1d":
                hidden = np.maximum(self.conv(f"{scope}/conv1d", hidden), 0)
            else:
                hidden, _ = self.block(scope, hidden, 1)
            number += 1
        return self.log_prob("output_layer/out_out", hidden, x, components)

    def wavenet(self, x, dilations, read_blocks, components):
        hidden = self.conv("causal_conv_layer_0/conv1d", x[:, :-1])
        residuals, skips = [], []
        for number, dilation in enumerate(dilations, start=1):
            hidden, skip = self.block(f"temporal_block_{number}", hidden, dilation)
            residuals.append(hidden)
            skips.append(skip)
        if read_blocks:
            hidden = np.concatenate([residuals[number - 1] for number in read_blocks], axis=-1)
        else:
            hidden = sum(skips)
        hidden = np.maximum(hidden, 0)
        number = 1
        while f"output_layer_hidden/conv1d_{number}/conv1d/bias" in self.weights:
            scope = f"output_layer_hidden/conv1d_{number}/conv1d"
            hidden = np.maximum(self.conv(scope, hidden), 0)
            number += 1
        return self.log_prob("output_layer_out", hidden, x[:, 1:], components)


def sequences(num_real, num_binary):
    rng = np.random.default_rng(5)
    real = rng.normal(size=(3, 9, num_real))
    return np.concatenate([real, rng.random((3, 9, num_binary)) < 0.4], axis=-1).astype("f4")


STCN_CASES = {
    "handwriting": (
        STCN,
        {"features": (2, 3, 1)},
        {"latent_sizes": (4, 3), "output_type": "conv1x1", "output_layers": 2},
    ),
    "normal, no hidden layer, one size, K = 1": (
        changed(
            STCN,
            loss={"out": NORMAL},
            latent_layer__latent_size=5,
            latent_layer__vertical_dilation=_MISSING,
            latent_layer__num_hidden_layers=0,
            cnn_layer__num_encoder_layers=3,
            cnn_layer__dilation_size=[1, 1, 1],
        ),
        {"features": (7, 1, 0), "num_blocks": 3, "sizes": (5, 5, 5), "hidden": ()},
        {"observation": "normal", "latent_sizes": (5, 5, 5), "blocks_per_layer": 1},
    ),
    "dense, Wavenet outputs, width 3, other sizes": (
        changed(
            STCN,
            latent_layer__dense_z=True,
            latent_layer__num_hidden_units=5,
            latent_layer__num_hidden_layers=1,
            cnn_layer__filter_size=3,
            output_layer={"size": 8, "filter_size": 0},
        ),
        {
            "features": (2, 3, 1),
            "width": 3,
            "hidden": (5,),
            "dense": True,
            "output": ("convCCN", 3),
            "output_sizes": (8,),
        },
        {"latent_filters": 5, "output_type": "wavenet", "output_kernel_size": 3},
    ),
    "Wavenet outputs of width 3": (
        changed(STCN, output_layer={"type": "tcn", "size": 0, "filter_size": 3, "num_layers": 2}),
        {"features": (2, 3, 1), "output": ("convCCN", 3)},
        {"output_kernel_size": 3, "output_filters": 6, "kernel_size": 2},
    ),
    "only binary, three hidden layers, no output layer, as many filters as features": (
        changed(
            STCN,
            loss={"pixels": ONLY_BINARY},
            latent_layer__num_hidden_layers=3,
            latent_layer__num_hidden_units=7,
            latent_layer__use_same_q_sample=True,
            output_layer={"type": "conv1", "num_layers": 0, "filter_size": 4},
        ),
        {"features": (0, 1, 6), "hidden": (7, 7, 7), "output_sizes": ()},
        {"latent_hidden_layers": 3, "posterior_draws": "shared", "output_layers": 0},
    ),
}


@pytest.mark.parametrize("case", STCN_CASES)
def test_stcn_of_other_sizes(case, imported):
    options, sizes, settings = STCN_CASES[case]
    weights = weights_of(names_of_stcn(**sizes))
    run = imported(weights, options)
    assert {name: getattr(run.config.model, name) for name in settings} == settings
    assert run.config.model.released_floors
    assert run.config.model.posterior_scale == "std"
    real, components, binary = sizes["features"]
    assert (run.card.num_real, run.card.num_binary) == (real, binary)
    x = sequences(real, binary)
    lengths = np.array([9, 6, 2])
    expected = Numpy(weights).stcn(
        x,
        options["cnn_layer"]["dilation_size"],
        run.config.model.blocks_per_layer,
        len(run.config.model.latent_sizes),
        options["latent_layer"].get("dense_z", False),
        sizes.get("output", ("conv1d",))[0],
        components,
    )
    for checkpoint in ("best", "latest"):
        model = load_run(run.path, checkpoint)
        terms = model.score(x, lengths, temperature=0.0)
        expected = np.where(np.arange(9) < lengths[:, np.newaxis], expected, 0)
        error = np.abs(terms.log_likelihood - expected) / (1 + np.abs(expected))
        assert np.max(error) < 1e-5


WAVENET_CASES = {
    "skip": (
        changed(TCN, cnn_layer__tcn_output_layer_idx=[]),
        {"features": (2, 3, 1)},
        {"model": "wavenet", "output_layers": 2},
    ),
    "skip, normal, width 3": (
        changed(TCN, loss={"a": NORMAL, "b": PEN}, cnn_layer__filter_size=3, output_layer={}),
        {"features": (3, 1, 1), "width": 3, "output_layers": 1},
        {"model": "wavenet", "observation": "normal", "output_layers": 1},
    ),
    "the last block": (
        changed(TCN, cnn_layer__use_skip=False, output_layer__num_layers=0),
        {"features": (2, 3, 1), "output_layers": 0},
        {"model": "wavenet_dense", "wavenet_dense_blocks": (3,)},
    ),
    "some blocks": (
        changed(
            TCN,
            cnn_layer__use_skip=False,
            cnn_layer__tcn_output_layer_idx=[0, -2],
            output_layer={"num_layers": 2, "size": 99, "type": "tcn", "filter_size": 4},
        ),
        {"features": (2, 3, 1), "read": 2},
        {"model": "wavenet_dense", "wavenet_dense_blocks": (1, 2), "output_filters": 6},
    ),
}


@pytest.mark.parametrize("case", WAVENET_CASES)
def test_wavenets_of_other_sizes(case, imported):
    options, sizes, settings = WAVENET_CASES[case]
    weights = weights_of(names_of_wavenet(**sizes))
    run = imported(weights, options)
    assert {name: getattr(run.config.model, name) for name in settings} == settings
    assert run.config.model.first_frame == "given"
    assert run.config.model.dilations == (1, 3, 2)
    real, components, binary = sizes["features"]
    x = sequences(real, binary)
    lengths = np.array([9, 6, 2])
    blocks = settings.get("wavenet_dense_blocks", ())
    expected = Numpy(weights).wavenet(x, (1, 3, 2), blocks, components)
    expected = np.where(np.arange(1, 9) < lengths[:, np.newaxis], expected, 0)
    terms = load_run(run.path).score(x, lengths, temperature=0.0)
    error = np.abs(terms.log_likelihood[:, 1:] - expected) / (1 + np.abs(expected))
    assert np.max(error) < 1e-5


HANDWRITING = names_of_stcn(features=(2, 3, 1))
# One that TensorFlow traces in no time.
SMALL = changed(
    STCN,
    cnn_layer__num_encoder_layers=1,
    cnn_layer__dilation_size=[1],
    latent_layer__vertical_dilation=1,
    latent_layer__latent_size=2,
    latent_layer__num_hidden_layers=0,
    output_layer__num_layers=0,
)
SMALL_NAMES = names_of_stcn(
    features=(2, 3, 1), num_blocks=1, sizes=(2,), hidden=(), output_sizes=()
)


def settings_of(tmp_path, options):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(options))
    return read_configuration(file).config


def test_training_settings(tmp_path):
    options = changed(
        STCN,
        batch_size=5,
        num_epochs=9,
        learning_rate=0.002,
        learning_rate_decay_rate=0.9,
        learning_rate_decay_steps=500,
        reduce_loss="mean_sequence_loss",
        grad_clip_by_norm=3,
        grad_clip_by_value=0,
        evaluate_every_step=11,
        checkpoint_every_step=12,
        seed=13,
        latent_layer__kld_weight={"type": "linear_decay", "values": [0.25, 1.0, 0.01]},
    )
    config = settings_of(tmp_path, options)
    assert config.run == RunSettings(max_epochs=9, evaluate_every=11, checkpoint_every=12)
    assert config.training == TrainingSettings(
        precision="float32",
        batch_size=5,
        learning_rate=0.002,
        learning_rate_decay=0.9**2,
        loss_reduction="sum_step",
        clip_norm=3.0,
        seed=13,
        kl_weight_start=0.25,
        kl_weight_increment=0.01,
        select="objective",
    )


@pytest.mark.parametrize("weight", [0, 0.5, 1])
def test_a_fixed_kl_weight(tmp_path, weight):
    options = changed(STCN, latent_layer__kld_weight=weight)
    training = settings_of(tmp_path, options).training
    assert (training.kl_weight_start, training.kl_weight_increment) == (weight, 0)


def test_gradients_are_not_clipped_where_nothing_says_so(tmp_path):
    assert settings_of(tmp_path, STCN).training.clip_norm == 0


def test_dilations_that_are_the_pattern_are_not_written_out(tmp_path):
    assert settings_of(tmp_path, STCN).model.dilations == ()
    options = changed(STCN, cnn_layer__dilation_size=[1, 2, 2, 1])
    assert settings_of(tmp_path, options).model.dilations == (1, 2, 2, 1)


NORMAL_AND_PEN = changed(STCN, loss={"stroke": NORMAL, "pen": PEN})
NO_OUTPUT_LAYERS = changed(STCN, output_layer={"type": "conv1", "num_layers": 0})
NO_HIDDEN_LAYERS = changed(STCN, latent_layer__num_hidden_layers=0)


@pytest.mark.parametrize(
    ("base", "option", "value"),
    [
        (NORMAL_AND_PEN, "loss__stroke__num_components", 20),
        (STCN, "loss__pen__num_components", 20),
        (STCN, "output_layer__filter_size", None),  # of 1x1 convolutions
        (NO_OUTPUT_LAYERS, "output_layer__size", None),
        (NO_OUTPUT_LAYERS, "output_layer__activation_fn", "elu"),
        (NO_HIDDEN_LAYERS, "latent_layer__num_hidden_units", _MISSING),
        (NO_HIDDEN_LAYERS, "latent_layer__num_hidden_units", 0),
        (NO_HIDDEN_LAYERS, "latent_layer__num_hidden_units", 9),
        (NO_HIDDEN_LAYERS, "latent_layer__hidden_activation_fn", "elu"),
        (TCN, "output_layer__type", "lstm"),
        (TCN, "output_layer__size", "many"),
        (TCN, "cnn_layer__tcn_output_layer_idx", "all"),  # with skip outputs
    ],
)
def test_what_has_no_effect_where_it_stands_is_not_refused(tmp_path, base, option, value):
    given = settings_of(tmp_path, changed(base, **{option: value}))
    assert given == settings_of(tmp_path, base)


def test_options_without_effect(tmp_path):
    given = {
        "data_type": "iam",
        "experiment_name": "a",
        # Of the command line; a configuration that a training has written holds them, too.
        "checkpoint_id": None,
        "json_file": "a.json",
        "model_id": "tf-1",
        "run_evaluation_after_training": False,
        "pp_zero_mean_normalization": False,
        "tensorboard_verbose": 1,
        "decoder_use_enc_skip": False,
        "input_layer": {"dropout_rate": 0.0},
        "latent_layer__latent_filter_size": 3,
        "latent_layer__latent_dilation": 1,
        "latent_layer__precision_weighted_update": True,
        "latent_layer__kld_p0_z0": False,
        "latent_layer__dropout_rate": 0,
        "cnn_layer__use_skip": True,
        "cnn_layer__tcn_output_layer_idx": [],
        "cnn_layer__num_decoder_layers": 0,
        "output_layer__out_keys": [],
    }
    assert settings_of(tmp_path, changed(STCN, **given)) == settings_of(tmp_path, STCN)


REFUSED = [
    # base, option, value, what the message says of it
    (STCN, "model_cls", "VRNN", '"VRNN" is not supported; accepted: "StochasticTCN", "TCN"'),
    (STCN, "model_cls", _MISSING, "missing"),
    (STCN, "model_cls", ["TCN"], '["TCN"] is not supported'),
    (STCN, "cnn_layer", [], "[]; accepted: a JSON object"),
    (STCN, "cnn_layer", _MISSING, "missing"),
    (STCN, "cnn_layer__num_filters", "many", '"many" is not supported; accepted: whole numbers'),
    (STCN, "cnn_layer__num_filters", 6.0, "6.0 is not supported; accepted: whole numbers"),
    (STCN, "cnn_layer__num_filters", True, "true is not supported"),
    (STCN, "cnn_layer__num_filters", 0, "0 is not supported; accepted: whole numbers of 1"),
    (STCN, "cnn_layer__filter_size", 1, "1 is not supported; accepted: whole numbers of 2"),
    (STCN, "cnn_layer__num_encoder_layers", 5, "5 is not supported; accepted: multiples of 2"),
    (STCN, "cnn_layer__dilation_size", [1, 2, 4], "[1, 2, 4] is not supported; accepted: 4 numb"),
    (STCN, "cnn_layer__dilation_size", 1, "1 is not supported; accepted: a list"),
    (STCN, "cnn_layer__dilation_size", [1, 2, 1, 0], "[1, 2, 1, 0] is not supported"),
    (STCN, "cnn_layer__use_gating", False, "false is not supported; accepted: true"),
    (STCN, "cnn_layer__use_gating", _MISSING, "missing, which stands for false; accepted: true"),
    (STCN, "cnn_layer__use_residual", _MISSING, "missing, which stands for false"),
    (STCN, "cnn_layer__zero_padding", False, "false is not supported"),
    (STCN, "cnn_layer__zero_padding", 1, "1 is not supported"),
    (STCN, "cnn_layer__activation_fn", "tanh", '"tanh" is not supported; accepted: "relu"'),
    (STCN, "cnn_layer__dropout_rate", 0.1, "0.1 is not supported; accepted: 0"),
    (STCN, "cnn_layer__num_decoder_layers", 2, "2 is not supported; accepted: 0"),
    (STCN, "cnn_layer__num_layers", 4, None),
    (STCN, "decoder_use_raw_inputs", True, "true is not supported; accepted: false"),
    (STCN, "decoder_use_enc_skip", True, "true is not supported; accepted: false"),
    (STCN, "decoder_use_enc_last", True, "true is not supported; accepted: false"),
    (STCN, "input_layer", {"dropout_rate": 0.2}, None),
    (STCN, "latent_layer", _MISSING, "missing"),
    (STCN, "latent_layer__type", "gaussian", '"gaussian" is not supported'),
    (STCN, "latent_layer__layer_structure", "lstm", '"lstm" is not supported; accepted: "conv1"'),
    (STCN, "latent_layer__dynamic_prior", _MISSING, "missing, which stands for false"),
    (STCN, "latent_layer__recursive_q", False, "false is not supported; accepted: true"),
    (STCN, "latent_layer__top_down_latents", False, "false is not supported; accepted: true"),
    (STCN, "latent_layer__precision_weighted_update", False, "false is not supported"),
    (STCN, "latent_layer__use_fixed_pz1", True, "true is not supported; accepted: false"),
    (STCN, "latent_layer__kld_p0_z0", True, "true is not supported; accepted: false"),
    (STCN, "latent_layer__kld_q0_z0", True, "true is not supported; accepted: false"),
    (STCN, "latent_layer__latent_sigma_threshold", 1.0, "1.0 is not supported; accepted: 5.0"),
    (STCN, "latent_layer__latent_sigma_threshold", _MISSING, "missing, which stands for 0"),
    (STCN, "latent_layer__hidden_activation_fn", "elu", '"elu" is not supported'),
    (STCN, "latent_layer__dropout_rate", 0.5, "0.5 is not supported; accepted: 0"),
    (STCN, "latent_layer__latent_size", [4], "[4] is not supported; accepted: 2 numbers"),
    (STCN, "latent_layer__latent_size", {}, "{} is not supported; accepted: whole numbers"),
    (STCN, "latent_layer__latent_size", [4, "2"], '[4, "2"] is not supported'),
    (STCN, "latent_layer__num_hidden_units", _MISSING, "missing"),
    (STCN, "latent_layer__dense_z", "yes", '"yes" is not supported; accepted: true, false'),
    (STCN, "latent_layer__kld_weight", 2, "2 is not supported; accepted: a number from 0 to 1"),
    (
        STCN,
        "latent_layer__kld_weight",
        {"type": "linear_decay", "values": [0, 0.5, 0.1]},
        "is not supported; accepted: a number from 0 to 1",
    ),
    (
        STCN,
        "latent_layer__kld_weight",
        {"type": "sigmoid", "values": [0, 1, 0.1]},
        "is not supported; accepted: a number from 0 to 1",
    ),
    (STCN, "output_layer__type", "lstm", '"lstm" is not supported; accepted: "conv1", "tcn"'),
    (STCN, "output_layer__num_layers", -1, "-1 is not supported"),
    (STCN, "output_layer__activation_fn", "tanh", '"tanh" is not supported'),
    (STCN, "output_layer__dropout_rate", 0.1, "0.1 is not supported"),
    (STCN, "output_layer__size", None, "null is not supported; accepted: whole numbers"),
    (STCN, "output_layer", {"filter_size": 1}, None),
    (STCN, "loss", {}, "terms of type none; accepted: one of nll_normal or nll_gmm"),
    (STCN, "loss", {"a": GMM, "b": NORMAL}, "terms of type nll_gmm, nll_normal; accepted"),
    (STCN, "loss__pen", 3, "3; accepted: a JSON object"),
    (STCN, "loss__pen__weight", 2, "2 is not supported; accepted: 1"),
    (STCN, "loss__pen__type", "mse", '"mse" is not supported'),
    (STCN, "loss__pen__out_key", "pen", '"pen" is not supported; accepted: "out"'),
    (STCN, "loss__stroke__target_idx", 1, "1 is not supported; accepted: 0"),
    (STCN, "loss__stroke__num_components", 1, "1 is not supported; accepted: whole numbers of 2"),
    (STCN, "loss__stroke__num_components", _MISSING, "missing"),
    (STCN, "reduce_loss", "sum", '"sum" is not supported; accepted: "mean_step_loss"'),
    (STCN, "batch_size", _MISSING, "missing"),
    (STCN, "num_epochs", 0, "0 is not supported"),
    (STCN, "learning_rate", 0, "0 is not supported; accepted: more than 0"),
    (STCN, "learning_rate", "1e-3", '"1e-3" is not supported; accepted: finite numbers'),
    (STCN, "learning_rate", 10**400, "is not supported; accepted: finite numbers"),
    (
        STCN,
        "learning_rate_type",
        "linear",
        '"linear" is not supported; accepted: "exponential", "fixed"',
    ),
    (STCN, "learning_rate_decay_rate", 1.5, "1.5 is not supported"),
    (STCN, "learning_rate_decay_steps", 0, "0 is not supported"),
    (STCN, "grad_clip_by_value", 1, "1 is not supported; accepted: 0"),
    (STCN, "grad_clip_by_norm", -1, "-1 is not supported"),
    (STCN, "seed", -1, "-1 is not supported"),
    (TCN, "cnn_layer__num_layers", _MISSING, "missing"),
    (TCN, "cnn_layer__dilation_size", [1, 2], "[1, 2] is not supported; accepted: 3 numbers"),
    (TCN, "cnn_layer__use_skip", 1, "1 is not supported; accepted: true, false"),
    (TCN, "latent_layer", {}, None),
]


@pytest.mark.parametrize(
    ("base", "option", "value", "message"),
    REFUSED,
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_cannot_be_imported_is_refused_by_name(tmp_path, base, option, value, message):
    with pytest.raises(UserError) as error:
        settings_of(tmp_path, changed(base, **{option: value}))
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/config.json: ")
    name = option.replace("__", ".")
    assert name in text
    if message:
        assert text.startswith(f"{tmp_path}/config.json: {name}: ")
        assert message in text


@pytest.mark.parametrize("path", ["colour", "cnn_layer__colour", "loss__pen__colour"])
def test_unknown_options_are_refused_by_name(tmp_path, path):
    with pytest.raises(UserError, match="unknown options") as error:
        settings_of(tmp_path, changed(STCN, **{path: 1}))
    assert str(error.value).endswith(f": {path.replace('__', '.')}")


@pytest.mark.parametrize("indices", [[3], [-4], [], 2])
def test_blocks_that_are_not_there(tmp_path, indices):
    changes = {"cnn_layer__use_skip": False, "cnn_layer__tcn_output_layer_idx": indices}
    with pytest.raises(UserError, match=r"cnn_layer\.tcn_output_layer_idx: .* not supported"):
        settings_of(tmp_path, changed(TCN, **changes))


def test_more_blocks_per_layer_than_our_settings_accept(tmp_path):
    changes = {
        "cnn_layer__num_encoder_layers": 21,
        "cnn_layer__dilation_size": [1] * 21,
        "latent_layer__vertical_dilation": 21,
        "latent_layer__latent_size": [4],
    }
    with pytest.raises(UserError, match=r"config\.json: as our setting blocks_per_layer: 21"):
        settings_of(tmp_path, changed(STCN, **changes))


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"a": "\xff"}', b"[" * 100_000, None])
def test_no_configuration(tmp_path, content):
    file = tmp_path / "config.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json: "):
        read_configuration(file)


def test_every_variable_is_used_and_every_weight_set(tmp_path):
    """One error names all that does not fit, and nothing is left behind."""
    weights = weights_of(HANDWRITING)
    del weights["latent/p_1_mu/conv1d_1/bias"]
    weights["encoder/temporal_block_5/conv1d/bias"] = np.zeros(6, "f4")
    weights["latent/q_2_mu/conv1d_2/kernel"] = np.zeros((1, 6, 5), "f4")
    weights["latent/q_2_mu/conv1d_2/bias"] = np.zeros(3, "f8")
    prefix, config = write(tmp_path / "tf1", weights, STCN)
    with pytest.raises(UserError) as error:
        import_run(prefix, config, tmp_path / "run")
    text = str(error.value)
    assert "1 missing variables: latent/p_1_mu/conv1d_1/bias;" in text
    assert "1 unused variables: encoder/temporal_block_5/conv1d/bias;" in text
    assert "latent/q_2_mu/conv1d_2/kernel [1, 6, 5] instead of [1, 6, 3]" in text
    assert "latent/q_2_mu/conv1d_2/bias [3] float64 instead of [3]" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tf1"]


def test_a_checkpoint_of_another_model(tmp_path):
    weights = weights_of(names_of_wavenet(features=(2, 3, 1)))
    prefix, config = write(tmp_path / "tf1", weights, STCN)
    with pytest.raises(UserError, match=r"missing variables: .* \d+ more; \d+ unused v"):
        import_run(prefix, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", [".data-00000-of-00001", ".index"])
def test_a_truncated_checkpoint(tmp_path, suffix):
    prefix, config = write(tmp_path / "tf1", weights_of(HANDWRITING), STCN)
    file = Path(prefix + suffix)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"model\.ckpt-7: damaged, or no checkpoint"):
        import_run(prefix, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_checkpoint(tmp_path):
    prefix, config = write(tmp_path / "tf1", weights_of(HANDWRITING), STCN)
    for wrong in (tmp_path / "tf1", f"{prefix}.index", tmp_path / "nowhere" / "model.ckpt"):
        with pytest.raises(UserError, match=f"{wrong}: no checkpoint .there is no {wrong}.index"):
            import_run(wrong, config, tmp_path / "run")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    prefix, config = write(tmp_path / "tf1", weights_of(HANDWRITING), STCN)
    (tmp_path / "run").mkdir()
    import_run(prefix, config, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").stat()
    for path in (tmp_path / "run", config):
        with pytest.raises(UserError, match="exists and is not empty: give another --run_dir"):
            import_run(prefix, config, path)
    assert (tmp_path / "run" / "config.json").stat() == before


def optimizer_of(run, data):
    """Model, optimizer and checkpoints of a run, restored as training does."""
    model = run.load().model
    optimizer = make_optimizer(run.config.training)
    optimizer.build(model.trainable_variables)
    batches = iter(train_batches(data, batch_size=4, window=8, seed=0))
    early_stopping = EarlyStopping(run.config.training, bool(model.latent_sizes))
    checkpoints = Checkpoints(run, model, optimizer, early_stopping, batches)
    told = []
    checkpoints.restore(told.append)
    assert not told
    assert checkpoints.imported
    return model, optimizer, checkpoints


def test_state_of_adam(imported, tiny_records):
    """The next update is the one that TensorFlow 1's Adam would make."""
    weights = with_slots(weights_of(HANDWRITING))
    run = imported(weights, STCN, step=41)
    assert run.load("best").update == run.load("latest").update == 40
    model, optimizer, checkpoints = optimizer_of(run, tiny_records)
    assert checkpoints.step == 40
    rng = np.random.default_rng(9)
    gradients = [rng.normal(size=v.shape).astype("f4") for v in model.trainable_variables]
    optimizer.learning_rate = 0.01
    optimizer.apply([tf.constant(g) for g in gradients], model.trainable_variables)
    rate = 0.01 * np.sqrt(1 - 0.999**41) / (1 - 0.9**41)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        name = released_name(variable.path, run.config.model)
        m = 0.9 * weights[f"{name}/Adam"] + 0.1 * gradient
        v = 0.999 * weights[f"{name}/Adam_1"] + 0.001 * gradient**2
        expected = weights[name] - rate * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_part_of_the_state_of_adam_is_none(tmp_path):
    weights = with_slots(weights_of(HANDWRITING))
    del weights["latent/p_1_mu/conv1d_1/bias/Adam_1"]
    weights["latent/p_1_mu/conv1d_1/kernel/Adam"] = np.zeros((1, 6, 5), "f4")
    prefix, config = write(tmp_path / "tf1", weights, STCN)
    with pytest.raises(UserError) as error:
        import_run(prefix, config, tmp_path / "run")
    assert "1 missing variables: latent/p_1_mu/conv1d_1/bias/Adam_1;" in str(error.value)
    assert "latent/p_1_mu/conv1d_1/kernel/Adam [1, 6, 5] instead of [1, 6, 6]" in str(error.value)


def test_state_of_adam_of_what_nothing_reads(imported, tiny_records, tmp_path):
    """TensorFlow 1 makes no moments for a block whose output goes nowhere."""
    options, _, _ = WAVENET_CASES["some blocks"]
    names = names_of_wavenet(features=(2, 3, 1), read=2)
    weights = with_slots(weights_of(names))
    unread = [name for name in weights if name.startswith("temporal_block_3/") and "/Adam" in name]
    assert unread
    run = imported({k: v for k, v in weights.items() if k not in unread}, options)
    _, optimizer, _ = optimizer_of(run, tiny_records)
    for variable in optimizer.variables:
        if variable.path.endswith(("momentum", "velocity")):
            is_unread = "block_02" in variable.path
            assert np.all(variable.numpy() == 0) == is_unread
    # Nor may those of one that is read be missing.
    del weights["temporal_block_2/conv1d/kernel/Adam"]
    prefix, config = write(tmp_path / "other", weights, options)
    with pytest.raises(UserError, match="missing variables: temporal_block_2/conv1d/kernel/Adam"):
        import_run(prefix, config, tmp_path / "other_run")


def test_without_state_of_adam_the_moments_are_zero(imported, tiny_records):
    lines = []
    run = imported(weights_of(HANDWRITING), STCN, step=None, report=lines.append)
    assert any("no state of Adam" in line for line in lines)
    _, optimizer, checkpoints = optimizer_of(run, tiny_records)
    assert checkpoints.step == run.load("best").update == 0
    moments = [v for v in optimizer.variables if v.path.endswith(("momentum", "velocity"))]
    assert len(moments) == 2 * len(HANDWRITING)
    assert not any(np.any(v.numpy()) for v in moments)


@pytest.mark.parametrize("step", [np.float32(7), np.zeros(2, np.int64)])
def test_a_global_step_of_another_kind(tmp_path, step):
    weights = {**weights_of(HANDWRITING), "global_step": step}
    prefix, config = write(tmp_path / "tf1", weights, STCN, step=None)
    with pytest.raises(UserError, match="global_step .* instead of a whole number"):
        import_run(prefix, config, tmp_path / "run")


def test_the_card_of_unknown_records(imported):
    run = imported(weights_of(HANDWRITING), STCN)
    assert RunDirectory.open(run.path) == run
    assert run.card.is_placeholder
    assert run.card.modality == Modality("handwriting")
    assert run.card.normalization == Normalization("unknown", (0, 0, 0), (1, 1, 1))


def test_the_card_of_other_features(imported):
    weights = weights_of(names_of_stcn(features=(3, 1, 2)))
    run = imported(weights, changed(STCN, loss={"a": NORMAL, "b": PEN}))
    assert [f.kind for f in run.card.features] == ["real"] * 3 + ["binary"] * 2
    assert run.card.modality == Modality("other")


def test_the_card_of_the_records(imported, tiny_records):
    run = imported(weights_of(HANDWRITING), STCN, data=tiny_records)
    assert run.card == read_card(tiny_records)
    assert not run.card.is_placeholder


def test_records_of_other_features(tmp_path, tiny_records):
    weights = weights_of(names_of_stcn(features=(3, 3, 1)))
    prefix, config = write(tmp_path / "tf1", weights, STCN)
    with pytest.raises(UserError, match="2 real and 1 binary features; the model in .* 3 and 1"):
        import_run(prefix, config, tmp_path / "run", data=tiny_records)
    assert not (tmp_path / "run").exists()


def test_units_of_unknown_records(imported, tiny_records, capsys):
    run = imported(weights_of(HANDWRITING), STCN)
    card = read_card(tiny_records)
    capsys.readouterr()
    run.check_same_units(card)
    assert "likelihoods are of the values that tiny holds" in capsys.readouterr().err
    features = (*card.features, Feature("lift", "binary", "0 or 1", "another"))
    normalization = Normalization("none", (0,) * 4, (1,) * 4)
    other = dataclasses.replace(
        card, features=features, normalization=normalization, modality=Modality("other")
    )
    with pytest.raises(UserError, match="have 2 real and 2 binary features; .* has 2 and 1"):
        run.check_same_units(other)
    with pytest.raises(UserError, match="have 2 real and 2 binary features; .* has 2 and 1"):
        RunDirectory.prepare(run.path, run.config, other)


EVERYTHING = changed(
    STCN,
    cnn_layer__dilation_size=[1, 2, 3, 4],
    latent_layer__dense_z=True,
    latent_layer__kld_weight={"type": "linear_decay", "values": [0.1, 1, 1e-5]},
    learning_rate_decay_rate=0.92,
    learning_rate_decay_steps=700,
    seed=3,
)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (EVERYTHING, names_of_stcn(features=(2, 3, 1), dense=True)),
        (TCN, names_of_wavenet(features=(2, 3, 1))),
    ],
    ids=["STCN", "TCN"],
)
def test_the_flagfile_gives_the_settings_exactly(imported, parse_flags, options, names):
    run = imported(weights_of(names), options, max_steps=20)
    assert run.config.run.max_steps == 20
    flagfile = f"--flagfile={run.path}/imported.flags"
    parse_flags(stcn_flags.define_train, flagfile, "--data=records", "--run_dir=run")
    assert stcn_flags.config() == run.config
    assert run.config != Config()


def test_training_continues(imported, tiny_records):
    """Schedules, weights and Adam go on; the run takes over the records' card."""
    run = imported(with_slots(weights_of(SMALL_NAMES)), SMALL, step=7, max_steps=9)
    lines = []
    trainer = Trainer(run.config, tiny_records, run.path, lines.append)
    assert trainer.step == 6
    assert trainer.train()
    assert "continuing after update 6" in lines[0]
    # How good it is is known before it changes: what was imported may stay the best.
    assert "update       6  validation" in lines[1]
    continued = RunDirectory.open(run.path)
    assert continued.card == read_card(tiny_records)
    assert continued.config == run.config
    assert continued.load("latest").update == 9
    assert continued.load("best").update in (6, 9)
    # From here on it is a run like any other, with a position in the data.
    again = Trainer(run.config, tiny_records, run.path, lines.append)
    assert (again.step, again.train()) == (9, True)
    assert "finished already" in lines[-1]
    other = dataclasses.replace(read_card(tiny_records), source_sha256="1" * 64, name="other")
    other = dataclasses.replace(other, normalization=Normalization("x", (0,) * 3, (2, 2, 1)))
    with pytest.raises(UserError, match="holds a run on other records"):
        RunDirectory.prepare(run.path, run.config, other)


def test_a_run_that_has_made_all_its_updates_is_evaluated_and_ends(imported, tiny_records):
    run = imported(weights_of(SMALL_NAMES), SMALL, step=1001)
    trainer = Trainer(run.config, tiny_records, run.path, lambda line: None)
    assert trainer.train()
    assert trainer.step == 1000
    assert np.isfinite(float(trainer.early_stopping.best))


def test_max_steps_that_are_past(tmp_path):
    prefix, config = write(tmp_path / "tf1", weights_of(HANDWRITING), STCN, step=8)
    with pytest.raises(UserError, match=r"--max_steps=7: .* of update 7; accepted: more, or 0"):
        import_run(prefix, config, tmp_path / "run", max_steps=7)


def test_an_ordinary_checkpoint_without_its_position_is_damaged(
    imported, tiny_records, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "_IMPORTED", "nothing_known")
        run = imported(weights_of(HANDWRITING), STCN)
    with pytest.raises(UserError, match="damaged, or not of the model"):
        optimizer_of(run, tiny_records)


def run_command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["import_tf1", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.run(import_tf1.main, stcn_flags.define_import_tf1)
    return end.value.code


def test_command(tmp_path, monkeypatch, capsys, parse_flags, tiny_records):
    prefix, config = write(tmp_path / "tf1", weights_of(HANDWRITING), STCN)
    arguments = (f"--checkpoint={prefix}", f"--config={config}", f"--run_dir={tmp_path}/run")
    code = run_command(monkeypatch, *arguments, f"--data={tiny_records}", "--max_steps=10")
    assert code in (None, 0)
    out = capsys.readouterr().out
    assert f"--flagfile={tmp_path}/run/imported.flags --data=RECORDS --run_dir={tmp_path}" in out
    assert RunDirectory.open(tmp_path / "run").config.run.max_steps == 10
    assert load_run(tmp_path / "run").count_params() > 0


def test_command_with_a_mistake(tmp_path, monkeypatch, capsys, parse_flags):
    options = changed(STCN, latent_layer__recursive_q=False)
    prefix, config = write(tmp_path / "tf1", weights_of(HANDWRITING), options)
    arguments = (f"--checkpoint={prefix}", f"--config={config}", f"--run_dir={tmp_path}/run")
    assert run_command(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err == (
        f"error: {config}: latent_layer.recursive_q: false is not supported; accepted: true\n"
    )
    assert not (tmp_path / "run").exists()
