"""Scenes that are still being copied are left for the next pass."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.nightly.discovery.listing import File
from tilemap.nightly.discovery.settling import moved, unsettled
from tilemap.nightly.facts import Found

from .conftest import NOW, Site
from .test_folders import item


@given(st.floats(-1e6, 1e6), st.floats(0, 1e5))
def test_a_file_is_settled_if_it_is_old_enough(age: float, settle: float) -> None:
    """Neither younger than ``settle`` nor of the future; half a microsecond either way aside."""
    file = File("/in/a.tif", 1, int((1e9 - age) * 1e9))
    age = 1e9 - file.mtime_ns / 1e9
    assert (unsettled([file], [], 1e9, settle) is None) == (age >= settle and age >= 0)


def test_a_young_file_waits_unless_an_earlier_pass_saw_the_same(site: Site) -> None:
    """What is known is asked with the id and the fingerprint that the scene has."""
    site.put("in/a_20200518.tif", b"12345", age=30.0)
    site.put("in/b.tif", age=121.0)
    asked: list[tuple[str, tuple[Mapping[str, Any], ...]]] = []

    def known(key: str, fingerprint: tuple[Mapping[str, Any], ...]) -> bool:
        asked.append((key, fingerprint))
        return len(asked) > 1

    found = site.discover("in", known=known)
    assert (found["a_20200518"].state, found["b"].state) == ("copying", "ready")
    assert found["a_20200518"].reason == "a_20200518.tif was modified 30 s ago, less than 120 s"
    assert found["b"].reason == ""
    record = {"name": "a_20200518.tif", "size": 5, "mtime_ns": int((NOW - 30) * 1e9)}
    assert asked == [("a_20200518", (record,))]
    assert found["a_20200518"].newest == NOW - 30
    assert site.discover("in", known=known)["a_20200518"].state == "ready"
    young = site.discover("in", nightly={"settle": "10s"})
    assert young["a_20200518"].state == "ready"


def test_a_clock_that_jumped_back(site: Site) -> None:
    """A file of the future waits, until a pass has seen it before."""
    site.put("in/a.tif", age=-7200.0)
    scene = site.discover("in")["a"]
    assert scene.state == "copying"
    assert "modified in the future (2023-11-15 00:13:20+00:00)" in scene.reason
    assert site.discover("in", known=lambda *_: True)["a"].state == "ready"


@pytest.mark.parametrize(
    "partial", ["a.tif.part", "a.tif.PARTIAL", "a.tif.crdownload", "a.part", ".a.tif.Xa3b9Q"]
)
def test_a_partial_file_beside_it(site: Site, partial: str) -> None:
    """As programs that copy leave it; of another name it is no matter."""
    site.put("in/a.tif")
    site.put("in/b.tif")
    site.put(f"in/{partial}", age=1e6)
    found = site.discover("in")
    assert (found["a"].state, found["b"].state) == ("copying", "ready")
    assert found["a"].reason == f"{partial} lies beside it and is not whole"
    assert site.discover("in", known=lambda *_: True)["a"].state == "ready"


def test_an_empty_file_waits_and_an_empty_sidecar_does_not(site: Site) -> None:
    """Once it has been seen empty it is ready, so that its error is told."""
    site.put("in/a.tif", b"")
    site.put("in/b.tif")
    site.put("in/b.tif.aux.xml", b"")
    found = site.discover("in")
    assert (found["a"].state, found["b"].state) == ("copying", "ready")
    assert found["a"].reason == "a.tif is empty"
    assert site.discover("in", known=lambda *_: True)["a"].state == "ready"


def test_a_folder_waits_for_any_of_its_files(site: Site) -> None:
    """A young one, and one of which nothing but a part is there."""
    site.put("in/s/a.tif")
    site.put("in/s/b.tif", age=1.0)
    site.put("in/t/a.tif")
    site.put("in/t/b.tif.part", age=1e6)
    found = site.discover("in")
    assert {key: scene.state for key, scene in found.items()} == {"s": "copying", "t": "copying"}
    assert found["s"].reason.startswith("b.tif was modified 1 s ago")


def test_an_item_waits_for_its_assets(site: Site) -> None:
    """One that is not there, one that is young."""
    site.put("in/s.json", item({"red": "red.tif", "nir": "nir.tif"}))
    site.put("in/red.tif")
    assert site.discover("in")["s"].reason == "nir.tif is not there yet"
    site.put("in/nir.tif", age=5.0)
    assert site.discover("in")["s"].reason.startswith("nir.tif was modified 5 s ago")
    site.put("in/nir.tif")
    assert site.discover("in")["s"].state == "ready"


def test_a_file_that_grows_while_it_is_looked_at(site: Site) -> None:
    """Its time is set back after each write, as a copy that keeps times may do."""
    site.put("in/b_young.tif", age=1.0)
    growing = site.put("in/a.tif")
    gone = site.put("in/c.tif")
    site.put("in/d.tif")

    def meanwhile(_id: str, _fingerprint: tuple[Mapping[str, Any], ...]) -> bool:
        before = growing.stat()
        with growing.open("ab") as file:
            file.write(b"more")
        os.utime(growing, ns=(before.st_atime_ns, before.st_mtime_ns))
        gone.unlink()
        return True

    found = site.discover("in", known=meanwhile)
    states = {key: scene.state for key, scene in found.items()}
    assert states == {"a": "copying", "b_young": "ready", "c": "copying", "d": "ready"}
    assert found["a"].reason == "a.tif has changed while it was looked at"
    assert found["c"].reason == "c.tif has gone while it was looked at"


def test_a_file_that_has_gone_since_it_was_listed_is_no_scene(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between listing and looking; the others are found."""
    from tilemap.nightly.discovery import looking

    site.put("in/a.tif")
    site.put("in/b.tif")
    look = looking.look
    monkeypatch.setattr(
        looking,
        "look",
        lambda path, entry=None: None if path.endswith("a.tif") else look(path, entry),
    )
    assert list(site.discover("in")) == ["b"]
    assert site.problems == ()


def test_moved_tells_the_first() -> None:
    """Nothing of files that are as they were."""
    one, two = File("/a", 1, 1), File("/b", 1, 1)
    assert moved([one, two], [one, two]) is None
    assert moved([one, two], [one, File("/b", 2, 1)]) == "b has changed while it was looked at"


@pytest.mark.parametrize("sidecar", ["a.tif.aux.xml", "a.tif.msk", "a.tfw", "a.TFW", "a.tifw"])
def test_sidecars_are_part_of_what_a_scene_is_known_by(site: Site, sidecar: str) -> None:
    """They change how it is read; overviews and styles do not."""
    site.put("in/a.tif")
    before = site.discover("in")["a"].fingerprint
    site.put(f"in/{sidecar}", b"1")
    site.put("in/a.tif.ovr")
    site.put("in/a.qml")
    after = site.discover("in")["a"].fingerprint
    assert {r["name"] for r in after} - {r["name"] for r in before} == {sidecar}
    assert [r["name"] for r in after] == sorted(r["name"] for r in after)


VRT = """<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1">
<SimpleSource><SourceFilename relativeToVRT="1">{file}</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand></VRTDataset>"""


def test_a_vrt_is_known_by_what_it_reads(site: Site) -> None:
    """By the file of a VRT within it too, and by what lies beside that."""
    site.put("away/a.tif")
    site.put("away/b.vrt", VRT.format(file="a.tif").encode())
    site.put("in/s.vrt", VRT.format(file="../away/b.vrt").encode())
    before = site.discover("in/*.vrt")["s"].fingerprint
    assert [r["name"] for r in before] == ["../away/a.tif", "../away/b.vrt", "s.vrt"]
    site.put("away/a.tif", b"other content")
    changed = site.discover("in/*.vrt")["s"].fingerprint
    assert changed != before
    site.put("away/a.tif.msk", b"1")
    assert site.discover("in/*.vrt")["s"].fingerprint != changed


def test_a_vrt_that_is_none_is_a_scene_all_the_same(site: Site) -> None:
    """It is refused when it is mapped, and tried again when it is another."""
    site.put("in/s.vrt", b"<VRTDataset")
    assert [r["name"] for r in site.discover("in/*.vrt")["s"].fingerprint] == ["s.vrt"]


@given(st.lists(st.sampled_from(["touch", "grow", "none"]), min_size=1, max_size=3))
def test_a_fingerprint_changes_if_and_only_if_a_file_does(
    tmp_path_factory: pytest.TempPathFactory, changes: list[str]
) -> None:
    """Size and time to the nanosecond, of each file of a folder."""
    site = Site(tmp_path_factory.mktemp("site"))
    paths = [site.put(f"in/s/{number}.tif") for number in range(len(changes))]
    before: Found = site.discover("in")["s"]
    for path, change in zip(paths, changes, strict=True):
        state = path.stat()
        path.write_bytes(path.read_bytes() + (b"x" if change == "grow" else b""))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + (change == "touch")))
    after = site.discover("in")["s"]
    assert (after.fingerprint == before.fingerprint) == (set(changes) == {"none"})


def test_a_sidecar_that_is_being_written_holds_its_scene_back() -> None:
    """It may be empty, but not younger than ``settle``."""
    scene = File("/in/a.tif", 1, int(5e8 * 1e9))
    old, young = (File("/in/a.tif.msk", 0, int(s * 1e9)) for s in (5e8, 1e9 - 3))
    assert unsettled([scene], [old], 1e9, 60) is None
    assert unsettled([scene], [old, young], 1e9, 60) == (
        "a.tif.msk was modified 3 s ago, less than 60 s"
    )
