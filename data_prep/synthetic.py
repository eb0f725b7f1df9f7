"""Synthetic raw data, for trying everything without the real data, which need licences.

    python -m data_prep.synthetic --out=RAW --num_forms=60 --seed=1
    python -m data_prep.iamondb --source=RAW --split=RAW/splits --out=RECORDS

The formats are those in which the real data are distributed:

* iamondb, deepwriting: the handwriting of these two; ink_json, inkml, ink_npz: handwriting as
  JSON, InkML and NumPy files (`data_prep.synthetic_handwriting`).
* timit, blizzard, wav: speech as NIST SPHERE, MP3, and WAV and FLAC files
  (`data_prep.synthetic_speech`).
* mnist_amat, mnist_idx: digits as Larochelle's binarised text and as MNIST's own files
  (`data_prep.synthetic_images`).

The settings are kept beside the data, in `synthetic.json`. The same flags give the same bytes.
The data resemble the real ones; likelihoods on them mean nothing.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import flags

from data_prep import synthetic_handwriting, synthetic_images, synthetic_speech
from data_prep.synthetic_settings import Settings
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import replacing_folder
from stcn_tf.support.path_flag import define_path

SETTINGS_NAME = "synthetic.json"
DEFAULT_FORMAT = "iamondb"


class Format(NamedTuple):
    """How data of one format are made."""

    settings: type[Settings]  # its fields are the format's flags
    write: Callable[[Path, Settings], str]  # fills an empty folder; returns what with, in words
    parts: tuple[str, ...]  # names of what it puts there


_HANDWRITING = synthetic_handwriting.HandwritingSettings
_SPEECH = synthetic_speech.SpeechSettings
_IMAGES = synthetic_images.ImageSettings
FORMATS = {
    "iamondb": Format(_HANDWRITING, synthetic_handwriting.write_iamondb, ("lineStrokes", "splits")),
    "deepwriting": Format(
        _HANDWRITING,
        synthetic_handwriting.write_deepwriting,
        ("deepwriting_training.npz", "deepwriting_validation.npz"),
    ),
    "ink_json": Format(_HANDWRITING, synthetic_handwriting.write_ink_json, ("ink",)),
    "inkml": Format(_HANDWRITING, synthetic_handwriting.write_inkml, ("ink",)),
    "ink_npz": Format(_HANDWRITING, synthetic_handwriting.write_ink_npz, ("ink.npz",)),
    "timit": Format(_SPEECH, synthetic_speech.write_timit, ("TIMIT", "lists")),
    "blizzard": Format(synthetic_speech.BookSettings, synthetic_speech.write_blizzard, ("audio",)),
    "wav": Format(_SPEECH, synthetic_speech.write_wav, ("audio",)),
    "mnist_amat": Format(
        _IMAGES, synthetic_images.write_amat, tuple(synthetic_images.AMAT_NAMES.values())
    ),
    "mnist_idx": Format(
        _IMAGES,
        synthetic_images.write_idx,
        tuple(name for names in synthetic_images.IDX_NAMES.values() for name in names),
    ),
}


def write(out: Path, name: str, settings: Settings) -> str:
    """Writes synthetic raw data, all of it or nothing.

    Args:
        out: a folder that does not exist, is empty, or holds what this function wrote earlier
            (which is replaced).
        name: of the format, a key of `FORMATS`.
        settings: what to write, of the format's own class.

    Returns:
        What was written, in words.

    Raises:
        UserError: `out` holds something else, or the format cannot be written here.
    """
    _check_replaceable(out)
    with replacing_folder(out) as partial:
        written = FORMATS[name].write(partial, settings)
        # The default goes without saying, as among the flags.
        header = {} if name == DEFAULT_FORMAT else {"format": name}
        content = json.dumps(header | dataclasses.asdict(settings), indent=1) + "\n"
        (partial / SETTINGS_NAME).write_text(content, encoding="ascii")
        _check_replaceable(out)
    return written


def _check_replaceable(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out: {out} is a file; accepted: a new, an empty or an earlier folder")
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    try:
        earlier = json.loads((out / SETTINGS_NAME).read_text(encoding="ascii"))
        parts = FORMATS[earlier.get("format", DEFAULT_FORMAT)].parts
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise UserError(f"--out: {out} is not empty and was not written by this command") from None
    foreign = sorted(names - {SETTINGS_NAME, *parts})
    if foreign:
        raise UserError(f"--out: {out} holds {foreign[0]!r}, which this command did not write")


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
        flags.DEFINE_integer(name, field.default, field.metadata["description"] + note)


def settings_from_flags() -> Settings:
    """Reads the settings of the format that the flags name.

    Raises:
        UserError: a value is out of range, or a flag of other formats is given.
    """
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
