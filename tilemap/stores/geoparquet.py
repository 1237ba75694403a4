"""Items as stac-geoparquet: a table with one row an item, for DuckDB, GeoPandas and the like.

The package stac-geoparquet turns items into Arrow. It knows neither items without a place nor
structures without fields; both are seen to here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tilemap.errors import StoreError, UnavailableError
from tilemap.files import system_error

Json = dict[str, Any]
_NO_GEOMETRY: Json = {"type": "Polygon", "coordinates": []}
_NO_BBOX = [float("nan")] * 4
"""Stand for nothing on the way to Arrow, where they become null."""


def write_geoparquet(
    path: Path, items: Sequence[Mapping[str, Any]], collections: Iterable[Mapping[str, Any]] = ()
) -> bool:
    """Write items as one GeoParquet file, whole or not at all.

    The same items in the same order give the same bytes with the same versions of the packages;
    a file whose bytes would be the same is not touched. In a table a field that is null, or an
    object without fields, is the same as one that is not there.

    Args:
        path: of the file.
        items: one at least. Fields of one name have the same type in all of them.
        collections: of the items; kept in the metadata of the file.

    Returns:
        Whether it was written.

    Raises:
        StoreError: if there is no item, fields do not fit together, or it cannot be written.
        UnavailableError: if stac-geoparquet is not installed.
    """
    arrow, pa = _packages()
    if not items:
        raise StoreError("a GeoParquet file must have an item, got none")
    waiting = path.with_name(path.name + ".partial")
    about = {str(one["id"]): dict(one) for one in collections}
    try:
        table = pa.table(arrow.parse_stac_items_to_arrow([_filled(item) for item in items]))
        for name, keep in (("geometry", _has_geometry), ("bbox", _has_bbox)):
            table = _mapped(table, name, [keep(item) for item in items], None)
        arrow.to_parquet(table, waiting, collections=about or None)
        return _publish(waiting, path)
    except OSError as error:
        raise system_error(f"cannot write {path}", error, path.parent) from error
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise StoreError(f"cannot make one table of these items: {_line(error)}") from error
    finally:
        waiting.unlink(missing_ok=True)


def read_geoparquet(path: Path) -> list[Json]:
    """The items of such a file, in its order, without fields that are null.

    ``geometry`` is null where an item lies nowhere, ``datetime`` where it has an interval, as
    STAC wants it.

    Raises:
        StoreError: if it cannot be read.
        UnavailableError: if stac-geoparquet is not installed.
    """
    arrow, pa = _packages()
    import pyarrow.parquet as pq
    import shapely

    try:
        table = pq.ParquetFile(path).read()
        there = table["geometry"].is_valid().to_pylist()
        empty = shapely.to_wkb(shapely.Polygon())
        table = _mapped(table, "geometry", there, empty)
        corners = dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), float("nan"))
        table = _mapped(table, "bbox", table["bbox"].is_valid().to_pylist(), corners)
        found = list(arrow.stac_table_to_items(table))
    except FileNotFoundError as error:
        raise StoreError(f"{path} is not there") from error
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(f"{path} must be stac-geoparquet: {_line(error)}") from error
    return [_plain(item, placed) for item, placed in zip(found, there, strict=True)]


def _packages() -> tuple[Any, Any]:
    try:
        import pyarrow
        import stac_geoparquet.arrow
    except ImportError as error:
        raise UnavailableError(
            'GeoParquet needs stac-geoparquet: pip install "tilemap[geoparquet]"'
        ) from error
    return stac_geoparquet.arrow, pyarrow


def _publish(waiting: Path, path: Path) -> bool:
    if path.exists() and path.read_bytes() == waiting.read_bytes():
        return False
    with waiting.open("rb") as file:
        os.fsync(file.fileno())
    waiting.replace(path)
    return True


def _has_geometry(item: Mapping[str, Any]) -> bool:
    return item.get("geometry") is not None


def _has_bbox(item: Mapping[str, Any]) -> bool:
    return item.get("bbox") is not None


def _filled(item: Mapping[str, Any]) -> Json:
    """Without what a table cannot hold, and with a place."""
    pruned = _pruned(item)
    return {
        **pruned,
        "geometry": item.get("geometry") or _NO_GEOMETRY,
        "bbox": item.get("bbox") or _NO_BBOX,
        "links": pruned.get("links", []),
        "assets": pruned.get("assets", {}),
    }


def _pruned(value: Any) -> Any:
    """Without nulls and objects that have no field, at any depth."""
    if isinstance(value, Mapping):
        inside = {key: _pruned(one) for key, one in value.items()}
        return {key: one for key, one in inside.items() if one is not None and one != {}}
    if isinstance(value, list | tuple):
        return [_pruned(one) for one in value]
    return value


def _mapped(table: Any, name: str, keep: Sequence[bool], other: Any) -> Any:
    """A column with something else where it is not kept; its type and metadata stay."""
    import pyarrow as pa

    if all(keep):
        return table
    index = table.schema.get_field_index(name)
    field = table.schema.field(index)
    rows = zip(table[name].to_pylist(), keep, strict=True)
    column = pa.array([value if kept else other for value, kept in rows], type=field.type)
    return table.set_column(index, field, column)


def _plain(item: Json, placed: bool) -> Json:
    """As JSON has it."""
    found: Json = _pruned(item)
    properties = {key: _stamp(value) for key, value in found["properties"].items()}
    found["properties"] = {"datetime": None, **properties}
    if placed:
        return found
    found.pop("bbox", None)
    return {**found, "geometry": None}


def _stamp(value: Any) -> Any:
    """Arrow writes moments to the microsecond."""
    return re.sub(r"(T\d\d:\d\d:\d\d)\.0+Z$", r"\1Z", value) if isinstance(value, str) else value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
