"""Names of bands, from descriptions and from file names."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from tilemap.stores.sensors import (
    canonical,
    date_of_file,
    day_of_name,
    is_quality,
    name_of_description,
    name_of_file,
    sensor_in,
    sensor_of_codes,
)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("T18SVG_20230601T155829_B02_10m.jp2", "blue"),
        ("T18SVG_20230601T155829_B08_10m.jp2", "nir"),
        ("T18SVG_20230601T155829_B8A_20m.jp2", "nir08"),
        ("T18SVG_20230601T155829_B8A.jp2", "nir08"),
        ("T18SVG_20230601T155829_B11_20m.jp2", "swir16"),
        ("T18SVG_20230601T155829_B12_20m.jp2", "swir22"),
        ("T18SVG_20230601T155829_B10.jp2", "cirrus"),
        ("T18SVG_20230601T155829_B05_20m.jp2", "rededge1"),
        ("T18SVG_20230601T155829_TCI_10m.jp2", None),
        ("S2A_MSIL1C_20200101_B11.tif", "swir16"),
        ("LC08_L1TP_224078_20200518_20200820_02_T1_B2.TIF", "blue"),
        ("LC08_L1TP_224078_20200518_20200820_02_T1_B5.TIF", "nir"),
        ("LC09_L2SP_224078_20220518_20220820_02_T1_SR_B6.TIF", "swir16"),
        ("LC08_L2SP_224078_20200518_20200820_02_T1_ST_B10.TIF", "lwir11"),
        ("LC80010022013001LGN00_B4.TIF", "red"),
        ("LE07_L1TP_224078_20000518_20170213_01_T1_B4.TIF", "nir"),
        ("LT05_L1TP_224078_19900518_20170213_01_T1_B7.TIF", "swir22"),
        ("field_red.tif", "red"),
        ("nir.tif", "nir"),
        ("LM05_L1TP_015034_19840801_20200902_02_T2_B2.TIF", "red"),
        ("LM01_L1TP_016034_19730801_20200909_02_T2_B4.TIF", "green"),
        ("HLS.L30.T18SVG.2020139T153556.v2.0.B05.tif", "nir"),
        ("HLS.S30.T18SVG.2020139T153556.v2.0.B8A.tif", "nir08"),
        ("MOD09A1.A2020129.h12v04.061.sur_refl_b01.tif", "red"),
        ("sur_refl_b02.tif", "nir"),
        ("AST_L1T_00305062003_B02.tif", None),
        ("LE07_L1TP_224078_20000518_20170213_01_T1_sr_band4.tif", "nir"),
        ("somewhere_B4.tif", None),
        ("somewhere_B04.tif", None),
        ("somewhere_SR_B4.tif", None),
        ("LC08_L2SP_017036_20130419_20200913_02_T2_SR_QA_AEROSOL.TIF", None),
        ("LC080170362013041901T2-SC20200913_sr_aerosol.tif", None),
        ("covered.tif", None),
        ("TERRA_MODIS_012010_NDVI_2013-09-14.jp2", None),
    ],
)
def test_name_of_file(file: str, name: str | None):
    """The sensor decides what a number means; nothing is guessed where it is unknown."""
    assert name_of_file(file) == name
    assert name_of_file(f"/S2_B11/LC08/{file}") == name


@pytest.mark.parametrize(
    ("text", "sensor", "name"),
    [
        ("B02", None, None),
        ("B02", "sentinel2", "blue"),
        ("B8A", "sentinel2", "nir08"),
        ("B05", "sentinel2", "rededge1"),
        ("B5", "landsat_oli", "nir"),
        ("SR_B5", "landsat_oli", "nir"),
        ("B5", "landsat_tm", "swir16"),
        ("B5", None, None),
        ("B3", None, None),
        ("SR_B4", None, None),
        ("sur_refl_b01", "modis", "red"),
        ("B1", "landsat_mss", "green"),
        ("Red", None, "red"),
        ("SWIR 1", None, "swir16"),
        ("NDVI", None, "ndvi"),
        ("Band 4", None, None),
        ("Band 4", "landsat_tm", "nir"),
        ("band_4", None, None),
        ("4", "sentinel2", None),
        ("", None, None),
        (None, "sentinel2", None),
        ("Reflectance of the second kind (%)", None, None),
    ],
)
def test_name_of_description(text: str | None, sensor: str | None, name: str | None):
    """Codes need their sensor, words do not, and generic ones say nothing."""
    assert name_of_description(text, sensor) == name


@pytest.mark.parametrize(
    ("codes", "sensor"),
    [
        (["B04", "B8A"], "sentinel2"),
        (["SR_B5", "SR_B6"], "landsat_oli"),
        (["SR_B4", "ST_B10"], "landsat_oli"),
        (["SR_B4", "ST_B6"], "landsat_tm"),
        (["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"], "landsat_tm"),
        (["sur_refl_b01"], "modis"),
        (["B02", "B11", "B12"], None),
        (["SR_B4", "SR_B5"], None),
        (["B2", "B3", None], None),
        (["B8A", "SR_B6"], None),
    ],
)
def test_sensor_by_codes_only_it_has(codes: list[str | None], sensor: str | None):
    """Codes that several sensors have say nothing, nor do codes of two sensors."""
    assert sensor_of_codes(codes) == sensor


@pytest.mark.parametrize(
    ("text", "sensor"),
    [
        ("l8_l1tp_224078_20200518_b234", "landsat_oli"),
        ("sentinel-2b msi", "sentinel2"),
        ("S2A_MSIL2A_20230601T155829_N0509_R097_T18SVG_20230601T220000", "sentinel2"),
        ("landsat-5 tm", "landsat_tm"),
        ("landsat-5 mss", "landsat_mss"),
        ("LANDSAT_5 MSS", "landsat_mss"),
        ("landsat-5", None),
        ("l5_stack", None),
        ("x_L1_2020", None),
        ("x_L2_2020", None),
        ("S2A_L2_2020", "sentinel2"),
        ("landsat8_2020", "landsat_oli"),
        ("landsat-7 etm+", "landsat_tm"),
        ("LANDSAT_1 MSS", "landsat_mss_first"),
        ("LT08_L1TP_224078_20200518_02_T1", "landsat_oli"),
        ("s2_and_l8_2020", None),
        ("AST_L1T_00305062003", None),
        ("covers2_all8", None),
    ],
)
def test_sensor_in_a_text(text: str, sensor: str | None):
    """A sensor must be named, and be the only one; Landsat 4 and 5 carried two."""
    assert sensor_in(text) == sensor


@pytest.mark.parametrize(
    ("name", "quality"),
    [
        ("LC08_L2SP_017036_20130419_20200913_02_T2_SR_QA_AEROSOL.TIF", True),
        ("LC08_L2SP_017036_20130419_20200913_02_T2_QA_PIXEL.TIF", True),
        ("LC08_L2SP_017036_20130419_20200913_02_T2_QA_RADSAT.TIF", True),
        ("LC08_L2SP_017036_20130419_20200913_02_T2_ST_EMIS.TIF", True),
        ("T18SVG_20230601T155829_TCI_10m.jp2", True),
        ("T18SVG_20230601T155829_SCL_20m.jp2", True),
        ("HLS.L30.T18SVG.2020139T153556.v2.0.Fmask.tif", True),
        ("HLS.L30.T18SVG.2020139T153556.v2.0.SZA.tif", True),
        ("sr_aerosol", True),
        ("LT05_L2SP_010067_19860424_20200918_02_T2_SR_CLOUD_QA.TIF", True),
        ("LT05_L2SP_010067_19860424_20200918_02_T2_SR_ATMOS_OPACITY.TIF", True),
        ("LT050100671986042401T1-SC20200918_pixel_qa.tif", True),
        ("MSK_CLDPRB_20m.jp2", True),
        ("T18SVG_20230601T155829_AOT_10m.jp2", True),
        ("cloud_mask.tif", True),
        ("mosaic_cloud_free.tif", False),
        ("masked_red.tif", False),
        ("LC08_L2SP_017036_20130419_20200913_02_T2_SR_B4.TIF", False),
        ("T18SVG_20230601T155829_B04_10m.jp2", False),
        ("qa_area_red.tif", False),
        ("field.tif", False),
    ],
)
def test_quality_layers_and_pictures(name: str, quality: bool):
    """What a product has beside its bands is known by its name."""
    assert is_quality(name) is quality


def test_canonical():
    """Other habits of naming lead to the same name."""
    assert [canonical(n) for n in (" NIR ", "swir2", "rededge075", "vh")] == [
        "nir",
        "swir22",
        "rededge2",
        "vh",
    ]


def test_date_of_file():
    """Dates in names are found, numbers that are none are not."""
    day = datetime(2020, 5, 18, tzinfo=UTC)
    assert date_of_file("LC08_L1TP_224078_20200518_b234.tif") == day
    assert date_of_file("NDVI_2020-05-18.jp2") == day
    assert date_of_file("x_20201318.tif") is None
    assert date_of_file("x_20200230.tif") is None
    assert date_of_file("x_1202005180.tif") is None


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("scene_2020_05_18", "2020-05-18"),
        ("mosaic.2020.05.18", "2020-05-18"),
        ("HLS.L30.T18SVG.2020139T153556.v2.0.B04", "2020-05-18"),
        ("MOD13Q1.A2020139.h12v04.006.2020160123456", "2020-05-18"),
        ("VNP09GA_2020366", "2020-12-31"),
        ("LC80160372013109LGN01_B4", "2013-04-19"),
        ("AST_L1T_00305062003152734_20150509081211_1", "2003-05-06"),
        ("drone_20200518103000", "2020-05-18"),
        ("20201332_then_2020-05-18", "2020-05-18"),
    ],
)
def test_a_whole_day_is_never_taken_for_a_year(name: str, day: str) -> None:
    """Underscores, days of the year and the orders of old missions give the day itself."""
    assert day_of_name(name) == (date.fromisoformat(day), None)


@pytest.mark.parametrize("name", ["x_2019366", "x_2020000", "x_2020_13_01", "x_2020-05_18"])
def test_a_day_that_no_year_has_is_none(name: str) -> None:
    """A number out of range is no day of the year, and no month."""
    assert date_of_file(name) is None
