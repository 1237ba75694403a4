"""Laws of TileGrid; whole scenes are painted pixel by pixel as the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tilemap.errors import GridError
from tilemap.geometry import Tile, TileGrid, Window, fit_core, round_up
from tilemap.testing import grids, load_toy, random_scene, toy_card

ONE_TILE = TileGrid(scene=(5, 3), core=8, halo=4, blend=4)
ONE_PIXEL = TileGrid(scene=(1, 1), core=1, halo=0, blend=0)
SLIVER = TileGrid(scene=(33, 50), core=16, halo=8, blend=8, stride=8)


@given(grids())
@example(ONE_TILE)
@example(ONE_PIXEL)
@example(SLIVER)
def test_cores_cover_every_pixel_once(grid: TileGrid) -> None:
    """Painting every core leaves a scene of ones; none is empty or outside; sizes agree."""
    painted = np.zeros(grid.scene, int)
    tiles = list(grid.tiles())
    for tile in tiles:
        core = grid.core_window(tile)
        assert core.size > 0
        assert grid.scene_window.contains(core)
        painted[core.slices()] += 1
    assert (painted == 1).all()
    assert len(tiles) == len(set(tiles)) == grid.size == grid.shape[0] * grid.shape[1]
    assert tiles == sorted(tiles)


@given(grids())
@example(ONE_TILE)
@example(SLIVER)
def test_weights_sum_to_one_and_vanish_outside_the_blend_window(grid: TileGrid) -> None:
    """At every pixel of the scene the tiles' weights sum to 1; each is 0 where it must be."""
    total = np.zeros(grid.scene)
    for tile in grid.tiles():
        weight = grid.weight(tile, grid.scene_window)
        assert weight.dtype == np.float64
        assert weight.min() >= 0
        assert weight.max() <= 1
        outside = np.ones(grid.scene, bool)
        outside[grid.blend_window(tile).slices()] = False
        assert not weight[outside].any()
        total += weight
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-12)


@given(grids(), st.data())
def test_weight_of_a_part_is_the_part_of_the_weight(grid: TileGrid, data: st.DataObject) -> None:
    """Any window may be asked for alone; the numbers are those of the whole scene, exactly."""
    tile = data.draw(st.sampled_from(list(grid.tiles())))
    window = grid.blend_window(tile)
    whole = grid.weight(tile, grid.scene_window)
    assert np.array_equal(grid.weight(tile, window), whole[window.slices()])


@given(grids())
def test_the_ramp_is_symmetric_and_never_falls_towards_the_core(grid: TileGrid) -> None:
    """Across one border the two weights mirror each other and are monotone."""
    for axis in (0, 1):
        for index in range(1, grid.shape[axis]):
            border = index * grid.core
            reach = min(grid.blend, grid.scene[axis] - border)
            after = grid.axis_weight(axis, index, border - reach, border + reach)
            before = grid.axis_weight(axis, index - 1, border - reach, border + reach)
            assert (np.diff(before) <= 0).all()
            assert (np.diff(after) >= 0).all() or index * grid.core + grid.core < grid.scene[axis]
            np.testing.assert_allclose(before, after[::-1], rtol=0, atol=1e-12)


@given(grids())
@example(ONE_TILE)
@example(SLIVER)
def test_patches_hold_core_blend_and_halo(grid: TileGrid) -> None:
    """A patch holds its blend window and its core's halo; its size suits the model."""
    for tile in grid.tiles():
        patch, core = grid.patch_window(tile), grid.core_window(tile)
        assert patch.contains(grid.blend_window(tile))
        assert patch.contains(core.grow(grid.halo))
        assert (patch.top, patch.left) == (core.top - grid.halo, core.left - grid.halo)
        assert patch.top % grid.stride == patch.left % grid.stride == 0
        for side, core_side in zip(patch.shape, core.shape, strict=True):
            assert side % grid.stride == 0
            assert side <= grid.patch
            if grid.fixed or core_side == grid.core:
                assert side == grid.patch
            else:
                assert side - 2 * grid.halo - core_side < grid.stride
    assert grid.patch == grid.core + 2 * grid.halo


@given(grids())
@example(ONE_TILE)
@example(SLIVER)
def test_interior_is_what_no_neighbour_weighs(grid: TileGrid) -> None:
    """The interior lies in the core and holds exactly the pixels where only this tile counts."""
    reached = np.zeros(grid.scene, int)
    for tile in grid.tiles():
        reached[grid.blend_window(tile).slices()] += 1
    for tile in grid.tiles():
        interior, core = grid.interior_window(tile), grid.core_window(tile)
        assert core.contains(interior)
        alone = np.zeros(grid.scene, bool)
        alone[interior.slices()] = True
        own = np.zeros(grid.scene, bool)
        own[core.slices()] = True
        assert (reached[alone] == 1).all()
        assert (grid.weight(tile, interior) == 1).all()
        assert np.array_equal(alone, own & (reached == 1))


@given(grids())
@example(ONE_TILE)
@example(SLIVER)
def test_only_neighbours_reach_into_a_core(grid: TileGrid) -> None:
    """Neighbours are the tiles at distance one at most, and all others weigh nothing there."""
    tiles = list(grid.tiles())
    for tile in tiles:
        near = grid.neighbours(tile)
        assert tile in near
        assert list(near) == [
            t for t in tiles if max(abs(t.row - tile.row), abs(t.col - tile.col)) <= 1
        ]
        core = grid.core_window(tile)
        total = sum(grid.weight(other, core) for other in near)
        np.testing.assert_allclose(total, 1, rtol=0, atol=1e-12)


def stitch(grid: TileGrid, patches: dict[Tile, Any], planes: int) -> Any:
    """Weighted sum of patches over the whole scene, the plainest way, float64."""
    whole = np.zeros((planes, *grid.scene))
    for tile, patch in patches.items():
        window = grid.blend_window(tile)
        part = patch[:, *window.within(grid.patch_window(tile))]
        whole[:, *window.slices()] += grid.weight(tile, window) * part
    return whole


def cut(grid: TileGrid, scene: Any) -> dict[Tile, Any]:
    """Every patch of a scene in memory, reflected at its edge as often as it takes."""
    patches = {}
    for tile in grid.tiles():
        window = grid.patch_window(tile)
        rows = reflected(window.top, window.bottom, grid.scene[0])
        cols = reflected(window.left, window.right, grid.scene[1])
        patches[tile] = scene[:, rows[:, None], cols[None, :]]
    return patches


def reflected(start: int, stop: int, length: int) -> Any:
    """Indices start..stop - 1 folded into 0..length - 1; the edge pixel is not repeated."""
    if length == 1:
        return np.zeros(stop - start, int)
    folded = np.arange(start, stop) % (2 * length - 2)
    return np.where(folded < length, folded, 2 * length - 2 - folded)


@given(grids(), st.integers(0, 1000))
@example(ONE_TILE, 0)
@example(SLIVER, 0)
def test_stitching_untouched_patches_returns_the_scene(grid: TileGrid, seed: int) -> None:
    """Cut and stitch is the identity, up to the rounding of weights."""
    scene = random_scene(grid.scene, 2, seed, np.float64)
    np.testing.assert_allclose(
        stitch(grid, cut(grid, scene), 2), scene, rtol=0, atol=1e-12 * scene.max()
    )


@given(grids(strides=(1,)), st.integers(0, 4), st.integers(0, 1000))
def test_enough_halo_makes_tiled_equal_whole(grid: TileGrid, context: int, seed: int) -> None:
    """``halo >= blend + context``: tiled labels and probabilities are the whole scene's."""
    halo = grid.blend + context
    grid = TileGrid(grid.scene, grid.core, halo, grid.blend)
    model = load_toy(toy_card(context=context, classes=3))
    scene = random_scene(grid.scene, 3, seed, np.float32)
    tiled = {tile: model.predict(patch) for tile, patch in cut(grid, scene).items()}
    whole_grid = TileGrid(grid.scene, max(grid.scene), halo, 0)
    (whole,) = (model.predict(patch) for patch in cut(whole_grid, scene).values())
    whole = whole[:, *whole_grid.scene_window.within(whole_grid.patch_window((0, 0)))]
    np.testing.assert_allclose(stitch(grid, tiled, 3), whole, rtol=0, atol=1e-12)


def test_too_small_a_halo_shows() -> None:
    """The same comparison fails by far when the halo is smaller than the context."""
    model = load_toy(toy_card(context=4, classes=3))
    scene = random_scene((50, 70), 3, 1, np.float32)
    tiled = TileGrid((50, 70), core=16, halo=2, blend=0)
    got = stitch(tiled, {t: model.predict(p) for t, p in cut(tiled, scene).items()}, 3)
    assert np.abs(got - model.predict(scene))[:, 10:40, 10:60].max() > 0.05


@given(grids())
@example(ONE_TILE)
@example(SLIVER)
def test_patch_pixels_counts_what_the_model_computes(grid: TileGrid) -> None:
    """The closed form equals the sum over all patches; the overhead is its share."""
    counted = sum(grid.patch_window(tile).size for tile in grid.tiles())
    assert grid.patch_pixels() == counted
    assert grid.overhead == counted / grid.scene_window.size
    assert grid.overhead >= 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scene": (0, 5)}, "at least one row and one column, got (0, 5)"),
        ({"scene": (5, 0)}, "at least one row and one column, got (5, 0)"),
        ({"stride": 0}, "stride must be at least 1 pixel, got 0"),
        ({"core": 0}, "core must be a positive multiple of stride=4 pixels, got 0"),
        ({"core": -4}, "core must be a positive multiple of stride=4 pixels, got -4"),
        ({"core": 6}, "core must be a positive multiple of stride=4 pixels, got 6"),
        ({"halo": -4}, "halo must be 0 or a multiple of stride=4 pixels, got -4"),
        ({"halo": 6}, "halo must be 0 or a multiple of stride=4 pixels, got 6"),
        ({"blend": -1}, "blend must lie between 0 and halo=4 pixels, got -1"),
        ({"blend": 5}, "blend must lie between 0 and halo=4 pixels, got 5"),
        ({"halo": 8, "blend": 5}, "blend must be at most half of core=8 pixels, got 5"),
    ],
)
def test_a_grid_that_breaks_a_law_is_refused(wrong: dict[str, Any], said: str) -> None:
    """Each condition is checked at construction and named with what came."""
    right: dict[str, Any] = {"scene": (20, 30), "core": 8, "halo": 4, "blend": 2, "stride": 4}
    TileGrid(**right)
    with pytest.raises(GridError) as error:
        TileGrid(**(right | wrong))
    assert said in str(error.value)


@pytest.mark.parametrize("tile", [(-1, 0), (0, -1), (3, 0), (0, 4), Tile(3, 4)])
@pytest.mark.parametrize("ask", ["core_window", "patch_window", "interior_window", "neighbours"])
def test_a_tile_outside_the_grid_is_refused(ask: str, tile: tuple[int, int]) -> None:
    """No window, no neighbours for an address that does not exist."""
    grid = TileGrid((1000, 1500), core=448, halo=32, blend=16)
    with pytest.raises(GridError, match="3 x 4 tiles"):
        getattr(grid, ask)(tile)


@given(
    scene=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    largest_patch=st.integers(1, 160),
    halo=st.integers(0, 4),
    stride=st.sampled_from([1, 4, 8]),
)
@example(scene=(1, 1), largest_patch=160, halo=0, stride=8)
@example(scene=(300, 7), largest_patch=100, halo=2, stride=4)
def test_fit_core_finds_the_cheapest(
    scene: tuple[int, int], largest_patch: int, halo: int, stride: int
) -> None:
    """No core whose patch is allowed makes the model compute fewer pixels."""
    halo *= stride
    allowed = [
        core
        for core in range(stride, largest_patch - 2 * halo + 1, stride)
        if core <= round_up(max(scene), stride)
    ]
    if not allowed:
        with pytest.raises(GridError, match="at least stride"):
            fit_core(scene, largest_patch, halo, stride)
        return
    core = fit_core(scene, largest_patch, halo, stride)
    cost = {c: TileGrid(scene, c, halo, 0, stride).patch_pixels() for c in allowed}
    assert core in allowed
    assert cost[core] == min(cost.values())


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_round_up_is_the_smallest_multiple(value: int, multiple: int) -> None:
    """Divisible, not below, and less than one multiple above."""
    up = round_up(value, multiple)
    assert up % multiple == 0
    assert value <= up < value + multiple


def test_text_of_a_tile() -> None:
    """Messages show a tile as (row, col)."""
    assert str(Tile(2, 3)) == "(2, 3)"
    assert TileGrid((1000, 1500), 448, 32, 16).patch_window((2, 3)) == Window(864, 1312, 1032, 1532)


@pytest.mark.parametrize(("core", "halo"), [(2**24 + 1, 8), (64, 2**30)])
def test_no_tile_is_larger_than_any_memory(core: int, halo: int) -> None:
    """A number with too many digits is refused where the grid is made."""
    with pytest.raises(GridError, match="core and halo must be at most 16777216 pixels"):
        TileGrid((100, 100), core, halo, 4)
