"""Scenes in folders: listed, named, dated, and looked at twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from tilemap.files import decode_json, read_file
from tilemap.nightly.discovery.candidates import Candidate, Match, Matches, candidates, grouped
from tilemap.nightly.discovery.items import (
    LARGEST,
    Json,
    day_of_item,
    is_item,
    is_product,
    rasters_of,
)
from tilemap.nightly.discovery.listing import (
    Glob,
    Lister,
    expand,
    is_file,
    is_folder,
    parse_glob,
)
from tilemap.nightly.discovery.looking import Moment, settled, within
from tilemap.nightly.discovery.naming import RASTERS, day_in, kind_of
from tilemap.nightly.discovery.notes import NO_RASTERS, Notes
from tilemap.nightly.facts import Found, Problem
from tilemap.stores.stac_links import is_url

if TYPE_CHECKING:
    from tilemap.nightly.config import AreaTable


def look_in_folders(
    area: AreaTable, when: Moment, ours: frozenset[str]
) -> tuple[list[Found], list[Problem]]:
    """The scenes of an area that lie in folders, by path.

    Args:
        area: whose folders and globs.
        when: how it is told whether they are whole.
        ours: folders of tilemap itself, as real paths.
    """
    notes, lister = Notes(area.name), Lister(ours)
    matches = _matches(area, lister, notes)
    if area.scene_pattern is None:
        found, doubles = candidates(matches)
        for path, other in doubles:
            notes.count(f"{path} beside {other}", "path", "left out, called like another")
    else:
        found, others = grouped(matches.rasters, area.scene_pattern)
        for path in others:
            notes.count(path, "file", f"must match scene_pattern {area.scene_pattern!r}")
    wanted = [
        (candidate, day)
        for candidate, day in _dated(found)
        if within(area, day, candidate.sources[0], notes)
    ]
    scenes = settled(area.name, wanted, lister, when, notes)
    for path, why in lister.errors.items():
        notes.count(path, "folder", "cannot be listed", why)
    return sorted(scenes, key=lambda scene: scene.sources), notes.all()


def _dated(found: Sequence[Candidate]) -> Iterator[tuple[Candidate, date | None]]:
    for candidate in found:
        if candidate.item is not None:
            yield candidate, day_of_item(candidate.item)
        else:
            yield candidate, day_in(candidate.names)


# --- what the globs match ------------------------------------------------------------------------


def _matches(area: AreaTable, lister: Lister, notes: Notes) -> Matches:
    texts = [text for text in area.scenes if not is_url(text)]
    globs = [glob for text in texts if (glob := _glob(text, notes)) is not None]
    first = area.scenes[0] if area.scenes else ""
    matches = Matches(_base(parse_glob(first)) if first in texts else "")
    seen: set[str] = set()
    for glob in globs:
        for path in expand(glob, lister) if glob.parts else (glob.base,):
            if path not in seen:
                seen.add(path)
                _sort(Match(path, _base(glob)), glob, lister, matches, notes)
    return matches


def _glob(text: str, notes: Notes) -> Glob | None:
    """A folder or glob whose fixed part is there: a volume may be gone, its scenes are not."""
    glob = parse_glob(text)
    try:
        Path(glob.base).stat()
    except FileNotFoundError:
        notes.add(text, f"{glob.base} is missing; is its volume mounted?")
        return None
    except OSError as error:
        notes.add(text, f"{glob.base} cannot be looked at: {error.strerror}")
        return None
    if glob.parts and not Path(glob.base).is_dir():
        kinds = f"{', '.join(RASTERS)}, .vrt or a STAC item (.json)"
        notes.add(text, f"{glob.base} must be a folder or a scene: {kinds}")
        return None
    return glob


def _base(glob: Glob) -> str:
    return glob.base if glob.parts else str(Path(glob.base).parent)


def _sort(match: Match, glob: Glob, lister: Lister, matches: Matches, notes: Notes) -> None:
    """A path to where its kind belongs, if it is of any."""
    folder, _, name = match.path.rpartition("/")
    entry = lister.list(folder or "/").entries.get(name)
    if entry is None:
        return
    kind = kind_of(name, glob.vrt)
    if is_folder(entry):
        if not lister.is_own(match.path) and lister.list(match.path).rasters:
            matches.folders.append((match, lister.list(match.path).rasters))
    elif kind is not None and not _is_text(match.path):
        notes.count(match.path, "file", "must have a name that is UTF-8")
    elif kind is not None and not is_file(entry):
        if entry.is_symlink():
            notes.count(match.path, "link", "to no file")
    elif kind == "raster":
        matches.rasters.append(match)
    elif kind == "item":
        item = read_item(match.path, notes)
        if item is None or (glob.parts and is_product(item)):
            return
        if rasters_of(item):
            matches.items.append((match, item))
        else:
            notes.count(match.path, "item", NO_RASTERS)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_item(path: str, notes: Notes) -> Json | None:
    """A STAC item; None for any other JSON."""
    try:
        if Path(path).stat().st_size > LARGEST:
            return None
        content = read_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        notes.count(path, "file", "cannot be read", error.strerror or "")
        return None
    if b"stac_version" not in content:
        return None
    try:
        item = decode_json(content)
    except ValueError as error:
        notes.count(path, "file", "cannot be read as JSON", str(error))
        return None
    return item if is_item(item) else None
