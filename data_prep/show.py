"""Shows what a folder of records holds: examples, histograms and the card's numbers, on one page.

    python -m data_prep.show records/iamondb

writes records/iamondb.png and prints the numbers. All values are in raw units unless it says
otherwise. Of a large split some thousand sequences are read, from files spread over all of it, and
the page says how many. Checksums are not compared: training does that.
"""

import functools
import itertools
import math
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from absl import flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from stcn_tf import media
from stcn_tf.data.card import CARD_NAME, DatasetCard, group_alike, read_card
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError
from stcn_tf.support.path_flag import define_path

# What is read of a split, at most; every file in use gives an equal share.
_MOST_SHARDS = 20
_MOST_SEQUENCES = 2000
_MOST_VALUES = 20_000_000

_EXAMPLES = {"handwriting": 8, "image": 64, "audio": 4, "other": 4}  # where --num is not given
_LENGTH_BINS = 30
_MOST_EXAMPLES = 100  # a PNG has a largest height
_MOST_FEATURES = 6  # with a histogram, or a line, each
_LONGEST_FACT = 160  # characters, of what `extra` holds

# The page, in inches: examples on the left, text and histograms on the right.
_DPI = 150
_MARGIN = 0.35
_LEFT_WIDTH = 8.0
_GAP = 0.35
_RIGHT_WIDTH = 5.5
_WIDTH = 2 * _MARGIN + _LEFT_WIDTH + _GAP + _RIGHT_WIDTH
_TITLE_HEIGHT = 0.45
_CAPTION_HEIGHT = 0.3
_PANELS_PER_ROW = 2
_PANEL_HEIGHT = 2.55
_PANEL_INSETS = (0.65, 0.1, 0.9, 0.42)  # left, right, below, above: room for ticks and labels

_TEXT_SIZE = 7.5  # points
_TEXT_COLUMNS = 82  # characters that fit into the width
_LINE_HEIGHT = 20 / _DPI  # whole pixels, or lines would not be equally far apart
_FAINT = "#6b6f80"
_BARS = "#7f93b8"
_SPLIT_COLORS = (
    media.INK,
    media.PREFIX_INK,
    media.RECONSTRUCTION_INK,
    "#b08a2e",
    "#7a4f9a",
    "#5b8c3a",
)
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 14,
    "axes.labelsize": 8,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
}


class Excerpt(NamedTuple):
    """What was read of a split, in the order of the files.

    Attributes:
        ids: names of the sequences.
        raw: [time, features] each, in raw units.
    """

    ids: list[str]
    raw: list[np.ndarray]

    @property
    def lengths(self) -> np.ndarray:
        """[sequences], in steps."""
        return np.array([len(values) for values in self.raw])


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

    Args:
        folder: a dataset folder.
        card: its card.
        split: a split of the card.

    Raises:
        UserError: naming the first file that is missing or not as it was written.
    """
    import tensorflow as tf

    from stcn_tf.data import records

    def decode(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values, lengths, *_ = records.parse_records(serialized, card.num_features)
        ids = tf.io.parse_example(serialized, {"id": tf.io.FixedLenFeature((), tf.string)})["id"]
        start, num_steps = tf.zeros_like(lengths), lengths[0]
        x = records.decode_values(values, start, lengths, num_steps, card.num_features)
        return ids[0], x[0]

    shards = card.splits[split].shards
    shards = shards[:: math.ceil(len(shards) / _MOST_SHARDS)]
    ids, raw = [], []
    for shard in shards:
        path = folder / shard.file
        records.check_size(path, shard)
        first = tf.data.TFRecordDataset(str(path)).take(math.ceil(_MOST_SEQUENCES / len(shards)))
        num_values = 0
        try:
            for sequence_id, x in first.batch(1).map(decode).as_numpy_iterator():
                ids.append(sequence_id.decode())
                raw.append(card.normalization.denormalize(x))
                num_values += x.size
                if num_values >= _MOST_VALUES / len(shards):
                    break
        except tf.errors.OpError as error:
            raise UserError(
                f"{path}: shard cannot be read: it is corrupted, or its records do not have the "
                f"{card.num_features} features that {CARD_NAME} says; prepare the dataset "
                "again"
            ) from error
    return Excerpt(ids, raw)


def choose(excerpt: Excerpt, num: int, seed: int) -> Excerpt:
    """Draws `num` sequences (all, if there are fewer), which keep their order."""
    num = min(num, len(excerpt.raw))
    chosen = np.sort(np.random.default_rng(seed).choice(len(excerpt.raw), num, replace=False))
    return Excerpt([excerpt.ids[i] for i in chosen], [excerpt.raw[i] for i in chosen])


# ----------------------------------------------------------------------------------- facts


def facts(card: DatasetCard, columns: int | None = None) -> list[str]:
    """The card's numbers as lines of text.

    Of `card.extra`, what is long is only counted.

    Args:
        card: of a dataset.
        columns: longer lines, the table's excepted, are wrapped; None: none is.
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
    for number, group in enumerate(_feature_groups(card)):
        entries.append(("" if number else "features", group))
    entries += [
        ("normalisation", f"{norm.kind}: raw = std * x + mean"),
        ("source sha256", f"{card.source_sha256[:16]}..."),
        ("command", card.command),
    ]
    entries += [(key.replace("_", " "), _brief(value)) for key, value in card.extra.items()]
    width = max(len(key) for key, _ in entries) + 2
    lines = [*_split_table(card), ""]
    for key, value in entries:
        room = max(columns - width, 20) if columns else len(value) + 1
        first, *more = textwrap.wrap(value, room) or [""]
        lines += [f"{key:{width}}{first}", *(" " * width + part for part in more)]
    return lines


def _split_table(card: DatasetCard) -> list[str]:
    """Sequences, steps, hours of audio and quantiles of the lengths of each split."""
    rate = card.modality.sample_rate_hz
    heading = ["split", "sequences", "steps", *(["hours"] if rate else [])]
    heading += ["shortest", "5 %", "median", "95 %", "longest"]
    rows = [heading]
    for name, split in card.splits.items():
        hours = [f"{split.num_steps * card.num_features / rate / 3600:,.2f}"] if rate else []
        lengths = [f"{split.length_quantiles[q]:,}" for q in ("0", "0.05", "0.5", "0.95", "1")]
        rows.append([name, f"{split.num_sequences:,}", f"{split.num_steps:,}", *hours, *lengths])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def _feature_groups(card: DatasetCard) -> Iterator[str]:
    """What the features are, those that are alike as one."""
    norm = card.normalization
    texts = [
        "binary" if feature.kind == "binary" else f"{feature.unit}, mean {mean:.4g}, std {std:.4g}"
        for feature, mean, std in zip(card.features, norm.mean, norm.std, strict=True)
    ]
    for names, text in group_alike([feature.name for feature in card.features], texts):
        yield f"{names}: {text}"


def _brief(value: Any) -> str:
    """A value of `card.extra` in a few words."""

    def words(value: Any, is_inside: bool = True) -> str:
        if isinstance(value, bool) or value is None:
            return {True: "yes", False: "no", None: "none"}[value]
        if isinstance(value, int | float):
            return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        if isinstance(value, str):
            return value
        pairs = value.items() if isinstance(value, Mapping) else (("", item) for item in value)
        text = ", ".join(f"{key} {words(item)}".strip() for key, item in pairs)
        return f"({text})" if is_inside else text or "none"

    text = words(value, is_inside=False)
    if len(text) <= _LONGEST_FACT:
        return text
    if isinstance(value, str):
        return f"{text[:_LONGEST_FACT].rstrip()}..."
    return f"{len(value):,} entries"


def _of_how_many(excerpt: Excerpt, card: DatasetCard, split: str) -> str:
    total = card.splits[split].num_sequences
    if len(excerpt.raw) == total:
        return f"all {total:,} sequences of {split}"
    return f"{len(excerpt.raw):,} of {total:,} sequences of {split}, spread over its files"


# --------------------------------------------------------------------------------- examples


def _draw_examples(card: DatasetCard, examples: Excerpt) -> Figure:
    modality = card.modality
    rate = modality.sample_rate_hz
    labels = [
        f"{name}   {x.size / rate:.2f} s" if rate else f"{name}   {len(x):,} steps"
        for name, x in zip(examples.ids, examples.raw, strict=True)
    ]
    if modality.kind == "handwriting":
        return media.draw_handwriting(examples.raw, labels, _LEFT_WIDTH)
    if modality.kind == "image":
        return media.draw_images(_images(card, examples), width_inches=_LEFT_WIDTH)
    if modality.kind == "audio":
        waveforms = [x.ravel() for x in examples.raw]
        return media.draw_audio(waveforms, rate, labels, _LEFT_WIDTH)
    return _draw_lines(card, examples, labels)


def _images(card: DatasetCard, excerpt: Excerpt) -> np.ndarray:
    """[sequences, height, width]."""
    return np.reshape(excerpt.raw, [-1, card.modality.height, card.modality.width])


def _draw_lines(card: DatasetCard, examples: Excerpt, labels: Sequence[str]) -> Figure:
    """A row of plots for each sequence, one for each of the first features."""
    features = card.features[:_MOST_FEATURES]
    with matplotlib.rc_context(_STYLE):
        figure = Figure((_LEFT_WIDTH, 0.6 + 1.1 * len(labels)), dpi=_DPI, layout="constrained")
        shape = (len(labels), len(features))
        grid = figure.subplots(*shape, sharex=True, sharey="col", squeeze=False)
        for row, x, label in zip(grid, examples.raw, labels, strict=True):
            for axes, values in zip(row, x.T, strict=False):
                axes.plot(values, color=media.INK, linewidth=0.7)
            style = {"fontsize": 7, "fontweight": "normal", "color": _FAINT}
            row[0].set_title(label, pad=3, parse_math=False, **style)
        for top, bottom, feature in zip(grid[0], grid[-1], features, strict=True):
            top.annotate(
                _with_unit(feature.name, feature.unit),
                xy=(0, 1),
                xycoords="axes fraction",
                xytext=(0, 18),
                textcoords="offset points",
                fontweight="bold",
                parse_math=False,
            )
            bottom.set_xlabel("step")
    return figure


def _with_unit(name: str, unit: str) -> str:
    return name if unit in ("", "none") else f"{name} ({unit})"


# ------------------------------------------------------------------------------- histograms


def _panels(
    card: DatasetCard, shown: Excerpt, lengths: Mapping[str, np.ndarray]
) -> list[Callable[[Axes], None]]:
    """What there is to draw beside the examples, each into axes of its own."""
    norm = card.normalization
    panels = []
    if len(set(np.concatenate(list(lengths.values())))) > 1:
        panels.append(functools.partial(_draw_lengths, card=card, lengths=lengths))
    if card.modality.kind == "image":
        panels.append(functools.partial(_draw_mean_image, image=_images(card, shown).mean(axis=0)))
    if card.modality.kind == "audio":
        scales = set(zip(norm.mean, norm.std, strict=True))
        draw = functools.partial(
            _draw_values,
            name="samples",
            unit=card.features[0].unit,
            values=np.concatenate([x.ravel() for x in shown.raw]),
            scale=scales.pop() if len(scales) == 1 else None,
            normalization=norm.kind,
        )
        return [*panels, draw]
    for index, feature in enumerate(card.features[:_MOST_FEATURES]):
        values = [x[:, index] for x in shown.raw]
        if feature.kind == "binary":
            draw = functools.partial(_draw_rates, name=feature.name, values=values)
        else:
            draw = functools.partial(
                _draw_values,
                name=feature.name,
                unit=feature.unit,
                values=np.concatenate(values),
                scale=(norm.mean[index], norm.std[index]),
                normalization=norm.kind,
            )
        panels.append(draw)
    return panels


def _draw_lengths(axes: Axes, card: DatasetCard, lengths: Mapping[str, np.ndarray]) -> None:
    everywhere = np.concatenate(list(lengths.values()))
    low, high = everywhere.min(), everywhere.max()
    width = math.ceil((high + 1 - low) / _LENGTH_BINS)  # steps: whole ones, or bins would differ
    edges = np.arange(low, high + width + 1, width) - 0.5
    rate = card.modality.sample_rate_hz
    per_step = card.num_features / rate if rate else 1
    for (name, values), color in zip(lengths.items(), itertools.cycle(_SPLIT_COLORS)):
        axes.hist(
            values * per_step,
            edges * per_step,
            weights=np.full(len(values), 1 / len(values)),
            histtype="step",
            color=color,
            label=name,
        )
    axes.set_title("length")
    axes.set_xlabel("seconds" if rate else "steps")
    axes.set_ylabel("share of the sequences")
    _note(axes, "of what was read of each split")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="best", handlelength=1)


def _draw_values(
    axes: Axes,
    name: str,
    unit: str,
    values: np.ndarray,
    scale: tuple[float, float] | None,
    normalization: str,
) -> None:
    """Histogram of raw values [num], with the normalised ones on a second axis.

    Counts are on a logarithmic axis: steps of a pen are mostly short and sometimes very long.
    """
    values = values.astype(np.float64)  # in float32 a narrow range may not divide into 100
    axes.hist(values, bins=100, histtype="stepfilled", color=_BARS)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(name, parse_math=False)
    axes.set_xlabel(unit, parse_math=False)
    axes.set_ylabel("count")
    _note(axes, f"mean {values.mean():.4g}, std {values.std():.4g}")
    if scale is not None and scale != (0.0, 1.0):
        mean, std = scale
        below = axes.secondary_xaxis(
            -0.4, functions=(lambda raw: (raw - mean) / std, lambda x: x * std + mean)
        )
        below.set_xlabel(f"{normalization}-normalised", color=_FAINT, parse_math=False)
        below.tick_params(colors=_FAINT)


def _draw_rates(axes: Axes, name: str, values: Sequence[np.ndarray]) -> None:
    """Histogram over sequences of the mean of a binary feature [time] each."""
    rates = [x.mean(dtype=np.float64) for x in values]
    axes.hist(rates, bins=40, histtype="stepfilled", color=_BARS)
    axes.set_title(name, parse_math=False)
    axes.set_xlabel("mean over a sequence")
    axes.set_ylabel("sequences")
    overall = np.concatenate(values).mean(dtype=np.float64)
    _note(axes, f"mean over all steps {overall:.4g}")


def _draw_mean_image(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="none")
    axes.set_title("mean image")
    _note(axes, "black is 0, white is 1")
    axes.set_anchor("W")
    axes.set_axis_off()


def _note(axes: Axes, text: str) -> None:
    """Writes a line between the title and the axes."""
    axes.annotate(
        text,
        (0, 1),
        xytext=(0, 4),
        textcoords="offset points",
        xycoords="axes fraction",
        fontsize=7,
        color=_FAINT,
    )


# ------------------------------------------------------------------------------------- page


def draw_page(
    card: DatasetCard,
    split: str,
    shown: Excerpt,
    lengths: Mapping[str, np.ndarray],
    num: int,
    seed: int,
) -> Figure:
    """Draws the page.

    Args:
        card: of the dataset.
        split: whose examples and values are shown.
        shown: what was read of it.
        lengths: of what was read of each split, [sequences], in steps.
        num: of examples, at most.
        seed: of their choice.

    Returns:
        The figure, for `media.save_png` or `media.save_svg`.
    """
    examples = choose(shown, num, seed)
    picture = media.figure_to_rgb(_draw_examples(card, examples))  # [height, width, 3]
    lines = facts(card, _TEXT_COLUMNS)
    panels = _panels(card, shown, lengths)

    picture_height, picture_width = (size / _DPI for size in picture.shape[:2])
    text_height = len(lines) * _LINE_HEIGHT + _GAP
    num_rows = math.ceil(len(panels) / _PANELS_PER_ROW)
    right_height = text_height + _CAPTION_HEIGHT + num_rows * _PANEL_HEIGHT
    left_height = _CAPTION_HEIGHT + picture_height
    height = 2 * _MARGIN + _TITLE_HEIGHT + max(left_height, right_height)
    height = math.ceil(height * _DPI) / _DPI
    figure = Figure((_WIDTH, height), dpi=_DPI)

    # Places are in inches from the upper left corner of the page.
    def place(x: float, y: float, width: float, axes_height: float) -> Axes:
        bottom = height - y - axes_height
        return figure.add_axes((x / _WIDTH, bottom / height, width / _WIDTH, axes_height / height))

    def write(x: float, y: float, text: str, **style: Any) -> None:
        style = {"va": "top", "color": media.INK, "parse_math": False, **style}
        figure.text(x / _WIDTH, 1 - y / height, text, **style)

    write(_MARGIN, _MARGIN, card.name, fontsize=16, fontweight="bold")
    top = _MARGIN + _TITLE_HEIGHT
    what = "probabilities of " if card.splits[split].holds_probabilities else ""
    total = card.splits[split].num_sequences
    what += f"{len(examples.raw):,} of {total:,} sequences of {split}"
    caption = f"Examples: {what} (--seed={seed})"
    write(_MARGIN, top, caption, fontsize=9, color=_FAINT)
    axes = place(_MARGIN, top + _CAPTION_HEIGHT, picture_width, picture_height)
    axes.imshow(picture, interpolation="none", aspect="auto")
    axes.set_axis_off()

    x = _MARGIN + _LEFT_WIDTH + _GAP
    for number, line in enumerate(lines, start=1):
        style = {"fontsize": _TEXT_SIZE, "family": "monospace", "va": "baseline"}
        write(x, top + number * _LINE_HEIGHT, line, **style)
    top += text_height
    caption = f"Histograms: {_of_how_many(shown, card, split)}"
    if card.modality.kind != "audio" and card.num_features > _MOST_FEATURES:
        caption += f"; {_MOST_FEATURES} of {card.num_features} features"
    write(x, top, caption, fontsize=9, color=_FAINT)
    top += _CAPTION_HEIGHT
    left, right, below, above = _PANEL_INSETS
    cell = _RIGHT_WIDTH / _PANELS_PER_ROW
    with matplotlib.rc_context(_STYLE):
        for number, draw in enumerate(panels):
            row, column = divmod(number, _PANELS_PER_ROW)
            draw(
                place(
                    x + column * cell + left,
                    top + row * _PANEL_HEIGHT + above,
                    cell - left - right,
                    _PANEL_HEIGHT - above - below,
                )
            )
    return figure


# ---------------------------------------------------------------------------------- command


def show(folder: Path, out: Path, split: str, num: int | None, seed: int) -> None:
    """Prints what a dataset holds and draws it.

    Args:
        folder: the dataset.
        out: the picture, .png or .svg.
        split: as --split.
        num: as --num.
        seed: as --seed.

    Raises:
        UserError: no dataset or split, a file that cannot be read, or `out` cannot be written.
    """
    card = read_card(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; accepted: a dataset folder")
    if split not in card.splits:
        raise UserError(f"--split={split}: accepted: {', '.join(card.splits)} (of {folder})")
    _check_out(out, folder)
    shown = read_some(folder, card, split)
    lengths = {
        name: (shown if name == split else read_some(folder, card, name)).lengths
        for name in card.splits
    }
    num = num or _EXAMPLES[card.modality.kind]
    page = draw_page(card, split, shown, lengths, num, seed)
    save = media.save_svg if out.suffix.lower() == ".svg" else media.save_png
    save(page, out)
    print("\n".join(facts(card)))
    print(f"\nwrote {out}: examples, and histograms of {_of_how_many(shown, card, split)}")


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


def _check_out(out: Path, folder: Path) -> None:
    if out.is_dir():
        raise UserError(f"--out={out}: is a folder; accepted: the name of a file")
    if not out.parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {out.parent}")
    if out.parent.samefile(folder):
        raise UserError(f"--out={out}: a dataset folder may hold nothing else; name another one")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"--out={out}: the folder {out.parent} cannot be written to")


def main() -> None:
    """Shows the dataset that the flags name."""
    values = flags.FLAGS
    if values.verify:
        verify(Path(values.records))
    out = values.out or f"{os.path.abspath(values.records)}.png"
    show(Path(values.records), Path(out), values.split, values.num, values.seed)


if __name__ == "__main__":
    cli.run(main, define_flags, positional=("records",))
