"""Scenes from one file: pixels, validity, names and refusals, with rasterio as the oracle."""

from __future__ import annotations

import os
import pickle
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from tilemap.errors import SceneError, SceneMismatchError, StoreError
from tilemap.geometry import Window
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.stores.grids import apply
from tilemap.testing import random_scene, write_geotiff

NORTH_UP = Affine(10, 0, 400_000, 0, -10, 4_100_000)
ROTATED = Affine(8.66, 5, 400_000, 5, -8.66, 4_100_000)
SOUTH_UP = Affine(10, 0, 400_000, 0, 10, 4_000_000)


def read_all(source: SceneSource) -> tuple[np.ndarray, np.ndarray]:
    """The whole scene."""
    with source.open() as reader:
        return reader.read(Window(0, 0, *source.scene.shape))


def opened(*files: str | os.PathLike[str], **asked: object) -> SceneSource:
    """A scene of some files."""
    return open_scene(SceneRequest(tuple(map(str, files)), **asked))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "float32"])
@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED, SOUTH_UP], ids=["north", "turn", "south"])
def test_pixels_and_grid_are_the_files(tmp_path: Path, dtype: str, transform: Affine):
    """Every number, the exact geotransform and the CRS, whichever way the grid runs."""
    image = random_scene(dtype=dtype if dtype != "int8" else np.uint8)
    image = (image // 2).astype(dtype) if dtype == "int8" else image
    file = write_geotiff(tmp_path / "a.tif", image, transform=transform)
    source = opened(file)
    got, valid = read_all(source)
    np.testing.assert_array_equal(got, image)
    assert got.dtype == image.dtype == source.scene.dtype
    assert valid.all()
    assert source.scene.geobox.affine == transform
    assert source.scene.geobox.crs.epsg == 32618
    colors = ("red", "green", "blue")  # what GDAL calls three bands of bytes
    unknown = ("band_1", "band_2", "band_3")
    assert source.scene.band_names == (colors if dtype == "uint8" else unknown)
    assert source.warnings == ()
    assert source.files == (str(file),)


def test_no_crs_is_one_warning(tmp_path: Path):
    """A plain image keeps its pixels; the user is told once, and rasterio says nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        file = write_geotiff(
            tmp_path / "a.tif", random_scene(), crs=None, transform=Affine.identity()
        )
    source = opened(file)
    got, valid = read_all(source)
    np.testing.assert_array_equal(got, random_scene())
    assert source.scene.geobox.crs is None
    assert source.warnings == ("no CRS: pixels are kept as they are, the output has none",)
    assert valid.all()


def test_custom_crs_is_kept(tmp_path: Path):
    """A CRS without a code stays what it is."""
    text = "+proj=sinu +R=6371007.181 +units=m +no_defs"
    source = opened(write_geotiff(tmp_path / "a.tif", random_scene(), crs=text))
    wanted = rasterio.crs.CRS.from_string(text)
    assert rasterio.crs.CRS.from_wkt(source.scene.geobox.crs.to_wkt()) == wanted


@given(corner=st.tuples(st.integers(0, 75), st.integers(0, 110)), size=st.integers(0, 60))
def test_windows_are_parts(
    tmp_path_factory: pytest.TempPathFactory, corner: tuple[int, int], size: int
):
    """Any window is the part of the whole, in the order of the bands asked for."""
    path = tmp_path_factory.getbasetemp() / "parts.tif"
    image = random_scene()
    if not path.exists():
        names = ("blue", "green", "red")
        write_geotiff(path, image, names=names, tiled=True, blockxsize=32, blockysize=16)
    source = opened(path, bands=("red", "blue"))
    window = Window(*corner, min(corner[0] + size, 75), min(corner[1] + size, 110))
    with source.open() as reader:
        got, valid = reader.read(window)
    np.testing.assert_array_equal(got, image[[2, 0], *window.slices()])
    assert valid.shape == window.shape
    assert valid.all()


def test_window_must_lie_inside(tmp_path: Path):
    """The reader does not invent what lies beyond the scene."""
    source = opened(write_geotiff(tmp_path / "a.tif", random_scene()))
    with source.open() as reader, pytest.raises(SceneError, match=r"\(75, 110\).*top=-1"):
        reader.read(Window(-1, 0, 5, 5))


# --- validity ----------------------------------------------------------------------------------


def test_declared_nodata(tmp_path: Path):
    """A pixel is valid only if it was observed in every band; what is not is 0."""
    image = random_scene(dtype=np.int16)
    image[0, 3, 4] = image[2, 5, 6] = -9999
    source = opened(write_geotiff(tmp_path / "a.tif", image, nodata=-9999))
    got, valid = read_all(source)
    assert (~valid).nonzero()[0].tolist() == [3, 5]
    assert (~valid).nonzero()[1].tolist() == [4, 6]
    np.testing.assert_array_equal(got, np.where(valid, image, 0))
    assert source.scene.bands[0].nodata == -9999


def test_undeclared_nodata(tmp_path: Path):
    """``nodata`` of the request counts where the file declares none, and only there."""
    image = random_scene()
    image[1, 3, 4] = 0
    plain = write_geotiff(tmp_path / "a.tif", image)
    assert read_all(opened(plain))[1].all()
    assert (~read_all(opened(plain, nodata=0))[1]).sum() == 1
    own = write_geotiff(tmp_path / "b.tif", image, nodata=7)
    kept = opened(own, nodata=0)
    assert read_all(kept)[1].all()
    (note,) = [w for w in kept.warnings if "nodata" in w]
    assert "b.tif declares 7 as nodata itself; 0 counts where a file declares none" in note
    assert not [w for w in opened(own, nodata=7).warnings if "nodata" in w]


def test_one_file_of_a_band_that_declares_nodata_does_not_speak_for_the_others(tmp_path: Path):
    """Fill of the neighbour is looked for; of both, nobody's fill is left."""
    image = random_scene(dtype=np.int16)
    declares = write_geotiff(tmp_path / "a.tif", image, nodata=-9999, scale=1e-4)
    beside = Affine(10, 0, 400_000, 0, -10, 4_100_000 - 10 * image.shape[1])
    silent = write_geotiff(tmp_path / "b.tif", image, transform=beside, scale=1e-4)
    for files in ((declares, silent), (silent, declares)):
        assert [b.nodata for b in opened(*files).scene.bands] == [None] * len(image)
    same = opened(declares, silent, nodata=-9999)
    assert [b.nodata for b in same.scene.bands] == [-9999] * len(image)


@pytest.mark.parametrize("nodata", [-9999, 0.5, 70000])
def test_nodata_a_type_cannot_hold(tmp_path: Path, nodata: float):
    """Such a number marks nothing, and is no error."""
    source = opened(write_geotiff(tmp_path / "a.tif", random_scene()), nodata=nodata)
    assert read_all(source)[1].all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nodata", [None, np.nan, -3.4028234663852886e38, -9999.1])
def test_not_finite_is_never_valid(tmp_path: Path, dtype: str, nodata: float | None):
    """NaN and infinity are not observed, nodata is compared as the file stores it."""
    image = random_scene(dtype=dtype)
    image[0, 3, 4], image[1, 5, 6] = np.nan, np.inf
    if nodata is not None:
        image[2, 7, 8] = nodata
    got, valid = read_all(opened(write_geotiff(tmp_path / "a.tif", image, nodata=nodata)))
    assert (~valid).sum() == (2 if nodata is None else 3)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got[:, valid], image[:, valid])


@pytest.mark.parametrize(
    ("dtype", "nodata", "stored"),
    [
        ("float32", -3.4e38, np.finfo("float32").min),
        ("float32", -3.40282e38, np.finfo("float32").min),
        ("float32", 3.4e38, np.finfo("float32").max),
        ("float32", -9999.1, np.nextafter(np.float32(-9999.1), np.float32(0))),
        ("float64", -1.797e308, np.finfo("float64").min),
    ],
)
def test_nodata_with_fewer_digits_than_the_pixels(
    tmp_path: Path, dtype: str, nodata: float, stored: float
) -> None:
    """What GDAL takes for nodata is not observed; a number beside it is."""
    image = random_scene(dtype=dtype)
    image[0, :5] = stored
    image[1, 7, :4] = (-9998.1, 1e30, -1e30, 0.0)
    file = write_geotiff(tmp_path / "a.tif", image, nodata=nodata)
    with rasterio.open(file) as dataset:
        expected = (dataset.read_masks() > 0).all(axis=0)
    assert (~expected).sum() == image[0, :5].size
    np.testing.assert_array_equal(read_all(opened(file))[1], expected)


def test_alpha_is_validity_not_data(tmp_path: Path):
    """RGB and alpha are three bands by the names of their colours."""
    image = random_scene(bands=4, dtype=np.uint8)
    image[3] = 255
    image[3, 10:20, 30:] = 0
    file = write_geotiff(tmp_path / "a.tif", image, photometric="RGB", alpha="YES")
    source = opened(file)
    got, valid = read_all(source)
    assert source.scene.band_names == ("red", "green", "blue")
    np.testing.assert_array_equal(valid, image[3] > 0)
    np.testing.assert_array_equal(got, np.where(valid, image[:3], 0))


@pytest.mark.parametrize("internal", [True, False])
def test_mask_inside_and_beside_the_file(tmp_path: Path, internal: bool):
    """A mask counts, in the file or in the .msk beside it, which is then one of the files."""
    image = random_scene()
    mask = np.random.default_rng(1).random((75, 110)) > 0.3
    file = write_geotiff(tmp_path / "a.tif", image)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(file, "r+") as dataset:
        dataset.write_mask(mask)
    source = opened(file)
    np.testing.assert_array_equal(read_all(source)[1], mask)
    assert source.files == ((str(file),) if internal else (str(file), f"{file}.msk"))


def test_a_mask_for_each_band(tmp_path: Path):
    """A pixel that any band masks was not observed."""
    image = random_scene()
    masks = np.random.default_rng(2).random(image.shape) > 0.3
    file = write_geotiff(tmp_path / "a.tif", image)
    profile = {"driver": "GTiff", "width": 110, "height": 75, "count": 3, "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(f"{file}.msk", "w", **profile) as beside:
            beside.write(masks.astype(np.uint8) * 255)
            beside.update_tags(**{f"INTERNAL_MASK_FLAGS_{band}": "0" for band in (1, 2, 3)})
    np.testing.assert_array_equal(read_all(opened(file))[1], masks.all(axis=0))


def test_sidecar_declares_nodata(tmp_path: Path):
    """What .aux.xml says counts, though folders are not listed."""
    image = random_scene()
    image[0, 1, 2] = 0
    file = write_geotiff(tmp_path / "a.tif", image)
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>0</NoDataValue>'
        "<Description>nir</Description></PAMRasterBand></PAMDataset>"
    )
    source = opened(file)
    assert (~read_all(source)[1]).sum() == 1
    assert source.scene.band_names[0] == "nir"
    assert source.files == (str(file), f"{file}.aux.xml")


# --- names, scaling, date ----------------------------------------------------------------------


def test_missing_band_names_both_lists(tmp_path: Path):
    """What is wanted, what there is, and how to say what is what."""
    file = write_geotiff(tmp_path / "s2.tif", random_scene(), names=("B02", "B03", "B04"))
    with pytest.raises(
        SceneError, match=r"lacks swir16: wanted red, swir16, found blue, green, red; .*`bands`"
    ):
        opened(file, bands=("red", "swir16"))


def test_band_names_of_the_user(tmp_path: Path):
    """They replace what the file says, are counted, and may be in any habit of naming."""
    image = random_scene()
    file = write_geotiff(tmp_path / "a.tif", image, names=("B02", "B03", "B04"))
    source = opened(file, band_names=("NIR", "swir1", "vv"), bands=("swir16", "nir"))
    np.testing.assert_array_equal(read_all(source)[0], image[[1, 0]])
    with pytest.raises(SceneError, match=r"all 3 bands .* got 2: a, b"):
        opened(file, band_names=("a", "b"))


def test_near_infrared_stands_in(tmp_path: Path):
    """Where only the narrow one is there, it is taken, and the user is told."""
    file = write_geotiff(tmp_path / "a.tif", random_scene(), names=("B04", "B8A", "B11"))
    source = opened(file, bands=("red", "nir"))
    assert source.scene.band_names == ("red", "nir")
    assert source.warnings == ("no band nir: nir08 stands in for it",)
    with pytest.raises(SceneError, match="lacks nir"):
        opened(file, bands=("nir", "nir08"))


def test_names_that_repeat_are_unknown(tmp_path: Path):
    """Two bands of one name cannot be told apart, so neither has it."""
    file = write_geotiff(tmp_path / "a.tif", random_scene(), names=("red", "red", "nir"))
    assert opened(file).scene.band_names == ("band_1", "band_2", "nir")


def test_scaling_declared_and_given(tmp_path: Path):
    """The user's scale wins over the file's; pixels stay stored numbers."""
    image = random_scene()
    file = write_geotiff(tmp_path / "a.tif", image, scale=1e-4)
    band = opened(file).scene.bands[1]
    assert (band.scale, band.offset, band.scaled) == (1e-4, 0.0, True)
    source = opened(file, scale=2e-4, offset=-0.1)
    band = source.scene.bands[1]
    assert (band.scale, band.offset, band.scaled) == (2e-4, -0.1, True)
    np.testing.assert_array_equal(read_all(source)[0], image)
    plain = write_geotiff(tmp_path / "b.tif", image)
    assert not opened(plain).scene.bands[0].scaled
    assert opened(plain, offset=-0.1).scene.bands[0].scale == 1.0


def test_date_and_name_come_from_the_file(tmp_path: Path):
    """The first file's stem names the scene."""
    scene = opened(write_geotiff(tmp_path / "s2_20230601_x.tif", random_scene())).scene
    assert scene.name == "s2_20230601_x"
    assert scene.date == datetime(2023, 6, 1, tzinfo=UTC)


# --- travelling, changing ----------------------------------------------------------------------


def test_source_travels(tmp_path: Path):
    """A source is small and reads the same after a journey."""
    source = opened(write_geotiff(tmp_path / "a.tif", random_scene()))
    packed = pickle.dumps(source)
    assert len(packed) < 2000
    again = pickle.loads(packed)
    assert again == source
    np.testing.assert_array_equal(read_all(again)[0], read_all(source)[0])


def test_file_replaced_since(tmp_path: Path):
    """Another shape than planned is an error when read, not other pixels."""
    source = opened(write_geotiff(tmp_path / "a.tif", random_scene()))
    write_geotiff(tmp_path / "a.tif", random_scene((80, 120)))
    with pytest.raises(StoreError, match=r"a\.tif has changed since"):
        read_all(source)


# --- refusals ----------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path):
    """The path is named."""
    with pytest.raises(SceneError, match=r"no such file: .*nowhere\.tif"):
        opened(tmp_path / "nowhere.tif")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/vsicurl/http://x/a.tif", "must be a local file"),
        ("/vsizip/a.zip/a.tif", "must be a local file"),
        ("http://x/a.tif", "list x in `allow_hosts`"),
        ("s3://xyz/a.tif", "list s3://xyz in `allow_hosts`"),
        ("file:///a.tif", "must begin with"),
    ],
)
def test_nothing_but_local_files(path: str, text: str):
    """Nothing of a scene leads onto the network, unless its host is listed, or into archives."""
    with pytest.raises(SceneError, match=text):
        opened(path)


def test_not_a_raster(tmp_path: Path):
    """Text, emptiness, and a picture of another format are no rasters, whatever their suffix."""
    for number, content in enumerate((b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 90)):
        file = tmp_path / f"{number}.tif"
        file.write_bytes(content)
        with pytest.raises(SceneError, match=r"not a raster of an allowed format.*\.tif"):
            opened(file)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SceneError, match=r"a folder must hold .*folder has none"):
        opened(tmp_path / "folder")


@pytest.mark.parametrize("dtype", ["complex64", "int64", "uint64"])
def test_numbers_that_cannot_be_mapped(tmp_path: Path, dtype: str):
    """Complex and 64-bit numbers are refused by name."""
    image = np.ones((1, 8, 9), dtype)
    with pytest.raises(SceneError, match=f"band 1 of .*a.tif has {dtype}"):
        opened(write_geotiff(tmp_path / "a.tif", image))


def test_truncated_file_is_found_at_once(tmp_path: Path):
    """Headers are whole, pixels are not: that shows before anything is computed."""
    file = write_geotiff(tmp_path / "a.tif", random_scene((300, 400)), tiled=True)
    with file.open("r+b") as raw:
        raw.truncate(file.stat().st_size * 2 // 3)
    with pytest.raises(SceneError, match=r"a\.tif is truncated: it has \d+ bytes"):
        opened(file)


def test_damaged_pixels_are_an_error(tmp_path: Path):
    """A block that cannot be decoded is no zeros."""
    image = random_scene((256, 256))
    file = write_geotiff(tmp_path / "a.tif", image, compress="deflate", tiled=True)
    content = bytearray(file.read_bytes())
    content[408:1408] = b"\xff" * 1000  # where its only block begins
    file.write_bytes(content)
    source = opened(file)
    with pytest.raises(StoreError, match=r"cannot read .*a\.tif.*truncated or damaged"):
        read_all(source)


def test_geotransform_without_area(tmp_path: Path):
    """A grid whose pixels have no area cannot be placed."""
    file = write_geotiff(tmp_path / "a.tif", random_scene())
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><GeoTransform>4e5, 0, 0, 4e6, 0, -10</GeoTransform></PAMDataset>"
    )
    with rasterio.Env(), rasterio.open(file) as dataset:
        if dataset.transform.determinant != 0:
            pytest.skip("this GDAL prefers the geotransform of the file")
    with pytest.raises(SceneError, match="cannot be inverted"):
        opened(file)


# --- real files --------------------------------------------------------------------------------


def test_real_jpeg2000(data: Path):
    """A JPEG 2000 in a sinusoidal CRS without a code reads as rasterio reads it."""
    file = data / "change/sinop_modis_ndvi/TERRA_MODIS_012010_NDVI_2013-09-14.jp2"
    source = opened(file)
    got, valid = read_all(source)
    with rasterio.open(file) as dataset:
        np.testing.assert_array_equal(got, dataset.read())
        assert source.scene.geobox.affine == dataset.transform
        assert rasterio.crs.CRS.from_wkt(source.scene.geobox.crs.to_wkt()) == dataset.crs
    assert valid.all()
    assert source.scene.date == datetime(2013, 9, 14, tzinfo=UTC)
    assert source.scene.dtype == np.int16


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("s2_l1c_va_eastern_shore_10m", ("blue", "green", "red", "nir")),
        ("s2_l1c_va_eastern_shore_20m", ("nir08", "swir16", "swir22")),
        ("s2_l1c_va_eastern_shore_60m", ("coastal", "nir09", "cirrus")),
        ("l8_l1tp_224078_20200518_b234", ("blue", "green", "red")),
        ("s2_flanders_2023_b08b04b03_u8", ("nir", "red", "green")),
        ("aerial_kampala_z21_1238448_1046528_rgb", ("red", "green", "blue")),
    ],
)
def test_real_names_and_pixels(data: Path, name: str, bands: tuple[str, ...]):
    """The bands of real files are known, and a window is what rasterio reads."""
    file = data / "scenes" / f"{name}.tif"
    source = opened(file)
    assert source.scene.band_names == bands
    window = Window(100, 60, 300, 310)
    with source.open() as reader, rasterio.open(file) as dataset:
        got, _ = reader.read(window)
        want = dataset.read(window=((100, 300), (60, 310)))
    np.testing.assert_array_equal(got, want)


def test_pages_that_are_not_read_are_named(tmp_path: Path):
    """A TIFF of four pages is a scene of its first one, and says so; overviews are no pages."""
    file, pages = tmp_path / "pages.tif", random_scene((40, 50), 4)
    for number, page in enumerate(pages):
        write_geotiff(file, page[None], **({"APPEND_SUBDATASET": "YES"} if number else {}))
    source = opened(file)
    np.testing.assert_array_equal(read_all(source)[0], pages[:1])
    assert len(source.warnings) == 1
    assert "has 3 more pages, only the first is read" in source.warnings[0]
    plain = write_geotiff(tmp_path / "plain.tif", random_scene((600, 700)))
    with rasterio.open(plain, "r+") as dataset:
        dataset.build_overviews([2])
    assert opened(plain).warnings == ()


def with_points(path: Path, points: list[tuple[float, ...]], **more: object) -> Path:
    """A raster without a geotransform, with ground control points (row, col, x, y)."""
    profile = {"count": 2, "height": 40, "width": 50, "dtype": "uint16"}
    gcps = [GroundControlPoint(*point) for point in points]
    crs = "EPSG:32618" if gcps else None
    with rasterio.open(path, "w", driver="GTiff", crs=crs, gcps=gcps, **profile, **more) as file:
        file.write(random_scene((40, 50), 2))
    return path


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED], ids=["north", "turn"])
@pytest.mark.parametrize("count", [3, 4, 9])
def test_control_points_that_are_a_geotransform(tmp_path: Path, transform: Affine, count: int):
    """Points that one geotransform fits place the scene as that does; a note says so."""
    places = [(0, 0), (0, 50), (40, 0), (40, 50), (20, 25), (3, 7), (33, 9), (5, 44), (20, 0)]
    points = [(r, c, *apply(transform, c, r)) for r, c in places[:count]]
    source = opened(with_points(tmp_path / "a.tif", points))
    assert source.scene.geobox.crs.epsg == 32618
    np.testing.assert_allclose(tuple(source.scene.geobox.affine), tuple(transform), atol=1e-6)
    assert f"placed by its {count} ground control points" in source.warnings[0]
    like = write_geotiff(tmp_path / "like.tif", random_scene((40, 50)), transform=transform)
    image, valid = read_all(opened(source.files[0], like=str(like)))
    assert valid.all()
    np.testing.assert_array_equal(image, read_all(source)[0])


def test_control_points_that_bend_the_scene(tmp_path: Path):
    """They are not used, and the note and the error of a grid say how to use them."""
    points = [
        (r, c, *apply(NORTH_UP, c, r + (3 if (r, c) == (20, 25) else 0)))
        for r, c in ((0, 0), (0, 50), (40, 0), (40, 50), (20, 25))
    ]
    file = with_points(tmp_path / "a.tif", points)
    source = opened(file)
    assert source.scene.geobox.crs is None
    assert "5 ground control points that no geotransform fits" in source.warnings[0]
    assert "gdalwarp -tps" in source.warnings[0]
    like = write_geotiff(tmp_path / "like.tif", random_scene((40, 50)))
    with pytest.raises(SceneMismatchError, match="gdalwarp -tps"):
        opened(file, like=str(like))


def test_rational_polynomials_are_named(tmp_path: Path):
    """A scene that only its RPC place is told from one without any place."""
    rpcs = RPC(
        height_off=0, height_scale=1, lat_off=37, lat_scale=1, line_off=20, line_scale=20,
        line_num_coeff=[0.0, 0, 1] + [0.0] * 17, line_den_coeff=[1.0] + [0.0] * 19,
        long_off=-76, long_scale=1, samp_off=25, samp_scale=25,
        samp_num_coeff=[0.0, 1] + [0.0] * 18, samp_den_coeff=[1.0] + [0.0] * 19,
    )  # fmt: skip
    file = with_points(tmp_path / "a.tif", [], rpcs=rpcs)
    assert "rational polynomials (RPC)" in opened(file).warnings[0]


@pytest.mark.parametrize("length", [247, 251, 255])
def test_a_name_as_long_as_a_name_may_be(tmp_path: Path, length: int):
    """Sidecars whose names would be too long are not there."""
    file = write_geotiff(tmp_path / "s.tif", random_scene()).rename(
        tmp_path / f"{'L' * (length - 4)}.tif"
    )
    np.testing.assert_array_equal(read_all(opened(file))[0], random_scene())
