"""What decides on the validation split, over the updates of runs. No TensorFlow."""

import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError
from matplotlib.figure import Figure
from tensorboard.compat.proto import event_pb2

from stcn_tf.data.units import likelihood_unit
from stcn_tf.reporting.evaluated import Run
from stcn_tf.reporting.pages import Picture

_TAG = "selected/per_sequence"  # of `stcn_tf.training.tensorboard`


def draw(runs: Sequence[Run]) -> list[Picture]:
    """A chart for each set of records with the curves of the runs on it; none of what has none."""
    together = {}
    for run in runs:
        card = run.directory.card
        key = (card.name, card.source_sha256, likelihood_unit(card))
        if points := evaluations(run.directory.events("valid")):
            together.setdefault(key, []).append((run, points))
    pictures = []
    for number, ((dataset, _, unit), curves) in enumerate(together.items()):
        figure = Figure(figsize=(9, 4.5), dpi=150, layout="constrained")
        axes = figure.add_subplot(xlabel="updates", ylabel=f"{unit}\nper sequence")
        for index, (run, points) in enumerate(curves):
            best_of = run.status.best_of if run.status else ""
            label = f"{run.name}: {best_of}" if best_of else run.name
            style = ("-", "--", ":", "-.")[index // 10 % 4]
            # A name may hold what stands for mathematics, or for no label.
            label = label.replace("$", r"\$").lstrip("_")
            axes.plot(*zip(*sorted(points.items()), strict=True), style, label=label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        caption = (
            f"{dataset}: what decided on early stopping and the best weights, on the validation "
            f"split, {unit} per sequence, higher is better; the legend says what it is of each run"
        )
        pictures.append(Picture(f"curves_{number}", figure, caption))
    return pictures


def evaluations(folder: Path) -> dict[int, float]:
    """The points of a run by their updates, without those that a later start has taken back.

    Args:
        folder: of the events of the validation split.
    """
    points = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in _events(file.read_bytes()):
            if event.HasField("session_log"):
                points = {step: value for step, value in points.items() if step < event.step}
            for value in event.summary.value:
                # As TensorFlow writes a float32.
                if value.tag == _TAG and len(value.tensor.tensor_content) == 4:
                    (points[event.step],) = struct.unpack("<f", value.tensor.tensor_content)
    return points


def _events(content: bytes) -> Iterator[event_pb2.Event]:
    """The records of a file until its end, or until what is not whole: a trainer is writing."""
    file = io.BytesIO(content)
    while len(head := file.read(12)) == 12:
        (length,) = struct.unpack("<Q", head[:8])
        record = file.read(min(length, len(content)))
        if len(record) < length or len(file.read(4)) < 4:
            return
        try:
            yield event_pb2.Event.FromString(record)
        except DecodeError:
            return
