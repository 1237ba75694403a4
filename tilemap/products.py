"""The products of a run: class map, confidence, uncertainty; verified, with their sidecars."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from distributed.scheduler import KilledWorker
from odc.geo.geobox import GeoBox

from tilemap.cluster.flight import Flight, Task
from tilemap.errors import DiskFullError, SceneError, StoreError
from tilemap.geometry import TileGrid, Window
from tilemap.models.card import ModelCard
from tilemap.models.trained_on import TAG
from tilemap.stages.export import ExportReceipt, ReadCore, export_raster
from tilemap.stores.cog import RasterProfile, partial_path, publish
from tilemap.stores.maps import Layer, MapStore, Seam
from tilemap.stores.predictions import UNCERTAINTIES, Uncertainty
from tilemap.stores.sidecars import ClassRow, class_rows, write_sidecars
from tilemap.worker import export_layer, run_export

RETRIES = 2
CORNER = 16
"""Side of what is written of each product before a run, pixels."""
MEANINGS: dict[Uncertainty, str] = {
    "entropy": "entropy of the classes, percent of the largest there is",
    "margin": "probability of the class less that of the next, percent",
}


@dataclass(frozen=True, slots=True)
class Products:
    """What was published.

    Args:
        rasters: by layer, the class map first.
        classes: pixels and areas by class.
    """

    rasters: dict[Layer, ExportReceipt]
    classes: tuple[ClassRow, ...]

    def percents(self) -> dict[str, tuple[int, ...]]:
        """Pixels per percent, 0 to 100, of every raster but the class map."""
        return {
            name: receipt.counts[:101]
            for name, receipt in self.rasters.items()
            if name != "landcover"
        }

    def record(self) -> dict[str, Any]:
        """For ``run.json``."""
        return {
            "products": {
                receipt.path.name: {"bytes": receipt.bytes, "sha256": receipt.sha256}
                for receipt in self.rasters.values()
            },
            "classes": [
                {
                    "value": row.value,
                    "name": row.name,
                    "pixels": row.pixels,
                    "share": row.share,
                    "area_km2": row.area_km2,
                }
                for row in self.classes
            ],
            "percents": {name: list(counts) for name, counts in self.percents().items()},
            "not_observed_pixels": self.rasters["landcover"].counts[255],
        }


def class_profile(geobox: GeoBox, card: ModelCard, seam: Seam, halo: int) -> RasterProfile:
    """What the class map looks like.

    Its tags say how far its tiles disagreed, and on which ground the model was trained.
    """
    tags = {
        "TILEMAP_MODEL": card.name,
        "TILEMAP_MODEL_SHA256": card.sha256,
        "TILEMAP_HALO": str(halo),
        "TILEMAP_SEAM_PIXELS": str(seam.pixels),
        "TILEMAP_SEAM_DIFFER": str(seam.differ),
    }
    if (ground := card.ground()) is not None:
        tags[TAG] = ground.model_dump_json()
    return RasterProfile(
        geobox,
        palette={c.value: c.rgb for c in card.classes},
        names={c.value: c.name for c in card.classes},
        overview="mode",
        tags=tags,
        description="land cover",
    )


def confidence_profile(geobox: GeoBox, card: ModelCard) -> RasterProfile:
    """What the confidence raster looks like."""
    return RasterProfile(
        geobox,
        overview="average",
        tags={"TILEMAP_MODEL": card.name, "UNITS": "percent"},
        description="probability of the class, percent",
    )


def uncertainty_profile(geobox: GeoBox, card: ModelCard, measure: Uncertainty) -> RasterProfile:
    """What the raster of a measure of uncertainty looks like."""
    return RasterProfile(
        geobox,
        overview="average",
        tags={"TILEMAP_MODEL": card.name, "UNITS": "percent"},
        description=MEANINGS[measure],
    )


def make_profiles(
    geobox: GeoBox, card: ModelCard, seam: Seam, halo: int, uncertainty: tuple[Uncertainty, ...]
) -> dict[Layer, RasterProfile]:
    """What every raster of a run looks like, the class map first."""
    profiles: dict[Layer, RasterProfile] = {
        "landcover": class_profile(geobox, card, seam, halo),
        "confidence": confidence_profile(geobox, card),
    }
    for measure in UNCERTAINTIES:
        if measure in uncertainty:
            profiles[measure] = uncertainty_profile(geobox, card, measure)
    return profiles


def rehearse(profiles: Iterable[RasterProfile]) -> None:
    """Write a corner of each product, with its sidecars, to know that it can be written.

    What a file cannot hold, such as a coordinate system or a name that it gives back in other
    words, is found before the first tile and not after the last.

    Raises:
        SceneError: if a product would not read back as it should.
    """
    with tempfile.TemporaryDirectory(prefix="tilemap-") as scratch:
        for number, profile in enumerate(profiles):
            rows, cols = (min(side, CORNER) for side in profile.shape)
            geobox = GeoBox((rows, cols), profile.geobox.affine, profile.geobox.crs)
            corner = dataclasses.replace(profile, geobox=geobox)
            grid = TileGrid((rows, cols), CORNER, 0, 0)
            shape = (rows, cols) if profile.count == 1 else (profile.count, rows, cols)
            blank: ReadCore = partial(_blank, np.full(shape, profile.nodata, profile.dtype))
            path = Path(scratch) / f"{number}.tif"
            try:
                receipt = export_raster(blank, grid, corner, path, Path(scratch))
                if profile.palette is not None:
                    write_sidecars(path, class_rows(corner, receipt.counts, receipt.areas_km2))
            except DiskFullError:
                return  # the disk of the run is another one, and is looked at by the run
            except (StoreError, ValueError) as error:
                raise SceneError(f"the products of this run cannot be written: {error}") from error


def _blank(pixels: npt.NDArray[Any], _: Window) -> npt.NDArray[Any]:
    return pixels


def export_all(flight: Flight[Any], tasks: Iterable[Task[Any]]) -> dict[Any, ExportReceipt]:
    """Write rasters on the workers, all at once.

    Args:
        flight: the window; empty.

    Returns:
        By item, in the order of the tasks.

    Raises:
        StoreError: if one cannot be written or does not read back as it should.
        UnavailableError: if the connection to the scheduler is lost, or nobody is left.
    """
    several = list(tasks)
    try:
        found = flight.all_of(several, RETRIES)
    except KilledWorker as error:
        raise StoreError("the worker died each time it wrote the products") from error
    return {task.item: found[task.item] for task in several}


def write_products(
    flight: Flight[Any],
    run: str,
    out: Path,
    profiles: Mapping[Layer, RasterProfile],
    here: MapStore | None = None,
) -> Products:
    """Export the rasters on the workers, then publish them together, sidecars first.

    Args:
        flight: the window; empty.
        run: its name in the workers, ``RunSpec.name``.
        profiles: by layer, see ``make_profiles``.
        here: a store on S3, exported by this process: workers may not see the directory.

    Raises:
        StoreError: if one cannot be written or does not read back as it should.
        UnavailableError: if the connection to the scheduler is lost, or nobody is left.
    """
    paths = {name: out / f"{name}.tif" for name in profiles}
    tasks = [
        Task(
            name, (run_export, run, name, profile, paths[name].absolute()),
            key=f"export-{name}-{run}-{uuid4().hex[:8]}",
        )
        for name, profile in profiles.items()
    ]  # fmt: skip
    receipts: dict[Layer, ExportReceipt]
    if here is None:
        receipts = export_all(flight, tasks)
    else:
        receipts = {n: export_layer(here, n, p, paths[n], out) for n, p in profiles.items()}
    landcover = receipts["landcover"]
    rows = class_rows(profiles["landcover"], landcover.counts, landcover.areas_km2)
    write_sidecars(paths["landcover"], rows)
    for path in paths.values():
        publish(partial_path(path), path)
    return Products(receipts, rows)
