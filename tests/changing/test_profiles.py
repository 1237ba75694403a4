"""Rasters of a change run: written as they look, they open as they should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.changing.palette import code_of
from tilemap.changing.profiles import NO_DATE, QA_NAMES, change_profiles, class_values
from tilemap.comparison.outcome import NO_DATE as KERNEL_NO_DATE
from tilemap.comparison.qa import Qa
from tilemap.comparison.smoothed import MethodName
from tilemap.errors import UsageError
from tilemap.geometry import TileGrid
from tilemap.models.card import ClassInfo
from tilemap.stages.export import export_raster
from tilemap.stores.cog import RasterProfile, partial_path

SHAPE = (67, 41)
BOX = GeoBox(SHAPE, Affine(30, 0, 530000, 0, -30, 9080000), "EPSG:32718")
CLASSES = [
    ClassInfo(value=4, name="water", color="#2f6fb5"),
    ClassInfo(value=9, name="forest", color="#006400"),
    ClassInfo(value=2, name="built-up", color="#fa0000"),
]
DATES = ["1985-07-01", "2020-08-15"]
PROFILES = change_profiles(BOX, CLASSES, DATES, {"TILEMAP_MODEL": "toy"})


def pixels(look: RasterProfile) -> npt.NDArray[Any]:
    """Numbers the product may hold, nodata among them."""
    rng = np.random.default_rng(4)
    shape = SHAPE if look.count == 1 else (look.count, *SHAPE)
    choice = [*(look.names or range(1, 9)), look.nodata]
    return rng.choice(np.array(choice), size=shape).astype(look.dtype)


def test_names_of_the_products() -> None:
    """The map first, labels last, in the order of the dates."""
    assert list(PROFILES) == [
        "change", "p_change", "date", "n_valid", "n_changes", "qa",
        "labels_1985-07-01", "labels_2020-08-15",
    ]  # fmt: skip


def test_counts_of_a_long_series_are_no_nodata() -> None:
    """From 255 dates on a count may be 255, so it has 16 bits and another nodata."""
    days = [f"{1700 + n}-07-01" for n in range(255)]
    for name in ("n_valid", "n_changes"):
        short, long = (change_profiles(BOX, CLASSES, d)[name] for d in (days[:254], days))
        assert (short.dtype, short.nodata) == ("uint8", 255)
        assert (long.dtype, long.nodata) == ("uint16", 65535)


@pytest.mark.parametrize(
    ("method", "words"),
    [("hmm", "probability of a change, percent"), ("cvaps", "length of the longest change vector")],
)
def test_p_change_is_called_what_it_is(method: MethodName, words: str) -> None:
    """The length of a vector is not called a probability."""
    profile = change_profiles(BOX, CLASSES, DATES, method=method)["p_change"]
    assert profile.description.startswith(words)
    assert ("probability" in profile.description) == (method == "hmm")


@pytest.mark.parametrize("name", PROFILES)
def test_each_can_be_written(tmp_path: Path, name: str) -> None:
    """Exported, verified, and read back by rasterio alone."""
    look, path = PROFILES[name], tmp_path / f"{name}.tif"
    source = pixels(look)
    export_raster(
        lambda window: source[(..., *window.slices())],
        TileGrid(SHAPE, 32, 0, 0), look, path, tmp_path / "scratch",
    )  # fmt: skip
    with rasterio.open(partial_path(path)) as file:
        np.testing.assert_array_equal(file.read().reshape(source.shape), source)
        assert file.tags()["TILEMAP_MODEL"] == "toy"
        assert file.nodata == look.nodata
        assert all(file.descriptions)


def test_change_map_reads_as_words() -> None:
    """Names, colours and the classes' order stand in the file."""
    look = PROFILES["change"]
    code = code_of(1, 2, 3)
    assert look.all_tags[f"CLASS_{code}"] == "forest to built-up"
    assert json.loads(look.tags["TILEMAP_CLASSES"]) == ["water", "forest", "built-up"]
    assert look.colormap is not None
    assert look.colormap[0][3] == 0
    assert look.colormap[code][3] == 255
    assert len(set(look.palette or {})) == 9


def test_dates_are_whole_days() -> None:
    """Two bands of days; what the kernels write where there is none is nodata."""
    look = PROFILES["date"]
    assert (look.dtype, look.count, look.nodata) == ("int32", 2, KERNEL_NO_DATE)
    assert look.nodata == NO_DATE
    assert look.all_tags["EPOCH"] == "1970-01-01"


def test_every_bit_is_named() -> None:
    """A new bit needs a name."""
    assert set(QA_NAMES) == set(Qa)
    assert PROFILES["qa"].all_tags["BIT_5"] == QA_NAMES[Qa.PROVISIONAL]


def test_labels_have_the_numbers_of_the_classes() -> None:
    """Stored numbers as the class map has them, not indices; each date says which it is."""
    look = PROFILES["labels_2020-08-15"]
    assert look.all_tags["CLASS_9"] == "forest"
    assert look.all_tags["TILEMAP_DATE"] == "2020-08-15"
    assert look.palette == {4: (47, 111, 181), 9: (0, 100, 0), 2: (250, 0, 0)}
    table = class_values(CLASSES)
    assert table[np.array([0, 1, 2, 255])].tolist() == [4, 9, 2, 255]
    assert set(table[3:]) == {255}


def test_too_many_classes() -> None:
    """An error that says how many there may be."""
    many = [ClassInfo(value=n, name=str(n), color="#000000") for n in range(16)]
    with pytest.raises(UsageError, match="at most 15"):
        change_profiles(BOX, many, DATES)
