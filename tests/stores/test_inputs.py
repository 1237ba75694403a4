"""What a band is: the first source that says it wins, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.testing import random_scene, write_geotiff

RGBN = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
SHAPE = (12, 17)


def opened(*files: Path, **asked: object) -> SceneSource:
    """A scene of some files."""
    return open_scene(SceneRequest(tuple(map(str, files)), **asked))


def names_of(*files: Path, **asked: object) -> tuple[str, ...]:
    """The names of its bands."""
    return opened(*files, **asked).scene.band_names


def planes(*codes: str, dtype: str = "uint16", path: Path, **profile: object) -> Path:
    """A raster whose bands are described so."""
    image = random_scene(SHAPE, len(codes), dtype=dtype)
    return write_geotiff(path, image, names=codes, **profile)


def colored(path: Path, *colors: ColorInterp) -> Path:
    """The file, its bands tagged so."""
    with rasterio.open(path, "r+") as file:
        file.colorinterp = colors
    return path


def tagged(path: Path, band: int = 0, **tags: str) -> Path:
    """The file, with metadata."""
    with rasterio.open(path, "r+") as file:
        file.update_tags(band, **tags)
    return path


def read(source: SceneSource) -> tuple[np.ndarray, np.ndarray]:
    """The whole scene."""
    with source.open() as reader:
        return reader.read(Window(0, 0, *source.scene.shape))


# --- codes without their sensor ----------------------------------------------------------------


@pytest.mark.parametrize(
    "codes",
    [
        ("B2", "B3", "B4"),
        ("B02", "B03", "B04"),
        ("SR_B3", "SR_B4"),
        ("b1", "b2", "b3", "b4"),
        ("B01", "B02", "B04"),
        ("Band 3", "Band 4"),
    ],
)
def test_codes_of_an_unknown_sensor_name_nothing(tmp_path: Path, codes: tuple[str, ...]):
    """B4 is red for one sensor and near infrared for another: the user is asked."""
    file = planes(*codes, path=tmp_path / "stack.tif")
    assert names_of(file) == tuple(f"band_{n}" for n in range(1, len(codes) + 1))
    with pytest.raises(SceneError, match=r"lacks red: .* found band_1.* name the bands"):
        opened(file, bands=("red",))


def test_files_of_an_unknown_sensor_name_nothing(tmp_path: Path):
    """The same for the end of a file name, where each file has one band."""
    for code in ("B3", "B4"):
        planes("", path=tmp_path / f"somewhere_{code}.tif")
    assert names_of(tmp_path) == ("band_1", "band_2")


def test_colours_come_before_codes_that_only_count(tmp_path: Path):
    """An aerial picture whose bands are called b1 to b4 is red, green and blue by its colours."""
    file = colored(planes("b1", "b2", "b3", "b4", path=tmp_path / "ortho.tif"), *RGBN)
    assert names_of(file) == ("red", "green", "blue", "band_4")


def test_default_colours_name_no_false_colour(tmp_path: Path):
    """GDAL tags any three bands of bytes red, green and blue; codes show that they are not."""
    file = planes("B5", "B4", "B3", dtype="uint8", path=tmp_path / "false_colour.tif")
    assert names_of(file) == ("band_1", "band_2", "band_3")


@pytest.mark.parametrize("pattern", ["b{}", "Band {}", "band_{}"])
def test_names_that_count_are_no_codes(tmp_path: Path, pattern: str):
    """b1 to b4 of a Sentinel-2 stack may be B02, B03, B04 and B08: the sensor does not help."""
    counted = planes(*(pattern.format(n) for n in (1, 2, 3, 4)), path=tmp_path / "S2A_x.tif")
    assert names_of(counted) == ("band_1", "band_2", "band_3", "band_4")
    codes = planes(*(pattern.format(n) for n in (4, 3)), path=tmp_path / "LC08_x.tif")
    assert names_of(codes) == ("red", "green")


def test_codes_and_colours_that_disagree(tmp_path: Path):
    """Counted codes of a known sensor that contradict the colours leave both open."""
    file = planes("B1", "B2", "B3", dtype="uint8", path=tmp_path / "LC08_20200518_toa.tif")
    assert names_of(file) == ("band_1", "band_2", "band_3")
    same = colored(planes("B4", "B3", "B2", path=tmp_path / "LC08_20200518.tif"), *RGBN[:3])
    assert names_of(same) == ("red", "green", "blue")


def test_words_come_before_colours(tmp_path: Path):
    """A description in words wins over the tags that GDAL gives by default."""
    file = planes("nir", "red", "green", dtype="uint8", path=tmp_path / "a.tif")
    assert names_of(file) == ("nir", "red", "green")


def test_colours_beyond_the_visible(tmp_path: Path):
    """GDAL's tag of the near infrared is nobody's default: it names the band."""
    file = planes("", "", "", "", path=tmp_path / "a.tif")
    colored(file, *RGBN[:3], ColorInterp.nir)
    assert names_of(file) == ("red", "green", "blue", "nir")


def test_metadata_of_a_band_name_it(tmp_path: Path):
    """A common name among the metadata of a band counts as its description does."""
    file = planes("b1", "b2", path=tmp_path / "a.tif")
    tagged(file, 1, common_name="nir")
    tagged(file, 2, BAND_NAME="Red")
    assert names_of(file) == ("nir", "red")


def test_the_user_names_first(tmp_path: Path):
    """What the user says wins over words, codes and colours."""
    file = planes("nir", "red", "green", dtype="uint8", path=tmp_path / "S2A.tif")
    assert names_of(file, band_names=("blue", "green", "red")) == ("blue", "green", "red")


# --- sensors that are known --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codes", "names"),
    [
        (
            "LT05_224078_19900518",
            ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"),
            ("blue", "green", "red", "nir", "swir16", "swir22"),
        ),
        ("LE07_224078_20000518", ("SR_B3", "SR_B4"), ("red", "nir")),
        ("LM05_015034_19840801", ("B1", "B2", "B3"), ("green", "red", "nir08")),
        ("LM02_016034_19750801", ("B4", "B5", "B6"), ("green", "red", "nir08")),
        ("LC09_224078_20220518", ("SR_B4", "SR_B5"), ("red", "nir")),
        (
            "HLS.L30.T18SVG.2020139T153556.v2.0.stack",
            ("B02", "B03", "B04", "B05", "B06", "B07"),
            ("blue", "green", "red", "nir", "swir16", "swir22"),
        ),
        ("HLS.S30.T18SVG.2020139T153556.v2.0.stack", ("B04", "B8A"), ("red", "nir08")),
        ("MYD09GA.A2020139.h12v04.061", ("sur_refl_b01", "sur_refl_b02"), ("red", "nir")),
        (
            "AST_L1T_00305062003",
            ("B01", "B02", "B3N", "B04"),
            ("band_1", "band_2", "b3n", "band_4"),
        ),
    ],
)
def test_the_name_of_the_file_says_the_sensor(
    tmp_path: Path, name: str, codes: tuple[str, ...], names: tuple[str, ...]
):
    """A code is looked up in the table of the sensor that the file names, and in no other."""
    assert names_of(planes(*codes, path=tmp_path / f"{name}.tif")) == names


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ({"SPACECRAFT_ID": "LANDSAT_5", "SENSOR_ID": "TM"}, ("red", "nir")),
        ({"SPACECRAFT_ID": "LANDSAT_4", "SENSOR_ID": "MSS"}, ("nir08", "nir09")),
        ({"SPACECRAFT_NAME": "Sentinel-2A"}, ("green", "red")),
        ({"LANDSAT_PRODUCT_ID": "LC08_L2SP_017036_20130419_20200913_02_T2"}, ("green", "red")),
        ({"SPACECRAFT_ID": "LANDSAT_5"}, ("band_1", "band_2")),
        ({"COMMENT": "on the grid of Sentinel-2"}, ("band_1", "band_2")),
    ],
)
def test_metadata_of_the_file_say_the_sensor(
    tmp_path: Path, tags: dict[str, str], names: tuple[str, ...]
):
    """Tags of platform and instrument count, other words do not."""
    assert names_of(tagged(planes("B3", "B4", path=tmp_path / "x.tif"), **tags)) == names


def test_surface_reflectance_of_landsat_5(tmp_path: Path):
    """Earth Engine names no sensor, but the list is whole: the user learns what names rest on."""
    codes = ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7")
    file = planes(*codes, path=tmp_path / "export.tif")
    source = opened(file, bands=("red", "nir"))
    with rasterio.open(file) as dataset:
        np.testing.assert_array_equal(read(source)[0], dataset.read([3, 4]))
    assert [("Landsat 4 to 7" in note, "name them" in note) for note in source.warnings] == [
        (True, True)
    ]
    assert opened(planes(*codes, path=tmp_path / "LT05_x.tif")).warnings == ()
    eight = planes(*codes, "SR_B6", path=tmp_path / "other.tif")
    assert opened(eight).scene.band_names[:4] == ("coastal", "blue", "green", "red")


def test_one_file_says_the_sensor_for_all(tmp_path: Path):
    """Stacks of two resolutions share their sensor; where files name two, neither counts."""
    fine = planes("B04", "B08", path=tmp_path / "fine.tif")
    coarse = planes("B8A", "B11", path=tmp_path / "coarse.tif")
    assert names_of(fine, coarse) == ("red", "nir", "nir08", "swir16")
    other = planes("B5", path=tmp_path / "LC08_x.tif")
    third = planes("B4", path=tmp_path / "unknown.tif")
    assert names_of(coarse, other, third) == ("nir08", "swir16", "nir", "band_1")


def test_other_codes_are_other_planes(tmp_path: Path):
    """Files of unknown sensor with different codes are not taken for one band of a mosaic."""
    a = planes("B4", path=tmp_path / "a.tif")
    b = write_geotiff(tmp_path / "b.tif", random_scene((9, 9), 1), names=("B5",))
    assert names_of(a, b) == ("band_1", "band_2")


# --- quality layers and pictures ---------------------------------------------------------------


def test_quality_layers_of_a_folder_are_no_bands(tmp_path: Path):
    """A Landsat folder: the band that is nodata in a part is not filled from its quality layer."""
    stem = "LC08_L2SP_017036_20130419_20200913_02_T2_SR_"
    image = random_scene((16, 16), 1)
    image[:, :4] = 0
    write_geotiff(tmp_path / f"{stem}B1.TIF", image, nodata=0)
    quality = write_geotiff(
        tmp_path / f"{stem}QA_AEROSOL.TIF", random_scene((16, 16), 1, dtype="uint8")
    )
    for files in ((tmp_path,), (tmp_path / f"{stem}B1.TIF", quality)):
        source = opened(*files, bands=("coastal",))
        assert [Path(file).name for file in source.files] == [f"{stem}B1.TIF"]
        assert read(source)[1].mean() == 0.75
    assert names_of(tmp_path) == ("coastal",)
    assert names_of(quality) == ("band_1",)


def test_pictures_of_a_folder_are_no_bands(tmp_path: Path):
    """True colour of a Sentinel-2 granule fills no gap of its red band, in a folder or a list."""
    for code in ("B04", "B8A", "B11", "SCL"):
        planes("", path=tmp_path / f"T18SVG_20200601T155829_{code}_20m.tif")
    picture = tmp_path / "T18SVG_20200601T155829_TCI_20m.tif"
    planes("", "", "", dtype="uint8", path=picture)
    assert names_of(tmp_path) == ("red", "nir08", "swir16")
    listed = opened(*sorted(tmp_path.glob("*.tif")), bands=("red",))
    assert [Path(file).name for file in listed.files] == ["T18SVG_20200601T155829_B04_20m.tif"]
    assert names_of(picture) == ("red", "green", "blue")


def test_real_landsat_folder(data: Path):
    """A product as it is downloaded: seven bands of surface reflectance, no quality layer."""
    folder = data / "products/landsat/LC08_L2SP_017036_20130419_20200913_02_T2"
    source = opened(folder)
    assert source.scene.band_names == (
        "coastal", "blue", "green", "red", "nir", "swir16", "swir22",
    )  # fmt: skip
    assert not any("QA" in Path(file).name for file in source.files)


# --- alpha -------------------------------------------------------------------------------------


def rgbn(path: Path, **profile: object) -> Path:
    """Four bands of bytes, the fourth tagged as alpha by GDAL's default; 0 over water."""
    image = random_scene((40, 50), 4, dtype="uint8")
    image[3] = np.maximum(image[3], 1)
    image[3, :10] = 0
    file = write_geotiff(path, image, **profile)
    with rasterio.open(file) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
    return file


def test_an_alpha_band_that_is_named_is_data(tmp_path: Path):
    """The user's four names are for four bands, whatever GDAL tags the fourth."""
    file = rgbn(tmp_path / "a.tif")
    names = ("red", "green", "blue", "nir")
    source = opened(file, band_names=names)
    assert source.scene.band_names == names
    got, valid = read(source)
    with rasterio.open(file) as dataset:
        np.testing.assert_array_equal(got, dataset.read())
    assert valid.all()


def test_an_alpha_band_that_is_described_is_data(tmp_path: Path):
    """A description that is no word for transparency names data."""
    image = random_scene(SHAPE, 4, dtype="uint8")
    image[3] = np.where(image[3] > 100, 255, 0)
    file = write_geotiff(tmp_path / "a.tif", image, names=("red", "green", "blue", "nir"))
    assert names_of(file) == ("red", "green", "blue", "nir")
    assert read(opened(file))[1].all()
    other = write_geotiff(tmp_path / "b.tif", image, names=("red", "green", "blue", "alpha"))
    np.testing.assert_array_equal(read(opened(other))[1], image[3] > 0)


def test_an_alpha_band_of_grey_values_is_data(tmp_path: Path):
    """Transparency is all or nothing: what has values between hides no pixel, and it is noted."""
    source = opened(rgbn(tmp_path / "a.tif"))
    assert source.scene.band_names == ("red", "green", "blue", "band_4")
    assert read(source)[1].all()
    assert any("band 4" in note and "alpha" in note for note in source.warnings)


def test_an_alpha_band_with_soft_edges_is_transparency(tmp_path: Path):
    """A few values between, as resampling leaves them at edges, make no data."""
    image = random_scene((40, 50), 4, dtype="uint8")
    image[3] = 255
    image[3, :10], image[3, 10] = 0, 128
    source = opened(write_geotiff(tmp_path / "a.tif", image))
    assert source.scene.band_names == ("red", "green", "blue")
    np.testing.assert_array_equal(read(source)[1], image[3] > 0)
    assert source.warnings == ()


# --- many bands --------------------------------------------------------------------------------


def test_as_many_bands_as_a_tiff_can_have(tmp_path: Path):
    """Every band of 65,535 is described, from lists that are made once and not for each band."""
    file = tmp_path / "many.tif"
    with rasterio.open(
        file, "w", driver="GTiff", count=65_535, height=1, width=1, dtype="uint8",
        crs="EPSG:32618", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ):  # fmt: skip
        pass
    source = opened(file)
    assert len(source.scene.bands) == 65_535
    assert source.scene.band_names[-1] == "band_65535"
    with pytest.raises(SceneError, match=r"band_24 and 65511 more; name the bands"):
        opened(file, bands=("red",))
