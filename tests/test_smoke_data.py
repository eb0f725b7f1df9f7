"""Every data set from synthetic raw files in its own format, by its parser, to a trained model."""

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data_prep import blizzard, deepwriting, iamondb, ink, mnist, timit, wav
from data_prep.synthetic import formats, handwriting, images, speech
from stcn_tf import flags
from stcn_tf.data.batches import eval_batches
from stcn_tf.data.card import read_card
from stcn_tf.inference.generation import Generator, Reconstructor, generate_raw
from stcn_tf.runs import load_run
from stcn_tf.training.trainer import Trainer
from tests.conftest import eagerly
from tests.smoke_records import SMOKE_RECORDS

ROOT = Path(__file__).parents[1]
HANDWRITING = handwriting.HandwritingSettings(num_forms=6, lines_per_form=2)
SPEECH = speech.SpeechSettings(num_recordings=12)
SHARES = {"split": "random", "valid_share": 0.25, "test_share": 0.0}
COMMON = {"skip_bad": False, "workers": 1}


def make_iamondb(raw: Path, out: Path) -> None:
    formats.write(raw, "iamondb", HANDWRITING)
    split = str(raw / "splits")
    iamondb.prepare(raw, out, split=split, normalization="vrnn", **COMMON)


def make_deepwriting(raw: Path, out: Path) -> None:
    formats.write(raw, "deepwriting", HANDWRITING)
    shares = {"valid_share": 0.1, "test_share": 0.0}
    deepwriting.prepare(raw, out, normalization="channel", **shares, **COMMON)


def make_ink(raw: Path, out: Path) -> None:
    formats.write(raw, "inkml", HANDWRITING)
    ink.prepare(raw / "ink", out, normalization="channel", **SHARES, **COMMON)


def make_timit(raw: Path, out: Path) -> None:
    formats.write(raw, "timit", SPEECH)
    timit.prepare(raw, out, split=str(raw / "lists"), sequences_multiple=1, **COMMON)


def make_blizzard(raw: Path, out: Path) -> None:
    formats.write(raw, "blizzard", speech.BookSettings(num_chapters=2))
    split = "0.6,0.2,0.2"
    blizzard.prepare(raw / "audio", out, split=split, files_per_group=3, num_streams=2, **COMMON)


def make_wav(raw: Path, out: Path) -> None:
    formats.write(raw, "wav", SPEECH)
    wav.prepare(raw / "audio", out, **SHARES, **COMMON)


def make_mnist(raw: Path, out: Path) -> None:
    settings = images.ImageSettings(num_images=25, image_size=9)
    formats.write(raw, "mnist_idx", settings)
    mnist.prepare(raw, out, binarization="dynamic", num_valid=7, seed=0, workers=1)


MAKERS = {
    "iamondb": make_iamondb,
    "deepwriting": make_deepwriting,
    "ink": make_ink,
    "timit": make_timit,
    "blizzard": make_blizzard,
    "wav": make_wav,
    "mnist": make_mnist,
}
KINDS = dict.fromkeys(MAKERS, "audio") | {
    "iamondb": "handwriting",
    "deepwriting": "handwriting",
    "ink": "handwriting",
    "mnist": "image",
}


def test_every_smoke_flagfile_is_run_here():
    assert {*MAKERS, *SMOKE_RECORDS} == {
        path.stem for path in (ROOT / "experiments/smoke").glob("*.flags")
    }


# One of each kind of data: samples are drawn in a graph, which takes its time.
DRAWN = ("iamondb", "timit", "mnist")


@pytest.mark.parametrize("name", MAKERS)
def test_from_raw_files_to_a_trained_model(name, parse_flags, tmp_path):
    MAKERS[name](tmp_path / "raw", tmp_path / "records")
    card = read_card(tmp_path / "records")
    assert card.modality.kind == KINDS[name]
    assert {"train", "valid"} <= set(card.splits)
    # Nothing else is left, such as what was decoded on the way.
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "records"}

    parse_flags(
        flags.define_train,
        f"--flagfile=experiments/smoke/{name}.flags",
        f"--data={tmp_path / 'records'}",
        f"--run_dir={tmp_path / 'run'}",
        "--max_steps=2",
        "--evaluate_every=2",
        "--sample_every=9",
    )
    trainer = Trainer(flags.config(), flags.FLAGS.data, flags.FLAGS.run_dir, lambda line: None)
    if name in DRAWN:
        trainer._pictures.draw(0)
    with eagerly():
        assert trainer.train()
    assert float(trainer.early_stopping.best) > -float("inf")
    events = EventAccumulator(str(tmp_path / "run/events/valid"))
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert "elbo/per_sequence" in tags
    if name in DRAWN:
        assert {"samples", "reconstructions"} <= tags
        assert ("samples/0" in tags) == (card.modality.kind == "audio")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Function (name of a data set) -> its records, made once."""
    made = {}

    def of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            MAKERS[name](folder / "raw", folder / "records")
            made[name] = folder / "records"
        return made[name]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOKE_RECORDS)
def test_a_model_is_trained_evaluated_and_drawn_from(
    name, records, parse_flags, monkeypatch, tmp_path, eager
):
    monkeypatch.chdir(ROOT)
    data = records(SMOKE_RECORDS[name])
    parse_flags(
        flags.define_train,
        f"--flagfile=experiments/smoke/{name}.flags",
        f"--data={data}",
        f"--run_dir={tmp_path / 'run'}",
        "--max_steps=1",
        "--evaluate_every=9",
        "--evaluate_sequences=2",
        "--sample_every=0",
    )
    trainer = Trainer(flags.config(), flags.FLAGS.data, flags.FLAGS.run_dir, lambda line: None)
    assert trainer.train()
    model, card = load_run(tmp_path / "run"), read_card(data)
    batches = eval_batches(data, split="valid", batch_size=2, limit=2)
    rebuilt = Reconstructor(model, card.normalization)(batches, (0, 1))
    beginnings = [values[:3] for values in rebuilt.originals]
    generator = Generator(model, jit_compile=False)
    drawn = generate_raw(generator, card.normalization, beginnings, 2, (0, 1))
    for given, sequence, values in zip(beginnings, drawn, rebuilt.reconstructions, strict=True):
        assert sequence.shape == (len(given) + 2, len(card.features))
        assert np.all(np.isfinite(sequence)) and np.all(np.isfinite(values))
        np.testing.assert_array_equal(sequence[: len(given)], given)
