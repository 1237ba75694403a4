"""What the rasters of a change run look like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.changing.palette import change_names, change_palette
from tilemap.comparison.outcome import count_dtype
from tilemap.comparison.qa import Qa
from tilemap.comparison.smoothed import P_CHANGE, MethodName
from tilemap.models.card import ClassInfo
from tilemap.stores.cog import RasterProfile

NODATA = 255
NO_DATE = -2147483648
EPOCH = "1970-01-01"
QA_NAMES = {
    Qa.FEW: "fewer than two dates observed",
    Qa.FIRST: "not observed at the first date",
    Qa.LAST: "not observed at the last date",
    Qa.SHIFTED: "a date was moved, or accepted though it does not fit",
    Qa.SLIVER: "a shift of one pixel can explain the change",
    Qa.PROVISIONAL: "change seen at the last observed date only",
    Qa.SIEVED: "change below the minimum mapping unit, mapped as none",
    Qa.HARD: "labels only at some date",
}


def change_profiles(
    geobox: GeoBox,
    classes: Sequence[ClassInfo],
    dates: Sequence[str],
    tags: Mapping[str, str] | None = None,
    method: MethodName = "hmm",
) -> dict[str, RasterProfile]:
    """What every raster of a change run looks like, by name without ``.tif``, the map first.

    ``change`` holds ``1 + K * from + to``, 0 where no change can be told; ``p_change`` percent, 255
    likewise, of what ``method`` makes of it; ``date`` two bands, the day of the last change and the
    gap before it, ``NO_DATE`` where there is none; ``n_valid``, ``n_changes`` and ``qa`` as in
    ``comparison.outcome``, the first two of 16 bits where dates are more than a byte counts;
    ``labels_<date>`` the numbers of the classes as ``landcover.tif`` has them, 255 where there is
    none: stored numbers, not indices, see ``class_values``.

    Args:
        geobox: shape, geotransform and CRS.
        classes: of the series, in order; their indices are the ``from`` and ``to`` of codes.
        dates: of the labels, ISO days.
        tags: for every file.
        method: how the dates are compared.

    Raises:
        UsageError: if there are more than 15 classes.
    """
    common = dict(tags or {})
    profiles = {
        "change": _change(geobox, classes, common),
        "p_change": RasterProfile(
            geobox,
            overview="average",
            tags={**common, "UNITS": "percent"},
            description=f"{P_CHANGE[method]}, percent",
        ),
        "date": RasterProfile(
            geobox,
            dtype="int32",
            nodata=NO_DATE,
            overview="nearest",
            tags={**common, "UNITS": "days", "EPOCH": EPOCH},
            bands=(f"day of the last change, days since {EPOCH}", "days since the look before it"),
        ),
        "n_valid": _number(geobox, common, "dates observed", len(dates)),
        "n_changes": _number(geobox, common, "changes of class", len(dates)),
        "qa": RasterProfile(
            geobox,
            overview="nearest",
            tags=common,
            description="notes on the change, bits",
            bits={int(flag).bit_length() - 1: text for flag, text in QA_NAMES.items()},
        ),
    }
    return {**profiles, **{f"labels_{day}": _labels(geobox, classes, day, common) for day in dates}}


def class_values(classes: Sequence[ClassInfo]) -> npt.NDArray[np.uint8]:
    """Stored number of each class index, uint8 (256,); 255 where there is no class."""
    table = np.full(256, NODATA, dtype=np.uint8)
    table[: len(classes)] = [c.value for c in classes]
    return table


def _change(geobox: GeoBox, classes: Sequence[ClassInfo], tags: Mapping[str, str]) -> RasterProfile:
    names = [c.name for c in classes]
    return RasterProfile(
        geobox,
        nodata=0,
        palette=change_palette([c.rgb for c in classes]),
        names=change_names(names),
        overview="mode",
        tags={**tags, "TILEMAP_CLASSES": json.dumps(names, ensure_ascii=False)},
        description="class before and after",
    )


def _labels(
    geobox: GeoBox, classes: Sequence[ClassInfo], day: str, tags: Mapping[str, str]
) -> RasterProfile:
    return RasterProfile(
        geobox,
        palette={c.value: c.rgb for c in classes},
        names={c.value: c.name for c in classes},
        overview="mode",
        tags={**tags, "TILEMAP_DATE": day},
        description=f"land cover, {day}",
    )


def _number(geobox: GeoBox, tags: Mapping[str, str], description: str, dates: int) -> RasterProfile:
    dtype = count_dtype(dates)
    nodata = int(np.iinfo(dtype).max)
    return RasterProfile(geobox, nodata, None, None, "mode", dict(tags), description, dtype.name)
