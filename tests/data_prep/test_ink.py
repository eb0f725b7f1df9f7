"""One's own handwriting in JSON, InkML and `.npz`: exact steps of each, splits, and every fault."""

import json
import os

import numpy as np
import pytest

from data_prep import ink
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


TRACES = ["10 20, 13 18, 13 25", "40.5 20", "41 19, 38 23"]
assert_steps = np.testing.assert_array_equal

# ---------------------------------------------------------------------------------- JSON


def test_json_by_hand():
    for line in (ink.parse_json(json_of(STROKES)), ink.parse_json(json_of(STROKES, y_axis="down"))):
        assert_steps(line.offsets, STEPS)
        assert line.offsets.dtype == np.float32
        assert line.one_point_strokes == 1
    assert_steps(ink.parse_json(json_of(STROKES, y_axis="up")).offsets, STEPS * (1, -1, 1))


def test_what_else_json_holds_is_ignored():
    strokes = [[[*point, 0.7, "time", None] for point in stroke] for stroke in STROKES]
    data = json_of(strokes, writer={"name": "größe", "y_axis": "up"}, text=["a"])
    assert_steps(ink.parse_json(data).offsets, STEPS)
    assert_steps(ink.parse_json(b"\xef\xbb\xbf" + data).offsets, STEPS)
    assert_steps(ink.parse_json(data.decode().encode("utf-16")).offsets, STEPS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b'{"strokes": [[[1, 1], [2', "not JSON (Expecting"),
        (b"\xff\xfe\xff", "not JSON ("),
        (b"[" * 100_000, "not JSON ("),
        (b"[[[1, 1], [2, 2]]]", 'not an object with "strokes", a list'),
        (b'{"points": []}', 'not an object with "strokes", a list'),
        (b'{"strokes": {"0": []}}', 'not an object with "strokes", a list'),
        (json_of(STROKES, y_axis="north"), "y_axis is 'north'; accepted: down, up"),
        (json_of(STROKES, y_axis=None), "y_axis is 'None'; accepted: down, up"),
        (json_of(STROKES, y_axis=["down"]), "y_axis is \"['down']\"; accepted: down, up"),
        (json_of([[[1, 1]], "12"]), "stroke 2 is no list of points"),
        (json_of([[[1, 1]], [[2, 2], [3]]]), "stroke 2, point 2 is not [x, y]"),
        (json_of([[{"x": 1, "y": 1}]]), "stroke 1, point 1 is not [x, y]"),
        (json_of([[[1, 1], [None, 2]]]), "stroke 1, point 2 has 'None', which is no coordinate"),
        (json_of([[[1, 1], [2, True]]]), "stroke 1, point 2 has 'True', which is no coordinate"),
        (json_of([[[1, 1], [2, [3]]]]), "stroke 1, point 2 has '[3]', which is no coordinate"),
        (json_of([[[1, 1], [2, np.nan]]]), "stroke 1, point 2 has 'nan', which is no coordinate"),
        (json_of([[[1, 1], [-np.inf, 2]]]), "stroke 1, point 2 has '-inf', which is no coordinate"),
        (json_of([[[1, 1.1e9]]]), "stroke 1, point 1 has '1100000000.0', which is no coordinate"),
        (json_of([[[10**400, 1]]]), f"stroke 1, point 1 has '1{'0' * 19}', which is no coord"),
        (json_of([[[1, 1], [2, 2]], []]), "stroke 2 is empty"),
        (json_of([]), "has no strokes"),
        (json_of([[[1, 1]]]), "has 1 point, at least 2 are needed"),
    ],
)
def test_faults_of_json(data, message):
    with pytest.raises(FileFault) as error:
        ink.parse_json(data)
    assert str(error.value).startswith(message)


# --------------------------------------------------------------------------------- InkML


def test_inkml_by_hand():
    line = ink.parse_inkml(inkml_of(*TRACES))
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
        inkml_of(*(f"{t.replace(',', ' 99 0.5,')} 7" for t in TRACES)),  # more channels
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
        *("no namespace", "prefix", "white space", "more values", "declaration", "annotation"),
        *("definitions", "pen down", "pen up", "within a trace", "group", "text", "numbers"),
    ],
)
def test_inkml_of_all_kinds_is_the_same(data):
    assert_steps(ink.parse_inkml(data).offsets, STEPS)


def channels_of(*names):
    channels = "".join(f'<channel name="{name}" type="decimal"/>' for name in names)
    return f"<inkSource><traceFormat>{channels}</traceFormat></inkSource>"


def test_channels_are_found_by_the_trace_format():
    # F, Y, T, X
    traces = ["0.5 20 1 10, 0.6 18 2 13, 0.7 25 3 13", "1 20 4 40.5", "1 19 5 41, 1 23 6 38"]
    for names in (("F", "Y", "T", "X"), ("F", "y", "T", "x")):
        line = ink.parse_inkml(inkml_of(*traces, before=channels_of(*names)))
        assert_steps(line.offsets, STEPS)
    in_context = f"<definitions><context>{channels_of('F', 'Y', 'T', 'X')}</context></definitions>"
    assert_steps(ink.parse_inkml(inkml_of(*traces, before=in_context)).offsets, STEPS)
    # Channels outside a trace format say nothing about the traces.
    other = "<canvas><channel name='Y'/></canvas>"
    assert_steps(ink.parse_inkml(inkml_of(*TRACES, before=other)).offsets, STEPS)


BOMB = '<!DOCTYPE ink [<!ENTITY a "1 1"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "malformed XML: no element found"),
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
        (inkml_of("1 1, 2 2,"), "stroke 1, point 3 has 0 values, too few for X and Y"),
        (inkml_of("1 1, '2 '3"), 'stroke 1, point 2 has "\'2", which is no coordinate'),
        (inkml_of("1 1, * 3"), "stroke 1, point 2 has '*', which is no coordinate"),
        (inkml_of("1 1, 2 nan"), "stroke 1, point 2 has 'nan', which is no coordinate"),
        (inkml_of("1 1, 2 -2e9"), "stroke 1, point 2 has '-2e9', which is no coordinate"),
        (inkml_of("1 1, #A 1"), "stroke 1, point 2 has '#A', which is no coordinate"),
        (
            inkml_of(TRACES[0], ("continuation='end' priorRef='#t1'", "1 1, 2 2")),
            "stroke 2 is a continued trace",
        ),
        (
            inkml_of(*TRACES, before=channels_of("X", "T")),
            "its traceFormat has no X and Y, only 'X, T'",
        ),
        (
            inkml_of(*TRACES, before=channels_of("T", "X", "Y")),
            "stroke 1, point 1 has 2 values, too few for X and Y",
        ),
        (
            inkml_of(*TRACES, before=2 * channels_of("X", "Y")),
            "has more than one traceFormat",
        ),
        (
            inkml_of(*TRACES).replace(b"</ink>", channels_of("Y", "X").encode() + b"</ink>"),
            "has a traceFormat after a trace",
        ),
    ],
)
def test_faults_of_inkml(data, message):
    with pytest.raises(FileFault) as error:
        ink.parse_inkml(data)
    assert str(error.value).startswith(message)
    assert len(str(error.value).splitlines()) == 1


def test_the_first_character_tells_the_format():
    for data in (json_of(STROKES), b" \n" + json_of(STROKES)):
        assert_steps(ink.parse(data).offsets, STEPS)
    for data in (inkml_of(*TRACES), b"\xef\xbb\xbf" + inkml_of(*TRACES), b"\n" + inkml_of(*TRACES)):
        assert_steps(ink.parse(data).offsets, STEPS)


# --------------------------------------------------------------------------------- .npz


def npz_of(path, **arrays):
    np.savez(path, **arrays)
    return path


def row_of(*items):
    row = np.empty(len(items), object)
    row[:] = items
    return row


def test_npz_by_hand(tmp_path):
    path = npz_of(tmp_path / "x.npz", **{"b": STEPS, "a/1": STEPS[1:].astype("f8")})
    lines = ink.parse_npz(path.read_bytes())
    assert list(lines) == ["b", "a/1"]
    assert_steps(lines["b"].offsets, STEPS)  # dy upwards already
    assert_steps(lines["a/1"].offsets, STEPS[1:])
    assert lines["b"].one_point_strokes == lines["a/1"].one_point_strokes == 1


def test_rows_of_arrays_in_npz_are_numbered(tmp_path):
    row = row_of(STEPS, STEPS[:2], STEPS[:4].astype("f8"))
    path = npz_of(tmp_path / "x.npz", train=row, one=STEPS[:3])
    lines = ink.parse_npz(path.read_bytes())
    assert list(lines) == ["train/000000", "train/000001", "train/000002", "one"]
    assert_steps(lines["train/000001"].offsets, STEPS[:2])
    assert_steps(lines["train/000002"].offsets, STEPS[:4])
    assert_steps(lines["one"].offsets, STEPS[:3])


def test_faults_of_one_sequence_in_npz_are_no_faults_of_the_file(tmp_path):
    bad = np.array([[1, 2, 3]])
    path = npz_of(tmp_path / "x.npz", a=row_of(STEPS, bad), b=np.zeros((4, 5, 3)), c=np.ones(2))
    lines = ink.parse_npz(path.read_bytes())
    assert_steps(lines.pop("a/000000").offsets, STEPS)
    assert lines == {
        "a/000001": "step 0 has the pen 3; accepted: 0, 1",
        "b": "has float64 of shape [4, 5, 3]; accepted: numbers, [T, 3]",
        "c": "has float64 of shape [2]; accepted: numbers, [T, 3]",
    }


def test_faults_of_npz(tmp_path):
    with pytest.raises(FileFault, match="^holds no arrays$"):
        ink.parse_npz(npz_of(tmp_path / "x.npz").read_bytes())
    with pytest.raises(FileFault, match="^holds no arrays$"):
        ink.parse_npz(npz_of(tmp_path / "x.npz", a=np.empty(0, object)).read_bytes())
    with pytest.raises(FileFault, match="not a readable .npz file"):
        ink.parse_npz(json_of(STROKES))


# ----------------------------------------------------------------------- the whole command


@pytest.fixture
def source(tmp_path):
    """Ten good files in two formats, and others."""
    folder = tmp_path / "raw"
    for number in range(10):
        top = "train" if number < 7 else "valid" if number < 9 else "held_out"
        path = folder / top / f"n{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        y = 5 * number  # the step of sequence n is (n, 5 n) downwards
        if number % 2:
            path.with_suffix(".json").write_bytes(json_of([[[0, 0], [number, y]]]))
        else:
            path.with_suffix(".inkml").write_bytes(inkml_of(f"0 0, {number} {y}"))
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
            np.testing.assert_allclose(line, [[number, -5 * number, 1]], atol=1e-5)
    assert card.name == "ink"
    assert card.modality == Modality("handwriting")
    assert card.features[0].unit == "unit of the source"
    assert card.normalization.mean == pytest.approx((3, -15, 0), rel=1e-14)
    assert card.normalization.std == pytest.approx((2, 10, 1), rel=1e-14)  # of 0 to 6
    assert card.extra["skipped"] == {}
    assert card.command == (
        "python -m data_prep.ink --source=DIR --out=DIR --normalization=channel --split=folders"
    )
    assert "held_out: 1 lines, 1 steps, T 1..1, pen rate 1.0000" in capsys.readouterr().out


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
        (source / name).write_bytes(b"{}")
    with pytest.raises(UserError) as error:
        prepare(source)
    reason = 'not an object with "strokes", a list'
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
    assert str(error.value) == f"--source: {empty} has no .json or .inkml files"
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
