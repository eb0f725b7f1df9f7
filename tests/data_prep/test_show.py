"""The page about a dataset: numbers by hand, raw units, and every mistake in one line."""

import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from data_prep import show
from stcn_tf import media
from stcn_tf.data import records
from stcn_tf.data.card import (
    QUANTILES,
    DatasetCard,
    Feature,
    Modality,
    Normalization,
    Shard,
    Split,
    read_card,
)
from stcn_tf.support import cli
from stcn_tf.support.errors import UserError

HANDWRITING = (
    Feature("dx", "real", "units", "to the right"),
    Feature("dy", "real", "units", "upwards"),
    Feature("pen", "binary", "none", "1 on the last point of a stroke"),
)
SCALE = Normalization("channel", (3.0, -1.0, 0.0), (40.0, 20.0, 1.0))
LENGTHS = (4, 6, 6, 9, 2, 5, 7)


def strokes(length, seed):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(size=(length, 2)), rng.random(length) < 0.3])


def write(folder, sequences, **options):
    """Writes (id, values) of each split, as handwriting unless `options` say otherwise."""
    settings = {
        "name": "lines_$x$",
        "features": HANDWRITING,
        "normalization": SCALE,
        "source_sha256": "0123456789abcdef" * 4,
        "command": "a test",
    }
    return records.write_dataset(folder, splits=sequences, **{**settings, **options})


@pytest.fixture(scope="module")
def handwriting(tmp_path_factory):
    """Seven training lines in four files, and two of other lengths to validate on."""
    folder = tmp_path_factory.mktemp("show") / "lines"
    train = [(f"line-{i}", strokes(length, i)) for i, length in enumerate(LENGTHS)]
    valid = [("other-0", strokes(3, 10)), ("other-1", strokes(12, 11))]
    write(folder, {"train": train, "valid": valid}, sequences_per_shard=2)
    return folder


@pytest.fixture
def images(tmp_path):
    """Five images of 2 x 3 pixels; those of train are probabilities."""
    rng = np.random.default_rng(1)
    train = [(f"image-{i}", rng.random((6, 1))) for i in range(5)]
    valid = [("image-5", np.ones((6, 1)))]
    write(
        tmp_path / "images",
        {"train": train, "valid": valid},
        features=[Feature("pixel", "binary", "none", "ink")],
        normalization=Normalization("none", (0.0,), (1.0,)),
        modality=Modality("image", height=2, width=3),
        probabilities=["train"],
    )
    return tmp_path / "images"


@pytest.fixture
def audio(tmp_path):
    """Three sounds of 11, 30 and 20 frames of 5 samples."""
    rng = np.random.default_rng(2)
    train = [(f"sound-{i}", rng.normal(size=(length, 5))) for i, length in enumerate((11, 30, 20))]
    write(
        tmp_path / "sounds",
        {"train": train},
        features=[Feature(f"sample_{i}", "real", "full scale", "a sample") for i in range(5)],
        normalization=Normalization("global", (0.01,) * 5, (0.25,) * 5),
        modality=Modality("audio", sample_rate_hz=500),
    )
    return tmp_path / "sounds"


@pytest.fixture
def weather(tmp_path):
    """Sequences of eight features that are none of the known kinds."""
    rng = np.random.default_rng(3)
    features = [Feature(f"place_{i}", "real", "°C", "") for i in range(7)]
    features.append(Feature("rain", "binary", "none", ""))
    write(
        tmp_path / "weather",
        {"train": [(f"day-{i}", np.round(rng.random((10, 8)))) for i in range(3)]},
        features=features,
        normalization=Normalization("channel", (*range(7), 0), (2,) * 7 + (1,)),
    )
    return tmp_path / "weather"


def page_of(folder, split="train", num=3, seed=0):
    card = read_card(folder)
    found = {name: show.read_some(folder, card, name) for name in card.splits}
    lengths = {name: [len(x) for x in excerpt.values()] for name, excerpt in found.items()}
    page = show.draw_page(card, split, found[split], lengths, num, seed)
    return page, list(found[split].values())


def panels_of(page):
    """The axes of the histograms by their titles."""
    return {axes.get_title(loc="left"): axes for axes in page.axes if axes.get_title(loc="left")}


def texts_of(page):
    return [text.get_text() for text in page.texts]


# --------------------------------------------------------------------------------- reading


def test_all_of_a_small_split_is_read_in_raw_units(handwriting):
    excerpt = show.read_some(handwriting, read_card(handwriting), "train")
    assert list(excerpt) == [f"line-{i}" for i in range(7)]
    assert [len(raw) for raw in excerpt.values()] == list(LENGTHS)
    for i, raw in enumerate(excerpt.values()):
        expected = strokes(LENGTHS[i], i) * (40, 20, 1) + (3, -1, 0)
        np.testing.assert_allclose(raw, expected, rtol=1e-6, atol=1e-5)


def test_of_a_large_split_an_equal_share_of_files_spread_over_it_is_read(handwriting, monkeypatch):
    card = read_card(handwriting)
    monkeypatch.setattr(show, "_MOST_SEQUENCES", 4)  # one of each of four files
    read = [f"line-{i}" for i in (0, 2, 4, 6)]
    assert list(show.read_some(handwriting, card, "train")) == read
    monkeypatch.setattr(show, "_MOST_SHARDS", 2)  # two of each of two files
    read = [f"line-{i}" for i in (0, 1, 4, 5)]
    assert list(show.read_some(handwriting, card, "train")) == read
    # Half of 20 values each: line-0 has 12 of them, line-4 and line-5 have 6 and 15.
    monkeypatch.setattr(show, "_MOST_VALUES", 20)
    read = [f"line-{i}" for i in (0, 4, 5)]
    assert list(show.read_some(handwriting, card, "train")) == read


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_bad_file_is_told_and_leaves_no_picture(handwriting, tmp_path, split):
    folder = tmp_path / "records"
    shutil.copytree(handwriting, folder)
    path = sorted(folder.glob(f"{split}-*"))[-1]
    content = path.read_bytes()

    def message():
        with pytest.raises(UserError) as error:
            show.show(folder, tmp_path / "page.png", "train", None, 0)
        assert [entry.name for entry in tmp_path.iterdir()] == ["records"]
        return str(error.value)

    path.write_bytes(content[:-5])
    assert message() == (
        f"{path}: shard is truncated: {len(content) - 5} bytes instead of {len(content)}; "
        "prepare the dataset again"
    )
    path.write_bytes(content[:30] + bytes([content[30] ^ 1]) + content[31:])
    assert message().startswith(f"{path}: shard cannot be read: it is corrupted")
    path.unlink()
    assert message() == f"{path}: shard is missing; prepare the dataset again"


def test_records_of_another_number_of_features_are_told(handwriting, tmp_path):
    folder = tmp_path / "records"
    shutil.copytree(handwriting, folder)
    card = read_card(folder)
    other = DatasetCard(
        **{
            **{name: getattr(card, name) for name in DatasetCard.__dataclass_fields__},
            "features": HANDWRITING[:2],
            "normalization": Normalization("none", (0, 0), (1, 1)),
            "modality": Modality("other"),
        }
    )
    with pytest.raises(UserError, match="do not have the 2 features that dataset.json says"):
        show.read_some(folder, other, "train")


# ----------------------------------------------------------------------------------- facts


def card_of(features, normalization, splits, **more):
    return DatasetCard(
        format_version=1,
        name="some",
        features=tuple(features),
        splits=splits,
        normalization=normalization,
        source_sha256="0123456789abcdef" * 4,
        command="python -m data_prep.some --source=DIR",
        extra=more.pop("extra", {}),
        **more,
    )


def split_of(num_sequences, num_steps, quantiles, **more):
    shard = Shard("train-00000-of-00001.tfrecord", num_sequences, 1, "")
    quantiles = dict(zip(QUANTILES, quantiles, strict=True))
    return Split(num_sequences, num_steps, quantiles, (shard,), **more)


def test_facts_of_audio():
    features = [Feature(f"sample_{i}", "real", "full scale", f"sample {i}") for i in range(200)]
    card = card_of(
        features,
        Normalization("global", (-0.00125,) * 200, (0.0625,) * 200),
        {
            "train": split_of(1200, 360_000, (7, 11, 13, 17, 19, 1023, 2047)),
            "valid": split_of(30, 9000, (8, 12, 13, 18, 19, 23, 29)),
        },
        extra={"skipped": {}, "speakers": {"train": 12, "valid": 3}},
        modality=Modality("audio", sample_rate_hz=16000),
    )
    # 360,000 steps of 200 samples, 16,000 a second: 4,500 seconds.
    assert show.facts(card) == [
        "split  sequences    steps  hours  shortest  5 %  median   95 %  longest",
        "train      1,200  360,000   1.25         7   11      17  1,023    2,047",
        "valid         30    9,000   0.03         8   12      18     23       29",
        "",
        "dataset        some: audio, 16,000 Hz, 200 samples a step",
        "features       sample_0 to sample_199: full scale, mean -0.00125, std 0.0625",
        "normalisation  global: raw = std * x + mean",
        "source sha256  0123456789abcdef...",
        "command        python -m data_prep.some --source=DIR",
        "skipped        none",
        "speakers       train: 12, valid: 3",
    ]


def test_facts_of_images_and_long_extras():
    card = card_of(
        [Feature("pixel", "binary", "none", "ink")],
        Normalization("none", (0.0,), (1.0,)),
        {"train": split_of(5, 30, (6,) * 7, holds_probabilities=True)},
        extra={
            "names": [f"file-{i}" for i in range(1234)],
            "is_whole": True,
            "note": "word " * 100,
            "threshold": 0.123456,
            "by_class": {"a": {"mean": 0.5, "count": 1000}, "b": [2, None]},
        },
        modality=Modality("image", height=2, width=3),
    )
    lines = show.facts(card)
    assert "dataset        some: images of 2 x 3 pixels, one a step" in lines
    assert "train          holds probabilities, from which training draws 0 or 1" in lines
    assert "features       pixel: binary" in lines
    assert "names          1,234 entries" in lines
    assert "is whole       true" in lines
    assert "threshold      0.1235" in lines
    assert "by class       a: {count: 1000, mean: 0.5}, b: [2, null]" in lines
    (note,) = (line for line in lines if line.startswith("note"))
    assert note.endswith("word...") and len(note) < 200


def test_features_that_differ_are_told_apart(handwriting):
    lines = show.facts(read_card(handwriting))
    at = lines.index("features       dx: units, mean 3, std 40")
    assert lines[at + 1 : at + 3] == [
        "               dy: units, mean -1, std 20",
        "               pen: binary",
    ]


def test_wrapped_lines_keep_every_word(handwriting):
    card = read_card(handwriting)
    card.extra["note"] = "word " * 30
    lines = show.facts(card, 70)
    assert len(lines) > len(show.facts(card))
    assert max(map(len, lines)) <= 70
    assert " ".join(lines).split() == " ".join(show.facts(card)).split()


# ------------------------------------------------------------------------------------ page


def test_histograms_are_of_raw_values(handwriting):
    page, excerpt = page_of(handwriting)
    panels = panels_of(page)
    assert list(panels) == ["length", "dx", "dy", "pen"]
    raw = np.concatenate(excerpt)
    media.figure_to_rgb(page)  # which sets the limits of the second axes
    for index, name in enumerate(("dx", "dy")):
        axes = panels[name]
        counts, edges = np.histogram(raw[:, index].astype(float), bins=100)
        corners = axes.patches[0].get_xy()
        assert (corners[:, 0].min(), corners[:, 0].max()) == pytest.approx((edges[0], edges[-1]))
        assert corners[:, 1].max() == counts.max()
        assert axes.get_yscale() == "log"
        assert axes.get_xlabel() == "units"
        mean, std = raw[:, index].mean(), raw[:, index].std()
        assert [text.get_text() for text in axes.texts] == [f"mean {mean:.4g}, std {std:.4g}"]
        (normalised,) = axes.child_axes
        low, high = axes.get_xlim()
        mean, std = SCALE.mean[index], SCALE.std[index]
        assert normalised.get_xlim() == pytest.approx(((low - mean) / std, (high - mean) / std))
        assert normalised.get_xlabel() == "channel-normalised"
    rates = [x[:, 2].mean() for x in excerpt]
    corners = panels["pen"].patches[0].get_xy()
    assert (corners[:, 0].min(), corners[:, 0].max()) == pytest.approx((min(rates), max(rates)))
    assert panels["pen"].texts[0].get_text() == f"mean over all steps {raw[:, 2].mean():.4g}"


def test_lengths_are_shares_of_each_split(handwriting):
    page, _ = page_of(handwriting, split="valid")
    axes = panels_of(page)["length"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "valid"]
    assert axes.get_xlabel() == "steps"
    # From 2 to 12 steps, of both splits together, in bins of one step.
    shares = {"train": [LENGTHS.count(steps) / 7 for steps in range(2, 13)]}
    shares["valid"] = [0.5 if steps in (3, 12) else 0 for steps in range(2, 13)]
    for outline in axes.patches:
        corners = outline.get_xy()  # up and to the right, in turn
        assert corners[1:-1:2, 1] == pytest.approx(shares[outline.get_label()])
        assert corners[1:-1:2, 0] == pytest.approx(np.arange(2, 13) - 0.5)
    assert "Examples: 2 of 2 sequences of valid (--seed=0)" in texts_of(page)
    assert "Histograms: all 2 sequences of valid" in texts_of(page)


def test_the_page_says_how_much_was_read(handwriting, monkeypatch):
    monkeypatch.setattr(show, "_MOST_SEQUENCES", 4)
    page, _ = page_of(handwriting)
    assert "Examples: 3 of 7 sequences of train (--seed=0)" in texts_of(page)
    assert "Histograms: 4 of 7 sequences of train, spread over its files" in texts_of(page)


def test_the_page_shows_the_facts(handwriting):
    page, _ = page_of(handwriting)
    facts = show.facts(read_card(handwriting), show._TEXT_COLUMNS)
    assert set(facts) <= set(texts_of(page))
    assert "lines_$x$" in texts_of(page)
    media.figure_to_rgb(page)  # the name is no formula


def test_examples_follow_from_the_seed_and_keep_their_order(handwriting):
    excerpt = show.read_some(handwriting, read_card(handwriting), "train")
    chosen = [list(show.choose(excerpt, 4, seed)) for seed in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1]
    assert len(set(map(tuple, chosen))) == 3
    for names in chosen:
        assert len(set(names)) == 4
        assert names == sorted(names)
    assert all(raw is excerpt[name] for name, raw in show.choose(excerpt, 4, 0).items())
    assert list(show.choose(excerpt, 50, 0)) == list(excerpt)


def test_lines_of_handwriting_are_drawn_with_their_names(handwriting, monkeypatch):
    drawn = {}
    original = media.draw_handwriting

    def draw(sequences, labels, *more):
        drawn.update(zip(labels, sequences, strict=True))
        return original(sequences, labels, *more)

    monkeypatch.setattr(media.handwriting, "draw_handwriting", draw)
    _, excerpt = page_of(handwriting, num=50)
    assert list(drawn) == [f"line-{i}   {length} steps" for i, length in enumerate(LENGTHS)]
    for strokes_drawn, raw in zip(drawn.values(), excerpt, strict=True):
        np.testing.assert_array_equal(strokes_drawn, raw)


def test_images_are_drawn_grey_where_they_are_probabilities(images, monkeypatch):
    drawn = []
    original = media.draw_images
    monkeypatch.setattr(
        media.images,
        "draw_images",
        lambda images, *options: drawn.append(images) or original(images, *options),
    )
    page, excerpt = page_of(images, num=5)
    np.testing.assert_array_equal(drawn[0], [x.reshape(2, 3) for x in excerpt])
    panels = panels_of(page)
    assert list(panels) == ["mean image", "pixel"]  # lengths are all the same
    (shown,) = panels["mean image"].images
    np.testing.assert_allclose(shown.get_array(), np.mean(excerpt, axis=0).reshape(2, 3), rtol=1e-6)
    assert "Examples: probabilities of 5 of 5 sequences of train (--seed=0)" in texts_of(page)
    page, _ = page_of(images, split="valid")
    assert "Examples: 1 of 1 sequences of valid (--seed=0)" in texts_of(page)


def test_samples_of_audio_are_pooled_and_lengths_are_seconds(audio, monkeypatch):
    drawn = {}
    original = media.draw_audio

    def draw(waveforms, rate, labels, *more):
        drawn.update(zip(labels, waveforms, strict=True))
        return original(waveforms, rate, labels, *more)

    monkeypatch.setattr(media.audio, "draw_audio", draw)
    page, excerpt = page_of(audio)
    # 11, 30 and 20 frames of 5 samples, 500 a second.
    assert list(drawn) == ["sound-0   0.11 s", "sound-1   0.30 s", "sound-2   0.20 s"]
    np.testing.assert_array_equal(drawn["sound-2   0.20 s"], np.concatenate(excerpt[2]))
    panels = panels_of(page)
    assert list(panels) == ["length", "samples"]
    assert panels["length"].get_xlabel() == "seconds"
    edges = panels["length"].patches[0].get_xy()[:, 0]
    assert edges.min() == pytest.approx(10.5 * 5 / 500)
    samples = np.concatenate([x.ravel() for x in excerpt])
    corners = panels["samples"].patches[0].get_xy()
    assert corners[:, 1].max() == np.histogram(samples.astype(float), bins=100)[0].max()
    (normalised,) = panels["samples"].child_axes
    media.figure_to_rgb(page)  # which sets the limits of the second axes
    low, high = panels["samples"].get_xlim()
    assert normalised.get_xlim() == pytest.approx(((low - 0.01) / 0.25, (high - 0.01) / 0.25))


def test_of_other_data_the_first_features_are_drawn(weather):
    page, _ = page_of(weather, num=2)
    assert list(panels_of(page)) == [f"place_{i}" for i in range(6)]
    assert "Histograms: all 3 sequences of train; 6 of 8 features" in texts_of(page)
    card = read_card(weather)
    excerpt = show.read_some(weather, card, "train")
    figure = show.draw_examples(card, excerpt)
    assert len(figure.axes) == 3 * 6
    for sequence, row in zip(excerpt.values(), np.reshape(figure.axes, [3, 6]), strict=True):
        for index, axes in enumerate(row):
            np.testing.assert_array_equal(axes.lines[0].get_ydata(), sequence[:, index])
    titles = [text.get_text() for axes in figure.axes[:6] for text in axes.texts]
    assert titles == [f"place_{i} (°C)" for i in range(6)]


@pytest.mark.parametrize("value", [0.0, 1e9, -3e-9])
def test_values_that_are_all_the_same_are_drawn(tmp_path, value):
    write(
        tmp_path / "flat",
        {"train": [("a", np.full((4, 1), value)), ("b", np.full((2, 1), value))]},
        features=[Feature("level", "real", "m", "")],
        normalization=Normalization("none", (0.0,), (1.0,)),
    )
    page, _ = page_of(tmp_path / "flat")
    media.figure_to_rgb(page)
    axes = panels_of(page)["level"]
    assert axes.patches[0].get_xy()[:, 1].max() == 6
    assert not axes.child_axes  # raw values are the normalised ones


# --------------------------------------------------------------------------------- command


@pytest.fixture
def run(monkeypatch, capsys, parse_flags):
    """Function (*arguments) -> exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["show", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.run(show.main, show.define_flags, positional=("records",))
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def folder(handwriting, tmp_path):
    """A copy of the handwriting, in a folder of its own."""
    return Path(shutil.copytree(handwriting, tmp_path / "records"))


def test_the_picture_lies_beside_the_records(run, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.chdir(folder)
    code, out, error = run(".", "--num=2")
    assert (code, error) == (None, "")
    picture = folder.parent / "records.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["records", "records.png"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert out.splitlines() == [
        *show.facts(read_card(folder)),
        "",
        f"wrote {picture}: examples, and histograms of all 7 sequences of train",
    ]


def test_the_same_flags_give_the_same_file(run, folder):
    pages = [folder.parent / f"{i}.svg" for i in range(2)]
    code, _, error = run(f"--records={folder}", "--split=valid", f"--out={pages[0]}", "--seed=3")
    assert (code, error) == (None, "")
    show.show(folder, pages[1], "valid", None, 3)
    assert ElementTree.parse(pages[0]).getroot().tag.endswith("svg")
    assert pages[0].read_bytes() == pages[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RECORDS is missing: usage: "),
        (["{folder}", "more"], "unexpected argument 'more'"),
        (["{parent}/absent"], "{parent}/absent: does not exist; a dataset folder"),
        (["{parent}"], "{parent}: is not a dataset folder: there is no dataset.json in it"),
        (["{folder}/dataset.json"], "{folder}/dataset.json: is a file; accepted: a dataset folder"),
        (["{folder}", "--split=test"], "--split=test: accepted: train, valid (of {folder})"),
        (["{folder}", "--num=0"], "flag --num=0: "),
        (["{folder}", "--num=101"], "flag --num=101: "),
        (["{folder}", "--out=page.pdf"], "accepted: a file name that ends in .png or .svg"),
        (["{folder}", "--out={folder}/a.png"], "a dataset folder may hold nothing else"),
        (
            ["{folder}", "--out={folder}/dataset.json/a.png"],
            "{folder}/dataset.json/a.png: cannot be written (File exists)",
        ),
        (
            ["{folder}", "--out={parent}/taken.svg"],
            "{parent}/taken.svg: cannot be written (Is a directory)",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(run, folder, arguments, message):
    (folder.parent / "taken.svg").mkdir()
    names = {"folder": folder, "parent": folder.parent}
    code, out, error = run(*(argument.format(**names) for argument in arguments))
    assert (code, out) == (cli.USAGE_ERROR, "")
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message.format(**names) in error
    assert sorted(path.name for path in folder.parent.iterdir()) == ["records", "taken.svg"]


def test_a_folder_that_may_not_be_written_to_is_told(run, folder, monkeypatch):
    def refuse(path):
        raise UserError(f"{path}: cannot be written (Permission denied)")  # root may write anywhere

    monkeypatch.setattr(show, "check_writable", refuse)
    code, out, error = run(folder)
    assert (code, out) == (cli.USAGE_ERROR, "")
    assert error == f"error: {folder}.png: cannot be written (Permission denied)\n"


# ------------------------------------------------------------------- what is long, or in any script

NAMES = ["手書き/一.json", "خط عربي", "हिन्दी", "🙂 ✍️.wav", "👩‍💻", "כתב", "почерк", "a\tb"]
KINDS = {
    "handwriting": ({}, lambda i: strokes(5, i)),
    "audio": (
        {
            "features": [Feature(f"s{i}", "real", "音", "a sample") for i in range(4)],
            "normalization": Normalization("全", (0.0,) * 4, (0.5,) * 4),
            "modality": Modality("audio", sample_rate_hz=500),
        },
        lambda i: np.random.default_rng(i).normal(size=(9, 4)),
    ),
    "other": (
        {
            "features": [Feature("温度", "real", "度", ""), Feature("雨", "binary", "none", "")],
            "normalization": Normalization("渠道", (0.0, 0.0), (3.0, 1.0)),
        },
        lambda i: np.random.default_rng(i).integers(0, 2, (9, 2)),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_names_in_any_script_are_drawn_without_warnings(run, tmp_path, kind, ending):
    options, make = KINDS[kind]
    folder = tmp_path / "手書き"
    sequences = [(name, make(i)) for i, name in enumerate(NAMES)]
    extra = {"speakers": {"李": 1, "नमस्ते": 2}}
    write(folder, {"train": sequences}, name="手書き 🙂", extra=extra, **options)
    code, out, error = run(folder, "--num=8", f"--out={tmp_path}/page.{ending}")
    assert (code, error) == (None, "")  # and no warning, which would be an error
    assert "नमस्ते: 2, 李: 1" in out
    card = read_card(folder)
    figure = show.draw_examples(card, show.read_some(folder, card, "train"))
    texts = [t.get_text() for axes in figure.axes for t in (*axes.texts, axes._left_title)]
    shown = [text.partition("   ")[0] for text in texts if "   " in text]
    assert len(set(shown)) == 8 and "почерк" in shown and "a\\tb" in shown


def test_what_is_cut_is_told(tmp_path):
    far = np.tile([[40.0, 10, 0], [40, -10, 1]], (30, 1)) * ([2000, 2000, 1])
    near = [(f"line-{i}", strokes(60, i)) for i in range(5)]
    write(tmp_path / "units", {"train": [*near, ("far", far), ("n" * 500, strokes(60, 9))]})
    card = read_card(tmp_path / "units")
    figure = show.draw_examples(card, show.read_some(tmp_path / "units", card, "train"))
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels == [
        *(f"line-{i}   60 steps" for i in range(5)),
        "far   60 steps, cut off",
        f"{'n' * 40}...{'n' * 40}   60 steps",
    ]


def test_features_that_are_left_out_are_told(weather):
    page, _ = page_of(weather, num=2)
    texts = texts_of(page)
    assert "Examples: 2 of 3 sequences of train (--seed=0); 6 of 8 features" in texts
