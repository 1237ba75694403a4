"""The catalog on disk: whole at any moment, untouched where nothing changed, read and checked."""

from __future__ import annotations

import errno
import json
import shutil
import warnings
from collections.abc import Callable
from datetime import date
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pystac
import pystac_client
import pytest
import rasterio
from pystac_client.warnings import PystacClientWarning

from tilemap.errors import BusyError, StoreError
from tilemap.stores import sidecars
from tilemap.stores.catalog import (
    CatalogFacts,
    CollectionFacts,
    Member,
    build_catalog,
    build_collection,
    member,
)
from tilemap.stores.catalog_check import check_tree
from tilemap.stores.catalog_tree import TreeChange, read_tree, write_tree
from tilemap.stores.landcover_item import landcover_item
from tilemap.stores.stac_item import write_item
from tilemap.stores.stac_links import moved_item

Validate = Callable[[dict[str, Any]], list[str]]
CATALOG = CatalogFacts("products", "Products", "All maps.")
FILES = ("landcover.tif", "confidence.tif", "entropy.tif", "run.json", "report.html")


def place(root: Path, mapped: Path, area: str, name: str, version: str = "v1") -> Member:
    """Put a finished product where the catalog expects it: complete, then named."""
    folder = root / area / name / version
    staged = root.parent / "staged"
    staged.mkdir()
    for file in FILES:
        shutil.copy(mapped / file, staged / file)
    day = date(2020, 5, int(version[1:]))
    sources = {"scene": str(mapped.parent / "S2A_20200518.tif")}
    item = landcover_item(staged, folder, day=day, sources=sources)
    one = member(item, f"{area}/{name}/{version}/item.json", f"{area}-{name}")
    write_item(staged / "item.json", one.item)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(folder)
    return one


def publish(root: Path, *members: Member, **more: Any) -> TreeChange:
    """The catalog of these items."""
    areas = sorted({one.href.split("/")[0] for one in members})
    collections = [
        build_collection(
            CollectionFacts(area, area.title(), f"Maps of {area}."),
            [one for one in members if one.href.startswith(f"{area}/")],
        )
        for area in areas
    ]
    return write_tree(root, build_catalog(CATALOG, collections), collections, **more)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where products lie."""
    return tmp_path / "products"


@pytest.fixture
def members(root: Path, mapped: Path) -> list[Member]:
    """Two items of one area, one of another."""
    return [
        place(root, mapped, "north", "one"),
        place(root, mapped, "north", "two"),
        place(root, mapped, "south", "one"),
    ]


def state(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file."""
    return {
        str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_written_read_and_whole(root: Path, members: list[Member], validate: Validate) -> None:
    """What is read back is what was given, valid file by file, and nothing is amiss."""
    done = publish(root, *members)
    assert [path.relative_to(root).as_posix() for path in done.written] == [
        "north/collection.json", "south/collection.json", "catalog.json",
    ]  # fmt: skip
    tree = read_tree(root)
    assert list(tree.collections) == ["north", "south"]
    assert [one.href for one in tree.items] == [one.href for one in members]
    assert [one.item for one in tree.items] == [one.item for one in members]
    files = [tree.catalog, *tree.collections.values(), *(dict(one.item) for one in tree.items)]
    assert [fault for value in files for fault in validate(value)] == []
    assert check_tree(root) == check_tree(root, checksums=True) == []


def test_nothing_new_touches_nothing(root: Path, members: list[Member]) -> None:
    """The same items, in another order: no file has another inode or time."""
    publish(root, *members)
    before = state(root)
    done = publish(root, *members[::-1])
    assert not done
    assert done == TreeChange()
    assert state(root) == before


def test_new_version_replaces_the_link(root: Path, mapped: Path, members: list[Member]) -> None:
    """One collection changes, the other and the catalog stay; the old folder may go then."""
    publish(root, *members)
    before = state(root)
    newer = place(root, mapped, "north", "one", "v2")
    done = publish(root, newer, *members[1:])
    assert done.written == (root / "north" / "collection.json",)
    after = state(root)
    assert after["catalog.json"] == before["catalog.json"]
    assert after["south/collection.json"] == before["south/collection.json"]
    hrefs = {one.item["id"]: one.href for one in read_tree(root).items}
    assert hrefs["north-one"] == "north/one/v2/item.json"
    assert check_tree(root) == ["north/one/v1/item.json is named by no collection"]
    shutil.rmtree(root / "north" / "one" / "v1")
    assert check_tree(root, checksums=True) == []


def test_collection_that_is_no_longer_named(root: Path, members: list[Member]) -> None:
    """It is removed after the catalog was replaced; products are never touched."""
    publish(root, *members)
    done = publish(root, *members[:2])
    assert done.written == (root / "catalog.json",)
    assert done.removed == (root / "south" / "collection.json",)
    assert (root / "south" / "one" / "v1" / "landcover.tif").is_file()
    assert check_tree(root) == ["south/one/v1/item.json is named by no collection"]
    shutil.rmtree(root / "south")
    (root / "south").mkdir()
    (root / "south" / "collection.json").write_text("{}")
    assert publish(root, *members[:2]).removed == (root / "south" / "collection.json",)
    assert not (root / "south").exists()


def test_empty_catalog(root: Path, validate: Validate) -> None:
    """A catalog of nothing is one; so is the first night."""
    assert publish(root).written == (root / "catalog.json",)
    assert check_tree(root) == []
    assert validate(read_tree(root).catalog) == []


def test_nothing_is_named_before_it_is_there(root: Path, members: list[Member]) -> None:
    """An item whose file is missing, or lies outside, or a catalog of others, publish nothing."""
    publish(root, *members)
    before = state(root)
    ghost = Member({**members[0].item, "id": "ghost"}, "north/ghost/v1/item.json")
    with pytest.raises(StoreError, match=r"ghost/v1/item\.json must be there before the catalog"):
        publish(root, ghost, *members)
    collection = build_collection(CollectionFacts("north", "North", "Maps."), members[:2])
    outside = {"rel": "item", "href": "../../outside.json"}
    with pytest.raises(StoreError, match="links of a catalog must stay in"):
        write_tree(
            root, build_catalog(CATALOG, [collection]),
            [{**collection, "links": [*collection["links"], outside]}],
        )  # fmt: skip
    with pytest.raises(StoreError, match="must name the collections that are given, it names none"):
        write_tree(root, build_catalog(CATALOG, []), [collection])
    assert state(root) == before


class Killed(BaseException):
    """Stands for a process that ends here."""


@pytest.mark.parametrize("step", range(7))
def test_whole_after_a_kill_at_any_moment(
    root: Path, mapped: Path, members: list[Member], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Every link leads to a whole file, before or after; the next pass ends in the same bytes."""
    publish(root, *members)
    newer = [
        place(root, mapped, "north", "one", "v2"),
        place(root, mapped, "east", "one"),
        members[1],
    ]  # a collection changes, one is new, one goes
    count = 0
    true_replace, true_unlink = Path.replace, Path.unlink

    def counted() -> None:
        nonlocal count
        count += 1
        if count > step:
            raise Killed

    def replace(self: Path, target: Path) -> Path:
        counted()
        return true_replace(self, target)

    def unlink(self: Path, missing_ok: bool = False) -> None:
        counted()
        true_unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        patch.setattr(Path, "unlink", unlink)
        try:
            publish(root, *newer)
            killed = False
        except Killed:
            killed = True
    assert killed == (step < 4)  # east, north, catalog, then south goes
    tree = read_tree(root)  # raises if a link leads nowhere
    assert {one.href.split("/")[0] for one in tree.items} in ({"north", "south"}, {"north", "east"})
    faults = check_tree(root, checksums=True)
    assert all("is named by no" in fault for fault in faults)
    publish(root, *newer)
    assert [one.href for one in read_tree(root).items] == [
        "east/one/v1/item.json", "north/two/v1/item.json", "north/one/v2/item.json",
    ]  # fmt: skip
    assert not [*root.rglob("*.partial")]
    assert not (root / "south" / "collection.json").exists()
    fresh = root.parent / "fresh"
    shutil.copytree(root, fresh)
    for path in [fresh / "catalog.json", *fresh.glob("*/collection.json")]:
        path.unlink()
    publish(fresh, *newer)
    for path in [root / "catalog.json", *root.glob("*/collection.json")]:
        assert (fresh / path.relative_to(root)).read_bytes() == path.read_bytes()


def test_full_disk(
    root: Path, mapped: Path, members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog stays what it was; the error says so; nothing half lies about."""
    publish(root, *members)
    before = read_tree(root)
    newer = place(root, mapped, "north", "one", "v2")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sidecars.os, "fsync", full)
        with pytest.raises(StoreError, match=r"cannot write .*collection\.json: No space left"):
            publish(root, newer, *members[1:])
    assert read_tree(root) == before
    assert not [*root.rglob("*.partial")]


def test_guard_keeps_others_from_publishing(
    root: Path, mapped: Path, members: list[Member]
) -> None:
    """It is asked before each change, and not where there is none."""
    asked: list[int] = []
    publish(root, *members, guard=lambda: asked.append(1))
    assert len(asked) == 3
    publish(root, *members, guard=lambda: asked.append(1))
    assert len(asked) == 3

    def lost() -> None:
        raise BusyError("the lock is lost")

    before = state(root)
    newer = place(root, mapped, "north", "one", "v2")
    with pytest.raises(BusyError):
        publish(root, newer, *members[1:], guard=lost)
    assert {k: v for k, v in state(root).items() if "/v2/" not in k} == before


def test_remains_of_a_kill_are_removed(root: Path, members: list[Member]) -> None:
    """A file that was being written goes with the next pass, also where nothing else changes."""
    publish(root, *members)
    for name in ("catalog.json.partial", "north/collection.json.partial"):
        (root / name).write_text("{")
    assert not publish(root, *members)
    assert not [*root.rglob("*.partial")]


def _rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def _spoil(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "longer":
        content += b"\0"
    else:
        content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda r: (r / "catalog.json").unlink(), "catalog.json is not there"),
        (lambda r: (r / "catalog.json").write_text("{"), "catalog.json: is not JSON"),
        (lambda r: (r / "catalog.json").write_text("[]"), "catalog.json must be a STAC Catalog"),
        (
            lambda r: (r / "south/collection.json").unlink(),
            "catalog.json names ./south/collection.json, which is not there",
        ),
        (
            lambda r: (r / "south/collection.json").write_text("{}"),
            "south/collection.json must be a STAC Collection with links, its type is None",
        ),
        (
            lambda r: shutil.rmtree(r / "north/two"),
            "north/collection.json names ./two/v1/item.json, which is not there",
        ),
        (
            lambda r: (r / "north/two/v1/confidence.tif").unlink(),
            "north/two/v1/item.json: its asset confidence is not there: ./confidence.tif",
        ),
        (
            lambda r: _spoil(r / "north/two/v1/confidence.tif", "longer"),
            "north/two/v1/confidence.tif must have ",
        ),
        (
            lambda r: _spoil(r / "north/two/v1/confidence.tif", "other"),
            "north/two/v1/confidence.tif is not the file that was published",
        ),
        (
            lambda r: _rewrite(r / "north/two/v1/item.json", lambda v: v.pop("collection")),
            "north/two/v1/item.json belongs to no collection, but north names it",
        ),
        (
            lambda r: _rewrite(r / "north/two/v1/item.json", lambda v: v.update(id="north-one")),
            "north/two/v1/item.json has the id north-one of north/one/v1/item.json",
        ),
        (
            lambda r: _rewrite(r / "north/two/v1/item.json", lambda v: v["links"].pop(0)),
            "north/two/v1/item.json: its link root must lead to catalog.json, it leads to nowhere",
        ),
        (
            lambda r: _rewrite(
                r / "catalog.json", lambda v: v["links"].append({"rel": "child", "href": "../x"})
            ),
            "catalog.json names ../x, which is not in the catalog",
        ),
        (
            lambda r: _rewrite(r / "catalog.json", lambda v: v["links"].append(v["links"][1])),
            "north/collection.json is named twice",
        ),
        (
            lambda r: _rewrite(
                r / "north/collection.json", lambda v: v["links"].append(v["links"][2])
            ),
            "north/one/v1/item.json is named twice",
        ),
        (
            lambda r: _rewrite(r / "north/collection.json", lambda v: v.update(id="other")),
            "north/collection.json has the id other, not that of its folder",
        ),
        (
            lambda r: _rewrite(
                r / "north/collection.json",
                lambda v: v.update(assets={"geoparquet-items": {"href": "./items.parquet"}}),
            ),
            "north/collection.json: its asset geoparquet-items is not there: ./items.parquet",
        ),
        (
            lambda r: shutil.copytree(r / "south", r / "west"),
            "west/collection.json is named by no catalog",
        ),
        (
            lambda r: shutil.copytree(r / "south/one/v1", r / "south/one/v2"),
            "south/one/v2/item.json is named by no collection",
        ),
        (
            lambda r: (r / "north/two/v1/item.json").write_bytes(b"\xff\xfe"),
            "north/two/v1/item.json: is not JSON",
        ),
    ],
    ids=lambda value: value.split("/")[-1][:40] if isinstance(value, str) else "",
)
def test_faults_are_told(
    root: Path, members: list[Member], spoil: Callable[[Path], object], fault: str
) -> None:
    """Each kind of damage has its line, with addresses from the root on; no other is invented."""
    publish(root, *members)
    spoil(root)
    faults = check_tree(root, checksums=True)
    assert any(fault in line for line in faults), faults
    assert all(str(root) not in line for line in faults)
    unnamed = [line for line in faults if "is named by no" in line]
    assert len(faults) - len(unnamed) <= 2


def test_checksums_only_when_asked(root: Path, members: list[Member]) -> None:
    """Sizes are free; digests mean reading everything."""
    publish(root, *members)
    _spoil(root / "north/two/v1/confidence.tif", "other")
    assert check_tree(root) == []
    assert len(check_tree(root, checksums=True)) == 1


def test_broken_tree_is_not_read(root: Path, members: list[Member]) -> None:
    """What a link leads to must be there, and of its kind, and inside."""
    with pytest.raises(StoreError, match=r"catalog\.json is not there"):
        read_tree(root.parent / "nowhere")
    publish(root, *members)
    (root / "south" / "collection.json").write_text('{"type": "Feature", "id": "a", "links": []}')
    with pytest.raises(StoreError, match="must be a STAC Collection with links, its type is Fea"):
        read_tree(root)
    _rewrite(root / "catalog.json", lambda v: v["links"].append({"rel": "child", "href": "/etc/x"}))
    shutil.copy(root / "north" / "collection.json", root / "south" / "collection.json")
    with pytest.raises(StoreError):
        read_tree(root)


def test_opened_by_pystac_wherever_it_lies(
    root: Path, members: list[Member], tmp_path: Path
) -> None:
    """Moved as a whole it walks, every link resolves, and GDAL opens every raster."""
    publish(root, *members)
    moved = tmp_path / "elsewhere" / "catalog"
    moved.parent.mkdir()
    root.rename(moved)
    catalog = pystac.Catalog.from_file(str(moved / "catalog.json"))
    children = {child.id: child for child in catalog.get_children()}
    assert list(children) == ["north", "south"]
    items = list(catalog.get_items(recursive=True))
    assert [item.id for item in items] == ["north-one", "north-two", "south-one"]
    for item in items:
        parent, collection = item.get_parent(), item.get_collection()
        assert parent is not None
        assert collection is not None
        assert parent.id == collection.id == item.collection_id
        assert item.get_root() is catalog
        for key in ("landcover", "confidence", "entropy"):
            with rasterio.open(item.assets[key].get_absolute_href()) as file:
                assert file.shape == (120, 150)
    for path in [
        moved / "catalog.json",
        *moved.rglob("collection.json"),
        *moved.rglob("item.json"),
    ]:
        value = json.loads(path.read_text())
        for link in value["links"]:
            if link["rel"] != "derived_from":
                assert (path.parent / link["href"]).resolve().is_file(), (path, link)


def test_opened_by_pystac_client(root: Path, members: list[Member]) -> None:
    """A client of APIs reads the static catalog too."""
    publish(root, *members)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PystacClientWarning)
        client = pystac_client.Client.open(str(root / "catalog.json"))
        areas = list(client.get_collections())
        items = [item for area in areas for item in area.get_items()]
    assert [area.id for area in areas] == ["north", "south"]
    assert [item.id for item in items] == ["north-one", "north-two", "south-one"]
    for item in items:
        assert Path(item.assets["landcover"].get_absolute_href() or "").is_file()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its parent's word)
        """Say nothing."""


def test_served_by_any_web_server(root: Path, members: list[Member]) -> None:
    """From a URL the same files walk as well: no address in them knows where they lie."""
    publish(root, *members)
    handler = partial(_Quiet, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            catalog = pystac.Catalog.from_file(f"{url}/catalog.json")
            items = list(catalog.get_items(recursive=True))
        finally:
            server.shutdown()
            thread.join()
    assert [item.assets["landcover"].get_absolute_href() for item in items] == [
        f"{url}/{one.href.removesuffix('item.json')}landcover.tif" for one in members
    ]


@pytest.mark.slow
def test_maps_and_changes_in_one_collection(
    root: Path, mapped: Path, compared: Path, members: list[Member], validate: Validate
) -> None:
    """The item of a real series joins, made of items of the same catalog; all is valid."""
    folder = root / "north" / "change" / "v1"
    shutil.copytree(compared, folder, ignore=shutil.ignore_patterns("stores"))
    item = moved_item(json.loads((compared / "item.json").read_text()), compared, folder)
    series = member(item, "north/change/v1/item.json", "north-change")
    write_item(folder / "item.json", series.item)
    publish(root, *members, series)
    tree = read_tree(root)
    collection = tree.collections["north"]
    assert validate(collection) == []
    assert validate(dict(series.item)) == []
    assert {"landcover", "change", "p_change"} <= collection["item_assets"].keys()
    assert not [key for key in collection["item_assets"] if key.startswith("labels_")]
    assert collection["extent"]["temporal"]["interval"] == [
        ["2020-05-01T00:00:00Z", "2021-05-18T23:59:59Z"]
    ]
    assert check_tree(root, checksums=True) == []
