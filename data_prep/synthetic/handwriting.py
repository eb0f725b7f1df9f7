"""Synthetic handwriting, in the formats that handwriting comes in.

The text comes from `data_prep.synthetic.sentences`, the letters from Hershey's single-stroke fonts.
Every form has a writer of its own (size, slant, aspect, spacing, baseline, speed, unsteadiness, how
readily letters are joined). Pen paths are rounded off, and the pen moves along them as hands do:
slower where the path bends (the "two-thirds power law" of Lacquaniti et al., 1983: speed goes with
curvature to the power -1/3) and where a stroke begins and ends. Dots may be one-point strokes.

The last sixth of the forms is the valid split, the others are train. Line 1 of the first form is
called x01-000z-01 in every format, and is the same writing. Written are:

* `write_iamondb`: `lineStrokes/x01/x01-000/x01-000z-01.xml` ... (one XML file per line: integer
  whiteboard coordinates, y downwards, times in seconds); `splits/{train,valid}.txt`, form lists.
* `write_deepwriting`: `deepwriting_{training,validation}.npz`: offsets, normalised, dy downwards.
* `write_ink_json`, `write_inkml`: `ink/{train,valid}/x01-000z-01.json` (or `.inkml`) ...: strokes
  of points, y downwards.
* `write_ink_npz`: `ink.npz`: arrays `train/x01-000z-01` ... of offsets [dx, dy, pen], dy upwards.
"""

import dataclasses
import json
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from HersheyFonts import HersheyFonts
from tqdm import tqdm

from data_prep.synthetic import sentences
from stcn_tf.settings import Settings, setting

MAX_FORMS = 99_000  # form ids run from x01-000z to x99-999z
MIN_CHARS = 12  # the longest word with its punctuation fits

# Joined-up and printed faces; the height of their small letters and the baseline, in font units.
_JOINED_FACES = ("cursive", "scripts")
PRINTED_FACES = ("futural", "rowmans")
_X_HEIGHT = {"cursive": 9.0, "scripts": 9.0, "futural": 14.0, "rowmans": 14.0}
_BASELINE = 9.0
_SAMPLE_SECONDS = 0.013  # what the whiteboard needs from point to point
_PATH_STEP = 4.0  # whiteboard units between the points of a path before the pen's speed is applied
_LINE_DISTANCE = 700.0
_MARGIN = 900.0

# Facts of the Deepwriting files: their letters (label 0 is none), preprocessing, and scale.
_ALPHABET = ["", *string.digits, *string.ascii_letters, *"'.,-()/"]
_PREPROCESSING = ["scale"] * 2 + ["origin_translation", "relative_representation"]
_PREPROCESSING += ["normalization"] * 2
_DEEPWRITING_UNIT = 8000.0  # whiteboard units; steps are then about as long as there
_DEEPWRITING_STEPS = 400  # longer sequences are cut off there, wherever the pen is


@dataclasses.dataclass(frozen=True)
class HandwritingSettings(Settings):
    """How much is to be written; everything follows from `seed`."""

    num_forms: int = setting(
        60, "Number of forms, each by another writer.", least=2, most=MAX_FORMS
    )
    lines_per_form: int = setting(6, "Number of lines of each form.", least=1, most=99)
    max_chars: int = setting(18, "The most characters of a line.", least=MIN_CHARS, most=100)
    seed: int = setting(0, "Random seed.", least=0)


class Writer(NamedTuple):
    """A hand. Lengths in whiteboard units, others relative."""

    face: str
    x_height: float
    aspect: float  # width of letters
    slant: float  # shift to the right per unit of height
    letter_gap: float  # in letter heights
    word_gap: float  # in letter heights
    slope: float  # of the baseline
    wave: float  # amplitude of the baseline's slow wave
    variation: float  # from letter to letter
    tremor: float
    roundness: float  # how much corners are rounded off
    speed: float  # per sample, where the path is straight
    joins: float  # probability of keeping the pen down where a stroke begins near the last one


class Glyph(NamedTuple):
    """A letter in font units: its strokes [points, 2], y downwards from the baseline."""

    strokes: tuple[np.ndarray, ...]
    num_early: int  # strokes up to the one that leads on to the next letter; the others can wait
    width: float


def draw_writer(rng: np.random.Generator) -> Writer:
    """Draws a writer; two of three join their letters."""
    joined = rng.random() < 0.67
    face = str(rng.choice(_JOINED_FACES if joined else PRINTED_FACES))
    x_height = rng.uniform(110.0, 190.0)
    return Writer(
        face=face,
        x_height=x_height,
        aspect=rng.uniform(0.85, 1.25) * (1.0 if joined else 0.8),
        slant=rng.normal(0.0 if joined else 0.08, 0.13),
        letter_gap=rng.uniform(-0.05, 0.12) if joined else rng.uniform(-0.15, 0.08),
        word_gap=rng.uniform(0.9, 1.7),
        slope=rng.normal(0.0, 0.02),
        wave=rng.uniform(0.0, 0.12) * x_height,
        variation=rng.uniform(0.02, 0.07),
        tremor=rng.uniform(0.01, 0.035) * x_height,
        roundness=rng.uniform(0.09, 0.17) * x_height,
        speed=rng.uniform(20.0, 36.0),
        joins=rng.uniform(0.8, 1.0) if joined else rng.uniform(0.1, 0.6),
    )


@cache
def load_glyphs(face: str) -> dict[str, Glyph]:
    """The printable ASCII characters of a face, but the space, by character."""
    font = HersheyFonts()
    font.load_default_font(face)
    glyphs = {}
    for code in range(33, 127):
        (glyph,) = font.glyphs_for_text(chr(code))
        strokes = tuple(
            np.asarray(stroke, np.float64) - (glyph.left_offset, _BASELINE)
            for stroke in glyph.strokes
            if len(stroke)
        )
        # In the joined faces a letter ends where the next begins: at the right edge of its box.
        ends = [stroke[-1, 0] >= glyph.char_width - 1.5 for stroke in strokes]
        joined = face in _JOINED_FACES and any(ends)
        num_early = len(ends) - ends[::-1].index(True) if joined else len(strokes)
        glyphs[chr(code)] = Glyph(strokes, num_early, float(glyph.char_width))
    return glyphs


def lay_out(text: str, writer: Writer, rng: np.random.Generator) -> list[np.ndarray]:
    """Turns printable ASCII into pen-down paths in writing order, corners and all.

    Each is [points, 2], whiteboard units, y downwards from the baseline.
    """
    glyphs = load_glyphs(writer.face)
    scale = writer.x_height / _X_HEIGHT[writer.face]
    near = 0.45 * writer.x_height
    x = 0.0
    strokes: list[list[np.ndarray]] = []
    for word in text.split(" "):
        late: list[np.ndarray] = []  # dots and bars, written when the word is finished
        may_join = False  # the pen is where it left the last letter of this word
        for letter in word:
            glyph = glyphs[letter]
            wide, high = np.exp(rng.normal(0.0, writer.variation, 2))
            lean = -writer.slant + rng.normal(0.0, writer.variation)
            shape = scale * np.array([[wide * writer.aspect, lean], [0.0, high]])
            shift = np.array([x, rng.normal(0.0, 0.6 * writer.variation) * writer.x_height])
            placed = [stroke @ shape.T + shift for stroke in glyph.strokes]
            placed = [_dot(stroke, writer, rng) for stroke in placed]
            for stroke in placed[: glyph.num_early]:
                distance = np.hypot(*(stroke[0] - strokes[-1][-1][-1])) if may_join else np.inf
                if distance < near and rng.random() < writer.joins:
                    strokes[-1].append(stroke)
                else:
                    strokes.append([stroke])
                may_join = len(stroke) > 1
            late += placed[glyph.num_early :]
            x += scale * glyph.width * writer.aspect * wide + writer.letter_gap * writer.x_height
        strokes += [[stroke] for stroke in late]
        x += writer.word_gap * writer.x_height * rng.uniform(0.8, 1.25)
    return [np.concatenate(parts) for parts in strokes]


def _dot(stroke: np.ndarray, writer: Writer, rng: np.random.Generator) -> np.ndarray:
    """The fonts draw dots as small outlines; a hand makes a point, or a short dab."""
    if np.ptp(stroke, axis=0).max() > 0.3 * writer.x_height:
        return stroke
    centre = stroke.mean(axis=0, keepdims=True)
    if rng.random() < 0.5:
        return centre
    return centre + np.array([[0.0, 0.0], [0.4, 0.6]]) * rng.uniform(20.0, 60.0)


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing along axis 0 that keeps both end values in place."""
    reach = min(int(3.0 * sigma) + 1, len(values) - 1)
    if reach < 1:
        return values
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    kernel /= kernel.sum()
    # Point reflection about each end: the smoothed curve still begins and ends there.
    before = 2.0 * values[:1] - values[reach:0:-1]
    after = 2.0 * values[-1:] - values[-2 : -reach - 2 : -1]
    padded = np.concatenate([before, values, after])
    columns = [np.convolve(column, kernel, "valid") for column in padded.T]
    return np.stack(columns, axis=1)


def _resample(path: np.ndarray, positions: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation of `path` [points, 2], known at `positions`, to the positions `at`."""
    return np.stack([np.interp(at, positions, column) for column in path.T], axis=1)


def _arc_length(path: np.ndarray) -> np.ndarray:
    """Distance along `path` from its first point to each, [points]."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])


def write_stroke(path: np.ndarray, writer: Writer, rng: np.random.Generator) -> np.ndarray:
    """Moves the pen along a path, [points, 2] whiteboard units: where it is, [samples, 2].

    A path without length gives 1 sample.
    """
    length = _arc_length(path)
    if length[-1] < _PATH_STEP:
        return path[:1]
    num_points = max(3, int(length[-1] / _PATH_STEP) + 1)
    path = _resample(path, length, np.linspace(0.0, length[-1], num_points))
    path = _smooth(path, writer.roundness / _PATH_STEP)
    unsteady = _smooth(rng.normal(size=(num_points, 2)), 10.0)
    path = path + unsteady * writer.tremor * np.sqrt(2.0 * np.sqrt(np.pi) * 10.0)

    # Pen speed at each point of the path, relative to that on a straight.
    steps = np.diff(path, axis=0)
    step_lengths = np.maximum(np.hypot(*steps.T), 1e-3)
    turns = np.abs(np.diff(np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))))
    curvature = np.concatenate([turns[:1], turns, turns[-1:]]) / np.mean(step_lengths)
    curvature = np.maximum(_smooth(curvature[:, None], 2.0)[:, 0], 0.0) * writer.x_height
    bend = np.clip((0.6 + curvature) ** (-1.0 / 3.0), 0.25, 1.2)
    to_end = np.minimum(np.arange(num_points), np.arange(num_points)[::-1]) * _PATH_STEP
    ramp = np.clip(0.45 + to_end / (0.5 * writer.x_height), 0.0, 1.0)
    speed = 1.25 * writer.speed * bend * ramp

    time = np.concatenate([[0.0], np.cumsum(step_lengths / (0.5 * (speed[1:] + speed[:-1])))])
    num_samples = max(2, round(time[-1]) + 1)
    return _resample(path, time, np.linspace(0.0, time[-1], num_samples))


def write_line(
    text: str, writer: Writer, rng: np.random.Generator, top_left: tuple[float, float]
) -> list[np.ndarray]:
    """Writes a line of printable ASCII that begins at `top_left`, x and the baseline's y.

    Returns:
        Strokes, int64 [samples, 2], positive whiteboard coordinates, y downwards.
    """
    strokes = [write_stroke(path, writer, rng) for path in lay_out(text, writer, rng)]
    phase, period = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(1500.0, 4000.0)
    slope = writer.slope + rng.normal(0.0, 0.006)
    result = []
    for stroke in strokes:
        x, y = stroke.T
        baseline = slope * x + writer.wave * np.sin(2.0 * np.pi * x / period + phase)
        moved = np.stack([x + top_left[0], y + baseline + top_left[1]], axis=1)
        result.append(np.maximum(np.rint(moved), 1.0).astype(np.int64))
    return result


def to_xml(strokes: list[np.ndarray], rng: np.random.Generator) -> str:
    """Strokes (int64 [samples, 2] each) as IAM-OnDB's XML; `rng` draws pauses between them."""
    everything = np.concatenate(strokes)
    (left, top), (right, bottom) = everything.min(axis=0), everything.max(axis=0)
    lines = [
        '<?xml version="1.0" encoding="ISO-8859-1"?>',
        "<WhiteboardCaptureSession>",
        "  <WhiteboardDescription>",
        '    <SensorLocation corner="top_left"/>',
        f'    <DiagonallyOppositeCoords x="{right}" y="{bottom}"/>',
        f'    <VerticallyOppositeCoords x="{left}" y="{bottom}"/>',
        f'    <HorizontallyOppositeCoords x="{right}" y="{top}"/>',
        "  </WhiteboardDescription>",
        "  <StrokeSet>",
    ]
    start = rng.uniform(10.0, 1000.0)
    for stroke in strokes:
        times = start + _SAMPLE_SECONDS * np.arange(len(stroke))
        lines.append(
            f'    <Stroke colour="black" start_time="{times[0]:.2f}" end_time="{times[-1]:.2f}">'
        )
        lines += [
            f'      <Point x="{x}" y="{y}" time="{time:.2f}"/>'
            for (x, y), time in zip(stroke.tolist(), times.tolist(), strict=True)
        ]
        lines.append("    </Stroke>")
        start = times[-1] + rng.uniform(0.08, 0.4)
    lines += ["  </StrokeSet>", "</WhiteboardCaptureSession>", ""]
    return "\n".join(lines)


def form_id(index: int) -> str:
    """Form id of the index-th form, 0 to `MAX_FORMS` - 1: x01-000z, x01-001z, ..."""
    return f"x{index // 1000 + 1:02d}-{index % 1000:03d}z"


class Line(NamedTuple):
    """A line of writing."""

    id: str  # x01-000z-01
    split: str  # train or valid
    form: int
    text: str
    strokes: list[np.ndarray]  # int64 [samples, 2] each, whiteboard coordinates, y downwards
    rng: np.random.Generator  # for what else is random about the line


def _split(form: int, settings: HandwritingSettings) -> str:
    return "train" if form < settings.num_forms - max(1, settings.num_forms // 6) else "valid"


def lines(settings: HandwritingSettings) -> Iterator[Line]:
    """Writes form by form; more forms or more lines of each leave the earlier ones as they are."""
    for form in tqdm(range(settings.num_forms), desc="writing", unit=" forms", disable=None):
        rng = np.random.default_rng([settings.seed, form])
        writer = draw_writer(rng)
        texts = sentences.lines(rng, settings.lines_per_form, settings.max_chars)
        for number, text in enumerate(texts, start=1):
            rng = np.random.default_rng([settings.seed, form, number])
            top_left = (_MARGIN + rng.uniform(-60.0, 60.0), _MARGIN + _LINE_DISTANCE * number)
            strokes = write_line(text, writer, rng, top_left)
            name = f"{form_id(form)}-{number:02d}"
            yield Line(name, _split(form, settings), form, text, strokes, rng)


def to_offsets(strokes: list[np.ndarray]) -> np.ndarray:
    """Differences from point to point, float64 [samples of all - 1, 3]: dx, dy and pen.

    The pen is 1 on a stroke's last point; the first point, without a difference, is dropped.
    """
    offsets = np.zeros((sum(map(len, strokes)), 3))
    offsets[1:, :2] = np.diff(np.concatenate(strokes), axis=0)
    offsets[np.cumsum([len(stroke) for stroke in strokes]) - 1, 2] = 1.0
    return offsets[1:]


# ------------------------------------------------------------------------------------ formats


def write_iamondb(folder: Path, settings: HandwritingSettings) -> str:
    """Writes IAM-OnDB's XML files and form lists; says how much, in words, as those below."""
    for line in lines(settings):
        form = form_id(line.form)
        path = folder / "lineStrokes" / form[:3] / form[:-1] / f"{line.id}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_xml(line.strokes, line.rng), encoding="ascii")
    (folder / "splits").mkdir()
    for split in ("train", "valid"):
        members = [form for form in range(settings.num_forms) if _split(form, settings) == split]
        text = "".join(f"{form_id(form)}\n" for form in members)
        (folder / "splits" / f"{split}.txt").write_text(text, encoding="ascii")
    return _count(settings)


def write_deepwriting(folder: Path, settings: HandwritingSettings) -> str:
    """Writes Deepwriting's two files, with most of their arrays."""
    written = list(lines(settings))
    unit = (_DEEPWRITING_UNIT, _DEEPWRITING_UNIT, 1.0)
    offsets = {line.id: to_offsets(line.strokes)[:_DEEPWRITING_STEPS] / unit for line in written}
    # Training's statistics, of the pen too, go into both files; the pen itself stays 0 or 1.
    everything = np.concatenate([offsets[line.id] for line in written if line.split == "train"])
    mean, std = everything.mean(axis=0), everything.std(axis=0)
    shift, scale = np.append(mean[:2], 0.0), np.append(std[:2], 1.0)
    points = [np.concatenate(line.strokes) - line.strokes[0][0] for line in written]
    low = np.min([line.min(axis=0) for line in points], axis=0)
    high = np.max([line.max(axis=0) for line in points], axis=0)
    for split, name in (("train", "training"), ("valid", "validation")):
        part = [line for line in written if line.split == split]
        normalised = [((offsets[line.id] - shift) / scale).astype(np.float32) for line in part]
        np.savez_compressed(
            folder / f"deepwriting_{name}.npz",
            strokes=_object_array(normalised),
            char_labels=_object_array([_char_labels(line) for line in part]),
            texts=np.array([line.text for line in part]),
            subject_labels=np.array([10_000 + line.form for line in part], np.int64),
            alphabet=np.array(_ALPHABET),
            preprocessing=np.array(_PREPROCESSING),
            mean=mean.astype(np.float32),
            std=std.astype(np.float32),
            min=np.append(low, 0.0),
            max=np.append(high, 1.0),
        )
    return _count(settings)


def _char_labels(line: Line) -> np.ndarray:
    """Which letter each step belongs to, roughly: by where along the line the pen is."""
    x = np.concatenate(line.strokes)[:, 0]
    places = (x - x.min()) * len(line.text) // (np.ptp(x) + 1)
    labels = [_ALPHABET.index(letter) if letter in _ALPHABET else 0 for letter in line.text]
    return np.array(labels, np.int32)[places[1 : _DEEPWRITING_STEPS + 1]]


def _object_array(values: list[np.ndarray]) -> np.ndarray:
    result = np.empty(len(values), object)
    for index, value in enumerate(values):
        result[index] = value
    return result


def write_ink_json(folder: Path, settings: HandwritingSettings) -> str:
    """Writes one JSON file of strokes per line."""
    for line in lines(settings):
        strokes = [stroke.tolist() for stroke in line.strokes]
        _write_ink(folder, line, "json", json.dumps({"strokes": strokes, "y_axis": "down"}) + "\n")
    return _count(settings)


def write_inkml(folder: Path, settings: HandwritingSettings) -> str:
    """Writes one InkML file per line, with channels X, Y and T (ms)."""
    for line in lines(settings):
        text = [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<ink xmlns="http://www.w3.org/2003/InkML">',
            "  <traceFormat>",
            *(f'    <channel name="{name}" type="integer"/>' for name in "XYT"),
            "  </traceFormat>",
        ]
        start = 0
        for stroke in line.strokes:
            times = start + 13 * np.arange(len(stroke))
            points = [f"{x} {y} {t}" for x, y, t in np.column_stack([stroke, times]).tolist()]
            text.append(f"  <trace>{', '.join(points)}</trace>")
            start = times[-1] + 200
        _write_ink(folder, line, "inkml", "\n".join([*text, "</ink>", ""]))
    return _count(settings)


def write_ink_npz(folder: Path, settings: HandwritingSettings) -> str:
    """Writes a file of plain arrays [dx, dy, pen], one per line."""
    arrays = {}
    for line in lines(settings):
        offsets = to_offsets(line.strokes) * (1.0, -1.0, 1.0)  # y upwards
        arrays[f"{line.split}/{line.id}"] = offsets.astype(np.float32)
    np.savez(folder / "ink.npz", **arrays)
    return _count(settings)


def _write_ink(folder: Path, line: Line, ending: str, text: str) -> None:
    path = folder / "ink" / line.split / f"{line.id}.{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def _count(settings: HandwritingSettings) -> str:
    return f"{settings.num_forms * settings.lines_per_form} lines"
