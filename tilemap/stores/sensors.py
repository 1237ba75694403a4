"""What bands are called: common names from descriptions and from the file names of sensors.

Common names are those of STAC's electro-optical extension, with the three red edges of
Sentinel-2 kept apart: coastal, blue, green, red, rededge1, rededge2, rededge3, nir, nir08, nir09,
cirrus, swir16, swir22, pan, lwir11, lwir12.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
SENSORS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {"sentinel2": SENTINEL2, "landsat_oli": LANDSAT_OLI, "landsat_tm": LANDSAT_TM}
)
# What "B4" means where the sensor is unknown: only where Sentinel-2 and Landsat 8 agree.
_EITHER = {key: name for key, name in SENTINEL2.items() if LANDSAT_OLI.get(key) == name}

COMMON_NAMES = frozenset(name for table in SENSORS.values() for name in table.values()) | frozenset(
    {"rededge", "yellow", "green05"}
)
_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "aerosol": "coastal",
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
_CODE = re.compile(r"(?:sr_|toa_|st_|band[ _]?)?b?(0?[1-9]|1[0-2]|8a)", re.IGNORECASE)
_OWN_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_GENERIC = re.compile(r"(band|layer|b|channel|gray|grey|undefined|unknown)[ _-]?\d*")

_SENTINEL2_FILE = re.compile(
    r"(?:^|[_\W])(?:s2[abcd]?|sentinel[-_]?2[abcd]?|t\d{2}[c-x][a-z]{2}_\d{8}t\d{6})(?=$|[_\W])",
    re.IGNORECASE,
)
_LANDSAT_FILE = re.compile(
    r"(?:^|[_\W])(?:l[cetmo]?0?|landsat[-_]?)([4-9])(?=$|[_\W]|\d{13})", re.IGNORECASE
)
_BAND_IN_NAME = re.compile(
    r"_(?:sr_|st_|toa_)?(b(?:0?[1-9]|1[0-2]|8a))(?:_\d{2}m)?$", re.IGNORECASE
)
_WORD_IN_NAME = re.compile(r"(?:^|[_.\-])([a-z]+\d{0,2})$", re.IGNORECASE)
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


def sensor_of(path: str, descriptions: Sequence[str | None] = ()) -> str | None:
    """The sensor a file comes from, by its name and by codes that only one sensor has.

    Args:
        path: the file; only its own name counts, not its folders.
        descriptions: what its bands are called.

    Returns:
        A key of ``SENSORS``, or None.
    """
    name = PurePath(path).name
    if _SENTINEL2_FILE.search(name):
        return "sentinel2"
    if landsat := _LANDSAT_FILE.search(name):
        return "landsat_oli" if int(landsat[1]) >= 8 else "landsat_tm"
    codes = [d.strip().upper() for d in descriptions if d]
    padded = any(re.fullmatch(r"B0[1-9]", code) for code in codes)
    return "sentinel2" if padded or "B8A" in codes or "B12" in codes else None


def name_of_description(description: str | None, sensor: str | None) -> str | None:
    """The name a band's own description gives it.

    Args:
        description: such as "B02", "SR_B4", "Red", "swir1" or "ndvi".
        sensor: a key of ``SENSORS``, or None.

    Returns:
        A common name; else the description itself where it is a plain word ("ndvi"), so that a
        model trained on such bands finds them; None where it says nothing ("Band 1").
    """
    if not description or not description.strip():
        return None
    plain = canonical(description)
    if plain in COMMON_NAMES:
        return plain
    if match := _CODE.fullmatch(description.strip()):
        explicit = bool(re.search(r"b", description, re.IGNORECASE))
        table = SENSORS[sensor] if sensor else _EITHER
        known = table.get("B" + match[1].upper().lstrip("0")) if explicit else None
        if known and (sensor or not description.lower().startswith("band")):
            return known
    if _GENERIC.fullmatch(plain) or not _OWN_NAME.fullmatch(plain):
        return None
    return plain


def name_of_file(path: str, sensor: str | None = None) -> str | None:
    """The band a single-band file holds, by its name.

    Args:
        path: the file.
        sensor: a key of ``SENSORS`` that holds where the name does not tell.

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
    if match := _BAND_IN_NAME.search(stem):
        code = "B" + match[1][1:].upper().lstrip("0")
        padded = re.fullmatch(r"b(0[1-9]|8a)", match[1], re.IGNORECASE)
        sensor = sensor_of(path) or ("sentinel2" if padded else sensor)
        return (SENSORS[sensor] if sensor else _EITHER).get(code)
    if match := _WORD_IN_NAME.search(stem):
        word = canonical(match[1])
        return word if word in COMMON_NAMES else None
    return None


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
