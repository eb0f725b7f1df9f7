import contextlib
import json
import os
import re

import numpy as np
import pytest

from stcn_tf import benchmark, flags
from stcn_tf.benchmarks import processes
from stcn_tf.benchmarks.measure import check_same, compared
from stcn_tf.benchmarks.sizes import Sizes
from stcn_tf.benchmarks.worker import Worker
from stcn_tf.models.settings import STCNSettings
from stcn_tf.support import environment
from stcn_tf.support.environment import ONEDNN, THREADS
from stcn_tf.support.errors import UserError

TINY = (
    "--num_filters=4",
    "--output_filters=3",
    "--blocks_per_layer=2",
    "--latent_sizes=3,2",
    "--latent_hidden_layers=1",
    "--output_layers=1",
    "--num_components=2",
)


def test_what_is_timed_is_written(parse_flags, tiny_records, tmp_path, capsys, eager):
    out = tmp_path / "speeds.json"
    small = ("--batch_size=4", "--length=6", "--num_draws=2", "--rounds=1")
    what = "--what=train,evaluate"
    parse_flags(
        flags.define_benchmark, *TINY, *small, what, f"--data={tiny_records}", f"--out={out}"
    )
    benchmark.main()
    content = json.loads(out.read_text())
    assert len(content["tables"]) == 4
    rows = [row for rows in content["tables"].values() for row in rows.values()]
    assert all(row["seconds"] > 0 for row in rows)
    assert content["machine"]["tensorflow"] and content["peak_memory_mib"] > 0
    assert out.with_suffix(".png").stat().st_size > 1000
    printed = capsys.readouterr().out
    for title in content["tables"]:
        assert title in printed


@pytest.mark.slow
@pytest.mark.parametrize("what", ["generate", "train", "evaluate"])
def test_it_is_timed_as_users_run_it(parse_flags, capsys, what):
    small = ("--batch_size=4", "--length=6", "--num_draws=2", "--rounds=1", f"--what={what}")
    parse_flags(flags.define_benchmark, *TINY, *small)
    benchmark.main()
    printed = capsys.readouterr().out
    tables = 2 if what == "generate" else 1
    assert len(re.findall(r"^ *transcription", printed, re.MULTILINE)) == tables
    assert len(re.findall(r"^ *mixed_bfloat16", printed, re.MULTILINE)) == tables


@pytest.mark.slow
def test_what_is_timed_in_processes(parse_flags, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = ("--batch_size=4", "--length=6", "--num_draws=2", "--rounds=1")
    out = tmp_path / "speeds.json"
    parse_flags(flags.define_benchmark, *TINY, *small, "--what=scaling,environment", f"--out={out}")
    benchmark.main()
    tables = json.loads(out.read_text())["tables"]
    assert [len(rows) for rows in tables.values()] == [9, 4, 6, 6]
    assert all(row["peak_memory_mib"] > 100 for row in tables["scaling, an update"].values())
    assert (tmp_path / "stcn_tf/environment.json").is_file()
    printed = capfd.readouterr()
    assert "for all commands on this processor: " in printed.out
    assert "oneDNN custom operations" not in printed.err


def test_a_worker_has_its_own_environment_and_memory(monkeypatch):
    kept = bytearray(os.urandom(2**20) * 1024)  # nothing to the process of the worker
    settings = STCNSettings("stcn", num_filters=4, blocks_per_layer=1, latent_sizes=(2,))
    monkeypatch.setenv(ONEDNN, "1")
    with Worker(["evaluation"], (settings, Sizes(2, 3)), {ONEDNN: "0"}) as worker:
        worker("evaluation")
        assert 100 < worker.peak_memory() < len(kept) >> 20
        assert worker.operations("evaluation") == 0
        with pytest.raises(KeyError, match="something else"):
            worker("something else")
    assert os.environ[ONEDNN] == "1"


@pytest.mark.parametrize(
    ("times_faster", "expected"),
    [
        (
            {"oneDNN off": 1.2, "oneDNN on": 1.3, "one thread an operation": 0.5},
            {"TF_ENABLE_ONEDNN_OPTS": "1"},
        ),
        (
            {"oneDNN off, one thread": processes.WORTH + 0.01},
            {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_NUM_INTRAOP_THREADS": "1"},
        ),
        ({"oneDNN off": processes.WORTH - 0.01}, {}),
    ],
)
def test_the_fastest_environment_is_chosen_where_it_is_worth_it(
    tmp_path, monkeypatch, capsys, times_faster, expected
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    started = []

    def worker(names, arguments, variables):
        started.append(variables)
        return contextlib.nullcontext(lambda name: None)

    def interleaved(runs, rounds):
        return {name: [1.0 / times_faster.get(name, 1.0)] * rounds for name in runs}

    monkeypatch.setattr(processes, "Worker", worker)
    monkeypatch.setattr(processes, "interleaved", interleaved)
    environment.choose({THREADS: "7"})
    tables = processes.environment(STCNSettings("stcn"), Sizes())
    assert environment.chosen() == expected
    assert ("as TensorFlow chooses" in capsys.readouterr().out) == (not expected)
    # Nothing of the environment of this process is in those that are compared.
    assert all(set(variables) == set(environment.NAMES) for variables in started)
    assert started[0] == dict.fromkeys(environment.NAMES)
    for rows in tables.values():
        assert list(rows) == ["as TensorFlow chooses", *processes.ENVIRONMENTS]
        for name, row in rows.items():
            assert row["times_faster"] == pytest.approx(times_faster.get(name, 1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=wavenet"], "--model=wavenet: accepted: stcn, stcn_dense"),
        (["--output_type=wavenet"], "--model=stcn_dense: accepted: stcn, stcn_dense"),
        (["--posterior_draws=independent"], "--posterior_draws: accepted .*: shared"),
        (["--latent_prior=static"], "--latent_prior: accepted with a transcription: dynamic"),
        (["--observation=ordered_gmm"], "--observation=ordered_gmm: accepted: normal, gmm"),
    ],
)
def test_what_has_no_transcription_is_refused(parse_flags, arguments, message):
    parse_flags(flags.define_benchmark, *arguments)
    with pytest.raises(UserError, match=message):
        benchmark.main()


def test_ratios_are_of_pairs():
    rows = compared({"fast": [1.0, 2.0, 4.0], "slow": [3.0, 8.0, 8.0]}, "slow")
    assert rows["fast"] == {"seconds": 2.0, "times_faster": 3.0, "least": 2.0, "most": 4.0}
    assert rows["slow"] == {"seconds": 8.0, "times_faster": 1.0, "least": 1.0, "most": 1.0}


def test_what_does_not_agree_is_not_timed():
    check_same("it", [1.0, 2.0], [1.0, 2.0001], 1e-3)
    for wrong in ([1.0, 2.1], [1.0, np.nan]):
        with pytest.raises(UserError, match="it: the results differ by .*; not timed"):
            check_same("it", wrong, [1.0, 2.0], 1e-3)
