"""One's own recordings: splits, rates, channels, sequences, and the command itself."""

import os
import shutil
import subprocess
import sys
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep import wav
from data_prep.common import raw_files, splitting
from stcn_tf.support.errors import UserError

CASES = Path(__file__).parent / "cases" / "audio"
FRAME = 30


def put(path, samples, rate=8000, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)


def noise(name, length):
    rng = np.random.default_rng(list(name.encode()))
    return rng.normal(20, 500, length).astype(np.int16)


LENGTHS = {"train/a/1.wav": 100, "train/b.flac": 250, "valid/c.WAV": 61, "test/d.wav": 30}


@pytest.fixture
def source(tmp_path):
    for name, length in LENGTHS.items():
        put(tmp_path / "raw" / name, noise(name, length))
    (tmp_path / "raw" / "readme.txt").write_text("not ours")
    return tmp_path


def prepare(source, out="out", **options):
    options = {"split": "folders", "frame_size": FRAME} | options
    wav.prepare(source / "raw", source / out, **options)
    return source / out


@pytest.fixture
def samples_of(read_back):
    """Function (folder, split) -> sequences by id, in order, as 16-bit samples [time, frame]."""

    def read(folder, split):
        sequences = {name: 32768 * x for name, x in read_back(folder, split).items()}
        for x in sequences.values():
            assert np.abs(x - np.rint(x)).max() < 0.01
        return {name: np.rint(x) for name, x in sequences.items()}

    return read


def test_a_file_is_a_sequence_of_frames(source, capsys, samples_of):
    from stcn_tf.data.card import Modality, read_card

    out = prepare(source)
    shapes = {"train": {"train/a/1.wav": 3, "train/b.flac": 8}, "valid": {"valid/c.WAV": 2}}
    for split, lengths in (shapes | {"test": {"test/d.wav": 1}}).items():
        sequences = samples_of(out, split)
        assert {name: len(x) for name, x in sequences.items()} == lengths
        for name, x in sequences.items():
            samples = noise(name, LENGTHS[name])[: x.size]
            np.testing.assert_array_equal(x, samples.reshape(-1, FRAME))

    card = read_card(out)
    train = [noise(name, LENGTHS[name]) for name in shapes["train"]]
    train = np.concatenate(train).astype(np.float64) / 32768
    assert card.normalization.mean == pytest.approx((train.mean(),) * FRAME, rel=1e-12)
    assert card.normalization.std == pytest.approx((train.std(),) * FRAME, rel=1e-12)
    assert card.modality == Modality("audio", sample_rate_hz=8000)
    assert card.name == "wav"
    assert card.extra["files"] == {"train": 2, "valid": 1, "test": 1}
    assert card.command == (
        "python -m data_prep.wav --source=DIR --out=DIR --split=folders --sample_rate_hz=0 "
        f"--frame_size={FRAME} --sequence_frames=0"
    )
    assert "train: 2 files, 2 sequences, 11 steps of 30 samples, 0.000 hours at 8000 Hz" in (
        capsys.readouterr().out
    )


def test_sequences_of_some_frames(source, samples_of, groups_of):
    out = prepare(source, sequence_frames=3)
    train = samples_of(out, "train")
    assert list(train) == ["train/a/1.wav@0", "train/b.flac@0", "train/b.flac@90"]
    np.testing.assert_array_equal(
        train["train/b.flac@90"].ravel(), noise("train/b.flac", 250)[90:180]
    )
    # Pieces of one file are a group.
    assert groups_of(out, "train") == {name: name.partition("@")[0] for name in train}
    # A shorter file is a shorter sequence.
    assert {name: len(x) for name, x in samples_of(out, "valid").items()} == {"valid/c.WAV@0": 2}


def test_groups_are_found_in_names(source, groups_of):
    assert set(groups_of(prepare(source), "train").values()) == {""}
    out = prepare(source, group="^([^/]+)/([^/]+)/", sequence_frames=3)
    assert groups_of(out, "train") == {
        "train/a/1.wav@0": "train",
        "train/b.flac@0": "",
        "train/b.flac@90": "",
    }


def test_random_split_is_by_names(source, samples_of):
    expected = splitting.split_names(sorted(LENGTHS), "random", 0.25, 0.25)
    out = prepare(source, split="random", valid_share=0.25, test_share=0.25)
    assert {split: list(samples_of(out, split)) for split in expected} == expected


def test_listed_files_alone_are_read(source, samples_of):
    (source / "lists").mkdir()
    (source / "lists" / "train.txt").write_text("train/b.flac\n")
    (source / "lists" / "valid.txt").write_text("test/d.wav\n")
    (source / "raw" / "train" / "a" / "1.wav").write_bytes(b"broken")
    out = prepare(source, split=str(source / "lists"))
    assert list(samples_of(out, "train")) == ["train/b.flac"]
    assert list(samples_of(out, "valid")) == ["test/d.wav"]


def test_rates_must_agree_or_are_converted(source, samples_of):
    from stcn_tf.data.card import read_card

    put(source / "raw" / "valid" / "c.WAV", noise("valid/c.WAV", 500), 11_025)
    with pytest.raises(UserError) as error:
        prepare(source)
    assert str(error.value) == (
        f"{source / 'raw'}: sample rates differ: train/a/1.wav has 8000 Hz, valid/c.WAV has "
        "11025 Hz; --sample_rate_hz=RATE resamples"
    )
    out = prepare(source, sample_rate_hz=16_000)
    assert read_card(out).modality.sample_rate_hz == 16_000
    assert len(samples_of(out, "train")["train/b.flac"]) == 500 // FRAME
    assert len(samples_of(out, "valid")["valid/c.WAV"]) == int(500 * 16_000 / 11_025) // FRAME
    with pytest.raises(UserError, match="--sample_rate_hz=999: accepted: 0, or 1000 to 384000"):
        prepare(source, sample_rate_hz=999)


def test_channels_are_mixed_where_asked_for(source, samples_of):
    samples = np.stack([noise("left", 100), noise("right", 100)], axis=1)
    put(source / "raw" / "train" / "a" / "1.wav", samples)
    with pytest.raises(UserError, match="1.wav: has 2 channels; accepted: 1 .--mix_channels aver"):
        prepare(source)
    train = samples_of(prepare(source, mix_channels=True), "train")["train/a/1.wav"]
    mean = samples.astype(np.float64).mean(axis=1)[:90]
    np.testing.assert_array_equal(train.ravel(), np.rint(mean))


def test_skip_bad_does_not_move_others_between_splits(source, capsys, samples_of):
    from stcn_tf.data.card import read_card

    for number in range(20):
        put(source / "raw" / f"{number}.wav", noise(str(number), 99))
    names = raw_files.find_files(source / "raw", (".wav", ".flac"))
    expected = splitting.split_names(names, "random", 0.3, 0.0)
    bad = expected["valid"][1]
    put(source / "raw" / bad, noise(bad, FRAME - 1))
    with pytest.raises(UserError, match=f"1 bad entry in .*: {bad}: has 29 samples, at least 30"):
        prepare(source, split="random", valid_share=0.3)
    out = prepare(source, split="random", valid_share=0.3, skip_bad=True)
    expected["valid"].remove(bad)
    assert {split: list(samples_of(out, split)) for split in expected} == expected
    card = read_card(out)
    assert card.extra["skipped"] == {bad: "has 29 samples, at least 30 are needed"}
    assert f"skipped {bad}: has 29 samples" in capsys.readouterr().out


def test_sounds_of_every_format_lie_side_by_side(tmp_path, capsys, samples_of):
    raw = tmp_path / "raw"
    samples = noise("good", 16_000)
    for name, form, subtype in (
        ("a.wav", "WAV", "PCM_16"),
        ("b.aiff", "AIFF", "PCM_16"),
        ("c.sph", "NIST", "PCM_16"),
        ("e.au", "AU", "PCM_16"),
        ("f.FLAC", "FLAC", "PCM_16"),
        ("g.aif", "RF64", "PCM_16"),  # content tells the format
    ):
        put(raw / name, samples, 16_000, format=form, subtype=subtype)
    for path in CASES.iterdir():
        shutil.copy(path, raw / path.name)
    (raw / "readme.md").touch()
    wav.prepare(raw, tmp_path / "out", frame_size=200, valid_share=0.2)
    printed = capsys.readouterr().out
    assert printed.startswith("not read: 1 .md (read are .wav, ")
    sequences = samples_of(tmp_path / "out", "train") | samples_of(tmp_path / "out", "valid")
    assert len(sequences) == 6 + len(list(CASES.iterdir())) == 13
    lengths = {name: len(x) for name, x in sequences.items() if len(x) != 80}
    assert lengths == {"two.mp3": 167, "cut.mp3": 86}  # "cat a.mp3 a.mp3"; no declared length
    for name in ("a.wav", "b.aiff", "c.sph", "e.au", "f.FLAC", "g.aif"):
        np.testing.assert_array_equal(sequences[name].ravel(), samples)
    for name in ("id3v2.flac", "x.ogg"):
        np.testing.assert_array_equal(sequences[name], sequences["good1.wav"])
    assert "skipped 0 entries" in printed


def test_equal_samples_are_told(source, capsys):
    prepare(source)
    assert "warning" not in capsys.readouterr().out
    fractions = noise("train/b.flac", 250) / 32768
    put(source / "raw" / "valid" / "copy.aiff", fractions, subtype="FLOAT")
    put(source / "raw" / "train" / "again.wav", noise("train/a/1.wav", 100))
    prepare(source)
    warnings = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning")]
    assert warnings == [
        "warning: train has the samples of 1 file twice, such as train/a/1.wav and train/again.wav",
        "warning: train and valid share the samples of 1 file, such as train/b.flac and "
        "valid/copy.aiff",
    ]


def test_linked_folders_are_read(source, capsys, samples_of):
    (source / "linked").mkdir()
    for split in ("train", "valid"):
        (source / "linked" / split).symlink_to(source / "raw" / "train")
    wav.prepare(source / "linked", source / "out", split="folders", frame_size=FRAME)
    assert list(samples_of(source / "out", "valid")) == ["valid/a/1.wav", "valid/b.flac"]
    assert "train and valid share the samples of 2 files" in capsys.readouterr().out


def test_floats_that_were_never_divided(source):
    """What the example of scipy.io.wavfile.write used to make."""
    values = np.iinfo(np.int16).max * np.sin(np.arange(100.0))
    put(source / "raw" / "train" / "scipy.wav", values, subtype="DOUBLE")
    with pytest.raises(UserError) as error:
        prepare(source)
    assert "1 bad entry" in str(error.value)
    assert ": train/scipy.wav: reaches 327" in str(error.value)
    assert "times full scale; accepted: up to 16" in str(error.value)


def test_nothing_left(source):
    put(source / "raw" / "valid" / "c.WAV", np.zeros(3, np.int16))
    with pytest.raises(UserError, match="no file is left for the split 'valid'"):
        prepare(source, skip_bad=True)


def test_same_bytes_again_elsewhere_and_with_any_number_of_workers(source, files_of):
    first = files_of(prepare(source, "first"))
    (source / "raw").rename(source / "elsewhere")
    for workers in (1, 2):
        wav.prepare(
            source / "elsewhere",
            source / "again",
            split="folders",
            frame_size=FRAME,
            workers=workers,
        )
        assert files_of(source / "again") == first
    assert str(source) not in str(first)


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "data_prep.wav", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(wav.__file__).parents[1])},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=o"], "--source"),
        (["--source=.", "--out=o", "--frame_size=0"], "frame_size"),
        (["--source=.", "--out=o", "--sequence_frames=-1"], "sequence_frames"),
        (
            ["--source=.", "--out=o"],
            "holds no .wav, .flac, .mp3, .ogg, .oga, .opus, ",
        ),
        (["--source=none", "--out=o"], "--source: none does not exist"),
    ],
)
def test_wrong_flags_exit_2_with_one_line(tmp_path, arguments, message):
    result = run(tmp_path, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and message in line
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["wav", "timit", "blizzard"])
def test_decoding_processes_need_no_tensorflow(name):
    code = f"import sys, data_prep.{name}; sys.exit('tensorflow' in sys.modules)"
    root = Path(wav.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


@pytest.mark.data
def test_spoken_digits(tmp_path, capsys, samples_of):
    if not os.environ.get("STCN_DATA"):
        pytest.skip("STCN_DATA is not set")
    from stcn_tf.data.card import read_card

    with tarfile.open(Path(os.environ["STCN_DATA"], "fsdd", "recordings.tar.xz")) as archive:
        members = [m for m in archive.getmembers() if m.name.endswith(("_7.wav", "_8.wav"))]
        archive.extractall(tmp_path / "raw", members, filter="data")
    out = prepare(tmp_path, split="random", valid_share=0.2, test_share=0.1, frame_size=200)
    samples = {}
    for path in (tmp_path / "raw").rglob("*.wav"):
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
            content = file.readframes(file.getnframes())
        samples[path.relative_to(tmp_path / "raw").as_posix()] = np.frombuffer(content, "<i2")
    assert len(samples) == 2 * 10 * 6
    card = read_card(out)
    counts = {split: card.splits[split].num_sequences for split in ("train", "valid", "test")}
    assert counts == {"train": 84, "valid": 24, "test": 12}
    for split in counts:
        for name, x in samples_of(out, split).items():
            whole = samples[name][: len(samples[name]) // 200 * 200]
            np.testing.assert_array_equal(x.ravel(), whole)
    train = np.concatenate([samples[name] for name in samples_of(out, "train")])
    statistics = card.extra["train_statistics"]["16_bit"]
    assert statistics == pytest.approx({"mean": train.mean(), "std": train.std()}, rel=1e-10)
