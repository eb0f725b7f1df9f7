"""How many updates each row makes in the time it has: plan.json of a reproduction."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stcn_tf.data.card import DatasetCard
from stcn_tf.run_status import RunStatus
from stcn_tf.support import strict_json
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import make_folder, replacing_file
from stcn_tf.support.locks import FolderLock

if TYPE_CHECKING:
    from stcn_tf.reproduction.rows import Row

_NAME, _LOCK_NAME = "plan.json", "plan.lock"
# Of a rehearsal, and of each of its lines. The fastest one counts, so that neither what is done
# once nor what disturbs for a moment is planned with.
REHEARSED, REHEARSED_LINE = 50, 10
_LEAST = 20  # updates of a row
_EVALUATIONS = 12
_LAST_RATE = 0.1  # that the learning rate falls to
_ANNEALED = 1 / 3  # share of the updates after which the weight of the KL is 1


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Of a row: its updates and what follows from their number."""

    num_parameters: int
    seconds_per_update: float
    updates: int

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Schedule":
        """What a file says.

        Raises:
            TypeError, ValueError: these are no numbers of a schedule.
        """
        schedule = cls(**row)
        for field in dataclasses.fields(cls):
            value = getattr(schedule, field.name)
            kinds = (int, float) if field.type is float else (int,)
            if type(value) not in kinds or not 0 < value < math.inf:
                raise ValueError(f"{field.name}: {value!r}")
        return schedule

    @property
    def flags(self) -> list[str]:
        """Of `stcn_tf.train`."""
        every = max(self.updates // _EVALUATIONS, 1)
        return [
            f"--max_steps={self.updates}",
            f"--learning_rate_decay={_LAST_RATE ** (1000 / self.updates):.4g}",
            f"--kl_weight_increment={min(1 / (_ANNEALED * self.updates), 1):.4g}",
            f"--evaluate_every={every}",
            f"--checkpoint_every={max(every // 2, 1)}",
            f"--log_every={max(every // 4, 1)}",
        ]


class Plan:
    """The schedules of rows by their models.

    Args:
        file: where they are kept.
        source: SHA-256 of the records' raw files.
        minutes: of training that each row has.
        uses_clock: whether these are of the clock; else of a processor.
        schedules: those that are known.
    """

    def __init__(
        self,
        file: Path,
        source: str,
        minutes: float,
        uses_clock: bool,
        schedules: dict[str, Schedule],
    ):
        self._file, self._source = file, source
        self._minutes, self._uses_clock = minutes, uses_clock
        self.schedules = schedules

    @classmethod
    def open(cls, out: Path, card: DatasetCard, minutes: float, uses_clock: bool) -> "Plan":
        """Reads the plan in a folder, or begins one.

        Raises:
            UserError: the one that is there is of other records or another time, or cannot be read.
        """
        file = Path(out, _NAME)
        plan = cls(file, card.source_sha256, minutes, uses_clock, {})
        if not file.exists():
            return plan
        content = strict_json.parse(strict_json.read_text(file, str(file)), str(file))
        try:
            schedules = {name: Schedule.of(row) for name, row in content["rows"].items()}
            theirs = {name: content[name] for name in plan._facts}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file}: no plan of stcn_tf.reproduce; accepted: a new --out") from (
                error
            )
        for name, own in plan._facts.items():
            if theirs[name] != own:
                what = f"{name} is {theirs[name]}, not {own}"
                if name == "source_sha256":
                    what = f"records are others ({name} {theirs[name]}, not {own})"
                raise UserError(f"{file}: its {what}; accepted: the same, or another --out")
        plan.schedules = schedules
        return plan

    @property
    def _facts(self) -> dict[str, str | float]:
        of = "clock" if self._uses_clock else "processor"
        return {"source_sha256": self._source, "minutes": self._minutes, "time": of}

    @property
    def _whose(self) -> str:
        return "by the clock" if self._uses_clock else "of processor time"

    def add(self, model: str, status: RunStatus) -> None:
        """Plans a row by what its rehearsal has found, and writes the plan."""
        seconds = status.processor_seconds_per_update
        if self._uses_clock:
            seconds = status.seconds_per_update
        updates = max(int(60 * self._minutes / seconds), _LEAST)
        digits = 10 ** max(len(str(updates)) - 3, 0)
        updates = updates // digits * digits
        self.schedules[model] = Schedule(status.num_parameters, seconds, updates)
        rows = {name: dataclasses.asdict(row) for name, row in self.schedules.items()}
        with replacing_file(self._file) as partial:
            content = json.dumps(self._facts | {"rows": rows}, indent=1) + "\n"
            partial.write_text(content, encoding="utf-8")

    def missing(self, rows: Sequence["Row"]) -> list["Row"]:
        """Those by which models are planned that are not: of each the first, whatever its seed."""
        first = {row.model: row for row in reversed(rows)}
        return [row for row in rows if row is first[row.model] and row.model not in self.schedules]

    def announcement(self, rows: Sequence["Row"], at_once: int, split: str) -> str:
        """What will be done, before anything is."""
        waves = -(-len(rows) // at_once)
        text = (
            f"{len(rows)} rows, {at_once} at once, {self._minutes:g} min {self._whose} each: at "
            f"least {_duration(60 * self._minutes * waves)}, and then each is evaluated on split "
            f"{split}"
        )
        if new := len(self.missing(rows)):
            text += f"; first {new} make {REHEARSED} updates, to know how many that is"
        return text

    def text(self, rows: Sequence["Row"], at_once: int) -> str:
        """A table of the plan."""
        head = ("row", "parameters", "updates a second", "updates", "training")
        lines = [head]
        for row in rows:
            one = self.schedules[row.model]
            seconds = one.updates * one.seconds_per_update
            rate = f"{1 / one.seconds_per_update:.2f}"
            lines.append(
                (row.name, f"{one.num_parameters:,}", rate, f"{one.updates:,}", _duration(seconds))
            )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        total = sum(
            self.schedules[row.model].updates * self.schedules[row.model].seconds_per_update
            for row in rows
        )
        table.append(f"training: {_duration(total / at_once)}, {at_once} at once")
        return "\n".join(table)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Holds the folder of a reproduction, which is made.

    Raises:
        UserError: another process is at work there.
    """
    lock = FolderLock(make_folder(out) / _LOCK_NAME)
    try:
        yield
    finally:
        lock.release()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
