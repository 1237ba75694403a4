"""What a scene is: one raster on one GeoBox, described without opening it again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.errors import SceneError, SceneMismatchError


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

    @property
    def declared(self) -> bool:
        """True if somebody said what the stored numbers mean, and which of them means nothing."""
        return self.scaled and self.nodata is not None


LOWEST_REFLECTANCE = -0.9
"""No reflectance lies below: noise of an atmospheric correction does not, a fill number does."""

HIGHEST_REFLECTANCE = 2.5
"""No reflectance lies above in many pixels: clouds and glint reach 2."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product whose stored numbers are known by its name.

    Args:
        name: for people.
        scale: reflectance = stored * scale + offset.
        offset: see ``scale``; None if only the metadata of the scene could say it.
        nodata: stored number that means "not observed".
    """

    name: str
    scale: float
    offset: float | None
    nodata: float


@dataclass(frozen=True)
class SceneRequest:
    """What the user asked to be mapped; saved in ``run.json`` by ``dataclasses.asdict``.

    Args:
        sources: files, folders of files, or STAC items (.json); files and items may be addresses
            (``https://``, ``s3://``).
        bands: common names to read, in this order (a model's bands); None for all there are.
        band_names: what the bands of the files are called, file by file, instead of what the
            files say; for files with the same number of bands once is enough.
        nodata: stored number that means "not observed" in bands that declare none.
        scale: physical value = stored * scale + offset, instead of what the files declare.
        offset: see ``scale``.
        like: raster whose grid (shape, geotransform, CRS) the scene is brought to.
        resolution: pixel size to bring the scene to, in units of its own CRS.
        before: an earlier scene of the same place, as ``sources``; its bands come first, named
            ``before_red`` and so on, those of ``sources`` ``after_red``.
        allow_hosts: hosts and buckets that may be asked for what is not on this disk:
            ``example.org``, ``example.org:8080``, ``*.example.org``, ``s3://bucket``.
        mosaic: files of several days are one scene on purpose; its date is that of the first.

    Raises:
        SceneError: if an argument cannot hold.
    """

    sources: tuple[str, ...]
    bands: tuple[str, ...] | None = None
    band_names: tuple[str, ...] | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    like: str | None = None
    resolution: float | None = None
    before: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    mosaic: bool = False

    def __post_init__(self) -> None:
        for field in ("sources", "bands", "band_names", "before", "allow_hosts"):
            value = getattr(self, field)
            if isinstance(value, str):
                raise SceneError(f"{field} must be a list of names, got {value!r}")
            if value is not None:  # lists, as JSON has them, become tuples
                object.__setattr__(self, field, tuple(value))
        if not self.sources:
            raise SceneError("a scene must have at least one source: a file, a folder, an item")
        if self.like is not None and self.resolution is not None:
            raise SceneError("the grid comes from `like` or from `resolution`, not from both")
        if self.resolution is not None and not 0 < self.resolution < math.inf:
            raise SceneError(f"resolution must be above 0 units of the CRS, got {self.resolution}")
        if self.scale is not None and (self.scale == 0 or not math.isfinite(self.scale)):
            raise SceneError(f"scale must be a number other than 0, got {self.scale}")
        if self.offset is not None and not math.isfinite(self.offset):
            raise SceneError(f"offset must be a number, got {self.offset}")
        for field in ("bands", "band_names"):
            names = getattr(self, field)
            if names is not None and len(set(names)) != len(names):
                raise SceneError(f"the names of bands must differ, got {', '.join(names)}")


@dataclass(frozen=True, slots=True)
class Scene:
    """A raster (band, y, x) on one GeoBox.

    Args:
        geobox: shape, geotransform and CRS; the CRS may be None (a plain image).
        bands: planes in reading order.
        name: a short name for reports, usually the first file's stem.
        date: when it was observed, if known.
        product: what it looks like by the names of its files, if that is known.
    """

    geobox: GeoBox
    bands: tuple[Band, ...]
    name: str
    date: datetime | None = None
    product: Product | None = None

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
                "bring one onto the other's grid with `like`"
            )


def check_fills(scene: Scene, image: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> None:
    """Look for fill numbers in bands that declare none: reflectance far below 0 or far above 1.

    One number that is too low is enough. A pixel may be saturated, so the highest number is a fill
    only if many pixels have it: in all bands at once, or more of them in one band.

    Args:
        image: as stored (band, ...), bands in the order of the scene.
        valid: (...), True = observed.

    Raises:
        SceneError: if there are some: they mean "not observed", and nobody says so.
    """
    tops = []
    for band, plane in zip(scene.bands, image, strict=True):
        if band.declared:
            continue
        if plane.dtype.kind != "u":
            low = valid & (plane < (LOWEST_REFLECTANCE - band.offset) / band.scale)
            if low.any():
                raise _fill(scene, band, plane[low].min())
        tops.append((band, plane, _top(band, plane, valid)))
    if not any(top.any() for _, _, top in tops):
        return
    common = np.logical_and.reduce([top for _, _, top in tops])
    for band, plane, top in tops:
        for where, enough in ((top, _FILLS_ONE), (common, _FILLS_ALL)):
            share = np.count_nonzero(where) / np.count_nonzero(valid)
            if share >= enough:
                raise _fill(scene, band, plane[where].max(), share)


_FILLS_ONE, _FILLS_ALL = 0.02, 0.002
"""The highest number is a fill if such a share of the pixels has it: in one band, in all bands."""


def _top(
    band: Band, plane: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Where a band has its highest number, if that is no reflectance and most others are."""
    bound = (HIGHEST_REFLECTANCE - band.offset) / band.scale
    high = valid & (plane > bound)
    if band.scale < 0 or not high.any():
        return np.zeros_like(valid)
    at: npt.NDArray[np.bool_] = valid & (plane == plane[high].max())
    if 2 * np.count_nonzero(high & ~at) > np.count_nonzero(valid & ~at):
        return np.zeros_like(valid)  # not reflectance at all, and somebody said so
    return at


def _fill(scene: Scene, band: Band, number: float, share: float | None = None) -> SceneError:
    many = ""
    if share is not None:
        reflectance = float(number) * band.scale + band.offset
        meant = "" if reflectance == number else f", which would be {reflectance:.3g}"
        many = f" in {100 * share:.2g} % of the pixels looked at{meant}"
    return SceneError(
        f"the model takes reflectance (0..1), but {band.name} of {scene.name} holds "
        f"{number:.9g}{many}; give the number that means not observed as `nodata`"
    )
