"""Errors that the dates of an epoch share: of one sensor, one processing baseline, one season.

The logits of a date are taken as the signal of its class plus Gaussian noise, of which the share
``rho`` of the variance is the same at all dates of an epoch. Then the evidence of n dates of one
epoch is not n times that of one, and the likelihood of a path of classes k is, with R the
correlation of the dates, P its inverse, l the logarithm of the evidence and s the signal,

    sum_t (P l)_t(k_t) - s / 2 sum_tu P_tu [k_t = k_u].

The first sum is evidence again, ``decorrelate``: the mean of an epoch counts ``1 / (1 + (n - 1)
rho)`` times, as in the effective size of a cluster sample (Kish, 1965, Survey Sampling, section
5.4), and what a date differs from it ``1 / (1 - rho)`` times. The second sum is the same for
all paths that stay, and less for a change inside an epoch, where it is put on the transitions,
``discourage``: exact for paths that change once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from tilemap.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

MOST_SHARED = 0.9
"""An estimate above it says that dates of an epoch are one date; more would divide by nearly 0."""
_FAR = 300.0
"""Logarithm of evidence beyond which a class is as good as ruled out; keeps sums in float64."""
_NORMAL_MEDIAN = 0.6744897501960817
"""Median of the absolute value of a standard normal number."""


@dataclass(frozen=True)
class SharedError:
    """What dates of an epoch have in common.

    Args:
        epochs: name of each date's epoch, one for each date.
        rho: share of the variance of the noise that the dates of an epoch share, 0..1.
        signal: logits by which the true class is above the others, on average; that is the variance
            of the noise as well where probabilities are calibrated.

    Raises:
        ConfigError: if a number cannot be.
    """

    epochs: tuple[str, ...]
    rho: float
    signal: float

    def __post_init__(self) -> None:
        if not (0 <= self.rho < 1 and 0 <= self.signal < np.inf):
            raise ConfigError(
                f"a shared error must be a share of 0 to 1 of a signal of 0 or more, got {self.rho}"
                f" of {self.signal}"
            )

    @property
    def groups(self) -> list[list[int]]:
        """Numbers of the dates of each epoch."""
        return [
            [number for number, other in enumerate(self.epochs) if other == name]
            for name in dict.fromkeys(self.epochs)
        ]


def estimate(emission: FloatArray, observed: BoolArray, epochs: Sequence[str]) -> SharedError:
    """Estimate the shared error from a sample of the series itself.

    Two dates of one epoch differ by less than two of different epochs: the variance of their
    difference is ``2 (1 - rho)`` and 2 times that of the noise. Variances are taken from medians,
    which the few pixels that change do not move. What all dates share cannot be seen in this.

    Args:
        emission: evidence, float64 (date, class, pixel), above 0; 1 where not observed.
        observed: (date, pixel).
        epochs: name of each date's epoch.

    Returns:
        A share of 0 where there are no two dates of one epoch, or no two epochs.

    Raises:
        ConfigError: if there is no epoch for each date.
    """
    if len(epochs) != len(emission):
        raise ConfigError(f"there must be an epoch for each of {len(emission)} dates, got {epochs}")
    logits = np.log(emission)
    within, across = list[float](), list[float]()
    for one, two in combinations(range(len(logits)), 2):
        both = observed[one] & observed[two]
        if both.any():
            apart = (logits[one] - logits[two])[:, both]
            apart -= apart.mean(axis=0)
            spread = float((np.median(np.abs(apart)) / _NORMAL_MEDIAN) ** 2)
            (within if epochs[one] == epochs[two] else across).append(spread)
    widest = float(np.mean(across)) if across else 0.0
    if not (within and widest > 0):
        return SharedError(tuple(epochs), 0.0, 0.0)
    rho = min(max(1 - float(np.mean(within)) / widest, 0.0), MOST_SHARED)
    # centred over K classes, noise of variance v leaves v (1 - 1 / K); a difference has it twice
    return SharedError(tuple(epochs), rho, widest / 2 / (1 - 1 / emission.shape[1]))


def decorrelate(emission: FloatArray, observed: BoolArray, shared: SharedError) -> FloatArray:
    """Give evidence the weight that it has where dates of an epoch share their errors.

    Args:
        emission: evidence, float64 (date, class, pixel), above 0; 1 where not observed.
        observed: (date, pixel).
        shared: what they share.

    Returns:
        float64 of the same shape, above 0, at most 1; 1 where not observed.
    """
    logits = np.log(emission)
    rho = shared.rho
    for group in shared.groups:
        seen = observed[group]
        count = np.maximum(seen.sum(axis=0), 1)
        mean = (logits[group] * seen[:, None]).sum(axis=0) / count
        logits[group] = (logits[group] - mean) / (1 - rho) + mean / (1 + (count - 1) * rho)
    logits -= logits.max(axis=1, keepdims=True)
    found: FloatArray = np.where(observed[:, None], np.exp(np.maximum(logits, -_FAR)), 1.0)
    return found


def discourage(transitions: FloatArray, shared: SharedError) -> FloatArray:
    """Make a change inside an epoch as unlikely as evidence of its dates needs it to be.

    Args:
        transitions: from each date to the next, float64 (date - 1, from, to).
        shared: what they share.

    Returns:
        The same with less off the diagonals, rows sum to 1.
    """
    rho = shared.rho
    result = transitions.copy()
    for step, matrix in enumerate(result):
        penalty = 0.0
        for group in shared.groups:
            size, before = len(group), sum(date <= step for date in group)
            penalty += before * (size - before) / (1 + (size - 1) * rho)
        matrix *= np.exp(-min(shared.signal * rho / (1 - rho) * penalty, _FAR))
        np.fill_diagonal(matrix, 0)
        np.fill_diagonal(matrix, 1 - matrix.sum(axis=1))
    return result
