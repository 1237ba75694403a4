"""The transitions that explain a sample of pixels best."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import expm
from scipy.optimize import minimize_scalar

from tilemap.comparison.hmm_numpy import backward, forward
from tilemap.comparison.transition import DAYS_PER_YEAR, check_stochastic, from_rate, steps
from tilemap.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
DayArray = npt.NDArray[np.int64]

LEAST_RATE, MOST_RATE = 1e-5, 0.5
_CLOSE = 1e-5
"""Rounds end when no class leaves itself at a rate that still moves by more, relative to it."""


def fit_rate(emission: FloatArray, days: DayArray, initial: FloatArray) -> float:
    """The one rate of change a year of greatest likelihood.

    Args:
        emission: evidence of a sample, float64 (date, class, pixel), above 0; 1 where not observed.
        days: of the dates, (date,), rising.
        initial: probability of each class at the first date, (K,).

    Returns:
        0.00001 to 0.5 a year, found to one part in a thousand.

    Raises:
        ConfigError: if no pixel of the sample gives evidence at two dates.
    """
    _check_seen_twice(emission)
    classes = emission.shape[1]

    def cost(log_rate: float) -> float:
        matrices = steps(from_rate(float(np.exp(log_rate)), classes), days)
        return -log_evidence(emission, initial, matrices)

    bounds = (np.log(LEAST_RATE), np.log(MOST_RATE))
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def fit_transitions(
    emission: FloatArray,
    start: FloatArray,
    days: DayArray,
    initial: FloatArray,
    rounds: int = 100,
) -> FloatArray:
    """The transitions per year of greatest likelihood, from a start upwards.

    Expectation and maximisation (Baum-Welch) in continuous time, so that unequal gaps need no
    approximation: rates Q with ``A = expm(Q)``; in each round the expected transitions from i to j
    and the expected time spent in i, over all pixels and gaps given their evidence, make the new
    ``q_ij`` (Hobolth and Jensen, 2011, Journal of Applied Probability 48(4), 911-924).

    Args:
        emission: evidence of a sample, float64 (date, class, pixel), above 0; 1 where not observed.
        start: transitions per year, float64 (from, to). A class that never becomes another at once
            keeps doing so; it may still become it by way of a third.
        days: of the dates, (date,), rising.
        initial: probability of each class at the first date, (K,).
        rounds: at most; fewer if the rates settle before.

    Returns:
        Per year, float64 (from, to), rows sum to 1.

    Raises:
        ConfigError: if no pixel of the sample gives evidence at two dates, or arrays do not fit.
    """
    _check_seen_twice(emission)
    rates = check_stochastic(start, "transitions per year").copy()
    np.fill_diagonal(rates, 0)  # of few changes a year rates are about the transitions
    np.fill_diagonal(rates, -rates.sum(axis=1))
    years = np.diff(np.asarray(days)) / DAYS_PER_YEAR
    if len(years) != len(emission) - 1 or np.any(years <= 0):
        raise ConfigError("the dates of a series must be in order, each once, a day for each")
    for _ in range(rounds):
        matrices = np.stack([_stochastic(expm(rates * gap)) for gap in years])
        counts = _pair_counts(emission, initial, matrices)
        moves = np.zeros_like(rates)
        for gap, matrix, count in zip(years, matrices, counts, strict=True):
            moves += _moves(rates, gap, np.divide(count, matrix, where=matrix > 0, out=count * 0))
        times = np.diagonal(moves).copy()
        np.fill_diagonal(moves, 0)
        found = rates * moves / np.maximum(times, 1e-300)[:, None]
        np.fill_diagonal(found, 0)
        np.fill_diagonal(found, -found.sum(axis=1))
        settled = np.allclose(np.diagonal(found), np.diagonal(rates), rtol=_CLOSE, atol=1e-9)
        rates = found
        if settled:
            break
    return _stochastic(expm(rates))


def log_evidence(emission: FloatArray, initial: FloatArray, transitions: FloatArray) -> float:
    """Logarithm of the likelihood of all pixels together: the forward recursion, summed up.

    Args:
        emission: evidence, float64 (date, class, pixel).
        initial: (K,).
        transitions: float64 (date - 1, from, to).
    """
    alpha = initial[:, None] * emission[0]
    total = 0.0
    for date, evidence in enumerate(emission):
        if date:
            alpha = (transitions[date - 1].T @ alpha) * evidence
        scale = alpha.sum(axis=0)
        total += float(np.log(scale).sum())
        alpha = alpha / scale
    return total


def _check_seen_twice(emission: FloatArray) -> None:
    seen = (emission != 1).any(axis=1).sum(axis=0)
    if not np.any(seen >= 2):
        raise ConfigError(
            "transitions can be fitted to pixels whose classes differ in probability at two dates, "
            f"none of the {emission.shape[2]} of the sample is such; give a rate of change"
        )


def _stochastic(matrix: FloatArray) -> FloatArray:
    matrix = np.maximum(matrix, 0)
    result: FloatArray = matrix / matrix.sum(axis=1, keepdims=True)
    return result


def _pair_counts(emission: FloatArray, initial: FloatArray, matrices: FloatArray) -> FloatArray:
    """Expected pixels that go from one class to another, float64 (date - 1, from, to)."""
    alpha, beta = forward(emission, initial, matrices), backward(emission, matrices)
    counts = np.empty_like(matrices)
    for t, matrix in enumerate(matrices):
        later = emission[t + 1] * beta[t + 1]
        whole = np.einsum("kn,kn->n", alpha[t], matrix @ later)
        counts[t] = matrix * ((alpha[t] / whole) @ later.T)
    return counts


def _moves(rates: FloatArray, years: float, weight: FloatArray) -> FloatArray:
    """Integral over a gap of ``expm(Q' s) W expm(Q' (d - s))``, by a block exponential.

    With W the expected pixels of each pair of ends over its probability, the diagonal is the
    expected time in each class, and an entry times its rate the expected transitions (Van Loan,
    1978, IEEE Transactions on Automatic Control 23(3), 395-404).
    """
    classes = len(rates)
    block = np.zeros((2 * classes, 2 * classes))
    block[:classes, :classes] = block[classes:, classes:] = rates.T
    block[:classes, classes:] = weight
    result: FloatArray = expm(block * years)[:classes, classes:]
    return result
