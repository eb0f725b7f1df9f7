"""Against checkpoints of the authors' released program, and what that program computes on them.

One small checkpoint is in tests/reference. STCN_REFERENCE names a folder with more of them:
`checkpoints/NAME/` with a TensorFlow 1 checkpoint, its configuration and `reference.npz`. All go
through the import. Tolerances are those of float32: the released values themselves are that far
from a float64 evaluation of the same weights.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf.bounds import sum_over_time
from stcn_tf.models import SequenceModel
from stcn_tf.released.importing import import_run
from stcn_tf.runs import RunDirectory, load_run

BUNDLED = Path(__file__).parents[1] / "reference" / "stcn_gmm_ink_shared"
STOCHASTIC = ("stcn_dense_gmm_ink", "stcn_gmm_ink_shared", "stcn_dense_gmm_speech")
_REPEATS = 400


class Released(NamedTuple):
    run: RunDirectory
    model: SequenceModel
    arrays: dict[str, np.ndarray]

    @property
    def x(self):
        return self.arrays["x"]

    @property
    def lengths(self):
        return self.arrays["lengths"]

    def zero_noise(self, name):
        return self.arrays[f"zero_noise/{name}"]

    def losses(self, kind="zero_noise"):
        prefix = f"{kind}/loss/"
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}


def _folder(name):
    if name == "bundled":
        return BUNDLED
    if not os.environ.get("STCN_REFERENCE"):
        pytest.skip("STCN_REFERENCE is not set")
    return Path(os.environ["STCN_REFERENCE"], "checkpoints", name)


def _cases(*names):
    return ["bundled", *(pytest.param(name, marks=pytest.mark.reference) for name in names)]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Function name -> Released, each imported once."""
    made = {}

    def get(name):
        if name not in made:
            folder = _folder(name)
            run_dir = tmp_path_factory.mktemp("imported") / name
            run = import_run(folder / "model.ckpt-1", folder / "config.json", run_dir)
            with np.load(folder / "reference.npz") as arrays:
                made[name] = Released(run, load_run(run_dir), dict(arrays))
        return made[name]

    return get


@pytest.fixture(params=_cases(*STOCHASTIC, "wavenet_dense_gmm_ink"))
def released(request, imported):
    return imported(request.param)


@pytest.fixture(params=_cases(*STOCHASTIC))
def stochastic(request, imported):
    return imported(request.param)


def _assert_close(actual, expected, tolerance):
    """Difference relative to 1 + |expected|, below what float32 makes of it."""
    assert np.shape(actual) == np.shape(expected)
    error = np.abs(actual - np.asarray(expected, np.float64)) / (1 + np.abs(expected))
    assert np.max(error) < tolerance


def test_heads(released):
    model = released.model
    given = model.num_given_frames
    parameters = model.score(released.x, released.lengths, temperature=0.0).parameters
    for name, part in (("mu", parameters.mean), ("sigma", parameters.sigma)):
        flat = tf.linalg.matrix_transpose(part)  # [feature, component], component fastest
        flat = tf.reshape(flat, [*part.shape[:2], -1]).numpy()
        _assert_close(flat[:, given:], released.zero_noise(f"output/out_{name}"), 1e-5)
    weights = tf.nn.softmax(parameters.component_logits).numpy()
    _assert_close(weights[:, given:], released.zero_noise("output/out_coefficient"), 1e-5)
    if model.observation.num_binary:
        pen = tf.sigmoid(parameters.binary_logits).numpy()
        _assert_close(pen[:, given:], released.zero_noise("output/out_binary"), 1e-5)


def test_priors_and_posteriors(stochastic):
    model = stochastic.model
    start = model.start(len(stochastic.x))
    encoded = model.encode(stochastic.x, stochastic.lengths, start)
    places = model.places_of(start, stochastic.x)
    latents = model.draw_latents(*encoded.steps, places, (0, 0), temperature=0.0)
    for kind, distributions in (("q", latents.posteriors), ("p", latents.priors)):
        for layer, distribution in enumerate(distributions):
            for part, value in (("mu", distribution.loc), ("sigma", distribution.scale)):
                expected = stochastic.zero_noise(f"{kind}_{layer}_{part}")
                _assert_close(value.numpy(), expected, 1e-5)


def test_log_likelihood(released):
    terms = released.model.score(released.x, released.lengths, temperature=0.0)
    given = released.model.num_given_frames
    assert not np.any(terms.log_likelihood[:, :given])
    expected = released.zero_noise("log_likelihood")[..., 0]
    _assert_close(terms.log_likelihood[:, given:].numpy(), expected, 5e-5)


def test_kl_of_each_step_and_layer(stochastic):
    terms = stochastic.model.score(stochastic.x, stochastic.lengths, temperature=0.0)
    for layer in range(terms.kl.shape[-1]):
        expected = stochastic.zero_noise(f"sequence_kld_{layer}")[..., 0]
        _assert_close(terms.kl[..., layer].numpy(), expected, 1e-5)


def test_the_bundled_checkpoint_reaches_the_floor_of_the_kl(imported):
    """Else its tests would say nothing about it."""
    released = imported("bundled")
    mask = np.arange(released.x.shape[1]) < released.lengths[:, np.newaxis]
    floored = [np.sum(released.zero_noise(f"q_{layer}_sigma")[mask] < 1e-6) for layer in range(4)]
    assert sum(floored) == 14


def _losses(released, x, lengths, repeats, **how):
    """The released program's losses of [repeats] batches, from our terms."""
    summed = sum_over_time(released.model.score(x, lengths, **how))
    divisor = np.ones(len(released.lengths))
    if released.run.config.training.loss_reduction == "mean_step":
        divisor = released.model.num_scored(released.lengths).numpy().astype(np.float64)
    log_likelihood = summed.log_likelihood.numpy().reshape(repeats, -1) / divisor
    kl = summed.kl.numpy().reshape(repeats, len(divisor), -1) / divisor[:, np.newaxis]
    losses = {f"KL{layer}": kl[..., layer].mean(axis=1) for layer in range(kl.shape[-1])}
    reconstruction = -log_likelihood.mean(axis=1)
    total = reconstruction + kl.sum(axis=-1).mean(axis=1)
    return losses | {"reconstruction": reconstruction, "total_loss": total}


def _with_reconstruction(losses):
    parts = [losses[name] for name in ("loss_stroke", "loss_pen", "loss_out") if name in losses]
    assert parts
    return losses | {"reconstruction": np.sum(parts)}


def test_reduced_losses_without_noise(released):
    losses = _losses(released, released.x, released.lengths, 1, temperature=0.0)
    expected = _with_reconstruction(released.losses())
    for name, (value,) in losses.items():
        np.testing.assert_allclose(value, expected[name], rtol=5e-6, err_msg=name)


def test_mean_losses_over_draws_of_the_latents(stochastic):
    """The draws themselves: which are shared, which independent, and what reads which."""
    x = np.tile(stochastic.x, (_REPEATS, 1, 1))
    lengths = np.tile(stochastic.lengths, _REPEATS)
    losses = _losses(stochastic, x, lengths, _REPEATS, seed=(1, 2))
    mean = _with_reconstruction(stochastic.losses("noise_mean"))
    # The standard error of a sum is at most the sum of theirs.
    stderr = _with_reconstruction(stochastic.losses("noise_stderr"))
    for name, values in losses.items():
        ours = values.std(ddof=1) / np.sqrt(_REPEATS)
        rounding = 5e-6 * mean[name]
        tolerance = rounding + 3 * np.hypot(ours, stderr[name])
        assert abs(values.mean() - mean[name]) < tolerance, name


def test_every_draw_follows_the_configuration(stochastic, request):
    shared = stochastic.run.path.name in ("bundled", "stcn_gmm_ink_shared")
    assert stochastic.model.posterior_draws == ("shared" if shared else "independent")
