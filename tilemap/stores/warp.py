"""A raster brought onto another grid, in fixed blocks.

GDAL's warper rounds differently for differently cut requests. So the target is cut once and for
all into blocks that begin on multiples of ``BLOCK``; a window takes what it needs of them, and
the numbers do not depend on how windows are cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.warp
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS as RasterioCRS
from rasterio.enums import Resampling

from tilemap.errors import SceneMismatchError, StoreError
from tilemap.geometry import Window
from tilemap.stores.mosaic import Handles, Mosaic, same_crs
from tilemap.stores.rasters import AnyArray, BoolArray, naming_file

BLOCK = 256
AVERAGE_FROM = 1.2  # pixels of the source per pixel of the target, along one axis
_LARGEST_SOURCE = 2**22  # pixels read for one block; a block that needs more is quartered
_PIXELS_ONLY = 'LOCAL_CS["pixels",UNIT["metre",1]]'
_SAMPLES = 9  # points per axis that bound a block in the other grid


@dataclass(frozen=True, slots=True)
class Warp:
    """A mosaic on another grid: bilinear where that is about as fine or finer, else averaged.

    A pixel is valid by its centre: where the pixel of the source that holds it is (bilinear), or
    where at least half of its area was observed (average). What is not valid weighs nothing.

    Args:
        source: the pixels.
        target: the grid they are brought to.
        ratio: pixels of the source per pixel of the target, along one axis.
    """

    source: Mosaic
    target: GeoBox
    ratio: float

    @property
    def average(self) -> bool:
        """Whether pixels are averaged, not interpolated."""
        return self.ratio > AVERAGE_FROM

    def read(self, handles: Handles, window: Window) -> tuple[AnyArray, BoolArray]:
        """Pixels of the target.

        Args:
            handles: open files.
            window: in pixels of the target, inside it.

        Returns:
            image (band, y, x), 0 where not valid; valid bool (y, x).
        """
        image = np.zeros((self.source.count, *window.shape), dtype=self.source.dtype)
        valid = np.zeros(window.shape, dtype=np.bool_)
        rows, cols = (int(n) for n in self.target.shape)
        for block in blocks(window, (rows, cols)):
            part = block.intersect(window)
            for piece, pixels, seen in self._block(handles, block):
                both = piece.intersect(part)
                if both.size:
                    image[:, *both.within(window)] = pixels[:, *both.within(piece)]
                    valid[both.within(window)] = seen[both.within(piece)]
        return image, valid

    def _block(
        self, handles: Handles, block: Window
    ) -> Iterator[tuple[Window, AnyArray, BoolArray]]:
        needed = self._source_window(block)
        if needed is None or needed.intersect(self.source.window).size == 0:
            return
        if needed.size > _LARGEST_SOURCE and block.size > 1:
            for quarter in quarters(block):
                yield from self._block(handles, quarter)
            return
        if needed.size > 16 * _LARGEST_SOURCE:
            raise StoreError(
                f"a pixel may take at most {16 * _LARGEST_SOURCE} pixels of the source, this grid "
                f"needs {needed.size}; choose a finer one"
            )
        image, valid = self.source.read(handles, needed)
        if valid.any():
            yield block, *self._resample(image, valid, needed, block)

    def _resample(
        self, image: AnyArray, valid: BoolArray, source: Window, block: Window
    ) -> tuple[AnyArray, BoolArray]:
        placing = self._placing(source, block)
        with naming_file("the warped scene", "read", StoreError):
            if self.average:
                seen = np.zeros((1, *block.shape), dtype=np.float32)
                _reproject(valid[None].astype(np.float32), seen, placing, Resampling.average)
                pixels = np.zeros((image.shape[0] + 1, *block.shape), dtype=image.dtype)
                _reproject(_with_alpha(image, valid), pixels, placing, Resampling.average, True)
                observed = (seen[0] >= 0.5 - 1e-4) & (pixels[-1] > 0)
                pixels = pixels[:-1]
            elif valid.all() and same_crs(self.source.geobox.crs, self.target.crs):
                pixels = np.zeros((image.shape[0], *block.shape), dtype=image.dtype)
                _reproject(image, pixels, placing, Resampling.bilinear)
                observed = np.ones(block.shape, dtype=np.bool_)
            else:
                pixels = np.zeros((image.shape[0] + 1, *block.shape), dtype=image.dtype)
                _reproject(_with_alpha(image, valid), pixels, placing, Resampling.bilinear, True)
                observed = pixels[-1] > 0
                pixels = pixels[:-1]
        if not observed.all():
            pixels[:, ~observed] = 0
        return pixels, observed

    def _placing(self, source: Window, block: Window) -> dict[str, Any]:
        """Where both arrays lie; in one CRS, in pixels of the source, which keeps digits."""
        here, there = self.source.geobox, self.target
        from_source = Affine.translation(source.left, source.top)
        from_block = Affine.translation(block.left, block.top)
        if same_crs(here.crs, there.crs):
            local = _rasterio_crs(None)
            return {
                "src_crs": local,
                "dst_crs": local,
                "src_transform": from_source,
                "dst_transform": ~here.affine * there.affine * from_block,
            }
        return {
            "src_crs": _rasterio_crs(here.crs),
            "dst_crs": _rasterio_crs(there.crs),
            "src_transform": here.affine * from_source,
            "dst_transform": there.affine * from_block,
        }

    def _source_window(self, block: Window) -> Window | None:
        """All that a block may touch in the source, overhanging it; None if it maps nowhere."""
        x, y = _lattice(block)
        col, row = pixel_map(self.target, self.source.geobox, x, y)
        finite = np.isfinite(col) & np.isfinite(row)
        if not finite.all():
            if block.size == 1 or not finite.any():
                return None
            return self.source.window  # part maps nowhere, so the rest may reach anywhere
        margin = 2 + int(np.ceil(self.ratio)) + max(np.ptp(col), np.ptp(row)) / 64
        limit = 2.0**40
        top, left = (int(max(np.floor(v.min() - margin), -limit)) for v in (row, col))
        bottom, right = (int(min(np.ceil(v.max() + margin), limit)) for v in (row, col))
        whole = self.source.window.grow(2 + int(np.ceil(self.ratio)))
        return Window(top, left, bottom, right).intersect(whole)


def make_warp(source: Mosaic, target: GeoBox, name: str) -> Warp:
    """How a mosaic is brought onto a grid.

    Raises:
        SceneMismatchError: if only one of them has a CRS, or the two cannot be related.
    """
    here, there = source.geobox, target
    if (here.crs is None) != (there.crs is None):
        lacking = name if here.crs is None else "the grid it is brought to"
        raise SceneMismatchError(
            f"both grids must have a CRS or none, {lacking} has none; assign one first "
            "(gdal_edit.py -a_srs)"
        )
    rows, cols = source.window.shape
    x = np.array([cols / 2, cols / 2 + 1, cols / 2])
    y = np.array([rows / 2, rows / 2, rows / 2 + 1])
    col, row = pixel_map(here, there, x, y)
    area = abs((col[1] - col[0]) * (row[2] - row[0]) - (col[2] - col[0]) * (row[1] - row[0]))
    if not (np.isfinite(area) and area > 0):
        raise SceneMismatchError(f"{name} has no place in the CRS of the grid, {there.crs}")
    return Warp(source, target, float(1 / np.sqrt(area)))


def footprint(source: Mosaic, target: GeoBox) -> Window:
    """The rectangle of a grid that a mosaic may touch, clipped by it; may be empty."""
    rows, cols = (int(n) for n in target.shape)
    whole = Window(0, 0, rows, cols)
    x, y = _lattice(source.window)
    col, row = pixel_map(source.geobox, target, x, y)
    finite = np.isfinite(col) & np.isfinite(row)
    if not finite.any():
        return Window(0, 0, 0, 0)
    left, right = (np.clip(f(col[finite]), -1, cols + 1) for f in (np.min, np.max))
    top, bottom = (np.clip(f(row[finite]), -1, rows + 1) for f in (np.min, np.max))
    return whole.intersect(
        Window(int(np.floor(top)), int(np.floor(left)), int(np.ceil(bottom)), int(np.ceil(right)))
    )


def pixel_map(
    here: GeoBox, there: GeoBox, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Pixel coordinates of one grid as (columns, rows) of another; infinite where there is none.

    Args:
        here: the grid of ``x`` and ``y``.
        there: the other grid.
        x: columns, float64 (n,), 0 at the left edge of the first pixel.
        y: rows, float64 (n,).
    """
    if same_crs(here.crs, there.crs):
        col, row = ~there.affine * here.affine * (x, y)
        return np.asarray(col), np.asarray(row)
    east, north = here.affine * (x, y)
    try:
        east, north = rasterio.warp.transform(
            _rasterio_crs(here.crs), _rasterio_crs(there.crs), list(east), list(north)
        )[:2]
    except Exception:  # GDAL raises where all points fail
        nowhere = np.full(np.shape(x), np.inf)
        return nowhere, nowhere
    with np.errstate(invalid="ignore"):
        col, row = ~there.affine * (np.asarray(east), np.asarray(north))
    return np.asarray(col), np.asarray(row)


def blocks(window: Window, scene: tuple[int, int]) -> Iterator[Window]:
    """The fixed blocks that a window touches, clipped by the scene, row by row."""
    for top in range(window.top // BLOCK * BLOCK, window.bottom, BLOCK):
        for left in range(window.left // BLOCK * BLOCK, window.right, BLOCK):
            yield Window(top, left, min(top + BLOCK, scene[0]), min(left + BLOCK, scene[1]))


def quarters(block: Window) -> Iterator[Window]:
    """A block cut at its middle, in up to four parts."""
    row, col = (block.top + block.bottom + 1) // 2, (block.left + block.right + 1) // 2
    for top, bottom in ((block.top, row), (row, block.bottom)):
        for left, right in ((block.left, col), (col, block.right)):
            if top < bottom and left < right:
                yield Window(top, left, bottom, right)


def _lattice(window: Window) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    x, y = np.meshgrid(
        np.linspace(window.left, window.right, _SAMPLES),
        np.linspace(window.top, window.bottom, _SAMPLES),
    )
    return x.ravel(), y.ravel()


@lru_cache(maxsize=64)
def _rasterio_crs(crs: CRS | None) -> Any:
    return RasterioCRS.from_wkt(_PIXELS_ONLY if crs is None else crs.to_wkt())


def _with_alpha(image: AnyArray, valid: BoolArray) -> AnyArray:
    """A further plane, 1 = observed; what is not observed becomes 0, since NaN would spread."""
    alpha = np.concatenate([image, valid[None].astype(image.dtype)])
    alpha[:, ~valid] = 0
    return alpha


def _reproject(
    source: AnyArray,
    target: AnyArray,
    placing: dict[str, Any],
    resampling: Resampling,
    alpha: bool = False,
) -> None:
    extra: dict[str, Any] = {}
    if alpha:
        extra = {
            "src_alpha": source.shape[0],
            "dst_alpha": target.shape[0],
            "SRC_ALPHA_MAX": "1",
            "DST_ALPHA_MAX": "1",
        }
    rasterio.warp.reproject(source, target, resampling=resampling, tolerance=0, **placing, **extra)
