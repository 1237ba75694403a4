"""What the numbers of products mean, by Sentinel-2's own metadata and by STAC items."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.run_plan import check_units
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.testing import random_scene, write_geotiff

PRODUCT = "S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825"
BARE = """<a><BOA_QUANTIFICATION_VALUE>10000</BOA_QUANTIFICATION_VALUE>
<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>{}</a>"""


def opened(*files: Path, **asked: object) -> SceneSource:
    """A scene of some files."""
    return open_scene(SceneRequest(tuple(map(str, files)), **asked))


def safe(folder: Path, metadata: str, product: str = PRODUCT) -> Path:
    """A small .SAFE folder of Level 2A: four bands at 10 m, copies and two more at 20 m."""
    root = folder / f"{product}.SAFE"
    images = root / "GRANULE" / "L2A_T01KAB_A042640_20230821T221944" / "IMG_DATA"
    for gsd_m, codes in (
        (10, ("B02", "B03", "B04", "B08", "AOT")),
        (20, ("B04", "B8A", "B11", "SCL")),
    ):
        place = images / f"R{gsd_m}m"
        place.mkdir(parents=True)
        for seed, code in enumerate(codes):
            image = random_scene((600 // gsd_m, 800 // gsd_m), 1, seed)
            write_geotiff(
                place / f"T01KAB_20230821T221941_{code}_{gsd_m}m.tif", image,
                transform=Affine(gsd_m, 0, 400_000, 0, -gsd_m, 4_100_000),
            )  # fmt: skip
    picture = random_scene((60, 80), 3, dtype="uint8")
    write_geotiff(images / "R10m" / "T01KAB_20230821T221941_TCI_10m.tif", picture)
    (root / "MTD_MSIL2A.xml").write_text(metadata)
    return root


def test_a_safe_folder(tmp_path: Path, data: Path):
    """Its bands, each at its finest, with scale, offset and nodata of its real metadata."""
    metadata = data / f"products/sentinel2/{PRODUCT}.SAFE/MTD_MSIL2A.xml"
    source = opened(safe(tmp_path, metadata.read_text()))
    assert source.scene.band_names == ("blue", "green", "red", "nir", "nir08", "swir16")
    for band in source.scene.bands:
        assert (band.scale, band.offset, band.nodata, band.scaled) == (1e-4, -0.1, 0, True)
    assert source.warnings == ()
    assert not any(Path(file).stem.endswith("B04_20m") for file in source.files)
    check_units(source, "reflectance", "toy")


@pytest.mark.parametrize(
    ("product", "offset"),
    [
        ("S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857", 0.0),
        ("S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126", -0.1),
        ("S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825", -0.1),
    ],
)
def test_real_metadata_by_baseline(tmp_path: Path, data: Path, product: str, offset: float):
    """Products before baseline 04.00 have no offset, and say so by leaving it out."""
    metadata = (data / f"products/sentinel2/{product}.SAFE/MTD_MSIL2A.xml").read_text()
    red = opened(safe(tmp_path, metadata, product), bands=("red",)).scene.bands[0]
    assert (red.scale, red.offset, red.nodata) == (1e-4, offset, 0)


def test_level_1c(tmp_path: Path, data: Path):
    """Level 1C has one folder of images and other words for the same."""
    product = "S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248"
    metadata = data / f"products/sentinel2/{product}.SAFE/MTD_MSIL1C.xml"
    images = tmp_path / f"{product}.SAFE/GRANULE/L1C_T46RER_A032448_20210908T043714/IMG_DATA"
    images.mkdir(parents=True)
    write_geotiff(images / "T46RER_20210908T042701_B04.tif", random_scene((20, 30), 1))
    shutil.copy(metadata, tmp_path / f"{product}.SAFE")
    red = opened(tmp_path / f"{product}.SAFE").scene.bands[0]
    assert (red.name, red.scale, red.offset, red.nodata) == ("red", 1e-4, 0.0, 0)


def test_offsets_are_looked_up_by_band(tmp_path: Path):
    """Each band has the offset of its own number; one that is not listed has none."""
    shifts = "".join(
        f"<BOA_ADD_OFFSET band_id='{n}'>{-1000 - n}</BOA_ADD_OFFSET>" for n in (1, 2, 8)
    )
    scene = opened(safe(tmp_path, BARE.format(shifts))).scene
    offsets = {band.name: band.offset for band in scene.bands if band.scaled}
    assert offsets == pytest.approx({"blue": -0.1001, "green": -0.1002, "nir08": -0.1008})


def test_what_the_user_says_wins_over_metadata(tmp_path: Path):
    """Scale and offset of the user replace those of the product; the rest stays."""
    folder = safe(tmp_path, BARE.format("<BOA_ADD_OFFSET band_id='3'>-1000</BOA_ADD_OFFSET>"))
    red = opened(folder, bands=("red",), offset=0.0).scene.bands[0]
    assert (red.scale, red.offset, red.nodata, red.scaled) == (1e-4, 0.0, 0, True)
    red = opened(folder, bands=("red",), scale=1e-4).scene.bands[0]
    assert red.offset == pytest.approx(-0.1)


def test_an_offset_that_nothing_says_is_noted_and_refused(tmp_path: Path):
    """Baseline 05.09 in the folder's name, --scale alone: a line, and no reflectance."""
    folder = safe(tmp_path, "<a/>")
    source = opened(folder, scale=1e-4)
    assert ["and 5 more" in w for w in source.warnings if "has the offset -0.1" in w] == [True]
    assert any("no nodata is declared" in w for w in source.warnings)
    with pytest.raises(SceneError, match=r"give the offset -0\.1, or 0"):
        check_units(source, "reflectance", "toy")
    assert opened(folder, scale=1e-4, offset=-0.1, nodata=0).warnings == ()


@pytest.mark.parametrize(
    "metadata",
    [
        "<a>",
        "<!DOCTYPE a><a/>",
        BARE.format("").replace("10000", "ten"),
        BARE.format("").replace("10000", "0"),
    ],
)
def test_metadata_that_cannot_be_read(tmp_path: Path, metadata: str):
    """Damaged metadata are one line that names the file."""
    with pytest.raises(SceneError, match=r"MTD_MSIL2A\.xml"):
        opened(safe(tmp_path, metadata))


# --- items -------------------------------------------------------------------------------------


def item(folder: Path, bands: dict[str, Any], **properties: Any) -> Path:
    """An item of one band, red.tif of 1500 everywhere."""
    write_geotiff(folder / "red.tif", np.full((1, 12, 14), 1500, np.uint16), nodata=0)
    assets = {
        "red": {"href": "./red.tif", "eo:bands": [{"name": "B04", "common_name": "red"}], **bands}
    }
    content = {
        "type": "Feature", "stac_version": "1.0.0", "id": "x", "geometry": None, "links": [],
        "properties": {"datetime": "2023-06-01T00:00:00Z", "platform": "sentinel-2a", **properties},
        "assets": assets,
    }  # fmt: skip
    path = folder / "item.json"
    path.write_text(json.dumps(content))
    return path


LISTED = {"raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]}


@pytest.mark.parametrize(("applied", "reflectance"), [(True, 0.15), (False, 0.05), (None, 0.05)])
def test_an_offset_is_applied_once(tmp_path: Path, applied: bool | None, reflectance: float):
    """Earth Search lists the product's offset although its numbers have it in them already."""
    said = {} if applied is None else {"earthsearch:boa_offset_applied": applied}
    path = item(tmp_path, LISTED, **said, **{"s2:processing_baseline": "05.09"})
    source = opened(path)
    band = source.scene.bands[0]
    with source.open() as reader:
        stored = float(reader.read(Window(0, 0, 1, 1))[0][0, 0, 0])
    assert stored * band.scale + band.offset == pytest.approx(reflectance)
    check_units(source, "reflectance", "toy")


@pytest.mark.parametrize(
    ("bands", "said", "asked", "message"),
    [
        ({}, {"s2:processing_baseline": "05.09"}, {}, "scale 0.0001, offset -0.1 and nodata 0"),
        ({}, {"s2:processing_baseline": "02.14"}, {}, "scale 0.0001, offset 0 and nodata 0"),
        ({}, {"s2:processing_baseline": "05.09"}, {"scale": 1e-4}, "give the offset -0.1, or 0"),
        (
            {"raster:bands": [{"scale": 0.0001}]},
            {"s2:processing_baseline": "05.09"},
            {},
            "give the offset -0.1, or 0",
        ),
    ],
)
def test_an_item_that_leaves_the_offset_out(
    tmp_path: Path, bands: dict[str, Any], said: dict[str, Any], asked: dict[str, Any], message: str
):
    """The processing baseline of an item says whether there is an offset to be given."""
    with pytest.raises(SceneError, match=message):
        check_units(opened(item(tmp_path, bands, **said), **asked), "reflectance", "toy")


def test_an_item_whose_offset_was_applied_needs_none(tmp_path: Path):
    """With the offset in the numbers already, a scale is enough."""
    said = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}
    check_units(opened(item(tmp_path, {}, **said), scale=1e-4), "reflectance", "toy")
    check_units(
        opened(item(tmp_path, {"raster:bands": [{"scale": 1e-4}]}, **said)), "reflectance", "t"
    )


def test_real_items(tmp_path: Path, data: Path):
    """The red edges, the two near infrareds and no quality layer, of a real item of Level 2A."""
    text = (data / f"products/sentinel2/{PRODUCT}.SAFE/item.json").read_text()
    content = json.loads(text)
    for asset in content["assets"].values():
        name = Path(asset["href"]).stem
        asset["href"] = f"./{name}.tif"
        size = {"10m": 40, "20m": 20, "60m": 10}.get(name.rpartition("_")[2])
        if size:
            at = Affine(400 / size, 0, 400_000, 0, -400 / size, 4_100_000)
            write_geotiff(tmp_path / f"{name}.tif", random_scene((size, size), 1), transform=at)
    (tmp_path / "item.json").write_text(json.dumps(content))
    scene = opened(tmp_path / "item.json").scene
    assert set(scene.band_names) == {
        "blue", "green", "red", "nir", "nir08", "nir09", "coastal", "rededge1", "rededge2",
        "rededge3", "swir16", "swir22",
    }  # fmt: skip
    assert {(band.scale, band.offset, band.nodata) for band in scene.bands} == {(1e-4, -0.1, 0)}
