"""Folders of passes, made by hand: ledger and disk agree, with no pass."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tilemap.nightly.facts import Found, Product, Quarantine
from tilemap.nightly.inspection import check
from tilemap.nightly.ledger import LEDGER_FILE, Ledger, product_to_json
from tilemap.nightly.lock import acquire

from .facts import NOW

LATER = NOW + timedelta(days=1)


class Root:
    """Products as a pass publishes them, in a ledger and on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.products = path / "products"
        self.ledger_file = path / LEDGER_FILE

    def publish(self, key: str, version: str, number: int = 1, **changes: Any) -> Product:
        """One more product: files, item, work.json, row."""
        made = self.stage(key, version, number, **changes)
        with Ledger.open(self.ledger_file) as ledger, acquire(ledger) as lock:
            with ledger.publishing(lock) as publication:
                publication.add(made)
                listed = publication.products()
            self.catalogue(listed)
        return made

    def stage(self, key: str, version: str, number: int = 1, **changes: Any) -> Product:
        """Its folder only, as a kill before the commit leaves it."""
        area = changes.get("area", "pucallpa")
        folder = self.products / area / key / version
        folder.mkdir(parents=True)
        content = f"{key} {version}".encode() * 100
        (folder / "landcover.tif").write_bytes(content)
        item = {
            "id": f"{area}-{key}",
            "assets": {
                "landcover": {
                    "href": "./landcover.tif",
                    "file:size": len(content),
                    "file:checksum": f"1220{hashlib.sha256(content).hexdigest()}",
                },
                "source": {"href": "https://example.org/scene.tif", "file:size": 3},
            },
        }
        made = Product(
            area=area, kind="change" if key == "change" else "map", id=key, version=version,
            digest=version * 8, result="r" + version, day=date(2020, 1, number), status="ok",
            folder=f"{area}/{key}/{version}", run=f"work/{area}/{key}/{version}", item=item,
            published=NOW + timedelta(minutes=number), pixels=12, km2=0.5, seconds=1.25,
            sources={"a": "/in/a.tif"}, fingerprint=({"name": "a.tif", "size": 9},),
        )  # fmt: skip
        made = replace(made, **changes)
        (folder / "item.json").write_text(json.dumps(item))
        (folder / "work.json").write_text(json.dumps(product_to_json(made)))
        return made

    def catalogue(self, listed: list[Product]) -> None:
        """Write the catalog of these."""
        areas = sorted({one.area for one in listed})
        for path in self.products.glob("*/collection.json"):
            path.unlink()
        for area in areas:
            links = [
                {"rel": "item", "href": f"./{one.id}/{one.version}/item.json"}
                for one in listed
                if one.area == area
            ]
            links.append({"rel": "root", "href": "../catalog.json"})
            text = json.dumps({"type": "Collection", "id": area, "links": links})
            (self.products / area / "collection.json").write_text(text)
        children = [{"rel": "child", "href": f"./{area}/collection.json"} for area in areas]
        text = json.dumps({"type": "Catalog", "id": "tilemap", "links": children})
        (self.products / "catalog.json").write_text(text)

    def known(self) -> dict[str, Any]:
        """What the ledger says but for the lock."""
        with Ledger.peek(self.ledger_file) as ledger:
            return {
                "products": ledger.products(listed=None),
                "left over": ledger.left_over(),
                "unmirrored": ledger.unmirrored(),
                "quarantine": ledger.quarantines(),
                "scenes": ledger.scenes(),
                "attempts": ledger.attempts(),
                "passes": ledger.passes(),
            }

    def disagreements(self, contents: bool = True) -> list[str]:
        """Where ledger and disk differ."""
        with Ledger.peek(self.ledger_file) as ledger:
            return check(ledger, self.path, contents)


def published_root(path: Path) -> Root:
    """Two areas: a scene made twice, one once, a series, one set aside, and some history."""
    made = Root(path)
    with Ledger.open(made.ledger_file) as ledger, acquire(ledger) as lock:
        ledger.begin_pass("one", lock.holder, NOW)
        for key in ("1985", "1990"):
            ledger.see(Found("pucallpa", key, date(1985, 8, 1), (f"/in/{key}.tif",), ()), NOW)
            number = ledger.start("one", "pucallpa", "map", key, "d", NOW)
            ledger.finish(number, "failed", NOW, "x", 65, 1.0, 0, {"tile": 1.0})
        ledger.quarantine(Quarantine("pucallpa", "map", "1990", "d", NOW, "is no raster", 65, 1))
        ledger.quarantine(Quarantine("ucayali", "change", "change", "d", NOW, "no two", 65, 3))
        ledger.end_pass("one", "partial", 3, NOW, {"a": 1})
    made.publish("1985", "v1", 1)
    made.publish("1985", "v2", 2)
    made.publish("2000", "w1", 3)
    made.publish("change", "c1", 4)
    made.publish("1999", "u1", 5, area="ucayali", day=None, km2=None, status="partial")
    return made
