"""Which rows there are, and what is done of each."""

import dataclasses

import numpy as np
import pytest

from stcn_tf.data.card import Modality, Split
from stcn_tf.reproduction import rows
from stcn_tf.reproduction.plan import Plan
from stcn_tf.reproduction.rows import Questions
from stcn_tf.run_status import RunStatus
from stcn_tf.support.errors import UserError
from tests.runs_by_hand import card_of, evaluate, make_run

CARD = card_of(sizes=(30, 3000))


def values(num: int) -> np.ndarray:
    return np.linspace(-50.0, 900.0, num)


def kls(num: int) -> np.ndarray:
    return np.full([num, 5], 2.5)


def names(*args) -> list[str]:
    return [row.name for row in rows.find(*args)]


@pytest.mark.parametrize(
    ("dataset", "some"),
    [
        ("iamondb", {"wavenet_dense", "stcn_dense_iwae", "rnn_ordered", "swavenet"}),
        ("fsdd", {"stcn_dense_independent", "rnn_hierarchical", "z_forcing"}),
        ("mnist", {"wavenet", "stcn", "vrnn"}),
    ],
)
def test_those_of_the_kind_of_the_records(dataset, some, tmp_path):
    found = rows.find(None, card_of(dataset), [], tmp_path, [0])
    assert some <= {row.name for row in found}
    for row in found:
        assert row.flagfile == row.flagfile.resolve() and row.flagfile.is_file()
        assert row.run_dir == tmp_path / "runs" / row.name


def test_the_chosen_in_their_order_for_each_seed(tmp_path):
    chosen = None, CARD, ["vrnn", "rnn"], tmp_path
    assert names(None, CARD, ["rnn", "rnn"], tmp_path, [1, 1]) == ["rnn_seed1"]
    assert names(*chosen, [0, 3]) == ["vrnn", "rnn", "vrnn_seed3", "rnn_seed3"]
    assert [row.seed for row in rows.find(*chosen, [0, 3])] == [0, 0, 3, 3]


def test_flagfiles_of_ones_own(tmp_path):
    for name in ("b.flags", "a.flags", "notes.txt"):
        (tmp_path / name).write_text("")
    assert names(tmp_path, CARD, [], tmp_path, [0]) == ["a", "b"]


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="--rows=lstm: accepted: rnn, rnn_ordered, srnn, stcn,"):
        names(None, CARD, ["rnn", "lstm"], tmp_path, [0])
    with pytest.raises(UserError, match="accepted: a folder of flagfiles, ROW.flags"):
        names(tmp_path, CARD, [], tmp_path, [0])
    other = dataclasses.replace(CARD, modality=Modality("other"))
    with pytest.raises(UserError, match="of the kind 'other'; accepted: a folder of your own"):
        names(None, other, [], tmp_path, [0])


@pytest.mark.parametrize(
    ("card", "split"),
    [
        (CARD, "valid"),
        (card_of("mnist"), "test"),
        (card_of("fsdd"), "valid"),
        (card_of("fsdd", split="test"), "test"),
    ],
)
def test_the_split(card, split):
    assert rows.split_of(card) == split


def test_of_two_splits_that_of_the_paper():
    splits = CARD.splits | {"test": Split(1, 2, {}, ())}
    assert rows.split_of(dataclasses.replace(CARD, splits=splits)) == "valid"
    splits = dataclasses.replace(card_of("fsdd"), splits=splits)
    assert rows.split_of(splits) == "test"


class Reproduction:
    """A row, what has been done of it by hand, and what is left."""

    def __init__(self, folder, name="stcn_dense", observation="gmm"):
        (self.row,) = rows.find(None, CARD, [name], folder, [7])
        self.plan = Plan.open(folder, CARD, 1, False)
        self.plan.add(
            self.row.model,
            RunStatus("finished", processor_seconds_per_update=0.5, num_parameters=9),
        )

    def begin(self, state, model, update=90):
        run = make_run(self.row.run_dir, CARD, model)
        status = dataclasses.replace(RunStatus.read(run), state=state, update=update)
        status.write(run)
        return run

    def left(self, **changes):
        asked = Questions(**{"split": "valid", "num_samples": 8, "limit": 20, "num": 2} | changes)
        return self.row.reproduction("records", self.plan, asked)


def test_a_rehearsal_plans(tmp_path):
    it = Reproduction(tmp_path)
    it.plan.schedules.clear()
    job = it.row.rehearsal("records", it.plan)
    command = next(job)
    run_dir = tmp_path / "rehearsals" / "stcn_dense_seed7"
    assert command.module == "stcn_tf.train"
    wanted = {f"--run_dir={run_dir}", "--data=records", "--seed=7", "--max_steps=50", "--restart"}
    assert wanted <= set(command.arguments)
    assert f"--flagfile={it.row.flagfile}" in command.arguments
    run_dir.mkdir(parents=True)
    status = RunStatus("finished", processor_seconds_per_update=0.25, num_parameters=9)
    status.write(run_dir)
    assert next(job, None) is None
    assert it.plan.schedules["stcn_dense"].updates == 240
    assert not run_dir.exists()


def test_all_that_is_asked_in_its_order(tmp_path):
    it = Reproduction(tmp_path)
    job = it.left()
    training = next(job)
    assert training.about == "training, 120 updates"
    assert set(it.plan.schedules[it.row.model].flags) < set(training.arguments)
    run = it.begin("stopped early", "stcn_dense")
    elbo = next(job)
    assert (elbo.module, elbo.about) == ("stcn_tf.evaluate", "evaluation on valid")
    assert elbo.arguments == [f"--run_dir={run}", "--data=records", "--split=valid"]
    evaluate(run, values(num=30), kl=kls(30))
    tight = next(job)
    asked = {"--bound=iwae", "--num_samples=8", "--limit=20", "--split=valid"}
    assert asked < set(tight.arguments)
    samples = next(job)
    assert samples.module == "stcn_tf.sample"
    out = tmp_path / "samples" / it.row.name
    assert samples.arguments == [f"--run_dir={run}", f"--out={out}", "--num=2"]
    assert next(job, None) is None
    assert {each.log for each in (training, elbo, tight, samples)} == {
        tmp_path / "logs" / "stcn_dense_seed7.log"
    }


def test_exact_likelihoods_have_no_tighter_bound(tmp_path):
    it = Reproduction(tmp_path, "rnn")
    evaluate(it.begin("finished", "rnn"), values(num=30))
    assert [command.about for command in it.left()] == ["samples"]
    assert list(it.left(num=0)) == []


def test_what_is_done_is_not_done_again(tmp_path):
    it = Reproduction(tmp_path)
    run = it.begin("stopped", "stcn_dense", update=90)
    assert next(it.left()).about == "training, from 90 to 120 updates"
    it.begin("finished", "stcn_dense")
    # Of other weights, of what is given, in pieces, with other draws than it was trained with:
    for about in (
        *({"update": 700}, {"checkpoint": "last"}, {"given_frames": 1}, {"piece": 40}),
        *({"trained_with": {"posterior_draws": "shared"}}, {"card": card_of(source="cd" * 32)}),
    ):
        evaluate(run, values(num=30), **{"kl": kls(30), "card": CARD} | about)
        assert next(it.left()).about == "evaluation on valid", about
    # Of some sequences only, or of fewer draws, is another question.
    evaluate(run, values(num=20), kl=kls(20))
    assert next(it.left()).about == "evaluation on valid"
    evaluate(run, values(num=30), kl=kls(30))
    evaluate(run, values(num=20), kl=kls(20), tight=values(num=20), num_samples=4)
    assert next(it.left()).about == "importance-weighted bound of 8 draws"
    evaluate(run, values(num=20), kl=kls(20), tight=values(num=20), num_samples=8)
    samples = tmp_path / "samples" / it.row.name / "samples.h5"
    assert [command.about for command in it.left()] == ["samples"]
    samples.parent.mkdir(parents=True)
    samples.touch()
    assert list(it.left()) == []
    assert [command.about for command in it.left(limit=0)] == [
        "importance-weighted bound of 8 draws"
    ]
