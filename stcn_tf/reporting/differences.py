"""Runs on the same records, each less one of them, sequence by sequence. No TensorFlow."""

import json
import math
from collections.abc import Sequence

from stcn_tf.reporting.comparison import Comparison, Difference, matching
from stcn_tf.reporting.evaluated import Evaluated, Run, latest
from stcn_tf.reporting.tables import NONE, Row, Table, first_frame, scored_how

_TITLE = "Differences on the same sequences"
_NOTES = (
    "Of each sequence the run less the other; ±: one standard error of the "
    "mean difference, over groups of sequences where the records know them. It is smaller than "
    "that of either number, and does not hold for other sequences, seeds or sizes.",
    "≤, ≥: one of the two is exact, the other a lower bound, so that of the log-likelihoods "
    "themselves the difference is at most, or at least, this. Without a sign: of the quantities "
    "that are named; of bounds of different tightness it does not rank the models.",
)
_HEAD = (
    *("Data set", "Run", "Less", "Seeds", "Quantity", "Difference", "±", "Unit", "± over"),
    *("Sequences", "First frame", "Notes"),
)
# Of which evaluations that are compared must be.
_ALIKE = ("source_sha256", "split", "unit", "normalization")


def tables(runs: Sequence[Run]) -> list[Table]:
    """The table; none where no two runs were evaluated on the same sequences.

    Runs of one data set are measured against an STCN-dense among them whose objective is a bound,
    of their own seed where there is one, else against the first such with which something can be
    compared; without any against the first run. Evaluations whose sequences were written elsewhere
    are left out.

    Raises:
        UserError: an evaluation is damaged.
    """
    together: dict[str, dict[int, list[Evaluated]]] = {}
    for index, run in enumerate(runs):
        for evaluated in latest(run.evaluations):
            if evaluated.file_of_sequences.exists():
                key = json.dumps([evaluated[name] for name in _ALIKE])
                together.setdefault(key, {}).setdefault(index, []).append(evaluated)
    rows = []
    for evaluations in together.values():
        others = [i for i in evaluations if _is_stcn_dense(runs[i])] or list(evaluations)[:1]
        for index, its in evaluations.items():
            # Of those to measure against themselves each only against those before it.
            own = others[: others.index(index)] if index in others else others
            if index not in others:
                own = sorted(own, key=lambda i: _seed(runs[i]) != _seed(runs[index]))
            made = (_rows(runs[index], its, runs[other], evaluations[other]) for other in own)
            rows += next(filter(None, made), [])
    return [Table(_TITLE, _NOTES, _HEAD, tuple(rows))] if rows else []


def _seed(run: Run) -> int:
    return run.directory.config.training.seed


def _is_stcn_dense(run: Run) -> bool:
    settings = run.directory.config.model
    is_bound = run.directory.config.training.objective == "elbo"
    return is_bound and settings.model == "stcn_dense" and settings.posterior_draws == "shared"


def _rows(run: Run, its: Sequence[Evaluated], other: Run, others: Sequence[Evaluated]) -> list[Row]:
    """Each quantity once of each way of scoring, of as many sequences as there are."""
    found: dict[tuple[str, ...], Row] = {}
    for comparison in sorted(matching(its, others), key=lambda one: one.rank, reverse=True):
        frame, how = first_frame(comparison.a), _how(comparison)
        for difference in comparison.likelihoods:
            row = _row(run, other, comparison, difference, frame, how)
            found.setdefault((difference.name, frame, how), row)
    return list(found.values())


def _how(comparison: Comparison) -> str:
    """What was not scored as usual, of each where the two differ."""
    notes = ["; ".join(scored_how(each)) for each in (comparison.a, comparison.b)]
    if notes[0] == notes[1]:
        return notes[0]
    return "; ".join(f"{w}: {n}" for w, n in zip(("run", "less"), notes, strict=True) if n)


def _row(
    run: Run, other: Run, comparison: Comparison, difference: Difference, frame: str, how: str
) -> Row:
    grouping, error = comparison.grouping, difference.per_sequence_error
    value = difference.per_sequence
    cells = (
        f"{comparison.a['dataset']}, {comparison.a['split']}",
        *(run.name, other.name, f"{_seed(run)} / {_seed(other)}", difference.name),
        f"{comparison.sign}{value:+,.2f}" if math.isfinite(value) else "not finite",
        f"{error:,.2f}" if math.isfinite(error) else NONE,
        f"{comparison.a['unit']} per sequence",
        f"{grouping.num_groups:,} groups" if grouping.are_grouped else "sequences",
        *(f"{comparison.num_sequences:,}", frame, how),
    )
    return Row(cells, "ours")
