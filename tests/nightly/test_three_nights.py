"""Three nights at Pucallpa, on real data: what is new is done once, also when a night is killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.stores.conftest import validate
from tilemap.nightly.inspection import check
from tilemap.nightly.ledger import Ledger
from tilemap.stores.catalog_check import check_tree
from tilemap.stores.catalog_tree import read_tree

from .pixel_model import make_pixel_model

__all__ = ["validate"]
pytestmark = pytest.mark.slow

FIRST = ("1985", "1990", "1995", "2000")
KILLS = int(os.environ.get("TILEMAP_KILLS", "2"))
RASTERS = ("landcover.tif", "confidence.tif", "change.tif", "p_change.tif", "date.tif")
CONFIG = """
model = "model"
[nightly]
root = "out"
[segment]
bands = ["swir16", "nir", "red", "green"]
[change]
rate = 0.01
mmu_ha = 0.5
[cluster]
workers = 2
[catalog]
title = "Pucallpa, night by night"
[tell]
price_per_hour = 2.0
[[areas]]
name = "pucallpa"
title = "Pucallpa, Peru"
scenes = ["incoming"]
"""


def begin(folder: Path, data: Path, model: Path) -> Path:
    """A folder with model, configuration and four dates; the configuration."""
    (folder / "incoming").mkdir(parents=True)
    shutil.copytree(model, folder / "model")
    (folder / "nightly.toml").write_text(CONFIG)
    for year in FIRST:
        bring(folder, data, year)
    return folder / "nightly.toml"


def bring(folder: Path, data: Path, year: str, keep: float = 1.0) -> Path:
    """A date arrives, an hour ago; a part of its bytes only, if it is to be corrupted."""
    source = data / "change" / "pucallpa_landsat" / f"{year}.tif"
    target = folder / "incoming" / f"{year}.tif"
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * keep)])
    moment = int(source.stat().st_mtime)
    os.utime(target, (moment, moment))
    return target


def command(config: Path, *more: str) -> list[str]:
    """Of one pass."""
    return [sys.executable, "-m", "tilemap.cli.main", "nightly", str(config), *more]


def night(config: Path, expected: int) -> dict[str, Any]:
    """One pass; what it told."""
    ran = subprocess.run(command(config), capture_output=True, text=True, check=False)
    assert ran.returncode == expected, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads((config.parent / "out" / "summary.json").read_text())
    return found


def done(record: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Kind, id, status and why of each piece of work."""
    return [(d["kind"], d["id"], d["status"], d["why"]) for d in record["work"]]


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of every file below a folder."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rasters(root: Path) -> dict[str, str]:
    """Digest of each raster that the catalog names, by area, id and name."""
    catalog = json.loads((root / "products" / "pucallpa" / "collection.json").read_text())
    found = {}
    for link in catalog["links"]:
        if link["rel"] == "item":
            folder = (root / "products" / "pucallpa" / link["href"]).parent
            for name in RASTERS:
                if (folder / name).is_file():
                    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
                    found[f"{folder.parent.name}/{name}"] = digest
    return found


def check_whole(root: Path) -> None:
    """Ledger, disk and catalog agree, checksums included; nobody names what was replaced."""
    with Ledger.peek(root / "ledger.sqlite") as ledger:
        assert check(ledger, root) == []
        replaced = [product.folder for product in ledger.products(listed=False)]
    unnamed = [f"{folder}/item.json is named by no collection" for folder in replaced]
    assert sorted(check_tree(root / "products", checksums=True)) == sorted(unnamed)


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted on the first date."""
    first = data / "change" / "pucallpa_landsat" / "1985.tif"
    return make_pixel_model(first, tmp_path_factory.mktemp("model") / "pucallpa-pixels")


@pytest.fixture(scope="module")
def undisturbed(
    data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]], tuple[Any, Any]]:
    """Three nights that nobody disturbs: configuration, what they told, files before and after
    the third.
    """
    folder = tmp_path_factory.mktemp("nights")
    config = begin(folder / "undisturbed", data, model)
    told = [night(config, 0)]
    shutil.copytree(config.parent, folder / "after-the-first")
    bring(config.parent, data, "2005")
    bring(config.parent, data, "2010", keep=0.5)
    told.append(night(config, 3))
    kept = [state(config.parent / "out" / name) for name in ("products", "work", "quarantine")]
    told.append(night(config, 0))
    after = [state(config.parent / "out" / name) for name in ("products", "work", "quarantine")]
    return config, told, (kept, after)


def test_first_night_does_all(undisturbed: Any) -> None:
    """Four dates are mapped, the oldest first, then compared."""
    assert done(undisturbed[1][0]) == [
        *[("map", year, "ok", "new") for year in FIRST],
        ("change", "change", "ok", "new"),
    ]


def test_second_night_does_what_is_new(undisturbed: Any) -> None:
    """One more date and one corrupted file: that one is set aside, the series is extended."""
    record = undisturbed[1][1]
    assert done(record) == [
        ("map", "2005", "ok", "new"),
        ("map", "2010", "quarantined", "new"),
        ("change", "change", "ok", "new date 2005-07-01"),
    ]
    assert record["counts"]["skipped"] == 4
    reason = record["quarantined"][0]["reason"]
    assert "2010.tif is truncated" in reason
    assert (undisturbed[0].parent / "out" / "quarantine" / "pucallpa" / "2010.json").is_file()


def test_third_night_changes_no_byte(undisturbed: Any) -> None:
    """Nothing is done, no file of products, work and quarantine is touched, none comes or goes."""
    config, told, (before, after) = undisturbed
    assert told[2]["work"] == []
    assert told[2]["counts"]["skipped"] == 6
    assert before == after
    assert len(before[0]) > 50
    check_whole(config.parent / "out")


def test_catalog_names_what_was_delivered(undisturbed: Any) -> None:
    """Five maps and one change, which is derived from them; not the corrupted one."""
    root = undisturbed[0].parent / "out" / "products"
    collection = json.loads((root / "pucallpa" / "collection.json").read_text())
    items = [link["href"] for link in collection["links"] if link["rel"] == "item"]
    assert sorted(href.split("/")[1] for href in items) == [*FIRST, "2005", "change"]
    change = next(href for href in items if "/change/" in href)
    item = json.loads((root / "pucallpa" / change).read_text())
    sources = [link for link in item["links"] if link["rel"] == "derived_from"]
    assert [link["title"][:4] for link in sources] == [*FIRST, "2005"]
    for link in sources:
        assert ((root / "pucallpa" / change).parent / link["href"]).resolve().is_file()


def test_catalog_is_valid_stac(undisturbed: Any, validate: Any) -> None:
    """Catalog, collection and every item that is named, by stac-validator, without the network."""
    root = undisturbed[0].parent / "out" / "products"
    tree = read_tree(root)
    values = [tree.catalog, *tree.collections.values(), *(one.item for one in tree.items)]
    assert len(values) == 8
    assert [fault for value in values for fault in validate(value)] == []
    broken = {**tree.items[0].item, "geometry": None}
    assert validate(broken)


def test_extended_series_is_that_of_all_dates(
    undisturbed: Any, data: Path, model: Path, tmp_path: Path
) -> None:
    """One night with all five dates, two of them at a time, gives the same rasters as two."""
    config = begin(tmp_path / "at-once", data, model)
    config.write_text(CONFIG.replace("[nightly]", "[nightly]\ntogether = 2"))
    bring(config.parent, data, "2005")
    night(config, 0)
    assert rasters(config.parent / "out") == rasters(undisturbed[0].parent / "out")


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_in_the_second_night(
    undisturbed: Any, data: Path, tmp_path: Path, number: int
) -> None:
    """SIGKILL to everything at a moment of the second night; the next pass ends in the same.

    The moment is a point of the log, and a while after it.
    """
    folder = tmp_path / "killed"
    first = undisturbed[0].parent
    config = folder / "nightly.toml"
    shutil.copytree(first.parent / "after-the-first", folder)  # moved: no path of it is kept
    bring(folder, data, "2005")
    bring(folder, data, "2010", keep=0.5)
    kill_at(config, ("map", "change")[number % 2], 0.3 * (number // 2) + 0.2)
    aside = folder / "out" / "quarantine" / "pucallpa" / "2010.json"
    record = night(config, 0 if aside.is_file() else 3)
    assert rasters(folder / "out") == rasters(first / "out")
    mapped = [d for d in done(record) if d[0] == "map" and d[1] in FIRST]
    assert mapped == []
    night(config, 0)
    check_whole(folder / "out")


def kill_at(config: Path, kind: str, after_s: float) -> None:
    """Start a pass, kill it and all its processes a while after a piece of work has begun."""
    logs = config.parent / "out" / "logs"
    before = set(logs.glob("*.jsonl"))
    driver = subprocess.Popen(
        command(config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            new = set(logs.glob("*.jsonl")) - before
            lines = [json.loads(t) for p in new for t in p.read_text().splitlines() if t]
            if any(one["event"] == "begin" and one.get("kind") == kind for one in lines):
                break
            time.sleep(0.02)
        else:
            pytest.fail(f"the pass never began with a {kind}")
        time.sleep(after_s)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
