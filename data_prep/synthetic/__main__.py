"""Synthetic raw data, for trying everything without the real data, which need licences.

    python -m data_prep.synthetic --out=RAW --num_forms=60 --seed=1
    python -m data_prep.iamondb --source=RAW --split=RAW/splits --out=RECORDS

The formats are those in which the real data are distributed:

* iamondb, deepwriting: the handwriting of these two; ink_json, inkml, ink_npz: handwriting as
  JSON, InkML and NumPy files (`data_prep.synthetic.handwriting`).
* timit, blizzard, wav: speech as NIST SPHERE, MP3, and WAV and FLAC files
  (`data_prep.synthetic.speech`).
* mnist_amat, mnist_idx: digits as Larochelle's binarised text and as MNIST's own files
  (`data_prep.synthetic.images`).

The settings are kept beside the data, in `synthetic.json`. The same flags give the same bytes.
The data resemble the real ones; likelihoods on them mean nothing.
"""

import dataclasses
from pathlib import Path

from absl import flags

from data_prep.synthetic.formats import DEFAULT_FORMAT, FORMATS, write
from stcn_tf.settings import Settings
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError
from stcn_tf.support.path_flag import define_path


def _flag_fields() -> dict[str, tuple[dataclasses.Field, list[str]]]:
    """Each setting's field, which formats that share a setting share too, and these formats."""
    found: dict[str, tuple[dataclasses.Field, list[str]]] = {}
    for name, entry in FORMATS.items():
        for field in dataclasses.fields(entry.settings):
            found.setdefault(field.name, (field, []))[1].append(name)
    return found


def define_flags() -> None:
    """Defines this command's flags."""
    define_path(
        "out", None, "Folder of the raw data; earlier output there is replaced.", required=True
    )
    flags.DEFINE_enum("format", DEFAULT_FORMAT, list(FORMATS), "Format of the raw data.")
    for name, (field, formats) in _flag_fields().items():
        note = "" if len(formats) == len(FORMATS) else f" Of {', '.join(formats)}."
        flags.DEFINE_integer(name, field.default, field.metadata["help"] + note)


def settings_from_flags() -> Settings:
    """Reads the settings of the format that the flags name; refuses flags of other formats."""
    values = flags.FLAGS
    settings = FORMATS[values.format].settings
    own = [field.name for field in dataclasses.fields(settings)]
    for name in _flag_fields():
        if name not in own and values[name].present:
            raise UserError(
                f"--{name} means nothing with --format={values.format}, which takes "
                f"{', '.join(f'--{taken}' for taken in own)}"
            )
    return settings(**{name: values[name].value for name in own})


def main() -> None:
    """Writes what the flags ask for."""
    values = flags.FLAGS
    written = write(Path(values.out), values.format, settings_from_flags())
    print(f"wrote {written} to {values.out}")


if __name__ == "__main__":
    cli.run(main, define_flags, needs_tensorflow=False)
