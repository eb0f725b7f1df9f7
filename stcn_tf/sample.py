"""Generates handwriting with a trained model, or continues given strokes.

python -m stcn_tf.sample --run_dir=DIR --out=DIR

Writes samples.png, samples.svg and, with the strokes in raw units, samples.h5
(stcn_tf/data/strokes.py describes it). A file of that layout may be given as --continue_from; the
pictures show what was given in another colour. Samples that are continued with their own seed
go on as they did.
"""

from pathlib import Path

from stcn_tf import cli, flags
from stcn_tf.errors import UserError

_DEFAULT_NUM = 8
_MOST_PICTURED = 40  # a PNG has a largest height


def main() -> None:
    """Generates, writes the strokes, draws them."""
    args = flags.FLAGS

    from stcn_tf import plotting
    from stcn_tf.data.strokes import write_strokes
    from stcn_tf.generation import generate_raw
    from stcn_tf.runs import RunDirectory

    run = RunDirectory.open(args.run_dir)
    if run.card.modality.kind != "handwriting":
        names = ", ".join(feature.name for feature in run.card.features)
        raise UserError(
            f"{run.path}: trained on {run.card.name} ({names}); accepted: handwriting (dx, dy, pen)"
        )
    units = [feature.unit for feature in run.card.features]
    beginnings = _beginnings(args, units)
    model = run.load_model(args.checkpoint)
    out = Path(args.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be a folder ({error.strerror})") from error
    sequences = generate_raw(
        model,
        run.card.normalization,
        beginnings,
        args.length,
        (args.seed, 0),
        args.temperature,
        args.latent_temperature,
        0.0 if args.pen_threshold else 1.0,
        args.jit_compile,
    )
    given = [len(beginning) for beginning in beginnings]
    how = "checkpoint seed temperature latent_temperature pen_threshold jit_compile".split()
    made_by = {"run": str(run.path), "dataset": run.card.name}
    made_by |= {name: args[name].value for name in how}
    write_strokes(out / "samples.h5", sequences, units, given, made_by)
    pictured = min(len(sequences), _MOST_PICTURED)
    page = plotting.draw_handwriting(sequences[:pictured], prefix_lengths=given[:pictured])
    plotting.save_png(page, out / "samples.png")
    plotting.save_svg(page, out / "samples.svg")
    print(
        f"{len(sequences)} sequences, {args.length} generated steps each: {out}/samples.h5, "
        f"and the first {pictured} in samples.png and samples.svg"
    )


def _beginnings(args, units: list[str]) -> list:
    """What each sequence starts with, [steps, 3] in raw units."""
    import numpy as np

    from stcn_tf.data.strokes import FEATURES, read_strokes

    if args.continue_from is None:
        if args.beginning:
            raise UserError(f"--beginning={args.beginning}: accepted with --continue_from only")
        return [np.zeros((0, len(FEATURES)), np.float32)] * (args.num or _DEFAULT_NUM)
    sequences = read_strokes(args.continue_from, units)
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
