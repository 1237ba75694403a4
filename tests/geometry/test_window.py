"""Laws of Window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import GridError
from tilemap.geometry import Window
from tilemap.testing import windows


def pixels(window: Window) -> set[tuple[int, int]]:
    """Every pixel of a window, one by one: the oracle."""
    return {
        (row, col)
        for row in range(window.top, window.bottom)
        for col in range(window.left, window.right)
    }


@given(windows(longest=12))
def test_shape_and_size_count_its_pixels(window: Window) -> None:
    """Height, width, shape and size agree with the pixels themselves."""
    inside = pixels(window)
    assert window.size == len(inside) == window.height * window.width
    assert window.shape == (window.height, window.width)
    if inside:
        assert window.height == len({row for row, _ in inside})
        assert window.width == len({col for _, col in inside})


@given(windows(low=-6, high=6, longest=9), windows(low=-6, high=6, longest=9))
def test_intersect_keeps_what_both_cover(one: Window, two: Window) -> None:
    """The pixels of the intersection are the common pixels; it lies inside the first."""
    both = one.intersect(two)
    assert pixels(both) == pixels(one) & pixels(two)
    assert one.contains(both)
    assert pixels(both) == pixels(two.intersect(one))


@given(windows(low=-4, high=4, longest=6), windows(low=-4, high=4, longest=6))
def test_contains_means_every_pixel(one: Window, two: Window) -> None:
    """For windows that are not empty, containing is the subset relation."""
    if two.size:
        assert one.contains(two) == (pixels(two) <= pixels(one))


@given(windows(), st.integers(0, 20), st.integers(0, 20))
def test_grow_moves_every_side(window: Window, rows: int, cols: int) -> None:
    """Growing adds rows and columns on both sides; shrinking by the same undoes it."""
    grown = window.grow(rows, cols)
    assert grown.shape == (window.height + 2 * rows, window.width + 2 * cols)
    assert (grown.top, grown.left) == (window.top - rows, window.left - cols)
    assert grown.grow(-rows, -cols) == window
    assert window.grow(rows) == window.grow(rows, rows)


@given(windows(low=0, high=8, longest=6), windows(low=0, high=3, longest=9))
def test_slices_select_its_pixels(window: Window, moved: Window) -> None:
    """Indexing an array of addresses gives the window's own addresses."""
    address = np.stack(np.mgrid[:20, :20], axis=-1)
    got = address[window.slices()]
    assert got.shape == (*window.shape, 2)
    assert {tuple(pixel) for pixel in got.reshape(-1, 2).tolist()} == pixels(window)
    outer = Window(-moved.top, -moved.left, 20, 20)
    larger = np.stack(np.mgrid[outer.top : 20, outer.left : 20], axis=-1)
    assert np.array_equal(larger[window.within(outer)], got)


@pytest.mark.parametrize("origin", [(6, 0), (0, 6), (6, 6)])
def test_slices_refuse_an_origin_behind_the_window(origin: tuple[int, int]) -> None:
    """A negative start would silently count from the array's other end."""
    with pytest.raises(GridError, match="begins before the array"):
        Window(5, 5, 9, 9).slices(origin)


@pytest.mark.parametrize("corners", [(3, 0, 2, 5), (0, 3, 5, 2), (3, 3, 2, 2)])
def test_an_inverted_window_is_refused(corners: tuple[int, int, int, int]) -> None:
    """Bottom above top, or right before left, cannot be made."""
    with pytest.raises(GridError, match=f"got top={corners[0]}, left={corners[1]}"):
        Window(*corners)


def test_shrinking_past_nothing_is_refused() -> None:
    """Growing by a negative number may empty a window, not turn it inside out."""
    assert Window(0, 0, 4, 4).grow(-2).size == 0
    with pytest.raises(GridError):
        Window(0, 0, 4, 4).grow(-3)
