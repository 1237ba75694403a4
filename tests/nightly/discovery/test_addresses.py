"""Scenes that are addresses, catalogs on S3, and what asks for both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import pytest

from tilemap.errors import SceneError, StoreError
from tilemap.nightly.discovery import asking
from tilemap.nightly.discovery.asking import Asker
from tilemap.stores.remote.address import Address, AllowList

from .conftest import Site
from .server import Host, ok
from .test_folders import item


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host; whoever asks it waits little."""
    limits = replace(asking.LIMITS, wait_s=0.01, longest_wait_s=0.02, silence_s=0.3, request_s=0.5)
    monkeypatch.setattr(asking, "LIMITS", limits)
    with Host() as running:
        yield running


def test_a_raster_at_an_address(site: Site, host: Host) -> None:
    """Known by size and ETag, of which one byte is fetched; a signature is no part of it."""
    host.files["/20200518/a.tif"] = b"first"
    allow = {"remote": {"allow_hosts": [host.site]}}
    first = site.discover(host.url("/20200518/a.tif?sig=1"), **allow)["a"]
    assert site.problems == ()
    assert first.sources == (host.url("/20200518/a.tif?sig=1"),)
    assert first.day == date(2020, 5, 18)
    record = dict(first.fingerprint[0])
    assert (record["name"], record["size"]) == (host.url("/20200518/a.tif"), 5)
    assert [asked.range for asked in host.asked] == [(0, 0)]
    again = site.discover(host.url("/20200518/a.tif?sig=2"), **allow)["a"]
    assert again.fingerprint == first.fingerprint
    host.files["/20200518/a.tif"] = b"other"
    changed = site.discover(host.url("/20200518/a.tif?sig=2"), **allow)["a"]
    assert changed.fingerprint != first.fingerprint


def test_an_item_at_an_address_beside_a_folder(site: Site, host: Host) -> None:
    """The second source, so its id carries a hash; with days asked for, it must be of one."""
    host.files["/a.json"] = item({"red": "red.tif"})
    host.files["/b.tif"] = b"x"
    site.put("in/a.tif")
    scenes = ["in", host.url("/a.json"), host.url("/b.tif")]
    allow = {"remote": {"allow_hosts": [host.site]}}
    found = site.discover(*scenes, **allow)
    assert [key.partition("-")[0] for key in found] == ["a", "a", "b"]
    assert [scene.day for scene in found.values()] == [None, date(2020, 5, 18), None]
    assert len(site.discover(*scenes, since=date(2020, 1, 1), **allow)) == 1
    assert site.told.count("must tell its day") == 2


def test_what_no_scene_is_at_an_address(site: Site, host: Host) -> None:
    """A catalog, an item without rasters, a wildcard, a host that is not listed: others go on."""
    host.files["/c.json"] = b'{"type": "Catalog"}'
    host.files["/i.json"] = item({})
    host.files["/a.tif"] = b"x"
    found = site.discover(
        host.url("/c.json"), host.url("/i.json"), host.url("/*.zip"), "https://example.org/a.tif",
        host.url("/gone.tif"), "ftp://example.org/a.tif", host.url("/a.tif"),
        remote={"allow_hosts": [host.site]},
    )  # fmt: skip
    assert [key.partition("-")[0] for key in found] == ["a"]
    expected = (
        "a catalog goes under stac", "is an item without an asset", "more than one scene is given",
        "example.org may not be asked", "no such file", "an address must begin with",
    )  # fmt: skip
    assert len(site.problems) == len(expected)
    for problem, text in zip(site.problems, expected, strict=True):
        assert text in problem.text


def asker(host: Host, total_s: float = 5.0, most: int = 1000) -> Asker:
    """One that may ask the host."""
    return Asker(AllowList.of([host.site]), asking.LIMITS, total_s, most)


def test_an_answer_that_drips_ends(host: Host) -> None:
    """Never silent for long, and never done: it is given up, three times."""
    host.search = lambda _: (200, {"X-Pause": "0.1"}, b"[" * 100)
    with pytest.raises(StoreError, match=r"bytes came in 0\.5 s, 3 times"):
        asker(host).post(Address.parse(host.url("/search")), b"{}")
    assert len(host.asked) == 3


def test_an_answer_that_is_cut_is_asked_for_again(host: Host) -> None:
    """Less came than was told; the next answer is whole."""
    answers = [(200, {"Content-Length": "50"}, b"{}"), ok({"a": 1})]
    host.search = lambda _: answers.pop(0)
    content = asker(host).post(Address.parse(host.url("/search")), b"{}")
    assert json.loads(content) == {"a": 1}


def test_an_answer_that_is_too_large_is_refused(host: Host) -> None:
    """Its length is not believed but counted."""
    host.search = lambda _: (200, {}, b"x" * 1001)
    with pytest.raises(SceneError, match="must be at most 1000 bytes"):
        asker(host).post(Address.parse(host.url("/search")), b"{}")
    host.search = lambda _: (200, {}, b"x" * 1000)
    assert len(asker(host).post(Address.parse(host.url("/search")), b"{}")) == 1000


def test_time_is_over_for_all_requests_together(host: Host) -> None:
    """Not for each of them."""
    with pytest.raises(StoreError, match="not all could be read in 0 s"):
        asker(host, total_s=0.0).get(Address.parse(host.url("/a")))
    assert host.asked == []


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """What speaks enough of S3 for a catalog to be read: objects by path, no signatures."""
    with Host() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url("").rstrip("/"))
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        running.before = lambda asked: (
            (200, {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2024 00:00:00 GMT"},
             running.files[asked.path])
            if asked.path in running.files
            else None
        )  # fmt: skip
        yield running


def test_a_catalog_on_s3(site: Site, bucket: Host) -> None:
    """Bucket and endpoint must both be listed."""
    pytest.importorskip("obstore")
    root = {"type": "Catalog", "stac_version": "1.1.0", "id": "r", "description": "d"}
    links = [{"rel": "item", "href": "./x/x.json"}]
    bucket.files["/scenes/stac/catalog.json"] = json.dumps({**root, "links": links}).encode()
    bucket.files["/scenes/stac/x/x.json"] = item({"red": "red.tif"})
    table = {"catalog": "s3://scenes/stac/catalog.json"}
    found = site.discover(stac=table, remote={"allow_hosts": ["s3://scenes", bucket.site]})
    assert site.problems == ()
    assert found["x"].sources == ("s3://scenes/stac/x/x.json",)
    assert found["x"].fingerprint == ({"name": "s3://scenes/stac/x/red.tif"},)
    number = len(bucket.asked)
    assert site.discover(stac=table, remote={"allow_hosts": [bucket.site]}) == {}
    assert site.told == "s3://scenes may not be asked: remote.allow_hosts must list it"
    assert site.discover(stac=table, remote={"allow_hosts": ["s3://scenes"]}) == {}
    assert "in `allow_hosts`" in site.told
    assert len(bucket.asked) == number
