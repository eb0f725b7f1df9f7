"""InkML as its recommendation has it: exact points of each kind of value, context and reference."""

import numpy as np
import pytest

from data_prep.common import inkml, xml_files
from data_prep.common.inkml import parse_inkml
from data_prep.common.raw_files import FileFault

HEAD = '<ink xmlns="http://www.w3.org/2003/InkML" xmlns:x="urn:x">'


def strokes_of(body, head=HEAD, **options):
    """The strokes, each a list of points, y downwards, from the first point on."""
    offsets = parse_inkml(f"{head}{body}</ink>".encode(), **options).offsets
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(offsets[:, :2] * (1, -1), axis=0)])
    ends = np.flatnonzero(offsets[:-1, 2]) + 2
    return [stroke.tolist() for stroke in np.split(points, ends)]


def channels(*names, rest=""):
    return "".join(f'<channel name="{name}"/>' for name in names) + rest


def form(*names, attributes="", rest=""):
    return f"<traceFormat {attributes}>{channels(*names, rest=rest)}</traceFormat>"


def trace(text, attributes=""):
    return f"<trace {attributes}>{text}</trace>"


def context(name, inside="", attributes=""):
    return f'<context xml:id="{name}" {attributes}>{inside}</context>'


def definitions(*inside):
    return f"<definitions>{''.join(inside)}</definitions>"


POINTS = [[0, 0], [10, 40], [20, 0]]
PLAIN = "1 2, 11 42, 21 2"
# The points of PLAIN where Y comes before X.
YX = "2 1, 42 11, 2 21"
BOOLEANS = '<intermittentChannels><channel name="S1" type="boolean"/><channel name="S2"/>'
BOOLEANS += "</intermittentChannels>"
XYF = form("X", "Y", "F")

VALUES = {
    "explicit": ("", "1 2, !11 42, 21 !2", POINTS),
    "comma at the end": ("", "1 2,11 42,21 2, ", POINTS),
    "white space": ("", " \n1\t2 ,11 42,\r\n21 2 ", POINTS),
    "signs": ("", "1-2,11-42,21-2", [[0, 0], [10, -40], [20, 0]]),
    "plus": ("", "+1+2,+11+42,21+2", POINTS),
    "first differences": ("", "1 2,'10'40,10-40", POINTS),
    "space behind a prefix": ("", "1 2,' 10 ' 40,10 - 40", POINTS),
    "of one channel": ("", "1 2,'10 42,10 2", POINTS),
    "explicit again": ("", "1 2,'10'40,!21!2", POINTS),
    "second differences": ("", "0 0,'10'20,\"2\"-4,3-5", [[0, 0], [10, 20], [22, 36], [37, 47]]),
    # The example of the recommendation.
    "example": (
        form("X", "Y", rest=BOOLEANS.replace('name="S2"', 'name="S2" type="boolean"')),
        "1125 18432,'23'43,\"7\"-8,3-5,7 -3,6 2,6 8 T,2 4*T,3 6,3 6 FF",
        [
            *([0, 0], [23, 43], [53, 78], [86, 108], [126, 135]),
            *([172, 164], [224, 201], [278, 242], [335, 289], [395, 342]),
        ],
    ),
    "hexadecimal": ("", "#1 #2,#B #2A,#15#2", POINTS),
    "negative hexadecimal": ("", "1 2,'#A'#28,#a-#28", POINTS),
    "decimal and double": ("", "1. 2.0,1.1E1 4.2e+1,.21E2 200e-2", POINTS),
    "fractions": ("", ".5.25,10.5 40.25,20.5.25", POINTS),
    "wildcard explicit": ("", "1 2,11 42,*2", [[0, 0], [10, 40], [10, 0]]),
    "wildcard first": ("", "1 2,'10'20,**", [[0, 0], [10, 20], [20, 40]]),
    "wildcard second": ("", "0 0,'1'2,\"1\"1,**,* 0", [[0, 0], [1, 2], [3, 5], [6, 9], [10, 13]]),
    "more channels": (XYF, "1 2 F, 11 42?, 21 2*", POINTS),
    "missing at the end": (XYF, "1 2 5, 11 42, 21 2", POINTS),
    "glued symbol in front": (form("S", "X", "Y"), "T1 2,F11 42,*21 2", POINTS),
    "glued number in front": (
        form("S", "X", "Y"),
        "5-1-2,5-11-42,5.1-21-2",
        [[0, 0], [-10, -40], [-20, 0]],
    ),
    "glued to X": (
        form("T", "X", "Y", "F"),
        "5-1 2 0,5-11 42 0,5-21 2 0",
        [[0, 0], [-10, 40], [-20, 0]],
    ),
    "glued difference": (form("T", "X", "Y"), "0 1 2,'8'10'40,8 10-40", POINTS),
    "intermittent": (form("X", "Y", rest=BOOLEANS), "1 2,11 42 T,21 2F5", POINTS),
    "order": (form("Y", "T", "X"), "2 0 1,42 1 11,2 2 21", POINTS),
    "regular channels": (
        f"<traceFormat><regularChannels>{channels('Y', 'X')}</regularChannels></traceFormat>",
        YX,
        POINTS,
    ),
    "empty format": ("<traceFormat/>", PLAIN, POINTS),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    before, text, expected = VALUES[name]
    np.testing.assert_allclose(strokes_of(before + trace(text)), [expected], rtol=1e-6)


def source(*inside, name="s"):
    return f'<inkSource xml:id="{name}">{"".join(inside)}</inkSource>'


P = context("p", source(XYF))
M = context("m", source(form("Y", "X"), name="t"))
PXYF = "1 2 9,11 42 9,21 2 9"
Y_UP = (
    '<traceFormat xml:id="u"><channel name="X"/><channel name="Y" orientation="-ve"/></traceFormat>'
)
UP = [[0, 0], [10, -40], [20, 0]]
# Each is one stroke, POINTS.
CONTEXTS = {
    "by contextRef": definitions(P, M) + trace(YX, 'contextRef="#m"'),
    "defined later": trace(YX, 'contextRef="#m"') + definitions(P, M),
    "of a group": definitions(P, M) + f'<traceGroup contextRef="#m">{trace(YX)}</traceGroup>',
    "of the trace in a group": definitions(P, M)
    + '<traceGroup contextRef="#p">'
    + trace(YX, 'contextRef="#m"')
    + "</traceGroup>",
    "by traceFormatRef": definitions(form("Y", "X", attributes='xml:id="f"'), XYF)
    + context("c", attributes='traceFormatRef="#f"')
    + trace(YX, 'contextRef="#c"'),
    "by inkSourceRef": definitions(source(form("Y", "X")), P)
    + context("c", attributes='inkSourceRef="#s"')
    + trace(YX, 'contextRef="#c"'),
    "inherited": definitions(P, M, context("c", "<brush/>", 'contextRef="#m"'))
    + trace(YX, 'contextRef="#c"'),
    "overridden": definitions(P, M, context("c", form("Y", "X"), 'contextRef="#p"'))
    + trace(YX, 'contextRef="#c"'),
    "in force": definitions(P) + M + trace(YX),
    "in force, by reference": definitions(P, M) + '<context contextRef="#m"/>' + trace(YX),
    "changed": definitions(M) + P + '<context contextRef="#m"/>' + trace(YX),
    "the only one": definitions(M) + trace(YX),
    "only a brush": definitions(M, context("b", attributes='brushRef="#r"'))
    + trace(YX, 'contextRef="#b" brushRef="#r"'),
    "a brush meanwhile": definitions(P) + M + context("b", attributes='brushRef="#r"') + trace(YX),
    "a brush of the trace": M
    + definitions(P, context("b", '<brush xml:id="r"/>'))
    + trace(YX, 'contextRef="#b"'),
    "default": definitions(P, M) + trace(PLAIN),
    "default in place of another": definitions(P)
    + M
    + trace(PLAIN, 'contextRef="#DefaultContext"'),
    "default format": M
    + '<context traceFormatRef="#DefaultTraceFormat" inkSourceRef="#DefaultInkSource"/>'
    + trace(PLAIN),
    "named default": P + trace(PLAIN, 'contextRef="#DefaultContext"'),
    "without an id": form("Y", "X") + trace(YX),
    "of a canvas": '<canvas><traceFormat><channel name="Y"/></traceFormat></canvas>' + trace(PLAIN),
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_contexts(name):
    assert strokes_of(CONTEXTS[name]) == [POINTS]


def test_each_trace_has_its_own_context():
    body = definitions(P, M) + trace(PXYF, 'contextRef="#p"') + trace(YX, 'contextRef="#m"')
    first, second = strokes_of(body)
    assert first == POINTS and second == POINTS


def xy(x="", y=""):
    return f'<channel name="X" {x}/><channel name="Y" {y}/>'


def scaled(x, y, source_channels=""):
    properties = "".join(
        f'<channelProperty channel="{name}" name="resolution" {text}/>'
        for name, text in (("X", x), ("Y", y))
        if text
    )
    inside = f"<traceFormat>{source_channels or xy()}</traceFormat>"
    return source(inside, f"<channelProperties>{properties}</channelProperties>")


def transform(rows, kind="affine", rest=""):
    return (
        f'<canvasTransform xml:id="w"><mapping type="{kind}">{rest}<affine>{rows}</affine>'
        "</mapping></canvasTransform>"
    )


AXES = {
    "y upwards": (Y_UP, UP),
    "x to the left": (
        f"<traceFormat>{xy('orientation=' + repr('-ve'))}</traceFormat>",
        [[0, 0], [-10, 40], [-20, 0]],
    ),
    "units": (
        f"<traceFormat>{xy('units=' + repr('mm'), 'units=' + repr('cm'))}</traceFormat>",
        [[0, 0], [10, 400], [20, 0]],
    ),
    "one unit": (f"<traceFormat>{xy('units=' + repr('mm'))}</traceFormat>", POINTS),
    "same unknown unit": (
        f"<traceFormat>{xy('units=' + repr('dev'), 'units=' + repr('dev'))}</traceFormat>",
        POINTS,
    ),
    "resolution": (
        scaled('value="1000" units="1/cm"', 'value="500" units="1/cm"'),
        [[0, 0], [10, 80], [20, 0]],
    ),
    "resolution and its units": (
        scaled('value="254" units="1/in"', 'value="200" units="1/cm"'),
        [[0, 0], [10, 20], [20, 0]],
    ),
    "resolution rather than units": (
        scaled(
            'value="100" units="1/mm"', 'value="1000" units="1/cm"', xy("units='mm'", "units='cm'")
        ),
        POINTS,
    ),
    "resolution as a length": (
        scaled('value="0.1" units="mm"', 'value="0.02" units="cm"'),
        [[0, 0], [10, 80], [20, 0]],
    ),
    "same resolution": (scaled('value="7" units="1/in"', 'value="7" units="1/in"'), POINTS),
    "transform": (transform("2 0 5, 0 3 7"), [[0, 0], [20, 120], [40, 0]]),
    "transform upwards": (transform("1 0 0, 0 -1 100"), UP),
    "rotation": (transform("0 -1 0, 1 0 0"), [[0, 0], [-40, 10], [0, 20]]),
    "without a shift": (transform("2 0, 0 2"), [[0, 0], [20, 80], [40, 0]]),
    "identity": ('<canvasTransform><mapping type="identity"/></canvasTransform>', POINTS),
    "without a mapping": ("<canvasTransform/>", POINTS),
    "in a context": (context("c", transform("2 0 5, 0 3 7")), [[0, 0], [20, 120], [40, 0]]),
    "by reference": (
        definitions(transform("2 0 5, 0 3 7")) + '<context canvasTransformRef="#w"/>',
        [[0, 0], [20, 120], [40, 0]],
    ),
    "mapping by reference": (
        definitions('<mapping xml:id="a" type="affine"><affine>2 0 5, 0 3 7</affine></mapping>')
        + '<canvasTransform><mapping mappingRef="#a"/></canvasTransform>',
        [[0, 0], [20, 120], [40, 0]],
    ),
    "bound": (
        transform(
            "0 3 7, 2 0 5",
            rest='<bind source="X"/><bind source="Y"/><bind target="Y"/><bind target="X"/>',
        ),
        [[0, 0], [20, 120], [40, 0]],
    ),
    "canvas upwards": (
        context("c", f"<canvas>{Y_UP}</canvas>" + transform("2 0 5, 0 3 7")),
        [[0, 0], [20, -120], [40, 0]],
    ),
}


@pytest.mark.parametrize("name", AXES)
def test_axes(name):
    before, expected = AXES[name]
    np.testing.assert_allclose(strokes_of(before + trace(PLAIN)), [expected], rtol=1e-6)


def test_a_matrix_has_the_columns_of_the_format():
    body = XYF + transform("2 0 0 5, 0 3 0 7") + trace(PXYF)
    assert strokes_of(body) == [[[0, 0], [20, 120], [40, 0]]]
    body = form("Y", "X") + transform("3 0 7, 0 2 5", rest='<bind target="Y"/><bind target="X"/>')
    assert strokes_of(body + trace(YX)) == [[[0, 0], [20, 120], [40, 0]]]


def test_the_axis_may_be_told_where_the_file_does_not():
    assert strokes_of(trace(PLAIN), y_axis="up") == [UP]
    assert strokes_of(trace(PLAIN), y_axis="down") == [POINTS]
    assert strokes_of(Y_UP + trace(PLAIN), y_axis="down") == [UP]


PARTS = [
    trace("1 2", 'xml:id="a" continuation="begin"'),
    trace("11 42", 'xml:id="b" continuation="middle" priorRef="#a"'),
    trace("21 2", 'continuation="end" priorRef="#b"'),
]
DOT = trace("31 2")
STROKES = {
    "continued": ("".join(PARTS), [POINTS]),
    "in between": (PARTS[0] + DOT + PARTS[1] + PARTS[2], [POINTS, [[30, 0]]]),
    "to the beginning": (
        PARTS[0] + PARTS[2].replace("#b", "#a") + DOT,
        [[[0, 0], [20, 0]], [[30, 0]]],
    ),
    "pen up": (trace(PLAIN) + trace("0 0, 1 1", 'type="penUp"') + DOT, [POINTS, [[30, 0]]]),
    "pen up continued": (
        trace("5 5", 'type="penUp" id="a"')
        + trace("6 6", 'type="penUp" continuation="end" priorRef="#a"')
        + trace(PLAIN),
        [POINTS],
    ),
    "groups": (
        f"<traceGroup><traceGroup>{trace(PLAIN)}</traceGroup>{DOT}</traceGroup>",
        [POINTS, [[30, 0]]],
    ),
    "foreign": (
        "<x:trace>5 5, 6 6</x:trace><x:context><trace>5 5</trace></x:context>"
        + trace(PLAIN + "<x:y>, 5 5</x:y>")
        + "<x:traceFormat><x:channel name='Y'/></x:traceFormat>",
        [POINTS],
    ),
    "annotation": (
        "<annotationXML><trace>5 5</trace><context id='c'/></annotationXML>" + trace(PLAIN),
        [POINTS],
    ),
    "views are labels": (
        trace(PLAIN, 'id="0"')
        + '<traceGroup xml:id="0"><traceView traceDataRef="0"/></traceGroup>',
        [POINTS],
    ),
    "nowhere": ('<traceView traceDataRef="9"/>' + trace(PLAIN), [POINTS]),
    "defined and shown": (
        definitions(trace(PLAIN, 'xml:id="a"'), trace("5 5", 'xml:id="b"'))
        + '<traceView traceDataRef="#a"/>',
        [POINTS],
    ),
    "a part": (
        definitions(trace("0 0," + PLAIN + ",9 9", 'xml:id="a"'))
        + '<traceView><traceView traceDataRef="#a" from="2" to="4"/></traceView>',
        [POINTS],
    ),
    "a group": (
        definitions(f'<traceGroup xml:id="g">{trace(PLAIN)}{DOT}</traceGroup>')
        + '<traceView traceDataRef="#g"/>',
        [POINTS, [[30, 0]]],
    ),
    "in the context of a group": (
        definitions(
            P,
            M,
            '<traceGroup contextRef="#m"><traceGroup>',
            trace(YX, 'id="a"'),
            "</traceGroup></traceGroup>",
        )
        + '<traceView contextRef="#p" traceDataRef="#a"/>',
        [POINTS],
    ),
    "in the view's context": (
        definitions(P, M, trace(YX, 'xml:id="a"'))
        + '<traceView contextRef="#m" traceDataRef="#a"/>',
        [POINTS],
    ),
}


@pytest.mark.parametrize("name", STROKES)
def test_strokes(name):
    body, expected = STROKES[name]
    assert strokes_of(body) == expected


# As programs declare it that change the encoding afterwards.
@pytest.mark.parametrize("declared", [None, "UTF-8", "utf-16"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings(encoding, declared):
    head = f'<?xml version="1.0" encoding="{declared}" standalone="yes"?>\r\n' if declared else ""
    data = f"{head}{HEAD}<annotation>größe</annotation>{trace(PLAIN)}</ink>".encode(encoding)
    assert len(parse_inkml(data).offsets) == 2


# What Office writes, but for the annotation of its recogniser.
OFFICE = """<inkml:ink xmlns:inkml="http://www.w3.org/2003/InkML" xmlns:msink="http://schemas.microsoft.com/ink/2010/main" xmlns:emma="http://www.w3.org/2003/04/emma"><inkml:definitions><inkml:context xml:id="ctx0"><inkml:inkSource xml:id="inkSrc0"><inkml:traceFormat><inkml:channel name="X" type="integer" max="3840" units="cm"/><inkml:channel name="Y" type="integer" max="2160" units="cm"/><inkml:channel name="F" type="integer" max="32767" units="dev"/></inkml:traceFormat><inkml:channelProperties><inkml:channelProperty channel="X" name="resolution" value="50" units="1/cm"/><inkml:channelProperty channel="Y" name="resolution" value="25" units="1/cm"/><inkml:channelProperty channel="F" name="resolution" value="0" units="1/dev"/></inkml:channelProperties></inkml:inkSource><inkml:timestamp xml:id="ts0" timeString="2020-01-01T00:00:00"/></inkml:context><inkml:brush xml:id="br0"><inkml:brushProperty name="width" value="0.05" units="cm"/></inkml:brush></inkml:definitions><inkml:traceGroup><inkml:annotationXML><emma:emma version="1.0"><emma:interpretation><msink:context type="inkDrawing"/></emma:interpretation></emma:emma></inkml:annotationXML><inkml:trace contextRef="#ctx0" brushRef="#br0">100 200 500,'10'20'5,"2"-4"0,3-5-1,-1 0 0</inkml:trace></inkml:traceGroup></inkml:ink>"""  # noqa: E501  # fmt: skip


def test_what_office_writes():
    offsets = parse_inkml(OFFICE.encode()).offsets
    expected = [[10, -40, 0], [12, -32, 0], [15, -22, 0], [14, -22, 1]]
    np.testing.assert_array_equal(offsets, expected)


FAULTS = {
    "1 1 1, 2 2": "stroke 1, point 1 has 3 values, more than the 2 channels (commas sepa",
    "1 1, 2 2 2 2": "stroke 1, point 2 has 4 values, more than the 2 channels",
    "1 1, 2": "stroke 1, point 2 has 1 values, too few for X and Y",
    "'1'1, 2 2": 'stroke 1, point 1 has "\'1", which is no coordinate',
    '1 1, "2"2': "stroke 1, point 2 has '\"2', which is no coordinate",
    "1 1,'2'2,!5!5,\"1\"1": "stroke 1, point 4 has '\"1', which is no coordinate",
    "1 1, ? 3": "stroke 1, point 2 has '?', which is no coordinate",
    "* 1, 2 3": "stroke 1, point 1 has '*', which is no coordinate",
    "1 1, 2 T": "stroke 1, point 2 has 'T', which is no coordinate",
    "1 1, 2 -2e9": "stroke 1, point 2 has '-2e9', which is no coordinate",
    "1 1,'9e8'0,2e8 0": "stroke 1, point 3 has '2e8', which is no coordinate",
    "1 1, 1e999 1": "stroke 1, point 2 has '1e999', which is no coordinate",
    "1 1, #": "stroke 1, point 2 has '#', which is no value",
    "1 1," + " " * 99 + "x": "stroke 1, point 2 has 'x', which is no value",
    "1 1; 2 2": "stroke 1, point 1 has ';', which is no value",
    "1 1, 2 --3": "stroke 1, point 2 has '--3', which is no value",
}


@pytest.mark.parametrize("text", FAULTS)
def test_faults_of_values(text):
    with pytest.raises(FileFault) as error:
        strokes_of(trace(text))
    assert str(error.value).startswith(FAULTS[text])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (trace(PLAIN, 'contextRef="#no"'), "contextRef is '#no', which is no context of this file"),
        (
            context("c", attributes='traceFormatRef="#f"'),
            "traceFormatRef is '#f', which is no trace",
        ),
        (
            definitions(context("c", attributes='contextRef="#c"'))
            + trace(PLAIN, 'contextRef="#c"'),
            "a context refers to itself",
        ),
        (form("X", "X", "Y") + trace(PLAIN), "its traceFormat has two channels X"),
        (form("X", rest=BOOLEANS) + trace(PLAIN), "its traceFormat has no X and Y, only 'X'"),
        (
            f"<traceFormat>{xy(y='type=' + repr('boolean'))}</traceFormat>" + trace(PLAIN),
            "Y is of the type 'boolean'",
        ),
        (
            f"<traceFormat>{xy(y='orientation=' + repr('left'))}</traceFormat>" + trace(PLAIN),
            "the orientation of Y is 'left'",
        ),
        (
            f"<traceFormat>{xy('units=' + repr('dev'), 'units=' + repr('cm'))}</traceFormat>"
            + trace(PLAIN),
            "X and Y have the units 'dev' and 'cm'",
        ),
        (scaled('value="5" units="1/cm"', "") + trace(PLAIN), "has a resolution of X alone"),
        (scaled('value="5"', 'value="0"') + trace(PLAIN), "the resolution of Y is no number but 0"),
        (scaled('value="5"', 'value="nan"') + trace(PLAIN), "the units of X and Y differ by more"),
        (
            "<traceFormat><channel name='X'><mapping type='lookup'/></channel><channel name='Y'/>"
            + "</traceFormat>"
            + trace(PLAIN),
            "the channel X has a mapping",
        ),
        (
            transform("", "lookup") + trace(PLAIN),
            "has a canvasTransform of type 'lookup'; accepted: affine",
        ),
        (
            transform("1 0 0, 0 1") + trace(PLAIN),
            "the affine mapping of its canvasTransform is no mat",
        ),
        (
            transform("1 0 0") + trace(PLAIN),
            "the affine mapping of its canvasTransform has the shape [1, 3]",
        ),
        (
            transform("nan 0 0, 0 1 0") + trace(PLAIN),
            "the affine mapping of its canvasTransform has",
        ),
        (transform("9e8 0 0, 0 9e8 0") + trace(PLAIN), "stroke 1 goes beyond 1e+09"),
        (
            XYF + transform("1 0 2 0, 0 1 0 0") + trace(PXYF),
            "its canvasTransform makes X and Y of other",
        ),
        (trace(PLAIN, 'type="PenUp"'), "the type of stroke 1 is 'PenUp'; accepted: penDown, penUp"),
        (trace(PLAIN, 'continuation="mid"'), "the continuation of stroke 1 is 'mid'; accepted: b"),
        (trace(PLAIN, 'contextRef="#DefaultBrush"'), "contextRef is '#DefaultBrush', which is no"),
        (
            trace("1 1", 'continuation="end" priorRef="#t1"'),
            "stroke 1 continues 't1', no trace before",
        ),
        (
            trace("1 1") + trace("2 2", 'continuation="middle"'),
            "stroke 2 continues '', no trace before",
        ),
        (
            trace("1 1", 'id="a" type="penUp"') + trace("2 2", 'continuation="end" priorRef="#a"'),
            "stroke 1 continues one of an",
        ),
        (trace("1 1" + trace("2 2")), "a trace contains another trace"),
        (
            trace("1 1") + '<traceView traceDataRef="b.inkml#t"/>',
            "a traceView shows 'b.inkml#t', which is in an",
        ),
        (
            definitions(trace(PLAIN, "id='a'")) + "<traceView traceDataRef='a' from='2' to='9'/>",
            "a traceView shows points '2' to '9' of 3",
        ),
        (
            definitions(trace(PLAIN, "id='a'")) + "<traceView traceDataRef='a' from='1:2'/>",
            "a traceView shows points '1:2' to '3' of 3",
        ),
        (
            definitions("<traceGroup id='a'/>") + "<traceView traceDataRef='a' from='1'/>",
            "a traceView shows a part of a group",
        ),
        (
            definitions("<traceGroup id='a'><traceView traceDataRef='a'/></traceGroup>")
            + "<traceView traceDataRef='a'/>",
            "a traceView shows what holds another traceView",
        ),
        ("<x:a>" * 120 + "</x:a>" * 120, "has elements in 100 others"),
    ],
)
def test_faults_of_documents(body, message):
    with pytest.raises(FileFault) as error:
        strokes_of(body)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "body",
    [
        definitions(trace(PLAIN, "id='a'")) + "<traceView traceDataRef='a' to='1'/>" * 3000,
        definitions("<traceGroup id='a'>" + trace("1 1", "type='penUp'") * 300 + "</traceGroup>")
        + "<traceView traceDataRef='a'/>" * 300,
        definitions(source(form(*["X", "Y", *"F" * 300])))
        + "".join(
            f"{context('c', '<canvas/>', 'inkSourceRef=' + repr('#s'))}<trace>1 1</trace>"
            for _ in range(300)
        ),
        definitions(source("<activeArea/>" * 300)) + "<context inkSourceRef='#s'/>" * 300,
    ],
    ids=["views", "groups", "formats", "sources"],
)
def test_references_do_not_multiply(body, monkeypatch):
    monkeypatch.setattr(inkml, "_MAX_WORK", 5000)
    with pytest.raises(FileFault, match="^stands for more than 5000 points and elements$"):
        strokes_of(body)


def test_tags_are_limited(monkeypatch):
    monkeypatch.setattr(xml_files, "_MAX_TAGS", 1000)
    with pytest.raises(FileFault, match="^has more than 1000 tags$"):
        strokes_of("<x:a/>" * 1000)
