"""Two runs on the same sequences: the difference of each, and its standard error.

The difference varies less from sequence to sequence than either run does, so that it is known to a
smaller error. Nothing here needs TensorFlow.
"""

import contextlib
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stcn_tf.inference.grouping import Grouping, averages_head, averages_line, per_step
from stcn_tf.reporting.evaluated import KINDS, NO_BOUND, Evaluated, latest
from stcn_tf.runs import CONFIG_NAME
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home

_ACCEPTED = "two evaluations (stcn_tf.evaluate) on the same records and split"
# What must be equal, and what to call it.
_EQUAL = {
    "unit": "unit",
    "normalization": "normalisation",
    "source_sha256": "records (source)",
    "split": "split",
    "piece": "pieces",
    "released_floors": "released floors",
}
_OTHERS = {"reconstruction": "reconstruction", "kl": "KL"}


class _OtherQuestion(UserError):
    """Two evaluations that are sound, but not of the same question."""


class Difference(NamedTuple):
    """Of a term, A minus B."""

    name: str
    per_sequence: float
    per_sequence_error: float
    per_step: float
    per_step_error: float


class Comparison(NamedTuple):
    """Two evaluations and their differences."""

    a: Evaluated
    b: Evaluated
    grouping: Grouping
    num_sequences: int
    differences: list[Difference]
    notes: list[str]
    sign: str  # of a limit of the difference of log-likelihoods, where one is exact; else ""

    @property
    def rank(self) -> tuple[bool, int, int, int, bool, int]:
        """The higher, the rather it is taken.

        First what was scored as usual, then the latest weights, most sequences, equal draws, most.
        """
        both = (self.a, self.b)
        draws = [(each["bound"], each["num_samples"]) for each in both]
        is_usual = all(each.is_usual for each in both)
        return (
            *(is_usual, self.a["update"], self.b["update"]),
            *(self.num_sequences, draws[0] == draws[1], sum(k for _, k in draws)),
        )

    @property
    def likelihoods(self) -> list[Difference]:
        """Those of log-likelihoods and what stands for them."""
        return [each for each in self.differences if each.name not in _OTHERS.values()]

    def text(self) -> str:
        """A table for people."""
        width = max(len(difference.name) for difference in self.differences)
        over = "groups" if self.grouping.are_grouped else "sequences"
        lines = [
            f"A: {self.a.path}",
            f"B: {self.b.path}",
            f"A - B on the same {self.num_sequences:,} sequences of {self.a['dataset']}, split "
            f"{self.a['split']}; {self.a['unit']}",
            "",
            averages_head(width),
        ]
        lines += [
            averages_line(
                d.name,
                width,
                (d.per_sequence, d.per_sequence_error),
                (d.per_step, d.per_step_error),
            )
            for d in self.differences
        ]
        lines += ["", f"+-: standard error of the difference over {over}"]
        if self.grouping.are_grouped:
            lines[-1] += f" ({self.grouping.num_groups:,} of them: forms, speakers or the like)"
        return "\n".join(lines + self.notes)


def compare(a: str, b: str) -> Comparison:
    """Compares two run directories or two files of evaluations.

    Of runs it takes the latest evaluations of the same question, rather those of equal draws.

    Raises:
        UserError: they are of different units, records or questions; or there is no evaluation; or
            one is damaged.
    """
    its, others = (_evaluations(Path(expand_home(path))) for path in (a, b))
    found = matching(its, others) or [compared(its[0], others[0])]  # which says what differs
    return max(found, key=lambda one: one.rank)


def matching(its: Iterable[Evaluated], others: Iterable[Evaluated]) -> list[Comparison]:
    """Compares the evaluations of two runs, each with each that is of the same question.

    Raises:
        UserError: one is damaged.
    """
    found = []
    for pair in itertools.product(its, others):
        with contextlib.suppress(_OtherQuestion):
            found.append(compared(*pair))
    return found


def _evaluations(path: Path) -> list[Evaluated]:
    """Those of a run, or the one that is named."""
    if not path.is_dir():
        return [Evaluated.read(path)]
    if not (path / CONFIG_NAME).is_file():
        raise UserError(f"{path}: no run directory; accepted: a run, or the file of an evaluation")
    files = (path / "evaluations").glob("*.json")
    found = latest(map(Evaluated.read, sorted(files)))
    if not found:
        raise UserError(f"{path}: has no evaluation: run stcn_tf.evaluate first")
    return [each for each in found if each.file_of_sequences.exists()] or found


def compared(a: Evaluated, b: Evaluated) -> Comparison:
    """Compares two evaluations.

    Raises:
        UserError: they are of different units, records, questions or sequences.
    """
    for name, what in _EQUAL.items():
        _require_equal(a, b, what, a[name], b[name])
    _require_equal(a, b, "given frames", a.given_frames, b.given_frames)
    common = [key for key in KINDS if key in a["terms"] and key in b["terms"]]
    notes = []
    for key in ("importance_weighted", "fivo"):
        if key in common and a["num_samples"] != b["num_samples"]:
            common.remove(key)
            draws = f"{a['num_samples']} and {b['num_samples']} draws"
            notes.append(f"{a.name(key)}: not compared, since of {draws}")
    pairs = [(_name(a, b, key, key), key, key) for key in common]
    pairs += [(name, key, key) for key, name in _OTHERS.items()]
    kinds = ["exact" if "log_likelihood" in each["terms"] else "bounds" for each in (a, b)]
    if a["released_floors"]:  # which make bounds of nothing
        _require_equal(a, b, "kind of likelihood", *kinds)
    sign = ""
    if kinds[0] != kinds[1]:
        pairs = _exact_and_bounds(a, b)
        which, limit, sign = ("A", "most", "≤ ") if kinds[0] == "exact" else ("B", "least", "≥ ")
        notes.append(
            f"{which} is exact, the other a lower bound: of the log-likelihoods themselves A - B "
            f"is at {limit} this"
        )
    of_a, of_b = a.sequences(), b.sequences()
    others = set(of_b.names)
    names = [name for name in of_a.names if name in others]
    sizes = len(of_a.names), len(of_b.names)
    # Of one all may have been evaluated, of the other the first.
    if len(names) < min(sizes) or len(set(names)) < len(names):
        raise _OtherQuestion(_message(a, b, "sequences", *sizes))
    if sizes[0] != sizes[1]:
        notes.append(f"of the {sizes[0]:,} of A and the {sizes[1]:,} of B those that both have")
    of_a, of_b = of_a.only(names), of_b.only(names)
    if not np.array_equal(of_a.num_steps, of_b.num_steps):
        raise _OtherQuestion(_message(a, b, "scored steps", a["num_steps"], b["num_steps"]))
    grouping = of_a.grouping
    differences = []
    for name, of_first, of_second in pairs:
        if of_first in of_a.terms and of_second in of_b.terms:
            with np.errstate(invalid="ignore"):  # two infinities make a nan, which is said
                values = of_a.terms[of_first] - of_b.terms[of_second]
            differences.append(_difference(name, values, of_a.num_steps, grouping))
    models = [(each["model"], each.content.get("posterior_draws")) for each in (a, b)]
    if models[0] != models[1] and any(d.name in _OTHERS.values() for d in differences):
        notes.append("reconstruction and KL of different models are different quantities")
    return Comparison(a, b, grouping, len(of_a.names), differences, notes, sign)


def _exact_and_bounds(a: Evaluated, b: Evaluated) -> list[tuple[str, str, str]]:
    """Names and keys of the differences between an exact value and the bounds of the other."""
    pairs = itertools.product(*([k for k in KINDS if k in each["terms"]] for each in (a, b)))
    return [
        (_name(a, b, of_a, of_b), of_a, of_b)
        for of_a, of_b in pairs
        if NO_BOUND not in (KINDS[of_a], KINDS[of_b])
    ]


def _name(a: Evaluated, b: Evaluated, of_a: str, of_b: str) -> str:
    """Of a difference: what both are, or each."""
    names = a.name(of_a), b.name(of_b)
    return names[0] if names[0] == names[1] else " - ".join(names)


def _difference(name, values, num_steps, grouping) -> Difference:
    return Difference(
        name,
        float(np.mean(values)),
        grouping.standard_error(values),
        per_step(values, num_steps),
        grouping.per_step_standard_error(values, num_steps),
    )


def _require_equal(a: Evaluated, b: Evaluated, what: str, of_a: object, of_b: object) -> None:
    if of_a != of_b:
        raise _OtherQuestion(_message(a, b, what, of_a, of_b))


def _message(a: Evaluated, b: Evaluated, what: str, of_a: object, of_b: object) -> str:
    if isinstance(of_a, dict) and isinstance(of_b, dict):  # the first entry that differs
        key = next(key for key in {**of_a, **of_b} if of_a.get(key) != of_b.get(key))
        what, of_a, of_b = f"{what}, {key}", of_a.get(key), of_b.get(key)
    values = [str(v) if len(str(v)) < 60 else f"{str(v)[:60]}..." for v in (of_a, of_b)]
    return (
        f"{a.path} and {b.path}: different {what}: {values[0]} and {values[1]}; accepted: "
        f"{_ACCEPTED}"
    )
