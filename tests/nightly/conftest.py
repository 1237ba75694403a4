"""Passes over toy scenes: the runs are real, made once and copied, so that a pass takes no time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tilemap import api
from tilemap.directory import read_json, write_json
from tilemap.nightly import passing
from tilemap.nightly.config import parse_config
from tilemap.nightly.doing import Made, PassCluster
from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.passing import run_pass
from tilemap.nightly.request import PassRequest
from tilemap.nightly.works import Work
from tilemap.stores.landcover_item import landcover_item

LONG_AGO = 1_600_000_000


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a real run of a corner of the demo scene."""
    import rasterio
    from rasterio.windows import Window

    folder = tmp_path_factory.mktemp("real-run")
    scenes = []
    for path, side in zip(api.demo_scene(), (240, 120), strict=True):
        with rasterio.open(path) as file:
            part = Window(0, 0, side, side)
            profile = {**file.profile, "width": side, "height": side}
            scenes.append(folder / path.name)
            with rasterio.open(scenes[-1], "w", **profile) as corner:
                corner.write(file.read(window=part))
                corner.update_tags(**file.tags())
                corner.descriptions = file.descriptions
                corner.scales, corner.offsets = file.scales, file.offsets
    out = folder / "run"
    api.segment(scenes, model="iplunet-cloud-6b", out=out, workers=1, keep_stores=False)
    return out


@dataclass
class Nights:
    """A root, a folder of scenes, and passes over them.

    Args:
        folder: of all.
        run: that is copied for each scene.
        fails: what becomes of a scene by its id: an error, "partial", or a function.
        worked: what was done, in order.
    """

    folder: Path
    run: Path
    fails: dict[str, Any] = field(default_factory=dict)
    worked: list[str] = field(default_factory=list)
    table: dict[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Of the passes."""
        return self.folder / "out"

    @property
    def products(self) -> Path:
        """Where the catalog lies."""
        return self.root / "products"

    def bring(self, name: str, area: str = "coast", content: str = "pixels") -> Path:
        """A scene arrives, long ago."""
        path = self.folder / "in" / area / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        os.utime(path, (LONG_AGO, LONG_AGO))
        return path

    def config(self, **changes: Any) -> Any:
        """A configuration of one area, or of what ``changes`` says."""
        table = {
            "nightly": {"root": "out"},
            "model": "iplunet-cloud-6b",
            "areas": [{"name": "coast", "scenes": ["in/coast"], "series": False}],
            **self.table,
            **changes,
        }
        return parse_config(table, self.folder)

    def night(self, config: Any = None, **options: Any) -> PassOutcome:
        """One pass."""
        return run_pass(PassRequest(config or self.config(), "nightly.toml", **options))

    def do(self, work: Work, config: Any, places: Any, cluster: Any, told: Any) -> Made:
        """Stands for the real one: copies a run, or fails as it is told to."""
        self.worked.append(f"{work.area}/{work.id}")
        fate = self.fails.get(work.id)
        if isinstance(fate, BaseException):
            raise fate
        if callable(fate):
            fate(work, places)
        if work.kind == "change":
            return self.compare(work, places)
        out = places.run(work.area, work.id, work.digest)
        if not out.exists():
            shutil.copytree(self.run, out)
        record = read_json(out / "run.json")
        assert isinstance(record, dict)
        record.pop("checksum", None)  # of what the run wrote
        record["digest"] = work.digest[::-1]
        if fate == "partial":
            record["status"] = "partial"
            record["quarantined"] = [{"tile": [0, 1], "stage": "segment", "error": "bad luck"}]
        write_json(out / "run.json", record)
        return Made(out, "partial" if fate == "partial" else "ok", record, 1.5)

    def compare(self, work: Work, places: Any) -> Made:
        """Stands for a comparison: a map under another name, which knows its dates."""
        out = places.run(work.area, work.id, "0123456789abcdef")
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.run / "landcover.tif", out / "change.tif")
        item = landcover_item(self.run, out)
        item["assets"] = {"change": {**item["assets"]["landcover"], "href": "./change.tif"}}
        write_json(out / "item.json", item)
        (out / "report.html").write_text("<p>report</p>")
        record = {
            "status": "ok", "digest": work.digest[::-1], "products": {"change.tif": {}},
            "files": [], "pixels": 100, "transitions": [{"area_ha": 50.0}], "quarantined": [],
            "seconds": {"by_step": {}}, "dates": [product.id for product in work.dates],
        }  # fmt: skip
        write_json(out / "run.json", record)
        return Made(out, "ok", record, 0.5)

    def compared(self, area: str = "coast") -> list[str]:
        """Ids of the dates in the published change of an area."""
        folder = self.products / area / self.items(area)["change"]
        record = read_json(folder / "run.json")
        assert isinstance(record, dict)
        return list(record["dates"])

    def items(self, area: str = "coast") -> dict[str, str]:
        """Folder that the catalog names, by id."""
        collection = read_json(self.products / area / "collection.json") or {}
        links: list[Mapping[str, str]] = collection.get("links", [])
        hrefs = [link["href"] for link in links if link["rel"] == "item"]
        return {href.split("/")[1]: str(Path(href).parent) for href in hrefs}


@pytest.fixture
def nights(tmp_path: Path, real_run: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """A folder for passes whose runs are copies."""
    found = Nights(tmp_path, real_run)
    monkeypatch.setattr(passing, "do_work", found.do)
    monkeypatch.setattr(PassCluster, "client", lambda self: None)
    return found
