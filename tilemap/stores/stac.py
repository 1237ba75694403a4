"""A STAC item as a scene: which files its assets are, and what their bands are called."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pystac

from tilemap.errors import SceneError
from tilemap.files import decode_json, is_file, read_file
from tilemap.scene import Product
from tilemap.stores.opening import SUFFIXES
from tilemap.stores.products import sentinel2
from tilemap.stores.remote.address import NOBODY, Address, AllowList, is_address
from tilemap.stores.remote.blocks import fetch_whole
from tilemap.stores.sensors import (
    COMMON_NAMES,
    canonical,
    is_quality,
    name_of_description,
    sensor_in,
)

ALLOW = "`allow_hosts` lets a host be asked"
_LARGEST_ITEM = 16 * 2**20
_MEDIA_TYPES = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2")
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
    """A raster of an item: its path or address, and its bands, empty if they are not listed."""

    path: str = field(repr=False)
    bands: tuple[StacBand, ...]


@dataclass(frozen=True, slots=True)
class StacItem:
    """What a scene needs of an item.

    Args:
        assets: rasters that may be read, in the order of the item.
        date: when it was observed, if it says.
        elsewhere: keys of the others, and the hosts they are on, where no host is allowed that has
            them.
        product: what its metadata say it is of, if its numbers are known.
        sensor: what its platform and instruments are, a key of ``SENSORS``, if it is known.
    """

    assets: tuple[StacAsset, ...]
    date: datetime | None
    elsewhere: tuple[str, ...]
    product: Product | None = None
    sensor: str | None = None


def read_item(source: str, allow: AllowList = NOBODY) -> StacItem:
    """The rasters of a STAC item.

    Relative addresses start at the item. Assets whose role is thumbnail, overview, visual or
    metadata are left out, unless there is nothing else; no asset is fetched.

    Args:
        source: path or address of its file.
        allow: hosts that may be asked, for the item and for its assets.

    Raises:
        SceneError: if it is no STAC item, or none of its rasters may be read.
    """
    base = Address.parse(source) if is_address(source) else Path(source).parent
    shown = source if isinstance(base, Path) else base.shown
    item = _parse(_content(source) if isinstance(base, Path) else _fetched(base, allow), shown)
    rasters = {key: asset for key, asset in item.assets.items() if _is_raster(asset)}
    data = {key: asset for key, asset in rasters.items() if _is_data(key, asset)}
    assets, elsewhere = [], []
    for key, asset in (data or rasters).items():
        place = _place(asset.href, base)
        if isinstance(place, str):
            assets.append(StacAsset(place, _bands(key, asset, item)))
        elif place is not None and allow.allows(place):
            assets.append(StacAsset(place.url, _bands(key, asset, item)))
        else:
            elsewhere.append(key if place is None else f"{key} on {place.site}")
    if not assets:
        where = f"; {', '.join(elsewhere)} are not on this disk, {ALLOW}" if elsewhere else ""
        raise SceneError(f"no asset of the STAC item {shown} is a local raster{where}")
    date = item.datetime or item.common_metadata.start_datetime
    return StacItem(
        tuple(assets), date, tuple(elsewhere), _product(item), sensor_in(_platform(item))
    )


def _content(path: str) -> bytes:
    try:
        if Path(path).stat().st_size > _LARGEST_ITEM:
            raise SceneError(f"a STAC item must be at most 16 MiB, {path} is larger")
        return read_file(path)
    except OSError as problem:
        raise SceneError(f"cannot read {path}: {problem.strerror}") from problem


def _fetched(address: Address, allow: AllowList) -> bytes:
    return fetch_whole(address, allow, _LARGEST_ITEM)


def _parse(text: bytes, shown: str) -> pystac.Item:
    try:
        content = decode_json(text)
        if not isinstance(content, dict) or content.get("type") != "Feature":
            raise SceneError(f"not a STAC item (its type must be Feature): {shown}")
        item = pystac.Item.from_dict(content, href=shown)
        for key, asset in item.assets.items():
            _check_asset(key, asset)
        return item
    except SceneError:
        raise
    except Exception as problem:  # pystac raises KeyError, TypeError and more for bad items
        reason = " ".join(f"{type(problem).__name__} {problem}".split())
        raise SceneError(f"not a STAC item: {shown}: {reason[:200]}") from problem


def _check_asset(key: str, asset: pystac.Asset) -> None:
    """Check what pystac takes as it comes.

    Raises:
        ValueError: if the address is none, or the roles are no list of names.
    """
    urlparse(asset.href)  # raises what is needed
    roles = [] if asset.roles is None else asset.roles
    if not (isinstance(roles, list) and all(isinstance(role, str) for role in roles)):
        raise ValueError(f"roles of the asset {key} must be a list of names, got {roles!r}")


def _is_raster(asset: pystac.Asset) -> bool:
    kind = (asset.media_type or "").partition(";")[0].strip().lower()
    paths = (urlparse(asset.href).path, asset.href)  # a path of this disk may have a # in it
    return kind in _MEDIA_TYPES or any(path.lower().endswith(SUFFIXES) for path in paths)


def _is_data(key: str, asset: pystac.Asset) -> bool:
    """Return False for masks, quality layers and pictures, by their role or by their name."""
    if _NOT_DATA & set(asset.roles or ()):
        return False
    return not (is_quality(key) or is_quality(urlparse(asset.href).path))


def _place(href: str, base: Path | Address) -> str | Address | None:
    """Path or address of an asset; None where it can be neither.

    An item that came through the network names no file of this disk.
    """
    if isinstance(base, Address) or (is_address(href) and urlparse(href).scheme != "file"):
        try:
            return base.join(href) if isinstance(base, Address) else Address.parse(href)
        except SceneError:
            return None
    parts = urlparse(href)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return unquote(parts.path)
    if parts.scheme or href.startswith("/vsi"):
        return None
    return str(_file(href, base).absolute())


def _file(href: str, base: Path) -> Path:
    """The file of a relative reference: the one of that very name if it is there, else decoded."""
    names = (href, unquote(href), unquote(urlparse(href).path))
    found = (base / name for name in names)
    return next((file for file in found if is_file(file)), base / names[1])


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
        named = name_of_description(key, sensor_in(_platform(item)))
        if named in COMMON_NAMES:
            return (StacBand(named, *_numbers({}, fields, item)),)
        return ()
    bands = []
    for position in range(count):
        merged: dict[str, Any] = {}
        for entries in reversed(lists):
            if position < len(entries):
                merged.update(entries[position])
        alone = key if count == 1 else None
        bands.append(StacBand(_name(merged, alone, item), *_numbers(merged, fields, item)))
    return tuple(bands)


_FINER = {"rededge": {"rededge1", "rededge2", "rededge3"}, "nir": {"nir08", "nir09"}}


def _name(band: dict[str, Any], key: str | None, item: pystac.Item) -> str | None:
    """The common name that the item gives; names and codes only make it finer, or stand in.

    Common names of STAC 1.0 do not tell the red edges apart, the sensor's own codes do.
    """
    sensor = sensor_in(_platform(item))
    texts = [t for t in (band.get("name"), band.get("description"), key) if isinstance(t, str)]
    names = [name for text in texts if (name := name_of_description(text, sensor))]
    common = band.get("eo:common_name") or band.get("common_name")
    if isinstance(common, str) and common:
        common = canonical(common)
        return next((name for name in names if name in _FINER.get(common, ())), common)
    return next((name for name in names if name in COMMON_NAMES), next(iter(names), None))


def _platform(item: pystac.Item) -> str:
    """The platform, or its constellation, and the instruments, as one text."""
    said = item.properties
    instruments = said.get("instruments")
    words = [said.get("platform") or said.get("constellation")]
    words += instruments if isinstance(instruments, list) else []
    return " ".join(str(word) for word in words if word)


def _product(item: pystac.Item) -> Product | None:
    """The Sentinel-2 product of an item that says its processing baseline."""
    baseline = re.match(r"\d{2}\.\d{2}$", str(item.properties.get("s2:processing_baseline")))
    if baseline is None:
        return None
    return sentinel2(0.0 if _offset_applied(item) else float(baseline[0]), None)


def _offset_applied(item: pystac.Item) -> bool:
    """Return True if the stored numbers have the offset of the product in them already."""
    return item.properties.get("earthsearch:boa_offset_applied") is True


def _numbers(
    band: dict[str, Any], fields: dict[str, Any], item: pystac.Item
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
        except (TypeError, ValueError, OverflowError) as problem:
            raise SceneError(f"{key} must be a number in a STAC item, got {value!r}") from problem
    nodata, scale, offset = found
    if _offset_applied(item) and (scale is not None or offset is not None):
        offset = 0.0  # listed as the product has it, and not to be applied twice
    return nodata, scale, offset
