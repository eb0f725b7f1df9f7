"""Evaluates a run on a split of its records.

python -m stcn_tf.evaluate --run_dir=DIR --data=RECORDS [--bound=iwae --num_samples=64]

Prints a table (ELBO, the bound asked for, reconstruction, KL, KL of each layer; nats per sequence
and per step, the likelihoods also in raw units with bits per dimension) and writes it as JSON into
evaluations/ of the run directory, a file for each question, or where --out says; and beside it, as
.csv, the terms of each sequence, by which stcn_tf.report compares runs. --given_frames and --piece
score as other programs do, and say so. For STCN-dense with independent draws it gives three
numbers: the released objective, which is not a lower bound, a valid bound, and an
importance-weighted bound.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stcn_tf import flags
from stcn_tf.support import cli, files
from stcn_tf.support.errors import UserError

if TYPE_CHECKING:
    from stcn_tf.models.settings import ModelSettings
    from stcn_tf.runs import RunDirectory

# Settings of the model with other values of which weights may be scored.
_OVERRIDES = ("posterior_draws", "posterior_scale", "released_floors")


def main() -> None:
    """Scores the split, writes what came out, prints the table."""
    args = flags.FLAGS

    from stcn_tf import runs
    from stcn_tf.data.batches import eval_batches
    from stcn_tf.data.card import read_card
    from stcn_tf.inference import table
    from stcn_tf.inference.evaluation import Evaluator

    run = runs.RunDirectory.open(args.run_dir)
    for name in ("out", "per_sequence"):
        if (given := args[name].value) and (
            Path(given).is_dir() or not Path(given).parent.is_dir()
        ):
            cli.fail(f"--{name}={given}: accepted: a file in a folder that exists")
    if not args.out:
        runs.check_not_packaged("run_dir", args.run_dir, "the same with --out=FILE.json")
    card = read_card(args.data)
    run.check_same_units(card)
    batches = eval_batches(
        args.data, split=args.split, batch_size=args.batch_size, limit=args.limit
    )
    trained = run.config.model
    run = _scored_with(run, args)
    model, update = run.load(args.checkpoint)
    is_elbo_alone = args.bound == "elbo" and model.is_objective_a_bound
    num_samples = args.num_samples or (1 if is_elbo_alone else 16)
    about = _about(run, trained, update, args)
    other = "" if card.source_sha256 == run.card.source_sha256 else card.source_sha256[:8]
    out = Path(
        args.out or run.path / "evaluations" / _file_name(about, num_samples, args.limit, other)
    )
    each = Path(args.per_sequence) if args.per_sequence else out.with_suffix(".csv")
    if each.absolute() == out.absolute():
        raise UserError(f"--out={args.out}: accepted: another file than {each}, of each sequence")
    for file in (out, each):
        files.check_writable(file)  # before hours of scoring, not after
    evaluator = Evaluator(
        model,
        bound=args.bound,
        num_samples=num_samples,
        given_frames=args.given_frames,
        piece=args.piece,
    )
    total = card.splits[args.split].num_sequences
    with cli.progress_bar(min(args.limit, total) if args.limit else total, " sequences") as bar:
        evaluation = evaluator(batches, args.seed, progress=lambda done: bar.update(done - bar.n))
    content = table.summary(evaluation, model, card, about)
    try:
        table.write(content, out)
        table.write_sequences(evaluation, model, each)
    finally:  # the numbers are shown even if the disk has filled up meanwhile
        print(table.table(content), flush=True)
    print(f"written: {out}, and of each sequence {each}")


def _scored_with(run: "RunDirectory", args) -> "RunDirectory":
    """The run with the settings that its weights are to be scored with."""
    from stcn_tf.models.registry import check_has

    settings = run.config.model
    for name in _OVERRIDES:
        if (value := getattr(args, name)) is not None:
            check_has(settings.model, name, "--")
            settings = dataclasses.replace(settings, **{name: value})
    return dataclasses.replace(run, config=dataclasses.replace(run.config, model=settings))


def _about(run: "RunDirectory", trained: "ModelSettings", update: int, args) -> dict[str, Any]:
    """What was evaluated, and how; see `table.summary`."""
    settings = run.config.model
    return {
        "run": str(run.path),
        "model": settings.model,
        "posterior_draws": getattr(settings, "posterior_draws", None),
        "posterior_scale": getattr(settings, "posterior_scale", None),
        "released_floors": getattr(settings, "released_floors", False),
        "trained_with": {
            name: getattr(trained, name)
            for name in _OVERRIDES
            if getattr(settings, name, None) != getattr(trained, name, None)
        },
        "checkpoint": args.checkpoint,
        "update": update,
        "split": args.split,
        "seed": args.seed,
        "bound": args.bound,
        "given_frames": args.given_frames,
        "piece": args.piece,
    }


def _file_name(about: dict[str, Any], num_samples: int, limit: int, other: str) -> str:
    """Of the question: what is always asked, then what is otherwise than usual; `other` records."""
    parts = [about["split"], about["bound"], f"k{num_samples}", f"update{about['update']}"]
    usual = {"seed": 0, "given_frames": 0, "piece": 0}
    parts += [f"{name}{about[name]}" for name, value in usual.items() if about[name] != value]
    parts += [f"{name}-{about[name]}" for name in about["trained_with"]]
    if limit:
        parts.append(f"first{limit}")
    if other:
        parts.append(f"records-{other}")
    return "_".join(parts) + ".json"


if __name__ == "__main__":
    cli.run(main, flags.define_evaluate)
