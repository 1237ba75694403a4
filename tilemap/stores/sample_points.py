"""A sample to be labelled as a GeoPackage: points, the design they come from, the known answers."""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.crs import CRS

from tilemap.errors import OutputError, SceneError
from tilemap.files import decode_json, system_error
from tilemap.stores.vectors import vector_file

POINTS, DESIGN = "sample", "design"
ANSWER = "reference"
Columns = Mapping[str, npt.NDArray[Any]]

# The schema extension of OGC 12-128r15, annex F.9: QGIS offers such values as a list.
_DOMAIN = """
CREATE TABLE gpkg_data_columns (
  table_name TEXT NOT NULL, column_name TEXT NOT NULL, name TEXT, title TEXT, description TEXT,
  mime_type TEXT, constraint_name TEXT,
  CONSTRAINT pk_gdc PRIMARY KEY (table_name, column_name),
  CONSTRAINT gdc_tn UNIQUE (table_name, name));
CREATE TABLE gpkg_data_column_constraints (
  constraint_name TEXT NOT NULL, constraint_type TEXT NOT NULL, value TEXT, min NUMERIC,
  min_is_inclusive BOOLEAN, max NUMERIC, max_is_inclusive BOOLEAN, description TEXT,
  CONSTRAINT gdcc_ntv UNIQUE (constraint_name, constraint_type, value));
CREATE TABLE IF NOT EXISTS gpkg_extensions (
  table_name TEXT, column_name TEXT, extension_name TEXT NOT NULL, definition TEXT NOT NULL,
  scope TEXT NOT NULL, CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name));
"""
_SCHEMA = "http://www.geopackage.org/spec121/#extension_schema"


@dataclass(frozen=True)
class SampleFile:
    """What is in a sample's file.

    Args:
        points: columns of the points, in the order of the file.
        x: of each point, float64 (n,); NaN where it has no place.
        y: likewise.
        crs: of the points; None if the file does not say.
        design: columns of the layer ``design``; empty if there is none.
        about: how it was drawn; empty if it does not say.
    """

    points: Columns
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    crs: CRS | None
    design: Columns
    about: Mapping[str, Any]


def check_free(path: Path) -> None:
    """Refuse a file that is there, and a folder that is not.

    Raises:
        OutputError: naming it.
    """
    if path.suffix.lower() != ".gpkg":
        raise OutputError(f"a sample is written as a GeoPackage, *.gpkg, got {path}")
    if path.exists() or path.is_symlink():
        raise OutputError(f"{path} exists, and may hold labels; give another `out`")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} must be a folder, there is none")


def write_sample_file(path: Path, sample: SampleFile, answers: Sequence[str]) -> None:
    """Write a sample, whole or not at all.

    Args:
        path: of the new file.
        sample: what is in it; the column ``reference`` is added to its points, empty.
        answers: what may stand in that column, offered by programs that know how.

    Raises:
        OutputError: if the file exists.
        StoreError: if it cannot be written.
    """
    check_free(path)
    partial = path.with_name(path.name + ".partial.gpkg")
    partial.unlink(missing_ok=True)
    blank = np.full(sample.x.size, None, dtype=object)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            _write_layers(partial, sample, {**sample.points, ANSWER: blank})
        _offer(partial, answers)
        handle = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        partial.replace(path)
    except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
        raise system_error(f"cannot write {path}", error, path.parent) from error
    finally:
        partial.unlink(missing_ok=True)


def _write_layers(path: Path, sample: SampleFile, points: Columns) -> None:
    from pyogrio.raw import write

    write(
        path,
        geometry=shapely.to_wkb(shapely.points(sample.x, sample.y)),
        fields=list(points),
        field_data=list(points.values()),
        layer=POINTS,
        driver="GPKG",
        geometry_type="Point",
        crs=None if sample.crs is None else sample.crs.to_wkt(),
    )
    write(
        path,
        geometry=None,
        fields=list(sample.design),
        field_data=list(sample.design.values()),
        layer=DESIGN,
        driver="GPKG",
        append=True,
        layer_metadata={"TILEMAP": json.dumps(dict(sample.about), sort_keys=True)},
    )


def _offer(path: Path, answers: Sequence[str]) -> None:
    """Say what the answers may be, so that they can be chosen from a list."""
    with closing(sqlite3.connect(path)) as file, file:
        file.executescript(_DOMAIN)
        file.executemany(
            "INSERT INTO gpkg_extensions VALUES (?, NULL, 'gpkg_schema', ?, 'read-write')",
            [(name, _SCHEMA) for name in ("gpkg_data_columns", "gpkg_data_column_constraints")],
        )
        file.execute(
            "INSERT INTO gpkg_data_columns (table_name, column_name, title, constraint_name) "
            "VALUES (?, ?, 'class, as seen', 'classes')",
            (POINTS, ANSWER),
        )
        file.executemany(
            "INSERT INTO gpkg_data_column_constraints (constraint_name, constraint_type, value, "
            "description) VALUES ('classes', 'enum', ?, ?)",
            [(name, name) for name in dict.fromkeys(answers)],
        )


def read_sample_file(path: Path) -> SampleFile:
    """Read a sample, labelled or not.

    Raises:
        SceneError: if it cannot be read, or has no points.
    """
    import pyogrio

    if not path.is_file():
        raise SceneError(f"no such file: {path}")
    place = vector_file(path)
    try:
        layers = [str(name) for name in pyogrio.list_layers(place)[:, 0]]
        if POINTS not in layers:
            raise SceneError(f"{path.name} must have the layer {POINTS!r}, got {', '.join(layers)}")
        meta, _, blobs, columns = pyogrio.raw.read(place, layer=POINTS, force_2d=True)
        design: dict[str, npt.NDArray[Any]] = {}
        about: dict[str, Any] = {}
        if DESIGN in layers:
            more = pyogrio.raw.read(place, layer=DESIGN, read_geometry=False)
            design = dict(zip(map(str, more[0]["fields"]), more[3], strict=True))
            told = (pyogrio.read_info(place, layer=DESIGN)["layer_metadata"] or {}).get("TILEMAP")
            about = decode_json(told) if told else {}
    except (RuntimeError, ValueError) as error:
        if isinstance(error, SceneError):
            raise
        text = str(error).splitlines()[0]
        raise SceneError(f"{path.name} cannot be read as a sample: {text}") from error
    shapes = shapely.from_wkb(blobs)
    if not len(shapes):
        raise SceneError(f"{path.name} must have points, it has none")
    middle = shapely.centroid(shapes)
    return SampleFile(
        points=dict(zip(map(str, meta["fields"]), columns, strict=True)),
        x=shapely.get_x(middle),
        y=shapely.get_y(middle),
        crs=None if meta["crs"] is None else CRS(meta["crs"]),
        design=design,
        about=about if isinstance(about, dict) else {},
    )
