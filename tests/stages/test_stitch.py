"""Stitch: tiled equals whole for a finite context, and the cut leaves no trace."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilemap.errors import GridError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.models.protocol import Model
from tilemap.stages.segment import NODATA, classify, measure_uncertainty, segment_patch
from tilemap.stages.stitch import (
    StitchedCore,
    blend_window,
    needed_bands,
    nothing_observed,
    stitch_core,
    strips,
)
from tilemap.stages.tile import reflect_index
from tilemap.stores.maps import Seam
from tilemap.stores.predictions import UNCERTAINTIES, Prediction, frame_windows
from tilemap.testing import grids, load_toy, random_scene, toy_card

Array = npt.NDArray[np.generic]


def _patch(image: Array, window: Window) -> Array:
    rows = reflect_index(window.top, window.bottom, image.shape[-2])
    cols = reflect_index(window.left, window.right, image.shape[-1])
    return image[..., rows[:, None], cols[None, :]]


def _predict(grid: TileGrid, image: Array, valid: Array, model: Model) -> dict[Tile, Prediction]:
    return {
        tile: segment_patch(
            grid,
            tile,
            _patch(image, grid.patch_window(tile)),
            _patch(valid, grid.patch_window(tile)),
            model,
            UNCERTAINTIES,
        )
        for tile in grid.tiles()
    }


def _stitch(
    grid: TileGrid, predictions: dict[Tile, Prediction], tile: Tile, values: tuple[int, ...]
) -> StitchedCore:
    frames: dict[Tile, dict] = {}
    for neighbour, side in needed_bands(grid, tile):
        if neighbour in predictions:
            frames.setdefault(neighbour, {})[side] = predictions[neighbour].frame[side]
    own = predictions[tile]
    core = own.label, own.confidence
    return stitch_core(grid, tile, core, frames, values, own.uncertainty)


def _tiled(grid: TileGrid, image: Array, valid: Array, model: Model) -> tuple[Array, Array, Seam]:
    predictions = _predict(grid, image, valid, model)
    values = tuple(c.value for c in model.card.classes)
    label = np.zeros(grid.scene, dtype=np.uint8)
    confidence = np.zeros(grid.scene, dtype=np.uint8)
    seam = Seam()
    for tile in grid.tiles():
        core = _stitch(grid, predictions, tile, values)
        place = grid.core_window(tile).slices()
        label[place], confidence[place] = core.landcover, core.confidence
        seam += core.stats.seam
    return label, confidence, seam


def _whole(image: Array, valid: Array, model: Model, pad: int = 40) -> tuple[Array, Array]:
    """One forward of the whole scene, padded by the same reflection."""
    window = Window(0, 0, *image.shape[1:]).grow(pad)
    half = model.predict(_patch(image, window))[:, pad:-pad, pad:-pad].astype(np.float16)
    label, confidence = classify(np.ascontiguousarray(half))
    values = np.array([c.value for c in model.card.classes], dtype=np.uint8)
    label = values[label]
    label[~valid] = confidence[~valid] = NODATA
    return label, confidence


@settings(max_examples=60)
@given(grids(longest=60), st.integers(0, 4), st.integers(0, 3))
def test_tiled_equals_whole_if_the_halo_is_enough(grid: TileGrid, context: int, seed: int) -> None:
    """Labels and confidence, bit for bit, wherever halo >= blend + context."""
    if grid.halo < grid.blend + context:
        grid = TileGrid(
            grid.scene, grid.core, -(-(grid.blend + context) // grid.stride) * grid.stride,
            grid.blend, grid.stride, grid.fixed,
        )  # fmt: skip
    model = load_toy(toy_card(context=context, seed=seed))
    image = random_scene(grid.scene, bands=3, seed=seed, dtype=np.float32)
    valid = np.random.default_rng(seed).random(grid.scene) > 0.1
    label, confidence, seam = _tiled(grid, image, valid, model)
    want_label, want_confidence = _whole(image, valid, model)
    np.testing.assert_array_equal(label, want_label)
    np.testing.assert_array_equal(confidence, want_confidence)
    assert seam.differ == 0
    assert seam.largest == 0


def test_too_small_a_halo_leaves_seams_and_they_are_measured() -> None:
    """The test above can fail: with halo below blend + context the maps differ."""
    model = load_toy(toy_card(context=6))
    image = random_scene((70, 95), bands=3, dtype=np.float32)
    valid = np.ones((70, 95), dtype=np.bool_)
    label, confidence, seam = _tiled(TileGrid((70, 95), 20, 4, 4), image, valid, model)
    want_label, want_confidence = _whole(image, valid, model)
    assert (confidence != want_confidence).any()
    assert seam.pixels > 0
    assert seam.largest > 0.001
    assert (label != want_label).any()


def test_blending_narrows_the_step_at_a_border() -> None:
    """With an unbounded context a ramp makes a smaller step at the core border than a hard cut."""
    model = load_toy(toy_card("pool", context=1))
    image = random_scene((64, 64), bands=3, dtype=np.float32)
    valid = np.ones((64, 64), dtype=np.bool_)

    def step(blend: int) -> float:
        grid = TileGrid((64, 64), 32, 8, blend)
        predictions = _predict(grid, image, valid, model)
        if blend == 0:
            sides = [predictions[Tile(0, col)] for col in (0, 1)]
            left, right = (p.confidence.astype(float) for p in sides)
            return float(np.abs(left[:, -1] - right[:, 0]).mean())
        frames = {tile: p.frame for tile, p in predictions.items()}
        window = Window(0, 31, 24, 33)
        blended = blend_window(grid, window, frames, 4).astype(float)
        return float(np.abs(np.diff(blended.max(axis=0) * 100, axis=1)).mean())

    assert step(8) < step(0)


@settings(max_examples=40)
@given(grids(longest=60), st.integers(0, 3), st.integers(0, 3))
def test_uncertainty_does_not_depend_on_the_cut(grid: TileGrid, context: int, seed: int) -> None:
    """Every layer is that of one forward of the whole scene, bit for bit, if the halo is enough."""
    halo = -(-(grid.blend + context) // grid.stride) * grid.stride
    grid = TileGrid(
        grid.scene, grid.core, max(halo, grid.halo), grid.blend, grid.stride, grid.fixed
    )
    model = load_toy(toy_card(context=context, seed=seed))
    image = random_scene(grid.scene, bands=3, seed=seed, dtype=np.float32)
    valid = np.random.default_rng(seed).random(grid.scene) > 0.1
    window, pad = Window(0, 0, *grid.scene).grow(40), 40
    half = model.predict(_patch(image, window))[:, pad:-pad, pad:-pad].astype(np.float16)
    predictions = _predict(grid, image, valid, model)
    values = tuple(c.value for c in model.card.classes)
    cores = {tile: _stitch(grid, predictions, tile, values) for tile in grid.tiles()}
    for name in UNCERTAINTIES:
        want = np.where(valid, measure_uncertainty(np.ascontiguousarray(half), name), NODATA)
        got = np.zeros(grid.scene, dtype=np.uint8)
        for tile, core in cores.items():
            got[grid.core_window(tile).slices()] = core.layers[name]
        np.testing.assert_array_equal(got, want)


@given(grids(longest=50))
def test_bands_that_are_needed_are_enough(grid: TileGrid) -> None:
    """Every strip of a core is covered, with weights that sum to 1."""
    for tile in grid.tiles():
        ones = {
            neighbour: {
                side: np.ones((1, *window.shape), dtype=np.float16)
                for side, window in frame_windows(grid, neighbour).items()
                if (neighbour, side) in needed_bands(grid, tile)
            }
            for neighbour in grid.neighbours(tile)
        }
        for strip in strips(grid, tile).values():
            if strip.size:
                assert (blend_window(grid, strip, ones, 1) == 1).all()


def test_values_and_nodata_are_kept() -> None:
    """A class map holds class values, not indices, and 255 wherever nothing was observed."""
    model = load_toy(toy_card(context=1))
    image = random_scene((40, 50), bands=3, dtype=np.float32)
    valid = np.ones((40, 50), dtype=np.bool_)
    valid[10:30, 15:22] = False
    label, confidence, _ = _tiled(TileGrid((40, 50), 16, 4, 3), image, valid, model)
    assert ((label == NODATA) == ~valid).all()
    assert ((confidence == NODATA) == ~valid).all()
    assert set(np.unique(label[valid])) <= {1, 2, 3, 4}


def test_a_quarantined_neighbour_gives_its_weight_to_the_others() -> None:
    """Without a neighbour a core keeps its own probabilities; nothing is mixed with zeros."""
    grid = TileGrid((48, 48), 16, 6, 4)
    model = load_toy(toy_card(context=2))
    image = random_scene((48, 48), bands=3, dtype=np.float32)
    valid = np.ones((48, 48), dtype=np.bool_)
    predictions = _predict(grid, image, valid, model)
    lost = Tile(1, 1)
    values = tuple(c.value for c in model.card.classes)
    want = {tile: _stitch(grid, predictions, tile, values) for tile in grid.tiles()}
    del predictions[lost]
    for tile in grid.tiles():
        if tile != lost:
            got = _stitch(grid, predictions, tile, values)
            np.testing.assert_array_equal(got.landcover, want[tile].landcover)
    blank = nothing_observed(grid, lost, ("margin",))
    assert (blank.landcover == NODATA).all()
    assert (blank.layers["margin"] == NODATA).all()
    assert blank.stats.labels[NODATA] == 256


def test_no_weight_at_all_is_an_error() -> None:
    """A pixel that no tile covers is never filled in."""
    grid = TileGrid((48, 48), 16, 6, 4)
    with pytest.raises(GridError, match="every pixel"):
        blend_window(grid, Window(14, 0, 18, 10), {}, 3)
