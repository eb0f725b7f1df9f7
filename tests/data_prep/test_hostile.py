"""Damaged and malicious raw files: right content or one line that says why not; nothing else."""

import contextlib
import copyreg
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import struct
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from data_prep import deepwriting, iamondb, ink, mnist, timit, wav
from data_prep.common import audio, handwriting, npz, raw_files
from data_prep.common.inkml import parse_inkml
from data_prep.common.raw_files import FileFault
from data_prep.common.splitting import read_lists
from stcn_tf.support.errors import UserError

# What is attacked, under the names that it has in the code.
parse_line, parse_images, parse_deepwriting = iamondb.parse_line, mnist.parse, deepwriting.parse
MOST_BYTES, MOST_SAMPLES = (npz, "MAX_FILE_BYTES"), (handwriting, "MAX_SEQUENCES")
MOST_STEPS = (handwriting, "MAX_STEPS")


def parse_ink(data):
    """The sequence of a file of one; of more, each is a line or a fault."""
    lines = ink.parse(data)
    assert_lines_or_faults(lines.values())
    return lines.get("")


def parse_npz(data):
    return ink.parse(data, ending=".npz")


# Hypothesis would keep what it finds in the working directory.
set_hypothesis_home_dir(os.path.join(tempfile.gettempdir(), "stcn-tf-hypothesis"))


def fuzz(max_examples):
    """The same examples each time; each must end soon."""
    return settings(
        max_examples=max_examples,
        derandomize=True,
        database=None,
        deadline=timedelta(seconds=5),
        suppress_health_check=list(HealthCheck),
    )


# -------------------------------------------------------------------------------------- laws


def assert_one_line(error):
    text = str(error)
    assert 0 < len(text) < 500
    assert text.isprintable()  # no line ends, and nothing that a terminal obeys


def read(parse, data):
    """The content, or None if there is a fault, which is one line."""
    try:
        return parse(data)
    except FileFault as fault:
        assert_one_line(fault)
        return None


def assert_line(line):
    assert isinstance(line, handwriting.Line)
    assert line.offsets.dtype == np.float32
    assert line.offsets.ndim == 2 and line.offsets.shape[1] == 3 and len(line.offsets) > 0
    assert np.isfinite(line.offsets).all()
    assert np.isin(line.offsets[:, 2], (0, 1)).all()
    assert 0 <= line.one_point_strokes <= len(line.offsets) + 1


def assert_lines_or_faults(lines):
    for line in lines:
        if isinstance(line, str):
            assert_one_line(line)
        else:
            assert_line(line)


def reads_line(parse):
    """Function data -> the line that `parse` makes of it, which obeys the laws, or None."""

    def read_line(data, *_):
        line = read(parse, data)
        if line is not None:
            assert_line(line)
        return line

    return read_line


@contextlib.contextmanager
def bounded(max_bytes, max_seconds=20.0):
    """What happens inside allocates and lasts no longer."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        yield
        seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < max_bytes and seconds < max_seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


# --------------------------------------------------------------------------------- mutations

NUMBERS = [
    (value % 2 ** (8 * size)).to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), -1)
    for order in ("little", "big")
]


@st.composite
def damaged(draw, data, tokens=()):
    """`data` after one to four blows: cut, or some bytes changed, put in, left out or doubled."""
    data = bytearray(data)
    pieces = st.one_of(st.binary(max_size=6), st.sampled_from([*NUMBERS, *tokens]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 40)))
        kind = draw(
            st.sampled_from(["cut", "change", "overwrite", "put in", "leave out", "double"])
        )
        if kind == "cut":
            del data[start:]
        elif kind == "change" and start < len(data):
            data[start] ^= draw(st.integers(1, 255))
        elif kind == "overwrite":
            piece = draw(pieces)
            data[start : start + len(piece)] = piece
        elif kind == "put in":
            data[start:start] = draw(pieces)
        elif kind == "leave out":
            del data[start:stop]
        elif kind == "double":
            data[start:start] = data[start:stop] * draw(st.integers(1, 3))
    return bytes(data)


# -------------------------------------------------------------------------- handwriting, text

XML = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
<WhiteboardCaptureSession><StrokeSet>
<Stroke colour="black"><Point x="10" y="20" time="1.0"/><Point x="13" y="18" time="1.1"/></Stroke>
<Stroke><Point x="40.5" y="-20" time="2.0"/></Stroke>
</StrokeSet></WhiteboardCaptureSession>"""
INKML = b"""<?xml version="1.0" encoding="UTF-8"?>
<ink xmlns="http://www.w3.org/2003/InkML"><traceFormat><channel name="T"/><channel name="X"/>
<channel name="Y"/></traceFormat><trace>1 10 20, 2 13 18, 3 13 25</trace>
<trace type="penUp">4 14 20</trace><trace>5 40.5 -20</trace></ink>"""
JSON = b'{"strokes": [[[10, 20], [13, 18, 0.5]], [[40.5, -20]]], "y_axis": "up", "pen": null}'

XML_TOKENS = [
    *(b"<", b">", b"/>", b"&", b"&amp;", b"&#0;", b"&#10;", b"&x;", b"<![CDATA[", b"]]>", b"<!--"),
    *(b"<Stroke>", b"</Stroke>", b'<Point x="1" y="2"/>', b"<trace>", b"</trace>", b"1 2, ", b","),
    *(b"<traceFormat>", b"</traceFormat>", b'<channel name="X"/>', b"<definitions>", b"<a>", b"<a"),
    *(b"nan", b"-inf", b"1e300", b"1e-400", b"9" * 400, b"0x1F", b"1_0", b"'2", b"*", b"!", b"\0"),
    *(b"<!DOCTYPE a>", b'<!DOCTYPE a [<!ENTITY x "1">]>', b"<?a b?>", b'encoding="utf-16"'),
]
JSON_TOKENS = [
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"null", b"true", b"NaN", b"-Infinity", b"1e999"),
    *(b"9" * 400, b"[[", b"]]", b"[]", b"[1, 2],", b'"strokes"', b'"y_axis"', b"\\ud800", b"-0.0"),
]
XML_PIECES = [
    *("<Stroke>", "</Stroke>", '<Point x="1" y="2"/>', '<Point y="-1e9" x=" 7 "/>', "<StrokeSet>"),
    *('<Point x="1"/>', '<Point x="" y="0"/>', '<Point x="1e400" y="&#10;"/>', '<Point x="nan"/>'),
    *("<trace>1 2, 3 4</trace>", "<trace>5 6</trace>", "<trace/>", "<trace>", "</trace>", "1 2 3,"),
    *("<trace type='penUp'>1 2</trace>", "<trace continuation='end'>1 2</trace>", "<traceGroup>"),
    *("<traceFormat>", "</traceFormat>", "<channel name='Y'/><channel name='X'/>", "<definitions>"),
    *("<channel/>", "<channel name='X'/>", "<channel name='&#10;&#27;'/>", "</definitions>", "é"),
]


@pytest.mark.parametrize("parse", [parse_line, parse_ink], ids=["linestrokes", "ink"])
@fuzz(max_examples=300)
@given(pieces=st.lists(st.sampled_from(XML_PIECES), max_size=12))
def test_elements_in_any_order(parse, pieces):
    root = "ink" if parse is parse_ink else "WhiteboardCaptureSession"
    reads_line(parse)(f"<{root}>{''.join(pieces)}</{root}>".encode())


HOSTILE_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.floats(),
        st.integers(-(2**70), 2**70),
        st.sampled_from([10**400, -(10**400), 1e300, 1e9, 1e-320, float("nan"), float("inf")]),
        st.text(max_size=30),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@fuzz(max_examples=250)
@given(data=st.data())
def test_json_of_wrong_types(data):
    values = st.one_of(st.integers(-5, 5), HOSTILE_VALUES)
    points = st.one_of(st.lists(values, min_size=2, max_size=3), HOSTILE_VALUES)
    strokes = st.one_of(st.lists(points, max_size=3), HOSTILE_VALUES)
    lists = st.one_of(st.lists(strokes, max_size=3), HOSTILE_VALUES)
    content = data.draw(
        st.one_of(
            HOSTILE_VALUES,
            st.fixed_dictionaries(
                {"strokes": lists},
                optional={"y_axis": st.one_of(st.sampled_from(["up", "down"]), HOSTILE_VALUES)},
            ),
        )
    )
    encoding = data.draw(st.sampled_from(["utf-8", "utf-16", "utf-32-le", "latin-1"]))
    reads_line(parse_ink)(json.dumps(content).encode(encoding))


LAUGHS = '<!ENTITY l0 "ha">' + "".join(
    f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 30)
)
DOCTYPES = {
    "laughs": f"[{LAUGHS}]",
    "blowup": f'[<!ENTITY l29 "{"ha" * 100_000}">]',
    "external entity": '[<!ENTITY l29 SYSTEM "file://PATH">]',
    "parameter entity": '[<!ENTITY % l29 SYSTEM "file://PATH"> %l29;]',
    "external type": 'SYSTEM "file://PATH"',
    "recursion": '[<!ENTITY l29 "&l29;">]',
}


@pytest.mark.parametrize("doctype", DOCTYPES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(("parse", "good"), [(parse_line, XML), (parse_inkml, INKML)])
def test_expansion_attacks_are_refused(tmp_path, parse, good, encoding, doctype):
    path = tmp_path / "fifo"
    os.mkfifo(path)  # who opened it would wait for ever
    _, _, body = good.decode().partition("?>")
    root = body.split(">")[0].split()[0].strip().strip("<>")
    attack = f"<!DOCTYPE {root} {DOCTYPES[doctype].replace('PATH', str(path))}>"
    body = body.replace("</", f"{'&l29;' * 100}</", 1)
    with (
        bounded(2**23),
        pytest.raises(FileFault, match="document type or entities, which is refus"),
    ):
        parse((attack + body).encode(encoding))


DEEP = 100_000
LONG = "x" * 10**6
LONG_NAME = f"<ink><traceFormat><channel name='&#10;{LONG}'/></traceFormat><trace>1</trace></ink>"
REFUSED_INK = {
    "lists": "[" * DEEP,
    "objects": '{"strokes":' * DEEP,
    "lists in lists": '{"strokes": ' + "[" * DEEP + "]" * DEEP + "}",
    "number": '{"strokes": [[' + "9" * 10**6 + "]]}",
    "text for a number": '{"strokes": [[["' + LONG + '", 1], [1, 1]]]}',
    "axis": '{"strokes": [], "y_axis": "' + LONG + '"}',
    "groups": "<ink>" + "<traceGroup>" * DEEP + "</traceGroup>" * DEEP + "</ink>",
    # Looking at all enclosing elements of each would take minutes.
    "traces": "<ink>" + "<trace>" * DEEP + "</trace>" * DEEP + "</ink>",
    "traces of points": "<ink>" + "<trace>1 2" * DEEP + "</trace>" * DEEP + "</ink>",
    "element": f"<{LONG}/>",
    "entity": f"<ink>&{LONG};</ink>",
    "coordinate": f"<ink><trace>{LONG} 1, 1 2</trace></ink>",
    "channel": LONG_NAME,
}
REFUSED_LINES = {
    "elements": "<Stroke>" + "<a>" * DEEP + "</a>" * DEEP + "</Stroke>",
    "strokes": "<Stroke>" * DEEP,
    "entity": f"<a>&{LONG};</a>",
    "coordinate": f"<Stroke><Point x='{LONG}' y='1'/></Stroke>",
    "digits": f"<Stroke><Point x='1&#10;{'1' * 5000}' y='1'/></Stroke>",
    "encoding": f"<?xml version='1.0' encoding='{LONG}'?><a/>",
}


@pytest.mark.filterwarnings("ignore:.*invalid escape sequence:DeprecationWarning")
def test_encodings_of_xml():
    # Python has many more encodings than expat can use, some of which are none of text.
    for encoding in (
        *("idna", "punycode", "hex", "rot13", "zip", "undefined", "utf-7", "utf-32", "mbcs"),
        *("unicode_escape", "raw_unicode_escape", "big5", "utf-8-sig", "cp037", "cp1252", "none"),
    ):
        for good in (XML, INKML):
            _, _, body = good.partition(b"?>")
            head = f'<?xml version="1.0" encoding="{encoding}"?>'.encode()
            line = reads_line(parse_line if good is XML else parse_ink)(head + body)
            assert line is not None or encoding != "cp1252"


# ---------------------------------------------------------------------------------- .npz files


def zip_of(*members, **options):
    """A ZIP of (name, content)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **{"compression": zipfile.ZIP_DEFLATED} | options) as archive:
        for name, content in members:
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy_of(descr, shape, content):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def row_of(*items):
    row = np.empty(len(items), object)
    row[:] = items
    return row


STEPS = np.array([[3, 2, 0], [0, -7.5, 1], [27, 5, 1]], np.float32)
ROW = row_of(STEPS, STEPS[:2].astype(">f8"), STEPS[1:])
PICKLED = pickle.dumps(ROW, 4)
STATISTICS = {"mean": np.array([0.5, -0.25, 0.1]), "std": np.array([2, 4, 0.5], np.float32)}


def member_of(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


MEMBERS = {
    **{name: member_of(array) for name, array in STATISTICS.items()},
    "strokes": member_of(ROW),
    "stack": member_of(np.stack([STEPS, STEPS])),
}


def read_both(data):
    """Reads the file as anyone's ink, and as Deepwriting's."""
    lines = read(parse_npz, data)
    samples = read(parse_deepwriting, data)
    assert_lines_or_faults([] if lines is None else lines.values())
    for name in lines or ():
        assert_one_line(name)
    if samples is not None:
        assert_lines_or_faults(samples.lines)
        json.dumps([samples.mean, samples.std], allow_nan=False)
    return lines, samples


def test_the_good_files_are_good():
    lines, samples = read_both(zip_of(*MEMBERS.items()))
    assert sum(not isinstance(line, str) for line in lines.values()) == 5  # of a row and a stack
    assert len(samples.lines) == 3 and not any(isinstance(line, str) for line in samples.lines)


DESCRS = [
    *("<f4", ">f8", "f16", "<f2", "|O", "O8", "<U3", "|S2", "<U0", "a5", "V3", "<c8", "?", "c"),
    *("<M8[s]", "m8[7D]", "f4,f4", "(2,)f4", "U999999999", "i99", "", "\n", "x" * 5000, "float"),
    *([("x", "<f4")], ["<f4"], None, 1, {"names": ["x"]}),
]
SHAPES = [
    *("(3, 3)", "(9,)", "()", "(0, 3)", "(1, 9)", "(-1, 3)", "(3.0, 3)", "(True,)", "3", "None"),
    *("'\\n'", f"({2**39}, {2**39}, 0)", f"({2**63},)", f"({2**33}, {2**33})", "(1,) * 9"),
    *(f"({'1, ' * 40})", f"({'9' * 4400},)", f"(0x{'f' * 4400},)", f"({'(' * 150}1{')' * 150},)"),
]


@fuzz(max_examples=300)
@given(data=st.data())
def test_damaged_arrays_in_sound_zips(data):
    """The checksums of a ZIP are right, so that it is the array that is read."""
    members = dict(MEMBERS)
    name = data.draw(st.sampled_from(list(members)))
    if data.draw(st.booleans()):
        tokens = [*b"<f4 |O ( ) ' shape \\ 0xfffffffffffff \x93NUMPY".split()]
        members[name] = data.draw(damaged(members[name], tokens))
    else:
        descr, shape = data.draw(st.sampled_from(DESCRS)), data.draw(st.sampled_from(SHAPES))
        members[name] = npy_of(descr, shape, STEPS.tobytes())
    if data.draw(st.booleans()):
        members["strokes"] = members["stack"]
    read_both(zip_of(*members.items()))


@fuzz(max_examples=300)
@given(data=st.data())
def test_steps_of_any_values_and_types(data):
    code = data.draw(
        st.sampled_from(["<f4", ">f4", "<f8", "<f2", "<f16", "|i1", "<u8", "|b1", "<U1"])
    )
    dtype = np.dtype(code)
    shape = data.draw(
        st.sampled_from([(2, 3), (1, 3), (0, 3), (3,), (), (2, 4), (1, 2, 3), (2, 3, 1)])
    )
    size = int(np.prod(shape)) * dtype.itemsize
    if data.draw(st.booleans()) and dtype.kind in "fiu":
        values = st.sampled_from([0, 1, -1, 0.5, 1e9, 1e300, np.inf, -np.inf, np.nan, 1e-320])
        values = data.draw(
            st.lists(values, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
        )
        with np.errstate(all="ignore"):
            content = np.array(values, np.longdouble).astype(dtype).tobytes()
    else:
        content = data.draw(st.binary(min_size=size, max_size=size))  # signalling NaN, too
    member = npy_of(code, shape, content)
    steps = np.frombuffer(content, dtype).reshape(shape)
    row = member_of(row_of(STEPS, steps))
    kind = data.draw(st.sampled_from(["strokes", "row", "mean", "std"]))
    changed = {"strokes": row} if kind == "row" else {kind: member}
    read_both(zip_of(*(MEMBERS | changed).items()))


def test_names_that_mean_two_sequences():
    steps, row = member_of(STEPS), MEMBERS["strokes"]
    assert read(parse_npz, zip_of(("b", row), ("b/000001", steps))) is None
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("b.npy", steps)
        archive.writestr("b", steps)
    assert read(parse_npz, file.getvalue()) is None


def test_names_are_listed_only_in_part():
    names = [f"{number}-{'y' * 60}" for number in range(99)]
    assert read(parse_deepwriting, zip_of(*((name, b"") for name in names))) is None


# -------------------------------------------------------------------------------------- pickles

EXECUTED = []


def execute(*arguments):
    """What must never run."""
    EXECUTED.append(arguments)
    return np.zeros(1)


class Reduced:
    def __reduce__(self):
        return execute, ("reduced",)


class Stateful:
    def __setstate__(self, state):
        execute(state)


class New:
    def __new__(cls, *arguments, **keywords):
        execute(arguments)
        return super().__new__(cls)


def text(value):
    """Instructions that push a short text, in protocol 0 to 5."""
    return b"V" + value.encode() + b"\n"


def named(name):
    """Instructions that push what this module has of that name."""
    return b"c" + __name__.encode() + b"\n" + name.encode() + b"\n"


CODE = f"__import__('sys').modules[{__name__!r}].execute()"
# Each of them executes something in `pickle.loads`.
ATTACKS = {
    **{f"protocol {n}": pickle.dumps(Reduced(), n) for n in range(6)},
    **{f"row, protocol {n}": pickle.dumps(row_of(STEPS, Reduced()), n) for n in range(6)},
    "eval": b"cbuiltins\neval\n(" + text(CODE) + b"tR.",
    "exec of another module": b"c__builtin__\nexec\n(" + text(CODE) + b"tR.",
    "numpy's exec": b"cnumpy.testing._private.utils\nrunstring\n(" + text(CODE) + b"}tR.",
    "stack global": b"\x80\x04Vbuiltins\nVeval\n\x93" + text(CODE) + b"\x85R.",
    "dotted": b"\x80\x04Vnumpy\nV__builtins__.get\n\x93Veval\n\x85R" + text(CODE) + b"\x85R.",
    "names from the memo": b"\x80\x04Veval\n\x94Vbuiltins\nh\0\x93" + text(CODE) + b"\x85R.",
    "name built by encode": b"\x80\x04" + text(__name__) + text("execute") + b"\x93)R.",
    "inst": b"(" + text("1") + b"i" + __name__.encode() + b"\nexecute\n.",
    "obj": b"(" + named("execute") + text("1") + b"o.",
    "newobj": b"\x80\x02" + named("New") + b")\x81.",
    "newobj_ex": b"\x80\x04" + named("New") + b")}\x92.",
    "extension 1": b"\x80\x02\x82\xf0)R.",
    "extension 2": b"\x80\x02\x83\xf0\0)R.",
    "extension 4": b"\x80\x02\x84\xf0\0\0\0)R.",
    "build of an object": b"\x80\x02" + named("Stateful") + b")\x81K\1b.",
    "map": b"cbuiltins\nlist\n(cbuiltins\nmap\n(" + named("execute") + b"(K\1ltRtR.",
    "among an array's arguments": b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n("
    + b"K\0tU\1btR(K\1(K\1t"
    + named("execute")
    + b")RI00\nU\0tb.",
    "after an array": PICKLED[:-1] + named("execute") + b")R.",
}


@pytest.fixture
def extension():
    """Number 240 of the registry of extensions is `execute`."""
    copyreg.add_extension(__name__, "execute", 0xF0)
    yield
    copyreg.remove_extension(__name__, "execute", 0xF0)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_in_a_pickle_is_executed(name, extension):
    data = zip_of(("a", npy_of("|O", "(1,)", ATTACKS[name])))
    EXECUTED.clear()
    lines = read(parse_npz, data)
    assert lines is None and not EXECUTED
    # It would have been.
    with contextlib.suppress(Exception):
        pickle.loads(ATTACKS[name], encoding="latin1")
    assert EXECUTED


HARMLESS = pickle.dumps(np.ones(2), 2)[:-1]
REFUSED = {
    "command": b"cposix\nsystem\n(" + text("exit 1") + b"tR.",
    "build of a function": named("execute") + b"}" + text("marked") + b"K\1sb.",
    "attributes of a function": named("execute") + b"N}" + text("marked") + b"K\1s\x86b.",
    "build of a constructor": b"cnumpy\ndtype\n}" + text("kind") + named("execute") + b"sb.",
    "constructor in place of an array": b"cnumpy\ndtype\n.",
    "ndarray itself": b"cnumpy\nndarray\n.",
    "ndarray called": b"cnumpy\nndarray\n(K\2tR.",
    "file": b"cnumpy\nfromfile\n(" + text("/etc/passwd") + b"tR.",
    "open": b"cio\nopen\n(" + text("executed") + text("w") + b"tR.",
    "persistent": b"Pexecute\n.",
    "binary persistent": b"\x80\x02" + text("execute") + b"Q.",
    "codec": b"c_codecs\nencode\n(" + text("x") + text("idna") + b"tR.",
    "bytes of a size": b"c__builtin__\nbytes\n(J\xff\xff\xff\x7ftR.",
    "bytes by number": b"\x80\x03cbuiltins\nbytes\n(J\xff\xff\xff\x7ftR.",
    "buffers": b"\x80\x05\x97\x98.",
    "long memo": b"N" + b"r\xff\xff\xff\x7f" + b"r\0\0\0\x80" + b"r\xff\xff\xff\xff.",
    "memo of a text": b"Np99999999999999999999\n.",
    "bytearray8": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "binbytes8": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "binunicode8": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "binbytes": b"B\xff\xff\xff\x7f.",
    "binunicode": b"X\xff\xff\xff\xff.",
    "negative binstring": b"T\xff\xff\xff\xff.",
    "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
    "half a frame": b"\x80\x04\x95\xff\xff\0\0\0\0\0\0N.",
    "long4": b"\x8b\xff\xff\xff\x7f.",
    "protocol 6": b"\x80\x06N.",
    "long integer": b"I" + b"9" * 5000 + b"\n.",
    "no integer": b"I" + b"\x1b[2J\r" + b"x" * 5000 + b"\n.",
    "long name": b"c" + b"x" * 10_000 + b"\n\x1b[2J\n.",
    "long memo key": b"g" + b"x" * 10_000 + b"\n.",
    "surrogate": b"\x80\x04X\3\0\0\0\xed\xa0\x80X\1\0\0\0x\x93.",
    "append to an array": HARMLESS + b"Na.",
    "array built of itself": HARMLESS + b"p\x30\n(K\1(K\1tg\x30\n\x89]tb.",
    "stop without a result": b".",
    "nothing": b"",
    "dictionaries": b"}(K\1K\2u.",
    "float": b"G\0\0\0\0\0\0\0\0.",
    "pop": b"N0N1.",
    "empty tuple": b"(t.",
}


PIECES = [
    *(bytes([code]) for code in range(256)),
    *(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy._core.multiarray\n_reconstruct\n"),
    *(b"c_codecs\nencode\n", b"U\2f4", b"U\2O8", b"U\1<", b"K\0", b"K\1", b"K\3", b"h\0", b"q\0"),
    *(b"U\1b", b"U\6latin1", b"U\x0c" + b"\0" * 12, b"(NNN", b"J\xff\xff\xff\xff", b"U\1|", b"tR"),
    *(
        b"(K\1K\3t",
        b")R",
        b"tb",
        b"(t",
        b"](",
        b"e",
        b".",
        HARMLESS,
        PICKLED[:-1],
        named("execute"),
    ),
]


@fuzz(max_examples=400)
@given(data=st.data())
def test_pickles_of_any_instructions(data):
    if data.draw(st.booleans()):
        pickled = data.draw(damaged(PICKLED, PIECES))
    else:
        pickled = b"".join(data.draw(st.lists(st.sampled_from(PIECES), max_size=20))) + b"."
    EXECUTED.clear()
    read_both(zip_of(*(MEMBERS | {"strokes": npy_of("|O", "(3,)", pickled)}).items()))
    assert not EXECUTED and not hasattr(execute, "marked")


# ---------------------------------------------------------------------------------------- bombs

LIMIT = 2**21  # in place of the limit of real files
MANY = LIMIT - 2**12


def number(value):
    return b"J" + struct.pack("<i", value)


def array(shape, code, content):
    """Instructions that make an array; `content` makes its bytes or the list of its elements."""
    return b"".join(
        (
            b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\1btR(K\1(",
            b"".join(map(number, shape)) + b"tcnumpy\ndtype\n(U\2" + code + b"tR",
            b"(K\3U\1<NNN" + number(-1) + number(-1) + b"K\0tb\x89" + content + b"tb",
        )
    )


def row(size, elements):
    """A member whose array is a row."""
    return npy_of("|O", f"({size},)", array([size], b"O8", b"](" + elements + b"e") + b".")


def instructions(pickled):
    """A member with this pickle."""
    return npy_of("|O", "(1,)", pickled + b".")


def blank(size):
    """Instructions that push a text for so many bytes."""
    return b"T" + struct.pack("<i", size) + b"\0" * size


BOMBS = {
    # One byte makes an object.
    "memo": instructions(b"N" + b"\x94" * MANY),
    "lists": instructions(b"]" * MANY),
    "marks": instructions(b"(" * MANY),
    "tuples": instructions(b"N" + b"\x85" * MANY),
    # One long text is encoded over and over.
    "encode": instructions(
        b"c_codecs\nencode\nq\0(" + blank(2**20) + b"U\6latin1tq\1" + b"h\0h\1R" * 1000
    ),
    # One array is referred to over and over.
    "references": row(
        2**14, array([1000, 3], b"f4", blank(12_000)) + b"q\0" + b"h\0" * (2**14 - 1)
    ),
    # One text is the content of many arrays.
    "content": row(
        2**12,
        array([1000, 3], b"f4", blank(12_000) + b"q\0")
        + array([1000, 3], b"f4", b"h\0") * (2**12 - 1),
    ),
    # One long row is that of many arrays.
    "rows": instructions(
        b"]("
        + array([1, 3], b"f4", blank(12))
        + b"q\0"
        + b"h\0" * (2**14 - 1)
        + b"eq\1"
        + array([2**14], b"O8", b"h\1") * 2**12
    ),
    # Numbers of one byte, and sequences of one step.
    "bytes": npy_of("|i1", f"({LIMIT // 4}, 3)", bytes(LIMIT // 4 * 3)),
    "samples": npy_of("|i1", f"({LIMIT // 4}, 1, 3)", bytes(LIMIT // 4 * 3)),
    "numbers": npy_of("|i1", f"({LIMIT // 2},)", bytes(LIMIT // 2)),
    "columns": npy_of("|i1", f"({LIMIT // 4}, 1, 1)", bytes(LIMIT // 4)),
    # No numbers at all.
    "empty": npy_of("|i1", f"({2**39}, 0, 3)", b""),
    "no texts": npy_of("<U0", f"({2**39},)", b""),
    "large": npy_of("|i1", f"({LIMIT}, 3)", bytes(3 * LIMIT)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_arrays_that_are_bombs(name, monkeypatch):
    monkeypatch.setattr(*MOST_BYTES, LIMIT)
    monkeypatch.setattr(*MOST_SAMPLES, LIMIT // 100)
    data = zip_of(*(MEMBERS | {"strokes": BOMBS[name]}).items())
    assert len(data) < LIMIT / 20
    with bounded(40 * LIMIT):
        read_both(data)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("is_honest", [True, False])
def test_zips_that_are_bombs(compression, is_honest, monkeypatch):
    monkeypatch.setattr(*MOST_BYTES, LIMIT)
    size = 16 * LIMIT
    data = zip_of(("a", npy_of("|i1", f"({size},)", bytes(size))), compression=compression)
    assert len(data) < LIMIT / 10
    if not is_honest:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            declared = archive.infolist()[0].file_size
        data = data.replace(struct.pack("<I", declared), struct.pack("<I", LIMIT))
    with bounded(8 * LIMIT):
        assert read_both(data) == (None, None)


def test_one_sequence_has_only_so_many_steps(monkeypatch):
    monkeypatch.setattr(*MOST_STEPS, 2)
    lines = parse_npz(zip_of(("a", member_of(STEPS)), ("b", member_of(STEPS[:2]))))
    assert lines["a"] == "has 3 steps, at most 2 are accepted"
    assert_line(lines["b"])


# --------------------------------------------------------------------------------------- images

AMAT = b"0 1 1 0 \n1 1 0 0 \n0 0 0 1 \n"
IDX = struct.pack(">4I", 0x803, 4, 5, 3) + bytes(range(200, 256)) + bytes(4)
PACKINGS = {"": bytes, ".gz": lambda data: gzip.compress(data, mtime=0), ".xz": lzma.compress}
IMAGE_TOKENS = [*b"0 2 -1 1.0 \xfd7zXZ\0 \x1f\x8b\x08".split(b" "), b"1 ", b"\n", b"\r\n", b"\t"]


def read_images(data, *_):
    """The pixels, or None if there is a fault."""
    images = read(parse_images, data)
    for pixels in (images or {}).values():
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.size > 0
    return images


IMAGE_BOMBS = {
    "one line": b"0 " * 2**23,
    "small images": b"0\n" * 2**18,
    "no images": b"\n" * 2**18,
    "many": (b"0 " * 400 + b"\n") * 2**14,
    "declared": struct.pack(">4I", 0x803, 2**32 - 1, 1024, 1024) + bytes(2**24),
    "there": struct.pack(">4I", 0x803, 2**24, 1, 1) + bytes(2**24),
    "header": struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1),
}


@pytest.mark.parametrize("ending", PACKINGS)
@pytest.mark.parametrize("name", IMAGE_BOMBS)
def test_images_that_are_bombs(folder, name, ending, monkeypatch):
    monkeypatch.setattr(mnist, "MAX_FILE_BYTES", 2**22)
    monkeypatch.setattr(mnist, "_MAX_IMAGES", 2**14)
    path = folder / f"bomb{ending}"
    path.write_bytes(PACKINGS[ending](IMAGE_BOMBS[name]))
    with bounded(2**26):
        parsed = raw_files.parse_file(path, parse_images, max_bytes=2**22)
    assert parsed.content is None
    assert_one_line(parsed.fault)


# ---------------------------------------------------------------------------------------- audio

WAVE = 0.5 * np.sin(np.arange(300.0))
STEREO = np.stack([WAVE, -0.25 * WAVE], axis=1)
SOUNDS = {
    "wav": (WAVE, {"format": "WAV", "subtype": "PCM_16"}),
    "float wav": (WAVE, {"format": "WAV", "subtype": "FLOAT"}),
    "adpcm wav": (WAVE, {"format": "WAV", "subtype": "IMA_ADPCM"}),
    "extensible wav": (STEREO, {"format": "WAVEX", "subtype": "PCM_24"}),
    "flac": (STEREO, {"format": "FLAC", "subtype": "PCM_16"}),
    "mp3": (WAVE, {"format": "MP3"}),
    "ogg": (WAVE, {"format": "OGG"}),
    "sphere": (WAVE, {"format": "NIST", "subtype": "PCM_16"}),
    "opus": (WAVE, {"format": "OGG", "subtype": "OPUS"}),
    "aiff": (WAVE, {"format": "AIFF", "subtype": "PCM_16"}),
    "au": (WAVE, {"format": "AU", "subtype": "PCM_16"}),
    "rf64": (WAVE, {"format": "RF64", "subtype": "PCM_16"}),
}
SOUND_TOKENS = [
    *(b"RIFF", b"WAVE", b"fmt ", b"data", b"LIST", b"fLaC", b"OggS", b"ID3\3\0\0\x7f\x7f\x7f\x7f"),
    *(b"NIST_1A\n", b"sample_count -i 99\n", b"sample_coding -s3 a,b\n", b"end_head", b"\xff\xfb"),
    *(b"\0\0\xc0\x7f", b"\0\0\x80\xff", b"\xff\xff\x7f\x7f", b"Xing", b"Info", b"\n", b"9" * 20),
]


def sound_of(name, rate=16_000):
    samples, options = SOUNDS[name]
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **options)
    return file.getvalue()


def read_sound(folder, data, decoding):
    """What is decoded of it, [samples], or None if there is a fault."""
    path = folder / "sound"
    path.write_bytes(data)
    blocks = []

    def decode(path):
        return audio.decode(path, decoding, lambda block: blocks.append(block.copy()))

    sound = read(decode, path)
    for block in blocks:  # even those before a fault
        assert block.ndim == 1 and block.dtype in (np.int16, np.float32)
        assert np.isfinite(block).all()
    if sound is None:
        return None
    samples = np.concatenate(blocks)
    assert len(samples) == sound.num_samples >= decoding.min_samples
    assert samples.dtype == sound.dtype
    assert audio.MIN_RATE_HZ <= sound.sample_rate_hz <= audio.MAX_RATE_HZ
    return samples


DECODINGS = st.builds(
    audio.Decoding,
    sample_rate_hz=st.sampled_from([0, 16_000, 22_050]),
    resamples=st.booleans(),
    mixes_channels=st.booleans(),
    always_int16=st.booleans(),
    min_samples=st.sampled_from([1, 200]),
)


def read_any_sound(data, folder, draw=None):
    mixing = audio.Decoding(mixes_channels=True)
    return read_sound(folder, data, draw(DECODINGS) if draw else mixing)


LONG_SPHERE = b"NIST_1A\n   1024\nsample_count -i %s\nsample_coding -s3 %s\nend_head\n"
FMT = b"RIFF\xff\xff\xff\xffWAVEfmt "
REFUSED_SOUNDS = {
    "count": LONG_SPHERE % (b"9" * 15, b"pcm"),
    "control characters": LONG_SPHERE % (b"\x01" * 900, b"pcm"),
    "coding": LONG_SPHERE % (b"1", b"\x85,\x1b" * 300),
    "chunks": b"RIFF\xff\xff\xff\xffWAVE" + b"JUNK\0\0\0\0" * 10_000,
    "chunk": FMT + b"\xff\xff\xff\x7f" + bytes(100),
    "channels": FMT + b"\x10\0\0\0\1\0\xff\xff\x80\x3e\0\0" + bytes(8) + b"data\4\0\0\0" + bytes(4),
    "flac": b"fLaC\x84\xff\xff\xff" + bytes(100),
    "tag": b"ID3\3\0\0\x7f\x7f\x7f\x7f" + bytes(100),
    "frame": b"\xff\xfb" + bytes(10_000),
    "no frame": b"\xff" * 10_000,
    "pages": b"OggS" * 10_000,
}


# ---------------------------------------------------------------------------------------- lists

LIST = "a/b.json\n# c\n\n größe.wav\r\nd e\n".encode()
LIST_TOKENS = [*b"# / .. \xef\xbb\xbf \xc2\x85 \0".split(b" "), b"\r", b"\n", b" ", b"b\n" * 3]


def read_names(data, folder, draw=None):
    path = folder / "list.txt"
    path.write_bytes(data)
    try:
        (names,) = read_lists({"x": [path]}).values()
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 500
        return None
    assert names and len(set(names)) == len(names)
    for name in names:
        assert name == name.strip() != "" and len(name.splitlines()) == 1
    return names


# --------------------------------------------------------------------------- damaged and refused


class Kind(NamedTuple):
    """A good file, and what reads it: function (data, folder, draw or None) -> None if faulty."""

    good: bytes
    read: Callable
    tokens: list[bytes]
    num_damaged: int = 300
    starts: tuple[int, ...] = (0,)  # of what is damaged
    ends: tuple[int, ...] = (2**20,)
    pack: Callable = bytes
    # Cut at multiples of a step (0: not at all), it is content: yes, no, or as it happens (None).
    step: int = 1
    is_whole: Callable = lambda data: False


def sound_kind(name):
    may_end = (lambda data: None) if name == "mp3" else (lambda data: False)  # the end is padding
    # Most of what can go wrong is at the beginning.
    good, ends = sound_of(name), (60, 200, 2**20)
    return Kind(good, read_any_sound, SOUND_TOKENS, 120, ends=ends, step=7, is_whole=may_end)


def zip_kind(compression):
    good = zip_of(*MEMBERS.items(), compression=compression)
    tokens = [b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"\x0e\0", b"\x0c\0", b"\n"]
    # Its directory is at the end.
    starts = (0, good.index(b"PK\1\2"))
    return Kind(good, lambda data, *_: read_both(data), tokens, starts=starts, step=0)


def image_kind(good, ending):
    def is_whole(data):  # a text may well end earlier
        counts = {len(line.split()) for line in data.splitlines()}
        return good is AMAT and not ending and counts in ({1}, {4})

    pack = PACKINGS[ending]
    return Kind(good, read_images, IMAGE_TOKENS, 150, pack=pack, is_whole=is_whole)


KINDS = {
    "linestrokes": Kind(XML, reads_line(parse_line), XML_TOKENS),
    "inkml": Kind(INKML, reads_line(parse_ink), XML_TOKENS),
    "json": Kind(JSON, reads_line(parse_ink), JSON_TOKENS),
    "stored zip": zip_kind(zipfile.ZIP_STORED),
    "deflated zip": zip_kind(zipfile.ZIP_DEFLATED),
    **{f"amat{ending}": image_kind(AMAT, ending) for ending in PACKINGS},
    **{f"idx{ending}": image_kind(IDX, ending) for ending in PACKINGS},
    **{name: sound_kind(name) for name in SOUNDS},
    "list": Kind(LIST, read_names, LIST_TOKENS, step=0),
}


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files(name, folder):
    kind = KINDS[name]

    @fuzz(kind.num_damaged)
    @given(data=st.data())
    def attack(data):
        is_outside = kind.pack is bytes or data.draw(st.booleans())
        good = kind.pack(kind.good) if is_outside else kind.good
        start, end = data.draw(st.sampled_from(kind.starts)), data.draw(st.sampled_from(kind.ends))
        content = good[:start] + data.draw(damaged(good[start:end], kind.tokens)) + good[end:]
        kind.read(content if is_outside else kind.pack(content), folder, data.draw)

    attack()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.step])
def test_files_cut_anywhere(name, folder):
    kind = KINDS[name]
    good = kind.pack(kind.good)
    assert kind.read(good, folder) is not None
    for size in range(0, len(good), kind.step):
        is_content = kind.read(good[:size], folder) is not None
        assert is_content == kind.is_whole(good[:size]) or kind.is_whole(good[:size]) is None


def pickle_of(pickled):
    return zip_of(("a", npy_of("|O", "(1,)", pickled)))


REFUSED_NAMES = {"line": "a\n", "terminal": "\x1b[2J", "long": "x" * 60_000}
# What must be refused, who reads it, and in how much memory.
REFUSALS = {
    "ink": (REFUSED_INK, str.encode, reads_line(parse_ink), 2**27),
    "linestrokes": (REFUSED_LINES, str.encode, reads_line(parse_line), 2**27),
    "name": (
        REFUSED_NAMES,
        lambda name: zip_of((name, MEMBERS["stack"])),
        lambda data, *_: next((x for x in read_both(data) if x is not None), None),
        2**27,
    ),
    "pickle": (REFUSED, pickle_of, lambda data, *_: read(parse_npz, data), 2**22),
    "sound": (REFUSED_SOUNDS, bytes, read_any_sound, 2**24),
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (files, *_) in REFUSALS.items() for name in files]
)
def test_what_is_refused_soon(kind, name, folder, tmp_path, monkeypatch):
    files, make, read_file, max_bytes = REFUSALS[kind]
    monkeypatch.chdir(tmp_path)
    EXECUTED.clear()
    data = make(files[name])
    with bounded(max_bytes):
        assert read_file(data, folder) is None
    assert not EXECUTED and not hasattr(execute, "marked") and not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------ whole commands


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def iamondb_source(root):
    for line_id in ("a01-000u-01", "a01-000u-02", "b07-113-01"):
        path = f"raw/lineStrokes/{line_id[:3]}/{line_id[:7]}/{line_id}.xml"
        write(root, {path: XML.replace(b"13", line_id[-1:].encode())})
    write(root, {"lists/train.txt": b"a01-000u", "lists/valid.txt": b"b07-113"})
    options = {"split": str(root / "lists"), "normalization": "vrnn", "workers": 1}
    return iamondb.prepare, options, "a01/a01-000/a01-000u-02.xml", "raw/lineStrokes"


def ink_source(root):
    names = ("train/a.json", "train/b.json", "train/c.inkml", "valid/a.json")
    write(root, {f"raw/{name}": INKML if name.endswith("inkml") else JSON for name in names})
    options = {"split": "folders", "normalization": "channel", "workers": 1}
    options |= {"valid_share": 0.0, "test_share": 0.0}
    return ink.prepare, options, "train/b.json", "raw"


def wav_source(root):
    files = (("train/a", "wav"), ("train/b", "flac"), ("valid/a", "mp3"))
    write(root, {f"raw/{name}.{form}": sound_of(form) for name, form in files})
    options = {"split": "folders", "frame_size": 7, "mix_channels": True}
    return wav.prepare, options, "train/b.flac", "raw"


def timit_source(root):
    names = {"train": ["A/1.WAV", "A/2.WAV"], "valid": ["B/1.WAV"], "test": ["C/1.WAV"]}
    write(root, {f"lists/{split}.txt": "\n".join(part).encode() for split, part in names.items()})
    for name in sum(names.values(), []):
        samples = np.random.default_rng(len(name)).normal(0, 0.1, 8200)
        file = io.BytesIO()
        soundfile.write(file, samples, 16_000, format="NIST", subtype="PCM_16")
        write(root, {f"raw/{name}": file.getvalue()})
    options = {"split": str(root / "lists"), "sequences_multiple": 1}
    return timit.prepare, options, "A/2.WAV", "raw"


BAD = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "noise": lambda data: bytes(range(256)) * 4,
}


@pytest.mark.parametrize("make", [iamondb_source, ink_source, wav_source, timit_source])
def test_one_bad_file_among_good_ones(tmp_path, make, read_back, capsys):
    from stcn_tf.data.card import read_card

    prepare, options, name, folder = make(tmp_path)
    path, out = tmp_path / folder / name, tmp_path / "out"
    good = path.read_bytes()
    before = sorted(os.listdir(tmp_path))
    # The others are as if it had never been there.
    path.unlink()
    prepare(tmp_path / "raw", out, skip_bad=True, **options)
    others = {split: read_back(out, split) for split in read_card(out).splits}
    shutil.rmtree(out)
    for damage in BAD.values():
        path.write_bytes(damage(good))
        with pytest.raises(UserError) as error:
            prepare(tmp_path / "raw", out, skip_bad=False, **options)
        assert len(str(error.value).splitlines()) == 1
        assert f"{name}: " in str(error.value) and "--skip_bad" in str(error.value)
        # What was decoded stays, so that the same command goes on from there.
        assert sorted({*os.listdir(tmp_path)} - {".out.decoded"}) == before
        capsys.readouterr()
        prepare(tmp_path / "raw", out, skip_bad=True, **options)
        card = read_card(out)
        assert list(card.extra["skipped"]) == [name] and card.extra["skipped"][name]
        assert f"skipped {name}: " in capsys.readouterr().out
        assert sorted({*os.listdir(tmp_path)} - {"out"}) == before
        assert list(card.splits) == list(others)
        for split, expected in others.items():
            found = read_back(out, split)
            assert list(found) == list(expected) and found
            for key, x in expected.items():
                np.testing.assert_array_equal(found[key], x)
        shutil.rmtree(out)


@pytest.mark.parametrize("make", [iamondb_source, ink_source])
def test_text_that_would_fill_the_memory_is_not_read(tmp_path, make):
    prepare, options, name, folder = make(tmp_path)
    os.truncate(tmp_path / folder / name, 2**26 + 1)
    with pytest.raises(UserError, match=f"{name}: has 67108865 bytes, at most 67108864 are acc"):
        prepare(tmp_path / "raw", tmp_path / "out", skip_bad=False, **options)


def deepwriting_files(root):
    names = ("deepwriting_training.npz", "deepwriting_validation.npz")
    write(root / "raw", {name: zip_of(*MEMBERS.items()) for name in names})
    options = {"normalization": "channel", "valid_share": 0.1, "test_share": 0.0}
    options |= {"skip_bad": True, "workers": 1}
    return deepwriting.prepare, root / "raw", options, names[1]


def ink_file(root):
    (root / "ink.npz").write_bytes(zip_of(*MEMBERS.items()))
    options = {"normalization": "vrnn", "split": "random", "valid_share": 0.5, "test_share": 0.0}
    return ink.prepare, root / "ink.npz", options | {"skip_bad": True, "workers": 1}, "."


def mnist_texts(root):
    write(root / "raw", {f"{name}.amat.xz": lzma.compress(AMAT) for name in mnist.SPLITS})
    return mnist.prepare, root / "raw", {"workers": 1}, "valid.amat.xz"


def mnist_idx(root):
    names = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")
    write(root / "raw", {name: gzip.compress(IDX) for name in names})
    options = {"binarization": "fixed", "num_valid": 1, "seed": 0, "workers": 1}
    return mnist.prepare, root / "raw", options, names[1]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("make", [deepwriting_files, ink_file, mnist_texts, mnist_idx])
def test_a_bad_file_that_cannot_be_left_out(tmp_path, make, bad):
    prepare, source, options, name = make(tmp_path)
    path = source / name
    path.write_bytes(BAD[bad](path.read_bytes()))
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError) as error:
        prepare(source, tmp_path / "out", **options)
    assert len(str(error.value).splitlines()) == 1 and f"{path}: " in str(error.value)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("make", "kept", "name"),
    [
        (deepwriting_files, MEMBERS, "deepwriting_validation.npz, sample 2"),
        (ink_file, (), "strokes/000002"),
    ],
)
def test_one_bad_sequence_among_good_ones(tmp_path, make, kept, name, read_back):
    from stcn_tf.data.card import read_card

    prepare, source, options, path = make(tmp_path)
    path = source / path
    bad_last = row_of(ROW[0], ROW[1], STEPS * np.float32("nan"))

    def put(row):
        members = {key: MEMBERS[key] for key in kept} | {"strokes": member_of(row)}
        path.write_bytes(zip_of(*members.items()))

    put(bad_last)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError) as error:
        prepare(source, tmp_path / "out", **options | {"skip_bad": False})
    assert len(str(error.value).splitlines()) == 1
    assert f"{name}: step 0 has dx, dy = nan, nan" in str(error.value)
    assert sorted(os.listdir(tmp_path)) == before

    prepare(source, tmp_path / "out", **options)
    card = read_card(tmp_path / "out")
    assert card.extra["skipped"] == {name: "step 0 has dx, dy = nan, nan"}
    assert sorted({*os.listdir(tmp_path)} - {"out"}) == before
    put(bad_last[:2])
    prepare(source, tmp_path / "other", **options)
    found, expected = (
        {key: x for split in card.splits for key, x in read_back(tmp_path / out, split).items()}
        for out in ("out", "other")
    )
    assert found.keys() == expected.keys()
    for key, x in expected.items():
        # Which of them are in train may differ, and with it how they are rounded.
        np.testing.assert_allclose(found[key], x, rtol=1e-5, atol=1e-5)
