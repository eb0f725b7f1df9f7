"""What status.json says, and when it is written."""

import pytest

from stcn_tf import run_status
from stcn_tf.config import TrainingSettings
from stcn_tf.run_status import RunStatus
from stcn_tf.support import files
from stcn_tf.support.errors import UserError
from stcn_tf.training import status
from stcn_tf.training.early_stopping import EarlyStopping
from stcn_tf.training.hooks import Updates
from stcn_tf.training.trainer import Trainer


@pytest.fixture
def early_stopping() -> EarlyStopping:
    return EarlyStopping(TrainingSettings(patience=1, kl_weight_increment=1), has_latents=True)


@pytest.fixture
def hook(tmp_path, early_stopping):
    return status.Status(tmp_path, lambda line: None, early_stopping, 1234, "ELBO (raw)")


def _updates(last: int, seconds: float = 1.0) -> Updates:
    return Updates(last, 4, {}, seconds, 0.0, 3.0 * seconds)


def test_from_the_beginning_to_the_end(hook, early_stopping, tmp_path, monkeypatch):
    monkeypatch.setattr(status, "_SECONDS", 0.0)
    hook.tell("starting")
    hook.started(0, 90)
    begun = RunStatus.read(tmp_path)
    assert begun.written
    assert begun == RunStatus(
        "training",
        *(0, 90, None, 0, "ELBO (raw)", 1234, "starting"),
        begun.written,
        begun.processor_hours,
    )
    hook.tell("update 10")
    hook.reported(_updates(10))
    read = RunStatus.read(tmp_path)
    assert (read.update, read.line, read.best) == (10, "update 10", None)
    assert (begun.processor_seconds_per_update, read.processor_seconds_per_update) == (None, 0.75)
    hook.evaluated(20, None, early_stopping.judge(20, -3.5))
    read = RunStatus.read(tmp_path)
    assert (read.update, read.best, read.best_update) == (20, -3.5, 20)
    hook.ended(25, finished=False)
    assert RunStatus.read(tmp_path).state == run_status.STOPPED
    hook.ended(90, finished=True)
    assert RunStatus.read(tmp_path).state == run_status.FINISHED
    hook.evaluated(30, None, early_stopping.judge(30, -4.0))
    hook.ended(30, finished=True)
    read = RunStatus.read(tmp_path)
    assert (read.state, read.best, read.update) == (run_status.EARLY, -3.5, 30)
    hook.failed(UserError("training diverged"))
    read = RunStatus.read(tmp_path)
    assert (read.state, read.line, read.update) == (run_status.FAILED, "training diverged", 30)


def test_seconds_per_update_are_those_of_the_fastest_line(hook, tmp_path, monkeypatch):
    monkeypatch.setattr(status, "_SECONDS", 0.0)
    hook.started(0, 90)
    for last, seconds in ((4, 8.0), (8, 2.0), (12, 5.0)):
        hook.reported(_updates(last, seconds))
    read = RunStatus.read(tmp_path)
    assert (read.seconds_per_update, read.processor_seconds_per_update) == (0.5, 1.5)


def test_processor_hours_are_those_of_all_trainers(hook, early_stopping, tmp_path, monkeypatch):
    def hours(seconds: float, made: status.Status) -> float | None:
        monkeypatch.setattr(status.time, "process_time", lambda: seconds)
        made.ended(5, finished=False)
        return RunStatus.read(tmp_path).processor_hours

    def another(seconds: float) -> status.Status:
        monkeypatch.setattr(status.time, "process_time", lambda: seconds)
        return status.Status(tmp_path, lambda line: None, early_stopping, 1234, "ELBO (raw)")

    first = another(1000.0)
    first.started(0, 90)
    assert RunStatus.read(tmp_path).processor_hours == 0
    assert hours(4600.0, first) == 1.0
    first.started(5, 90)  # again, by the same
    assert hours(8200.0, first) == 2.0
    second = another(50.0)
    second.started(5, 90)
    assert RunStatus.read(tmp_path).processor_hours == 2.0
    assert hours(1850.0, second) == 2.5
    # Of a run that is older than they are noted, or whose status is lost, they are not known.
    RunStatus("stopped", 5).write(tmp_path)
    third = another(0.0)
    third.started(5, 90)
    assert hours(3600.0, third) is None
    (tmp_path / "status.json").write_text("{")
    third = another(0.0)
    third.started(5, 90)
    assert hours(3600.0, third) is None


def test_reports_in_quick_succession_are_not_all_written(hook, tmp_path):
    hook.started(0, 90)
    for update in range(1, 50):
        hook.reported(_updates(update))
    assert RunStatus.read(tmp_path).update == 0


def test_a_status_that_cannot_be_written_ends_no_run(hook, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    hook.started(0, 90)
    monkeypatch.setattr(files, "_fsync", full)
    hook.ended(90, finished=True)
    assert RunStatus.read(tmp_path).state == run_status.TRAINING
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "accepted: an object"),
        ("{}", "state"),
        ('{"state": "dancing"}', "state: 'dancing'; accepted: training, stopped"),
        ('{"state": "finished", "update": "4"}', "update: '4' of type str; accepted: int"),
        ('{"state": "finished", "best": NaN}', "NaN is no number"),
    ],
)
def test_a_damaged_status_is_told(tmp_path, text, message):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        RunStatus.read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/status.json: ")


def test_what_a_later_version_adds_is_left_out(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "finished", "mood": "good"}')
    assert RunStatus.read(tmp_path) == RunStatus("finished")


def test_a_trainer_keeps_it(tmp_path, tiny_records, tiny_config_with, eager):
    def make(report):
        config = tiny_config_with(run={"max_steps": 2, "evaluate_every": 1})
        return Trainer(config, tiny_records, tmp_path / "run", report)

    def fail(line):
        if line.startswith("update       1/"):
            raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError):
        make(fail).train()
    read = RunStatus.read(tmp_path / "run")
    assert (read.state, read.line) == (run_status.FAILED, "the power is gone")
    lines = []
    trainer = make(lines.append)
    assert trainer.train()
    read = RunStatus.read(tmp_path / "run")
    assert (read.state, read.update, read.last_update) == (run_status.FINISHED, 2, 2)
    assert read.best == trainer.early_stopping.best
    assert read.best_update == trainer.early_stopping.best_step
    assert read.num_parameters == trainer.model.count_params()
    assert read.line == lines[-1]
    assert f"best validation {read.best_of} {read.best:.1f} nats/sequence" in read.line
    # A run that ended before there was a status gets one when there is nothing to do.
    (tmp_path / "run/status.json").unlink()
    assert make(lines.append).train()
    read = RunStatus.read(tmp_path / "run")
    assert (read.state, read.update) == (run_status.FINISHED, 2)
    assert "finished already" in read.line
