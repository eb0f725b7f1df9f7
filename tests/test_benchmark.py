import json

import numpy as np
import pytest

from stcn_tf import benchmark, flags
from stcn_tf.benchmarks.measure import check_same, compared
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


def test_every_case_is_timed_and_written(parse_flags, tiny_records, tmp_path, capsys):
    out = tmp_path / "speeds.json"
    small = ("--batch_size=4", "--length=6", "--num_draws=2", "--rounds=1")
    what = "--what=generate,train,evaluate,scaling"
    parse_flags(
        flags.define_benchmark, *TINY, *small, what, f"--data={tiny_records}", f"--out={out}"
    )
    benchmark.main()
    content = json.loads(out.read_text())
    assert len(content["tables"]) == 6
    rows = [row for rows in content["tables"].values() for row in rows.values()]
    assert all(row["seconds"] > 0 for row in rows)
    assert content["machine"]["tensorflow"] and content["peak_memory_mib"] > 0
    assert out.with_suffix(".png").stat().st_size > 1000
    printed = capsys.readouterr().out
    for title in content["tables"]:
        assert title in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=wavenet"], "--model=wavenet: accepted: stcn, stcn_dense"),
        (["--output_type=wavenet"], "--model=stcn_dense: accepted: stcn, stcn_dense"),
        (["--posterior_draws=independent"], "accepted: shared draws, no floors"),
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
