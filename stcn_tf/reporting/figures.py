"""Figures 3, 4 and 6 of the paper with the models of runs. Builds and runs models."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from stcn_tf import checkpoint_files, media
from stcn_tf.data.batches import eval_batches
from stcn_tf.data.card import CARD_NAME, read_card
from stcn_tf.inference.generation import Generator, Reconstructor, generate_raw
from stcn_tf.reporting.evaluated import Run
from stcn_tf.reporting.pages import Picture
from stcn_tf.support.errors import UserError
from stcn_tf.support.files import expand_home

_LINES, _IMAGES = 3, 4  # of each model
_MOST_LINES = 24  # of all models together, but for one of each
_SEED = (0, 0)


def draw(
    numbers: Iterable[int],
    runs: Sequence[Run],
    data: Sequence[str],
    tell: Callable[[str], None] = lambda line: None,
) -> list[Picture]:
    """Draws the figures of these numbers.

    Args:
        numbers: of 3 (handwriting), 4 and 6 (images).
        runs: whose best weights are used.
        data: folders of records, of which those of a run are taken; else the one in its history.
        tell: told what is made, which takes time.

    Raises:
        UserError: there is no run of that kind, or its records are not to be found.
    """
    figures = {
        3: ("handwriting", _figure_3),
        4: ("image", _figure_4),
        6: ("image", _figure_6),
    }
    pictures = []
    begun = [run.name for run in runs if not checkpoint_files.in_folder(run.directory.best)]
    if begun:
        tell(f"without weights yet, in no figure: {', '.join(begun)}")
    for number in numbers:
        kind, figure = figures[number]
        together = {}  # runs on the same records
        for run in runs:
            if run.name not in begun and run.directory.card.modality.kind == kind:
                together.setdefault(run.directory.card.source_sha256, []).append(run)
        if not together:
            raise UserError(f"--figure={number}: accepted with trained --runs of {kind} records")
        for index, group in enumerate(together.values()):
            tell(f"figure {number}: {', '.join(run.name for run in group)}")
            pictures += figure(f"figure_{number}_{index}", group, data)
    return pictures


def _figure_3(name: str, runs: Sequence[Run], data: Sequence[str]) -> list[Picture]:
    """Real lines, below them those of each model."""
    card = runs[0].directory.card
    each = max(min(_LINES, _MOST_LINES // (1 + len(runs))), 1)
    lines = _originals(runs[0], data, "valid", each)
    labels = [f"{card.name}, written"] * len(lines)
    length = round(np.mean([len(line) for line in lines]))
    for run in runs:
        lines += _generated(run, each, length)
        labels += [f"{_named(run)}: generated"] * each
    caption = f"Figure 3, {card.name}: lines that were written, on top, and that each model writes"
    return [Picture(name, media.draw_handwriting(lines, labels), caption)]


def _figure_4(name: str, runs: Sequence[Run], data: Sequence[str]) -> list[Picture]:
    """The same images, reconstructed by each model."""
    card = runs[0].directory.card
    split = "test" if "test" in card.splits else "valid"
    batches = eval_batches(_records(runs[0], data), split=split, batch_size=20, limit=_IMAGES)
    columns = {}
    for run in runs:
        rebuilt = Reconstructor(run.directory.load().model, card.normalization)(batches, _SEED)
        words = media.medium_of(card).log_likelihoods(rebuilt)
        columns[_named(run)] = rebuilt, words
    shape = card.modality.height, card.modality.width
    figure = media.draw_image_comparison(
        _shaped(rebuilt.originals, shape),
        [_shaped(rebuilt.reconstructions, shape) for rebuilt, _ in columns.values()],
        [_shaped(rebuilt.probabilities, shape) for rebuilt, _ in columns.values()],
        [[f"{run}: {word}" for word in words] for run, (_, words) in columns.items()],
    )
    caption = (
        f"Figure 4, {card.name}, split {split}: images on the left, each model's reconstructions, "
        "the probabilities that they were made of, and how far these are from the image (blue 0, "
        "red 1)"
    )
    return [Picture(name, figure, caption)]


def _figure_6(name: str, runs: Sequence[Run], data: Sequence[str]) -> list[Picture]:
    """A grid of generated images of each model."""
    del data
    pictures = []
    for index, run in enumerate(runs):
        medium = media.medium_of(run.directory.card)
        images = _generated(run, medium.num_samples, medium.length)
        figure = medium.draw_samples(images, [0] * len(images))
        caption = f"Figure 6, {run.directory.card.name}: images that {_named(run)} generates"
        pictures.append(Picture(f"{name}_{index}", figure, caption))
    return pictures


def _named(run: Run) -> str:
    return f"{run.name} ({run.directory.config.model.model})"


def _generated(run: Run, num: int, length: int) -> list[np.ndarray]:
    """Sequences of a run's best weights, raw units."""
    card = run.directory.card
    beginnings = [np.zeros((0, card.num_features), np.float32)] * num
    generator = Generator(run.directory.load().model)
    return generate_raw(generator, card.normalization, beginnings, length, _SEED)


def _originals(run: Run, data: Sequence[str], split: str, num: int) -> list[np.ndarray]:
    """The first sequences of a split, raw units."""
    batches = eval_batches(_records(run, data), split=split, batch_size=num, limit=num)
    normalization = run.directory.card.normalization
    return [
        normalization.denormalize(x[:length])
        for batch in batches
        for x, length in zip(batch.x.numpy(), batch.lengths.numpy(), strict=True)
    ]


def _records(run: Run, data: Sequence[str]) -> Path:
    """The folder of a run's records."""
    card = run.directory.card
    for folder in map(expand_home, filter(None, (*data, run.records))):
        if Path(folder, CARD_NAME).is_file() and read_card(folder).splits == card.splits:
            return Path(folder)
    raise UserError(
        f"the records of {run.directory.path} ({card.name}) are not at {run.records or '?'}: "
        "accepted: --data=FOLDER, of them"
    )


def _shaped(sequences: Sequence[np.ndarray], shape: tuple[int, int]) -> list[np.ndarray]:
    return [sequence.reshape(shape) for sequence in sequences]
