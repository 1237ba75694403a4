"""From what the user named to rasters whose bands have names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from tilemap.errors import SceneError
from tilemap.scene import SceneRequest
from tilemap.stores.opening import SUFFIXES, plain_path
from tilemap.stores.products import radiometry_of
from tilemap.stores.rasters import Raster, RasterBand, describe, find_raster
from tilemap.stores.remote.address import Address, AllowList, is_address
from tilemap.stores.sensors import (
    canonical,
    code_of_file,
    date_of_file,
    is_code,
    is_list_of_tm,
    is_quality,
    name_of_code,
    name_of_file,
    name_of_words,
    sensor_in,
    sensor_of_codes,
)
from tilemap.stores.stac import StacBand, read_item


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files of a scene, every band named.

    Args:
        rasters: in order of precedence.
        name: of the scene, for reports.
        days: when each raster was observed, by its item or its name; None if neither says it.
        date: when the scene was observed, if known.
        elsewhere: assets of STAC items that are not on this disk and may not be fetched.
        notes: what the user should know of them, one line each.
    """

    rasters: tuple[Raster, ...]
    name: str
    days: tuple[date | None, ...]
    date: datetime | None
    elsewhere: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_inputs(request: SceneRequest) -> Inputs:
    """Open every file the request leads to and name its bands.

    Raises:
        SceneError: if one of them cannot be read, or names do not fit.
    """
    found: list[tuple[Raster, Sequence[StacBand]]] = []
    dates: list[datetime | None] = []
    of_items: dict[str, datetime | None] = {}
    elsewhere: list[str] = []
    notes: list[str] = []
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
                    raster = find_raster(asset.path, allow)
                    product, sensor = item.product or raster.product, item.sensor or raster.sensor
                    found.append((replace(raster, product=product, sensor=sensor), asset.bands))
                    of_items.setdefault(raster.path, item.date)
        elif not is_address(source) and plain_path(source).is_dir():
            readable, left = _readable(plain_path(source), wanted)
            found += [(raster, ()) for raster in readable]
            notes += left
        else:
            found.append((find_raster(source, allow), ()))
    if not found:
        raise SceneError("no asset of the STAC item has a wanted band: " + ", ".join(wanted or ()))
    once: dict[str, tuple[Raster, Sequence[StacBand]]] = {}
    for raster, bands in found:
        once.setdefault(raster.path, (raster, bands))
    rasters = _all_named(list(once.values()))
    of_files = [date_of_file(raster.path) for raster in rasters]
    stated = [of_items.get(r.path) or d for r, d in zip(rasters, of_files, strict=True)]
    days = tuple(moment and moment.astimezone(UTC).date() for moment in stated)
    dates += of_files
    if request.band_names is not None:
        rasters = _renamed(rasters, request.band_names)
    else:
        notes += [note for raster in rasters for note in _doubts(raster)]
    rasters = [_overridden(raster, request) for raster in _numbered(rasters)]
    first = next((d for d in dates if d is not None), None)
    name = Path(rasters[0].path).stem
    return Inputs(tuple(rasters), name, days, first, tuple(elsewhere), tuple(notes))


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
    """The rasters of a folder by name; without masks, quality layers and pictures if it has bands.

    Raises:
        SceneError: if there is none.
    """
    found = [*folder.iterdir()]
    if not any(p.suffix.lower() in SUFFIXES for p in found):
        found = [*folder.glob("GRANULE/*/IMG_DATA/**/*")]  # a .SAFE folder
    files = sorted(
        (str(p) for p in found if _is_raster(p)),
        key=lambda path: re.sub(r"(?<=[_.])B8A(?=[_.])", "B08A", path),  # between B08 and B09
    )
    if not files:
        raise SceneError(f"a folder must hold {', '.join(SUFFIXES)} files, {folder} has none")
    return [file for file in files if not is_quality(file)] or files


def _is_raster(path: Path) -> bool:
    """Return True for a raster by its name; what is hidden, such as ._x.tif of macOS, is none."""
    hidden = path.name.startswith(".")
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def _readable(folder: Path, wanted: set[str] | None) -> tuple[list[Raster], list[str]]:
    """The rasters of a folder, and a note on each that is left out since it cannot be read.

    Only a folder where each file is a band, by its name, can do without a file of no wanted band.
    Elsewhere the file may be a neighbour, whose ground would be missing.

    Raises:
        SceneError: if a file cannot be read and cannot be left out.
    """
    rasters: list[Raster] = []
    bad: list[tuple[str, SceneError]] = []
    for file in _rasters_in(folder):
        try:
            rasters.append(describe(file))
        except SceneError as problem:
            bad.append((file, problem))
    for file, reason in bad:
        of_bands = rasters and all(name_of_file(r.path) or code_of_file(r.path) for r in rasters)
        band = name_of_file(file)
        unwanted = wanted is not None and band is not None and band not in wanted
        if not of_bands or not (unwanted or (band is None and code_of_file(file) is None)):
            raise reason
    return rasters, [f"a file of no wanted band is left out: {problem}" for _, problem in bad]


def _all_named(found: Sequence[tuple[Raster, Sequence[StacBand]]]) -> list[Raster]:
    """Every raster with the names of its bands, as far as anything says them.

    Codes need a sensor. A file without one has that of the others, if they all have the same.
    """
    own = [
        raster.sensor or sensor_in(Path(raster.path).stem) or sensor_of_codes(_codes(raster))
        for raster, _ in found
    ]
    known = {*own} - {None} or {sensor_of_codes(c for raster, _ in found for c in _codes(raster))}
    shared = known.pop() if len(known) == 1 else None
    return [
        _named(raster, bands, sensor or shared, len(found) == 1)
        for (raster, bands), sensor in zip(found, own, strict=True)
    ]


def _codes(raster: Raster) -> list[str | None]:
    """What may be codes of a sensor: the descriptions of the bands, the end of the file's name."""
    return [*(band.description for band in raster.bands), code_of_file(raster.path)]


def _named(raster: Raster, stac: Sequence[StacBand], sensor: str | None, alone: bool) -> Raster:
    """Name the bands by the first that says something; a band that nothing names has no name.

    1. The user (``_renamed``, afterwards).
    2. The STAC item.
    3. Words: the band's own metadata, its description.
    4. The code in its description, if the sensor is known.
    5. Its colour.
    6. The name of a file of a single band: a word, or a code if the sensor is known.

    Args:
        raster: as described.
        stac: what an item says about its bands, if it does.
        sensor: what its codes are of, if that is known.
        alone: whether the scene has no other file.
    """
    if len(stac) == raster.count:
        raster = raster.opaque()
    bands = tuple(_of_product(raster))
    if len(stac) == len(bands):
        bands = tuple(_described(band, said) for band, said in zip(bands, stac, strict=True))
    if all(band.name is None for band in bands):
        bands = tuple(
            replace(b, name=n) for b, n in zip(bands, _names(raster, sensor, alone), strict=True)
        )
    often = Counter(band.name for band in bands)
    bands = tuple(replace(b, name=b.name if often[b.name] == 1 else None) for b in bands)
    return replace(raster, bands=bands)


def _names(raster: Raster, sensor: str | None, alone: bool) -> list[str | None]:
    """The names that a file itself gives its bands, by steps 3 to 6 of ``_named``."""
    if is_quality(raster.path) and not alone:
        return [None] * len(raster.bands)  # a picture of the bands beside it is none of them
    words = [band.said or name_of_words(band.description) for band in raster.bands]
    codes = [name_of_code(band.description or "", sensor) for band in raster.bands]
    colors = _colors(raster)
    texts = [(band.description or "").strip() for band in raster.bands]
    if all(re.fullmatch(rf"b{n}|[Bb]and[ _]?{n}", text) for n, text in enumerate(texts, 1)):
        codes = [None] * len(texts)  # they only count the bands
    elif any(is_code(text) for text in texts):
        pairs = zip(codes, colors, strict=True)
        if texts != [f"B{n}" for n, _ in enumerate(texts, 1)]:
            colors = [None] * len(texts)  # B5, B4, B3: no picture, whatever the file's default
        elif any(code and color and code != color for code, color in pairs):
            return words  # B1, B2, B3 are codes of the sensor or count a picture: nobody knows
    names = [word or code for word, code in zip(words, codes, strict=True)]
    if not any(names):
        names = colors
    if not any(names) and len(names) == 1:
        names = [name_of_file(raster.path, sensor)]
    return names


def _colors(raster: Raster) -> list[str | None]:
    """The names that the colours of the bands give: those of a picture, and beyond the visible."""
    colors = [band.color for band in raster.bands]
    picture = {"red", "green", "blue"} if {"red", "green", "blue"} <= set(colors) else set()
    return [c if c in picture | {"nir", "coastal", "pan", "rededge"} else None for c in colors]


def _doubts(raster: Raster) -> list[str]:
    """What was taken for granted of a file, and could be otherwise."""
    notes = []
    for band in raster.bands:
        if band.color == "alpha" and band.name is None:
            notes.append(
                f"band {band.index} of {raster.path} is tagged as alpha, but holds data: it is "
                "read as a band without a name"
            )
    named = raster.sensor or sensor_in(Path(raster.path).stem)
    if named is None and is_list_of_tm(_codes(raster)):
        notes.append(
            f"the bands of {raster.path} are read as those of Landsat 4 to 7, of whose surface "
            "reflectance they are the whole list; name them if they are of another sensor"
        )
    return notes


def _of_product(raster: Raster) -> Iterator[RasterBand]:
    """The bands with what the metadata of their product say, if there are any beside them.

    Raises:
        SceneError: if the metadata cannot be read.
    """
    said = radiometry_of(raster.path) if raster.remote is None else None
    for band in raster.bands:
        if said is not None and not band.scaled:
            offset = said.offset(raster.path)
            band = replace(
                band,
                scale=said.scale,
                offset=offset or 0.0,
                scaled=True,
                shifted=offset is not None,
                nodata=said.nodata if band.nodata is None else band.nodata,
            )
        yield band


def lacking(rasters: Sequence[Raster]) -> list[str]:
    """Say what products are known to have, but nobody says of these files."""
    found: dict[str, list[str]] = {}
    for raster in rasters:
        product, first = raster.product, raster.bands[0]
        if product is None or first.dtype.startswith("float"):
            continue
        if product.offset and first.scale != 1 and not first.shifted:
            text = f"offset {product.offset:g}, but none is given; give it, or 0 if it was applied"
            found.setdefault(f"{product.name} has the {text}", []).append(raster.path)
        if first.nodata is None and raster.mask == "none":
            text = f"{product.nodata:g} where nothing was observed, but no nodata is declared"
            found.setdefault(f"{product.name} stores {text}", []).append(raster.path)
    return [
        f"{text}: {paths[0]}{f' and {len(paths) - 1} more' if paths[1:] else ''}"
        for text, paths in found.items()
    ]


def _described(band: RasterBand, said: StacBand) -> RasterBand:
    scaled = said.scale is not None or said.offset is not None
    return replace(
        band,
        name=said.name,
        nodata=band.nodata if said.nodata is None else said.nodata,
        scale=band.scale if said.scale is None else said.scale,
        offset=band.offset if said.offset is None else said.offset,
        scaled=band.scaled or scaled,
        shifted=band.shifted or said.offset is not None,
    )


def _renamed(rasters: Sequence[Raster], names: Sequence[str]) -> list[Raster]:
    """The user's names, for all bands of all files, or for each file the same.

    A band tagged as alpha is data where the user names it.
    """
    planes = [raster.count for raster in rasters]
    if len(names) == sum(planes) or set(planes) == {len(names)}:
        rasters = [raster.opaque() for raster in rasters]
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
            f"`bands` must name all {sum(counts)} bands of the files, file by file, got "
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

    Counted on from file to file where the files cover the same ground (planes of one scene), or
    describe their bands differently, but anew in each file where they do neither (neighbours with
    the same planes).
    """
    nameless = [r for r in rasters if any(band.name is None for band in r.bands)]
    stacked = len({(r.shape, tuple(r.geobox.affine)[:6], r.geobox.crs) for r in nameless}) == 1
    stacked |= len({tuple(band.description for band in r.bands) for r in nameless}) > 1
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
    """The raster with what the user says of its numbers.

    A scale without the offset that the product is known to have is not enough to be declared.
    """
    bands, notes = [], raster.notes
    own = next((b.nodata for b in raster.bands if b.nodata not in (None, request.nodata)), None)
    if own is not None and request.nodata is not None:
        notes += (
            f"{raster.path} declares {own:.9g} as nodata itself; {request.nodata:.9g} counts where "
            "a file declares none",
        )
    for band in raster.bands:
        if band.nodata is None and request.nodata is not None:
            band = replace(band, nodata=request.nodata)
        if request.scale is not None or request.offset is not None:
            band = replace(
                band,
                scale=band.scale if request.scale is None else request.scale,
                offset=band.offset if request.offset is None else request.offset,
                scaled=True,
                shifted=band.shifted or request.offset is not None,
            )
        if raster.product is not None and raster.product.offset and not band.shifted:
            band = replace(band, scaled=False)
        bands.append(band)
    return replace(raster, bands=tuple(bands), notes=notes)
