"""Rasters on one grid joined into one: the first that has a valid pixel wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from odc.geo.geobox import GeoBox

from tilemap.geometry import Window
from tilemap.stores.grids import moved, pixel_offset, whole
from tilemap.stores.rasters import AnyArray, BoolArray, Raster, RasterReader


class Handles:
    """The open files of one reader, opened at their first read; for one thread.

    Args:
        most: files open at a time; the one unused for longest is closed for another.
    """

    def __init__(self, most: int = 128) -> None:
        self._most = most
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
        reader = self._readers.pop(raster.path, None) or RasterReader(raster)
        if len(self._readers) >= self._most:
            self._readers.pop(next(iter(self._readers))).close()
        self._readers[raster.path] = reader
        return reader

    @property
    def files(self) -> list[str]:
        """Paths on this disk that the open files touch."""
        rasters = [reader.raster for reader in self._readers.values()]
        return [file for raster in rasters if raster.remote is None for file in raster.files]

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
        return whole(self.geobox)

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
        full = bool(valid.all())
        if not full:
            np.copyto(image, 0, where=~valid)
        for piece in rest:
            if full:
                break
            part = window.intersect(piece.window)
            index = part.within(window)
            pixels, seen = self._piece(handles, piece, part)
            new = seen & ~valid[index]
            np.copyto(image[:, *index], pixels, where=new)
            valid[index] |= new
            full = bool(valid.all())
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
    geobox = GeoBox(shape, moved(first.geobox.affine, top, left), first.geobox.crs)
    pieces = tuple(Piece(p.raster, p.positions, p.top - top, p.left - left) for p in placed)
    return Mosaic(geobox, pieces)
