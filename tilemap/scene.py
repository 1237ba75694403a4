"""What a scene is: one raster on one GeoBox, described without opening it again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.errors import SceneMismatchError


@dataclass(frozen=True, slots=True)
class Band:
    """One plane of a scene.

    Args:
        name: common name ("red", "nir", "swir16", ...) where known, else "band_1", "band_2", ...
        dtype: NumPy name of the stored numbers.
        nodata: stored number that means "not observed"; None if there is none.
        scale: physical value = stored * scale + offset.
        offset: see ``scale``.
        scaled: whether scale and offset were declared, by the file or by the user; if not, the
            stored numbers may be anything.
    """

    name: str
    dtype: str
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    scaled: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """A raster (band, y, x) on one GeoBox.

    Args:
        geobox: shape, geotransform and CRS; the CRS may be None (a plain image).
        bands: planes in reading order.
        name: a short name for reports, usually the first file's stem.
        date: when it was observed, if known.
    """

    geobox: GeoBox
    bands: tuple[Band, ...]
    name: str
    date: datetime | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, cols = self.geobox.shape
        return int(rows), int(cols)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Common names in reading order."""
        return tuple(band.name for band in self.bands)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The one dtype that holds every band without loss."""
        return np.result_type(*(np.dtype(band.dtype) for band in self.bands))

    def scaling(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Scale and offset per band, float32 (band,) each."""
        scale = np.array([band.scale for band in self.bands], dtype=np.float32)
        offset = np.array([band.offset for band in self.bands], dtype=np.float32)
        return scale, offset


def check_same_grid(first: Scene, second: Scene) -> None:
    """Both scenes have the same shape, geotransform and CRS.

    Raises:
        SceneMismatchError: naming the first thing that differs.
    """
    for what, one, two in (
        ("CRS", first.geobox.crs, second.geobox.crs),
        ("shape", first.shape, second.shape),
        ("geotransform", tuple(first.geobox.affine)[:6], tuple(second.geobox.affine)[:6]),
    ):
        if one != two:
            raise SceneMismatchError(
                f"scenes differ in {what}: {first.name} has {one}, {second.name} has {two}; "
                "bring one onto the other's grid with --like"
            )
