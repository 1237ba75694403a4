"""What the numbers of known products mean: by their names, and by Sentinel-2's own metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from tilemap.errors import SceneError
from tilemap.scene import Product
from tilemap.stores.sensors import SENTINEL2, code_of_file, date_in

FIRST_OFFSET = date(2022, 1, 25)
"""The day since which Sentinel-2 products are made with an offset (processing baseline 04.00)."""

LANDSAT_REFLECTANCE = Product("Landsat Collection 2 surface reflectance", 2.75e-05, -0.2, 0)
HLS = Product("HLS", 0.0001, 0.0, -9999)
MODIS_REFLECTANCE = Product("MODIS surface reflectance", 0.0001, 0.0, -28672)

_SENTINEL2 = re.compile(r"S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_(?:N(\d{2})(\d{2})_)?", re.IGNORECASE)
_GRANULE = re.compile(r"(?:^|_)T\d{2}[C-X][A-Z]{2}_\d{8}T\d{6}_", re.IGNORECASE)
_LEVEL = re.compile(r"(?:^|[_-])S2[A-D]?(?=[_-]).*[_-]L(?:1C|2A)(?=[_.-]|$)", re.IGNORECASE)
_LANDSAT = re.compile(r"L[COTE]0[4-9]_L2S[PR]_\d{6}_\d{8}_\d{8}_02_", re.IGNORECASE)
_HLS = re.compile(r"(?:^|_)HLS[._][LS]30[._]", re.IGNORECASE)
_MODIS = re.compile(r"(?:^|_)(?:MOD|MYD)09\w+\.", re.IGNORECASE)
_LARGEST_METADATA = 16 * 2**20


def sentinel2(baseline: float | None, day: date | None) -> Product:
    """Return the product of a baseline; without one, of a day on which only one can have been.

    Args:
        baseline: processing baseline, such as 5.09.
        day: of the observation. Scenes before 2022 may have been processed again since.
    """
    if baseline is not None:
        shifted: bool | None = baseline >= 4
    else:
        shifted = True if day is not None and day >= FIRST_OFFSET else None
    if shifted is None:
        return Product("Sentinel-2 (offset -0.1 since processing baseline 04.00)", 0.0001, None, 0)
    if shifted:
        return Product("Sentinel-2 since processing baseline 04.00", 0.0001, -0.1, 0)
    return Product("Sentinel-2 before processing baseline 04.00", 0.0001, 0.0, 0)


def product_of(path: str) -> Product | None:
    """Return the product that a file is of, by its name and those of its product's folders.

    >>> product_of("T18SVG_20230601T155829_B04_10m.jp2").offset
    -0.1
    >>> product_of("S2A_MSIL2A_20230601T155829_N0214_R097_T18SVG_20230601T220000.tif").offset
    0.0
    >>> product_of("sentinel2_2023.tif") is None
    True
    """
    name = Path(path).name
    day = date_in(name)
    for part in (name, *(parent.name for parent in list(Path(path).parents)[:5])):
        if found := _SENTINEL2.search(part):
            baseline = None if found[1] is None else int(found[1]) + int(found[2]) / 100
            made = date_in(part)
            return sentinel2(baseline, None if made is None else made.date())
    moment = None if day is None else day.date()
    if _GRANULE.search(name):
        return sentinel2(None, moment)
    if _LEVEL.search(Path(path).stem) and moment is not None and moment >= FIRST_OFFSET:
        return sentinel2(None, moment)
    if _LANDSAT.search(name) and not (code_of_file(path) or "").upper().startswith("ST_"):
        return LANDSAT_REFLECTANCE
    if _HLS.search(name):
        return HLS
    return MODIS_REFLECTANCE if _MODIS.search(name) else None


@dataclass(frozen=True, slots=True)
class Radiometry:
    """What the metadata of a Sentinel-2 product say of its numbers.

    Args:
        scale: reflectance of one unit.
        offsets: by band code ("B4"), in reflectance; None if the product has none at all.
        nodata: stored number that means "not observed".
    """

    scale: float
    offsets: Mapping[str, float] | None = field(default=None)
    nodata: float | None = None

    def offset(self, path: str) -> float | None:
        """Return the offset of a band's file; None if the metadata leave it open."""
        if self.offsets is None:
            return 0.0
        code = (code_of_file(path) or "").upper()
        return self.offsets.get("B" + code.lstrip("B").lstrip("0"))


def radiometry_of(path: str) -> Radiometry | None:
    """Return what the metadata of a file's product say, for a band inside a ``.SAFE`` folder.

    Raises:
        SceneError: if the metadata cannot be read.
    """
    folders = list(Path(path).parents)[:5]
    inside = next((n for n, folder in enumerate(folders) if folder.name == "IMG_DATA"), None)
    if inside is None:
        return None
    for folder in folders[inside:]:
        for level in ("2A", "1C"):
            metadata = folder / f"MTD_MSIL{level}.xml"
            if metadata.is_file():
                return _radiometry(metadata)
    return None


def _radiometry(metadata: Path) -> Radiometry | None:
    root = _parse(metadata)
    texts: dict[str, list[ElementTree.Element]] = {}
    for element in root.iter():
        texts.setdefault(element.tag.rpartition("}")[2], []).append(element)
    try:
        units = texts.get("BOA_QUANTIFICATION_VALUE") or texts.get("QUANTIFICATION_VALUE")
        if not units:
            return None
        scale = 1 / float(units[0].text or "")
        codes = {
            element.attrib["bandId"]: element.attrib["physicalBand"].upper()
            for element in texts.get("Spectral_Information", ())
        } or dict(zip(map(str, range(13)), _IN_ORDER, strict=True))
        shifts = texts.get("BOA_ADD_OFFSET") or texts.get("RADIO_ADD_OFFSET")
        offsets = None
        if shifts:
            offsets = {codes[e.attrib["band_id"]]: float(e.text or "") * scale for e in shifts}
        special = zip(
            texts.get("SPECIAL_VALUE_TEXT", ()), texts.get("SPECIAL_VALUE_INDEX", ()), strict=True
        )
        nodata = next((float(v.text or "") for name, v in special if name.text == "NODATA"), None)
    except (ValueError, KeyError, ZeroDivisionError) as problem:
        raise SceneError(f"the metadata of a product cannot be read: {metadata}") from problem
    return Radiometry(scale, offsets, nodata)


_IN_ORDER = tuple(
    sorted(SENTINEL2, key=lambda code: 8.5 if code == "B8A" else float(code.removeprefix("B")))
)


def _parse(metadata: Path) -> ElementTree.Element:
    try:
        if metadata.stat().st_size > _LARGEST_METADATA:
            raise SceneError(f"metadata must be at most 16 MiB, {metadata} is larger")
        content = metadata.read_bytes()
        if b"<!doctype" in content.lower() or b"<!entity" in content.lower():
            raise SceneError(f"metadata must not define entities, {metadata} does")
        return ElementTree.fromstring(content)
    except OSError as problem:
        raise SceneError(f"cannot read {metadata}: {problem.strerror}") from problem
    except (ElementTree.ParseError, ValueError, LookupError) as problem:
        raise SceneError(f"the metadata of a product cannot be read: {metadata}") from problem
