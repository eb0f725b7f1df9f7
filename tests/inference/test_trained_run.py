"""Runs at hand: the samples and numbers of the commands, which draw themselves."""

import base64
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import stcn_tf
from stcn_tf import flags, sample
from stcn_tf.data.batches import eval_batches
from stcn_tf.data.card import read_card
from stcn_tf.data.sequences import read_sequences
from stcn_tf.inference import table
from stcn_tf.inference.evaluation import Evaluator
from stcn_tf.inference.samples import Samples
from stcn_tf.support.errors import UserError


@pytest.fixture(scope="module")
def run(tiny_run):
    return stcn_tf.open_run(tiny_run)


@pytest.fixture(scope="module")
def lines(run, tiny_records) -> Samples:
    return run.read(tiny_records, num=7)


def is_svg(text: str) -> bool:
    return ElementTree.fromstring(text).tag.endswith("}svg")


def embedded(page: str, kind: str) -> list[bytes]:
    found = re.findall(rf'src="data:{re.escape(kind)};base64,([A-Za-z0-9+/=]*)"', page)
    return [base64.b64decode(content) for content in found]


def test_samples_are_those_of_the_command(run, tiny_run, parse_flags, tmp_path, capsys):
    asked = {"num": 3, "length": 7, "seed": 5, "temperature": 0.5}
    given = [f"--{name}={value}" for name, value in asked.items()]
    parse_flags(flags.define_sample, f"--run_dir={tiny_run}", f"--out={tmp_path}", *given)
    sample.main()
    samples = run.sample(**asked)
    files = sorted(path.name for path in tmp_path.iterdir())
    samples.write(tmp_path / "mine", "samples", "sample")
    assert files == sorted(path.name for path in (tmp_path / "mine").iterdir())
    theirs, mine = (
        read_sequences(folder / "samples.h5", run.card, "strokes")
        for folder in (tmp_path, tmp_path / "mine")
    )
    for one, other, third in zip(theirs, mine, samples, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)
    picture = (tmp_path / "samples.svg").read_text()
    assert (tmp_path / "mine" / "samples.svg").read_text() == picture == samples._repr_svg_()


def test_a_continuation_keeps_what_is_given(run, lines, tmp_path):
    continued = run.continue_from(lines[:2], length=4, beginning=5, seed=3)
    assert continued.given == (5, 5) and [len(x) for x in continued] == [9, 9]
    for whole, line in zip(continued, lines, strict=False):
        np.testing.assert_array_equal(whole[:5], line[:5])
    # From an array, and from a file.
    (alone,) = run.continue_from(lines[0][:5], length=4, seed=3)
    np.testing.assert_allclose(alone, continued[0], rtol=1e-5, atol=1e-5)
    continued.write(tmp_path, "some", "some")
    again = run.continue_from(tmp_path / "some.h5", length=1)
    assert again.given == (9, 9)
    np.testing.assert_array_equal(again[1][:9], continued[1])


def test_scores_are_those_of_the_evaluation(run, lines, tiny_records):
    scores = run.score(lines, seed=2)
    batches = eval_batches(tiny_records, split="valid", batch_size=20)
    evaluation = Evaluator(run.model)(batches, seed=2)
    about = {"run": str(run.directory.path), "model": "stcn_dense"}
    expected = table.summary(evaluation, run.model, read_card(tiny_records), about)
    assert len(scores) == expected["num_sequences"] == 7
    np.testing.assert_allclose(scores.elbo, evaluation.elbo, rtol=1e-4, atol=1e-3)
    assert scores.summary["active_units"] == expected["active_units"]
    for name, term in expected["terms"].items():
        for number in ("per_sequence", "per_step", "per_sequence_standard_error"):
            assert scores.summary["terms"][name][number] == pytest.approx(term[number], rel=1e-3)


def test_terms_of_steps_add_up_to_those_of_sequences(run, lines):
    scores = run.score(lines)
    parts = zip(scores.log_likelihood, scores.kl, lines, scores.elbo, strict=True)
    for log_likelihood, kl, line, elbo in parts:
        assert log_likelihood.shape == (len(line),) and kl.shape == (len(line), 2)
        assert (kl >= 0).all()
        assert log_likelihood.sum() - kl.sum() == pytest.approx(elbo, rel=1e-4, abs=1e-3)
    # Whatever it is padded with.
    alone = run.score(lines[0])
    np.testing.assert_allclose(alone.kl[0], scores.kl[0], rtol=1e-4, atol=1e-4)


def test_handwriting_draws_itself(run, lines):
    assert is_svg(lines._repr_svg_()) and lines._repr_html_() is None
    assert repr(lines[:1]) == f"<1 strokes of {len(lines[0])} steps>"
    assert repr(lines) == f"<7 strokes of {len(lines[0])} to {len(lines[-1])} steps>"
    page = run.score(lines)._repr_html_()
    assert "KL of layer 2" in page and "7 sequences, " in page
    assert "nats of channel-normalised values" in page
    (picture,) = embedded(page, "image/svg+xml")
    assert is_svg(picture.decode())


def test_audio_plays_itself(tiny_audio_run):
    run = stcn_tf.open_run(tiny_audio_run)
    samples = run.sample(num=2, length=30)
    assert samples._repr_svg_() is None
    page = samples._repr_html_()
    sounds = embedded(page, "audio/wav")
    assert len(sounds) == page.count("<audio controls") == 2
    assert sounds == run.medium.wav_files(samples.sequences)
    assert all(sound.startswith(b"RIFF") and len(sound) == 44 + 2 * 30 * 7 for sound in sounds)
    assert len(embedded(page, "image/svg+xml")) == 1
    assert run.score(samples)._repr_html_().count("<img") == 1


def test_images_draw_themselves(tiny_image_run):
    run = stcn_tf.open_run(tiny_image_run)
    samples = run.sample(num=3)
    assert is_svg(samples._repr_svg_()) and samples._repr_html_() is None
    completed = run.continue_from(samples, beginning=12)
    assert completed.given == (12,) * 3 and {len(image) for image in completed} == {20}
    scores = run.score(completed)
    # What an image is drawn beside: its layers, highest first.
    assert [text.get_text().split(":")[0] for text in scores.figure(2).axes[0].texts] == [
        "image",
        "KL of layer 2",
        "KL of layer 1",
    ]


def test_without_latents_surprise_is_drawn(tiny_wavenet_run, tiny_records):
    run = stcn_tf.open_run(tiny_wavenet_run)
    lines = run.read(tiny_records, num=2)
    # Of one step, which one of these models is given.
    (alone,) = run.score([lines[0][:1]]).elbo
    assert (alone == 0.0) == (run.model.num_given_frames == 1)
    scores = run.score(lines)
    assert "log-likelihood" in scores._repr_html_() and "surprise" in scores._repr_html_()
    assert scores.kl[0].shape == (len(lines[0]), 0)
    assert scores.elbo[1] == pytest.approx(scores.log_likelihood[1].sum(), rel=1e-4)
    assert "the likelihood is exact" in run._repr_html_()


def test_a_model_draws_its_structure(run):
    page = stcn_tf.load_run(run.directory.path)._repr_html_()
    assert page in run._repr_html_()
    assert f"{run.model.count_params():,} parameters" in page
    # One block of dilation 1 for each of two layers.
    assert "z^1 of 2 frames: 5 units; z^2 of 3 frames: 3 units" in page
    assert run.model.latent_receptive_fields[-1] == run.model.receptive_field == 3
    own = [f"{layer.count_params():,}" for layer in run.model.layers]
    assert re.findall(r"<td>\w+</td><td>([\d,]+)</td>", page) == own
    assert sum(int(n.replace(",", "")) for n in own) == run.model.count_params()


def test_mistakes(run, lines, tiny_audio):
    for given, message in (
        ([], r"^no sequences; accepted: arrays \[time, 3\] in raw units"),
        ([np.zeros((4, 2))], r"^sequence 0 has the shape \[4, 2\]; accepted: "),
        ([lines[0], np.zeros((0, 3))], r"^sequence 1 has the shape \[0, 3\]; accepted: "),
        ([np.full((4, 3), np.nan)], "^sequence 0 holds a value that is not finite$"),
        ([np.full((4, 3), 0.5)], "^sequence 0 has a binary feature that is neither 0 nor 1$"),
        ([[[1.0, 2.0, 0.0], [1.0, 2.0]]], r"^sequences: .*; accepted: arrays \[time, 3\]"),
        ([["a", "b", "c"]], r"^sequences: .*; accepted: arrays \[time, 3\]"),
    ):
        for function in (run.score, run.continue_from):
            with pytest.raises(UserError, match=message):
                function(given)
    with pytest.raises(UserError, match=r"^beginning: 99; accepted: 0 \(all\) to \d+$"):
        run.continue_from(lines, beginning=99)
    with pytest.raises(UserError, match="^num: 0; accepted: 1 or more"):
        run.sample(num=0)
    with pytest.raises(UserError, match="temperature.*: -1.*; accepted: a finite number"):
        run.sample(num=1, length=1, temperature=-1.0)
    with pytest.raises(UserError, match="other features"):
        run.read(tiny_audio)
    with pytest.raises(UserError, match="no run directory"):
        stcn_tf.open_run("none")
