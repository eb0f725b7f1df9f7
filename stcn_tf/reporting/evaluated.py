"""Runs and their evaluations, as their files tell. Nothing here needs TensorFlow."""

import collections
import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stcn_tf import run_list
from stcn_tf.inference.grouping import UNKNOWN, Grouping
from stcn_tf.run_status import RunStatus
from stcn_tf.runs import HISTORY_NAME, RunDirectory, located
from stcn_tf.support import strict_json
from stcn_tf.support.errors import UserError, reason_of
from stcn_tf.support.files import expand_home

EXACT, BOUND, NO_BOUND = "exact", "bound", "no bound"
# What an evaluation says of all steps together, and what that is of the log-likelihood.
KINDS = {
    "log_likelihood": EXACT,
    "elbo": BOUND,
    "importance_weighted": BOUND,
    "fivo": BOUND,
    "released_objective": NO_BOUND,
}
_FIELDS = {
    "model": str,
    "update": int,
    "checkpoint": str,
    "split": str,
    "bound": str,
    "given_frames": int,
    "piece": int,
    "num_given_frames": int,
    "num_samples": int,
    "num_sequences": int,
    "num_steps": int,
    "released_floors": bool,
    "trained_with": dict,
    "dataset": str,
    "source_sha256": str,
    "unit": str,
    "normalization": dict,
    "terms": dict,
}
_COLUMNS = ("sequence", "group", "steps")
# Which must be the same for one evaluation to take the place of another.
_QUESTION = (
    *("split", "num_sequences", "given_frames", "piece"),
    *("trained_with", "source_sha256", "checkpoint"),
)


class Number(NamedTuple):
    """A log-likelihood, or what stands for it: nats per sequence, higher is better."""

    value: float
    error: float | None  # standard error; None: of a single group
    kind: str
    label: str  # of what kind exactly


class Sequences(NamedTuple):
    """The terms of each sequence of an evaluation."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    num_steps: np.ndarray  # [sequences]
    terms: dict[str, np.ndarray]  # [sequences] each, nats of the normalised values

    @property
    def grouping(self) -> Grouping:
        """What the sequences share."""
        return Grouping(self.names, self.groups)

    def only(self, names: Sequence[str]) -> "Sequences":
        """Some of them, in the order of their names."""
        place = {name: index for index, name in enumerate(self.names)}
        at = [place[name] for name in names]
        terms = {key: values[at] for key, values in self.terms.items()}
        return Sequences(tuple(names), tuple(self.groups[i] for i in at), self.num_steps[at], terms)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """An evaluation that `stcn_tf.evaluate` has written: `content` is what its file says."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Evaluated":
        """Reads an evaluation.

        Raises:
            UserError: it cannot be read, or is none.
        """
        path = Path(expand_home(path))
        content = strict_json.parse(_text(path), str(path))
        for name, kind in _FIELDS.items():
            value = content.get(name) if isinstance(content, dict) else None
            if type(value) is not kind:
                raise UserError(
                    f"{path}: no evaluation of stcn_tf.evaluate ({name}: accepted: "
                    f"{kind.__name__}), or of an earlier version: evaluate anew"
                )
        if not any(key in KINDS for key in content["terms"]):
            raise UserError(
                f"{path}: no evaluation of stcn_tf.evaluate (terms: {', '.join(KINDS)})"
            )
        evaluated = cls(path, content)
        for key in content["terms"]:
            evaluated.term(key)
            evaluated.name(key)
        return evaluated

    def __getitem__(self, name: str) -> Any:
        return self.content[name]

    @property
    def given_frames(self) -> int:
        """Frames at the beginning of each sequence that are not scored."""
        return max(self["num_given_frames"], self["given_frames"])

    def term(self, key: str) -> tuple[float, float | None]:
        """Nats per sequence of a row of its table (nan: not finite), and their standard error."""
        term = self["terms"][key]
        names = ("per_sequence", "per_sequence_standard_error")
        values = [term.get(name, "") if isinstance(term, dict) else "" for name in names]
        if not all(type(value) in (int, float, type(None)) for value in values):
            raise UserError(f"{self.path}: terms: {key}: accepted: numbers per sequence")
        return math.nan if values[0] is None else values[0], values[1]

    @property
    def is_tight(self) -> bool:
        """Whether it has a bound of several draws."""
        return not {"importance_weighted", "fivo"}.isdisjoint(self["terms"])

    @property
    def is_usual(self) -> bool:
        """Whether it is of the best weights as they were trained, and of whole sequences."""
        how = [self[name] for name in ("checkpoint", "trained_with", "given_frames", "piece")]
        return how == ["best", {}, 0, 0]

    @property
    def file_of_sequences(self) -> Path:
        """That which lies beside it, unless it was written elsewhere."""
        return self.path.with_suffix(".csv")

    def name(self, key: str) -> str:
        """What a row of its table is called."""
        name = self["terms"][key].get("name")
        if not isinstance(name, str):
            raise UserError(f"{self.path}: terms: {key}: name: accepted: text")
        return name

    @property
    def numbers(self) -> list[Number]:
        """What it says of the log-likelihood, the tightest bound last, what is none after it."""
        labels = {
            "log_likelihood": "exact",
            "elbo": "ELBO",
            "importance_weighted": f"K = {self['num_samples']}",
            "fivo": f"FIVO, {self['num_samples']} particles",
            "released_objective": "released objective: no bound",
        }
        numbers = []
        for key, kind in KINDS.items():
            if key in self["terms"]:
                label = labels[key]
                if self["released_floors"] and kind != NO_BOUND:
                    kind, label = NO_BOUND, f"{label} with the released floors: no bound"
                numbers.append(Number(*self.term(key), kind, label))
        return numbers

    @property
    def kl_of_layers(self) -> list[float]:
        """Nats per sequence, the lowest layer first."""
        count = sum(key.startswith("kl_of_layer_") for key in self["terms"])
        keys = [f"kl_of_layer_{layer}" for layer in range(1, count + 1)]
        return [self.term(key)[0] for key in keys if key in self["terms"]]

    def sequences(self) -> Sequences:
        """Reads the file of its sequences, which lies beside it.

        Raises:
            UserError: there is none, or it is none of this evaluation.
        """
        path = self.file_of_sequences
        rows = list(csv.reader(io.StringIO(_text(path), newline="")))
        head, rows = rows[0] if rows else [], rows[1:]
        if tuple(head[:3]) != _COLUMNS or any(len(row) != len(head) for row in rows):
            raise UserError(f"{path}: accepted: columns {', '.join(_COLUMNS)} and terms")
        names, groups, *columns = zip(*rows, strict=True) if rows else [()] * len(head)
        try:
            values = np.array(columns, np.float64).reshape(len(head) - 2, len(rows))
        except ValueError as error:
            raise UserError(f"{path}: accepted: numbers ({reason_of(error)})") from error
        terms = dict(zip(head[3:], values[1:], strict=True))
        for key, column in terms.items():
            own = self.term(key)[0] if key in self["terms"] else None
            same = own is not None and len(rows) == self["num_sequences"]
            mean = np.mean(column) if np.all(np.isfinite(column)) else math.nan
            if not same or not np.isclose(mean, own, rtol=1e-6, atol=1e-6, equal_nan=True):
                raise UserError(f"{path}: of another evaluation than {self.path}: evaluate anew")
        return Sequences(names, groups, values[0], terms)


class Run(NamedTuple):
    """A run directory, and what is known of how it was made."""

    name: str
    directory: RunDirectory
    status: RunStatus | None
    commit: str  # all that it was trained with; + where files differed
    versions: str  # of the programs that it was trained with last; "" where they are not known
    devices: str  # "" without accelerators
    records: str  # folder of the records, as it was named last
    evaluations: tuple[Evaluated, ...]


def find(folders: Iterable[str]) -> list[Run]:
    """The runs in folders, which are run directories or hold them, each once.

    Raises:
        UserError: there is none in one of them, or one is damaged.
    """
    if not all(folders := list(folders)):
        raise UserError(f"--runs={','.join(folders)}: accepted: folders, none of them empty")
    runs = {}
    for folder in map(located, folders):
        paths = list(run_list.run_directories(folder))
        if not paths:
            raise UserError(
                f"--runs={folder}: no run directory; accepted: runs, and folders of them"
            )
        for path in paths:
            # The folder may be called . or .., which is no name.
            own = Path(os.path.abspath(path)).name
            name = own if path == folder else str(path.relative_to(folder))
            runs.setdefault(os.path.realpath(path), (name, path))
    alike = collections.defaultdict(list)
    for real, (name, _) in runs.items():
        alike[name].append(real)
    # In several folders there may be runs of one name, which what is above them tells apart.
    return [
        read(
            RunDirectory.open(path),
            name
            if len(alike[name]) == 1
            else os.path.relpath(real, os.path.commonpath(alike[name])),
        )
        for real, (name, path) in runs.items()
    ]


def latest(evaluations: Iterable[Evaluated]) -> list[Evaluated]:
    """Of each question the evaluations of the latest weights, each bound and number of draws once.

    But for those of the ELBO alone where another has it of as many draws or more.
    """
    questions = collections.defaultdict(list)
    for evaluated in evaluations:
        questions[json.dumps([evaluated[name] for name in _QUESTION])].append(evaluated)
    found = []
    for its in questions.values():
        last = max(evaluated["update"] for evaluated in its)
        kinds = {(e["num_samples"], e["bound"]): e for e in its if e["update"] == last}
        most = max(kinds)  # of the same draws, iwae and fivo come after elbo
        found += [e for kind, e in sorted(kinds.items()) if kind == most or e.is_tight]
    return found


def read(directory: RunDirectory, name: str = "") -> Run:
    """Reads what is known of a run; `name`: to call it by."""
    path = directory.path
    starts = _starts(path)
    sources = [start["source"] for start in starts if isinstance(start.get("source"), dict)]
    commits = [f"{str(s.get('commit'))[:7]}{'+' * bool(s.get('is_changed'))}" for s in sources]
    last = starts[-1] if starts else {}
    gpus = last.get("gpus") if isinstance(last.get("gpus"), list) else []
    versions = last.get("versions") if isinstance(last.get("versions"), dict) else {}
    files = sorted((path / "evaluations").glob("*.json"))
    return Run(
        name or path.name,
        directory,
        RunStatus.read(path),
        ", ".join(dict.fromkeys(commits)) or UNKNOWN,
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        ", ".join(dict.fromkeys(map(str, gpus))),
        str(last.get("records", "")),
        tuple(map(Evaluated.read, files)),
    )


def _starts(path: Path) -> list[dict[str, Any]]:
    """The entries of a run's history; none where it has none that can be read."""
    try:
        content = strict_json.parse(_text(path / HISTORY_NAME), HISTORY_NAME)
    except UserError:
        return []
    starts = content.get("starts") if isinstance(content, dict) else None
    return [s for s in starts if isinstance(s, dict)] if isinstance(starts, list) else []


def _text(path: Path) -> str:
    try:
        return strict_json.read_text(path, str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
