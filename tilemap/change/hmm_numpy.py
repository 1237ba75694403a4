"""The twin of ``hmm`` in plain NumPy: the same operations in the same order, all pixels at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilemap.change.smoothed import Smoothed

FloatArray = npt.NDArray[np.float64]


def smooth_emissions(emission: FloatArray, initial: FloatArray, a: FloatArray) -> Smoothed:
    """See ``tilemap.change.hmm.smooth_emissions``."""
    dates, classes, pixels = emission.shape
    alpha = np.empty_like(emission)
    scale = np.empty((dates, pixels))
    back = np.zeros((dates, classes, pixels), dtype=np.int64)
    delta = np.empty((classes, pixels))
    for t in range(dates):
        likely = np.empty((classes, pixels))
        for k in range(classes):
            if t == 0:
                value = np.full(pixels, initial[k])
                likely[k] = initial[k]
            else:
                value = np.zeros(pixels)
                likely[k] = -1.0
                for j in range(classes):
                    value = value + alpha[t - 1, j] * a[t - 1, j, k]
                    path = delta[j] * a[t - 1, j, k]
                    better = path > likely[k]
                    likely[k][better] = path[better]
                    back[t, k][better] = j
            alpha[t, k] = value * emission[t, k]
            likely[k] *= emission[t, k]
        scale[t] = 0.0
        for k in range(classes):
            scale[t] += alpha[t, k]
        alpha[t] /= scale[t]
        delta = likely / likely.max(axis=0)
    labels = np.empty((dates, pixels), dtype=np.uint8)
    best = delta.argmax(axis=0)
    for t in range(dates - 1, -1, -1):
        labels[t] = best
        best = np.take_along_axis(back[t], best[None], axis=0)[0]
    p_step = np.empty((max(dates - 1, 0), pixels))
    beta = np.ones((classes, pixels))
    for t in range(dates - 1, 0, -1):
        work = emission[t] * beta / scale[t]
        same = sum(alpha[t - 1, k] * a[t - 1, k, k] * work[k] for k in range(classes))
        p_step[t - 1] = np.clip(1.0 - same, 0.0, 1.0)
        beta = np.stack(
            [sum(a[t - 1, j, k] * work[k] for k in range(classes)) for j in range(classes)]
        )
    stays = initial[:, None] * emission[0] / scale[0]
    for t in range(1, dates):
        stays = stays * np.diagonal(a[t - 1])[:, None] * emission[t] / scale[t]
    return Smoothed(labels, np.clip(1.0 - stays.sum(axis=0), 0.0, 1.0), p_step)
