import dataclasses
import itertools

import matplotlib
import numpy as np
import pytest

from stcn_tf import media
from stcn_tf.data.card import Feature, Normalization, read_card

NUM, HEIGHT, WIDTH = 7, 3, 5


def _images(num=NUM, seed=0):
    return np.random.default_rng(seed).random((num, HEIGHT, WIDTH))


def _drawn(figure):
    """Each image as (left, right, bottom, top) in inches, and its colours."""
    return [(image.get_extent(), np.asarray(image.get_array())) for image in figure.axes[0].images]


def _texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_zero_is_black_and_one_is_white_in_rows_from_the_top():
    image = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    ((_, colors),) = _drawn(media.draw_images([image]))
    np.testing.assert_allclose(colors, np.repeat(image[..., np.newaxis], 3, axis=-1))
    # On the page, too.
    page = media.figure_to_rgb(media.draw_images([image]))
    ink = np.argwhere((page < 250).any(axis=-1))
    (top, left), (bottom, _) = ink.min(axis=0), ink.max(axis=0)
    centres = top + (bottom - top) * np.array([1, 3, 5]) // 6
    for channel in range(3):
        assert page[centres, left + 5, channel].tolist() == [0, 91, 182]  # 0, 5/14, 10/14 of 255


def test_what_is_no_probability_is_cut_off():
    image = np.array([[-2.0, 3.0, np.nan], [np.inf, 0.5, 1.0]])
    ((_, colors),) = _drawn(media.draw_images([image]))
    np.testing.assert_array_equal(colors[..., 0], [[0, 1, 0], [0, 0.5, 1]])


def test_the_grid_is_filled_row_by_row_without_overlap():
    images = _images()
    figure = media.draw_images(images, width_inches=6.0)
    drawn = _drawn(figure)
    for (_, colors), image in zip(drawn, images, strict=True):
        np.testing.assert_array_equal(colors[..., 1], image)
    boxes = np.array([box for box, _ in drawn])
    np.testing.assert_allclose(boxes[:, 1] - boxes[:, 0], boxes[0, 1] - boxes[0, 0])
    np.testing.assert_allclose(
        (boxes[:, 3] - boxes[:, 2]) / (boxes[:, 1] - boxes[:, 0]), HEIGHT / WIDTH
    )
    for i, box in enumerate(boxes):
        row, column = divmod(i, 3)  # 7 images: 3 columns
        assert (box[0] > boxes[i - 1, 1]) == (column > 0) or i == 0
        if row:
            assert box[3] < boxes[i - 3, 2]
            assert box[0] == boxes[i - 3, 0]
    width, height = figure.get_size_inches()
    assert width <= 6.0
    assert boxes[:, 0].min() > 0 and boxes[:, 1].max() < width
    assert boxes[:, 2].min() > -height and boxes[:, 3].max() < 0
    assert len({box[0] for box, _ in _drawn(media.draw_images(images, columns=2))}) == 2


@pytest.mark.parametrize("num", [1, 100, 400])
def test_any_number_fits_the_width(num):
    figure = media.draw_images(np.zeros((num, 4, 4)), width_inches=5.0)
    assert 0 < figure.get_size_inches()[0] <= 5.0 + 1e-9
    boxes = np.array([box for box, _ in _drawn(figure)])
    assert np.all(boxes[:, 1] > boxes[:, 0]) and np.all(boxes[:, 3] > boxes[:, 2])
    assert boxes[:, 1].max() <= figure.get_size_inches()[0]


def test_given_pixels_have_their_own_colours():
    images = np.array([np.zeros((HEIGHT, WIDTH)), np.ones((HEIGHT, WIDTH))])
    usual = [colors for _, colors in _drawn(media.draw_images(images))]
    given = [colors for _, colors in _drawn(media.draw_images(images, given_pixels=[7, 15]))]
    changed = [np.any(a != b, axis=-1).ravel() for a, b in zip(usual, given, strict=True)]
    assert changed[0].tolist() == [True] * 7 + [False] * 8
    assert changed[1].tolist() == [True] * 15
    # Ink and paper can still be told apart.
    assert np.all(given[1][0, 0] - given[0][0, 0] > 0.3)


def test_labels_stand_below_their_images():
    figure = media.draw_images(_images(3), labels=["a", "b_$1$ $", "c"], columns=2)
    assert _texts(figure) == ["a", "b_$1$ $", "c"]
    for text, (box, _) in zip(figure.axes[0].texts, _drawn(figure), strict=True):
        x, y = text.get_position()
        assert x == pytest.approx((box[0] + box[1]) / 2)
        assert box[2] - 0.2 < y < box[2]
    media.figure_to_rgb(figure)  # the label is no formula


def test_reconstructions_are_columns_of_image_reconstruction_probabilities_and_residual():
    originals = np.round(_images(4))
    probabilities = _images(4, seed=1)
    rebuilt = np.round(probabilities)
    labels = [f"-ELBO {i}" for i in range(4)]
    figure = media.draw_image_reconstructions(originals, rebuilt, probabilities, labels)
    drawn = _drawn(figure)
    assert len(drawn) == 16
    for row, values in enumerate((originals, rebuilt, probabilities)):
        for column in range(4):
            np.testing.assert_array_equal(drawn[4 * row + column][1][..., 0], values[column])
    coolwarm = matplotlib.colormaps["coolwarm"]
    for column in range(4):
        residual = coolwarm(np.abs(originals - probabilities)[column])[..., :3]
        np.testing.assert_allclose(drawn[12 + column][1], residual)
        boxes = [drawn[4 * row + column][0] for row in range(4)]
        assert {box[0] for box in boxes} == {boxes[0][0]}
        assert [box[3] for box in boxes] == sorted((box[3] for box in boxes), reverse=True)
    names = ["image", "reconstruction", "probabilities", "residual"]
    assert [text for text in _texts(figure) if text not in labels] == names
    assert [text for text in _texts(figure) if text in labels] == labels


def test_a_perfect_reconstruction_leaves_blue_and_a_wrong_one_red():
    ones = np.ones((1, HEIGHT, WIDTH))
    for probability, strongest, weakest in ((1.0, 2, 0), (0.0, 0, 2)):
        figure = media.draw_image_reconstructions(ones, ones, probability * ones)
        residual = _drawn(figure)[3][1]
        assert np.all(residual[..., strongest] > residual[..., weakest] + 0.4)


def test_many_reconstructions_go_on_in_further_rows():
    images = np.round(_images(13))
    labels = [str(i) for i in range(13)]
    figure = media.draw_image_reconstructions(images, images, images, labels)
    drawn = _drawn(figure)
    assert len(drawn) == 4 * 13
    np.testing.assert_array_equal(drawn[32][1][..., 0], images[8])
    assert drawn[32][0][0] == drawn[0][0][0]
    assert drawn[32][0][3] < drawn[31][0][2]
    assert [text for text in _texts(figure) if text.isdigit()] == labels
    assert _texts(figure).count("residual") == 2


def test_faulty_arguments():
    image = np.zeros((HEIGHT, WIDTH))
    with pytest.raises(ValueError, match=r"images must be .* got \[3, 5\], \[3, 6\]"):
        media.draw_images([image, np.zeros((HEIGHT, WIDTH + 1))])
    with pytest.raises(ValueError, match=r"images must be .* got \[15\]"):
        media.draw_images([image.ravel()])
    with pytest.raises(ValueError, match="images must be .* got none"):
        media.draw_images([])
    with pytest.raises(ValueError, match="labels has 1 entries for 2 sequences"):
        media.draw_images([image, image], labels=["one"])
    with pytest.raises(ValueError, match="given_pixels has 3 entries for 1 sequences"):
        media.draw_images([image], given_pixels=[1, 2, 3])
    with pytest.raises(ValueError, match=r"one shape, got \[1, 3, 5\], \[1, 3, 5\], \[2, 3, 5\]"):
        media.draw_image_reconstructions([image], [image], [image, image])
    with pytest.raises(ValueError, match="labels has 2 entries for 1 sequences"):
        media.draw_image_reconstructions([image], [image], [image], labels=["a", "b"])


@pytest.mark.parametrize("save", [media.save_png, media.save_svg])
def test_files_are_reproducible(tmp_path, save):
    for name in ("one", "two"):
        save(media.draw_images(_images(), labels=list("abcdefg")), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_svg_keeps_the_pixels_of_each_image(tmp_path):
    media.save_svg(media.draw_images(_images()), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text.count("<image") == NUM
    assert text.count("image-rendering:pixelated") == NUM


@pytest.mark.parametrize(("is_exact", "name"), [(True, "exact NLL"), (False, "-ELBO")])
def test_likelihoods_of_grey_pixels_name_their_normalisation(tiny_images, is_exact, name):
    card = dataclasses.replace(
        read_card(tiny_images),
        features=(Feature("pixel", "real", "0 to 1", "how bright"),),
        normalization=Normalization("scalar", (0.25,), (0.5,)),
    )
    rebuilt = media.Reconstructions([], [], [], np.array([-7.25, 3.0]), is_exact)
    told = media.medium_of(card).log_likelihoods(rebuilt)
    unit = "nats of scalar-normalised values"
    assert told == [f"{name} 7.2 {unit}", f"{name} -3.0 {unit}"]


def test_long_labels_of_reconstructions_do_not_run_into_each_other():
    images = np.zeros((11, HEIGHT, WIDTH))  # two rows of columns
    label = "exact NLL -1234.5 nats of channel-normalised values"
    figure = media.draw_image_reconstructions(images, images, images, [label] * 11)
    media.figure_to_rgb(figure)  # which gives texts their extents
    (axes,) = figure.axes
    texts = [text for text in axes.texts if "NLL" in text.get_text()]
    # A line may end after a hyphen, too.
    whole = [text.get_text().replace("-\n", "-").replace("\n", " ") for text in texts]
    assert whole == [label] * 11
    boxes = [artist.get_window_extent() for artist in [*texts, *axes.images]]
    overlapping = [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert not overlapping
    assert all(figure.bbox.containsx(box.x1) and figure.bbox.containsy(box.y0) for box in boxes)


def test_numbers_of_pixels_are_images_in_their_colours(tiny_images):
    medium = media.medium_of(read_card(tiny_images))
    pixels = np.arange(20) % 2
    values = [np.linspace(0, 1, 20), np.linspace(2, 0, 20)]
    figure = medium.draw_values(pixels[:, np.newaxis], values, (0.0, 1.0), ["one", "two"])
    (_, image), *rows = _drawn(figure)
    np.testing.assert_array_equal(image[..., 0], pixels.reshape(5, 4))
    for (_, drawn), numbers in zip(rows, values, strict=True):
        expected = media.value_colors(numbers, (0.0, 1.0))[:, :3].reshape(5, 4, 3)
        np.testing.assert_allclose(drawn, expected)
    assert _texts(figure) == ["image", "one", "two"]
