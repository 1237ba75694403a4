"""What a run will do and cost: laws of the chosen grid, the memory limit, words of sizes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from tilemap.errors import ConfigError, GridError, SceneError, UsageError
from tilemap.geometry import TileGrid, round_up
from tilemap.measure import MB, Cost
from tilemap.models.card import ModelCard
from tilemap.run_plan import (
    DEFAULT_BLEND,
    DEFAULT_PATCH,
    UNKNOWN_MARGIN,
    GridSettings,
    check_memory,
    check_units,
    choose_grid,
    make_plan,
    margin_of,
    parse_bytes,
)
from tilemap.scene import Band, Scene
from tilemap.stores.geotiff import SceneRequest, open_scene
from tilemap.testing import toy_card, write_geotiff

SHAPES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
COST = Cost("cpu", 300 * MB, 500.0, 1e-6)


@st.composite
def cards(draw: st.DrawFn, fixed: bool | None = None) -> ModelCard:
    """Models of any stride whose reach is known, measured or unknown; some of one size only."""
    stride = draw(st.sampled_from([1, 4, 8, 32]))
    context, halo = (draw(st.none() | st.integers(0, 100)) for _ in range(2))
    patch = None
    if fixed or (fixed is None and draw(st.booleans())):
        patch = draw(st.integers(1, 512 // stride)) * stride
    card = toy_card(stride=stride, patch=patch)
    return card.model_copy(update={"context": context, "halo": halo})


COSTS = st.builds(
    Cost,
    device=st.just("cpu"),
    base_bytes=st.integers(100 * MB, 900 * MB),
    bytes_per_pixel=st.floats(20, 2000),
    seconds_per_pixel=st.floats(1e-8, 1e-5),
)


def _side(grid: TileGrid) -> int:
    """Longest side of any patch the model gets."""
    return max(grid.patch_window((0, 0)).shape)


# --- the grid ----------------------------------------------------------------------------------


@given(SHAPES, cards(fixed=False))
def test_by_default_the_halo_hides_what_the_model_cannot_see(
    scene: tuple[int, int], card: ModelCard
) -> None:
    """Even the outermost pixel that has weight is seen with all around it that matters."""
    grid = choose_grid(scene, card, GridSettings())
    assert grid.scene == scene
    assert grid.stride == card.stride
    assert not grid.fixed
    assert grid.halo >= margin_of(card) + grid.blend
    assert grid.halo < margin_of(card) + DEFAULT_BLEND + card.stride
    assert 0 <= grid.blend <= DEFAULT_BLEND
    assert grid.blend > 0 or grid.core < 2
    assert grid.patch <= max(DEFAULT_PATCH, card.stride + 2 * grid.halo)


@given(SHAPES, cards(fixed=True))
def test_a_model_of_one_size_gets_only_that_size(scene: tuple[int, int], card: ModelCard) -> None:
    """Whatever the scene and the reach: a grid comes out, and every patch has that size."""
    grid = choose_grid(scene, card, GridSettings())
    assert grid.patch == card.patch
    for tile in ((0, 0), (grid.shape[0] - 1, grid.shape[1] - 1)):
        assert grid.patch_window(tile).shape == (card.patch, card.patch)
    assert grid.halo <= round_up(margin_of(card) + 8, card.stride)
    assert 2 * grid.core >= card.patch


@given(SHAPES, cards(fixed=False), st.data())
def test_what_the_user_sets_is_kept(
    scene: tuple[int, int], card: ModelCard, data: st.DataObject
) -> None:
    """Core, halo and blend, alone or together, stand in the grid as they were given."""
    stride = card.stride
    core = data.draw(st.none() | st.integers(1, 512 // stride).map(lambda n: n * stride))
    halo = data.draw(st.none() | st.integers(0, 128 // stride).map(lambda n: n * stride))
    blend = data.draw(st.none() | st.integers(0, min(halo or 0, (core or 0) // 2)))
    grid = choose_grid(scene, card, GridSettings(core, halo, blend))
    for name, value in (("core", core), ("halo", halo), ("blend", blend)):
        assert value is None or getattr(grid, name) == value


def test_unknown_reach_gets_a_margin_and_the_probe_overrules_it() -> None:
    """Context before measured halo before 56 pixels."""
    card = toy_card("pool", stride=8)
    for context, halo, want in ((None, None, UNKNOWN_MARGIN), (None, 20, 20), (12, 20, 12)):
        probed = card.model_copy(update={"context": context, "halo": halo})
        assert margin_of(probed) == want
        grid = choose_grid((900, 700), probed, GridSettings())
        assert grid.halo == round_up(want + 8, 8)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (GridSettings(core=48), "core must be a positive multiple of stride=32 pixels, got 48"),
        (GridSettings(halo=40), "halo must be 0 or a multiple of stride=32 pixels, got 40"),
        (GridSettings(halo=-32), "halo must be 0 or a multiple"),
        (GridSettings(core=0), "core must be a positive multiple"),
        (GridSettings(halo=32, blend=33), "blend must lie between 0 and halo=32 pixels, got 33"),
        (GridSettings(core=32, halo=32, blend=20), "blend must be at most half of core=32"),
        (GridSettings(blend=-1), "blend must lie between 0"),
    ],
)
def test_what_cannot_hold_is_said(settings: GridSettings, says: str) -> None:
    """With the law, what came, and the exit code of wrong usage."""
    with pytest.raises(GridError, match=says) as caught:
        choose_grid((900, 700), toy_card(stride=32), settings)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (GridSettings(core=200), r"core must be 256 - 2 \* halo = 224, got 200"),
        (GridSettings(halo=128), "halo must be below 128, got 128"),
    ],
)
def test_a_model_of_one_size_says_what_it_takes(settings: GridSettings, says: str) -> None:
    """Core follows from patch and halo."""
    card = toy_card(stride=8, patch=256, context=3)
    with pytest.raises(GridError, match=says):
        choose_grid((900, 700), card, settings)


# --- the memory limit --------------------------------------------------------------------------


def _smallest_told(
    grid: TileGrid, card: ModelCard, cost: Cost, limit: int, settings: GridSettings
) -> int | None:
    """The limit that the error asks for; None if there is no error."""
    try:
        check_memory(grid, card, cost, limit, settings)
    except ConfigError as error:
        (text,) = re.findall(r"`memory_limit` (\w+)$", str(error))
        return parse_bytes(text)
    return None


@given(SHAPES, cards(), COSTS, st.integers(200 * MB, 4096 * MB), st.data())
def test_a_grid_fits_into_the_limit_or_the_smallest_limit_is_told(
    scene: tuple[int, int], card: ModelCard, cost: Cost, limit: int, data: st.DataObject
) -> None:
    """The limit that is told works, and 1 MiB less does not."""
    settings = GridSettings()
    if card.patch is None:
        core = data.draw(st.none() | st.just(card.stride * (512 // card.stride)))
        blend = data.draw(st.none() | st.integers(0, 16))
        settings = GridSettings(core=core, blend=blend)
    grid = choose_grid(scene, card, settings)
    told = _smallest_told(grid, card, cost, limit, settings)
    if told is not None:
        assert told > limit
        limit = told
        assert _smallest_told(grid, card, cost, told - MB, settings) == told
    fitted = check_memory(grid, card, cost, limit, settings)
    assert cost.worker_bytes(_side(fitted)) <= limit
    assert fitted.halo == grid.halo
    assert settings.core in (None, fitted.core)
    assert settings.blend in (None, fitted.blend)
    if cost.worker_bytes(_side(grid)) <= limit:
        assert fitted == grid


@given(st.integers(700 * MB, 1200 * MB))
def test_a_limit_leaves_the_largest_patch_of_a_few(limit: int) -> None:
    """They are a factor sqrt(2) apart, so no more than half of the room for a patch is unused."""
    card = toy_card(stride=1, context=0)
    grid = choose_grid((100_000, 100_000), card, GridSettings())
    fitted = check_memory(grid, card, COST, limit, GridSettings())
    room = limit - COST.worker_bytes(0)
    assert fitted == grid or fitted.patch**2 * COST.bytes_per_pixel > 0.45 * room


@pytest.mark.parametrize("limit", [2000 * MB, 900 * MB, 740 * MB, 680 * MB])
def test_two_measurements_of_memory_make_one_cut(limit: int) -> None:
    """No two agree to the byte; 4 % more or less change no grid, and nor does any timing."""
    card = toy_card(stride=8, context=12)
    grid = choose_grid((4000, 3000), card, GridSettings())
    cuts = {
        check_memory(grid, card, cost, limit, GridSettings())
        for share in (0.96, 1.0, 1.04)
        for seconds in (1e-8, 1e-5)
        for cost in [Cost("cpu", 300 * MB, 500.0 * share, seconds)]
    }
    assert len(cuts) == 1
    assert (cuts == {grid}) is (limit == 2000 * MB)


# --- the plan ----------------------------------------------------------------------------------


@given(SHAPES, cards(), st.integers(1, 16))
def test_a_plan_adds_up(scene: tuple[int, int], card: ModelCard, workers: int) -> None:
    """Tasks are two for each tile and two products; keeping patches takes more room."""
    grid = choose_grid(scene, card, GridSettings())
    kept, left = (
        make_plan(grid, _scene(scene, len(card.bands)), card, COST, workers, keep)
        for keep in (True, False)
    )
    assert kept.tasks == 2 * grid.size + 2
    patches = grid.patch_pixels() * (2 * len(card.bands) + 1)
    assert kept.store_bytes - left.store_bytes == patches
    assert left.store_bytes >= 4 * scene[0] * scene[1]
    assert kept.disk_bytes == kept.store_bytes + kept.product_bytes
    assert kept.worker_bytes == COST.worker_bytes(_side(grid))


def test_every_layer_more_takes_its_room() -> None:
    """A byte in each store, and a raster with its copies, for each pixel; one task more."""
    card = toy_card()
    grid = choose_grid((900, 700), card, GridSettings())
    plain, more = (
        make_plan(grid, _scene((900, 700)), card, COST, 2, True, kept)
        for kept in ((), ("entropy", "margin"))
    )
    assert more.tasks == plain.tasks + 2
    assert more.store_bytes - plain.store_bytes == 2 * 2 * 900 * 700
    assert more.product_bytes - plain.product_bytes == 2 * 2 * 900 * 700


def _scene(shape: tuple[int, int], bands: int = 3, dtype: str = "uint16", **band: object) -> Scene:
    geobox = GeoBox(shape, Affine(10, 0, 0, 0, -10, 0), "EPSG:32618")
    return Scene(geobox, (Band("red", dtype, **band),) * bands, "memory")  # type: ignore[arg-type]


# --- units and sizes ---------------------------------------------------------------------------


def _check(file: Path, units: str = "reflectance", **asked: object) -> None:
    check_units(open_scene(SceneRequest((str(file),), **asked)), units, "toy")


def _reflectance(dtype: str = "float32", factor: float = 1.0) -> np.ndarray:
    image = np.random.default_rng(2).uniform(0.02, 0.6, (3, 150, 170)) * factor
    return image.astype(dtype)


def test_integers_without_a_scale_are_refused(tmp_path: Path) -> None:
    """Unless floats, declared, or the model takes stored numbers; no scale is made up."""
    file = write_geotiff(tmp_path / "a.tif", _reflectance("uint16", 1e4))
    with pytest.raises(SceneError, match=r"without a scale; give the scale, the offset") as caught:
        _check(file)
    assert caught.value.exit_code == 65
    assert "0.0001" not in str(caught.value)
    _check(write_geotiff(tmp_path / "b.tif", _reflectance()))
    _check(write_geotiff(tmp_path / "c.tif", _reflectance("uint16", 1e4), scale=1e-4))
    _check(file, scale=1e-4)
    _check(file, units="stored")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("T18SVG_20230601T155829_B04_10m", "scale 0.0001, offset -0.1 and nodata 0"),
        (
            "S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857",
            "scale 0.0001, offset 0 and nodata 0",
        ),
        (
            "S2A_MSIL2A_20190212T192651_N0500_R013_T07HFE_20231007T160857",
            "scale 0.0001, offset -0.1 and nodata 0",
        ),
        ("T18SVG_20190601T155829_B04", "scale 0.0001, the offset of its metadata and nodata 0"),
        (
            "LC08_L2SP_017036_20130419_20200913_02_T2_SR_B4",
            "scale 2.75e-05, offset -0.2 and nodata 0",
        ),
        ("HLS.S30.T18SVG.2020139T153556.v2.0.B04", "scale 0.0001, offset 0 and nodata -9999"),
        ("MOD09A1.A2020129.h12v04.061.sur_refl_b01", "offset 0 and nodata -28672"),
    ],
)
def test_the_hint_is_that_of_the_product(tmp_path: Path, name: str, hint: str) -> None:
    """Scale, offset and nodata are those of the product that the name shows, all three."""
    file = write_geotiff(tmp_path / f"{name}.tif", _reflectance("int16", 1e4))
    with pytest.raises(SceneError, match="without a scale") as caught:
        _check(file)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "T18SVG_20230601T155829_B04_10m",
        "S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126_stack",
        "S2A_MSIL1C_20190212T192651_N0500_R013_T07HFE_20231007T160857",
        "S2A_36QWD_20230701_0_L2A",
        "LC09_L2SP_017036_20230419_20230913_02_T1_SR_B4",
    ],
)
def test_a_scale_without_the_offset_of_the_product_is_refused(tmp_path: Path, name: str) -> None:
    """What is known to have an offset needs one; the user's counts, 0 included, and the file's."""
    file = write_geotiff(tmp_path / f"{name}.tif", _reflectance("uint16", 1e4))
    with pytest.raises(SceneError, match=r"whose offset is -0\.[12], but only a scale is given"):
        _check(file, scale=1e-4)
    _check(file, scale=1e-4, offset=-0.1)
    _check(file, scale=1e-4, offset=0.0)
    _check(write_geotiff(file, _reflectance("uint16", 1e4), scale=1e-4))


@pytest.mark.parametrize("name", ["T18SVG_20200601T155829_B04", "sentinel2_2023", "s2_l1c_10m"])
def test_a_scale_is_enough_for_other_scenes(tmp_path: Path, name: str) -> None:
    """No offset is asked for where none is known."""
    _check(write_geotiff(tmp_path / f"{name}.tif", _reflectance("uint16", 1e4)), scale=1e-4)


def test_floats_are_held_against_reflectance(tmp_path: Path) -> None:
    """Digital numbers and per cent as floats are no reflectance, unless the user says so."""
    for name, factor in (("dn", 5000), ("percent", 60)):
        file = write_geotiff(tmp_path / f"{name}.tif", _reflectance(factor=factor))
        with pytest.raises(SceneError, match=r"takes reflectance .* holds numbers up to \d+"):
            _check(file)
        _check(file, units="stored")
        _check(file, scale=1 / factor)
        _check(file, scale=1.0)
    bright = _reflectance(factor=3)
    _check(write_geotiff(tmp_path / "cloud.tif", bright))


@pytest.mark.parametrize(
    ("dtype", "fill"), [("float32", -9999), ("float32", -999), ("int16", -9999)]
)
def test_undeclared_fill_is_no_reflectance(tmp_path: Path, dtype: str, fill: int) -> None:
    """A corner of -9999 that nobody declares is refused, in scaled integers too."""
    scale = None if dtype == "float32" else 1e-4
    image = _reflectance(dtype, 1 if scale is None else 1e4)
    image[:, -20:, -30:] = fill
    with pytest.raises(SceneError, match=rf"holds {fill}.*; give the number .* as `nodata`"):
        _check(write_geotiff(tmp_path / "a.tif", image, scale=scale))
    _check(tmp_path / "a.tif", nodata=fill)
    _check(write_geotiff(tmp_path / "b.tif", image, scale=scale, nodata=fill))


@pytest.mark.parametrize(
    ("dtype", "scale", "fill"),
    [
        ("uint16", 1e-4, 65535), ("uint8", 0.01, 255), ("int16", 1e-4, 32767),
        ("float32", None, 9999), ("float32", None, 1e20), ("uint16", 1e-4, 50_000),
        ("int32", 1e-4, 2**31 - 1), ("float32", 1e-4, 3.4e38),
    ],
)  # fmt: skip
def test_undeclared_fill_above_is_no_reflectance(
    tmp_path: Path, dtype: str, scale: float | None, fill: float
) -> None:
    """One number far above 1 in a corner is refused, unless it is declared."""
    image = _reflectance(dtype, 1 / (scale or 1))
    image[:, -20:, -30:] = fill
    with pytest.raises(SceneError, match=r"give the number that means not observed as `nodata`"):
        _check(write_geotiff(tmp_path / "a.tif", image, scale=scale))
    _check(tmp_path / "a.tif", nodata=fill)
    _check(write_geotiff(tmp_path / "b.tif", image, scale=scale, nodata=fill))


def test_fill_of_one_band_is_no_reflectance(tmp_path: Path) -> None:
    """A band that lacks a part holds fill there, though the others do not."""
    image = _reflectance("uint16", 1e4)
    image[1, :40] = 65535
    with pytest.raises(SceneError, match=r"holds 65535 in \d+ % .* would be 6.55; give"):
        _check(write_geotiff(tmp_path / "a.tif", image, scale=1e-4))


def test_saturated_pixels_are_reflectance(tmp_path: Path) -> None:
    """Clouds to 2, white at the end of a byte, and a few pixels at the end of their type."""
    cloud = _reflectance("uint16", 1e4)
    cloud[:, :60] = 20_000
    cloud[:, 100, 100:103] = 65535
    _check(write_geotiff(tmp_path / "cloud.tif", cloud, scale=1e-4))
    white = _reflectance("uint8", 255)
    white[:, :60] = 255
    _check(write_geotiff(tmp_path / "white.tif", white, scale=1 / 255))
    landsat = _reflectance("uint16", 1 / 2.75e-5)
    landsat[:, :60] = 65535
    _check(write_geotiff(tmp_path / "landsat.tif", landsat, scale=2.75e-5, offset=-0.2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_that_are_scaled_already_are_refused(tmp_path: Path, dtype: str) -> None:
    """A scale left over from integers makes all of it nearly 0; the scale 1 is the way out."""
    file = write_geotiff(tmp_path / "a.tif", _reflectance(dtype), scale=1e-4, nodata=-9999)
    with pytest.raises(SceneError, match=r"declares the scale 0.0001 for .* give `scale` 1 if"):
        _check(file)
    _check(file, scale=1.0)
    _check(file, units="stored")
    with pytest.raises(SceneError, match="declares the scale"):
        _check(write_geotiff(tmp_path / "b.tif", _reflectance(dtype)), scale=1e-4)


def test_floats_that_need_their_scale_are_read(tmp_path: Path) -> None:
    """Digital numbers, per cent of dark water and whole numbers in floats keep their scale."""
    _check(write_geotiff(tmp_path / "dn.tif", _reflectance(factor=1e4), scale=1e-4))
    _check(write_geotiff(tmp_path / "water.tif", _reflectance(factor=2), scale=0.01))
    whole = np.rint(_reflectance(factor=4))
    _check(write_geotiff(tmp_path / "whole.tif", whole, scale=1e-4))


def test_a_sample_that_cannot_be_read_refuses_nothing(tmp_path: Path) -> None:
    """A damaged block, or a scene without an observed pixel, is for the run to report."""
    file = write_geotiff(tmp_path / "a.tif", np.full((3, 20, 20), np.nan, np.float32))
    _check(file)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 << 30), ("800 MB", 800_000_000), ("1.5e9", 1_500_000_000),
        ("512MiB", 512 << 20), (123_456_789, 123_456_789), ("2g", 2_000_000_000),
    ],
)  # fmt: skip
def test_sizes_are_understood(text: str | int, size: int) -> None:
    """As people write them."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "2 parsecs", "-1GiB", "0", 0, "nan", "inf", "1e400"])
def test_what_is_no_size_is_a_usage_error(text: str | int) -> None:
    """Exit code 2, with an example."""
    with pytest.raises(UsageError, match="a memory limit must"):
        parse_bytes(text)


def test_a_scene_of_one_pixel_has_a_plan() -> None:
    """The smallest there is."""
    card = toy_card(stride=32)
    grid = choose_grid((1, 1), card, GridSettings())
    plan = make_plan(grid, _scene((1, 1)), card, COST, 2, True)
    assert grid.size == 1
    assert np.isfinite(plan.seconds)
