"""What cannot be looked at, and addresses that lead nowhere; the example of the docs."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tilemap.errors import SceneError
from tilemap.nightly.config import parse_config
from tilemap.nightly.discovery import api, folders, looking
from tilemap.nightly.discovery.items import day_of_item, local_path, moment_of, parse_json

from .conftest import Site
from .server import Host, remote_item, serve_api
from .test_folders import item

DOCS = Path(__file__).parents[3] / "docs" / "discovery.md"


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("a.tif", "/in/a.tif"),
        ("../b/./a.tif", "/b/a.tif"),
        ("/data/../a b.tif", "/a b.tif"),
        ("file:///data/a%20b.tif", "/data/a b.tif"),
        ("file://localhost/a.tif", "/a.tif"),
        ("file://elsewhere/a.tif", None),
        ("/vsicurl/http://x/a.tif", None),
        ("https://example.org/a.tif", None),
        ("s3://bucket/a.tif", None),
        ("http://[broken/a.tif", None),
    ],
)
def test_where_the_assets_of_a_local_item_are(href: str, path: str | None) -> None:
    """On this disk, or not."""
    assert local_path(href, "/in") == path


def test_moments() -> None:
    """In UTC, with any offset; the begin where there is no moment."""
    assert day_of_item({"properties": {"datetime": "2020-05-18T23:30:00-02:00"}}) == (
        day_of_item({"properties": {"datetime": None, "start_datetime": "2020-05-19T00:00:00Z"}})
    )
    assert moment_of("2020-05-18T10:00:00") == moment_of("2020-05-18T10:00:00.000000Z")
    for odd in (None, 5, "yesterday", ""):
        assert moment_of(odd) is None
    assert day_of_item({"properties": {}}) is None


def test_json_that_is_none() -> None:
    """Broken, not text, nested without end."""
    for content in (b"{", b"\xff\xfe", b"[" * 100_000):
        with pytest.raises(SceneError, match=r"item\.json cannot be read as JSON: "):
            parse_json(content, "item.json")


def test_files_that_cannot_be_looked_at(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk is told, and others are found."""
    site.put("in/a.tif")
    site.put("in/b.tif")
    site.put("in/c.json", item({"red": "https://example.org/c.tif"}))
    look = looking.look

    def failing(path: str, entry: Any = None) -> Any:
        if path.endswith("a.tif"):
            raise OSError(5, "Input/output error", path)
        return look(path, entry)

    monkeypatch.setattr(looking, "look", failing)
    assert list(site.discover("in")) == ["b", "c"]
    assert site.told == (
        f"1 scene cannot be looked at; it is '{site.root}/in/a.tif': Input/output error"
    )
    monkeypatch.undo()

    def shut(path: str) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(folders, "read_file", shut)
    assert list(site.discover("in")) == ["a", "b"]
    assert site.told.endswith("c.json': Permission denied")
    monkeypatch.setattr(folders, "LARGEST", 10)
    assert list(site.discover("in")) == ["a", "b"]
    assert site.problems == ()


def test_a_base_that_cannot_be_looked_at(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not missing: shut, or a stale mount."""
    site.put("in/a.tif")
    stat = Path.stat

    def stale(path: Path, **given: Any) -> Any:
        if path.name == "stale":
            raise OSError(116, "Stale file handle", str(path))
        return stat(path, **given)

    monkeypatch.setattr(folders.Path, "stat", stale)
    assert list(site.discover("stale/*.tif", "in")) == [next(iter(site.discover("stale", "in")))]
    assert site.told.endswith("stale cannot be looked at: Stale file handle")


def test_a_catalog_with_links_to_anything(site: Site) -> None:
    """A page of text, another kind of JSON, links that are none: counted, the item is found."""
    links = [
        {"rel": "item", "href": "x.json"},
        {"rel": "item", "href": "geo.json"},
        {"rel": "child", "href": "list.json"},
        {"rel": "child"},
        {"rel": "item", "href": "s3://"},
        5,
    ]
    root = {"type": "Catalog", "stac_version": "1.1.0", "id": "r", "description": "d"}
    site.put("c.json", json.dumps({**root, "links": links}).encode())
    site.put("x.json", item({"red": "https://example.org/r.tif"}))
    site.put("geo.json", b'{"type": "FeatureCollection"}')
    site.put("list.json", b"[]")
    assert list(site.discover(stac={"catalog": "c.json"})) == ["x"]
    assert sorted(problem.text.partition(";")[0] for problem in site.problems) == [
        "1 catalog with a link that is not followed",
        "1 link to something that is no catalog and no item",
        "1 part of the catalog cannot be read",
    ]
    assert list(site.discover(stac={"catalog": "x.json"})) == ["x"]


def test_an_api_without_order_and_without_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than can be sorted here is told, not cut in silence."""
    monkeypatch.setattr(api, "MOST", 5)
    with Host() as host:
        items = [remote_item(number, host) for number in range(8)]
        serve_api(host, items, conforms=("https://api.stacspec.org/v1.0.0/item-search",))
        table = {"api": host.url("/"), "collections": ["s2"]}
        found = site.discover(stac=table, remote={"allow_hosts": [host.site]})
    assert len(found) == 5
    assert site.told.endswith("has more than 5 items of these")


def test_the_example_of_the_docs_is_a_configuration() -> None:
    """And says what the page says of it."""
    block = DOCS.read_text().partition("\n[[areas]]")[2].partition("\n```")[0]
    table = tomllib.loads(f'model = "m"\n[nightly]\nroot = "out"\n[[areas]]{block}')
    config = parse_config(table, Path("/work"))
    assert [area.name for area in config.areas] == ["coast", "delta"]
    assert config.areas[0].scenes[0] == "/data/coast"
    assert config.areas[1].stac is not None
    assert config.areas[1].stac.query == {"eo:cloud_cover": {"lt": 20}}
    assert config.remote.allow_hosts[1] == "*.blobs.example.org"
