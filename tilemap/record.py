"""``run.json``: what was run, on what, with which versions, and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tilemap.prepare import Prepared
from tilemap.products import Products
from tilemap.stores.maps import Seam
from tilemap.tasks import Outcome


def make_record(
    prepared: Prepared, outcome: Outcome, products: Products, seam: Seam
) -> dict[str, Any]:
    """All but the counts and seconds, which the driver knows."""
    grid, scene = prepared.plan.grid, prepared.source.scene
    made, warnings = products.record(), list(prepared.warnings)
    if made["not_observed_pixels"] == grid.scene[0] * grid.scene[1] and not outcome.quarantined:
        warnings.append("nothing was observed: every pixel is nodata, masked or no number")
    return {
        "status": "partial" if outcome.quarantined else "ok",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "digest": prepared.digest,
        "identity": prepared.identity,
        "inputs": [{"name": file.name, **file.record()} for file in prepared.inputs.files],
        "scene": {"name": scene.name, "date": scene.date.isoformat() if scene.date else None},
        "warnings": warnings,
        "domain": [report.record() for report in prepared.domain],
        "forwards": prepared.model.forwards,
        "tiles": {"count": grid.size, "shape": list(grid.shape), "overhead": grid.overhead},
        "workers": prepared.plan.workers,
        "quarantined": [
            {"tile": list(q.tile), "stage": q.stage, "error": q.error} for q in outcome.quarantined
        ],
        "seam": {**dataclasses.asdict(seam), "share": seam.share},
        **made,
    }


@contextlib.contextmanager
def optional(what: str, warnings: list[str]) -> Iterator[None]:
    """Let a step fail that only shows what is done, such as a preview or a report.

    Args:
        what: is made; begins the warning.
        warnings: of the run; what goes wrong is added.
    """
    try:
        yield
    except Exception as error:  # whatever it is, the products are there
        reason = str(error).partition("\n")[0] or type(error).__name__
        warnings.append(f"{what} could not be made: {reason}")


def versions() -> dict[str, str]:
    """Versions of what made the products."""
    names = ("tilemap", "numpy", "zarr", "dask", "rasterio", "torch", "onnxruntime")
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return {"python": platform.python_version(), **found}
