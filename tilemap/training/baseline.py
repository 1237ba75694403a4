"""What can be had without a network: a classifier of single pixels, for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from tilemap.models.protocol import FloatArray

IntegerArray = npt.NDArray[np.integer]
RIDGE = 1e-4
"""Of the squared weights, so that there is one minimum also where classes are separable."""


@dataclass(frozen=True)
class PixelModel:
    """Logistic regression on the bands of one pixel.

    Args:
        weights: float64 (class, band).
        bias: float64 (class,).
    """

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def classify(self, image: FloatArray) -> npt.NDArray[np.uint8]:
        """Class index of each pixel, uint8 (y, x).

        Args:
            image: standardised (band, y, x).
        """
        score = np.tensordot(self.weights.astype(np.float32), image, axes=1)
        score += self.bias.astype(np.float32)[:, None, None]
        return np.asarray(score.argmax(axis=0).astype(np.uint8))


def fit_pixels(
    bands: FloatArray, labels: IntegerArray, classes: int, balanced: bool = False
) -> PixelModel:
    """The likeliest logistic regression, found by L-BFGS from 0; the same every time.

    Args:
        bands: standardised, (n, band), n at least 1.
        labels: class index of each (n,).
        classes: how many there are.
        balanced: whether every class that is there weighs the same in total.
    """
    x, number = bands.astype(np.float64), len(labels)
    truth = np.zeros((number, classes))
    truth[np.arange(number), labels] = 1
    count = np.bincount(labels, minlength=classes).astype(np.float64)
    share = 1 / (count.clip(1) * (count > 0).sum()) if balanced else np.full(classes, 1 / number)
    weight = share[labels]

    def lost(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        both = flat.reshape(classes, -1)
        score = x @ both[:, :-1].T + both[:, -1]
        score -= score.max(axis=1, keepdims=True)
        log = score - np.log(np.exp(score).sum(axis=1, keepdims=True))
        slope = (np.exp(log) - truth) * weight[:, None]
        gradient = np.concatenate([slope.T @ x, slope.sum(axis=0)[:, None]], axis=1)
        gradient[:, :-1] += 2 * RIDGE * both[:, :-1]
        value = -float((weight * (truth * log).sum(axis=1)).sum())
        return value + RIDGE * float((both[:, :-1] ** 2).sum()), gradient.ravel()

    start = np.zeros(classes * (x.shape[1] + 1))
    found = minimize(lost, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    both = np.asarray(found.x, np.float64).reshape(classes, -1)
    return PixelModel(both[:, :-1], both[:, -1])
