"""Evaluates a run on a split of its records.

python -m stcn_tf.evaluate --run_dir=DIR --data=RECORDS [--bound=iwae --num_samples=64]

Prints a table (ELBO, the bound asked for, reconstruction, KL, KL of each layer; nats per sequence
and per step, the likelihoods also in raw units with bits per dimension) and writes it as
evaluation.json into the run directory, or where --out says. For STCN-dense with independent draws
it gives three numbers: the released objective, which is not a lower bound, a valid bound, and an
importance-weighted bound.
"""

import dataclasses
import sys
from pathlib import Path

from stcn_tf import flags
from stcn_tf.support import cli


def main() -> None:
    """Scores the split, prints the table, writes evaluation.json."""
    args = flags.FLAGS

    from tqdm import tqdm

    from stcn_tf.data.batches import eval_batches
    from stcn_tf.data.records import read_card
    from stcn_tf.inference import table
    from stcn_tf.inference.evaluation import Evaluator
    from stcn_tf.models.registry import check_has
    from stcn_tf.runs import RunDirectory

    run = RunDirectory.open(args.run_dir)
    out = Path(args.out or run.path / "evaluation.json")
    if out.is_dir() or not out.parent.is_dir():
        cli.fail(f"--out={out}: accepted: a file in a folder that exists")
    card = read_card(args.data)
    run.check_same_units(card)
    batches = eval_batches(
        args.data, split=args.split, batch_size=args.batch_size, limit=args.limit
    )
    trained = run.config.model
    overrides = {
        name: value
        for name in ("posterior_draws", "posterior_scale", "released_floors")
        if (value := getattr(args, name)) is not None
    }
    for name in overrides:
        check_has(trained.model, name, "--")
    settings = dataclasses.replace(trained, **overrides)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, model=settings))
    model = run.load_model(args.checkpoint)
    is_elbo_alone = args.bound == "elbo" and model.is_released_objective_a_bound
    num_samples = args.num_samples or (1 if is_elbo_alone else 16)
    evaluator = Evaluator(model, bound=args.bound, num_samples=num_samples)
    total = card.splits[args.split].num_sequences
    with tqdm(
        total=min(args.limit, total) if args.limit else total,
        unit=" sequences",
        disable=not sys.stderr.isatty(),
        leave=False,
    ) as bar:
        evaluation = evaluator(batches, args.seed, progress=lambda done: bar.update(done - bar.n))
    content = table.summary(
        evaluation,
        model,
        card,
        {
            "run": str(run.path),
            "model": settings.model,
            "posterior_draws": getattr(settings, "posterior_draws", None),
            "posterior_scale": getattr(settings, "posterior_scale", None),
            "released_floors": getattr(settings, "released_floors", False),
            "trained_with": {
                name: getattr(trained, name)
                for name, value in overrides.items()
                if value != getattr(trained, name)
            },
            "checkpoint": args.checkpoint,
            "update": run.checkpoint_update(args.checkpoint),
            "split": args.split,
            "seed": args.seed,
            "bound": args.bound,
        },
    )
    print(table.table(content))
    table.write(content, out)
    print(f"written: {out}")


if __name__ == "__main__":
    cli.run(main, flags.define_evaluate)
