"""Which class a reference value stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilemap.errors import SceneError, UsageError
from tilemap.evaluation.classes import (
    UNKNOWN,
    Lookup,
    MapClass,
    map_classes,
    match,
    read_table,
    stored_names,
)
from tilemap.evaluation.metrics import IGNORE
from tilemap.stores.cog import RasterProfile
from tilemap.stores.sidecars import class_rows, write_sidecars
from tilemap.testing import write_geotiff

CLASSES = (MapClass(1, "Water"), MapClass(5, "trees"))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_stored_numbers_of_every_type_find_their_class(dtype: str) -> None:
    """Known ones their index, others "unknown"; negative and large ones too."""
    lookup = Lookup(((-3.0, 2), (1.0, 0), (5.0, 1), (9.0, IGNORE), (1000.0, 3)))
    image = np.array([[1, 5, 9], [2, 0, 100]]).astype(dtype)
    expected = [[0, 1, IGNORE], [UNKNOWN, UNKNOWN, UNKNOWN]]
    assert lookup.apply(image).tolist() == expected
    if dtype.startswith(("int", "float")):
        assert lookup.apply(np.array([-3], dtype=dtype)).tolist() == [2]
    if dtype not in ("uint8", "int8"):
        assert lookup.apply(np.array([1000], dtype=dtype)).tolist() == [3]


def test_without_a_table_values_and_names_of_the_map_count() -> None:
    """Numbers, numbers as text, names in any case; nothing else."""
    found = match(CLASSES, None, ("9", "cloud"))
    values = [1, 5.0, " 5", "WATER", "Trees ", 9, "Cloud", 7, "rock"]
    indices = [0, 1, 1, 0, 1, IGNORE, IGNORE, UNKNOWN, UNKNOWN]
    assert [found.index(value) for value in values] == indices


def test_a_raster_that_names_its_classes_is_matched_by_name() -> None:
    """Its 1 is trees, so it is not the map's 1, which is water."""
    stored = {1: "Trees", 2: "water", 3: "rock"}
    lookup = match(CLASSES, None, (), stored).lookup(stored)
    assert lookup.apply(np.array([1, 2, 3, 5], dtype=np.uint8)).tolist() == [1, 0, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.toml", 'water = [80, "Lake"]\n"5" = 10\n'),
        ("t.toml", '[classes]\nwater = [80, "Lake"]\ntrees = 10\n'),
        ("t.csv", "class,reference\nwater,80\nwater,Lake\n5,10\n"),
        ("t.csv", "\ufeffReference,Class,remark\n80,water,x\nlake,WATER,\n10,trees,y\n"),
    ],
)
def test_a_table_says_what_reference_values_are(tmp_path: Path, name: str, text: str) -> None:
    """By name or value of the map's class; only what it lists counts."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = match(CLASSES, read_table(path), ("0",))
    indices = [found.index(v) for v in (80, "lake", 10, 0, 1, "water")]
    assert indices == [0, 0, 1, IGNORE, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.csv", "a,b\n1,2\n", "columns"),
        ("t.csv", "", "columns"),
        ("t.toml", "water = [", "cannot read the table"),
        ("t.toml", "classes = 3\n", "must have lines"),
    ],
)
def test_a_table_that_says_nothing(tmp_path: Path, name: str, text: str, says: str) -> None:
    """Is refused, with what it must look like."""
    (tmp_path / name).write_text(text)
    with pytest.raises(SceneError, match=says):
        read_table(tmp_path / name)
    with pytest.raises(SceneError, match="no such file"):
        read_table(tmp_path / "other.csv")


def test_a_table_that_contradicts_the_map_or_itself() -> None:
    """A class that is not in the map; one value for two classes."""
    with pytest.raises(UsageError, match=r"classes of the map \(Water, trees\), got 'rock'"):
        match(CLASSES, {"rock": ("1",)}, ())
    with pytest.raises(UsageError, match="value 8 to two classes"):
        match(CLASSES, {"water": ("8",), "5": ("8",)}, ())


TABLE = (
    """<GDALRasterAttributeTable tableType="thematic">{fields}{rows}</GDALRasterAttributeTable>"""
)
FIELD = """<FieldDefn index="{0}"><Name>{1}</Name><Type>0</Type><Usage>{2}</Usage></FieldDefn>"""
ROW = """<Row index="{0}"><F>{1}</F><F>{2}</F></Row>"""


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ([("Value", 5), ("Class", 2)], [(11, "water"), (42, "forest"), (0.5, "no"), ("x", "no")]),
        ([("VALUE", 0), ("CLASS_NAME", 0)], [(11, "water"), (42, "forest"), (7, "")]),
        ([("Class", 2), ("Value", 5)], [("water", 11), ("forest", 42)]),
    ],
)
def test_class_names_come_from_an_attribute_table(
    tmp_path: Path, fields: list[tuple[str, int]], rows: list[tuple[object, object]]
) -> None:
    """By the usage of its columns, else by their names; what is no whole number has none."""
    path = write_geotiff(tmp_path / "r.tif", np.zeros((1, 3, 4), dtype=np.uint8))
    table = TABLE.format(
        fields="".join(FIELD.format(n, *field) for n, field in enumerate(fields)),
        rows="".join(ROW.format(n, *row) for n, row in enumerate(rows)),
    )
    path.with_name("r.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{table}</PAMRasterBand></PAMDataset>'
    )
    assert stored_names(str(path)) == {11: "water", 42: "forest"}


@pytest.mark.parametrize(
    "field",
    [
        '<FieldDefn index="x"><Name>Value</Name></FieldDefn>',
        "<FieldDefn><Name>Value</Name></FieldDefn>",
        '<FieldDefn index="0"><Name>Low</Name><Usage>3</Usage></FieldDefn>',
    ],
)
def test_an_attribute_table_that_says_no_values_names_nothing(tmp_path: Path, field: str) -> None:
    """Damaged columns and ranges of numbers are no names of values."""
    path = write_geotiff(tmp_path / "r.tif", np.zeros((1, 3, 4), dtype=np.uint8))
    table = TABLE.format(fields=field + FIELD.format(1, "Class", 2), rows=ROW.format(0, 1, "water"))
    path.with_name("r.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{table}</PAMRasterBand></PAMDataset>'
    )
    assert stored_names(str(path)) == {}


@pytest.mark.parametrize(
    ("text", "why"), [("<PAMDataset><", "is damaged"), (" " * 17_000_000, "bytes")]
)
def test_a_sidecar_that_cannot_be_read_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """It may name the classes, which would be matched by number without a word."""
    path = write_geotiff(tmp_path / "r.tif", np.zeros((1, 3, 4), dtype=np.uint8))
    path.with_name("r.tif.aux.xml").write_text(text)
    with pytest.raises(SceneError, match=f"aux.xml may name the classes.*{why}"):
        stored_names(str(path))


def test_class_names_come_from_a_vrt(tmp_path: Path) -> None:
    """Of its first band; what lies beside it comes after."""
    write_geotiff(tmp_path / "r.tif", np.zeros((1, 3, 4), dtype=np.uint8))
    vrt = tmp_path / "v.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="3"><VRTRasterBand dataType="Byte" band="1">'
        "<CategoryNames><Category></Category><Category>water</Category></CategoryNames>"
        '<SimpleSource><SourceFilename relativeToVRT="1">r.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert stored_names(str(vrt)) == {1: "water"}


def test_class_names_come_from_tags_or_from_the_sidecar(tmp_path: Path) -> None:
    """A map of ours has tags; another program's has category names beside it; or there are none."""
    import rasterio

    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    bare = write_geotiff(tmp_path / "bare.tif", pixels)
    tagged = write_geotiff(tmp_path / "tagged.tif", pixels, nodata=255)
    with rasterio.open(tagged, "r+") as file:
        file.update_tags(CLASS_2="land", CLASS_255="nothing", CLASS_x="no")
        file.write_colormap(1, {2: (1, 2, 255)})
        geobox_shape = file.shape
    from odc.geo.geobox import GeoBox

    profile = RasterProfile(
        GeoBox(geobox_shape, file.transform, None), palette={1: (9, 9, 9)}, names={1: "sea"},
        overview="mode",
    )  # fmt: skip
    beside = write_geotiff(tmp_path / "beside.tif", pixels)
    write_sidecars(beside, class_rows(profile, [0] * 256, None))
    assert stored_names(str(beside)) == {1: "sea"}
    assert map_classes(str(tagged), 255, None) == (MapClass(2, "land", "#0102ff"),)
    with pytest.raises(SceneError, match="must say what its classes are"):
        map_classes(str(bare), None, None)
    named = map_classes(str(bare), None, {"7": ("1",), "3": ("x",)})
    assert [(c.value, c.name) for c in named] == [(3, "class 3"), (7, "class 7")]
