"""Everything that can be known of a series before anything is touched."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from odc.geo.geobox import GeoBox

from tilemap.area import CellArea
from tilemap.changing.dates import (
    DateInput,
    check_comparable,
    check_mask,
    day_of,
    is_run,
    open_date,
)
from tilemap.changing.directory import DATES, KIND, ChangeDirectory, is_continued
from tilemap.changing.geobox import choose_geobox
from tilemap.changing.profiles import change_profiles
from tilemap.changing.settings import ChangeSettings
from tilemap.cluster import memory_per_worker
from tilemap.comparison.transition import from_rate, read_transitions
from tilemap.directory import Identity, Versions
from tilemap.errors import ConfigError, SceneError, UsageError
from tilemap.geometry import TileGrid
from tilemap.identity import raster_identity, versions_of
from tilemap.models.card import ClassInfo
from tilemap.prepare import Prepared, SegmentSettings, prepare
from tilemap.products import rehearse
from tilemap.stages.change import MARGIN
from tilemap.stores.cog import check_crs
from tilemap.stores.fingerprint import Inputs
from tilemap.stores.georeference import geobox_attributes, geobox_from_attributes
from tilemap.stores.geotiff import SceneRequest
from tilemap.stores.grids import whole
from tilemap.stores.masks import Rule
from tilemap.stores.rasters import Raster

FORMAT = 3
MOST_CLASSES = 15
"""So that every pair of classes has a number below 255."""
EPOCH = datetime.date(1970, 1, 1)
_BASE_BYTES = 420 << 20  # an idle worker with everything imported and the kernels compiled


@dataclass(frozen=True)
class DateFacts:
    """One date as far as it is known before its scene is segmented.

    Args:
        input: what the user named.
        day: when it was observed.
        geobox: its grid.
        classes: of its map.
        model_sha256: of what mapped it.
        digest: of everything that decides its probabilities.
        hard: labels only, no probabilities.
        lacks: see ``DateInput``; a scene that is to be segmented is taken for whole.
        inputs: files that are read besides its store.
        scene: a scene that is to be segmented; None for a directory of a run.
        notes: for people.
    """

    input: str
    day: datetime.date
    geobox: GeoBox
    classes: tuple[ClassInfo, ...]
    model_sha256: str
    digest: str
    hard: bool
    lacks: str
    inputs: Inputs
    scene: Prepared | None
    notes: tuple[str, ...]

    @property
    def iso(self) -> str:
        """The day as YYYY-MM-DD."""
        return self.day.isoformat()


@dataclass(frozen=True)
class Mask:
    """What was not observed at one date.

    Args:
        raster: as described.
        inputs: its files.
    """

    raster: Raster
    inputs: Inputs


@dataclass(frozen=True)
class PreparedSeries:
    """A series that has passed every check and has touched nothing."""

    settings: ChangeSettings
    facts: tuple[DateFacts, ...]
    masks: tuple[Mask, ...]
    geobox: GeoBox
    grid: TileGrid
    transitions: npt.NDArray[np.float64] | None
    mmu_px: int
    worker_bytes: int
    disk_bytes: int
    identity: Identity
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Of every date."""
        return self.facts[0].classes

    @property
    def versions(self) -> Versions:
        """Versions of what computes; an unfinished run goes on under the same."""
        return versions_of()

    @property
    def partial_dates(self) -> list[str]:
        """Days of the dates that lack tiles."""
        return [fact.iso for fact in self.facts if fact.lacks]

    def segmented(self, found: Sequence[DateInput]) -> PreparedSeries:
        """The same series now that its scenes are mapped, perhaps not all of their tiles."""
        facts = tuple(
            dataclasses.replace(fact, lacks=date.lacks)
            for fact, date in zip(self.facts, found, strict=True)
        )
        identity = _identity(self.settings, facts, self.masks, self.geobox, self.transitions)
        partial = [
            f"{fact.iso} is partial: tiles that it lacks count as not observed"
            for fact in facts
            if fact.scene is not None and fact.lacks
        ]
        return dataclasses.replace(
            self, facts=facts, identity=identity, notes=(*self.notes, *partial)
        )

    @property
    def days(self) -> npt.NDArray[np.int64]:
        """Days since 1970-01-01, int64 (date,)."""
        return np.array([(fact.day - EPOCH).days for fact in self.facts], dtype=np.int64)


def prepare_series(settings: ChangeSettings, out: Path) -> PreparedSeries:
    """Check everything that can be known before the run.

    Args:
        settings: what is asked.
        out: where the run will go; a series that lies there keeps its grid.

    Raises:
        TilemapError: of the kind that fits; nothing has been touched.
    """
    facts = tuple(_facts(settings, number, out) for number in range(len(settings.inputs)))
    _check_order(facts)
    check_comparable(
        [(f.input, f.classes, f.model_sha256) for f in facts], settings.allow_model_mismatch
    )
    names = [c.name for c in facts[0].classes]
    if not 2 <= len(names) <= MOST_CLASSES:
        raise SceneError(
            f"a series must have 2 to {MOST_CLASSES} classes, so that each change has a number of "
            f"one byte, got {len(names)}"
        )
    chosen = choose_geobox(
        [(f.input, f.geobox) for f in facts], settings.like, settings.resolution, settings.extent
    )
    geobox, kept = _settled(chosen, settings, facts, out)
    check_crs(geobox.crs)
    grid = TileGrid((int(geobox.shape[0]), int(geobox.shape[1])), settings.core, 0, 0)
    notes = [note for fact in facts for note in fact.notes]
    if kept:
        notes.append("the series keeps the grid that it began with")
    rehearse(change_profiles(geobox, facts[0].classes, [facts[0].iso]).values())
    transitions = None
    if settings.method == "hmm":
        transitions = (
            read_transitions(Path(settings.transitions), names)
            if settings.transitions is not None
            else from_rate(0.01 if settings.rate == "fit" else float(settings.rate), len(names))
        )
    rule = None if settings.mask_rule is None else Rule.parse(settings.mask_rule)
    masks = tuple(Mask(r, Inputs.of(r.files)) for r in _masks(settings, geobox, rule))
    mmu_px = _mmu_pixels(settings.mmu_ha, geobox, notes)
    need = _worker_bytes(grid, len(facts), len(names))
    if settings.cluster.embedded or settings.cluster.memory_limit is not None:
        limit = memory_per_worker(settings.cluster)
        if need > limit:
            raise ConfigError(
                f"a worker needs {need >> 20} MiB for one tile of {grid.core} pixels and "
                f"{len(facts)} dates, the memory limit is {limit >> 20} MiB; give a smaller `core`"
            )
    identity = _identity(settings, facts, masks, geobox, transitions)
    disk = _disk_bytes(grid, len(facts), len(names))
    return PreparedSeries(
        settings, facts, masks, geobox, grid, transitions, mmu_px, need, disk, identity,
        tuple(notes),
    )  # fmt: skip


def _masks(settings: ChangeSettings, geobox: GeoBox, rule: Rule | None) -> list[Raster]:
    return [check_mask(mask, geobox, rule) for mask in settings.masks]


def _facts(settings: ChangeSettings, number: int, out: Path) -> DateFacts:
    text = settings.inputs[number]
    said = settings.dates[number] if settings.dates else None
    if is_run(text):
        return facts_of(open_date(text, said), text)
    if not settings.model:
        raise UsageError(
            f"{text} is no directory of `tilemap segment`; to map it first, give `model`"
        )
    request = SceneRequest(sources=tuple(text.split(",")), **settings.segment.get("request", {}))
    if said is not None:  # whoever gives the day of several files means them as one scene
        request = dataclasses.replace(request, mosaic=True)
    chosen: SegmentSettings = settings.segment.get("settings", SegmentSettings())
    chosen = dataclasses.replace(chosen, cluster=settings.cluster, probabilities=True)
    day, note = day_of(text, said, request)
    prepared = prepare(request, list(settings.model), chosen, out / DATES / day.isoformat())
    return DateFacts(
        text, day, prepared.source.scene.geobox, tuple(prepared.model.card.classes),
        prepared.model.digest, prepared.digest, False, "", Inputs(), prepared,
        (*((note,) if note else ()), *(f"{text}: {w}" for w in prepared.warnings)),
    )  # fmt: skip


def facts_of(found: DateInput, text: str) -> DateFacts:
    """What a finished run tells of its date."""
    return DateFacts(
        text, found.day, found.geobox, found.classes, found.model_sha256, found.digest,
        found.hard, found.lacks, found.inputs, None, found.notes,
    )  # fmt: skip


def _check_order(facts: Sequence[DateFacts]) -> None:
    for one, two in pairwise(facts):
        if one.day == two.day:
            raise UsageError(
                f"dates must differ, {one.input} and {two.input} are both of {one.iso}; "
                "name their days with `dates`"
            )
        if one.day > two.day:
            raise UsageError(
                f"dates must be given from the oldest to the newest, {two.input} of {two.iso} "
                f"came after {one.input} of {one.iso}"
            )


def _settled(
    chosen: GeoBox, settings: ChangeSettings, facts: Sequence[DateFacts], out: Path
) -> tuple[GeoBox, bool]:
    """The grid that the series in the directory began with, unless another one is asked for."""
    before = ChangeDirectory(out).before() or {}
    now = {"dates": [_date_identity(fact) for fact in facts]}
    if settings.like is not None or before.get("kind") != KIND or not is_continued(before, now):
        return chosen, False
    kept = geobox_from_attributes(before["geobox"])
    if kept == chosen or (settings.resolution is not None and not _alike(kept, chosen)):
        return chosen, False
    return kept, True


def _alike(one: GeoBox, two: GeoBox) -> bool:
    """Return True if pixels have one size and direction."""
    a, b = (np.array([g.affine.a, g.affine.b, g.affine.d, g.affine.e]) for g in (one, two))
    return bool(np.allclose(a, b, rtol=1e-9, atol=0))


def _mmu_pixels(mmu_ha: float, geobox: GeoBox, notes: list[str]) -> int:
    if mmu_ha == 0:
        return 1
    area = CellArea(geobox)
    if not area.known:
        lacking = "no CRS" if geobox.crs is None else f"{geobox.crs.proj.name} is tied to no globe"
        notes.append(f"{lacking}: areas are not known, the minimum mapping unit is not applied")
        return 1
    cell_ha = area.mean_km2(whole(geobox)) * 100
    return max(1, int(np.ceil(mmu_ha / cell_ha - 1e-9)))


def _worker_bytes(grid: TileGrid, dates: int, classes: int) -> int:
    """Bound of a worker's memory: two threads with a tile each, export and polygons included."""
    pixels = (min(grid.core, max(grid.scene)) + 2 * MARGIN) ** 2
    tile = pixels * (3 * dates * classes + 11 * dates + 64)
    moved = pixels * classes * 24
    return _BASE_BYTES + 2 * (tile + moved)


def _disk_bytes(grid: TileGrid, dates: int, classes: int) -> int:
    pixels = grid.scene[0] * grid.scene[1]
    stores = pixels * (dates * classes + dates + 16) + 16384 * grid.size * (dates + 2)
    products = 2 * pixels * (dates + 13)
    return stores + products + (8 << 20)


def _date_identity(fact: DateFacts) -> dict[str, Any]:
    """A date by content; what it lacks and the labels alone are there only if there are any."""
    found: dict[str, Any] = {"day": fact.iso, "digest": fact.digest, "hard": fact.hard}
    if fact.lacks:
        found["lacks"] = fact.lacks
    if fact.inputs.files:
        found["labels"] = fact.inputs.records()
    return found


def _identity(
    settings: ChangeSettings,
    facts: Sequence[DateFacts],
    masks: Sequence[Mask],
    geobox: GeoBox,
    transitions: npt.NDArray[np.float64] | None,
) -> Identity:
    dates = [_date_identity(fact) for fact in facts]
    for date, mask in zip(dates, masks, strict=False):
        date["mask"] = raster_identity(mask.raster, mask.inputs)
    return {
        "kind": KIND,
        "format": FORMAT,
        "dates": dates,
        "classes": [{"value": c.value, "name": c.name, "color": c.color} for c in facts[0].classes],
        "geobox": geobox_attributes(geobox),
        "settings": settings.record(),
        "transitions": None if transitions is None else transitions.tolist(),
    }
