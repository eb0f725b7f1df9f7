"""Exports a trained model as a SavedModel that needs TensorFlow and nothing else.

python -m stcn_tf.export --run_dir=DIR --out=DIR [--licence=TEXT] [--litert]

    model = tf.saved_model.load(DIR)
    x = model.sample(num=8, length=600, seed=[0, 0], temperature=0.8, latent_temperature=1.0,
                     binary_temperature=1.0)
    card = json.loads(model.card().numpy())

gives float32 [num, length, features] in raw units, the samples of
`python -m stcn_tf.sample --num=8 --length=600 --seed=0 --temperature=1`. A step is what
card["features"] names: dx, dy and pen, a frame of audio samples, or a pixel of an image, of which
there are height * width of card["modality"].

Besides there are continue_from, reconstruct and score of given sequences; and start, begin, step,
steps and observe, which make a sequence little by little: they give a state, named tensors that the
caller keeps and gives back. The same functions are signatures with named inputs and outputs, for
saved_model_cli and TensorFlow Serving (--out=models/NAME/1 is its layout). What they take and give:
stcn_tf/inference/served.py. What is not accepted is refused (tf.errors.InvalidArgumentError).

assets/model_card.md says what is to be known of the model (data, licence, bound, seed, versions),
assets/dataset.json is the card of its data, with the normalisation. With --litert
assets/model.tflite has start, step and observe for LiteRT (TensorFlow Lite), of models without
recurrences: its sequences are those of the same seed, to rounding.
"""

from stcn_tf import flags
from stcn_tf.support import cli


def main() -> None:
    """Loads the run, writes the SavedModel."""
    args = flags.FLAGS

    from stcn_tf.data.card import CARD_NAME
    from stcn_tf.inference import litert, saved_model
    from stcn_tf.inference.served import ServedModel
    from stcn_tf.reporting import evaluated
    from stcn_tf.reporting.model_card import model_card
    from stcn_tf.runs import RunDirectory

    run = RunDirectory.open(args.run_dir)
    saved_model.check_replaceable(args.out)
    model, update = run.load(args.checkpoint)
    about = evaluated.read(run)
    card = model_card(about, model, args.checkpoint, update, args.licence)
    files = {CARD_NAME: run.card.to_json().encode(), "model_card.md": card.encode()}
    if args.litert:
        files[litert.FILE] = litert.convert(model, run.card)
    saved_model.write(ServedModel(model, run.card, args.jit_compile), args.out, files)
    print(f"SavedModel: {args.out}; its functions: {', '.join(saved_model.FUNCTIONS)}")


if __name__ == "__main__":
    cli.run(main, flags.define_export)
