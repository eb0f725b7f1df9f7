"""Draws sequences of a split beside what a trained model makes of them.

python -m stcn_tf.reconstruct --run_dir=DIR --data=RECORDS --out=DIR [--split=test --num=10]

The latents of a reconstruction come from the posterior, which has seen the sequence itself; models
without latents predict each step from those before it. Each page says how probable the model finds
each sequence, in nats: the ELBO (a lower bound even where the released objective is none) of the
very draw of the latents that the reconstruction was made from, or the exact log-likelihood.

Writes a page, reconstructions.png and reconstructions.svg (of images the rows of the paper's
Figure 4: the image, its reconstruction, the probabilities, their distance from the image, and
below the negative log-likelihood), of audio original_00.wav, reconstruction_00.wav and so on, and
reconstructions.h5: the layout of stcn_tf/data/sequences.py with the originals, `reconstructions`,
`probabilities` (the same, with the probability of 1 for binary features) and `elbo`.
stcn_tf.sample can continue the originals of this file.
"""

from pathlib import Path

from stcn_tf import flags
from stcn_tf.support import cli


def main() -> None:
    """Reconstructs, writes the sequences, draws them."""
    args = flags.FLAGS

    from stcn_tf.data.batches import eval_batches
    from stcn_tf.data.card import read_card
    from stcn_tf.data.sequences import write_sequences
    from stcn_tf.data.units import likelihood_unit
    from stcn_tf.inference.generation import Reconstructor
    from stcn_tf.media.page import medium_of, write_page
    from stcn_tf.runs import RunDirectory
    from stcn_tf.support.files import check_writable

    run = RunDirectory.open(args.run_dir)
    card = read_card(args.data)
    run.check_same_units(card)
    medium = medium_of(card)
    batches = eval_batches(args.data, split=args.split, batch_size=20, limit=args.num)
    model = run.load(args.checkpoint).model
    file = Path(args.out, "reconstructions.h5")
    check_writable(file)  # before it takes long, not after
    rebuilt = Reconstructor(model, card.normalization)(batches, (args.seed, 0))
    write_sequences(
        file,
        card,
        {
            medium.array: rebuilt.originals,
            "reconstructions": rebuilt.reconstructions,
            "probabilities": rebuilt.probabilities,
        },
        {"elbo": rebuilt.elbo},
        {
            "run": str(run.path),
            "dataset": card.name,
            "elbo_is": f"{model.bound_name}, {likelihood_unit(card)}",
            **{name: args[name].value for name in ("checkpoint", "split", "seed")},
        },
    )
    num = len(rebuilt.elbo)
    pictures = write_page(
        medium,
        file.parent,
        "reconstructions",
        num,
        lambda n: medium.draw_reconstructions(rebuilt.first(n)),
        rows_each=2,
    )
    print(
        f"{num} sequences of {args.split}: {file}{pictures}",
        *medium.write_sounds(file.parent, "original", rebuilt.originals),
        *medium.write_sounds(file.parent, "reconstruction", rebuilt.reconstructions),
        sep="\n",
    )


if __name__ == "__main__":
    cli.run(main, flags.define_reconstruct)
