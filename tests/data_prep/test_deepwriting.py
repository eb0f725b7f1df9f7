"""Deepwriting's files to records: their normalisation undone, y turned upwards, splits, faults."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from data_prep import deepwriting
from data_prep.common import command
from data_prep.common.raw_files import FileFault
from data_prep.common.splitting import split_names
from stcn_tf.support.errors import UserError

# Powers of two, so that what is normalised is restored exactly. The pen's are not used.
TRAIN_STATISTICS = {
    "mean": np.array([0.5, -0.25, 0.125], np.float32),
    "std": np.array([2.0, 4.0, 0.5], np.float32),
}
VALID_STATISTICS = {
    "mean": np.array([1.0, 2.0, 0.25], np.float32),
    "std": np.array([0.5, 8.0, 0.5], np.float32),
}
# dx, dy downwards, pen.
TRAIN = [
    [[3, 2, 0], [0, -7, 1], [27, 5, 1]],
    [[1, 1, 0], [-3, -4, 0], [0.25, 0, 0], [8, -2, 1]],
    [[2, 6, 1]],
]
VALID = [[[5, 1, 0], [-1, 0, 1]], [[4, 4, 1], [2, -9, 1], [0, 0.5, 0], [1, 1, 1], [6, 0, 1]]]


def npz_of(path, samples, statistics, **changes):
    """Writes samples as their owners do."""
    strokes = np.empty(len(samples), object)
    for index, steps in enumerate(samples):
        steps = np.array(steps, np.float32)
        if steps.ndim == 2:
            steps[:, :2] = (steps[:, :2] - statistics["mean"][:2]) / statistics["std"][:2]
        strokes[index] = steps
    np.savez(path, **{"strokes": strokes, "texts": np.array(["a"])} | statistics | changes)
    return path


@pytest.fixture
def source(tmp_path):
    """Both files, each with statistics of its own."""
    folder = tmp_path / "raw"
    folder.mkdir()
    npz_of(folder / "deepwriting_training.npz", TRAIN, TRAIN_STATISTICS)
    npz_of(folder / "deepwriting_validation.npz", VALID, VALID_STATISTICS)
    return folder


def prepare(source, out="out", **options):
    options = {
        "normalization": "channel",
        "valid_share": 0.25,
        "test_share": 0.0,
        "skip_bad": False,
        "workers": 1,
    } | options
    out = source.parent / out
    deepwriting.prepare(source, out, **options)
    return out


# ------------------------------------------------------------------------------- parsing


def test_steps_are_restored_and_turned_upwards(source):
    samples = deepwriting.parse((source / "deepwriting_training.npz").read_bytes())
    assert samples.mean == [0.5, -0.25, 0.125] and samples.std == [2.0, 4.0, 0.5]
    assert len(samples.lines) == 3
    for line, steps in zip(samples.lines, TRAIN, strict=True):
        np.testing.assert_array_equal(line.offsets, np.array(steps) * (1, -1, 1))
        assert line.offsets.dtype == np.float32
    assert [line.one_point_strokes for line in samples.lines] == [1, 0, 0]


def test_samples_of_one_length_may_make_one_array(source):
    path = source / "deepwriting_training.npz"
    strokes = np.arange(24.0).reshape(4, 2, 3)
    strokes[:, :, 2] = [0, 1]
    apart = np.empty(4, object)
    apart[:] = list(strokes)
    lines = []
    for array in (strokes, apart):
        npz_of(path, [], TRAIN_STATISTICS, strokes=array)
        lines.append([line.offsets for line in deepwriting.parse(path.read_bytes()).lines])
    np.testing.assert_array_equal(lines[0], lines[1])
    # (dx * 2 + 0.5, -(dy * 4 - 0.25), pen)
    np.testing.assert_array_equal(lines[0][1], [[12.5, -27.75, 0], [18.5, -39.75, 1]])


@pytest.mark.parametrize(
    ("sample", "fault"),
    [
        ([[1, 2, 0], [0, math.nan, 0]], "step 1 has dx, dy = -0.25, nan"),
        ([[1, 2, 0.5]], "step 0 has the pen 0.5; accepted: 0, 1"),
        (np.zeros((0, 3)), "has no steps"),
        (np.zeros((4, 2)), "has float32 of shape [4, 2]; accepted: numbers, [T, 3]"),
        (1.0, "has float32 of shape []; accepted: numbers, [T, 3]"),
        # Not too large before the normalisation is undone.
        ([[1.5e9, 0, 0]], "step 0 has dx, dy = 1.5e+09, 0"),
    ],
)
def test_a_fault_of_one_sample_is_no_fault_of_the_file(tmp_path, sample, fault):
    path = npz_of(tmp_path / "x.npz", [TRAIN[0], sample, TRAIN[2]], TRAIN_STATISTICS)
    first, bad, last = deepwriting.parse(path.read_bytes()).lines
    assert bad == fault
    np.testing.assert_array_equal(first.offsets, np.array(TRAIN[0]) * (1, -1, 1))
    np.testing.assert_array_equal(last.offsets, np.array(TRAIN[2]) * (1, -1, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": np.zeros(2)}, "mean is not 3 finite numbers (dx, dy, pen)"),
        ({"mean": np.array([0, np.inf, 0])}, "mean is not 3 finite numbers (dx, dy, pen)"),
        ({"std": np.ones(3, int)}, "std is not 3 finite numbers (dx, dy, pen)"),
        ({"std": np.array(["1", "1", "1"])}, "std is not 3 finite numbers (dx, dy, pen)"),
        ({"std": np.array([1.0, 0.0, 1.0])}, "std is [1.0, 0.0, 1.0]; accepted: positive numbers"),
        ({"strokes": np.zeros((5, 3))}, "strokes has the shape [5, 3]; accepted: (T, 3) arrays"),
        ({"strokes": np.zeros((0, 7, 3))}, "strokes is empty"),
        ({"strokes": np.empty(0, object)}, "strokes is empty"),
    ],
)
def test_faults_of_a_file(tmp_path, changes, message):
    path = npz_of(tmp_path / "x.npz", TRAIN, TRAIN_STATISTICS, **changes)
    with pytest.raises(FileFault) as error:
        deepwriting.parse(path.read_bytes())
    assert str(error.value) == message


def test_arrays_that_are_missing_are_named(tmp_path):
    np.savez(tmp_path / "x.npz", strokes=np.zeros((5, 2, 3)), std=np.ones(3))
    with pytest.raises(FileFault, match="^has no array 'mean', only strokes, std$"):
        deepwriting.parse((tmp_path / "x.npz").read_bytes())


# --------------------------------------------------------------------------- the whole command


def test_records_hold_raw_steps_and_the_card_the_original_statistics(source, read_back, capsys):
    from stcn_tf.data.card import Modality, read_card

    out = prepare(source)
    for split, name, samples in (("train", "training", TRAIN), ("valid", "validation", VALID)):
        lines = read_back(out, split)
        assert list(lines) == [f"deepwriting_{name}-{n:05d}" for n in range(len(samples))]
        for line, steps in zip(lines.values(), samples, strict=True):
            np.testing.assert_allclose(line, np.array(steps) * (1, -1, 1), atol=2e-6)
            np.testing.assert_array_equal(line[:, 2], np.array(steps)[:, 2])

    card = read_card(out)
    assert card.name == "deepwriting"
    assert card.modality == Modality("handwriting")
    assert {feature.unit for feature in card.features[:2]} == {"deepwriting unit"}
    # Of train, restored: dx 3 0 27 | 1 -3 0.25 8 | 2, dy (upwards) -2 7 -5 | -1 4 0 2 | -6.
    dx_mean, dy_mean = 38.25 / 8, -1 / 8
    assert card.normalization.kind == "channel"
    assert card.normalization.mean == pytest.approx((dx_mean, dy_mean, 0), rel=1e-14)
    std = (np.sqrt(816.0625 / 8 - dx_mean**2), np.sqrt(135 / 8 - dy_mean**2), 1)
    assert card.normalization.std == pytest.approx(std, rel=1e-14)
    assert card.extra["split"] == "distributed"
    assert card.extra["original_statistics"] == {
        "deepwriting_training.npz": {
            "features": ["dx", "dy (downwards)", "pen"],
            "mean": [0.5, -0.25, 0.125],
            "std": [2.0, 4.0, 0.5],
        },
        "deepwriting_validation.npz": {
            "features": ["dx", "dy (downwards)", "pen"],
            "mean": [1.0, 2.0, 0.25],
            "std": [0.5, 8.0, 0.5],
        },
    }
    assert card.command == (
        "python -m data_prep.deepwriting --source=DIR --out=DIR --normalization=channel"
    )
    printed = capsys.readouterr().out
    assert "train: 3 lines, 8 steps, T 1..4, pen rate 0.5000, one-point strokes 1\n" in printed
    assert "valid: 2 lines, 7 steps, T 2..5, pen rate 0.7143, one-point strokes 2\n" in printed
    assert printed.endswith(
        "check: valid does not have the 705 sequences and 183789 steps of the complete data set\n"
        f"wrote {out} (channel normalisation)\n"
    )


def test_scalar_normalization(source, read_back):
    from stcn_tf.data.card import read_card

    out = prepare(source, normalization="vrnn")
    normalization = read_card(out).normalization
    mean = (38.25 - 1) / 8
    std = np.sqrt((816.0625 + 135) / 8 - mean**2)
    assert normalization.mean == pytest.approx((mean, mean, 0), rel=1e-14)
    assert normalization.std == pytest.approx((std, std, 1), rel=1e-14)
    line = read_back(out, "valid")["deepwriting_validation-00001"]
    np.testing.assert_allclose(line, np.array(VALID[1]) * (1, -1, 1), atol=2e-6)


def test_one_file_is_split_by_shares(source, read_back):
    from stcn_tf.data.card import read_card

    path = npz_of(source / "mine.npz", [[[n + 1, n**2, 1]] for n in range(20)], TRAIN_STATISTICS)
    out = source.parent / "out"
    options = {"normalization": "channel", "skip_bad": False, "workers": 1}
    deepwriting.prepare(path, out, valid_share=0.2, test_share=0.1, **options)
    names = [f"mine-{number:05d}" for number in range(20)]
    parts = split_names(names, "random", 0.2, 0.1)
    assert {name: len(members) for name, members in parts.items()} == {
        "train": 14,
        "valid": 4,
        "test": 2,
    }
    for split, members in parts.items():
        lines = read_back(out, split)
        assert list(lines) == members
        for name, line in lines.items():
            number = names.index(name)
            np.testing.assert_allclose(line, [[number + 1, -(number**2), 1]], rtol=1e-5, atol=1e-4)
    card = read_card(out)
    assert card.extra["split"] == "random"
    assert list(card.extra["original_statistics"]) == ["mine.npz"]
    assert card.command == (
        "python -m data_prep.deepwriting --source=FILE --out=DIR --normalization=channel "
        "--valid_share=0.2 --test_share=0.1"
    )


def test_what_is_left_out_moves_no_other_sample(source, read_back):
    samples = [[[n + 1, n**2, 1]] for n in range(20)]
    path = npz_of(source / "mine.npz", samples, TRAIN_STATISTICS)
    options = {"normalization": "channel", "valid_share": 0.3, "test_share": 0.0, "workers": 1}
    for out, skip_bad in (("all", False), ("some", True)):
        if skip_bad:
            samples[3] = samples[11] = [[1, 1, 7]]
            npz_of(path, samples, TRAIN_STATISTICS)
        deepwriting.prepare(path, source.parent / out, skip_bad=skip_bad, **options)
    bad = {"mine-00003", "mine-00011"}
    for split in ("train", "valid"):
        everything, some = (list(read_back(source.parent / o, split)) for o in ("all", "some"))
        assert some == [name for name in everything if name not in bad]


def test_bad_samples_are_named_or_left_out(source, read_back):
    from stcn_tf.data.card import read_card

    bad = [TRAIN[0], [[1, 1, 2]], TRAIN[1], np.zeros((0, 3))]
    npz_of(source / "deepwriting_training.npz", bad, TRAIN_STATISTICS)
    with pytest.raises(UserError) as error:
        prepare(source)
    assert str(error.value) == (
        f"2 bad entries in {source}: deepwriting_training.npz, sample 1: step 0 has the pen 2; "
        "accepted: 0, 1; deepwriting_training.npz, sample 3: has no steps (mend, or pass "
        "--skip_bad to leave out)"
    )
    assert os.listdir(source.parent) == ["raw"]
    out = prepare(source, skip_bad=True)
    assert list(read_back(out, "train")) == [
        "deepwriting_training-00000",
        "deepwriting_training-00002",
    ]
    card = read_card(out)
    assert card.extra["skipped"] == {
        "deepwriting_training.npz, sample 1": "step 0 has the pen 2; accepted: 0, 1",
        "deepwriting_training.npz, sample 3": "has no steps",
    }
    assert card.command.endswith("--normalization=channel --skip_bad")


def test_bad_files_and_missing_ones_are_named(source):
    training = source / "deepwriting_training.npz"
    training.write_bytes(b"no archive")
    with pytest.raises(UserError, match=f"^{training}: not a readable .npz file "):
        prepare(source)
    training.unlink()
    with pytest.raises(UserError) as error:
        prepare(source)
    assert str(error.value) == (
        f"--source: {source} has no deepwriting_training.npz; accepted: a folder with both files, "
        "or one .npz file, of which a share is held out"
    )
    (source / "deepwriting_validation.npz").unlink()
    with pytest.raises(UserError, match="has no deepwriting_training.npz and no deepwriting_valid"):
        prepare(source)
    with pytest.raises(UserError, match=f"^--source: {source}/none does not exist$"):
        prepare(source / "none")
    assert os.listdir(source.parent) == ["raw"]


def test_either_version_of_the_files_is_found(source):
    files = {name: source / f"deepwriting_v2_{name}.npz" for name in ("training", "validation")}
    for name, path in files.items():
        (source / f"deepwriting_{name}.npz").rename(path)
    assert deepwriting.find_sources(source) == {
        "train": files["training"],
        "valid": files["validation"],
    }
    npz_of(source / "deepwriting_training.npz", TRAIN, TRAIN_STATISTICS)
    with pytest.raises(UserError) as error:
        prepare(source)
    assert str(error.value) == (
        f"--source: {source} has more than one version: deepwriting_training.npz, "
        "deepwriting_v2_training.npz"
    )


def test_same_bytes_again_elsewhere_and_with_any_number_of_workers(source, files_of):
    first = files_of(prepare(source))
    moved = source.rename(source.parent / "elsewhere")
    assert files_of(prepare(moved, "again", workers=2)) == first
    assert str(source.parent) not in json.dumps(first["dataset.json"].decode())


@pytest.mark.data
def test_check_values_of_the_validation_data(tmp_path, read_back):
    if not os.environ.get("STCN_DATA"):
        pytest.skip("STCN_DATA is not set")
    from stcn_tf.data.card import read_card

    path = Path(os.environ["STCN_DATA"], "deepwriting", "deepwriting_validation.npz")
    with np.load(path, allow_pickle=True) as file:  # another reader; this file is trusted
        strokes, mean, std = file["strokes"], file["mean"], file["std"]
    samples = deepwriting.parse(path.read_bytes())
    assert (samples.mean, samples.std) == (mean.tolist(), std.tolist())
    assert len(samples.lines) == len(strokes) == 705
    lengths = [len(line.offsets) for line in samples.lines]
    assert (min(lengths), max(lengths)) == (32, 416)
    assert (len(lengths), sum(lengths)) == deepwriting.VALIDATION_SIZE
    expected = {}
    for number, (line, steps) in enumerate(zip(samples.lines, strokes, strict=True)):
        dx, dy, pen = steps.astype(np.float64).T
        dx, dy = dx * std[0].astype(float) + mean[0], dy * std[1].astype(float) + mean[1]
        raw = np.stack([dx, -dy, pen], axis=1).astype(np.float32)
        np.testing.assert_array_equal(line.offsets, raw)
        expected[f"deepwriting_validation-{number:05d}"] = raw

    deepwriting.prepare(
        path,
        tmp_path / "out",
        normalization="channel",
        valid_share=0.2,
        test_share=0.1,
        skip_bad=False,
        workers=1,
    )
    card = read_card(tmp_path / "out")
    sizes = {name: split.num_sequences for name, split in card.splits.items()}
    assert sizes == {"train": 493, "valid": 141, "test": 71}
    for split in card.splits:
        for name, line in read_back(tmp_path / "out", split).items():
            np.testing.assert_allclose(line, expected.pop(name), rtol=1e-5, atol=1e-5)
    assert not expected


def test_shares_of_a_folder_are_refused(source, parse_flags, tmp_path):
    words = [f"--source={source}", f"--out={tmp_path / 'out'}", "--valid_share=0.3"]
    parse_flags(deepwriting.prepare.define_flags, *words)
    with pytest.raises(UserError) as error:
        command.call(deepwriting.prepare)
    assert str(error.value) == (
        "--valid_share means nothing with a folder, whose files are the splits"
    )
    assert not (tmp_path / "out").exists()
