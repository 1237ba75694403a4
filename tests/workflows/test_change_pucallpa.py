"""The script of Pucallpa: its rules and figures on small pictures, all of it on a toy river."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import rasterio
from affine import Affine

from tilemap.errors import ConfigError
from tilemap.models.networks import build
from tilemap.models.registry import resolve
from tilemap.training.config import load_config

SCRIPT = Path(__file__).parents[2] / "workflows" / "change_pucallpa.py"
STORED = {1: (5, 20, 20, 30), 2: (60, 180, 15, 22), 3: (150, 130, 115, 100), 4: (155, 150, 90, 75)}
"""Bands (SWIR1, nir, red, green) of water, vegetation, sand and town, as in the real one."""
SHAPE = (150, 213)
Array = npt.NDArray[Any]


@pytest.fixture
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("change_pucallpa", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def river(year: int) -> Array:
    """Classes of a year: the town grows, sand lies along the river, which moves once, at the top.

    Returns:
        uint8 (y, x).
    """
    age = (year - 1985) // 5
    row, col = np.indices(SHAPE)
    middle = 140 + 12 * np.sin(row / 25) + np.where((row < 75) & (age > 1), 14, 0)
    classes = np.full(SHAPE, 2, np.uint8)
    classes[np.abs(row - 70) + np.abs(col - 45) < 26 + 6 * age] = 4
    classes[np.abs(col - middle) < 10] = 3
    classes[np.abs(col - middle) < 6] = 1
    return classes


def picture(classes: Array, seed: int) -> Array:
    """Stored numbers of classes, with noise, uint8 (band, y, x)."""
    noise = np.random.default_rng(seed).normal(0, 3, (4, *classes.shape))
    bands = np.array([(0, 0, 0, 0), *STORED.values()], dtype=float)[classes]
    return np.asarray(np.clip(np.moveaxis(bands, -1, 0) + noise, 1, 255).astype(np.uint8))


def write_scene(path: Path, image: Array) -> None:
    """As the real ones are: no names of bands, degrees, nodata 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=SHAPE[0], width=SHAPE[1], dtype="uint8",
        crs="EPSG:4326", transform=Affine(0.0008, 0, -74.7, 0, -0.0008, -8.3), nodata=0,
        photometric="minisblack",
    ) as file:  # fmt: skip
        file.write(image)


def test_rules_find_what_is_there(script: ModuleType) -> None:
    """Nearly all pixels get their class; sand is no town; the unobserved stays unlabelled."""
    truth = river(1995)
    image = picture(truth, 1)
    image[:, 3:9, 20:50] = 0
    labels = script.weak_labels(image)
    seen = np.ones(SHAPE, dtype=bool)
    seen[3:9, 20:50] = False
    assert (labels[~seen] == 0).all()
    for value, least in {1: 0.95, 2: 0.98, 3: 0.8, 4: 0.85}.items():  # the town's rim is sparse
        both = (labels == value) & (truth == value) & seen
        either = ((labels == value) | (truth == value)) & seen
        assert both.sum() / either.sum() > least, value
    assert not (labels[truth == 3] == script.TOWN).any()


def test_a_picture_without_a_town_has_none(script: ModuleType) -> None:
    """Forest and river only; sand along the river does not become one either."""
    truth = np.where(river(1985) == 4, 2, river(1985))
    assert not (script.weak_labels(picture(truth, 2)) == script.TOWN).any()


def test_real_labels_are_of_the_right_order(script: ModuleType, data: Path) -> None:
    """Water near what an index alone gives; the town grows from 9 to 40 square kilometres."""
    shares = {}
    for year in (1985, 2020):
        with rasterio.open(data / "change" / "pucallpa_landsat" / f"{year}.tif") as file:
            labels = script.weak_labels(file.read())
        shares[year] = np.bincount(labels.ravel(), minlength=5) / labels.size
    assert shares[1985][script.WATER] == pytest.approx(0.057, abs=0.005)
    assert shares[2020][script.WATER] == pytest.approx(0.045, abs=0.005)
    km2 = np.prod(labels.shape) * 0.0892**2
    assert shares[1985][script.TOWN] * km2 == pytest.approx(9, abs=1)
    assert shares[2020][script.TOWN] * km2 == pytest.approx(40, abs=2)


@pytest.mark.parametrize(
    ("dates", "flickers", "water"),
    [
        ((2, 2, 2, 2, 2), False, 0),
        ((2, 2, 1, 1, 1), False, 1),
        ((1, 1, 1, 3, 3), False, -1),
        ((2, 1, 2, 2, 2), True, 0),
        ((1, 1, 2, 3, 1), True, 0),  # comes back after another
        ((2, 2, 2, 2, 1), False, 0),  # seen once only
        ((1, 3, 3, 3, 3), False, 0),
        ((2, 3, 1, 1, 1), False, 1),
        ((2, 2, 255, 2, 2), False, 0),  # not observed is no class
        ((255, 2, 1, 255, 1), False, 0),
        ((255, 1, 3, 1, 255), True, 0),
        ((1, 1, 255, 2, 2), False, 0),
    ],
)
def test_what_counts(
    script: ModuleType, dates: tuple[int, ...], flickers: bool, water: int
) -> None:
    """Coming back is flicker; once and for all is two dates or more on either side."""
    labels = np.full((5, 2, 3), 2, np.uint8)
    labels[:, 1, 2] = dates
    expected = np.zeros((2, 3))
    expected[1, 2] = 1
    np.testing.assert_array_equal(script.flickers(labels), expected * flickers)
    np.testing.assert_array_equal(script.water_moved(labels), expected * water)


def test_figures_compare_two_series(script: ModuleType) -> None:
    """By hand: of ten pixels two flicker, then one; of two that became water one is kept."""
    alone = np.full((4, 1, 10), 2, np.uint8)
    alone[1, 0, :2] = 3
    alone[2:, 0, 8:] = 1
    smoothed = alone.copy()
    smoothed[1, 0, 0] = 2
    smoothed[2:, 0, 9] = 2
    smoothed[1:, 0, 4] = 4
    assert script.compared(alone, smoothed) == [
        "pixels that change and come back: 20.00% date by date, 10.00% together, 2.0 times fewer",
        "water that came or went for good: 20.00%, 50.0% of it kept",
        "town: 0.00% of the scene at the first date, 10.00% at the last",
    ]


def test_figures_of_a_place_where_nothing_happens(script: ModuleType) -> None:
    """No share of nothing is told."""
    still = np.full((4, 3, 5), 2, np.uint8)
    flicker, water, _ = script.compared(still, still)
    assert flicker.endswith("0.00% date by date, 0.00% together, none")
    assert water.endswith("0.00%, nothing of it kept")


def test_the_configuration_is_of_this_script(script: ModuleType) -> None:
    """One scene per year with its bands and labels; the card will say that labels are weak."""
    config = load_config(script.CONFIG)
    assert [Path(scene.files[0]).stem for scene in config.scenes] == [str(y) for y in script.YEARS]
    folder = script.CONFIG.parent
    for scene, year in zip(config.scenes, script.YEARS, strict=True):
        assert Path(scene.files[0]) == folder / script.SCENES / f"{year}.tif"
        assert scene.bands == script.BANDS
        assert scene.labels == str(folder / "weak" / f"{year}.tif")
    values = {"water": script.WATER, "vegetation": script.VEGETATION}
    values |= {"bare ground": script.BARE, "built-up": script.TOWN}
    assert {c.name: c.value for c in config.classes} == values
    assert config.split.block == script.SPLIT.block
    assert "WEAK" in config.description
    build(config.model.architecture, 4, 4)


def test_a_folder_that_is_not_there_leaves_nothing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The data are looked for before anything is made."""
    monkeypatch.setattr(script, "OUT", tmp_path / "out")
    with pytest.raises(ConfigError, match="the images must be in"):
        script.main(tmp_path / "none")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_river_that_moves_and_a_town_that_grows(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """From four pictures to from-to polygons with dates; the second run has nothing to do."""
    years = range(1985, 2001, 5)
    for year in years:
        path = tmp_path / "in" / "change" / "pucallpa_landsat" / f"{year}.tif"
        write_scene(path, picture(river(year), year))
    text = script.CONFIG.read_text()
    scenes = text.split("[[scenes]]")
    text = "[[scenes]]".join([*scenes[:5], scenes[-1][scenes[-1].index("[[classes]]") :]])
    text = text.replace("[[scenes]][[classes]]", "[[classes]]")
    for key, value in (("steps", 100), ("validate_every", 50), ("crop", 32), ("batch", 4)):
        text = re.sub(rf"(?m)^{key} = \S+", f"{key} = {value}", text)
    (tmp_path / "small.toml").write_text(text)
    monkeypatch.setattr(script, "CONFIG", tmp_path / "small.toml")
    monkeypatch.setattr(script, "OUT", tmp_path / "out")
    monkeypatch.setattr(script, "YEARS", years)
    monkeypatch.setattr(script, "THREADS", 1)
    monkeypatch.setattr(script, "WORKERS", 1)
    assert script.main(tmp_path / "in") == 0
    said = capsys.readouterr().out
    assert "wrote" in said
    assert "vegetation to built-up" in said
    kept = re.search(r"for good: (\S+)%, (\S+)% of it kept", said)
    assert kept is not None
    assert float(kept[1]) > 1
    assert float(kept[2]) > 75  # a model of 100 steps wavers along the shore
    card = resolve(tmp_path / "out" / "training" / "model").card
    assert "WEAK" in card.description
    meta, _, _, fields = pyogrio.raw.read(tmp_path / "out" / "hmm" / "changes.gpkg")
    columns = dict(zip(meta["fields"], fields, strict=True))
    pairs = set(zip(columns["from"], columns["to"], strict=True))
    assert {("vegetation", "built-up"), ("vegetation", "water"), ("water", "vegetation")} <= pairs
    assert {str(day)[:10] for day in columns["date"]} <= {f"{year}-07-01" for year in years[1:]}
    record = json.loads((tmp_path / "out" / "hmm" / "run.json").read_text())
    assert record["status"] == "ok"
    script.main(tmp_path / "in")
    assert capsys.readouterr().out == said
