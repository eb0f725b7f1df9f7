"""Generates sequences with a trained model, or continues given ones.

python -m stcn_tf.sample --run_dir=DIR [--out=DIR]

Writes samples.h5, the sequences in raw units (stcn_tf/data/sequences.py describes it), a page of
them, samples.png and samples.svg (lines of handwriting, a grid of images, waveforms with their
spectrograms), and of audio sample_00.wav and so on.

An HDF5 file of that layout may be given as --continue_from, and of audio a WAV, FLAC, MP3, OGG, ...
file; the pictures show what was given in another colour. --beginning=392 completes halves of
28 x 28 images. Samples that are continued with their own seed go on as they did, to rounding,
except where latents reach later steps (Wavenet output layers): those of what is given are then
drawn from the posterior.
"""

from pathlib import Path

from stcn_tf import flags
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError


def main() -> None:
    """Generates, writes the sequences, draws them."""
    args = flags.FLAGS

    from stcn_tf.inference.generation import Generator, Temperatures, chunked, generate_raw
    from stcn_tf.inference.samples import Samples
    from stcn_tf.media.page import medium_of
    from stcn_tf.runs import RunDirectory
    from stcn_tf.support.files import check_writable

    run = RunDirectory.open(args.run_dir)
    medium = medium_of(run.card)
    beginnings = _beginnings(args, run.card, medium)
    given = [len(beginning) for beginning in beginnings]
    length = medium.steps_to_generate(args.length, given)
    model = run.load(args.checkpoint).model
    file = Path(args.out, "samples.h5")
    check_writable(file)  # before it takes long, not after
    generator = Generator(model, args.jit_compile)
    chunks = chunked(model, beginnings, length)
    num_steps = len(chunks) * length
    compiled = generator.compiles(len(chunks[0]), num_steps)
    how = "compiled with XLA, which takes 4 to 20 s at first" if compiled else "not compiled"
    print(f"generating {num_steps} steps of {len(chunks[0])} sequences at once, {how}", flush=True)
    with cli.progress_bar(num_steps, " steps") as bar:
        sequences = generate_raw(
            generator,
            run.card.normalization,
            beginnings,
            length,
            (args.seed, 0),
            Temperatures(
                args.temperature, args.latent_temperature, 0.0 if args.binary_threshold else 1.0
            ),
            bar.update,
        )
    kept = "checkpoint seed temperature latent_temperature binary_threshold".split()
    made_by = {"run": str(run.path), "dataset": run.card.name, "jit_compile": compiled}
    made_by |= {name: args[name].value for name in kept}
    samples = Samples(medium, tuple(sequences), tuple(given), made_by)
    first, *others = samples.write(file.parent, "samples", "sample")
    print(f"{len(samples)} sequences, {length} generated steps each: {first}", *others, sep="\n")


def _beginnings(args, card, medium) -> list:
    """What each sequence starts with, [steps, features] in raw units."""
    import numpy as np

    if args.continue_from is None:
        if args.beginning:
            raise UserError(f"--beginning={args.beginning}: accepted with --continue_from only")
        nothing = np.zeros((0, card.num_features), np.float32)
        return [nothing] * (args.num or medium.num_samples)
    sequences = medium.read(args.continue_from)
    if args.num is not None and args.num > len(sequences):
        raise UserError(f"--num={args.num}: {args.continue_from} has {len(sequences)} sequences")
    sequences = sequences[: args.num]
    for index, sequence in enumerate(sequences):
        if len(sequence) < args.beginning:
            raise UserError(
                f"--beginning={args.beginning}: sequence {index} of {args.continue_from} has "
                f"{len(sequence)} steps"
            )
    return [sequence[: args.beginning or None] for sequence in sequences]


if __name__ == "__main__":
    cli.run(main, flags.define_sample)
