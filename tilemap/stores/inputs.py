"""From what the user named to rasters whose bands have names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from tilemap.errors import SceneError
from tilemap.scene import SceneRequest
from tilemap.stores.opening import SUFFIXES, plain_path
from tilemap.stores.rasters import Raster, RasterBand, describe, find_raster
from tilemap.stores.remote.address import Address, AllowList, is_address
from tilemap.stores.sensors import (
    canonical,
    date_of_file,
    name_of_description,
    name_of_file,
    sensor_of,
)
from tilemap.stores.stac import StacBand, read_item


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files of a scene, every band named.

    Args:
        rasters: in order of precedence.
        name: of the scene, for reports.
        date: when it was observed, if known.
        elsewhere: assets of STAC items that are not on this disk and may not be fetched.
    """

    rasters: tuple[Raster, ...]
    name: str
    date: datetime | None
    elsewhere: tuple[str, ...]


def find_inputs(request: SceneRequest) -> Inputs:
    """Open every file the request leads to and name its bands.

    Raises:
        SceneError: if one of them cannot be read, or names do not fit.
    """
    found: list[tuple[Raster, Sequence[StacBand]]] = []
    dates: list[datetime | None] = []
    elsewhere: list[str] = []
    wanted = None if request.bands is None else {canonical(name) for name in request.bands}
    allow = AllowList.of(request.allow_hosts)
    for source in request.sources:
        if _is_item(source):
            item = read_item(source if is_address(source) else str(plain_path(source)), allow)
            dates.append(item.date)
            elsewhere += item.elsewhere
            for asset in item.assets:
                names = {band.name for band in asset.bands}
                if wanted is None or None in names or not names or names & wanted:
                    found.append((find_raster(asset.path, allow), asset.bands))
        elif not is_address(source) and plain_path(source).is_dir():
            found += [(describe(file), ()) for file in _rasters_in(plain_path(source))]
        else:
            found.append((find_raster(source, allow), ()))
    if not found:
        raise SceneError("no asset of the STAC item has a wanted band: " + ", ".join(wanted or ()))
    once: dict[str, tuple[Raster, Sequence[StacBand]]] = {}
    for raster, bands in found:
        once.setdefault(raster.path, (raster, bands))
    sensor = _only_sensor([raster for raster, _ in once.values()])
    rasters = [_named(raster, bands, sensor) for raster, bands in once.values()]
    dates += [date_of_file(raster.path) for raster in rasters]
    if request.band_names is not None:
        rasters = _renamed(rasters, request.band_names)
    rasters = [_overridden(raster, request) for raster in _numbered(rasters)]
    date = next((d for d in dates if d is not None), None)
    return Inputs(tuple(rasters), Path(rasters[0].path).stem, date, tuple(elsewhere))


def _is_item(source: str) -> bool:
    """Whether a source is a STAC item: a .json file; an address that does not end like a raster.

    Raises:
        SceneError: for an address that ends like neither.
    """
    if not is_address(source):
        path = plain_path(source)
        return path.suffix.lower() in (".json", ".geojson") and not path.is_dir()
    address = Address.parse(source)
    suffix = Path(address.name).suffix.lower()
    if suffix in SUFFIXES:
        return False
    if suffix in (".json", ".geojson") or address.scheme != "s3":
        return True
    raise SceneError(
        f"an address must lead to a {', '.join(SUFFIXES)} file or to a STAC item (.json), got "
        f"{address.shown}"
    )


def _rasters_in(folder: Path) -> list[str]:
    files = sorted(str(p) for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise SceneError(f"a folder must hold {', '.join(SUFFIXES)} files, {folder} has none")
    return files


def _only_sensor(rasters: Sequence[Raster]) -> str | None:
    """The sensor that some file tells, if no other file tells another: it holds for all."""
    told = {sensor_of(r.path, [band.description for band in r.bands]) for r in rasters} - {None}
    return told.pop() if len(told) == 1 else None


def _named(raster: Raster, stac: Sequence[StacBand], sensor: str | None) -> Raster:
    """Names by the STAC item, else descriptions, colours, or the file's own name.

    Args:
        raster: as described.
        stac: what an item says about its bands, if it does.
        sensor: what the other files say it is, where this one does not.
    """
    bands = raster.bands
    if len(stac) == len(bands):
        bands = tuple(_described(band, said) for band, said in zip(bands, stac, strict=True))
    if all(band.name is None for band in bands):
        descriptions = [band.description for band in bands]
        sensor = sensor_of(raster.path, descriptions) or sensor
        names = [name_of_description(text, sensor) for text in descriptions]
        if not any(names):
            colors = [band.color for band in bands]
            if {"red", "green", "blue"} <= set(colors):
                names = [c if c in ("red", "green", "blue") else None for c in colors]
            elif len(bands) == 1:
                names = [name_of_file(raster.path, sensor)]
        bands = tuple(replace(b, name=n) for b, n in zip(bands, names, strict=True))
    often = Counter(band.name for band in bands)
    bands = tuple(replace(b, name=b.name if often[b.name] == 1 else None) for b in bands)
    return replace(raster, bands=bands)


def _described(band: RasterBand, said: StacBand) -> RasterBand:
    scaled = said.scale is not None or said.offset is not None
    return replace(
        band,
        name=said.name,
        nodata=band.nodata if said.nodata is None else said.nodata,
        scale=band.scale if said.scale is None else said.scale,
        offset=band.offset if said.offset is None else said.offset,
        scaled=band.scaled or scaled,
    )


def _renamed(rasters: Sequence[Raster], names: Sequence[str]) -> list[Raster]:
    """The user's names, for all bands of all files, or for each file the same."""
    counts = [len(raster.bands) for raster in rasters]
    if len(names) == sum(counts):
        parts, start = [], 0
        for count in counts:
            parts.append(names[start : start + count])
            start += count
    elif set(counts) == {len(names)}:
        parts = [names] * len(rasters)
    else:
        raise SceneError(
            f"--bands must name all {sum(counts)} bands of the files, file by file, got "
            f"{len(names)}: {', '.join(names)}"
        )
    return [
        replace(
            raster,
            bands=tuple(
                replace(band, name=canonical(name))
                for band, name in zip(raster.bands, part, strict=True)
            ),
        )
        for raster, part in zip(rasters, parts, strict=True)
    ]


def _numbered(rasters: Sequence[Raster]) -> list[Raster]:
    """``band_1``, ``band_2``, ... for bands whose name cannot be known, in file order.

    Counted on from file to file where the files cover the same ground (planes of one scene), but
    anew in each file where they do not (neighbours with the same planes).
    """
    nameless = [r for r in rasters if any(band.name is None for band in r.bands)]
    stacked = len({(r.shape, tuple(r.geobox.affine)[:6], r.geobox.crs) for r in nameless}) == 1
    result, before = [], 0
    for raster in rasters:
        bands = tuple(
            band if band.name is not None else replace(band, name=f"band_{before + number}")
            for number, band in enumerate(raster.bands, 1)
        )
        if stacked and raster in nameless:
            before += len(raster.bands)
        result.append(replace(raster, bands=bands))
    return result


def _overridden(raster: Raster, request: SceneRequest) -> Raster:
    bands = []
    for band in raster.bands:
        if band.nodata is None and request.nodata is not None:
            band = replace(band, nodata=request.nodata)
        if request.scale is not None or request.offset is not None:
            band = replace(
                band,
                scale=band.scale if request.scale is None else request.scale,
                offset=band.offset if request.offset is None else request.offset,
                scaled=True,
            )
        bands.append(band)
    return replace(raster, bands=tuple(bands))
