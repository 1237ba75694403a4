"""What bands are called: common names from words, and from the codes of known sensors.

Common names are those of STAC's electro-optical extension, with the three red edges of
Sentinel-2 kept apart: coastal, blue, green, red, rededge1, rededge2, rededge3, nir, nir08, nir09,
cirrus, swir16, swir22, pan, lwir11, lwir12.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import PurePath
from types import MappingProxyType

SENTINEL2: Mapping[str, str] = MappingProxyType(
    {
        "B1": "coastal",
        "B2": "blue",
        "B3": "green",
        "B4": "red",
        "B5": "rededge1",
        "B6": "rededge2",
        "B7": "rededge3",
        "B8": "nir",
        "B8A": "nir08",
        "B9": "nir09",
        "B10": "cirrus",
        "B11": "swir16",
        "B12": "swir22",
    }
)
LANDSAT_OLI: Mapping[str, str] = MappingProxyType(
    {
        "B1": "coastal",
        "B2": "blue",
        "B3": "green",
        "B4": "red",
        "B5": "nir",
        "B6": "swir16",
        "B7": "swir22",
        "B8": "pan",
        "B9": "cirrus",
        "B10": "lwir11",
        "B11": "lwir12",
    }
)
LANDSAT_TM: Mapping[str, str] = MappingProxyType(
    {
        "B1": "blue",
        "B2": "green",
        "B3": "red",
        "B4": "nir",
        "B5": "swir16",
        "B6": "lwir",
        "B7": "swir22",
        "B8": "pan",
    }
)
LANDSAT_MSS: Mapping[str, str] = MappingProxyType(  # of Landsat 4 and 5
    {"B1": "green", "B2": "red", "B3": "nir08", "B4": "nir09"}
)
LANDSAT_MSS_FIRST: Mapping[str, str] = MappingProxyType(  # of Landsat 1 to 3
    {"B4": "green", "B5": "red", "B6": "nir08", "B7": "nir09"}
)
MODIS: Mapping[str, str] = MappingProxyType(
    {"B1": "red", "B2": "nir", "B3": "blue", "B4": "green", "B6": "swir16", "B7": "swir22"}
)
SENSORS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "sentinel2": SENTINEL2,
        "landsat_oli": LANDSAT_OLI,
        "landsat_tm": LANDSAT_TM,
        "landsat_mss": LANDSAT_MSS,
        "landsat_mss_first": LANDSAT_MSS_FIRST,
        "modis": MODIS,
    }
)

COMMON_NAMES = frozenset(name for table in SENSORS.values() for name in table.values()) | frozenset(
    {"rededge", "yellow", "green05"}
)
_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "coastal aerosol": "coastal",
        "coastalaerosol": "coastal",
        "ultra blue": "coastal",
        "rededge071": "rededge1",
        "rededge075": "rededge2",
        "rededge078": "rededge3",
        "red edge 1": "rededge1",
        "red edge 2": "rededge2",
        "red edge 3": "rededge3",
        "red edge": "rededge",
        "near infrared": "nir",
        "near-infrared": "nir",
        "nearinfrared": "nir",
        "infrared": "nir",
        "narrow nir": "nir08",
        "nir narrow": "nir08",
        "nir8a": "nir08",
        "water vapour": "nir09",
        "water vapor": "nir09",
        "swir1": "swir16",
        "swir 1": "swir16",
        "swir-1": "swir16",
        "swir2": "swir22",
        "swir 2": "swir22",
        "swir-2": "swir22",
        "panchromatic": "pan",
        "tirs1": "lwir11",
        "tirs2": "lwir12",
    }
)
_ANY_CODE = r"(?:sr_|toa_|st_|sur_refl_)?(?:b|band[ _]?)(0?[1-9]|1[0-2]|8a)"
_CODE = re.compile(_ANY_CODE, re.IGNORECASE)
_OWN_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_GENERIC = re.compile(r"(band|layer|b|channel|gray|grey|undefined|unknown)[ _-]?\d*")

_LEFT, _RIGHT = r"(?:^|(?<=[_\W]))", r"(?=$|[_\W])"
_SENTINEL2 = re.compile(
    _LEFT
    + r"(?:s2[abcd]?|sentinel[-_ ]?2[abcd]?|hls[._]s30|t\d{2}[c-x][a-z]{2}_\d{8}t\d{6})"
    + _RIGHT,
    re.IGNORECASE,
)
_LANDSAT = re.compile(  # L1 and L2 alone are levels of processing
    _LEFT + r"l(?:([cetmo])0?([1-9])|andsat[-_ ]?0?([1-9])|([789]))(?=$|[_\W]|\d{13})",
    re.IGNORECASE,
)
_HLS_LANDSAT = re.compile(_LEFT + r"hls[._]l30" + _RIGHT, re.IGNORECASE)
_MODIS = re.compile(_LEFT + r"(?:(?:mod|myd|mcd)(?:09|43)\w*|modis)" + _RIGHT, re.IGNORECASE)
_INSTRUMENT = re.compile(_LEFT + r"(mss|tm|etm|oli|tirs)" + r"(?=$|[_\W+])", re.IGNORECASE)
# bands that the surface reflectance of one sensor has and no other's
_OWN_CODES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "sentinel2": frozenset({"B8A"}),
        "landsat_oli": frozenset({"SR_B6", "ST_B10", "SR_QA_AEROSOL"}),
        "landsat_tm": frozenset({"ST_B6", "SR_ATMOS_OPACITY", "SR_CLOUD_QA"}),
        "modis": frozenset(f"SUR_REFL_B0{number}" for number in range(1, 8)),
    }
)
_TM_REFLECTANCE = frozenset(f"SR_B{number}" for number in (1, 2, 3, 4, 5, 7))
_BAND_IN_NAME = re.compile(r"(?:^|[_.])(" + _ANY_CODE + r")(?:_\d{2}m)?$", re.IGNORECASE)
_WORD_IN_NAME = re.compile(r"(?:^|[_.\-])([a-z]+\d{0,2})$", re.IGNORECASE)
# what lies beside the bands of a product: masks, quality, angles, atmosphere; and its pictures
_QUALITY = re.compile(
    r"(?:^|[_.])(?:b?qa(?:_(?:pixel|radsat|aerosol|class\d))?|(?:pixel|radsat|cloud|aerosol)_qa|qc"
    r"|scl|fmask|(?:cloud_?)?mask|msk|radsat|aot|wvp|aerosol|atmos_opacity|cldprb|snwprb|[sv][az]a"
    r"|st_(?:atran|cdist|drad|emis|emsd|trad|urad)|tci|pvi)(?:_\d{2}m)?$",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?<!\d)(18|19|20|21)\d\d(?!\d)")
MIDDLE = (7, 1)
"""Month and day of a date of which only the year is known."""
_TIME = r"(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d\d*)?"  # HHMM, HHMMSS, and parts of a second
_DATES = re.compile(
    "|".join(
        (
            # ASTER, month first: AST_L1T_00305062003152734
            r"AST_[A-Z0-9]+_\d{3}(?P<m1>\d{2})(?P<d1>\d{2})(?P<y1>(?:19|20)\d{2})\d{6}(?!\d)",
            # Landsat before its collections, day of the year: LC80160372013109LGN01
            r"L[CEMOT]\d\d{6}(?P<y2>(?:19|20)\d{2})(?P<n2>\d{3})(?=[A-Z]{3}\d{2})",
            rf"(?<!\d)(?P<y3>(?:19|20)\d{{2}})(?P<m3>\d{{2}})(?P<d3>\d{{2}})(?:{_TIME})?(?!\d)",
            r"(?<!\d)(?P<y4>(?:19|20)\d{2})(?P<sep>[-_.])(?P<m4>\d{2})(?P=sep)(?P<d4>\d{2})(?!\d)",
            # day of the year: A2020139, 2020139T153556
            r"(?<!\d)(?P<y5>(?:19|20)\d{2})(?P<n5>\d{3})(?!\d)",
        )
    )
)


def canonical(name: str) -> str:
    """The common name for a name a person or a catalogue used; unknown ones in lower case.

    >>> canonical("Red"), canonical("swir1"), canonical("vv")
    ('red', 'swir16', 'vv')
    """
    plain = name.strip().lower()
    return _ALIASES.get(plain, plain)


def sensor_in(text: str) -> str | None:
    """Return the sensor that a text names: a file name, a platform with its instruments.

    Landsat 4 and 5 carried two scanners that number their bands differently, so their own
    numbers say nothing until the scanner is named too.

    Returns:
        A key of ``SENSORS``, or None if it names none, or several.

    >>> sensor_in("LT05_L2SP_010067_19860424_20200918_02_T2_SR_B4"), sensor_in("landsat-5 mss")
    ('landsat_tm', 'landsat_mss')
    >>> sensor_in("landsat-5") is None
    True
    """
    found: set[str | None] = set()
    if _SENTINEL2.search(text):
        found.add("sentinel2")
    if _HLS_LANDSAT.search(text):
        found.add("landsat_oli")
    if _MODIS.search(text):
        found.add("modis")
    instruments = {match.lower() for match in _INSTRUMENT.findall(text)}
    for letter, *numbers in _LANDSAT.findall(text):
        found.add(_landsat(letter.lower(), int("".join(numbers)), instruments))
    return found.pop() if len(found) == 1 else None


def _landsat(letter: str, number: int, instruments: set[str]) -> str | None:
    """Return the sensor of a Landsat, by the letter of its products, or its instruments."""
    if number >= 8:
        return "landsat_oli"
    if number <= 3:
        return "landsat_mss_first"
    if letter == "m" or "mss" in instruments:
        return "landsat_mss"
    known = number in (6, 7) or letter in ("t", "e") or instruments & {"tm", "etm"}
    return "landsat_tm" if known else None


def sensor_of_codes(codes: Iterable[str | None]) -> str | None:
    """Return the sensor of bands whose codes only one sensor has.

    Args:
        codes: what the bands are called, as they are written.

    Returns:
        A key of ``SENSORS``, or None.

    >>> sensor_of_codes(["B02", "B8A"]), sensor_of_codes(["B02", "B04"])
    ('sentinel2', None)
    """
    written = {code.strip().upper() for code in codes if code}
    found = {sensor for sensor, own in _OWN_CODES.items() if written & own}
    if not found and is_list_of_tm(written):
        return "landsat_tm"
    return found.pop() if len(found) == 1 else None


def is_list_of_tm(codes: Iterable[str | None]) -> bool:
    """Return True for SR_B1 to SR_B5 and SR_B7: all the surface reflectance of Landsat 4 to 7.

    Landsat 8 has SR_B1 to SR_B7, so a choice of its bands could look the same.
    """
    written = {code.strip().upper() for code in codes if code}
    return {code for code in written if code.startswith("SR_B")} == _TM_REFLECTANCE


def name_of_code(code: str, sensor: str | None) -> str | None:
    """Return the common name of a sensor's band, such as "B02" or "SR_B4"; None if unknown."""
    match = _CODE.fullmatch(code.strip())
    if match is None or sensor is None:
        return None
    return SENSORS[sensor].get("B" + match[1].upper().lstrip("0"))


def is_code(text: str) -> bool:
    """Return True for a band's code, such as "B02": it means nothing without its sensor."""
    return _CODE.fullmatch(text.strip()) is not None


def name_of_words(description: str | None) -> str | None:
    """Return the name that a description gives in words.

    Args:
        description: such as "Red", "swir1" or "ndvi".

    Returns:
        A common name; else the description itself if it is a plain word ("ndvi"), so that a
        model trained on such bands finds them; None if it says nothing ("Band 1", "B4").
    """
    if not description or not description.strip():
        return None
    plain = canonical(description)
    if plain in COMMON_NAMES:
        return plain
    if is_code(description) or _GENERIC.fullmatch(plain) or not _OWN_NAME.fullmatch(plain):
        return None
    return plain


def name_of_description(description: str | None, sensor: str | None) -> str | None:
    """Return the name that a band's own description gives it, in words or as a code.

    Args:
        description: such as "B02", "SR_B4", "Red", "swir1" or "ndvi".
        sensor: a key of ``SENSORS``, or None.
    """
    return name_of_words(description) or (
        name_of_code(description, sensor) if description else None
    )


def code_of_file(path: str) -> str | None:
    """Return the code that the name of a single-band file ends with.

    >>> code_of_file("LT05_L2SP_010067_19860424_20200918_02_T2_SR_B4.TIF")
    'SR_B4'
    """
    match = _BAND_IN_NAME.search(PurePath(path).stem)
    return match[1] if match else None


def name_of_file(path: str, sensor: str | None = None) -> str | None:
    """Return the band that a single-band file holds, by its name.

    Args:
        path: the file; only its own name counts, not its folders.
        sensor: a key of ``SENSORS``, used if the name does not say it.

    >>> name_of_file("T18SVG_20230601T155829_B8A.jp2")
    'nir08'
    >>> name_of_file("LC08_L2SP_224078_20200518_02_T1_SR_B5.TIF")
    'nir'
    >>> name_of_file("LE07_L1TP_224078_20000518_02_T1_B5.TIF")
    'swir16'
    >>> name_of_file("field_red.tif")
    'red'
    """
    stem = PurePath(path).stem
    if code := code_of_file(path):
        return name_of_code(code, sensor_in(stem) or sensor_of_codes([code]) or sensor)
    if is_quality(path):
        return None
    if match := _WORD_IN_NAME.search(stem):
        word = canonical(match[1])
        return word if word in COMMON_NAMES else None
    return None


def is_quality(path: str) -> bool:
    """Return True for a file of a product that holds no band: a mask, an angle, a picture.

    >>> is_quality("LC08_L2SP_017036_20130419_20200913_02_T2_SR_QA_AEROSOL.TIF")
    True
    """
    return code_of_file(path) is None and _QUALITY.search(PurePath(path).stem) is not None


def date_of_file(path: str) -> datetime | None:
    """The first date in a file's name, midnight UTC, if it has one."""
    return date_in(PurePath(path).name)


def date_in(text: str) -> datetime | None:
    """The first date in a text, midnight UTC, if it has one.

    A year with month and day (2020-05-18, 2020_05_18, 20200518, 20200518T153556), or with the day
    of the year (2020139), and the orders of ASTER and of early Landsat names.

    >>> date_in("MOD13Q1.A2020139.h12v04.006").isoformat()
    '2020-05-18T00:00:00+00:00'
    """
    for match in _DATES.finditer(text):
        # one alternative matched: its groups are year, month, day, or year, day of the year
        groups = match.groupdict().items()
        found = {key[0]: int(value) for key, value in groups if value and key != "sep"}
        try:
            if "n" not in found:
                return datetime(found["y"], found["m"], found["d"], tzinfo=UTC)
            day = datetime(found["y"], 1, 1, tzinfo=UTC) + timedelta(days=found["n"] - 1)
        except ValueError:
            continue
        if day.year == found["y"]:
            return day
    return None


def day_of_name(name: str) -> tuple[date, str | None] | None:
    """The day in a name, and a note if there is only a year.

    >>> day_of_name("y1985")
    (datetime.date(1985, 7, 1), 'only the year is known, taken as 1985-07-01')
    >>> day_of_name("LC08_20200518_T1")[0].isoformat()
    '2020-05-18'
    """
    exact = date_of_file(name)
    if exact is not None:
        return exact.date(), None
    day = year_in(name)
    return None if day is None else (day, f"only the year is known, taken as {day.isoformat()}")


def year_in(text: str) -> date | None:
    """The middle of the first year in a text, if it has one."""
    year = _YEAR.search(text)
    return None if year is None else date(int(year[0]), *MIDDLE)
