"""A STAC API on loopback: pages, order, faults, and hosts that are not listed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from tilemap.nightly.discovery import asking
from tilemap.nightly.facts import Found

from .conftest import Site
from .server import ALL, CORE, Answer, Asked, Host, hang, ok, remote_item, serve_api


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host; whoever asks it waits little."""
    limits = replace(asking.LIMITS, wait_s=0.01, longest_wait_s=0.02, silence_s=0.2)
    monkeypatch.setattr(asking, "LIMITS", limits)
    with Host() as running:
        yield running


def discover(site: Site, host: Host, **table: Any) -> dict[str, Found]:
    """One look at the API."""
    area = {key: table.pop(key) for key in ("since", "until") if key in table}
    table = {"api": host.url("/"), "collections": ["s2"], **table}
    return site.discover(stac=table, remote={"allow_hosts": [host.site]}, **area)


@pytest.mark.parametrize("methods", [("GET", "POST"), ("GET",), ("POST",)])
def test_pages_are_followed(site: Site, host: Host, methods: tuple[str, ...]) -> None:
    """By POST where the API has it, else by GET; the newest first; each scene an address."""
    serve_api(host, [remote_item(number, host) for number in range(8)], methods=methods)
    found = discover(site, host)
    assert site.problems == ()
    assert list(found) == [f"S2_{number:04d}" for number in reversed(range(8))]
    searches = [one.method for one in host.asked if one.path.startswith("/search")]
    assert searches == ["POST" if "POST" in methods else "GET"] * 3
    scene = found["S2_0003"]
    assert scene.sources == (host.url("/collections/s2/items/S2_0003"),)
    assert scene.day == date(2024, 3, 4)
    assert scene.fingerprint == (
        {"name": "https://blobs.example.org/S2_0003/red.tif", "size": 103, "checksum": "1220aa"},
    )
    assert (scene.state, scene.newest) == ("ready", None)


def test_addresses_signed_anew_are_no_new_input(site: Site, host: Host) -> None:
    """Another query is the same file; another size, checksum or update is not."""
    items = [remote_item(0, host, updated="2024-04-01T00:00:00Z")]
    serve_api(host, items)
    first = discover(site, host)["S2_0000"]
    items[0] = remote_item(0, host, updated="2024-04-01T00:00:00Z")
    again = discover(site, host)["S2_0000"]
    assert again == first
    assert first.newest == 1711929600.0
    items[0] = remote_item(0, host, updated="2024-04-02T00:00:00Z")
    assert discover(site, host)["S2_0000"].fingerprint != first.fingerprint


def test_days_box_and_query_are_sent(site: Site, host: Host) -> None:
    """As the API takes them; both days count."""
    serve_api(host, [remote_item(number, host, cloud=number) for number in range(8)])
    found = discover(
        site, host, since=date(2024, 3, 3), until=date(2024, 3, 6), bbox=[9, 49, 12, 52],
        query={"cloud": {"lt": 5}},
    )  # fmt: skip
    assert list(found) == ["S2_0004", "S2_0003", "S2_0002"]
    body = host.asked[-1].body
    assert body["datetime"] == "2024-03-03T00:00:00Z/2024-03-06T23:59:59.999Z"
    assert body["bbox"] == [9, 49, 12, 52]
    assert body["query"] == {"cloud": {"lt": 5}}
    assert body["sortby"] == [{"field": "properties.datetime", "direction": "desc"}]
    discover(site, host, since=date(2024, 3, 3))
    assert host.asked[-1].body["datetime"] == "2024-03-03T00:00:00Z/.."


def test_the_newest_are_taken(site: Site, host: Host) -> None:
    """Of an API that sorts not more than needed is asked; of another one all."""
    items = [remote_item(number, host) for number in range(20)]
    serve_api(host, items)
    assert list(discover(site, host, most=2)) == ["S2_0019", "S2_0018"]
    assert len([one for one in host.asked if one.path == "/search"]) == 1
    assert site.problems == ()
    serve_api(host, items, conforms=ALL[:2])
    assert list(discover(site, host, most=2)) == ["S2_0019", "S2_0018"]
    assert "sortby" not in host.asked[-1].body


def test_most_that_nobody_asked_for_is_told(site: Site, host: Host) -> None:
    """A default must not hide scenes."""
    serve_api(host, [remote_item(number, host) for number in range(1002)], page=250)
    assert len(discover(site, host)) == 1000
    assert site.told == "more than 1000 items fit, the newest are taken; set most"


def test_a_query_is_kept_where_the_api_knows_none(site: Site, host: Host) -> None:
    """Such an API would send clouds and say nothing."""
    items = [remote_item(number, host, cloud=number) for number in range(6)]
    serve_api(host, items, conforms=(*ALL[:2], f"{CORE}/item-search#sort"))
    found = discover(site, host, query={"cloud": {"lt": 2}}, most=2)
    assert list(found) == ["S2_0001", "S2_0000"]
    assert "query" not in host.asked[-1].body


def test_items_of_several_collections(site: Site, host: Host) -> None:
    """The same item is one scene, of the first collection; another of its id is another scene."""
    both = [remote_item(0, host, "l2a"), remote_item(0, host, "s2"), remote_item(1, host, "l2a")]
    other = remote_item(1, host, "s2")
    other["assets"]["red"]["href"] = "https://blobs.example.org/other/red.tif"
    serve_api(host, [*both, other])
    found = discover(site, host, collections=["s2", "l2a"])
    plain = {key: scene.sources[0] for key, scene in found.items()}
    assert plain["S2_0000"] == host.url("/collections/s2/items/S2_0000")
    assert plain["S2_0001"] == host.url("/collections/s2/items/S2_0001")
    assert len(found) == 3
    alone = discover(site, host, collections=["s2"])
    assert set(alone) == {"S2_0000", "S2_0001"}


def test_a_fault_that_passes(site: Site, host: Host) -> None:
    """Two answers of 500, then the search goes on; twice in a page and in the root."""
    serve_api(host, [remote_item(number, host) for number in range(5)])
    left = {"/": 2, "/search": 2}

    def faults(asked: Asked) -> Answer | None:
        if left.get(asked.path, 0):
            left[asked.path] -= 1
            return 503, {"Retry-After": "0"}, b"later"
        return None

    host.before = faults
    assert len(discover(site, host)) == 5
    assert site.problems == ()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda: (500, {}, b"oops"), "the host answers 500, 3 times"),
        (lambda: hang(1.0), "timed out"),
        (lambda: (400, {}, b'{"description": "no such\ncollection"}'), "no such collection"),
        (lambda: (404, {}, b"gone"), "answers 404: gone"),
        (lambda: (307, {"Location": "/else"}, b""), "redirects a search"),
        (lambda: (200, {}, b"<html>"), "JSON"),
        (lambda: (200, {}, b"[1, 2]"), "cannot be understood"),
        (lambda: ok({"features": [1], "links": []}), "a page with nothing new on it"),
        (lambda: ok({"features": 5, "links": []}), "cannot be understood"),
    ],
)
def test_faults_become_problems(site: Site, host: Host, answer: Any, text: str) -> None:
    """Whatever it answers, folders of the area go on, and it ends."""
    serve_api(host, [remote_item(number, host) for number in range(5)])
    host.before = lambda asked: answer() if asked.path == "/search" else None
    site.put("in/a.tif")
    table = {"api": host.url("/"), "collections": ["s2"]}
    found = site.discover("in", stac=table, remote={"allow_hosts": [host.site]})
    assert list(found) == ["a"]
    assert text in site.told
    assert len([one for one in host.asked if one.path == "/search"]) <= 3


def test_a_page_that_fails_leaves_those_before(site: Site, host: Host) -> None:
    """What was found is mapped; that there is more is told."""
    serve_api(host, [remote_item(number, host) for number in range(6)])
    host.before = lambda asked: (
        (500, {}, b"") if asked.path == "/search" and "token" in asked.body else None
    )
    assert list(discover(site, host)) == ["S2_0005", "S2_0004", "S2_0003"]
    assert "the host answers 500, 3 times" in site.told


def test_a_page_that_comes_again_ends_the_search(site: Site, host: Host) -> None:
    """A next link that leads back."""
    serve_api(host, [])
    item = remote_item(0, host)
    link = {"rel": "next", "href": "/search", "method": "POST", "body": {}}
    host.search = lambda _: ok({"features": [item], "links": [link]})
    assert list(discover(site, host)) == ["S2_0000"]
    assert "a page with nothing new on it" in site.told
    assert len(host.asked) == 3


def test_other_hosts_are_not_asked(site: Site, host: Host) -> None:
    """Not the API itself, nor its search link, nor the next page, nor the items."""
    serve_api(host, [remote_item(number, host) for number in range(4)])
    table = {"api": host.url("/"), "collections": ["s2"]}
    assert site.discover(stac=table) == {}
    assert site.told == f"{host.site} may not be asked: remote.allow_hosts must list it"
    assert host.asked == []
    with Host() as other:
        item = remote_item(0, other)
        host.search = lambda _: ok({"features": [item], "links": []})
        assert discover(site, host) == {}
        assert site.told.startswith("1 item that may not be read")
        root = json.loads(host.files["/"])
        for link in root["links"]:
            if link["rel"] == "search":
                link["href"] = other.url("/search")
        host.files["/"] = json.dumps(root).encode()
        assert discover(site, host) == {}
        assert f"{other.site} may not be asked" in site.told
        assert other.asked == []


def test_an_api_that_cannot_be_searched(site: Site, host: Host) -> None:
    """A catalog is no API."""
    serve_api(host, [], conforms=(f"{CORE}/core",))
    assert discover(site, host) == {}
    assert "must be a STAC API with item search" in site.told


def test_items_that_are_none(site: Site, host: Host) -> None:
    """Without an address, without a raster, or no items at all: counted."""
    good, lost, bare = (remote_item(number, host) for number in range(3))
    lost["links"] = []
    bare["assets"] = {"data": {"href": "x.zarr"}}
    serve_api(host, [])
    features = [good, lost, bare, {"type": "Feature"}]
    host.search = lambda _: ok({"features": features, "links": []})
    assert list(discover(site, host)) == ["S2_0000"]
    assert sorted(problem.text.partition(";")[0] for problem in site.problems) == [
        "1 answer that is no STAC item",
        "1 item without an address of its own",
        "1 item without an asset that is .tif, .tiff or .jp2",
    ]


def test_without_pystac_client(site: Site, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other sources of the area go on; the extra is named."""
    monkeypatch.setitem(sys.modules, "pystac_client", None)
    monkeypatch.delitem(sys.modules, "tilemap.nightly.discovery.api", raising=False)
    site.put("in/a.tif")
    table = {"api": host.url("/"), "collections": ["s2"]}
    assert list(site.discover("in", stac=table, remote={"allow_hosts": [host.site]})) == ["a"]
    assert 'pip install "tilemap[stac]"' in site.told
