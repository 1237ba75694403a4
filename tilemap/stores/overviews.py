"""Overviews: each level halves the one before, by mode, by mean, or by leaving pixels out.

GDAL's own resampling gives the same kind of overviews at four times the time.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
Method = Literal["mode", "average", "nearest"]
WIDER = {"uint8": "uint16", "uint16": "uint32", "int32": "int64", "float32": "float64"}
"""In which four numbers can be added up."""


def level_shapes(shape: tuple[int, int], smallest: int) -> list[tuple[int, int]]:
    """Shapes of the overviews, halved and rounded up until both sides are at most ``smallest``.

    >>> level_shapes((2000, 1500), 512)
    [(1000, 750), (500, 375)]
    """
    shapes = []
    while max(shape) > smallest:
        shape = (-(-shape[0] // 2), -(-shape[1] // 2))
        shapes.append(shape)
    return shapes


def halve(pixels: AnyArray, nodata: float, method: Method) -> AnyArray:
    """One pixel for each 2 x 2.

    Args:
        pixels: uint8, uint16, int32 or float32 (y, x) of any size; an odd last row or column
            counts twice.
        nodata: stored number that has no vote; a pixel of nothing else stays nodata. May be NaN.
        method: "mode": the most frequent number, of equals the first in reading order;
            "average": the mean, of whole numbers rounded to the nearest, halves up; "nearest":
            the first in reading order, nodata included, so that bands stay together.

    Returns:
        (y / 2, x / 2), rounded up, of the same dtype.
    """
    if method == "nearest":
        return np.ascontiguousarray(pixels[::2, ::2])
    rows, cols = pixels.shape
    if rows % 2 or cols % 2:
        pixels = np.pad(pixels, ((0, rows % 2), (0, cols % 2)), mode="edge")
    return _mode(pixels, nodata) if method == "mode" else _mean(pixels, nodata)


def _missing(pixels: AnyArray, nodata: float) -> BoolArray:
    found: BoolArray = np.isnan(pixels) if math.isnan(nodata) else pixels == nodata
    return found


def _mode(pixels: AnyArray, nodata: float) -> AnyArray:
    a, b, c, d = _quarters(pixels)
    result = a.copy()
    # Where a has a twin it is a mode; elsewhere, a few percent of a class map, look closer.
    odd = np.flatnonzero((a != b) & (a != c) & (a != d))
    if odd.size:
        e, f, g, h = a[odd], b[odd], c[odd], d[odd]
        result[odd] = np.where((f == g) | (f == h), f, np.where(g == h, g, e))
    lost = np.flatnonzero(_missing(result, nodata))
    if lost.size:
        result[lost] = _mode_of_valid(np.stack([q[lost] for q in (a, b, c, d)]), nodata)
    return result.reshape(pixels.shape[0] // 2, -1)


def _mode_of_valid(votes: AnyArray, nodata: float) -> AnyArray:
    """Mode of four votes (4, n) of which at least half are nodata or none has a twin."""
    valid = ~_missing(votes, nodata)
    same = (votes[:, None] == votes[None, :]).sum(axis=1)
    best = np.argmax(np.where(valid, same, 0), axis=0)
    return np.asarray(votes[best, np.arange(votes.shape[1])])


def _mean(pixels: AnyArray, nodata: float) -> AnyArray:
    wider = np.dtype(WIDER[pixels.dtype.name])
    whole = wider.kind != "f"
    rows = np.add(pixels[::2], pixels[1::2], dtype=wider)
    total = rows[:, ::2] + rows[:, 1::2]
    mean = (total + wider.type(2)) >> 2 if whole else total / 4
    result = mean.astype(pixels.dtype).reshape(-1)
    # np.any of a comparison is cheap beside taking quarters
    missing = _missing(pixels, nodata)
    if missing.any():
        quarters = np.stack(_quarters(pixels))
        some = np.flatnonzero(_missing(quarters, nodata).any(axis=0))
        votes = quarters[:, some]
        valid = ~_missing(votes, nodata)
        count = valid.sum(axis=0, dtype=wider)
        total = np.where(valid, votes, 0).sum(axis=0, dtype=wider)
        counted = np.maximum(count, 1)
        mean = (total + count // 2) // counted if whole else total / counted
        result[some] = np.where(count > 0, mean, nodata).astype(pixels.dtype)
    return result.reshape(pixels.shape[0] // 2, -1)


def _quarters(pixels: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray]:
    """The four pixels of each 2 x 2 in reading order, each flat and contiguous."""
    corners = ((0, 0), (0, 1), (1, 0), (1, 1))
    a, b, c, d = (np.ascontiguousarray(pixels[i::2, j::2]).reshape(-1) for i, j in corners)
    return a, b, c, d
