"""Names and colours arrive where GDAL, QGIS, ArcGIS and map servers read them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError
from tilemap.geometry import Window
from tilemap.stores.cog import RasterProfile, partial_path, publish, write_cog
from tilemap.stores.sidecars import (
    ClassRow,
    aux_xml,
    class_rows,
    qml,
    sidecar_names,
    sld,
    vat_dbf,
    write_sidecars,
)

NAMES = {0: "shadow", 1: "water & ice", 3: '<snow> "é"'}
PALETTE = {0: (1, 2, 3), 1: (0, 90, 200), 3: (255, 255, 240), 255: (9, 9, 9)}
LOOK = RasterProfile(
    GeoBox((30, 40), Affine(10, 0, 4e5, 0, -10, 4e6), "EPSG:32618"),
    palette=PALETTE,
    names=NAMES,
    overview="mode",
)
COUNTS = [3_000_000_000, 10, 0, 7, *[0] * 251, 99]
AREAS = [300.0, 1e-3, 0.0, 0.0007, *[0.0] * 251, 0.0099]


def rows(areas: list[float] | None = AREAS) -> tuple[ClassRow, ...]:
    """Three classes, one beyond 2^31 pixels."""
    return class_rows(LOOK, COUNTS, areas)


def test_rows_follow_palette_and_names() -> None:
    """Nodata is no class; shares are of the observed area and sum to 1."""
    got = rows()
    assert [(row.value, row.name, row.pixels) for row in got] == [
        (0, "shadow", 3_000_000_000),
        (1, "water & ice", 10),
        (3, '<snow> "é"', 7),
    ]
    assert got[2].area_km2 == 0.0007
    assert got[1].hex == "#005ac8"
    assert sum(row.share for row in got) == pytest.approx(1)
    assert got[1].share == pytest.approx(1e-3 / 300.0017)


def test_shares_of_pixels_without_areas() -> None:
    """Where areas are unknown, shares are of pixels."""
    got = rows(areas=None)
    assert got[1].share == pytest.approx(10 / 3_000_000_017)
    assert got[1].area_km2 is None


def test_nothing_observed() -> None:
    """An empty map has shares of 0."""
    assert [row.share for row in class_rows(LOOK, [0] * 256, None)] == [0, 0, 0]


def test_names_for_machines() -> None:
    """A class without a name gets one, control characters go."""
    look = RasterProfile(LOOK.geobox, palette={4: (0, 0, 0)}, names={5: "a\x00b"}, overview="mode")
    assert [row.name for row in class_rows(look, [0] * 256, None)] == ["class 4", "ab"]


def test_aux_xml_has_names_and_table() -> None:
    """Categories stand at their number; the table has a row per class."""
    root = ET.fromstring(aux_xml(rows()))
    names = [node.text or "" for node in root.iter("Category")]
    assert names == ["shadow", "water & ice", "", '<snow> "é"']
    columns = [node.findtext("Name") for node in root.iter("FieldDefn")]
    assert columns == ["Value", "Class", "Red", "Green", "Blue", "Count", "Area_km2"]
    cells = [[cell.text for cell in row] for row in root.iter("Row")]
    assert cells[1] == ["1", "water & ice", "0", "90", "200", "10", "0.001"]
    assert cells[0][5] == "3000000000"


def test_aux_xml_without_areas() -> None:
    """The column of areas is left out where they are unknown."""
    root = ET.fromstring(aux_xml(rows(areas=None)))
    assert [node.findtext("Name") for node in root.iter("FieldDefn")][-1] == "Count"
    assert all(len(row) == 6 for row in root.iter("Row"))


def test_qml_is_a_paletted_style() -> None:
    """QGIS finds value, label and colour of each class."""
    text = qml(rows())
    assert text.startswith("<!DOCTYPE qgis")
    renderer = ET.fromstring(text).find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.get("type") == "paletted"
    entries = [
        (e.get("value"), e.get("label"), e.get("color")) for e in renderer.iter("paletteEntry")
    ]
    assert entries[1] == ("1", "water & ice", "#005ac8")
    assert len(entries) == 3


def test_sld_maps_values_not_ramps() -> None:
    """A map server finds value, label and colour of each class, and no ramp between them."""
    spaces = {"sld": "http://www.opengis.net/sld"}
    root = ET.fromstring(sld(rows(), "land & cover").encode())
    assert root.findtext("sld:NamedLayer/sld:Name", namespaces=spaces) == "land & cover"
    colors = root.find(".//sld:RasterSymbolizer/sld:ColorMap", spaces)
    assert colors is not None
    assert colors.get("type") == "values"
    entries = [(e.get("quantity"), e.get("label"), e.get("color")) for e in colors]
    assert entries[0] == ("0", "shadow", "#010203")
    assert entries[2] == ("3", '<snow> "é"', "#fffff0")


def test_vat_is_read_by_gdal(tmp_path: Path) -> None:
    """Every cell comes back: large counts, texts beyond ASCII, small areas."""
    write_sidecars(tmp_path / "a.tif", rows())
    meta, _, _, columns = pyogrio.raw.read(tmp_path / "a.tif.vat.dbf")
    table = dict(zip(meta["fields"], (column.tolist() for column in columns), strict=True))
    assert meta["encoding"] == "UTF-8"
    assert table == {
        "Value": [0, 1, 3],
        "Count": [3_000_000_000, 10, 7],
        "Class": ["shadow", "water & ice", '<snow> "é"'],
        "Red": [1, 0, 255],
        "Green": [2, 90, 255],
        "Blue": [3, 200, 240],
        "Area_km2": [300.0, 0.001, 0.0007],
    }
    assert meta["ogr_types"][:3] == ["OFTInteger", "OFTInteger64", "OFTString"]


def test_vat_without_areas(tmp_path: Path) -> None:
    """The column of areas is left out where they are unknown."""
    path = tmp_path / "a.tif.vat.dbf"
    path.write_bytes(vat_dbf(rows(areas=None)))
    meta, _, _, _ = pyogrio.raw.read(path)
    assert list(meta["fields"]) == ["Value", "Count", "Class", "Red", "Green", "Blue"]


def product(folder: Path) -> Path:
    """A published class map with its sidecars."""
    pixels = np.tile(np.array([0, 1, 3, 255], dtype=np.uint8), (30, 10))
    final = folder / "landcover.tif"
    write_cog(final, LOOK, [(Window(0, 0, 30, 40), pixels)], folder / "scratch")
    written = write_sidecars(final, rows())
    assert [path.name for path in written] == list(sidecar_names("landcover.tif"))
    assert {path.name for path in folder.glob("landcover*")} == {
        "landcover.tif.partial", "landcover.tif.aux.xml", "landcover.qml", "landcover.sld",
        "landcover.tif.vat.dbf", "landcover.tif.vat.cpg",
    }  # fmt: skip
    publish(partial_path(final), final)
    return final


def test_rasterio_still_reads_the_product(tmp_path: Path) -> None:
    """The sidecar neither hides the palette nor the pixels."""
    with rasterio.open(product(tmp_path)) as file:
        assert any(path.endswith(".aux.xml") for path in file.files)
        assert file.colormap(1)[1] == (0, 90, 200, 255)
        assert file.nodata == 255
        assert file.read(1)[0, :4].tolist() == [0, 1, 3, 255]


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
def test_gdal_shows_the_names(tmp_path: Path) -> None:
    """GDAL's own tool lists categories and attribute table."""
    done = subprocess.run(
        ["gdalinfo", str(product(tmp_path))], capture_output=True, text=True, check=True
    )
    assert "1: water & ice" in done.stdout
    assert "<Name>Area_km2</Name>" in done.stdout
    assert done.stderr == ""


def test_no_half_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar that cannot be written is an error, and the old one stays."""
    old = tmp_path / "landcover.tif.aux.xml"
    old.write_text("old")

    def failing(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StoreError, match="No space left"):
        write_sidecars(tmp_path / "landcover.tif", rows())
    assert [path.name for path in tmp_path.iterdir()] == [old.name]
    assert old.read_text() == "old"
