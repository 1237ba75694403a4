"""Fingerprints: the content of the files that a run reads, and a check that they stay as they are.

A fingerprint says nothing of a file's name or place, so a file that is moved is still the same.
Files of up to 1 GiB together are hashed whole. Of larger ones samples over the whole length are
hashed, and the time of modification counts too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tilemap.errors import InputChangedError, SceneError, StoreError
from tilemap.files import open_file, read_file
from tilemap.stores.remote.blocks import RemoteFile, RemoteReader
from tilemap.stores.vrt import drop_statistics, read_vrt, without_places

WHOLE_BYTES = 1 << 30
SAMPLE_BYTES = 64 * 1024
AUXILIARY = ".aux.xml"
_MOST_SAMPLES = 1024
"""Of all files of a run together; each has one at either end, and at most 64."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One file as it was found.

    Args:
        path: absolute; the address of a remote file, without what may be secret.
        size: bytes.
        sha256: of the content, or of its samples.
        samples: how many were hashed; 0 for the whole content.
        version: ETag of a remote file, else when it was modified.
        state: what a look at the file tells, here and now; it is no part of the content.
        remote: the file where it is not on this disk.
    """

    path: str
    size: int
    sha256: str
    samples: int = 0
    version: str | None = None
    state: tuple[int, ...] = ()
    remote: RemoteFile | None = None

    @property
    def name(self) -> str:
        """Of the file, for people."""
        return Path(self.path).name if self.remote is None else self.remote.address.name

    def record(self) -> dict[str, Any]:
        """The content as plain JSON: equal records are of equal files."""
        found: dict[str, Any] = {"size": self.size, "sha256": self.sha256}
        if self.samples:
            found["samples"] = self.samples
        if self.version is not None:
            found["version"] = self.version
        return found


@dataclass(frozen=True)
class Inputs:
    """The files that a run reads, as they were when it was planned; small, travels to workers.

    Args:
        files: a fingerprint each.
    """

    files: tuple[Fingerprint, ...] = ()

    @classmethod
    def of(cls, paths: Iterable[str], remote: Mapping[str, RemoteFile] | None = None) -> Inputs:
        """Take the fingerprint of each file.

        Args:
            paths: absolute paths and addresses, each taken once.
            remote: the files behind the addresses.

        Raises:
            SceneError: if a file is gone.
            StoreError: if one cannot be read.
        """
        remote, names = remote or {}, list(dict.fromkeys(paths))
        sizes = {name: _size(name) for name in names if name not in remote}
        samples = 0
        if sum(sizes.values()) > WHOLE_BYTES:
            samples = min(64, max(2, _MOST_SAMPLES // len(names)))
        return cls(
            tuple(
                _take_remote(remote[name])
                if name in remote
                else _take(name, samples if sizes[name] > samples * SAMPLE_BYTES else 0)
                for name in names
            )
        )

    @property
    def local(self) -> tuple[str, ...]:
        """Paths of the files on this disk."""
        return tuple(file.path for file in self.files if file.remote is None)

    @cached_property
    def position(self) -> dict[str, int]:
        """Position of each path among the files."""
        return {file.path: number for number, file in enumerate(self.files)}

    def records(self, only: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """The content of each file as plain JSON, in their order.

        Args:
            only: paths of some of them, in the order wanted.
        """
        return [file.record() for file in self._chosen(only)]

    def _chosen(self, only: Iterable[str] | None) -> Sequence[Fingerprint]:
        return self.files if only is None else [self.files[self.position[p]] for p in only]

    def confirm(self, only: Collection[str] | None = None) -> Inputs:
        """Check that the files are what they were.

        A file that looks as it did is not read again. One that looks otherwise, as on another
        machine, is read and compared.

        Args:
            only: paths to look at; all files by default.

        Returns:
            The same files as they look here and now.

        Raises:
            InputChangedError: if one is gone, has other content, or was written in place.
            StoreError: if one cannot be read.
        """
        moved = {file.path: now for file in self._chosen(only) if (now := _again(file)) is not file}
        if not moved:
            return self
        return Inputs(tuple(moved.get(file.path, file) for file in self.files))


def files_of(path: str) -> tuple[str, ...]:
    """Absolute paths of the files that a named file is made of, itself first; opens no raster.

    A raster has its mask beside it, a VRT reads others, a shapefile is several files.
    """
    place = Path(path).absolute()
    suffix, files = place.suffix.lower(), [str(place)]
    if suffix == ".shp":
        files += [str(place.with_suffix(s)) for s in (".dbf", ".shx", ".prj", ".cpg")]
    elif suffix == ".vrt":
        files += read_vrt(str(place)).files
    beside = [f"{file}{s}" for file in files for s in (".msk", AUXILIARY)]
    found = dict.fromkeys([*files, *beside])
    return tuple(f for f in found if f == str(place) or (Path(f).is_file() and says_more(f)))


def says_more(path: str) -> bool:
    """Return False if a file holds nothing but the statistics that a GIS leaves."""
    return not path.endswith(AUXILIARY) or bool(_without_statistics(path))


def _without_statistics(path: str) -> bytes:
    """An ``.aux.xml`` without statistics; empty if nothing is left."""
    content = read_file(path)
    if b"<!" in content:  # entities can be made to fill the memory
        return content
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError):
        return content
    for element in root.iter():
        drop_statistics(element)
    for band in root.findall("PAMRasterBand"):
        if not len(band):
            root.remove(band)
    return ElementTree.tostring(root) if len(root) else b""


def _again(file: Fingerprint) -> Fingerprint:
    """The fingerprint of a file as it is now; the same object if it looks as it did."""
    if file.remote is not None:
        now = _take_remote(file.remote)
        if now.record() != file.record():
            raise _changed(file, "has changed")
        return file
    try:
        state = _state(Path(file.path).stat())
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise _changed(file, "is gone") from problem
    except OSError as problem:
        raise StoreError(f"cannot read {file.path}: {problem.strerror}") from problem
    if state == file.state:
        return file
    if not Path(file.path).is_file():
        raise _changed(file, "is no file any more")
    same_place, written = state[:2] == file.state[:2], state[2:4] != file.state[2:4]
    if same_place and written and not _is_text(file.path):  # for a while it was anything
        raise _changed(file, "was written to")
    now = _take(file.path, file.samples)
    if (now.size, now.sha256) != (file.size, file.sha256):
        raise _changed(file, "has changed")
    return replace(file, state=now.state)


def _is_text(path: str) -> bool:
    """Return True for the files into which a GIS writes statistics."""
    return path.endswith(AUXILIARY) or path.lower().endswith(".vrt")


def _changed(file: Fingerprint, what: str) -> InputChangedError:
    return InputChangedError(
        f"{file.path} must stay as it is during the run, it {what}; nothing was published.\n"
        "Put it back, or start again from the file as it is now"
    )


def _size(path: str) -> int:
    with _reading(path):
        return Path(path).stat().st_size


def _state(found: os.stat_result) -> tuple[int, ...]:
    """Nobody can set the last of these, the time of the last change of any kind."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _take(path: str, samples: int) -> Fingerprint:
    with _reading(path), open_file(path) as file:
        found = os.fstat(file.fileno())
        size, state = found.st_size, _state(found)
        if _is_text(path):
            vrt = path.lower().endswith(".vrt")
            content = without_places(path) if vrt else _without_statistics(path)
            return Fingerprint(path, len(content), hashlib.sha256(content).hexdigest(), state=state)
        if not samples:
            return Fingerprint(path, size, hashlib.file_digest(file, "sha256").hexdigest(), 0,
                               None, state)  # fmt: skip
        digest = hashlib.sha256()
        for start in _starts(size, samples):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
        return Fingerprint(path, size, digest.hexdigest(), samples, str(found.st_mtime_ns), state)


def _take_remote(file: RemoteFile) -> Fingerprint:
    """Ask how a remote file is now, in one or two requests; its two ends are hashed.

    Raises:
        SceneError: if it is gone.
        StoreError: if it cannot be read.
    """
    now = RemoteReader.find(file.address, file.allow)
    digest = hashlib.sha256(now.read(0, SAMPLE_BYTES))
    if now.size > SAMPLE_BYTES:
        digest.update(now.read_many([(max(SAMPLE_BYTES, now.size - SAMPLE_BYTES), now.size)])[0])
    return Fingerprint(
        file.address.shown, now.size, digest.hexdigest(), 2, now.file.state.version, remote=file
    )


def _starts(size: int, samples: int) -> Sequence[int]:
    """Where samples begin, evenly over the length, both ends included."""
    last = max(0, size - SAMPLE_BYTES)
    return sorted({last * number // (samples - 1) for number in range(samples)})


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what the system says of a file into an error that names it."""
    try:
        yield
    except FileNotFoundError as problem:
        raise SceneError(f"no such file: {path}") from problem
    except OSError as problem:
        raise StoreError(f"cannot read {path}: {problem.strerror}") from problem
