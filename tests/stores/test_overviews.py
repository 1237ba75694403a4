"""Overviews against a plain per-pixel count."""

from __future__ import annotations

from collections import Counter
from typing import Literal

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


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_levels_end_at_one_block(rows: int, cols: int) -> None:
    """The last level is the first that fits into a block."""
    levels = [(rows, cols), *level_shapes((rows, cols), 512)]
    assert max(levels[-1]) <= 512
    assert all(max(level) > 512 for level in levels[:-1])
