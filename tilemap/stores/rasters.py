"""One raster file: opened safely, described without reading pixels, read in windows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from tilemap.errors import SceneError, StoreError
from tilemap.files import is_file
from tilemap.geometry import Window
from tilemap.scene import Product
from tilemap.stores.fingerprint import says_more
from tilemap.stores.grids import apply, crs_of
from tilemap.stores.opening import GDAL_SETTINGS, naming_file, open_dataset, plain_path
from tilemap.stores.products import product_of
from tilemap.stores.remote.address import Address, AllowList, is_address
from tilemap.stores.remote.blocks import RemoteFile, RemoteReader
from tilemap.stores.remote.dataset import Container
from tilemap.stores.sensors import is_code, name_of_words, sensor_in
from tilemap.stores.vrt import read_vrt

AnyArray = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]

_BESIDE = (
    ".msk", ".aux.xml", ".aux", ".tfw", ".tifw", ".wld", ".j2w", ".jp2w", ".tab", ".rpb",
    "_rpc.txt",
)  # fmt: skip
_FIT = 0.05  # pixels by which ground control points may miss the geotransform that stands for them
_DIGITS = 9  # of a pixel's side that are kept: more is the noise of the fit
LARGEST_BLOCK = 2**30  # bytes a single block may take in memory


@dataclass(frozen=True, slots=True)
class RasterBand:
    """One plane of data in a file.

    Args:
        index: its number in the file, from 1.
        name: common name, once it is known.
        dtype: NumPy name.
        description: what the file itself calls it, if anything.
        color: its colour interpretation, such as "red" or "gray".
        nodata: declared "not observed".
        scale: physical = stored * scale + offset.
        offset: see ``scale``.
        scaled: whether scale and offset were declared.
        shifted: whether the offset was declared, be it 0.
        said: the name that its own metadata give it, if any.
    """

    index: int
    dtype: str
    name: str | None = None
    description: str | None = None
    color: str = "undefined"
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    scaled: bool = False
    shifted: bool = False
    said: str | None = None


@dataclass(frozen=True, slots=True)
class Raster:
    """A file as it was found: enough to read it on another machine without asking again.

    Args:
        path: absolute; the address of a remote file, without what may be secret.
        driver: GDAL's name.
        geobox: its grid; the CRS may be None.
        bands: planes of data; alpha is none of them.
        mask: where validity comes from besides nodata: "none", the "alpha" band, one mask for
            the "file", or one for each "band".
        alpha: the band of transparency, if there is one.
        count: planes in the file, alpha included.
        files: absolute paths of what decides its pixels, itself first.
        remote: the file where it is not on this disk.
        sensor: what its metadata say it was seen by, a key of ``SENSORS``.
        product: what it looks like by its name.
        notes: what the user should know of it, one line each.
        unplaced: how it is placed on Earth, in a way that is not used, and what to do; else empty.
    """

    path: str
    driver: str
    geobox: GeoBox
    bands: tuple[RasterBand, ...]
    mask: Literal["none", "alpha", "file", "band"]
    alpha: RasterBand | None
    count: int
    files: tuple[str, ...]
    remote: RemoteFile | None = None
    sensor: str | None = None
    product: Product | None = None
    notes: tuple[str, ...] = ()
    unplaced: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, cols = self.geobox.shape
        return int(rows), int(cols)

    def opaque(self) -> Raster:
        """The same file, its alpha band read as data like the others."""
        if self.alpha is None:
            return self
        bands = tuple(sorted((*self.bands, self.alpha), key=lambda band: band.index))
        masked = f"{self.path}.msk" in self.files
        return replace(self, bands=bands, alpha=None, mask="file" if masked else "none")


def find_raster(source: str, allow: AllowList) -> Raster:
    """What is in a file that the user, or an item, named.

    Args:
        source: path or address.
        allow: hosts that may be asked.

    Raises:
        SceneError: as ``describe``; for an address whose host is not listed.
        StoreError: if a remote file cannot be read.
    """
    if not is_address(source):
        return describe(str(plain_path(source)))
    return describe_remote(RemoteReader.find(Address.parse(source), allow))


def describe(path: str) -> Raster:
    """Open a file, check what can be checked cheaply, and say what is in it.

    Raises:
        SceneError: if it cannot be opened, is truncated, or holds numbers tilemap cannot map.
    """
    if not is_file(path):
        raise SceneError(f"not a file: {path}")
    with (
        rasterio.Env(**GDAL_SETTINGS),
        open_dataset(path) as dataset,
        naming_file(path, "read", SceneError),
    ):
        return _raster(dataset, path, Path(path).stat().st_size, files_read(path, dataset))


def files_read(path: str, dataset: Any) -> tuple[str, ...]:
    """Every local file whose content decides what reading this one gives, itself first.

    Beside it these are the mask, ``.aux.xml`` (which may hold nodata, scale and place) and the
    world file. A VRT adds all that it reads, with the files beside them.

    Args:
        path: absolute.
        dataset: the same, open.

    Raises:
        SceneError: if a file that a VRT reads cannot be opened.
    """
    if dataset.driver != "VRT":
        return tuple(dict.fromkeys((path, *_ending(dataset.files, _BESIDE))))
    found = {path: None}
    for file in read_vrt(path).files:
        found[file] = None
        if not file.lower().endswith(".vrt"):
            with open_dataset(file) as inner, naming_file(file, "read", SceneError):
                # a VRT may reduce what it reads, and then takes overviews
                found |= dict.fromkeys(_ending(inner.files, (*_BESIDE, ".ovr")))
    return tuple(found)


def _ending(files: Sequence[str], endings: tuple[str, ...]) -> list[str]:
    """The files beside one that say something of its pixels; statistics of a GIS do not."""
    return [file for file in files if file.lower().endswith(endings) and says_more(file)]


def describe_remote(reader: RemoteReader) -> Raster:
    """The same of a file that is not on this disk; sidecars beside it are not looked for.

    Raises:
        SceneError: as ``describe``.
        StoreError: if it cannot be read.
    """
    container, path = Container(reader), reader.file.address.shown

    def look() -> Raster:
        with open_dataset(path, container) as dataset:
            return replace(_raster(dataset, path, reader.size, (path,)), remote=reader.file)

    with rasterio.Env(**GDAL_SETTINGS), naming_file(path, "read", SceneError):
        return container.run(look)


def _raster(dataset: Any, path: str, size: int, files: tuple[str, ...]) -> Raster:
    _check_blocks(dataset, path, size)
    geobox, placed = _placed(dataset, path)
    planes = _planes(dataset, path)
    alpha = next((plane for plane in planes if plane.color == "alpha"), None)
    bands = tuple(plane for plane in planes if plane is not alpha)
    if not bands:
        raise SceneError(f"a raster must have at least one band of data, {path} has none")
    raster = Raster(
        path=path,
        driver=dataset.driver,
        geobox=geobox,
        bands=bands,
        mask="none" if alpha is None else "alpha",
        alpha=alpha,
        count=dataset.count,
        files=files,
        sensor=sensor_in(_words(dataset.tags(), _OF_SENSOR)),
        product=product_of(path),
        notes=tuple(note for note in (_pages(dataset, path), placed) if note),
        unplaced="" if geobox.crs else placed,
    )
    if alpha is None:
        return replace(raster, mask=_mask_kind(dataset))
    return raster if _is_transparency(dataset, alpha) else raster.opaque()


def _planes(dataset: Any, path: str) -> tuple[RasterBand, ...]:
    """Describe every plane; rasterio makes each of these lists as a whole, so each is asked once.

    Raises:
        SceneError: if one of them holds numbers tilemap cannot map.
    """
    columns = zip(
        dataset.dtypes, dataset.scales, dataset.offsets, dataset.descriptions,
        dataset.nodatavals, dataset.colorinterp, strict=True,
    )  # fmt: skip
    planes = []
    for index, (dtype, scale, offset, description, nodata, color) in enumerate(columns, 1):
        if dtype.startswith("complex") or dtype in ("int64", "uint64"):
            raise SceneError(
                f"bands must hold real numbers of at most 32 bits or floats, band {index} of "
                f"{path} has {dtype}; convert it first"
            )
        if not (np.isfinite(scale) and np.isfinite(offset) and scale != 0):
            scale, offset = 1.0, 0.0
        planes.append(
            RasterBand(
                index=index,
                dtype=str(np.dtype(dtype)),
                description=description,
                color=color.name,
                nodata=nodata,
                scale=scale,
                offset=offset,
                scaled=(scale, offset) != (1.0, 0.0),
                shifted=(scale, offset) != (1.0, 0.0),
                said=name_of_words(_words(dataset.tags(index), _OF_BAND)),
            )
        )
    return tuple(planes)


_OF_SENSOR = re.compile(
    r"(?:spacecraft|platform|satellite|sensor|instrument|mission|product|shortname)"
    r"(?:_?(?:id|name|uri|shortname))?|landsat_(?:product|scene)_id",
    re.IGNORECASE,
)
_OF_BAND = re.compile(r"(?:eo:)?common_?name|band_?name|long_?name", re.IGNORECASE)


def _words(tags: Mapping[str, str], keys: re.Pattern[str]) -> str:
    """The values of the tags that are called so, as one text."""
    return " ".join(str(value) for key, value in tags.items() if keys.fullmatch(key))


def _is_transparency(dataset: Any, alpha: RasterBand) -> bool:
    """Return True unless the band says, or shows, that it is data.

    GDAL tags the fourth of four bands of bytes as alpha when nobody says what it is, the near
    infrared of many aerial pictures among them. Transparency is all or nothing, but for edges.
    """
    said = alpha.said or alpha.description or ""
    if name_of_words(said) or is_code(said):
        return bool(_TRANSPARENCY.search(said))
    between = seen = 0
    full = 255 if alpha.dtype == "uint8" else None
    for window in _spots(dataset.height, dataset.width):
        try:
            pixels = dataset.read(alpha.index, window=window)
        except RasterioError:
            continue  # a damaged block is for the run to report, tile by tile
        top = pixels.max(initial=0) if full is None else full
        between += int(((pixels != 0) & (pixels != top)).sum())
        seen += pixels.size
    return between <= _EDGES * seen


_TRANSPARENCY = re.compile(r"alpha|opacity|transparen|mask", re.IGNORECASE)
_EDGES = 0.1  # of an alpha band, at most: pixels that are neither seen nor unseen
_SPOTS, _SPOT = 5, 64


def _spots(rows: int, cols: int) -> Iterator[RasterioWindow]:
    """Small windows from all over a raster, its corners among them."""
    height, width = min(_SPOT, rows), min(_SPOT, cols)
    for row in sorted({round(n * (rows - height) / (_SPOTS - 1)) for n in range(_SPOTS)}):
        for col in sorted({round(n * (cols - width) / (_SPOTS - 1)) for n in range(_SPOTS)}):
            yield RasterioWindow(col, row, width, height)


def _mask_kind(dataset: Any) -> Literal["none", "file", "band"]:
    flags = [set(flag) for flag in dataset.mask_flag_enums]
    if any(MaskFlags.per_dataset in f for f in flags):
        return "file"
    known = {MaskFlags.all_valid, MaskFlags.nodata}
    return "none" if all(f & known for f in flags) else "band"


def _pages(dataset: Any, path: str) -> str:
    """Say that a TIFF has pages that are not read; overviews and masks are none."""
    more = len(dataset.subdatasets) - 1
    if dataset.driver not in ("GTiff", "COG") or more < 1:
        return ""
    return (
        f"{path} has {more} more page{'s' * (more > 1)}, only the first is read; bring the others "
        f"into files of their own: gdal_translate GTIFF_DIR:2:{Path(path).name} page2.tif"
    )


def _placed(dataset: Any, path: str) -> tuple[GeoBox, str]:
    """Its grid, and a note where its place is not a geotransform of its own.

    Ground control points that one geotransform fits are as good as that. Others bend the grid.

    Raises:
        SceneError: if its geotransform or its CRS is not understood.
    """
    geobox = _geobox(dataset, path, dataset.transform, dataset.crs)
    if geobox.crs is not None or not geobox.affine.is_identity:
        return geobox, ""
    points, crs = dataset.gcps
    name = Path(path).name
    if points and crs:
        fitted, off = _fit(points)
        if fitted is not None and off <= _FIT:
            return _geobox(dataset, path, fitted, crs), (
                f"{path} is placed by its {len(points)} ground control points, which one "
                f"geotransform fits to {off:.2g} pixels"
            )
        return geobox, (
            f"{path} has {len(points)} ground control points that no geotransform fits: they are "
            f"not used; warp it first: gdalwarp -tps -t_srs EPSG:... {name} warped.tif"
        )
    if dataset.rpcs is not None:
        return geobox, (
            f"{path} is placed by rational polynomials (RPC), which are not used; warp it first: "
            f"gdalwarp -rpc -to RPC_DEM=dem.tif -t_srs EPSG:... {name} warped.tif"
        )
    if dataset.tags(ns="GEOLOCATION"):
        return geobox, (
            f"{path} is placed by arrays of coordinates, which are not used; warp it first: "
            f"gdalwarp -geoloc -t_srs EPSG:... {name} warped.tif"
        )
    return geobox, ""


def _fit(points: Sequence[Any]) -> tuple[Affine | None, float]:
    """The geotransform closest to ground control points, and by how many pixels it misses one."""
    pixel = np.array([(p.col, p.row, 1.0) for p in points])
    world = np.array([(p.x, p.y) for p in points])
    if np.linalg.matrix_rank(pixel - [*pixel[:, :2].mean(axis=0), 0]) < 3:
        return None, np.inf
    middle = world.mean(axis=0)  # what is far from 0 loses digits
    solved = np.linalg.lstsq(pixel, world - middle, rcond=None)[0]  # (a, d), (b, e), (c, f)
    size = np.abs(solved[:2]).max()
    if size == 0:
        return None, np.inf
    digits = _DIGITS - math.floor(math.log10(size))
    (a, d), (b, e) = np.round(solved[:2], digits).tolist()
    x, y = np.round(solved[2] + middle, digits).tolist()
    fitted = Affine(a, b, x, d, e, y)
    if fitted.determinant == 0:
        return None, np.inf
    col, row = apply(~fitted, *world.T)
    return fitted, float(np.hypot(col - pixel[:, 0], row - pixel[:, 1]).max())


def _geobox(dataset: Any, path: str, affine: Affine, declared: Any) -> GeoBox:
    if not np.isfinite(tuple(affine)).all() or affine.determinant == 0:
        raise SceneError(f"the geotransform of {path} cannot be inverted: {tuple(affine)[:6]}")
    crs = None
    if declared:
        try:
            crs = crs_of(declared.to_wkt())
        except Exception as problem:
            raise SceneError(f"the CRS of {path} is not understood: {problem}") from problem
    return GeoBox((dataset.height, dataset.width), affine, crs)


def _check_blocks(dataset: Any, path: str, size: int) -> None:
    """Blocks must be of a sane size and, in a TIFF, lie inside the file.

    Only some are looked at, first and last included; the rest shows when it is read.
    """
    planes = dataset.count if str(dataset.interleaving).lower().endswith("pixel") else 1
    shapes = dataset.block_shapes
    for (rows, cols), dtype in zip(shapes, dataset.dtypes, strict=True):
        nbytes = rows * cols * _itemsize(dtype) * planes
        if nbytes > LARGEST_BLOCK and dataset.driver != "VRT":
            raise SceneError(
                f"blocks must be at most 1 GiB in memory, {path} has blocks of {rows} x {cols} "
                "pixels; rewrite it as a tiled GeoTIFF"
            )
    if dataset.driver not in ("GTiff", "COG"):
        return
    for index in sorted({1, dataset.count}):
        rows, cols = shapes[index - 1]
        down, across = -(-dataset.height // rows), -(-dataset.width // cols)
        for number in np.unique(np.linspace(0, down * across - 1, 32).astype(np.int64)):
            row, col = divmod(int(number), across)
            start = dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=index)
            length = dataset.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=index)
            if start and length and int(start) + int(length) > size:
                raise SceneError(
                    f"{path} is truncated: it has {size} bytes, but a block of pixels ends at "
                    f"byte {int(start) + int(length)}; fetch it again"
                )


def _itemsize(name: str) -> int:
    return 16 if name.startswith("complex") else np.dtype(name).itemsize


class RasterReader:
    """One open file, for one thread; opened at the first read.

    Args:
        raster: what to open.
    """

    def __init__(self, raster: Raster) -> None:
        self.raster = raster
        self._dataset: Any = None
        self._container: Container | None = None
        self._finish: Callable[[], Any] | None = None

    def close(self) -> None:
        """Give the handle back; reading opens it again."""
        if self._finish is not None:
            self._finish()
        elif self._dataset is not None:
            self._dataset.close()
        self._dataset = self._container = self._finish = None

    def read(self, positions: Sequence[int], window: Window) -> tuple[AnyArray, BoolArray]:
        """Stored numbers and where all of them were observed.

        Args:
            positions: which of ``raster.bands``, in the order wanted.
            window: in pixels of the file, inside it.

        Returns:
            image (band, y, x) of the promoted dtype, valid bool (y, x).

        Raises:
            StoreError: if GDAL cannot read it, or the file is no longer what it was.
        """
        raster = self.raster
        bands = [raster.bands[p] for p in positions]
        with naming_file(raster.path, "read", StoreError):
            dataset = self._open()
            if self._container is None:
                return self._read(dataset, bands, window)
            try:
                return self._container.run(self._read, dataset, bands, window)
            except BaseException:
                self.close()  # GDAL keeps blocks, some of which may have come to nothing
                raise

    def _read(
        self, dataset: Any, bands: Sequence[RasterBand], window: Window
    ) -> tuple[AnyArray, BoolArray]:
        raster = self.raster
        part = RasterioWindow(window.left, window.top, window.width, window.height)
        dtype = np.result_type(*(np.dtype(band.dtype) for band in bands))
        image: AnyArray = dataset.read([band.index for band in bands], window=part, out_dtype=dtype)
        valid = observed(image, bands)
        if raster.alpha is not None:
            valid &= dataset.read(raster.alpha.index, window=part) > 0
        elif raster.mask == "file":
            valid &= dataset.read_masks(bands[0].index, window=part) > 0
        elif raster.mask == "band":
            masks = dataset.read_masks([band.index for band in bands], window=part)
            valid &= (masks > 0).all(axis=0)
        return image, valid

    def _open(self) -> Any:
        if self._dataset is None:
            raster = self.raster
            if raster.remote is None:
                dataset = open_dataset(raster.path)
            else:
                self._container = Container(RemoteReader(raster.remote))
                dataset = self._container.run(open_dataset, raster.path, self._container)
                self._finish = self._container.close_after(self, dataset)
            self._dataset = dataset
            if (dataset.shape, dataset.count) != (raster.shape, raster.count):
                self.close()
                raise StoreError(f"{raster.path} has changed since the run was planned")
        return self._dataset


def observed(image: AnyArray, bands: Sequence[RasterBand]) -> BoolArray:
    """Where no band has its nodata number and every float is finite.

    Args:
        image: stored numbers (band, y, x).
        bands: one for each plane.

    Returns:
        bool (y, x), True = observed.
    """
    valid = np.ones(image.shape[1:], dtype=np.bool_)
    for plane, band in zip(image, bands, strict=True):
        own = np.dtype(band.dtype)
        if own.kind == "f":
            valid &= np.isfinite(plane)
        if band.nodata is None:
            continue
        nodata = stored_number(band.nodata, own)
        if nodata is None:
            continue
        valid &= ~_equal(plane, nodata) if own.kind == "f" else plane != nodata
    return valid


def _equal(plane: AnyArray, nodata: float) -> BoolArray:
    """Compare floats with a nodata value as GDAL does: to two units in the last place.

    This is ``ARE_REAL_EQUAL`` of gdal_priv.h. Its sum overflows close to the largest float, so
    that -3.4e+38, written by hand, stands for every spelling of the lowest float32.
    """
    value = np.asarray(nodata, dtype=plane.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        allowed = np.abs(plane + value) * (2 * np.finfo(plane.dtype).eps)
        found: BoolArray = (plane == value) | (np.abs(plane - value) < allowed)
    return found


def stored_number(value: float, dtype: np.dtype[Any]) -> int | float | None:
    """A nodata value as the file stores it; None if the dtype cannot hold it.

    >>> stored_number(255.0, np.dtype("uint8")), stored_number(-9999, np.dtype("uint8"))
    (255, None)
    """
    if not np.isfinite(value):
        return None  # in floats such pixels are never valid anyway
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(np.asarray(value).astype(dtype))
    limits = np.iinfo(dtype)
    whole = value == int(value) and limits.min <= value <= limits.max
    return int(value) if whole else None
