"""Scenes in folders and by glob: which there are, and what they are called."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.nightly.discovery.candidates import Match, Matches, candidates
from tilemap.nightly.facts import Found

from .conftest import NOW, Site


def item(assets: dict[str, str], day: str | None = "2020-05-18T10:30:00Z", **more: Any) -> bytes:
    """A STAC item with these hrefs."""
    return json.dumps(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": "x",
            "geometry": None,
            "links": [],
            "properties": {"datetime": day, **more},
            "assets": {key: {"href": href} for key, href in assets.items()},
        }
    ).encode()


def test_a_folder_holds_rasters_items_and_folders_of_rasters(site: Site) -> None:
    """Nothing else in it is a scene, and nothing below a folder of a folder."""
    site.put("in/a_20200518.tif")
    site.put("in/B_20200519.JP2")
    site.put("in/c.json", item({"red": "https://example.org/c.tif?sig=1"}))
    site.put("in/LC08_20200520/B1.TIF")
    site.put("in/LC08_20200520/B2.TIF")
    site.put("in/LC08_20200520/MTL.txt")
    site.put("in/deep/deeper/d.tif")
    for name in ("e.vrt", "f.txt", "g.tif.ovr", "_h.tif", ".i.tif", "j.tif.part", "catalog.json"):
        site.put(f"in/{name}", b"{}")
    site.put("in/geo.json", b'{"type": "Feature", "geometry": null, "properties": {}}')
    (site.root / "in" / "k.tif").mkdir()
    found = site.discover("in")
    assert list(found) == ["B_20200519", "LC08_20200520", "a_20200518", "c"]
    assert [scene.day for scene in found.values()] == [
        date(2020, 5, 19), date(2020, 5, 20), date(2020, 5, 18), date(2020, 5, 18),
    ]  # fmt: skip
    assert found["LC08_20200520"].sources == (str(site.root / "in/LC08_20200520"),)
    assert [r["name"] for r in found["LC08_20200520"].fingerprint] == ["B1.TIF", "B2.TIF"]
    assert all(scene.state == "ready" and scene.area == "coast" for scene in found.values())
    assert site.problems == ()


def test_globs(site: Site) -> None:
    """Wildcards in any part, ``**`` for any depth, matches only; the rest of the path is fixed."""
    for name in ("2019/a.tif", "2020/a.tif", "2020/b.tif", "2020/x/c.tif", "2020/x/y/_z/d.tif"):
        site.put(f"in/{name}")

    def below(*globs: str) -> list[str]:
        found = [scene.sources[0] for scene in site.discover(*globs).values()]
        return sorted(str(Path(path).relative_to(site.root / "in")) for path in found)

    assert below("in/*/a.tif") == ["2019/a.tif", "2020/a.tif"]
    assert below("in/20[!12]*/?.tif") == []
    assert below("in/**/*.tif") == ["2019/a.tif", "2020/a.tif", "2020/b.tif", "2020/x/c.tif"]
    assert below("in/**") == ["2019/a.tif", "2020/a.tif", "2020/b.tif", "2020/x/c.tif"]
    assert below("in/**/**/c.tif") == ["2020/x/c.tif"]
    assert below("in/2020/x/y/_*/*.tif") == ["2020/x/y/_z/d.tif"]
    assert below("in/*/x") == ["2020/x"]
    assert below("in/2020/a.tif") == ["2020/a.tif"]
    assert below("in/20[!1]*/[ab].tif") == ["2020/a.tif", "2020/b.tif"]
    assert below("in/*/{a,b}.tif") == []


def test_brackets_may_belong_to_a_folder(site: Site) -> None:
    """A folder of that name is meant, where there is one."""
    site.put("in [old]/a.tif")
    assert list(site.discover("in [old]")) == ["a"]
    assert list(site.discover("in [old]/*.tif")) == ["a"]


def test_a_vrt_is_a_scene_where_a_glob_names_it(site: Site) -> None:
    """Never by lying in a folder."""
    site.put("in/a.vrt")
    assert list(site.discover("in")) == []
    assert list(site.discover("in/*.vrt")) == ["a"]
    assert list(site.discover("in/a.vrt")) == ["a"]


def test_ids_below_the_fixed_part(site: Site) -> None:
    """Plain where nothing had to be altered; a second source, with a hash of where it is."""
    site.put("in/a.tif")
    site.put("in/2020/a.tif")
    site.put("in/2020/change.tif")

    def ids(*globs: str) -> dict[str, str]:
        found = site.discover(*globs).values()
        return {str(Path(s.sources[0]).relative_to(site.root / "in")): s.id for s in found}

    first, second = ids("in/*.tif", "in/2020/*.tif"), ids("in/2020/*.tif", "in/*.tif")
    assert (first["a.tif"], second["2020/a.tif"]) == ("a", "a")
    assert first["2020/a.tif"].startswith("a-")
    assert second["a.tif"].startswith("a-")
    assert second["2020/change.tif"].startswith("change-")
    nested = site.discover("in/**/a.tif")
    assert sorted(key.rpartition("-")[0] or key for key in nested) == ["2020-a", "a"]


_parts = st.sampled_from(["a", "b", "a-b", "a b", "2020-05-18", "ä"])
_paths = st.builds(
    lambda folders, name, suffix: "/in/" + "/".join([*folders, name]) + suffix,
    st.lists(_parts, max_size=2), _parts, st.sampled_from([".tif", ".TIF", ".jp2"]),
)  # fmt: skip


@given(st.sets(_paths, max_size=12), st.sets(_paths, max_size=12))
def test_no_id_changes_or_moves_when_files_come_and_go(one: set[str], two: set[str]) -> None:
    """A file's id is the same whatever lies beside it, and no file ever has the id of another.

    But for the suffix: a scene that comes in another format is that scene.
    """

    def ids(paths: set[str]) -> dict[str, str]:
        matches = Matches("/in", rasters=[Match(path, "/in") for path in sorted(paths)])
        return {c.sources[0]: c.id for c in candidates(matches)[0]}

    first, second = ids(one), ids(two)
    for path, key in first.items():
        assert second.get(path, key) == key
        for other, same in second.items():
            assert (key == same) == (path.rpartition(".")[0] == other.rpartition(".")[0])


def test_one_scene_in_two_formats_is_mapped_once_and_told(site: Site) -> None:
    """The GeoTIFF is taken; that the other is left out is no secret."""
    site.put("in/a.jp2")
    before = site.discover("in")["a"]
    site.put("in/a.tif")
    after = site.discover("in")["a"]
    assert (Path(before.sources[0]).name, Path(after.sources[0]).name) == ("a.jp2", "a.tif")
    assert before.fingerprint != after.fingerprint
    assert len(site.problems) == 1
    assert "a.jp2" in site.told


def test_a_raster_belongs_to_the_item_that_names_it(site: Site) -> None:
    """It is no scene of its own, nor is its folder."""
    site.put("in/s.json", item({"red": "./s/red.tif", "nir": "s_nir.tif"}))
    site.put("in/s/red.tif")
    site.put("in/s_nir.tif")
    site.put("in/other.tif")
    found = site.discover("in")
    assert list(found) == ["other", "s"]
    names = [record["name"] for record in found["s"].fingerprint]
    assert names == ["s.json", "s/red.tif", "s_nir.tif"]
    assert site.problems == ()


def test_what_an_item_does_not_have_read_is_not_waited_for(site: Site) -> None:
    """Thumbnails and the like, and rasters elsewhere, which are known by what the item says."""
    content = json.loads(item({}, updated="2024-01-01T00:00:00Z"))
    content["assets"] = {
        "red": {"href": "https://example.org/r.tif?sig=abc#x", "file:size": 7, "roles": ["data"]},
        "small": {"href": "small.tif", "roles": ["overview"]},
        "text": {"href": "readme.txt"},
        "odd": {"href": "http://[broken/x.tif"},
        "none": {},
    }
    site.put("in/s.json", json.dumps(content).encode())
    scene = site.discover("in")["s"]
    assert scene.state == "ready"
    remote = {"name": "https://example.org/r.tif", "size": 7, "updated": "2024-01-01T00:00:00Z"}
    assert dict(scene.fingerprint[1]) == remote


def test_scene_pattern_groups_files(site: Site) -> None:
    """Across folders; those that do not fit are told once."""
    for band in ("B02", "B03"):
        site.put(f"in/{band}/T18SVG_20230601_{band}.jp2")
    site.put("in/B02/T18SVG_20230602_B02.jp2")
    site.put("in/B02/readme_1.tif")
    site.put("in/B02/readme_2.tif")
    found = site.discover("in/B02", "in/B03/*", scene_pattern=r"(?P<scene>T\w{5}_\d{8})_B\d\d")
    assert list(found) == ["T18SVG_20230601", "T18SVG_20230602"]
    scene = found["T18SVG_20230601"]
    assert [Path(source).name for source in scene.sources] == [
        "T18SVG_20230601_B02.jp2", "T18SVG_20230601_B03.jp2",
    ]  # fmt: skip
    assert [r["name"] for r in scene.fingerprint] == [
        "B02/T18SVG_20230601_B02.jp2", "B03/T18SVG_20230601_B03.jp2",
    ]  # fmt: skip
    assert scene.day == date(2023, 6, 1)
    assert len(site.problems) == 1
    assert site.told.startswith("2 files must match scene_pattern")


def test_since_and_until_leave_days_out(site: Site) -> None:
    """Both ends count; a scene without a day is told, and stays where neither is asked for."""
    for name in ("a_20200101.tif", "b_20200102.tif", "c_20200103.tif", "d.tif"):
        site.put(f"in/{name}")
    assert list(site.discover("in")) == ["a_20200101", "b_20200102", "c_20200103", "d"]
    assert site.problems == ()
    both = {"since": date(2020, 1, 2), "until": date(2020, 1, 2)}
    assert list(site.discover("in", **both)) == ["b_20200102"]
    assert site.told.startswith("1 scene must tell its day")
    assert list(site.discover("in", since=date(2020, 1, 2))) == ["b_20200102", "c_20200103"]
    assert list(site.discover("in", until=date(2020, 1, 2))) == ["a_20200101", "b_20200102"]


def test_products_of_tilemap_are_no_scenes_unless_named(site: Site) -> None:
    """The root, what is published, any folder of a run, and items that tilemap has written."""
    site.put("in/a.tif")
    site.put("in/out/products/coast/a/1/landcover.tif")
    site.put("in/public/coast/landcover.tif")
    site.put("in/run/run.json", b"{}")
    site.put("in/run/landcover.tif")
    own = item({"map": "landcover.tif"}, **{"processing:software": {"tilemap": "0.1.0"}})
    site.put("in/kept/product.json", own)
    site.put("in/kept/landcover.tif")
    where: dict[str, Any] = {"nightly": {"root": "in/out"}, "publish": {"to": "in/public"}}
    names = {Path(s.sources[0]).name for s in site.discover("in/**/*", **where).values()}
    assert names == {"a.tif", "landcover.tif"}
    assert list(site.discover("in/**/*.json", **where)) == []
    assert list(site.discover("in", **where)) == ["a", "kept"]
    assert list(site.discover("in/run/*.tif", **where)) == ["landcover"]
    assert list(site.discover("in/kept/product.json", **where)) == ["product"]


def test_links_are_followed_to_files_and_never_in_a_circle(site: Site) -> None:
    """Two links back to the top would be 2^40 folders; a link to nothing is told."""
    site.put("in/a.tif")
    site.put("far/b.tif")
    for name in ("one", "two"):
        (site.root / "in" / name).symlink_to(site.root / "in")
    (site.root / "in/b.tif").symlink_to(site.root / "far/b.tif")
    (site.root / "in/far").symlink_to(site.root / "far")
    (site.root / "in/self.tif").symlink_to(site.root / "in/self.tif")
    (site.root / "in/gone.tif").symlink_to(site.root / "gone.tif")
    assert list(site.discover("in/**/*.tif")) == ["a", "b"]
    assert site.told.startswith("2 links to no file")
    assert list(site.discover("in")) == ["a", "b", "far"]
    assert list(site.discover("in/*/*/*.tif")) == []


def test_a_folder_that_is_gone_is_a_problem_and_no_empty_folder(site: Site) -> None:
    """A mount that is gone; other sources of the area go on."""
    site.put("in/a.tif")
    assert list(site.discover("mnt/archive/*.tif", "in")) == [
        next(iter(site.discover("mnt", "in")))
    ]
    assert [problem.source for problem in site.problems] == [str(site.root / "mnt")]
    assert "is missing; is its volume mounted?" in site.told
    site.discover("in/nothing*.tif")
    assert site.problems == ()


def test_ids_stay_while_the_first_folder_is_gone(site: Site) -> None:
    """The second does not take its place, whatever of its path is left."""
    site.put("mnt/data/a.tif")
    site.put("mnt/a.tif")
    both = site.discover("mnt/data", "mnt/*.tif")
    (site.root / "mnt/data/a.tif").unlink()
    (site.root / "mnt/data").rmdir()
    left = site.discover("mnt/data", "mnt/*.tif")
    assert set(left) < set(both)
    assert "a" not in left


def test_a_source_that_is_no_scene_is_told(site: Site) -> None:
    """A text file named as a scene, and a file where a folder must be."""
    site.put("in/a.txt")
    site.discover("in/a.txt")
    assert "must be a folder or a scene: .tif, .tiff, .jp2, .vrt or a STAC item" in site.told
    site.discover("in/a.txt/*.tif")
    assert "a.txt must be a folder" in site.told


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_folder_that_cannot_be_listed_is_a_problem(site: Site) -> None:
    """What can be seen is found."""
    site.put("in/a.tif")
    shut = site.put("in/shut/b.tif").parent
    shut.chmod(0)
    try:
        assert list(site.discover("in/**/*.tif")) == ["a"]
    finally:
        shut.chmod(0o700)
    assert site.told == f"1 folder cannot be listed; it is {str(shut)!r}: Permission denied"


def test_a_folder_that_fails_to_be_listed_is_a_problem(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale mount, also to root."""
    site.put("in/a.tif")
    site.put("in/stale/b.tif")
    scandir = os.scandir

    def failing(path: str) -> Any:
        if str(path).endswith("stale"):
            raise OSError(116, "Stale file handle", path)
        return scandir(path)

    monkeypatch.setattr("tilemap.nightly.discovery.listing.os.scandir", failing)
    assert list(site.discover("in")) == ["a"]
    assert site.told.startswith("1 folder cannot be listed")
    assert site.told.endswith("stale': Stale file handle")


def test_a_name_that_is_no_text_is_told(site: Site) -> None:
    """Neither the ledger nor JSON can hold it."""
    site.put("in/a.tif")
    path = os.fsencode(site.root / "in") + b"/b\xff.tif"
    Path(os.fsdecode(path)).write_bytes(b"x")
    assert list(site.discover("in")) == ["a"]
    assert "must have a name that is UTF-8" in site.told
    site.told.encode()


@pytest.mark.parametrize("harm", ["two values", "half a file"])
def test_an_item_that_cannot_be_read_is_told(site: Site, harm: str) -> None:
    """It may be a scene; which one, nobody knows."""
    site.put("in/a.tif")
    content = item({"red": "https://example.org/c.tif"})
    two = content.replace(b'"href":', b'"href": "https://example.org/d.tif", "href":')
    site.put("in/b.json", two if harm == "two values" else content[: len(content) // 2])
    assert list(site.discover("in")) == ["a"]
    assert "1 file cannot be read as JSON" in site.told
    assert ("the key 'href' is there twice" in site.told) == (harm == "two values")


def test_real_folders(site: Site, data: Path) -> None:
    """Eight dates of Pucallpa, of which the year is known; twelve of Sinop, JPEG 2000."""
    now = {"now": max(p.stat().st_mtime for p in (data / "change").rglob("*")) + 3600}
    found: dict[str, Found] = site.discover(str(data / "change/pucallpa_landsat"), **now)
    assert list(found) == ["1985", "1990", "1995", "2000", "2005", "2010", "2015", "2020"]
    assert [scene.day for scene in found.values()] == [date(int(y), 7, 1) for y in found]
    assert all(scene.state == "ready" for scene in found.values())
    sinop = site.discover(str(data / "change/*modis*/*.jp2"), **now)
    days = sorted(scene.day for scene in sinop.values() if scene.day)
    assert len(days) == 12
    assert (days[0], days[-1]) == (date(2013, 9, 14), date(2014, 8, 29))
    assert list(site.discover(str(data / "change"), **now)) == [
        "pucallpa_landsat", "sinop_modis_ndvi",
    ]  # fmt: skip
    assert found["1985"].newest is not None
    assert found["1985"].newest < NOW * 2
