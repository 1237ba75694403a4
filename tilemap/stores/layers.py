"""Which file gives which band, on which grid: the plan of a scene."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from odc.geo.geobox import GeoBox

from tilemap.errors import SceneError, SceneMismatchError
from tilemap.geometry import Window
from tilemap.scene import Band, Scene, SceneRequest
from tilemap.stores.grids import (
    apply,
    at_resolution,
    compose,
    footprint,
    pixel_offset,
    pixel_size,
    same_crs,
    whole,
)
from tilemap.stores.inputs import Inputs, lacking
from tilemap.stores.mosaic import Handles, Mosaic, join
from tilemap.stores.rasters import AnyArray, BoolArray, Raster, RasterBand, find_raster
from tilemap.stores.remote.address import AllowList
from tilemap.stores.sensors import canonical
from tilemap.stores.stac import ALLOW
from tilemap.stores.warp import Warp, make_warp

_STANDS_IN = {"nir": "nir08", "nir08": "nir"}  # wanted: taken where the wanted one is missing
_Found = tuple[int, int]  # number of the raster, position of the band in it


@dataclass(frozen=True, slots=True)
class Layer:
    """Bands that come from the same files in the same way.

    Args:
        bands: their positions in the scene.
        parts: in order of precedence; the first valid pixel wins. One mosaic as a rule; one for
            each file where the files have different grids.
    """

    bands: tuple[int, ...]
    parts: tuple[Mosaic | Warp, ...]

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """The files."""
        mosaics = (p.source if isinstance(p, Warp) else p for p in self.parts)
        return tuple(piece.raster for mosaic in mosaics for piece in mosaic.pieces)

    def read(self, handles: Handles, window: Window) -> tuple[AnyArray, BoolArray]:
        """Pixels of a window inside the scene: image (band, y, x), valid bool (y, x)."""
        image, valid = self.parts[0].read(handles, window)
        for part in self.parts[1:]:
            if valid.all():
                break
            pixels, seen = part.read(handles, window)
            image = image.astype(np.result_type(image, pixels), copy=False)
            np.copyto(image, pixels, where=seen & ~valid)
            valid |= seen
        return image, valid


@dataclass(frozen=True, slots=True)
class Arranged:
    """A scene and how it is read."""

    scene: Scene
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]


def arrange(inputs: Inputs, request: SceneRequest, grid: GeoBox | None = None) -> Arranged:
    """Choose a file for each band, settle the grid, bring every file onto it.

    Args:
        inputs: the files.
        request: what is wanted of them.
        grid: where they are brought to, whatever the request says of that.

    Raises:
        SceneError: if a wanted band is missing.
        SceneMismatchError: if files do not fit together.
    """
    rasters = inputs.rasters
    notes = list(inputs.notes)
    chosen = _choose(inputs, request, notes)
    _check_days(inputs, {n for found in chosen.values() for n, _ in found}, request, notes)
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, found in chosen.items():
        groups.setdefault(tuple(number for number, _ in found), []).append(name)
    order = {name: position for position, name in enumerate(chosen)}
    joined: list[tuple[tuple[int, ...], list[Mosaic]]] = []
    for numbers, names in groups.items():
        wanted = [
            (rasters[number], tuple(dict(chosen[name])[number] for name in names))
            for number in numbers
        ]
        joined.append((tuple(order[n] for n in names), _join(wanted, request, notes)))
    geobox = grid or _grid([mosaic for _, parts in joined for mosaic in parts], request)
    layers = tuple(Layer(positions, _bring(parts, geobox)) for positions, parts in joined)
    _check_overlap(layers, geobox)
    notes += [note for layer in layers for raster in layer.rasters for note in raster.notes]
    bands = tuple(
        _band(name, [rasters[n].bands[p] for n, p in found]) for name, found in chosen.items()
    )
    if geobox.crs is None:
        notes.append("no CRS: pixels are kept as they are, the output has none")
    used = [rasters[n] for n in dict.fromkeys(n for found in chosen.values() for n, _ in found)]
    notes += lacking(used)
    products = [raster.product for raster in used if raster.product is not None]
    product = max(products, key=lambda known: abs(known.offset or 0), default=None)
    scene = Scene(geobox, bands, inputs.name, inputs.date, product)
    if scene.dtype.itemsize > 4 and scene.dtype.kind != "f":
        raise SceneError(
            f"bands of {', '.join(sorted({b.dtype for b in bands}))} do not go together without "
            "loss; convert them to one type first"
        )
    return Arranged(scene, layers, tuple(dict.fromkeys(notes)))


def _check_days(
    inputs: Inputs, used: Collection[int], request: SceneRequest, notes: list[str]
) -> None:
    """Files that state their day are of one, or of two that meet at midnight.

    Args:
        inputs: the files.
        used: numbers of those that are read.
        request: says whether several days are meant.
        notes: takes a line if there are several days.

    Raises:
        SceneMismatchError: naming the first and the last day, and a file of each.
    """
    dated = [(day, n) for n in sorted(used) if (day := inputs.days[n]) is not None]
    if len({day for day, _ in dated}) < 2:
        return
    (first, one), (last, two) = min(dated), max(dated)
    told = f"{inputs.rasters[one].path} is of {first}, {inputs.rasters[two].path} of {last}"
    if not request.mosaic and last - first > timedelta(days=1):
        raise SceneMismatchError(
            f"files of one scene must be of one day: {told}; take each day by itself, or give "
            "`mosaic` if they are one scene on purpose"
        )
    notes.append(f"files of several days are one scene: {told}")


def _choose(
    inputs: Inputs, request: SceneRequest, notes: list[str]
) -> dict[str, tuple[_Found, ...]]:
    """For each wanted band, in order, the files that have it, coarser copies left out."""
    rasters = inputs.rasters
    found: dict[str, list[_Found]] = {}
    for number, raster in enumerate(rasters):
        for position, band in enumerate(raster.bands):
            found.setdefault(str(band.name), []).append((number, position))
    wanted = tuple(found) if request.bands is None else request.bands
    chosen: dict[str, tuple[_Found, ...]] = {}
    missing = []
    for name in wanted:
        own = canonical(name)
        other = _STANDS_IN.get(own, "")
        if own not in found and other in found and other not in map(canonical, wanted):
            notes.append(f"no band {own}: {other} stands in for it")
            own = other
        if own not in found:
            missing.append(name)
            continue
        chosen[name] = _finest(own, found[own], rasters)
    if missing:
        where = ""
        if inputs.elsewhere:
            where = f" (not on this disk: {', '.join(inputs.elsewhere)}; {ALLOW})"
        raise SceneError(
            f"the scene lacks {', '.join(missing)}: wanted {', '.join(wanted)}, found "
            f"{_some(found)}{where}; name the bands of the files in their order with `bands`"
        )
    return chosen


def _some(names: Collection[str], most: int = 24) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more


def _finest(name: str, found: Sequence[_Found], rasters: Sequence[Raster]) -> tuple[_Found, ...]:
    """Without files that only repeat, coarser, what another one covers.

    Raises:
        SceneMismatchError: if files that remain scale the band differently.
    """
    size = {number: pixel_size(rasters[number].geobox) for number, _ in found}
    coarse = 1.2 * min(size.values())
    kept = [
        (number, position)
        for number, position in found
        if size[number] < coarse
        or not any(_repeats(rasters[number].geobox, rasters[other].geobox) for other, _ in found)
    ]
    bands = [rasters[n].bands[p] for n, p in kept]
    if len({(band.scale, band.offset) for band in bands}) > 1:
        one, two = next(
            (a, b)
            for a in range(len(kept))
            for b in range(a)
            if (bands[a].scale, bands[a].offset) != (bands[b].scale, bands[b].offset)
        )
        raise SceneMismatchError(
            f"files differ in the scale of {name}: {rasters[kept[two][0]].path} has "
            f"{bands[two].scale:g} and {bands[two].offset:g}, {rasters[kept[one][0]].path} has "
            f"{bands[one].scale:g} and {bands[one].offset:g}; give `scale` and `offset` for all"
        )
    return tuple(kept)


def _repeats(coarse: GeoBox, fine: GeoBox) -> bool:
    """Whether one grid is coarser than another that covers nearly all of it."""
    if not same_crs(coarse.crs, fine.crs) or pixel_size(coarse) < 1.2 * pixel_size(fine):
        return False
    return footprint(fine, coarse).size >= 0.9 * whole(coarse).size


def _join(
    wanted: Sequence[tuple[Raster, tuple[int, ...]]], request: SceneRequest, notes: list[str]
) -> list[Mosaic]:
    """One mosaic where the files' pixels coincide; one for each file where ``like`` unites them."""
    extents: dict[object, Raster] = {}
    for raster, _ in wanted:
        other = extents.setdefault((raster.shape, tuple(raster.geobox.affine)[:6]), raster)
        if other is not raster and same_crs(raster.geobox.crs, other.geobox.crs):
            notes.append(
                f"{raster.path} has the bands and the extent of {other.path}: it only fills "
                "what is not valid there"
            )
    mosaic = join(wanted)
    if mosaic is not None:
        return [mosaic]
    if request.like is None:
        first = wanted[0][0]
        other = next(r for r, _ in wanted if pixel_offset(r.geobox, first.geobox) is None)
        raise SceneMismatchError(
            f"{_difference(first, other)}; give the grid to bring them to with `like`"
        )
    singles = (join([one]) for one in wanted)
    return [single for single in singles if single is not None]


def _difference(one: Raster, two: Raster) -> str:
    a, b = one.geobox, two.geobox
    if not same_crs(a.crs, b.crs):
        what, first, second = "CRS", str(a.crs)[:60], str(b.crs)[:60]
    elif not np.allclose(tuple(a.affine)[:2] + tuple(a.affine)[3:5],
                         tuple(b.affine)[:2] + tuple(b.affine)[3:5], rtol=1e-6):  # fmt: skip
        what = "pixel size"
        first, second = (f"{g.affine.a:g} x {g.affine.e:g}" for g in (a, b))
    else:
        col, row = apply(compose(~a.affine, b.affine), 0, 0)
        what, first = "where pixels begin", "0"
        second = f"a shift of {col - round(col):.3f} columns and {row - round(row):.3f} rows"
    return f"files differ in {what}: {one.path} has {first}, {two.path} has {second}"


def _grid(mosaics: Sequence[Mosaic], request: SceneRequest) -> GeoBox:
    """The grid of ``like``, else that of the finest files, at ``resolution`` if that is given."""
    if request.like is not None:
        return find_raster(request.like, AllowList.of(request.allow_hosts)).geobox
    finest = min(mosaics, key=lambda mosaic: round(pixel_size(mosaic.geobox), 6)).geobox
    return finest if request.resolution is None else at_resolution(finest, request.resolution)


def _bring(parts: Sequence[Mosaic], geobox: GeoBox) -> tuple[Mosaic | Warp, ...]:
    brought: list[Mosaic | Warp] = []
    for mosaic in parts:
        name = mosaic.pieces[0].raster.path
        placed = mosaic.on(geobox)
        brought.append(placed if placed is not None else make_warp(mosaic, geobox, name))
    return tuple(brought)


def _check_overlap(layers: Sequence[Layer], geobox: GeoBox) -> None:
    """Every band must reach some part of the grid that every other band reaches.

    Raises:
        SceneMismatchError: naming the file that does not.
    """
    common = whole(geobox)
    for layer in layers:
        hull = _hull([_extent(part, geobox) for part in layer.parts])
        common = common.intersect(hull)
        if common.size == 0:
            raise SceneMismatchError(
                f"{layer.rasters[0].path} has no pixel in common with the grid of the scene "
                "and its other bands; leave it out, or choose another grid"
            )


def _extent(part: Mosaic | Warp, geobox: GeoBox) -> Window:
    if isinstance(part, Warp):
        return footprint(part.source.geobox, geobox)
    return _hull([part.window.intersect(piece.window) for piece in part.pieces])


def _hull(windows: Sequence[Window]) -> Window:
    """The smallest window around all that are not empty; empty if all are."""
    some = [window for window in windows if window.size]
    if not some:
        return Window(0, 0, 0, 0)
    return Window(
        min(w.top for w in some),
        min(w.left for w in some),
        max(w.bottom for w in some),
        max(w.right for w in some),
    )


def _band(name: str, found: Sequence[RasterBand]) -> Band:
    """A band of the scene, from the same band of all its files."""
    first = found[0]
    return Band(
        name=name,
        dtype=str(np.result_type(*(np.dtype(band.dtype) for band in found))),
        nodata=first.nodata if all(band.nodata is not None for band in found) else None,
        scale=first.scale,
        offset=first.offset,
        scaled=all(band.scaled for band in found),
    )
