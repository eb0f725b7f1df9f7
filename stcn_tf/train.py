"""Trains a model on records, or continues a run.

python -m stcn_tf.train --flagfile=experiments/iamondb.flags --data=RECORDS --run_dir=DIR

Ctrl-C, SIGTERM and SIGHUP stop at the end of an update with a checkpoint; the same command
continues. One trainer at a time writes to a run directory. `python -m stcn_tf.runs DIR` lists runs.

python -m stcn_tf.train --init_from=DIR --data=OTHER_RECORDS --run_dir=NEW ...

begins with the best weights of a run, or with those in a file .weights.h5, say to fine-tune them.
"""

from stcn_tf import flags
from stcn_tf.support import cli


def main() -> int:
    """Builds what the flags say and trains it."""
    config = flags.config()
    cli.import_tensorflow()

    from stcn_tf.training.trainer import Trainer

    args = flags.FLAGS
    finished = Trainer(config, args.data, args.run_dir, restart=args.restart).train()
    return 0 if finished else cli.INTERRUPTED


if __name__ == "__main__":
    cli.run(main, flags.define_train, needs_tensorflow=False)
