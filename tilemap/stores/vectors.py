"""Features of vector files (GeoPackage, GeoJSON, Shapefile ...), and their pixels on a grid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pyproj.exceptions import CRSError, ProjError

from tilemap.errors import SceneError, SceneMismatchError
from tilemap.files import decode_json, open_file, read_file
from tilemap.geometry import Window
from tilemap.stores.grids import moved


@dataclass(frozen=True)
class Features:
    """Geometries with their attributes.

    Args:
        name: file, and layer where it has several.
        crs: of the geometries; None if the file does not say.
        geometries: shapely, none of them null or empty.
        attributes: by name, one value per geometry.
        nulls: features of the file that had no geometry and were left out.
    """

    name: str
    crs: CRS | None
    geometries: tuple[Any, ...]
    attributes: dict[str, tuple[Any, ...]]
    nulls: int

    def column(self, name: str) -> tuple[Any, ...]:
        """One attribute of each geometry.

        Raises:
            SceneError: naming the attributes there are.
        """
        if name not in self.attributes:
            known = ", ".join(self.attributes) or "none"
            raise SceneError(f"{self.name} must have an attribute {name!r}, it has {known}")
        return self.attributes[name]


_SIGNATURES = (
    b"SQLite format 3\0",  # GeoPackage, which says so at byte 68 or by its name
    b"\0\0\x27\x0a",  # Shapefile
    b"fgb",  # FlatGeobuf
    b"PAR1",  # GeoParquet
)
_GEOMETRIES = (
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon",
    "GeometryCollection",
)  # fmt: skip


def is_vector(path: str | Path) -> bool:
    """Whether a file is read as features, by its ending."""
    return Path(path).suffix.lower() in (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet")


def vector_file(path: Path) -> Path | bytes:
    """What GDAL may open of a vector file: the file, or the content of a GeoJSON file.

    GDAL takes what a file is from its first bytes, whatever its name, and some of its drivers
    read other files and addresses. So only formats pass that hold their features themselves.
    GeoJSON is written again without what may name an address.

    Raises:
        SceneError: if it is of another format, or is no GeoJSON.
    """
    try:
        with open_file(path) as file:
            head = file.read(72)
    except OSError as problem:
        raise SceneError(f"cannot open {path}: {problem.strerror}") from problem
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return _plain_geojson(path)
    database = head.startswith(_SIGNATURES[0])
    if not head.startswith(_SIGNATURES) or (
        database and head[68:70] != b"GP" and path.suffix.lower() != ".gpkg"
    ):
        raise SceneError(
            f"{path.name} cannot be read: it must be GeoPackage, GeoJSON, Shapefile, FlatGeobuf or "
            "GeoParquet"
        )
    return path


def _plain_geojson(path: Path) -> bytes:
    try:
        found = decode_json(read_file(path))
    except ValueError as problem:
        raise SceneError(f"{path.name} cannot be read as JSON: {problem}") from problem
    kind, crs = found.get("type"), found.get("crs")
    if kind in _GEOMETRIES:
        found = {"crs": crs, "features": [{"type": "Feature", "properties": {}, "geometry": found}]}
    elif kind == "Feature":
        found = {"crs": crs, "features": [found]}
    elif kind != "FeatureCollection" or "coordRefSys" in found:
        raise SceneError(
            f"JSON with features must be GeoJSON, {path.name} is not; convert it to GeoPackage"
        )
    if crs is not None and (
        not isinstance(crs, dict) or crs.get("type") not in ("name", "EPSG", "OGC")
    ):
        raise SceneError(
            f"GeoJSON must give its CRS by name, {path.name} has {json.dumps(crs)[:80]}"
        )
    if crs is not None and crs["type"] == "name" and not _is_known(crs):
        raise SceneError(
            f"GeoJSON must give a known CRS, {path.name} has {json.dumps(crs)[:80]}"
        )  # GDAL would take longitude and latitude
    new: dict[str, Any] = {"type": "FeatureCollection", "name": str(found.get("name") or path.stem)}
    if crs is not None:
        new["crs"] = crs
    return json.dumps({**new, "features": found.get("features")}).encode()


def _is_known(crs: dict[str, Any]) -> bool:
    """Return True if GDAL knows the CRS that a GeoJSON file names."""
    import rasterio.crs
    from rasterio.errors import CRSError as GdalError

    properties = crs.get("properties")
    name = properties.get("name") if isinstance(properties, dict) else None
    try:
        return isinstance(name, str) and bool(rasterio.crs.CRS.from_user_input(name))
    except GdalError:
        return False


def read_features(path: str | Path, layer: str | None = None) -> Features:
    """All features of one layer.

    Args:
        path: GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet, as the content says.
        layer: default the only one with geometries.

    Raises:
        SceneError: if the file cannot be read, or has several layers and none was named.
    """
    import pyogrio
    from pyogrio.errors import DataSourceError

    name = Path(path).name
    if not Path(path).is_file():
        raise SceneError(f"{path}: there is no such file")
    place = vector_file(Path(path))
    try:
        layers = [str(row[0]) for row in pyogrio.list_layers(place) if row[1] is not None]
        if layer is None and len(layers) != 1:
            raise SceneError(f"{name} has the layers {', '.join(layers) or 'none'}; name one")
        if layer is not None and layer not in layers:
            raise SceneError(f"{name} has the layers {', '.join(layers)}, got {layer!r}")
        meta, _, blobs, columns = pyogrio.raw.read(place, layer=layer or layers[0], force_2d=True)
    except (DataSourceError, ValueError, RuntimeError) as error:
        if isinstance(error, SceneError):
            raise
        text = str(error).splitlines()[0]
        raise SceneError(f"{name} cannot be read as features: {text}") from error
    geometries, kept = _valid(blobs, name)
    try:
        crs = None if meta["crs"] is None else CRS(meta["crs"])
    except (CRSError, ValueError) as error:
        raise SceneError(f"the CRS of {name} cannot be read: {error}") from error
    return Features(
        name=name if layer is None else f"{name} ({layer})",
        crs=crs,
        geometries=tuple(geometries[kept]),
        attributes={
            str(field): tuple(_plain(value) for value in column[kept])
            for field, column in zip(meta["fields"], columns, strict=True)
        },
        nulls=int(np.count_nonzero(~kept)),
    )


def _valid(blobs: Any, name: str) -> tuple[Any, Any]:
    """Geometries made valid, and a mask of those that are neither null nor empty.

    Raises:
        SceneError: naming the first that cannot be one.
    """
    found = np.empty(len(blobs), dtype=object)
    for number, blob in enumerate(blobs):
        try:
            with np.errstate(all="ignore"):  # of numbers that are refused here
                geometry = shapely.from_wkb(blob)
                if not np.isfinite(shapely.get_coordinates(geometry)).all():
                    raise SceneError(
                        f"coordinates must be finite, those of feature {number + 1} of {name} "
                        "are not"
                    )
                found[number] = shapely.make_valid(geometry)
        except shapely.errors.ShapelyError as error:
            reason = str(error).splitlines()[0]
            raise SceneError(
                f"the geometry of feature {number + 1} of {name} is damaged: {reason}"
            ) from error
    return found, ~(shapely.is_missing(found) | shapely.is_empty(found))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def onto(features: Features, geobox: GeoBox) -> Features:
    """The features in the CRS of a grid; without a CRS on either side they stay as they are.

    Raises:
        SceneMismatchError: if no way leads from one CRS to the other.
    """
    if features.crs is None or geobox.crs is None or features.crs == geobox.crs:
        return features
    try:
        move = Transformer.from_crs(
            features.crs.to_wkt(), geobox.crs.to_wkt(), always_xy=True
        ).transform
    except ProjError as error:
        raise SceneMismatchError(
            f"{features.name} has the CRS {features.crs.proj.name}, from which no way leads to "
            f"{geobox.crs.proj.name}; give it in the CRS of the map"
        ) from error
    moved_ = tuple(shapely.transform(g, move, interleaved=False) for g in features.geometries)
    return replace(features, crs=geobox.crs, geometries=moved_)


def burn(
    geometries: Sequence[Any],
    values: Iterable[int],
    geobox: GeoBox,
    window: Window | None = None,
    fill: int = 255,
) -> npt.NDArray[np.uint8]:
    """Values of the geometries whose inside holds a pixel's centre; later ones lie on top.

    Args:
        geometries: in the CRS of the grid.
        values: one per geometry, 0..255.
        geobox: the grid.
        window: part of it, in its pixels; default all of it.
        fill: of pixels in no geometry.

    Returns:
        uint8 (y, x) of the window.
    """
    from rasterio.features import rasterize

    rows, cols = geobox.shape
    window = window or Window(0, 0, rows, cols)
    shapes = list(zip(geometries, values, strict=True))
    if not shapes:
        return np.full(window.shape, fill, dtype=np.uint8)
    affine = moved(geobox.affine, window.top, window.left)
    return np.asarray(
        rasterize(shapes, out_shape=window.shape, fill=fill, transform=affine, dtype="uint8")
    )
