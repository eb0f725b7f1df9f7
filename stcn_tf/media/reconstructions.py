"""Sequences beside what a model makes of them."""

from typing import NamedTuple

import numpy as np


class Reconstructions(NamedTuple):
    """Sequences and what a model makes of them; one entry for each, in raw units."""

    originals: list[np.ndarray]  # [time, features] float32
    reconstructions: list[np.ndarray]  # the same shape, see `SequenceModel.reconstruction`
    probabilities: list[np.ndarray]  # the same, with the probability of 1 for binary features
    # [num], nats of the normalised values: a valid lower bound from the very latents that the
    # reconstructions were made with, or, where `is_exact`, the log-likelihood.
    elbo: np.ndarray
    is_exact: bool

    def first(self, num: int) -> "Reconstructions":
        """Those of the first sequences."""
        *parts, is_exact = self
        return Reconstructions(*(part[:num] for part in parts), is_exact)
