"""Rasters on one grid joined into one: the first that has a valid pixel wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from tilemap.geometry import Window
from tilemap.stores.rasters import AnyArray, BoolArray, Raster, RasterReader

ALIGNED = 1e-3  # pixels by which two grids may differ anywhere and still be one


class Handles:
    """The open files of one reader, each opened once, at its first read; for one thread."""

    def __init__(self) -> None:
        self._readers: dict[str, RasterReader] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def of(self, raster: Raster) -> RasterReader:
        """The reader of a file."""
        if raster.path not in self._readers:
            self._readers[raster.path] = RasterReader(raster)
        return self._readers[raster.path]

    def close(self) -> None:
        """Close every file."""
        while self._readers:
            self._readers.popitem()[1].close()


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, the planes wanted of it, and where its first pixel lies on the mosaic's grid."""

    raster: Raster
    positions: tuple[int, ...]
    top: int = 0
    left: int = 0

    @property
    def window(self) -> Window:
        """What it covers, in pixels of the mosaic."""
        rows, cols = self.raster.shape
        return Window(self.top, self.left, self.top + rows, self.left + cols)


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Files on one grid, in order of precedence.

    Args:
        geobox: the grid; pieces may overhang it.
        pieces: at least one, all with the same bands.
    """

    geobox: GeoBox
    pieces: tuple[Piece, ...]

    @property
    def window(self) -> Window:
        """The whole grid."""
        rows, cols = self.geobox.shape
        return Window(0, 0, int(rows), int(cols))

    @property
    def count(self) -> int:
        """Bands."""
        return len(self.pieces[0].positions)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What holds every piece without loss."""
        return np.result_type(
            *(np.dtype(p.raster.bands[i].dtype) for p in self.pieces for i in p.positions)
        )

    def read(self, handles: Handles, window: Window) -> tuple[AnyArray, BoolArray]:
        """Stored numbers of a window, which may overhang every piece.

        Returns:
            image (band, y, x), 0 where not valid; valid bool (y, x), False where there is no file.
        """
        touched = [p for p in self.pieces if window.intersect(p.window).size]
        if touched and touched[0].window.contains(window):
            image, valid = self._piece(handles, touched[0], window)
            image, rest = image.astype(self.dtype, copy=False), touched[1:]
        else:
            image = np.zeros((self.count, *window.shape), dtype=self.dtype)
            valid, rest = np.zeros(window.shape, dtype=np.bool_), touched
        whole = bool(valid.all())
        if not whole:
            image[:, ~valid] = 0
        for piece in rest:
            if whole:
                break
            part = window.intersect(piece.window)
            index = part.within(window)
            pixels, seen = self._piece(handles, piece, part)
            new = seen & ~valid[index]
            np.copyto(image[:, *index], pixels, where=new)
            valid[index] |= new
            whole = bool(valid.all())
        return image, valid

    @staticmethod
    def _piece(handles: Handles, piece: Piece, window: Window) -> tuple[AnyArray, BoolArray]:
        own = Window(
            window.top - piece.top,
            window.left - piece.left,
            window.bottom - piece.top,
            window.right - piece.left,
        )
        return handles.of(piece.raster).read(piece.positions, own)

    def on(self, geobox: GeoBox) -> Mosaic | None:
        """The same pixels placed on another grid; None unless it has the very same pixels."""
        offset = pixel_offset(self.geobox, geobox)
        if offset is None:
            return None
        pieces = tuple(
            Piece(p.raster, p.positions, p.top + offset[0], p.left + offset[1]) for p in self.pieces
        )
        return Mosaic(geobox, pieces)


def same_crs(one: CRS | None, two: CRS | None) -> bool:
    """Whether both are the same system, or both none."""
    if one is None or two is None:
        return one is two
    return bool(one == two or one.proj.equals(two.proj, ignore_axis_order=True))


def pixel_offset(one: GeoBox, two: GeoBox) -> tuple[int, int] | None:
    """Where the first pixel of one grid lies in another, (rows, columns).

    None unless both have the same CRS and every pixel of ``one`` lies on a pixel of ``two``
    (or of its continuation) to within ``ALIGNED`` pixels.
    """
    if not same_crs(one.crs, two.crs):
        return None
    to_two: Affine = ~two.affine * one.affine
    left, top = round(to_two.c), round(to_two.f)
    rows, cols = one.shape
    for x, y in ((0, 0), (cols, 0), (0, rows), (cols, rows)):
        col, row = to_two * (x, y)
        if abs(col - x - left) > ALIGNED or abs(row - y - top) > ALIGNED:
            return None
    return top, left


def join(rasters: Sequence[tuple[Raster, tuple[int, ...]]]) -> Mosaic | None:
    """Files joined on the smallest grid that holds them all; None if their pixels differ.

    Args:
        rasters: each with the positions of its wanted bands, in order of precedence.
    """
    first = rasters[0][0]
    placed = []
    for raster, positions in rasters:
        offset = pixel_offset(raster.geobox, first.geobox)
        if offset is None:
            return None
        placed.append(Piece(raster, positions, *offset))
    if len(placed) == 1:
        return Mosaic(first.geobox, (placed[0],))
    top = min(p.window.top for p in placed)
    left = min(p.window.left for p in placed)
    shape = (
        max(p.window.bottom for p in placed) - top,
        max(p.window.right for p in placed) - left,
    )
    geobox = GeoBox(shape, first.geobox.affine * Affine.translation(left, top), first.geobox.crs)
    pieces = tuple(Piece(p.raster, p.positions, p.top - top, p.left - left) for p in placed)
    return Mosaic(geobox, pieces)
