"""The products of a run: class map and confidence, verified, with their sidecars."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import CancelledError, Client
from distributed.scheduler import KilledWorker
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError, UnavailableError
from tilemap.models.card import ModelCard
from tilemap.stores.cog import RasterProfile, partial_path, publish
from tilemap.stores.maps import Seam
from tilemap.stores.sidecars import ClassRow, class_rows, write_sidecars
from tilemap.worker import run_export

if TYPE_CHECKING:
    from tilemap.stages.export import ExportReceipt

RETRIES = 2


@dataclass(frozen=True, slots=True)
class Products:
    """What was published.

    Args:
        classes: pixels and areas by class.
        confidence: pixels per percent, 256 numbers; the last is not observed.
    """

    landcover: ExportReceipt
    confidence: ExportReceipt
    classes: tuple[ClassRow, ...]

    def record(self) -> dict[str, Any]:
        """For ``run.json``."""
        return {
            "products": {
                receipt.path.name: {"bytes": receipt.bytes, "sha256": receipt.sha256}
                for receipt in (self.landcover, self.confidence)
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
            "not_observed_pixels": self.landcover.counts[255],
        }


def class_profile(geobox: GeoBox, card: ModelCard, seam: Seam, halo: int) -> RasterProfile:
    """What the class map looks like; how far its tiles disagreed stands in its tags."""
    tags = {
        "TILEMAP_MODEL": card.name,
        "TILEMAP_MODEL_SHA256": card.sha256,
        "TILEMAP_HALO": str(halo),
        "TILEMAP_SEAM_PIXELS": str(seam.pixels),
        "TILEMAP_SEAM_DIFFER": str(seam.differ),
    }
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


def write_products(
    client: Client, run: str, out: Path, profiles: tuple[RasterProfile, RasterProfile]
) -> Products:
    """Export both rasters on the workers, then publish them together, sidecars first.

    Args:
        run: its name in the workers, ``RunSpec.name``.
        profiles: of the class map and of the confidence.

    Raises:
        StoreError: if one cannot be written or does not read back as it should.
        UnavailableError: if the connection to the scheduler is lost.
    """
    names = ("landcover", "confidence")
    paths = [out / f"{name}.tif" for name in names]
    futures = [
        client.submit(
            run_export, run, name, profile, path.absolute(), key=f"export-{name}-{run}",
            pure=False, retries=RETRIES,
        )
        for name, profile, path in zip(names, profiles, paths, strict=True)
    ]  # fmt: skip
    try:
        landcover, confidence = client.gather(futures)
    except KilledWorker as error:
        raise StoreError("the worker died each time it wrote the products") from error
    except CancelledError as error:
        raise UnavailableError(
            "the Dask scheduler must stay until the run ends, the connection to it was lost; "
            "the same command continues"
        ) from error
    rows = class_rows(profiles[0], landcover.counts, landcover.areas_km2)
    write_sidecars(paths[0], rows)
    for path in paths:
        publish(partial_path(path), path)
    return Products(landcover, confidence, rows)
