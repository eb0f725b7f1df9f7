"""Images: drawn in grids, and with their reconstructions (the paper's Figures 6 and 4)."""

import math
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from stcn_tf.data.units import likelihood_unit
from stcn_tf.media.figures import (
    DPI,
    LABEL_COLOR,
    LABEL_SIZE,
    require_one_per_row,
    value_colors,
)
from stcn_tf.media.medium import Medium
from stcn_tf.media.reconstructions import Reconstructions
from stcn_tf.support.errors import UserError

_MARGIN = 0.1  # inches, around the figure
_LABEL_HEIGHT = 0.16  # inches, of a line
_LABEL_CHARACTERS = 20  # of a line, as many as fit below one of `_MOST_COLUMNS`
_LARGEST = 1.2  # inches, width of an image with its gap where there are few
_GAP = 0.05  # of that width, between images
_MOST_COLUMNS = 8  # of reconstructions, whose labels need room
_NAMES_WIDTH = 0.85  # inches, of the names beside the rows

# What a value of 0 and one of 1 look like: red, green, blue.
_BLACK, _WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_GIVEN_BLACK, _GIVEN_WHITE = (0.25, 0.09, 0.05), (1.0, 0.62, 0.48)


class Images(Medium):
    """Images: a step is a pixel."""

    array = "pixels"
    num_samples = 100
    num_shown = 64
    num_in_training = 16
    most_pictured = 400

    @property
    def length(self) -> int:
        """See `Medium.length`: all pixels."""
        return self.card.modality.height * self.card.modality.width

    def steps_to_generate(self, length: int | None, given: Sequence[int]) -> int:
        """See `Medium.steps_to_generate`: what makes whole images."""
        size = f"{self.card.modality.height} x {self.card.modality.width}"
        fewest, most = min(given), max(given)
        if fewest != most or most >= self.length:
            pixels = f"{most}" if fewest == most else f"{fewest} to {most}"
            raise UserError(
                f"images of which {pixels} pixels are given; accepted: the same number of each, "
                f"below the {self.length} of an image of {size}, as --beginning cuts them"
            )
        rest = self.length - most
        if length not in (None, rest):
            raise UserError(f"--length={length}: accepted: {rest}, to make images of {size} pixels")
        return rest

    def draw_samples(
        self,
        sequences: Sequence[np.ndarray],
        given: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
        width_inches: float = 10.0,
    ) -> Figure:
        """See `Medium.draw_samples`: a grid, as Figure 6 of the paper."""
        images = self._images(sequences)
        return draw_images(images, None, labels, width_inches, given)

    def draw_reconstructions(self, rebuilt: Reconstructions) -> Figure:
        """See `Medium.draw_reconstructions`: as Figure 4 of the paper."""
        return draw_image_reconstructions(
            self._images(rebuilt.originals),
            self._images(rebuilt.reconstructions),
            self._images(rebuilt.probabilities),
            labels=self.log_likelihoods(rebuilt),
        )

    def draw_values(
        self,
        sequence: np.ndarray,
        values: Sequence[np.ndarray],
        scale: tuple[float, float],
        labels: Sequence[str],
    ) -> Figure:
        """See `Medium.draw_values`: the image, and each kind of numbers in the place of pixels."""
        shape = self.card.modality.height, self.card.modality.width
        pictures = [value_colors(numbers, scale)[:, :3].reshape(*shape, 3) for numbers in values]
        texts = [textwrap.fill(label, _LABEL_CHARACTERS) for label in labels]
        originals = _between(_BLACK, _WHITE, _stacked("sequence", self._images([sequence])))
        cells = [(originals[0], "image"), *zip(pictures, texts, strict=True)]
        rows = [cells[i : i + _MOST_COLUMNS] for i in range(0, len(cells), _MOST_COLUMNS)]
        return _draw_grid(
            [[picture for picture, _ in row] for row in rows],
            [[text for _, text in row] for row in rows],
            10.0,
        )

    def log_likelihoods(self, rebuilt: Reconstructions) -> list[str]:
        """See `Medium.log_likelihoods`; of images the literature gives negative ones."""
        name = "exact NLL" if rebuilt.is_exact else "-ELBO"
        return [f"{name} {-value:.1f} {likelihood_unit(self.card)}" for value in rebuilt.elbo]

    def _images(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        shape = self.card.modality.height, self.card.modality.width
        return [sequence.reshape(shape) for sequence in sequences]


def draw_images(
    images: Sequence[np.ndarray] | np.ndarray,
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    width_inches: float = 10.0,
    given_pixels: Sequence[int] | None = None,
) -> Figure:
    """Draws images in a grid, row by row; 0 is black, 1 is white.

    Args:
        images: [num, height, width], values from 0 to 1; what lies outside is cut off.
        columns: of the grid; None: as many as rows, or one more.
        labels: a text below each image.
        width_inches: width of the figure; it is narrower where the images would be very large.
        given_pixels: for each image, how many pixels (row by row from the top left) were given to
            the model; they are drawn in another colour.

    Returns:
        The figure, for `save_png`, `save_svg` or `figure_to_rgb`.

    Raises:
        ValueError: no images, of different sizes, or labels or counts that are not one per image.
    """
    images = _stacked("images", images)
    num, height, width = images.shape
    if given_pixels is None:
        given_pixels = np.zeros(num, int)
    require_one_per_row("given_pixels", given_pixels, images)
    if labels is not None:
        require_one_per_row("labels", labels, images)
    is_given = np.arange(height * width) < np.asarray(given_pixels)[:, np.newaxis]
    is_given = is_given.reshape(images.shape)[..., np.newaxis]
    colors = np.where(
        is_given,
        _between(_GIVEN_BLACK, _GIVEN_WHITE, images),
        _between(_BLACK, _WHITE, images),
    )
    columns = columns or math.ceil(math.sqrt(num))
    starts = range(0, num, columns)
    return _draw_grid(
        [colors[i : i + columns] for i in starts],
        [labels[i : i + columns] if labels is not None else () for i in starts],
        width_inches,
    )


def draw_image_reconstructions(
    originals: Sequence[np.ndarray] | np.ndarray,
    reconstructions: Sequence[np.ndarray] | np.ndarray,
    probabilities: Sequence[np.ndarray] | np.ndarray,
    labels: Sequence[str] | None = None,
    width_inches: float = 10.0,
) -> Figure:
    """Draws a column for each image, as the paper's Figure 4 does.

    From the top: the image, its reconstruction, the probabilities of 1 that the reconstruction was
    made of, and how far these are from the image, from blue (0) to red (1).

    Args:
        originals: [num, height, width], values from 0 to 1.
        reconstructions: the same shape.
        probabilities: the same shape.
        labels: a text below each column.
        width_inches: width of the figure; it is narrower where the images would be very large.

    Raises:
        ValueError: no images, of different sizes or unequal numbers, or labels that are not one
            per image.
    """
    originals = _stacked("originals", originals)
    reconstructions = _stacked("reconstructions", reconstructions)
    probabilities = _stacked("probabilities", probabilities)
    shapes = [values.shape for values in (originals, reconstructions, probabilities)]
    if len(set(shapes)) > 1:
        raise ValueError(
            "originals, reconstructions and probabilities must be of one shape, got "
            + ", ".join(str(list(shape)) for shape in shapes)
        )
    if labels is not None:
        require_one_per_row("labels", labels, originals)
        labels = [textwrap.fill(label, _LABEL_CHARACTERS) for label in labels]
    pictures = {
        "image": _between(_BLACK, _WHITE, originals),
        "reconstruction": _between(_BLACK, _WHITE, reconstructions),
        "probabilities": _between(_BLACK, _WHITE, probabilities),
        "residual": _residuals(originals, probabilities),
    }
    rows, texts = [], []
    for start in range(0, len(originals), _MOST_COLUMNS):
        part = slice(start, start + _MOST_COLUMNS)
        rows += [images[part] for images in pictures.values()]
        texts += [(), (), (), labels[part] if labels is not None else ()]
    return _draw_grid(rows, texts, width_inches, list(pictures))


def draw_image_comparison(
    originals: Sequence[np.ndarray] | np.ndarray,
    reconstructions: Sequence[Sequence[np.ndarray]],
    probabilities: Sequence[Sequence[np.ndarray]],
    labels: Sequence[Sequence[str]],
    width_inches: float = 10.0,
) -> Figure:
    """Draws what several models make of the same images, as the paper's Figure 4 does.

    Of each image three rows: the image and each model's reconstruction; below these the
    probabilities of 1 that it was made of; and how far they are from the image, from blue (0) to
    red (1).

    Args:
        originals: [num, height, width], values from 0 to 1.
        reconstructions: the same shape, for each model.
        probabilities: the same shape, for each model.
        labels: for each model a text below each of its columns.
        width_inches: width of the figure; it is narrower where the images would be very large.

    Raises:
        ValueError: no images, of different sizes or unequal numbers, or labels that are not one
            per image and model.
    """
    originals = _stacked("originals", originals)
    nothing = np.ones((*originals.shape[1:], 3))
    rows, texts = [], []
    for name, models in (("reconstructions", reconstructions), ("probabilities", probabilities)):
        for model in models:
            require_one_per_row(name, model, originals)
    for model in labels:
        require_one_per_row("labels", model, originals)
    for index, original in enumerate(originals):
        rebuilt, likely = (
            _stacked(name, [original, *(model[index] for model in models)])[1:]
            for name, models in (
                ("reconstructions", reconstructions),
                ("probabilities", probabilities),
            )
        )
        rows += [
            [_between(_BLACK, _WHITE, original), *_between(_BLACK, _WHITE, rebuilt)],
            [nothing, *_between(_BLACK, _WHITE, likely)],
            [nothing, *_residuals(original, likely)],
        ]
        below = [textwrap.fill(model[index], _LABEL_CHARACTERS) for model in labels]
        texts += [(), (), ("image", *below)]
    return _draw_grid(rows, texts, width_inches, ["reconstruction", "probabilities", "residual"])


def _residuals(originals: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Colours [..., 3] of how far probabilities [...] are from images."""
    return matplotlib.colormaps["coolwarm"](np.abs(originals - probabilities))[..., :3]


def _stacked(name: str, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """[num, height, width] float64, cut to 0...1; what is not finite is 0."""
    shapes = sorted({np.shape(image) for image in images})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        got = ", ".join(str(list(shape)) for shape in shapes) or "none"
        raise ValueError(f"{name} must be one or more of one shape [height, width], got {got}")
    images = np.asarray(images, np.float64)
    return np.clip(np.where(np.isfinite(images), images, 0.0), 0.0, 1.0)


def _between(zero: Sequence[float], one: Sequence[float], values: np.ndarray) -> np.ndarray:
    """Colours [..., 3] of values [...]."""
    zero, one = np.asarray(zero), np.asarray(one)
    return zero + values[..., np.newaxis] * (one - zero)


def _draw_grid(
    rows: Sequence[Sequence[np.ndarray]],
    labels: Sequence[Sequence[str]],
    width_inches: float,
    names: Sequence[str] = (),
) -> Figure:
    """Draws rows of images [height, width, 3], each with its labels below it.

    `names` stand beside the first rows, and again beside as many more.
    """
    height, width = rows[0][0].shape[:2]
    left = _MARGIN + (_NAMES_WIDTH if names else 0.0)
    pitch = min((width_inches - left - _MARGIN) / len(rows[0]), _LARGEST)
    gap = _GAP * pitch
    cell_width = pitch - gap
    cell_height = cell_width * height / width
    most_lines = [max((text.count("\n") + 1 for text in texts), default=0) for texts in labels]
    below = [gap + lines * _LABEL_HEIGHT for lines in most_lines]
    figure_width = left + len(rows[0]) * pitch - gap + _MARGIN
    figure_height = 2 * _MARGIN + len(rows) * cell_height + sum(below) - gap

    figure = Figure(figsize=(figure_width, figure_height), dpi=DPI)
    # Axes over the whole figure whose units are inches, y downwards from the top as negatives.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, figure_width), ylim=(-figure_height, 0))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    style = {"fontsize": LABEL_SIZE, "color": LABEL_COLOR, "parse_math": False}
    top = -_MARGIN
    for row, images in enumerate(rows):
        bottom = top - cell_height
        for column, image in enumerate(images):
            x = left + column * pitch
            extent = (x, x + cell_width, bottom, top)
            axes.imshow(image, extent=extent, interpolation="none", aspect="auto")
        for column, text in enumerate(labels[row]):
            x = left + column * pitch + cell_width / 2
            axes.text(x, bottom - _LABEL_HEIGHT / 4, text, ha="center", va="top", **style)
        if names:
            name = names[row % len(names)]
            axes.text(_MARGIN, (top + bottom) / 2, name, va="center", **style)
        top = bottom - below[row]
    return figure
