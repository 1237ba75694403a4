"""What a finished product looks like, told by its file alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp

from tilemap.errors import SceneError, StoreError
from tilemap.stores.opening import open_dataset
from tilemap.stores.overviews import Method
from tilemap.stores.raster_profile import RasterProfile


def read_profile(path: Path) -> RasterProfile:
    """The profile that a product was written with.

    Its ``overview`` is how rasters of this kind are reduced: the file does not say.

    Raises:
        StoreError: if it cannot be read, or is no product: one of these declares its nodata.
    """
    try:
        with open_dataset(str(path)) as file:
            return _profile(file, path)
    except SceneError as error:
        raise StoreError(str(error)) from error


def _profile(file: Any, path: Path) -> RasterProfile:
    if file.nodata is None:
        raise StoreError(f"a product must declare nodata, {path} does not")
    tags = {key: value for key, value in file.tags().items() if key != "AREA_OR_POINT"}
    names, bits = _numbered(tags, "CLASS"), _numbered(tags, "BIT")
    crs = file.crs
    paletted = file.colorinterp[0] == ColorInterp.palette
    colors = file.colormap(1) if paletted else {}
    texts = tuple(text or "" for text in file.descriptions)
    overview: Method = "mode" if names or paletted else "nearest" if bits else "average"
    return RasterProfile(
        GeoBox(file.shape, file.transform, None if crs is None else crs.to_wkt()),
        nodata=file.nodata,
        palette={value: colors[value][:3] for value in names or colors} if paletted else None,
        names=names or None,
        overview=overview,
        tags={key: value for key, value in tags.items() if not re.match(r"(CLASS|BIT)_\d+$", key)},
        description=texts[0] if len(texts) == 1 else "",
        dtype=file.dtypes[0],
        bands=texts if len(texts) > 1 else (),
        bits=bits or None,
    )


def _numbered(tags: dict[str, str], kind: str) -> dict[int, str]:
    """Tags ``KIND_<number>`` by number."""
    found = {re.fullmatch(rf"{kind}_(\d+)", key): value for key, value in tags.items()}
    return dict(sorted((int(match[1]), value) for match, value in found.items() if match))
