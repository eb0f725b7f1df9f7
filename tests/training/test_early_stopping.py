import numpy as np
import pytest

from stcn_tf.config import TrainingSettings
from stcn_tf.training.early_stopping import EarlyStopping


def _verdicts(values, has_latents=True, every=500, **settings):
    """What comes of evaluations in a row, up to the one that stops."""
    early_stopping = EarlyStopping(TrainingSettings(**settings), has_latents)
    verdicts = []
    for number, value in enumerate(values, start=1):
        verdicts.append(early_stopping.judge(number * every, value))
        if verdicts[-1].stops:
            break
    return early_stopping, verdicts


def test_nothing_is_stale_while_the_kl_weight_rises():
    """The paper's schedule: 1e-4 an update reaches 1 at update 10,000, after 20 evaluations."""
    # The first evaluation is good by accident, and only a whole schedule later comes a better one.
    values = [-273.0] + [-606.0 + 10 * n for n in range(30)] + [0.0] * 20
    early_stopping, verdicts = _verdicts(values, patience=10)
    assert [verdict.stale for verdict in verdicts[:19]] == [0] * 19  # below update 10,000
    assert [verdict.stale for verdict in verdicts[19:29]] == list(range(1, 11))
    assert verdicts[-1].stops
    assert (early_stopping.best, early_stopping.best_step) == (-273.0, 500)
    # With a better one in between it goes on to there.
    values[25] = -100.0
    early_stopping, verdicts = _verdicts(values, patience=10)
    assert early_stopping.best_step > 500


@pytest.mark.parametrize(
    "how", [{"has_latents": False}, {"kl_weight_increment": 0.0}, {"kl_weight_start": 1.0}]
)
def test_without_a_rising_weight_the_first_evaluation_counts(how):
    _, verdicts = _verdicts([-5.0] * 9, patience=2, **how)
    assert [verdict.stale for verdict in verdicts] == [0, 1, 2]
    assert [verdict.stops for verdict in verdicts] == [False, False, True]


def test_an_improvement_must_be_large_enough_to_count_and_any_is_the_best():
    settings = {"kl_weight_start": 1.0, "min_improvement": 0.01, "patience": 3}
    early_stopping, verdicts = _verdicts([-100.0, -99.5, -98.0, -98.5], **settings)
    assert [verdict.stale for verdict in verdicts] == [0, 1, 0, 1]
    assert [verdict.is_best for verdict in verdicts] == [True, True, True, False]
    assert [verdict.best for verdict in verdicts] == [-100.0, -99.5, -98.0, -98.0]
    assert (early_stopping.best_step, early_stopping.evaluated_step) == (1500, 2000)


def test_no_patience_is_endless_patience():
    _, verdicts = _verdicts([-1.0] * 50, patience=0, kl_weight_start=1.0)
    assert len(verdicts) == 50
    assert not np.any([verdict.stops for verdict in verdicts])
