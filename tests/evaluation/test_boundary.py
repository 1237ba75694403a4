"""Boundary F1 by tiles against a search through all pairs of pixels of the whole map."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import UsageError
from tilemap.evaluation.boundary import Tolerance, boundary_counts, boundary_scores
from tilemap.evaluation.metrics import IGNORE
from tilemap.geometry import TileGrid

Labels = npt.NDArray[np.uint8]
CLASSES = 10  # more than are dilated at once


@st.composite
def maps(draw: st.DrawFn) -> tuple[Labels, Labels]:
    """Two maps of a few large patches of classes, not alike everywhere, some pixels ignored."""
    shape = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.integers(1, 4))
    shown = draw(st.integers(1, CLASSES))
    coarse = rng.integers(0, shown, (-(-shape[0] // size), -(-shape[1] // size)))
    labels = coarse.repeat(size, 0).repeat(size, 1)[: shape[0], : shape[1]].astype(np.uint8)
    other = np.roll(labels, draw(st.integers(0, 2)), draw(st.sampled_from([0, 1])))
    noise = rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.5]))
    other = np.where(noise, rng.integers(0, shown, shape), other).astype(np.uint8)
    for array in (labels, other):
        array[rng.random(shape) < draw(st.sampled_from([0.0, 0.2]))] = IGNORE
    return labels, other


def brute_force(reference: Labels, predicted: Labels, tolerance: Tolerance) -> Any:
    """The counts, by looking at every pixel, its neighbours, and every pair."""
    rows, cols = reference.shape
    seen = [
        (y, x)
        for y in range(rows)
        for x in range(cols)
        if reference[y, x] != IGNORE and predicted[y, x] != IGNORE
    ]

    def boundary(labels: Labels, label: int) -> list[tuple[int, int]]:
        return [
            (y, x)
            for y, x in seen
            if labels[y, x] == label
            and any(
                (v, u) in known and labels[v, u] != label
                for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            )
        ]

    known = set(seen)
    down, right = tolerance.pixel
    counts = np.zeros((CLASSES, 4), dtype=np.int64)
    for label in range(CLASSES):
        found, true = boundary(predicted, label), boundary(reference, label)
        for column, some, others in ((0, found, true), (2, true, found)):
            near = sum(
                any(
                    math.hypot((y - v) * down, (x - u) * right) <= tolerance.distance + 1e-7
                    for v, u in others
                )
                for y, x in some
            )
            counts[label, column : column + 2] = len(some), near
    return counts


def tiled(reference: Labels, predicted: Labels, tolerance: Tolerance, core: int) -> Any:
    """The same, core by core."""
    rows, cols = reference.shape
    grid = TileGrid((rows, cols), core, 0, 0)
    total = np.zeros((CLASSES, 4), dtype=np.int64)
    for tile in grid.tiles():
        owned = grid.core_window(tile)
        window = owned.grow(tolerance.halo).intersect(grid.scene_window)
        place = window.slices()
        total += boundary_counts(
            reference[place], predicted[place], owned.within(window), CLASSES, tolerance
        )
    return total


@given(
    maps(),
    st.sampled_from([0.5, 1.0, math.sqrt(2), 2.0, 2.5, 4.0, 5.0, 30.0]),
    st.sampled_from([(1.0, 1.0), (1.0, 2.0), (2.5, 1.0), (31.53, 31.52)]),
)
def test_sums_over_tiles_are_the_counts_of_the_whole_map(
    pair: tuple[Labels, Labels], distance: float, pixel: tuple[float, float]
) -> None:
    """Every tile size from one pixel on gives the brute-force counts, to the last pixel."""
    tolerance = Tolerance(distance * min(pixel), pixel)
    expected = brute_force(*pair, tolerance)
    for core in range(1, max(pair[0].shape) + 1):
        np.testing.assert_array_equal(tiled(*pair, tolerance, core), expected)


def test_a_boundary_shifted_by_two_pixels() -> None:
    """Wrong within one pixel, right within two: the distance itself is near enough."""
    reference, predicted = np.zeros((2, 5, 12), dtype=np.uint8)
    reference[:, 6:], predicted[:, 8:] = 1, 1
    whole = np.s_[0:5, 0:12]
    near = boundary_scores(boundary_counts(reference, predicted, whole, 2, Tolerance(2)))
    far = boundary_scores(boundary_counts(reference, predicted, whole, 2, Tolerance(1.9)))
    assert near.mean_f1 == 1.0
    assert far.mean_f1 == 0.0


def test_only_classes_with_a_boundary_enter_the_mean() -> None:
    """A class that is only in the reference counts with 0; one that is nowhere does not count."""
    counts = np.array([[4, 4, 4, 2], [0, 0, 6, 0], [0, 0, 0, 0]])
    got = boundary_scores(counts)
    assert got.present.tolist() == [True, True, False]
    assert got.f1.tolist() == [pytest.approx(2 / 3), 0, 0]
    assert got.mean_f1 == pytest.approx(1 / 3)
    assert boundary_scores(np.zeros((2, 4))).mean_f1 is None


def test_the_disk_counts_what_is_exactly_as_far() -> None:
    """Three pixels of 31.53 m are within 94.59 m, whatever floats make of it."""
    assert Tolerance(94.59, (31.53, 31.53)).half_widths == Tolerance(3).half_widths
    assert Tolerance(3).half_widths == (3, 2, 2, 0)
    assert Tolerance(5).half_widths == (5, 4, 4, 4, 3, 0)
    assert Tolerance(0.3).halo == 1
    assert Tolerance(20, (10, 5)).halo == 5


@pytest.mark.parametrize("distance", [0, -1, math.nan, math.inf, 257])
def test_a_tolerance_that_cannot_hold(distance: float) -> None:
    """Zero, less, nothing or too much is refused."""
    with pytest.raises(UsageError, match="tolerance must be"):
        Tolerance(distance)
