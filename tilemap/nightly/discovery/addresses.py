"""Scenes that are named by their addresses: one raster or STAC item each, on a listed host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tilemap.errors import SceneError
from tilemap.nightly.discovery import asking
from tilemap.nightly.discovery.asking import Asker
from tilemap.nightly.discovery.catalog import Located
from tilemap.nightly.discovery.items import is_item, parse_json, rasters_of
from tilemap.nightly.discovery.looking import within
from tilemap.nightly.discovery.naming import ITEM, RASTERS, day_in, scene_id, split_suffix
from tilemap.nightly.discovery.notes import NO_RASTERS, Notes
from tilemap.nightly.discovery.stac import remote_scene, telling
from tilemap.nightly.facts import Found, Problem
from tilemap.stores.remote.address import Address, AllowList, is_address

if TYPE_CHECKING:
    from tilemap.nightly.config import AreaTable


def look_at_addresses(
    area: AreaTable, allow_hosts: Sequence[str]
) -> tuple[list[Found], list[Problem]]:
    """The scenes of an area that are addresses, in its order.

    Args:
        area: whose.
        allow_hosts: that may be asked.
    """
    notes, scenes = Notes(area.name), list[Found]()
    asker: Asker | None = None
    for text in dict.fromkeys(text for text in area.scenes if is_address(text)):
        shown = text.partition("?")[0]
        with telling(notes, shown):
            asker = asker or Asker(AllowList.of(allow_hosts), asking.LIMITS, asking.TOTAL_S)
            scene = _scene(area, Address.parse(text), text == area.scenes[0], asker)
            if within(area, scene.day, shown, notes):
                scenes.append(scene)
    return scenes, notes.all()


def _scene(area: AreaTable, address: Address, first: bool, asker: Asker) -> Found:
    stem, suffix = split_suffix(address.name)
    plain = address.url.partition("?")[0]
    name = scene_id(stem, "" if first else plain)
    if suffix.lower() == ITEM:
        item = parse_json(asker.get(address), address.shown)
        if not is_item(item):
            raise SceneError(f"{address.shown} must be a STAC item; a catalog goes under stac")
        if not rasters_of(item):
            raise SceneError(f"{address.shown} is an item {NO_RASTERS}")
        return remote_scene(area.name, name, Located(address.url, item))
    if suffix.lower() not in RASTERS:
        raise SceneError(
            f"{address.shown} must be {', '.join(RASTERS)} or a STAC item (.json); more than one "
            "scene is given as a STAC catalog"
        )
    return Found(
        area=area.name, id=name, day=day_in((stem, *reversed(plain.split("/")[3:-1]))),
        sources=(address.url,), fingerprint=(_record(address, plain, asker),),
    )  # fmt: skip


def _record(address: Address, plain: str, asker: Asker) -> dict[str, Any]:
    """Size and ETag of a raster, by its first byte."""
    state = asker.state(address)
    return {"name": plain, "size": state.size, "etag": state.version}
