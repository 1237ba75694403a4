"""The rate of change that explains a sample of pixels best."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from tilemap.change.transition import from_rate, steps

FloatArray = npt.NDArray[np.float64]
LEAST, MOST = 1e-5, 0.5


def log_evidence(emission: FloatArray, initial: FloatArray, transitions: FloatArray) -> float:
    """Log-likelihood of all pixels together, the forward recursion summed up.

    Args:
        emission: evidence, float64 (T, K, N).
        initial: float64 (K,).
        transitions: float64 (T - 1, K, K).
    """
    alpha = initial[:, None] * emission[0]
    total = 0.0
    for matrix, evidence in zip([None, *transitions], emission, strict=True):
        if matrix is not None:
            alpha = (matrix.T @ alpha) * evidence
        scale = alpha.sum(axis=0)
        total += float(np.log(scale).sum())
        alpha = alpha / scale
    return total


def fit_rate(emission: FloatArray, days: npt.NDArray[np.int64], initial: FloatArray) -> float:
    """The yearly rate of change of greatest likelihood.

    Args:
        emission: evidence of a sample, float64 (T, K, N); 1 where not observed.
        days: of the dates, ascending.
        initial: probability of each class at the first date, float64 (K,).

    Returns:
        Between 0.00001 and 0.5 a year.
    """
    classes = emission.shape[1]

    def cost(log_rate: float) -> float:
        matrices = steps(from_rate(float(np.exp(log_rate)), classes), days)
        return -log_evidence(emission, initial, matrices)

    found = minimize_scalar(
        cost, bounds=(np.log(LEAST), np.log(MOST)), method="bounded", options={"xatol": 1e-3}
    )
    return float(np.exp(found.x))
