"""One's own handwriting from files of all kinds: exact steps, splits, scale, and every fault."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_prep import ink
from data_prep.common.ink_arrays import Options
from data_prep.common.raw_files import FileFault
from stcn_tf.support.errors import UserError

# Strokes of points; y downwards.
STROKES = [[[10, 20], [13, 18], [13, 25]], [[40.5, 20]], [[41, 19], [38, 23]]]
STEPS = np.array([[3, 2, 0], [0, -7, 1], [27.5, 5, 1], [0.5, 1, 0], [-3, -4, 1]], np.float32)


def json_of(strokes, **more):
    return json.dumps({"strokes": strokes} | more).encode()


def inkml_of(*traces, before=""):
    """Each trace as text, or as attributes and text."""
    body = ""
    for trace in traces:
        attributes, text = trace if isinstance(trace, tuple) else ("", trace)
        body += f"<trace {attributes}>{text}</trace>\n"
    return f'<ink xmlns="http://www.w3.org/2003/InkML">{before}{body}</ink>'.encode()


def parse(data, ending="", **options):
    """The only sequence of a file."""
    (line,) = ink.parse(data, Options(**options), ending).values()
    return line


TRACES = ["10 20, 13 18, 13 25", "40.5 20", "41 19, 38 23"]
assert_steps = np.testing.assert_array_equal

# --------------------------------------------------------------------------------- cases

CASES = Path(__file__).parent / "cases" / "ink"
VEE = [[0, 0], [10, 40], [20, 0]]
WAVE = [*VEE, [30, 40]]
BAR = [[50, 5], [60, 5], [70, 5]]
# y downwards; a text: the fault.
EXPECTED = {
    "inkml_continuation/a.inkml": [[*WAVE, [40, 0], [50, 40]]],
    "inkml_empty_file/a.inkml": "is empty",
    "inkml_no_commas/a.inkml": "stroke 1, point 1 has 8 values, more than the 2 channels (commas "
    "separate points)",
    "inkml_office_differences/a.inkml": [
        [[100, 200], [110, 220], [122, 236], [137, 247], [151, 258]],
        [[300, 400], [293, 397]],
    ],
    "inkml_two_contexts/a.inkml": [VEE[:2], [[50, 5], [60, 45]]],
    "inkml_utf16/a.inkml": [VEE[:2]],
    "inkml_y_orientation/a.inkml": [[[0, 0], [10, -40], [20, 0]]],
    "folder_mixed/c.xml": [VEE],
    "json_columns/a.json": [WAVE, BAR],
    "json_columns_time/a.json": [WAVE, BAR],
    "json_xy_objects/a.json": [VEE[:2], [[20, 0], [30, 40]]],
    "npy_strokes/strokes.npy": "does not say which way y grows; tell by --y_axis=up or "
    "--y_axis=down",
    "npz_y_down/a.npz": [[[0, 0], [0, 0], [0, 40], [20, 40]]],
    "npz_equal_lengths/numbers.npz": [[[0, 0], [0, 0], [0, 40], [20, 40]]],
    "npz_equal_lengths/objects.npz": [[[0, 0], [0, 0], [0, 40], [20, 40]]],
    "quickdraw_ndjson/a.ndjson": [VEE, BAR[:2]],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_cases(name):
    path, expected = CASES / name, EXPECTED[name]
    if isinstance(expected, str):
        with pytest.raises(FileFault) as error:
            ink.parse(path.read_bytes(), ending=path.suffix)
        assert str(error.value) == expected
        return
    lines = ink.parse(path.read_bytes(), ending=path.suffix)
    assert len(lines) == {"npz_y_down": 7, "npz_equal_lengths": 6, "quickdraw_ndjson": 4}.get(
        path.parent.name, 1
    )
    offsets = next(iter(lines.values())).offsets
    points = np.concatenate(expected)
    assert_steps(offsets[:, :2], np.diff(points, axis=0) * (1, -1))
    assert_steps(np.flatnonzero(offsets[:, 2]) + 2, np.cumsum([len(s) for s in expected]))


def test_graves_strokes_are_read_with_the_axis():
    data = (CASES / "npy_strokes" / "strokes.npy").read_bytes()
    lines = ink.parse(data, Options(y_axis="up"), ".npy")
    assert list(lines) == ["000000", "000001"]
    assert_steps(lines["000000"].offsets, [[0, 0, 1], [1, 2, 0], [3, 4, 0], [5, -6, 1]])


# ---------------------------------------------------------------------------------- JSON


def test_json_by_hand():
    for line in (parse(json_of(STROKES)), parse(json_of(STROKES, y_axis="down"))):
        assert_steps(line.offsets, STEPS)
        assert line.offsets.dtype == np.float32
        assert line.one_point_strokes == 1
    assert_steps(parse(json_of(STROKES, y_axis="up")).offsets, STEPS * (1, -1, 1))


def test_what_else_json_holds_is_ignored():
    strokes = [[[*point, 0.7, "time", None] for point in stroke] for stroke in STROKES]
    data = json_of(strokes, writer={"name": "größe", "y_axis": "up"}, text=["a"])
    assert_steps(parse(data).offsets, STEPS)
    assert_steps(parse(b"\xef\xbb\xbf" + data).offsets, STEPS)
    assert_steps(parse(data.decode().encode("utf-16")).offsets, STEPS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"\xff\xfe", "is empty"),
        (b'{"strokes": [[[1, 1], [2', "not JSON (Expecting"),
        (b"\xff\xfe{\xff", "not JSON ("),
        (b"[" * 100_000, "not JSON ("),
        (b"{}", 'has no list of strokes; accepted: {"strokes": [[[x, y], ...'),
        (b"7", "has no list of strokes; accepted: "),
        (b'{"points": []}', "has no strokes"),
        (b'{"strokes": {"0": []}}', "has no list of strokes; accepted: "),
        (json_of(STROKES, y_axis="north"), "y_axis is 'north'; accepted: down, up"),
        (json_of(STROKES, y_axis=["down"]), "y_axis is \"['down']\"; accepted: down, up"),
        (json_of([[[1, 1]], "12"]), "stroke 2 is no list of points"),
        (json_of([[[1, 1]], [[2, 2], [3]]]), "stroke 2, point 2 is not [x, y]"),
        (json_of([[{"x": 1, "z": 1}]]), "stroke 1, point 1 is not [x, y]"),
        (json_of([[[1, 1], [None, 2]]]), "stroke 1, point 2 has 'None', which is no coordinate"),
        (
            json_of([[[1, 1], [2, 2], [2, True]]]),
            "stroke 1, point 3 has 'True', which is no coordinate",
        ),
        (
            json_of([[[1, 1], [2, 2], [2, [3]]]]),
            "stroke 1, point 3 has '[3]', which is no coordinate",
        ),
        (
            json_of([[[1, 1], [2, 2], [2, np.nan]]]),
            "stroke 1, point 3 has 'nan', which is no coordinate",
        ),
        (
            json_of([[[1, 1], [2, 2], [-np.inf, 2]]]),
            "stroke 1, point 3 has '-inf', which is no coordinate",
        ),
        (json_of([[[1, 1.1e9]]]), "stroke 1, point 1 has '1100000000.0', which is no coordinate"),
        (json_of([[[10**400, 1]]]), f"stroke 1, point 1 has '1{'0' * 19}', which is no coord"),
        (json_of([[[1, 1], [2, 2], [3, 1]], []]), "stroke 2 is empty"),
        (json_of([]), "has no strokes"),
        (json_of([[[1, 1]]]), "has 1 point, at least 2 are needed"),
    ],
)
def test_faults_of_json(data, message):
    with pytest.raises(FileFault) as error:
        parse(data)
    assert str(error.value).startswith(message)


# --------------------------------------------------------------------------------- InkML


def test_inkml_by_hand():
    line = parse(inkml_of(*TRACES))
    assert_steps(line.offsets, STEPS)
    assert line.offsets.dtype == np.float32
    assert line.one_point_strokes == 1


@pytest.mark.parametrize(
    "data",
    [
        inkml_of(*TRACES).replace(b' xmlns="http://www.w3.org/2003/InkML"', b""),
        inkml_of(*TRACES)
        .replace(b"<trace", b"<i:trace")
        .replace(b"</trace", b"</i:trace")
        .replace(b"<ink xmlns", b"<i:ink xmlns:i")
        .replace(b"</ink", b"</i:ink"),
        inkml_of("\n10   20 ,13\t18,\n13 25\n", *TRACES[1:]),
        b'<?xml version="1.0" encoding="ISO-8859-1"?><!-- no -->\n' + inkml_of(*TRACES),
        inkml_of(*TRACES, before="<annotation>1 1, 2 2</annotation>"),
        inkml_of(*TRACES, before="<definitions><trace>1 1, 2 2</trace></definitions>"),
        inkml_of(("type='penDown' id='t1'", TRACES[0]), *TRACES[1:]),
        inkml_of(("type='penUp'", "1 1, 2 2"), TRACES[0], ("type='penUp'", ""), *TRACES[1:]),
        inkml_of(TRACES[0] + "<annotation>1 1</annotation>", *TRACES[1:]),
        inkml_of(*TRACES)
        .replace(b"<trace", b"<traceGroup><trace", 1)
        .replace(b"</ink>", b"</traceGroup></ink>"),
        inkml_of("<![CDATA[10 20, 13 18]]>, 13&#32;25", *TRACES[1:]),
        inkml_of("1e1 +20.0, 1.3E1 18, 13 25", *TRACES[1:]),
    ],
    ids=[
        *("no namespace", "prefix", "white space", "declaration", "annotation"),
        *("definitions", "pen down", "pen up", "within a trace", "group", "text", "numbers"),
    ],
)
def test_inkml_of_all_kinds_is_the_same(data):
    assert_steps(parse(data).offsets, STEPS)


def channels_of(*names):
    channels = "".join(f'<channel name="{name}" type="decimal"/>' for name in names)
    return f"<inkSource><traceFormat>{channels}</traceFormat></inkSource>"


def test_channels_are_found_by_the_trace_format():
    # F, Y, T, X
    traces = ["0.5 20 1 10, 0.6 18 2 13, 0.7 25 3 13", "1 20 4 40.5", "1 19 5 41, 1 23 6 38"]
    for names in (("F", "Y", "T", "X"), ("F", "y", "T", "x")):
        line = parse(inkml_of(*traces, before=channels_of(*names)))
        assert_steps(line.offsets, STEPS)
    in_context = f"<definitions><context>{channels_of('F', 'Y', 'T', 'X')}</context></definitions>"
    assert_steps(parse(inkml_of(*traces, before=in_context)).offsets, STEPS)
    # Channels outside a trace format say nothing about the traces.
    other = "<canvas><channel name='Y'/></canvas>"
    assert_steps(parse(inkml_of(*TRACES, before=other)).offsets, STEPS)


BOMB = '<!DOCTYPE ink [<!ENTITY a "1 1"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<ink><trace>1 1, 2 2</ink>", "malformed XML: mismatched tag"),
        (inkml_of(*TRACES)[:-5], "malformed XML: "),
        (b'<?xml version="1.0" encoding="no-such"?><ink/>', "malformed XML: "),
        (b"<svg><trace>1 1, 2 2</trace></svg>", "its root element is 'svg'; accepted: ink"),
        (BOMB.encode() + inkml_of("&b;"), "declares a document type or entities, which is refuse"),
        (b'<!DOCTYPE ink SYSTEM "http://localhost/x.dtd"><ink/>', "declares a document type"),
        (inkml_of(), "has no strokes"),
        (inkml_of(("type='penUp'", "1 1, 2 2")), "has no strokes"),
        (inkml_of("1 1"), "has 1 point, at least 2 are needed"),
        (inkml_of(TRACES[0], ""), "stroke 2 is empty"),
        (inkml_of(TRACES[0], " \n"), "stroke 2 is empty"),
        (inkml_of(TRACES[0], "1 1, 2"), "stroke 2, point 2 has 1 values, too few for X and Y"),
        (inkml_of("1 1, 2 2,,"), "stroke 1, point 3 has 0 values, too few for X and Y"),
        (inkml_of("1 1, 2 nan"), "stroke 1, point 2 has 'nan', which is no value"),
        (inkml_of("1 1, 2 -2e9"), "stroke 1, point 2 has '-2e9', which is no coordinate"),
        (
            inkml_of(*TRACES, before=channels_of("X", "T")),
            "its traceFormat has no X and Y, only 'X, T'",
        ),
        (
            inkml_of(*TRACES, before=channels_of("T", "X", "Y")),
            "stroke 1, point 1 has 2 values, too few for X and Y",
        ),
    ],
)
def test_faults_of_inkml(data, message):
    with pytest.raises(FileFault) as error:
        parse(data)
    assert str(error.value).startswith(message)
    assert len(str(error.value).splitlines()) == 1


def test_the_first_character_tells_the_format():
    for data in (json_of(STROKES), b" \n" + json_of(STROKES)):
        assert_steps(parse(data).offsets, STEPS)
    for data in (inkml_of(*TRACES), b"\xef\xbb\xbf" + inkml_of(*TRACES), b"\n" + inkml_of(*TRACES)):
        assert_steps(parse(data).offsets, STEPS)


# --------------------------------------------------------------------------------- .npz


def parse_npz(data, **options):
    return ink.parse(data, Options(**options), ".npz")


def npz_of(path, **arrays):
    np.savez(path, **arrays)
    return path


def row_of(*items):
    row = np.empty(len(items), object)
    row[:] = items
    return row


def test_npz_by_hand(tmp_path):
    path = npz_of(tmp_path / "x.npz", **{"b": STEPS, "a/1": STEPS[1:].astype("f8")})
    lines = parse_npz(path.read_bytes())
    assert list(lines) == ["b", "a/1"]
    assert_steps(lines["b"].offsets, STEPS)  # dy upwards already
    assert_steps(lines["a/1"].offsets, STEPS[1:])
    assert lines["b"].one_point_strokes == lines["a/1"].one_point_strokes == 1


def test_rows_of_arrays_in_npz_are_numbered(tmp_path):
    row = row_of(STEPS, STEPS[:2], STEPS[:4].astype("f8"))
    path = npz_of(tmp_path / "x.npz", train=row, one=STEPS[:3])
    lines = parse_npz(path.read_bytes())
    assert list(lines) == ["train/000000", "train/000001", "train/000002", "one"]
    assert_steps(lines["train/000001"].offsets, STEPS[:2])
    assert_steps(lines["train/000002"].offsets, STEPS[:4])
    assert_steps(lines["one"].offsets, STEPS[:3])


def test_faults_of_one_sequence_in_npz_are_no_faults_of_the_file(tmp_path):
    bad = np.array([[1, 2, 3]])
    path = npz_of(tmp_path / "x.npz", a=row_of(STEPS, bad), b=np.zeros((4, 5, 2)), c=np.ones(2))
    lines = parse_npz(path.read_bytes())
    assert_steps(lines.pop("a/000000").offsets, STEPS)
    assert lines == {
        "a/000001": "step 0 has the pen 3; accepted: 0, 1",
        "b": "has float64 of shape [4, 5, 2]; accepted: numbers, [T, 3]",
        "c": "has float64 of shape [2]; accepted: numbers, [T, 3]",
    }


def test_faults_of_npz(tmp_path):
    with pytest.raises(FileFault, match="^holds no arrays$"):
        parse_npz(npz_of(tmp_path / "x.npz").read_bytes())
    with pytest.raises(FileFault, match="^holds no arrays$"):
        parse_npz(npz_of(tmp_path / "x.npz", a=np.empty(0, object)).read_bytes())
    with pytest.raises(FileFault, match="not a readable .npz file"):
        parse_npz(json_of(STROKES))


def test_arrays_are_told_by_what_they_are(tmp_path):
    data = npz_of(tmp_path / "x.npz", a=STEPS).read_bytes()
    for ending in (".npy", ".json", ""):
        assert_steps(ink.parse(data, ending=ending)["a"].offsets, STEPS)
    np.save(tmp_path / "y.npy", STEPS)
    for ending in (".npz", ".json", ""):
        lines = ink.parse((tmp_path / "y.npy").read_bytes(), Options(y_axis="up"), ending)
        assert_steps(lines[""].offsets, STEPS)


# ----------------------------------------------------------------------- the whole command


@pytest.fixture
def source(tmp_path):
    """Ten good files in two formats, and others."""
    folder = tmp_path / "raw"
    for number in range(10):
        top = "train" if number < 7 else "valid" if number < 9 else "held_out"
        path = folder / top / f"n{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        # The steps of sequence n are (n, 5 n) downwards.
        points = [[step * number, 5 * step * number] for step in range(3)]
        if number % 2:
            path.with_suffix(".json").write_bytes(json_of([points]))
        else:
            text = ", ".join(f"{x} {y}" for x, y in points)
            path.with_suffix(".inkml").write_bytes(inkml_of(text))
    (folder / "train" / ".n3.json").write_text("hidden")
    (folder / "train" / "notes.txt").write_text("not ours")
    return folder


def prepare(source, out="out", **options):
    options = {
        "normalization": "channel",
        "split": "random",
        "valid_share": 0.2,
        "test_share": 0.0,
        "skip_bad": False,
        "workers": 1,
    } | options
    out = source.parent / out
    ink.prepare(source, out, **options)
    return out


def number_of(name):
    return int(name.rpartition("/n")[2].partition(".")[0])


def test_records_hold_the_files_of_each_folder(source, read_back, capsys):
    from stcn_tf.data.card import Modality, read_card

    out = prepare(source, split="folders")
    card = read_card(out)
    assert list(card.splits) == ["train", "valid", "held_out"]
    numbers = {"train": range(7), "valid": (7, 8), "held_out": (9,)}
    for split, expected in numbers.items():
        lines = read_back(out, split)
        assert sorted(map(number_of, lines)) == list(expected)
        assert list(lines) == sorted(lines) and all(name.startswith(split) for name in lines)
        for name, line in lines.items():
            number = number_of(name)
            step = [number, -5 * number]
            np.testing.assert_allclose(line, [[*step, 0], [*step, 1]], atol=1e-5)
    assert card.name == "ink"
    assert card.modality == Modality("handwriting")
    assert card.features[0].unit == "unit of the source"
    assert card.normalization.mean == pytest.approx((3, -15, 0), rel=1e-14)
    assert card.normalization.std == pytest.approx((2, 10, 1), rel=1e-14)  # of 0 to 6
    assert card.extra["skipped"] == {}
    assert card.command == (
        "python -m data_prep.ink --source=DIR --out=DIR --normalization=channel --split=folders"
    )
    assert "held_out: 1 lines, 2 steps, T 2..2, pen rate 0.5000" in capsys.readouterr().out


def test_random_and_listed_splits(source, read_back):
    from data_prep.common.splitting import split_names
    from stcn_tf.data.card import read_card

    names = [
        path.relative_to(source).as_posix()
        for path in source.rglob("n*.*")
        if path.suffix != ".txt"
    ]
    out = prepare(source, valid_share=0.3, test_share=0.1)
    parts = split_names(names, "random", 0.3, 0.1)
    assert {name: len(members) for name, members in parts.items()} == {
        "train": 6,
        "valid": 3,
        "test": 1,
    }
    assert {split: list(read_back(out, split)) for split in parts} == parts
    assert read_card(out).command.endswith(
        "--normalization=channel --split=random --valid_share=0.3 --test_share=0.1"
    )

    lists = source.parent / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("train/n1.json\nheld_out/n9.json\ntrain/n0.inkml\n")
    (lists / "valid.txt").write_text("# mine\nvalid/n7.json\n")
    out = prepare(source, split=str(lists), normalization="vrnn")
    assert list(read_back(out, "train")) == ["held_out/n9.json", "train/n0.inkml", "train/n1.json"]
    assert list(read_back(out, "valid")) == ["valid/n7.json"]
    card = read_card(out)
    assert card.normalization.kind == "vrnn"
    assert card.command.endswith("--normalization=vrnn --split=DIR")


def test_npz_is_split_by_its_names(tmp_path, read_back):
    from stcn_tf.data.card import read_card

    lines = [np.array([[n + 1, n, 0], [n, 5, 1]], "f4") for n in range(6)]
    path = npz_of(
        tmp_path / "mine.npz",
        **{"train": row_of(*lines[:2]), "train/c": lines[2], "valid": row_of(lines[4])},
    )
    out = prepare(path, split="folders")
    train, valid = read_back(out, "train"), read_back(out, "valid")
    assert list(train) == ["train/000000", "train/000001", "train/c"]
    for line, expected in zip(train.values(), lines, strict=False):
        np.testing.assert_allclose(line, expected, atol=1e-5)
    assert list(valid) == ["valid/000000"]
    np.testing.assert_allclose(valid["valid/000000"], lines[4], atol=1e-5)
    assert read_card(out).command == (
        "python -m data_prep.ink --source=FILE --out=DIR --normalization=channel --split=folders"
    )


def test_bad_files_are_named_or_left_out(source, read_back):
    from stcn_tf.data.card import read_card

    good = prepare(source, "good")
    # Of train and of valid one each.
    bad = {list(read_back(good, split))[1]: split for split in ("train", "valid")}
    for name in bad:
        (source / name).write_bytes(b"<ink/>" if name.endswith("inkml") else b"[]")
    with pytest.raises(UserError) as error:
        prepare(source)
    reason = "has no strokes"
    shown = "; ".join(f"{name}: {reason}" for name in sorted(bad))
    assert str(error.value) == (
        f"2 bad entries in {source}: {shown} (mend, or pass --skip_bad to leave out)"
    )
    assert not (source.parent / "out").exists()

    out = prepare(source, skip_bad=True)
    for split in ("train", "valid"):  # no other one moved
        before = list(read_back(good, split))
        assert list(read_back(out, split)) == [name for name in before if name not in bad]
    card = read_card(out)
    assert card.extra["skipped"] == dict.fromkeys(sorted(bad), reason)
    assert card.command.endswith(" --skip_bad")


def test_bad_sequences_of_npz_are_named(tmp_path):
    path = npz_of(tmp_path / "x.npz", a=STEPS, b=np.ones((2, 2)), c=STEPS[:2])
    with pytest.raises(UserError) as error:
        prepare(path)
    assert str(error.value).startswith(
        f"1 bad entry in {path}: b: has float64 of shape [2, 2]; accepted: numbers, [T, 3] (mend"
    )
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=f"^--source: {path}: not a readable .npz file "):
        prepare(path)
    assert os.listdir(tmp_path) == ["x.npz"]


def test_sources_without_sequences(source):
    empty = source.parent / "empty"
    empty.mkdir()
    with pytest.raises(UserError) as error:
        prepare(empty)
    assert (
        str(error.value) == f"--source: {empty} has no files that end in {', '.join(ink.ENDINGS)}"
    )
    with pytest.raises(UserError, match=f"^--source: {empty}/none does not exist$"):
        prepare(empty / "none")
    with pytest.raises(UserError, match="no line is left for the split 'valid'"):
        for path in (source / "valid").iterdir():
            path.write_text("?")
        prepare(source, split="folders", skip_bad=True)
    assert sorted(os.listdir(source.parent)) == ["empty", "raw"]


def test_same_bytes_again_elsewhere_and_with_any_number_of_workers(source, files_of):
    rng = np.random.default_rng(3)
    for number in range(10, 80):
        strokes = [np.cumsum(rng.integers(-9, 9, (number, 2)), axis=0).tolist()]
        (source / "train" / f"n{number}.json").write_bytes(json_of(strokes))
    first = files_of(prepare(source))
    moved = source.rename(source.parent / "elsewhere")
    for workers in (1, 3):
        assert files_of(prepare(moved, f"again{workers}", workers=workers)) == first
    assert str(source.parent) not in json.dumps(first["dataset.json"].decode())


# ------------------------------------------------------------------------- what folders hold


def zip_of(**parts):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def office_of(*parts, folder="ppt/ink"):
    inks = {f"{folder}/ink{n}.xml": part for n, part in enumerate(parts, start=1)}
    return zip_of(**{"[Content_Types].xml": b"<Types/>", "ppt/slide1.xml": b"<p/>"} | inks)


def test_ink_in_office_documents():
    parts = [inkml_of(f"0 0, {n} 5") for n in range(1, 12)]
    lines = ink.parse(office_of(*parts, b"<ink/>"), ending=".pptx")
    assert list(lines) == [f"ppt/ink/ink{n}.xml" for n in range(1, 13)]
    assert lines.pop("ppt/ink/ink12.xml") == "has no strokes"
    assert [line.offsets.tolist() for line in lines.values()] == [
        [[n, -5, 1]] for n in range(1, 12)
    ]
    assert list(ink.parse(office_of(parts[0], folder="word/ink"), ending=".docx")) == [
        "word/ink/ink1.xml"
    ]
    for bad, message in (
        (office_of(), "has no ink (parts like ppt/ink/ink1.xml or word/ink/ink1.xml)"),
        (b"\xd0\xcf\x11\xe0", "not a readable Office file"),
        (office_of(b" " * 2**26, b" "), "its parts have 67108865 bytes, at most 67108864 are acc"),
    ):
        with pytest.raises(FileFault) as error:
            ink.parse(bad, ending=".pptx")
        assert str(error.value).startswith(message)


def test_a_folder_of_all_kinds(tmp_path, read_back, capsys):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.JSON").write_bytes(json_of(STROKES))
    (folder / "b.inkml").write_bytes(inkml_of(*TRACES))
    (folder / "c.xml").write_bytes(inkml_of(*TRACES).decode().encode("utf-16"))
    (folder / "d.ndjson").write_bytes(2 * (json_of(STROKES) + b"\n"))
    (folder / "e.pptx").write_bytes(office_of(inkml_of(*TRACES)))
    npz_of(folder / "f.npz", x=STEPS, y=row_of(STEPS))
    np.save(folder / "g.npy", STEPS)
    (folder / "h.svg").write_text("<svg/>")
    out = prepare(folder, split="own", y_axis="up", layout="points")
    names = [
        *("a.JSON", "b.inkml", "c.xml", "d.ndjson/000000", "d.ndjson/000001"),
        *("e.pptx/ppt/ink/ink1.xml", "f.npz/x", "f.npz/y/000000", "g.npy"),
    ]
    lines = read_back(out, "train") | read_back(out, "valid")
    assert sorted(lines) == names
    for name, line in lines.items():
        # y upwards where the file does not say it.
        np.testing.assert_allclose(line, STEPS * (1, 1 if name[0] in "fg" else -1, 1), atol=1e-5)
    assert "not read: 1 .svg (read are .json, " in capsys.readouterr().out


def test_the_case_of_a_mixed_folder_names_what_is_bad(tmp_path):
    with pytest.raises(UserError, match="1 bad entry in .*: d.ndjson: has no list of strokes; acc"):
        ink.prepare(CASES / "folder_mixed", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", "is empty"),
        ("a.json", b"{", "not JSON (Expecting property name"),
        ("a.inkml", b"{}", "malformed XML: "),
        ("a.xml", b"<svg/>", "its root element is 'svg'; accepted: ink"),
        ("a.npy", b"x", "not in the .npy format"),
        ("a.npz", b"{}", "not a readable .npz file (File is not a zip file)"),
        ("a.docx", b"{}", "not a readable Office file (File is not a zip file)"),
        ("a.txt", b"7 8", "not JSON (Extra data"),
    ],
)
def test_a_single_file_is_read_as_what_it_is(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        ink.prepare(tmp_path / name, tmp_path / "out")
    assert str(error.value).startswith(f"--source: {tmp_path / name}: {message}")


def test_a_single_file_of_many_drawings(read_back, tmp_path):
    ink.prepare(CASES / "quickdraw_ndjson" / "a.ndjson", tmp_path / "out", valid_share=0.25)
    lines = read_back(tmp_path / "out", "train") | read_back(tmp_path / "out", "valid")
    assert sorted(lines) == [f"a.ndjson/{n:06d}" for n in range(4)]


def test_a_file_keeps_its_own_splits(read_back, tmp_path, capsys):
    from stcn_tf.data.card import read_card

    source = CASES / "npz_own_splits" / "a.npz"
    ink.prepare(source, tmp_path / "out")
    printed = capsys.readouterr().out
    assert printed.startswith(
        "a.npz: read like sketch-rnn's files: y downwards, a move at the beginning\n"
        "splits: test, train, valid, as a.npz has them (--split=random mixes them)\n"
    )
    card = read_card(tmp_path / "out")
    assert {name: split.num_sequences for name, split in card.splits.items()} == {
        "train": 5,
        "valid": 1,
        "test": 1,
    }
    assert list(read_back(tmp_path / "out", "test")) == ["test/000000"]
    assert " --split=own " in card.command
    ink.prepare(source, tmp_path / "out", split="random", test_share=0.3)
    assert read_card(tmp_path / "out").splits["train"].num_sequences == 3
    path = npz_of(
        tmp_path / "x.npz", train=row_of(STEPS, STEPS, 2 * STEPS * (1, 1, 0.5)), rest=STEPS
    )
    capsys.readouterr()
    ink.prepare(path, tmp_path / "out")
    assert "splits: random, since x.npz has no train and valid alone: " in capsys.readouterr().out


def test_a_folder_of_files_keeps_their_own_splits(source, read_back, tmp_path, capsys):
    folder = tmp_path / "drawings"
    (folder / "sub").mkdir(parents=True)
    steps = [np.array([[n, 0, 0], [n, 2 * n, 1]], np.int16) for n in range(4)]
    npz_of(folder / "cat.npz", train=row_of(*steps[:2]), valid=row_of(steps[2]))
    npz_of(folder / "sub" / "dog.npz", train=row_of(steps[3]), test=row_of(steps[0]))
    out = prepare(folder, split="own")
    assert "splits: test, train, valid, as drawings has them (--split" in capsys.readouterr().out
    assert {split: list(read_back(out, split)) for split in ("train", "valid", "test")} == {
        "train": ["cat.npz/train/000000", "cat.npz/train/000001", "sub/dog.npz/train/000000"],
        "valid": ["cat.npz/valid/000000"],
        "test": ["sub/dog.npz/test/000000"],
    }
    (folder / "a.json").write_bytes(json_of(STROKES))
    prepare(folder, split="own")
    assert "no train and valid alone: test, train, valid\n" in capsys.readouterr().out
    prepare(source, split="own")
    said = "splits: random (--split=folders keeps held_out, train, valid)\n"
    assert said in capsys.readouterr().out


def test_files_of_other_units(source, read_back, capsys):
    from stcn_tf.data.card import read_card

    # 1000 times as large; its median stroke height is 80,000.
    large = [[[0, 0], [1000, 50_000], [0, 80_000]], [[0, 0], [0, 9], [2, 9]], [[0, 1], [1, 1]]]
    large += [[[0, 0], [3, 90_000], [0, 0]], [[1, 1]]]
    (source / "train" / "n9.json").write_bytes(json_of(large))
    (source / "train" / "n0.inkml").write_bytes(inkml_of("0 0, 1 0, 2 0"))  # none
    prepare(source, valid_share=0.2)
    assert (
        "warning: the median stroke heights of the files span a factor of 8e+03 (train/n1.json: "
        "10, train/n9.json: 8e+04); if their units differ, --scale=stroke_height puts each file "
        "to one size\n"
    ) in capsys.readouterr().out
    with pytest.raises(UserError, match="n0.inkml: has no stroke with a height, by which --scale="):
        prepare(source, scale="stroke_height")
    out = prepare(source, scale="stroke_height", split="folders", skip_bad=True)
    assert "warning" not in capsys.readouterr().out
    lines = read_back(out, "train")
    np.testing.assert_allclose(lines["train/n1.json"], [[0.1, -0.5, 0], [0.1, -0.5, 1]], atol=1e-6)
    np.testing.assert_allclose(
        lines["train/n9.json"][:2, :2] * 8, [[0.1, -5], [-0.1, -3]], atol=1e-5
    )
    card = read_card(out)
    assert card.features[0].unit == "median stroke height of the file"
    assert " --scale=stroke_height --skip_bad" in card.command


def test_what_is_given_is_in_the_command(tmp_path):
    from stcn_tf.data.card import read_card

    coordinates = [np.cumsum(STEPS, axis=0) * (1, n, 0) + STEPS * (0, 0, 1) for n in (1, 2, 3)]
    path = npz_of(tmp_path / "x.npz", x=row_of(*coordinates))
    options = {"y_axis": "down", "pen": "last", "layout": "points", "offsets": False}
    ink.prepare(path, tmp_path / "out", **options)
    assert read_card(tmp_path / "out").command == (
        "python -m data_prep.ink --source=FILE --out=DIR --normalization=channel --split=own "
        "--valid_share=0.1 --test_share=0 --y_axis=down --pen=last --layout=points --nooffsets"
    )
