"""What is to be evaluated: settings, and everything that is checked before a pixel is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer

from tilemap.directory import digest_of
from tilemap.errors import SceneError, SceneMismatchError, UsageError
from tilemap.evaluation.boundary import Tolerance
from tilemap.evaluation.classes import (
    Lookup,
    MapClass,
    Table,
    map_classes,
    match,
    read_table,
    stored_names,
)
from tilemap.evaluation.reference import (
    PartialReference,
    Reference,
    Shapes,
    features_on,
    place_area,
    place_features,
    place_raster,
    place_regions,
)
from tilemap.evaluation.trained_blocks import TrainedBlocks, check_parts, open_blocks
from tilemap.geometry import TileGrid, Window
from tilemap.stores.fingerprint import Inputs, files_of
from tilemap.stores.grids import apply, pixel_offset
from tilemap.stores.mosaic import Handles
from tilemap.stores.opening import plain_path
from tilemap.stores.rasters import Raster, describe
from tilemap.stores.vectors import is_vector

CORE = 2048
_READ = 2048  # side of the windows in which a reference is looked through
_TRUE = 0.01  # share by which a pixel's nominal side may differ from the true one


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """What a person asks for; saved in ``evaluation.json``.

    Args:
        class_map: a class map, or the directory of a run, whose ``landcover.tif`` it is.
        reference: raster of classes on any grid, or vector file.
        column: of a vector reference: its class.
        polygon_class: of all features of a vector reference, instead.
        layer: of a vector reference with several.
        background: of a vector reference: class of what no feature covers.
        area: vector file; only inside its polygons does the reference count.
        classes: table of the reference's values, see ``classes.read_table``.
        ignore: reference values or names that do not count.
        reference_nodata: number of a raster reference that means no reference there, instead of
            the one it declares; "none" if every number is a class.
        leave_out: parts of the model's training whose blocks do not count, ``train`` or
            ``validation``.
        confidence: percent on the map's grid; default ``confidence.tif`` beside the map.
        regions: vector file; figures are also made for each region.
        region_column: names of the regions.
        tolerance: of boundaries, pixels; default 2.
        tolerance_m: of boundaries, metres, instead.
        core: side of a tile, pixels.

    Raises:
        UsageError: if two of them contradict each other.
    """

    class_map: str
    reference: str
    column: str | None = None
    polygon_class: str | None = None
    layer: str | None = None
    background: str | None = None
    area: str | None = None
    classes: str | None = None
    ignore: tuple[str, ...] = ()
    reference_nodata: str | None = None
    leave_out: tuple[str, ...] = ()
    confidence: str | None = None
    regions: str | None = None
    region_column: str | None = None
    tolerance: float | None = None
    tolerance_m: float | None = None
    core: int = CORE

    def __post_init__(self) -> None:
        if self.tolerance is not None and self.tolerance_m is not None:
            raise UsageError("the tolerance is given in pixels or in metres, not in both")
        if (self.regions is None) != (self.region_column is None):
            raise UsageError("`regions` and `region_column` must be given together")
        check_parts(self.leave_out)
        if self.core < 1:
            raise UsageError(f"core must be at least 1 pixel, got {self.core}")
        told = [text for text in (self.column, self.polygon_class) if text is not None]
        if is_vector(self.reference) and len(told) != 1:
            raise UsageError(
                "a vector reference needs `column`, the attribute with the class, or "
                "`polygon_class`, the class of all its features"
            )
        if not is_vector(self.reference) and (told or self.background is not None):
            raise UsageError(
                "`column`, `polygon_class` and `background` are for a vector reference only"
            )
        if is_vector(self.reference) and self.reference_nodata is not None:
            raise UsageError("`reference_nodata` is for a raster reference only")
        for distance in (self.tolerance, self.tolerance_m):
            if distance is not None and not 0 < distance < math.inf:
                raise UsageError(f"the tolerance must be above 0, got {distance:g}")


@dataclass(frozen=True)
class Work:
    """All that a tile needs; each process makes its own from the settings.

    Args:
        map_lookup: class indices of the map's stored numbers.
        confidence: None if there is none.
        regions: None if there are none.
        region_names: by number.
        notes: what a reader of the figures should know, a sentence each.
        warnings: why the figures may be too good, a sentence each.
        blocks: on which the model was trained; None if it does not say.
        inputs: the files as they were when the evaluation began.
    """

    settings: EvaluateSettings
    class_map: Raster
    classes: tuple[MapClass, ...]
    map_lookup: Lookup
    reference: Reference
    confidence: Raster | None
    regions: Shapes | None
    region_names: tuple[str, ...]
    tolerance: Tolerance
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    blocks: TrainedBlocks | None = None
    inputs: Inputs = Inputs()

    @property
    def grid(self) -> TileGrid:
        """The cut of the map; margins are read as the tolerance asks, not by the grid."""
        return TileGrid(self.class_map.shape, self.settings.core, 0, 0)

    def files(self) -> dict[str, str]:
        """Absolute paths by what they are."""
        named = {
            "map": self.class_map.path,
            "reference": self.settings.reference,
            "confidence": None if self.confidence is None else self.confidence.path,
            "regions": self.settings.regions,
            "area": self.settings.area,
            "classes": self.settings.classes,
        }
        return {what: str(plain_path(path)) for what, path in named.items() if path is not None}


def prepare(settings: EvaluateSettings) -> Work:
    """Open everything, and check that it fits together; reads no pixels.

    Raises:
        SceneError: if a file cannot be read, or does not say what it must.
        SceneMismatchError: if two files do not lie on each other as they must.
        UsageError: if an option does not fit the files.
    """
    class_map = _one_band(_map_path(settings.class_map), "a class map")
    nodata = class_map.bands[0].nodata
    table = None if settings.classes is None else read_table(settings.classes)
    classes = map_classes(class_map.path, nodata, table)
    geobox, notes = class_map.geobox, list[str]()
    tolerance = _tolerance(settings, geobox, notes)
    reference = _reference(settings, class_map, classes, table, notes)
    if settings.area is not None:
        area = features_on(settings.area, None, geobox)
        reference = PartialReference(reference, place_area(area, geobox))
        notes.append(f"The reference counts inside the polygons of {area.name} only.")
    region_names: tuple[str, ...] = ()
    regions = None
    if settings.regions is not None and settings.region_column is not None:
        areas = features_on(settings.regions, None, geobox)
        region_names, regions = place_regions(areas, settings.region_column, geobox)
    path = str(plain_path(settings.reference))
    blocks, warnings = open_blocks(class_map.path, geobox, path, settings.leave_out)
    work = Work(
        settings=settings,
        class_map=class_map,
        classes=classes,
        map_lookup=Lookup(tuple((float(c.value), i) for i, c in enumerate(classes))),
        reference=reference,
        confidence=_confidence(settings, class_map, notes),
        regions=regions,
        region_names=region_names,
        tolerance=tolerance,
        notes=tuple(notes),
        warnings=warnings,
        blocks=blocks,
    )
    files = (file for path in work.files().values() for file in files_of(path))
    return replace(work, inputs=Inputs.of(files))


def _reference(
    settings: EvaluateSettings,
    class_map: Raster,
    classes: tuple[MapClass, ...],
    table: Table | None,
    notes: list[str],
) -> Reference:
    geobox = class_map.geobox
    if not is_vector(settings.reference):
        raster = _with_nodata(describe(str(plain_path(settings.reference))), settings)
        stored = {} if table is not None else stored_names(raster.path)
        matching = match(classes, table, settings.ignore, stored)
        if pixel_offset(geobox, raster.geobox) is None:
            notes.append(
                "The reference lies on another grid: each pixel of the map takes the pixel of the "
                "reference that holds its centre."
            )
        lookup = matching.lookup(stored)
        placed = place_raster(raster, geobox, matching, lookup)
        if settings.reference_nodata is None:
            notes += _hidden_class(raster, classes, lookup)
        return placed
    features = features_on(settings.reference, settings.layer, geobox)
    notes.append(
        "A pixel has the reference's class if a polygon holds its centre; of several polygons the "
        "last in the file counts."
        + (f" What none covers is {settings.background}." if settings.background else "")
    )
    if features.nulls:
        notes.append(f"{features.nulls} features of the reference have no geometry.")
    if features.crs is None and geobox.crs is not None:
        notes.append("The reference has no CRS: taken for the map's.")
    matching = match(classes, table, settings.ignore)
    if settings.column is not None:
        values = features.column(settings.column)
    else:
        values = (settings.polygon_class,) * len(features.geometries)
    return place_features(features, values, geobox, matching, settings.background)


def _with_nodata(raster: Raster, settings: EvaluateSettings) -> Raster:
    """The reference with the nodata that the settings ask for.

    Raises:
        UsageError: if it is neither a number nor "none".
    """
    asked = settings.reference_nodata
    if asked is None:
        return raster
    try:
        nodata = None if asked.strip().lower() == "none" else float(asked)
    except ValueError as error:
        raise UsageError(
            f'`reference_nodata` must be a number, or "none" if every number is a class, got '
            f"{asked!r}"
        ) from error
    return replace(raster, bands=tuple(replace(band, nodata=nodata) for band in raster.bands))


def _hidden_class(raster: Raster, classes: Sequence[MapClass], lookup: Lookup) -> list[str]:
    """A note if the number that a reference declares nodata is one of the classes.

    Files often declare 0 by default. The whole class is left out of the figures then.
    """
    nodata = raster.bands[0].nodata
    if nodata is None or not np.isfinite(nodata):
        return []
    index = int(lookup.apply(np.array([nodata]))[0])
    if index >= len(classes):
        return []
    rows, cols = raster.shape
    with Handles() as handles:
        reader, count = handles.of(raster), 0
        for top, left in product(range(0, rows, _READ), range(0, cols, _READ)):
            window = Window(top, left, min(top + _READ, rows), min(left + _READ, cols))
            count += int(np.count_nonzero(reader.read((0,), window)[0] == nodata))
    if not count:
        return []
    return [
        f"The reference declares {nodata:g} as nodata, which is the class "
        f"{classes[index].name}: {count:,} pixels of it are left out. If they are of that class, "
        "say so: `reference_nodata` none."
    ]


def _map_path(path: str) -> str:
    found = plain_path(path)
    return str(found / "landcover.tif" if found.is_dir() else found)


def _one_band(path: str, what: str) -> Raster:
    raster = describe(path)
    if len(raster.bands) != 1:
        raise SceneError(f"{what} must have one band, {path} has {len(raster.bands)}")
    return raster


def _confidence(settings: EvaluateSettings, class_map: Raster, notes: list[str]) -> Raster | None:
    if settings.confidence is not None:
        path = str(plain_path(settings.confidence))
    else:
        beside = Path(class_map.path).with_name("confidence.tif")
        if not beside.is_file() or str(beside) == class_map.path:
            notes.append("There is no confidence raster, so calibration is not told.")
            return None
        path = str(beside)
    raster = _one_band(path, "a confidence raster")
    alike = raster.shape == class_map.shape and pixel_offset(raster.geobox, class_map.geobox) == (
        0,
        0,
    )
    if alike and raster.bands[0].dtype == "uint8":
        return raster
    if settings.confidence is None:
        notes.append("confidence.tif beside the map does not fit it and is not used.")
        return None
    if not alike:
        raise SceneMismatchError(
            f"confidence must lie on the map's grid of {class_map.shape} pixels, "
            f"{path} has {raster.shape}" + ("" if raster.shape != class_map.shape else " elsewhere")
        )
    raise SceneError(
        f"confidence must be uint8 percent, 0 to 100, {path} has {raster.bands[0].dtype}"
    )


def _tolerance(settings: EvaluateSettings, geobox: GeoBox, notes: list[str]) -> Tolerance:
    if settings.tolerance_m is None:
        return Tolerance(2.0 if settings.tolerance is None else settings.tolerance)
    down, right, text = pixel_sides_m(geobox)
    notes.append(f"Boundary distances: {text}.")
    return Tolerance(settings.tolerance_m, (down, right))


def pixel_sides_m(geobox: GeoBox) -> tuple[float, float, str]:
    """Height and width of a pixel in metres, and how they were found, for a person.

    Nominal where that is within 1 % of the true size at the map's centre; else, as in degrees or in
    EPSG:3857, the true size there, by geodesics.

    Raises:
        UsageError: if there is no CRS.
    """
    if geobox.crs is None:
        raise UsageError("without a CRS the tolerance must be in pixels, give `tolerance`")
    crs = CRS(geobox.crs.to_wkt())
    affine = geobox.affine
    sides = math.hypot(affine.b, affine.e), math.hypot(affine.a, affine.d)
    if crs.geodetic_crs is not None:
        true = _true_sides(geobox, crs, crs.get_geod() or Geod(ellps="WGS84"))
        if crs.is_geographic:
            nominal = (math.inf, math.inf)
        else:
            factor = crs.axis_info[0].unit_conversion_factor
            nominal = (sides[0] * factor, sides[1] * factor)
        off = max(abs(n / t - 1) for n, t in zip(nominal, true, strict=True))
        if off > _TRUE:
            size = f"{true[0]:.4g} x {true[1]:.4g} m"
            return *true, f"a pixel is {size}, its true size at the centre of the map"
        sides = nominal
    return *sides, f"a pixel is {sides[0]:.6g} x {sides[1]:.6g} m"


def _true_sides(geobox: GeoBox, crs: CRS, geod: Geod) -> tuple[float, float]:
    rows, cols = (int(n) / 2 for n in geobox.shape)
    to_degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    points = [(cols, rows - 0.5), (cols, rows + 0.5), (cols - 0.5, rows), (cols + 0.5, rows)]
    x, y = zip(*(apply(geobox.affine, *point) for point in points), strict=True)
    lon, lat = (np.asarray(v) for v in to_degrees.transform(x, y))
    _, _, metres = geod.inv(lon[::2], lat[::2], lon[1::2], lat[1::2])
    if not np.isfinite(metres).all() or not (np.asarray(metres) > 0).all():
        raise UsageError("the centre of the map has no place on Earth, give `tolerance` in pixels")
    return float(metres[0]), float(metres[1])


def digests(files: dict[str, str], inputs: Inputs | None = None) -> dict[str, dict[str, Any]]:
    """Say what the input files are: name, size and SHA-256.

    Args:
        files: absolute paths by what they are.
        inputs: their fingerprints; taken where they are not given.
    """
    parts = {what: files_of(path) for what, path in files.items()}
    inputs = inputs or Inputs.of(file for several in parts.values() for file in several)
    return {what: _digest(Path(files[what]), inputs.records(parts[what])) for what in files}


def _digest(path: Path, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One file, with those that belong to it."""
    digest, samples = str(records[0]["sha256"]), records[0].get("samples")
    if len(records) > 1:
        digest = digest_of({"files": list(records)})
    part = f"{samples} samples" if samples else "all"
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest, "of": part}


def settings_record(settings: EvaluateSettings) -> dict[str, Any]:
    """The settings as plain JSON; files by name, since the digests say which they were."""
    record = asdict(settings)
    for key in ("class_map", "reference", "classes", "confidence", "regions", "area"):
        if record[key] is not None:
            record[key] = Path(record[key]).name
    return record


def split_values(text: str | Sequence[str | int] | None) -> tuple[str, ...]:
    """``"0, 9"`` to ``("0", "9")``; a sequence stays one."""
    if text is None:
        return ()
    parts = text.split(",") if isinstance(text, str) else [str(part) for part in text]
    return tuple(part.strip() for part in parts if part.strip())
