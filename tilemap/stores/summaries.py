"""What the items of a collection have in common: its summaries and its item assets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

OWN = ("href", "file:checksum", "file:size", "created", "updated")
"""Fields of an asset that belong to one file."""
_DATED = re.compile(r"_\d{4}-\d\d-\d\d")
CLASSES = "classification:classes"


def summaries(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Codes of the CRS, range of pixel sizes, classes.

    Classes are left out where one number means different things in different assets or items:
    then only the assets can tell.
    """
    found: dict[str, Any] = {}
    properties = [item["properties"] for item in items]
    codes = sorted({p["proj:code"] for p in properties if p.get("proj:code") is not None})
    if codes:
        found["proj:code"] = codes
    sizes = [p["gsd"] for p in properties if p.get("gsd") is not None]
    if sizes:
        found["gsd"] = {"minimum": min(sizes), "maximum": max(sizes)}
    classes = _classes(items)
    if classes:
        found[CLASSES] = classes
    return found


def item_assets(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What every asset of a name says alike, in the order in which the names come.

    Left out are assets that are named after a date, and those with nothing in common: STAC
    wants two fields at least.
    """
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        for key, asset in item["assets"].items():
            if not _DATED.search(key):
                by_key.setdefault(key, []).append(asset)
    shared = {key: _shared(assets) for key, assets in by_key.items()}
    return {key: fields for key, fields in shared.items() if len(fields) >= 2}


def _shared(assets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = assets[0]
    return {
        key: value
        for key, value in first.items()
        if key not in OWN and all(_same(asset.get(key), value) for asset in assets[1:])
    }


def _classes(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every class of every asset by its number; none if a number has two meanings."""
    found: dict[int, dict[str, Any]] = {}
    for item in items:
        for asset in item["assets"].values():
            for entry in asset.get(CLASSES, ()):
                if not _same(found.setdefault(entry["value"], entry), entry):
                    return []
    return [found[value] for value in sorted(found)]


def _same(one: Any, other: Any) -> bool:
    """As JSON, where 1 is not True."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
