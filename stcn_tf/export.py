"""Exports a trained model as a SavedModel that needs TensorFlow and nothing else.

python -m stcn_tf.export --run_dir=DIR --out=DIR

    model = tf.saved_model.load(DIR)
    x = model.sample(num=8, length=600, seed=[0, 0], temperature=1.0)
    card = json.loads(model.card().numpy())

gives float32 [num, length, features] in raw units, the samples of
`python -m stcn_tf.sample --num=8 --length=600 --seed=0 --temperature=1`. A step is what
card["features"] names: dx, dy and pen, a frame of audio samples, or a pixel of an image, of which
there are height * width of card["modality"]. A num below 1, a negative length or a temperature
that is negative or not finite is refused (tf.errors.InvalidArgumentError).
"""

from stcn_tf import flags
from stcn_tf.support import cli


def main() -> None:
    """Loads the run, writes the SavedModel."""
    args = flags.FLAGS

    from stcn_tf.inference import saved_model
    from stcn_tf.runs import RunDirectory

    run = RunDirectory.open(args.run_dir)
    saved_model.check_replaceable(args.out)
    model = run.load(args.checkpoint).model
    saved_model.write(saved_model.Sampler(model, run.card, args.jit_compile), args.out)
    print(f"SavedModel with sample(num, length, seed, temperature) and card(): {args.out}")


if __name__ == "__main__":
    cli.run(main, flags.define_export)
