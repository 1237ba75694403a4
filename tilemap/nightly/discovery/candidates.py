"""What may be a scene, from the paths that globs match: which files are its own, and its id."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tilemap.nightly.discovery.items import Json, local_path, rasters_of
from tilemap.nightly.discovery.naming import RASTERS, scene_id, split_suffix

_RANKS = (".json", *RASTERS, ".vrt", "")
"""Which is taken of those that have one name; a folder has no suffix."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may be a scene.

    Args:
        id: see ``scene_id``.
        names: to look for a day in, see ``day_in``; of an item none, it tells its day.
        folder: that the names of its fingerprint start from.
        sources: what ``tilemap.segment`` takes.
        files: that must be whole; sidecars are looked for beside them.
        item: if it is a STAC item.
        whole: the folder is the scene, so all that is in it must be whole.
    """

    id: str
    names: tuple[str, ...]
    folder: str
    sources: tuple[str, ...]
    files: tuple[str, ...]
    item: Json | None = field(default=None, repr=False)
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A path that may be a scene, and the fixed part of the glob that it is named from."""

    path: str
    base: str

    @property
    def below(self) -> str:
        """The path from its base on."""
        return self.path[len(self.base) :].lstrip("/")


@dataclass
class Matches:
    """All that the globs of an area match, by kind.

    Args:
        first: base of the first glob: what is named from it needs no hash.
        rasters: files.
        items: STAC items, with their content.
        folders: with the names of the rasters in them.
    """

    first: str
    rasters: list[Match] = field(default_factory=list)
    items: list[tuple[Match, Json]] = field(default_factory=list)
    folders: list[tuple[Match, Sequence[str]]] = field(default_factory=list)


def candidates(found: Matches) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """Each item, each raster that no item names, each folder none of whose rasters is taken.

    Of those that differ in nothing but the suffix one is taken, so that a scene keeps its id when
    it comes in another format.

    Returns:
        Candidates, and pairs of paths: one that was left out, and the one that has its name.
    """
    taken: set[str] = set()
    named: dict[tuple[str, str], Candidate] = {}
    doubles: list[tuple[str, str]] = []

    def add(match: Match, candidate: Candidate, key: str) -> None:
        other = named.setdefault((match.base, key), candidate)
        if other is not candidate:
            doubles.append((match.path, other.sources[0]))

    for match, item in found.items:
        key = split_suffix(match.below)[0]
        candidate = item_candidate(_id(found, match, key), match.path, item)
        taken.update(candidate.files)
        add(match, candidate, key)
    for match in sorted(found.rasters, key=_rank):
        if match.path in taken:
            continue
        taken.add(match.path)
        key = split_suffix(match.below)[0]
        folder = match.path.rpartition("/")[0]
        one = (match.path,)
        add(match, Candidate(_id(found, match, key), _names(key), folder, one, one), key)
    for match, rasters in found.folders:
        files = tuple(f"{match.path}/{name}" for name in rasters)
        if taken.intersection(files):
            continue
        own, *parents = _names(match.below)
        names = (own, *(split_suffix(name)[0] for name in rasters), *parents)
        candidate = Candidate(
            _id(found, match, match.below), names, match.path, (match.path,), files, whole=True
        )
        add(match, candidate, match.below)
    return list(named.values()), doubles


def item_candidate(name: str, path: str, item: Json) -> Candidate:
    """A STAC item on this disk and the rasters that it has there.

    Args:
        name: its id as a scene.
        path: of the item.
        item: its content.
    """
    folder = path.rpartition("/")[0] or "/"
    places = (local_path(raster.href, folder) for raster in rasters_of(item))
    files = dict.fromkeys([path, *(place for place in places if place)])
    return Candidate(name, (), folder, (path,), tuple(files), item)


def grouped(rasters: Iterable[Match], pattern: str) -> tuple[list[Candidate], list[str]]:
    """Files with the same ``scene`` in their names as one scene.

    Args:
        rasters: files.
        pattern: regular expression with a group ``scene``.

    Returns:
        Candidates, and the paths whose names do not fit.
    """
    fits = re.compile(pattern)
    groups: dict[str, list[str]] = {}
    others = []
    for match in rasters:
        found = fits.search(match.path.rpartition("/")[2])
        if found is None or not found["scene"]:
            others.append(match.path)
        else:
            groups.setdefault(found["scene"], []).append(match.path)
    return [_group(scene, tuple(sorted(files))) for scene, files in groups.items()], others


def _group(scene: str, files: tuple[str, ...]) -> Candidate:
    folder = os.path.commonpath([path.rpartition("/")[0] or "/" for path in files])
    stems = (split_suffix(path.rpartition("/")[2])[0] for path in files)
    return Candidate(scene_id(scene), (scene, *stems), folder, files, files)


def _id(found: Matches, match: Match, key: str) -> str:
    return scene_id(key, "" if match.base == found.first else match.base)


def _names(key: str) -> tuple[str, ...]:
    return tuple(reversed(key.split("/")))


def _rank(match: Match) -> tuple[int, str]:
    return _RANKS.index(split_suffix(match.path)[1].lower()), match.path
