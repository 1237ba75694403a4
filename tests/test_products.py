"""What a run will write is tried before it begins."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.changing.profiles import change_profiles
from tilemap.errors import SceneError
from tilemap.models.card import ClassInfo
from tilemap.products import make_profiles, rehearse
from tilemap.stores.cog import RasterProfile
from tilemap.stores.maps import Seam
from tilemap.testing import toy_card

GEOBOX = GeoBox((1003, 7), Affine(10, 0, 500_000, 0, -10, 9_000_000), "EPSG:32718")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go in these tests."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_can_be_written_leaves_nothing(scratch: Path) -> None:
    """All rasters of both kinds of run, far larger than what is tried."""
    card = toy_card()
    rehearse(make_profiles(GEOBOX, card, Seam(), 8, ("entropy", "margin")).values())
    rehearse(change_profiles(GEOBOX, card.classes, ["2020-01-01"]).values())
    rehearse([RasterProfile(GeoBox((1, 1), Affine.identity(), None))])
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a\x01"])
@pytest.mark.parametrize("kind", ["tag", "name"])
def test_what_would_be_read_back_otherwise_is_refused(scratch: Path, name: str, kind: str) -> None:
    """A tag or a class that the file does not give back as it was."""
    odd = ClassInfo.model_construct(value=1, name=name, color="#000000")
    card = toy_card()
    profile = make_profiles(
        GEOBOX, card.model_copy(update={"classes": (odd, *card.classes[1:])}), Seam(), 8, ()
    )["landcover"]
    if kind == "tag":
        profile = replace(profile, names=None, tags={"NOTE": name})
    with pytest.raises(SceneError, match="products of this run cannot be written"):
        rehearse([profile])
    assert list(scratch.iterdir()) == []
