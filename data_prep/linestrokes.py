"""One IAM-OnDB `lineStrokes` XML file -> pen offsets; needs no TensorFlow.

A file holds one line of handwriting: `Stroke` elements (pen down .. pen up) of `Point` elements
with integer whiteboard coordinates x (to the right) and y (downwards). The preprocessing is that
of Chung et al., "A Recurrent Latent Variable Model for Sequential Data" (NeurIPS 2015): y is
negated, so that it points up; points become differences to the point before, strokes in order;
the pen bit is 1 on the last point of each stroke; the first point, which has no difference,
is dropped. Their column order is pen, dx, dy; here it is dx, dy, pen.

The XML comes from elsewhere and is not trusted: a document type declaration (and with it any
entity, external file or expansion bomb) is refused.
"""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import XMLParser


class LineError(ValueError):
    """What is wrong with the content of one file, without its name."""


class Line(NamedTuple):
    """One line of handwriting."""

    offsets: np.ndarray  # float32 [time, 3]: dx (right), dy (up), pen (1 on a stroke's last point)
    one_point_strokes: int  # strokes of a single point: dots, or a pen that hardly touched


class ParsedFile(NamedTuple):
    """What a worker hands back for one file: either `line`, or the `fault` that forbids it."""

    line: Line | None
    sha256: str  # of the file's bytes; empty if it could not be read
    fault: str


class _Points:
    """XMLParser target: collects coordinates and stroke ends, checks each as it arrives."""

    def __init__(self) -> None:
        self._coordinates: list[float] = []  # x, y, x, y, ...
        self._stroke_ends: list[int] = []  # number of points up to and including each stroke
        self._in_stroke = False

    def _where(self) -> str:
        num_before = self._stroke_ends[-1] if self._stroke_ends else 0
        point = len(self._coordinates) // 2 - num_before + 1
        return f"stroke {len(self._stroke_ends) + 1}, point {point}"

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "Point":
            if not self._in_stroke:
                raise LineError("a Point outside any Stroke")
            for axis in ("x", "y"):
                text = attributes.get(axis)
                if text is None:
                    raise LineError(f"{self._where()} has no {axis}")
                try:
                    value = float(text)
                except ValueError:
                    value = math.nan
                # 1e9 is far beyond any whiteboard, and differences stay finite in float32.
                if not abs(value) <= 1e9:
                    raise LineError(f"{self._where()} has {axis}={text!r}, which is no coordinate")
                self._coordinates.append(value)
        elif tag == "Stroke":
            if self._in_stroke:
                raise LineError(f"stroke {len(self._stroke_ends) + 1} contains another Stroke")
            self._in_stroke = True

    def end(self, tag: str) -> None:
        if tag == "Stroke":
            num_points = len(self._coordinates) // 2
            if num_points == (self._stroke_ends[-1] if self._stroke_ends else 0):
                raise LineError(f"stroke {len(self._stroke_ends) + 1} is empty")
            self._stroke_ends.append(num_points)
            self._in_stroke = False

    def close(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns points, float64 [num_points, 2], and stroke ends, int64 [num_strokes]."""
        points = np.asarray(self._coordinates, np.float64).reshape(-1, 2)
        return points, np.asarray(self._stroke_ends, np.int64)


def parse_line(xml: bytes) -> Line:
    """Parses the content of one `lineStrokes` file.

    Args:
        xml: the file's bytes.

    Returns:
        The line's offsets, float32 [time, 3], in whiteboard units; `time` is one less than the
        number of points.

    Raises:
        LineError: the XML is malformed or declares a document type, has no strokes, an empty
            stroke, a point without finite numeric x and y, or fewer than 2 points.
    """
    # Each of the three is refused: a document type is all that expansion attacks need.
    parser = XMLParser(
        target=_Points(), forbid_dtd=True, forbid_entities=True, forbid_external=True
    )
    try:
        parser.feed(xml)
        points, stroke_ends = parser.close()
    except ParseError as error:
        raise LineError(f"malformed XML: {error}") from error
    except DefusedXmlException as error:
        raise LineError("declares a document type or entities, which is refused") from error
    except LineError:
        raise
    except (ValueError, LookupError) as error:  # an encoding that expat cannot read
        raise LineError(f"malformed XML: {error}") from error
    if not len(stroke_ends):
        raise LineError("has no strokes")
    if len(points) < 2:
        raise LineError("has 1 point, at least 2 are needed")
    pen = np.zeros(len(points))
    pen[stroke_ends - 1] = 1.0
    deltas = np.diff(points * (1.0, -1.0), axis=0)  # float64 [time, 2], y up
    offsets = np.concatenate([deltas, pen[1:, None]], axis=1).astype(np.float32)
    num_points_per_stroke = np.diff(stroke_ends, prepend=0)
    return Line(offsets, int(np.sum(num_points_per_stroke == 1)))


def parse_file(path: str | Path) -> ParsedFile:
    """Reads and parses one file; never raises for what is wrong with it.

    Args:
        path: a `lineStrokes` XML file.

    Returns:
        The parsed line and the file's SHA-256, or the fault in words. (A value rather than an
        exception, so that worker processes hand back every fault, not only the first.)
    """
    try:
        xml = Path(path).read_bytes()
    except OSError as error:
        return ParsedFile(None, "", f"cannot be read: {error.strerror or error}")
    sha256 = hashlib.sha256(xml).hexdigest()
    try:
        return ParsedFile(parse_line(xml), sha256, "")
    except LineError as error:
        return ParsedFile(None, sha256, str(error))
