"""Runs on the same records, each less one of them, sequence by sequence. No TensorFlow."""

from collections.abc import Sequence

from stcn_tf.reporting.comparison import Comparison, Difference, matching
from stcn_tf.reporting.evaluated import Evaluated, Run, latest
from stcn_tf.reporting.tables import NONE, Row, Table

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
    "Sequences",
)


def tables(runs: Sequence[Run]) -> list[Table]:
    """The table; none where no two runs were evaluated on the same sequences.

    Runs of one data set are measured against an STCN-dense among them whose objective is a bound,
    of their own seed where there is one, else against the first such, else against the first run.

    Raises:
        UserError: an evaluation is damaged.
    """
    together: dict[tuple[str, str], dict[int, list[Evaluated]]] = {}
    for index, run in enumerate(runs):
        for evaluated in latest(run.evaluations):
            key = evaluated["source_sha256"], evaluated["split"]
            together.setdefault(key, {}).setdefault(index, []).append(evaluated)
    rows = []
    for evaluations in together.values():
        others = [i for i in evaluations if _is_stcn_dense(runs[i])] or list(evaluations)[:1]
        for index, its in evaluations.items():
            alike = [i for i in others if _seed(runs[i]) == _seed(runs[index])]
            other = others[0] if index in others else (alike or others)[0]
            if index != other:
                rows += _rows(runs[index], its, runs[other], evaluations[other])
    return [Table(_TITLE, _NOTES, _HEAD, tuple(rows))] if rows else []


def _seed(run: Run) -> int:
    return run.directory.config.training.seed


def _is_stcn_dense(run: Run) -> bool:
    settings = run.directory.config.model
    is_bound = run.directory.config.training.objective == "elbo"
    return is_bound and settings.model == "stcn_dense" and settings.posterior_draws == "shared"


def _rows(run: Run, its: Sequence[Evaluated], other: Run, others: Sequence[Evaluated]) -> list[Row]:
    """Each quantity once, of as many sequences as there are."""
    found: dict[str, Row] = {}
    for comparison in sorted(matching(its, others), key=lambda one: one.rank, reverse=True):
        for difference in comparison.likelihoods:
            if difference.name not in found:
                found[difference.name] = _row(run, other, comparison, difference)
    return list(found.values())


def _row(run: Run, other: Run, comparison: Comparison, difference: Difference) -> Row:
    grouping, error = comparison.grouping, difference.per_sequence_error
    cells = (
        f"{comparison.a['dataset']}, {comparison.a['split']}",
        *(run.name, other.name, f"{_seed(run)} / {_seed(other)}", difference.name),
        f"{comparison.sign}{difference.per_sequence:+,.2f}",
        f"{error:,.2f}" if error == error else NONE,
        f"{comparison.a['unit']} per sequence",
        f"{grouping.num_groups:,} groups" if grouping.are_grouped else "sequences",
        f"{comparison.num_sequences:,}",
    )
    return Row(cells, "ours")
