"""A map with errors, its reference in several forms, and its confidence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from tilemap.testing import random_scene, write_geotiff

NAMES = {1: "water", 2: "trees", 5: "rock"}


@dataclass(frozen=True)
class Ground:
    """Files of a map, and what is in them.

    Args:
        folder: holds landcover.tif, confidence.tif, reference.tif, polygons.geojson and
            regions.geojson.
        predicted: stored numbers of the map, 255 where not observed, uint8 (y, x).
        reference: the same of the reference.
        confidence: percent.
    """

    folder: Path
    predicted: npt.NDArray[np.uint8]
    reference: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.uint8]

    @property
    def map(self) -> Path:
        """The map."""
        return self.folder / "landcover.tif"

    @staticmethod
    def name_classes(path: Path, names: dict[int, str]) -> None:
        """Put class names and a palette into a raster."""
        with rasterio.open(path, "r+") as file:
            file.update_tags(**{f"CLASS_{value}": name for value, name in names.items()})
            file.write_colormap(1, {v: (20 * v, 90, 200 - 30 * v) for v in names})

    @staticmethod
    def box(
        left: float, top: float, right: float, bottom: float, **properties: Any
    ) -> dict[str, Any]:
        """A feature in pixels of the map: 10 m, from (400000, 4100000)."""
        x, y = (
            [400_000 + 10 * c for c in (left, right)],
            [4_100_000 - 10 * r for r in (top, bottom)],
        )
        ring = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]), (x[0], y[0])]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        return {"type": "Feature", "properties": properties, "geometry": geometry}

    @staticmethod
    def write_geojson(path: Path, features: list[dict[str, Any]], crs: int = 32618) -> Path:
        """Features in a CRS."""
        name = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs}"}}
        content = {"type": "FeatureCollection", "crs": name, "features": features}
        path.write_text(json.dumps(content))
        return path


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """83 x 127 pixels: patches of three classes, a fifth of the map wrong or not observed."""
    folder = tmp_path_factory.mktemp("ground")
    shape = (83, 127)
    rng = np.random.default_rng(11)
    wave = random_scene(shape, bands=1, seed=4, dtype=np.float32)[0].astype(float)
    values = np.array(list(NAMES), dtype=np.uint8)
    truth = values[np.digitize(wave, np.quantile(wave, (0.4, 0.75)))]
    predicted = np.where(rng.random(shape) < 0.9, np.roll(truth, 1, 1), rng.choice(values, shape))
    predicted[rng.random(shape) < 0.05] = 255
    reference = truth.copy()
    reference[:9, :30] = 255
    confidence = rng.integers(30, 101, shape).astype(np.uint8)
    confidence[predicted == 255] = 255
    for name, array in (
        ("landcover", predicted), ("reference", reference), ("confidence", confidence),
    ):  # fmt: skip
        path = folder / f"{name}.tif"
        write_geotiff(path, array[None].astype(np.uint8), nodata=255)
        if name != "confidence":
            Ground.name_classes(path, NAMES)
    Ground.write_geojson(
        folder / "polygons.geojson",
        [
            Ground.box(3, 4, 40, 30, kind="water", code=1),
            Ground.box(20.5, 10.5, 60, 50.5, kind="Trees", code=2),
            Ground.box(70, 20, 118.5, 77.5, kind="rock", code=5),
            Ground.box(80, 30, 90, 40, kind=None, code=9),
            Ground.box(500, 20, 510, 30, kind="elsewhere", code=77),
        ],
    )
    Ground.write_geojson(
        folder / "regions.geojson",
        [
            Ground.box(0, 0, 50.5, 50.5, name="west"), Ground.box(60, 0, 90, 83, name="east"),
            Ground.box(90, 0, 127, 20, name="east"), Ground.box(0, 2, 3, 5, name="nothing here"),
        ],
    )  # fmt: skip
    return Ground(folder, predicted.astype(np.uint8), reference, confidence)
