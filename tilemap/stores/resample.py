"""Bilinear interpolation and area averages between grids whose axes run alike; pure arrays.

Both are separable, and a pixel depends on its own row and column only: however a grid is cut, the
numbers are the same to the last bit. About eight times as fast as a general warp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.stores.rasters import AnyArray, BoolArray

_STEPS = 2.0**20  # coordinates are kept to 1 / _STEPS pixels, so that rounding leaves no slivers


@dataclass(frozen=True, slots=True)
class Taps:
    """Which pixels of the source, with what weight, make the pixels of the target, on one axis.

    Args:
        index: int64 (tap, target), pixels of the source, in ascending order over all.
        weight: float64 (tap, target), at least 0; a pixel's weights need not sum to 1.
        nearest: int64 (target,), the source pixel that holds the target pixel's centre.
    """

    index: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    nearest: npt.NDArray[np.int64]

    @property
    def start(self) -> int:
        """The first source pixel needed."""
        return int(min(self.index.min(), self.nearest.min()))

    @property
    def stop(self) -> int:
        """One past the last source pixel needed."""
        return int(max(self.index.max(), self.nearest.max())) + 1


def bilinear_taps(step: float, origin: float, start: int, stop: int) -> Taps:
    """Two taps per pixel: the source centres on both sides of the target's centre.

    Args:
        step: pixels of the source per pixel of the target; negative if the axes run opposite.
        origin: where the target's pixel 0 begins, in pixels of the source.
        start: first pixel of the target.
        stop: one past the last.
    """
    centre = _kept(step * (np.arange(start, stop) + 0.5) + origin)
    low = np.floor(centre - 0.5)
    after = centre - 0.5 - low
    index = np.stack([low, low + (after > 0)]).astype(np.int64)
    return Taps(index, np.stack([1 - after, after]), np.floor(centre).astype(np.int64))


def average_taps(step: float, origin: float, start: int, stop: int) -> Taps:
    """Every source pixel a target pixel covers, weighted by how much of it is covered, 0..1.

    Arguments as for ``bilinear_taps``.
    """
    edges = np.arange(start, stop)
    one, two = _kept(step * edges + origin), _kept(step * (edges + 1) + origin)
    low, high = np.minimum(one, two), np.maximum(one, two)
    first = np.floor(low)
    count = int(np.ceil(abs(step))) + 1
    pixel = first + np.arange(count)[:, None]
    weight = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, 1)
    index = np.where(weight > 0, pixel, first).astype(np.int64)
    return Taps(index, weight, np.floor(_kept((low + high) / 2)).astype(np.int64))


def resample(
    image: AnyArray, valid: BoolArray, rows: Taps, cols: Taps, least: float | None
) -> tuple[AnyArray, BoolArray]:
    """Weigh the pixels of a source together; what is not valid weighs nothing.

    Args:
        image: (band, y, x), finite where valid; its first pixel is ``(rows.start, cols.start)``.
        valid: bool (y, x).
        rows: taps along y.
        cols: taps along x.
        least: share of the weight, 0..1, that must be valid for a pixel to be so; None if it is
            by the source pixel that holds its centre.

    Returns:
        image (band, y, x) of the same dtype, integers rounded half up, 0 where not valid;
        valid bool (y, x).
    """
    fine = image.dtype.kind == "f" and image.dtype.itemsize > 4
    wide = image.dtype.kind != "f" and image.dtype.itemsize > 2
    work = np.dtype(np.float64 if fine or wide else np.float32)
    row_index, col_index = rows.index - rows.start, cols.index - cols.start
    row_weight, col_weight = rows.weight.astype(work), cols.weight.astype(work)

    def weigh(plane: AnyArray) -> npt.NDArray[Any]:
        partial = _weigh(plane.astype(work, copy=False), row_index, row_weight, axis=0)
        return _weigh(partial, col_index, col_weight, axis=1)

    total = row_weight.sum(axis=0)[:, None] * col_weight.sum(axis=0)[None, :]
    whole = bool(valid.all())
    share, seen = total, np.ones(total.shape, dtype=np.bool_)
    if not whole:
        weighed = weigh(valid)
        # pixels without a gap divide by the same number as they do in a window without one
        gap = weigh(~valid) > 0
        share = np.where(gap, weighed, total)
        if least is None:
            seen = valid[np.ix_(rows.nearest - rows.start, cols.nearest - cols.start)]
        else:
            seen = weighed >= least * total * (1 - 1e-4)
        seen = seen & (share > 0)
        share = np.where(seen, share, 1)
    result = np.empty((image.shape[0], *total.shape), dtype=image.dtype)
    for plane, out in zip(image, result, strict=True):
        value = weigh(plane if whole else np.where(valid, plane, 0))
        value /= share
        value += 0  # no tap may leave a minus before a zero
        if image.dtype.kind != "f":
            value += 0.5
            np.floor(value, out=value)
            limits = np.iinfo(image.dtype)
            np.clip(value, limits.min, limits.max, out=value)
        np.copyto(out, value, casting="unsafe")
        if not whole:
            out[~seen] = 0
    return result, seen


def _kept(coordinate: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    kept: npt.NDArray[np.float64] = np.rint(coordinate * _STEPS) / _STEPS
    return kept


def _weigh(
    plane: npt.NDArray[Any], index: npt.NDArray[np.int64], weight: npt.NDArray[Any], axis: int
) -> npt.NDArray[Any]:
    """Sum of taps along one axis."""
    total: npt.NDArray[Any] = np.take(plane, index[0], axis=axis)
    total *= np.expand_dims(weight[0], 1 - axis)
    for tap, share in zip(index[1:], weight[1:], strict=True):
        if share.any():
            part = np.take(plane, tap, axis=axis)
            part *= np.expand_dims(share, 1 - axis)
            total += part
    return total
