"""Imports a checkpoint of the authors' released TensorFlow 1 program as a run directory.

python -m stcn_tf.import_tf1 --checkpoint=PREFIX --config=config.json --run_dir=DIR

Models of the classes StochasticTCN (STCN, STCN-dense) and TCN (Wavenet, Wavenet-dense) are
imported with the program's floors, which make likelihoods comparable with its own. The run
evaluates, samples and exports like any other. It also trains on, with the settings of the
configuration, from the update, the schedules and, if the checkpoint has it, the state of Adam:

python -m stcn_tf.train --flagfile=DIR/imported.flags --data=RECORDS --run_dir=DIR

With --data the run takes over the normalisation and the names of the features of the records, which
must be those the model was trained on. Without, they are not known until it is trained on.
"""

from stcn_tf import flags
from stcn_tf.support import cli


def main() -> None:
    """Reads the checkpoint, writes the run directory."""
    args = flags.FLAGS

    from stcn_tf.released.importing import import_run

    import_run(args.checkpoint, args.config, args.run_dir, args.data, args.max_steps)


if __name__ == "__main__":
    cli.run(main, flags.define_import_tf1)
