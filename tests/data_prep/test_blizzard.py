"""Blizzard: groups, streams and their interleaving against plain reshaping, splits, statistics."""

import av
import numpy as np
import pytest
import soundfile
import soxr

from data_prep import blizzard
from data_prep.common import audio
from stcn_tf.support.errors import UserError

# Path, seconds, sample rate, channels; in sorted order.
FILES = (
    ("a/10.mp3", 3.1, 16_000, 1),
    ("a/2.mp3", 2.7, 44_100, 2),
    ("b/1.mp3", 4.0, 22_050, 1),
    ("b/c/1.MP3", 3.6, 16_000, 1),
    ("d.mp3", 5.2, 44_100, 1),
)
GROUPS = (FILES[:2], FILES[2:4], FILES[4:])
NUM_STREAMS = 3


def sound(path, seconds, rate, channels):
    rng = np.random.default_rng(list(path.encode()))
    return rng.normal(0.01, 0.1, (int(seconds * rate), channels))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("blizzard")
    for path, seconds, rate, channels in FILES:
        (root / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
        samples = sound(path, seconds, rate, channels)
        soundfile.write(root / "raw" / path, samples, rate, format="MP3")
    (root / "raw" / "readme.txt").write_text("not ours")
    return root


def decoded(source, path, rate):
    """[samples] 16 kHz, mono, 16 bits."""
    with av.open(str(source / "raw" / path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    mono = np.concatenate(frames, axis=1).mean(axis=0)
    if rate != 16_000:
        mono = soxr.resample(mono, rate, 16_000, quality="HQ")
    return np.clip(np.rint(mono * 32768), -32768, 32767)


def expected_segments(source):
    """[segments, 8000] in 16-bit units, as the module's docstring says, by reshaping."""
    result = []
    for group in GROUPS:
        whole = np.concatenate([decoded(source, path, rate) for path, _, rate, _ in group])
        length = len(whole) // NUM_STREAMS
        count = (length - 1) // 8000
        streams = whole[: NUM_STREAMS * length].reshape(NUM_STREAMS, length)
        segments = streams[:, : count * 8000].reshape(NUM_STREAMS, count, 8000)
        result.append(segments.swapaxes(0, 1).reshape(-1, 8000))
    return np.concatenate(result)


def prepare(source, out, **options):
    options = {
        "split": "0.5,0.2,0.3",
        "files_per_group": 2,
        "num_streams": NUM_STREAMS,
    } | options
    blizzard.prepare(source / "raw", out, **options)
    return out


@pytest.fixture
def samples_of(read_back):
    """Function (folder, split) -> sequences by id, in order, in 16-bit units, [8000]."""

    def read(folder, split):
        return {name: 32768 * x.ravel() for name, x in read_back(folder, split).items()}

    return read


def test_segments_are_interleaved_and_split_by_number(source, tmp_path, capsys, samples_of):
    from stcn_tf.data.card import Modality, read_card

    out = prepare(source, tmp_path / "out")
    segments = expected_segments(source)
    assert len(segments) == 3 * (3 + 5 + 3)
    stops = {"train": (0, 16), "valid": (16, 23), "test": (23, 33)}  # of 16.5, 6.6, 9.9
    for split, (start, stop) in stops.items():
        samples = np.stack(list(samples_of(out, split).values()))
        np.testing.assert_array_equal(np.rint(samples), segments[start:stop])
    ids = [name for split in stops for name in samples_of(out, split)]
    assert len(set(ids)) == 33
    # The first streams of a group begin in its first file, at thirds of the group.
    length = (len(decoded(source, "b/1.mp3", 22_050)) + int(3.6 * 16_000)) // 3
    assert ids[9:12] == ["b/1.mp3@0", f"b/1.mp3@{length}", ids[11]]
    assert ids[12:14] == ["b/1.mp3@8000", f"b/1.mp3@{length + 8000}"]
    assert ids[11].startswith("b/c/1.MP3@")

    card = read_card(out)
    train = np.stack(list(samples_of(out, "train").values())).astype(np.float64)
    statistics = card.extra["train_statistics"]["16_bit"]
    assert statistics == pytest.approx({"mean": train.mean(), "std": train.std()}, rel=1e-5)
    assert card.normalization.kind == "scalar"
    assert card.modality == Modality("audio", sample_rate_hz=16_000)
    assert (card.name, card.num_features) == ("blizzard", 200)
    assert card.extra["num_segments"] == 33
    assert card.command == (
        "python -m data_prep.blizzard --source=DIR --out=DIR --split=0.5,0.2,0.3 "
        "--files_per_group=2 --num_streams=3"
    )
    printed = capsys.readouterr().out
    assert "train: segments 0 to 15 of 33, 16 sequences, 640 steps of 200 samples" in printed
    assert "test: segments 23 to 32 of 33, 10 sequences" in printed


def test_same_bytes_with_any_number_of_workers(source, tmp_path, files_of):
    first = files_of(prepare(source, tmp_path / "first"))
    assert files_of(prepare(source, tmp_path / "again", workers=2)) == first


def test_a_stream_keeps_one_sample_more_than_its_segments():
    for length, count in ((0, 0), (1, 0), (8000, 0), (8001, 1), (16_000, 1), (16_001, 2)):
        file = audio.DecodedFile("", "int16", 16_000, 3 * length + 2, 0.0, 0.0, False)
        assert len(blizzard.Segments({"a": file}, 200, 3)) == 3 * count


def test_released_split(tmp_path):
    # 5 groups of 200 files of 1200 s each: 100 streams of 2400 s, which are 4799 segments.
    file = audio.DecodedFile("", "int16", 16_000, 1200 * 16_000, 0.0, 0.0, False)
    segments = blizzard.Segments({f"{i:03d}": file for i in range(1000)}, 200, 100)
    assert len(segments) == 5 * 479_900
    plans = blizzard.plan_splits(segments, None, tmp_path)
    assert {name: plan.num_sequences for name, plan in plans.items()} == {
        "train": 2_040_064,
        "valid": 112_640,
        "test": 114_176,
    }
    assert plans["test"].num_steps == 114_176 * 40
    assert plans["valid"].origin == "segments 2040064 to 2152703 of 2399500"
    fewer = blizzard.Segments({f"{i:03d}": file for i in range(944)}, 200, 100)
    with pytest.raises(UserError) as error:
        blizzard.plan_splits(fewer, None, tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: has 2265100 segments, but --split=released needs 2266880: pass shares, such "
        "as --split=0.9,0.05,0.05"
    )


def test_released_split_of_little_data_is_refused(source, tmp_path):
    with pytest.raises(UserError, match="raw: has 33 segments, but --split=released needs 2266880"):
        prepare(source, tmp_path / "out", split="released")
    with pytest.raises(UserError, match="raw: 33 segments are too few: test would have none"):
        prepare(source, tmp_path / "out", split="0.8,0.15,0.01")
    assert [path.name for path in tmp_path.iterdir()] == [".out.decoded"]


@pytest.mark.parametrize(
    "split", ["", "all", "0.5,0.5", "0.5,0.5,0", "0.5,0.4,0.2", "nan,0.1,0.1", "0.8,0.1,-0.1"]
)
def test_shares_out_of_range(split):
    with pytest.raises(UserError, match="accepted: released, or three positive shares with a sum"):
        blizzard.parse_shares(split)


def test_shares_may_have_a_sum_of_one():
    assert blizzard.parse_shares("0.9,0.05,0.05") == (0.9, 0.05, 0.05)
    assert blizzard.parse_shares("0.7,0.2,0.1") == (0.7, 0.2, 0.1)


def test_faults(source, tmp_path):
    from stcn_tf.data.card import read_card

    raw = tmp_path / "raw"
    raw.mkdir()
    with pytest.raises(UserError, match="holds neither .mp3 nor .wav files; accepted: files of"):
        prepare(tmp_path, tmp_path / "out")
    samples = np.random.default_rng(0).normal(0, 0.1, 60_000)
    for name in ("a", "b", "c"):
        soundfile.write(raw / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    (raw / "b.wav").write_bytes(b"words")
    with pytest.raises(UserError, match="1 bad entry in .*raw: b.wav: is none of WAV, FLAC, OGG,"):
        prepare(tmp_path, tmp_path / "out")
    out = prepare(tmp_path, tmp_path / "out", skip_bad=True)
    # The bad file takes no place in its group: 120,000 samples are 3 streams of 4 segments.
    card = read_card(out)
    assert card.extra["num_segments"] == 12
    assert list(card.extra["skipped"]) == ["b.wav"]
    (raw / "d.mp3").touch()
    with pytest.raises(UserError, match="holds both .mp3 and .wav files"):
        prepare(tmp_path, tmp_path / "out")
