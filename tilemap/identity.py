"""Identity: everything that decides a pixel, by content, as plain JSON to make a digest of.

A path is never part of it. Every digest of a run, a series, a training or a night takes what it
says of files from here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from odc.geo.geobox import GeoBox

from tilemap.stores.fingerprint import Inputs, files_of
from tilemap.stores.geotiff import SceneSource
from tilemap.stores.rasters import Raster
from tilemap.stores.warp import Warp

PACKAGES = {"torch": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}
"""Packages whose version may change what an engine computes."""


def scene_identity(source: SceneSource, inputs: Inputs) -> dict[str, Any]:
    """Say which plane of which file gives which band of a scene, and how it is scaled.

    Args:
        source: the scene.
        inputs: the fingerprints of its files, others may be among them.
    """
    scene = source.scene
    records = inputs.records(source.files)
    order = {path: number for number, path in enumerate(source.files)}
    planes: dict[str, list[dict[str, Any]]] = {name: [] for name in scene.band_names}
    for layer in source.layers:
        mosaics = (part.source if isinstance(part, Warp) else part for part in layer.parts)
        for piece in (piece for mosaic in mosaics for piece in mosaic.pieces):
            raster = piece.raster
            number = order[raster.files[0]]
            records[number] |= _placed(raster)
            for position, index in zip(layer.bands, piece.positions, strict=True):
                band = raster.bands[index]
                planes[scene.band_names[position]].append(
                    {"input": number, "plane": band.index, "nodata": band.nodata}
                )
    return {
        "inputs": records,
        "scene": {
            **geobox_identity(scene.geobox),
            "bands": [dataclasses.asdict(band) for band in scene.bands],
        },
        "planes": planes,
    }


def raster_identity(raster: Raster, inputs: Inputs) -> list[dict[str, Any]]:
    """Say what a single raster holds, such as a mask, a file at a time.

    Args:
        raster: as described.
        inputs: the fingerprints of its files, others may be among them.
    """
    records = inputs.records(raster.files)
    bands = [{"plane": band.index, "nodata": band.nodata} for band in raster.bands]
    records[0] |= {**_placed(raster), "bands": bands}
    return records


def file_identity(*paths: str) -> list[dict[str, Any]]:
    """Say what files of any kind hold, those beside them that belong to them included."""
    return Inputs.of(file for path in paths for file in files_of(path)).records()


def geobox_identity(geobox: GeoBox) -> dict[str, Any]:
    """A grid as plain JSON."""
    return {
        "shape": [int(side) for side in geobox.shape],
        "geotransform": [float(v) for v in tuple(geobox.affine)[:6]],
        "crs": None if geobox.crs is None else geobox.crs.to_wkt(),
    }


def versions_of(engines: Sequence[str] = ()) -> dict[str, str]:
    """Versions of what computes pixels, recorded beside an identity.

    Args:
        engines: that run the model.
    """
    import rasterio

    found = {"gdal": str(rasterio.__gdal_version__).partition(".")[0]}
    for engine in engines:
        try:
            found[engine] = version(PACKAGES[engine])
        except (KeyError, PackageNotFoundError):
            continue
    return found


def _placed(raster: Raster) -> dict[str, Any]:
    """Where a file lies, which a file beside it may say, and where it holds pixels at all."""
    text = json.dumps(geobox_identity(raster.geobox), sort_keys=True)
    place = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {
        "place": place,
        "mask": raster.mask,
        "alpha": 0 if raster.alpha is None else raster.alpha.index,
    }
