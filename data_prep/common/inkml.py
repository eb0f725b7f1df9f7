"""InkML (W3C Recommendation, 2011): the strokes of a document.

Each `trace` is a stroke, and traces that continue one another are one. Left out are traces of the
type penUp, those in `definitions` that no `traceView` shows, and elements of other vocabularies.
Values are explicit (!), first (') or second differences (") of decimal, hexadecimal or wildcard *.
X and Y are found by the `traceFormat` of the trace's context: that which the trace or a group
around it names, else the one in force there, else the only `traceFormat` of the file, else X Y. y
grows downwards unless the orientation of Y is -ve. Where units or resolution of X and Y differ, y
is put in those of X. Of `canvasTransform`, the identity and affine mappings are applied.
"""

import re
from array import array
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from data_prep.common.handwriting import MAX_COORDINATE, Line, line_of_strokes
from data_prep.common.raw_files import FileFault
from data_prep.common.xml_files import parse_xml

_NAMESPACE = "http://www.w3.org/2003/InkML"
_XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
_MAX_DEPTH = 100  # of elements
_MAX_WORK = 2**23  # points and elements looked at, however often they are referred to
_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "in": 0.0254, "pt": 0.0254 / 72, "pc": 0.0254 / 6}
_POINT = re.compile(r"(?:\A|,)([^,]*+)")
# A value: its prefix and a symbol, or its prefix, sign and number; or what is none. (Possessive, so
# that the time grows with the length only.)
_VALUE = re.compile(
    r"([!'\"]?+)\s*+(?:([TF*?])|([-+]?+)\s*+"
    r"(#[0-9A-Fa-f]++|(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?+))|(\S{1,20})"
)
_PLAIN = re.compile(r"[-+0-9.eE,\s]*+")
_MAX_PLAIN = 2**20  # characters that are split at once
_TYPES = ("penDown", "penUp", "indeterminate")
_CONTINUATIONS = ("begin", "middle", "end")
# What #DefaultContext and the like refer to.
_DEFAULTS = {name: Element(name) for name in ("context", "traceFormat", "inkSource", "canvas")}
_DEFAULTS["canvasTransform"] = Element("canvasTransform")
_ORDERS = {"!": 0, "'": 1, '"': 2}


def parse_inkml(data: bytes, y_axis: str | None = None) -> Line:
    """Parses a document, in which y grows upwards if it says nothing of it and `y_axis` is "up".

    Raises:
        FileFault: it is malformed, or not as the module docstring says.
    """
    root = parse_xml(data)
    namespace, name = _names(root)
    if name != "ink":
        raise FileFault(f"its root element is {name[:20]!r}; accepted: ink")
    _clean(root, {namespace, _NAMESPACE})
    return line_of_strokes(_Document(root, y_axis).strokes, y_points_up=False)


def _names(node: Element) -> tuple[str, str]:
    """Its namespace and local name."""
    namespace, _, name = node.tag.rpartition("}")
    return namespace[1:], name


def _clean(node: Element, namespaces: set[str]) -> None:
    """Leaves local names, the text around child elements, and no elements of others."""
    node.tag = _names(node)[1]
    node.text = "".join([node.text or "", *(child.tail or "" for child in node)]).strip()
    is_foreign = node.tag == "annotationXML"
    node[:] = [child for child in node if not is_foreign and _names(child)[0] in namespaces]
    for child in node:
        _clean(child, namespaces)


def _id(node: Element) -> str | None:
    return node.get(_XML_ID, node.get("id"))


class _Context(NamedTuple):
    """What a trace is written in, as far as it is told."""

    traceFormat: Element | None = None
    inkSource: Element | None = None
    canvasTransform: Element | None = None
    canvas: Element | None = None

    def with_part(self, node: Element) -> "_Context":
        parts = {node.tag: node}
        if node.tag == "inkSource" and node.find("traceFormat") is not None:
            parts["traceFormat"] = node.find("traceFormat")
        return self._replace(**parts)

    def or_else(self, other: "_Context") -> "_Context":
        """With what it lacks if it has no format: it names, say, only a brush."""
        if self.traceFormat is not None:
            return self
        return _Context(*(other[n] if part is None else part for n, part in enumerate(self)))


class _Format(NamedTuple):
    """How points are read."""

    x: int  # positions among the values
    y: int
    num_channels: int
    matrix: np.ndarray  # [2, 3]: columns of x, y and 1; to y downwards


class _Document:
    """Reads the strokes of a document."""

    def __init__(self, root: Element, y_axis: str | None):
        self._y_axis = y_axis
        self._by_id: dict[tuple[str, str], Element] = {}
        # Traces and groups in `definitions`, each with the group that it is in.
        self._defined: dict[Element, Element | None] = {}
        self._formats: list[_Context] = []
        self._contexts: dict[Element, _Context] = {}
        self._read_formats: dict[_Context, _Format] = {}
        self._work = 0
        self._strokes: list[list[np.ndarray]] = []
        self._stroke_of: dict[str, list[np.ndarray] | None] = {}  # by id; None: pen up
        self._index(root, _Context(), False, None)
        self._walk(root, _Context(), False)

    @property
    def strokes(self) -> list[np.ndarray]:
        """Each [points, 2], y downwards."""
        return [np.concatenate(parts) for parts in self._strokes]

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > _MAX_WORK:
            raise FileFault(f"stands for more than {_MAX_WORK} points and elements")

    def _index(self, node: Element, source: _Context, defined: bool, group: Element | None) -> None:
        if _id(node) is not None:
            self._by_id.setdefault((node.tag, _id(node)), node)
        defined = defined or node.tag == "definitions"
        if defined and node.tag in ("trace", "traceGroup"):
            self._defined[node] = group
            group = node
        if node.tag == "inkSource":
            source = _Context(inkSource=node)
        if node.tag == "traceFormat":
            self._formats.append(source.with_part(node))
        for child in node:
            if node.tag != "canvas":  # whose format is none of traces
                self._index(child, source, defined, group)

    def _find(self, node: Element, attribute: str, name: str) -> Element | None:
        """What an attribute refers to; None: there is none."""
        reference = node.get(attribute)
        if reference is None:
            return None
        found = self._by_id.get((name, reference.removeprefix("#")))
        if found is None and reference == f"#Default{name[0].upper()}{name[1:]}":
            found = _DEFAULTS.get(name)
        if found is None:
            raise FileFault(f"{attribute} is {reference[:40]!r}, which is no {name} of this file")
        return found

    # ------------------------------------------------------------------------------ contexts

    def _context(self, node: Element, around: _Context, depth: int = 0) -> _Context:
        """That which a `context` makes of the one that it refers to, or is in."""
        if depth > _MAX_DEPTH:
            raise FileFault("a context refers to itself")
        self._spend(len(node))
        result = self._named_context(node, depth) or around
        for name in ("inkSource", "traceFormat", "canvas", "canvasTransform"):
            part = self._find(node, f"{name}Ref", name)
            part = node.find(name) if part is None else part
            if part is not None:
                self._spend(len(part))
                result = result.with_part(part)
        self._contexts[node] = result
        return result

    def _named_context(self, node: Element, depth: int = 0) -> _Context | None:
        named = self._find(node, "contextRef", "context")
        if named is None:
            return None
        if named is _DEFAULTS["context"]:
            return _Context(traceFormat=_DEFAULTS["traceFormat"])
        return self._contexts.get(named) or self._context(named, _Context(), depth + 1)

    def _context_of(self, node: Element, around: _Context) -> _Context:
        """Of a trace, group or view."""
        named = self._named_context(node)
        return around if named is None else named.or_else(around)

    # ------------------------------------------------------------------------------- strokes

    def _walk(self, node: Element, context: _Context, shown: bool) -> None:
        """Reads what is in the root or a group; `shown`: a group in `definitions`, by a view."""
        for child in node:
            self._spend(1 + len(child))
            if child.tag == "trace":
                self._add(child, self._context_of(child, context))
            elif child.tag == "traceGroup":
                self._walk(child, self._context_of(child, context), shown)
            elif child.tag == "traceView" and shown:
                raise FileFault("a traceView shows what holds another traceView")
            elif child.tag == "traceView":
                self._view(child, context)
            elif child.tag == "context":
                context = self._context(child, context)
            elif child.tag in _Context._fields:
                context = context.with_part(child)

    def _view(self, node: Element, context: _Context) -> None:
        """Adds what a view shows; of traces that are read anyway it says only what they mean."""
        context = self._context_of(node, context)
        reference = node.get("traceDataRef")
        if reference is None:
            for child in node.iterfind("traceView"):
                self._view(child, context)
            return
        if not reference.startswith("#") and "#" in reference:
            raise FileFault(f"a traceView shows {reference[:40]!r}, which is in another file")
        name = reference.removeprefix("#")
        shown = [self._by_id.get((kind, name)) for kind in ("trace", "traceGroup")]
        shown = next((item for item in shown if item in self._defined), None)
        if shown is None:
            return
        around = [shown]
        while around[-1] is not None:
            around.append(self._defined[around[-1]])
        for item in around[-2::-1]:
            context = self._context_of(item, context)
        if shown.tag == "trace":
            self._add(shown, context, node.get("from"), node.get("to"))
        elif node.get("from", node.get("to")) is not None:
            raise FileFault("a traceView shows a part of a group")
        else:
            self._walk(shown, context, True)

    def _add(
        self, trace: Element, context: _Context, first: str | None = None, last: str | None = None
    ) -> None:
        """Adds a trace, or its points from the `first` to the `last`, to the strokes."""
        if trace.find(".//trace") is not None:
            raise FileFault("a trace contains another trace")
        number = len(self._strokes) + 1
        for name, accepted in (("type", _TYPES), ("continuation", _CONTINUATIONS)):
            if trace.get(name, accepted[0]) not in accepted:
                shown = f"{trace.get(name)[:20]!r}; accepted: {', '.join(accepted)}"
                raise FileFault(f"the {name} of stroke {number} is {shown}")
        stroke = None if trace.get("type") == "penUp" else []
        continues = trace.get("continuation", "begin") != "begin"
        if continues:
            prior = trace.get("priorRef", "").removeprefix("#")
            if prior not in self._stroke_of:
                raise FileFault(f"stroke {number} continues {prior[:20]!r}, no trace before it")
            if (stroke is None) != (self._stroke_of[prior] is None):
                raise FileFault(f"stroke {number} continues one of another type")
            stroke = self._stroke_of[prior]
        if _id(trace) is not None:
            self._stroke_of[_id(trace)] = stroke
        if stroke is None:
            return
        text = trace.text.removesuffix(",")  # which the grammar allows
        points = self._points(text, self._format(context), f"stroke {number}")
        if first is not None or last is not None:
            ends = first or "1", last or str(len(points))
            begin, end = (int(x) if re.fullmatch("[0-9]{1,9}", x) else 0 for x in ends)
            if not 1 <= begin <= end <= len(points):
                shown = f"points {ends[0][:20]!r} to {ends[1][:20]!r} of {len(points)}"
                raise FileFault(f"a traceView shows {shown}")
            points = points[begin - 1 : end]
        stroke.append(points)
        if not continues:
            self._strokes.append(stroke)

    def _points(self, text: str, form: _Format, stroke: str) -> np.ndarray:
        """The points that the text of a trace holds, [points, 2]."""
        points = _plain_points(text, form)
        if points is None:
            points = self._any_points(text, form, stroke)
        self._spend(1 + len(points))
        return points @ form.matrix[:, :2].T + form.matrix[:, 2]

    def _any_points(self, text: str, form: _Format, stroke: str) -> np.ndarray:
        axes = {form.x: _Axis(), form.y: _Axis()}
        coordinates = array("d")
        for number, point in enumerate(_POINT.finditer(text) if text else (), start=1):
            where, count = f"{stroke}, point {number} has", 0
            for count, match in enumerate(_VALUE.finditer(point[1]), start=1):
                *value, other = match.groups()
                if other:
                    raise FileFault(f"{where} {other!r}, which is no value")
                if count - 1 in axes and not axes[count - 1].read(*value):
                    raise FileFault(f"{where} {match[0].strip()[:20]!r}, which is no coordinate")
            if count <= max(axes):
                raise FileFault(f"{where} {count} values, too few for X and Y")
            if count > form.num_channels:
                accepted = f"the {form.num_channels} channels (commas separate points)"
                raise FileFault(f"{where} {count} values, more than {accepted}")
            coordinates.extend((axes[form.x].value, axes[form.y].value))
        return np.array(coordinates).reshape(-1, 2)

    # ------------------------------------------------------------------------------- formats

    def _format(self, context: _Context) -> _Format:
        if len(self._formats) == 1:
            context = context.or_else(self._formats[0])
        if context not in self._read_formats:
            self._read_formats[context] = self._read_format(context)
        return self._read_formats[context]

    def _read_format(self, context: _Context) -> _Format:
        self._spend(sum(1 for part in context if part is not None for _ in part.iter()))
        channels, num_others = _channels(context.traceFormat)
        names = list(channels)
        matrix = np.eye(2, 3) * self._scale(channels, context.inkSource)
        mapping = self._mapping(context.canvasTransform)
        if mapping is not None:
            canvas = context.canvas
            target, _ = _channels(None if canvas is None else canvas.find("traceFormat"))
            matrix = _affine(mapping, names, list(target)) * self._scale(target, None)
        return _Format(names.index("X"), names.index("Y"), len(names) + num_others, matrix)

    def _mapping(self, transform: Element | None) -> Element | None:
        """An affine mapping; None: the identity."""
        mapping = None if transform is None else transform.find("mapping")
        if mapping is None:
            return None
        referred = self._find(mapping, "mappingRef", "mapping")
        mapping = mapping if referred is None else referred
        self._spend(len(mapping) + len(mapping.findtext("affine", "")))
        kind = mapping.get("type", "unknown")
        if kind not in ("identity", "affine"):
            raise FileFault(f"has a canvasTransform of type {kind[:20]!r}; accepted: affine")
        return mapping if kind == "affine" else None

    def _scale(self, channels: dict[str, Element], source: Element | None) -> np.ndarray:
        """What x and y are to be multiplied by, so that y grows downwards in the unit of x."""
        signs = []
        for name in ("X", "Y"):
            channel, kind = channels[name], channels[name].get("type", "decimal")
            default = "-ve" if name == "Y" and self._y_axis == "up" else "+ve"
            orientation = channel.get("orientation", default)
            if orientation not in ("+ve", "-ve"):
                raise FileFault(f"the orientation of {name} is {orientation[:20]!r}")
            if kind not in ("integer", "decimal", "double"):
                raise FileFault(f"{name} is of the type {kind[:20]!r}")
            mapping = channel.find("mapping")
            if mapping is not None and mapping.get("type") != "identity":
                raise FileFault(f"the channel {name} has a mapping, which is not read")
            signs.append(1.0 if orientation == "+ve" else -1.0)
        return np.array([[signs[0]], [signs[1] * _ratio(channels, source)]])


def _plain_points(text: str, form: _Format) -> np.ndarray | None:
    """The points of a text of decimal numbers, as most are; None: it may be of other values."""
    if len(text) > _MAX_PLAIN or not _PLAIN.fullmatch(text):
        return None
    try:
        rows = [[float(word) for word in point.split()] for point in text.split(",")]
    except ValueError:  # of values without space between them
        return None
    if not all(max(form.x, form.y) < len(row) <= form.num_channels for row in rows):
        return None
    points = np.array([[row[form.x], row[form.y]] for row in rows])
    return points if (np.abs(points) <= MAX_COORDINATE).all() else None


class _Axis:
    """Reads the values of X or Y in a trace."""

    def __init__(self):
        self._values = [0.0, 0.0, 0.0]  # the last one, and its first and second difference
        self._order = 0  # of differences, in force
        self._known = -1  # the highest order of which there is a value

    @property
    def value(self) -> float:
        return self._values[0]

    def read(self, prefix: str, symbol: str | None, sign: str | None, digits: str | None) -> bool:
        """Reads a value; returns False if it is none, or a difference of nothing."""
        values, order = self._values, _ORDERS.get(prefix, self._order)
        self._order = order
        if order > self._known + (not symbol) or symbol not in (None, "*"):
            return False
        if not symbol:
            try:
                number = float(int(digits[1:], 16) if digits[0] == "#" else digits)
            except OverflowError:
                return False
            values[order] = -number if sign == "-" else number
        for lower in range(order - 1, -1, -1):
            values[lower] += values[lower + 1]
        self._known = order
        return abs(values[0]) <= MAX_COORDINATE


def _channels(form: Element | None) -> tuple[dict[str, Element], int]:
    """The regular channels of a format by name, and how many intermittent ones there are."""
    form = Element("traceFormat") if form is None else form
    regular = [*form.iterfind("channel"), *form.iterfind("regularChannels/channel")]
    others = form.findall("intermittentChannels/channel")
    if not regular and not others:
        regular = [Element("channel", name=name) for name in "XY"]
    channels: dict[str, Element] = {}
    for number, node in enumerate(regular):
        name = node.get("name", "").upper()
        if name in channels and name in ("X", "Y"):
            raise FileFault(f"its traceFormat has two channels {name}")
        channels[f"{name}/{number}" if name in channels else name] = node
    if "X" not in channels or "Y" not in channels:
        raise FileFault(f"its traceFormat has no X and Y, only {', '.join(channels)[:100]!r}")
    return channels, len(others)


def _ratio(channels: dict[str, Element], source: Element | None) -> float:
    """The unit of y in units of x."""
    properties = [] if source is None else source.iterfind("channelProperties/channelProperty")
    sizes: dict[str, tuple[str, float]] = {}
    for node in properties:
        name = node.get("channel", "").upper()
        if name in ("X", "Y") and node.get("name") == "resolution":
            unit = node.get("units", "").strip()
            try:
                size = 1.0 / float(node.get("value", ""))
            except (ValueError, ZeroDivisionError) as error:
                raise FileFault(f"the resolution of {name} is no number but 0") from error
            # 10 1/mm, or 0.1 mm.
            size = 1.0 / size if unit in _METRES else size
            sizes[name] = unit.rpartition("/")[2].strip(), size
    if len(sizes) == 1:
        raise FileFault(f"has a resolution of {', '.join(sizes)} alone; accepted: of X and Y")
    if not sizes:
        sizes = {name: (channels[name].get("units", ""), 1.0) for name in ("X", "Y")}
    (x_unit, x_size), (y_unit, y_size) = sizes["X"], sizes["Y"]
    ratio = y_size / x_size if x_size else 0.0
    if x_unit and y_unit and x_unit != y_unit:
        if x_unit not in _METRES or y_unit not in _METRES:
            raise FileFault(f"X and Y have the units {x_unit[:20]!r} and {y_unit[:20]!r}")
        ratio *= _METRES[y_unit] / _METRES[x_unit]
    if not 1e-6 <= ratio <= 1e6:
        raise FileFault("the units of X and Y differ by more than a million")
    return ratio


def _affine(mapping: Element, sources: list[str], targets: list[str]) -> np.ndarray:
    """The matrix [2, 3] that makes X and Y of X, Y and 1."""
    bound = [[bind.get(end) for bind in mapping.iterfind("bind")] for end in ("source", "target")]
    sources = [name.upper() for name in bound[0] if name] or sources
    targets = [name.upper() for name in bound[1] if name] or targets
    try:
        text = mapping.findtext("affine", "")
        rows = np.array([[float(word) for word in row.split()] for row in text.split(",")])
    except ValueError as error:
        raise FileFault("the affine mapping of its canvasTransform is no matrix") from error
    if rows.shape[1] in (2, 3) and len(sources) > 2:
        sources = [name for name in sources if name in ("X", "Y")]
    if rows.shape[1] == len(sources):  # without a shift
        rows = np.concatenate([rows, np.zeros((len(rows), 1))], axis=1)
    if not (
        rows.shape[1] == len(sources) + 1
        and len(rows) <= len(targets)
        and {"X", "Y"} <= set(sources) & set(targets[: len(rows)])
        and (np.abs(rows) <= MAX_COORDINATE).all()
    ):
        raise FileFault(
            f"the affine mapping of its canvasTransform has the shape {list(rows.shape)}, and "
            f"there are {len(sources)} channels"
        )
    rows = rows[[targets.index("X"), targets.index("Y")]]
    columns = [sources.index("X"), sources.index("Y"), len(sources)]
    if np.delete(rows, columns, axis=1).any():
        raise FileFault("its canvasTransform makes X and Y of other channels")
    return rows[:, columns]
