"""Folders as they are listed, once each in a pass, and globs over them."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tilemap.nightly.discovery.naming import RASTERS, VRT, is_left_out, kind_of, whole_name

RUN_FILE = "run.json"
"""Lies in every folder that tilemap has made."""
_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Listing:
    """One folder.

    Args:
        path: of the folder.
        entries: by name.
        error: why it could not be listed, or not to its end.
    """

    path: str
    entries: Mapping[str, os.DirEntry[str]]
    error: str | None = None

    @cached_property
    def partial(self) -> Mapping[str, str]:
        """Files that are not whole yet, by the name that they will have."""
        named = ((whole_name(name), name) for name in self.entries)
        return {whole: name for whole, name in named if whole is not None}

    @cached_property
    def rasters(self) -> tuple[str, ...]:
        """Names of the rasters that lie in it directly, sorted."""
        return tuple(
            sorted(
                name
                for name, entry in self.entries.items()
                if name.lower().endswith(RASTERS) and not is_left_out(name) and is_file(entry)
            )
        )


@dataclass
class Lister:
    """Lists folders, and remembers what it has listed and what it could not.

    Args:
        ours: folders of tilemap itself, as real paths: no input unless they are named.
    """

    ours: frozenset[str] = frozenset()
    errors: dict[str, str] = field(default_factory=dict)
    """Why, by path."""
    _seen: dict[str, Listing] = field(default_factory=dict)

    def list(self, path: str) -> Listing:
        """One folder; one that cannot be listed is empty, and an error."""
        if path not in self._seen:
            entries: dict[str, os.DirEntry[str]] = {}
            error = None
            try:
                with os.scandir(path) as found:
                    for entry in found:
                        entries[entry.name] = entry
            except OSError as problem:
                error = problem.strerror or str(problem)
                self.errors[path] = error
            self._seen[path] = Listing(path, dict(sorted(entries.items())), error)
        return self._seen[path]

    def is_own(self, path: str) -> bool:
        """Whether tilemap has made a folder."""
        if self.ours and str(Path(path).resolve()) in self.ours:
            return True
        return RUN_FILE in self.list(path).entries


@dataclass(frozen=True, slots=True)
class Glob:
    """A folder, or a pattern of paths.

    Args:
        text: as a person wrote it.
        base: the part without wildcards, that ids start from.
        parts: names below it, with wildcards; empty for one file.
    """

    text: str
    base: str
    parts: tuple[str, ...]

    @property
    def vrt(self) -> bool:
        """Whether VRTs are meant."""
        return (self.parts[-1] if self.parts else self.text).lower().endswith(VRT)


def parse_glob(text: str) -> Glob:
    """The fixed part of a path and the rest.

    A folder is a glob of all that lies in it. A bracket may belong to a name: where such a folder
    exists, it is meant.
    """
    root, *parts = Path(os.path.normpath(Path(text).absolute())).parts
    base, rest = Path(root), list[str]()
    for part in parts:
        magic = _MAGIC.search(part) is not None
        if rest or (magic and ({"*", "?"} & set(part) or not os.path.lexists(base / part))):
            if not (part == "**" and rest[-1:] == ["**"]):
                rest.append(part)
        else:
            base = base / part
    if rest:
        return Glob(text, str(base), tuple(rest))
    one = kind_of(base.name, vrt=True) is not None and not base.is_dir()
    return Glob(text, str(base), () if one else ("*",))


def expand(glob: Glob, lister: Lister) -> Iterator[str]:
    """Paths of everything that a glob matches, each once; folders of tilemap's own left out.

    ``**`` is any number of folders. It does not follow links to folders, a single part does, except
    to a folder that holds it: so links in a circle end.
    """
    stack, seen = [(glob.base, glob.parts)], set[str]()
    while stack:
        folder, (part, *rest) = stack.pop()
        if folder != glob.base and lister.is_own(folder):
            continue
        listing = lister.list(folder)
        if part == "**":
            stack.append((folder, tuple(rest) or ("*",)))
            stack += [
                (entry.path, (part, *rest))
                for name, entry in listing.entries.items()
                if not is_left_out(name) and not entry.is_symlink() and is_folder(entry)
            ]
            continue
        for name in _matching(listing, part):
            entry = listing.entries[name]
            if not rest:
                if entry.path not in seen:
                    seen.add(entry.path)
                    yield entry.path
            elif is_folder(entry):
                stack.append((entry.path, tuple(rest)))


def _matching(listing: Listing, part: str) -> list[str]:
    if not _MAGIC.search(part):
        return [part] if part in listing.entries else []
    fits = re.compile(fnmatch.translate(part)).match
    return [name for name in listing.entries if fits(name) and not is_left_out(name, part)]


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a plain file, or leads to one."""
    try:
        return entry.is_file()
    except OSError:
        return False


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or leads to one that does not hold it."""
    try:
        if not entry.is_dir():
            return False
    except OSError:
        return False
    if not entry.is_symlink():
        return True
    here = Path(entry.path)
    return not here.parent.resolve().is_relative_to(here.resolve())


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was at one look.

    Args:
        path: absolute.
        size: in bytes.
        mtime_ns: when it was modified, nanoseconds since 1970.
    """

    path: str
    size: int
    mtime_ns: int


def look(path: str, entry: os.DirEntry[str] | None = None) -> File | None:
    """One look at a file; None if it is none, or not there.

    Args:
        path: of it.
        entry: as it was listed, if it was: spares a call where the system remembers.

    Raises:
        OSError: if it cannot be looked at.
    """
    try:
        # a Path for each of many files costs more than the look itself
        found = os.stat(path) if entry is None else entry.stat()  # noqa: PTH116
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return File(path, found.st_size, found.st_mtime_ns)
