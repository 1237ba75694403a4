"""Whether a confidence of 80 % is right in 80 of 100 cases.

Confidence comes as whole percent, so the counts of every percent hold all there is to know, and
sums over parts of a map are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.errors import SceneError, UsageError
from tilemap.evaluation.metrics import IGNORE, IntArray

BINS = 15
WRONG, RIGHT = 0, 1

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Reliability of confidences, Guo et al. 2017, "On calibration of modern neural networks".

    Args:
        edges: of the bins, float64 (bin + 1,), 0..1; a bin holds what is above its lower edge, up
            to its upper one, the first one also 0.
        pixels: int64 (bin,).
        confidence: mean of each bin, float64 (bin,), 0..1; 0 in an empty one.
        accuracy: share that is right in each bin, float64 (bin,), 0..1; 0 in an empty one.
        ece: expected calibration error, mean of ``|accuracy - confidence|`` by pixels, 0..1; None
            without pixels.
        mce: the largest of them in any bin that has pixels, 0..1; None without pixels.
    """

    edges: _Floats
    pixels: IntArray
    confidence: _Floats
    accuracy: _Floats
    ece: float | None
    mce: float | None


def confidence_counts(
    confidence: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    predicted: npt.NDArray[np.uint8],
) -> IntArray:
    """Count right and wrong pixels of every percent.

    Args:
        confidence: percent 0..100, 255 where there is none, uint8, any shape.
        reference: class indices or ``IGNORE``, uint8 of that shape.
        predicted: the same of the map.

    Returns:
        int64 (101, 2): by percent, columns ``WRONG`` and ``RIGHT``.

    Raises:
        SceneError: if a confidence lies between 101 and 254.
    """
    seen = (reference != IGNORE) & (predicted != IGNORE) & (confidence != IGNORE)
    percent = confidence[seen]
    if percent.size and percent.max() > 100:
        raise SceneError(
            f"confidence must be percent, 0 to 100 (255: none), got {percent[percent > 100][0]}"
        )
    pairs = 2 * percent + (reference[seen] == predicted[seen])
    return np.bincount(pairs, minlength=202).astype(np.int64).reshape(101, 2)


def calibration(counts: npt.NDArray[Any], bins: int = BINS) -> Calibration:
    """The reliability curve and its errors.

    Args:
        counts: (101, 2) as ``confidence_counts`` makes them, or a sum of such.
        bins: of equal width, 1 to 100.

    Raises:
        UsageError: for another number of bins.
    """
    if not 1 <= bins <= 100:
        raise UsageError(f"there must be 1 to 100 bins of confidence, got {bins}")
    counts = np.asarray(counts, dtype=np.int64)
    percent = np.arange(101)
    where = np.maximum((percent * bins + 99) // 100 - 1, 0)  # of (low, high]; whole numbers
    pixels, right, sums = (np.zeros(bins, dtype=np.int64) for _ in range(3))
    np.add.at(pixels, where, counts.sum(axis=1))
    np.add.at(right, where, counts[:, RIGHT])
    np.add.at(sums, where, percent * counts.sum(axis=1))
    some = pixels > 0
    confidence, accuracy = np.zeros(bins), np.zeros(bins)
    confidence[some] = sums[some] / pixels[some] / 100
    accuracy[some] = right[some] / pixels[some]
    gap = np.abs(accuracy - confidence)
    total = int(pixels.sum())
    return Calibration(
        edges=np.arange(bins + 1) / bins,
        pixels=pixels,
        confidence=confidence,
        accuracy=accuracy,
        ece=float((gap * pixels).sum() / total) if total else None,
        mce=float(gap[some].max()) if total else None,
    )
