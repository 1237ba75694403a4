"""The counts of a tile, and of a map: integers that add up, and travel in less than 1 kB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tilemap.evaluation.boundary import Tolerance, boundary_counts
from tilemap.evaluation.calibration import confidence_counts
from tilemap.evaluation.metrics import IGNORE, IntArray, confusion

ByteArray = npt.NDArray[np.uint8]


@dataclass
class Tally:
    """Counts of part of a map.

    Args:
        matrix: pairs of classes, int64 (class, class), see ``metrics.confusion``.
        boundary: int64 (class, 4), see ``boundary.boundary_counts``.
        confidence: int64 (101, 2), see ``calibration.confidence_counts``.
        reference: pixels of the reference, whether the map observed them or not.
        regions: ``matrix`` of each region that has pixels, by its number.
        seen: pixels that both know on blocks for training and for validation, int64 (2,), those
            that are left out included.
    """

    matrix: IntArray
    boundary: IntArray
    confidence: IntArray
    reference: int = 0
    regions: dict[int, IntArray] = field(default_factory=dict)
    seen: IntArray = field(default_factory=lambda: np.zeros(2, dtype=np.int64))

    @classmethod
    def empty(cls, classes: int) -> Tally:
        """Nothing counted yet."""
        return cls(_zeros(classes, classes), _zeros(classes, 4), _zeros(101, 2))

    def add(self, other: Tally) -> None:
        """Count another part in."""
        self.matrix += other.matrix
        self.boundary += other.boundary
        self.confidence += other.confidence
        self.reference += other.reference
        self.seen += other.seen
        for number, matrix in other.regions.items():
            before = self.regions.get(number)
            self.regions[number] = matrix.copy() if before is None else before + matrix

    def to_bytes(self) -> bytes:
        """All counts, seven bits to a byte: small numbers are short."""
        out = bytearray()
        for array in (self.matrix, self.boundary, self.confidence, self.seen):
            _append(out, array.ravel().tolist())
        _append(out, [self.reference, len(self.regions)])
        for number, matrix in sorted(self.regions.items()):
            some = np.flatnonzero(matrix)
            pairs = zip(some.tolist(), matrix.ravel()[some].tolist(), strict=True)
            _append(out, [number, some.size, *(n for pair in pairs for n in pair)])
        return bytes(out)

    @classmethod
    def from_bytes(cls, content: bytes, classes: int) -> Tally:
        """The inverse of ``to_bytes``."""
        numbers = _numbers(content)
        tally = cls.empty(classes)
        for array in (tally.matrix, tally.boundary, tally.confidence, tally.seen):
            array[...] = np.reshape([next(numbers) for _ in range(array.size)], array.shape)
        tally.reference = next(numbers)
        for _ in range(next(numbers)):
            matrix = _zeros(classes, classes)
            number, filled = next(numbers), next(numbers)
            for _ in range(filled):
                at = next(numbers)
                matrix.flat[at] = next(numbers)
            tally.regions[number] = matrix
        return tally


def _zeros(rows: int, cols: int) -> IntArray:
    return np.zeros((rows, cols), dtype=np.int64)


def _append(out: bytearray, numbers: list[int]) -> None:
    for number in numbers:
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)


def _numbers(content: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in content:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield number
            number = shift = 0


def count_tile(
    labels: tuple[ByteArray, ByteArray],
    core: tuple[slice, slice],
    classes: int,
    tolerance: Tolerance,
    confidence: ByteArray | None = None,
    regions: npt.NDArray[np.int32] | None = None,
) -> Tally:
    """Count one tile.

    Args:
        labels: reference and map, class indices or ``IGNORE``, uint8 (y, x): the core and
            ``tolerance.halo`` pixels around it, as far as the map reaches.
        core: index of the core in both.
        classes: how many there are.
        tolerance: of boundaries.
        confidence: percent of the core, 255 where there is none; None if there is no such raster.
        regions: number of each pixel's region in the core, -1 in none; None without regions.

    Raises:
        SceneError: if a confidence is no percent.
    """
    reference, predicted = (array[core] for array in labels)
    tally = Tally.empty(classes)
    tally.reference = int(np.count_nonzero(reference != IGNORE))
    if tally.reference == 0:
        return tally
    tally.matrix += confusion(reference, predicted, classes)
    tally.boundary += boundary_counts(*labels, core, classes, tolerance)
    if confidence is not None:
        tally.confidence += confidence_counts(confidence, reference, predicted)
    if regions is not None:
        tally.regions = _by_region(reference, predicted, regions, classes)
    return tally


def _by_region(
    reference: ByteArray, predicted: ByteArray, regions: npt.NDArray[np.int32], classes: int
) -> dict[int, IntArray]:
    seen = (reference != IGNORE) & (predicted != IGNORE) & (regions >= 0)
    numbers, where = np.unique(regions[seen], return_inverse=True)
    if not numbers.size:
        return {}
    pairs = reference[seen].astype(np.int64) * classes + predicted[seen]
    counts = np.bincount(where * (classes * classes) + pairs, minlength=numbers.size * classes**2)
    matrices = counts.astype(np.int64).reshape(numbers.size, classes, classes)
    return dict(zip(numbers.tolist(), matrices, strict=True))
