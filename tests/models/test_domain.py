"""The domain check: silent for the training's own pixels, one line for what lies outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from tilemap.api import demo_scene
from tilemap.errors import ModelError
from tilemap.models.card import QUANTILES, BandStatistics, ModelCard
from tilemap.models.domain import check_domain
from tilemap.testing import random_scene, toy_card


def card_for(pixels: np.ndarray, **fields: Any) -> ModelCard:
    """A card that was trained on these pixels, (band, n)."""
    statistics = tuple(
        BandStatistics(
            mean=float(plane.mean()),
            std=float(plane.std()),
            quantiles=tuple(np.quantile(plane, QUANTILES).tolist()),
        )
        for plane in pixels
    )
    bands = ("blue", "green", "red", "nir", "swir16", "swir22")[: len(pixels)]
    card = toy_card(bands=bands)
    return card.model_copy(update={"statistics": statistics, **fields})


def _pixels(bands: int = 3, seed: int = 0) -> np.ndarray:
    image: np.ndarray = random_scene((75, 110), bands, seed, np.float32)
    return image.reshape(bands, -1)


def test_the_trainings_own_pixels_are_inside() -> None:
    """Two in a hundred lie beyond its 1-99 % range by definition; the median is where it was."""
    report = check_domain(card_for(_pixels()), _pixels(), None)
    assert report is not None
    assert report.warnings == ()
    for band in report.bands:
        assert band.outside == pytest.approx(0.02, abs=0.002)
        assert band.distance == pytest.approx(0, abs=1e-6)
        assert band.scene == pytest.approx(band.training)


@given(st.floats(-3, 3), st.floats(0.2, 4), st.integers(0, 20))
def test_figures_are_those_of_their_formulas(shift: float, scale: float, seed: int) -> None:
    """Share outside and distance, against numpy on every pixel."""
    trained, sample = _pixels(2), (_pixels(2, seed) * scale + shift).astype(np.float32)
    report = check_domain(card_for(trained), sample, None)
    assert report is not None
    for index, band in enumerate(report.bands):
        q01, q25, q50, q75, q99 = np.quantile(trained[index], (0.01, 0.25, 0.5, 0.75, 0.99))
        outside = np.mean((sample[index] < q01) | (sample[index] > q99))
        assert band.outside == pytest.approx(outside, abs=1e-3)
        assert band.distance == pytest.approx(
            (np.median(sample[index]) - q50) / (q75 - q25), rel=1e-4, abs=1e-4
        )
    assert bool(report.warnings) == any(band.outside > 0.2 for band in report.bands)
    json.dumps(report.record(), allow_nan=False)


def test_one_line_names_the_farthest_bands() -> None:
    """At most three of them, whatever the number."""
    trained = _pixels(6)
    sample = trained.copy()
    sample[3] += 10
    report = check_domain(card_for(trained), sample, None)
    assert report is not None
    (line,) = report.warnings
    assert line.startswith("nir lies outside what toy-box was trained on (100 % of the pixels")
    report = check_domain(card_for(trained), trained * 10, None)
    assert report is not None
    (line,) = report.warnings
    assert "and 3 more lie outside" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("gsd", "says"),
    [
        (10.0, None), (6.7, None), (45.0, None), (None, None),
        (6.6, "pixels are 6.6 m, toy-box was trained on 10 to 30 m"),
        (46.0, "pixels are 46 m"),
    ],
)  # fmt: skip
def test_another_pixel_size_is_warned_of(gsd: float | None, says: str | None) -> None:
    """More than one and a half times beyond the training's, up or down."""
    card = card_for(_pixels(), gsd_m=(10.0, 30.0))
    report = check_domain(card, _pixels(), gsd)
    assert report is not None
    assert len(report.warnings) == (0 if says is None else 1)
    assert all(line.startswith(str(says)) for line in report.warnings)


def test_a_card_that_says_nothing_is_silent() -> None:
    """Neither statistics nor pixel size; or nothing to compare them with."""
    assert check_domain(toy_card(), _pixels(), 10.0) is None
    nothing = np.empty((3, 0), np.float32)
    assert check_domain(card_for(_pixels()), nothing, 10.0) is None
    report = check_domain(card_for(_pixels(), gsd_m=(10.0, 10.0)), nothing, 99.0)
    assert report is not None
    assert report.bands == ()
    assert report.warnings[0].startswith("pixels are 99 m, toy-box was trained on 10 m")


def test_a_constant_band_has_no_distance() -> None:
    """Without a spread there is no unit to measure in; the share still says it."""
    trained = _pixels()
    trained[1] = 0.5
    report = check_domain(card_for(trained), _pixels(), None)
    assert report is not None
    assert report.bands[1].distance is None
    assert report.bands[1].outside > 0.9


def test_another_number_of_bands_is_refused() -> None:
    """The caller picks the bands of the card."""
    with pytest.raises(ModelError, match=r"\(band, n\) with 3 bands, got \(2, 8250\)"):
        check_domain(card_for(_pixels()), _pixels(2), None)


def _virginia(data: Path) -> np.ndarray:
    with rasterio.open(data / "scenes" / "s2_l1c_va_eastern_shore_10m.tif") as file:
        stored = file.read()[:, ::3, ::3].reshape(4, -1)
    reflectance: np.ndarray = (stored * np.float32(1e-4)).astype(np.float32)
    return reflectance


def test_real_scenes_that_were_in_the_training_are_silent(data: Path) -> None:
    """Virginia itself, and the part of it that ships."""
    card = card_for(_virginia(data))
    with rasterio.open(demo_scene()[0]) as file:
        part = file.read()[:, ::2, ::2].reshape(4, -1) * np.float32(1e-4)
    for sample in (_virginia(data), part.astype(np.float32)):
        report = check_domain(card, sample, 10.0)
        assert report is not None
        assert max(band.outside for band in report.bands) < 0.05
        assert report.warnings == ()


@pytest.mark.parametrize("fault", ["x10", "x0.1", "offset", "landsat"])
def test_real_scenes_of_other_numbers_are_warned_of(data: Path, fault: str) -> None:
    """A scale ten times off, the offset of newer Sentinel-2 products left out, another sensor."""
    virginia = _virginia(data)[:3]
    with rasterio.open(data / "scenes" / "l8_l1tp_224078_20200518_b234.tif") as file:
        stored = file.read()[:, ::3, ::3].reshape(3, -1)
    landsat = (stored[:, (stored > 0).all(axis=0)] * 2e-5 - 0.1).astype(np.float32)
    scenes = {
        "x10": virginia * 10, "x0.1": virginia / 10, "offset": virginia + 0.1, "landsat": landsat
    }  # fmt: skip
    report = check_domain(card_for(virginia), scenes[fault], None)
    assert report is not None
    assert len(report.warnings) == 1
    assert all(band.outside > 0.3 for band in report.bands)
