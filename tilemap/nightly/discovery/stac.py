"""Scenes of a STAC catalog or API: found, filtered, named, the newest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tilemap.errors import SceneError, TilemapError, UnavailableError
from tilemap.nightly.discovery import asking
from tilemap.nightly.discovery.asking import Asker, told
from tilemap.nightly.discovery.candidates import item_candidate
from tilemap.nightly.discovery.catalog import Located, resolve, walk
from tilemap.nightly.discovery.items import (
    day_of_item,
    fits_bbox,
    fits_query,
    local_path,
    moment_of,
    rasters_of,
    remote_record,
    unknown_operators,
)
from tilemap.nightly.discovery.listing import Lister
from tilemap.nightly.discovery.looking import Moment, settled, within
from tilemap.nightly.discovery.naming import scene_id
from tilemap.nightly.discovery.notes import NO_RASTERS, Notes
from tilemap.nightly.facts import Found, Problem
from tilemap.stores.remote.address import Address, AllowList

if TYPE_CHECKING:
    from tilemap.nightly.config import AreaTable, StacTable

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def look_in_stac(
    area: AreaTable, when: Moment, allow_hosts: Sequence[str]
) -> tuple[list[Found], list[Problem]]:
    """The scenes of an area that a catalog or an API tells, the newest first.

    Args:
        area: whose.
        when: how it is told whether those on this disk are whole.
        allow_hosts: that may be asked.

    Returns:
        Whatever could be read, and what could not.
    """
    notes, table = Notes(area.name), area.stac
    assert table is not None
    source = table.catalog or table.api or ""
    found: list[Located] = []
    with telling(notes, source):
        asker = Asker(AllowList.of(allow_hosts), asking.LIMITS, asking.TOTAL_S)
        found.extend(_located(area, table, asker, notes))
    wanted = [
        one
        for one in found
        if within(area, day_of_item(one.item), one.place, notes) and _has_rasters(one, notes)
    ]
    wanted = sorted(_once(wanted, table), key=_newest)
    names = _names(area, table, wanted)
    if len(wanted) > table.most:
        if "most" not in table.model_fields_set:
            notes.add(source, f"more than {table.most} items fit, the newest are taken; set most")
        del wanted[table.most :]
    scenes = _scenes(area.name, wanted, names, when, notes)
    order = {one.place: number for number, one in enumerate(wanted)}
    return sorted(scenes, key=lambda scene: order[scene.sources[0]]), notes.all()


@contextmanager
def telling(notes: Notes, source: str) -> Iterator[None]:
    """Whatever goes wrong with one source is a problem of it, and others go on."""
    try:
        yield
    except TilemapError as problem:
        notes.add(source, told(problem))
    except Exception as problem:  # a server may answer anything
        reason = " ".join(f"{type(problem).__name__} {problem}".split())[:200]
        notes.add(source, f"an answer cannot be understood: {reason}")


def _located(area: AreaTable, table: StacTable, asker: Asker, notes: Notes) -> Iterator[Located]:
    """Items that fit box and query."""
    if odd := unknown_operators(table.query):
        raise SceneError(f"stac.query has no operator {odd[0]}")
    every = (
        _searched(area, table, asker, notes)
        if table.catalog is None
        else walk(table.catalog, table.collections, asker, notes)
    )
    for one in every:
        boxed = table.catalog is None or fits_bbox(one.item, table.bbox)
        if boxed and fits_query(one.item, table.query):
            yield one


def _searched(area: AreaTable, table: StacTable, asker: Asker, notes: Notes) -> Iterator[Located]:
    """Items of an API, each at the address that it says is its own."""
    try:
        from tilemap.nightly.discovery.api import search
    except ImportError as problem:
        raise UnavailableError(
            'a STAC API needs pystac-client: pip install "tilemap[stac]"'
        ) from problem
    assert table.api is not None
    for item in search(area, table, asker, notes):
        links = item.get("links")
        own = [
            link.get("href")
            for link in (links if isinstance(links, list) else ())
            if isinstance(link, dict) and link.get("rel") == "self"
        ]
        if not own or not isinstance(own[0], str):
            notes.count(str(item.get("id")), "item", "without an address of its own")
            continue
        try:
            address = Address.parse(resolve(own[0], table.api))
            asker.check(address)
        except SceneError as problem:
            notes.count(own[0].partition("?")[0], "item", "that may not be read", told(problem))
        else:
            yield Located(address.url, item)


def _has_rasters(one: Located, notes: Notes) -> bool:
    if rasters_of(one.item):
        return True
    notes.count(one.place, "item", NO_RASTERS)
    return False


def _once(found: Sequence[Located], table: StacTable) -> list[Located]:
    """Each item once, of the first collection that the area names and that has it."""
    ranks = {name: number for number, name in enumerate(table.collections)}
    ordered = sorted(found, key=lambda one: ranks.get(str(one.item.get("collection")), len(ranks)))
    places: dict[str, Located] = {}
    for one in ordered:
        places.setdefault(one.place, one)
    kept: dict[Any, Located] = {}
    for one in places.values():
        names = tuple(sorted(str(record["name"]) for record in _records(one)))
        kept.setdefault((one.item.get("id"), names), one)
    return list(kept.values())


def _newest(one: Located) -> tuple[float, str, str]:
    properties = one.item["properties"]
    moment = moment_of(properties.get("datetime")) or moment_of(properties.get("start_datetime"))
    moment = moment or _LONG_AGO
    return -(moment - _LONG_AGO).total_seconds(), str(one.item.get("id")), one.place


def _records(one: Located) -> list[dict[str, Any]]:
    """What the rasters of an item are known by."""
    records = []
    for raster in rasters_of(one.item):
        address: str | None = None
        if one.remote:
            try:
                address = resolve(raster.href, one.place)
            except SceneError:
                address = None
        else:
            address = local_path(raster.href, one.place.rpartition("/")[0])
        records.append(remote_record(raster, one.item, address))
    return sorted(records, key=lambda record: str(record["name"]))


def _names(area: AreaTable, table: StacTable, found: Sequence[Located]) -> dict[str, str]:
    """Id of each scene, by place: plain for the items of an area's first source.

    Two items of one id in one collection should not be; both carry a hash of their places then.
    """

    def source(one: Located) -> str:
        collection = str(one.item.get("collection"))
        first = not table.collections or collection == table.collections[0]
        return " ".join(["stac"] * bool(area.scenes) + [collection] * (not first))

    keys = {one.place: (str(one.item.get("id")), source(one)) for one in found}
    often = Counter(keys.values())
    return {
        place: scene_id(key, of if often[key, of] == 1 else f"{of} {place.partition('?')[0]}")
        for place, (key, of) in keys.items()
    }


def _scenes(
    area: str, wanted: Sequence[Located], names: Mapping[str, str], when: Moment, notes: Notes
) -> list[Found]:
    remote, local = [], []
    for one in wanted:
        name = names[one.place]
        if one.remote:
            remote.append(remote_scene(area, name, one))
        else:
            local.append((item_candidate(name, one.place, one.item), day_of_item(one.item)))
    lister = Lister()
    scenes = remote + settled(area, local, lister, when, notes)
    for path, why in lister.errors.items():
        notes.count(path, "folder", "cannot be listed", why)
    return scenes


def remote_scene(area: str, name: str, one: Located) -> Found:
    """A scene that is an item elsewhere, known by what the item says.

    Args:
        area: whose.
        name: its id.
        one: the item.
    """
    updated = moment_of(one.item["properties"].get("updated"))
    return Found(
        area=area, id=name, day=day_of_item(one.item), sources=(one.place,),
        fingerprint=tuple(_records(one)), newest=None if updated is None else updated.timestamp(),
    )  # fmt: skip
