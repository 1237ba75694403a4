"""Evidence of a date for each class, from its stored probability."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
NODATA, ONE = 255, 254
LEAST = 0.5
"""A stored 0 is anything below half a step; a class is never impossible because of rounding."""


def emission_table(prior: FloatArray, tau: float) -> FloatArray:
    """Evidence ``(p / prior)^tau`` of every stored number, float64 (K, 256).

    What a date's evidence adds up to over the classes does not matter, so the probabilities need
    not be made to sum to 1 again after they were rounded.

    Args:
        prior: share of each class that the model takes for granted, float64 (K,), above 0.
        tau: power; 1 takes the model at its word, less trusts it less.

    Returns:
        The entry of 255, not observed, is 1.
    """
    stored = np.maximum(np.arange(256), LEAST) / ONE
    table = (stored[None, :] / np.asarray(prior)[:, None]) ** tau
    table[:, NODATA] = 1.0
    return np.ascontiguousarray(table)


def emissions(quantised: npt.NDArray[np.uint8], table: FloatArray) -> FloatArray:
    """Evidence of every date, class and pixel, float64 (T, K, N)."""
    return np.stack([table[k][quantised[:, k]] for k in range(len(table))], axis=1)
