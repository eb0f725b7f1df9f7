import xml.etree.ElementTree as ET

import h5py
import matplotlib.image
import numpy as np
import pytest

from stcn_tf import flags, plotting, sample
from stcn_tf.data.records import Feature, Normalization, read_card
from stcn_tf.data.strokes import read_strokes
from stcn_tf.errors import UserError
from stcn_tf.runs import RunDirectory

UNITS = ("device units", "device units", "0 or 1")
FILES = ("samples.h5", "samples.png", "samples.svg")


@pytest.fixture
def run_sample(tiny_run, parse_flags, tmp_path):
    """Function (out, *flags) -> the folder of the results; flags given later win."""
    definitions = iter([flags.define_sample])

    def run_sample(out: str, *arguments: str):
        flags.FLAGS.unparse_flags()  # back to the defaults
        parse_flags(
            next(definitions, lambda: None),
            f"--run_dir={tiny_run}",
            f"--out={tmp_path / out}",
            *arguments,
        )
        sample.main()
        return tmp_path / out

    return run_sample


def test_writes_strokes_and_pictures(run_sample, tiny_run, capsys):
    out = run_sample("out", "--num=3", "--length=11", "--seed=5", "--temperature=0.5")
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert capsys.readouterr().out == (
        f"3 sequences, 11 generated steps each: {out}/samples.h5, and the first 3 in samples.png "
        "and samples.svg\n"
    )
    picture = matplotlib.image.imread(out / "samples.png")
    assert picture.ndim == 3
    assert picture[..., :3].min() < 0.5
    assert ET.parse(out / "samples.svg").getroot().tag.endswith("svg")
    assert plotting.PREFIX_INK not in (out / "samples.svg").read_text()

    sequences = read_strokes(out / "samples.h5", UNITS)
    assert [sequence.shape for sequence in sequences] == [(11, 3)] * 3
    # Raw units: the records' standard deviations are 40 and 30.
    assert np.concatenate(sequences)[:, :2].std() > 10
    with h5py.File(out / "samples.h5") as file:
        assert file["beginning_lengths"][()].tolist() == [0, 0, 0]
        attributes = {name: file.attrs[name] for name in file.attrs}
    assert list(attributes.pop("units")) == list(UNITS)
    assert list(attributes.pop("features")) == ["dx", "dy", "pen"]
    assert attributes == {
        "format_version": 1,
        "seed": 5,
        "temperature": 0.5,
        "latent_temperature": 1.0,
        "pen_threshold": False,
        "jit_compile": False,
        "checkpoint": "best",
        "run": tiny_run,
        "dataset": "tiny",
    }


def test_the_seed_decides_every_byte(run_sample):
    small = ("--num=2", "--length=5")
    first = run_sample("first", *small, "--seed=1")
    again = run_sample("again", *small, "--seed=1", "--checkpoint=best")
    for name in FILES:
        assert (first / name).read_bytes() == (again / name).read_bytes()
    run_sample("again", *small, "--seed=2")  # into the same folder
    for name in FILES:
        assert (first / name).read_bytes() != (again / name).read_bytes()


def test_continues_its_own_file(run_sample):
    first = run_sample("first", "--num=3", "--length=6")
    given = read_strokes(first / "samples.h5", UNITS)
    out = run_sample(
        "out", f"--continue_from={first}/samples.h5", "--beginning=4", "--length=5", "--num=2"
    )
    continued = read_strokes(out / "samples.h5", UNITS)
    assert [sequence.shape for sequence in continued] == [(9, 3)] * 2
    for before, after in zip(given, continued, strict=False):
        np.testing.assert_array_equal(after[:4], before[:4])
    with h5py.File(out / "samples.h5") as file:
        assert file["beginning_lengths"][()].tolist() == [4, 4]
    assert plotting.PREFIX_INK in (out / "samples.svg").read_text()


def test_samples_and_continues_with_wavenets(run_sample, tiny_wavenet_run):
    run = f"--run_dir={tiny_wavenet_run}"
    first = run_sample("first", run, "--num=3", "--length=6", "--seed=4")
    assert sorted(path.name for path in first.iterdir()) == sorted(FILES)
    given = read_strokes(first / "samples.h5", UNITS)
    assert [sequence.shape for sequence in given] == [(6, 3)] * 3
    # A model that must be given a frame begins with the mean of the records.
    begins_with_mean = [np.array_equal(sequence[0], [3.0, -1.0, 0.0]) for sequence in given]
    assert (
        begins_with_mean
        == [RunDirectory.open(tiny_wavenet_run).config.model.first_frame == "given"] * 3
    )
    # Continued with its own seed a sample goes on as it did.
    out = run_sample(
        "out", run, f"--continue_from={first}/samples.h5", "--beginning=2", "--length=4", "--seed=4"
    )
    continued = read_strokes(out / "samples.h5", UNITS)
    for before, after in zip(given, continued, strict=True):
        np.testing.assert_array_equal(after[:2], before[:2])
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-2)


def test_continues_strokes_of_different_lengths_from_elsewhere(run_sample, tmp_path):
    strokes = np.random.default_rng(0).integers(0, 2, (3, 8, 3)) * [30.5, -20.25, 1]
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["strokes"] = strokes
        file["lengths"] = [8, 1, 3]
    out = run_sample("out", f"--continue_from={tmp_path}/mine.h5", "--length=2", "--pen_threshold")
    continued = read_strokes(out / "samples.h5", UNITS)
    assert [len(sequence) for sequence in continued] == [10, 3, 5]
    for before, after in zip(strokes, continued, strict=True):
        np.testing.assert_array_equal(after[:-2], before[: len(after) - 2].astype(np.float32))


def test_faults_of_what_is_to_be_continued(run_sample, tmp_path):
    with pytest.raises(UserError, match="--beginning=3: accepted with --continue_from only"):
        run_sample("out", "--beginning=3")
    with pytest.raises(UserError, match="absent.h5: no such file"):
        run_sample("out", f"--continue_from={tmp_path}/absent.h5", "--beginning=3")
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["strokes"] = np.zeros((2, 5, 3))
        file["lengths"] = [5, 4]
    mine = f"--continue_from={tmp_path}/mine.h5"
    with pytest.raises(UserError, match="--beginning=5: sequence 1 of .*mine.h5 has 4 steps"):
        run_sample("out", mine, "--beginning=5")
    with pytest.raises(UserError, match="--num=3: .*mine.h5 has 2 sequences"):
        run_sample("out", mine, "--num=3", "--beginning=0")
    assert not (tmp_path / "out").exists()


def test_a_wrong_folder_is_told(run_sample, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="--out=.*file: cannot be a folder"):
        run_sample("file", "--num=1")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(UserError, match="no run directory"):
        run_sample("out", f"--run_dir={tmp_path}")


def test_records_that_are_no_handwriting_are_told(run_sample, tiny_run, tmp_path):
    run = RunDirectory.open(tiny_run)
    content = read_card(tiny_run).__dict__ | {
        "name": "speech",
        "features": (Feature("sample", "real", "none", "air pressure"),),
        "normalization": Normalization("channel", (0.0,), (1.0,)),
    }
    RunDirectory.prepare(tmp_path / "speech", run.config, type(run.card)(**content))
    with pytest.raises(UserError, match=r"trained on speech \(sample\); accepted: handwriting"):
        run_sample("out", f"--run_dir={tmp_path}/speech")


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_temperatures_are_finite(run_sample, value):
    with pytest.raises(flags.flags.Error, match="latent_temperature"):
        run_sample("out", f"--latent_temperature={value}")
