"""Names: which files may be scenes, what a scene is called, and of which day it is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import date

from tilemap.nightly.facts import CHANGE_ID
from tilemap.stores.sensors import date_in, year_in

RASTERS = (".tif", ".tiff", ".jp2")
ITEM, VRT = ".json", ".vrt"
PARTIAL = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".download")
"""What copying programs put behind a name until the file is whole."""
LONGEST = 100
"""Characters of an id."""

_RSYNC = re.compile(r"\.(.+)\.[A-Za-z0-9]{6}")  # .scene.tif.Xa3b9Q
_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_DIGITS = 10
_HASHED = re.compile(rf".*-[0-9a-f]{{{_DIGITS}}}", re.DOTALL)


def split_suffix(name: str) -> tuple[str, str]:
    """A name before its last dot, and from there on.

    >>> split_suffix("a.b.tif"), split_suffix("a"), split_suffix(".a")
    (('a.b', '.tif'), ('a', ''), ('.a', ''))
    """
    stem, dot, end = name.rpartition(".")
    return (stem, dot + end) if stem else (name, "")


def is_left_out(name: str, pattern: str = "*") -> bool:
    """Whether a name says that it is no scene: hidden, kept apart, or not whole yet.

    Args:
        name: of a file or folder.
        pattern: that it was matched by; one that begins with "." or "_" wants such names.

    >>> [is_left_out(name) for name in ("a.tif", ".a.tif", "_old", "a.tif.part", "a.tmp.tif")]
    [False, True, True, True, True]
    """
    if name[:1] in (".", "_") and pattern[:1] != name[:1]:
        return True
    stem, suffix = split_suffix(name.lower())
    return suffix in PARTIAL or split_suffix(stem)[1] in PARTIAL


def kind_of(name: str, vrt: bool = False) -> str | None:
    """What a file may be by its suffix: "raster", "item" or nothing.

    Args:
        vrt: whether a VRT is wanted.
    """
    suffix = split_suffix(name)[1].lower()
    if suffix in RASTERS or (vrt and suffix == VRT):
        return "raster"
    return "item" if suffix == ITEM else None


def whole_name(name: str) -> str | None:
    """What a file that is not whole yet will be called; None for any other file.

    >>> whole_name("a.tif.part"), whole_name(".a.tif.Xa3b9Q"), whole_name("a.tif")
    ('a.tif', 'a.tif', None)
    """
    stem, suffix = split_suffix(name)
    if suffix.lower() in PARTIAL:
        return stem
    found = _RSYNC.fullmatch(name)
    return found[1] if found else None


def sidecars(name: str) -> tuple[str, ...]:
    """Files that, beside a raster, change how it is read: GDAL's own, masks, world files.

    >>> sidecars("a.tif")
    ('a.tif.aux.xml', 'a.tif.msk', 'a.tifw', 'a.tfw', 'a.wld', 'a.j2w', 'a.TFW')
    """
    stem, _ = split_suffix(name)
    return (
        f"{name}.aux.xml", f"{name}.msk", f"{name}w", f"{stem}.tfw", f"{stem}.wld",
        f"{stem}.j2w", f"{stem}.TFW",
    )  # fmt: skip


def scene_id(key: str, source: str = "") -> str:
    """What a scene is called, from its own name and nothing else.

    So it is called the same whatever other scenes come or go, and no id ever passes from one scene
    to another: a name that had to be altered carries a hash of itself, and one that looks as if
    it did is altered.

    Args:
        key: path below its source, without suffix, or the id of an item.
        source: which source, of those whose keys may be the same; empty for the first.

    Returns:
        1 to 100 letters, digits, ".", "_", "-".

    >>> scene_id("S2A_20200518"), scene_id("2020/south field")
    ('S2A_20200518', '2020-south-field-0876164f1a')
    """
    plain = len(key) <= LONGEST and _PLAIN.fullmatch(key) is not None
    if plain and not source and not _HASHED.fullmatch(key) and key.lower() != CHANGE_ID:
        return key
    digest = hashlib.sha256(f"{source}\0{key}".encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    words = _OTHER.sub("-", key)[: LONGEST - _DIGITS - 1].strip("-._")
    return f"{words or 'scene'}-{digest}"


def day_in(names: Sequence[str]) -> date | None:
    """The day of a scene from its names.

    Args:
        names: its own, without suffix; then those of its folders, the nearest first.

    Returns:
        The first whole date; else the middle of the year in its own name; else None. The year of a
        folder is that of many scenes and no day of any.

    >>> day_in(["south", "20200518", "2020"]), day_in(["y1985"]), day_in(["south", "2020"])
    (datetime.date(2020, 5, 18), datetime.date(1985, 7, 1), None)
    """
    for name in names:
        if (moment := date_in(name)) is not None:
            return moment.date()
    return year_in(names[0]) if names else None
