"""Several workers, each a process of its own, over loopback."""

import dataclasses
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stcn_tf import distribution
from stcn_tf.distribution import Distribution
from stcn_tf.flags import flag_lines
from stcn_tf.runs import RunDirectory
from stcn_tf.support.errors import UserError
from stcn_tf.training.trainer import Trainer
from tests.conftest import eagerly

# What TensorFlow writes of itself: a worker may still ask the chief whether it lives when that has
# ended, and the lines of that fault have no prefix.
_TENSORFLOW = re.compile(r"[A-Z]\d{4} |Additional GRPC error information|:UNKNOWN:")
_TAGS = ("elbo/per_sequence", "reconstruction/per_step", "kl_per_step/layer_2")


class Cluster:
    """Two workers that train the same run."""

    def __init__(self, folder: Path, records: str, config, **changes):
        run = dataclasses.replace(config.run, strategy="multi_worker", **changes)
        flagfile = folder / "run.flags"
        lines = [*flag_lines(dataclasses.replace(config, run=run)), f"--data={records}"]
        flagfile.write_text("\n".join(lines) + f"\n--run_dir={folder / 'run'}\n")
        sockets = [socket.socket() for _ in range(2)]
        for one in sockets:
            one.bind(("localhost", 0))
        workers = [f"localhost:{one.getsockname()[1]}" for one in sockets]
        for one in sockets:
            one.close()
        self.lines = [queue.Queue(), queue.Queue()]
        self.processes = []
        for index in range(2):
            task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            process = subprocess.Popen(
                [sys.executable, "-m", "stcn_tf.train", f"--flagfile={flagfile}"],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.processes.append(process)
            threading.Thread(
                target=lambda out, lines: [lines.put(line) for line in out] + [lines.put("")],
                args=(process.stdout, self.lines[index]),
                daemon=True,
            ).start()

    def until(self, beginning: str) -> None:
        """Waits for a line of the chief."""
        while not (line := self.lines[0].get(timeout=300)).startswith(beginning):
            assert line, "the chief has ended"

    def ended(self) -> list[tuple[int, list[str]]]:
        """Waits for both: their exit codes and the lines that were left."""
        ended = []
        for process, lines in zip(self.processes, self.lines, strict=True):
            code = process.wait(timeout=300)
            ended.append((code, list(iter(lambda lines=lines: lines.get(timeout=60), ""))))
            process.stdout.close()
        return ended


def _shown(run_dir: Path) -> np.ndarray:
    run = RunDirectory.open(run_dir)
    return np.array(
        [
            tf.make_ndarray(event.tensor_proto)
            for part in ("train", "valid")
            for tag in _TAGS
            for event in EventAccumulator(str(run.events(part))).Reload().Tensors(tag)
        ]
    )


def test_two_workers_train_as_one_does(tmp_path, tiny_records, tiny_config, trained_run):
    cluster = Cluster(tmp_path, tiny_records, tiny_config)
    (chief, lines), (other, others) = cluster.ended()
    assert (chief, other) == (0, 0), "".join(lines + others)
    assert "at most 8 updates on 2 devices of 2 workers;" in "".join(lines)
    said = [line for line in others if not _TENSORFLOW.match(line)]
    assert said == ["worker 1 of 2 (0 is the chief, and tells and writes for all)\n"]
    shown, expected = _shown(tmp_path / "run"), _shown(trained_run)
    assert shown.shape == expected.shape == (3 * (8 + 2),)
    np.testing.assert_allclose(shown, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_killed_worker_is_named_and_all_go_on_from_the_checkpoint(
    tmp_path, tiny_records, tiny_config
):
    cluster = Cluster(tmp_path, tiny_records, tiny_config, checkpoint_every=3, max_steps=5000)
    cluster.until("update       4/")
    cluster.processes[1].kill()
    (chief, lines), (other, _) = cluster.ended()
    assert (chief, other) == (2, -signal.SIGKILL)
    assert re.match(r"error: worker 0 has lost worker 1 \(localhost:\d+\) \(", lines[-1])
    assert lines[-1].endswith("start all workers again, to go on from the last checkpoint\n")
    saved = RunDirectory.open(tmp_path / "run").load("latest").update
    assert saved >= 3 and saved % 3 == 0
    # One of them is asked to stop: both do, after the same update, with a checkpoint.
    cluster = Cluster(tmp_path, tiny_records, tiny_config, checkpoint_every=1000, max_steps=5000)
    cluster.until("continuing after update")
    cluster.until("update ")
    cluster.processes[1].send_signal(signal.SIGTERM)
    (chief, lines), (other, _) = cluster.ended()
    assert (chief, other) == (130, 130)
    stopped = int(re.match(r"stopped after ([\d,]+) updates", lines[-1])[1].replace(",", ""))
    assert RunDirectory.open(tmp_path / "run").load("latest").update == stopped > saved
    # One device goes on where two have stopped.
    with eagerly():
        config = dataclasses.replace(
            tiny_config, run=dataclasses.replace(tiny_config.run, max_steps=stopped + 1)
        )
        trainer = Trainer(config, tiny_records, tmp_path / "run", report=lambda line: None)
        assert trainer.step == stopped and trainer.train()


@pytest.mark.slow
def test_a_killed_chief_is_named(tmp_path, tiny_records, tiny_config):
    cluster = Cluster(tmp_path, tiny_records, tiny_config, max_steps=5000)
    cluster.until("update       4/")
    cluster.processes[0].kill()
    _, (other, lines) = cluster.ended()
    assert other == 2
    assert re.match(r"error: worker 1 has lost worker 0 \(localhost:\d+\) \(Coll", lines[-1])


def test_who_is_lost_is_named_by_job_and_number(monkeypatch):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    task = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    _, workers, mine = distribution._resolved()
    assert (list(workers.values()), mine) == (["a:1", "b:1", "c:1"], 1)
    message = "Error reported from /job:worker/task:0: lost: /job:{}/replica:0/task:{}"
    for job, number, told in (("chief", 0, "0 (a:1)"), ("worker", 1, "2 (c:1)")):
        error = tf.errors.UnavailableError(None, None, message.format(job, number))
        assert f"worker 1 has lost worker {told} (" in distribution._told(error, workers, mine)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "TF_CONFIG is not set"),
        ("worker", "no workers with this one among them"),
        ("[]", "no workers with this one among them"),
        ('{"cluster": {"worker": ["a:1"]}}', "no workers"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "no workers"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "no workers"),
        ('{"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}', "no workers"),
    ],
)
def test_who_the_workers_are_must_be_said(monkeypatch, text, told):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=f"{told}.*accepted: as in .*cluster"):
        Distribution("multi_worker")


def test_slurm_says_it_too(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in {
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "n[1-2]",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_PROCID": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }.items():
        monkeypatch.setenv(name, value)
    _, workers, mine = distribution._resolved()
    assert list(workers.values()) == ["n1:8888", "n2:8888"]
    assert mine == 1
    monkeypatch.delenv("SLURM_STEP_NODELIST")
    with pytest.raises(UserError, match="SLURM does not say who .*; accepted: srun with one task"):
        distribution._resolved()


def test_rows_of_an_evaluation_are_those_of_one_device(two_devices):
    """Also where a batch does not divide by the devices."""
    batch = tf.constant(np.arange(5 * 3 * 2, dtype=np.float32).reshape(5, 3, 2))

    class Rows:
        x, lengths = batch, tf.constant([3, 3, 2, 1, 3])

        def _replace(self, x, lengths):
            self.x, self.lengths = x, lengths
            return self

    def compute(share, offset):
        rows = {"sum": tf.reduce_sum(share.x, axis=(1, 2)) + offset, "row": share.rows}
        return rows, (tf.reduce_sum(share.lengths),)

    rows, (total,) = two_devices.over_rows(compute)(Rows(), tf.constant(1.0))
    np.testing.assert_array_equal(rows["sum"], batch.numpy().sum(axis=(1, 2)) + 1.0)
    np.testing.assert_array_equal(rows["row"], range(5))
    assert int(total) == 12
