"""The whole path as a user walks it, in processes of their own.

Each start of TensorFlow costs seconds: what one command has shown of all is shown once.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import absl.flags
import h5py
import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import evaluate, export, flags, sample, train
from stcn_tf.inference.evaluation import Evaluator
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError

PROJECT = Path(__file__).parents[1]
COMMANDS = {"train": train, "evaluate": evaluate, "sample": sample, "export": export}
SMALL = (
    "--flagfile=experiments/quickstart.flags",
    "--num_filters=6",
    "--output_filters=5",
    "--num_components=3",
    "--latent_sizes=4,3",
    "--blocks_per_layer=1",
    "--latent_hidden_layers=0",
    "--output_layers=1",
    "--batch_size=4",
    "--max_length=40",
    "--max_steps=150",
    "--log_every=2",
    "--evaluate_every=75",
    "--evaluate_sequences=4",
    "--sample_every=0",
)


def start(command: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", command, *arguments],
        cwd=PROJECT,
        env={k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(command: str, *arguments: str, code: int = 0) -> tuple[str, str]:
    process = start(command, *arguments)
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, (out, err)
    return out, err


@pytest.fixture
def here(monkeypatch, capsys):
    """Function (command, *arguments) -> `run` of one of `COMMANDS`, in this process."""

    def run(command: str, *arguments: str, code: int = 0) -> tuple[str, str]:
        monkeypatch.chdir(PROJECT)
        monkeypatch.setattr(sys, "argv", [command, *arguments])
        known = set(absl.flags.FLAGS)
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as end:
                cli.run(COMMANDS[command].main, getattr(flags, f"define_{command}"))
        finally:
            for name in set(absl.flags.FLAGS) - known:
                delattr(absl.flags.FLAGS, name)
            absl.flags.FLAGS.unparse_flags()
        printed = capsys.readouterr()
        assert (end.value.code or 0) == code, printed
        return printed

    return run


@pytest.fixture
def mistake(here):
    """Function (command, *arguments) -> the one line that it answers, in this process."""

    def line(command: str, *arguments: str) -> str:
        _, err = here(command, *arguments, code=2)
        assert err.startswith("error: ") and len(err.splitlines()) == 1
        return err

    return line


def test_from_raw_strokes_to_samples(tmp_path, here, mistake):
    raw, records, run_dir = (str(tmp_path / name) for name in ("raw", "records", "run"))
    run("data_prep.synthetic", f"--out={raw}", "--num_forms=4", "--lines_per_form=3", "--seed=5")
    out, _ = run(
        "data_prep.iamondb", f"--source={raw}", f"--split={raw}/splits", f"--out={records}"
    )
    card = json.loads((tmp_path / "records" / "dataset.json").read_text())
    assert sum(split["num_sequences"] for split in card["splits"].values()) == 12

    # Ctrl-C stops at the end of an update; the same command continues.
    train = (*SMALL, f"--data={records}", f"--run_dir={run_dir}")
    process = start("stcn_tf.train", *train)
    try:
        for line in process.stdout:
            if re.match(r"update +4/", line):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 130, (out, err)
    stopped = int(re.search(r"stopped after (\d+) updates", out)[1])
    assert 4 <= stopped < 150
    assert "Traceback" not in err
    out, _ = here("train", *train)
    assert f"continuing after update {stopped}" in out
    assert "finished after 150 updates" in out
    assert "model.num_filters: 7, not 6" in mistake("train", *train, "--num_filters=7")

    out, _ = here("evaluate", f"--run_dir={run_dir}", f"--data={records}")
    (written,) = (tmp_path / "run" / "evaluations").glob("*.json")
    assert re.fullmatch(r"valid_elbo_k1_update\d+\.json", written.name)
    result = json.loads(written.read_text())
    assert result["num_sequences"] == card["splits"]["valid"]["num_sequences"]
    terms = {name: term["per_sequence"] for name, term in result["terms"].items()}
    assert terms["elbo"] == pytest.approx(terms["reconstruction"] - terms["kl"])
    assert terms["kl"] == pytest.approx(terms["kl_of_layer_1"] + terms["kl_of_layer_2"])
    assert f"{terms['elbo']:.3f}" in out

    sizes = ("--num=3", "--length=20", "--seed=9")
    run("stcn_tf.sample", f"--run_dir={run_dir}", f"--out={tmp_path / 'samples'}", *sizes)
    with h5py.File(tmp_path / "samples" / "samples.h5") as file:
        strokes = file["strokes"][:]
    assert {p.name for p in (tmp_path / "samples").iterdir()} == {
        "samples.png",
        "samples.svg",
        "samples.h5",
    }

    here("export", f"--run_dir={run_dir}", f"--out={tmp_path / 'exported'}")
    # The same seed gives the same strokes in another process, and from the exported model.
    model = tf.saved_model.load(str(tmp_path / "exported"))
    exported = model.sample(3, 20, [9, 0], 1.0, 1.0, 1.0).numpy()
    assert exported.shape == (3, 20, 3)
    np.testing.assert_array_equal(exported.reshape(strokes.shape), strokes)


def test_evaluates_wavenets(tiny_wavenet_run, tiny_records, parse_flags, tmp_path):
    out = tmp_path / "evaluation.json"
    arguments = (f"--run_dir={tiny_wavenet_run}", f"--data={tiny_records}", f"--out={out}")
    each = tmp_path / "each.csv"
    parse_flags(flags.define_evaluate, *arguments, "--batch_size=3", f"--per_sequence={each}")
    evaluate.main()
    result = json.loads(out.read_text())
    assert result["num_sequences"] == 7
    assert not any("layer" in name for name in result["terms"])
    header, *rows = (line.split(",") for line in each.read_text().splitlines())
    assert header == ["sequence", "group", "steps", "log_likelihood"]
    mean = np.mean([float(row[3]) for row in rows])
    assert mean == pytest.approx(result["terms"]["log_likelihood"]["per_sequence"])
    assert result["posterior_draws"] is result["posterior_scale"] is None


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ((), "valid_elbo_k1_update0"),
        (("--limit=3",), "valid_elbo_k1_update0_first3"),
        (("--split=train", "--seed=7"), "train_elbo_k1_update0_seed7"),
        (("--bound=iwae", "--num_samples=4"), "valid_iwae_k4_update0"),
        (("--posterior_scale=variance",), "valid_elbo_k1_update0_posterior_scale-variance"),
        (("--given_frames=1", "--piece=4"), "valid_elbo_k1_update0_given_frames1_piece4"),
    ],
)
def test_a_file_for_each_question(
    question, name, tiny_run, tiny_records, parse_flags, tmp_path, monkeypatch
):
    run_dir = shutil.copytree(tiny_run, tmp_path / "run")
    out = run_dir / "evaluations" / f"{name}.json"
    # Written before it is printed: `| head` does not prevent it.
    was_written = []
    monkeypatch.setattr("builtins.print", lambda *_, **__: was_written.append(out.exists()))
    arguments = (f"--run_dir={run_dir}", f"--data={tiny_records}", *question)
    parse_flags(flags.define_evaluate, *arguments)
    evaluate.main()
    assert was_written
    assert all(was_written)
    # The terms of each sequence lie beside it.
    assert sorted(out.parent.iterdir()) == [out.with_suffix(".csv"), out]


def test_where_nothing_can_be_written_nothing_is_scored(
    tiny_run, tiny_records, parse_flags, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only"))
    )
    arguments = (f"--run_dir={tiny_run}", f"--data={tiny_records}", f"--out={tmp_path / 'e.json'}")
    parse_flags(flags.define_evaluate, *arguments)
    monkeypatch.setattr(Evaluator, "__call__", lambda *_, **__: pytest.fail("it was scored"))
    with pytest.raises(UserError, match=r"e\.json: cannot be written \(Read-only"):
        evaluate.main()
    assert not any(tmp_path.iterdir())


def test_the_two_files_of_an_evaluation_have_two_names(
    tiny_run, tiny_records, parse_flags, tmp_path, monkeypatch
):
    out = tmp_path / "e.csv"
    arguments = (f"--run_dir={tiny_run}", f"--data={tiny_records}", f"--out={out}")
    parse_flags(flags.define_evaluate, *arguments)
    monkeypatch.setattr(Evaluator, "__call__", lambda *_, **__: pytest.fail("it was scored"))
    with pytest.raises(UserError, match=r"^--out=.*e\.csv: accepted: another file than"):
        evaluate.main()


def test_evaluates_with_another_posterior_scale(tiny_run, tiny_records, parse_flags, tmp_path):
    out = tmp_path / "evaluation.json"
    arguments = (f"--run_dir={tiny_run}", f"--data={tiny_records}", f"--out={out}")
    parse_flags(flags.define_evaluate, *arguments, "--posterior_scale=variance")
    evaluate.main()
    result = json.loads(out.read_text())
    assert result["posterior_scale"] == "variance"
    assert result["trained_with"] == {"posterior_scale": "std"}


def test_evaluates_no_setting_that_the_model_lacks(tiny_wavenet_run, tiny_records, parse_flags):
    arguments = (f"--run_dir={tiny_wavenet_run}", f"--data={tiny_records}")
    parse_flags(flags.define_evaluate, *arguments, "--posterior_scale=std")
    with pytest.raises(UserError, match="^--posterior_scale: wavenet.* has no such setting"):
        evaluate.main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run_dir=r"], "--data is required"),
        (["--data=d", "--run_dir=r", "--num_filters=many"], "--num_filters=many"),
        (["--data=d", "--run_dir=r", "--latent_sizes=4,x"], "whole numbers are accepted"),
        (["--data=d", "--run_dir=r", "--model=pixelrnn"], "<stcn|stcn_dense|wavenet|"),
        (["--data=d", "--run_dir=r", "--batch_size=0"], "--batch_size: 0; accepted: 1 or more"),
        (["--data=d", "--run_dir=r", "--fitlers=3"], "fitlers"),
        (["--data=d", "--run_dir=r", "--wavenet_blocks=3"], "nearest: --blocks_per_layer"),
    ],
)
def test_wrong_flags_of_train(arguments, message):
    _, err = run("stcn_tf.train", *arguments, code=2)
    assert message in err
    assert err.startswith("error: ") and len(err.splitlines()) == 1
    assert not (PROJECT / "r").exists()


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("train", ("--data={}/nowhere", "--run_dir={}/out"), "nowhere"),
        ("evaluate", ("--data=d", "--run_dir={}/empty"), "no run directory"),
        ("sample", ("--run_dir={}/empty", "--out={}/out"), "no run directory"),
        ("export", ("--run_dir={}/empty", "--out={}/out"), "no run directory"),
    ],
)
def test_folders_that_are_not_there(tmp_path, mistake, command, arguments, message):
    (tmp_path / "empty").mkdir()
    assert message in mistake(command, *(argument.format(tmp_path) for argument in arguments))
    assert not (tmp_path / "out").exists()
