"""Pictures: bounded reading, honest gaps, right colours in the right place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile

from tilemap.geometry import Window
from tilemap.report.quicklook import (
    BACKGROUND,
    GAP,
    class_preview,
    coarse_to_fine,
    display_bands,
    draw,
    paint,
    png_bytes,
    preview,
    preview_step,
    quicklook,
    save_png,
    stretch,
)
from tilemap.stores.cog import RasterProfile, write_cog

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


class Reader:
    """A scene whose numbers tell their place, and which remembers what was read."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.windows: list[Window] = []

    def __call__(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Row numbers, column numbers, and NaN where row + column is a multiple of 7."""
        assert Window(0, 0, *self.shape).contains(window)
        self.windows.append(window)
        rows, cols = np.mgrid[window.top : window.bottom, window.left : window.right]
        valid = (rows + cols) % 7 != 0
        image = np.stack([np.where(valid, rows, np.nan), np.where(valid, cols, np.nan)])
        return image, valid


@pytest.mark.parametrize("shape", [(1, 1), (30, 50), (801, 17), (1300, 2100)])
def test_preview_is_the_mean_of_what_is_valid(shape: tuple[int, int]) -> None:
    """Each pixel equals the mean over its square, and NaN does not spread."""
    read = Reader(shape)
    picture, valid = preview(read, shape, (1, 0), longest=100, seconds=60)
    step = preview_step(shape, 100)
    assert max(picture.shape) <= 100
    image, known = read(Window(0, 0, *shape))
    for row, col in (
        (0, 0),
        (picture.shape[1] - 1, picture.shape[2] - 1),
        (picture.shape[1] // 2, 0),
    ):
        square = np.s_[row * step : (row + 1) * step, col * step : (col + 1) * step]
        assert valid[row, col] == known[square].any()
        if valid[row, col]:
            expected = [image[band][square][known[square]].mean() for band in (1, 0)]
            np.testing.assert_allclose(picture[:, row, col], expected, rtol=1e-5)
    assert np.isfinite(picture).all()


def test_preview_never_holds_the_scene() -> None:
    """Windows are about a block, each pixel is read once."""
    read = Reader((3000, 5000))
    preview(read, (3000, 5000), (0,), seconds=60)
    assert max(window.size for window in read.windows) <= 512 * 512
    assert sum(window.size for window in read.windows) == 3000 * 5000


def test_preview_of_a_huge_scene_stops_in_time() -> None:
    """One window stands in for all when there is no time for more."""
    read = Reader((10**6, 10**6))
    picture, valid = preview(read, (10**6, 10**6), (0, 1), seconds=0)
    assert len(read.windows) == 1
    assert valid.all()
    assert picture.shape == (2, 800, 800)


@given(rows=st.integers(1, 40), cols=st.integers(1, 40))
def test_coarse_to_fine_visits_each_cell_once(rows: int, cols: int) -> None:
    """A stand-in never covers a cell that was read before."""
    read = np.zeros((rows, cols), dtype=int)
    for row, col, reach in coarse_to_fine(rows, cols):
        assert not read[row : row + reach, col : col + reach].any()
        read[row, col] += 1
    assert (read == 1).all()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("blue", "green", "red", "nir"), (2, 1, 0)),
        (("nir", "red", "green"), (0, 1, 2)),
        (("swir16", "nir", "red"), (0, 1, 2)),
        (("band_1", "band_2", "band_3", "band_4"), (0, 1, 2)),
        (("pan",), (0,)),
        (("red", "nir"), (0,)),
    ],
)
def test_display_bands(names: tuple[str, ...], expected: tuple[int, ...]) -> None:
    """True colour first, then the usual false colours, else gray."""
    assert display_bands(names) == expected


def test_stretch_ignores_what_is_not_valid() -> None:
    """2nd and 98th percentile of valid pixels become 0 and 255; the rest is background."""
    values = np.arange(101, dtype=np.float32).reshape(1, 1, 101).repeat(3, 0)
    values[0, 0, 50] = 1e6
    valid = np.ones((1, 101), dtype=bool)
    valid[0, 50] = False
    result = stretch(values, valid)
    assert (result[:, 0, 50] == BACKGROUND).all()
    assert (result[:, 0, 1] == 0).all()
    assert (result[:, 0, 99] == 255).all()
    assert 120 <= result[0, 0, 51] <= 135


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_stretch_shows_other_numbers_of_bands_in_gray(bands: int) -> None:
    """The first band thrice."""
    values = np.random.default_rng(1).normal(size=(bands, 5, 6)).astype(np.float32)
    result = stretch(values, np.ones((5, 6), dtype=bool))
    assert result.shape == (3, 5, 6)
    assert (result[0] == result[1]).all()
    assert (result[0] == result[2]).all()


@pytest.mark.parametrize("valid", [True, False])
def test_stretch_of_nothing_and_of_a_constant(valid: bool) -> None:
    """No division by zero."""
    result = stretch(np.full((3, 4, 5), 7.0), np.full((4, 5), valid))
    assert (result == (0 if valid else BACKGROUND)).all()


def test_quicklook_has_scene_left_and_map_right() -> None:
    """Scene, white gap, classes in their colours, nodata in gray."""
    scene = np.full((3, 2, 3), 9, dtype=np.uint8)
    classes = np.array([[0, 1, 255], [1, 1, 0]], dtype=np.uint8)
    palette = {0: (1, 2, 3), 1: (40, 50, 60), 255: (0, 0, 0)}
    result = quicklook(scene, classes, palette)
    assert result.shape == (3, 2, 2 * 3 + GAP)
    assert (result[:, :, :3] == 9).all()
    assert (result[:, :, 3 : 3 + GAP] == 255).all()
    assert result[:, 0, -3].tolist() == [1, 2, 3]
    assert result[:, 0, -2].tolist() == [40, 50, 60]
    assert result[:, 0, -1].tolist() == [BACKGROUND] * 3
    np.testing.assert_array_equal(paint(classes, palette), result[:, :, -3:])


def test_class_preview_matches_the_scene_preview(tmp_path: Path) -> None:
    """Through the overviews, of the same shape as the scene's preview."""
    pixels = np.zeros((1100, 1700), dtype=np.uint8)
    pixels[:, 850:] = 4
    look = RasterProfile(GeoBox((1100, 1700), Affine.identity(), None), overview="mode")
    receipt = write_cog(tmp_path / "a.tif", look, [(Window(0, 0, 1100, 1700), pixels)], tmp_path)
    small = class_preview(receipt.partial, longest=400)
    picture, _ = preview(Reader((1100, 1700)), (1100, 1700), (0,), longest=400)
    assert small.shape == picture.shape[1:]
    assert (small[:, : small.shape[1] // 2 - 1] == 0).all()
    assert (small[:, small.shape[1] // 2 + 1 :] == 4).all()


def test_draw_joins_scene_and_map(tmp_path: Path) -> None:
    """Both halves of one size, from the reader and the file."""
    shape = (900, 700)
    pixels = np.full(shape, 4, dtype=np.uint8)
    look = RasterProfile(GeoBox(shape, Affine.identity(), None), overview="mode")
    receipt = write_cog(tmp_path / "a.tif", look, [(Window(0, 0, *shape), pixels)], tmp_path)
    result = draw(Reader(shape), ("row", "col"), receipt.partial, {4: (7, 8, 9)})
    assert result.shape == (3, 450, 2 * 350 + GAP)
    assert (result[:, :, -350:] == np.array([7, 8, 9])[:, None, None]).all()
    assert result[0, 5, :350].mean() < 10 < 240 < result[0, -5, :350].mean()


@pytest.mark.parametrize("bands", [3, 4])
def test_png_comes_back(tmp_path: Path, bands: int) -> None:
    """An independent reader gets the same pixels, and no sidecar is written."""
    rgb = np.random.default_rng(2).integers(0, 255, (bands, 5, 7), dtype=np.uint8)
    with MemoryFile(png_bytes(rgb)) as memory, memory.open(driver="PNG") as file:
        np.testing.assert_array_equal(file.read(), rgb)
    save_png(tmp_path / "a.png", rgb)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with rasterio.open(tmp_path / "a.png") as file:
        np.testing.assert_array_equal(file.read(), rgb)
