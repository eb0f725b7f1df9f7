"""Against checkpoints of the authors' released program, and what that program computes on them.

STCN_REFERENCE names a folder with `checkpoints/NAME/`: TensorFlow 1 checkpoint, configuration and
`reference.npz`. Tolerances are those of float32: the released values themselves are that far from
a float64 evaluation of the same weights.
"""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.bounds import sum_over_time
from stcn_tf.models import STCN

pytestmark = pytest.mark.reference

# What the released program's KL takes instead of a smaller posterior sigma.
_SIGMA_FLOOR = 1e-6
_REPEATS = 250


class Released(NamedTuple):
    model: STCN
    num_unused: int
    x: np.ndarray
    lengths: np.ndarray
    arrays: dict[str, np.ndarray]

    def zero_noise(self, name):
        return self.arrays[f"zero_noise/{name}"]

    @property
    def mask(self):
        return np.arange(self.x.shape[1]) < self.lengths[:, np.newaxis]


def _released_name(path):
    """Our variable's path -> the released program's."""
    _, layer, *rest, leaf = path.split("/")
    if layer == "stack":
        block, conv = rest
        number = {"filter": "", "gate": "_1", "output": "_2", "residual": "_3"}[conv]
        return f"encoder/temporal_block_{int(block[-2:]) + 1}/conv1d{number}/{leaf}"
    if layer.startswith("latent_"):
        network, conv = rest
        part, hidden = re.fullmatch(r"(mean|sigma)(?:_hidden_(\d))?", conv).groups()
        number = {None: "_2", "0": "", "1": "_1"}[hidden]
        which = "p" if network == "prior" else "q"
        part = "mu" if part == "mean" else part
        return f"latent/{which}_{layer[-1]}_{part}/conv1d{number}/{leaf}"
    if layer.startswith("output_"):
        return f"output_layer/out_conv1d_{int(layer[-1]) + 1}/conv1d/{leaf}"
    head = {"mean": "mu", "component": "coefficient"}.get(rest[0], rest[0])
    return f"output_layer/out_out_{head}/conv1d/{leaf}"


@pytest.fixture(scope="module", params=["stcn_dense_gmm_ink", "stcn_gmm_ink_shared"])
def released(request):
    if not os.environ.get("STCN_REFERENCE"):
        pytest.skip("STCN_REFERENCE is not set")
    folder = Path(os.environ["STCN_REFERENCE"], "checkpoints", request.param)
    settings = json.loads((folder / "config.json").read_text())
    latent, output = settings["latent_layer"], settings["output_layer"]
    model = STCN(
        num_real=2,
        num_binary=1,
        num_components=settings["loss"]["stroke"]["num_components"],
        num_filters=settings["cnn_layer"]["num_filters"],
        kernel_size=settings["cnn_layer"]["filter_size"],
        blocks_per_layer=latent["vertical_dilation"],
        latent_sizes=latent["latent_size"],
        latent_hidden_layers=latent["num_hidden_layers"],
        output_layers=output["num_layers"],
        output_filters=output["size"],
        dense=latent["dense_z"],
        posterior_draws="shared" if latent["use_same_q_sample"] else "independent",
    )
    model.build()
    assert list(model.stack.dilations) == settings["cnn_layer"]["dilation_size"]
    checkpoint = tf.train.load_checkpoint(str(folder / "model.ckpt-1"))
    names = {_released_name(variable.path): variable for variable in model.variables}
    for name, variable in names.items():
        variable.assign(checkpoint.get_tensor(name))
    unused = set(checkpoint.get_variable_to_shape_map()) - set(names) - {"global_step"}
    with np.load(folder / "reference.npz") as arrays:
        arrays = dict(arrays)
    return Released(model, len(unused), arrays["x"], arrays["lengths"], arrays)


def _assert_close(actual, expected, floor):
    """Difference relative to 1 + |expected|, below what float32 makes of it."""
    assert np.shape(actual) == np.shape(expected)
    error = np.abs(actual - expected) / (1 + np.abs(expected))
    assert np.max(error) < floor


def test_every_weight_has_its_place(released):
    assert released.num_unused == 0


def test_heads_and_latents(released):
    output = released.model.call(released.x, temperature=0.0)
    batch, time = released.x.shape[:2]
    parameters = output.parameters
    for name, part in (("mu", parameters.mean), ("sigma", parameters.sigma)):
        flat = tf.linalg.matrix_transpose(part)  # [feature, component], component fastest
        _assert_close(
            tf.reshape(flat, [batch, time, -1]).numpy(),
            released.zero_noise(f"output/out_{name}"),
            1e-5,
        )
    weights = tf.nn.softmax(parameters.component_logits).numpy()
    _assert_close(weights, released.zero_noise("output/out_coefficient"), 1e-5)
    pen = tf.sigmoid(parameters.binary_logits).numpy()
    _assert_close(pen, released.zero_noise("output/out_binary"), 1e-5)
    for kind, distributions in (("q", output.posteriors), ("p", output.priors)):
        for layer, distribution in enumerate(distributions):
            mean, sigma = (released.zero_noise(f"{kind}_{layer}_{s}") for s in ("mu", "sigma"))
            _assert_close(distribution.loc.numpy(), mean, 1e-5)
            np.testing.assert_allclose(distribution.scale, sigma, rtol=1e-5)


def test_log_likelihood(released):
    terms = released.model.score(released.x, released.lengths, noise="zero")
    expected = released.zero_noise("log_likelihood")[..., 0]
    _assert_close(terms.log_likelihood.numpy(), expected, 3e-5)


def test_kl(released):
    terms = released.model.score(released.x, released.lengths, noise="zero")
    num_floored = 0
    for layer in range(terms.kl.shape[-1]):
        expected = released.zero_noise(f"sequence_kld_{layer}")[..., 0].astype(np.float64)
        # Ours is the exact KL. The released one puts floors under sigma in two places. The prior's
        # clip is above its floor; under the posterior's, log(sigma) is log(1e-6) there.
        assert np.all(released.zero_noise(f"p_{layer}_sigma") > 0.999e-3)
        sigma = released.zero_noise(f"q_{layer}_sigma").astype(np.float64)
        floored = (sigma < _SIGMA_FLOOR) & released.mask[..., np.newaxis]
        num_floored += np.sum(floored)
        expected += np.sum(np.log(_SIGMA_FLOOR / sigma), axis=-1, where=floored)
        _assert_close(terms.kl[..., layer].numpy(), expected, 1e-5)
    # Which happens in one of the two models, at its topmost layer.
    assert num_floored == (0 if released.model.dense else 16)


def _losses(released, terms):
    """Negative terms as released: sums of sequences / their lengths, averaged; the KL by layer."""
    lengths = released.lengths.astype(np.float64)
    summed = sum_over_time(terms)
    shape = (-1, len(lengths))  # [repeats, batch]
    log_likelihood = summed.log_likelihood.numpy().reshape(shape) / lengths
    kl = summed.kl.numpy().reshape(*shape, summed.kl.shape[-1]) / lengths[:, np.newaxis]
    return -log_likelihood.mean(axis=1), kl.mean(axis=1)


def test_reduced_losses_without_noise(released):
    terms = released.model.score(released.x, released.lengths, noise="zero")
    (reconstruction,), (kl,) = _losses(released, terms)
    expected = released.zero_noise("loss/loss_stroke") + released.zero_noise("loss/loss_pen")
    np.testing.assert_allclose(reconstruction, expected, rtol=1e-5)
    for layer, value in enumerate(kl):
        np.testing.assert_allclose(value, released.zero_noise(f"loss/KL{layer}"), rtol=1e-5)


def test_mean_losses_over_draws_of_the_latents(released):
    """The draws themselves: which are shared, which independent, and what reads which."""
    x = np.tile(released.x, (_REPEATS, 1, 1))
    terms = released.model.score(x, np.tile(released.lengths, _REPEATS), (1, 2))
    reconstruction, kl = _losses(released, terms)
    mean, stderr = (
        {k.split("/")[-1]: v for k, v in released.arrays.items() if k.startswith(f"{kind}/")}
        for kind in ("noise_mean", "noise_stderr")
    )
    checks = [("reconstruction", reconstruction, mean["loss_stroke"] + mean["loss_pen"])]
    checks += [(f"KL{i}", kl[:, i], mean[f"KL{i}"]) for i in range(kl.shape[1])]
    for name, values, expected in checks:
        theirs = stderr[name] if name in stderr else stderr["loss_stroke"] + stderr["loss_pen"]
        # Rounding, and 4 standard errors of the difference of two means.
        tolerance = 1e-5 * abs(expected) + 4 * np.hypot(values.std() / np.sqrt(_REPEATS), theirs)
        assert abs(values.mean() - expected) < tolerance, name
