"""Stitch: tiled equals whole for a finite context, and the cut leaves no trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilemap.errors import GridError
from tilemap.geometry import Tile, TileGrid, Window
from tilemap.models.protocol import Model
from tilemap.probability import VALUES
from tilemap.stages.segment import NODATA, classify, measure_uncertainty, segment_patch
from tilemap.stages.stitch import (
    StitchedCore,
    blend_window,
    needed_bands,
    nothing_observed,
    stitch_core,
    stitch_tile,
    strips,
)
from tilemap.stages.tile import reflect_index
from tilemap.stores.maps import Seam
from tilemap.stores.predictions import UNCERTAINTIES, Prediction, PredictionStore, frame_windows
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
    return stitch_core(grid, tile, core, frames, values, own.uncertainty, own.quantised)


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


def _blended(grid: TileGrid, predictions: dict[Tile, Prediction]) -> Array:
    """Weighted mean of all predictions at every pixel of the scene, weights made to sum to 1.

    Written as a sum over pixels of whole tiles, float64 (class, y, x); NaN where no tile has
    stored its probability.
    """
    classes = next(iter(predictions.values())).frame["top"].shape[0]
    total = np.zeros((classes, *grid.scene))
    weights = np.zeros(grid.scene)
    whole = Window(0, 0, *grid.scene)
    for tile, prediction in predictions.items():
        for side, window in frame_windows(grid, tile).items():
            part = window.intersect(whole)
            place = part.slices()
            weight = grid.weight(tile, part)
            total[:, *place] += prediction.frame[side][:, *part.within(window)] * weight
            weights[place] += weight
    return np.where(weights > 0, total / np.where(weights > 0, weights, 1), np.nan)


def _pooled(grid: TileGrid, seed: int = 0) -> tuple[dict[Tile, Prediction], Model]:
    """Predictions of a model whose tiles disagree, with probabilities kept."""
    model = load_toy(toy_card("pool", context=2, seed=seed))
    image = random_scene(grid.scene, bands=3, seed=seed, dtype=np.float32)
    valid = np.ones(grid.scene, dtype=np.bool_)
    valid[3:19, 10:14] = False
    predictions = {
        tile: segment_patch(
            grid,
            tile,
            _patch(image, grid.patch_window(tile)),
            _patch(valid, grid.patch_window(tile)),
            model,
            UNCERTAINTIES,
            probabilities=True,
        )
        for tile in grid.tiles()
    }
    return predictions, model


def _check_core(grid: TileGrid, tile: Tile, got: StitchedCore, blended: Array) -> None:
    """Compare confidence and label of a core's strips with the blended probabilities."""
    window = grid.core_window(tile)
    seen = got.landcover != NODATA
    for strip in strips(grid, tile).values():
        inside, want = strip.within(window), blended[:, *strip.slices()]
        assert not np.isnan(want).any()
        known = seen[inside]
        off = np.abs(got.confidence[inside].astype(float) - 100 * want.max(axis=0))
        assert off[known].max(initial=0) <= 0.5 + 100 * 2**-11  # percent, of float16
        first, second = np.sort(want, axis=0)[[-1, -2]]
        clear = known & (first - second > 2**-10)
        assert (got.landcover[inside][clear] == 1 + want.argmax(axis=0)[clear]).all()


def test_blended_cores_are_the_weighted_mean() -> None:
    """Confidence and label near every core border are those of a mean taken pixel by pixel."""
    grid = TileGrid((48, 55), 16, 6, 4)
    predictions, model = _pooled(grid)
    values, blended = tuple(c.value for c in model.card.classes), _blended(grid, predictions)
    for tile in grid.tiles():
        _check_core(grid, tile, _stitch(grid, predictions, tile, values), blended)


def test_a_quarantined_neighbour_gives_its_weight_to_the_others() -> None:
    """Without a tile its neighbours' weights are made to sum to 1; nothing is mixed with zeros."""
    grid = TileGrid((48, 48), 16, 6, 4)
    predictions, model = _pooled(grid)
    values = tuple(c.value for c in model.card.classes)
    lost = Tile(1, 1)
    before = {tile: _stitch(grid, predictions, tile, values) for tile in grid.tiles()}
    del predictions[lost]
    blended = _blended(grid, predictions)
    moved = 0
    for tile in grid.tiles():
        if tile != lost:
            got = _stitch(grid, predictions, tile, values)
            _check_core(grid, tile, got, blended)
            moved += np.count_nonzero(got.confidence != before[tile].confidence)
    assert moved > 0  # the tiles disagree, so the weights count
    blank = nothing_observed(grid, lost, ("margin",), 4)
    assert (blank.landcover == NODATA).all()
    assert (blank.layers["margin"] == NODATA).all()
    assert blank.stats.labels[NODATA] == blank.stats.confidence[NODATA] == 256
    assert blank.quantised is not None
    assert blank.quantised.shape == (4, 16, 16)
    assert (blank.quantised == NODATA).all()


def test_figures_of_a_core_are_counted_from_its_layers_and_its_neighbours() -> None:
    """Histograms of labels and of confidence; the seam against the tiles above and to the left.

    Tiles disagree at random, and most of all where nothing was observed, which does not count.
    """
    grid = TileGrid((48, 55), 16, 6, 4)
    predictions, model = _pooled(grid)
    random = np.random.default_rng(5)
    for prediction in predictions.values():
        for band in prediction.frame.values():
            share = random.dirichlet(np.ones(4), band.shape[1:]).transpose(2, 0, 1)
            band[:] = share.astype(np.float16)
    for tile, index in ((Tile(0, 0), 0), (Tile(1, 0), 1)):  # hidden pixel (17, 11)
        for side, window in frame_windows(grid, tile).items():
            if Window(17, 11, 18, 12).intersect(window).size:
                band = predictions[tile].frame[side]
                band[:, 17 - window.top, 11 - window.left] = np.eye(4)[index]
    values = tuple(c.value for c in model.card.classes)
    for tile in grid.tiles():
        core = _stitch(grid, predictions, tile, values)
        for layer, counts in (
            (core.landcover, core.stats.labels),
            (core.confidence, core.stats.confidence),
        ):
            np.testing.assert_array_equal(counts, np.bincount(layer.ravel(), minlength=256))
        window = grid.core_window(tile)
        pixels = differ = 0
        largest = 0.0
        for other, strip in (
            (Tile(tile.row - 1, tile.col), strips(grid, tile)["top"]),
            (Tile(tile.row, tile.col - 1), strips(grid, tile)["left"]),
        ):
            if other not in predictions:
                continue
            own, theirs = (_only(grid, who, predictions[who], strip) for who in (tile, other))
            seen = core.landcover[strip.within(window)] != NODATA
            pixels += int(seen.sum())
            differ += int(((own.argmax(axis=0) != theirs.argmax(axis=0)) & seen).sum())
            largest = max(largest, float(np.abs(own - theirs).max(axis=0)[seen].max(initial=0)))
        assert core.stats.seam == Seam(pixels, differ, pytest.approx(largest, abs=1e-7))


def _only(grid: TileGrid, tile: Tile, prediction: Prediction, window: Window) -> Array:
    """Probability of one tile alone, float32 (class, y, x), of a window in its frame."""
    alone = np.full((4, *grid.scene), np.nan, dtype=np.float32)
    whole = Window(0, 0, *grid.scene)
    for side, place in frame_windows(grid, tile).items():
        part = place.intersect(whole)
        alone[:, *part.slices()] = prediction.frame[side][:, *part.within(place)]
    return alone[:, *window.slices()]


def test_kept_probabilities_are_those_that_were_blended() -> None:
    """Quantised probabilities of a core: its own inside, blended at the border, 255 if unseen."""
    grid = TileGrid((48, 55), 16, 6, 4)
    predictions, model = _pooled(grid)
    values = tuple(c.value for c in model.card.classes)
    blended = _blended(grid, predictions)
    for tile in grid.tiles():
        core = _stitch(grid, predictions, tile, values)
        own = predictions[tile].quantised
        assert core.quantised is not None
        assert own is not None
        seen = core.landcover != NODATA
        assert ((core.quantised == NODATA) == ~seen).all()
        want = VALUES[own]
        window = grid.core_window(tile)
        for strip in strips(grid, tile).values():
            want[:, *strip.within(window)] = blended[:, *strip.slices()]
        off = np.abs(VALUES[core.quantised] - want)[:, seen]
        assert off.max(initial=0) <= 0.0052 + 2**-11  # half a step, of a byte and of float16


def test_a_tile_that_is_missing_itself_keeps_blank_probabilities(tmp_path: Path) -> None:
    """Its core is all nodata, in every layer that the store keeps."""
    grid = TileGrid((20, 30), 16, 4, 2)
    store = PredictionStore.create(tmp_path / "p.zarr", grid, 4, "d" * 64, ("margin",), True)
    lost = Tile(0, 1)
    blank = stitch_tile(grid, lost, store, (1, 2, 3, 4), frozenset([lost]))
    assert blank.quantised is not None
    assert blank.quantised.shape == (4, 16, 14)
    assert (blank.quantised == NODATA).all()
    assert (blank.layers["margin"] == NODATA).all()


def test_no_weight_at_all_is_an_error() -> None:
    """A pixel that no tile covers is never filled in."""
    grid = TileGrid((48, 48), 16, 6, 4)
    with pytest.raises(GridError, match="every pixel"):
        blend_window(grid, Window(14, 0, 18, 10), {}, 3)
