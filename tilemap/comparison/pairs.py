"""Change without memory of the landscape: labels compared date by date, and change vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tilemap.comparison.smoothed import Smoothed
from tilemap.errors import ConfigError
from tilemap.probability import NODATA, shares

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

BINS = 256


def pcc(quantised: ByteArray) -> Smoothed:
    """Post-classification comparison: the likeliest class of each date, taken as it is.

    Every flicker of a label counts as a change. The dates are taken as independent, so
    ``p_change = 1 - sum_k prod_t p_t(k)`` over the observed dates, and the same of two
    neighbouring dates for a step.

    Args:
        quantised: probability, uint8 (date, class, pixel), see ``probability``; 255 in every
            class where not observed.

    Returns:
        Labels, 255 at a date that was not observed, of equal classes the first; ``p_step`` is 0
        where either of its dates is not observed.

    Raises:
        ConfigError: if the array is none of the above.
    """
    dates, _, pixels = _checked(quantised)
    labels = np.empty((dates, pixels), dtype=np.uint8)
    p_step = np.zeros((max(dates - 1, 0), pixels), dtype=np.float32)
    same = np.ones(quantised.shape[1:], dtype=np.float32)  # joint of each constant path
    seen = np.zeros(pixels, dtype=bool)
    before: FloatArray | None = None
    was_observed = seen
    for index, (label, p, observed) in enumerate(_dates(quantised)):
        labels[index] = label
        seen |= observed
        same *= np.where(observed, p, np.float32(1))
        if before is not None:
            step = 1 - np.einsum("kn,kn->n", before, p)
            p_step[index - 1] = np.where(observed & was_observed, step, 0)
        before, was_observed = p, observed
    p_change = np.where(seen, 1 - same.sum(axis=0), 0).astype(np.float32)
    return Smoothed(labels, np.clip(p_change, 0, 1), np.clip(p_step, 0, 1))


def cvaps(quantised: ByteArray, threshold: float) -> Smoothed:
    """Change vector analysis in posterior probability space.

    The length of the change vector, ``|p_t - p_r| / sqrt(2)``, is 0 for equal probabilities and
    1 between two certain classes. r is the reference: the first observed date, and from then on
    the last date whose change was accepted. A class changes only where the vector is at least
    ``threshold`` long and the likeliest class is another one; else the old class stays.

    After Chen, Chen, Cui and Chen (2011), IEEE Geoscience and Remote Sensing Letters 8(2),
    317-321, who take two dates.

    Args:
        quantised: as for ``pcc``.
        threshold: 0..1; see ``otsu``.

    Returns:
        Labels, 255 at a date that was not observed; ``p_change`` is the longest change vector
        and ``p_step`` that of the step's second date, 0 where it is not observed: lengths, no
        probabilities.

    Raises:
        ConfigError: if the threshold lies outside 0..1, or the array is none of the above.
    """
    dates, _, pixels = _checked(quantised)
    if not 0 <= threshold <= 1:
        raise ConfigError(f"the threshold of cvaps must lie in 0..1, got {threshold}")
    labels = np.full((dates, pixels), NODATA, dtype=np.uint8)
    p_step = np.zeros((max(dates - 1, 0), pixels), dtype=np.float32)
    longest = np.zeros(pixels, dtype=np.float32)
    reference = np.zeros(quantised.shape[1:], dtype=np.float32)
    current = np.full(pixels, NODATA, dtype=np.uint8)
    for index, (label, p, observed) in enumerate(_dates(quantised)):
        fresh = observed & (current == NODATA)
        compared = observed & ~fresh
        length = np.where(compared, _length(p, reference), 0).astype(np.float32)
        accepted = fresh | (compared & (length >= threshold) & (label != current))
        current = np.where(accepted, label, current)
        reference = np.where(accepted, p, reference)
        labels[index] = np.where(observed, current, NODATA)
        np.maximum(longest, length, out=longest)
        if index:
            p_step[index - 1] = length
    return Smoothed(labels, longest, p_step)


def magnitudes(first: ByteArray, last: ByteArray) -> FloatArray:
    """Lengths of the change vectors of two dates, a sample to give to ``otsu``.

    Args:
        first: quantised probability, uint8 (class, pixel).
        last: the same of the other date.

    Returns:
        0..1, float32, of the pixels observed at both.
    """
    both = (first[0] != NODATA) & (last[0] != NODATA)
    return _length(shares(first[:, both]), shares(last[:, both]))


def otsu(magnitudes: npt.NDArray[np.floating]) -> float:
    """The threshold that best parts lengths of change vectors in two groups.

    Otsu (1979), IEEE Transactions on Systems, Man, and Cybernetics 9(1), 62-66: the largest
    variance between the groups, on 256 bins over 0..1; the middle of the best ones if several
    are equally good.

    Args:
        magnitudes: 0..1, any shape; what is no number is left out.

    Raises:
        ConfigError: if there is none, or all fall in one bin, so that nothing parts them.
    """
    values = np.asarray(magnitudes, dtype=np.float64).ravel()
    values = values[np.isfinite(values)]
    counts, edges = np.histogram(values, bins=BINS, range=(0.0, 1.0))
    if np.count_nonzero(counts) < 2:
        raise ConfigError(
            f"a threshold needs change vectors of different lengths, got {values.size} alike; "
            "give a threshold"
        )
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)  # at or below each inner edge
    above = counts.sum() - below
    sums = np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    between = np.where((below > 0) & (above > 0), between, -1.0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1:-1][best].mean())


def _checked(quantised: ByteArray) -> tuple[int, int, int]:
    """Shape of an array of dates, (dates, classes, pixels)."""
    if quantised.ndim != 3 or quantised.dtype != np.uint8 or 0 in quantised.shape[:2]:
        raise ConfigError(
            "probabilities must be uint8 (date, class, pixel) with a date and a class, got "
            f"{quantised.dtype} {quantised.shape}"
        )
    dates, classes, pixels = quantised.shape
    return dates, classes, pixels


def _dates(quantised: ByteArray) -> Iterator[tuple[ByteArray, FloatArray, npt.NDArray[np.bool_]]]:
    """Label, probability and observed pixels of each date."""
    for date in quantised:
        observed = date[0] != NODATA
        yield winners(date), shares(date), observed


def winners(date: ByteArray) -> ByteArray:
    """The likeliest class of each pixel, of equal ones the first; 255 where not observed.

    Args:
        date: quantised probability, uint8 (class, ...).
    """
    # one pass a class over contiguous pixels; argmax over the outer axis takes ten times as long
    best, label = date[0].copy(), np.zeros(date.shape[1:], dtype=np.uint8)
    for index in range(1, len(date)):
        label[date[index] > best] = index
        np.maximum(best, date[index], out=best)
    label[date[0] == NODATA] = NODATA
    return label


def _length(first: FloatArray, last: FloatArray) -> FloatArray:
    vector = last - first
    squared: FloatArray = np.einsum("kn,kn->n", vector, vector)
    return np.minimum(np.sqrt(squared / 2), np.float32(1))
