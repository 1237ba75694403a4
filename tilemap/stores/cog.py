"""Cloud-optimised GeoTIFFs: written by streaming, read back, published by one rename.

The GTiff driver takes windows in any order but lays them out as they come; the COG driver lays
them out well but only copies. So windows go into an uncompressed temporary file, and its copy is
the product: the same pixels give the same bytes, whatever the order of the windows.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
import rasterio.windows
from odc.geo.crs import CRS
from pyproj.exceptions import CRSError
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from tilemap.errors import DiskFullError, SceneError, StoreError, TilemapError
from tilemap.files import system_error
from tilemap.geometry import Window
from tilemap.stores.grids import crs_of, same_crs
from tilemap.stores.overviews import halve, level_shapes
from tilemap.stores.raster_profile import Color, RasterProfile

__all__ = [
    "CogReceipt", "Color", "RasterProfile", "check_crs", "partial_path", "publish", "verify_cog",
    "write_cog",
]  # fmt: skip

AnyArray = npt.NDArray[Any]

BLOCK = 512
CACHE_BYTES = 32 << 20


@dataclass(frozen=True)
class CogReceipt:
    """What ``write_cog`` left behind: a whole file that has not got its name yet."""

    partial: Path
    bytes: int
    sha256: str


def partial_path(path: Path) -> Path:
    """Where a product waits until it is verified: ``<path>.partial``."""
    return path.with_name(path.name + ".partial")


def write_cog(
    path: Path,
    profile: RasterProfile,
    windows: Iterable[tuple[Window, AnyArray]],
    scratch: Path,
) -> CogReceipt:
    """Stream windows into ``<path>.partial``, a COG, flushed to the disk.

    Args:
        path: the product's final name; not touched here.
        profile: what the file looks like.
        windows: a partition of the raster in any order, each with its pixels, of the profile's
            dtype, (y, x), or (band, y, x) where there are several bands.
        scratch: folder for temporary files, on a disk with one and a half times the stored
            numbers to spare.

    Returns:
        The file's place, size and digest. Equal pixels give equal bytes.

    Raises:
        StoreError: if the windows do not partition the raster, an array does not fit its window,
            or the disk is full. Nothing is left behind then.
    """
    partial = partial_path(path)
    folder = scratch / f"cog-{path.name}"
    try:
        with _storing("write", path, _flat_bytes(profile)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _check_space(folder, profile)
            flat = folder / "flat.tif"
            with _gdal(CPL_TMPDIR=str(folder)):
                _write_flat(flat, profile, windows)
                _write_overviews(flat, profile)
                rasterio.shutil.copy(flat, partial, driver="COG", **_cog_options(profile))
            _fsync(partial)
            return CogReceipt(partial, partial.stat().st_size, _sha256(partial))
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def verify_cog(
    partial: Path, profile: RasterProfile, windows: Iterable[tuple[Window, AnyArray]]
) -> None:
    """Read a product back and compare it with what it must hold, exactly.

    Args:
        partial: the file, under whatever name.
        profile: what it must look like.
        windows: a partition of the raster with the pixels it must hold, as ``write_cog`` got them.

    Raises:
        StoreError: naming the first difference.
    """
    alone = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}  # no stray sidecar is looked at
    with (
        _storing("read back", partial, _flat_bytes(profile)),
        _gdal(**alone),
        _open(partial) as file,
    ):
        _check_frame(file, partial, profile)
        for window, expected in _partition(windows, profile):
            stored = file.read(window=_rasterio_window(window))
            must = expected.reshape(stored.shape)
            if not np.array_equal(stored, must, equal_nan=profile.dtype == "float32"):
                _tell_difference(partial, window, stored, must)


def _tell_difference(path: Path, window: Window, stored: AnyArray, must: AnyArray) -> None:
    differ = (stored != must) & ~((stored != stored) & (must != must))  # NaN is itself here
    band, row, col = (int(n) for n in np.argwhere(differ)[0])
    where = f"row {window.top + row}, column {window.left + col}"
    if len(must) > 1:
        where += f", band {band + 1}"
    raise StoreError(
        f"{path} must hold {must[band, row, col]} at {where}, got {stored[band, row, col]}; "
        "run the export again"
    )


def check_crs(crs: CRS | None) -> None:
    """A GeoTIFF can hold this CRS: one that is written gives it back, if in other words.

    Raises:
        SceneError: if it does not.
    """
    if crs is None or _keeps(crs.to_wkt()):
        return
    raise SceneError(
        f"the CRS of the scene must be one that a GeoTIFF can hold, {crs.proj.name} comes back as "
        "another one; bring the scene to another CRS first (gdalwarp -t_srs), or onto another grid"
    )


@lru_cache(maxsize=64)
def _keeps(wkt: str) -> bool:
    one = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    try:
        with _gdal(), rasterio.MemoryFile() as memory:
            with memory.open(**one, crs=wkt, transform=rasterio.Affine(2, 0, 1, 0, -2, 1)):
                pass
            with memory.open() as file:
                return file.crs is not None and same_crs(crs_of(wkt), crs_of(file.crs.to_wkt()))
    except (RasterioError, CPLE_BaseError, CRSError):
        return False


def publish(partial: Path, final: Path) -> None:
    """Give a verified product its name; its sidecars must be there already.

    Raises:
        StoreError: if it cannot be renamed.
    """
    with _storing("write", final):
        partial.replace(final)
        _fsync(final.parent)


def _check_frame(file: Any, path: Path, profile: RasterProfile) -> None:
    """Everything but the pixels."""
    crs = profile.geobox.crs
    stored = None if file.crs is None else crs_of(file.crs.to_wkt())
    affine = tuple(profile.geobox.affine)[:6]
    size = max(abs(affine[0]) + abs(affine[1]), abs(affine[3]) + abs(affine[4]))
    near = np.allclose(tuple(file.transform)[:6], affine, rtol=1e-12, atol=1e-9 * size)
    tags = file.tags()
    palette = None if profile.palette is None else file.colormap(1)
    levels = [2 ** (k + 1) for k in range(len(level_shapes(profile.shape, BLOCK)))]
    for what, must, got in (
        ("shape", profile.shape, file.shape),
        ("dtype", (profile.dtype,) * profile.count, file.dtypes),
        ("geotransform", affine, affine if near else tuple(file.transform)[:6]),
        ("CRS", crs, crs if same_crs(crs, stored) else stored),
        ("nodata", *_as_text(profile.nodata, file.nodata)),
        ("palette", profile.colormap, palette),
        ("tags", profile.all_tags, {key: tags.get(key) for key in profile.all_tags}),
        ("descriptions", profile.descriptions, tuple(text or "" for text in file.descriptions)),
        ("layout", "COG", file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")),
        ("overviews", levels, file.overviews(1)),
    ):
        if must != got:
            raise StoreError(f"{path} must have {what} {must}, got {got}")


def _as_text(*numbers: float | None) -> Iterator[str]:
    """Numbers so that NaN equals itself and 255 equals 255.0."""
    return (str(number if number is None else float(number)) for number in numbers)


def _write_flat(
    path: Path, profile: RasterProfile, windows: Iterable[tuple[Window, AnyArray]]
) -> None:
    """The uncompressed temporary file, with all that the copy cannot be given afterwards."""
    crs, affine = profile.geobox.crs, profile.geobox.affine
    options = _flat_options(profile.shape, profile)
    if crs is not None:
        options["crs"] = crs.to_wkt()
    if not affine.is_identity:
        options["transform"] = affine
    with _open(path, "w", **options) as file:
        if profile.colormap is not None:
            file.write_colormap(1, profile.colormap)
        file.update_tags(**profile.all_tags)
        for band, text in enumerate(profile.descriptions, start=1):
            if text:
                file.set_band_description(band, text)
        for window, pixels in _partition(windows, profile):
            planes = pixels.reshape(profile.count, *window.shape)
            file.write(planes, window=_rasterio_window(window))


def _write_overviews(flat: Path, profile: RasterProfile) -> None:
    """Each level beside the one it halves, under the name where GDAL looks for it: + ".ovr"."""
    below = flat
    for shape in level_shapes(profile.shape, BLOCK):
        level = below.with_name(below.name + ".ovr")
        with (
            _open(below) as source,
            _open(level, "w", **_flat_options(shape, profile)) as file,
        ):
            for top, left in product(range(0, shape[0], BLOCK), range(0, shape[1], BLOCK)):
                block = Window(top, left, top + BLOCK, left + BLOCK)
                block = block.intersect(Window(0, 0, *shape))
                double = Window(2 * block.top, 2 * block.left, 2 * block.bottom, 2 * block.right)
                inside = double.intersect(Window(0, 0, *source.shape))
                planes = source.read(window=_rasterio_window(inside))
                halves = [halve(plane, profile.nodata, profile.overview) for plane in planes]
                file.write(np.stack(halves), window=_rasterio_window(block))
        below = level


def _flat_options(shape: tuple[int, int], profile: RasterProfile) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "height": shape[0],
        "width": shape[1],
        "count": profile.count,
        "dtype": profile.dtype,
        "nodata": profile.nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "BIGTIFF": "IF_SAFER",
    }


def _cog_options(profile: RasterProfile) -> dict[str, str]:
    # Level 1 of either codec is within a seventh of the size of level 6 at a third of the time.
    # On class maps DEFLATE, which everything reads, is as fast as ZSTD; on quantities it is not.
    # The predictor (differences along a row) helps quantities and hurts classes. Threads: no gain.
    smooth = profile.overview == "average"
    return {
        "COMPRESS": "ZSTD" if smooth else "DEFLATE",
        "LEVEL": "1",
        "PREDICTOR": "YES" if smooth else "NO",
        "BLOCKSIZE": str(BLOCK),
        "OVERVIEWS": "AUTO",
        "OVERVIEW_RESAMPLING": profile.overview.upper(),
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": "1",
    }


def _partition(
    windows: Iterable[tuple[Window, AnyArray]], profile: RasterProfile
) -> Iterator[tuple[Window, AnyArray]]:
    """Pass windows on, and refuse a gap, an overlap by count, or an array of another shape."""
    scene = Window(0, 0, *profile.shape)
    seen: set[Window] = set()
    pixels = 0
    for window, array in windows:
        if window in seen or not scene.contains(window):
            raise StoreError(f"each window must come once and lie in {profile.shape}, got {window}")
        shape = window.shape if profile.count == 1 else (profile.count, *window.shape)
        if array.shape != shape or array.dtype != profile.dtype:
            raise StoreError(
                f"{window} needs {profile.dtype} pixels of shape {shape}, "
                f"got {array.dtype} {array.shape}"
            )
        seen.add(window)
        pixels += window.size
        yield window, array
    if pixels != scene.size:
        raise StoreError(f"windows must cover {scene.size} pixels once, they cover {pixels}")


def _rasterio_window(window: Window) -> Any:
    return rasterio.windows.Window(window.left, window.top, window.width, window.height)


@contextmanager
def _open(path: Path, mode: str = "r", **options: Any) -> Iterator[Any]:
    """A rasterio dataset; a missing geotransform is no reason to warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        file = rasterio.open(path, mode, **options)
    with file:
        yield file


@contextmanager
def _gdal(**options: str) -> Iterator[None]:
    """GDAL with a small cache and no sidecar files of its own."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_PAM_ENABLED="NO", **options):
        yield


@contextmanager
def _storing(what: str, path: Path, need: int = 1) -> Iterator[None]:
    """Turn the errors of the disk and of GDAL into ours.

    GDAL does not say why a write failed: it is asked whether ``need`` bytes have room there.
    """
    try:
        yield
    except TilemapError:
        raise
    except (OSError, RasterioError, CPLE_BaseError) as error:
        raise system_error(f"cannot {what} {path}", error, path.parent, need=need) from error


def _free(path: Path) -> int:
    """Bytes free for us on the disk that holds ``path`` or its nearest existing parent."""
    for folder in (path, *path.parents):
        if folder.exists():
            return shutil.disk_usage(folder).free
    return 0


def _flat_bytes(profile: RasterProfile) -> int:
    """What a raster takes with its overviews and without compression."""
    numbers = profile.shape[0] * profile.shape[1] * profile.count
    return 4 * numbers * np.dtype(profile.dtype).itemsize // 3


def _check_space(folder: Path, profile: RasterProfile) -> None:
    need, free = _flat_bytes(profile), _free(folder)
    if free < need:
        raise DiskFullError(
            f"no space: {folder} needs {need / 1e6:,.1f} MB for temporary files, "
            f"{free / 1e6:,.1f} MB are free; free some, or write to another disk"
        )


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
