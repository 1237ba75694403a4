"""Everything that can be known of a run before it touches anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tilemap.cluster import ClusterSettings, memory_per_worker, worker_count
from tilemap.directory import Identity, RunDirectory, Versions, digest_of
from tilemap.errors import UnavailableError
from tilemap.geometry import TileGrid
from tilemap.identity import scene_identity, versions_of
from tilemap.measure import Cost, Trial, measure
from tilemap.models import registry
from tilemap.models.domain import DomainReport, check_domain
from tilemap.models.engines import Settings
from tilemap.models.recipe import Recipe
from tilemap.probability import ENCODING
from tilemap.products import make_profiles, rehearse
from tilemap.run_plan import (
    GridSettings,
    Plan,
    check_memory,
    check_units,
    choose_grid,
    make_plan,
    probability_bytes,
)
from tilemap.stages.survey import ground_pixel_m, survey
from tilemap.stores.cog import check_crs
from tilemap.stores.fingerprint import Inputs
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.stores.maps import Seam
from tilemap.stores.predictions import Uncertainty
from tilemap.stores.remote.address import NOBODY, AllowList
from tilemap.stores.remote.place import RemotePlace
from tilemap.worker import Backend

FORMAT = 2
"""Of the stores; another one is another run."""


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """How a scene is mapped.

    Args:
        grid: the cut; None in it lets model and scene decide.
        backend: device and precision.
        cluster: where the tasks run.
        keep_stores: keep the stores, patches included, after a run that ended well.
        tta: "none", "flips" or "rotations": what the model sees of each patch.
        uncertainty: measures that become rasters too.
        probabilities: keep the probability of every class, for ``tilemap change``.
        stores: folder of a bucket where the stores go; None for the directory of the run.
        publish: folder of a bucket where the products go too.
    """

    grid: GridSettings = field(default_factory=GridSettings)
    backend: Backend = field(default_factory=Backend)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    keep_stores: bool = True
    tta: str = "none"
    uncertainty: tuple[Uncertainty, ...] = ()
    probabilities: bool = False
    stores: RemotePlace | None = None
    publish: RemotePlace | None = None

    @property
    def allow(self) -> AllowList:
        """What may be asked for the stores."""
        return NOBODY if self.stores is None else self.stores.allow


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that has passed every check and has touched nothing.

    Args:
        inputs: files of the scene as they are now.
        one: cost of the first model alone, plain.
        domain: the scene against what each model was trained on, where its card tells.
    """

    source: SceneSource
    inputs: Inputs
    model: Recipe
    settings: SegmentSettings
    plan: Plan
    cost: Cost
    one: Cost
    identity: Identity
    domain: tuple[DomainReport, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of scene and model, a line each."""
        return (*self.source.warnings, *(text for d in self.domain for text in d.warnings))

    @property
    def times_one(self) -> float:
        """Seconds of a tile against those of the first model alone, plain."""
        return self.cost.seconds_per_pixel / self.one.seconds_per_pixel

    @property
    def versions(self) -> Versions:
        """Versions of what computes; an unfinished run goes on under the same."""
        return versions_of(self.identity["backend"]["engine"].split(", "))

    @property
    def digest(self) -> str:
        """Name of the run."""
        return digest_of(self.identity)


def prepare(
    request: SceneRequest,
    models: Sequence[str | Path],
    settings: SegmentSettings,
    out: Path | None = None,
) -> Prepared:
    """Check everything that can be known before the run, and plan it.

    Args:
        models: one, or several whose mean is mapped.
        out: where the run will go. A run of these models in it has chosen a core, which is kept:
            with another memory limit it would come out otherwise today.

    Raises:
        TilemapError: of the kind that fits; nothing has been touched.
    """
    ref = Recipe(tuple(registry.resolve(model) for model in models), settings.tta)
    backend = dataclasses.replace(settings.backend, device=_device(ref, settings))
    asked = "cpu" if backend.device == "auto" else backend.device
    ref.engine(Settings(asked, backend.precision, backend.threads), backend.engine)
    request = dataclasses.replace(request, bands=ref.card.bands)
    source = open_scene(request)
    inputs = source.inputs()
    check_crs(source.scene.geobox.crs)
    check_units(source, ref.card.units, ref.card.name)
    profiles = make_profiles(source.scene.geobox, ref.card, Seam(), 0, settings.uncertainty)
    rehearse(profiles.values())
    shape = source.scene.shape
    chosen = _settled_grid(settings.grid, ref, shape, out)
    grid = choose_grid(shape, ref.card, chosen)
    side = max(grid.patch_window(next(grid.tiles())).shape)
    trial = Trial(
        ref, source.scene, side, backend.device, backend.precision, backend.threads,
        backend.engine, settings.uncertainty,
    )  # fmt: skip
    cost = _measured(trial, settings.cluster)
    one = cost
    if ref.forwards > 1:
        again = dataclasses.replace(trial, model=ref.one, device=cost.device)
        one = _measured(again, settings.cluster)
    if settings.cluster.embedded or settings.cluster.memory_limit is not None:
        limit = memory_per_worker(settings.cluster) - source.remote_bytes
        grid = check_memory(grid, ref.card, cost, limit, chosen)
    workers = worker_count(settings.cluster)
    plan = make_plan(
        grid, source.scene, ref.card, cost, workers, settings.keep_stores, settings.uncertainty
    )
    plan = dataclasses.replace(plan, worker_bytes=plan.worker_bytes + source.remote_bytes)
    if settings.probabilities:
        more = probability_bytes(grid, len(ref.card.classes))
        plan = dataclasses.replace(plan, store_bytes=plan.store_bytes + more)
    found = dataclasses.replace(backend, device=cost.device)
    resolved = dataclasses.replace(settings, backend=found)
    identity = _identity(source, inputs, ref, grid, resolved)
    return Prepared(source, inputs, ref, settings, plan, cost, one, identity, _domain(source, ref))


def _device(ref: Recipe, settings: SegmentSettings) -> str:
    """The device of a run: what was asked for, else what its cluster is for."""
    asked, table = settings.backend.device, settings.cluster.table
    if asked != "auto" or table is None or table.device == "auto":
        return asked
    onnx = any(member.path.suffix == ".onnx" for member in ref.members)
    return "cpu" if onnx else table.device


def _measured(trial: Trial, cluster: ClusterSettings) -> Cost:
    """What tiles cost; on the CPU of this machine where the GPUs are on others.

    Memory is that of a worker's host, of which the CPU takes no less. Seconds are those of a CPU.
    """
    try:
        return measure(trial)
    except UnavailableError:
        if trial.device in ("auto", "cpu") or cluster.embedded:
            raise
    return dataclasses.replace(
        measure(dataclasses.replace(trial, device="cpu")), device=trial.device
    )


def _domain(source: SceneSource, ref: Recipe) -> tuple[DomainReport, ...]:
    cards = [m.card for m in ref.members if m.card.statistics or m.card.gsd_m]
    if not cards:
        return ()
    sample = np.empty((len(ref.card.bands), 0), dtype=np.float32)
    if any(card.statistics for card in cards):
        with source.open() as reader:
            sample = survey(reader, ref.card)
    gsd_m = ground_pixel_m(source.scene)
    order = list(ref.card.bands)
    found = (
        check_domain(card, sample[[order.index(band) for band in card.bands]], gsd_m)
        for card in cards
    )
    return tuple(report for report in found if report is not None)


def _settled_grid(
    wanted: GridSettings, ref: Recipe, shape: tuple[int, int], out: Path | None
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


def _identity(
    source: SceneSource, inputs: Inputs, ref: Recipe, grid: TileGrid, settings: SegmentSettings
) -> Identity:
    card, backend = ref.card, settings.backend
    kept = {"probabilities": ENCODING} if settings.probabilities else {}
    return {
        **kept,
        "format": FORMAT,
        **scene_identity(source, inputs),
        "grid": {**dataclasses.asdict(grid), "scene": list(grid.scene)},
        "model": {
            **card.identity(),
            "members": [m.card.identity() for m in ref.members[1:] and ref.members],
            "tta": ref.tta,
        },
        "uncertainty": list(settings.uncertainty),
        "backend": {
            "device": backend.device,
            "precision": backend.precision,
            "engine": ref.engine(Settings(backend.device, backend.precision), backend.engine),
        },
    }
