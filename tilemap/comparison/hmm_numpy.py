"""The twin of ``hmm`` in plain NumPy: all pixels of a class at once, in the same order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilemap.comparison.smoothed import Smoothed

FloatArray = npt.NDArray[np.float64]

_SCORE_STEP = 2.0**-32
"""Sums of multiples of this up to a million are exact in float64."""


def scores(p: FloatArray) -> FloatArray:
    """Logarithms to compare paths by: multiples of 2^-32, minus infinity for 0.

    Args:
        p: probability or evidence, 0 or more, any shape.
    """
    with np.errstate(divide="ignore"):
        rounded: FloatArray = np.rint(np.log(p) / _SCORE_STEP) * _SCORE_STEP
    return rounded


def smooth_emissions(
    emission: FloatArray,
    score: FloatArray,
    initial: FloatArray,
    initial_score: FloatArray,
    steps: FloatArray,
    step_scores: FloatArray,
) -> Smoothed:
    """See ``comparison.hmm.smooth_emissions``; scores are ``scores`` of each probability."""
    alpha = forward(emission, initial, steps)
    beta = backward(emission, steps)
    p_step = np.empty((len(steps), emission.shape[2]))
    for t, matrix in enumerate(steps):
        later = emission[t + 1] * beta[t + 1]
        same = np.einsum("kn,k,kn->n", alpha[t], np.diagonal(matrix), later)
        whole = np.einsum("kn,kn->n", alpha[t], matrix @ later)
        p_step[t] = 1 - np.divide(same, whole, out=np.ones_like(same), where=whole > 0)
    never = initial[:, None] * emission[0]
    total = never.sum(axis=0)
    for t, matrix in enumerate(steps):
        # each date's evidence given those before it, so that the joint is a share of the whole
        total_step = ((matrix.T @ alpha[t]) * emission[t + 1]).sum(axis=0)
        never = np.diagonal(matrix)[:, None] * emission[t + 1] * (never / total)
        total = total_step
    p_change = 1 - (never / total).sum(axis=0)
    labels = _best_path(score, initial_score, step_scores)
    return Smoothed(labels, np.clip(p_change, 0, 1), np.clip(p_step, 0, 1))


def forward(emission: FloatArray, initial: FloatArray, steps: FloatArray) -> FloatArray:
    """Probability of each class given the dates so far, float64 (date, class, pixel)."""
    alpha = np.empty_like(emission)
    for t, evidence in enumerate(emission):
        alpha[t] = (initial[:, None] if t == 0 else steps[t - 1].T @ alpha[t - 1]) * evidence
        alpha[t] /= alpha[t].sum(axis=0)
    return alpha


def backward(emission: FloatArray, steps: FloatArray) -> FloatArray:
    """What later dates say of each class, 1 for the likeliest, float64 (date, class, pixel)."""
    beta = np.ones_like(emission)
    for t in range(len(steps) - 1, -1, -1):
        beta[t] = steps[t] @ (emission[t + 1] * beta[t + 1])
        beta[t] /= beta[t].max(axis=0)
    return beta


def _best_path(score: FloatArray, initial: FloatArray, steps: FloatArray) -> npt.NDArray[np.uint8]:
    dates, _, pixels = score.shape
    best = np.empty_like(score)
    best[0] = initial[:, None] + score[0]
    for t in range(1, dates):
        for k in range(score.shape[1]):
            best[t, k] = (best[t - 1] + steps[t - 1, :, k, None]).max(axis=0) + score[t, k]
    labels = np.empty((dates, pixels), dtype=np.uint8)
    labels[-1] = best[-1].argmax(axis=0)
    for t in range(dates - 2, -1, -1):
        labels[t] = (best[t] + steps[t][:, labels[t + 1]]).argmax(axis=0)
    return labels
