import dataclasses
import shutil
import xml.etree.ElementTree as ET

import h5py
import matplotlib.image
import numpy as np
import pytest
import soundfile

from stcn_tf import flags, media, sample
from stcn_tf.data.card import Feature, Modality, read_card
from stcn_tf.data.sequences import read_sequences
from stcn_tf.runs import RunDirectory
from stcn_tf.support.errors import UserError
from tests.conftest import eagerly

UNITS = ("device units", "device units", "0 or 1")
FILES = ("samples.h5", "samples.png", "samples.svg")
# In graphs, as users run it, it is in test_smoke and test_processors.
pytestmark = pytest.mark.usefixtures("eager")


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


@pytest.fixture
def read(tiny_run):
    """Function (file) -> its strokes."""
    return lambda path: read_sequences(path, read_card(tiny_run), "strokes")


def test_writes_strokes_and_pictures(run_sample, tiny_run, capsys, read):
    out = run_sample("out", "--num=3", "--length=11", "--seed=5", "--temperature=0.5")
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert capsys.readouterr().out == (
        "generating 11 steps of 3 sequences at once, not compiled\n"
        f"3 sequences, 11 generated steps each: {out}/samples.h5, and the first 3 in samples.png "
        "and samples.svg\n"
    )
    picture = matplotlib.image.imread(out / "samples.png")
    assert picture.ndim == 3
    assert picture[..., :3].min() < 0.5
    assert ET.parse(out / "samples.svg").getroot().tag.endswith("svg")
    assert media.PREFIX_INK not in (out / "samples.svg").read_text()

    sequences = read(out / "samples.h5")
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
        "binary_threshold": False,
        "modality": "handwriting",
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


def test_continues_its_own_file(run_sample, read):
    first = run_sample("first", "--num=3", "--length=6")
    given = read(first / "samples.h5")
    out = run_sample(
        "out", f"--continue_from={first}/samples.h5", "--beginning=4", "--length=5", "--num=2"
    )
    continued = read(out / "samples.h5")
    assert [sequence.shape for sequence in continued] == [(9, 3)] * 2
    for before, after in zip(given, continued, strict=False):
        np.testing.assert_array_equal(after[:4], before[:4])
    with h5py.File(out / "samples.h5") as file:
        assert file["beginning_lengths"][()].tolist() == [4, 4]
    assert media.PREFIX_INK in (out / "samples.svg").read_text()


def test_samples_and_continues_with_wavenets(run_sample, tiny_wavenet_run, read):
    run = f"--run_dir={tiny_wavenet_run}"
    first = run_sample("first", run, "--num=3", "--length=6", "--seed=4")
    assert sorted(path.name for path in first.iterdir()) == sorted(FILES)
    given = read(first / "samples.h5")
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
    continued = read(out / "samples.h5")
    for before, after in zip(given, continued, strict=True):
        np.testing.assert_array_equal(after[:2], before[:2])
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-2)


def test_continues_strokes_of_different_lengths_from_elsewhere(run_sample, tmp_path, read):
    strokes = np.random.default_rng(0).integers(0, 2, (3, 8, 3)) * [30.5, -20.25, 1]
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["strokes"] = strokes
        file["lengths"] = [8, 1, 3]
    out = run_sample(
        "out", f"--continue_from={tmp_path}/mine.h5", "--length=2", "--binary_threshold"
    )
    continued = read(out / "samples.h5")
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
    with pytest.raises(UserError, match="file/samples.h5: cannot be written"):
        run_sample("file", "--num=1")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(UserError, match="no run directory"):
        run_sample("out", f"--run_dir={tmp_path}")


def test_writes_images_in_a_grid(run_sample, tiny_image_run, capsys):
    out = run_sample("out", f"--run_dir={tiny_image_run}", "--seed=3")
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert capsys.readouterr().out == (
        "generating 20 steps of 100 sequences at once, not compiled\n"
        f"100 sequences, 20 generated steps each: {out}/samples.h5, and the first 100 in "
        "samples.png and samples.svg\n"
    )
    with h5py.File(out / "samples.h5") as file:
        pixels = file["pixels"][()]
        assert (file.attrs["modality"], file.attrs["height"], file.attrs["width"]) == (
            "image",
            5,
            4,
        )
    assert pixels.shape == (100, 20, 1)
    assert set(np.unique(pixels)) == {0, 1}
    # A row is a tenth of the images, a tenth of the ink of the picture, give or take the gaps.
    picture = matplotlib.image.imread(out / "samples.png")[..., 0]
    for row in range(10):
        band = picture[len(picture) * row // 10 : len(picture) * (row + 1) // 10]
        black = 1 - pixels[10 * row : 10 * row + 10].mean()
        assert (band < 0.5).mean() == pytest.approx(0.9 * black, abs=0.05)


def test_completes_images(run_sample, tiny_image_run):
    run = f"--run_dir={tiny_image_run}"
    first = run_sample("first", run, "--num=2")
    given = (run, f"--continue_from={first}/samples.h5", "--beginning=12", "--binary_threshold")
    out = run_sample("out", *given)
    with h5py.File(first / "samples.h5") as before, h5py.File(out / "samples.h5") as after:
        np.testing.assert_array_equal(before["pixels"][:, :12], after["pixels"][:, :12])
        assert after["pixels"].shape == (2, 20, 1)
        assert after["beginning_lengths"][()].tolist() == [12, 12]
    again = run_sample("again", *given, "--seed=1", "--latent_temperature=0")
    twice = run_sample("twice", *given, "--seed=2", "--latent_temperature=0", "--length=8")
    # Nothing was drawn at random.
    assert (again / "samples.png").read_bytes() == (twice / "samples.png").read_bytes()
    # Given pixels, three rows of five, are coloured, generated ones are gray.
    colors = matplotlib.image.imread(out / "samples.png")[..., :3]
    colored = np.ptp(colors, axis=-1) > 0.1
    assert colored[: len(colored) // 2].any(axis=0).mean() > 0.8
    assert not colored[len(colored) * 3 // 4 :].any()


def test_images_are_whole(run_sample, tiny_image_run, tmp_path):
    run = f"--run_dir={tiny_image_run}"
    with pytest.raises(UserError, match="--length=19: accepted: 20, to make images of 5 x 4"):
        run_sample("out", run, "--length=19")
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["pixels"] = np.ones((2, 20, 1))
        file["lengths"] = [20, 15]
    mine = (run, f"--continue_from={tmp_path}/mine.h5")
    with pytest.raises(UserError, match="of which 15 to 20 pixels are given; accepted: the same"):
        run_sample("out", *mine)
    with pytest.raises(UserError, match="of which 20 pixels are given; .* below the 20 of an im"):
        run_sample("out", *mine, "--num=1")
    with pytest.raises(UserError, match="--length=7: accepted: 8, to make"):
        run_sample("out", *mine, "--beginning=12", "--length=7")
    assert not (tmp_path / "out").exists()


def test_writes_sounds_and_continues_them(run_sample, tiny_audio_run, capsys):
    run = (f"--run_dir={tiny_audio_run}", "--temperature=0.1")
    out = run_sample("out", *run, "--num=2", "--length=9")
    sounds = ["sample_00.wav", "sample_01.wav"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, *sounds])
    with h5py.File(out / "samples.h5") as file:
        frames = file["frames"][()]
        assert (file.attrs["modality"], file.attrs["sample_rate_hz"]) == ("audio", 210)
    assert frames.shape == (2, 9, 7)
    _, *lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 sequences, 9 generated steps each:")
    for name, line, waveform in zip(sounds, lines[1:], frames.reshape(2, 63), strict=True):
        played, rate = soundfile.read(out / name)
        assert rate == 210
        np.testing.assert_allclose(played, np.clip(waveform, -1, 1), atol=2**-15)
        beyond = int(np.sum(np.abs(waveform) > 1))
        note = f", {beyond} samples beyond full scale were clipped" if beyond else ""
        assert line == f"{out}/{name}: 0.30 s{note}"

    # A WAV file that ends within a frame.
    soundfile.write(out / "mine.wav", np.linspace(-0.5, 0.5, 17), 210)
    continued = run_sample("more", *run, f"--continue_from={out}/mine.wav", "--length=4")
    with h5py.File(continued / "samples.h5") as file:
        assert file["frames"].shape == (1, 6, 7)
        assert file["beginning_lengths"][()].tolist() == [2]
        given = file["frames"][0, :2].reshape(-1)
    np.testing.assert_allclose(given, np.linspace(-0.5, 0.5, 17)[:14], atol=2**-15)
    assert media.PREFIX_INK in (continued / "samples.svg").read_text()
    again = run_sample("again", *run, f"--continue_from={out}/samples.h5", "--length=1", "--num=1")
    with h5py.File(again / "samples.h5") as file:
        np.testing.assert_array_equal(file["frames"][0, :9], frames[0])
    soundfile.write(out / "mine.flac", np.linspace(-0.5, 0.5, 17), 210)
    same = run_sample("same", *run, f"--continue_from={out}/mine.flac", "--length=4")
    with h5py.File(same / "samples.h5") as file, h5py.File(continued / "samples.h5") as of_wav:
        np.testing.assert_array_equal(file["frames"], of_wav["frames"])
    (out / "text.flac").write_text("la la la")
    with pytest.raises(UserError, match=r"text.flac: not .* accepted: a sound .*FLAC.* or HDF5"):
        run_sample("more", *run, f"--continue_from={out}/text.flac")
    soundfile.write(out / "mine.wav", np.zeros(6), 210)
    with pytest.raises(UserError, match=r"mine.wav: 6 samples; accepted: 7 \(a frame\) or more"):
        run_sample("more", *run, f"--continue_from={out}/mine.wav")


def test_audio_is_three_seconds_long(run_sample, tiny_audio_run, capsys):
    with eagerly(False):  # so many steps are worth a graph
        run_sample("out", f"--run_dir={tiny_audio_run}", "--num=1")
    assert "90 generated steps" in capsys.readouterr().out  # of 7 samples, 210 a second


def test_records_of_no_known_kind_are_written_but_not_drawn(run_sample, tiny_run, tmp_path, capsys):
    run = RunDirectory.open(tiny_run)
    card = dataclasses.replace(
        run.card,
        name="weather",
        features=tuple(
            Feature(name, kind, "none", "a measurement")
            for name, kind in (("wind", "real"), ("heat", "real"), ("rain", "binary"))
        ),
        modality=Modality("other"),
    )
    shutil.copytree(tiny_run, tmp_path / "weather")
    (tmp_path / "weather" / "dataset.json").write_text(card.to_json())
    out = run_sample("out", f"--run_dir={tmp_path}/weather", "--num=2", "--length=5")
    assert [path.name for path in out.iterdir()] == ["samples.h5"]
    assert capsys.readouterr().out.endswith(
        "samples.h5 (no picture: weather is neither handwriting, audio nor images)\n"
    )
    same = run_sample("same", "--num=2", "--length=5")
    with h5py.File(out / "samples.h5") as file, h5py.File(same / "samples.h5") as strokes:
        np.testing.assert_array_equal(file["sequences"][()], strokes["strokes"][()])


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_temperatures_are_finite(run_sample, value):
    with pytest.raises(flags.flags.Error, match="latent_temperature"):
        run_sample("out", f"--latent_temperature={value}")
