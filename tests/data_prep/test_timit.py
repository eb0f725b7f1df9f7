"""TIMIT: the split, files in whatever case, streams and utterances, and every fault by its text."""

import json

import numpy as np
import pytest
import soundfile

from data_prep import timit
from stcn_tf.support.errors import UserError

LISTS = {
    "train": ["TRAIN/DR2/FMMH0/SX187.WAV", "TRAIN/DR1/FAAA0/SA1.WAV", "TRAIN/DR7/MBBB0/SI9.WAV"],
    "valid": ["TRAIN/DR1/FAAA0/SA2.WAV", "TRAIN/DR3/MCCC0/SX3.WAV"],
    "test": ["TEST/DR6/MDDD0/SX14.WAV", "TEST/DR6/MDDD0/SA1.WAV"],
}
LENGTHS = {"train": (30_001, 17_999, 9_100), "valid": (12_500, 12_499), "test": (16_399, 200)}


def put(path, samples, rate=16_000, form="NIST", subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = samples / 32768 if subtype == "FLOAT" else samples
    soundfile.write(path, values, rate, format=form, subtype=subtype)


@pytest.fixture
def source(tmp_path):
    """Utterances, lists, and a file in no list."""
    (tmp_path / "lists").mkdir()
    for split, names in LISTS.items():
        (tmp_path / "lists" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            put(tmp_path / "raw" / name, utterance(name))
    put(tmp_path / "raw" / "TRAIN/DR1/FAAA0/SX9.WAV", np.zeros(999, np.int16))
    return tmp_path


def utterance(name):
    """[samples] int16."""
    split = next(split for split, names in LISTS.items() if name in names)
    length = LENGTHS[split][LISTS[split].index(name)]
    return np.random.default_rng(list(name.encode())).normal(5, 600, length).astype(np.int16)


def whole(split):
    """The utterances of a split in the list's order, one after the other."""
    return np.concatenate([utterance(name) for name in LISTS[split]])


def prepare(source, out="out", **options):
    options = {"split": str(source / "lists"), "sequences_multiple": 2} | options
    timit.prepare(source / "raw", source / out, **options)
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


def test_bundled_split_is_that_of_srnn():
    lists = timit.read_splits("srnn")
    assert {split: len(names) for split, names in lists.items()} == {
        "train": 4389,
        "valid": 231,
        "test": 1680,
    }
    assert lists["train"][0] == "TRAIN/DR2/FMMH0/SX187.WAV"
    # Valid is a part of the corpus's training set; no speaker of test is in either.
    speakers = {split: {name.split("/")[2] for name in names} for split, names in lists.items()}
    assert len(speakers["train"] | speakers["valid"]) == 462
    assert len(speakers["test"]) == 168
    assert not speakers["test"] & (speakers["train"] | speakers["valid"])
    for split, names in lists.items():
        assert {name.split("/")[0] for name in names} == {"TEST" if split == "test" else "TRAIN"}


def test_records_hold_streams_and_utterances(source, capsys, samples_of, groups_of):
    from stcn_tf.data.card import Modality, read_card

    out = prepare(source)
    # 57,100 samples are 7 sequences, of which 6 are kept; 24,999 are 3, of which 2.
    train = samples_of(out, "train")
    np.testing.assert_array_equal(
        np.stack(list(train.values())), whole("train")[:48_000].reshape(6, 40, 200)
    )
    a, b, _ = LISTS["train"]
    assert list(train) == [f"{a}@{k}" for k in (0, 8000, 16_000, 24_000)] + [
        f"{b}@{k}" for k in (1999, 9999)
    ]
    valid = samples_of(out, "valid")
    np.testing.assert_array_equal(
        np.stack(list(valid.values())), whole("valid")[:16_000].reshape(2, 40, 200)
    )
    test = samples_of(out, "test")
    assert list(test) == LISTS["test"]
    for split, names in (("train", train), ("test", test)):
        assert groups_of(out, split) == {name: name.split("/")[-2] for name in names}
    assert [len(x) for x in test.values()] == [81, 1]
    for name, x in test.items():
        np.testing.assert_array_equal(x.ravel(), utterance(name)[: x.size])

    card = read_card(out)
    samples = whole("train").astype(np.float64) / 32768  # all of them, not only those in sequences
    assert card.normalization.kind == "scalar"
    assert card.normalization.mean == pytest.approx((samples.mean(),) * 200, rel=1e-12)
    assert card.normalization.std == pytest.approx((samples.std(),) * 200, rel=1e-12)
    assert card.modality == Modality("audio", sample_rate_hz=16_000)
    assert [f.name for f in card.features] == [f"sample_{i}" for i in range(200)]
    assert {(f.kind, f.unit) for f in card.features} == {("real", "full scale")}
    assert card.name == "speech"
    assert card.command == (
        "python -m data_prep.timit --source=DIR --out=DIR --split=DIR --sequences_multiple=2 "
        "--frame_size=200"
    )
    assert card.extra["files"] == {"train": 3, "valid": 2, "test": 2}
    assert card.extra["sequences_rounded_off"] == {"train": 1, "valid": 1}
    assert card.extra["skipped"] == {}
    assert card.extra["train_statistics"]["16_bit"] == pytest.approx(
        {"mean": whole("train").mean(), "std": whole("train").std()}, rel=1e-12
    )
    assert card.extra["hours"]["test"] == pytest.approx(82 * 200 / 16_000 / 3600, rel=1e-12)

    printed = capsys.readouterr().out
    assert "train: 3 files, 6 sequences, 240 steps of 200 samples, 0.001 hours at 16" in printed
    assert "test: 2 files, 2 sequences, 82 steps of 200 samples" in printed
    mean, std = whole("train").mean(), whole("train").std()
    assert f"; mean {mean:.6f}, std {std:.3f} in 16-bit units" in printed
    assert "train: 1 sequences rounded off to a multiple of 2\n" in printed
    assert printed.endswith(f"\nwrote {out} (scalar normalisation)\n")


def test_samples_as_steps(source, samples_of):
    from stcn_tf.data.card import read_card

    out = prepare(source, frame_size=1)
    for split, num_sequences in (("train", 6), ("valid", 2)):
        sequences = np.stack(list(samples_of(out, split).values()))
        assert sequences.shape == (num_sequences, 8000, 1)
        np.testing.assert_array_equal(sequences.ravel(), whole(split)[: 8000 * num_sequences])
    for name, x in samples_of(out, "test").items():
        np.testing.assert_array_equal(x[:, 0], utterance(name))
    assert [f.name for f in read_card(out).features] == ["sample_0"]
    assert read_card(out).splits["train"].num_steps == 48_000


def test_a_header_as_on_the_disc(source, files_of):
    """The headers of TIMIT have no sample_coding, and low bytes come first."""
    name = LISTS["test"][0]
    header = (
        "NIST_1A\n   1024\ndatabase_id -s5 TIMIT\ndatabase_version -s3 1.0\n"
        "utterance_id -s10 mddd0_sx14\nchannel_count -i 1\nsample_count -i 16399\n"
        "sample_rate -i 16000\nsample_min -i -2000\nsample_max -i 2000\nsample_n_bytes -i 2\n"
        "sample_byte_format -s2 01\nsample_sig_bits -i 16\nend_head\n"
    )
    expected = files_of(prepare(source))
    content = header.encode().ljust(1024) + utterance(name).astype("<i2").tobytes()
    (source / "raw" / name).write_bytes(content)
    again = files_of(prepare(source, "again"))
    expected.pop("dataset.json"), again.pop("dataset.json")  # the files' checksums differ
    assert again == expected


@pytest.mark.parametrize("kind", ["lower", "below", "converted"])
def test_discs_differ(source, kind, files_of):
    expected = files_of(prepare(source))
    raw = source / "raw"
    for path in sorted(raw.rglob("*.WAV")):
        name = path.relative_to(raw).as_posix()
        if kind == "lower":
            new = name.lower()
        elif kind == "below":
            new = f"timit/TIMIT/{name}"
        else:
            new = f"data/{name}.wav"
        (source / "new" / new).parent.mkdir(parents=True, exist_ok=True)
        path.rename(source / "new" / new)
    split = str(source / "lists")
    timit.prepare(source / "new", source / "out", split=split, sequences_multiple=2)
    assert files_of(source / "out") == expected


@pytest.mark.parametrize(
    ("ending", "form", "subtype"),
    [
        ("WAV.wav", "WAV", "PCM_16"),
        ("wav", "WAV", "FLOAT"),
        ("flac", "FLAC", "PCM_24"),
        ("sph", "NIST", "PCM_16"),
    ],
)
def test_converted_copies_beside_originals(source, files_of, ending, form, subtype):
    """As sox or sph2pipe leave them."""
    expected = files_of(prepare(source))
    names = [name for names in LISTS.values() for name in names]
    copies = {name: source / "raw" / f"{name.removesuffix('WAV')}{ending}" for name in names}
    for name, path in copies.items():
        put(path, utterance(name), form=form, subtype=subtype)
    assert files_of(prepare(source)) == expected
    name = LISTS["valid"][0]
    put(copies[name], utterance(name)[::-1], form=form, subtype=subtype)
    copy = copies[name].relative_to(source / "raw")
    with pytest.raises(UserError) as error:
        prepare(source)
    assert f"1 bad entry in {source / 'raw'}: {name}: may be " in str(error.value)
    assert f"{copy}" in str(error.value) and ", whose samples differ (" in str(error.value)
    copies[name].write_bytes(b"")
    with pytest.raises(UserError, match=f"{name}: (has a copy, {copy}, that )?is empty"):
        prepare(source)


def test_same_bytes_with_any_number_of_workers(source, files_of):
    expected = files_of(prepare(source))
    assert files_of(prepare(source, "again", workers=2)) == expected
    assert str(source) not in json.dumps({name: str(data) for name, data in expected.items()})


def break_things(source):
    raw = source / "raw"
    (raw / LISTS["valid"][1]).unlink()
    put(raw / LISTS["train"][2], np.zeros(9000, np.int16), rate=8000)
    put(raw / LISTS["test"][1], np.zeros((9000, 2), np.int16))


def test_faults_are_named(source, capsys):
    break_things(source)
    with pytest.raises(UserError) as error:
        prepare(source)
    assert str(error.value).startswith(
        f"1 bad entry in {source / 'raw'}: {LISTS['valid'][1]}: is listed but does not exist ("
    )
    put(source / "raw" / LISTS["valid"][1], np.zeros(199, np.int16))
    with pytest.raises(UserError) as error:
        prepare(source)
    message = str(error.value)
    assert message.startswith("3 bad entries in ")
    for name, reason in (
        (LISTS["train"][2], "has a sample rate of 8000 Hz; accepted: 16000"),
        (LISTS["valid"][1], "has 199 samples, at least 200 are needed"),
        (LISTS["test"][1], "has 2 channels; accepted: 1"),
    ):
        assert f"{name}: {reason}" in message
    assert not (source / "out").exists()


def test_skip_bad_leaves_out_and_counts(source, capsys):
    from stcn_tf.data.card import read_card

    break_things(source)
    out = prepare(source, skip_bad=True, sequences_multiple=1)
    card = read_card(out)
    assert card.extra["skipped"] == {
        LISTS["valid"][1]: "is listed but does not exist",
        LISTS["train"][2]: "has a sample rate of 8000 Hz; accepted: 16000",
        LISTS["test"][1]: "has 2 channels; accepted: 1",
    }
    assert card.extra["files"] == {"train": 2, "valid": 1, "test": 1}
    assert card.command.endswith(" --skip_bad")
    assert f"skipped {LISTS['test'][1]}: has 2 channels" in capsys.readouterr().out
    (source / "raw" / LISTS["test"][0]).unlink()
    with pytest.raises(UserError, match="no file is left for the split 'test'"):
        prepare(source, skip_bad=True, sequences_multiple=1)


def test_one_file_for_each_name(source):
    put(source / "raw" / "copy" / LISTS["valid"][0], np.zeros(300, np.int16))
    with pytest.raises(UserError, match="SA2.WAV: may be TRAIN/.*SA2.WAV or copy/.*, whose sam"):
        prepare(source)


def test_other_mistakes(source):
    with pytest.raises(UserError, match="valid: 3 sequences of 8000 samples are fewer than --seq"):
        prepare(source, sequences_multiple=4)
    accepted = "accepted: a divisor of 8000, the samples of a sequence"
    with pytest.raises(UserError, match=f"^--frame_size=3: {accepted}$"):
        prepare(source, frame_size=3)
    with pytest.raises(UserError, match="holds none of the 6300 listed files, such as TRAIN/DR2/F"):
        timit.prepare(source / "lists", source / "out")
    accepted = "neither srnn, nor a folder of train.txt, valid.txt, test.txt"
    with pytest.raises(UserError, match=f"^--split=cwrnn: {accepted}$"):
        prepare(source, split="cwrnn")
    with pytest.raises(UserError, match="^--split=.*raw: the folder has no train.txt$"):
        prepare(source, split=str(source / "raw"))
    with open(source / "lists" / "test.txt", "a") as file:
        file.write("\ntrain/dr1/faaa0/sa1.wav\n")
    both = "'train/dr1/faaa0/sa1.wav' is in .*/train.txt and in .*/test.txt"
    with pytest.raises(UserError, match=f"^--split: {both}$"):
        prepare(source)
    assert not (source / "out").exists()


def test_silence_cannot_be_normalised(source):
    for name in LISTS["train"]:
        put(source / "raw" / name, np.zeros(30_000, np.int16))
    with pytest.raises(UserError, match="cannot be normalised: its samples do not vary"):
        prepare(source)
    assert not (source / "out").exists()
