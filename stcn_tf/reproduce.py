"""Trains every model of a table alike: one size, one processor time, one way of evaluating.

python -m stcn_tf.reproduce --data=RECORDS --out=DIR --minutes=45 [--rows=rnn,vrnn --seeds=0,1]

A row is a flagfile of experiments/small/KIND (KIND: handwriting, audio or image, as the records
are), or of --flagfiles. First each makes a few updates, by which it is known how many its time
allows; these decide its decay, its annealing and when it is evaluated, whatever the seed. The plan
is printed, kept in DIR/plan.json, and carried out: training, the ELBO or log-likelihood of a split,
the importance-weighted bound, samples. The runs are DIR/runs/ROW, for stcn_tf.report; what each
command printed is in DIR/logs. Several rows train at once, each on a processor of its own; GPUs are
used by one row at a time, and its time is then that of the clock. Ctrl-C ends all with checkpoints;
the same command goes on.
"""

from stcn_tf import flags
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError


def main() -> int:
    """Plans, trains, evaluates, samples."""
    args = flags.FLAGS

    from stcn_tf.data.card import read_card
    from stcn_tf.reproduction import plan, rows
    from stcn_tf.reproduction.pool import Pool

    card = read_card(args.data)
    chosen = rows.find(args.flagfiles, card, args.rows, args.out, map(int, args.seeds))
    split = args.split or rows.split_of(card)
    if split not in card.splits:
        raise UserError(f"--split={split}: {args.data} has {', '.join(card.splits)}")
    cli.import_tensorflow()
    from stcn_tf.support.devices import has_gpu

    pool = Pool(args.at_once, has_gpu(), lambda line: print(line, flush=True))
    with plan.locked(args.out):
        planned = plan.Plan.open(args.out, card, args.minutes, has_gpu())
        print(planned.announcement(chosen, pool.at_once, split), flush=True)
        missing = planned.missing(chosen)
        code = pool.run({row.name: row.rehearsal(args.data, planned) for row in missing})
        chosen = [row for row in chosen if row.model in planned.schedules]
        if code == cli.INTERRUPTED or not chosen:
            return code
        print(planned.text(chosen, pool.at_once), flush=True)
        asked = rows.Questions(split, args.num_samples, args.limit, args.num)
        jobs = {row.name: row.reproduction(args.data, planned, asked) for row in chosen}
        code = pool.run(jobs) or code
    if code != cli.INTERRUPTED:
        runs = f"{args.out}/runs"
        print(f"next: python -m stcn_tf.report --runs={runs} --out={args.out}/report")
    return code


if __name__ == "__main__":
    cli.run(main, flags.define_reproduce, needs_tensorflow=False)
