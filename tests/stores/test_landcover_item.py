"""The item of a real run: whole, valid, true to ``run.json`` and to the files."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError
from tilemap.geometry import Window
from tilemap.stores.cog import RasterProfile, partial_path, publish, write_cog
from tilemap.stores.landcover_item import landcover_item
from tilemap.stores.profile_reading import read_profile
from tilemap.stores.stac import read_item
from tilemap.stores.stac_item import write_item
from tilemap.stores.stac_links import moved_item, with_sources

Validate = Callable[[dict[str, Any]], list[str]]
SCENE = "S2A_20200518.tif"


@pytest.fixture(scope="session")
def item(mapped: Path) -> dict[str, Any]:
    """Of the run."""
    return landcover_item(mapped, sources={SCENE: str(mapped.parent / SCENE)})


def test_valid_by_every_schema(item: dict[str, Any], validate: Validate) -> None:
    """STAC 1.1 and the five extensions find no fault."""
    assert len(item["stac_extensions"]) == 5
    assert validate(item) == []


@pytest.mark.slow
def test_item_of_change_is_valid(compared: Path, validate: Validate) -> None:
    """The item that ``tilemap change`` leaves stands the same test."""
    item = json.loads((compared / "item.json").read_text())
    assert len(item["stac_extensions"]) == 5
    assert item["properties"]["datetime"] is None
    assert validate(item) == []


def _break(item: dict[str, Any], where: tuple[str, ...], value: object) -> dict[str, Any]:
    broken = copy.deepcopy(item)
    inside = broken
    for key in where[:-1]:
        inside = inside[key]
    inside[where[-1]] = value
    return broken


@pytest.mark.parametrize(
    ("where", "value", "schema"),
    [
        (("properties", "datetime"), None, "item-spec"),
        (("properties", "datetime"), "18 May 2020", "item-spec"),
        (("bbox",), [1.0, 2.0], "item-spec"),
        (("collection",), "area", "item-spec"),  # and no link to it
        (("assets", "landcover", "nodata"), "none", "item-spec"),
        (("properties", "proj:shape"), [120], "projection"),
        (("properties", "proj:epsg"), 32618, "projection"),
        (("assets", "landcover", "raster:sampling"), "pixel", "raster"),
        (("properties", "raster:sampling"), "area", "raster"),
        (("assets", "landcover", "classification:classes"), [{"value": 1}], "classification"),
        (("properties", "processing:software"), {"tilemap": 1}, "processing"),
        (("assets", "run", "file:checksum"), "sha256:ab", "file"),
    ],
)
def test_validation_can_fail(
    item: dict[str, Any], validate: Validate, where: tuple[str, ...], value: object, schema: str
) -> None:
    """Each kind of fault is told, by the schema it breaks and by stac-validator."""
    faults = validate(_break(item, where, value))
    assert any(schema in fault for fault in faults if not fault.startswith("stac-validator"))
    assert any(fault.startswith("stac-validator") for fault in faults)


def test_validation_needs_every_schema(item: dict[str, Any], validate: Validate) -> None:
    """An extension whose schema is not on this disk does not pass unseen."""
    unknown = {**item, "stac_extensions": ["https://example.org/other/v1.0.0/schema.json"]}
    with pytest.raises(KeyError, match=r"example\.org"):
        validate(unknown)


def test_every_file_is_an_asset(item: dict[str, Any], mapped: Path) -> None:
    """Nothing that a run leaves is missing but its stores; each is named by what it is for."""
    listed = {asset["href"].removeprefix("./") for asset in item["assets"].values()}
    assert listed == {path.name for path in mapped.iterdir()} - {"stores"}
    roles = {key: asset["roles"] for key, asset in item["assets"].items()}
    assert [key for key, role in roles.items() if role == ["data"]] == [
        "landcover", "confidence", "entropy", "probabilities",
    ]  # fmt: skip
    assert roles["thumbnail"] == ["thumbnail"]
    assert roles["run"] == roles["report"] == roles["aux_xml"] == ["metadata"]
    for asset in item["assets"].values():
        content = mapped / asset["href"]
        if content.is_dir():
            continue
        digest = hashlib.sha256(content.read_bytes()).hexdigest()
        assert (asset["file:checksum"], asset["file:size"]) == (
            f"1220{digest}", content.stat().st_size,
        )  # fmt: skip


def test_true_to_the_run(item: dict[str, Any], mapped: Path) -> None:
    """Date, model, classes, areas and versions are those of ``run.json``."""
    record = json.loads((mapped / "run.json").read_text())
    said = item["properties"]
    assert said["datetime"] == "2020-05-18T00:00:00Z"
    assert said["tilemap:dated_by"] == "scene"
    assert said["title"] == "Land cover, S2A_20200518, 2020-05-18"
    assert said["created"] == said["updated"] == record["finished"].replace("+00:00", "Z")
    assert said["tilemap:model"] == {
        "name": "iplunet-cloud-6b", "sha256": record["identity"]["model"]["sha256"], "tta": "none",
    }  # fmt: skip
    assert said["tilemap:classes"] == record["classes"]
    assert sum(row["area_km2"] for row in said["tilemap:classes"]) == pytest.approx(1.80, abs=0.01)
    assert said["tilemap:status"] == "ok"
    assert said["tilemap:run"] == record["digest"]
    assert said["tilemap:seam_share"] == record["seam"]["share"]
    assert said["processing:software"]["tilemap"] == record["versions"]["tilemap"]
    assert "iplunet-cloud-6b" in said["processing:lineage"]
    assert said["proj:code"] == "EPSG:32618"
    assert item["id"] == f"landcover-S2A_20200518-{record['digest'][:8]}"
    classes = item["assets"]["landcover"]["classification:classes"]
    assert [(c["value"], c["title"]) for c in classes] == [(0, "clear"), (1, "cloud")]
    assert item["links"] == [
        {
            "rel": "derived_from", "href": f"../{SCENE}", "title": SCENE,
            "type": "image/tiff; application=geotiff",
        },
    ]  # fmt: skip


def test_opened_by_pystac_rasterio_and_us(item: dict[str, Any], mapped: Path) -> None:
    """Addresses lead from the item to rasters that open, each with the item's own grid."""
    write_item(mapped / "item.json", item)
    try:
        found = pystac.Item.from_file(str(mapped / "item.json"))
        for key in ("landcover", "confidence", "entropy"):
            href = found.assets[key].get_absolute_href()
            with rasterio.open(href) as file:
                assert list(file.shape) == item["properties"]["proj:shape"]
                assert list(file.transform)[:6] == item["properties"]["proj:transform"]
        ours = read_item(str(mapped / "item.json"))
        assert {Path(asset.path).name for asset in ours.assets} == {
            "landcover.tif", "confidence.tif", "entropy.tif",
        }  # fmt: skip
    finally:
        (mapped / "item.json").unlink()


def test_files_that_will_lie_elsewhere(mapped: Path, item: dict[str, Any]) -> None:
    """Sources are told from where the item will lie; its own files are beside it either way."""
    folder = mapped.parent / "products" / "area" / "id" / "v1"
    moved = landcover_item(
        mapped, folder, item_id="area-1", title="Here", day=date(2021, 7, 1),
        sources={"scene": str(mapped.parent / SCENE), "b": "https://example.org/b.json"},
        properties={"license": "CC-BY-4.0"},
    )  # fmt: skip
    assert moved["assets"] == item["assets"]
    assert [link["href"] for link in moved["links"]] == [
        f"../../../../{SCENE}", "https://example.org/b.json",
    ]  # fmt: skip
    assert (moved["id"], moved["properties"]["title"]) == ("area-1", "Here")
    assert moved["properties"]["datetime"] == "2021-07-01T00:00:00Z"
    assert moved["properties"]["tilemap:dated_by"] == "given"
    assert moved["properties"]["license"] == "CC-BY-4.0"
    again = moved_item(
        landcover_item(mapped, sources={"a": str(mapped.parent / SCENE)}), mapped, folder
    )
    assert again["links"][0]["href"] == f"../../../../{SCENE}"
    assert again["assets"] == item["assets"]
    other = with_sources(again, {"map": str(folder.parent / "v0" / "item.json")}, folder)
    assert other["links"] == [
        {
            "rel": "derived_from", "href": "../v0/item.json", "title": "map",
            "type": "application/geo+json",
        },
    ]  # fmt: skip


def _copy(mapped: Path, folder: Path, **changes: Any) -> Path:
    """The run's files with another record."""
    ignore = shutil.ignore_patterns("stores", "probabilities.zarr")
    shutil.copytree(mapped, folder, ignore=ignore)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **changes}))
    return folder


def test_without_date_the_end_of_the_run(mapped: Path, tmp_path: Path, validate: Validate) -> None:
    """Nobody knows when the scene was seen: the item says what stands in place of it."""
    run = _copy(mapped, tmp_path / "run", scene={"name": "plain", "date": None})
    item = landcover_item(run)
    assert item["properties"]["datetime"] == item["properties"]["created"]
    assert item["properties"]["tilemap:dated_by"] == "run"
    assert item["properties"]["title"] == "Land cover, plain"
    assert "probabilities" not in item["assets"]
    assert validate(item) == []


def test_partial_run_and_unknown_seam(mapped: Path, tmp_path: Path) -> None:
    """What is not known is null, which JSON can write; several models are named."""
    seam = {"pixels": 0, "differ": 0, "largest": 0.0, "share": float("nan")}
    record = json.loads((mapped / "run.json").read_text())
    member = {**record["identity"]["model"], "members": []}
    model = {**member, "members": [member, {**member, "name": "other"}]}
    run = _copy(
        mapped, tmp_path / "run", status="partial", seam=seam,
        identity={**record["identity"], "model": model},
    )  # fmt: skip
    item = landcover_item(run)
    write_item(run / "item.json", item)
    assert item["properties"]["tilemap:status"] == "partial"
    assert item["properties"]["tilemap:seam_share"] is None
    assert [m["name"] for m in item["properties"]["tilemap:model"]["members"]] == [
        "iplunet-cloud-6b", "other",
    ]  # fmt: skip
    assert "iplunet-cloud-6b and 1 more" in item["properties"]["processing:lineage"]


def test_no_finished_run(mapped: Path, tmp_path: Path) -> None:
    """What is not a finished run of ``segment`` is told, not described."""
    with pytest.raises(StoreError, match=r"must hold a finished run: it has no run\.json"):
        landcover_item(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(StoreError, match=r"run\.json: is not JSON"):
        landcover_item(tmp_path)
    (tmp_path / "run.json").write_text('{"products": {"change.tif": {}}}')
    with pytest.raises(StoreError, match="must be of tilemap segment"):
        landcover_item(tmp_path)
    run = _copy(mapped, tmp_path / "run")
    os.truncate(run / "confidence.tif", 100)
    with pytest.raises(StoreError, match=r"confidence\.tif must have \d+ bytes .*, got 100"):
        landcover_item(run)
    (run / "confidence.tif").unlink()
    with pytest.raises(StoreError, match=r"cannot read .*confidence\.tif"):
        landcover_item(run)


BOX = GeoBox((31, 43), Affine(30, 0, 535000, 0, -30, 9_090_000), "EPSG:32718")
PROFILES = (
    RasterProfile(
        BOX,
        palette={1: (9, 9, 9), 7: (250, 0, 16)},
        names={1: "forest", 7: "town"},
        overview="mode",
        tags={"TILEMAP_MODEL": "m"},
        description="land cover",
    ),
    RasterProfile(BOX, tags={"UNITS": "percent"}, description="confidence"),
    RasterProfile(BOX, overview="nearest", bits={0: "few dates", 5: "provisional"}),
    RasterProfile(
        GeoBox((31, 43), Affine.identity(), None), nodata=-1, dtype="int32", bands=("day", "gap")
    ),
)


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_is_read_back(tmp_path: Path, profile: RasterProfile) -> None:
    """A file tells everything that it was written with."""
    path = tmp_path / "product.tif"
    shape = profile.shape if profile.count == 1 else (profile.count, *profile.shape)
    pixels = np.zeros(shape, dtype=profile.dtype)
    write_cog(path, profile, [(Window(0, 0, *profile.shape), pixels)], tmp_path / "scratch")
    publish(partial_path(path), path)
    assert read_profile(path) == profile


def test_profile_of_what_is_none(tmp_path: Path) -> None:
    """A raster without nodata is no product; a text is no raster."""
    path = tmp_path / "plain.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=3, count=1, dtype="uint8",
        crs="EPSG:32718", transform=BOX.affine,
    ) as file:  # fmt: skip
        file.write(np.zeros((1, 3, 4), dtype=np.uint8))
    with pytest.raises(StoreError, match="must declare nodata"):
        read_profile(path)
    path.write_text("text")
    with pytest.raises(StoreError, match=r"plain\.tif"):
        read_profile(path)
