"""Names: ids that stay with their scenes, days, what is left out."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tilemap.nightly.discovery.naming import (
    LONGEST,
    RASTERS,
    day_in,
    is_left_out,
    kind_of,
    scene_id,
    sidecars,
    whole_name,
)
from tilemap.nightly.facts import CHANGE_ID
from tilemap.stores.opening import SUFFIXES

keys = st.one_of(
    st.text(min_size=1, max_size=130),
    st.lists(st.sampled_from(["a", "b", "2020-05-18", "x.y", "ü", " ", "-", "change"]), min_size=1)
    .map("/".join),
)  # fmt: skip


@given(st.sets(st.tuples(keys, st.sampled_from(["", "/data/b"])), max_size=8))
@example({("a/b", ""), ("a-b", ""), ("a b", ""), ("a/b", "/data/b")})
@example({("a" * 101, ""), ("a" * 100 + "b", "")})
def test_ids_are_short_plain_and_of_one_scene_each(names: set[tuple[str, str]]) -> None:
    """No two keys share an id, so none can pass from one to another, whatever else there is."""
    ids = [scene_id(key, source) for key, source in names]
    assert len(set(ids)) == len(ids)
    for one in ids:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", one)
        assert len(one) <= LONGEST
        assert one.lower() != CHANGE_ID


@given(keys)
def test_an_altered_id_is_no_plain_id_of_another(key: str) -> None:
    """What an altered name is called now cannot be what a file of that very name is called."""
    altered = scene_id(key, "/elsewhere")
    assert scene_id(altered) != altered


@pytest.mark.parametrize(
    "key", ["1985", "TERRA_MODIS_012010_NDVI_2013-09-14", "LC08_L2SP_224078_20200518_02_T1", "a.b"]
)
def test_a_plain_name_is_its_own_id(key: str) -> None:
    """Most scenes are called what their files are called."""
    assert scene_id(key) == key


@pytest.mark.parametrize(
    ("names", "day"),
    [
        (["S2_20200518T103021"], date(2020, 5, 18)),
        (["2013-09-14"], date(2013, 9, 14)),
        (["MOD13Q1.A2013.20130914"], date(2013, 9, 14)),
        (["south", "S2_20200518", "20190101"], date(2020, 5, 18)),
        (["1985"], date(1985, 7, 1)),
        (["1985", "20200518"], date(2020, 5, 18)),
        (["south", "2020"], None),
        (["20201399"], None),
        (["20210229"], None),
        ([], None),
    ],
)
def test_days(names: list[str], day: date | None) -> None:
    """A whole date, the nearest first; a year only of the scene's own name."""
    assert day_in(names) == day


@given(st.dates(date(1950, 1, 1), date(2099, 12, 31)), st.booleans())
def test_a_day_is_found_as_it_was_written(day: date, dashes: bool) -> None:
    """With and without dashes, at the end of any name."""
    text = day.isoformat() if dashes else day.strftime("%Y%m%d")
    assert day_in([f"L8_south_{text}_T1"]) == day


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("a.tif", False),
        ("a.tif.part", True),
        ("a.tif.PARTIAL", True),
        ("a.tif.crdownload", True),
        ("a.filepart", True),
        ("a.tmp.tif", True),
        ("a.tmpx.tif", False),
        (".a.tif", True),
        ("_a.tif", True),
    ],
)
def test_names_that_are_left_out(name: str, out: bool) -> None:
    """Hidden, kept apart, or not whole."""
    assert is_left_out(name) is out


def test_a_pattern_may_ask_for_hidden_names() -> None:
    """As a shell has it."""
    assert not is_left_out("_a.tif", "_*.tif")
    assert is_left_out(".a.tif", "_*.tif")


def test_only_rasters_and_items_are_scenes() -> None:
    """Sidecars, overviews and masks are none, a VRT only where it is wanted."""
    names = ("a.TIF", "a.tiff", "a.JP2", "a.json", "a.vrt", "a.tif.ovr", "a.tif.msk", "a.xml", "a")
    kinds = ["raster"] * 3 + ["item"] + [None] * 5
    assert [kind_of(name) for name in names] == kinds
    assert kind_of("a.vrt", vrt=True) == "raster"


def test_the_rasters_found_are_those_that_can_be_opened() -> None:
    """This package must not import what opens them, so it has a list of its own."""
    assert RASTERS == SUFFIXES


def test_partial_files_know_their_name() -> None:
    """As programs that copy write them, rsync among them."""
    assert whole_name("a.tif.filepart") == "a.tif"
    assert whole_name("a.part") == "a"
    assert whole_name(".a.tif.Xa3b9Q") == "a.tif"
    assert whole_name(".a.tif") is None


def test_sidecars_are_beside_their_raster() -> None:
    """None of them is the raster itself."""
    assert "a.b.tif.aux.xml" in sidecars("a.b.tif")
    assert "a.b.tfw" in sidecars("a.b.tif")
    assert not {"a.b.tif", "a.b"} & set(sidecars("a.b.tif"))
