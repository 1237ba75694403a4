"""Segment: standardise, round once, classify, keep core and frame."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox

from tilemap.errors import ModelError, SceneError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.probability import quantise
from tilemap.scene import Band, Scene
from tilemap.stages.segment import (
    NODATA,
    classify,
    measure_uncertainty,
    round_probability,
    segment_patch,
    standardise,
)
from tilemap.stores.predictions import frame_windows
from tilemap.testing import grids, load_toy, random_scene, toy_card


def _scene(bands: int, dtype: str = "uint16", scale: float = 1e-4, offset: float = 0.0) -> Scene:
    from affine import Affine

    geobox = GeoBox((9, 13), Affine(10, 0, 0, 0, -10, 0), "EPSG:32618")
    band = Band("red", dtype, scale=scale, offset=offset, scaled=True)
    return Scene(geobox, (band,) * bands, "memory")


def test_standardise_follows_its_formula() -> None:
    """(stored * scale + offset - mean) / std in float64, to float32's precision."""
    image = random_scene((9, 13), bands=3)
    scene = _scene(3, scale=2e-4, offset=-0.1)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    card = toy_card().model_copy(update={"mean": mean, "std": std})
    got = standardise(image, np.ones((9, 13), dtype=np.bool_), scene, card)
    broadcast = (slice(None), None, None)
    want = (image * 2e-4 - 0.1 - np.array(mean)[broadcast]) / np.array(std)[broadcast]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_standardise_leaves_stored_numbers_alone_if_the_model_takes_them() -> None:
    """A model of stored numbers sees them unscaled."""
    image = random_scene((9, 13), bands=3)
    card = toy_card().model_copy(update={"units": "stored"})
    got = standardise(image, np.ones((9, 13), dtype=np.bool_), _scene(3), card)
    np.testing.assert_array_equal(got, image.astype(np.float32))


def test_one_nan_does_not_spoil_a_tile() -> None:
    """What is not observed becomes 0, whatever it holds, and nothing else changes."""
    image = random_scene((9, 13), bands=3, dtype=np.float32)
    valid = np.ones((9, 13), dtype=np.bool_)
    clean = standardise(image, valid, _scene(3, "float32"), toy_card())
    image[1, 4, 5] = np.nan
    image[2, 0, 0] = np.inf
    valid[4, 5] = valid[0, 0] = False
    got = standardise(image, valid, _scene(3, "float32"), toy_card())
    assert np.isfinite(got).all()
    assert (got[:, ~valid] == 0).all()
    np.testing.assert_array_equal(got[:, valid], clean[:, valid])


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1.0), ("int16", 1e-4)])
def test_fill_that_nobody_declares_is_no_reflectance(dtype: str, scale: float) -> None:
    """One pixel of -9999 stops its tile, unless it is not observed, or the model takes anything."""
    image = (random_scene((9, 13), bands=3).astype(np.float32) / 1e4 / scale).astype(dtype)
    valid = np.ones((9, 13), dtype=np.bool_)
    scene, card = _scene(3, dtype, scale=scale), toy_card()
    standardise(image, valid, scene, card)
    image[1, 4, 5] = -9999
    if dtype == "float32":
        image[0, 0, 0], valid[0, 0] = np.nan, False
    with pytest.raises(SceneError, match="red of memory holds -9999; give the number"):
        standardise(image, valid, scene, card)
    standardise(image, valid, scene, card.model_copy(update={"units": "stored"}))
    valid[4, 5] = False
    standardise(image, valid, scene, card)


@given(hnp.arrays(np.float32, (5, 6, 7), elements=st.floats(0, 1, width=32)))
def test_classify_is_argmax_of_the_rounded_probabilities(raw: np.ndarray) -> None:
    """Bits compared as integers give numpy's argmax, first of equals, and its percent."""
    half = round_probability(raw)
    label, percent = classify(half)
    np.testing.assert_array_equal(label, half.astype(np.float64).argmax(axis=0))
    np.testing.assert_array_equal(percent, np.rint(half.max(axis=0).astype(np.float64) * 100))


def _entropy(probability: np.ndarray) -> np.ndarray:
    """Percent of the largest, float64."""
    p = probability.astype(np.float64)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.asarray(-100 * (p * logs).sum(axis=0) / np.log(len(p)))


def _margin(probability: np.ndarray) -> np.ndarray:
    """Percent, float64."""
    ordered = np.sort(probability.astype(np.float64), axis=0)
    return np.asarray(100 * (ordered[-1] - ordered[-2]))


@given(
    hnp.arrays(np.float32, (4, 6, 7), elements=st.floats(0, 1, width=32)),
    st.sampled_from([0.3, 1, 4, 30]),
)
def test_uncertainty_is_that_of_its_formula(raw: np.ndarray, power: float) -> None:
    """Entropy over log K and the gap of the two largest, in float64, rounded to percent."""
    raw = raw.astype(np.float64) ** power + 1e-12
    half = round_probability((raw / raw.sum(axis=0)).astype(np.float32))
    for measure, oracle in (("entropy", _entropy), ("margin", _margin)):
        got = measure_uncertainty(half, measure)  # type: ignore[arg-type]
        assert got.dtype == np.uint8
        want = np.minimum(oracle(half), 100)
        assert np.abs(got - want).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("classes", [2, 3, 5, 10, 21])
def test_certain_and_undecided_pixels_are_the_ends_of_the_scale(classes: int) -> None:
    """One class alone: entropy 0, margin 100; all equal: entropy 100, margin 0."""
    half = np.zeros((classes, 1, classes + 1), dtype=np.float16)
    for index in range(classes):
        half[index, 0, index] = 1
    half[:, 0, classes] = 1 / classes
    assert measure_uncertainty(half, "entropy").tolist() == [[0] * classes + [100]]
    assert measure_uncertainty(half, "margin").tolist() == [[100] * classes + [0]]


def test_uncertainty_is_kept_of_the_core_where_it_is_observed() -> None:
    """Of the same rounded probabilities as the label; without being asked nothing is."""
    grid = TileGrid((50, 60), core=32, halo=8, blend=4)
    model, tile = load_toy(toy_card(context=1)), Tile(0, 1)
    patch = grid.patch_window(tile)
    image = random_scene(patch.shape, bands=3, dtype=np.float32)
    valid = np.random.default_rng(0).random(patch.shape) > 0.2
    assert segment_patch(grid, tile, image, valid, model).uncertainty == {}
    kept = segment_patch(grid, tile, image, valid, model, ("margin", "entropy")).uncertainty
    half = model.predict(image).astype(np.float16)
    core = grid.core_window(tile).within(patch)
    for name, layer in kept.items():
        want = np.where(valid[core], measure_uncertainty(half[:, *core], name), NODATA)
        np.testing.assert_array_equal(layer, want)
    assert set(kept) == {"entropy", "margin"}


@pytest.mark.parametrize("torch_is_loaded", [True, False])
@pytest.mark.parametrize(
    ("close", "stored"), [(-0.0, 0.0), (-1e-9, 0.0), (-9e-4, 0.0), (1.0000001, 1.0), (1.0009, 1.0)]
)
def test_what_rounding_leaves_outside_is_clipped(
    monkeypatch: pytest.MonkeyPatch, close: float, stored: float, torch_is_loaded: bool
) -> None:
    """A hair outside 0..1 is 0 or 1, without a sign, and may be classified."""
    if not torch_is_loaded:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    raw = np.full((2, 3, 4), 0.25, dtype=np.float32)
    raw[1, 2, 3] = close
    half = round_probability(raw)
    assert half[1, 2, 3] == stored
    assert not np.signbit(half).any()
    label, confidence = classify(half)
    assert (label[2, 3], confidence[2, 3]) == ((1, 100) if stored else (0, 25))


@pytest.mark.parametrize("bad", [-2e-3, 1.002])
def test_more_than_rounding_is_refused(bad: float) -> None:
    """The tolerance is one step of float16, no more."""
    raw = np.full((2, 3, 4), 0.5, dtype=np.float32)
    raw[1, 2, 3] = bad
    with pytest.raises(ModelError, match="between 0 and 1"):
        round_probability(raw)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.25, 1.5])
def test_what_is_no_probability_is_refused(bad: float) -> None:
    """NaN, infinity and numbers outside 0..1 are an error that says what came."""
    raw = np.full((2, 3, 4), 0.5, dtype=np.float32)
    raw[1, 2, 3] = bad
    with pytest.raises(ModelError, match="between 0 and 1"):
        round_probability(raw)


@given(grids(longest=50))
def test_prediction_covers_core_and_frame(grid: TileGrid) -> None:
    """Labels are those of the patch's own probabilities; the frame holds them rounded."""
    model = load_toy(toy_card(context=1))
    tile = list(grid.tiles())[grid.size // 2]
    patch = grid.patch_window(tile)
    image = random_scene(patch.shape, bands=3, dtype=np.float32)
    valid = np.random.default_rng(0).random(patch.shape) > 0.2
    prediction = segment_patch(grid, tile, image, valid, model)
    half = model.predict(image).astype(np.float16)
    core = grid.core_window(tile).within(patch)
    want = np.where(valid[core], half[:, *core].argmax(axis=0), NODATA)
    np.testing.assert_array_equal(prediction.label, want)
    assert ((prediction.confidence == NODATA) == ~valid[core]).all()
    for side, window in frame_windows(grid, tile).items():
        np.testing.assert_array_equal(prediction.frame[side], half[:, *window.within(patch)])


def test_grid_of_one_tile_has_no_frame() -> None:
    """A tile without neighbours keeps no bands."""
    grid = TileGrid((20, 30), core=32, halo=4, blend=4)
    windows = frame_windows(grid, Tile(0, 0))
    assert all(window.size == 0 for window in windows.values())
    assert dataclasses.replace(grid, core=16, blend=4).size == 4


def test_probabilities_are_kept_of_the_core_where_it_is_observed() -> None:
    """The bytes of the rounded probabilities; 255 in every class where nothing was seen."""
    grid = TileGrid((40, 52), 16, 4, 2)
    tile = Tile(1, 1)
    image = random_scene((24, 24), bands=3, dtype=np.float32)
    valid = np.ones((24, 24), dtype=np.bool_)
    valid[6:9, 7:20] = False
    model = load_toy(toy_card(context=2))
    kept = segment_patch(grid, tile, image, valid, model, probabilities=True).quantised
    assert kept is not None
    assert kept.shape == (4, 16, 16)
    seen = valid[4:-4, 4:-4]
    assert (kept[:, ~seen] == NODATA).all()
    half = round_probability(model.predict(image, Window(4, 4, 20, 20)))
    assert np.array_equal(kept[:, seen], quantise(half)[:, seen])
    assert segment_patch(grid, tile, image, valid, model).quantised is None
