"""What a product looks like: grid, type, colours, names; settled before a pixel is written."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError
from tilemap.stores.overviews import Method

Color = tuple[int, int, int]
DTYPES = ("uint8", "uint16", "int32", "float32")


@dataclass(frozen=True)
class RasterProfile:
    """What one product looks like: a raster of one band or more, a byte per pixel unless told.

    Args:
        geobox: shape, geotransform and CRS; without a CRS the file has none either.
        nodata: stored number that means "not observed", any number of the dtype, NaN included.
        palette: colour per stored number, three numbers 0..255 each; None for a gray raster.
        names: class name per stored number; stored as tags ``CLASS_<number>``.
        overview: how overviews are made: "mode" for classes, "average" for quantities, "nearest"
            for numbers that belong together across bands, or that have no mean.
        tags: further tags of the file.
        description: of the only band.
        dtype: of the stored numbers, one of ``DTYPES``.
        bands: description of each of several bands; empty for a raster of one.
        bits: meaning of each bit of a stored number; stored as tags ``BIT_<number>``.

    Raises:
        StoreError: if the stored numbers or colours are out of range, a palette or a bit field is
            averaged, or classes are not stored as one band of bytes.
    """

    geobox: GeoBox
    nodata: float = 255
    palette: dict[int, Color] | None = None
    names: dict[int, str] | None = None
    overview: Method = "average"
    tags: dict[str, str] = field(default_factory=dict)
    description: str = ""
    dtype: str = "uint8"
    bands: tuple[str, ...] = ()
    bits: dict[int, str] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise StoreError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype}")
        if not _is_number_of(self.nodata, self.dtype):
            limits = "between 0 and 255" if self.dtype == "uint8" else f"in {self.dtype}"
            raise StoreError(f"nodata must lie {limits}, got {self.nodata}")
        numbers = [*(self.palette or ()), *(self.names or ())]
        parts = [part for color in (self.palette or {}).values() for part in color]
        for value in numbers + parts:
            if not 0 <= value <= 255:
                raise StoreError(f"values and colours must lie between 0 and 255, got {value}")
        if (self.palette or self.names) and (self.dtype != "uint8" or self.count > 1):
            raise StoreError(f"classes need one band of uint8, got {self.count} of {self.dtype}")
        if self.overview == "average" and (self.palette is not None or self.bits is not None):
            raise StoreError("classes cannot be averaged: a palette needs overview='mode'")
        if self.overview == "mode" and self.dtype == "float32":
            raise StoreError("the most frequent number needs whole numbers, got float32")

    @property
    def count(self) -> int:
        """Bands."""
        return max(1, len(self.bands))

    @property
    def descriptions(self) -> tuple[str, ...]:
        """One per band, empty where there is none."""
        return self.bands or (self.description,)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, cols = self.geobox.shape
        return int(rows), int(cols)

    @property
    def all_tags(self) -> dict[str, str]:
        """``tags`` and one tag per class name and per bit."""
        names = {f"CLASS_{value}": name for value, name in sorted((self.names or {}).items())}
        bits = {f"BIT_{bit}": name for bit, name in sorted((self.bits or {}).items())}
        return {**self.tags, **names, **bits}

    @property
    def colormap(self) -> dict[int, tuple[int, int, int, int]] | None:
        """All 256 entries as the file has them: nodata transparent, unused numbers black."""
        if self.palette is None:
            return None
        full = {value: (*self.palette.get(value, (0, 0, 0)), 255) for value in range(256)}
        nodata = int(self.nodata)
        full[nodata] = (*full[nodata][:3], 0)
        return full


def _is_number_of(value: float, dtype: str) -> bool:
    if dtype == "float32":
        return math.isnan(value) or float(np.float32(value)) == value
    limits = np.iinfo(dtype)
    return limits.min <= value <= limits.max and float(value).is_integer()
