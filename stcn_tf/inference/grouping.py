"""Means over sequences, of which some are alike, and their standard errors.

Nothing here needs TensorFlow.
"""

import math
from collections.abc import Sequence

import numpy as np

UNKNOWN = "?"  # as tables show it


class Grouping:
    """What sequences share, as lines of one hand do.

    Sequences of one group are alike, so that they tell less than as many others: residuals are
    added up within groups before they are squared.

    Args:
        names: of the sequences.
        groups: what each shares with others; empty: nothing.

    Attributes:
        are_grouped: whether standard errors are over groups, not over sequences.
        num_groups: number of groups; what shares nothing is one by itself.
    """

    def __init__(self, names: Sequence[str], groups: Sequence[str]):
        pairs = zip(groups, names, strict=True)
        keys = [("group", group) if group else ("alone", name) for group, name in pairs]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self._numbers = np.array([numbers[key] for key in keys], np.int64)  # [sequences], from 0
        self.are_grouped = any(groups)
        self.num_groups = len(numbers)

    def standard_error(self, values: np.ndarray) -> float:
        """Of the mean of values [sequences]; nan for a single group, or of one not finite."""
        if self.num_groups < 2 or not np.isfinite(values).all():
            return math.nan
        residuals = np.bincount(self._numbers, values - np.mean(values))
        scale = self.num_groups / (self.num_groups - 1)
        return float(math.sqrt(scale * np.sum(np.square(residuals))) / len(values))

    def per_step_standard_error(self, values: np.ndarray, num_steps: np.ndarray) -> float:
        """Of `per_step`, a ratio of two sums over sequences (delta method); nan as above."""
        if not np.isfinite(values).all():
            return math.nan
        residuals = values - per_step(values, num_steps) * num_steps
        mean_length = float(np.mean(num_steps))
        return self.standard_error(residuals) / mean_length if mean_length else math.nan


def averages_head(width: int) -> str:
    """Names of the columns above lines of `averages_line`."""
    return f"{'':{width}}  {'per sequence':>25}  {'per step':>21}"


def averages_line(
    name: str, width: int, whole: tuple[float, float], step: tuple[float, float]
) -> str:
    """An average and its standard error per sequence and per step, as a line of a table.

    Args:
        name: of what is averaged.
        width: of the longest name.
        whole: per sequence: average and standard error.
        step: the same per step.
    """
    return (
        f"{name:{width}}  {whole[0]:13.3f} +- {error_text(whole[1], 3):>8}  "
        f"{step[0]:10.5f} +- {error_text(step[1], 5)}"
    )


def error_text(error: float, places: int) -> str:
    """A standard error with so many decimal places; of a single group nobody knows it."""
    return UNKNOWN if math.isnan(error) else f"{error:.{places}f}"


def per_step(values: np.ndarray, num_steps: np.ndarray) -> float:
    """Sum of values [sequences] divided by all their steps; nan without any."""
    total = np.sum(num_steps)
    return float(np.sum(values) / total) if total else math.nan
