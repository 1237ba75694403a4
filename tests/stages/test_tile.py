"""Reading patches: reflection at the scene's edge is what numpy.pad does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from tilemap.geometry import Window
from tilemap.scene import Band, Scene
from tilemap.stages.tile import read_patch, reflect_index
from tilemap.testing import random_scene


class ArrayReader:
    """A scene in memory that notes which windows were read."""

    def __init__(self, image: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]) -> None:
        from affine import Affine

        self.image, self.valid = image, valid
        bands = tuple(Band(f"band_{i}", image.dtype.name) for i in range(len(image)))
        geobox = GeoBox(image.shape[1:], Affine(10, 0, 0, 0, -10, 0), "EPSG:32618")
        self.scene = Scene(geobox, bands, "memory")
        self.windows: list[Window] = []

    def read(self, window: Window) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
        """Refuse what a file would refuse: a window outside the scene."""
        assert Window(0, 0, *self.scene.shape).contains(window)
        self.windows.append(window)
        rows, cols = window.slices()
        return self.image[:, rows, cols], self.valid[rows, cols]


@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.tuples(st.integers(0, 29), st.integers(0, 29)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 45),
)
def test_patch_is_a_window_of_the_padded_scene(
    shape: tuple[int, int], start: tuple[int, int], size: tuple[int, int], pad: int
) -> None:
    """Any patch equals the same window of the whole scene padded by numpy."""
    image = random_scene(shape, bands=2)
    valid = np.random.default_rng(1).random(shape) > 0.3
    reader = ArrayReader(image, valid)
    top, left = start[0] - pad, start[1] - pad
    window = Window(top, left, top + size[0], left + size[1])
    margin = 160
    # numpy reflects as often as needed; an axis of one pixel repeats it.
    wide = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    wide_valid = np.pad(valid, margin, mode="reflect")
    got, got_valid = read_patch(reader, window)
    rows, cols = window.slices((-margin, -margin))
    np.testing.assert_array_equal(got, wide[:, rows, cols])
    np.testing.assert_array_equal(got_valid, wide_valid[rows, cols])
    assert len(reader.windows) == 1


def test_inner_patch_reads_exactly_its_window() -> None:
    """Away from the edge nothing more than the patch is read."""
    image = random_scene((60, 80))
    reader = ArrayReader(image, np.ones((60, 80), dtype=np.bool_))
    window = Window(10, 20, 30, 50)
    read_patch(reader, window)
    assert reader.windows == [window]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_reflection_stays_inside(length: int) -> None:
    """However far it overhangs, a reflection shows pixels of the scene."""
    index = reflect_index(-50, 60, length)
    assert index.min() >= 0
    assert index.max() <= length - 1
    np.testing.assert_array_equal(index[50 : 50 + length], np.arange(length))
