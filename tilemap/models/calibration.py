"""Temperature: one number that makes probabilities as likely as they say.

A network trained on hard labels is too sure of itself. Its logits divided by one temperature keep
every label and bring the probabilities to what held-out pixels show (Guo et al. 2017, On
Calibration of Modern Neural Networks, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tilemap.errors import ModelError
from tilemap.models.protocol import FloatArray

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of a temperature; perfectly separated pixels would have it go to 0."""
_BLOCK = 1 << 16
_TOLERANCE = 1e-7

IntArray = npt.NDArray[np.integer]


def fit_temperature(logits: FloatArray, labels: IntArray) -> float:
    """The temperature under which held-out labels are likeliest.

    The negative log likelihood ``mean(logsumexp(z / T) - z_y / T)`` is convex in ``1 / T``, so it
    has one minimum; it is sought over ``log T``.

    Args:
        logits: float32 (n, class), as the network gives them, before any temperature.
        labels: class index of each, integer (n,), 0 to class - 1.

    Returns:
        Between ``LOWEST`` and ``HIGHEST``; what the logits are to be divided by.

    Raises:
        ModelError: if there is no pixel, the arrays do not fit, or a logit is not finite.
    """
    from scipy.optimize import minimize_scalar

    _check(logits, labels)
    found = minimize_scalar(
        lambda log: negative_log_likelihood(logits, labels, float(np.exp(log))),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": _TOLERANCE},
    )
    fitted = float(np.exp(found.x))
    # Where many temperatures are equally good, none is better than that of the network itself.
    before = negative_log_likelihood(logits, labels, 1.0)
    return fitted if float(found.fun) < before else 1.0


def negative_log_likelihood(logits: FloatArray, labels: IntArray, temperature: float) -> float:
    """Mean of ``-log p`` of the true class, natural logarithm.

    Args:
        logits: float32 (n, class), n at least 1.
        labels: class index of each, integer (n,).
        temperature: the logits are divided by it, above 0.
    """
    total = 0.0
    for block, truth in _blocks(logits, labels):
        scaled = (block - block.max(axis=1, keepdims=True)) / temperature
        own = np.take_along_axis(scaled, truth[:, None], axis=1)[:, 0]
        total += float((np.log(np.exp(scaled).sum(axis=1)) - own).sum())
    return total / len(labels)


def _blocks(
    logits: FloatArray, labels: IntArray
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]:
    """In float64, which a minimum needs, without a copy of all."""
    for start in range(0, len(labels), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield logits[part].astype(np.float64), labels[part].astype(np.int64)


def _check(logits: FloatArray, labels: IntArray) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.size == 0:
        raise ModelError(
            "a temperature needs logits (n, class) and labels (n,) of at least one pixel, "
            f"got {logits.shape} and {labels.shape}"
        )
    classes = logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ModelError(
            f"labels must be class indices 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    if not np.isfinite(logits).all():
        raise ModelError("a temperature needs finite logits, some are not")
