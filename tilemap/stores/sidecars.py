"""Files beside a class map from which GIS programs take names, colours and areas.

A GeoTIFF holds a palette but no class names: GDAL keeps those in ``<name>.tif.aux.xml``, QGIS
takes its legend from ``<name>.qml``, ArcGIS its table from ``<name>.tif.vat.dbf``, and map servers
their colours from ``<name>.sld``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from tilemap.files import system_error
from tilemap.stores.dbf import DbfColumn, dbf
from tilemap.stores.raster_profile import RasterProfile


@dataclass(frozen=True)
class ClassRow:
    """One class of one class map.

    Args:
        value: stored number, 0..255.
        name: for people.
        color: three numbers 0..255.
        pixels: how many there are.
        area_km2: their true area; None where it is not known.
        share: of the observed area, or of the observed pixels where it is not known; 0..1.
    """

    value: int
    name: str
    color: tuple[int, int, int]
    pixels: int
    area_km2: float | None
    share: float

    @property
    def hex(self) -> str:
        """The colour as ``#rrggbb``."""
        return "#{:02x}{:02x}{:02x}".format(*self.color)


def class_rows(
    profile: RasterProfile, counts: Sequence[int], areas_km2: Sequence[float] | None
) -> tuple[ClassRow, ...]:
    """What a class map holds, by stored number; nodata is no class.

    Args:
        profile: palette and names; a number with neither is left out.
        counts: pixels per stored number, 256 of them.
        areas_km2: true area per stored number, 256 of them; None where it is not known.
    """
    palette, names = profile.palette or {}, profile.names or {}
    values = sorted((palette.keys() | names.keys()) - {profile.nodata})
    weights = counts if areas_km2 is None else areas_km2
    observed = sum(weights[value] for value in values) or 1
    return tuple(
        ClassRow(
            value=value,
            name=_printable(names.get(value, f"class {value}")),
            color=palette.get(value, (0, 0, 0)),
            pixels=counts[value],
            area_km2=None if areas_km2 is None else areas_km2[value],
            share=weights[value] / observed,
        )
        for value in values
    )


def _printable(name: str) -> str:
    """Without control characters, which XML cannot hold."""
    return "".join(character for character in name if character.isprintable())


class _Column(NamedTuple):
    """A column of GDAL's attribute table; the numbers are GDAL's (gdal.h)."""

    name: str
    type: int
    usage: int


INTEGER, REAL, STRING = 0, 1, 2
TYPE_NAMES = ("Integer", "Real", "String")
GENERIC, PIXEL_COUNT, NAME, MIN_MAX, RED, GREEN, BLUE = 0, 1, 2, 5, 6, 7, 8
COLUMNS = (
    _Column("Value", INTEGER, MIN_MAX),
    _Column("Class", STRING, NAME),
    _Column("Red", INTEGER, RED),
    _Column("Green", INTEGER, GREEN),
    _Column("Blue", INTEGER, BLUE),
    # real, because GDAL's integers end at 2^31
    _Column("Count", REAL, PIXEL_COUNT),
    _Column("Area_km2", REAL, GENERIC),
)


def aux_xml(rows: Sequence[ClassRow]) -> str:
    """GDAL's ``.aux.xml``: category names and an attribute table.

    The column ``Area_km2`` is there only if the areas are known.
    """
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    names = {row.value: row.name for row in rows}
    categories = ET.SubElement(band, "CategoryNames")
    for value in range(max(names, default=-1) + 1):
        ET.SubElement(categories, "Category").text = names.get(value, "")
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    known = all(row.area_km2 is not None for row in rows)
    columns = COLUMNS if known else COLUMNS[:-1]
    for index, column in enumerate(columns):
        definition = ET.SubElement(table, "FieldDefn", index=str(index))
        ET.SubElement(definition, "Name").text = column.name
        kind = ET.SubElement(definition, "Type", typeAsString=TYPE_NAMES[column.type])
        kind.text = str(column.type)
        ET.SubElement(definition, "Usage").text = str(column.usage)
    for index, row in enumerate(rows):
        element = ET.SubElement(table, "Row", index=str(index))
        cells = [row.value, row.name, *row.color, row.pixels, row.area_km2]
        for cell in cells[: len(columns)]:
            ET.SubElement(element, "F").text = str(cell)
    return _text(root)


def qml(rows: Sequence[ClassRow]) -> str:
    """A QGIS layer style: one colour and one label per class."""
    root = ET.Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    ET.SubElement(renderer, "rasterTransparency")
    palette = ET.SubElement(renderer, "colorPalette")
    for row in rows:
        ET.SubElement(
            palette,
            "paletteEntry",
            value=str(row.value),
            label=row.name,
            color=row.hex,
            alpha="255",
        )
    ET.SubElement(root, "blendMode").text = "0"
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + _text(root)


def sld(rows: Sequence[ClassRow], layer: str) -> str:
    """An OGC style (SLD 1.0.0): one colour and one label per class.

    ``type="values"`` is an addition that GeoServer, MapServer and QGIS share: no ramp between
    classes.

    Args:
        rows: the classes.
        layer: what a server calls the map.
    """
    space = {"xmlns": "http://www.opengis.net/sld", "xmlns:ogc": "http://www.opengis.net/ogc"}
    root = ET.Element("StyledLayerDescriptor", {"version": "1.0.0", **space})
    named = ET.SubElement(root, "NamedLayer")
    ET.SubElement(named, "Name").text = _printable(layer)
    style = ET.SubElement(named, "UserStyle")
    rule = ET.SubElement(ET.SubElement(style, "FeatureTypeStyle"), "Rule")
    symbolizer = ET.SubElement(rule, "RasterSymbolizer")
    ET.SubElement(symbolizer, "Opacity").text = "1"
    colors = ET.SubElement(symbolizer, "ColorMap", type="values")
    for row in rows:
        ET.SubElement(
            colors,
            "ColorMapEntry",
            color=row.hex,
            quantity=str(row.value),
            label=row.name,
            opacity="1",
        )
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _text(root)


def vat_dbf(rows: Sequence[ClassRow]) -> bytes:
    """ArcGIS's attribute table of a raster, dBASE III; texts are UTF-8.

    The column ``Area_km2`` is there only if the areas are known.
    """
    columns = [
        DbfColumn("Value", [row.value for row in rows]),
        DbfColumn("Count", [row.pixels for row in rows], width=18),
        DbfColumn("Class", [row.name for row in rows]),
        DbfColumn("Red", [row.color[0] for row in rows]),
        DbfColumn("Green", [row.color[1] for row in rows]),
        DbfColumn("Blue", [row.color[2] for row in rows]),
    ]
    areas = [row.area_km2 for row in rows if row.area_km2 is not None]
    if len(areas) == len(rows):
        columns.append(DbfColumn("Area_km2", areas, width=20, decimals=6))
    return dbf(columns)


def write_sidecars(final: Path, rows: Sequence[ClassRow]) -> tuple[Path, ...]:
    """Write what ``sidecar_names`` lists, each whole or not at all; what is right already stays.

    Args:
        final: the class map's final name; it is published after its sidecars.
        rows: its classes.

    Returns:
        The files written.

    Raises:
        StoreError: if they cannot be written.
    """
    contents = (
        aux_xml(rows).encode(),
        qml(rows).encode(),
        sld(rows, final.stem).encode(),
        vat_dbf(rows),
        b"UTF-8\n",
    )
    paths = tuple(final.with_name(name) for name in sidecar_names(final.name))
    for path, content in zip(paths, contents, strict=True):
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)
    return paths


def sidecar_names(name: str) -> tuple[str, ...]:
    """Files that a class map has beside it.

    >>> sidecar_names("landcover.tif")
    ('landcover.tif.aux.xml', 'landcover.qml', 'landcover.sld', 'landcover.tif.vat.dbf',
     'landcover.tif.vat.cpg')
    """
    stem = Path(name).stem
    return (
        f"{name}.aux.xml", f"{stem}.qml", f"{stem}.sld", f"{name}.vat.dbf", f"{name}.vat.cpg",
    )  # fmt: skip


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all, flushed to the disk.

    Raises:
        StoreError: if it cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """The same for bytes.

    Raises:
        StoreError: if they cannot be written.
    """
    waiting = path.with_name(path.name + ".partial")
    try:
        with waiting.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        waiting.replace(path)
    except OSError as error:
        waiting.unlink(missing_ok=True)
        raise system_error(f"cannot write {path}", error) from error


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
