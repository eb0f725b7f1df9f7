"""Shows what a folder of records holds: examples, histograms and the card's numbers, on one page.

    python -m data_prep.show records/iamondb

writes records/iamondb.png and prints the numbers. All values are in raw units unless it says
otherwise. Of a large split some thousand sequences are read, from files spread over all of it, and
the page says how many. Checksums are not compared: training does that.
"""

import itertools
import json
import math
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stcn_tf import media
from stcn_tf.data.card import CARD_NAME, DatasetCard, group_alike, read_card
from stcn_tf.media.figures import DPI, LABEL_COLOR, legible
from stcn_tf.media.histograms import panels_of
from stcn_tf.media.lines import MOST_FEATURES
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import check_writable
from stcn_tf.support.path_flag import define_path

# What is read of a split, at most; every file in use gives an equal share.
_MOST_SHARDS, _MOST_SEQUENCES, _MOST_VALUES = 20, 2000, 20_000_000
_MOST_EXAMPLES = 100  # a PNG has a largest height
_LONGEST_FACT, _LONGEST_NAME = 160, 80  # characters

# The page, in inches: examples on the left, text and histograms, two in a row, on the right.
_MARGIN, _LEFT, _RIGHT = 0.35, 8.0, 5.5
_TITLE, _CAPTION, _PANEL = 0.45, 0.3, 2.55
_INSETS = (0.65, 0.1, 0.9, 0.42)  # of a panel: left, right, below, above
_TEXT_COLUMNS = 82  # characters that fit into the width
_LINE = 20 / DPI  # whole pixels, or lines would not be equally far apart

Excerpt = dict[str, np.ndarray]  # what was read: by name, [time, features] in raw units


def define_flags() -> None:
    """Defines this command's flags."""
    define_path("records", None, "Folder of records.")
    flags.DEFINE_bool(
        "verify",
        False,
        "First compute the checksums of all files and compare them with the card's; else that is "
        "done when a file is first read, or has changed.",
    )
    flags.DEFINE_string("split", "train", "Split whose examples and values are shown.")
    flags.DEFINE_integer(
        "num",
        None,
        "Number of examples; by default 8 lines of handwriting, 64 images, else 4.",
        lower_bound=1,
        upper_bound=_MOST_EXAMPLES,
    )
    flags.DEFINE_integer(
        "seed", 0, "Another one shows other examples.", lower_bound=0, upper_bound=2**31 - 1
    )
    define_path(
        "out", None, "The picture, .png or .svg; by default beside the folder: RECORDS.png."
    )
    flags.register_validator(
        "out",
        lambda out: out is None or out.lower().endswith((".png", ".svg")),
        "accepted: a file name that ends in .png or .svg",
    )


# --------------------------------------------------------------------------------- reading


def read_some(folder: Path, card: DatasetCard, split: str) -> Excerpt:
    """Reads the first sequences of some files of a split, all of a small split.

    Raises:
        UserError: naming the first file that is missing or not as it was written.
    """
    import tensorflow as tf

    from stcn_tf.data import records

    shards = card.splits[split].shards
    shards = shards[:: math.ceil(len(shards) / _MOST_SHARDS)]
    excerpt = {}
    for shard in shards:
        path = folder / shard.file
        records.check_size(path, shard)
        first = tf.data.TFRecordDataset(str(path)).take(math.ceil(_MOST_SEQUENCES / len(shards)))
        parsed = first.batch(1).map(lambda x: records.parse_records(x, card.num_features))
        num_values = 0
        try:
            for (values,), (length,), (name,), _ in parsed.as_numpy_iterator():
                x = np.frombuffer(values, "<f4").reshape(length, -1)
                excerpt[name.decode()] = card.normalization.denormalize(x)
                num_values += x.size
                if num_values >= _MOST_VALUES / len(shards):
                    break
        except tf.errors.OpError as error:
            raise UserError(
                f"{path}: shard cannot be read: it is corrupted, or its records do not have the "
                f"{card.num_features} features that {CARD_NAME} says; prepare the dataset again"
            ) from error
    return excerpt


def choose(excerpt: Excerpt, num: int, seed: int) -> Excerpt:
    """Draws `num` sequences (all, if there are fewer), which keep their order."""
    names, num = list(excerpt), min(num, len(excerpt))
    chosen = np.random.default_rng(seed).choice(len(names), num, replace=False)
    return {names[i]: excerpt[names[i]] for i in np.sort(chosen)}


# ----------------------------------------------------------------------------------- facts


def facts(card: DatasetCard, columns: int | None = None) -> list[str]:
    """The card's numbers as lines of text, but the table's wrapped to so many `columns`, if any.

    Of `card.extra`, what is long is only counted.
    """
    modality, norm = card.modality, card.normalization
    kind = {
        "audio": f"audio, {modality.sample_rate_hz:,} Hz, {card.num_features} samples a step",
        "image": f"images of {modality.height} x {modality.width} pixels, one a step",
    }.get(modality.kind, modality.kind)
    entries = [("dataset", f"{card.name}: {kind}")]
    entries += [
        (name, "holds probabilities, from which training draws 0 or 1")
        for name, split in card.splits.items()
        if split.holds_probabilities
    ]
    texts = [
        "binary" if feature.kind == "binary" else f"{feature.unit}, mean {mean:.4g}, std {std:.4g}"
        for feature, mean, std in zip(card.features, norm.mean, norm.std, strict=True)
    ]
    alike = group_alike([feature.name for feature in card.features], texts)
    alike = [f"{names}: {text}" for names, text in alike]
    entries += [
        *itertools.zip_longest(["features"], alike, fillvalue=""),
        ("normalisation", f"{norm.kind}: raw = std * x + mean"),
        ("source sha256", f"{card.source_sha256[:16]}..."),
        ("command", card.command),
        *((key.replace("_", " "), _brief(value)) for key, value in card.extra.items()),
    ]
    width = max(len(key) for key, _ in entries) + 2
    lines = [*_split_table(card), ""]
    for key, value in entries:
        room = max(columns - width, 20) if columns else len(value) + 1
        first, *more = textwrap.wrap(value, room) or [""]
        lines += [f"{key:{width}}{first}", *(" " * width + part for part in more)]
    return lines


def _split_table(card: DatasetCard) -> Iterator[str]:
    """Sequences, steps, hours of audio and quantiles of the lengths of each split."""
    rate = card.modality.sample_rate_hz
    rows = [["split", "sequences", "steps", *(["hours"] if rate else [])]]
    rows[0] += ["shortest", "5 %", "median", "95 %", "longest"]
    for name, split in card.splits.items():
        hours = [f"{split.num_steps * card.num_features / rate / 3600:,.2f}"] if rate else []
        lengths = [f"{split.length_quantiles[q]:,}" for q in ("0", "0.05", "0.5", "0.95", "1")]
        rows.append([name, f"{split.num_sequences:,}", f"{split.num_steps:,}", *hours, *lengths])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])


def _brief(value: Any) -> str:
    """A value of `card.extra` in a few words."""
    if isinstance(value, str):
        return f"{value[:_LONGEST_FACT].rstrip()}..." if len(value) > _LONGEST_FACT else value
    rounded = json.loads(json.dumps(value), parse_float=lambda x: float(f"{float(x):.4g}"))
    text = json.dumps(rounded, ensure_ascii=False).replace('"', "")
    text = text[1:-1] or "none" if isinstance(value, dict | list) else text
    return text if len(text) <= _LONGEST_FACT else f"{len(value):,} entries"


def _of_how_many(excerpt: Excerpt, card: DatasetCard, split: str) -> str:
    total = card.splits[split].num_sequences
    if len(excerpt) == total:
        return f"all {total:,} sequences of {split}"
    return f"{len(excerpt):,} of {total:,} sequences of {split}, spread over its files"


# ------------------------------------------------------------------------------------- page


def draw_examples(card: DatasetCard, examples: Excerpt) -> Figure:
    """Draws sequences as samples are drawn, each with its name and length."""
    rate, labels = card.modality.sample_rate_hz, []
    for name, x in examples.items():
        if len(name) > _LONGEST_NAME:
            name = f"{name[: _LONGEST_NAME // 2]}...{name[-_LONGEST_NAME // 2 :]}"
        labels.append(f"{name}   {f'{x.size / rate:.2f} s' if rate else f'{len(x):,} steps'}")
    labels = None if card.modality.kind == "image" else labels
    return media.medium_of(card).draw_samples(list(examples.values()), None, labels, _LEFT)


def draw_page(
    card: DatasetCard,
    split: str,
    shown: Excerpt,
    lengths: dict[str, list[int]],
    num: int | None,
    seed: int,
) -> Figure:
    """Draws the page about `split`, of which `shown` was read, and `lengths` of each split."""
    examples = choose(shown, num or media.medium_of(card).num_shown, seed)
    picture = media.figure_to_rgb(draw_examples(card, examples))  # [height, width, 3]
    lines, panels = facts(card, _TEXT_COLUMNS), panels_of(card, list(shown.values()), lengths)
    picture_height, picture_width = (size / DPI for size in picture.shape[:2])
    text_height = len(lines) * _LINE + _MARGIN
    right_height = text_height + _CAPTION + math.ceil(len(panels) / 2) * _PANEL
    height = 2 * _MARGIN + _TITLE + max(_CAPTION + picture_height, right_height)
    width, height = 3 * _MARGIN + _LEFT + _RIGHT, math.ceil(height * DPI) / DPI
    figure = Figure((width, height), dpi=DPI)

    # Places are in inches from the upper left corner of the page.
    def place(x: float, y: float, wide: float, high: float) -> Axes:
        sizes = x / width, 1 - (y + high) / height, wide / width, high / height
        return figure.add_axes(sizes)

    def write(x: float, y: float, text: str, family: str = "sans-serif", **style: Any) -> None:
        text, fonts = legible(text, family)
        style = {"va": "top", "fontsize": 9, "color": LABEL_COLOR} | fonts | style
        figure.text(x / width, 1 - y / height, text, **style)

    top, right = _MARGIN + _TITLE, 2 * _MARGIN + _LEFT
    total = card.splits[split].num_sequences
    is_cut = card.modality.kind == "other" and card.num_features > MOST_FEATURES
    cut = f"; {MOST_FEATURES} of {card.num_features} features" if is_cut else ""
    what = "probabilities of " if card.splits[split].holds_probabilities else ""
    what += f"{len(examples):,} of {total:,} sequences of {split} (--seed={seed})"
    write(_MARGIN, _MARGIN, card.name, fontsize=16, color=media.INK)
    write(_MARGIN, top, f"Examples: {what}{cut}")
    axes = place(_MARGIN, top + _CAPTION, picture_width, picture_height)
    axes.imshow(picture, interpolation="none", aspect="auto")
    axes.set_axis_off()
    for number, line in enumerate(lines, start=1):
        style = {"fontsize": 7.5, "color": media.INK, "va": "baseline"}
        write(right, top + number * _LINE, line, "monospace", **style)
    top += text_height
    write(right, top, f"Histograms: {_of_how_many(shown, card, split)}{cut}")
    before, after, below, above = _INSETS
    for number, panel in enumerate(panels):
        row, column = divmod(number, 2)
        x, y = right + column * _RIGHT / 2, top + _CAPTION + row * _PANEL
        sizes = _RIGHT / 2 - before - after, _PANEL - above - below
        panel.draw_into(place(x + before, y + above, *sizes))
    return figure


# ---------------------------------------------------------------------------------- command


def show(folder: Path, out: Path, split: str, num: int | None, seed: int) -> None:
    """Prints what a dataset holds and draws it; the arguments are as the flags."""
    card = read_card(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; accepted: a dataset folder")
    if split not in card.splits:
        raise UserError(f"--split={split}: accepted: {', '.join(card.splits)} (of {folder})")
    if out.parent.resolve() == folder.resolve():
        raise UserError(f"--out={out}: a dataset folder may hold nothing else; name another one")
    check_writable(out)
    read = {name: read_some(folder, card, name) for name in card.splits}
    lengths = {name: [len(x) for x in excerpt.values()] for name, excerpt in read.items()}
    page = draw_page(card, split, read[split], lengths, num, seed)
    save = media.save_svg if out.suffix.lower() == ".svg" else media.save_png
    save(page, out)
    print("\n".join(facts(card)))
    print(f"\nwrote {out}: examples, and histograms of {_of_how_many(read[split], card, split)}")


def verify(folder: Path) -> None:
    """Compares the checksum of every file with the card's.

    Raises:
        UserError: naming the first file that is not as it was written.
    """
    from stcn_tf.data import records

    splits = read_card(folder).splits
    for split in splits:
        records.verify(folder, split, again=True)
    num = sum(len(split.shards) for split in splits.values())
    print(f"{folder}: all {num} files are as they were written\n")


def main() -> None:
    """Shows the dataset that the flags name."""
    values = flags.FLAGS
    if values.verify:
        verify(Path(values.records))
    out = values.out or f"{os.path.abspath(values.records)}.png"
    show(Path(values.records), Path(out), values.split, values.num, values.seed)


if __name__ == "__main__":
    cli.run(main, define_flags, positional=("records",))
