"""Raw lineStrokes files to records: exact features, statistics, and every fault by its message."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep import iamondb
from data_prep.common import raw_files
from data_prep.common.raw_files import FileFault, parse_file
from data_prep.iamondb import parse_line
from stcn_tf.support.errors import UserError

HEADER = '<?xml version="1.0" encoding="ISO-8859-1"?>\n'


def xml_of(*strokes):
    """XML of strokes, each a list of (x, y)."""
    body = "".join(
        "<Stroke>"
        + "".join(f'<Point x="{x}" y="{y}" time="1.0"/>' for x, y in stroke)
        + "</Stroke>"
        for stroke in strokes
    )
    name = "WhiteboardCaptureSession"
    return f"{HEADER}<{name}><StrokeSet>{body}</StrokeSet></{name}>"


def put(root, line_id, text):
    """Writes one file where IAM-OnDB has it: a01-000u-02 -> a01/a01-000/a01-000u-02.xml."""
    form = line_id.rsplit("-", 1)[0]
    folder = root / form.split("-")[0] / form.rstrip("abcdefghijklmnopqrstuvwxyz")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{line_id}.xml").write_text(text, encoding="latin-1")


TRAIN_LINES = {
    "a01-000u-01": xml_of([(10, 20), (13, 18), (13, 25)], [(40, 20)], [(41, 19), (38, 23)]),
    "a01-000u-02": xml_of([(5, 5), (9, 4)]),
    "b07-113-01": xml_of([(0, 0), (2, -6), (3, -3), (10, 0)]),
}
VALID_LINES = {"c02-035z-01": xml_of([(1, 1), (2, 3), (4, 9)])}


@pytest.fixture
def source(tmp_path):
    """Four good files in three forms, one file in no list, and split lists."""
    root = tmp_path / "raw" / "data" / "lineStrokes"
    for line_id, text in (TRAIN_LINES | VALID_LINES).items():
        put(root, line_id, text)
    put(root, "z01-000-01", xml_of([(0, 0), (1, 1)]))
    (root / ".DS_Store").write_bytes(b"not ours")
    lists = tmp_path / "lists"
    lists.mkdir()
    # Leading spaces as in the original lists.
    (lists / "train.txt").write_text("# comment\n b07-113\n\n a01-000u\n")
    (lists / "valid.txt").write_text("c02-035z\n")
    return tmp_path


def root_of(source):
    return source / "raw" / "data" / "lineStrokes"


def prepare(source, out="out", **options):
    options = {
        "split": str(source / "lists"),
        "normalization": "vrnn",
        "skip_bad": False,
        "workers": 1,
    } | options
    iamondb.prepare(source / "raw", source / out, **options)
    return source / out


# ---------------------------------------------------------------------------------- parsing


def test_offsets_by_hand():
    line = parse_line(TRAIN_LINES["a01-000u-01"].encode())
    # Points (10,20) (13,18) (13,25)| (40,20)| (41,19) (38,23)|; y turned upwards.
    expected = [[3, 2, 0], [0, -7, 1], [27, 5, 1], [1, 1, 0], [-3, -4, 1]]
    np.testing.assert_array_equal(line.offsets, np.array(expected, np.float32))
    assert line.offsets.dtype == np.float32
    assert line.one_point_strokes == 1


def test_a_dropped_first_point_takes_its_pen_bit_along():
    line = parse_line(xml_of([(7, 7)], [(9, 4), (9, 6)]).encode())
    np.testing.assert_array_equal(line.offsets, [[2, 3, 0], [0, -2, 1]])
    assert line.one_point_strokes == 1


def test_fractions_keep_float64_differences():
    line = parse_line(xml_of([(1e6 + 0.25, 0), (1e6 + 0.5, 0.5)]).encode())
    np.testing.assert_array_equal(line.offsets, [[0.25, -0.5, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "malformed XML: no element found"),
        (HEADER + "<a><b></a>", "malformed XML: mismatched tag"),
        (xml_of([(1, 1), (2, 2)])[:-9], "malformed XML"),
        ('<?xml version="1.0" encoding="no-such-code"?><a/>', "malformed XML"),
        (HEADER + "<WhiteboardCaptureSession/>", "has no strokes"),
        (xml_of([(1, 1), (2, 2)], []), "stroke 2 is empty"),
        (xml_of([(1, 1)]), "has 1 point, at least 2"),
        (xml_of([(1, 1), (2, 2)], [(3, 3), ("4,5", 4)]), "stroke 2, point 2 has x='4,5'"),
        (xml_of([(1, 1), (2, "nan")]), "stroke 1, point 2 has y='nan'"),
        (xml_of([(1, 1), ("inf", 2)]), "stroke 1, point 2 has x='inf'"),
        (xml_of([(1, "-1e300"), (1, 1)]), "stroke 1, point 1 has y='-1e300'"),
        (xml_of([(1, 1), (2, 2)]).replace(' y="2"', ""), "stroke 1, point 2 has no y"),
        (xml_of([(1, 1), (2, 2)]).replace(' x="1"', ""), "stroke 1, point 1 has no x"),
        ('<a><Point x="1" y="1"/></a>', "a Point outside any Stroke"),
        ('<a><Stroke><Point x="1" y="1"/><Stroke/></Stroke></a>', "stroke 1 contains another"),
    ],
)
def test_faults_of_a_file(text, message):
    with pytest.raises(FileFault) as error:
        parse_line(text.encode())
    assert message in str(error.value)


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 30))


@pytest.mark.parametrize(
    "doctype",
    [
        f'<!DOCTYPE bomb [<!ENTITY l0 "ha">{LAUGHS}]>',
        f'<!DOCTYPE bomb [<!ENTITY l29 "{"ha" * 100_000}">]>',
        '<!DOCTYPE bomb [<!ENTITY l29 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE bomb SYSTEM "http://localhost:1/none.dtd">',
    ],
    ids=["laughs", "blowup", "external entity", "external dtd"],
)
def test_expansion_attacks_are_refused(doctype):
    body = xml_of([(1, 1), (2, 2)]).removeprefix(HEADER)
    body = body.replace("</StrokeSet>", f"<Note>{'&l29;' * 1000}</Note></StrokeSet>")
    start = time.perf_counter()
    with pytest.raises(FileFault, match="document type or entities, which is refused"):
        parse_line((HEADER + doctype + body).encode())
    assert time.perf_counter() - start < 5.0


def test_parse_file_tells_what_it_cannot_read(tmp_path):
    assert "cannot be read: No such file" in parse_file(tmp_path / "none.xml", parse_line).fault
    path = tmp_path / "one.xml"
    path.write_text(xml_of([(1, 1)]))
    result = parse_file(path, parse_line)
    assert result.content is None
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------ split lists


def test_bundled_lists():
    vrnn, official = iamondb.read_splits("vrnn"), iamondb.read_splits("official")
    assert {name: len(forms) for name, forms in vrnn.items()} == {"train": 1535, "valid": 192}
    assert {name: len(forms) for name, forms in official.items()} == {
        "train": 775,
        "valid": 192,
        "test_t": 216,
        "test_f": 544,
    }
    assert vrnn["train"] == sorted(official["train"] + official["test_t"] + official["test_f"])
    assert vrnn["valid"] == official["valid"]
    assert "a01-020x" in official["train"] and "a01-000u" in official["test_t"]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"valid": "a01-000u"}, "has no train.txt"),
        ({"train": "a01-000u\nhello world"}, "train.txt, line 2: 'hello world' is no form id"),
        ({"train": "../../a01-000u"}, "is no form id"),
        ({"train": "a01-000u\n a01-000u "}, "train.txt, line 2: 'a01-000u' is listed twice"),
        ({"train": "# nothing\n"}, "lists nothing"),
        ({"train": "a01-000u", "valid": "a01-000u"}, "'a01-000u' is in "),
        ({"train": "a01-000u", "test-f": "a01-001u"}, "no split can have the name 'test-f'"),
    ],
)
def test_faults_of_split_lists(tmp_path, lists, message):
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(UserError) as error:
        iamondb.read_splits(str(tmp_path))
    assert message in str(error.value)


def test_unknown_split_names_what_is_accepted():
    with pytest.raises(UserError, match="--split=graves: neither vrnn nor official, nor a folder"):
        iamondb.read_splits("graves")


# -------------------------------------------------------------------------- the whole command


def test_source_may_be_any_of_three_folders(tmp_path):
    root = tmp_path / "raw" / "data" / "lineStrokes"
    put(root, "a01-000u-01", xml_of([(1, 1), (2, 2)]))
    for folder in (root, root.parent, root.parent.parent):
        assert iamondb.find_line_strokes(folder) == root
    renamed = root.rename(tmp_path / "renamed")
    assert iamondb.find_line_strokes(renamed) == renamed
    for folder, message in (
        (tmp_path, "has neither lineStrokes"),
        (tmp_path / "none", "does not exist"),
        (renamed / "a01" / "a01-000" / "a01-000u-01.xml", "is a file"),
    ):
        with pytest.raises(UserError, match=message):
            iamondb.find_line_strokes(folder)


def test_records_hold_the_offsets_in_sorted_order(source, capsys, read_back, groups_of):
    from stcn_tf.data.card import read_card

    out = prepare(source)
    train = read_back(out, "train")
    assert list(train) == ["a01-000u-01", "a01-000u-02", "b07-113-01"]
    assert groups_of(out, "train") == {line: line[:-3] for line in train}
    for line_id, text in TRAIN_LINES.items():
        expected = parse_line(text.encode()).offsets
        np.testing.assert_allclose(train[line_id], expected, atol=2e-6)
        np.testing.assert_array_equal(train[line_id][:, 2], expected[:, 2])

    card = read_card(out)
    assert [(f.name, f.kind) for f in card.features] == [
        ("dx", "real"),
        ("dy", "real"),
        ("pen", "binary"),
    ]
    # Train offsets: dx 3 0 27 1 -3 | 4 | 2 1 7, dy 2 -7 5 1 -4 | 1 | 6 -3 -3; 9 steps.
    assert card.splits["train"].num_steps == 9
    mean = (42 - 2) / 9
    std = np.sqrt((818 + 150) / 9 - mean**2)
    assert card.normalization.kind == "vrnn"
    assert card.normalization.mean == pytest.approx((mean, mean, 0), rel=1e-14)
    assert card.normalization.std == pytest.approx((std, std, 1), rel=1e-14)
    assert card.extra["pen_rate"] == {"train": 5 / 9, "valid": 1 / 2}
    assert card.extra["one_point_strokes"] == {"train": 1, "valid": 0}
    assert card.extra["train_statistics"]["dx"]["mean"] == pytest.approx(42 / 9, rel=1e-14)
    assert card.extra["skipped"] == {}
    assert card.extra["files_in_no_list"] == ["z01/z01-000/z01-000-01.xml"]
    assert card.command == (
        "python -m data_prep.iamondb --source=DIR --out=DIR --split=DIR --normalization=vrnn"
    )

    printed = capsys.readouterr().out
    assert "train: 3 lines, 9 steps, T 1..5, pen rate 0.5556, one-point strokes 1" in printed
    assert "skipped 0 entries" in printed and "1 files are in no list" in printed
    assert printed.endswith(f"\nwrote {out} (vrnn normalisation)\n")


def test_channel_normalization(source, read_back):
    from stcn_tf.data.card import read_card

    out = prepare(source, normalization="channel")
    normalizer = read_card(out).normalization
    assert normalizer.kind == "channel"
    assert normalizer.mean == pytest.approx((42 / 9, -2 / 9, 0), rel=1e-14)
    std = (np.sqrt(818 / 9 - (42 / 9) ** 2), np.sqrt(150 / 9 - (2 / 9) ** 2), 1)
    assert normalizer.std == pytest.approx(std, rel=1e-14)
    valid = read_back(out, "valid")["c02-035z-01"]
    np.testing.assert_allclose(valid, [[1, -2, 0], [2, -6, 1]], atol=1e-6)


def test_source_digest_is_over_paths_and_contents(source):
    from stcn_tf.data.card import read_card

    paths = {
        "a01/a01-000/a01-000u-01.xml": TRAIN_LINES["a01-000u-01"],
        "a01/a01-000/a01-000u-02.xml": TRAIN_LINES["a01-000u-02"],
        "b07/b07-113/b07-113-01.xml": TRAIN_LINES["b07-113-01"],
        "c02/c02-035/c02-035z-01.xml": VALID_LINES["c02-035z-01"],
    }
    text = "".join(f"{p} {hashlib.sha256(t.encode()).hexdigest()}\n" for p, t in paths.items())
    assert read_card(prepare(source)).source_sha256 == hashlib.sha256(text.encode()).hexdigest()


def break_things(source):
    """Two bad files and a listed form without files; the good lines stay."""
    put(root_of(source), "b07-113-02", xml_of([(1, 1)]))
    put(root_of(source), "c02-035z-02", "<StrokeSet/>")
    with open(source / "lists" / "valid.txt", "a") as file:
        file.write("d04-081\n")


def test_bad_files_are_named_with_their_reasons(source):
    break_things(source)
    with pytest.raises(UserError) as error:
        prepare(source)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("3 bad entries in ")
    assert "d04-081: is listed in valid but has no files" in message
    assert "b07/b07-113/b07-113-02.xml: has 1 point" in message
    assert "c02/c02-035/c02-035z-02.xml: has no strokes" in message
    assert "--skip_bad" in message
    assert not (source / "out").exists()


def test_at_most_five_faults_are_shown(source):
    for number in range(11, 18):
        put(root_of(source), f"a01-000u-{number}", "?")
    with pytest.raises(UserError, match="7 bad entries in .*a01-000u-15.xml: .*; and 2 more") as e:
        prepare(source)
    assert "a01-000u-16" not in str(e.value)


def test_skip_bad_leaves_out_and_counts(source, capsys):
    from stcn_tf.data.card import read_card

    good = prepare(source, "good")
    break_things(source)
    out = prepare(source, skip_bad=True)
    card = read_card(out)
    assert card.extra["skipped"] == {
        "b07/b07-113/b07-113-02.xml": "has 1 point, at least 2 are needed",
        "c02/c02-035/c02-035z-02.xml": "has no strokes",
        "d04-081": "is listed in valid but has no files",
    }
    assert card.command.endswith("--normalization=vrnn --skip_bad")
    # The files that were used are the same ones.
    assert card.source_sha256 == read_card(good).source_sha256
    assert card.splits == read_card(good).splits
    printed = capsys.readouterr().out
    assert "skipped d04-081: is listed in valid but has no files" in printed
    assert "skipped 3 entries" in printed


def test_a_split_must_keep_a_line(source):
    put(root_of(source), "c02-035z-01", "?")
    with pytest.raises(UserError, match="no line is left for the split 'valid'"):
        prepare(source, skip_bad=True)


def test_a_misplaced_file_belongs_to_no_form(source):
    path = root_of(source) / "a01" / "a01-000" / "a01-000u-02.xml"
    path.rename(root_of(source) / "b07" / "a01-000u-02.xml")
    forms = iamondb.index_files(root_of(source))
    assert forms["b07/a01-000u-02.xml"] == ""
    assert forms["a01/a01-000/a01-000u-01.xml"] == "a01-000u"
    assert forms["b07/b07-113/b07-113-01.xml"] == "b07-113"


def test_same_bytes_again_elsewhere_and_with_any_number_of_workers(source, files_of):
    rng = np.random.default_rng(3)
    for number in range(3, 80):
        points = np.cumsum(rng.integers(-40, 60, (number, 2)), axis=0)
        put(root_of(source), f"a01-000u-{number:02d}", xml_of(points.tolist()))
    first = files_of(prepare(source, "first"))
    (source / "raw").rename(source / "elsewhere")
    for workers in (1, 2, 3):
        out = source / f"again{workers}"
        iamondb.prepare(
            source / "elsewhere" / "data" / "lineStrokes",
            out,
            split=str(source / "lists"),
            normalization="vrnn",
            skip_bad=False,
            workers=workers,
        )
        assert files_of(out) == first
    assert str(source) not in json.dumps({name: str(data) for name, data in first.items()})


@pytest.mark.parametrize("moment", ["parsing", "writing"])
def test_interrupted_preparation_leaves_nothing(source, monkeypatch, moment, files_of):
    from stcn_tf.data.card import Normalization

    kept = files_of(prepare(source, "kept"))
    calls = 0

    def interrupt(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls < 3:
            return original(*arguments, **options)
        raise KeyboardInterrupt

    if moment == "parsing":
        original = parse_file
        monkeypatch.setattr(raw_files, "parse_file", interrupt)
    else:
        original = Normalization.normalize
        monkeypatch.setattr(Normalization, "normalize", interrupt)
    before = sorted(os.listdir(source))
    for out in ("kept", "new"):
        calls = 0
        with pytest.raises(KeyboardInterrupt):
            prepare(source, out)
    assert sorted(os.listdir(source)) == before
    assert files_of(source / "kept") == kept


def test_what_is_no_dataset_is_refused_before_parsing(source, monkeypatch, files_of):
    kept = prepare(source, "kept")
    (kept / "thesis.tex").write_text("precious")
    (source / "file").write_text("precious")
    before = files_of(kept)
    monkeypatch.setattr(iamondb.raw_files, "read_files", None)
    for out, message in (
        ("lists", "lists: holds 'train.txt', which is no part of a dataset"),
        ("kept", "kept: holds 'thesis.tex', which is no part of a dataset"),
        ("file", "file: is a file; a new, an empty or a dataset folder is needed"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(source, out)
    assert (source / "lists" / "train.txt").is_file()
    assert (source / "file").read_text() == "precious"
    assert files_of(kept) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=o"], "--source"),
        (["--source=.", "--out=o", "--normalization=zscore"], "normalization"),
        (["--source=.", "--out=o", "--workers=0"], "workers"),
        (["--source=.", "--out=o", "--speed=2"], "speed"),
        (["--source=.", "--out=o"], "has neither lineStrokes"),
    ],
)
def test_wrong_flags_exit_2_with_one_line(tmp_path, arguments, message):
    result = subprocess.run(
        [sys.executable, "-m", "data_prep.iamondb", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(iamondb.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and message in line
    assert os.listdir(tmp_path) == []


def test_parsing_processes_need_no_tensorflow():
    code = "import sys, data_prep.iamondb; sys.exit('tensorflow' in sys.modules)"
    root = Path(iamondb.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


@pytest.mark.data
def test_check_values_of_the_complete_data(tmp_path, capsys):
    if not os.environ.get("STCN_DATA"):
        pytest.skip("STCN_DATA is not set")
    from stcn_tf.data.batches import train_batches
    from stcn_tf.data.card import read_card

    with tarfile.open(Path(os.environ["STCN_DATA"], "iamondb", "lineStrokes.tar.xz")) as archive:
        archive.extractall(tmp_path / "raw", filter="data")
    out = prepare(tmp_path, split="vrnn", workers=2)
    assert capsys.readouterr().out.endswith(
        "check: train has the 10741 sequences and 6750028 steps of the complete data set\n"
        "check: valid has the 1438 sequences and 884526 steps of the complete data set\n"
        f"wrote {out} (vrnn normalisation)\n"
    )
    card = read_card(out)
    train, valid = card.splits["train"], card.splits["valid"]
    assert (train.num_sequences, train.num_steps) == (10_741, 6_750_028)
    assert (valid.num_sequences, valid.num_steps) == (1_438, 884_526)
    assert (train.length_quantiles["0"], train.length_quantiles["1"]) == (30, 1939)
    assert (valid.length_quantiles["0"], valid.length_quantiles["1"]) == (36, 1585)
    assert card.normalization.mean == pytest.approx((8.067, 8.067, 0), abs=5e-4)
    assert card.normalization.std == pytest.approx((56.037, 56.037, 1), abs=5e-4)
    statistics = card.extra["train_statistics"]
    assert statistics["dx"] == pytest.approx({"mean": 8.1787, "std": 41.954}, abs=5e-4)
    assert statistics["dy"] == pytest.approx({"mean": -0.1116, "std": 37.124}, abs=5e-4)
    assert card.extra["pen_rate"]["train"] == pytest.approx(0.0400, abs=5e-5)
    assert card.extra["one_point_strokes"]["train"] == 3360
    assert card.extra["num_files_in_no_list"] == 16
    assert card.extra["skipped"] == {}

    # Every file is good (above), so that the lines of a form are its files.
    forms = list(iamondb.index_files(iamondb.find_line_strokes(tmp_path / "raw")).values())
    official = iamondb.read_splits("official")
    assert {name: sum(map(set(ids).__contains__, forms)) for name, ids in official.items()} == {
        "train": 5_364,
        "valid": 1_438,
        "test_t": 1_518,
        "test_f": 3_859,
    }

    # Little of what training computes on is padding.
    num_steps = num_cells = 0
    batches = train_batches(out, batch_size=20, seed=0)
    for batch in batches.take(train.num_sequences // 20):
        num_steps += int(batch.lengths.numpy().sum())
        num_cells += batch.x.shape[0] * batch.x.shape[1]
    assert 0.93 * train.num_steps < num_steps <= train.num_steps
    assert num_steps / num_cells > 0.95
