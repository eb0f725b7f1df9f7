"""A model's single steps as a LiteRT (TensorFlow Lite) file, for phones and small computers."""

import tempfile

import tensorflow as tf

from stcn_tf.data.card import DatasetCard
from stcn_tf.inference import saved_model
from stcn_tf.inference.served import ServedModel
from stcn_tf.models.base import SequenceModel
from stcn_tf.support.errors import UserError

FILE = "model.tflite"
FUNCTIONS = ("start", "step", "observe")


def convert(model: SequenceModel, card: DatasetCard) -> bytes:
    """Converts `start`, `step` and `observe` of `ServedModel`, each a signature of the file.

    Its operations are LiteRT's own. What is not accepted is not checked there.

    Args:
        model: built.
        card: of the records that it was trained on.

    Raises:
        UserError: the model has operations that LiteRT lacks, as recurrent ones have.
    """
    served = ServedModel(model, card, jit_compile=False, portable=True)
    with tempfile.TemporaryDirectory() as folder:
        saved_model.save(served, folder, saved_model.signatures(served, FUNCTIONS))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(FUNCTIONS))
        try:
            return converter.convert()
        except Exception as error:  # of a class that is not public
            raise UserError(
                f"--litert: {model.name} has operations that LiteRT lacks; accepted: models "
                "without recurrences (stcn, stcn_dense, wavenet, wavenet_dense, swavenet)"
            ) from error
