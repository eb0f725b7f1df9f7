import itertools

import numpy as np
import pytest
import tensorflow as tf

from stcn_tf import noise
from stcn_tf.seeds import Stream

STEPS = np.arange(11)[np.newaxis] + np.array([[0], [4], [100]])
NUMBERS = pytest.mark.parametrize("draw", [noise.standard_normal, noise.uniform])


def _places(steps, rows=None):
    return noise.Places(np.arange(len(steps)) if rows is None else rows, steps)


def _word(value):
    return tf.constant(value, tf.uint32)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers_of_threefry(key, counter, expected):
    """Those published with the generator (Random123)."""
    words = noise._threefry(tuple(map(_word, key)), tuple(map(_word, counter)))
    assert tuple(int(word) for word in words) == expected


@NUMBERS
@pytest.mark.parametrize("units", [1, 4, 5])
def test_a_number_belongs_to_its_row_step_and_unit(draw, units):
    whole = draw((1, 2), _places(STEPS), units).numpy()
    assert whole.shape == (3, 11, units)
    assert whole.dtype == np.float32
    assert len(np.unique(whole)) == whole.size
    padded = np.concatenate([STEPS, STEPS + 11], axis=1)
    for steps, rows, columns in (
        (padded, slice(None), slice(0, 11)),
        (STEPS[:2], slice(2), slice(None)),
        (STEPS[:, 3:5], slice(None), slice(3, 5)),
    ):
        part = draw((1, 2), _places(steps), units)
        part = part[: len(whole[rows]), : whole[:, columns].shape[1]]
        # Kernels of sine and cosine round differently at the end of an array.
        np.testing.assert_allclose(part, whole[rows, columns], rtol=1e-6, atol=1e-6)
    # A row is what its number says, wherever it stands.
    again = draw((1, 2), _places(STEPS[[2, 0, 2]], [2, 0, 7]), units).numpy()
    np.testing.assert_allclose(again[:2], whole[[2, 0]], rtol=1e-6, atol=1e-6)
    assert not np.isin(again[2], whole).any()


@NUMBERS
def test_compiled_or_not_the_numbers_are_the_same(draw):
    def drawn(steps, seed):
        return draw(seed, noise.Places(tf.range(tf.shape(steps)[0]), steps), 5)

    args = tf.constant(STEPS, tf.int32), tf.constant([7, -8])
    expected = draw((7, -8), _places(STEPS), 5)
    for jit_compile in (False, True):
        compiled = tf.function(drawn, jit_compile=jit_compile)(*args)
        # To the rounding of logarithm, sine and cosine.
        np.testing.assert_allclose(compiled, expected, rtol=1e-5, atol=1e-6)


def test_seeds_that_are_folded_in_differ_and_are_the_same_when_compiled():
    numbers = [0, 1, -1, 2**31 - 1, *(stream for stream in Stream if stream > 1)]
    seeds = [tuple(noise.fold_in((3, 4), number).numpy()) for number in numbers]
    seeds += [tuple(noise.fold_in((4, 3), 0).numpy()), (3, 4)]
    assert len(set(seeds)) == len(seeds)
    compiled = tf.function(noise.fold_in, jit_compile=True)((3, 4), tf.constant(1))
    np.testing.assert_array_equal(compiled, seeds[1])
    wide = noise.fold_in((3, 4), tf.constant(2**40 + 1, tf.int64))
    np.testing.assert_array_equal(wide, seeds[1])


def test_numbers_are_standard_normal_and_know_of_no_other():
    draws = noise.standard_normal((1, 2), _places(np.tile(np.arange(50), (40, 1))), 9).numpy()
    count = 40 * 50
    for unit in draws.T:  # [time, batch]
        assert abs(unit.mean()) < 5 / np.sqrt(count)
        assert abs(unit.var() - 1) < 5 * np.sqrt(2 / count)
        assert abs((unit**4).mean() - 3) < 5 * np.sqrt(96 / count)
        assert abs((unit[1:] * unit[:-1]).mean()) < 5 / np.sqrt(count)
        assert abs((unit[:, 1:] * unit[:, :-1]).mean()) < 5 / np.sqrt(count)
    for one, other in itertools.combinations(draws.T, 2):
        assert abs((one * other).mean()) < 5 / np.sqrt(count)
        assert abs((one**2 * other**2).mean() - 1) < 5 * np.sqrt(8 / count)


def test_uniform_numbers_fill_the_open_interval_evenly():
    draws = noise.uniform((1, 2), _places(np.tile(np.arange(100), (50, 1))), 3).numpy().ravel()
    counts = np.histogram(draws, 20, (0.0, 1.0))[0]
    expected = draws.size / 20
    # Chi-squared of 19 degrees of freedom: mean 19, standard deviation 6.2.
    assert np.sum((counts - expected) ** 2 / expected) < 19 + 5 * 6.2
    # What no draw may give, whatever the bits: the logarithms of 0 and of 1 - 1.
    extremes = noise._unit_interval(tf.constant([0, 2**32 - 1], tf.uint32)).numpy()
    assert 0 < extremes[0] < extremes[1] < 1


def test_portable_operations_give_the_same_numbers():
    places = noise.Places(tf.constant([0, 5, 70]), tf.constant([[3, 4], [0, 1], [9, 2**20]]))
    expected = noise.standard_normal((7, -1), places, 5)
    with noise.portable():
        np.testing.assert_array_equal(noise.standard_normal((7, -1), places, 5), expected)


def test_seeds_of_rows_are_those_of_each_alone():
    places = noise.Places(tf.constant([0, 0, 6]), tf.constant([[3, 4], [3, 4], [0, 1]]))
    seeds = np.array([[1, 2], [1, 3], [-5, 0]], np.int32)
    drawn = noise.uniform(seeds, places, 3)
    folded = noise.fold_in(seeds, 4)
    for row, seed in enumerate(seeds):
        alone = noise.Places(places.rows[row : row + 1], places.steps[row : row + 1])
        np.testing.assert_array_equal(drawn[row], noise.uniform(seed, alone, 3)[0])
        np.testing.assert_array_equal(folded[row], noise.fold_in(seed, 4))
    assert len(np.unique(drawn)) == 3 * 2 * 3
