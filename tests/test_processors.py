"""Everything by the kernels of oneDNN and without them, in a process for each.

Which kernels TensorFlow takes depends on the processor; what is computed must not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

PROJECT = Path(__file__).parents[1]
SCRIPT = """
import json, runpy, sys, types
import keras, numpy as np, tensorflow as tf
from absl import flags
from stcn_tf.config import TrainingSettings
from stcn_tf.distribution import Share
from stcn_tf.models.registry import MODELS, build_model, make_settings, settings_of
from stcn_tf.training.step import TrainStep, make_optimizer

OBSERVATIONS = {
    "normal": ("normal", 2, 0),
    "gmm": ("gmm", 2, 0),
    "gmm and binary": ("gmm", 2, 1),
    "bivariate": ("bivariate_gmm", 2, 1),
    "binary": ("normal", 0, 3),
}
SIZES = dict(num_filters=6, num_components=4, output_layers=1, output_filters=7,
             latent_sizes=(5, 3), latent_hidden_layers=1, blocks_per_layer=1, dilations=(1, 2, 4),
             wavenet_blocks=3, wavenet_dense_blocks=(1, 3),
             recurrent_units=8, input_units=6, latent_size=3, latent_input_units=4,
             latent_units=5, output_units=7, deterministic_blocks=1)


def update(name, observation, output_type, precision):
    keras.utils.set_random_seed(1)
    kind, real, binary = OBSERVATIONS[observation]
    sizes = {k: v for k, v in SIZES.items() if k in settings_of(name).names()}
    settings = make_settings(name, observation=kind, **output_type, **sizes)
    card = types.SimpleNamespace(num_real=real, num_binary=binary)
    model = build_model(settings, card, precision)
    config = TrainingSettings(precision=precision)
    optimizer = make_optimizer(config)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(2)
    x = np.concatenate(
        [rng.standard_normal((2, 6, real)), rng.integers(0, 2, (2, 6, binary))], axis=-1
    ).astype(np.float32)
    x[1, 4:] = 0.0
    step = TrainStep(config, model, optimizer)
    result = step(Share.whole(tf.constant(x), tf.constant([6, 4])))
    return [float(result.elbo), float(result.gradient_norm)]


def command(module, *arguments):
    known = set(flags.FLAGS)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        assert not end.code, (module, end.code)
    for flag in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, flag)
    flags.FLAGS.unparse_flags()


def smoke(folder):
    raw, records, run = (f"{folder}/{name}" for name in ("raw", "records", "run"))
    command("data_prep.synthetic", f"--out={raw}", "--num_forms=4", "--lines_per_form=3")
    command("data_prep.iamondb", f"--source={raw}", f"--split={raw}/splits", f"--out={records}")
    command(
        "stcn_tf.train", "--flagfile=experiments/quickstart.flags", f"--data={records}",
        f"--run_dir={run}", "--num_filters=6", "--output_filters=5", "--num_components=3",
        "--latent_sizes=4,3", "--blocks_per_layer=1", "--latent_hidden_layers=0",
        "--output_layers=1", "--batch_size=4", "--max_length=40", "--max_steps=3",
        "--evaluate_sequences=4", "--sample_every=0",
    )
    command("stcn_tf.evaluate", f"--run_dir={run}", f"--data={records}")
    command("stcn_tf.sample", f"--run_dir={run}", f"--out={folder}/samples", "--length=9")


smoke(sys.argv[1])
# Traced, each of them would take seconds.
tf.config.run_functions_eagerly(True)
found = {}
for name in MODELS:
    has_types = "output_type" in settings_of(name).names()
    for output_type in ("conv1x1", "wavenet") if has_types else ("",):
        chosen = {"output_type": output_type} if output_type else {}
        # An observation computes the same from what any of them has made.
        has_all = name == "stcn" and output_type == "conv1x1"
        for observation in OBSERVATIONS if has_all else ("gmm and binary",):
            found[f"{name}, {observation}, {output_type}"] = update(
                name, observation, chosen, "float32")
    found[f"{name}, mixed"] = update(name, "gmm and binary", {}, "mixed_bfloat16")
print(json.dumps(found, allow_nan=False))
"""


def _start(onednn: str, folder: Path) -> subprocess.Popen:
    environment = {"TF_ENABLE_ONEDNN_OPTS": onednn, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)],
        cwd=PROJECT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_with_and_without_onednn_everything_runs_and_is_the_same(tmp_path):
    """An update of every model and output, and the path from raw files to samples."""
    folders = [tmp_path / onednn for onednn in "01"]
    processes = [_start(folder.name, folder) for folder in folders]
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    plain, onednn = (json.loads(out.splitlines()[-1]) for out, _ in outputs)
    assert plain.keys() == onednn.keys()
    for case, expected in plain.items():
        # bfloat16 has 8 bits of mantissa.
        tolerance = 2**-5 if case.endswith("mixed") else 1e-4
        assert onednn[case] == pytest.approx(expected, rel=tolerance), case
    elbos, strokes = [], []
    for folder in folders:
        (written,) = (folder / "run" / "evaluations").glob("*.json")
        evaluation = json.loads(written.read_text())
        elbos.append(evaluation["terms"]["elbo"]["per_sequence"])
        with h5py.File(folder / "samples" / "samples.h5") as file:
            strokes.append(file["strokes"][:])
    assert elbos[0] == pytest.approx(elbos[1], rel=1e-3)
    assert strokes[0].shape == strokes[1].shape == (8, 9, 3)
    assert all(np.all(np.isfinite(values)) for values in strokes)
