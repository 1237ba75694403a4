"""Overviews against a plain per-pixel count."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilemap.stores.overviews import halve, level_shapes

NODATA = 255
RASTERS = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from([0, 1, 2, 100, NODATA]),
)


def plain(votes: list[int], method: Literal["mode", "average"]) -> int:
    """One pixel of an overview, by the definition."""
    votes = [vote for vote in votes if vote != NODATA]
    if not votes:
        return NODATA
    if method == "mode":
        return Counter(votes).most_common(1)[0][0]
    return int(np.floor(sum(votes) / len(votes) + 0.5))


@pytest.mark.parametrize("method", ["mode", "average"])
@given(pixels=RASTERS)
def test_equals_the_definition(
    method: Literal["mode", "average"], pixels: npt.NDArray[np.uint8]
) -> None:
    """Every pixel, with ties, nodata and odd sides."""
    result = halve(pixels, NODATA, method)
    rows, cols = pixels.shape
    assert result.dtype == np.uint8
    assert result.shape == (-(-rows // 2), -(-cols // 2))
    for row, col in np.ndindex(result.shape):
        ys = (2 * row, min(2 * row + 1, rows - 1))
        xs = (2 * col, min(2 * col + 1, cols - 1))
        votes = [int(pixels[y, x]) for y in ys for x in xs]
        assert result[row, col] == plain(votes, method)


def of_dtype(dtype: str, values: list[float]) -> st.SearchStrategy[npt.NDArray[Any]]:
    """Small rasters of a few numbers."""
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)
    numbers = [np.dtype(dtype).type(value) for value in values]
    indices = hnp.arrays(np.intp, shapes, elements=st.integers(0, len(numbers) - 1))
    return indices.map(lambda chosen: np.array(numbers, dtype=dtype)[chosen])


LOWEST = -2147483648


@pytest.mark.parametrize(
    ("dtype", "nodata", "values"),
    [
        ("uint16", 65535, [0, 1, 7, 65534, 65535]),
        ("int32", LOWEST, [LOWEST, -7, -6, 3, 2147483647, -2147483647]),
        ("float32", math.nan, [math.nan, -0.5, 0.25, 3e38]),
        ("float32", -9999, [-9999, 0.125, 8.0]),
    ],
)
@given(data=st.data())
def test_means_of_wider_numbers(
    dtype: str, nodata: float, values: list[float], data: st.DataObject
) -> None:
    """Neither sums nor negative halves go wrong; NaN may be nodata."""
    pixels = data.draw(of_dtype(dtype, values))
    result = halve(pixels, nodata, "average")
    assert result.dtype == dtype
    rows, cols = pixels.shape
    for row, col in np.ndindex(result.shape):
        ys = (2 * row, min(2 * row + 1, rows - 1))
        xs = (2 * col, min(2 * col + 1, cols - 1))
        votes = [pixels[y, x].item() for y in ys for x in xs]
        votes = [vote for vote in votes if vote == vote and vote != nodata]
        if not votes:
            np.testing.assert_equal(result[row, col].item(), float(nodata))
            continue
        mean = sum(map(Fraction, votes)) / len(votes)
        if dtype != "float32":
            assert result[row, col] == math.floor(mean + Fraction(1, 2))
        else:
            np.testing.assert_allclose(result[row, col], float(mean), rtol=1e-6)


@given(of_dtype("int32", [LOWEST, -7, 6, 20000]))
def test_modes_of_wider_numbers(pixels: npt.NDArray[Any]) -> None:
    """The same as of bytes."""
    small = np.searchsorted([LOWEST, -7, 6, 20000], pixels).astype(np.uint8)
    expected = np.array([LOWEST, -7, 6, 20000], np.int32)[halve(small, 0, "mode")]
    np.testing.assert_array_equal(halve(pixels, LOWEST, "mode"), expected)


@given(of_dtype("int32", [LOWEST, -7, 6, 20000]))
def test_nearest_leaves_out(pixels: npt.NDArray[Any]) -> None:
    """Every second pixel of every second row, nodata too."""
    result = halve(pixels, LOWEST, "nearest")
    for row, col in np.ndindex(result.shape):
        assert result[row, col] == pixels[2 * row, 2 * col]
    assert result.shape == (-(-pixels.shape[0] // 2), -(-pixels.shape[1] // 2))


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_levels_end_at_one_block(rows: int, cols: int) -> None:
    """The last level is the first that fits into a block."""
    levels = [(rows, cols), *level_shapes((rows, cols), 512)]
    assert max(levels[-1]) <= 512
    assert all(max(level) > 512 for level in levels[:-1])
