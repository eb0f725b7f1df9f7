"""How many updates rows make in their time, and what follows from it."""

import json
import types

import pytest

from stcn_tf.reproduction.plan import REHEARSED, Plan, Schedule, locked
from stcn_tf.run_status import RunStatus
from stcn_tf.support.errors import UserError
from tests.runs_by_hand import card_of

CARD = card_of()


def status(clock: float, processor: float) -> RunStatus:
    return RunStatus(
        "finished",
        num_parameters=1234,
        seconds_per_update=clock,
        processor_seconds_per_update=processor,
    )


def rows(*names):
    return [types.SimpleNamespace(name=name, model=name.partition("_")[0]) for name in names]


@pytest.mark.parametrize(("uses_clock", "updates"), [(False, 675), (True, 1350)])
def test_updates_fill_the_time_to_three_digits(tmp_path, uses_clock, updates):
    plan = Plan.open(tmp_path, CARD, 45, uses_clock)
    plan.add("rnn", status(2.0, 4.0))
    assert plan.schedules["rnn"] == Schedule(1234, 2.0 if uses_clock else 4.0, updates)
    plan.add("fast", status(0.0021, 0.0042))
    assert plan.schedules["fast"].updates == (1_280_000 if uses_clock else 642_000)


def test_a_row_makes_some_updates_in_any_time(tmp_path):
    plan = Plan.open(tmp_path, CARD, 1e-3, False)
    plan.add("rnn", status(9.0, 9.0))
    assert plan.schedules["rnn"].updates == 20


@pytest.mark.parametrize("updates", [20, 675, 12_300])
def test_rate_and_weight_come_to_their_ends(updates):
    pairs = dict(flag.removeprefix("--").split("=") for flag in Schedule(1, 0.5, updates).flags)
    assert int(pairs["max_steps"]) == updates
    last = float(pairs["learning_rate_decay"]) ** (updates / 1000)
    assert last == pytest.approx(0.1, rel=0.01)
    assert float(pairs["kl_weight_increment"]) * updates == pytest.approx(3, rel=0.01)
    every = int(pairs["evaluate_every"])
    assert 12 <= updates / every < 25
    assert int(pairs["checkpoint_every"]) <= every


def test_it_is_kept(tmp_path):
    first = Plan.open(tmp_path, CARD, 45, False)
    first.add("rnn", status(2.0, 4.0))
    first.add("vrnn", status(3.0, 6.0))
    assert Plan.open(tmp_path, CARD, 45, False).schedules == first.schedules


@pytest.mark.parametrize(
    ("card", "minutes", "uses_clock", "said"),
    [
        (card_of(source="cd" * 32), 45, False, r"records are others .source_.* abab.*, not cdcd.*"),
        (CARD, 44.5, False, r"minutes is 45, not 44\.5"),
        (CARD, 45, True, "time is processor, not clock"),
    ],
)
def test_another_one_is_refused(tmp_path, card, minutes, uses_clock, said):
    Plan.open(tmp_path, CARD, 45, False).add("rnn", status(2.0, 4.0))
    with pytest.raises(UserError, match=f"plan.json: its {said}; accepted: the same, or another"):
        Plan.open(tmp_path, card, minutes, uses_clock)


BAD_ROWS = [
    dict(zip(("num_parameters", "seconds_per_update", "updates"), row, strict=True))
    for row in ((9, 0.5, "20"), (9, None, 20), (9, 0, 20), (9, 0.5, True), (9, 0.5, 2.5))
]


@pytest.mark.parametrize(
    "content",
    [
        *([], {}, {"rows": []}, {"rows": {"rnn": {"updates": 3}}}, None),
        *(
            {"source_sha256": "ab" * 32, "minutes": 45, "time": "processor", "rows": {"rnn": row}}
            for row in BAD_ROWS
        ),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path, content):
    (tmp_path / "plan.json").write_text("{" if content is None else json.dumps(content))
    with pytest.raises(UserError, match="plan.json: (no plan|not JSON)"):
        Plan.open(tmp_path, CARD, 45, False)


def test_what_it_says(tmp_path):
    plan = Plan.open(tmp_path, CARD, 45, False)
    plan.add("rnn", status(2.0, 4.0))
    said = plan.announcement(rows("rnn", "vrnn", "stcn"), 2, "valid")
    assert said == (
        "3 rows, 2 at once, 45 min of processor time each: at least 1 h 30 min, and then each is "
        f"evaluated on split valid; first 2 make {REHEARSED} updates, to know how many that is"
    )
    plan.add("vrnn", status(2.0, 2.5))
    head, rnn, vrnn, total = plan.text(rows("rnn", "vrnn"), 2).splitlines()
    assert head.split() == "row parameters updates a second updates training".split()
    assert rnn.split() == "rnn 1,234 0.25 675 45 min 00 s".split()
    assert vrnn.split() == "vrnn 1,234 0.40 1,080 45 min 00 s".split()
    assert total == "training: 45 min 00 s, 2 at once"


def test_another_seed_has_the_same_schedule(tmp_path):
    plan = Plan.open(tmp_path, CARD, 45, False)
    chosen = rows("rnn_seed1", "vrnn_seed1", "rnn", "rnn_seed2")
    assert [row.name for row in plan.missing(chosen)] == ["rnn_seed1", "vrnn_seed1"]
    plan.add("rnn", status(2.0, 4.0))
    assert [row.name for row in plan.missing(chosen)] == ["vrnn_seed1"]
    _, one, other, _ = plan.text(rows("rnn", "rnn_seed2"), 2).splitlines()
    assert one.split()[1:] == other.split()[1:]


def test_one_at_a_time(tmp_path):
    with locked(tmp_path / "new"):
        with pytest.raises(UserError, match="new: in use by"):
            with locked(tmp_path / "new"):
                pass
    with locked(tmp_path / "new"):
        pass
