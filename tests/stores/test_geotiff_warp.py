"""Scenes on another grid: ``like`` and ``resolution``, with GDAL and plain means as oracles."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from tilemap.errors import SceneError, SceneMismatchError, StoreError
from tilemap.geometry import Window
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.stores.grids import at_resolution, footprint, pixel_offset, pixel_size
from tilemap.stores.warp import BLOCK, blocks, quarters
from tilemap.testing import random_scene, windows, write_geotiff

OTHER_ZONE = "EPSG:32617"  # the toy scenes lie in zone 18, near its western border
AT_OTHER = Affine(10, 0, 933_300, 0, -10, 4_110_900)  # their ground in zone 17


def opened(*files: str | os.PathLike[str], **asked: object) -> SceneSource:
    """A scene of some files."""
    return open_scene(SceneRequest(tuple(map(str, files)), **asked))


def read(source: SceneSource, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A window, or the whole scene."""
    with source.open() as reader:
        return reader.read(window or Window(0, 0, *source.scene.shape))


def blank(path: Path, shape: tuple[int, int], transform: Affine, crs: str | None) -> Path:
    """A raster that only lends its grid."""
    return write_geotiff(path, np.zeros((1, *shape), np.uint8), transform=transform, crs=crs)


@pytest.fixture(scope="module")
def across(tmp_path_factory: pytest.TempPathFactory) -> SceneSource:
    """A scene with gaps brought into another zone, several blocks large."""
    folder = tmp_path_factory.mktemp("across")
    image = random_scene((400, 500))
    image[:, 100:140, 200:260] = 0
    file = write_geotiff(folder / "a.tif", image, nodata=0)
    like = blank(folder / "like.tif", (560, 600), AT_OTHER, OTHER_ZONE)
    return opened(file, like=str(like))


def test_like_gives_the_very_grid(across: SceneSource):
    """Shape, geotransform and CRS are those of the raster named."""
    geobox = across.scene.geobox
    assert tuple(geobox.shape) == (560, 600)
    assert geobox.affine == AT_OTHER
    assert geobox.crs.epsg == 32617


def test_like_is_gdals_bilinear_warp(across: SceneSource):
    """The values of an exact warp by GDAL, where its nearest warp says a pixel is."""
    got, valid = read(across)
    place = {"crs": OTHER_ZONE, "transform": AT_OTHER, "height": 560, "width": 600}
    exact = {"tolerance": 1e-6, "XSCALE": 1, "YSCALE": 1}
    with rasterio.open(across.files[0]) as dataset:
        with WarpedVRT(dataset, resampling=Resampling.bilinear, **place, **exact) as vrt:
            want = vrt.read()
        with WarpedVRT(dataset, resampling=Resampling.nearest, **place, **exact) as vrt:
            there = (vrt.read() > 0).all(axis=0)
    assert 0.3 < valid.mean() < 0.95
    assert (valid != there).mean() < 1e-4
    both = valid & there
    np.testing.assert_allclose(got[:, both].astype(int), want[:, both].astype(int), atol=1)
    assert (got[:, both] != want[:, both]).mean() < 0.3  # roundings
    assert not got[:, ~valid].any()


@given(corner=st.tuples(st.integers(0, 559), st.integers(0, 599)), size=st.integers(1, 300))
def test_windows_of_a_warp_are_parts(across: SceneSource, corner: tuple[int, int], size: int):
    """However windows are cut, across blocks or within, the bytes are the same."""
    whole = _whole(across)
    window = Window(*corner, min(corner[0] + size, 560), min(corner[1] + size, 600))
    got, valid = read(across, window)
    assert got.tobytes() == whole[0][:, *window.slices()].tobytes()
    np.testing.assert_array_equal(valid, whole[1][window.slices()])


_CACHE: dict[int, tuple[np.ndarray, np.ndarray]] = {}


def _whole(source: SceneSource) -> tuple[np.ndarray, np.ndarray]:
    if id(source) not in _CACHE:
        _CACHE[id(source)] = read(source)
    return _CACHE[id(source)]


@pytest.mark.parametrize("place", ["zone", "sinusoidal"])
def test_positions_are_exact_and_blocks_leave_no_seam(tmp_path: Path, place: str):
    """A plane comes out as the plane at the exact positions, at borders of blocks as elsewhere."""
    if place == "zone":
        crs, at, size = "EPSG:32618", Affine(10, 0, 400_000, 0, -10, 4_100_000), (700, 800)
        other, there = OTHER_ZONE, Affine(10, 0, 934_000, 0, -10, 4_110_000)
    else:
        crs, at, size = "EPSG:32721", Affine(500, 0, 0, 0, -500, 9_000_000), (1200, 1400)
        other = "+proj=sinu +R=6371007.181 +units=m +no_defs"
        there = Affine(500, 0, -6_300_000, 0, -500, -1_100_000)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    file = write_geotiff(tmp_path / "a.tif", (3.0 * x + 2.0 * y)[None], crs=crs, transform=at)
    like = blank(tmp_path / "like.tif", (600, 700), there, other)
    got, valid = read(opened(file, like=str(like)))
    x, y = np.meshgrid(np.arange(700) + 0.5, np.arange(600) + 0.5)
    east, north = there.a * x + there.c, there.e * y + there.f
    east, north = Transformer.from_crs(other, crs, always_xy=True).transform(east, north)
    col, row = (east - at.c) / at.a, (north - at.f) / at.e
    inner = (col > 1) & (row > 1) & (col < size[1] - 1) & (row < size[0] - 1)
    assert inner[:, BLOCK - 5 : BLOCK + 5].mean() > 0.6
    assert valid[inner].all()
    error = np.abs(got[0] - (3 * col + 2 * row))[inner]
    assert error.max() < 0.03 * 5  # of a pixel


@pytest.mark.parametrize("shape", [(22, 36), (23, 40)])
def test_resolution_is_the_block_mean(tmp_path: Path, shape: tuple[int, int]):
    """Three pixels a side become one: their mean; a last pixel needs half of its area."""
    image = random_scene((3 * shape[0] - 2, 3 * shape[1] - 1))
    source = opened(write_geotiff(tmp_path / "a.tif", image), resolution=30)
    assert source.scene.shape == shape
    assert source.scene.geobox.affine == Affine(30, 0, 400_000, 0, -30, 4_100_000)
    assert source.scene.geobox.crs.epsg == 32618
    got, valid = read(source)
    rows, cols = shape[0] - 1, shape[1] - 1
    blocks_ = image[:, : 3 * rows, : 3 * cols].reshape(3, rows, 3, cols, 3)
    means = np.floor(blocks_.astype(np.float64).mean(axis=(2, 4)) + 0.5)
    np.testing.assert_array_equal(got[:, :rows, :cols], means)
    assert valid[:rows].all()  # the last column has two pixels of three
    assert not valid[rows:].any()  # the last row has one


@pytest.mark.parametrize("resolution", [0.0, -0.0, -3.0, float("nan"), float("inf"), 1e-320])
def test_a_resolution_is_a_size(resolution: float) -> None:
    """Above 0, and no smaller than a raster can hold."""
    geobox = GeoBox((60, 80), Affine(10, 0, 0, 0, -10, 0), 32718)
    with pytest.raises(SceneError, match="resolution"):
        at_resolution(geobox, resolution)


def test_resolution_of_a_turned_grid(tmp_path: Path):
    """Rotation and the first corner stay; the pixels are means along the turned axes."""
    turned = Affine(8, 6, 400_000, 6, -8, 4_100_000)
    file = write_geotiff(tmp_path / "a.tif", random_scene((60, 80)), transform=turned)
    source = opened(file, resolution=20)
    np.testing.assert_allclose(
        tuple(source.scene.geobox.affine)[:6], (16, 12, 400_000, 12, -16, 4_100_000)
    )
    means = random_scene((60, 80)).reshape(3, 30, 2, 40, 2).astype(float).mean(axis=(2, 4))
    np.testing.assert_array_equal(read(source)[0], np.floor(means + 0.5))


def test_turned_grid_onto_north_up(tmp_path: Path):
    """Where rows are no rows, GDAL's warper does it, in one CRS as between two."""
    turned = Affine(8, 6, 400_000, 6, -8, 4_100_000)
    file = write_geotiff(tmp_path / "a.tif", random_scene((60, 80)), transform=turned)
    place = Affine(10, 0, 400_000, 0, -10, 4_100_300)
    like = blank(tmp_path / "like.tif", (90, 110), place, "EPSG:32618")
    got, valid = read(opened(file, like=str(like)))
    with (
        rasterio.open(file) as dataset,
        WarpedVRT(dataset, resampling=Resampling.bilinear, add_alpha=True, transform=place,
                  height=90, width=110, crs="EPSG:32618", XSCALE=1, YSCALE=1) as vrt,
    ):  # fmt: skip
        want, there = vrt.read((1, 2, 3)), vrt.read(4) > 0
    np.testing.assert_array_equal(valid, there)
    assert 0.3 < valid.mean() < 0.7
    np.testing.assert_allclose(got[:, valid].astype(int), want[:, valid].astype(int), atol=1)


def test_average_across_zones(tmp_path: Path):
    """A coarser grid of another CRS averages; less than half a pixel of ground is not valid."""
    file = write_geotiff(tmp_path / "a.tif", np.full((1, 300, 300), 7, np.uint8))
    coarse = Affine(100, 0, 933_000, 0, -100, 4_111_500)
    like = blank(tmp_path / "like.tif", (40, 40), coarse, OTHER_ZONE)
    got, valid = read(opened(file, like=str(like)))
    assert abs(valid.sum() * 100 * 100 / (3000 * 3000) - 1) < 0.03
    assert (got[0][valid] == 7).all()
    fine = np.random.default_rng(0).integers(0, 200, (1, 300, 300)).astype(np.uint8)
    noisy, seen = read(opened(write_geotiff(tmp_path / "b.tif", fine), like=str(like)))
    assert abs(noisy[0][seen].std() / (fine.std() / 10) - 1) < 0.25  # a mean of 100 pixels


def test_aligned_like_copies_pixels(tmp_path: Path):
    """A grid with the same pixels is only another extent: nothing is interpolated."""
    image = random_scene(dtype=np.float32)
    file = write_geotiff(tmp_path / "a.tif", image)
    place = Affine(10, 0, 400_050, 0, -10, 4_100_030)
    like = blank(tmp_path / "like.tif", (20, 130), place, "EPSG:32618")
    got, valid = read(opened(file, like=str(like)))
    np.testing.assert_array_equal(got[:, 3:, :105], image[:, :17, 5:])
    want = np.zeros((20, 130), bool)
    want[3:, :105] = True
    np.testing.assert_array_equal(valid, want)


def test_plain_images_can_be_resized(tmp_path: Path):
    """Without a CRS pixels are the unit."""
    file = write_geotiff(tmp_path / "a.tif", random_scene((40, 60)), crs=None)
    source = opened(file, resolution=20)
    assert source.scene.shape == (20, 30)
    assert len(source.warnings) == 1
    assert read(source)[1].all()


def test_like_needs_a_crs_on_both_sides(tmp_path: Path):
    """Pixels without a place cannot be brought to one."""
    a = write_geotiff(tmp_path / "a.tif", random_scene(), crs=None)
    b = write_geotiff(tmp_path / "b.tif", random_scene())
    with pytest.raises(SceneMismatchError, match=r"a\.tif has none; assign one"):
        opened(a, like=str(b))
    with pytest.raises(SceneMismatchError, match="the grid it is brought to has none"):
        opened(b, like=str(a))


def test_like_elsewhere(tmp_path: Path):
    """A grid that the scene does not reach is an error at once."""
    file = write_geotiff(tmp_path / "a.tif", random_scene())
    like = blank(tmp_path / "b.tif", (9, 9), Affine(1, 0, 2, 0, -1, 3), "EPSG:4326")
    with pytest.raises(SceneMismatchError, match=r"a\.tif has no pixel in common"):
        opened(file, like=str(like))
    with pytest.raises(SceneError, match="no such file"):
        opened(file, like=str(tmp_path / "c.tif"))


def test_a_pixel_of_everything_is_refused(tmp_path: Path):
    """A grid absurdly coarser than its source is refused before memory is taken."""
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:32618"}
    size = {"height": 60_000, "width": 60_000, "sparse_ok": True, "tiled": True}
    with rasterio.Env(), rasterio.open(path, "w", transform=AT_OTHER, **profile, **size):
        pass
    source = opened(path, resolution=300_000)
    with pytest.raises(StoreError, match="choose a finer one"):
        read(source)


def test_real_scene_at_30_m(data: Path):
    """The Virginia stack at 30 m: block means of the 10 m bands, area means of the others."""
    files = [data / f"scenes/s2_l1c_va_eastern_shore_{n}m.tif" for n in (10, 20)]
    source = opened(*files, resolution=30, bands=("blue", "swir22"))
    assert source.scene.shape == (649, 645)
    got, valid = read(source, Window(50, 40, 250, 300))
    with rasterio.open(files[0]) as dataset:
        fine = dataset.read(1, window=((150, 750), (120, 900)))
    means = fine.reshape(200, 3, 260, 3).astype(np.float64).mean(axis=(1, 3))
    np.testing.assert_array_equal(got[0], np.floor(means + 0.5))
    assert valid.all()
    with (
        rasterio.open(files[1]) as dataset,
        WarpedVRT(dataset, resampling=Resampling.average, height=649, width=645,
                  crs=dataset.crs, transform=source.scene.geobox.affine) as vrt,
    ):  # fmt: skip
        want = vrt.read(3, window=((50, 250), (40, 300)))
    np.testing.assert_allclose(got[1].astype(int), want.astype(int), atol=1)


# --- the pieces --------------------------------------------------------------------------------


@given(windows(low=0))
def test_blocks_cover_a_window(window: Window):
    """Fixed blocks partition what a window touches; quarters partition a block."""
    scene = (700, 700)
    window = Window(*(7 * v for v in (window.top, window.left, window.bottom, window.right)))
    window = window.intersect(Window(0, 0, *scene))
    found = list(blocks(window, scene))
    assert sum(b.intersect(window).size for b in found) == window.size
    for block in found:
        assert block.top % BLOCK == 0
        parts = list(quarters(block))
        assert sum(part.size for part in parts) == block.size
        assert len(set(parts)) == len(parts)


def test_grids_on_each_other():
    """Offsets, sizes, footprints and other resolutions, by hand."""
    one = GeoBox((30, 40), Affine(10, 0, 400_000, 0, -10, 4_000_000), "EPSG:32618")
    two = GeoBox((30, 40), Affine(10, 0, 400_100, 0, -10, 4_000_050), "EPSG:32618")
    assert pixel_offset(two, one) == (-5, 10)
    assert pixel_offset(one, GeoBox((3, 4), one.affine, None)) is None
    assert footprint(two, one) == Window(0, 10, 25, 40)
    assert pixel_size(one) == 10
    degrees = GeoBox((10, 10), Affine(0.001, 0, 5, 0, -0.001, 60.005), "EPSG:4326")
    assert abs(pixel_size(degrees) - 111.32 * 0.5**0.5) < 0.05
    feet = GeoBox((10, 10), Affine(10, 0, 0, 0, -10, 0), "EPSG:2263")
    assert abs(pixel_size(feet) - 3.048) < 1e-3
    flipped = GeoBox((30, 41), Affine(10, 0, 400_000, 0, 10, 4_000_000), "EPSG:32618")
    assert tuple(at_resolution(flipped, 20).shape) == (15, 21)
    assert at_resolution(flipped, 20).affine == Affine(20, 0, 400_000, 0, 20, 4_000_000)


def test_grid_that_reaches_beyond_the_globe(tmp_path: Path):
    """Pixels that have no place on Earth are not valid, those beside them are."""
    at = Affine(20_000, 0, 0, 0, -20_000, 9_900_000)
    file = write_geotiff(
        tmp_path / "a.tif", np.full((1, 990, 50), 9, np.uint8), crs="EPSG:32618", transform=at
    )
    globe = "+proj=ortho +lat_0=40 +lon_0=-75 +R=6371000 +units=m +no_defs"
    place = Affine(40_000, 0, -8_000_000, 0, -40_000, 8_000_000)
    like = blank(tmp_path / "like.tif", (400, 400), place, globe)
    source = opened(file, like=str(like))
    got, valid = read(source)
    assert not valid[:20].any()  # space
    assert valid[150:250, 205].all()  # the meridian of the zone, around 40 degrees north
    np.testing.assert_array_equal(got[0], np.where(valid, 9, 0))
    part, seen = read(source, Window(150, 190, 260, 210))
    np.testing.assert_array_equal(seen, valid[150:260, 190:210])
    np.testing.assert_array_equal(part, got[:, 150:260, 190:210])


def test_coarse_blocks_are_quartered(tmp_path: Path):
    """A block that takes millions of pixels is computed in parts, and none is lost."""
    image = np.random.default_rng(1).integers(1, 200, (1, 3000, 3000), dtype=np.uint8)
    file = write_geotiff(tmp_path / "a.tif", image, tiled=True)
    like = blank(
        tmp_path / "like.tif", (40, 40), Affine(900, 0, 932_000, 0, -900, 4_112_000), OTHER_ZONE
    )
    got, valid = read(opened(file, like=str(like)))
    assert abs(valid.sum() * 900 * 900 / (30_000 * 30_000) - 1) < 0.02
    assert abs(got[0][valid].mean() - image.mean()) < 1
    assert got[0][valid].std() < 2


def test_part_of_the_whole_world(tmp_path: Path):
    """A grid may be a speck of its source, far from where the source's middle makes sense."""
    image = random_scene((1800, 3600), 1, dtype=np.float32)
    world = Affine(0.1, 0, -180, 0, -0.1, 90)
    file = write_geotiff(tmp_path / "a.tif", image, crs="EPSG:4326", transform=world)
    place = Affine(4000, 0, 300_000, 0, -4000, 4_500_000)
    like = blank(tmp_path / "like.tif", (60, 70), place, "EPSG:32618")
    got, valid = read(opened(file, like=str(like)))
    assert valid.all()
    lon, lat = Transformer.from_crs(32618, 4326, always_xy=True).transform(402_000, 4_398_000)
    col, row = (lon + 180) / 0.1 - 0.5, (90 - lat) / 0.1 - 0.5
    x, y = int(col), int(row)
    square, fx, fy = image[0, y : y + 2, x : x + 2].astype(float), col - x, row - y
    want = (1 - fy) * (square[0] @ [1 - fx, fx]) + fy * (square[1] @ [1 - fx, fx])
    assert abs(got[0, 25, 25] - want) < 5e-3  # it changes by 0.1 from pixel to pixel


@pytest.mark.parametrize("west", [179.97, -180.03])
def test_degrees_across_the_date_line(tmp_path: Path, west: float) -> None:
    """The ground beyond 180 degrees is read, as 180.01 or as -179.99, onto UTM and degrees."""
    degrees = Affine(5e-4, 0, west, 0, -5e-4, -16.5)
    image = np.arange(1, 100 * 120 + 1, dtype=np.float32).reshape(1, 100, 120)
    scene = write_geotiff(tmp_path / "degrees.tif", image, crs="EPSG:4326", transform=degrees)
    zone = Affine(60, 0, 177_000, 0, -60, 8_173_000)
    like = blank(tmp_path / "utm.tif", (80, 90), zone, "EPSG:32701")
    pixels, valid = read(opened(scene, like=str(like)))
    y, x = np.mgrid[0:80, 0:90] + 0.5
    move = Transformer.from_crs("EPSG:32701", "EPSG:4326", always_xy=True)
    east, north = move.transform(zone.a * x + zone.c, zone.e * y + zone.f)
    assert east.min() < -179 < 179 < east.max()  # the grid crosses the line
    col = (east - west) % 360 / 5e-4 - 0.5
    row = (-16.5 - north) / 5e-4 - 0.5
    inside = (col > 1) & (col < 118) & (row > 1) & (row < 98)
    assert inside.mean() > 0.9
    assert valid[inside].all()
    assert np.abs(pixels[0] - (1 + 120 * row + col))[inside].max() < 0.5
    turned = Affine(5e-4, 0, west - 360 if west > 0 else west + 360, 0, -5e-4, -16.5)
    around = blank(tmp_path / "around.tif", (100, 120), turned, "EPSG:4326")
    again, seen = read(opened(scene, like=str(around)))
    assert seen.all()
    np.testing.assert_array_equal(again, image)
