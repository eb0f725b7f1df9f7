import dataclasses
import shutil

import h5py
import numpy as np
import pytest
import soundfile

from stcn_tf import flags, media, noise, reconstruct
from stcn_tf.bounds import sum_over_time
from stcn_tf.data.batches import eval_batches
from stcn_tf.data.card import Modality, read_card
from stcn_tf.data.sequences import read_sequences
from stcn_tf.runs import RunDirectory
from stcn_tf.support.errors import UserError

FILES = ["reconstructions.h5", "reconstructions.png", "reconstructions.svg"]


@pytest.fixture
def run_reconstruct(parse_flags, tmp_path):
    """Function (run, records, *flags) -> the folder of the results; flags given later win."""

    def run_reconstruct(run_dir: str, records: str, *arguments: str):
        out = tmp_path / "out"
        parse_flags(
            flags.define_reconstruct,
            f"--run_dir={run_dir}",
            f"--data={records}",
            f"--out={out}",
            *arguments,
        )
        reconstruct.main()
        return out

    return run_reconstruct


def _expected(run_dir, records, num, seed=0):
    """Of one batch: raw originals, reconstructions, probabilities, and ELBOs, by the model."""
    model, card = RunDirectory.open(run_dir).load().model, read_card(records)
    (batch,) = eval_batches(records, split="valid", batch_size=num, limit=num)
    batch_seed = noise.fold_in((seed, 0), 0)
    terms = model.score(batch.x, batch.lengths, batch_seed)
    sums = sum_over_time(terms)
    elbo = sums.log_likelihood.numpy() - sums.kl.numpy() @ model.elbo_kl_weights
    arrays = [
        batch.x,
        model.reconstruction(terms, batch.x),
        model.reconstruction(terms, batch.x, binarize=False),
    ]
    raw = [card.normalization.denormalize(values) for values in arrays]
    return raw, batch.lengths.numpy(), elbo


def _check_file(path, records, array, expected):
    raw, lengths, elbo = expected
    with h5py.File(path) as file:
        assert set(file) == {array, "reconstructions", "probabilities", "lengths", "elbo"}
        np.testing.assert_array_equal(file["lengths"], lengths)
        np.testing.assert_allclose(file["elbo"], elbo, rtol=1e-5)
        for name, values in zip((array, "reconstructions", "probabilities"), raw, strict=True):
            for row, value, length in zip(file[name], values, lengths, strict=True):
                np.testing.assert_allclose(row[:length], value[:length], rtol=1e-5, atol=5e-5)
                assert not row[length:].any()
    # What sample continues.
    assert len(read_sequences(path, read_card(records), array)) == len(lengths)


def test_handwriting(run_reconstruct, tiny_run, tiny_records, capsys):
    out = run_reconstruct(tiny_run, tiny_records, "--num=4", "--seed=6")
    assert sorted(path.name for path in out.iterdir()) == FILES
    expected = _expected(tiny_run, tiny_records, 4, seed=6)
    _check_file(out / FILES[0], tiny_records, "strokes", expected)
    with h5py.File(out / FILES[0]) as file:
        assert file.attrs["elbo_is"] == "ELBO, nats of channel-normalised values"
        assert [file.attrs[name] for name in ("checkpoint", "split")] == ["best", "valid"]
    assert capsys.readouterr().out == (
        f"4 sequences of valid: {out}/reconstructions.h5, and the first 4 in "
        "reconstructions.png and reconstructions.svg\n"
    )
    assert media.RECONSTRUCTION_INK in (out / FILES[2]).read_text()


@pytest.mark.usefixtures("eager")
def test_images(run_reconstruct, tiny_image_run, tiny_images, monkeypatch):
    pages = _spy(monkeypatch, media.images, "draw_image_reconstructions")
    out = run_reconstruct(tiny_image_run, tiny_images)
    assert sorted(path.name for path in out.iterdir()) == FILES
    raw, lengths, elbo = _expected(tiny_image_run, tiny_images, 5)
    _check_file(out / FILES[0], tiny_images, "pixels", (raw, lengths, elbo))
    ((images, options),) = pages
    images = [np.stack(drawn) for drawn in images]
    for values, drawn in zip(raw, images, strict=True):
        np.testing.assert_allclose(drawn, values.reshape(5, 5, 4), rtol=1e-5)
    assert set(np.unique(images[1])) <= {0, 1}
    assert np.all((images[2] > 0.5) == images[1])
    assert len(np.unique(images[2])) > 5
    # Negative, as in the paper.
    assert options["labels"] == [f"-ELBO {-value:.1f} nats" for value in elbo]


def _spy(monkeypatch, module, name):
    """A list of what a function of a module is called with."""
    calls, draw = [], getattr(module, name)

    def spy(*args, **kwargs):
        calls.append((args, kwargs))
        return draw(*args, **kwargs)

    monkeypatch.setattr(module, name, spy)
    return calls


@pytest.mark.usefixtures("eager")
def test_audio(run_reconstruct, tiny_audio_run, tiny_audio, monkeypatch):
    pages = _spy(monkeypatch, media.audio, "draw_audio")
    out = run_reconstruct(tiny_audio_run, tiny_audio, "--num=3")
    sounds = [f"{kind}_{i:02d}.wav" for kind in ("original", "reconstruction") for i in range(3)]
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES + sounds)
    raw, lengths, elbo = _expected(tiny_audio_run, tiny_audio, 3)
    _check_file(out / FILES[0], tiny_audio, "frames", (raw, lengths, elbo))
    with h5py.File(out / FILES[0]) as file:
        elbo = file["elbo"][()]  # of that size the last digit is that of the rounding
    for kind, values in zip(("original", "reconstruction"), raw, strict=False):
        for i, length in enumerate(lengths):
            played, rate = soundfile.read(out / f"{kind}_{i:02d}.wav")
            assert rate == 210
            expected = np.clip(values[i, :length].ravel(), -1, 1)
            np.testing.assert_allclose(played, expected, atol=2**-15)
    (((waveforms, rate), options),) = pages
    assert rate == 210
    assert [len(waveform) for waveform in waveforms] == np.repeat(7 * lengths, 2).tolist()
    np.testing.assert_allclose(waveforms[2], raw[0][1, : lengths[1]].ravel())
    unit = "nats of scalar-normalised values"
    assert options["labels"][2:4] == ["original", f"reconstruction, ELBO {elbo[1]:.1f} {unit}"]


@pytest.mark.usefixtures("eager")
def test_wavenets_say_that_their_likelihood_is_exact(
    run_reconstruct, tiny_wavenet_run, tiny_records, monkeypatch
):
    pages = _spy(monkeypatch, media.handwriting, "draw_reconstruction")
    out = run_reconstruct(tiny_wavenet_run, tiny_records, "--num=2")
    expected = _expected(tiny_wavenet_run, tiny_records, 2)
    _check_file(out / FILES[0], tiny_records, "strokes", expected)
    unit = "nats of channel-normalised values"
    assert pages[0][1]["labels"] == [f"log-likelihood {value:.1f} {unit}" for value in expected[2]]


@pytest.mark.usefixtures("eager")
def test_more_than_a_batch(run_reconstruct, tiny_run, tiny_records):
    out = run_reconstruct(tiny_run, tiny_records, "--split=train", "--num=22")
    sequences = read_sequences(out / FILES[0], read_card(tiny_records), "strokes")
    batches = list(eval_batches(tiny_records, split="train", batch_size=20, limit=22))
    assert [len(batch.lengths) for batch in batches] == [20, 2]
    normalization = read_card(tiny_records).normalization
    rows = [x[:n] for batch in batches for x, n, *_ in zip(*map(np.asarray, batch), strict=True)]
    for sequence, row in zip(sequences, rows, strict=True):
        np.testing.assert_array_equal(sequence, normalization.denormalize(row))
    with h5py.File(out / FILES[0]) as file:
        assert file["elbo"].shape == (22,)


@pytest.mark.usefixtures("eager")
def test_records_of_no_known_kind_are_written_but_not_drawn(
    run_reconstruct, tiny_audio_run, tiny_audio, tmp_path, capsys
):
    card = dataclasses.replace(read_card(tiny_audio), modality=Modality("other"))
    records = shutil.copytree(tiny_audio, tmp_path / "records")
    (records / "dataset.json").write_text(card.to_json())
    out = run_reconstruct(tiny_audio_run, records, "--num=2")
    assert [path.name for path in out.iterdir()] == FILES[:1]
    assert "(no picture: audio is neither handwriting, audio nor images)" in capsys.readouterr().out


def test_faults_leave_nothing(run_reconstruct, tiny_run, tiny_records, tiny_images, tmp_path):
    with pytest.raises(UserError, match="have other features"):
        run_reconstruct(tiny_run, tiny_images)
    flags.FLAGS["data"].value = tiny_records
    flags.FLAGS["split"].value = "test"
    with pytest.raises(UserError, match="no split 'test', only train, valid"):
        reconstruct.main()
    assert not (tmp_path / "out").exists()
