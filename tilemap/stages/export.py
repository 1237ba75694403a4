"""Export: stream one product, core by core, into a file that is verified before it is named."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.area import CellArea
from tilemap.errors import StoreError
from tilemap.geometry import TileGrid, Window
from tilemap.stores.cog import RasterProfile, partial_path, verify_cog, write_cog

ByteArray = npt.NDArray[np.uint8]
AnyArray = npt.NDArray[Any]
ReadCore = Callable[[Window], AnyArray]


@dataclass(frozen=True)
class ExportReceipt:
    """What one export did.

    Args:
        path: the product's final name; until ``publish`` it is ``path + ".partial"``.
        bytes: size of the file.
        sha256: digest of the file.
        counts: pixels per stored number, 256 of them; empty unless it is one band of bytes.
        areas_km2: true area per stored number, 256 of them; None where there is no CRS, or no
            counts.
        seconds: wall time.
    """

    path: Path
    bytes: int
    sha256: str
    counts: tuple[int, ...]
    areas_km2: tuple[float, ...] | None
    seconds: float


STRIP = 64
"""Rows whose areas are summed at once: they stay in a core's cache."""


def count_values(pixels: ByteArray) -> npt.NDArray[np.int64]:
    """Pixels per stored number, int64 (256,)."""
    flat = np.ascontiguousarray(pixels).reshape(-1)
    # Two bytes at a time: counting is bound by the number of elements.
    pairs = np.bincount(flat[: flat.size // 2 * 2].view(np.uint16), minlength=1 << 16)
    table = pairs.reshape(256, 256)
    counts = table.sum(axis=0) + table.sum(axis=1)
    if flat.size % 2:
        counts[flat[-1]] += 1
    return np.asarray(counts, dtype=np.int64)


def sum_areas(pixels: ByteArray, window: Window, cell: CellArea) -> npt.NDArray[np.float64]:
    """True area per stored number, km2, float64 (256,); NaN where areas are not known.

    Args:
        pixels: (y, x) of the window.
        window: of the raster.
        cell: areas of its pixels.
    """
    total = np.zeros(256)
    for top in range(window.top, window.bottom, STRIP):
        bottom = min(top + STRIP, window.bottom)
        area = cell.cell_km2(Window(top, window.left, bottom, window.right))
        rows = pixels[top - window.top : bottom - window.top]
        if area.shape[1] == 1:  # all pixels of a row are alike
            counts = np.stack([np.bincount(row, minlength=256) for row in rows])
            total += (counts * area).sum(axis=0)
        else:
            total += np.bincount(rows.ravel(), area.ravel(), minlength=256)
    return total


def export_raster(
    read_core: ReadCore, grid: TileGrid, profile: RasterProfile, path: Path, scratch: Path
) -> ExportReceipt:
    """Write one product and verify it against a second read of the store.

    The verified file is left as ``path + ".partial"``: ``tilemap.stores.cog.publish`` names it,
    so that products which belong together appear together.

    Args:
        read_core: pixels of one core, of the profile's dtype, (y, x), or (band, y, x) where there
            are several bands; the same each time it is asked.
        grid: the cores; its scene is the profile's shape.
        profile: what the file looks like.
        path: the product's final name.
        scratch: folder for temporary files.

    Raises:
        StoreError: if the file cannot be written or differs from the store. Nothing is left
            behind then.
    """
    start = time.perf_counter()
    if grid.scene != profile.shape:
        raise StoreError(f"grid and geobox must agree in shape: {grid.scene}, {profile.shape}")
    counts = np.zeros(256, dtype=np.int64)
    areas = np.zeros(256, dtype=np.float64)
    cell = CellArea(profile.geobox)
    countable = profile.dtype == "uint8" and profile.count == 1

    def windows(count: bool) -> Iterator[tuple[Window, AnyArray]]:
        for tile in grid.tiles():
            window = grid.core_window(tile)
            pixels = read_core(window)
            if count:
                counts[:] += count_values(pixels)
                areas[:] += sum_areas(pixels, window, cell)
            yield window, pixels

    receipt = write_cog(path, profile, windows(count=countable), scratch)
    try:
        verify_cog(receipt.partial, profile, windows(count=False))
    except BaseException:
        partial_path(path).unlink(missing_ok=True)
        raise
    known = countable and cell.known and math.isfinite(areas.sum())
    return ExportReceipt(
        path=path,
        bytes=receipt.bytes,
        sha256=receipt.sha256,
        counts=tuple(int(n) for n in counts) if countable else (),
        areas_km2=tuple(float(a) for a in areas) if known else None,
        seconds=time.perf_counter() - start,
    )
