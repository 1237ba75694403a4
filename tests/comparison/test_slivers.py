from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.comparison.slivers import slivers
from tilemap.errors import GridError

ByteArray = npt.NDArray[np.uint8]


def oracle(first: ByteArray, last: ByteArray) -> npt.NDArray[np.bool_]:
    """The rule, pixel by pixel."""
    rows, cols = first.shape
    found = np.zeros((rows - 2, cols - 2), dtype=bool)
    for row in range(1, rows - 1):
        for col in range(1, cols - 1):
            a, b = first[row, col], last[row, col]
            around = np.s_[row - 1 : row + 2, col - 1 : col + 2]
            found[row - 1, col - 1] = (
                a != b and 255 not in (a, b) and b in first[around] and a in last[around]
            )
    return found


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5))
def test_the_rule(seed: int, classes: int) -> None:
    """Equal to the rule as it is written, unobserved pixels included."""
    rng = np.random.default_rng(seed)
    first, last = rng.integers(0, classes, (2, 11, 16)).astype(np.uint8)
    first[rng.random(first.shape) < 0.2] = 255
    last[rng.random(last.shape) < 0.2] = 255
    assert np.array_equal(slivers(first, last), oracle(first, last))


@pytest.mark.parametrize("by", [(0, 1), (1, 0), (-1, 1)])
def test_all_that_a_shift_of_one_pixel_changes(by: tuple[int, int]) -> None:
    """A map of large fields, moved by a pixel: every changed pixel is a sliver."""
    fields = np.random.default_rng(1).integers(0, 4, (6, 9)).astype(np.uint8)
    first = np.kron(fields, np.ones((7, 5), dtype=np.uint8))
    last = np.roll(first, by, axis=(0, 1))
    inner = np.s_[2:-2, 2:-2]
    changed = (first != last)[1:-1, 1:-1]
    assert changed[inner].any()
    assert np.array_equal(slivers(first, last)[inner], changed[inner])


def test_a_new_field_is_no_sliver() -> None:
    """What appears in the middle of another class is a change, its corner too."""
    first = np.zeros((9, 12), dtype=np.uint8)
    last = first.copy()
    last[3:6, 4:9] = 1
    assert not slivers(first, last).any()


def test_one_way_is_not_enough() -> None:
    """A class beside the pixel before, but the old class gone after: more than an edge moved."""
    first = np.zeros((7, 8), dtype=np.uint8)
    first[:, 5:] = 1
    last = np.ones_like(first)
    assert not slivers(first, last).any()
    last[:, :4] = 0
    assert slivers(first, last).any()


def test_bad_shapes() -> None:
    """Two dates of one shape, with something inside the margin."""
    with pytest.raises(GridError, match=r"\(5, 4\) and \(4, 5\)"):
        slivers(np.zeros((5, 4), np.uint8), np.zeros((4, 5), np.uint8))
    with pytest.raises(GridError, match="at least 3 x 3"):
        slivers(np.zeros((2, 9), np.uint8), np.zeros((2, 9), np.uint8))
