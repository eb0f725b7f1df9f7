"""Moments: sums without rounding, whatever the order and the pieces; and standard deviations."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

from data_prep.common.moments import Moments, std_of
from stcn_tf.support.errors import UserError

# Both signs and 17 orders of magnitude: ordinary sums of these depend on the order.
_RNG = np.random.default_rng(0)
VALUES = _RNG.choice([-1.0, 1.0], (200, 3)) * 10.0 ** _RNG.uniform(-8, 9, (200, 3))


def moments_of(pieces, num_columns=3):
    moments = Moments(num_columns)
    for piece in pieces:
        moments.add(piece)
    return moments


def facts(moments):
    return moments.count, moments.sums, moments.square_sums


def exact_sum(values):
    """Of floats, rounded once, at the end."""
    return float(sum(map(Fraction, values)))


def test_sums_are_the_exact_ones_rounded_once():
    moments = moments_of(VALUES[:, None])  # pieces of one row
    assert moments.count == 200
    for column, values in enumerate(VALUES.T.tolist()):
        assert moments.sums[column] == exact_sum(values)
        # A square is rounded to float64 before it is added.
        assert moments.square_sums[column] == exact_sum(value * value for value in values)
    assert moments.sums != VALUES.cumsum(axis=0)[-1].tolist()  # what one after another gives


def test_sums_of_pieces_are_added_exactly():
    moments = Moments(2)
    for sums in ([1e16, 1e300], [1.0, 1e-300], [-1e16, -1e300], [2.0**-60, 0.0]):
        moments.add_sums(5, np.array(sums), np.abs(sums))
    assert moments.count == 20
    assert moments.sums == [1.0, 1e-300]
    assert moments.square_sums == [exact_sum([1e16, 1.0, 1e16, 2.0**-60]), 2e300]


def test_the_order_of_pieces_does_not_matter():
    pieces = np.split(VALUES, [1, 8, 50, 51, 120])
    expected = facts(moments_of(pieces))
    rng = np.random.default_rng(2)
    for _ in range(20):
        shuffled = [pieces[index] for index in rng.permutation(len(pieces))]
        assert facts(moments_of(shuffled)) == expected


def test_pieces_do_not_matter_where_their_own_sums_are_exact():
    # Integers: no sum within a piece is rounded.
    values = np.random.default_rng(3).integers(-3000, 3000, (500, 2)).astype(np.float32)
    expected = (500, values.sum(0).tolist(), np.square(values.astype(np.int64)).sum(0).tolist())
    for cuts in ([], [1], [250], [3, 4, 499], range(1, 500)):
        assert facts(moments_of(np.split(values, cuts), 2)) == expected


def test_float32_is_squared_in_float64():
    value = np.float32(3000.3)
    moments = moments_of([np.array([[value]])], 1)
    assert moments.square_sums == [float(value) ** 2] != [float(np.square(value))]


def test_nothing_added_is_zero_and_columns_must_agree():
    assert facts(Moments(2)) == (0, [0.0, 0.0], [0.0, 0.0])
    with pytest.raises(ValueError):
        Moments(2).add(np.ones((5, 3)))


def test_what_is_kept_does_not_grow_with_the_pieces():
    few, many = (
        len(pickle.dumps(moments_of(np.tile(VALUES, (times, 1))[:, None]))) for times in (1, 10)
    )
    # A sum of float64s has at most 40 parts that do not overlap: 2098 bits, 53 in each.
    assert few < 6 * 40 * 9 and many < few + 100


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
