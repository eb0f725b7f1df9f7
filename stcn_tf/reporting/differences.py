"""Runs on the same records, each less one of them, sequence by sequence. No TensorFlow."""

from collections.abc import Sequence

from stcn_tf.reporting.comparison import Comparison, compared
from stcn_tf.reporting.evaluated import Evaluated, Run, latest
from stcn_tf.reporting.tables import NONE, Row, Table
from stcn_tf.support.errors import UserError

_TITLE = "Differences on the same sequences"
_NOTES = (
    "Of each sequence the run less the other, in nats per sequence; ±: one standard error of the "
    "mean difference, over groups of sequences where the records know them. It is smaller than "
    "that of either number, and does not hold for other sequences, seeds or sizes.",
    "≤, ≥: one of the two is exact, the other a lower bound, so that of the log-likelihoods "
    "themselves the difference is at most, or at least, this. Without a sign: of the quantities "
    "that are named; of bounds of different tightness it does not rank the models.",
)
_HEAD = ("Data set", "Run", "Less", "Quantity", "Difference", "±", "± over", "Sequences")


def tables(runs: Sequence[Run]) -> list[Table]:
    """The table; none where no two runs were evaluated on the same sequences.

    Runs of one data set are measured against the first STCN-dense among them whose objective is a
    bound, else against the first run.
    """
    together: dict[tuple[str, str], dict[int, list[Evaluated]]] = {}
    for index, run in enumerate(runs):
        for evaluated in latest(run.evaluations):
            key = evaluated["source_sha256"], evaluated["split"]
            together.setdefault(key, {}).setdefault(index, []).append(evaluated)
    rows = []
    for evaluations in together.values():
        other = min(evaluations, key=lambda index: not _is_stcn_dense(runs[index]))
        for index, its in evaluations.items():
            if index != other:
                rows += _rows(runs[index], its, runs[other], evaluations[other])
    return [Table(_TITLE, _NOTES, _HEAD, tuple(rows))] if rows else []


def _is_stcn_dense(run: Run) -> bool:
    settings = run.directory.config.model
    is_bound = run.directory.config.training.objective == "elbo"
    return is_bound and settings.model == "stcn_dense" and settings.posterior_draws == "shared"


def _rows(run: Run, its: Sequence[Evaluated], other: Run, others: Sequence[Evaluated]) -> list[Row]:
    """Each quantity once, of as many sequences as there are."""
    found: dict[str, Row] = {}
    most: dict[str, int] = {}
    for a in its:
        for b in others:
            try:
                comparison = compared(a, b)
            except UserError:  # of other questions, which is no fault here
                continue
            for row in _of_likelihoods(run, other, comparison):
                quantity = row.cells[3]
                if comparison.num_sequences > most.get(quantity, 0):
                    most[quantity], found[quantity] = comparison.num_sequences, row
    return list(found.values())


def _of_likelihoods(run: Run, other: Run, comparison: Comparison) -> list[Row]:
    grouping, rows = comparison.grouping, []
    over = f"{grouping.num_groups:,} groups" if grouping.are_grouped else "sequences"
    for difference in comparison.likelihoods:
        error = difference.per_sequence_error
        cells = (
            *(comparison.a["dataset"], run.name, other.name, difference.name),
            f"{comparison.sign}{difference.per_sequence:+,.1f}",
            f"{error:,.1f}" if error == error else NONE,
            *(over, f"{comparison.num_sequences:,}"),
        )
        rows.append(Row(cells, "ours"))
    return rows
