"""Everything that can be known of a run before it touches anything."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from tilemap.cluster import ClusterSettings, memory_per_worker, worker_count
from tilemap.directory import Identity, RunDirectory, digest_of
from tilemap.geometry import TileGrid
from tilemap.measure import Cost, Trial, measure
from tilemap.models import registry
from tilemap.models.registry import ModelRef
from tilemap.plan import (
    GridSettings,
    Plan,
    check_memory,
    check_units,
    choose_grid,
    make_plan,
    quicker_grid,
)
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.worker import Backend

FORMAT = 1
"""Of the stores; another one is another run."""
_TELLING = ("bands", "units", "mean", "std", "layout", "activation", "temperature")
"""Fields of a card that change what the same weights say of the same pixels."""


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """How a scene is mapped.

    Args:
        grid: the cut; None in it lets model and scene decide.
        backend: device and precision.
        cluster: where the tasks run.
        keep_stores: keep the stores, patches included, after a run that ended well.
    """

    grid: GridSettings = field(default_factory=GridSettings)
    backend: Backend = field(default_factory=Backend)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    keep_stores: bool = True


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that has passed every check and has touched nothing."""

    source: SceneSource
    model: ModelRef
    settings: SegmentSettings
    plan: Plan
    cost: Cost
    identity: Identity

    @property
    def digest(self) -> str:
        """Name of the run."""
        return digest_of(self.identity)


def prepare(
    request: SceneRequest, model: str | Path, settings: SegmentSettings, out: Path | None = None
) -> Prepared:
    """Check everything that can be known before the run, and plan it.

    Args:
        out: where the run will go. A run of this model that lies there already has chosen a core,
            which is kept: what was measured to choose it may come out otherwise today.

    Raises:
        TilemapError: of the kind that fits; nothing has been touched.
    """
    ref = registry.resolve(model)
    request = dataclasses.replace(request, bands=ref.card.bands)
    source = open_scene(request)
    check_units(source.scene, ref.card)
    shape = source.scene.shape
    chosen = _settled_grid(settings.grid, ref, shape, out)
    grid = choose_grid(shape, ref.card, chosen)
    backend = settings.backend
    side = max(grid.patch_window(next(grid.tiles())).shape)
    cost = measure(
        Trial(ref, source.scene, side, backend.device, backend.precision, backend.threads)
    )
    grid = quicker_grid(grid, ref.card, chosen, cost)
    if settings.cluster.scheduler is None or settings.cluster.memory_limit is not None:
        limit = memory_per_worker(settings.cluster)
        grid = check_memory(grid, ref.card, cost, limit, chosen)
    workers = worker_count(settings.cluster)
    plan = make_plan(grid, source.scene, ref.card, cost, workers, settings.keep_stores)
    identity = _identity(source, ref, grid, dataclasses.replace(backend, device=cost.device))
    return Prepared(source, ref, settings, plan, cost, identity)


def _settled_grid(
    wanted: GridSettings, ref: ModelRef, shape: tuple[int, int], out: Path | None
) -> GridSettings:
    if out is None or wanted.core is not None or ref.card.patch is not None:
        return wanted
    before = RunDirectory(out).previous() or {}
    model, grid = before.get("model"), before.get("grid")
    if not isinstance(model, dict) or not isinstance(grid, dict):
        return wanted  # none of ours; the directory is refused later
    if model.get("sha256") != ref.digest or grid.get("scene") != list(shape):
        return wanted
    return dataclasses.replace(wanted, core=grid.get("core"))


def _identity(source: SceneSource, ref: ModelRef, grid: TileGrid, backend: Backend) -> Identity:
    scene, card = source.scene, ref.card
    return {
        "format": FORMAT,
        "inputs": source.fingerprint(),
        "scene": {
            "shape": list(scene.shape),
            "geotransform": [float(v) for v in tuple(scene.geobox.affine)[:6]],
            "crs": None if scene.geobox.crs is None else scene.geobox.crs.to_wkt(),
            "bands": [dataclasses.asdict(band) for band in scene.bands],
        },
        "grid": {**dataclasses.asdict(grid), "scene": list(grid.scene)},
        "model": {
            "name": card.name,
            "sha256": ref.digest,
            **card.model_dump(mode="json", include=set(_TELLING)),
            "classes": [c.model_dump() for c in card.classes],
        },
        "backend": {"device": backend.device, "precision": backend.precision},
    }
