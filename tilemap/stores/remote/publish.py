"""Finished folders to S3, so that no reader ever sees half a product.

S3 knows no rename. What makes a product visible goes last: sidecars first, then the rasters, then
the JSON files that name them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tilemap.errors import OutputError
from tilemap.stores.remote.limits import MIB
from tilemap.stores.remote.place import RemotePlace, told
from tilemap.stores.remote.s3 import load_obstore

PART = 8 * MIB
"""Bytes of a part of a large file."""
TOGETHER = 4
"""Parts that are sent at a time."""
DIGEST = "sha256"
"""Attribute of an object that says what is in it."""
_TYPES = {
    ".tif": "image/tiff", ".json": "application/json", ".geojson": "application/geo+json",
    ".html": "text/html; charset=utf-8", ".png": "image/png", ".csv": "text/csv; charset=utf-8",
    ".xml": "application/xml", ".qml": "application/xml", ".sld": "application/xml",
    ".parquet": "application/vnd.apache.parquet", ".gpkg": "application/geopackage+sqlite3",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PutReceipt:
    """One file that lies on S3 now.

    Args:
        name: relative to the folder, with slashes.
        url: where it lies.
        bytes: its size.
        sha256: of its bytes; the object says so too.
        sent: False if it was there already.
    """

    name: str
    url: str
    bytes: int
    sha256: str
    sent: bool


def publishing_order(names: Iterable[str]) -> list[str]:
    """Names in the order in which they may become visible.

    >>> publishing_order(["item.json", "map.tif", "map.qml", "map.tif.aux.xml"])
    ['map.qml', 'map.tif.aux.xml', 'map.tif', 'item.json']
    """
    ranks = {".tif": 1, ".tiff": 1, ".json": 2, ".geojson": 0}
    return sorted(names, key=lambda name: (ranks.get(PurePosixPath(name).suffix.lower(), 0), name))


def put_folder(
    folder: Path,
    url: str,
    files: Sequence[str] | None = None,
    allow_hosts: Sequence[str] = (),
) -> list[PutReceipt]:
    """Send the files of a folder; those that are there already are left alone.

    Args:
        folder: of finished files; none of them may change meanwhile.
        url: ``s3://bucket/folder``.
        files: names relative to the folder, with slashes; all files in it if None, without those
            that are not finished (``.partial``).
        allow_hosts: must hold the bucket, and the endpoint if it is not Amazon's.

    Returns:
        One receipt a file, in the order in which they were sent.

    Raises:
        OutputError: if the place may not be asked, or a file cannot be sent or came out otherwise.
            What was sent stays; the same call continues.
        UnavailableError: if obstore is missing.
    """
    place = RemotePlace.parse(url, tuple(allow_hosts))
    names = files if files is not None else _finished(folder)
    return [_put(folder / name, place / name, name) for name in publishing_order(names)]


def put_bytes(url: str, data: bytes, allow_hosts: Sequence[str] = ()) -> PutReceipt:
    """One small file, such as a catalog's; readers see the old one or the new one.

    Raises:
        OutputError: if the place may not be asked, or it cannot be written.
    """
    place = RemotePlace.parse(url, tuple(allow_hosts))
    digest = hashlib.sha256(data).hexdigest()
    same = _holds(place, len(data), digest)
    if not same:
        place.write(data, _attributes(place.name, digest))
        _verify(place, len(data), digest)
    return PutReceipt(place.name, str(place), len(data), digest, not same)


def get_bytes(url: str, allow_hosts: Sequence[str] = ()) -> bytes | None:
    """One small file; None if there is none.

    Raises:
        OutputError: if the place may not be asked, or it cannot be read.
    """
    place = RemotePlace.parse(url, tuple(allow_hosts))
    return None if place.head() is None else place.read()


def list_prefix(url: str, allow_hosts: Sequence[str] = ()) -> dict[str, int]:
    """Size in bytes of every object below an address, by its name relative to it.

    Raises:
        OutputError: if the place may not be asked.
    """
    place = RemotePlace.parse(url, tuple(allow_hosts))
    below = f"{place.key}/" if place.key else ""
    found = dict(place.list())
    return {key.removeprefix(below): size for key, size in found.items() if key.startswith(below)}


def delete_prefix(url: str, allow_hosts: Sequence[str] = ()) -> int:
    """Remove every object below an address, and one that has it as its own; how many there were.

    Raises:
        OutputError: if the place may not be asked, is a whole bucket, or cannot be removed.
    """
    return RemotePlace.parse(url, tuple(allow_hosts)).delete()


def _finished(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise OutputError(f"what is sent must be a folder, got {folder}")
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".partial")
    ]


def _put(path: Path, place: RemotePlace, name: str) -> PutReceipt:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise OutputError(f"cannot read {path}: {problem.strerror}") from problem
    if _holds(place, size, digest):
        return PutReceipt(name, str(place), size, digest, sent=False)
    obstore = load_obstore()
    with told(place, "write"):
        obstore.put(
            place.bucket(), place.key, path, attributes=_attributes(name, digest),
            use_multipart=size > PART, chunk_size=PART, max_concurrency=TOGETHER,
        )  # fmt: skip
    _verify(place, size, digest)
    return PutReceipt(name, str(place), size, digest, sent=True)


def _attributes(name: str, digest: str) -> dict[str, str]:
    kind = _TYPES.get(PurePosixPath(name).suffix.lower(), "application/octet-stream")
    return {DIGEST: digest, "Content-Type": kind}


def _holds(place: RemotePlace, size: int, digest: str) -> bool:
    found = place.head()
    return found is not None and found["size"] == size and found["attributes"].get(DIGEST) == digest


def _verify(place: RemotePlace, size: int, digest: str) -> None:
    """What lies there now is what was sent, as far as its host tells."""
    if not _holds(place, size, digest):
        raise OutputError(f"{place} is not what was sent to it; somebody else writes there too")
