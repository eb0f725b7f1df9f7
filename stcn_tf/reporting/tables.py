"""The paper's tables with the numbers of runs beside its own, where the two may be compared.

Where they may not, the cell says why, and the number stands by itself in the table of all
evaluations. Nothing here needs TensorFlow.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stcn_tf.inference.grouping import UNKNOWN
from stcn_tf.reporting import published
from stcn_tf.reporting.evaluated import BOUND, NO_BOUND, Evaluated, Number, Run, latest
from stcn_tf.reporting.published import Dataset, Published

NONE = "–"
_SIGNS = {">=": "≥ ", "<=": "≤ ", "~": "≈ ", "exact": ""}
_TITLES = {
    1: "Table 1: average log-likelihood per sequence",
    2: "Table 2: average negative log-likelihood per image of binarized MNIST",
    4: "Table 4: average log-likelihood per sequence, all observation models",
}
_SIGNS_NOTE = (
    "≥ a lower bound, ≤ an upper one of negative log-likelihoods, ≈ an estimate by importance "
    "weighting; exact, or printed by the paper, without a sign. K: draws of an importance-weighted "
    "bound. ±: one standard error, over groups of sequences (forms, speakers) where the records "
    "know them."
)
_DAGGER_NOTE = (
    "† printed as a bound, which it is not: the released objective of STCN-dense draws latents "
    "independently for each use and counts the KL of each layer above the lowest once, where a "
    "bound counts it twice. It is not to be measured against bounds."
)
_SIZES_NOTE = "Parameters: of the paper's size (flagfiles of experiments/) / of the run."
_HOURS_NOTE = (
    "Updates: after which the evaluated weights were written, of all that were made. Processor "
    "hours: of all trainers of the run. Commit: + where files differed from it."
)
_RUN_COLUMNS = ("Parameters", "Updates", "Processor hours", "Commit")
_HEAD = (
    *("Data set", "Model", "Paper", "Ours", "Unit", "± over", "First frame: paper / ours"),
    *(*_RUN_COLUMNS, "Run", "Notes"),
)
_ALL_HEAD = (
    *("Run", "Data set", "Model", "Log-likelihood", "Unit", "± over", "Sequences"),
    *("KL of layer 1, 2, ...", "First frame", *_RUN_COLUMNS, "Notes"),
)


class Row(NamedTuple):
    """Of a table. `kind` is for the eye: ours, apart (not compared), cited, or nothing."""

    cells: tuple[str, ...]
    kind: str = ""


class Table(NamedTuple):
    """What a table says, in plain text."""

    title: str
    notes: tuple[str, ...]
    head: tuple[str, ...]
    rows: tuple[Row, ...]


def make(numbers: Iterable[int], runs: Sequence[Run]) -> list[Table]:
    """The tables of these numbers, and what peers published themselves.

    Args:
        numbers: of the paper's tables.
        runs: whose evaluations stand beside.
    """
    content = published.tables()
    tables = []
    for number in numbers:
        rows = [row for row in content.numbers if number in row.tables]
        tables.append(_table_3(runs) if number == 3 else _likelihoods(_TITLES[number], rows, runs))
    if tables:
        title = "What the authors of other models published themselves"
        tables.append(_likelihoods(title, content.peers, runs))
    return tables


def why_not(number: Published, run: Run, evaluated: Evaluated) -> str:
    """In words, why an evaluation is not to stand beside a published number; "": it may."""
    dataset, card = published.tables().datasets[number.dataset], run.directory.card
    if number.incomparable:
        return number.incomparable
    if evaluated["source_sha256"] != card.source_sha256:
        return "evaluated on other records than the run's"
    for name, theirs in dataset.facts.items():
        if (ours := card.extra.get(name, UNKNOWN)) != theirs:
            return f"{name} {ours} of the data, the paper's is {theirs}"
    if evaluated["split"] != dataset.split:
        return f"split {evaluated['split']}, the paper's is {dataset.split}"
    if card.normalization.kind != dataset.normalization:
        ours, theirs = card.normalization.kind, dataset.normalization
        return f"another scale: normalisation {ours}, the paper's is taken to be {theirs}"
    if (split := card.splits.get(dataset.split)) is None:
        return "its data are not known"
    sizes = [("sequences", split.num_sequences, dataset.num_sequences)]
    if dataset.num_steps:
        sizes.append(("steps", split.num_steps, dataset.num_steps))
    for what, ours, theirs in sizes:
        if ours != theirs:
            return f"other data: {ours:,} {what} in {dataset.split}, the paper's has {theirs:,}"
    if evaluated["num_sequences"] != split.num_sequences:
        return f"of the first {evaluated['num_sequences']:,} sequences only"
    if evaluated["piece"] != number.piece:
        given = " --given_frames=1" if number.first_frame == "given" else ""
        return f"theirs is of other pieces: evaluate --piece={number.piece}{given}"
    # Of a piece the first frame is no small part, as it is of a sequence.
    if number.piece and number.first_frame != (ours := first_frame(evaluated)):
        return f"the first frame of a piece is {ours}, theirs {number.first_frame}"
    # Table 3 has the KLs with which theirs becomes a bound.
    is_like_theirs = any(each.kind == NO_BOUND for each in evaluated.numbers)
    if not (number.is_bound or number.with_all_kl is not None or is_like_theirs):
        return "theirs is no bound (†)"
    return ""


def _likelihoods(title: str, numbers: Sequence[Published], runs: Sequence[Run]) -> Table:
    rows = [row for number in numbers for row in _rows(number, runs)]
    datasets = published.tables().datasets
    names = dict.fromkeys(number.dataset for number in numbers)
    notes = [_SIGNS_NOTE, _DAGGER_NOTE, f"{_SIZES_NOTE} {_HOURS_NOTE}"]
    head = _HEAD
    if any(number.source for number in numbers):
        notes[1] = "(from memory): its source could not be read; to be checked before it is cited."
        head = tuple(name.replace("Paper", "Theirs").replace("paper", "theirs") for name in _HEAD)
    notes += [f"{datasets[n].name}: {datasets[n].note}" for n in names if datasets[n].note]
    return Table(title, tuple(notes), head, tuple(rows))


def _rows(number: Published, runs: Sequence[Run]) -> list[Row]:
    """A published number with each run of its model; by itself where there is none."""
    content = published.tables()
    dataset, title = content.datasets[number.dataset], content.title(number)
    start = (dataset.name, title, _printed(number))
    quoted = f"quoted: {number.quoted}" if number.quoted else ""
    notes = [number.note, number.incomparable, quoted, number.source]
    for same in content.table3 if not number.is_bound else ():
        if (same.dataset, same.model, same.observation) == _key(number):
            notes.append(f"with Table 3's KLs as a bound counts them {_as_bound(same)}")
    theirs = "; ".join(filter(None, notes))
    rows = []
    for run in [] if number.cited else _runs_of(number, runs):
        for evaluated, reason in _beside(number, run):
            first = f"{number.first_frame or NONE} / {first_frame(evaluated)}"
            whose, ours = (f"{number.parameters:,}" if number.parameters else NONE), _about(run)
            about = (f"{whose} / {ours[0]}", _updates(run, evaluated), *ours[1:], run.name)
            told = [theirs, _conventions(run, evaluated)]
            if not reason and number.first_frame == "given" and not evaluated.given_frames:
                told.append("without the first frame, as theirs: evaluate --given_frames=1")
            told = "; ".join(filter(None, told))
            if reason:
                own = (f"not compared: {reason}", NONE, NONE)
            else:
                negative = dataset.is_negative
                numbers = [
                    each for each in evaluated.numbers if number.is_bound or each.kind == NO_BOUND
                ]
                own = (
                    numbers_text(numbers, negative),
                    _unit(evaluated, dataset, negative),
                    _over(evaluated),
                )
            rows.append(Row((*start, *own, first, *about, told), "apart" if reason else "ours"))
    if not rows:
        whose = f"{number.parameters:,} / {NONE}" if number.parameters else NONE
        own = f"cited, not run: {number.cited}" if number.cited else "not run"
        unit = _unit(None, dataset, dataset.is_negative)
        first = f"{number.first_frame or NONE} / {NONE}"
        cells = (*start, own, unit, NONE, first, whose, NONE, NONE, NONE, NONE, theirs)
        rows.append(Row(cells, "cited" if number.cited else ""))
    return rows


def _table_3(runs: Sequence[Run]) -> Table:
    content = published.tables()
    ours = (len(each.kl_of_layers) for run in runs for each in run.evaluations)
    layers = max(*(len(number.kl_of_layers) for number in content.table3), *ours)
    head = ("Data set", "Model", "Whose", "Log-likelihood (MNIST: negative)", "KL")
    head += (*(f"KL of layer {layer}" for layer in range(1, layers + 1)), "Unit", "± over")
    head += ("First frame", *_RUN_COLUMNS, "Notes")
    rows = []

    def add(number: Published, whose: str, text: str, kl: Sequence[float], about, kind: str):
        cells = [f"{value:,.1f}" for value in kl]  # all, then of each layer
        cells += [NONE] * (1 + layers - len(cells))
        start = (content.datasets[number.dataset].name, content.title(number), whose, text)
        rows.append(Row((*start, *cells, *about), kind))

    for number in content.table3:
        dataset = content.datasets[number.dataset]
        negative = dataset.is_negative
        paper = (_unit(None, dataset, negative), NONE, number.first_frame or NONE)
        paper += (NONE,) * len(_RUN_COLUMNS)
        notes = f"cited, not run: {number.cited}" if number.cited else ""
        kind = "cited" if number.cited else ""
        kl = (number.kl, *number.kl_of_layers)
        add(number, "paper", _printed(number), kl, (*paper, notes), kind)
        if number.with_all_kl is not None:
            notes = "KLs above the lowest count twice"
            add(number, "paper, as a bound", _as_bound(number), (), (*paper, notes), "")
        for run in [] if number.cited else _runs_of(number, runs):
            for evaluated, reason in _beside(number, run):
                text, kl, unit, over = f"not compared: {reason}", (), NONE, NONE
                if not reason:
                    text = numbers_text(evaluated.numbers, negative)
                    kl = (sum(evaluated.kl_of_layers), *evaluated.kl_of_layers)
                    unit, over = _unit(evaluated, dataset, negative), _over(evaluated)
                size, *how = _about(run)
                about = (unit, over, first_frame(evaluated), size, _updates(run, evaluated), *how)
                about += (_conventions(run, evaluated),)
                add(number, run.name, text, kl, about, "apart" if reason else "ours")
    title = "Table 3: KL of each latent layer, nats per sequence"
    notes = (_SIGNS_NOTE, _DAGGER_NOTE, "Layer 1 is the lowest, the paper's z^1.", _HOURS_NOTE)
    return Table(title, notes, head, tuple(rows))


def evaluations(runs: Sequence[Run]) -> Table:
    """The table of all evaluations of runs."""
    rows = []
    for run in runs:
        settings = run.directory.config.model
        model = f"{settings.model} ({settings.observation})"
        if not run.directory.card.num_real:
            model = settings.model
        for evaluated in latest(run.evaluations):
            about = _about(run)
            kl = ", ".join(f"{value:,.1f}" for value in evaluated.kl_of_layers) or NONE
            cells = (
                *(run.name, f"{evaluated['dataset']}, {evaluated['split']}", model),
                *(numbers_text(evaluated.numbers), f"{evaluated['unit']} per sequence"),
                *(_over(evaluated), f"{evaluated['num_sequences']:,}", kl),
                *(first_frame(evaluated), about[0], _updates(run, evaluated), *about[1:]),
                _conventions(run, evaluated),
            )
            rows.append(Row(cells, "ours"))
        if not run.evaluations:
            cells = (run.name, run.directory.card.name, model, "not evaluated yet")
            rows.append(Row((*cells, *[NONE] * (len(_ALL_HEAD) - len(cells))), "apart"))
    notes = (
        "Log-likelihoods, higher is better. Rows compare where data set, split, unit, number of "
        "sequences and first frame are the same; bounds of different tightness do not rank models.",
        _SIGNS_NOTE,
        _HOURS_NOTE,
    )
    return Table("All evaluations of these runs", notes, _ALL_HEAD, tuple(rows))


def first_frame(evaluated: Evaluated) -> str:
    """Whether it was scored, or what was given."""
    given = evaluated.given_frames
    return "scored" if not given else "given" if given == 1 else f"{given} given"


def numbers_text(numbers: Iterable[Number], is_negative: bool = False) -> str:
    """Numbers of an evaluation with signs, standard errors and what each is."""
    sign = "≤ " if is_negative else "≥ "
    parts = []
    for number in numbers:
        value = -number.value if is_negative else number.value
        error = f"{number.error:,.2f}" if number.error is not None else UNKNOWN
        start = sign if number.kind == BOUND else ""
        text = f"{start}{value:,.2f} ± {error}" if math.isfinite(value) else "not finite"
        parts.append(f"{text} ({number.label})")
    return "; ".join(parts)


def _key(number: Published) -> tuple[str, str, str]:
    return number.dataset, number.model, number.observation


def _as_bound(number: Published) -> str:
    """That of Table 3 with KLs above the lowest layer counted twice."""
    return f"{_SIGNS[number.kind]}{number.with_all_kl:,.1f}"


def _printed(number: Published) -> str:
    if number.value is None:
        return "none"
    sign, digits = _SIGNS[number.kind], number.number.split()[-1]
    if not number.is_bound:
        return f"{digits} † (no bound)"
    return f"{sign}{digits}{' (from memory)' if number.is_recalled else ''}"


def _runs_of(number: Published, runs: Sequence[Run]) -> list[Run]:
    return [
        run
        for run in runs
        if number.is_of(
            run.directory.card.name,
            run.directory.config.model,
            run.directory.card.num_features,
        )
        and run.evaluations
    ]


def _beside(number: Published, run: Run) -> list[tuple[Evaluated, str]]:
    """What of a run may stand beside a number; if nothing, one evaluation and why."""
    found = [(each, why_not(number, run, each)) for each in latest(run.evaluations)]
    split = published.tables().datasets[number.dataset].split
    found.sort(key=lambda pair: pair[0]["split"] != split)
    return [pair for pair in found if not pair[1]] or found[:1]


def _about(run: Run) -> tuple[str, str, str]:
    """Parameters, processor hours and commit."""
    status = run.status
    hours = status.processor_hours if status else None
    text = UNKNOWN if hours is None else f"{hours:.2f}"
    return (
        f"{status.num_parameters:,}" if status and status.num_parameters else UNKNOWN,
        f"{text} ({run.devices})" if run.devices else text,
        run.commit,
    )


def _updates(run: Run, evaluated: Evaluated) -> str:
    made = f" of {run.status.update:,}" if run.status else ""
    return f"{evaluated['update']:,}{made}"


def _over(evaluated: Evaluated) -> str:
    groups = evaluated.content.get("num_groups")
    return f"{groups} groups" if groups else f"{evaluated['num_sequences']:,} sequences"


def _unit(evaluated: Evaluated | None, dataset: Dataset, is_negative: bool) -> str:
    unit = evaluated["unit"] if evaluated else "nats"
    return f"{unit} per {dataset.sequence}{', negative' if is_negative else ''}"


def _conventions(run: Run, evaluated: Evaluated) -> str:
    """The seed, and what was not done as usual."""
    training = run.directory.config.training
    notes = [f"trained with {training.objective}"] if training.objective != "elbo" else []
    notes += [f"seed {training.seed}", *scored_how(evaluated)]
    if draws := evaluated.content.get("posterior_draws"):
        notes.append(f"{draws} draws")
    return "; ".join(notes)


def scored_how(evaluated: Evaluated) -> list[str]:
    """What was not scored as usual, but for the first frame."""
    notes = [
        f"scored with {name} {evaluated.content.get(name)}, trained with {trained}"
        for name, trained in evaluated["trained_with"].items()
    ]
    if evaluated["piece"]:
        notes.append(f"pieces of {evaluated['piece']} frames, each by itself")
    if evaluated["checkpoint"] != "best":
        notes.append(f"checkpoint {evaluated['checkpoint']}")
    return notes
