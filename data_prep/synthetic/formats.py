"""The formats in which synthetic raw data come, and how a folder of them is written."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from data_prep.synthetic import handwriting, images, speech
from stcn_tf.settings import Settings
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import replacing_folder

SETTINGS_NAME = "synthetic.json"
DEFAULT_FORMAT = "iamondb"


class Format(NamedTuple):
    """How data of one format are made."""

    settings: type[Settings]  # its fields are the format's flags
    write: Callable[[Path, Settings], str]  # fills an empty folder; returns what with, in words
    parts: tuple[str, ...]  # names of what it puts there


_HANDWRITING = handwriting.HandwritingSettings
_SPEECH = speech.SpeechSettings
_IMAGES = images.ImageSettings
FORMATS = {
    "iamondb": Format(_HANDWRITING, handwriting.write_iamondb, ("lineStrokes", "splits")),
    "deepwriting": Format(
        _HANDWRITING,
        handwriting.write_deepwriting,
        ("deepwriting_training.npz", "deepwriting_validation.npz"),
    ),
    "ink_json": Format(_HANDWRITING, handwriting.write_ink_json, ("ink",)),
    "inkml": Format(_HANDWRITING, handwriting.write_inkml, ("ink",)),
    "ink_npz": Format(_HANDWRITING, handwriting.write_ink_npz, ("ink.npz",)),
    "timit": Format(_SPEECH, speech.write_timit, ("TIMIT", "lists")),
    "blizzard": Format(speech.BookSettings, speech.write_blizzard, ("audio",)),
    "wav": Format(_SPEECH, speech.write_wav, ("audio",)),
    "mnist_amat": Format(_IMAGES, images.write_amat, tuple(images.AMAT_NAMES.values())),
    "mnist_idx": Format(
        _IMAGES,
        images.write_idx,
        tuple(name for names in images.IDX_NAMES.values() for name in names),
    ),
}


def write(out: Path, name: str, settings: Settings) -> str:
    """Writes synthetic raw data of the format `name`, all of it or nothing; says what, in words.

    Raises:
        UserError: `out` holds something other than earlier output, or the format cannot be written
            here.
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
