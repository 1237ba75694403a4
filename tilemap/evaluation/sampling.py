"""A seeded stratified random sample of a map's pixels, drawn without holding the map.

Two passes over the map, block by block: the first counts each stratum, the second finds the pixels
whose ranks, in raster order within their stratum, were drawn.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from odc.geo.geobox import GeoBox

from tilemap.area import CellArea
from tilemap.errors import OutputError, SceneError, StoreError, UsageError
from tilemap.evaluation.estimation import allocate, sample_size
from tilemap.geometry import Window
from tilemap.stores.grids import apply
from tilemap.stores.mosaic import Handles
from tilemap.stores.opening import GDAL_SETTINGS, plain_path
from tilemap.stores.rasters import Raster, describe

ROWS = 1024
LAYER, DESIGN = "sample", "design"
EXPECTED = 0.85
LEAST = 50
FORMULA = "n = (sum W_i sqrt(U_i (1 - U_i)) / S(O))^2, Olofsson et al. 2014, equation 13"


@dataclass(frozen=True)
class Stratum:
    """One class of a map.

    Args:
        value: stored number.
        name: for people.
        pixels: how many there are.
        area_ha: their true area, hectares; NaN where it is not known.
    """

    value: int
    name: str
    pixels: int
    area_ha: float


@dataclass(frozen=True)
class Drawn:
    """A sample.

    Args:
        strata: of the map, by ascending value.
        counts: units drawn of each.
        stratum: number of each unit's stratum, int64 (n,).
        row: of each unit, int64 (n,).
        col: likewise.
    """

    strata: tuple[Stratum, ...]
    counts: tuple[int, ...]
    stratum: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    col: npt.NDArray[np.int64]


def read_names(path: str) -> dict[int, str]:
    """Class names of a map by stored number, from its tags ``CLASS_<number>``."""
    with rasterio.open(plain_path(path)) as file:
        tags = {**file.tags(), **file.tags(1)}
    found = {k.removeprefix("CLASS_"): v for k, v in tags.items() if k.startswith("CLASS_")}
    return {int(k): v for k, v in found.items() if k.isdigit()}


def open_map(path: str | Path) -> Raster:
    """A map of classes.

    Raises:
        SceneError: if it is not one band of bytes.
    """
    raster = describe(str(plain_path(str(path))))
    if len(raster.bands) != 1 or raster.bands[0].dtype != "uint8":
        raise SceneError(f"{path} must be a map of classes, one band of uint8")
    return raster


def blocks(raster: Raster) -> Iterator[tuple[Window, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]]:
    """Rows of a map, top down: window, numbers and where there are any, (y, x)."""
    rows, cols = raster.shape
    with rasterio.Env(**GDAL_SETTINGS), Handles() as handles:
        for top in range(0, rows, ROWS):
            window = Window(top, 0, min(top + ROWS, rows), cols)
            image, valid = handles.of(raster).read((0,), window)
            yield window, image[0], valid


def strata_of(path: str | Path) -> tuple[Stratum, ...]:
    """Every class that occurs in a map.

    Raises:
        SceneError: if nothing is observed.
    """
    raster, names = open_map(path), read_names(str(path))
    pixels, area = np.zeros(256, dtype=np.int64), np.zeros(256)
    cells = CellArea(raster.geobox)
    for window, image, valid in blocks(raster):
        seen = image[valid]
        pixels += np.bincount(seen, minlength=256)
        km2 = np.broadcast_to(cells.cell_km2(window), window.shape)[valid]
        area += np.bincount(seen, km2, minlength=256)
    found = tuple(
        Stratum(int(v), names.get(int(v), f"class {v}"), int(pixels[v]), float(area[v]) * 100)
        for v in np.flatnonzero(pixels)
    )
    if not found:
        raise SceneError(f"{path} must have observed pixels, it has none")
    return found


def size_of(
    strata: Sequence[Stratum], standard_error: float, expected: float, least: int = LEAST
) -> list[int]:
    """Units of each stratum for a standard error of the overall accuracy."""
    if not 0 < standard_error < 0.5:
        raise UsageError(f"--standard-error must lie between 0 and 0.5, got {standard_error:g}")
    if not 0.5 <= expected < 1:
        raise UsageError(f"--expected-accuracy must be at least 0.5 and below 1, got {expected:g}")
    sizes = [stratum.pixels for stratum in strata]
    shares = [size / sum(sizes) for size in sizes]
    return allocate(sizes, sample_size(shares, [expected] * len(sizes), standard_error), least)


def draw(path: str | Path, strata: Sequence[Stratum], counts: Sequence[int], seed: int) -> Drawn:
    """Draw units of each stratum, without replacement; the same for the same seed.

    Raises:
        UsageError: if fewer than two of a stratum are wanted, which tell nothing of its spread.
    """
    wanted = [min(count, s.pixels) for count, s in zip(counts, strata, strict=True)]
    if any(count < 2 for count in counts):
        raise UsageError(f"a sample needs two units of each stratum or more, got {min(counts)}")
    ranks = [
        np.sort(np.random.default_rng([seed, s.value]).choice(s.pixels, count, replace=False))
        for s, count in zip(strata, wanted, strict=True)
    ]
    raster = open_map(path)
    before = [0] * len(strata)
    found: list[tuple[int, int, int]] = []
    for window, image, valid in blocks(raster):
        flat = np.where(valid, image.astype(np.int64), -1).ravel()
        for number, stratum in enumerate(strata):
            here = np.flatnonzero(flat == stratum.value)
            low, high = before[number], before[number] + len(here)
            chosen = ranks[number][(ranks[number] >= low) & (ranks[number] < high)] - low
            rows, cols = np.divmod(here[chosen], window.width)
            found += [
                (number, int(row) + window.top, int(col))
                for row, col in zip(rows, cols, strict=True)
            ]
            before[number] = high
    # in an order that does not tell the interpreter what the map says
    order = np.random.default_rng([seed, 1000]).permutation(len(found))
    units = np.array(sorted(found), dtype=np.int64)[order]
    return Drawn(tuple(strata), tuple(wanted), units[:, 0], units[:, 1], units[:, 2])


def write_sample(path: Path, drawn: Drawn, geobox: GeoBox, about: Mapping[str, Any]) -> None:
    """Write a GeoPackage: layer ``sample`` to be labelled, layer ``design`` with the strata.

    Raises:
        OutputError: if the file exists: labels may be in it.
        StoreError: if it cannot be written.
    """
    import pyogrio

    if path.exists():
        raise OutputError(f"{path} exists, and may hold labels; give another --out")
    x, y = apply(geobox.affine, drawn.col + 0.5, drawn.row + 0.5)
    partial = path.with_name(path.name + ".partial.gpkg")
    partial.unlink(missing_ok=True)
    strata = [drawn.strata[n] for n in drawn.stratum]
    blank = np.array([None] * len(strata), dtype=object)
    common: dict[str, Any] = {
        "driver": "GPKG", "crs": None if geobox.crs is None else geobox.crs.to_wkt(),
    }  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.raw.write(
                partial, layer=LAYER, geometry_type="Point",
                geometry=shapely.to_wkb(shapely.points(x, y)),
                fields=["unit", "row", "col", "stratum", "stratum_name", "reference"],
                field_data=[
                    np.arange(1, len(strata) + 1), drawn.row, drawn.col,
                    np.array([s.value for s in strata], dtype=np.int64),
                    np.array([s.name for s in strata], dtype=object), blank,
                ],
                **common,
            )  # fmt: skip
            middle = shapely.to_wkb(shapely.points([float(x.mean())], [float(y.mean())]))
            pyogrio.raw.write(
                partial, layer=DESIGN, geometry_type="Point", append=True,
                geometry=np.repeat(middle, len(drawn.strata)),
                fields=["value", "name", "pixels", "area_ha", "units", "about"],
                field_data=[
                    np.array([s.value for s in drawn.strata], dtype=np.int64),
                    np.array([s.name for s in drawn.strata], dtype=object),
                    np.array([s.pixels for s in drawn.strata], dtype=np.int64),
                    np.array([s.area_ha for s in drawn.strata]),
                    np.array(drawn.counts, dtype=np.int64),
                    np.array([json.dumps({**about, "formula": FORMULA})] * len(drawn.strata),
                             dtype=object),
                ],
                **common,
            )  # fmt: skip
        partial.replace(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
