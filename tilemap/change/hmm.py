"""A hidden Markov model of each pixel: its likeliest classes, and how sure a change is.

The class of a pixel changes from date to date as the transition matrices say; each date gives
evidence for every class. Labels are the likeliest path (Viterbi); the probability of change is
that of all paths (forward-backward); see Rabiner 1989, Proceedings of the IEEE 77. A date that
was not observed gives the same evidence to all. Of equally likely classes the lower index wins.
"""

from __future__ import annotations

from typing import Literal

import numba
import numpy as np
import numpy.typing as npt

from tilemap.change import hmm_numpy
from tilemap.change.smoothed import Smoothed
from tilemap.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
NONE = 255


def smooth(
    quantised: npt.NDArray[np.uint8],
    initial: FloatArray,
    transitions: FloatArray,
    table: FloatArray,
) -> Smoothed:
    """Classes and change of pixels from stored probabilities.

    Args:
        quantised: ``rint(254 p)``, uint8 (T, K, N); 255 where a date was not observed.
        initial: probability of each class at the first date, float64 (K,).
        transitions: from each date to the next, float64 (T - 1, K, K).
        table: evidence of each stored number, see ``emission_table``, float64 (K, 256).

    Returns:
        Labels 255 where no date was observed.

    Raises:
        ConfigError: if the shapes do not fit.
    """
    dates, _, pixels = _checked(quantised.shape, initial, transitions)
    labels = np.empty((dates, pixels), dtype=np.uint8)
    p_change = np.empty(pixels, dtype=np.float32)
    p_step = np.empty((max(dates - 1, 0), pixels), dtype=np.float32)
    _smooth_stored(
        np.ascontiguousarray(quantised), initial, np.ascontiguousarray(transitions), table,
        labels, p_change, p_step,
    )  # fmt: skip
    return Smoothed(labels, p_change, p_step)


def smooth_emissions(
    emission: FloatArray,
    initial: FloatArray,
    transitions: FloatArray,
    engine: Literal["numba", "numpy"] = "numba",
) -> Smoothed:
    """The same from evidence, float64 (T, K, N); an unobserved date has 1 for all classes.

    Labels are never 255 here. Both engines do the same operations in the same order: their labels
    are equal.
    """
    dates, _, pixels = _checked(emission.shape, initial, transitions)
    if engine == "numpy":
        return hmm_numpy.smooth_emissions(emission, initial, transitions)
    labels = np.empty((dates, pixels), dtype=np.uint8)
    p_change = np.empty(pixels, dtype=np.float64)
    p_step = np.empty((max(dates - 1, 0), pixels), dtype=np.float64)
    _smooth_floats(
        np.ascontiguousarray(emission), initial, np.ascontiguousarray(transitions),
        labels, p_change, p_step,
    )  # fmt: skip
    return Smoothed(labels, p_change, p_step)


def _checked(
    shape: tuple[int, ...], initial: FloatArray, transitions: FloatArray
) -> tuple[int, int, int]:
    dates, classes, pixels = shape
    if initial.shape != (classes,) or transitions.shape != (dates - 1, classes, classes):
        raise ConfigError(
            f"{dates} dates of {classes} classes need {classes} initial probabilities and "
            f"{dates - 1} matrices, got {initial.shape} and {transitions.shape}"
        )
    return dates, classes, pixels


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _pixel(b, initial, a, at, alpha, beta, delta, scale, back, work):  # type: ignore[no-untyped-def]  # noqa: PLR0913
    """One pixel: fills alpha, scale, back, delta; leaves beta of the first date."""
    dates, classes = b.shape
    for t in range(dates):
        total = 0.0
        best = 0.0
        for k in range(classes):
            if t == 0:
                value = initial[k]
                likely = initial[k]
            else:
                value = 0.0
                likely = -1.0
                source = 0
                for j in range(classes):
                    value += alpha[t - 1, j] * at[t - 1, k, j]
                    path = delta[j] * at[t - 1, k, j]
                    if path > likely:
                        likely = path
                        source = j
                back[t, k] = source
            value *= b[t, k]
            likely *= b[t, k]
            alpha[t, k] = value
            work[k] = likely
            total += value
            best = max(best, likely)
        scale[t] = total
        for k in range(classes):
            alpha[t, k] /= total
            delta[k] = work[k] / best


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _finish(b, initial, a, alpha, beta, delta, scale, back, work, label, step):  # type: ignore[no-untyped-def]  # noqa: PLR0913
    """Backtrack, and go backwards through the dates; returns P(at least one change)."""
    dates, classes = b.shape
    best = 0
    for k in range(1, classes):
        if delta[k] > delta[best]:
            best = k
    for t in range(dates - 1, -1, -1):
        label[t] = best
        if t:
            best = back[t, best]
    for k in range(classes):
        beta[k] = 1.0
    for t in range(dates - 1, 0, -1):
        same = 0.0
        for k in range(classes):
            work[k] = b[t, k] * beta[k] / scale[t]
            same += alpha[t - 1, k] * a[t - 1, k, k] * work[k]
        step[t - 1] = min(max(1.0 - same, 0.0), 1.0)
        for j in range(classes):
            value = 0.0
            for k in range(classes):
                value += a[t - 1, j, k] * work[k]
            beta[j] = value
    never = 0.0
    for k in range(classes):
        stays = initial[k] * b[0, k] / scale[0]
        for t in range(1, dates):
            stays *= a[t - 1, k, k] * b[t, k] / scale[t]
        never += stays
    return min(max(1.0 - never, 0.0), 1.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _smooth_stored(quantised, initial, a, table, labels, p_change, p_step):  # type: ignore[no-untyped-def]
    dates, classes, pixels = quantised.shape
    at = np.ascontiguousarray(a.transpose((0, 2, 1)))
    b = np.empty((dates, classes))
    alpha = np.empty((dates, classes))
    beta, delta, work = np.empty(classes), np.empty(classes), np.empty(classes)
    scale, step = np.empty(dates), np.empty(max(dates - 1, 0))
    back = np.zeros((dates, classes), dtype=np.int64)
    label = np.empty(dates, dtype=np.int64)
    for n in range(pixels):
        seen = False
        for t in range(dates):
            observed = quantised[t, 0, n] != NONE
            seen |= observed
            for k in range(classes):
                b[t, k] = table[k, quantised[t, k, n]]
        if not seen:
            for t in range(dates):
                labels[t, n] = NONE
                if t:
                    p_step[t - 1, n] = 0.0
            p_change[n] = 0.0
            continue
        _pixel(b, initial, a, at, alpha, beta, delta, scale, back, work)
        p_change[n] = _finish(b, initial, a, alpha, beta, delta, scale, back, work, label, step)
        for t in range(dates):
            labels[t, n] = label[t]
            if t:
                p_step[t - 1, n] = step[t - 1]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _smooth_floats(emission, initial, a, labels, p_change, p_step):  # type: ignore[no-untyped-def]
    dates, classes, pixels = emission.shape
    at = np.ascontiguousarray(a.transpose((0, 2, 1)))
    b = np.empty((dates, classes))
    alpha = np.empty((dates, classes))
    beta, delta, work = np.empty(classes), np.empty(classes), np.empty(classes)
    scale, step = np.empty(dates), np.empty(max(dates - 1, 0))
    back = np.zeros((dates, classes), dtype=np.int64)
    label = np.empty(dates, dtype=np.int64)
    for n in range(pixels):
        for t in range(dates):
            for k in range(classes):
                b[t, k] = emission[t, k, n]
        _pixel(b, initial, a, at, alpha, beta, delta, scale, back, work)
        p_change[n] = _finish(b, initial, a, alpha, beta, delta, scale, back, work, label, step)
        for t in range(dates):
            labels[t, n] = label[t]
            if t:
                p_step[t - 1, n] = step[t - 1]
