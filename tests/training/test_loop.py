import dataclasses
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stcn_tf.data.batches import eval_batches
from stcn_tf.data.card import Modality, read_card
from stcn_tf.data.records import write_dataset
from stcn_tf.inference.evaluation import Evaluator
from stcn_tf.media.handwriting import Handwriting
from stcn_tf.runs import RunDirectory, load_run
from stcn_tf.support import devices
from stcn_tf.support.errors import UserError
from stcn_tf.training.trainer import Trainer
from tests.conftest import eagerly


def weights(model) -> list[np.ndarray]:
    return [v.numpy() for v in model.weights]


def interrupting(update: int):
    """A report function that presses Ctrl-C at the progress line of an update."""

    def report(line: str) -> None:
        if line.startswith(f"update {update:>7,}/"):
            os.kill(os.getpid(), signal.SIGINT)

    return report


def dying(update: int):
    """A report function that is the end of the process at the progress line of an update."""

    def report(line: str) -> None:
        if line.startswith(f"update {update:>7,}/"):
            raise RuntimeError("the power is gone")

    return report


@pytest.fixture
def short_samples(monkeypatch, eager):
    """Without graphs, and with samples of a few steps, each of which takes long then."""
    monkeypatch.setattr(Handwriting, "length", 5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_records, tiny_config) -> Trainer:
    """A run that was never stopped, without graphs."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    with eagerly():
        trainer = Trainer(tiny_config, tiny_records, run_dir, report=lambda line: None)
        assert trainer.train()
    return trainer


def _assert_ended_alike(continued: Trainer, whole: Trainer) -> None:
    for a, b in zip(weights(whole.model), weights(continued.model), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, variable in whole.early_stopping.state.items():
        assert variable == continued.early_stopping.state[name]
    best = (weights(load_run(trainer.run.path)) for trainer in (whole, continued))
    for a, b in zip(*best, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("report", "kept"),
    [
        pytest.param(interrupting(3), 3, id="between evaluations"),
        pytest.param(interrupting(4), 4, id="when an evaluation is due"),
        pytest.param(dying(7), 5, id="killed, from the last checkpoint"),
    ],
)
def test_continuing_equals_never_having_stopped(
    tmp_path, tiny_records, tiny_config, whole, report, kept, eager
):
    stopped = Trainer(tiny_config, tiny_records, tmp_path / "parts", report)
    if kept == 5:
        with pytest.raises(RuntimeError):
            stopped.train()
    else:
        assert not stopped.train()
        assert stopped.step == kept
    continued = Trainer(tiny_config, tiny_records, tmp_path / "parts", report=lambda line: None)
    assert continued.step == kept
    assert continued.train()
    assert continued.step == whole.step == tiny_config.run.max_steps
    _assert_ended_alike(continued, whole)


def test_continuing_in_graphs_equals_never_having_stopped(tmp_path, tiny_records, tiny_config):
    def report(line):
        if line.startswith("update       7/"):
            shutil.copytree(tmp_path / "whole", tmp_path / "parts")

    whole = Trainer(tiny_config, tiny_records, tmp_path / "whole", report)
    assert whole.train()
    continued = Trainer(tiny_config, tiny_records, tmp_path / "parts", report=lambda line: None)
    assert continued.step == 5  # as if killed, after the last checkpoint
    assert continued.train()
    assert continued.step == whole.step == tiny_config.run.max_steps
    _assert_ended_alike(continued, whole)


def test_events_lines_and_best_weights(tmp_path, tiny_records, tiny_config_with, short_samples):
    config = tiny_config_with(run={"sample_every": 8})
    lines = []
    trainer = Trainer(config, tiny_records, tmp_path / "run", lines.append)
    initial = trainer.early_stopping.best
    assert initial == -np.inf
    assert trainer.train()
    assert lines[0].startswith("starting: stcn_dense with gmm outputs on tiny")
    assert sum("nats/step  KL weight" in line for line in lines) == 8
    assert sum("validation: ELBO" in line for line in lines) == 2
    assert lines[-1].startswith("finished after 8 updates")

    terms = [
        f"{group}/{unit}"
        for group in ("elbo", "reconstruction")
        for unit in ("per_sequence", "per_step")
    ] + [
        f"kl_{unit}/{part}"
        for unit in ("per_sequence", "per_step")
        for part in ("total", "layer_1", "layer_2")
    ]
    training = [
        f"training/{name}"
        for name in (
            "gradient_norm",
            "kl_weight",
            "learning_rate",
            "objective_per_step",
            "padding",
            "skipped",
            "steps_per_second",
            "updates_per_second",
            "waiting",
        )
    ]
    floors = [f"sigma_at_floor/{name}" for name in ("observation", "layer_1", "layer_2")]
    terms += floors
    valid = [f"active_units/layer_{layer}" for layer in (1, 2)] + ["selected/per_sequence"]
    for split, tags, count in (("train", terms + training, 8), ("valid", terms + valid, 2)):
        events = EventAccumulator(str(trainer.run.events(split)))
        events.Reload()
        assert set(tags) == set(events.Tags()["tensors"]) - {"samples", "reconstructions"}
        for tag in tags:
            assert len(events.Tensors(tag)) == count, tag
        if split == "valid":
            assert {"samples", "reconstructions"} <= set(events.Tags()["tensors"])
            elbos = [tf.make_ndarray(e.tensor_proto) for e in events.Tensors("elbo/per_sequence")]
    assert max(elbos) == pytest.approx(trainer.early_stopping.best, rel=1e-5)
    # Ended is ended: the same command says so and does nothing.
    again = Trainer(config, tiny_records, tmp_path / "run", lines.append)
    assert again.train()
    assert "finished already, after 8 updates" in lines[-1]
    assert again.step == 8


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "wavenet", "wavenet_blocks": 3, "first_frame": "given"},
        {"model": "wavenet_dense", "wavenet_blocks": 3, "wavenet_dense_blocks": (1, 3)},
    ],
    ids=["wavenet", "wavenet_dense"],
)
def test_runs_of_wavenets(tmp_path, tiny_records, tiny_config_with, settings, short_samples):
    run = {"max_steps": 3, "evaluate_every": 3, "checkpoint_every": 2, "sample_every": 3}
    config = tiny_config_with(model=settings, run=run)
    lines = []
    trainer = Trainer(config, tiny_records, tmp_path / "run", lines.append)
    assert trainer.train()
    assert lines[0].startswith(f"starting: {settings['model']} with gmm outputs on tiny")
    (validation,) = [line for line in lines if "validation:" in line]
    assert "KL" not in validation
    # No layer has a KL, none has units.
    for split in ("train", "valid"):
        events = EventAccumulator(str(trainer.run.events(split)))
        events.Reload()
        tags = set(events.Tags()["tensors"])
        assert {"elbo/per_sequence", "elbo/per_step"} <= tags
        assert not any("layer_" in tag for tag in tags)
        assert ({"samples", "reconstructions"} <= tags) == (split == "valid")
    # What it wrote is read again, and the same run goes on from there.
    loaded = load_run(tmp_path / "run", "latest")
    assert loaded.num_given_frames == trainer.model.num_given_frames
    for a, b in zip(weights(loaded), weights(trainer.model), strict=True):
        np.testing.assert_array_equal(a, b)
    lines.clear()
    assert Trainer(config, tiny_records, tmp_path / "run", lines.append).train()
    assert "finished already, after 3 updates" in lines[-1]


def _pictures(trainer) -> dict[str, np.ndarray]:
    """By tag, the pictures that the one drawing left: [height, width, 3], uint8."""
    events = EventAccumulator(str(trainer.run.events("valid")))
    events.Reload()
    pictures = {}
    for tag in ("samples", "reconstructions"):
        (event,) = events.Tensors(tag)
        width, height, png = tf.make_ndarray(event.tensor_proto)
        pictures[tag] = tf.io.decode_png(png).numpy()
        assert pictures[tag].shape == (int(height), int(width), 3)
    return pictures


def _drawn(tmp_path, records, config) -> Trainer:
    """A new run that has drawn its pictures once."""
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, sample_every=1))
    trainer = Trainer(config, records, tmp_path / "run", report=lambda line: None)
    trainer._pictures.updated(1)
    return trainer


def test_pictures_of_images(tmp_path, tiny_images, tiny_config):
    trainer = _drawn(tmp_path, tiny_images, tiny_config)
    pictures = _pictures(trainer)
    colored = {tag: np.ptp(page.astype(int), axis=-1) > 30 for tag, page in pictures.items()}
    assert not colored["samples"].any()
    # Of reconstructions the lowest row of four, the residuals, is blue to red.
    height = len(colored["reconstructions"])
    assert not colored["reconstructions"][: height * 7 // 10].any()
    assert colored["reconstructions"][height * 3 // 4 : height * 9 // 10].mean() > 0.3
    tags = EventAccumulator(str(trainer.run.events("valid"))).Reload().Tags()["tensors"]
    assert set(tags) == {"samples", "reconstructions"}


def test_pictures_and_sounds_of_audio(tmp_path, tiny_audio, tiny_config):
    trainer = _drawn(tmp_path, tiny_audio, tiny_config)
    _pictures(trainer)
    events = EventAccumulator(str(trainer.run.events("valid"))).Reload()
    kinds = ("samples", "originals", "reconstructions")
    tags = {f"{kind}/{index}" for kind in kinds for index in range(4)}
    assert tags | {"samples", "reconstructions"} == set(events.Tags()["tensors"])
    (batch,) = eval_batches(tiny_audio, split="valid", batch_size=4, limit=4)
    raw = read_card(tiny_audio).normalization.denormalize(batch.x)
    for index, length in enumerate(batch.lengths.numpy()):
        sounds = {}
        for kind in kinds:
            (event,) = events.Tensors(f"{kind}/{index}")
            wav = tf.make_ndarray(event.tensor_proto)[0, 0]
            sounds[kind], rate = (part.numpy() for part in tf.audio.decode_wav(wav))
            assert rate == 210
        assert sounds["samples"].shape == (3 * 210, 1)
        assert sounds["reconstructions"].shape == sounds["originals"].shape == (7 * length, 1)
        original = np.clip(raw[index, :length].reshape(-1, 1), -1, 1)
        np.testing.assert_allclose(sounds["originals"], original, atol=2**-14)


def test_events_after_the_checkpoint_are_taken_back(
    tmp_path, tiny_records, tiny_config_with, short_samples
):
    config = tiny_config_with(run={"sample_every": 6, "evaluate_every": 2})

    with pytest.raises(RuntimeError):
        Trainer(config, tiny_records, tmp_path / "run", dying(7)).train()
    assert Trainer(config, tiny_records, tmp_path / "run", report=lambda line: None).train()
    for part, tag, steps in (
        ("train", "elbo/per_step", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("valid", "elbo/per_step", [2, 4, 6, 8]),
        ("valid", "samples", [6]),
    ):
        # Of one file after the other, as TensorBoard reads them.
        events = plugin_event_accumulator.EventAccumulator(
            str(tmp_path / "run/events" / part), {"tensors": 0}
        ).Reload()
        assert [event.step for event in events.Tensors(tag)] == steps


def test_what_cannot_be_drawn_is_left_out(tmp_path, tiny_audio, tiny_config):
    card = dataclasses.replace(read_card(tiny_audio), modality=Modality("other"))
    records = shutil.copytree(tiny_audio, tmp_path / "records")
    (records / "dataset.json").write_text(card.to_json())
    trainer = _drawn(tmp_path, records, tiny_config)
    assert not EventAccumulator(str(trainer.run.events("valid"))).Reload().Tags()["tensors"]


def test_early_stopping(tmp_path, tiny_records, tiny_config_with, eager):
    config = tiny_config_with(
        training={"learning_rate": 1e-30, "patience": 2, "kl_weight_start": 1.0},
        run={"evaluate_every": 1, "max_steps": 0, "max_epochs": 5},
    )
    lines = []
    trainer = Trainer(config, tiny_records, tmp_path / "run", lines.append)
    assert trainer.last_step == 5 * (23 // 4)
    assert trainer.train()
    # The first evaluation is the best so far, the next two do not improve on it.
    assert trainer.step == 3
    assert trainer.early_stopping.best_step == 1
    assert any("stopping early: 2 evaluations in a row" in line for line in lines)
    # More updates at most are none to a run that was stopped early.
    more = dataclasses.replace(config, run=dataclasses.replace(config.run, max_epochs=50))
    again = Trainer(more, tiny_records, tmp_path / "run", lines.append)
    assert again.train()
    assert (again.last_step, again.step) == (50 * (23 // 4), 3)
    assert "finished already, after 3 updates" in lines[-1]


@pytest.mark.parametrize(
    ("run", "more"),
    [
        pytest.param({"max_steps": 4}, {"max_steps": 8}, id="max_steps"),
        pytest.param(
            {"max_steps": 0, "max_epochs": 1, "checkpoint_every": 2},
            {"max_steps": 8, "max_epochs": 3},
            id="max_epochs",
        ),
        pytest.param(
            {"max_steps": 6, "evaluate_every": 2, "log_every": 5, "checkpoint_every": 3},
            {},
            id="other intervals",
        ),
    ],
)
def test_a_run_that_is_extended_equals_a_longer_one(
    tmp_path, tiny_records, tiny_config_with, whole, run, more, eager
):
    short = Trainer(tiny_config_with(run=run), tiny_records, tmp_path / "run", lambda line: None)
    assert short.train()
    assert short.step < 8
    config = tiny_config_with(run=more)
    lines = []
    extended = Trainer(config, tiny_records, tmp_path / "run", lines.append)
    assert extended.train()
    assert lines[0].startswith(f"continuing after update {short.step}")
    assert extended.step == whole.step == 8
    for a, b in zip(weights(whole.model), weights(extended.model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert extended.early_stopping.evaluated_step == whole.early_stopping.evaluated_step == 8
    assert RunDirectory.open(tmp_path / "run").config == config
    # With fewer again it is what it has become, and has ended.
    again = Trainer(tiny_config_with(run=run), tiny_records, tmp_path / "run", lines.append)
    assert again.train()
    assert "finished already, after 8 updates" in lines[-1]


def test_compiled_from_here_on(tmp_path, tiny_records, tiny_config_with):
    model = {"model": "wavenet"}  # compiled sooner than STCN
    plain = tiny_config_with(model=model, run={"max_steps": 2})
    assert Trainer(plain, tiny_records, tmp_path / "run", lambda line: None).train()
    compiled = tiny_config_with(model=model, run={"max_steps": 3, "jit_compile": True})
    trainer = Trainer(compiled, tiny_records, tmp_path / "run", lambda line: None)
    assert trainer.step == 2
    assert trainer.train()
    assert trainer.step == 3
    assert all(np.isfinite(w).all() for w in weights(trainer.model))


def test_a_checkpoint_of_a_version_that_stored_the_end_is_read(
    tmp_path, tiny_records, tiny_config_with, eager
):
    config = tiny_config_with(run={"max_steps": 2, "evaluate_every": 2})
    trainer = Trainer(config, tiny_records, tmp_path / "run", lambda line: None)
    old = dict(trainer.checkpoints._state, finished=tf.Variable(True, trainable=False))
    assert trainer.train()
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(**old), str(trainer.run.latest), 2)
    manager.save(checkpoint_number=2)
    lines = []
    assert Trainer(config, tiny_records, tmp_path / "run", lines.append).train()
    assert "finished already, after 2 updates" in lines[-1]
    longer = tiny_config_with(run={"max_steps": 3})
    again = Trainer(longer, tiny_records, tmp_path / "run", lines.append)
    assert again.train()
    assert again.step == 3


@pytest.mark.parametrize("objective", ["iwae", "fivo"])
def test_a_tighter_bound_is_trained_and_decides(
    tmp_path, tiny_records, tiny_config_with, objective, eager
):
    config = tiny_config_with(
        model={"output_type": "wavenet"},
        training={
            "objective": objective,
            "num_samples": 3,
            "max_length": 6,
            "evaluate_sequences": 2,
        },
        run={"max_steps": 2, "evaluate_every": 2},
    )
    lines = []
    trainer = Trainer(config, tiny_records, tmp_path / "run", lines.append)
    assert trainer.train()
    (line,) = [line for line in lines if "  validation: " in line]
    name = {"iwae": "importance-weighted bound of 3", "fivo": "FIVO bound of 3"}[objective]
    assert f"validation: {name} (channel-normalised) {trainer.early_stopping.best:.1f}" in line
    evaluator = Evaluator(trainer.model, bound=objective, num_samples=3)
    evaluation = evaluator(eval_batches(tiny_records, split="valid", batch_size=4, limit=2))
    (values,) = [v for v in (evaluation.fivo, evaluation.importance_weighted) if v is not None]
    assert trainer.early_stopping.best == pytest.approx(np.mean(values), rel=1e-5)
    assert trainer.early_stopping.best > np.mean(evaluation.elbo)


@pytest.mark.parametrize("select", ["bound", "objective"])
def test_one_setting_says_which_number_selects(
    tmp_path, tiny_records, tiny_config_with, select, eager
):
    config = tiny_config_with(
        model={"posterior_draws": "independent"}, training={"select": select}, run={"max_steps": 4}
    )
    lines = []
    trainer = Trainer(config, tiny_records, tmp_path / "run", lines.append)
    assert trainer.train()
    (line,) = [line for line in lines if "  validation: " in line]
    assert ("objective (no lower bound)" in line) == (select == "objective")
    evaluation = Evaluator(trainer.model)(eval_batches(tiny_records, split="valid", batch_size=4))
    assert np.mean(evaluation.objective) > np.mean(evaluation.elbo) + 1
    expected = evaluation.elbo if select == "bound" else evaluation.objective
    assert trainer.early_stopping.best == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "objective", "run", "message"),
    [
        (
            {"model": "wavenet", "wavenet_blocks": 2},
            "iwae",
            {},
            "--objective=iwae: wavenet has no latents; accepted: elbo",
        ),
        ({}, "fivo", {}, "--objective=fivo: .* elbo and iwae are accepted"),
        (
            {"output_type": "wavenet"},
            "fivo",
            {"jit_compile": True},
            "--jit_compile: XLA does not differentiate",
        ),
        (
            {"output_type": "wavenet"},
            "fivo",
            {"recompute": 3},
            "--recompute=3: a particle filter takes single steps",
        ),
        (
            {"model": "srnn"},
            "elbo",
            {"recompute": 3},
            "--recompute=3: the posterior of srnn sees the whole sequence, .*; accepted: 0",
        ),
        (
            {"model": "swavenet"},
            "fivo",
            {},
            "--objective=fivo: swavenet is trained with statistics of whole batches; accepted",
        ),
    ],
)
def test_objectives_that_make_no_sense_are_refused(
    tmp_path, tiny_records, tiny_config_with, model, objective, run, message
):
    config = tiny_config_with(
        model=model, training={"objective": objective, "num_samples": 2}, run=run
    )
    with pytest.raises(UserError, match=message):
        Trainer(config, tiny_records, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_refuses_a_run_of_another_configuration(tmp_path, tiny_records, tiny_config_with):
    RunDirectory.prepare(tmp_path / "run", tiny_config_with(), read_card(tiny_records))
    other = tiny_config_with(model={"num_filters": 8}, training={"seed": 5})
    with pytest.raises(UserError, match=r"num_filters: 8, not 6; training\.seed: 5, not 0"):
        Trainer(other, tiny_records, tmp_path / "run")


def test_refuses_a_run_on_other_records(tmp_path, tiny_records, tiny_config):
    card = read_card(tiny_records)
    write_dataset(
        tmp_path / "other",
        name="other",
        features=card.features,
        splits={
            split: [(f"{split}{i}", np.zeros((4, 3), np.float32)) for i in range(4)]
            for split in ("train", "valid")
        },
        normalization=card.normalization,
        source_sha256="1" * 64,
        command="a test",
    )
    RunDirectory.prepare(tmp_path / "run", tiny_config, card)
    with pytest.raises(UserError, match="run on other records"):
        Trainer(tiny_config, tmp_path / "other", tmp_path / "run")


def test_refuses_a_folder_with_something_else(tmp_path, tiny_records, tiny_config):
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(UserError, match="neither empty nor a run directory"):
        Trainer(tiny_config, tiny_records, tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_missing_records_leave_no_run_directory(tmp_path, tiny_config):
    with pytest.raises(UserError, match="nowhere"):
        Trainer(tiny_config, tmp_path / "nowhere", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mirrored_run(tmp_path, tiny_records, tiny_config_with, two_devices):
    """The same global batches and the same noise: the losses of a single device."""
    shown = {}
    for strategy in ("mirrored", "default"):
        run = {"strategy": strategy, "max_steps": 3, "evaluate_every": 3}
        # Devices gather in graphs alone.
        with eagerly(strategy == "default"):
            trainer = Trainer(
                tiny_config_with(run=run), tiny_records, tmp_path / strategy, lambda line: None
            )
            assert trainer.train()
        shown[strategy] = [
            tf.make_ndarray(event.tensor_proto)
            for part in ("train", "valid")
            for tag in ("elbo/per_sequence", "reconstruction/per_step", "kl_per_step/layer_2")
            for event in EventAccumulator(str(trainer.run.events(part))).Reload().Tensors(tag)
        ]
        if strategy == "mirrored":
            # What it wrote is read without a strategy.
            latest = weights(load_run(tmp_path / strategy, "latest"))
            for a, b in zip(latest, weights(trainer.model), strict=True):
                np.testing.assert_array_equal(a, b)
    assert len(shown["default"]) == 3 * (3 + 1)
    np.testing.assert_allclose(shown["mirrored"], shown["default"], rtol=1e-5, atol=1e-5)
    # It goes on on one device.
    single = tiny_config_with(run={"max_steps": 4})
    with eagerly():
        again = Trainer(single, tiny_records, tmp_path / "mirrored", report=lambda line: None)
        assert again.step == 3
        assert again.train()
        assert again.step == 4


def test_recomputing_blocks_trains_the_same_weights(
    tmp_path, tiny_records, tiny_config_with, eager
):
    trained = []
    for every in (0, 3):
        config = tiny_config_with(run={"max_steps": 3, "recompute": every})
        trainer = Trainer(config, tiny_records, tmp_path / str(every), report=lambda line: None)
        assert trainer.train()
        trained.append([v.numpy() for v in trainer.model.trainable_variables])
    for one, other in zip(*trained, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_run_keeps_the_precision_that_it_began_with(
    tmp_path, tiny_records, tiny_config_with, monkeypatch
):
    config = tiny_config_with(training={"precision": "auto"}, run={"max_steps": 1})
    monkeypatch.setattr(devices, "precision_of", lambda precision: "mixed_bfloat16")
    monkeypatch.setattr(
        devices, "product_rate", lambda dtype, compiled: 1.0 if dtype == "bfloat16" else 3.0
    )
    lines = []
    trainer = Trainer(config, tiny_records, tmp_path / "run", lines.append)
    assert lines == [
        "--precision=mixed_bfloat16: products of matrices are 3.0 times slower than in float32 on "
        "this processor"
    ]
    assert trainer.run.config.training.precision == "mixed_bfloat16"
    monkeypatch.setattr(devices, "precision_of", lambda precision: "float32")
    again = Trainer(config, tiny_records, tmp_path / "run", lines.append)
    assert again.run.config.training.precision == "mixed_bfloat16"
