"""Files that workers cannot see, such as a model's weights: brought there by digest.

The driver gives such a file to one worker, piece by piece. From then on the workers fetch it from
each other, one process of each host, and keep it under its digest. The scheduler sees nothing of
it but the first copy.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client, Worker

from tilemap.cluster.wheel import cache_folder
from tilemap.errors import StoreError, TilemapError
from tilemap.files import open_file

PIECE_BYTES = 4 << 20
WAIT_S = 120.0
"""How long a worker looks for another that has a file."""
AGAIN_S = 0.3
HANDLER = "tilemap_piece"


@dataclass(frozen=True, slots=True)
class Shipped:
    """A file that workers need.

    Args:
        path: where it may lie, on any machine.
        digest: SHA-256, hexadecimal.
    """

    path: Path
    digest: str


def _sha256(path: Path) -> str | None:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _kept(file: Shipped, fallback: str | None) -> Path:
    # The suffix tells what kind of model it is.
    return cache_folder(fallback) / f"{file.digest}{file.path.suffix}"


def find(file: Shipped, fallback: str | None = None) -> Path | None:
    """The file where this machine has it: at its own path, or kept from before."""
    for place in (file.path, _kept(file, fallback)):
        if _sha256(place) == file.digest:
            return place
    return None


def _holds(files: tuple[Shipped, ...], dask_worker: Worker) -> list[bool]:
    return [find(file, dask_worker.local_directory) is not None for file in files]


def _take(file: Shipped, offset: int, piece: bytes, last: bool, dask_worker: Worker) -> None:
    """One piece from the driver; with the last the file is whole."""
    place = _kept(file, dask_worker.local_directory)
    part = place.with_name(f".{place.name}.{dask_worker.id}")
    with part.open("r+b" if offset else "wb") as out:
        out.seek(offset)
        out.write(piece)
    if last:
        _seal(part, place, file)


def _seal(part: Path, place: Path, file: Shipped) -> None:
    found = _sha256(part)
    if found != file.digest:
        part.unlink()
        raise StoreError(f"{file.path.name} must arrive with sha256 {file.digest}, it has {found}")
    part.replace(place)


def seed(client: Client, files: Iterable[Shipped]) -> None:
    """Give files to one worker, if there are workers and none of them has them.

    Raises:
        StoreError: if a file does not arrive as it was.
    """
    several = tuple(files)
    held: dict[str, list[bool]] = client.run(_holds, several, on_error="ignore")
    for number, file in enumerate(several):
        if any(has[number] for has in held.values()):
            continue
        for worker in sorted(held):  # the next one, where one is lost meanwhile
            if _give(client, file, worker):
                break


def _give(client: Client, file: Shipped, worker: str) -> bool:
    """Give a file to a worker; whether it was there to the end."""
    size = file.path.stat().st_size
    with file.path.open("rb") as source:
        for offset in range(0, max(size, 1), PIECE_BYTES):
            piece = source.read(PIECE_BYTES)
            last = offset + PIECE_BYTES >= size
            try:
                client.run(_take, file, offset, piece, last, workers=[worker])
            except TilemapError:
                raise
            except OSError:
                if worker in client.nthreads():
                    raise
                return False
    return True


class _Pieces:
    """What a worker answers to others that ask for a file; no other file than those it was told."""

    def __init__(self, worker: Worker) -> None:
        self._fallback = worker.local_directory
        self._known: dict[str, Shipped] = {}
        self._places: dict[str, Path] = {}

    def know(self, files: Iterable[Shipped]) -> None:
        """Answer for these as well."""
        self._known |= {file.digest: file for file in files}

    def piece(self, digest: str, offset: int) -> dict[str, Any]:
        """One piece, and the size of the whole; -1 if the file is not here."""
        place = self._places.get(digest)
        if place is None:
            known = self._known.get(digest)
            place = None if known is None else find(known, self._fallback)
            if place is None:
                return {"status": "OK", "size": -1, "data": b""}
            self._places[digest] = place
        with place.open("rb") as file:
            file.seek(offset)
            data = file.read(PIECE_BYTES)
        return {"status": "OK", "size": place.stat().st_size, "data": data}


def serve(worker: Worker, files: Iterable[Shipped]) -> None:
    """Let other workers fetch these files from this one, as soon as it has them."""
    answers = getattr(worker.handlers.get(HANDLER), "__self__", None)
    if answers is None:
        answers = _Pieces(worker)
        worker.handlers[HANDLER] = answers.piece
    answers.know(files)


async def provide(worker: Worker, file: Shipped, wait_s: float = WAIT_S) -> Path:
    """The file on this machine; fetched from another worker if it must be.

    Raises:
        StoreError: if nobody has it, or it does not arrive as it was.
    """
    found = find(file, worker.local_directory)
    if found is not None:
        return found
    place = _kept(file, worker.local_directory)
    deadline = time.monotonic() + wait_s
    async with _alone(place, deadline):
        while not place.exists():
            await _fetch(worker, file, place)
            if place.exists():
                break
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{file.path} must be seen by the workers, or by one of them; none has a file "
                    f"with sha256 {file.digest[:12]}..."
                )
            await asyncio.sleep(AGAIN_S)
    return place


async def _fetch(worker: Worker, file: Shipped, place: Path) -> None:
    """Ask the others, in any order: so that not all ask the same one."""
    others = [address for address in await worker.scheduler.ncores() if address != worker.address]
    random.shuffle(others)
    for address in others:
        number, name = tempfile.mkstemp(prefix=".part-", dir=place.parent)
        part = Path(name)
        try:
            with os.fdopen(number, "wb") as out:
                whole = await _copy(worker, address, file.digest, out)
            if whole:
                _seal(part, place, file)
                return
        except Exception:  # whatever is wrong with it, another one may have the file
            continue
        finally:
            part.unlink(missing_ok=True)


async def _copy(worker: Worker, address: str, digest: str, out: Any) -> bool:
    size = offset = 0
    while offset < size or offset == 0:
        answer = await getattr(worker.rpc(address), HANDLER)(digest=digest, offset=offset)
        size = answer["size"]
        if size < 0:
            return False
        out.write(answer["data"])
        offset += len(answer["data"])
        if not answer["data"]:
            break
    return offset == size


@asynccontextmanager
async def _alone(place: Path, deadline: float) -> AsyncIterator[None]:
    """One process of a host at a time; the others find the file when it is their turn."""
    with place.with_name(f".{place.name}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(AGAIN_S)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
