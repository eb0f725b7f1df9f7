"""Standard deviations from sums."""

import math

import pytest

from data_prep.common.moments import std_of
from stcn_tf.support.errors import UserError


def test_std_by_hand():
    assert std_of(25.0, 4.0, "samples") == 3.0
    assert std_of(1.0 + 4e-12, 1.0, "samples") == pytest.approx(2e-6, rel=1e-4)


@pytest.mark.parametrize(
    ("mean_square", "mean"), [(25.0, 5.0), (25.0, -5.0), (0.0, 0.0), (1.0, 1.1), (math.nan, 0.0)]
)
def test_what_does_not_vary_is_refused(mean_square, mean):
    with pytest.raises(UserError) as error:
        std_of(mean_square, mean, "samples")
    assert str(error.value) == (
        f"the train split cannot be normalised: its samples do not vary (mean {mean:g}, "
        f"variance {mean_square - mean**2:g})"
    )
