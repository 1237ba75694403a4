"""Static STAC catalogs, on disk and over HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pystac
import pytest

from tilemap.nightly.discovery.asking import Asker
from tilemap.nightly.discovery.items import fits_bbox, fits_query, unknown_operators
from tilemap.stores.remote.address import AllowList

from .conftest import NOW, Site
from .server import Host, ok
from .test_folders import item


def make_catalog(site: Site, items: int = 5) -> Path:
    """Two collections; the odd items in ``odd``, the first of them linked from ``even`` too."""
    catalog = pystac.Catalog("root", "of a test")
    collections = {}
    for name in ("even", "odd"):
        extent = pystac.Extent(
            pystac.SpatialExtent([[-180, -90, 180, 90]]),
            pystac.TemporalExtent([[datetime(2020, 1, 1, tzinfo=UTC), None]]),
        )
        collections[name] = pystac.Collection(name, "of a test", extent)
        catalog.add_child(collections[name])
    for number in range(items):
        one = pystac.Item(
            f"S2_{number}", {"type": "Point", "coordinates": [number, 50]},
            [number, 50, number + 0.5, 51],
            datetime(2020, 5, 1, tzinfo=UTC) + timedelta(days=number), {"cloud": 10.0 * number},
        )  # fmt: skip
        path = site.put(f"rasters/S2_{number}.tif")
        one.add_asset("red", pystac.Asset(str(path)))
        collections[("even", "odd")[number % 2]].add_item(one)
    catalog.normalize_hrefs(str(site.root / "stac"))
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    for path in (site.root / "stac").rglob("*.json"):
        site.put(str(path.relative_to(site.root)), path.read_bytes())
    collection = site.root / "stac/even/collection.json"
    content = json.loads(collection.read_text())
    content["links"].append({"rel": "item", "href": "../odd/S2_1/S2_1.json"})
    content["links"].append({"rel": "child", "href": "../catalog.json"})
    site.put("stac/even/collection.json", json.dumps(content).encode())
    return site.root / "stac/catalog.json"


def names(paths: list[str]) -> list[str]:
    """Of the files."""
    return [Path(path).name for path in paths]


def test_the_items_are_those_that_pystac_finds(site: Site) -> None:
    """Each once, the newest first, though links go in a circle."""
    path = make_catalog(site)
    catalog = pystac.Catalog.from_file(str(path))
    expected = {one.id for child in catalog.get_children() for one in child.get_items()}
    found = site.discover(stac={"catalog": "stac/catalog.json"})
    assert list(found) == sorted(expected, reverse=True)
    assert site.problems == ()
    scene = found["S2_3"]
    assert scene.day == date(2020, 5, 4)
    assert scene.sources == (str(site.root / "stac/odd/S2_3/S2_3.json"),)
    assert names([r["name"] for r in scene.fingerprint]) == ["S2_3.tif", "S2_3.json"]
    assert {r["mtime_ns"] for r in scene.fingerprint} == {int((NOW - 3600) * 1e9)}
    assert scene.state == "ready"


def test_collections_box_query_days_and_most(site: Site) -> None:
    """A catalog has no search of its own, so it is done here."""
    make_catalog(site)

    def ids(area: dict[str, Any] | None = None, **table: Any) -> list[str]:
        return list(site.discover(stac={"catalog": "stac/catalog.json", **table}, **area or {}))

    assert ids(collections=["odd"]) == ["S2_3", "S2_1"]
    assert ids(bbox=[1.0, 40, 2.0, 60]) == ["S2_2", "S2_1"]
    assert ids(query={"cloud": {"lt": 20}}) == ["S2_1", "S2_0"]
    assert ids({"since": date(2020, 5, 2), "until": date(2020, 5, 3)}) == ["S2_2", "S2_1"]
    assert ids(most=2) == ["S2_4", "S2_3"]
    assert site.problems == ()
    assert ids(query={"cloud": {"less": 20}}) == []
    assert site.told == "stac.query has no operator cloud.less"


def test_an_asset_still_being_copied(site: Site) -> None:
    """Items on this disk settle as files do."""
    make_catalog(site, items=2)
    site.put("rasters/S2_1.tif", age=1.0)
    found = site.discover(stac={"catalog": "stac/catalog.json"})
    assert {key: scene.state for key, scene in found.items()} == {
        "S2_0": "ready", "S2_1": "copying",
    }  # fmt: skip
    known = site.discover(stac={"catalog": "stac/catalog.json"}, known=lambda *_: True)
    assert known["S2_1"].state == "ready"


def test_a_catalog_of_tilemap_is_input_only_if_it_is_named(site: Site) -> None:
    """Lying in a folder of scenes it is not."""
    own = item({"red": "r.tif"}, **{"processing:software": {"tilemap": "0.1.0"}})
    links = [{"rel": "item", "href": "./one.json"}]
    root = {"type": "Catalog", "stac_version": "1.1.0", "id": "r", "description": "d"}
    site.put("in/one.json", own)
    site.put("in/r.tif")
    site.put("in/catalog.json", json.dumps({**root, "links": links}).encode())
    assert list(site.discover("in/*.json")) == []
    assert list(site.discover(stac={"catalog": "in/catalog.json"})) == ["x"]


def test_what_cannot_be_read_is_counted_and_the_rest_goes_on(site: Site) -> None:
    """An item that is gone, one that is no JSON, a catalog that is gone."""
    make_catalog(site)
    (site.root / "stac/odd/S2_1/S2_1.json").unlink()
    site.put("stac/odd/S2_3/S2_3.json", b'{"type": "Fea')
    assert list(site.discover(stac={"catalog": "stac/catalog.json"})) == ["S2_4", "S2_2", "S2_0"]
    assert site.told.startswith("2 parts of the catalog cannot be read")
    assert site.discover(stac={"catalog": "gone/catalog.json"}) == {}
    assert site.told.endswith("gone/catalog.json cannot be read: No such file or directory")
    site.put("in/a.tif")
    assert list(site.discover("in", stac={"catalog": "gone/catalog.json"})) == ["a"]
    assert len(site.problems) == 1
    site.put("other.json", b"[]")
    site.discover(stac={"catalog": "other.json"})
    assert site.told.endswith("other.json must be a STAC catalog, collection or item")


def test_two_items_of_one_id(site: Site) -> None:
    """Both are scenes, and each says which it is by the hash of where it lies."""
    make_catalog(site, items=2)
    content = json.loads((site.root / "stac/odd/S2_1/S2_1.json").read_text())
    content["id"] = "S2_0"
    site.put("stac/odd/S2_1/S2_1.json", json.dumps(content).encode())
    both = site.discover(stac={"catalog": "stac/catalog.json"})
    assert len(both) == 2
    assert all(key.startswith("S2_0-") for key in both)
    odd = site.discover(stac={"catalog": "stac/catalog.json", "collections": ["odd"]})
    assert list(odd) == ["S2_0"]


def test_items_beside_scenes_of_folders_keep_apart(site: Site) -> None:
    """Folders come first, so their ids are plain."""
    make_catalog(site, items=1)
    found = site.discover("rasters", stac={"catalog": "stac/catalog.json"})
    assert [key.rpartition("-")[0] for key in found] == ["", "S2_0"]


@pytest.fixture
def host() -> Iterator[Host]:
    """A host without files."""
    with Host() as running:
        yield running


def publish(site: Site, host: Host) -> str:
    """The catalog at an address, its rasters relative to its items."""
    make_catalog(site)
    for path in (site.root / "stac").rglob("*.json"):
        content = json.loads(path.read_text())
        for asset in content.get("assets", {}).values():
            asset["href"] = f"./{Path(asset['href']).name}"
        host.files[f"/{path.relative_to(site.root).as_posix()}"] = json.dumps(content).encode()
    shutil.rmtree(site.root / "stac")
    return host.url("/stac/catalog.json")


def test_a_catalog_elsewhere(site: Site, host: Host) -> None:
    """Each file is asked for once; scenes are addresses, known by what their items say."""
    url = publish(site, host)
    found = site.discover(stac={"catalog": url}, remote={"allow_hosts": [host.site]})
    assert list(found) == ["S2_4", "S2_3", "S2_2", "S2_1", "S2_0"]
    assert site.problems == ()
    scene = found["S2_3"]
    assert scene.sources == (host.url("/stac/odd/S2_3/S2_3.json"),)
    assert scene.fingerprint == ({"name": host.url("/stac/odd/S2_3/S2_3.tif")},)
    assert (scene.state, scene.newest) == ("ready", None)
    asked = [one.path for one in host.asked]
    assert len(asked) == len(set(asked)) == 8


def test_a_host_that_is_not_listed_is_not_asked(site: Site, host: Host) -> None:
    """Neither first, nor by a link, nor by a redirect."""
    url = publish(site, host)
    assert site.discover(stac={"catalog": url}) == {}
    assert site.told == f"{host.site} may not be asked: remote.allow_hosts must list it"
    assert host.asked == []
    with Host() as other:
        content = json.loads(host.files["/stac/catalog.json"])
        content["links"].append({"rel": "item", "href": other.url("/x.json")})
        content["links"].append({"rel": "item", "href": host.url("/away.json")})
        content["links"].append({"rel": "item", "href": "file:///etc/passwd"})
        host.files["/stac/catalog.json"] = json.dumps(content).encode()
        moved = {"Location": other.url("/x.json")}
        host.before = lambda asked: (302, moved, b"") if asked.path == "/away.json" else None
        found = site.discover(stac={"catalog": url}, remote={"allow_hosts": [host.site]})
        assert len(found) == 5
        assert other.asked == []
    assert "2 parts of the catalog cannot be read" in site.told
    assert "1 catalog with a link that is not followed" in site.told
    assert "--allow-host" not in site.told


def test_an_item_elsewhere_names_no_file_of_this_disk(site: Site, host: Host) -> None:
    """Its assets are not looked at, wherever they point."""
    secret = site.put("secret.tif")
    host.files["/x.json"] = item({"red": secret.as_uri(), "nir": str(secret)})
    found = site.discover(
        stac={"catalog": host.url("/x.json")}, remote={"allow_hosts": [host.site]}
    )
    records = found["x"].fingerprint
    assert [set(record) for record in records] == [{"name"}, {"name"}]
    assert {record["name"] for record in records} == {secret.as_uri(), host.url(str(secret))}


def test_a_local_catalog_may_lead_to_a_listed_host(site: Site, host: Host) -> None:
    """And to no other."""
    host.files["/x.json"] = item({"red": "red.tif"})
    root = {"type": "Catalog", "stac_version": "1.1.0", "id": "r", "description": "d"}
    links = [{"rel": "item", "href": host.url("/x.json")}]
    site.put("c.json", json.dumps({**root, "links": links}).encode())
    allow = {"remote": {"allow_hosts": [host.site]}}
    assert list(site.discover(stac={"catalog": "c.json"}, **allow)) == ["x"]
    assert list(site.discover(stac={"catalog": "c.json"})) == []
    assert "remote.allow_hosts must list it" in site.told


def test_a_catalog_that_does_not_end(
    site: Site, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each catalog has another child: the time of the area ends it, and what was found stays."""
    monkeypatch.setattr("tilemap.nightly.discovery.asking.TOTAL_S", 0.5)
    one = json.loads(item({"red": "red.tif"}))

    def endless(asked: Any) -> Any:
        number = int(asked.path[1:].partition(".")[0])
        if number % 2:
            return ok(one)
        links = [
            {"rel": "item", "href": f"/{number + 1}.json"},
            {"rel": "child", "href": f"/{number + 2}.json"},
        ]
        return ok({"type": "Catalog", "id": "r", "links": links})

    host.before = endless
    found = site.discover(
        stac={"catalog": host.url("/0.json"), "most": 1}, remote={"allow_hosts": [host.site]}
    )
    assert len(found) == 1
    assert "not all could be read in 0.5 s" in site.told


def test_hosts_must_be_hosts(site: Site) -> None:
    """A mistake in the configuration is told in its own words."""
    site.discover(stac={"catalog": "c.json"}, remote={"allow_hosts": ["http://x/y"]})
    assert site.told.startswith("`allow_hosts` takes a host")


def test_an_asker_has_limits_of_its_own() -> None:
    """Fewer attempts than for a scene that is being read: there is another night."""
    asker = Asker(AllowList.of(["example.org"]))
    assert (asker.limits.attempts, asker.total_s) == (3, 600.0)


@pytest.mark.parametrize(
    ("box", "bbox", "fits"),
    [
        ([0, 0, 1, 1], (1, 1, 2, 2), True),
        ([0, 0, 1, 1], (1.1, 0, 2, 2), False),
        ([0, 0, 1, 1], (0, 1.1, 1, 2), False),
        ([0, 0, -5, 1, 1, 5], (0.5, 0.5, 2, 2), True),
        ([179, 0, -179, 1], (-180, 0, -179.5, 1), True),
        ([179, 0, -179, 1], (-178, 0, 178, 1), False),
        ([-179.8, 0, -179.5, 1], (179, 0, -179, 1), True),
        (None, (0, 0, 1, 1), False),
        (["x", 0, 1, 1], (0, 0, 1, 1), False),
        (None, None, True),
    ],
)
def test_boxes(box: Any, bbox: Any, fits: bool) -> None:
    """Touching counts, the date line too."""
    assert fits_bbox({"bbox": box}, bbox) is fits


def test_queries() -> None:
    """As the query extension has it; what is not there, or of another kind, does not fit."""
    one = {"properties": {"cloud": 10, "name": "S2A_x", "tags": ["a", "b"]}}
    for query, fits in [
        ({}, True),
        ({"cloud": {"gte": 10, "lte": 10, "gt": 9, "lt": 11, "eq": 10, "neq": 11}}, True),
        ({"cloud": {"gt": 10}}, False),
        ({"cloud": {"in": [1, 10]}, "name": {"startsWith": "S2", "endsWith": "x"}}, True),
        ({"tags": {"contains": "b"}}, True),
        ({"name": {"lt": 5}}, False),
        ({"cloud": {"startsWith": "1"}}, False),
        ({"missing": {"neq": 1}}, False),
    ]:
        assert fits_query(one, query) is fits, query
    assert unknown_operators({"a": {"eq": 1, "like": "x"}, "b": 3}) == ["b", "a.like"]
