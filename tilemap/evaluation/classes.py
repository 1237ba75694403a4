"""Which class a stored number is: of the map, and of a reference that may call it otherwise."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
import rasterio

from tilemap.errors import SceneError, UsageError
from tilemap.evaluation.metrics import IGNORE
from tilemap.files import decode_toml, read_file
from tilemap.stores.opening import GDAL_SETTINGS, open_dataset

UNKNOWN = 254
_NAME_COLUMNS = ("class_name", "classname", "class", "name", "label", "land_cover")
_MOST = 250  # classes; 254 and 255 are taken
_LARGEST_SIDECAR = 16 << 20  # bytes

Table = Mapping[str, tuple[str, ...]]
"""Reference values, as written, by value or name of the map's class."""


@dataclass(frozen=True, slots=True)
class MapClass:
    """One class of a map.

    Args:
        value: stored number.
        name: for people.
        color: ``#rrggbb``.
    """

    value: int
    name: str
    color: str = "#888888"


@dataclass(frozen=True, slots=True)
class Lookup:
    """Class index by stored number; what is not in it is unknown.

    Args:
        indices: class index or ``IGNORE`` by stored number.
    """

    indices: tuple[tuple[float, int], ...]

    def apply(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Class indices of stored numbers: uint8 of the same shape, ``UNKNOWN`` for the rest."""
        if image.dtype.kind in "iu" and image.dtype.itemsize <= 2:
            table, start = _table(self, image.dtype.str), int(np.iinfo(image.dtype).min)
            return table[image if start == 0 else image.astype(np.int32) - start]
        known = np.array(sorted(self.indices), dtype=np.float64).reshape(-1, 2)
        if not known.size:
            return np.full(image.shape, UNKNOWN, dtype=np.uint8)
        at = np.minimum(np.searchsorted(known[:, 0], image), len(known) - 1)
        found = np.where(known[at, 0] == image, known[at, 1], UNKNOWN)
        return np.asarray(found, dtype=np.uint8)


@lru_cache(maxsize=16)
def _table(lookup: Lookup, dtype: str) -> npt.NDArray[np.uint8]:
    limits = np.iinfo(dtype)
    table = np.full(int(limits.max) - int(limits.min) + 1, UNKNOWN, dtype=np.uint8)
    for value, index in lookup.indices:
        if float(value).is_integer() and limits.min <= value <= limits.max:
            table[int(value) - int(limits.min)] = index
    return table


def stored_names(path: str) -> dict[int, str]:
    """Class names that a raster carries, by stored number; empty where it carries none.

    From its tags ``CLASS_<number>``, else from the category names or the attribute table of its
    ``.aux.xml``, or of the VRT that it is.

    Raises:
        SceneError: if it cannot be opened.
    """
    with rasterio.Env(**GDAL_SETTINGS), open_dataset(path) as dataset:
        tags = dataset.tags()
    named = {
        int(key[6:]): value
        for key, value in tags.items()
        if key.startswith("CLASS_") and key[6:].isdigit()
    }
    if named:
        return named
    own = _names_in(Path(path), "VRTRasterBand") if path.lower().endswith(".vrt") else {}
    return own or _names_in(Path(f"{path}.aux.xml"), "PAMRasterBand")


def _names_in(path: Path, band: str) -> dict[int, str]:
    """Names of the first band in a file of GDAL's XML; none if it is not there.

    Raises:
        SceneError: if it is too large or damaged: it may name classes that numbers would confuse.
    """
    try:
        if path.stat().st_size > _LARGEST_SIDECAR:
            raise SceneError(
                f"{path} may name the classes, but has more than {_LARGEST_SIDECAR:,} bytes; "
                "remove it or write a smaller one"
            )
        root = ET.fromstring(read_file(path))
    except OSError:
        return {}
    except ET.ParseError as error:
        raise SceneError(
            f"{path} may name the classes, but is damaged: {error}; mend or remove it"
        ) from error
    first = f"./{band}[@band='1']"
    categories = root.findall(f"{first}/CategoryNames/Category")
    named = {value: c.text for value, c in enumerate(categories) if c.text}
    table = root.find(f"{first}/GDALRasterAttributeTable")
    return named or ({} if table is None else _names_of_table(table))


def _names_of_table(table: ET.Element) -> dict[int, str]:
    """Names of an attribute table: its column of names by that of numbers.

    The columns are known by their usage (GDAL's GFU_Name 2 and GFU_MinMax 5), else by their names
    as ArcGIS writes them.
    """
    usage, titles = dict[str, int](), dict[str, int]()
    for field in table.findall("FieldDefn"):
        number = field.get("index", "")
        if not number.isdecimal():
            return {}
        usage.setdefault(field.findtext("Usage", "0"), int(number))
        titles.setdefault(field.findtext("Name", "").lower(), int(number))
    values = usage.get("5", titles.get("value"))
    names = usage.get("2", next((titles[t] for t in _NAME_COLUMNS if t in titles), None))
    if names is None or values is None:
        return {}
    found = dict[int, str]()
    for row in table.findall("Row"):
        cells = [cell.text or "" for cell in row.findall("F")]
        try:
            value, name = float(cells[values]), cells[names]
        except (ValueError, IndexError):
            continue
        if value.is_integer() and name:
            found[int(value)] = name
    return found


def stored_colors(path: str) -> dict[int, str]:
    """Palette of a raster as ``#rrggbb`` by stored number; empty where it has none.

    Raises:
        SceneError: if it cannot be opened.
    """
    with rasterio.Env(**GDAL_SETTINGS), open_dataset(path) as dataset:
        try:
            palette = dataset.colormap(1)
        except ValueError:
            return {}
    return {int(v): "#{:02x}{:02x}{:02x}".format(*color[:3]) for v, color in palette.items()}


def map_classes(path: str, nodata: float | None, table: Table | None) -> tuple[MapClass, ...]:
    """The classes of a map by value: those it names, else those that a table lists.

    Args:
        path: of the map.
        nodata: of the map; no class.
        table: of ``read_table``; its keys may be values of the map.

    Raises:
        SceneError: if neither says what the classes are, or there are too many.
    """
    names = {v: n for v, n in stored_names(path).items() if v != nodata}
    if not names and table is not None:
        names = {int(key): f"class {key}" for key in table if key.isdigit()}
    if not names:
        raise SceneError(
            f"a map must say what its classes are, {Path(path).name} has no class names; list its "
            "values in a table and give it as `classes`"
        )
    if len(names) > _MOST:
        raise SceneError(f"a map must have at most {_MOST} classes, {path} has {len(names)}")
    colors = stored_colors(path)
    return tuple(
        MapClass(value, names[value], colors.get(value, "#888888")) for value in sorted(names)
    )


def read_table(path: str | Path) -> Table:
    """Read which reference values stand for which class of the map.

    ``.toml``: ``water = [80, 200]`` a line, by name or value of the map's class, perhaps below
    ``[classes]``. Anything else is CSV with the columns ``class`` and ``reference``, a pair a line.

    Raises:
        SceneError: if it cannot be read, or says nothing.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".toml":
            pairs = _toml(read_file(path))
        else:
            pairs = _csv(read_file(path).decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise SceneError(f"no such file: {path}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise SceneError(f"cannot read the table {path}: {error}") from error
    table: dict[str, tuple[str, ...]] = {}
    for key, value in pairs:
        table[key] = (*table.get(key, ()), value)
    if not table:
        raise SceneError(
            f"a table of classes must have lines such as water = [80] (.toml) or the columns "
            f"class,reference (.csv), {path.name} has none"
        )
    return table


def _toml(text: bytes) -> list[tuple[str, str]]:
    content = decode_toml(text)
    content = content.get("classes", content)
    if not isinstance(content, dict):
        return []
    return [
        (str(key).strip(), written(value))
        for key, values in content.items()
        for value in (values if isinstance(values, list) else [values])
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    ]


def _csv(text: str) -> list[tuple[str, str]]:
    rows = csv.DictReader(text.splitlines())
    names = {name.strip().lower(): name for name in rows.fieldnames or ()}
    if not {"class", "reference"} <= names.keys():
        return []
    pairs = [(row[names["class"]], row[names["reference"]]) for row in rows]
    return [(key.strip(), value.strip()) for key, value in pairs if key and value]


@dataclass(frozen=True)
class Matching:
    """What reference values mean, written or stored.

    Args:
        names: class index or ``IGNORE`` by ``written`` value.
        classes: of the map, for errors.
    """

    names: Mapping[str, int]
    classes: tuple[str, ...]

    def index(self, value: Any) -> int:
        """Class index of a value, ``IGNORE``, or ``UNKNOWN``."""
        return self.names.get(written(value), UNKNOWN)

    def lookup(self, stored: Mapping[int, str]) -> Lookup:
        """By stored number of a raster, whose own names (if any) count where its number does not.

        Args:
            stored: the raster's class names.
        """
        indices: dict[float, int] = {}
        for text, index in self.names.items():
            number = _number(text)
            if number is not None:
                indices[number] = index
        for value, name in stored.items():
            by_name = self.index(name)
            if by_name != UNKNOWN:
                indices[value] = by_name
        return Lookup(tuple(sorted(indices.items())))

    def unknown(self, values: Iterable[str]) -> SceneError:
        """The error that names values which are no class."""
        found = sorted(set(values))
        shown = ", ".join(found[:12]) + (" ..." if len(found) > 12 else "")
        return SceneError(
            f"reference values must be classes of the map ({', '.join(self.classes)}), got "
            f"{shown}; say what they are with `classes`, or leave them out with `ignore`"
        )


def match(
    classes: Sequence[MapClass],
    table: Table | None,
    ignore: Sequence[str],
    stored: Mapping[int, str] | None = None,
) -> Matching:
    """Settle what reference values mean.

    With a table only what it lists counts. Without one a raster that names its classes is matched
    by name, anything else by the map's values and by its names.

    Args:
        classes: of the map.
        table: of ``read_table``.
        ignore: values or names that do not count.
        stored: class names of a reference raster.

    Raises:
        UsageError: if the table names no class of the map, or one value for two classes.
    """
    own = {c.name.casefold(): i for i, c in enumerate(classes)}
    values = {str(c.value): i for i, c in enumerate(classes)}
    names: dict[str, int] = {}
    for key, references in (table or {}).items():
        index = values.get(key, own.get(key.casefold()))
        if index is None:
            raise UsageError(
                f"`classes` must name classes of the map ({', '.join(c.name for c in classes)}), "
                f"got {key!r}"
            )
        for value in references:
            if names.setdefault(written(value), index) != index:
                raise UsageError(f"`classes` gives the reference value {value} to two classes")
    if table is None:
        names = {written(name): index for name, index in own.items()}
        names |= {} if stored else values
    names |= {written(value): IGNORE for value in ignore}
    return Matching(names, tuple(c.name for c in classes))


def written(value: Any) -> str:
    """One spelling of a value, whether it comes as a number or as text.

    >>> written(3), written(3.0), written(" 3 "), written("Water")
    ('3', '3', '3', 'water')
    """
    text = str(value).strip().casefold()
    number = _number(text)
    return text if number is None else f"{number:.17g}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
