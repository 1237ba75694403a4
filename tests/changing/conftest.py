"""Finished runs made by hand: what ``tilemap change`` needs of one, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.directory import write_json
from tilemap.geometry import TileGrid
from tilemap.models.card import ClassInfo
from tilemap.probability import quantise
from tilemap.stores.probabilities import ProbabilityStore, StoredClass

NAMES = (("water", "#2b6cb0"), ("forest", "#2f855a"), ("town", "#c53030"), ("field", "#d69e2e"))
AFFINE = Affine(10, 0, 500_000, 0, -10, 9_000_000)
MakeRun = Callable[..., Path]


def make_run(
    folder: Path,
    probability: np.ndarray,
    day: str | None,
    *,
    affine: Affine = AFFINE,
    crs: str | None = "EPSG:32718",
    names: Sequence[tuple[str, str]] = NAMES,
    model: str = "a" * 64,
) -> Path:
    """Write the directory of a run.

    Args:
        folder: of the run.
        probability: (class, y, x), NaN where not observed.
        day: ISO, or None.
        affine: geotransform.
        crs: of it.
        names: name and colour of each class.
        model: digest.
    """
    folder.mkdir(parents=True)
    classes, rows, cols = probability.shape
    hidden = np.isnan(probability[0])
    quantised = quantise(np.nan_to_num(probability))
    quantised[:, hidden] = 255
    kinds = tuple(StoredClass(10 + i, *names[i]) for i in range(classes))
    grid = TileGrid((rows, cols), 48, 0, 0)
    geobox = GeoBox((rows, cols), affine, crs)
    about = {"digest": folder.name, "model_sha256": model, "date": day}
    store = ProbabilityStore.make(folder / "probabilities.zarr", grid, geobox, kinds, about)
    for tile in grid.tiles():
        store.write(tile, quantised[:, *grid.core_window(tile).slices()])
    record = {
        "status": "ok",
        "digest": folder.name,
        "scene": {"name": folder.name, "date": day},
        "identity": {
            "model": {
                "sha256": model,
                "classes": [
                    ClassInfo(value=k.value, name=k.name, color=k.color).model_dump() for k in kinds
                ],
            }
        },
    }
    write_json(folder / "run.json", record)
    return folder


def soften(labels: np.ndarray, classes: int, sure: float = 0.9) -> np.ndarray:
    """Probability (class, y, x) that says ``sure`` for the label; NaN where it is 255."""
    rest = (1 - sure) / (classes - 1)
    found = np.where(labels[None] == np.arange(classes)[:, None, None], sure, rest)
    return np.where(labels[None] == 255, np.nan, found)


@pytest.fixture(name="make_run")
def _make_run() -> MakeRun:
    return make_run
