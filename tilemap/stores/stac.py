"""A STAC item as a scene: which local files its assets are, and what their bands are called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pystac

from tilemap.errors import SceneError
from tilemap.stores.opening import SUFFIXES
from tilemap.stores.sensors import COMMON_NAMES, canonical, name_of_description, sensor_of

_LARGEST_ITEM = 16 * 2**20
_NOT_DATA = frozenset({"thumbnail", "overview", "visual", "metadata", "saturation", "cloud"})


@dataclass(frozen=True, slots=True)
class StacBand:
    """What an item says about one band; None where it says nothing.

    Args:
        name: common name.
        nodata: stored number that means "not observed".
        scale: physical = stored * scale + offset.
        offset: see ``scale``.
    """

    name: str | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None


@dataclass(frozen=True, slots=True)
class StacAsset:
    """A raster of an item: its path and its bands, empty if the item does not list them."""

    path: str
    bands: tuple[StacBand, ...]


@dataclass(frozen=True, slots=True)
class StacItem:
    """What a scene needs of an item.

    Args:
        assets: rasters on this disk, in the order of the item.
        date: when it was observed, if it says.
        elsewhere: keys of the rasters that are not local files.
    """

    assets: tuple[StacAsset, ...]
    date: datetime | None
    elsewhere: tuple[str, ...]


def read_item(path: str) -> StacItem:
    """The rasters of a STAC item file.

    Relative addresses start at the item. Assets whose role is thumbnail, overview, visual or
    metadata are left out, unless there is nothing else; nothing is fetched.

    Raises:
        SceneError: if it is no STAC item, or none of its rasters is a local file.
    """
    item = _parse(path)
    rasters = {key: asset for key, asset in item.assets.items() if _is_raster(asset)}
    data = {key: a for key, a in rasters.items() if not _NOT_DATA & set(a.roles or ())}
    assets, elsewhere = [], []
    for key, asset in (data or rasters).items():
        local = _local_path(asset.href, Path(path).parent)
        if local is None:
            elsewhere.append(key)
        else:
            assets.append(StacAsset(local, _bands(key, asset, item)))
    if not assets:
        where = f"; {', '.join(elsewhere)} are not on this disk" if elsewhere else ""
        raise SceneError(f"no asset of the STAC item {path} is a local raster{where}")
    date = item.datetime or item.common_metadata.start_datetime
    return StacItem(tuple(assets), date, tuple(elsewhere))


def _parse(path: str) -> pystac.Item:
    try:
        if Path(path).stat().st_size > _LARGEST_ITEM:
            raise SceneError(f"a STAC item must be at most 16 MiB, {path} is larger")
        content = json.loads(Path(path).read_bytes())
        if not isinstance(content, dict) or content.get("type") != "Feature":
            raise SceneError(f"not a STAC item (its type must be Feature): {path}")
        return pystac.Item.from_dict(content, href=path)
    except SceneError:
        raise
    except Exception as problem:  # pystac raises KeyError, TypeError and more for bad items
        reason = " ".join(f"{type(problem).__name__} {problem}".split())
        raise SceneError(f"not a STAC item: {path}: {reason[:200]}") from problem


def _is_raster(asset: pystac.Asset) -> bool:
    return urlparse(asset.href).path.lower().endswith(SUFFIXES)


def _local_path(href: str, folder: Path) -> str | None:
    parts = urlparse(href)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return unquote(parts.path)
    if parts.scheme or href.startswith("/vsi"):
        return None
    return str((folder / href).absolute())


def _bands(key: str, asset: pystac.Asset, item: pystac.Item) -> tuple[StacBand, ...]:
    """Bands by ``bands`` (STAC 1.1) or by ``eo:bands`` and ``raster:bands`` (1.0), merged."""
    fields = asset.extra_fields
    lists = [
        entries
        for entries in (fields.get(name) for name in ("bands", "eo:bands", "raster:bands"))
        if isinstance(entries, list) and all(isinstance(e, dict) for e in entries)
    ]
    count = max((len(entries) for entries in lists), default=0)
    if count == 0:
        named = canonical(key)
        if named in COMMON_NAMES:
            return (StacBand(named, *_numbers({}, fields)),)
        return ()
    bands = []
    for position in range(count):
        merged: dict[str, Any] = {}
        for entries in reversed(lists):
            if position < len(entries):
                merged.update(entries[position])
        alone = key if count == 1 else None
        bands.append(StacBand(_name(merged, alone, item), *_numbers(merged, fields)))
    return tuple(bands)


def _name(band: dict[str, Any], key: str | None, item: pystac.Item) -> str | None:
    """The sensor's own code first: common names do not tell the red edges apart."""
    platform = str(item.properties.get("platform") or item.properties.get("constellation") or "")
    sensor = sensor_of(platform)
    common = band.get("eo:common_name") or band.get("common_name")
    for text in (band.get("name"), band.get("description"), key):
        if isinstance(text, str):
            name = name_of_description(text, sensor)
            if name in COMMON_NAMES and name != "rededge":
                return name
    if isinstance(common, str) and common:
        return canonical(common)
    own = band.get("name") or key
    return name_of_description(own, sensor) if isinstance(own, str) else None


def _numbers(
    band: dict[str, Any], fields: dict[str, Any]
) -> tuple[float | None, float | None, float | None]:
    """Nodata, scale and offset of a band, or of its whole asset."""
    found: list[float | None] = []
    for key in ("nodata", "scale", "offset"):
        value = next(
            (v for v in (band.get(f"raster:{key}"), band.get(key), fields.get(f"raster:{key}"),
                         fields.get(key)) if v is not None),
            None,
        )  # fmt: skip
        try:
            found.append(None if value is None else float(value))
        except (TypeError, ValueError) as problem:
            raise SceneError(f"{key} must be a number in a STAC item, got {value!r}") from problem
    return found[0], found[1], found[2]
