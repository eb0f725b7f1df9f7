"""Runs that come with the package: found by name from anywhere, read alone."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import stcn_tf
from stcn_tf import evaluate, flags, run_list, runs, sample
from stcn_tf.data.card import read_card
from stcn_tf.reporting import evaluated
from stcn_tf.runs import RunDirectory
from stcn_tf.support.errors import UserError
from stcn_tf.training.trainer import Trainer


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def package(tmp_path_factory, tiny_run) -> Path:
    """A folder in the place of the package's, with what is kept of a run there."""
    folder = tmp_path_factory.mktemp("package") / "pretrained"
    for name in ("tiny", "other"):
        shutil.copytree(tiny_run, folder / name, ignore=shutil.ignore_patterns("latest"))
    return folder


@pytest.fixture(autouse=True)
def elsewhere(package, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "PACKAGED", package)
    monkeypatch.chdir(tmp_path)
    before = contents(package)
    yield
    assert contents(package) == before


def test_it_is_found_by_its_name_from_anywhere(package, tiny_run):
    for name in ("pretrained/tiny", "./pretrained/tiny/", Path("pretrained", "tiny")):
        assert RunDirectory.open(name).path == package / "tiny"
    packaged, own = (stcn_tf.load_run(run).get_weights() for run in ("pretrained/tiny", tiny_run))
    assert all(map(np.array_equal, packaged, own))
    assert runs.pretrained() == ["pretrained/other", "pretrained/tiny"]


def test_a_path_that_exists_is_meant_itself(package, tmp_path, tiny_run):
    shutil.copytree(tiny_run, tmp_path / "pretrained" / "tiny")
    assert RunDirectory.open("pretrained/tiny").path == Path("pretrained/tiny")
    assert not runs.is_packaged("pretrained/tiny")
    # The package's others are still there.
    assert RunDirectory.open("pretrained/other").path == package / "other"


def test_an_unknown_name_lists_those_there_are(package, monkeypatch):
    come = "with the package come pretrained/other, pretrained/tiny"
    for name in ("pretrained/tinny", "pretrained", "pretrained/../pretrained/none"):
        with pytest.raises(UserError, match=rf"no run directory \(no config.json in it\); {come}$"):
            RunDirectory.open(name)
    for name in ("tiny", "else/where"):
        with pytest.raises(UserError, match=r"no run directory \(no config.json in it\)$"):
            RunDirectory.open(name)
    monkeypatch.setattr(runs, "PACKAGED", package.parent / "none" / "pretrained")
    with pytest.raises(UserError, match=r"no run directory \(no config.json in it\)$"):
        RunDirectory.open("pretrained/tiny")


def test_samples(parse_flags, capsys, package, tmp_path):
    arguments = ("--run_dir=pretrained/tiny", "--num=2", "--length=3")
    parse_flags(flags.define_sample, *arguments)
    sample.main()
    assert "2 sequences, 3 generated steps each: samples/samples.h5" in capsys.readouterr().out
    assert {file.suffix for file in (tmp_path / "samples").iterdir()} == {".h5", ".png", ".svg"}


def test_an_evaluation_is_written_elsewhere(parse_flags, capsys, tmp_path, tiny_records, eager):
    arguments = ["--run_dir=pretrained/tiny", f"--data={tiny_records}", "--limit=2"]
    parse_flags(flags.define_evaluate, *arguments)
    told = r"^--run_dir=pretrained/tiny: comes with the package, where nothing is written; "
    with pytest.raises(UserError, match=f"{told}accepted: the same with --out=FILE.json$"):
        evaluate.main()
    flags.FLAGS.out = str(tmp_path / "mine.json")
    evaluate.main()
    assert (tmp_path / "mine.json").is_file() and (tmp_path / "mine.csv").is_file()


def test_it_is_not_trained_on(package, tmp_path, tiny_records, tiny_config):
    for run_dir in ("pretrained/tiny", str(package / "tiny")):
        told = f"^--run_dir={re.escape(run_dir)}: comes with the package.*--init_from={run_dir} "
        for restart in (False, True):
            with pytest.raises(UserError, match=told):
                Trainer(tiny_config, tiny_records, run_dir, print, restart)
    assert not any(tmp_path.iterdir())


def test_others_begin_with_its_weights(package, tiny_records, tiny_config_with):
    config = tiny_config_with(training={"init_from": "pretrained/tiny"})
    trainer = Trainer(config, tiny_records, "mine", lambda line: None)
    # The same from wherever the run goes on.
    assert trainer.run.config.training.init_from == str(package / "tiny")
    mine, its = trainer.model.get_weights(), stcn_tf.load_run("pretrained/tiny").get_weights()
    assert all(map(np.array_equal, mine, its))


def test_the_table_of_runs(package, tiny_records, tiny_config):
    for folder in ("pretrained/tiny", "pretrained"):
        rows = run_list.table(folder).splitlines()[1:]
        assert [row.split()[1:3] for row in rows] == [["packaged", "0"]] * len(rows)
    assert len(rows) == 2
    assert [run.directory.path for run in evaluated.find(["pretrained/tiny"])] == [package / "tiny"]
    # A copy has lost its state: it cannot be gone on with.
    shutil.copytree(package / "tiny", "copy")
    assert run_list.look_at(Path("copy")).state == "damaged"


def test_those_of_the_package():
    """What is there is whole, small, and samples."""
    folder = Path(stcn_tf.__file__).parent / "pretrained"
    for path in sorted(folder.glob("*/")):
        run = RunDirectory.open(path)
        assert run.load().update > 0
        assert read_card(path).modality.kind in ("handwriting", "audio", "image")
        assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) < 3e6
