import pytest
import tensorflow as tf

from stcn_tf.config import TrainingSettings
from stcn_tf.training import schedules


def test_paper_defaults():
    config = TrainingSettings()
    for update, rate, weight in (
        (1, 5e-4 * 0.94**0.001, 1e-4),
        (500, 5e-4 * 0.94**0.5, 0.05),
        (10_000, 5e-4 * 0.94**10, 1.0),
        (25_000, 5e-4 * 0.94**25, 1.0),
    ):
        n = tf.constant(update, tf.int64)
        assert float(schedules.learning_rate(config, n)) == pytest.approx(rate, rel=1e-5)
        assert float(schedules.kl_weight(config, n)) == pytest.approx(weight, rel=1e-6)


def test_kl_weight_starts_where_told():
    config = TrainingSettings(kl_weight_start=0.5, kl_weight_increment=0.2)
    weights = [float(schedules.kl_weight(config, tf.constant(n, tf.int64))) for n in (1, 2, 3)]
    assert weights == pytest.approx([0.7, 0.9, 1.0])


def test_the_rate_of_a_short_run_falls_to_a_tenth():
    decay = 0.1 ** (1000 / 20)  # less than any number of float32
    config = TrainingSettings(learning_rate=2e-3, learning_rate_decay=decay)
    for n, rate in ((10, 2e-3 * 0.1**0.5), (20, 2e-4)):
        assert float(schedules.learning_rate(config, n)) == pytest.approx(rate, rel=1e-5)
