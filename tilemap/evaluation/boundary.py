"""Boundary F1: whether the borders between classes run where the reference has them.

Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?" Counted window by
window; with a halo of ``Tolerance.halo`` pixels the counts of all cores sum exactly to those of
the whole map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.errors import UsageError
from tilemap.evaluation.metrics import IGNORE, IntArray

PREDICTED, PREDICTED_NEAR, REFERENCE, REFERENCE_NEAR = range(4)
"""Columns of the counts: boundary pixels of the map, those near the reference's, and vice versa."""
_FARTHEST = 256  # pixels; the work grows with it, and so does what is read around a tile
_EQUAL = 1 + 1e-9  # distances this near to the tolerance are equal to it
_AT_ONCE = 8  # classes, one bit each

ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a boundary may lie from the reference's and still be right.

    Args:
        distance: between pixel centres, in the unit of ``pixel``; equal to it is near enough.
        pixel: height and width of a pixel; (1, 1) makes ``distance`` a number of pixels.

    Raises:
        UsageError: if the distance is not above 0, or spans more than 256 pixels.
    """

    distance: float
    pixel: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.distance < math.inf:
            raise UsageError(f"the tolerance must be above 0, got {self.distance:g}")
        if self.distance / min(self.pixel) > _FARTHEST:
            raise UsageError(
                f"the tolerance must be at most {_FARTHEST} pixels, "
                f"got {self.distance / min(self.pixel):.0f}"
            )

    @property
    def half_widths(self) -> tuple[int, ...]:
        """Of the disk, by rows away from its centre: pixels on either side that are near."""
        down, right = self.pixel
        limit = self.distance * self.distance * _EQUAL
        widths = []
        for row in range(int(self.distance / down * _EQUAL) + 1):
            width = -1
            while (row * down) ** 2 + ((width + 1) * right) ** 2 <= limit:
                width += 1
            if width >= 0:
                widths.append(width)
        return tuple(widths)

    @property
    def halo(self) -> int:
        """Pixels around a core on which its counts depend: the disk, and one neighbour more."""
        widths = self.half_widths
        return max(len(widths) - 1, widths[0]) + 1


@dataclass(frozen=True)
class BoundaryScores:
    """Figures of boundary counts; a share of nothing is 0.

    Args:
        precision: share of the map's boundary pixels of a class that lie near one of the
            reference's, float64 (class,), 0..1.
        recall: share of the reference's that lie near one of the map's, float64 (class,), 0..1.
        f1: harmonic mean of the two, float64 (class,), 0..1.
        present: bool (class,), True where map or reference have a boundary of the class.
        mean_f1: over the classes present; None where there is no boundary at all.
    """

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    present: BoolArray
    mean_f1: float | None


def boundary_counts(
    reference: ByteArray,
    predicted: ByteArray,
    core: tuple[slice, slice],
    classes: int,
    tolerance: Tolerance,
) -> IntArray:
    """Count the boundary pixels of a core, and those that lie near the other map's.

    A boundary pixel has a 4-neighbour of another class. A pixel that is not observed in either of
    the two takes no part and makes no boundary; nor does the edge of the map.

    Args:
        reference: class indices or ``IGNORE``, uint8 (y, x): the core and ``tolerance.halo``
            pixels around it, as far as the map reaches.
        predicted: the same of the map.
        core: index of the core in both.
        classes: how many there are.
        tolerance: what is near.

    Returns:
        int64 (class, 4), columns ``PREDICTED``, ``PREDICTED_NEAR``, ``REFERENCE``,
        ``REFERENCE_NEAR``.
    """
    counts = np.zeros((classes, 4), dtype=np.int64)
    seen = (reference != IGNORE) & (predicted != IGNORE)
    edge_reference, edge_predicted = _boundary(reference, seen), _boundary(predicted, seen)
    shown = np.bincount(reference[edge_reference], minlength=256)
    shown += np.bincount(predicted[edge_predicted], minlength=256)
    present = np.flatnonzero(shown)
    widths = tolerance.half_widths
    for start in range(0, present.size, _AT_ONCE):
        bit = np.zeros(256, dtype=np.uint8)
        group = present[start : start + _AT_ONCE]
        bit[group] = 1 << np.arange(group.size)
        bits_reference = np.where(edge_reference, bit[reference], np.uint8(0))
        bits_predicted = np.where(edge_predicted, bit[predicted], np.uint8(0))
        for column, bits, other, labels in (
            (PREDICTED, bits_predicted, bits_reference, predicted),
            (REFERENCE, bits_reference, bits_predicted, reference),
        ):
            own, label = bits[core], labels[core]
            near = own & dilate(other, widths)[core]
            counts[:, column] += np.bincount(label[own > 0], minlength=classes)
            counts[:, column + 1] += np.bincount(label[near > 0], minlength=classes)
    return counts


def _boundary(labels: ByteArray, seen: BoolArray) -> BoolArray:
    """Pixels with a 4-neighbour of another class, both seen."""
    edge = np.zeros(labels.shape, dtype=np.bool_)
    for first, second in (
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        differ = (labels[first] != labels[second]) & seen[first] & seen[second]
        edge[first] |= differ
        edge[second] |= differ
    return edge


def dilate(bits: ByteArray, half_widths: tuple[int, ...]) -> ByteArray:
    """Spread every bit over the disk around it: eight binary dilations at once, exact.

    Args:
        bits: uint8 (y, x).
        half_widths: of the disk, see ``Tolerance``; they fall from the centre outwards.

    Returns:
        uint8 (y, x): the bits of all pixels whose disk holds this one.
    """
    out = np.zeros_like(bits)
    wide, width = bits, 0
    for away in range(len(half_widths) - 1, -1, -1):
        while width < half_widths[away]:
            wider = wide.copy()
            wider[:, 1:] |= wide[:, :-1]
            wider[:, :-1] |= wide[:, 1:]
            wide, width = wider, width + 1
        if away == 0:
            out |= wide
        elif away < bits.shape[0]:
            out[away:] |= wide[:-away]
            out[:-away] |= wide[away:]
    return out


def boundary_scores(counts: npt.NDArray[Any]) -> BoundaryScores:
    """All figures of boundary counts.

    Args:
        counts: (class, 4) as ``boundary_counts`` makes them, or a sum of such.
    """
    counts = np.asarray(counts, dtype=np.int64)
    precision = _share(counts[:, PREDICTED_NEAR], counts[:, PREDICTED])
    recall = _share(counts[:, REFERENCE_NEAR], counts[:, REFERENCE])
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    present = (counts[:, PREDICTED] + counts[:, REFERENCE]) > 0
    mean = float(f1[present].mean()) if present.any() else None
    return BoundaryScores(precision, recall, f1, present, mean)


def _share(part: IntArray, whole: IntArray) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
