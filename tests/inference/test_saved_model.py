import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import export, flags
from stcn_tf.data.card import Feature, Modality, Normalization, read_card
from stcn_tf.inference import saved_model
from stcn_tf.inference.generation import Generator, Temperatures, generate_raw
from stcn_tf.inference.served import ServedModel
from stcn_tf.layers.observation import Observation
from stcn_tf.models import STCN
from stcn_tf.runs import RunDirectory
from stcn_tf.support.errors import UserError

# Runs where only TensorFlow is; a module that is None cannot be imported.
STRANGER = """\
import sys

for name in ("stcn_tf", "keras", "tf_keras", "tensorflow_probability"):
    sys.modules[name] = None

import numpy as np
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
temperatures = {"temperature": 0.5, "latent_temperature": 1.0, "binary_temperature": 1.0}
strokes = model.sample(num=3, length=11, seed=[6, 0], **temperatures).numpy()
np.save(sys.argv[2], strokes)
np.save(sys.argv[3], model.card().numpy())
"""
SETTINGS = (11, (6, 0), Temperatures(real=0.5))


@pytest.fixture(scope="module")
def run(tiny_run):
    return RunDirectory.open(tiny_run)


@pytest.fixture(scope="module")
def model(run):
    return run.load().model


@pytest.fixture(scope="module")
def sampler(run, model):
    """Whose steps are not compiled; traced once."""
    return ServedModel(model, run.card, jit_compile=False)


@pytest.fixture(scope="module")
def live(run, model):
    """What the live model draws, [3, 11, 3] raw units."""
    nothing = [np.zeros((0, 3), np.float32)] * 3
    return np.stack(generate_raw(Generator(model), run.card.normalization, nothing, *SETTINGS))


def test_samples_as_the_live_model_where_only_tensorflow_is(run, live, parse_flags, tmp_path):
    parse_flags(flags.define_export, f"--run_dir={run.path}", f"--out={tmp_path / 'model'}")
    export.main()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, "model", "strokes.npy", "card.npy"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    strokes = np.load(tmp_path / "strokes.npy")
    assert strokes.shape == (3, 11, 3)
    assert set(np.unique(strokes[..., 2])) == {0.0, 1.0}
    np.testing.assert_array_equal(strokes, live)
    text = np.load(tmp_path / "card.npy").item().decode()
    assert text == read_card(run.path).to_json()
    assert json.loads(text)["features"][0]["unit"] == "device units"


def test_a_later_export_takes_the_place_of_an_earlier_one(sampler, live, tmp_path, monkeypatch):
    out = tmp_path / "model"
    (out / "variables").mkdir(parents=True)
    earlier = [
        out / "saved_model.pb",
        out / "fingerprint.pb",
        out / "variables" / "variables.index",
    ]
    for file in earlier:
        file.write_text("earlier")

    def fail(module, path, **kwargs):
        Path(path, "half").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            saved_model.write(sampler, out, {})
    assert sorted(file for file in out.rglob("*") if file.is_file()) == sorted(earlier)
    assert {file.read_text() for file in earlier} == {"earlier"}
    saved_model.write(sampler, out, {})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

    loaded = tf.saved_model.load(str(out))
    np.testing.assert_array_equal(loaded.sample(3, 11, [6, 0], 0.5, 1.0, 1.0), live)
    assert np.any(loaded.sample(3, 11, [7, 0], 0.5, 1.0, 1.0) != live)
    served = loaded.signatures["serving_default"](
        num=tf.constant(3),
        length=tf.constant(11),
        seed=tf.constant([6, 0]),
        temperature=tf.constant(0.5),
        latent_temperature=tf.constant(1.0),
        binary_temperature=tf.constant(1.0),
    )
    np.testing.assert_array_equal(served["x"], live)


NOT_ACCEPTED = pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num": 0}, "num: 0; accepted: 1 or more"),
        ({"num": -3}, "num: -3; accepted: 1 or more"),
        ({"length": -1}, "length: -1; accepted: 0 or more"),
        ({"temperature": -1.0}, "temperature: -1; accepted: a finite number, 0 or more"),
        ({"temperature": np.nan}, "temperature: nan; accepted: a finite number, 0 or more"),
        ({"temperature": np.inf}, "temperature: inf; accepted: a finite number, 0 or more"),
    ],
    ids=str,
)


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)])
def exported(request, run, model, sampler, tmp_path_factory):
    """A SavedModel, without and with steps that are compiled."""
    out = str(tmp_path_factory.mktemp("exported") / "model")
    sampler = ServedModel(model, run.card, True) if request.param else sampler
    saved_model.write(sampler, out, {})
    return tf.saved_model.load(out)


@NOT_ACCEPTED
def test_numbers_that_are_not_accepted_are_refused(exported, numbers, message):
    asked = {"num": 2, "length": 3, "seed": [6, 0], "temperature": 0.5}
    asked |= {"latent_temperature": 1.0, "binary_temperature": 1.0}
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(f"[{message}]")):
        exported.sample(**asked | numbers)
    served = {name: tf.constant(value) for name, value in (asked | numbers).items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(f"[{message}]")):
        exported.signatures["serving_default"](**served)


def test_no_steps_and_no_temperature_are_accepted(exported):
    assert exported.sample(2, 0, [6, 0], 0.0, 1.0, 1.0).shape == (2, 0, 3)
    assert np.all(np.isfinite(exported.sample(1, 1, [6, 0], 0.0, 1.0, 1.0)))


def test_wavenets_sample_as_the_live_model(tiny_wavenet_run, parse_flags, tmp_path):
    run = RunDirectory.open(tiny_wavenet_run)
    parse_flags(flags.define_export, f"--run_dir={run.path}", f"--out={tmp_path / 'model'}")
    export.main()
    nothing = [np.zeros((0, 3), np.float32)] * 3
    live = np.stack(
        generate_raw(Generator(run.load().model), run.card.normalization, nothing, *SETTINGS)
    )
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.sample(3, 11, [6, 0], 0.5, 1.0, 1.0), live)
    assert len(np.unique(live[:, 1:, 0])) == 3 * 10


def test_foreign_folders_are_left_alone(run, sampler, tmp_path, parse_flags):
    (tmp_path / "file").write_text("mine")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "saved_model.pb").write_text("")
    saved_model.check_replaceable(mixed)
    saved_model.check_replaceable(tmp_path / "new")
    (mixed / "thesis.tex").write_text("mine")
    for out in (tmp_path / "file", mixed, run.path, tmp_path):
        with pytest.raises(UserError, match="holds no SavedModel; accepted: a new, an empty"):
            saved_model.check_replaceable(out)
    with pytest.raises(UserError, match="file/model: cannot be written"):
        saved_model.write(sampler, tmp_path / "file" / "model", {})
    parse_flags(flags.define_export, f"--run_dir={run.path}", f"--out={run.path}")
    with pytest.raises(UserError, match="holds no SavedModel"):
        export.main()


def test_features_that_are_no_handwriting(run):
    keras.utils.set_random_seed(0)  # some initial weights let the samples run away
    model = STCN(
        observation=Observation(4, 0, name="observation"),
        num_filters=3,
        kernel_size=2,
        blocks_per_layer=1,
        latent_sizes=(2, 1),
        latent_hidden_layers=0,
        output_layers=0,
        output_filters=1,
        dense=True,
    )
    model.build()
    content = run.card.__dict__ | {
        "features": tuple(Feature(f"s{i}", "real", "none", "pressure") for i in range(4)),
        "normalization": Normalization("channel", (500.0,) * 4, (1e-3,) * 4),
        "modality": Modality("other"),
    }
    sampler = ServedModel(model, type(run.card)(**content), jit_compile=False)
    x = sampler.sample(2, 6, [0, 0], 1.0, 1.0, 1.0).numpy()
    assert x.shape == (2, 6, 4)
    np.testing.assert_allclose(x, 500.0, atol=0.1)


@pytest.mark.slow
def test_with_xla(run, model, tmp_path):
    sampler = ServedModel(model, run.card, jit_compile=True)
    saved_model.write(sampler, tmp_path / "model", {})
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    x = loaded.sample(3, 11, [6, 0], 0.5, 1.0, 1.0).numpy()
    np.testing.assert_array_equal(x, sampler.sample(3, 11, [6, 0], 0.5, 1.0, 1.0))
    assert loaded.sample(2, 5, [6, 0], 0.5, 1.0, 1.0).shape == (2, 5, 3)
    nothing = [np.zeros((0, 3), np.float32)] * 3
    live = generate_raw(Generator(model, True), run.card.normalization, nothing, *SETTINGS)
    np.testing.assert_array_equal(x, np.stack(live))
