"""One IAM-OnDB `lineStrokes` XML file -> pen offsets; needs no TensorFlow.

A file holds one line of handwriting: `Stroke` elements (pen down .. pen up) of `Point` elements
with integer whiteboard coordinates x (to the right) and y (downwards). The preprocessing is that
of Chung et al., "A Recurrent Latent Variable Model for Sequential Data" (NeurIPS 2015), see
`data_prep.handwriting`.
"""

import math

import numpy as np

from data_prep.handwriting import MAX_COORDINATE, Line, line_of_points
from data_prep.raw_files import FileFault
from data_prep.xml_files import parse_xml


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
                raise FileFault("a Point outside any Stroke")
            for axis in ("x", "y"):
                text = attributes.get(axis)
                if text is None:
                    raise FileFault(f"{self._where()} has no {axis}")
                try:
                    value = float(text)
                except ValueError:
                    value = math.nan
                if not abs(value) <= MAX_COORDINATE:  # nor NaN
                    raise FileFault(
                        f"{self._where()} has {axis}={text[:20]!r}, which is no coordinate"
                    )
                self._coordinates.append(value)
        elif tag == "Stroke":
            if self._in_stroke:
                raise FileFault(f"stroke {len(self._stroke_ends) + 1} contains another Stroke")
            self._in_stroke = True

    def end(self, tag: str) -> None:
        if tag == "Stroke":
            num_points = len(self._coordinates) // 2
            if num_points == (self._stroke_ends[-1] if self._stroke_ends else 0):
                raise FileFault(f"stroke {len(self._stroke_ends) + 1} is empty")
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
        FileFault: the XML is malformed or declares a document type, has no strokes, an empty
            stroke, a point without finite numeric x and y, or fewer than 2 points.
    """
    points, stroke_ends = parse_xml(xml, _Points())
    return line_of_points(points, stroke_ends, y_points_up=False)
