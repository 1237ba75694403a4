"""The files of a scene: how they are, whether they are whole, and what they are known by."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemap.errors import SceneError
from tilemap.nightly.discovery.candidates import Candidate
from tilemap.nightly.discovery.items import local_path, rasters_of, remote_record
from tilemap.nightly.discovery.listing import File, Lister, look
from tilemap.nightly.discovery.naming import VRT, sidecars, split_suffix
from tilemap.nightly.discovery.notes import Notes
from tilemap.nightly.discovery.settling import moved, unsettled
from tilemap.nightly.facts import Found
from tilemap.stores.vrt import read_vrt

if TYPE_CHECKING:
    from tilemap.nightly.config import AreaTable

Known = Callable[[str, tuple[Mapping[str, Any], ...]], bool]
"""Whether an earlier pass saw the scene of an id with the same fingerprint."""


@dataclass(frozen=True)
class Moment:
    """How it is told whether a scene is whole.

    Args:
        now: seconds since 1970.
        settle: seconds after which a file is no longer being written.
        known: see ``Known``; what it knows is whole whatever the clock says.
    """

    now: float
    settle: float
    known: Known = field(repr=False)


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one scene.

    Args:
        main: those that must be there.
        beside: sidecars of them.
        missing: assets that an item names and that are not there.
        partial: files beside them that are not whole yet.
    """

    main: tuple[File, ...]
    beside: tuple[File, ...]
    missing: tuple[str, ...]
    partial: tuple[str, ...]

    @classmethod
    def of(cls, candidate: Candidate, lister: Lister) -> Files:
        """As they were listed, or are now if they were not.

        Raises:
            OSError: if one cannot be looked at.
        """
        main, beside, missing, partial = [], dict[str, File](), [], list[str]()
        for path in candidate.files:
            folder, _, name = path.rpartition("/")
            listing = lister.list(folder or "/")
            entry = listing.entries.get(name)
            file = None if entry is None else look(path, entry)
            if file is None:
                missing.append(name)
                continue
            main.append(file)
            for other in sidecars(name):
                if (near := listing.entries.get(other)) and (found := look(near.path, near)):
                    beside[near.path] = found
            if name.lower().endswith(VRT):
                beside |= _read_by(path, lister)
            whole = listing.partial if candidate.whole else (name, split_suffix(name)[0])
            partial += [listing.partial[key] for key in whole if key in listing.partial]
        return cls(tuple(main), tuple(beside.values()), tuple(missing), tuple(partial))

    @property
    def all(self) -> tuple[File, ...]:
        """Those that must be there, and those beside them."""
        return (*self.main, *self.beside)

    @property
    def newest(self) -> float:
        """When one of them was modified last, seconds since 1970."""
        return max(file.mtime_ns for file in self.all) / 1e9

    def reason(self, when: Moment) -> str | None:
        """Why the scene may not be whole yet."""
        if self.missing:
            return f"{self.missing[0]} is not there yet"
        if self.partial:
            return f"{self.partial[0]} lies beside it and is not whole"
        return unsettled(self.main, self.beside, when.now, when.settle)

    def fingerprint(self, candidate: Candidate) -> tuple[dict[str, Any], ...]:
        """One record for each file, by name; then the assets of an item that lie elsewhere."""
        records = [
            {
                "name": _below(file.path, candidate.folder),
                "size": file.size,
                "mtime_ns": file.mtime_ns,
            }
            for file in self.all
        ]
        records.sort(key=lambda record: str(record["name"]))
        item = candidate.item
        if item is not None:
            away = (r for r in rasters_of(item) if local_path(r.href, candidate.folder) is None)
            records += sorted(
                (remote_record(raster, item) for raster in away), key=lambda r: str(r["name"])
            )
        return tuple(records)


def _read_by(path: str, lister: Lister) -> dict[str, File]:
    """The files that a VRT reads and those beside them, as far as they are there.

    One that cannot be understood is refused when it is mapped.
    """
    try:
        read = read_vrt(path).files
    except SceneError:
        return {}
    found = {}
    for place in map(Path, read):
        entries = lister.list(str(place.parent)).entries
        for name in (place.name, *sidecars(place.name)):
            if (entry := entries.get(name)) and (file := look(entry.path, entry)):
                found[file.path] = file
    return found


def _below(path: str, folder: str) -> str:
    own, _, name = path.rpartition("/")
    return name if own == folder else os.path.relpath(path, folder)


def within(area: AreaTable, day: date | None, source: str, notes: Notes) -> bool:
    """Whether a day is one of the area's; one that is not known is, unless it asks for days."""
    if area.since is None and area.until is None:
        return True
    if day is None:
        notes.count(source, "scene", "must tell its day, as the area has since or until")
        return False
    return (area.since or day) <= day <= (area.until or day)


def settled(
    area: str,
    wanted: Sequence[tuple[Candidate, date | None]],
    lister: Lister,
    when: Moment,
    notes: Notes,
) -> list[Found]:
    """Each scene with its files, which are looked at once more when all have been."""
    looked = []
    for candidate, day in wanted:
        try:
            files = Files.of(candidate, lister)
        except OSError as error:
            notes.count(candidate.sources[0], "scene", "cannot be looked at", error.strerror or "")
            continue
        if files.main:
            looked.append((candidate, day, files))
    scenes = []
    for candidate, day, files in looked:
        scene = Found(
            area=area, id=candidate.id, day=day, sources=candidate.sources,
            fingerprint=files.fingerprint(candidate), newest=files.newest,
        )  # fmt: skip
        reason = files.reason(when)
        if reason is not None and when.known(scene.id, scene.fingerprint):
            reason = None
        scenes.append((scene, files, reason))
    found = []
    for scene, files, reason in scenes:
        reason = reason or moved(files.all, [_again(file.path) for file in files.all])
        found.append(replace(scene, state="copying", reason=reason) if reason else scene)
    return found


def _again(path: str) -> File | None:
    try:
        return look(path)
    except OSError:
        return None
