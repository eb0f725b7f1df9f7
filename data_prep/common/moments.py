"""Means and standard deviations of data that does not fit in memory, exact and order-free."""

import math

import numpy as np

from stcn_tf.support.errors import UserError


class Moments:
    """First and second moments of some columns, added up piece by piece.

    Each piece is summed in float64 and the sums of pieces exactly (`math.fsum`), so that the
    result depends on neither the order of the pieces nor the number of workers. What is kept does
    not grow with the pieces.
    """

    def __init__(self, num_columns: int):
        self.count = 0
        self._sums = [_ExactSum() for _ in range(num_columns)]
        self._square_sums = [_ExactSum() for _ in range(num_columns)]

    def add(self, values: np.ndarray) -> None:
        """Adds a piece, [count, columns]."""
        values = np.asarray(values, np.float64)
        self.add_sums(len(values), values.sum(axis=0), np.square(values).sum(axis=0))

    def add_sums(self, count: int, sums: np.ndarray, square_sums: np.ndarray) -> None:
        """Adds a piece by its sums and sums of squares, [columns] each."""
        self.count += count
        for total, value in zip(self._sums, sums, strict=True):
            total.add(float(value))
        for total, value in zip(self._square_sums, square_sums, strict=True):
            total.add(float(value))

    @property
    def sums(self) -> list[float]:
        """Of each column."""
        return [total.value() for total in self._sums]

    @property
    def square_sums(self) -> list[float]:
        """Sum of squares of each column."""
        return [total.value() for total in self._square_sums]


class _ExactSum:
    """Sum of floats without rounding, as non-overlapping partial sums (Shewchuk, 1997)."""

    def __init__(self):
        self._partials: list[float] = []

    def add(self, value: float) -> None:
        partials = []
        for other in self._partials:
            if abs(value) < abs(other):
                value, other = other, value
            high = value + other
            low = other - (high - value)
            if low:
                partials.append(low)
            value = high
        self._partials = [*partials, value]

    def value(self) -> float:
        return math.fsum(self._partials)


def std_of(mean_square: float, mean: float, what: str) -> float:
    """The standard deviation from both moments.

    Args:
        mean_square: mean of squares.
        mean: mean.
        what: is normalised, for the message.

    Raises:
        UserError: it is 0 or undefined.
    """
    variance = mean_square - mean**2
    # Written so that NaN is refused too.
    if not variance > 1e-12 * mean_square:
        raise UserError(
            f"the train split cannot be normalised: its {what} do not vary "
            f"(mean {mean:g}, variance {variance:g})"
        )
    return math.sqrt(variance)
